"""What certify.py does: certified accuracy in the ℓ2 ball, by randomised smoothing.

Gaussian noise on the first layer's logits alone, and the class of most passes: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv, ndtri
from tqdm import tqdm

from glr.data.datasets import Dataset, load_dataset
from glr.errors import GLRError
from glr.network import Array, Network, accuracy, outputs_of
from glr.robustness import tables
from glr.robustness.evaluation import chosen_models, perturbation_generator, results_dir
from glr.scripts.machine import prepare_for_small_arrays
from glr.scripts.plots import look_of, new_figure, optional_picture, plain_axes, save_figure
from glr.storage.files import check_writable, write_whole
from glr.storage.models import Model

FIRST_PASSES = 100  # choose the class, which other passes then certify (Cohen et al. 2019: n0)
PASSES_AT_ONCE = 1000  # bounds memory
ROUNDED_DOWN = 1 - 1e-6  # more than the norm loses in float64, and σ in float32
NOISE_FREE = "noise-free"  # a condition beside the certified ones


class Smoothing(NamedTuple):
    """How a sample is smoothed and certified.

    sigma : deviation of the Gaussian noise on the first layer's logits
    passes : noisy passes that are counted; alpha : the probability that a radius is too large
    """

    sigma: float
    passes: int
    alpha: float


def certificates(
    network: Network, x: Array, smoothing: Smoothing, rng: np.random.Generator
) -> Iterator[tuple[int, float]]:
    """Of each sample of x (N, n_in): the class voted for, and the radius in which it surely stays.

    Radius 0: too few votes to tell the class. Every sample draws noise of its own.
    """
    W, b = network.layers[0]
    norm = float(np.linalg.norm(W.astype(np.float64), 2))  # lengthens a change of x at most by it
    scale = smoothing.sigma / norm if norm else np.inf  # a layer that ignores its inputs
    for v in x @ W + b:
        voted = int(votes(network, v, smoothing._replace(passes=FIRST_PASSES), rng).argmax())
        k = votes(network, v, smoothing, rng)[voted]
        yield voted, radius(share_at_least(k, smoothing), scale)


def votes(network: Network, v: Array, smoothing: Smoothing, rng: np.random.Generator) -> np.ndarray:
    """How many noisy passes give each class, for one sample's first logits v (n_1,)."""
    counts = np.zeros(network.sizes[-1], np.int64)
    for start in range(0, smoothing.passes, PASSES_AT_ONCE):
        n = min(PASSES_AT_ONCE, smoothing.passes - start)
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            z = rng.standard_normal((n, v.size), dtype=np.float32)
            z *= np.float32(smoothing.sigma)
            z += v
            for W, b in network.layers[1:]:
                z = outputs_of(network.activation, z) @ W + b
        if not np.isfinite(z).all():
            raise GLRError(
                f"noise of deviation {smoothing.sigma:g} gives logits that are not finite: no "
                "class; use a smaller one, or an activation that is finite"
            )
        counts += np.bincount(z.argmax(axis=1), minlength=counts.size)
    return counts


def share_at_least(k: int, smoothing: Smoothing) -> float:
    """Clopper and Pearson's lower bound of a probability, of which k passes are a sample."""
    return float(betaincinv(k, smoothing.passes - k + 1, smoothing.alpha)) if k else 0.0


def radius(share: float, scale: float) -> float:
    """scale·Φ⁻¹(share), scale being σ/‖W‖₂; and 0 of a share up to one half."""
    return float(ROUNDED_DOWN * scale * ndtri(share)) if share > 0.5 else 0.0


class Certified(NamedTuple):
    """A model's radii (N,) under noise of deviation sigma; 0 where it is wrong, or abstains."""

    model: Model
    sigma: float
    radii: np.ndarray

    def accuracies(self, at: Sequence[float]) -> np.ndarray:
        """The shares in [0, 1] of samples that are right, and surely stay so, at some radii."""
        return (self.radii > np.reshape(at, (-1, 1))).mean(axis=1)


def write_certificates(constants: SimpleNamespace) -> list[list[str]]:
    """Certify what the constants name; write it and a picture; print and return the table."""
    prepare_for_small_arrays()
    data = load_dataset(constants.DATASET, constants.DATA_DIR)
    n = min(constants.IMAGES or len(data.y_test), len(data.y_test))
    data = data._replace(x_test=data.x_test[:n], y_test=data.y_test[:n])
    path = results_dir() / f"{data.name}_certified.csv"
    check_writable(path)
    models = chosen_models(constants, data).values()
    found = [certified(constants, one, sigma, data) for one in models for sigma in constants.SIGMAS]
    radii = [0.0, *constants.RADII]
    own = ((m.name, m.seed, accuracy(m.logits(data.x_test), data.y_test)) for m in models)
    rows = [tables.Row(*model, NOISE_FREE, 0, share, n) for *model, share in own]
    rows += [
        tables.Row(one.model.name, one.model.seed, condition_at(one.sigma), at, float(share), n)
        for one in found
        for at, share in zip(radii, one.accuracies(radii), strict=True)
    ]
    write_whole(path, lambda file: file.write(tables.csv_text(rows).encode()))
    with optional_picture():
        draw_certified(path.with_suffix(f".{constants.FORMAT}"), found, data.name)
    print(f"\nAccuracy on the first {n} test samples of {data.name} in percent\n")
    lines = certified_lines(rows, constants.SIGMAS, radii)
    print(f"{tables.plain_table(lines)}\n\nWritten: {path}")
    return lines


def certified(constants: SimpleNamespace, model: Model, sigma: float, data: Dataset) -> Certified:
    """The model's radii on the test set; by SEED, the same noise for all models of a shape."""
    smoothing = Smoothing(sigma, constants.PASSES, constants.ALPHA)
    rng = perturbation_generator(constants.SEED)
    found = certificates(model.network, data.x_test, smoothing, rng)
    name, n = f"{model.name} of seed {model.seed}, σ {sigma:g}", len(data.y_test)
    bar = tqdm(zip(found, data.y_test, strict=True), name, n, unit="sample", disable=None)
    return Certified(model, sigma, np.array([r if voted == y else 0 for (voted, r), y in bar]))


def condition_at(sigma: float) -> str:
    """What rows call certified accuracy under noise of deviation sigma."""
    return f"certified, sigma {sigma:g}"


def certified_lines(
    rows: list[tables.Row], sigmas: Sequence[float], radii: Sequence[float]
) -> list[list[str]]:
    """The table's cells, a header first: of each model a line for each σ."""
    lines = [["model", NOISE_FREE, "σ", *(f"within {at:g}" for at in radii)]]
    for name in chain(*tables.present(rows)):
        clean = tables.mean_and_spread(tables.cell(rows, name, NOISE_FREE))
        for sigma in sigmas:
            cells = (
                tables.mean_and_spread(tables.cell(rows, name, condition_at(sigma), at))
                for at in radii
            )
            lines.append([name, clean, f"{sigma:g}", *cells])
    return lines


def draw_certified(path: Path, found: Sequence[Certified], dataset: str) -> None:
    """Certified accuracy against the radius: a panel for each σ, in it a line for each model."""
    sigmas = list(dict.fromkeys(one.sigma for one in found))
    largest = max((float(one.radii.max()) for one in found), default=0)
    at = np.linspace(0, largest if 0 < largest < np.inf else 1, 201)
    figure = new_figure(2.6 + 4.2 * len(sigmas), 4.4)
    panels = figure.subplots(1, len(sigmas), sharey=True, squeeze=False)[0]
    looks = look_of(tables.network_name(one.model.name) for one in found)
    for axes, sigma in zip(panels, sigmas, strict=True):
        for name in dict.fromkeys(one.model.name for one in found):
            own = [o for o in found if (o.model.name, o.sigma) == (name, sigma)]
            shares = 100 * np.array([one.accuracies(at) for one in own])
            colour, style = looks[tables.network_name(name)]
            axes.plot(at, shares.mean(axis=0), style, color=colour, label=name)
            ends = shares.min(axis=0), shares.max(axis=0)
            axes.fill_between(at, *ends, color=colour, alpha=0.15, lw=0)
        axes.set(title=f"σ {sigma:g}", xlabel="ℓ2 radius, in units of the inputs", ylim=(0, 100))
        plain_axes(axes)
    panels[0].set_ylabel("certified accuracy (%)")
    panels[-1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    title = f"{dataset}, {len(found[0].radii)} test samples, certified by vote under noise"
    if len({one.model.seed for one in found}) > 1:
        title += "; mean and range over seeds"
    save_figure(path, figure, title)
