"""How much better an estimator is: relative variance, and accuracy against time, as pictures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from glr.data.datasets import Dataset, n_classes
from glr.estimator import glr_estimator, glr_gradient
from glr.network import Network, new_network
from glr.noise import laplace
from glr.optimizers import adam, cosine
from glr.passes import GLR, Batch, Streams
from glr.scripts.plots import new_figure, plain_axes, save_figure
from glr.scripts.training import Plan, Run, train

REPLICATES = (2, 5, 10, 20, 50, 100, 200)
LEAST_DRAWS = 200  # gradients that a variance is estimated from
PASSES = 10_000  # replicates of all of them together: at small R, where it is large, they are more
BATCH = 128
HALF_TRAINED_STEPS = 500


def published_estimator(glr: GLR) -> GLR:
    """The published estimator, by NumPy: Laplace noise of scale 1, no variance reduction."""
    return replace(
        glr,
        noise=laplace,
        sigma=(2**0.5,) * len(glr.sigma),
        output_draws=1,
        control_variate=False,
        conditional_score=False,
        standardised_loss=False,
        local_differences=False,
        layerwise=False,
        gradient_of_group=None,
    )


def half_trained_network(
    glr: GLR, data: Dataset, rng: np.random.Generator, hidden: Sequence[int] = (50,)
) -> Network:
    """A network after a few hundred steps with the estimator; `hidden` neurons in its layers."""
    sizes = [data.x_train.shape[1], *hidden, n_classes(data)]
    network = new_network(sizes, glr.activation, rng)
    plan = Plan(
        loss=glr.loss,
        optimizer=adam,
        steps=HALF_TRAINED_STEPS,
        batch_size=BATCH,
        learning_rate=0.005,
        schedule=cosine,
        weight_decay=1e-4,
        centralised=False,
        eval_every=HALF_TRAINED_STEPS,
    )
    for _ in train(Run(network, glr_estimator(glr, rng)), data, plan, rng):
        pass
    return network


def relative_variance(glr: GLR, network: Network, batch: Batch, streams: Streams) -> float:
    """E‖g − E g‖² / ‖E g‖² of the first layer's weights, from many independent estimates g.

    ‖E g‖² is that of their mean less the variance that the mean has left.
    """
    draws = max(LEAST_DRAWS, PASSES // glr.replicates)
    total, squares = np.zeros(network.layers[0].W.shape), 0.0
    for _ in range(draws):
        g = glr_gradient(glr, network.layers, batch, streams).layers[0].W.astype(np.float64)
        total += g
        squares += float(np.sum(g * g))
    mean_square = float(np.sum(total * total)) / draws**2
    variance = (squares / draws - mean_square) * draws / (draws - 1)
    return variance / (mean_square - variance / draws)


def variances_by_replicates(
    methods: dict[str, GLR], data: Dataset, rng: np.random.Generator
) -> dict[str, tuple[list[float], list[float]]]:
    """By name of a method: relative variances at REPLICATES, of ours and of the published one."""
    from tqdm import tqdm  # noqa: PLC0415  (after -h, which it would slow)

    found, bar = {}, tqdm(total=2 * len(methods) * len(REPLICATES), desc="variance", unit="R")
    for name, glr in methods.items():
        network = half_trained_network(glr, data, rng)
        rows = rng.permutation(len(data.x_train))[:BATCH]
        batch, streams = Batch(data.x_train[rows].T, data.y_train[rows]), rng.spawn(2)
        found[name] = ([], [])
        for kind, variances in zip((glr, published_estimator(glr)), found[name], strict=True):
            for R in REPLICATES:
                of_R = replace(kind, replicates=R)
                variances.append(relative_variance(of_R, network, batch, streams))
                bar.update()
    bar.close()
    return found


def draw_variances(path: Path, found: dict[str, tuple[list[float], list[float]]]) -> None:
    """Relative variance against R, ours solid and the published one dashed."""
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    for i, (name, (ours, published)) in enumerate(found.items()):
        axes.plot(REPLICATES, ours, "o-", ms=3, color=f"C{i}", label=name)
        axes.plot(REPLICATES, published, "o--", ms=3, color=f"C{i}", label=f"{name}, published")
    axes.set(xscale="log", yscale="log", xlabel="replicates R", ylabel="relative variance")
    plain_axes(axes)
    axes.legend(fontsize=8, ncols=2, frameon=False)
    figure.suptitle("Variance of the first layer's gradient estimate, batch 128", fontsize=10)
    save_figure(path, figure)


def draw_accuracy_against_time(path: Path, histories: dict[str, Path]) -> None:
    """Test accuracy against seconds of training, from the histories (.csv) of single runs."""
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    for name, history in histories.items():
        with history.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        seconds = [float(row["seconds"]) for row in rows]
        error = [100 - 100 * float(row["test_accuracy"]) for row in rows]
        axes.plot(seconds, error, label=name)
    axes.set(xscale="log", yscale="log", xlabel="seconds of training", ylabel="test error (%)")
    for axis, ticks in ((axes.xaxis, (1, 2, 5, 10, 20)), (axes.yaxis, (3, 4, 6, 10, 20, 30, 60))):
        axis.set_ticks(ticks, [str(tick) for tick in ticks])
        axis.set_ticks([], minor=True)
    plain_axes(axes)
    axes.legend(fontsize=8, frameon=False)
    save_figure(path, figure)
