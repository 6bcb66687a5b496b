"""The compiled kernels: exp against mpmath, softmax and log-softmax on hard rows, on every instruction set.

`python tests/test_kernel.py` prints the measured maximum error of exp, in ULP, per precision and instruction set.
"""

import functools
import math
import sys

import mpmath
import numpy as np
import pytest
import scipy.special
from conftest import available_instruction_sets
from twin import log_softmax, softmax

import csoftmax
from csoftmax import _kernels

DTYPES = [np.float64, np.float32]
MAX_ULP = 2.0
EPS = {np.float64: 2.0**-52, np.float32: 2.0**-23}
MANTISSA = {np.float64: 53, np.float32: 24}
LEAST = {np.float64: -1074, np.float32: -149}  # log2 of the least subnormal number
# exp overflows above the second number and rounds to zero below the first.
RANGE = {np.float64: (-745.1332191019412, 709.782712893384), np.float32: (-103.97208, 88.72284)}
CLASSES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1000]


def exp_arguments(dtype, n, seed=0):
    """Where exp is hard: all magnitudes, the borders of range reduction, overflow, underflow, subnormal results."""
    rng = np.random.default_rng(seed)
    low, high = RANGE[dtype]
    subnormal = math.log(2.0) * (LEAST[dtype] + MANTISSA[dtype] - 1)  # exp of less is a subnormal number
    halves = np.arange(math.floor(2 * low / math.log(2)), math.ceil(2 * high / math.log(2)) + 1) * (math.log(2) / 2)
    parts = [
        rng.uniform(low - 1, high + 1, n),
        rng.uniform(low - 1, subnormal + 1, n),
        rng.uniform(-1, 1, n),
        rng.choice([-1.0, 1.0], n) * 2.0 ** rng.uniform(LEAST[dtype], 7, n),
        halves,
        rng.choice(halves, n) + rng.choice([-1.0, 1.0], n) * 10.0 ** rng.uniform(-13, -3, n),
        [0.0, -0.0, 1.0, -1.0, 2.0 ** LEAST[dtype], -(2.0 ** LEAST[dtype]), 2 * low, 2 * high, 1e4, -1e4, 1e38, -1e38],
    ]
    x = np.concatenate(parts).astype(dtype)
    near = [halves, [low, high, subnormal, 1.0, -1.0]]
    bits = np.int64 if dtype is np.float64 else np.int32
    neighbours = (np.concatenate(near).astype(dtype).view(bits)[:, None] + np.arange(-3, 4, dtype=bits)).ravel()
    x = np.concatenate([x, neighbours.view(dtype), np.array([np.finfo(dtype).max, np.finfo(dtype).min], dtype)])
    return x[np.isfinite(x)]  # the neighbours of zero downwards are NaN


def exact_exp(x):
    """exp(x) as mantissa (in ULP of the result, split into an integer part and a rest) and exponent of that ULP."""
    whole, rest, exponent = np.empty(len(x)), np.empty(len(x)), np.empty(len(x), dtype=np.int64)
    with mpmath.workprec(120):
        for i, value in enumerate(x):
            e = mpmath.exp(mpmath.mpf(float(value)))
            exponent[i] = max(int(mpmath.frexp(e)[1]) - 53, LEAST[np.float64])
            mantissa = mpmath.ldexp(e, -int(exponent[i]))
            whole[i] = float(mpmath.floor(mantissa))
            rest[i] = float(mantissa - mpmath.floor(mantissa))
    return whole, rest, exponent


@functools.cache
def exp_reference(dtype, n, seed=0):
    x = exp_arguments(dtype, n, seed)
    moderate = np.clip(x, 2 * RANGE[dtype][0], 2 * RANGE[dtype][1])  # the result is the same, mpmath is quicker
    if dtype is np.float64:
        return x, *exact_exp(moderate)
    # NumPy's float64 exp is right to 1 ULP of float64, 2^-29 ULP of float32: no need of mpmath.
    e = np.exp(moderate.astype(np.float64))
    exponent = np.maximum(np.frexp(e)[1] - 24, LEAST[np.float32])
    mantissa = np.ldexp(e, -exponent)
    return x, np.floor(mantissa), mantissa - np.floor(mantissa), exponent


def exp_errors(dtype, n, seed=0):
    """Errors of the kernel in ULP of the exact result; infinite if one overflows and the other does not."""
    x, whole, rest, exponent = exp_reference(dtype, n, seed)
    out = np.empty_like(x)
    _kernels.exp(x, out)
    overflow = exponent + MANTISSA[dtype] > (1024 if dtype is np.float64 else 128)
    with np.errstate(invalid="ignore", over="ignore"):
        # In range, out is within a factor of two of the result, so that the difference is exact.
        error = np.abs((np.ldexp(out.astype(np.float64), -exponent) - whole) - rest)
    return x, np.where(overflow, np.where(out == np.inf, 0.0, np.inf), error)


def kernel_softmax(scores, logarithm=False):
    z = np.array(scores, order="C")
    _kernels.softmax_rows(z, 0, len(z), logarithm)
    return z


def scores_of(n, n_classes, dtype, scale=10.0, seed=0):
    return (scale * np.random.default_rng(seed).standard_normal((n, n_classes))).astype(dtype)


# ---- exp --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_is_within_two_ulp_over_the_full_range(instruction_set, dtype):
    x, error = exp_errors(dtype, 1500 if dtype is np.float64 else 50_000)
    worst = np.argmax(error)
    assert error[worst] <= MAX_ULP, f"{instruction_set}: {error[worst]} ULP at {x[worst]!r}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_at_special_values(instruction_set, dtype):
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, np.finfo(dtype).max, np.finfo(dtype).min], dtype=dtype)
    out = np.empty_like(x)
    _kernels.exp(x, out)
    np.testing.assert_array_equal(out, np.array([1, 1, np.inf, 0, np.nan, np.nan, np.inf, 0], dtype=dtype))
    assert not np.signbit(out[[3, 7]]).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_of_every_length_writes_exactly_its_own_values(instruction_set, dtype):
    x = np.linspace(-30, 30, 70).astype(dtype)
    for n in range(71):  # beyond four registers of 16 values
        out = np.full(80, -7, dtype=dtype)
        _kernels.exp(x[:n], out[:n])
        np.testing.assert_allclose(out[:n], np.exp(x[:n].astype(np.float64)), rtol=3 * EPS[dtype])
        np.testing.assert_array_equal(out[n:], -7)


# ---- log --------------------------------------------------------------------------------------------------------


@functools.cache
def log_reference(dtype, plus_one):
    """(x, logarithm as dtype and what that rounded away): edges, and random x >= 1, or x in [0, 1]."""
    rng = np.random.default_rng(0)
    info, root = np.finfo(dtype), 2.0**0.5
    if plus_one:
        edges = [0.0, info.smallest_subnormal, info.tiny, info.epsneg, info.eps, 0.5, root - 1, 1 - info.epsneg, 1.0]
        x = np.concatenate([edges, rng.uniform(0, 1, 4000), 2.0 ** rng.uniform(info.minexp, 0, 1000)])
    else:
        edges = [1.0, 1 + info.eps, root * (1 - info.eps), root, root * (1 + info.eps), 2.0, info.max]
        x = np.concatenate([edges, rng.uniform(1, 3, 4000), 2.0 ** rng.uniform(0, info.maxexp - 1, 1000)])
    x = x.astype(dtype)
    with mpmath.workdps(350):
        exact = [mpmath.log(mpmath.mpf(float(value)) + plus_one) for value in x]
        nearest = np.array([float(value) for value in exact]).astype(dtype)
        rest = [float(value - mpmath.mpf(float(rounded))) for value, rounded in zip(exact, nearest, strict=True)]
    return x, nearest, np.array(rest)


@pytest.mark.parametrize("plus_one", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_log_is_within_two_ulp(instruction_set, dtype, plus_one):
    x, nearest, rest = log_reference(dtype, plus_one)
    out = np.empty_like(x)
    _kernels.log(x, out, plus_one)
    error = abs((out.astype(float) - nearest) - rest) / np.spacing(nearest)
    worst = np.argmax(error)
    assert error[worst] <= MAX_ULP, f"{instruction_set}: {error[worst]} ULP at {x[worst]!r}"


@pytest.mark.parametrize("plus_one", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_log_says_that_its_argument_was_not_finite(instruction_set, dtype, plus_one):
    for n in (1, 9, 17):
        x = np.full(n, np.inf, dtype)
        x[n // 2] = np.nan
        out = np.zeros(n, dtype)
        _kernels.log(x, out, plus_one)
        assert np.isnan(out).all()


def test_an_instruction_set_that_does_not_exist_is_refused():
    before = _kernels.select_instruction_set(None)
    with pytest.raises(ValueError, match="sse42-for-toasters"):
        _kernels.select_instruction_set("sse42-for-toasters")
    assert before in _kernels.instruction_sets()
    assert _kernels.instruction_sets()[0] == "baseline"


# ---- softmax of rows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", CLASSES)
def test_rows_sum_to_one_within_k_ulp(instruction_set, dtype, n_classes):
    p = kernel_softmax(scores_of(50, n_classes, dtype))
    assert p.min() >= 0
    for row in p:
        assert abs(math.fsum(row.tolist()) - 1.0) <= n_classes * EPS[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", CLASSES)
@pytest.mark.parametrize("n", [1, 2, 63, 64, 65])  # around the block of 64 rows
def test_rows_equal_the_twin(instruction_set, dtype, n_classes, n):
    z = scores_of(n, n_classes, dtype)
    # Two exponentials of 2 ULP, a sum of K terms, a division, and the rounding of the difference to the maximum. The
    # least probabilities, about exp(-80), are normal numbers in float32.
    spread = (z.max(axis=1) - z.min(axis=1)).max()
    exact = softmax(z.astype(np.longdouble)).astype(np.float64)
    np.testing.assert_allclose(kernel_softmax(z), exact, rtol=(n_classes + 8 + spread) * EPS[dtype])
    # The logarithm: an error of the sum, and one rounding of a number as large as the largest difference.
    exact = log_softmax(z.astype(np.longdouble)).astype(np.float64)
    atol = (n_classes + 8 + 2 * np.abs(exact).max()) * EPS[dtype]
    np.testing.assert_allclose(kernel_softmax(z, logarithm=True), exact, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", CLASSES)
def test_every_instruction_set_agrees_with_the_plainest(instruction_set, dtype, n_classes):
    z = scores_of(40, n_classes, dtype)
    p, log_p = kernel_softmax(z), kernel_softmax(z, logarithm=True)
    _kernels.select_instruction_set("baseline")
    # Each side has the error of test_rows_equal_the_twin.
    np.testing.assert_allclose(p, kernel_softmax(z), rtol=2 * (n_classes + 8) * EPS[dtype])
    other = kernel_softmax(z, logarithm=True)
    np.testing.assert_allclose(log_p, other, rtol=0, atol=2 * (n_classes + 8 + 2 * np.abs(other).max()) * EPS[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", CLASSES)
def test_a_shift_of_the_scores_changes_nothing(instruction_set, dtype, n_classes):
    # Multiples of 1/8 below 64 and a shift of 1000: every sum is exact, so is every difference to the row maximum.
    z = (np.random.default_rng(1).integers(-512, 512, (20, n_classes)) / 8).astype(dtype)
    for shift in (1000.0, -1000.0):
        np.testing.assert_allclose(kernel_softmax(z + dtype(shift)), kernel_softmax(z), rtol=4 * EPS[dtype])
        np.testing.assert_allclose(
            kernel_softmax(z + dtype(shift), logarithm=True), kernel_softmax(z, logarithm=True), rtol=4 * EPS[dtype]
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", CLASSES)
def test_all_equal_scores_give_the_uniform_distribution(instruction_set, dtype, n_classes):
    huge = 1e300 if dtype is np.float64 else 1e38
    for score in (0.0, 1.0, -7.25, huge, -huge, float(np.finfo(dtype).max)):
        p = kernel_softmax(np.full((3, n_classes), score, dtype=dtype))
        np.testing.assert_allclose(p, 1 / n_classes, rtol=EPS[dtype])
        log_p = kernel_softmax(np.full((3, n_classes), score, dtype=dtype), logarithm=True)
        np.testing.assert_allclose(log_p, -math.log(n_classes), rtol=2 * EPS[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", CLASSES[1:])
def test_huge_scores_do_not_overflow(instruction_set, dtype, n_classes):
    huge = dtype(1e300 if dtype is np.float64 else 1e38)
    z = np.full((n_classes, n_classes), -huge, dtype=dtype)
    np.fill_diagonal(z, huge)
    np.testing.assert_array_equal(kernel_softmax(z), np.eye(n_classes))
    np.testing.assert_array_equal(kernel_softmax(z, logarithm=True), np.where(np.eye(n_classes), 0, -2 * huge))
    largest = np.finfo(dtype).max  # even where the difference of two scores overflows
    np.testing.assert_array_equal(kernel_softmax(np.sign(z) * largest), np.eye(n_classes))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", CLASSES[1:])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_not_finite_spoils_its_own_row_only(instruction_set, dtype, n_classes, bad):
    z = scores_of(9, n_classes, dtype)
    clean = kernel_softmax(z)
    for column in {0, n_classes // 2, n_classes - 1}:
        spoilt = z.copy()
        spoilt[4, column] = bad
        for logarithm in (False, True):
            assert not np.isfinite(kernel_softmax(spoilt, logarithm)[4]).all()
        np.testing.assert_array_equal(np.delete(kernel_softmax(spoilt), 4, axis=0), np.delete(clean, 4, axis=0))


def test_rows_outside_start_and_stop_are_left_alone(instruction_set):
    z = scores_of(20, 5, np.float64)
    out = z.copy()
    _kernels.softmax_rows(out, 3, 17, False)
    np.testing.assert_array_equal(out[[0, 1, 2, 17, 18, 19]], z[[0, 1, 2, 17, 18, 19]])
    np.testing.assert_allclose(out[3:17], softmax(z[3:17]), rtol=1e-14)


# ---- the public functions ---------------------------------------------------------------------------------------

FUNCTIONS = [(csoftmax.softmax, scipy.special.softmax), (csoftmax.log_softmax, scipy.special.log_softmax)]


@pytest.mark.parametrize(("ours", "scipys"), FUNCTIONS)
@pytest.mark.parametrize("shape", [(5,), (1,), (4, 6), (6, 1), (0, 3), (3, 4, 5), (2, 3, 4, 5)])
def test_every_axis_equals_scipy(ours, scipys, shape):
    z = np.random.default_rng(2).normal(0, 10, shape)
    before = z.copy()
    for axis in range(-len(shape), len(shape)):
        if z.shape[axis] == 0:
            continue  # the softmax of no scores has no meaning
        # Within 4 + K / 2 ULP, see test_rows_equal_the_twin; absolutely, for logarithms near zero.
        np.testing.assert_allclose(ours(z, axis=axis), scipys(z, axis=axis), rtol=1e-14, atol=1e-14)
    np.testing.assert_array_equal(z, before)
    np.testing.assert_array_equal(ours(z), ours(z, axis=-1))


@pytest.mark.parametrize(("ours", "scipys"), FUNCTIONS)
@pytest.mark.parametrize(
    "view",
    [
        lambda z: z[::2, ::3],
        lambda z: z[::-1, ::-1],
        lambda z: z.T,
        np.asfortranarray,
        lambda z: np.broadcast_to(z[0], z.shape),
        lambda z: z.astype(">f8"),
        lambda z: np.lib.stride_tricks.sliding_window_view(z[0], 5),
        lambda z: np.frombuffer(z.tobytes()).reshape(z.shape),
    ],
    ids=["steps", "reversed", "transposed", "fortran", "broadcast", "big-endian", "overlapping", "read-only"],
)
def test_every_memory_layout_equals_scipy(ours, scipys, view):
    z = view(np.random.default_rng(3).normal(0, 10, (30, 21)))
    before = z.copy()
    for axis in (0, 1):
        np.testing.assert_allclose(ours(z, axis=axis), scipys(z, axis=axis), rtol=2e-14, atol=2e-14)
    np.testing.assert_array_equal(z, before)


@pytest.mark.parametrize(("ours", "scipys"), FUNCTIONS)
@pytest.mark.parametrize(
    ("given", "returned"),
    [("f4", "f4"), ("f8", "f8"), ("f2", "f8"), ("i4", "f8"), ("u1", "f8"), ("?", "f8"), (">f4", "f4")],
)
def test_precision_is_kept_or_raised_to_float64(ours, scipys, given, returned):
    z = np.array([[0, 1, 1, 0], [1, 0, 0, 0]]).astype(given)
    result = ours(z)
    assert result.dtype == np.dtype(returned)
    np.testing.assert_allclose(result, scipys(z.astype("f8"), axis=-1), rtol=1e-6 if returned == "f4" else 1e-14)


@pytest.mark.skipif(np.finfo(np.longdouble).eps == np.finfo(np.float64).eps, reason="longdouble is float64 here")
@pytest.mark.parametrize("function", [csoftmax.softmax, csoftmax.log_softmax])
def test_scores_that_float64_cannot_hold_are_refused_not_rounded(function):
    with pytest.raises(TypeError, match=r"longdouble|float128|lose"):
        function(np.zeros(3, np.longdouble))


@pytest.mark.parametrize("function", [csoftmax.softmax, csoftmax.log_softmax])
def test_scores_without_meaning_are_refused(function):
    assert function([1, 2, 3]).shape == (3,)
    with pytest.raises((ValueError, TypeError)):
        function(3.0)
    with pytest.raises((ValueError, TypeError)):
        function(np.array([1 + 2j, 0]))
    with pytest.raises((ValueError, TypeError)):
        function(np.array(["a", "b"]))
    with pytest.raises(ValueError, match="axis"):
        function(np.ones((2, 3)), axis=2)


def test_a_hundred_thousand_rows_equal_their_pieces():
    z = scores_of(100_000, 7, np.float64)  # enough for several threads and many blocks
    whole = csoftmax.softmax(z)
    pieces = np.concatenate([csoftmax.softmax(part) for part in np.array_split(z, 13)])
    np.testing.assert_array_equal(whole, pieces)
    np.testing.assert_allclose(whole, softmax(z), rtol=2e-15 * 8)


def main(n):
    for dtype in DTYPES:
        for name in available_instruction_sets():
            _kernels.select_instruction_set(name)
            x, error = exp_errors(dtype, n)
            worst = np.argmax(error)
            print(f"{np.dtype(dtype).name} {name:10s} {error[worst]:.4f} ULP at {x[worst]!r} ({len(x)} arguments)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
