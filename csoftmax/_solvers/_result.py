"""What every solver takes and returns."""

from collections.abc import Callable
from dataclasses import dataclass

from .._typing import Float64


@dataclass(frozen=True)
class Options:
    """When to stop, how far to step, and whom to tell.

    monitor(iteration, objective, gradient_norm) is called after every iteration; True stops the solver.
    """

    tol: float
    max_iter: int
    learning_rate: float
    monitor: Callable[[int, float, float], bool]


@dataclass(frozen=True)
class Result:
    """Where a solver stopped, and why: `message` completes "the solver ..."; `reason` says why it ran as it did."""

    theta: Float64
    objective: float
    gradient_norm: float
    gap: float
    gap_kind: str
    n_iter: int
    converged: bool
    message: str
    reason: str
