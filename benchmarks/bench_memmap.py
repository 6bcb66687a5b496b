"""Fits of data in a memory-mapped file, against the time that reading the file takes, and the memory they need.

    python benchmarks/bench_memmap.py --folder DIR [--rows 2500000] [--features 800]

Writes float32 rows of raw features and labels of 10 classes to a file in DIR (8 GB by default), which is deleted in the
end, also after an error. A fit has default parameters. "cold": no page of the file is in memory when the fit begins.
"evicted": none is before every iteration either, and csoftmax is told that the file is larger than the memory; the time
of the eviction is not counted. "warm": all are.

Reading once is the faster of a sum over blocks of the map and of preadv into a buffer, both in two threads. Of what a
fit reads, only passes are counted; sweeps are those for ranges and deviations of columns and for lengths of rows. The
ratio is the time of the fit over that of reading X once per pass: for "cold" once cold, and warm from then on.
Anonymous memory, which is all but pages of the file, is sampled every 5 ms (Linux).
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
STEP = 2**22  # bytes
REPEATS = 3


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
    for _ in range(REPEATS):
        for read in (read_by_map, read_by_call):
            if cold:
                evict(path)
            times.append(read(path))
    return min(times)


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
        cold, warm = reading_once(path, True), reading_once(path, False)
        print(
            f"{options.rows} x {options.features}, K={CLASSES}, float32, {path.stat().st_size / 1e9:.2f} GB;", end=" "
        )
        print(f"reading once: {cold:.2f} s cold, {warm:.3f} s warm\n")
        print("| file | seconds | passes | reading X once per pass, s | ratio | anonymous memory, MB | major faults |")
        print("|---|---|---|---|---|---|---|")
        for state in ("cold", "warm", "evicted"):
            seconds, passes, iterations, memory, faults = fit(path, y, state)
            times_cold = {"cold": 1, "warm": 0, "evicted": 1 + iterations}[state]
            reading = times_cold * cold + max(0, passes - times_cold) * warm
            cells = f"{seconds:.1f} | {passes} | {reading:.1f} | {seconds / reading:.2f} | {memory:.0f} | {faults}"
            print(f"| {state} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
