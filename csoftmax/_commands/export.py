"""csoftmax export: a model in another format."""

import argparse
from typing import Any

from .._model import load
from . import check_output


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Write the model as ONNX, as C, or as both."""
    if options.onnx is None and options.c is None:
        raise argparse.ArgumentError(None, "export needs --onnx FILE or --c DIRECTORY")
    from ..export import to_c, to_onnx

    model = load(options.model)
    written = {}
    if options.onnx is not None:
        check_output(options.onnx, options.model)
        to_onnx(model, options.onnx)
        written["onnx"] = options.onnx
    if options.c is not None:
        to_c(model, options.c, options.name)
        written["c"] = options.c
    return written, f"Written: {', '.join(written.values())}"
