"""Fitted models of scikit-learn as coefficients of a linear softmax; imports nothing of it."""

import warnings
from typing import Any

import numpy as np

from ._typing import Array, Float64

_SCALERS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler")
# How far the probabilities of what was made may be from the model's own, at some points near its data.
TOLERANCE = 1e-9


def linear_softmax(model: Any) -> tuple[Float64, Float64, Array, list[str] | None]:
    """coef, intercept, classes and feature names of a model whose probabilities are a softmax of linear scores.

    Whatever looks like one is compared with its own `predict_proba`, so that a model of another kind is refused even if
    this code has never heard of it.
    """
    steps = [(type(model).__name__, model)]
    if hasattr(model, "steps"):
        steps = [(name, step) for name, step in model.steps if step is not None and step != "passthrough"]
    if not steps:
        raise TypeError("from_sklearn: the pipeline has no steps")
    *scalers, (name, final) = steps
    if len(scalers) > 1 or any(type(step).__name__ not in _SCALERS for _, step in scalers):
        odd = next((step for _, step in scalers if type(step).__name__ not in _SCALERS), scalers[-1][1])
        raise TypeError(
            f"from_sklearn: the pipeline has the step {type(odd).__name__}: besides the classifier one of "
            f"{', '.join(_SCALERS)} can be folded into the weights"
        )
    for attribute in ("coef_", "intercept_", "classes_"):
        if not hasattr(final, attribute):
            raise TypeError(
                f"from_sklearn: {type(final).__name__} ({name}) has no {attribute}: expected a fitted linear "
                f"classifier, such as LogisticRegression"
            )
    if not hasattr(final, "predict_proba"):
        raise TypeError(f"from_sklearn: {type(final).__name__} ({name}) has no probabilities, as its loss has none")
    coef = np.array(final.coef_.toarray() if hasattr(final.coef_, "toarray") else final.coef_, dtype=np.float64)
    n_classes, (rows, d) = len(final.classes_), coef.shape
    if rows != (1 if n_classes == 2 else n_classes):
        raise TypeError(
            f"from_sklearn: {type(final).__name__} has coefficients of shape {coef.shape} for {n_classes} classes: "
            f"expected one row per class, or one for two classes"
        )
    intercept = np.broadcast_to(np.asarray(final.intercept_, np.float64), (rows,)).copy()
    _compare(final, coef, intercept)
    if scalers:
        scale, shift = _affine(scalers[0][1], d)
        intercept += coef @ shift
        coef *= scale
    names = getattr(model, "feature_names_in_", None)
    return coef, intercept, np.asarray(final.classes_), None if names is None else [str(value) for value in names]


def _affine(scaler: Any, d: int) -> tuple[Float64, Float64]:
    """scale and shift of a scaler that turns x into scale x + shift."""
    kind = type(scaler).__name__
    if not hasattr(scaler, "scale_"):
        raise TypeError(f"from_sklearn: the {kind} of the pipeline is not fitted")
    if getattr(scaler, "clip", False):
        raise TypeError(f"from_sklearn: {kind} clips its values, which no weights can do")
    if kind == "MinMaxScaler":
        return scaler.scale_, scaler.min_
    scale = np.ones(d) if scaler.scale_ is None else 1 / scaler.scale_
    return scale, -scale * scaler.mean_ if kind == "StandardScaler" and scaler.with_mean else np.zeros(d)


def _compare(model: Any, coef: Float64, intercept: Float64) -> None:
    """Refuse a model whose probabilities are not those of its scores."""
    # Points whose scores are a few units apart, as far as there are any: there the softmax of several classes and, say,
    # one-vs-rest differ most.
    wanted = 2 * np.random.default_rng(0).standard_normal((16, len(coef)))
    X = (wanted - intercept) @ np.linalg.pinv(coef, rcond=1e-8).T
    scores = X @ coef.T + intercept
    if len(coef) == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    expected = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that X has no names
        theirs = model.predict_proba(X)
    if np.shape(theirs) != expected.shape or not np.abs(theirs - expected).max() <= TOLERANCE:
        raise TypeError(
            f"from_sklearn: the probabilities of this {type(model).__name__} are not a softmax of its scores (but, for "
            f"instance, one-vs-rest): a Predictor cannot give them"
        )
