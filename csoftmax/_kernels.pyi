"""Types of the kernels; see _kernels.pyx for what each function does."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ._typing import Layout

_Array = npt.NDArray[np.floating[Any]]
_Float64 = npt.NDArray[np.float64]
_Places = npt.NDArray[np.signedinteger[Any]]

def vector_bytes() -> int: ...
def tiles_win(n_columns: int, n_bytes: int) -> bool: ...
def layout(d: int, n_columns: int, tiled: bool, sparse: bool, itemsize: int) -> Layout: ...
def pack(
    coef: _Array,
    intercept: _Array,
    how: Layout,
    packed: _Array,
    unit: _Float64 | None = None,
    part: int = 0,
    parts: int = 1,
) -> None: ...
def unpack(
    packed: _Array,
    how: Layout,
    coef: _Float64,
    intercept: _Float64,
    theta: _Float64 | None = None,
    unit: _Float64 | None = None,
    center: _Float64 | None = None,
    alpha: float = 0,
    part: int = 0,
    parts: int = 1,
) -> None: ...
def softmax_rows(z: _Array, start: int, stop: int, logarithm: bool) -> None: ...
def exp(x: _Array, out: _Array) -> None: ...
def log(x: _Array, out: _Array, plus_one: bool = False) -> None: ...
def all_finite(X: _Array) -> bool: ...
def csr_fault(indices: _Places, indptr: _Places, d: int, seen: _Places) -> str: ...
def instruction_sets() -> list[str]: ...
def select_instruction_set(name: str | None = None) -> str: ...
