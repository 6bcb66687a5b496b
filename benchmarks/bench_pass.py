"""One evaluation of loss and gradient, against scikit-learn's, interleaved in one run.

    python benchmarks/bench_pass.py [--repeats 15]

Each row: median time of `LossPass` and of `LinearModelLoss.loss_gradient` on the same float64 data, with BLAS and both
libraries at the same number of threads, the median of the ratios of neighbouring runs, and the memory that our
pass allocates beyond X against its limit, 16 MB and (n_threads + 2) copies of W. Before each run there is a pause: the
threads of OpenBLAS and OpenMP keep spinning for a while after a call, on the core that the next one needs.
"""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from sklearn._loss.loss import HalfMultinomialLoss
from sklearn.linear_model._linear_loss import LinearModelLoss
from threadpoolctl import threadpool_limits

from csoftmax._passes import LossPass

SHAPES = [(60000, 784, 10), (500000, 54, 7), (20000, 64, 10), (20000, 512, 1000)]
PAUSE = 0.1


def seconds(function: Callable[[], object]) -> float:
    time.sleep(PAUSE)
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def compare(n: int, d: int, n_classes: int, n_threads: int, repeats: int) -> str:
    """One row of the table."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    y = rng.integers(n_classes, size=n).astype(np.int32)
    coef, intercept = rng.standard_normal((n_classes, d)) * 0.01, np.zeros(n_classes)
    theirs = LinearModelLoss(base_loss=HalfMultinomialLoss(n_classes=n_classes), fit_intercept=True)
    packed = np.asfortranarray(np.column_stack([coef, intercept])).ravel(order="F")
    labels = y.astype(np.float64)

    tracemalloc.start()
    ours = LossPass(X, y, np.full(n, 1 / n), n_classes, n_threads)
    tracemalloc.reset_peak()
    loss, gradient, _ = ours(coef, intercept)
    memory = tracemalloc.get_traced_memory()[1] - 8 * n  # the weights are the caller's
    tracemalloc.stop()
    limit = 16e6 + (n_threads + 2) * coef.nbytes

    their_loss, their_gradient = theirs.loss_gradient(packed, X, labels, n_threads=n_threads)
    assert abs(loss - their_loss) <= 1e-10 * their_loss
    assert np.allclose(gradient, their_gradient.reshape(n_classes, -1, order="F")[:, :-1], atol=1e-10)

    pairs = [
        (
            seconds(lambda: ours(coef, intercept)),
            seconds(lambda: theirs.loss_gradient(packed, X, labels, n_threads=n_threads)),
        )
        for _ in range(repeats)
    ]
    mine, others = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    kernel = "tiles" if ours.plan.tiled else "BLAS"
    return (
        f"| {n} x {d}, {n_classes} | {n_threads} | {kernel} | {mine:.2f} | {others:.1f} "
        f"| {ratio:.1f} | {memory / 1e6:.1f} of {limit / 1e6:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    print("| n x d, K | threads | kernel | csoftmax, ms | scikit-learn, ms | ratio | memory beyond X, MB |")
    print("|---|---|---|---|---|---|---|")
    for shape in SHAPES:
        for n_threads in (1, 2):
            with threadpool_limits(n_threads):
                print(compare(*shape, n_threads, options.repeats), flush=True)


if __name__ == "__main__":
    main()
