"""The training loop: minibatches → gradient → L2 penalty → optimizer → evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np

from glr.arrays import Array, State
from glr.data import Dataset
from glr.errors import DivergenceError, GLRError
from glr.estimator import Estimator
from glr.losses import Loss, losses_of
from glr.network import Layer, Network, accuracy, layer_views
from glr.optimizers import Optimizer, Schedule
from glr.passes import Batch

LEG_SECONDS = 0.05  # of steps that are taken at once, so that a stop need not wait for longer
TakeSteps = Callable[["Run", Dataset, list[np.ndarray], "Plan"], None]  # see take_steps


class Plan(NamedTuple):
    """How a network is trained, and the `loss` that its evaluations report.

    The step size is `learning_rate` times what `schedule` says; `weight_decay`·W, the gradient of
    an L2 penalty on the weights but not the biases, is added to the loss's gradient. `centralised`
    subtracts from each first-layer neuron's weight gradient its mean over the inputs (Yong et al.
    2020). Training pauses at the multiples of `pause_every`, as for evaluations. `take_steps` is
    glr.compiled_training.take_steps, or None for `take_steps` below, by NumPy.
    """

    loss: Loss
    optimizer: Optimizer
    steps: int
    batch_size: int
    learning_rate: float
    schedule: Schedule
    weight_decay: float
    centralised: bool
    eval_every: int
    pause_every: int = 1
    take_steps: TakeSteps | None = None


class Evaluation(NamedTuple):
    """One row of the learning curve. Test figures are noise-free, of the data's test set."""

    step: int
    epoch: float
    seconds: float
    train_loss: float
    test_loss: float
    test_accuracy: float


@dataclass
class Run:
    """All that training changes; with the seed, all that a run needs to be continued.

    step : minibatch steps taken
    seconds : spent on them, evaluations not counted
    risks : the batches' mean losses since the last evaluation
    retuned : after which steps it was continued with other constants, and what they were before
    fingerprint : of its training data, see glr.data
    """

    network: Network
    estimator: Estimator
    optimizer_state: State = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0
    risks: list[float] = field(default_factory=list)
    history: list[Evaluation] = field(default_factory=list)
    retuned: list[dict] = field(default_factory=list)
    fingerprint: int = 0


def minibatches(n: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of minibatches, without end: a new permutation of the n samples every epoch.

    What is left of an epoch after its last whole minibatch is dropped.
    """
    size = min(size, n)
    while True:
        order = rng.permutation(n)
        for start in range(0, n - size + 1, size):
            yield order[start : start + size]


def train(
    run: Run, data: Dataset, plan: Plan, rng: np.random.Generator
) -> Iterator[Evaluation | None]:
    """Train run.network in place, from run.step on; yield at every pause (see next_pause).

    What is yielded is an evaluation every `eval_every` steps and at the end, else None.
    rng : as it was before the run's first step, so that the minibatches are those of one run.

    Raises DivergenceError at the first step whose loss or weights are not finite.
    """
    batches = islice(minibatches(len(data.x_train), plan.batch_size, rng), run.step, None)
    at_once = 1
    while run.step < plan.steps:
        start, first = time.perf_counter(), run.step
        leg = list(islice(batches, min(at_once, next_pause(first, plan) - first)))
        (plan.take_steps or take_steps)(run, data, leg, plan)
        seconds = time.perf_counter() - start
        run.seconds += seconds
        at_once = max(1, int(len(leg) * LEG_SECONDS / seconds))
        if run.step % plan.eval_every == 0 or run.step == plan.steps:
            epoch = run.step * len(leg[0]) / len(data.x_train)
            test = test_figures(run.network, data, plan.loss)
            train_loss = float(np.mean(run.risks))
            run.history.append(Evaluation(run.step, epoch, run.seconds, train_loss, *test))
            run.risks.clear()
            yield run.history[-1]
        else:
            yield None


def next_pause(step: int, plan: Plan) -> int:
    """After which step training pauses next, at the latest: to be evaluated, shown or stored."""
    every = plan.eval_every, plan.pause_every
    return min(plan.steps, *(step - step % n + n for n in every))


def take_steps(run: Run, data: Dataset, batches: list[np.ndarray], plan: Plan) -> None:
    """Take a step with each minibatch, of which these are the rows."""
    for rows in batches:
        take_step(run, Batch(data.x_train[rows].T, data.y_train[rows]), plan)


def take_step(run: Run, batch: Batch, plan: Plan) -> None:
    """Estimate the gradient of one minibatch, and descend."""
    network = run.network
    run.step += 1
    with np.errstate(over="ignore", invalid="ignore"):  # check_finite sees to it
        gradient = run.estimator.gradient(network.layers, batch)
        descend(run, gradient.layers, plan)
        check_finite(gradient.risk, network.parameters, run.step)
    run.risks.append(gradient.risk)


def descend(run: Run, gradient: list[Layer], plan: Plan) -> None:
    """Take the plan's step along a gradient."""
    network = run.network
    flat = np.empty_like(network.parameters)
    write_descent(layer_views(flat, network.sizes), gradient, network.layers, plan)
    rate = step_size(run.step, plan)
    returned = plan.optimizer(network.parameters, flat, rate, run.optimizer_state)
    check_optimizer(returned, run)


def step_size(step: int, plan: Plan) -> float:
    """The step size at a step, counted from 1."""
    return plan.learning_rate * plan.schedule(step - 1, plan.steps)


def check_optimizer(returned: object, run: Run) -> None:
    """Raise GLRError unless the optimizer returned nothing, and its state can be stored."""
    if returned is not None:
        raise GLRError(
            "OPTIMIZER: returned something; it must change the parameters in place, "
            "as parameters -= …, and return nothing"
        )
    other = [key for key, value in run.optimizer_state.items() if not is_array(value)]
    if other:
        raise GLRError(
            f"OPTIMIZER: {other[0]} of its state is no array, and could not be stored; "
            "keep np.zeros(()) for a number, and change it in place"
        )


def is_array(value: object) -> bool:
    """Whether a value is an array of numbers."""
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiu"


def check_finite(risk: float, parameters: Array, step: int) -> None:
    """Raise DivergenceError unless the batch's mean loss and all the weights are finite."""
    if step == 1 and not math.isfinite(risk):
        raise DivergenceError(f"step 1: the loss is {risk}; look at LOSS, ACTIVATION, NOISE, SIGMA")
    if not math.isfinite(risk):
        what = f"the loss is {risk}"
    elif not math.isfinite(parameters @ parameters):  # faster than looking at each
        what = "the weights overflow"
    else:
        return
    raise DivergenceError(
        f"step {step}: {what}; "
        "lower LEARNING_RATE, or raise SIGMA (the estimate's variance falls as 1/σ²)"
    )


def write_descent(
    into: list[Layer], gradient: list[Layer], layers: list[Layer], plan: Plan
) -> None:
    """Write what the optimizer descends: ∂W + weight_decay·W, ∂W centralised if planned; ∂b."""
    for total, found, layer in zip(into, gradient, layers, strict=True):
        np.multiply(layer.W, np.float32(plan.weight_decay), out=total.W)
        np.add(total.W, found.W, out=total.W)
        total.b[:] = found.b
    if plan.centralised:
        np.subtract(into[0].W, gradient[0].W.mean(axis=0), out=into[0].W)


def test_figures(network: Network, data: Dataset, loss: Loss) -> tuple[float, float]:
    """Mean loss and accuracy on the test set, noise-free."""
    output = network.logits_of_rows(data.x_test)
    return float(losses_of(loss, output, data.y_test).mean()), accuracy(output, data.y_test)
