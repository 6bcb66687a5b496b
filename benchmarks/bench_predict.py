"""Latency of one row and time of batches, through Python, against the ways in which such models are served today.

    python benchmarks/bench_predict.py [--rounds 200] [--png bench_predict.png]

One row: 50th, 99th and 99.9th percentile of single calls of predict_proba, each timed by itself less the time of an
empty call, in bursts of 50 calls per candidate that take turns. Batches: medians, the candidates take turns, with 1 and
2 threads. Every candidate gives all probabilities and starts from what it takes fastest: an array of the model's dtype
(scikit-learn and daal4py: with one row; PyTorch: a tensor), the same row again and again, so that data and model are as
near to the processor as they will be. ONNX Runtime runs a graph of Gemm and Softmax, or Sigmoid for two classes;
PyTorch a Linear layer and softmax in inference mode.
"""

import argparse
import gc
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import daal4py
import numpy as np
import onnx
import onnxruntime
import sklearn
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from csoftmax import Predictor

SHAPES = [(4, 3), (30, 2), (64, 10), (784, 10), (512, 100), (768, 1000)]
BATCHES = [(n, *shape) for shape in ((64, 10), (784, 10)) for n in (100, 10_000, 100_000)] + [(1000, 768, 1000)]
BURST = 50
PEERS = ("numpy", "scikit-learn", "the same, assume_finite", "ONNX Runtime", "daal4py", "PyTorch")

Call = Callable[[], object]


def onnx_session(coef: np.ndarray, intercept: np.ndarray, n_threads: int) -> onnxruntime.InferenceSession:
    kind = TensorProto.DOUBLE if coef.dtype == np.float64 else TensorProto.FLOAT
    last = "Sigmoid" if len(coef) == 1 else "Softmax"
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["z"], transB=1), helper.make_node(last, ["z"], ["p"])],
        "model",
        [helper.make_tensor_value_info("x", kind, [None, coef.shape[1]])],
        [helper.make_tensor_value_info("p", kind, [None, len(coef)])],
        [numpy_helper.from_array(coef, "w"), numpy_helper.from_array(intercept, "b")],
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def candidates(d: int, n_classes: int, dtype: type, n: int | None, n_threads: int) -> dict[str, Call]:
    """Functions of no arguments that give the probabilities of one row (n is None) or of a batch."""
    rng = np.random.default_rng(0)
    rows = 1 if n_classes == 2 else n_classes
    coef, intercept = rng.standard_normal((rows, d)).astype(dtype) / 8, rng.standard_normal(rows).astype(dtype)
    X = rng.standard_normal((n or 1, d)).astype(dtype)
    x = X if n else X[0]

    model = Predictor(coef, intercept)
    out = np.empty((n, n_classes) if n else n_classes, dtype)
    estimator = LogisticRegression()
    estimator.coef_, estimator.intercept_, estimator.classes_ = coef, intercept, np.arange(n_classes)
    estimator.n_features_in_ = d
    session = onnx_session(coef, intercept, n_threads)
    layer = torch.nn.Linear(d, rows, dtype=torch.float64 if dtype is np.float64 else torch.float32)
    with torch.no_grad():
        layer.weight[:] = torch.from_numpy(coef)
        layer.bias[:] = torch.from_numpy(intercept)
    tensor, transposed, feed = torch.from_numpy(x), np.ascontiguousarray(coef.T), {"x": X}

    def by_hand() -> np.ndarray:
        z = x @ transposed + intercept
        if rows == 1:
            p = 1 / (1 + np.exp(-z))
            return np.concatenate([1 - p, p], axis=-1)
        e = np.exp(z - z.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    def assume_finite() -> np.ndarray:
        with sklearn.config_context(assume_finite=True):
            return estimator.predict_proba(X)

    @torch.inference_mode()
    def pytorch() -> torch.Tensor:
        return torch.sigmoid(layer(tensor)) if rows == 1 else torch.softmax(layer(tensor), -1)

    # daal4py's builder copies the coefficients of an estimator that it believes to be fitted.
    built = daal4py.mb.convert_model(estimator)
    calls: dict[str, Call] = {
        "csoftmax": (lambda: model.predict_proba(x, n_threads=n_threads)) if n else lambda: model.predict_proba(x),
        "csoftmax, out=": lambda: model.predict_proba(x, out),
        "numpy": by_hand,
        "scikit-learn": lambda: estimator.predict_proba(X),
        "the same, assume_finite": assume_finite,
        "ONNX Runtime": lambda: session.run(None, feed),
        "daal4py": lambda: built.predict_proba(X),
        "PyTorch": pytorch,
    }
    expected = estimator.predict_proba(X).reshape(out.shape)
    for name in ("csoftmax", "numpy", "daal4py"):
        assert np.allclose(np.reshape(calls[name](), out.shape), expected, atol=1e-4), name
    theirs = (session.run(None, feed)[0], pytorch().numpy())
    for p in theirs:
        assert np.allclose(p.reshape((*out.shape[:-1], rows)), expected[..., -rows:], atol=1e-4)
    return calls


def nothing() -> None:
    pass


def one_row(rounds: int) -> list[tuple]:
    results = []
    for dtype, (d, n_classes) in itertools.product((np.float64, np.float32), SHAPES):
        calls = {"empty call": nothing, **candidates(d, n_classes, dtype, None, 1)}
        times: dict[str, list[int]] = {name: [] for name in calls}
        clock = time.perf_counter_ns
        for _ in range(rounds):
            for name, call in calls.items():
                record = times[name].append
                call()
                for _ in range(BURST):
                    began = clock()
                    call()
                    record(clock() - began)
        empty = statistics.median(times.pop("empty call"))
        quantiles = {name: np.quantile(times[name], [0.5, 0.99, 0.999]) - empty for name in times}
        results.append((np.dtype(dtype).name, d, n_classes, quantiles))
    return results


def show_rows(results: list[tuple]) -> None:
    names = list(results[0][3])
    print("p50 / p99 / p99.9 of one row, microseconds\n")
    print("| d, K | dtype | " + " | ".join(names) + " | fastest peer / csoftmax | scikit-learn / csoftmax |")
    print("|---" * (len(names) + 4) + "|")
    for dtype, d, n_classes, quantiles in results:
        cells = " | ".join(" / ".join(f"{value / 1e3:.3g}" for value in quantiles[name]) for name in names)
        ours, peers = quantiles["csoftmax"][0], [quantiles[name][0] for name in PEERS]
        ratio = f"{min(peers) / ours:.1f} | {quantiles['scikit-learn'][0] / ours:.0f}"
        print(f"| {d}, {n_classes} | {dtype} | {cells} | {ratio} |", flush=True)


def show_batches(repeats: int) -> None:
    print("\nBatches, milliseconds\n")
    print("| n, d, K | dtype | threads | csoftmax | " + " | ".join(PEERS) + " | fastest peer / csoftmax |")
    print("|---" * (len(PEERS) + 5) + "|")
    for dtype, (n, d, n_classes), n_threads in itertools.product((np.float64, np.float32), BATCHES, (1, 2)):
        torch.set_num_threads(n_threads)
        with threadpool_limits(n_threads):
            calls = candidates(d, n_classes, dtype, n, n_threads)
            del calls["csoftmax, out="]
            times: dict[str, list[float]] = {name: [] for name in calls}
            for _, (name, call) in itertools.product(range(repeats), calls.items()):
                time.sleep(0.02 if n_threads > 1 else 0)  # until the threads of the one before have gone to sleep
                call()
                began = time.perf_counter()
                call()
                times[name].append((time.perf_counter() - began) * 1e3)
        medians = {name: statistics.median(times[name]) for name in times}
        best = min(medians[name] for name in PEERS) / medians["csoftmax"]
        cells = " | ".join(f"{value:.3g}" for value in medians.values())
        print(f"| {n}, {d}, {n_classes} | {np.dtype(dtype)} | {n_threads} | {cells} | {best:.2f} |", flush=True)


def cold_start(repeats: int) -> None:
    """From the start of an interpreter to the first answer of a model in a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model")
        Predictor(np.ones((10, 64)), np.zeros(10)).save(path)
        codes = (
            "import numpy",
            f"import numpy, csoftmax; csoftmax.load({str(path)!r}).predict_proba(numpy.zeros(64))",
        )
        rounds = []
        for _ in range(repeats):
            row = []
            for code in codes:
                began = time.perf_counter()
                subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
                row.append((time.perf_counter() - began) * 1e3)
            rounds.append(row)
    plain, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(row[1] / row[0] for row in rounds)
    print(
        f"\nCold start: import numpy {plain:.0f} ms, to the first answer {ours:.0f} ms, ratio {ratio:.2f}", flush=True
    )


def draw(results: list[tuple], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(11, 4.5), layout="constrained")
    names = [name for name in results[0][3] if name != "csoftmax, out="]
    shown = [row for row in results if row[0] == "float64"]
    for place, name in enumerate(names):
        heights = [row[3][name][0] / 1e3 for row in shown]
        axis.bar(np.arange(len(shown)) + (place - len(names) / 2) * 0.12, heights, 0.12, label=name)
    axis.set(yscale="log", ylabel="microseconds", title="One row, float64, median")
    axis.set_xticks(range(len(shown)), [f"d={d}, K={n_classes}" for _, d, n_classes, _ in shown])
    axis.legend(ncols=4, fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--png", default="bench_predict.png")
    options = parser.parse_args()
    torch.set_num_threads(1)
    gc.disable()
    with threadpool_limits(1):
        results = one_row(options.rounds)
    show_rows(results)
    cold_start(25)
    draw(results, options.png)
    show_batches(options.repeats)


if __name__ == "__main__":
    main()
