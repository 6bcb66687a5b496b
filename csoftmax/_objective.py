"""The function that a fit minimises, as a function of one flat vector.

    J(W, b) = sum_i s_i loss_i / S + alpha/2 ||W||^2,    alpha = 1 / (C S),    b is never penalised

A solver sees standardised coordinates theta = (U, c), with feature j centred at m_j and measured in units of its
standard deviation s_j:

    w_jk = u_jk / s_j,    b_k = c_k - sum_j m_j w_jk,    dJ/du_jk = (dJ/dw_jk - m_j dJ/db_k) / s_j

so that steps, curvature and the stopping test do not depend on the units of a feature. A constant feature has
1/s_j = 0: its weight stays 0. With m = 0 and s = 1 the coordinates are W and b themselves.
"""

import numpy as np

from ._passes import LossPass, column_moments
from ._typing import Array, Codes, Float64


class Objective:
    """J and its gradient in standardised or plain coordinates; counts its passes over the data.

    Parameters
    ----------
    X : (n, d) array, float32 or float64
    y : (n,) int32 array of labels in [0, K)
    sample_weight : (n,) float64 array, positive
    n_classes : int
        K; two classes make one column of coefficients, the difference w_1 - w_0.
    C : float
        Inverse strength of the penalty, infinity for none.
    fit_intercept : bool
    standardise : bool
        Whether theta is in standardised coordinates.
    n_threads : int
    """

    def __init__(
        self,
        X: Array,
        y: Codes,
        sample_weight: Float64,
        n_classes: int,
        *,
        C: float,
        fit_intercept: bool,
        standardise: bool,
        n_threads: int,
    ) -> None:
        total = sample_weight.sum()
        weight = (sample_weight / total).astype(X.dtype)
        d, self.n_columns = X.shape[1], 1 if n_classes == 2 else n_classes
        self.alpha = float(1 / (C * total))
        self.fit_intercept = fit_intercept
        self.precision = float(np.finfo(X.dtype).eps)
        mean, deviation = column_moments(X, weight, n_threads)
        rms = np.hypot(mean, deviation)
        with np.errstate(over="ignore"):
            self._mean_square_length = float((rms**2).sum()) + fit_intercept
        self._center = mean if standardise and fit_intercept else np.zeros(d)
        self._scale = np.ones(d) if not standardise else deviation if fit_intercept else rms
        with np.errstate(divide="ignore"):
            self._inverse_scale = np.where(self._scale > 0, 1 / self._scale, 0.0)
        self._pass = LossPass(X, y, weight, self.n_columns, n_threads)
        self._coef = np.zeros((self.n_columns, d), X.dtype)
        self._intercept = np.zeros(self.n_columns, X.dtype)
        self.size = self.n_columns * (d + fit_intercept)
        self.n_passes = 0
        self.workspace_bytes = self._pass.workspace_bytes + self._coef.nbytes

    def split(self, theta: Float64) -> tuple[Float64, Float64]:
        """Views of theta: one row of feature coordinates per column of scores, and the intercepts (maybe none)."""
        n_coefficients = self._coef.size
        return theta[:n_coefficients].reshape(self._coef.shape), theta[n_coefficients:]

    def value_gradient(self, theta: Float64) -> tuple[float, Float64]:
        """J and its gradient at theta. J may be infinite or NaN where scores overflow."""
        self.n_passes += 1
        features, intercept = self.split(theta)
        gradient = np.empty(self.size)
        feature_gradient, intercept_gradient = self.split(gradient)
        with np.errstate(over="ignore", invalid="ignore"):
            coef = features * self._inverse_scale
            self._coef[:] = coef
            if self.fit_intercept:
                self._intercept[:] = intercept - coef @ self._center
            loss, by_coef, by_intercept = self._pass(self._coef, self._intercept)
            np.multiply(coef, self.alpha, out=feature_gradient)
            feature_gradient += by_coef
            if self.fit_intercept:
                intercept_gradient[:] = by_intercept
                feature_gradient -= np.multiply.outer(by_intercept, self._center)
            feature_gradient *= self._inverse_scale
            return loss + self.alpha / 2 * float(np.vdot(coef, coef)), gradient

    def curvature_diagonal(self) -> Float64:
        """Upper bound of the diagonal of the Hessian, after Boehning (1992), doi:10.1007/BF00048682.

        The Hessian of one loss by its scores is at most 1/2, or 1/4 for two classes in one column.
        """
        bound = 0.25 if self.n_columns == 1 else 0.5
        diagonal = np.full(self.size, bound)
        features, _ = self.split(diagonal)
        with np.errstate(over="ignore"):
            features += (np.sqrt(self.alpha) * self._inverse_scale) ** 2
        return diagonal

    def safe_learning_rate(self) -> float:
        """A rate at which gradient descent on W and b decreases J: one over a bound of the largest curvature."""
        bound = 0.25 if self.n_columns == 1 else 0.5
        return 1 / (bound * self._mean_square_length + self.alpha)

    def coefficients(self, theta: Float64) -> tuple[Float64, Float64]:
        """theta as W (K, d) and b (K,) in the units of X, summing to zero over the classes if there are several."""
        features, intercept = self.split(theta)
        coef = features * self._inverse_scale
        constant = intercept - coef @ self._center if self.fit_intercept else np.zeros(self.n_columns)
        if self.n_columns > 1:
            coef -= coef.mean(axis=0)
            constant -= constant.mean()
        return coef, constant

    def parameters(self, coef: Array, intercept: Array) -> Float64:
        """W and b as theta; the weight of a constant feature goes into the intercept, exactly as far as it is one."""
        theta = np.zeros(self.size)
        features, constant = self.split(theta)
        features[:] = coef * self._scale
        if self.fit_intercept:
            constant[:] = intercept + coef @ self._center
        return theta
