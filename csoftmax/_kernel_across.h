/* Vectors across the features of several columns; part of _kernel_tiles.h.
 *
 * The sums of a tile of logits stay in registers as ever, here of two rows; those of a gradient do so for all rows of a
 * block, two vectors of features at a time, where a residual is spread:
 *
 *    gradient[j][k] += x[r][j ..] * z[r][k]
 */
#define CASE_ACROSS(COLUMNS, FUNCTION, ...)                                                                          \
    case COLUMNS: FUNCTION(1, COLUMNS, __VA_ARGS__); break;                                                          \
    case 16 + COLUMNS: FUNCTION(2, COLUMNS, __VA_ARGS__); break;
#define FOR_COLUMNS_ACROSS(...)                                                                                      \
    switch (16 * two + columns) {                                                                                    \
        CASE_ACROSS(9, __VA_ARGS__)                                                                                  \
        CASE_ACROSS(10, __VA_ARGS__)                                                                                 \
        CASE_ACROSS(11, __VA_ARGS__)                                                                                 \
        CASE_ACROSS(12, __VA_ARGS__)                                                                                 \
    }

/* Two rows, or one. */
NOINLINE TARGET void NAME(logits_of_rows)(int two, ptrdiff_t columns, ptrdiff_t d, const REAL *x, const REAL *packed,
                                          REAL *out, const REAL *ahead)
{
    FOR_COLUMNS_ACROSS(NAME(logits_of_tile), LANES, 0, d, d, x, packed, out, ahead)
}

static TARGET void NAME(logits_across)(ptrdiff_t n_rows, ptrdiff_t d, ptrdiff_t columns, const REAL *x,
                                       const REAL *packed, const REAL *intercept, REAL *z, ptrdiff_t row_stride,
                                       ptrdiff_t column_stride, const REAL *ahead)
{
    REAL tile[TILE_ROWS * MOST_ACROSS * LANES];
    const ptrdiff_t step = columns * LANES;
    for (ptrdiff_t i = 0, rows; i < n_rows; i += rows) {
        rows = n_rows - i < TILE_ROWS ? 1 : TILE_ROWS;
        for (ptrdiff_t r = 0; r < rows; r += 2)
            NAME(logits_of_rows)(rows > 1, columns, d, x + (i + r) * d, packed, tile + r * step, ahead + (i + r) * d);
        NAME(tile_to_scores)(rows, columns, LANES, step, tile, intercept, z + i * row_stride, row_stride,
                             column_stride);
    }
}

FLATTEN TARGET void NAME(gradient_of_vectors)(const int vectors, const int columns, ptrdiff_t rows, ptrdiff_t stride,
                                              const REAL *RESTRICT x, const REAL *RESTRICT z, ptrdiff_t ld,
                                              REAL *RESTRICT gradient, const REAL *ahead)
{
    VEC sum[2][MOST_ACROSS];
    UNROLL
    for (int v = 0; v < vectors; v++)
        UNROLL
        for (int k = 0; k < columns; k++)
            sum[v][k] = *(const VEC *)(gradient + (v * columns + k) * LANES);
    for (ptrdiff_t r = 0; r < rows; r++, x += stride, z++, ahead += vectors * LANES) {
        NAME(fetch)(vectors, LANES, ahead);
        UNROLL
        for (int k = 0; k < columns; k++)
            UNROLL
            for (int v = 0; v < vectors; v++)
                sum[v][k] += *(const VEC *)(x + v * LANES) * z[k * ld];
    }
    UNROLL
    for (int v = 0; v < vectors; v++)
        UNROLL
        for (int k = 0; k < columns; k++)
            *(VEC *)(gradient + (v * columns + k) * LANES) = sum[v][k];
}

/* Two vectors of features, or one. */
NOINLINE TARGET void NAME(gradient_of_features)(int two, ptrdiff_t columns, ptrdiff_t n_rows, ptrdiff_t d,
                                                const REAL *x, const REAL *z, ptrdiff_t ld, REAL *gradient,
                                                const REAL *ahead)
{
    FOR_COLUMNS_ACROSS(NAME(gradient_of_vectors), n_rows, d, x, z, ld, gradient, ahead)
}

static TARGET void NAME(gradient_across)(ptrdiff_t n_rows, ptrdiff_t d, ptrdiff_t columns, const REAL *x,
                                         const REAL *z, ptrdiff_t ld, REAL *gradient, const REAL *ahead)
{
    for (ptrdiff_t j = 0, n; j < d; j += n) {
        n = d - j < 2 * LANES ? LANES : 2 * LANES;
        /* The last vector overlaps the one before. */
        NAME(gradient_of_features)(n > LANES, columns, n_rows, d, x + (d - j < n ? d - n : j), z, ld,
                                   gradient + j * columns, ahead + j * n_rows);
    }
}

#undef CASE_ACROSS
#undef FOR_COLUMNS_ACROSS
