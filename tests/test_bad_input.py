"""Whatever is handed in: the documented exception, a sentence with the distinctive words, an estimator as it was."""

import copy

import numpy as np
import pytest
from data import overlapping

import csoftmax
from csoftmax import SoftmaxRegression

X, Y = overlapping(60, 4, 3)
PREDICTIONS = ["predict", "predict_proba", "predict_log_proba", "decision_function"]


def replaced(array, index, value):
    array = array.copy()
    array[index] = value
    return array


def foreign(module, value):
    """An array of another library: NumPy could read it, through a copy from a device or not at all."""
    kind = type("Tensor", (), {"__module__": module, "__array__": lambda self, dtype=None, copy=None: value})
    return kind()


def assert_refused(exception, words, X=X, y=Y, sample_weight=None, **parameters):
    """fit raises, every word is in the sentence, and the estimator, fitted before or not, is as it was."""
    fitted = SoftmaxRegression().fit(*overlapping(50, 3, 2))
    for model in (SoftmaxRegression(), fitted):
        for name, value in parameters.items():
            setattr(model, name, value)
        before = dict(vars(model))
        values = copy.deepcopy({name: before[name] for name in before if name.endswith("_")})
        with pytest.raises(exception) as caught:
            model.fit(X, y, sample_weight)
        for word in words:
            assert word in str(caught.value)
        assert list(vars(model)) == list(before)
        assert all(vars(model)[name] is before[name] for name in before)
        for name, value in values.items():
            np.testing.assert_array_equal(getattr(model, name), value)
    assert fitted.predict(np.zeros((1, 3))).shape == (1,)


# ---- X ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [(0, 0), (59, 3), (31, 2)])
def test_values_of_x_that_are_not_finite(dtype, bad, index):
    word = "NaN" if np.isnan(bad) else "inf"
    assert_refused(ValueError, ["X", word], X=replaced(X, index, bad).astype(dtype))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (X[:, 0], ["X", "(60,)"]),
        (X[None], ["X", "(1, 60, 4)"]),
        (np.float64(3.0), ["X"]),
        (X[:0], ["X", "(0, 4)"]),
        (X[:, :0], ["X", "(60, 0)"]),
        (X[:59], ["59", "60"]),
        (X.astype(str), ["X"]),
        (X.astype(str).tolist(), ["X"]),
        (np.round(X).astype(int).astype(str).astype(object), ["X"]),
        (replaced(X.astype(object), (3, 1), "red"), ["X"]),
        (replaced(X.astype(object), (3, 1), None), ["X"]),
        (replaced(X.astype(object), (3, 1), 10**400), ["X"]),
        (X + 1j, ["X", "complex"]),
        ((X + 1j).astype(object), ["X"]),
        (np.round(X).astype("M8[s]"), ["X", "datetime64"]),
        ([[1.0, 2.0], [3.0]] * 30, ["X"]),
        (None, ["X"]),
    ],
    ids=["1-D", "3-D", "0-D", "no rows", "no columns", "length", "text", "lists of text", "digits as text",
         "one text", "None inside", "huge integer", "complex", "complex objects", "dates", "ragged", "None"],
)  # fmt: skip
def test_x_without_meaning(bad, words):
    assert_refused(ValueError, words, X=bad)


def test_objects_that_are_no_numbers_are_of_the_wrong_type():
    assert_refused(TypeError, ["X", "dict"], X=replaced(X.astype(object), (3, 1), {"a": 1}))


MODULES = ["torch", "torch.nn.parameter", "cupy", "jaxlib._jax", "jax._src.array", "tensorflow.python.framework.ops"]


@pytest.mark.parametrize("module", MODULES)
def test_tensors_of_other_libraries_are_refused_by_name_wherever_they_are(module):
    library = module.split(".")[0].removesuffix("lib")
    model = SoftmaxRegression().fit(X, Y)
    assert_refused(TypeError, ["X", library], X=foreign(module, X))
    assert_refused(TypeError, ["y", library], y=foreign(module, Y))
    assert_refused(TypeError, ["sample_weight", library], sample_weight=foreign(module, np.ones(60)))
    for method in PREDICTIONS:
        with pytest.raises(TypeError, match=library):
            getattr(model, method)(foreign(module, X))
    with pytest.raises(TypeError, match=library):
        csoftmax.loss_gradient(foreign(module, X), Y, np.zeros((3, 4)))
    with pytest.raises(TypeError, match=library):
        csoftmax.softmax(foreign(module, X))


def test_an_array_of_an_unknown_library_is_read_through_its_array_method():
    model = SoftmaxRegression().fit(foreign("mylib.arrays", X), foreign("mylib.arrays", Y))
    np.testing.assert_array_equal(model.coef_, SoftmaxRegression().fit(X, Y).coef_)


def test_masked_arrays_are_refused():
    assert_refused(TypeError, ["X", "mask"], X=np.ma.masked_greater(X, 2))
    assert_refused(TypeError, ["y", "mask"], y=np.ma.masked_equal(Y, 1))
    assert_refused(TypeError, ["sample_weight", "mask"], sample_weight=np.ma.masked_equal(np.ones(60), 0))


@pytest.mark.parametrize("stored", ["zero strides", "sparse file"])
def test_coefficients_that_do_not_fit_into_memory_are_refused_before_trying(stored, tmp_path):
    n = 200_000  # 200,000 classes x 200,000 features x 8 bytes: 320 GB, and as much for X if anyone copied it
    if stored == "zero strides":
        big = np.broadcast_to(np.float64(1.0), (n, n))
    else:
        big = np.memmap(tmp_path / "X", dtype=np.float64, mode="w+", shape=(n, n))
    model = SoftmaxRegression()
    before = dict(vars(model))
    with pytest.raises(MemoryError) as caught:
        model.fit(big, np.arange(n))
    assert type(caught.value) is MemoryError  # NumPy's own is a subclass
    for word in ("200000", "classes", "features"):
        assert word in str(caught.value).replace(",", "")
    assert vars(model) == before


# ---- y and the weights ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (replaced(Y.astype(float), 5, np.nan), ["y", "NaN"]),
        (replaced(Y.astype(float), 5, np.inf), ["y", "inf"]),
        (replaced(Y.astype(float), 5, 0.5), ["y", "0.5"]),
        (replaced(Y.astype(np.float32), 59, 1.25), ["y", "1.25"]),
        (None, ["y", "None"]),
        (np.eye(3)[Y], ["y", "(60, 3)"]),
        (np.int64(1), ["y"]),
        (Y[:59], ["59", "60"]),
        (Y[:0], ["0", "60"]),
        (np.zeros(60, dtype=int), ["class", "0"]),
        (np.full(60, "oak"), ["class", "oak"]),
    ],
    ids=["NaN", "inf", "half", "quarter", "None", "one-hot", "0-D", "length", "empty", "one class", "one name"],
)
def test_y_without_meaning(bad, words):
    assert_refused(ValueError, words, y=bad)


@pytest.mark.parametrize("stranger", ["oak", None, (1, 2), 1.5 + 2j])
def test_labels_that_cannot_be_sorted(stranger):
    y = np.empty(60, dtype=object)
    y[:] = Y.tolist()
    y[7] = stranger
    assert_refused((TypeError, ValueError), ["y"], y=y)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (replaced(np.ones(60), 59, np.nan), ["NaN"]),
        (replaced(np.ones(60), 0, np.inf), ["inf"]),
        (replaced(np.ones(60), 30, -0.25), ["-0.25"]),
        (np.zeros(60), ["0"]),
        (np.ones(59), ["59", "60"]),
        (np.ones((60, 1)), ["(60, 1)"]),
        (np.ones(60).astype(str), []),
        (np.ones(60) + 1j, []),
        ((Y == 1).astype(float), ["class"]),
        (np.full(60, 1e308), []),
    ],
    ids=["NaN", "inf", "negative", "zeros", "length", "2-D", "text", "complex", "one class left", "infinite sum"],
)
def test_weights_without_meaning(bad, words):
    assert_refused(ValueError, ["weight", *words] if "class" not in words else words, sample_weight=bad)


# ---- parameters -------------------------------------------------------------------------------------------------

BAD_VALUES = [
    ("solver", "newton-raphson"), ("solver", ""), ("C", 0), ("C", -1.0), ("C", np.nan), ("C", -np.inf),
    ("l1_ratio", 1.5), ("l1_ratio", -0.1), ("l1_ratio", np.nan),
    ("tol", -1e-4), ("tol", np.nan), ("max_iter", -1), ("n_threads", 0), ("n_threads", -1),
    ("class_weight", "balance"), ("class_weight", {0: -1.0}), ("class_weight", {0: np.nan}),
    ("class_weight", {0: np.inf}), ("class_weight", {0: 0.0, 1: 0.0, 2: 0.0}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_parameters_of_the_wrong_value(name, value):
    shown = "weight" if isinstance(value, dict) else repr(value).removeprefix("np.")
    assert_refused(ValueError, [name.removeprefix("class_"), shown], **{name: value})


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_learning_rates_of_the_wrong_value(value):
    assert_refused(ValueError, ["learning_rate", str(value)], solver="gd", learning_rate=value)


BAD_TYPES = [
    ("C", "1"), ("C", None), ("C", [1.0]), ("C", 1j), ("l1_ratio", "0"), ("l1_ratio", None), ("solver", None),
    ("solver", 3), ("tol", "1e-4"), ("tol", None), ("max_iter", True), ("max_iter", 10.0), ("max_iter", "10"),
    ("max_iter", None), ("n_threads", 1.5), ("n_threads", "2"), ("n_threads", True), ("fit_intercept", "yes"),
    ("warm_start", "no"), ("class_weight", [1.0, 2.0, 3.0]), ("class_weight", 2.0), ("class_weight", {0: "1"}),
    ("callback", 3), ("learning_rate", "0.1"), ("verbose", "loud"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD_TYPES)
def test_parameters_of_the_wrong_type(name, value):
    # A solver that is not a string is of the wrong type, or unknown: both are right.
    exception = (TypeError, ValueError) if name == "solver" else TypeError
    assert_refused(exception, [name], **{"solver": "gd", name: value})


def test_numpy_scalars_are_as_good_as_pythons():
    expected = SoftmaxRegression(C=2.0, max_iter=50, n_threads=1).fit(X, Y)
    parameters = {"C": np.float32(2), "l1_ratio": 0, "tol": np.float64(1e-4), "max_iter": np.int64(50)}
    model = SoftmaxRegression(**parameters, n_threads=np.uint8(1), fit_intercept=np.True_).fit(X, Y)
    np.testing.assert_array_equal(model.coef_, expected.coef_)


def test_an_error_in_the_callback_comes_through():
    def fail(iteration, J, norm):
        raise KeyError("the callback's own")

    assert_refused(KeyError, ["the callback's own"], callback=fail)


def test_a_diverging_rate_leaves_the_estimator_as_it_was():
    assert_refused(ValueError, ["learning_rate", "1000"], X=10 * X, solver="gd", learning_rate=1e3, C=1e-3)


# ---- predictions and functions ----------------------------------------------------------------------------------


def test_predictions_before_fit():
    assert issubclass(csoftmax.NotFittedError, ValueError)
    assert issubclass(csoftmax.NotFittedError, AttributeError)
    for method in PREDICTIONS:
        with pytest.raises(csoftmax.NotFittedError, match="fit"):
            getattr(SoftmaxRegression(), method)(X)
    with pytest.raises(csoftmax.NotFittedError, match="fit"):
        SoftmaxRegression().score(X, Y)
    with pytest.raises(csoftmax.NotFittedError, match="fit"):
        SoftmaxRegression().predictor()
    with pytest.raises(csoftmax.NotFittedError, match="fit"):
        SoftmaxRegression().save("nowhere")


@pytest.mark.parametrize("method", PREDICTIONS)
def test_rows_that_do_not_fit_the_model(method):
    predict = getattr(SoftmaxRegression().fit(X, Y), method)
    with pytest.raises(ValueError, match=r"5.*4|4.*5"):
        predict(np.ones((7, 5)))
    for bad in (X[0], X[None], X.astype(str), X + 1j, replaced(X, (59, 3), np.nan), replaced(X, (0, 0), np.inf)):
        with pytest.raises(ValueError, match="X"):
            predict(bad)
    with pytest.raises(TypeError, match="mask"):
        predict(np.ma.masked_greater(X, 2))


def test_scores_of_labels_that_do_not_fit_the_rows():
    model = SoftmaxRegression().fit(X, Y)
    with pytest.raises(ValueError, match=r"59.*60|60.*59"):
        model.score(X, Y[:59])
    with pytest.raises(ValueError, match="weight"):
        model.score(X, Y, -np.ones(60))


W = np.zeros((3, 4))


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("y", {"y": replaced(Y, 3, 3)}), ("y", {"y": replaced(Y, 3, -1)}), ("y", {"y": Y + 0.5}),
        ("y", {"y": Y[:, None]}), ("59", {"y": Y[:59]}), ("X", {"X": replaced(X, (2, 1), np.nan)}),
        ("X", {"X": X[0]}), ("X", {"X": X[:0], "y": Y[:0]}), ("coef", {"coef": W[:, :3]}), ("coef", {"coef": W[0]}),
        ("coef", {"coef": W[:1], "y": 0 * Y}), ("intercept", {"intercept": np.zeros(2)}),
        ("intercept", {"intercept": np.zeros((3, 1))}), ("weight", {"sample_weight": -np.ones(60)}),
        ("weight", {"sample_weight": np.ones(61)}), ("weight", {"sample_weight": np.zeros(60)}),
        ("weight", {"sample_weight": replaced(np.ones(60), 1, np.inf)}), ("reduction", {"reduction": "none"}),
        ("n_threads", {"n_threads": 0}),
    ],
)  # fmt: skip
def test_loss_gradient_refuses_what_does_not_fit(words, changes):
    arguments = {"X": X, "y": Y, "coef": W, **changes}
    with pytest.raises(ValueError, match=words):
        csoftmax.loss_gradient(**arguments)
