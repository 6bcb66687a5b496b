"""Models of the Hessian of J: a ladder from exact to cheap, each a positive definite matrix that can be solved.

In standardised coordinates, with z_i the row x_i in these coordinates followed by 1 for the intercept, and p_i the
probabilities of row i, the Hessian of J is

    H = sum_i w_i (diag(p_i) - p_i p_i') (x) z_i z_i'  +  I (x) diag(penalty).

Every model is taken from a subset of the rows (`Sample`), and orders a vector as (class, feature):

    hessian     H itself, of size (K - 1)(d + 1): adding one vector to all classes changes no probability, so the
                last class is held at zero and the direction is centred afterwards.
    classes     K - 1 blocks of size d + 1, one for each direction q_k between the classes: the eigenvectors of
                A = sum_i w_i (diag(p_i) - p_i p_i'), between which there is no curvature on average.
    gram        a_k G in the same directions: one Gram matrix for all of them, its rows weighted by 1 - ||p_i||^2, times
                the eigenvalues of A. At W = 0 it is proportional to the bound of Boehning (1992,
                doi:10.1007/BF00048682).
    diagonal    the diagonal of H.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import _core, _linalg
from ._typing import Float64

# Rows of the workspace of the symmetric products. OpenBLAS keeps one of SMALL_PRODUCT multiplications on one thread:
# waking others for less costs more than it gains, and on a busy machine many times more.
BLOCK = 1024
SMALL_PRODUCT = 2**18
# Directions whose eigenvalues lie within this factor share one factor.
SHARED = 2.0

Solve = Callable[[Float64], Float64]


class Sample(NamedTuple):
    """Rows in standardised coordinates (m, D), their weights (m,), and the penalty's curvature (D,)."""

    rows: Float64
    weight: Float64
    penalty: Float64

    def probabilities(self, theta: Float64) -> Float64:
        """(m, K) at coordinates (K, D); for a single row of coordinates (m, 1), of the second class."""
        columns = len(theta)
        m, size = self.rows.shape
        both = np.vstack([np.zeros((1, size)), theta]) if columns == 1 else theta
        scores = np.empty((m, len(both)))
        _core.scores(self.rows, both, np.zeros(len(both)), 0, m, _block(m, size * len(both)), scores)
        _core.softmax_rows(scores, 0, m, BLOCK, False)
        return np.ascontiguousarray(scores[:, -columns:])

    def gram(self, factor: Float64) -> Float64:
        """Lower triangle of sum_i w_i factor_i z_i z_i'."""
        size = self.rows.shape[1]
        out = np.empty((size, size))
        root = np.sqrt(self.weight * np.maximum(factor, 0))
        _linalg.weighted_gram(self.rows, root, out, np.empty((_block(len(self.rows), size**2), size)))
        return out


def _block(n_rows: int, work_per_row: int) -> int:
    """Rows of a block: few enough for one thread of BLAS if at least 16 are, else as many as there is space for."""
    few = SMALL_PRODUCT // work_per_row
    return max(1, min(n_rows, few if few >= 16 else BLOCK))


def hessian(sample: Sample, theta: Float64) -> Solve:
    """The Hessian, factorised."""
    n_columns, size = theta.shape
    probability = sample.probabilities(theta)
    if n_columns == 1:
        return _binary(sample, probability)
    free = n_columns - 1
    out = np.empty((free * size, free * size))
    block = _block(len(sample.rows), (free * size) ** 2)
    _linalg.hessian(
        sample.rows,
        np.ascontiguousarray(probability[:, :-1]),
        sample.weight,
        out,
        sample.penalty,
        np.empty((block, free * size)),
        np.empty((block, free)),
    )
    solve = _solver([out], np.zeros(1, np.intp))

    def apply(gradient: Float64) -> Float64:
        step = np.zeros((n_columns, size))
        step[:-1] = solve(gradient[: free * size]).reshape(free, size)
        step -= step.mean(axis=0)
        return step.ravel()

    return apply


def classes(sample: Sample, theta: Float64) -> Solve:
    """One block for each direction between the classes."""
    probability = sample.probabilities(theta)
    if len(theta) == 1:
        return _binary(sample, probability)
    _, directions = _directions(sample, probability)
    variance = probability @ directions**2 - (probability @ directions) ** 2
    lowers = (_block_matrix(sample, spread) for spread in variance.T)
    return _in_directions(directions, lowers, np.arange(len(variance.T)))


def gram(sample: Sample, theta: Float64) -> Solve:
    """One Gram matrix for all directions between the classes."""
    probability = sample.probabilities(theta)
    if len(theta) == 1:
        return _binary(sample, probability)
    sizes, directions = _directions(sample, probability)
    uncertainty = 1 - np.einsum("ik,ik->i", probability, probability)
    total = float(sample.weight @ uncertainty)
    matrix = sample.gram(uncertainty / total if total > 0 else np.ones(len(uncertainty)))
    sizes = np.maximum(sizes, 1e-12 * sizes[-1])
    groups = np.floor(np.log(sizes / sizes[0]) / np.log(SHARED)).astype(int)
    present, member = np.unique(groups, return_inverse=True)
    scales = [np.exp(np.log(sizes[member == number]).mean()) for number in range(len(present))]
    return _in_directions(directions, (scale * matrix + np.diag(sample.penalty) for scale in scales), member)


def diagonal(sample: Sample, theta: Float64) -> Solve:
    """The diagonal of the Hessian."""
    probability = sample.probabilities(theta)
    spread = probability * (1 - probability) * sample.weight[:, None]
    entries = np.zeros_like(theta)
    for start in range(0, len(sample.rows), BLOCK):
        part = slice(start, start + BLOCK)
        entries += spread[part].T @ sample.rows[part] ** 2
    entries += sample.penalty
    with np.errstate(divide="ignore"):
        inverse = np.where(entries > 0, 1 / entries, 0.0).ravel()
    return lambda gradient: gradient * inverse


def _directions(sample: Sample, probability: Float64) -> tuple[Float64, Float64]:
    """Eigenvalues, rising, and eigenvectors in columns of A, without the null direction of equal shifts."""
    mixed = (probability * sample.weight[:, None]).T @ probability
    values, vectors = np.linalg.eigh(np.diag(sample.weight @ probability) - mixed)
    return np.maximum(values[1:], np.finfo(float).tiny), np.ascontiguousarray(vectors[:, 1:])


def _in_directions(directions: Float64, lowers: Iterable[Float64], member: npt.NDArray[np.intp]) -> Solve:
    """Solves row k of the gradient's directions with block member[k]."""
    solve = _solver(lowers, member)

    def apply(gradient: Float64) -> Float64:
        return (directions @ solve(directions.T @ gradient.reshape(len(directions), -1))).ravel()

    return apply


def _block_matrix(sample: Sample, factor: Float64) -> Float64:
    """Lower triangle of sum_i w_i factor_i z_i z_i' + diag(penalty)."""
    matrix = sample.gram(factor)
    np.einsum("jj->j", matrix)[:] += sample.penalty
    return matrix


def _binary(sample: Sample, probability: Float64) -> Solve:
    """The Hessian of one column, for two classes."""
    lower = _block_matrix(sample, probability[:, 0] * (1 - probability[:, 0]))
    solve = _solver([lower], np.zeros(1, np.intp))
    return lambda gradient: solve(gradient).ravel()


def _solver(lowers: Iterable[Float64], member: npt.NDArray[np.intp]) -> Solve:
    """Solves each row with one of some positive semi-definite matrices, given by their lower triangles."""
    factors, units = zip(*(_factor(lower) for lower in lowers), strict=True)
    stacked, unit = np.stack(factors), np.stack(units)[member]

    def solve(rows: Float64) -> Float64:
        answer: Float64 = rows.reshape(unit.shape) * unit
        _linalg.solve(stacked, member, answer)
        answer *= unit
        return answer

    return solve


def _factor(lower: Float64) -> tuple[Float64, Float64]:
    """(L, u) with the matrix = diag(1/u) L L' diag(1/u).

    u brings the diagonal to ones, so that a feature with a huge penalty does not drown the others. Rounding, or fewer
    rows than features, may leave the matrix singular: then the diagonal is raised until it is not.
    """
    entries = np.einsum("jj->j", lower)
    with np.errstate(divide="ignore"):
        unit = np.where(entries > 0, 1 / np.sqrt(entries), 0.0)  # 0 for a constant feature, and for an infinite penalty
    scaled = np.nan_to_num(lower * unit * unit[:, None])
    ridge = 1e-13
    while True:
        factor = scaled.copy()
        np.einsum("jj->j", factor)[:] = 1 + ridge
        if _linalg.factorise(factor):
            return factor, unit
        ridge *= 100
