"""Two Python threads, each fitting its own data on one thread, against one alone: does the GIL stay released?

    python benchmarks/bench_two_fits.py

BLAS is limited to one thread. Prints the median time of one fit alone, of two at once, and the median ratio of
neighbouring runs (1 on two idle cores, 2 if they took turns).
"""

import statistics
import threading
import time

import numpy as np
from threadpoolctl import threadpool_limits

from csoftmax import SoftmaxRegression

REPEATS = 9
SHAPES = [(20000, 64, 10), (100000, 20, 2), (5000, 100, 100)]


def main() -> None:
    print("| n x d, K | one fit, ms | two at once, ms | ratio |")
    print("|---|---|---|---|")
    for n, d, n_classes in SHAPES:
        rng = np.random.default_rng(0)
        data = []
        for _ in range(2):
            centers = rng.standard_normal((n_classes, d))
            y = rng.integers(n_classes, size=n)
            data.append((centers[y] + 3 * rng.standard_normal((n, d)), y))

        def fit(which: int, data: list[tuple[np.ndarray, np.ndarray]] = data) -> None:
            SoftmaxRegression(n_threads=1, tol=0, max_iter=40).fit(*data[which])

        times = []
        with threadpool_limits(1):
            for _ in range(REPEATS):
                began = time.perf_counter()
                fit(0)
                middle = time.perf_counter()
                both = [threading.Thread(target=fit, args=(which,)) for which in range(2)]
                for thread in both:
                    thread.start()
                for thread in both:
                    thread.join()
                times.append((middle - began, time.perf_counter() - middle))
        alone, together = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
        ratio = statistics.median(b / a for a, b in times)
        print(f"| {n} x {d}, {n_classes} | {alone:.0f} | {together:.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
