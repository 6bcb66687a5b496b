"""The kernels, as _kernel.h declares them, for the extension modules that use them."""
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
        void (*softmax_columns)(
            Py_ssize_t n_rows, Py_ssize_t n_classes, void *z, Py_ssize_t ld, void *out, bint logarithm,
            void *scratch) noexcept nogil
        double (*residual)(
            Py_ssize_t n_rows, Py_ssize_t n_columns, void *z, Py_ssize_t ld, const int *y, const void *weight,
            void *scratch) noexcept nogil
        void (*class_sums)(
            Py_ssize_t n_rows, Py_ssize_t n_columns, const void *z, Py_ssize_t ld, void *sums) noexcept nogil
        Py_ssize_t (*tile_fold)(Py_ssize_t d, Py_ssize_t n_columns) noexcept nogil
        Py_ssize_t (*tile_panel)(Py_ssize_t d, Py_ssize_t n_columns) noexcept nogil
        void (*tile_logits)(
            Py_ssize_t n_rows, Py_ssize_t d, Py_ssize_t n_columns, const void *x, const void *packed, void *z,
            Py_ssize_t row_stride, Py_ssize_t column_stride, const void *ahead, int half) noexcept nogil
        void (*tile_gradient)(
            Py_ssize_t n_rows, Py_ssize_t d, Py_ssize_t n_columns, const void *x, const void *z, Py_ssize_t ld,
            void *gradient, const void *ahead, int half) noexcept nogil
        void (*sparse_logits)(
            Py_ssize_t n_rows, Py_ssize_t n_columns, const void *values, const void *indices, const void *indptr,
            bint wide, Py_ssize_t first, const void *packed, const void *intercept, void *z, Py_ssize_t row_stride,
            Py_ssize_t column_stride) noexcept nogil
        void (*sparse_gradient)(
            Py_ssize_t n_rows, Py_ssize_t n_columns, const void *values, const void *indices, const void *indptr,
            bint wide, Py_ssize_t first, const void *z, Py_ssize_t ld, void *gradient) noexcept nogil
        void (*row_logits)(
            Py_ssize_t d, Py_ssize_t n_columns, const void *x, const void *packed, void *z, bint whole) noexcept nogil
        void (*row_softmax)(Py_ssize_t n_columns, void *z, void *out, bint logarithm) noexcept nogil
        void (*tile_gram)(
            Py_ssize_t n_rows, Py_ssize_t size, const void *x, const void *factor, void *out,
            Py_ssize_t width) noexcept nogil
        void (*column_range)(
            Py_ssize_t n_rows, Py_ssize_t d, const void *x, const void *weight, const int *y,
            const double *center, double *low, double *high, double *sums, double *squares) noexcept nogil
        void (*column_spread)(
            Py_ssize_t n_rows, Py_ssize_t d, const void *x, const void *weight, const double *center,
            const double *unit, double *sum) noexcept nogil
        void (*row_lengths)(
            Py_ssize_t n_rows, Py_ssize_t d, const void *x, const double *center, const double *unit,
            double *lengths) noexcept nogil
        int (*all_finite)(Py_ssize_t n, const void *x) noexcept nogil
        Py_ssize_t lanes
    void PREFETCH(const void *address) noexcept

cdef enum:
    ALIGNMENT = 64

cdef struct Layout:
    # Coefficients are stored by panels of columns, in a panel by groups of `fold` features, and in a group for each
    # column in turn its features, side by side. Columns are padded to `width`, a panel has `panel` of them, and the
    # last one what is left; intercepts follow. size counts them all, up to a multiple of the alignment. So BLAS's
    # (K, d) is one panel with fold = d, and (d, K) one panel with fold = 1.
    Py_ssize_t n_columns
    bint tiled
    Py_ssize_t fold
    Py_ssize_t width
    Py_ssize_t panel
    Py_ssize_t size


cdef inline Py_ssize_t padded(Py_ssize_t n, Py_ssize_t multiple) noexcept nogil:
    return (n + multiple - 1) // multiple * multiple


cdef const cs_kernels *cs_table(size_t itemsize) noexcept nogil
cdef Layout layout_of(Py_ssize_t d, Py_ssize_t n_columns, bint tiled, bint sparse, Py_ssize_t itemsize) noexcept nogil
