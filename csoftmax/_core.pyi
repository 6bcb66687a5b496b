"""Types of the compiled core; see _core.pyx for what each function does."""

from typing import Any

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[np.floating[Any]]
_Float64 = npt.NDArray[np.float64]
_Labels = npt.NDArray[np.int32]

def workspace_size(n_features: int, n_columns: int, block: int, tiled: bool, itemsize: int) -> int: ...
def loss_gradient(
    X: _Array,
    y: _Labels,
    weight: _Array,
    coef: _Array,
    intercept: _Array,
    chunk: int,
    block: int,
    tiled: bool,
    first: int,
    last: int,
    losses: _Float64,
    coef_gradients: _Array,
    intercept_gradients: _Array,
    work: _Array,
) -> None: ...
def scores(X: _Array, coef: _Array, intercept: _Array, start: int, stop: int, block: int, out: _Array) -> None: ...
def softmax_rows(z: _Array, start: int, stop: int, block: int, logarithm: bool) -> None: ...
def exp(x: _Array, out: _Array) -> None: ...
def column_range(X: _Array, weight: _Array, low: _Float64, high: _Float64, total: _Float64) -> None: ...
def column_spread(X: _Array, weight: _Array, center: _Float64, unit: _Float64, total: _Float64) -> None: ...
def row_lengths(X: _Array, center: _Float64, unit: _Float64, lengths: _Float64) -> None: ...
def weighted_gram(Z: _Float64, root_weight: _Float64, out: _Float64, work: _Float64) -> None: ...
def hessian(
    Z: _Float64,
    probability: _Float64,
    weight: _Float64,
    out: _Float64,
    penalty: _Float64,
    work: _Float64,
    factors: _Float64,
) -> None: ...
def invert(matrix: _Float64) -> bool: ...
def pairs_backward(
    steps: _Float64, turns: _Float64, rho: _Float64, newest: int, count: int, vector: _Float64, shares: _Float64
) -> None: ...
def pairs_forward(
    steps: _Float64, turns: _Float64, rho: _Float64, newest: int, count: int, vector: _Float64, shares: _Float64
) -> None: ...
def all_finite(X: _Array) -> bool: ...
def instruction_sets() -> list[str]: ...
def select_instruction_set(name: str | None = None) -> str: ...
