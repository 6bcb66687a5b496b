"""The search along a direction: by passes, or by the scores that are kept.

It uses that J is convex: along the direction the slope only rises, so its sign tells on which side of a trial the
minimum lies, also where differences of J have drowned in rounding. A trial is accepted by the Wolfe conditions, or near
the optimum by the approximate ones of Hager and Zhang (2005, doi:10.1137/030601880).
"""

import numpy as np

from .. import _linalg
from .._objective import Objective
from .._typing import Float64

DECREASE = 1e-4
MAX_TRIALS = 40


class Line:
    """J along a direction; each trial is a pass."""

    flat = 0.9  # share of the first slope that is small enough

    def __init__(self, objective: Objective, theta: Float64, direction: Float64, slope: float, trial: Float64) -> None:
        self._objective, self._theta, self._direction, self._trial = objective, theta, direction, trial
        self._value = np.inf

    def __call__(self, step: float) -> tuple[float, float]:
        """J and its slope by the step."""
        np.multiply(self._direction, step, out=self._trial)
        self._trial += self._theta
        self._value, gradient = self._objective.value_gradient(self._trial, self._trial)
        return self._value, _linalg.dot(gradient, self._direction)

    def end(self, step: float, theta: Float64) -> float:
        """J at the last trial, which is theta; its gradient is in `trial` then."""
        return self._value


class ScoresLine(Line):
    """The same where trials cost next to nothing, so the minimum along the line is met closely."""

    flat = 0.1

    def __init__(self, objective: Objective, theta: Float64, direction: Float64, slope: float, trial: Float64) -> None:
        super().__init__(objective, theta, direction, slope, trial)
        objective.aim(direction, slope)

    def __call__(self, step: float) -> tuple[float, float]:
        return self._objective.along(step)

    def end(self, step: float, theta: Float64) -> float:
        return self._objective.move(step, theta, self._trial)[0]


def line_search(line: Line, start_value: float, start_slope: float, precision: float) -> float | None:
    """The last step tried, where the conditions hold; None if rounding hides it."""
    noise = 2 * precision * abs(start_value)
    low, low_slope = 0.0, start_slope
    high, high_slope = np.inf, np.nan
    step = 1.0
    for _ in range(MAX_TRIALS):
        value, slope = line(step)
        if not (np.isfinite(value) and np.isfinite(slope)):
            high, high_slope = step, np.nan
            step = low + 0.1 * (step - low)
            continue
        flat = abs(slope) <= line.flat * -start_slope
        lower = value <= start_value + DECREASE * step * start_slope
        as_low = value <= start_value + noise and slope <= (2 * DECREASE - 1) * start_slope
        if flat and (lower or as_low):
            return step
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
