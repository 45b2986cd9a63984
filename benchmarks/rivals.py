"""Trainings to be timed: a script's, the published algorithm's, and by backpropagation.

Each function takes a script's name, more of its flags and the data, and returns `steps(n)`: it
takes the next n ≤ 256 steps, and returns the network, from inputs (N, n_in) to logits (N, classes).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from unittest.mock import patch

import numpy as np

import glr
from glr.data.datasets import Dataset
from glr.estimator import Estimate
from glr.interop import to_keras, to_torch
from glr.network import Array, Layer
from glr.scripts.backpropagation import Backpropagated, silent_stderr
from glr.scripts.constants import constants_of
from glr.scripts.machine import without_user_settings
from glr.scripts.run import Run, minibatches, run_generator
from glr.storage.models import Model
from glr.study.comparison import batches_of, method_of, published_gradient

RELEASED = (  # constants of the released LRS
    "--optimizer sgd --learning-rate 0.01 --schedule constant --initial-scale 2 "
    "--no-centralised-gradient --weight-decay 1e-4"
)
Steps = Callable[[int], Callable[[Array], Array] | None]


def repeated(step: Callable[[], object], network: Callable[[Array], Array] | None = None) -> Steps:
    """Steps that are taken one by one, of a network."""

    def steps(n: int) -> Callable[[Array], Array] | None:
        for _ in range(n):
            step()
        return network

    return steps


def numpy_training(script: str, flags: Sequence[str], data: Dataset, **changed: object) -> Steps:
    """The script's own steps; some arguments of `glr.gradient` may be changed."""
    run = Run(constants_of(f"{script}.py", flags), data)
    return training_of(run, partial(glr.gradient, **method_of(vars(run.constants)) | changed))


def training_of(run: Run, estimate: Callable[..., Estimate | Backpropagated]) -> Steps:
    """The run's steps along what `estimate(layers, x, y, rng=…)` returns."""
    batches = batches_of(run)

    def step() -> None:
        run.descend(estimate(run.layers, *next(batches), rng=run.rng))

    return repeated(step, run.network.logits)


def jax_training(script: str, flags: Sequence[str], data: Dataset, **changed: object) -> Steps:
    """The script's own steps by JAX; some names of glr/xla.py may be changed."""
    from glr import xla  # noqa: PLC0415  (no requirement)
    from glr.scripts import by_jax  # noqa: PLC0415

    by_jax.set_up()
    run = Run(constants_of(f"{script}.py", flags), data)
    rows = minibatches(len(data.x_train), run.constants.BATCH_SIZE, run_generator(0))
    state, samples = by_jax.state_of(run), by_jax.samples_of(run)
    with patch.dict(vars(xla), changed):
        program = by_jax.program_of(run)
        xla.take_steps(program, by_jax.state_of(run), samples, next(rows)[None])  # traced now

    def steps(n: int) -> Callable[[Array], Array]:
        nonlocal state
        state, _ = xla.take_steps(program, state, samples, np.array([*islice(rows, n)]))
        return logits

    def logits(x: Array) -> Array:
        by_jax.write_back(state, run.state)
        return run.network.logits(x)

    return steps


def published_training(script: str, flags: Sequence[str], data: Dataset) -> Steps:
    """The published algorithm, R 10 and SGD, with the script's activation and loss."""
    run = Run(constants_of(f"{script}.py", [*RELEASED.split(), *flags]), data)
    return training_of(run, published_estimate(run))


def published_estimate(run: Run) -> Callable[..., Backpropagated]:
    """The published estimator, R 10, of the activation and loss of a run."""
    functions = {"activation": run.constants.ACTIVATION, "loss": run.constants.LOSS}
    return partial(published_gradient, replicates=10, **functions)


def backpropagated(
    layers: Sequence[Layer], x: Array, y: np.ndarray, *, rng: object = None
) -> Backpropagated:
    """The gradient of the mean cross-entropy of sigmoid neurons; nothing here is random."""
    inputs, found = [x], []
    for W, b in layers[:-1]:
        inputs.append(glr.sigmoid(inputs[-1] @ W + b))
    z = inputs[-1] @ layers[-1].W + layers[-1].b
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    delta = p / np.float32(len(y))
    for (W, _), h in zip(reversed(layers), reversed(inputs), strict=True):
        found.insert(0, Layer(h.T @ delta, delta.sum(axis=0)))
        if h is not x:
            delta = (delta @ W.T) * h * (1 - h)
    return Backpropagated(found, risk=0.0)  # which nobody asks for


def numpy_backpropagation(_script: str, flags: Sequence[str], data: Dataset) -> Steps:
    """BP.py's steps, but that NumPy finds the gradient."""
    return training_of(Run(constants_of("BP.py", flags), data), backpropagated)


def keras_training(_script: str, flags: Sequence[str], data: Dataset) -> Steps:
    """BP.py's network and learning rate by Keras's train_on_batch, by Adam."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silent_stderr(), without_user_settings():  # without BP.py's determinism, which costs time
        import keras  # noqa: PLC0415  (seconds, which -h does without)
    run = Run(constants_of("BP.py", flags), data)
    model, batches = to_keras(Model(run.network, {})), batches_of(run)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(run.constants.LEARNING_RATE), loss)
    return repeated(lambda: model.train_on_batch(*next(batches)), model.predict_on_batch)


def pytorch_training(_script: str, flags: Sequence[str], data: Dataset) -> Steps:
    """BP.py's network and learning rate by PyTorch, by Adam."""
    import torch  # noqa: PLC0415  (no requirement)

    run = Run(constants_of("BP.py", flags), data)
    model, batches = to_torch(Model(run.network, {})), batches_of(run)
    optimizer = torch.optim.Adam(model.parameters(), run.constants.LEARNING_RATE)

    def step() -> None:
        x, y = map(torch.from_numpy, next(batches))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return repeated(step, lambda x: model(torch.from_numpy(x)).detach().numpy())
