"""Means, deviations and sums by class of the columns, the pass that stands in them, and which rows are looked at."""

import os
from itertools import pairwise

import numpy as np
import pytest
import twin
from data import overlapping, random_csr
from scipy.sparse import csr_array

from csoftmax import _columns, _curvature, _mapped, _rows
from csoftmax._columns import ColumnRanges
from csoftmax._objective import Objective
from csoftmax._rows import LocalRows, Scaling, Search

DTYPES = [np.float32, np.float64]
SPARSE = pytest.mark.parametrize("sparse", [False, True], ids=["dense", "CSR"])


def rows_of(X, y, weight=None, n_classes=3, **more):
    weight = np.ones(X.shape[0]) if weight is None else weight
    return LocalRows(X, y.astype(np.int32), weight, n_classes, 2, **more)


def exact(X, weight):
    """Weighted means and standard deviations, in long double where there is one."""
    X, share = X.astype(np.longdouble), (weight / weight.sum()).astype(np.longdouble)[:, None]
    mean = (share * X).sum(axis=0)
    return mean.astype(float), np.sqrt((share * (X - mean) ** 2).sum(axis=0)).astype(float)


def no_second_sweep(*arguments):
    raise AssertionError("one sweep is enough")


# ---- moments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@SPARSE
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 5000])
def test_moments_need_one_sweep(monkeypatch, instruction_set, dtype, sparse, n):
    monkeypatch.setattr(_rows, "column_spread", no_second_sweep)
    rng = np.random.default_rng(n)
    X = (rng.standard_normal((n, 37)) * np.logspace(-5, 5, 37) + (0 if sparse else rng.standard_normal(37))).astype(
        dtype
    )
    if sparse:  # entries far from zero would need another sweep
        X[rng.uniform(size=X.shape) < 0.6] = 0
    y, weight = rng.integers(0, 3, n), rng.uniform(0.1, 2, n)
    rows = rows_of(csr_array(X) if sparse else X, y, weight)
    mean, deviation, by_class = rows.moments()
    expected = exact(X, rows.weight.astype(float))
    # Weights of a sparse X add up to 1 but for their own rounding.
    tolerance = (1e-7 if sparse and dtype == np.float32 else 1e-9) * abs(X).max(axis=0, initial=0)
    assert (abs(mean - expected[0]) <= tolerance).all()
    assert (abs(deviation - expected[1]) <= tolerance).all()
    sums = np.array([rows.weight[y == k].astype(float) @ X[y == k] for k in range(3)])
    assert (abs(by_class - sums) <= tolerance).all()


@pytest.mark.parametrize("case", ["outlier first", "far", "tiny", "huge", "outlier first in CSR"])
def test_a_second_sweep_is_made_where_one_loses_digits(case):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4000, 3))
    if case.startswith("outlier first"):  # the guess of the mean
        X[0] = 1e9
        weight = np.where(np.arange(4000) > 0, 1.0, 1e-30)
        expected = exact(X[1:], weight[1:])[1]
    else:
        if case == "far":
            X += np.array([0, 1e7, -1e9])
        else:
            X *= {"tiny": [1e-150, 1e-160, 1], "huge": [1e150, 1e180, 1]}[case]
        weight = np.ones(4000)
        expected = exact(X, weight)[1]
    rows = rows_of(csr_array(X) if case.endswith("CSR") else X, np.resize([0, 1, 2], 4000), weight)
    np.testing.assert_allclose(rows.moments()[1], expected, rtol=1e-7)


@SPARSE
def test_columns_that_do_not_vary_have_a_deviation_of_zero(monkeypatch, sparse):
    monkeypatch.setattr(_rows, "column_spread", no_second_sweep)
    X = np.random.default_rng(0).standard_normal((500, 4))
    X[:, 1], X[:, 2] = 0, 1e12 / 3
    rows = rows_of(csr_array(X) if sparse else X, np.resize([0, 1, 2], 500))
    mean, deviation, _ = rows.moments()
    np.testing.assert_array_equal(deviation == 0, [False, True, True, False])
    np.testing.assert_array_equal(mean[1:3], [0, 1e12 / 3])


@SPARSE
def test_parts_make_the_moments_of_the_whole(sparse):
    X, y = overlapping(1000, 6, 3)
    X += np.arange(1000)[:, None] / 100  # they drift
    if sparse:
        X[np.random.default_rng(1).uniform(size=X.shape) < 0.7] = 0
        X[:400, 2] = 0  # no entry in the first parts
    weight = np.random.default_rng(2).uniform(0.5, 2, 1000)
    whole = rows_of(csr_array(X) if sparse else X, y, weight)
    edges = [0, 1, 150, 400, 1000]
    parts = [
        rows_of(csr_array(X[a:b]) if sparse else X[a:b], y[a:b], weight[a:b], total=weight.sum()).column_ranges()
        for a, b in pairwise(edges)
    ]
    joined = ColumnRanges.join(parts)
    for field, ours, theirs in zip(ColumnRanges._fields, joined, whole.column_ranges(), strict=True):
        if field != "guessed":
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
    mean, deviation = joined.moments(1000, no_second_sweep)
    expected = exact(X, weight)
    np.testing.assert_allclose(mean, expected[0], rtol=1e-12)
    np.testing.assert_allclose(deviation, expected[1], rtol=1e-12)


# ---- the first pass -------------------------------------------------------------------------------------------------


def objective_of(X, y, weight, n_classes, fit_intercept=True, standardise=True):
    options = {"C": 1.0, "fit_intercept": fit_intercept, "standardise": standardise, "n_threads": 2}
    return Objective.of(X, y.astype(np.int32), weight, n_classes, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@SPARSE
@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize(("fit_intercept", "standardise"), [(True, True), (False, True), (True, False)])
def test_the_gradient_at_zero_stands_in_the_sums_by_class(dtype, sparse, n_classes, fit_intercept, standardise):
    X, y = overlapping(700, 9, n_classes)
    X[:, 4] = 2.5  # constant
    S = random_csr(700, 9, 0.5, dtype) if sparse else X.astype(dtype)
    weight = np.random.default_rng(3).uniform(0.1, 2, 700)
    objective = objective_of(S, y, weight, n_classes, fit_intercept, standardise)
    zero = np.zeros(objective.size)
    value, gradient = objective.value_gradient(zero)
    assert objective.n_passes == 1
    objective._by_class = objective._by_class[:0]
    by_pass = objective.value_gradient(zero)
    assert objective.n_passes == 2
    np.testing.assert_allclose(value, by_pass[0], rtol=8 * np.finfo(dtype).eps)
    np.testing.assert_allclose(gradient, by_pass[1], rtol=0, atol=50 * np.finfo(dtype).eps)
    dense = S.toarray() if sparse else S
    center, unit = (objective._center, objective._inverse_scale)
    Z = (dense.astype(float) - center) * unit
    loss, by_coef, by_intercept = twin.mean_loss_gradient(Z, y, np.zeros((objective.n_columns, 9)),
                                                          np.zeros(objective.n_columns), weight)  # fmt: skip
    np.testing.assert_allclose(value, loss, rtol=2 * np.finfo(dtype).eps)
    expected = np.hstack([by_coef, by_intercept[:, None]]) if fit_intercept else by_coef
    tolerance = 1e-14 if dtype == np.float64 else 1e-7
    np.testing.assert_allclose(gradient, expected.ravel(), rtol=0, atol=tolerance * max(1, abs(expected).max()))


@SPARSE
def test_without_room_for_sums_by_class_there_is_a_pass(monkeypatch, sparse):
    X, y = overlapping(700, 9, 3)
    S = csr_array(X) if sparse else X
    expected = objective_of(S, y, np.ones(700), 3)
    monkeypatch.setattr(_columns, "CLASS_BYTES", 0)
    objective = objective_of(S, y, np.ones(700), 3)
    assert len(expected._by_class) == 3
    assert len(objective._by_class) == 0
    np.testing.assert_allclose(objective._scale, expected._scale, rtol=1e-13)
    for ours, theirs in zip(*(each.value_gradient(np.zeros(30)) for each in (objective, expected)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-14)


# ---- rows that are looked at ----------------------------------------------------------------------------------------


@pytest.fixture
def few_are_looked_at(monkeypatch):
    """Runs of 16 rows, and of 6000 rows 1500."""
    for name, value in (("RUN", 16), ("SPARE", 3), ("LOOKED", 8)):
        monkeypatch.setattr(_rows, name, value)


@SPARSE
def test_only_some_runs_of_rows_are_looked_at(few_are_looked_at, sparse):
    X, y = overlapping(6000, 5, 3)
    rows = rows_of(csr_array(X) if sparse else X, y, np.random.default_rng(1).uniform(0.5, 2, 6000))
    mean, deviation, _ = rows.moments()
    scaling = Scaling(mean, 1 / deviation, True)
    search = Search.of(6000, 500, scaling)
    assert search.every == 4
    places, lengths = rows._look(search)
    np.testing.assert_array_equal(places, np.flatnonzero(np.arange(6000) // 16 % 4 == 0))
    np.testing.assert_allclose(lengths, 1 + (((X[places] - mean) / deviation) ** 2).sum(axis=1), rtol=1e-9)
    chosen, weight = rows._choose(500, search)
    assert np.isin(chosen, places).all()
    assert 300 < len(chosen) <= 501
    # As with all rows, the total length is met exactly: here that of the rows looked at, for all.
    share = rows.weight[places] / rows.weight[places].sum()
    np.testing.assert_allclose(weight @ lengths[np.searchsorted(places, chosen)], share @ lengths, rtol=1e-9)
    assert abs(weight.sum() - 1) < 0.1


@pytest.mark.parametrize("edges", [[0, 3000, 6000], [0, 5, 5, 2048, 2100, 6000]], ids=str)
def test_the_rows_looked_at_do_not_depend_on_how_they_are_cut(few_are_looked_at, edges):
    X, y = overlapping(6000, 5, 3)
    weight = np.random.default_rng(1).uniform(0.5, 2, 6000)
    whole = rows_of(X, y, weight)
    scaling = Scaling(X.mean(axis=0), 1 / X.std(axis=0), True)
    search = Search.of(6000, 500, scaling)
    parts = [(a, rows_of(X[a:b], y[a:b], weight[a:b], total=weight.sum(), before=a)) for a, b in pairwise(edges)]
    looked = np.concatenate([a + part._look(search)[0] for a, part in parts])
    np.testing.assert_array_equal(looked, whole._look(search)[0])
    found = np.array([part.length(search) for _, part in parts])
    distance, factor = found[:, 0].sum() / 500, 1 / found[:, 1].sum()
    starts = np.cumsum(found[:, 0]) - found[:, 0]
    choices = [part.choose(distance, start, factor, search) for (_, part), start in zip(parts, starts, strict=True)]
    chosen = np.concatenate([a + choice[0] for (a, _), choice in zip(parts, choices, strict=True)])
    expected = whole._choose(500, search)
    np.testing.assert_array_equal(chosen, expected[0])
    np.testing.assert_allclose(np.concatenate([choice[1] for choice in choices]), expected[1], rtol=1e-9)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_a_feature_that_the_sample_does_not_show_is_not_without_curvature(few_are_looked_at, n_classes):
    X, y = overlapping(6000, 5, n_classes)
    X[:, 1] = 0
    X[20:23, 1] = 1  # in no run that is looked at
    X[:, 2] = 7  # and a constant, which has none indeed
    objective = objective_of(X, y, np.ones(6000), n_classes)
    sample = objective.sample(500)
    assert np.ptp(sample.rows[:, 1]) == 0
    chance = 1 / n_classes
    more = sample.penalty - objective.penalty
    np.testing.assert_allclose(more[1], chance * (1 - chance), rtol=1e-2)
    np.testing.assert_array_equal(more[[0, 2, 3, 4, 5]], 0)
    objective.penalise(1e-3, 0.0)
    np.testing.assert_allclose(objective.sample(500).penalty, objective.penalty + more, rtol=1e-12)
    # Of rows as they are stored, which the L1 term uses without such help, all are looked at.
    assert (objective.stored_rows(500).X[:, 1] == 1).any()


def test_at_zero_all_classes_have_the_same_block():
    X, y = overlapping(2000, 5, 4)
    objective = objective_of(X, y, np.ones(2000), 4)
    sample, zero = objective.sample(2000), np.zeros((4, 6))
    g = np.random.default_rng(0).standard_normal((4, 6))
    g -= g.mean(axis=0)
    step = _curvature.classes(sample, zero)(g.ravel()).reshape(4, 6)
    for of_class, by_class, lower in zip(step, g, sample.blocks(zero), strict=True):
        block = np.tril(lower) + np.tril(lower, -1).T + np.diag(objective.penalty)
        np.testing.assert_allclose(block @ of_class, by_class, rtol=0, atol=1e-12)


# ---- reading ahead --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "major"), reason="a system without device numbers")
def test_how_far_the_system_reads_ahead(tmp_path):
    device = tmp_path.stat().st_dev
    blocks, disk = tmp_path / "block", tmp_path / "sda"
    (disk / "queue").mkdir(parents=True)
    (disk / "sda1").mkdir()
    blocks.mkdir()
    (blocks / f"{os.major(device)}:{os.minor(device)}").symlink_to(
        disk / "sda1"
    )  # a partition, whose disk has the setting
    assert not _mapped._reads_far_ahead(tmp_path, blocks)
    for text, far in (("128\n", False), ("8192\n", True), ("much", False)):
        (disk / "queue" / "read_ahead_kb").write_text(text)
        assert _mapped._reads_far_ahead(tmp_path, blocks) == far


def test_a_file_of_which_nothing_is_known_is_not_read_far_ahead(tmp_path):
    assert not _mapped._reads_far_ahead(None)
    assert not _mapped._reads_far_ahead(tmp_path / "missing")
    assert not _mapped._reads_far_ahead(tmp_path, tmp_path)
