"""Trained networks on disk: one .npz of plain arrays and a JSON string, no pickle.

`W0, b0, W1, b1, …` are float32 of shapes (n_in, n_out) and (n_out,); `metadata` is the JSON of
activation, loss, data set, constants, metrics and library versions.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from glr.checks import checked_inputs
from glr.errors import GLRError, UnknownActivationError
from glr.network import ACTIVATIONS, Activation, Array, Layer, Network, network_of, outputs_of
from glr.storage.npz import load_arrays, refusals, save_arrays

MAX_BYTES = 2**30  # of a model's arrays together
KIND, ADVICE = "model file", "train it again"


class Model(NamedTuple):
    """A trained network, which predicts without noise: x (N, n_in), scaled as in training."""

    network: Network
    metadata: dict

    @property
    def name(self) -> str:
        """NAME of the script that trained it."""
        return self.metadata["constants"]["NAME"]

    @property
    def seed(self) -> int:
        """SEED of the script that trained it."""
        return self.metadata["constants"]["SEED"]

    def predict(self, x: Array) -> np.ndarray:
        """The class number of each sample, (N,) int64. GLRError where its logits are NaN."""
        z = self.logits(x)
        (wrong,) = np.isnan(z).any(axis=1).nonzero()
        if wrong.size:
            raise GLRError(f"the logits of sample {wrong[0]} are NaN; look at x and the activation")
        return z.argmax(axis=1)

    def predict_proba(self, x: Array) -> Array:
        """The softmax of each sample's logits, (N, classes)."""
        z = self.logits(x)
        exponentials = np.exp(z - z.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def logits(self, x: Array) -> Array:
        """The output logits of each sample, (N, classes)."""
        x = checked_inputs(x, self.network.sizes[0])
        if np.isnan(x).any():
            raise GLRError("x holds NaN; clean it")
        return self.network.logits(x)


def save_model(path: Path, network: Network, metadata: dict) -> None:
    """Write the network's layers and the metadata to `path`, whole or not at all."""
    arrays = {}
    for t, (W, b) in enumerate(network.layers):
        arrays |= {f"W{t}": W, f"b{t}": b}
    save_arrays(path, metadata, arrays)


def load_model(path: Path | str, activation: Activation | None = None) -> Model:
    """Read a model file; GLRError for one that is no model, or was trained with another activation.

    activation : the φ that it was trained with, if that is not one of glr's
    """
    path = Path(path)
    layers, metadata = layers_and_metadata(path)
    return Model(network_of(layers, activation_of(path, metadata, activation)), metadata)


def layers_and_metadata(path: Path) -> tuple[list[Layer], dict]:
    """What a model file holds, whatever its activation; GLRError if it is none."""
    arrays, metadata = load_arrays(path, KIND, "[Wb][0-9]+", MAX_BYTES, ADVICE)
    with refusals(path, KIND, ADVICE):
        n_layers = sum(name.startswith("W") for name in arrays)
        layers = [Layer(arrays[f"W{t}"], arrays[f"b{t}"]) for t in range(n_layers)]
        check_layers(layers)
    return layers, metadata


def check_layers(layers: list[Layer]) -> None:
    """Raise GLRError, which does not name the file, unless layers are finite float32 and fit."""
    if not layers:
        raise GLRError("holds no layers")
    width = layers[0].W.size // layers[0].b.size
    for t, (W, b) in enumerate(layers):
        if W.shape != (width, b.size) or b.ndim != 1:
            raise GLRError(f"W{t} and b{t} do not fit the layer before")
        if not (W.dtype == b.dtype == np.float32 and np.isfinite(W).all() and np.isfinite(b).all()):
            raise GLRError(f"W{t}, b{t} are not finite float32 numbers")
        width = b.size


def activation_of(path: Path, metadata: dict, given: Activation | None) -> Activation:
    """The activation that the metadata name, if it is one of glr's, else the given one."""
    known = {activation.__name__: activation for activation in ACTIVATIONS}
    name = str(metadata.get("activation"))  # foreign JSON may hold a list here
    found = known.get(name, given)
    if found is None:
        raise UnknownActivationError(
            f"{path}: its activation {name!r} is none of glr's ({', '.join(known)}); give "
            "load(path, activation=f), or --functions FILE in the scripts of RobustnessTest"
        )
    if given is not None and given is not found:
        raise GLRError(f"{path}: was trained with glr.{name}; leave out activation, or give that")
    if not callable(found):
        raise GLRError(f"{path}: the activation is a {type(found).__name__}; give a function")
    outputs_of(found, np.zeros((2, 3), np.float32))  # refuses what is not elementwise
    return found
