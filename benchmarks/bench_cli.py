"""csoftmax fit and predict on files that grow, and the memory that they take: that of predict should not grow.

    python benchmarks/bench_cli.py --folder DIR [--rows 100000 1000000 10000000]

Writes files of 10 features, 5 decimals each, to DIR (1 GB for 10,000,000 rows of CSV), which are deleted in the end,
also after an error. Each command is a process of its own, timed from its start to its end; its memory is the largest
resident size that the system has counted (Linux). The peer of predict is what people write instead: pandas reads
chunks of 65,536 rows, csoftmax.Predictor predicts them, pandas appends to a CSV; it runs up to 1,000,000 rows. fit has
--held-out 0, and runs up to 1,000,000 rows as well.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time

FEATURES, CLASSES, STEP = 10, 3, 2**18
PEER_ROWS = 1_000_000
PROGRAM = [sys.executable, "-m", "csoftmax"]
PEER = """
import sys, numpy as np, pandas as pd, csoftmax
model, data, out = csoftmax.load(sys.argv[1]), *sys.argv[2:]
names = [f"p_{label}" for label in model.classes]
for number, part in enumerate(pd.read_csv(data, chunksize=65536)):
    X = part[list(model.feature_names)].to_numpy()
    table = pd.DataFrame(model.predict_proba(X), columns=names)
    table.insert(0, "label", model.predict(X))
    table.to_csv(out, mode="a" if number else "w", header=not number, index=False)
"""


def write(n: int) -> None:
    """n rows as data.csv and data.parquet, labels drawn from a softmax model."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import csv, parquet

    rng = np.random.default_rng(0)
    weights = rng.standard_normal((FEATURES, CLASSES))
    names = [*(f"x{j}" for j in range(FEATURES)), "label"]
    schema = pa.schema([*((name, pa.float64()) for name in names[:-1]), ("label", pa.int64())])
    with (
        csv.CSVWriter("data.csv", schema) as text,
        parquet.ParquetWriter("data.parquet", schema) as file,
    ):
        for start in range(0, n, STEP):
            X = np.round(rng.standard_normal((min(STEP, n - start), FEATURES)), 5)
            scores = X @ weights
            y = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
            batch = pa.record_batch([*map(pa.array, np.ascontiguousarray(X.T)), pa.array(y)], schema=schema)
            text.write_batch(batch)
            file.write_batch(batch)


def run(command: list[str]) -> tuple[float, float]:
    """Seconds, and the largest resident size in MB."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    began = time.perf_counter()
    process = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, quiet, 1)])
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - began
    os.close(quiet)
    if status:
        raise RuntimeError(f"{command} failed")
    return seconds, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    options = parser.parse_args()
    print("| rows | CSV, MB | command | s | rows / s | memory, MB |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        os.chdir(name)
        # In another process: the size that the system counts for a child begins with that of its parent.
        writer = multiprocessing.get_context("spawn").Pool(1)
        writer.apply(write, [10_000])
        run([*PROGRAM, "fit", "data.csv", "--target", "label", "-o", "model"])
        for n in options.rows:
            writer.apply(write, [n])
            predict = [*PROGRAM, "predict", "model", "--drop", "label"]
            commands = {
                "predict, CSV to CSV": [*predict, "data.csv", "-o", "out.csv"],
                "predict, Parquet to Parquet": [*predict, "data.parquet", "-o", "out.parquet"],
            }
            if n <= PEER_ROWS:
                commands["the first by pandas"] = [sys.executable, "-c", PEER, "model", "data.csv", "peer.csv"]
                fit = [*PROGRAM, "fit", "--target", "label", "--held-out", "0", "-o", "new"]
                commands["fit, CSV"] = [*fit, "data.csv"]
                commands["fit, Parquet"] = [*fit, "data.parquet"]
            size = os.stat("data.csv").st_size / 1e6
            for what, command in commands.items():
                seconds, memory = run(command)
                print(f"| {n} | {size:.0f} | {what} | {seconds:.2f} | {n / seconds:.3g} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()
