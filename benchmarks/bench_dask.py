"""DaskSoftmaxRegression against a local fit on the same machine, and how far it would scale.

    python benchmarks/bench_dask.py [overhead] [scaling] [model] [--rows 2000000] [--repeats 3]

overhead  Two workers of one thread against one process of two, on 64 features, 10 classes and 32 chunks: seconds of
          whole fits, taken in turns, and the bytes that a pass moves: those of the loopback interface (Linux), which
          carries everything twice, between client and scheduler and between scheduler and worker.
scaling   One and two workers on the same rows (strong), and on as many rows each (weak).
model     What a pass costs besides its rows, by the number of tasks and the size of the coefficients, measured; the
          line through it; and where more workers would stop to help.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as Dask's workers have it

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster, wait
from scipy.optimize import nnls

from csoftmax import SoftmaxRegression, _cluster
from csoftmax.dask import DaskSoftmaxRegression

D, K, CHUNKS = 64, 10, 32


def chunk(seed, n):
    """Labels of overlapping classes, and features of very different size."""
    centres = np.random.default_rng(0).standard_normal((K, D))
    rng = np.random.default_rng(seed)
    y = rng.integers(K, size=n)
    return (centres[y] + 2 * rng.standard_normal((n, D))) * np.logspace(-1, 1, D), y


def arrays(n_rows, n_chunks=CHUNKS):
    """X and y on the cluster."""
    n = n_rows // n_chunks
    made = [dask.delayed(chunk)(seed, n) for seed in range(n_chunks)]
    X = da.concatenate([da.from_delayed(pair[0], (n, D), float) for pair in made])
    y = da.concatenate([da.from_delayed(pair[1], (n,), np.int64) for pair in made])
    X, y = dask.persist(X, y)
    wait([X, y])
    return X, y


def timed(model, X, y):
    began = time.perf_counter()
    model.fit(X, y)
    return time.perf_counter() - began, model


def passes_of(X, y):
    """What a fit asks in every iteration."""
    _cluster._held.set([])  # as long as the program runs
    return DaskSoftmaxRegression()._check_data(X, y, None, 1).all_rows.passes()


def cluster(n_workers):
    return LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=":0", memory_limit="8GiB")


# ---- what is moved --------------------------------------------------------------------------------------------------


def moved():
    """Bytes that the loopback interface has carried."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return int(next(line for line in lines if line.strip().startswith("lo:")).split()[1])


def bytes_of(work, repeats, idle=0.0):
    """Bytes that each call moves, without those that pass by when nothing is asked."""
    time.sleep(1)
    before, began = moved(), time.perf_counter()
    for _ in range(repeats):
        work()
    time.sleep(1)
    return (moved() - before - idle * (time.perf_counter() - began)) / repeats


def bytes_of_a_pass(X, y):
    """Of a gradient pass, and in a second when nothing is asked."""
    loss = passes_of(X, y)
    loss.take(np.zeros((K, D)), np.zeros(K))
    by_coef, by_intercept = np.empty((K, D)), np.empty(K)
    loss.loss_gradient(by_coef, by_intercept)
    idle = bytes_of(lambda: time.sleep(3), 1) / 5
    return bytes_of(lambda: loss.loss_gradient(by_coef, by_intercept), 50, idle), idle


# ---- the three ------------------------------------------------------------------------------------------------------


def overhead(n_rows, repeats):
    pairs = [chunk(seed, n_rows // CHUNKS) for seed in range(CHUNKS)]
    here = np.concatenate([X for X, _ in pairs]), np.concatenate([y for _, y in pairs])
    del pairs
    with cluster(2) as workers, Client(workers):
        there = arrays(n_rows)
        local, lazy = [], []
        for _ in range(repeats):
            local.append(timed(SoftmaxRegression(n_threads=2), *here))
            lazy.append(timed(DaskSoftmaxRegression(), *there))
        difference = abs(local[0][1].coef_ - lazy[0][1].coef_).max()
        one, other = np.median([seconds for seconds, _ in local]), np.median([seconds for seconds, _ in lazy])
        report = lazy[0][1].fit_report_
        print(f"\n{n_rows} x {D}, K={K}, {CHUNKS} chunks; {report.n_iter} iterations, {report.n_passes} passes\n")
        print("| one process, two threads, s | two workers of one thread, s | ratio | largest difference of coef_ |")
        print("|---|---|---|---|")
        print(f"| {one:.2f} | {other:.2f} | {other / one:.2f} | {difference:.1e} |")
        gradient, idle = bytes_of_a_pass(*there)
        whole = bytes_of(lambda: timed(DaskSoftmaxRegression(), *there), 1, idle)
        unit = 2 * 2 * 8 * K * D  # workers, hops
        print(
            f"\nFor each worker, in units of the coefficients, {8 * K * D} bytes: {gradient / unit:.2f} in a gradient "
            f"pass; {whole / unit:.0f} in a fit, of which {(whole - report.n_passes * gradient) / unit:.0f} are not of "
            f"gradient passes."
        )


def scaling(n_rows, repeats):
    print("\n| rows | workers | seconds of a fit | passes | ms of a pass | speed-up | efficiency |")
    print("|---|---|---|---|---|---|---|")
    base = {}
    for n_workers in (1, 2):
        with cluster(n_workers) as workers, Client(workers):
            for kind, n in (("strong", n_rows), ("weak", n_rows // 2 * n_workers)):
                there = arrays(n)
                fits = [timed(DaskSoftmaxRegression(), *there) for _ in range(repeats)]
                seconds, passes = np.median([s for s, _ in fits]), fits[0][1].fit_report_.n_passes
                each = seconds / passes
                base.setdefault(kind, each)
                gain = base[kind] / each * (1 if kind == "strong" else n_workers)
                print(
                    f"| {n}, {kind} | {n_workers} | {seconds:.2f} | {passes} | {1e3 * each:.1f} | {gain:.2f} | "
                    f"{gain / n_workers:.0%} |"
                )


def model(n_rows, repeats):
    """T(p) = rows / p * row + latency + p * task + log4(p) * (level + bytes / bandwidth)."""
    times, at_once = {}, {}
    with cluster(2) as workers, Client(workers):
        _cluster._held.set([])
        for n_parts in (1, 2, 4, 16, 64, 256):
            for size in (640, 2**17, 2**20):
                if n_parts * size > 2**24:
                    continue
                parts = _cluster.Parts([_cluster.task(_nothing) for _ in range(n_parts)])
                times[n_parts, size] = seconds_of_asking(parts.kept(), np.zeros(size))
                if 8 * size * n_parts <= _cluster.DIRECT:
                    at_once[n_parts, size] = seconds_of_asking(parts.with_actors(), np.zeros(size))
        loss = passes_of(*arrays(n_rows))
        loss.take(np.zeros((K, D)), np.zeros(K))
        by_coef, by_intercept = np.empty((K, D)), np.empty(K)
        asked = []
        for _ in range(10):
            began = time.perf_counter()
            loss.loss_gradient(by_coef, by_intercept)
            asked.append(time.perf_counter() - began)
    print("\n| parts | ms by tasks, coefficients of 5 kB | 1 MB | 8 MB | by actors, 5 kB | 1 MB | 8 MB |")
    print("|---|---|---|---|---|---|---|")
    for n_parts in sorted({n for n, _ in times}):
        cells = [
            f"{1e3 * of[n_parts, size]:.1f}" if (n_parts, size) in of else ""
            for of in (times, at_once)
            for size in (640, 2**17, 2**20)
        ]
        print(f"| {n_parts} | {' | '.join(cells)} |")
    # A constant, the costs of a task, of a level of the tree, and of a byte; of an actor, and of a byte.
    tasks = fitted([[1, n, _levels(n), 8 * size * min(n, 2 + _levels(n))] for n, size in times], times)
    actors = fitted([[1, n, 8 * size * n] for n, size in at_once], at_once)
    row = 2 * (np.median(asked) - at_once[2, 640]) / n_rows  # seconds of one worker
    print(
        f"\nA pass: {1e9 * row:.0f} ns a row; by tasks {1e3 * tasks[0]:.1f} ms, {1e3 * tasks[1]:.2f} ms a task, "
        f"{1e3 * tasks[2]:.1f} ms a level, {1e-6 / max(tasks[3], 1e-15):.0f} MB/s; by actors {1e3 * actors[0]:.1f} ms, "
        f"{1e3 * actors[1]:.2f} ms each, {1e-6 / max(actors[2], 1e-15):.0f} MB/s"
    )
    print("\n| rows | coefficients | 1 | 10 | 100 | 1000 workers | best number |\n|---|---|---|---|---|---|---|")
    for n in (1e8, 1e9, 1e10):
        for size in (640, 2**17):
            each = row * size / 640

            def seconds(p, n=n, size=size, each=each):
                direct = 8 * size * p <= _cluster.DIRECT
                by_tasks = tasks @ [1, p, _levels(p), 8 * size * min(p, 2 + _levels(p))]
                return n * each / p + (actors @ [1, p, 8 * size * p] if direct else by_tasks)

            cells = [f"{seconds(p):.3g} s ({seconds(1) / seconds(p) / p:.0%})" for p in (1, 10, 100, 1000)]
            grid = np.unique(np.logspace(0, 4, 200).astype(int))
            best = grid[np.argmin([seconds(p) for p in grid])]
            print(f"| {n:.0e} | {8 * size / 1e6:.3g} MB | {' | '.join(cells)} | {best} |")


def seconds_of_asking(parts, argument):
    asked = []
    for _ in range(12):
        began = time.perf_counter()
        parts.ask("squares", argument)
        asked.append(time.perf_counter() - began)
    return float(np.median(asked[2:]))


def fitted(design, times):
    """Costs, none of them negative, by least squares of relative errors."""
    seconds = np.array(list(times.values()))
    return nnls(np.array(design) / seconds[:, None], np.ones(len(seconds)))[0]


def _nothing():
    """A part whose answer is as large as the question."""
    return [_Echo()]


class _Echo:
    def squares(self, theta):
        return theta


def _levels(n_parts):
    return int(np.ceil(np.log(max(n_parts, 1)) / np.log(4) - 1e-9))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="*", choices=["overhead", "scaling", "model", []], default=[])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for name in options.what or ["overhead", "scaling", "model"]:
        {"overhead": overhead, "scaling": scaling, "model": model}[name](options.rows, options.repeats)


if __name__ == "__main__":
    main()
