"""SoftmaxRegressionCV: SoftmaxRegression with the strength of its penalty chosen by cross-validation."""

import time
from collections.abc import Iterable
from numbers import Integral
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from . import _validation as gate
from ._crossval import Scorer, make_folds, make_scorer, score_folds, train_folds
from ._errors import ConvergenceWarning, warn
from ._progress import Progress
from ._typing import Array, Data, Float64
from .estimator import SoftmaxRegression, _Monitor, _TrainingData

# Parameters that every fit has from the estimator.
SHARED = ("solver", "tol", "max_iter", "fit_intercept", "class_weight", "learning_rate", "n_threads", "verbose")


class Grid(NamedTuple):
    """The values to try, in the order given."""

    Cs: Float64
    l1_ratios: Float64


class SoftmaxRegressionCV(SoftmaxRegression):
    """Softmax regression whose C, and l1_ratio, is chosen by cross-validation.

    For every fold and every l1_ratio the models of all Cs are fitted to the fold's training rows and scored on its
    test rows. The pair with the best mean score is then fitted to all rows. What is minimised is J of
    `SoftmaxRegression`; parameters and attributes are those of scikit-learn's LogisticRegressionCV with
    ``use_legacy_attributes=False``.

    Parameters
    ----------
    Cs : int or sequence of float, default=10
        Inverse strengths of the penalty, in any order, positive, ``numpy.inf`` for none. A number stands for so many
        values in equal ratios from 1e-4 to 1e4.
    l1_ratios : sequence of float, default=(0.0,)
        Shares of L1 in the penalty, from 0 to 1.
    cv : int, splitter or iterable, optional
        A number of stratified folds, 5 by default; an object with scikit-learn's ``split(X, y)``; or an iterable of
        pairs (train, test) of arrays of row numbers.
    scoring : str or callable, optional
        What is scored: a name that scikit-learn's ``get_scorer`` knows or a function of (estimator, X, y), with the
        keyword sample_weight if weights are given; the higher the better. By default the accuracy.
    refit : bool, default=True
        If False, nothing is fitted to all rows: the coefficients, C and l1_ratio are means, over the folds, of those
        that are best for each.
    solver, tol, max_iter, fit_intercept, learning_rate
        Of every fit, as in `SoftmaxRegression`.
    class_weight : dict or "balanced", optional
        As in `SoftmaxRegression`, "balanced" over all rows and not over those of each fold. Scores do not use it, but
        for leaving out the rows of a class of weight 0.
    n_threads : int, optional
        As in `SoftmaxRegression`; as many folds are trained at once, and copies of their rows made. The result is
        bitwise the same for any number.
    verbose : int, default=0
        1 shows on standard error how many fits are done, with tqdm where it is installed.

    Attributes
    ----------
    Cs_ : ndarray of shape (n_Cs,)
        In the order given.
    l1_ratios_ : ndarray of shape (n_l1_ratios,)
    C_, l1_ratio_ : float
        The best. Of equal scores the smallest C wins, then the first l1_ratio.
    scores_ : ndarray of shape (n_folds, n_l1_ratios, n_Cs)
    coefs_paths_ : ndarray of shape (n_folds, n_l1_ratios, n_Cs, K, d + 1)
        Coefficients of every fit, its intercepts last (d alone if there are none), of the dtype of X; for two classes
        one row in place of K.
    n_iter_ : ndarray of shape (n_folds, n_l1_ratios, n_Cs)
    classes_, coef_, intercept_, n_features_in_
        As in `SoftmaxRegression`.
    loss_curve_, fit_report_
        Of the fit to all rows; not there if refit=False.

    Notes
    -----
    scikit-learn is needed for numbers of folds and names of scores: ``pip install 'csoftmax[sklearn]'``.

    Rows of weight 0 are neither trained on nor scored, wherever a split puts them.

    A class of which a fold has no row to train on keeps its place: its intercept has no optimum, and falls until the
    class is as improbable as `tol` can tell, so that the model is that of the other classes. Each fold must train on
    two classes.

    Examples
    --------
    >>> from csoftmax import SoftmaxRegressionCV
    >>> model = SoftmaxRegressionCV(Cs=[0.01, 1.0], cv=2)
    >>> model = model.fit([[0.0], [1.0], [5.0], [6.0]], ["low", "low", "high", "high"])
    >>> model.C_, model.scores_.shape
    (0.01, (2, 1, 2))
    """

    Cs_: Float64
    l1_ratios_: Float64
    C_: float
    l1_ratio_: float
    scores_: Float64
    coefs_paths_: Array

    def __init__(
        self,
        *,
        Cs: int | Iterable[float] = 10,
        l1_ratios: Iterable[float] = (0.0,),
        cv: Any = None,
        scoring: str | Scorer | None = None,
        refit: bool = True,
        solver: str = "auto",
        tol: float = 1e-4,
        max_iter: int = 1000,
        fit_intercept: bool = True,
        class_weight: dict[Any, float] | str | None = None,
        learning_rate: float = 0.1,
        n_threads: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.Cs = Cs
        self.l1_ratios = l1_ratios
        self.cv = cv
        self.scoring = scoring
        self.refit = refit
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.learning_rate = learning_rate
        self.n_threads = n_threads
        self.verbose = verbose

    # ---- training -------------------------------------------------------------------------------------------------

    def fit(self, X: Data, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Choose C and l1_ratio, and find the coefficients.

        Parameters
        ----------
        X : array_like of shape (n, d)
        y : array_like of shape (n,)
        sample_weight : array_like of shape (n,), optional
            As in `SoftmaxRegression.fit`; weights count in the scores, too.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError, MemoryError
            As `SoftmaxRegression.fit`, and for splits and scores that are not as described; the estimator stays as it
            was.
        ImportError
            If scikit-learn is needed and not installed.

        Warns
        -----
        ConvergenceWarning
            Once, if any fit ended before its stopping test held.
        """
        grid, scorer, n_threads = self._grid(), make_scorer(self.scoring), gate.threads(self.n_threads)
        data = self._model(grid.Cs.min(), grid.l1_ratios[0])._check_data(X, y, sample_weight, n_threads)
        folds = make_folds(self.cv, X, y, data)
        weight = None if sample_weight is None else gate.as_sample_weight(sample_weight, len(data.kept))[data.kept]
        models = self._models(grid, len(folds), data)
        with Progress(self.verbose, models.size, "fit") as progress:
            train_folds(models, data, folds, n_threads, progress)
        paths = np.array([_joined(model) for model in models.flat], data.X.dtype)
        paths = paths.reshape(*models.shape, *paths.shape[1:])
        fitted: dict[str, Any] = {
            "classes_": data.classes,
            "n_features_in_": data.X.shape[1],
            "Cs_": grid.Cs,
            "l1_ratios_": grid.l1_ratios,
            "scores_": score_folds(models, data, folds, weight, scorer),
            "coefs_paths_": paths,
            "n_iter_": np.array([model.n_iter_[0] for model in models.flat], np.int32).reshape(models.shape),
        }
        fits = [(f"fold {at[0]}", model) for at, model in np.ndenumerate(models)]
        if self.refit:
            model = self._fit_all(data, grid, fitted["scores_"], paths, n_threads)
            fits.append(("all rows", model))
            fitted |= {"C_": model.C, "l1_ratio_": model.l1_ratio}
            fitted |= {name: getattr(model, name) for name in ("coef_", "intercept_", "loss_curve_", "fit_report_")}
        else:
            fitted |= _means(grid, fitted["scores_"], paths, data.X.shape[1])
        if data.names is not None:
            fitted["feature_names_in_"] = data.names
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)  # an earlier fit may have left more
        vars(self).update(fitted)
        self._warn(fits)
        return self

    def _grid(self) -> Grid:
        """The values to try; raises for a parameter that has no meaning."""
        if isinstance(self.Cs, Integral | np.bool_):
            Cs = np.logspace(-4, 4, gate.integer(self.Cs, "Cs", 1))
        else:
            values = _as_list(self.Cs, "Cs", "a whole number, or a sequence of positive numbers")
            Cs = np.array([gate.number(C, f"Cs[{i}]", 0, strict=True, infinite=True) for i, C in enumerate(values)])
        ratios = _as_list(self.l1_ratios, "l1_ratios", "a sequence of numbers from 0 to 1")
        for i, ratio in enumerate(ratios):
            if gate.number(ratio, f"l1_ratios[{i}]", 0) > 1:
                raise ValueError(f"l1_ratios[{i}]={ratio!r}: expected a number from 0, all L2, to 1, all L1")
        gate.flag(self.refit, "refit")
        for ratio in ratios:
            self._model(Cs[0], ratio)._check_parameters()
        return Grid(Cs, np.array(ratios, np.float64))

    def _model(self, C: float, l1_ratio: float) -> SoftmaxRegression:
        return SoftmaxRegression(C=float(C), l1_ratio=float(l1_ratio), **{name: getattr(self, name) for name in SHARED})

    def _models(self, grid: Grid, n_folds: int, data: _TrainingData) -> Array:
        """The models to be fitted, by fold, l1_ratio and C."""
        n_fits = n_folds * len(grid.l1_ratios) * len(grid.Cs)
        size = n_fits * len(data.classes) * (data.X.shape[1] + 1)
        gate.require_memory(2 * data.X.dtype.itemsize * size, f"the coefficients of {n_fits} fits")
        by_fold = [[[self._model(C, ratio) for C in grid.Cs] for ratio in grid.l1_ratios] for _ in range(n_folds)]
        return np.array(by_fold, object)

    def _fit_all(
        self, data: _TrainingData, grid: Grid, scores: Float64, paths: Array, n_threads: int
    ) -> SoftmaxRegression:
        """The best model of the grid fitted to all rows, from the mean of what the folds found."""
        began = time.perf_counter()
        ratio, C = _best(scores.sum(axis=0), grid.Cs)
        model = self._model(grid.Cs[C], grid.l1_ratios[ratio])
        objective = model._objective(data, n_threads)
        start = objective.parameters(*_split(paths[:, ratio, C].mean(axis=0), data.X.shape[1]))
        model._minimise(objective, data, start, _Monitor(), began)
        return model

    def _warn(self, fits: list[tuple[str, SoftmaxRegression]]) -> None:
        """Warn, once, of fits that did not converge."""
        failed = [(rows, model) for rows, model in fits if not model.fit_report_.converged]
        if failed and self.tol > 0:
            rows, model = failed[0]
            reason = (
                f"{len(failed)} of {len(fits)} fits did not converge. The first, on {rows} with C={model.C:g} and "
                f"l1_ratio={model.l1_ratio:g}: solver {self.solver!r} {model.fit_report_.message}"
            )
            warn(ConvergenceWarning(reason))

    # ---- scores ---------------------------------------------------------------------------------------------------

    def score(self, X: Data, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> float:
        """What `scoring` makes of the predictions for X: by default the share of labels that are predicted.

        Parameters
        ----------
        X : array_like of shape (n, d)
        y : array_like of shape (n,)
        sample_weight : array_like of shape (n,), optional
            Handed to the scorer if given.
        """
        self._check_fitted()
        weight = {} if sample_weight is None else {"sample_weight": sample_weight}
        return float(make_scorer(self.scoring)(self, X, y, **weight))


def _best(scores: Float64, Cs: Float64) -> tuple[int, int]:
    """Where, of shape (n_l1_ratios, n_Cs), the best score is: of equal ones at the least C, then the first l1_ratio."""
    order = np.argsort(Cs, kind="stable")
    by_C = scores[:, order].T
    C, ratio = np.unravel_index(by_C.argmax(), by_C.shape)
    return int(ratio), int(order[C])


def _means(grid: Grid, scores: Float64, paths: Array, n_features: int) -> dict[str, Any]:
    """What `refit=False` keeps: means, over the folds, of the best of each."""
    ratios, Cs = np.array([_best(of_fold, grid.Cs) for of_fold in scores]).T
    coef, intercept = _split(paths[np.arange(len(scores)), ratios, Cs].mean(axis=0), n_features)
    return {
        "coef_": coef,
        "intercept_": intercept,
        "C_": float(grid.Cs[Cs].mean()),
        "l1_ratio_": float(grid.l1_ratios[ratios].mean()),
    }


def _joined(model: SoftmaxRegression) -> Array:
    """Coefficients with the intercepts, if there are any, as the last column."""
    return np.column_stack([model.coef_, model.intercept_]) if model.fit_intercept else model.coef_


def _split(rows: Array, n_features: int) -> tuple[Array, Array]:
    """The reverse: coefficients, and intercepts, which are 0 if there are none."""
    intercept = rows[:, n_features] if rows.shape[1] > n_features else np.zeros(len(rows), rows.dtype)
    return np.ascontiguousarray(rows[:, :n_features]), intercept.copy()


def _as_list(values: Any, name: str, expected: str) -> list[Any]:
    try:
        listed = list(values)
    except TypeError:
        raise TypeError(f"{name}={values!r} is a {type(values).__name__}: expected {expected}") from None
    if not listed:
        raise ValueError(f"{name}={values!r} is empty: expected {expected}")
    return listed
