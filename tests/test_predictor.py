"""The predictor: rows and batches, labels and precision, out=, threads and processes."""

import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse
import twin
from conftest import available_instruction_sets
from data import DTYPES, LABELS, METHODS, coefficients, inputs, overlapping

import csoftmax
from csoftmax import Predictor, SoftmaxRegression, _kernels

# ---- predictions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [2, 3, 9, 1000])
@pytest.mark.parametrize("d", [1, 4, 65])
def test_a_row_is_a_row_of_the_batch_and_of_the_twin(dtype, n_classes, d):
    coef, intercept = coefficients(n_classes, d, dtype)
    model = Predictor(coef, intercept)
    X = inputs(17, d, dtype)
    scores = X.astype(np.float64) @ coef.astype(np.float64).T + intercept
    expected = {"decision_function": scores[:, 0] if n_classes == 2 else scores}
    if n_classes == 2:
        scores = np.column_stack([np.zeros(17), scores])
    expected["predict_proba"], expected["predict_log_proba"] = twin.softmax(scores), twin.log_softmax(scores)
    # Rounding in scores of at most about 40, each a sum of d terms.
    atol = 200 * np.finfo(dtype).eps
    for method, values in expected.items():
        batch = getattr(model, method)(X)
        assert batch.dtype == dtype
        assert batch.shape == values.shape
        np.testing.assert_allclose(batch, values, rtol=0, atol=atol)
        for i in range(17):
            row = getattr(model, method)(X[i])
            assert row.dtype == dtype
            assert np.shape(row) == values.shape[1:]
            np.testing.assert_allclose(row, batch[i], rtol=0, atol=atol)
    np.testing.assert_array_equal(model.predict(X), scores.argmax(axis=1))
    assert [model.predict(x) for x in X] == model.predict(X).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_rows_equal_few(dtype):
    model = Predictor(*coefficients(7, 30, dtype))
    X = inputs(30_000, 30, dtype)
    whole = model.predict_proba(X)
    part = slice(12_345, 12_350)
    np.testing.assert_allclose(whole[part], model.predict_proba(X[part]), rtol=1e3 * np.finfo(dtype).eps)
    np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=7 * np.finfo(dtype).eps)


def test_the_estimator_its_predictor_and_its_file_are_one_model(tmp_path):
    for n_classes in (2, 4):
        X, y = overlapping(100, 5, n_classes)
        model = SoftmaxRegression().fit(X, np.array(["d", "b", "c", "a"])[y])
        model.save(tmp_path / "model")
        for other in (model.predictor(), csoftmax.load(tmp_path / "model")):
            np.testing.assert_array_equal(other.classes, model.classes_)
            for method in METHODS:
                np.testing.assert_array_equal(getattr(other, method)(X), getattr(model, method)(X))


@pytest.mark.parametrize("view", [np.asfortranarray, lambda X: np.repeat(X, 2, axis=1)[:, ::2], lambda X: X[::-1],
                                  lambda X: X.astype(">f8"), lambda X: X.tolist()])  # fmt: skip
def test_rows_of_any_memory_layout(view):
    model = Predictor(*coefficients())
    X = view(inputs(20))
    expected = model.predict_proba(np.array(X, dtype=np.float64, order="C"))
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    np.testing.assert_allclose([model.predict_proba(x) for x in X], expected, rtol=1e-14)


def test_eight_threads_share_one_predictor():
    model = Predictor(*coefficients(5, 20))
    X = inputs(400, 20)
    expected = [model.predict_proba(x) for x in X]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            np.testing.assert_array_equal(list(pool.map(model.predict_proba, X)), expected)


# ---- one row, exactly -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_every_width_are_within_the_rounding_of_a_sum(instruction_set, dtype):
    # d eps sum_j |x_j w_jk| bounds the error of a score, however it is added up.
    for n_classes in (*range(2, 36), 65, 130, 300):
        for d in (1, 2, 3, 7, 8, 9, 16, 31, 33, 70):
            coef, intercept = coefficients(n_classes, d, dtype, seed=d)
            model = Predictor(coef, intercept)
            X = inputs(9, d, dtype)
            wide, offsets = coef.astype(np.float64), intercept.astype(np.float64)
            exact = X.astype(np.float64) @ wide.T + offsets
            bound = (d + 2) * np.finfo(dtype).eps * (np.abs(X.astype(np.float64)) @ np.abs(wide).T + np.abs(offsets))
            rows = np.array([model.decision_function(x) for x in X]).reshape(9, -1)
            for scores in (rows, model.decision_function(X).reshape(9, -1)):
                assert (np.abs(scores - exact) <= bound + np.finfo(dtype).tiny).all()
            full = np.column_stack([np.zeros(9), exact]) if n_classes == 2 else exact
            slack = 2 * bound.max() + 20 * np.finfo(dtype).eps
            for method, expected in (
                ("predict_proba", twin.softmax(full)),
                ("predict_log_proba", twin.log_softmax(full)),
            ):
                call = getattr(model, method)
                np.testing.assert_allclose([call(x) for x in X], expected, rtol=slack, atol=slack)
                np.testing.assert_allclose(call(X), expected, rtol=slack, atol=slack)


def test_a_model_keeps_the_instruction_set_it_was_made_with(instruction_set):
    model = Predictor(*coefficients(7, 5))
    X = inputs(70, 5)
    expected = model.predict_proba(X), model.predict_proba(X[0])
    for name in available_instruction_sets():
        _kernels.select_instruction_set(name)
        np.testing.assert_array_equal(model.predict_proba(X), expected[0])
        np.testing.assert_array_equal(model.predict_proba(X[0]), expected[1])


@pytest.mark.parametrize("n_classes", [2, 3, 40, 700])
def test_predict_and_top_k_agree_with_the_probabilities(n_classes):
    model = Predictor(*coefficients(n_classes, 6), classes=[f"class {k}" for k in range(n_classes)])
    X = inputs(300, 6)
    probability = model.predict_proba(X)
    np.testing.assert_array_equal(model.predict(X), model.classes[probability.argmax(axis=1)])
    for k in (1, 2, n_classes):
        labels, chances = model.top_k(X, k)
        order = np.argsort(-probability, axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(labels, model.classes[order])
        np.testing.assert_allclose(chances, np.take_along_axis(probability, order, axis=1), rtol=1e-14)
        single = model.top_k(X[5], k)
        np.testing.assert_array_equal(single[0], labels[5])
        np.testing.assert_allclose(single[1], chances[5], rtol=1e-14)


def test_ties_go_to_the_first_class():
    for n_classes in (2, 3, 50):
        model = Predictor(
            np.zeros((1 if n_classes == 2 else n_classes, 3)), np.zeros(1 if n_classes == 2 else n_classes)
        )
        assert model.predict(np.ones(3)) == 0
        assert model.predict(np.ones((200, 3))).max() == 0
        np.testing.assert_array_equal(model.top_k(np.ones(3), n_classes)[0], range(n_classes))


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_one_row_gives_the_class_itself(labels):
    n_classes = len(labels)
    model = Predictor(*coefficients(n_classes), classes=labels)
    x = inputs(1)[0]
    for row in (x, x.tolist(), x.astype(np.float32)):
        assert type(model.predict(row)) is type(labels.tolist()[0])
        assert model.predict(row) in labels.tolist()


# ---- what is not finite, threads and processes ----------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n_classes", [2, 3, 30])
def test_nan_and_infinity_are_refused_wherever_they_stand(instruction_set, n_classes, bad):
    coef, intercept = coefficients(n_classes, 19)
    coef[:, 4] = 0  # a weight of zero does not hide them
    model, blind = Predictor(coef, intercept), Predictor(coef, intercept, check_finite=False)
    X = inputs(130, 19)
    for method in (model.predict_proba, model.predict_log_proba, model.decision_function, model.predict):
        for row, column in ((0, 0), (129, 18), (64, 4)):
            spoiled = X.copy()
            spoiled[row, column] = bad
            for x in (spoiled[row], spoiled, spoiled.tolist(), spoiled.astype(np.float32)):
                with pytest.raises(ValueError, match=f"column {column}|place {column}"):
                    method(x)
    spoiled = X[0].copy()
    spoiled[3] = bad
    assert blind.predict_proba(spoiled).shape == (n_classes,)


@pytest.mark.parametrize("n_classes", [3, 40, 300])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_scores_that_overflow_are_told_apart_from_bad_input(instruction_set, n_classes, place):
    coef = np.zeros((n_classes, 2))
    coef[place, 0] = 1e200
    model = Predictor(coef, np.zeros(n_classes))
    for x in ([1e200, 1.0], [[1e200, 1.0], [0.0, 1.0]], [[0.0, 1.0]] * 70 + [[1e200, 1.0]]):
        for method in (model.predict_proba, model.predict_log_proba, model.predict):
            with pytest.raises(ValueError, match="overflow float64"):
                method(np.array(x))
        assert np.isinf(model.decision_function(np.array(x))).any()
    # A score of -infinity does no harm to the others.
    for x in ([-1e200, 1.0], [[-1e200, 1.0]] * 70):
        assert (model.predict_proba(np.array(x)).sum(axis=-1).round(9) == 1).all()
        assert np.isneginf(model.predict_log_proba(np.array(x))).any()
        assert np.isin(model.predict(np.array(x)), (0, 1)).all()


def test_a_single_infinite_score_gives_zero_and_one():
    two = Predictor(np.array([[1e30]], np.float32), np.zeros(1, np.float32))
    np.testing.assert_array_equal(two.predict_proba(np.array([[1e30], [-1e30]], np.float32)), [[0, 1], [1, 0]])


@pytest.mark.parametrize("n", [1, 2, 200])
def test_without_the_check_nothing_is_refused(instruction_set, n):
    model = Predictor(*coefficients(40, 5), check_finite=False)
    X = inputs(n, 5)
    X[0, 0] = np.nan
    for x in (X, X.tolist(), X.astype(np.float32), X[0]):
        assert np.isnan(model.predict_proba(x)).any()


def test_labels_and_names_that_would_not_stay_what_they_are(tmp_path):
    coef, intercept = coefficients()
    for classes, error in (
        ([1, "a", 2], TypeError),
        ([True, False, 2], TypeError),
        ([np.nan, np.nan, 1.0], ValueError),
    ):
        with pytest.raises(error, match="classes"):
            Predictor(coef, intercept, classes)
    with pytest.raises(ValueError, match="feature_names"):
        Predictor(coef, intercept, feature_names=["a", "b", "c", "a\0"])
    for classes in (np.array(["2020", "2021", "2022"], "M8[Y]"), np.array([1j, 2j, 3])):
        with pytest.raises(TypeError, match="classes"):
            Predictor(coef, intercept, classes).save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_predictor_has_no_back_door_and_no_heirs():
    model = Predictor(*coefficients())
    for array in (model.coef, model.intercept, model.classes):
        while isinstance(array, np.ndarray):
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.setflags(write=True)
            array = array.base
    with pytest.raises(TypeError, match="type"):
        type("Heir", (Predictor,), {})
    for method in (model.predict_proba, model.predict, model.decision_function):
        for x in (np.zeros(4), np.zeros((2, 4))):
            with pytest.raises(ValueError, match="n_threads"):
                method(x, n_threads=0)
    square, X = Predictor(np.eye(4), np.zeros(4)), np.ones((4, 4))
    with pytest.raises(ValueError, match="overlaps"):
        square.predict_proba(memoryview(X), X)


def test_top_k_ranks_what_is_less_likely_than_any_number():
    model = Predictor(np.zeros((4, 1)), [-2000.0, -1000.0, -3000.0, 0.0])
    assert model.top_k(np.zeros(1), 4)[0].tolist() == [3, 1, 0, 2]


def mixed_calls(model, X, answers, n):
    """4 n calls of all methods; the number of wrong answers. Rows and answers are compared byte by byte."""
    wrong, out = 0, np.empty(model.n_classes)
    batch = model.predict_proba(X).tobytes()
    labels, best = model.predict(X).tolist(), model.top_k(X, 1)[1]
    for i in range(n):
        j = i % len(X)
        wrong += model.predict_proba(X[j]).tobytes() != answers[j]
        wrong += model.predict(X[j]) != labels[j]
        wrong += model.predict_proba(X[j], out).tobytes() != answers[j]
        model.predict_log_proba(X[j], out)
        if i % 256 == 0:
            wrong += model.predict_proba(X).tobytes() != batch
            wrong += not np.allclose(model.top_k(X[j], 1)[1], best[j], rtol=1e-12)
    return wrong


def test_eight_threads_and_a_forked_child_share_one_predictor():
    model = Predictor(*coefficients(11, 20))
    X = inputs(100, 20)
    answers = [model.predict_proba(x).tobytes() for x in X]
    with ThreadPoolExecutor(8) as pool:  # a million calls
        assert sum(pool.map(lambda _: mixed_calls(model, X, answers, 31_250), range(8))) == 0
    if hasattr(os, "fork"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks in processes with threads
            child = os.fork()
        if child == 0:
            os._exit(min(1, mixed_calls(model, X, answers, 1000)))
        assert os.waitpid(child, 0)[1] == 0


def test_batches_are_the_same_for_every_number_of_threads():
    for n_classes in (2, 30):
        model = Predictor(*coefficients(n_classes, 40))
        X = inputs(20_000, 40)
        for method in METHODS:
            one = getattr(model, method)(X, n_threads=1)
            for n_threads in (2, 3):
                np.testing.assert_array_equal(getattr(model, method)(X, n_threads=n_threads), one)
    with pytest.raises(ValueError, match="n_threads"):
        model.predict_proba(X, n_threads=0)


def test_serving_imports_neither_scipy_nor_scikit_learn(tmp_path):
    Predictor(*coefficients(5, 30)).save(tmp_path / "model")
    code = (
        "import sys, numpy, csoftmax\n"
        f"model = csoftmax.load({str(tmp_path / 'model')!r})\n"
        "model.predict_proba(numpy.zeros(30)); model.predict(numpy.zeros((9000, 30)))\n"
        "model.top_k(numpy.zeros(30), 2)\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('scipy', 'sklearn')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_row_of_a_sparse_matrix():
    model = Predictor(*coefficients(3, 6))
    x = np.array([0.0, 1.5, 0.0, 0.0, -2.0, 0.0])
    row = scipy.sparse.csr_array(x[None])
    np.testing.assert_array_equal(model.predict_proba(row), model.predict_proba(x[None]))


# ---- the object -------------------------------------------------------------------------------------------------


def test_attributes_say_what_was_given():
    coef, intercept = coefficients(3, 4)
    model = Predictor(coef, intercept, ["a", "b", "c"], feature_names=["w", "x", "y", "z"])
    np.testing.assert_array_equal(model.coef, coef)
    np.testing.assert_array_equal(model.intercept, intercept)
    assert model.classes.tolist() == ["a", "b", "c"]
    assert list(model.feature_names) == ["w", "x", "y", "z"]
    assert (model.n_features, model.n_classes, model.dtype) == (4, 3, np.float64)
    plain = Predictor(coef, intercept, dtype=np.float32)
    assert plain.feature_names is None
    assert plain.classes.tolist() == [0, 1, 2]
    assert plain.dtype == plain.coef.dtype == plain.predict_proba(inputs(3)).dtype == np.float32
    two = Predictor(*coefficients(2))
    assert (two.n_classes, two.classes.tolist()) == (2, [0, 1])


def test_a_predictor_cannot_be_changed():
    coef, intercept = coefficients()
    model = Predictor(coef, intercept)
    before = model.predict_proba(inputs(5))
    coef[:], intercept[:] = 0, 0
    for name in ("coef", "intercept", "classes"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(model, name)[...] = 1
        with pytest.raises(AttributeError):
            setattr(model, name, getattr(model, name) + 1)
    np.testing.assert_array_equal(model.predict_proba(inputs(5)), before)


@pytest.mark.parametrize(
    ("word", "arguments"),
    [
        ("coef", {"coef": np.zeros(4)}), ("coef", {"coef": np.zeros((0, 4)), "intercept": np.zeros(0)}),
        ("coef", {"coef": np.zeros((3, 0))}), ("coef", {"coef": np.full((3, 4), np.nan)}),
        ("intercept", {"intercept": np.zeros(2)}), ("intercept", {"intercept": np.array([0, np.inf, 0])}),
        ("classes", {"classes": ["a", "b"]}), ("classes", {"classes": ["a", "b", "b"]}),
        ("feature_names", {"feature_names": ["a"]}),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_each_other(word, arguments):
    coef, intercept = coefficients()
    with pytest.raises(ValueError, match=word):
        Predictor(**{"coef": coef, "intercept": intercept, **arguments})


@pytest.mark.parametrize("method", METHODS)
def test_rows_that_do_not_fit_the_model(method):
    predict = getattr(Predictor(*coefficients()), method)
    for bad in (np.zeros(5), np.zeros((2, 5)), np.zeros((2, 3))):
        with pytest.raises(ValueError, match="4"):
            predict(bad)
    for bad in (np.zeros((1, 2, 4)), np.float64(1), [0, 0, 0, np.nan], np.full((2, 4), np.inf), ["a", "b", "c", "d"]):
        with pytest.raises(ValueError, match=r"\bx\b"):
            predict(bad)


def test_labels_of_several_types_and_a_string_for_the_names_are_refused():
    with pytest.raises(TypeError, match="classes mixes"):
        Predictor(np.ones((2, 2)), np.zeros(2), np.array([1, "a"], dtype=object))
    with pytest.raises(TypeError, match="feature_names='ab'"):
        Predictor(np.ones((2, 2)), np.zeros(2), feature_names="ab")


def test_a_batch_of_no_rows_gives_answers_of_no_rows():
    for rows, n_classes in ((1, 2), (3, 3)):
        model = Predictor(np.ones((rows, 2)), np.zeros(rows))
        assert model.predict_proba(np.empty((0, 2))).shape == (0, n_classes)
        assert model.predict(np.empty((0, 2))).shape == (0,)


def test_the_arrays_of_a_predictor_cannot_be_written():
    model = Predictor(np.ones((3, 2)), np.zeros(3))
    for array in (model.coef, model.intercept, model.classes):
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.setflags(write=True)


# ---- coefficients that are mostly zero -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n_classes", "d", "used"), [(2, 40, 1), (3, 100, 7), (5, 800, 300), (40, 900, 400), (3, 50, 0)]
)
def test_features_without_coefficients_change_nothing(instruction_set, dtype, n_classes, d, used):
    rng = np.random.default_rng(0)
    coef, intercept = coefficients(n_classes, d, dtype)
    coef[:, rng.permutation(d)[used:]] = 0
    X = inputs(150, d, dtype)
    sparse = Predictor(coef, intercept)
    expected = X.astype(float) @ coef.T.astype(float) + intercept
    tolerance = d * np.finfo(dtype).eps * (abs(X) @ abs(coef).T + abs(intercept)).max()
    for rows, scores in ((X, expected), (X[7], expected[7])):
        actual = sparse.decision_function(rows)
        np.testing.assert_allclose(actual, scores[..., 0] if n_classes == 2 else scores, rtol=0, atol=tolerance)
    both = np.hstack([np.zeros((150, 1)), expected]) if n_classes == 2 else expected
    np.testing.assert_allclose(sparse.predict_proba(X), twin.softmax(both), rtol=0, atol=10 * tolerance)
    np.testing.assert_array_equal(sparse.predict(X), sparse.predict_proba(X).argmax(axis=1))
    assert [sparse.predict(x) for x in X[:20]] == sparse.predict(X[:20]).tolist()
    np.testing.assert_allclose(sparse.predict_proba(X[3]), sparse.predict_proba(X)[3], rtol=0, atol=10 * tolerance)
    np.testing.assert_array_equal(sparse.coef, coef)
    assert sparse.n_features == d


def test_nan_is_found_in_features_without_coefficients_too():
    coef = np.zeros((3, 100))
    coef[:, 5] = 1, 2, 3
    checked, unchecked = (Predictor(coef, np.zeros(3), check_finite=check) for check in (True, False))
    X = inputs(70, 100)
    X[3, 50] = np.nan
    for method in METHODS:
        for rows in (X, X[3]):
            with pytest.raises(ValueError, match=r"row 3, column 50|column 50|contains nan"):
                getattr(checked, method)(rows)
            assert np.isfinite(getattr(unchecked, method)(rows)).all()
