"""Noise laws: how each is drawn, its score, and what a threshold neuron needs of it.

A law is stated at standard deviation 1: the estimator multiplies its noise by σ and divides its
score by σ. The score of a density f is s(r) = −d log f(r)/dr.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from glr.errors import GLRError
from glr.network import Array

Shape = tuple[int, int, int]  # neurons, passes, samples
Draw = Callable[[np.random.Generator, Shape], tuple[Array, Array]]

LOGISTIC_SCALE = math.sqrt(3.0) / math.pi  # β of the logistic law with standard deviation 1
LAPLACE_SCALE = 1.0 / math.sqrt(2.0)  # β of the Laplace law with standard deviation 1
WORDS = np.float32(2**32)  # there are of 32 bits


@dataclass(frozen=True)
class NoiseLaw:
    """A symmetric noise law of standard deviation 1.

    name
        what results and metadata call it.
    draw(rng, shape)
        noise r and its score s(r), two float32 arrays of `shape`: (n, R, B), or (n, 1, R·B) where
        passes are to be independent. All that a new law needs. The density f must have no jumps,
        as the uniform law's has: equation (1) integrates by parts. Passes are spread if it inverts
        its distribution at `random_words`; those of threshold neurons also if it has a cdf.
    cdf(v), pdf(v)
        F(v) and f(v), elementwise. With them the score of a threshold neuron is its mean given
        the neuron's output (3); without them it is the noise's, which has more variance.
    """

    name: str
    draw: Draw
    cdf: Callable[[Array], Array] | None = None
    pdf: Callable[[Array], Array] | None = None


def noise_and_score(law: NoiseLaw, rng: np.random.Generator, shape: Shape) -> tuple[Array, Array]:
    """What the law draws; GLRError unless it is two arrays of the shape."""
    drawn = law.draw(rng, shape)
    shapes = [np.shape(part) for part in drawn] if isinstance(drawn, tuple) else [np.shape(drawn)]
    if shapes != [shape, shape]:
        raise GLRError(
            f"the noise {law.name} drew shapes {', '.join(map(str, shapes))}, not {shape} twice: "
            "its draw must return the noise and its score"
        )
    r, score = drawn
    return np.asarray(r, np.float32), np.asarray(score, np.float32)


def random_words(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Uniform uint32 (n, R, B), the R passes of a neuron and sample spread; else independent.

        u_r = u + r·k/R mod 1,    r = 0 … R−1                                                    (6)

    u is uniform on (0, 1), of each neuron and sample; k is coprime to R, of each neuron. A pass by
    itself is as if drawn alone, but one of the R falls into each R-th of (0, 1): the mean of passes
    has less variance, as a rule (a lattice rule, shifted at random: Cranley & Patterson 1976).
    """
    n, R, B = shape
    k = coprimes(R)[rng.integers(len(coprimes(R)), size=(n, 1, 1))]
    turns = np.arange(R)[:, None] * k % R * 2**32 // R
    return independent_words(rng, (n, 1, B)) + turns.astype(np.uint32)


def independent_words(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Independent uniform uint32: halves of 64-bit words, in half of the time of rng.random."""
    size = math.prod(shape)
    words = rng.integers(0, 2**64, -(-size // 2), dtype=np.uint64).view(np.uint32)
    return words[:size].reshape(shape)


@cache
def coprimes(R: int) -> np.ndarray:
    """The numbers of 1 … R that have no divisor in common with R."""
    numbers = np.arange(1, R + 1)
    return numbers[np.gcd(numbers, R) == 1]


def _uniform(rng: np.random.Generator, shape: Shape, bound: float) -> Array:
    """Uniforms on (−bound, bound) of `random_words`; symmetric, the bounds are never drawn."""
    c = random_words(rng, shape).view(np.int32).astype(np.float32)
    c *= np.float32(bound * (1 - 2**-22) * 2**-31)  # 2⁻²² is more than all roundings together
    return c


def _draw_logistic(rng: np.random.Generator, shape: Shape) -> tuple[Array, Array]:
    """By inversion: the score s is uniform on (−1/β, 1/β), and r = β log((1/β + s)/(1/β − s))."""
    bound = np.float32(1 / LOGISTIC_SCALE)
    s = _uniform(rng, shape, 1 / LOGISTIC_SCALE)
    r = bound + s
    r /= bound - s
    np.log(r, out=r)
    r *= np.float32(LOGISTIC_SCALE)
    return r, s


def _logistic_cdf(v: Array) -> Array:
    return 1 / (1 + np.exp(v * np.float32(-1 / LOGISTIC_SCALE)))


def _logistic_pdf(v: Array) -> Array:
    tail = np.exp(np.abs(v) * np.float32(-1 / LOGISTIC_SCALE))
    return tail / np.square(1 + tail) * np.float32(1 / LOGISTIC_SCALE)


def _draw_gaussian(rng: np.random.Generator, shape: Shape) -> tuple[Array, Array]:
    """By inversion: r = √2·erf⁻¹(c) for c uniform; it ends at ±5. Slow beside the others."""
    from scipy.special import erfinv  # noqa: PLC0415  (0.2 s that the other laws do without)

    r = erfinv(_uniform(rng, shape, 1))
    r *= np.float32(math.sqrt(2))
    return r, r


def _gaussian_cdf(v: Array) -> Array:
    from scipy.special import ndtr  # noqa: PLC0415

    return ndtr(v)


def _gaussian_pdf(v: Array) -> Array:
    return np.exp(-0.5 * v * v) * np.float32(1 / math.sqrt(2 * math.pi))


def _draw_laplace(rng: np.random.Generator, shape: Shape) -> tuple[Array, Array]:
    """By inversion: r = −β sign(c) log(1 − |c|) for c uniform, whose score is sign(c)/β."""
    c = _uniform(rng, shape, 1)
    r = np.copysign(np.log1p(-np.abs(c)), c)
    r *= np.float32(LAPLACE_SCALE)
    return r, np.copysign(np.float32(1 / LAPLACE_SCALE), c)


def _laplace_pdf(v: Array) -> Array:
    return np.exp(np.abs(v) * np.float32(-1 / LAPLACE_SCALE)) * np.float32(0.5 / LAPLACE_SCALE)


def _laplace_cdf(v: Array) -> Array:
    tail = _laplace_pdf(v) * np.float32(LAPLACE_SCALE)  # P(r > |v|)
    return np.where(v > 0, 1 - tail, tail)


gaussian = NoiseLaw("gaussian", _draw_gaussian, _gaussian_cdf, _gaussian_pdf)
laplace = NoiseLaw("laplace", _draw_laplace, _laplace_cdf, _laplace_pdf)
logistic = NoiseLaw("logistic", _draw_logistic, _logistic_cdf, _logistic_pdf)
LAWS = (gaussian, laplace, logistic)
