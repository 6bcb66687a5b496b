"""Data sets of the solver tests: real ones from scikit-learn, and small ones with overlapping classes."""

import functools

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

LOADERS = {"iris": load_iris, "wine": load_wine, "digits": load_digits, "cancer": load_breast_cancer}


@functools.cache
def real(name):
    """X, y of a data set; wine and breast cancer, whose features differ by 10^5 in scale, are standardised."""
    X, y = LOADERS[name](return_X_y=True)
    if name in ("wine", "cancer"):
        X = (X - X.mean(axis=0)) / X.std(axis=0)
    X.flags.writeable = y.flags.writeable = False
    return X, y


def overlapping(n=200, d=4, n_classes=3, seed=0):
    """Labels drawn from a softmax model: no hyperplane separates them, so an unpenalised optimum exists."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    scores = X @ rng.standard_normal((d, n_classes)) + 0.5 * rng.standard_normal(n_classes)
    y = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    y[:n_classes] = np.arange(n_classes)
    return X, y
