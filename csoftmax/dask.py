"""Softmax regression on Dask collections: where rows are too many for one machine, or come from many files.

Needs Dask: ``pip install 'csoftmax[dask]'``.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np

try:
    import dask.array as da
    from dask.base import is_dask_collection
    from dask.delayed import Delayed
except ImportError as error:
    raise ImportError("csoftmax.dask needs Dask: pip install 'csoftmax[dask]'") from error

from . import _blocks as on_workers
from . import _cluster as cluster
from . import _validation as gate
from ._blocks import Summary
from ._cluster import ClusterRows, Parts
from ._errors import DataConversionWarning, warn
from ._typing import Array, DType, Float64
from .estimator import SoftmaxRegression

__all__ = ["DaskSoftmaxRegression"]


class _ClusterData(NamedTuple):
    """What `SoftmaxRegression.fit` asks of its data."""

    all_rows: ClusterRows
    classes: Array
    names: Array | None

    @property
    def n_features(self) -> int:
        return self.all_rows.n_features

    @property
    def dtype(self) -> DType:
        return self.all_rows.dtype

    def rows(self, n_threads: int) -> ClusterRows:  # which know how many threads they have
        return self.all_rows


class DaskSoftmaxRegression(SoftmaxRegression):
    """`csoftmax.SoftmaxRegression` on Dask collections: the same parameters, the same solvers, the same optimum.

    The rows stay where they are. A pass sends the coefficients to every worker, and gets back one loss and one
    gradient, added up on the way; a model of the curvature, once in several iterations, comes as one sum as well. The
    client holds some vectors as long as the coefficients, and the curvature model. If a worker is lost, Dask makes anew
    what it held, and the fit goes on; that needs data that can be read again, from files for instance.

    Checked data are kept in the workers' memory if they take at most half of it, or have been persisted before. Else
    they are read from their source, and checked, for every pass.

    Without a ``distributed.Client`` everything happens in this process, by default in Dask's threads.

    Parameters
    ----------
    C, l1_ratio, solver, tol, max_iter, fit_intercept, class_weight, warm_start, learning_rate, verbose, callback
        As those of `csoftmax.SoftmaxRegression`.
    n_threads : int, optional
        Threads of each task; by default those of its worker, where one task has all of its rows, else 1.

    Attributes
    ----------
    classes_, coef_, intercept_, n_iter_, loss_curve_, fit_report_, n_features_in_, feature_names_in_
        As those of `csoftmax.SoftmaxRegression`, in NumPy arrays. They agree with those of a local fit to rounding, as
        sums are added up in another order; for sparse rows to the tolerance, as a local fit may keep their scores. In
        `fit_report_`, `workspace_bytes` are those of the client.

    Examples
    --------
    >>> import dask.array as da
    >>> from csoftmax.dask import DaskSoftmaxRegression
    >>> X = da.from_array([[0.0], [1.0], [5.0], [6.0]], chunks=(2, 1))
    >>> y = da.from_array([0, 0, 1, 1], chunks=2)
    >>> model = DaskSoftmaxRegression().fit(X, y)
    >>> model.predict(X).compute().tolist()
    [0, 0, 1, 1]
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Find the coefficients that minimise J over all rows of a Dask collection.

        Parameters
        ----------
        X : dask array, dask data frame, or list of delayed blocks, of shape (n, d)
            Chunks may be of any length, also unknown or 0, NumPy arrays or SciPy's sparse matrices, all of one kind and
            dtype. What `csoftmax.SoftmaxRegression.fit` says of X holds for each of them.
        y : dask array, series, list of delayed blocks, or array_like, of shape (n,)
            Labels, in chunks as those of X; one array is cut as X is, if the lengths of its chunks are known. A chunk
            may lack classes.
        sample_weight : as y, optional
            s_i, not negative.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For parameters and data that are not as described, with the number of the block; the estimator stays as it
            was.
        OSError
            If the file of a memory-mapped block was cut short.
        RuntimeError
            If the client of persisted data was closed.

        Warns
        -----
        ConvergenceWarning
            If the solver ended before its stopping test held.
        """
        with cluster.holding():
            return super().fit(X, y, sample_weight)

    def _check_data(self, X: Any, y: Any, sample_weight: Any, n_threads: int, sweep: bool = True) -> Any:
        holders = _holders(X, y, sample_weight)
        calls = [(number, *chunk) for number, chunk in enumerate(_delayed_rows(X, y, sample_weight))]
        homes = [holders.get(block.key, ()) for _, block, *_ in calls]
        blocks = cluster.tasks(on_workers.read_block, calls, homes)
        keep = (all(homes) and _is_as_used(X)) or cluster.fits(_n_bytes(X))
        blocks, groups, summaries = cluster.read(blocks, keep)
        if not keep and cluster.fits(sum(summary.n_bytes for summary in summaries)):
            keep = True
            blocks, groups, summaries = cluster.read(blocks, keep)
        whole, factors = self._weighted(_merged(summaries))
        members = [[i for i in group.members if np.isin(summaries[i].classes, whole.classes).any()] for group in groups]
        used = [(numbers, group.workers) for numbers, group in zip(members, groups, strict=True) if numbers]
        total = float(whole.totals.sum())
        settings = cluster.constant(whole.classes), cluster.constant(factors), total
        each = self.n_threads if keep or self.n_threads is not None else 1
        numbers, homes = [numbers for numbers, _ in used], [workers for _, workers in used]
        known = [int(each.counts[np.isin(each.classes, whole.classes)].sum()) for each in summaries]
        before = np.cumsum([0, *known]).tolist()
        of_part = [([blocks[i] for i in some], [before[i] for i in some], *settings, each) for some in numbers]
        parts = Parts(cluster.tasks(on_workers.make_part, of_part, homes), homes)
        rows = ClusterRows(parts, numbers, whole, total, keep, n_threads)
        return _ClusterData(rows, whole.classes, whole.names)

    def _weighted(self, whole: Summary) -> tuple[Summary, Float64]:
        """With class_weight, and its factor for each class that is left."""
        gate.require_model_memory(len(whole.classes), whole.n_features, newton=self.solver == "newton")
        gate.check_total(whole.totals, float(self.C))
        factors = np.ones(len(whole.classes))
        if self.class_weight is not None:
            codes = np.arange(len(whole.classes), dtype=np.int32)
            factors = gate.class_factors(self.class_weight, whole.classes, codes, whole.totals, whole.classes)
        left = whole.totals * factors > 0
        classes, _ = gate.encode_labels(whole.classes[left])
        totals, lightest = ((each * factors)[left] for each in (whole.totals, whole.lightest))
        gate.check_total(totals, float(self.C))
        counts = whole.counts[left]
        n_entries = round(whole.n_entries * counts.sum() / whole.counts.sum())
        weighted = whole._replace(n_entries=n_entries, classes=classes, counts=counts, totals=totals, lightest=lightest)
        return weighted, factors[left]

    # ---- prediction -----------------------------------------------------------------------------------------------

    def decision_function(self, X: Any) -> Any:
        """Scores before the softmax, (n, K), or (n,) for two classes; of a Dask collection a lazy array."""
        self._check_fitted()
        columns = (len(self.classes_),) if len(self.classes_) > 2 else ()
        return self._lazily("decision_function", X, columns, self.coef_.dtype)

    def predict_proba(self, X: Any) -> Any:
        """Probability of each class, (n, K); of a Dask collection a lazy array, chunk by chunk."""
        self._check_fitted()
        return self._lazily("predict_proba", X, (len(self.classes_),), self.coef_.dtype)

    def predict_log_proba(self, X: Any) -> Any:
        """Logarithm of the probability of each class, (n, K); of a Dask collection a lazy array."""
        self._check_fitted()
        return self._lazily("predict_log_proba", X, (len(self.classes_),), self.coef_.dtype)

    def predict(self, X: Any) -> Any:
        """The most probable class of each row, (n,); of a Dask collection a lazy array."""
        self._check_fitted()
        return self._lazily("predict", X, (), self.classes_.dtype)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of rows whose label is predicted, weighted by sample_weight; computed at once."""
        if not _is_lazy(X):
            return super().score(X, y, sample_weight)
        self._check_fitted()
        model = cluster.constant(self._local())
        rows = _delayed_rows(X, y, sample_weight)
        counted = cluster.tasks(_count_right, ((number, model, *row) for number, row in enumerate(rows)))
        right, total = np.sum(cluster.compute(counted), axis=0)
        if not 0 < total < np.inf:
            raise ValueError(f"sample_weight adds up to {total}: expected a finite sum, and weights not all zero")
        return float(right / total)

    def _lazily(self, method: str, X: Any, columns: tuple[int, ...], dtype: DType) -> Any:
        if not _is_lazy(X):
            return getattr(super(), method)(X)
        model = cluster.constant(self._local())
        parts, blocks = [], _blocks(X, "X")
        lengths = X.chunks[0] if isinstance(X, da.Array) else None
        for number, block in enumerate(blocks):
            shape = (np.nan if lengths is None else lengths[number], *columns)
            values = cluster.task(_predict_block, number, model, method, block, columns, dtype)
            parts.append(da.from_delayed(values, shape, dtype))
        return da.concatenate(parts, allow_unknown_chunksizes=True)

    def _local(self) -> SoftmaxRegression:
        """What predicts on the workers."""
        model = SoftmaxRegression()
        for name in ("classes_", "coef_", "intercept_", "n_features_in_", "feature_names_in_"):
            if hasattr(self, name):
                setattr(model, name, getattr(self, name))
        return model


def _predict_block(
    number: int, model: SoftmaxRegression, method: str, X: Any, columns: tuple[int, ...], dtype: DType
) -> Array:
    with on_workers.errors_name(number):
        if gate.as_table(X, "X", minimum_rows=0).shape[0] == 0:
            return np.empty((0, *columns), dtype)
        return np.asarray(getattr(model, method)(X))


def _count_right(number: int, model: SoftmaxRegression, X: Any, y: Any, sample_weight: Any) -> Float64:
    """Weight of the rows whose label is predicted, and of all."""
    predicted = _predict_block(number, model, "predict", X, (), model.classes_.dtype)
    with on_workers.errors_name(number):
        weight = gate.as_weights(sample_weight, len(predicted))
        right = weight[predicted == gate.as_labels(y, len(predicted))]
    return np.array([right.sum(), weight.sum()])


# ---- what users hand in ---------------------------------------------------------------------------------------------


def _is_lazy(value: Any) -> bool:
    return bool(is_dask_collection(value)) or _is_list_of_delayed(value)


def _is_list_of_delayed(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(block, Delayed) for block in value)


def _delayed_rows(X: Any, y: Any, sample_weight: Any) -> Iterator[tuple[Any, Any, Any]]:
    """X, y and sample_weight of every block."""
    if not _is_lazy(X):
        raise TypeError(
            f"X is a {type(X).__name__}: expected a dask array, a dask data frame or a list of delayed blocks; for "
            f"data in memory use csoftmax.SoftmaxRegression, or dask.array.from_array"
        )
    blocks = _blocks(X, "X")
    lengths = X.chunks[0] if isinstance(X, da.Array) and not np.isnan(X.chunks[0]).any() else None
    others = [_aligned(y, "y", len(blocks), lengths)]
    unweighted = [None] * len(blocks)
    others.append(
        unweighted if sample_weight is None else _aligned(sample_weight, "sample_weight", len(blocks), lengths)
    )
    return zip(blocks, *others, strict=True)


def _blocks(value: Any, name: str) -> list[Delayed]:
    """The blocks of rows of a Dask collection."""
    if isinstance(value, da.Array):
        if value.ndim != (2 if name == "X" else 1):
            raise ValueError(f"{name} has shape {value.shape}: expected {'(n, d)' if name == 'X' else '(n,)'}")
        if value.ndim == 2 and value.numblocks[1] > 1:
            if np.isnan(value.shape[1]):
                raise ValueError(
                    f"{name} is cut into blocks of columns whose widths are unknown: "
                    f"call {name}.compute_chunk_sizes(), then {name}.rechunk({{1: -1}})"
                )
            value = value.rechunk({1: -1})
        return list(value.to_delayed().ravel())
    if isinstance(value, Delayed):
        return [value]
    if isinstance(value, list | tuple):
        return list(value)
    if not hasattr(value, "npartitions") or not hasattr(value, "to_delayed"):
        raise TypeError(
            f"{name} is a {type(value).__name__}: expected a dask array, a dask data frame or series, or a list of "
            f"delayed blocks"
        )
    return list(value.to_delayed())


def _aligned(value: Any, name: str, n_blocks: int, lengths: tuple[int, ...] | None) -> list[Any]:
    """Blocks of a vector, as those of X."""
    if _is_lazy(value):
        value = _one_column(value, name)
        if isinstance(value, da.Array) and lengths is not None and not np.isnan(value.chunks[0]).any():
            if value.shape[0] != sum(lengths):
                raise ValueError(
                    f"{name} has {value.shape[0]} values and X has {sum(lengths)} rows: expected one per row"
                )
            value = value.rechunk({0: lengths})
        blocks = _blocks(value, name)
        if len(blocks) != n_blocks:
            raise ValueError(
                f"{name} has {len(blocks)} blocks and X has {n_blocks}: expected blocks of the same rows; repartition "
                f"one of them, or call compute_chunk_sizes() on arrays"
            )
        return list(blocks)
    if lengths is None:
        raise ValueError(
            f"{name} is a {type(value).__name__} and the lengths of the blocks of X are unknown: pass {name} as a Dask "
            f"collection in the same blocks, or call X.compute_chunk_sizes() on an array"
        )
    values = (gate.as_labels if name == "y" else gate.as_weights)(value, sum(lengths))
    return [cluster.constant(part) for part in np.split(values, np.cumsum(lengths)[:-1])]


def _one_column(value: Any, name: str) -> Any:
    """A lazy vector without the second dimension of a single column."""
    if isinstance(value, Delayed | list | tuple) or getattr(value, "ndim", 1) == 1:
        return value
    if name != "y" or value.ndim != 2 or value.shape[1] != 1:
        raise ValueError(f"{name} has shape {value.shape}: expected one value per row; choose a column")
    warn(
        DataConversionWarning(
            f"A column-vector {name} was passed when a 1d array was expected: pass a series, or {name}[:, 0]"
        )
    )
    return value[:, 0] if isinstance(value, da.Array) else value[value.columns[0]]


def _merged(summaries: list[Summary]) -> Summary:
    """That of all blocks, which must be of a kind."""
    full = [(number, one) for number, one in enumerate(summaries) if len(one.counts)]
    if not full:
        raise ValueError("X has no rows of positive weight: there is nothing to learn from")
    first, model = full[0]
    for number, one in full[1:]:
        for what, expected, given in (
            ("columns", model.n_features, one.n_features),
            ("dtype", model.dtype, one.dtype),
            ("format", "sparse" if model.sparse else "dense", "sparse" if one.sparse else "dense"),
            ("kind of labels", _kind(model.classes), _kind(one.classes)),
            ("feature names", _listed(model.names), _listed(one.names)),
        ):
            if expected != given:
                raise ValueError(
                    f"block {number} and block {first} do not fit each other: {what} {given} and {expected}; expected "
                    f"the same in all blocks"
                )
    joined = np.concatenate([one.classes for _, one in full])
    places = np.split(joined, np.cumsum([len(one.classes) for _, one in full])[:-1])
    for (number, one), same in zip(full, places, strict=True):
        if same.tolist() != one.classes.tolist():
            raise ValueError(
                f"block {number} has labels of dtype {one.classes.dtype}, others of another, and {joined.dtype} would "
                f"not hold them all: convert y to one dtype"
            )
    classes, codes = gate.distinct(joined)
    counts = np.bincount(codes, np.concatenate([one.counts for _, one in full]), len(classes)).astype(np.intp)
    totals = np.bincount(codes, np.concatenate([one.totals for _, one in full]), len(classes)).astype(float)
    lightest = np.full(len(classes), np.inf)
    np.minimum.at(lightest, codes, np.concatenate([one.lightest for _, one in full]))
    n_entries = sum(one.n_entries for _, one in full)
    return model._replace(n_entries=n_entries, classes=classes, counts=counts, totals=totals, lightest=lightest)


def _kind(classes: Array) -> str:
    return {"i": "numbers", "u": "numbers", "f": "numbers", "U": "text", "S": "bytes", "b": "bool"}.get(
        classes.dtype.kind, classes.dtype.name
    )


def _listed(names: Array | None) -> list[str] | None:
    return None if names is None else names.tolist()


# ---- where they are -------------------------------------------------------------------------------------------------


def _holders(X: Any, *others: Any) -> dict[Any, list[str]]:
    """The workers that have what was persisted of X, by key; RuntimeError if something was that nobody can reach."""
    try:
        from distributed import futures_of
    except ImportError:
        return {}
    futures, client = futures_of([each for each in (X, *others) if _is_lazy(each)]), cluster.current_client()
    if any(future.status in ("cancelled", "lost") for future in futures) or (futures and client is None):
        raise RuntimeError(
            "X, y or sample_weight was persisted on a cluster, and there is no client in use that holds it any more: "
            "open a distributed.Client and persist it again, or pass the collection that it was made of"
        )
    return {key: list(workers) for key, workers in client.who_has(futures).items()} if futures else {}


def _is_as_used(X: Any) -> bool:
    """Whether the checked blocks will be the arrays that X has."""
    return not isinstance(X, da.Array) or X.dtype in (np.float32, np.float64)


def _n_bytes(X: Any) -> float:
    """What X will take, NaN if that is not known."""
    return X.size * (4 if X.dtype == np.float32 else 8) if isinstance(X, da.Array) else np.nan
