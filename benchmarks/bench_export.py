"""Nanoseconds for one row in C: what csoftmax.export.to_c writes against what m2cgen writes for the same coefficients.

    python benchmarks/bench_export.py [--rounds 201]

m2cgen's function gives raw scores, of two classes the one that is not 0; a loop in the driver makes a softmax of them.
Of csoftmax there are the scores, the number of the most probable class and the probabilities. The callers are compiled
apart from the models, so that nothing is inlined; functions are aligned, as for a few nanoseconds it matters where they
begin. Medians of rounds in which the functions take turns, over 16 rows; then how long the compiler took for either
model, and the size of its object file.
"""

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import m2cgen
import numpy as np
from sklearn.linear_model import LogisticRegression

from csoftmax import Predictor
from csoftmax.export import to_c

SHAPES = [(4, 3), (30, 2), (64, 10), (784, 10)]
COMPILERS = ["gcc", "clang"]
LEVELS = ["-O2", "-O3"]

DRIVER = """
#define _POSIX_C_SOURCE 199309L
#include <math.h>
#include <stdio.h>
#include <time.h>
#include "model.h"

#if N_CLASSES == 2
double score(double *x);
#define THEIRS (out[0] = 0, out[1] = score((double *)x))
#else
void score(double *x, double *out);
#define THEIRS score((double *)x, out)
#endif

enum { ROWS = 16 };
static double rows[ROWS][model_n_features], out[model_n_classes];

static void theirs(const double *x) { THEIRS; }
static void theirs_and_softmax(const double *x)
{
    double top, sum = 0;
    THEIRS;
    top = out[0];
    for (int k = 1; k < model_n_classes; k++)
        if (out[k] > top)
            top = out[k];
    for (int k = 0; k < model_n_classes; k++)
        sum += out[k] = exp(out[k] - top);
    for (int k = 0; k < model_n_classes; k++)
        out[k] /= sum;
}
static void scores(const double *x) { model_scores(x, out); }
static void number(const double *x) { out[0] = model_class(x); }
static void probabilities(const double *x) { model_probabilities(x, out); }

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(void)
{
    void (*const functions[])(const double *) = {theirs, theirs_and_softmax, scores, number, probabilities};
    const int calls = 16 * (1 + 20000 / (model_n_features * model_n_classes));
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < model_n_features; j++)
            rows[i][j] = (i * 7 + j * 13) % 17 / 8.5 - 1;
    for (int round = 0; round < ROUNDS; round++)
        for (int f = 0; f < 5; f++) {
            double began;
            functions[f](rows[0]);
            began = now();
            for (int i = 0; i < calls; i++)
                functions[f](rows[i % ROWS]);
            printf("%g%c", (now() - began) / calls, f < 4 ? ' ' : '\\n');
        }
    return 0;
}
"""


def measure(folder: Path, compiler: str, options: list[str], rounds: int) -> tuple[np.ndarray, list[str]]:
    """Medians of the functions in the driver; seconds to compile, and kilobytes, of both models."""
    seconds, sizes = [], []
    for name in ("theirs", "model"):
        began = time.perf_counter()
        subprocess.run([compiler, *options, "-c", f"{name}.c"], cwd=folder, check=True)
        seconds.append(f"{time.perf_counter() - began:.2f}")
        sizes.append(f"{os.path.getsize(folder / f'{name}.o') / 1e3:.0f}")
    command = [compiler, *options, f"-DROUNDS={rounds}", "driver.c", "model.o", "theirs.o", "-o", "driver", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    done = subprocess.run([folder / "driver"], capture_output=True, text=True, check=True)
    times = np.median(np.array(done.stdout.split(), float).reshape(rounds, -1), axis=0)
    return times, [", ".join(seconds), ", ".join(sizes)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=201)
    rounds = parser.parse_args().rounds
    sys.setrecursionlimit(20_000)  # m2cgen's expressions are as deep as rows are long
    print(
        "| d, K | compiler | m2cgen: scores | and softmax | csoftmax: scores | class | probabilities "
        "| m2cgen / csoftmax: scores | probabilities | compile, s: m2cgen, csoftmax | object, KB |"
    )
    print("|---" * 11 + "|")
    for d, n_classes in SHAPES:
        rng = np.random.default_rng(0)
        columns = 1 if n_classes == 2 else n_classes
        model = LogisticRegression()
        model.coef_, model.intercept_ = rng.standard_normal((columns, d)) / 8, rng.standard_normal(columns)
        model.classes_ = np.arange(n_classes)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            to_c(Predictor(model.coef_, model.intercept_), folder, "model")
            (folder / "theirs.c").write_text(m2cgen.export_to_c(model))
            (folder / "driver.c").write_text(DRIVER)
            for compiler, level in itertools.product(filter(shutil.which, COMPILERS), LEVELS):
                options = ["-std=c99", level, "-falign-functions=64", f"-DN_CLASSES={n_classes}"]
                times, built = measure(folder, compiler, options, rounds)
                cells = [f"{value:.3g}" for value in (*times, times[0] / times[2], times[1] / times[4])]
                print("|", " | ".join([f"{d}, {n_classes}", f"{compiler} {level}", *cells, *built]), "|", flush=True)


if __name__ == "__main__":
    main()
