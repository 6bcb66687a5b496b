"""Types of the compiled core; see _core.pyx for what each function does."""

from typing import Any

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[np.floating[Any]]
_Float64 = npt.NDArray[np.float64]
_Labels = npt.NDArray[np.int32]
_Places = npt.NDArray[np.signedinteger[Any]]

def vector_bytes() -> int: ...
def layout(d: int, n_columns: int, tiled: bool, sparse: bool, itemsize: int) -> tuple[int, int, int]: ...
def pack(coef: _Array, intercept: _Array, fold: int, width: int, packed: _Array) -> None: ...
def unpack(packed: _Array, fold: int, width: int, coef: _Float64, intercept: _Float64) -> None: ...
def workspace_size(n_columns: int, block: int, itemsize: int) -> int: ...
def loss_gradient(
    X: _Array,
    tiled: bool,
    y: _Labels,
    weight: _Array,
    n_columns: int,
    packed: _Array,
    bounds: _Places,
    block: int,
    first: int,
    last: int,
    losses: _Float64,
    gradients: _Array,
    work: _Array,
) -> None: ...
def loss_gradient_csr(
    values: _Array,
    indices: _Places,
    indptr: _Places,
    d: int,
    y: _Labels,
    weight: _Array,
    n_columns: int,
    packed: _Array,
    bounds: _Places,
    block: int,
    first: int,
    last: int,
    losses: _Float64,
    gradients: _Array,
    work: _Array,
) -> None: ...
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
def scores(X: _Array, packed: _Array, start: int, stop: int, block: int, tiled: bool, out: _Array) -> None: ...
def scores_csr(
    values: _Array,
    indices: _Places,
    indptr: _Places,
    d: int,
    packed: _Array,
    start: int,
    stop: int,
    block: int,
    out: _Array,
) -> None: ...
def softmax_rows(z: _Array, start: int, stop: int, block: int, logarithm: bool) -> None: ...
def exp(x: _Array, out: _Array) -> None: ...
def log(x: _Array, out: _Array, plus_one: bool = False) -> None: ...
def column_range(X: _Array, weight: _Array, low: _Float64, high: _Float64, total: _Float64) -> None: ...
def column_spread(X: _Array, weight: _Array, center: _Float64, unit: _Float64, total: _Float64) -> None: ...
def row_lengths(X: _Array, center: _Float64, unit: _Float64, lengths: _Float64) -> None: ...
def all_finite(X: _Array) -> bool: ...
def instruction_sets() -> list[str]: ...
def select_instruction_set(name: str | None = None) -> str: ...
