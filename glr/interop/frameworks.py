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
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import chain
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from glr.errors import GLRError
from glr.network import ACTIVATIONS, Array, Layer, Network, network_of, threshold
from glr.storage.models import Model

if TYPE_CHECKING:
    import keras
    import torch

NAMES = ", ".join(activation.__name__ for activation in ACTIVATIONS)
PROBES = 64  # samples by which a network is told from others
MOST_ERROR = 1e-4  # of their logits, in parts of the largest; rounding makes a thousandth of it


def to_keras(model: Model) -> keras.Model:
    """The network as a Keras model, whose `predict(x)` gives logits (N, classes).

    Raises GLRError for an activation that is not glr's, or where Keras cannot be imported.
    """
    keras = imported("keras", "pip install -r requirements.txt")
    name, layers = activation_name(model.network), model.network.layers
    v = inputs = keras.Input((model.network.sizes[0],), dtype="float32")
    for layer in layers:
        if v is inputs:
            x = inputs
        elif model.network.activation is threshold:  # no activation of Keras; operations are saved
            x = keras.ops.cast(v > 0, "float32")
        else:
            x = keras.layers.Activation(name, dtype="float32")(v)
        v = keras.layers.Dense(layer.b.size, dtype="float32")(x)
    found = keras.Model(inputs, v)
    found.set_weights([*chain(*layers)])
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

    Raises GLRError for a model that glr's networks do not compute: with a softmax at the end, say.
    """
    keras = imported("keras", "pip install -r requirements.txt")
    found = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]

    def outputs(x: Array) -> Array:
        x = x.reshape(len(x), *model.input_shape[1:])
        return keras.ops.convert_to_numpy(model(x, training=False))

    return model_of([layer.get_weights() for layer in found], outputs, model.layers)


def from_torch(model: torch.nn.Module) -> Model:
    """The network that a PyTorch module of linear layers is; other parts, errors: `from_keras`."""
    torch = imported("torch", "pip install torch")
    theirs = copy.deepcopy(model).to("cpu", torch.float32).eval()
    parts = [module for module in theirs.modules() if not [*module.children()]]
    found = [module.parameters() for module in parts if isinstance(module, torch.nn.Linear)]

    def outputs(x: Array) -> Array:
        with torch.no_grad():
            return theirs(torch.from_numpy(x)).numpy()

    return model_of([[p.detach().numpy().T for p in pair] for pair in found], outputs, parts)


def model_of(
    weights: list[list[Array]], outputs: Callable[[Array], Array], parts: Sequence[object]
) -> Model:
    """The model of dense layers, with that of glr's activations by which it gives the outputs.

    weights : W (n_in, n_out) and perhaps b (n_out,) of each
    outputs : a foreign network's, of samples in rows (N, n_in)
    parts : its layers, which the error names

    Raises GLRError if there is none. Random inputs tell, half of them large: a name says nothing of
    a function of one's own, nor the order of a module's parts how they are called.
    """
    with suppress(Exception), np.errstate(all="ignore"):  # of a framework: anything
        pairs = [(W, b[0] if b else np.zeros(W.shape[1])) for W, *b in weights]
        layers = [Layer(W.astype(np.float32), b.astype(np.float32)) for W, b in pairs]
        x = np.random.default_rng(0).normal(size=(PROBES, len(layers[0].W))).astype(np.float32)
        x[::2] *= 1e6
        theirs = outputs(x)
        for network in (network_of(layers, activation) for activation in ACTIVATIONS):
            error = np.abs(theirs - network.logits(x)).max(axis=1)
            # Rounding may flip a threshold, in one sample or another.
            if np.mean(error <= MOST_ERROR * np.abs(theirs).max(axis=1)) > 0.9:
                return Model(network, {"activation": network.activation.__name__})
    names = []
    for part in parts:
        activation = getattr(part, "activation", None)
        names += [type(part).__name__, getattr(activation, "__name__", type(activation).__name__)]
    raise GLRError(
        f"{', '.join(name for name in names if name not in ('linear', 'NoneType'))}: what travels "
        f"is a chain of dense layers that was called, one of {NAMES} between all of them and "
        "logits at the end; take the rest away, or apply it to the data"
    )


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
