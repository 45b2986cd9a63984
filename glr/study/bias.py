"""The bias of equation (8): in which networks it is felt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from glr.data.datasets import load_dataset
from glr.differences import Output, by_class
from glr.estimator import Batch, Method, deltas, noisy_passes
from glr.losses import losses_of
from glr.network import Array, Layer, new_network
from glr.neurons import Bits, Neurons
from glr.scripts.console import progress_bar
from glr.scripts.constants import constants_of
from glr.scripts.run import layer_sizes, run_generator
from glr.study.comparison import method_of, moments_of

WIDTHS, SCALES, SIGMAS = ("5-5", "20-20", "50-50"), (1, 2, 4), (1.0, 0.25)
NETWORKS, SAMPLES, PASSES = 8, 32, 16


def bias_lines(draws: int) -> list[list[str]]:
    """Of the first layer, by so many gradients of each of NETWORKS new networks; a header first."""
    lines, data = [["bias of (8), %", "σ", "initial scale", *WIDTHS]], load_dataset("digits", "")
    batch = Batch(data.x_train[:SAMPLES].T, data.y_train[:SAMPLES])
    for name, sigma, scale in progress_bar([*product(("LRS", "LRT"), SIGMAS, SCALES)], "bias"):
        constants = vars(constants_of(f"{name}.py", []))
        method = Method(**method_of(constants) | {"sigma": (sigma,) * 3, "replicates": PASSES})
        lines.append([method.activation.__name__, f"{sigma:g}", f"{scale}"])
        for width in WIDTHS:
            squares, sizes = [], layer_sizes(data, [*map(int, width.split("-"))])
            for rng in map(run_generator, range(NETWORKS)):
                layers = new_network(sizes, method.activation, rng, scale).layers
                squares.append(squared_bias(method, layers, batch, draws, rng))
            lines[-1].append(percent(squares))
    return lines


def percent(squares: Sequence[float]) -> str:
    """The root of their mean in percent, and its standard error; or a bound if it is less."""
    mean, error = np.mean(squares), np.std(squares, ddof=1) / len(squares) ** 0.5
    if mean < error:
        return f"< {100 * (max(mean, 0) + 2 * error) ** 0.5:.1f}"
    return f"{100 * mean**0.5:.1f} ± {50 * error / mean**0.5:.1f}"


def squared_bias(
    method: Method, layers: list[Layer], batch: Batch, draws: int, rng: np.random.Generator
) -> float:
    """‖E[g − g*]‖²/‖E g*‖² of the first layer's g, by (8), and the unbiased g*, in expectation."""
    drawn = np.array([first_gradients(method, layers, batch, rng) for _ in range(draws)], float)
    parts = drawn[:, 0] - drawn[:, 1], drawn[:, 1]
    bias, size = (moments_of(g.sum(axis=0), np.square(g).sum(), draws)[0] for g in parts)
    return bias / size


@np.errstate(over="ignore")  # of bits that are sure
def first_gradients(
    method: Method, layers: list[Layer], batch: Batch, rng: np.random.Generator
) -> list[Array]:
    """The first of three layers' ∂W by (8), and unbiased, from the same noisy passes.

    Unbiased are (4) and (5): by a forward pass for each neuron, with all later noise as it was.
    """
    passes = noisy_passes(method, layers, batch.x, rng)
    first, second, last = passes.neurons
    losses = losses_of(method.loss, by_class(last.outputs), batch.y)
    output = Output(last.outputs, last.noise, losses, method.loss, batch.y)
    by_8, *_ = deltas(method, layers, passes, output)
    (change, unbiased), moved = first.reversal(), with_noise_of(second, passes.scales[1], rng)
    for i, W in enumerate(layers[1].W):
        x = moved(W[:, None, None] * change[i])
        z = last.outputs + np.tensordot(layers[2].W.T, x - second.outputs, 1)
        unbiased[i] *= losses - losses_of(method.loss, by_class(z), batch.y)
    count = losses.size * method.sigma[0]  # scores are those of deviation 1
    return [batch.x @ delta.sum(axis=1).T / count for delta in (by_8, unbiased)]


def with_noise_of(neurons: Neurons, scale: Array, rng: np.random.Generator) -> Callable:
    """The outputs of noisy neurons, their noise as it was, by how far their logits move."""
    if not isinstance(neurons, Bits):
        return lambda move: neurons.activation(neurons.v + neurons.noise + move)
    p, u = neurons.law.cdf(neurons.v), rng.random(neurons.outputs.shape, np.float32)
    u = np.where(neurons.outputs, u * p, p + u * (1 - p))  # uniform, given the bit u < p
    return lambda move: (u < neurons.law.cdf(neurons.v + move / scale)).astype(np.float32)
