"""L-BFGS on top of a model of the curvature: the solvers "lbfgs", "newton" and "auto" are settings of one loop.

    minimise J(theta):    theta <- theta - t H dJ(theta)

H is the inverse of a curvature model, corrected by the last changes s of theta and y of the gradient (Nocedal 1980,
doi:10.1090/S0025-5718-1980-0572855-7). The model is made anew now and then, at the current point.

    lbfgs     a diagonal bound of the curvature, never made anew
    newton    the full Hessian of all rows at every iteration, nothing to correct
    auto      the most exact model that pays, see `choose`

Of very many rows a pass takes so much longer than one of a sample that the latter's whole Hessian is solved in every
iteration, by conjugate gradients which the model preconditions (a truncated Newton method with a sampled Hessian: Byrd,
Chin, Neveitt and Nocedal 2011, doi:10.1137/10079923X). The pairs correct what the sample lacks.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import _curvature, _linalg
from .._curvature import RowSums, Sample, Solve
from .._objective import Objective
from .._typing import Float64
from ._descent import FAST_WINDOW, WINDOW, Descent, Verdict
from ._line import Line, ScoresLine, line_search
from ._result import Options, Result
from .proximal import proximal

MORE = 4  # times the rows of the first model for a later one
SPARSE_INTERVAL = 20
ENTRIES = 20  # of a row at least, for scores to be kept: of 20 classes it pays from 25 on, of 3 from less than 9
REFRESHED = 20  # iterations after which kept scores are computed anew
SETTLED = 0.05  # share of J: where it fell by more in the last iteration, the curvature is still changing
OTHERS = 14  # vectors as long as theta, besides the pairs
# Of a sample whose Hessian is solved: its least rows for each coordinate, how many times fewer than all they are to be,
# and how many times at least.
REFINING, FEWER, LEAST_FEWER = 26, 20, 10
# Other rows are chosen for it where fewer count than so many for each coordinate, or than this share of those that
# counted when they were chosen, as long as that gains by this factor. It misleads where fewer than so many count even
# then, and where the gap has not fallen after so many iterations.
COUNTING, SHARE_COUNTING, GAIN, PROMPT = 16, 1 / 3, 1.25, 3
CERTAIN = 1e-7  # an uncertainty that is rounding error
NEWEST = 2  # pairs are used with it once J has settled: it follows the curvature, which they have not seen
TIGHT, LOOSE = 0.1, 0.5  # its equations are solved up to a share between these


class Pairs:
    """The newest changes of theta and of the gradient, for the two-loop recursion."""

    def __init__(self, most: int, size: int) -> None:
        self.count, self._newest, self._most, self.used = 0, -1, most, most
        slots = max(most, 1)  # one to work in where none is kept
        self._steps, self._turns = np.empty((slots, size)), np.empty((slots, size))
        self._rho, self._shares = np.empty(slots), np.empty(slots)

    def clear(self) -> None:
        """Forget them."""
        self.count = 0

    def place(self) -> tuple[Float64, Float64]:
        """Where the next pair is to be put, a change of theta and one of the gradient: the place of the oldest."""
        slot = (self._newest + 1) % len(self._rho)
        self.count = min(self.count, len(self._rho) - 1)
        return self._steps[slot], self._turns[slot]

    def add(self) -> None:
        """Keep the pair that was put there, unless its curvature is rounding error."""
        step, turn = self.place()
        curvature = _linalg.dot(step, turn)
        if self._most and curvature > np.finfo(np.float64).eps * _linalg.dot(turn, turn):
            self._newest = (self._newest + 1) % len(self._rho)
            self._rho[self._newest] = 1 / curvature
            self.count += 1

    def scale(self, solve: Solve, work: Float64) -> float:
        """What H0 is to be divided by, y'H0 y / s'y of the newest pair."""
        if not self.count:
            return 1.0
        turn = self._turns[self._newest]
        work[:] = turn
        return float(self._rho[self._newest]) * _linalg.dot(turn, solve(work))

    def inverse_times(self, result: Float64, solve: Solve, scale: float) -> Float64:
        """H times a vector, which is lost."""
        if not self.count:
            return solve(result)
        kept = self._steps, self._turns, self._rho, self._newest, min(self.count, self.used)
        _linalg.pairs_backward(*kept, result, self._shares)
        result = solve(result)
        if scale != 1:
            result /= scale
        _linalg.pairs_forward(*kept, result, self._shares)
        return result


@dataclass(frozen=True)
class Setting:
    """Which model of the curvature, from how many rows, made anew how often, and how much it is corrected.

    From the third time on it is made from twice as many rows as before, up to `most_rows`: a fit that is not over by
    then can use a better one.
    """

    reason: str
    model: Callable[[Any, Float64], Solve] | None  # of a Sample, or of the objective
    n_rows: int
    most_rows: int
    interval: int
    history: int
    exact: bool  # the model is the Hessian but for sampling: its decrement is the gap
    fits: bool = True  # into memory
    pays: bool = True
    stored: bool = False  # the model is made of all rows of a sparse X
    refining: int = 0  # rows of the sample whose Hessian is solved in every iteration; 0 is none


def lbfgs(objective: Objective, start: Float64, options: Options) -> Result:
    """Plain L-BFGS in standardised coordinates."""
    return minimise(objective, start, options, replace(ladder(objective)[-1], reason="it was asked for"))


def newton(objective: Objective, start: Float64, options: Options) -> Result:
    """Newton's method with the exact Hessian."""
    setting = Setting("it was asked for", _curvature.hessian, objective.n_rows, objective.n_rows, 1, 0, True)
    return minimise(objective, start, options, setting)


def auto(objective: Objective, start: Float64, options: Options) -> Result:
    """The setting that suits the shape of the data; another method under an L1 term."""
    if objective.lasso > 0:
        return proximal(objective, start, options)
    return minimise(objective, start, options, choose(objective))


def choose(objective: Objective) -> Setting:
    """The first rung of the ladder that pays."""
    return next(setting for setting in ladder(objective) if setting.pays)


def ladder(objective: Objective, alone: bool = False) -> list[Setting]:
    """Every model for this shape, the most exact first, and whether making it costs few enough passes and bytes.

    With `alone` none of them preconditions the Hessian of a sample.

    Costs are counted in multiplications. A model is made from as many rows as its share of one pass's work allows, at
    least some multiple of its size, as far as memory goes: a Hessian from too few rows misleads, while the block models
    only start what the pairs of L-BFGS complete. The more a model costs, the longer it is kept.
    """
    n, size, columns = objective.n_rows, objective.n_coordinates, objective.n_columns
    free = max(1, columns - 1)
    full = free * size
    one_pass = objective.work
    most = max(1, objective.memory // (4 * 8 * max(size, 3 * columns)))  # three arrays have a number for each class
    room = objective.memory // 4
    if objective.sparse:
        # What the other vectors leave, as there is neither a sample nor a large model to be kept; of long vectors,
        # which cost time to read and more to allocate, one or two.
        room = min(objective.memory - OTHERS * 8 * objective.size, int(objective.work / 4))
    history = int(np.clip(room // (16 * objective.size), 1, 30))

    def rung(
        name: str, least: int, row: int, factor: float, share: float, limit: float, keep: tuple[float, float], room: int
    ) -> Setting:
        refining = some if name in ("classes", "gram") else 0
        m = int(min(n, most, max(least, share * one_pass / row)))
        if refining:  # a preconditioner need not be better
            m = min(m, max(2000, REFINING * size))
        cost = (m * row + factor) / one_pass
        fits = 8 * room <= 3 * objective.memory // 8
        every = round(min(60, keep[0] + keep[1] * cost))
        reason = f"curvature model {name!r} on {m} of {n} rows costs {cost:.2g} passes, once in {every} iterations"
        if refining:
            reason += f", and preconditions the Hessian of {refining} rows"
        exact = name == "hessian"
        pays = fits and m >= min(n, least // 2) and cost <= limit
        return Setting(
            reason,
            getattr(_curvature, name),
            m,
            m if exact else min(n, most, MORE * m),
            every,
            0 if exact else history,
            exact,
            fits,
            pays,
            refining=refining,
        )

    some = min(max(REFINING * size, n // FEWER), objective.memory // (2 * max(objective.itemsize * size, 24 * columns)))
    if alone or objective.sparse or some < REFINING * size or n < LEAST_FEWER * some:
        some = 0
    if objective.sparse:
        reason = f"curvature model 'diagonal' on all rows, at least once in {SPARSE_INTERVAL} iterations: X is sparse"
        last = Setting(reason, _curvature.diagonal, n, n, SPARSE_INTERVAL, history, False, stored=True)
    else:
        last = rung("diagonal", min(n, 2000), size * columns, 0, 1, np.inf, (10.0, 0.0), objective.size)
    few = max(2000, 10 * size)
    every, seldom = (1.0, 1.0), (10.0, 1.0)
    return [
        rung("hessian", 20 * full, full**2, full**3 / 3, 0.3, 0.5, every, 2 * full**2),
        rung("classes", few, columns * size**2, columns * size**3 / 3, 1, 30, seldom, columns * size**2),
        rung("gram", few, size**2, size**3, 1, 30, seldom, 5 * size**2),
        last,
        Setting("no curvature model fits into memory", None, 0, 0, 0, history, False),
    ]


def keeps_scores(objective: Objective) -> bool:
    """Whether it pays to keep the scores of all rows, twice, and memory holds them besides the least that a fit needs.

    Where rows have few entries, the exponentials of a trial cost as much as its products.
    """
    least = (OTHERS + 2) * 8 * objective.size
    room = objective.memory >= least + 16 * objective.n_rows * objective.n_columns
    return bool(
        objective.can_keep_scores and objective.sparse and room and objective.n_entries >= ENTRIES * objective.n_rows
    )


def minimise(objective: Objective, start: Float64, options: Options, setting: Setting) -> Result:
    """Minimise J by one setting."""
    return QuasiNewton(objective, start, options, setting).run()


class QuasiNewton(Descent):
    """Descent along -H dJ."""

    def __init__(self, objective: Objective, start: Float64, options: Options, setting: Setting) -> None:
        super().__init__(objective, start, options)
        self.setting = setting
        kept = keeps_scores(objective)
        self._line: type[Line] = ScoresLine if kept else Line
        value, self.gradient = (objective.keep_scores if kept else objective.value_gradient)(self.theta)
        self.arrive(value, float(abs(self.gradient).max()))
        # Long vectors are allocated once: the system takes as long to give new memory as a pass.
        self.direction = np.empty_like(self.theta)
        self.last = np.zeros(0)
        self._rest_is_noise = False  # nothing but rounding is left of the gradient outside the stiff coordinates
        self._pairs = Pairs(setting.history, objective.size)
        self._sample: RowSums | Objective | None = None
        self._n_rows = self._n_models = 0  # rows of it, and how many models were made
        self._age = -1  # iterations since the model was made; it is made when this is negative
        self._refined: Sample | None = None  # the sample whose Hessian is solved
        self._counted, self._others = 0.0, True  # rows of it that counted when chosen; and are there any to choose
        self._decrements: deque[float] = deque(maxlen=PROMPT + 1)
        stiffness = objective.stiff()
        self._stiff = np.flatnonzero(stiffness)  # coordinates solved one by one, apart from the model and the pairs
        self._stiffness = stiffness[self._stiff]
        self._solve = self._model = _scaled(objective)

    @property
    def reason(self) -> str:
        return self.setting.reason

    def _renew(self) -> None:
        """Make the model of the curvature anew, if it is time, and solve by it, or by what it preconditions."""
        if self.setting.refining:
            probability = self._renew_rows()
        self._renew_model()
        self._solve = self._model
        if self._refined is not None:
            # The cheaper its products are beside a pass, the more exactly.
            left = min(max(TIGHT, 10 * len(self._refined.rows) / self.objective.n_rows), LOOSE)
            self._solve = _curvature.refined(self._refined, probability, self._model, left)

    def _renew_rows(self) -> Float64:
        """Choose other rows for the sample, where too few of them count, or give it up; the probabilities of its rows.

        At first, where no fit came before, they are chosen by length, as if no class was preferred.
        """
        theta = self.theta.reshape(self.objective.n_columns, -1)
        if self._refined is None:
            self._refined, self.window = self.objective.sample_here(self.setting.refining), FAST_WINDOW
            self._counted = self._refined.effective_rows(self._refined.probabilities(np.zeros_like(theta)))
        probability = self._refined.probabilities(theta)
        count, enough = self._refined.effective_rows(probability), COUNTING * self.objective.n_coordinates
        if self._others and count < max(enough, SHARE_COUNTING * self._counted):
            floor = max(self._refined.mean_uncertainty(probability), CERTAIN)
            self._refined, self._solve = None, self._model  # there is no room for both
            self._refined = self.objective.sample_here(self.setting.refining, theta.copy(), floor)
            probability = self._refined.probabilities(theta)
            before, count = count, self._refined.effective_rows(probability)
            self._counted, self._others = count, count > GAIN * before
            self._decrements.clear()
        self._pairs.used = NEWEST if self._settled else 0
        if count < enough:
            self._refine_no_more()
        return probability

    @property
    def _settled(self) -> bool:
        """Whether J fell by little in the last iteration."""
        return self.n_iter > 0 and self.curve[-2] - self.value <= SETTLED * self.value

    def _refine_no_more(self) -> None:
        """Use the model alone from now on, and all pairs: the sample's Hessian is of no help."""
        before, rungs = self.setting, ladder(self.objective, alone=True)
        self.setting = next(setting for setting in rungs if setting.model is before.model)
        if self.n_iter:
            reason = f"{before.reason} in the first {self.n_iter} iterations; then {self.setting.reason}"
            self.setting = replace(self.setting, reason=reason)
        self._refined, self._age, self.window, self._pairs.used = None, -1, WINDOW, self.setting.history
        self._n_rows = self._n_models = 0

    def _misled(self) -> bool:
        """Whether the gap has not fallen for some iterations, to judge by the sample's Hessian."""
        self._decrements.append(self.decrement)
        return len(self._decrements) > PROMPT and self.decrement >= self._decrements[0]

    def _renew_model(self) -> None:
        interval = self.setting.interval
        if self._line is ScoresLine and self._n_models and self._settled:
            # With scores at hand a model costs half a pass; where J still falls fast, they would mislead it.
            interval = min(interval, 3 * 2 ** (self._n_models - 1))
        if self.setting.model is None or 0 <= self._age < interval:
            return
        self._n_models += 1
        n_rows = self._n_rows * 2 if self._n_models > 2 else self.setting.n_rows
        # For wide data every vector counts: what is not needed meanwhile is gone.
        self._solve = self._model = _scaled(self.objective)
        self.direction = np.zeros(0)
        if self.setting.stored:
            self._sample = self.objective
        elif (n_rows := min(n_rows, self.setting.most_rows)) > self._n_rows or self._sample is None:
            self._sample, self._n_rows = self.objective.sample(n_rows), n_rows
        self._model = self.setting.model(self._sample, self.theta.reshape(self.objective.n_columns, -1))
        self.direction, self._age = np.empty_like(self.theta), 0
        if self.setting.exact:
            self._pairs.clear()

    def turn(self) -> None:
        self._renew()
        newton = self.setting.exact or self._refined is not None
        scale = 1.0 if newton else self._pairs.scale(self._solve, self.direction)
        np.negative(self.gradient, out=self.direction)
        self.direction[self._stiff] = 0
        self.direction = self._pairs.inverse_times(self.direction, self._solve, scale)
        if len(self._stiff):
            if self._rest_is_noise:
                self.direction[:] = 0
            self.direction[self._stiff] = -self.gradient[self._stiff] / self._stiffness
        self.gap = self.decrement = max(0.0, -_linalg.dot(self.direction, self.gradient) / 2)
        if self._refined is not None and self._misled():
            self._refine_no_more()
            self.turn()
            return
        if not self.setting.exact:
            self.gap = max(self.gap, self.rest_of_descent())
        self.bound = np.inf
        last = self.n_iter == self.options.max_iter
        if last or self.norm <= self.options.tol:
            enough = np.inf if last else self.allowed
            self.bound = self.objective.gap_bound(self.theta, self.value, self.gradient, enough)
        if (
            self.setting.exact
            and self._age > 0
            and self.norm <= self.options.tol
            and self.gap <= self.allowed < self.bound
        ):
            # Only the Hessian of this point can tell how far the optimum is.
            self._age = -1
            self.turn()

    def search(self) -> bool:
        slope = _linalg.dot(self.direction, self.gradient)
        if not slope < 0:
            return False
        if self._line is ScoresLine and self.n_iter % REFRESHED == REFRESHED - 1:
            self.objective.refresh(self.theta)
        moved, turned = self._pairs.place()
        line = self._line(self.objective, self.theta, self.direction, slope, turned)
        step = line_search(line, self.value, slope, self.objective.precision)
        if step is None:
            return False
        np.multiply(self.direction, step, out=moved)
        self.theta += moved
        value = line.end(step, self.theta)
        _linalg.exchange(self.gradient, turned)
        if self.objective.alpha == 0:
            self.last = moved.copy()
        moved[self._stiff] = turned[self._stiff] = 0
        self._pairs.add()
        self.arrive(value, max(float(self.gradient.max()), -float(self.gradient.min())))
        self._age += 1
        self._rest_is_noise = False
        return True

    def forget(self) -> bool:
        if not self._pairs.count and self._age <= 0:
            tried, self._rest_is_noise = self._rest_is_noise, True
            return len(self._stiff) > 0 and not tried
        self._pairs.clear()
        self._age = -1 if self.setting.model else 0
        return True

    def converged(self, message: str) -> Verdict:
        if self._recedes():
            return False, _separable("J falls for ever along the last step")
        return True, message

    def endless(self) -> Verdict | None:
        if self.objective.is_separated(self.value):
            return False, _separable("every row is on the right side")
        return None

    def _recedes(self) -> bool:
        """Whether the classes are separable in part: J falls for ever along the last step, or along Newton's."""
        if self.objective.alpha > 0:
            return False
        if self.last.size and self.objective.recedes(self.last):
            return True
        hessian = ladder(self.objective)[0]
        if self.setting.exact or not hessian.fits or hessian.model is None:
            return False
        sample = self.objective.sample(hessian.n_rows)
        newton = hessian.model(sample, self.theta.reshape(self.objective.n_columns, -1))
        return self.objective.recedes(-newton(self.gradient.copy()))


def _scaled(objective: Objective) -> Solve:
    """Without a model; no method of the solver, which then would refer to itself and keep the data."""
    return lambda vector: vector / objective.curvature_diagonal()


def _separable(why: str) -> str:
    return (
        f"found the classes separable ({why}): without a penalty the loss has no minimum and the weights would grow "
        f"for ever; they were stopped at finite values. Use a finite C for a model that is defined"
    )
