"""Gradient estimators that a user would take instead of GLR's, by JAX, for one hidden layer.

Each takes a key (two words), the layers (W is (n_out, n_in)) and a batch, and returns the estimated
gradient of the batch's mean cross-entropy in every layer, the mean of `repeats` ones: of `glr` they
are spread, of all others independent.
Sigmoid neurons have no noise, but where it is said. Threshold neurons have that of LRT, and so do
the output logits then; the output layer has its exact derivative, as in the sources.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax, tree

from glr import network, xla
from glr.estimator import Method
from glr.network import Layer
from glr.noise import LOGISTIC_SCALE
from glr.xla import Layers
from glr.xla_noise import draw_gaussian, draw_logistic, random_words, uniform

SIGMA, OUTPUT_SIGMA = 1.0, 0.5  # deviations of the scripts' logistic noise, hidden and output
BETA = SIGMA * LOGISTIC_SCALE

Array = jax.Array
Batch = tuple[Array, Array]  # inputs x (n_in, B) and labels y (B,)
Estimator = Callable[[Array, Layers, Batch], Layers]

sigmoid = xla.ACTIVATIONS[network.sigmoid]


def keys_from(key: Array, n: int) -> Array:
    """Independent keys (n, 2) from one."""
    return random_words(key, (n, 2))


def mean_over(repeats: int, key: Array, estimate: Callable[[Array], object]) -> object:
    """The mean of what `estimate` gives for so many keys, one after the other."""

    def add(total: object, key: Array) -> tuple[object, None]:
        return tree.map(jnp.add, total, estimate(key)), None

    zeros = tree.map(lambda part: jnp.zeros(part.shape), jax.eval_shape(estimate, key))
    total, _ = lax.scan(add, zeros, keys_from(key, repeats))
    return tree.map(lambda part: part / repeats, total)


def logits_of(layer: Layer, x: Array) -> Array:
    """W x + b, (n_out, B)."""
    return layer.W @ x + layer.b[:, None]


def output_noise(key: Array, layers: Layers, y: Array) -> Array:
    """The noise of the output logits in one pass, (classes, B)."""
    return OUTPUT_SIGMA * draw_logistic(random_words(key, (len(layers[1].b), len(y))))[0]


def output_error(logits: Array, y: Array) -> Array:
    """∂ cross-entropy/∂ logits, (classes, B)."""
    return jax.nn.softmax(logits, axis=0) - (jnp.arange(len(logits))[:, None] == y)


def layer_gradient(delta: Array, x: Array) -> Layer:
    """A layer's gradient from ∂L/∂v (n_out, B) of each sample and the layer's inputs (n_in, B)."""
    return Layer(delta @ x.T / x.shape[1], delta.mean(axis=1))


def glr(key: Array, layers: Layers, batch: Batch, *, method: Method, repeats: int) -> Layers:
    """The project's own of so many passes, docs/method.md: unbiased with local differences."""
    method = replace(method, replicates=repeats)
    return xla.gradient(method, layers, *batch, keys_from(key, len(layers)))[0]


Losses = Callable[[Layers], Array]  # of changes of what is perturbed
Slope = Callable[[Losses, Layers], Array]  # of losses along a direction


def by_jvp(losses: Losses, direction: Layers) -> Array:
    """By forward differentiation."""
    return jax.jvp(losses, (tree.map(jnp.zeros_like, direction),), (direction,))[1]


def by_differences(size: float, losses: Losses, direction: Layers) -> Array:
    """By a central difference: the bias is O(size²)."""
    up, down = (losses(tree.map(partial(jnp.multiply, by), direction)) for by in (size, -size))
    return (up - down) / (2 * size)


def sign(words: Array) -> Array:
    """−1 or 1."""
    return 1 - 2 * (words >> 31).astype(jnp.float32)


def drawn_like(layers: Layers, key: Array, draw: Callable[[Array], Array]) -> Layers:
    """Independent draws in the shapes of the layers."""
    parts, form = tree.flatten(layers)
    shapes = [(len(part), part.size // len(part)) for part in parts]
    words = map(random_words, keys_from(key, len(parts)), shapes)
    drawn = [draw(w).reshape(part.shape) for w, part in zip(words, parts, strict=True)]
    return tree.unflatten(form, drawn)


def mean_loss(layers: Layers, batch: Batch, changes: Layers) -> Array:
    """The mean cross-entropy without noise, the layers changed by so much."""
    hidden, output = tree.map(jnp.add, layers, changes)
    return xla.cross_entropy(
        logits_of(output, sigmoid(logits_of(hidden, batch[0]))), batch[1]
    ).mean()


def by_weights(slope: Slope, key: Array, layers: Layers, batch: Batch, *, repeats: int) -> Layers:
    """The slope of the mean loss along a direction of all weights, times the direction."""

    def estimate(key: Array) -> Layers:
        direction = drawn_like(layers, key, sign)
        found = slope(partial(mean_loss, layers, batch), direction)
        return tree.map(lambda d: found * d, direction)

    return mean_over(repeats, key, estimate)


def by_logits(slope: Slope, key: Array, layers: Layers, batch: Batch, *, repeats: int) -> Layers:
    """The slope of each sample's loss along a direction of all its logits, times the direction."""
    x, y = batch
    v = logits_of(layers[0], x)

    def losses(changes: list[Array]) -> Array:
        hidden, output = changes
        return xla.cross_entropy(logits_of(layers[1], sigmoid(v + hidden)) + output, y)

    def estimate(key: Array) -> list[Array]:
        direction = drawn_like([v, jnp.zeros((len(layers[1].b), len(y)))], key, sign)
        found = slope(losses, direction)
        return [found * d for d in direction]

    deltas = mean_over(repeats, key, estimate)
    return [*map(layer_gradient, deltas, [x, sigmoid(v)])]


# Directions are of independent signs: of all laws they give the least variance.
# Simultaneous perturbation (SPSA; Spall 1992), by two losses. Biased by O(size²).
weight_perturbation = partial(by_weights, partial(by_differences, 1e-3))
# Forward gradients of the weights (Baydin et al. 2022, arXiv:2202.08587). Unbiased.
forward_gradient_of_weights = partial(by_weights, by_jvp)
# Forward gradients of the activations (Ren et al. 2023, arXiv:2210.03310). Unbiased.
forward_gradient_of_nodes = partial(by_logits, by_jvp)
# Node perturbation (as Dalm et al. 2023, arXiv:2310.00965, have it without decorrelation), by the
# losses under a noise and its opposite. Biased by O(size²).
node_perturbation = partial(by_logits, partial(by_differences, 0.01))


def evolution_strategy(
    key: Array, layers: Layers, batch: Batch, *, repeats: int, size: float = 0.02
) -> Layers:
    """Antithetic pairs, and the ranks of their losses (Salimans et al. 2017, arXiv:1703.03864)."""

    def pair(key: Array) -> tuple[Layers, Array]:
        noise = drawn_like(layers, key, lambda words: draw_gaussian(words)[0])
        changes = [tree.map(partial(jnp.multiply, by), noise) for by in (size, -size)]
        return noise, jnp.stack([mean_loss(layers, batch, change) for change in changes])

    noise, losses = lax.map(pair, keys_from(key, repeats))
    ranks = losses.ravel().argsort().argsort().reshape(losses.shape)
    weights = (ranks[:, 0] - ranks[:, 1]) / ((losses.size - 1) * losses.size * size)
    return tree.map(lambda part: jnp.tensordot(weights, part, 1), noise)


def by_derivatives(  # noqa: PLR0913, PLR0917  (two that make it an estimator)
    draw: Callable, feedback: Callable, key: Array, layers: Layers, batch: Batch, repeats: int
) -> Layers:
    """Backpropagation through the noise.

    draw : hidden outputs and slopes, by a key and the logits
    feedback : the weights to go back by, from those of the output layer
    """
    x, y = batch
    v, W = logits_of(layers[0], x), feedback(layers[1].W)

    def estimate(key: Array) -> tuple[Array, Layer]:
        first, last = keys_from(key, 2)
        h, slope = draw(first, v)
        error = output_error(logits_of(layers[1], h) + output_noise(last, layers, y), y)
        return slope * (W.T @ error), layer_gradient(error, h)

    delta, output = mean_over(repeats, key, estimate)
    return [layer_gradient(delta, x), output]


def noisy_sigmoids(key: Array, v: Array) -> tuple[Array, Array]:
    """Outputs and slopes under the noise of LRS."""
    h = sigmoid(v + SIGMA * draw_logistic(random_words(key, v.shape))[0])
    return h, h * (1 - h)


def noisy_bits(key: Array, v: Array) -> tuple[Array, Array]:
    """Outputs of threshold neurons under the noise of LRT, and the slopes of their means."""
    p = sigmoid(v / BETA)
    return (uniforms(key, v) < p).astype(jnp.float32), p * (1 - p) / BETA


def fixed_weights(W: Array) -> Array:
    """Uniform on (−1, 1), always the same."""
    return uniform(random_words(jnp.arange(2, dtype=jnp.uint32), W.shape), 1)


# Unbiased.
backpropagation = partial(by_derivatives, noisy_sigmoids, lambda W: W)
# Direct feedback alignment (Nøkland 2016, arXiv:1609.01596). Biased: it descends no function.
direct_feedback = partial(by_derivatives, noisy_sigmoids, fixed_weights)
# Bengio et al. 2013, arXiv:1308.3432. Biased: it takes the loss to be linear in the bits.
straight_through = partial(by_derivatives, noisy_bits, lambda W: W)


def bit_probabilities(layers: Layers, x: Array) -> Array:
    """How probably a threshold neuron of LRT is 1, (n, B)."""
    return sigmoid(logits_of(layers[0], x) / BETA)


def uniforms(key: Array, like: Array) -> Array:
    """Independent uniforms on (0, 1) in this shape."""
    return 0.5 + 0.5 * uniform(random_words(key, like.shape), 1)


def output_of(output: Layer, bits: Array, noise: Array, y: Array) -> tuple[Array, Layer]:
    """The losses (B,) of hidden bits (n, B), and the output layer's gradient."""
    z = logits_of(output, bits) + noise
    return xla.cross_entropy(z, y), layer_gradient(output_error(z, y), bits)


def reinforce(key: Array, layers: Layers, batch: Batch, *, repeats: int) -> Layers:
    """REINFORCE less the mean loss of the other passes (Kool et al. 2019). Unbiased."""
    x, y = batch
    p, (last, key) = bit_probabilities(layers, x), keys_from(key, 2)
    noise = output_noise(last, layers, y)

    def one_pass(key: Array) -> tuple[Array, tuple[Array, Layer]]:
        bits = (uniforms(key, p) < p).astype(jnp.float32)
        return bits, output_of(layers[1], bits, noise, y)

    bits, (losses, outputs) = lax.map(one_pass, keys_from(key, repeats))
    centred = (losses - losses.mean(axis=0)) / (repeats - 1)
    delta = jnp.einsum("rb,rib->ib", centred, bits)  # of bits − p: the centred sum up to 0
    return [layer_gradient(delta / BETA, x), tree.map(lambda g: g.mean(axis=0), outputs)]


def by_pairs(weigh: Callable, key: Array, layers: Layers, batch: Batch, *, repeats: int) -> Layers:
    """The difference of the losses of two antithetic draws of all bits, times half a weight.

    weigh : the weight by the bits' probability, both draws, and their uniforms, each (n, B)
    """
    x, y = batch
    p = bit_probabilities(layers, x)

    def pair(key: Array) -> tuple[Array, Layer]:
        first, last = keys_from(key, 2)
        u, noise = uniforms(first, p), output_noise(last, layers, y)
        both = [bits.astype(jnp.float32) for bits in (u > 1 - p, u < p)]
        (up, of_up), (down, of_down) = (output_of(layers[1], bits, noise, y) for bits in both)
        delta = 0.5 * (up - down) * weigh(p, *both, u)
        return delta, tree.map(lambda one, other: 0.5 * (one + other), of_up, of_down)

    delta, output = mean_over(repeats, key, pair)
    return [layer_gradient(delta / BETA, x), output]


# Augment-REINFORCE-merge (Yin & Zhou 2019, arXiv:1807.11143). Unbiased.
arm = partial(by_pairs, lambda p, up, down, u: 2 * u - 1)
# DisARM, or U2G: its mean given both bits (Dong et al. 2020, arXiv:2006.10680). Unbiased.
disarm = partial(by_pairs, lambda p, up, down, u: (up - down) * jnp.maximum(p, 1 - p))
