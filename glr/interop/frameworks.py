"""Networks to Keras and PyTorch, and from them; either is imported only when it is asked for.

    import glr
    from glr.interop import from_keras, to_keras, to_torch

    model = glr.load("models/pretrained/LRS_digits_seed0.npz")
    to_keras(model).save("LRS.keras")  # needs no glr to be loaded
    from_keras(to_keras(model)).predict(x)  # x (N, 64)

Both frameworks write ONNX, whose files then take any number of samples (N, 64):

    theirs = to_keras(model)  # pip install tf2onnx
    theirs.predict(x)  # Keras exports what has been called
    theirs.export("LRS.onnx", format="onnx")

    batch = (torch.zeros(2, 64),)  # pip install onnx onnxscript
    torch.onnx.export(to_torch(model), batch, "LRS.onnx", dynamic_shapes=({0: "samples"},))

What travels is a chain of dense layers that ends in logits, with one activation of glr's four in
all hidden layers. Models there take samples in rows (N, n_in) and give logits (N, classes).

The scripts of RobustnessTest test what comes from elsewhere, if its file says what it is of:

    from glr.storage.models import save_model

    about = {"dataset": "mnist", "constants": {"NAME": "mine", "SEED": 0}}
    model = from_keras(theirs)
    save_model("models/mine_mnist_seed0.npz", model.network, model.metadata | about)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import pairwise
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from glr.errors import GLRError
from glr.network import ACTIVATIONS, Activation, Array, Layer, Network, identity, sigmoid, threshold
from glr.storage.models import Model, check_layers

if TYPE_CHECKING:
    import keras
    import torch

NAMES = ", ".join(activation.__name__ for activation in ACTIVATIONS)
PROBES = 64  # samples by which a framework's activation is told from others


class Between(NamedTuple):
    """What a foreign network has before its first dense layer, between two, or after the last.

    names : of its layers; "linear" is nothing
    shape : of a sample of its input
    outputs : samples (N, *shape) to outputs (N, …)
    """

    names: list[str]
    shape: tuple[int, ...]
    outputs: Callable[[Array], Array]


def to_keras(model: Model) -> keras.Model:
    """The network as a Keras model, whose `predict(x)` gives logits (N, classes).

    Raises GLRError for an activation that is not glr's, or where Keras cannot be imported.
    """
    keras = imported("keras", "pip install -r requirements.txt")
    name = activation_name(model.network)
    x = inputs = keras.Input((model.network.sizes[0],), dtype="float32")
    *hidden, output = model.network.layers
    for layer in hidden:
        v = dense(keras, layer)(x)
        if model.network.activation is threshold:  # no activation of Keras; operations are saved
            x = keras.ops.cast(v > 0, "float32")
        else:
            x = keras.layers.Activation(name, dtype="float32")(v)
    return keras.Model(inputs, dense(keras, output)(x))


def dense(keras: ModuleType, layer: Layer) -> keras.layers.Layer:
    """A dense layer of Keras with these weights and no activation."""
    found = keras.layers.Dense(layer.b.size, dtype="float32")
    found.build((None, len(layer.W)))
    found.set_weights([*layer])
    return found


def to_torch(model: Model) -> torch.nn.Sequential:
    """The network as a PyTorch module, which gives logits (N, classes).

    Raises GLRError for an activation that is not glr's, or where PyTorch cannot be imported.
    """
    torch = imported("torch", "pip install torch")
    from glr.interop.step import Step  # noqa: PLC0415  (it imports PyTorch)

    modules = {"sigmoid": torch.nn.Sigmoid, "tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}
    activation = (modules | {"threshold": Step})[activation_name(model.network)]
    found = []
    for W, b in model.network.layers:
        linear = torch.nn.Linear(*W.shape)
        linear.load_state_dict({"weight": torch.tensor(W.T), "bias": torch.tensor(b)})
        found += [linear, activation()]
    return torch.nn.Sequential(*found[:-1])


def from_keras(model: keras.Model) -> Model:
    """The network that a Keras model of dense layers is; it may flatten its inputs, or drop out.

    Raises GLRError for what is no chain of dense layers, for a softmax at the end, and for other
    activations than glr's, or several.
    """
    keras = imported("keras", "pip install -r requirements.txt")
    if len(getattr(model, "outputs", None) or []) != 1:
        raise GLRError("give a Keras model of one output, a chain of layers that was called once")
    found = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    befores = [model.inputs[0], *(layer.output for layer in found)]
    afters = [*(layer.input for layer in found), model.outputs[0]]
    activations = [keras.activations.linear, *(layer.activation for layer in found)]
    between = list(map(keras_between, befores, afters, activations))
    weights = ([np.array(w) for w in layer.get_weights()] for layer in found)
    return model_of(between, [as_layer(*arrays) for arrays in weights])


def keras_between(before: object, after: object, activation: Callable) -> Between:
    """What is between two tensors of a Keras model, the activation of the first tensor included.

    Raises GLRError unless the one is all that the other depends on.
    """
    import keras  # noqa: PLC0415  (as in imported)

    try:
        graph = None if before is after else keras.Model(before, after)
    except ValueError as error:
        raise GLRError("the Keras model is no chain of layers; only chains travel") from error
    names = [type(operation).__name__ for operation in graph.operations[1:]] if graph else []

    def outputs(v: Array) -> Array:
        x = activation(keras.ops.convert_to_tensor(v))
        return keras.ops.convert_to_numpy(graph(x, training=False) if graph else x)

    own = getattr(activation, "__name__", type(activation).__name__)
    return Between([own, *names], tuple(before.shape[1:]), outputs)


def from_torch(model: torch.nn.Sequential) -> Model:
    """The network that a Sequential of PyTorch's linear layers is; it may flatten, or drop out.

    Raises GLRError as `from_keras`.
    """
    torch = imported("torch", "pip install torch")
    if not isinstance(model, torch.nn.Sequential):
        raise GLRError(f"{type(model).__name__} is no torch.nn.Sequential; only chains travel")
    found = [*copy.deepcopy(model).to("cpu", torch.float32).eval()]
    at = [i for i, module in enumerate(found) if isinstance(module, torch.nn.Linear)]
    layers = [as_layer(*map(torch_array, found[i].parameters())) for i in at]
    parts = [found[i + 1 : j] for i, j in pairwise([-1, *at, len(found)])]
    widths = [len(layers[0].W), *(layer.b.size for layer in layers)] if layers else [0]
    return model_of(list(map(torch_between, parts, widths)), layers)


def torch_array(parameter: torch.nn.Parameter) -> Array:
    """A parameter of PyTorch, (n_out, n_in) or (n_out,), as glr has it."""
    return parameter.detach().numpy().T


def torch_between(modules: list[torch.nn.Module], width: int) -> Between:
    """What some modules of PyTorch do, one after the other, with samples of this width."""
    import torch  # noqa: PLC0415  (as in imported)

    def outputs(v: Array) -> Array:
        with torch.no_grad():
            return torch.nn.Sequential(*modules)(torch.from_numpy(v)).numpy()

    return Between([type(module).__name__ for module in modules], (width,), outputs)


def as_layer(W: Array, b: Array | None = None) -> Layer:
    """A layer of these arrays as float32; its biases are 0 if there are none."""
    b = np.zeros(W.shape[1]) if b is None else b
    return Layer(np.array(W, np.float32, order="C"), np.array(b, np.float32))


def model_of(between: Sequence[Between], layers: list[Layer]) -> Model:
    """The model of dense layers, and what is before the first, between any two, and after the last.

    Raises GLRError unless that is nothing, one of glr's activations, and nothing.
    """
    if not layers:
        raise GLRError("the model has no dense layers, of which a glr network consists")
    check_layers(layers)
    first, *hidden, last = between
    if computed_by(first, [identity]) is None or math.prod(first.shape) != len(layers[0].W):
        given = f"{named(first)} before the first dense layer, inputs of shape {first.shape}"
        raise GLRError(f"{given}: apply it to the data instead, in rows of {len(layers[0].W)}")
    if computed_by(last, [identity]) is None:
        raise GLRError(f"{named(last)} after the last dense layer: take it away, to get logits")
    used = []
    for one in hidden:
        used.append(computed_by(one, ACTIVATIONS))
        if used[-1] is None:
            raise GLRError(f"{named(one)} between dense layers: glr has {NAMES}, and one alone")
    several = ", ".join(dict.fromkeys(activation.__name__ for activation in used))
    if len(set(used)) > 1:
        raise GLRError(f"hidden layers of several activations, {several}: a glr network has one")
    activation = used[0] if used else sigmoid  # which a network of one layer never calls
    parameters = np.concatenate([part.ravel() for layer in layers for part in layer])
    sizes = [len(layers[0].W), *(layer.b.size for layer in layers)]
    return Model(Network(parameters, sizes, activation), {"activation": activation.__name__})


def named(between: Between) -> str:
    """The layers, in words."""
    return ", ".join(name for name in between.names if name != "linear") or "nothing"


def computed_by(between: Between, candidates: Sequence[Activation]) -> Activation | None:
    """The candidate whose outputs are those of the layers; None if there is none.

    By random inputs, zeros and very large ones: a name says nothing of a function of one's own.
    """
    v = np.random.default_rng(0).normal(0, 4, (PROBES, *between.shape)).astype(np.float32)
    v[0], v[1:4] = 0, 1e6 * v[1:4]
    try:
        x = between.outputs(v).reshape(PROBES, -1)
    except Exception:  # of a framework, or someone's layer: anything; then it is none of these
        return None
    wanted = {f: f(v.reshape(PROBES, -1)) for f in candidates}
    fit = (f for f, y in wanted.items() if x.shape == y.shape and np.allclose(x, y, atol=1e-6))
    return next(fit, None)


def activation_name(network: Network) -> str:
    """The name of a network's activation; GLRError if it is not one of glr's."""
    name = network.activation.__name__
    if network.activation not in ACTIVATIONS:
        raise GLRError(f"{name}: only glr's activations travel, {NAMES}; write it in the framework")
    return name


def imported(name: str, remedy: str) -> ModuleType:
    """A framework; GLRError where it cannot be imported."""
    try:
        return import_module(name)
    except Exception as error:  # Keras's own settings are read, and may be wrong
        raise GLRError(f"cannot import {name} ({error}); {remedy}") from error
