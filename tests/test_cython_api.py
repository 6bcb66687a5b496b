"""The nogil interface of Predictor, from an extension that is compiled here against the installed package."""

import ctypes
import importlib.resources
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data import coefficients, inputs

import csoftmax
from csoftmax import Predictor, _kernels

# This is the example of the README.
EXAMPLE = """\
from cython.parallel cimport prange
from csoftmax._predictor cimport Predictor

def probabilities(Predictor model, const double[:, ::1] X, double[:, ::1] out):
    cdef Py_ssize_t i
    cdef int bad = 0
    if X.shape[1] != model.n_features or out.shape[0] != X.shape[0] or out.shape[1] != model.n_classes:
        raise ValueError("shapes do not fit")
    for i in prange(X.shape[0], nogil=True):
        if model.probabilities(&X[i, 0], 1, &out[i, 0]) != 1:  # 0: a score that is not finite, -1: no memory
            bad += 1
    return bad
"""

SOURCE = f"""
# cython: language_level=3, boundscheck=False, wraparound=False
{EXAMPLE}

def codes(Predictor model, const double[:, ::1] X, Py_ssize_t[::1] out):
    cdef int good
    with nogil:
        good = model.codes(&X[0, 0], X.shape[0], &out[0])
    return good


def batch(Predictor model, const double[:, ::1] X, double[:, ::1] out):
    cdef int good
    with nogil:
        good = model.probabilities(&X[0, 0], X.shape[0], &out[0, 0])
    return good
"""

SETUP = """
import csoftmax
from Cython.Build import cythonize
from setuptools import Extension, setup

flags = {flags!r}
setup(
    script_args=["build_ext", "--inplace"],
    ext_modules=cythonize(
        [Extension("serve", ["serve.pyx"], include_dirs=[csoftmax.get_include()],
                   extra_compile_args=flags, extra_link_args=flags)],
        compiler_directives={{"freethreading_compatible": True}},
        include_path={path!r},  # where an editable installation is: Cython looks for packages on sys.path only
    ),
)
"""


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("serve")
    try:
        ctypes.CDLL("libgomp.so.1")
        flags = ["-fopenmp"]
    except OSError:  # the same numbers, from one thread
        flags = []
    (folder / "serve.pyx").write_text(SOURCE)
    (folder / "setup.py").write_text(SETUP.format(flags=flags, path=[str(Path(csoftmax.get_include()).parent)]))
    done = subprocess.run([sys.executable, "setup.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    library = next(path for path in folder.iterdir() if path.suffix in (".so", ".pyd"))
    spec = importlib.util.spec_from_file_location("serve", library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("n_classes", [2, 3, 40, 400])
def test_compiled_callers_get_the_same_numbers(serve, n_classes):
    model = Predictor(*coefficients(n_classes, 30))
    X = inputs(1000, 30)
    out, again, codes = np.empty((1000, n_classes)), np.empty((1000, n_classes)), np.empty(1000, np.intp)
    assert serve.probabilities(model, X, out) == 0
    np.testing.assert_array_equal(out, [model.predict_proba(x) for x in X])
    assert serve.batch(model, X, again) == 1
    # Bitwise, but where Python leaves a batch to BLAS, which with plain vectors is faster for many classes.
    by_tiles = _kernels.tiles_win(len(model.coef), model.coef.nbytes)
    np.testing.assert_allclose(again, model.predict_proba(X), rtol=0 if by_tiles else 1e-12)
    assert serve.codes(model, X, codes) == 1
    np.testing.assert_array_equal(codes, model.predict(X))
    X[17, 3] = np.nan
    assert serve.probabilities(model, X, out) == 1
    assert serve.batch(model, X, again) == 0


def test_the_headers_are_where_get_include_says():
    for name in ("_predictor.pxd", "_kernels.pxd", "_kernel.h"):
        assert (importlib.resources.files("csoftmax") / name).is_file()
    assert csoftmax.get_include().endswith("csoftmax")
