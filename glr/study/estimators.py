"""Gradient estimators that a user would take instead of GLR's, by JAX, of one hidden layer.

Each takes a key (two words), the layers (W is (n_out, n_in)), inputs x (n_in, B) and labels y (B,),
and returns an estimate of the gradient of the batch's mean cross-entropy in every layer, the mean
of `repeats` independent ones. Sigmoid neurons have no noise, but where it is said. Threshold
neurons have that of LRT, and so do their output logits; the output layer has its exact derivative
in each pass, as in the sources.
"""

from __future__ import annotations

from collections.abc import Callable

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


# ---------------------------------------------------------------- parts


def keys_from(key: Array, n: int) -> Array:
    """Independent keys (n, 2), from one."""
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


def mean_loss(layers: Layers, batch: Batch) -> Array:
    """The mean cross-entropy in the network of sigmoids, without noise."""
    x, y = batch
    hidden, output = layers
    return xla.cross_entropy(logits_of(output, sigmoid(logits_of(hidden, x))), y).mean()


def output_error(logits: Array, y: Array) -> Array:
    """∂ cross-entropy/∂ logits, (classes, B)."""
    return jax.nn.softmax(logits, axis=0) - (jnp.arange(len(logits))[:, None] == y)


def gradient_of(deltas: list[Array], inputs: list[Array]) -> Layers:
    """Every layer's gradient from ∂L/∂v (n, B) of each sample and the layer's inputs."""
    return [
        Layer(d @ x.T / x.shape[1], d.mean(axis=1)) for d, x in zip(deltas, inputs, strict=True)
    ]


def normal(words: Array) -> Array:
    """N(0, 1)."""
    return draw_gaussian(words)[0]


def sign(words: Array) -> Array:
    """−1 or 1."""
    return 1 - 2 * (words >> 31).astype(jnp.float32)


def noise_like(layers: Layers, key: Array, draw: Callable[[Array], Array]) -> Layers:
    """Independent draws in the shapes of the layers."""
    parts, form = tree.flatten(layers)
    keys = keys_from(key, len(parts))
    drawn = [
        draw(random_words(k, (len(part), part.size // len(part)))).reshape(part.shape)
        for k, part in zip(keys, parts, strict=True)
    ]
    return tree.unflatten(form, drawn)


def moved(layers: Layers, by: float | Array, direction: Layers) -> Layers:
    """The layers, moved so far in a direction."""
    return tree.map(lambda w, d: w + by * d, layers, direction)


# ---------------------------------------------------------------- any neurons


def glr(key: Array, layers: Layers, batch: Batch, *, method: Method, repeats: int) -> Layers:
    """The project's own, docs/method.md, of so many passes. Unbiased here."""
    n = len(layers) - 1 + method.output_draws
    keys = keys_from(key, repeats * n).reshape(repeats, n, 2)
    return xla.gradient(method, layers, *batch, keys)[0]


def backpropagation(key: Array, layers: Layers, batch: Batch, *, repeats: int) -> Layers:
    """Backpropagation through the noise of LRS. Unbiased."""
    return propagated_back(layers[1].W, key, layers, batch, repeats)


def direct_feedback(key: Array, layers: Layers, batch: Batch, *, repeats: int) -> Layers:
    """The same with fixed random weights backward (Nøkland 2016, arXiv:1609.01596).

    Biased: its hidden layer descends no function.
    """
    return propagated_back(feedback_weights(layers[1].W.shape), key, layers, batch, repeats)


def feedback_weights(shape: tuple[int, int]) -> Array:
    """Uniform on (−1, 1), the same always."""
    return uniform(random_words(jnp.arange(2, dtype=jnp.uint32), shape), 1)


def propagated_back(W: Array, key: Array, layers: Layers, batch: Batch, repeats: int) -> Layers:
    """Backpropagation by the weights W (classes, n) through the noise of LRS."""
    x, y = batch
    v = logits_of(layers[0], x)

    def estimate(key: Array) -> tuple[Array, Layer]:
        first, last = keys_from(key, 2)
        h = sigmoid(v + SIGMA * draw_logistic(random_words(first, v.shape))[0])
        z = logits_of(layers[1], h) + output_noise(last, layers, len(y))
        error = output_error(z, y)
        return h * (1 - h) * (W.T @ error), gradient_of([error], [h])[0]

    delta, of_output = mean_over(repeats, key, estimate)
    return [*gradient_of([delta], [x]), of_output]


def output_noise(key: Array, layers: Layers, samples: int) -> Array:
    """The noise of the output logits in one pass, (classes, B)."""
    return OUTPUT_SIGMA * draw_logistic(random_words(key, (len(layers[1].b), samples)))[0]


def weight_perturbation(
    key: Array, layers: Layers, batch: Batch, *, repeats: int, size: float = 1e-3
) -> Layers:
    """Simultaneous perturbation of all weights by ±size (SPSA; Spall 1992): two losses.

    Biased by O(size²).
    """

    def estimate(key: Array) -> Layers:
        signs = noise_like(layers, key, sign)
        up, down = (mean_loss(moved(layers, by, signs), batch) for by in (size, -size))
        return tree.map(lambda sign: (up - down) / (2 * size) * sign, signs)

    return mean_over(repeats, key, estimate)


def evolution_strategy(
    key: Array, layers: Layers, batch: Batch, *, repeats: int, size: float = 0.02
) -> Layers:
    """OpenAI's: `repeats` antithetic pairs, centred ranks (Salimans et al. 2017, arXiv:1703.03864).

    Ranks in place of losses: along a gradient, but not of its length.
    """

    def pair(key: Array) -> tuple[Layers, Array]:
        noise = noise_like(layers, key, normal)
        losses = [mean_loss(moved(layers, by, noise), batch) for by in (size, -size)]
        return noise, jnp.stack(losses)

    noise, losses = lax.map(pair, keys_from(key, repeats))
    ranks = losses.ravel().argsort().argsort().reshape(losses.shape)
    weights = (ranks[:, 0] - ranks[:, 1]) / ((losses.size - 1) * losses.size * size)
    return tree.map(lambda part: jnp.tensordot(weights, part, 1), noise)


def forward_gradient(key: Array, layers: Layers, batch: Batch, *, repeats: int) -> Layers:
    """The derivative along a normal direction of all weights, times it (Baydin et al. 2022).

    Unbiased. By jvp. arXiv:2202.08587.
    """

    def estimate(key: Array) -> Layers:
        noise = noise_like(layers, key, normal)
        _, slope = jax.jvp(lambda layers: mean_loss(layers, batch), (layers,), (noise,))
        return tree.map(lambda direction: slope * direction, noise)

    return mean_over(repeats, key, estimate)


Slopes = Callable[[Callable[[list[Array]], Array], list[Array]], Array]


def by_logits(slopes: Slopes, repeats: int, key: Array, layers: Layers, batch: Batch) -> Layers:
    """The slope of each sample's loss along normal directions of all its logits, times these.

    slopes : (B,) from a function of the logits' changes, and the direction
    """
    x, y = batch
    v = logits_of(layers[0], x)

    def losses(changes: list[Array]) -> Array:
        hidden, output = changes
        return xla.cross_entropy(logits_of(layers[1], sigmoid(v + hidden)) + output, y)

    def estimate(key: Array) -> list[Array]:
        keys = keys_from(key, 2)
        shapes = [(len(layer.b), len(y)) for layer in layers]
        noise = [normal(random_words(k, s)) for k, s in zip(keys, shapes, strict=True)]
        slope = slopes(losses, noise)
        return [slope * direction for direction in noise]

    return gradient_of(mean_over(repeats, key, estimate), [x, sigmoid(v)])


def forward_gradient_of_activations(
    key: Array, layers: Layers, batch: Batch, *, repeats: int
) -> Layers:
    """Forward gradients by directions of each sample's logits (Ren et al. 2023, arXiv:2210.03310).

    Unbiased. By jvp.
    """

    def slopes(losses: Callable, noise: list[Array]) -> Array:
        return jax.jvp(losses, (tree.map(jnp.zeros_like, noise),), (noise,))[1]

    return by_logits(slopes, repeats, key, layers, batch)


def node_perturbation(
    key: Array, layers: Layers, batch: Batch, *, repeats: int, size: float = 0.01
) -> Layers:
    """The same by two losses, of normal noise in all neurons and of its opposite.

    As in Dalm et al. (2023, arXiv:2310.00965), without decorrelation. Biased by O(size²).
    """

    def slopes(losses: Callable, noise: list[Array]) -> Array:
        up, down = (losses([by * part for part in noise]) for by in (size, -size))
        return (up - down) / (2 * size)

    return by_logits(slopes, repeats, key, layers, batch)


# ---------------------------------------------------------------- threshold neurons


def bit_logits(layers: Layers, x: Array) -> Array:
    """a, (n, B): a threshold neuron of LRT is 1 with the probability sigmoid(a)."""
    return logits_of(layers[0], x) / BETA


def uniforms(key: Array, like: Array) -> Array:
    """Independent uniforms on (0, 1) in this shape."""
    return 0.5 + 0.5 * uniform(random_words(key, like.shape), 1)


def output_of(output: Layer, bits: Array, noise: Array, y: Array) -> tuple[Array, Layer]:
    """The losses (B,) of hidden bits (n, B), and the output layer's gradient."""
    z = logits_of(output, bits) + noise
    return xla.cross_entropy(z, y), gradient_of([output_error(z, y)], [bits])[0]


def reinforce(key: Array, layers: Layers, batch: Batch, *, repeats: int) -> Layers:
    """REINFORCE less the mean loss of the other passes (Kool et al. 2019). Unbiased."""
    x, y = batch
    a = bit_logits(layers, x)
    p = sigmoid(a)
    last, key = keys_from(key, 2)
    noise = output_noise(last, layers, len(y))

    def one_pass(key: Array) -> tuple[Array, tuple[Array, Layer]]:
        bits = (uniforms(key, a) < p).astype(jnp.float32)
        return bits, output_of(layers[1], bits, noise, y)

    bits, (losses, of_output) = lax.map(one_pass, keys_from(key, repeats))
    centred = (losses - losses.mean(axis=0)) / (repeats - 1)
    delta = jnp.einsum("rb,rib->ib", centred, bits)  # of bits − p: the centred sum up to 0
    return [*gradient_of([delta / BETA], [x]), tree.map(lambda g: g.mean(axis=0), of_output)]


Weigh = Callable[[Array, Array, Array, Array], Array]  # by p, both bits, and the uniforms


def by_pairs(weigh: Weigh, repeats: int, key: Array, layers: Layers, batch: Batch) -> Layers:
    """The difference of the losses of two antithetic draws of all bits, times half a weight."""
    x, y = batch
    a = bit_logits(layers, x)
    p = sigmoid(a)

    def pair(key: Array) -> tuple[Array, Layer]:
        first, last = keys_from(key, 2)
        u, noise = uniforms(first, a), output_noise(last, layers, len(y))
        both = [bits.astype(jnp.float32) for bits in (u > 1 - p, u < p)]
        (up, of_up), (down, of_down) = (output_of(layers[1], bits, noise, y) for bits in both)
        delta = 0.5 * (up - down) * weigh(p, *both, u)
        return delta, tree.map(lambda one, other: 0.5 * (one + other), of_up, of_down)

    delta, of_output = mean_over(repeats, key, pair)
    return [*gradient_of([delta / BETA], [x]), of_output]


def arm(key: Array, layers: Layers, batch: Batch, *, repeats: int) -> Layers:
    """Augment-REINFORCE-merge, pairs of passes (Yin & Zhou 2019, arXiv:1807.11143). Unbiased."""
    return by_pairs(lambda p, up, down, u: 2 * u - 1, repeats, key, layers, batch)


def disarm(key: Array, layers: Layers, batch: Batch, *, repeats: int) -> Layers:
    """DisARM, or U2G: the mean of ARM given both bits (Dong et al. 2020, arXiv:2006.10680).

    Unbiased.
    """
    return by_pairs(
        lambda p, up, down, u: (up - down) * jnp.maximum(p, 1 - p), repeats, key, layers, batch
    )


def straight_through(key: Array, layers: Layers, batch: Batch, *, repeats: int) -> Layers:
    """Backpropagation by the slope of a bit's probability (Bengio et al. 2013, arXiv:1308.3432).

    Biased: it takes the loss to be linear in the bits.
    """
    x, y = batch
    a = bit_logits(layers, x)
    p = sigmoid(a)

    def estimate(key: Array) -> tuple[Array, Layer]:
        first, last = keys_from(key, 2)
        bits = (uniforms(first, a) < p).astype(jnp.float32)
        error = output_error(logits_of(layers[1], bits) + output_noise(last, layers, len(y)), y)
        return p * (1 - p) * (layers[1].W.T @ error), gradient_of([error], [bits])[0]

    delta, of_output = mean_over(repeats, key, estimate)
    return [*gradient_of([delta / BETA], [x]), of_output]
