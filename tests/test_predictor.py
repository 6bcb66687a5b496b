"""The predictor and its file: rows and batches, labels and precision, round trips, files that are not models."""

import pickle
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import twin
from data import overlapping

import csoftmax
from csoftmax import ModelFileError, Predictor, SoftmaxRegression

METHODS = ["predict_proba", "predict_log_proba", "decision_function", "predict"]
DTYPES = [np.float64, np.float32]
LABELS = {
    "int": np.array([-5, 3, 10**15]),
    "int8": np.array([-5, 3, 7], dtype=np.int8),
    "str": np.array(["", "elm", "\N{LATIN SMALL LETTER O WITH DIAERESIS}re \N{SNOWMAN}"]),
    "float": np.array([-1.0, 0.0, 2.0]),
    "bool": np.array([False, True]),
}


def coefficients(n_classes=3, d=4, dtype=np.float64, seed=0):
    """coef and intercept as the estimator has them: one row for two classes."""
    rng = np.random.default_rng(seed)
    rows = 1 if n_classes == 2 else n_classes
    return rng.standard_normal((rows, d)).astype(dtype), rng.standard_normal(rows).astype(dtype)


def inputs(n, d=4, dtype=np.float64):
    return np.random.default_rng(9).standard_normal((n, d)).astype(dtype)


def assert_same_predictor(one, other):
    assert one.dtype == other.dtype
    assert (one.n_features, one.n_classes) == (other.n_features, other.n_classes)
    assert one.classes.dtype.kind == other.classes.dtype.kind
    for name in ("coef", "intercept", "classes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    X = inputs(20, one.n_features, one.dtype)
    for method in METHODS:
        np.testing.assert_array_equal(getattr(one, method)(X), getattr(other, method)(X))


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


# ---- the file ---------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """The path of a model file, and its bytes."""
    path = tmp_path / "model.csoftmax"
    Predictor(*coefficients(), ["a", "b", "c"]).save(path)
    return path, path.read_bytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("labels", LABELS)
def test_a_file_gives_back_the_predictor(tmp_path, labels, dtype):
    classes = LABELS[labels]
    model = Predictor(*coefficients(len(classes), 4, dtype), classes)
    model.save(tmp_path / "model")
    loaded = csoftmax.load(str(tmp_path / "model"))
    assert_same_predictor(loaded, model)
    assert loaded.classes.tolist() == classes.tolist()
    assert loaded.feature_names is None


def test_labels_that_are_objects_come_back_as_text(tmp_path):
    model = Predictor(*coefficients(), np.array(["ash", "elm", "oak"], dtype=object))
    model.save(tmp_path / "model")
    loaded = csoftmax.load(tmp_path / "model")
    assert loaded.classes.tolist() == ["ash", "elm", "oak"]
    np.testing.assert_array_equal(loaded.predict(inputs(20)), model.predict(inputs(20)))


def test_feature_names_are_kept_and_the_path_is_taken_literally(tmp_path):
    names = ["height", "width", "", "\N{SNOWMAN}"]
    Predictor(*coefficients(), feature_names=names).save(str(tmp_path / "model.bin"))
    assert [p.name for p in tmp_path.iterdir()] == ["model.bin"]
    assert list(csoftmax.load(tmp_path / "model.bin").feature_names) == names


def test_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError):
        csoftmax.load(tmp_path / "nothing")
    with pytest.raises(OSError, match="nowhere"):
        Predictor(*coefficients()).save(tmp_path / "nowhere" / "model")


def test_files_of_another_kind_are_refused(tmp_path):
    assert issubclass(ModelFileError, ValueError)
    path = tmp_path / "file"
    for content in (b"", b"\0", b"PK", b"Sepal length, sepal width\n", pickle.dumps(coefficients()), b"\x93NUMPY" * 99):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match="file"):
            csoftmax.load(path)
    np.save(tmp_path / "array.npy", np.ones(3))
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    np.savez(tmp_path / "objects.npz", coef=np.array([{}, None], dtype=object))
    for name in ("array.npy", "arrays.npz", "objects.npz"):
        with pytest.raises(ModelFileError, match=name):
            csoftmax.load(tmp_path / name)


def test_a_pickle_is_never_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (sys.exit, ("the pickle was executed",))

    (tmp_path / "file").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelFileError):
        csoftmax.load(tmp_path / "file")


def test_a_file_cut_anywhere_is_refused(saved):
    path, content = saved
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ModelFileError):
            csoftmax.load(path)


def test_a_file_with_a_wrong_byte_is_refused_or_gives_the_same_model(saved):
    path, content = saved
    expected = csoftmax.load(path)
    rng = np.random.default_rng(7)
    refused = 0
    for position in rng.permutation(len(content))[:400]:
        broken = bytearray(content)
        broken[position] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        try:
            model = csoftmax.load(path)
        except ModelFileError:  # any other exception fails the test
            refused += 1
        else:
            assert_same_predictor(model, expected)
    assert refused > 100


def test_a_file_without_one_of_its_members_is_refused(saved):
    path, _ = saved
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert len(members) >= 3
    for missing in members:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                if name != missing:
                    archive.writestr(name, content)
        with pytest.raises(ModelFileError, match=path.name):
            csoftmax.load(path)


@pytest.mark.parametrize("value", [np.full((3, 4), np.nan), np.zeros((3, 5)), np.zeros(12), np.zeros((3, 4), int)])
def test_a_file_with_weights_that_make_no_model_is_refused(saved, value):
    path, _ = saved
    with np.load(path) as archive:
        members = dict(archive)
    name = next(name for name, member in members.items() if member.shape == (3, 4))
    intercept = next(name for name, member in members.items() if member.shape == (3,) and member.dtype.kind == "f")
    members[name] = value
    if value.shape == (3, 5):
        members[intercept] = np.zeros(4)
    with open(path, "wb") as file:
        np.savez(file, **members)
    with pytest.raises(ModelFileError, match=path.name):
        csoftmax.load(path)


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(saved):
    resource = pytest.importorskip("resource")
    path, content = saved
    large = Predictor(*coefficients(100, 2000))  # 1.6 MB
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # as on a full disk
    try:
        with pytest.raises(OSError, match="large"):
            large.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    large.save(path)
    assert_same_predictor(csoftmax.load(path), large)


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
