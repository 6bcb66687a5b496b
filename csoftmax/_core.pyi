"""Types of the compiled core; see _core.pyx for what each function does."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ._typing import Layout

_Array = npt.NDArray[np.floating[Any]]
_Float64 = npt.NDArray[np.float64]
_Labels = npt.NDArray[np.int32]
_Places = npt.NDArray[np.signedinteger[Any]]

def make_a_sum(rows: int, entries: int, d: int) -> bool: ...
def workspace_size(n_columns: int, block: int, itemsize: int, gradient: int) -> int: ...
def loss_gradient(
    X: _Array,
    y: _Labels,
    weight: _Array,
    n_columns: int,
    how: Layout,
    packed: _Array,
    bounds: _Places,
    block: int,
    first: int,
    last: int,
    losses: _Float64,
    gradients: _Array,
    work: _Array,
    lost: _Float64 | None = None,
    chance: _Array | None = None,
) -> None: ...
def loss_gradient_csr(
    values: _Array,
    indices: _Places,
    indptr: _Places,
    d: int,
    y: _Labels,
    weight: _Array,
    n_columns: int,
    how: Layout,
    packed: _Array,
    bounds: _Places,
    block: int,
    first: int,
    last: int,
    losses: _Float64,
    gradients: _Array,
    work: _Array,
    kept: _Array | None = None,
    direction: _Array | None = None,
    step: float = 0,
    center: _Float64 | None = None,
    squares: _Array | None = None,
) -> None: ...
def keep_scores_csr(
    values: _Array,
    indices: _Places,
    indptr: _Places,
    d: int,
    n_columns: int,
    how: Layout,
    packed: _Array,
    bounds: _Places,
    block: int,
    first: int,
    last: int,
    kept: _Array,
    work: _Array,
) -> None: ...
def loss_along(
    y: _Labels,
    weight: _Array,
    n_columns: int,
    bounds: _Places,
    block: int,
    first: int,
    last: int,
    losses: _Float64,
    slopes: _Float64,
    work: _Array,
    kept: _Array,
    direction: _Array,
    step: float,
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
def scores(
    X: _Array,
    how: Layout,
    packed: _Array,
    start: int,
    stop: int,
    block: int,
    out: _Array,
) -> None: ...
def scores_csr(
    values: _Array,
    indices: _Places,
    indptr: _Places,
    d: int,
    how: Layout,
    packed: _Array,
    start: int,
    stop: int,
    block: int,
    out: _Array,
) -> None: ...
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
