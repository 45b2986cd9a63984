"""Trained networks on disk: one .npz of plain arrays and a JSON string, no pickle.

`W0, b0, W1, b1, …` are float32 of shapes (n_in, n_out) and (n_out,); `metadata` is the JSON of
activation, loss, data set, constants, metrics and library versions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glr.errors import GLRError, UnknownActivationError
from glr.network import ACTIVATIONS, Activation, Layer, Network
from glr.storage.files import write_whole
from glr.storage.npz import json_object, npz_arrays

MAX_BYTES = 2**30  # of a model's arrays together


class Model(NamedTuple):
    """A trained network as it was saved."""

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


def save_model(path: Path, network: Network, metadata: dict) -> None:
    """Write the network's layers and the metadata to `path`, whole or not at all."""
    arrays = {}
    for t, (W, b) in enumerate(network.layers):
        arrays[f"W{t}"], arrays[f"b{t}"] = W, b
    text = json.dumps(metadata, indent=1)
    write_whole(path, lambda file: np.savez(file, metadata=np.array(text), **arrays))


def load_model(path: Path) -> Model:
    """Read a model file. Raises GLRError, in one line, for any file that is not one."""
    layers, metadata = layers_and_metadata(path)
    parameters = np.concatenate([part.ravel() for layer in layers for part in layer])
    sizes = [len(layers[0].W), *(layer.b.size for layer in layers)]
    return Model(Network(parameters, sizes, named_activation(path, metadata)), metadata)


def layers_and_metadata(path: Path) -> tuple[list[Layer], dict]:
    """What a model file holds, whatever its activation; GLRError if it is none."""
    arrays = npz_arrays(path, "model file", "metadata|[Wb][0-9]+", MAX_BYTES, "train it again")
    try:
        metadata = json_object(path, arrays["metadata"], "train it again")
        n_layers = sum(name.startswith("W") for name in arrays)
        layers = [Layer(arrays[f"W{t}"], arrays[f"b{t}"]) for t in range(n_layers)]
    except KeyError as error:
        raise GLRError(f"{path}: not a model file (no array {error}); train it again") from error
    check_layers(path, layers)
    return layers, metadata


def check_layers(path: Path, layers: list[Layer]) -> None:
    """Raise GLRError unless the layers are finite float32 and fit one another."""
    width = layers[0].W.shape[0] if layers and layers[0].W.ndim == 2 else 0
    for t, (W, b) in enumerate(layers):
        if W.shape != (width, b.size) or b.ndim != 1 or W.size == 0:
            raise GLRError(f"{path}: W{t} and b{t} do not fit the layer before; train it again")
        if not (W.dtype == b.dtype == np.float32 and np.isfinite(W).all() and np.isfinite(b).all()):
            raise GLRError(f"{path}: W{t}, b{t} are not finite float32 numbers; train it again")
        width = b.size
    if not layers:
        raise GLRError(f"{path}: holds no layers; train it again")


def named_activation(path: Path, metadata: dict) -> Activation:
    """The activation that the metadata name, one of glr.network's."""
    known = {activation.__name__: activation for activation in ACTIVATIONS}
    name = str(metadata.get("activation"))  # foreign JSON may hold a list here
    if name not in known:
        raise UnknownActivationError(
            f"{path}: its activation {name!r} is not in glr.network.ACTIVATIONS "
            f"({', '.join(known)}); add it there"
        )
    return known[name]
