"""SoftmaxRegression: the scikit-learn style face of training."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from . import _validation as gate
from ._errors import ConvergenceWarning, warn
from ._frames import feature_names
from ._mapped import Mapped, is_mapped
from ._objective import Objective
from ._predictor import Predictor
from ._progress import Progress
from ._rows import LocalRows, TrainingRows
from ._scikit import Estimator
from ._solvers import SOLVERS, Options, Result
from ._typing import Array, Codes, Data, DType, Float64, Rows

if TYPE_CHECKING:
    import os

Callback = Callable[[int, float, float], Any]


@dataclass(frozen=True)
class FitReport:
    """What a fit did.

    Attributes
    ----------
    solver, reason_chosen : str
        Which solver ran, and why it.
    converged : bool
        Whether the stopping test held.
    message : str
        Why the solver stopped, in words.
    objective : float
        J at the end: mean weighted loss plus penalty.
    gradient_norm : float
        Largest entry of the gradient of J, each feature in units of its standard deviation (solver="gd": as it is).
    gap : float
        How far J may be above the optimum.
    gap_kind : {"bound", "estimate", "unknown"}
        What `gap` is: a bound that cannot be exceeded, an estimate (by the last model of the curvature, or by how J
        fell in the last iterations), or nothing.
    n_iter, n_passes : int
        Iterations, and passes over all rows: J and its gradient, or, of sparse rows, the diagonal of its Hessian.
    seconds : float
        Wall-clock time of the fit.
    workspace_bytes : int
        Memory of the passes beyond X: blocks of scores and partial gradients; the curvature model is not counted.
    """

    solver: str
    reason_chosen: str
    converged: bool
    message: str
    objective: float
    gradient_norm: float
    gap: float
    gap_kind: str
    n_iter: int
    n_passes: int
    seconds: float
    workspace_bytes: int


@dataclass(frozen=True)
class _TrainingData:
    """What the gate lets through: rows of positive weight, labels as codes; `kept` says which of the rows given."""

    X: Rows
    codes: Codes
    classes: Array
    weight: Float64
    names: Array | None
    kept: npt.NDArray[np.bool_]

    @property
    def n_features(self) -> int:
        return int(self.X.shape[1])

    @property
    def dtype(self) -> DType:
        return self.X.dtype

    def rows(self, n_threads: int) -> TrainingRows:
        """What an objective takes."""
        return LocalRows(self.X, self.codes, self.weight, len(self.classes), n_threads)


class SoftmaxRegression(Estimator):
    """Softmax (multinomial logistic) regression with an L2, L1 or elastic net penalty.

    Minimises, over one weight vector w_k and one intercept b_k per class::

        J = sum_i s_i (-log p(y_i | x_i)) / S + ((1 - r) / 2 ||W||^2 + r ||W||_1) / (C S),    S = sum_i s_i,
        p(k | x) = exp(w_k x + b_k) / sum_j exp(w_j x + b_j)

    with r = l1_ratio, which has the minimum of scikit-learn's LogisticRegression: its objective divided by C S. For
    two classes there is one row w = w_2 - w_1, with the penalty on w: binary logistic regression.

    Parameters
    ----------
    C : float, default=1.0
        Inverse strength of the penalty, positive; ``numpy.inf`` for none. Intercepts are never penalised.
    l1_ratio : float, default=0.0
        r, the share of L1 in the penalty: 0 is L2 (ridge), 1 is L1 (lasso), between them lies the elastic net. Any
        above 0 makes weights exactly 0, more of them the smaller C is. With 1, J may have many minima; of those that
        `fit` could end at along a shift of all classes, it takes the one with most zeros.
    solver : {"auto", "newton", "lbfgs", "gd"}, default="auto"
        "auto" corrects, as L-BFGS does, a model of the curvature that suits the shape of the data: the Hessian, one
        block per class, one Gram matrix, or a diagonal; of very many dense rows it solves the Hessian of a sample, too.
        "newton" uses the Hessian of all rows at every iteration, "lbfgs" no model. "gd" is the textbook batch gradient
        descent, for teaching and checking: constant `learning_rate`, from zeros, until no class moves by more than
        `tol`. With an L1 term only "auto" goes: it is a proximal Newton or quasi-Newton method then.
    tol : float, default=1e-4
        Stop when the largest entry of the gradient of J, each feature centred and in units of its standard
        deviation, is at most `tol` and the estimated gap (J - J*) / max(J, 1e-3) at most tol / 100, for float32 data
        at most `tol`; the units of the features do not matter. 0 runs `max_iter` iterations, unless the gradient is
        exactly 0.
    max_iter : int, default=1000
    fit_intercept : bool, default=True
    class_weight : dict or "balanced", optional
        Factor of each class on its samples' weights. "balanced" gives every class the same total.
    warm_start : bool, default=False
        Start from the coefficients of the previous fit, which must have the same classes and features, names included.
    learning_rate : float, default=0.1
        Step of solver="gd"; other solvers do not use it.
    n_threads : int, optional
        By default all CPUs this process may use (the environment variable CSOFTMAX_NUM_THREADS can lower that);
        small problems use one. The result is bitwise the same for any number. BLAS, which does the products of models
        with many classes and of large curvature models, has its own setting.
    verbose : int, default=0
        1 shows a line of progress on standard error, with tqdm where it is installed.
    callback : callable, optional
        ``callback(iteration, objective, gradient_norm)`` is called after each iteration; a true value stops the fit.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        The labels, sorted.
    coef_ : ndarray of shape (K, d), or (1, d) for two classes
        Of the dtype of X. For K > 2 the intercepts add up to zero, and so do the rows without an L1 term.
    intercept_ : ndarray of shape (K,) or (1,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (d,)
        Names of the columns of X, if it was a data frame whose columns all have a string for a name; predictions then
        refuse data frames with other names, or in another order.
    n_iter_ : ndarray of shape (1,)
    loss_curve_ : ndarray of shape (n_iter,)
        J after every iteration.
    fit_report_ : FitReport

    Examples
    --------
    >>> from csoftmax import SoftmaxRegression
    >>> model = SoftmaxRegression().fit([[0.0], [1.0], [5.0], [6.0]], ["low", "low", "high", "high"])
    >>> model.predict([[2.0], [4.0]]).tolist()
    ['low', 'high']
    """

    classes_: Array
    intercept_: Array
    n_features_in_: int
    n_iter_: npt.NDArray[np.int32]
    loss_curve_: Float64
    fit_report_: FitReport

    def __init__(
        self,
        *,
        C: float = 1.0,
        l1_ratio: float = 0.0,
        solver: str = "auto",
        tol: float = 1e-4,
        max_iter: int = 1000,
        fit_intercept: bool = True,
        class_weight: dict[Any, float] | str | None = None,
        warm_start: bool = False,
        learning_rate: float = 0.1,
        n_threads: int | None = None,
        verbose: int = 0,
        callback: Callback | None = None,
    ) -> None:
        self.C = C
        self.l1_ratio = l1_ratio
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.learning_rate = learning_rate
        self.n_threads = n_threads
        self.verbose = verbose
        self.callback = callback

    # ---- training -------------------------------------------------------------------------------------------------

    def fit(self, X: Data, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Find the coefficients that minimise J.

        Parameters
        ----------
        X : array_like or data frame of shape (n, d)
            Finite. float32 stays float32, unless a column lies more than 1000 standard deviations from zero; other real
            dtypes become float64. A C-contiguous array is not copied, unless rows have weight 0. Data frames may be of
            pandas, polars or PyArrow, with columns of numbers. A C-contiguous float32 or float64 ``numpy.memmap``, or a
            view of one, is read in parts and never copied whole; see Notes.
        y : array_like of shape (n,)
            Labels of one sortable type: int, str, bool, whole floats. A single column is taken as well.
        sample_weight : array_like of shape (n,), optional
            s_i, not negative; a weight of 2 is the same as the row twice, and 0 as no row.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For input or parameters that are not as described; the estimator stays as it was.
        MemoryError
            If X or the coefficients cannot fit into this machine's memory; nothing was tried.
        OSError
            If the file of a memory-mapped X was cut short; the estimator stays as it was.

        Warns
        -----
        ConvergenceWarning
            If the solver ended before its stopping test held.
        DataConversionWarning
            If y is a column.

        Notes
        -----
        A memory-mapped X gives bitwise the same model as one in memory, up to 5 GB: beyond that a solver may use memory
        in proportion to an X that is in memory, and 256 MB at most if it is mapped. A CSR matrix may have mapped arrays
        as well; of that, rows are copied if some have weight 0, and values if columns lie far from zero in float32.

        Before each part of the rows is read, the length of the file is looked at. A file that shrinks while a part is
        being read cannot be caught: the system ends the process.
        """
        began = time.perf_counter()
        self._check_parameters()
        n_threads = gate.threads(self.n_threads)
        data = self._check_data(X, y, sample_weight, n_threads, sweep=False)
        objective = self._objective(data, n_threads)
        start = self._start(objective, data)
        with Progress(self.verbose, self.max_iter, "iteration") as progress:
            monitor = _Monitor(self.callback, progress)
            result = self._minimise(objective, data, start, monitor, began)
        if not result.converged and self.tol > 0 and not monitor.stopped:
            warn(ConvergenceWarning(f"solver {self.solver!r} {result.message}"))
        return self

    def _check_parameters(self) -> None:
        """Raise for a parameter that has no meaning."""
        if not isinstance(self.solver, str) or self.solver not in SOLVERS:
            raise ValueError(f"solver={self.solver!r}: expected one of {sorted(SOLVERS)}")
        gate.number(self.C, "C", 0, strict=True, infinite=True)
        if gate.number(self.l1_ratio, "l1_ratio", 0) > 1:
            raise ValueError(f"l1_ratio={self.l1_ratio!r}: expected a number from 0 (L2) to 1 (L1)")
        if self.l1_ratio > 0 and self.solver != "auto":
            raise ValueError(f"l1_ratio={self.l1_ratio!r} with solver={self.solver!r}: an L1 term needs solver='auto'")
        gate.number(self.tol, "tol", 0)
        gate.integer(self.max_iter, "max_iter", 1)
        gate.flag(self.fit_intercept, "fit_intercept")
        gate.flag(self.warm_start, "warm_start")
        gate.number(self.learning_rate, "learning_rate", 0, strict=True)
        gate.integer(int(self.verbose) if isinstance(self.verbose, bool) else self.verbose, "verbose", 0)
        if self.callback is not None and not callable(self.callback):
            raise TypeError(f"callback={self.callback!r}: expected a function of (iteration, objective, gradient_norm)")

    def _check_data(self, X: Any, y: Any, sample_weight: Any, n_threads: int, sweep: bool = True) -> _TrainingData:
        """Without a sweep of its own, all rows of a mapped X are left to the objective to look for NaN in."""
        # Shapes and labels first: they say what has to fit into memory before X is read or copied.
        names = feature_names(X)
        table = gate.as_table(X, "X")
        n, d = table.shape
        labels = gate.as_labels(y, n)
        weight = gate.as_sample_weight(sample_weight, n)
        classes, codes = gate.encode_labels(labels if weight.all() else labels[weight > 0])
        if self.class_weight is not None:
            weight = weight * gate.class_factors(self.class_weight, classes, codes, weight, labels)
        gate.check_total(weight, float(self.C))
        keep = weight > 0
        if not keep.all():
            weight = weight[keep]
            classes, codes = gate.encode_labels(labels[keep])
        gate.require_model_memory(len(classes), d, newton=self.solver == "newton")
        matrix: Rows = gate.as_csr(table, "X") if gate.is_sparse(table) else gate.as_floats(table, "X")
        if isinstance(matrix, np.ndarray) and is_mapped(matrix):
            matrix = Mapped(matrix)
        if sweep or not isinstance(matrix, Mapped) or not keep.all():
            gate.check_finite(matrix, "X", n_threads)
        if not keep.all():
            matrix = matrix.take(np.flatnonzero(keep)) if isinstance(matrix, Mapped) else matrix[keep]
        return _TrainingData(matrix, codes, classes, weight, names, keep)

    def _objective(self, data: _TrainingData, n_threads: int) -> Objective:
        return Objective(
            data.rows(n_threads),
            C=float(self.C),
            l1_ratio=float(self.l1_ratio),
            fit_intercept=self.fit_intercept,
            standardise=self.solver != "gd",
        )

    def _start(self, objective: Objective, data: _TrainingData) -> Float64:
        if not self.warm_start or not hasattr(self, "coef_"):
            return np.zeros(objective.size)
        if not np.array_equal(self.classes_, data.classes):
            old, new = self.classes_.tolist()[:10], data.classes.tolist()[:10]
            raise ValueError(
                f"warm_start=True: the previous fit had the classes {old} and y has {new}; use warm_start=False"
            )
        if self.n_features_in_ != data.n_features:
            raise ValueError(
                f"warm_start=True: the previous fit had {self.n_features_in_} features and X has "
                f"{data.n_features}; use warm_start=False"
            )
        names = getattr(self, "feature_names_in_", None)
        if names is not None and data.names is not None and not np.array_equal(names, data.names):
            raise ValueError(
                f"warm_start=True: the previous fit had the feature names {names.tolist()[:10]} and X has "
                f"{data.names.tolist()[:10]}; use warm_start=False"
            )
        coef = self._dense_coef()
        if not (np.isfinite(coef).all() and np.isfinite(self.intercept_).all()):
            raise ValueError("warm_start=True: coef_ or intercept_ holds NaN or infinity; use warm_start=False")
        return objective.parameters(coef, self.intercept_)

    def _minimise(
        self, objective: Objective, data: _TrainingData, start: Float64, monitor: "_Monitor", began: float
    ) -> Result:
        """Run the solver from `start`, and keep what it found; `began` is when the fit did."""
        options = Options(float(self.tol), int(self.max_iter), float(self.learning_rate), monitor)
        result = SOLVERS[self.solver](objective, start, options)
        self._store(objective, data, result, monitor.curve, time.perf_counter() - began)
        return result

    def _store(
        self,
        objective: Objective,
        data: _TrainingData,
        result: Result,
        curve: list[float],
        seconds: float,
    ) -> None:
        coef, intercept = objective.coefficients(result.theta)
        self.classes_ = data.classes
        self.coef_ = coef.astype(data.dtype)
        self.intercept_ = intercept.astype(data.dtype)
        self.n_features_in_ = data.n_features
        if data.names is not None:
            self.feature_names_in_ = data.names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        self.n_iter_ = np.array([result.n_iter], np.int32)
        self.loss_curve_ = np.array(curve)
        self.fit_report_ = FitReport(
            self.solver,
            result.reason,
            result.converged,
            result.message,
            result.objective,
            result.gradient_norm,
            result.gap,
            result.gap_kind,
            result.n_iter,
            objective.n_passes,
            seconds,
            objective.workspace_bytes,
        )

    # ---- prediction -----------------------------------------------------------------------------------------------

    def predictor(self) -> Predictor:
        """The fitted model as an immutable, thread-safe `Predictor`, for serving and for files."""
        self._check_fitted()
        names = getattr(self, "feature_names_in_", None)
        return Predictor(
            self._dense_coef(),
            self.intercept_,
            self.classes_,
            feature_names=None if names is None else names.tolist(),
            training_report=asdict(self.fit_report_)
            if hasattr(self, "fit_report_")
            else None,  # none for a mean of fits
        )

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Write the model to a file that `csoftmax.load` reads as a `Predictor`; see `Predictor.save`."""
        self.predictor().save(path)

    def decision_function(self, X: Data) -> Array:
        """Scores before the softmax, (n, K), or (n,) for two classes: the score of the second."""
        model, rows = self._model_and_rows(X)
        return model.decision_function(rows)

    def predict_proba(self, X: Data) -> Array:
        """Probability of each class, (n, K), columns in the order of `classes_`."""
        model, rows = self._model_and_rows(X)
        return model.predict_proba(rows)

    def predict_log_proba(self, X: Data) -> Array:
        """Logarithm of the probability of each class, (n, K)."""
        model, rows = self._model_and_rows(X)
        return model.predict_log_proba(rows)

    def predict(self, X: Data) -> Array:
        """The most probable class of each row, (n,)."""
        model, rows = self._model_and_rows(X)
        return np.asarray(model.predict(rows))

    def score(self, X: Data, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> float:
        """Share of rows whose label is predicted, weighted by sample_weight."""
        predicted = self.predict(X)
        labels = gate.as_labels(y, len(predicted))
        return float(np.average(predicted == labels, weights=gate.as_sample_weight(sample_weight, len(labels))))

    def _model_and_rows(self, X: Any) -> tuple[Predictor, Rows]:
        self._check_fitted()
        self._check_feature_names(X)
        # Anew: the attributes are the user's to change.
        model = Predictor(self._dense_coef(), self.intercept_, self.classes_)
        rows = gate.as_rows(X)
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {rows.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        gate.check_finite(rows, "X", gate.threads(None))
        return model, rows if is_mapped(rows) else rows.astype(model.dtype, copy=False)


class _Monitor:
    """Keeps J after every iteration, shows progress, and asks the callback whether to stop."""

    def __init__(self, callback: Callback | None = None, progress: Progress | None = None) -> None:
        self.curve: list[float] = []
        self.stopped = False
        self._callback, self._progress = callback, progress

    def __call__(self, iteration: int, objective: float, gradient_norm: float) -> bool:
        self.curve.append(objective)
        if self._progress is not None:
            self._progress(f"J {objective:.6g}, gradient {gradient_norm:.2g}")
        if self._callback is not None:
            self.stopped = bool(self._callback(iteration, objective, gradient_norm))
        return self.stopped
