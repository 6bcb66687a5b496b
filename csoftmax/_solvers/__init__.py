"""The solvers: functions (objective, start, options) -> Result, in one table.

A solver knows no data. It sees an Objective (value_gradient, curvature_diagonal, split, ...) and a flat vector.
"""

from collections.abc import Callable

from .._objective import Objective
from .._typing import Float64
from ._result import Options, Result
from .gd import gradient_descent
from .lbfgs import lbfgs

Solver = Callable[[Objective, Float64, Options], Result]

SOLVERS: dict[str, Solver] = {"gd": gradient_descent, "lbfgs": lbfgs}

__all__ = ["SOLVERS", "Options", "Result", "Solver"]
