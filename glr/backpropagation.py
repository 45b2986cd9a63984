"""The benchmark's gradient: backpropagation by Keras, in the place of the GLR estimator.

Everything else (data, minibatches, penalty, optimizer, evaluation) is the same code, so that
what a comparison shows is the gradient's doing. TensorFlow is imported here and only when used.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from glr.arrays import State
from glr.errors import GLRError
from glr.estimator import Estimator, Gradient
from glr.network import Layer, Network, layer_views, relu, sigmoid, tanh, threshold
from glr.noise import LAPLACE_SCALE, LOGISTIC_SCALE
from glr.passes import Batch

if TYPE_CHECKING:
    import keras


def import_keras() -> tuple[ModuleType, ModuleType]:
    """Keras on TensorFlow, without TensorFlow's start-up notices, and bit for bit repeatable."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with silent_stderr():
        import keras  # noqa: PLC0415  (six seconds, which the GLR scripts do without)
        import tensorflow as tf  # noqa: PLC0415

    tf.get_logger().setLevel("ERROR")  # it warns of a function for every network, as is meant
    tf.config.experimental.enable_op_determinism()
    return keras, tf


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


GRADIENTS = (sigmoid, tanh, relu, threshold)  # activations that Keras has; see keras_network
KERAS_LAWS = ("gaussian", "laplace", "logistic")  # that noise_layer can draw
TRAINING_SLOPE = 1 / LOGISTIC_SCALE  # that of a threshold's mean output under noise of deviation 1


class TrainingNoise(NamedTuple):
    """Noise in training: layer t's standard deviation sigma[t] (0 is none) and seed, law, place.

    perturb : "logits" or "weights", as in glr.passes.GLR
    """

    sigma: Sequence[float]
    seeds: Sequence[int]
    law: str = "logistic"
    perturb: str = "logits"


def keras_network(
    network: Network, noise: TrainingNoise | None = None, slope: float = 1
) -> keras.Model:
    """The network as a Keras model (N, n_in) → logits (N, n_out), with its parameters.

    A threshold is flat, so its backward pass is replaced by that of a sigmoid of slope·v: in
    training the straight-through estimator (Bengio et al. 2013, arXiv 1308.3432), in attacks BPDA
    (Athalye et al. 2018). The noise (the paper's BP+) is there in training mode alone.
    """
    keras, _ = import_keras()
    name = network.activation.__name__
    if network.activation not in GRADIENTS:
        raise GLRError(f"ACTIVATION = {name}: Keras has no gradient of it; use sigmoid")
    activation = straight_through_threshold(slope) if name == "threshold" else name
    inputs = x = keras.Input((network.sizes[0],))
    for t, (W, _) in enumerate(network.layers):
        v = keras.layers.Dense(W.shape[1])(x)
        if noise is not None and noise.sigma[t] > 0:
            v = noise_layer(noise, t)(v, x)
        if t < len(network.layers) - 1:
            x = keras.layers.Activation(activation)(v)
    model = keras.Model(inputs, v)
    set_keras_weights(model, network.layers)
    return model


def straight_through_threshold(slope: float) -> Callable:
    """1 where v > 0, else 0, forward; the derivative of the sigmoid of slope·v backward."""
    _, tf = import_keras()

    @tf.custom_gradient
    def threshold_of(v):
        p = tf.sigmoid(slope * v)
        return tf.cast(v > 0, v.dtype), lambda upstream: upstream * slope * p * (1 - p)

    return threshold_of


def set_keras_weights(model: keras.Model, layers: list[Layer]) -> None:
    """Copy the layers' parameters into the Keras model."""
    for variable, value in zip(
        model.trainable_variables, (array for layer in layers for array in layer), strict=True
    ):
        variable.assign(value)


def noise_layer(noise: TrainingNoise, t: int) -> keras.layers.Layer:
    """A Keras layer that adds the noise of layer t to its logits in training, none otherwise.

    It takes the logits v (N, n) and the input x (N, n_in) that they are of, which sets the scale
    of noise on the weights: σ√(1 + ‖x‖²) (Kingma et al. 2015).
    """
    keras, _ = import_keras()
    ops, random = keras.ops, keras.random
    sigma, law, perturb = noise.sigma[t], noise.law, noise.perturb
    if law not in KERAS_LAWS:
        raise GLRError(f"NOISE = {law}: backpropagation knows {', '.join(KERAS_LAWS)} only")

    def unit_noise(shape, generator):
        if law == "gaussian":
            return random.normal(shape, seed=generator)
        c = random.uniform(shape, -1 + 1e-6, 1 - 1e-6, seed=generator)
        if law == "logistic":
            return LOGISTIC_SCALE * ops.log((1 + c) / (1 - c))
        return -LAPLACE_SCALE * ops.sign(c) * ops.log(1 - ops.abs(c))

    def scale(x):
        if perturb == "logits":
            return sigma
        return sigma * ops.sqrt(1 + ops.sum(ops.square(x), axis=-1, keepdims=True))

    class Noise(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            # An attribute: only so does the model know its state, and every step draw new noise.
            self.generator = random.SeedGenerator(noise.seeds[t])

        def call(self, v, x, training=False):
            return v + scale(x) * unit_noise(ops.shape(v), self.generator) if training else v

    return Noise()


def backpropagation_estimator(network: Network, noise: TrainingNoise) -> Estimator:
    """The mean cross-entropy's gradient by Keras, as a function of layers and batch.

    That of threshold neurons is the straight-through estimate: not the gradient of any risk.
    """
    keras, tf = import_keras()
    model = keras_network(network, noise, TRAINING_SLOPE)
    mean_cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    shapes = [tuple(variable.shape) for variable in model.trainable_variables]

    @tf.function(reduce_retracing=True)
    def risk_gradient_state(parameters, state, x, y):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            parts = tf.split(parameters, [math.prod(shape) for shape in shapes])
            arrays = [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]
            logits, state = model.stateless_call(arrays, state, x, training=True)
            risk = mean_cross_entropy(y, logits)
        return risk, tape.gradient(risk, parameters), state

    noise_state = [variable.value for variable in model.non_trainable_variables]

    def gradient(layers: list[Layer], batch: Batch) -> Gradient:
        parameters = np.concatenate([part.ravel() for layer in layers for part in layer])
        risk, flat, noise_state[:] = risk_gradient_state(
            parameters, noise_state, batch.x.T, batch.y
        )
        return Gradient(layer_views(flat.numpy(), network.sizes), float(risk))

    def restore(state: State) -> None:
        noise_state[:] = [tf.constant(state[f"noise{i}"]) for i in range(len(noise_state))]

    return Estimator(
        gradient,
        lambda: {f"noise{i}": part.numpy() for i, part in enumerate(noise_state)},
        restore,
    )
