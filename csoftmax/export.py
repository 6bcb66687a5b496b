"""Models for where Python is not: as ONNX, ``pip install 'csoftmax[onnx]'``, and as C."""

import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from . import __version__
from ._model import plain_labels, whole_file
from ._predictor import Predictor
from ._typing import Array

# The oldest that have the operators of the graph as they are today, of 2020: what is newer reads them.
ONNX_OPSET = 13
ONNX_IR_VERSION = 7

# Sums that are added up at once: enough to hide how long an addition takes, few enough for the registers.
MOST_SUMS = 12

# Keywords of C and C++, headers of C, and the example.
_TAKEN = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t class
    co_await co_return co_yield compl concept const const_cast consteval constexpr constinit continue
    contract_assert decltype default delete do double dynamic_cast else enum explicit export extern false float for
    friend goto if inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private
    protected public register reinterpret_cast requires restrict return short signed sizeof static static_assert
    static_cast struct switch template this thread_local throw true try typedef typeid typename typeof typeof_unqual
    union unsigned using virtual void volatile wchar_t while xor xor_eq assert complex ctype errno fenv inttypes
    iso646 limits locale math setjmp signal stdalign stdarg stdatomic stdbit stdbool stdckdint stddef stdint stdio
    stdlib stdnoreturn string tgmath threads time uchar wchar wctype main
"""


# ---- ONNX ---------------------------------------------------------------------------------------------------------


def to_onnx(predictor: Predictor, path: str | os.PathLike[str]) -> None:
    """Write a model as an ONNX graph.

    Its input is ``X``, (n, d) of the model's dtype, n any number of rows; its outputs are ``label``, (n,), and
    ``probabilities``, (n, K). Labels are int64 (uint64 if one needs it), string, bool or double. The metadata hold,
    as JSON, ``classes``, ``feature_names`` and ``training_report`` (the last two may be null), and besides
    ``csoftmax_version``. Unlike a Predictor, the graph does not refuse NaN and infinity.

    The file is written under another name and then renamed: an existing one is replaced as a whole, or not at all.

    Parameters
    ----------
    predictor : Predictor
    path : str or path-like

    Raises
    ------
    ImportError
        If the package onnx is missing.
    TypeError
        If predictor is not a Predictor, or its labels are of another type than int, str, bool and float.
    ValueError
        If a label cannot be encoded as UTF-8.
    OSError
        If the file cannot be written.
    """
    labels = _labels(predictor, "to_onnx")
    try:
        from onnx import checker, helper, numpy_helper
    except ImportError as error:
        raise ImportError("csoftmax.export.to_onnx needs onnx: pip install 'csoftmax[onnx]'") from error
    coef, intercept = predictor.coef, predictor.intercept
    if predictor.n_classes == 2:  # the softmax of 0 and the score: both probabilities keep all their digits
        coef, intercept = (np.concatenate([np.zeros_like(array), array]) for array in (coef, intercept))
    number, label = (helper.np_dtype_to_tensor_dtype(dtype) for dtype in (coef.dtype, labels.dtype))
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["X", "coef", "intercept"], ["scores"], transB=1),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["scores"], ["class"], axis=1, keepdims=0),
            helper.make_node("Gather", ["classes", "class"], ["label"]),
        ],
        "softmax_regression",
        [helper.make_tensor_value_info("X", number, ["n", predictor.n_features])],
        [
            helper.make_tensor_value_info("label", label, ["n"]),
            helper.make_tensor_value_info("probabilities", number, ["n", predictor.n_classes]),
        ],
        [
            numpy_helper.from_array(coef, "coef"),
            numpy_helper.from_array(intercept, "intercept"),
            numpy_helper.from_array(labels, "classes"),
        ],
    )
    model = helper.make_model(
        graph,
        producer_name="csoftmax",
        producer_version=__version__,
        ir_version=ONNX_IR_VERSION,
        opset_imports=[helper.make_opsetid("", ONNX_OPSET)],
    )
    metadata = {
        "csoftmax_version": __version__,
        "classes": json.dumps(labels.tolist()),
        "feature_names": json.dumps(predictor.feature_names),
        "training_report": json.dumps(predictor.training_report),
    }
    helper.set_model_props(model, metadata)
    checker.check_model(model, full_check=True)
    with whole_file(path) as file:
        file.write(model.SerializeToString())


# ---- C ------------------------------------------------------------------------------------------------------------


def to_c(predictor: Predictor, directory: str | os.PathLike[str], name: str) -> None:
    """Write a model as a C99 module that also compiles as C++, and needs the mathematics library alone.

    ``NAME.h`` declares the functions ``NAME_scores``, ``NAME_probabilities``, ``NAME_class`` and ``NAME_top_k``, the
    constants ``NAME_n_features`` and ``NAME_n_classes``, and the tables ``NAME_labels`` and, if the names are known,
    ``NAME_features``; ``NAME.c`` holds the coefficients and the code, in the model's dtype. Both are replaced if they
    exist. An example, ``main.c``, and a ``Makefile`` for it are written unless files of these names exist.

    Parameters
    ----------
    predictor : Predictor
    directory : str or path-like
        Made if it does not exist.
    name : str
        The prefix of all names: a C identifier, such as ``digits``.

    Raises
    ------
    TypeError
        If predictor is not a Predictor, or its labels are of another type than int, str, bool and float.
    ValueError
        If name is not an identifier, or a word, a header or a prefix that C or C++ keeps for itself; if a label or the
        name of a feature cannot be encoded as UTF-8 or has a NUL character, at which strings end in C.
    OSError
        If a file cannot be written.
    """
    labels = _labels(predictor, "to_c")
    if not isinstance(name, str):
        raise TypeError(f"name is a {type(name).__name__}: expected a string, the prefix of all names in C")
    if not re.fullmatch("[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*", name) or name.lower() in _TAKEN.split():
        raise ValueError(
            f"name={name!r}: expected letters, digits and single underscores between them, a letter first, and no "
            f"keyword or header of C or C++"
        )
    texts = {**_code(predictor), **_tables(predictor, labels, name)}
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"{name}.h": "model.h", f"{name}.c": "model.c", "main.c": "main.c", "Makefile": "Makefile"}
    for target, source in files.items():
        if source in ("main.c", "Makefile") and (folder / target).exists():
            continue  # it may have become the user's own
        template = Path(__file__).with_name("templates").joinpath(f"{source}.in").read_text(encoding="utf-8")
        with whole_file(folder / target) as file:
            file.write(Template(template).substitute(texts, name=name, version=__version__).encode("ascii"))


def _code(predictor: Predictor) -> dict[str, Any]:
    """What the arithmetic in the templates consists of.

    The sums of a block of classes are variables of their own, to which several features are added at once: a compiler's
    best chance of keeping them in registers, of turning neighbours into vectors, and of not waiting for each addition.
    """
    coef, double = predictor.coef, predictor.dtype == np.float64
    n_columns, n_features = coef.shape
    n_blocks = -(-n_columns // MOST_SUMS)
    width = -(-n_columns // n_blocks)
    steps = 4 if width == 1 else 2
    real, suffix = ("double", "") if double else ("float", "f")
    # The last block ends with the last class, and may overlap the one before.
    classes = [min(block * width, n_columns - width) + k for block in range(n_blocks) for k in range(width)]
    weights = coef[classes].reshape(n_blocks, width, n_features).swapaxes(1, 2)
    return {
        "n_features": n_features,
        "n_classes": predictor.n_classes,
        "n_columns": n_columns,
        "n_blocks": n_blocks,
        "width": width,
        "last": n_columns - width,
        "steps": steps,
        "stride": steps * width,
        "n_whole": n_features - n_features % steps,
        "real": real,
        "exp": f"exp{suffix}",
        "scan": "%lf" if double else "%f",
        "digits": 17 if double else 9,
        "two_classes": ", 0 for the first of two" if n_columns == 1 else "",
        "weights": _table(weights.ravel(), suffix),
        "intercepts": _table(predictor.intercept, suffix),
        "sums": ", ".join(f"s{k} = b[{k}]" for k in range(width)),
        "additions": _lines(12, _additions(width, steps)),
        "last_additions": _lines(8, _additions(width, n_features % steps) + [f"z[{k}] = s{k};" for k in range(width)]),
    }


def _additions(width: int, steps: int) -> list[str]:
    """Statements that add the products of so many features to the sums."""
    products = [" + ".join(f"x[j + {t}] * w[{t * width + k}]" for t in range(steps)) for k in range(width)]
    return [f"s{k} += {terms};" for k, terms in enumerate(products) if terms]


def _lines(indent: int, lines: Iterable[str], separator: str = "") -> str:
    return f"{separator}\n".join(" " * indent + line for line in lines)


def _table(values: Array, suffix: str) -> str:
    """Decimal numbers, the shortest that are read back exactly."""
    numbers = [f"{text}{suffix}" for text in values.astype(str).tolist()]
    return _lines(4, (", ".join(numbers[i : i + 4]) for i in range(0, len(numbers), 4)), ",")


def _tables(predictor: Predictor, labels: Array, name: str) -> dict[str, str]:
    """The labels, and the names of the features."""
    c_type, header, shown, literal = _LABELS[labels.dtype.kind]
    texts = {
        "label_type": c_type,
        "label_include": f"\n#include <{header}>\n" if header else "",
        "labels": _lines(4, map(literal, labels.tolist()), ","),
        "print": shown,
        "declared_features": "",
        "features": "",
    }
    if predictor.feature_names is not None:
        table = f"const char *const {name}_features[{name}_n_features]"
        texts["declared_features"] = f"\n/* The names of the features, in UTF-8. */\nextern {table};\n"
        names = _lines(4, map(_literal, predictor.feature_names), ",")
        texts["features"] = f"\n{table} = {{\n{names}\n}};\n"
    return texts


def _integer(label: int) -> str:
    return f"INT64_C({label})" if label > -(2**63) else "INT64_MIN"


def _literal(text: str) -> str:
    """A string of C: what has a meaning of its own in one, or in a trigraph, is written in octal digits."""
    if "\0" in text:
        raise ValueError(f"{text!r} has a NUL character, at which strings end in C: rename it")
    return '"' + "".join(chr(c) if 32 <= c < 127 and c not in b'"?\\' else f"\\{c:03o}" for c in _utf8(text)) + '"'


# By kind: their type in C and its header, how printf takes them, how they are written.
_LABELS: dict[str, tuple[str, str, str, Callable[[Any], str]]] = {
    "O": ("char *const", "", '"%s"', _literal),
    "b": ("bool", "stdbool.h", '"%d"', lambda label: str(label).lower()),
    "i": ("int64_t", "inttypes.h", '"%" PRId64', _integer),
    "u": ("uint64_t", "inttypes.h", '"%" PRIu64', lambda label: f"UINT64_C({label})"),
    "f": ("double", "", '"%.17g"', lambda label: repr(label).replace("inf", "INFINITY")),
}


# ---- both ---------------------------------------------------------------------------------------------------------


def _labels(predictor: Predictor, function: str) -> Array:
    """The classes as bool, int64, uint64, float64 or objects of str."""
    if not isinstance(predictor, Predictor):
        raise TypeError(
            f"{function}: predictor is a {type(predictor).__name__}, expected a Predictor: a fitted estimator gives "
            f"one with .predictor()"
        )
    labels = plain_labels(predictor.classes)
    if labels.dtype.kind == "U":
        for label in labels.tolist():
            _utf8(label)
        return labels.astype(object)
    if labels.dtype.kind in "iu":
        return labels.astype(np.int64 if labels.max() <= np.iinfo(np.int64).max else np.uint64)
    if labels.dtype.kind == "f" and labels.itemsize <= 8:
        return labels.astype(np.float64)
    if labels.dtype.kind == "b":
        return labels
    raise TypeError(f"{function}: classes of dtype {labels.dtype}, expected int, str, bool or float of up to 64 bits")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text!r} cannot be encoded as UTF-8: rename it") from None
