"""The generalized likelihood ratio (GLR) gradient estimator, from forward passes alone.

For a network whose logits carry independent noise r^t = σ_t z of density f (docs/method.md),

    v^t = W^tᵀ x^t + b^t,    x^{t+1} = φ(v^t + r^t),    L = loss(v^{T−1} + r^{T−1}, y),

every layer's gradient of the expected loss is an expectation of the loss times a score:

    ∂E[L]/∂W^t_ji = E[ L x^t_j s(r^t_i) ],    ∂E[L]/∂b^t_i = E[ L s(r^t_i) ]              (1)

(Peng et al. 2022). Neither φ nor the loss is differentiated. Arrays are float32 and shaped
(replicates R, [output draws K,] neurons n, samples B); samples are columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from glr.errors import GLRError
from glr.losses import Loss
from glr.network import Activation, Layer, threshold
from glr.noise import (
    Array,
    NoiseLaw,
    empty_neurons_first,
    logistic,
    neurons_first,
    neurons_last_but_one,
    random_words,
)

PIECE = 16  # replicates in one product or sum, so that blocks of any size give the same bits
BLOCK_FLOATS = 2**20  # of noise per layer and block, 4 MB: smaller blocks cost more calls
KEPT_FLOATS = 2**23  # of activations and scores kept for all blocks (32 MB); beyond, replayed
SPREAD_FLOOR = 1e-3  # keeps the divisor of a standardised loss off zero


@dataclass(frozen=True)
class GLR:
    """What is estimated and how. The published estimator is `GLR(φ, loss, laplace, …)` with
    replicates R, output_draws 1 and every variance reduction off.

    activation, loss : plain callables, see glr.network and glr.losses; smooth or not
    noise : the law, at unit standard deviation
    sigma : standard deviation of each layer's noise, one per layer
    perturb : "logits", or "weights": every weight and bias of a neuron gets its own noise of
        standard deviation σ for each sample, which for Gaussian noise is exactly logit noise of
        σ√(1 + ‖x‖²) (Kingma et al. 2015); other laws are given the same standard deviation
    replicates : R, forward passes per sample
    output_draws : K, draws of the output layer's noise per replicate
    control_variate : subtract the mean loss of the sample's other forward passes
    conditional_score : replace a threshold neuron's score by its mean given the neuron's output
    standardised_loss : divide each sample's loss, in [0, 1], by its standard deviation over the
        passes plus the share of them that are right; this estimates the gradient of a rescaled
        risk, no longer that of E[L]
    layerwise : make one layer noisy at a time, the others noise-free (Jiang et al. 2024)
    """

    activation: Activation
    loss: Loss
    sigma: Sequence[float]
    noise: NoiseLaw = logistic
    perturb: str = "logits"
    replicates: int = 10
    output_draws: int = 1
    control_variate: bool = True
    conditional_score: bool = False
    standardised_loss: bool = False
    layerwise: bool = False


class Batch(NamedTuple):
    """Inputs x (n_in × B) float32 and integer labels y (B,)."""

    x: Array
    y: np.ndarray


class Gradient(NamedTuple):
    """∂E[L]/∂W, ∂E[L]/∂b for every layer, and the mean loss of the noisy forward passes."""

    layers: list[Layer]
    risk: float


class Noise(NamedTuple):
    """One layer's noise: its score at unit standard deviation (R, [K,] n, B), and its scale.

    The scale, the standard deviation that the noise had, is an array that fits (R, [K,] B).
    """

    score: Array
    scale: Array


class Passes(NamedTuple):
    """Forward passes of a block of replicates: every layer's input and noise, and the losses.

    An input is (n × B) where the replicates share it, else (R, n, B); losses are (R, K, B).
    """

    inputs: list[Array]
    noise: list[Noise | None]
    losses: Array


Streams = Sequence[np.random.Generator]


def glr_gradient(glr: GLR, layers: list[Layer], batch: Batch, streams: Streams) -> Gradient:
    """Estimate equation (1) for every layer, averaged over the batch.

    streams : one generator per layer, so that the noise is the same for any size of block. The
        sums are, too: they are taken over pieces of PIECE replicates, of which a block has a
        whole number, and added up from the first piece to the last.

    Raises GLRError if there is no other pass for the control variate.
    """
    if glr.control_variate and glr.replicates < 2:
        raise GLRError("the control variate needs 2 replicates or more; or switch it off")
    if not glr.layerwise:
        return _gradient_of_noisy_layers(glr, layers, batch, streams)
    parts = []
    for t in range(len(layers)):
        sigma = [s if u == t else 0.0 for u, s in enumerate(glr.sigma)]
        one_noisy_layer = replace(glr, sigma=sigma)
        parts.append(_gradient_of_noisy_layers(one_noisy_layer, layers, batch, streams))
    own_layers = [part.layers[t] for t, part in enumerate(parts)]
    return Gradient(own_layers, float(np.mean([part.risk for part in parts])))


def _gradient_of_noisy_layers(
    glr: GLR, layers: list[Layer], batch: Batch, streams: Streams
) -> Gradient:
    """Equation (1) for the layers whose σ is not zero; zeros for the others."""
    losses, blocks = _losses_and_blocks(glr, layers, batch, streams)
    R, K, B = losses.shape
    hidden_weights = loss_weights(glr, losses.mean(axis=1)) / (R * B)
    output_weights = loss_weights(glr, losses.reshape(R * K, B)).reshape(R, K, B) / (R * K * B)
    weights = [hidden_weights] * (len(layers) - 1) + [output_weights]
    sums: list[list[Array]] = [[] for _ in layers]
    start = 0
    for passes in blocks:
        block = slice(start, start + len(passes.losses))
        for total, x, noise, w in zip(sums, passes.inputs, passes.noise, weights, strict=True):
            for piece in _piece_sums(x, noise, w[block]):
                _add(total, piece)
        start = block.stop
    found = [
        layer_gradient(layer, x, total)
        for layer, x, total in zip(layers, passes.inputs, sums, strict=True)
    ]
    return Gradient(found, float(losses.mean()))


def _add(total: list[Array], piece: list[Array]) -> None:
    """Add in place; an empty total is zero."""
    if not total:
        total += piece
        return
    for a, b in zip(total, piece, strict=True):
        np.add(a, b, out=a)


def loss_weights(glr: GLR, losses: Array) -> Array:
    """What multiplies each forward pass's score in equation (1); losses (passes × B), same out.

    The control variate is the mean loss of the sample's *other* passes, which is independent of
    this pass's score, whose mean is zero: the estimate stays unbiased.
    """
    weights = losses
    if glr.control_variate:
        n = len(losses)
        weights = (losses - losses.mean(axis=0)) * np.float32(n / (n - 1))
    if glr.standardised_loss:
        share_right = np.clip(1 - losses.mean(axis=0), 0, 1)
        weights = weights / (losses.std(axis=0) + share_right + np.float32(SPREAD_FLOOR))
    return weights


def _piece_sums(x: Array, noise: Noise | None, weights: Array) -> Iterator[list[Array]]:
    """Each piece's share of what layer_gradient takes; weights are (R, B), or (R, K, B)."""
    if noise is None:
        return
    weights = weights / noise.scale
    passes = "rkb,rknb" if weights.ndim == 3 else "rb,rnb"
    for r in _pieces(len(weights)):
        if x.ndim == 2:
            yield [np.einsum(f"{passes}->nb", weights[r], noise.score[r])]
        else:
            delta = columns(np.einsum(f"{passes}->rnb", weights[r], noise.score[r]))
            yield [columns(x[r]) @ delta.T, delta.sum(axis=1)]


def _pieces(replicates: int) -> list[slice]:
    return [slice(r, r + PIECE) for r in range(0, replicates, PIECE)]


def layer_gradient(layer: Layer, x: Array, sums: list[Array]) -> Layer:
    """Equation (1): Σ weight·x·s for W and Σ weight·s for b, over replicates and samples.

    sums : both; or, where the replicates share x (n_in × B), Σ weight·s over them (n_out × B),
        which is multiplied with x here, once: the cost of the first layer's product does not
        grow with R, nor that of the output layer's with K; or nothing of a noise-free layer.
    """
    if not sums:
        return Layer(*map(np.zeros_like, layer))
    if x.ndim == 2:
        (delta,) = sums
        return Layer(x @ delta.T, delta.sum(axis=1))
    return Layer(*sums)


def columns(x: Array) -> Array:
    """All passes of a layer (…, n, B) as the columns of one matrix (n × columns)."""
    return neurons_first(x).reshape(x.shape[-2], -1)


def logits_of(layer: Layer, x: Array) -> Array:
    """Wᵀx + b for x (…, n_in, B), as one matrix product per piece of replicates: (…, n_out, B)."""
    b = layer.b[:, None]
    if x.ndim == 2:  # the batch, whose samples lie in memory one after the other
        return np.add((x.T @ layer.W).T, b, order="C")
    x_columns = columns(x)
    v = np.empty((b.size, x_columns.shape[1]), np.float32)
    of_pass = x_columns.shape[1] // len(x)
    for r in _pieces(len(x)):
        piece = slice(r.start * of_pass, r.stop * of_pass)
        np.add(layer.W.T @ x_columns[:, piece], b, out=v[:, piece])
    return neurons_last_but_one(v.reshape(-1, *x.shape[:-2], x.shape[-1]))


def _losses_and_blocks(
    glr: GLR, layers: list[Layer], batch: Batch, streams: Streams
) -> tuple[Array, Iterable[Passes]]:
    """All losses (R, K, B), and the forward passes in blocks of replicates.

    The losses come first because every weight needs all losses of its sample. Where the passes
    are too many to keep, they are forgotten, and replayed from the generators' states.
    """
    floats = max(glr.output_draws * layers[-1].b.size, *(b.size for _, b in layers))
    block_size = PIECE * max(1, BLOCK_FLOATS // (PIECE * floats * batch.y.size))
    parts = [glr]
    if glr.replicates > block_size:
        starts = range(0, glr.replicates, block_size)
        parts = [replace(glr, replicates=min(block_size, glr.replicates - r)) for r in starts]

    def walk() -> Iterator[Passes]:
        return (forward_passes(part, layers, batch, streams) for part in parts)

    if glr.replicates * floats * batch.y.size <= KEPT_FLOATS:
        blocks = list(walk())
        return np.concatenate([passes.losses for passes in blocks]), blocks
    states = [stream.bit_generator.state for stream in streams]
    losses = np.concatenate([passes.losses for passes in walk()])
    for stream, state in zip(streams, states, strict=True):
        stream.bit_generator.state = state
    return losses, walk()


def forward_passes(glr: GLR, layers: list[Layer], batch: Batch, streams: Streams) -> Passes:
    """R noisy forward passes of every sample, with K draws of the output noise in each."""
    x, inputs, noise = batch.x, [], []
    for t, layer in enumerate(layers):
        inputs.append(x)
        activation, draws = glr.activation, (glr.replicates,)
        if t == len(layers) - 1:
            activation, draws = _identity, (glr.replicates, glr.output_draws)
            x = x[..., None, :, :]  # the axis of the K draws
        v = logits_of(layer, x)
        scale = noise_scale(glr, t, x)
        shape = (*draws, *v.shape[-2:])
        if glr.sigma[t] == 0:
            x = np.asarray(activation(v), np.float32)
            noise.append(None)
            continue
        if activation is threshold and glr.conditional_score:
            x, score = binary_neurons(glr.noise, v / scale, shape, streams[t])
        else:
            r, score = glr.noise.draw(streams[t], shape)
            noisy = scale * r
            noisy += v
            x = np.asarray(activation(noisy), np.float32)
        noise.append(Noise(score, scale[..., 0, :]))
    losses = np.asarray(glr.loss(x, batch.y), np.float32)
    if losses.shape != x.shape[:-2] + x.shape[-1:]:
        raise GLRError(
            f"the loss gave shape {losses.shape} for logits {x.shape}: it must reduce the classes, "
            "the last axis but one, and keep the others"
        )
    return Passes(inputs, noise, losses)


def _identity(v: Array) -> Array:
    return v


def noise_scale(glr: GLR, t: int, x: Array) -> Array:
    """Standard deviation of layer t's logit noise, (…, 1, B): σ, or σ√(1 + ‖x‖²)."""
    if glr.perturb == "logits":
        return np.full((1, 1), glr.sigma[t], np.float32)
    return np.float32(glr.sigma[t]) * np.sqrt(1 + np.square(x).sum(axis=-2, keepdims=True))


def binary_neurons(
    law: NoiseLaw, v: Array, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[Array, Array]:
    """Outputs x ~ Bernoulli(F(v)) of threshold neurons, and their conditional scores E[s | x].

    Given the output, E[s | x = 1] = f(v)/F(v) and E[s | x = 0] = −f(v)/(1 − F(v)), that is
    score_gap(v)·(x − F(v)) (Rao-Blackwell: same mean, smaller variance). F is rounded down to a
    multiple of 2⁻¹⁶, in the draw and in the score alike, so that the score's mean is exactly 0.
    """
    levels = np.minimum(law.cdf(v) * np.float32(65536), np.float32(65535)).astype(np.uint16)
    x = empty_neurons_first(shape)
    np.less(random_words(rng, shape, np.uint16), levels, out=x)
    score = x - levels * np.float32(2**-16)
    score *= law.score_gap(v)
    return x, score
