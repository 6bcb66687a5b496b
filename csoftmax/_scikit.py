"""What scikit-learn asks of an estimator besides fit and predict. It is imported here only where only it would call."""

import inspect
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ._errors import InconsistentVersionWarning, NotFittedError, warn
from ._frames import feature_names
from ._typing import Array

UNCHANGED = "$UNCHANGED$"  # scikit-learn's mark for a request that is to stay


class Estimator:
    """Base of linear classifiers: parameters, representations, names of features, pickling, routing of metadata."""

    if TYPE_CHECKING:
        coef_: Any
        feature_names_in_: Array

    # ---- parameters -----------------------------------------------------------------------------------------------

    @classmethod
    def _parameters(cls) -> dict[str, inspect.Parameter]:
        """The parameters of the constructor, sorted by name."""
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        parameters = inspect.signature(cls.__init__).parameters
        return {
            name: parameters[name] for name in sorted(parameters) if name != "self" and parameters[name].kind in named
        }

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters as given to the constructor.

        Parameters
        ----------
        deep : bool, default=True
            Without effect, as no parameter is an estimator; scikit-learn passes it.

        Returns
        -------
        dict
        """
        return {name: getattr(self, name) for name in self._parameters()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name; their values are checked at fit.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For a name that is not one of the constructor; then none is set.
        """
        names = list(self._parameters())
        for name in params:
            if name not in names:
                raise ValueError(f"Invalid parameter {name!r} for estimator {self!r}. Valid parameters are: {names!r}.")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        changed = []
        for name, parameter in self._parameters().items():
            value, default = getattr(self, name), parameter.default
            if value is not default and not (isinstance(value, int | float | str) and value == default):
                changed.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(changed)})"

    def _repr_html_(self) -> str | None:
        """For notebooks: scikit-learn's diagram if it is imported, and asked to draw them; else the text."""
        if "sklearn" not in sys.modules:
            from html import escape

            return f"<pre>{escape(repr(self))}</pre>"
        from sklearn import get_config
        from sklearn.utils import estimator_html_repr

        diagram: str | None = estimator_html_repr(self) if get_config()["display"] == "diagram" else None
        return diagram

    # ---- state ----------------------------------------------------------------------------------------------------

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            transformer_tags=None,
            classifier_tags=ClassifierTags(),
            regressor_tags=None,
            input_tags=InputTags(sparse=True),
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "coef_")

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise NotFittedError(f"This {type(self).__name__} instance is not fitted yet: call fit(X, y) first")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_csoftmax_version": _version()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        original = state.pop("_csoftmax_version", "(unknown version)")
        if original != _version():
            warn(InconsistentVersionWarning(type(self).__name__, original, _version()))
        vars(self).update(state)

    # ---- features -------------------------------------------------------------------------------------------------

    def _check_feature_names(self, X: Any) -> None:
        """Raise if X has other feature names than in fit; warn if only one of the two has any."""
        fitted, given = getattr(self, "feature_names_in_", None), feature_names(X)
        owner = type(self).__name__
        if fitted is None and given is not None:
            warn(UserWarning(f"X has feature names, but {owner} was fitted without feature names"))
        if fitted is not None and given is None:
            warn(UserWarning(f"X does not have valid feature names, but {owner} was fitted with feature names"))
        if fitted is None or given is None or np.array_equal(fitted, given):
            return
        unseen, missing = sorted({*given} - {*fitted}), sorted({*fitted} - {*given})
        lines = ["The feature names should match those that were passed during fit."]
        if unseen:
            lines += ["Feature names unseen at fit time:", *_listed(unseen)]
        if missing:
            lines += ["Feature names seen at fit time, yet now missing:", *_listed(missing)]
        if not unseen and not missing:
            lines += ["Feature names must be in the same order as they were in fit."]
        raise ValueError("\n".join([*lines, ""]))

    def _dense_coef(self) -> Array:
        coef: Array = self.coef_.toarray() if hasattr(self.coef_, "toarray") else self.coef_
        return coef

    def sparsify(self) -> Self:
        """Make `coef_` a SciPy CSR matrix, which is smaller if most coefficients are zero.

        Predictions stay as they are; they take a dense copy for the time of the call. `fit` makes `coef_` dense again.

        Returns
        -------
        self
        """
        from scipy.sparse import csr_matrix

        self._check_fitted()
        self.coef_ = csr_matrix(self.coef_)
        return self

    def densify(self) -> Self:
        """Make `coef_` a NumPy array again after `sparsify`.

        Returns
        -------
        self
        """
        self._check_fitted()
        self.coef_ = self._dense_coef()
        return self

    # ---- routing of metadata --------------------------------------------------------------------------------------

    def get_metadata_routing(self) -> Any:
        """Which metadata `fit` and `score` ask for, as a ``sklearn.utils.metadata_routing.MetadataRequest``."""
        from sklearn.utils.metadata_routing import MetadataRequest, get_routing_for_object

        if "_metadata_request" in vars(self):  # where scikit-learn's `clone` looks for it
            return get_routing_for_object(self._metadata_request)
        request = MetadataRequest(owner=type(self).__name__)
        for method in (request.fit, request.score):
            method.add_request(param="sample_weight", alias=None)
        return request

    def set_fit_request(self, *, sample_weight: bool | str | None = UNCHANGED) -> Self:
        """Say whether scikit-learn's metadata routing shall pass `sample_weight` to `fit`.

        Parameters
        ----------
        sample_weight : bool, str or None
            True: pass it. False: do not. None: whoever passes it gets an error. A name: pass what goes by that name.

        Returns
        -------
        self

        Raises
        ------
        RuntimeError
            If routing is off: ``sklearn.set_config(enable_metadata_routing=True)`` turns it on.
        """
        return self._request("fit", sample_weight)

    def set_score_request(self, *, sample_weight: bool | str | None = UNCHANGED) -> Self:
        """Say whether scikit-learn's metadata routing shall pass `sample_weight` to `score`; see `set_fit_request`."""
        return self._request("score", sample_weight)

    def _request(self, method: str, sample_weight: bool | str | None) -> Self:
        from sklearn import get_config

        if not get_config()["enable_metadata_routing"]:
            raise RuntimeError(
                f"set_{method}_request has no effect while metadata routing is off: turn it on with "
                f"sklearn.set_config(enable_metadata_routing=True)"
            )
        if sample_weight != UNCHANGED:
            request = self.get_metadata_routing()
            getattr(request, method).add_request(param="sample_weight", alias=sample_weight)
            self._metadata_request = request
        return self


def _listed(names: list[str]) -> list[str]:
    """The first names, one per line."""
    return [f"- {name}" for name in names[:5]] + ["- ..."] * (len(names) > 5)


@cache
def _version() -> str:
    from importlib.metadata import version

    return version("csoftmax")
