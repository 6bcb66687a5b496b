# cython: language_level=3
"""Passes over the rows of X: loss and gradient, scores, column statistics.

Everything here trusts its arguments: _validation has checked them, and the callers hand in the workspace. Each entry
point releases the GIL for all of its work, so that several threads may share one X, each on its own rows.
"""
import os

from libc.math cimport sqrt
from libc.stddef cimport size_t
from libc.string cimport memcpy, memset
from scipy.linalg.cython_blas cimport daxpy, ddot, dgemm, dsyrk, sgemm
from scipy.linalg.cython_lapack cimport dpotrf, dpotrs

include "_blas_int.pxi"

ctypedef fused floating:
    double
    float

cdef extern from "_kernel.h" nogil:
    ctypedef struct cs_kernels:
        void (*exp)(Py_ssize_t n, const void *x, void *out) noexcept nogil
        void (*softmax_rows)(Py_ssize_t n_rows, Py_ssize_t n_classes, void *z) noexcept nogil
        void (*log_softmax_rows)(Py_ssize_t n_rows, Py_ssize_t n_classes, void *z) noexcept nogil
        double (*residual)(
            Py_ssize_t n_rows, Py_ssize_t n_columns, void *z, Py_ssize_t ld, const int *y, const void *weight,
            void *scratch) noexcept nogil
        void (*class_sums)(
            Py_ssize_t n_rows, Py_ssize_t n_columns, const void *z, Py_ssize_t ld, void *sums) noexcept nogil
        void (*tile_logits)(
            Py_ssize_t n_rows, Py_ssize_t d, Py_ssize_t n_columns, const void *x, const void *packed, void *z,
            Py_ssize_t ld) noexcept nogil
        void (*tile_gradient)(
            Py_ssize_t n_rows, Py_ssize_t d, Py_ssize_t n_columns, const void *x, const void *z, Py_ssize_t ld,
            void *gradient) noexcept nogil
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
    SMALL_FACTOR = 256  # rows up to which LAPACK's threads are not worth waking


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


def vector_bytes():
    """Width of a vector of the instruction set in use; 8 where the compiler has no vector type."""
    return cs_table(sizeof(double)).lanes * sizeof(double)


def workspace_size(Py_ssize_t n_features, Py_ssize_t n_columns, Py_ssize_t block, bint tiled, Py_ssize_t itemsize):
    """Number of values that `loss_gradient` needs as its `work`."""
    cdef Py_ssize_t size = (n_columns + 2) * block + 3 * ALIGNMENT // itemsize
    if tiled:
        size += 2 * padded((n_features + 1) * padded(n_columns, cs_table(itemsize).lanes), ALIGNMENT)
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
        Py_ssize_t width = padded(n_columns, kernels.lanes), packed_size = padded((d + 1) * width, ALIGNMENT)
        floating *packed = <floating*>padded(<Py_ssize_t>&work[0], ALIGNMENT)
        floating *packed_gradient = packed + packed_size
        floating *z = packed_gradient + packed_size if tiled else packed
        floating *scratch = z + n_columns * block
        const floating *x
        double loss = 0, lost = 0, part, total
    memset(&coef_gradient[0, 0], 0, n_columns * d * sizeof(floating))
    memset(&intercept_gradient[0], 0, n_columns * sizeof(floating))
    if tiled:
        pack(coef, intercept, width, packed)
        memset(packed_gradient, 0, packed_size * sizeof(floating))
    i = start
    while i < stop:
        rows = min(block, stop - i)
        x = &X[i, 0]
        if tiled:
            kernels.tile_logits(rows, d, n_columns, x, packed, z, block)
        else:
            for k in range(n_columns):
                fill(rows, intercept[k], z + k * block)
            gemm(False, True, n_columns, rows, d, &coef[0, 0], d, x, d, 1, z, block)
        part = kernels.residual(rows, n_columns, z, block, &y[i], &weight[i], scratch)
        if tiled:
            kernels.tile_gradient(rows, d, n_columns, x, z, block, packed_gradient)
        else:
            gemm(False, False, n_columns, d, rows, z, block, x, d, 1, &coef_gradient[0, 0], d)
            kernels.class_sums(rows, n_columns, z, block, &intercept_gradient[0])
        # Neumaier's sum: what each addition loses is kept, so the error does not grow with the number of blocks.
        total = loss + part
        lost += (loss - total) + part if abs(loss) >= abs(part) else (part - total) + loss
        loss = total
        i += rows
    if tiled:
        unpack(packed_gradient, width, coef_gradient, intercept_gradient)
    return loss + lost


cdef void fill(Py_ssize_t n, floating value, floating *out) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = value


cdef void pack(const floating[:, ::1] coef, const floating[::1] intercept, Py_ssize_t width,
               floating *packed) noexcept nogil:
    """(K, d) and (K,) to (d + 1, width), the layout of the tiles."""
    cdef Py_ssize_t d = coef.shape[1], j, k
    memset(packed, 0, (d + 1) * width * sizeof(floating))
    for k in range(coef.shape[0]):
        for j in range(d):
            packed[j * width + k] = coef[k, j]
        packed[d * width + k] = intercept[k]


cdef void unpack(const floating *packed, Py_ssize_t width, floating[:, ::1] coef,
                 floating[::1] intercept) noexcept nogil:
    """Adds (d + 1, width) to (K, d) and (K,)."""
    cdef Py_ssize_t d = coef.shape[1], j, k
    for k in range(coef.shape[0]):
        for j in range(d):
            coef[k, j] += packed[j * width + k]
        intercept[k] += packed[d * width + k]


# ---- scores and probabilities -----------------------------------------------------------------------------------

def scores(const floating[:, ::1] X, const floating[:, ::1] coef, const floating[::1] intercept, Py_ssize_t start,
           Py_ssize_t stop, Py_ssize_t block, floating[:, ::1] out):
    """out[start:stop] = X[start:stop] coef' + intercept, in blocks of rows."""
    cdef Py_ssize_t d = X.shape[1], n_classes = coef.shape[0], i = start, r, rows
    with nogil:
        while i < stop:
            rows = min(block, stop - i)
            for r in range(i, i + rows):
                memcpy(&out[r, 0], &intercept[0], n_classes * sizeof(floating))
            gemm(False, True, rows, n_classes, d, &X[i, 0], d, &coef[0, 0], d, 1, &out[i, 0], n_classes)
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


# ---- curvature --------------------------------------------------------------------------------------------------

cdef void add_gram(double sign, Py_ssize_t n_rows, Py_ssize_t d, const double *a, double *c,
                   Py_ssize_t ldc) noexcept nogil:
    """Row-major C += sign A'A, the lower triangle of C (d, d) alone; A is (n_rows, d).

    To BLAS, C is its transpose and A is A', so the lower triangle is its upper one.
    """
    cdef:
        char upper = b'U', no = b'N'
        blas_int d_ = <blas_int>d, n_ = <blas_int>n_rows, ldc_ = <blas_int>ldc
        double one = 1
    dsyrk(&upper, &no, &d_, &n_, &sign, <double*>a, &d_, &one, c, &ldc_)


cdef void scale_rows(Py_ssize_t n_rows, Py_ssize_t d, const double *z, const double *factor, Py_ssize_t stride,
                     double *out, Py_ssize_t ld) noexcept nogil:
    """Row i of out = row i of z times factor[i * stride]; rows of out lie ld apart."""
    cdef Py_ssize_t i, j
    for i in range(n_rows):
        for j in range(d):
            out[i * ld + j] = z[i * d + j] * factor[i * stride]


def weighted_gram(const double[:, ::1] Z, const double[::1] root_weight, double[:, ::1] out, double[:, ::1] work):
    """Lower triangle of out = Z' diag(root_weight^2) Z; work holds a block of rows of Z."""
    cdef Py_ssize_t n = Z.shape[0], d = Z.shape[1], i = 0, rows
    with nogil:
        memset(&out[0, 0], 0, d * d * sizeof(double))
        while i < n:
            rows = min(work.shape[0], n - i)
            scale_rows(rows, d, &Z[i, 0], &root_weight[i], 1, &work[0, 0], d)
            add_gram(1, rows, d, &work[0, 0], &out[0, 0], d)
            i += rows


def hessian(const double[:, ::1] Z, const double[:, ::1] probability, const double[::1] weight, double[:, ::1] out,
            const double[::1] penalty, double[:, ::1] work, double[:, ::1] factors):
    """Lower triangle of out = sum_i weight_i (diag(p_i) - p_i p_i') (x) z_i z_i' + (I - 11'/K) (x) diag(penalty).

    Over the first K - 1 classes, the columns of `probability`: a step with the last class at zero, centred afterwards,
    has the curvature I - 11'/K in the penalty.

    The part of p p' is one symmetric product of the rows p_i (x) z_i, that of diag(p) one for each class. work holds a
    block of those rows, factors as many rows of probabilities.
    """
    cdef Py_ssize_t n = Z.shape[0], d = Z.shape[1], n_classes = probability.shape[1], size = d * n_classes
    cdef Py_ssize_t i = 0, r, k, other, rows
    cdef double shared = -1.0 / (n_classes + 1)
    with nogil:
        memset(&out[0, 0], 0, size * size * sizeof(double))
        for k in range(n_classes):
            for other in range(k + 1):
                for r in range(d):
                    out[k * d + r, other * d + r] = penalty[r] * (shared + (k == other))
        while i < n:
            rows = min(work.shape[0], n - i)
            for r in range(rows):
                for k in range(n_classes):
                    factors[r, k] = sqrt(weight[i + r]) * probability[i + r, k]
            for k in range(n_classes):
                scale_rows(rows, d, &Z[i, 0], &factors[0, k], n_classes, &work[0, k * d], size)
            add_gram(-1, rows, size, &work[0, 0], &out[0, 0], size)
            for r in range(rows):
                for k in range(n_classes):
                    factors[r, k] = sqrt(weight[i + r] * probability[i + r, k])
            for k in range(n_classes):
                scale_rows(rows, d, &Z[i, 0], &factors[0, k], n_classes, &work[0, 0], d)
                add_gram(1, rows, d, &work[0, 0], &out[k * d, k * d], size)
            i += rows


def factorise(double[:, ::1] matrix):
    """Cholesky factor L, in place, of the positive definite matrix given by its lower triangle; False if it is not one.

    OpenBLAS gives even a 20 x 20 factorisation to all its threads, and waits for them: small ones are done here.
    """
    cdef:
        char upper = b'U'
        blas_int n = <blas_int>matrix.shape[0], one = 1, length, info = 0
        Py_ssize_t i, j
        double pivot, share
    with nogil:
        if n > SMALL_FACTOR:
            # To LAPACK the matrix is its transpose, so our lower triangle is its upper one.
            dpotrf(&upper, &n, &matrix[0, 0], &n, &info)
        else:
            for i in range(n):
                for j in range(i):
                    length = <blas_int>j
                    share = ddot(&length, &matrix[i, 0], &one, &matrix[j, 0], &one)
                    matrix[i, j] = (matrix[i, j] - share) / matrix[j, j]
                length = <blas_int>i
                pivot = matrix[i, i] - ddot(&length, &matrix[i, 0], &one, &matrix[i, 0], &one)
                if not pivot > 0:
                    info = 1
                    break
                matrix[i, i] = sqrt(pivot)
    return info == 0


def solve(const double[:, ::1] factor, double[:, ::1] rows):
    """Each of the rows x, in place, to the solution of L L' y = x; L is the lower triangle of factor."""
    cdef:
        char upper = b'U'
        blas_int n = <blas_int>factor.shape[0], m = <blas_int>rows.shape[0], one = 1, length, info
        Py_ssize_t r, i
        double share
    with nogil:
        if n > SMALL_FACTOR and m >= 4:
            dpotrs(&upper, &n, &m, <double*>&factor[0, 0], &n, &rows[0, 0], &n, &info)
        else:
            for r in range(m):
                for i in range(n):
                    length = <blas_int>i
                    share = ddot(&length, <double*>&factor[i, 0], &one, &rows[r, 0], &one)
                    rows[r, i] = (rows[r, i] - share) / factor[i, i]
                for i in range(n - 1, -1, -1):
                    length = <blas_int>i
                    rows[r, i] /= factor[i, i]
                    share = -rows[r, i]
                    daxpy(&length, &share, <double*>&factor[i, 0], &one, &rows[r, 0], &one)


# ---- L-BFGS -----------------------------------------------------------------------------------------------------

def pairs_backward(const double[:, ::1] steps, const double[:, ::1] turns, const double[::1] rho, Py_ssize_t newest,
                   Py_ssize_t count, double[::1] vector, double[::1] shares):
    """First loop of L-BFGS's recursion, newest pair first: vector -= share turn, share = rho step.vector."""
    cdef:
        Py_ssize_t slots = steps.shape[0], _i, slot = newest
        blas_int n = <blas_int>vector.shape[0], one = 1
        double factor
    with nogil:
        for _i in range(count):
            shares[slot] = rho[slot] * ddot(&n, <double*>&steps[slot, 0], &one, &vector[0], &one)
            factor = -shares[slot]
            daxpy(&n, &factor, <double*>&turns[slot, 0], &one, &vector[0], &one)
            slot = slot - 1 if slot > 0 else slots - 1


def pairs_forward(const double[:, ::1] steps, const double[:, ::1] turns, const double[::1] rho, Py_ssize_t newest,
                  Py_ssize_t count, double[::1] vector, const double[::1] shares):
    """Second loop, oldest pair first: vector += (share - rho turn.vector) step."""
    cdef:
        Py_ssize_t slots = steps.shape[0], i, slot
        blas_int n = <blas_int>vector.shape[0], one = 1
        double factor
    with nogil:
        for i in range(count):
            slot = newest - (count - 1 - i)
            slot = slot if slot >= 0 else slot + slots
            factor = shares[slot] - rho[slot] * ddot(&n, <double*>&turns[slot, 0], &one, &vector[0], &one)
            daxpy(&n, &factor, <double*>&steps[slot, 0], &one, &vector[0], &one)


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
