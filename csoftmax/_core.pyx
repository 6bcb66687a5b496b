# cython: language_level=3
"""Passes over the rows of X with coefficients: loss and gradient, scores.

Everything here trusts its arguments: _validation has checked them, and the callers hand in the workspace. What takes
long releases the GIL for all of its work, so that several threads may share one X, each on its own rows.
"""
from libc.string cimport memcpy, memset
from scipy.linalg.cython_blas cimport dgemm, sgemm

from ._kernels cimport (
    ALIGNMENT, Layout, cs_kernels, cs_table, floating, int32_t, int64_t, integer, layout_of, padded,
)

include "_blas_int.pxi"

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


# ---- X -----------------------------------------------------------------------------------------------------------

cdef struct Rows:
    # X: dense and row-major, or CSR if there are indices, which are int64 if wide.
    const void *values
    const void *indices
    const void *indptr
    bint wide
    Py_ssize_t n
    Py_ssize_t d

cdef Layout checked_layout(const Rows *X, Py_ssize_t n_columns, object how, Py_ssize_t itemsize,
                           Py_ssize_t size) except *:
    """The layout for the kernels in use; ValueError if coefficients were packed in another or do not fill it."""
    cdef Layout w = layout_of(X.d, n_columns, how["tiled"], X.indices != NULL, itemsize)
    if how != w or size < w.size:
        raise ValueError("coefficients were packed in another layout: the instruction set was changed since then")
    return w


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
                            next_rows(x, X.d, start, rows, stop), class_major)
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

cpdef bint make_a_sum(Py_ssize_t rows, Py_ssize_t entries, Py_ssize_t d) noexcept nogil:
    """Whether so many rows of so many entries are to be added up apart from those before and after, in float32.

    Added to a long sum one by one, rows would lose half their digits; but each sum costs as much as d entries.
    """
    return rows >= 1024 and entries >= 16 * d


def workspace_size(Py_ssize_t n_columns, Py_ssize_t block, Py_ssize_t itemsize, Py_ssize_t gradient):
    """Number of values that a pass needs as its `work`; with a gradient of this size, if float32 is added up apart."""
    return padded((n_columns + 2) * block, ALIGNMENT) + ALIGNMENT // itemsize + (gradient if itemsize == 4 else 0)


def loss_gradient(const floating[:, ::1] X, const int[::1] y, const floating[::1] weight, Py_ssize_t n_columns,
                  how, const floating[::1] packed, const Py_ssize_t[::1] bounds, Py_ssize_t block, Py_ssize_t first,
                  Py_ssize_t last, double[::1] losses, floating[:, ::1] gradients, floating[::1] work,
                  double[::1] lost=None, const floating[:, ::1] chance=None):
    """Chunks from first to before last, the rows between these bounds: sums of weighted losses, and gradients.

    `how` is the layout of the coefficients in `packed`, and of the gradients. One column means two classes. Blocks of
    `block` rows go to logits, to residuals in place, and into the gradient while they are in the cache: X is read from
    memory once. With `lost`, one value for each chunk, what is found is added to what is there, as if the rows followed
    those before them; the loss is then losses + lost. With `chance`, the probabilities of all rows, (n, n_columns), the
    gradients are the products of the Hessian there and the coefficients, and there is no loss.
    """
    cdef Rows rows = dense_rows(X)
    cdef floating[::1] none = None
    cdef double[::1] no_center = None
    add_chunks(&rows, y, weight, n_columns, how, packed, bounds, block, first, last, losses, gradients, work, none,
               none, 0, no_center, none, lost, chance)


def loss_gradient_csr(const floating[::1] values, const integer[::1] indices, const integer[::1] indptr, Py_ssize_t d,
                      const int[::1] y, const floating[::1] weight, Py_ssize_t n_columns, how,
                      const floating[::1] packed, const Py_ssize_t[::1] bounds, Py_ssize_t block,
                      Py_ssize_t first, Py_ssize_t last, double[::1] losses, floating[:, ::1] gradients,
                      floating[::1] work, floating[::1] kept=None, const floating[::1] direction=None,
                      double step=0, const double[::1] center=None, floating[::1] squares=None):
    """The same for CSR; indices may come in any order and more than once.

    If scores are kept, as `keep_scores_csr` stores them, they move on by step * direction, and are what the loss is
    taken of, instead of those of the coefficients. If there is a center, weight p (1 - p) takes the place of the
    residuals, and (x - center)^2 - center^2 that of x: the sums make the diagonal of the Hessian. `squares` has room
    for those of any block.
    """
    cdef Rows rows = sparse_rows(values, indices, indptr, d)
    cdef double[::1] not_lost = None
    cdef floating[:, ::1] no_chance = None
    add_chunks(&rows, y, weight, n_columns, how, packed, bounds, block, first, last, losses, gradients, work, kept,
               direction, step, center, squares, not_lost, no_chance)


def keep_scores_csr(const floating[::1] values, const integer[::1] indices, const integer[::1] indptr, Py_ssize_t d,
                    Py_ssize_t n_columns, how, const floating[::1] packed, const Py_ssize_t[::1] bounds,
                    Py_ssize_t block, Py_ssize_t first, Py_ssize_t last, floating[::1] kept, floating[::1] work):
    """Scores of all rows of these chunks, each block class-major without padding, where its first row begins."""
    cdef:
        Rows rows = sparse_rows(values, indices, indptr, d)
        Layout w = checked_layout(&rows, n_columns, how, sizeof(floating), packed.shape[0])
        floating *space
        Py_ssize_t chunk, i, k, count
    check_kept(&rows, n_columns, bounds[last], block, kept, kept, work)
    with nogil:
        space = <floating*>padded(<Py_ssize_t>&work[0], ALIGNMENT)
        for chunk in range(first, last):
            i = bounds[chunk]
            while i < bounds[chunk + 1]:
                count = min(block, bounds[chunk + 1] - i)
                block_logits(&rows, i, count, bounds[chunk + 1], &packed[0], w, space, True, block)
                for k in range(n_columns):
                    memcpy(&kept[i * n_columns + k * count], space + k * block, count * sizeof(floating))
                i += count


def loss_along(const int[::1] y, const floating[::1] weight, Py_ssize_t n_columns, const Py_ssize_t[::1] bounds,
               Py_ssize_t block, Py_ssize_t first, Py_ssize_t last, double[::1] losses, double[::1] slopes,
               floating[::1] work, const floating[::1] kept, const floating[::1] direction, double step):
    """Losses of the rows whose scores are kept + step * direction, chunk by chunk, and their slopes by step."""
    cdef:
        Rows rows = Rows(NULL, NULL, NULL, False, min(y.shape[0], weight.shape[0]), 0)
        const cs_kernels *kernels = cs_table(sizeof(floating))
        floating *z
        Py_ssize_t chunk, i, k, count
        double loss, slope
    check_kept(&rows, n_columns, bounds[last], block, kept, direction, work)
    with nogil:
        z = <floating*>padded(<Py_ssize_t>&work[0], ALIGNMENT)
        for chunk in range(first, last):
            loss, slope, i = 0, 0, bounds[chunk]
            while i < bounds[chunk + 1]:
                count = min(block, bounds[chunk + 1] - i)
                moved(count, n_columns, &kept[i * n_columns], &direction[i * n_columns], <floating>step, z, block)
                loss += kernels.residual(count, n_columns, z, block, &y[i], &weight[i], z + n_columns * block)
                for k in range(n_columns):
                    slope += inner(count, z + k * block, &direction[i * n_columns + k * count])
                i += count
            losses[chunk], slopes[chunk] = loss, slope


cdef double inner(Py_ssize_t n, const floating *x, const floating *y) noexcept nogil:
    cdef:
        double sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0  # no addition waits for the one before
        Py_ssize_t i
    for i in range(0, n - 3, 4):
        sum0 += <double>x[i] * <double>y[i]
        sum1 += <double>x[i + 1] * <double>y[i + 1]
        sum2 += <double>x[i + 2] * <double>y[i + 2]
        sum3 += <double>x[i + 3] * <double>y[i + 3]
    for i in range(n // 4 * 4, n):
        sum0 += <double>x[i] * <double>y[i]
    return (sum0 + sum1) + (sum2 + sum3)


cdef int check_kept(const Rows *X, Py_ssize_t n_columns, Py_ssize_t stop, Py_ssize_t block, const floating[::1] kept,
                    const floating[::1] direction, const floating[::1] work) except -1:
    """ValueError unless arrays hold the scores of rows up to stop, and a block."""
    if stop > X.n or min(kept.shape[0], direction.shape[0]) < stop * n_columns:
        raise ValueError(f"scores are kept of {min(kept.shape[0], direction.shape[0]) // n_columns} of {X.n} rows")
    if work.shape[0] < workspace_size(n_columns, block, sizeof(floating), 0):
        raise ValueError("work is too small")
    return 0


cdef void moved(Py_ssize_t rows, Py_ssize_t n_columns, const floating *kept, const floating *direction, floating step,
                floating *z, Py_ssize_t ld) noexcept nogil:
    """z = kept + step * direction; z is class-major with stride ld."""
    cdef Py_ssize_t r, k
    for k in range(n_columns):
        for r in range(rows):
            z[k * ld + r] = kept[k * rows + r] + step * direction[k * rows + r]


cdef int add_chunks(const Rows *X, const int[::1] y, const floating[::1] weight, Py_ssize_t n_columns, object how,
                    const floating[::1] packed, const Py_ssize_t[::1] bounds,
                    Py_ssize_t block, Py_ssize_t first, Py_ssize_t last, double[::1] losses,
                    floating[:, ::1] gradients, floating[::1] work, floating[::1] kept, const floating[::1] direction,
                    double step, const double[::1] center, floating[::1] squares, double[::1] lost,
                    const floating[:, ::1] chance) except -1:
    cdef:
        Layout w = checked_layout(X, n_columns, how, sizeof(floating),
                                  min(packed.shape[0], gradients.shape[1]))
        # Room for a second gradient means that it is to be used.
        bint apart = (sizeof(floating) == sizeof(float)
                      and work.shape[0] >= workspace_size(n_columns, block, sizeof(floating), w.size))
        floating *space
        floating *scores = NULL
        const floating *ahead = NULL
        const double *centers = NULL
        floating *room = NULL
        const floating *chances = NULL
        double rest
        Py_ssize_t i, j
    if work.shape[0] < workspace_size(n_columns, block, sizeof(floating), 0):
        raise ValueError("work is too small")
    if (kept is None) != (direction is None) or (center is None) != (squares is None):
        raise TypeError("kept scores go with a direction, and a center with room for squares")
    if kept is not None and bounds[last] > 0:
        check_kept(X, n_columns, bounds[last], block, kept, direction, work)
        scores, ahead = &kept[0], &direction[0]
    if center is not None:
        for i in range(first, last):
            for j in range(bounds[i], bounds[i + 1], block):
                if entries(X, j, min(j + block, bounds[i + 1])) > squares.shape[0] or center.shape[0] < X.d:
                    raise ValueError("center is shorter than the rows, or squares than the entries of a block")
        # Not NULL, which stands for none, where no row has an entry.
        centers, room = &center[0], &squares[0] if squares.shape[0] else &work[0]
    if bounds[last] > X.n or y.shape[0] < X.n or weight.shape[0] < X.n:
        raise ValueError(f"X has {X.n} rows, y {y.shape[0]}, weight {weight.shape[0]}; chunks end at {bounds[last]}")
    if chance is not None:
        if chance.shape[0] < X.n or chance.shape[1] != n_columns:
            raise ValueError(f"chance has shape ({chance.shape[0]}, {chance.shape[1]}): expected ({X.n}, {n_columns})")
        if X.n:
            chances = &chance[0, 0]
    if lost is not None and lost.shape[0] < last:
        raise ValueError("lost is shorter than the chunks")
    with nogil:
        space = <floating*>padded(<Py_ssize_t>&work[0], ALIGNMENT)
        for i in range(first, last):
            rest = 0
            if lost is None:
                memset(&gradients[i, 0], 0, gradients.shape[1] * sizeof(floating))
                losses[i] = 0
            else:
                rest = lost[i]
            if bounds[i] < bounds[i + 1]:
                chunk_loss_gradient(X, &y[0], &weight[0], &packed[0], w, bounds[i], bounds[i + 1], block,
                                    &gradients[i, 0], space, apart, scores, ahead, <floating>step, centers, room,
                                    chances, &losses[i], &rest)
            if lost is None:
                losses[i] += rest
            else:
                lost[i] = rest
    return 0


cdef void chunk_loss_gradient(const Rows *X, const int *y, const floating *weight, const floating *packed, Layout w,
                              Py_ssize_t start, Py_ssize_t stop, Py_ssize_t block, floating *sums,
                              floating *z, bint apart, floating *kept, const floating *direction,
                              floating step, const double *center, floating *squares, const floating *chance,
                              double *loss, double *lost) noexcept nogil:
    cdef:
        const cs_kernels *kernels = cs_table(sizeof(floating))
        Py_ssize_t i = start, rows, mark = start, k
        floating *gradient = z + padded((w.n_columns + 2) * block, ALIGNMENT) if apart else sums
        floating *by_intercept = gradient + padded(X.d, w.fold) * w.width
        const floating *x
        const floating *values
        double part, total
    if apart:
        memset(gradient, 0, w.size * sizeof(floating))
    while i < stop:
        rows = min(block, stop - i)
        if kept == NULL:
            block_logits(X, i, rows, stop, packed, w, z, True, block)
        else:
            moved(rows, w.n_columns, kept + i * w.n_columns, direction + i * w.n_columns, step, z, block)
            for k in range(w.n_columns):
                memcpy(kept + i * w.n_columns + k * rows, z + k * block, rows * sizeof(floating))
        if chance == NULL:
            part = kernels.residual(rows, w.n_columns, z, block, y + i, weight + i, z + w.n_columns * block)
        else:
            part = 0
            scores_to_product(rows, w.n_columns, z, block, weight + i, chance + i * w.n_columns)
        values = <const floating*>X.values
        if center != NULL:
            residual_to_spread(rows, w.n_columns, z, block, weight + i)
            values = centred_squares(X, entries(X, 0, i), entries(X, 0, i + rows), center, squares)
        x = <const floating*>X.values + i * X.d
        if X.indices != NULL:
            kernels.sparse_gradient(rows, w.n_columns, values, X.indices, X.indptr, X.wide, i, z, block, gradient)
        elif w.tiled:
            # Logits fetch the first half of the next block, the gradient the second.
            kernels.tile_gradient(rows, X.d, w.n_columns, x, z, block, gradient,
                                  next_rows(x, X.d, i, rows, stop) + rows * X.d // 2, True)
        else:
            gemm(False, False, w.n_columns, X.d, rows, z, block, x, X.d, <floating>1, gradient, X.d)
        kernels.class_sums(rows, w.n_columns, z, block, by_intercept)
        # Neumaier's sum: what each addition loses is kept, so the error does not grow with the number of blocks.
        total = loss[0] + part
        lost[0] += (loss[0] - total) + part if abs(loss[0]) >= abs(part) else (part - total) + loss[0]
        loss[0] = total
        i += rows
        if apart and (i == stop or make_a_sum(i - mark, entries(X, mark, i), X.d)):
            add_and_clear(w.size, gradient, sums)
            mark = i


cdef const floating *centred_squares(const Rows *X, Py_ssize_t first, Py_ssize_t last, const double *center,
                                     floating *out) noexcept nogil:
    """(x - center)^2 - center^2 of the entries from first to last: what they add to that of a zero.

    They are found where the entries are, counted from the pointer returned.
    """
    cdef:
        const floating *values = <const floating*>X.values
        Py_ssize_t p, j
    for p in range(first, last):
        j = (<const int64_t*>X.indices)[p] if X.wide else (<const int32_t*>X.indices)[p]
        out[p - first] = <floating>(values[p] * (values[p] - 2 * center[j]))
    return <const floating*>(<Py_ssize_t>out - first * <Py_ssize_t>sizeof(floating))


cdef void residual_to_spread(Py_ssize_t rows, Py_ssize_t n_columns, floating *z, Py_ssize_t ld,
                             const floating *weight) noexcept nogil:
    """From weight (p - y) to weight p (1 - p), which does not depend on y."""
    cdef Py_ssize_t r, k
    cdef floating size
    for k in range(n_columns):
        for r in range(rows):
            size = abs(z[k * ld + r])
            z[k * ld + r] = size * (1 - size / weight[r])


cdef void scores_to_product(Py_ssize_t rows, Py_ssize_t n_columns, floating *z, Py_ssize_t ld, const floating *weight,
                            const floating *chance) noexcept nogil:
    """From changes z of the scores to those of weight p, weight (diag(p) - p p') z; p is that of the second class alone
    where there is one column.
    """
    cdef Py_ssize_t r, k
    cdef floating mean
    cdef const floating *p
    for r in range(rows):
        p, mean = chance + r * n_columns, 0
        for k in range(n_columns):
            mean += p[k] * z[k * ld + r]
        for k in range(n_columns):
            z[k * ld + r] = weight[r] * p[k] * (z[k * ld + r] - mean)


cdef inline Py_ssize_t entries(const Rows *X, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    if X.indices == NULL:
        return (stop - start) * X.d
    if X.wide:
        return (<const int64_t*>X.indptr)[stop] - (<const int64_t*>X.indptr)[start]
    return (<const int32_t*>X.indptr)[stop] - (<const int32_t*>X.indptr)[start]


cdef void add_and_clear(Py_ssize_t n, floating *part, floating *sums) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        sums[i] += part[i]
        part[i] = 0


# ---- scores and probabilities -----------------------------------------------------------------------------------

def scores(const floating[:, ::1] X, how, const floating[::1] packed, Py_ssize_t start, Py_ssize_t stop,
           Py_ssize_t block, floating[:, ::1] out):
    """out[start:stop] = X[start:stop] coef' + intercept, in blocks of rows."""
    cdef Rows rows = dense_rows(X)
    add_scores(&rows, how, packed, start, stop, block, out)


def scores_csr(const floating[::1] values, const integer[::1] indices, const integer[::1] indptr, Py_ssize_t d,
               how, const floating[::1] packed, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t block,
               floating[:, ::1] out):
    """The same for a CSR matrix."""
    cdef Rows rows = sparse_rows(values, indices, indptr, d)
    add_scores(&rows, how, packed, start, stop, block, out)


cdef int add_scores(const Rows *X, object how, const floating[::1] packed, Py_ssize_t start, Py_ssize_t stop,
                    Py_ssize_t block, floating[:, ::1] out) except -1:
    cdef Py_ssize_t i = start, rows
    cdef Layout w = checked_layout(X, out.shape[1], how, sizeof(floating), packed.shape[0])
    if stop > X.n or out.shape[0] < X.n:
        raise ValueError(f"X has {X.n} rows, out {out.shape[0]}, and the last row is to be {stop}")
    with nogil:
        while i < stop:
            rows = min(block, stop - i)
            block_logits(X, i, rows, stop, &packed[0], w, &out[i, 0], False, 0)
            i += rows
    return 0
