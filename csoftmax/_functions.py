"""The mathematics as functions: softmax, and the loss with its gradient."""

from typing import Any

import numpy as np
import numpy.typing as npt

from . import _kernels
from ._passes import LossPass
from ._typing import Array, Data
from ._validation import (
    as_array,
    as_floats,
    as_matrix,
    as_rows,
    as_sample_weight,
    as_vector,
    check_finite,
    threads,
)


def softmax(scores: npt.ArrayLike, axis: int = -1) -> Array:
    """Turn scores into probabilities: exp(z_k) / sum_j exp(z_j).

    The largest score is subtracted first, which changes nothing and keeps any finite score from overflowing.

    Parameters
    ----------
    scores : array_like, at least one dimension
        float32 and float64 are kept, other real dtypes become float64.
    axis : int, default=-1
        The axis of the classes.

    Returns
    -------
    ndarray of the shape of `scores`
        Not negative, adding up to 1 along `axis`. A row with NaN or plus infinity, or of minus infinities, is NaN.

    Raises
    ------
    ValueError
        If `scores` has no dimension or no class, or is not made of real numbers.

    Examples
    --------
    >>> import csoftmax
    >>> csoftmax.softmax([0.0, 0.0])
    array([0.5, 0.5])
    """
    return _along(scores, axis, logarithm=False)


def log_softmax(scores: npt.ArrayLike, axis: int = -1) -> Array:
    """Logarithm of `softmax`, exact also where the probability itself would be 0: z_k - log(sum_j exp(z_j)).

    Parameters, result and errors are those of `softmax`.
    """
    return _along(scores, axis, logarithm=True)


def _along(scores: Any, axis: int, logarithm: bool) -> Array:
    array = as_array(scores, "scores")
    if array.ndim == 0:
        raise ValueError("scores is a single number: expected an array with an axis of classes")
    if not -array.ndim <= axis < array.ndim:
        raise ValueError(f"axis={axis}: scores has {array.ndim} dimensions, shape {array.shape}")
    if array.shape[axis] == 0:
        raise ValueError(f"scores has shape {array.shape}: there is no class along axis {axis}")
    moved = np.moveaxis(as_floats(array, "scores"), axis, -1)
    rows = moved.reshape(-1, moved.shape[-1]).copy()
    _kernels.softmax_rows(rows, 0, len(rows), logarithm)
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved.shape), -1, axis))


def loss_gradient(
    X: Data,
    y: npt.ArrayLike,
    coef: npt.ArrayLike,
    intercept: npt.ArrayLike | None = None,
    *,
    sample_weight: npt.ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> tuple[float, Array, Array]:
    """Softmax loss of a data set at given coefficients, and its gradient.

    With p_ik = softmax(coef x_i + intercept)_k the loss of a sample is -log p_{i, y_i}, and::

        d loss / d coef_k      = sum_i s_i (p_ik - 1{y_i = k}) x_i
        d loss / d intercept_k = sum_i s_i (p_ik - 1{y_i = k})

    both divided by sum_i s_i for the mean. There is no penalty.

    Parameters
    ----------
    X : array_like or sparse matrix of shape (n, d)
        Finite. float32 stays float32, everything else is computed in float64.
    y : array_like of shape (n,)
        Class numbers, whole, in [0, K).
    coef : array_like of shape (K, d)
        One row of weights per class, at least two.
    intercept : array_like of shape (K,), optional
        Zeros by default.
    sample_weight : array_like of shape (n,), optional
        s_i, not negative, not all zero; ones by default.
    reduction : {"mean", "sum"}, default="mean"
    n_threads : int, optional
        By default all CPUs this process may use. The result is the same for any number.

    Returns
    -------
    loss : float
    dcoef : ndarray of shape (K, d), dtype of X
    dintercept : ndarray of shape (K,), dtype of X

    Raises
    ------
    ValueError, TypeError
        For input that is not as described; the sentence says what was given and what is expected.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction={reduction!r}: expected 'mean' or 'sum'")
    matrix = as_rows(X)
    n, d = matrix.shape
    weights = as_matrix(coef, "coef")
    n_classes = len(weights)
    if n_classes < 2 or weights.shape[1] != d:
        raise ValueError(
            f"coef has shape {weights.shape} and X {matrix.shape}: expected (n_classes, {d}) with at least two classes"
        )
    offsets = np.zeros(n_classes) if intercept is None else as_vector(intercept, "intercept", n_classes, "coef")
    labels = as_vector(y, "y", n)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"y has dtype {labels.dtype}: expected class numbers, integers in [0, {n_classes})")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"y has values from {labels.min()} to {labels.max()}: coef has rows for 0 to {n_classes - 1}")
    weight = as_sample_weight(sample_weight, n)
    workers = threads(n_threads)
    check_finite(matrix, "X", workers)
    with np.errstate(over="ignore"):
        weights = weights.astype(matrix.dtype, copy=False)
        offsets = as_floats(offsets, "intercept").astype(matrix.dtype, copy=False)
    check_finite(weights, f"coef in {matrix.dtype}")
    check_finite(offsets, f"intercept in {matrix.dtype}")
    total = weight.sum()
    run_pass = LossPass(matrix, labels.astype(np.int32), (weight / total).astype(matrix.dtype), n_classes, workers)
    loss, by_coef, by_intercept = run_pass(weights, offsets)
    if reduction == "sum":
        loss, by_coef, by_intercept = loss * total, by_coef * total, by_intercept * total
    return float(loss), by_coef.astype(matrix.dtype, copy=False), by_intercept.astype(matrix.dtype, copy=False)
