"""The multilayer perceptron: its activations, its weights, its noise-free forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from glr.errors import GLRError

Array = NDArray[np.float32]
Activation = Callable[[Array], Array]


class Layer(NamedTuple):
    """Weights W (n_in, n_out) and biases b (n_out,) of one layer."""

    W: Array
    b: Array


def sigmoid(v: Array) -> Array:
    """1/(1 + e^−v), written as (1 + tanh(v/2))/2, which is faster in NumPy."""
    x = v * np.float32(0.5)
    np.tanh(x, out=x)
    x += 1
    x *= np.float32(0.5)
    return x


def threshold(v: Array) -> Array:
    """1 where v > 0, else 0: the derivative is zero wherever it exists."""
    return (v > 0).astype(np.float32)


def tanh(v: Array) -> Array:
    """The hyperbolic tangent."""
    return np.tanh(v)


def relu(v: Array) -> Array:
    """max(v, 0)."""
    return np.maximum(v, 0)


def identity(v: Array) -> Array:
    """v: the output layer's."""
    return v


def outputs_of(activation: Activation, v: Array) -> Array:
    """φ(v) as float32; GLRError if the activation gives another shape, or no numbers."""
    x = np.asarray(activation(v))
    if x.dtype.kind not in "fiub":
        raise GLRError(f"the activation gave {x.dtype.name}: it must give real numbers")
    x = x.astype(np.float32, copy=False)
    if x.shape != v.shape:
        raise GLRError(
            f"the activation gave shape {x.shape} for logits {v.shape}: it must be elementwise"
        )
    return x


ACTIVATIONS = (sigmoid, threshold, tanh, relu)


class Network(NamedTuple):
    """A multilayer perceptron n_0-…-n_T: its flat parameters, layer sizes and activation φ.

    An optimizer updates the whole network by a few passes over the one array.
    """

    parameters: Array
    sizes: list[int]
    activation: Activation

    @property
    def layers(self) -> list[Layer]:
        """Views of the parameters."""
        return layer_views(self.parameters, self.sizes)

    def logits(self, x: Array) -> Array:
        """Noise-free output logits (N, classes) for samples in rows, x (N, n_in)."""
        return logits(self.layers, self.activation, x)


def logits(layers: list[Layer], activation: Activation, x: Array) -> Array:
    """Noise-free output logits (N, classes) for samples in rows, x (N, n_in)."""
    for W, b in layers[:-1]:
        x = np.asarray(activation(x @ W + b))  # one by jax.numpy gives no array of NumPy
    W, b = layers[-1]
    return x @ W + b


def layer_views(parameters: Array, sizes: list[int]) -> list[Layer]:
    """The layers of an n_0-…-n_T network as views of one flat vector of its parameters."""
    layers, start = [], 0
    for n_in, n_out in pairwise(sizes):
        middle, end = start + n_in * n_out, start + (n_in + 1) * n_out
        layers.append(Layer(parameters[start:middle].reshape(n_in, n_out), parameters[middle:end]))
        start = end
    return layers


def network_of(layers: list[Layer], activation: Activation) -> Network:
    """The network of copies of these layers."""
    parameters = np.concatenate([part.ravel() for layer in layers for part in layer])
    return Network(parameters, [len(layers[0].W), *(b.size for _, b in layers)], activation)


def n_parameters(sizes: list[int]) -> int:
    """The number of weights and biases of an n_0-…-n_T network."""
    return sum((n_in + 1) * n_out for n_in, n_out in pairwise(sizes))


def new_network(
    sizes: list[int], activation: Activation, rng: np.random.Generator, scale: float = 1
) -> Network:
    """A network of weights ~ N(0, scale²/n_in) and biases 0 (scale 1: LeCun et al. 1998)."""
    parameters = np.zeros(n_parameters(sizes), np.float32)
    for W, _ in layer_views(parameters, sizes):
        W[:] = rng.standard_normal(W.shape, dtype=np.float32) / (math.sqrt(len(W)) / scale)
    return Network(parameters, sizes, activation)


def is_right(output_logits: Array, y: np.ndarray) -> np.ndarray:
    """Whether the largest logit of each row of (N, classes) is at the label y (N,): (N,).

    A row with a NaN has no largest one.
    """
    return (output_logits.argmax(axis=1) == y) & ~np.isnan(output_logits).any(axis=1)


def accuracy(output_logits: Array, y: np.ndarray) -> float:
    """Share in [0, 1] of the rows of (N, classes) that are right."""
    return float(is_right(output_logits, y).mean())
