"""Fits that solve the Hessian of a sample against the same by the model of the curvature alone.

    python benchmarks/bench_sample.py [--repeats 3] [--only TEXT]

Both ways in turns, with default parameters; medians, and passes. Features are Gaussian, of different size and place,
and labels are drawn from a softmax model of scores whose deviation is 2, but for: "heavy tails", Student's t with 2.5
degrees of freedom; "sure classes", scores with a deviation of 10, so that few rows are uncertain; "rare indicators", 0
or 1, which 1 in 10000 to 1 in 3 rows have; and 500000 x 54, a set of `datasets`.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from unittest.mock import patch

import datasets
import numpy as np

from csoftmax import FitReport, SoftmaxRegression
from csoftmax._solvers import quasi_newton


def labels(X: np.ndarray, n_classes: int, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Drawn from a softmax model with coefficients of this deviation."""
    scores = X @ (deviation * rng.standard_normal((X.shape[1], n_classes)))
    return (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)


def gaussian(n: int, d: int, n_classes: int, deviation: float = 2.0) -> datasets.Data:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    y = labels(X, n_classes, deviation / np.sqrt(d), rng)
    return (X + rng.standard_normal(d)) * np.exp(rng.standard_normal(d)), y


def heavy() -> datasets.Data:
    rng = np.random.default_rng(0)
    X = rng.standard_t(2.5, (100_000, 200))
    return X, labels(X, 10, 200**-0.5, rng)


def rare() -> datasets.Data:
    rng = np.random.default_rng(0)
    share = 10 ** rng.uniform(-4, -0.5, 300)
    X = (rng.random((400_000, 300)) < share).astype(float)
    return X, labels(X, 10, 1.5, rng)


def sets() -> Iterator[tuple[str, Callable[[], datasets.Data]]]:
    for n, d, k in ((30_000, 30, 20), (120_000, 400, 10), (250_000, 20, 10), (400_000, 300, 10), (400_000, 100, 50)):
        yield f"{n} x {d}, K={k}", lambda shape=(n, d, k): gaussian(*shape)
    yield "500000 x 54, K=7", datasets.cover
    yield "100000 x 200, K=10, heavy tails", heavy
    yield "150000 x 200, K=10, sure classes", lambda: gaussian(150_000, 200, 10, 10.0)
    yield "400000 x 300, K=10, rare indicators", rare


def fit(X: np.ndarray, y: np.ndarray, alone: bool) -> FitReport:
    with patch.object(quasi_newton, "LEAST_FEWER", np.inf if alone else quasi_newton.LEAST_FEWER):
        return SoftmaxRegression().fit(X, y).fit_report_


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", default=3, type=int)
    parser.add_argument("--only", default="", help="only sets whose name holds this")
    options = parser.parse_args()
    print("| fit | model alone, ms | with it, ms | ratio | passes, alone and with it |\n|---|---|---|---|---|")
    for name, make in sets():
        if options.only not in name:
            continue
        X, y = make()
        for dtype in (np.float64, np.float32):
            Z, times = X.astype(dtype), {True: [], False: []}
            reports = {}
            for _ in range(options.repeats):
                for alone in (True, False):
                    began = time.perf_counter()
                    reports[alone] = fit(Z, y, alone)
                    times[alone].append(time.perf_counter() - began)
            before, after = (statistics.median(times[alone]) * 1e3 for alone in (True, False))
            ratio = statistics.median(b / a for a, b in zip(times[True], times[False], strict=True))
            passes = f"{reports[True].n_passes}, {reports[False].n_passes}"
            print(f"| {name}, {Z.dtype} | {before:.0f} | {after:.0f} | {ratio:.2f} | {passes} |", flush=True)


if __name__ == "__main__":
    main()
