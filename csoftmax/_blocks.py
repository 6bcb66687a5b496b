"""What the workers of a Dask cluster do with training rows: functions without a state, of blocks and parts.

A *block* is one chunk of the data, checked. A *part* is a list of blocks that one task goes through.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _validation as gate
from ._columns import ColumnRanges
from ._curvature import Sample, StoredRows
from ._frames import feature_names
from ._mapped import check_file, n_entries
from ._passes import PLAIN, LossPass, n_bytes
from ._rows import LocalRows, Scaling, Search
from ._typing import Array, Codes, DType, Float64, Rows


class Part(list[LocalRows]):
    """Rows of several blocks, and workspaces for passes, of which there is one for each task at a time."""

    def __init__(self, blocks: Iterable[LocalRows]) -> None:
        super().__init__(blocks)
        self._idle: list[list[LossPass]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return Part, (list(self),)

    @contextmanager
    def passes(self) -> Iterator[list[LossPass]]:
        """A pass for every block; they share their memory and the coefficients of the first."""
        try:
            passes = self._idle.pop()
        except IndexError:
            passes = [self[0].passes()]
            passes += [rows.passes(passes[0]) for rows in self[1:]]
        yield passes
        self._idle.append(passes)


class Summary(NamedTuple):
    """What a client needs to know of a block, and of each of its classes, which are sorted."""

    n_features: int
    n_entries: int
    n_bytes: int
    dtype: DType
    sparse: bool
    names: Array | None
    classes: Array
    counts: npt.NDArray[np.intp]  # rows of each class
    totals: Float64  # their weight
    lightest: Float64  # the least weight of one


class Block(NamedTuple):
    """A chunk of the data that went through the gate: rows of positive weight; labels as numbers of its classes."""

    X: Rows
    codes: Codes
    weight: Float64
    summary: Summary

    def __sizeof__(self) -> int:
        return n_bytes(self.X) + self.codes.nbytes + self.weight.nbytes


@contextmanager
def errors_name(number: int) -> Iterator[None]:
    """Have errors name the block."""
    kinds = TypeError, ValueError, MemoryError, OSError
    try:
        yield
    except kinds as error:
        kind = next(kind for kind in kinds if isinstance(error, kind))  # their subclasses may take other arguments
        raise kind(f"block {number}: {error}") from None


def read_block(number: int, X: Any, y: Any, sample_weight: Any) -> Block:
    """Check a chunk."""
    with errors_name(number):
        names = feature_names(X)
        table = gate.as_table(X, "X", minimum_rows=0)
        labels = gate.as_labels(y, table.shape[0])
        weight = gate.as_weights(sample_weight, table.shape[0])
        matrix = gate.as_csr(table, "X") if gate.is_sparse(table) else gate.as_floats(table, "X")
        check_file(matrix, 0, table.shape[0])
        gate.check_finite(matrix, "X")
        keep = weight > 0
        if not keep.all():
            matrix, labels, weight = matrix[keep], labels[keep], weight[keep]
        classes, codes = gate.distinct(labels)
    counts, totals = np.bincount(codes, minlength=len(classes)), np.bincount(codes, weight, len(classes)).astype(float)
    lightest = np.full(len(classes), np.inf)
    np.minimum.at(lightest, codes, weight)
    kind = n_entries(matrix), n_bytes(matrix), matrix.dtype, not isinstance(matrix, np.ndarray)
    return Block(matrix, codes, weight, Summary(matrix.shape[1], *kind, names, classes, counts, totals, lightest))


def summaries(blocks: list[Block]) -> list[Summary]:
    """What a client needs to know of these blocks."""
    return [block.summary for block in blocks]


def make_part(
    blocks: list[Block], before: list[int], classes: Array, factors: Float64, total: float, n_threads: int | None
) -> Part:
    """Rows to learn from, and how many come before each block; labels that are not among the classes have no weight."""
    n_threads = n_threads or _worker_threads()
    part = Part([])
    for (X, codes, weight, summary), first in zip(blocks, before, strict=True):
        number = np.minimum(np.searchsorted(classes, summary.classes), len(classes) - 1)
        known = classes[number] == summary.classes
        if not known.all():
            keep = known[codes]
            X, codes, weight = X[keep], codes[keep], weight[keep]
        weight = weight * factors[number][codes]
        part.append(LocalRows(X, number.astype(np.int32)[codes], weight, len(classes), n_threads, total, first))
    return part


def _worker_threads() -> int:
    """Threads of this worker, or of this process if it is none."""
    try:
        from distributed import get_worker

        return int(get_worker().state.nthreads)
    except (ImportError, ValueError):
        return gate.threads(None)


def part_in_float64(part: Part) -> Part:
    """The same with copies."""
    return Part(rows.in_float64() for rows in part)


def _loss_gradient(part: Part, coef: Float64, intercept: Float64) -> tuple[Any, ...]:
    with part.passes() as passes:
        passes[0].take(coef, intercept)
        answers = []
        for one in passes:
            by_coef, by_intercept = np.empty_like(coef), np.empty_like(intercept)
            answers.append((one.loss_gradient(by_coef, by_intercept), by_coef, by_intercept))
    return _add(answers)


def _spread(part: Part, coef: Float64, intercept: Float64, center: Float64) -> tuple[Any, ...]:
    with part.passes() as passes:
        passes[0].take(coef, intercept)
        answers = []
        for one in passes:
            by_coef, by_intercept = np.empty_like(coef), np.empty_like(intercept)
            one.spread(center, by_coef, by_intercept, PLAIN)
            answers.append((by_coef, by_intercept))
    return _add(answers)


def _add(answers: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Sums of numbers and arrays; lists are joined."""
    return tuple(reduce(lambda one, other: one + other, each) for each in zip(*answers, strict=True))


# What may be asked of a part, or of the samples of one; how the answers of several are combined, if not by addition.
OF_PARTS: dict[str, Callable[..., tuple[Any, ...]]] = {"loss_gradient": _loss_gradient, "spread": _spread}
OF_BLOCKS: dict[str, Callable[..., tuple[Any, ...]]] = {
    "column_ranges": LocalRows.column_ranges,
    "column_spread": lambda rows, columns: (rows.column_spread(columns),),
    "lengths": lambda rows, search: ([rows.length(search)],),
    "margins": LocalRows.margins,
    "free_hessian": lambda sample, theta: (sample.free_hessian(theta),),
    "blocks": lambda sample, theta: (np.stack(list(sample.blocks(theta))),),
    "shared_gram": Sample.shared_gram,
    "squares": lambda sample, theta: (sample.squares(theta),),
    "hessian": lambda stored, theta, active: (stored.hessian(theta, active),),
}
COMBINE: dict[str, Callable[[list[tuple[Any, ...]]], tuple[Any, ...]]] = {
    "column_ranges": ColumnRanges.join,
    "margins": lambda answers: (min(least for least, _ in answers), sum(total for _, total in answers)),
}


def ask(part: Sequence[Any], what: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The answer of all blocks of a part."""
    if what in OF_PARTS:
        return OF_PARTS[what](part, *arguments)
    return combine(what, [OF_BLOCKS[what](rows, *arguments) for rows in part])


def combine(what: str, answers: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """One answer of several, added up in their order."""
    return COMBINE.get(what, _add)(answers)


def sample_part(part: Part, distance: float, starts: list[float], factor: float, search: Search) -> list[Sample]:
    """The chosen rows of every block, in standardised coordinates."""
    none, scaling = _no_penalty(search.scaling), search.scaling
    choices = [rows.choose(distance, start, factor, search) for rows, start in zip(part, starts, strict=True)]
    return [rows.sample_of(choice, scaling, none) for rows, choice in zip(part, choices, strict=True)]


def stored_part(part: Part, distance: float, starts: list[float], factor: float, search: Search) -> list[StoredRows]:
    """The chosen rows of every block as they are stored."""
    none, scaling = _no_penalty(search.scaling), search.scaling
    choices = [rows.choose(distance, start, factor, search) for rows, start in zip(part, starts, strict=True)]
    return [rows.stored_of(choice, scaling, none) for rows, choice in zip(part, choices, strict=True)]


def _no_penalty(scaling: Scaling) -> Float64:
    """Nor is there one on the workers: it is no sum over rows."""
    return np.zeros(len(scaling.center) + scaling.fit_intercept)
