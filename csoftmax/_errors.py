"""The exceptions and warnings of csoftmax; bad input otherwise raises ValueError, TypeError or MemoryError."""

import sys
import warnings
from functools import cache
from typing import Any, Self


class _Shared(Exception):  # noqa: N818
    """Base of those that scikit-learn has under the same name.

    Once scikit-learn is imported their instances belong to its class too, so that handlers and filters written for
    either see them; csoftmax does not import it for that.
    """

    def __new__(cls, *args: Any) -> Self:
        kind: Any = cls
        theirs = getattr(sys.modules.get("sklearn.exceptions"), cls.__name__, None)
        if theirs is not None and not issubclass(cls, theirs):
            kind = _joint(kind, theirs)
        instance: Self = super().__new__(kind, *args)
        return instance


@cache
def _joint(ours: type[_Shared], theirs: type[Exception]) -> Any:
    """A class of both, which pickles as ours: it has no name of its own that could be imported."""
    body = {
        "__doc__": ours.__doc__,
        "__module__": ours.__module__,
        "__reduce__": lambda self: (ours, self.args),
    }
    return type(ours.__name__, (ours, theirs), body)


class ConvergenceWarning(_Shared, UserWarning):
    """A fit ended before its stopping test held."""


class DataConversionWarning(_Shared, UserWarning):
    """Input had another shape than it should have, and was taken for what it most likely means."""


class InconsistentVersionWarning(_Shared, UserWarning):
    """An estimator was unpickled by another version of csoftmax than pickled it."""

    def __init__(self, estimator_name: str, original: str, current: str) -> None:
        # Handlers written for scikit-learn's class read these names.
        self.estimator_name = estimator_name
        self.original_sklearn_version = original
        self.current_sklearn_version = current

    def __str__(self) -> str:
        return (
            f"{self.estimator_name} was pickled by csoftmax {self.original_sklearn_version} and is unpickled by "
            f"csoftmax {self.current_sklearn_version}: it may not work. Fit it again, or keep models in files of "
            f"{self.estimator_name}.save, which every later version reads"
        )


class NotFittedError(_Shared, ValueError, AttributeError):
    """An estimator was asked to predict before `fit`; the same bases as scikit-learn's exception of this name."""


class ModelFileError(ValueError):
    """A file is not a csoftmax model, or is damaged."""


def warn(warning: Warning) -> None:
    """Warn, and name the line outside of csoftmax that led here."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__package__")).partition(".")[0] == __package__:
        level, frame = level + 1, frame.f_back
    warnings.warn(warning, stacklevel=level)
