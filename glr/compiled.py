"""The inner loops of forward passes compiled by Numba, for COMPILED = True (pip install numba).

The functions of LOOPS have the names, the arguments and, up to the last bits, the results of those
of NUMPY_LOOPS, from the same random numbers; what they have no loop for (another noise law,
another loss) they leave to those. What the loops save is NumPy's way through memory, once for every
operation: benchmarks/results/bench.md times them beside NumPy's ("compiled").

There is no fast-math here: float32 as IEEE 754 has it, in the order that is written, on one core.
So the loops give the same bits on every machine.

Arrays of the loops are (neurons n, passes P, samples B) and contiguous. An array that several
passes share has fewer of them: pass p reads that of p // (passes per shared one).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numba import njit

from glr.arrays import Array, neurons_first
from glr.arrays import neurons_last_but_one as as_passes
from glr.differences import Output, effect_on_logits
from glr.losses import Loss, cross_entropy, zero_one
from glr.network import Activation, sigmoid
from glr.noise import LOGISTIC_SCALE, UNIFORM_STEP, NoiseLaw, logistic, random_words
from glr.passes import NUMPY_LOOPS, Logits, Loops, Neurons, outputs_of

f4, i4 = np.float32, np.int32
SCORE_STEP = f4(UNIFORM_STEP / LOGISTIC_SCALE)
BETA, BOUND = f4(LOGISTIC_SCALE), f4(1 / LOGISTIC_SCALE)
compiled = njit(
    error_model="numpy",  # 1/0 is ∞, as in NumPy, and needs no branch
    nogil=True,  # the other half of a large step computes meanwhile
    cache=True,
)


def noisy_neurons(
    law: NoiseLaw, activation: Activation, logits: Logits, rng: np.random.Generator
) -> Neurons:
    """Outputs φ(v + σr) of logistic noise, whose r is found from its score where it is needed."""
    if law is not logistic:
        return NUMPY_LOOPS.noisy_neurons(law, activation, logits, rng)
    shape = logits.shape
    words = random_words(rng, shape, np.uint32).view(i4).reshape(-1, *shape[-2:])
    v, is_sigmoid = by_neuron(logits.v), activation is sigmoid
    (scale,) = by_neuron(logits.scale)  # (passes, 1 or B)

    def outputs(rows: Array) -> Array:
        noisy = by_pass(rows, shape)
        return noisy if is_sigmoid else outputs_of(activation, noisy)

    x, score_of_rows = noisy_rows(np.ascontiguousarray(words), v, scale, is_sigmoid)
    score = by_pass(score_of_rows, shape)

    def opposite() -> tuple[Array, Array]:
        rows = output_rows(score_of_rows, v, -scale, is_sigmoid)
        return outputs(rows), score * f4(0.5)

    return Neurons(outputs(x), score, opposite)


def bernoulli(words: np.ndarray, levels: np.ndarray, gap: Array | float) -> tuple[Array, Array]:
    """Neurons that are 1 where a random 16-bit word is below p's level; and gap·(x − p)."""
    n, B = words.shape[-2:]
    gaps = by_neuron(np.broadcast_to(f4(gap), levels.shape))
    x, score = bernoulli_rows(
        np.ascontiguousarray(words.reshape(-1, n, B)), by_neuron(levels), gaps
    )
    return by_pass(x, words.shape), by_pass(score, words.shape)


def losses_of(loss: Loss, z: Array, y: np.ndarray) -> Array:
    """The losses (…, B) of logits z (…, n_out, B): cross-entropy and 0-1 loss."""
    if not has_loop(loss):
        return NUMPY_LOOPS.losses_of(loss, z, y)
    losses = loss_rows(by_neuron(z), np.asarray(y, np.int64), loss is zero_one)
    return losses.reshape(z.shape[:-2] + z.shape[-1:])


def loss_differences(output: Output, W: Array | None, change: Array, growth: Array | None) -> Array:
    """The losses less what they are after each change alone, over the draws that share it."""
    if not has_loop(output.loss) or growth is not None:
        return NUMPY_LOOPS.loss_differences(output, W, change, growth)
    z, y, changes = by_neuron(output.z), np.asarray(output.y, np.int64), by_neuron(change)
    effect, is_zero_one = effect_on_logits(output, W), output.loss is zero_one
    return by_pass(difference_rows(z, y, effect, changes, is_zero_one), change.shape)


def weighted_sums(weights: Array, score: Array, replicates: int) -> Array:
    """Σ weight·score over the draws, and over so many replicates at a time: (sums, n, B)."""
    draws = 1 if weights.ndim == 2 else weights.shape[1]
    of_pass = np.ascontiguousarray(weights.reshape(-1, weights.shape[-1]))
    return as_passes(sum_rows(of_pass, by_neuron(score), draws * replicates))


def has_loop(loss: Loss) -> bool:
    """Whether there is a compiled loop for the loss."""
    return loss is cross_entropy or loss is zero_one


def by_neuron(x: np.ndarray) -> np.ndarray:
    """(…, n, B) as a contiguous (n, passes, B): no copy of what lies so in memory."""
    return np.ascontiguousarray(neurons_first(x).reshape(x.shape[-2], -1, x.shape[-1]))


def by_pass(x: Array, shape: tuple[int, ...]) -> Array:
    """(n, passes, B) as a view of the given shape (…, n, B)."""
    *several, n, B = shape
    return as_passes(x.reshape(n, *several, B))


@compiled
def noisy_rows(words: np.ndarray, v: Array, scale: Array, is_sigmoid: bool) -> tuple[Array, Array]:
    """Outputs of logits v with logistic noise, and the noise's scores, uniform on (−1/β, 1/β).

    words : (P, n, B), signed, as they are drawn
    """
    P, n, B = words.shape
    of_v, of_scale, scale = P // v.shape[1], P // len(scale), over_samples(scale, B)
    x, score = np.empty((n, P, B), f4), np.empty((n, P, B), f4)
    for i in range(n):
        for p in range(P):
            word, row = words[p, i], score[i, p]
            for b in range(B):
                row[b] = f4(word[b]) * SCORE_STEP
            write_outputs(row, v[i, p // of_v], scale[p // of_scale], is_sigmoid, x[i, p])
    return x, score


@compiled
def output_rows(score: Array, v: Array, scale: Array, is_sigmoid: bool) -> Array:
    """Outputs of logits v with the logistic noise of these scores, times scale."""
    n, P, B = score.shape
    of_v, of_scale, scale = P // v.shape[1], P // len(scale), over_samples(scale, B)
    x = np.empty((n, P, B), f4)
    for i in range(n):
        for p in range(P):
            write_outputs(score[i, p], v[i, p // of_v], scale[p // of_scale], is_sigmoid, x[i, p])
    return x


@compiled
def over_samples(scale: Array, B: int) -> Array:
    """A scale (passes, 1 or B) for every sample (passes, B)."""
    wide = np.empty((len(scale), B), f4)
    wide[:] = scale
    return wide


@compiled
def write_outputs(s: Array, v: Array, scale: Array, is_sigmoid: bool, x: Array) -> None:
    """Write v + scale·r, or its sigmoid, with r = β log((1/β + s)/(1/β − s)) of score s (B,)."""
    for b in range(len(x)):
        x[b] = v[b] + scale[b] * (BETA * log((BOUND + s[b]) / (BOUND - s[b])))
    if is_sigmoid:
        for b in range(len(x)):
            x[b] = f4(0.5) * tanh(f4(0.5) * x[b]) + f4(0.5)


@compiled
def bernoulli_rows(words: np.ndarray, levels: np.ndarray, gaps: Array) -> tuple[Array, Array]:
    """1 where the word is below the level, else 0; and gap·(that − level/65536).

    words : (P, n, B), as they are drawn
    """
    P, n, B = words.shape
    of_level = P // levels.shape[1]
    x, score = np.empty((n, P, B), f4), np.empty((n, P, B), f4)
    for i in range(n):
        for p in range(P):
            word, level, gap = words[p, i], levels[i, p // of_level], gaps[i, p // of_level]
            x_row, score_row = x[i, p], score[i, p]
            for b in range(B):
                x_row[b] = f4(1) if word[b] < level[b] else f4(0)
                score_row[b] = gap[b] * (x_row[b] - f4(level[b]) * f4(2**-16))
    return x, score


@compiled
def loss_rows(z: Array, y: np.ndarray, is_zero_one: bool) -> Array:
    """The losses (P, B) of logits z (n_out, P, B)."""
    n_out, P, B = z.shape
    losses, row, largest = np.empty((P, B), f4), np.empty((n_out, B), f4), np.empty(B, f4)
    own = label_rows(z, y)
    for p in range(P):
        largest[:] = -np.inf
        for j in range(n_out):
            z_row, copy = z[j, p], row[j]
            for b in range(B):
                copy[b] = z_row[b]
                largest[b] = max(largest[b], z_row[b])
        write_losses(row, own[p], largest, is_zero_one, losses[p])
    return losses


@compiled
def difference_rows(z: Array, y: np.ndarray, W: Array, change: Array, is_zero_one: bool) -> Array:
    """The losses (P, B) of logits z less those of z + W_i·change, for each neuron i.

    They are averaged over the passes that share a change (n, C, B): (n, C, B).
    """
    n_out, P, B = z.shape
    n, of_change = len(W), P // change.shape[1]
    differences, moved = np.zeros(change.shape, f4), np.empty((n_out, B), f4)
    own, largest, own_W = np.empty(B, f4), np.empty(B, f4), np.empty(B, f4)
    own_z, losses, after = label_rows(z, y), loss_rows(z, y, is_zero_one), np.empty(B, f4)
    share = f4(1) / f4(of_change)
    for i in range(n):
        for b in range(B):
            own_W[b] = W[i, y[b]]
        for p in range(P):
            change_row, own_row = change[i, p // of_change], own_z[p]
            largest[:] = -np.inf
            for j in range(n_out):
                w, z_row, moved_row = W[i, j], z[j, p], moved[j]
                for b in range(B):
                    moved_row[b] = z_row[b] + w * change_row[b]
                    largest[b] = max(largest[b], moved_row[b])
            for b in range(B):
                own[b] = own_row[b] + own_W[b] * change_row[b]
            write_losses(moved, own, largest, is_zero_one, after)
            total, before = differences[i, p // of_change], losses[p]
            for b in range(B):
                total[b] += (before[b] - after[b]) * share
    return differences


@compiled
def sum_rows(weights: Array, score: Array, passes: int) -> Array:
    """Σ weight·score over so many passes at a time, the last time over the rest: (n, sums, B)."""
    n, P, B = score.shape
    sums = np.zeros((n, (P + passes - 1) // passes, B), f4)
    for i in range(n):
        for p in range(P):
            total, weight, row = sums[i, p // passes], weights[p], score[i, p]
            for b in range(B):
                total[b] += weight[b] * row[b]
    return sums


@compiled
def label_rows(z: Array, y: np.ndarray) -> Array:
    """The logits (P, B) of the labels; IndexError if there is no such class."""
    n_out, P, B = z.shape
    for b in range(B):
        if y[b] < 0 or y[b] >= n_out:  # the loops themselves would read beside the array
            raise IndexError("a label names no class of the logits")
    own = np.empty((P, B), f4)
    for p in range(P):
        for b in range(B):
            own[p, b] = z[y[b], p, b]
    return own


@compiled
def write_losses(z: Array, own: Array, largest: Array, is_zero_one: bool, losses: Array) -> None:
    """Write the losses (B,) of logits z (n_out, B), whose labels' and largest ones are given."""
    n_out, B = z.shape
    if is_zero_one:
        for b in range(B):
            losses[b] = f4(1) if largest[b] > own[b] else f4(0)
        return
    losses[:] = 0
    for j in range(n_out):
        row = z[j]
        for b in range(B):
            losses[b] += exp(row[b] - largest[b])
    for b in range(B):
        losses[b] = log(losses[b]) + largest[b] - own[b]


# Numba compiles NumPy's log, exp and tanh to one call per number; these it turns into SIMD
# instructions. Their errors are a few units in the last place; a NaN stays one.


@compiled
def log(x: float) -> float:
    """The natural logarithm of a normal x > 0: x = 2^k·m, log m = 2 artanh((m − 1)/(m + 1))."""
    bits = f4(x).view(i4)
    k = i4(i4(bits - i4(0x3F3504F3)) >> i4(23))  # so that m is from 0.71 to 1.41
    m = i4(bits - i4(k << i4(23))).view(f4)
    t = (m - f4(1)) / (m + f4(1))
    square = t * t
    series = f4(2 / 9) * square + f4(2 / 7)
    series = series * square + f4(2 / 5)
    series = series * square + f4(2 / 3)
    series = series * square + f4(2)
    return f4(k) * f4(0.6931471805599453) + t * series + (x - x)


@compiled
def exp(x: float) -> float:
    """The exponential of x ≤ 0, below −87 that of −87: 2^k·e^r with |r| ≤ (log 2)/2.

    The polynomial is that of the Cephes library (Moshier 1989), as is that k·log 2 is taken off in
    two parts.
    """
    x = f4(-87) if x < f4(-87) else x
    k = np.floor(x * f4(1.4426950408889634) + f4(0.5))
    r = x - k * f4(0.693359375)
    r = r + k * f4(2.12194440e-4)
    series = f4(1.9875691500e-4) * r + f4(1.3981999507e-3)
    series = series * r + f4(8.3334519073e-3)
    series = series * r + f4(4.1665795894e-2)
    series = series * r + f4(1.6666665459e-1)
    series = series * r + f4(5.0000001201e-1)
    return (series * r * r + r + f4(1)) * i4(i4(i4(k) + i4(127)) << i4(23)).view(f4)


@compiled
def tanh(x: float) -> float:
    """The hyperbolic tangent, by the rational approximation of the Eigen library."""
    x = f4(7.9) if x > f4(7.9) else x
    x = f4(-7.9) if x < f4(-7.9) else x
    square = x * x
    above = f4(-2.76076847742355e-16) * square + f4(2.00018790482477e-13)
    above = above * square + f4(-8.60467152213735e-11)
    above = above * square + f4(5.12229709037114e-08)
    above = above * square + f4(1.48572235717979e-05)
    above = above * square + f4(6.37261928875436e-04)
    above = above * square + f4(4.89352455891786e-03)
    below = f4(1.19825839466702e-06) * square + f4(1.18534705686654e-04)
    below = below * square + f4(2.26843463243900e-03)
    below = below * square + f4(4.89352518554385e-03)
    return x * above / below


def is_in_cache() -> bool:
    """Whether an earlier run has left compiled loops on the disk."""
    return any(Path(loss_rows.stats.cache_path).glob("compiled.*.nbi"))


LOOPS = Loops(noisy_neurons, bernoulli, losses_of, loss_differences, weighted_sums)
