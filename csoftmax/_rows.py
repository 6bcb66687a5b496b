"""The rows that a fit learns from, in this process: all that an objective asks of the data.

What is asked comes as sums over rows, or as choices that one number per row decides, so that rows that lie elsewhere
can answer as well, part by part.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from ._curvature import RowSums, Sample, StoredRows, StoredSums
from ._mapped import Mapped, is_dense, is_mapped, n_entries, readable
from ._passes import ColumnRanges, Columns, LossPass, Passes, column_ranges, column_spread, n_bytes, row_lengths
from ._typing import Codes, DType, Float64, Places, Rows
from ._validation import require_memory


class Scaling(NamedTuple):
    """What makes standardised coordinates: z = (x - center) unit, and a one after it if there is an intercept."""

    center: Float64
    unit: Float64
    fit_intercept: bool

    def equals(self, other: "Scaling") -> bool:
        """Whether the coordinates are the same."""
        return np.array_equal(self.center, other.center) and np.array_equal(self.unit, other.unit)


Choice = tuple[Places, Float64]  # numbers of rows in their order, and their weights


class TrainingRows(ABC):
    """What an objective asks of its data; `LocalRows` explains it."""

    n_rows: int
    n_features: int
    n_columns: int
    n_entries: int
    dtype: DType
    sparse: bool
    total: float
    class_shares: Float64
    least_weight: float
    keeps_scores = False  # `passes` can
    elsewhere = False  # X lies in a file, or on other machines: what a solver may use must not grow with it

    @abstractmethod
    def moments(self) -> tuple[Float64, Float64]: ...

    @abstractmethod
    def in_float64(self) -> "TrainingRows": ...

    @abstractmethod
    def passes(self) -> Passes: ...

    @abstractmethod
    def sample(self, n_rows: int, scaling: Scaling, penalty: Float64) -> RowSums: ...

    @abstractmethod
    def stored(self, n_rows: int, scaling: Scaling, penalty: Float64) -> StoredSums: ...

    @abstractmethod
    def margins(self, coef: Float64, intercept: Float64) -> tuple[float, float]: ...


class LocalRows(TrainingRows):
    """Rows of X with their labels and weights.

    Parameters
    ----------
    X : (n, d) array or CSR matrix, float32 or float64
    y : (n,) int32 array of labels in [0, K)
    sample_weight : (n,) float64 array, positive
    n_classes : int
        K; two classes make one column of coefficients, the difference w_1 - w_0.
    n_threads : int
    total : float, optional
        Sum of the weights of all rows, if there are more than these.
    """

    keeps_scores = True

    def __init__(
        self, X: Rows, y: Codes, sample_weight: Float64, n_classes: int, n_threads: int, total: float | None = None
    ) -> None:
        self.X, self.y, self.n_threads = X, y, n_threads
        self.total = float(sample_weight.sum()) if total is None else total
        self.weight = (sample_weight / self.total).astype(X.dtype)
        self.n_rows, self.n_features = X.shape
        self.n_columns = 1 if n_classes == 2 else n_classes
        self.n_entries, self.dtype, self.sparse, self.elsewhere = n_entries(X), X.dtype, not is_dense(X), is_mapped(X)
        self.class_shares: Float64 = np.bincount(y, weights=self.weight, minlength=n_classes).astype(float)
        self.least_weight = float(self.weight.min(initial=np.inf))
        self._measured: tuple[Scaling, Float64] | None = None

    def __sizeof__(self) -> int:
        """Of the data as well: Dask weighs with it whether to move them."""
        return n_bytes(self.X) + self.y.nbytes + self.weight.nbytes

    def in_float64(self) -> "LocalRows":
        """The same, with a copy of X, unless it lies in a file."""
        if not isinstance(self.X, Mapped):
            require_memory(
                8 * self.n_entries, f"a float64 copy of X, shape {self.X.shape}, whose columns lie far from zero,"
            )
        weight = self.weight.astype(np.float64)
        return LocalRows(
            self.X.astype(np.float64), self.y, weight * self.total, len(self.class_shares), self.n_threads, self.total
        )

    # ---- sums -----------------------------------------------------------------------------------------------------

    def moments(self) -> tuple[Float64, Float64]:
        """Weighted mean and standard deviation of each column."""
        columns = self.column_ranges().measure(self.n_rows)
        return columns.mean, columns.deviation(self.column_spread(columns))

    def column_ranges(self) -> ColumnRanges:
        """The first sweep that moments need."""
        return column_ranges(self.X, self.weight, self.n_threads)

    def column_spread(self, columns: Columns) -> Float64:
        """The second one."""
        return column_spread(self.X, self.weight, columns, self.n_threads)

    def passes(self, like: LossPass | None = None) -> LossPass:
        """What computes the loss and its gradient."""
        return LossPass(self.X, self.y, self.weight, self.n_columns, self.n_threads, like=like)

    def margins(self, coef: Float64, intercept: Float64) -> tuple[float, float]:
        """By how much the score of the own class of a row exceeds the best other: the least, below 0, and the sum."""
        least, total = 0.0, 0.0
        for start in range(0, self.n_rows, 4096):
            part = slice(start, start + 4096)
            scores = readable(self.X, part) @ coef.T + intercept
            if self.n_columns == 1:
                margin = np.where(self.y[part] == 1, scores[:, 0], -scores[:, 0])
            else:
                at = np.arange(len(scores)), self.y[part]
                own = scores[at]
                scores[at] = -np.inf
                margin = own - scores.max(axis=1)
            least, total = min(least, float(margin.min())), total + float(margin.sum())
        return least, total

    # ---- choices of rows ------------------------------------------------------------------------------------------

    def sample(self, n_rows: int, scaling: Scaling, penalty: Float64) -> Sample:
        """About n_rows rows in standardised coordinates, chosen by length: all of them if there are no more.

        Row i has a share w_i ||z_i||^2 of the total length. Points at equal distances along the running total choose
        it as often as they fall into that share, and its weight makes up for it. So rare features, which make long
        rows, are seen, and a row of weight 2 counts as the row twice. (Drineas, Kannan and Mahoney 2006,
        doi:10.1137/S0097539704442684, draw such rows at random.)
        """
        return self.sample_of(self._choose(n_rows, scaling), scaling, penalty)

    def sample_of(self, choice: Choice, scaling: Scaling, penalty: Float64) -> Sample:
        """The rows of a choice in standardised coordinates."""
        d, (chosen, weight) = self.n_features, choice
        rows = np.ones((len(chosen), d + scaling.fit_intercept))
        for start in range(0, len(chosen), 1024):
            part = slice(start, start + 1024)
            some = readable(self.X, chosen[part])
            dense = some if isinstance(some, np.ndarray) else some.toarray()
            rows[part, :d] = (dense - scaling.center) * scaling.unit
        return Sample(rows, weight, penalty, self.n_threads)

    def stored(self, n_rows: int, scaling: Scaling, penalty: Float64) -> StoredRows:
        """The same rows as they are stored; all of them without a copy."""
        return self.stored_of(self._choose(n_rows, scaling), scaling, penalty)

    def stored_of(self, choice: Choice, scaling: Scaling, penalty: Float64) -> StoredRows:
        """The rows of a choice as they are stored."""
        chosen, weight = choice
        X = self.X if len(chosen) == self.n_rows else readable(self.X, chosen)
        return StoredRows(X, weight, scaling.center, scaling.unit, penalty, scaling.fit_intercept, self.n_threads)

    def length(self, scaling: Scaling) -> float:
        """Total length of these rows, their share of the points; `choose`, which comes next, need not measure again."""
        self._measured = scaling, self._lengths(scaling)
        return float(self._running(self._measured[1])[-1]) if self.n_rows else 0.0

    def choose(self, distance: float, start: float, scaling: Scaling) -> Choice:
        """The rows at points of this distance, where rows elsewhere before these have a length of `start`; 0 is all."""
        if distance == 0:
            return np.arange(self.n_rows), self.weight.astype(np.float64)
        if self._measured is not None and self._measured[0].equals(scaling):
            lengths = self._measured[1]
        else:
            lengths = self._lengths(scaling)
        running = self._running(lengths)
        running += start
        return _hit(running, lengths, distance, start)

    def _choose(self, n_rows: int, scaling: Scaling) -> Choice:
        if n_rows >= self.n_rows:
            return self.choose(0, 0, scaling)
        lengths = self._lengths(scaling)
        running = self._running(lengths)
        return _hit(running, lengths, float(running[-1]) / n_rows, 0.0)

    def _running(self, lengths: Float64) -> Float64:
        running: Float64 = lengths * self.weight
        np.cumsum(running, out=running)
        return running

    def _lengths(self, scaling: Scaling) -> Float64:
        """Squared length of each row in standardised coordinates, with that of an intercept."""
        center, unit, _ = scaling
        if is_dense(self.X):
            lengths = row_lengths(self.X, center, unit, self.n_threads)
            lengths += 1
            return lengths
        length = np.empty(self.n_rows)
        # Of the entries, against that of a row without any.
        empty = center * unit
        for start in range(0, self.n_rows, 4096):
            part = readable(self.X, slice(start, start + 4096))
            change = ((part.data - center[part.indices]) * unit[part.indices]) ** 2
            running = np.append(0.0, np.cumsum(change - empty[part.indices] ** 2))
            length[start : start + 4096] = np.diff(running[part.indptr])
        return np.maximum(length + float(empty @ empty), 0.0) + 1


def _hit(running: Float64, lengths: Float64, distance: float, start: float) -> Choice:
    """The rows that points hit, each as much heavier as it is short."""
    before, parts = math.floor(start / distance + 0.5), []
    for first in range(0, len(running), 4096):  # as other arrays of all rows would be larger than the sample
        marks = np.floor(running[first : first + 4096] / distance + 0.5)
        hits = np.diff(marks, prepend=before)
        before, some = marks[-1], np.flatnonzero(hits)
        parts.append((some + first, hits[some]))
    chosen, times = (np.concatenate(column) for column in zip(*parts, strict=True))
    return chosen, times * distance / lengths[chosen]
