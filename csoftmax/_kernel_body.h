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

/* ---- exp ----------------------------------------------------------------------------------------------------
 *
 * exp(x) = 2^n exp(r),  n = round(x / ln 2),  |r| <= ln(2)/2,  exp(r) = 1 + r + r^2 q(r).
 *
 * Adding and subtracting MAGIC = 1.5 * 2^(mantissa bits) rounds to an integer, which then stands in the low bits of
 * the sum. LN2_HIGH has so few bits that n * LN2_HIGH is exact. 2^n is applied as two powers of two, each of
 * which is a normal number, so that results come out right from the smallest subnormal to infinity. No branch:
 * the clamps let NaN through, and the compiler vectorises any loop around it.
 *
 * q is the output of mpmath.chebyfit(lambda r: (exp(r) - 1 - r) / r**2, [-L, L], 10 or 5), L = 1.001 ln(2) / 2;
 * its own share of the relative error is 1.3e-17 (float64) and 7.9e-9 (float32).
 * Largest error found, in units of the last place of the result:
 *     float64  1.02 without and 1.06 with fused multiply-add, over 1.5 million arguments, against mpmath
 *     float32  1.05 without and 1.09 with fused multiply-add, over all arguments from 2^-26 to overflow and underflow
 */
FLATTEN TARGET REAL NAME(exp1)(REAL x)
{
#if REAL_IS_DOUBLE
    const REAL MAGIC = 0x1.8p52, LN2_HIGH = 0x1.62e42fefa38p-1, LN2_LOW = 0x1.ef35793c7673p-45;
    const REAL LEAST = -746.0, MOST = 710.0;
    enum { MANTISSA = 52, BIAS = 1023 };
#else
    const REAL MAGIC = 0x1.8p23f, LN2_HIGH = 0x1.62e4p-1f, LN2_LOW = 0x1.7f7d1cp-20f;
    const REAL LEAST = -104.0f, MOST = 89.0f;
    enum { MANTISSA = 23, BIAS = 127 };
#endif
    const REAL LOG2_E = (REAL)0x1.71547652b82fep+0;
    REAL shifted, n, half, r, q, low_scale, high_scale;
    BITS bits;

    x = x < LEAST ? LEAST : x;
    x = x > MOST ? MOST : x;
    shifted = x * LOG2_E + MAGIC;
    n = shifted - MAGIC;
    r = (x - n * LN2_HIGH) - n * LN2_LOW;
#if REAL_IS_DOUBLE
    q = 0x1.af390ba7e6f47p-26;
    q = q * r + 0x1.2891d4ffbb0f9p-22;
    q = q * r + 0x1.71de0d85293b8p-19;
    q = q * r + 0x1.a019b8ca26fcfp-16;
    q = q * r + 0x1.a01a01a7cebcdp-13;
    q = q * r + 0x1.6c16c1789d1d7p-10;
    q = q * r + 0x1.11111111109a6p-7;
    q = q * r + 0x1.5555555553d37p-5;
    q = q * r + 0x1.5555555555556p-3;
    q = q * r + 0x1.0000000000001p-1;
#else
    q = 0x1.6d117cp-10f;
    q = q * r + 0x1.120be2p-7f;
    q = q * r + 0x1.555518p-5f;
    q = q * r + 0x1.5554dcp-3f;
    q = q * r + 0x1p-1f;
#endif
    r = 1 + (r + r * r * q);

    shifted = n * (REAL)0.5 + MAGIC;
    half = shifted - MAGIC;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + BIAS) << MANTISSA;
    memcpy(&low_scale, &bits, sizeof bits);
    shifted = (n - half) + MAGIC;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + BIAS) << MANTISSA;
    memcpy(&high_scale, &bits, sizeof bits);
    return r * low_scale * high_scale;
}

#if REAL_IS_DOUBLE
/* ---- log ----------------------------------------------------------------------------------------------------
 *
 * log(x) = k ln 2 + log(m),  x = 2^k m >= 1,  sqrt(1/2) <= m < sqrt(2),  f = m - 1,  s = f / (2 + f),
 * log(m) = 2 atanh(s) = f - s (f - s^2 q(s^2)).
 *
 * q is the output of mpmath.chebyfit(lambda t: 2 * (atanh(s) / s - 1) / t with s = sqrt(t), [0, 0.02945], 7); its own
 * share of the relative error is below 1e-17. No branch, as for exp; x - x lets infinity and NaN through as NaN.
 * Both precisions use it: losses are summed in float64.
 * Largest error found, in units of the last place of the result, over 2 million arguments, against long double:
 * log1 1.18 without and 1.16 with fused multiply-add, log1p1 1.54 and 1.48.
 */
FLATTEN TARGET double NAME(log1)(double x)
{
    const uint64_t ROOT_HALF = 0x3fe6a09e667f3bcd, TWO_52 = 0x4330000000000000;
    const double LN2_HIGH = 0x1.62e42fefap-1, LN2_LOW = 0x1.cf79abc9e3b3ap-40;
    uint64_t bits, exponent;
    double m, k, f, s, t, q;

    memcpy(&bits, &x, sizeof bits);
    exponent = (bits - ROOT_HALF) >> 52;
    bits -= exponent << 52;
    memcpy(&m, &bits, sizeof m);
    exponent |= TWO_52;
    memcpy(&k, &exponent, sizeof k);
    k -= 0x1p52;
    f = m - 1;
    s = f / (2 + f);
    t = s * s;
    q = 0x1.2b5bd9a316a24p-3;
    q = q * t + 0x1.39fe16ad885a7p-3;
    q = q * t + 0x1.7462b6e311a89p-3;
    q = q * t + 0x1.c71c62ddb431bp-3;
    q = q * t + 0x1.2492492df7663p-2;
    q = q * t + 0x1.99999999952abp-2;
    q = q * t + 0x1.5555555555558p-1;
    return (k * LN2_HIGH + (k * LN2_LOW + (f - s * (f - t * q)))) + (x - x);
}

/* log(1 + x) for x in [0, 1]: what rounding takes from 1 + x is put back. */
FLATTEN TARGET double NAME(log1p1)(double x)
{
    const double u = 1 + x;
    return NAME(log1)(u) + (x - (u - 1)) / u;
}
static TARGET void NAME(log)(ptrdiff_t n, const double *x, double *out)
{
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = NAME(log1)(x[i]);
}

static TARGET void NAME(log1p)(ptrdiff_t n, const double *x, double *out)
{
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = NAME(log1p1)(x[i]);
}
#endif
#define LOG1 PASTE(log1, f64, ISA)
#define LOG1P1 PASTE(log1p1, f64, ISA)

static TARGET void NAME(exp)(ptrdiff_t n, const void *x_, void *out_)
{
    const REAL *x = x_;
    REAL *out = out_;
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = NAME(exp1)(x[i]);
}

/* ---- row-major softmax -------------------------------------------------------------------------------------- */

/* Sums and maxima run over PARTS partial results, which vectorises them in a fixed order. */
#define PARTS 8

FLATTEN TARGET REAL NAME(row_max)(ptrdiff_t n, const REAL *x)
{
    REAL top = x[0];
    ptrdiff_t i = 0;
    if (n >= 2 * PARTS) {
        REAL part[PARTS];
        memcpy(part, x, sizeof part);
        for (i = PARTS; i + PARTS <= n; i += PARTS)
            for (int l = 0; l < PARTS; l++)
                part[l] = x[i + l] > part[l] ? x[i + l] : part[l];
        for (int l = 0; l < PARTS; l++)
            top = part[l] > top ? part[l] : top;
    }
    for (; i < n; i++)
        top = x[i] > top ? x[i] : top;
    return top;
}

FLATTEN TARGET REAL NAME(row_sum)(ptrdiff_t n, const REAL *x)
{
    REAL sum = 0;
    ptrdiff_t i = 0;
    if (n >= 2 * PARTS) {
        REAL part[PARTS];
        memcpy(part, x, sizeof part);
        for (i = PARTS; i + PARTS <= n; i += PARTS)
            for (int l = 0; l < PARTS; l++)
                part[l] += x[i + l];
        for (int l = 0; l < PARTS; l++)
            sum += part[l];
    }
    for (; i < n; i++)
        sum += x[i];
    return sum;
}

/* exp runs over the whole block at once: a row of few classes would not fill a vector. */
static TARGET void NAME(softmax_rows)(ptrdiff_t n_rows, ptrdiff_t n_classes, void *z_)
{
    REAL *z = z_;
    for (ptrdiff_t i = 0; i < n_rows; i++) {
        REAL *row = z + i * n_classes, top = NAME(row_max)(n_classes, row);
        for (ptrdiff_t k = 0; k < n_classes; k++)
            row[k] -= top;
    }
    NAME(exp)(n_rows * n_classes, z, z);
    for (ptrdiff_t i = 0; i < n_rows; i++) {
        REAL *row = z + i * n_classes, sum = NAME(row_sum)(n_classes, row);
        for (ptrdiff_t k = 0; k < n_classes; k++)
            row[k] /= sum;
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
        sum = (REAL)LOG1((double)sum);
        for (k = 0; k < n_classes; k++)
            row[k] = (row[k] - top) - sum;
    }
}

/* ---- the loss of a block, class-major ----------------------------------------------------------------------- */

/* The margin is z for label 1 and -z for label 0; a negative one is the larger part of the loss. */
FLATTEN TARGET double NAME(logistic_loss)(REAL z, int32_t y, REAL weight, REAL small)
{
    const double margin = y ? (double)z : -(double)z;
    return (double)weight * (LOG1P1((double)small) - (margin < 0 ? margin : 0));
}

/* Two classes in one column: loss = log(1 + exp(-|z|)) + max(z, 0) - y z, residual = weight * (sigmoid(z) - y). */
static TARGET double NAME(logistic_residual)(ptrdiff_t n_rows, REAL *RESTRICT z, const int32_t *RESTRICT y,
                                             const REAL *RESTRICT weight, REAL *RESTRICT small)
{
    double part[PARTS] = {0}, loss = 0;
    ptrdiff_t i = 0;
    for (ptrdiff_t r = 0; r < n_rows; r++)
        small[r] = NAME(exp1)(z[r] < 0 ? z[r] : -z[r]);
    for (; i + PARTS <= n_rows; i += PARTS)
        for (int l = 0; l < PARTS; l++)
            part[l] += NAME(logistic_loss)(z[i + l], y[i + l], weight[i + l], small[i + l]);
    for (; i < n_rows; i++)
        loss += NAME(logistic_loss)(z[i], y[i], weight[i], small[i]);
    for (int l = 0; l < PARTS; l++)
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
    double part[PARTS] = {0}, loss = 0;
    ptrdiff_t i = 0;
    if (n_columns == 1)
        return NAME(logistic_residual)(n_rows, z, y, weight, top);
    memcpy(top, z, (size_t)n_rows * sizeof(REAL));
    for (ptrdiff_t k = 1; k < n_columns; k++) {
        const REAL *zk = z + k * ld;
        for (ptrdiff_t i = 0; i < n_rows; i++)
            top[i] = zk[i] > top[i] ? zk[i] : top[i];
    }
    for (ptrdiff_t r = 0; r < n_rows; r++) {
        loss -= (double)weight[r] * ((double)z[y[r] * ld + r] - (double)top[r]);
        sum[r] = 0;
    }
    for (ptrdiff_t k = 0; k < n_columns; k++) {
        REAL *RESTRICT zk = z + k * ld;
        for (ptrdiff_t i = 0; i < n_rows; i++) {
            REAL e = NAME(exp1)(zk[i] - top[i]);
            zk[i] = e;
            sum[i] += e;
        }
    }
    for (; i + PARTS <= n_rows; i += PARTS)
        for (int l = 0; l < PARTS; l++)
            part[l] += (double)weight[i + l] * LOG1((double)sum[i + l]);
    for (; i < n_rows; i++)
        loss += (double)weight[i] * LOG1((double)sum[i]);
    for (int l = 0; l < PARTS; l++)
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

/* ---- register tiles: a tall X times a few columns -----------------------------------------------------------
 *
 * A tile is TILE_ROWS rows of X times up to TILE_VECTORS vectors of LANES columns; its sums stay in registers.
 * AVX-512: 8 x 3 vectors = 24 of 32 registers, and 3 for the columns; AVX2 and baseline: 4 x 3 = 12 of 16, and 3.
 *
 *                packed (d + 1, padded columns)              logits of the tile, for every feature j:
 *                   j -> [ v0 | v1 | v2 ]                      acc[r][v] += x[r][j] * packed[j][v]
 *                          |    |    |                       gradient of the tile, for every feature j:
 *    x   row 0  j -> x * acc  acc  acc  -> z row 0             gradient[j][v] += sum_r x[r][j] * z[r][v]
 *        row 1  j -> x * acc  acc  acc  -> z row 1
 *         ...                                                x[r][j] is one number, spread over a vector.
 *
 * The rows of a block are read twice, the second time from the cache. Columns beyond n_columns are computed and
 * thrown away; rows beyond the last full tile are done one by one, so nothing is read past the end of X.
 */
#define TILE_VECTORS 3

FLATTEN TARGET void NAME(logits_of_tile)(const int rows, const int vectors, ptrdiff_t d, ptrdiff_t width,
                                         const REAL *RESTRICT x, const REAL *RESTRICT packed, REAL *RESTRICT out)
{
    VEC acc[TILE_ROWS][TILE_VECTORS];
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int v = 0; v < vectors; v++)
            acc[r][v] = *(const VEC *)(packed + d * width + v * LANES);
    for (ptrdiff_t j = 0; j < d; j++, packed += width) {
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int v = 0; v < vectors; v++)
                acc[r][v] += x[r * d + j] * *(const VEC *)(packed + v * LANES);
    }
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int v = 0; v < vectors; v++)
            *(VEC *)(out + (r * TILE_VECTORS + v) * LANES) = acc[r][v];
}

FLATTEN TARGET void NAME(gradient_of_tile)(const int rows, const int vectors, ptrdiff_t d, ptrdiff_t width,
                                           ptrdiff_t stride, const REAL *RESTRICT x, const REAL *RESTRICT z,
                                           REAL *RESTRICT gradient)
{
    VEC residual[TILE_ROWS][TILE_VECTORS];
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int v = 0; v < vectors; v++)
            residual[r][v] = *(const VEC *)(z + (r * TILE_VECTORS + v) * LANES);
    for (ptrdiff_t j = 0; j < d; j++, gradient += width) {
        UNROLL
        for (int v = 0; v < vectors; v++) {
            VEC sum = *(VEC *)(gradient + v * LANES);
            UNROLL
            for (int r = 0; r < rows; r++)
                sum += x[r * stride + j] * residual[r][v];
            *(VEC *)(gradient + v * LANES) = sum;
        }
    }
}

/* One column: a tile of rows, vectors along the features. packed is w, then the intercept, without padding. */
FLATTEN TARGET REAL NAME(sum_of_lanes)(VEC v)
{
    REAL part[LANES];
    memcpy(part, &v, sizeof part);
    for (ptrdiff_t half = LANES / 2; half > 0; half /= 2)
        for (ptrdiff_t l = 0; l < half; l++)
            part[l] += part[l + half];
    return part[0];
}

FLATTEN TARGET void NAME(logits_of_rows)(const int rows, ptrdiff_t d, const REAL *RESTRICT x,
                                         const REAL *RESTRICT w, REAL *RESTRICT z)
{
    VEC acc[TILE_ROWS];
    ptrdiff_t j = 0;
    memset(acc, 0, sizeof acc);
    for (; j + LANES <= d; j += LANES) {
        const VEC part = *(const VEC *)(w + j);
        UNROLL
        for (int r = 0; r < rows; r++)
            acc[r] += *(const VEC *)(x + r * d + j) * part;
    }
    for (int r = 0; r < rows; r++)
        z[r] = w[d] + NAME(sum_of_lanes)(acc[r]);
    for (; j < d; j++)
        for (int r = 0; r < rows; r++)
            z[r] += x[r * d + j] * w[j];
}

FLATTEN TARGET void NAME(gradient_of_rows)(const int rows, ptrdiff_t d, const REAL *RESTRICT x,
                                           const REAL *RESTRICT z, REAL *RESTRICT gradient)
{
    ptrdiff_t j = 0;
    for (; j + LANES <= d; j += LANES) {
        VEC sum = *(VEC *)(gradient + j);
        UNROLL
        for (int r = 0; r < rows; r++)
            sum += *(const VEC *)(x + r * d + j) * z[r];
        *(VEC *)(gradient + j) = sum;
    }
    for (int r = 0; r < rows; r++) {
        for (ptrdiff_t tail = j; tail < d; tail++)
            gradient[tail] += x[r * d + tail] * z[r];
        gradient[d] += z[r];
    }
}

/* Gives the compiler each tile with constant sizes, so that its sums can live in registers. */
#define FOR_CONSTANT_SIZES(FUNCTION, rows, vectors, ...)                                                             \
    do {                                                                                                             \
        switch (((rows) == 1 ? 0 : TILE_VECTORS) + (vectors)) {                                                      \
        case 1: FUNCTION(1, 1, __VA_ARGS__); break;                                                                  \
        case 2: FUNCTION(1, 2, __VA_ARGS__); break;                                                                  \
        case 3: FUNCTION(1, 3, __VA_ARGS__); break;                                                                  \
        case 4: FUNCTION(TILE_ROWS, 1, __VA_ARGS__); break;                                                          \
        case 5: FUNCTION(TILE_ROWS, 2, __VA_ARGS__); break;                                                          \
        case 6: FUNCTION(TILE_ROWS, 3, __VA_ARGS__); break;                                                          \
        }                                                                                                            \
    } while (0)

static TARGET void NAME(tile_logits)(ptrdiff_t n_rows, ptrdiff_t d, ptrdiff_t n_columns, const void *x_,
                                     const void *packed_, void *z_, ptrdiff_t row_stride, ptrdiff_t column_stride)
{
    const REAL *x = x_, *packed = packed_;
    REAL *z = z_;
    const ptrdiff_t width = (n_columns + LANES - 1) / LANES * LANES;
    REAL tile[TILE_ROWS * TILE_VECTORS * LANES];
    ptrdiff_t rows;
    if (n_columns == 1) {
        for (ptrdiff_t i = 0; i < n_rows; i += rows) {
            rows = n_rows - i < TILE_ROWS ? 1 : TILE_ROWS;
            if (rows == 1)
                NAME(logits_of_rows)(1, d, x + i * d, packed, z + i);
            else
                NAME(logits_of_rows)(TILE_ROWS, d, x + i * d, packed, z + i);
        }
        return;
    }
    /* One panel of columns after the other, so that it stays in the cache for all rows of the block. */
    for (ptrdiff_t first = 0; first < n_columns; first += TILE_VECTORS * LANES) {
        const ptrdiff_t left = (width - first) / LANES, vectors = left < TILE_VECTORS ? left : TILE_VECTORS;
        const ptrdiff_t columns = n_columns - first < vectors * LANES ? n_columns - first : vectors * LANES;
        for (ptrdiff_t i = 0; i < n_rows; i += rows) {
            rows = n_rows - i < TILE_ROWS ? 1 : TILE_ROWS;
            FOR_CONSTANT_SIZES(NAME(logits_of_tile), rows, vectors, d, width, x + i * d, packed + first, tile);
            for (ptrdiff_t k = 0; k < columns; k++)
                for (ptrdiff_t r = 0; r < rows; r++)
                    z[(first + k) * column_stride + (i + r) * row_stride] = tile[r * TILE_VECTORS * LANES + k];
        }
    }
}

static TARGET void NAME(tile_gradient)(ptrdiff_t n_rows, ptrdiff_t d, ptrdiff_t n_columns, const void *x_,
                                       const void *z_, ptrdiff_t ld, void *gradient_)
{
    const REAL *x = x_, *z = z_;
    REAL *gradient = gradient_;
    const ptrdiff_t width = (n_columns + LANES - 1) / LANES * LANES;
    REAL tile[TILE_ROWS * TILE_VECTORS * LANES];
    ptrdiff_t rows;
    if (n_columns == 1) {
        for (ptrdiff_t i = 0; i < n_rows; i += rows) {
            rows = n_rows - i < TILE_ROWS ? 1 : TILE_ROWS;
            if (rows == 1)
                NAME(gradient_of_rows)(1, d, x + i * d, z + i, gradient);
            else
                NAME(gradient_of_rows)(TILE_ROWS, d, x + i * d, z + i, gradient);
        }
        return;
    }
    memset(tile, 0, sizeof tile);
    for (ptrdiff_t first = 0; first < n_columns; first += TILE_VECTORS * LANES) {
        const ptrdiff_t left = (width - first) / LANES, vectors = left < TILE_VECTORS ? left : TILE_VECTORS;
        const ptrdiff_t columns = n_columns - first < vectors * LANES ? n_columns - first : vectors * LANES;
        for (ptrdiff_t i = 0; i < n_rows; i += rows) {
            rows = n_rows - i < TILE_ROWS ? 1 : TILE_ROWS;
            for (ptrdiff_t k = 0; k < columns; k++)
                for (ptrdiff_t r = 0; r < rows; r++)
                    tile[r * TILE_VECTORS * LANES + k] = z[(first + k) * ld + i + r];
            FOR_CONSTANT_SIZES(NAME(gradient_of_tile), rows, vectors, d, width, d, x + i * d, tile, gradient + first);
            for (ptrdiff_t r = 0; r < rows; r++)
                for (ptrdiff_t k = 0; k < columns; k++)
                    gradient[d * width + first + k] += tile[r * TILE_VECTORS * LANES + k];
        }
    }
}

/* A symmetric product is a gradient whose residuals are the rows themselves, times their factors; a panel of columns
 * needs the rows of the result from its own first on. */
static TARGET void NAME(tile_gram)(ptrdiff_t n_rows, ptrdiff_t size, const void *x_, const void *factor_, void *out_,
                                   ptrdiff_t width)
{
    const REAL *x = x_, *factor = factor_;
    REAL *out = out_;
    REAL tile[TILE_ROWS * TILE_VECTORS * LANES];
    memset(tile, 0, sizeof tile);
    for (ptrdiff_t i = 0, rows; i < n_rows; i += rows) {
        rows = n_rows - i < TILE_ROWS ? 1 : TILE_ROWS;
        for (ptrdiff_t first = 0; first < size; first += TILE_VECTORS * LANES) {
            const ptrdiff_t left = (size - first + LANES - 1) / LANES;
            const ptrdiff_t vectors = left < TILE_VECTORS ? left : TILE_VECTORS;
            const ptrdiff_t columns = size - first < vectors * LANES ? size - first : vectors * LANES;
            for (ptrdiff_t r = 0; r < rows; r++) {
                REAL *row = tile + r * TILE_VECTORS * LANES;
                for (ptrdiff_t k = 0; k < columns; k++)
                    row[k] = factor[i + r] * x[(i + r) * size + first + k];
                for (ptrdiff_t k = columns; k < vectors * LANES; k++)
                    row[k] = 0;
            }
            FOR_CONSTANT_SIZES(NAME(gradient_of_tile), rows, vectors, size - first, width, size, x + i * size + first,
                               tile, out + first * width + first);
        }
    }
}

/* ---- the columns of X --------------------------------------------------------------------------------------- */

static TARGET void NAME(column_range)(ptrdiff_t n_rows, ptrdiff_t d, const void *x_, const void *weight_,
                                      double *RESTRICT low, double *RESTRICT high, double *RESTRICT sum)
{
    const REAL *x = x_, *weight = weight_;
    for (ptrdiff_t i = 0; i < n_rows; i++, x += d) {
        const double w = weight[i];
        for (ptrdiff_t j = 0; j < d; j++) {
            const double value = x[j];
            low[j] = value < low[j] ? value : low[j];
            high[j] = value > high[j] ? value : high[j];
            sum[j] += w * value;
        }
    }
}

static TARGET void NAME(column_spread)(ptrdiff_t n_rows, ptrdiff_t d, const void *x_, const void *weight_,
                                       const double *RESTRICT center, const double *RESTRICT unit,
                                       double *RESTRICT sum)
{
    const REAL *x = x_, *weight = weight_;
    for (ptrdiff_t i = 0; i < n_rows; i++, x += d) {
        const double w = weight[i];
        for (ptrdiff_t j = 0; j < d; j++) {
            const double deviation = (x[j] - center[j]) * unit[j];
            sum[j] += w * (deviation * deviation);
        }
    }
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
    NAME(exp), PASTE(log, f64, ISA), PASTE(log1p, f64, ISA), NAME(softmax_rows),
    NAME(log_softmax_rows), NAME(residual), NAME(class_sums), NAME(tile_logits), NAME(tile_gradient),
    NAME(tile_gram), NAME(column_range), NAME(column_spread), NAME(row_lengths), NAME(all_finite), LANES,
};

#undef REAL
#undef BITS
#undef SUFFIX
#undef NAME
#undef LANES
#undef VEC
#undef PARTS
#undef TILE_VECTORS
#undef FOR_CONSTANT_SIZES
#undef LOG1
#undef LOG1P1
#undef REAL_IS_DOUBLE
