# cython: language_level=3
"""Sums over rows without coefficients: statistics of the columns of X, lengths of rows, Gram matrices and Hessians.

As in _core, arguments are trusted, and the GIL is released.
"""
from ._kernels cimport cs_kernels, cs_table, floating, integer, padded


def touch(const unsigned char[::1] memory, Py_ssize_t step):
    """Read a byte in every `step`, as it may take long; what is returned has no meaning."""
    cdef Py_ssize_t i = 0
    cdef unsigned char found = 0
    with nogil:
        while i < memory.shape[0]:
            found ^= memory[i]
            i += step
    return found


# ---- the columns of X -------------------------------------------------------------------------------------------

def column_range(const floating[:, ::1] X, const floating[::1] weight, const int[::1] y, const double[::1] center,
                 double[::1] low, double[::1] high, double[:, ::1] sums, double[::1] squares):
    """Lower low, raise high, add weight * (x - center) to the sums of the row's class and weight * (x - center)^2 to
    squares, by column. Without y there are sums of one class, of all rows.
    """
    cdef const int *labels = NULL
    if y is not None:
        labels = &y[0]
    with nogil:
        cs_table(sizeof(floating)).column_range(X.shape[0], X.shape[1], &X[0, 0], &weight[0], labels, &center[0],
                                                &low[0], &high[0], &sums[0, 0], &squares[0])


def column_spread(const floating[:, ::1] X, const floating[::1] weight, const double[::1] center,
                  const double[::1] unit, double[::1] total):
    """Add weight * ((x - center) * unit)^2 to total, column by column."""
    with nogil:
        cs_table(sizeof(floating)).column_spread(X.shape[0], X.shape[1], &X[0, 0], &weight[0], &center[0], &unit[0],
                                                 &total[0])


def column_range_csr(const floating[::1] values, const integer[::1] indices, const integer[::1] indptr,
                     const floating[::1] weight, const int[::1] y, Py_ssize_t start, Py_ssize_t stop, double[::1] low,
                     double[::1] high, double[:, ::1] sums, double[::1] squares, double[::1] present,
                     Py_ssize_t[::1] count):
    """The same of the entries of some rows of CSR, with a center of 0.

    present adds up the weights of the rows that have an entry, count their number.
    """
    cdef Py_ssize_t i, p, j, k
    cdef bint labelled = y is not None
    cdef double value, weighted
    with nogil:
        for i in range(start, stop):
            k = y[i] if labelled else 0
            for p in range(indptr[i], indptr[i + 1]):
                j, value = indices[p], values[p]
                weighted = weight[i] * value
                low[j] = min(low[j], value)
                high[j] = max(high[j], value)
                sums[k, j] += weighted
                squares[j] += weighted * value
                present[j] += weight[i]
                count[j] += 1


def column_spread_csr(const floating[::1] values, const integer[::1] indices, const integer[::1] indptr,
                      const floating[::1] weight, Py_ssize_t start, Py_ssize_t stop, const double[::1] center,
                      const double[::1] unit, double[::1] total):
    """column_spread of the entries of some rows of CSR."""
    cdef Py_ssize_t i, p, j
    cdef double deviation
    with nogil:
        for i in range(start, stop):
            for p in range(indptr[i], indptr[i + 1]):
                j = indices[p]
                deviation = (values[p] - center[j]) * unit[j]
                total[j] += weight[i] * (deviation * deviation)


def row_lengths(const floating[:, ::1] X, const double[::1] center, const double[::1] unit, double[::1] lengths):
    """lengths[i] = sum over columns of ((x - center) * unit)^2."""
    with nogil:
        cs_table(sizeof(floating)).row_lengths(X.shape[0], X.shape[1], &X[0, 0], &center[0], &unit[0], &lengths[0])


# ---- curvature --------------------------------------------------------------------------------------------------

def gram_shape(Py_ssize_t size):
    """(length, width) of the flat array in which `gram` and `hessian` add up a matrix of this size."""
    cdef Py_ssize_t lanes = cs_table(sizeof(double)).lanes, width = padded(size, lanes)
    return size * width + lanes, width


def gram(const double[:, ::1] Z, const double[::1] factor, Py_ssize_t start, Py_ssize_t stop, double[::1] out):
    """Lower triangle of out += sum of factor_i z_i z_i' over the rows from start to stop."""
    cdef Py_ssize_t size = Z.shape[1], width = gram_width(size, out)
    with nogil:
        if start < stop:
            cs_table(sizeof(double)).tile_gram(stop - start, size, &Z[start, 0], &factor[start], &out[0], width)


def hessian(const double[:, ::1] Z, const double[:, ::1] probability, const double[::1] weight, Py_ssize_t start,
            Py_ssize_t stop, double[::1] out, double[:, ::1] work, double[::1] factor):
    """Lower triangle of out += sum of weight_i (diag(p_i) - p_i p_i') (x) z_i z_i' over the rows from start to stop.

    The part of p p' is a symmetric product of the rows p_i (x) z_i, that of diag(p) one for each class. work holds a
    block of those rows, factor a number for each of them.
    """
    cdef:
        const cs_kernels *kernels = cs_table(sizeof(double))
        Py_ssize_t d = Z.shape[1], n_classes = probability.shape[1], size = d * n_classes, i = start, r, k, j, rows
        Py_ssize_t width = gram_width(size, out)
    with nogil:
        while i < stop:
            rows = min(work.shape[0], stop - i)
            for r in range(rows):
                factor[r] = -weight[i + r]
                for k in range(n_classes):
                    for j in range(d):
                        work[r, k * d + j] = probability[i + r, k] * Z[i + r, j]
            kernels.tile_gram(rows, size, &work[0, 0], &factor[0], &out[0], width)
            for k in range(n_classes):
                for r in range(rows):
                    factor[r] = weight[i + r] * probability[i + r, k]
                kernels.tile_gram(rows, d, &Z[i, 0], &factor[0], &out[k * d * (width + 1)], width)
            i += rows


cdef Py_ssize_t gram_width(Py_ssize_t size, const double[::1] out) except -1:
    cdef Py_ssize_t lanes = cs_table(sizeof(double)).lanes, width = padded(size, lanes)
    if out.shape[0] < size * width + lanes:
        raise ValueError("out is too small: the instruction set was changed since it was made")
    return width
