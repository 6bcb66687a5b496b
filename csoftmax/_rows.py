"""The rows that a fit learns from, in this process: all that an objective asks of the data.

What is asked comes as sums over rows, or as choices that one number per row decides, so that rows that lie elsewhere
can answer as well, part by part.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from ._columns import ColumnRanges, Columns, column_ranges, column_spread, row_lengths
from ._curvature import RowSums, Sample, StoredRows, StoredSums, class_coefficients, uncertainty
from ._mapped import Mapped, is_dense, is_mapped, n_entries, readable
from ._passes import LossPass, Passes, n_bytes, scores
from ._threads import THREADED_WORK, run
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

# Rows side by side that are looked at, at least so many for each that is chosen, and so many in all.
RUN, SPARE, LOOKED = 256, 4, 2**17
GATHERED = 2**15  # values that are standardised at once: more would not stay in the cache
SCORED = 2**18  # values that are scored at once


class Search(NamedTuple):
    """Where rows are looked for, and how they are chosen: in one of so many runs, by length in these coordinates, or by
    curvature at these coefficients (K, D), with so much added to the uncertainty of each."""

    scaling: Scaling
    every: int
    theta: Float64 | None = None
    floor: float = 0.0

    @classmethod
    def of(cls, n_rows: int, wanted: int, scaling: Scaling) -> "Search":
        """A search for so many of n_rows."""
        return cls(scaling, max(1, n_rows // max(SPARE * wanted, LOOKED)))

    def runs(self, n_rows: int, before: int) -> list[slice]:
        """The runs among n_rows rows that come after some others."""
        if self.every == 1:
            return [slice(start, min(start + 4096, n_rows)) for start in range(0, n_rows, 4096)]
        period = self.every * RUN
        starts = range(-(before % period), n_rows, period)
        return [slice(max(start, 0), min(start + RUN, n_rows)) for start in starts if start + RUN > 0]

    def equals(self, other: "Search") -> bool:
        """Whether the same rows are looked at in the same way."""
        same = self.every == other.every and self.floor == other.floor and self.scaling.equals(other.scaling)
        one, two = self.theta, other.theta
        return same and (one is two or (one is not None and two is not None and np.array_equal(one, two)))


class TrainingRows(ABC):
    """What an objective asks of its data; `LocalRows` explains it."""

    n_rows: int
    n_features: int
    n_columns: int
    n_entries: int
    dtype: DType
    sparse: bool
    total: float
    weight_sum: float  # 1, but for rounding
    class_shares: Float64
    least_weight: float
    keeps_scores = False  # `passes` can
    elsewhere = False  # X lies in a file, or on other machines: what a solver may use must not grow with it

    @abstractmethod
    def moments(self) -> tuple[Float64, Float64, Float64]: ...

    @abstractmethod
    def in_float64(self) -> "TrainingRows": ...

    @abstractmethod
    def passes(self) -> Passes: ...

    @abstractmethod
    def sample(self, n_rows: int, search: Search, penalty: Float64) -> RowSums: ...

    @abstractmethod
    def sample_here(self, n_rows: int, search: Search, penalty: Float64) -> Sample: ...

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
    before : int
        How many of them come before these.
    """

    keeps_scores = True

    def __init__(
        self,
        X: Rows,
        y: Codes,
        sample_weight: Float64,
        n_classes: int,
        n_threads: int,
        total: float | None = None,
        before: int = 0,
    ) -> None:
        self.X, self.y, self.n_threads, self.before = X, y, n_threads, before
        self.total = float(sample_weight.sum()) if total is None else total
        self.weight = (sample_weight / self.total).astype(X.dtype)
        self.weight_sum = float(self.weight.sum(dtype=np.float64))
        self.n_rows, self.n_features = X.shape
        self.n_columns = 1 if n_classes == 2 else n_classes
        self.n_entries, self.dtype, self.sparse, self.elsewhere = n_entries(X), X.dtype, not is_dense(X), is_mapped(X)
        self.class_shares: Float64 = np.bincount(y, weights=self.weight, minlength=n_classes).astype(float)
        self.least_weight = float(self.weight.min(initial=np.inf))
        self._measured: tuple[Search, Places, Float64] | None = None

    def __sizeof__(self) -> int:
        """Of the data as well: Dask weighs with it whether to move them."""
        return n_bytes(self.X) + self.y.nbytes + self.weight.nbytes

    def in_float64(self) -> "LocalRows":
        """The same, with a copy of X, unless it lies in a file."""
        if not isinstance(self.X, Mapped):
            require_memory(
                8 * self.n_entries, f"a float64 copy of X, shape {self.X.shape}, whose columns lie far from zero,"
            )
        weight = self.weight.astype(np.float64) * self.total
        rest = len(self.class_shares), self.n_threads, self.total, self.before
        return LocalRows(self.X.astype(np.float64), self.y, weight, *rest)

    # ---- sums -----------------------------------------------------------------------------------------------------

    def moments(self) -> tuple[Float64, Float64, Float64]:
        """Weighted mean and standard deviation of each column, and its weighted sums by class, (K, d), or (0, d)."""
        ranges = self.column_ranges()
        return *ranges.moments(self.n_rows, self.column_spread), ranges.by_class

    def column_ranges(self) -> ColumnRanges:
        """What moments are made of."""
        return column_ranges(self.X, self.weight, self.y, len(self.class_shares), self.n_threads)

    def column_spread(self, columns: Columns) -> Float64:
        """A second sweep for them, where one is not enough."""
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

    def sample(self, n_rows: int, search: Search, penalty: Float64) -> Sample:
        """About n_rows rows in standardised coordinates, chosen by length: all of them if there are no more.

        Row i has a share w_i ||z_i||^2 of the total length. Points at equal distances along the running total choose
        it as often as they fall into that share, and its weight makes up for it. So rare features, which make long
        rows, are seen, and a row of weight 2 counts as the row twice. (Drineas, Kannan and Mahoney 2006,
        doi:10.1137/S0097539704442684, draw such rows at random.) Where few of very many rows are wanted, only some runs
        of rows are looked at, by their numbers: to read all would take as long as a pass.

        By curvature the share of a row is w_i (u_i + floor) ||z_i||^2, with the uncertainty u = 1 - ||p||^2. With the
        mean of u as the floor, by length, half of the rows are chosen for their curvature, and none weighs more than
        about twice what it would otherwise (a defensive mixture: Hesterberg 1995, doi:10.1080/00401706.1995.10484303).
        """
        return self.sample_of(self._choose(n_rows, search), search.scaling, penalty)

    def sample_here(self, n_rows: int, search: Search, penalty: Float64) -> Sample:
        """The same: all rows are here."""
        return self.sample(n_rows, search, penalty)

    def sample_of(self, choice: Choice, scaling: Scaling, penalty: Float64) -> Sample:
        """The rows of a choice in standardised coordinates."""
        d, (chosen, weight) = self.n_features, choice
        rows, lengths = np.empty((len(chosen), d + scaling.fit_intercept), self.dtype), np.empty(len(chosen))
        step = max(1, GATHERED // max(d, 1))

        def standardise(item: int, worker: int) -> None:
            part = slice(item * step, (item + 1) * step)
            some = readable(self.X, chosen[part])
            deviation = (some if isinstance(some, np.ndarray) else some.toarray()) - scaling.center
            np.multiply(deviation, scaling.unit, out=rows[part, :d], casting="same_kind")
            rows[part, d:] = 1
            np.einsum("ij,ij->i", rows[part], rows[part], out=lengths[part], dtype=np.float64, casting="same_kind")

        run(standardise, -(-len(chosen) // step), self.n_threads if rows.size >= THREADED_WORK else 1)
        return Sample(rows, weight, penalty, self.n_threads, lengths * weight)

    def stored(self, n_rows: int, scaling: Scaling, penalty: Float64) -> StoredRows:
        """Rows chosen so, but among all, as they are stored; all of them without a copy."""
        return self.stored_of(self._choose(n_rows, Search(scaling, 1)), scaling, penalty)

    def stored_of(self, choice: Choice, scaling: Scaling, penalty: Float64) -> StoredRows:
        """The rows of a choice as they are stored."""
        chosen, weight = choice
        X = self.X if len(chosen) == self.n_rows else readable(self.X, chosen)
        return StoredRows(X, weight, scaling.center, scaling.unit, penalty, scaling.fit_intercept, self.n_threads)

    def length(self, search: Search) -> tuple[float, float]:
        """Total length, the share of the points, and weight of the rows that are looked at."""
        places, lengths = self._measure(search)
        weight = self.weight[places]
        return float((lengths * weight).sum()), float(weight.sum(dtype=np.float64))

    def choose(self, distance: float, start: float, factor: float, search: Search) -> Choice:
        """The rows at points of this distance, where rows elsewhere before these have a length of `start`; 0 is all.

        Their weights are multiplied by a factor.
        """
        if distance == 0:
            return np.arange(self.n_rows), self.weight.astype(np.float64)
        places, lengths = self._measure(search)
        running = lengths * self.weight[places]
        np.cumsum(running, out=running)
        running += start
        hit, weight = _hit(running, lengths, distance, start)
        return places[hit], weight * factor

    def _choose(self, n_rows: int, search: Search) -> Choice:
        if n_rows >= self.n_rows:
            return self.choose(0, 0, 1, search)
        length, weight = self.length(search)
        choice = self.choose(length / n_rows, 0, 1 / weight, search)
        if search.every == 1:  # of all rows the lengths would take memory as long as the fit
            self._measured = None
        return choice

    def _measure(self, search: Search) -> tuple[Places, Float64]:
        """`_look`, once for several choices."""
        measured = self._measured
        if measured is None or not measured[0].equals(search):
            self._measured = measured = search, *self._look(search)
        return measured[1:]

    def _look(self, search: Search) -> tuple[Places, Float64]:
        """Rows, and their squared lengths in standardised coordinates, with that of an intercept; or curvatures."""
        runs = search.runs(self.n_rows, self.before)
        lengths = row_lengths(self.X, search.scaling.center, search.scaling.unit, runs, self.n_threads)
        lengths += 1
        places = np.concatenate([np.zeros(0, np.intp), *(np.arange(rows.start, rows.stop) for rows in runs)])
        if search.theta is not None:
            lengths *= np.maximum(self._uncertainty(places, search.scaling, search.theta), 0) + search.floor
        return places, lengths

    def _uncertainty(self, places: Places, scaling: Scaling, theta: Float64) -> Float64:
        """1 - ||p||^2 of each of these rows."""
        coef, intercept = class_coefficients(theta, *scaling)
        found, step = np.empty(len(places)), max(1, SCORED // max(self.n_features, 1))

        def of_rows(item: int, worker: int) -> None:
            part = slice(item * step, (item + 1) * step)
            found[part] = uncertainty(scores(readable(self.X, places[part]), coef, intercept, 1, "softmax"))

        run(of_rows, -(-len(places) // step), self.n_threads)
        return found


def _hit(running: Float64, lengths: Float64, distance: float, start: float) -> Choice:
    """The rows that points hit, each as much heavier as it is short."""
    before, parts = math.floor(start / distance + 0.5), [(np.zeros(0, np.intp), np.zeros(0))]
    for first in range(0, len(running), 4096):  # as other arrays of all rows would be larger than the sample
        marks = np.floor(running[first : first + 4096] / distance + 0.5)
        hits = np.diff(marks, prepend=before)
        before, some = marks[-1], np.flatnonzero(hits)
        parts.append((some + first, hits[some]))
    chosen, times = (np.concatenate(column) for column in zip(*parts, strict=True))
    return chosen, times * distance / lengths[chosen]
