"""Training rows that lie in blocks on the workers of a Dask cluster, or in its threads, as an objective asks them.

If the data stay in memory, a part is all that one worker holds, so that a pass costs one task, one set of coefficients
and one gradient per worker; if they are read anew for every pass, it is one block. What is asked of all rows is asked
of every part, and the answers are added up in a tree whose shape depends on the parts alone. Tasks have no state, so
Dask may repeat any of them wherever it likes: what a lost worker held is made again.

The scheduler takes about ten milliseconds for a question that is tasks, most of them waiting. So parts that are kept
are asked through Dask's actors, which answer in two, until a worker is lost or takes seconds: then tasks take over.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import repeat
from typing import Any, NamedTuple
from uuid import uuid4

import dask
import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed, delayed

from . import _validation as gate
from ._blocks import Summary, ask, combine, part_in_float64, sample_part, stored_part, summaries
from ._columns import ColumnRanges, Columns
from ._curvature import Sample
from ._passes import PLAIN, Standard
from ._rows import Scaling, Search, TrainingRows
from ._typing import Array, Float64

FAN_IN = 4  # answers that one task, or the client, adds up
# Bytes that a client sends with each task; of more, one copy goes to the cluster, and from worker to worker.
INLINE = 2**20
# Bytes to and from actors, which the client adds up alone; more of them go through tasks, which share that.
DIRECT = 2**23
PATIENCE = (
    5.0  # seconds for an actor's answer: the scheduler takes a longer silence for idleness, and tasks cost no more
)
SHARE = 0.5  # of the cluster's memory that checked data may take, to be kept there

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


_held: ContextVar[list[Any]] = ContextVar("_held")


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
    client = current_client()
    with _quietly():
        if client is None:
            kept = list(dask.persist(*made, optimize_graph=False))
        else:  # dask.persist may not find it where it is not the default one
            kept = list(client.persist(made, optimize_graph=False))
    _held.get().extend(kept)
    return kept


def compute(made: list[Delayed]) -> list[Any]:
    """Their values."""
    with _quietly():
        return list(dask.compute(*made, optimize_graph=False))


def _quietly() -> Any:
    """Without Dask's warning of large graphs: what is large in ours is the coefficients, which have to get there."""
    return dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TiB"})


class Respondent:
    """The actor of a part."""

    def __init__(self, part: Sequence[Any]) -> None:
        self._part = part

    def ask(self, what: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """The answer of all its blocks."""
        return ask(self._part, what, arguments)


class Parts:
    """Lists that lie on the cluster, and may be asked; and the workers that have them, where that is known."""

    def __init__(self, parts: list[Delayed], homes: Sequence[Sequence[str]] = ()) -> None:
        self.parts, self._homes = parts, homes or [()] * len(parts)
        self._asked: Any = None
        self._actors: list[Any] = []

    def kept(self) -> "Parts":
        """The same in memory, if it is not there."""
        return Parts(persist(self.parts), self._homes)

    def with_actors(self) -> "Parts":
        """The same, in memory, with an actor beside each on a cluster."""
        kept, client = self.kept(), current_client()
        if client is not None:
            from distributed import futures_of

            where = {"actor": True, "pure": False, "allow_other_workers": True}
            pairs = zip(kept.parts, kept._homes, strict=True)
            made = [client.submit(Respondent, *futures_of(part), workers=home, **where) for part, home in pairs]
            _held.get().extend(made)
            with suppress(Exception):  # a worker that is lost already
                kept._actors = client.gather(made)
                _held.get().extend(actor._future for actor in kept._actors)
        return kept

    def ask(self, what: str, *arguments: Any) -> tuple[Any, ...]:
        """The answer of all rows."""
        if self._actors and _size(arguments) * len(self.parts) <= DIRECT:
            try:
                return self._ask_actors(what, arguments)
            except Exception:  # whatever it is, tasks can be repeated, and say what is wrong if they cannot
                self._actors = []
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

    def _ask_actors(self, what: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        asked = [actor.ask(what, arguments) for actor in self._actors]
        answers = [future.result(timeout=PATIENCE) for future in asked]
        while len(answers) > FAN_IN:
            answers = [combine(what, answers[i : i + FAN_IN]) for i in range(0, len(answers), FAN_IN)]
        return combine(what, answers)

    def each(self, function: Callable[..., Any], *arguments: list[Any]) -> "Parts":
        """What a function makes of each part, with its own argument of every list."""
        return Parts(tasks(function, zip(self.parts, *arguments, strict=True)), self._homes)


class Group(NamedTuple):
    """Blocks that one task goes through, by number, and the workers that have them."""

    members: list[int]
    workers: list[str]


def read(blocks: list[Delayed], keep: bool) -> tuple[list[Delayed], list[Group], list[Summary]]:
    """The blocks, kept or not, those of each part, and what is to be known of each block."""
    if keep:
        blocks = persist(blocks)
    groups = _groups(blocks, keep)
    questions = tasks(summaries, (([blocks[i] for i in group.members],) for group in groups))
    found = dict(
        pair
        for group, answer in zip(groups, compute(questions), strict=True)
        for pair in zip(group.members, answer, strict=True)
    )
    return blocks, groups, [found[i] for i in range(len(blocks))]


def _groups(blocks: list[Delayed], keep: bool) -> list[Group]:
    """The blocks of each part: one, if they are not kept; else what a worker has, and its share of what others have."""
    client = current_client()
    if not keep:
        return [Group([number], []) for number in range(len(blocks))]
    if client is None:
        return [Group(list(range(len(blocks))), [])]
    from distributed import futures_of, wait

    futures = [futures_of(block)[0] for block in blocks]
    wait(futures)
    holders, threads, n_bytes = client.who_has(futures), client.nthreads(), client.nbytes(summary=False)
    sizes = [n_bytes.get(future.key, 0) for future in futures]
    left = {worker: sum(sizes) * n / sum(threads.values()) for worker, n in threads.items()}
    mine: dict[str, list[int]] = {worker: [] for worker in threads}

    def take(worker: str, number: int) -> None:
        mine[worker].append(number)
        left[worker] -= sizes[number]

    homeless = []
    for number, future in enumerate(futures):
        here = [worker for worker in holders.get(future.key, ()) if left.get(worker, 0) >= sizes[number] / 2]
        if here:
            take(max(here, key=left.__getitem__), number)
        else:
            homeless.append(number)
    for number in homeless:
        take(max(left, key=left.__getitem__), number)
    return sorted(Group(sorted(numbers), [worker]) for worker, numbers in mine.items() if numbers)


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
    n_threads : int
        Of what the client computes itself.
    """

    elsewhere = True
    weight_sum = 1.0

    def __init__(
        self, parts: Parts, numbers: list[list[int]], summary: Summary, total: float, keep: bool, n_threads: int
    ) -> None:
        self._n_threads = n_threads
        self._parts = parts.with_actors() if keep else parts
        self._numbers, self._summary, self._keep = numbers, summary, keep
        self.n_rows, self.n_entries = int(summary.counts.sum()), summary.n_entries
        self.n_features, self.dtype, self.sparse = summary.n_features, summary.dtype, summary.sparse
        self.n_columns, self.total = 1 if len(summary.classes) == 2 else len(summary.classes), total
        self.class_shares, self.least_weight = summary.totals / total, float(summary.lightest.min() / total)
        self._looked: tuple[Search, Float64, float] | None = None  # lengths of blocks, weight of what was looked at

    def in_float64(self) -> "ClusterRows":
        summary = self._summary._replace(dtype=np.dtype(np.float64))
        keep = self._keep and fits(3 * self._summary.n_bytes)  # both are kept
        parts = self._parts.each(part_in_float64)
        return ClusterRows(parts, self._numbers, summary, self.total, keep, self._n_threads)

    def moments(self) -> tuple[Float64, Float64, Float64]:
        def spread(columns: Columns) -> Float64:
            return np.asarray(self._parts.ask("column_spread", columns)[0])

        ranges = ColumnRanges(*self._parts.ask("column_ranges"))
        return *ranges.moments(self.n_rows, spread), ranges.by_class

    def passes(self) -> "ClusterPass":
        return ClusterPass(self._parts, self.n_columns, self.n_features)

    def margins(self, coef: Float64, intercept: Float64) -> tuple[float, float]:
        least, total = self._parts.ask("margins", coef, intercept)
        return least, total

    def sample(self, n_rows: int, search: Search, penalty: Float64) -> "ClusterSample":
        return ClusterSample(self._chosen(sample_part, n_rows, search).kept(), penalty)

    def sample_here(self, n_rows: int, search: Search, penalty: Float64) -> Sample:
        """The same rows, in the order of all, sent to the client: a product of each would cost a question."""
        parts = compute(self._chosen(sample_part, n_rows, search).parts)
        samples = [sample for part in parts for sample in part]
        del parts
        order = np.argsort(np.concatenate(self._numbers)).tolist()
        weight = np.concatenate([samples[i].weight for i in order])
        share = np.concatenate([samples[i].share for i in order])
        rows, start = np.empty((len(weight), len(penalty)), self.dtype), 0
        for i in order:  # one by one, to save memory
            some, samples[i] = samples[i].rows, None
            rows[start : start + len(some)] = some
            start += len(some)
        return Sample(rows, weight, penalty, self._n_threads, share)

    def stored(self, n_rows: int, scaling: Scaling, penalty: Float64) -> "ClusterStored":
        return ClusterStored(self._chosen(stored_part, n_rows, Search(scaling, 1)).kept(), penalty)

    def _chosen(self, function: Callable[..., Any], n_rows: int, search: Search) -> Parts:
        """The rows that `LocalRows.sample` would choose of all, where they are."""
        n_parts, distance, factor, starts = len(self._numbers), 0.0, 1.0, np.zeros(1 + max(map(max, self._numbers)))
        if n_rows < self.n_rows:
            looked = self._looked
            if looked is None or not looked[0].equals(search):
                found = np.array(self._parts.ask("lengths", search)[0])
                lengths = np.zeros_like(starts)
                lengths[np.concatenate(self._numbers)] = found[:, 0]
                looked = search, lengths, float(found[:, 1].sum())
                if search.theta is None:  # others are looked for once
                    self._looked = looked
            _, lengths, weight = looked
            running = np.cumsum(lengths)
            distance, factor, starts = running[-1] / n_rows, 1 / weight, running - lengths
        of_part = [starts[numbers].tolist() for numbers in self._numbers]
        rest = [factor] * n_parts, [constant(search)] * n_parts
        return self._parts.each(function, [distance] * n_parts, of_part, *rest)


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

    def stiffened(self, more: Float64) -> "ClusterSample":
        return ClusterSample(self._parts, self.penalty + more)

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
