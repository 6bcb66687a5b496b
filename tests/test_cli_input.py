"""What the command line reads and refuses: text as people write it, and a sentence for each thing that is wrong."""

import os
import subprocess
import sys

import numpy as np
import pytest
from cli_files import PROGRAM, assert_predictions, read_csv, saved, write_csv
from data import inputs

from csoftmax import load

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
        (["1.0", "2", "3"], [1, 2, 3]),
        (["18446744073709551000", "18446744073709551001", "5"], ["18446744073709551000", "18446744073709551001", "5"]),
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
    assert [label.lower() for label in labels] == [str(label).lower() for label in model.predict(X)]


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
    "share": ((*FIT, "--held-out", "a"), "argument --held-out: expected a number from 0 to below 1, not 'a'"),
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


def test_what_lies_behind_an_open_quotation_mark_is_looked_at_once(here, extra):
    saved("model")
    (here / "data.csv").write_bytes(b'x,y,note\n1,2,5" pipe\n' + b"1.5,2.25,abc\n" * 10**6)
    with open("data.csv", "rb") as file:
        arguments = [*PROGRAM, "predict", "model", "-", "-o", "out.csv"]
        cat = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE)
        done = subprocess.run(arguments, stdin=cat.stdout, capture_output=True, text=True, timeout=60)
        cat.stdout.close()
        cat.wait()
    assert (done.returncode, "a quotation mark is not closed, in the line '1,2,5" in done.stderr) == (1, True)


def test_the_data_are_not_overwritten(here, extra, call):
    write_csv("data.csv", ["x", "y", "kind"], [*inputs(30, 2).T, ["a", "b", "c"] * 10])
    before = (here / "data.csv").read_bytes()
    saved("model")
    for command in (fit("data.csv", "-o", "./data.csv"), ("predict", "model", "data.csv", "-o", "data.csv")):
        code, _, err = call(*command)
        assert (code, "data.csv is the file that is read: give the output another name" in err) == (1, True)
    assert (here / "data.csv").read_bytes() == before


def test_empty_lines_of_a_single_column_have_no_value(here, extra, call):
    saved("model", names=("x",))
    (here / "data.csv").write_text("x\n1\n\n3\n")
    code, _, err = call("predict", "model", "data.csv")
    assert (code, "'x' (no value in data row 2)" in err) == (1, True)


def test_encoded_numbers_are_numbers(here, extra, call):
    pa = pytest.importorskip("pyarrow")
    X = inputs(30, 2).round(1)
    model = saved("model")
    columns = {"x": pa.array(X[:, 0]).dictionary_encode(), "y": pa.array(X[:, 1])}
    pytest.importorskip("pyarrow.parquet").write_table(pa.table(columns), "data.parquet")
    code, out, _ = call("predict", "model", "data.parquet")
    assert code == 0
    np.testing.assert_allclose(read_csv(out)[2], model.predict_proba(X), rtol=0, atol=1e-15)


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
