/* Products with sparse rows; part of _kernel_body.h.
 *
 * An entry (i, j) of X adds value * packed[j] to the logits of row i, and value * residual of row i to gradient[j]: both
 * are short contiguous vectors, one per entry, at an address that the hardware cannot foresee. So they are asked for
 * SPARSE_AHEAD entries before they are needed. Logits of a row, and residuals, stay in registers, as those of a tile.
 */
#define SPARSE_AHEAD 32
#define SPARSE_VECTORS 8
#define SPARSE_STRIDE (SPARSE_VECTORS * LANES)

FLATTEN TARGET ptrdiff_t NAME(index_at)(const int wide, const void *indices, ptrdiff_t p)
{
    return wide ? (ptrdiff_t)((const int64_t *)indices)[p] : ((const int32_t *)indices)[p];
}

FLATTEN TARGET void NAME(logits_of_entries)(const int wide, const int vectors, ptrdiff_t width, ptrdiff_t start,
                                            ptrdiff_t stop, ptrdiff_t end, const REAL *RESTRICT values,
                                            const void *RESTRICT indices, const REAL *RESTRICT packed,
                                            REAL *RESTRICT out)
{
    const VEC zero = {0};
    VEC acc[SPARSE_VECTORS];
    UNROLL
    for (int v = 0; v < vectors; v++)
        acc[v] = zero;
    for (ptrdiff_t p = start; p < stop; p++) {
        const REAL *column = packed + NAME(index_at)(wide, indices, p) * width;
        if (p + SPARSE_AHEAD < end)
            UNROLL
            for (int v = 0; v < vectors; v++)
                PREFETCH(packed + NAME(index_at)(wide, indices, p + SPARSE_AHEAD) * width + v * LANES);
        UNROLL
        for (int v = 0; v < vectors; v++)
            acc[v] += values[p] * *(const VEC *)(column + v * LANES);
    }
    UNROLL
    for (int v = 0; v < vectors; v++)
        *(VEC *)(out + v * LANES) = acc[v];
}

FLATTEN TARGET void NAME(gradient_of_entries)(const int wide, const int vectors, ptrdiff_t width, ptrdiff_t start,
                                              ptrdiff_t stop, ptrdiff_t end, const REAL *RESTRICT values,
                                              const void *RESTRICT indices, const REAL *RESTRICT z,
                                              REAL *RESTRICT gradient)
{
    VEC residual[SPARSE_VECTORS];
    UNROLL
    for (int v = 0; v < vectors; v++)
        residual[v] = *(const VEC *)(z + v * LANES);
    for (ptrdiff_t p = start; p < stop; p++) {
        REAL *column = gradient + NAME(index_at)(wide, indices, p) * width;
        if (p + SPARSE_AHEAD < end)
            UNROLL
            for (int v = 0; v < vectors; v++)
                PREFETCH(gradient + NAME(index_at)(wide, indices, p + SPARSE_AHEAD) * width + v * LANES);
        UNROLL
        for (int v = 0; v < vectors; v++)
            *(VEC *)(column + v * LANES) += values[p] * residual[v];
    }
}

#define CASE(WIDE, VECTORS, FUNCTION, ...)                                                                            \
    case 8 * (WIDE) + (VECTORS) - 1:                                                                                 \
        FUNCTION(WIDE, VECTORS, __VA_ARGS__);                                                                        \
        break;
#define FOR_CONSTANT_VECTORS(...)                                                                                    \
    do {                                                                                                             \
        switch ((wide ? 8 : 0) + vectors - 1) {                                                                      \
            CASE(0, 1, __VA_ARGS__)                                                                                  \
            CASE(0, 2, __VA_ARGS__)                                                                                  \
            CASE(0, 3, __VA_ARGS__)                                                                                  \
            CASE(0, 4, __VA_ARGS__)                                                                                  \
            CASE(0, 5, __VA_ARGS__)                                                                                  \
            CASE(0, 6, __VA_ARGS__)                                                                                  \
            CASE(0, 7, __VA_ARGS__)                                                                                  \
            CASE(0, 8, __VA_ARGS__)                                                                                  \
            CASE(1, 1, __VA_ARGS__)                                                                                  \
            CASE(1, 2, __VA_ARGS__)                                                                                  \
            CASE(1, 3, __VA_ARGS__)                                                                                  \
            CASE(1, 4, __VA_ARGS__)                                                                                  \
            CASE(1, 5, __VA_ARGS__)                                                                                  \
            CASE(1, 6, __VA_ARGS__)                                                                                  \
            CASE(1, 7, __VA_ARGS__)                                                                                  \
            CASE(1, 8, __VA_ARGS__)                                                                                  \
        }                                                                                                            \
    } while (0)

static TARGET void NAME(sparse_logits)(ptrdiff_t n_rows, ptrdiff_t n_columns, const void *values_,
                                       const void *indices, const void *indptr, int wide, ptrdiff_t first_row,
                                       const void *packed_, const void *intercept_, void *z_, ptrdiff_t row_stride,
                                       ptrdiff_t column_stride)
{
    const REAL *values = values_, *packed = packed_, *intercept = intercept_;
    REAL *z = z_;
    const ptrdiff_t width = (n_columns + LANES - 1) / LANES * LANES;
    const ptrdiff_t end = NAME(index_at)(wide, indptr, first_row + n_rows);
    REAL tile[TILE_ROWS * SPARSE_STRIDE] = {0};
    if (n_columns == 1) {
        for (ptrdiff_t i = 0; i < n_rows; i++) {
            const ptrdiff_t stop = NAME(index_at)(wide, indptr, first_row + i + 1);
            REAL sum = intercept[0];
            for (ptrdiff_t p = NAME(index_at)(wide, indptr, first_row + i); p < stop; p++)
                sum += values[p] * packed[NAME(index_at)(wide, indices, p)];
            z[i * row_stride] = sum;
        }
        return;
    }
    for (ptrdiff_t first = 0, columns; first < n_columns; first += columns) {
        const ptrdiff_t left = (width - first) / LANES, vectors = left < SPARSE_VECTORS ? left : SPARSE_VECTORS;
        columns = n_columns - first < vectors * LANES ? n_columns - first : vectors * LANES;
        for (ptrdiff_t i = 0, rows; i < n_rows; i += rows) {
            rows = n_rows - i < TILE_ROWS ? 1 : TILE_ROWS;
            for (ptrdiff_t r = 0; r < rows; r++) {
                const ptrdiff_t start = NAME(index_at)(wide, indptr, first_row + i + r);
                const ptrdiff_t stop = NAME(index_at)(wide, indptr, first_row + i + r + 1);
                FOR_CONSTANT_VECTORS(NAME(logits_of_entries), width, start, stop, end, values, indices,
                                     packed + first, tile + r * SPARSE_STRIDE);
            }
            NAME(tile_to_scores)(rows, columns, 1, SPARSE_STRIDE, tile, intercept + first,
                                 z + first * column_stride + i * row_stride, row_stride, column_stride);
        }
    }
}

static TARGET void NAME(sparse_gradient)(ptrdiff_t n_rows, ptrdiff_t n_columns, const void *values_,
                                         const void *indices, const void *indptr, int wide, ptrdiff_t first_row,
                                         const void *z_, ptrdiff_t ld, void *gradient_)
{
    const REAL *values = values_, *z = z_;
    REAL *gradient = gradient_;
    const ptrdiff_t width = (n_columns + LANES - 1) / LANES * LANES;
    const ptrdiff_t end = NAME(index_at)(wide, indptr, first_row + n_rows);
    REAL tile[TILE_ROWS * SPARSE_STRIDE] = {0};
    if (n_columns == 1) {
        for (ptrdiff_t i = 0; i < n_rows; i++) {
            const ptrdiff_t stop = NAME(index_at)(wide, indptr, first_row + i + 1);
            for (ptrdiff_t p = NAME(index_at)(wide, indptr, first_row + i); p < stop; p++)
                gradient[NAME(index_at)(wide, indices, p)] += values[p] * z[i];
        }
        return;
    }
    for (ptrdiff_t first = 0, columns; first < n_columns; first += columns) {
        const ptrdiff_t left = (width - first) / LANES, vectors = left < SPARSE_VECTORS ? left : SPARSE_VECTORS;
        columns = n_columns - first < vectors * LANES ? n_columns - first : vectors * LANES;
        for (ptrdiff_t i = 0, rows; i < n_rows; i += rows) {
            rows = n_rows - i < TILE_ROWS ? 1 : TILE_ROWS;
            NAME(residuals_to_tile)(rows, columns, 1, SPARSE_STRIDE, z + first * ld + i, ld, tile);
            for (ptrdiff_t r = 0; r < rows; r++) {
                const ptrdiff_t start = NAME(index_at)(wide, indptr, first_row + i + r);
                const ptrdiff_t stop = NAME(index_at)(wide, indptr, first_row + i + r + 1);
                FOR_CONSTANT_VECTORS(NAME(gradient_of_entries), width, start, stop, end, values, indices,
                                     tile + r * SPARSE_STRIDE, gradient + first);
            }
        }
    }
}

#undef SPARSE_AHEAD
#undef SPARSE_VECTORS
#undef SPARSE_STRIDE
#undef CASE
#undef FOR_CONSTANT_VECTORS
