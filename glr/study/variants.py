"""Variants of the scripts beside each other: what their files are called, the table, the curves."""

from __future__ import annotations

import csv
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from glr.data.datasets import dataset_label, load_dataset
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

Curves = dict[str, list[np.ndarray]]  # of each variant, by seed: steps and errors in %, (2, n)


def networks_of(variants: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Each variant, a script and its flags, by the name of its files: as `tasks` takes them.

    Raises GLRError for one that is given twice.
    """
    found: dict[str, tuple[str, str]] = {}
    for script, *flags in map(str.split, variants):
        name = variant_name([script, *flags])
        if name in found:
            raise GLRError(f"{' '.join([script, *flags])}: is given twice; leave one out")
        found[name] = script, " ".join(flags)
    return found


def variant_name(words: Sequence[str]) -> str:
    """What the files of a variant are called: LRS--sigma-2-0.5 of LRS.py --sigma 2 0.5.

    A checksum follows where that leaves something out: of words with other characters, or many.
    """
    script, *flags = words
    stem = script.removesuffix(".py")
    joined = stem + "".join(word if word.startswith("--") else f"-{word}" for word in flags)
    name = re.sub("[^A-Za-z0-9+.-]", "-", joined)[:LONGEST_NAME].strip("-")
    is_all = name == joined and all(re.fullmatch(PLAIN, word) for word in [stem, *flags])
    return name if is_all else f"{name}-{zlib.crc32(' '.join(words).encode()):08x}"


def write_comparison(runs: Sequence[Task], constants: SimpleNamespace, page: Page) -> None:
    """Print and write what the variants reached, with two seeds or more less the first of them.

    Their learning curves are drawn beside it.
    """
    where = evaluated_on(constants)
    accuracies: dict[str, list[float]] = {}
    for task in runs:
        _, metadata = layers_and_metadata(task.path)
        reached = metadata["metrics"][f"{where}_accuracy"]
        accuracies.setdefault(command_of(task), []).append(100 * reached)
    lines = variants_table(accuracies, f"{where} accuracy (%)")
    print(plain_table(lines))
    lines = [lines[0], *([f"`{command}`", *cells] for command, *cells in lines[1:])]
    title = f"{dataset_label(constants.DATASET)}, {n_evaluated(constants)} {samples_of(constants)}"
    if constants.SEEDS > 1:
        title += f": mean and range over {constants.SEEDS} seeds"
    write_page(
        page,
        markdown_table(lines),
        lambda path: draw_curves(path, curves_of(runs, where), title),
    )


def command_of(task: Task) -> str:
    """A variant as it is typed."""
    return f"{task.script} {task.extra}".strip()


def n_evaluated(constants: SimpleNamespace) -> int:
    """How many samples the accuracies are of."""
    data = load_dataset(constants.DATASET, constants.DATA_DIR)
    return constants.VALIDATION or len(data.y_test)


def curves_of(runs: Iterable[Task], where: str) -> Curves:
    """The learning curves of the runs, from their histories; GLRError if there are too many."""
    found: Curves = {}
    for task in runs:
        with task.path.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        points = [(int(row["step"]), 100 - 100 * float(row[f"{where}_accuracy"])) for row in rows]
        found.setdefault(command_of(task), []).append(np.transpose(points))
    if len(found) > MOST_CURVES:
        raise GLRError(
            f"{len(found)} curves are too many to tell apart; give {MOST_CURVES} or less"
        )
    return found


def draw_curves(path: Path, curves: Mapping[str, Sequence[np.ndarray]], title: str) -> None:
    """Each variant's error against the step: the mean over the seeds, in a band of their range."""
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
    figure.suptitle(title, fontsize=10, parse_math=False)
    save_figure(path, figure)
