"""The parts of cross-validation: splits checked, paths of fits along C trained in parallel, models scored.

What a user hands in, splitters and scorers, is called by the calling thread alone: it need not be thread-safe, and
finds the settings of that thread. scikit-learn is imported only where it is asked for.
"""

import inspect
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib import import_module
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _validation as gate
from ._progress import Progress
from ._threads import run
from ._typing import Array, Float64
from .estimator import SoftmaxRegression, _Monitor, _TrainingData

Scorer = Callable[..., Any]
RowNumbers = npt.NDArray[np.intp]
# Multiplications of one pass over a fold below which fits are mostly Python, which lets one thread run at a time.
WORK = 2**18


class Fold(NamedTuple):
    """Numbers of the rows to train on and to score on."""

    train: RowNumbers
    test: RowNumbers


# ---- folds ----------------------------------------------------------------------------------------------------------


def make_folds(cv: Any, X: Any, y: Any, data: _TrainingData) -> list[Fold]:
    """The splits, of all rows that were given, as numbers of rows in `data`."""
    number = np.where(data.kept, np.cumsum(data.kept) - 1, -1)
    folds = []
    for i, split in enumerate(_splits(cv, X, y, data)):
        try:
            train, test = split
        except (TypeError, ValueError):
            raise ValueError(
                f"cv gave {split!r:.60} as split {i}: expected a pair (train, test) of arrays of row numbers"
            ) from None
        fold = Fold(_rows(train, number, f"cv, split {i}, train"), _rows(test, number, f"cv, split {i}, test"))
        present = np.flatnonzero(np.bincount(data.codes[fold.train]))
        if len(present) < 2:
            raise ValueError(
                f"cv, split {i}: the training rows are of {len(present)} class(es), {data.classes[present].tolist()} "
                f"(rows of weight 0 do not count): expected at least two; use fewer folds, or stratified ones"
            )
        if not len(fold.test):
            raise ValueError(f"cv, split {i}: no test row has a positive weight, so there is nothing to score")
        folds.append(fold)
    if not folds:
        raise ValueError("cv gave no split: expected at least one pair (train, test) of arrays of row numbers")
    return folds


def _splits(cv: Any, X: Any, y: Any, data: _TrainingData) -> Iterable[Any]:
    """Pairs of training rows and test rows."""
    labels = data.classes[data.codes] if data.kept.all() else gate.as_labels(y, len(data.kept))
    if cv is None or isinstance(cv, Integral | np.bool_):
        n_folds = 5 if cv is None else gate.integer(cv, "cv", 2)
        codes = np.unique(labels, return_inverse=True)[1]  # of a type that scikit-learn takes
        folds = sklearn("model_selection", f"cv={cv!r}").StratifiedKFold(n_folds)
        splits: Iterable[Any] = folds.split(codes, codes)
        return splits
    if hasattr(cv, "split") and not isinstance(cv, str):
        splits = cv.split(X, labels)
        return splits
    if isinstance(cv, str) or not isinstance(cv, Iterable):
        raise TypeError(
            f"cv={cv!r}: expected a number of folds, an object with a method split(X, y), or an iterable of pairs "
            f"(train, test) of arrays of row numbers"
        )
    return cv


def _rows(given: Any, number: RowNumbers, what: str) -> RowNumbers:
    """What `number` has for the rows given by their numbers or by a mask, but for those that it has none for."""
    array, n_rows = np.asarray(given), len(number)
    if array.dtype == bool and array.shape == (n_rows,):
        array = np.flatnonzero(array)
    if array.ndim != 1 or array.dtype.kind not in "iu" or not len(array):
        raise ValueError(
            f"{what}: an array of dtype {array.dtype} and shape {array.shape}: expected the numbers of one or more rows"
        )
    if array.min() < 0 or array.max() >= n_rows:
        raise ValueError(f"{what}: row numbers from {array.min()} to {array.max()}; X has the rows 0 to {n_rows - 1}")
    rows: RowNumbers = number[array]
    return rows[rows >= 0]


# ---- paths ----------------------------------------------------------------------------------------------------------


def train_folds(models: Array, data: _TrainingData, folds: list[Fold], n_threads: int, progress: Progress) -> None:
    """Fit the models, by fold, l1_ratio and C: as many folds at once as there are threads, the rest with several each.

    Tiny folds are fitted one after the other. Others run in the pool that their fits use as well, and cannot lock it
    up: a fit does itself what no thread of the pool has begun, and waits for no fold.
    """
    interrupted = False

    def train_fold(number: int, share: int) -> None:
        nonlocal interrupted
        try:
            rows = folds[number].train
            part = replace(data, names=None, X=data.X[rows], codes=data.codes[rows], weight=data.weight[rows])
            for path in models[number]:
                for model in _follow(path, part, share, lambda *state: interrupted):
                    progress(f"fold {number}, C={model.C:.3g}, {model.n_iter_[0]} iterations")
        except BaseException:
            interrupted = True  # for the other folds: they stop at their next iteration
            raise

    work = max(len(fold.train) for fold in folds) * data.X.shape[1] * max(len(data.classes), 8)
    at_once = min(n_threads, len(folds)) if work >= WORK else 1
    rest = len(folds) % at_once
    whole = len(folds) - rest
    try:
        run(lambda item, worker: train_fold(item, n_threads // at_once), whole, at_once)
        run(lambda item, worker: train_fold(whole + item, n_threads // rest), rest, rest)
    except BaseException:
        interrupted = True  # while this thread waited for others
        raise


def _follow(
    path: Iterable[SoftmaxRegression], data: _TrainingData, n_threads: int, stop: Callable[..., bool]
) -> Iterator[SoftmaxRegression]:
    """Fit models that differ in C alone, the strongest penalty first, each from where the path seems to lead."""
    ordered = sorted(path, key=lambda model: model.C)
    began = time.perf_counter()
    objective = ordered[0]._objective(data, n_threads)
    theta, C = np.zeros(objective.size), 0.0
    slopes: list[Float64] = []
    for model in ordered:
        objective.penalise(model.C, model.l1_ratio)
        distance = math.log(model.C) - math.log(C) if C > 0 else math.inf
        start = theta + _step_ahead(slopes, distance)
        found = model._minimise(objective, data, start, _Monitor(stop), began).theta
        if 0 < distance < math.inf:
            slopes = [*slopes[-1:], (found - theta) / distance]
        theta, C = found, model.C
        if stop():
            return
        yield model
        began = time.perf_counter()


def _step_ahead(slopes: list[Float64], distance: float) -> Float64 | float:
    """The step to the next model of a path, guessed from the slopes of the last two steps over log C.

    Coefficients grow in proportion to C at first, with log C where classes are nearly separable, and come to rest
    where they are not: the next slope is the last one, or as much smaller as that was than the one before. On digits
    that saves 40 % of the passes of ten Cs, on sets of more rows next to none. Steps of a factor above 30 are too long.
    """
    if len(slopes) < 2 or not distance < math.log(30):
        return 0.0
    before, last = slopes
    length = float(before @ before)
    return min(max(float(last @ before) / length, 0.0), 1.0) * distance * last if length > 0 else 0.0


# ---- scores ---------------------------------------------------------------------------------------------------------


def make_scorer(scoring: Any) -> Scorer:
    """A function of (estimator, X, y), and of sample_weight by name."""
    if scoring is None or (isinstance(scoring, str) and scoring == "accuracy"):
        return SoftmaxRegression.score
    if isinstance(scoring, str):
        scorer: Scorer = sklearn("metrics", f"scoring={scoring!r}").get_scorer(scoring)
        return scorer
    if not callable(scoring):
        raise TypeError(
            f"scoring={scoring!r}: expected None for accuracy, a name that scikit-learn's get_scorer knows, or a "
            f"function of (estimator, X, y)"
        )
    given: Scorer = scoring
    return given


def score_folds(
    models: Array, data: _TrainingData, folds: list[Fold], weight: Float64 | None, scorer: Scorer
) -> Float64:
    """The score of every model on the test rows of its fold."""
    scorer = _told_of_classes(scorer, data.classes)
    scores = np.empty(models.shape)
    for number, fold in enumerate(folds):
        X, y = data.X[fold.test], data.classes[data.codes[fold.test]]
        options = {} if weight is None else {"sample_weight": weight[fold.test]}
        for at, model in np.ndenumerate(models[number]):
            value = gate.real(scorer(model, X, y, **options), "the result of scoring")
            if np.isnan(value):
                raise ValueError(
                    f"scoring gave NaN for C={model.C:g} on the test rows of split {number}: expected a number that "
                    f"can be compared; perhaps these rows have too few classes for this score"
                )
            scores[(number, *at)] = value
    return scores


def _told_of_classes(scorer: Scorer, classes: Array) -> Scorer:
    """The scorer, told of all classes if its metric takes a list of them: test rows may lack some."""
    parts = ("_score_func", "_response_method", "_sign", "_kwargs")
    if not all(hasattr(scorer, part) for part in parts):
        return scorer
    metric, method, sign, options = (getattr(scorer, part) for part in parts)
    takes = inspect.signature(metric).parameters
    if "labels" not in takes:
        return scorer
    known = {"labels": classes}
    if len(classes) == 2 and "pos_label" in takes:
        known["pos_label"] = classes[1]
    make = sklearn("metrics", "scoring").make_scorer
    told: Scorer = make(metric, response_method=method, greater_is_better=sign > 0, **{**known, **options})
    return told


# ---- scikit-learn ---------------------------------------------------------------------------------------------------


def sklearn(module: str, what: str) -> Any:
    """A module of scikit-learn, which `what` needs."""
    try:
        return import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ImportError(
            f"{what} of SoftmaxRegressionCV needs scikit-learn: pip install 'csoftmax[sklearn]'. Without it cv can be "
            f"an iterable of pairs (train, test) of arrays of row numbers, and scoring None or a function"
        ) from error
