"""L-BFGS on top of a model of the curvature: the solvers "lbfgs", "newton" and "auto" are settings of one loop.

    minimise J(theta):    theta <- theta - t H dJ(theta)

H is the inverse of a curvature model, corrected by the last changes s of theta and y of the gradient (Nocedal 1980,
doi:10.1090/S0025-5718-1980-0572855-7). The model is made anew now and then, at the current point.

    lbfgs     a diagonal bound of the curvature, never made anew
    newton    the full Hessian of all rows at every iteration, nothing to correct
    auto      the most exact model that pays, see `choose`

The line search uses that J is convex: along the direction the slope only rises, so its sign tells on which side of a
trial the minimum lies, also where differences of J have drowned in rounding. A trial is accepted by the Wolfe
conditions, or near the optimum by the approximate ones of Hager and Zhang (2005, doi:10.1137/030601880).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .. import _core, _curvature
from .._curvature import Sample, Solve
from .._objective import Objective
from .._typing import Float64
from ._result import Options, Result

HISTORY_BYTES = 2**26
SAMPLE_BYTES = 2**26
DECREASE, CURVATURE = 1e-4, 0.9
MAX_TRIALS = 40


class Pairs:
    """The newest changes of theta and of the gradient, for the two-loop recursion."""

    def __init__(self, most: int, size: int) -> None:
        self.count, self._newest = 0, -1
        self._steps, self._turns = np.empty((most, size)), np.empty((most, size))
        self._rho, self._shares = np.empty(most), np.empty(most)

    def clear(self) -> None:
        """Forget them."""
        self.count = 0

    def add(self, step: Float64, turn: Float64) -> None:
        """Keep a pair in place of the oldest; not one whose curvature is rounding error."""
        curvature = float(step @ turn)
        if not len(self._rho) or curvature <= np.finfo(np.float64).eps * float(turn @ turn):
            return
        self._newest = (self._newest + 1) % len(self._rho)
        self._steps[self._newest], self._turns[self._newest], self._rho[self._newest] = step, turn, 1 / curvature
        self.count = min(self.count + 1, len(self._rho))

    def inverse_times(self, vector: Float64, solve: Callable[[Float64], Float64], exact: bool) -> Float64:
        """H times vector; the model's inverse is scaled by s'y / y'H0 y of the newest pair, unless it is exact."""
        if not self.count:
            return solve(vector)
        kept = self._steps, self._turns, self._rho, self._newest, self.count
        result = vector.copy()
        _core.pairs_backward(*kept, result, self._shares)
        result = solve(result)
        if not exact:
            turn = self._turns[self._newest]
            result /= self._rho[self._newest] * float(turn @ solve(turn))
        _core.pairs_forward(*kept, result, self._shares)
        return result


@dataclass(frozen=True)
class Setting:
    """Which model of the curvature, from how many rows, made anew how often, and how much it is corrected."""

    reason: str
    model: Callable[[Sample, Float64], Solve] | None
    n_rows: int
    interval: int
    history: int
    exact: bool  # the model is the Hessian but for sampling: its decrement is the gap


def lbfgs(objective: Objective, start: Float64, options: Options) -> Result:
    """Plain L-BFGS in standardised coordinates."""
    return _minimise(objective, start, options, Setting("it was asked for", None, 0, 0, _history(objective), False))


def newton(objective: Objective, start: Float64, options: Options) -> Result:
    """Newton's method with the exact Hessian."""
    setting = Setting("it was asked for", _curvature.hessian, objective.n_rows, 1, 0, True)
    return _minimise(objective, start, options, setting)


def auto(objective: Objective, start: Float64, options: Options) -> Result:
    """The setting that suits the shape of the data."""
    return _minimise(objective, start, options, choose(objective))


def choose(objective: Objective) -> Setting:
    """The first rung of the ladder whose making costs few enough passes.

    Costs are counted in multiplications. The subset of rows is as large as about one pass's worth of work allows, and
    at least some multiple of the number of features, as far as memory goes.
    """
    n, size, columns = objective.n_rows, objective.n_coordinates, objective.n_columns
    free = max(1, columns - 1)
    one_pass = 4 * n * size * max(columns, 8) + 1e6
    most = max(1, SAMPLE_BYTES // (8 * size))

    def rows(least: int, work_per_row: int) -> int:
        return int(min(n, most, max(least, one_pass / work_per_row)))

    def setting(name: str, m: int, cost: float, interval: int, exact: bool) -> Setting:
        reason = f"curvature model {name!r} on {m} of {n} rows costs {cost:.2g} passes, one every {interval} iterations"
        return Setting(reason, getattr(_curvature, name), m, interval, 0 if exact else _history(objective), exact)

    full = free * size
    m = rows(20 * full, full**2)
    cost = (m * full**2 + full**3 / 3) / one_pass
    if (cost <= 8 and m >= min(n, 10 * full) and full <= 3000) or (columns == 1 and full <= 1000):
        return setting("hessian", m, cost, max(1, min(10, round(3 * cost))), True)
    m = rows(max(2000, 10 * size), free * size**2)
    cost = free * (m * size**2 + size**3 / 3) / one_pass
    if cost <= 4 and m >= min(n, 4 * size) and 8 * free * size**2 <= SAMPLE_BYTES:
        return setting("classes", m, cost, 20, False)
    m = rows(max(2000, 10 * size), size**2)
    cost = (m * size**2 + size**3) / one_pass
    if cost <= 30 and 8 * size**2 <= SAMPLE_BYTES:
        return setting("gram", m, cost, 20, False)
    m = min(n, most)
    return setting("diagonal", m, m * size * columns / one_pass, 10, False)


def _history(objective: Objective) -> int:
    return int(np.clip(HISTORY_BYTES // (16 * objective.size), 3, 30))


def _minimise(objective: Objective, start: Float64, options: Options, setting: Setting) -> Result:
    theta = start.copy()
    value, gradient = objective.value_gradient(theta)
    curve = [value]
    sample = objective.sample(setting.n_rows) if setting.model else None
    scaling = 1 / objective.curvature_diagonal()
    pairs = Pairs(setting.history, objective.size)
    solve: Callable[[Float64], Float64] = lambda vector: scaling * vector  # noqa: E731
    n_iter, age, direction = 0, -1, np.zeros(0)

    def result(converged: bool, message: str) -> Result:
        kind = "bound" if bound <= allowed or not np.isfinite(gap) else "estimate"
        return Result(
            theta, value, norm, bound if kind == "bound" else gap, kind, n_iter, converged, message, setting.reason
        )

    while True:
        if setting.model and sample is not None and (age < 0 or age >= setting.interval):
            solve = setting.model(sample, theta.reshape(objective.n_columns, -1))
            age = 0
            if setting.exact:
                pairs.clear()
        last = direction
        direction = -pairs.inverse_times(gradient, solve, setting.exact)
        slope = float(direction @ gradient)
        norm = float(abs(gradient).max(initial=0.0))
        allowed = options.tol / 100 * max(value, 1e-3)
        gap = -slope / 2
        if not setting.exact:
            # The decrement of a corrected model falls short of the gap; where J falls geometrically, what it fell by
            # over a tenth of the iterations exceeds what is left.
            window = max(5, n_iter // 10)
            gap = max(gap, curve[-1 - window] - value) if n_iter >= window else max(gap, curve[0] - value)
        last_look = norm <= options.tol or n_iter == options.max_iter
        bound = objective.gap_bound(theta, value, gradient) if last_look else np.inf
        if norm <= options.tol and min(gap, bound) <= allowed and (options.tol > 0 or norm == 0):
            if objective.alpha == 0 and last.size and objective.recedes(last):
                return result(False, _separable("J falls for ever along the last step"))
            return result(
                True, f"converged: gradient {norm:.2g} and gap {min(gap, bound):.2g} within tol={options.tol:g}"
            )
        if objective.is_separated(value):
            return result(False, _separable("every row is on the right side"))
        if n_iter == options.max_iter:
            return result(
                False,
                f"reached max_iter={n_iter} with a gradient of {norm:.2g} and an estimated gap of {gap:.2g} to an "
                f"objective of {value:.6g} (tol={options.tol:g}); raise max_iter or tol",
            )
        found = _line_search(objective.value_gradient, theta, value, slope, direction, objective.precision)
        if found is None and (pairs.count or age > 0):
            pairs.clear()
            age = -1 if setting.model else 0
            continue
        if found is None:
            return result(
                min(-slope / 2, bound) <= 100 * objective.precision * max(value, 1e-3),
                f"stopped where rounding hides any further descent, with a gradient of {norm:.2g} and an estimated gap "
                f"of {-slope / 2:.2g}; tol={options.tol:g} asks for more than this dtype holds",
            )
        step, value, new_gradient = found
        n_iter += 1
        age += 1
        moved, turned = step * direction, new_gradient - gradient
        theta += moved
        gradient = new_gradient
        curve.append(value)
        pairs.add(moved, turned)
        if options.monitor(n_iter, value, float(abs(gradient).max())):
            norm = float(abs(gradient).max())
            return result(False, "was stopped by the callback")


def _separable(why: str) -> str:
    return (
        f"found the classes separable ({why}): without a penalty the loss has no minimum and the weights would grow "
        f"for ever; they were stopped at finite values. Use a finite C for a model that is defined"
    )


def _line_search(
    value_gradient: Callable[[Float64], tuple[float, Float64]],
    theta: Float64,
    start_value: float,
    start_slope: float,
    direction: Float64,
    precision: float,
) -> tuple[float, float, Float64] | None:
    """(step, J, gradient) at a point that satisfies the conditions, or None if rounding hides it."""
    if not start_slope < 0:
        return None
    noise = 2 * precision * abs(start_value)
    low, low_slope = 0.0, start_slope
    high, high_slope = np.inf, np.nan
    step = 1.0
    for _ in range(MAX_TRIALS):
        value, gradient = value_gradient(theta + step * direction)
        slope = float(gradient @ direction)
        if not (np.isfinite(value) and np.isfinite(slope)):
            high, high_slope = step, np.nan
            step = low + 0.1 * (step - low)
            continue
        flat = abs(slope) <= CURVATURE * -start_slope
        lower = value <= start_value + DECREASE * step * start_slope
        as_low = value <= start_value + noise and slope <= (2 * DECREASE - 1) * start_slope
        if flat and (lower or as_low):
            return step, value, gradient
        if slope < 0:
            # The minimum lies further on: where the slope, drawn as a straight line, reaches zero.
            guess = step + (step - low) * slope / min(low_slope - slope, -1e-3 * abs(slope))
            low, low_slope = step, slope
            if np.isinf(high):
                step = min(max(guess, 1.5 * step), 10 * step)
                continue
        else:
            high, high_slope = step, slope
        width = high - low
        guess = low + width * low_slope / (low_slope - high_slope) if np.isfinite(high_slope) else low + width / 2
        step = min(max(guess, low + 0.1 * width), high - 0.1 * width)
    return None
