"""Types of arrays, and how those of noisy passes lie in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
State = dict[str, np.ndarray]  # what a part of training changes, to be stored and restored


def neurons_first(x: Array) -> Array:
    """The view (n, …, B) of an array (…, n, B)."""
    n = x.ndim
    return x.transpose(n - 2, *range(n - 2), n - 1)


def neurons_last_but_one(x: Array) -> Array:
    """The view (…, n, B) of an array (n, …, B)."""
    return x.transpose(*range(1, x.ndim - 1), 0, x.ndim - 1)


def empty_neurons_first(shape: tuple[int, ...]) -> Array:
    """An empty float32 array (…, n, B) that lies in memory as (n, …, B).

    So all columns of a layer are one matrix (n × columns) without a copy, and reductions over
    the neurons add whole rows (what that saves: benchmarks/results/bench.md, part 7).
    """
    *passes, n, B = shape
    return neurons_last_but_one(np.empty((n, *passes, B), np.float32))


def columns(x: Array) -> Array:
    """All passes of a layer (…, n, B) as the columns of one matrix (n × columns)."""
    return neurons_first(x).reshape(x.shape[-2], -1)
