/* One row of X at a time, for serving; part of _kernel_body.h.
 *
 * As in a tile, a panel of columns stays in registers; but a single row has no other rows to fill the time that a
 * multiply-add takes, so several features are added up apart: ROW_VECTORS sums are always under way.
 */
#define ROW_VECTORS 8
#define FAR 65536 /* coefficients beyond this many bytes are asked for early */

FLATTEN TARGET void NAME(logits_of_row)(const int vectors, const int early, ptrdiff_t d, const REAL *RESTRICT x,
                                        const REAL *RESTRICT packed, const REAL *RESTRICT intercept,
                                        REAL *RESTRICT out)
{
    const VEC zero = {0};
    const int steps = ROW_VECTORS / vectors;
    VEC acc[ROW_VECTORS];
    ptrdiff_t j = 0;
    UNROLL
    for (int a = 0; a < ROW_VECTORS; a++)
        acc[a] = zero;
    for (; j + steps <= d; j += steps)
        UNROLL
        for (int s = 0; s < steps; s++)
            UNROLL
            for (int v = 0; v < vectors; v++, packed += LANES) {
                if (early)
                    PREFETCH(packed + 8 * ROW_VECTORS * LANES);
                acc[s * vectors + v] += x[j + s] * *(const VEC *)packed;
            }
    for (; j < d; j++)
        UNROLL
        for (int v = 0; v < vectors; v++, packed += LANES)
            acc[v] += x[j] * *(const VEC *)packed;
    UNROLL
    for (int v = 0; v < vectors; v++) {
        VEC sum = *(const VEC *)(intercept + v * LANES);
        UNROLL
        for (int s = 0; s < steps; s++)
            sum += acc[s * vectors + v];
        *(VEC *)(out + v * LANES) = sum;
    }
}

/* One column: vectors along the features, the layout of a tile of one column. */
FLATTEN TARGET REAL NAME(logit_of_row)(ptrdiff_t d, const REAL *RESTRICT x, const REAL *RESTRICT packed)
{
    const VEC zero = {0};
    VEC acc[4] = {zero, zero, zero, zero};
    REAL part[LANES], sum = packed[(d + LANES - 1) / LANES * LANES];
    ptrdiff_t j = 0;
    for (; j + 4 * LANES <= d; j += 4 * LANES)
        UNROLL
        for (int a = 0; a < 4; a++)
            acc[a] += *(const VEC *)(x + j + a * LANES) * *(const VEC *)(packed + j + a * LANES);
    for (; j + LANES <= d; j += LANES)
        acc[0] += *(const VEC *)(x + j) * *(const VEC *)(packed + j);
    if (j < d)
        acc[1] += NAME(spread_last)(LANES, d - j, d, x + j) * *(const VEC *)(packed + j);
    acc[0] += acc[1] + (acc[2] + acc[3]);
    memcpy(part, &acc[0], sizeof part);
    for (int l = 0; l < LANES; l++)
        sum += part[l];
    return sum;
}

static TARGET void NAME(row_logits)(ptrdiff_t d, ptrdiff_t n_columns, const void *x_, const void *packed_, void *z_,
                                    int whole)
{
    const REAL *x = x_, *packed = packed_;
    REAL *z = z_, last[TILE_STRIDE];
    const ptrdiff_t width = (n_columns + LANES - 1) / LANES * LANES;
    const REAL *intercept = packed + d * width;
    const int early = d * width * (ptrdiff_t)sizeof(REAL) > FAR;
    if (n_columns == 1) {
        z[0] = NAME(logit_of_row)(d, x, packed);
        return;
    }
    for (ptrdiff_t first = 0; first < width; first += TILE_STRIDE) {
        const ptrdiff_t left = (width - first) / LANES, vectors = left < TILE_VECTORS ? left : TILE_VECTORS;
        REAL *out = whole || first + vectors * LANES <= n_columns ? z + first : last;
        switch ((early ? 3 : 0) + vectors) {
        case 1: NAME(logits_of_row)(1, 0, d, x, packed, intercept + first, out); break;
        case 2: NAME(logits_of_row)(2, 0, d, x, packed, intercept + first, out); break;
        case 3: NAME(logits_of_row)(3, 0, d, x, packed, intercept + first, out); break;
        case 4: NAME(logits_of_row)(1, 1, d, x, packed, intercept + first, out); break;
        case 5: NAME(logits_of_row)(2, 1, d, x, packed, intercept + first, out); break;
        case 6: NAME(logits_of_row)(3, 1, d, x, packed, intercept + first, out); break;
        }
        if (out == last)
            memcpy(z + first, last, (size_t)(n_columns - first) * sizeof(REAL));
        packed += vectors * LANES * d;
    }
}

static TARGET void NAME(row_softmax)(ptrdiff_t n_columns, void *z_, void *out_, int logarithm)
{
    REAL *RESTRICT z = z_, *RESTRICT out = out_;
    const ptrdiff_t width = (n_columns + LANES - 1) / LANES * LANES;
    REAL top, sum;
    if (n_columns == 1) {
        const REAL score = z[0], small = NAME(exp1)(score < 0 ? score : -score), rest = NAME(log1p1)(small);
        const int likely = score > 0;
        sum = 1 + small;
        out[likely] = logarithm ? -rest : 1 / sum;
        out[!likely] = logarithm ? (score < 0 ? score : -score) - rest : small / sum;
        return;
    }
    top = NAME(row_max)(n_columns, z);
    if (logarithm) {
        REAL part[LANES];
        sum = 0;
        for (ptrdiff_t k = 0; k < width; k += LANES) {
            for (int l = 0; l < LANES; l++)
                part[l] = k + l < n_columns ? NAME(exp1)(z[k + l] - top) : 0;
            for (int l = 0; l < LANES; l++)
                sum += part[l];
        }
        sum = NAME(log1)(sum);
        for (ptrdiff_t k = 0; k < n_columns; k++)
            out[k] = (z[k] - top) - sum;
        return;
    }
    /* Whole vectors, padding included, which nothing looks at. */
    for (ptrdiff_t k = 0; k < width; k++)
        z[k] = NAME(exp1)(z[k] - top);
    sum = NAME(row_sum)(n_columns, z);
    for (ptrdiff_t k = 0; k < n_columns; k++)
        out[k] = z[k] / sum;
}

#undef ROW_VECTORS
#undef FAR
