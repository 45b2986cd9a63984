"""Free adversarial training (Shafahi et al. 2019, arXiv 1904.12843), from loss values alone.

Every minibatch is taken REPLAYS times. A step is on x + η, and moves the perturbation η along the
sign of the loss's gradient in x: that is W⁰·δ⁰ of the step's own passes (docs/method.md, section
14), so no pass and no loss value is added. The next minibatch starts from the η of this one.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from glr.data.datasets import Dataset
from glr.errors import GLRError
from glr.network import Array


def first_perturbation(constants: SimpleNamespace, data: Dataset) -> Array | None:
    """Zeros (B, n_in), None without adversarial training; GLRError if x is not in [0, 1]."""
    if not getattr(constants, "ADVERSARIAL_EPSILON", 0):
        return None
    x = data.x_train
    if x.min() < 0 or x.max() > 1:
        wrong = f"x goes from {x.min():g} to {x.max():g}, and a pixel from 0 to 1"
        raise GLRError(f"ADVERSARIAL_EPSILON: {wrong}; scale x to that, or set it to 0")
    return np.zeros((min(constants.BATCH_SIZE, len(x)), x.shape[1]), np.float32)


def moved(perturbation: Array, slope: Array, epsilon: float) -> Array:
    """η after a step of ε along the sign of the loss's slope in x; no pixel changes by more."""
    return np.clip(perturbation + np.float32(epsilon) * np.sign(slope), -epsilon, epsilon)
