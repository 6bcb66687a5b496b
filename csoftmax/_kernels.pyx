# cython: language_level=3
"""The one copy of the kernels, the choice of their instruction set, and those that Python calls by themselves.

Needs no BLAS: what serves a model imports this, and not the training code.
"""
import os

from libc.string cimport memset

ctypedef fused source:
    double
    float

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
    cdef Layout w = Layout(n_columns, tiled, max(d, 1), n_columns, n_columns, 0)
    if tiled:
        w.fold = kernels.tile_fold(d, n_columns)
    elif sparse:
        w.fold = 1
    if tiled or sparse and n_columns > 1:
        w.width = padded(n_columns, kernels.lanes // w.fold)
    w.panel = kernels.tile_panel(d, n_columns) if tiled else w.width
    w.size = padded((padded(d, w.fold) + 1) * w.width, ALIGNMENT)
    return w


def layout(Py_ssize_t d, Py_ssize_t n_columns, bint tiled, bint sparse, Py_ssize_t itemsize):
    """How coefficients are packed for register tiles, for BLAS, or for the rows of a CSR matrix: Layout as a dict."""
    return layout_of(d, n_columns, tiled, sparse, itemsize)


cdef Layout checked(object how, Py_ssize_t d, Py_ssize_t n_columns, Py_ssize_t intercepts, Py_ssize_t length) except *:
    cdef Layout w = how
    if length < (padded(d, w.fold) + 1) * w.width or w.n_columns != n_columns or intercepts != n_columns:
        raise ValueError("packed is too small, or made for other columns, or there is not one intercept for each")
    return w


def pack(const source[:, ::1] coef, const source[::1] intercept, how, floating[::1] packed,
         const double[::1] unit=None, Py_ssize_t part=0, Py_ssize_t parts=1):
    """Coefficients (K, d) and intercepts (K,) into a layout; of so many parts, by features, one.

    If there is a unit (d,), each row of coef is multiplied by it, and may be longer than d.
    """
    cdef:
        bint scaled = unit is not None
        Py_ssize_t d = unit.shape[0] if scaled else coef.shape[1], n_columns = coef.shape[0]
        Py_ssize_t first = 0, columns, start, stop, j, k, f, together, end
        Layout w = checked(how, d, n_columns, intercept.shape[0], packed.shape[0])
        floating *panel = &packed[0]
        floating *place
        const source *row
        const double *units = &unit[0] if scaled and d else NULL
    if coef.shape[1] < d:
        raise ValueError("coef is shorter than the unit")
    together = max(w.fold, FEATURES_AT_ONCE // w.fold * w.fold)
    with nogil:
        while first < n_columns:
            columns = min(w.panel, w.width - first)
            start = d // together * part // parts * together
            end = d // together * (part + 1) // parts * together if part + 1 < parts else d
            while start < end:
                stop = min(start + together, end)
                memset(panel + start * columns, 0, padded(stop - start, w.fold) * columns * sizeof(floating))
                for k in range(min(columns, n_columns - first)):
                    row = &coef[first + k, 0]
                    PREFETCH(row + stop + FEATURES_AT_ONCE)
                    PREFETCH(panel + stop * columns + k * FEATURES_AT_ONCE)
                    if w.fold == 1:
                        for j in range(start, stop):
                            panel[j * columns + k] = <floating>(row[j] * units[j] if scaled else row[j])
                        continue
                    j = start
                    while j < stop:
                        place = panel + group(j, d, columns, k, w.fold)
                        for f in range(min(w.fold, d - j)):
                            place[f] = <floating>(row[j + f] * units[j + f] if scaled else row[j + f])
                        j += w.fold
                start = stop
            panel += padded(d, w.fold) * columns
            first += columns
        if part == 0:
            memset(panel, 0, w.width * sizeof(floating))
            for k in range(n_columns):
                panel[k] = <floating>intercept[k]


def unpack(const floating[:, ::1] packed, how, double[:, ::1] coef, double[::1] intercept,
           const double[:, ::1] theta=None, const double[::1] unit=None, const double[::1] center=None,
           double alpha=0, Py_ssize_t part=0, Py_ssize_t parts=1):
    """The sum of several layouts into coefficients (K, d) and intercepts (K,); of so many parts, by features, one.

    If there are unit and center (d,), coef becomes the gradient by u, (sum + alpha u unit - intercept center) unit.
    Rows of theta, which may be coef itself, hold u, and one number more where there are intercepts.
    """
    cdef:
        bint scaled = unit is not None
        Py_ssize_t d = unit.shape[0] if scaled else coef.shape[1], n_columns = coef.shape[0]
        Py_ssize_t first = 0, columns, start, stop, j, k, f, at, panel = 0, i, size, count, step
        Py_ssize_t together, end
        Layout w = checked(how, d, n_columns, intercept.shape[0], packed.shape[1])
        double *row
        double total, by_intercept
        const double *units = &unit[0] if scaled and d else NULL
        const double *centers = &center[0] if scaled and d else NULL
        const double *u = NULL
    if scaled and (coef.shape[1] < d or center.shape[0] != d or theta.shape[0] < n_columns
                   or theta.shape[1] < coef.shape[1]):
        raise ValueError("coef, theta, unit and center do not fit each other")
    together = max(w.fold, FEATURES_AT_ONCE // w.fold * w.fold)
    with nogil:
        size = padded(d, w.fold) * w.width
        while first < n_columns:
            columns = min(w.panel, w.width - first)
            start = d // together * part // parts * together
            end = d // together * (part + 1) // parts * together if part + 1 < parts else d
            while start < end:
                stop = min(start + together, end)
                for k in range(min(columns, n_columns - first)):
                    row = &coef[first + k, 0]
                    u, by_intercept = &theta[first + k, 0] if scaled else row, column_sum(packed, size + first + k)
                    PREFETCH(row + stop + FEATURES_AT_ONCE)
                    PREFETCH(u + stop + FEATURES_AT_ONCE)
                    for i in range(packed.shape[0]):
                        PREFETCH(&packed[i, 0] + panel + stop * columns + k * FEATURES_AT_ONCE)
                    j = start
                    while j < stop:
                        # A group of features lies side by side; where there is but one in each, all of these columns.
                        at = panel + group(j, d, columns, k, w.fold)
                        count = stop - start if w.fold == 1 else min(w.fold, d - j)
                        step = columns if w.fold == 1 else 1
                        if scaled:
                            for f in range(j, j + count):
                                total = column_sum(packed, at + (f - j) * step)
                                row[f] = (total + alpha * u[f] * units[f] - by_intercept * centers[f]) * units[f]
                        else:
                            for f in range(j, j + count):
                                row[f] = column_sum(packed, at + (f - j) * step)
                        j += count
                start = stop
            panel += padded(d, w.fold) * columns
            first += columns
        for k in range(n_columns if part == 0 else 0):
            intercept[k] = column_sum(packed, size + k)
            if coef.shape[1] > d:
                coef[k, d] = intercept[k]


cdef inline Py_ssize_t group(Py_ssize_t j, Py_ssize_t d, Py_ssize_t columns, Py_ssize_t k,
                             Py_ssize_t fold) noexcept nogil:
    """Where the group of features that begins with j has column k; a group that is not full ends its place."""
    return j * columns + k * fold + max(0, fold - (d - j))


cdef inline double column_sum(const floating[:, ::1] packed, Py_ssize_t at) noexcept nogil:
    cdef double total = packed[0, at]
    cdef Py_ssize_t i
    for i in range(1, packed.shape[0]):
        total += packed[i, at]
    return total


# ---- by themselves ------------------------------------------------------------------------------------------------

def softmax_rows(floating[:, ::1] z, Py_ssize_t start, Py_ssize_t stop, bint logarithm):
    """Rows start to stop of z, in place, to probabilities or to their logarithms."""
    cdef const cs_kernels *kernels = cs_table(sizeof(floating))
    with nogil:
        if start < stop and logarithm:
            kernels.log_softmax_rows(stop - start, z.shape[1], &z[start, 0])
        elif start < stop:
            kernels.softmax_rows(stop - start, z.shape[1], &z[start, 0])


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


def csr_fault(const integer[::1] indices, const integer[::1] indptr, Py_ssize_t d, integer[::1] seen):
    """What is wrong with the structure of a CSR matrix, or "": the first fault; seen has d places.

    Entries of one row and column that occur twice are a fault too, the last one to be looked for.
    """
    cdef Py_ssize_t n = indptr.shape[0] - 1, i, p
    cdef bint decreasing = False, outside = False, twice = False
    if n < 0 or indptr[0] != 0 or indptr[n] > indices.shape[0]:
        return "indptr"
    with nogil:
        for p in range(d):
            seen[p] = -1
        for i in range(n):
            if indptr[i + 1] < indptr[i] or indptr[i + 1] > indptr[n]:
                decreasing = True
                break
            for p in range(indptr[i], indptr[i + 1]):
                if not 0 <= indices[p] < d:
                    outside = True
                    break
                if seen[indices[p]] == i:
                    twice = True
                seen[indices[p]] = <integer>i
            if outside:
                break
    return "indptr" if decreasing else "indices" if outside else "duplicates" if twice else ""


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
