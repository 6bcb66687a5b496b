"""A trained model for prediction alone, and the file it is kept in."""

import os
import secrets
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from . import _kernels
from ._errors import ModelFileError
from ._passes import SOFTMAX_BLOCK, scores
from ._typing import Array
from ._validation import as_array, as_floats, as_matrix, check_finite, threads

FORMAT_VERSION = 1
_MEMBERS = ("format_version", "library_version", "coef", "intercept", "classes")


class Predictor:
    """Class probabilities of a linear softmax model.

    A Predictor is immutable: any number of threads may call any of its methods at once.

    Parameters
    ----------
    coef : array_like of shape (K, d), or (1, d) for two classes
        Weights; with one row the score of the second class is coef x + intercept and that of the first is 0.
    intercept : array_like of shape (K,) or (1,)
    classes : array_like of shape (K,), optional
        The labels that `predict` returns, int, str, bool or float; 0, 1, ... by default.
    feature_names : sequence of str of length d, optional
    dtype : {numpy.float32, numpy.float64}, optional
        In what to compute; by default that of `coef` if it is one of these, else float64.

    Raises
    ------
    ValueError, TypeError
        If shapes do not agree or a value is not finite.
    """

    __slots__ = ("_classes", "_coef", "_feature_names", "_intercept")
    _coef: Array
    _intercept: Array
    _classes: Array
    _feature_names: tuple[str, ...] | None

    def __init__(
        self,
        coef: npt.ArrayLike,
        intercept: npt.ArrayLike,
        classes: npt.ArrayLike | None = None,
        *,
        feature_names: Sequence[str] | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        weights = as_matrix(coef, "coef")
        if dtype is not None and np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype={np.dtype(dtype)}: expected float32 or float64")
        kind = weights.dtype if dtype is None else np.dtype(dtype)
        offsets = as_floats(as_array(intercept, "intercept"), "intercept")
        rows, n_features = weights.shape
        if offsets.shape != (rows,):
            raise ValueError(f"intercept has shape {offsets.shape} and coef {weights.shape}: expected ({rows},)")
        n_classes = max(2, rows)
        labels = np.arange(n_classes) if classes is None else as_array(classes, "classes")
        if labels.dtype.kind == "O" and len({type(label) for label in labels.flat}) > 1:
            raise TypeError(f"classes mixes labels of several types, {labels.tolist()[:5]}: make them one type")
        if labels.shape != (n_classes,) or len(np.unique(labels)) != n_classes:
            raise ValueError(
                f"classes has shape {labels.shape} with {len(np.unique(labels))} different labels: "
                f"coef of shape {weights.shape} needs {n_classes}, all different"
            )
        with np.errstate(over="ignore"):
            weights, offsets = weights.astype(kind), offsets.astype(kind)
        check_finite(weights, f"coef in {kind}")
        check_finite(offsets, f"intercept in {kind}")
        if isinstance(feature_names, str):
            raise TypeError(f"feature_names={feature_names!r} is one string: expected {n_features}, one per column")
        names = None if feature_names is None else tuple(feature_names)
        if names is not None and (len(names) != n_features or not all(isinstance(name, str) for name in names)):
            raise ValueError(f"feature_names has {len(names)} entries: expected {n_features} strings, one per column")
        for name, array in (
            ("_coef", weights.astype(kind)),
            ("_intercept", offsets.astype(kind)),
            ("_classes", labels.copy()),
        ):
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "_feature_names", names)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Predictor is immutable: make a new one instead of setting {name}")

    def __reduce__(self) -> tuple[Callable[..., "Predictor"], tuple[Any, ...]]:
        return _rebuild, (self.coef, self.intercept, self.classes, self.feature_names)

    def __repr__(self) -> str:
        return f"Predictor(n_features={self.n_features}, n_classes={self.n_classes}, dtype={self.dtype})"

    @property
    def coef(self) -> Array:
        """Weights, (K, d), or (1, d) for two classes; read-only."""
        return self._coef.view()

    @property
    def intercept(self) -> Array:
        """Intercepts, (K,), or (1,) for two classes; read-only."""
        return self._intercept.view()

    @property
    def classes(self) -> Array:
        """Labels, (K,); read-only."""
        return self._classes.view()

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """Names of the columns, if they are known."""
        return self._feature_names

    @property
    def n_features(self) -> int:
        """d, the number of columns of x."""
        return int(self._coef.shape[1])

    @property
    def n_classes(self) -> int:
        """K, the number of classes."""
        return len(self._classes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64, in which predictions are computed."""
        return self._coef.dtype

    def decision_function(self, x: npt.ArrayLike) -> Array:
        """Scores before the softmax.

        Parameters
        ----------
        x : array_like of shape (d,) or (n, d)

        Returns
        -------
        ndarray of shape (K,) or (n, K); for two classes a number or (n,), the score of the second class
        """
        X, single = self._rows(x)
        return self._decide(X)[0] if single else self._decide(X)

    def predict_proba(self, x: npt.ArrayLike) -> Array:
        """Probability of each class.

        Parameters
        ----------
        x : array_like of shape (d,) or (n, d)
            One row, or a batch; finite.

        Returns
        -------
        ndarray of shape (K,) or (n, K), of the model's dtype

        Raises
        ------
        ValueError
            If x has another number of features, or NaN or infinity.
        """
        X, single = self._rows(x)
        return self._probabilities(X, logarithm=False)[0] if single else self._probabilities(X, logarithm=False)

    def predict_log_proba(self, x: npt.ArrayLike) -> Array:
        """Logarithm of the probability of each class; shapes and errors as for `predict_proba`."""
        X, single = self._rows(x)
        return self._probabilities(X, logarithm=True)[0] if single else self._probabilities(X, logarithm=True)

    def predict(self, x: npt.ArrayLike) -> Any:
        """The most probable class of one row, or the array of them for a batch; the first one on a tie."""
        X, single = self._rows(x)
        return self._classify(X)[0] if single else self._classify(X)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file that `csoftmax.load` reads.

        The file is NumPy's .npz without pickles. It is written beside `path`, flushed to disk and renamed, so that a
        crash leaves the old file or the new one.

        Raises
        ------
        TypeError
            If the labels are Python objects other than strings.
        OSError
            If the file cannot be written.
        """
        target = Path(path)
        members: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "library_version": version("csoftmax"),
            "coef": self.coef,
            "intercept": self.intercept,
            "classes": self.classes,
        }
        if self.feature_names is not None:
            members["feature_names"] = np.array(self.feature_names)
        if self.classes.dtype == object:
            members["classes"] = np.array(self.classes.tolist())
            if members["classes"].dtype.kind not in "biufUS" or members["classes"].tolist() != self.classes.tolist():
                raise TypeError(
                    "classes holds Python objects, which a model file does not store: use labels of one "
                    "type, int, str, bool or float"
                )
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            with open(temporary, "xb") as file:
                np.savez(file, **members)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise

    def _rows(self, x: Any) -> tuple[Array, bool]:
        array = as_array(x, "x")
        single = array.ndim == 1
        X = as_matrix(array.reshape(1, -1) if single else array, "x", minimum_rows=0)
        if X.shape[1] != self.n_features:
            raise ValueError(
                f"x has shape {array.shape}: the model has {self.n_features} features, expected "
                f"({self.n_features},) or (n, {self.n_features})"
            )
        with np.errstate(over="ignore"):
            X = X.astype(self.dtype, copy=False)
        check_finite(X, f"x in {self.dtype}" if X.dtype != array.dtype else "x")
        return X, single

    # Below: for rows that have passed the gate.

    def _decide(self, X: Array) -> Array:
        decision = self._scores(X)
        if self.n_classes > 2:
            return decision
        return decision[:, 0] if len(self._coef) == 1 else decision[:, 1] - decision[:, 0]

    def _classify(self, X: Array) -> Array:
        decision = self._decide(X)
        codes = (decision > 0).astype(np.intp) if decision.ndim == 1 else decision.argmax(axis=1)
        return np.asarray(self._classes[codes])

    def _scores(self, X: Array, then: str = "") -> Array:
        return scores(X, self._coef, self._intercept, threads(None), then)

    def _probabilities(self, X: Array, logarithm: bool) -> Array:
        if len(self._coef) > 1:
            return self._scores(X, "log_softmax" if logarithm else "softmax")
        out = np.zeros((len(X), 2), self.dtype)
        out[:, 1:] = self._scores(X)
        _kernels.softmax_rows(out, 0, len(X), SOFTMAX_BLOCK // 2, logarithm)
        return out


def _rebuild(coef: Array, intercept: Array, classes: Array, feature_names: tuple[str, ...] | None) -> Predictor:
    return Predictor(coef, intercept, classes, feature_names=feature_names)


def load(path: str | os.PathLike[str]) -> Predictor:
    """Read a model that `save` wrote.

    Nothing in the file is executed.

    Raises
    ------
    ModelFileError
        If the file is not a csoftmax model, is damaged, or was written by a later version of the format.
    OSError
        If the file cannot be read.
    """
    with open(path, "rb") as file:
        return _read(file, path)


def _read(file: BinaryIO, path: str | os.PathLike[str]) -> Predictor:
    try:
        with zipfile.ZipFile(file) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            if missing := set(_MEMBERS) - names:
                raise ModelFileError(f"{path} is not a csoftmax model: it lacks {', '.join(sorted(missing))}")
            arrays = {name: _read_member(archive, name) for name in {*_MEMBERS, "feature_names"} & names}
        if arrays["format_version"].shape != () or int(arrays["format_version"]) != FORMAT_VERSION:
            raise ModelFileError(
                f"{path} has format {arrays['format_version']} and this csoftmax reads "
                f"{FORMAT_VERSION}: install a later version"
            )
        for name in ("coef", "intercept"):
            if arrays[name].dtype not in (np.float32, np.float64) or arrays[name].dtype != arrays["coef"].dtype:
                raise ModelFileError(f"{path} has {name} of dtype {arrays[name].dtype}: expected float32 or float64")
        feature_names = arrays["feature_names"].tolist() if "feature_names" in arrays else None
        return Predictor(arrays["coef"], arrays["intercept"], arrays["classes"], feature_names=feature_names)
    except ModelFileError:
        raise
    except Exception as error:  # what zipfile and NumPy raise for damaged input is a long list
        raise ModelFileError(f"{path} is not a csoftmax model, or is damaged: {error}") from error


def _read_member(archive: zipfile.ZipFile, name: str) -> Array:
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ModelFileError(f"{archive.filename or 'the file'} has {name} compressed: model files are not")
    with archive.open(entry) as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):
            raise ModelFileError(f"{archive} has bytes after the end of {name}")
    return np.asarray(array)
