"""Pictures, drawn without a screen; each network has one colour in all of them."""

from __future__ import annotations

import logging
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glr.errors import GLRError
from glr.storage.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from glr.storage.checkpoint import Evaluation

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of settings, read-only homes

FORMATS = ("png", "pdf", "svg")
# The GLR networks in cold colours, those of backpropagation in warm ones, the published in grey;
# after Okabe and Ito (2008) and Tol (2021), whose colours are told apart by the colour-blind.
COLOURS = {
    "LRS": "#0072B2",
    "LRT": "#009E73",
    "LRSZ": "#56B4E9",
    "LRTZ": "#332288",
    "BP": "#D55E00",
    "BP-L2": "#DDCC77",
    "BP+": "#E69F00",
    "BP+L2C": "#882255",
    "ST+L2C": "#CC79A7",
    "BP-published": "#555555",
}
OWN_COLOURS = ("#000000", "#999933", "#44AA99", "#661100", "#6699CC", "#F0E442", "#117733")
STYLES = ("-", "--", ":", "-.")  # of lines, where names are more than the colours of their own


def new_figure(width: float, height: float) -> Figure:
    """A Matplotlib figure (inches) without display or pyplot, whatever the user's settings are."""
    os.environ["MPLBACKEND"] = "agg"  # the user's may be of a module that is not installed here
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


def save_figure(path: Path, figure: Figure, title: str = "") -> None:
    """Write the figure in the format that the path's suffix names, whole or not at all."""
    if title:
        figure.suptitle(title, fontsize=10, parse_math=False)  # $ is no formula
    kind = path.suffix[1:]
    write_whole(path, lambda file: figure.savefig(file, format=kind, dpi=150))


def look_of(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The colour and line style of each network: an adversarially trained one's is dashed."""
    free = ((colour, style) for style in cycle(STYLES) for colour in OWN_COLOURS)
    found: dict[str, tuple[str, str]] = {}
    for name in dict.fromkeys(names):
        plain = name.removesuffix("-adv")
        is_adversarial = plain != name
        found[name] = (COLOURS[plain], STYLES[is_adversarial]) if plain in COLOURS else next(free)
    return found


def plain_axes(axes: Axes, lines_of: str = "both") -> None:
    """Pale grid lines of the axis "x", "y" or "both"; no frame above and to the right."""
    axes.grid(axis=lines_of, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def error_axis(axes: Axes, errors: np.ndarray) -> None:
    """A logarithmic axis of errors in percent; linear up to the smallest where some are 0."""
    least = errors[errors > 0].min(initial=100)
    scale = {"value": "symlog", "linthresh": least, "linscale": 0.3} if errors.min() == 0 else {}
    axes.set_yscale(**scale or {"value": "log"})
    series = [digit * 10.0**power for power in range(-4, 3) for digit in (1, 2, 5)]
    ticks = [0, *(one for one in series if least <= one <= 100)]
    axes.set_yticks(ticks if scale else ticks[1:], minor=False)
    axes.set_yticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:g}")


def draw_learning_curve(
    path: Path, title: str, history: Sequence[Evaluation], where: str, colour: str
) -> None:
    """Error and losses against the step; `where` is what was evaluated, "test" or other."""
    figure = new_figure(8, 3.4)
    left, right = figure.subplots(1, 2)
    steps, _, _, training, tested, shares = np.transpose(history)
    left.plot(steps, 100 - 100 * shares, ".-", ms=4, color=colour)
    error_axis(left, 100 - 100 * shares)
    left.set(xlabel="minibatch step", ylabel=f"{where} error (%), noise-free")
    left.set_title(f"at the end {100 * shares[-1]:.2f} % right", fontsize=9)
    right.plot(steps, training, ":", color="black", label="training, with noise")
    right.plot(steps, tested, ".-", ms=4, color=colour, label=f"{where}, noise-free")
    right.set(xlabel="minibatch step", ylabel="mean loss per sample")
    if np.nanmin([training, tested]) > 0:
        right.set_yscale("log")
    legend_above(right, columns=2)
    for axes in (left, right):
        plain_axes(axes)
    save_figure(path, figure, title)


def legend_above(axes: Axes, columns: int) -> None:
    """The legend over the axes, where it hides nothing."""
    beside = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "borderaxespad": 0.2}
    axes.legend(fontsize=8, frameon=False, ncols=columns, **beside)
