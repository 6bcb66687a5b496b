"""Names for the arrays that the modules hand each other."""

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Union

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]
Places = npt.NDArray[np.intp]
DType = np.dtype[Any]
Layout = dict[str, int]  # of packed coefficients, see _kernels.layout
if TYPE_CHECKING:
    from scipy.sparse import csr_array, csr_matrix
Rows: TypeAlias = Union[Array, "csr_array", "csr_matrix"]  # below the gate also _mapped.Mapped, in place of an array


class _Sparse(Protocol):
    """SciPy's sparse arrays and matrices of every format."""

    def tocsr(self) -> Any: ...


Data: TypeAlias = npt.ArrayLike | _Sparse  # what users hand in as X

__all__ = ["Array", "Codes", "DType", "Data", "Float64", "Layout", "Places", "Rows"]
