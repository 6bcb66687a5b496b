"""One pool of threads per process, for compiled functions that release the GIL.

It is not concurrent.futures', whose locks an interrupt can leave locked: who waits for them next waits for ever. The
only thing that threads share here is a queue in C, which an interrupt cannot tear.
"""

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue

# A chunk is at least this many multiplications, 0.02 to 0.08 ms. In passes one after the other a second thread breaks
# even at the work of 4 chunks, and saves 30 % at that of 8; where it has to be woken, at 16.
CHUNK_WORK, THREADED_WORK = 2**20, 8 * 2**20

_jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
_helpers: list[threading.Thread] = []


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
    items, tickets = _filled(range(n_items)), _filled(range(1, n_threads))
    ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def work(worker: int) -> None:
        try:
            while (item := _next(items)) is not None:
                task(item, worker)
        finally:
            _clear(items)

    def job() -> None:
        worker = _next(tickets)
        if worker is not None:  # else the run is over: the pool was busy with another fit
            try:
                work(worker)
            except BaseException as error:
                ended.put(error)
            else:
                ended.put(None)

    try:
        for _ in range(_n_helpers(n_threads - 1)):
            _jobs.put(job)
        work(0)
    finally:
        started = n_threads - 1 - _clear(tickets)
        errors = [ended.get() for _ in range(started)]
    for error in errors:
        if error is not None:
            raise error


def _filled(numbers: Iterable[int]) -> SimpleQueue[int]:
    queue: SimpleQueue[int] = SimpleQueue()
    for number in numbers:
        queue.put(number)
    return queue


def _next(queue: SimpleQueue[int]) -> int | None:
    try:
        return queue.get_nowait()
    except Empty:
        return None


def _clear(queue: SimpleQueue[int]) -> int:
    """How many were left."""
    count = 0
    while _next(queue) is not None:
        count += 1
    return count


def _n_helpers(wanted: int) -> int:
    """How many threads there are to help, up to so many, and one for each CPU."""
    wanted = min(wanted, os.cpu_count() or 1)
    with suppress(RuntimeError):  # once the interpreter shuts down there are no new threads: the caller does it all
        while len(_helpers) < wanted:
            helper = threading.Thread(target=_help, args=(_jobs,), name=f"csoftmax_{len(_helpers)}", daemon=True)
            helper.start()
            _helpers.append(helper)
    return min(wanted, len(_helpers))


def _help(jobs: SimpleQueue[Callable[[], None]]) -> None:
    while True:
        job = jobs.get()
        job()
        del job  # it refers to the data of a fit


def _forget_helpers() -> None:
    """A forked child has the records but not the threads, and perhaps a job for one of them."""
    global _jobs, _helpers
    _jobs, _helpers = SimpleQueue(), []


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_helpers)
