"""Softmax (multinomial logistic) regression, compiled."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._errors import ConvergenceWarning, ModelFileError, NotFittedError
    from ._functions import log_softmax, loss_gradient, softmax
    from ._model import load
    from ._predictor import Predictor
    from .cv import SoftmaxRegressionCV
    from .estimator import FitReport, SoftmaxRegression

    __version__: str

# Imported when first used: a service that only predicts never loads the training code.
_HOME = {
    "ConvergenceWarning": "_errors",
    "ModelFileError": "_errors",
    "NotFittedError": "_errors",
    "log_softmax": "_functions",
    "loss_gradient": "_functions",
    "softmax": "_functions",
    "Predictor": "_predictor",
    "load": "_model",
    "FitReport": "estimator",
    "SoftmaxRegression": "estimator",
    "SoftmaxRegressionCV": "cv",
}

__all__ = [
    "ConvergenceWarning",
    "FitReport",
    "ModelFileError",
    "NotFittedError",
    "Predictor",
    "SoftmaxRegression",
    "SoftmaxRegressionCV",
    "get_include",
    "load",
    "log_softmax",
    "loss_gradient",
    "softmax",
]


def get_include() -> str:
    """Folder to compile extensions against that ``cimport`` from csoftmax, for ``include_dirs``."""
    from pathlib import Path

    return str(Path(__file__).parent)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("csoftmax")
    if name in ("dask", "export", "plot"):
        return import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module 'csoftmax' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
