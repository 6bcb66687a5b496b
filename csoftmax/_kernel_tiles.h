/* Products of matrices by register tiles; part of _kernel_body.h. */

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
