"""How precise an estimator is, in a network that has begun to learn; the published estimator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import islice
from types import SimpleNamespace

import numpy as np

from glr.data.datasets import Dataset
from glr.estimator import Method, gradient
from glr.network import Array
from glr.scripts.run import Run, minibatches, run_generator

HALF_TRAINED_STEPS = 500
PUBLISHED = (  # the estimator of Peng et al. (2022): equation (1) alone, Laplace noise of scale 1
    "--noise laplace --sigma 1.41421356 --no-local-differences --no-control-variate"
)


def method_of(constants: dict[str, object]) -> dict[str, object]:
    """The keyword arguments of `gradient`, but for rng, that a script's constants are."""
    return {argument.name: constants[argument.name.upper()] for argument in fields(Method)}


def half_trained(constants: SimpleNamespace, data: Dataset) -> Run:
    """A script's run after a few hundred steps along its own estimate."""
    run, method = Run(constants, data), method_of(vars(constants))
    for x, y in islice(batches_of(run), HALF_TRAINED_STEPS):
        run.descend(gradient(run.layers, x, y, **method, rng=run.rng))
    return run


def batches_of(run: Run) -> Iterator[tuple[Array, np.ndarray]]:
    """Inputs and labels of minibatch after minibatch, without end."""
    x, y = run.data.x_train, run.data.y_train
    for rows in minibatches(len(x), run.constants.BATCH_SIZE, run_generator(0)):
        yield x[rows], y[rows]


def direction_and_variance(gradients: Iterable[Array]) -> tuple[Array, float]:
    """E g / ‖E g‖, and the relative variance E‖g − E g‖² / ‖E g‖², from independent gradients g.

    ‖E g‖² is that of their mean less the variance that the mean has left.
    """
    total, squares, n = 0.0, 0.0, 0
    for g in gradients:
        total = total + g.astype(np.float64)
        squares += float(np.square(g, dtype=np.float64).sum())
        n += 1
    mean = total / n
    variance = (squares / n - np.square(mean).sum()) * n / (n - 1)
    mean_square = np.square(mean).sum() - variance / n
    return mean / np.sqrt(mean_square), float(variance / mean_square)
