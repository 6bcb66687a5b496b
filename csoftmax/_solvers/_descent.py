"""What the descent methods share: the iterate, the loop, and the tests that end it."""

import math
from abc import ABC, abstractmethod

import numpy as np

from .._objective import Objective
from .._typing import Float64
from ._result import Options, Result

PATIENCE = 5  # iterations without a smaller gradient, where J falls by less than rounding
WINDOW, EARLY = 5, 3  # iterations at least from which the rest of the descent is guessed, and among the first ten
FAST_WINDOW = 2  # the same where each iteration solves equations of the Hessian
MOST_RATIO = 0.95  # of J's falls; closer to one it is rounding
SINGLE = 1e-10  # precision of float32 is above this

Verdict = tuple[bool, str]  # converged, and why the fit ends


class Descent(ABC):
    """The iterate of a method that goes along one direction at a time, and the estimates of its distance from J*."""

    def __init__(self, objective: Objective, start: Float64, options: Options) -> None:
        self.objective, self.options = objective, options
        self.theta = start.copy()
        self.value, self.norm = np.inf, np.inf  # J, and the largest entry of its gradient
        self.gap = self.decrement = self.bound = np.inf  # estimates and a bound of J - J*; see `turn`
        self.curve: list[float] = []
        self.window = WINDOW
        self._stale = 0  # iterations since the least norm
        self._least_norm = np.inf
        self._stuck = False

    @property
    def n_iter(self) -> int:
        """Iterations done."""
        return len(self.curve) - 1

    @property
    def allowed(self) -> float:
        """The gap that ends the fit: float32 has no digits for the smaller one."""
        share = 1.0 if self.objective.precision > SINGLE else 0.01
        return share * self.options.tol * max(self.value, 1e-3)

    def run(self) -> Result:
        """Minimise J until the gradient test and the gap test of `SoftmaxRegression` both hold."""
        while True:
            self.turn()
            if verdict := self.verdict():
                return self.result(*verdict)
            if self._stuck or not self.search():
                if self.forget():
                    continue
                if self.options.tol > 0:
                    return self.result(*self.exhausted())
                self._stuck = True  # with tol=0 all iterations are run, those that do not move too
                self.arrive(self.value, self.norm)
            if self.options.monitor(self.n_iter, self.value, self.norm):
                return self.result(False, "was stopped by the callback")

    @abstractmethod
    def turn(self) -> None:
        """Find the direction, and with it the gap: the decrement of the model, an estimate of J - J*, and a bound."""

    @abstractmethod
    def search(self) -> bool:
        """Move along the direction; False where rounding hides any point that is better."""

    @abstractmethod
    def forget(self) -> bool:
        """Drop what may have misled the direction; False if there is nothing to drop."""

    @property
    @abstractmethod
    def reason(self) -> str:
        """Why the method ran as it did."""

    def arrive(self, value: float, norm: float) -> None:
        """Keep J and the largest entry of its gradient at the next iterate."""
        self.value, self.norm = value, norm
        self._stale = 0 if norm < self._least_norm else self._stale + 1
        self._least_norm = min(norm, self._least_norm)
        self.curve.append(value)

    def rest_of_descent(self) -> float:
        """What J still has to fall by, to judge by the last iterations.

        The decrement of a corrected model falls short of the gap. J falls geometrically at best: by d over the newest
        tenth of the iterations, or `window`, and by D over as many before, so that d^2 / (D - d) is left. As it may
        also fall more and more slowly, it is at least 3 d sqrt(d / D), and without an L2 term d. The first iteration,
        which falls furthest, is never among them; where `window` is longer, three will do until there were ten.
        """
        window = min(self.n_iter, max(self.window, self.n_iter // 10))
        if 2 * EARLY < self.n_iter <= 2 * window:
            window = EARLY
        newest = self.curve[-1 - window] - self.value
        if self.n_iter <= 2 * window or newest <= 0:
            return newest
        before = self.curve[-1 - 2 * window] - self.curve[-1 - window]
        ratio = newest / before if newest < MOST_RATIO * before else MOST_RATIO
        return newest * max(3 * math.sqrt(ratio), ratio / (1 - ratio), float(self.objective.alpha == 0))

    # ---- the end --------------------------------------------------------------------------------------------------

    def verdict(self) -> Verdict | None:
        """What there is to say if the fit ends here."""
        tol, norm, gap = self.options.tol, self.norm, min(self.gap, self.bound)
        if norm <= tol and gap <= self.allowed and (tol > 0 or norm == 0):
            return self.converged(f"converged: gradient {norm:.2g} and gap {gap:.2g} are within tol={tol:g}")
        if endless := self.endless():
            return endless
        if tol > 0 and self._stale >= PATIENCE and self.gap <= self.objective.precision * max(self.value, 1e-3):
            # Rounding steers: where features are redundant it would drive the weights apart.
            return self.exhausted()
        if self.n_iter == self.options.max_iter:
            return False, (
                f"reached max_iter={self.n_iter} with a gradient of {norm:.2g} and an estimated gap of {gap:.2g} to an "
                f"objective of {self.value:.6g} (tol={tol:g}); raise max_iter or tol"
            )
        return None

    def converged(self, message: str) -> Verdict:
        """The verdict where both tests hold."""
        return True, message

    def endless(self) -> Verdict | None:
        """The verdict where J is known to have no minimum."""
        return None

    def exhausted(self) -> Verdict:
        """The verdict where no step helps: converged if the gap is as small as rounding lets it be."""
        precision = self.objective.precision
        optimal = self.decrement <= 100 * precision * max(self.value, 1e-3) and self.norm <= max(
            self.options.tol, precision**0.5
        )
        return optimal, (
            f"stopped where rounding hides any further descent, with a gradient of {self.norm:.2g} and an estimated "
            f"gap of {self.gap:.2g}; tol={self.options.tol:g} asks for more than this dtype holds"
        )

    def result(self, converged: bool, message: str) -> Result:
        """What the solver returns."""
        bounded = self.bound <= max(self.gap, self.allowed)
        gap, kind = (self.bound, "bound") if bounded else (self.gap, "estimate")
        return Result(self.theta, self.value, self.norm, gap, kind, self.n_iter, converged, message, self.reason)
