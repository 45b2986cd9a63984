"""Pictures, drawn without a screen. Matplotlib is imported only when one is drawn."""

from __future__ import annotations

import logging
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glr.errors import GLRError
from glr.storage.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from glr.storage.checkpoint import Evaluation

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a home that is read-only


def new_figure(width: float, height: float) -> Figure:
    """A Matplotlib figure (inches) that needs no display and no pyplot, in Matplotlib's own style.

    The user's backend and matplotlibrc play no part; one that cannot be read fails the import.
    """
    os.environ["MPLBACKEND"] = "agg"  # the user's may be of a module that is not installed here
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of the user's settings
    import matplotlib  # noqa: PLC0415  (0.5 s, and only now needed)
    from matplotlib.figure import Figure  # noqa: PLC0415

    matplotlib.rcdefaults()
    return Figure(figsize=(width, height), layout="constrained")


@contextmanager
def optional_picture() -> Iterator[None]:
    """Say in one line on stderr why a picture cannot be drawn or written, and go on."""
    try:
        yield
    except Exception as error:  # of Matplotlib, its fonts, its settings: no run is lost by them
        kind = "" if isinstance(error, GLRError) else f"{type(error).__name__}: "
        why = textwrap.shorten(f"{kind}{error}", 300)
        print(f"no picture: {why}", file=sys.stderr)


def save_figure(path: Path, figure: Figure, dpi: int = 150) -> None:
    """Write the figure as a PNG of so many pixels per inch, whole or not at all."""
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=dpi))


def plain_axes(axes: Axes, lines_of: str = "both") -> None:
    """Pale grid lines of the axis "x", "y" or "both"; no frame above and to the right."""
    axes.grid(axis=lines_of, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def draw_learning_curve(path: Path, title: str, history: Sequence[Evaluation], where: str) -> None:
    """Accuracy and losses against the step; `where` is what was evaluated, "test" or other."""
    figure = new_figure(8, 3.4)
    left, right = figure.subplots(1, 2)
    steps, _, _, training, tested, shares = np.transpose(history)
    marker = "." if len(history) == 1 else ""  # one point makes no line
    left.plot(steps, 100 * shares, marker=marker)
    left.set(xlabel="minibatch step", ylabel=f"{where} accuracy (%), noise-free")
    last = steps[-1], 100 * shares[-1]
    offset = {"xytext": (-4, -14), "textcoords": "offset points", "ha": "right"}
    left.annotate(f"{last[1]:.2f} %", last, **offset)
    right.plot(steps, training, marker=marker, label="training, with noise")
    right.plot(steps, tested, marker=marker, label=f"{where}, noise-free")
    right.set(xlabel="minibatch step", ylabel="mean loss per sample")
    right.legend(frameon=False)
    for axes in (left, right):
        plain_axes(axes)
    figure.suptitle(title, parse_math=False)
    save_figure(path, figure)
