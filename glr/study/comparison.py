"""How much better an estimator is: relative variance, and accuracy against time, as pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import islice

import numpy as np

from glr.data.datasets import Dataset
from glr.estimator import Method, gradient
from glr.network import Network, new_network
from glr.optimizers import adam, cosine
from glr.scripts.run import Gradient, layer_sizes, minibatches

BATCH = 128
HALF_TRAINED_STEPS = 500


def method_of(constants: dict[str, object]) -> dict[str, object]:
    """The keyword arguments of `gradient`, but for rng, that a script's constants are."""
    return {argument.name: constants[argument.name.upper()] for argument in fields(Method)}


def half_trained_network(
    method: dict[str, object],
    data: Dataset,
    rng: np.random.Generator,
    hidden: Sequence[int] = (50,),
) -> Network:
    """A network after a few hundred steps of Adam along the estimate by the method.

    method : keyword arguments of `gradient`, but for rng
    hidden : neurons in the hidden layers
    """
    network = new_network(layer_sizes(data, hidden), method["activation"], rng)
    batches = minibatches(len(data.x_train), BATCH, rng)
    state = {}
    for step, rows in enumerate(islice(batches, HALF_TRAINED_STEPS)):
        x, y = data.x_train[rows], data.y_train[rows]
        estimate = gradient(network.layers, x, y, **method, rng=rng)
        slope = np.concatenate([part.ravel() for layer in estimate.layers for part in layer])
        adam(network.parameters, slope, 0.005 * cosine(step, HALF_TRAINED_STEPS), state)
    return network


def relative_variance(estimate: Callable[[], Gradient], draws: int) -> float:
    """E‖g − E g‖² / ‖E g‖² of the first layer's weights, from so many independent estimates g.

    ‖E g‖² is that of their mean less the variance that the mean has left.
    """
    total, squares = 0.0, 0.0
    for _ in range(draws):
        g = estimate().layers[0].W.astype(np.float64)
        total += g
        squares += float(np.sum(g * g))
    mean_square, variance = moments_of(total, squares, draws)
    return variance / mean_square


def moments_of(total: np.ndarray, squares: float, draws: int) -> tuple[float, float]:
    """‖E g‖² and E‖g − E g‖² of gradients g, unbiased: from their sum and the sum of their ‖g‖²."""
    mean_square = float(np.sum(total * total)) / draws**2
    variance = (squares / draws - mean_square) * draws / (draws - 1)
    return mean_square - variance / draws, variance
