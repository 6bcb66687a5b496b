/* exp and log, without branches; part of _kernel_body.h. */

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

/* ---- log ----------------------------------------------------------------------------------------------------
 *
 * log(x) = k ln 2 + log(m),  x = 2^k m >= 1,  sqrt(1/2) <= m < sqrt(2),  f = m - 1,  s = f / (2 + f),
 * log(m) = 2 atanh(s) = f - s (f - s^2 q(s^2)).
 *
 * q is the output of mpmath.chebyfit(lambda t: 2 * (atanh(s) / s - 1) / t with s = sqrt(t), [0, 0.02945], 7 or 3); its
 * own share of the relative error is below 1e-17 (float64) and 3e-9 (float32). No branch, as for exp; x - x lets
 * infinity and NaN through as NaN.
 * Largest error found, in units of the last place of the result, over 2 million arguments, against long double:
 *     float64  log1 1.18 without and 1.16 with fused multiply-add, log1p1 1.54 and 1.48
 *     float32  log1 0.89 without and 0.90 with fused multiply-add, log1p1 1.31 and 1.19 (against float64)
 */
FLATTEN TARGET REAL NAME(log1)(REAL x)
{
#if REAL_IS_DOUBLE
    const BITS ROOT_HALF = 0x3fe6a09e667f3bcd, INTEGERS = 0x4330000000000000;
    const REAL INTEGER = 0x1p52, LN2_HIGH = 0x1.62e42fefap-1, LN2_LOW = 0x1.cf79abc9e3b3ap-40;
    enum { MANTISSA = 52 };
#else
    const BITS ROOT_HALF = 0x3f3504f3, INTEGERS = 0x4b000000;
    const REAL INTEGER = 0x1p23f, LN2_HIGH = 0x1.62e4p-1f, LN2_LOW = 0x1.7f7d1cp-20f;
    enum { MANTISSA = 23 };
#endif
    BITS bits, exponent;
    REAL m, k, f, s, t, q;

    memcpy(&bits, &x, sizeof bits);
    exponent = (bits - ROOT_HALF) >> MANTISSA;
    bits -= exponent << MANTISSA;
    memcpy(&m, &bits, sizeof m);
    exponent |= INTEGERS;
    memcpy(&k, &exponent, sizeof k);
    k -= INTEGER;
    f = m - 1;
    s = f / (2 + f);
    t = s * s;
#if REAL_IS_DOUBLE
    q = 0x1.2b5bd9a316a24p-3;
    q = q * t + 0x1.39fe16ad885a7p-3;
    q = q * t + 0x1.7462b6e311a89p-3;
    q = q * t + 0x1.c71c62ddb431bp-3;
    q = q * t + 0x1.2492492df7663p-2;
    q = q * t + 0x1.99999999952abp-2;
    q = q * t + 0x1.5555555555558p-1;
#else
    q = 0x1.2ee73ep-2f;
    q = q * t + 0x1.997c2ap-2f;
    q = q * t + 0x1.55555cp-1f;
#endif
    return (k * LN2_HIGH + (k * LN2_LOW + (f - s * (f - t * q)))) + (x - x);
}

/* log(1 + x) for x in [0, 1]: what rounding takes from 1 + x is put back. */
FLATTEN TARGET REAL NAME(log1p1)(REAL x)
{
    const REAL u = 1 + x;
    return NAME(log1)(u) + (x - (u - 1)) / u;
}

static TARGET void NAME(log)(ptrdiff_t n, const void *x_, void *out_)
{
    const REAL *x = x_;
    REAL *out = out_;
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = NAME(log1)(x[i]);
}

static TARGET void NAME(log1p)(ptrdiff_t n, const void *x_, void *out_)
{
    const REAL *x = x_;
    REAL *out = out_;
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = NAME(log1p1)(x[i]);
}

static TARGET void NAME(exp)(ptrdiff_t n, const void *x_, void *out_)
{
    const REAL *x = x_;
    REAL *out = out_;
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = NAME(exp1)(x[i]);
}
