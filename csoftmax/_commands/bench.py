"""csoftmax bench: how long predictions of a model take on this machine."""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .._model import load
from .._threads import available_threads
from .._typing import Array, Float64

SIZES = (1, 10, 100, 1000, 10_000, 100_000)  # rows at once
SECONDS = 0.4  # for each size
MOST_CALLS = 200_000
LARGEST = 10**7  # numbers in a batch and its probabilities
LONGEST = 2 * 10**9  # multiplications of a batch
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "max": 100}


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Percentiles of the time of predict_proba, for one row and for batches."""
    model = load(options.model)
    d, n_classes = model.n_features, model.n_classes
    most = max(1, min(LARGEST // (d + n_classes), LONGEST // (d * n_classes)))
    # Scores must be finite, whatever the coefficients are.
    scale = np.maximum(1, np.abs(model.coef).max(axis=0))
    X = (np.random.default_rng(0).standard_normal((min(most, SIZES[-1]), d)) / scale).astype(model.dtype)
    clock = np.median(_seconds(lambda: None, 0.05))
    results = []
    for n in SIZES:
        if n <= most:
            x: Array = X[0] if n == 1 else X[:n]
            times = np.maximum(_seconds(partial(model.predict_proba, x), SECONDS) - clock, 0)
            seconds = {name: float(np.percentile(times, percent)) for name, percent in PERCENTILES.items()}
            results.append(
                {"rows": n, "calls": len(times), "seconds": seconds, "rows_per_second": n / np.median(times)}
            )
    facts = {
        "model": options.model,
        "n_features": d,
        "n_classes": n_classes,
        "dtype": model.dtype.name,
        "threads": available_threads(),
        "predict_proba": results,
    }
    return facts, _text(facts)


def _seconds(call: Callable[[], object], budget: float) -> Float64:
    """The time of each of many calls."""
    clock, times = time.perf_counter_ns, list[int]()
    call()
    stop = clock() + budget * 1e9
    while (began := clock()) < stop and len(times) < MOST_CALLS:
        call()
        times.append(clock() - began)
    return np.array(times) * 1e-9


def _text(facts: dict[str, Any]) -> str:
    lines = [
        f"{facts['model']}: {facts['n_features']} features, {facts['n_classes']} classes, {facts['dtype']}",
        f"Time of predict_proba, {facts['threads']} threads at most:",
        f"{'rows':>8}{'median':>12}{'90 %':>12}{'99 %':>12}{'slowest':>12}{'rows / s':>16}",
    ]
    for entry in facts["predict_proba"]:
        cells = "".join(f"{_duration(seconds):>12}" for seconds in entry["seconds"].values())
        lines.append(f"{entry['rows']:>8}{cells}{entry['rows_per_second']:>16,.0f}")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    """With a unit in which there are one to three digits before the point, also after rounding."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= 0.9995 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"
