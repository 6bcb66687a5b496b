/* Products of matrices by register tiles; part of _kernel_body.h. */

/* ---- register tiles: a tall X times a few columns -----------------------------------------------------------
 *
 * A tile is TILE_ROWS rows of X times up to TILE_VECTORS vectors of LANES columns; its sums stay in registers.
 * AVX-512: 8 x 3 vectors = 24 of 32 registers, and 3 for the columns; AVX2 and baseline: 4 x 3 = 12 of 16, and 3.
 *
 *                packed: columns of each feature             logits of the tile, for every feature j:
 *                   j -> [ v0 | v1 | v2 ]                      acc[r][v] += x[r][j] * packed[j][v]
 *                          |    |    |                       gradient of the tile, for every feature j:
 *    x   row 0  j -> x * acc  acc  acc  -> z row 0             gradient[j][v] += sum_r x[r][j] * z[r][v]
 *        row 1  j -> x * acc  acc  acc  -> z row 1
 *         ...                                                x[r][j] is one number, spread over a vector.
 *
 * Where columns do not fill vectors, several features share one ("fold"), so that one load spreads them all:
 *
 *    fold 1      [x0 x0 x0 x0 ..] * [w00 w01 w02 w03 ..]     w_jk: feature j, column k
 *    fold 2      [x0 x1 x0 x1 ..] * [w00 w10 w01 w11 ..]     float32, up to TILE_VECTORS * LANES / 2 columns
 *    fold LANES  [x0 x1 x2 x3 ..] * [w00 w10 w20 w30 ..]     one column, or a few
 *
 * and the sums of one column are added up at the end. With fold LANES nothing is spread, and no lane is empty; several
 * columns take a vector each, so their tiles have fewer rows: _kernel_across.h.
 *
 * Features that do not fill the last vector stand at its end, with the ones before them in front, so that it is loaded
 * whole: their weights there are zeros and their gradients not used.
 *
 * The rows of a block are read twice, the second time from the cache. Columns beyond n_columns are computed and
 * thrown away; rows beyond the last full tile are done one by one, so nothing is read past the end of X.
 *
 * Measured, a whole pass with X in the cache (256 x 512, K = 24 in float64, 48 in float32), of the peak of fused
 * multiply-adds on one core: AVX-512 80 % and 70 %, AVX2 87 % and 82 %.
 */
#define TILE_VECTORS 3
#define TILE_STRIDE (TILE_VECTORS * LANES)
#define TILE_SIZE (TILE_ROWS * TILE_STRIDE)
#define MOST_ACROSS (TILE_ROWS * TILE_VECTORS / 2)

/* Of more features than a piece, tiles are taken in groups that share one: see logits_of_group. */
#define GROUP 16
#define PIECE ((ptrdiff_t)(24576 / (TILE_STRIDE * sizeof(REAL))))

/* Squares of TILE_ROWS rows and columns are transposed in registers; pairs of float32 features share a vector. */
#if HAS_SHUFFLE && VECTOR_BYTES >= TILE_ROWS * (REAL_IS_DOUBLE ? 8 : 4)
#define SQUARES 1
#define PAIRS (!REAL_IS_DOUBLE && VECTOR_BYTES == 8 * TILE_ROWS)
typedef uint64_t NAME(pairs) __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL NAME(column) __attribute__((vector_size(TILE_ROWS * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
#define COLUMN NAME(column)
#define SHUFFLE(a, b, part) __builtin_shufflevector(a, b, MASK(part, TILE_ROWS))
#else
#define SQUARES 0
#define PAIRS 0
#endif

/* How many features share a vector, if columns stand side by side in it. */
#define FOLD_BESIDE(n_columns) (PAIRS && (n_columns) <= TILE_STRIDE / 2 ? 2 : 1)

/* Whether several columns have fold LANES: where they would leave a sixth of their vectors empty, of float64 a fifth, or,
 * with AVX2, in a single one make too few sums for a tile, and there are features enough to make up for the sums over lanes.
 *
 * Measured against the other tiles, a whole pass. AVX2: 1.1 to 1.5 times as fast with X in the cache, 1.2 to 1.4 times
 * from memory for 3 to 5 columns. AVX-512 (Zen 4), 784 features: 1.1 to 1.5 times in the cache; from memory float64 1.25
 * for 9 and 10 columns, 1.1 for 11, 12 and 17 to 19, float32 1.2 to 1.3 for 17, 18 and 33 to 36, 1.03 to 1.1 for the
 * others; but in a single vector, where memory is what limits, 0.84 to 1.08. */
#define ACROSS (SQUARES && VECTOR_BYTES >= 32)
#define FULL (REAL_IS_DOUBLE ? 5 : 6)

static int NAME(across)(ptrdiff_t d, ptrdiff_t n_columns)
{
    const ptrdiff_t unit = LANES / FOLD_BESIDE(n_columns), width = (n_columns + unit - 1) / unit * unit;
    const int hollow = FULL * n_columns <= (FULL - 1) * width;
    if (!ACROSS || n_columns == 1 || n_columns > TILE_STRIDE || d < 8 * LANES)
        return 0;
    if (VECTOR_BYTES < 64)
        return n_columns <= unit || hollow;
    return n_columns > unit && hollow && d * (width - n_columns) >= 4 * n_columns * LANES;
}

static ptrdiff_t NAME(tile_fold)(ptrdiff_t d, ptrdiff_t n_columns)
{
    return n_columns == 1 || NAME(across)(d, n_columns) ? LANES : FOLD_BESIDE(n_columns);
}

/* How many columns stand together: as sums fit into the registers, and across features nearly equal numbers of them. */
static ptrdiff_t NAME(tile_panel)(ptrdiff_t d, ptrdiff_t n_columns)
{
    const ptrdiff_t panels = (n_columns + MOST_ACROSS - 1) / MOST_ACROSS;
    return NAME(across)(d, n_columns) ? (n_columns + panels - 1) / panels : TILE_STRIDE;
}

/* The next `fold` values of x, over and over. */
FLATTEN TARGET VEC NAME(spread)(const int fold, const REAL *x)
{
    const VEC zero = {0};
    if (fold == LANES)
        return *(const VEC *)x;
#if PAIRS
    if (fold == 2) {
        uint64_t both;
        memcpy(&both, x, sizeof both);
        return (VEC)(both | (NAME(pairs)){0});
    }
#endif
    return x[0] - zero;
}

/* The last n < fold values of a row of d, behind those before them or zeros: what these meet is zero or not used. */
FLATTEN TARGET VEC NAME(spread_last)(const int fold, ptrdiff_t n, ptrdiff_t d, const REAL *x)
{
    REAL part[LANES] = {0};
    if (d >= fold)
        return NAME(spread)(fold, x + n - fold);
    for (ptrdiff_t l = 0; l < LANES; l++)
        if (l % fold >= fold - n)
            part[l] = x[l % fold + n - fold];
    return *(const VEC *)part;
}

/* Fetches as much as a step reads of its rows, or half of it. */
FLATTEN TARGET void NAME(fetch)(const int rows, const int fold, const REAL *ahead, int half)
{
    UNROLL
    for (int i = 0; i < rows * fold; i += 64 / sizeof(REAL))
        if (i == 0 || 2 * i < rows * fold || !half)
            PREFETCH(ahead + i);
}

/* With `more`, out has sums to begin with. */
FLATTEN TARGET void NAME(logits_of_tile)(const int rows, const int vectors, const int fold, const int more, ptrdiff_t d,
                                         ptrdiff_t stride, const REAL *RESTRICT x, const REAL *RESTRICT packed,
                                         REAL *RESTRICT out, const REAL *ahead, int half)
{
    const VEC zero = {0};
    VEC acc[TILE_ROWS][TILE_VECTORS];
    const REAL *const tail = x + d - d % fold;
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int v = 0; v < vectors; v++)
            acc[r][v] = more ? *(const VEC *)(out + r * TILE_STRIDE + v * LANES) : zero;
    for (; x < tail; x += fold, packed += vectors * LANES, ahead += fold * rows >> half) {
        NAME(fetch)(rows, fold, ahead, half);
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int v = 0; v < vectors; v++)
                acc[r][v] += NAME(spread)(fold, x + r * stride) * *(const VEC *)(packed + v * LANES);
    }
    if (d % fold)
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int v = 0; v < vectors; v++)
                acc[r][v] += NAME(spread_last)(fold, d % fold, d, x + r * stride) * *(const VEC *)(packed + v * LANES);
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int v = 0; v < vectors; v++)
            *(VEC *)(out + r * TILE_STRIDE + v * LANES) = acc[r][v];
}

FLATTEN TARGET void NAME(gradient_of_tile)(const int rows, const int vectors, const int fold, ptrdiff_t d,
                                           ptrdiff_t step, ptrdiff_t stride, const REAL *RESTRICT x,
                                           const REAL *RESTRICT z, REAL *RESTRICT gradient, const REAL *ahead,
                                           int half)
{
    VEC residual[TILE_ROWS][TILE_VECTORS];
    const REAL *const tail = x + d - d % fold;
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int v = 0; v < vectors; v++)
            residual[r][v] = *(const VEC *)(z + r * TILE_STRIDE + v * LANES);
    for (; x < tail; x += fold, gradient += step, ahead += fold * rows >> half) {
        NAME(fetch)(rows, fold, ahead, half);
        UNROLL
        for (int v = 0; v < vectors; v++) {
            VEC sum = *(VEC *)(gradient + v * LANES);
            UNROLL
            for (int r = 0; r < rows; r++)
                sum += NAME(spread)(fold, x + r * stride) * residual[r][v];
            *(VEC *)(gradient + v * LANES) = sum;
        }
    }
    if (d % fold)
        UNROLL
        for (int v = 0; v < vectors; v++) {
            VEC sum = *(VEC *)(gradient + v * LANES);
            UNROLL
            for (int r = 0; r < rows; r++)
                sum += NAME(spread_last)(fold, d % fold, d, x + r * stride) * residual[r][v];
            *(VEC *)(gradient + v * LANES) = sum;
        }
}

/* Gives the compiler each tile with constant sizes, so that its sums can live in registers; not inlined, so that nothing
 * else does. */
#define FOR_CONSTANT_SIZES(FUNCTION, ...)                                                                            \
    do {                                                                                                             \
        switch ((rows == 1 ? 0 : 7) + (fold == 1 ? vectors : fold == 2 ? 3 + vectors : 7)) {                         \
        case 1: FUNCTION(1, 1, 1, __VA_ARGS__); break;                                                               \
        case 2: FUNCTION(1, 2, 1, __VA_ARGS__); break;                                                               \
        case 3: FUNCTION(1, 3, 1, __VA_ARGS__); break;                                                               \
        case 4: FUNCTION(1, 1, 2, __VA_ARGS__); break;                                                               \
        case 5: FUNCTION(1, 2, 2, __VA_ARGS__); break;                                                               \
        case 6: FUNCTION(1, 3, 2, __VA_ARGS__); break;                                                               \
        case 7: FUNCTION(1, 1, LANES, __VA_ARGS__); break;                                                           \
        case 8: FUNCTION(TILE_ROWS, 1, 1, __VA_ARGS__); break;                                                       \
        case 9: FUNCTION(TILE_ROWS, 2, 1, __VA_ARGS__); break;                                                       \
        case 10: FUNCTION(TILE_ROWS, 3, 1, __VA_ARGS__); break;                                                      \
        case 11: FUNCTION(TILE_ROWS, 1, 2, __VA_ARGS__); break;                                                      \
        case 12: FUNCTION(TILE_ROWS, 2, 2, __VA_ARGS__); break;                                                      \
        case 13: FUNCTION(TILE_ROWS, 3, 2, __VA_ARGS__); break;                                                      \
        case 14: FUNCTION(TILE_ROWS, 1, LANES, __VA_ARGS__); break;                                                  \
        }                                                                                                            \
    } while (0)

NOINLINE TARGET void NAME(logits_of_any_tile)(ptrdiff_t rows, ptrdiff_t vectors, ptrdiff_t fold, ptrdiff_t d,
                                              ptrdiff_t stride, const REAL *x, const REAL *packed, REAL *out,
                                              const REAL *ahead, int half)
{
    FOR_CONSTANT_SIZES(NAME(logits_of_tile), 0, d, stride, x, packed, out, ahead, half);
}

NOINLINE TARGET void NAME(gradient_of_any_tile)(ptrdiff_t rows, ptrdiff_t vectors, ptrdiff_t fold, ptrdiff_t d,
                                                ptrdiff_t step, ptrdiff_t stride, const REAL *x, const REAL *z,
                                                REAL *gradient, const REAL *ahead, int half)
{
    FOR_CONSTANT_SIZES(NAME(gradient_of_tile), d, step, stride, x, z, gradient, ahead, half);
}

#if SQUARES
/* Interleaving the upper with the lower half, as often as it takes to come round, transposes. */
FLATTEN TARGET void NAME(transpose)(COLUMN v[TILE_ROWS])
{
    COLUMN t[TILE_ROWS];
    UNROLL
    for (int done = 1; done < TILE_ROWS; done *= 2) {
        UNROLL
        for (int i = 0; i < TILE_ROWS / 2; i++) {
            t[2 * i] = SHUFFLE(v[i], v[i + TILE_ROWS / 2], LOW);
            t[2 * i + 1] = SHUFFLE(v[i], v[i + TILE_ROWS / 2], HIGH);
        }
        UNROLL
        for (int i = 0; i < TILE_ROWS; i++)
            v[i] = t[i];
    }
}

/* The same with the halves of what comes of it added up: the sum of each, in v[0]. */
FLATTEN TARGET void NAME(sums)(COLUMN v[TILE_ROWS])
{
    UNROLL
    for (int half = TILE_ROWS / 2; half > 0; half /= 2)
        UNROLL
        for (int i = 0; i < half; i++)
            v[i] = SHUFFLE(v[i], v[i + half], LOW) + SHUFFLE(v[i], v[i + half], HIGH);
}
#endif

/* The sums of a tile of logits, with their intercepts, to z. */
static TARGET void NAME(tile_to_scores)(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t fold, ptrdiff_t stride,
                                        const REAL *RESTRICT tile, const REAL *RESTRICT intercept, REAL *RESTRICT z,
                                        ptrdiff_t row_stride, ptrdiff_t column_stride)
{
#if SQUARES
    const ptrdiff_t step = fold == LANES ? 1 : TILE_ROWS;
    for (ptrdiff_t c = 0; rows == TILE_ROWS && row_stride == 1 && c < columns; c += step) {
        COLUMN v[TILE_ROWS];
        for (int r = 0; r < TILE_ROWS; r++) {
            const COLUMN *part = (const COLUMN *)(tile + r * stride + c * fold);
            v[r] = part[0];
            if (PAIRS && fold == 2)
                v[r] = SHUFFLE(part[0], part[1], EVEN) + SHUFFLE(part[0], part[1], ODD);
            else if (fold == LANES)
                for (int p = 1; p < LANES / TILE_ROWS; p++)
                    v[r] += part[p];
        }
        if (fold == LANES)
            NAME(sums)(v);
        else
            NAME(transpose)(v);
        for (int k = 0; k < step && c + k < columns; k++)
            *(COLUMN *)(z + (c + k) * column_stride) = v[k] + intercept[c + k];
    }
    if (rows == TILE_ROWS && row_stride == 1)
        return;
#endif
    if (fold == 1 && column_stride == 1) {
        for (ptrdiff_t r = 0; r < rows; r++)
            for (ptrdiff_t k = 0; k < columns; k++)
                z[r * row_stride + k] = tile[r * stride + k] + intercept[k];
        return;
    }
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t k = 0; k < columns; k++) {
            REAL part[LANES];
            memcpy(part, tile + r * stride + k * fold, (size_t)fold * sizeof(REAL));
            for (ptrdiff_t half = fold / 2; half > 0; half /= 2)
                for (ptrdiff_t f = 0; f < half; f++)
                    part[f] += part[f + half];
            z[k * column_stride + r * row_stride] = part[0] + intercept[k];
        }
}

/* The residuals of a tile's rows, repeated for the features that share a vector. */
static TARGET void NAME(residuals_to_tile)(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t fold, ptrdiff_t stride,
                                           const REAL *RESTRICT z, ptrdiff_t ld, REAL *RESTRICT tile)
{
#if SQUARES
    for (ptrdiff_t c = 0; rows == TILE_ROWS && fold < LANES && c < columns; c += TILE_ROWS) {
        const COLUMN zero = {0};
        COLUMN v[TILE_ROWS];
        for (int k = 0; k < TILE_ROWS; k++)
            v[k] = c + k < columns ? *(const COLUMN *)(z + (c + k) * ld) : zero;
        NAME(transpose)(v);
        for (int r = 0; r < TILE_ROWS; r++) {
            COLUMN *part = (COLUMN *)(tile + r * stride + (PAIRS && fold == 2 ? 2 * c : c));
            if (PAIRS && fold == 2) {
                part[0] = SHUFFLE(v[r], v[r], LOW);
                part[1] = SHUFFLE(v[r], v[r], HIGH);
            } else {
                part[0] = v[r];
            }
        }
    }
    if (rows == TILE_ROWS && fold < LANES)
        return;
#endif
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t k = 0; k < columns; k++)
            for (ptrdiff_t f = 0; f < fold; f++)
                tile[r * stride + k * fold + f] = z[k * ld + r];
}

#if ACROSS
#include "_kernel_across.h"
#endif

/* A group of rows by a full panel of columns: a piece of it after the other, which stays in the first-level cache for all
 * tiles of the group. */
NOINLINE TARGET void NAME(logits_of_group)(ptrdiff_t d, const REAL *x, const REAL *packed, REAL *tiles,
                                           const REAL *ahead, int half)
{
    memset(tiles, 0, sizeof(REAL) * GROUP * TILE_SIZE);
    for (ptrdiff_t j = 0; j < d; j += PIECE)
        for (ptrdiff_t t = 0; t < GROUP; t++)
            NAME(logits_of_tile)(TILE_ROWS, TILE_VECTORS, 1, 1, d - j < PIECE ? d - j : PIECE, d,
                                 x + t * TILE_ROWS * d + j, packed + j * TILE_STRIDE, tiles + t * TILE_SIZE,
                                 ahead + ((t * d + j) * TILE_ROWS >> half), half);
}

/* One panel of columns after the other, so that it stays in the cache for all rows of the block. */
static TARGET void NAME(tile_logits)(ptrdiff_t n_rows, ptrdiff_t d, ptrdiff_t n_columns, const void *x_,
                                     const void *packed_, void *z_, ptrdiff_t row_stride, ptrdiff_t column_stride,
                                     const void *ahead_, int half)
{
    const REAL *x = x_, *packed = packed_, *ahead = ahead_;
    REAL *z = z_;
    const ptrdiff_t fold = NAME(tile_fold)(d, n_columns), unit = LANES / fold;
    const ptrdiff_t width = (n_columns + unit - 1) / unit * unit;
    const REAL *intercept = packed + (d + fold - 1) / fold * fold * width;
    REAL tiles[GROUP][TILE_SIZE];
#if ACROSS
    if (NAME(across)(d, n_columns)) {
        NAME(logits_across)(n_rows, d, n_columns, x, packed, intercept, z, row_stride, column_stride, ahead, half);
        return;
    }
#endif
    memset(tiles[0], 0, sizeof tiles[0]);
    for (ptrdiff_t first = 0; first < n_columns; first += TILE_STRIDE, packed += TILE_STRIDE * d) {
        const ptrdiff_t left = (width - first) / unit, vectors = left < TILE_VECTORS ? left : TILE_VECTORS;
        const ptrdiff_t columns = n_columns - first < TILE_STRIDE ? n_columns - first : TILE_STRIDE;
        const ptrdiff_t grouped = d > PIECE && columns > TILE_STRIDE - LANES ? n_rows - n_rows % (GROUP * TILE_ROWS) : 0;
        for (ptrdiff_t i = 0, rows; i < n_rows; i += rows) {
            const ptrdiff_t t = i < grouped ? i / TILE_ROWS % GROUP : 0;
            rows = n_rows - i < TILE_ROWS ? 1 : TILE_ROWS;
            if (i >= grouped)
                NAME(logits_of_any_tile)(rows, vectors, fold, d, d, x + i * d, packed, tiles[0],
                                         ahead + (i * d >> half), half);
            else if (t == 0)
                NAME(logits_of_group)(d, x + i * d, packed, tiles[0],
                                         ahead + (i * d >> half), half);
            NAME(tile_to_scores)(rows, columns, fold, TILE_STRIDE, tiles[t], intercept + first,
                                 z + first * column_stride + i * row_stride, row_stride, column_stride);
        }
    }
}

static TARGET void NAME(tile_gradient)(ptrdiff_t n_rows, ptrdiff_t d, ptrdiff_t n_columns, const void *x_,
                                       const void *z_, ptrdiff_t ld, void *gradient_, const void *ahead_,
                                       int half)
{
    const REAL *x = x_, *z = z_, *ahead = ahead_;
    REAL *gradient = gradient_;
    const ptrdiff_t fold = NAME(tile_fold)(d, n_columns), unit = LANES / fold;
    const ptrdiff_t width = (n_columns + unit - 1) / unit * unit;
    REAL tile[TILE_SIZE] = {0};
#if ACROSS
    if (NAME(across)(d, n_columns)) {
        NAME(gradient_across)(n_rows, d, n_columns, x, z, ld, gradient, ahead, half);
        return;
    }
#endif
    for (ptrdiff_t first = 0; first < n_columns; first += TILE_STRIDE, gradient += TILE_STRIDE * d) {
        const ptrdiff_t left = (width - first) / unit, vectors = left < TILE_VECTORS ? left : TILE_VECTORS;
        const ptrdiff_t columns = n_columns - first < TILE_STRIDE ? n_columns - first : TILE_STRIDE;
        for (ptrdiff_t i = 0, rows; i < n_rows; i += rows) {
            rows = n_rows - i < TILE_ROWS ? 1 : TILE_ROWS;
            NAME(residuals_to_tile)(rows, columns, fold, TILE_STRIDE, z + first * ld + i, ld, tile);
            NAME(gradient_of_any_tile)(rows, vectors, fold, d, vectors * LANES, d, x + i * d, tile, gradient,
                                       ahead + (i * d >> half), half);
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
    REAL tile[TILE_SIZE];
    for (ptrdiff_t i = 0, rows; i < n_rows; i += rows) {
        rows = n_rows - i < TILE_ROWS ? 1 : TILE_ROWS;
        for (ptrdiff_t first = 0; first < size; first += TILE_STRIDE) {
            const ptrdiff_t left = (size - first + LANES - 1) / LANES;
            const ptrdiff_t vectors = left < TILE_VECTORS ? left : TILE_VECTORS;
            const ptrdiff_t columns = size - first < vectors * LANES ? size - first : vectors * LANES;
            for (ptrdiff_t r = 0; r < rows; r++) {
                REAL *row = tile + r * TILE_STRIDE;
                for (ptrdiff_t k = 0; k < columns; k++)
                    row[k] = factor[i + r] * x[(i + r) * size + first + k];
                for (ptrdiff_t k = columns; k < vectors * LANES; k++)
                    row[k] = 0;
            }
            NAME(gradient_of_any_tile)(rows, vectors, 1, size - first, width, size, x + i * size + first, tile,
                                       out + first * width + first, x + i * size, 0);
        }
    }
}
