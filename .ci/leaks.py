"""Fails if 10^5 fits and predictions leave more memory behind than an allocator's own changes of mind."""

import contextlib
import itertools
import multiprocessing
import sys
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from csoftmax import SoftmaxRegression

# Each process takes half of the rounds. What it holds settles within the first tenth; afterwards less than 12 bytes a
# round may be added, which is less than any object.
PROCESSES, ROUNDS, ALLOWED = 2, 50_000, 2**19


def resident() -> int:
    """Bytes of this process in memory."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def growth(seed: int) -> int:
    """What one process holds more at its end than after a tenth of its rounds."""
    X, y = np.random.default_rng(seed).standard_normal((40, 3)), np.arange(40) % 3
    kinds = [(X, 0.0), (X, 0.5), (csr_array(X), 0.0), (X.astype(np.float32), 0.0)]
    row, out = X[0].copy(), np.empty(3)
    for number, (data, ratio) in zip(range(ROUNDS), itertools.cycle(kinds), strict=False):
        model = SoftmaxRegression(l1_ratio=ratio, tol=1e-2).fit(data, y)
        model.predict_proba(data)
        served = model.predictor()
        served.predict_proba(row, out=out if served.dtype == out.dtype else None)
        served.top_k(X, 2)
        with contextlib.suppress(ValueError):
            served.predict(X[:, :2])
        if number == ROUNDS // 10:
            before = resident()
    return resident() - before


def main() -> int:
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        grown = pool.map(growth, range(PROCESSES))
    print(f"{PROCESSES * ROUNDS} fits and predictions: the resident sizes grew by {grown} bytes")
    return int(max(grown) > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
