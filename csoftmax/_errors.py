"""The exceptions and warnings of csoftmax; bad input otherwise raises ValueError, TypeError or MemoryError."""


class ConvergenceWarning(UserWarning):
    """A fit ended before its stopping test held."""


class NotFittedError(ValueError, AttributeError):
    """An estimator was asked to predict before `fit`; the same bases as scikit-learn's exception of this name."""


class ModelFileError(ValueError):
    """A file is not a csoftmax model, or is damaged."""
