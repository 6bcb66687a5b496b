"""Passes over all rows of X: how they are cut into blocks and chunks, and spread over threads.

A *block* of rows stays in the cache between its products; a *chunk* is what one thread does at a time and what one
partial sum covers. Neither depends on the number of threads, and partial sums are added in the order of the chunks, so
the result does not either.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from . import _core, _kernels
from ._threads import CHUNK_WORK, THREADED_WORK, run
from ._typing import Array, Codes, DType, Float64, Layout, Rows

TILE_CHUNK = 64  # rows of a chunk at least: each has a gradient to be added up
# The gradient of a block finds its rows in the cache; blocks are longer where all coefficients are read for each.
TILE_BLOCK_BYTES, PACKED_BYTES_PER_ROW = 2**17, 2**16
# OpenBLAS keeps a product of this many multiplications on the calling thread, which leaves the others to us.
SMALL_GEMM = 500_000
MAX_CHUNKS = 32
# The most that all chunks' gradients may take, unless there are two, and the scores of one block.
PARTIAL_BYTES = 2**23
BLOCK_BYTES = 2**22


def n_entries(X: Rows) -> int:
    """Values that are stored."""
    return int(X.size if isinstance(X, np.ndarray) else X.nnz)


class Plan(NamedTuple):
    """How a pass over the rows of X, with so many columns, is cut, and how its coefficients are packed."""

    layout: Layout
    block: int
    chunk: int
    n_chunks: int
    threaded: bool

    @classmethod
    def of(cls, X: Rows, n_columns: int, tiled: bool | None = None) -> "Plan":
        """The plan for a matrix; `tiled` forces the kernel of a dense one."""
        sparse = not isinstance(X, np.ndarray)
        if sparse and getattr(X, "format", "") != "csr":
            raise TypeError(f"X is a {type(X).__name__}: expected an array or a CSR matrix")
        entries = n_entries(X)
        (n, d), itemsize = X.shape, X.dtype.itemsize
        n = max(n, 1)
        if sparse:
            tiled = False
        elif tiled is None:
            tiled = _kernels.tiles_win(n_columns, d * n_columns * itemsize)
            tiled = tiled and (n_columns > 1 or d * itemsize >= _kernels.vector_bytes())  # else no vector is filled
        layout = _kernels.layout(d, n_columns, tiled, sparse, itemsize)
        size = layout["size"]
        fat = not tiled and not sparse and 16 * d * n_columns > SMALL_GEMM
        if sparse:
            block = min(128, BLOCK_BYTES // (64 * n_columns * itemsize))
        elif tiled:
            block = max(min(128, TILE_BLOCK_BYTES // (d * itemsize)), size * itemsize // PACKED_BYTES_PER_ROW)
        elif not fat:
            block = min(128, SMALL_GEMM // (d * n_columns))
        else:
            block = min(512, BLOCK_BYTES // (n_columns * itemsize))
        block = max(1, block) if fat else min(256, max(16, block)) // 8 * 8
        # Where a block is too fat for one thread's BLAS, one thread of ours hands all rows to BLAS's own threads.
        most = 1 if fat else min(MAX_CHUNKS, max(2, PARTIAL_BYTES // (size * itemsize)))
        if tiled:
            most = min(most, max(1, n // TILE_CHUNK))
        work = entries * max(n_columns, 8)
        n_chunks = min(most, max(1, work // CHUNK_WORK))
        chunk = -(-n // (n_chunks * block)) * block
        n_chunks = -(-n // chunk)
        return cls(layout, block, chunk, n_chunks, n_chunks > 1 and work >= THREADED_WORK)

    def packed(self, count: int, dtype: DType) -> Array:
        """Space for so many sets of coefficients or gradients, each at the beginning of a cache line."""
        size = self.layout["size"]
        memory = np.empty(count * size + 64, dtype)
        offset = -memory.ctypes.data % 64 // memory.itemsize
        return memory[offset : offset + count * size].reshape(count, size)


class LossPass:
    """Weighted loss of all rows and its gradient, at any coefficients.

    Parameters
    ----------
    X : (n, d) array, C-contiguous, or CSR matrix; float32 or float64
    y : (n,) int32 array of labels in [0, K)
    weight : (n,) array of X's dtype
    n_columns : int
        K, or 1 for two classes.
    n_threads : int
    tiled : bool or None
        Force register tiles or BLAS; None chooses by the shape.
    """

    def __init__(
        self,
        X: Rows,
        y: Codes,
        weight: Array,
        n_columns: int,
        n_threads: int,
        tiled: bool | None = None,
    ) -> None:
        n, d = X.shape
        self.y, self.weight = y, weight
        self.plan = plan = Plan.of(X, n_columns, tiled)
        workers = min(n_threads, plan.n_chunks) if plan.threaded else 1
        entries = n_entries(X)
        apart = _core.make_a_sum(n // plan.n_chunks, entries // plan.n_chunks, d)
        size = _core.workspace_size(n_columns, plan.block, X.dtype.itemsize, plan.layout["size"] if apart else 0)
        self._work = [np.empty(size, X.dtype) for _ in range(workers)]
        self._packed = plan.packed(1, X.dtype)[0]
        self._gradients = plan.packed(plan.n_chunks, X.dtype)
        self._losses = np.empty(plan.n_chunks)
        # float64 gradients go where the coefficients were.
        shape, again = (n_columns, d), X.dtype == np.float64
        self._coef_gradient = self._packed[: n_columns * d].reshape(shape) if again else np.empty(shape)
        self._intercept_gradient = np.empty(n_columns)
        self._bounds = np.minimum(np.arange(plan.n_chunks + 1) * plan.chunk, n)
        if isinstance(X, np.ndarray):
            self._call: Callable[..., None] = partial(_core.loss_gradient, X)
        else:
            self._call = partial(_core.loss_gradient_csr, X.data, X.indices, X.indptr, d)
            # Chunks of equal numbers of entries.
            aims = np.linspace(0, X.nnz, plan.n_chunks + 1)[1:-1]
            self._bounds[1:-1] = np.searchsorted(X.indptr, aims)
        self.workspace_bytes = sum(
            part.nbytes for part in (*self._work, self._packed, self._gradients, self._losses)
        ) + (0 if again else self._coef_gradient.nbytes)

    def __call__(self, coef: Array, intercept: Array) -> tuple[float, Float64, Float64]:
        """Loss, and its gradients by coef (K, d) and intercept (K,), both of X's dtype, C-contiguous.

        The gradients are float64; they may be overwritten by the next call.
        """
        plan = self.plan
        _kernels.pack(coef, intercept, plan.layout, self._packed)
        # One thread does all chunks in one call: it holds the GIL only between passes.
        together = plan.n_chunks if len(self._work) == 1 else 1

        def chunks(item: int, worker: int) -> None:
            self._call(
                self.y,
                self.weight,
                len(coef),
                plan.layout,
                self._packed,
                self._bounds,
                plan.block,
                item * together,
                (item + 1) * together,
                self._losses,
                self._gradients,
                self._work[worker],
            )

        run(chunks, plan.n_chunks // together, len(self._work))
        _kernels.unpack(self._gradients, plan.layout, self._coef_gradient, self._intercept_gradient)
        return math.fsum(self._losses), self._coef_gradient, self._intercept_gradient


def scores(
    X: Rows,
    coef: Array,
    intercept: Array,
    n_threads: int,
    then: str = "",
    tiled: bool | None = None,
    out: Array | None = None,
) -> Array:
    """X coef' + intercept, (n, K), in `out`; then, if asked for, the "softmax" or "log_softmax" of each row."""
    n, n_columns = X.shape[0], len(coef)
    plan = Plan.of(X, n_columns, tiled)
    packed = plan.packed(1, X.dtype)[0]
    _kernels.pack(coef, intercept, plan.layout, packed)
    workers = min(n_threads, plan.n_chunks) if plan.threaded else 1
    out = np.empty((n, n_columns), X.dtype) if out is None else out
    together = plan.n_chunks if workers == 1 else 1
    where = (plan.layout, packed)

    def chunks(item: int, worker: int) -> None:
        start, stop = item * together * plan.chunk, min((item + 1) * together * plan.chunk, n)
        if isinstance(X, np.ndarray):
            _core.scores(X, *where, start, stop, plan.block, out)
        else:
            _core.scores_csr(X.data, X.indices, X.indptr, X.shape[1], *where, start, stop, plan.block, out)
        if then:
            _kernels.softmax_rows(out, start, stop, then == "log_softmax")

    run(chunks, plan.n_chunks // together, workers)
    return out


def column_moments(X: Rows, weight: Array, n_threads: int) -> tuple[Float64, Float64]:
    """Weighted mean and standard deviation of each column; weights add up to 1.

    The deviation of a column whose values differ by rounding error alone is 0. Deviations are squared in units of
    the column's own range, so columns of size 1e-150 or 1e150 are measured as well as any.
    """
    n, d = X.shape
    plan = Plan.of(X, 1)
    bounds = [(i * plan.chunk, min((i + 1) * plan.chunk, n)) for i in range(plan.n_chunks)]
    workers = n_threads if plan.threaded else 1
    shape = plan.n_chunks, d
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    total, squares = np.zeros(shape), np.zeros(shape)
    if not isinstance(X, np.ndarray):
        present, count = np.zeros(shape), np.zeros(shape, np.intp)
        entries = X.data, X.indices, X.indptr, weight

    def first(item: int, worker: int) -> None:
        start, stop = bounds[item]
        if isinstance(X, np.ndarray):
            _core.column_range(X[start:stop], weight[start:stop], low[item], high[item], total[item])
        else:
            found = low[item], high[item], total[item], present[item], count[item]
            _core.column_range_csr(*entries, start, stop, *found)

    run(first, plan.n_chunks, workers)
    least, most = low.min(axis=0), high.max(axis=0)
    absent = np.zeros(d)  # the weight of rows that have no entry: there the value is zero
    if not isinstance(X, np.ndarray):
        incomplete = count.sum(axis=0) < n
        absent[incomplete] = np.clip(1 - present.sum(axis=0)[incomplete], 0, 1)
        least[incomplete] = np.minimum(least[incomplete], 0)
        most[incomplete] = np.maximum(most[incomplete], 0)
    mean = np.clip(total.sum(axis=0), least, most)
    reach = np.maximum(most - mean, mean - least)
    constant = reach <= 4 * np.finfo(np.float64).eps * np.maximum(abs(least), abs(most))
    unit = np.where(constant, 0.0, 1 / np.where(constant, 1.0, reach))

    def second(item: int, worker: int) -> None:
        start, stop = bounds[item]
        if isinstance(X, np.ndarray):
            _core.column_spread(X[start:stop], weight[start:stop], mean, unit, squares[item])
        else:
            _core.column_spread_csr(*entries, start, stop, mean, unit, squares[item])

    run(second, plan.n_chunks, workers)
    spread = squares.sum(axis=0) + absent * (mean * unit) ** 2
    return mean, np.where(constant, 0.0, reach * np.sqrt(spread))
