"""Weighted samples: equal ones merged, minibatches drawn in proportion to the weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from glr.network import Array


class Samples(NamedTuple):
    """Inputs x (N, n_in) float32, class numbers y (N,) and weights (N,) > 0."""

    x: Array
    y: np.ndarray
    weights: np.ndarray


def distinct(x: Array, y: np.ndarray, weights: np.ndarray) -> Samples:
    """The samples of positive weight in a fixed order, equal ones once with their weights' sum.

    So two copies of a sample are one of weight 2, to the last bit, and no order of theirs matters.

    Raises ValueError if there is none.
    """
    x = x + np.float32(0)  # −0 becomes 0: rows are compared by their bytes
    keyed = np.ascontiguousarray(np.column_stack([x, y.astype(np.float32)]))
    rows = keyed.view(np.dtype((np.void, keyed[0].nbytes))).ravel()
    _, first, numbers = np.unique(rows, return_index=True, return_inverse=True)
    sums = np.bincount(numbers.ravel(), weights)
    kept = sums > 0
    if not kept.any():
        raise ValueError("sample_weight: all weights are zero; give one that is not")
    return Samples(x[first[kept]], y[first[kept]], sums[kept])


def drawn_rows(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows for an epoch of N samples, (N,), in random order: each drawn N·weight/Σ weights times.

    That is so in the mean, and up to less than 1 always (systematic sampling, Madow & Madow 1944).
    Equal weights give each row once.
    """
    n = len(weights)
    ends = np.cumsum(weights) * (n / weights.sum())
    rows = np.searchsorted(ends, rng.random() + np.arange(n), side="right")
    return rng.permutation(rows.clip(max=n - 1))  # ends[-1] may be rounded down
