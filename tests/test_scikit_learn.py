"""SoftmaxRegression inside scikit-learn: its own checks of estimators, and its tools, which find what they find for
LogisticRegression."""

import copy
import functools
import importlib.metadata
import io
import pickle
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pytest
import scipy.sparse
import sklearn
from data import overlapping, real
from sklearn.base import BaseEstimator, ClassifierMixin, clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.exceptions import ConvergenceWarning, InconsistentVersionWarning, NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted

import csoftmax
from csoftmax import SoftmaxRegression, SoftmaxRegressionCV

X, Y = overlapping()
WEIGHT = np.random.default_rng(5).uniform(0.1, 2, len(Y))
VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
PREDICTIONS = ["predict", "predict_proba", "predict_log_proba", "decision_function"]


def ours(**parameters):
    return SoftmaxRegression(**{"tol": 1e-10, **parameters})


def theirs(**parameters):
    return LogisticRegression(**{"tol": 1e-10, "solver": "newton-cholesky", **parameters})


def run(code, *arguments):
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-P", "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- its checks -------------------------------------------------------------------------------------------------


def checks():
    """Each check that scikit-learn has for a classifier; it warns of all that do not inherit from its base class."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Estimator SoftmaxRegression.* does not inherit", UserWarning)
        solvers = [SoftmaxRegression(solver=solver) for solver in ("auto", "newton", "lbfgs")]
        for estimator in (*solvers, SoftmaxRegression(l1_ratio=0.5), SoftmaxRegressionCV(Cs=3, cv=3)):
            yield from estimator_checks.estimator_checks_generator(estimator)
            names = estimator_checks.check_dataframe_column_names_consistency
            yield estimator, functools.partial(names, type(estimator).__name__)


def check_name(value):
    while isinstance(value, functools.partial):
        value = value.func
    return getattr(value, "__name__", repr(value))


@pytest.mark.parametrize(("estimator", "check"), list(checks()), ids=check_name)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


# ---- without it -------------------------------------------------------------------------------------------------

ALONE = """
import sys, pickle, warnings
import numpy as np
import csoftmax
from csoftmax import SoftmaxRegression
X, y = np.random.default_rng(0).standard_normal((60, 3)), np.arange(60) % 3
model = SoftmaxRegression(C=2.0).fit(X, y)
for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
    getattr(model, method)(X)
model.score(X, y)
pickle.loads(pickle.dumps(model))
assert model._repr_html_() == "<pre>SoftmaxRegression(C=2.0)</pre>"
try:
    SoftmaxRegression().predict(X)
except csoftmax.NotFittedError as error:
    assert type(error) is csoftmax.NotFittedError
    assert type(pickle.loads(pickle.dumps(error))) is csoftmax.NotFittedError
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    SoftmaxRegression(max_iter=1, solver="lbfgs", tol=1e-9).fit(X, y[:, None])
    state = model.__getstate__()
    SoftmaxRegression().__setstate__({**state, "_csoftmax_version": "0.0.1"})
print([w.category.__name__ for w in caught], all(issubclass(w.category, UserWarning) for w in caught))
print([name for name in sys.modules if name.partition(".")[0] == "sklearn"])
"""


def test_nothing_of_scikit_learn_is_imported():
    names = ["DataConversionWarning", "ConvergenceWarning", "InconsistentVersionWarning"]
    assert run(ALONE).splitlines() == [f"{names} True", "[]"]


# ---- errors and warnings ----------------------------------------------------------------------------------------


def test_not_fitted_is_their_error_and_ours():
    for kind in (NotFittedError, csoftmax.NotFittedError, ValueError, AttributeError):
        with pytest.raises(kind, match="This SoftmaxRegression instance is not fitted yet") as caught:
            SoftmaxRegression().predict(X)
        assert type(caught.value).__name__ == "NotFittedError"
        again = pickle.loads(pickle.dumps(caught.value))
        assert isinstance(again, kind)
        assert str(again) == str(caught.value)
        assert isinstance(copy.copy(caught.value), kind)
    with pytest.raises(NotFittedError):
        check_is_fitted(SoftmaxRegression())
    check_is_fitted(SoftmaxRegression().fit(X, Y))


def test_the_joint_errors_reach_a_process_without_scikit_learn():
    with pytest.raises(NotFittedError) as caught:
        SoftmaxRegression().predict(X)
    code = (
        "import pickle, sys\n"
        "error = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "print(type(error).__module__, type(error).__mro__[1].__module__, error, 'sklearn' in sys.modules)"
    )
    expected = f"csoftmax._errors csoftmax._errors {caught.value} False\n"
    assert run(code, pickle.dumps(caught.value).hex()) == expected


@pytest.mark.parametrize("kind", [ConvergenceWarning, csoftmax.ConvergenceWarning])
def test_too_few_iterations_warn_with_their_class_and_ours(kind):
    model = SoftmaxRegression(max_iter=2, solver="lbfgs")
    with pytest.warns(kind, match="max_iter") as caught:
        model.fit(*real("digits"))
    assert [w.filename for w in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kind)
        model.fit(*real("digits"))


def test_warnings_name_the_line_of_the_user_however_deep_they_come_from():
    pd = pytest.importorskip("pandas")
    model = SoftmaxRegression().fit(X, Y)
    for method in PREDICTIONS:
        with pytest.warns(UserWarning, match="X has feature names") as caught:
            getattr(model, method)(pd.DataFrame(X, columns=list("abcd")))
        assert [w.filename for w in caught] == [__file__]


# ---- parameters and representations -----------------------------------------------------------------------------


def test_parameters_are_set_as_scikit_learn_sets_them():
    model = SoftmaxRegression(C=3.0)
    assert model.set_params() is model
    with pytest.raises(
        ValueError, match=r"Invalid parameter 'penalty' for estimator SoftmaxRegression\(C=3.0\)\. Valid"
    ):
        model.set_params(C=1.0, penalty="l2")
    assert model.C == 3.0
    pipeline = make_pipeline(StandardScaler(), model).set_params(softmaxregression__C=0.5)
    assert pipeline[-1].C == 0.5
    assert pipeline.get_params()["softmaxregression__tol"] == 1e-4


def test_a_subclass_keeps_the_contract():
    class Tuned(SoftmaxRegression):
        def __init__(self, *, C=10.0, extra=None):
            super().__init__(C=C)
            self.extra = extra

    model = clone(Tuned(extra=1))
    assert model.get_params() == {"C": 10.0, "extra": 1}
    assert repr(model) == "Tuned(extra=1)"
    with pytest.raises(NotFittedError, match="This Tuned instance"):
        model.predict(X)
    with pytest.raises(ValueError, match="X has 3 features, but Tuned is expecting 4"):
        model.fit(X, Y).predict(X[:, :3])

    class Mixed(ClassifierMixin, SoftmaxRegression, BaseEstimator):
        pass

    assert sklearn.utils.get_tags(Mixed()).estimator_type == "classifier"
    assert is_classifier(Mixed().fit(X, Y))


def test_representations():
    model = SoftmaxRegression(class_weight={"<a>": 2.0, "b": 1.0})
    text = "SoftmaxRegression(class_weight={'<a>': 2.0, 'b': 1.0})"
    assert repr(model) == text
    assert text in repr(make_pipeline(StandardScaler(), model))
    html = model._repr_html_()
    assert "sk-top-container" in html
    assert "&lt;a&gt;" in html
    assert "'<a>'" not in html
    assert "fitted" in SoftmaxRegression().fit(X, Y)._repr_html_()
    assert "SoftmaxRegression" in make_pipeline(StandardScaler(), model)._repr_html_()
    with sklearn.config_context(display="text"):
        assert model._repr_html_() is None


def test_tags():
    tags = sklearn.utils.get_tags(SoftmaxRegression())
    assert tags.estimator_type == "classifier"
    assert tags.target_tags.required
    assert tags.classifier_tags.multi_class
    assert not tags.classifier_tags.multi_label
    assert not tags.input_tags.allow_nan
    assert is_classifier(SoftmaxRegression())


# ---- pickles ----------------------------------------------------------------------------------------------------


def test_a_pickle_of_another_version_warns_and_names_both():
    model = SoftmaxRegression().fit(X, Y)
    current = importlib.metadata.version("csoftmax")
    data = pickle.dumps(model, protocol=0)  # text, in which a version can be replaced
    assert data.count(current.encode()) == 1
    with pytest.warns(InconsistentVersionWarning) as caught:
        old = pickle.loads(data.replace(current.encode(), b"0.0.7"))
    assert "csoftmax 0.0.7" in str(caught[0].message)
    assert f"csoftmax {current}" in str(caught[0].message)
    assert caught[0].message.original_sklearn_version == "0.0.7"
    assert vars(old).keys() == vars(model).keys()
    np.testing.assert_array_equal(old.predict_proba(X), model.predict_proba(X))
    state = vars(model).copy()
    with pytest.warns(InconsistentVersionWarning, match="unknown version"):
        SoftmaxRegression().__setstate__(state)
    assert vars(pickle.loads(pickle.dumps(model))).keys() == vars(model).keys()


# ---- sparse coefficients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
def test_sparse_coefficients_change_no_prediction(n_classes):
    X, y = overlapping(n_classes=n_classes)
    model = SoftmaxRegression(warm_start=True).fit(X, y)
    coef = model.coef_.copy()
    before = {method: getattr(model, method)(X) for method in PREDICTIONS}
    assert model.sparsify() is model
    assert scipy.sparse.issparse(model.coef_)
    assert model.coef_.format == "csr"
    for copied in (model, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        for method, expected in before.items():
            np.testing.assert_array_equal(getattr(copied, method)(X), expected)
    np.testing.assert_array_equal(model.predictor().predict_proba(X), before["predict_proba"])
    assert model.sparsify().densify() is model
    np.testing.assert_array_equal(model.coef_, coef)
    assert type(model.densify().coef_) is np.ndarray
    assert model.sparsify().fit(X, y).n_iter_[0] <= 1  # a warm start from them
    assert type(model.coef_) is np.ndarray
    for method in ("sparsify", "densify"):
        with pytest.raises(NotFittedError):
            getattr(SoftmaxRegression(), method)()


# ---- routing of metadata ----------------------------------------------------------------------------------------


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def test_requests_need_routing():
    with pytest.raises(RuntimeError, match="enable_metadata_routing=True"):
        SoftmaxRegression().set_fit_request(sample_weight=True)


def requests(model):
    routing = sklearn.utils.metadata_routing.get_routing_for_object(model)
    return routing.fit.requests, routing.score.requests


def test_requests_are_kept_and_cloned(routing):
    model = SoftmaxRegression()
    assert requests(model) == ({"sample_weight": None}, {"sample_weight": None})
    assert model.set_fit_request(sample_weight=True).set_score_request(sample_weight="weight") is model
    assert model.set_fit_request() is model
    expected = ({"sample_weight": True}, {"sample_weight": "weight"})
    for other in (model, clone(model), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert requests(other) == expected
    clone(model).set_fit_request(sample_weight=False)
    assert requests(model) == expected
    with pytest.raises(TypeError):
        model.set_fit_request(weight=True)


@pytest.mark.parametrize(("fit", "score"), [(True, True), (True, False), (False, True)])
def test_weights_are_routed_as_for_logistic_regression(routing, fit, score):
    def requesting(model):
        return model.set_fit_request(sample_weight=fit).set_score_request(sample_weight=score)

    grid = {"C": [1e-3, 1e-1, 10.0]}
    searches = [
        GridSearchCV(requesting(model), grid, cv=3, error_score="raise").fit(X, Y, sample_weight=WEIGHT)
        for model in (ours(), theirs())
    ]
    one, other = (search.cv_results_["mean_test_score"] for search in searches)
    np.testing.assert_allclose(one, other, rtol=1e-12)
    assert searches[0].best_params_ == searches[1].best_params_
    one, other = (
        cross_validate(requesting(model), X, Y, params={"sample_weight": WEIGHT}) for model in (ours(), theirs())
    )
    np.testing.assert_allclose(one["test_score"], other["test_score"], rtol=1e-12)


def test_weights_that_are_not_asked_for_are_refused(routing):
    with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="sample_weight"):
        cross_validate(SoftmaxRegression(), X, Y, params={"sample_weight": WEIGHT})


# ---- its tools --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["iris", "wine", "cancer"])
def test_cross_validation_and_search_find_what_they_find_for_logistic_regression(name):
    X, y = real(name)
    scores = [cross_val_score(make_pipeline(StandardScaler(), model), X, y) for model in (ours(), theirs())]
    np.testing.assert_array_equal(*scores)
    losses = [cross_val_score(model, X, y, scoring="neg_log_loss") for model in (ours(), theirs())]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    grid = {"softmaxregression__C": np.logspace(-4, 2, 7)}
    search = GridSearchCV(make_pipeline(StandardScaler(), ours()), grid, scoring="neg_log_loss").fit(X, y)
    grid = {"logisticregression__C": np.logspace(-4, 2, 7)}
    expected = GridSearchCV(make_pipeline(StandardScaler(), theirs()), grid, scoring="neg_log_loss").fit(X, y)
    assert search.best_params_["softmaxregression__C"] == expected.best_params_["logisticregression__C"]
    np.testing.assert_allclose(search.predict_proba(X), expected.predict_proba(X), atol=1e-4)


@pytest.mark.parametrize(
    "around",
    [
        lambda model: CalibratedClassifierCV(model, cv=3),
        lambda model: CalibratedClassifierCV(model, cv=3, method="isotonic", ensemble=False),
        OneVsRestClassifier,
        lambda model: StackingClassifier([("a", model), ("b", clone(model).set_params(C=0.01))], theirs()),
        lambda model: StackingClassifier([("a", theirs()), ("b", theirs(C=0.01))], model, cv=3),
        lambda model: VotingClassifier([("a", model), ("b", theirs(C=0.01))], voting="soft"),
        lambda model: BaggingClassifier(model, 3, random_state=0),
    ],
    ids=["sigmoid", "isotonic", "one against the rest", "stacked", "on top of a stack", "voting", "bagging"],
)
def test_meta_estimators_give_what_they_give_for_logistic_regression(around):
    one, other = (around(model).fit(X[:150], Y[:150]) for model in (ours(), theirs()))
    np.testing.assert_allclose(one.predict_proba(X[150:]), other.predict_proba(X[150:]), atol=1e-5)


def colours():
    return np.array(["red", "green", "blue"])[np.random.default_rng(6).integers(0, 3, len(X))]


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("output", ["default", "pandas", "polars"])
def test_behind_a_column_transformer(library, output):
    if "polars" in (library, output):
        pytest.importorskip("polars")
        if VERSION < (1, 9):
            pytest.skip("this scikit-learn reads polars in a way that polars deprecates")
    frame = pytest.importorskip(library).DataFrame({"a": X[:, 0], "b": X[:, 1], "colour": colours()})

    def fitted(model):
        columns = ColumnTransformer(
            [("numbers", StandardScaler(), ["a", "b"]), ("words", OneHotEncoder(sparse_output=False), ["colour"])]
        )
        return make_pipeline(columns.set_output(transform=output), model).fit(frame, Y)

    one, other = fitted(ours()), fitted(theirs())
    np.testing.assert_allclose(one.predict_proba(frame), other.predict_proba(frame), atol=1e-5)
    names = ["numbers__a", "numbers__b", "words__colour_blue", "words__colour_green", "words__colour_red"]
    assert (one[-1].feature_names_in_.tolist() if output != "default" else names) == names
    with pytest.raises(ValueError, match=r"X has the column 'colour' of type .*encode it first"):
        SoftmaxRegression().fit(frame, Y)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_parallel_searches(backend):
    grid = {"C": [1e-3, 1e-1, 10.0]}
    expected = GridSearchCV(SoftmaxRegression(), grid, scoring="neg_log_loss").fit(X, Y)
    with joblib.parallel_config(backend, n_jobs=2):
        search = GridSearchCV(SoftmaxRegression(), grid, scoring="neg_log_loss").fit(X, Y)
        with pytest.raises(NotFittedError):
            joblib.Parallel()(joblib.delayed(SoftmaxRegression().predict)(X) for _ in range(2))
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])
    np.testing.assert_array_equal(search.best_estimator_.coef_, expected.best_estimator_.coef_)


def test_a_model_of_joblib_that_is_mapped_into_memory(tmp_path):
    model = SoftmaxRegression().fit(X, Y)
    joblib.dump(model, tmp_path / "model")
    mapped = joblib.load(tmp_path / "model", mmap_mode="r")
    assert isinstance(mapped.coef_, np.memmap)
    np.testing.assert_array_equal(mapped.predict_proba(X), model.predict_proba(X))
    assert joblib.hash(mapped.get_params()) == joblib.hash(model.get_params())


def test_importance_of_features():
    X, y = real("iris")
    one, other = (permutation_importance(model.fit(X, y), X, y, random_state=0) for model in (ours(), theirs()))
    np.testing.assert_array_equal(one.importances, other.importances)
    assert one.importances_mean.argmax() == 2


def test_a_confusion_matrix():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    X, y = real("wine")
    display = ConfusionMatrixDisplay.from_estimator(ours().fit(X, y), X, y)
    np.testing.assert_array_equal(
        display.confusion_matrix, ConfusionMatrixDisplay.from_estimator(theirs().fit(X, y), X, y).confusion_matrix
    )
    display.figure_.savefig(io.BytesIO())
    matplotlib.pyplot.close("all")
