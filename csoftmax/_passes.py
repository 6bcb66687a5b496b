"""Passes over all rows of X: how they are cut into blocks and chunks, and spread over threads.

A *block* of rows stays in the cache between its products; a *chunk* is what one thread does at a time and what one
partial sum covers. Neither depends on the number of threads, and partial sums are added in the order of the chunks, so
the result does not either.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from . import _core, _kernels
from ._mapped import SUM_ROWS, Mapped, check_file, is_dense, is_mapped, n_entries
from ._threads import CHUNK_WORK, THREADED_WORK, run
from ._typing import Array, Codes, DType, Float64, Layout, Places, Rows

TILE_CHUNK = 64  # rows of a chunk at least: each has a gradient to be added up
# The gradient of a block finds its rows in the cache; blocks are longer where all coefficients are read for each.
TILE_BLOCK_BYTES, PACKED_BYTES_PER_ROW = 2**17, 2**16
# OpenBLAS keeps a product of this many multiplications on the calling thread, which leaves the others to us.
SMALL_GEMM = 500_000
MAX_CHUNKS = 32
LARGE_LAYOUT = 2**18  # values
# The most that all chunks' gradients may take, unless there are two, and the scores of one block.
PARTIAL_BYTES = 2**23
BLOCK_BYTES = 2**22


# theta, unit, center and alpha of `_kernels.unpack`
Standard = tuple[Float64 | None, Float64 | None, Float64 | None, float]
PLAIN: Standard = None, None, None, 0.0


def n_bytes(X: Rows) -> int:
    """Memory of X."""
    return int(X.data.nbytes + X.indices.nbytes + X.indptr.nbytes if not is_dense(X) else X.size * X.dtype.itemsize)


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
        sparse = not is_dense(X)
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


class Passes(Protocol):
    """What an objective asks for in every iteration; `LossPass` explains it."""

    workspace_bytes: int
    keeps_scores: bool

    def take(self, coef: Array, intercept: Array, unit: Float64 | None = None) -> None: ...

    def loss_gradient(self, by_coef: Float64, by_intercept: Float64, standard: Standard = PLAIN) -> float: ...

    def spread(self, center: Float64, by_coef: Float64, by_intercept: Float64, standard: Standard) -> None: ...


class LossPass:
    """Weighted loss of all rows and its gradient, at any coefficients.

    Parameters
    ----------
    X : (n, d) array, C-contiguous, or CSR matrix, each in memory or mapped; float32 or float64
    y : (n,) int32 array of labels in [0, K)
    weight : (n,) array of X's dtype
    n_columns : int
        K, or 1 for two classes.
    n_threads : int
    tiled : bool or None
        Force register tiles or BLAS; None chooses by the shape.
    like : LossPass, optional
        One for as many features and columns, whose memory is used if it is enough: the two take the same coefficients,
        and never run at the same time.
    """

    def __init__(
        self,
        X: Rows,
        y: Codes,
        weight: Array,
        n_columns: int,
        n_threads: int,
        tiled: bool | None = None,
        like: "LossPass | None" = None,
    ) -> None:
        n, d = X.shape
        self.y, self.weight, self._n_columns = y, weight, n_columns
        self.plan = plan = Plan.of(X, n_columns, tiled)
        self._workers = workers = min(n_threads, plan.n_chunks) if plan.threaded else 1
        entries = n_entries(X)
        apart = _core.make_a_sum(n // plan.n_chunks, entries // plan.n_chunks, d)
        size = _core.workspace_size(n_columns, plan.block, X.dtype.itemsize, plan.layout["size"] if apart else 0)
        self._work: list[Array]
        self._packed: Array
        self._gradients: Array
        if like is not None and like._holds(plan, workers, size):
            self._work, self._packed, self._gradients = like._work, like._packed, like._gradients[: plan.n_chunks]
        else:
            self._work = [np.empty(size, X.dtype) for _ in range(workers)]
            self._packed = plan.packed(1, X.dtype)[0] if like is None else like._packed
            self._gradients = plan.packed(plan.n_chunks, X.dtype)
        self._losses = np.empty(plan.n_chunks)
        self.keeps_scores, self._kept = False, np.empty(0, X.dtype)
        # Many coefficients are packed in threads too.
        self._parts = workers if plan.layout["size"] >= LARGE_LAYOUT and plan.layout["fold"] < d else 1
        self._bounds = np.minimum(np.arange(plan.n_chunks + 1) * plan.chunk, n)
        self._file = X if is_mapped(X) and not isinstance(X, Mapped) else None
        if is_dense(X):
            self._call: Callable[..., None] = partial(_by_parts if isinstance(X, Mapped) else _core.loss_gradient, X)
        else:
            self._rows = X.data, X.indices, X.indptr, d
            self._call = partial(_core.loss_gradient_csr, *self._rows)
            # Chunks of equal numbers of entries.
            aims = np.linspace(0, X.nnz, plan.n_chunks + 1)[1:-1]
            self._bounds[1:-1] = np.searchsorted(X.indptr, aims)
        self.workspace_bytes: int = sum(
            part.nbytes for part in (*self._work, self._packed, self._gradients, self._losses)
        )

    def _holds(self, plan: Plan, workers: int, size: int) -> bool:
        """Whether the memory is enough for another pass; what its work has more would change float32 sums."""
        enough = len(self._work) >= workers and len(self._gradients) >= plan.n_chunks
        return enough and len(self._work[0]) == size and plan.layout == self.plan.layout

    def __call__(self, coef: Array, intercept: Array) -> tuple[float, Float64, Float64]:
        """Loss, and its gradients by coef (K, d) and intercept (K,), both C-contiguous; the gradients are float64."""
        by_coef, by_intercept = np.empty(coef.shape), np.empty(len(coef))
        self.take(coef, intercept)
        return self.loss_gradient(by_coef, by_intercept), by_coef, by_intercept

    def take(self, coef: Array, intercept: Array, unit: Float64 | None = None, packed: Array | None = None) -> None:
        """Take coefficients, as `_kernels.pack` does."""
        parts, packed = self._parts, self._packed if packed is None else packed
        pack = partial(_kernels.pack, coef, intercept, self.plan.layout, packed, unit)
        run(lambda part, _: pack(part, parts), parts, parts)

    def loss_gradient(
        self,
        by_coef: Float64,
        by_intercept: Float64,
        standard: Standard = PLAIN,
        n_squares: int = 0,
        **options: Any,
    ) -> float:
        """Loss, with its gradients as `_kernels.unpack` makes them."""
        plan = self.plan

        def chunks(first: int, last: int, work: Array) -> None:
            rows = self.y, self.weight, self._n_columns, plan.layout, self._packed
            cut = self._bounds, plan.block, first, last
            more = {**options, "squares": np.empty(n_squares, work.dtype)} if n_squares else options
            self._call(*rows, *cut, self._losses, self._gradients, work, **more)

        self._for_chunks(chunks)
        parts, unpack = self._parts, partial(_kernels.unpack, self._gradients, plan.layout, by_coef, by_intercept)
        run(lambda part, _: unpack(*standard, part, parts), parts, parts)
        return math.fsum(self._losses)

    def _for_chunks(self, do: Callable[[int, int, Array], None]) -> None:
        """do(first, last, work) for all chunks, in threads."""
        # One thread does all chunks in one call: it holds the GIL only between passes.
        together = self.plan.n_chunks if self._workers == 1 and self._file is None else 1

        def chunks(item: int, worker: int) -> None:
            if self._file is not None:
                check_file(self._file, self._bounds[item], self._bounds[item + 1])
            do(item * together, (item + 1) * together, self._work[worker])

        run(chunks, self.plan.n_chunks // together, self._workers)

    def spread(self, center: Float64, by_coef: Float64, by_intercept: Float64, standard: Standard) -> None:
        """Sums of w p (1 - p) ((x - center)^2 - center^2) and of w p (1 - p), of CSR, in place of the gradients.

        They are taken where the kept scores are, or at the coefficients.
        """
        indptr, block = self._rows[2], self.plan.block
        most = int((indptr[np.minimum(np.arange(block, len(indptr) + block), len(indptr) - 1)] - indptr).max())
        kept: dict[str, Any] = {"kept": self._kept, "direction": self._direction} if self.keeps_scores else {}
        self.loss_gradient(by_coef, by_intercept, standard, max(most, 1), center=center, **kept)

    def keep_scores(self) -> None:
        """Keep the scores of all rows of CSR, and how a direction changes them: along it the loss costs no pass.

        A pass has two halves then: `aim` reads X for the scores of the direction, and `move` for the gradient at the
        point where it leads to.
        """
        self._kept, self._direction = (np.zeros(len(self.y) * self._n_columns, self._packed.dtype) for _ in range(2))
        self.keeps_scores, self._slopes = True, np.empty_like(self._losses)
        self.workspace_bytes += self._kept.nbytes + self._direction.nbytes

    def aim(self, coef: Array, intercept: Array, unit: Float64 | None = None, anew: bool = False) -> None:
        """Go in the direction of these coefficients; anew, be there."""
        plan, out = self.plan, self._kept if anew else self._direction
        packed = self._gradients[0]  # which are not needed meanwhile
        self.take(coef, intercept, unit, packed)

        def chunks(first: int, last: int, work: Array) -> None:
            how, block = (self._n_columns, plan.layout, packed), plan.block
            _core.keep_scores_csr(*self._rows, *how, self._bounds, block, first, last, out, work)

        self._for_chunks(chunks)

    def along(self, step: float) -> tuple[float, float]:
        """Loss at a step along the direction, and its slope by the step."""

        def chunks(first: int, last: int, work: Array) -> None:
            rows, where = (self.y, self.weight, self._n_columns), (self._kept, self._direction, step)
            block = self.plan.block
            _core.loss_along(*rows, self._bounds, block, first, last, self._losses, self._slopes, work, *where)

        self._for_chunks(chunks)
        return math.fsum(self._losses), math.fsum(self._slopes)

    def move(self, step: float, by_coef: Float64, by_intercept: Float64, standard: Standard = PLAIN) -> float:
        """Go there: `loss_gradient` at that point."""
        options: dict[str, Any] = {"kept": self._kept, "direction": self._direction, "step": step}
        return self.loss_gradient(by_coef, by_intercept, standard, **options)


def _by_parts(
    X: Mapped,
    y: Codes,
    weight: Array,
    n_columns: int,
    how: Layout,
    packed: Array,
    bounds: Places,
    block: int,
    first: int,
    last: int,
    losses: Float64,
    gradients: Array,
    work: Array,
) -> None:
    """`_core.loss_gradient` of a mapped X, part by part: bitwise the same, as all sums go on where they were."""
    lost = np.zeros_like(losses)
    losses[first:last], gradients[first:last] = 0, 0
    step = X.step(-(-SUM_ROWS // block) * block)
    for chunk in range(first, last):
        for start in range(bounds[chunk], bounds[chunk + 1], step):
            rows = slice(start, min(start + step, bounds[chunk + 1]))
            part = X[rows], y[rows], weight[rows], n_columns, how, packed, np.array([0, rows.stop - start])
            own = slice(chunk, chunk + 1)
            _core.loss_gradient(*part, block, 0, 1, losses[own], gradients[own], work, lost[own])
    losses[first:last] += lost[first:last]


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
        if is_dense(X):
            _core.scores(X, *where, start, stop, plan.block, out)
        else:
            _core.scores_csr(X.data, X.indices, X.indptr, X.shape[1], *where, start, stop, plan.block, out)
        if then:
            _kernels.softmax_rows(out, start, stop, then == "log_softmax")

    run(chunks, plan.n_chunks // together, workers)
    return out


def times_transposed(A: Array, B: Array, n_threads: int = 1) -> Array:
    """A B', of C-contiguous arrays (n, m) and (k, m), which threads of BLAS could well make faster.

    But these, once woken, spin for 25 ms, and hold up the passes that follow.
    """
    return scores(A, B, np.zeros(len(B), A.dtype), n_threads)
