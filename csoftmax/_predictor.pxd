"""For compiled callers: `from csoftmax._predictor cimport Predictor`; see README.md, "From Cython"."""
cimport cython

from ._kernels cimport cs_kernels


@cython.final
cdef class Predictor:
    cdef readonly Py_ssize_t n_features
    cdef readonly Py_ssize_t n_classes
    cdef Py_ssize_t n_columns
    cdef Py_ssize_t n_used  # features that have a coefficient, whose numbers are `used`, or all of them if that is NULL
    cdef const Py_ssize_t *used
    cdef Py_ssize_t itemsize
    cdef int typenum
    cdef bint check_finite
    cdef bint tiled
    cdef const cs_kernels *kernels
    cdef const void *by_row
    cdef const void *by_tile
    cdef object _memory
    cdef object _places
    cdef object _coef
    cdef object _intercept
    cdef object _classes
    cdef object _labels
    cdef object _feature_names
    cdef object _report

    # x holds n rows of n_features values, contiguous, out n rows of n_classes; both of the model's dtype. 1, or 0 if a
    # row gives no probabilities (NaN or infinity in x, or scores that overflow), or -1 if there is no memory.
    cdef int probabilities(self, const void *x, Py_ssize_t n, void *out) noexcept nogil
    # The most probable class of each row, by its number.
    cdef int codes(self, const void *x, Py_ssize_t n, Py_ssize_t *out) noexcept nogil

    cdef bint _logits(self, const void *x, Py_ssize_t rows, void *z, Py_ssize_t row_stride, Py_ssize_t column_stride,
                      Py_ssize_t left, void *space) noexcept nogil
    cdef int _row_logits(self, const void *x, void *z, bint whole) noexcept nogil
    cdef bint _gather(self, const void *x, Py_ssize_t rows, void *space) noexcept nogil
    cdef int _fill(self, const void *x, Py_ssize_t n, void *out, int kind) noexcept nogil
    cdef int _fill_row(self, const void *x, void *out, int kind) noexcept nogil
    cdef bint _is_plain(self, object x, int ndim) noexcept
    cdef bint _tells(self, const void *row, int kind) noexcept nogil
    cdef object _answer(self, x, out, n_threads, int kind)
    cdef object _refuse(self, X, int good, int kind)
