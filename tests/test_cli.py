"""The command line, end to end: as a process, or through main(arguments) where that shows the same."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from data import coefficients, inputs, overlapping

from csoftmax import Predictor, SoftmaxRegression, SoftmaxRegressionCV, cli, load

NAMES = ["height", 'the "width", cm', "depth\n(max)", "Länge"]
SPECIES = np.array(["ash", "elm, young", 'oak "red"'])
PROGRAM = [sys.executable, "-P", "-m", "csoftmax"]


@pytest.fixture
def extra():
    """Skip where the packages of csoftmax[cli] are missing."""
    for name in ("pyarrow", "sklearn", "tqdm"):
        pytest.importorskip(name)


@pytest.fixture
def call(capsys):
    """Run main with these arguments, and the standard input if given; (exit code, standard output, standard error)."""

    def run(*arguments, stdin=None, monkeypatch=None):
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_csv(path, names, columns, **dialect):
    """By Python's own writer, numbers in as many digits as they have."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, **dialect)
        if names is not None:
            writer.writerow(names)
        writer.writerows(zip(*(np.asarray(column).tolist() for column in columns), strict=True))


def read_csv(text, **dialect):
    """Header, labels as text and probabilities."""
    header, *rows = csv.reader(io.StringIO(text), **dialect)
    return header, [row[0] for row in rows], np.array([list(map(float, row[1:])) for row in rows])


def saved(path, classes=("a", "b", "c"), names=("x", "y"), dtype=np.float64):
    """A model file without training, and its Predictor."""
    d = 4 if names is None else len(names)
    model = Predictor(*coefficients(len(classes), d, dtype), np.array(classes), feature_names=names)
    model.save(path)
    return model


def assert_predictions(model, X, labels, probabilities):
    """Digit for digit, as the command predicts the same batch."""
    assert list(labels) == [str(label) for label in model.predict(X)]
    np.testing.assert_array_equal(np.asarray(probabilities, model.dtype), model.predict_proba(X))


# ---- end to end -----------------------------------------------------------------------------------------------------


def test_from_a_csv_to_predictions(here, extra):
    X, codes = overlapping(120)
    notes = ['of "two"\nlines', "", "plain"] * 40
    write_csv("trees.csv", ["notes", *NAMES, "species"], [notes, *X.T, SPECIES[codes]])
    command = [*PROGRAM, "fit", "trees.csv", "--target", "species", "--drop", "notes", "-o", "trees.model", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    told = json.loads(done.stdout)

    model = load("trees.model")
    expected = SoftmaxRegression().fit(X, SPECIES[codes])
    np.testing.assert_array_equal(model.coef, expected.coef_)
    np.testing.assert_array_equal(model.intercept, expected.intercept_)
    assert model.feature_names == tuple(NAMES)
    assert model.classes.tolist() == told["classes"] == SPECIES.tolist()
    assert model.training_report["held_out"] == told["held_out"]
    assert (told["rows"], told["held_out"]["rows"], told["converged"]) == (120, 24, True)

    # Columns in another order, and one more; from a pipe into a pipe.
    X = inputs(50)
    write_csv("new.csv", [NAMES[2], "id", *NAMES[:2], NAMES[3]], [X[:, 2], range(50), X[:, 0], X[:, 1], X[:, 3]])
    with open("new.csv", "rb") as file:
        command = [*PROGRAM, "predict", "trees.model", "-"]
        done = subprocess.run(command, stdin=file, capture_output=True, encoding="utf-8", check=True)
    assert done.stderr == "csoftmax: standard input: ignored columns that the model does not have: 'id'\n"
    header, labels, probabilities = read_csv(done.stdout)
    assert header == ["label", *(f"p_{species}" for species in SPECIES)]
    assert_predictions(model, X, labels, probabilities)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("end", "delimiter", "options"),
    [("csv", ",", []), ("tsv", "\t", []), ("txt", ";", ["--format", "csv", "--delimiter", ";"])],
)
def test_text(here, extra, call, end, delimiter, options, dtype):
    X, y = overlapping(60)
    single = ["--float32"] if dtype == np.float32 else []
    write_csv(f"data.{end}", ["a", "b", "c", "d", "y"], [*X.T, y], delimiter=delimiter)
    code, out, err = call("fit", f"data.{end}", "--target", "y", "-o", "model", *options, *single)
    assert (code, err) == (0, "")
    assert "fitted to all 60 rows with C=1" in out
    model = load("model")
    np.testing.assert_array_equal(model.coef, SoftmaxRegression().fit(X.astype(dtype), y).coef_)
    assert (model.dtype, model.classes.tolist()) == (dtype, [0, 1, 2])
    written = "out.tsv" if end == "tsv" else "out.csv"
    assert call("predict", "model", f"data.{end}", "--drop", "y", "-o", written, *options)[0] == 0
    text = (here / written).read_text()
    assert_predictions(model, X.astype(dtype), *read_csv(text, delimiter="\t" if end == "tsv" else ",")[1:])


@pytest.mark.parametrize("end", ["parquet", "arrow", "arrows"])
def test_parquet_and_arrow(here, extra, call, end):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write(path, table):
        if end == "parquet":
            parquet.write_table(table, path, row_group_size=17)
            return
        kind = pa.ipc.new_stream if end == "arrows" else pa.ipc.new_file
        with kind(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=17)

    X, codes = overlapping(60)
    X[:, 0], X[:, 1], X[:, 2] = np.round(9 * X[:, 0]), X[:, 1] > 0, X[:, 2].astype(np.float32)
    columns = {
        "whole": pa.array(X[:, 0].astype(np.int16)),
        "flag": pa.array(X[:, 1] > 0),
        "single": pa.array(X[:, 2].astype(np.float32)),
        "text": pa.array(["x"] * 60),
        "double": pa.array(X[:, 3]),
        "species": pa.array(SPECIES[codes]).dictionary_encode(),
    }
    write(f"data.{end}", pa.table(columns))
    assert call("fit", f"data.{end}", "--target", "species", "--drop", "text", "-o", "model")[0] == 0
    model = load("model")
    np.testing.assert_array_equal(model.coef, SoftmaxRegression().fit(X, SPECIES[codes]).coef_)
    assert model.feature_names == ("whole", "flag", "single", "double")
    write(f"new.{end}", pa.table(dict(reversed(columns.items()))))
    out = "out.arrow" if end == "arrows" else f"out.{end}"
    assert call("predict", "model", f"new.{end}", "-o", out)[0] == 0
    found = parquet.read_table(out) if end == "parquet" else pa.ipc.open_file(out).read_all()
    assert found.column_names == ["label", *(f"p_{species}" for species in SPECIES)]
    probabilities = np.column_stack([found.column(1 + k).to_numpy() for k in range(3)])
    assert found["label"].to_pylist() == model.predict(X).tolist()
    np.testing.assert_allclose(probabilities, model.predict_proba(X), rtol=0, atol=1e-15)  # batches of 17 rows


def test_svmlight(here, extra, call, monkeypatch):
    X, y = overlapping(80)
    X[np.random.default_rng(1).random(X.shape) < 0.5] = 0
    entries = [[f"{j + 1}:{value!r}" for j, value in enumerate(row) if value] for row in X.tolist()]
    lines = [" ".join([str(2 * label - 1), *row]) for label, row in zip(y, entries, strict=True)]
    (here / "data.svm").write_text("# counted from 1\n" + "\n".join(lines) + "\n")
    assert call("fit", "data.svm", "-o", "model")[0] == 0
    model = load("model")
    shifted = np.column_stack([np.zeros(80), X])  # index 0, which no row has
    np.testing.assert_allclose(model.coef, SoftmaxRegression().fit(shifted, y).coef_, atol=1e-4)
    assert not model.coef[:, 0].any()
    assert (model.classes.tolist(), model.classes.dtype.kind, model.feature_names) == ([-1, 1, 3], "i", None)
    monkeypatch.setattr("csoftmax._commands.tables.BLOCK", 300)
    code, out, _ = call("predict", "model", "data.svm")
    _, labels, probabilities = read_csv(out)
    assert code == 0
    assert labels == [str(label) for label in model.predict(shifted)]
    np.testing.assert_allclose(probabilities, model.predict_proba(shifted), rtol=0, atol=1e-14)


def test_without_a_header(here, extra, call):
    X, y = overlapping(60)
    write_csv("data.csv", None, [*X.T, y])
    assert call("fit", "data.csv", "--no-header", "--target", "f4", "-o", "model")[0] == 0
    model = load("model")
    np.testing.assert_array_equal(model.coef, SoftmaxRegression().fit(X, y).coef_)
    assert model.feature_names == ("f0", "f1", "f2", "f3")
    write_csv("new.csv", None, X.T)
    assert_predictions(model, X, *read_csv(call("predict", "model", "new.csv", "--no-header")[1])[1:])


def test_a_model_without_names_takes_columns_in_order(here, extra, call):
    model, X = saved("model", names=None), inputs(9)
    write_csv("data.csv", ["id", "q", "p", "s", "r"], [range(9), *X.T])
    assert_predictions(model, X, *read_csv(call("predict", "model", "data.csv", "--drop", "id")[1])[1:])
    code, _, err = call("predict", "model", "data.csv")
    assert code == 1
    assert "5 columns, 'id', 'q', 'p', 's', 'r', and the model has 4 features without names" in err


# ---- what text holds ------------------------------------------------------------------------------------------------


def test_numbers_as_people_write_them(here, extra, call):
    model = saved("model")
    text = '\ufeffx,y\r\n1e5,"2"\r\n\r\n 1 ,\t-.5\r\n+0,1E-3\r\n'
    (here / "data.csv").write_bytes(text.encode())
    X = np.array([[1e5, 2], [1, -0.5], [0, 1e-3]])
    assert_predictions(model, X, *read_csv(call("predict", "model", "data.csv")[1])[1:])
    (here / "bare.csv").write_bytes(text.replace("x,y\r\n", "").encode())
    saved("f", names=("f0", "f1"))
    assert_predictions(model, X, *read_csv(call("predict", "f", "bare.csv", "--no-header")[1])[1:])


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_blocks_end_where_records_do(here, extra, call, monkeypatch, size):
    rng = np.random.default_rng(size)
    notes = rng.choice(['a "quoted"\nline', "\n\n\n", '""', "plain", "", "two\r\nlines,"], 80)
    X = inputs(80, 2)
    write_csv("data.csv", ["x", "notes", "y"], [X[:, 0], notes, X[:, 1]])
    model = saved("model")
    monkeypatch.setattr("csoftmax._commands.tables.BLOCK", size)
    code, out, _ = call("predict", "model", "data.csv")
    _, labels, probabilities = read_csv(out)
    assert code == 0
    assert labels == model.predict(X).tolist()
    np.testing.assert_allclose(probabilities, model.predict_proba(X), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("written", "classes"),
    [
        (["-1", "3", "12"], [-1, 3, 12]),
        (["1.0", "2", "3"], [1.0, 2.0, 3.0]),
        (["true", "False", "true"], [False, True]),
        (["007", "08", "9"], ["007", "08", "9"]),
        (["1", "true", "0"], ["0", "1", "true"]),
        (['"NA"', "none", "é"], ["NA", "none", "é"]),
        ([" a", "a", "b"], [" a", "a", "b"]),
    ],
)
def test_labels_keep_their_type(here, extra, call, written, classes):
    X = inputs(30, 2)
    rows = [f"{x!r},{y!r},{written[i % 3]}" for i, (x, y) in enumerate(X.tolist())]
    (here / "data.csv").write_text("x,y,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    assert call("fit", "data.csv", "--target", "label", "-o", "model")[0] == 0
    model = load("model")
    assert model.classes.tolist() == classes
    assert {type(label) for label in model.classes.tolist()} == {type(classes[0])}
    _, labels, _ = read_csv(call("predict", "model", "data.csv")[1])
    assert [label.lower() for label in labels] == [str(label).lower().removesuffix(".0") for label in model.predict(X)]


# ---- the report of fit ----------------------------------------------------------------------------------------------


def test_what_is_held_out_is_measured(here, extra, call):
    X, y = overlapping(200, n_classes=4)
    write_csv("data.csv", ["a", "b", "c", "d", "y"], [*X.T, y])
    fit = ("fit", "data.csv", "--target", "y", "-o", "model", "--held-out", "0.25")
    told = json.loads(call(*fit, "--json")[1])["held_out"]
    assert json.loads(call(*fit, "--json")[1])["held_out"] == told
    # About as many of each class as there should be, and numbers that agree with each other.
    rows = np.array([entry["rows"] for entry in told["classes"]])
    assert told["rows"] == rows.sum() == 50
    np.testing.assert_allclose(rows, np.bincount(y) / 4, atol=1)
    recall, precision = (np.array([entry[name] for entry in told["classes"]]) for name in ("recall", "precision"))
    assert told["accuracy"] == pytest.approx(recall @ rows / 50)
    assert (recall * rows / precision).sum() == pytest.approx(50)
    assert told["accuracy_of_commonest_class"] == rows.max() / 50
    # A model of all rows has seen them, and would do better; one that knows nothing, worse.
    assert -np.log(load("model").predict_proba(X)[np.arange(200), y]).mean() < told["log_loss"] < np.log(4)
    assert f"accuracy {told['accuracy']:.4f}" in call(*fit)[1]
    assert f"log loss {told['log_loss']:.4f}" in call("info", "model")[1]


def test_cross_validation_chooses_the_penalty(here, extra, call):
    X, y = overlapping(150)
    write_csv("data.csv", ["a", "b", "c", "d", "y"], [*X.T, y])
    options = ("--cv", "3", "--held-out", "0", "--l1-ratio", "0.5", "--balanced")
    told = json.loads(call("fit", "data.csv", "--target", "y", "-o", "model", "--json", *options)[1])
    expected = SoftmaxRegressionCV(cv=3, l1_ratios=[0.5], scoring="neg_log_loss", class_weight="balanced").fit(X, y)
    assert (told["C"], told["held_out"]) == (expected.C_, None)
    np.testing.assert_array_equal(load("model").coef, expected.coef_)
    # With rows held out, C is chosen on the others, and kept for all rows.
    told = json.loads(call("fit", "data.csv", "--target", "y", "-o", "model", "--json", "--cv", "3")[1])
    np.testing.assert_array_equal(load("model").coef, SoftmaxRegression(C=told["C"]).fit(X, y).coef_)


@pytest.mark.filterwarnings("default")
def test_a_fit_that_does_not_converge_says_so(here, extra, call):
    write_csv("data.csv", ["a", "y"], [[0.0, 1.0, 2.0, 3.0] * 5, [0, 0, 1, 1] * 5])
    code, _, err = call("fit", "data.csv", "--target", "y", "-o", "model", "--C", "inf")
    assert code == 0
    assert err.startswith("csoftmax: warning: solver 'auto' found the classes separable")


# ---- errors ---------------------------------------------------------------------------------------------------------


def fit(data, *options):
    return "fit", data, "--target", "kind", "-o", "new", *options


DATA = "id,x,y,kind\n1,0.5,2,a\n2,,3,b\n3,abc,inf,a\n4,1,2,b\n"
FIT = fit("data.csv")
PREDICT = ("predict", "model", "data.csv", "--drop", "id", "--drop", "kind", "-o", "new.csv")
FAILURES = {
    "no such file": (fit("none.csv"), "none.csv: No such file or directory"),
    "no such model": (("predict", "none", "data.csv"), "none: No such file or directory"),
    "not a model": (("info", "data.csv"), "data.csv is not a csoftmax model, or is damaged"),
    "format": (fit("data.xlsx"), "data.xlsx: cannot tell the format, expected a name that ends with .csv"),
    "format of the output": (("predict", "model", "data.csv", "-o", "new.xlsx"), "new.xlsx: cannot tell the format"),
    "folder of the model": (("fit", "data.csv", "--target", "kind", "-o", "no/new"), "no/new cannot be written: "),
    "folder of the output": (
        ("predict", "model", "good.csv", "--drop", "kind", "-o", "no/new.csv"),
        "no/new.csv cannot be written: ",
    ),
    "target": (
        (*FIT[:3], "kins", "-o", "new"),
        "data.csv: no column 'kins' (is it 'kind'?); there are 'id', 'x', 'y', 'kind'",
    ),
    "column to drop": ((*FIT, "--drop", "z"), "data.csv: no column 'z'; there are 'id', 'x', 'y', 'kind'"),
    "columns that are not numbers": (
        FIT,
        "data.csv: something else than finite numbers in the columns 'x' (no value in data row 2), 'y' ('inf' in data "
        "row 3); complete them, or leave the columns out with --drop x --drop y",
    ),
    "text among numbers": (
        ("fit", "good.csv", "--target", "x", "-o", "new"),
        "good.csv: something else than finite numbers in the columns 'kind' ('a' in data row 1)",
    ),
    "no value of the target": (
        ("fit", "data.csv", "--target", "x", "--drop", "y", "--drop", "kind", "-o", "new"),
        "data.csv: the target 'x' has no value in data row 2",
    ),
    "continuous target": (
        ("fit", "good.csv", "--target", "y", "--drop", "kind", "-o", "new"),
        "good.csv: the target 'y' is 2.5 in data row 2: expected classes",
    ),
    "a row for each class": (
        ("fit", "good.csv", "--target", "x", "--drop", "kind", "-o", "new"),
        "a share of 0.2 of every class cannot be held out (",
    ),
    "one class": (fit("one.csv"), "all rows to train on are of one class, a"),
    "few rows to cross-validate": (
        fit("good.csv", "--cv", "3", "--held-out", "0"),
        "class a has 2 rows to train on, and --cv 3 needs one for each fold",
    ),
    "no column is left": (fit("one.csv", "--drop", "x"), "no column to learn from"),
    "a column twice": (fit("twice.csv"), "twice.csv: the column 'x' occurs twice"),
    "no header": (fit("bare.csv"), "if the first line holds data, pass --no-header"),
    "empty": (fit("empty.csv"), "empty.csv: the file is empty"),
    "no rows": (fit("header.csv"), "header.csv: there are no rows"),
    "ragged": (fit("ragged.csv"), "ragged.csv: data row 2 has 3 in place of 2 fields: '2,b,'"),
    "open quotation": (fit("quote.csv"), "quote.csv: a quotation mark is not closed"),
    "not UTF-8": (fit("latin.csv"), "latin.csv: after data row 0: "),
    "header not UTF-8": (fit("latin1.csv"), "latin1.csv: 'utf-8' codec can't decode"),
    "not Parquet": (fit("data.parquet"), "data.parquet: Parquet magic bytes not found"),
    "not Arrow": (fit("data.arrow"), "data.arrow: "),
    "not svmlight": (("fit", "data.svm", "-o", "new"), "data.svm: "),
    "Parquet in a pipe": (
        ("predict", "model", "-", "--format", "parquet"),
        "standard input: Parquet cannot be read from a pipe",
    ),
    "a feature without values": (
        PREDICT,
        "data.csv: something else than finite numbers in the columns 'x' (no value in data row 2), 'y' ('inf' in data "
        "row 3); the model needs a number in each",
    ),
    "a feature renamed": (("predict", "other", "good.csv"), "good.csv: no column 'kinds' (is it 'kind'?); there are"),
    "svmlight for names": (("predict", "model", "data.svm"), "columns of svmlight have no names"),
}
USAGE = {
    "no command": ((), "the following arguments are required: COMMAND"),
    "an unknown command": (("train",), "argument COMMAND: invalid choice: 'train'"),
    "an unknown option": ((*FIT, "--deep"), "unrecognized arguments: --deep"),
    "no model": (("fit", "data.csv", "--target", "kind"), "the following arguments are required: -o/--output"),
    "no target": (("fit", "data.csv", "-o", "new"), "fit needs --target COLUMN"),
    "C": ((*FIT, "--C", "-1"), "argument --C: expected a number above 0, or inf, not '-1'"),
    "C and folds": ((*FIT, "--C", "1", "--cv", "5"), "argument --cv: not allowed with argument --C"),
    "folds": ((*FIT, "--cv", "1"), "argument --cv: expected a whole number of at least 2, not '1'"),
    "share": ((*FIT, "--held-out", "a"), "argument --held-out: expected a number from 0 to 1, not 'a'"),
    "delimiter": ((*FIT, "--delimiter", "ab"), "argument --delimiter: expected one character, not 'ab'"),
    "names of svmlight": (("fit", "data.svm", "--target", "x", "-o", "new"), "leave out --target and --drop"),
    "columns of svmlight": (("predict", "bare", "data.svm", "--drop", "x"), "leave out --drop"),
    "two outputs in one": (("predict", "model", "data.csv", "--json"), "--json needs -o OUT"),
    "export to nothing": (("export", "model"), "export needs --onnx FILE or --c DIRECTORY"),
}


@pytest.fixture
def files(here):
    """What the failures are about."""
    saved("model")
    saved("other", names=("x", "kinds"))
    saved("bare", names=None)
    texts = {
        "data.csv": DATA,
        "good.csv": "x,y,kind\n1,2,a\n2,2.5,a\n3,2,b\n4,4,b\n5,5,b\n",
        "one.csv": "x,kind\n" + "1,a\n" * 9,
        "twice.csv": "x,x,kind\n1,2,a\n",
        "bare.csv": "1.5,2,a\n3,4,b\n",
        "empty.csv": "\n\n",
        "header.csv": "x,kind\n",
        "ragged.csv": "x,kind\n1,a\n2,b,\n",
        "quote.csv": 'x,kind\n1,a\n2,"b\n3,c\n',
        "data.parquet": "this is none",
        "data.arrow": "this is none",
        "data.svm": "a 1:2\n",
    }
    for name, text in texts.items():
        (here / name).write_text(text)
    (here / "latin.csv").write_bytes("x,kind\n1,é\n".encode("latin-1"))
    (here / "latin1.csv").write_bytes("é,kind\n1,a\n".encode("latin-1"))
    (here / "folder").mkdir()
    return set(os.listdir())


@pytest.mark.parametrize("name", FAILURES)
def test_work_that_fails(files, extra, call, name):
    arguments, sentence = FAILURES[name]
    code, out, err = call(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("csoftmax: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert set(os.listdir()) == files


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage(files, extra, call, name):
    arguments, sentence = USAGE[name]
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("csoftmax: ")
    assert sentence in err
    assert err.rstrip().endswith("--help)")
    assert err.count("\n") == 1
    assert set(os.listdir()) == files


def test_a_value_far_into_the_file(here, extra, call, monkeypatch):
    rows = [f"{i},{i}" for i in range(5000)]
    rows[4321] = "4321,12 cm"
    (here / "data.csv").write_text("x,y\n\n" + "\n".join(rows))
    saved("model")
    (here / "out.csv").write_text("as before")
    monkeypatch.setattr("csoftmax._commands.tables.BLOCK", 1000)
    code, _, err = call("predict", "model", "data.csv", "-o", "out.csv")
    assert code == 1
    assert "'y' ('12 cm' in data row 4322)" in err
    assert (here / "out.csv").read_text() == "as before"
    assert len(os.listdir()) == 3


def test_what_is_not_installed_is_named(here, extra):
    saved("model")
    code = """
import sys
from csoftmax.cli import main
for missing in "pyarrow", "tqdm", "sklearn":
    sys.modules[missing] = None
    print(main("fit a.csv --target y -o new".split() if missing == "sklearn" else "predict model a.csv".split()))
    del sys.modules[missing]
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "1"]
    expected = [
        f"csoftmax: this needs {name}: pip install 'csoftmax[cli]'" for name in ("PyArrow", "tqdm", "scikit-learn")
    ]
    assert done.stderr.splitlines() == expected


# ---- pipes and signals ----------------------------------------------------------------------------------------------


def test_predictions_come_as_rows_arrive_and_nobody_need_read_them(here, extra):
    model = saved("model")
    with subprocess.Popen(
        [*PROGRAM, "predict", "model", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdin.write(b"x,y\n1,2\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"label,p_a,p_b,p_c\n"
        label, *probabilities = process.stdout.readline().decode().strip().split(",")
        assert_predictions(model, np.array([[1.0, 2.0]]), [label], [list(map(float, probabilities))])
        process.stdout.close()
        process.stdin.write(b"3,4\n")
        process.stdin.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


@pytest.mark.skipif(sys.platform == "win32", reason="no signals between processes")
def test_an_interrupt_leaves_what_was_there(here, extra):
    saved("model")
    (here / "out.csv").write_text("as before")
    command = [*PROGRAM, "predict", "model", "-", "-o", "out.csv"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(b"x,y\n" + b"1,2\n" * 50_000)
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not any(path.name.startswith(".csoftmax-") and path.stat().st_size for path in here.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)  # while it waits for more
        assert process.wait(60) == 130
        assert process.stderr.read() == b""
    assert (here / "out.csv").read_text() == "as before"
    assert sorted(os.listdir()) == ["model", "out.csv"]


def test_a_record_without_end(here, extra, call, monkeypatch):
    saved("model")
    (here / "data.csv").write_text('x,y,note\n1,2,"' + 100 * "3,4,a note\n")
    monkeypatch.setattr("csoftmax._commands.tables.BLOCK", 100)
    code, _, err = call("predict", "model", "data.csv", "-o", "out.csv")
    assert (code, "a quotation mark is not closed, in the line '1,2,\"3,4,a note' or after it" in err) == (1, True)
    monkeypatch.setattr("csoftmax._commands.tables.LONGEST", 500)
    code, _, err = call("predict", "model", "data.csv", "-o", "out.csv")
    assert (code, "no end of a record within 500 bytes" in err) == (1, True)
    assert sorted(os.listdir()) == ["data.csv", "model"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk(here, extra):
    saved("model")
    (here / "out.csv").write_text("as before")
    write_csv("data.csv", ["x", "y"], inputs(20_000, 2).T)
    # A limit on the size of files stands for a disk that fills up.
    limited = "import resource as r, sys; r.setrlimit(r.RLIMIT_FSIZE, (90000, 90000)); from csoftmax.cli import main; "
    command = [sys.executable, "-P", "-c", limited + "sys.exit(main(sys.argv[1:]))", "predict", "model", "data.csv"]
    done = subprocess.run([*command, "-o", "out.csv"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "csoftmax: File too large\n")
    assert (here / "out.csv").read_text() == "as before"
    assert sorted(os.listdir()) == ["data.csv", "model", "out.csv"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "csoftmax: No space left on device\n")


# ---- the other commands, which need no extra ------------------------------------------------------------------------


def test_demo(here, call):
    code, out, _ = call("demo", "-o", "digits.model")
    lines = out.splitlines()
    assert code == 0
    assert len(lines) < 20
    assert max(map(len, lines)) <= 80
    told = json.loads(call("demo", "--json")[1])
    assert f"{told['held_out_right']} of 450 images right" in out
    assert told["held_out_right"] > 0.95 * 450
    assert told["fit_report_in_units"]["converged"]
    assert load("digits.model").coef.shape == (10, 64)


def test_bench(here, call, monkeypatch):
    saved("model")
    monkeypatch.setattr("csoftmax._commands.bench.SECONDS", 0.01)
    code, out, _ = call("bench", "model")
    told = json.loads(call("bench", "model", "--json")[1])["predict_proba"]
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert [entry["rows"] for entry in told] == [1, 10, 100, 1000, 10_000, 100_000]
    for entry in told:
        seconds = [entry["seconds"][name] for name in ("p50", "p90", "p99", "max")]
        assert seconds == sorted(seconds)
        assert seconds[-1] > 0
    # Coefficients that no product of could be kept.
    Predictor([[1e300, -1e300]], [0.0]).save("huge")
    assert call("bench", "huge")[0] == 0


def test_info(here, call):
    model = saved("model", classes=("a", "b"), names=("x", "y", "z"))
    code, out, _ = call("info", "model")
    assert code == 0
    assert "3 features, 2 classes, float64" in out
    told = json.loads(call("info", "model", "--json")[1])
    assert told["classes"] == ["a", "b"]
    (entry,) = told["largest_coefficients"]
    assert entry["class"] == "b"
    order = np.argsort(-np.abs(model.coef[0]))
    assert entry["coefficients"] == [{"feature": "xyz"[j], "value": model.coef[0, j]} for j in order]

    names = [f"a feature with a long name, number {number}" for number in range(300)]
    classes = [f"a class with a long name, number {number}" for number in range(1000)]
    saved("wide", classes=classes, names=names)
    lines = call("info", "wide")[1].splitlines()
    assert len(lines) < 60
    assert max(map(len, lines)) <= 80


def test_json_has_null_for_what_is_not_a_number(here, call):
    report = {"gap": float("inf"), "gap_kind": "unknown"}
    Predictor(*coefficients(), training_report=report).save("model")
    assert json.loads(call("info", "model", "--json")[1])["training_report"] == {"gap": None, "gap_kind": "unknown"}


def test_commands_without_extras(here):
    saved("model")
    code = (
        "import sys; from csoftmax.cli import main; "
        "print([main(a.split()) for a in ('info model --json', 'demo --json', 'bench model --json')]); "
        "print(sorted({'pyarrow', 'sklearn', 'tqdm', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    *facts, codes, loaded = done.stdout.splitlines()
    assert [type(json.loads(line)) for line in facts] == [dict] * 3
    assert (codes, loaded, done.stderr) == ("[0, 0, 0]", "[]", "")


def test_export(here, call):
    pytest.importorskip("csoftmax.export")
    pytest.importorskip("onnx")
    saved("model")
    code, _, err = call("export", "model", "--onnx", "model.onnx", "--c", "source", "--name", "trees")
    assert (code, err) == (0, "")
    assert (here / "model.onnx").stat().st_size > 0
    assert {"trees.h", "trees.c"} <= set(os.listdir("source"))
    assert call("export", "model", "--c", "source", "--name", "no identifier")[0] == 1
