"""Tables and models in files, and what the command line makes of them, for its tests."""

import csv
import io
import sys

import numpy as np
from data import coefficients

from csoftmax import Predictor

PROGRAM = [sys.executable, "-P", "-m", "csoftmax"]


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
    """Digit for digit, as the command predicts: rows in a batch, and one alone where the input arrived in pieces."""
    assert list(labels) == [str(label) for label in model.predict(X)]
    actual = np.asarray(probabilities, model.dtype)
    alone = np.array([model.predict_proba(x) for x in X])
    same = (actual == model.predict_proba(X)).all(axis=1) | (actual == alone).all(axis=1)
    np.testing.assert_array_equal(same, True)
