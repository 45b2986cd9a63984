"""Per-sample losses of output logits. GLR training needs their values only, no derivative.

A loss takes logits (…, classes, B), the samples on the last axis, and the labels y (B,); it returns
(…, B), one number for each pass and sample. A loss of your own is given y as gradient() is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from glr.errors import GLRError
from glr.network import Array

Loss = Callable[[Array, np.ndarray], Array]


def label_logits(logits: Array, y: np.ndarray) -> Array:
    """The logit of each sample's own class, (…, B)."""
    return logits[..., y, np.arange(len(y))]


def cross_entropy(logits: Array, y: np.ndarray) -> Array:
    """−log softmax(logits)_y in nats, by log-sum-exp shifted by the largest logit."""
    largest = logits.max(axis=-2)
    exponentials = logits - largest[..., None, :]
    np.exp(exponentials, out=exponentials)
    return np.log(exponentials.sum(axis=-2)) + largest - label_logits(logits, y)


def zero_one(logits: Array, y: np.ndarray) -> Array:
    """1 where argmax(logits) ≠ y, or a logit is NaN, else 0. Ties, rare by the noise, are right."""
    return (logits.max(axis=-2) != label_logits(logits, y)).astype(np.float32)  # NaN ≠ NaN


def losses_of(loss: Loss, logits: Array, y: np.ndarray) -> Array:
    """The losses (…, B) of logits (…, classes, B); GLRError for other shapes, or no real numbers.

    The loss may read its arguments, not write: they are needed after it.
    """
    losses = np.asarray(loss(_read_only(logits), _read_only(y)))
    if losses.dtype.kind not in "fiub":
        raise GLRError(f"the loss gave {losses.dtype.name}: it must give real numbers")
    losses = losses.astype(np.float32, copy=False)
    if losses.shape != logits.shape[:-2] + logits.shape[-1:]:
        raise GLRError(
            f"the loss gave shape {losses.shape} for logits {logits.shape}: it must reduce the "
            "classes, the last axis but one, and keep the others"
        )
    return losses


def _read_only(x: np.ndarray) -> np.ndarray:
    """A view that cannot be written to."""
    view = x.view()
    view.flags.writeable = False
    return view
