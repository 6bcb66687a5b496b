"""Passes over all rows of X: how they are cut into blocks and chunks, and spread over threads.

A *block* of rows stays in the cache between its products; a *chunk* is what one thread does at a time and what one
partial sum covers. Both depend on the shape alone, and partial sums are added in the order of the chunks, so the
result does not depend on the number of threads.
"""

import math
from typing import NamedTuple

import numpy as np

from . import _core
from ._threads import run
from ._typing import Array, Codes, Float64

# Register tiles win over BLAS by 1.6 to 2.7 times with AVX-512, by up to 1.4 with AVX2 (from 100 columns on they are
# even), with plainer vectors up to PLAIN_TILE_COLUMNS. Beyond TILE_BYTES of W the partial gradients are too large.
TILE_BYTES = 2**21
TILE_CHUNK = 256  # rows of a chunk at least: each brings its gradient into the layout of the tiles and back
TILE_BLOCK_BYTES = 2**17  # of X, which the gradient finds in the cache
PLAIN_TILE_COLUMNS = 32
# OpenBLAS keeps a product of this many multiplications on the calling thread, which leaves the others to us.
SMALL_GEMM = 500_000
# A chunk is at least this many multiplications, about 0.1 ms; fewer than 4 chunks are not worth a second thread.
CHUNK_WORK = 2**20
MAX_CHUNKS = 32
# The most that all chunks' partial gradients may take, and the scores of one block.
PARTIAL_BYTES = 2**23
BLOCK_BYTES = 2**22
SOFTMAX_BLOCK = 2**15  # values of the rows that exp runs over at once


class Plan(NamedTuple):
    """How a pass over n rows of d features, with so many columns of scores, is cut."""

    tiled: bool
    block: int
    chunk: int
    n_chunks: int
    threaded: bool

    @classmethod
    def of(cls, n: int, d: int, n_columns: int, itemsize: int, tiled: bool | None = None) -> "Plan":
        """The plan for a shape; `tiled` forces the kernel."""
        n = max(n, 1)
        if tiled is None:
            tiled = d * max(n_columns, 64 // itemsize) * itemsize <= TILE_BYTES
            tiled = tiled and (n_columns <= PLAIN_TILE_COLUMNS or _core.vector_bytes() >= 32)
            tiled = tiled and (n_columns > 1 or d * itemsize >= _core.vector_bytes())  # else no vector is filled
        fat = not tiled and 16 * d * n_columns > SMALL_GEMM
        if tiled:
            block = TILE_BLOCK_BYTES // (d * itemsize)
        elif not fat:
            block = SMALL_GEMM // (d * n_columns)
        else:
            block = min(512, BLOCK_BYTES // (n_columns * itemsize))
        block = max(1, block) if fat else min(128, max(16, block)) // 8 * 8
        # Where a block is too fat for one thread's BLAS, one thread of ours hands all rows to BLAS's own threads.
        most = 1 if fat else min(MAX_CHUNKS, max(1, PARTIAL_BYTES // (n_columns * d * itemsize)))
        if tiled:
            most = min(most, max(1, n // TILE_CHUNK))
        enough = n * d * max(n_columns, 8) // CHUNK_WORK
        n_chunks = min(most, max(1, enough))
        chunk = -(-n // (n_chunks * block)) * block
        n_chunks = -(-n // chunk)
        return cls(tiled, block, chunk, n_chunks, n_chunks > 1 and enough >= 4)


class LossPass:
    """Weighted loss of all rows and its gradient, at any coefficients.

    Parameters
    ----------
    X : (n, d) array, float32 or float64, C-contiguous
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
        X: Array,
        y: Codes,
        weight: Array,
        n_columns: int,
        n_threads: int,
        tiled: bool | None = None,
    ) -> None:
        n, d = X.shape
        self.X, self.y, self.weight, self.n_threads = X, y, weight, n_threads
        self.plan = Plan.of(n, d, n_columns, X.itemsize, tiled)
        chunks, workers = self.plan.n_chunks, min(n_threads, self.plan.n_chunks) if self.plan.threaded else 1
        size = _core.workspace_size(d, n_columns, self.plan.block, self.plan.tiled, X.itemsize)
        self._work = [np.empty(size, X.dtype) for _ in range(workers)]
        self._coef_parts = np.empty((chunks, n_columns, d), X.dtype)
        self._intercept_parts = np.empty((chunks, n_columns), X.dtype)
        self._losses = np.empty(chunks)
        self.workspace_bytes = sum(
            part.nbytes for part in (*self._work, self._coef_parts, self._intercept_parts, self._losses)
        )

    def __call__(self, coef: Array, intercept: Array) -> tuple[float, Float64, Float64]:
        """Loss, and its gradients by coef (K, d) and intercept (K,), both of X's dtype, C-contiguous.

        The gradients are float64; they may be overwritten by the next call.
        """
        plan = self.plan
        # One thread does all chunks in one call: it holds the GIL only between passes.
        together = plan.n_chunks if len(self._work) == 1 else 1

        def chunks(item: int, worker: int) -> None:
            _core.loss_gradient(
                self.X,
                self.y,
                self.weight,
                coef,
                intercept,
                plan.chunk,
                plan.block,
                plan.tiled,
                item * together,
                (item + 1) * together,
                self._losses,
                self._coef_parts,
                self._intercept_parts,
                self._work[worker],
            )

        run(chunks, plan.n_chunks // together, len(self._work))
        if plan.n_chunks == 1 and self.X.dtype == np.float64:
            coef_gradient, intercept_gradient = self._coef_parts[0], self._intercept_parts[0]
        else:
            coef_gradient = self._coef_parts.sum(axis=0, dtype=np.float64)
            intercept_gradient = self._intercept_parts.sum(axis=0, dtype=np.float64)
        return math.fsum(self._losses), coef_gradient, intercept_gradient


def scores(X: Array, coef: Array, intercept: Array, n_threads: int, then: str = "", tiled: bool | None = None) -> Array:
    """X coef' + intercept, (n, K); then, if asked for, the "softmax" or "log_softmax" of each row."""
    (n, d), n_columns = X.shape, len(coef)
    plan = Plan.of(n, d, n_columns, X.itemsize, tiled)
    workers = min(n_threads, plan.n_chunks) if plan.threaded else 1
    size = _core.workspace_size(d, n_columns, plan.block, plan.tiled, X.itemsize)
    work = [np.empty(size, X.dtype) for _ in range(workers)]
    out = np.empty((n, n_columns), X.dtype)
    together = plan.n_chunks if workers == 1 else 1

    def chunks(item: int, worker: int) -> None:
        start, stop = item * together * plan.chunk, min((item + 1) * together * plan.chunk, n)
        _core.scores(X, coef, intercept, start, stop, plan.block, plan.tiled, out, work[worker])
        if then:
            _core.softmax_rows(out, start, stop, max(1, SOFTMAX_BLOCK // n_columns), then == "log_softmax")

    run(chunks, plan.n_chunks // together, workers)
    return out


def column_moments(X: Array, weight: Array, n_threads: int) -> tuple[Float64, Float64]:
    """Weighted mean and standard deviation of each column; weights add up to 1.

    The deviation of a column whose values differ by rounding error alone is 0. Deviations are squared in units of
    the column's own range, so columns of size 1e-150 or 1e150 are measured as well as any.
    """
    n, d = X.shape
    plan = Plan.of(n, d, 1, X.itemsize)
    bounds = [(i * plan.chunk, (i + 1) * plan.chunk) for i in range(plan.n_chunks)]
    workers = n_threads if plan.threaded else 1
    low, high = np.full((plan.n_chunks, d), np.inf), np.full((plan.n_chunks, d), -np.inf)
    total, squares = np.zeros((plan.n_chunks, d)), np.zeros((plan.n_chunks, d))

    def first(item: int, worker: int) -> None:
        rows = slice(*bounds[item])
        _core.column_range(X[rows], weight[rows], low[item], high[item], total[item])

    run(first, plan.n_chunks, workers)
    least, most = low.min(axis=0), high.max(axis=0)
    mean = np.clip(total.sum(axis=0), least, most)
    reach = np.maximum(most - mean, mean - least)
    constant = reach <= 4 * np.finfo(np.float64).eps * np.maximum(abs(least), abs(most))
    unit = np.where(constant, 0.0, 1 / np.where(constant, 1.0, reach))

    def second(item: int, worker: int) -> None:
        rows = slice(*bounds[item])
        _core.column_spread(X[rows], weight[rows], mean, unit, squares[item])

    run(second, plan.n_chunks, workers)
    return mean, np.where(constant, 0.0, reach * np.sqrt(squares.sum(axis=0)))
