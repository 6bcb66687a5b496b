# cython: language_level=3
"""The linear algebra of the solvers, float64: symmetric products, Cholesky factors, the recursion of L-BFGS.

Like _core it trusts its arguments.
"""
from libc.math cimport fabs, sqrt
from libc.string cimport memcpy
from scipy.linalg.cython_blas cimport daxpy, ddot, dgemm, dsyrk
from scipy.linalg.cython_lapack cimport dpotrf, dpotrs

include "_blas_int.pxi"

cdef enum:
    SHORT = 100000  # multiplications for which the GIL is kept: another thread would take it for longer than they last
    # Threads of BLAS, once woken, spin for 25 ms and hold up the passes that follow: only larger factors, and solves of
    # more multiplications, are worth that.
    LARGE_FACTOR = 1024
    LONG_SOLVE = 100000000
    # Products of so many rows, columns and terms OpenBLAS keeps on the calling thread.
    TALL = 40
    PANEL = 48
    DEEP = 256
    TOGETHER = 512  # columns at a time, which stay in the cache
    ALONE = 8192  # elements of vectors that OpenBLAS keeps on the calling thread


# ---- vectors ------------------------------------------------------------------------------------------------------

cdef double inner(Py_ssize_t n, const double *x, const double *y) noexcept nogil:
    """x.y, by pieces, which BLAS does not give to threads."""
    cdef:
        Py_ssize_t start = 0
        blas_int length, one = 1
        double total = 0
    while start < n:
        length = <blas_int>min(<Py_ssize_t>ALONE, n - start)
        total += ddot(&length, <double*>x + start, &one, <double*>y + start, &one)
        start += ALONE
    return total


cdef void add_to(Py_ssize_t n, double factor, const double *x, double *y) noexcept nogil:
    """y += factor x."""
    cdef:
        Py_ssize_t start = 0
        blas_int length, one = 1
    while start < n:
        length = <blas_int>min(<Py_ssize_t>ALONE, n - start)
        daxpy(&length, &factor, <double*>x + start, &one, y + start, &one)
        start += ALONE


def dot(const double[::1] x, const double[::1] y):
    """x.y on the calling thread alone."""
    cdef:
        Py_ssize_t n = x.shape[0]
        double total = 0
    if n < SHORT:
        return inner(n, &x[0], &y[0]) if n else 0.0
    with nogil:
        total = inner(n, &x[0], &y[0])
    return total


def exchange(double[::1] old, double[::1] new):
    """The new vector goes where the old one is, and its change where it was."""
    cdef Py_ssize_t i
    cdef double change
    for i in range(old.shape[0]):
        change = new[i] - old[i]
        old[i] = new[i]
        new[i] = change


# ---- standardised coordinates -----------------------------------------------------------------------------------

def plain(const double[:, ::1] theta, const double[::1] unit, const double[::1] center, double[::1] intercept):
    """Intercepts b = c - w.center of the rows (u, c) of theta, where there are any, w = u * unit; and ||w||^2 in all.
    """
    cdef:
        Py_ssize_t d = unit.shape[0], k
        double shift, squares = 0
    for k in range(theta.shape[0]):
        shift = 0
        if d > 0:
            _plain(d, &theta[k, 0], &unit[0], &center[0], &shift, &squares)
        intercept[k] = theta[k, d] - shift if theta.shape[1] > d else 0
    return squares


cdef void _plain(Py_ssize_t d, const double *u, const double *unit, const double *center, double *shift,
                 double *squares) noexcept nogil:
    cdef:
        Py_ssize_t j
        double w0, w1, w2, w3
        double s0 = 0, s1 = 0, s2 = 0, s3 = 0, p0 = 0, p1 = 0, p2 = 0, p3 = 0  # no addition waits for the one before
    for j in range(0, d - 3, 4):
        w0, w1, w2, w3 = u[j] * unit[j], u[j + 1] * unit[j + 1], u[j + 2] * unit[j + 2], u[j + 3] * unit[j + 3]
        s0 += w0 * w0
        s1 += w1 * w1
        s2 += w2 * w2
        s3 += w3 * w3
        p0 += w0 * center[j]
        p1 += w1 * center[j + 1]
        p2 += w2 * center[j + 2]
        p3 += w3 * center[j + 3]
    for j in range(d // 4 * 4, d):
        w0 = u[j] * unit[j]
        s0 += w0 * w0
        p0 += w0 * center[j]
    squares[0] += (s0 + s1) + (s2 + s3)
    shift[0] += (p0 + p1) + (p2 + p3)


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
    """Lower triangle of out += Z' diag(root_weight^2) Z; work holds a block of rows of Z."""
    cdef Py_ssize_t n = Z.shape[0], d = Z.shape[1], i = 0, rows
    with nogil:
        while i < n:
            rows = min(work.shape[0], n - i)
            scale_rows(rows, d, &Z[i, 0], &root_weight[i], 1, &work[0, 0], d)
            add_gram(1, rows, d, &work[0, 0], &out[0, 0], d)
            i += rows


def add_hessian_of_penalty(const double[::1] penalty, double[:, ::1] out):
    """Lower triangle of out += (I - 11'/K) (x) diag(penalty), over the first K - 1 classes.

    It is the curvature of the penalty for a step with the last class at zero, centred afterwards.
    """
    cdef Py_ssize_t d = penalty.shape[0], n_classes = out.shape[0] // d, r, k, other
    cdef double shared = -1.0 / (n_classes + 1)
    for k in range(n_classes):
        for other in range(k + 1):
            for r in range(d):
                out[k * d + r, other * d + r] += penalty[r] * (shared + (k == other))


def hessian(const double[:, ::1] Z, const double[:, ::1] probability, const double[::1] weight, double[:, ::1] out,
            double[:, ::1] work, double[:, ::1] factors):
    """Lower triangle of out += sum_i weight_i (diag(p_i) - p_i p_i') (x) z_i z_i', over the columns of `probability`.

    The part of p p' is one symmetric product of the rows p_i (x) z_i, that of diag(p) one for each class. work holds a
    block of those rows, factors as many rows of probabilities.
    """
    cdef Py_ssize_t n = Z.shape[0], d = Z.shape[1], n_classes = probability.shape[1], size = d * n_classes
    cdef Py_ssize_t i = 0, r, k, rows
    with nogil:
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


def equilibrate(double[:, ::1] lower, double[::1] unit):
    """Scale a symmetric matrix, by its lower triangle, to a diagonal of ones: lower_rs *= unit_r unit_s.

    unit is 0 where the diagonal is not positive or is infinite: such rows become those of the identity.
    """
    cdef Py_ssize_t r, s
    cdef double scaled
    for r in range(unit.shape[0]):
        unit[r] = 1 / sqrt(lower[r, r]) if lower[r, r] > 0 else 0
    for r in range(unit.shape[0]):
        for s in range(r):
            scaled = lower[r, s] * unit[r] * unit[s]
            lower[r, s] = scaled if scaled == scaled else 0
        lower[r, r] = 1


def factorise(const double[:, ::1] lower, double ridge, double[:, ::1] factor):
    """Cholesky factor of a matrix, given by its lower triangle, plus ridge I; False if that is not positive definite.

    LAPACK would give even a 20 x 20 factorisation to all threads of OpenBLAS.
    """
    cdef Py_ssize_t n = lower.shape[0], r
    for r in range(n):
        memcpy(&factor[r, 0], &lower[r, 0], (r + 1) * sizeof(double))
        factor[r, r] += ridge
    if n * n * n < 6 * SHORT:
        return _factorise(n, &factor[0, 0])
    with nogil:
        definite = _factorise(n, &factor[0, 0])
    return definite


cdef bint _factorise(Py_ssize_t size, double *matrix) noexcept nogil:
    cdef:
        char upper = b'U'
        blas_int n = <blas_int>size, one = 1, length, info = 0
        Py_ssize_t start = 0, stop, i, j
        double pivot
        double *row
    if size > LARGE_FACTOR:
        # To LAPACK the matrix is its transpose, so our lower triangle is its upper one.
        dpotrf(&upper, &n, matrix, &n, &info)
        return info == 0
    while start < size:
        stop = min(start + PANEL, size)
        _subtract_before(size, start, stop, matrix)
        for i in range(start, size):
            row = matrix + i * size
            for j in range(start, min(i, stop)):
                length = <blas_int>(j - start)
                row[j] -= ddot(&length, row + start, &one, matrix + j * size + start, &one)
                row[j] /= matrix[j * size + j]
            if i < stop:
                length = <blas_int>(i - start)
                pivot = row[i] - ddot(&length, row + start, &one, row + start, &one)
                if not pivot > 0:
                    return False
                row[i] = sqrt(pivot)
        start = stop
    return True


cdef void _subtract_before(Py_ssize_t size, Py_ssize_t start, Py_ssize_t stop, double *matrix) noexcept nogil:
    """From some columns of the lower triangle, what the columns of the factor before them add up to there."""
    cdef:
        char transposed = b'T', plain = b'N'
        double minus = -1, one = 1
        blas_int n = <blas_int>size, width = <blas_int>(stop - start), rows, depth
        Py_ssize_t i = start, k
    while i < size:
        rows, k = <blas_int>min(<Py_ssize_t>TALL, size - i), 0
        while k < start:
            depth = <blas_int>min(<Py_ssize_t>DEEP, start - k)
            dgemm(&transposed, &plain, &width, &rows, &depth, &minus, matrix + start * size + k, &n,
                  matrix + i * size + k, &n, &one, matrix + i * size + start, &n)
            k += depth
        i += rows


def solve(const double[:, :, ::1] factors, const double[:, ::1] units, const Py_ssize_t[::1] member,
          double[:, ::1] rows):
    """Row number r, in place, to u L'^-1 L^-1 u row: u = units[member[r]], L the lower triangle of factors[member[r]].
    """
    scale(units, member, rows)
    if rows.shape[1] * rows.shape[1] * rows.shape[0] < SHORT:
        _solve(factors, member, rows)
    else:
        with nogil:
            _solve(factors, member, rows)
    scale(units, member, rows)


cdef void scale(const double[:, ::1] units, const Py_ssize_t[::1] member, double[:, ::1] rows) noexcept nogil:
    cdef Py_ssize_t r, j
    for r in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            rows[r, j] *= units[member[r], j]


def centre(double[:, ::1] rows):
    """Subtract the mean of the rows from each."""
    cdef Py_ssize_t n = rows.shape[0], r, j, start, stop
    cdef double[TOGETHER] mean
    for start in range(0, rows.shape[1], TOGETHER):
        stop = min(start + TOGETHER, rows.shape[1])
        for j in range(stop - start):
            mean[j] = 0
        for r in range(n):
            for j in range(stop - start):
                mean[j] += rows[r, start + j]
        for j in range(stop - start):
            mean[j] /= n
        for r in range(n):
            for j in range(stop - start):
                rows[r, start + j] -= mean[j]


cdef void _solve(const double[:, :, ::1] factors, const Py_ssize_t[::1] member, double[:, ::1] rows) noexcept nogil:
    """Rows of one member take each row of its factor together, which comes from far."""
    cdef:
        char upper = b'U'
        blas_int n = <blas_int>rows.shape[1], m, one = 1, length, info
        Py_ssize_t first = 0, last, i, r
        const double *factor
        double share
    while first < rows.shape[0]:
        last = first + 1
        while last < rows.shape[0] and member[last] == member[first]:
            last += 1
        factor, m = &factors[member[first], 0, 0], <blas_int>(last - first)
        if <Py_ssize_t>n * n * m > LONG_SOLVE:
            dpotrs(&upper, &n, &m, <double*>factor, &n, &rows[first, 0], &n, &info)
            first = last
            continue
        for i in range(n):
            length = <blas_int>i
            for r in range(first, last):
                share = ddot(&length, <double*>factor + i * n, &one, &rows[r, 0], &one)
                rows[r, i] = (rows[r, i] - share) / factor[i * n + i]
        for i in range(n - 1, -1, -1):
            length = <blas_int>i
            for r in range(first, last):
                rows[r, i] /= factor[i * n + i]
                share = -rows[r, i]
                daxpy(&length, &share, <double*>factor + i * n, &one, &rows[r, 0], &one)
        first = last


# ---- L-BFGS -----------------------------------------------------------------------------------------------------

def pairs_backward(const double[:, ::1] steps, const double[:, ::1] turns, const double[::1] rho, Py_ssize_t newest,
                   Py_ssize_t count, double[::1] vector, double[::1] shares):
    """First loop of L-BFGS's recursion, newest pair first: vector -= share turn, share = rho step.vector."""
    if count * vector.shape[0] < SHORT:
        _pairs_backward(steps, turns, rho, newest, count, vector, shares)
    else:
        with nogil:
            _pairs_backward(steps, turns, rho, newest, count, vector, shares)


cdef void _pairs_backward(const double[:, ::1] steps, const double[:, ::1] turns, const double[::1] rho,
                          Py_ssize_t newest, Py_ssize_t count, double[::1] vector,
                          double[::1] shares) noexcept nogil:
    cdef:
        Py_ssize_t slots = steps.shape[0], _i, slot = newest
        Py_ssize_t n = vector.shape[0]
    for _i in range(count):
        shares[slot] = rho[slot] * inner(n, &steps[slot, 0], &vector[0])
        add_to(n, -shares[slot], &turns[slot, 0], &vector[0])
        slot = slot - 1 if slot > 0 else slots - 1


def pairs_forward(const double[:, ::1] steps, const double[:, ::1] turns, const double[::1] rho, Py_ssize_t newest,
                  Py_ssize_t count, double[::1] vector, const double[::1] shares):
    """Second loop, oldest pair first: vector += (share - rho turn.vector) step."""
    if count * vector.shape[0] < SHORT:
        _pairs_forward(steps, turns, rho, newest, count, vector, shares)
    else:
        with nogil:
            _pairs_forward(steps, turns, rho, newest, count, vector, shares)


cdef void _pairs_forward(const double[:, ::1] steps, const double[:, ::1] turns, const double[::1] rho,
                         Py_ssize_t newest, Py_ssize_t count, double[::1] vector,
                         const double[::1] shares) noexcept nogil:
    cdef:
        Py_ssize_t slots = steps.shape[0], i, slot
        Py_ssize_t n = vector.shape[0]
    for i in range(count):
        slot = newest - (count - 1 - i)
        slot = slot if slot >= 0 else slot + slots
        add_to(n, shares[slot] - rho[slot] * inner(n, &turns[slot, 0], &vector[0]), &steps[slot, 0], &vector[0])


# ---- coordinate descent -------------------------------------------------------------------------------------------

cdef inline double shrunk(double value, double by) noexcept nogil:
    """The minimiser of 1/2 (v - value)^2 + by |v|."""
    return value - by if value > by else value + by if value < -by else 0


def descend(const double[:, ::1] H, const double[::1] gradient, const double[::1] l1, const double[::1] start,
            double[::1] step, double[::1] product, double tol, Py_ssize_t most):
    """Minimise gradient.d + 1/2 d'H d + sum_a l1_a |start_a + d_a| over d, one coordinate after the other.

    step is d, to begin with and in the end, product H d. Ends when a sweep changes no slope by more than tol, or after
    `most` sweeps; returns that change.
    """
    cdef:
        Py_ssize_t n = step.shape[0], _sweep, a, b
        double largest = 0, value, change
    with nogil:
        for _sweep in range(most):
            largest = 0
            for a in range(n):
                if H[a, a] <= 0:
                    continue
                value = start[a] + step[a]
                change = shrunk(value - (gradient[a] + product[a]) / H[a, a], l1[a] / H[a, a]) - value
                if change == 0:
                    continue
                step[a] += change
                for b in range(n):
                    product[b] += change * H[a, b]
                largest = max(largest, fabs(change) * H[a, a])
            if largest <= tol:
                break
    return largest


def descend_low_rank(const double[::1] diagonal, const double[:, ::1] left, const double[:, ::1] right,
                     const double[::1] gradient, const double[::1] l1, const double[::1] start, double[::1] step,
                     double[::1] product, double tol, Py_ssize_t most):
    """The same with H = diag(diagonal) - left right'; product is right'd."""
    cdef:
        Py_ssize_t n = step.shape[0], rank = left.shape[1], _sweep, a, r
        double largest = 0, value, change, slope, curvature
    with nogil:
        for _sweep in range(most):
            largest = 0
            for a in range(n):
                slope, curvature = gradient[a] + diagonal[a] * step[a], diagonal[a]
                for r in range(rank):
                    slope -= left[a, r] * product[r]
                    curvature -= left[a, r] * right[a, r]
                curvature = max(curvature, 1e-6 * diagonal[a])
                value = start[a] + step[a]
                change = shrunk(value - slope / curvature, l1[a] / curvature) - value
                if change == 0:
                    continue
                step[a] += change
                for r in range(rank):
                    product[r] += change * right[a, r]
                largest = max(largest, fabs(change) * curvature)
            if largest <= tol:
                break
    return largest
