"""Types of the compiled passes; see _core.pyx for what each function does."""

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
