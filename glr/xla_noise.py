"""Random words and noise laws by JAX, for glr/xla.py.

A word follows from the seed, the step, the layer, the place and the pass: a run that is resumed
draws the same again, and so does any number of cores.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy import stats

from glr import noise
from glr.estimator import Method
from glr.noise import LAPLACE_SCALE, LOGISTIC_SCALE, NoiseLaw, coprimes


def mixed(z: jax.Array) -> jax.Array:
    """A bijection of 32-bit words in which every bit depends on every bit (Wellons' lowbias32)."""
    z = (z ^ (z >> 16)) * jnp.uint32(0x21F0AAAD)
    z = (z ^ (z >> 15)) * jnp.uint32(0xD35A2D97)
    return z ^ (z >> 15)


def keys_of_step(seed: jax.Array, step: jax.Array, n_layers: int) -> jax.Array:
    """A key of two words for every layer, (n_layers, 2); the seed is two, too."""
    place = jnp.arange(2 * n_layers, dtype=jnp.uint32)
    words = mixed(mixed(mixed(place + seed[0]) ^ step.astype(jnp.uint32)) ^ seed[1])
    return words.reshape(n_layers, 2)


def random_words(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Independent uniform uint32 of the shape. JAX's own make a step of LRTZ 5 % longer."""
    row, column = (lax.broadcasted_iota(jnp.uint32, shape, axis) for axis in (0, 1))
    return mixed(mixed(row * jnp.uint32(shape[1]) + column + key[0]) ^ key[1])


def words_of_next_pass(method: Method, key: jax.Array, words: jax.Array) -> jax.Array:
    """A layer's words (n, B) after those of a pass: by (6), or independent where (2) is used.

    Rounding of 2³²/R adds up: passes are even to R ≈ 1,000. Each by itself is uniform at any R.
    """
    if not method.local_differences:
        return mixed(mixed(words + key[0]) ^ key[1])
    R, numbers = method.replicates, coprimes(method.replicates)
    k = jnp.asarray(numbers)[random_words(mixed(key), (len(words), 1)) % len(numbers)]
    return words + k.astype(jnp.uint32) * jnp.uint32(2**32 // R % 2**32)


def uniform(words: jax.Array, bound: float) -> jax.Array:
    """Uniforms on (−bound, bound), of 32 random bits, as in glr.noise."""
    c = lax.bitcast_convert_type(words, jnp.int32).astype(jnp.float32)
    return c * np.float32(bound * (1 - 2**-22) * 2**-31)


def draw_logistic(words: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Noise and score, as in glr.noise."""
    s = uniform(words, 1 / LOGISTIC_SCALE)
    return LOGISTIC_SCALE * jnp.log((1 / LOGISTIC_SCALE + s) / (1 / LOGISTIC_SCALE - s)), s


def logistic_pdf(v: jax.Array) -> jax.Array:
    """f(v), by one exponential; that of jax.scipy is slower."""
    tail = jnp.exp(jnp.abs(v) * (-1 / LOGISTIC_SCALE))
    return tail / jnp.square(1 + tail) / LOGISTIC_SCALE


def draw_gaussian(words: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Noise and score by inversion of F: they end at ±5."""
    r = math.sqrt(2) * lax.erf_inv(uniform(words, 1))
    return r, r


def draw_laplace(words: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Noise and score, as in glr.noise."""
    c = uniform(words, 1)
    r = jnp.copysign(LAPLACE_SCALE * jnp.log1p(-jnp.abs(c)), c)
    return r, jnp.copysign(np.float32(1 / LAPLACE_SCALE), c)


LAWS = {  # their draws take random words in the place of a generator and a shape
    noise.gaussian: NoiseLaw("gaussian", draw_gaussian, stats.norm.cdf, stats.norm.pdf),
    noise.laplace: NoiseLaw(
        "laplace",
        draw_laplace,
        partial(stats.laplace.cdf, scale=LAPLACE_SCALE),
        partial(stats.laplace.pdf, scale=LAPLACE_SCALE),
    ),
    noise.logistic: NoiseLaw(
        "logistic", draw_logistic, lambda v: jax.nn.sigmoid(v / LOGISTIC_SCALE), logistic_pdf
    ),
}
