"""The one gate: what a user passes goes in, trusted arrays and parameters come out.

Below this module every matrix is C-contiguous, or CSR without duplicates whose indices are in range, float32 or
float64 with finite values, every label an int32 in [0, K), every weight of the matrix's dtype. Other real dtypes become
float64, but for those that hold more digits.
"""

import math
import os
import sys
from collections.abc import Mapping
from numbers import Complex, Integral, Real
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from . import _kernels
from ._errors import DataConversionWarning, warn
from ._frames import column_names, is_missing, read
from ._mapped import check_file, is_dense, is_mapped
from ._threads import available_threads, run
from ._typing import Array, Codes, Float64, Rows

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_OTHER_LIBRARIES = {
    "torch": "X.detach().cpu().numpy()",
    "cupy": "X.get()",
    "jax": "numpy.asarray(X)",
    "jaxlib": "numpy.asarray(X)",
    "tensorflow": "X.numpy()",
}
_INT_MAX = 2**31 - 1
LABELS = 2**18  # that are sorted at once


# ---- arrays -------------------------------------------------------------------------------------------------------


def is_sparse(value: Any) -> "TypeGuard[csr_array]":
    """Whether it is one of SciPy's sparse matrices or arrays, of any format."""
    family = type(value).__mro__
    return any(kind.__module__.startswith("scipy.sparse") for kind in family) and hasattr(value, "tocsr")


def as_array(value: Any, name: str) -> Array:
    """A NumPy array of `value`, which must already be on the CPU, complete and dense."""
    library = type(value).__module__.partition(".")[0]
    if library in _OTHER_LIBRARIES:
        hint = _OTHER_LIBRARIES[library].replace("X", name)
        raise TypeError(f"{name} is a {library} {type(value).__name__}: csoftmax takes NumPy arrays; pass {hint}")
    if is_sparse(value):
        raise TypeError(f"{name} is a sparse {type(value).__name__}: expected a dense array; pass {name}.toarray()")
    masked = sys.modules.get("numpy.ma")  # which NumPy itself imports only when it is used
    if masked is not None and isinstance(value, masked.MaskedArray):
        raise TypeError(
            f"{name} is a masked array: csoftmax has no notion of missing values; "
            f"fill them with {name}.filled(...) or drop their rows"
        )
    value = read(value, name)
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} cannot be made a NumPy array, its rows may differ in length: {error}") from None


def as_table(X: Any, name: str, minimum_rows: int = 1) -> Rows:
    """X as a two-dimensional array, or sparse as it is, of any dtype, with at least so many rows and one column."""
    array = X if is_sparse(X) else as_array(X, name)
    if array.ndim != 2:
        hint = " Reshape your data: X.reshape(1, -1) if it is one sample, X.reshape(-1, 1) if it is one feature."
        raise ValueError(
            f"{name} has shape {array.shape}: expected a 2D array, got {array.ndim}D, one row per sample."
            f"{hint if array.ndim == 1 else ''}"
        )
    for n, least, what in zip(array.shape, (minimum_rows, 1), ("sample", "feature"), strict=True):
        if n < least:
            raise ValueError(
                f"{name} has {n} {what}(s) (shape={array.shape}) while a minimum of {least} is required: "
                f"there is nothing to learn from"
            )
    if array.shape[1] > _INT_MAX:
        raise ValueError(f"{name} has {array.shape[1]} columns: BLAS counts to {_INT_MAX}; use fewer features")
    return array


def as_rows(X: Any, name: str = "X", *, minimum_rows: int = 1) -> Rows:
    """X as a C-contiguous or CSR matrix, float32 or float64; its values are not looked at yet."""
    table = as_table(X, name, minimum_rows)
    return as_csr(table, name) if is_sparse(table) else as_floats(table, name)


def as_matrix(X: Any, name: str = "X", *, minimum_rows: int = 1) -> Array:
    """X as a C-contiguous float32 or float64 matrix; its values are not looked at yet."""
    return as_floats(as_table(as_array(X, name), name, minimum_rows), name)


def as_csr(table: Any, name: str) -> "csr_array":
    """A sparse matrix as CSR of floats, whose structure can be relied on; of CSR it shares the arrays that will do.

    SciPy's own conversions trust what the user may have changed, so nothing is converted before it is checked. Entries
    may stand in any order in their row. Those that occur twice are added up, in a copy.
    """
    from scipy.sparse import csr_array

    n, d = shape = (1, *table.shape)[-2:]
    if table.format != "csr":
        table = _checked(table, shape, name).tocsr()
    values, indices, indptr, twice = _compressed(table, n, d, name)
    values = as_floats(values, name)
    matrix = csr_array(shape, dtype=values.dtype)
    matrix.data, matrix.indices, matrix.indptr = values, indices, indptr
    if twice:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


def _checked(table: Any, shape: tuple[int, int], name: str) -> Any:
    """A sparse matrix of another format than CSR with the same arrays, which SciPy can convert without harm."""
    from scipy import sparse

    n, d = shape
    if table.format == "csc":
        parts = _compressed(table, d, n, name)[:3]
        return sparse.csc_array(parts, shape)
    if table.format == "bsr":
        height, width = table.data.shape[1:]
        if not height * width or n % height or d % width:
            raise ValueError(f"{name} has blocks of {height} x {width}, which do not fill its shape {shape}")
        parts = _compressed(table, n // height, d // width, name)[:3]
        return sparse.bsr_array(parts, shape)
    if table.format == "dia":
        return sparse.dia_array((table.data, table.offsets), shape)
    if table.format == "lil":
        if [len(row) for row in table.rows] != [len(row) for row in table.data] or len(table.rows) != n:
            raise ValueError(f"{name} is not a valid LIL matrix: rows and data differ in length; build it anew")
        return table
    table = table.tocoo()
    # Its constructor compares lengths and coordinates with the shape.
    places = table.coords if hasattr(table, "coords") else (table.row, table.col)
    if any(place.dtype.kind not in "iu" for place in places):
        raise ValueError(f"{name} has coordinates that are not integers: build it anew with scipy.sparse.coo_array")
    return sparse.coo_array((table.data, (np.zeros_like(places[0]), *places)[-2:]), shape)


def _compressed(table: Any, n_major: int, n_minor: int, name: str) -> tuple[Array, Array, Array, bool]:
    """Values, indices and indptr of CSR, CSC or BSR, as they claim to be, and whether any entry occurs twice."""
    values, indices, indptr = (np.ascontiguousarray(part) for part in (table.data, table.indices, table.indptr))
    for part, of in (values, "data"), (indices, "indices"), (indptr, "indptr"):
        check_file(part, 0, len(part), "entries", f"{name}.{of}")
    fault = "indptr" if indptr.shape != (n_major + 1,) else "indices" if indices.ndim != 1 else ""
    if indices.dtype.kind not in "iu" or indptr.dtype.kind not in "iu":
        fault = "indices, which are not integers"
    if not fault:
        if indices.dtype != indptr.dtype or indices.dtype not in (np.int32, np.int64):
            indices, indptr = indices.astype(np.int64), indptr.astype(np.int64)
        fault = _kernels.csr_fault(indices, indptr, n_minor, np.empty_like(indices, shape=n_minor))
    if not fault.startswith("ind") and (len(values) < indptr[-1] or values.ndim != (3 if table.format == "bsr" else 1)):
        fault = "data"
    if fault not in ("", "duplicates"):
        raise ValueError(
            f"{name} is not a valid {table.format.upper()} matrix of shape {table.shape}, by its {fault}: "
            f"expected {n_major + 1} values of indptr that do not fall and start at 0, indices from 0 to {n_minor - 1},"
            f" and as many values; build it anew with scipy.sparse.{table.format}_array"
        )
    size = indptr[-1]
    return values[:size], indices[:size], indptr, fault == "duplicates"


def as_floats(array: Array, name: str) -> Array:
    """The array as C-contiguous float32 or float64 in native byte order; a copy only if it is not already."""
    dtype = array.dtype.newbyteorder("=")
    if dtype.kind == "O":
        return _objects_as_floats(array, name)
    if dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {dtype}, expected real numbers")
    if dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {array.dtype}: expected real numbers; encode text and dates first")
    if dtype.kind == "f" and dtype.itemsize > 8:
        raise TypeError(
            f"{name} has dtype {array.dtype}, of which float64 would lose digits: "
            f"convert it yourself with {name}.astype(numpy.float64) if that is meant"
        )
    if dtype not in (np.float32, np.float64):
        dtype = np.dtype(np.float64)
    if array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned:
        return array
    advice = f"a C-contiguous file of float32 or float64 needs none: write {name} to one, and map it by numpy.memmap"
    require_memory(array.size * dtype.itemsize, f"a contiguous {dtype} copy of {name}, shape {array.shape},", advice)
    return np.require(array, dtype, ["C", "A"])


def _objects_as_floats(array: Array, name: str) -> Array:
    """An array of objects that are real numbers as float64; None and NaN become NaN, for `check_finite` to find."""
    if any(isinstance(value, str | bytes) for value in array.flat):
        raise ValueError(f"{name} holds text: expected real numbers; encode it first")
    try:
        return array.astype(np.float64, order="C")
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name} holds values that are not numbers ({error}): encode them first") from None
    except TypeError as error:
        if any(isinstance(value, Complex) and not isinstance(value, Real) for value in array.flat):
            raise ValueError(f"Complex data not supported: {name} holds it, expected real numbers") from None
        if any(is_missing(value) for value in array.flat):
            raise ValueError(f"{name} contains a missing value (NA): impute or drop such rows") from None
        raise TypeError(f"{name} holds values that are not numbers ({error}): encode them first") from None


def check_finite(array: Rows, name: str, n_threads: int = 1) -> None:
    """Refuse NaN and infinity, naming the first place."""
    values = array if is_dense(array) else array.data
    if values.size == 0:
        return
    rows = values.reshape(len(values), -1) if isinstance(values, np.ndarray) else values
    mapped, what = isinstance(rows, np.ndarray) and is_mapped(rows), "rows" if is_dense(array) else "entries"
    step = max(1, 2**18 // max(1, rows.shape[1]))
    clean = [True] * -(-len(rows) // step)

    def look(item: int, worker: int) -> None:
        if mapped:
            check_file(rows, item * step, min((item + 1) * step, len(rows)), what, name)
        clean[item] = _kernels.all_finite(rows[item * step : (item + 1) * step])

    run(look, len(clean), n_threads)
    if not all(clean):
        first = clean.index(False) * step
        block = rows[first : first + step]
        row, column = np.argwhere(~np.isfinite(block))[0]
        bad, row = block[row, column], first + row
        if not is_dense(array):
            row, column = np.searchsorted(array.indptr, row, side="right") - 1, array.indices[row]
        where = f"row {row}, column {column}" if array.ndim == 2 else f"place {row}"  # of a vector, or of one row
        raise ValueError(f"{name} contains {bad} at {where}: NaN and infinity are not taken; impute or drop such rows")


def as_vector(value: Any, name: str, length: int, rows_of: str = "X") -> Array:
    """A one-dimensional array of the given length."""
    array = as_array(value, name)
    if array.ndim != 1:
        raise ValueError(
            f"{name} has shape {array.shape}: expected one dimension, one value per row of {rows_of}; "
            f"{name}.ravel() makes it flat"
        )
    if len(array) != length:
        raise ValueError(f"{name} has {len(array)} values and {rows_of} has {length} rows: expected one value per row")
    return array


def as_sample_weight(sample_weight: Any, n_samples: int) -> Float64:
    """Weights as float64: finite, none negative, not all zero. None is one each."""
    weight = as_weights(sample_weight, n_samples)
    with np.errstate(over="ignore"):
        total = weight.sum()
    if not 0 < total < np.inf:
        raise ValueError(f"sample_weight adds up to {total}: expected a finite sum, and weights that are not all zero")
    return weight


def as_weights(sample_weight: Any, n_samples: int) -> Float64:
    """The same of some of the rows, where all may be zero."""
    if sample_weight is None:
        return np.ones(n_samples)
    weight = as_floats(as_vector(sample_weight, "sample_weight", n_samples), "sample_weight").astype(np.float64)
    check_finite(weight, "sample_weight")
    if weight.min(initial=0) < 0:
        raise ValueError(
            f"sample_weight has the negative value {weight.min()} at row {weight.argmin()}: weights are zero or more"
        )
    return weight


def as_labels(y: Any, n_samples: int) -> Array:
    """Class labels of any sortable type, one per row; class numbers stored as floats must be whole.

    Numbers that are stored as objects count as numbers; one column counts as a vector, with a warning.
    """
    labels = as_vector(_one_column(y), "y", n_samples)
    if labels.dtype.kind == "T":  # NumPy's strings of any length, which model files do not know
        labels = labels.astype(np.str_)
    if labels.dtype.kind == "O":
        if any(is_missing(value) for value in labels):
            raise ValueError("y contains a missing value (None or NaN): drop such rows or give them a label")
        if all(isinstance(value, Real) for value in labels):
            numbers = np.array(labels.tolist())
            labels = numbers if np.array_equal(numbers, labels) else labels
    if labels.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: y has dtype {labels.dtype}, and class labels need an order")
    if labels.dtype.kind == "f":
        check_finite(np.ascontiguousarray(labels, np.float64), "y")
        if not np.all(wrong := labels == np.floor(labels)):
            first = int(np.argmin(wrong))
            raise ValueError(
                f"y has the value {labels[first]} at row {first}: class labels given as floats must be "
                f"whole numbers. A continuous target needs a regression model (Unknown label type)"
            )
    if labels.dtype.kind in "mM" and np.isnat(labels).any():
        raise ValueError("y contains a missing value (NaT): drop such rows or give them a label")
    return labels


def _one_column(y: Any) -> Any:
    """y without the second dimension of a single column."""
    if y is None:
        raise ValueError("training requires y to be passed, but the target y is None: pass one label per row of X")
    names = column_names(y)
    if names is not None and len(names) != 1:
        raise ValueError(
            f"y is a data frame of {len(names)} columns: expected one label per row; choose the column to be predicted"
        )
    labels = as_array(y if names is None else y[names[0]], "y")
    if names is None and labels.shape[1:] != (1,):
        return labels
    warn(
        DataConversionWarning(
            f"A column-vector y was passed when a 1d array was expected: y has shape ({len(labels)}, 1), "
            f"pass y.ravel() or a series"
        )
    )
    return labels.ravel()


def encode_labels(labels: Array) -> tuple[Array, Codes]:
    """(sorted distinct labels, int32 code of each label)."""
    classes, codes = distinct(labels)
    if len(classes) < 2:
        raise ValueError(
            f"y has only one class, {classes[0]!r} (rows of zero weight do not count): expected at least two classes"
        )
    return classes, codes


def distinct(labels: Array) -> tuple[Array, Codes]:
    """The same for any number of classes; whole numbers that lie close together are counted, not sorted."""
    if labels.dtype.kind in "iu" and len(labels) > 0:
        low, high = int(labels.min()), int(labels.max())
        if high - low < len(labels) and high <= np.iinfo(np.int64).max:
            place = labels.astype(np.int64) - low
            present = np.bincount(place) > 0
            number = (np.cumsum(present) - 1).astype(np.int32)
            return (np.flatnonzero(present) + low).astype(labels.dtype), number[place]
    if not len(labels):
        return labels, np.zeros(0, np.int32)
    try:
        # In parts, as the sort that finds a code for each row takes 40 bytes of it.
        parts = [slice(start, start + LABELS) for start in range(0, len(labels), LABELS)]
        classes = np.unique(np.concatenate([np.unique(labels[part]) for part in parts]))
        codes = np.empty(len(labels), np.int32)
        for part in parts:
            codes[part] = np.searchsorted(classes, labels[part])
    except TypeError as error:
        raise TypeError(
            f"y mixes labels that cannot be sorted ({error}): make them one type, for instance y.astype(str)"
        ) from None
    return classes, codes


def class_factors(class_weight: Any, classes: Array, codes: Codes, weight: Float64, labels: Array) -> Float64:
    """The factor of each row: a user's by label, or "balanced": sum of weights / (K * weight of the class).

    classes and codes are of the rows of positive weight; other rows get a factor of 1.
    """
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(f"class_weight={class_weight!r}: expected None, 'balanced' or a dict from label to weight")
        total = np.bincount(codes, weights=weight[weight > 0], minlength=len(classes))
        factors = total.sum() / (len(classes) * total)
    elif isinstance(class_weight, Mapping):
        names = classes.tolist()
        extra, missing = set(class_weight) - set(names), set(names) - set(class_weight)
        if extra and missing:
            raise ValueError(
                f"class_weight names {list(extra)}, which y does not contain, and leaves out {list(missing)}, which it "
                f"does: expected labels among {names}"
            )
        factors = np.array([number(class_weight.get(name, 1.0), f"class_weight[{name!r}]", 0) for name in names])
        if not factors.any():
            raise ValueError(
                f"class_weight is 0 for every class of {names}: expected a positive weight for at least two"
            )
    else:
        raise TypeError(
            f"class_weight is a {type(class_weight).__name__}: expected None, 'balanced' or a dict from label to weight"
        )
    rows = np.ones(len(labels))
    rows[weight > 0] = factors[codes]
    return rows


def check_total(weight: Float64, C: float) -> None:
    """Refuse weights whose sum, or whose penalty 1 / (C sum), float64 cannot hold."""
    with np.errstate(over="ignore", under="ignore"):
        total = float(weight.sum())
        penalised = C * total
    if not 0 < total < np.inf:
        raise ValueError(f"the weights, with class_weight, add up to {total}: expected a positive, finite sum")
    if not penalised >= 1 / np.finfo(np.float64).max:
        raise ValueError(f"C={C!r} times the sum of weights {total:g} is too small: 1 / (C sum) is beyond float64")


def require_memory(n_bytes: int, what: str, advice: str = "use fewer features or classes, or float32") -> None:
    """Refuse before trying what cannot fit: Linux would grant the memory and kill the process later."""
    present = present_memory()
    if n_bytes > present:
        raise MemoryError(
            f"{what} needs {n_bytes / 2**30:.1f} GiB and this machine has {present / 2**30:.1f} GiB: {advice}"
        )


def present_memory() -> float:
    """Bytes of memory of this machine; infinite on Windows, which refuses an allocation that it cannot keep."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf


def require_model_memory(n_classes: int, n_features: int, newton: bool) -> None:
    """Refuse a K x d whose training cannot fit: coefficients, gradient, direction and three pairs of history."""
    size = n_classes * n_features
    require_memory(12 * 8 * size, f"a model of {n_classes} classes x {n_features} features")
    if newton:
        require_memory(5 * 8 * size**2, f"solver='newton' for {n_classes} classes x {n_features} features")


# ---- parameters ---------------------------------------------------------------------------------------------------


def real(value: Any, name: str) -> float:
    """A real number that is not a bool."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}: expected a real number")
    return float(value)


def number(value: Any, name: str, low: float, *, strict: bool = False, infinite: bool = False) -> float:
    """A real number at least `low`, or above it if strict; infinity only where it has a meaning."""
    result = real(value, name)
    above = result > low if strict else result >= low
    if not above or (np.isinf(result) and not infinite):
        raise ValueError(
            f"{name}={value!r}: expected a {'finite ' if not infinite else ''}number "
            f"{'above' if strict else 'of at least'} {low:g}{', or numpy.inf' if infinite else ''}"
        )
    return result


def integer(value: Any, name: str, low: int) -> int:
    """A whole number at least `low`."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}: expected a whole number")
    if value < low:
        raise ValueError(f"{name}={value!r}: expected a whole number of at least {low}")
    return int(value)


def flag(value: Any, name: str) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}: expected True or False")
    return bool(value)


def threads(value: Any) -> int:
    """Number of threads asked for; None is as many as this process may use."""
    return available_threads() if value is None else integer(value, "n_threads", 1)
