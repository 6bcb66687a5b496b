"""The fused pass: loss and gradients against the naive twin, against a five-point stencil, and against itself."""

import ctypes
import mmap
import sys

import numpy as np
import pytest
import scipy.sparse
import twin
from data import random_csr

import csoftmax
from csoftmax import _core, _kernels
from csoftmax._passes import LossPass, scores

# Blocks of rows have 16 to 256 rows, or up to 512, by the shape: such sizes, one less, one more.
ROWS = [1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 255, 256, 257, 511, 512, 513]
CLASSES = [2, 3, 10, 1000]
FEATURES = [1, 7, 784]
RTOL = {np.float64: 1e-9, np.float32: 2e-4}


def problem(n, d, n_classes, seed=0, zeros=False):
    """Gaussian X, all kinds of labels, weights in (0, 2) with zeros if asked for, coefficients that move the loss."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.integers(0, n_classes, n)
    weight = rng.uniform(0.1, 2.0, n)
    if zeros:
        weight[rng.permutation(n)[: n // 2]] = 0.0
    # Scores of a standard deviation of about two.
    return X, y, weight, 2 * rng.standard_normal((n_classes, d)) / np.sqrt(d), rng.standard_normal(n_classes)


def assert_same(actual, desired, rtol):
    """Loss, coefficient gradient and intercept gradient, each relative to its own largest value."""
    for ours, reference in zip(actual, desired, strict=True):
        assert np.shape(ours) == np.shape(reference)
        np.testing.assert_allclose(ours, reference, rtol=0, atol=rtol * np.abs(reference).max() + 1e-300)


def guarded_page(array):
    """A copy that ends where a page without access begins."""
    pages = -(-array.nbytes // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert protect(start + pages * mmap.PAGESIZE, mmap.PAGESIZE, 0) == 0
    offset = pages * mmap.PAGESIZE - array.nbytes
    copy = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
    copy[:] = array
    return copy


def core_pass(X, y, weight, coef, intercept, block, tiled, chunk=None):
    """The compiled pass in chunks, added up; its work space and results lie between guards that must survive.

    X is dense, or CSR with arrays that are used as they are.
    """
    (n, d), n_columns, dtype = X.shape, len(coef), X.dtype
    sparse = scipy.sparse.issparse(X)
    bounds = np.array([*range(0, n, chunk or n), n])
    n_chunks = len(bounds) - 1
    weight, coef, intercept = (np.ascontiguousarray(a, dtype=dtype) for a in (weight, coef, intercept))
    layout = _kernels.layout(d, n_columns, tiled, sparse, dtype.itemsize)
    size = layout["size"]
    work = _core.workspace_size(n_columns, block, dtype.itemsize, size)
    sizes = [(work, dtype), (size, dtype), (n_chunks * size, dtype), (n_chunks, np.float64), (coef.size, np.float64)]
    guarded = [np.full(values + 64, np.nan, kind) for values, kind in sizes]
    for g in guarded:
        g[:32] = g[-32:] = -77.0
    work, packed, gradients, losses, dcoef = (g[32:-32] for g in guarded)
    gradients, dcoef, dintercept = gradients.reshape(n_chunks, -1), dcoef.reshape(coef.shape), np.empty(n_columns)
    _kernels.pack(coef, intercept, layout, packed)
    rows = (np.asarray(y, np.int32), weight, n_columns, layout, packed, bounds, block)
    if sparse:
        _core.loss_gradient_csr(X.data, X.indices, X.indptr, d, *rows, 0, n_chunks, losses, gradients, work)
    else:
        _core.loss_gradient(np.ascontiguousarray(X), *rows, 0, n_chunks, losses, gradients, work)
    _kernels.unpack(gradients, layout, dcoef, dintercept)
    for g in guarded:
        assert (g[:32] == -77.0).all()
        assert (g[-32:] == -77.0).all()
    return losses.sum(), dcoef, dintercept


# ---- the compiled core ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("tiled", [True, False], ids=["tiled", "blas"])
def test_core_equals_the_twin_for_every_number_of_classes_and_tail_of_rows(instruction_set, dtype, tiled):
    for n_classes in (*range(1, 41), 64, 97, 250):
        d = (1, 3, 8, 13, 16, 17)[n_classes % 6]
        X, y, weight, coef, intercept = problem(17, d, max(n_classes, 2), seed=n_classes, zeros=n_classes % 2 == 0)
        X = X.astype(dtype)
        coef, intercept = coef[:n_classes], intercept[:n_classes]
        form = twin.binary_loss_gradient if n_classes == 1 else twin.loss_gradient
        for n in range(1, 18):
            expected = form(X[:n].astype(float), y[:n], coef, intercept, weight[:n], "sum")
            actual = core_pass(X[:n], y[:n], weight[:n], coef, intercept, 8 if n % 2 else 16, tiled)
            assert_same(actual, expected, RTOL[dtype])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_tiles_equal_the_twin_for_every_number_of_classes_and_tail_of_features(instruction_set, dtype):
    # X starts one value after a multiple of 64 bytes, coefficients wherever they happen to be.
    memory = np.zeros(10 * 34 + 64, dtype)
    offset = -memory.ctypes.data % 64 // memory.itemsize + 1
    for n_classes in range(1, 41):
        for d in range(1, 35):
            X, y, weight, coef, intercept = problem(9, d, max(n_classes, 2), seed=d)
            unaligned = memory[offset : offset + X.size].reshape(X.shape)
            unaligned[:] = X
            coef, intercept = coef[:n_classes], intercept[:n_classes]
            form = twin.binary_loss_gradient if n_classes == 1 else twin.loss_gradient
            expected = form(unaligned.astype(float), y, coef, intercept, weight, "sum")
            assert_same(core_pass(unaligned, y, weight, coef, intercept, 8, True), expected, RTOL[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [3, 4, 5, 6, *range(8, 14), 17, 20, 33, 37])
def test_tiles_across_features_equal_the_twin_in_any_block(instruction_set, dtype, n_classes):
    # Vectors run across features from 8 vectors on, where columns would leave others partly empty; of 1100 features in
    # pieces.
    for d in (31, 33, 63, 64, 65, 127, 128, 129, 143, 144, 145, 159, 160, 161, 200, 255, 256, 259, 1100):
        X, y, weight, coef, intercept = problem(19, d, n_classes, seed=d)
        X, coef, intercept = X.astype(dtype), coef.astype(dtype), intercept.astype(dtype)
        layout = _kernels.layout(d, n_classes, True, False, X.itemsize)
        packed, whole = np.zeros(layout["size"], dtype), np.empty((19, n_classes), dtype)
        _kernels.pack(coef, intercept, layout, packed)
        _core.scores(X, layout, packed, 0, 19, 16, whole)
        exact = X.astype(float) @ coef.T.astype(float) + intercept
        np.testing.assert_allclose(whole, exact, rtol=0, atol=RTOL[dtype])
        for n in (1, 2, 7, 8, 9, 19):
            part, rows = np.empty((n, n_classes), dtype), guarded_page(X[:n]) if sys.platform != "win32" else X[:n]
            _core.scores(rows, layout, packed, 0, n, 8, part)
            np.testing.assert_array_equal(part, whole[:n])
            expected = twin.loss_gradient(X[:n].astype(float), y[:n], coef, intercept, weight[:n], "sum")
            passes = [core_pass(rows, y[:n], weight[:n], coef, intercept, block, True) for block in (8, 16)]
            assert_same(passes[0], expected, RTOL[dtype])
            np.testing.assert_array_equal(passes[0][1], passes[1][1])
    # More rows than are taken together.
    X, _, _, coef, intercept = (a.astype(dtype) for a in problem(70, 1100, n_classes))
    layout = _kernels.layout(1100, n_classes, True, False, X.itemsize)
    packed, out = np.zeros(layout["size"], dtype), np.empty((2, 70, n_classes), dtype)
    _kernels.pack(coef, intercept, layout, packed)
    for block, part in zip((64, 8), out, strict=True):
        _core.scores(X, layout, packed, 0, 70, block, part)
    np.testing.assert_array_equal(out[0], out[1])
    np.testing.assert_allclose(out[0], X.astype(float) @ coef.T.astype(float) + intercept, rtol=0, atol=4 * RTOL[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [511, 512, 1100])
def test_long_panels_are_taken_in_pieces_with_the_same_sums(instruction_set, dtype, d):
    n, n_columns = 300, 50
    X, _, _, coef, intercept = (a.astype(dtype) for a in problem(n, d, n_columns))
    layout = _kernels.layout(d, n_columns, True, False, X.itemsize)
    packed, out = np.zeros(layout["size"], dtype), np.empty((2, n, n_columns), dtype)
    _kernels.pack(coef, intercept, layout, packed)
    for block, part in zip((256, 8), out, strict=True):
        _core.scores(X, layout, packed, 0, n, block, part)
    np.testing.assert_array_equal(*out)
    exact = X.astype(float) @ coef.T.astype(float) + intercept
    bound = d * np.finfo(dtype).eps * (abs(X).astype(float) @ abs(coef).T + abs(intercept))
    assert (abs(out[0] - exact) <= bound).all()


@pytest.mark.parametrize("tiled", [True, False], ids=["tiled", "blas"])
@pytest.mark.parametrize("n_classes", [1, 2, 3, 10, 26])
@pytest.mark.parametrize("block", [8, 64, 256])
def test_core_chunks_of_any_size_add_up_whatever_their_places_held_before(instruction_set, tiled, n_classes, block):
    X, y, weight, coef, intercept = problem(300, 19, max(n_classes, 2))
    coef, intercept = coef[:n_classes], intercept[:n_classes]
    form = twin.binary_loss_gradient if n_classes == 1 else twin.loss_gradient
    expected = form(X, y, coef, intercept, weight, "sum")
    for chunk in (block, block + 1, 299, 300):
        assert_same(core_pass(X, y, weight, coef, intercept, block, tiled, chunk), expected, 1e-12)


@pytest.mark.parametrize("tiled", [True, False], ids=["tiled", "blas"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_core_returns_a_loss_that_is_not_finite_for_bad_coefficients(instruction_set, tiled, bad):
    for n_classes in (1, 3):
        X, y, weight, coef, intercept = problem(20, 4, max(n_classes, 2))
        coef, intercept = coef[:n_classes].copy(), intercept[:n_classes]
        coef[0, 1] = bad
        loss, _, _ = core_pass(np.abs(X), np.zeros_like(y), weight, coef, intercept, 8, tiled)
        assert not np.isfinite(loss)


@pytest.mark.parametrize("tiled", [True, False], ids=["tiled", "blas"])
def test_core_is_right_far_from_the_optimum(instruction_set, tiled):
    # Scores of +-1e4: the loss is the difference of two scores, the residuals are 0 and +-1.
    X, y, weight, coef, intercept = problem(65, 7, 5)
    for rows, form in ((1, twin.binary_loss_gradient), (5, twin.loss_gradient)):
        labels = y % max(rows, 2)
        case = (1e4 * coef[:rows], intercept[:rows])
        expected = form(X, labels, *case, weight, "sum")
        assert_same(core_pass(X, labels, weight, *case, 64, tiled), expected, 1e-12)


@pytest.mark.skipif(sys.platform == "win32", reason="pages are protected through mprotect")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("tiled", [True, False], ids=["tiled", "blas"])
def test_core_reads_nothing_beyond_the_end_of_its_arrays(instruction_set, dtype, tiled):
    # Each array ends where a page begins that must not be touched: a single byte too many ends the process.
    for n_classes in (1, 2, 3, 8, 9, 25):
        for n, d in ((1, 1), (3, 5), (8, 16), (9, 17), (23, 40)):
            X, y, weight, coef, intercept = problem(n, d, max(n_classes, 2), seed=d)
            X, weight = guarded_page(X.astype(dtype)), guarded_page(weight.astype(dtype))
            coef, intercept = (
                guarded_page(coef[:n_classes].astype(dtype)),
                guarded_page(intercept[:n_classes].astype(dtype)),
            )
            form = twin.binary_loss_gradient if n_classes == 1 else twin.loss_gradient
            expected = form(*(a.astype(float) if a is not y else y for a in (X, y, coef, intercept, weight)), "sum")
            actual = core_pass(X, guarded_page(y.astype(np.int32)), weight, coef, intercept, 8, tiled)
            assert_same(actual, expected, RTOL[dtype])


# ---- sparse rows --------------------------------------------------------------------------------------------------


def messy_csr(n, d, dtype, index, seed=0):
    """CSR with empty rows, explicit zeros, entries in any order and some of them in parts, and its dense equal."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 2 * d + 1, n) * rng.integers(0, 2, n)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(index)
    indices = rng.integers(0, d, indptr[-1]).astype(index)
    data = (rng.standard_normal(indptr[-1]) * rng.integers(0, 2, indptr[-1])).astype(dtype)
    dense = np.zeros((n, d))
    np.add.at(dense, (np.repeat(np.arange(n), lengths), indices), data.astype(float))
    X = scipy.sparse.csr_array((data, indices, indptr), shape=(n, d))
    X.indices, X.indptr = indices, indptr  # the constructor may have chosen another type
    return X, dense


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sparse_rows_equal_the_twin_for_every_number_of_classes_and_rows(instruction_set, dtype, index):
    for n_classes in (*range(1, 41), 64, 97, 250):
        d = (1, 3, 8, 13)[n_classes % 4]
        for n in (1, 9, 17, 24):
            _, y, weight, coef, intercept = problem(n, d, max(n_classes, 2), seed=n_classes)
            X, dense = messy_csr(n, d, dtype, index, seed=n_classes + n)
            coef, intercept = coef[:n_classes], intercept[:n_classes]
            form = twin.binary_loss_gradient if n_classes == 1 else twin.loss_gradient
            expected = form(dense, y, coef, intercept, weight, "sum")
            assert_same(core_pass(X, y, weight, coef, intercept, 8, False, chunk=16), expected, RTOL[dtype])


@pytest.mark.skipif(sys.platform == "win32", reason="pages are protected through mprotect")
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_sparse_rows_read_nothing_beyond_the_end_of_their_arrays(instruction_set, index):
    for n_classes in (1, 3, 25):
        X, y, weight, coef, intercept = (None, *problem(40, 11, max(n_classes, 2))[1:])
        X, dense = messy_csr(40, 11, np.float64, index)
        X.data, X.indices, X.indptr = guarded_page(X.data), guarded_page(X.indices), guarded_page(X.indptr)
        coef, intercept = coef[:n_classes], intercept[:n_classes]
        form = twin.binary_loss_gradient if n_classes == 1 else twin.loss_gradient
        expected = form(dense, y, coef, intercept, weight, "sum")
        assert_same(core_pass(X, y, weight, coef, intercept, 8, False, chunk=16), expected, 1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sparse_passes_and_scores_are_the_same_for_every_number_of_threads(dtype):
    n, d, n_classes = 60000, 1000, 23
    _, y, weight, coef, intercept = problem(n, 1, n_classes)
    X = random_csr(n, d, 0.02, dtype)
    coef = np.random.default_rng(1).standard_normal((n_classes, d)).astype(dtype)
    intercept, weight, y = intercept.astype(dtype), weight.astype(dtype), y.astype(np.int32)
    passes = [LossPass(X, y, weight, n_classes, threads) for threads in (1, 2, 3)]
    assert passes[0].plan.n_chunks > 4
    first = [np.copy(part) for part in passes[0](coef, intercept)]
    assert_same(first, LossPass(X.toarray(), y, weight, n_classes, 1)(coef, intercept), 100 * np.finfo(dtype).eps)
    for other in passes[1:]:
        for ours, reference in zip(other(coef, intercept), first, strict=True):
            np.testing.assert_array_equal(ours, reference)
    dense = scores(X.toarray(), coef, intercept, 1, "softmax")
    for threads in (1, 2):
        np.testing.assert_allclose(
            scores(X, coef, intercept, threads, "softmax"), dense, rtol=0, atol=30 * np.finfo(dtype).eps
        )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_columns", [1, 3, 23, 70])
def test_a_pass_along_a_line_equals_passes_at_its_points(instruction_set, dtype, n_columns):
    n, d = 1003, 40
    n_classes = max(n_columns, 2)
    X, dense = messy_csr(n, d, dtype, np.int32)
    _, y, weight, coef, intercept = problem(n, 1, n_classes)
    coef, direction = np.random.default_rng(n_columns).standard_normal((2, n_columns, d))
    intercept, weight, y = intercept[:n_columns], weight.astype(dtype), y.astype(np.int32)
    form = twin.binary_loss_gradient if n_columns == 1 else twin.loss_gradient
    for threads in (1, 2):
        line = LossPass(X, y, weight, n_columns, threads)
        line.keep_scores()
        for point in (coef, direction):
            line.aim(point, intercept, anew=point is coef)
        for step in (0.0, 0.3, 1.0):
            at = coef + step * direction, intercept + step * intercept
            expected = form(dense.astype(float), y, *at, weight, "sum")
            loss, slope = line.along(step)
            np.testing.assert_allclose(loss, expected[0], rtol=RTOL[dtype])
            by_step = (expected[1] * direction).sum() + expected[2] @ intercept
            size = abs(expected[1] * direction).sum() + abs(expected[2] * intercept).sum()
            np.testing.assert_allclose(slope, by_step, rtol=0, atol=10 * RTOL[dtype] * size)
        by_coef, by_intercept = np.empty_like(coef), np.empty(n_columns)
        for total in (0.25, 0.75):  # moves add up
            moved = line.move(0.25 if total == 0.25 else 0.5, by_coef, by_intercept)
            at = coef + total * direction, intercept + total * intercept
            expected = form(dense.astype(float), y, *at, weight, "sum")
            assert_same((moved, by_coef, by_intercept), expected, 10 * RTOL[dtype])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("how", [(True, False), (False, False), (False, True)], ids=["tiles", "blas", "sparse"])
@pytest.mark.parametrize("intercepts", [0, 1])
def test_coefficients_are_scaled_as_they_are_packed(instruction_set, dtype, how, intercepts):
    rng = np.random.default_rng(0)
    for n_columns in (1, 2, 5, 30):
        for d in (1, 7, 8, 33):
            layout = _kernels.layout(d, n_columns, *how, np.dtype(dtype).itemsize)
            theta, unit, center = rng.standard_normal((n_columns, d + intercepts)), rng.random(d), rng.random(d)
            intercept, by_intercept, alpha = rng.standard_normal(n_columns), np.empty(n_columns), 0.3
            for parts in (1, 3):
                whole, packed = np.zeros(layout["size"], dtype), np.zeros((2, layout["size"]), dtype)
                _kernels.pack((theta[:, :d] * unit).astype(dtype), intercept.astype(dtype), layout, whole)
                for part in range(parts):
                    _kernels.pack(theta, intercept, layout, packed[0], unit, part, parts)
                np.testing.assert_array_equal(packed[0], whole)
                packed[1] = 2 * whole
                for out in (np.empty_like(theta), theta.copy()):  # the latter in place
                    source = out if (out == theta).all() else theta
                    for part in range(parts):
                        args = (layout, out, by_intercept, source, unit, center, alpha, part, parts)
                        _kernels.unpack(packed, *args)
                    sums = 3 * (theta[:, :d] * unit).astype(dtype).astype(float)
                    expected = (sums + alpha * theta[:, :d] * unit - 3 * np.outer(intercept, center)) * unit
                    np.testing.assert_allclose(out[:, :d], expected, rtol=0, atol=20 * RTOL[dtype])
                    np.testing.assert_allclose(by_intercept, 3 * intercept, rtol=RTOL[dtype])
                    if intercepts:
                        np.testing.assert_array_equal(out[:, d], by_intercept)
    with pytest.raises(ValueError, match="fit"):
        _kernels.unpack(packed, layout, out, by_intercept, theta[:, :-1].copy(), unit, center, alpha)
    with pytest.raises(ValueError, match="shorter"):
        _kernels.pack(theta[:, : d - 1].copy(), intercept, layout, packed[0], unit)


def test_sparse_rows_without_entries():
    X = scipy.sparse.csr_array((20, 5))
    _, y, weight, coef, intercept = problem(20, 5, 3)
    expected = twin.loss_gradient(np.zeros((20, 5)), y, coef, intercept, weight, "sum")
    assert_same(core_pass(X, y, weight, coef, intercept, 8, False), expected, 1e-12)


def test_the_core_refuses_what_does_not_fit_together():
    X, y, weight, coef, intercept = problem(20, 5, 3)
    y, bounds, losses = y.astype(np.int32), np.array([0, 20]), np.empty(1)
    layout = _kernels.layout(5, 3, True, False, 8)
    size, other = layout["size"], {**layout, "panel": layout["panel"] + 1}
    work, packed, gradients = np.empty(_core.workspace_size(3, 8, 8, size)), np.zeros(size), np.empty((1, size))
    case = (X, y, weight, 3, layout, packed, bounds, 8, 0, 1, losses, gradients, work)
    _core.loss_gradient(*case)
    replacements = {1: y[:-1], 2: weight[:-1], 4: other, 5: packed[:-64], 6: bounds + 1}
    for position, short in (*replacements.items(), (11, gradients[:, :-64].copy()), (12, work[:-1])):
        with pytest.raises(ValueError, match=r"layout|too small|rows"):
            _core.loss_gradient(*case[:position], short, *case[position + 1 :])
    with pytest.raises(ValueError, match="lost is shorter"):
        _core.loss_gradient(*case, np.empty(0))
    for shape in ((19, 3), (20, 2), (20, 4), (0, 3)):
        with pytest.raises(ValueError, match="chance has shape"):
            _core.loss_gradient(*case, chance=np.zeros(shape))
    with pytest.raises(ValueError, match="too small"):
        _kernels.pack(coef, intercept, layout, packed[: 5 * layout["width"]])
    with pytest.raises(ValueError, match="too small"):
        _kernels.unpack(gradients[:, : 5 * layout["width"]].copy(), layout, coef, intercept)
    S = scipy.sparse.csr_array(X)
    plain = _kernels.layout(5, 3, False, True, 8)
    kept, packed_rows = np.zeros(60), np.zeros(plain["size"])
    rows = (S.data, S.indices, S.indptr, 5)
    for few, space, match in ((kept[:-1], work, "kept"), (kept, work[:-64], "too small")):
        with pytest.raises(ValueError, match=match):
            _core.keep_scores_csr(
                *rows, 3, plain, packed_rows, bounds, 8, 0, 1, few, space[:88] if match != "kept" else space
            )
        with pytest.raises(ValueError, match=match):
            _core.loss_along(y, weight, 3, bounds, 8, 0, 1, losses, losses, space, few, kept, 1.0)
    first = (*rows, y, weight, 3, plain, packed_rows, bounds, 8, 0, 1, losses, np.zeros((1, plain["size"])), work)
    for center, squares in ((np.zeros(5), np.zeros(39)), (np.zeros(4), np.zeros(40))):
        with pytest.raises(ValueError, match="center is shorter"):
            _core.loss_gradient_csr(*first, None, None, 0.0, center, squares)
    _core.loss_gradient_csr(*first, None, None, 0.0, np.zeros(5), np.zeros(40))
    for half in ({"kept": kept}, {"direction": kept}, {"center": np.zeros(5)}, {"squares": np.zeros(40)}):
        with pytest.raises(TypeError, match="go with"):
            _core.loss_gradient_csr(*first, **half)
    with pytest.raises(ValueError, match="indptr"):
        _core.scores_csr(S.data[:-1], S.indices, S.indptr, 5, layout, packed, 0, 20, 8, np.empty((20, 3)))
    with pytest.raises(TypeError, match="csc"):
        scores(scipy.sparse.csc_array(X), coef, intercept, 1)


@pytest.mark.parametrize("sparse", [False, True])
def test_float32_sums_of_many_equal_values_keep_their_digits(sparse):
    # A column of ones: its gradient is a sum of 300000 values of the same sign.
    n = 300_000
    X = np.ones((n, 2), np.float32)
    y = np.random.default_rng(0).integers(0, 3, n).astype(np.int32)
    weight, coef, intercept = np.full(n, 1 / n, np.float32), np.zeros((3, 2), np.float32), np.zeros(3, np.float32)
    y[:] = 2
    rows = scipy.sparse.csr_array(X) if sparse else X
    _, dcoef, dintercept = LossPass(rows, y, weight, 3, 1)(coef, intercept)
    for gradient in (*dcoef.T, dintercept):
        np.testing.assert_allclose(gradient, [1 / 3, 1 / 3, -2 / 3], rtol=2e-5)


# ---- the public function against the twin -----------------------------------------------------------------------


@pytest.mark.parametrize("d", FEATURES)
@pytest.mark.parametrize("n_classes", CLASSES)
@pytest.mark.parametrize("n", ROWS)
def test_both_reductions_equal_the_twin(n, n_classes, d):
    X, y, weight, coef, intercept = problem(n, d, n_classes, seed=n, zeros=n > 1)
    for reduction in ("mean", "sum"):
        expected = twin.loss_gradient(X, y, coef, intercept, weight, reduction)
        actual = csoftmax.loss_gradient(X, y, coef, intercept, sample_weight=weight, reduction=reduction)
        assert_same(actual, expected, 1e-9)
        plain = csoftmax.loss_gradient(X, y, coef, intercept, reduction=reduction)
        assert_same(plain, twin.loss_gradient(X, y, coef, intercept, None, reduction), 1e-9)
    no_intercept = csoftmax.loss_gradient(X, y, coef)
    assert_same(no_intercept, twin.loss_gradient(X, y, coef, np.zeros(n_classes)), 1e-9)


def stored(X, layout, directory):
    """The same values in another place of memory."""
    if layout == "fortran":
        return np.asfortranarray(X)
    if layout == "strided":
        return np.repeat(np.repeat(X, 2, axis=-2), 3, axis=-1)[..., ::2, ::3]
    if layout == "reversed":
        return np.flip(np.flip(X).copy())
    if layout == "read-only":
        X = X.copy()
        X.flags.writeable = False
        return X
    if layout == "memory-mapped":
        path = directory / f"{len(list(directory.iterdir()))}.npy"
        np.save(path, X)
        return np.load(path, mmap_mode="r")
    if layout == "unaligned":
        return np.frombuffer(b"." + X.tobytes(), dtype=np.uint8)[1:].view(X.dtype).reshape(X.shape)
    return X.astype(">f8")


LAYOUTS = ["fortran", "strided", "reversed", "read-only", "memory-mapped", "unaligned", "big-endian"]


@pytest.mark.parametrize("d", FEATURES)
@pytest.mark.parametrize("n_classes", CLASSES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_memory_layout_gives_the_same_answer(tmp_path, layout, n_classes, d):
    X, y, weight, coef, intercept = problem(65, d, n_classes, zeros=True)
    expected = twin.loss_gradient(X, y, coef, intercept, weight)
    other = stored(X, layout, tmp_path)
    assert_same(csoftmax.loss_gradient(other, y, coef, intercept, sample_weight=weight), expected, 1e-9)
    np.testing.assert_array_equal(other, X)
    W, weight, intercept = (stored(a, layout, tmp_path)[0] for a in (coef[None], weight[None], intercept[None]))
    actual = csoftmax.loss_gradient(X, y[::-1].copy()[::-1], W, intercept, sample_weight=weight)
    assert_same(actual, expected, 1e-9)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.int64, np.uint64, list])
def test_labels_of_every_integer_type(kind):
    X, y, _, coef, intercept = problem(40, 3, 4)
    labels = y.tolist() if kind is list else y.astype(kind)
    assert_same(csoftmax.loss_gradient(X, labels, coef, intercept), twin.loss_gradient(X, y, coef, intercept), 1e-12)


def test_inputs_are_left_alone():
    given = problem(65, 7, 3)
    before = [a.copy() for a in given]
    X, y, weight, coef, intercept = given
    _, dcoef, dintercept = csoftmax.loss_gradient(X, y, coef, intercept, sample_weight=weight)
    for a, b in zip(given, before, strict=True):
        np.testing.assert_array_equal(a, b)
    for a in (dcoef, dintercept):
        assert a.flags.writeable
        assert not any(np.shares_memory(a, b) for b in given)


def test_float32_data_agree_with_float64():
    X, y, weight, coef, intercept = problem(257, 7, 10)
    X = X.astype(np.float32)
    loss, dcoef, dintercept = csoftmax.loss_gradient(X, y, coef, intercept, sample_weight=weight)
    expected = twin.loss_gradient(X.astype(np.float64), y, coef, intercept, weight)
    assert_same((loss, dcoef.astype(np.float64), dintercept.astype(np.float64)), expected, 1e-5)


# ---- mathematics ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", FEATURES)
@pytest.mark.parametrize("n_classes", CLASSES)
@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 257])
def test_gradient_equals_a_five_point_stencil(n, n_classes, d):
    X, y, weight, coef, intercept = problem(n, d, n_classes, seed=d, zeros=n > 1)
    shape, h = coef.shape, 1e-3

    def loss(parameters):
        W, b = parameters[: coef.size].reshape(shape), parameters[coef.size :]
        return csoftmax.loss_gradient(X, y, W, b, sample_weight=weight)[0]

    at = np.concatenate([coef.ravel(), intercept])
    _, dcoef, dintercept = csoftmax.loss_gradient(X, y, coef, intercept, sample_weight=weight)
    gradient = np.concatenate([dcoef.ravel(), dintercept])
    if at.size <= 30:
        directions = np.eye(at.size)
    else:  # five random ones of length one, and the gradient's own
        directions = np.random.default_rng(0).standard_normal((6, at.size))
        directions[5] = gradient
        directions /= np.linalg.norm(directions, axis=1)[:, None]
    # The stencil errs by h^4/30 of a fifth derivative (below 1 for rows that move a score by 1 per unit, |x|^5 for
    # the gradient's own direction), and by rounding, 3/2 eps loss / h <= 1e-12.
    longest = np.linalg.norm(X, axis=1).max() + 1
    steps = [h] * 5 + [h / longest] if at.size > 30 else [h / longest] * at.size
    for v, step in zip(directions, steps, strict=True):
        values = [loss(at + m * step * v) for m in (-2, -1, 1, 2)]
        slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
        rounding = 2 * 2.0**-52 * max(values) / step
        assert abs(slope - gradient @ v) <= 1e-9 * max(np.linalg.norm(gradient), 1e-3) + rounding


@pytest.mark.parametrize("n_classes", CLASSES)
def test_one_vector_subtracted_from_all_classes_changes_nothing(n_classes):
    X, y, weight, coef, intercept = problem(257, 7, n_classes)
    psi = np.random.default_rng(5).standard_normal(8)
    expected = csoftmax.loss_gradient(X, y, coef, intercept, sample_weight=weight)
    actual = csoftmax.loss_gradient(X, y, coef - psi[:7], intercept - psi[7], sample_weight=weight)
    assert_same(actual, expected, 1e-12)


@pytest.mark.parametrize("n_classes", CLASSES)
def test_gradients_sum_to_zero_over_the_classes(n_classes):
    X, y, weight, coef, intercept = problem(257, 7, n_classes)
    _, dcoef, dintercept = csoftmax.loss_gradient(X, y, coef, intercept, sample_weight=weight)
    np.testing.assert_allclose(dcoef.sum(axis=0), 0, atol=1e-14 * np.sqrt(n_classes))
    np.testing.assert_allclose(dintercept.sum(), 0, atol=1e-14 * np.sqrt(n_classes))


def test_at_zero_the_loss_is_log_k_and_the_gradient_the_class_means():
    X, y, _, _, _ = problem(90, 7, 3)
    loss, dcoef, dintercept = csoftmax.loss_gradient(X, y, np.zeros((3, 7)), np.zeros(3))
    np.testing.assert_allclose(loss, np.log(3), rtol=1e-14)
    for k in range(3):
        np.testing.assert_allclose(dcoef[k], X.mean(axis=0) / 3 - X[y == k].sum(axis=0) / 90, atol=1e-15)
        np.testing.assert_allclose(dintercept[k], 1 / 3 - (y == k).mean(), atol=1e-15)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_weights_are_repetitions_and_zero_weights_absent_rows(reduction):
    X, y, _, coef, intercept = problem(64, 7, 5)
    counts = np.random.default_rng(6).integers(0, 4, 64)
    repeated = np.repeat(np.arange(64), counts)
    expected = csoftmax.loss_gradient(X[repeated], y[repeated], coef, intercept, reduction=reduction)
    actual = csoftmax.loss_gradient(X, y, coef, intercept, sample_weight=counts, reduction=reduction)
    assert_same(actual, expected, 1e-12)


def test_scores_of_1e300_give_a_finite_loss_and_gradient():
    coef = np.array([[1e300], [-1e300], [0.0]])
    loss, dcoef, dintercept = csoftmax.loss_gradient(np.array([[1.0], [-1.0]]), [0, 1], coef, np.zeros(3))
    assert loss == 0.0
    np.testing.assert_array_equal(dcoef, np.zeros((3, 1)))
    np.testing.assert_array_equal(dintercept, np.zeros(3))
    loss, dcoef, _ = csoftmax.loss_gradient(np.array([[1.0]]), [1], coef, np.zeros(3))
    np.testing.assert_allclose(loss, 2e300, rtol=1e-15)
    np.testing.assert_array_equal(dcoef, [[1.0], [-1.0], [0.0]])


# ---- threads ----------------------------------------------------------------------------------------------------

# Narrow, of the size of MNIST's rows, and so wide that one chunk is too fat for threads of our own.
SHAPES = [(20_000, 30, 10), (20_001, 30, 2), (4_000, 784, 10), (3_000, 64, 1000)]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "d", "n_classes"), SHAPES)
def test_bitwise_the_same_for_every_number_of_threads_and_every_run(dtype, n, d, n_classes):
    X, y, weight, coef, intercept = problem(n, d, n_classes, zeros=True)
    X = X.astype(dtype)
    first = csoftmax.loss_gradient(X, y, coef, intercept, sample_weight=weight, n_threads=1)
    expected = twin.loss_gradient(X, y, coef, intercept, weight)
    assert_same(first, expected, 1e-9 if dtype is np.float64 else 1e-4)
    for n_threads in (1, 2, 3, None):
        again = csoftmax.loss_gradient(X, y, coef, intercept, sample_weight=weight, n_threads=n_threads)
        assert again[0] == first[0]
        np.testing.assert_array_equal(again[1], first[1])
        np.testing.assert_array_equal(again[2], first[2])
