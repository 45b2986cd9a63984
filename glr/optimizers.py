"""Gradient descent on one flat parameter vector, in place; and how its learning rate falls.

An optimizer is `update(parameters, gradient, rate, state)`, which changes the parameters in place
and returns nothing; `state` is a dict of arrays that it fills on its first call, and changes in
place later, so that training can store it and continue from it.

A schedule is `factor(step, steps)`: what multiplies the learning rate at a step, counted from 0, of
so many in all.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from glr.network import Array

State = dict[str, np.ndarray]  # what an optimizer keeps, to be stored and restored

Optimizer = Callable[[Array, Array, float, State], None]
Schedule = Callable[[int, int], float]
BETA_1, BETA_2 = 0.9, 0.999  # of Adam


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
    """θ ← θ − rate·m̂/(√v̂ + 1e-8) (Adam, Kingma & Ba 2015).

    m and v are moving averages of g and g², m̂ and v̂ what they are without their start at 0.
    """
    if not state:
        state["mean"], state["square"] = np.zeros_like(parameters), np.zeros_like(parameters)
        state["step"] = np.zeros((), np.int64)
    m, v = state["mean"], state["square"]
    state["step"] += 1
    root = math.sqrt(1 - BETA_2 ** int(state["step"]))
    factor = np.float32(rate * root / (1 - BETA_1 ** int(state["step"])))
    m += np.float32(1 - BETA_1) * (gradient - m)
    v += np.float32(1 - BETA_2) * (gradient * gradient - v)
    change = np.sqrt(v)
    change += np.float32(1e-8 * root)
    np.divide(m, change, out=change)
    change *= factor
    parameters -= change


def cosine(step: int, steps: int) -> float:
    """From 1 down to 0 along half a cosine (Loshchilov & Hutter 2017)."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def tenths(step: int, steps: int) -> float:
    """0.8 of the learning rate after every tenth of the steps, as the released code's BP has it."""
    return 0.8 ** (10 * step // steps)


def constant(step: int, steps: int) -> float:
    """The same learning rate always."""
    return 1.0
