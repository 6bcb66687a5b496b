"""`csoftmax demo`: the library in one run, on a real data set that comes with the package.

digits.npz holds 1797 images of handwritten digits, 8 x 8 pixels of 0 to 16, and their labels: the test part of
E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository (1998),
doi:10.24432/C50P49, licence CC BY 4.0.
"""

import tempfile
import timeit
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ._model import load
from ._typing import Array
from .estimator import SoftmaxRegression

SHADES = " .:-=+*%@"  # of two grey values each
LIKELY = 3  # classes beside an image


def demo(output: str | None = None) -> tuple[dict[str, Any], str]:
    """Train, compare with pixels in other units, save, load, predict."""
    with files("csoftmax").joinpath("digits.npz").open("rb") as file, np.load(file) as data:
        X, y = data["X"].astype(np.float64), data["y"]
    rng = np.random.default_rng(0)
    test = rng.permutation(len(X)) % 4 == 0
    model = SoftmaxRegression(C=0.01).fit(X[~test], y[~test])
    accuracy = model.score(X[test], y[test])
    units = 10.0 ** rng.uniform(-3, 3, X.shape[1])
    other = SoftmaxRegression(C=0.01).fit(X[~test] * units, y[~test])

    with tempfile.TemporaryDirectory() as folder:
        path = Path(output) if output else Path(folder, "digits.model")
        model.save(path)
        size = path.stat().st_size
        served = load(path)
    p = served.predict_proba(X[test])
    if not np.array_equal(p, model.predict_proba(X[test])):
        raise OSError(f"the model read back from {path} predicts otherwise than the one written")
    one = min(timeit.repeat(lambda: served.predict_proba(X[0]), number=2000, repeat=5)) / 2000
    return {}, ""
