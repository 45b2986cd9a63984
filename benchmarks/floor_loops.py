"""The loops of the floor's parts, compiled by Numba and shared out to two cores."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from glr.arrays import Array
from glr.compiled import OPTIONS, Step, noisy_neurons


@njit(**OPTIONS, parallel=True)
def noise_and_activations(step: Step, t: int, v: Array, tiles: int) -> Array:
    """Draw a layer's noisy neurons of so many tiles; an output of each tile."""
    found = np.empty(tiles, np.float32)
    for tile in prange(tiles):
        found[tile] = noisy_neurons(step, t, tile, v, step.samples).x[0, 0]
    return found


@njit(**OPTIONS, parallel=True)
def first_products(slabs: Array, W: Array, v: Array, delta: Array, sums: Array) -> None:
    """The first layer's products with inputs (parts, slabs, B, ·), before and after the noise."""
    for part in prange(len(slabs)):
        v[part] = 0
        for k in range(len(W)):
            v[part] += np.dot(slabs[part, k], W[k])
        for k in range(len(W)):
            np.dot(slabs[part, k].T, delta[part].T, sums[part, k])


@njit(**OPTIONS, parallel=True)
def later_products(W: Array, x: Array, z: Array, sums: Array) -> None:
    """A later layer's products with inputs (tiles, n_in, columns), before and after the noise."""
    for tile in prange(len(x)):
        np.dot(W.T, x[tile], z[tile])
        np.dot(x[tile], z[tile].T, sums[tile])
