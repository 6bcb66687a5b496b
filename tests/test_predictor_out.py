"""predict_proba(x, out=): filled and returned, or refused and untouched; nothing allocated."""

import itertools
import os
import tracemalloc

import numpy as np
import pytest
from data import DTYPES, coefficients, inputs

from csoftmax import Predictor


@pytest.mark.parametrize("method", ["predict_proba", "predict_log_proba"])
@pytest.mark.parametrize("n_classes", [2, 3, 1000])
def test_out_is_filled_and_returned(instruction_set, method, n_classes):
    model = Predictor(*coefficients(n_classes, 6))
    call, X = getattr(model, method), inputs(70, 6)
    for x in (X[0], X, X[:1], X[0].tolist(), X[:0]):
        expected = call(x)
        out = np.full(expected.shape, 7.0)
        assert call(x, out) is out
        np.testing.assert_array_equal(out, expected)


def test_out_that_does_not_fit_is_refused_and_not_written():
    model = Predictor(*coefficients(4, 4))
    X = inputs(4)
    read_only = np.zeros(4)
    read_only.setflags(write=False)
    both = np.zeros(7)
    cases = [
        (X[0], np.zeros(3), "shape"),
        (X[0], np.zeros((1, 4)), "shape"),
        (X, np.zeros((4, 3)), "shape"),
        (X[0], np.zeros(4, np.float32), "dtype"),
        (X[0], np.zeros(4, ">f8"), "dtype"),
        (X[0], np.zeros(8)[::2], "contiguous"),
        (X, np.zeros((4, 4)).T[:, :].copy("F"), "contiguous"),
        (X[0], read_only, "written"),
        (both[:4], both[3:], "overlaps"),
        (X, X, "overlaps"),
    ]
    for x, out, word in cases:
        before = out.copy()
        with pytest.raises(ValueError, match=word):
            model.predict_proba(x, out)
        np.testing.assert_array_equal(out, before)
    with pytest.raises(TypeError, match="list"):
        model.predict_proba(X[0], [0.0] * 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_row_into_out_allocates_nothing(dtype):
    for n_classes in (2, 10, 200, 5000):
        model = Predictor(*coefficients(n_classes, 30, dtype))
        x, out = inputs(1, 30, dtype)[0], np.empty(n_classes, dtype)
        model.predict_proba(x, out)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            for _ in itertools.repeat(None, 1000):
                model.predict_proba(x, out)
            current, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert current - before < 200  # of the loop itself
        assert peak - before < 500


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="reads /proc or getrusage")
def test_a_million_calls_do_not_grow_the_process():
    resource = pytest.importorskip("resource")
    model = Predictor(*coefficients(10, 64))
    x, out = inputs(1, 64)[0], np.empty(10)
    for _ in itertools.repeat(None, 10_000):
        model.predict_proba(x, out)
        model.predict(x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in itertools.repeat(None, 500_000):
        model.predict_proba(x, out)
        model.predict(x)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1024
