"""Models of the Hessian of J: a ladder from exact to cheap, each a positive definite matrix that can be solved.

In standardised coordinates, with z_i the row x_i in these coordinates followed by 1 for the intercept, and p_i the
probabilities of row i, the Hessian of J is

    H = sum_i w_i (diag(p_i) - p_i p_i') (x) z_i z_i'  +  I (x) diag(penalty).

Every model is taken from a subset of the rows (`Sample`), and orders a vector as (class, feature):

    hessian     H itself, of size (K - 1)(d + 1): the last class is held at zero, see below.
    classes     the K blocks on its diagonal, of size d + 1: block k is sum_i w_i p_ik (1 - p_ik) z_i z_i' + penalty.
    gram        the same with one Gram matrix for all classes, times the mean of p_ik (1 - p_ik): its rows are weighted
                by 1 - ||p_i||^2. At W = 0 it is proportional to the bound of Boehning (1992, doi:10.1007/BF00048682).
    diagonal    the diagonal of H.

Where passes over all rows are long beside the sample, such a model does not give the directions, but preconditions the
equations of the whole H of a larger sample, which conjugate gradients solve by products (`refined`).

Adding one vector to the coefficients of all classes changes no probability, so every model gives directions that sum to
zero over the classes. Without that the blocks of different classes would put more and more of a step where it changes
nothing but the penalty: on 60000 x 784 pixels 310 iterations come within 3e-6 of the optimum, 1500 without it to 5e-5.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from . import _kernels, _linalg, _sums
from ._mapped import readable
from ._passes import LossPass, scores, times_transposed
from ._threads import run
from ._typing import Array, Float64, Rows

# Symmetric products are made by register tiles up to this size, with plainer vectors up to the second, then by BLAS.
TILE_SIZE, PLAIN_TILE_SIZE = 1024, 64
# A chunk of rows, whose sum one thread makes, is at least this many multiplications; all sums take at most so much.
CHUNK_WORK, PARTIAL_BYTES, MAX_CHUNKS = 2**22, 2**25, 16
BLOCK = 256  # rows of a workspace
RESTRICTED_BLOCK = 2**20  # values of a workspace
STORED_BLOCK = 2**18  # probabilities of sparse rows at once
CALL = 2**29  # multiplications of one call
# Classes whose mean curvatures lie within this factor share one factor.
SHARED = 2.0
MOST_PRODUCTS = 12  # of one solution
STIFF = 1e3  # a penalty's curvature from which the loss is nothing beside it

Solve = Callable[[Float64], Float64]  # its argument is lost, and may be where the answer is


class HasDiagonal(Protocol):
    """What the cheapest model is made of: a sample, or the objective itself."""

    @property
    def penalty(self) -> Float64: ...

    def squares(self, theta: Float64) -> Float64: ...


class RowSums(HasDiagonal, Protocol):
    """What models are made of; `Sample` explains it."""

    def free_hessian(self, theta: Float64) -> Float64: ...

    def blocks(self, theta: Float64) -> Iterable[Float64]: ...

    def shared_gram(self, theta: Float64) -> tuple[Float64, Float64]: ...

    def stiffened(self, more: Float64) -> "RowSums": ...


class StoredSums(Protocol):
    """What is made of rows as they are stored; `StoredRows` explains it."""

    def squares(self, theta: Float64) -> Float64: ...

    def hessian(self, theta: Float64, active: npt.NDArray[np.intp]) -> Float64: ...


class Sample(NamedTuple):
    """Rows in standardised coordinates (m, D), their weights (m,), and the penalty's curvature (D,).

    The rows have the dtype of X, as in float32 twice as many fit into memory; what is made of them is float64. `share`
    is the weight of each row times its squared length, (m,), if `effective_rows` is to be asked for.
    """

    rows: Array
    weight: Float64
    penalty: Float64
    n_threads: int
    share: Float64 = np.zeros(0)

    def probabilities(self, theta: Float64) -> Float64:
        """(m, K) at coordinates (K, D); for a single row of coordinates (m, 1), of the second class."""
        columns = len(theta)
        both = np.vstack([np.zeros_like(theta), theta]) if columns == 1 else theta
        probability = scores(self.rows, both, np.zeros(len(both)), self.n_threads, "softmax")
        return np.ascontiguousarray(probability[:, -columns:], np.float64)

    def _float64(self, start: int, stop: int) -> Float64:
        """Some of the rows."""
        return self.rows[start:stop].astype(np.float64, copy=False)

    def stiffened(self, more: Float64) -> "Sample":
        """The same with more curvature by coordinate."""
        return self._replace(penalty=self.penalty + more)

    # ---- sums over the rows, which models are made of ----------------------------------------------------------------

    def free_hessian(self, theta: Float64) -> Float64:
        """Lower triangle of the Hessian of the loss with the last class held at zero."""
        return self.hessian(np.ascontiguousarray(self.probabilities(theta)[:, :-1]))

    def blocks(self, theta: Float64) -> Iterable[Float64]:
        """For one class after the other the lower triangle of sum_i w_i p_ik (1 - p_ik) z_i z_i'."""
        probability = self.probabilities(theta)
        spread = probability * (1 - probability)
        return (self.gram(spread[:, k]) for k in range(len(theta)))

    def shared_gram(self, theta: Float64) -> tuple[Float64, Float64]:
        """Lower triangle of sum_i w_i (1 - ||p_i||^2) z_i z_i', and of each class sum_i w_i p_ik (1 - p_ik)."""
        probability = self.probabilities(theta)
        spread = probability * (1 - probability)
        # Not by BLAS: its threads would go on spinning, and hold up the passes that follow.
        return self.gram(spread.sum(axis=1)), np.einsum("i,ik->k", self.weight, spread)

    def squares(self, theta: Float64) -> Float64:
        """sum_i w_i p_ik (1 - p_ik) z_ij^2, (K, D)."""
        if len(self.rows) > 0 and not theta.any():  # one of them for all, and no product by BLAS, as above
            chance, total = 1 / max(len(theta), 2), np.zeros(theta.shape[1])
            weight = self.weight.astype(self.rows.dtype, copy=False)
            _sums.column_spread(self.rows, weight, np.zeros_like(total), np.ones_like(total), total)
            return np.tile(chance * (1 - chance) * total, (len(theta), 1))
        probability = self.probabilities(theta)
        spread = probability * (1 - probability) * self.weight[:, None]
        entries = np.zeros_like(theta)
        for start in range(0, len(self.rows), BLOCK):
            part = slice(start, start + BLOCK)
            entries += _weighted_sums(self._float64(start, start + BLOCK) ** 2, spread[part], self.n_threads)
        return entries

    def gram(self, factor: Float64) -> Float64:
        """Lower triangle of sum_i w_i factor_i z_i z_i'."""
        n, size = self.rows.shape
        weight = self.weight * np.maximum(factor, 0)
        if _by_tiles(size):

            def add(start: int, stop: int, out: Float64) -> None:
                _sums.gram(self._float64(start, stop), weight[start:stop], 0, stop - start, out)

            return _add_up(n, size, add, self.n_threads)
        out, root, work = np.zeros((size, size)), np.sqrt(weight), np.empty((min(n, BLOCK), size))
        for part in _parts(0, n, size**2):
            _linalg.weighted_gram(self._float64(part.start, part.stop), root[part], out, work)
        return out

    def hessian(self, probability: Float64) -> Float64:
        """Lower triangle of sum_i w_i (diag(p_i) - p_i p_i') (x) z_i z_i', for probabilities (m, k)."""
        (n, d), k = self.rows.shape, probability.shape[1]
        size, block = k * d, min(n, BLOCK)
        if _by_tiles(size):

            def add(start: int, stop: int, out: Float64) -> None:
                work = np.empty((block, size)), np.empty(block)
                some = self._float64(start, stop), probability[start:stop], self.weight[start:stop]
                _sums.hessian(*some, 0, stop - start, out, *work)

            return _add_up(n, size, add, self.n_threads)
        out, work, factors = np.zeros((size, size)), np.empty((block, size)), np.empty((block, k))
        for part in _parts(0, n, size**2):
            some = self._float64(part.start, part.stop), probability[part], self.weight[part]
            _linalg.hessian(*some, out, work, factors)
        return out

    def hessian_times(self, probability: Float64) -> Callable[[Float64], Float64]:
        """The product of the Hessian of the loss, whole, and a matrix like theta, (K, D)."""
        (n, columns), dtype = probability.shape, self.rows.dtype
        chance, weight = probability.astype(dtype, copy=False), self.weight.astype(dtype, copy=False)
        one_pass = LossPass(self.rows, np.zeros(n, np.int32), weight, columns, self.n_threads)

        def times(direction: Float64) -> Float64:
            product = np.empty_like(direction)
            one_pass.take(direction, np.zeros(columns))
            one_pass.loss_gradient(product, np.empty(columns), chance=chance)
            return product

        return times

    def mean_uncertainty(self, probability: Float64) -> float:
        """The mean of 1 - ||p||^2 over all rows, by their lengths, to judge by these."""
        return float(np.einsum("i,i->", self.share, uncertainty(probability)) / self.share.sum())

    def effective_rows(self, probability: Float64) -> float:
        """How many rows of equal curvature would say as much (Kish 1965, Survey Sampling)."""
        curvature = self.share * uncertainty(probability)
        return float(curvature.sum() ** 2 / max((curvature**2).sum(), np.finfo(float).tiny))


def uncertainty(probability: Float64) -> Float64:
    """1 - ||p||^2 of all classes, (m,), by their probabilities (m, K), or (m, 1) of the second of two."""
    square = np.einsum("ik,ik->i", probability, probability)
    return np.asarray(1 - square if probability.shape[1] > 1 else 2 * (probability[:, 0] - square))


def class_coefficients(theta: Float64, center: Float64, unit: Float64, fit_intercept: bool) -> tuple[Float64, Float64]:
    """W (K, d) and b (K,) of every class, in the units of X, of coordinates (K, D) or (1, D)."""
    columns, d = len(theta), len(center)
    coef, intercept = np.zeros((max(columns, 2), d)), np.zeros(max(columns, 2))
    np.multiply(theta[:, :d], unit, out=coef[-columns:])
    intercept[-columns:] = theta[:, d] if fit_intercept else 0.0
    intercept[-columns:] -= np.einsum("kj,j->k", coef[-columns:], center)
    return coef, intercept


class StoredRows(NamedTuple):
    """Rows of X as they are stored, dense or CSR, with their weights and what standardises them; see `Objective`."""

    X: Rows
    weight: Float64
    center: Float64
    unit: Float64
    penalty: Float64
    fit_intercept: bool
    n_threads: int

    def _blocks(self, theta: Float64, step: int) -> Iterator[tuple[Rows, Float64, Float64]]:
        """Blocks of rows in float64, their weights, and their probabilities as those of `Sample`."""
        columns = len(theta)
        coef, intercept = class_coefficients(theta, self.center, self.unit, self.fit_intercept)
        for start in range(0, self.X.shape[0], step):
            part = readable(self.X, slice(start, start + step)).astype(np.float64, copy=False)
            probability = scores(part, coef, intercept, self.n_threads, "softmax")[:, -columns:]
            yield part, self.weight[start : start + step], probability

    def squares(self, theta: Float64) -> Float64:
        """sum_i w_i p_ik (1 - p_ik) z_ij^2, (K, D), of a dense X."""
        d = self.X.shape[1]
        entries = np.zeros_like(theta)
        for part, weight, probability in self._blocks(theta, max(BLOCK, STORED_BLOCK // max(len(theta), 2))):
            spread = probability * (1 - probability) * weight[:, None]
            rows = np.subtract(part, self.center)
            rows *= self.unit
            rows *= rows
            entries[:, :d] += _weighted_sums(rows, spread, self.n_threads)
            entries[:, d:] += spread.sum(axis=0)[:, None]
        return entries

    def hessian(self, theta: Float64, active: npt.NDArray[np.intp]) -> Float64:
        """The Hessian in some of the coordinates, whole: sum_i w_i (diag(p_i) - p_i p_i') (x) z_i z_i' + penalty."""
        d, size = self.X.shape[1], len(active)
        k, j = np.divmod(active, theta.shape[1])
        features = np.unique(j[j < d])
        column = np.searchsorted(features, j)  # the intercept's comes last
        classes = [np.flatnonzero(k == number) for number in np.unique(k)]
        out = np.zeros((size, size))
        for part, weight, probability in self._blocks(theta, max(BLOCK, RESTRICTED_BLOCK // size)):
            some = part[:, features]
            rows = np.ones((part.shape[0], len(features) + 1))
            rows[:, :-1] = some if isinstance(some, np.ndarray) else some.toarray()
            rows[:, :-1] -= self.center[features]
            rows[:, :-1] *= self.unit[features]
            if len(theta) > 1:
                both = rows.take(column, axis=1)
                both *= probability.take(k, axis=1)
                out -= Sample(both, weight, self.penalty, self.n_threads).gram(np.ones(len(rows)))
            for of_class in classes:
                chance = probability[:, k[of_class[0]]]
                own = Sample(rows.take(column[of_class], axis=1), weight, self.penalty, self.n_threads)
                out[np.ix_(of_class, of_class)] += own.gram(chance if len(theta) > 1 else chance * (1 - chance))
        out = np.tril(out)
        out += np.tril(out, -1).T
        np.einsum("aa->a", out)[:] += self.penalty[j]
        return out


def _weighted_sums(rows: Float64, weight: Float64, n_threads: int) -> Float64:
    """weight' rows, (K, d), for weights (m, K)."""
    return times_transposed(np.ascontiguousarray(rows.T), np.ascontiguousarray(weight.T), n_threads).T


def _by_tiles(size: int) -> bool:
    return size <= (TILE_SIZE if _kernels.vector_bytes() >= 32 else PLAIN_TILE_SIZE)


def _add_up(n_rows: int, size: int, add: Callable[[int, int, Float64], None], n_threads: int) -> Float64:
    """The matrix that `add` makes of all rows: chunks of them, cut by the shape alone, added in their order."""
    length, width = _sums.gram_shape(size)
    most = min(MAX_CHUNKS, max(1, PARTIAL_BYTES // (8 * length)))
    n_chunks = min(most, max(1, n_rows * size**2 // CHUNK_WORK))
    step = -(-n_rows // n_chunks)
    parts = np.zeros((n_chunks, length))
    interrupted = False

    def chunk(item: int, worker: int) -> None:
        nonlocal interrupted
        try:
            for rows in _parts(item * step, min((item + 1) * step, n_rows), size**2):
                if not interrupted:
                    add(rows.start, rows.stop, parts[item])
        except BaseException:
            interrupted = True
            raise

    run(chunk, n_chunks, n_threads if n_chunks >= 4 else 1)
    total = parts[0] if n_chunks == 1 else parts.sum(axis=0)
    return np.ascontiguousarray(total[: size * width].reshape(size, width)[:, :size])


def _parts(start: int, stop: int, work_per_row: int) -> Iterator[slice]:
    """Rows from start to stop, in calls short enough for an interrupt to be heard in time."""
    step = max(1, CALL // work_per_row)
    return (slice(at, min(at + step, stop)) for at in range(start, stop, step))


def hessian(sample: RowSums, theta: Float64) -> Solve:
    """The Hessian, factorised."""
    n_columns, size = theta.shape
    if n_columns == 1:
        return _binary(sample, theta)
    free = n_columns - 1
    out = sample.free_hessian(theta)
    _linalg.add_hessian_of_penalty(sample.penalty, out)
    solve = solver(lambda _: out, np.zeros(1, np.intp), len(out))

    def apply(gradient: Float64) -> Float64:
        step = np.zeros((n_columns, size))
        step[:-1] = solve(gradient[: free * size]).reshape(free, size)
        _linalg.centre(step)
        return step.ravel()

    return apply


def classes(sample: RowSums, theta: Float64) -> Solve:
    """One block for each class."""
    if len(theta) == 1:
        return _binary(sample, theta)
    if not theta.any():  # all blocks are the same
        return gram(sample, theta)
    blocks = iter(sample.blocks(theta))
    return _centred(solver(lambda _: _penalised(next(blocks), sample), np.arange(len(theta)), theta.shape[1]))


def gram(sample: RowSums, theta: Float64) -> Solve:
    """One Gram matrix for all classes."""
    if len(theta) == 1:
        return _binary(sample, theta)
    matrix, sizes = sample.shared_gram(theta)
    matrix /= max(sizes.sum(), np.finfo(float).tiny)
    sizes = np.maximum(sizes, max(1e-12 * sizes.max(), np.finfo(float).tiny))
    groups = np.floor(np.log(sizes / sizes.min()) / np.log(SHARED)).astype(int)
    present, member = np.unique(groups, return_inverse=True)
    scales = [np.exp(np.log(sizes[member == number]).mean()) for number in range(len(present))]
    return _centred(solver(lambda k: scales[k] * matrix + np.diag(sample.penalty), member, theta.shape[1]))


def diagonal(sample: HasDiagonal, theta: Float64) -> Solve:
    """The diagonal of the Hessian."""
    inverse = sample.squares(theta)
    inverse += sample.penalty
    np.divide(1, inverse, out=inverse, where=inverse > 0)

    theta_shape = theta.shape

    def apply(gradient: Float64) -> Float64:
        step = gradient.reshape(theta_shape)
        step *= inverse
        if len(inverse) > 1:
            _linalg.centre(step)
        return step.ravel()

    return apply


def refined(sample: Sample, probability: Float64, model: Solve, left: float) -> Solve:
    """The Hessian of a sample, solved by conjugate gradients, which the model preconditions.

    The norm of what is left of the right side, in the metric of the model, is to be this share of what it was. In stiff
    coordinates the right side is zero, and so is what is left.
    """
    times, columns = sample.hessian_times(probability), probability.shape[1]
    stiff = sample.penalty >= STIFF
    penalty = np.where(stiff, 0, sample.penalty)

    def solve(rest: Float64) -> Float64:
        step, direction = np.zeros_like(rest), model(rest.copy())
        size = first = _linalg.dot(rest, direction)
        for number in range(MOST_PRODUCTS):
            matrix = direction.reshape(columns, -1)
            product = times(matrix)
            product += penalty * matrix
            product[:, stiff] = 0
            curvature = _linalg.dot(product.ravel(), direction)
            if not curvature > 0:  # by rounding, where there is hardly any
                return step if number else direction
            step += size / curvature * direction
            rest -= size / curvature * product.ravel()
            better = model(rest.copy())
            size, before = _linalg.dot(rest, better), size
            if not size > left**2 * first:
                break
            direction *= size / before
            direction += better
        return step

    return solve


def _centred(solve: Solve) -> Solve:
    def apply(gradient: Float64) -> Float64:
        step = solve(gradient)
        _linalg.centre(step)
        return step.ravel()

    return apply


def _penalised(matrix: Float64, sample: RowSums) -> Float64:
    np.einsum("jj->j", matrix)[:] += sample.penalty
    return matrix


def _binary(sample: RowSums, theta: Float64) -> Solve:
    """The Hessian of one column, for two classes."""
    lower = _penalised(next(iter(sample.blocks(theta))), sample)
    solve = solver(lambda _: lower, np.zeros(1, np.intp), len(lower))
    return lambda gradient: solve(gradient).ravel()


def solver(lower: Callable[[int], Float64], member: npt.NDArray[np.intp], size: int) -> Solve:
    """Solves row k with matrix number member[k], positive semi-definite, given by its lower triangle."""
    factors = np.empty((int(member.max()) + 1, size, size))
    units = np.empty((len(factors), size))

    for number, (factor, unit) in enumerate(zip(factors, units, strict=True)):
        matrix = lower(number)
        # A diagonal of ones, so that a feature with a huge penalty does not drown the others. Rounding, or fewer rows
        # than features, may leave the matrix singular: then the diagonal is raised until it is not.
        _linalg.equilibrate(matrix, unit)
        ridge = 1e-13
        while not _linalg.factorise(matrix, ridge, factor):
            ridge *= 100

    def solve(rows: Float64) -> Float64:
        answer = rows.reshape(len(member), size).copy()
        _linalg.solve(factors, units, member, answer)
        return answer

    return solve
