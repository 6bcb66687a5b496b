/* Vectors across the features of several columns; part of _kernel_tiles.h.
 *
 * Columns are taken in groups whose sums fit into the registers: of logits those of ROWS_OF_LOGITS rows and up to
 * COLUMNS_OF_LOGITS columns, of a gradient those of two vectors of features and a panel of columns, for all rows of a
 * block, where a residual is spread. So no load serves one product only:
 *
 *    tile[r][k]     += x[r][j ..] * packed[j ..][k]
 *    gradient[j][k] += x[r][j ..] * z[r][k]
 *
 * Coefficients of a group and as many features as fit into PIECE_BYTES stay in the first-level cache for ROWS_ACROSS rows.
 */
#define PIECE_BYTES 20480
#define ROWS_ACROSS 32
#define COLUMNS_OF_LOGITS 6
#define ROWS_OF_LOGITS (MOST_ACROSS / 3)

#define CASE_ACROSS(MOST, COLUMNS, FUNCTION, ...)                                                                    \
    case COLUMNS: FUNCTION(1, COLUMNS, __VA_ARGS__); break;                                                          \
    case 16 + COLUMNS: FUNCTION(MOST, COLUMNS, __VA_ARGS__); break;
#define CASES_ACROSS(MOST, ...)                                                                                      \
    CASE_ACROSS(MOST, 2, __VA_ARGS__)                                                                                \
    CASE_ACROSS(MOST, 3, __VA_ARGS__)                                                                                \
    CASE_ACROSS(MOST, 4, __VA_ARGS__)                                                                                \
    CASE_ACROSS(MOST, 5, __VA_ARGS__)                                                                                \
    CASE_ACROSS(MOST, 6, __VA_ARGS__)
#if MOST_ACROSS == 12
#define MORE_CASES_ACROSS(...)                                                                                       \
    CASE_ACROSS(2, 7, __VA_ARGS__)                                                                                   \
    CASE_ACROSS(2, 8, __VA_ARGS__)                                                                                   \
    CASE_ACROSS(2, 9, __VA_ARGS__)                                                                                   \
    CASE_ACROSS(2, 10, __VA_ARGS__)                                                                                  \
    CASE_ACROSS(2, 11, __VA_ARGS__)                                                                                  \
    CASE_ACROSS(2, 12, __VA_ARGS__)
#else
#define MORE_CASES_ACROSS(...)
#endif

FLATTEN TARGET void NAME(fetch_across)(const REAL *ahead, ptrdiff_t pace)
{
    PREFETCH(ahead);
    if (2 * VECTOR_BYTES > 64)
        PREFETCH(ahead + pace / 2);
}

FLATTEN TARGET void NAME(add_across)(const int rows, const int columns, ptrdiff_t d, const REAL *x, const REAL *packed,
                                     VEC sum[ROWS_OF_LOGITS][COLUMNS_OF_LOGITS])
{
    VEC values[ROWS_OF_LOGITS];
    UNROLL
    for (int r = 0; r < rows; r++) {
        values[r] = *(const VEC *)(x + r * d);
        KEEP(values[r]);
    }
    UNROLL
    for (int k = 0; k < columns; k++) {
        VEC weights = *(const VEC *)(packed + k * LANES);
        KEEP(weights);
        UNROLL
        for (int r = 0; r < rows; r++)
            sum[r][k] += values[r] * weights;
    }
}

/* n features, of which those that do not fill the last vector stand at its end. Vectors of features in `packed`, and rows
 * in the tile, lie a step apart. With `more`, tile has sums to begin with. */
FLATTEN TARGET void NAME(logits_of_vectors)(const int rows, const int columns, ptrdiff_t n, ptrdiff_t d, ptrdiff_t step,
                                            int more, const REAL *RESTRICT x, const REAL *RESTRICT packed,
                                            REAL *RESTRICT tile, const REAL *ahead, ptrdiff_t pace)
{
    const VEC zero = {0};
    const REAL *const tail = x + n / LANES * LANES;
    VEC sum[ROWS_OF_LOGITS][COLUMNS_OF_LOGITS];
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int k = 0; k < columns; k++)
            sum[r][k] = more ? *(const VEC *)(tile + r * step + k * LANES) : zero;
    for (; x < tail; x += LANES, packed += step, ahead += pace) {
        NAME(fetch_across)(ahead, pace);
        NAME(add_across)(rows, columns, d, x, packed, sum);
    }
    if (n % LANES)
        NAME(add_across)(rows, columns, d, x + n % LANES - LANES, packed, sum);
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int k = 0; k < columns; k++)
            *(VEC *)(tile + r * step + k * LANES) = sum[r][k];
}

/* ROWS_OF_LOGITS rows, or one. */
NOINLINE TARGET void NAME(logits_of_rows)(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t n, ptrdiff_t d, ptrdiff_t step,
                                          int more, const REAL *x, const REAL *packed, REAL *tile, const REAL *ahead,
                                          ptrdiff_t pace)
{
    switch (16 * (rows > 1) + columns) {
        CASES_ACROSS(ROWS_OF_LOGITS, NAME(logits_of_vectors), n, d, step, more, x, packed, tile, ahead, pace)
    }
}

/* The sums of a whole tile, with their intercepts, to z. */
static TARGET void NAME(across_to_scores)(ptrdiff_t columns, ptrdiff_t step, const REAL *RESTRICT tile,
                                          const REAL *RESTRICT intercept, REAL *RESTRICT z, ptrdiff_t row_stride,
                                          ptrdiff_t column_stride)
{
    for (ptrdiff_t k = 0; k < columns; k++) {
        COLUMN v[TILE_ROWS];
        UNROLL
        for (int r = 0; r < TILE_ROWS; r++) {
            const COLUMN *part = (const COLUMN *)(tile + r * step + k * LANES);
            v[r] = part[0];
            UNROLL
            for (int p = 1; p < LANES / TILE_ROWS; p++)
                v[r] += part[p];
        }
        NAME(sums)(v);
        v[0] += intercept[k];
        if (row_stride == 1)
            *(COLUMN *)(z + k * column_stride) = v[0];
        else
            for (int r = 0; r < TILE_ROWS; r++)
                z[r * row_stride + k * column_stride] = v[0][r];
    }
}

/* Some columns of a panel, whose rows lie a step apart. */
static TARGET void NAME(logits_of_columns)(ptrdiff_t n_rows, ptrdiff_t d, ptrdiff_t columns, ptrdiff_t step,
                                           const REAL *x, const REAL *packed, const REAL *intercept, REAL *z,
                                           ptrdiff_t row_stride, ptrdiff_t column_stride, const REAL *ahead,
                                           ptrdiff_t slow)
{
    REAL tile[ROWS_ACROSS * MOST_ACROSS * LANES];
    const ptrdiff_t piece = PIECE_BYTES / (columns * LANES * (ptrdiff_t)sizeof(REAL)) * LANES;
    const ptrdiff_t together = d > piece ? ROWS_ACROSS : TILE_ROWS;
    for (ptrdiff_t i = 0, rows; i < n_rows; i += rows, x += rows * d, z += rows * row_stride, ahead += rows * d / slow) {
        rows = n_rows - i < together ? n_rows - i : together;
        for (ptrdiff_t j = 0; j < d; j += piece)
            for (ptrdiff_t r = 0, some; r < rows; r += some) {
                some = rows - r < ROWS_OF_LOGITS ? 1 : ROWS_OF_LOGITS;
                NAME(logits_of_rows)(some, columns, d - j < piece ? d - j : piece, d, step, j > 0, x + r * d + j,
                                     packed + j / LANES * step, tile + r * step, ahead + (r * d + some * j) / slow,
                                     some * LANES / slow);
            }
        for (ptrdiff_t r = 0; r < rows; r += TILE_ROWS)
            if (rows - r < TILE_ROWS)
                NAME(tile_to_scores)(rows - r, columns, LANES, step, tile + r * step, intercept, z + r * row_stride,
                                     row_stride, column_stride);
            else
                NAME(across_to_scores)(columns, step, tile + r * step, intercept, z + r * row_stride, row_stride,
                                       column_stride);
    }
}

static TARGET void NAME(logits_across)(ptrdiff_t n_rows, ptrdiff_t d, ptrdiff_t n_columns, const REAL *x,
                                       const REAL *packed, const REAL *intercept, REAL *z, ptrdiff_t row_stride,
                                       ptrdiff_t column_stride, const REAL *ahead, int half)
{
    const ptrdiff_t panel = NAME(tile_panel)(d, n_columns), groups = (panel + COLUMNS_OF_LOGITS - 1) / COLUMNS_OF_LOGITS;
    const ptrdiff_t group = (panel + groups - 1) / groups, slow = (n_columns + group - 1) / group << half;
    for (ptrdiff_t first = 0, some; first < n_columns; first += some, ahead += n_rows * d / slow) {
        const ptrdiff_t in_panel = first % panel, whole = first - in_panel;
        const ptrdiff_t columns = n_columns - whole < panel ? n_columns - whole : panel;
        some = columns - in_panel < group ? columns - in_panel : group;
        NAME(logits_of_columns)(n_rows, d, some, columns * LANES, x,
                                packed + (d + LANES - 1) / LANES * LANES * whole + in_panel * LANES, intercept + first,
                                z + first * column_stride, row_stride, column_stride, ahead, slow);
    }
}

FLATTEN TARGET void NAME(gradient_of_vectors)(const int vectors, const int columns, ptrdiff_t rows, ptrdiff_t d,
                                              const REAL *RESTRICT x, const REAL *RESTRICT z, ptrdiff_t ld,
                                              REAL *RESTRICT gradient, const REAL *ahead, ptrdiff_t pace)
{
    const VEC zero = {0};
    VEC sum[2][MOST_ACROSS], values[2];
    UNROLL
    for (int v = 0; v < vectors; v++)
        UNROLL
        for (int k = 0; k < columns; k++)
            sum[v][k] = *(const VEC *)(gradient + (v * columns + k) * LANES);
    for (ptrdiff_t r = 0; r < rows; r++, x += d, z++, ahead += pace) {
        NAME(fetch_across)(ahead, pace);
        UNROLL
        for (int v = 0; v < vectors; v++) {
            values[v] = *(const VEC *)(x + v * LANES);
            KEEP(values[v]);
        }
        UNROLL
        for (int k = 0; k < columns; k++) {
            VEC residual = z[k * ld] - zero;
            KEEP(residual);
            UNROLL
            for (int v = 0; v < vectors; v++)
                sum[v][k] += values[v] * residual;
        }
    }
    UNROLL
    for (int v = 0; v < vectors; v++)
        UNROLL
        for (int k = 0; k < columns; k++)
            *(VEC *)(gradient + (v * columns + k) * LANES) = sum[v][k];
}

/* Two vectors of features, or one. */
NOINLINE TARGET void NAME(gradient_of_features)(ptrdiff_t vectors, ptrdiff_t columns, ptrdiff_t n_rows, ptrdiff_t d,
                                                const REAL *x, const REAL *z, ptrdiff_t ld, REAL *gradient,
                                                const REAL *ahead, ptrdiff_t pace)
{
    switch (16 * (vectors > 1) + columns) {
        CASES_ACROSS(2, NAME(gradient_of_vectors), n_rows, d, x, z, ld, gradient, ahead, pace)
        MORE_CASES_ACROSS(NAME(gradient_of_vectors), n_rows, d, x, z, ld, gradient, ahead, pace)
    }
}

static TARGET void NAME(gradient_across)(ptrdiff_t n_rows, ptrdiff_t d, ptrdiff_t n_columns, const REAL *x,
                                         const REAL *z, ptrdiff_t ld, REAL *gradient, const REAL *ahead,
                                         int half)
{
    const ptrdiff_t panel = NAME(tile_panel)(d, n_columns), slow = ((n_columns + panel - 1) / panel) << half;
    for (ptrdiff_t j = 0, n; j < d; j += n) {
        n = d - j < 2 * LANES ? LANES : 2 * LANES;
        /* The last vector overlaps the one before. */
        const REAL *some = x + (d - j < n ? d - n : j);
        REAL *sums = gradient;
        for (ptrdiff_t first = 0; first < n_columns; first += panel, ahead += n_rows * n / slow) {
            const ptrdiff_t columns = n_columns - first < panel ? n_columns - first : panel;
            NAME(gradient_of_features)(n / LANES, columns, n_rows, d, some, z + first * ld, ld, sums + j * columns, ahead,
                                       n / slow);
            sums += (d + LANES - 1) / LANES * LANES * columns;
        }
    }
}

#undef PIECE_BYTES
#undef ROWS_ACROSS
#undef COLUMNS_OF_LOGITS
#undef ROWS_OF_LOGITS
#undef CASE_ACROSS
#undef CASES_ACROSS
#undef MORE_CASES_ACROSS
