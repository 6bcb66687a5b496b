"""The command line: csoftmax COMMAND ... (also python -m csoftmax)."""

import argparse
import sys
from collections.abc import Sequence

import csoftmax


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 0, or 1 if the work failed. Wrong usage exits with 2."""
    parser = argparse.ArgumentParser(prog="csoftmax", description="Softmax (multinomial logistic) regression.")
    parser.add_argument("--version", action="version", version=f"csoftmax {csoftmax.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="train on handwritten digits, report, save, load and predict")
    demo.add_argument("-o", "--output", metavar="FILE", help="where to write the model (default: a temporary folder)")
    demo.set_defaults(run=_demo)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except OSError as error:
        print(f"csoftmax: {error}", file=sys.stderr)
        return 1
    return 0


def _demo(options: argparse.Namespace) -> None:
    from ._demo import demo

    demo(options.output)
