"""Types of the compiled sums; see _sums.pyx for what each function does."""

from typing import Any

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[np.floating[Any]]
_Float64 = npt.NDArray[np.float64]
_Labels = npt.NDArray[np.int32]
_Places = npt.NDArray[np.signedinteger[Any]]

def touch(memory: npt.NDArray[np.uint8], step: int) -> int: ...
def column_range(
    X: _Array,
    weight: _Array,
    y: _Labels | None,
    center: _Float64,
    low: _Float64,
    high: _Float64,
    sums: _Float64,
    squares: _Float64,
) -> None: ...
def column_spread(X: _Array, weight: _Array, center: _Float64, unit: _Float64, total: _Float64) -> None: ...
def column_range_csr(
    values: _Array,
    indices: _Places,
    indptr: _Places,
    weight: _Array,
    y: _Labels | None,
    start: int,
    stop: int,
    low: _Float64,
    high: _Float64,
    sums: _Float64,
    squares: _Float64,
    present: _Float64,
    count: npt.NDArray[np.intp],
) -> None: ...
def column_spread_csr(
    values: _Array,
    indices: _Places,
    indptr: _Places,
    weight: _Array,
    start: int,
    stop: int,
    center: _Float64,
    unit: _Float64,
    total: _Float64,
) -> None: ...
def row_lengths(X: _Array, center: _Float64, unit: _Float64, lengths: _Float64) -> None: ...
def gram_shape(size: int) -> tuple[int, int]: ...
def gram(Z: _Float64, factor: _Float64, start: int, stop: int, out: _Float64) -> None: ...
def hessian(
    Z: _Float64,
    probability: _Float64,
    weight: _Float64,
    start: int,
    stop: int,
    out: _Float64,
    work: _Float64,
    factor: _Float64,
) -> None: ...
