"""Fails if 10^5 fits and predictions leave more memory behind than an allocator's own changes of mind."""

import itertools
import sys
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from csoftmax import Predictor, SoftmaxRegression

ROUNDS, ALLOWED = 25_000, 2**20


def resident() -> int:
    """Bytes of this process in memory."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def main() -> int:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 3)), np.arange(40) % 3
    kinds = [(X, 0.0), (X, 0.5), (csr_array(X), 0.0), (X.astype(np.float32), 0.0)]
    row, out = X[0].copy(), np.empty(3)
    before = 0
    for number, (data, ratio) in zip(range(4 * ROUNDS), itertools.cycle(kinds), strict=False):
        model = SoftmaxRegression(l1_ratio=ratio, tol=1e-2).fit(data, y)
        model.predict_proba(data)
        served: Predictor = model.predictor()
        served.predict_proba(row, out=out if served.dtype == out.dtype else None)
        served.top_k(X, 2)
        try:
            served.predict(X[:, :2])
        except ValueError:
            pass
        if number == ROUNDS // 10:
            before = resident()
    grown = resident() - before
    print(f"{4 * ROUNDS} fits and predictions: the resident size grew by {grown} bytes")
    return int(grown > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
