"""Fixtures shared by the test files."""

import pytest

from csoftmax import _kernels


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
