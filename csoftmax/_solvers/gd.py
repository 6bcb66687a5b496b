"""Batch gradient descent, the textbook algorithm: the reference that the other solvers are checked against.

    minimise J(W, b):    (w_k, b_k) <- (w_k, b_k) - rate * dJ/d(w_k, b_k)    for all classes k at once, from zeros,

until no class moves by more than tol: max_k ||change of (w_k, b_k)|| <= tol. Without penalty the step is the familiar
w_k <- w_k + rate/n sum_i x_i (1{y_i = k} - p(k | x_i)).
"""

import numpy as np

from .._objective import Objective
from .._typing import Float64
from ._result import Options, Result


def gradient_descent(objective: Objective, start: Float64, options: Options) -> Result:
    """Minimise J in plain coordinates with a constant rate."""
    theta = start.copy()
    first, gradient = objective.value_gradient(theta)
    value, n_iter, converged, stopped = first, 0, False, False
    while n_iter < options.max_iter and not (converged or stopped):
        with np.errstate(over="ignore"):
            change = -options.learning_rate * gradient
        theta += change
        value, gradient = objective.value_gradient(theta)
        n_iter += 1
        if not np.isfinite(value):
            raise ValueError(_diverged(objective, options, f"the objective became {value} after {n_iter} iterations"))
        converged = options.tol > 0 and _largest_class_norm(objective, change) <= options.tol
        stopped = options.monitor(n_iter, value, float(abs(gradient).max()))
    if n_iter == options.max_iter and not converged and options.tol > 0 and value > first + 1e-6 * abs(first):
        raise ValueError(_diverged(objective, options, f"the objective rose from {first:.4g} to {value:.4g}"))
    largest = _largest_class_norm(objective, options.learning_rate * gradient)
    message = (
        f"converged: no class moved by more than tol={options.tol:g}"
        if converged
        else "was stopped by the callback"
        if stopped
        else f"reached max_iter={options.max_iter} while a class still moves by {largest:.2g} an iteration "
        f"(tol={options.tol:g}); raise max_iter, or learning_rate={options.learning_rate:g} "
        f"(up to {objective.safe_learning_rate():.2g} is safe here), or use solver='auto'"
    )
    return Result(
        theta, value, float(abs(gradient).max()), np.nan, "unknown", n_iter, converged, message, "it was asked for"
    )


def _largest_class_norm(objective: Objective, change: Float64) -> float:
    features, intercept = objective.split(change)
    squares = np.einsum("kj,kj->k", features, features)
    if len(intercept):
        squares = squares + intercept**2
    return float(np.sqrt(squares.max()))


def _diverged(objective: Objective, options: Options, what: str) -> str:
    safe = objective.safe_learning_rate()
    advice = (
        f"up to {safe:.2g} is safe for this data, and more if its features are scaled" if safe else "scale the features"
    )
    return f"gradient descent diverged with learning_rate={options.learning_rate:g}: {what}; {advice}"
