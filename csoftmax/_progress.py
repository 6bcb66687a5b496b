"""A line of progress on standard error: a bar of tqdm's where that is installed."""

import sys
import threading
from typing import Self


class Progress:
    """Counts steps, from whichever thread, and shows them if `verbose`."""

    def __init__(self, verbose: int, total: int, unit: str) -> None:
        self._done, self._total, self._unit = 0, total, unit
        self._lock = threading.Lock()
        self._plain = self._bar = None
        if verbose:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                self._plain = sys.stderr
            else:
                self._bar = tqdm(total=total, unit=unit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._plain is not None:
            print(file=self._plain)

    def __call__(self, line: str) -> None:
        """One more step is done; the line says something about it."""
        with self._lock:
            self._done += 1
            if self._bar is not None:
                self._bar.update()
                self._bar.set_postfix_str(line)
            if self._plain is not None:
                # Padded, to cover what the last line had more.
                print(f"\r{self._unit} {self._done}/{self._total}: {line:<60}", end="", file=self._plain, flush=True)
