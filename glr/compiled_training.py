"""Steps of training compiled by Numba, many in one call, for COMPILED = True.

What glr.training.take_steps does step by step, for Adam and SGD: a batch's rows, its gradient by
the loops of glr/compiled.py, and the descent, by one or two passes over all weights for a dozen. A
core takes the inputs of the first layer whose gradient it has found itself: so both are at hand.
What it saves that Python has no part in a step: benchmarks/results/bench.md, part 7.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from glr import training
from glr.arrays import Array
from glr.compiled import (
    CORES,
    ONLY_PRANGE,
    OPTIONS,
    PARTS,
    STAGES,
    Shared,
    Step,
    call_write_parts,
    check_labels,
    make_callable,
    method_of,
    part_of,
    shared_of,
)
from glr.data import Dataset
from glr.estimator import check_passes, glr_estimator, group_sizes
from glr.network import Network, n_parameters
from glr.optimizers import MEAN_SHARE, SQUARE_SHARE, adam, adam_factors, adam_state, constant, sgd
from glr.passes import GLR
from glr.training import Plan, Run, check_finite, step_size

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


class Steps(NamedTuple):
    """What S steps are taken by: the training data x (N, n_0), y (N,); and, of each step (S, ·),

    rows : those of its batch; seeds : of each layer's random words; factors : its Factors
    centralised : whether the first layer's gradient is, in all of them
    """

    x: Array
    y: np.ndarray
    rows: np.ndarray
    seeds: np.ndarray
    factors: Array
    centralised: bool


def take_steps(run: Run, data: Dataset, batches: list[np.ndarray], plan: Plan) -> None:
    """As glr.training.take_steps, up to rounding.

    An optimizer without compiled loops goes by that; so does a step whose passes are too many to
    be kept (glr.estimator.group_sizes).
    """
    network, glr = run.network, run.estimator.glr
    rows = np.array(batches)
    B = rows.shape[1]
    if plan.optimizer not in (adam, sgd) or len(group_sizes(glr, network.layers, B)) > 1:
        training.take_steps(run, data, batches, plan)
        return
    check_passes(glr, network.layers)
    check_labels(data.y_train, network.sizes[-1])
    steps = steps_of(run, data, rows, plan)
    make_callable()
    method = method_of(glr, tuple(network.sizes), B)
    shared = shared_of(method.sizes, B)
    weights = weights_of(run, shared.sums, plan)
    risks = risks_of_steps(tuple(method), tuple(shared), tuple(weights), tuple(steps))
    run.step += len(risks)
    if plan.optimizer is adam:
        run.optimizer_state["step"] += len(risks)
    run.risks += risks.tolist()
    with np.errstate(over="ignore", invalid="ignore"):  # check_finite sees to it
        check_finite(run.risks[-1], network.parameters, run.step)


def steps_of(run: Run, data: Dataset, rows: np.ndarray, plan: Plan) -> Steps:
    """The run's next steps, by batches of these rows (S, B), as the loops are told them."""
    S = len(rows)
    words = [stream.bit_generator.random_raw(S) for stream in run.estimator.streams]
    return Steps(
        np.ascontiguousarray(data.x_train),
        np.ascontiguousarray(data.y_train, i8),
        rows,
        np.stack(words, axis=1),
        np.array([factors_at(step, plan) for step in range(run.step + 1, run.step + S + 1)], f4),
        plan.centralised,
    )


def factors_at(step: int, plan: Plan) -> Factors:
    """What the optimizer multiplies by at a step, counted from 1."""
    rate, decay = step_size(step, plan), plan.weight_decay
    if plan.optimizer is adam:
        return Factors(decay, *adam_factors(rate, step), MEAN_SHARE, SQUARE_SHARE)
    return Factors(decay, rate)


def weights_of(run: Run, gradient: Array, plan: Plan) -> Weights:
    """The run's weights and the optimizer's moments, with a place for the gradient."""
    parameters = run.network.parameters
    if plan.optimizer is adam:
        return Weights(parameters, gradient, *adam_state(parameters, run.optimizer_state)[:2])
    return Weights(parameters, gradient, gradient, gradient)


@njit(**OPTIONS, parallel=ONLY_PRANGE)
def risks_of_steps(
    of_method: tuple, of_shared: tuple, of_weights: tuple, of_steps: tuple
) -> np.ndarray:
    """Take steps; the mean losses of their batches, until one or the weights are not finite: (S,).

    The gradient is found as by glr.compiled.write_batch_sums, but that is not called: Numba's cache
    would not notice that it has changed. Plain tuples are what the named ones are made of.
    """
    steps, weights, shared = Steps(*of_steps), Weights(*of_weights), Shared(*of_shared)
    S, B = steps.rows.shape
    sizes = of_method[0]
    x, y, risks = np.empty((B, sizes[0]), f4), np.empty(B, i8), np.empty(S)
    for step in range(S):
        for part in prange(PARTS):
            write_batch(steps, step, i8(part), x, y)
        now = Step(*of_method, weights.parameters, x, y, steps.seeds[step])
        for stage in range(STAGES):
            for core in prange(CORES):
                call_write_parts(now, stage, i8(core), shared)
        risks[step] = shared.losses.sum() / (B * now.R * now.K)
        move(of_weights, sizes, steps.centralised, steps.factors[step])
        parameters = weights.parameters
        if not (math.isfinite(risks[step]) and math.isfinite(np.dot(parameters, parameters))):
            return risks[: step + 1]
    return risks


@compiled
def write_batch(steps: Steps, step: int, part: int, x: Array, y: np.ndarray) -> None:
    """Write a part of a step's batch: inputs (B, n_0) and labels (B,)."""
    first, end = part_of(len(y), part)
    for b in range(first, end):
        row = steps.rows[step, b]
        of_row, into = steps.x[row], x[b]
        for j in range(len(into)):
            into[j] = of_row[j]
        y[b] = steps.y[row]


@njit(**OPTIONS, parallel=ONLY_PRANGE)
def move(of_weights: tuple, sizes: np.ndarray, centralised: bool, of_factors: Array) -> None:
    """Change the parameters of an n_0-…-n_T network, and Adam's moments, by Factors (5,)."""
    decay, rate, epsilon, mean_share, square_share = of_factors
    factors = Factors(decay, rate, epsilon, mean_share, square_share)
    weights = Weights(*of_weights)
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
    first, end = part_of(n_in, part)
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


def prepare(glr: GLR) -> None:
    """Compile the steps, or read them from the disk: now, and not in the time of the first one.

    One is taken of a network that is not kept. Raises GLRError for a method without compiled loops.
    """
    sizes = [1] * len(glr.sigma) + [2]
    network = Network(np.zeros(n_parameters(sizes), f4), sizes, glr.activation)
    run = Run(network, glr_estimator(glr, np.random.Generator(np.random.SFC64(0))))
    x, y = np.zeros((1, 1), f4), np.zeros(1, i8)
    plan = Plan(glr.loss, sgd, 1, 1, 0.0, constant, 0.0, False, 1)
    take_steps(run, Dataset("none", x, y, x, y), [np.zeros(1, i8)], plan)
