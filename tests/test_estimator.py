"""SoftmaxRegression as users meet it: labels, weights, parameters, warm start, callbacks, reports, pickling."""

import copy
import dataclasses
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import twin
from data import overlapping, real

import csoftmax
from csoftmax import ConvergenceWarning, SoftmaxRegression

DEFAULTS = {
    "C": 1.0, "l1_ratio": 0.0, "solver": "auto", "tol": 1e-4, "max_iter": 1000, "fit_intercept": True,
    "class_weight": None, "warm_start": False, "learning_rate": 0.1, "n_threads": None, "verbose": 0, "callback": None,
}  # fmt: skip


def tight(X, y, sample_weight=None, **parameters):
    return SoftmaxRegression(**{"tol": 1e-10, "max_iter": 20_000, **parameters}).fit(X, y, sample_weight)


def assert_same_model(one, other, atol=1e-7):
    np.testing.assert_array_equal(one.classes_, other.classes_)
    np.testing.assert_allclose(one.coef_, other.coef_, rtol=0, atol=atol)
    np.testing.assert_allclose(one.intercept_, other.intercept_, rtol=0, atol=atol)


# ---- weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("solver", ["lbfgs", "gd"])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_weights_are_repetitions(n_classes, solver, class_weight):
    X, y = overlapping(100, 4, n_classes)
    counts = np.random.default_rng(1).integers(0, 4, 100)
    counts[:n_classes] = 1
    settings = {"solver": solver, "learning_rate": 1.0, "max_iter": 50_000, "class_weight": class_weight}
    repeated = np.repeat(np.arange(100), counts)
    assert_same_model(tight(X, y, counts, **settings), tight(X[repeated], y[repeated], **settings))


def test_rows_of_zero_weight_are_as_if_absent_and_so_are_their_classes():
    X, y = overlapping(150, 4, 4)
    weight = np.where(y == 2, 0.0, 1.0)
    weight[10:20] = 0.0
    kept = weight > 0
    model, other = tight(X, y, weight), tight(X[kept], y[kept])
    np.testing.assert_array_equal(model.classes_, [0, 1, 3])
    assert_same_model(model, other, atol=1e-12)
    np.testing.assert_array_equal(model.loss_curve_, other.loss_curve_)


def test_weights_and_the_penalty_have_one_scale():
    X, y = overlapping()
    weight = np.random.default_rng(2).uniform(0.5, 2, len(y))
    assert_same_model(tight(X, y, weight, C=1.0), tight(X, y, 8 * weight, C=1 / 8))


def test_class_weights_are_sample_weights():
    X, y = overlapping()
    weight = np.random.default_rng(3).uniform(0.5, 2, len(y))
    by_class = {0: 0.5, 1: 3.0, 2: 1.0}
    product = weight * np.array([by_class[k] for k in y])
    assert_same_model(tight(X, y, weight, class_weight=by_class), tight(X, y, product))
    missing = {k: w for k, w in by_class.items() if k != 2}  # a class that is not named weighs 1
    assert_same_model(tight(X, y, weight, class_weight=missing), tight(X, y, product))
    balanced = weight * twin.class_weights(y, 3, weight)[y]
    assert_same_model(tight(X, y, weight, class_weight="balanced"), tight(X, y, balanced))


def test_balanced_counts_only_rows_with_a_weight():
    X, y = overlapping()
    weight = np.ones(len(y))
    weight[50:120] = 0
    kept = weight > 0
    settings = {"class_weight": "balanced"}
    assert_same_model(tight(X, y, weight, **settings), tight(X[kept], y[kept], **settings))


# ---- labels -----------------------------------------------------------------------------------------------------

NAMES = {
    "str": np.array(["oak", "ash", "elm"]),
    "bytes": np.array([b"oak", b"ash", b"elm"]),
    "object": np.array(["oak", "ash", "a very long name of a tree"], dtype=object),
    "int": np.array([7, -3, 10**12]),
    "uint8": np.array([255, 0, 7], dtype=np.uint8),
    "float": np.array([2.0, -1.0, 0.0]),
    "datetime": np.array(["2024-01-02", "2021-01-01", "2025-05-05"], dtype="M8[D]"),
}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_labels_of_any_sortable_type(kind, n_classes):
    X, y = overlapping(n_classes=n_classes)
    names = NAMES[kind][:n_classes]
    model = SoftmaxRegression().fit(X, names[y])
    order = np.argsort(names)
    np.testing.assert_array_equal(model.classes_, names[order])
    plain = SoftmaxRegression().fit(X, np.argsort(order)[y])
    np.testing.assert_array_equal(model.coef_, plain.coef_)
    predicted = model.predict(X)
    assert predicted.dtype == names.dtype
    np.testing.assert_array_equal(predicted, model.classes_[plain.predict(X)])
    np.testing.assert_array_equal(SoftmaxRegression().fit(X, names[y].tolist()).coef_, plain.coef_)


def test_boolean_labels():
    X, y = overlapping(n_classes=2)
    model = SoftmaxRegression().fit(X, y.astype(bool))
    np.testing.assert_array_equal(model.classes_, [False, True])
    assert model.predict(X).dtype == bool
    assert model.score(X, y.astype(bool)) == np.mean(model.predict(X) == y)


# ---- predictions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3, 10])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_four_predictions_agree(n_classes, dtype):
    X, y = overlapping(300, 6, n_classes)
    X = X.astype(dtype)
    model = SoftmaxRegression().fit(X, y)
    scores, p = model.decision_function(X), model.predict_proba(X)
    rtol = 1e-12 if dtype is np.float64 else 1e-4
    expected = X.astype(np.float64) @ model.coef_.T.astype(np.float64) + model.intercept_
    if n_classes == 2:
        np.testing.assert_allclose(scores, expected[:, 0], rtol=0, atol=rtol * np.abs(expected).max())
        expected = np.column_stack([np.zeros(300), expected[:, 0]])  # h(x) = 1 / (1 + exp(-x.w - b))
    else:
        np.testing.assert_allclose(scores, expected, rtol=0, atol=rtol * np.abs(expected).max())
    np.testing.assert_allclose(p, twin.softmax(expected), rtol=20 * rtol)
    np.testing.assert_allclose(model.predict_log_proba(X), twin.log_softmax(expected), rtol=20 * rtol, atol=rtol)
    np.testing.assert_array_equal(model.predict(X), model.classes_[p.argmax(axis=1)])
    for result in (scores, p, model.predict_log_proba(X), model.coef_, model.intercept_):
        assert result.dtype == dtype
    assert p.shape == (300, n_classes)
    assert model.coef_.shape == (1 if n_classes == 2 else n_classes, 6)
    assert model.intercept_.shape == (len(model.coef_),)
    assert model.n_features_in_ == 6


def test_float32_data_give_about_the_float64_optimum():
    X, y = overlapping(300, 6, 3)
    model, exact = SoftmaxRegression().fit(X.astype(np.float32), y), SoftmaxRegression().fit(X, y)
    # A gap of 1e-6 J at a curvature of about 0.05 allows 5e-3.
    np.testing.assert_allclose(model.coef_, exact.coef_, atol=5e-3)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logarithms_far_out_are_finite(n_classes):
    X, y = overlapping(n_classes=n_classes)
    model = SoftmaxRegression().fit(X, y)
    log_p = model.predict_log_proba(1e6 * X[:50])
    assert np.isfinite(log_p).all()
    assert log_p.min() < -1e5
    assert np.isfinite(model.predict_proba(1e6 * X[:50])).all()


def test_score_is_the_weighted_share_of_right_answers():
    X, y = overlapping()
    model = SoftmaxRegression().fit(X, y)
    right = model.predict(X) == y
    weight = np.random.default_rng(4).uniform(0, 2, len(y))
    assert model.score(X, y) == pytest.approx(right.mean(), rel=1e-14)
    assert model.score(X, y, weight) == pytest.approx((weight * right).sum() / weight.sum(), rel=1e-14)


def test_the_input_may_be_lists_integers_or_of_any_memory_layout():
    X, y = overlapping()
    X = np.round(4 * X)
    expected = SoftmaxRegression().fit(X, y)
    for other in (X.tolist(), X.astype(int), np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2], X.astype(">f8")):
        model = SoftmaxRegression().fit(other, list(y))
        np.testing.assert_array_equal(model.coef_, expected.coef_)
        np.testing.assert_array_equal(model.predict_proba(other), expected.predict_proba(X))
        assert model.coef_.dtype == np.float64


# ---- parameters, copies -----------------------------------------------------------------------------------------


def test_parameters_have_the_documented_names_and_defaults():
    assert SoftmaxRegression().get_params() == DEFAULTS
    with pytest.raises(TypeError):
        SoftmaxRegression(1.0)


def test_parameters_are_set_copied_and_refused_by_name():
    model = SoftmaxRegression(C=3.0)
    assert model.set_params(C=2.0, solver="gd") is model
    assert model.get_params() == {**DEFAULTS, "C": 2.0, "solver": "gd"}
    with pytest.raises(ValueError, match="penalty"):
        model.set_params(penalty="l2")
    weights = {0: 2.0}
    other = pytest.importorskip("sklearn.base").clone(model.set_params(class_weight=weights))
    assert other is not model
    assert other.get_params() == model.get_params()
    assert "C=2.0" in repr(model)


def test_a_clone_of_a_fitted_model_is_not_fitted():
    X, y = overlapping()
    other = pytest.importorskip("sklearn.base").clone(SoftmaxRegression(C=2.0).fit(X, y))
    with pytest.raises(csoftmax.NotFittedError):
        other.predict(X)


@pytest.mark.parametrize("copied", [lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy], ids=["pickle", "deepcopy"])
def test_a_copy_predicts_the_same(copied):
    X, y = overlapping()
    model = SoftmaxRegression(C=0.5).fit(X, np.array(["a", "b", "c"])[y])
    other = copied(model)
    assert other.get_params() == model.get_params()
    assert other.fit_report_ == model.fit_report_
    np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    assert copied(SoftmaxRegression(C=0.5)).get_params() == SoftmaxRegression(C=0.5).get_params()


def test_fit_changes_neither_its_input_nor_its_parameters():
    X, y = overlapping()
    weight = np.ones(len(y))
    before = X.copy(), y.copy(), weight.copy()
    model = SoftmaxRegression(class_weight="balanced")
    assert model.fit(X, y, weight) is model
    for a, b in zip((X, y, weight), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.get_params() == {**DEFAULTS, "class_weight": "balanced"}
    first = model.predict_proba(X)
    X[:] = 0  # the model owns what it needs
    np.testing.assert_array_equal(model.predict_proba(before[0]), first)


# ---- warm start, callbacks, reports -----------------------------------------------------------------------------


def test_a_warm_start_at_the_optimum_takes_at_most_one_iteration():
    X, y = overlapping()
    model = SoftmaxRegression(warm_start=True, tol=1e-8).fit(X, y)
    coef = model.coef_.copy()
    assert model.n_iter_[0] > 1
    model.fit(X, y)
    assert model.n_iter_[0] <= 1
    assert len(model.loss_curve_) == model.n_iter_[0]
    np.testing.assert_allclose(model.coef_, coef, rtol=0, atol=1e-7)
    assert model.set_params(warm_start=False).fit(X, y).n_iter_[0] > 1


@pytest.mark.parametrize("n_classes", [2, 3])
def test_gradient_descent_goes_on_where_it_stopped(n_classes):
    X, y = overlapping(n_classes=n_classes)
    whole, parts = (SoftmaxRegression(solver="gd", tol=0, max_iter=30, warm_start=w) for w in (False, True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        whole.set_params(max_iter=50).fit(X, y)
        parts.fit(X, y).set_params(max_iter=20).fit(X, y)
    assert_same_model(parts, whole, atol=1e-13)


def test_intercepts_and_weights_sum_to_zero_after_a_warm_start_from_anywhere():
    X, y = overlapping()
    model = SoftmaxRegression(warm_start=True, tol=1e-8).fit(X, y)
    expected = model.coef_.copy()
    model.coef_, model.intercept_ = model.coef_ + 1.0, model.intercept_ + 5.0
    model.fit(X, y)
    np.testing.assert_allclose(model.coef_.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(model.intercept_.sum(), 0, atol=1e-12)
    np.testing.assert_allclose(model.coef_, expected, atol=1e-5)


@pytest.mark.parametrize("solver", ["gd", "lbfgs"])
def test_the_callback_sees_every_iteration_and_may_stop(solver):
    X, y = overlapping()
    seen = []
    model = SoftmaxRegression(solver=solver, callback=lambda *a: seen.append(a), max_iter=2000).fit(X, y)
    assert len(seen) == model.n_iter_[0]
    assert (np.diff([iteration for iteration, _, _ in seen]) == 1).all()
    np.testing.assert_array_equal([J for _, J, _ in seen], model.loss_curve_)
    assert all(norm > 0 for _, _, norm in seen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # NumPy's True is a True, too.
        model.set_params(callback=lambda iteration, J, norm: np.float64(J) <= seen[3][1]).fit(X, y)
    assert model.n_iter_[0] == 4
    assert not model.fit_report_.converged
    assert "callback" in model.fit_report_.message


@pytest.mark.parametrize("solver", ["gd", "lbfgs"])
def test_too_few_iterations_warn_and_leave_a_usable_model(solver):
    X, y = real("digits")
    model = SoftmaxRegression(solver=solver, max_iter=3, learning_rate=1e-3)
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        model.fit(X, y)
    assert model.n_iter_.tolist() == [3]
    assert not model.fit_report_.converged
    assert model.score(X, y) > 0.5


@pytest.mark.parametrize("solver", ["auto", "gd", "lbfgs"])
def test_the_report_is_frozen_and_true(solver):
    X, y = overlapping()
    model = SoftmaxRegression(solver=solver, max_iter=5000, tol=1e-6, learning_rate=1.0).fit(X, y)
    report = model.fit_report_
    fields = "solver reason_chosen converged message objective gradient_norm gap gap_kind n_iter n_passes seconds"
    assert {f.name for f in dataclasses.fields(report)} == {*fields.split(), "workspace_bytes"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.converged = False
    assert report.solver == solver
    assert report.converged is True
    assert report.n_iter == model.n_iter_[0] == len(model.loss_curve_)
    assert report.n_passes >= report.n_iter
    assert report.workspace_bytes > 0
    expected = twin.objective(X, y, model.coef_, model.intercept_, 1.0)
    np.testing.assert_allclose([report.objective, model.loss_curve_[-1]], expected, rtol=1e-12)


# ---- threads of the caller ------------------------------------------------------------------------------------------


def test_eight_threads_fit_and_predict_at_once():
    X, y = overlapping(3000, 20, 4)
    shared = SoftmaxRegression().fit(X, y)

    def fit_and_predict(i):
        model = SoftmaxRegression(C=10.0 ** (i % 4 - 2), solver=("auto", "lbfgs")[i % 2]).fit(X, y)
        return model.coef_, model.intercept_, model.predict_proba(X), shared.predict_proba(X)

    alone = [fit_and_predict(i) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for together in (list(pool.map(fit_and_predict, range(8))) for _ in range(3)):
            for ours, expected in zip(together, alone, strict=True):
                for array, other in zip(ours, expected, strict=True):
                    np.testing.assert_array_equal(array, other)
