"""Time of a pass and memory beyond X from 10^4 to 10^7 rows, at 20 features and 10 classes.

    python benchmarks/bench_scaling.py [--most 10000000] [--png bench_scaling.png]

A pass is one evaluation of J and its gradient inside of a fit: the time of 20 iterations less that of 10, over the
passes between them, the median of three. Memory is what the resident size rises by during a fit of one iteration, at
its highest, beyond X, y and weights (Linux); of that, labels as codes and a weight for each row, which a fit makes
itself, grow with n. Each size runs in a process of its own.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

FEATURES, CLASSES = 20, 10
REPEATS = 3


def resident() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) * 1024


def measure(n: int) -> tuple[float, float, float]:
    """Milliseconds of a pass, MB beyond X of a fit, and MB of what passes alone need."""
    from csoftmax import SoftmaxRegression

    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, FEATURES))
    scores = (X @ rng.standard_normal((FEATURES, CLASSES))).astype(np.float32)
    y = (scores + rng.gumbel(size=scores.shape).astype(np.float32)).argmax(axis=1).astype(np.int8)
    del scores
    SoftmaxRegression(max_iter=1, tol=0).fit(X[:1000], y[:1000])
    peak = base = resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    model = SoftmaxRegression(tol=0, solver="lbfgs", max_iter=1).fit(X, y)
    done.set()
    watcher.join()
    times = []
    for _ in range(REPEATS):
        marks = []
        for iterations in (10, 20):
            began = time.perf_counter()
            report = SoftmaxRegression(tol=0, solver="lbfgs", max_iter=iterations).fit(X, y).fit_report_
            marks.append((time.perf_counter() - began, report.n_passes))
        (early, few), (late, many) = marks
        times.append((late - early) / (many - few))
    return statistics.median(times) * 1e3, (peak - base) / 1e6, model.fit_report_.workspace_bytes / 1e6


def plot(rows: list[tuple[int, float, float, float]], path: Path) -> None:
    import matplotlib.pyplot as plt

    n, times, memory, workspace = (np.array(column) for column in zip(*rows, strict=True))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    left.loglog(n, times, "o-", label="measured")
    left.loglog(n, times[-1] * n / n[-1], "--", color="grey", label="in proportion to n")
    left.set(xlabel="rows", ylabel="milliseconds per pass")
    right.loglog(n, n * FEATURES * 8 / 1e6, "--", color="grey", label="X itself")
    right.loglog(n, np.maximum(memory, 0.1), "o-", label="fit, beyond X")
    right.loglog(n, workspace, "s-", label="passes, beyond X")
    right.set(xlabel="rows", ylabel="MB")
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--most", default=10**7, type=int)
    parser.add_argument("--png", type=Path)
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        print(json.dumps(measure(options.work)))
        return
    rows = []
    print("| rows | ms per pass | ns per row | fit, MB beyond X | bytes per row | passes, MB beyond X |")
    print("|---|---|---|---|---|---|")
    for n in (10**4, 10**5, 10**6, 3 * 10**6, 10**7):
        if n > options.most:
            break
        command = [sys.executable, __file__, "--work", str(n)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append((n, *found))
        ms, memory, workspace = found
        cells = f"{ms:.3g} | {ms * 1e6 / n:.1f} | {memory:.1f} | {memory * 1e6 / n:.0f} | {workspace:.2f}"
        print(f"| {n} | {cells} |", flush=True)
    if options.png is not None:
        plot(rows, options.png)


if __name__ == "__main__":
    main()
