"""Choosing C by cross-validation, from raw data, against scikit-learn's LogisticRegressionCV with each of its solvers.

    python benchmarks/bench_cv.py [--quick] [--only TEXT] [--repeats 3] [--limit 120]

Ten Cs from 1e-4 to 1e4 on five stratified folds, scored by accuracy, and the refit. csoftmax runs with default
parameters. Equal accuracy means the same distance from the optimum, not the same `tol`: J of the 50 fits of the folds
is computed from `coefs_paths_` and compared with the lowest J known for that fold and C, among them csoftmax's with
tol=1e-12; so is J of the refit. A run counts when (J - J*) / max(J*, 1e-3) is at most 1e-6 for the refit and in the
mean of the 50 fits. For each solver of scikit-learn the loosest tol of 1e-4, 1e-6, 1e-8 and 1e-10 that reaches that is
taken, with max_iter out of the way, and the faster of n_jobs=-1 (folds in parallel) and n_jobs=None (BLAS threads).
Each run is a process of its own, timed after one on a toy problem (imports, pools of threads and processes); medians
are taken. A solver that does not get there within the limit is shown as > limit.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import datasets
import numpy as np
from bench_fit import GAPS, TOLERANCES, objective
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import StratifiedKFold

CS = np.logspace(-4, 4, 10)
FOLDS = 5
SOLVERS = ("lbfgs", "newton-cg", "newton-cholesky")
SETS = {
    "iris": lambda: load_iris(return_X_y=True),
    "digits": lambda: load_digits(return_X_y=True),
    "20000 x 100, K=10": datasets.redundant,
    "20000 x 100, K=10, Gaussian": datasets.gaussian,
    "20000 x 50, K=7, scales of all sizes": datasets.spread_scales,
    "100000 x 20, K=2": datasets.two_classes,
}


def work(task: dict[str, object]) -> dict[str, object]:
    """One run, in a process of its own; leaves the coefficients in a file."""
    folder = Path(str(task["folder"]))
    X, y = (np.load(folder / f"{part}.npy") for part in "Xy")
    solver, tol = str(task["solver"]), task["tol"]
    if solver == "csoftmax":
        from csoftmax import SoftmaxRegressionCV

        options = {} if tol is None else {"tol": tol, "max_iter": 100_000}
        model = SoftmaxRegressionCV(Cs=CS, cv=FOLDS, **options)
    else:
        from sklearn.linear_model import LogisticRegressionCV

        model = LogisticRegressionCV(
            Cs=CS, cv=FOLDS, solver=solver, tol=tol, max_iter=10**6, n_jobs=task["n_jobs"], l1_ratios=(0.0,),
            scoring="accuracy", use_legacy_attributes=False,
        )  # fmt: skip
    rng = np.random.default_rng(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(rng.standard_normal((60, 3)), np.arange(60) % len(np.unique(y)))
        caught.clear()
        began = time.perf_counter()
        model.fit(X, y)
        seconds = time.perf_counter() - began
    paths = model.coefs_paths_[:, 0]
    np.savez(folder / "fitted.npz", paths=paths, coef=model.coef_, intercept=model.intercept_)
    return {
        "seconds": seconds,
        "C": float(model.C_),
        "score": float(model.scores_.mean(axis=0).max()),
        "n_iter": int(model.n_iter_.sum()),
        "warnings": len({str(w.message)[:40] for w in caught}),
    }


def run(task: dict[str, object], limit: float) -> dict[str, object] | None:
    """The result of one task with the J of all its fits, or None if it takes longer than the limit or fails."""
    command = [sys.executable, __file__, "--task", json.dumps(task)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=limit + 15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # it may have workers of its own
        process.communicate()
        return None
    if process.returncode:
        print(err[-300:], file=sys.stderr)
        return None
    result: dict[str, object] = json.loads(out.splitlines()[-1])
    return {**result, **losses(task, float(str(result["C"])))} if float(str(result["seconds"])) <= limit else None


def losses(task: dict[str, object], C: float) -> dict[str, object]:
    """J of the refit and of every fit of the folds."""
    folder = Path(str(task["folder"]))
    X, y = (np.load(folder / f"{part}.npy") for part in "Xy")
    fitted = np.load(folder / "fitted.npz")
    of_folds = np.empty((FOLDS, len(CS)))
    for fold, (train, _) in enumerate(StratifiedKFold(FOLDS).split(X, y)):
        part, labels = X[train], y[train]
        for i, rows in enumerate(fitted["paths"][fold]):
            of_folds[fold, i] = objective(part, labels, rows[:, :-1], rows[:, -1], CS[i], 0.0, False)
    return {"J": objective(X, y, fitted["coef"], fitted["intercept"], C, 0.0, False), "J of folds": of_folds}


def gaps(result: dict[str, object], best: dict[str, object]) -> tuple[float, float, float]:
    """Relative gap of the refit, and the mean and the largest of the folds' fits."""
    of_folds = (result["J of folds"] - best["J of folds"]) / np.maximum(best["J of folds"], 1e-3)
    lowest = best["J"].get(result["C"], np.inf)
    return (result["J"] - lowest) / max(lowest, 1e-3), float(of_folds.mean()), float(of_folds.max())


def lowest(results: list[dict[str, object] | None]) -> dict[str, object]:
    """The lowest J known: of the refit by its C, and of each fit of the folds."""
    done = [result for result in results if result]
    refits: dict[object, float] = {}
    for result in done:
        refits[result["C"]] = min(float(str(result["J"])), refits.get(result["C"], np.inf))
    return {"J": refits, "J of folds": np.min([result["J of folds"] for result in done], axis=0)}


def reaches(result: dict[str, object] | None, best: dict[str, object]) -> bool:
    return result is not None and max(gaps(result, best)[:2]) <= GAPS["float64"]


def compare(name: str, folder: Path, repeats: int, limit: float) -> None:
    """Print one row for each solver."""
    ours = {"folder": str(folder), "solver": "csoftmax", "tol": None}
    tight = run({**ours, "tol": 1e-12}, 10 * limit)
    mine = [run(ours, limit) for _ in range(repeats)]
    seconds = statistics.median(float(str(result["seconds"])) for result in mine if result)
    tried: dict[str, list[dict[str, object] | None]] = {}
    tasks = {}
    for solver in SOLVERS:
        tried[solver] = []
        for tol in TOLERANCES:
            tasks[solver] = {"folder": str(folder), "solver": solver, "tol": tol, "n_jobs": -1}
            tried[solver].append(run(tasks[solver], limit))
            if tried[solver][-1] is None or reaches(tried[solver][-1], lowest([tight, *mine, tried[solver][-1]])):
                break
    best = lowest([tight, *mine, *(result for results in tried.values() for result in results)])
    show(name, "csoftmax", mine[0], seconds, None, best)
    for solver, results in tried.items():
        last = results[-1]
        if not reaches(last, best):
            print(f"| {name} | {solver} | > {limit:g} | > {limit / seconds:.1f} | | | | | |", flush=True)
            continue
        task = tasks[solver]
        times = {-1: [float(str(last["seconds"]))], None: []}
        for n_jobs, measured in times.items():
            while len(measured) < repeats and sum(measured) < 20:
                again = run({**task, "n_jobs": n_jobs}, limit)
                if again is None:
                    break
                measured.append(float(str(again["seconds"])))
        fastest = min(statistics.median(measured) for measured in times.values() if measured)
        show(name, f"{solver}, tol={task['tol']:g}", last, fastest, seconds, best)


def show(
    name: str, solver: str, result: dict[str, object], seconds: float, ours: float | None, best: dict[str, object]
) -> None:
    ratio = "" if ours is None else f"{seconds / ours:.1f}"
    refit, mean, largest = gaps(result, best)
    print(
        f"| {name} | {solver} | {seconds:.3g} | {ratio} | {result['C']:.3g} | {result['score']:.4f} "
        f"| {refit:.0e} | {mean:.0e} | {largest:.0e} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="iris and digits only, 20 s for each run at most")
    parser.add_argument("--only", default="", help="only sets whose name holds this")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for one run")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(work(json.loads(options.task))))
        return
    limit = min(20.0, options.limit) if options.quick else options.limit
    print(
        "| set | solver | seconds | times csoftmax | C | best mean score | gap of the refit | mean gap | largest gap |"
    )
    print("|---" * 9 + "|")
    for name in ("iris", "digits") if options.quick else SETS:
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            X, y = SETS[name]()
            np.save(Path(folder) / "X.npy", np.ascontiguousarray(X, np.float64))
            np.save(Path(folder) / "y.npy", y)
            compare(name, Path(folder), options.repeats, limit)


if __name__ == "__main__":
    main()
