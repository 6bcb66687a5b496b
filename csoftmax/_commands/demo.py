"""`csoftmax demo`: the library in one run, on a real data set that comes with the package.

digits.npz holds 1797 images of handwritten digits, 8 x 8 pixels of 0 to 16, and their labels: the test part of
E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository (1998),
doi:10.24432/C50P49, licence CC BY 4.0.
"""

import argparse
import tempfile
import timeit
from collections.abc import Callable
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from .._model import load
from .._typing import Array
from ..estimator import SoftmaxRegression
from . import check_output
from .text import field

SHADES = " .:-=+*%@"  # of two grey values each
LIKELY = 3  # classes beside an image


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Train, train on pixels in other units, save, load, predict."""
    if options.output:
        check_output(options.output)
    with files("csoftmax").joinpath("digits.npz").open("rb") as file, np.load(file) as data:
        X, y = data["X"].astype(np.float64), data["y"]
    rng = np.random.default_rng(0)
    test = rng.permutation(len(X)) % 4 == 0
    model = SoftmaxRegression(C=0.01).fit(X[~test], y[~test])
    units = 10.0 ** rng.uniform(-3, 3, X.shape[1])
    in_units = SoftmaxRegression(C=0.01).fit(X[~test] * units, y[~test])

    with tempfile.TemporaryDirectory() as folder:
        path = Path(options.output) if options.output else Path(folder, "digits.model")
        model.save(path)
        served, n_bytes = load(path), path.stat().st_size
    X, y = X[test], y[test]
    p = served.predict_proba(X)
    if not np.array_equal(p, model.predict_proba(X)):
        raise ValueError(f"the model read back from {path} predicts otherwise than the one written")
    facts = {
        "rows": int(np.sum(~test)),
        "held_out_rows": len(y),
        "held_out_right": int(np.sum(served.predict(X) == y)),
        "fit_report": asdict(model.fit_report_),
        "fit_report_in_units": asdict(in_units.fit_report_),
        "model": options.output,
        "bytes": n_bytes,
        "seconds_per_row": _seconds(lambda: served.predict_proba(X[0])),
        "seconds_per_batch": _seconds(lambda: served.predict_proba(X)),
    }
    return facts, "\n".join([*_report(facts), *_images(X, y, p)])


def _seconds(call: Callable[[], object]) -> float:
    return min(timeit.repeat(call, number=500, repeat=5)) / 500


def _report(facts: dict[str, Any]) -> list[str]:
    fit, in_units = facts["fit_report"], facts["fit_report_in_units"]
    right, n = facts["held_out_right"], facts["held_out_rows"]
    return [
        "Softmax regression of handwritten digits: 8 x 8 pixels, 10 classes",
        field(
            "Trained",
            f"on {facts['rows']} images in {1e3 * fit['seconds']:.0f} ms, {fit['n_passes']} passes over the data",
        ),
        field("Optimum", f"objective {fit['objective']:.6f}, an estimated {fit['gap']:.0e} above the least"),
        field(
            "Any units",
            f"pixels times 0.001 to 1000, at random: {in_units['n_passes']} passes, gap {in_units['gap']:.0e}",
        ),
        field("Held out", f"{right} of {n} images right, {right / n:.1%}"),
        field("Saved", f"{facts['bytes']} bytes without pickle; read back, the same probabilities"),
        field(
            "Served",
            f"one image in {1e6 * facts['seconds_per_row']:.2f} microseconds, {n} in "
            f"{1e6 * facts['seconds_per_batch']:.0f}",
        ),
    ]


def _images(X: Array, y: Array, p: Array) -> list[str]:
    """Two images side by side, a typical one and the one that is hardest to tell, with the likeliest classes."""
    certainty = p.max(axis=1)
    panels = []
    for number in (np.argsort(certainty)[len(y) // 2], certainty.argmin()):
        lines = ["".join(2 * SHADES[int(value) // 2] for value in row) for row in X[number].reshape(8, 8)]
        likely = np.argsort(-p[number])[:LIKELY]
        said = [f"this is a {y[number]}", *(f"{c} {p[number, c]:.3f} {'#' * round(12 * p[number, c])}" for c in likely)]
        panels.append(
            [line + said[place - 2] if 0 <= place - 2 < len(said) else line for place, line in enumerate(lines)]
        )
    return ["", *(f"{left:<40}{right}".rstrip() for left, right in zip(*panels, strict=True))]
