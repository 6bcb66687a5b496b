"""Means and deviations of the columns of X, and lengths of its rows: sweeps over X, cut into chunks as passes are."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _sums
from ._mapped import check_file, dense_parts, is_dense, n_entries, readable
from ._passes import Plan
from ._threads import run
from ._typing import Array, Codes, Float64, Rows
from ._validation import check_finite

CLASS_BYTES = 2**23  # of sums of all classes in all chunks: more are not worth their memory

# Share of the squares about a guess of the mean that must be left about the mean itself: then ten digits are right.
LEFT = 1e-6
LEAST_SQUARE = 1e-280  # smaller ones have lost digits to underflow


class Columns(NamedTuple):
    """Of each column the mean, the unit that deviations are measured in, how many reach furthest, and absent weight."""

    mean: Float64
    unit: Float64
    reach: Float64
    absent: Float64

    def deviation(self, squares: Float64) -> Float64:
        """Standard deviation, from what `column_spread` found; 0 where values differ by rounding error alone."""
        spread = squares + self.absent * (self.mean * self.unit) ** 2
        return np.where(self.unit == 0, 0.0, self.reach * np.sqrt(spread))


class ColumnRanges(NamedTuple):
    """Of each column and its entries the least and the largest, the weight of their rows, their mean, the squares of
    their deviations from it, the squares about guesses that this is what is left of, and their number; and the weighted
    sums of the rows of each class, (K, d), or (0, d) if there was no room for them."""

    low: Float64
    high: Float64
    weight: Float64
    mean: Float64
    squares: Float64
    guessed: Float64
    n_rows: npt.NDArray[np.intp]
    by_class: Float64

    @classmethod
    def join(cls, parts: Iterable[tuple[Array, ...]]) -> "ColumnRanges":
        """Those of all rows, from those of some (Chan, Golub and LeVeque 1983, doi:10.1080/00031305.1983.10483115)."""
        low, high, weight, means, squares, guessed, n_rows, by_class = zip(*parts, strict=True)
        total, classes = sum(weight), min(map(len, by_class))
        mean, between = np.zeros_like(total), np.zeros_like(total)
        with np.errstate(over="ignore", invalid="ignore"):
            for share, of_part in zip(weight, means, strict=True):  # one by one, to save memory
                mean += np.divide(share, total, out=np.zeros_like(total), where=total > 0) * of_part
            for share, of_part in zip(weight, means, strict=True):
                between += share * (of_part - mean) ** 2
            sums = sum(squares) + between, sum(guessed) + between
        rest = sum(n_rows), sum(sums[:classes] for sums in by_class)
        return cls(reduce(np.minimum, low), reduce(np.maximum, high), total, mean, *sums, *rest)

    def moments(self, n_rows: int, spread: Callable[[Columns], Float64]) -> tuple[Float64, Float64]:
        """Mean and standard deviation of the columns of so many rows, whose weights add up to 1.

        `spread` makes another sweep, for columns whose deviations are too small beside the values, or too far from 1,
        for their squares to be right. There deviations are squared in units of the column's own range, so columns of
        size 1e-150 or 1e150 are measured as well as any.
        """
        missing = self.n_rows < n_rows  # in some rows, where the value is zero
        absent = np.where(missing, np.clip(1 - self.weight, 0, 1), 0.0)
        nothing = np.zeros_like(absent)
        zeros = (
            np.where(missing, 0, np.inf),
            np.where(missing, 0, -np.inf),
            absent,
            *[nothing] * 3,
            n_rows - self.n_rows,
        )
        low, high, weight, mean, squares, guessed, *_ = ColumnRanges.join([self, (*zeros, self.by_class)])
        mean = np.clip(mean, low, high)
        reach = np.maximum(high - mean, mean - low)
        constant = reach <= 4 * np.finfo(np.float64).eps * np.maximum(abs(low), abs(high))
        if np.all(constant | np.isfinite(guessed) & (squares > LEFT * guessed) & (squares > LEAST_SQUARE)):
            return mean, np.where(constant, 0.0, np.sqrt(np.divide(squares, weight, out=nothing, where=weight > 0)))
        columns = Columns(mean, np.where(constant, 0.0, 1 / np.where(constant, 1.0, reach)), reach, absent)
        return mean, columns.deviation(spread(columns))


def column_ranges(X: Rows, weight: Array, y: Codes, n_classes: int, n_threads: int) -> ColumnRanges:
    """One sweep over X."""
    bounds, workers = _column_chunks(X, n_threads)
    shape = n, d = len(bounds), X.shape[1]
    apart = 8 * n * n_classes * d <= CLASS_BYTES
    low, high, center, squares, present = (_filled(value, shape) for value in (np.inf, -np.inf, 0, 0, 0))
    sums, count = _filled(0, (n, n_classes if apart else 1, d)), np.zeros(shape, np.intp)

    def part(item: int, worker: int) -> None:
        start, stop = bounds[item]
        out = low[item], high[item], sums[item], squares[item]
        if is_dense(X):
            for rows, values in dense_parts(X, start, stop):
                if rows.start == start:
                    center[item] = values[0]
                _sums.column_range(values, weight[rows], y[rows] if apart else None, center[item], *out)
            present[item], count[item] = weight[start:stop].sum(dtype=np.float64), stop - start
        else:
            check_file(X, start, stop)
            entries = X.data, X.indices, X.indptr, weight, y if apart else None
            _sums.column_range_csr(*entries, start, stop, *out, present[item], count[item])

    run(part, n, workers)
    if not np.isfinite(sums).all():
        check_finite(X, "X", n_threads)  # of a mapped X nobody has looked yet

    def found(item: int) -> tuple[Array, ...]:
        (start, stop), by_class = bounds[item], sums[item]
        with np.errstate(over="ignore", invalid="ignore"):
            total = by_class.sum(axis=0)
            shift = np.divide(total, present[item], out=np.zeros(d), where=present[item] > 0)
            left = np.maximum(squares[item] - total * shift, 0)
        if apart:
            by_class += np.bincount(y[start:stop], weight[start:stop], n_classes)[:, None] * center[item]
        center[item] += shift
        rest = squares[item], count[item], by_class if apart else by_class[:0]
        return low[item], high[item], present[item], center[item], left, *rest

    return ColumnRanges.join(map(found, range(n)))


def _filled(value: float, shape: tuple[int, ...]) -> Float64:
    """An array that begins with a cache line, as vectors that lie across two of them cost a third of the sweep."""
    memory = np.full(math.prod(shape) + 8, value, np.float64)
    start = -memory.ctypes.data % 64 // 8
    return memory[start : start + math.prod(shape)].reshape(shape)


def column_spread(X: Rows, weight: Array, columns: Columns, n_threads: int) -> Float64:
    """Weighted sum of the squared deviations of each column, in its unit: another sweep."""
    bounds, workers = _column_chunks(X, n_threads)
    squares = np.zeros((len(bounds), X.shape[1]))

    def part(item: int, worker: int) -> None:
        start, stop = bounds[item]
        if is_dense(X):
            for rows, values in dense_parts(X, start, stop):
                _sums.column_spread(values, weight[rows], columns.mean, columns.unit, squares[item])
        else:
            check_file(X, start, stop)
            entries = X.data, X.indices, X.indptr, weight
            _sums.column_spread_csr(*entries, start, stop, columns.mean, columns.unit, squares[item])

    run(part, len(bounds), workers)
    return np.asarray(squares.sum(axis=0))


def _column_chunks(X: Rows, n_threads: int) -> tuple[list[tuple[int, int]], int]:
    """Chunks of rows, and how many threads share them."""
    n, plan = X.shape[0], Plan.of(X, 1)
    n_chunks = plan.n_chunks
    if not is_dense(X):  # what is added up for a chunk is as long as its entries, or twice
        n_chunks = min(n_chunks, max(2, n_entries(X) // (4 * X.shape[1])))
    chunk = -(-max(n, 1) // n_chunks)
    bounds = [(start, min(start + chunk, n)) for start in range(0, max(n, 1), chunk)]
    return bounds, n_threads if plan.threaded else 1


def row_lengths(X: Rows, center: Float64, unit: Float64, runs: Sequence[slice], n_threads: int) -> Float64:
    """Squared length of each row of these runs, one after the other, centred and in these units."""
    ends = np.cumsum([0] + [rows.stop - rows.start for rows in runs])
    lengths = np.empty(ends[-1])

    def of_run(item: int, worker: int) -> None:
        begin, out = runs[item].start, lengths[ends[item] : ends[item + 1]]
        if is_dense(X):
            for rows, part in dense_parts(X, begin, runs[item].stop):
                _sums.row_lengths(part, center, unit, out[rows.start - begin : rows.stop - begin])
        else:
            _lengths_of_entries(readable(X, runs[item]), center, unit, out)

    run(of_run, len(runs), n_threads if Plan.of(X, 1).threaded else 1)
    return lengths


def _lengths_of_entries(X: Any, center: Float64, unit: Float64, out: Float64) -> None:
    """The same for CSR: what its entries change in the length of a row without any."""
    empty = center * unit
    change = ((X.data - center[X.indices]) * unit[X.indices]) ** 2
    running = np.append(0.0, np.cumsum(change - empty[X.indices] ** 2))
    np.maximum(np.diff(running[X.indptr]) + float(empty @ empty), 0, out=out)
