"""The kernels, as _kernel.h declares them, and the types of what they work on."""
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t

ctypedef fused floating:
    double
    float

ctypedef fused integer:
    int32_t
    int64_t

cdef extern from "_kernel.h" nogil:
    ctypedef struct cs_kernels:
        void (*exp)(Py_ssize_t n, const void *x, void *out) noexcept nogil
        void (*log)(Py_ssize_t n, const void *x, void *out) noexcept nogil
        void (*log1p)(Py_ssize_t n, const void *x, void *out) noexcept nogil
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
        void (*sparse_logits)(
            Py_ssize_t n_rows, Py_ssize_t n_columns, const void *values, const void *indices, const void *indptr,
            bint wide, Py_ssize_t first, const void *packed, const void *intercept, void *z, Py_ssize_t row_stride,
            Py_ssize_t column_stride) noexcept nogil
        void (*sparse_gradient)(
            Py_ssize_t n_rows, Py_ssize_t n_columns, const void *values, const void *indices, const void *indptr,
            bint wide, Py_ssize_t first, const void *z, Py_ssize_t ld, void *gradient) noexcept nogil
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
    void PREFETCH(const void *address) noexcept
    const cs_kernels *cs_table(size_t itemsize) noexcept
    const char *cs_select(const char *name) noexcept
    const char *cs_names[]
