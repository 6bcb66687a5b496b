"""The engine's promises: certified gaps, no warning on any data, units that do not matter, and an orderly end."""

import functools
import os
import signal
import sys
import threading
import time
import types
import warnings

import numpy as np
import pytest
import twin
from data import overlapping, raw
from threadpoolctl import threadpool_limits

from csoftmax import ConvergenceWarning, SoftmaxRegression
from csoftmax._objective import Objective

EPS = 2.0**-52
SETS = ["iris", "wine", "cancer", "digits"]
SOLVERS = ["auto", "lbfgs", "newton"]
WAYS = [*({"solver": name} for name in SOLVERS), {"l1_ratio": 0.5}]


def quietly(X, y, sample_weight=None, **parameters):
    """A fit whose ConvergenceWarning, if there is one, does not matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return SoftmaxRegression(**parameters).fit(X, y, sample_weight)


def objective(model, X, y, C=1.0, weight=None):
    return twin.objective(X, np.searchsorted(model.classes_, y), model.coef_, model.intercept_, C, weight)


@functools.cache
def least(name, C):
    """J* of a raw set: the lowest that anyone finds."""
    X, y = raw(name)
    tight = {"C": C, "tol": 1e-10, "max_iter": 2000}
    linear_model = pytest.importorskip("sklearn.linear_model")
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, about ill-conditioned matrices
        theirs = linear_model.LogisticRegression(solver="newton-cholesky", **tight).fit(X, y)
    return min(objective(model, X, y, C) for model in (quietly(X, y, **tight), theirs))


# ---- the gap ----------------------------------------------------------------------------------------------------


def small_problem(rng):
    """n 5-60, d 1-8, K 2-5, C from 1e-3 to 1e3, features of different size, with or without intercept and weights."""
    n_classes = int(rng.integers(2, 6))
    n, d = int(rng.integers(max(5, n_classes), 61)), int(rng.integers(1, 9))
    X = (rng.standard_normal((n, d)) + rng.uniform(-2, 2, d)) * 10.0 ** rng.uniform(-1.5, 1.5, d)
    y = (X / X.std(axis=0) @ rng.standard_normal((d, n_classes)) + rng.gumbel(size=(n, n_classes))).argmax(axis=1)
    y[:n_classes] = np.arange(n_classes)
    weight = rng.uniform(0.01, 3, n) if rng.random() < 0.5 else None
    return X, y, weight, {"C": 10.0 ** rng.uniform(-3, 3), "fit_intercept": bool(rng.random() < 0.5)}


@pytest.mark.parametrize("seed", range(10))
def test_a_bound_is_at_least_the_true_gap_on_a_hundred_random_problems(seed):
    rng = np.random.default_rng(seed)
    n_bounds = n_finite = 0
    for _ in range(100):
        X, y, weight, settings = small_problem(rng)
        C, s = settings["C"], np.ones(len(y)) if weight is None else weight
        model = quietly(X, y, weight, **settings)
        best = quietly(X, y, weight, solver="newton", tol=1e-12, **settings)
        J = objective(model, X, y, C, weight)
        least = min(J, objective(best, X, y, C, weight))
        report = model.fit_report_
        if report.gap_kind == "bound":
            n_bounds += 1
            assert J - least <= report.gap + 1e-14
        # The same far from the optimum, half-way, and close.
        at = Objective.of(X, y.astype(np.int32), s, y.max() + 1, standardise=True, n_threads=1, **settings)
        optimum = at.parameters(best.coef_, best.intercept_)
        away = rng.standard_normal(at.size) * 10.0 ** rng.uniform(-2, 1.5)
        for theta in (np.zeros(at.size), away, optimum + away, optimum / 2, 0.999 * optimum, optimum):
            value, gradient = at.value_gradient(theta)
            bound = at.gap_bound(theta, value, gradient)
            n_finite += np.isfinite(bound)
            assert value - least <= bound + 1e-14
    assert n_bounds >= 20  # some end with an estimate
    assert n_finite >= 500


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_bound_is_tight_at_the_optimum(n_classes, fit_intercept):
    X, y = overlapping(200, 4, n_classes)
    settings = {"C": 1.0, "fit_intercept": fit_intercept}
    best = quietly(X, y, solver="newton", tol=1e-12, **settings)
    at = Objective.of(X, y.astype(np.int32), np.ones(200), n_classes, standardise=True, n_threads=1, **settings)
    theta = at.parameters(best.coef_, best.intercept_)
    # The gradient is about 1e-15, its square times C S / 2 nothing; 8 eps of J and the intercept's share remain.
    assert 0 <= at.gap_bound(theta, *at.value_gradient(theta)) <= 1e-12


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
def test_default_parameters_on_raw_data_leave_no_warning_and_a_gap_of_a_millionth(name, C):
    X, y = raw(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = SoftmaxRegression(C=C).fit(X, y)
    assert model.fit_report_.converged
    best = least(name, C)
    gap = objective(model, X, y, C) - best
    assert gap <= 1e-6 * max(best, 1e-3)
    assert gap <= model.fit_report_.gap + 1e-13 or model.fit_report_.gap_kind != "bound"


# ---- no optimum -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_real_data_without_a_penalty_end_with_a_word_about_separable_classes(name):
    X, y = raw(name)
    began = time.perf_counter()
    with pytest.warns(ConvergenceWarning, match="separab"):
        model = SoftmaxRegression(C=np.inf).fit(X, y)
    assert np.isfinite(model.coef_).all()
    assert np.isfinite(model.intercept_).all()
    assert not model.fit_report_.converged
    assert time.perf_counter() - began < 20  # seconds; the cost is a fraction of one
    assert model.n_iter_[0] < 1000
    assert model.score(X, y) >= 0.98  # iris, the least separable, has a row or two on the wrong side


# ---- units, solvers, path ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("solver", SOLVERS)
def test_units_and_origins_of_the_features_do_not_change_the_probabilities(n_classes, seed, solver):
    X, y = overlapping(400, 6, n_classes, seed)
    rng = np.random.default_rng(seed)
    unit = 10.0 ** rng.integers(-6, 7, 6)
    settings = {"C": np.inf, "tol": 1e-10, "solver": solver}
    moved = (X + rng.uniform(-100, 100, 6)) * unit
    plain, other = SoftmaxRegression(**settings).fit(X, y), SoftmaxRegression(**settings).fit(moved, y)
    np.testing.assert_allclose(other.predict_proba(moved), plain.predict_proba(X), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_the_solvers_agree(name, C):
    X, y = raw(name)
    models = [SoftmaxRegression(C=C, solver=solver, tol=1e-8, max_iter=50_000).fit(X, y) for solver in SOLVERS]
    values = [objective(model, X, y, C) for model in models]
    assert max(values) - min(values) <= 1e-8 * max(1e-3, min(values))
    for model in models:
        curve = np.append(np.log(len(model.classes_)), model.loss_curve_)
        assert (np.diff(curve) <= 8 * EPS * abs(curve[:-1])).all()


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("C", [1e-2, 1e2])
def test_a_warm_start_from_the_optimum_takes_at_most_one_iteration(name, solver, C):
    X, y = raw(name)
    model = SoftmaxRegression(C=C, tol=1e-9, max_iter=50_000).fit(X, y)
    before = objective(model, X, y, C)
    model.set_params(solver=solver, warm_start=True, tol=1e-4).fit(X, y)
    assert model.n_iter_[0] <= 1
    assert objective(model, X, y, C) <= before + 1e-12


def test_a_warm_start_from_the_optimum_without_a_penalty():
    X, y = overlapping(300, 5, 3)
    for solver in SOLVERS:
        model = SoftmaxRegression(C=np.inf, tol=1e-10).fit(X * 1e4 + 1e3, y)
        model.set_params(solver=solver, warm_start=True, tol=1e-4).fit(X * 1e4 + 1e3, y)
        assert model.n_iter_[0] <= 1


# ---- the end of a fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_too_few_iterations_are_a_warning_that_says_how_far_it_is(way):
    X, y = overlapping(300, 5, 4)
    with pytest.warns(ConvergenceWarning, match=r"max_iter=2\b.* gap of \d.*raise max_iter"):
        model = SoftmaxRegression(**way, max_iter=2, tol=1e-9).fit(X, y)
    assert model.n_iter_.tolist() == [2]
    assert not model.fit_report_.converged
    assert 0 < model.fit_report_.gap < np.inf


def interrupted(model, X, y):
    """Fit until KeyboardInterrupt; the estimator is to be as it was."""
    before = dict(model.__dict__)
    copies = {name: value.copy() for name, value in before.items() if isinstance(value, np.ndarray)}
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert model.__dict__.keys() == before.keys()
    assert all(model.__dict__[name] is value for name, value in before.items())
    for name, value in copies.items():
        np.testing.assert_array_equal(model.__dict__[name], value)


@pytest.mark.parametrize("way", [{"solver": "gd"}, *WAYS], ids=str)
@pytest.mark.parametrize("fitted", [True, False])
def test_a_keyboard_interrupt_leaves_the_estimator_as_it_was(way, fitted):
    def callback(iteration, objective, gradient_norm):
        if iteration == 2:
            raise KeyboardInterrupt

    X, y = overlapping(300, 5, 4)
    model = SoftmaxRegression(**way, warm_start=True)
    if fitted:
        quietly_fitted = quietly(X[:50], y[:50], **way)
        model.__dict__.update(quietly_fitted.__dict__)
    model.set_params(callback=callback, warm_start=fitted, tol=1e-9)
    interrupted(model, X * 2 + 1, y)


@pytest.mark.parametrize("way", [{"solver": "gd"}, *WAYS], ids=str)
@pytest.mark.parametrize("n_threads", [1, 2])
def test_ctrl_c_ends_a_long_fit_and_leaves_the_estimator_as_it_was(way, n_threads):
    few = way == {"solver": "newton"}  # a Hessian of 5 classes takes some 20 ms
    X, y = overlapping(40_000, 40, 5 if few else 20)
    sent = []

    def press(iteration, objective, gradient_norm):
        if iteration == 1:
            timer.start()

    def send():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.02, send)
    model = quietly(X[:200], y[:200], max_iter=3)
    # A rate and a tolerance that keep any solver busy for seconds.
    settings = {"learning_rate": 1e-3, "tol": 1e-12, "max_iter": 10**6, "C": 1e6}
    model.set_params(**way, n_threads=n_threads, callback=press, **settings)
    try:
        with threadpool_limits(1, user_api="blas"):  # OpenBLAS's threads wait for each other on a busy machine
            interrupted(model, X, y)
    finally:
        timer.cancel()
    # Within one pass, or one making of the Hessian, which is the longest.
    assert time.perf_counter() - sent[0] < 5


@pytest.mark.parametrize("way", [{"solver": "gd"}, *WAYS], ids=str)
def test_a_callback_stops_the_fit(way):
    seen = []

    def callback(iteration, objective, gradient_norm):
        seen.append((iteration, objective, gradient_norm))
        return iteration == 3

    X, y = overlapping(300, 5, 4)
    model = SoftmaxRegression(**way, tol=1e-9, callback=callback).fit(X, y)  # and no warning
    assert model.n_iter_.tolist() == [3]
    assert [iteration for iteration, _, _ in seen] == [1, 2, 3]
    np.testing.assert_array_equal([J for _, J, _ in seen], model.loss_curve_)
    assert seen[2][2] == model.fit_report_.gradient_norm
    assert "callback" in model.fit_report_.message
    assert not model.fit_report_.converged


def test_a_line_of_progress_without_tqdm(monkeypatch, capsys):
    for name in ("tqdm", "tqdm.auto"):
        monkeypatch.setitem(sys.modules, name, None)
    X, y = overlapping()
    model = SoftmaxRegression(verbose=1).fit(X, y)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"iteration {model.n_iter_[0]}" in err
    assert f"{model.loss_curve_[-1]:.6g}" in err
    assert err.count("\n") == 1
    SoftmaxRegression().fit(X, y)
    assert capsys.readouterr() == ("", "")


def test_a_line_of_progress_with_tqdm(monkeypatch, capsys):
    events = []

    class Bar:
        def __init__(self, **settings):
            events.append("open")

        def update(self):
            events.append("update")

        def set_postfix_str(self, line):
            events.append(line)

        def close(self):
            events.append("close")

    module = types.ModuleType("tqdm.auto")
    module.tqdm = Bar
    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", module)
    model = SoftmaxRegression(verbose=1).fit(*overlapping())
    assert (events[0], events[-1]) == ("open", "close")
    assert events.count("update") == model.n_iter_[0]
    assert f"{model.loss_curve_[-1]:.6g}" in events[-2]
    assert capsys.readouterr() == ("", "")


# ---- hard data --------------------------------------------------------------------------------------------------


def test_redundant_features_do_not_drift_when_tol_asks_for_more_than_rounding_allows():
    rng = np.random.default_rng(0)
    X, y = overlapping(3000, 20, 5, seed=1)
    X = np.hstack([X, X @ rng.standard_normal((20, 20))])
    usual = SoftmaxRegression(C=np.inf).fit(X, y)
    tight = quietly(X, y, C=np.inf, tol=1e-15, max_iter=500)
    assert tight.n_iter_[0] < 200
    assert abs(tight.coef_).max() < 3 * abs(usual.coef_).max()
    assert abs(tight.fit_report_.objective - usual.fit_report_.objective) < 1e-9


def test_blurred_pixels_reach_the_optimum():
    # Smooth images: 196 pixels that are nearly combinations of each other, many of them almost always zero.
    rng = np.random.default_rng(4)
    n, grid = 4000, np.arange(14)
    y = rng.integers(10, size=n)
    points = rng.uniform(3.5, 10, (10, 4, 2))[y] + rng.normal(0, 0.8, (n, 4, 2)) + rng.normal(0, 0.5, (n, 1, 2))
    bumps = np.exp(-(((grid - points[..., None]) / rng.uniform(0.6, 1.1, (n, 1, 1, 1))) ** 2))
    images = np.einsum("npi,npj->nij", bumps[:, :, 0], bumps[:, :, 1])
    X = np.floor(255 * np.clip(1.2 * images - 0.15, 0, 1)).reshape(n, -1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = SoftmaxRegression().fit(X, y)
    best = quietly(X, y, tol=1e-9, max_iter=10_000).fit_report_.objective
    assert model.n_iter_[0] < 500
    assert 0 <= model.fit_report_.objective - best <= 1e-6 * max(best, 1e-3)
