"""SciPy's sparse matrices: the same numbers as from the dense X, whatever the container, and never a dense copy."""

import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.sparse
from data import METHODS, overlapping, random_csr

import csoftmax
from csoftmax import Predictor, SoftmaxRegression, _curvature
from csoftmax._objective import Objective
from csoftmax._rows import LocalRows
from csoftmax._solvers.quasi_newton import keeps_scores

FORMATS = ["bsr", "coo", "csc", "csr", "dia", "dok", "lil"]


def sparse_problem(n=300, d=20, n_classes=3, seed=0, density=0.2):
    """Mostly zero X, dense, with an empty row, an empty column and a column of ones; labels that overlap."""
    rng = np.random.default_rng(seed)
    X = np.where(rng.random((n, d)) < density, rng.standard_normal((n, d)) + 0.5, 0.0)
    X[0], X[:, 1], X[:, 2] = 0, 0, 1
    scores = X @ rng.standard_normal((d, n_classes))
    y = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    y[:n_classes] = np.arange(n_classes)
    return X, y


def shuffled(X, seed=0):
    """The same matrix with the entries of each row in another order."""
    S, rng = scipy.sparse.csr_array(X), np.random.default_rng(seed)
    for row in range(S.shape[0]):
        part = slice(S.indptr[row], S.indptr[row + 1])
        order = rng.permutation(part.stop - part.start)
        S.indices[part], S.data[part] = S.indices[part][order], S.data[part][order]
    S.has_sorted_indices = False
    return S


def doubled(X):
    """The same matrix with every entry in two halves, and an explicit zero in each row."""
    S = scipy.sparse.coo_array(X)
    n, d = X.shape
    row, column = S.coords
    rows = np.concatenate([row, row, np.arange(n)])
    columns = np.concatenate([column, column, np.arange(n) % d])
    values = np.concatenate([S.data / 2, S.data / 2, np.zeros(n)])
    order = np.argsort(rows, kind="stable")
    indptr = np.append(0, np.cumsum(np.bincount(rows, minlength=n)))
    return scipy.sparse.csr_array((values[order], columns[order], indptr), shape=X.shape)


def wide(X):
    """CSR with 64-bit indices."""
    S = scipy.sparse.csr_array(X)
    S.indices, S.indptr = S.indices.astype(np.int64), S.indptr.astype(np.int64)
    return S


PATHOLOGIES = {"shuffled": shuffled, "doubled": doubled, "wide": wide, "matrix": scipy.sparse.csr_matrix}
CONTAINERS = {
    **PATHOLOGIES,
    **{name: lambda X, name=name: scipy.sparse.coo_array(X).asformat(name) for name in FORMATS},
}


def fitted(X, y, **parameters):
    return SoftmaxRegression(tol=1e-12, **parameters).fit(X, y)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.filterwarnings("ignore:Constructing a DIA matrix:scipy.sparse.SparseEfficiencyWarning")
def test_every_container_gives_the_dense_fit_and_predictions(container, n_classes):
    X, y = sparse_problem(n_classes=n_classes)
    S = CONTAINERS[container](X)
    before = S.copy()
    dense, ours = fitted(X, y), fitted(S, y)
    np.testing.assert_allclose(ours.coef_, dense.coef_, rtol=0, atol=1e-10)
    np.testing.assert_allclose(ours.intercept_, dense.intercept_, rtol=0, atol=1e-10)
    for method in METHODS:
        expected = getattr(dense, method)(X)
        for model in (dense, dense.predictor()):
            answer = getattr(model, method)(S)
            assert answer.shape == expected.shape
            if expected.dtype.kind == "f":
                np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-13)
            else:
                np.testing.assert_array_equal(answer, expected)
    assert (before != S).sum() == 0
    assert before.format == S.format


@pytest.mark.parametrize("solver", ["auto", "lbfgs", "newton", "gd"])
def test_every_solver_takes_sparse_rows(solver):
    X, y = sparse_problem()
    weight = np.random.default_rng(1).integers(0, 3, len(y)).astype(float)
    options = {"solver": solver, "max_iter": 20_000, "tol": 1e-9, "learning_rate": 0.5}
    dense, ours = (SoftmaxRegression(**options).fit(Z, y, weight) for Z in (X, scipy.sparse.csr_array(X)))
    np.testing.assert_allclose(ours.coef_, dense.coef_, rtol=0, atol=1e-7)
    assert ours.fit_report_.converged


@pytest.mark.parametrize("d", [20, 3000])
def test_wide_rows_by_the_diagonal_reach_the_dense_optimum(d):
    X, y = sparse_problem(400, d, 4, density=0.01)
    S = scipy.sparse.csr_array(X)
    dense, ours = fitted(X, y), fitted(S, y)
    assert ours.fit_report_.converged
    np.testing.assert_allclose(ours.coef_, dense.coef_, rtol=0, atol=1e-7)
    np.testing.assert_allclose(ours.fit_report_.objective, dense.fit_report_.objective, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bitwise_the_same_for_every_number_of_threads(dtype):
    rng = np.random.default_rng(0)
    S = random_csr(20_000, 500, 0.05, dtype)
    y = rng.integers(0, 12, S.shape[0])
    one, three = (SoftmaxRegression(n_threads=n, tol=1e-3).fit(S, y) for n in (1, 3))
    np.testing.assert_array_equal(one.coef_, three.coef_)
    assert one.coef_.dtype == dtype
    for method in METHODS:
        first, other = (getattr(one.predictor(), method)(S, n_threads=n) for n in (1, 3))
        np.testing.assert_array_equal(first, other)


def test_column_moments_lengths_and_diagonals_equal_the_dense():
    X, y = sparse_problem(500, 12, 4)
    X[:, 3] += 1e3 * (X[:, 3] != 0)
    weight = np.random.default_rng(2).uniform(0.1, 1, len(y))
    S = scipy.sparse.csr_array(X)
    codes = y.astype(np.int32)
    for ours, dense in zip(*(LocalRows(Z, codes, weight, 4, 1).moments() for Z in (S, X)), strict=True):
        np.testing.assert_allclose(ours, dense, rtol=1e-12, atol=1e-14)
    sparse, dense = (
        Objective.of(Z, codes, weight, 4, C=1.0, fit_intercept=True, standardise=True, n_threads=1) for Z in (S, X)
    )
    theta = np.random.default_rng(3).standard_normal(sparse.size)
    value, gradient = sparse.value_gradient(theta)
    expected_value, expected_gradient = dense.value_gradient(theta)
    np.testing.assert_allclose(value, expected_value, rtol=1e-13)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-10, atol=1e-14)
    some, same = sparse.sample(100), dense.sample(100)
    np.testing.assert_allclose(some.rows, same.rows, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(some.weight, same.weight, rtol=1e-10)
    rows = theta.reshape(4, -1)
    np.testing.assert_allclose(sparse.squares(rows), dense.sample(500).squares(rows), rtol=1e-9)
    sparse.keep_scores(theta)
    np.testing.assert_allclose(sparse.squares(rows), dense.sample(500).squares(rows), rtol=1e-9)
    np.testing.assert_allclose(dense.squares(rows), dense.sample(500).squares(rows), rtol=1e-9)
    active = np.flatnonzero(np.random.default_rng(4).random(sparse.size) < 0.6)
    hessian = dense.sample(500).hessian(dense.sample(500).probabilities(rows))
    whole = np.tril(hessian) + np.tril(hessian, -1).T + np.diag(np.tile(dense.sample(1).penalty, 4))
    for objective in (sparse, dense):
        part = objective.stored_rows(500).hessian(rows, active)
        np.testing.assert_allclose(part, whole[np.ix_(active, active)], rtol=1e-8, atol=1e-10)
    solve, expected_solve = (_curvature.diagonal(sample, rows) for sample in (sparse, dense))
    np.testing.assert_allclose(solve(gradient.copy()), expected_solve(gradient.copy()), rtol=1e-9)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_curvature_at_zero_needs_no_pass(n_classes, fit_intercept):
    X, y = sparse_problem(n_classes=n_classes)
    weight = np.random.default_rng(5).uniform(0.2, 3, len(y))
    options = {"C": 1.0, "fit_intercept": fit_intercept, "standardise": True, "n_threads": 1}
    objective = Objective.of(scipy.sparse.csr_array(X), y.astype(np.int32), weight, n_classes, **options)
    zero = np.zeros((objective.n_columns, objective.n_coordinates))
    varies = np.append(np.ptp(X, axis=0) > 0, [True] * fit_intercept).astype(bool)
    expected = objective.squares(zero + 1e-200)
    found = np.broadcast_to(objective.squares(zero), zero.shape)
    np.testing.assert_allclose(found[:, varies], expected[:, varies], rtol=1e-12)


def test_the_loss_and_its_gradient_equal_the_dense():
    X, y = sparse_problem()
    coef = np.random.default_rng(4).standard_normal((3, X.shape[1]))
    ours, dense = (csoftmax.loss_gradient(Z, y, coef) for Z in (scipy.sparse.coo_array(X), X))
    for one, other in zip(ours, dense, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("n_classes", [2, 3, 70])
def test_top_k_out_and_other_dtypes_of_the_predictor(n_classes):
    X, _ = sparse_problem(200, 30)
    rng = np.random.default_rng(5)
    rows = 1 if n_classes == 2 else n_classes
    model = Predictor(rng.standard_normal((rows, 30)), rng.standard_normal(rows))
    S = scipy.sparse.csr_array(X)
    for ours, dense in zip(model.top_k(S, 2), model.top_k(X, 2), strict=True):
        np.testing.assert_allclose(ours, dense, rtol=1e-12)
    out = np.empty((200, n_classes))
    assert model.predict_proba(S, out) is out
    np.testing.assert_allclose(out, model.predict_proba(X), rtol=1e-12)
    np.testing.assert_allclose(model.predict_proba(S.astype(np.float32)), out, atol=1e-5)
    np.testing.assert_array_equal(model.predict(S.astype(np.int64)), model.predict(X.astype(np.int64)))
    assert model.predict_proba(S[:0]).shape == (0, n_classes)
    assert model.predict(S[:0]).shape == (0,)
    np.testing.assert_allclose(model.predict_proba(S[3:4]), out[3:4], rtol=1e-12)


def test_a_fit_takes_no_dense_copy():
    rng = np.random.default_rng(6)
    n, d = 20_000, 100_000  # 16 GB dense
    S = scipy.sparse.csr_array(
        (rng.standard_normal(10 * n), rng.integers(0, d, 10 * n), 10 * np.arange(n + 1)), shape=(n, d)
    )
    y = rng.integers(0, 3, n)
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", csoftmax.ConvergenceWarning)
        model = SoftmaxRegression(max_iter=3).fit(S, y)
    model.predict_proba(S)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300e6
    assert model.coef_.shape == (3, d)


# ---- what is refused ----------------------------------------------------------------------------------------------


def spoiled(part, place, value, container="csr"):
    S = scipy.sparse.coo_array(sparse_problem()[0]).asformat(container)
    getattr(S, part)[place] = value
    return S


def shortened(part, container="csr"):
    S = scipy.sparse.coo_array(sparse_problem()[0]).asformat(container)
    setattr(S, part, getattr(S, part)[:-1])
    return S


def of_type(part, dtype):
    S = scipy.sparse.csr_array(sparse_problem()[0])
    setattr(S, part, getattr(S, part).astype(dtype))
    return S


def with_blocks(shape):
    S = scipy.sparse.bsr_array(sparse_problem()[0])
    S.data = np.ones((S.nnz, *shape))
    return S


@pytest.mark.parametrize(
    ("S", "words"),
    [
        (spoiled("indices", 7, 20), "indices from 0 to 19"),
        (spoiled("indices", 7, -1), "by its indices"),
        (spoiled("indptr", 5, 10_000), "by its indptr"),
        (spoiled("indptr", 5, -3), "by its indptr"),
        (spoiled("indptr", 0, 1), "by its indptr"),
        (shortened("indptr"), "by its indptr"),
        (shortened("indices"), "by its indptr"),
        (shortened("data"), "by its data"),
        (spoiled("data", 11, np.nan), "contains nan at row 3, column 9"),
        (spoiled("data", 11, -np.inf), "contains -inf at row 3, column 9"),
        (of_type("indices", float), "by its indices, which are not integers"),
        (of_type("data", "U9"), "expected real numbers"),
        (spoiled("row", 7, 10**7, "coo"), "index 10000000"),
        (spoiled("col", 7, -1, "coo"), "index: -1"),
        (shortened("data", "coo"), "same length"),
        (spoiled("indices", 7, 10**7, "csc"), "CSC matrix.*by its indices"),
        (spoiled("indptr", 5, 10**7, "csc"), "CSC matrix.*by its indptr"),
        (shortened("data", "csc"), "CSC matrix.*by its data"),
        (spoiled("indices", 7, 10**7, "bsr"), "BSR matrix.*by its indices"),
        (spoiled("indptr", 5, 10**7, "bsr"), "BSR matrix.*by its indptr"),
        (with_blocks((1, 0)), "do not fill"),
        (with_blocks((7, 1)), "do not fill"),
        (spoiled("data", 5, [1.0] * 100_000, "lil"), "LIL"),
        (spoiled("rows", 5, [10**7] * len(spoiled("rows", 5, [], "lil").data[5]), "lil"), "by its indices"),
        (scipy.sparse.csr_array((0, 20)), r"0 sample\(s\)"),
        (scipy.sparse.csr_array((300, 20), dtype=complex), "complex"),
        (scipy.sparse.coo_array(np.ones(20)), "expected a 2D array"),
    ],
)
def test_a_damaged_matrix_is_refused_before_the_core_sees_it(S, words):
    _, y = overlapping(300)
    with pytest.raises(ValueError, match=words):
        SoftmaxRegression().fit(S, y)
    if S.ndim == 2 and S.shape[0]:
        with pytest.raises(ValueError, match=words):
            Predictor(np.zeros((1, 20)), [0.0]).predict_proba(S)


@pytest.mark.parametrize("container", ["coo_array", "csr_matrix", "csc_matrix"])
def test_a_damaged_row_is_refused(container):
    S = getattr(scipy.sparse, container)(np.ones(20) if container == "coo_array" else np.ones((1, 20)))
    places = S.coords[0] if container == "coo_array" else S.indices
    model = Predictor(np.zeros((1, 20)), [0.0])
    expected = model.predict_proba(S)
    places[3] = 10**7
    with pytest.raises(ValueError, match=r"index 10000000|by its indices"):
        model.predict_proba(S)
    assert expected.shape == ((2,) if container == "coo_array" else (1, 2))


class Subclass(scipy.sparse.csc_matrix):
    """Of another module than SciPy's."""


@pytest.mark.parametrize(
    "make",
    [Subclass, lambda X: of_type("data", np.float16), lambda X: of_type("data", ">f8"), lambda X: of_type("data", "O")],
)
def test_subclasses_and_data_of_other_types_are_read(make):
    X, y = sparse_problem()
    S = make(X)
    X = np.asarray(S.toarray() if isinstance(S, Subclass) else X.astype(S.data.dtype), np.float64)
    np.testing.assert_allclose(fitted(S, y).coef_, fitted(X, y).coef_, atol=1e-10)


def test_a_value_that_is_not_finite_is_named_as_in_dense_data():
    S, (_, y) = spoiled("data", 11, np.nan), sparse_problem()
    with pytest.raises(ValueError, match="nan at row 3, column 9"):
        SoftmaxRegression().fit(S.toarray(), y)


def test_the_number_of_features_is_checked():
    X, y = sparse_problem()
    model = fitted(X, y)
    for other in (model, model.predictor()):
        with pytest.raises(ValueError, match=r"19.*20 features|20 features"):
            other.predict_proba(scipy.sparse.csr_array(X[:, :19]))


def test_labels_and_weights_are_dense():
    X, y = sparse_problem()
    with pytest.raises(TypeError, match=r"sample_weight is a sparse csr_array: expected a dense array"):
        SoftmaxRegression().fit(X, y, scipy.sparse.csr_array(np.ones((1, len(y)))))


# ---- along a line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_objective_along_a_line_equals_the_objective_at_its_points(n_classes, fit_intercept):
    X, y = sparse_problem(n_classes=n_classes)
    options = {"C": 0.1, "fit_intercept": fit_intercept, "standardise": True, "n_threads": 1}
    make = lambda: Objective.of(scipy.sparse.csr_array(X), y.astype(np.int32), np.ones(len(y)), n_classes, **options)  # noqa: E731
    line, plain = make(), make()
    theta, direction = np.random.default_rng(0).standard_normal((2, plain.size))
    value, gradient = line.keep_scores(theta)
    for total, step in ((0.5, 0.5), (0.7, 0.2)):
        line.aim(direction, float(gradient @ direction))
        for share in (0.0, 1.0, step):
            at, by_theta = plain.value_gradient(theta + share * direction)
            np.testing.assert_allclose(line.along(share), (at, by_theta @ direction), rtol=1e-12)
        theta = theta + step * direction
        value, gradient = line.move(step, theta, np.empty_like(theta))
        expected, by_theta = plain.value_gradient(theta)
        np.testing.assert_allclose(value, expected, rtol=1e-13, err_msg=str(total))
        np.testing.assert_allclose(gradient, by_theta, rtol=1e-11, atol=1e-14)
    line.refresh(theta)
    line.aim(direction, float(gradient @ direction))
    np.testing.assert_allclose(line.along(0.0)[0], value, rtol=1e-14)


@pytest.mark.parametrize("C", [1.0, 1e4])
def test_with_and_without_kept_scores_the_optimum_is_the_same(monkeypatch, C):
    X, y = sparse_problem(n=400, d=300, density=0.05)
    rows = scipy.sparse.csr_array(X)
    fits = []
    for kept in (True, False):
        monkeypatch.setattr("csoftmax._solvers.quasi_newton.keeps_scores", lambda _, kept=kept: kept)
        model = SoftmaxRegression(C=C, tol=1e-9, solver="lbfgs", max_iter=5000).fit(rows, y)
        assert model.fit_report_.converged
        assert model.n_iter_ > 25  # scores were computed anew meanwhile
        fits.append(model)
    np.testing.assert_allclose(fits[0].coef_, fits[1].coef_, rtol=0, atol=1e-6 * abs(fits[1].coef_).max())


def test_scores_are_kept_only_where_there_is_room_and_rows_have_many_entries():
    def objective(density):
        X, y = sparse_problem(d=40, density=density)
        options = {"C": 1.0, "fit_intercept": True, "standardise": True, "n_threads": 1}
        return y, Objective.of(scipy.sparse.csr_array(X), y.astype(np.int32), np.ones(len(y)), 3, **options)

    assert not keeps_scores(objective(0.1)[1])
    y, objective = objective(0.8)
    assert keeps_scores(objective)
    objective.memory = 16 * 8 * objective.size + 16 * 3 * len(y) - 1
    assert not keeps_scores(objective)
