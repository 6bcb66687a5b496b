"""L1 and elastic net: the solver "auto" where the penalty is not smooth.

    minimise F(theta) = f(theta) + sum_a l1_a |theta_a|,    f convex and smooth, l1_a = 0 for intercepts

Each iteration replaces f by a quadratic model, minimises that plus the L1 term over a working set of coordinates, by
coordinate descent, and goes along the step until F falls (newton: Lee, Sun and Saunders 2014, doi:10.1137/130921428;
coordinate descent: Friedman, Hastie and Tibshirani 2010, doi:10.18637/jss.v033.i01). The model is

    the Hessian      in the coordinates of the working set, from a sample of rows, where that is small;
    else L-BFGS      in its direct, compact form (Byrd, Nocedal and Schnabel 1994, doi:10.1007/BF01582063) over the
                     diagonal of the Hessian, of which one coordinate costs but a few multiplications.

No class is held apart from the others: the model has the softmax's own coupling between classes. What is the same for
all classes costs nothing but penalty, and one coordinate after the other would hardly move it: see `balance`.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .. import _linalg
from .._curvature import StoredRows, solver
from .._objective import Objective
from .._typing import Float64
from ._result import Options, Result

Places = npt.NDArray[np.intp]

MOST_EXACT = 1500  # coordinates of a Hessian
ROWS_PER_COORDINATE, LEAST_ROWS = 10, 2000
LEAST_GROWTH = 100  # coordinates that may join the working set at once; as many as are in it if these are more
SWEEPS = 50  # of coordinate descent in a row
POLISH_WORK = 10**9
ROUNDS, POLISH = 4, 50  # of sweeps and solves on the support, and of solves in one round
ACCURACY = 0.03  # of the model's minimum, against the slopes it began with
DECREASE = 1e-4
MAX_HALVINGS = 40
DIAGONAL_INTERVAL = 10
PATIENCE = 5


class Step(NamedTuple):
    """A step in the coordinates of the working set, and by how much the model falls along it."""

    change: Float64
    decrease: float


def proximal(objective: Objective, start: Float64, options: Options) -> Result:
    """Minimise J, with its L1 term, until the tests of `SoftmaxRegression` hold."""
    state = _State(objective, start, options)
    while True:
        state.turn()
        if verdict := state.verdict():
            return state.result(*verdict)
        if not state.search():
            if state.forget():
                continue
            if options.tol > 0:
                return state.result(*state.exhausted())
            state.stay()
        if options.monitor(state.n_iter, state.value, state.norm):
            return state.result(False, "was stopped by the callback")


class _State:
    """The iterate, its working set, and what is known of the curvature."""

    def __init__(self, objective: Objective, start: Float64, options: Options) -> None:
        self.objective, self.options = objective, options
        self.l1 = objective.l1()
        self.theta = start.copy()
        self.n_iter = 0
        self.smooth, self.gradient = objective.value_gradient(self.theta)
        self.value = self.smooth + float(self.l1 @ abs(self.theta))
        self.curve = [self.value]
        self.slope = np.zeros(0)
        self.gap = self.bound = np.inf
        self.norm = np.inf
        self._measure()
        self._least_norm, self._stale, self._stuck = self.norm, 0, False
        self._steps: list[Float64] = []
        self._turns: list[Float64] = []
        self._history = int(np.clip(objective.memory // (4 * 16 * objective.size), 3, 20))
        self._rows: StoredRows | None = None
        self._n_rows = 0
        self._diagonal = np.zeros(0)
        self._diagonal_age = DIAGONAL_INTERVAL  # in iterations; it is made anew at this age
        self.exact = self.settled = False  # the model is the Hessian; its minimum was found
        self.active: Places = np.zeros(0, np.intp)
        self.step = Step(np.zeros(0), 0.0)

    # ---- where the iterate is -------------------------------------------------------------------------------------

    def _measure(self) -> None:
        """The subgradient of least norm, and its largest entry."""
        at_zero = np.sign(self.gradient) * np.maximum(abs(self.gradient) - self.l1, 0)
        self.slope = np.where(self.theta != 0, self.gradient + self.l1 * np.sign(self.theta), at_zero)
        self.norm = float(abs(self.slope).max())

    @property
    def allowed(self) -> float:
        """The gap that ends the fit."""
        return self.options.tol / 100 * max(self.value, 1e-3)

    def _working_set(self) -> Places:
        """Coordinates that are not zero, intercepts, and the steepest of those at zero that would not stay there."""
        inside = (self.theta != 0) | (self.l1 == 0) & (self.slope != 0)
        outside = np.flatnonzero(~inside & (self.slope != 0))
        most = max(LEAST_GROWTH, int(inside.sum()))
        if len(outside) > most:
            outside = outside[np.argpartition(-abs(self.slope[outside]), most)[:most]]
        return np.sort(np.append(np.flatnonzero(inside), outside))

    # ---- the model ------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """The step that minimises the model over the working set, and the estimates of the gap that come with it."""
        self.active = active = self._working_set()
        self.exact = self._is_affordable(len(active))
        self.step = self._by_hessian(active) if self.exact else self._by_pairs(active)
        self.gap = self.step.decrease
        if not (self.exact and self.settled):
            self.gap = max(self.gap, self._rest_of_descent())
        self.bound = np.inf
        if self.norm <= self.options.tol or self.n_iter == self.options.max_iter:
            self.bound = self.objective.l1_gap_bound(self.theta, self.gradient)

    def _is_affordable(self, size: int) -> bool:
        """Whether the Hessian of so many coordinates can be had, from enough rows; their number grows with it."""
        n, sparse = self.objective.n_rows, self.objective.sparse
        # All rows are used where they lie; a part of dense ones is a copy.
        room = n if sparse else self.objective.memory // (4 * 8 * self.objective.n_coordinates)
        if size > MOST_EXACT or min(n, ROWS_PER_COORDINATE * size) > 2 * room:
            return False
        # Twice as many from one iteration to the next: near the optimum they decide how fast it is reached.
        wanted = max(LEAST_ROWS, ROWS_PER_COORDINATE * size, 2 * self._n_rows if self.n_iter > 2 else 0)
        rows = n if wanted >= n else min(room, wanted)
        if self._rows is None or rows > self._n_rows:
            self._rows, self._n_rows = self.objective.stored_rows(rows), rows
        return True

    def _by_hessian(self, active: Places) -> Step:
        assert self._rows is not None
        if not len(active):  # no intercept, and every weight stays zero
            self.settled = True
            return Step(np.zeros(0), 0.0)
        hessian = self._rows.hessian(self.theta.reshape(self.objective.n_columns, -1), active)
        gradient, l1, start = self.gradient[active], self.l1[active], self.theta[active]
        step, product = np.zeros(len(active)), np.zeros(len(active))
        tol = ACCURACY * self.norm
        feature = active % self.objective.n_coordinates
        columns = self.objective.n_columns
        for attempt in range(ROUNDS):
            settled = _linalg.descend(hessian, gradient, l1, start, step, product, tol, SWEEPS) <= tol
            if settled and attempt:
                break
            for _ in range(min(POLISH, 4 + POLISH_WORK // len(active) ** 3)):
                if _polish(hessian, gradient, l1, start, step, product, feature, columns):
                    break
        self.settled = bool(settled)
        fall = float(gradient @ step) + float(step @ product) / 2 + _change_of_norm(l1, start, step)
        return Step(step, -fall)

    def _by_pairs(self, active: Places) -> Step:
        self._renew_diagonal()
        steps, turns = self._steps, self._turns
        gradient, l1, start = self.gradient[active], self.l1[active], self.theta[active]
        diagonal, rank = self._diagonal[active], 2 * len(steps)
        left, right = np.zeros((len(active), rank)), np.zeros((len(active), rank))
        if steps:
            scale = max(1e-3, float(turns[-1][active] @ (turns[-1][active] / diagonal)) / float(steps[-1] @ turns[-1]))
            diagonal = scale * diagonal
            moved = np.flatnonzero(np.any(steps, axis=0))  # few coordinates
            S, T = (np.array([one[moved] for one in vectors]) for vectors in (steps, turns))
            products, bases = S @ T.T, (S * (scale * self._diagonal[moved])) @ S.T
            lower = np.tril(products, -1)
            middle = np.block([[bases, lower], [lower.T, -np.diag(np.diag(products))]])
            unit = 1 / np.sqrt(abs(middle.diagonal()))
            right[:] = np.stack([diagonal * one[active] for one in steps] + [one[active] for one in turns], axis=1)
            right *= unit
            left[:] = np.linalg.solve(middle * unit * unit[:, None], right.T).T
        step, product = np.zeros(len(active)), np.zeros(rank)
        _linalg.descend_low_rank(
            diagonal, left, right, gradient, l1, start, step, product, ACCURACY * self.norm, SWEEPS
        )
        curvature = float(diagonal @ step**2) - float((left.T @ step) @ product)
        return Step(step, -(float(gradient @ step) + curvature / 2 + _change_of_norm(l1, start, step)))

    def _renew_diagonal(self) -> None:
        """The diagonal of the Hessian at theta, if it is time."""
        if self._diagonal_age < DIAGONAL_INTERVAL:
            return
        n = self.objective.n_rows
        room = n if self.objective.sparse else self.objective.memory // (4 * 8 * self.objective.n_coordinates)
        rows = self.objective.stored_rows(n if n <= 4 * room else max(LEAST_ROWS, room))
        entries = (rows.squares(self.theta.reshape(self.objective.n_columns, -1)) + rows.penalty).ravel()
        self._diagonal = np.maximum(entries, 1e-6)
        self._diagonal_age = 0

    def _rest_of_descent(self) -> float:
        """What F still has to fall by if it goes on as in the last iterations: geometrically, at best."""
        window = min(self.n_iter, max(5, self.n_iter // 10))
        newest = self.curve[-1 - window] - self.value
        if self.n_iter < 2 * window or newest <= 0:
            return max(newest, 0.0)
        before = self.curve[-1 - 2 * window] - self.curve[-1 - window]
        ratio = newest / before if newest < 0.95 * before else 0.95
        return newest * max(1.0, ratio / (1 - ratio))

    # ---- moving ---------------------------------------------------------------------------------------------------

    def search(self) -> bool:
        """Go along the step as far as F falls enough; False where rounding hides any point that is better."""
        change = self.step.change
        if self._stuck or not change.any():
            return False
        active, l1 = self.active, self.l1[self.active]
        start = self.theta[active]
        slope = float(self.gradient[active] @ change) + _change_of_norm(l1, start, change)
        if not slope < 0:
            return False
        noise = 2 * self.objective.precision * abs(self.value)
        length = 1.0
        for _ in range(MAX_HALVINGS):
            theta = self.theta.copy()
            theta[active] = start + length * change
            self.objective.balance(theta)
            smooth, gradient = self.objective.value_gradient(theta)
            value = smooth + float(self.l1 @ abs(theta))
            if value <= self.value + DECREASE * length * slope + (noise if -slope * length <= 100 * noise else 0):
                self._accept(theta, smooth, value, gradient)
                return True
            length /= 2
        return False

    def _accept(self, theta: Float64, smooth: float, value: float, gradient: Float64) -> None:
        step, turn = theta - self.theta, gradient - self.gradient
        if float(step @ turn) > np.finfo(np.float64).eps * float(turn @ turn) and not self.exact:
            self._steps, self._turns = [*self._steps, step][-self._history :], [*self._turns, turn][-self._history :]
        self.theta, self.smooth, self.value, self.gradient = theta, smooth, value, gradient
        self._measure()
        self._stale = 0 if self.norm < self._least_norm else self._stale + 1
        self._least_norm = min(self.norm, self._least_norm)
        self.curve.append(value)
        self.n_iter += 1
        self._diagonal_age += 1

    def forget(self) -> bool:
        """Drop what may have misled the step; False if there is nothing to drop."""
        if self.exact or not self._steps:
            return False
        self._steps, self._turns, self._diagonal_age = [], [], DIAGONAL_INTERVAL
        return True

    def stay(self) -> None:
        """Count an iteration that does not move: with tol=0 all of them are run."""
        self.curve.append(self.value)
        self.n_iter += 1
        self._stuck = True

    # ---- the end --------------------------------------------------------------------------------------------------

    def verdict(self) -> tuple[bool, str] | None:
        """(converged, why) if the fit ends here."""
        tol, norm, gap = self.options.tol, self.norm, min(self.gap, self.bound)
        if norm <= tol and gap <= self.allowed and (tol > 0 or norm == 0):
            return True, f"converged: gradient {norm:.2g} and gap {gap:.2g} are within tol={tol:g}{self._all_zero()}"
        if tol > 0 and self._stale >= PATIENCE and self.gap <= self.objective.precision * max(self.value, 1e-3):
            return self.exhausted()
        if self.n_iter == self.options.max_iter:
            return False, (
                f"reached max_iter={self.n_iter} with a gradient of {norm:.2g} and an estimated gap of {gap:.2g} to an "
                f"objective of {self.value:.6g} (tol={tol:g}); raise max_iter or tol"
            )
        return None

    def _all_zero(self) -> str:
        features, _ = self.objective.split(self.theta)
        if features.any():
            return ""
        return f"; every weight is zero, as for any C up to {self.objective.critical_c():.6g}"

    def exhausted(self) -> tuple[bool, str]:
        """The verdict where no step helps: converged if the gap is as small as rounding lets it be."""
        precision = self.objective.precision
        optimal = self.gap <= 100 * precision * max(self.value, 1e-3) and self.norm <= max(
            self.options.tol, precision**0.5
        )
        return optimal, (
            f"stopped where rounding hides any further descent, with a gradient of {self.norm:.2g} and an estimated "
            f"gap of {self.gap:.2g}; tol={self.options.tol:g} asks for more than this dtype holds"
        )

    def result(self, converged: bool, message: str) -> Result:
        """What the solver returns."""
        model = "the Hessian" if self.exact else "L-BFGS over the diagonal of the Hessian"
        reason = (
            f"an L1 term needs a proximal method; {np.count_nonzero(self.theta)} of {self.objective.size} "
            f"coordinates are not zero, and the last model of the curvature was {model}"
        )
        gap, kind = (self.bound, "bound") if self.bound <= self.gap else (self.gap, "estimate")
        return Result(self.theta, self.value, self.norm, gap, kind, self.n_iter, converged, message, reason)


def _change_of_norm(l1: Float64, start: Float64, step: Float64) -> float:
    return float(l1 @ (abs(start + step) - abs(start)))


def _polish(
    hessian: Float64,
    gradient: Float64,
    l1: Float64,
    start: Float64,
    step: Float64,
    product: Float64,
    feature: Places,
    columns: int,
) -> bool:
    """Go towards the model's minimum among the steps that keep the signs of start + step; product is hessian @ step.

    Coordinates that would change their sign stop at zero; if that is not good, all stop at the first of them.
    """
    point = start + step
    support = np.flatnonzero((point != 0) | (l1 == 0))
    if not len(support):
        return True
    at = point[support]
    sign = np.sign(at) * (l1[support] > 0)
    block = hessian[np.ix_(support, support)]
    # A shift of all classes, which the Hessian does not feel, is left to `balance`: here it costs as much as a step.
    feature = feature[support]
    whole = np.bincount(feature)[feature] == max(2, columns)
    block += ((feature[:, None] == feature) & whole) * block.diagonal().mean()
    slope = (gradient + product + l1 * np.sign(point))[support]
    move = -solver(lambda _: block, np.zeros(1, np.intp), len(block))(slope)[0]

    def fall(trial: Float64, by_hessian: Float64) -> float:
        return -float(gradient @ trial) - float(trial @ by_hessian) / 2 - _change_of_norm(l1, start, trial)

    crossing = np.flatnonzero(sign * (at + move) < 0)
    reach = -at[crossing] / move[crossing]
    first = float(reach.min(initial=1.0))
    length = 1.0
    while True:
        moved = at + length * move
        moved[sign * moved < 0] = 0
        if length == first < 1:
            moved[crossing[reach.argmin()]] = 0
        trial = step.copy()
        trial[support] = moved - start[support]
        by_hessian = hessian @ trial
        if fall(trial, by_hessian) > fall(step, product):
            step[:], product[:] = trial, by_hessian
            return not len(crossing)
        if length == first:
            return True
        length = max(first, length / 4)
