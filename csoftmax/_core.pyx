# cython: language_level=3
"""Passes over the rows of X: loss and gradient, scores, column statistics.

Everything here trusts its arguments: _validation has checked them, and the callers hand in the workspace. What takes
long releases the GIL for all of its work, so that several threads may share one X, each on its own rows.
"""
import os

from libc.string cimport memcpy, memset
from scipy.linalg.cython_blas cimport dgemm, sgemm

include "_blas_int.pxi"

cdef enum:
    ALIGNMENT = 64
    FEATURES_AT_ONCE = 8  # change places together when they are packed: whole cache lines on both sides


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


# ---- X, and the layout of its coefficients ------------------------------------------------------------------------

cdef struct Rows:
    # X: dense and row-major, or CSR if there are indices, which are int64 if wide.
    const void *values
    const void *indices
    const void *indptr
    bint wide
    Py_ssize_t n
    Py_ssize_t d

cdef struct Layout:
    # Coefficients are stored by groups of `fold` features: for each column in turn those of the group, side by side;
    # columns are padded to `width`; intercepts follow. So BLAS's (K, d) has fold = d, and (d, K) has fold = 1.
    Py_ssize_t n_columns
    Py_ssize_t fold
    Py_ssize_t width
    bint tiled


cdef inline Py_ssize_t padded(Py_ssize_t n, Py_ssize_t multiple) noexcept nogil:
    return (n + multiple - 1) // multiple * multiple


def vector_bytes():
    """Width of a vector of the instruction set in use; 8 where the compiler has no vector type."""
    return cs_table(sizeof(double)).lanes * sizeof(double)


def layout(Py_ssize_t d, Py_ssize_t n_columns, bint tiled, bint sparse, Py_ssize_t itemsize):
    """(fold, width, size) of packed coefficients: for register tiles, for BLAS, or for the rows of a CSR matrix.

    size is a multiple of the alignment.
    """
    cdef:
        const cs_kernels *kernels = cs_table(itemsize)
        Py_ssize_t fold = 1 if sparse else kernels.tile_fold(n_columns) if tiled else d
        Py_ssize_t width = n_columns
    if tiled or sparse and n_columns > 1:
        width = padded(n_columns, kernels.lanes // fold)
    return fold, width, padded((padded(d, fold) + 1) * width, ALIGNMENT)


cdef Layout checked_layout(const Rows *X, Py_ssize_t n_columns, bint tiled, Py_ssize_t itemsize,
                           Py_ssize_t size) except *:
    """The layout for the kernels in use; ValueError if it needs more than size."""
    fold, width, needed = layout(X.d, n_columns, tiled, X.indices != NULL, itemsize)
    if size < needed:
        raise ValueError("packed coefficients are too few: the instruction set was changed since they were made")
    return Layout(n_columns, fold, width, tiled)


cdef inline Py_ssize_t place(Py_ssize_t j, Py_ssize_t k, Py_ssize_t d, Py_ssize_t fold,
                             Py_ssize_t width) noexcept nogil:
    """Where the group of features that begins with j has column k; a group that is not full ends its place."""
    return j * width + k * fold + max(0, fold - (d - j))


def pack(const floating[:, ::1] coef, const floating[::1] intercept, Py_ssize_t fold, Py_ssize_t width,
         floating[::1] packed):
    """Coefficients (K, d) and intercepts (K,) into a layout."""
    cdef Py_ssize_t d = coef.shape[1], n_columns = coef.shape[0], start = 0, stop, j, k, f, at
    if packed.shape[0] < (padded(d, fold) + 1) * width or width < n_columns:
        raise ValueError("packed is too small")
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
    if packed.shape[1] < (padded(d, fold) + 1) * width or width < n_columns:
        raise ValueError("packed is too small")
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


cdef Rows dense_rows(const floating[:, ::1] X) noexcept:
    cdef Rows rows = Rows(NULL, NULL, NULL, False, X.shape[0], X.shape[1])
    if X.shape[0] and X.shape[1]:
        rows.values = &X[0, 0]
    return rows


cdef Rows sparse_rows(const floating[::1] values, const integer[::1] indices, const integer[::1] indptr,
                      Py_ssize_t d) except *:
    """values and indices have as many entries as indptr ends with; indices lie in [0, d)."""
    if not 0 < indptr.shape[0] or not indptr[indptr.shape[0] - 1] <= min(values.shape[0], indices.shape[0]):
        raise ValueError("indptr does not fit the values and the indices")
    cdef Rows rows = Rows(&indptr[0], &indptr[0], &indptr[0], integer is int64_t, indptr.shape[0] - 1, d)
    if indptr[rows.n] > 0:
        rows.values, rows.indices = &values[0], &indices[0]
    return rows


cdef void block_logits(const Rows *X, Py_ssize_t start, Py_ssize_t rows, Py_ssize_t stop, const floating *packed,
                       Layout w, floating *z, bint class_major, Py_ssize_t ld) noexcept nogil:
    """Scores of some rows, class-major with stride ld, or row-major without padding."""
    cdef:
        const cs_kernels *kernels = cs_table(sizeof(floating))
        const floating *x = <const floating*>X.values + start * X.d
        const floating *intercept = packed + padded(X.d, w.fold) * w.width
        Py_ssize_t row_stride = 1 if class_major else w.n_columns, column_stride = ld if class_major else 1, i, k
    if X.indices != NULL:
        kernels.sparse_logits(rows, w.n_columns, X.values, X.indices, X.indptr, X.wide, start, packed, intercept, z,
                              row_stride, column_stride)
    elif w.tiled:
        kernels.tile_logits(rows, X.d, w.n_columns, x, packed, z, row_stride, column_stride,
                            x if class_major else next_rows(x, X.d, start, rows, stop))
    elif class_major:
        for k in range(w.n_columns):
            for i in range(rows):
                z[k * ld + i] = intercept[k]
        gemm(False, True, w.n_columns, rows, X.d, packed, X.d, x, X.d, <floating>1, z, ld)
    else:
        for i in range(rows):
            memcpy(z + i * w.n_columns, intercept, w.n_columns * sizeof(floating))
        gemm(False, True, rows, w.n_columns, X.d, x, X.d, packed, X.d, <floating>1, z, w.n_columns)


cdef inline const floating *next_rows(const floating *x, Py_ssize_t d, Py_ssize_t start, Py_ssize_t rows,
                                      Py_ssize_t stop) noexcept nogil:
    """The next block, if there is one of this size."""
    return x + rows * d if start + 2 * rows <= stop else x


# ---- loss and gradient ------------------------------------------------------------------------------------------

def workspace_size(Py_ssize_t n_columns, Py_ssize_t block, Py_ssize_t itemsize):
    """Number of values that a pass needs as its `work`."""
    return (n_columns + 2) * block + ALIGNMENT // itemsize


def loss_gradient(const floating[:, ::1] X, bint tiled, const int[::1] y, const floating[::1] weight,
                  Py_ssize_t n_columns, const floating[::1] packed, const Py_ssize_t[::1] bounds, Py_ssize_t block,
                  Py_ssize_t first, Py_ssize_t last, double[::1] losses, floating[:, ::1] gradients,
                  floating[::1] work):
    """The chunks numbered first to last, the rows between these bounds: sums of weighted losses, and gradients.

    One column means two classes. Blocks of `block` rows go to logits, to residuals in place, and into the gradient
    while they are in the cache: X is read from memory once. Gradients are packed as the coefficients are.
    """
    cdef Rows rows = dense_rows(X)
    add_chunks(&rows, tiled, y, weight, n_columns, packed, bounds, block, first, last, losses, gradients, work)


def loss_gradient_csr(const floating[::1] values, const integer[::1] indices, const integer[::1] indptr, Py_ssize_t d,
                      const int[::1] y, const floating[::1] weight, Py_ssize_t n_columns,
                      const floating[::1] packed, const Py_ssize_t[::1] bounds, Py_ssize_t block, Py_ssize_t first,
                      Py_ssize_t last, double[::1] losses, floating[:, ::1] gradients, floating[::1] work):
    """The same for CSR; indices may come in any order and more than once."""
    cdef Rows rows = sparse_rows(values, indices, indptr, d)
    add_chunks(&rows, False, y, weight, n_columns, packed, bounds, block, first, last, losses, gradients, work)


cdef int add_chunks(const Rows *X, bint tiled, const int[::1] y, const floating[::1] weight, Py_ssize_t n_columns,
                    const floating[::1] packed, const Py_ssize_t[::1] bounds, Py_ssize_t block, Py_ssize_t first,
                    Py_ssize_t last, double[::1] losses, floating[:, ::1] gradients,
                    floating[::1] work) except -1:
    cdef Py_ssize_t i
    cdef Layout w = checked_layout(X, n_columns, tiled, sizeof(floating), min(packed.shape[0], gradients.shape[1]))
    if work.shape[0] < workspace_size(n_columns, block, sizeof(floating)):
        raise ValueError("work is too small")
    with nogil:
        for i in range(first, last):
            memset(&gradients[i, 0], 0, gradients.shape[1] * sizeof(floating))
            losses[i] = chunk_loss_gradient(X, &y[0], &weight[0], &packed[0], w, bounds[i], bounds[i + 1], block,
                                            &gradients[i, 0], <floating*>padded(<Py_ssize_t>&work[0], ALIGNMENT))
    return 0


cdef double chunk_loss_gradient(const Rows *X, const int *y, const floating *weight, const floating *packed, Layout w,
                                Py_ssize_t start, Py_ssize_t stop, Py_ssize_t block, floating *gradient,
                                floating *z) noexcept nogil:
    cdef:
        const cs_kernels *kernels = cs_table(sizeof(floating))
        Py_ssize_t i = start, rows
        floating *by_intercept = gradient + padded(X.d, w.fold) * w.width
        const floating *x
        double loss = 0, lost = 0, part, total
    while i < stop:
        rows = min(block, stop - i)
        block_logits(X, i, rows, stop, packed, w, z, True, block)
        part = kernels.residual(rows, w.n_columns, z, block, y + i, weight + i, z + w.n_columns * block)
        x = <const floating*>X.values + i * X.d
        if X.indices != NULL:
            kernels.sparse_gradient(rows, w.n_columns, X.values, X.indices, X.indptr, X.wide, i, z, block, gradient)
        elif w.tiled:
            # The gradient finds its rows in the cache: memory is free to bring those of the next block.
            kernels.tile_gradient(rows, X.d, w.n_columns, x, z, block, gradient, next_rows(x, X.d, i, rows, stop))
        else:
            gemm(False, False, w.n_columns, X.d, rows, z, block, x, X.d, <floating>1, gradient, X.d)
        kernels.class_sums(rows, w.n_columns, z, block, by_intercept)
        # Neumaier's sum: what each addition loses is kept, so the error does not grow with the number of blocks.
        total = loss + part
        lost += (loss - total) + part if abs(loss) >= abs(part) else (part - total) + loss
        loss = total
        i += rows
    return loss + lost


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

def scores(const floating[:, ::1] X, const floating[::1] packed, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t block,
           bint tiled, floating[:, ::1] out):
    """out[start:stop] = X[start:stop] coef' + intercept, in blocks of rows."""
    cdef Rows rows = dense_rows(X)
    add_scores(&rows, packed, start, stop, block, tiled, out)


def scores_csr(const floating[::1] values, const integer[::1] indices, const integer[::1] indptr, Py_ssize_t d,
               const floating[::1] packed, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t block,
               floating[:, ::1] out):
    """The same for a CSR matrix."""
    cdef Rows rows = sparse_rows(values, indices, indptr, d)
    add_scores(&rows, packed, start, stop, block, False, out)


cdef int add_scores(const Rows *X, const floating[::1] packed, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t block,
                    bint tiled, floating[:, ::1] out) except -1:
    cdef Py_ssize_t i = start, rows
    cdef Layout w = checked_layout(X, out.shape[1], tiled, sizeof(floating), packed.shape[0])
    with nogil:
        while i < stop:
            rows = min(block, stop - i)
            block_logits(X, i, rows, stop, &packed[0], w, &out[i, 0], False, 0)
            i += rows
    return 0


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
