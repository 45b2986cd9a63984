"""The estimator as Peng et al. (2022) publish it, with nothing that lowers its variance."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from glr.losses import Loss, losses_of
from glr.network import Activation, Array, Layer


def published_gradient(  # noqa: PLR0913  (those of glr.estimator.gradient)
    layers: Sequence[Layer],
    x: Array,
    y: np.ndarray,
    *,
    activation: Activation,
    loss: Loss,
    replicates: int,
    rng: np.random.Generator,
) -> SimpleNamespace:
    """Equation (1) with Laplace noise of scale 1 in every layer, whose score is its sign.

    Takes what `glr.estimator.gradient` does; returns `layers`, the gradients, and `risk`, the mean
    loss. Each sample is copied R times. The mean over the R·B outer products of input and loss·sign
    is one matrix product; the released code forms the products themselves, (R·B, n_in, n_out).
    """
    x, y = np.tile(x, (replicates, 1)), np.tile(y, replicates)
    inputs, signs = [], []
    for t, (W, b) in enumerate(layers):
        r = rng.laplace(size=(len(x), b.size)).astype(np.float32)
        inputs.append(x)
        signs.append(np.sign(r))
        v = x @ W + b + r
        x = activation(v) if t < len(layers) - 1 else v
    losses = losses_of(loss, x.T, y)
    weighted = [sign * (losses / len(y))[:, None] for sign in signs]
    found = [Layer(x.T @ d, d.sum(axis=0)) for x, d in zip(inputs, weighted, strict=True)]
    return SimpleNamespace(layers=found, risk=float(losses.mean()))
