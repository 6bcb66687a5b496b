"""Types of the compiled linear algebra; see _linalg.pyx for what each function does."""

import numpy as np
import numpy.typing as npt

_Float64 = npt.NDArray[np.float64]

def dot(x: _Float64, y: _Float64) -> float: ...
def exchange(old: _Float64, new: _Float64) -> None: ...
def plain(theta: _Float64, unit: _Float64, center: _Float64, intercept: _Float64) -> float: ...
def weighted_gram(Z: _Float64, root_weight: _Float64, out: _Float64, work: _Float64) -> None: ...
def add_hessian_of_penalty(penalty: _Float64, out: _Float64) -> None: ...
def hessian(
    Z: _Float64, probability: _Float64, weight: _Float64, out: _Float64, work: _Float64, factors: _Float64
) -> None: ...
def equilibrate(lower: _Float64, unit: _Float64) -> None: ...
def factorise(lower: _Float64, ridge: float, factor: _Float64) -> bool: ...
def solve(factors: _Float64, units: _Float64, member: npt.NDArray[np.intp], rows: _Float64) -> None: ...
def centre(rows: _Float64) -> None: ...
def pairs_backward(
    steps: _Float64, turns: _Float64, rho: _Float64, newest: int, count: int, vector: _Float64, shares: _Float64
) -> None: ...
def pairs_forward(
    steps: _Float64, turns: _Float64, rho: _Float64, newest: int, count: int, vector: _Float64, shares: _Float64
) -> None: ...
def descend(
    H: _Float64,
    gradient: _Float64,
    l1: _Float64,
    start: _Float64,
    step: _Float64,
    product: _Float64,
    tol: float,
    most: int,
) -> float: ...
def descend_low_rank(
    diagonal: _Float64,
    left: _Float64,
    right: _Float64,
    gradient: _Float64,
    l1: _Float64,
    start: _Float64,
    step: _Float64,
    product: _Float64,
    tol: float,
    most: int,
) -> float: ...
