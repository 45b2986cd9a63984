"""`glr.gradient` by JAX: the estimate of glr/xla.py for one minibatch, compiled for each shape."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from types import SimpleNamespace

import jax
import numpy as np
from numpy.random import Generator

from glr import xla
from glr.estimator import Method
from glr.network import Array, Layer
from glr.optimizers import adam, cosine
from glr.scripts.backpropagation import Backpropagated
from glr.scripts.by_jax import check_covered
from glr.xla_noise import keys_of_step

DESCENT = SimpleNamespace(optimizer=adam, schedule=cosine)  # the classifier's, which is covered


@lru_cache(16)
def compiled_gradient(method: Method) -> Callable[..., Backpropagated]:
    """`glr.gradient` of a method and class numbers y; GLRError for what JAX does not cover."""
    check_covered(method, DESCENT)
    compiled = jax.jit(partial(estimate, method), compiler_options=xla.cpu_options())

    def gradient(layers: list[Layer], x: Array, y: np.ndarray, rng: Generator) -> Backpropagated:
        seed = rng.integers(2**32, size=2, dtype=np.uint32)
        return jax.device_get(compiled(layers, x, y.astype(np.int32), seed))

    return gradient


def estimate(
    method: Method, layers: list[Layer], x: jax.Array, y: jax.Array, seed: jax.Array
) -> Backpropagated:
    """By glr/xla.py, whose arrays lie the other way round."""
    keys = keys_of_step(seed, np.uint32(0), method, len(layers))
    turned = [Layer(W.T, b) for W, b in layers]
    found, risk, inputs = xla.gradient(method, turned, x.T, y, keys)
    return Backpropagated([Layer(W.T, b) for W, b in found], risk, inputs.T)
