"""One pool of threads per process, for compiled functions that release the GIL."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

# A chunk is at least this many multiplications, 0.02 to 0.08 ms. In passes one after the other a second thread breaks
# even at the work of 4 chunks, and saves 30 % at that of 8; where it has to be woken, at 16.
CHUNK_WORK, THREADED_WORK = 2**20, 8 * 2**20

_pool: "ThreadPoolExecutor | None" = None
_pool_lock = threading.Lock()


def available_threads() -> int:
    """CPUs this process may use; the environment variable CSOFTMAX_NUM_THREADS can lower the number."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("CSOFTMAX_NUM_THREADS", "").strip()
    if not limit:
        return cpus
    if not limit.isdecimal() or int(limit) < 1:
        raise ValueError(f"the environment variable CSOFTMAX_NUM_THREADS is {limit!r}: expected a whole number >= 1")
    return min(cpus, int(limit))


def run(task: Callable[[int, int], None], n_items: int, n_threads: int) -> None:
    """Call task(item, worker) once for each item; worker, below n_threads, is a number no other running call has.

    The calling thread is worker 0. Which worker takes which item is left to chance, so a task must store what it
    finds by item. An exception, KeyboardInterrupt included, ends the run after the items under way.
    """
    n_threads = min(n_threads, n_items)
    if n_threads <= 1:
        for item in range(n_items):
            task(item, 0)
        return
    items = iter(range(n_items))
    lock = threading.Lock()

    def take(drain: bool = False) -> int | None:
        nonlocal items
        with lock:
            if drain:
                items = iter(())
            return next(items, None)

    def work(worker: int) -> None:
        try:
            while (item := take()) is not None:
                task(item, worker)
        finally:
            take(drain=True)

    from concurrent.futures import wait  # not needed by what serves one row, which is to start quickly

    futures: list[Future[None]] = []
    with suppress(RuntimeError):  # a pool takes no work once the interpreter shuts down: the caller does it all
        futures.extend(_get_pool().submit(work, worker) for worker in range(1, n_threads))
    try:
        work(0)
    finally:
        # A helper that has not started has nothing left to do: the pool may be busy with another fit.
        started = [future for future in futures if not future.cancel()]
        wait(started)
    for future in started:
        future.result()


def _get_pool() -> "ThreadPoolExecutor":
    from concurrent.futures import ThreadPoolExecutor

    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="csoftmax")
        return _pool


def _forget_pool() -> None:
    """A forked child has the pool's records but not its threads, and perhaps a lock held by one of them."""
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
