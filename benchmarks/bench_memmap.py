"""Fits of data in a memory-mapped file, against the time that reading the file takes, and the memory they need.

    python benchmarks/bench_memmap.py --folder DIR [--rows 2500000] [--features 800]

Writes float32 rows of raw features and labels of 10 classes to a file in DIR (8 GB by default), which is deleted in the
end, also after an error. A fit has default parameters. "cold": no page of the file is in memory when the fit begins.
"evicted": none is before every iteration either, and csoftmax is told that the file is larger than the memory; the time
of the eviction is not counted. "warm": all are.

Reading once is the faster of a sum over blocks of the map and of preadv into a buffer, both in two threads, of which
each runs once in every round. The ratio is the time of a fit over that of reading X once per pass: for "cold" once
cold, and warm from then on. A pass is also arithmetic, four operations for each value and class, but for the first,
which is the sweep for means and deviations: the floor is the longer of the two for each pass, with the arithmetic as
fast as a large square product of float32 by NumPy's BLAS in two threads. All figures are medians over rounds. Anonymous
memory, which is all but pages of the file, is sampled every 5 ms (Linux).
"""

import argparse
import mmap
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from csoftmax import SoftmaxRegression, _mapped

MEMORY = _mapped._memory
CLASSES = 10
STATES = ("cold", "warm", "evicted")
STEP = 2**22  # bytes
ROUNDS = 3


def write(path: Path, n: int, d: int) -> np.ndarray:
    """n rows whose features differ in scale and mean; returns their labels, drawn from a softmax model."""
    rng = np.random.default_rng(0)
    scale = np.exp(rng.standard_normal(d, np.float32))
    mean = 3 * rng.standard_normal(d, np.float32)
    weights = (1.7 / d**0.5) * rng.standard_normal((d, CLASSES), np.float32)
    y = np.empty(n, np.int8)
    X = np.lib.format.open_memmap(path, "w+", np.float32, (n, d))
    for start in range(0, n, 20000):
        Z = rng.standard_normal((min(20000, n - start), d), np.float32)
        scores = Z @ weights
        y[start : start + len(Z)] = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
        X[start : start + len(Z)] = (Z + mean) * scale
    X.flush()
    return y


def evict(path: Path, X: np.memmap | None = None) -> None:
    """Have the system forget the pages of the file."""
    if X is not None:
        X._mmap.madvise(mmap.MADV_DONTNEED)
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def in_halves(size: int, work: Callable[[int, int], None]) -> float:
    """Seconds of work(start, stop) on both halves at once."""
    began = time.perf_counter()
    threads = [threading.Thread(target=work, args=(i * size // 2, (i + 1) * size // 2)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def read_by_map(path: Path) -> float:
    X = np.load(path, mmap_mode="r")
    step = max(1, STEP // (4 * X.shape[1]))

    def work(start: int, stop: int) -> None:
        for first in range(start, stop, step):
            X[first : min(first + step, stop)].sum()

    return in_halves(len(X), work)


def read_by_call(path: Path) -> float:
    def work(start: int, stop: int) -> None:
        buffer, file = bytearray(STEP), os.open(path, os.O_RDONLY)
        for offset in range(start, stop, STEP):
            os.preadv(file, [buffer], offset)
        os.close(file)

    return in_halves(path.stat().st_size, work)


def reading_once(path: Path, cold: bool) -> float:
    times = []
    for read in (read_by_map, read_by_call):
        if cold:
            evict(path)
        times.append(read(path))
    return min(times)


def blas_flops() -> float:
    """Operations a second of a large square product in float32."""
    A, times = np.ones((4096, 4096), np.float32), []
    for _ in range(3):
        began = time.perf_counter()
        A @ A
        times.append(time.perf_counter() - began)
    return 2 * len(A) ** 3 / min(times)


def anonymous() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def fit(path: Path, y: np.ndarray, state: str) -> tuple[float, int, int, float, int]:
    """Seconds, passes, iterations, peak growth of anonymous memory in MB and major page faults of one fit."""
    if state != "warm":
        evict(path)
    X = np.load(path, mmap_mode="r")
    model, evicting = SoftmaxRegression(), 0.0
    _mapped._memory = MEMORY
    if state == "evicted":
        _mapped._memory = lambda: 0.0

        def callback(*_: object) -> None:
            nonlocal evicting
            began = time.perf_counter()
            evict(path, X)
            evicting += time.perf_counter() - began

        model.callback = callback
    peak = base = anonymous()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    faults, began = resource.getrusage(resource.RUSAGE_SELF).ru_majflt, time.perf_counter()
    try:
        model.fit(X, y)
    finally:
        seconds = time.perf_counter() - began - evicting
        done.set()
        watcher.join()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt - faults
    return seconds, model.fit_report_.n_passes, int(model.n_iter_[0]), (peak - base) / 1e6, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--rows", default=2_500_000, type=int)
    parser.add_argument("--features", default=800, type=int)
    options = parser.parse_args()
    SoftmaxRegression().fit([[0.0], [1.0], [5.0], [6.0]] * 100, [0, 0, 1, 1] * 100)  # imports and threads
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "X.npy"
        y = write(path, options.rows, options.features)
        found = [one_round(path, y, options.rows * options.features) for _ in range(ROUNDS)]
        size = path.stat().st_size / 1e9
    cold, warm, square = np.median([readings for readings, _ in found], axis=0)
    print(f"{options.rows} x {options.features}, K={CLASSES}, float32, {size:.2f} GB;", end=" ")
    print(f"reading once: {cold:.2f} s cold, {warm:.3f} s warm; arithmetic of a pass: {square:.3f} s\n")
    names = "file", "seconds", "passes", "reading X once per pass, s", "ratio", "floor, s", "anonymous memory, MB"
    print(f"| {' | '.join(names)} | major faults |")
    print("|---|---|---|---|---|---|---|---|")
    for state in STATES:
        seconds, passes, reading, floor, memory, faults = np.median([fits[state] for _, fits in found], axis=0)
        ratio = np.median([fits[state][0] / fits[state][2] for _, fits in found])
        cells = (
            f"{seconds:.1f} | {passes:.0f} | {reading:.1f} | {ratio:.2f} | {floor:.1f} | {memory:.0f} | {faults:.0f}"
        )
        print(f"| {state} | {cells} |")


def one_round(path: Path, y: np.ndarray, n_values: int) -> tuple[list[float], dict[str, list[float]]]:
    """Seconds of readings and of arithmetic, and of each state what the table has."""
    cold, warm, square = reading_once(path, True), reading_once(path, False), 4 * n_values * CLASSES / blas_flops()
    fits = {}
    for state in STATES:
        seconds, passes, iterations, memory, faults = fit(path, y, state)
        times_cold = {"cold": 1, "warm": 0, "evicted": 1 + iterations}[state]
        each = [cold] * times_cold + [warm] * (passes - times_cold)
        floor = sum(max(reading, square * (number > 0)) for number, reading in enumerate(each))
        fits[state] = [seconds, passes, sum(each), floor, memory, faults]
        print(f"{state}: {seconds:.1f} s, readings {sum(each):.1f} s", flush=True)
    return [cold, warm, square], fits


if __name__ == "__main__":
    main()
