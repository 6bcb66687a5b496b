# cython: language_level=3
"""The one copy of the kernels, the choice of their instruction set, and those that Python calls by themselves.

Needs no BLAS: what serves a model imports this, and not the training code.
"""
import os

from libc.string cimport memcpy, memset

cdef extern from "_kernel.h" nogil:
    const cs_kernels *kernels_for "cs_table"(size_t itemsize) noexcept
    const char *cs_select(const char *name) noexcept
    const char *cs_names[]

cdef enum:
    FEATURES_AT_ONCE = 8  # change places together when they are packed: whole cache lines on both sides


cdef const cs_kernels *cs_table(size_t itemsize) noexcept nogil:
    """The kernels in use for values of this size."""
    return kernels_for(itemsize)


def vector_bytes():
    """Width of a vector of the instruction set in use; 8 where the compiler has no vector type."""
    return cs_table(sizeof(double)).lanes * sizeof(double)


def tiles_win(Py_ssize_t n_columns, Py_ssize_t n_bytes):
    """Whether register tiles are faster than BLAS for so many columns, and so many bytes of coefficients.

    With AVX-512 they are, by 1.1 to 5.9 times over the grid of benchmarks/bench_pass.py; with AVX2 up to about 4 MB,
    by up to 1.4 times (from 100 columns on they are even); with plainer vectors up to 32 columns.
    """
    cdef Py_ssize_t vector = vector_bytes()
    return n_columns <= 32 or vector > 32 or vector == 32 and n_bytes <= 1 << 22


# ---- packed coefficients -----------------------------------------------------------------------------------------

cdef Layout layout_of(Py_ssize_t d, Py_ssize_t n_columns, bint tiled, bint sparse, Py_ssize_t itemsize) noexcept nogil:
    cdef const cs_kernels *kernels = cs_table(itemsize)
    cdef Layout w = Layout(n_columns, max(d, 1), n_columns, 0, tiled)
    if tiled:
        w.fold = kernels.tile_fold(n_columns)
    elif sparse:
        w.fold = 1
    if tiled or sparse and n_columns > 1:
        w.width = padded(n_columns, kernels.lanes // w.fold)
    w.size = padded((padded(d, w.fold) + 1) * w.width, ALIGNMENT)
    return w


def layout(Py_ssize_t d, Py_ssize_t n_columns, bint tiled, bint sparse, Py_ssize_t itemsize):
    """(fold, width, size) of packed coefficients: for register tiles, for BLAS, or for the rows of a CSR matrix."""
    cdef Layout w = layout_of(d, n_columns, tiled, sparse, itemsize)
    return w.fold, w.width, w.size


cdef inline Py_ssize_t place(Py_ssize_t j, Py_ssize_t k, Py_ssize_t d, Py_ssize_t fold,
                             Py_ssize_t width) noexcept nogil:
    """Where the group of features that begins with j has column k; a group that is not full ends its place."""
    return j * width + k * fold + max(0, fold - (d - j))


def pack(const floating[:, ::1] coef, const floating[::1] intercept, Py_ssize_t fold, Py_ssize_t width,
         floating[::1] packed):
    """Coefficients (K, d) and intercepts (K,) into a layout."""
    cdef Py_ssize_t d = coef.shape[1], n_columns = coef.shape[0], start = 0, stop, j, k, f, at
    if packed.shape[0] < (padded(d, fold) + 1) * width or width < n_columns or intercept.shape[0] != n_columns:
        raise ValueError("packed is too small, or there is not one intercept for each row of coefficients")
    with nogil:
        while start < d:
            stop = min(start + max(fold, FEATURES_AT_ONCE // fold * fold), d)
            memset(&packed[start * width], 0, padded(stop - start, fold) * width * sizeof(floating))
            for k in range(n_columns):
                PREFETCH(&coef[k, 0] + stop + FEATURES_AT_ONCE)
                PREFETCH(&packed[0] + stop * width + k * FEATURES_AT_ONCE)
                if fold == 1:
                    for j in range(start, stop):
                        packed[j * width + k] = coef[k, j]
                    continue
                j = start
                while j < stop:
                    at = place(j, k, d, fold, width)
                    for f in range(min(fold, d - j)):
                        packed[at + f] = coef[k, j + f]
                    j += fold
            start = stop
        memset(&packed[padded(d, fold) * width], 0, width * sizeof(floating))
        memcpy(&packed[padded(d, fold) * width], &intercept[0], n_columns * sizeof(floating))


def unpack(const floating[:, ::1] packed, Py_ssize_t fold, Py_ssize_t width, double[:, ::1] coef,
           double[::1] intercept):
    """The sum of several layouts into coefficients (K, d) and intercepts (K,)."""
    cdef Py_ssize_t d = coef.shape[1], n_columns = coef.shape[0], start = 0, stop, j, k, f, at, i
    if packed.shape[1] < (padded(d, fold) + 1) * width or width < n_columns or intercept.shape[0] != n_columns:
        raise ValueError("packed is too small, or there is not one intercept for each row of coefficients")
    with nogil:
        while start < d:
            stop = min(start + max(fold, FEATURES_AT_ONCE // fold * fold), d)
            for k in range(n_columns):
                PREFETCH(&coef[k, 0] + stop + FEATURES_AT_ONCE)
                for i in range(packed.shape[0]):
                    PREFETCH(&packed[i, 0] + stop * width + k * FEATURES_AT_ONCE)
                if fold == 1:
                    for j in range(start, stop):
                        coef[k, j] = column_sum(packed, j * width + k)
                    continue
                j = start
                while j < stop:
                    at = place(j, k, d, fold, width)
                    for f in range(min(fold, d - j)):
                        coef[k, j + f] = column_sum(packed, at + f)
                    j += fold
            start = stop
        for k in range(n_columns):
            intercept[k] = column_sum(packed, padded(d, fold) * width + k)


cdef inline double column_sum(const floating[:, ::1] packed, Py_ssize_t at) noexcept nogil:
    cdef double total = packed[0, at]
    cdef Py_ssize_t i
    for i in range(1, packed.shape[0]):
        total += packed[i, at]
    return total


# ---- by themselves ------------------------------------------------------------------------------------------------

def softmax_rows(floating[:, ::1] z, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t block, bint logarithm):
    """Rows start to stop of z, in place, to probabilities or to their logarithms, in blocks that stay in the cache."""
    cdef:
        const cs_kernels *kernels = cs_table(sizeof(floating))
        Py_ssize_t i = start, rows
    with nogil:
        while i < stop:
            rows = min(block, stop - i)
            if logarithm:
                kernels.log_softmax_rows(rows, z.shape[1], &z[i, 0])
            else:
                kernels.softmax_rows(rows, z.shape[1], &z[i, 0])
            i += rows


def exp(const floating[::1] x, floating[::1] out):
    """The exponential of the kernels."""
    with nogil:
        if x.shape[0]:
            cs_table(sizeof(floating)).exp(x.shape[0], &x[0], &out[0])


def log(const floating[::1] x, floating[::1] out, bint plus_one=False):
    """The logarithm of the kernels, of x >= 1; with plus_one of 1 + x, for x in [0, 1]."""
    with nogil:
        if x.shape[0] and plus_one:
            cs_table(sizeof(floating)).log1p(x.shape[0], &x[0], &out[0])
        elif x.shape[0]:
            cs_table(sizeof(floating)).log(x.shape[0], &x[0], &out[0])


def all_finite(const floating[:, ::1] X):
    """Whether X holds neither NaN nor infinity."""
    cdef bint answer = True
    with nogil:
        if X.shape[0] and X.shape[1]:
            answer = cs_table(sizeof(floating)).all_finite(X.shape[0] * X.shape[1], &X[0, 0])
    return answer


# ---- instruction sets -------------------------------------------------------------------------------------------

def instruction_sets():
    """Names of the instruction sets compiled in, the plainest first; this processor may lack some."""
    cdef Py_ssize_t i = 0
    names = []
    while cs_names[i] != NULL:
        names.append(cs_names[i].decode())
        i += 1
    return names


def select_instruction_set(name=None):
    """Use the named instruction set from now on, the best for None; the name in use, or ValueError."""
    cdef bytes wanted = b"" if name is None else str(name).encode()
    cdef char *text = wanted
    cdef const char *chosen = cs_select(NULL if name is None else text)
    if chosen == NULL:
        raise ValueError(f"instruction set {name!r} is not available here: this build has {instruction_sets()}")
    return chosen.decode()


# For tests and for comparison; the best there is otherwise.
select_instruction_set(os.environ.get("CSOFTMAX_INSTRUCTION_SET") or None)
