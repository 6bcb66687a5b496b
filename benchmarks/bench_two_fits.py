"""Two Python threads, each fitting its own data on one thread, against one alone: does the GIL stay released?

    python benchmarks/bench_two_fits.py

BLAS is limited to one thread. Prints the median time of one fit alone, of two at once, and the median ratio of
neighbouring runs: 1 on two independent cores, 2 if they took turns. The last column is the same ratio for 40 bare
passes over X, which touch no Python: what the machine's shared caches and memory allow.
"""

import statistics
import threading
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from csoftmax import SoftmaxRegression
from csoftmax._passes import LossPass

REPEATS = 11
SHAPES = [(20000, 64, 10), (100000, 20, 2), (5000, 100, 100), (20000, 256, 20)]


def compare(work: Callable[[int], object]) -> tuple[float, float, float]:
    """Median milliseconds of work(0) alone and of work(0) and work(1) at once, and the median ratio."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work(0)
        middle = time.perf_counter()
        both = [threading.Thread(target=work, args=(which,)) for which in range(2)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        times.append((middle - began, time.perf_counter() - middle))
    alone, together = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
    return alone, together, statistics.median(b / a for a, b in times)


def main() -> None:
    print("| n x d, K | one fit, ms | two at once, ms | ratio | ratio of bare passes |")
    print("|---|---|---|---|---|")
    for n, d, n_classes in SHAPES:
        rng = np.random.default_rng(0)
        data, passes = [], []
        columns = 1 if n_classes == 2 else n_classes
        coef, intercept = np.zeros((columns, d)), np.zeros(columns)
        for _ in range(2):
            centers = rng.standard_normal((n_classes, d))
            y = rng.integers(n_classes, size=n)
            data.append((centers[y] + 3 * rng.standard_normal((n, d)), y))
            passes.append(LossPass(data[-1][0], y.astype(np.int32), np.full(n, 1 / n), columns, 1))

        def fit(which: int, data: list[tuple[np.ndarray, np.ndarray]] = data) -> None:
            SoftmaxRegression(n_threads=1, tol=0, max_iter=40).fit(*data[which])

        def bare(
            which: int, passes: list[LossPass] = passes, coef: np.ndarray = coef, b: np.ndarray = intercept
        ) -> None:
            for _ in range(40):
                passes[which](coef, b)

        with threadpool_limits(1):
            alone, together, ratio = compare(fit)
            limit = compare(bare)[2]
        print(f"| {n} x {d}, {n_classes} | {alone:.0f} | {together:.0f} | {ratio:.2f} | {limit:.2f} |", flush=True)


if __name__ == "__main__":
    main()
