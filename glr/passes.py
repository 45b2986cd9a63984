"""Forward passes of a noisy network: the losses, and what each neuron's noise did to them.

Arrays are float32 and shaped (replicates R, [output draws K,] neurons n, samples B); samples are
columns. Equation numbers are those of docs/method.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from glr.arrays import Array, columns, neurons_last_but_one
from glr.differences import Output, loss_differences, noise_growth
from glr.losses import Loss, losses_of
from glr.network import Activation, Layer, threshold
from glr.neurons import Logits, Neurons, binary_neurons, noisy_neurons, outputs_of
from glr.noise import NoiseLaw, logistic

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
    redraws : G; with local differences, in the hidden layers before the last: multiply each score
        by what the noise of its part of the layer, one of G, did to the loss (see redrawn_scores);
        0: by the whole loss
    layerwise : make one layer noisy at a time, the others noise-free (Jiang et al. 2024)
    gradient_of_group : what computes (1) for passes that are all kept: glr.compiled.gradient, which
        draws other noise; or None for glr.estimator's own, by NumPy
    """

    activation: Activation
    loss: Loss
    sigma: tuple[float, ...]
    noise: NoiseLaw = logistic
    perturb: str = "logits"
    replicates: int = 10
    output_draws: int = 1
    control_variate: bool = True
    conditional_score: bool = False
    standardised_loss: bool = False
    local_differences: bool = False
    redraws: int = 0
    layerwise: bool = False
    gradient_of_group: Callable | None = None

    def __post_init__(self) -> None:
        """Make sigma a tuple, whatever it was given as: glr.compiled keeps what it finds by GLR."""
        object.__setattr__(self, "sigma", tuple(self.sigma))


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


class Walk(NamedTuple):
    """What forward passes go through: of every layer so far its inputs, logits v and noisy neurons.

    scales : of the noise, arrays that fit v
    neurons : each layer's draws of its noise, of which the first is the passes'; none without noise
    """

    glr: GLR
    layers: list[Layer]
    inputs: list[Array]
    v: list[Array]
    scales: list[Array]
    neurons: list[list[Neurons]]


Streams = Sequence[np.random.Generator]


def forward_passes(glr: GLR, layers: list[Layer], batch: Batch, streams: Streams) -> Passes:
    """R noisy forward passes of every sample, with K draws of the output noise in each."""
    walk, x = Walk(glr, layers, [], [], [], []), batch.x
    for stream in streams:
        x = next_outputs(walk, x, stream)
    output = output_of(walk, x, batch.y)
    noise = [noise_of(walk, t, output) for t in range(len(layers))]
    return Passes(walk.inputs, noise, output.losses)


def next_outputs(walk: Walk, x: Array, rng: np.random.Generator) -> Array:
    """The noisy outputs of the walk's next layer, whose inputs are x; the walk goes on by it."""
    t = len(walk.v)
    walk.inputs.append(x)
    x = with_axis_of_draws(walk, t, x)
    walk.v.append(logits_of(walk.layers[t], x))
    walk.scales.append(noise_scale(walk.glr, t, x))
    if walk.glr.sigma[t] == 0:
        walk.neurons.append([])
        return outputs_of(activation_of(walk, t), walk.v[t])
    walk.neurons.append(layer_neurons(walk, t, rng))
    return walk.neurons[t][0].x


def layer_neurons(walk: Walk, t: int, rng: np.random.Generator) -> list[Neurons]:
    """Layer t's neurons with independent noise; twice, if it is drawn again."""
    glr, v = walk.glr, walk.v[t]
    K = (glr.output_draws,) if t == len(walk.layers) - 1 else ()
    draws = 2 if is_redrawn(glr, walk.layers, t) else 1
    logits = Logits(v, walk.scales[t], (glr.replicates, *K, *v.shape[-2:]), draws)
    activation = activation_of(walk, t)
    if activation is threshold and glr.conditional_score:
        return binary_neurons(glr.noise, logits, rng)
    return noisy_neurons(glr.noise, activation, logits, rng)


def noise_of(walk: Walk, t: int, output: Output) -> Noise | None:
    """Layer t's noise, if it has any; its score multiplied by what it did, if that is asked for."""
    if not walk.neurons[t]:
        return None
    is_asked = is_local(walk.glr, walk.layers, t)
    score = scores_of_differences(walk, t, output) if is_asked else walk.neurons[t][0].score
    return Noise(score, walk.scales[t][..., 0, :])


def activation_of(walk: Walk, t: int) -> Activation:
    """φ of layer t: none in the output layer."""
    return _identity if t == len(walk.layers) - 1 else walk.glr.activation


def with_axis_of_draws(walk: Walk, t: int, x: Array) -> Array:
    """Inputs of layer t, which for the output layer have an axis for the K draws."""
    return x[..., None, :, :] if t == len(walk.layers) - 1 else x


def is_local(glr: GLR, layers: list[Layer], t: int) -> bool:
    """Whether the scores of layer t are multiplied by local differences, of neurons or parts."""
    return glr.local_differences and (t >= len(layers) - 2 or glr.redraws > 0)


def is_redrawn(glr: GLR, layers: list[Layer], t: int) -> bool:
    """Whether the local differences of layer t are those of its parts."""
    return is_local(glr, layers, t) and t < len(layers) - 2


def output_of(walk: Walk, z: Array, y: np.ndarray) -> Output:
    """The losses of the walk's output logits z."""
    weight_noise = None
    if walk.glr.perturb == "weights" and walk.neurons[-1]:
        weight_noise = (z - walk.neurons[-1][0].opposite()[0]) / 2
    return Output(z, losses_of(walk.glr.loss, z, y), walk.glr.loss, y, weight_noise)


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


def scores_of_differences(walk: Walk, t: int, output: Output) -> Array:
    """Layer t's scores times what its noise did to the loss: each neuron's, or each part's."""
    if is_redrawn(walk.glr, walk.layers, t):
        return redrawn_scores(walk, t, output)
    W = walk.layers[-1].W if t < len(walk.layers) - 1 else None
    return local_scores(output, walk.neurons[t][0], W)


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


def redrawn_scores(walk: Walk, t: int, output: Output) -> Array:
    """½(s − s′)(L − L′) of each neuron (6), L′ being the loss with its part's noise drawn again.

    s′ is the score of that other noise, which is independent of L as s is of L′: so the products of
    these two have mean zero, and (6) has the mean of L·s. Shaped as the score.
    """
    drawn, again = walk.neurons[t]
    score = (drawn.score - again.score) * np.float32(0.5)
    for part in parts_of(score.shape[-2], walk.glr.redraws):
        x = drawn.x.copy(order="K")
        x[:, part] = again.x[:, part]
        losses = losses_of(output.loss, moved_logits(walk, t, part, x), output.y)
        score[:, part] *= (output.losses - losses).mean(axis=1)[:, None]
    return score


def parts_of(n: int, parts: int) -> list[slice]:
    """So many parts of n neurons, of nearly equal size; or n of one, if they are fewer."""
    ends = [n * part // min(n, parts) for part in range(min(n, parts) + 1)]
    return [slice(*of_part) for of_part in pairwise(ends)]


def moved_logits(walk: Walk, t: int, part: slice, x: Array) -> Array:
    """The output logits (R, K, n_out, B) if layer t gave x, which differs in a part of the neurons.

    All other noise stays as it is.
    """
    W, b = walk.layers[t + 1]
    change = x[:, part] - walk.neurons[t][0].x[:, part]
    v = walk.v[t + 1] + logits_of(Layer(W[part], np.zeros_like(b)), change)
    x = outputs_at(walk, t + 1, v, x)
    for u in range(t + 2, len(walk.layers)):
        x = with_axis_of_draws(walk, u, x)
        x = outputs_at(walk, u, logits_of(walk.layers[u], x), x)
    return x


def outputs_at(walk: Walk, t: int, v: Array, x: Array) -> Array:
    """What layer t gives at other logits v, of other inputs x, its noise being as it was."""
    if not walk.neurons[t]:
        return outputs_of(activation_of(walk, t), v)
    return walk.neurons[t][0].at(v, noise_scale(walk.glr, t, x))


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
