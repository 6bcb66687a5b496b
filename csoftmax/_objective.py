"""The function that a fit minimises, as a function of one flat vector.

    J(W, b) = sum_i s_i loss_i / S + alpha/2 ||W||^2 + lambda ||W||_1,    b is never penalised,
    alpha = (1 - r) / (C S),    lambda = r / (C S),    r = l1_ratio

A solver sees standardised coordinates theta = (U, c), with feature j centred at m_j and measured in units of its
standard deviation s_j:

    w_jk = u_jk / s_j,    b_k = c_k - sum_j m_j w_jk,    dJ/du_jk = (dJ/dw_jk - m_j dJ/db_k) / s_j

so that steps, curvature and the stopping test do not depend on the units of a feature. A constant feature has
1/s_j = 0: its weight stays 0. With m = 0 and s = 1 the coordinates are W and b themselves. The L1 term is not smooth:
it stays outside of `value_gradient`, with a strength of lambda / s_j for u_jk.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from . import _kernels, _linalg
from ._curvature import STIFF, RowSums, Sample, StoredSums
from ._passes import LossPass, Standard
from ._rows import LocalRows, Scaling, Search, TrainingRows
from ._typing import Array, Codes, Float64, Rows

# float32 data whose columns lie further from zero, in standard deviations, are computed in float64.
OFFSET_FLOAT32 = 1e3
# What a solver may use, bytes; if X is in memory and larger than 20 times this, a twentieth of X.
MEMORY = 2**28


class Objective:
    """J and its gradient in standardised or plain coordinates; counts its passes over the data.

    Parameters
    ----------
    rows : TrainingRows
        The data; `of` makes them of arrays.
    C : float
        Inverse strength of the penalty, infinity for none.
    l1_ratio : float
        r, the share of the L1 term.
    fit_intercept : bool
    standardise : bool
        Whether theta is in standardised coordinates.
    """

    def __init__(
        self, rows: TrainingRows, *, C: float, l1_ratio: float = 0.0, fit_intercept: bool, standardise: bool
    ) -> None:
        mean, deviation, self._by_class = rows.moments()
        if standardise and rows.dtype == np.float32 and np.any(abs(mean) > OFFSET_FLOAT32 * deviation):
            # x w and the intercept would cancel to less than float32 holds.
            rows = rows.in_float64()
        self._rows, self._pass = rows, rows.passes()
        self.total, self.n_rows, self.n_columns, self.sparse = rows.total, rows.n_rows, rows.n_columns, rows.sparse
        self.can_keep_scores = rows.keeps_scores
        self.precision, self.itemsize = float(np.finfo(rows.dtype).eps), rows.dtype.itemsize
        self.fit_intercept = fit_intercept
        d, rms = rows.n_features, np.hypot(mean, deviation)
        with np.errstate(over="ignore"):
            self._mean_square_length = float((rms**2).sum()) + fit_intercept
        self._center = mean if standardise and fit_intercept else np.zeros(d)
        self._scale = np.ones(d) if not standardise else deviation if fit_intercept else rms
        with np.errstate(divide="ignore"):
            self._inverse_scale = np.where(self._scale > 0, 1 / self._scale, 0.0)
        self._scaling = Scaling(self._center, self._inverse_scale, fit_intercept)
        self._deviation_length = math.hypot(*deviation)
        self._intercept, self._by_intercept = np.zeros(self.n_columns), np.zeros(self.n_columns)
        self.n_coordinates = d + fit_intercept
        self.n_entries = rows.n_entries + self.n_rows * fit_intercept
        self.size = self.n_columns * self.n_coordinates
        # Multiplications of a pass; one with few columns takes as long as one with 8.
        self.work = 4 * self.n_entries * max(self.n_columns, 8) + 1e6
        self.penalty = np.zeros(self.n_coordinates)  # its curvature, by coordinate of one column
        self.penalise(C, l1_ratio)
        # The last two, by how many rows were asked for and whether they are here, with what their penalty lacks.
        self._samples: dict[tuple[int, bool], tuple[RowSums, Float64 | None]] = {}
        self._search: Search | None = None
        self.n_passes = 0
        self.memory = MEMORY if rows.elsewhere else max(MEMORY, rows.n_entries * rows.dtype.itemsize // 20)

    @classmethod
    def of(
        cls, X: Rows, y: Codes, sample_weight: Float64, n_classes: int, *, n_threads: int, **options: Any
    ) -> "Objective":
        """The objective of arrays, see `LocalRows`."""
        return cls(LocalRows(X, y, sample_weight, n_classes, n_threads), **options)

    @property
    def workspace_bytes(self) -> int:
        """What passes need besides X."""
        return self._pass.workspace_bytes

    def penalise(self, C: float, l1_ratio: float) -> None:
        """Change the penalty: all that depends on it are its two strengths and the curvature of the smooth part."""
        self.alpha, self.lasso = float((1 - l1_ratio) / (C * self.total)), float(l1_ratio / (C * self.total))
        with np.errstate(over="ignore"):
            self.penalty[: len(self._inverse_scale)] = (np.sqrt(self.alpha) * self._inverse_scale) ** 2

    def l1(self) -> Float64:
        """Strength of the L1 term, by coordinate of one column."""
        strength = np.zeros(self.n_coordinates)
        strength[: len(self._inverse_scale)] = self.lasso * self._inverse_scale
        return strength

    def split(self, theta: Float64) -> tuple[Float64, Float64]:
        """Views of theta, one row per class: features (K, d), and intercepts (K,), or (0,) where there are none."""
        d = len(self._inverse_scale)
        rows = theta.reshape(self.n_columns, self.n_coordinates)
        return rows[:, :d], rows[:, d] if self.fit_intercept else theta[:0]

    def value_gradient(self, theta: Float64, out: Float64 | None = None) -> tuple[float, Float64]:
        """J without its L1 term, and its gradient at theta, in `out`, which may be theta itself.

        J may be infinite or NaN where scores overflow.
        """
        gradient = np.empty_like(theta) if out is None else out
        if len(self._by_class) and not theta.any():
            return self._at_zero(gradient), gradient
        self._penalised = self.alpha / 2 * self._take(self._pass.take, theta)
        return self._finish(self._pass.loss_gradient(*self._gradients(theta, gradient))), gradient

    def _at_zero(self, out: Float64) -> float:
        """J where all coefficients are zero: its gradient stands in the sums by class, which came with the moments."""
        shares = self._rows.class_shares
        chance = 1 / len(shares)
        by_coef = (chance * self._by_class.sum(axis=0) - self._by_class)[-self.n_columns :]
        by_intercept = (chance * shares.sum() - shares)[-self.n_columns :]
        features, intercept = self.split(out)
        features[:] = (by_coef - by_intercept[:, None] * self._center) * self._inverse_scale
        intercept[:] = by_intercept[: len(intercept)]
        self._penalised = 0.0
        # The logarithm of the passes, with its rounding: J may fall by less than that.
        ones, loss = np.ones((2, 1), self._rows.dtype)
        _kernels.log(ones * (len(shares) - (self.n_columns == 1)), loss, self.n_columns == 1)
        return self._finish(self._rows.weight_sum * float(loss[0]))

    def _take(self, take: Callable[[Float64, Float64, Float64], None], theta: Float64) -> float:
        """Have the pass take these coefficients; returns ||W||^2."""
        by_class = theta.reshape(self.n_columns, self.n_coordinates)
        squares = _linalg.plain(by_class, self._inverse_scale, self._center, self._intercept)
        take(by_class, self._intercept, self._inverse_scale)
        return squares

    def _gradients(self, theta: Float64, out: Float64) -> tuple[Float64, Float64, Standard]:
        """What a pass needs to make the gradient of J by theta."""
        shape = self.n_columns, self.n_coordinates
        standard = theta.reshape(shape), self._inverse_scale, self._center, self.alpha
        return out.reshape(shape), self._by_intercept, standard

    def _finish(self, loss: float) -> float:
        self.n_passes += 1
        return loss + self._penalised

    # ---- along a line, with the scores of all rows kept -----------------------------------------------------------

    def keep_scores(self, theta: Float64) -> tuple[float, Float64]:
        """value_gradient, after which `aim`, `along` and `move` may be called."""
        assert isinstance(self._pass, LossPass)
        self._scores = self._pass
        self._scores.keep_scores()
        self._penalised = self._bend = self._length = 0.0
        if theta.any():
            self.refresh(theta)
        return self.move(0.0, theta, np.empty_like(theta))

    def refresh(self, theta: Float64) -> None:
        """Compute what is kept anew: rounding errors add up."""
        self._penalised = self.alpha / 2 * self._take(partial(self._scores.aim, anew=True), theta)

    def aim(self, direction: Float64, slope: float) -> None:
        """Take a direction from the point of the last move, with the slope of J there."""
        self._length = self._take(self._scores.aim, direction)
        self._bend = slope - self._scores.along(0.0)[1]

    def along(self, step: float) -> tuple[float, float]:
        """J at a step along the direction, and its slope by the step."""
        loss, slope = self._scores.along(step)
        rise = self._rise(step)
        return loss + self._penalised + step * rise, slope + rise + self.alpha / 2 * step * self._length

    def _rise(self, step: float) -> float:
        """Mean slope of the penalty up to a step."""
        return self._bend + self.alpha / 2 * step * self._length

    def move(self, step: float, theta: Float64, out: Float64) -> tuple[float, Float64]:
        """value_gradient at theta, where this step leads to."""
        self._penalised += step * self._rise(step)
        return self._finish(self._scores.move(step, *self._gradients(theta, out))), out

    def sample(self, n_rows: int) -> RowSums:
        """About n_rows rows in standardised coordinates, chosen by length; all of them if there are no more.

        They are looked for where the first sample was.
        """
        return self._sample(n_rows, here=False)

    def sample_here(self, n_rows: int, theta: Float64 | None = None, floor: float = 0.0) -> Sample:
        """The same in this process, to be asked often; at coefficients (K, D) chosen by curvature, see `Search`.

        Without coefficients it is the one chosen last.
        """
        sample = self._sample(n_rows, True, theta, floor)
        assert isinstance(sample, Sample)
        return sample

    def _sample(self, n_rows: int, here: bool, theta: Float64 | None = None, floor: float = 0.0) -> RowSums:
        if self._search is None:
            self._search = Search.of(self.n_rows, n_rows, self._scaling)
        if theta is not None:
            self._samples.pop((n_rows, here), None)  # there is no room for both
        found = self._samples.get((n_rows, here))
        if found is None:
            choose = self._rows.sample_here if here else self._rows.sample
            sample = choose(n_rows, self._search._replace(theta=theta, floor=floor), self.penalty)
            found = sample, self._unseen(sample) if self._search.every > 1 else None
            self._samples = dict([*self._samples.items(), ((n_rows, here), found)][-2:])
        sample, more = found
        return sample if more is None else sample.stiffened(more)

    def _unseen(self, sample: RowSums) -> Float64:
        """Curvature at zero in the coordinates of features that hardly occur in a sample from some of the rows.

        The mean square of every feature is known, it is one: nobody may take a rare feature for one without curvature.
        """
        shown = sample.squares(np.zeros((self.n_columns, self.n_coordinates)))[0]
        chance = 1 / max(self.n_columns, 2)
        missing = chance * (1 - chance) - shown
        missing[: len(self._inverse_scale)][self._inverse_scale == 0] = 0
        return np.where(missing > shown, missing, 0.0)

    def stored_rows(self, n_rows: int) -> StoredSums:
        """The same rows as they are stored; all of them without a copy."""
        return self._rows.stored(n_rows, self._scaling, self.penalty)

    def squares(self, theta: Float64, n_rows: int | None = None) -> Float64:
        """sum_i w_i p_ik (1 - p_ik) z_ij^2, (K, D), or (1, D) where all classes have the same.

        Of a dense X, n_rows rows are enough; of CSR it is taken where the kept scores are, or at theta.
        z = (x - m) / s, and a sparse x is mostly 0, so its square is taken apart: x (x - 2 m) + m^2.
        """
        if not theta.any():  # no class is preferred, and the mean square of every feature is one
            chance = 1 / max(self.n_columns, 2)
            return np.full((1, theta.shape[1]), chance * (1 - chance))
        if not self.sparse:
            return self.stored_rows(n_rows or self.n_rows).squares(theta)
        self.n_passes += 1
        entries, d = np.zeros_like(theta), len(self._center)
        if not self._pass.keeps_scores:
            self._take(self._pass.take, theta)
        apart = entries, np.ones(d), np.zeros(d), 0.0
        self._pass.spread(self._center, entries, self._by_intercept, apart)
        for of_class, total in zip(entries, self._by_intercept, strict=True):  # one by one, to save memory
            of_class[:d] = np.maximum(of_class[:d] + total * self._center**2, 0) * self._inverse_scale**2
        return entries

    def gap_bound(self, theta: Float64, value: float, gradient: Float64, enough: float = np.inf) -> float:
        """Upper bound of J - J*, from the duality gap; infinite without a penalty, and once it is sure to be above
        `enough`.

        The dual of J takes probabilities q_i with sum_i w_i (q_i - y_i) = 0, for the intercept, to
        sum_i w_i entropy(q_i) - ||sum_i w_i (q_i - y_i) x_i'||^2 / (2 alpha). The model's own p_i meet the condition
        up to the gradient g_b of the intercepts, so q_i = (1 - e) p_i + e r does, with the smallest e for which
        r = share - (1 - e)/e g_b has no negative entry. Entropy is concave, and sum_i w_i entropy(p_i) is the loss
        less the inner product of its gradient with theta. Features are centred, which changes nothing for such q.
        """
        if self.alpha == 0:
            return np.inf
        with np.errstate(all="ignore"):
            bound = self._gap_bound(theta, value, gradient, enough)
        return bound if np.isfinite(bound) else np.inf

    def _gap_bound(self, theta: Float64, value: float, gradient: Float64, enough: float) -> float:
        features, intercept = self.split(theta)
        by_features, by_intercept = self.split(gradient)
        squares, slopes, loss_slopes, inner = np.zeros(4)
        shift = float(intercept @ by_intercept)
        for of_class, by_class in zip(features, by_features, strict=True):  # one by one, to save memory
            slope = by_class * self._scale  # of J by W, features centred; the loss's own share is without alpha W
            slopes += _linalg.dot(slope, slope)
            if slopes / (2 * self.alpha) + shift > enough:
                return np.inf
            coef = of_class * self._inverse_scale
            slope -= self.alpha * coef
            loss_slopes += _linalg.dot(slope, slope)
            squares += _linalg.dot(coef, coef)
            inner += _linalg.dot(coef, slope)
        loss = value - self.alpha / 2 * squares
        bound = float(slopes) / (2 * self.alpha)
        if self.fit_intercept:
            mix = self._mix(by_intercept)
            reach = self._deviation_length
            bound += shift + mix * (loss - float(inner) - shift)
            bound += (2 * mix * math.sqrt(loss_slopes) * reach + (mix * reach) * (mix * reach)) / (2 * self.alpha)
        return bound + 8 * self.precision * abs(value)

    def l1_gap_bound(self, theta: Float64, smooth: float, gradient: Float64) -> float:
        """Upper bound of J - J* under an L1 term, from the duality gap; `smooth` is J without that term.

        As in `gap_bound`, with q_i = (1 - e) p_i + e r; and as the dual of lambda |w| asks for slopes within lambda,
        the residuals q_i - y_i are scaled by the largest t <= 1 that brings them there, or by 1 where the L2 term pays
        for what sticks out. Entropy is concave: that of y_i + t (q_i - y_i) is at least t (1 - e) times that of p_i.
        """
        features, intercept = self.split(theta)
        by_features, by_intercept = self.split(gradient)
        curvature, strength = self.penalty[: features.shape[1]], self.lasso * self._inverse_scale
        mix = self._mix(by_intercept)
        slope, ridge, lasso, inside = float(intercept @ by_intercept), 0.0, 0.0, 1.0

        def reaches() -> Iterator[Float64]:
            # No residual of r's is larger than 1/2 in these units; it is that of a label against its share.
            for of_class, by_class in zip(features, by_features, strict=True):  # one by one, to save memory
                reach = (1 - mix) * abs(by_class - curvature * of_class) + mix / 2
                yield np.where(self._inverse_scale > 0, reach, 0.0)

        def bound(t: float) -> float:
            cost = 0.0
            for reach in reaches():
                over = np.maximum(t * reach - strength, 0)
                cost += float(np.divide(over**2, 2 * curvature, where=over > 0, out=np.zeros_like(over)).sum())
            return ridge + lasso + slope + (1 - t * (1 - mix)) * entropy + cost

        with np.errstate(all="ignore"):
            for of_class, by_class in zip(features, by_features, strict=True):
                slope += _linalg.dot(by_class - curvature * of_class, of_class)
                ridge += _linalg.dot(curvature, of_class**2) / 2
                lasso += _linalg.dot(strength, abs(of_class))
            entropy = smooth - ridge - slope
            for reach in reaches():
                share = np.divide(strength, reach, where=reach > 0, out=np.ones_like(reach))
                inside = min(inside, float(share.min(initial=1.0)) * (1 - 1e-15))
            best = min(bound(1.0), bound(inside))
        return best + 8 * self.precision * abs(smooth + lasso) if np.isfinite(best) else np.inf

    def _mix(self, by_intercept: Float64) -> float:
        """e of `gap_bound`."""
        if not self.fit_intercept:
            return 0.0
        slope = np.array([-by_intercept[0], by_intercept[0]]) if self.n_columns == 1 else by_intercept
        rising = slope > 0
        return float((slope[rising] / (slope[rising] + self._rows.class_shares[rising])).max(initial=0.0))

    def balance(self, theta: Float64) -> None:
        """Shift the weights of each feature, by one number in all classes, to the least penalty, in place.

        It changes no probability. Where no shift is as good as another, none is made.
        """
        if self.n_columns == 1:
            return
        features, _ = self.split(theta)
        signs = np.sign(features)
        pull = self.alpha * self._inverse_scale * features.sum(axis=0) + self.lasso * signs.sum(axis=0)
        wrong = np.flatnonzero((abs(pull) > self.lasso * (signs == 0).sum(axis=0)) & (self._inverse_scale > 0))
        coef = features[:, wrong] * self._inverse_scale[wrong]
        features[:, wrong] = (coef - _cheapest_shift(coef, self.alpha, self.lasso)) * self._scale[wrong]

    def critical_c(self) -> float:
        """The C below which every weight is zero under the L1 term; infinite without one."""
        theta = np.zeros(self.size)
        _, intercept = self.split(theta)
        shares = self._rows.class_shares
        if self.fit_intercept:
            with np.errstate(divide="ignore"):  # a class may be missing from a fold of a cross-validation
                intercept[:] = np.log(shares[1] / shares[0]) if self.n_columns == 1 else np.log(shares)
        _, gradient = self.value_gradient(theta)
        steepest = float(abs(self.split(gradient)[0] * self._scale).max(initial=0.0))
        ratio = self.lasso / (self.lasso + self.alpha)
        return ratio / (self.total * steepest) if steepest > 0 else np.inf

    def is_separated(self, value: float) -> bool:
        """Whether J = value, without penalty, proves that every row is on its own side: each loss is below log 2."""
        return self.alpha == 0 and value < self._rows.least_weight * np.log(2)

    def recedes(self, direction: Float64) -> bool:
        """Whether J can fall along `direction`, the last step, for ever: no row moves to a wrong side by it.

        Where a minimum exists the last step moves no score by much; where there is none it still moves some by about 1.
        """
        least, total = self._rows.margins(*self.coefficients(direction))
        mean = total / self.n_rows
        return bool(mean > 1e-2 and least >= -1e-2 * mean)

    def curvature_diagonal(self) -> Float64:
        """Upper bound of the diagonal of the Hessian, after Boehning (1992), doi:10.1007/BF00048682.

        The Hessian of one loss by its scores is at most 1/2, or 1/4 for two classes in one column.
        """
        bound = 0.25 if self.n_columns == 1 else 0.5
        return bound + np.tile(self.penalty, self.n_columns)

    def stiff(self) -> Float64:
        """For coordinates that the penalty holds, far beyond what the loss could do, its curvature; 0 for others.

        They are those of features in tiny units.
        """
        return np.tile(np.where(self.penalty >= STIFF, self.penalty, 0.0), self.n_columns)

    def safe_learning_rate(self) -> float:
        """A rate at which gradient descent on W and b decreases J: one over a bound of the largest curvature."""
        bound = 0.25 if self.n_columns == 1 else 0.5
        return 1 / (bound * self._mean_square_length + self.alpha)

    def coefficients(self, theta: Float64) -> tuple[Float64, Float64]:
        """theta as W (K, d) and b (K,) in the units of X.

        Over several classes b sums to zero, and W too, unless there is an L1 term.
        """
        features, intercept = self.split(theta)
        coef = features * self._inverse_scale
        constant = intercept - coef @ self._center if self.fit_intercept else np.zeros(self.n_columns)
        if self.n_columns > 1:
            if self.lasso == 0:
                coef -= coef.mean(axis=0)
            elif self.alpha == 0:
                coef -= _sparsest_shift(coef)
            constant -= constant.mean()
        return coef, constant

    def parameters(self, coef: Array, intercept: Array) -> Float64:
        """W and b as theta, centred over the classes; the weight of a constant feature goes into the intercept."""
        if self.n_columns > 1:
            intercept = intercept - intercept.mean()
            coef = coef if self.lasso > 0 else coef - coef.mean(axis=0)
        theta = np.zeros(self.size)
        features, constant = self.split(theta)
        features[:] = coef * self._scale
        if self.fit_intercept:
            constant[:] = intercept + coef @ self._center
        return theta


def _cheapest_shift(coef: Float64, alpha: float, lasso: float) -> Float64:
    """The c that minimises alpha/2 sum_k (w_k - c)^2 + lasso sum_k |w_k - c|, for each feature.

    It is the median of all w_k and of the points where the slope would be 0 if i of the w_k were below c, i = 0 ... K
    (Li and Osher 2009, Communications in Mathematical Sciences 7, 741).
    """
    n_classes = len(coef)
    if alpha == 0:
        return np.asarray(np.median(coef if n_classes % 2 else np.vstack([coef, np.zeros_like(coef[:1])]), axis=0))
    above = n_classes - 2 * np.arange(n_classes + 1.0)[:, None]
    return np.asarray(np.median(np.vstack([coef, coef.mean(axis=0) + lasso / (alpha * n_classes) * above]), axis=0))


def _sparsest_shift(coef: Float64) -> Float64:
    """What to take from the weights of each feature, in all classes, for the most zeros at the same L1 norm.

    Any number between the middle two of them, when K is even, leaves the norm and the probabilities as they are. Of the
    two ends, on a tie, it is the lower one, wherever a solver stopped.
    """
    ordered, middle = np.sort(coef, axis=0), (len(coef) - 1) // 2
    lower, upper = ordered[middle], ordered[len(coef) // 2]
    more = (coef == upper).sum(axis=0) > (coef == lower).sum(axis=0)
    return np.where((lower <= 0) & (upper >= 0), np.where(more, upper, lower), 0.0)
