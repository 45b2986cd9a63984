"""The published algorithm's step, written plainly in NumPy: what ours is compared with.

From the published code's description: the batch is copied R times, Laplace noise of scale 1 is
added to the logits of both layers, and per-sample outer products (R·B × n_in × n_out) of input
and loss × score are formed and averaged. No control variate; weight decay 1e-4; SGD.
"""

from __future__ import annotations

import numpy as np

from glr.losses import cross_entropy
from glr.network import Layer

SCALE = 1.0  # of the Laplace law, whose score is sign(r)/SCALE
DECAY, RATE = 1e-4, 0.01


def published_gradient(
    layers: list[Layer], activation, x: np.ndarray, y: np.ndarray, R: int, rng, loss=cross_entropy
) -> list[Layer]:
    """The published estimate for samples in rows, x (B × n_in), y (B,)."""
    x, y = np.repeat(x, R, axis=0), np.repeat(y, R)
    inputs, scores = [], []
    for t, (W, b) in enumerate(layers):
        inputs.append(x)
        v = x @ W + b
        r = rng.laplace(0.0, SCALE, v.shape).astype(np.float32)
        scores.append(np.sign(r) / SCALE)
        x = v + r if t == len(layers) - 1 else activation(v + r)
    losses = loss(x.T, y)
    gradient = []
    for x, score in zip(inputs, scores, strict=True):
        weighted = losses[:, None] * score
        outer = x[:, :, None] * weighted[:, None, :]  # (R·B × n_in × n_out)
        gradient.append(Layer(outer.mean(axis=0), weighted.mean(axis=0)))
    return gradient


def published_step(
    layers: list[Layer], activation, x: np.ndarray, y: np.ndarray, R: int, rng
) -> None:
    """One SGD step in place with the published estimate."""
    for layer, estimate in zip(
        layers, published_gradient(layers, activation, x, y, R, rng), strict=True
    ):
        layer.W[:] -= RATE * (estimate.W + DECAY * layer.W)
        layer.b[:] -= RATE * estimate.b
