"""csoftmax fit: a model from a table in a file."""

import argparse
import sys
from typing import Any

import numpy as np
from sklearn.metrics import log_loss, precision_recall_fscore_support
from sklearn.model_selection import train_test_split

from .._predictor import Predictor
from .._typing import Array, Rows
from ..cv import SoftmaxRegressionCV
from ..estimator import SoftmaxRegression
from . import check_output, tables
from .text import shortened

MANY = 20  # classes, which are not listed one by one any more


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Measure a model on rows that are held out, and write one that is fitted to all rows."""
    check_output(options.output, options.data)
    X, y, names = _training_data(options)
    C = None if options.cv else options.C
    measured = None
    if options.held_out > 0:
        train, test = _split(y, options.held_out)
        model = _fitted(X[train], y[train], C, options)
        measured = _measure(model, X[test], y[test])
        C = getattr(model, "C_", C)
    model = _fitted(X, y, C, options)
    made = model.predictor()
    told = {
        "target": options.target,
        "rows": len(y),
        "C": getattr(model, "C_", C),
        "l1_ratio": options.l1_ratio,
        "balanced": options.balanced,
        "held_out": measured,
    }
    report = {**(made.training_report or {}), **told}
    Predictor(made.coef, made.intercept, made.classes, feature_names=names, training_report=report).save(options.output)
    facts = {
        "data": options.data,
        "model": options.output,
        "n_features": made.n_features,
        "classes": made.classes.tolist(),
        **report,
    }
    return facts, _text(facts)


def _training_data(options: argparse.Namespace) -> tuple[Rows, Array, list[str] | None]:
    """Features, target and the names of the features, if the format has names."""
    dtype = np.dtype(np.float32 if options.float32 else np.float64)
    kind = tables.data_format(options)
    if kind == "svmlight":
        if options.target or options.drop:
            raise argparse.ArgumentError(None, "columns of svmlight have no names: leave out --target and --drop")
        with tables.opened(options.data) as file:
            for X, y in tables.svmlight(file, None, size=-1):
                return X.astype(dtype), y, None
            raise ValueError("there are no rows")
    if options.target is None:
        raise argparse.ArgumentError(None, "fit needs --target COLUMN, what is to be predicted")
    with tables.opened(options.data) as file:
        table = tables.table(file, kind, options)
        tables.require([options.target, *options.drop], table.names)
        names = [name for name in table.names if name not in (options.target, *options.drop)]
        if not names:
            raise ValueError(f"besides {options.target!r} there is no column to learn from")
        faults: dict[str, tables.Fault] = {}
        blocks, target, n = [], [], 0
        for batch in table.batches([*names, options.target]):
            blocks.append(tables.numbers(batch.select(names), dtype, table.is_text, faults, n))
            target.append(batch.column(options.target))
            n += batch.num_rows
        if n == 0:
            raise ValueError("there are no rows")
        tables.refuse(faults, "complete them, or leave the columns out with {drop}")
        y = tables.labels(target, table.is_text, options.target)
    return np.concatenate(blocks), y, names


def _split(y: Array, share: float) -> tuple[Array, Array]:
    """Rows to train on, and a share of every class to measure with; the same at every run."""
    try:
        train, test = train_test_split(np.arange(len(y)), test_size=share, stratify=y, random_state=0)
    except ValueError as error:
        raise ValueError(
            f"a share of {share:g} of every class cannot be held out ({error}): pass --held-out 0 to measure nothing, "
            f"or see whether the target is the column that you mean"
        ) from None
    return train, test


def _fitted(X: Rows, y: Array, C: float | None, options: argparse.Namespace) -> SoftmaxRegression:
    """A model of this C, or if that is None of one chosen by cross-validation."""
    classes, counts = np.unique(y, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"all rows to train on are of one class, {classes[0]}: expected two or more")
    shared: dict[str, Any] = {
        "class_weight": "balanced" if options.balanced else None,
        "verbose": int(sys.stderr.isatty()),
    }
    if C is not None:
        return SoftmaxRegression(C=C, l1_ratio=options.l1_ratio, **shared).fit(X, y)
    if counts.min() < options.cv:
        raise ValueError(
            f"class {classes[counts.argmin()]} has {counts.min()} rows to train on, and --cv {options.cv} needs one "
            f"for each fold: use fewer folds, or --C"
        )
    chosen = SoftmaxRegressionCV(cv=options.cv, l1_ratios=[options.l1_ratio], scoring="neg_log_loss", **shared)
    return chosen.fit(X, y)


def _measure(model: SoftmaxRegression, X: Rows, y: Array) -> dict[str, Any]:
    """How well the labels of rows that the model has not seen are predicted."""
    predicted = model.predict(X)
    precision, recall, _, rows = precision_recall_fscore_support(y, predicted, labels=model.classes_, zero_division=0)
    by_class = zip(model.classes_.tolist(), rows.tolist(), precision.tolist(), recall.tolist(), strict=True)
    return {
        "rows": len(y),
        "accuracy": float(np.mean(predicted == y)),
        "accuracy_of_commonest_class": int(rows.max()) / len(y),
        "log_loss": float(log_loss(y, model.predict_proba(X), labels=model.classes_)),
        "classes": [
            {"class": label, "rows": n, "precision": right, "recall": found} for label, n, right, found in by_class
        ],
    }


def _text(facts: dict[str, Any]) -> str:
    shape = f"{facts['rows']} rows, {facts['n_features']} features, {len(facts['classes'])} classes"
    lines = [f"{tables.called(facts['data'])}: {shape}"]
    held_out = facts["held_out"]
    if held_out is not None:
        commonest = held_out["accuracy_of_commonest_class"]
        lines += [
            f"A model of {facts['rows'] - held_out['rows']} rows, measured on the other {held_out['rows']}:",
            f"  accuracy {held_out['accuracy']:.4f} (always the commonest class: {commonest:.4f})",
            f"  log loss {held_out['log_loss']:.4f}",
        ]
        if len(held_out["classes"]) <= MANY:
            lines.append(f"  {'class':<24}{'rows':>8}{'precision':>12}{'recall':>10}")
            lines += [
                f"  {shortened(entry['class'], 22):<24}{entry['rows']:>8}{entry['precision']:>12.4f}"
                f"{entry['recall']:>10.4f}"
                for entry in held_out["classes"]
            ]
    lines.append(
        f"{facts['model']}: fitted to all {facts['rows']} rows with C={facts['C']:.4g}, {facts['n_iter']} iterations, "
        f"{facts['seconds']:.3f} s"
    )
    return "\n".join(lines)
