"""Only what pyproject.toml cannot say: the extensions, their flags, and the switches for builds that look for errors.

CSOFTMAX_DEBUG=1         bounds checks in the Cython code, warnings of Cython and of the compiler are errors
CSOFTMAX_SANITIZE=...    compile and link with -fsanitize=... (address,undefined or thread)
CSOFTMAX_BASELINE=1      the plain instruction set only
"""

import os
import sys
from pathlib import Path

import numpy as np
import scipy.linalg
from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup

debug = os.environ.get("CSOFTMAX_DEBUG", "0") not in ("", "0")
sanitize = os.environ.get("CSOFTMAX_SANITIZE", "")
baseline = os.environ.get("CSOFTMAX_BASELINE", "0") not in ("", "0")

compile_args = ["/O2"] if sys.platform == "win32" else ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math"]
link_args: list[str] = []
if (debug or sanitize) and sys.platform != "win32":
    # Python's own -fwrapv would hide overflows, and takes GCC long to sanitize.
    compile_args = ["-O1", "-g1", "-UNDEBUG", "-fno-wrapv", "-Wall", "-Werror"]
    Options.warning_errors = True
if sanitize:
    compile_args += [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    link_args += [f"-fsanitize={sanitize}"]

# SciPy's BLAS takes 32-bit integers up to 1.17; later it exports their type as blas_int.
blas_pxd = Path(scipy.linalg.__file__).with_name("cython_blas.pxd").read_text()
blas_int = "from scipy.linalg.cython_blas cimport blas_int\n" if "blas_int" in blas_pxd else "ctypedef int blas_int\n"
include = Path("csoftmax/_blas_int.pxi")
if not include.exists() or include.read_text() != blas_int:
    include.write_text(blas_int)

kernels = Extension(
    "csoftmax._kernels",
    ["csoftmax/_kernels.pyx", "csoftmax/_kernel.c"],
    include_dirs=["csoftmax"],
    depends=[str(header) for header in Path("csoftmax").glob("_kernel*.h")],
    define_macros=[("CSOFTMAX_BASELINE", None)] if baseline else [],
    extra_compile_args=compile_args,
    extra_link_args=link_args,
)

# Whatever NumPy it was compiled with, the extension runs with the oldest that is supported.
numpy_api = [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION")]

others = [
    Extension(
        f"csoftmax.{name}",
        [f"csoftmax/{name}.pyx"],
        depends=["csoftmax/_kernel.h"],
        include_dirs=["csoftmax", np.get_include()],
        define_macros=numpy_api,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for name in ("_core", "_linalg", "_predictor", "_sums")
]

setup(
    ext_modules=cythonize(
        [kernels, *others],
        compiler_directives={
            "boundscheck": debug,
            "wraparound": False,
            "initializedcheck": debug,
            "nonecheck": debug,
            "cdivision": True,
            "freethreading_compatible": True,
            "embedsignature": True,
            "embedsignature.format": "clinic",
        },
        build_dir="build/debug" if debug else "build/release",
    ),
    options={"build_ext": {"parallel": True}},
)
