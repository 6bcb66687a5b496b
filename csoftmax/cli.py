"""The command line: csoftmax COMMAND ... (also python -m csoftmax).

A command returns facts, which --json prints, and the text that is printed otherwise. Exit codes: 0, 1 if the work
failed, 2 for wrong usage, and as shells have it for what a signal ends 130 after Ctrl-C and 141 if nobody reads the
output any more.
"""

import argparse
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

import csoftmax

EXTRA = {"pyarrow": "PyArrow", "sklearn": "scikit-learn", "tqdm": "tqdm"}  # what csoftmax[cli] brings


class _Parser(argparse.ArgumentParser):
    """One whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"csoftmax: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code; wrong usage exits with 2."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            command = import_module(f"csoftmax._commands.{options.command}")  # which loads what it needs
            facts, text = command.run(options)
            if options.json:
                print(json.dumps(_plain(facts)))
            elif text:
                print(text)
            sys.stdout.flush()
        return 0
    except argparse.ArgumentError as error:  # of options that do not go together
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _drop_output()
        return 141
    except Exception as error:
        print(f"csoftmax: {_sentence(error)}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        return 1


def _drop_output() -> None:
    """What is still to be flushed at exit goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _sentence(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and (module := str(error.name).partition(".")[0]) in EXTRA:
        return f"this needs {EXTRA[module]}: pip install 'csoftmax[cli]'"
    if isinstance(error, OSError) and error.strerror:
        name = error.filename2 or error.filename
        return error.strerror if name is None else f"{name}: {error.strerror}"
    text = " ".join(str(error).split())
    expected = isinstance(error, OSError | ValueError | TypeError | ImportError | MemoryError) and text
    return text if expected else f"{type(error).__name__}: {text}".removesuffix(": ")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"csoftmax: warning: {message}", file=sys.stderr)


def _plain(value: Any) -> Any:
    """What JSON can hold: NumPy's scalars as Python's, numbers that are not finite as null."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- options --------------------------------------------------------------------------------------------------------


def _checked(expected: str, kind: Callable[[str], Any], valid: Callable[[Any], bool]) -> Callable[[str], Any]:
    """The type of an option: text that `kind` reads, and that is valid then."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not valid(value):
            raise argparse.ArgumentTypeError(f"expected {expected}, not {text!r}")
        return value

    return read


_SHARE = _checked("a number from 0 to 1", float, lambda value: 0 <= value <= 1)
_PART = _checked("a number from 0 to below 1", float, lambda value: 0 <= value < 1)
_POSITIVE = _checked("a number above 0, or inf", float, lambda value: value > 0)
_FOLDS = _checked("a whole number of at least 2", int, lambda value: value >= 2)
_CHARACTER = _checked("one character", str, lambda value: len(value) == 1 and value.isascii())


def _parser() -> _Parser:
    parser = _Parser(prog="csoftmax", description="Softmax (multinomial logistic) regression.")
    parser.add_argument("--version", action="version", version=f"csoftmax {csoftmax.__version__}")
    model, data = _Parser(add_help=False), _Parser(add_help=False)
    model.add_argument("model", metavar="MODEL", help="a file that fit wrote, or save in Python")
    data.add_argument("data", metavar="DATA", help="CSV, Parquet, Arrow or svmlight; - is the standard input")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, *parents: _Parser, does: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=parents, help=does, description=f"{does[0].upper()}{does[1:]}.")
        added.add_argument("--json", action="store_true", help="print one JSON object in place of text")
        return added

    demo = command("demo", does="train on handwritten digits, save, load and predict")
    demo.add_argument("-o", "--output", metavar="FILE", help="where to write the model (default: nowhere)")
    fit = command("fit", data, does="train a model on a file")
    fit.add_argument("-o", "--output", metavar="MODEL", required=True, help="the model file to write")
    _add_training(fit)
    _add_reading(fit)
    predict = command("predict", model, data, does="write label and probabilities of each row of a file")
    predict.add_argument(
        "-o", "--output", metavar="OUT", default="-", help="CSV, Parquet or Arrow by its name (default: CSV to -)"
    )
    _add_reading(predict)
    command("info", model, does="tell what a model is and how it was trained")
    command("bench", model, does="time predictions on this machine")
    export = command("export", model, does="write a model as ONNX or C")
    export.add_argument("--onnx", metavar="FILE", help="the ONNX file to write")
    export.add_argument("--c", metavar="DIRECTORY", help="where to write NAME.h and NAME.c")
    export.add_argument("--name", default="model", help="prefix of the names in C (default: model)")
    return parser


def _add_reading(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how DATA is read").add_argument
    add("--drop", metavar="COLUMN", action="append", default=[], help="leave a column out; may be repeated")
    add("--format", choices=("csv", "parquet", "arrow", "svmlight"), help="if the name of DATA does not tell")
    add("--delimiter", metavar="CHARACTER", type=_CHARACTER, help="of CSV (default: comma, tab for .tsv)")
    add("--no-header", action="store_true", help="CSV without names of columns: call them f0, f1, ...")


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", metavar="COLUMN", help="what is to be predicted; svmlight has it by itself")
    strength = parser.add_mutually_exclusive_group()
    strength.add_argument("--C", type=_POSITIVE, default=1.0, help="inverse strength of the penalty (default: 1)")
    strength.add_argument("--cv", metavar="FOLDS", type=_FOLDS, help="choose C by cross-validation, 1e-4 to 1e4")
    parser.add_argument("--l1-ratio", metavar="R", type=_SHARE, default=0.0, help="share of L1 (default: 0)")
    parser.add_argument("--balanced", action="store_true", help="give every class the same weight")
    parser.add_argument("--float32", action="store_true", help="single precision, in half the memory")
    parser.add_argument(
        "--held-out",
        metavar="SHARE",
        type=_PART,
        default=0.2,
        help="of the rows, to measure a model before one is fitted to all; 0: do not (default: 0.2)",
    )
