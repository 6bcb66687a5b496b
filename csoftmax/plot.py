"""Pictures of a fit, through matplotlib: ``pip install csoftmax[plot]``."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ._errors import NotFittedError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def loss_curve(model: Any, ax: "Axes | None" = None) -> "Axes":
    """Draw the objective J after every iteration of a fit, as its distance from the end.

    Parameters
    ----------
    model : fitted SoftmaxRegression
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    curve = np.asarray(_attribute(model, "loss_curve_"))
    ax = _axes(ax)
    ax.plot(np.arange(1, len(curve) + 1), curve - curve.min())
    ax.set_yscale("symlog", linthresh=max(1e-12, 1e-9 * abs(curve).max()))
    ax.set(xlabel="iteration", ylabel=f"J - {curve.min():.6g}", title=f"{len(curve)} iterations")
    return ax


def coefficient_path(model: Any, label: Any = None, ax: "Axes | None" = None) -> "Axes":
    """Draw the coefficients of one class along the strengths of the penalty, as the mean over the folds.

    Parameters
    ----------
    model : fitted SoftmaxRegressionCV
    label : optional
        One of `classes_`; the last one by default.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If there is no such class.
    ImportError
        If matplotlib is missing.
    """
    paths, classes = np.asarray(_attribute(model, "coefs_paths_")), model.classes_.tolist()
    label = classes[-1] if label is None else label
    if label not in classes:
        raise ValueError(f"label={label!r}: expected one of the classes {classes}")
    ratios = np.atleast_1d(model.l1_ratios_)
    ratio = int(np.argmin(abs(ratios - model.l1_ratio_)))
    of_class = min(classes.index(label), paths.shape[3] - 1)
    weights = paths[:, ratio, :, of_class, : model.n_features_in_].mean(axis=0)
    order = np.argsort(model.Cs_)
    ax = _axes(ax)
    ax.plot(np.asarray(model.Cs_)[order], weights[order], linewidth=0.8)
    ax.axvline(model.C_, color="grey", linestyle=":")
    ax.set(xscale="log", xlabel="C (dotted: chosen)", ylabel="coefficient", title=f"class {label}")
    return ax


def coefficient_image(model: Any, shape: tuple[int, int]) -> "Figure":
    """Draw the coefficients of each class as a picture, for features that are pixels.

    Parameters
    ----------
    model : fitted SoftmaxRegression
    shape : (int, int)
        Rows and columns of the picture; their product is the number of features.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the features do not fill the shape.
    ImportError
        If matplotlib is missing.
    """
    coef = _attribute(model, "coef_")
    weights = np.asarray(coef.toarray() if hasattr(coef, "toarray") else coef)
    if len(shape) != 2 or shape[0] * shape[1] != weights.shape[1]:
        raise ValueError(
            f"shape={shape}: the model has {weights.shape[1]} features, expected two numbers of that product"
        )
    labels = model.classes_[-len(weights) :].tolist()
    columns = min(5, len(weights))
    figure: Figure
    figure, axes = _pyplot().subplots(
        -(-len(weights) // columns), columns, squeeze=False, figsize=(2 * columns, 2.2 * -(-len(weights) // columns))
    )
    largest = abs(weights).max() or 1.0
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, label, row in zip(axes.flat, labels, weights, strict=False):
        ax.imshow(row.reshape(shape), cmap="RdBu_r", vmin=-largest, vmax=largest)
        ax.set_title(str(label), fontsize=9)
    return figure


def _attribute(model: Any, name: str) -> Any:
    if not hasattr(model, name):
        raise NotFittedError(f"this {type(model).__name__} has no {name}: expected a fitted model that has it")
    return getattr(model, name)


def _axes(ax: "Axes | None") -> "Axes":
    return _pyplot().subplots()[1] if ax is None else ax


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("csoftmax.plot needs matplotlib: pip install 'csoftmax[plot]'") from error
    return plt
