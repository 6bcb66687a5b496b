"""Every rung of the ladder of curvature models on every set: iterations, passes and seconds to the default tolerance.

    python benchmarks/bench_ladder.py [--only TEXT]

The rung that solver="auto" takes is marked with a star. A rung that does not get there in 2000 iterations, or that the
ladder refuses for memory, is shown as "-".
"""

import argparse
import time
import warnings

import datasets
import numpy as np

from csoftmax._objective import Objective
from csoftmax._solvers import Options
from csoftmax._solvers.quasi_newton import Setting, choose, ladder, minimise

NAMES = ("hessian", "classes", "gram", "diagonal", "none")
MAX_SECONDS = 30


def measure(X: np.ndarray, codes: np.ndarray, C: float, setting: Setting) -> str:
    """Iterations, passes and seconds of one rung."""
    began = time.perf_counter()
    objective = Objective.of(
        X,
        codes,
        np.ones(len(X)),
        int(codes.max()) + 1,
        C=C,
        fit_intercept=True,
        standardise=True,
        n_threads=2,
    )
    late = lambda *_: time.perf_counter() - began > MAX_SECONDS  # noqa: E731
    result = minimise(objective, np.zeros(objective.size), Options(1e-4, 2000, 0.1, late), setting)
    seconds = time.perf_counter() - began
    return f"{result.n_iter}, {objective.n_passes}, {seconds:.3g}" if result.converged else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only sets whose name holds this")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"| set | {' | '.join(NAMES)} |")
    print("|---" * (len(NAMES) + 1) + "|")
    jobs = [(name, make, C) for name, make in datasets.SMALL.items() for C in (1e-3, 1.0, 1e3)]
    jobs += [(name, make, 1.0) for name, make in (datasets.LARGE | {"100 x 5, K=3": datasets.tiny}).items()]
    for name, make, C in jobs:
        if options.only not in name:
            continue
        X, y = make()
        X, codes = np.ascontiguousarray(X, np.float64), np.unique(y, return_inverse=True)[1].astype(np.int32)
        shape = Objective.of(
            X, codes, np.ones(len(X)), int(codes.max()) + 1, C=C, fit_intercept=True, standardise=True, n_threads=2
        )
        chosen, cells = choose(shape), []
        for setting in ladder(shape):
            star = " *" if setting.model is chosen.model else ""
            cells.append((measure(X, codes, C, setting) if setting.fits else "-") + star)
        print(f"| {name}, C={C:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
