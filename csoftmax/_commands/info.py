"""csoftmax info: what a model is."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from .._model import load
from .._predictor import Predictor
from .text import field, shortened, some

LARGEST = 3  # coefficients of a class
CLASSES = 10  # whose coefficients are printed


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The shape of a model, its training report, and its largest coefficients."""
    model = load(options.model)
    with np.load(options.model) as members:
        version = str(members["library_version"])
    facts = {
        "model": options.model,
        "bytes": Path(options.model).stat().st_size,
        "version": version,
        "dtype": model.dtype.name,
        "n_features": model.n_features,
        "n_classes": model.n_classes,
        "classes": model.classes.tolist(),
        "feature_names": model.feature_names,
        "nonzero_coefficients": int(np.count_nonzero(model.coef)),
        "training_report": model.training_report,
        "largest_coefficients": _largest(model),
    }
    return facts, _text(facts)


def _largest(model: Predictor) -> list[dict[str, Any]]:
    """Of each class, or of the second of two against the first, the coefficients that are largest in absolute value."""
    names = model.feature_names or [f"feature {number}" for number in range(model.n_features)]
    listed = []
    for label, row in zip(model.classes[-len(model.coef) :].tolist(), model.coef, strict=True):
        order = np.argsort(-np.abs(row), kind="stable")[:LARGEST]
        listed.append({"class": label, "coefficients": [{"feature": names[j], "value": float(row[j])} for j in order]})
    return listed


def _text(facts: dict[str, Any]) -> str:
    lines = [
        field("model", f"{facts['model']}, {facts['bytes']} bytes, written by csoftmax {facts['version']}"),
        field("shape", f"{facts['n_features']} features, {facts['n_classes']} classes, {facts['dtype']}"),
        field("classes", some(facts["classes"])),
    ]
    if facts["feature_names"]:
        lines.append(field("features", some(facts["feature_names"])))
    lines += _training(facts["training_report"] or {})
    n_coefficients = facts["n_features"] * len(facts["largest_coefficients"])
    lines.append(f"Largest coefficients of {facts['nonzero_coefficients']} that are not 0, of {n_coefficients}:")
    shown = [shortened(entry["class"], 20) for entry in facts["largest_coefficients"][:CLASSES]]
    for label, entry in zip(shown, facts["largest_coefficients"], strict=False):
        cells = (f"{shortened(cell['feature'], 30)} {cell['value']:+.3g}" for cell in entry["coefficients"])
        lines.append(field(f"  {label}", ", ".join(cells), 4 + max(map(len, shown))))
    more = len(facts["largest_coefficients"]) - CLASSES
    return "\n".join(lines + ([f"  and {more} classes more"] if more > 0 else []))


def _training(report: dict[str, Any]) -> list[str]:
    """What is known of the training: nothing if the model was made of coefficients, most if fit made it."""
    lines = []
    if {"solver", "message", "n_iter", "seconds"} <= report.keys():
        text = f"{report['message']}; {report['n_iter']} iterations, {report['seconds']:.3f} s"
        lines.append(field("training", f"solver {report['solver']} {text}"))
    if {"rows", "C", "l1_ratio"} <= report.keys():
        lines.append(field("data", f"{report['rows']} rows, C={report['C']:.4g}, l1_ratio={report['l1_ratio']:g}"))
    if report.get("held_out"):
        held_out = report["held_out"]
        text = f"accuracy {held_out['accuracy']:.4f}, log loss {held_out['log_loss']:.4f} on {held_out['rows']} rows"
        lines.append(field("held out", text))
    return lines
