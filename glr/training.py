"""The training loop: minibatches → gradient → L2 penalty → optimizer → evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from glr.data import Dataset
from glr.estimator import GLR, Batch, Gradient, glr_gradient
from glr.losses import Loss
from glr.network import Layer, Network, accuracy, layer_views
from glr.optimizers import Optimizer

GradientEstimator = Callable[[list[Layer], Batch], Gradient]


class Plan(NamedTuple):
    """How a network is trained, and the `loss` that its evaluations report.

    The step size falls from `learning_rate` to 0 along half a cosine over all `steps`
    (Loshchilov & Hutter 2017); `weight_decay`·W, the gradient of an L2 penalty on the weights
    but not the biases, is added to the loss's gradient.
    """

    loss: Loss
    optimizer: Optimizer
    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    eval_every: int


class Evaluation(NamedTuple):
    """One row of the learning curve. Test figures are noise-free, of the data's test set."""

    step: int
    epoch: float
    seconds: float
    train_loss: float
    test_loss: float
    test_accuracy: float


def glr_estimator(glr: GLR, rng: np.random.Generator) -> GradientEstimator:
    """The GLR gradient as a function of layers and batch, one noise stream per layer."""
    streams = rng.spawn(len(glr.sigma))
    return lambda layers, batch: glr_gradient(glr, layers, batch, streams)


def minibatches(n: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of minibatches, without end: a new permutation of the n samples every epoch.

    What is left of an epoch after its last whole minibatch is dropped.
    """
    size = min(size, n)
    while True:
        order = rng.permutation(n)
        for start in range(0, n - size + 1, size):
            yield order[start : start + size]


def cosine_rate(plan: Plan, step: int) -> float:
    """The step size at a step counted from 0."""
    return plan.learning_rate * 0.5 * (1 + math.cos(math.pi * step / plan.steps))


def train(
    network: Network,
    estimator: GradientEstimator,
    data: Dataset,
    plan: Plan,
    rng: np.random.Generator,
) -> Iterator[Evaluation]:
    """Train `network` in place; yield an evaluation every `eval_every` steps and at the end."""
    layers, optimizer_state = network.layers, {}
    flat = np.empty_like(network.parameters)
    batches = minibatches(len(data.x_train), plan.batch_size, rng)
    seconds, risks, start = 0.0, [], time.perf_counter()
    for step in range(plan.steps):
        rows = next(batches)
        gradient = estimator(layers, Batch(data.x_train[rows].T, data.y_train[rows]))
        risks.append(gradient.risk)
        for into, found, layer in zip(
            layer_views(flat, network.sizes), gradient.layers, layers, strict=True
        ):
            into.W[:] = found.W + np.float32(plan.weight_decay) * layer.W
            into.b[:] = found.b
        plan.optimizer(network.parameters, flat, cosine_rate(plan, step), optimizer_state)
        if (step + 1) % plan.eval_every == 0 or step + 1 == plan.steps:
            seconds += time.perf_counter() - start
            epoch = (step + 1) * min(plan.batch_size, len(data.x_train)) / len(data.x_train)
            output = network.logits(data.x_test)
            yield Evaluation(
                step + 1,
                epoch,
                seconds,
                float(np.mean(risks)),
                float(plan.loss(output, data.y_test).mean()),
                accuracy(output, data.y_test),
            )
            risks, start = [], time.perf_counter()
