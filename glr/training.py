"""The training loop: minibatches → gradient → L2 penalty → optimizer → evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from glr.data import Dataset
from glr.errors import DivergenceError
from glr.estimator import GLR, Batch, Gradient, glr_gradient
from glr.losses import Loss
from glr.network import Layer, Network, accuracy, layer_views
from glr.optimizers import Optimizer

GradientEstimator = Callable[[list[Layer], Batch], Gradient]


class Plan(NamedTuple):
    """How a network is trained, and the `loss` that its evaluations report.

    The step size falls from `learning_rate` to 0 along half a cosine over all `steps`
    (Loshchilov & Hutter 2017); `weight_decay`·W, the gradient of an L2 penalty on the weights
    but not the biases, is added to the loss's gradient. `centralised` subtracts from each
    first-layer neuron's weight gradient its mean over the inputs (Yong et al. 2020).
    """

    loss: Loss
    optimizer: Optimizer
    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    centralised: bool
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
    """Train `network` in place; yield an evaluation every `eval_every` steps and at the end.

    Raises DivergenceError at the first step whose loss is not finite.
    """
    layers, optimizer_state = network.layers, {}
    flat = np.empty_like(network.parameters)
    batches = minibatches(len(data.x_train), plan.batch_size, rng)
    seconds, risks, start = 0.0, [], time.perf_counter()
    for step in range(1, plan.steps + 1):
        rows = next(batches)
        with np.errstate(over="ignore", invalid="ignore"):  # finite_risk sees to it
            gradient = estimator(layers, Batch(data.x_train[rows].T, data.y_train[rows]))
            risks.append(finite_risk(gradient, step))
            write_descent(layer_views(flat, network.sizes), gradient.layers, layers, plan)
            plan.optimizer(network.parameters, flat, cosine_rate(plan, step - 1), optimizer_state)
        if step % plan.eval_every == 0 or step == plan.steps:
            seconds += time.perf_counter() - start
            epoch = step * len(rows) / len(data.x_train)
            test = test_figures(network, data, plan.loss)
            yield Evaluation(step, epoch, seconds, float(np.mean(risks)), *test)
            risks, start = [], time.perf_counter()


def finite_risk(gradient: Gradient, step: int) -> float:
    """The batch's mean loss; DivergenceError if it is not finite."""
    if not math.isfinite(gradient.risk):
        raise DivergenceError(
            f"step {step}: the loss is {gradient.risk}; "
            "lower LEARNING_RATE, or raise SIGMA (the estimate's variance falls as 1/σ²)"
        )
    return gradient.risk


def write_descent(
    into: list[Layer], gradient: list[Layer], layers: list[Layer], plan: Plan
) -> None:
    """Write what the optimizer descends: ∂W + weight_decay·W, ∂W centralised if planned; ∂b."""
    for total, found, layer in zip(into, gradient, layers, strict=True):
        total.W[:] = found.W + np.float32(plan.weight_decay) * layer.W
        total.b[:] = found.b
    if plan.centralised:
        into[0].W[:] -= gradient[0].W.mean(axis=0)


def test_figures(network: Network, data: Dataset, loss: Loss) -> tuple[float, float]:
    """Mean loss and accuracy on the test set, noise-free."""
    output = network.logits(data.x_test)
    return float(loss(output, data.y_test).mean()), accuracy(output, data.y_test)
