"""Data frames and series of other libraries as NumPy arrays. They are told by what they offer: none is imported here.

pandas and its kin have `columns`, `dtypes` and `iloc`, polars `columns` and `dtypes`, Arrow `column_names` and
`schema.types`.
"""

import re
from typing import Any

import numpy as np

from ._typing import Array, DType

# How polars and Arrow write the types of numbers, in lower case.
_NUMBER = re.compile(r"u?int\d|float|double|halffloat|bool|decimal")


def column_names(value: Any) -> list[Any] | None:
    """Labels of the columns if the value is a data frame that NumPy can read, else None."""
    if isinstance(value, np.ndarray | list | tuple) or not hasattr(value, "__array__"):
        return None
    for attribute in ("column_names", "columns"):  # Arrow has both: its `columns` are the values
        names = getattr(value, attribute, None)
        if names is not None and not callable(names):
            return list(names)
    if hasattr(value, "__dataframe__"):
        return list(value.__dataframe__().column_names())
    return None


def feature_names(X: Any) -> Array | None:
    """Names of the columns of X as an array of objects, if they are strings; None for other labels, or none.

    Raises
    ------
    TypeError
        If some labels are strings and others are not.
    """
    names = column_names(X)
    if not names:
        return None
    kinds = sorted({type(name).__qualname__ for name in names})
    if kinds == ["str"]:
        return np.array(names, dtype=object)
    if "str" in kinds:
        raise TypeError(
            "Feature names are only supported if all input features have string names, but your input has "
            f"{kinds} as feature name / column name types: make all of them strings, with "
            "X.columns = X.columns.astype(str), or none"
        )
    return None


def read(value: Any, name: str) -> Any:
    """A data frame, or a series with a dtype of pandas's own, as a NumPy array; anything else as it is."""
    names = column_names(value)
    if names is not None:
        return _table(value, names, name)
    marks = ("__dataframe__", "__arrow_c_stream__", "collect")
    if not hasattr(value, "__array__") and any(hasattr(value, mark) for mark in marks):
        library = type(value).__module__.partition(".")[0]
        raise TypeError(
            f"{name} is a {library} {type(value).__name__}, which NumPy cannot read: expected an array or a data frame "
            f"in memory, as pandas, polars and PyArrow have them; pass {name}.collect() if it is lazy"
        )
    dtype = getattr(getattr(value, "dtype", None), "numpy_dtype", None)
    if dtype is None or not hasattr(value, "isna"):
        return value
    missing = np.asarray(value.isna())
    if missing.any():
        raise ValueError(f"{name} contains a missing value (NA) at row {missing.argmax()}: drop such rows or fill them")
    return value.to_numpy(dtype=dtype)


def is_missing(value: Any) -> bool:
    """Whether an object stands for no value: None, NaN, NaT or pandas's NA, which cannot be compared."""
    return value is None or type(value).__name__ == "NAType" or bool(value != value)


def _table(frame: Any, names: list[Any], name: str) -> Array:
    """The values of a data frame; columns that are not numbers are refused by their labels."""
    dtypes = _dtypes(frame)
    for j, (label, dtype) in enumerate(zip(names, dtypes, strict=False)):
        if not _is_number(dtype) and not _holds_objects(frame, j, dtype):
            raise ValueError(
                f"{name} has the column {label!r} of type {dtype}: expected numbers; convert or encode it first, "
                f"for instance with scikit-learn's OneHotEncoder, or leave it out"
            )
    if hasattr(frame, "iloc") and len(dtypes) > 0:
        common = np.result_type(*map(_stored, dtypes))
        if common.kind != "O" and any(dtype != common for dtype in dtypes):
            # pandas would make objects of nullable columns, and of bool beside float.
            return np.asarray(frame.to_numpy(dtype=common if common.kind == "f" else np.float64, na_value=np.nan))
    return np.asarray(frame)


def _dtypes(frame: Any) -> list[Any]:
    """The types of the columns, as far as the library tells them."""
    if hasattr(frame, "dtypes"):
        return list(frame.dtypes)
    return list(getattr(getattr(frame, "schema", None), "types", ()))


def _is_number(dtype: Any) -> bool:
    kind = getattr(dtype, "kind", None)  # which NumPy's dtypes have, and pandas's
    return _NUMBER.match(str(dtype).lower()) is not None if kind is None else kind in "biuf"


def _stored(dtype: Any) -> DType:
    """NumPy's dtype of the values: pandas has nullable ones, those of Arrow, and sparse ones."""
    stored: DType = getattr(dtype, "numpy_dtype", getattr(dtype, "subtype", dtype))
    return stored


def _holds_objects(frame: Any, column: int, dtype: Any) -> bool:
    """Whether it is a column of objects that may be numbers."""
    if not isinstance(dtype, np.dtype) or dtype.kind != "O":
        return False
    return not any(isinstance(value, str | bytes) for value in frame.iloc[:, column])
