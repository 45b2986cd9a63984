"""How much better an estimator is: relative variance, and accuracy against time, as pictures."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from glr.data.datasets import Dataset
from glr.estimator import Method, gradient
from glr.network import Network, new_network
from glr.optimizers import adam, cosine
from glr.robustness.tables import GLR_ROWS
from glr.scripts.console import progress_bar
from glr.scripts.constants import constants_of
from glr.scripts.plots import error_axis, look_of, new_figure, plain_axes, save_figure
from glr.scripts.run import Gradient, layer_sizes, minibatches
from glr.study.published import published_gradient

REPLICATES = (2, 5, 10, 20, 50, 100, 200)
LEAST_DRAWS = 200  # gradients that a variance is estimated from
PASSES = 10_000  # replicates of all of them together: at small R, where it is large, they are more
BATCH = 128
HALF_TRAINED_STEPS = 500
Variances = dict[str, tuple[list[float], list[float]]]  # at REPLICATES, by name: ours, published


def script_methods() -> dict[str, dict[str, object]]:
    """The keyword arguments of `gradient` in each GLR script, but for rng, at its constants."""
    return {name: method_of(vars(constants_of(f"{name}.py", []))) for name in GLR_ROWS}


def method_of(constants: dict[str, object]) -> dict[str, object]:
    """The keyword arguments of `gradient`, but for rng, that a script's constants are."""
    return {argument.name: constants[argument.name.upper()] for argument in fields(Method)}


def half_trained_network(
    method: dict[str, object],
    data: Dataset,
    rng: np.random.Generator,
    hidden: Sequence[int] = (50,),
) -> Network:
    """A network after a few hundred steps of Adam along the estimate by the method.

    method : keyword arguments of `gradient`, but for rng
    hidden : neurons in the hidden layers
    """
    network = new_network(layer_sizes(data, hidden), method["activation"], rng)
    batches = minibatches(len(data.x_train), BATCH, rng)
    state = {}
    for step, rows in enumerate(islice(batches, HALF_TRAINED_STEPS)):
        x, y = data.x_train[rows], data.y_train[rows]
        estimate = gradient(network.layers, x, y, **method, rng=rng)
        slope = np.concatenate([part.ravel() for layer in estimate.layers for part in layer])
        adam(network.parameters, slope, 0.005 * cosine(step, HALF_TRAINED_STEPS), state)
    return network


def relative_variance(estimate: Callable[[], Gradient], draws: int) -> float:
    """E‖g − E g‖² / ‖E g‖² of the first layer's weights, from so many independent estimates g.

    ‖E g‖² is that of their mean less the variance that the mean has left.
    """
    total, squares = 0.0, 0.0
    for _ in range(draws):
        g = estimate().layers[0].W.astype(np.float64)
        total += g
        squares += float(np.sum(g * g))
    mean_square, variance = moments_of(total, squares, draws)
    return variance / mean_square


def moments_of(total: np.ndarray, squares: float, draws: int) -> tuple[float, float]:
    """‖E g‖² and E‖g − E g‖² of gradients g, unbiased: from their sum and the sum of their ‖g‖²."""
    mean_square = float(np.sum(total * total)) / draws**2
    variance = (squares / draws - mean_square) * draws / (draws - 1)
    return mean_square - variance / draws, variance


def variances_by_replicates(data: Dataset, rng: np.random.Generator) -> Variances:
    """Relative variances of each script's estimate, and of the published one of its network."""
    found = {}
    for name, method in progress_bar(script_methods().items(), "variance"):
        layers = half_trained_network(method, data, rng).layers
        rows = rng.permutation(len(data.x_train))[:BATCH]
        batch = layers, data.x_train[rows], data.y_train[rows]
        functions = {key: method[key] for key in ("activation", "loss")}
        kinds = (
            partial(gradient, *batch, **method, rng=rng),
            partial(published_gradient, *batch, **functions, rng=rng),
        )
        found[name] = tuple([variance_at(R, kind) for R in REPLICATES] for kind in kinds)
    return found


def variance_at(R: int, kind: Callable[..., Gradient]) -> float:
    """The relative variance of a kind of estimate with R replicates."""
    return relative_variance(partial(kind, replicates=R), max(LEAST_DRAWS, PASSES // R))


def draw_variances(
    path: Path, found: dict[str, tuple[list[float], list[float]]], dataset: str
) -> None:
    """Relative variance against R: of each network's estimate, and the range of published ones."""
    figure = new_figure(7.2, 4.2)
    axes = figure.subplots()
    for name, (colour, _) in look_of(found).items():
        axes.plot(REPLICATES, found[name][0], "o-", ms=4, color=colour, label=name)
    published = np.array([values for _, values in found.values()])
    ends, label = (published.min(axis=0), published.max(axis=0)), "published, of the same"
    axes.fill_between(REPLICATES, *ends, color="grey", alpha=0.5, lw=0, label=label)
    axes.set(xscale="log", yscale="log", xlabel="replicates R", ylabel="relative variance")
    axes.set_xticks(REPLICATES, [str(R) for R in REPLICATES])
    axes.set_xticks([], minor=True)
    plain_axes(axes)
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    title = f"Variance of the first layer's gradient estimate; {dataset}, batch {BATCH}"
    figure.suptitle(title, fontsize=10)
    save_figure(path, figure)


def draw_accuracy_against_time(path: Path, histories: dict[str, Path], dataset: str) -> None:
    """Test error against seconds of training, from the histories (.csv) of single runs."""
    figure = new_figure(7.2, 4.2)
    axes = figure.subplots()
    lowest = 100.0
    for name, (colour, _) in look_of(histories).items():
        with histories[name].open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if float(row["seconds"]) > 0]
        seconds = [float(row["seconds"]) for row in rows]
        error = [100 - 100 * float(row["test_accuracy"]) for row in rows]
        lowest = min(lowest, *error)
        axes.plot(seconds, error, color=colour, label=name)
    axes.set(xscale="log", xlabel="seconds of training, one core", ylabel="test error (%)")
    ticks = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
    axes.set_xticks([tick for tick in ticks if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter("{x:g}")
    error_axis(axes, np.array([lowest]))
    plain_axes(axes)
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    figure.suptitle(f"{dataset}, test set, seed 0", fontsize=10, parse_math=False)
    save_figure(path, figure)
