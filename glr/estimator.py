"""The generalized likelihood ratio (GLR) gradient estimator, from forward passes alone.

For a network whose logits carry independent noise r^t = σ_t z of density f (docs/method.md),

    v^t = W^tᵀ x^t + b^t,    x^{t+1} = φ(v^t + r^t),    L = loss(v^{T−1} + r^{T−1}, y),

every layer's gradient of the expected loss is an expectation of the loss times a score:

    ∂E[L]/∂W^t_ji = E[ L x^t_j s(r^t_i) ],    ∂E[L]/∂b^t_i = E[ L s(r^t_i) ]              (1)

(Peng et al. 2022). Neither φ nor the loss is differentiated. Arrays are float32 and shaped
(replicates R, [output draws K,] neurons n, samples B); samples are columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from glr.arrays import Array, State, columns
from glr.errors import GLRError
from glr.machine import results_of_threads
from glr.network import Layer
from glr.passes import (
    GLR,
    Batch,
    Noise,
    Passes,
    Streams,
    forward_passes,
    is_local,
    is_redrawn,
    piece_size,
    pieces,
    weighted_sums,
)

BLOCK_FLOATS = 2**20  # of noise per layer and block, 4 MB: smaller blocks cost more calls
KEPT_FLOATS = 2**22  # of activations in a group of passes: 16 MB, and as much of scores
GROUP_ROOM = 16  # passes that a group may have at any size: few have a noisy control variate
HALVED_COST = 2**20  # of a step, see step_cost: some 5 ms; cheaper ones lose by threads


class Gradient(NamedTuple):
    """∂E[L]/∂W, ∂E[L]/∂b for every layer, and the mean loss of the noisy forward passes."""

    layers: list[Layer]
    risk: float


GradientEstimator = Callable[[list[Layer], Batch], Gradient]


class Estimator(NamedTuple):
    """A gradient estimator, and the state of its noise as arrays, to be stored and restored.

    glr, streams : what it is made of, for compiled steps (glr.compiled_training)
    """

    gradient: GradientEstimator
    state: Callable[[], State] = dict
    restore: Callable[[State], object] = lambda state: None
    glr: GLR | None = None
    streams: Streams = ()


def glr_gradient(glr: GLR, layers: list[Layer], batch: Batch, streams: Streams) -> Gradient:
    """Estimate equation (1) for every layer, averaged over the batch.

    streams : one generator per layer, so that the noise is the same for any size of block. The
        sums are, too: they are taken over pieces of replicates (piece_size), of which a block has
        a whole number, and added up from the first piece to the last.
        The halves of a large step (step_cost) have generators of their own, seeded by these.

    The weight of a pass needs the losses of its sample's others, so the passes are kept until then.
    If R is too large for that, the estimate is the mean over groups of passes, each with a
    control variate of its own: memory stays bounded, and no pass is walked twice.

    Raises GLRError if there is no other pass for the control variate.
    """
    check_passes(glr, layers)
    if not glr.layerwise:
        return _gradient_of_noisy_layers(glr, layers, batch, streams)
    parts = []
    for t in range(len(layers)):
        sigma = tuple(s if u == t else 0.0 for u, s in enumerate(glr.sigma))
        one_noisy_layer = replace(glr, sigma=sigma)
        parts.append(_gradient_of_noisy_layers(one_noisy_layer, layers, batch, streams))
    own_layers = [part.layers[t] for t, part in enumerate(parts)]
    return Gradient(own_layers, float(np.mean([part.risk for part in parts])))


def check_passes(glr: GLR, layers: list[Layer]) -> None:
    """Raise GLRError if a control variate has no other pass to compare with."""
    if glr.control_variate and glr.replicates < 2 and not is_local_alone(glr, layers):
        raise GLRError("the control variate needs 2 replicates or more; or switch it off")


def is_local_alone(glr: GLR, layers: list[Layer]) -> bool:
    """Whether local differences estimate every layer's gradient."""
    return all(is_local(glr, layers, t) for t in range(len(layers)))


def _gradient_of_noisy_layers(
    glr: GLR, layers: list[Layer], batch: Batch, streams: Streams
) -> Gradient:
    """Equation (1) for the layers whose σ is not zero; zeros for the others."""
    B = batch.y.size
    sizes = group_sizes(glr, layers, B)
    groups = [glr] if len(sizes) == 1 else [replace(glr, replicates=R) for R in sizes]
    if glr.gradient_of_group or B < 2 or step_cost(glr, layers, B) < HALVED_COST:
        return _gradient_of_groups(groups, layers, batch, streams)
    return _gradient_of_halves(groups, layers, batch, streams)


def _gradient_of_halves(
    groups: list[GLR], layers: list[Layer], batch: Batch, streams: Streams
) -> Gradient:
    """Equation (1), the mean over the halves of the batch, which two cores share out.

    Each half has generators of its own: no bit depends on how many cores there are.
    """
    first = batch.y.size // 2
    halves = [Batch(batch.x[:, half], batch.y[half]) for half in (slice(first), slice(first, None))]
    own_streams = [[_offspring(stream) for stream in streams] for _ in halves]

    def gradient(half: tuple[Batch, Streams]) -> Gradient:
        return _gradient_of_groups(groups, layers, *half)

    share = first / batch.y.size
    gradients = results_of_threads(gradient, zip(halves, own_streams, strict=True))
    return _mean(gradients, [share, 1 - share])


def step_cost(glr: GLR, layers: list[Layer], B: int) -> float:
    """What a step costs, in units of one neuron's noise and output.

    A logit after a local change costs an eighth of that, a multiplication in a product 1/256.
    Redraws of a layer go through its noise and the next product once more, and G times through
    what follows.
    """
    sizes = [b.size for _, b in layers]
    neurons = [*sizes[:-1], glr.output_draws * sizes[-1]]
    products = [0, *(W.size / 256 for W, _ in layers[1:])]
    cost = sum(neurons) + sum(products)
    if glr.local_differences:
        cost += sum(sizes[-2:]) * neurons[-1] / 8
    for t in range(len(layers)):
        if is_redrawn(glr, layers, t):
            following = sum(neurons[t + 1 :]) + sum(products[t + 2 :])
            cost += neurons[t] + products[t + 1] + min(glr.redraws, sizes[t]) * following
    return glr.replicates * B * cost


def _offspring(stream: np.random.Generator) -> np.random.Generator:
    """A generator of the stream's kind, seeded by 128 bits of it."""
    return np.random.Generator(type(stream.bit_generator)(stream.bit_generator.random_raw(2)))


def _gradient_of_groups(
    groups: list[GLR], layers: list[Layer], batch: Batch, streams: Streams
) -> Gradient:
    """Equation (1), the mean over groups of passes."""
    of_group = groups[0].gradient_of_group or _gradient_of_group
    if len(groups) == 1:
        return of_group(groups[0], layers, batch, streams)
    replicates = [glr.replicates for glr in groups]
    shares = [R / sum(replicates) for R in replicates]
    return _mean((of_group(glr, layers, batch, streams) for glr in groups), shares)


def _mean(gradients: Iterable[Gradient], shares: Iterable[float]) -> Gradient:
    """The weighted mean of gradients of the same network, added up in their order."""
    total: list[Array] = []
    risk = 0.0
    for gradient, share in zip(gradients, shares, strict=True):
        _add(total, [np.float32(share) * part for layer in gradient.layers for part in layer])
        risk += share * gradient.risk
    return Gradient([Layer(W, b) for W, b in zip(total[::2], total[1::2], strict=True)], risk)


def group_sizes(glr: GLR, layers: list[Layer], B: int) -> list[int]:
    """The replicates in as many groups of nearly equal size as it takes to keep one of them.

    Redrawn neurons count five times: both draws' noise, scores and outputs are kept for a while.
    """
    if glr.replicates <= GROUP_ROOM:
        return [glr.replicates]
    neurons = sum(b.size for _, b in layers[:-1]) + glr.output_draws * layers[-1].b.size
    neurons += 4 * sum(b.size for t, (_, b) in enumerate(layers) if is_redrawn(glr, layers, t))
    groups = -(-glr.replicates // max(GROUP_ROOM, KEPT_FLOATS // (neurons * B)))
    return [(glr.replicates + g) // groups for g in range(groups)]


def _gradient_of_group(glr: GLR, layers: list[Layer], batch: Batch, streams: Streams) -> Gradient:
    """Equation (1) for the layers whose σ is not zero, from passes that are all kept."""
    blocks = _blocks(glr, layers, batch, streams)
    losses = np.concatenate([passes.losses for passes in blocks])
    weights = pass_weights(glr, losses, layers)
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


def pass_weights(glr: GLR, losses: Array, layers: list[Layer]) -> list[Array]:
    """What multiplies each layer's scores in equation (1): (R, B), or (R, K, B) for the output.

    A hidden layer takes the mean of the losses (R, K, B) over the K output draws. Scores of local
    differences hold their loss already.
    """
    R, K, B = losses.shape
    by_draw = losses.reshape(R * K, B)
    unit = standard_deviation_and_share_right(by_draw) if glr.standardised_loss else None
    found, known = [], {}  # layers of a kind have the same weights: they are found once
    for t in range(len(layers)):
        n = R * K if t == len(layers) - 1 else R
        kind = is_local(glr, layers, t), n
        if kind not in known:
            if is_local(glr, layers, t):
                weights = np.ones((n, B), np.float32)
            else:
                weights = centred(glr, by_draw if n == R * K else losses.mean(axis=1))
            if unit is not None:
                weights = weights / unit
            known[kind] = weights / weights.size
        found.append(known[kind])
    return [*found[:-1], found[-1].reshape(R, K, B)]


def centred(glr: GLR, losses: Array) -> Array:
    """Losses (passes × B) less their control variate, (2); same shape.

    That is the mean loss of the sample's *other* passes, which is independent of this pass's
    score, whose mean is zero: the estimate stays unbiased.
    """
    if not glr.control_variate:
        return losses
    n = len(losses)
    return (losses - losses.mean(axis=0)) * np.float32(n / (n - 1))


def standard_deviation_and_share_right(losses: Array) -> Array:
    """√(q(1 − q)) + q for 0-1 losses (passes × B) of samples that are right with chance q: (B,).

    q is (right passes + 1)/(passes + 2), Laplace's rule of succession: that none of n passes is
    right does not show that none ever is.

    Raises GLRError for losses that are not 0 or 1.
    """
    is_right = losses == 0
    if not np.all(is_right | (losses == 1)):
        raise GLRError("STANDARDISED_LOSS = True: is for a loss of 0 or 1; set it to False")
    right = is_right.sum(axis=0, dtype=np.float32)
    q = (right + 1) / np.float32(len(losses) + 2)
    return np.sqrt(q * (1 - q)) + q


def _piece_sums(x: Array, noise: Noise | None, weights: Array) -> Iterator[list[Array]]:
    """Each piece's share of what layer_gradient takes; weights are (R, B), or (R, K, B)."""
    if noise is None:
        return
    weights = weights / noise.scale
    if x.ndim == 2:
        for delta in weighted_sums(weights, noise.score, piece_size(x.shape[-1])):
            yield [delta]
        return
    deltas = weighted_sums(weights, noise.score, 1)
    for r in pieces(len(weights), x.shape[-1]):
        delta = columns(deltas[r])
        yield [columns(x[r]) @ delta.T, delta.sum(axis=1)]


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


def _blocks(glr: GLR, layers: list[Layer], batch: Batch, streams: Streams) -> list[Passes]:
    """The forward passes, in blocks of replicates."""
    B = batch.y.size
    floats_of_piece = piece_size(B) * glr.output_draws * max(b.size for _, b in layers) * B
    block_size = piece_size(B) * max(1, BLOCK_FLOATS // floats_of_piece)
    parts = [glr]
    if glr.replicates > block_size:
        starts = range(0, glr.replicates, block_size)
        parts = [replace(glr, replicates=min(block_size, glr.replicates - r)) for r in starts]
    return [forward_passes(part, layers, batch, streams) for part in parts]


def glr_estimator(glr: GLR, rng: np.random.Generator) -> Estimator:
    """The GLR gradient as a function of layers and batch, one noise stream per layer."""
    streams = rng.spawn(len(glr.sigma))

    def restore(state: State) -> None:
        for t, stream in enumerate(streams):
            set_generator_words(stream, state[f"stream{t}"])

    return Estimator(
        lambda layers, batch: glr_gradient(glr, layers, batch, streams),
        lambda: {f"stream{t}": generator_words(stream) for t, stream in enumerate(streams)},
        restore,
        glr,
        streams,
    )


def generator_words(rng: np.random.Generator) -> np.ndarray:
    """The state of an SFC64 generator as 6 uint64: its four words, and a spare half-word."""
    state = rng.bit_generator.state
    return np.array([*state["state"]["state"], state["has_uint32"], state["uinteger"]], np.uint64)


def set_generator_words(rng: np.random.Generator, words: np.ndarray) -> None:
    """Put an SFC64 generator into the state that generator_words gave, or that any 6 words say."""
    rng.bit_generator.state = {
        "bit_generator": "SFC64",
        "state": {"state": words[:4]},
        "has_uint32": int(words[4] > 0),
        "uinteger": int(words[5]) % 2**32,
    }
