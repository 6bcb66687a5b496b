"""L1 and elastic net: against saga and glmnet, the KKT conditions, the duality gap, and what zero weights must be."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
import twin
from data import overlapping, real

from csoftmax import SoftmaxRegression
from csoftmax._objective import Objective, _cheapest_shift, _sparsest_shift
from csoftmax._solvers import proximal

RATIOS = [0.3, 1.0]


@pytest.fixture(params=["hessian", "pairs"])
def model_of_curvature(request, monkeypatch):
    """Run the test with each of the two models."""
    if request.param == "pairs":
        monkeypatch.setattr(proximal, "MOST_EXACT", 0)
    return request.param


def weights_of(n, seed=1):
    return np.random.default_rng(seed).uniform(0.2, 3, n)


def fitted(X, y, weight=None, **parameters):
    model = SoftmaxRegression(**{"tol": 1e-9, **parameters}).fit(X, y, weight)
    assert model.fit_report_.converged, model.fit_report_
    return model


def value(model, X, y, weight, C, ratio):
    """J, with the twin's loss."""
    codes = np.searchsorted(model.classes_, y)
    loss = (twin.binary_loss_gradient if len(model.classes_) == 2 else twin.loss_gradient)(
        X, codes, model.coef_, model.intercept_, weight
    )[0]
    norm = (1 - ratio) / 2 * (model.coef_**2).sum() + ratio * abs(model.coef_).sum()
    return loss + norm / (C * weight.sum())


def kkt(model, X, y, weight, C, ratio):
    """The largest entry of the least subgradient of J, in the units of X: at zero for the intercepts."""
    codes = np.searchsorted(model.classes_, y)
    _, by_coef, by_intercept = (twin.binary_loss_gradient if len(model.classes_) == 2 else twin.loss_gradient)(
        X, codes, model.coef_, model.intercept_, weight
    )
    strength = 1 / (C * weight.sum())
    by_coef = by_coef + (1 - ratio) * strength * model.coef_
    moving = by_coef + ratio * strength * np.sign(model.coef_)
    resting = np.maximum(abs(by_coef) - ratio * strength, 0)
    return max(abs(np.where(model.coef_ != 0, moving, resting)).max(), abs(by_intercept).max())


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.filterwarnings("ignore:The max_iter was reached")  # by rounding
def test_agrees_with_saga(model_of_curvature, n_classes, ratio, weighted):
    X, y = overlapping(150, 7, n_classes, seed=3)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    # saga's step length does not know the weights: above 1 it may not converge.
    weight = weights_of(150) / 3 if weighted else np.ones(150)
    linear_model = pytest.importorskip("sklearn.linear_model")
    saga = linear_model.LogisticRegression(
        C=0.3, l1_ratio=ratio, solver="saga", tol=1e-12, max_iter=100_000, random_state=0
    )
    if saga.penalty == "l2":  # the default of scikit-learn below 1.8, which ignores l1_ratio
        saga.set_params(penalty="elasticnet")
    saga.fit(X, y, weight)
    ours = fitted(X, y, weight, C=0.3, l1_ratio=ratio, tol=1e-11)
    np.testing.assert_allclose(ours.coef_, saga.coef_, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(ours.coef_ == 0, saga.coef_ == 0)
    np.testing.assert_allclose(
        ours.intercept_ - ours.intercept_.mean() * (n_classes > 2),
        saga.intercept_ - saga.intercept_.mean() * (n_classes > 2),
        rtol=0,
        atol=1e-9,
    )
    assert kkt(ours, X, y, weight, 0.3, ratio) < 1e-10


def data_of_glmnet(n_classes, weighted):
    """X, y and the weights, as tests/data/glmnet.R makes them."""
    rows = np.arange(1, 201)
    cubes = rows[:, None] ** 3
    X = cubes % [83, 89, 101, 107, 113, 131, 71]
    five = (X[:, :5] + cubes % [179, 173, 167, 149, 137]).argmax(axis=1)
    y = (five > 2).astype(int) if n_classes == 2 else five
    return (X - X.mean(axis=0)) / X.std(axis=0), y, 1.0 + rows % 4 if weighted else np.ones(200)


@pytest.mark.parametrize("ratio", [0.5, 1.0])
@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_agrees_with_glmnet(model_of_curvature, n_classes, ratio, weighted):
    X, y, weight = data_of_glmnet(n_classes, weighted)
    table = np.loadtxt(Path(__file__).with_name("data") / "glmnet.csv", delimiter=",")
    table = table[(table[:, :3] == [n_classes, weighted, ratio]).all(axis=1), 3:]
    strengths = np.unique(table[:, 0])
    assert len(strengths) == 2
    for strength in strengths:
        of_strength = table[table[:, 0] == strength]
        C = 1 / (strength * weight.sum())  # glmnet's loss is a mean, C is of a sum
        ours = fitted(X, y, weight, C=C, l1_ratio=ratio, tol=1e-12)
        theirs = SimpleNamespace(coef_=of_strength[:, 2:], intercept_=of_strength[:, 1], classes_=ours.classes_)
        # glmnet stops when the steps are short: that alone does not make its numbers the optimum.
        assert kkt(theirs, X, y, weight, C, ratio) < 1e-12
        # They agreed to 8e-13 with the Hessian and to 3e-11 with pairs; the rest is for the rounding of other machines.
        np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(ours.coef_ == 0, theirs.coef_ == 0)
        np.testing.assert_allclose(
            ours.intercept_ - ours.intercept_.mean() * (n_classes > 2),
            theirs.intercept_ - theirs.intercept_.mean() * (n_classes > 2),
            rtol=0,
            atol=1e-9,
        )
        best = value(theirs, X, y, weight, C, ratio)
        np.testing.assert_allclose(ours.fit_report_.objective, best, rtol=1e-13)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("name", ["iris", "wine", "digits", "cancer"])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_the_kkt_conditions_hold_on_real_data(name, ratio, C):
    X, y = real(name)
    weight = np.ones(len(y))
    model = fitted(X, y, C=C, l1_ratio=ratio, tol=1e-7)
    assert kkt(model, X, y, weight, C, ratio) < 1e-6 * max(1, abs(X).max())
    assert (model.coef_ == 0).any() or C > 1
    np.testing.assert_allclose(model.fit_report_.objective, value(model, X, y, weight, C, ratio), rtol=1e-10)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_bound_is_never_below_the_gap(ratio, fit_intercept, n_classes):
    X, y = overlapping(200, 6, n_classes, seed=5)
    X = 3 * X + 1
    codes, weight = y.astype(np.int32), weights_of(200)
    options = {"C": 0.2, "l1_ratio": ratio, "fit_intercept": fit_intercept}
    objective = Objective.of(X, codes, weight, n_classes, standardise=True, n_threads=1, **options)
    best = fitted(X, y, weight, tol=1e-12, **options)
    optimum = objective.parameters(best.coef_, best.intercept_)
    smallest, _ = objective.value_gradient(optimum)
    smallest += np.tile(objective.l1(), objective.n_columns) @ abs(optimum)
    rng = np.random.default_rng(0)
    for size in (0, 1e-8, 1e-5, 1e-3, 0.1, 1):
        theta = optimum + size * rng.standard_normal(optimum.shape) * (optimum != 0)
        smooth, gradient = objective.value_gradient(theta)
        gap = smooth + np.tile(objective.l1(), objective.n_columns) @ abs(theta) - smallest
        bound = objective.l1_gap_bound(theta, smooth, gradient)
        assert gap <= bound
        assert bound <= 1e-10 + 1000 * size  # and it says something


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_below_the_critical_c_every_weight_is_zero(n_classes, ratio):
    X, y = overlapping(120, 5, n_classes)
    X = X * [1, 1e3, 1, 1e-3, 1]
    model = fitted(X, y, C=1e-9, l1_ratio=ratio)
    assert not model.coef_.any()
    shares = np.bincount(y) / len(y)
    expected = np.log(shares[1] / shares[0]) if n_classes == 2 else np.log(shares) - np.log(shares).mean()
    np.testing.assert_allclose(model.intercept_, np.atleast_1d(expected), atol=1e-8)
    critical = float(model.fit_report_.message.rpartition(" ")[2])
    assert not fitted(X, y, C=critical * 0.999, l1_ratio=ratio).coef_.any()
    assert np.count_nonzero(fitted(X, y, C=critical * 1.01, l1_ratio=ratio).coef_) > 0


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_without_intercepts_nothing_may_be_left_to_fit(model_of_curvature, n_classes, ratio):
    X, y = overlapping(120, 5, n_classes)
    model = fitted(X, y, C=1e-9, l1_ratio=ratio, fit_intercept=False)
    assert not model.coef_.any()
    assert model.fit_report_.gap <= 1e-9
    assert "every weight is zero" in model.fit_report_.message
    critical = float(model.fit_report_.message.rpartition(" ")[2])
    assert not fitted(X, y, C=critical * 0.999, l1_ratio=ratio, fit_intercept=False).coef_.any()
    assert fitted(X, y, C=critical * 1.01, l1_ratio=ratio, fit_intercept=False).coef_.any()


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_column_of_zeros_and_a_constant_one_get_no_weight(ratio):
    X, y = overlapping(100, 4, 3)
    X[:, 1], X[:, 2] = 0, 7
    model = fitted(X, y, C=10, l1_ratio=ratio)
    assert not model.coef_[:, 1:3].any()


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_weights_are_repetitions_and_class_weights_are_weights(ratio, n_classes):
    X, y = overlapping(90, 5, n_classes)
    counts = np.random.default_rng(0).integers(0, 4, 90)
    counts[:n_classes] = 1
    options = {"C": 0.5, "l1_ratio": ratio, "tol": 1e-11}
    weighted = fitted(X, y, counts, **options)
    repeated = fitted(np.repeat(X, counts, axis=0), np.repeat(y, counts), **options)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=0, atol=1e-9)
    by_class = {label: 0.5 + label for label in range(n_classes)}
    one = fitted(X, y, class_weight=by_class, **options)
    other = fitted(X, y, 0.5 + y, **options)
    np.testing.assert_allclose(one.coef_, other.coef_, rtol=0, atol=1e-9)


@pytest.mark.parametrize("ratio", RATIOS)
def test_sparse_rows_and_threads_give_the_same(model_of_curvature, ratio):
    rng = np.random.default_rng(2)
    X = np.where(rng.random((400, 30)) < 0.3, rng.standard_normal((400, 30)), 0)
    y = (X @ rng.standard_normal((30, 4)) + rng.gumbel(size=(400, 4))).argmax(axis=1)
    dense = fitted(X, y, C=0.5, l1_ratio=ratio, tol=1e-10)
    sparse = fitted(scipy.sparse.csr_array(X), y, C=0.5, l1_ratio=ratio, tol=1e-10)
    np.testing.assert_allclose(sparse.coef_, dense.coef_, rtol=0, atol=1e-8)
    np.testing.assert_array_equal(sparse.coef_ == 0, dense.coef_ == 0)
    one, two = (fitted(X, y, C=0.5, l1_ratio=ratio, n_threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one.coef_, two.coef_)


@pytest.mark.parametrize("ratio", RATIOS)
def test_float32_stays_float32(ratio):
    X, y = overlapping(500, 8, 3)
    single = fitted(X.astype(np.float32), y, C=0.5, l1_ratio=ratio, tol=1e-5)
    double = fitted(X, y, C=0.5, l1_ratio=ratio, tol=1e-9)
    assert single.coef_.dtype == np.float32
    np.testing.assert_allclose(single.coef_, double.coef_, atol=2e-3)


def test_a_warm_start_needs_fewer_passes_and_ends_at_the_same_place():
    X, y = real("digits")
    cold = fitted(X, y, C=0.5, l1_ratio=1.0, tol=1e-6)
    warm = SoftmaxRegression(C=0.4, l1_ratio=1.0, tol=1e-6, warm_start=True).fit(X, y)
    warm.set_params(C=0.5).fit(X, y)
    np.testing.assert_allclose(warm.fit_report_.objective, cold.fit_report_.objective, rtol=1e-7)
    assert warm.fit_report_.n_passes < cold.fit_report_.n_passes


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_start_near_the_optimum_is_not_taken_for_it(monkeypatch, ratio):
    # The slopes of the new problem are far below tol: nothing but an estimate of the gap keeps the fit going.
    monkeypatch.setattr(proximal, "CHEAP", 0)  # and at first not by the Hessian
    X, y = nearly_dependent(20 if ratio == 1 else 40)  # L1 takes long that way
    model = SoftmaxRegression(l1_ratio=ratio, C=1e4, warm_start=True).fit(X, y)
    for C in (1e5, 1e6)[: 1 if ratio == 1 else 2]:
        model.set_params(C=C).fit(X, y)
        best = fitted(X, y, l1_ratio=ratio, C=C).fit_report_.objective
        assert model.fit_report_.converged
        assert model.fit_report_.objective - best <= 2e-6 * max(best, 1e-3)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("C", [1.0, 10.0])
def test_sparse_rows_that_are_nearly_separable(ratio, C):
    # Where rows are decided the Hessian promises far more than there is: steps of 1e7.
    rng = np.random.default_rng(1)
    y = rng.integers(8, size=600)
    words = rng.zipf(1.3, size=(600, 30)) % 400
    words[:, :6] = (words[:, :6] * 8 + y[:, None]) % 400
    entries = np.ones(words.size), words.ravel(), np.arange(0, words.size + 1, 30)
    X = scipy.sparse.csr_array(entries, shape=(600, 400))
    model = fitted(X, y, C=C, l1_ratio=ratio, tol=1e-6)
    assert kkt(model, X.toarray(), y, np.ones(600), C, ratio) < 1e-5


def test_the_elastic_net_tends_to_its_ends():
    X, y = overlapping(200, 6, 3)
    for ratio, end in ((1e-9, 0.0), (1 - 1e-9, 1.0)):
        near, exact = (fitted(X, y, C=0.3, l1_ratio=r, tol=1e-10) for r in (ratio, end))
        np.testing.assert_allclose(near.predict_proba(X), exact.predict_proba(X), atol=1e-6)


def test_of_equal_optima_the_one_with_the_most_zeros():
    coef = np.array([[3.0, 0.0, 1.0], [1.0, 0.0, 2.0], [-1.0, 1.0, -2.0], [-2.0, -4.0, 5.0]])
    shift = _sparsest_shift(coef)
    moved = coef - shift
    np.testing.assert_allclose(abs(moved).sum(axis=0), abs(coef).sum(axis=0))
    np.testing.assert_array_equal((moved == 0).sum(axis=0), [1, 2, 0])


def test_the_shift_is_the_cheapest_and_changes_no_probability():
    rng = np.random.default_rng(0)
    for n_classes, (alpha, lasso) in itertools.product((3, 4), ((0.0, 1.0), (0.3, 0.7), (1.0, 0.01))):
        coef = rng.standard_normal((n_classes, 20)) + 1
        coef[0] = 0

        def penalty(shift, coef=coef, alpha=alpha, lasso=lasso):
            moved = coef - shift
            return alpha / 2 * (moved**2).sum(axis=0) + lasso * abs(moved).sum(axis=0)

        best = _cheapest_shift(coef, alpha, lasso)
        for away in (-0.1, -1e-6, 1e-6, 0.1):
            assert (penalty(best) <= penalty(best + away) + 1e-15).all()


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("n_classes", [3, 10])
@pytest.mark.parametrize("C", [100, 1e4, 1e6])
def test_the_gap_that_is_told_is_honest_where_the_penalty_is_weak(model_of_curvature, C, n_classes, ratio):
    # What all classes share costs penalty alone: coordinates by themselves would hardly move it.
    X, y = overlapping(200, 8, n_classes)
    model = SoftmaxRegression(C=C, l1_ratio=ratio).fit(X, y)
    best = SoftmaxRegression(C=C, l1_ratio=ratio, tol=1e-10).fit(X, y)
    gap = model.fit_report_.objective - best.fit_report_.objective
    assert model.fit_report_.converged
    assert gap <= 2 * model.fit_report_.gap + 1e-12
    assert gap <= 1e-6 * max(best.fit_report_.objective, 1e-3)


def nearly_dependent(n_features=40):
    """Features that are made of three and a thousandth."""
    rng = np.random.default_rng(4)
    X = rng.standard_normal((300, 3)) @ rng.standard_normal((3, n_features))
    X += 1e-3 * rng.standard_normal(X.shape)
    scores = X @ rng.standard_normal((n_features, 4))
    return X, (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)


@pytest.mark.parametrize("ratio", RATIOS)
def test_nearly_dependent_features_take_few_iterations(ratio):
    model = fitted(*nearly_dependent(), C=1e4, l1_ratio=ratio, tol=1e-4)
    assert model.n_iter_ < 40


def test_the_models_of_curvature_may_take_turns(monkeypatch):
    monkeypatch.setattr(proximal, "MOST_EXACT", 150)  # at first a hundred coordinates may move, then more
    X, y = overlapping(60, 300, 10)
    model = fitted(X, y, C=100, l1_ratio=0.5, tol=1e-6)
    assert kkt(model, X, y, np.ones(60), 100, 0.5) < 1e-5


def test_even_numbers_of_classes_leave_no_feature_without_a_zero():
    X, y = overlapping(300, 5, 4, seed=8)
    model = fitted(X, y, C=100, l1_ratio=1.0)
    assert (model.coef_ == 0).any(axis=0).all()


def test_hessians_cost_no_more_than_they_may(monkeypatch):
    made = []

    def keep(self, size):
        answer = affords(self, size)
        if answer:
            passes = self._n_rows * size**2 / self.objective.work
            made.append(passes)
            assert passes <= max(proximal.CHEAP, self.n_iter)
        return answer

    affords = proximal.Proximal._affords
    monkeypatch.setattr(proximal.Proximal, "_affords", keep)
    X, y = real("digits")
    fitted(np.repeat(X, 4, axis=0), np.repeat(y, 4), C=1.0, l1_ratio=1.0)
    assert max(made) > proximal.CHEAP


def test_a_pair_of_few_places_is_zero_at_others():
    pair = proximal.Pair(np.array([2, 5]), np.array([1.0, 3.0]), np.zeros(9))
    np.testing.assert_array_equal(pair.step_at(np.array([0, 2, 3, 5, 8])), [0, 1, 0, 3, 0])


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_a_gradient_may_take_the_place_of_its_point(sparse, fit_intercept):
    X, y = overlapping(50, 4, 3)
    objective = Objective.of(
        scipy.sparse.csr_array(X) if sparse else X, y.astype(np.int32), np.ones(50), 3,
        C=1.0, fit_intercept=fit_intercept, standardise=True, n_threads=1,
    )  # fmt: skip
    theta = np.random.default_rng(0).standard_normal(objective.size)
    expected = objective.value_gradient(theta)
    J, gradient = objective.value_gradient(theta, theta)
    assert gradient is theta or gradient.base is theta
    np.testing.assert_array_equal([J, *gradient], [expected[0], *expected[1]])


@pytest.mark.parametrize("solver", ["gd", "lbfgs", "newton"])
def test_other_solvers_refuse_an_l1_term(solver):
    X, y = overlapping()
    with pytest.raises(ValueError, match=r"l1_ratio=0.5 with solver=.*needs solver='auto'"):
        SoftmaxRegression(solver=solver, l1_ratio=0.5).fit(X, y)


@pytest.mark.parametrize("ratio", [-0.1, 1.1, np.nan])
def test_a_ratio_out_of_range_is_refused(ratio):
    X, y = overlapping()
    with pytest.raises(ValueError, match="l1_ratio="):
        SoftmaxRegression(l1_ratio=ratio).fit(X, y)


def test_without_a_penalty_the_ratio_does_not_matter():
    X, y = overlapping()
    one, other = (fitted(X, y, C=np.inf, l1_ratio=r, tol=1e-8) for r in (0.0, 1.0))
    np.testing.assert_array_equal(one.coef_, other.coef_)


def test_tol_zero_runs_every_iteration():
    X, y = overlapping()
    model = SoftmaxRegression(l1_ratio=1.0, tol=0, max_iter=30).fit(X, y)
    assert model.n_iter_ == 30
    assert len(model.loss_curve_) == 30
    assert (np.diff(model.loss_curve_) <= 1e-15).all()
