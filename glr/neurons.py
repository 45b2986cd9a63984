"""A layer's noisy neurons: their outputs, their noise's scores, and both had the noise been other.

Arrays are float32 and shaped (replicates R, [output draws K,] neurons n, samples B); samples are
columns. Equation numbers are those of docs/method.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from glr.arrays import Array, empty_neurons_first
from glr.errors import GLRError
from glr.network import Activation
from glr.noise import NoiseLaw, noise_and_score, random_words


class Logits(NamedTuple):
    """Logits v of a layer (…, n, B), which noise in every element of `shape` is to be added to.

    scale : the noise's standard deviation, an array that fits v
    shape : (R, [K,] n, B), which v fits
    draws : how often noise of that shape is drawn
    """

    v: Array
    scale: Array
    shape: tuple[int, ...]
    draws: int = 1

    @property
    def shape_of_draws(self) -> tuple[int, ...]:
        """The shape of all noise: a replicate's draws follow each other, for blocks of any size."""
        return (self.shape[0], self.draws, *self.shape[1:])


class Neurons(NamedTuple):
    """Outputs x of a layer's neurons and the scores of their noise, (R, [K,] n, B).

    at(v, scale) : what the outputs would be at other logits, the noise being as it is
    opposite() : what the outputs would be had the noise gone the other way, and s(x)·P(x | x or
        its opposite): half the score of noise, ±f(v) of a bit. A function, since few are asked.
    """

    x: Array
    score: Array
    at: Callable[[Array, Array], Array]
    opposite: Callable[[], tuple[Array, Array]]


def noisy_neurons(
    law: NoiseLaw, activation: Activation, logits: Logits, rng: np.random.Generator
) -> list[Neurons]:
    """Outputs φ(v + σr), of each draw. The noise's law is symmetric: −r has r's probability."""
    r, score = noise_and_score(law, rng, logits.shape_of_draws)
    return [
        neurons_of_noise(activation, logits, r[:, draw], score[:, draw])
        for draw in range(logits.draws)
    ]


def neurons_of_noise(activation: Activation, logits: Logits, r: Array, score: Array) -> Neurons:
    """Outputs φ(v + σr) and the score of r."""

    def at(v: Array, scale: Array) -> Array:
        noisy = scale * r
        noisy += v
        return outputs_of(activation, noisy)

    def opposite() -> tuple[Array, Array]:
        return at(logits.v, -logits.scale), score * np.float32(0.5)

    return Neurons(at(logits.v, logits.scale), score, at, opposite)


def outputs_of(activation: Activation, v: Array) -> Array:
    """φ(v) as float32; GLRError if the activation gives another shape."""
    x = np.asarray(activation(v), np.float32)
    if x.shape != v.shape:
        raise GLRError(
            f"the activation gave shape {x.shape} for logits {v.shape}: it must be elementwise"
        )
    return x


def binary_neurons(law: NoiseLaw, logits: Logits, rng: np.random.Generator) -> list[Neurons]:
    """Outputs x ~ Bernoulli(F(v)) of threshold neurons, and their conditional scores E[s | x].

    With v in units of the noise, E[s | x = 1] = f(v)/F(v) and E[s | x = 0] = −f(v)/(1 − F(v)),
    that is score_gap(v)·(x − F(v)) (3). F is rounded down to a multiple of 2⁻¹⁶, in the draw and
    in the score alike, so that the score's mean is exactly 0.
    """
    words = random_words(rng, logits.shape_of_draws, np.uint16)
    return [neurons_of_words(law, logits, words[:, draw]) for draw in range(logits.draws)]


def neurons_of_words(law: NoiseLaw, logits: Logits, words: np.ndarray) -> Neurons:
    """Outputs that are 1 where a random 16-bit word is below 65536·F(v), and their scores."""
    v = logits.v / logits.scale
    p, gap = law.cdf(v), law.score_gap(v)
    x, score = bernoulli(words, levels_of(p), gap)

    def at(v: Array, scale: Array) -> Array:
        return bits_of(words, levels_of(law.cdf(v / scale)))

    def opposite() -> tuple[Array, Array]:
        return 1 - x, (2 * x - 1) * (gap * p * (1 - p))

    return Neurons(x, score, at, opposite)


def levels_of(p: Array) -> np.ndarray:
    """⌊65536·p⌋ of chances p, at most 65535, as 16-bit integers."""
    return np.minimum(p * np.float32(65536), np.float32(65535)).astype(np.uint16)


def bits_of(words: np.ndarray, levels: np.ndarray) -> Array:
    """1 where a random 16-bit word is below its level, else 0."""
    x = empty_neurons_first(words.shape)
    np.less(words, levels, out=x)
    return x


def bernoulli(words: np.ndarray, levels: np.ndarray, gap: Array | float) -> tuple[Array, Array]:
    """Neurons that are 1 where a random 16-bit word is below p's level; and gap·(x − p)."""
    x = bits_of(words, levels)
    score = x - levels * np.float32(2**-16)
    score *= gap
    return x, score
