"""Gradient descent on one flat parameter vector, in place.

An optimizer is `update(parameters, gradient, rate, state)`; `state` is a dict of arrays that the
optimizer fills on its first call, so that training can store it and continue from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from glr.noise import Array

State = dict[str, np.ndarray]
Optimizer = Callable[[Array, Array, float, State], None]


def sgd(parameters: Array, gradient: Array, rate: float, state: State) -> None:
    """θ ← θ − rate·g."""
    parameters -= rate * gradient


def adagrad(parameters: Array, gradient: Array, rate: float, state: State) -> None:
    """θ ← θ − rate·g/√(Σ g²) (Duchi et al. 2011)."""
    total = state.setdefault("squares", np.zeros_like(parameters))
    total += gradient * gradient
    parameters -= rate * gradient / (np.sqrt(total) + 1e-10)


def adam(parameters: Array, gradient: Array, rate: float, state: State) -> None:
    """Adam (Kingma & Ba 2015) with β₁ 0.9, β₂ 0.999, ε 1e-8."""
    mean = state.setdefault("mean", np.zeros_like(parameters))
    square = state.setdefault("square", np.zeros_like(parameters))
    step = state.setdefault("step", np.zeros((), np.int64))
    step += 1
    mean += np.float32(0.1) * (gradient - mean)
    square += np.float32(0.001) * (gradient * gradient - square)
    bias_mean, bias_square = 1 - 0.9 ** int(step), 1 - 0.999 ** int(step)
    parameters -= np.float32(rate * math.sqrt(bias_square) / bias_mean) * (
        mean / (np.sqrt(square) + np.float32(1e-8 * math.sqrt(bias_square)))
    )
