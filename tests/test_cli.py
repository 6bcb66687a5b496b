"""The command line, end to end: as a process, or through main(arguments) where that shows the same."""

import json
import os
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cli_files import PROGRAM, assert_predictions, read_csv, saved, write_csv
from data import coefficients, inputs, overlapping

from csoftmax import Predictor, SoftmaxRegression, SoftmaxRegressionCV, load
from csoftmax._commands.bench import _duration

NAMES = ["height", 'the "width", cm', "depth\n(max)", "Länge"]
SPECIES = np.array(["ash", "elm, young", 'oak "red"'])


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
def test_no_ctrl_c_is_lost_while_text_is_parsed(extra):
    code = """
import io, os
from csoftmax._commands import tables
while True:
    try:
        os.write(1, b".")
        while True:
            for batch in tables._csv(io.BytesIO(b"x,y\\n" + 2000 * b"1,2\\n"), ",", True).batches(["x", "y"]):
                pass
    except KeyboardInterrupt:
        pass
"""
    with subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE) as process:
        try:
            for number in range(200):
                assert select.select([process.stdout], [], [], 30)[0], f"interrupt {number} was lost"
                assert os.read(process.stdout.fileno(), 1) == b"."
                time.sleep(number % 7 * 0.0005)
                process.send_signal(signal.SIGINT)
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="no signals between processes")
def test_ctrl_c_leaves_what_was_there(here, extra):
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


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(9.994e-7, "0.999 us"), (9.996e-4, "1 ms"), (0.99949, "999 ms"), (0.9996, "1 s"), (12.345, "12.3 s")],
)
def test_durations_are_shown_without_exponents(seconds, shown):
    assert _duration(seconds) == shown


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
    pytest.importorskip("onnx")
    saved("model")
    code, _, err = call("export", "model", "--onnx", "model.onnx", "--c", "source", "--name", "trees")
    assert (code, err) == (0, "")
    assert (here / "model.onnx").stat().st_size > 0
    assert {"trees.h", "trees.c"} <= set(os.listdir("source"))
    assert call("export", "model", "--c", "source", "--name", "no identifier")[0] == 1
