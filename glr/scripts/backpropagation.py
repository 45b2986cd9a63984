"""The baseline's gradient: backpropagation by TensorFlow, in the place of the GLR estimate.

All else (data, minibatches, weight decay, optimizer, evaluation) is the same code, so that a
comparison shows the effect of the gradient alone. TensorFlow is imported only when it is used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from glr.checks import sigma_by_layer
from glr.errors import GLRError
from glr.losses import Loss, cross_entropy
from glr.network import Activation, Array, Layer, Network, relu, sigmoid, tanh, threshold
from glr.noise import LOGISTIC_SCALE, NoiseLaw, noise_and_score
from glr.scripts.machine import without_user_settings

if TYPE_CHECKING:
    import tensorflow as tf

TRAINING_SLOPE = 1 / LOGISTIC_SCALE  # that of a threshold's mean output under noise of deviation 1


class Backpropagated(NamedTuple):
    """The gradient of every layer, the minibatch's mean loss; and, if asked for, that in x."""

    layers: list[Layer]
    risk: float
    inputs: Array | None = None  # (B, n_in), of each sample's own loss times 1/B


class TrainingNoise(NamedTuple):
    """Noise in training: its law, a deviation for each layer (0 is none), and its place."""

    law: NoiseLaw
    sigma: Sequence[float]
    perturb: str  # "logits" or "weights", as in glr.gradient


def import_tensorflow() -> ModuleType:
    """TensorFlow, Keras' backend, without its start-up notices, and bit for bit repeatable."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silent_stderr(), without_user_settings():
        import tensorflow  # noqa: PLC0415  (seconds, which the GLR scripts do without)

        tensorflow.config.list_physical_devices()  # it may complain of a GPU that is not there
    tensorflow.get_logger().setLevel("ERROR")  # it warns of a function for every network
    tensorflow.config.experimental.enable_op_determinism()
    return tensorflow


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Drop what C++ code writes to file descriptor 2; TensorFlow's import obeys no setting."""
    sys.stderr.flush()
    shown, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(nowhere)


def backpropagation(
    network: Network, loss: Loss, noise: TrainingNoise, of_inputs: bool = False
) -> Callable[[Array, np.ndarray, np.random.Generator], Backpropagated]:
    """The gradient of the mean cross-entropy, as a function of x (B, n_in), y (B,) and a generator.

    It is that of the network's parameters as they are when it is called. That of threshold neurons
    is the straight-through estimate (Bengio et al. 2013, arXiv 1308.3432), no risk's gradient.

    Raises GLRError for another loss, or an activation that TensorFlow cannot differentiate.
    """
    check_differentiable(loss)
    tf = import_tensorflow()
    activation = differentiable(network.activation)
    sigmas = sigma_by_layer(noise.sigma, len(network.layers))

    @tf.function(reduce_retracing=True)
    def risk_and_gradient(layers, x, y, drawn):
        wanted = [layers, x] if of_inputs else [layers]
        with tf.GradientTape() as tape:
            tape.watch(wanted)
            output = x
            for t, (W, b) in enumerate(layers):
                z = output @ W + b
                if t in drawn:
                    z += deviation(output, sigmas[t], noise.perturb) * drawn[t]
                output = activation(z)
            risk = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, z))
        return risk, *tape.gradient(risk, wanted)

    def gradient(x: Array, y: np.ndarray, rng: np.random.Generator) -> Backpropagated:
        shapes = {t: (len(x), 1, b.size) for t, (_, b) in enumerate(network.layers) if sigmas[t]}
        drawn = {t: noise_and_score(noise.law, rng, shape)[0][:, 0] for t, shape in shapes.items()}
        layers = [tuple(one) for one in network.layers]
        risk, layers, *inputs = risk_and_gradient(layers, tf.constant(x), y, drawn)
        found = [Layer(W.numpy(), b.numpy()) for W, b in layers]
        return Backpropagated(found, float(risk), *(one.numpy() for one in inputs))

    return gradient


def check_differentiable(loss: Loss) -> None:
    """Raise GLRError for a loss that BP.py does not differentiate."""
    if loss is not cross_entropy:
        raise GLRError(f"LOSS = {loss.__name__}: BP.py differentiates cross_entropy only")


def deviation(x: tf.Tensor, sigma: float, perturb: str) -> float | tf.Tensor:
    """That of the logits' noise in a layer with input x: σ; of noisy weights σ√(1 + ‖x‖²)."""
    if perturb == "logits":
        return sigma
    tf = import_tensorflow()
    return sigma * tf.sqrt(1 + tf.reduce_sum(x * x, axis=1, keepdims=True))


def differentiable(activation: Activation) -> Callable:
    """The activation in TensorFlow; a threshold's derivative is a sigmoid's (straight-through)."""
    tf = import_tensorflow()

    @tf.custom_gradient
    def threshold_of(v):
        p = tf.sigmoid(TRAINING_SLOPE * v)
        return tf.cast(v > 0, v.dtype), lambda upstream: upstream * TRAINING_SLOPE * p * (1 - p)

    known = {sigmoid: tf.sigmoid, tanh: tf.tanh, relu: tf.nn.relu, threshold: threshold_of}
    if activation not in known:
        wrong = f"ACTIVATION = {activation.__name__}: TensorFlow has no gradient of it"
        raise GLRError(f'{wrong}; use sigmoid, or BACKEND = "jax"')
    return known[activation]
