"""Matrices that lie in memory-mapped files: are their rows still there, and copies of some of them at a time.

A file that was cut short while it is mapped has pages that cannot be read: who touches one is ended by the system
(SIGBUS). So the length of the file is compared with what is to be read before each part of the rows. A file that
shrinks while such a part is being read is beyond any check.
"""

import math
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _sums
from ._typing import Array, DType, Places, Rows

if TYPE_CHECKING:
    from typing_extensions import TypeIs  # of which only type checkers know

BLOCK_BYTES = 2**22  # of rows that are copied at once
TOUCHED = 4096  # one byte of so many is read before kernels come: no page is smaller
SUM_ROWS = 1024  # after a multiple of them, sums in float32 begin anew: see `_core.make_a_sum`


class _Place(NamedTuple):
    """A map, the bytes of the file before it, the bytes of the map before an array, and the file, if it is known."""

    file: mmap.mmap
    before: int
    begin: int
    path: Path | None

    @property
    def name(self) -> str:
        """The file in words."""
        return f"the file {self.path}" if self.path else "its file"


class Mapped:
    """Rows of a dense matrix in a file, all or some, perhaps in another dtype; read, checked, where they are asked for.

    Of all rows in their own dtype an item is a view, otherwise a copy.
    """

    ndim = 2

    def __init__(self, X: Array, rows: Places | None = None, dtype: DType | None = None) -> None:
        self._X, self._rows = X, rows
        self.dtype = X.dtype if dtype is None else dtype
        self.shape = len(X) if rows is None else len(rows), X.shape[1]
        self.size = self.shape[0] * self.shape[1]
        self._place = _find(X)
        # A system that reads far ahead by itself does it better. Pages that are in memory need no reading ahead, but to
        # find that out takes a tenth of a pass.
        far = self._place is not None and _reads_far_ahead(self._place.path)
        self._to_read = 0 if far else math.inf if X.nbytes > _memory() / 2 else X.nbytes

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: slice | Places) -> Array:
        if self._rows is not None:
            which = self._rows[which]
        first, last = span(which, len(self._X))
        if first < last and (fault := _missing(self._X, last, self._place)):
            raise OSError(f"rows {first} to {last - 1} of X cannot be read: they {fault}")
        if not isinstance(which, slice):
            return self._X[which].astype(self.dtype, copy=False)
        self._read_ahead(first, last)
        rows = self._X[which]
        if rows.flags.c_contiguous:
            # Kernels fetch lines before they need them, and each such fetch from a page that the process has not
            # touched yet is a search in vain: it made passes over a file that is not in memory two to five times as
            # long.
            _sums.touch(rows.reshape(-1).view(np.uint8), TOUCHED)
        return rows.astype(self.dtype, copy=False)

    def _read_ahead(self, first: int, last: int) -> None:
        """Have the system read as many rows as these, those behind them, while these are worked on."""
        if self._place is None or self._to_read <= 0 or not hasattr(mmap, "MADV_WILLNEED"):
            return
        length = (last - first) * self._X.strides[0]
        self._to_read -= length
        begin = (self._place.begin + last * self._X.strides[0]) // mmap.PAGESIZE * mmap.PAGESIZE
        if begin + length <= len(self._place.file):
            self._place.file.madvise(mmap.MADV_WILLNEED, begin, length)

    def astype(self, dtype: Any) -> "Mapped":
        """The same rows in another dtype."""
        return Mapped(self._X, self._rows, np.dtype(dtype))

    def take(self, rows: Places) -> "Mapped":
        """Some of the rows."""
        return Mapped(self._X, rows if self._rows is None else self._rows[rows], self.dtype)

    def step(self, multiple: int) -> int:
        """Rows of a part: a multiple of so many, near the size of a block."""
        row: int = self.shape[1] * self.dtype.itemsize
        return max(1, BLOCK_BYTES // (row * multiple)) * multiple


def _memory() -> float:
    """Bytes of memory of this machine, infinite where it does not tell."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf


def _reads_far_ahead(path: Path | None, blocks: Path = Path("/sys/dev/block")) -> bool:
    """Whether the system by itself reads a block or more ahead of who goes through this file; Linux tells."""
    try:
        device = os.stat(path or "").st_dev
        own = (blocks / f"{os.major(device)}:{os.minor(device)}").resolve()
        setting = next(file for each in (own, own.parent) if (file := each / "queue" / "read_ahead_kb").exists())
        return int(setting.read_text()) * 1024 >= BLOCK_BYTES
    except (OSError, AttributeError, StopIteration, ValueError):
        return False


def readable(X: Rows, which: slice | Places) -> Any:
    """X[which], after a look at its file."""
    if not isinstance(X, Mapped) and is_mapped(X):
        check_file(X, *span(which, X.shape[0]))
    return X[which]


def dense_parts(X: "Array | Mapped", start: int, stop: int) -> Iterator[tuple[slice, Array]]:
    """Rows from start to stop: at once if they are in memory, else part by part, as slices and values."""
    step = X.step(1) if isinstance(X, Mapped) else max(1, stop - start)
    for first in range(start, stop, step):
        rows = slice(first, min(first + step, stop))
        yield rows, X[rows]


def span(which: slice | Places, n: int) -> tuple[int, int]:
    """The first of some of n rows, and the one after the last."""
    if isinstance(which, slice):
        return which.indices(n)[:2]
    return (int(which.min()), int(which.max()) + 1) if len(which) else (0, 0)


def is_dense(X: Rows) -> "TypeIs[Array]":
    """Whether X is an array, in memory or not, and no sparse matrix."""
    return isinstance(X, np.ndarray | Mapped)


def n_entries(X: Rows) -> int:
    """Values that are stored."""
    return int(X.size if is_dense(X) else X.nnz)


def is_mapped(X: Rows) -> bool:
    """Whether X, or one of the arrays of a CSR matrix, lies in a file."""
    if isinstance(X, Mapped):
        return True
    arrays = [X] if isinstance(X, np.ndarray) else [X.data, X.indices, X.indptr]
    return any(array.base is not None and _find(array) is not None for array in arrays)


def check_file(X: Rows, start: int, stop: int, what: str = "rows", name: str = "X") -> None:
    """Raise if the file of a mapped X, or of an array of a mapped CSR matrix, ends before the end of these rows."""
    if isinstance(X, np.ndarray):
        if start < stop and (fault := _missing(X, stop, _find(X))):
            raise OSError(f"{what} {start} to {stop - 1} of {name} cannot be read: they {fault}")
        return
    fault = _missing(X.indptr, stop + 1, _find(X.indptr))
    for array in (X.indices, X.data):
        fault = fault or _missing(array, int(X.indptr[stop]), _find(array))
    if fault:
        raise OSError(f"{what} {start} to {stop - 1} of {name} cannot be read: they {fault}")


def _missing(array: Array, stop: int, place: _Place | None) -> str:
    """What is wrong, in words, if the array lies in a file that ends before its first `stop` items do."""
    if place is None:
        return ""
    try:
        size = place.file.size()
    except (OSError, ValueError):  # the map has no file, or does not know it any more
        return ""
    end = place.before + place.begin + stop * array.strides[0]
    if end <= size:
        return ""
    return (
        f"end at byte {end} of {place.name}, which was cut down to {size} bytes since it was mapped; "
        f"write it anew, map it again and start again"
    )


def _find(array: Array) -> _Place | None:
    """Where the array lies, if it is a view of a map."""
    before, path = 0, None
    holder: Any = array
    while holder is not None and not isinstance(holder, mmap.mmap):
        if isinstance(holder, np.memmap) and holder.offset is not None:  # which copies have not
            before = holder.offset - holder.offset % mmap.ALLOCATIONGRANULARITY
            path = Path(holder.filename) if holder.filename else path
        holder = holder.obj if isinstance(holder, memoryview) else getattr(holder, "base", None)
    if holder is None:
        return None
    return _Place(holder, before, array.ctypes.data - np.frombuffer(holder, np.uint8).ctypes.data, path)
