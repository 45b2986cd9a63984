"""What robustness costs: clean accuracy against FGSM accuracy as a penalty or the noise grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import gt
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

from glr.data.datasets import Dataset, load_dataset
from glr.robustness.evaluation import accuracy_by_class, load_model_for, rows_of
from glr.robustness.perturbation import table_samples
from glr.robustness.samples import load_samples, samples_path
from glr.robustness.tables import (
    COMPARABLE,
    TABLE_EPSILON,
    Row,
    cell,
    markdown_table,
    mean_and_spread,
    published_cell,
    spread,
)
from glr.scripts.console import progress_bar
from glr.scripts.machine import prepare_for_small_arrays
from glr.scripts.plots import look_of, new_figure, plain_axes, save_figure
from glr.storage.models import Model
from glr.study.pages import Page, write_page
from glr.study.runs import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SAMPLES = table_samples([TABLE_EPSILON])  # of the published columns
WORST_CLASS = "clean, worst class"  # a condition beside the published columns
DRAWN = ("clean", "fgsm")  # the two accuracies that are set against each other
STYLES = {"penalty": "o-", "step size": "D", "weight noise": "s:"}  # by what is made larger


class Setting(NamedTuple):
    """What is made larger ("penalty"), its value, and the flags of a script that make it so."""

    what: str
    value: float
    flags: str

    def __str__(self) -> str:
        """What is made larger, and how large: penalty 0.001."""
        return f"{self.what} {self.value:g}"


class Measured(NamedTuple):
    """The accuracies of a data set's networks, each at every setting."""

    dataset: str
    networks: list[str]
    settings: list[Setting]
    rows: list[Row]

    def reached(self, name: str, setting: Setting, condition: str) -> list[float]:
        """A network's accuracies at a setting, in percent, seed by seed."""
        return cell(self.rows, name_at(name, setting), condition)

    def means(self, name: str, setting: Setting, conditions: Sequence[str]) -> list[float]:
        """A network's mean accuracies at a setting, in percent, by condition."""
        return [fmean(self.reached(name, setting, condition)) for condition in conditions]

    def published(self, name: str, conditions: Sequence[str]) -> list[float]:
        """The published accuracies of a network in percent, by condition; none if it has none."""
        cells = [published_cell(self.dataset, name, condition) for condition in conditions]
        return [float(accuracy) for accuracy in cells if accuracy]


def networks_at(
    networks: Mapping[str, tuple[str, str]], settings: Sequence[Setting]
) -> dict[str, tuple[str, str]]:
    """Every network at every setting, as glr.study.runs.tasks takes them."""
    return {
        name_at(name, setting): (script, f"{flags} {setting.flags}")
        for name, (script, flags) in networks.items()
        for setting in settings
    }


def name_at(name: str, setting: Setting) -> str:
    """What a network at a setting is called: LRS-penalty-0.001."""
    return f"{name}-{setting.what.replace(' ', '-')}-{setting.value:g}"


def measured_rows(runs: list[Task], constants: SimpleNamespace, dataset: str) -> list[Row]:
    """The accuracies of a data set's runs on the test set and on the samples made of it."""
    prepare_for_small_arrays()
    data = load_dataset(dataset, constants.DATA_DIR)
    paths = [samples_path(constants.DATA_DIR, data.name, name) for name in SAMPLES]
    samples = [load_samples(path, data) for path in paths]
    own = [task.path for task in runs if task.dataset == dataset]
    rows = []
    for path in progress_bar(own, data.name):
        model = load_model_for(path, data)
        rows += [*rows_of(model, data, samples), worst_class_row(model, data)]
    return rows


def worst_class_row(model: Model, data: Dataset) -> Row:
    """The clean accuracy on the class where it is lowest: 0 of a class that was lost."""
    lowest = min(accuracy_by_class(model, data).values())
    return Row(model.name, model.seed, WORST_CLASS, 0, lowest, len(data.y_test))


def tradeoff_lines(measured: Measured) -> list[list[str]]:
    """A row per setting, with cells "clean / FGSM"; the published accuracies last."""
    lines = [["", *measured.networks]]
    for setting in measured.settings:
        cells = [
            " / ".join(mean_and_spread(measured.reached(name, setting, c)) for c in DRAWN)
            for name in measured.networks
        ]
        lines.append([str(setting), *cells])
    known = [measured.published(name, DRAWN) for name in measured.networks]
    return [*lines, ["published", *(" / ".join(f"{a:.2f}" for a in p) or "–" for p in known)]]


def what_surpasses(measured: Measured, conditions: Sequence[str]) -> str:
    """At which settings a network's means surpass its published accuracies, all at once.

    Nothing for a data set that has no published accuracies.
    """
    parts = []
    for name in measured.networks:
        goal = measured.published(name, conditions)
        if goal:
            reached = {s: measured.means(name, s, conditions) for s in measured.settings}
            above = [setting for setting in reached if all(map(gt, reached[setting], goal))]
            parts.append(f"{name} at {listed(above) or 'none of these'}")
    return "; ".join(parts)


def what_lost_a_class(measured: Measured) -> str:
    """How many runs of each network, over all settings, have a class that is never right."""
    parts = []
    for name in measured.networks:
        lowest = [measured.reached(name, setting, WORST_CLASS) for setting in measured.settings]
        runs = [accuracy for seeds in lowest for accuracy in seeds]
        parts.append(f"{name} {runs.count(0)} of {len(runs)}")
    return ", ".join(parts)


def listed(settings: Sequence[Setting]) -> str:
    """The settings in words: penalty 0.001, 0.01, step size 0.03, weight noise 0.5."""
    by_what = groupby(settings, key=lambda setting: setting.what)
    return ", ".join(f"{what} {', '.join(f'{s.value:g}' for s in some)}" for what, some in by_what)


def draw_tradeoffs(path: Path, by_dataset: Sequence[Measured], title: str) -> None:
    """A row of panels for each data set, in it one for each network, so that none hides another."""
    columns = max(len(measured.networks) for measured in by_dataset)
    figure = new_figure(1 + 2.6 * columns, 0.8 + 2.8 * len(by_dataset))
    grid = figure.subplots(len(by_dataset), columns, sharex="row", sharey="row", squeeze=False)
    for line, measured in zip(grid, by_dataset, strict=True):
        for axes, name in zip(line, measured.networks, strict=False):
            draw_tradeoff(axes, measured, name)
            axes.set_title(f"{name}, {measured.dataset}", fontsize=10, parse_math=False)
            axes.set_xlabel("clean accuracy (%)")
            plain_axes(axes)
        line[0].set_ylabel(f"FGSM accuracy, ε {TABLE_EPSILON:g} (%)")
    marks = {setting.what: STYLES[setting.what] for one in by_dataset for setting in one.settings}
    if any(one.published(name, DRAWN) for one in by_dataset for name in one.networks):
        marks["published"] = "*"
    for label, mark in marks.items():
        grid[0][0].plot([], [], mark, color="grey", ms=6, label=label)
    figure.legend(loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    figure.suptitle(title, fontsize=10)
    save_figure(path, figure)


def draw_tradeoff(axes: Axes, measured: Measured, name: str) -> None:
    """A network's accuracies, a line for each thing that is made larger; the others' in grey."""
    colour, _ = look_of([name])[name]
    whats = dict.fromkeys(setting.what for setting in measured.settings)
    for other in (*(one for one in measured.networks if one != name), name):
        for what in whats:
            some = [setting for setting in measured.settings if setting.what == what]
            cells = ([measured.reached(other, s, condition) for s in some] for condition in DRAWN)
            (x, dx), (y, dy) = (([*map(fmean, c)], [*map(spread, c)]) for c in cells)
            if other == name:
                style = {"fmt": STYLES[what], "color": colour, "ms": 4, "elinewidth": 0.8}
                axes.errorbar(x, y, dy, dx, **style)
            else:
                axes.plot(x, y, "-", color="lightgrey", lw=1, zorder=0)
    if star := measured.published(name, DRAWN):
        axes.plot(*star, "*", color=colour, ms=12)


def write_tradeoffs(by_dataset: Sequence[Measured], page: Page) -> None:
    """Print and write the tables, and draw the picture."""
    block = "\n\n".join(map(tradeoff_block, by_dataset))
    print(block)
    title = "More penalty, step size or weight noise; FGSM transferred from a ReLU network; "
    title += f"{by_dataset[0].rows[0].n} test samples, mean ± sd over seeds; grey: the others"
    draw = partial(draw_tradeoffs, by_dataset=by_dataset, title=title)
    write_page(page, block, draw)


def tradeoff_block(measured: Measured) -> str:
    """A data set's table and what it says, as Markdown."""
    parts = [f"On {measured.dataset}:", markdown_table(tradeoff_lines(measured))]
    for what, conditions in (
        ("clean and FGSM accuracies", DRAWN),
        ("accuracies in all columns but L-BFGS", COMPARABLE),
    ):
        says = what_surpasses(measured, conditions)
        parts.append(f"Above the published {what} at once: {says}." if says else "")
    lost = what_lost_a_class(measured)
    parts.append(f"Runs with a class of which no test sample is right: {lost}.")
    return "\n\n".join(filter(None, parts))
