"""One evaluation of loss and gradient: against scikit-learn, against our own BLAS path, and against the hardware.

    python benchmarks/bench_pass.py [--grid] [--repeats 9] [--png bench_pass.png]

Without --grid: the shapes of SHAPES and two sparse sets, float64 and float32, 1 and 2 threads. With --grid: K by d,
X four times the last-level cache and once small enough for the second-level cache, both precisions, 1 and 2 threads,
and a picture of the ratio to the floor for one thread.

The floor is the larger of two times measured in the same run: reading X once (a dot product of its values with
themselves, the maximum of its indices), and the 4 n d K flops of the two products (K = 1 for two classes; entries for
n d if X is sparse) at the speed of a square matrix product of BLAS. "BLAS path" is our own pass with both products
handed to BLAS. The candidates take turns; times are medians, ratios are medians of the ratios of neighbouring runs.
With several threads a pause and a call that is not timed go before each run: the threads of OpenBLAS and OpenMP keep
spinning for a while after a call, on the core that the next one needs, and a sleeping thread takes time to wake. Memory
is what our pass allocates beyond X, against its limit of 16 MB and (n_threads + 2) copies of W.
"""

import argparse
import itertools
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator

import datasets
import numpy as np
from scipy.sparse import csr_array
from sklearn._loss.loss import HalfBinomialLoss, HalfMultinomialLoss
from sklearn.linear_model._linear_loss import LinearModelLoss
from threadpoolctl import threadpool_limits

from csoftmax._passes import LossPass

SHAPES = [(60000, 784, 10), (500000, 54, 7), (100000, 20, 2), (20000, 64, 10), (20000, 512, 100), (20000, 512, 1000)]
CLASSES = (2, 3, 7, 10, 16, 32, 100, 1000)
FEATURES = (4, 16, 54, 128, 512, 2048)
LAST_LEVEL, SECOND_LEVEL = 2**25, 2**20
MOST_WORK = 2e9  # n (d + 20) K of a cell of the grid: less than four times the cache for many classes
PAUSE = 0.05
HEAD = (
    "| n x d, K | dtype | threads | kernel | csoftmax, ms | BLAS path, ms | scikit-learn, ms | reading X, ms "
    "| flops, ms | BLAS path / ours | scikit-learn / ours | ours / floor | memory beyond X, MB |"
)


def seconds(function: Callable[[], object], pause: float) -> float:
    if pause:
        time.sleep(pause)
        function()
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def square_product(dtype: type) -> float:
    """Flops per second of a square matrix product, the best of some."""
    A = np.random.default_rng(0).standard_normal((1000, 1000)).astype(dtype)
    return 2e9 / min(seconds(lambda: A @ A, 0) for _ in range(7))


def dense(n: int, d: int, n_classes: int, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, d), np.float32).astype(dtype), rng.integers(n_classes, size=n)


def problems(dtype: type) -> Iterator[tuple[np.ndarray | csr_array, np.ndarray]]:
    for shape in SHAPES:
        yield dense(*shape, dtype)
    for make in (datasets.text, datasets.one_hot):
        X, y = make()
        yield X.astype(dtype), y


def measure(
    X: np.ndarray | csr_array, y: np.ndarray, n_classes: int, n_threads: int, repeats: int, speed: float
) -> dict:
    """Times, in ms, and ratios of one problem."""
    (n, d), dtype, sparse = X.shape, X.dtype, not isinstance(X, np.ndarray)
    rng = np.random.default_rng(1)
    y = y.astype(np.int32)
    columns = 1 if n_classes == 2 else n_classes
    coef = (rng.standard_normal((columns, d)) / (1 if sparse else np.sqrt(d))).astype(dtype)
    intercept, weight = np.zeros(columns, dtype), np.full(n, 1 / n, dtype)
    loss = HalfBinomialLoss() if columns == 1 else HalfMultinomialLoss(n_classes=n_classes)
    theirs = LinearModelLoss(base_loss=loss, fit_intercept=True)
    packed = np.asfortranarray(np.column_stack([coef, intercept])).ravel(order="F")
    labels = y.astype(dtype)

    tracemalloc.start()
    ours = LossPass(X, y, weight, columns, n_threads)
    tracemalloc.reset_peak()
    value, gradient, _ = ours(coef, intercept)
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    blas = ours if sparse else LossPass(X, y, weight, columns, n_threads, tiled=False)
    their_value, their_gradient = theirs.loss_gradient(packed, X, labels, n_threads=n_threads)
    precision = 2e3 * np.finfo(dtype).eps
    assert abs(value - their_value) <= precision * their_value
    assert np.allclose(gradient, their_gradient.reshape(columns, -1, order="F")[:, :-1], atol=precision)

    values = X.data if sparse else X.ravel()
    candidates = (
        lambda: ours(coef, intercept),
        lambda: blas(coef, intercept),
        lambda: theirs.loss_gradient(packed, X, labels, n_threads=n_threads),
        (lambda: (values @ values, X.indices.max())) if sparse else (lambda: values @ values),
    )
    pause = PAUSE if n_threads > 1 else 0
    rounds = [[seconds(candidate, pause) * 1e3 for candidate in candidates] for _ in range(repeats)]
    mine, by_blas, others, reading = (statistics.median(column) for column in zip(*rounds, strict=True))
    flops = 4 * values.size * columns / speed * 1e3
    tiled = ours.plan.layout["tiled"]
    return {
        "kernel": "CSR" if sparse else "tiles" if tiled else "BLAS",
        "times": (mine, None if sparse else by_blas, others, reading, flops),
        "blas": statistics.median(row[1] / row[0] for row in rounds) if tiled else 1.0,
        "sklearn": statistics.median(row[2] / row[0] for row in rounds),
        "floor": mine / max(reading, flops),
        "memory": memory / 1e6,
        "limit": (16e6 + (n_threads + 2) * coef.nbytes) / 1e6,
    }


def show(n: int, d: int, n_classes: int, dtype: type, n_threads: int, cell: dict) -> None:
    times = " | ".join("" if value is None else f"{value:.3g}" for value in cell["times"])
    blas = f"{cell['blas']:.2f}" if cell["kernel"] == "tiles" else ""
    print(
        f"| {n} x {d}, {n_classes} | {np.dtype(dtype)} | {n_threads} | {cell['kernel']} | {times} | {blas} "
        f"| {cell['sklearn']:.1f} | {cell['floor']:.2f} | {cell['memory']:.1f} of {cell['limit']:.1f} |",
        flush=True,
    )


def grid(repeats: int, path: str) -> None:
    """The table over K and d, and the picture for one thread."""
    pictures = {}
    for dtype, n_threads in itertools.product((np.float64, np.float32), (1, 2)):
        for name, size in (("4 x last-level cache", 4 * LAST_LEVEL), ("second-level cache", SECOND_LEVEL // 2)):
            ratios = np.empty((len(FEATURES), len(CLASSES)))
            for (row, d), (column, n_classes) in itertools.product(enumerate(FEATURES), enumerate(CLASSES)):
                n = size // (d * np.dtype(dtype).itemsize)
                n = int(min(n, MOST_WORK / ((d + 20) * n_classes)))
                with threadpool_limits(n_threads):
                    X, y = dense(n, d, n_classes, dtype)
                    cell = measure(X, y, n_classes, n_threads, repeats, square_product(dtype))
                ratios[row, column] = cell["floor"]
                show(n, d, n_classes, dtype, n_threads, cell)
            if n_threads == 1:
                pictures[f"{np.dtype(dtype)}, X in {name}"] = ratios
    draw(pictures, path)


def draw(pictures: dict[str, np.ndarray], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for axis, (name, ratios) in zip(axes.flat, pictures.items(), strict=True):
        axis.imshow(np.log(ratios), cmap="viridis_r", vmin=0, vmax=np.log(8), aspect="auto")
        for (row, column), ratio in np.ndenumerate(ratios):
            axis.text(column, row, f"{ratio:.1f}", ha="center", va="center", color="white" if ratio > 3 else "black")
        axis.set(xticks=range(len(CLASSES)), xticklabels=CLASSES, yticks=range(len(FEATURES)), yticklabels=FEATURES)
        axis.set(title=name, xlabel="classes K", ylabel="features d")
    figure.suptitle("One pass, one thread: time / the larger of reading X once and the flops at the speed of a GEMM")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", action="store_true")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--png", default="bench_pass.png")
    options = parser.parse_args()
    print(HEAD)
    print("|---" * (HEAD.count("|") - 1) + "|")
    if options.grid:
        grid(options.repeats, options.png)
        return
    times: dict[tuple, tuple] = {}
    for dtype in (np.float64, np.float32):
        for X, y in problems(dtype):
            shape = (*X.shape, int(y.max()) + 1)
            for n_threads in (1, 2):
                with threadpool_limits(n_threads):
                    cell = measure(X, y, shape[2], n_threads, options.repeats, square_product(dtype))
                show(*shape, dtype, n_threads, cell)
                times[shape, dtype, n_threads] = cell["times"]
    print("\n| n x d, K | float64 / float32 | 1 thread / 2, float64 | float32 | reading X |\n|---|---|---|---|---|")
    for n, d, n_classes in dict.fromkeys(key[0] for key in times):
        one, two, single, single_two = (
            times[(n, d, n_classes), dtype, n_threads] for dtype in (np.float64, np.float32) for n_threads in (1, 2)
        )
        ratios = (one[0] / single[0], one[0] / two[0], single[0] / single_two[0], one[3] / two[3])
        print(f"| {n} x {d}, {n_classes} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")


if __name__ == "__main__":
    main()
