"""Names for the arrays that the modules hand each other."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]

__all__ = ["Array", "Codes", "Float64"]
