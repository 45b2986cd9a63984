"""The generalized likelihood ratio (GLR) estimate of a network's gradient, from loss values alone.

The logits v of every layer carry independent noise r of standard deviation σ (docs/method.md):

    v^t = W^tᵀ x^t + b^t,    x^{t+1} = φ(v^t + r^t),    L = loss(v^{T−1} + r^{T−1}, y)

and every layer's gradient of the expected loss is an expectation of the loss times a score:

    ∂E[L]/∂W^t_ji = E[ L x^t_j s(r^t_i) ],    ∂E[L]/∂b^t_i = E[ L s(r^t_i) ]              (1)

(Peng et al. 2022). Neither φ nor the loss is differentiated. In this file arrays have the neurons
first and the samples last, (n, R, B) for R noisy passes of B samples: so a layer in all passes is
one matrix (n, R·B), and a reduction over classes adds whole rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import numpy as np

from glr.checks import check_method, checked_batch, checked_layers, checked_sigma
from glr.differences import Output, by_class, columns, loss_differences, noise_growth
from glr.errors import GLRError
from glr.losses import Loss, losses_of
from glr.network import Activation, Array, Layer, identity, threshold
from glr.neurons import Bits, Neurons, NoisyNeurons
from glr.noise import NoiseLaw, logistic, noise_and_score, random_words

# Passes are kept in groups, so that memory stays bounded at any R.
FLOATS_AT_ONCE = 2**20  # numbers in the largest array of a group
PASSES_AT_ONCE = 16  # in a group at the least, whatever the size


@dataclass(frozen=True)
class Estimate:
    """The estimated gradient of the batch's mean expected loss.

    layers : ∂E[L]/∂W (n_in, n_out) and ∂E[L]/∂b (n_out,) of every layer
    risk : the mean loss of the noisy passes, which estimates E[L]
    """

    layers: list[Layer]
    risk: float
    _first_weights: Array
    _first_deltas: Array

    @property
    def inputs(self) -> Array:
        """∂E[L]/∂x of each sample's own loss, not of the mean over the batch, (B, n_in): W·δ.

        With noise on the weights, that is at a fixed deviation of the noise, which grows with x.
        """
        return (self._first_weights @ self._first_deltas).T


@dataclass(frozen=True)
class Method:
    """What is estimated and how: the arguments of `gradient`, with one σ for each layer."""

    activation: Activation
    loss: Loss
    noise: NoiseLaw
    sigma: tuple[float, ...]
    perturb: str
    replicates: int
    local_differences: bool | str
    control_variate: bool
    standardised_loss: bool


class Batch(NamedTuple):
    """Inputs x (n_in, B) and the targets y of B samples."""

    x: Array
    y: np.ndarray


def gradient(
    layers: Sequence[Layer],
    x: Array,
    y: np.ndarray,
    *,
    activation: Activation,
    loss: Loss,
    noise: NoiseLaw = logistic,
    sigma: float | Sequence[float] = 1.0,
    perturb: str = "logits",
    replicates: int = 2,
    local_differences: bool | str = True,
    control_variate: bool = True,
    standardised_loss: bool = False,
    rng: np.random.Generator,
) -> Estimate:
    """Estimate equation (1) for every layer, averaged over the batch.

    layers : weights W (n_in, n_out) and biases b (n_out,) of each layer, first to last
    x : inputs (B, n_in), samples in rows
    y : targets of B samples, handed to the loss as they are
    activation : φ of the hidden neurons, elementwise
    loss : from logits (…, classes, B) and y to one number a pass and sample, (…, B)
    noise, sigma : law and standard deviation; one σ, two (hidden, output), or one a layer
    perturb : "logits"; or "weights", where the noise of a logit has deviation σ√(1 + ‖x‖²)
    replicates : R, noisy forward passes of each sample
    local_differences : True: (4), (5) in the last two layers, (8) before them; "output": (4) in the
        output layer, (8) before it, with n_out + 1 loss values a pass; False: (1) with (2) in every
        layer, which alone is unbiased at any depth
    control_variate : where (1) is used, subtract the mean loss of the sample's other passes (2)
    standardised_loss : divide each sample's 0-1 loss by √(q(1 − q)) + q: another risk's (7)
    rng : all randomness; the same state gives the same bits, on one thread of BLAS

    Raises GLRError, in one line, for what does not fit.

    Sources: Peng et al., INFORMS J. on Computing 34(1), 2022; Jiang et al., ICLR 2024.
    """
    layers = checked_layers(layers)
    batch = Batch(*checked_batch(layers, x, y, loss))
    method = Method(
        activation,
        loss,
        noise,
        checked_sigma(sigma, len(layers)),
        perturb,
        replicates,
        local_differences,
        control_variate,
        standardised_loss,
    )
    check_method(method, rng)
    groups = groups_of_passes(replicates, max(b.size for _, b in layers) * batch.x.shape[1])
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if len(groups) == 1:
            return estimate_of_passes(method, layers, batch, rng)
        methods = (replace(method, replicates=R) for R in groups)
        parts = (estimate_of_passes(one, layers, batch, rng) for one in methods)
        return mean_estimate(parts, groups)


def groups_of_passes(R: int, floats: int) -> list[int]:
    """R in groups of nearly equal size, each as large as may be kept; a pass has so many floats.

    Each group is spread, and has a control variate (2) and a q, by itself: few would be noisy.
    """
    n_groups = -(-R // max(PASSES_AT_ONCE, FLOATS_AT_ONCE // max(1, floats)))
    return [(R + group) // n_groups for group in range(n_groups)]


def mean_estimate(parts: Iterable[Estimate], sizes: list[int]) -> Estimate:
    """The mean of estimates from groups of passes of these sizes, added up one by one."""
    total, risk = [], 0.0
    for part, size in zip(parts, sizes, strict=True):
        share = np.float32(size / sum(sizes))
        arrays = [share * array for array in (*chain(*part.layers), part._first_deltas)]
        total = (
            [np.add(a, b, out=a) for a, b in zip(total, arrays, strict=True)] if total else arrays
        )
        risk += float(share) * part.risk
    *arrays, first_deltas = total
    layers = [Layer(W, b) for W, b in zip(arrays[::2], arrays[1::2], strict=True)]
    return Estimate(layers, risk, part._first_weights, first_deltas)


class Passes(NamedTuple):
    """R noisy forward passes: each layer's inputs, its noise's deviation, and its neurons.

    An input is (n_in, R, B), or (n_in, 1, B) where the passes share it; a deviation fits (R, B).
    """

    inputs: list[Array]
    scales: list[Array]
    neurons: list[Neurons]


def estimate_of_passes(
    method: Method, layers: list[Layer], batch: Batch, rng: np.random.Generator
) -> Estimate:
    """Equation (1) from R noisy passes of every sample, which are all kept."""
    passes = noisy_passes(method, layers, batch.x, rng)
    z, noise = passes.neurons[-1].outputs, passes.neurons[-1].noise
    losses = losses_of(method.loss, by_class(z), batch.y)
    weight = np.float32(1 / losses.size)  # of a pass and sample in the mean
    if method.standardised_loss:
        weight = weight / deviation_and_share_right(losses)
    output = Output(z, noise, losses, method.loss, batch.y)
    weighted = []  # δ, or of the first layer, whose input all passes share, its sum over them
    for t, delta in enumerate(deltas(method, layers, passes, output)):
        over_passes = delta.sum(axis=1) if t == 0 else delta
        weighted.append(columns(over_passes * (weight / passes.scales[t])))
    found = [
        Layer(columns(x) @ delta.T, delta.sum(axis=1))
        for x, delta in zip(passes.inputs, weighted, strict=True)
    ]
    of_samples = weighted[0] * np.float32(losses.shape[1])
    return Estimate(found, float(losses.mean()), layers[0].W.copy(), of_samples)


def noisy_passes(method: Method, layers: list[Layer], x: Array, rng: np.random.Generator) -> Passes:
    """R noisy forward passes of the inputs x (n_in, B)."""
    passes, x = Passes([], [], []), x[:, None]
    for t, (W, b) in enumerate(layers):
        v = (columns(x).T @ W).T if t == 0 else W.T @ columns(x)  # by how x lies in memory
        v = np.add(v, b[:, None], order="C").reshape(b.size, *x.shape[1:])
        scale = noise_scale(method, t, x)
        passes.inputs.append(x)
        passes.scales.append(scale)
        activation = method.activation if t < len(layers) - 1 else identity
        shape = drawn = b.size, method.replicates, x.shape[-1]
        if not method.local_differences:  # (2) wants independent passes: drawn as samples are
            drawn = b.size, 1, method.replicates * x.shape[-1]
        if activation is threshold and method.noise.cdf is not None:
            words = random_words(rng, drawn).reshape(shape)
            neurons = Bits(method.noise, v, scale, words)
        else:
            parts = noise_and_score(method.noise, rng, drawn)
            r, score = (part.reshape(shape) for part in parts)
            neurons = NoisyNeurons(activation, v, scale * r, score)
        passes.neurons.append(neurons)
        x = neurons.outputs
    return passes


def noise_scale(method: Method, t: int, x: Array) -> Array:
    """The deviation of layer t's noise: σ; of noise on the weights σ√(1 + ‖x‖²), (R, B).

    Noise N(0, σ²) on each weight and bias, independent and anew for each sample, is just that of
    the logit (Kingma et al. 2015). Other laws are given the same deviation.
    """
    sigma = np.float32(method.sigma[t])
    return sigma if method.perturb == "logits" else sigma * np.sqrt(1 + np.square(x).sum(axis=0))


def deltas(method: Method, layers: list[Layer], passes: Passes, output: Output) -> list[Array]:
    """σ·δ of every layer, (n, R, B): δ is an estimate of ∂E[L]/∂v in each pass.

    Scores are those of noise at deviation 1: hence the σ.
    """
    if not method.local_differences:
        factors = centred(method, output.losses)
        return [neurons.score * factors for neurons in passes.neurons]
    n_local = 1 if method.local_differences == "output" else 2
    found = local_scores(method, layers[-1].W, passes.neurons[-n_local:], output)
    for t in reversed(range(len(layers) - n_local)):
        W, next_delta = layers[t + 1].W, found[0] / passes.scales[t + 1]
        found.insert(0, carried_back(passes.neurons[t], W, next_delta))
    return found


def centred(method: Method, losses: Array) -> Array:
    """Losses (R, B) less the mean loss of the sample's *other* passes, the control variate (2).

    That is independent of this pass's score, whose mean is zero: the estimate stays unbiased.
    """
    if not method.control_variate:
        return losses
    R = len(losses)
    return (losses - losses.mean(axis=0)) * np.float32(R / (R - 1))


def local_scores(method: Method, W: Array, neurons: list[Neurons], output: Output) -> list[Array]:
    """Each neuron's score times what its own noise did to the loss, s·P·(L − L⁻) (4), (5).

    L⁻ is the loss with this neuron's output x⁻ in the place of x, all other noise as it was: (1) is
    the mean of s·P·L over the two, P being the probability of x given that it is one of them. For
    noise that is antithetic (Hammersley & Morton 1956), for bits exact (Titsias & Lázaro-Gredilla
    2015).

    neurons : of the output layer, whose outputs are the logits; and perhaps of the last hidden one,
        whose effect on the logits is W (n, classes)
    """
    effect = np.concatenate([W, np.eye(len(output.z), dtype=np.float32)][-len(neurons) :])
    changes, scores = zip(*(layer.reversal() for layer in neurons), strict=True)
    *hidden, last = changes
    growth = None
    if method.perturb == "weights" and hidden:  # the output noise grows with x
        of_hidden = noise_growth(neurons[0].outputs, *hidden)
        growth = np.concatenate([of_hidden, np.zeros_like(last)])
    differences = loss_differences(output, effect, np.concatenate(changes), growth)
    of_layers = np.split(differences, [len(change) for change in hidden])
    return [score * found for score, found in zip(scores, of_layers, strict=True)]


def carried_back(neurons: Neurons, W: Array, delta: Array) -> Array:
    """½·s·(x − x⁻)·Σ_k W_k δ_k (8): the next layer's local differences, through its weights W.

    To the first order in W, the sum is what a unit of x does to the loss; x and x⁻ weighed evenly
    make that the trapezoid rule, so the relative bias is of the second order. Left out: noise on
    the weights of the next layer grows with x.

    delta : of the next layer, (n_next, R, B)
    """
    change, _ = neurons.reversal()
    carried = change * (W @ columns(delta)).reshape(change.shape)
    return np.float32(-0.5) * neurons.score * carried  # − as `change` is x⁻ − x


def deviation_and_share_right(losses: Array) -> Array:
    """√(q(1 − q)) + q of samples that are right with probability q, (B,), from 0-1 losses (R, B).

    q is (right passes + 1)/(R + 2), Laplace's rule of succession: that none of R passes is right
    does not show that none ever is. It makes of (1) the gradient of (7).

    Raises GLRError for losses that are not 0 or 1.
    """
    is_right = losses == 0
    if not np.all(is_right | (losses == 1)):
        raise GLRError("standardised_loss = True is for a loss of 0 or 1; set it to False")
    q = (is_right.sum(axis=0, dtype=np.float32) + 1) / np.float32(len(losses) + 2)
    return np.sqrt(q * (1 - q)) + q
