"""Data frames and series: they give what an array of the same values gives, or are refused by name."""

import numpy as np
import pytest
from data import overlapping
from sklearn.exceptions import DataConversionWarning
from sklearn.linear_model import LogisticRegression

import csoftmax
from csoftmax import SoftmaxRegression

pd = pytest.importorskip("pandas")

X, Y = overlapping()
ROUND = np.round(4 * X)
NAMES = ["width", "height", "a", "b"]
MODEL = SoftmaxRegression().fit(ROUND, Y)


def polars(columns):
    return pytest.importorskip("polars").DataFrame(columns)


def arrow(columns):
    return pytest.importorskip("pyarrow").table(columns)


def columns(array=ROUND, names=NAMES):
    return {name: array[:, j] for j, name in enumerate(names)}


class Interchange:
    """A data frame of a library that has nothing but the interchange protocol and an array."""

    def __init__(self, columns):
        self._columns = columns

    def __array__(self, dtype=None, copy=None):
        return np.column_stack(list(self._columns.values()))

    def __dataframe__(self):
        return self

    def column_names(self):
        return iter(self._columns)


LIBRARIES = {"pandas": pd.DataFrame, "polars": polars, "pyarrow": arrow, "interchange": Interchange}


# ---- X ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8])
def test_a_frame_is_its_array_with_names(library, dtype):
    values = np.abs(ROUND).astype(dtype)
    frame = LIBRARIES[library](columns(values))
    model, expected = SoftmaxRegression().fit(frame, Y), SoftmaxRegression().fit(values, Y)
    np.testing.assert_array_equal(model.coef_, expected.coef_)
    assert model.coef_.dtype == expected.coef_.dtype
    assert model.feature_names_in_.tolist() == NAMES
    assert model.feature_names_in_.dtype == object
    np.testing.assert_array_equal(model.predict_proba(frame), expected.predict_proba(values))
    assert model.score(frame, Y) == expected.score(values, Y)
    np.testing.assert_array_equal(model.predictor().predict_proba(frame), expected.predict_proba(values))


NULLABLE = ["Int64", "Int8", "Float64", "Float32", "double[pyarrow]", "int32[pyarrow]", "Sparse[float64]", object]


@pytest.mark.parametrize("dtype", NULLABLE)
@pytest.mark.parametrize("mixed", [False, True])
def test_pandas_columns_that_are_not_numpys_own(dtype, mixed):
    if "pyarrow" in str(dtype):
        pytest.importorskip("pyarrow")
    frame = pd.DataFrame(columns())
    frame = frame.astype({"a": dtype, "height": "Int16"} if mixed else dtype)
    model = SoftmaxRegression().fit(frame, Y)
    if dtype == "Float32" and not mixed:
        assert model.coef_.dtype == np.float32
        np.testing.assert_allclose(model.coef_, MODEL.coef_, atol=5e-3)
    else:
        np.testing.assert_array_equal(model.coef_, MODEL.coef_)


@pytest.mark.parametrize("library", ["pandas", "nullable", "polars", "pyarrow"])
def test_columns_of_true_and_false(library):
    mixed = {"yes": X[:, 0] > 0, "x": X[:, 1], "n": ROUND[:, 2].astype(np.int8), "no": X[:, 3] > 0}
    expected = SoftmaxRegression().fit(np.column_stack(list(mixed.values())).astype(float), Y)
    frame = LIBRARIES["pandas" if library == "nullable" else library](mixed)
    if library == "nullable":
        frame = frame.astype({"yes": "boolean", "n": "Int8"})
    np.testing.assert_array_equal(SoftmaxRegression().fit(frame, Y).coef_, expected.coef_)
    alone, expected = frame[["yes", "no"]] if library != "pyarrow" else frame.select(["yes", "no"]), X[:, [0, 3]] > 0
    np.testing.assert_array_equal(SoftmaxRegression().fit(alone, Y).coef_, SoftmaxRegression().fit(expected, Y).coef_)


def missing_ones():
    frame = pd.DataFrame(columns())
    for dtype in ("float64", "Int64", "Float64", "boolean", object):
        column = (frame["a"] > 0).astype(dtype)
        column[7] = np.nan if dtype == "float64" else pd.NA
        yield f"pandas {dtype}", frame.assign(a=column)
    with_none = [None if i == 7 else float(value) for i, value in enumerate(X[:, 2])]
    yield "None", frame.assign(a=np.array(with_none, dtype=object))
    for library in ("polars", "pyarrow"):
        for kind in (float, int, bool):
            values = [None if i == 7 else kind(value) for i, value in enumerate(X[:, 2])]
            yield f"{library} {kind.__name__}", (library, values)


@pytest.mark.parametrize(
    ("name", "frame"), list(missing_ones()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_missing_values_are_refused(name, frame):
    if isinstance(frame, tuple):
        frame = LIBRARIES[frame[0]](columns() | {"a": frame[1]})
    model = SoftmaxRegression().fit(pd.DataFrame(columns()), Y)
    for call in (lambda: SoftmaxRegression().fit(frame, Y), lambda: model.predict(frame)):
        with pytest.raises(ValueError, match=r"X contains (nan|a missing value).* drop such rows"):
            call()


TEXT = np.array(["red", "green"])[(X[:, 2] > 0).astype(int)]
DATES = np.array(["2024-01-02", "2021-01-01"], dtype="M8[ns]")[(X[:, 2] > 0).astype(int)]


def strange_columns():
    for dtype in ("category", "string", object, "str"):
        yield f"pandas {dtype}", "pandas", pd.Series(TEXT).astype(dtype)
    yield "pandas category of numbers", "pandas", pd.Series(ROUND[:, 2]).astype("category")
    yield "pandas dates", "pandas", DATES
    yield "pandas complex", "pandas", X[:, 2] + 1j
    for library in ("polars", "pyarrow"):
        yield f"{library} text", library, TEXT.tolist()
        yield f"{library} dates", library, DATES.astype("M8[ms]").tolist()


@pytest.mark.parametrize(
    ("name", "library", "column"), list(strange_columns()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_columns_that_are_not_numbers_are_refused_by_name(name, library, column):
    frame = LIBRARIES[library](columns() | {"a": column})
    with pytest.raises(ValueError, match=r"X has the column 'a' of type .*encode it first"):
        SoftmaxRegression().fit(frame, Y)


def test_polars_categories_are_refused_by_name():
    pl = pytest.importorskip("polars")
    for dtype in (pl.Categorical, pl.Enum(["green", "red"])):
        frame = pl.DataFrame(columns()).with_columns(pl.Series("a", TEXT).cast(dtype))
        with pytest.raises(ValueError, match="'a'"):
            SoftmaxRegression().fit(frame, Y)


def test_frames_that_are_not_in_memory_are_refused():
    lazy = polars(columns()).lazy()
    with pytest.raises(TypeError, match=r"X is a polars LazyFrame.*X\.collect\(\)"):
        SoftmaxRegression().fit(lazy, Y)
    np.testing.assert_array_equal(SoftmaxRegression().fit(lazy.collect(), Y).coef_, MODEL.coef_)


def test_a_frame_without_rows_or_columns_is_refused():
    for frame in (pd.DataFrame(columns())[:0], pd.DataFrame(index=range(len(Y)))):
        with pytest.raises(ValueError, match="while a minimum of 1 is required"):
            SoftmaxRegression().fit(frame, Y[: len(frame)])


# ---- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [[0, 1, 2, 3], [("a", 1), ("a", 2), ("b", 1), ("b", 2)], [1.5, 2.5, 3.5, 4.5]])
def test_labels_of_columns_that_are_no_strings_are_no_names(names):
    model = SoftmaxRegression().fit(pd.DataFrame(columns(names=names)), Y)
    assert not hasattr(model, "feature_names_in_")
    np.testing.assert_array_equal(model.coef_, MODEL.coef_)
    assert model.predictor().feature_names is None


def said(model, call):
    """The type and message of the error or warning that a call ends with."""
    try:
        call(model)
    except (ValueError, TypeError, UserWarning) as error:
        return type(error), str(error).replace(type(model).__name__, "Model")
    return None


OTHERS = {
    "array": ROUND,
    "numbered": pd.DataFrame(ROUND),
    "reversed": pd.DataFrame(columns())[NAMES[::-1]],
    "renamed": pd.DataFrame(columns(names=["width", "height", "c", "d"])),
    "more": pd.DataFrame(np.tile(ROUND, 3), columns=[f"n{i}" for i in range(12)]),
    "fewer": pd.DataFrame(columns())[["b", "a"]],
    "the same": pd.DataFrame(columns()),
}
FITTING = {"array": ["array", "numbered"], "more": ["more"], "the same": ["the same"]}


@pytest.mark.parametrize("given", OTHERS)
@pytest.mark.parametrize("fitted", ["array", "more", "the same"])
def test_names_are_compared_as_scikit_learn_does(fitted, given):
    ours, theirs = (
        SoftmaxRegression().fit(OTHERS[fitted], Y),
        LogisticRegression(solver="newton-cholesky").fit(OTHERS[fitted], Y),
    )
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        found = said(ours, lambda model, method=method: getattr(model, method)(OTHERS[given]))
        assert found == said(theirs, lambda model, method=method: getattr(model, method)(OTHERS[given]))
        assert (found is None) == (given in FITTING[fitted])


def test_names_of_mixed_types_are_refused_as_scikit_learn_does():
    mixed = pd.DataFrame(columns(names=["width", 1, 2, "b"]))
    expected = said(LogisticRegression(), lambda model: model.fit(mixed, Y))[1].split(". ")[0]
    for call in (lambda: SoftmaxRegression().fit(mixed, Y), lambda: MODEL.predict(mixed)):
        with pytest.raises(TypeError) as raised:
            call()
        assert str(raised.value).startswith(expected)


def test_a_fit_without_names_forgets_those_of_the_last():
    model = SoftmaxRegression().fit(pd.DataFrame(columns()), Y)
    assert not hasattr(model.fit(ROUND, Y), "feature_names_in_")
    model.predict(ROUND)


def test_a_warm_start_needs_the_same_names():
    frame = pd.DataFrame(columns())
    model = SoftmaxRegression(warm_start=True).fit(frame, Y)
    for other in (frame.rename(columns={"a": "c"}), frame[NAMES[::-1]]):
        with pytest.raises(ValueError, match=r"warm_start=True.*feature names \['width'.*use warm_start=False"):
            model.fit(other, Y)
    assert model.fit(frame, Y).n_iter_[0] <= 1
    assert model.fit(ROUND, Y).n_iter_[0] <= 1


def test_names_go_with_the_predictor_and_its_file(tmp_path):
    model = SoftmaxRegression().fit(pd.DataFrame(columns()), Y)
    assert model.predictor().feature_names == tuple(NAMES)
    model.save(tmp_path / "model")
    assert csoftmax.load(tmp_path / "model").feature_names == tuple(NAMES)


# ---- y and the weights ------------------------------------------------------------------------------------------

WORDS = np.array(["ash", "elm", "oak"])


def targets():
    words = WORDS[Y]
    yield "list", words.tolist(), words.dtype
    for dtype in ("category", "string", "str", object):
        yield f"pandas {dtype}", pd.Series(words).astype(dtype), object
    yield "pandas Index", pd.Index(words), object
    for dtype in ("int64", "Int64", "UInt8", "float64", "Float64"):
        yield f"pandas {dtype}", pd.Series(Y).astype(dtype), np.dtype(dtype.lower())
    yield "pandas category of int", pd.Series(Y).astype("category"), np.int64
    yield "pandas ExtensionArray", pd.array(Y, dtype="Int16"), np.int16
    yield "objects that are numbers", Y.astype(object), np.int64
    yield "pandas objects that are numbers", pd.Series(Y, dtype=object), np.int64


def assert_labels(y, *dtypes):
    model = SoftmaxRegression().fit(ROUND, y)
    np.testing.assert_array_equal(model.coef_, MODEL.coef_)
    assert model.classes_.dtype in dtypes
    assert model.score(ROUND, y) == MODEL.score(ROUND, Y)
    assert model.predict(ROUND).dtype == model.classes_.dtype


@pytest.mark.parametrize(
    ("name", "y", "dtype"), list(targets()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_labels_of_any_container(name, y, dtype):
    assert_labels(y, dtype)


def test_labels_in_polars_and_arrow():
    pl = pytest.importorskip("polars")
    words = WORDS[Y]
    for dtype in (pl.String, pl.Categorical, pl.Enum(WORDS.tolist())):
        assert_labels(pl.Series(words).cast(dtype), object, "<U3")  # the last by versions of polars
    assert_labels(pl.Series(Y), np.int64)
    pa = pytest.importorskip("pyarrow")
    assert_labels(pa.chunked_array([words[:50], words[50:]]), object)
    assert_labels(pa.array(Y), np.int64)


def columns_of_labels():
    yield "array", Y[:, None]
    yield "list", [[label] for label in Y.tolist()]
    yield "pandas", pd.DataFrame({"y": Y})
    yield "pandas words", pd.DataFrame({"y": WORDS[Y]})
    yield "pandas category", pd.DataFrame({"y": WORDS[Y]}, dtype="category")


@pytest.mark.parametrize(
    ("name", "y"), list(columns_of_labels()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_one_column_of_labels_is_taken_with_a_warning(name, y):
    with pytest.warns(
        DataConversionWarning, match="A column-vector y was passed when a 1d array was expected"
    ) as caught:
        model = SoftmaxRegression().fit(ROUND, y)
    assert [w.filename for w in caught] == [__file__]
    np.testing.assert_array_equal(model.coef_, MODEL.coef_)


def test_several_columns_of_labels_are_refused():
    for y in (np.column_stack([Y, Y]), pd.DataFrame({"y": Y, "z": WORDS[Y]}), polars({"y": Y, "z": Y})):
        with pytest.raises(ValueError, match=r"y (has shape|is a data frame of 2 columns).*expected one"):
            SoftmaxRegression().fit(ROUND, y)


def test_missing_and_continuous_labels_are_refused():
    for dtype in ("Int64", "string", "category", object, "Float64"):
        y = pd.Series(Y if dtype in ("Int64", "Float64") else WORDS[Y]).astype(dtype)
        y[7] = pd.NA
        with pytest.raises(ValueError, match="y contains a missing value"):
            SoftmaxRegression().fit(ROUND, y)
    for y in (X[:, 0], pd.Series(X[:, 0], dtype="Float64"), X[:, 0].astype(object)):
        with pytest.raises(ValueError, match="A continuous target"):
            SoftmaxRegression().fit(ROUND, y)
    with pytest.raises(ValueError, match="the target y is None"):
        SoftmaxRegression().fit(ROUND, None)


def test_weights_of_any_container():
    weight = np.random.default_rng(0).integers(1, 4, len(Y))
    expected = SoftmaxRegression().fit(ROUND, Y, weight).coef_
    for given in (weight.tolist(), pd.Series(weight, dtype="Int64"), pd.Series(weight, dtype="Float64")):
        np.testing.assert_array_equal(SoftmaxRegression().fit(ROUND, Y, given).coef_, expected)
    given = pytest.importorskip("polars").Series(weight)
    np.testing.assert_array_equal(SoftmaxRegression().fit(ROUND, Y, given).coef_, expected)
    with pytest.raises(ValueError, match="sample_weight contains a missing value"):
        SoftmaxRegression().fit(ROUND, Y, pd.Series([pd.NA, *weight[1:]], dtype="Int64"))
