"""Forward passes of a noisy network: its neurons' outputs, their noise's scores, the losses.

Arrays are float32 and shaped (replicates R, [output draws K,] neurons n, samples B); samples are
columns. Equation numbers are those of docs/method.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from glr.arrays import Array, columns, empty_neurons_first, neurons_last_but_one
from glr.differences import Output, loss_differences, noise_growth
from glr.errors import GLRError
from glr.losses import Loss, losses_of
from glr.network import Activation, Layer, threshold
from glr.noise import NoiseLaw, logistic, noise_and_score, random_words

PIECE_COLUMNS = 1280  # passes × samples in one product, see piece_size


@dataclass(frozen=True)
class GLR:
    """What is estimated and how; glr.comparison.published_estimator gives the published one.

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
    standardised_loss : divide each sample's 0-1 loss by its standard deviation over the passes
        plus the share of them that are right; this estimates the gradient of another risk than
        E[L], see docs/method.md, section 9
    local_differences : in the output layer and the last hidden one, multiply each neuron's score
        by what its own noise did to the loss (see local_scores)
    layerwise : make one layer noisy at a time, the others noise-free (Jiang et al. 2024)
    gradient_of_group : what computes (1) for passes that are all kept: glr.compiled.gradient, which
        draws other noise; or None for glr.estimator's own, by NumPy
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
    local_differences: bool = False
    layerwise: bool = False
    gradient_of_group: Callable | None = None


class Batch(NamedTuple):
    """Inputs x (n_in × B) float32 and integer labels y (B,)."""

    x: Array
    y: np.ndarray


class Noise(NamedTuple):
    """One layer's noise: its score at unit standard deviation (R, [K,] n, B), and its scale.

    The scale, the standard deviation that the noise had, is an array that fits (R, [K,] B).
    With local differences the score is already multiplied by them.
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


class Logits(NamedTuple):
    """Logits v of a layer (…, n, B), which noise in every element of `shape` is to be added to.

    scale : the noise's standard deviation, an array that fits v
    shape : (R, [K,] n, B), which v fits
    """

    v: Array
    scale: Array
    shape: tuple[int, ...]


class Neurons(NamedTuple):
    """Outputs x of a layer's neurons and the scores of their noise, (R, [K,] n, B).

    opposite() : what the outputs would be had the noise gone the other way, and s(x)·P(x | x or
        its opposite): half the score of noise, ±f(v) of a bit. A function, since few are asked.
    """

    x: Array
    score: Array
    opposite: Callable[[], tuple[Array, Array]]


Streams = Sequence[np.random.Generator]


def forward_passes(glr: GLR, layers: list[Layer], batch: Batch, streams: Streams) -> Passes:
    """R noisy forward passes of every sample, with K draws of the output noise in each."""
    x, inputs, noise, drawn = batch.x, [], [], []
    for t, layer in enumerate(layers):
        inputs.append(x)
        activation, draws = glr.activation, (glr.replicates,)
        if t == len(layers) - 1:
            activation, draws = _identity, (glr.replicates, glr.output_draws)
            x = x[..., None, :, :]  # the axis of the K draws
        v = logits_of(layer, x)
        if glr.sigma[t] == 0:
            x = outputs_of(activation, v)
            noise.append(None)
            drawn.append(None)
            continue
        logits = Logits(v, noise_scale(glr, t, x), (*draws, *v.shape[-2:]))
        drawn.append(layer_neurons(glr, activation, logits, streams[t]))
        noise.append(Noise(drawn[t].score, logits.scale[..., 0, :]))
        x = drawn[t].x
    output = output_of(glr, x, drawn[-1], batch.y)
    for t in range(len(layers)):
        if is_local(glr, layers, t) and drawn[t] is not None:
            W = layers[-1].W if t < len(layers) - 1 else None
            score = local_scores(output, drawn[t], W)
            noise[t] = noise[t]._replace(score=score)
    return Passes(inputs, noise, output.losses)


def is_local(glr: GLR, layers: list[Layer], t: int) -> bool:
    """Whether the scores of layer t are multiplied by local differences."""
    return glr.local_differences and t >= len(layers) - 2


def output_of(glr: GLR, z: Array, neurons: Neurons | None, y: np.ndarray) -> Output:
    """The losses of output logits z, which `neurons` drew unless their noise is zero."""
    weight_noise = None
    if glr.perturb == "weights" and neurons is not None:
        weight_noise = (z - neurons.opposite()[0]) / 2
    return Output(z, losses_of(glr.loss, z, y), glr.loss, y, weight_noise)


def logits_of(layer: Layer, x: Array) -> Array:
    """Wᵀx + b for x (…, n_in, B), as one matrix product per piece of replicates: (…, n_out, B)."""
    b = layer.b[:, None]
    if x.ndim == 2:  # the batch, whose samples lie in memory one after the other
        return np.add((x.T @ layer.W).T, b, order="C")
    x_columns = columns(x)
    v = np.empty((b.size, x_columns.shape[1]), np.float32)
    of_pass = x_columns.shape[1] // len(x)
    for r in pieces(len(x), x.shape[-1]):
        piece = slice(r.start * of_pass, r.stop * of_pass)
        np.add(layer.W.T @ x_columns[:, piece], b, out=v[:, piece])
    return neurons_last_but_one(v.reshape(-1, *x.shape[:-2], x.shape[-1]))


def piece_size(B: int) -> int:
    """The replicates of B samples that one product or sum is taken over.

    It depends on nothing else, so that blocks of any number of pieces give the same bits. A
    product of so few columns stays in the cache, and BLAS does not copy the operands of small
    layers first (what that saves: benchmarks/results/bench.md, part 7).
    """
    return max(1, PIECE_COLUMNS // B)


def pieces(replicates: int, B: int) -> list[slice]:
    """The replicates, a piece at a time."""
    return [slice(r, r + piece_size(B)) for r in range(0, replicates, piece_size(B))]


def _identity(v: Array) -> Array:
    return v


def noise_scale(glr: GLR, t: int, x: Array) -> Array:
    """Standard deviation of layer t's logit noise, (…, 1, B): σ, or σ√(1 + ‖x‖²)."""
    if glr.perturb == "logits":
        return np.full((1, 1), glr.sigma[t], np.float32)
    return np.float32(glr.sigma[t]) * np.sqrt(1 + np.square(x).sum(axis=-2, keepdims=True))


def layer_neurons(
    glr: GLR, activation: Activation, logits: Logits, rng: np.random.Generator
) -> Neurons:
    """Neurons of the given logits, with independent noise in every element of their shape."""
    if activation is threshold and glr.conditional_score:
        return binary_neurons(glr, logits, rng)
    return noisy_neurons(glr.noise, activation, logits, rng)


def noisy_neurons(
    law: NoiseLaw, activation: Activation, logits: Logits, rng: np.random.Generator
) -> Neurons:
    """Outputs φ(v + σr). The noise's law is symmetric: −r has the probability of r."""
    v, scale, shape = logits
    r, score = noise_and_score(law, rng, shape)
    noisy = scale * r
    noisy += v
    x = outputs_of(activation, noisy)

    def opposite() -> tuple[Array, Array]:
        return outputs_of(activation, v - scale * r), score * np.float32(0.5)

    return Neurons(x, score, opposite)


def outputs_of(activation: Activation, v: Array) -> Array:
    """φ(v) as float32; GLRError if the activation gives another shape."""
    x = np.asarray(activation(v), np.float32)
    if x.shape != v.shape:
        raise GLRError(
            f"the activation gave shape {x.shape} for logits {v.shape}: it must be elementwise"
        )
    return x


def binary_neurons(glr: GLR, logits: Logits, rng: np.random.Generator) -> Neurons:
    """Outputs x ~ Bernoulli(F(v)) of threshold neurons, and their conditional scores E[s | x].

    With v in units of the noise, E[s | x = 1] = f(v)/F(v) and E[s | x = 0] = −f(v)/(1 − F(v)),
    that is score_gap(v)·(x − F(v)) (3). F is rounded down to a multiple of 2⁻¹⁶, in the draw and
    in the score alike, so that the score's mean is exactly 0.
    """
    v = logits.v / logits.scale
    p, gap = glr.noise.cdf(v), glr.noise.score_gap(v)
    levels = np.minimum(p * np.float32(65536), np.float32(65535)).astype(np.uint16)
    x, score = bernoulli(random_words(rng, logits.shape, np.uint16), levels, gap)
    return Neurons(x, score, lambda: (1 - x, (2 * x - 1) * (gap * p * (1 - p))))


def bernoulli(words: np.ndarray, levels: np.ndarray, gap: Array | float) -> tuple[Array, Array]:
    """Neurons that are 1 where a random 16-bit word is below p's level; and gap·(x − p)."""
    x = empty_neurons_first(words.shape)
    np.less(words, levels, out=x)
    score = x - levels * np.float32(2**-16)
    score *= gap
    return x, score


def local_scores(output: Output, neurons: Neurons, W: Array | None) -> Array:
    """Each neuron's score times what its own noise did to the loss (4), (5); shaped as the score.

    The loss is compared with what it is for the neuron's opposite output, all else being as it
    was: E[L s] is the mean of P(x)·s·(L − L of the opposite), P(x) being the probability of x,
    given that it is one of the two. That is antithetic noise (Hammersley & Morton 1956), and for
    binary neurons the exact mean over their noise (Titsias & Lázaro-Gredilla 2015).

    W : what a neuron's output adds to the output logits (n × n_out); None if it is one of them
    """
    opposite, score = neurons.opposite()
    change, growth = opposite - neurons.x, None
    if W is None:
        return score * loss_differences(output, W, change, growth)
    if output.weight_noise is not None:
        growth = noise_growth(neurons.x, opposite)
    return score * loss_differences(output, W, change[:, None], growth)[:, 0]


def weighted_sums(weights: Array, score: Array, replicates: int) -> Array:
    """Σ weight·score over the draws, and over so many replicates at a time: (sums, n, B).

    weights : (R, B) for scores (R, n, B), or (R, K, B) for scores (R, K, n, B)
    """
    passes = "rkb,rknb" if weights.ndim == 3 else "rb,rnb"
    if replicates == 1:
        return np.einsum(f"{passes}->rnb", weights, score)
    starts = range(0, len(weights), replicates)
    sums = np.empty((len(starts), *score.shape[-2:]), np.float32)
    for total, start in zip(sums, starts, strict=True):
        r = slice(start, start + replicates)
        np.einsum(f"{passes}->nb", weights[r], score[r], out=total)
    return sums
