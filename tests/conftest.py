"""Fixtures shared by the test files."""

import signal
from importlib.util import find_spec

import pytest

from csoftmax import _kernels, cli

# About scikit-learn from end to end, and left out where it is not installed: it has no wheels for musl. In other files
# the tests that need it skip themselves.
if not find_spec("sklearn"):
    collect_ignore = [f"test_{about}.py" for about in ("cv", "cv_input", "frames", "from_sklearn", "scikit_learn")]


def available_instruction_sets():
    """Compiled in, and known to this processor."""
    names = []
    for name in _kernels.instruction_sets():
        try:
            _kernels.select_instruction_set(name)
        except ValueError:
            continue
        names.append(name)
    _kernels.select_instruction_set(None)
    return names


@pytest.fixture(params=available_instruction_sets())
def instruction_set(request):
    """Run the test once for every instruction set; the best one is back afterwards."""
    yield _kernels.select_instruction_set(request.param)
    _kernels.select_instruction_set(None)


@pytest.fixture(autouse=True, scope="session")
def _interruptible():
    """Jobs that a shell starts in the background ignore Ctrl-C, which some tests send to themselves."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def extra():
    """Skip where the packages of csoftmax[cli] are missing."""
    for name in ("pyarrow", "sklearn", "tqdm"):
        pytest.importorskip(name)


@pytest.fixture
def call(capsys):
    """The command line with these arguments, in this process: exit code, standard output, standard error."""

    def run(*arguments):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
