/* The compiled arithmetic of csoftmax: C without Python, without allocation, without failure.
 *
 * One table of functions per precision and instruction set; cs_select() chooses the instruction set. Every size, stride
 * and label is checked by the callers. NaN or infinity in coefficients shows in the loss or the probabilities: that is
 * the only signal.
 *
 * Two layouts of scores occur:
 *   row-major    z[i * n_classes + k]   what a user sees,
 *   class-major  z[k * ld + i]          inside a training pass: every loop runs over rows and vectorises,
 *                                       whatever the number of classes.
 */
#ifndef CSOFTMAX_KERNEL_H
#define CSOFTMAX_KERNEL_H

#include <stddef.h>
#include <stdint.h>

/* Asks for the cache line of an address, which need not be valid. */
#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address, 0, 3)
#else
#define PREFETCH(address) ((void)(address))
#endif

/* `void` stands for double or float: cs_table(sizeof(value)) gives the table of the precision. */
typedef struct {
    /* out[i] = exp(x[i]) */
    void (*exp)(ptrdiff_t n, const void *x, void *out);
    /* out[i] = log(x[i]) for x >= 1; log(1 + x[i]) for x in [0, 1]. Infinity and NaN give NaN. */
    void (*log)(ptrdiff_t n, const void *x, void *out);
    void (*log1p)(ptrdiff_t n, const void *x, void *out);
    /* Row-major scores in place to probabilities, or to their logarithms. */
    void (*softmax_rows)(ptrdiff_t n_rows, ptrdiff_t n_classes, void *z);
    void (*log_softmax_rows)(ptrdiff_t n_rows, ptrdiff_t n_classes, void *z);
    /* Class-major scores, which are lost, to the same, row-major. scratch holds 2 * n_rows values. */
    void (*softmax_columns)(ptrdiff_t n_rows, ptrdiff_t n_classes, void *z, ptrdiff_t ld, void *out, int logarithm,
                            void *scratch);
    /* Class-major logits in place to weight * (probability - indicator of the label); returns the weighted loss.
     * One column means two classes: z is the logit of label 1. scratch holds 2 * n_rows values. */
    double (*residual)(ptrdiff_t n_rows, ptrdiff_t n_columns, void *z, ptrdiff_t ld, const int32_t *y,
                       const void *weight, void *scratch);
    /* sums[k] += sum over rows of class-major z. */
    void (*class_sums)(ptrdiff_t n_rows, ptrdiff_t n_columns, const void *z, ptrdiff_t ld, void *sums);
    /* The products of a tall X and few columns by register tiles: z = logits, with these strides, and gradient += z X
     * for class-major z. `packed` and `gradient` hold, for every panel of columns, and in it for every group
     * of `fold` features, the columns, each with these features side by side; after the last panel the intercepts. Columns
     * are padded to a multiple of lanes / fold. Where features do not fill the last group they stand at its end.
     * tile_fold tells fold, and tile_panel how many columns a panel has; the last one has what is left.
     * From `ahead` on as many values as x has, or half of them, are fetched into the cache meanwhile: of the rows that
     * come next, or x itself. */
    ptrdiff_t (*tile_fold)(ptrdiff_t d, ptrdiff_t n_columns);
    ptrdiff_t (*tile_panel)(ptrdiff_t d, ptrdiff_t n_columns);
    void (*tile_logits)(ptrdiff_t n_rows, ptrdiff_t d, ptrdiff_t n_columns, const void *x, const void *packed,
                        void *z, ptrdiff_t row_stride, ptrdiff_t column_stride, const void *ahead, int half);
    void (*tile_gradient)(ptrdiff_t n_rows, ptrdiff_t d, ptrdiff_t n_columns, const void *x, const void *z,
                          ptrdiff_t ld, void *gradient, const void *ahead, int half);
    /* The same for rows of CSR, from `first` on: values, indices below d in any order, and indptr; indices and indptr
     * are int64_t if wide, else int32_t. `packed` and `gradient` have one feature after the other, columns padded to a
     * multiple of lanes, or a single one not padded. */
    void (*sparse_logits)(ptrdiff_t n_rows, ptrdiff_t n_columns, const void *values, const void *indices,
                          const void *indptr, int wide, ptrdiff_t first, const void *packed, const void *intercept,
                          void *z, ptrdiff_t row_stride, ptrdiff_t column_stride);
    void (*sparse_gradient)(ptrdiff_t n_rows, ptrdiff_t n_columns, const void *values, const void *indices,
                            const void *indptr, int wide, ptrdiff_t first, const void *z, ptrdiff_t ld,
                            void *gradient);
    /* One row: z = its logits, from coefficients packed as for tiles, but with fold 1 if there are several columns; if
     * `whole`, z has room for a multiple of lanes, which are written. Then z, whole, which is lost, to probabilities or
     * to their logarithms, two for one column. */
    void (*row_logits)(ptrdiff_t d, ptrdiff_t n_columns, const void *x, const void *packed, void *z, int whole);
    void (*row_softmax)(ptrdiff_t n_columns, void *z, void *out, int logarithm);
    /* Lower triangle of out += sum over rows of factor * x x'. Rows of out lie width apart, width >= size padded to a
     * multiple of lanes; zeros may be added to up to lanes - 1 values after its last row. */
    void (*tile_gram)(ptrdiff_t n_rows, ptrdiff_t size, const void *x, const void *factor, void *out,
                      ptrdiff_t width);
    /* Column statistics in float64: low, high, sums += weight * (x - center), those of every class if there are labels,
     * and squares += weight * (x - center)^2; sum += weight * ((x - center) * unit)^2. */
    void (*column_range)(ptrdiff_t n_rows, ptrdiff_t d, const void *x, const void *weight, const int32_t *y,
                         const double *center, double *low, double *high, double *sums, double *squares);
    void (*column_spread)(ptrdiff_t n_rows, ptrdiff_t d, const void *x, const void *weight, const double *center,
                          const double *unit, double *sum);
    /* lengths[i] = sum over j of ((x - center) * unit)^2, in float64. */
    void (*row_lengths)(ptrdiff_t n_rows, ptrdiff_t d, const void *x, const double *center, const double *unit,
                        double *lengths);
    /* 1 if every value is finite. */
    int (*all_finite)(ptrdiff_t n, const void *x);
    ptrdiff_t lanes;
} cs_kernels;

/* The table in use for values of this size: sizeof(double) or sizeof(float). */
const cs_kernels *cs_table(size_t itemsize);

/* Instruction sets compiled in, best last, NULL-terminated: "baseline", then "avx2", "avx512" where there are any. */
extern const char *const cs_names[];

/* Use the named instruction set, or the best one for NULL. Returns its name; NULL, changing nothing, if this
 * processor or build does not have it. */
const char *cs_select(const char *name);

#endif
