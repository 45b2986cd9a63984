"""What each neuron's change alone does to the loss: the L − L⁻ of docs/method.md, section 7.

Arrays are (n, R, B), as in glr/estimator.py. A neuron's `change` is what its reversed noise, or its
other bit, adds to its output; all other noise stays as it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from glr.losses import Loss, label_logits, losses_of, zero_one
from glr.network import Array

MOVED_FLOATS = 2**18  # changed logits evaluated at a time, 1 MB: they stay in the cache
ROUNDING = np.float32(2**-20)  # more than that of a changed logit, as a share of it


class Output(NamedTuple):
    """Output logits z (classes, R, B), the part of them that is noise, and their losses (R, B)."""

    z: Array
    noise: Array
    losses: Array
    loss: Loss
    y: np.ndarray


def columns(x: Array) -> Array:
    """A layer (n, …, B) as one matrix with a column for each pass and sample."""
    return x.reshape(len(x), -1)


def by_class(z: Array) -> Array:
    """Logits (classes, …, B) as a loss takes them, (…, classes, B): a view."""
    return z.transpose(*range(1, z.ndim - 1), 0, z.ndim - 1)


def loss_differences(output: Output, effect: Array, change: Array, growth: Array | None) -> Array:
    """L − L⁻ of each neuron (n, R, B): what its change alone does to the loss."""
    if output.loss is zero_one and growth is None:
        return zero_one_differences(output, effect, change)
    return evaluated_differences(output, effect, change, growth)


def evaluated_differences(
    output: Output, effect: Array, change: Array, growth: Array | None
) -> Array:
    """loss_differences by one evaluation of the loss for each neuron, pass and sample."""
    found = np.empty(change.shape, np.float32)
    at_once = max(1, MOVED_FLOATS // max(1, output.z.size))
    for first in range(0, len(change), at_once):
        i = slice(first, first + at_once)
        moved = effect[i].T[:, :, None, None] * change[i]  # (classes, neurons, R, B)
        moved += output.z[:, None]
        if growth is not None:
            moved += growth[i] * output.noise[:, None]
        found[i] = output.losses - losses_of(output.loss, by_class(moved), output.y)
    return found


def zero_one_differences(output: Output, effect: Array, change: Array) -> Array:
    """loss_differences of the 0-1 loss, evaluated where a neuron can turn it: elsewhere they are 0.

    Once the network has begun to learn, few neurons can, in few passes.
    """
    classes, R, B = output.z.shape
    labels, turns = np.tile(output.y, R), turning(output, effect, change)
    found = np.zeros(change.size, np.float32)
    at_once = max(1, MOVED_FLOATS // classes)
    for first in range(0, len(turns), at_once):
        some = turns[first : first + at_once]
        neuron, column = np.divmod(some, R * B)
        counts = np.bincount(neuron, minlength=len(effect))  # `turns` go from neuron to neuron
        moved = np.repeat(effect.T, counts, axis=1) * change.take(some)
        moved += columns(output.z).take(column, axis=1)
        own = moved.take(labels.take(column) * len(some) + np.arange(len(some)))  # the labels'
        found[some] = output.losses.take(column) - (moved.max(axis=0) != own)
    return found.reshape(change.shape)


def turning(output: Output, effect: Array, change: Array) -> np.ndarray:
    """The neurons and passes, as indices of `change` flat, where a change can turn the 0-1 loss.

    The label's lead over another class j moves by change·(effect_y − effect_j).
    """
    most = np.maximum(effect.max(axis=1)[:, None] - effect, effect - effect.min(axis=1)[:, None])
    reach = np.abs(change)
    reach *= most.take(output.y, axis=1)[:, None]
    return np.flatnonzero(~(reach < smallest_lead(output)))  # a NaN is evaluated


def smallest_lead(output: Output) -> Array:
    """How far the label's logit is from the largest other, less all rounding, (R, B)."""
    others = by_class(output.z).copy()
    label = label_logits(others, output.y)
    others[..., output.y, np.arange(len(output.y))] = -np.inf
    other = others.max(axis=-2)
    return np.abs(label - other) - ROUNDING * (np.abs(label) + np.abs(other))


def noise_growth(x: Array, change: Array) -> Array:
    """By what part of it the next layer's weight noise grows with each neuron's change alone.

    √(1 + ‖x′‖²)/√(1 + ‖x‖²) − 1, where x′ is x (n, R, B) but for the change of one neuron.
    """
    square = 1 + np.square(x).sum(axis=0)
    return np.sqrt(1 + change * (2 * x + change) / square) - 1
