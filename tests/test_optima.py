"""Optima that are known beforehand, and changes of the data that change the optimum in a known way."""

import numpy as np
import pytest
import twin
from data import overlapping, raw
from scipy.optimize import root

from csoftmax import ConvergenceWarning, SoftmaxRegression

SOLVERS = ["auto", "lbfgs", "newton"]
EVERY_SOLVER = pytest.mark.parametrize("solver", SOLVERS)
CLASSES = pytest.mark.parametrize("n_classes", [2, 3, 6])


def tight(X, y, sample_weight=None, **parameters):
    """The optimum to the last digits. Any warning, RuntimeWarning included, is an error in this test suite."""
    return SoftmaxRegression(**{"tol": 1e-10, "max_iter": 2000, **parameters}).fit(X, y, sample_weight)


def gradient(model, X, y, C=np.inf, weight=None):
    """Largest entry of the gradient of J at the model, by the twin."""
    weight = np.ones(len(y)) if weight is None else weight
    _, by_coef, by_intercept = twin.mean_loss_gradient(X, y, model.coef_, model.intercept_, weight)
    by_coef = by_coef + model.coef_ / (C * weight.sum())
    return max(abs(by_coef).max(), abs(by_intercept).max())


def constructed(n, d, n_classes, seed=0, spread=1.0):
    """Rows under every label, weighted by the probabilities of a known model: (rows, labels, weights, W0, b0, P).

    The loss of row i is then the cross-entropy of its scores with P_i, least where the scores are the model's own. So
    W0 and b0, centred, are the unpenalised optimum; for d >= n any weights with the same scores are.
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    W, b = rng.standard_normal((n_classes, d)) * spread / np.sqrt(d), rng.standard_normal(n_classes) / 2
    P = twin.softmax(X @ W.T + b)
    rows, y = np.repeat(X, n_classes, axis=0), np.tile(np.arange(n_classes), n)
    return rows, y, P.ravel(), W - W.mean(axis=0), b - b.mean(), P


# ---- known optima -----------------------------------------------------------------------------------------------


@EVERY_SOLVER
@CLASSES
@pytest.mark.parametrize("size", [(50, 4), (400, 12)])
def test_a_tall_problem_whose_unpenalised_optimum_is_known(solver, n_classes, size):
    X, y, weight, W, b, P = constructed(*size, n_classes, spread=2.0)
    model = tight(X, y, weight, C=np.inf, solver=solver)
    if n_classes == 2:
        W, b = W[1:] - W[:1], b[1:] - b[:1]
    # A gap of 1e-12 and a least curvature of about 1e-2 in a unit of W leave an error of about 1e-5 at most.
    np.testing.assert_allclose(model.coef_, W, rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.intercept_, b, rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(X[::n_classes]), P, rtol=0, atol=1e-6)
    entropy = -(P * np.log(P)).sum() / len(P)
    np.testing.assert_allclose(model.fit_report_.objective, entropy, rtol=1e-11)


@EVERY_SOLVER
@CLASSES
@pytest.mark.parametrize("size", [(12, 30), (20, 20), (40, 200)])
def test_a_wide_problem_whose_unpenalised_probabilities_are_known(solver, n_classes, size):
    X, y, weight, _, _, P = constructed(*size, n_classes, spread=2.0)
    model = tight(X, y, weight, C=np.inf, solver=solver, max_iter=20_000)  # lbfgs needs some thousands
    # Half the squared error of a row's probabilities is at most its share of the gap (Pinsker), n times 1e-12 here.
    np.testing.assert_allclose(model.predict_proba(X[::n_classes]), P, rtol=0, atol=2e-5)
    np.testing.assert_allclose(model.fit_report_.objective, -(P * np.log(P)).sum() / len(P), rtol=1e-11)


@EVERY_SOLVER
@CLASSES
@pytest.mark.parametrize(("size", "C"), [((60, 3), 1.0), ((60, 3), 100.0), ((8, 12), 0.1), ((8, 12), 10.0)])
def test_the_penalised_optimum_is_the_root_of_the_gradient(solver, n_classes, size, C):
    n, d = size
    X, y = overlapping(n, d, n_classes)
    weight = np.random.default_rng(1).uniform(0.2, 2, n)
    K = 1 if n_classes == 2 else n_classes

    def slope(theta):
        coef, intercept = theta[: K * d].reshape(K, d), theta[K * d :]
        _, by_coef, by_intercept = twin.mean_loss_gradient(X, y, coef, intercept, weight)
        # For several classes the mean of the intercepts is free; the root has it at zero.
        free = intercept.mean() if K > 1 else 0
        return np.concatenate([(by_coef + coef / (C * weight.sum())).ravel(), by_intercept + free])

    found = root(slope, np.zeros(K * (d + 1)), tol=1e-13)
    assert abs(slope(found.x)).max() < 1e-10
    model = tight(X, y, weight, C=C, solver=solver)
    # The curvature is at least 1/(C S), 1e-2 to 1e-4 here, and the gap about 1e-13.
    np.testing.assert_allclose(model.coef_, found.x[: K * d].reshape(K, d), rtol=0, atol=2e-5)
    np.testing.assert_allclose(model.intercept_, found.x[K * d :], rtol=0, atol=2e-5)


@EVERY_SOLVER
def test_without_features_that_vary_the_intercepts_are_the_shares_of_the_classes(solver):
    y = np.repeat([0, 1, 2], [5, 20, 75])
    for C in (1.0, np.inf):
        model = tight(np.full((100, 2), 3.7), y, C=C, solver=solver)
        np.testing.assert_array_equal(model.coef_, 0)
        np.testing.assert_allclose(model.predict_proba([[3.7, 3.7]])[0], [0.05, 0.2, 0.75], atol=1e-7)


# ---- changes of the data ----------------------------------------------------------------------------------------


@EVERY_SOLVER
@CLASSES
@pytest.mark.parametrize("C", [0.1, 10.0])
def test_features_twice_with_half_of_c_share_the_weights(solver, n_classes, C):
    X, y = overlapping(150, 4, n_classes)
    one = tight(X, y, C=C, solver=solver)
    # coef/2 in each half has half the penalty, which C/2 doubles again.
    two = tight(np.hstack([X, X]), y, C=C / 2, solver=solver)
    for half in (two.coef_[:, :4], two.coef_[:, 4:]):
        np.testing.assert_allclose(half, one.coef_ / 2, rtol=0, atol=1e-5)
    np.testing.assert_allclose(two.intercept_, one.intercept_, rtol=0, atol=1e-5)
    np.testing.assert_allclose(two.fit_report_.objective, one.fit_report_.objective, rtol=1e-10)


@EVERY_SOLVER
@CLASSES
def test_features_twice_without_a_penalty_leave_the_probabilities(solver, n_classes):
    X, y = overlapping(300, 4, n_classes)
    one, two = (tight(data, y, C=np.inf, solver=solver) for data in (X, np.hstack([X, 1e3 * X - 5])))
    np.testing.assert_allclose(two.predict_proba(np.hstack([X, 1e3 * X - 5])), one.predict_proba(X), atol=1e-6)


@EVERY_SOLVER
@CLASSES
@pytest.mark.parametrize("C", [0.1, 10.0])
def test_all_rows_twice_are_twice_c(solver, n_classes, C):
    X, y = overlapping(150, 4, n_classes)
    one = tight(X, y, C=2 * C, solver=solver)
    two = tight(np.vstack([X, X]), np.append(y, y), C=C, solver=solver)
    np.testing.assert_allclose(two.coef_, one.coef_, rtol=0, atol=1e-5)
    np.testing.assert_allclose(two.intercept_, one.intercept_, rtol=0, atol=1e-5)


@EVERY_SOLVER
@CLASSES
@pytest.mark.parametrize("C", [1.0, np.inf])
def test_weights_are_repetitions(solver, n_classes, C):
    X, y = overlapping(200, 4, n_classes)
    times = np.random.default_rng(3).integers(0, 4, 200)
    times[:n_classes] = 1
    weighted = tight(X, y, times, C=C, solver=solver)
    repeated = tight(np.repeat(X, times, axis=0), np.repeat(y, times), C=C, solver=solver)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=0, atol=1e-5)
    np.testing.assert_allclose(weighted.intercept_, repeated.intercept_, rtol=0, atol=1e-5)
    np.testing.assert_allclose(weighted.fit_report_.objective, repeated.fit_report_.objective, rtol=1e-11)


@EVERY_SOLVER
@pytest.mark.parametrize("C", [1.0, np.inf])
def test_constant_and_duplicate_columns(solver, C):
    X, y = overlapping(200, 4, 3)
    wider = np.column_stack([np.full(200, 1e3), X, np.full(200, -0.1), X[:, 1], X[:, 1]])
    model = tight(wider, y, C=C, solver=solver)
    np.testing.assert_array_equal(model.coef_[:, [0, 5]], 0)
    same = model.coef_[:, [2, 6, 7]]
    if np.isinf(C):
        plain = tight(X, y, C=C, solver=solver)
        np.testing.assert_allclose(same.sum(axis=1), plain.coef_[:, 1], rtol=0, atol=1e-5)
        np.testing.assert_allclose(model.coef_[:, [1, 3, 4]], plain.coef_[:, [0, 2, 3]], rtol=0, atol=1e-5)
    else:
        np.testing.assert_allclose(same, same.mean(axis=1, keepdims=True).repeat(3, axis=1), rtol=0, atol=1e-5)
        # One column with the sum of the three weights has their penalty where it is three times as large: sqrt(3) x.
        merged = tight(np.column_stack([X[:, [0, 2, 3]], np.sqrt(3) * X[:, 1]]), y, C=C, solver=solver)
        np.testing.assert_allclose(same.sum(axis=1), merged.coef_[:, 3] * np.sqrt(3), rtol=0, atol=1e-5)


# ---- odd shapes and numbers -------------------------------------------------------------------------------------


@EVERY_SOLVER
@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("case", ["wide", "one sample of a class", "as many rows as classes", "two rows"])
def test_odd_shapes_have_a_gradient_of_zero(solver, C, case):
    n, d, n_classes = {"wide": (20, 60, 3), "as many rows as classes": (7, 4, 7), "two rows": (2, 3, 2)}.get(
        case, (80, 4, 3)
    )
    X, y = overlapping(n, d, n_classes)
    if case == "one sample of a class":
        y[(y == 2) & (np.arange(n) > 2)] = 0
        assert (y == 2).sum() == 1
    model = tight(X, y, C=C, solver=solver)
    # tol is for the gradient in standard deviations of a feature, about 1 here.
    assert gradient(model, X, y, C) <= 1e-9
    assert model.fit_report_.converged


@EVERY_SOLVER
@CLASSES
def test_weights_spread_over_twelve_decades(solver, n_classes):
    X, y = overlapping(300, 4, n_classes)
    weight = 10.0 ** np.random.default_rng(4).uniform(-6, 6, 300)
    heavy = np.argsort(weight)[-n_classes * 30 :]
    weight[heavy] = 1e6  # enough rows that matter for the classes to overlap
    y[heavy] = np.random.default_rng(5).permutation(np.resize(np.arange(n_classes), len(heavy)))
    for C in (1e-6, np.inf):
        model = tight(X, y, weight, C=C, solver=solver)
        assert gradient(model, X, y, C, weight) <= 1e-9
        scaled = tight(X, y, weight * 1e-3, C=C * 1e3, solver=solver)
        np.testing.assert_allclose(scaled.coef_, model.coef_, rtol=0, atol=1e-6 * (1 + abs(model.coef_).max()))


@EVERY_SOLVER
@CLASSES
@pytest.mark.parametrize("size", [1e-150, 1e150])
def test_features_of_extreme_size_without_a_penalty(solver, n_classes, size):
    X, y = overlapping(200, 3, n_classes)
    units = np.array([1.0, size, size])
    plain = tight(X, y, C=np.inf, solver=solver)
    model = tight(X * units, y, C=np.inf, solver=solver)
    np.testing.assert_allclose(model.predict_proba(X * units), plain.predict_proba(X), rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.coef_ * units, plain.coef_, rtol=0, atol=1e-5)


@EVERY_SOLVER
@CLASSES
@pytest.mark.parametrize(("C", "tol"), [(1e-3, 1e-4), (1.0, 1e-4), (1.0, 1e-10), (1e3, 1e-4)])
def test_a_penalty_on_a_feature_of_extreme_size(solver, n_classes, C, tol):
    X, y = overlapping(200, 3, n_classes)
    alone = tight(X[:, :2], y, C=C, solver=solver)
    tiny = tight(X * [1, 1, 1e-150], y, C=C, solver=solver, tol=tol)
    # A weight that could matter would cost 1e300: it is zero to all digits of J.
    assert abs(tiny.coef_[:, 2] * 1e-150).max() < 1e-140
    np.testing.assert_allclose(tiny.coef_[:, :2], alone.coef_, rtol=0, atol=0.03 if tol > 1e-5 else 1e-5)
    # A huge feature is free: as without a penalty on it, which a size of 1e6 is, too.
    large, huge = (tight(X * [1, 1, size], y, C=C, solver=solver, tol=tol) for size in (1e6, 1e150))
    expected = large.predict_proba(X * [1, 1, 1e6])
    atol = 0.01 if tol > 1e-5 else 1e-5
    np.testing.assert_allclose(huge.predict_proba(X * [1, 1, 1e150]), expected, rtol=0, atol=atol)


@EVERY_SOLVER
@pytest.mark.parametrize("unit", [1e-3, 1e-6, 1e-8, 1e-12, 1e-20, 1e-50])
def test_a_feature_in_tiny_units_does_not_slow_the_others_down(solver, unit):
    X, y = overlapping(200, 3, 3)
    alone = SoftmaxRegression(solver=solver).fit(X[:, :2], y)
    model = SoftmaxRegression(solver=solver).fit(X * [1, 1, unit], y)
    # The penalty, of 1/unit^2 in its own standard deviations, leaves the feature nothing to do.
    assert model.fit_report_.objective <= alone.fit_report_.objective + 1e-6
    assert model.n_iter_[0] <= 2 * alone.n_iter_[0] + 5


@EVERY_SOLVER
def test_all_features_of_extreme_size_at_default_tolerance(solver):
    X, y = raw("iris")
    for size in (1e-150, 1e150):
        if size > 1:  # separable but for two rows, and no penalty to speak of: overlap is needed
            X, y = overlapping(150, 4, 3)
        model = SoftmaxRegression(solver=solver).fit(X * size, y)
        assert np.isfinite(model.coef_).all()
        assert np.isfinite(model.predict_proba(X * size)).all()
        if size < 1:
            np.testing.assert_allclose(model.predict_proba(X * size), 1 / 3, atol=1e-6)


# ---- no optimum -------------------------------------------------------------------------------------------------


def separable_warning(X, y, **parameters):
    """The model, after its warning that says separable."""
    with pytest.warns(ConvergenceWarning, match="separab"):
        model = SoftmaxRegression(C=np.inf, **parameters).fit(X, y)
    assert np.isfinite(model.coef_).all()
    assert np.isfinite(model.intercept_).all()
    assert not model.fit_report_.converged
    return model


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("gap", [1e-3, 1.0])
def test_separable_classes(solver, n_classes, gap):
    rng = np.random.default_rng(1)
    y = np.repeat(np.arange(n_classes), 30)
    # In the plane around a circle, so that a hyperplane through the origin parts each class from the others.
    angle = 2 * np.pi * (y + rng.uniform(0, 1 - 1e-2, len(y)) * (1 if gap < 1 else 0.3)) / n_classes
    X = np.column_stack([np.cos(angle), np.sin(angle)]) * rng.uniform(1, 2, len(y))[:, None] * [1e3, 1e-3]
    assert separable_warning(X, y, solver=solver).score(X, y) == 1


def quasi_separable(n_classes, seed=0):
    """Overlapping classes; rows that have the last feature are all of one class, which others have too."""
    X, y = overlapping(300, 3, n_classes, seed)
    has = np.random.default_rng(seed).random(300) < 0.2
    return np.column_stack([X, has]), np.where(has, 1, y), has


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_quasi_separable_classes(solver, n_classes):
    X, y, has = quasi_separable(n_classes)
    model = separable_warning(X, y, solver=solver)
    # At the infimum rows with the feature cost nothing, and the others are as they are by themselves.
    others = SoftmaxRegression(C=np.inf, tol=1e-8).fit(X[~has, :3], y[~has])
    infimum = others.fit_report_.objective * (~has).mean()
    assert -1e-12 <= model.fit_report_.objective - infimum <= 1e-3
    np.testing.assert_allclose(model.predict_proba(X[~has]), others.predict_proba(X[~has, :3]), atol=0.02)


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_class_apart_from_two_that_overlap(solver):
    X, y = overlapping(200, 3, 2)
    X = np.vstack([X, X[:50] + np.array([40, 0, 0])])
    separable_warning(X, np.append(y, np.full(50, 2)), solver=solver)


@pytest.mark.parametrize("solver", SOLVERS)
def test_classes_that_touch_in_one_point(solver):
    separable_warning(np.array([[-2.0], [-1], [0], [0], [1], [3]]), np.array([0, 0, 0, 1, 1, 1]), solver=solver)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n_classes", [2, 3, 6])
def test_overlapping_classes_are_not_called_separable(solver, n_classes):
    for seed in range(20):
        X, _ = overlapping(25, 3, n_classes, seed)
        # Every row once under every label, one of them heavier: no direction is without a loss.
        rows, y = np.tile(X, (n_classes, 1)), np.repeat(np.arange(n_classes), len(X))
        weight = np.where(np.arange(len(y)) % n_classes == 0, 20.0, 0.05)
        model = SoftmaxRegression(C=np.inf, solver=solver).fit(rows, y, weight)  # a warning is an error here
        assert model.fit_report_.converged
