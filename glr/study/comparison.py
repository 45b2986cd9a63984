"""How precise an estimator is, in a network that has begun to learn; the published estimator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import islice
from types import SimpleNamespace

import numpy as np

from glr.data.datasets import Dataset
from glr.estimator import Method, gradient
from glr.losses import Loss, losses_of
from glr.network import Activation, Array, Layer
from glr.scripts.backpropagation import Backpropagated
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
    """E g / ‖E g‖, and the relative variance E‖g − E g‖² / ‖E g‖², from independent gradients g."""
    total, squares, n = 0.0, 0.0, 0
    for g in gradients:
        total = total + g.astype(np.float64)
        squares += float(np.square(g, dtype=np.float64).sum())
        n += 1
    mean_square, variance = moments_of(total, squares, n)
    return total / (n * np.sqrt(mean_square)), variance / mean_square


def moments_of(total: Array, squares: float, n: int) -> tuple[float, float]:
    """‖E g‖² and E‖g − E g‖², from the sum and the sum of squared norms of n independent g.

    ‖E g‖² is that of their mean less the variance that the mean has left.
    """
    mean_square = float(np.square(total / n).sum())
    variance = (squares / n - mean_square) * n / (n - 1)
    return mean_square - variance / n, variance


def published_gradient(  # noqa: PLR0913  (those of glr.estimator.gradient)
    layers: Sequence[Layer],
    x: Array,
    y: np.ndarray,
    *,
    activation: Activation,
    loss: Loss,
    replicates: int,
    rng: np.random.Generator,
) -> Backpropagated:
    """Equation (1) as Peng et al. (2022) publish it: Laplace noise of scale 1 in every layer.

    Takes what `glr.gradient` does. Each sample is copied R times. The mean over the R·B outer
    products of input and loss·sign is one matrix product; the released code forms the products
    themselves, (R·B, n_in, n_out).
    """
    x, y = np.tile(x, (replicates, 1)), np.tile(y, replicates)
    inputs, signs = [], []
    for t, (W, b) in enumerate(layers):
        r = rng.laplace(size=(len(x), b.size)).astype(np.float32)
        inputs.append(x)
        signs.append(np.sign(r))
        v = x @ W + b + r
        x = activation(v) if t < len(layers) - 1 else v
    losses = losses_of(loss, x.T, y)
    weighted = [sign * (losses / len(y))[:, None] for sign in signs]
    found = [Layer(x.T @ d, d.sum(axis=0)) for x, d in zip(inputs, weighted, strict=True)]
    return Backpropagated(found, float(losses.mean()))
