"""Per-sample losses of output logits. GLR training needs their values only, no derivative.

A loss takes logits (…, n_out, B), the classes on the last axis but one, and labels y (B,) of
integers; it returns (…, B), one number per replicate and sample.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from glr.arrays import Array

Loss = Callable[[Array, np.ndarray], Array]


def label_logits(logits: Array, y: np.ndarray) -> Array:
    """The logit of each sample's own class, (…, B)."""
    return logits[..., y, np.arange(len(y))]


def cross_entropy(logits: Array, y: np.ndarray) -> Array:
    """−log softmax(logits)_y in nats, by log-sum-exp shifted by the largest logit."""
    largest = logits.max(axis=-2)
    exponentials = np.exp(logits - largest[..., None, :])
    return np.log(exponentials.sum(axis=-2)) + largest - label_logits(logits, y)


def zero_one(logits: Array, y: np.ndarray) -> Array:
    """1 where argmax(logits) ≠ y, else 0. Ties, which noise makes impossible, count as right."""
    return (logits.max(axis=-2) > label_logits(logits, y)).astype(np.float32)
