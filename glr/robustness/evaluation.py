"""What testAdv.py does: evaluate models on samples, print the tables, write them and a picture."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from glr.data.datasets import SHIPPED, Dataset, fingerprint, load_dataset, n_classes
from glr.errors import GLRError, UnknownActivationError
from glr.network import Activation, accuracy, is_right
from glr.robustness.samples import Samples, how_to_make, load_samples, samples_path, severities_of
from glr.robustness.tables import (
    PUBLISHED,
    Row,
    cell,
    csv_text,
    markdown_table,
    plain_table,
    present,
    published_cell,
    tables_and_sayings,
)
from glr.scripts.constants import ROOT, functions_of
from glr.scripts.machine import prepare_for_small_arrays
from glr.scripts.plots import new_figure, plain_axes, save_figure
from glr.scripts.records import code_checksum
from glr.storage.files import write_whole
from glr.storage.models import Model, layers_and_metadata, load_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Constants in which the models of one row may differ: the seed, and what leaves the network as is.
OF_ONE_NETWORK = ("SEED", "DATASET", "EVAL_EVERY")
PRETRAINED = ROOT / "models" / "pretrained"  # weights of seed 0, written by study.py

Functions = Mapping[str, Activation]


def models_found(models_dir: Path, dataset: str) -> list[Path]:
    """The trained models of a data set, whatever their names and seeds; no surrogates."""
    name = re.compile(rf"(?!surrogate_)[^_]+_{re.escape(dataset)}_seed\d+\.npz")
    return sorted(path for path in models_dir.glob("*.npz") if name.fullmatch(path.name))


def load_model_for(path: Path, data: Dataset, functions: Functions = MappingProxyType({})) -> Model:
    """The model, if it was trained on this data set, as it is today; else GLRError.

    functions : those that may be its activation, by name, beside glr's own
    """
    _, metadata = layers_and_metadata(path)
    name = str(metadata.get("activation"))
    model = load_model(path, functions.get(name))
    sizes, dataset = model.network.sizes, model.metadata.get("dataset")
    if dataset != data.name or (sizes[0], sizes[-1]) != (data.x_test.shape[1], n_classes(data)):
        raise GLRError(
            f"{path}: trained on {dataset} with {sizes[0]} inputs and {sizes[-1]} classes, "
            f"not on {data.name} with {data.x_test.shape[1]} and {n_classes(data)}; "
            f"name a model of {data.name}, or use --dataset {dataset}"
        )
    own = model.metadata.get("constants")
    own = own if isinstance(own, dict) else {}
    # NAME becomes part of file names: one with a slash would leave their folder.
    has_name = re.fullmatch(r"[A-Za-z0-9+.-]+", str(own.get("NAME"))) is not None
    if not (has_name and isinstance(own.get("SEED"), int)):
        raise GLRError(f"{path}: its metadata lack the constants NAME and SEED; train it again")
    code, own_code = code_checksum(model.network.activation), own.get("own_code")
    if isinstance(own_code, dict) and own_code.get("ACTIVATION", code) != code:
        raise GLRError(
            f"{path}: trained with another {name}; give --functions the file of that one"
        )
    trained_on = model.metadata.get("training data")
    may_differ = data.name not in SHIPPED and trained_on is not None and not own.get("VALIDATION")
    if may_differ and trained_on != fingerprint(data):
        raise GLRError(f"{path}: trained on other samples than {data.name} has now; train it again")
    return model


def known_models(
    constants: SimpleNamespace, data: Dataset, functions: Functions = MappingProxyType({})
) -> dict[Path, Model]:
    """The models of DATASET by path: those trained here, or else those that came with the code.

    Those of an activation not known are left out, with a note. Raises GLRError if none is left.
    """
    folder = constants.MODELS_DIR
    own, shipped = (models_found(place, data.name) for place in (folder, PRETRAINED))
    if not own and not shipped:
        raise GLRError(
            f"{folder}: no model of {data.name}; train one first, "
            f'python "Train&Test/LRS.py" --dataset {constants.DATASET}'
        )
    if not own:
        print(f"No model of {data.name} in {folder}: evaluating those of {PRETRAINED}")
    known = {}
    for path in own or shipped:
        try:
            known[path] = load_model_for(path, data, functions)
        except UnknownActivationError as error:
            print(f"Left out: {error}", file=sys.stderr)
    if not known:
        raise GLRError(f"{folder}: no other model of {data.name}; train one first")
    return known


def check_seeds(models: Mapping[Path, Model]) -> None:
    """Raise GLRError unless models of one name differ in their seeds, and in nothing else.

    A table would take the mean of them.
    """
    first: dict[object, Path] = {}
    for path, model in models.items():
        other = first.setdefault((model.name, model.seed), path)
        clash = f" of seed {model.seed}"
        if other is path:
            other = first.setdefault(model.name, path)
            one, two = (m.metadata["constants"] for m in (model, models[other]))
            names = sorted((one.keys() | two.keys()) - set(OF_ONE_NETWORK))
            changed = ", ".join(name for name in names if one.get(name) != two.get(name))
            clash = f", of other {changed}" if changed else ""
        if clash:
            raise GLRError(
                f"{other} and {path}: both are {model.name}{clash}; "
                "evaluate one of them, with --models, or train it with another --name"
            )


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


def condition_of(metadata: dict) -> str:
    """The name of a condition: the attack, and whose gradient it used if not the surrogate's."""
    target = metadata.get("target", "surrogate")
    return metadata["attack"] if target == "surrogate" else f"{metadata['attack']} on {target}"


def blind_spot(metadata: dict) -> str:
    """A warning where an attack met gradients that are exactly zero, else nothing."""
    share = metadata.get("zero_gradient_share")
    if not share:
        return ""
    return (
        f"Note: {condition_of(metadata)} left {100 * share:.2f} % of the samples unchanged, "
        "for want of a gradient; that share is no robustness."
    )


def write_results(constants: SimpleNamespace) -> None:
    """Evaluate what the constants name; print the tables, and write them: .csv, .md and .png."""
    prepare_for_small_arrays()
    data = load_dataset(constants.DATASET, constants.DATA_DIR)
    rows = measured_rows(constants, data)
    tables, says = tables_and_sayings(rows, data.name)
    path = results_dir() / f"{data.name}.csv"
    pages = [f"## {title}\n\n{markdown_table(lines)}\n" for title, lines in tables.items()]
    markdown = "\n".join([*pages, says, ""])
    write_whole(path, lambda file: file.write(csv_text(rows).encode()))
    write_whole(path.with_suffix(".md"), lambda file: file.write(markdown.encode()))
    draw_results(path.with_suffix(".png"), rows, data.name)
    for title, lines in tables.items():
        print(f"\n{title}\n\n{plain_table(lines)}")
    print(f"\n{says}" if says else "")
    print(f"Written: {path}, .md and .png")


def results_dir() -> Path:
    """GLR_RESULTS_DIR, else RobustnessTest/results."""
    return Path(os.environ.get("GLR_RESULTS_DIR") or ROOT / "RobustnessTest" / "results")


def measured_rows(constants: SimpleNamespace, data: Dataset) -> list[Row]:
    """The accuracy of every model on every sample file, and on the clean test set."""
    functions = functions_of(constants.FUNCTIONS)
    models = {path: load_model_for(path, data, functions) for path in map(Path, constants.MODELS)}
    models = models or known_models(constants, data, functions)
    check_seeds(models)
    samples = samples_of(constants, data)
    lost = (lost_classes(model, data) for model in models.values())
    for note in filter(None, (*(blind_spot(one.metadata) for one in samples), *lost)):
        print(note)
    bar = tqdm(models.values(), desc="evaluating", unit="model", disable=None)
    return [row for model in bar for row in rows_of(model, data, samples)]


def rows_of(model: Model, data: Dataset, samples: Iterable[Samples]) -> list[Row]:
    """The model's accuracy on the clean test set and on every severity of all samples."""

    def row(condition: str, severity: float, x: np.ndarray, y: np.ndarray) -> Row:
        share = accuracy(model.network.logits(x.astype(np.float32, copy=False)), y)
        return Row(model.name, model.seed, condition, severity, share, len(y))

    rows = [row("clean", 0, data.x_test, data.y_test)]
    for _, x_adv, y, metadata in samples:
        condition = condition_of(metadata)
        rows += [
            row(condition, severity, x, y)
            for severity, x in zip(severities_of(metadata), x_adv, strict=True)
        ]
    return rows


def accuracy_by_class(model: Model, data: Dataset) -> dict[int, float]:
    """The share in [0, 1] of each class's clean test samples that are right, by class."""
    right = is_right(model.network.logits(data.x_test), data.y_test)
    return {int(k): float(right[data.y_test == k].mean()) for k in np.unique(data.y_test)}


def lost_classes(model: Model, data: Dataset) -> str:
    """A note on the classes of which the model gets no clean test sample right, else nothing."""
    lost = [str(k) for k, share in accuracy_by_class(model, data).items() if share == 0]
    if not lost:
        return ""
    return f"Note: {model.name} of seed {model.seed} is never right on class {', '.join(lost)}."


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


def epsilon_curve(rows: Sequence[Row], model: str, attack: str) -> tuple[list[float], list[float]]:
    """The ε of the attack's samples, 0 first, and the model's mean accuracies in percent."""
    kinds = {(r.severity, r.condition) for r in rows if r.model == model}
    kinds = sorted((e, condition) for e, condition in kinds if condition in ("clean", attack))
    means = [fmean(cell(rows, model, condition, e)) for e, condition in kinds]
    return [e for e, _ in kinds], means
