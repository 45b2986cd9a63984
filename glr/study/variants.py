"""Variants of the scripts beside each other: what their files are called, the table, the curves."""

from __future__ import annotations

import csv
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from glr.data.datasets import load_dataset
from glr.errors import GLRError
from glr.robustness.tables import markdown_table, plain_table, variants_table
from glr.scripts.plots import error_axis, look_of, new_figure, plain_axes, save_figure
from glr.scripts.records import evaluated_on, samples_of
from glr.storage.models import layers_and_metadata
from glr.study.pages import Page, write_page
from glr.study.runs import Task

LONGEST_NAME = 60  # of a variant's files, before a checksum
MOST_CURVES = 12  # that can be told apart in one picture
PLAIN = r"--[a-z-]+|[A-Za-z0-9+.]+(e-[0-9]+)?"  # words that a file name may hold as they are


def networks_of(variants: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Each variant by the name of its files, as `tasks` takes it; GLRError if it is given twice."""
    found: dict[str, tuple[str, str]] = {}
    for script, *flags in map(str.split, variants):
        name = variant_name([script, *flags])
        if name in found:
            raise GLRError(f"{' '.join([script, *flags])}: is given twice; leave one out")
        found[name] = script, " ".join(flags)
    return found


def variant_name(words: Sequence[str]) -> str:
    """What the files of a variant are called: LRS--sigma-2-0.5 of LRS.py --sigma 2 0.5.

    A checksum follows where words have other characters, or are many.
    """
    script, *flags = words
    stem = script.removesuffix(".py")
    joined = stem + "".join(word if word.startswith("--") else f"-{word}" for word in flags)
    name = re.sub("[^A-Za-z0-9+.-]", "-", joined)[:LONGEST_NAME].strip("-")
    is_all = name == joined and all(re.fullmatch(PLAIN, word) for word in [stem, *flags])
    return name if is_all else f"{name}-{zlib.crc32(' '.join(words).encode()):08x}"


def write_comparison(runs: Iterable[Task], constants: SimpleNamespace, page: Page) -> None:
    """Print and write what the variants reached, less the first one; draw their learning curves."""
    where, tasks = evaluated_on(constants), defaultdict(list)
    for task in runs:
        tasks[f"{task.script} {task.extra}".strip()].append(task)
    reached = {
        command: [accuracy_of(task, where) for task in own] for command, own in tasks.items()
    }
    lines = variants_table(reached, f"{where} accuracy (%)")
    print(plain_table(lines))
    lines = [lines[0], *([f"`{command}`", *cells] for command, *cells in lines[1:])]
    data = load_dataset(constants.DATASET, constants.DATA_DIR)
    n = constants.VALIDATION or len(data.y_test)
    title = f"{data.name}, {n} {samples_of(constants)}"
    if constants.SEEDS > 1:
        title += f": mean and range over {constants.SEEDS} seeds"

    def draw(path: Path) -> None:
        curves = {command: [curve(task, where) for task in own] for command, own in tasks.items()}
        draw_curves(path, curves, title)

    write_page(page, markdown_table(lines), draw if len(tasks) <= MOST_CURVES else None)


def accuracy_of(task: Task, where: str) -> float:
    """What a run reached, in percent, on "validation" or "test" samples."""
    _, metadata = layers_and_metadata(task.path)
    return 100 * metadata["metrics"][f"{where}_accuracy"]


def curve(task: Task, where: str) -> np.ndarray:
    """The learning curve of a run, from its history: steps and errors in percent, (2, n)."""
    with task.path.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file)]
    points = [(int(row["step"]), 100 - 100 * float(row[f"{where}_accuracy"])) for row in rows]
    return np.transpose(points)


def draw_curves(path: Path, curves: Mapping[str, Sequence[np.ndarray]], title: str) -> None:
    """Each variant's mean error by step, in a band of the seeds' range."""
    figure = new_figure(7.5, 4 + 0.2 * len(curves))
    axes = figure.subplots()
    looks = look_of(command.removesuffix(".py") for command in curves)
    for (command, seeds), (colour, style) in zip(curves.items(), looks.values(), strict=True):
        steps, errors = seeds[0][0], np.array([errors for _, errors in seeds])
        axes.plot(steps, errors.mean(axis=0), style, color=colour, label=command)
        ends = errors.min(axis=0), errors.max(axis=0)
        axes.fill_between(steps, *ends, color=colour, alpha=0.15, lw=0)
    error_axis(axes, np.concatenate([errors for seeds in curves.values() for _, errors in seeds]))
    axes.set(xlabel="minibatch step", ylabel="error (%), noise-free")
    plain_axes(axes)
    figure.legend(loc="outside lower center", fontsize=8, frameon=False)
    save_figure(path, figure, title)
