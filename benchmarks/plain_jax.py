"""The choices in glr/xla.py that cost clarity, and the plain way of each."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax.scipy import stats
from rivals import Step

import glr.losses
from glr import noise, xla
from glr.estimator import Method
from glr.noise import LOGISTIC_SCALE


def zero_one(logits: jax.Array, y: jax.Array) -> jax.Array:
    """The 0-1 loss by reductions over the axis of classes."""
    is_own = jnp.arange(logits.shape[-2])[:, None] == y
    label = jnp.where(is_own, logits, 0).sum(axis=-2, keepdims=True)
    return ((logits > label) & ~is_own).any(axis=-2)


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Cross-entropy by reductions over the axis of classes."""
    is_own = jnp.arange(logits.shape[-2])[:, None] == y
    return jax.nn.logsumexp(logits, axis=-2) - jnp.where(is_own, logits, 0).sum(axis=-2)


def threefry_words(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Random words by JAX's own generator."""
    return jax.random.bits(key, shape)


def program(method: Method, plan: xla.Plan) -> xla.Program:
    """xla.program with the vectors that XLA chooses by itself."""
    compiled = jax.jit(xla.steps_of_rows, static_argnums=(0, 1), donate_argnums=2)
    return lambda *arguments: compiled(method, plan, *arguments)


def logistic_pdf(v: jax.Array) -> jax.Array:
    """The logistic law's f(v) by jax.scipy."""
    return stats.logistic.pdf(v, scale=LOGISTIC_SCALE)


def products_of_first_layer(forward: str, back: str, shape: tuple[int, int]) -> Step:
    """The logits v = Wx, and the gradient δxᵀ, of weights of a shape."""
    compiled = jax.jit(lambda W, x: jnp.einsum(back, jnp.einsum(forward, W, x), x))
    arrays = jnp.ones(shape), jnp.ones((784, 128))

    def step() -> None:
        compiled(*arrays).block_until_ready()

    return step


PRODUCTS = {
    "ours": lambda: products_of_first_layer("ij,jb->ib", "ib,jb->ij", (50, 784)),
    "plain": lambda: products_of_first_layer("ji,jb->ib", "ib,jb->ji", (784, 50)),
}
WAYS = {  # what takes a name's place in glr/xla.py
    "vectors of 512 bits, of XLA's choice": {"program": program},
    "losses class by class, reductions": {
        "LOSSES": {glr.losses.zero_one: zero_one, glr.losses.cross_entropy: cross_entropy}
    },
    "random words by a hash, by JAX": {"random_words": threefry_words},
    "f of the logistic law, jax.scipy's": {
        "LAWS": {noise.logistic: replace(xla.LAWS[noise.logistic], pdf=logistic_pdf)}
    },
}
