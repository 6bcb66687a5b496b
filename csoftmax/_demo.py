"""`csoftmax demo`: the library in one run, on a real data set that comes with the package.

digits.npz holds 1797 images of handwritten digits, 8 x 8 pixels of 0 to 16, and their labels: the test part of
E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository (1998),
doi:10.24432/C50P49, licence CC BY 4.0.
"""

import tempfile
import timeit
from importlib.resources import files
from pathlib import Path

import numpy as np

from ._model import load
from .estimator import SoftmaxRegression


def demo(output: str | None = None) -> float:
    """Train, report, save, load, predict; returns the accuracy on the part held out."""
    with files("csoftmax").joinpath("digits.npz").open("rb") as file, np.load(file) as data:
        X, y = data["X"].astype(np.float64), data["y"]
    held_out = np.random.default_rng(0).permutation(len(X)) % 4 == 0
    model = SoftmaxRegression(C=0.01).fit(X[~held_out], y[~held_out])
    X_test, y_test = X[held_out], y[held_out]
    accuracy = model.score(X_test, y_test)
    report = model.fit_report_
    print(
        f"Handwritten digits: {X.shape[1]} pixels, {len(model.classes_)} classes; "
        f"{(~held_out).sum()} images to train on, {len(X_test)} held out."
    )
    print(f"Solver {report.solver} {report.message}")
    print(
        f"  in {report.n_iter} iterations, {report.n_passes} passes, {report.seconds:.3f} s; "
        f"objective {report.objective:.6f}."
    )
    print(f"Held-out accuracy {accuracy:.4f}")
    print("  class  precision  recall  images")
    predicted = model.predict(X_test)
    for label in model.classes_:
        right = np.sum((predicted == label) & (y_test == label))
        print(
            f"  {label:>5}  {right / np.sum(predicted == label):9.3f}  {right / np.sum(y_test == label):6.3f}  "
            f"{np.sum(y_test == label):6d}"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(output) if output else Path(folder) / "digits-model.npz"
        model.save(path)
        served = load(path)
        same = np.array_equal(served.predict_proba(X_test), model.predict_proba(X_test))
        size = path.stat().st_size
    if not same:
        raise OSError(f"the model read back from {path} predicts otherwise than the one written")
    loops = 2000
    seconds = min(timeit.repeat(lambda: served.predict_proba(X_test[0]), number=loops, repeat=5)) / loops
    where = f" in {output}" if output else ""
    print(f"Model file{where}: {size} bytes, read back, same probabilities.")
    print(
        f"One image: class {served.predict(X_test[0])} with probability {served.predict_proba(X_test[0]).max():.4f}, "
        f"in {1e6 * seconds:.1f} microseconds."
    )
    return accuracy
