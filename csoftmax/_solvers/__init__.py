"""The solvers: functions (objective, start, options) -> Result, in one table.

A solver knows no data. It sees an Objective (value_gradient, sample, gap_bound, ...) and a flat vector.
"""

from collections.abc import Callable

from .._objective import Objective
from .._typing import Float64
from ._result import Options, Result
from .gd import gradient_descent
from .quasi_newton import auto, lbfgs, newton

Solver = Callable[[Objective, Float64, Options], Result]

SOLVERS: dict[str, Solver] = {"auto": auto, "gd": gradient_descent, "lbfgs": lbfgs, "newton": newton}

__all__ = ["SOLVERS", "Options", "Result", "Solver"]
