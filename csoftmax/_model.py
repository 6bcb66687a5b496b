"""What a Predictor does seldom: its arguments, input that is not an array of its dtype, and the file it is kept in."""

import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _kernels
from ._errors import ModelFileError
from ._mapped import BLOCK_BYTES, Mapped, is_mapped, n_entries, readable
from ._threads import CHUNK_WORK, run
from ._typing import Array, DType, Rows
from ._validation import as_array, as_csr, as_floats, as_matrix, as_table, check_finite, integer, is_sparse, threads

if TYPE_CHECKING:
    from ._predictor import Predictor

__all__ = [
    "by_blocks",
    "by_passes",
    "check_finite",
    "check_out",
    "checked",
    "in_chunks",
    "is_mapped",
    "load",
    "rebuild",
    "report_text",
    "rows",
    "save",
    "sparse_codes",
    "threads",
    "top_k",
    "whole_file",
]

FORMAT_VERSION = 1
CHUNK_ROWS = 64  # a chunk has a multiple of them, so that register tiles are full
BLOCK = 2**16  # scores, or probabilities, at once
LONGEST = 2**32  # multiplications, a second or less, after which an interrupt is heard
_LABELS = "biufUS"  # kinds of dtype


class _Member(NamedTuple):
    """What a member of a model file must be."""

    ndim: int
    kinds: str
    required: bool = True


_MEMBERS = {
    "format_version": _Member(0, "i"),
    "library_version": _Member(0, "U"),
    "coef": _Member(2, "f"),
    "intercept": _Member(1, "f"),
    "classes": _Member(1, _LABELS),
    "feature_names": _Member(1, "U", required=False),
    "training_report": _Member(0, "U", required=False),
}


# ---- arguments ----------------------------------------------------------------------------------------------------


def checked(
    coef: npt.ArrayLike,
    intercept: npt.ArrayLike,
    classes: npt.ArrayLike | None,
    feature_names: Sequence[str] | None,
    dtype: npt.DTypeLike | None,
) -> tuple[Array, Array, Array, tuple[str, ...] | None]:
    """Copies of the constructor's arguments, read-only, or an error that says what does not fit."""
    weights = as_matrix(coef, "coef")
    if dtype is not None and np.dtype(dtype) not in (np.float32, np.float64):
        raise ValueError(f"dtype={np.dtype(dtype)}: expected float32 or float64")
    kind = weights.dtype if dtype is None else np.dtype(dtype)
    offsets = as_floats(as_array(intercept, "intercept"), "intercept")
    n_columns, n_features = weights.shape
    if offsets.shape != (n_columns,):
        raise ValueError(f"intercept has shape {offsets.shape} and coef {weights.shape}: expected ({n_columns},)")
    n_classes = max(2, n_columns)
    if isinstance(classes, list | tuple) and len({type(label) for label in classes}) > 1:
        raise TypeError(f"classes mixes labels of several types, {list(classes)[:5]}: make them one type")
    labels = np.arange(n_classes) if classes is None else as_array(classes, "classes")
    if labels.dtype.kind == "O" and len({type(label) for label in labels.flat}) > 1:
        raise TypeError(f"classes mixes labels of several types, {labels.tolist()[:5]}: make them one type")
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise ValueError("classes contains NaN: expected labels that equal themselves")
    if labels.shape != (n_classes,) or len(set(labels.tolist())) != n_classes:
        raise ValueError(
            f"classes has shape {labels.shape} with {len(set(labels.ravel().tolist()))} different labels: "
            f"coef of shape {weights.shape} needs {n_classes}, all different"
        )
    with np.errstate(over="ignore"):
        weights, offsets, labels = weights.astype(kind), offsets.astype(kind), labels.copy()
    check_finite(weights, f"coef in {kind}")
    check_finite(offsets, f"intercept in {kind}")
    if isinstance(feature_names, str):
        raise TypeError(f"feature_names={feature_names!r} is one string: expected {n_features}, one per column")
    names = None if feature_names is None else tuple(feature_names)
    if names is not None and (len(names) != n_features or not all(isinstance(name, str) for name in names)):
        raise ValueError(f"feature_names has {len(names)} entries: expected {n_features} strings, one per column")
    if names is not None and any(name.endswith("\0") for name in names):
        raise ValueError("feature_names has a name that ends with a NUL character, which a model file would lose")
    return _frozen(weights), _frozen(offsets), _frozen(labels), names


def _frozen(array: Array) -> Array:
    """A copy in memory that nobody can write."""
    if array.dtype == object:
        array.setflags(write=False)
        return array
    return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)


def report_text(report: Mapping[str, Any] | None) -> str | None:
    """The training report as JSON."""
    try:
        return None if report is None else json.dumps(dict(report))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"training_report cannot be written as JSON: {error}") from None


def rebuild(*arguments: Any) -> "Predictor":
    """The inverse of pickling."""
    from ._predictor import Predictor

    coef, intercept, classes, feature_names, finite, report = arguments
    return Predictor(
        coef,
        intercept,
        classes,
        feature_names=feature_names,
        check_finite=finite,
        training_report=None if report is None else json.loads(report),
    )


def rows(x: Any, n_features: int, dtype: DType, finite: bool = True) -> tuple[Rows, bool]:
    """x as a C-contiguous matrix or CSR of the model's dtype, and whether it was one row; NaN is not looked for.

    What is mapped stays where it is, in its own dtype: see `by_blocks`.
    """
    array = x if is_sparse(x) else as_array(x, "x")
    single = array.ndim == 1
    if not single:
        array = as_table(array, "x", minimum_rows=0)
    if array.shape[-1:] != (n_features,):
        raise ValueError(
            f"x has shape {array.shape}: the model has {n_features} features, expected "
            f"({n_features},) or (n, {n_features})"
        )
    if is_sparse(array):
        entries = as_csr(array, "x")
        matrix: Rows = entries.toarray() if entries.shape[0] == 1 else entries
    else:
        matrix = as_floats(array.reshape(-1, n_features), "x")
    if matrix.dtype == dtype or is_mapped(matrix):
        return matrix, single
    with np.errstate(over="ignore"):
        converted = matrix.astype(dtype)
    if finite and not _kernels.all_finite(_values(converted)):
        check_finite(matrix, "x")
        check_finite(converted, f"x in {dtype}")
    return converted, single


def _values(matrix: Rows) -> Array:
    return matrix if isinstance(matrix, np.ndarray) else matrix.data[None]


def top_k(model: "Predictor", x: Any, k: Any, n_threads: int | None) -> tuple[Array, Array]:
    """See `Predictor.top_k`."""
    if integer(k, "k", 1) > model.n_classes:
        raise ValueError(f"k={k}: the model has {model.n_classes} classes, expected a number from 1 to that")
    threads(n_threads)
    X, single = rows(x, model.n_features, model.dtype)
    n = X.shape[0]
    labels, chances = np.empty((n, k), model.classes.dtype), np.empty((n, k), model.dtype)
    # A block at a time: the matrix of all probabilities never exists.
    step = max(1, BLOCK // model.n_classes)
    block = np.empty((min(step, n), model.n_classes), model.dtype)
    for start in range(0, n, step):
        # By their logarithms, which still differ where probabilities are all 0 or all but 1.
        part = model.predict_log_proba(X[start : start + step], block[: n - start], n_threads=n_threads)
        order = np.argsort(-part, axis=1, kind="stable")[:, :k]
        labels[start : start + step] = model.classes[order]
        chances[start : start + step] = np.exp(np.take_along_axis(part, order, axis=1))
    return (labels[0], chances[0]) if single else (labels, chances)


def check_out(out: Any, x: Any, shape: tuple[int, ...], dtype: DType) -> None:
    """Say what is wrong with `out`, if anything is."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is a {type(out).__name__}: expected a NumPy array of shape {shape} and dtype {dtype}")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(
            f"out has shape {out.shape} and dtype {out.dtype}: expected shape {shape} and dtype {dtype}, "
            f"in the byte order of this machine"
        )
    if not out.flags.c_contiguous or not out.flags.aligned or not out.flags.writeable:
        raise ValueError("out is not a C-contiguous, aligned array that may be written: pass one, as numpy.empty makes")
    if isinstance(x, np.ndarray) and np.may_share_memory(out, x):
        raise ValueError("out overlaps x, which is read while out is written: pass another array")


def in_chunks(
    part: Callable[[Array, Array, int], int], X: Array, out: Array, kind: int, work: int, n_threads: int | None
) -> int:
    """Call part(rows of X, rows of out, kind) for parts of this work, in threads; the least of its results."""
    n_threads = threads(n_threads)
    most = 1 if n_threads == 1 else min(4 * n_threads, work // CHUNK_WORK)
    most = max(most, 1 + work // LONGEST)
    step = -(-len(X) // most // CHUNK_ROWS) * CHUNK_ROWS
    chunks = -(-len(X) // step)
    good = [1] * chunks

    def chunk(item: int, worker: int) -> None:
        rows = slice(item * step, (item + 1) * step)
        good[item] = part(X[rows], out[rows], kind)

    run(chunk, chunks, n_threads)
    return min(good)


def by_blocks(
    model: "Predictor", X: Rows, out: Array, n_threads: int | None, predict: Callable[[Rows, Array], None]
) -> None:
    """Call predict(rows, rows of out) for copies of the rows of a mapped X in the model's dtype, block by block."""
    n, source = X.shape[0], Mapped(X) if isinstance(X, np.ndarray) else X
    step = max(1, BLOCK_BYTES * n // (8 * CHUNK_ROWS * max(n_entries(X), n, 1))) * CHUNK_ROWS
    starts = list(range(0, n, step))
    if n % step == 1 and len(starts) > 1:
        starts.pop()  # a row by itself takes another way, whose results differ by rounding

    def block(item: int, worker: int) -> None:
        part = slice(starts[item], starts[item + 1] if item + 1 < len(starts) else n)
        read = readable(source, part)
        copy, _ = rows(read.copy(), model.n_features, model.dtype, finite=False)
        predict(copy, out[part])

    try:
        run(block, len(starts), threads(n_threads))
    except ValueError:
        check_finite(X, "x")  # for the number of the row in X
        if isinstance(X, np.ndarray) and X.dtype != model.dtype:
            with np.errstate(over="ignore"):
                check_finite(Mapped(X, dtype=model.dtype), f"x in {model.dtype}")
        raise


def by_passes(model: "Predictor", X: Rows, out: Array, n_threads: int | None, then: str) -> bool:
    """Fill out by BLAS, or from a CSR matrix, and tell whether X and its scores were finite.

    The training code does it, and with it SciPy is loaded, only now.
    """
    from ._passes import scores

    if len(model.coef) > 1:
        scores(X, model.coef, model.intercept, threads(n_threads), then, out=out)
        first = out[:, 0]  # NaN and infinity in x reach every score, and NaN every probability
        return bool((first == first if then else np.isfinite(first)).all())
    z = scores(X, model.coef, model.intercept, threads(n_threads))
    out[:, -1:] = z
    if then:
        out[:, 0] = 0
        _kernels.softmax_rows(out, 0, len(out), then == "log_softmax")
    return _kernels.all_finite(z)


def sparse_codes(model: "Predictor", X: Rows, codes: Array, n_threads: int | None) -> bool:
    """The number of the largest score of each row of a CSR matrix, and whether X and these scores were finite."""
    from ._passes import scores

    good, step = True, max(1, BLOCK // len(model.coef))  # the matrix of all scores never exists
    for start in range(0, len(codes), step):
        z = scores(X[start : start + step], model.coef, model.intercept, threads(n_threads))
        codes[start : start + step] = z.argmax(axis=1) if z.shape[1] > 1 else z[:, 0] > 0
        good = good and bool((z < np.inf).all()) and bool(np.isfinite(z.max(axis=1)).all())
    return good


# ---- the file -----------------------------------------------------------------------------------------------------


def save(model: "Predictor", path: str | os.PathLike[str]) -> None:
    """See `Predictor.save`."""
    from importlib.metadata import version  # not needed to load a model, which is to be quick

    members: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "library_version": version("csoftmax"),
        "coef": model.coef,
        "intercept": model.intercept,
        "classes": _storable(model.classes),
    }
    if model.feature_names is not None:
        members["feature_names"] = np.array(model.feature_names)
    if model.training_report is not None:
        members["training_report"] = json.dumps(model.training_report)
    with whole_file(path) as file:
        np.savez(file, **members)


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when it is complete, and on disk; if not, nothing changes."""
    import secrets

    target = Path(path)
    temporary = target.with_name(f".csoftmax-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if hasattr(os, "O_DIRECTORY"):
        with suppress(OSError):  # not every file system can
            folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _storable(labels: Array) -> Array:
    plain = np.array(labels.tolist()) if labels.dtype == object else labels
    if plain.dtype.kind not in _LABELS or plain.tolist() != labels.tolist():
        raise TypeError(
            f"classes of dtype {labels.dtype} are not what a model file stores: use labels of one type, int, str, bool "
            f"or float"
        )
    return plain


def load(path: str | os.PathLike[str]) -> "Predictor":
    """Read a model that `save` wrote.

    Nothing in the file is executed, and nothing is allocated that the size of the file does not account for.

    Raises
    ------
    ModelFileError
        If the file is not a csoftmax model, is damaged, or was written by a later version of the format.
    OSError
        If the file cannot be read.
    """
    from ._predictor import Predictor

    with open(path, "rb") as file:
        try:
            values = _read(file)
            report = json.loads(str(values["training_report"])) if "training_report" in values else None
            names = values["feature_names"].tolist() if "feature_names" in values else None
            return Predictor(
                values["coef"], values["intercept"], values["classes"], feature_names=names, training_report=report
            )
        except ModelFileError as error:
            raise ModelFileError(f"{path} {error}") from None
        except Exception as error:  # what zipfile and NumPy raise for damaged input is a long list
            raise ModelFileError(f"{path} is not a csoftmax model, or is damaged: {error}") from error


def _read(file: BinaryIO) -> dict[str, Array]:
    """The members by name, each of the kind that a model has."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        if missing := [name for name, member in _MEMBERS.items() if member.required and name not in entries]:
            raise ModelFileError(f"is not a csoftmax model: it lacks {', '.join(missing)}")
        if len(entries) != len(archive.infolist()):
            raise ModelFileError("is damaged: a member occurs twice")
        size = os.fstat(file.fileno()).st_size
        if sum(entry.file_size for entry in entries.values()) > size:
            raise ModelFileError("is damaged: its members are larger than the file; model files are not compressed")
        format_version = _member(archive, entries, "format_version")
        if int(format_version) != FORMAT_VERSION:
            raise ModelFileError(
                f"has format {format_version} and this csoftmax reads {FORMAT_VERSION}: install a later version"
            )
        if unknown := sorted(set(entries) - set(_MEMBERS)):
            raise ModelFileError(f"is not a csoftmax model: it has the members {', '.join(unknown)[:200]} besides")
        values = {name: _member(archive, entries, name) for name in entries}
    for name in ("coef", "intercept"):
        if values[name].dtype.itemsize not in (4, 8) or values[name].dtype != values["coef"].dtype:
            raise ModelFileError(f"has {name} of dtype {values[name].dtype}: expected float32 or float64, as coef")
    return values


def _member(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], name: str) -> Array:
    entry, expected = entries[name], _MEMBERS[name]
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ModelFileError(f"has {name} compressed: model files are not")
    with archive.open(entry) as file:
        # The header is looked at before anything of its size is allocated.
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = header[np.lib.format.read_magic(file)](file)
        if len(shape) != expected.ndim or min(shape, default=0) < 0 or dtype.kind not in expected.kinds:
            raise ModelFileError(f"has {name} of shape {shape} and dtype {dtype}: a model has another")
        n_bytes = math.prod(shape) * dtype.itemsize
        if n_bytes != entry.file_size - file.tell():
            raise ModelFileError(f"is damaged: {name} says that it has {n_bytes} bytes, and has another number")
        data = file.read()  # to its end, where zipfile compares the checksum
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
