"""A step's descent by Adam or SGD compiled by Numba, for COMPILED = True.

What glr.training.descend does by a dozen passes over all weights, in one, or two if the gradient is
centralised. A core takes the inputs of the first layer whose gradient it has found itself
(glr.compiled): so both are at hand. What that saves: benchmarks/results/bench.md, part 7.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from glr.arrays import Array
from glr.compiled import ONLY_PRANGE, OPTIONS, PARTS, flat_parameters
from glr.network import Layer, n_parameters
from glr.optimizers import MEAN_SHARE, SQUARE_SHARE, Optimizer, adam, adam_factors, adam_state, sgd
from glr.training import Plan, Run, step_size

f4, i8 = np.float32, np.int64
compiled = njit(**OPTIONS)


class Weights(NamedTuple):
    """Parameters, their gradient and Adam's two moments: of all layers, flat, or of some rows.

    SGD has no moments; the gradient stands in their place.
    """

    parameters: Array
    gradient: Array
    mean: Array
    square: Array


class Factors(NamedTuple):
    """The penalty's weight decay, the step size, and the rest of Adam's, see glr.optimizers.adam.

    All are handed over: Numba's cache would not notice that a constant in another file has changed.
    """

    decay: f4
    rate: f4
    epsilon: f4 = f4(0)
    mean_share: f4 = f4(0)
    square_share: f4 = f4(0)


def covers(optimizer: Optimizer) -> bool:
    """Whether there is a compiled descent by an optimizer."""
    return optimizer in (adam, sgd)


def descend(run: Run, gradient: list[Layer], plan: Plan) -> None:
    """As glr.training.descend with Adam or SGD, up to rounding."""
    parameters, flat = run.network.parameters, flat_parameters(gradient)
    rate, decay = step_size(run, plan), f4(plan.weight_decay)
    if plan.optimizer is adam:
        mean, square, step = adam_state(parameters, run.optimizer_state)
        weights = Weights(parameters, flat, mean, square)
        factors = Factors(decay, *adam_factors(rate, step), MEAN_SHARE, SQUARE_SHARE)
    else:
        weights, factors = Weights(parameters, flat, flat, flat), Factors(decay, f4(rate))
    move(tuple(weights), np.array(run.network.sizes), plan.centralised, tuple(factors))


@njit(**OPTIONS, parallel=ONLY_PRANGE)
def move(of_weights: tuple, sizes: np.ndarray, centralised: bool, of_factors: tuple) -> None:
    """Change the parameters of an n_0-…-n_T network, and Adam's moments.

    Plain tuples are what Weights and Factors are made of, see glr.compiled.batch_sums.
    """
    weights, factors = Weights(*of_weights), Factors(*of_factors)
    sums = np.zeros((PARTS, sizes[1]), f4)
    if centralised:
        for part in prange(PARTS):
            add_rows(rows_of_part(weights, 0, sizes[:2], i8(part)).gradient, sums[part])
    for part in prange(PARTS):
        move_part(weights, sizes, i8(part), sums, factors)


@compiled
def move_part(
    weights: Weights, sizes: np.ndarray, part: int, sums: Array, factors: Factors
) -> None:
    """Change a part of the inputs' weights in every layer, and biases of every other layer."""
    start = 0
    for t in range(len(sizes) - 1):
        n_in, n = sizes[t], sizes[t + 1]
        mean, no_mean = np.zeros(n, f4), np.zeros(n, f4)
        if t == 0:
            for j in range(n):
                mean[j] = (sums[0, j] + sums[1, j]) / f4(n_in)
        move_rows(rows_of_part(weights, start, sizes[t : t + 2], part), mean, factors)
        if t % PARTS == part:
            biases = rows_of(weights, start + n_in * n, 1, n)
            move_rows(biases, no_mean, without_decay(factors))
        start += (n_in + 1) * n


@compiled
def without_decay(factors: Factors) -> Factors:
    """The factors of what is not penalised."""
    _, rate, epsilon, mean_share, square_share = factors
    return Factors(f4(0), rate, epsilon, mean_share, square_share)


@compiled
def rows_of_part(weights: Weights, start: int, sizes: np.ndarray, part: int) -> Weights:
    """A part's rows of the layer that begins at `start` and has so many inputs and neurons."""
    n_in, n = sizes
    first, end = part * n_in // PARTS, (part + 1) * n_in // PARTS
    return rows_of(weights, start + first * n, end - first, n)


@compiled
def rows_of(weights: Weights, start: int, n_rows: int, n: int) -> Weights:
    """So many rows of n each (n_rows, n), from `start` on."""
    own = slice(start, start + n_rows * n)
    return Weights(
        weights.parameters[own].reshape(n_rows, n),
        weights.gradient[own].reshape(n_rows, n),
        weights.mean[own].reshape(n_rows, n),
        weights.square[own].reshape(n_rows, n),
    )


@compiled
def add_rows(x: Array, sums: Array) -> None:
    """Add the rows (m, n) to sums (n,)."""
    for i in range(len(x)):
        for j in range(x.shape[1]):
            sums[j] += x[i, j]


@compiled
def move_rows(rows: Weights, mean_gradient: Array, factors: Factors) -> None:
    """Change rows (m, n); the gradient's mean (n,) is left out. Only Adam has a mean's share."""
    if factors.mean_share > 0:
        move_by_adam(rows, mean_gradient, factors)
    else:
        move_by_sgd(rows, mean_gradient, factors)


@compiled
def move_by_adam(rows: Weights, mean_gradient: Array, factors: Factors) -> None:
    """As glr.optimizers.adam."""
    parameters, gradient, mean, square = rows
    decay, rate, epsilon, mean_share, square_share = factors
    for i in range(len(parameters)):
        for j in range(parameters.shape[1]):
            slope = decay * parameters[i, j] + gradient[i, j] - mean_gradient[j]
            mean[i, j] += mean_share * (slope - mean[i, j])
            square[i, j] += square_share * (slope * slope - square[i, j])
            parameters[i, j] -= rate * (mean[i, j] / (math.sqrt(square[i, j]) + epsilon))


@compiled
def move_by_sgd(rows: Weights, mean_gradient: Array, factors: Factors) -> None:
    """As glr.optimizers.sgd."""
    parameters, gradient = rows.parameters, rows.gradient
    for i in range(len(parameters)):
        for j in range(parameters.shape[1]):
            slope = factors.decay * parameters[i, j] + gradient[i, j] - mean_gradient[j]
            parameters[i, j] -= factors.rate * slope


def prepare() -> None:
    """Compile the descent, or read it from the disk: now, and not in the time of the first step."""
    zeros = np.zeros(n_parameters([1, 1]), f4)
    move((zeros,) * 4, np.array([1, 1]), False, tuple(Factors(f4(0), f4(0))))
