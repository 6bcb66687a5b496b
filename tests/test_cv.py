"""SoftmaxRegressionCV against LogisticRegressionCV and against fits of its own, one by one."""

import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.sparse
from cv_models import ATTRIBUTES, CS, assert_same_choice, attributes, theirs, tight
from data import overlapping, real
from sklearn.metrics import accuracy_score, log_loss, make_scorer
from sklearn.model_selection import KFold, StratifiedKFold

import csoftmax
from csoftmax import SoftmaxRegression, SoftmaxRegressionCV
from csoftmax._objective import Objective

# ---- against scikit-learn -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("refit", [True, False])
def test_attributes_are_those_of_scikit_learn(n_classes, fit_intercept, refit):
    X, y = overlapping(150, 4, n_classes)
    settings = {"fit_intercept": fit_intercept, "refit": refit}
    model, other = tight(X, y, **settings), theirs(X, y, **settings)
    assert attributes(model).keys() == ATTRIBUTES | ({"fit_report_", "loss_curve_"} if refit else set())
    for name in ATTRIBUTES:
        value, expected = getattr(model, name), getattr(other, name)
        assert np.shape(value) == np.shape(expected), name
        assert np.asarray(value).dtype.kind == np.asarray(expected).dtype.kind, name
    assert type(model.C_) is type(model.l1_ratio_) is float
    assert_same_choice(model, other)
    np.testing.assert_array_equal(model.scores_, other.scores_)
    np.testing.assert_array_equal(model.predict(X), other.predict(X))
    np.testing.assert_allclose(model.predict_proba(X), other.predict_proba(X), atol=1e-6)
    assert model.score(X, y) == other.score(X, y)


@pytest.mark.parametrize("data", ["digits", "ten classes", "two classes"])
def test_the_chosen_strength_is_that_of_scikit_learn(data):
    if data == "digits":
        X, y = real("digits")
        X, y, settings = X[:900] / 16, y[:900], {"Cs": np.logspace(-3, 1, 5), "solver": "lbfgs"}
    elif data == "ten classes":
        X, y = overlapping(600, 12, 10, seed=5)
        settings = {"Cs": 8}
    else:
        X, y = overlapping(300, 20, 2, seed=6)
        settings = {"Cs": 8}
    model = SoftmaxRegressionCV(cv=4, Cs=settings["Cs"]).fit(X, y)
    other = theirs(X, y, cv=4, tol=1e-4, **settings)
    assert model.C_ == other.C_
    np.testing.assert_allclose(model.scores_, other.scores_, atol=0.006)  # a row or two of a fold
    np.testing.assert_array_equal(model.Cs_, other.Cs_)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 0.5, 1: 3.0}])
def test_weights_count_as_in_scikit_learn(n_classes, weighted, class_weight):
    X, y = overlapping(150, 4, n_classes)
    weight = np.random.default_rng(1).uniform(0.2, 3, len(y)) if weighted else None
    model, other = tight(X, y, weight, class_weight=class_weight), theirs(X, y, weight, class_weight=class_weight)
    assert_same_choice(model, other)


def mean_margin(model, X, y, sample_weight=None):
    return float(np.average(model.predict_proba(X)[np.arange(len(y)), y], weights=sample_weight))


SCORINGS = ["accuracy", "balanced_accuracy", "neg_log_loss", "neg_brier_score", "f1_macro", mean_margin]
SCORINGS += [
    make_scorer(accuracy_score),
    make_scorer(log_loss, greater_is_better=False, response_method="predict_proba"),
]
BINARY = [scoring for scoring in SCORINGS if scoring != "f1_macro"]  # scikit-learn fails at it for two classes


def name_of(scoring):
    return getattr(scoring, "__name__", str(scoring))


@pytest.mark.parametrize("scoring", [*BINARY, "roc_auc", "average_precision", "f1"], ids=name_of)
@pytest.mark.parametrize("weighted", [False, True])
def test_scores_of_two_classes(scoring, weighted):
    X, y = overlapping(150, 4, 2)
    weight = np.random.default_rng(1).uniform(0.2, 3, len(y)) if weighted else None
    model, other = tight(X, y, weight, scoring=scoring), theirs(X, y, weight, scoring=scoring)
    assert_same_choice(model, other)
    assert model.score(X, y) == pytest.approx(other.score(X, y), abs=1e-6)
    assert model.score(X, y, weight) == pytest.approx(other.score(X, y, sample_weight=weight), abs=1e-6)


@pytest.mark.parametrize("scoring", [*SCORINGS, "roc_auc_ovr", "top_k_accuracy"], ids=name_of)
def test_scores_of_several_classes(scoring):
    X, y = overlapping(150, 4, 4)
    other, model = theirs(X, y, scoring=scoring), tight(X, y, scoring=scoring)
    assert_same_choice(model, other)
    assert model.score(X, y) == pytest.approx(other.score(X, y), abs=1e-6)


def test_a_class_may_be_missing_from_test_rows():
    X, y = overlapping(60, 4, 3)
    test = np.flatnonzero(y != 2)[:20]
    cv = [(np.setdiff1d(np.arange(60), test), test)]
    for scoring in ("neg_log_loss", "f1_macro", "accuracy"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that f1 is not defined for that class
            assert_same_choice(tight(X, y, cv=cv, scoring=scoring), theirs(X, y, cv=cv, scoring=scoring))


def test_a_class_may_be_missing_from_training_rows():
    X, y = overlapping(90, 4, 3)
    train = np.flatnonzero(y != 2)
    cv = [(train, np.flatnonzero(y == 2)), (np.arange(0, 90, 2), np.arange(1, 90, 2))]
    model = SoftmaxRegressionCV(Cs=CS, cv=cv, tol=1e-8).fit(X, y)
    assert (model.scores_[0] == 0).all()
    without = SoftmaxRegression(C=2.0, tol=1e-10).fit(X[train], y[train])  # two columns share the penalty of one
    fold = SoftmaxRegressionCV(Cs=[1.0], cv=cv[:1], tol=1e-8).fit(X, y).coefs_paths_[0, 0, 0]
    np.testing.assert_allclose(fold[2, :-1], 0, atol=1e-3)
    assert fold[2, -1] < fold[:2, -1].min() - 10
    np.testing.assert_allclose(fold[1] - fold[0], [*without.coef_[0], without.intercept_[0]], atol=1e-3)
    zeros = SoftmaxRegressionCV(Cs=[1e-9], l1_ratios=[1.0], cv=cv).fit(X, y).coefs_paths_
    assert not zeros[..., :-1].any()


# ---- against fits one by one --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("solver", ["auto", "newton", "lbfgs"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_every_point_of_the_paths_is_the_fit_of_its_fold(n_classes, solver, fit_intercept):
    X, y = overlapping(200, 5, n_classes)
    settings = {"solver": solver, "fit_intercept": fit_intercept, "tol": 1e-10}
    model = SoftmaxRegressionCV(Cs=CS, cv=4, **settings).fit(X, y)
    for fold, (train, test) in enumerate(StratifiedKFold(4).split(X, y)):
        for i, C in enumerate(CS):
            alone = SoftmaxRegression(C=C, **settings).fit(X[train], y[train])
            point = model.coefs_paths_[fold, 0, i]
            np.testing.assert_allclose(point[:, :5], alone.coef_, rtol=0, atol=1e-6)
            if fit_intercept:
                np.testing.assert_allclose(point[:, 5], alone.intercept_, rtol=0, atol=1e-6)
            assert model.scores_[fold, 0, i] == alone.score(X[test], y[test])
    best = SoftmaxRegression(C=model.C_, **settings).fit(X, y)
    np.testing.assert_allclose(model.coef_, best.coef_, rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.intercept_, best.intercept_, rtol=0, atol=1e-6)
    best_at = model.scores_.mean(axis=0)[0].argmax()
    assert CS.index(model.C_) == best_at
    assert model.fit_report_.converged
    assert len(model.loss_curve_) == model.fit_report_.n_iter


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_digits_at_the_default_tolerance_are_within_it(ratio):
    X, y = real("digits")
    Cs = np.logspace(-4, 4, 5) if ratio == 0 else [1e-2, 0.1, 1.0, 3.0]
    model = SoftmaxRegressionCV(Cs=Cs, cv=2, l1_ratios=(ratio,)).fit(X, y)
    for fold, (train, _) in enumerate(StratifiedKFold(2).split(X, y)):
        for i, C in enumerate(Cs):
            tight = SoftmaxRegression(C=C, l1_ratio=ratio, tol=1e-9, max_iter=5000).fit(X[train], y[train])
            best = tight.fit_report_.objective
            rows = model.coefs_paths_[fold, 0, i]
            loss = csoftmax.loss_gradient(X[train], y[train], rows[:, :-1], rows[:, -1])[0]
            norm = (1 - ratio) / 2 * (rows[:, :-1] ** 2).sum() + ratio * abs(rows[:, :-1]).sum()
            J = loss + norm / (C * len(train))
            assert J - best <= 1e-6 * max(best, 1e-3)


def test_penalise_makes_the_objective_of_another_strength():
    X, y = overlapping(100, 4, 3)
    theta = np.random.default_rng(0).standard_normal(15)
    made = [
        Objective.of(X, y.astype(np.int32), np.ones(100), 3, C=C, fit_intercept=True, standardise=True, n_threads=1)
        for C in (1e-3, 10.0)
    ]
    changed, expected = made
    sample = changed.sample(50)
    changed.penalise(10.0, 0.0)
    assert changed.sample(50) is sample
    np.testing.assert_array_equal(sample.penalty, expected.sample(50).penalty)
    np.testing.assert_array_equal(changed.curvature_diagonal(), expected.curvature_diagonal())
    (J, gradient), (other_J, other_gradient) = changed.value_gradient(theta), expected.value_gradient(theta)
    assert changed.gap_bound(theta, J, gradient) == expected.gap_bound(theta, other_J, other_gradient)
    np.testing.assert_array_equal([J, *gradient], [other_J, *other_gradient])


@pytest.mark.parametrize("n_classes", [2, 4])
def test_paths_of_l1_and_elastic_net_are_those_of_fits_one_by_one(n_classes):
    X, y = overlapping(150, 6, n_classes, seed=2)
    folds = list(StratifiedKFold(3).split(X, y))
    model = tight(X, y, cv=folds, l1_ratios=(0.5, 1.0))
    for fold, (train, _) in enumerate(folds):
        for i, ratio in enumerate((0.5, 1.0)):
            for j, C in enumerate(CS):
                alone = SoftmaxRegression(C=C, l1_ratio=ratio, tol=1e-10).fit(X[train], y[train])
                path = model.coefs_paths_[fold, i, j]
                chances = SoftmaxRegression(C=C).fit(X[train], y[train])
                chances.coef_, chances.intercept_ = path[:, :-1], path[:, -1]
                np.testing.assert_allclose(chances.predict_proba(X), alone.predict_proba(X), atol=1e-6)
                np.testing.assert_allclose(abs(path[:, :-1]).sum(), abs(alone.coef_).sum(), atol=1e-5)
    assert model.l1_ratio_ in (0.5, 1.0)


def test_sparse_rows_and_named_columns():
    pandas = pytest.importorskip("pandas")
    X, y = overlapping(120, 5, 3)
    X[abs(X) < 0.5] = 0
    dense, sparse = (tight(Z, y) for Z in (X, scipy.sparse.csr_array(X)))
    assert_same_choice(dense, sparse)
    np.testing.assert_allclose(sparse.predict_proba(scipy.sparse.csr_array(X)), dense.predict_proba(X), atol=1e-6)
    frame = pandas.DataFrame(X, columns=list("abcde"))
    named = tight(frame, y)
    assert named.feature_names_in_.tolist() == list("abcde")
    np.testing.assert_array_equal(named.predict(frame), dense.predict(X))
    assert named.predictor().feature_names == tuple("abcde")


@pytest.mark.parametrize("n_classes", [2, 3])
def test_without_refit_the_best_of_the_folds_are_averaged(n_classes):
    X, y = overlapping(150, 4, n_classes)
    model = tight(X, y, refit=False, scoring="neg_log_loss")
    at = model.scores_[:, 0].argmax(axis=1)
    rows = model.coefs_paths_[np.arange(3), 0, at].mean(axis=0)
    np.testing.assert_array_equal(model.coef_, rows[:, :-1])
    np.testing.assert_array_equal(model.intercept_, rows[:, -1])
    strengths = np.array(CS)[at]
    assert (model.C_, model.l1_ratio_) == (strengths.mean(), 0)
    again = tight(X, y)
    assert attributes(again.set_params(refit=False).fit(X, y)).keys() == ATTRIBUTES
    assert model.predictor().training_report is None
    np.testing.assert_array_equal(model.predictor().predict(X), model.predict(X))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_weights_are_repetitions(n_classes, class_weight):
    X, y = overlapping(120, 4, n_classes)
    counts = np.random.default_rng(1).integers(0, 4, 120)
    counts[: 6 * n_classes] = 1
    rows = np.repeat(np.arange(120), counts)
    folds = list(StratifiedKFold(3).split(X, y))
    repeated = [tuple(np.flatnonzero(np.isin(rows, part)) for part in fold) for fold in folds]
    settings = {"class_weight": class_weight, "scoring": "neg_log_loss"}
    model = tight(X, y, counts, cv=folds, **settings)
    other = tight(X[rows], y[rows], np.ones(len(rows)), cv=repeated, **settings)
    assert_same_choice(model, other)


def test_rows_and_classes_of_zero_weight_are_left_out_wherever_a_split_puts_them():
    X, y = overlapping(150, 4, 4)
    weight = np.where(y == 2, 0.0, 1.0)
    weight[10:30] = 0
    kept = np.flatnonzero(weight)
    folds = list(KFold(3).split(X))
    shorter = [tuple(np.searchsorted(kept, part[weight[part] > 0]) for part in fold) for fold in folds]
    model, other = tight(X, y, weight, cv=folds), tight(X[kept], y[kept], cv=shorter)
    assert model.classes_.tolist() == [0, 1, 3]
    for name in ATTRIBUTES:
        np.testing.assert_array_equal(getattr(model, name), getattr(other, name))
    by_class = tight(X[weight + (y == 2) > 0], y[weight + (y == 2) > 0], class_weight={2: 0.0}, scoring="neg_log_loss")
    assert by_class.classes_.tolist() == [0, 1, 3]


# ---- order, ties, threads -----------------------------------------------------------------------------------------


def test_strengths_come_in_any_order():
    X, y = overlapping(150, 4, 3)
    order = np.array([2, 0, 3, 1])
    model, other = tight(X, y), tight(X, y, Cs=np.array(CS)[order])
    np.testing.assert_array_equal(other.Cs_, np.array(CS)[order])
    for name in ("scores_", "n_iter_", "coefs_paths_"):
        np.testing.assert_array_equal(getattr(other, name), getattr(model, name)[:, :, order])
    assert model.C_ == other.C_
    np.testing.assert_array_equal(model.coef_, other.coef_)


@pytest.mark.parametrize("refit", [True, False])
def test_of_equal_scores_the_strongest_penalty_wins(refit):
    X, y = overlapping(60, 3, 3)
    for scoring in (lambda model, X, y: 0.5, lambda model, X, y: float(model.C <= 1)):
        model = SoftmaxRegressionCV(Cs=[1.0, 0.1, 10.0], cv=3, refit=refit, scoring=scoring).fit(X, y)
        assert abs(model.C_ - 0.1) < 1e-15  # without refit it is a mean


def test_a_number_of_strengths_is_the_grid_of_scikit_learn():
    X, y = overlapping(60, 3, 3)
    np.testing.assert_array_equal(SoftmaxRegressionCV(cv=2).fit(X, y).Cs_, np.logspace(-4, 4, 10))
    np.testing.assert_array_equal(SoftmaxRegressionCV(Cs=1, cv=2).fit(X, y).Cs_, [1e-4])


@pytest.mark.parametrize("shape", [(300, 6, 3), (3000, 40, 12)])
def test_results_are_bitwise_the_same_for_any_number_of_threads(shape):
    X, y = overlapping(*shape)
    one, *others = (SoftmaxRegressionCV(Cs=[0.01, 1.0], n_threads=n).fit(X, y) for n in (1, 2, 3, 8))
    for other in others:
        for name in ATTRIBUTES:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_at_most_as_many_folds_are_copied_as_there_are_threads():
    X, y = overlapping(4000, 200, 2)
    tracemalloc.start()
    SoftmaxRegressionCV(Cs=[1e-3], cv=10, n_threads=1, tol=1e-2).fit(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * X.nbytes


def test_an_error_in_one_fold_ends_the_others():
    X, y = overlapping(500, 6, 3)
    model = SoftmaxRegressionCV(solver="gd", learning_rate=1e200, n_threads=2)
    with pytest.raises(ValueError, match="learning_rate"):
        model.fit(X, y)
    assert not attributes(model)
