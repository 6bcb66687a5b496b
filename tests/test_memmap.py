"""X in memory-mapped files: the same results bit for bit, nothing copied, and an error where a file was cut short."""

import copy
import gc
import os
import sys
import tracemalloc

import numpy as np
import pytest
from data import METHODS, overlapping, random_csr
from scipy.sparse import csr_array

import csoftmax
from csoftmax import Predictor, SoftmaxRegression, _mapped, _rows

DTYPES = [np.float32, np.float64]
cuts = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not let a mapped file be cut short")


def mapped(folder, array, mode="r"):
    """The array, read-only or not, in a file of its own."""
    path = folder / f"{len(os.listdir(folder))}.npy"
    np.save(path, array)
    return np.load(path, mmap_mode=mode)


def mapped_csr(folder, S):
    """A CSR matrix whose three arrays are mapped; the constructor would copy some of them."""
    T = csr_array(S.shape, dtype=S.dtype)
    T.data, T.indices, T.indptr = (mapped(folder, part) for part in (S.data, S.indices, S.indptr))
    return T


def assert_same_fit(model, X, other, y, weight=None):
    """Two matrices give bitwise the same coefficients along the same way."""
    one, two = (copy.copy(model).fit(rows, y, weight) for rows in (X, other))
    np.testing.assert_array_equal(one.coef_, two.coef_)
    np.testing.assert_array_equal(one.intercept_, two.intercept_)
    np.testing.assert_array_equal(one.loss_curve_, two.loss_curve_)
    assert one.coef_.dtype == two.coef_.dtype


def peak_memory(work):
    """The most memory that Python and NumPy allocated during a call, bytes."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ---- the same results -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [2, 3, 60])  # the last through BLAS where vectors are short
@pytest.mark.parametrize("far", [0, 3000], ids=["", "far from zero"])
@pytest.mark.parametrize("some", [False, True], ids=["all rows", "weights of zero"])
def test_fit_equals_that_in_memory(tmp_path, dtype, n_classes, far, some):
    X, y = overlapping(11_000, 40, n_classes)
    X = (X + far).astype(dtype)
    weight = np.where(np.arange(11_000) % 3 > 0, 1.5, 0.0) if some else None
    model = SoftmaxRegression(max_iter=4, tol=0)
    assert_same_fit(model, mapped(tmp_path, X), X, y, weight)
    assert_same_fit(model, mapped(tmp_path, X, "r+"), X, y, weight)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_hessian_of_a_sample_of_a_map_is_that_in_memory(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(_rows, "LOOKED", 512)  # so that only some runs of rows are read for it
    monkeypatch.setattr(_rows, "SPARE", 3)
    X, y = overlapping(11_000, 40, 12)
    X = X.astype(dtype)
    assert_same_fit(SoftmaxRegression(), mapped(tmp_path, X), X, y)
    report = SoftmaxRegression().fit(mapped(tmp_path, X), y).fit_report_
    assert "preconditions the Hessian of 1066 rows" in report.reason_chosen
    assert report.converged


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("looked", [512, 2**17], ids=["some runs", "all rows"])
def test_rows_of_a_map_that_are_chosen_anew_are_those_in_memory(tmp_path, monkeypatch, looked, dtype):
    monkeypatch.setattr(_rows, "LOOKED", looked)
    monkeypatch.setattr(_rows, "SPARE", 2)
    rng = np.random.default_rng(0)
    y = rng.integers(8, size=20_000)
    X = (2 * rng.standard_normal((8, 20))[y] + rng.standard_normal((20_000, 20))).astype(dtype)
    searches, sample = [], _rows.LocalRows.sample_here

    def sample_here(self, n_rows, search, penalty):
        searches.append(search)
        return sample(self, n_rows, search, penalty)

    monkeypatch.setattr(_rows.LocalRows, "sample_here", sample_here)
    assert_same_fit(SoftmaxRegression(C=0.01), mapped(tmp_path, X), X, y)
    assert [search.theta is not None for search in searches] == [False, True] * 2
    assert (searches[0].every > 1) == (looked == 512)


@pytest.mark.parametrize("options", [{"l1_ratio": 0.5}, {"solver": "newton"}, {"solver": "gd"}, {"C": np.inf}],
                         ids=["L1", "newton", "gd", "no penalty"])  # fmt: skip
def test_every_solver_takes_a_map(tmp_path, options):
    X, y = overlapping(3000, 5, 3)
    weight = np.arange(3000) % 2 + 0.0
    assert_same_fit(SoftmaxRegression(max_iter=5, tol=0, **options), mapped(tmp_path, X), X, y, weight)


@pytest.mark.parametrize("view", [slice(7, 1000), slice(None, 500), slice(-100, None)], ids=str)
def test_views_of_a_map(tmp_path, view):
    X, y = overlapping(2000, 5, 3)
    whole = mapped(tmp_path, X)
    assert_same_fit(SoftmaxRegression(), whole[view], X[view], y[view])
    assert_same_fit(SoftmaxRegression(), np.asarray(whole)[view], X[view], y[view])
    flat = np.memmap(whole.filename, np.float64, "r", offset=whole.offset)
    assert_same_fit(SoftmaxRegression(), flat.reshape(X.shape)[view], X[view], y[view])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("some", [False, True], ids=["all rows", "weights of zero"])
def test_sparse_maps(tmp_path, dtype, some):
    S = random_csr(3000, 60, 0.3, dtype)
    y = overlapping(3000, 2, 4)[1]
    weight = np.arange(3000) % 2 + 0.0 if some else None
    T = mapped_csr(tmp_path, S)
    for options in ({}, {"l1_ratio": 0.5}):
        assert_same_fit(SoftmaxRegression(max_iter=5, tol=0, **options), T, S, y, weight)


@pytest.mark.parametrize("dtype", [np.int16, np.float16, ">f8"])
def test_other_dtypes_and_orders_are_copied(tmp_path, dtype):
    X, y = overlapping(300, 4, 3)
    X = (10 * X).astype(dtype)
    assert_same_fit(SoftmaxRegression(), mapped(tmp_path, X), X, y)
    assert_same_fit(SoftmaxRegression(), mapped(tmp_path, np.asfortranarray(X)), X, y)


@pytest.mark.parametrize("n_classes", [2, 3, 60])
@pytest.mark.parametrize("of_model", DTYPES)
@pytest.mark.parametrize("of_x", DTYPES)
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "CSR"])
def test_predictions_equal_those_in_memory(tmp_path, monkeypatch, n_classes, of_model, of_x, sparse):
    X, y = overlapping(500, 12, n_classes)
    model = SoftmaxRegression(max_iter=3, tol=0).fit(X.astype(of_model), y)
    monkeypatch.setattr("csoftmax._mapped.BLOCK_BYTES", 2**18)
    monkeypatch.setattr("csoftmax._model.BLOCK_BYTES", 2**18)
    n = 2 * 2**18 // (8 * 12) + 65  # some blocks, and a row
    S = random_csr(n, 12, 0.8, of_x) if sparse else np.tile(X, (n // 500 + 1, 1))[:n].astype(of_x)
    T = mapped_csr(tmp_path, S) if sparse else mapped(tmp_path, S)
    for method in METHODS:
        np.testing.assert_array_equal(getattr(model, method)(T), getattr(model, method)(S))
        np.testing.assert_array_equal(getattr(model.predictor(), method)(T), getattr(model.predictor(), method)(S))
    for ours, theirs in zip(model.predictor().top_k(T, 2), model.predictor().top_k(S, 2), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert model.score(T, np.resize(y, n)) == model.score(S, np.resize(y, n))


def test_out_and_single_rows_of_a_map(tmp_path):
    X, y = overlapping(200, 4, 3)
    model, T = SoftmaxRegression().fit(X, y).predictor(), mapped(tmp_path, X)
    out = np.empty((200, 3))
    assert model.predict_proba(T, out) is out
    np.testing.assert_array_equal(out, model.predict_proba(X))
    np.testing.assert_array_equal(model.predict_proba(T[5]), model.predict_proba(X[5]))
    assert model.predict_proba(T[:0]).shape == (0, 3)


# ---- nothing is copied ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """96 MB of float32, and labels."""
    rng = np.random.default_rng(0)
    X = np.lib.format.open_memmap(tmp_path_factory.mktemp("large") / "X.npy", "w+", np.float32, (60000, 400))
    for start in range(0, len(X), 6000):
        X[start : start + 6000] = rng.standard_normal((6000, 400), np.float32) + 1e5 * (start % 12000 > 0)
    return X, np.asarray(X[:, 0] > X[:, 1]) + 2 * np.asarray(X[:, 2] > X[:, 3])


@pytest.mark.parametrize("case", ["all rows", "weights of zero", "far from zero"])
def test_a_fit_does_not_copy_x(large, case):
    X, y = large
    weight = np.arange(len(X)) % 10 > 0 if case == "weights of zero" else None
    fit = SoftmaxRegression(max_iter=1, tol=0, solver="lbfgs", n_threads=2).fit
    assert peak_memory(lambda: fit(X, y, weight)) < X.nbytes / 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_predictions_do_not_copy_x(large, dtype):
    X, _ = large
    rng = np.random.default_rng(1)
    model = Predictor(rng.standard_normal((4, 400)).astype(dtype), np.zeros(4, dtype))
    assert peak_memory(lambda: model.predict_proba(X, n_threads=2)) < X.nbytes / 3


# ---- what is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "CSR"])
@pytest.mark.parametrize("some", [False, True], ids=["all rows", "weights of zero"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_found_where_they_are(tmp_path, sparse, some, bad):
    X, y = overlapping(300, 4, 3)
    X[123, 2] = bad
    weight = np.arange(300) % 2 + 1.0 - some
    T = mapped_csr(tmp_path, csr_array(X)) if sparse else mapped(tmp_path, X)
    with pytest.raises(ValueError, match=r"X contains (nan|inf) at row 123, column 2"):
        SoftmaxRegression().fit(T, y, weight)
    model = SoftmaxRegression().fit(X[:100], y[:100])
    with pytest.raises(ValueError, match=r"X contains (nan|inf) at row 123, column 2"):
        model.predict_proba(T)
    with pytest.raises(ValueError, match=r"x contains (nan|inf) at row 123, column 2"):
        model.predictor().predict_proba(T)


def test_values_beyond_the_dtype_of_the_model_are_found_where_they_are(tmp_path):
    X = np.zeros((2 * 2**22 // 32, 4))
    X[-3, 1] = 1e300
    model = Predictor(np.ones((3, 4), np.float32), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=f"x in float32 contains inf at row {len(X) - 3}, column 1"):
        model.predict_proba(mapped(tmp_path, X))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere not every file system has files with holes")
def test_a_copy_that_does_not_fit_says_what_to_do(tmp_path):
    path = tmp_path / "X"
    with open(path, "wb") as file:
        file.truncate(2**40)  # a hole
    X = np.memmap(path, np.int8, "r", shape=(2**20, 2**20))
    with pytest.raises(MemoryError, match=r"float64 copy of X.*numpy.memmap"):
        SoftmaxRegression().fit(X, np.resize([0, 1], 2**20))


@cuts
@pytest.mark.parametrize(("sparse", "some"), [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("fitted", [False, True], ids=["new", "fitted"])
def test_a_file_that_is_cut_short_between_iterations(tmp_path, sparse, some, fitted):
    X, y = overlapping(4000, 20, 3)
    T = mapped_csr(tmp_path, csr_array(X)) if sparse else mapped(tmp_path, X)
    model = SoftmaxRegression().fit(X[:500], y[:500]) if fitted else SoftmaxRegression()
    model.callback = lambda *state: os.truncate((T.data if sparse else T).filename, 4096)
    before = dict(vars(model))
    with pytest.raises(OSError, match=r"rows \d+ to \d+ of X cannot be read: they end at byte \d+ of the file .*4096"):
        model.fit(T, y, np.arange(4000) % 2 + 1.0 - some)
    assert list(vars(model)) == list(before)
    assert all(vars(model)[name] is before[name] for name in before)


@cuts
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "CSR"])
def test_a_file_that_was_cut_short_before(tmp_path, sparse):
    X, y = overlapping(4000, 20, 3)
    model = SoftmaxRegression().fit(X, y)
    for part in range(3 if sparse else 1):
        T = mapped_csr(tmp_path, csr_array(X)) if sparse else mapped(tmp_path, X)
        os.truncate((T.data, T.indices, T.indptr)[part].filename if sparse else T.filename, 8192)
        with pytest.raises(OSError, match=r"cannot be read"):
            SoftmaxRegression().fit(T, y)
        with pytest.raises(OSError, match=r"cannot be read"):
            csoftmax.loss_gradient(T, y, model.coef_)
        for method in METHODS:
            with pytest.raises(OSError, match=r"cannot be read"):
                getattr(model, method)(T)
            with pytest.raises(OSError, match=r"cannot be read"):
                getattr(model.predictor(), method)(T)


@pytest.mark.skipif(sys.platform != "linux", reason="of other systems the page faults of a thread are not known")
def test_rows_are_touched_before_kernels_come(tmp_path):
    """Where a page is not in the process's table yet, what the kernels fetch ahead is searched for in vain."""
    resource, faults = pytest.importorskip("resource"), []
    X = mapped(tmp_path, np.ones((4096, 1024)))
    for rows in (X[:2048], _mapped.Mapped(X)[2048:]):
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        assert rows.reshape(-1)[::512].sum() == 4096
        faults.append(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)
    assert faults[1] <= 1 + faults[0] // 8
    assert faults[0] > 0


@cuts
def test_rows_that_are_still_there_can_be_read(tmp_path):
    X, y = overlapping(4000, 20, 3)
    T = mapped(tmp_path, X)
    os.truncate(T.filename, T.offset + T[:1000].nbytes)
    assert_same_fit(SoftmaxRegression(), T[:1000], X[:1000], y[:1000])
    with pytest.raises(OSError, match="cannot be read"):
        SoftmaxRegression().fit(T[:1001], y[:1001])
