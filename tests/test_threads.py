"""The pool of threads: every item once, errors after the items under way, and nothing that an interrupt can lock up."""

import _thread
import os
import random
import re
import subprocess
import sys
import threading
import time

import pytest

from csoftmax import _kernels
from csoftmax._threads import run


@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
@pytest.mark.parametrize("n_items", [0, 1, 2, 100])
def test_every_item_is_taken_once(n_items, n_threads):
    taken, workers = [], set()

    def task(item, worker):
        taken.append(item)
        workers.add(worker)
        time.sleep(1e-4)

    run(task, n_items, n_threads)
    assert sorted(taken) == list(range(n_items))
    assert workers <= set(range(max(1, min(n_items, n_threads))))


@pytest.mark.parametrize("where", ["the caller", "a helper"])
def test_an_error_ends_the_run_after_the_items_under_way(where):
    both, began, ended = threading.Barrier(2), [], []

    def task(item, worker):
        began.append(item)
        both.wait(10)
        if (worker == 0) == (where == "the caller"):
            raise ValueError(f"item {item}")
        time.sleep(0.05)
        ended.append(item)

    with pytest.raises(ValueError, match="item"):
        run(task, 100, 2)
    assert len(began) == 2
    assert len(ended) == 1


def test_runs_within_runs_do_not_wait_for_each_other():
    count = []
    run(lambda item, worker: run(lambda *inner: count.append(inner), 5, 4), 20, 4)
    assert len(count) == 100


def interrupts():
    """Runs that are interrupted wherever they are; the last one is left in peace."""
    rng, n_interrupted = random.Random(0), 0

    def interrupt(wait):
        time.sleep(wait)
        _thread.interrupt_main()

    for _ in range(400):
        timer = threading.Thread(target=interrupt, args=(rng.random() * 4e-4,))
        try:
            timer.start()
            while True:
                run(lambda item, worker: sum(range(50)), 8, 4)
        except KeyboardInterrupt:
            n_interrupted += 1
        try:
            timer.join()
        except KeyboardInterrupt:
            n_interrupted += 1
    done = []
    run(lambda item, worker: done.append(item), 8, 4)
    print(n_interrupted, sorted(done))


def test_interrupts_at_any_moment_lock_nothing():
    code = "import sys; sys.path.insert(0, sys.argv[1]); from test_threads import interrupts; interrupts()"
    folder = __file__.rpartition("test_threads")[0]
    command = [sys.executable, "-P", "-c", code, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "400 [0, 1, 2, 3, 4, 5, 6, 7]\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tells the time of each thread in /proc")
@pytest.mark.skipif(_kernels.vector_bytes() < 32, reason="without wide vectors large products are left to BLAS")
@pytest.mark.parametrize(
    ("size", "options", "model"),
    [
        ((4000, 300, 10), "", "'(gram|classes)'"),
        ((1500, 2000, 4), "", "'diagonal'"),
        ((4000, 100, 5), "l1_ratio=1.0, C=0.1", "L-BFGS over the diagonal"),
        ((4000, 30, 3), "l1_ratio=1.0, C=0.1", "the Hessian"),
    ],
)
def test_a_fit_in_one_thread_wakes_no_threads_of_blas(size, options, model):
    """They would spin for 25 ms each time, beside the threads of the next passes."""
    code = f"""
import os, time
from pathlib import Path
import numpy as np
from scipy.linalg.blas import dgemm
from csoftmax import SoftmaxRegression

def ticks():
    stats = [path.read_text().rpartition(")")[2].split() for path in Path("/proc/self/task").glob("*/stat")
             if path.parent.name != str(os.getpid())]
    return len(stats), sum(int(stat[11]) + int(stat[12]) for stat in stats)

rng = np.random.default_rng(0)
n, d, K = {size}
X = rng.standard_normal((n, d))
y = (3 / d**0.5 * np.einsum("ij,jk->ik", X, rng.standard_normal((d, K))) + rng.gumbel(size=(n, K))).argmax(axis=1)
time.sleep(0.3)  # until they sleep again after the imports
threads, before = ticks()
model = SoftmaxRegression(n_threads=1, {options}).fit(X, y)
time.sleep(0.1)
print(threads, ticks()[1] - before)
A = rng.standard_normal((1000, 1000))
for product in (np.matmul, lambda A, B: dgemm(1, A, B)):
    before = ticks()[1]
    product(A, A)
    time.sleep(0.1)
    print(ticks()[1] - before)
print(model.fit_report_.reason_chosen)
"""
    command, environment = [sys.executable, "-P", "-c", code], os.environ | {"OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=120)
    threads, in_fit, of_numpy, of_scipy, *reason = done.stdout.split(maxsplit=4)
    assert re.search(model, reason[0])
    if "0" in (threads, of_numpy, of_scipy):
        pytest.skip("these libraries of BLAS have no threads that could be seen")
    assert in_fit == "0"
