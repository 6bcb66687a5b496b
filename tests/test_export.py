"""Models outside Python: ONNX Runtime, and compilers of C and C++, give what the Predictor gives."""

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
from data import DTYPES, LABELS, coefficients, inputs, overlapping

import csoftmax
from csoftmax import Predictor, SoftmaxRegression
from csoftmax.export import to_c, to_onnx

NASTY = [
    'say "no"',
    "back\\slash",
    "two\nlines\r\t",
    "\N{LATIN SMALL LETTER O WITH DIAERESIS}7 \N{SNOWMAN}1 \N{PILE OF POO}",
    "what??!??/??=",
    "*/ /* // %s $name ${name}",
    "",
    "\x01\x7f0",
]

# ---- ONNX ---------------------------------------------------------------------------------------------------------


def onnx_session(model, path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    to_onnx(model, path)
    return runtime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "labels",
    [*LABELS.values(), [3, 4], ["no", "yes"], np.array(NASTY), np.arange(100), [f"class {k}" for k in range(100)]],
    ids=lambda labels: f"{np.asarray(labels).dtype}-{len(labels)}",
)
def test_onnx_runtime_gives_the_same_probabilities_and_labels(tmp_path, labels, dtype):
    model = Predictor(*coefficients(len(labels), 30, dtype), labels)
    session = onnx_session(model, tmp_path / "model.onnx")
    for n in (0, 1, 1000):
        X = inputs(n, 30, dtype)
        label, probabilities = session.run(["label", "probabilities"], {"X": X})
        assert label.shape == (n,)
        assert probabilities.shape == (n, len(labels))
        assert probabilities.dtype == dtype
        tolerance = 1e-12 if dtype == np.float64 else 1e-6
        np.testing.assert_allclose(probabilities, model.predict_proba(X), rtol=0, atol=tolerance)
        assert label.tolist() == model.predict(X).tolist()


def test_onnx_of_data_with_ties_and_scores_that_overflow_exp(tmp_path):
    model = Predictor([[1.0, 0], [1, 0], [0, 1]], np.zeros(3), ["first", "second", "third"])
    session = onnx_session(model, tmp_path / "model.onnx")
    X = np.array([[0.0, 0], [1, 1], [1000, -1000], [-1000, 1000], [0, 1e-300]])
    label, probabilities = session.run(None, {"X": X})
    assert label.tolist() == model.predict(X).tolist() == ["first", "first", "first", "third", "third"]
    np.testing.assert_allclose(probabilities, model.predict_proba(X), rtol=1e-15)


def test_both_probabilities_of_two_classes_keep_their_digits(tmp_path):
    session = onnx_session(Predictor([[1.0]], [0.0]), tmp_path / "model.onnx")
    label, probabilities = session.run(None, {"X": np.array([[-50.0], [0.0], [50.0]])})
    assert label.tolist() == [0, 0, 1]
    small = math.exp(-50)
    np.testing.assert_allclose(probabilities, [[1, small], [0.5, 0.5], [small, 1]], rtol=1e-14)


def test_onnx_has_names_and_versions_and_what_old_runtimes_read(tmp_path):
    onnx = pytest.importorskip("onnx")
    X, y = overlapping()
    names = ["height", "d\N{LATIN SMALL LETTER E WITH ACUTE}bit", 'a "b"', ""]
    fitted = SoftmaxRegression().fit(X, y).predictor()
    report = fitted.training_report
    model = Predictor(
        fitted.coef, fitted.intercept, ["x", "y", "z"], feature_names=names, training_report=report, dtype=np.float32
    )
    path = tmp_path / "folder.onnx" / "model"
    path.parent.mkdir()
    to_onnx(model, str(path))
    assert [file.name for file in path.parent.iterdir()] == ["model"]
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    assert metadata.pop("csoftmax_version") == graph.producer_version == csoftmax.__version__
    expected = {"classes": ["x", "y", "z"], "feature_names": names, "training_report": report}
    assert {key: json.loads(value) for key, value in metadata.items()} == expected
    assert (graph.ir_version, [entry.version for entry in graph.opset_import]) == (7, [13])


def test_a_failed_export_leaves_the_old_file(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    path = tmp_path / "model.onnx"
    to_onnx(Predictor(*coefficients()), path)
    content = path.read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        to_onnx(Predictor(*coefficients(5)), path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_without_onnx_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'csoftmax\[onnx\]'"):
        to_onnx(Predictor(*coefficients()), tmp_path / "model.onnx")


# ---- C ------------------------------------------------------------------------------------------------------------

# Numbers that are hard to write: each shows in the score of one unit vector.
EXTREMES = {
    np.float64: [5e-324, -2.2250738585072011e-308, 1.7976931348623157e308, -0.0, 0.1, 1 / 3, -1e22, 123456789.0],
    np.float32: [1e-45, -1.1754942e-38, 3.4028235e38, -0.0, 0.1, 1 / 3, -1e22, 16777217.0],
}
MODELS = {
    "two": Predictor(*coefficients(2, 30), ["no", "yes"]),
    "bools": Predictor(*coefficients(2, 1, np.float32), [False, True]),
    "few": Predictor(*coefficients(3, 5, np.float32), [-np.inf, 0.1, 2.5e-310]),
    "integers": Predictor(*coefficients(10, 64), [-(2**63), 2**63 - 1, *range(8)]),
    "nasty": Predictor(*coefficients(8, 7, np.float32), NASTY, feature_names=[text + " 1" for text in NASTY[:7]]),
    "many_classes": Predictor(*coefficients(101, 33), np.arange(101, dtype=np.uint64) + np.uint64(2**63)),
    "extremes": Predictor([EXTREMES[np.float64]] * 3, np.zeros(3)),
    "extremes32": Predictor([EXTREMES[np.float32]] * 3, np.zeros(3), dtype=np.float32),
}

# ./check NAME: labels and names of features, one in a line, then for each row of standard input one of the results.
PRELUDE = """
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static void text(const char *label) { for (; *label; label++) printf("%02x", (unsigned char)*label); }
static void boolean(bool label) { printf("%d", label); }
static void integer(int64_t label) { printf("%" PRId64, label); }
static void natural(uint64_t label) { printf("%" PRIu64, label); }
static void real(double label) { printf("%.17g", label); }
"""
CHECK = """
#include "NAME.h"
static void run_NAME(void)
{
    enum { D = NAME_n_features, K = NAME_n_classes };
    REAL x[D], scores[K], p[K], top_p[K];
    int top[K];
    for (int k = 0; k < K; k++) { SHOW(NAME_labels[k]); printf("\\n"); }
    FEATURES
    for (;;) {
        for (int j = 0; j < D; j++) { double v; if (scanf("%lf", &v) != 1) return; x[j] = (REAL)v; }
        NAME_scores(x, scores);
        memset(p, 0, sizeof p), memset(top, 0, sizeof top), memset(top_p, 0, sizeof top_p);
        printf("%d %d %d", NAME_class(x), NAME_probabilities(x, p), NAME_top_k(x, K - 1, top, top_p));
        printf(" %d %d", NAME_top_k(x, 0, NULL, NULL), NAME_top_k(x, K + 1, NULL, NULL));
        for (int k = 0; k < K; k++) printf(" %.17g %.17g %d %.17g", scores[k], p[k], top[k], top_p[k]);
        printf("\\n");
    }
}
"""
SHOW = {"U": "text", "b": "boolean", "i": "integer", "u": "natural", "f": "real"}
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
COMPILERS = {
    "gcc": ["-std=c99", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "clang": ["-std=c99", "-O3"],
    "g++": ["-O2", "-x", "c++"],
    "clang++": ["-O1", "-std=c++11", "-x", "c++"],
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    program, calls = PRELUDE, ""
    for name, model in MODELS.items():
        to_c(model, folder / name, name)
        check = CHECK.replace("SHOW", SHOW[model.classes.dtype.kind]).replace("FEATURES", names_of(model))
        program += check.replace("NAME", name).replace("REAL", "float" if model.dtype == np.float32 else "double")
        calls += f'    if (!strcmp(argv[1], "{name}")) run_{name}();\n'
    (folder / "check.c").write_text(f"{program}int main(int argc, char **argv)\n{{\n{calls}    return argc != 2;\n}}\n")
    return folder


def names_of(model):
    if model.feature_names is None:
        return ""
    return 'for (int j = 0; j < D; j++) { text(NAME_features[j]); printf("\\n"); }'


@pytest.fixture(scope="module", params=COMPILERS)
def check(request, sources):
    """The program that runs every model, by each compiler."""
    compiler, options = request.param, COMPILERS[request.param]
    if sys.platform == "win32" or not shutil.which(compiler):
        pytest.skip(f"no {compiler} for these options")
    if "-fsanitize=address,undefined" in options:
        library = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True).stdout
        if "/" not in library:
            pytest.skip(f"no sanitizer for {compiler}")
    program = sources / f"check-{compiler}"
    files = [file for name in MODELS for file in (f"-I{name}", f"{name}/{name}.c")]
    subprocess.run([compiler, *STRICT, *options, "check.c", *files, "-o", program, "-lm"], cwd=sources, check=True)
    return program


def results(check, name, X):
    """Labels and names as the program shows them, and its results for the rows of X: one array of numbers each."""
    model, rows = MODELS[name], "\n".join(" ".join(map(repr, row)) for row in X.tolist())
    environment = {"ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([check, name], input=rows, capture_output=True, text=True, env=environment, check=True)
    lines = done.stdout.splitlines()
    n_tables = model.n_classes + len(model.feature_names or ())
    numbers = np.array([line.split() for line in lines[n_tables:]], float).reshape(len(X), -1)
    states, values = numbers[:, :5], numbers[:, 5:].reshape(len(X), -1, 4)
    return lines[:n_tables], states.astype(int), *np.moveaxis(values, 2, 0)


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("extremes")])
def test_c_gives_what_the_predictor_gives_up_to_rounding(check, name):
    model = MODELS[name]
    d, n_classes, eps = model.n_features, model.n_classes, np.finfo(model.dtype).eps
    X = inputs(50, d, model.dtype)
    _, states, scores, probabilities, order, ordered = results(check, name, X)
    expected = model.decision_function(X)
    if n_classes == 2:
        assert not scores[:, 0].any()
        scores, expected = scores[:, 1:], expected[:, None]
    # Each of the two sums is at most half of this away from the exact one.
    bound = 2 * (d + 2) * eps * (abs(X) @ abs(model.coef.T) + abs(model.intercept)).astype(float)
    assert (abs(scores - expected) <= bound).all()
    relative = 2 * bound.max(axis=1, keepdims=True) + (n_classes + 2 * abs(scores).max() + 8) * eps
    expected = model.predict_proba(X)
    assert (abs(probabilities - expected) <= relative * expected).all()
    assert (abs(np.sort(probabilities)[:, -1] - np.sort(probabilities)[:, -2]) > 1e-6).all()  # so that ties are none
    assert model.classes[states[:, 0]].tolist() == model.predict(X).tolist()
    assert (states[:, 1:] == [0, 0, -1, -1]).all()
    k = max(n_classes - 1, 1)
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    assert (order[:, :k] == best).all()
    assert (ordered[:, :k] == np.take_along_axis(probabilities, best, axis=1)).all()


@pytest.mark.parametrize("name", ["two", "few"])
def test_c_refuses_what_is_not_finite_and_takes_what_is_large(check, name):
    model = MODELS[name]
    X = np.zeros((5, model.n_features))
    X[[0, 1, 2], [0, 1, -1]] = np.nan, np.inf, -np.inf
    X[3] = 1000 * np.sign(model.coef[-1])
    states, _, probabilities = results(check, name, X)[1:4]
    assert (states[:3] == -1).all()
    np.testing.assert_allclose(probabilities[3:], model.predict_proba(X[3:]), rtol=1e-6)
    assert states[3].tolist() == [model.n_classes - 1, 0, 0, -1, -1]


def test_c_gives_the_first_of_equal_classes(check):
    states, scores, _, order, _ = results(check, "extremes", np.eye(8)[4:5])[1:]
    assert (scores == 0.1).all()
    assert states[0, 0] == 0
    assert order[0, :2].tolist() == [0, 1]


@pytest.mark.parametrize("name", ["extremes", "extremes32"])
def test_coefficients_are_read_back_exactly(check, name):
    scores = results(check, name, np.eye(8))[2]
    np.testing.assert_array_equal(scores, MODELS[name].coef.T)


@pytest.mark.parametrize("name", MODELS)
def test_labels_and_names_are_what_they_were(check, name):
    model = MODELS[name]
    shown, labels = results(check, name, np.zeros((1, model.n_features)))[0], model.classes.tolist()
    if model.classes.dtype.kind == "U":
        read = [bytes.fromhex(text).decode() for text in shown]
        assert read == [*labels, *(model.feature_names or ())]
    else:
        read = [
            float(text) if isinstance(label, float) else int(text) for label, text in zip(labels, shown, strict=True)
        ]
        assert read == labels


def test_c_calls_nothing_but_exp_and_keeps_nothing(sources):
    if sys.platform != "linux" or not all(map(shutil.which, ("cc", "nm"))):
        pytest.skip("no cc or no nm")
    subprocess.run(["cc", "-std=c99", "-O1", "-c", "integers/integers.c"], cwd=sources, check=True)
    done = subprocess.run(["nm", "-P", "integers.o"], cwd=sources, capture_output=True, text=True, check=True)
    symbols = [line.split()[:2] for line in done.stdout.splitlines()]
    assert {kind for _, kind in symbols} <= set("TtRrU")  # code and constants, no data
    # Names that begin with an underscore are the compiler's own.
    assert [name for name, kind in symbols if kind == "U" and name[0] != "_"] == ["exp"]
    assert {name for name, kind in symbols if kind in "TR"} == {
        f"integers_{name}" for name in ("labels", "scores", "probabilities", "class", "top_k")
    }


def test_the_example_is_built_and_run(sources):
    if sys.platform == "win32" or not all(map(shutil.which, ("make", "cc"))):
        pytest.skip("no make or no cc")
    examples = [f"{name}/main.c" for name in MODELS]
    subprocess.run(["cc", "-std=c99", *STRICT, "-fsyntax-only", *examples], cwd=sources, check=True)
    folder, model, X = sources / "few", MODELS["few"], inputs(3, 5, np.float32)
    subprocess.run(["make", "-s"], cwd=folder, check=True)

    def example(text):
        return subprocess.run([folder / "main"], input=text, capture_output=True, text=True)

    done = example("\n".join(", ".join(map(str, row)) for row in X.tolist()))
    assert (done.returncode, done.stderr) == (0, "")
    values = np.array([line.split() for line in done.stdout.splitlines()], float)
    assert values[:, 0].tolist() == model.predict(X).tolist()
    np.testing.assert_allclose(values[:, 1:], model.predict_proba(X), rtol=1e-5)
    assert example("").stdout == ""
    for text, message in (("1 2 3", "rows of 5"), ("1 2 x 4 5", "rows of 5"), ("1 2 nan 4 5", "NaN")):
        done = example(text)
        assert done.returncode == 1
        assert message in done.stderr


def test_a_model_is_replaced_and_what_may_be_edited_is_not(tmp_path):
    folder = tmp_path / "a" / "b"
    to_c(Predictor(*coefficients()), str(folder), "trees")
    assert sorted(file.name for file in folder.iterdir()) == ["Makefile", "main.c", "trees.c", "trees.h"]
    before = {file.name: file.read_text() for file in folder.iterdir()}
    for name in ("Makefile", "main.c"):
        (folder / name).write_text("mine")
    to_c(Predictor(*coefficients(5)), folder, "trees")
    assert (folder / "Makefile").read_text() == (folder / "main.c").read_text() == "mine"
    assert "trees_n_classes = 5" in (folder / "trees.h").read_text()
    assert (folder / "trees.c").read_text() != before["trees.c"]
    assert len(list(folder.iterdir())) == 4


# ---- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1st",
        "a-b",
        "a b",
        "_a",
        "a_",
        "a__b",
        "Int",
        "int",
        "class",
        "math",
        "main",
        "MAIN",
        "\xe9t\xe9",
        "a\n",
        "a/b",
    ],
)
def test_names_that_c_cannot_have(tmp_path, name):
    with pytest.raises(ValueError, match="name="):
        to_c(Predictor(*coefficients()), tmp_path / "folder", name)
    assert not (tmp_path / "folder").exists()


def test_a_name_that_is_not_text(tmp_path):
    with pytest.raises(TypeError, match="name is a NoneType"):
        to_c(Predictor(*coefficients()), tmp_path, None)


@pytest.mark.parametrize(
    ("labels", "kind", "match"),
    [
        (["a", "lone \ud800"], ValueError, "UTF-8"),
        ([b"a", b"b"], TypeError, "dtype"),
        (np.array([1, 2**64], dtype=object), TypeError, "dtype"),
        (np.array(["2020-01-01", "2021-01-01"], dtype="M8[D]"), TypeError, "dtype"),
    ],
    ids=["surrogate", "bytes", "large", "dates"],
)
def test_labels_that_no_export_can_hold(tmp_path, labels, kind, match):
    model = Predictor(*coefficients(2), labels)
    with pytest.raises(kind, match=match):
        to_c(model, tmp_path, "model")
    with pytest.raises(kind, match=match):
        to_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_text_that_ends_early_in_c(tmp_path):
    for arguments in ({"classes": ["a\0b", "a"]}, {"feature_names": ["a\0b", "b", "c", "d"]}):
        with pytest.raises(ValueError, match="NUL"):
            to_c(Predictor(*coefficients(2), **arguments), tmp_path, "model")
    assert not list(tmp_path.iterdir())


def test_an_estimator_in_place_of_its_predictor(tmp_path):
    model = SoftmaxRegression().fit(*overlapping())
    with pytest.raises(TypeError, match=r"SoftmaxRegression.*\.predictor\(\)"):
        to_c(model, tmp_path, "model")
    with pytest.raises(TypeError, match=r"SoftmaxRegression.*\.predictor\(\)"):
        to_onnx(model, tmp_path / "model.onnx")
