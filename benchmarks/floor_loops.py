"""The loops of the floor's parts, compiled by Numba and shared out to two cores.

Each goes through its part as often in one call as our compiled step is taken in one. They are
compiled in every run: Numba's cache would not notice that glr/compiled.py has changed.
"""

from __future__ import annotations

import numpy as np
from glr.arrays import Array
from glr.compiled import (
    ONLY_PRANGE,
    PARTS,
    Step,
    noisy_neurons,
    part_of,
    write_product,
)
from numba import njit, prange
from step_loops import AT_ONCE, OWN_OPTIONS

parallel = njit(**OWN_OPTIONS, parallel=ONLY_PRANGE)
compiled = njit(**OWN_OPTIONS)


@parallel
def noise_and_activations(step: Step, t: int, v: Array, tiles: int) -> Array:
    """Draw a layer's noisy neurons of so many tiles; an output of each tile."""
    found = np.empty(tiles, np.float32)
    for _ in range(AT_ONCE):
        for tile in prange(tiles):
            found[tile] = noisy_neurons(step, t, tile, v, step.samples).x[0, 0]
    return found


@parallel
def first_products(x: Array, W: Array, v: Array, delta: Array, sums: Array) -> None:
    """The first layer's products, before the noise and after it, by parts of the inputs.

    v (PARTS, B, n) of x (B, n_in) and W (n_in, n); sums (n_in, n) of x and delta (n, B).
    """
    for _ in range(AT_ONCE):
        for part in prange(PARTS):
            write_products_of_part(part, x, W, v[part])
            write_sums_of_part(part, x, delta, sums)


@compiled
def write_products_of_part(part: int, x: Array, W: Array, v: Array) -> None:
    """Write xW for a part of the inputs."""
    first, end = part_of(len(W), part)
    write_product(x[:, first:end], W[first:end], v)


@compiled
def write_sums_of_part(part: int, x: Array, delta: Array, sums: Array) -> None:
    """Write Σ x·delta for a part of the inputs."""
    first, end = part_of(len(sums), part)
    write_product(x[:, first:end].T, delta.T, sums[first:end])


@parallel
def later_products(W: Array, x: Array, z: Array, sums: Array) -> None:
    """A later layer's products with inputs (tiles, n_in, columns), before and after the noise."""
    for _ in range(AT_ONCE):
        for tile in prange(len(x)):
            write_product(W.T, x[tile], z[tile])
            write_product(x[tile], z[tile].T, sums[tile])
