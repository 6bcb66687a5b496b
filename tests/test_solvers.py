"""The optimum: gradient descent against the twin's iterates, every solver against scikit-learn and closed forms."""

import functools
import itertools
import re
import warnings

import numpy as np
import pytest
import twin
from data import overlapping, real
from threadpoolctl import threadpool_limits

from csoftmax import ConvergenceWarning, SoftmaxRegression

EPS = 2.0**-52


def fit_for(max_iter, X, y, sample_weight=None, **parameters):
    """Exactly max_iter iterations, whether or not the solver says that these were too few."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return SoftmaxRegression(max_iter=max_iter, tol=0, **parameters).fit(X, y, sample_weight)


def tight(X, y, sample_weight=None, **parameters):
    """The optimum to the last digits. A ConvergenceWarning is an error in this test suite."""
    return SoftmaxRegression(**{"tol": 1e-10, "max_iter": 20_000, **parameters}).fit(X, y, sample_weight)


def objective(model, X, y, C=1.0, weight=None):
    labels = np.searchsorted(model.classes_, y)
    return twin.objective(X, labels, model.coef_, model.intercept_, C, weight)


# ---- gradient descent, the textbook's algorithm -----------------------------------------------------------------


@pytest.mark.parametrize("C", [np.inf, 0.05])
@pytest.mark.parametrize("n_classes", [2, 3, 10])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_gradient_descent_follows_the_twin_for_fifty_iterations(C, n_classes, fit_intercept, weighted):
    X, y = overlapping(150, 5, n_classes)
    weight = np.random.default_rng(1).uniform(0, 2, 150) if weighted else None
    iterates = twin.gradient_descent(X, y, n_classes, 50, 0.3, C, weight, fit_intercept)
    settings = {"solver": "gd", "learning_rate": 0.3, "C": C, "fit_intercept": fit_intercept}
    for n_iter in range(1, 51):
        model = fit_for(n_iter, X, y, weight, **settings)
        coef, intercept, _ = iterates[n_iter]
        np.testing.assert_allclose(model.coef_, coef, rtol=0, atol=1e-12 * np.abs(coef).max())
        np.testing.assert_allclose(model.intercept_, intercept, rtol=0, atol=1e-12)
        assert model.n_iter_.tolist() == [n_iter]
    np.testing.assert_allclose(model.loss_curve_, [J for _, _, J in iterates[1:]], rtol=1e-12)


def test_gradient_descent_from_zeros_makes_the_step_of_the_textbook():
    X, y = overlapping(60, 3, 3)
    model = fit_for(1, X, y, solver="gd", C=np.inf, learning_rate=0.7)
    # W <- 0 + rate/n sum_i x_i (y_i - p_i), where every p is 1/3.
    step = 0.7 / 60 * (np.eye(3)[y] - 1 / 3).T @ X
    np.testing.assert_allclose(model.coef_, step, rtol=1e-13)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_gradient_descent_stops_when_no_weight_vector_moves_by_more_than_tol(n_classes):
    X, y = overlapping(120, 3, n_classes)
    stacked = [np.column_stack([W, b]) for W, b, _ in twin.gradient_descent(X, y, n_classes, 5000, 0.5, C=1.0)]
    moves = [np.linalg.norm(b - a, axis=1).max() for a, b in itertools.pairwise(stacked)]
    for tol in (1e-2, 1e-3, 1e-4):
        model = SoftmaxRegression(solver="gd", learning_rate=0.5, tol=tol, max_iter=5000).fit(X, y)
        assert model.n_iter_[0] == 1 + np.argmax(np.array(moves) <= tol)
        assert model.fit_report_.converged


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("C", [1.0, np.inf])
def test_gradient_descent_converges_to_the_optimum_of_lbfgs(n_classes, C):
    X, y = overlapping(150, 4, n_classes)
    # The Hessian is at least 1/(C S) or, unpenalised, about 1e-2: steps of 1e-11 leave an error of about 1e-9.
    gd = tight(X, y, C=C, solver="gd", learning_rate=1.0, tol=1e-11, max_iter=100_000)
    lbfgs = tight(X, y, C=C, solver="lbfgs")
    np.testing.assert_allclose(gd.coef_, lbfgs.coef_, rtol=0, atol=1e-6)
    np.testing.assert_allclose(gd.intercept_, lbfgs.intercept_, rtol=0, atol=1e-6)
    np.testing.assert_allclose(objective(gd, X, y, C), objective(lbfgs, X, y, C), rtol=1e-11)


@pytest.mark.parametrize("settings", [{"C": 1e-3, "learning_rate": 100.0}, {"C": np.inf, "learning_rate": 1e308}])
def test_a_rate_that_diverges_is_an_error_that_names_it(settings):
    X, y = overlapping(150, 5, 3)
    with pytest.raises(ValueError, match="learning_rate"):
        SoftmaxRegression(solver="gd", **settings).fit(10 * X, y)


# ---- scikit-learn's optimum -------------------------------------------------------------------------------------

WEIGHTS = ["plain", "sample weights", "balanced"]


def case_weights(name, weights):
    """Arguments of both estimators: (sample_weight, class_weight), and the product of the two, row by row."""
    _, y = real(name)
    if weights == "sample weights":
        sample_weight = np.random.default_rng(2).uniform(0, 3, len(y))
        return sample_weight, None, sample_weight
    if weights == "balanced":
        return None, "balanced", twin.class_weights(y, y.max() + 1)[y]
    return None, None, np.ones(len(y))


@functools.cache
def reference(name, C, fit_intercept, weights):
    """scikit-learn's C * sum_i s_i loss_i + ||W||^2 / 2, at tol=1e-10, by its second-order solver."""
    X, y = real(name)
    sample_weight, class_weight, _ = case_weights(name, weights)
    model = pytest.importorskip("sklearn.linear_model").LogisticRegression(
        C=C, fit_intercept=fit_intercept, class_weight=class_weight, solver="newton-cholesky", tol=1e-10, max_iter=1000
    )
    with threadpool_limits(1, user_api="blas"):  # OpenBLAS's threads wait for each other on a busy machine
        return model.fit(X, y, sample_weight)


CS = [0.01, 1.0, 100.0]
CASES = [
    *itertools.product(["iris", "wine", "cancer"], CS, [True, False], WEIGHTS),
    *itertools.product(["digits"], CS, [True], ["sample weights"]),  # takes scikit-learn seconds
]


@pytest.mark.parametrize(("name", "C", "fit_intercept", "weights"), CASES)
def test_the_optimum_is_scikit_learns(name, C, fit_intercept, weights):
    X, y = real(name)
    sample_weight, class_weight, weight = case_weights(name, weights)
    theirs = reference(name, C, fit_intercept, weights)
    ours = tight(X, y, sample_weight, C=C, fit_intercept=fit_intercept, class_weight=class_weight)
    assert ours.coef_.shape == theirs.coef_.shape
    assert ours.intercept_.shape == theirs.intercept_.shape
    np.testing.assert_allclose(objective(ours, X, y, C, weight), objective(theirs, X, y, C, weight), rtol=1e-8)
    np.testing.assert_allclose(ours.fit_report_.objective, objective(ours, X, y, C, weight), rtol=1e-10)
    if C < 100:
        largest = np.abs(theirs.coef_).max()
        np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=0, atol=1e-4 * largest)
        np.testing.assert_allclose(
            ours.intercept_, theirs.intercept_, rtol=0, atol=1e-4 * max(largest, np.abs(theirs.intercept_).max())
        )
    if not fit_intercept:
        np.testing.assert_array_equal(ours.intercept_, 0)
    if len(ours.classes_) > 2:
        largest = max(np.abs(ours.coef_).max(), np.abs(ours.intercept_).max())
        np.testing.assert_allclose(ours.coef_.sum(axis=0), 0, atol=1e-12 * largest)
        np.testing.assert_allclose(ours.intercept_.sum(), 0, atol=1e-12 * largest)


# ---- the optimum by itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["gd", "lbfgs"])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_one_group_of_rows_per_feature_has_a_closed_form(solver, n_classes):
    # x is one of three unit vectors: the unpenalised scores of group g are the logarithms of its class frequencies.
    counts = np.random.default_rng(3).integers(1, 9, (3, n_classes))
    group, y = (np.repeat(a.ravel(), counts.ravel()) for a in np.indices(counts.shape))
    settings = {"solver": solver, "C": np.inf, "fit_intercept": False, "learning_rate": 3.0, "tol": 1e-12}
    model = tight(np.eye(3)[group], y, **settings)
    log_p = np.log(counts / counts.sum(axis=1, keepdims=True)).T
    expected = log_p[1:] - log_p[:1] if n_classes == 2 else log_p - log_p.mean(axis=0)
    np.testing.assert_allclose(model.coef_, expected, atol=1e-8)
    np.testing.assert_allclose(model.predict_proba(np.eye(3)), (counts / counts.sum(axis=1, keepdims=True)), atol=1e-9)


@pytest.mark.parametrize("name", ["iris", "wine", "digits", "cancer"])
@pytest.mark.parametrize("C", [1.0, 100.0])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_at_the_default_tolerance_the_gradient_is_within_tol_in_units_of_the_features(name, C, fit_intercept):
    X, y = real(name)
    model = SoftmaxRegression(C=C, fit_intercept=fit_intercept, tol=1e-4, max_iter=20_000).fit(X, y)
    _, g, g_b = twin.mean_loss_gradient(X, y, model.coef_, model.intercept_, np.ones(len(y)))
    g = g + model.coef_ / (C * len(y))
    m = X.mean(axis=0) if fit_intercept else np.zeros(X.shape[1])
    g_b = g_b if fit_intercept else np.zeros(len(g))
    s = np.sqrt(((X - m) ** 2).mean(axis=0))
    varies = s > 1e-12 * np.abs(X).max()
    slope = np.abs(g - np.outer(g_b, m))[:, varies] / s[varies]
    assert max(slope.max(), np.abs(g_b).max()) <= 1e-4 * (1 + 1e-6)


@pytest.mark.parametrize("name", ["iris", "wine", "digits", "cancer"])
@pytest.mark.parametrize("C", [1.0, 100.0])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_at_the_default_tolerance_the_gap_is_about_a_hundredth_of_it(name, C, fit_intercept):
    X, y = real(name)
    model = SoftmaxRegression(C=C, fit_intercept=fit_intercept, tol=1e-4, max_iter=20_000).fit(X, y)
    best = objective(tight(X, y, C=C, fit_intercept=fit_intercept), X, y, C)
    # The solver's gap is an estimate; one that is too small by more than a factor of 10 certifies nothing.
    assert objective(model, X, y, C) - best <= 10 * 1e-6 * max(best, 1e-3)


def test_float32_data_ask_for_the_gap_that_they_can_hold(instruction_set):
    X, y = real("digits")
    passes = []
    for C, l1_ratio in itertools.product([1.0, 100.0], [0.0, 0.5]):
        single = SoftmaxRegression(C=C, l1_ratio=l1_ratio).fit(X.astype(np.float32), y).fit_report_
        double = SoftmaxRegression(C=C, l1_ratio=l1_ratio).fit(X, y).fit_report_
        best = SoftmaxRegression(C=C, l1_ratio=l1_ratio, tol=1e-9, max_iter=20_000).fit(X, y).fit_report_.objective
        assert single.converged
        assert single.objective - best <= 1e-4 * max(best, 1e-3)
        passes.append((single.n_passes, double.n_passes))
    # In all: by rounding alone, one path may be a few passes longer than another.
    of_single, of_double = map(sum, zip(*passes, strict=True))
    assert of_single < of_double


@pytest.mark.parametrize("units", [[1e-4, 1.0, 1e3, 1e6], [1e-100, 1.0, 1e100, 1e200]])
def test_the_units_of_a_feature_do_not_matter(units):
    X, y = overlapping(300, 4, 3)
    moved = (X + 5) * np.array(units)
    one, other = (SoftmaxRegression(C=np.inf, max_iter=20_000).fit(data, y) for data in (X, moved))
    np.testing.assert_allclose(objective(one, X, y, np.inf), objective(other, moved, y, np.inf), rtol=2e-6)


@pytest.mark.parametrize("C", [1.0, np.inf])
@pytest.mark.parametrize("values", [[7.3, 7.3], [0.1 + 0.2, 0.3], [0.0, 0.0], [1e200, 1e200]])
def test_a_feature_that_is_constant_but_for_rounding_has_no_weight(C, values):
    X, y = overlapping()
    wider = np.insert(X, 2, np.resize(values, len(X)), axis=1)
    model, plain = tight(wider, y, C=C), tight(X, y, C=C)
    np.testing.assert_array_equal(model.coef_[:, 2], 0)
    np.testing.assert_allclose(np.delete(model.coef_, 2, axis=1), plain.coef_, atol=1e-7)


def test_the_intercept_is_the_weight_of_a_column_of_ones():
    X, y = overlapping()
    model = tight(X, y, C=np.inf)
    other = tight(np.column_stack([X, np.ones(len(X))]), y, C=np.inf, fit_intercept=False)
    np.testing.assert_allclose(np.column_stack([model.coef_, model.intercept_]), other.coef_, atol=1e-7)


@pytest.mark.parametrize("n_classes", [3, 10])
def test_one_vector_added_to_all_classes_leaves_the_probabilities(n_classes):
    X, y = overlapping(300, 6, n_classes)
    model = SoftmaxRegression().fit(X, y)
    before = model.predict_proba(X)
    psi = np.random.default_rng(4).standard_normal(7)
    model.coef_ = model.coef_ + psi[:6]
    model.intercept_ = model.intercept_ + psi[6]
    np.testing.assert_allclose(model.predict_proba(X), before, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("solver", ["gd", "lbfgs"])
def test_separable_classes_without_penalty_end_with_finite_weights_and_a_word_about_it(n_classes, solver):
    X = np.linspace(0, 1, 60)[:, None]
    y = np.minimum((X[:, 0] * n_classes).astype(int), n_classes - 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = SoftmaxRegression(C=np.inf, solver=solver).fit(X, y)
    assert np.isfinite(model.coef_).all()
    assert np.isfinite(model.intercept_).all()
    words = model.fit_report_.message + " ".join(str(w.message) for w in caught)
    if solver == "lbfgs":  # the textbook's algorithm only runs out of iterations
        assert re.search("separab|no (finite )?optimum|no minimum|infinit", words)
    else:
        assert "max_iter" in words


@pytest.mark.parametrize("solver", ["gd", "lbfgs"])
def test_a_tolerance_of_zero_runs_all_iterations(solver):
    X, y = overlapping()
    assert fit_for(400, X, y, solver=solver).n_iter_.tolist() == [400]  # far beyond what lbfgs needs


# ---- the path ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["iris", "wine", "digits", "cancer"])
@pytest.mark.parametrize("solver", ["gd", "lbfgs"])
def test_the_objective_never_rises(name, solver):
    X, y = real(name)
    model = fit_for(60, X, y, C=1.0, solver=solver, learning_rate=1e-3)
    assert len(model.loss_curve_) == model.n_iter_[0] == 60
    J_zero = np.log(len(model.classes_))
    curve = np.concatenate([[J_zero], model.loss_curve_])
    assert (np.diff(curve) <= 8 * EPS * np.abs(curve[:-1])).all()
    np.testing.assert_allclose(model.loss_curve_[-1], objective(model, X, y), rtol=1e-10)


@pytest.mark.parametrize("solver", ["gd", "lbfgs"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_classes", [2, 10])
def test_bitwise_the_same_for_every_number_of_threads_and_every_run(solver, dtype, n_classes):
    X, y = overlapping(20_000, 30, n_classes)  # several chunks of rows: more than one thread has work
    weight = np.random.default_rng(5).uniform(0, 2, len(y))
    models = [
        fit_for(15, X.astype(dtype), y, weight, solver=solver, n_threads=n_threads) for n_threads in (1, 2, None, 1, 2)
    ]
    for other in models[1:]:
        np.testing.assert_array_equal(other.coef_, models[0].coef_)
        np.testing.assert_array_equal(other.intercept_, models[0].intercept_)
        np.testing.assert_array_equal(other.loss_curve_, models[0].loss_curve_)
        np.testing.assert_array_equal(other.predict_proba(X), models[0].predict_proba(X))
