"""What SoftmaxRegressionCV takes, refuses, shows and leaves."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import sklearn.base
from cv_models import CS, assert_same_choice, attributes, theirs, tight
from data import overlapping, real
from sklearn.model_selection import ShuffleSplit

import csoftmax
from csoftmax import ConvergenceWarning, SoftmaxRegression, SoftmaxRegressionCV

# ---- input --------------------------------------------------------------------------------------------------------


class Halves:
    """The least that a splitter is."""

    def split(self, X, y):
        assert len(X) == len(y)
        half = np.arange(len(y)) % 2 == 0
        yield np.flatnonzero(half), np.flatnonzero(~half)
        yield ~half, half


@pytest.mark.parametrize("kind", ["list", "generator", "masks", "splitter", "own splitter"])
def test_cv_as_splits(kind):
    X, y = overlapping(120, 4, 3)
    splits = list(Halves().split(X, y))
    splits[1] = tuple(map(np.flatnonzero, splits[1]))
    cv = {
        "list": splits,
        "generator": (split for split in splits),
        "masks": [tuple(np.isin(np.arange(120), part) for part in split) for split in splits],
        "splitter": ShuffleSplit(2, random_state=0),
        "own splitter": Halves(),
    }[kind]
    expected = list(cv.split(X)) if kind == "splitter" else splits
    model, other = tight(X, y, cv=cv), theirs(X, y, cv=expected)
    assert_same_choice(model, other)


@pytest.mark.parametrize("labels", [["oak", "ash", "elm"], [b"oak", b"ash", b"elm"], [2.0, -1.0, 0.0], [7, -3, 10**12]])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_labels_and_dtypes(labels, n_classes, dtype):
    X, y = overlapping(150, 4, n_classes)
    names = np.array(labels[:n_classes])
    model = SoftmaxRegressionCV(Cs=CS, cv=3).fit(X.astype(dtype), names[y])
    np.testing.assert_array_equal(model.classes_, np.sort(names))
    assert model.predict(X.astype(dtype)).dtype == names.dtype
    assert {model.coef_.dtype, model.intercept_.dtype, model.coefs_paths_.dtype} == {np.dtype(dtype)}
    plain = SoftmaxRegressionCV(Cs=CS, cv=3).fit(X.astype(dtype), np.argsort(np.argsort(names))[y])
    np.testing.assert_array_equal(model.scores_, plain.scores_)
    np.testing.assert_array_equal(model.coef_, plain.coef_)


X, Y = overlapping(60, 4, 3)
HALF = np.arange(30)


@pytest.mark.parametrize(
    ("exception", "words", "parameters"),
    [
        (ValueError, ["Cs=0", "1"], {"Cs": 0}),
        (TypeError, ["Cs=True"], {"Cs": True}),
        (TypeError, ["Cs=1.5", "sequence"], {"Cs": 1.5}),
        (TypeError, ["Cs=None", "sequence"], {"Cs": None}),
        (ValueError, ["Cs=[]", "empty"], {"Cs": []}),
        (ValueError, ["Cs[1]=0.0", "above 0"], {"Cs": [1.0, 0.0]}),
        (ValueError, ["Cs[0]=-1", "above 0"], {"Cs": [-1]}),
        (ValueError, ["Cs[1]=nan"], {"Cs": [1, np.nan]}),
        (TypeError, ["Cs[0]='1'"], {"Cs": "1"}),
        (TypeError, ["l1_ratios=0.5", "sequence"], {"l1_ratios": 0.5}),
        (TypeError, ["l1_ratios=None", "sequence"], {"l1_ratios": None}),
        (ValueError, ["l1_ratios=()", "empty"], {"l1_ratios": ()}),
        (ValueError, ["l1_ratios[1]=1.5", "0", "1"], {"l1_ratios": [0, 1.5]}),
        (ValueError, ["l1_ratios[0]=-0.1"], {"l1_ratios": [-0.1]}),
        (TypeError, ["l1_ratios[0]='a'"], {"l1_ratios": ["a"]}),
        (ValueError, ["cv=1", "at least 2"], {"cv": 1}),
        (TypeError, ["cv=True"], {"cv": True}),
        (TypeError, ["cv='five'", "number of folds"], {"cv": "five"}),
        (TypeError, ["cv=2.5", "number of folds"], {"cv": 2.5}),
        (ValueError, ["cv", "no split"], {"cv": []}),
        (ValueError, ["cv", "split 0", "(train, test)"], {"cv": [3]}),
        (ValueError, ["cv", "split 1", "(train, test)"], {"cv": [(HALF, HALF + 30), (HALF, HALF, HALF)]}),
        (ValueError, ["split 0, test", "31 to 60", "0 to 59"], {"cv": [(HALF, HALF + 31)]}),
        (ValueError, ["split 0, train", "-1"], {"cv": [(HALF - 1, HALF)]}),
        (ValueError, ["split 0, train", "float64"], {"cv": [(HALF + 0.0, HALF)]}),
        (ValueError, ["split 0, test", "(2, 15)"], {"cv": [(HALF, HALF.reshape(2, 15))]}),
        (ValueError, ["split 0, test", "(0,)"], {"cv": [(HALF, [])]}),
        (ValueError, ["split 0, test", "bool", "(30,)"], {"cv": [(HALF, HALF > 3)]}),
        (ValueError, ["split 0", "two", "1 class"], {"cv": [(np.flatnonzero(Y == 1), HALF)]}),
        (ValueError, ["scoring", "speed"], {"scoring": "speed"}),
        (TypeError, ["scoring=3"], {"scoring": 3}),
        (ValueError, ["scoring", "NaN", "C=", "split 0"], {"scoring": lambda model, X, y: np.nan}),
        (TypeError, ["scoring", "real number"], {"scoring": lambda model, X, y: "good"}),
        (ZeroDivisionError, [], {"scoring": lambda model, X, y: 1 / 0}),
        (TypeError, ["refit=1"], {"refit": 1}),
        (ValueError, ["solver='sag'"], {"solver": "sag"}),
        (ValueError, ["tol=-1"], {"tol": -1}),
        (ValueError, ["n_threads=0"], {"n_threads": 0}),
        (TypeError, ["verbose"], {"verbose": "yes"}),
        (ValueError, ["class_weight"], {"class_weight": "equal"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_parameters(exception, words, parameters):
    fitted = SoftmaxRegressionCV(Cs=[1.0], cv=2).fit(X, Y)
    before = attributes(fitted)
    for model in (SoftmaxRegressionCV(**parameters), fitted.set_params(**parameters)):
        with pytest.raises(exception) as caught:
            model.fit(X, Y)
        for word in words:
            assert word in str(caught.value)
    assert all(value is before[name] for name, value in attributes(fitted).items())
    assert len(attributes(fitted)) == len(before)


def test_bad_data():
    model = SoftmaxRegressionCV(Cs=[1.0], cv=2)
    with pytest.raises(ValueError, match="59"):
        model.fit(X, Y[:59])
    with pytest.raises(ValueError, match="negative"):
        model.fit(X, Y, -np.ones(60))
    with pytest.raises(ValueError, match="one class"):
        model.fit(X, np.zeros(60))
    with pytest.raises(ValueError, match="weight"):
        SoftmaxRegressionCV(Cs=[1.0], cv=[(HALF, HALF + 30)]).fit(X, Y, np.arange(60) < 30)
    with pytest.raises(csoftmax.NotFittedError):
        SoftmaxRegressionCV().score(X, Y)
    with pytest.raises(csoftmax.NotFittedError):
        SoftmaxRegressionCV().predict(X)


def test_parameters():
    model = SoftmaxRegressionCV(Cs=[1.0, 2.0], scoring="accuracy")
    names = "Cs class_weight cv fit_intercept l1_ratios learning_rate max_iter n_threads refit scoring solver tol"
    assert sorted(model.get_params()) == [*names.split(), "verbose"]
    assert sklearn.base.clone(model).get_params() == model.get_params()
    with pytest.raises(TypeError):
        SoftmaxRegressionCV(10)
    assert sklearn.base.is_classifier(model)


# ---- without scikit-learn -----------------------------------------------------------------------------------------

WITHOUT = """
import sys
sys.modules["sklearn"] = None  # as if it were not installed
import numpy as np
from csoftmax import SoftmaxRegressionCV
X, y = np.random.default_rng(0).standard_normal((60, 3)), np.arange(60) % 3
half = np.arange(60) < 30
cv = [(half, ~half), (~half, half)]
print(SoftmaxRegressionCV(cv=cv).fit(X, y).scores_.shape)
print(SoftmaxRegressionCV(cv=cv, scoring=lambda model, X, y: model.score(X, y)).fit(X, y).scores_.shape)
for parameters in ({}, {"cv": 3}, {"cv": cv, "scoring": "neg_log_loss"}):
    try:
        SoftmaxRegressionCV(**parameters).fit(X, y)
    except ImportError as error:
        print(error)
"""


def test_without_scikit_learn_own_splits_are_taken_and_the_extra_is_named():
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", WITHOUT], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["(2, 1, 10)"] * 2
    assert len(lines) == 5
    for line, cause in zip(lines[2:], ("cv=None", "cv=3", "scoring='neg_log_loss'"), strict=True):
        assert cause in line
        assert "csoftmax[sklearn]" in line


# ---- warnings, progress, copies -----------------------------------------------------------------------------------


def test_fits_that_do_not_converge_are_told_once():
    X, y = real("digits")
    model = SoftmaxRegressionCV(Cs=[1e-4, 1.0], cv=2, max_iter=2)
    with pytest.warns(ConvergenceWarning, match=r"5 of 5 fits .* fold 0 with C=0.0001 .* max_iter") as caught:
        model.fit(X, y)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert (model.n_iter_ == 2).all()
    assert not model.fit_report_.converged


def test_progress_is_shown(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    SoftmaxRegressionCV(Cs=[0.1, 1.0], cv=3, verbose=1).fit(X, Y)
    shown = capsys.readouterr().err
    assert "fit 6/6: fold" in shown
    assert "C=0.1" in shown
    assert shown.endswith("\n")
    SoftmaxRegressionCV(Cs=[0.1, 1.0], cv=3).fit(X, Y)
    assert not capsys.readouterr().err


def test_copies_files_and_reports(tmp_path):
    model = SoftmaxRegressionCV(Cs=[0.1, 1.0], cv=3, scoring="neg_log_loss").fit(X, Y)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict_proba(X), model.predict_proba(X))
    assert copy.score(X, Y) == model.score(X, Y) < 0
    model.save(tmp_path / "model.npz")
    served = csoftmax.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(served.predict_log_proba(X), model.predict_log_proba(X))
    assert served.training_report["objective"] == model.fit_report_.objective


def test_scorers_see_fitted_estimators():
    seen = []

    def look(model, X, y):
        seen.append((model.C, model.coef_, model.fit_report_.converged, model.predictor().predict(X), type(model)))
        assert sklearn.base.is_classifier(model)
        return model.score(X, y)

    model = SoftmaxRegressionCV(Cs=[0.1, 1.0], cv=2, scoring=look).fit(X, Y)
    assert [C for C, *_ in seen] == [0.1, 1.0] * 2
    np.testing.assert_array_equal([coef for _, coef, *_ in seen], model.coefs_paths_[:, 0, :, :, :-1].reshape(4, 3, 4))
    assert all(converged and issubclass(kind, SoftmaxRegression) for *_, converged, _, kind in seen)


# ---- the end ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_an_interrupt_ends_all_folds(n_threads):
    X, y = real("digits")
    model = SoftmaxRegressionCV(solver="gd", learning_rate=1e-3, tol=1e-12, max_iter=10**6, cv=2, n_threads=n_threads)
    sent = []

    def send():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.3, send)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert time.perf_counter() - sent[0] < 5
    assert not attributes(model)
    assert SoftmaxRegressionCV(Cs=[1.0], cv=2, n_threads=2).fit(X[:300], y[:300]).fit_report_.converged
