"""csoftmax predict: labels and probabilities for the rows of a table in a file."""

import argparse
import sys
from collections.abc import Iterator
from typing import IO, Any

from tqdm import tqdm

from .._model import load
from .._predictor import Predictor
from .._typing import Array, DType, Rows
from . import check_output, tables
from .text import some


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Write labels and probabilities, batch by batch."""
    piped = options.output == "-"
    if options.json and piped:
        raise argparse.ArgumentError(None, "--json needs -o OUT, as the predictions take the standard output")
    model = load(options.model)
    kind = tables.format_of(options.output, tables.WRITTEN)
    if not piped:
        check_output(options.output, options.data)
    with tables.opened(options.data) as file:
        batches, ignored = _features(file, options, model)
        source = tables.called(options.data)
        if ignored:
            said = f"ignored columns that the model does not have: {some(map(repr, ignored))}"
            print(f"csoftmax: {source}: {said}", file=sys.stderr)
        n = 0
        # On a terminal a bar would run into the predictions.
        bar = tqdm(unit=" rows", unit_scale=True, leave=False, disable=True if piped else None)
        with bar, tables.writing(options.output, kind, model.classes, model.dtype) as write:
            for X in batches:
                write(model.predict(X), model.predict_proba(X))
                n += X.shape[0]
                bar.update(X.shape[0])
    facts = {"data": options.data, "rows": n, "output": options.output, "ignored_columns": ignored}
    return facts, "" if piped else f"{options.output}: predictions for {n} rows of {source}"


def _features(file: IO[bytes], options: argparse.Namespace, model: Predictor) -> tuple[Iterator[Rows], list[str]]:
    """The features of the model, batch by batch, and the names of the other columns."""
    kind = tables.data_format(options)
    if kind == "svmlight":
        if model.feature_names is not None:
            raise ValueError("columns of svmlight have no names, and the features of the model do: use another format")
        if options.drop:
            raise argparse.ArgumentError(None, "columns of svmlight have no names: leave out --drop")
        return (rows.astype(model.dtype) for rows, _ in tables.svmlight(file, model.n_features)), []
    table = tables.table(file, kind, options)
    tables.require(options.drop, table.names)
    left = [name for name in table.names if name not in options.drop]
    if model.feature_names is None and len(left) != model.n_features:
        raise ValueError(
            f"{len(left)} columns, {some(map(repr, left))}, and the model has {model.n_features} features without "
            f"names: expected as many in its order; leave others out with --drop COLUMN"
        )
    names = left if model.feature_names is None else list(model.feature_names)
    tables.require(names, left)
    return _matrices(table, names, model.dtype), [name for name in left if name not in names]


def _matrices(table: tables.Table, names: list[str], dtype: DType) -> Iterator[Array]:
    n = 0
    for batch in table.batches(names):
        faults: dict[str, tables.Fault] = {}
        X = tables.numbers(batch.select(names), dtype, table.is_text, faults, n)
        tables.refuse(faults, "the model needs a number in each")
        n += len(X)
        yield X
