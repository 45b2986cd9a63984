"""Prediction by the mean over noisy passes, with the noise with which a network was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from glr.checks import checked_sigma
from glr.estimator import Method, noisy_passes
from glr.losses import cross_entropy
from glr.network import Activation, Array, Layer, Network
from glr.robustness.attacks import groups_of
from glr.scripts.constants import NAMED
from glr.storage.models import Model


@dataclass(frozen=True)
class Averaged:
    """A network whose logits are the mean of those of noisy passes, spread and drawn in every call.

    noise : the options noise, sigma and perturb of `glr.gradient`
    """

    layers: list[Layer]
    sizes: list[int]
    activation: Activation
    noise: Mapping[str, object]
    passes: int
    rng: np.random.Generator

    def logits(self, x: Array) -> Array:
        """Mean output logits (N, classes) for samples in rows, x (N, n_in)."""
        options = {"activation": self.activation, "loss": cross_entropy, "replicates": self.passes}
        options |= {"local_differences": True, "control_variate": True}
        method = Method(**options, **self.noise, standardised_loss=False)
        means = [np.empty((0, self.sizes[-1]), np.float32)]
        for group in groups_of(len(x)):
            passes = noisy_passes(method, self.layers, x[group].T, self.rng)
            means.append(passes.neurons[-1].outputs.mean(axis=1).T)
        return np.concatenate(means)


def predictor(model: Model, passes: int, rng: np.random.Generator) -> Network | Averaged:
    """The model's network; or, with passes, its mean over so many with the noise of training."""
    network = model.network
    own = network.layers, network.sizes, network.activation
    return Averaged(*own, training_noise(model), passes, rng) if passes else network


def training_noise(model: Model) -> dict[str, object]:
    """Training's noise, as options of `glr.gradient`; {} where a layer had none of glr's laws."""
    constants = model.metadata["constants"]
    laws = NAMED["NOISE"]
    sigma = np.atleast_1d(constants.get("SIGMA") or 0)
    if constants.get("NOISE") not in laws or not np.all(sigma > 0):
        return {}
    sigmas = checked_sigma(sigma, len(model.network.layers))
    place = constants.get("PERTURB", "logits")
    return {"noise": laws[constants["NOISE"]], "sigma": sigmas, "perturb": place}
