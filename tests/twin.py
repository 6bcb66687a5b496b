"""The naive twin: softmax regression in plain NumPy, written to be read and to be compared with, never to be fast.

It shares no code with csoftmax, materialises everything (one-hot labels, n x K probabilities), and knows no blocks,
threads, instruction sets or preconditioners.
"""

import numpy as np


def softmax(scores):
    """Rows of scores (n, K) to rows of probabilities."""
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def log_softmax(scores):
    """Rows of scores (n, K) to rows of logarithms of probabilities."""
    z = scores - scores.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def loss_gradient(X, y, coef, intercept, weight=None, reduction="mean"):
    """K-class form: loss and gradients for coef (K, d) and intercept (K,), without penalty."""
    weight = np.ones(len(X)) if weight is None else weight
    scores = X @ coef.T + intercept
    loss = -(weight * log_softmax(scores)[np.arange(len(y)), y]).sum()
    one_hot = np.eye(len(coef))[y]
    residual = weight[:, None] * (softmax(scores) - one_hot)
    scale = weight.sum() if reduction == "mean" else 1.0
    return loss / scale, residual.T @ X / scale, residual.sum(axis=0) / scale


def binary_loss_gradient(X, y, coef, intercept, weight=None, reduction="mean"):
    """One-column form, coef (1, d) and intercept (1,): the probability of y = 1 is 1 / (1 + exp(-x.w - b))."""
    weight = np.ones(len(X)) if weight is None else weight
    score = X @ coef[0] + intercept[0]
    loss = (weight * (np.logaddexp(0.0, score) - y * score)).sum()
    residual = weight * (np.exp(-np.logaddexp(0.0, -score)) - y)
    scale = weight.sum() if reduction == "mean" else 1.0
    return loss / scale, (residual @ X)[None, :] / scale, residual.sum(keepdims=True) / scale


def mean_loss_gradient(X, y, coef, intercept, weight):
    """The form that fits the number of rows of coef: one row means two classes."""
    form = binary_loss_gradient if len(coef) == 1 else loss_gradient
    return form(X, y, coef, intercept, weight, "mean")


def objective(X, y, coef, intercept, C=np.inf, weight=None):
    """J = (1/S) sum_i s_i loss_i + ||W||^2 / (2 C S), the intercept not penalised."""
    weight = np.ones(len(X)) if weight is None else weight
    loss = mean_loss_gradient(X, y, coef, intercept, weight)[0]
    return loss + (coef**2).sum() / (2 * C * weight.sum())


def gradient_descent(X, y, n_classes, n_iter, rate, C=np.inf, weight=None, fit_intercept=True):
    """The textbook algorithm from zeros, all classes at once; [(coef, intercept, J)] after 0, 1, ..., n_iter steps."""
    weight = np.ones(len(X)) if weight is None else weight
    rows = 1 if n_classes == 2 else n_classes
    coef, intercept = np.zeros((rows, X.shape[1])), np.zeros(rows)
    iterates = [(coef, intercept, objective(X, y, coef, intercept, C, weight))]
    for _ in range(n_iter):
        _, dcoef, dintercept = mean_loss_gradient(X, y, coef, intercept, weight)
        coef = coef - rate * (dcoef + coef / (C * weight.sum()))
        if fit_intercept:
            intercept = intercept - rate * dintercept
        iterates.append((coef, intercept, objective(X, y, coef, intercept, C, weight)))
    return iterates


def class_weights(y, n_classes, sample_weight=None):
    """class_weight="balanced": sum of the weights / (K * weighted count of the class)."""
    sample_weight = np.ones(len(y)) if sample_weight is None else sample_weight
    count = np.array([sample_weight[y == k].sum() for k in range(n_classes)])
    return sample_weight.sum() / (n_classes * count)
