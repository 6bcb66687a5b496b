# cython: language_level=3
"""Passes over the rows of X: loss and gradient, scores, column statistics.

Everything here trusts its arguments: _validation has checked them, and the callers hand in the workspace. What takes
long releases the GIL for all of its work, so that several threads may share one X, each on its own rows.
"""
import os

from libc.stddef cimport size_t
from libc.string cimport memcpy, memset
from scipy.linalg.cython_blas cimport dgemm, sgemm

include "_blas_int.pxi"

ctypedef fused floating:
    double
    float

cdef extern from "_kernel.h" nogil:
    ctypedef struct cs_kernels:
        void (*exp)(Py_ssize_t n, const void *x, void *out) noexcept nogil
        void (*log)(Py_ssize_t n, const double *x, double *out) noexcept nogil
        void (*log1p)(Py_ssize_t n, const double *x, double *out) noexcept nogil
        void (*softmax_rows)(Py_ssize_t n_rows, Py_ssize_t n_classes, void *z) noexcept nogil
        void (*log_softmax_rows)(Py_ssize_t n_rows, Py_ssize_t n_classes, void *z) noexcept nogil
        double (*residual)(
            Py_ssize_t n_rows, Py_ssize_t n_columns, void *z, Py_ssize_t ld, const int *y, const void *weight,
            void *scratch) noexcept nogil
        void (*class_sums)(
            Py_ssize_t n_rows, Py_ssize_t n_columns, const void *z, Py_ssize_t ld, void *sums) noexcept nogil
        Py_ssize_t (*tile_fold)(Py_ssize_t n_columns) noexcept nogil
        void (*tile_logits)(
            Py_ssize_t n_rows, Py_ssize_t d, Py_ssize_t n_columns, const void *x, const void *packed, void *z,
            Py_ssize_t row_stride, Py_ssize_t column_stride, const void *ahead) noexcept nogil
        void (*tile_gradient)(
            Py_ssize_t n_rows, Py_ssize_t d, Py_ssize_t n_columns, const void *x, const void *z, Py_ssize_t ld,
            void *gradient, const void *ahead) noexcept nogil
        void (*tile_gram)(
            Py_ssize_t n_rows, Py_ssize_t size, const void *x, const void *factor, void *out,
            Py_ssize_t width) noexcept nogil
        void (*column_range)(
            Py_ssize_t n_rows, Py_ssize_t d, const void *x, const void *weight, double *low, double *high,
            double *sum) noexcept nogil
        void (*column_spread)(
            Py_ssize_t n_rows, Py_ssize_t d, const void *x, const void *weight, const double *center,
            const double *unit, double *sum) noexcept nogil
        void (*row_lengths)(
            Py_ssize_t n_rows, Py_ssize_t d, const void *x, const double *center, const double *unit,
            double *lengths) noexcept nogil
        int (*all_finite)(Py_ssize_t n, const void *x) noexcept nogil
        Py_ssize_t lanes
    const cs_kernels *cs_table(size_t itemsize) noexcept
    const char *cs_select(const char *name) noexcept
    const char *cs_names[]

cdef enum:
    ALIGNMENT = 64


# ---- BLAS -------------------------------------------------------------------------------------------------------

cdef void gemm(bint transpose_a, bint transpose_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const floating *a,
               Py_ssize_t lda, const floating *b, Py_ssize_t ldb, floating beta, floating *c,
               Py_ssize_t ldc) noexcept nogil:
    """Row-major C (m, n) = op(A) (m, k) op(B) (k, n) + beta C; lda, ldb, ldc are lengths of stored rows.

    BLAS reads a row-major matrix as its transpose, so it is asked for C' = op(B)' op(A)': the operands swap places.
    """
    cdef:
        char flag_a = b'T' if transpose_a else b'N'
        char flag_b = b'T' if transpose_b else b'N'
        blas_int m_ = <blas_int>m, n_ = <blas_int>n, k_ = <blas_int>k
        blas_int lda_ = <blas_int>lda, ldb_ = <blas_int>ldb, ldc_ = <blas_int>ldc
        floating one = 1
    if floating is double:
        dgemm(&flag_b, &flag_a, &n_, &m_, &k_, &one, <double*>b, &ldb_, <double*>a, &lda_, &beta, c, &ldc_)
    else:
        sgemm(&flag_b, &flag_a, &n_, &m_, &k_, &one, <float*>b, &ldb_, <float*>a, &lda_, &beta, c, &ldc_)


# ---- loss and gradient ------------------------------------------------------------------------------------------

cdef inline Py_ssize_t padded(Py_ssize_t n, Py_ssize_t multiple) noexcept nogil:
    return (n + multiple - 1) // multiple * multiple


cdef inline Py_ssize_t packed_width(const cs_kernels *kernels, Py_ssize_t n_columns) noexcept nogil:
    """Columns of the layout of the tiles."""
    return padded(n_columns, kernels.lanes // kernels.tile_fold(n_columns))


cdef inline Py_ssize_t packed_size(const cs_kernels *kernels, Py_ssize_t d, Py_ssize_t n_columns) noexcept nogil:
    """Values of the layout of the tiles, intercepts included."""
    return padded((padded(d, kernels.tile_fold(n_columns)) + 1) * packed_width(kernels, n_columns), ALIGNMENT)


def vector_bytes():
    """Width of a vector of the instruction set in use; 8 where the compiler has no vector type."""
    return cs_table(sizeof(double)).lanes * sizeof(double)


def workspace_size(Py_ssize_t n_features, Py_ssize_t n_columns, Py_ssize_t block, bint tiled, Py_ssize_t itemsize):
    """Number of values that `loss_gradient` needs as its `work`."""
    cdef Py_ssize_t size = (n_columns + 2) * block + 3 * ALIGNMENT // itemsize
    if tiled:
        size += 2 * packed_size(cs_table(itemsize), n_features, n_columns)
    return size


def loss_gradient(const floating[:, ::1] X, const int[::1] y, const floating[::1] weight,
                  const floating[:, ::1] coef, const floating[::1] intercept, Py_ssize_t chunk, Py_ssize_t block,
                  bint tiled, Py_ssize_t first, Py_ssize_t last, double[::1] losses, floating[:, :, ::1] coef_gradients,
                  floating[:, ::1] intercept_gradients, floating[::1] work):
    """The chunks numbered first to last, of `chunk` rows each: weighted sums of their losses, and their gradients.

    coef has one row per class, or a single row for two classes. Blocks of `block` rows go to logits, to residuals in
    place, and into the gradient while they are in the cache: X is read from memory once.
    """
    cdef Py_ssize_t i
    if work.shape[0] < workspace_size(X.shape[1], coef.shape[0], block, tiled, sizeof(floating)):
        raise ValueError("work is too small: the instruction set was changed since it was made")
    with nogil:
        for i in range(first, last):
            losses[i] = _loss_gradient(X, y, weight, coef, intercept, i * chunk, min((i + 1) * chunk, X.shape[0]),
                                       coef_gradients[i], intercept_gradients[i], work, block, tiled)


cdef double _loss_gradient(const floating[:, ::1] X, const int[::1] y, const floating[::1] weight,
                           const floating[:, ::1] coef, const floating[::1] intercept, Py_ssize_t start,
                           Py_ssize_t stop, floating[:, ::1] coef_gradient, floating[::1] intercept_gradient,
                           floating[::1] work, Py_ssize_t block, bint tiled) noexcept nogil:
    cdef:
        const cs_kernels *kernels = cs_table(sizeof(floating))
        Py_ssize_t d = X.shape[1], n_columns = coef.shape[0], i, k, rows
        Py_ssize_t width = packed_width(kernels, n_columns), fold = kernels.tile_fold(n_columns)
        Py_ssize_t size = packed_size(kernels, d, n_columns)
        floating *packed = <floating*>padded(<Py_ssize_t>&work[0], ALIGNMENT)
        floating *packed_gradient = packed + size
        floating *z = packed_gradient + size if tiled else packed
        floating *scratch = z + n_columns * block
        const floating *x
        const floating *ahead
        double loss = 0, lost = 0, part, total
    memset(&coef_gradient[0, 0], 0, n_columns * d * sizeof(floating))
    memset(&intercept_gradient[0], 0, n_columns * sizeof(floating))
    if tiled:
        pack(coef, intercept, width, fold, packed)
        memset(packed_gradient, 0, size * sizeof(floating))
    i = start
    while i < stop:
        rows = min(block, stop - i)
        x = &X[i, 0]
        if tiled:
            kernels.tile_logits(rows, d, n_columns, x, packed, z, 1, block, x)
        else:
            for k in range(n_columns):
                fill(rows, intercept[k], z + k * block)
            gemm(False, True, n_columns, rows, d, &coef[0, 0], d, x, d, 1, z, block)
        part = kernels.residual(rows, n_columns, z, block, &y[i], &weight[i], scratch)
        if tiled:
            # The gradient finds its rows in the cache: memory is free to bring those of the next block.
            ahead = x + rows * d if i + 2 * rows <= stop else x
            kernels.tile_gradient(rows, d, n_columns, x, z, block, packed_gradient, ahead)
        else:
            gemm(False, False, n_columns, d, rows, z, block, x, d, 1, &coef_gradient[0, 0], d)
            kernels.class_sums(rows, n_columns, z, block, &intercept_gradient[0])
        # Neumaier's sum: what each addition loses is kept, so the error does not grow with the number of blocks.
        total = loss + part
        lost += (loss - total) + part if abs(loss) >= abs(part) else (part - total) + loss
        loss = total
        i += rows
    if tiled:
        unpack(packed_gradient, width, fold, coef_gradient, intercept_gradient)
    return loss + lost


cdef void fill(Py_ssize_t n, floating value, floating *out) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = value


cdef inline Py_ssize_t place(Py_ssize_t j, Py_ssize_t d, Py_ssize_t width, Py_ssize_t fold) noexcept nogil:
    """Where feature j has its first column: features that do not fill their vector stand at its end."""
    return j // fold * fold * width + j % fold + (fold - d % fold if d - d % fold <= j else 0)


cdef void pack(const floating[:, ::1] coef, const floating[::1] intercept, Py_ssize_t width, Py_ssize_t fold,
               floating *packed) noexcept nogil:
    """(K, d) and (K,) to the layout of the tiles: a few columns at a time, which stay in the cache."""
    cdef Py_ssize_t d = coef.shape[1], d_padded = padded(d, fold), first = 0, last, j, k
    memset(packed, 0, (d_padded + 1) * width * sizeof(floating))
    while first < coef.shape[0]:
        last = min(first + 8, coef.shape[0])
        for j in range(d):
            for k in range(first, last):
                packed[place(j, d, width, fold) + k * fold] = coef[k, j]
        first = last
    memcpy(packed + d_padded * width, &intercept[0], coef.shape[0] * sizeof(floating))


cdef void unpack(const floating *packed, Py_ssize_t width, Py_ssize_t fold, floating[:, ::1] coef,
                 floating[::1] intercept) noexcept nogil:
    """Adds what is in the layout of the tiles to (K, d) and (K,)."""
    cdef Py_ssize_t d = coef.shape[1], first = 0, last, j, k
    while first < coef.shape[0]:
        last = min(first + 8, coef.shape[0])
        for j in range(d):
            for k in range(first, last):
                coef[k, j] += packed[place(j, d, width, fold) + k * fold]
        first = last
    for k in range(coef.shape[0]):
        intercept[k] += packed[padded(d, fold) * width + k]


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


# ---- scores and probabilities -----------------------------------------------------------------------------------

def scores(const floating[:, ::1] X, const floating[:, ::1] coef, const floating[::1] intercept, Py_ssize_t start,
           Py_ssize_t stop, Py_ssize_t block, bint tiled, floating[:, ::1] out, floating[::1] work):
    """out[start:stop] = X[start:stop] coef' + intercept, in blocks of rows; work is as for `loss_gradient`."""
    cdef:
        const cs_kernels *kernels = cs_table(sizeof(floating))
        Py_ssize_t d = X.shape[1], n_columns = coef.shape[0], i = start, r, rows
        floating *packed = <floating*>padded(<Py_ssize_t>&work[0], ALIGNMENT)
    if work.shape[0] < workspace_size(d, n_columns, block, tiled, sizeof(floating)):
        raise ValueError("work is too small: the instruction set was changed since it was made")
    with nogil:
        if tiled:
            pack(coef, intercept, packed_width(kernels, n_columns), kernels.tile_fold(n_columns), packed)
        while i < stop:
            rows = min(block, stop - i)
            if tiled:
                kernels.tile_logits(rows, d, n_columns, &X[i, 0], packed, &out[i, 0], n_columns, 1,
                                    &X[i + rows, 0] if i + 2 * rows <= stop else &X[i, 0])
            else:
                for r in range(i, i + rows):
                    memcpy(&out[r, 0], &intercept[0], n_columns * sizeof(floating))
                gemm(False, True, rows, n_columns, d, &X[i, 0], d, &coef[0, 0], d, 1, &out[i, 0], n_columns)
            i += rows


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


def log(const double[::1] x, double[::1] out, bint plus_one=False):
    """The logarithm of the kernels, of x >= 1; with plus_one of 1 + x, for x in [0, 1]."""
    with nogil:
        if x.shape[0] and plus_one:
            cs_table(sizeof(double)).log1p(x.shape[0], &x[0], &out[0])
        elif x.shape[0]:
            cs_table(sizeof(double)).log(x.shape[0], &x[0], &out[0])


# ---- the columns of X -------------------------------------------------------------------------------------------

def column_range(const floating[:, ::1] X, const floating[::1] weight, double[::1] low, double[::1] high,
                 double[::1] total):
    """Lower low, raise high and add weight * x to total, column by column."""
    with nogil:
        cs_table(sizeof(floating)).column_range(X.shape[0], X.shape[1], &X[0, 0], &weight[0], &low[0], &high[0],
                                                &total[0])


def column_spread(const floating[:, ::1] X, const floating[::1] weight, const double[::1] center,
                  const double[::1] unit, double[::1] total):
    """Add weight * ((x - center) * unit)^2 to total, column by column."""
    with nogil:
        cs_table(sizeof(floating)).column_spread(X.shape[0], X.shape[1], &X[0, 0], &weight[0], &center[0], &unit[0],
                                                 &total[0])


def row_lengths(const floating[:, ::1] X, const double[::1] center, const double[::1] unit, double[::1] lengths):
    """lengths[i] = sum over columns of ((x - center) * unit)^2."""
    with nogil:
        cs_table(sizeof(floating)).row_lengths(X.shape[0], X.shape[1], &X[0, 0], &center[0], &unit[0], &lengths[0])


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
