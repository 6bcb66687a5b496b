"""The Hessian of a sample, solved in every iteration of a fit of many rows: products, solutions, whole fits."""

import weakref

import numpy as np
import pytest
import twin
from data import overlapping
from scipy.sparse import csr_array

from csoftmax import SoftmaxRegression, _curvature, _rows
from csoftmax._curvature import Sample
from csoftmax._objective import Objective
from csoftmax._rows import LocalRows
from csoftmax._solvers import Options
from csoftmax._solvers import quasi_newton as engine
from csoftmax._solvers.quasi_newton import PROMPT, QuasiNewton, choose


def sample_of(n, d, columns, dtype=np.float64, seed=0, n_threads=1):
    """A sample of rows with an intercept, and theta."""
    rng = np.random.default_rng(seed)
    rows = np.ones((n, d + 1), dtype)
    rows[:, :d] = rng.standard_normal((n, d))
    sample = Sample(rows, rng.uniform(0.5, 2, n) / n, np.append(rng.uniform(0, 0.1, d), 0), n_threads)
    return sample, rng.standard_normal((columns, d + 1))


def whole_hessian(sample, theta):
    """That of the loss over the sample, row by row, without the penalty."""
    K, D = theta.shape
    rows = sample.rows.astype(np.float64)
    scores = rows @ theta.T
    P = twin.softmax(scores if K > 1 else np.column_stack([np.zeros(len(rows)), scores]))[:, -K:]
    H = np.zeros((K * D, K * D))
    for w, p, z in zip(sample.weight, P, rows, strict=True):
        H += w * np.kron(np.diag(p) - np.outer(p, p), np.outer(z, z))
    return H


def objective_of(X, y, n_classes, n_threads=2, **settings):
    settings = {"C": 1.0, "fit_intercept": True, "standardise": True, "n_threads": n_threads, **settings}
    return Objective.of(X, y.astype(np.int32), np.ones(len(y)), n_classes, **settings)


# ---- products and solutions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("columns", [1, 2, 5, 60])  # the last through BLAS where vectors are short
@pytest.mark.parametrize(("n", "d"), [(1, 1), (37, 3), (700, 9), (5000, 2)])
def test_products_are_those_of_the_hessian(n, d, columns, dtype):
    sample, theta = sample_of(n, d, columns, dtype)
    vector = np.random.default_rng(1).standard_normal(theta.shape)
    product = sample.hessian_times(sample.probabilities(theta))(vector)
    assert product.dtype == np.float64
    expected = (whole_hessian(sample, theta) @ vector.ravel()).reshape(theta.shape)
    tolerance = 1e-13 if dtype == np.float64 else 2e-6
    np.testing.assert_allclose(product, expected, rtol=0, atol=tolerance * abs(vector).max())


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_equations_are_solved_as_far_as_asked(monkeypatch, columns):
    monkeypatch.setattr(_curvature, "MOST_PRODUCTS", 200)
    sample, theta = sample_of(300, 6, columns)
    H = whole_hessian(sample, theta) + np.kron(np.eye(columns), np.diag(sample.penalty))
    model, probability = _curvature.gram(sample, 0 * theta), sample.probabilities(theta)
    g = np.random.default_rng(2).standard_normal(theta.shape)
    g = (g - g.mean(axis=0) if columns > 1 else g).ravel()

    def left(step):
        rest = g - H @ step
        return np.sqrt(rest @ model(rest.copy()) / (g @ model(g.copy())))

    shares = [left(_curvature.refined(sample, probability, model, share)(g.copy())) for share in (0.5, 0.1, 1e-9)]
    assert 0.5 >= shares[0] > shares[1] > shares[2]
    assert shares[1] <= 0.1
    assert shares[2] <= 1e-8  # what is left is added up as it goes, with rounding errors
    if columns > 1:
        step = _curvature.refined(sample, probability, model, 1e-9)(g.copy()).reshape(theta.shape)
        np.testing.assert_allclose(step.sum(axis=0), 0, atol=1e-12 * abs(step).max())


def test_without_curvature_the_model_alone_gives_the_direction():
    sample, _ = sample_of(50, 3, 3)
    sample, g = sample._replace(penalty=np.zeros(4)), np.arange(12.0)
    certain = np.tile([1.0, 0.0, 0.0], (50, 1))
    step = _curvature.refined(sample, certain, lambda vector: 2 * vector, 0.5)(g.copy())
    np.testing.assert_array_equal(step, 2 * g)


def test_effective_rows():
    sample, _ = sample_of(40, 2, 3)
    sample = sample._replace(share=np.full(40, 0.1))
    np.testing.assert_allclose(sample.effective_rows(np.full((40, 3), 1 / 3)), 40)
    np.testing.assert_allclose(sample.effective_rows(np.full((40, 1), 0.2)), 40)
    sure = np.tile([1.0, 0.0, 0.0], (40, 1))
    assert sample.effective_rows(sure) == 0
    sure[[3, 7]] = 1 / 3
    np.testing.assert_allclose(sample.effective_rows(sure), 2)
    P = np.random.default_rng(3).dirichlet(np.ones(3), 40)
    curvature = (P * (1 - P)).sum(axis=1)
    np.testing.assert_allclose(sample.effective_rows(P), curvature.sum() ** 2 / (curvature**2).sum())
    heavy = sample._replace(share=np.array([1.0, *[0.0] * 38, 1.0]))
    np.testing.assert_allclose(heavy.effective_rows(np.full((40, 3), 1 / 3)), 2)


# ---- samples --------------------------------------------------------------------------------------------------------


def test_two_samples_come_from_rows_that_are_looked_at_once(monkeypatch):
    monkeypatch.setattr(_rows, "LOOKED", 1)
    monkeypatch.setattr(_rows, "SPARE", 2)
    looks, look = [], LocalRows._look
    monkeypatch.setattr(LocalRows, "_look", lambda self, search: looks.append(1) or look(self, search))
    X, y = overlapping(5000, 4, 3)
    objective = objective_of(X, y, 3)
    large, small = objective.sample(900), objective.sample(300)
    assert len(looks) == 1
    assert objective.sample(900).rows is large.rows
    assert objective.sample(300).rows is small.rows
    # A third of the points on the way along all lengths: each row of the small sample is one of the large.
    assert {tuple(row) for row in small.rows} <= {tuple(row) for row in large.rows}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_sample_has_the_dtype_of_the_data(dtype):
    X, y = overlapping(3000, 4, 3)
    objective = objective_of(X.astype(dtype), y, 3)
    sample, theta = objective.sample(500), np.random.default_rng(0).standard_normal((3, 5))
    assert sample.rows.dtype == dtype
    assert sample.probabilities(theta).dtype == sample.free_hessian(theta).dtype == np.float64
    exact = sample._replace(rows=sample.rows.astype(np.float64))
    for of, other in ((sample.blocks(theta), exact.blocks(theta)), ([sample.squares(theta)], [exact.squares(theta)])):
        for one, two in zip(of, other, strict=True):
            np.testing.assert_allclose(one, two, rtol=0, atol=(1e-14 if dtype == np.float64 else 1e-6) * abs(two).max())


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("every", [1, 3])
def test_rows_chosen_by_curvature(monkeypatch, every, n_classes, fit_intercept, dtype):
    monkeypatch.setattr(_rows, "LOOKED", 4000)
    monkeypatch.setattr(_rows, "SPARE", 2)
    monkeypatch.setattr(_rows, "SCORED", 5000)  # some runs at once, and less than all
    n, wanted = 4000 * every + 123, 500
    X, y = overlapping(n, 4, n_classes)
    X = X.astype(dtype)
    objective = objective_of(X, y, n_classes, fit_intercept=fit_intercept)
    theta = 2 * np.random.default_rng(0).standard_normal((objective.n_columns, objective.n_coordinates))
    by_length, sample = objective.sample_here(wanted), objective.sample_here(wanted, theta, 0.1)
    scale = X.std(axis=0, dtype=np.float64) if fit_intercept else np.sqrt((X.astype(np.float64) ** 2).mean(axis=0))
    Z = (X - fit_intercept * X.mean(axis=0, dtype=np.float64)) / scale
    Z = np.column_stack([Z, np.ones(n)][: 1 + fit_intercept])
    if every > 1:
        Z = np.concatenate([Z[start : start + 256] for start in range(0, n, 256 * every)])
    both = np.vstack([np.zeros_like(theta), theta]) if n_classes == 2 else theta
    P = twin.softmax(Z @ both.T)
    measure = ((Z**2).sum(axis=1) + (not fit_intercept)) * (1 - (P**2).sum(axis=1) + 0.1)
    ends = np.floor(np.cumsum(measure) / measure.sum() * wanted + 0.5)
    hits = np.diff(ends, prepend=0)
    chosen = np.flatnonzero(hits)
    if dtype == np.float64:
        np.testing.assert_allclose(sample.rows, Z[chosen], rtol=0, atol=1e-9)
        weight = hits[chosen] / wanted * measure.sum() / measure[chosen] / len(Z)
        np.testing.assert_allclose(sample.weight, weight, rtol=1e-9)
        np.testing.assert_allclose(sample.share, sample.weight * (Z[chosen] ** 2).sum(axis=1), rtol=1e-9)
    else:  # rounding may move a point from a row to the next
        apart = abs(sample.rows[:, None] - Z[chosen]).max(axis=2).min(axis=1)
        assert np.count_nonzero(apart > 1e-4) <= 3
    # Sums over the sample are those over all rows that were looked at.
    spread = (P * (1 - P))[:, -objective.n_columns :]
    np.testing.assert_allclose(sample.squares(theta), spread.T @ Z**2 / len(Z), rtol=0.25, atol=0.02)
    counted = [each.effective_rows(each.probabilities(theta)) for each in (by_length, sample)]
    assert counted[0] < counted[1]
    mean = np.average(1 - (P**2).sum(axis=1), weights=(Z**2).sum(axis=1))
    np.testing.assert_allclose(by_length.mean_uncertainty(by_length.probabilities(theta)), mean, rtol=0.1)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rows_that_are_all_certain_are_chosen_by_length(dtype):
    X, y = overlapping(3000, 4, 3)
    objective = objective_of(X.astype(dtype), y, 3)
    theta = 1e5 * np.random.default_rng(0).standard_normal((3, 5))
    sample, by_length = objective.sample_here(500, theta, 1e-7), objective.sample_here(500)
    assert (sample.weight > 0).all()
    common = {tuple(row) for row in sample.rows} & {tuple(row) for row in by_length.rows}
    assert len(common) >= 0.9 * len(by_length.rows)


def test_rows_chosen_by_curvature_take_the_place_of_others():
    X, y = overlapping(3000, 4, 3)
    objective = objective_of(X, y, 3)
    before, few = objective.sample_here(500), objective.sample(200)
    other = objective.sample_here(500, np.ones((3, 5)) * [[2], [0], [0]], 0.1)
    assert not np.array_equal(other.rows, before.rows)
    assert len(objective._samples) == 2
    assert objective.sample(200).rows is few.rows
    assert objective.sample_here(500).rows is other.rows


# ---- fits -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def alone(monkeypatch):
    """A fit by the model alone."""

    def fit(X, y, **settings):
        with monkeypatch.context() as patch:
            patch.setattr(engine, "LEAST_FEWER", np.inf)
            return SoftmaxRegression(**settings).fit(X, y)

    return fit


def uncertain(n, d, n_classes):
    """Classes that overlap everywhere, and features of different size and place."""
    rng = np.random.default_rng(4)
    X = rng.standard_normal((n, d))
    scores = X @ rng.standard_normal((d, n_classes)) * 1.5 / np.sqrt(d)
    return (X + 3) * np.logspace(-2, 2, d), (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)


MANY = [(30_000, 10, 8), (12_000, 30, 4), (20_000, 20, 30)]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "d", "n_classes"), MANY)
def test_fits_of_many_rows_take_fewer_passes_to_the_same_optimum(alone, n, d, n_classes, dtype):
    X, y = uncertain(n, d, n_classes)
    X = X.astype(dtype)
    model, other = SoftmaxRegression().fit(X, y), alone(X, y)
    assert f"preconditions the Hessian of {max(n // 20, 26 * (d + 1))} rows" in model.fit_report_.reason_chosen
    assert "preconditions" not in other.fit_report_.reason_chosen
    assert model.fit_report_.n_passes <= (0.8 if n_classes == 30 else 0.99) * other.fit_report_.n_passes
    best = SoftmaxRegression(solver="newton", tol=1e-9).fit(X.astype(np.float64), y).fit_report_.objective
    allowed = 1e-6 if dtype == np.float64 else 1e-4  # what the default tolerance promises
    assert model.fit_report_.converged
    assert model.fit_report_.objective - best <= allowed * max(best, 1e-3)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_classes", [7, 12])
def test_threads_and_layouts_leave_it_bitwise_the_same(n_classes, dtype):
    X, y = overlapping(20_000, 25, n_classes)
    X = X.astype(dtype)
    models = [
        SoftmaxRegression(n_threads=n_threads).fit(rows, y)
        for n_threads, rows in ((1, X), (2, X), (4, np.asfortranarray(X)))
    ]
    assert "preconditions" in models[0].fit_report_.reason_chosen
    for model in models[1:]:
        np.testing.assert_array_equal(model.coef_, models[0].coef_)
        np.testing.assert_array_equal(model.loss_curve_, models[0].loss_curve_)


def test_two_classes_in_one_column_without_an_intercept():
    rng = np.random.default_rng(5)
    X = rng.standard_normal((300_000, 40))
    y = (X @ rng.standard_normal(40) * 0.3 > rng.logistic(size=len(X))).astype(int)
    objective = objective_of(X, y, 2, fit_intercept=False)
    setting = next(one for one in engine.ladder(objective) if one.refining)  # the Hessian itself is cheap here
    result = engine.minimise(objective, np.zeros(40), Options(1e-4, 100, 0.1, lambda *_: False), setting)
    exact = engine.newton(
        objective_of(X, y, 2, fit_intercept=False), np.zeros(40), Options(1e-9, 100, 0.1, lambda *_: False)
    )
    assert result.converged
    assert result.n_iter <= 8
    assert result.objective - exact.objective <= 1e-6 * exact.objective


def sure_classes(n, d, n_classes, noise=2.0):
    """Classes that overlap little: near the optimum few rows have any curvature."""
    rng = np.random.default_rng(6)
    centres = 1.2 * rng.standard_normal((n_classes, d))
    y = rng.integers(n_classes, size=n)
    return centres[y] + noise * rng.standard_normal((n, d)), y


@pytest.fixture
def choices(monkeypatch):
    """Of each choice of rows by a fit, whether it was by curvature; then the rows before must be gone."""
    found, sample, rows = [], LocalRows.sample_here, []

    def choose(self, n_rows, search, penalty):
        assert (search.theta is None) == (search.floor == 0)
        if search.theta is not None:
            assert rows[-1]() is None
        found.append(search.theta is not None)
        chosen = sample(self, n_rows, search, penalty)
        rows.append(weakref.ref(chosen.rows))
        return chosen

    monkeypatch.setattr(LocalRows, "sample_here", choose)
    return found


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_others_are_chosen_where_classes_become_sure(alone, choices, dtype):
    X, y = sure_classes(40_000, 20, 8, noise=1.2)
    X = X.astype(dtype)
    models = [SoftmaxRegression(n_threads=n_threads).fit(X, y) for n_threads in (1, 2)]
    model, other = models[0], alone(X, y)
    half = len(choices) // 2
    assert choices[:half] == choices[half:]
    assert choices[:2] == [False, True]
    assert all(choices[1:half])
    np.testing.assert_array_equal(models[1].coef_, model.coef_)
    assert "in the first" not in model.fit_report_.reason_chosen
    assert model.fit_report_.n_passes <= 0.8 * other.fit_report_.n_passes
    best = SoftmaxRegression(solver="newton", tol=1e-9).fit(X.astype(np.float64), y).fit_report_.objective
    assert model.fit_report_.objective - best <= (1e-6 if dtype == np.float64 else 1e-4) * best


def test_a_start_where_classes_are_sure(choices):
    X, y = sure_classes(40_000, 20, 8, noise=1.2)
    model = SoftmaxRegression(warm_start=True).fit(X, y)
    choices.clear()
    model.set_params(C=0.5).fit(X, y)
    assert choices == [False, True]
    best = SoftmaxRegression(C=0.5, solver="newton", tol=1e-9).fit(X, y).fit_report_.objective
    assert model.fit_report_.objective - best <= 1e-6 * best


@pytest.mark.parametrize("C", [1.0, 1e3])
def test_it_is_given_up_where_few_rows_count(alone, C):
    X, y = sure_classes(12_000, 40, 10)
    model, other = SoftmaxRegression(C=C).fit(X, y), alone(X, y, C=C)
    report = model.fit_report_
    assert "rows in the first " in report.reason_chosen
    assert report.converged
    assert report.n_passes <= 1.2 * other.fit_report_.n_passes
    best = SoftmaxRegression(C=C, solver="newton", tol=1e-9).fit(X, y).fit_report_.objective
    assert report.objective - best <= 1e-6 * max(best, 1e-3)


def test_it_is_given_up_where_the_gap_does_not_fall():
    X, y = overlapping(8000, 20, 30)
    objective = objective_of(X, y, 30)
    setting = choose(objective)
    fit = QuasiNewton(objective, np.zeros(objective.size), Options(1e-4, 100, 0.1, lambda *_: False), setting)
    fit.turn()
    assert fit._refined is not None
    for decrement in (5.0, 1.0, 0.5):
        fit.decrement = decrement
        assert not fit._misled()
    assert len(fit._decrements) == PROMPT + 1
    for decrement, misled in ((4.9, False), (0.9, False), (0.5, True)):
        fit.decrement = decrement
        assert fit._misled() == misled
    fit._decrements.extend([1e-9] * (PROMPT + 1))
    fit.turn()  # whose gap is larger
    assert fit._refined is None
    assert fit.setting == next(one for one in engine.ladder(objective, alone=True) if one.model is setting.model)
    assert fit._pairs.used == setting.history


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_penalty_without_bounds_warns_of_nothing(recwarn, dtype):
    X, y = overlapping(12_000, 10, 9)
    X = X.astype(dtype)
    X[:, 3] *= 1e-160 if dtype == np.float64 else 1e-25  # a weight would be 1e160, its penalty infinite
    model = SoftmaxRegression().fit(X, y)
    assert not [warning for warning in recwarn if warning.category is RuntimeWarning]
    assert "preconditions" in model.fit_report_.reason_chosen
    assert "in the first" not in model.fit_report_.reason_chosen
    others = SoftmaxRegression(solver="newton").fit(np.delete(X, 3, axis=1).astype(np.float64), y)
    allowed = 1e-6 if dtype == np.float64 else 1e-4
    assert model.fit_report_.objective - others.fit_report_.objective <= allowed * others.fit_report_.objective


def test_memory_limits_the_probabilities_too():
    X, y = overlapping(20_000, 3, 400)
    objective = objective_of(X, y, 400)
    objective.memory = 2**23
    for setting in engine.ladder(objective):
        assert 24 * 400 * max(setting.n_rows, setting.refining) <= 2**23


def test_sparse_and_wide_data_and_few_rows_go_without(alone):
    for n, d, n_classes in ((1000, 20, 10), (300, 400, 3)):
        X, y = overlapping(n, d, n_classes)
        assert "preconditions" not in SoftmaxRegression().fit(X, y).fit_report_.reason_chosen
    X, y = overlapping(8000, 20, 30)
    assert "preconditions" not in SoftmaxRegression().fit(csr_array(X), y).fit_report_.reason_chosen
