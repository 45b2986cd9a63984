"""Pictures of perturbed images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from glr.robustness.corruptions import SEVERITIES, as_images
from glr.scripts.plots import new_figure, save_figure

SHOWN = 10  # images of an attack's picture


def _show(axes, image: np.ndarray, **kind) -> None:
    """One image without ticks, but with its frame."""
    axes.imshow(image, interpolation="nearest", **kind)
    axes.set(xticks=[], yticks=[])


def draw_attack(path: Path, x: np.ndarray, x_adv: np.ndarray, y: np.ndarray) -> None:
    """Ten clean images, what the attack added, and the results, one below the other."""
    n = min(SHOWN, len(x))
    clean, attacked = as_images(x[:n]), as_images(x_adv[:n])
    change = attacked - clean
    largest = max(float(np.abs(change).max()), 1e-6)
    figure = new_figure(1 + n, 3.4)
    grid = figure.subplots(3, n, squeeze=False)
    for column in range(n):
        _show(grid[0, column], clean[column], cmap="gray", vmin=0, vmax=1)
        _show(grid[1, column], change[column], cmap="RdBu_r", vmin=-largest, vmax=largest)
        _show(grid[2, column], attacked[column], cmap="gray", vmin=0, vmax=1)
        grid[0, column].set_title(f"label {y[column]}", fontsize=9)
    for row, name in enumerate(("clean", f"change (±{largest:.2g})", "attacked")):
        grid[row, 0].set_ylabel(name, fontsize=9)
    figure.suptitle(path.stem, parse_math=False)
    save_figure(path, figure)


def draw_corruptions(path: Path, clean: np.ndarray, shown: dict[str, np.ndarray]) -> None:
    """One image (side × side), clean, and under each corruption (5 × side × side) by severity."""
    figure = new_figure(1.3 * (1 + len(SEVERITIES)), 1.35 * len(shown) + 0.4)
    grid = figure.subplots(len(shown), 1 + len(SEVERITIES), squeeze=False)
    for row, (name, stack) in enumerate(shown.items()):
        grid[row, 0].set_ylabel(name.replace("_", " "), fontsize=9)
        for column, image in enumerate([clean, *stack]):
            _show(grid[row, column], image, cmap="gray", vmin=0, vmax=1)
    for column, title in enumerate(["clean", *(f"severity {s}" for s in SEVERITIES)]):
        grid[0, column].set_title(title, fontsize=9)
    save_figure(path, figure)
