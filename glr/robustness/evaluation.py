"""What testAdv.py does: evaluate models on samples, print the tables, write them and a picture."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from itertools import cycle
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import TYPE_CHECKING

from tqdm import tqdm

from glr.data.datasets import Dataset, dataset_label, load_dataset
from glr.errors import GLRError, UnknownActivationError
from glr.robustness.rows import (
    Row,
    accuracy_by_class,
    blind_spot,
    csv_text,
    load_model_for,
    models_found,
    rows_of,
)
from glr.robustness.samples import Samples, how_to_make, load_samples, samples_path
from glr.robustness.tables import (
    PUBLISHED,
    cell,
    markdown_table,
    other_conditions,
    plain_table,
    present,
    published_cell,
    smaller_samples,
    table_lines,
    what_controls_say,
    what_epsilon_decides,
    what_published_cells_say,
    what_the_estimate_changes,
)
from glr.scripts.constants import ROOT
from glr.scripts.machine import prepare_for_small_arrays
from glr.scripts.plots import new_figure, plain_axes, save_figure
from glr.storage.files import write_whole
from glr.storage.models import Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Constants in which the models of one row may differ: the seed, and what leaves the network as is.
OF_ONE_NETWORK = ("SEED", "DATASET", "EVAL_EVERY", "COMPILED")
PRETRAINED = ROOT / "models" / "pretrained"  # weights of seed 0, written by study.py


def samples_of(constants: SimpleNamespace, data: Dataset) -> list[Samples]:
    """The samples that the constants name, or all of the data set's, if any; each one checked."""
    folder = samples_path(constants.DATA_DIR, data.name, "any").parent
    names = [name.removesuffix(".npz") for name in constants.SAMPLES]
    paths = [samples_path(constants.DATA_DIR, data.name, name) for name in names]
    paths = paths or sorted(folder.glob("*.npz"))
    if not paths:
        print(
            f"{folder}: no samples, so the clean accuracies alone; for the others run "
            f"python {how_to_make('fgsm', constants.DATASET)} and "
            f"python {how_to_make('corruptions', constants.DATASET)} first"
        )
    return [load_samples(path, data) for path in paths]


def models_or_pretrained(models_dir: Path, dataset: str) -> list[Path]:
    """The models that were trained here; where there are none, those that came with the code.

    dataset : as DATASET of a script names it

    Raises GLRError if there are none of either.
    """
    label = dataset_label(dataset)
    own = models_found(models_dir, label)
    shipped = models_found(PRETRAINED, label)
    if not own and not shipped:
        raise GLRError(
            f"{models_dir}: no model of {label}; train one first, "
            f'python "Train&Test/LRS.py" --dataset {dataset}'
        )
    if not own:
        print(f"No model of {label} in {models_dir}: evaluating those of {PRETRAINED}")
    return own or shipped


def known_models(constants: SimpleNamespace, data: Dataset) -> dict[Path, Model]:
    """The models that are there for DATASET, by path; notes on those of an activation not known.

    Raises GLRError if none is left.
    """
    known = {}
    paths = models_or_pretrained(constants.MODELS_DIR, constants.DATASET)
    for path in paths:
        try:
            known[path] = load_model_for(path, data)
        except UnknownActivationError as error:
            print(f"Left out: {error}", file=sys.stderr)
    if not known:
        raise GLRError(f"{paths[0].parent}: no other model of {data.name}; train one first")
    return known


def check_seeds(models: Mapping[Path, Model]) -> None:
    """Raise GLRError unless models of one name differ in their seeds, and in nothing else.

    A table would take the mean of them.
    """
    first: dict[str, Path] = {}
    seeds: dict[tuple[str, int], Path] = {}
    for path, model in models.items():
        same = seeds.setdefault((model.name, model.seed), path)
        if same is not path:
            raise GLRError(
                f"{same} and {path}: both are {model.name} of seed {model.seed}; "
                "evaluate one of them, with --models, or train it with another --name"
            )
        other = first.setdefault(model.name, path)
        changed = differing(model.metadata["constants"], models[other].metadata["constants"])
        if changed:
            raise GLRError(
                f"{other} and {path}: both are {model.name}, of other {', '.join(changed)}; "
                "evaluate one of them, with --models, or train it with another --name"
            )


def differing(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """The constants in which two networks differ, but for those that a mean may be taken over."""
    names = sorted((one.keys() | other.keys()) - set(OF_ONE_NETWORK))
    return [name for name in names if one.get(name) != other.get(name)]


def evaluate(constants: SimpleNamespace) -> list[Row]:
    """The accuracy of every model on every sample file, and on the clean test set."""
    prepare_for_small_arrays()
    data = load_dataset(constants.DATASET, constants.DATA_DIR)
    named = {Path(path): load_model_for(Path(path), data) for path in constants.MODELS}
    models = named or known_models(constants, data)
    check_seeds(models)
    samples = samples_of(constants, data)
    lost = (lost_classes(model, data) for model in models.values())
    for note in filter(None, (*(blind_spot(one.metadata) for one in samples), *lost)):
        print(note)
    bar = tqdm(models.values(), desc="evaluating", unit="model", disable=None)
    return [row for model in bar for row in rows_of(model, data, samples)]


def lost_classes(model: Model, data: Dataset) -> str:
    """A note on the classes of which the model gets no clean test sample right, else nothing."""
    lost = [str(k) for k, share in accuracy_by_class(model, data).items() if share == 0]
    if not lost:
        return ""
    return f"Note: {model.name} of seed {model.seed} is never right on class {', '.join(lost)}."


def results_dir() -> Path:
    """GLR_RESULTS_DIR, else RobustnessTest/results."""
    return Path(os.environ.get("GLR_RESULTS_DIR") or ROOT / "RobustnessTest" / "results")


def report(rows: list[Row], constants: SimpleNamespace) -> None:
    """Write the tables as .csv, .md and .png; print them."""
    dataset = dataset_label(constants.DATASET)
    main, controls = present(rows)
    tables = {
        f"Accuracy on {dataset} in percent, noise-free; corruptions: mean of five severities": (
            table_lines(rows, dataset, main)
        ),
        "Controls": table_lines(rows, dataset, controls) if controls else [],
        "Other attacks, targets and ε": other_conditions(rows),
    }
    sayings = (
        smaller_samples(rows),
        what_published_cells_say(rows, dataset),
        what_epsilon_decides(rows, dataset),
        what_controls_say(rows),
        what_the_estimate_changes(rows),
    )
    says = "\n\n".join(filter(None, sayings))
    tables = {title: lines for title, lines in tables.items() if lines}
    path = results_dir() / f"{dataset}.csv"
    pages = [f"## {title}\n\n{markdown_table(lines)}\n" for title, lines in tables.items()]
    markdown = "\n".join([*pages, says, ""])
    write_whole(path, lambda file: file.write(csv_text(rows).encode()))
    write_whole(path.with_suffix(".md"), lambda file: file.write(markdown.encode()))
    draw_results(path.with_suffix(".png"), rows, dataset)
    for title, lines in tables.items():
        print(f"\n{title}\n\n{plain_table(lines)}")
    print(f"\n{says}" if says else "")
    print(f"Written: {path}, .md and .png")


def draw_results(path: Path, rows: list[Row], dataset: str) -> None:
    """Bars by condition with the published accuracies marked, and accuracy against FGSM's ε."""
    figure = new_figure(13, 4.4)
    bars, curves = figure.subplots(1, 2, width_ratios=[3, 1])
    from matplotlib import colormaps  # noqa: PLC0415  (as in glr.scripts.plots)

    main, controls = present(rows)
    colours = dict(zip(main + controls, cycle(colormaps["tab20"].colors), strict=False))
    draw_bars(bars, rows, dataset, colours)
    for model, colour in colours.items():
        curves.plot(*epsilon_curve(rows, model, "fgsm"), marker="o", ms=3, color=colour)
    curves.set(xlabel="ε of FGSM (transfer)", ylabel="accuracy (%)", ylim=(0, 100))
    for axes in (bars, curves):
        plain_axes(axes, lines_of="y")
    title = f"{dataset}: noise-free accuracy, mean over seeds"
    figure.suptitle(title, fontsize=10, parse_math=False)  # $ is no formula
    save_figure(path, figure)


def draw_bars(axes: Axes, rows: list[Row], dataset: str, colours: Mapping[str, tuple]) -> None:
    """Mean accuracy by condition, a bar for each model that has a colour; the published marked."""
    columns = [c for c in PUBLISHED["columns"] if any(row.condition == c for row in rows)]
    width = 0.8 / max(1, len(colours))
    for i, (model, colour) in enumerate(colours.items()):
        places = [c + (i - (len(colours) - 1) / 2) * width for c in range(len(columns))]
        means = [fmean(cell(rows, model, column) or [0]) for column in columns]
        axes.bar(places, means, width * 0.92, label=model, color=colour)
        for place, column in zip(places, columns, strict=True):
            published = published_cell(dataset, model, column)
            if published:
                axes.hlines(float(published), place - width / 2, place + width / 2, color="black")
    axes.set_xticks(range(len(columns)), [c.replace("_", "\n") for c in columns])
    axes.set(ylabel="accuracy (%)", ylim=(0, 100))
    axes.legend(ncols=9, fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1))
    if PUBLISHED.get(dataset):
        axes.text(0, -0.17, "black: published", transform=axes.transAxes, fontsize=8)


def epsilon_curve(rows: Iterable[Row], model: str, attack: str) -> tuple[list[float], list[float]]:
    """The ε of the attack's samples, 0 first, and the model's mean accuracies in percent."""
    by_epsilon: dict[float, list[float]] = {}
    for row in rows:
        if row.model == model and row.condition in ("clean", attack):
            by_epsilon.setdefault(row.severity, []).append(100 * row.accuracy)
    epsilons = sorted(by_epsilon)
    return epsilons, [fmean(by_epsilon[e]) for e in epsilons]
