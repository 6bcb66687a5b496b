"""A user's program: the types that the public names promise. mypy reads it, nobody runs it."""

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import csoftmax
from csoftmax import FitReport, Predictor, SoftmaxRegression, SoftmaxRegressionCV

Array = npt.NDArray[Any]

X = np.zeros((6, 2), dtype=np.float32)
y = ["a", "b", "c", "a", "b", "c"]


class Sparse:
    """What SciPy's sparse formats have in common, for whom has no stubs of SciPy."""

    def tocsr(self) -> Any: ...


def stop(iteration: int, objective: float, gradient_norm: float) -> bool:
    return gradient_norm < objective / iteration


# ---- training ---------------------------------------------------------------------------------------------------

model = SoftmaxRegression(C=np.inf, class_weight={"a": 2.0}, n_threads=1, callback=stop)
assert_type(model.fit(X, y, sample_weight=[1, 1, 1, 2, 2, 2]), SoftmaxRegression)
assert_type(model.predict(X), Array)
assert_type(model.predict(Sparse()), Array)
assert_type(model.predict_proba(X), Array)
assert_type(model.predict_log_proba(X), Array)
assert_type(model.decision_function(X), Array)
assert_type(model.score(X, y), float)
assert_type(model.classes_, Array)
assert_type(model.coef_, Any)  # an array, or after sparsify() a CSR matrix
assert_type(model.intercept_, Array)
assert_type(model.n_iter_, npt.NDArray[np.int32])
assert_type(model.n_features_in_, int)
assert_type(model.loss_curve_, npt.NDArray[np.float64])
assert_type(model.fit_report_, FitReport)
assert_type(model.fit_report_.gap, float)
assert_type(model.get_params(), dict[str, Any])
assert_type(model.set_params(C=2.0), SoftmaxRegression)
SoftmaxRegression(1.0)  # type: ignore[call-arg]  # by name only
SoftmaxRegression(penalty="l2")  # type: ignore[call-arg]
model.fit_report_.gap = 0.0  # type: ignore[misc]  # frozen

chosen = SoftmaxRegressionCV(Cs=[0.1, 1.0], l1_ratios=[0.0, 0.5], cv=3, scoring="accuracy")
assert_type(chosen.fit(X, y), SoftmaxRegressionCV)
assert_type(chosen.C_, float)

# ---- prediction -------------------------------------------------------------------------------------------------

assert_type(model.predictor(), Predictor)
served = Predictor([[1, 2], [3, 4], [5, 6]], [0, 0, 0], ["a", "b", "c"], feature_names=["width", "height"])
out = np.empty(3)
assert_type(served.predict_proba([1.0, 2.0], out=out), Array)
assert_type(served.top_k(X, 2), tuple[Array, Array])
assert_type(served.classes, Array)
assert_type(served.dtype, np.dtype[Any])
assert_type(served.feature_names, tuple[str, ...] | None)
served.save(Path("model.csoftmax"))
assert_type(csoftmax.load("model.csoftmax"), Predictor)
served.n_classes = 2  # type: ignore[misc]  # immutable


class Wider(Predictor):  # type: ignore[misc]  # final
    pass


# ---- functions --------------------------------------------------------------------------------------------------

assert_type(csoftmax.softmax([0.0, 0.0]), Array)
assert_type(csoftmax.log_softmax(X, axis=0), Array)
assert_type(csoftmax.loss_gradient(X, [0, 1, 2, 0, 1, 2], np.zeros((3, 2))), tuple[float, Array, Array])
assert_type(csoftmax.get_include(), str)
assert_type(csoftmax.__version__, str)
try:
    csoftmax.load(b"model")  # type: ignore[arg-type]
except csoftmax.ModelFileError as error:
    assert_type(error, csoftmax.ModelFileError)
