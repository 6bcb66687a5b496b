"""The models of the Hessian, and what is compiled beneath them, against plain NumPy."""

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import twin
from data import overlapping

from csoftmax import _curvature, _linalg, _sums
from csoftmax._objective import Objective
from csoftmax._solvers.quasi_newton import Pairs

MODELS = ["hessian", "classes", "gram", "diagonal"]


def problem(case, n_classes, seed=0):
    """X with features of very different size and place, y, weights; cases plain, weighted, constant column, wide."""
    n, d = (9, 14) if case == "wide" else (80, 4)
    rng = np.random.default_rng(seed)
    X, y = overlapping(n, d, n_classes, seed)
    X = (X + rng.uniform(-3, 3, d)) * 10.0 ** rng.uniform(-3, 3, d)
    if case == "constant":
        X[:, 2] = 7.3
    return X, y, np.ones(n) if case == "plain" else rng.uniform(0.1, 5, n)


def make(X, y, weight, n_classes, C=1.0, fit_intercept=True):
    settings = {"C": C, "fit_intercept": fit_intercept, "standardise": True, "n_threads": 1}
    return Objective.of(X, y.astype(np.int32), weight, n_classes, **settings)


def coordinates(X, weight, fit_intercept):
    """Rows z_i in standardised coordinates, and the units of the features: 0 for a constant one."""
    w = weight / weight.sum()
    mean = w @ X if fit_intercept else np.zeros(X.shape[1])
    unit = np.sqrt(w @ (X - mean) ** 2)
    unit[unit < 1e-12 * abs(X).max(axis=0)] = 0
    Z = np.divide(X - mean, unit, out=np.zeros_like(X), where=unit > 0)
    return (np.column_stack([Z, np.ones(len(X))]) if fit_intercept else Z), unit


def naive_hessian(X, weight, theta, C, fit_intercept):
    """(H, Z, P, A): H = sum_i w_i (diag(p_i) - p_i p_i') (x) z_i z_i' + I (x) penalty, row by row."""
    (Z, unit), (K, D) = coordinates(X, weight, fit_intercept), theta.shape
    scores = Z @ theta.T
    P = twin.softmax(scores if K > 1 else np.column_stack([np.zeros(len(Z)), scores]))[:, -K:]
    H, A = np.zeros((K * D, K * D)), np.zeros((K, K))
    for w, p, z in zip(weight / weight.sum(), P, Z, strict=True):
        a = np.diag(p) - np.outer(p, p)
        H += w * np.kron(a, np.outer(z, z))
        A += w * a
    penalty = np.zeros(D)
    penalty[: len(unit)] = np.divide(1 / (C * weight.sum()), unit**2, out=np.zeros_like(unit), where=unit > 0)
    return H + np.kron(np.eye(K), np.diag(penalty)), Z, P, A


def zero_sum(n_columns):
    """Orthonormal columns that span the vectors with sum zero; one column is free as it is."""
    if n_columns == 1:
        return np.ones((1, 1))
    return np.linalg.svd(np.eye(n_columns) - 1 / n_columns)[0][:, :-1]


def implied(solve, basis):
    """The matrix of a model within a subspace, from its inverse applied to each vector of an orthonormal basis."""
    inverse = basis.T @ np.column_stack([solve(column.copy()) for column in basis.T])
    # The inverse is symmetric up to rounding, relative to its largest entry and the matrix's condition of about 1e4.
    np.testing.assert_allclose(inverse, inverse.T, rtol=0, atol=1e-11 * abs(inverse).max())
    matrix = np.linalg.inv(inverse)
    assert np.linalg.eigvalsh((matrix + matrix.T) / 2).min() > 0
    return matrix


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-9 * abs(expected).max())


def setting(case, n_classes, fit_intercept, C=1.0):
    """Objective, theta, naive Hessian and its parts, and the features that vary."""
    X, y, weight = problem(case, n_classes)
    objective = make(X, y, weight, n_classes, C, fit_intercept)
    theta = 0.7 * np.random.default_rng(7).standard_normal((objective.n_columns, objective.n_coordinates))
    H, Z, P, A = naive_hessian(X, weight, theta, C, fit_intercept)
    varies = np.flatnonzero(Z.any(axis=0))
    return objective, theta, H, Z, P, A, varies, weight / weight.sum()


CASES = pytest.mark.parametrize("case", ["plain", "weighted", "constant", "wide"])
CLASSES = pytest.mark.parametrize("n_classes", [2, 3, 5])
INTERCEPT = pytest.mark.parametrize("fit_intercept", [True, False])


@CASES
@CLASSES
@INTERCEPT
def test_the_sample_of_all_rows_is_the_data_in_standardised_coordinates(case, n_classes, fit_intercept):
    objective, theta, _, Z, P, _, _, w = setting(case, n_classes, fit_intercept)
    for m in (objective.n_rows, objective.n_rows + 5):
        sample = objective.sample(m)
        np.testing.assert_allclose(sample.rows, Z, rtol=0, atol=1e-11)
        np.testing.assert_allclose(sample.weight, w, rtol=1e-14)
        np.testing.assert_allclose(sample.probabilities(theta), P, rtol=1e-9)
        squares = sample.squares(np.zeros_like(theta))  # where every class is as likely
        chance = 1 / max(n_classes, 2)
        expected = np.tile(chance * (1 - chance) * (w @ Z**2), (len(theta), 1))
        np.testing.assert_allclose(squares, expected, rtol=1e-9, atol=1e-15)


@CASES
@CLASSES
@INTERCEPT
@pytest.mark.parametrize("C", [1.0, np.inf])
def test_the_full_model_solves_the_hessian(case, n_classes, fit_intercept, C):
    objective, theta, H, _, _, _, varies, _ = setting(case, n_classes, fit_intercept, C)
    solve = _curvature.hessian(objective.sample(objective.n_rows), theta)
    g = np.zeros_like(theta)
    g[:, varies] = np.random.default_rng(1).standard_normal((len(theta), len(varies)))
    if len(theta) > 1:
        g -= g.mean(axis=0)
    if case == "wide" and np.isinf(C):  # H is singular: only what lies in its range can be solved for
        g = (H @ g.ravel()).reshape(theta.shape)
    step = solve(g.ravel())
    assert step @ g.ravel() > 0  # a direction of descent
    error = abs(H @ step - g.ravel()).max()
    if case == "wide" and np.isinf(C):  # a ridge for directions without curvature leaves three digits of the others
        assert error <= 1e-2 * abs(g).max()
    else:  # a backward stable solve: the model carries a ridge of 1e-13 of the mean of its diagonal
        assert error <= 2e-12 * abs(H).max() * abs(step).max()
    if len(theta) > 1:
        np.testing.assert_allclose(step.reshape(theta.shape).sum(axis=0), 0, atol=1e-12 * abs(step).max())


def block_model(model, H, Z, P, w, penalty, varies):
    """What a model without entries between classes is, before it is centred; features that vary alone."""
    K = P.shape[1]
    at = np.add.outer(np.arange(K) * Z.shape[1], varies).ravel()
    same_class = np.kron(np.eye(K), np.ones((len(varies), len(varies))))
    if model == "hessian":
        return H[np.ix_(at, at)]
    if model == "classes":
        return H[np.ix_(at, at)] * same_class
    if model == "diagonal":
        return np.diag(np.diag(H)[at])
    uncertainty = w * (P * (1 - P)).sum(axis=1)
    G = (Z[:, varies].T * uncertainty / uncertainty.sum()) @ Z[:, varies]
    return np.kron(np.diag(w @ (P * (1 - P))), G) + np.kron(np.eye(K), np.diag(penalty[varies]))


@CASES
@CLASSES
@INTERCEPT
@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_symmetric_positive_and_what_it_says(case, n_classes, fit_intercept, model, monkeypatch):
    monkeypatch.setattr(_curvature, "SHARED", 1 + 1e-12)  # every class has a factor of its own
    objective, theta, H, Z, P, _, varies, w = setting(case, n_classes, fit_intercept)
    solve = getattr(_curvature, model)(objective.sample(objective.n_rows), theta)
    directions, free = zero_sum(len(theta)), np.eye(theta.shape[1])[:, varies]
    step = solve(np.random.default_rng(0).standard_normal(theta.size)).reshape(theta.shape)
    if len(theta) > 1:
        np.testing.assert_allclose(step.sum(axis=0), 0, atol=1e-12 * abs(step).max())
    _, unit = coordinates(*problem(case, n_classes)[::2], fit_intercept)
    penalty = np.zeros(theta.shape[1])
    penalty[: len(unit)] = objective.alpha / np.where(unit > 0, unit, np.inf) ** 2
    matrix = block_model(model, H, Z, P, w, penalty, varies)
    within = np.kron(directions, np.eye(len(varies)))
    if model == "hessian":  # H has no curvature along equal shifts but the penalty's: restricted, not projected
        expected = within.T @ matrix @ within
    else:
        expected = np.linalg.inv(within.T @ np.linalg.inv(matrix) @ within)
    close(implied(solve, np.kron(directions, free)), expected)


@pytest.mark.parametrize("n_classes", [3, 5, 12])
def test_classes_that_share_a_factor_are_within_its_tolerance(n_classes, monkeypatch):
    objective, theta, *_ = setting("weighted", n_classes, True)
    sample, basis = objective.sample(objective.n_rows), np.kron(zero_sum(n_classes), np.eye(theta.shape[1]))
    shared = implied(_curvature.gram(sample, theta), basis)
    monkeypatch.setattr(_curvature, "SHARED", 1 + 1e-12)
    ratio = scipy.linalg.eigvalsh(shared, implied(_curvature.gram(sample, theta), basis))
    assert ratio.min() >= 1 / 2 - 1e-9
    assert ratio.max() <= 2 + 1e-9


@CASES
@CLASSES
@INTERCEPT
def test_the_hessian_is_at_most_twice_the_class_blocks(case, n_classes, fit_intercept):
    objective, theta, H, _, _, _, varies, _ = setting(case, n_classes, fit_intercept)
    solve = _curvature.classes(objective.sample(objective.n_rows), theta)
    basis = np.kron(zero_sum(len(theta)), np.eye(theta.shape[1])[:, varies])
    ratio = scipy.linalg.eigvalsh(basis.T @ H @ basis, implied(solve, basis))
    assert 0 < ratio.min() <= ratio.max() <= 2 + 1e-9


@pytest.mark.parametrize("n_classes", [2, 3, 10])
@INTERCEPT
def test_at_zero_the_gram_model_is_proportional_to_boehnings_bound(n_classes, fit_intercept):
    X, y, weight = problem("weighted", n_classes)
    objective = make(X, y, weight, n_classes, np.inf, fit_intercept)
    theta = np.zeros((objective.n_columns, objective.n_coordinates))
    solve = _curvature.gram(objective.sample(objective.n_rows), theta)
    Z, _ = coordinates(X, weight, fit_intercept)
    G = (Z.T * weight / weight.sum()) @ Z
    basis = np.kron(zero_sum(len(theta)), np.eye(theta.shape[1]))
    # The bound is 1/2 G in every direction, or 1/4 G for two classes in one column, which is the Hessian itself at 0;
    # for more a block of the Hessian is 1/K (1 - 1/K) G.
    factor = 1 / 4 if n_classes == 2 else (n_classes - 1) / n_classes**2
    close(implied(solve, basis), factor * np.kron(np.eye(basis.shape[1] // theta.shape[1]), G))


@INTERCEPT
@CLASSES
def test_the_gradient_is_the_slope_of_the_objective_in_standardised_coordinates(n_classes, fit_intercept):
    X, y, weight = problem("constant", n_classes)
    objective = make(X, y, weight, n_classes, 0.1, fit_intercept)
    rng = np.random.default_rng(3)
    theta, h = rng.standard_normal(objective.size), 1e-3
    _, gradient = objective.value_gradient(theta)
    stencil = np.empty_like(gradient)
    for at, e in enumerate(np.eye(objective.size)):
        J = [objective.value_gradient(theta + step * h * e)[0] for step in (-2, -1, 1, 2)]
        stencil[at] = (J[0] - 8 * J[1] + 8 * J[2] - J[3]) / (12 * h)
    # Truncation h^4 J'''''/30, with |z|^5 up to about 200, and rounding 1e-16 J/h: about 1e-11 and 1e-12.
    np.testing.assert_allclose(gradient, stencil, rtol=0, atol=1e-9 * (1 + abs(gradient).max()))


# ---- the subset of rows -----------------------------------------------------------------------------------------


def test_rows_of_equal_length_are_sampled_with_a_total_weight_of_one():
    rng = np.random.default_rng(0)
    half = rng.choice([-1.0, 1.0], (1000, 6))
    X = np.vstack([half, -half])  # means 0 and deviations 1: every row has the same length
    weight = rng.uniform(0.5, 2, 2000)
    weight[1000:] = weight[:1000]
    objective = make(X, rng.integers(0, 3, 2000), weight, 3)
    for m in (1, 7, 500, 1999):
        sample = objective.sample(m)
        assert 1 <= len(sample.rows) <= m
        np.testing.assert_allclose(sample.weight.sum(), 1, rtol=1e-12)


@INTERCEPT
def test_a_sample_stands_for_all_rows(fit_intercept):
    rng = np.random.default_rng(1)
    X = rng.standard_t(4, (20_000, 8)) * 10.0 ** np.arange(-4, 4)
    weight = rng.uniform(0, 3, len(X))
    objective = make(X, rng.integers(0, 3, len(X)), weight, 3, 1.0, fit_intercept)
    sample, full = objective.sample(1000), objective.sample(len(X))
    assert 500 < len(sample.rows) <= 1000
    grams = [(s.rows.T * s.weight) @ s.rows for s in (sample, full)]
    # The total length is met exactly; an entry of the Gram matrix has an error of about d/sqrt(m) = 0.25 at most, and
    # the total weight about 1/sqrt(m) = 0.03.
    lengths = [s.weight @ (1 + (s.rows[:, :8] ** 2).sum(axis=1)) for s in (sample, full)]
    np.testing.assert_allclose(lengths[0], lengths[1], rtol=1e-10)
    assert abs(sample.weight.sum() - 1) < 0.1
    assert abs(grams[0] - grams[1]).max() < 0.25


@pytest.mark.parametrize("m", [1, 10, 60, 199])
def test_a_row_of_weight_two_is_sampled_as_the_row_twice(m):
    X, y = overlapping(200, 5, 3)
    times = np.random.default_rng(2).integers(1, 4, 200)
    weighted = make(X, y, times.astype(float), 3).sample(m)
    repeated = make(np.repeat(X, times, axis=0), np.repeat(y, times), np.ones(times.sum()), 3).sample(m)
    grams = [np.einsum("i,ij,ik->jk", s.weight, s.rows, s.rows) for s in (weighted, repeated)]
    np.testing.assert_allclose(grams[0], grams[1], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(weighted.weight.sum(), repeated.weight.sum(), rtol=1e-9)


def test_a_sample_sees_a_feature_that_three_rows_have():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((20_000, 6))
    X[:, 5] = 0
    X[[77, 9_001, 15_000], 5] = 1
    sample = make(X, rng.integers(0, 3, len(X)), np.ones(len(X)), 3).sample(200)
    # Of the total length 7 each of the three rows holds a third of the feature's 1: ten times a step of 7/200.
    assert (sample.rows[:, 5] > 1).sum() == 3
    np.testing.assert_allclose(sample.weight @ sample.rows[:, 5] ** 2, 1, rtol=0.15)


# ---- compiled passes --------------------------------------------------------------------------------------------

SIZES = [(1, 1, 1), (7, 3, 2), (64, 5, 64), (65, 9, 64), (100, 17, 33), (3, 20, 8)]


@pytest.mark.parametrize(("n", "d", "block"), SIZES)
def test_the_weighted_gram_matrix(n, d, block):
    rng = np.random.default_rng(n)
    Z, root = rng.standard_normal((n, d)), rng.uniform(0, 2, n)
    out, work = np.full((d, d), 3.0), np.full((block, d), np.nan)
    _linalg.weighted_gram(Z, root, out, work)
    np.testing.assert_allclose(np.tril(out), np.tril(3 + (Z.T * root**2) @ Z), rtol=0, atol=1e-13 * n)


@pytest.mark.parametrize(("n", "d", "block"), SIZES)
@pytest.mark.parametrize("n_classes", [1, 2, 5])
def test_the_compiled_hessian(n, d, block, n_classes):
    rng = np.random.default_rng(n)
    Z, weight = rng.standard_normal((n, d)), rng.uniform(0, 2, n)
    P = np.ascontiguousarray(rng.dirichlet(np.ones(n_classes + 1), n)[:, :-1])
    size = n_classes * d
    out, penalty = np.zeros((size, size)), rng.uniform(0, 2, d)
    work = np.full((block, size), np.nan), np.full((block, n_classes), np.nan)
    _linalg.add_hessian_of_penalty(penalty, out)
    _linalg.hessian(Z, P, weight, out, *work)
    # ||W||^2 by the first K - 1 classes, the last at zero and then centred: I - 11'/K between them.
    H = np.kron(np.eye(n_classes) - 1 / (n_classes + 1), np.diag(penalty))
    for w, p, z in zip(weight, P, Z, strict=True):
        H += w * np.kron(np.diag(p) - np.outer(p, p), np.outer(z, z))
    np.testing.assert_allclose(np.tril(out), np.tril(H), rtol=0, atol=1e-13 * n)


@pytest.mark.parametrize(("n", "d", "block"), SIZES)
@pytest.mark.parametrize("n_classes", [1, 2, 5])
def test_the_symmetric_products_by_tiles(instruction_set, n, d, block, n_classes):
    rng = np.random.default_rng(n)
    Z, weight = rng.standard_normal((n, d)), rng.uniform(0, 2, n)
    P = np.ascontiguousarray(rng.dirichlet(np.ones(n_classes + 1), n)[:, :-1])

    def added(size, add):
        """What `add` adds to ones, between guards; the upper triangle is not looked at."""
        length, width = _sums.gram_shape(size)
        guarded = np.ones(length + 20)
        for start in range(0, n, 40):
            add(start, min(n, start + 40), guarded[10:-10])
        np.testing.assert_array_equal(guarded[:10], 1)
        np.testing.assert_array_equal(guarded[-10 - length + size * width :], 1)
        return np.tril(guarded[10 : 10 + size * width].reshape(size, width)[:, :size])

    gram = added(d, lambda start, stop, out: _sums.gram(Z, weight, start, stop, out))
    np.testing.assert_allclose(gram, np.tril(1 + (Z.T * weight) @ Z), rtol=0, atol=1e-13 * n)
    H = np.ones((n_classes * d,) * 2)
    for w, p, z in zip(weight, P, Z, strict=True):
        H += w * np.kron(np.diag(p) - np.outer(p, p), np.outer(z, z))
    work = np.full((block, n_classes * d), np.nan), np.full(block, np.nan)
    hessian = added(len(H), lambda start, stop, out: _sums.hessian(Z, P, weight, start, stop, out, *work))
    np.testing.assert_allclose(hessian, np.tril(H), rtol=0, atol=1e-13 * n)
    with pytest.raises(ValueError, match="out is too small"):
        _sums.gram(Z, weight, 0, n, np.empty(_sums.gram_shape(d)[0] - 1))


@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_an_interrupt_ends_the_making_of_a_model_after_the_calls_under_way(n_threads, monkeypatch):
    n, size, calls = 20_000, 60, []

    def add(start, stop, out):
        calls.append((start, stop))
        assert (stop - start) * size**2 <= _curvature.CALL
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(_curvature, "CALL", 2**18)  # 72 rows: 278 calls if nothing stops them
    with pytest.raises(KeyboardInterrupt):
        _curvature._add_up(n, size, add, n_threads)
    assert 3 <= len(calls) < 3 + 2 * n_threads


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize(("n", "d"), [(5000, 60), (40_000, 30), (300, 1100)])
def test_models_do_not_depend_on_the_number_of_threads(n, d, n_threads):
    rng = np.random.default_rng(d)
    X, y, theta = rng.standard_normal((n, d)), rng.integers(0, 3, n).astype(np.int32), rng.standard_normal((3, d + 1))
    solved = []
    for threads in (1, n_threads):
        settings = {"C": 1.0, "fit_intercept": True, "standardise": True, "n_threads": threads}
        sample = Objective.of(X, y, np.ones(n), 3, **settings).sample(n)
        solved += [_curvature.classes(sample, theta)(theta.ravel())]
        if d < 1000:
            solved += [_curvature.hessian(sample, theta)(theta.ravel())]
    half = len(solved) // 2
    for one, other in zip(solved[:half], solved[half:], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("n", "m"),
    [*itertools.product([1, 2, 5, 20, 64, 100, 350], [1, 3, 4, 7]), (300, 1200), (1100, 3)],  # the last two by LAPACK
)
@pytest.mark.parametrize("condition", [1e2, 1e12])
def test_the_compiled_cholesky_solve(n, condition, m):
    rng = np.random.default_rng(n)
    Q, values = np.linalg.qr(rng.standard_normal((n, n)))[0], np.geomspace(1, 1 / condition, n)
    matrix, rows = (Q * values) @ Q.T, rng.standard_normal((m, n))
    units, factor, answer = rng.uniform(0.5, 2, (1, n)), np.full((n, n), np.nan), rows / 2
    assert _linalg.factorise(np.tril(matrix) + np.triu(np.full((n, n), np.nan), 1), 0.0, factor)
    np.testing.assert_allclose(np.tril(factor) @ np.tril(factor).T, matrix, rtol=0, atol=n * 2.0**-52)
    _linalg.solve(factor[None], units, np.zeros(len(answer), np.intp), answer)
    answer, rows = answer / units, rows / 2 * units
    # Backward stable: the residual is rounding, relative to the largest entries, whatever the condition.
    assert abs(answer @ matrix - rows).max() <= 10 * n * 2.0**-52 * np.linalg.norm(answer, axis=1).max()
    values[-1] = -1e-3
    assert not _linalg.factorise((Q * values) @ Q.T, 0.0, factor)
    assert _linalg.factorise((Q * values) @ Q.T, 1e-2, factor)


def test_equilibrating_makes_ones_of_the_diagonal_and_rows_of_the_identity_where_it_cannot():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((7, 7)) * 10.0 ** np.arange(-150, 153, 50)[:, None]
    matrix = root @ root.T
    matrix[3] = matrix[:, 3] = 0
    matrix[5, 5] = np.inf
    lower, unit = matrix.copy(), np.full(7, np.nan)
    _linalg.equilibrate(lower, unit)
    good = [0, 1, 2, 4, 6]
    np.testing.assert_array_equal(unit[[3, 5]], 0)
    np.testing.assert_allclose(unit[good], 1 / np.sqrt(np.diag(matrix)[good]), rtol=1e-15)
    expected = np.eye(7)
    with np.errstate(invalid="ignore"):
        expected[np.ix_(good, good)] = (matrix * unit * unit[:, None])[np.ix_(good, good)]
    np.testing.assert_allclose(np.tril(lower), np.tril(expected), rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("n", [12, 30, 100, 300])
def test_a_factor_from_fewer_rows_than_features_does_not_turn_around(n):
    rng = np.random.default_rng(n)
    Z = rng.standard_normal((n // 2, n))
    factor, g = np.empty((n, n)), rng.standard_normal((20, n))
    step = g.copy()  # it may say that the matrix is not definite, not that it is and be wrong
    if _linalg.factorise(Z.T @ Z / n, 1e-13, factor):
        _linalg.solve(factor[None], np.ones((1, n)), np.zeros(len(step), np.intp), step)
    assert np.einsum("ij,ij->i", step, g).min() > 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (5, 7), (9, 8), (33, 17), (4, 100)])
def test_the_lengths_of_rows(instruction_set, dtype, n, d):
    rng = np.random.default_rng(d)
    X = (rng.standard_normal((n, d)) + 3).astype(dtype)
    center, unit, lengths = rng.standard_normal(d), rng.uniform(0, 2, d), np.full(n, np.nan)
    _sums.row_lengths(X, center, unit, lengths)
    # Float32 data may be centred in float32: its own rounding, relative to the terms.
    np.testing.assert_allclose(lengths, (((X - center) * unit) ** 2).sum(axis=1), rtol=200 * np.finfo(dtype).eps)


@pytest.mark.parametrize("n", [0, 1, 8191, 8192, 8193, 250_001])
def test_products_of_vectors_of_any_length(n):
    x, y = np.random.default_rng(n).standard_normal((2, n))
    np.testing.assert_allclose(_linalg.dot(x, y), math.fsum(x * y), rtol=0, atol=1e-13 * (1 + n))


@pytest.mark.parametrize("added", [0, 1, 3, 4, 5, 11])
@pytest.mark.parametrize("exact", [True, False])
def test_pairs_in_a_ring_are_the_bfgs_updates_of_the_newest(added, exact):
    rng = np.random.default_rng(added)
    n, most = 13, 4
    A = rng.standard_normal((n, n))
    A, H0 = A @ A.T + np.eye(n), np.diag(rng.uniform(0.5, 2, n))
    pairs, kept, H = Pairs(most, n), [], H0
    for _ in range(added):
        s = rng.standard_normal(n)
        y = A @ s
        for turn in (-y, y):  # a pair without curvature costs the oldest its place, and is not kept
            place = pairs.place()
            place[0][:], place[1][:] = s, turn
            pairs.add()
        kept = [*kept[-most + 1 :], (s, y)]
    if kept and not exact:
        s, y = kept[-1]
        H = H * (s @ y) / (y @ H @ y)
    for s, y in kept:
        E = np.eye(n) - np.outer(y, s) / (s @ y)
        H = E.T @ H @ E + np.outer(s, s) / (s @ y)
    v = rng.standard_normal(n)
    before = v.copy()
    # The condition of A is about 1e3, and an update multiplies rounding by no more.
    solve = lambda x: H0 @ x  # noqa: E731
    scale = 1.0 if exact else pairs.scale(solve, np.empty(n))
    np.testing.assert_allclose(pairs.inverse_times(v.copy(), solve, scale), H @ v, rtol=1e-9, atol=1e-10)
    np.testing.assert_array_equal(v, before)
    pairs.clear()
    np.testing.assert_allclose(
        pairs.inverse_times(v.copy(), solve, pairs.scale(solve, np.empty(n))), H0 @ v, rtol=1e-14
    )
