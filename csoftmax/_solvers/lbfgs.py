"""L-BFGS (Nocedal 1980, doi:10.1090/S0025-5718-1980-0572855-7) for a smooth convex function.

    minimise J(theta):    theta <- theta - t H dJ(theta)

H approximates the inverse Hessian: a diagonal H0 corrected by the last changes s of theta and y of the gradient. H0 is
one over a bound of the curvature's diagonal, times s'y / y'H0 y of the newest pair.

The line search uses that J is convex: along the direction the slope only rises, so its sign tells on which side of a
trial the minimum lies, also where differences of J have drowned in rounding. A trial is accepted by the Wolfe
conditions, or near the optimum by the approximate ones of Hager and Zhang (2005, doi:10.1137/030601880).
"""

from collections import deque
from collections.abc import Callable

import numpy as np

from .._objective import Objective
from .._typing import Float64
from ._result import Options, Result

HISTORY_BYTES = 2**26
DECREASE, CURVATURE = 1e-4, 0.9
MAX_TRIALS = 40

Pairs = deque[tuple[Float64, Float64, float]]


def lbfgs(objective: Objective, start: Float64, options: Options) -> Result:
    """Minimise J until the gradient test and the gap test of `SoftmaxRegression` both hold."""
    theta = start.copy()
    value, gradient = objective.value_gradient(theta)
    scaling = 1 / objective.curvature_diagonal()
    pairs: Pairs = deque(maxlen=int(np.clip(HISTORY_BYTES // (16 * theta.size), 3, 30)))
    n_iter = 0
    while True:
        direction = -_inverse_hessian_times(gradient, pairs, scaling)
        slope = float(direction @ gradient)
        # Half the Newton decrement, were H the inverse Hessian.
        gap = -slope / 2
        norm = float(abs(gradient).max(initial=0.0))
        if norm <= options.tol and gap <= options.tol / 100 * max(value, 1e-3) and (options.tol > 0 or norm == 0):
            return Result(
                theta,
                value,
                norm,
                gap,
                "estimate",
                n_iter,
                True,
                f"converged: gradient {norm:.2g} and estimated gap {gap:.2g} are within tol={options.tol:g}",
            )
        if n_iter == options.max_iter:
            return Result(
                theta,
                value,
                norm,
                gap,
                "estimate",
                n_iter,
                False,
                f"reached max_iter={n_iter} with a "
                f"gradient of {norm:.2g} and an estimated gap of {gap:.2g} (tol={options.tol:g}); "
                f"raise max_iter or tol",
            )
        found = _line_search(objective.value_gradient, theta, value, slope, direction, objective.precision)
        if found is None and pairs:
            pairs.clear()
            continue
        if found is None:
            exact = gap <= 100 * objective.precision * max(value, 1e-3)
            return Result(
                theta,
                value,
                norm,
                gap,
                "estimate",
                n_iter,
                exact,
                f"stopped where rounding hides any "
                f"further descent, with a gradient of {norm:.2g} and an estimated gap of {gap:.2g}; "
                f"tol={options.tol:g} asks for more than this dtype holds",
            )
        step, value, new_gradient = found
        n_iter += 1
        moved, turned = step * direction, new_gradient - gradient
        theta += moved
        gradient = new_gradient
        curvature = float(moved @ turned)
        if curvature > np.finfo(np.float64).eps * float(turned @ turned):
            pairs.append((moved, turned, 1 / curvature))
        if options.monitor(n_iter, value, float(abs(gradient).max())):
            return Result(
                theta, value, float(abs(gradient).max()), gap, "estimate", n_iter, False, "was stopped by the callback"
            )


def _inverse_hessian_times(gradient: Float64, pairs: Pairs, scaling: Float64) -> Float64:
    """H g by the two-loop recursion."""
    result = gradient.copy()
    shares = []
    for moved, turned, rho in reversed(pairs):
        shares.append(share := rho * float(moved @ result))
        result -= share * turned
    result *= scaling
    if pairs:
        _, turned, rho = pairs[-1]
        result /= rho * float(turned @ (scaling * turned))
    for (moved, turned, rho), share in zip(pairs, reversed(shares), strict=True):
        result += (share - rho * float(turned @ result)) * moved
    return result


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
