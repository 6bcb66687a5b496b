"""What is built, and for whom: the wheels that pyproject.toml asks for, and the GIL on free-threaded builds."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

PYTHONS = ["cp311", "cp312", "cp313", "cp314", "cp314t", "cp315", "cp315t"]
PLATFORMS = {
    "linux": ["manylinux_x86_64", "manylinux_aarch64", "musllinux_x86_64", "musllinux_aarch64"],
    "macos": ["macosx_x86_64", "macosx_arm64"],
    "windows": ["win_amd64", "win_arm64"],
}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_wheels_are_built_for_exactly_these(platform):
    pytest.importorskip("cibuildwheel")
    command = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers", "--platform", platform]
    archs = {"linux": "x86_64,aarch64", "macos": "x86_64,arm64", "windows": "AMD64,ARM64"}[platform]
    project = Path(__file__).parents[1]
    done = subprocess.run([*command, "--archs", archs, project], capture_output=True, text=True, check=True)
    intended = [f"{python}-{tag}" for python in PYTHONS for tag in PLATFORMS[platform]]
    assert sorted(done.stdout.split()) == sorted(intended)


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python always has a GIL")
def test_import_leaves_the_gil_off():
    modules = "csoftmax._core, csoftmax._kernels, csoftmax._linalg, csoftmax._predictor, csoftmax._sums"
    code = f"import sys, {modules}, csoftmax.estimator; print(sys._is_gil_enabled())"
    # Python would say so in a warning, were the GIL switched on by an import; PYTHON_GIL=0 would forbid it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "False\n"
