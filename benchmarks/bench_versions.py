"""Two builds of csoftmax against each other: did a change make anything slower?

    python benchmarks/bench_versions.py BASE/bin/python HEAD/bin/python [--rounds 7]

Both interpreters run the same small tasks, in turns, each time in a process of its own; a table of the best times and
of their ratio is printed. Nothing fails: on a shared machine a ratio between 0.8 and 1.25 says nothing.
"""

import argparse
import json
import subprocess
import sys

TASKS = """
import json, time
import numpy as np
from scipy.sparse import random_array
from csoftmax import SoftmaxRegression, loss_gradient

rng = np.random.default_rng(0)

def data(n, d, K):
    X = rng.standard_normal((n, d))
    return X, (X @ rng.standard_normal((d, K)) + rng.gumbel(size=(n, K))).argmax(axis=1)

def best(task, repeats):
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        task()
        times.append(time.perf_counter() - began)
    return min(times)

X, y = data(20_000, 100, 10)
tall, halves = data(200_000, 20, 2)
tiny, three = data(100, 5, 3)
wide = random_array((5_000, 20_000), density=0.002, format="csr", rng=rng)
words = rng.integers(10, size=5_000)
coef, intercept = rng.standard_normal((10, 100)), rng.standard_normal(10)
served = SoftmaxRegression().fit(X, y).predictor()
row, out = X[0].copy(), np.empty(10)
single = X.astype(np.float32)
print(json.dumps({
    "one pass, 20000 x 100, K=10": best(lambda: loss_gradient(X, y, coef, intercept), 20),
    "fit, 20000 x 100, K=10": best(lambda: SoftmaxRegression().fit(X, y), 5),
    "fit, the same in float32": best(lambda: SoftmaxRegression().fit(single, y), 5),
    "fit, the same, L1": best(lambda: SoftmaxRegression(l1_ratio=1.0, C=0.01).fit(X, y), 5),
    "fit, 200000 x 20, K=2": best(lambda: SoftmaxRegression().fit(tall, halves), 5),
    "fit, 5000 x 20000 CSR, K=10": best(lambda: SoftmaxRegression().fit(wide, words), 3),
    "100 fits, 100 x 5, K=3": best(lambda: [SoftmaxRegression().fit(tiny, three) for _ in range(100)], 3),
    "10000 rows, one at a time": best(lambda: [served.predict_proba(row, out=out) for _ in range(10_000)], 5),
    "batch of 20000 x 100": best(lambda: served.predict_proba(X), 10),
}))
"""


def run(python: str) -> dict[str, float]:
    """Seconds of every task."""
    done = subprocess.run([python, "-P", "-c", TASKS], capture_output=True, text=True, check=True)
    times: dict[str, float] = json.loads(done.stdout)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("head")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rounds = []
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        rounds.append((run(options.base), run(options.head)))
    print("| task | base, ms | head, ms | head / base |\n|---|---|---|---|")
    for task in rounds[0][0]:
        base, head = (1e3 * min(pair[side][task] for pair in rounds) for side in (0, 1))
        print(f"| {task} | {base:.4g} | {head:.4g} | {head / base:.2f} |")


if __name__ == "__main__":
    main()
