/* The kernels, written once; included by _kernel.c for every (ISA, REAL_IS_DOUBLE). See _kernel.h for what each does. */

#if REAL_IS_DOUBLE
#define REAL double
#define BITS uint64_t
#define SUFFIX f64
#else
#define REAL float
#define BITS uint32_t
#define SUFFIX f32
#endif
#define NAME(name) PASTE(name, SUFFIX, ISA)

#if VECTOR_BYTES
#define LANES ((ptrdiff_t)(VECTOR_BYTES / sizeof(REAL)))
typedef REAL NAME(vec) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
#else
#define LANES 1
typedef REAL NAME(vec);
#endif
#define VEC NAME(vec)

#include "_kernel_math.h"

/* ---- row-major softmax -------------------------------------------------------------------------------------- */

/* Sums and maxima run over PARTS partial results, which vectorises them in a fixed order; these are folded by halves. */
#define PARTS 32
#define CACHED 2048 /* values */

FLATTEN TARGET REAL NAME(row_max)(ptrdiff_t n, const REAL *x)
{
    REAL top = x[0];
    ptrdiff_t i = 0;
    if (n >= PARTS) {
        REAL part[PARTS];
        memcpy(part, x, sizeof part);
        for (i = PARTS; i + PARTS <= n; i += PARTS)
            for (int l = 0; l < PARTS; l++)
                part[l] = x[i + l] > part[l] ? x[i + l] : part[l];
        for (int half = PARTS / 2; half > 0; half /= 2)
            for (int l = 0; l < half; l++)
                part[l] = part[l + half] > part[l] ? part[l + half] : part[l];
        top = part[0];
    }
    for (; i < n; i++)
        top = x[i] > top ? x[i] : top;
    return top;
}

FLATTEN TARGET REAL NAME(row_sum)(ptrdiff_t n, const REAL *x)
{
    REAL sum = 0;
    ptrdiff_t i = 0;
    if (n >= PARTS) {
        REAL part[PARTS];
        memcpy(part, x, sizeof part);
        for (i = PARTS; i + PARTS <= n; i += PARTS)
            for (int l = 0; l < PARTS; l++)
                part[l] += x[i + l];
        for (int half = PARTS / 2; half > 0; half /= 2)
            for (int l = 0; l < half; l++)
                part[l] += part[l + half];
        sum = part[0];
    }
    for (; i < n; i++)
        sum += x[i];
    return sum;
}

/* Rows of few classes would not fill exp's vectors: it runs over as many at once as stay in the first-level cache. */
static TARGET void NAME(softmax_rows)(ptrdiff_t n_rows, ptrdiff_t n_classes, void *z_)
{
    REAL *z = z_;
    const int few = n_classes < CACHED / 8;
    const ptrdiff_t together = few ? CACHED / n_classes : 1;
    for (ptrdiff_t rows; n_rows > 0; n_rows -= rows, z += rows * n_classes) {
        rows = n_rows < together ? n_rows : together;
        for (ptrdiff_t i = 0; i < rows; i++) {
            REAL *row = z + i * n_classes, top = NAME(row_max)(n_classes, row);
            if (few)
                for (ptrdiff_t k = 0; k < n_classes; k++)
                    row[k] -= top;
            else
                for (ptrdiff_t k = 0; k < n_classes; k++)
                    row[k] = NAME(exp1)(row[k] - top);
        }
        if (few)
            NAME(exp)(rows * n_classes, z, z);
        for (ptrdiff_t i = 0; i < rows; i++) {
            REAL *row = z + i * n_classes, sum = NAME(row_sum)(n_classes, row);
            for (ptrdiff_t k = 0; k < n_classes; k++)
                row[k] /= sum;
        }
    }
}

static TARGET void NAME(log_softmax_rows)(ptrdiff_t n_rows, ptrdiff_t n_classes, void *z_)
{
    REAL *z = z_;
    for (ptrdiff_t i = 0; i < n_rows; i++) {
        REAL *row = z + i * n_classes, top = NAME(row_max)(n_classes, row), sum = 0, part[PARTS];
        ptrdiff_t k;
        for (k = 0; k + PARTS <= n_classes; k += PARTS) {
            for (int l = 0; l < PARTS; l++)
                part[l] = NAME(exp1)(row[k + l] - top);
            sum += NAME(row_sum)(PARTS, part);
        }
        for (; k < n_classes; k++)
            sum += NAME(exp1)(row[k] - top);
        sum = NAME(log1)(sum);
        for (k = 0; k < n_classes; k++)
            row[k] = (row[k] - top) - sum;
    }
}

/* The same from class-major scores, where every loop runs over rows; scratch holds 2 * n_rows values. */
static TARGET void NAME(softmax_columns)(ptrdiff_t n_rows, ptrdiff_t n_classes, void *z_, ptrdiff_t ld, void *out_,
                                         int logarithm, void *scratch)
{
    REAL *z = z_, *RESTRICT out = out_, *RESTRICT top = scratch, *RESTRICT sum = top + n_rows;
    memcpy(top, z, (size_t)n_rows * sizeof(REAL));
    memset(sum, 0, (size_t)n_rows * sizeof(REAL));
    for (ptrdiff_t k = 1; k < n_classes; k++) {
        const REAL *zk = z + k * ld;
        for (ptrdiff_t i = 0; i < n_rows; i++)
            top[i] = zk[i] > top[i] ? zk[i] : top[i];
    }
    for (ptrdiff_t k = 0; k < n_classes; k++) {
        REAL *RESTRICT zk = z + k * ld;
        for (ptrdiff_t i = 0; i < n_rows; i++) {
            const REAL below = zk[i] - top[i], e = NAME(exp1)(below);
            zk[i] = logarithm ? below : e;
            sum[i] += e;
        }
    }
    if (logarithm)
        NAME(log)(n_rows, sum, sum);
    for (ptrdiff_t k = 0; k < n_classes; k++) {
        REAL *RESTRICT zk = z + k * ld;
        for (ptrdiff_t i = 0; i < n_rows; i++)
            zk[i] = logarithm ? zk[i] - sum[i] : zk[i] / sum[i];
    }
    for (ptrdiff_t i = 0; i < n_rows; i++)
        for (ptrdiff_t k = 0; k < n_classes; k++)
            out[i * n_classes + k] = z[k * ld + i];
}

/* ---- the loss of a block, class-major ----------------------------------------------------------------------- */

/* Sums in float64 run over more of them, so that rows in float32 fill vectors as well. */
#define LOSS_PARTS 16

/* The margin is z for label 1 and -z for label 0; a negative one is the larger part of the loss. */
FLATTEN TARGET double NAME(logistic_loss)(REAL z, int32_t y, REAL weight, REAL small)
{
    const double margin = y ? (double)z : -(double)z;
    return (double)weight * (NAME(log1p1)(small) - (margin < 0 ? margin : 0));
}

/* Two classes in one column: loss = log(1 + exp(-|z|)) + max(z, 0) - y z, residual = weight * (sigmoid(z) - y). */
static TARGET double NAME(logistic_residual)(ptrdiff_t n_rows, REAL *RESTRICT z, const int32_t *RESTRICT y,
                                             const REAL *RESTRICT weight, REAL *RESTRICT small)
{
    double part[LOSS_PARTS] = {0}, loss = 0;
    ptrdiff_t i = 0;
    for (ptrdiff_t r = 0; r < n_rows; r++)
        small[r] = NAME(exp1)(z[r] < 0 ? z[r] : -z[r]);
    for (; i + LOSS_PARTS <= n_rows; i += LOSS_PARTS)
        for (int l = 0; l < LOSS_PARTS; l++)
            part[l] += NAME(logistic_loss)(z[i + l], y[i + l], weight[i + l], small[i + l]);
    for (; i < n_rows; i++)
        loss += NAME(logistic_loss)(z[i], y[i], weight[i], small[i]);
    for (int l = 0; l < LOSS_PARTS; l++)
        loss += part[l];
    for (i = 0; i < n_rows; i++) {
        /* sigmoid(z) = 1 / (1 + small) or small / (1 + small); for label 1, minus the complement: no cancellation. */
        REAL large_side = 1 / (1 + small[i]), small_side = small[i] * large_side;
        REAL wrong = (z[i] < 0) == (y[i] != 0) ? large_side : small_side;
        z[i] = weight[i] * (y[i] ? -wrong : wrong);
    }
    return loss;
}

/* loss = log(sum_k exp(z_k - top)) - (z_y - top). */
static TARGET double NAME(residual)(ptrdiff_t n_rows, ptrdiff_t n_columns, void *z_, ptrdiff_t ld, const int32_t *y,
                                    const void *weight_, void *scratch)
{
    REAL *z = z_, *RESTRICT top = scratch, *RESTRICT sum = top + n_rows;
    const REAL *weight = weight_;
    double part[LOSS_PARTS] = {0}, loss = 0;
    ptrdiff_t i = 0;
    if (n_columns == 1)
        return NAME(logistic_residual)(n_rows, z, y, weight, top);
    memcpy(top, z, (size_t)n_rows * sizeof(REAL));
    for (ptrdiff_t k = 1; k < n_columns; k++) {
        const REAL *zk = z + k * ld;
        for (ptrdiff_t i = 0; i < n_rows; i++)
            top[i] = zk[i] > top[i] ? zk[i] : top[i];
    }
    for (; i + LOSS_PARTS <= n_rows; i += LOSS_PARTS)
        for (int l = 0; l < LOSS_PARTS; l++)
            part[l] -= (double)weight[i + l] * ((double)z[y[i + l] * ld + i + l] - (double)top[i + l]);
    for (; i < n_rows; i++)
        loss -= (double)weight[i] * ((double)z[y[i] * ld + i] - (double)top[i]);
    memset(sum, 0, (size_t)n_rows * sizeof(REAL));
    for (ptrdiff_t k = 0; k < n_columns; k++) {
        REAL *RESTRICT zk = z + k * ld;
        for (ptrdiff_t i = 0; i < n_rows; i++) {
            REAL e = NAME(exp1)(zk[i] - top[i]);
            zk[i] = e;
            sum[i] += e;
        }
    }
    for (i = 0; i + LOSS_PARTS <= n_rows; i += LOSS_PARTS)
        for (int l = 0; l < LOSS_PARTS; l++)
            part[l] += (double)weight[i + l] * NAME(log1)(sum[i + l]);
    for (; i < n_rows; i++)
        loss += (double)weight[i] * NAME(log1)(sum[i]);
    for (int l = 0; l < LOSS_PARTS; l++)
        loss += part[l];
    for (i = 0; i < n_rows; i++)
        sum[i] = weight[i] / sum[i];
    for (ptrdiff_t k = 0; k < n_columns; k++) {
        REAL *RESTRICT zk = z + k * ld;
        for (ptrdiff_t i = 0; i < n_rows; i++)
            zk[i] *= sum[i];
    }
    for (i = 0; i < n_rows; i++)
        z[y[i] * ld + i] -= weight[i];
    return loss;
}

static TARGET void NAME(class_sums)(ptrdiff_t n_rows, ptrdiff_t n_columns, const void *z_, ptrdiff_t ld, void *sums_)
{
    const REAL *z = z_;
    REAL *sums = sums_;
    for (ptrdiff_t k = 0; k < n_columns; k++)
        sums[k] += NAME(row_sum)(n_rows, z + k * ld);
}

#include "_kernel_tiles.h"
#include "_kernel_sparse.h"
#include "_kernel_row.h"

/* ---- the columns of X --------------------------------------------------------------------------------------- */

/* What so many rows at once add up goes on in registers; in the order of the rows, however these are grouped. */
#define ROWS_AT_ONCE 8

FLATTEN TARGET void NAME(range_of_rows)(const int rows, ptrdiff_t d, const REAL *RESTRICT x, double *RESTRICT low,
                                        double *RESTRICT high)
{
    for (ptrdiff_t j = 0; j < d; j++) {
        REAL least = (REAL)low[j], most = (REAL)high[j];
        UNROLL
        for (int r = 0; r < rows; r++) {
            least = x[r * d + j] < least ? x[r * d + j] : least;
            most = x[r * d + j] > most ? x[r * d + j] : most;
        }
        low[j] = least;
        high[j] = most;
    }
}

FLATTEN TARGET void NAME(add_deviations)(ptrdiff_t d, const REAL *RESTRICT x, double weight,
                                         const double *RESTRICT center, double *RESTRICT sum, double *RESTRICT squares)
{
    for (ptrdiff_t j = 0; j < d; j++) {
        const double deviation = x[j] - center[j], weighted = weight * deviation;
        sum[j] += weighted;
        squares[j] += weighted * deviation;
    }
}

static TARGET void NAME(column_range)(ptrdiff_t n_rows, ptrdiff_t d, const void *x_, const void *weight_,
                                      const int32_t *y, const double *center, double *low, double *high, double *sums,
                                      double *squares)
{
    const REAL *x = x_, *weight = weight_;
    for (ptrdiff_t i = 0, rows; i < n_rows; i += rows) {
        rows = n_rows - i < ROWS_AT_ONCE ? 1 : ROWS_AT_ONCE;
        if (rows == 1)
            NAME(range_of_rows)(1, d, x + i * d, low, high);
        else
            NAME(range_of_rows)(ROWS_AT_ONCE, d, x + i * d, low, high);
        for (ptrdiff_t r = i; r < i + rows; r++) {
            for (ptrdiff_t j = 0; j < d; j += 64 / (ptrdiff_t)sizeof(REAL))
                PREFETCH(x + (r + ROWS_AT_ONCE) * d + j);
            NAME(add_deviations)(d, x + r * d, weight[r], center, sums + (y == NULL ? 0 : y[r]) * d, squares);
        }
    }
}

FLATTEN TARGET void NAME(spread_of_rows)(const int rows, ptrdiff_t d, const REAL *RESTRICT x,
                                         const REAL *RESTRICT weight, const double *RESTRICT center,
                                         const double *RESTRICT unit, double *RESTRICT sum)
{
    for (ptrdiff_t j = 0; j < d; j++) {
        const double middle = center[j], scale = unit[j];
        double total = sum[j];
        UNROLL
        for (int r = 0; r < rows; r++) {
            const double deviation = (x[r * d + j] - middle) * scale;
            total += weight[r] * (deviation * deviation);
        }
        sum[j] = total;
    }
}

static TARGET void NAME(column_spread)(ptrdiff_t n_rows, ptrdiff_t d, const void *x_, const void *weight_,
                                       const double *center, const double *unit, double *sum)
{
    const REAL *x = x_, *weight = weight_;
    ptrdiff_t i = 0;
    for (; i + ROWS_AT_ONCE <= n_rows; i += ROWS_AT_ONCE)
        NAME(spread_of_rows)(ROWS_AT_ONCE, d, x + i * d, weight + i, center, unit, sum);
    for (; i < n_rows; i++)
        NAME(spread_of_rows)(1, d, x + i * d, weight + i, center, unit, sum);
}

static TARGET void NAME(row_lengths)(ptrdiff_t n_rows, ptrdiff_t d, const void *x_, const double *RESTRICT center,
                                     const double *RESTRICT unit, double *RESTRICT lengths)
{
    const REAL *x = x_;
    for (ptrdiff_t i = 0; i < n_rows; i++, x += d) {
        double part[PARTS] = {0}, sum = 0;
        ptrdiff_t j = 0;
        for (; j + PARTS <= d; j += PARTS)
            for (int l = 0; l < PARTS; l++) {
                const double value = (x[j + l] - center[j + l]) * unit[j + l];
                part[l] += value * value;
            }
        for (; j < d; j++) {
            const double value = (x[j] - center[j]) * unit[j];
            sum += value * value;
        }
        for (int l = 0; l < PARTS; l++)
            sum += part[l];
        lengths[i] = sum;
    }
}

static TARGET int NAME(all_finite)(ptrdiff_t n, const void *x_)
{
    const REAL *x = x_;
    int bad = 0;
    for (ptrdiff_t i = 0; i < n; i++)
        bad |= !(x[i] - x[i] == 0); /* inf - inf and nan - nan are nan */
    return !bad;
}

/* ---- the table ---------------------------------------------------------------------------------------------- */

static const cs_kernels NAME(table) = {
    NAME(exp), NAME(log), NAME(log1p), NAME(softmax_rows),
    NAME(log_softmax_rows), NAME(softmax_columns), NAME(residual), NAME(class_sums), NAME(tile_fold), NAME(tile_panel),
    NAME(tile_logits), NAME(tile_gradient), NAME(sparse_logits), NAME(sparse_gradient), NAME(row_logits), NAME(row_softmax), NAME(tile_gram),
    NAME(column_range), NAME(column_spread), NAME(row_lengths), NAME(all_finite), LANES,
};

#undef REAL
#undef BITS
#undef SUFFIX
#undef NAME
#undef LANES
#undef VEC
#undef PARTS
#undef CACHED
#undef LOSS_PARTS
#undef ROWS_AT_ONCE
#undef TILE_VECTORS
#undef TILE_STRIDE
#undef TILE_SIZE
#undef MOST_ACROSS
#undef ACROSS
#undef FULL
#undef FOLD_BESIDE
#undef GROUP
#undef PIECE
#undef SQUARES
#undef PAIRS
#undef COLUMN
#undef SHUFFLE
#undef FOR_CONSTANT_SIZES
#undef REAL_IS_DOUBLE
