"""The data sets of the training benchmark, made from fixed seeds: (X float64, y)."""

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine, make_classification

Data = tuple[np.ndarray, np.ndarray]


def _labels(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One label per row, drawn from the softmax of the scores (Gumbel's trick)."""
    return (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)


def spread_scales() -> Data:
    """20000 x 50, K=7: feature scales spread over e^N(0, 2), means shifted."""
    rng = np.random.default_rng(1)
    Z = rng.standard_normal((20000, 50))
    y = _labels(Z @ rng.standard_normal((50, 7)) * 0.4, rng)
    return (Z + 3 * rng.standard_normal(50)) * np.exp(2 * rng.standard_normal(50)), y


def redundant() -> Data:
    """20000 x 100, K=10: 50 of the features are combinations of others."""
    return make_classification(
        n_samples=20000,
        n_features=100,
        n_informative=40,
        n_redundant=50,
        n_classes=10,
        n_clusters_per_class=2,
        class_sep=1.5,
        random_state=2,
    )


def cover() -> Data:
    """500000 x 54, K=7: ten raw numeric columns of very different scale and 44 indicators in two groups."""
    rng = np.random.default_rng(3)
    n = 500000
    numeric = np.column_stack(
        [
            rng.normal(2960, 280, n),
            rng.uniform(0, 360, n),
            rng.gamma(3.5, 4, n),
            rng.gamma(1.6, 170, n),
            rng.normal(46, 58, n),
            rng.gamma(2.3, 1020, n),
            rng.normal(212, 27, n),
            rng.normal(223, 20, n),
            rng.normal(142, 38, n),
            rng.gamma(2.2, 900, n),
        ]
    )
    groups = [rng.choice(size, p=rng.dirichlet(np.full(size, 0.5)), size=n) for size in (4, 40)]
    X = np.hstack([numeric, *(np.eye(size)[group] for size, group in zip((4, 40), groups, strict=True))])
    Z = (X - X.mean(axis=0)) / X.std(axis=0).clip(1e-3)
    scores = Z @ rng.standard_normal((54, 7)) * 0.5 + np.log([0.36, 0.49, 0.06, 0.005, 0.016, 0.03, 0.035])
    return X, _labels(scores, rng)


def pixels() -> Data:
    """60000 x 784, K=10: integer pixels 0 to 255, most of them zero: blurred strokes around the middle of 28 x 28."""
    rng = np.random.default_rng(4)
    n = 60000
    y = rng.integers(10, size=n)
    grid = np.arange(28)
    X = np.zeros((n, 784))
    anchors = rng.uniform(7, 20, (10, 4, 2))
    for part in np.array_split(np.arange(n), 60):
        points = anchors[y[part]] + rng.normal(0, 1.6, (len(part), 4, 2)) + rng.normal(0, 1, (len(part), 1, 2))
        width = rng.uniform(1.2, 2.2, (len(part), 1, 1))
        bumps = [
            np.exp(-(((grid - points[:, j, axis, None]) / width[:, 0]) ** 2)) for j in range(4) for axis in range(2)
        ]
        image = sum(bumps[2 * j][:, :, None] * bumps[2 * j + 1][:, None, :] for j in range(4))
        X[part] = np.floor(255 * np.clip(1.2 * image - 0.15, 0, 1)).reshape(len(part), 784)
    return X, y


def many_classes() -> Data:
    """50000 x 512, K=100: Gaussian classes that overlap, correlated features with a power-law spectrum."""
    rng = np.random.default_rng(5)
    n, d, n_classes = 50000, 512, 100
    spectrum = np.arange(1, d + 1) ** -0.8
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    centers = rng.standard_normal((n_classes, d)) * spectrum * 0.5
    y = rng.integers(n_classes, size=n)
    return (centers[y] + rng.standard_normal((n, d)) * spectrum) @ rotation.T, y


def two_classes() -> Data:
    """100000 x 20, K=2: raw features of different scale and mean."""
    rng = np.random.default_rng(6)
    Z = rng.standard_normal((100000, 20)) @ (np.eye(20) + 0.3 * rng.standard_normal((20, 20)))
    y = (Z @ rng.standard_normal(20) * 0.5 + rng.logistic(size=100000) > 0).astype(int)
    return (Z + 2 * rng.standard_normal(20)) * 10 ** rng.uniform(-2, 3, 20), y


def text(
    n: int = 60000, d: int = 55000, n_classes: int = 57, words: int = 14, seed: int = 8
) -> tuple[csr_array, np.ndarray]:
    """tf-idf of short texts, words after Zipf's law, each class with words of its own."""
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    length = rng.poisson(words, n) + 1
    row = np.repeat(np.arange(n, dtype=np.int32), length)
    rank = np.arange(1, d + 1)
    word = np.searchsorted(np.cumsum(1 / rank) / np.sum(1 / rank), rng.random(len(row)))
    own = rng.random(len(row)) < 0.3
    word[own] = (word[own] % 400) * n_classes + y[row[own]] + 100
    counts = csr_array((np.ones(len(row)), (row, word.astype(np.int32))), shape=(n, d))
    idf = np.log((1 + n) / (1 + np.bincount(counts.indices, minlength=d))) + 1
    counts.data = counts.data * idf[counts.indices]
    norm = np.sqrt(np.bincount(np.repeat(np.arange(n), np.diff(counts.indptr)), counts.data**2, n))
    counts.data /= np.repeat(norm, np.diff(counts.indptr))
    return counts, y


def one_hot() -> tuple[csr_array, np.ndarray]:
    """330000 x 4200, K=16: indicators of nine categorical columns, nearly separable."""
    rng = np.random.default_rng(9)
    n, n_classes, sizes = 330000, 16, [5, 12, 40, 143, 300, 500, 800, 1000, 1400]
    starts = np.cumsum([0, *sizes[:-1]])
    column = [
        start + rng.choice(k, n, p=rng.dirichlet(np.full(k, 0.3))) for start, k in zip(starts, sizes, strict=True)
    ]
    indices = np.column_stack(column).astype(np.int32)
    scores = rng.standard_normal((sum(sizes), n_classes)) * 1.5
    y = _labels(scores[indices].sum(axis=1), rng)
    indptr = np.arange(n + 1, dtype=np.int32) * len(sizes)
    return csr_array((np.ones(indices.size), indices.ravel(), indptr), shape=(n, sum(sizes))), y


def informative() -> Data:
    """20000 x 200, K=5: 20 features tell the classes apart, 180 are noise."""
    return make_classification(
        n_samples=20000,
        n_features=200,
        n_informative=20,
        n_redundant=0,
        n_classes=5,
        n_clusters_per_class=1,
        class_sep=1.0,
        random_state=11,
    )


def gaussian() -> Data:
    """20000 x 100, K=10: Gaussian classes that overlap, of equal covariance."""
    rng = np.random.default_rng(10)
    y = rng.integers(10, size=20000)
    return 0.3 * rng.standard_normal((10, 100))[y] + rng.standard_normal((20000, 100)), y


def tiny() -> Data:
    """100 x 5, K=3."""
    rng = np.random.default_rng(7)
    X = rng.standard_normal((100, 5))
    return X, _labels(2 * X @ rng.standard_normal((5, 3)), rng)


SMALL: dict[str, Callable[[], Data]] = {
    "iris": lambda: load_iris(return_X_y=True),
    "wine": lambda: load_wine(return_X_y=True),
    "breast_cancer": lambda: load_breast_cancer(return_X_y=True),
    "digits": lambda: load_digits(return_X_y=True),
}
LARGE: dict[str, Callable[[], Data]] = {
    "20000 x 50, K=7": spread_scales,
    "20000 x 100, K=10": redundant,
    "500000 x 54, K=7": cover,
    "60000 x 784, K=10": pixels,
    "50000 x 512, K=100": many_classes,
    "100000 x 20, K=2": two_classes,
}
# For L1 and the elastic net, and of texts.
SELECTION: dict[str, Callable[[], Data]] = {
    "digits": SMALL["digits"],
    "breast_cancer": SMALL["breast_cancer"],
    "20000 x 200, K=5": informative,
}
TEXTS: dict[str, Callable[[], tuple[csr_array, np.ndarray]]] = {
    "text 20000 x 50000, K=20": lambda: text(20000, 50000, 20, 50, seed=12),
}
WIDE: dict[str, Callable[[], tuple[csr_array, np.ndarray]]] = {
    "text 200000 x 100000, K=20": lambda: text(200000, 100000, 20, 50, seed=13),
}
# Sets that have one optimum without penalty.
OVERLAPPING = ("20000 x 50, K=7", "100000 x 20, K=2")
