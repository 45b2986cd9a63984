"""Gradient descent on one flat parameter vector, in place; and how its step size falls.

An optimizer is `update(parameters, gradient, rate, state)`, which changes the parameters in place
and returns nothing; `state` is a dict of arrays that it fills on its first call, and changes in
place later, so that training can store it and continue from it.

A schedule is `factor(step, steps)`: what multiplies the step size at a step, counted from 0, of so
many in all.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from glr.network import Array

State = dict[str, np.ndarray]  # what an optimizer keeps, to be stored and restored

Optimizer = Callable[[Array, Array, float, State], None]
Schedule = Callable[[int, int], float]
MEAN_SHARE, SQUARE_SHARE = np.float32(0.1), np.float32(0.001)  # 1 − β₁ and 1 − β₂ of Adam


def sgd(parameters: Array, gradient: Array, rate: float, state: State) -> None:
    """θ ← θ − rate·g."""
    parameters -= rate * gradient


def adagrad(parameters: Array, gradient: Array, rate: float, state: State) -> None:
    """θ ← θ − rate·g/√(Σ g²) (Duchi et al. 2011)."""
    if not state:
        state["squares"] = np.zeros_like(parameters)
    total = state["squares"]
    total += gradient * gradient
    parameters -= rate * gradient / (np.sqrt(total) + 1e-10)


def adam(parameters: Array, gradient: Array, rate: float, state: State) -> None:
    """Adam (Kingma & Ba 2015) with β₁ 0.9, β₂ 0.999, ε 1e-8; compiled: glr.compiled_training."""
    mean, square, step = adam_state(parameters, state)
    step += 1
    mean += MEAN_SHARE * (gradient - mean)
    square += SQUARE_SHARE * (gradient * gradient - square)
    factor, epsilon = adam_factors(rate, int(step))
    parameters -= factor * (mean / (np.sqrt(square) + epsilon))


def adam_state(parameters: Array, state: State) -> tuple[Array, Array, np.ndarray]:
    """Adam's moments of the gradient, and how many steps it has taken."""
    if not state:
        state["mean"], state["square"] = np.zeros_like(parameters), np.zeros_like(parameters)
        state["step"] = np.zeros((), np.int64)
    return state["mean"], state["square"], state["step"]


def adam_factors(rate: float, step: int) -> tuple[np.float32, np.float32]:
    """What multiplies mean/(√square + ε) at a step, and ε there: the moments begin at 0."""
    bias_mean, bias_square = 1 - 0.9**step, 1 - 0.999**step
    root = math.sqrt(bias_square)
    return np.float32(rate * root / bias_mean), np.float32(1e-8 * root)


def cosine(step: int, steps: int) -> float:
    """From 1 down to 0 along half a cosine (Loshchilov & Hutter 2017)."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def constant(step: int, steps: int) -> float:
    """The same step size always."""
    return 1.0
