"""Cross-validation to tight tolerances by this library and by scikit-learn, for the tests that compare them."""

import inspect

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegressionCV

from csoftmax import SoftmaxRegressionCV

CS = [0.01, 0.1, 1.0, 10.0]
ATTRIBUTES = {
    "Cs_", "l1_ratios_", "C_", "l1_ratio_", "scores_", "coefs_paths_", "n_iter_", "classes_", "coef_", "intercept_",
    "n_features_in_",
}  # fmt: skip


def tight(X, y, sample_weight=None, **parameters):
    settings = {"Cs": CS, "cv": 3, "tol": 1e-10, "max_iter": 20_000, **parameters}
    return SoftmaxRegressionCV(**settings).fit(X, y, sample_weight)


def theirs(X, y, sample_weight=None, **parameters):
    if "use_legacy_attributes" not in inspect.signature(LogisticRegressionCV).parameters:
        pytest.skip("this scikit-learn leaves attributes of other shapes")
    settings = {"Cs": CS, "cv": 3, "tol": 1e-10, "max_iter": 1000, "scoring": "accuracy", **parameters}
    fixed = {"l1_ratios": (0.0,), "use_legacy_attributes": False}
    return LogisticRegressionCV(**fixed, **{"solver": "newton-cholesky", **settings}).fit(
        X, y, sample_weight=sample_weight
    )


def attributes(model):
    return {name: value for name, value in vars(model).items() if name.endswith("_")}


def assert_same_choice(one, other, rtol=0, atol=1e-6):
    """All that a fit of either library leaves agrees, but for the iterations."""
    assert one.C_ == other.C_
    assert one.l1_ratio_ == other.l1_ratio_
    for name in ATTRIBUTES - {"C_", "l1_ratio_", "n_iter_", "classes_"}:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=rtol, atol=atol, err_msg=name)
    np.testing.assert_array_equal(one.classes_, other.classes_)
