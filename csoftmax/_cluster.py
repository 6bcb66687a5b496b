"""Training rows that lie in blocks on the workers of a Dask cluster, or in its threads.

A *block* is one chunk of the data, checked. A *part* is a list of blocks that one task goes through: all that one
worker holds, if the data stay in memory, so that a pass costs one task, one set of coefficients and one gradient per
worker; one block, if the data are read anew for every pass. What is asked of all rows is asked of every part, and the
answers are added up in a tree whose shape depends on the parts alone. Tasks are functions without a state, so Dask may
repeat any of them wherever it likes: what a lost worker held is made again.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import reduce
from itertools import repeat
from typing import Any, NamedTuple
from uuid import uuid4

import dask
import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed, delayed

from . import _validation as gate
from ._curvature import Sample, StoredRows
from ._frames import feature_names
from ._mapped import check_file, n_entries
from ._passes import PLAIN, ColumnRanges, LossPass, Standard, n_bytes
from ._rows import LocalRows, Scaling, TrainingRows
from ._typing import Array, Codes, DType, Float64, Rows

FAN_IN = 4  # answers that one task, or the client, adds up
# Bytes that a client sends with each task; of more, one copy goes to the cluster, and from worker to worker.
INLINE = 2**20
SHARE = 0.5  # of the cluster's memory that checked data may take, to be kept there


# ---- on the workers -------------------------------------------------------------------------------------------------


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


def make_part(blocks: list[Block], classes: Array, factors: Float64, total: float, n_threads: int | None) -> Part:
    """Rows to learn from; labels that are not among the classes have no weight."""
    n_threads = n_threads or _worker_threads()
    part = Part([])
    for X, codes, weight, summary in blocks:
        number = np.minimum(np.searchsorted(classes, summary.classes), len(classes) - 1)
        known = classes[number] == summary.classes
        if not known.all():
            keep = known[codes]
            X, codes, weight = X[keep], codes[keep], weight[keep]
        weight = weight * factors[number][codes]
        part.append(LocalRows(X, number.astype(np.int32)[codes], weight, len(classes), n_threads, total))
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
    "lengths": lambda rows, scaling: ([rows.length(scaling)],),
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


def sample_part(part: Part, distance: float, starts: list[float], scaling: Scaling) -> list[Sample]:
    """The chosen rows of every block, in standardised coordinates."""
    choices = [rows.choose(distance, start, scaling) for rows, start in zip(part, starts, strict=True)]
    return [rows.sample_of(choice, scaling, _no_penalty(scaling)) for rows, choice in zip(part, choices, strict=True)]


def stored_part(part: Part, distance: float, starts: list[float], scaling: Scaling) -> list[StoredRows]:
    """The chosen rows of every block as they are stored."""
    choices = [rows.choose(distance, start, scaling) for rows, start in zip(part, starts, strict=True)]
    return [rows.stored_of(choice, scaling, _no_penalty(scaling)) for rows, choice in zip(part, choices, strict=True)]


def _no_penalty(scaling: Scaling) -> Float64:
    """Nor is there one on the workers: it is no sum over rows."""
    return np.zeros(len(scaling.center) + scaling.fit_intercept)


# ---- on the client --------------------------------------------------------------------------------------------------


def task(function: Callable[..., Any], *arguments: Any) -> Delayed:
    """A call that Dask will make; it has a name of its own, so that nothing is taken for what it is not."""
    (made,) = tasks(function, [arguments])
    return made


def tasks(
    function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], where: Iterable[Sequence[str]] = repeat(())
) -> list[Delayed]:
    """Calls that belong together, and the workers that had better make them.

    They have a group of their own: of a group with more tasks than threads, and few inputs, Dask takes it that the
    inputs may as well be moved.
    """
    call, name = delayed(function, pure=False), f"csoftmax_{function.__name__}-{uuid4().hex}"
    made = []
    for number, (arguments, workers) in enumerate(zip(calls, where, strict=False)):
        with dask.annotate(**{"workers": list(workers), "allow_other_workers": True} if workers else {}):
            made.append(call(*arguments, dask_key_name=(name, number)))
    return made


def constant(value: Any) -> Delayed:
    """A value that goes to the cluster once, and from worker to worker."""
    return delayed(value, name=f"csoftmax_value-{uuid4().hex}", traverse=False)


def current_client() -> Any:
    """The distributed client that Dask would use, or None."""
    try:
        from distributed import Client, default_client
    except ImportError:
        return None
    scheduler = dask.config.get("scheduler", None)
    if isinstance(scheduler, Client):
        return scheduler
    if scheduler not in (None, "distributed", "dask.distributed"):
        return None
    try:
        return default_client()
    except ValueError:
        return None


def fits(n_bytes: float) -> bool:
    """Whether so much may be kept in memory, which nobody knows of NaN."""
    client = current_client()
    if client is None:
        return n_bytes <= SHARE * gate.present_memory()
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return bool(n_bytes <= SHARE * sum(worker["memory_limit"] or np.inf for worker in workers))


_held: ContextVar[list[Delayed]] = ContextVar("_held")


@contextmanager
def holding() -> Iterator[None]:
    """What is persisted meanwhile is released in the end, whoever still refers to it."""
    token = _held.set([])
    try:
        yield
    finally:
        with suppress(ImportError):
            from distributed import futures_of

            for future in futures_of(_held.get()):
                future.release()
        _held.reset(token)


def persist(made: list[Delayed]) -> list[Delayed]:
    """Have these computed, and kept until `holding` ends."""
    with _quietly():
        kept = list(dask.persist(*made, optimize_graph=False))
    _held.get().extend(kept)
    return kept


def compute(made: list[Delayed]) -> list[Any]:
    """Their values."""
    with _quietly():
        return list(dask.compute(*made, optimize_graph=False))


def _quietly() -> Any:
    """Without Dask's warning of large graphs: what is large in ours is the coefficients, which have to get there."""
    return dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TiB"})


class Parts:
    """Lists that lie on the cluster, and may be asked."""

    def __init__(self, parts: list[Delayed]) -> None:
        self.parts = parts
        self._asked: Any = None

    def kept(self) -> "Parts":
        """The same in memory, if it is not there."""
        return Parts(persist(self.parts))

    def ask(self, what: str, *arguments: Any) -> tuple[Any, ...]:
        """The answer of all rows."""
        given = arguments if _size(arguments) * len(self.parts) <= INLINE else constant(arguments)
        nodes = tasks(ask, [(part, what, given) for part in self.parts])
        while len(nodes) > FAN_IN:
            nodes = tasks(combine, [(what, nodes[i : i + FAN_IN]) for i in range(0, len(nodes), FAN_IN)])
        client = current_client()
        if client is None:
            return combine(what, compute(nodes))
        # A client's messages are 10 ms apart: that old answers may go is told together with the next question.
        with _quietly():
            self._asked = client.compute(nodes, optimize_graph=False)
        return combine(what, client.gather(self._asked))

    def each(self, function: Callable[..., Any], *arguments: list[Any]) -> "Parts":
        """What a function makes of each part, with its own argument of every list."""
        return Parts(tasks(function, zip(self.parts, *arguments, strict=True)))


def _size(value: Any) -> int:
    """Bytes of the arrays in tuples of tuples."""
    return sum(map(_size, value)) if isinstance(value, tuple) else getattr(value, "nbytes", 0)


class ClusterRows(TrainingRows):
    """All rows of these parts.

    Parameters
    ----------
    parts : Parts
        Lists of `LocalRows`.
    numbers : list of lists of int
        Where the blocks of each part stand among all.
    summary : Summary
        Of all rows, as the parts have them.
    total : float
        Sum of all weights.
    keep : bool
        Whether the parts are in memory.
    """

    elsewhere = True

    def __init__(self, parts: Parts, numbers: list[list[int]], summary: Summary, total: float, keep: bool) -> None:
        self._parts, self._numbers, self._summary, self._keep = parts.kept() if keep else parts, numbers, summary, keep
        self.n_rows, self.n_entries = int(summary.counts.sum()), summary.n_entries
        self.n_features, self.dtype, self.sparse = summary.n_features, summary.dtype, summary.sparse
        self.n_columns, self.total = 1 if len(summary.classes) == 2 else len(summary.classes), total
        self.class_shares, self.least_weight = summary.totals / total, float(summary.lightest.min() / total)
        self._lengths: Float64 | None = None

    def in_float64(self) -> "ClusterRows":
        summary = self._summary._replace(dtype=np.dtype(np.float64))
        keep = self._keep and fits(3 * self._summary.n_bytes)  # both are kept
        return ClusterRows(self._parts.each(part_in_float64), self._numbers, summary, self.total, keep)

    def moments(self) -> tuple[Float64, Float64]:
        columns = ColumnRanges(*self._parts.ask("column_ranges")).measure(self.n_rows)
        (squares,) = self._parts.ask("column_spread", columns)
        return columns.mean, columns.deviation(squares)

    def passes(self) -> "ClusterPass":
        return ClusterPass(self._parts, self.n_columns, self.n_features)

    def margins(self, coef: Float64, intercept: Float64) -> tuple[float, float]:
        least, total = self._parts.ask("margins", coef, intercept)
        return least, total

    def sample(self, n_rows: int, scaling: Scaling, penalty: Float64) -> "ClusterSample":
        return ClusterSample(self._chosen(sample_part, n_rows, scaling), penalty)

    def stored(self, n_rows: int, scaling: Scaling, penalty: Float64) -> "ClusterStored":
        return ClusterStored(self._chosen(stored_part, n_rows, scaling), penalty)

    def _chosen(self, function: Callable[..., Any], n_rows: int, scaling: Scaling) -> Parts:
        """The rows that `LocalRows.sample` would choose of all, kept where they are."""
        n_parts, distance, starts = len(self._numbers), 0.0, np.zeros(1 + max(map(max, self._numbers)))
        if n_rows < self.n_rows:
            if self._lengths is None:
                self._lengths = np.zeros_like(starts)
                self._lengths[np.concatenate(self._numbers)] = self._parts.ask("lengths", scaling)[0]
            running = np.cumsum(self._lengths)
            distance, starts = running[-1] / n_rows, running - self._lengths
        of_part = [starts[numbers].tolist() for numbers in self._numbers]
        return self._parts.each(function, [distance] * n_parts, of_part, [constant(scaling)] * n_parts).kept()


class ClusterPass:
    """`LossPass` on a cluster."""

    keeps_scores = False

    def __init__(self, parts: Parts, n_columns: int, n_features: int) -> None:
        self._parts = parts
        self._coef, self._intercept = np.zeros((n_columns, n_features)), np.zeros(n_columns)
        self.workspace_bytes = 2 * (self._coef.nbytes + self._intercept.nbytes)

    def take(self, coef: Array, intercept: Array, unit: Float64 | None = None) -> None:
        coef = coef[:, : self._coef.shape[1]]
        self._coef, self._intercept = coef.copy() if unit is None else coef * unit, intercept.copy()

    def loss_gradient(self, by_coef: Float64, by_intercept: Float64, standard: Standard = PLAIN) -> float:
        loss, sums, intercepts = self._parts.ask("loss_gradient", self._coef, self._intercept)
        _standardise(sums, intercepts, by_coef, by_intercept, standard)
        return float(loss)

    def spread(self, center: Float64, by_coef: Float64, by_intercept: Float64, standard: Standard) -> None:
        sums, intercepts = self._parts.ask("spread", self._coef, self._intercept, center)
        _standardise(sums, intercepts, by_coef, by_intercept, standard)


def _standardise(
    sums: Float64, intercepts: Float64, by_coef: Float64, by_intercept: Float64, standard: Standard
) -> None:
    """What `_kernels.unpack` does."""
    theta, unit, center, alpha = standard
    if theta is not None and unit is not None and center is not None:
        sums = (sums + alpha * unit * theta[:, : len(unit)] - intercepts[:, None] * center) * unit
    by_coef[:, : sums.shape[1]] = sums
    by_coef[:, sums.shape[1] :] = intercepts[:, None]
    by_intercept[:] = intercepts


class ClusterSample:
    """`Sample` on a cluster."""

    def __init__(self, parts: Parts, penalty: Float64) -> None:
        self._parts, self.penalty = parts, penalty

    def free_hessian(self, theta: Float64) -> Float64:
        return np.asarray(self._parts.ask("free_hessian", theta)[0])

    def blocks(self, theta: Float64) -> Iterable[Float64]:
        return np.asarray(self._parts.ask("blocks", theta)[0])

    def shared_gram(self, theta: Float64) -> tuple[Float64, Float64]:
        matrix, sizes = self._parts.ask("shared_gram", theta)
        return matrix, sizes

    def squares(self, theta: Float64) -> Float64:
        return np.asarray(self._parts.ask("squares", theta)[0])


class ClusterStored:
    """`StoredRows` on a cluster."""

    def __init__(self, parts: Parts, penalty: Float64) -> None:
        self._parts, self._penalty = parts, penalty

    def squares(self, theta: Float64) -> Float64:
        return np.asarray(self._parts.ask("squares", theta)[0])

    def hessian(self, theta: Float64, active: npt.NDArray[np.intp]) -> Float64:
        (out,) = self._parts.ask("hessian", theta, active)
        np.einsum("aa->a", out)[:] += self._penalty[active % theta.shape[1]]
        return np.asarray(out)
