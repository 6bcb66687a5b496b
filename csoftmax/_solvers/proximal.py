"""L1 and elastic net: the solver "auto" where the penalty is not smooth.

    minimise F(theta) = f(theta) + sum_a l1_a |theta_a|,    f convex and smooth, l1_a = 0 for intercepts

Each iteration replaces f by a quadratic model, minimises that plus the L1 term over a working set of coordinates, by
coordinate descent, and goes along the step until F falls (newton: Lee, Sun and Saunders 2014, doi:10.1137/130921428;
coordinate descent: Friedman, Hastie and Tibshirani 2010, doi:10.18637/jss.v033.i01). The model is

    the Hessian      in the coordinates of the working set, from a sample of rows, where its price is a few passes, or
                     no more than there were iterations; damped where its steps proved too long;
    else L-BFGS      in its direct, compact form (Byrd, Nocedal and Schnabel 1994, doi:10.1007/BF01582063) over the
                     diagonal of the Hessian, of which one coordinate costs but a few multiplications.

No class is held apart from the others: the model has the softmax's own coupling between classes. What is the same for
all classes costs nothing but penalty, and one coordinate after the other would hardly move it: see `balance`.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .. import _linalg
from .._curvature import StoredSums, solver
from .._objective import Objective
from .._passes import times_transposed
from .._typing import Float64
from ._descent import PATIENCE, Descent, Verdict
from ._result import Options, Result

Places = npt.NDArray[np.intp]

MOST_EXACT, CHEAP = 1500, 5  # coordinates of a Hessian, and passes that it may cost from the start
ROWS_PER_COORDINATE, LEAST_ROWS = 10, 2000
LEAST_GROWTH = 100  # coordinates that may join the working set at once; as many as are in it if these are more
SWEEPS = 50  # of coordinate descent in a row
POLISH_WORK = 10**9
ROUNDS, POLISH = 4, 50  # of sweeps and solves on the support, and of solves in one round
ACCURACY = 0.03  # of the model's minimum, against the slopes it began with
DECREASE = 1e-4
MOST_SPENT = 20  # passes' worth of Hessians for each iteration
SOLVES = 2  # times the cube of the coordinates: what `_polish` costs
MAX_TRIALS = 40
WRONG = 0.1  # of a step: the Hessian that asked for one ten times too long is damped from then on
LEAST_DAMPING = 1e-4
DIAGONAL_INTERVAL = 10


class Pair(NamedTuple):
    """A change of theta, which has few entries, and the change of the gradient that came of it."""

    places: Places
    step: Float64
    turn: Float64

    def step_at(self, places: Places) -> Float64:
        """The step at other places, sorted as well."""
        where = np.minimum(np.searchsorted(self.places, places), len(self.places) - 1)
        return np.where(self.places[where] == places, self.step[where], 0.0)


def proximal(objective: Objective, start: Float64, options: Options) -> Result:
    """Minimise J, with its L1 term, until the tests of `SoftmaxRegression` hold."""
    return Proximal(objective, start, options).run()


class Proximal(Descent):
    """Descent along the steps that minimise models of F; `norm` is that of the least subgradient."""

    def __init__(self, objective: Objective, start: Float64, options: Options) -> None:
        super().__init__(objective, start, options)
        self.l1 = objective.l1()
        self.active: Places = np.zeros(0, np.intp)  # the working set
        self.change = np.zeros(0)  # the step in its coordinates
        self.exact = False  # the model is the Hessian
        self._whole = True  # no coordinate that would move is left out of the working set
        self._pairs: list[Pair] = []
        self._history = int(np.clip(objective.memory // (4 * 16 * objective.size), 2, 20))
        self._trust = 0  # minima of undamped Hessians found in a row: where one is hardly solvable they are an accident
        self._damping = 0.0  # of the Hessian, which may promise far more than there is where rows are decided
        self._rows: StoredSums | None = None
        self._n_rows, self._spent = 0, 0.0  # of these, and on Hessians, in passes
        self._diagonal = np.zeros(0)
        self._diagonal_age = DIAGONAL_INTERVAL  # in iterations; it is made anew at this age
        objective.balance(self.theta)
        self._smooth, self.gradient = objective.value_gradient(self.theta)
        self._measure(self._smooth + self._l1_term(self.theta))

    @property
    def reason(self) -> str:
        model = "the Hessian" if self.exact else "L-BFGS over the diagonal of the Hessian"
        return (
            f"an L1 term needs a proximal method; {np.count_nonzero(self.theta)} of {self.objective.size} "
            f"coordinates are not zero, and the last model of the curvature was {model}"
        )

    # ---- where the iterate is -------------------------------------------------------------------------------------

    def _measure(self, value: float) -> None:
        """Find the least subgradient at theta, and from it the next working set.

        Its coordinates are those that are not zero, intercepts, and the steepest of those that would not stay at zero.
        """
        slope = abs(self.gradient)
        slope.reshape(self.objective.n_columns, -1)[:] -= self.l1
        np.maximum(slope, 0, out=slope)  # at zero
        inside = np.flatnonzero(self.theta)
        slope[inside] = abs(self.gradient[inside] + self._l1_at(inside) * np.sign(self.theta[inside]))
        self.arrive(value, float(slope.max()))
        outside = np.flatnonzero((slope > 0) & (self.theta == 0))
        free = self._l1_at(outside) == 0
        inside, outside = np.append(inside, outside[free]), outside[~free]
        most = max(LEAST_GROWTH, len(inside))
        self._whole = len(outside) <= most
        if not self._whole:
            outside = outside[np.argpartition(-slope[outside], most)[:most]]
        self.active = np.sort(np.append(inside, outside))

    def _l1_at(self, places: Places) -> Float64:
        return self.l1[places % len(self.l1)]

    def _l1_term(self, theta: Float64) -> float:
        places = np.flatnonzero(theta)
        return _linalg.dot(self._l1_at(places), abs(theta[places]))

    # ---- the model ------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        active = self.active
        model = Quadratic(self.gradient[active], self._l1_at(active), self.theta[active])
        self.exact = self._affords(len(active))
        self.change, curvature, settled = self._by_hessian(model) if self.exact else self._by_pairs(model)
        self.decrement = self.gap = model.fall(self.change, curvature)
        certain = self.exact and settled and self._whole and self._damping == 0
        self._trust = self._trust + 1 if certain else 0
        if self._trust < 2:
            # Twice what is to be expected: as coordinates come and go, the descent is less even than a smooth one.
            self.gap = max(self.gap, 2 * self.rest_of_descent())
        at_rest = self.norm <= self.options.tol
        if at_rest and not certain and self.n_iter < PATIENCE:
            self.gap = np.inf  # a good start, and neither a diagonal nor so few falls can tell how good it is
        self.bound = np.inf
        if at_rest or self.n_iter == self.options.max_iter:
            self.bound = self.objective.l1_gap_bound(self.theta, self._smooth, self.gradient)

    @property
    def _room(self) -> int:
        """Rows that there is memory for: all where they lie, but a part of dense ones is a copy."""
        n = self.objective.n_rows
        return n if self.objective.sparse else int(self.objective.memory // (4 * 8 * self.objective.n_coordinates))

    def _affords(self, size: int) -> bool:
        """Whether the Hessian of so many coordinates pays; if so, its rows are taken. Their number grows with it."""
        n, room = self.objective.n_rows, self._room
        # A costly one only if the pairs did not get there in as many iterations as it costs passes, and not for ever.
        budget = max(CHEAP, min(self.n_iter, MOST_SPENT * self.n_iter - self._spent)) * self.objective.work
        most = min(2 * room, int(max(0.0, budget - SOLVES * size**3) / max(size, 1) ** 2))
        if size > MOST_EXACT or min(n, ROWS_PER_COORDINATE * size) > most:
            return False
        # Twice as many from one iteration to the next: near the optimum they decide how fast it is reached.
        wanted = max(LEAST_ROWS, ROWS_PER_COORDINATE * size, 2 * self._n_rows if self.n_iter > 2 else 0)
        rows = n if n <= min(wanted, most) else min(room, most, wanted)
        if self._rows is None or not rows <= self._n_rows <= most:
            self._rows, self._n_rows = self.objective.stored_rows(rows), rows
        self._spent += (self._n_rows + SOLVES * size) * size**2 / self.objective.work
        return True

    def _by_hessian(self, model: "Quadratic") -> tuple[Float64, float, bool]:
        """The step that minimises the model with the Hessian, the curvature along it, and whether it was found."""
        assert self._rows is not None
        active, columns = self.active, self.objective.n_columns
        step, product = np.zeros(len(active)), np.zeros(len(active))
        if not len(active):  # no intercept, and every weight stays zero
            return step, 0.0, True
        hessian = self._rows.hessian(self.theta.reshape(columns, -1), active)
        np.einsum("aa->a", hessian)[:] += self._damping
        tol = ACCURACY * self.norm
        feature = np.unique(active % self.objective.n_coordinates, return_inverse=True)[1]
        for attempt in range(ROUNDS):
            settled = _linalg.descend(hessian, *model, step, product, tol, SWEEPS) <= tol
            if settled and attempt:
                break
            for _ in range(min(POLISH, 4 + POLISH_WORK // len(active) ** 3)):
                if _polish(model, hessian, step, product, feature, columns):
                    break
        return step, _linalg.dot(step, product), settled

    def _by_pairs(self, model: "Quadratic") -> tuple[Float64, float, bool]:
        """The step that nearly minimises the model with the pairs, the curvature along it, and that it is not exact."""
        self._renew_diagonal()
        active, pairs = self.active, self._pairs
        diagonal = self._diagonal[active]
        left = right = np.zeros((len(active), 0))
        if pairs:
            places, step, turn = pairs[-1]
            own = turn[active]
            scale = max(1e-3, _linalg.dot(own, own / diagonal) / _linalg.dot(step, turn[places]))
            diagonal = scale * diagonal
            moved = np.unique(np.concatenate([pair.places for pair in pairs]))
            S, T = np.array([pair.step_at(moved) for pair in pairs]), np.array([pair.turn[moved] for pair in pairs])
            products = times_transposed(S, T)
            bases = times_transposed(S * (scale * self._diagonal[moved]), S)
            lower = np.tril(products, -1)
            middle = np.block([[bases, lower], [lower.T, -np.diag(np.diag(products))]])
            unit = 1 / np.sqrt(abs(middle.diagonal()))
            steps = [diagonal * pair.step_at(active) for pair in pairs]
            right = np.stack(steps + [pair.turn[active] for pair in pairs], axis=1)
            right *= unit
            left = times_transposed(right, np.linalg.inv(middle * unit * unit[:, None]))
        change, product = np.zeros(len(active)), np.zeros(2 * len(pairs))
        _linalg.descend_low_rank(diagonal, left, right, *model, change, product, ACCURACY * self.norm, SWEEPS)
        by_left = np.einsum("a,ar->r", change, left)
        return change, _linalg.dot(diagonal, change**2) - _linalg.dot(by_left, product), False

    def _renew_diagonal(self) -> None:
        """The diagonal of the Hessian at theta, if it is time."""
        if self._diagonal_age < DIAGONAL_INTERVAL:
            return
        n, room = self.objective.n_rows, self._room
        by_class = self.theta.reshape(self.objective.n_columns, -1)
        entries = self.objective.squares(by_class, n if n <= 4 * room else max(LEAST_ROWS, room))
        entries += self.objective.penalty
        np.maximum(entries, 1e-6, out=entries)
        self._diagonal = np.broadcast_to(entries, by_class.shape).reshape(-1)
        self._diagonal_age = 0

    # ---- moving ---------------------------------------------------------------------------------------------------

    def search(self) -> bool:
        active, change = self.active, self.change
        if not change.any():
            return False
        start, l1 = self.theta[active], self._l1_at(active)
        slope = _linalg.dot(self.gradient[active], change) + _change_of_l1(l1, start, change)
        if not slope < 0:
            return False
        noise = 2 * self.objective.precision * abs(self.value)
        length = 1.0
        for _ in range(MAX_TRIALS):
            theta = self.theta.copy()
            theta[active] = start + length * change
            self.objective.balance(theta)
            smooth, gradient = self.objective.value_gradient(theta)
            value = smooth + self._l1_term(theta)
            if value <= self.value + DECREASE * length * slope + (noise if -slope * length <= 100 * noise else 0):
                self._accept(theta, smooth, value, gradient)
                if not self.exact:
                    return True
                if length < WRONG:
                    self._damping = max(10 * self._damping, LEAST_DAMPING)
                elif self._damping > 0 and length == 1:
                    self._damping = self._damping / 10 if self._damping > LEAST_DAMPING else 0.0
                return True
            # The minimum of the parabola through what is known, or less where J is no such thing.
            excess = value - self.value - length * slope
            guess = -slope * length / (2 * excess) if excess < np.inf else 0.0
            length *= min(max(guess, 0.1), 0.5)
        return False

    def _accept(self, theta: Float64, smooth: float, value: float, gradient: Float64) -> None:
        places = np.flatnonzero(theta != self.theta)
        step, turn = theta[places] - self.theta[places], np.subtract(gradient, self.gradient, out=self.gradient)
        self.theta, self._smooth, self.gradient = theta, smooth, gradient
        if _linalg.dot(step, turn[places]) > np.finfo(np.float64).eps * _linalg.dot(turn, turn):
            self._pairs = [*self._pairs, Pair(places, step, turn)][-self._history :]
        self._diagonal_age += 1
        self._measure(value)

    def forget(self) -> bool:
        if self.exact or not self._pairs:
            return False
        self._pairs, self._diagonal_age = [], DIAGONAL_INTERVAL
        return True

    def converged(self, message: str) -> Verdict:
        features, _ = self.objective.split(self.theta)
        if features.any():
            return True, message
        return True, f"{message}; every weight is zero, as for any C up to {self.objective.critical_c():.6g}"


class Quadratic(NamedTuple):
    """A model of F around `start`, but for its curvature: gradient s + s'Hs / 2 + sum_a l1_a |start_a + s_a|."""

    gradient: Float64
    l1: Float64
    start: Float64

    def fall(self, step: Float64, curvature: float) -> float:
        """What the model falls by along a step; curvature is s'Hs."""
        return -_linalg.dot(self.gradient, step) - curvature / 2 - _change_of_l1(self.l1, self.start, step)


def _change_of_l1(l1: Float64, start: Float64, step: Float64) -> float:
    return _linalg.dot(l1, abs(start + step) - abs(start))


def _polish(model: Quadratic, hessian: Float64, step: Float64, product: Float64, feature: Places, columns: int) -> bool:
    """Go towards the model's minimum among the steps that keep the signs of start + step; product is hessian @ step.

    Coordinates that would change their sign stop at zero; if that is not good, all stop at the first of them. True if
    there is no more to be had.
    """
    gradient, l1, start = model
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
        by_hessian = times_transposed(hessian, trial[None]).ravel()
        if model.fall(trial, _linalg.dot(trial, by_hessian)) > model.fall(step, _linalg.dot(step, product)):
            step[:], product[:] = trial, by_hessian
            return not len(crossing)
        if length == first:
            return True
        length = max(first, length / 4)
