"""Load on examples/service: requests a second and latency, next to the same service with scikit-learn's model in it.

    python benchmarks/bench_service.py [--rounds 5] [--seconds 2]

uvicorn runs the example in one process, three times: with the csoftmax model of a file, with a LogisticRegression of
the same coefficients, and with a model that does nothing, to see what all the rest of a request costs. They take turns;
two wait idle meanwhile. wrk (a package of the system) puts the load on them: one thread, and each connection sends its
next request when it has the answer, so that with 16 connections the latency is mostly waiting for the other 15. It runs
on the same machine and takes a part of it.

CPU is the processor time of the service's process for a request, the prediction what one call takes in a loop.
"""

import argparse
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sklearn.linear_model import LogisticRegression

import csoftmax

SERVICE = Path(__file__).parents[1] / "examples" / "service"
D, K = 64, 10
LOADS = [(1, 1), (1, 16), (100, 16)]  # rows, connections
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


class Estimator:
    """A LogisticRegression with as much of a Predictor's face as the service looks at."""

    feature_names = None
    n_features = D

    def __init__(self, path: str) -> None:
        model = csoftmax.Predictor(np.load(path)["coef"], np.load(path)["intercept"])
        self.coef, self.intercept, self.classes = model.coef, model.intercept, model.classes
        estimator = LogisticRegression()
        estimator.coef_, estimator.intercept_, estimator.classes_ = model.coef, model.intercept, model.classes
        estimator.n_features_in_ = D
        self.predict_proba = estimator.predict_proba


class Nothing(Estimator):
    def __init__(self, path: str) -> None:
        super().__init__(path)
        answers = {n: np.full((n, K), 1 / 3) for n in (1, 100, 1000)}  # of as many digits as others have
        self.predict_proba = lambda x: answers[len(x)]


MODELS: dict[str, Any] = {"csoftmax": csoftmax.load, "scikit-learn": Estimator, "no model": Nothing}


def application() -> Any:
    """What uvicorn serves: the example, in which another model may be loaded."""
    csoftmax.load = MODELS[os.environ["BENCH_MODEL"]]
    sys.path.insert(0, str(SERVICE))
    from app import app

    return app


def start(name: str, path: str, folder: Path) -> tuple[psutil.Process, str]:
    """The process, and its address."""
    options = ["bench_service:application", "--factory", "--http", "h11", "--port", "0", "--no-access-log"]
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(Path(__file__).parent), *options]
    environment = {**os.environ, "CSOFTMAX_MODEL": path, "BENCH_MODEL": name}
    log = folder / f"{name}.log"
    with open(log, "w") as output:
        process = psutil.Popen(command, env=environment, stderr=output)
    while not (address := re.search(r"running on (\S+)", log.read_text())):
        if process.poll() is not None:
            raise RuntimeError(log.read_text())
        time.sleep(0.1)
    return process, address[1]


def measure(process: psutil.Process, address: str, rows: int, connections: int, seconds: int) -> list[float]:
    """Requests a second, 50th and 99th percentile of the latency in ms, microseconds of CPU for a request."""
    load = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(SERVICE / "load.lua")]
    command = [*load, f"{address}/predict", "--", str(D), str(rows)]
    before = sum(process.cpu_times()[:2])
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent = sum(process.cpu_times()[:2]) - before
    if "Non-2xx" in done or "Socket errors" in done:
        raise RuntimeError(done)
    rate, requests = (float(re.search(text, done)[1]) for text in (r"Requests/sec: +([\d.]+)", r"(\d+) requests in"))
    latencies = (re.search(rf"{p}% +([\d.]+)(us|ms|s)\b", done) for p in (50, 99))
    return [rate, *(float(found[1]) * UNITS[found[2]] for found in latencies), spent / requests * 1e6]


def alone(model: Any, rows: int) -> float:
    """Microseconds of one prediction."""
    x = np.random.default_rng(0).standard_normal((rows, D))
    calls = 1000
    return min(timeit.repeat(lambda: model.predict_proba(x), number=calls, repeat=7)) / calls * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "model.npz"))
        csoftmax.Predictor(rng.standard_normal((K, D)) / 8, rng.standard_normal(K)).save(path)
        predictions = {(name, rows): alone(load(path), rows) for name, load in MODELS.items() for rows in (1, 100)}
        services = {name: start(name, path, Path(folder)) for name in MODELS}
        results: dict[tuple, list] = {}
        try:
            for _, load, name in itertools.product(range(options.rounds), LOADS, services):
                results.setdefault((load, name), []).append(measure(*services[name], *load, options.seconds))
        finally:
            for process, _ in services.values():
                process.terminate()
    columns = (
        "rows, connections",
        "model",
        "requests/s",
        "p50, ms",
        "p99, ms",
        "CPU, us",
        "prediction, us",
        "csoftmax is",
    )
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    for (load, name), rounds in sorted(results.items(), key=lambda item: LOADS.index(item[0][0])):
        rate, p50, p99, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median(
            ours[0] / theirs[0] for ours, theirs in zip(results[load, "csoftmax"], rounds, strict=True)
        )
        print(
            f"| {load[0]}, {load[1]} | {name} | {rate:.0f} | {p50:.2f} | {p99:.2f} | {cpu:.0f} | "
            f"{predictions[name, load[0]]:.3g} | {ratio:.2f} times |"
        )


if __name__ == "__main__":
    main()
