"""Noise laws: how each is drawn, its score, and what a threshold neuron needs of it.

A law is stated at unit standard deviation; the estimator multiplies its noise by σ and divides
its score by σ, so that σ compares between laws. The score of a density f is s(r) = −d log f(r)/dr.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glr.arrays import Array, empty_neurons_first
from glr.errors import GLRError

Draw = Callable[[np.random.Generator, tuple[int, ...]], tuple[Array, Array]]

LOGISTIC_SCALE = math.sqrt(3.0) / math.pi  # β of the logistic law with standard deviation 1
LAPLACE_SCALE = 1.0 / math.sqrt(2.0)  # β of the Laplace law with standard deviation 1
UNIFORM_STEP = (1 - 2**-22) * 2**-31  # takes a signed 32-bit word into (−1, 1), see uniform
CHECKED_SHAPE = (64, 64, 64)  # of the draws that a law of your own is checked by
CHECKED_ERROR = 0.1  # far more than the means err by, and less than what matters
CHECKED_LOGITS = (-30.0, -2.0, -1.0, -0.3, 0.3, 1.0, 2.0, 30.0)
GAUSSIAN_CLIP = 1e-6  # keeps Φ off 0 and 1, where float32 has no digits left to divide by


@dataclass(frozen=True)
class NoiseLaw:
    """A symmetric noise law of standard deviation 1, with density f and distribution function F.

    name
        what results and metadata call it.
    draw(rng, shape)
        noise r and its score s(r), two float32 arrays of `shape`. All that a new law needs. f must
        be without jumps: equation (1) is an integration by parts. So r is not uniform.
    cdf(v), score_gap(v)
        F(v), and E[s | r > −v] − E[s | r < −v] = f(v) / (F(v)(1 − F(v))), both finite for every v:
        the conditional score of a threshold neuron is score_gap(v)·(x − F(v)). Only
        `CONDITIONAL_SCORE` asks for them.
    """

    name: str
    draw: Draw
    cdf: Callable[[Array], Array] | None = None
    score_gap: Callable[[Array], Array | float] | None = None


def noise_and_score(
    law: NoiseLaw, rng: np.random.Generator, shape: tuple[int, ...]
) -> tuple[Array, Array]:
    """What the law draws; GLRError unless it is two arrays of the shape."""
    drawn = law.draw(rng, shape)
    shapes = [np.shape(part) for part in drawn] if isinstance(drawn, tuple) else [np.shape(drawn)]
    if shapes != [shape, shape]:
        raise GLRError(
            f"the noise {law.name} drew shapes {', '.join(map(str, shapes))}, not {shape} twice: "
            "its draw must return the noise and its score"
        )
    return drawn


def check_law(law: NoiseLaw, rng: np.random.Generator, needs_cdf: bool) -> None:
    """Raise GLRError unless the law's draws fit one another, as far as a sample of them shows.

    E[r·s(r)] is 1 for every density without jumps, by parts; and E[s; r > −v] is f(v), which is
    score_gap(v)·F(v)(1 − F(v)).
    """
    r, s = (np.asarray(part, np.float64) for part in noise_and_score(law, rng, CHECKED_SHAPE))
    found = {"mean of r·s(r)": (r * s).mean(), "standard deviation of r": r.std()}
    wrong = [f"the {what} is {value:.2f}" for what, value in found.items() if not is_near(value, 1)]
    if wrong:
        raise GLRError(
            f"NOISE = {law.name}: {', '.join(wrong)}, not 1; scale it, or mend its score, which is "
            "−d log f/dr of a density f without jumps"
        )
    for v in CHECKED_LOGITS if needs_cdf else ():
        p, gap = (float(of_v(np.float32(v))) for of_v in (law.cdf, law.score_gap))
        share, mean_score = (r > -v).mean(), (s * (r > -v)).mean()
        if not (is_near(p, share) and is_near(gap * p * (1 - p), mean_score)):
            raise GLRError(
                f"NOISE = {law.name}: at v = {v:g} cdf is {p:.2f} and score_gap·cdf·(1 − cdf) "
                f"{gap * p * (1 - p):.2f}, and by its draws {share:.2f} and {mean_score:.2f}; mend "
                "cdf and score_gap, or set CONDITIONAL_SCORE to False"
            )


def is_near(value: float, goal: float) -> bool:
    """Whether a mean over the checked draws may be that of its goal. NaN is not."""
    return abs(value - goal) < CHECKED_ERROR


def random_words(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: type[np.unsignedinteger]
) -> NDArray:
    """Independent uniform unsigned integers of `dtype` (16 or 32 bits), of the given shape.

    They are cut from the generator's 64-bit words, which is faster than `rng.random` and
    `rng.integers` (benchmarks/results/bench.md, part 7). Every index of the first axis (a
    replicate) starts on a fresh word, so that drawing the replicates in blocks gives the same
    numbers as drawing them at once.
    """
    replicates, size = shape[0], math.prod(shape[1:])
    words = -(-size * np.dtype(dtype).itemsize // 8)
    drawn = rng.bit_generator.random_raw(replicates * words).view(dtype)
    return drawn.reshape(replicates, -1)[:, :size].reshape(shape)


def uniform(rng: np.random.Generator, shape: tuple[int, ...], bound: float = 1) -> Array:
    """Independent uniforms on (−bound, bound), symmetric; float32 made of 32 random bits.

    The bounds themselves are never drawn: 2⁻²² is more than all the roundings together.
    """
    c = empty_neurons_first(shape)
    c[:] = random_words(rng, shape, np.uint32).view(np.int32)
    c *= np.float32(bound * UNIFORM_STEP)
    return c


def _draw_logistic(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """By inversion: the score s is uniform on (−1/β, 1/β), and r = β log((1/β + s)/(1/β − s))."""
    bound = np.float32(1 / LOGISTIC_SCALE)
    s = uniform(rng, shape, 1 / LOGISTIC_SCALE)
    r = bound + s
    r /= bound - s
    np.log(r, out=r)
    r *= np.float32(LOGISTIC_SCALE)
    return r, s


def _logistic_cdf(v: Array) -> Array:
    return 0.5 + 0.5 * np.tanh(v * np.float32(0.5 / LOGISTIC_SCALE))


def _logistic_score_gap(v: Array) -> float:
    return 1 / LOGISTIC_SCALE  # f = F(1 − F)/β, whatever v


def _draw_gaussian(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, Array]:
    r = rng.standard_normal(shape, dtype=np.float32)
    return r, r


def _gaussian_cdf(v: Array) -> Array:
    from scipy.special import ndtr  # noqa: PLC0415  (0.2 s that the other laws do without)

    return np.clip(ndtr(v), GAUSSIAN_CLIP, 1 - GAUSSIAN_CLIP)


def _gaussian_score_gap(v: Array) -> Array:
    density = np.exp(-0.5 * v * v) * np.float32(1 / math.sqrt(2 * math.pi))
    p = _gaussian_cdf(v)
    return density / (p * (1 - p))


def _draw_laplace(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """By inversion: r = −β sign(c) log(1 − |c|), whose score is sign(c)/β."""
    c = uniform(rng, shape)
    r = np.copysign(np.log(1 - np.abs(c)), c)
    r *= np.float32(LAPLACE_SCALE)
    return r, np.copysign(np.float32(1 / LAPLACE_SCALE), c)


def _laplace_tail(v: Array) -> Array:
    """P(r > |v|) = ½ exp(−|v|/β)."""
    return 0.5 * np.exp(np.abs(v) * np.float32(-1 / LAPLACE_SCALE))


def _laplace_cdf(v: Array) -> Array:
    tail = _laplace_tail(v)
    return np.where(v > 0, 1 - tail, tail)


def _laplace_score_gap(v: Array) -> Array:
    return np.float32(1 / LAPLACE_SCALE) / (1 - _laplace_tail(v))  # f = tail/β


gaussian = NoiseLaw("gaussian", _draw_gaussian, _gaussian_cdf, _gaussian_score_gap)
laplace = NoiseLaw("laplace", _draw_laplace, _laplace_cdf, _laplace_score_gap)
logistic = NoiseLaw("logistic", _draw_logistic, _logistic_cdf, _logistic_score_gap)
LAWS = (gaussian, laplace, logistic)
