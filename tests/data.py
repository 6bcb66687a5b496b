"""Data sets of the solver tests: real ones from scikit-learn, and small ones with overlapping classes."""

import functools

import numpy as np
import pytest
from scipy.sparse import coo_array

LOADERS = {"iris": "load_iris", "wine": "load_wine", "digits": "load_digits", "cancer": "load_breast_cancer"}


@functools.cache
def raw(name):
    """X, y of a data set as they are, features of very different size included."""
    X, y = getattr(pytest.importorskip("sklearn.datasets"), LOADERS[name])(return_X_y=True)
    X.flags.writeable = y.flags.writeable = False
    return X, y


@functools.cache
def real(name):
    """The same; wine and breast cancer, whose features differ by 10^5 in scale, are standardised."""
    X, y = raw(name)
    if name in ("wine", "cancer"):
        X = (X - X.mean(axis=0)) / X.std(axis=0)
        X.flags.writeable = False
    return X, y


def overlapping(n=200, d=4, n_classes=3, seed=0):
    """Labels drawn from a softmax model: no hyperplane separates them, so an unpenalised optimum exists."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    scores = X @ rng.standard_normal((d, n_classes)) + 0.5 * rng.standard_normal(n_classes)
    y = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    y[:n_classes] = np.arange(n_classes)
    return X, y


# ---- models -----------------------------------------------------------------------------------------------------

METHODS = ["predict_proba", "predict_log_proba", "decision_function", "predict"]
DTYPES = [np.float64, np.float32]
LABELS = {
    "int": np.array([-5, 3, 10**15]),
    "int8": np.array([-5, 3, 7], dtype=np.int8),
    "str": np.array(["", "elm", "\N{LATIN SMALL LETTER O WITH DIAERESIS}re \N{SNOWMAN}"]),
    "float": np.array([-1.0, 0.0, 2.0]),
    "bool": np.array([False, True]),
}


def coefficients(n_classes=3, d=4, dtype=np.float64, seed=0):
    """coef and intercept as the estimator has them: one row for two classes."""
    rng = np.random.default_rng(seed)
    rows = 1 if n_classes == 2 else n_classes
    return rng.standard_normal((rows, d)).astype(dtype), rng.standard_normal(rows).astype(dtype)


def inputs(n, d=4, dtype=np.float64):
    return np.random.default_rng(9).standard_normal((n, d)).astype(dtype)


def assert_same_predictor(one, other):
    assert one.dtype == other.dtype
    assert (one.n_features, one.n_classes) == (other.n_features, other.n_classes)
    assert one.classes.dtype.kind == other.classes.dtype.kind
    for name in ("coef", "intercept", "classes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    X = inputs(20, one.n_features, one.dtype)
    for method in METHODS:
        np.testing.assert_array_equal(getattr(one, method)(X), getattr(other, method)(X))


def random_csr(n, d, density, dtype):
    """A sparse matrix: SciPy's own function takes its generator by a name that has changed."""
    rng = np.random.default_rng(0)
    places = np.unique(rng.integers(n * d, size=int(density * n * d)))
    return coo_array((rng.random(len(places), dtype), (places // d, places % d)), (n, d)).tocsr()
