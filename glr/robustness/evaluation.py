"""What testAdv.py does: evaluate models on samples, print the tables, write them and a picture."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from itertools import chain, combinations
from pathlib import Path
from statistics import fmean
from types import MappingProxyType, SimpleNamespace

import numpy as np

from glr.data.datasets import SHIPPED, Dataset, fingerprint, load_dataset, n_classes
from glr.data.labels import class_name
from glr.errors import GLRError, UnknownActivationError
from glr.network import Activation, accuracy, is_right
from glr.robustness.samples import Samples, how_to_make, load_samples, samples_path, severities_of
from glr.robustness.tables import (
    PRETRAINED_LABEL,
    PUBLISHED,
    TABLE_EPSILON,
    Row,
    cell,
    csv_text,
    network_name,
    plain_table,
    present,
    published_cell,
    result_tables,
    results_page,
    spread,
)
from glr.scripts.console import progress_bar
from glr.scripts.constants import HOME, ROOT, functions_of
from glr.scripts.machine import prepare_for_small_arrays
from glr.scripts.plots import look_of, new_figure, optional_picture, plain_axes, save_figure
from glr.scripts.records import code_checksum
from glr.storage.files import user_path, write_whole
from glr.storage.models import Model, layers_and_metadata, load_model

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
    model = load_model(path, functions.get(str(metadata.get("activation"))))
    wrong = misfit(model, data)
    if wrong:
        raise GLRError(f"{path}: {wrong}")
    return model


def misfit(model: Model, data: Dataset) -> str:
    """Why the model tells nothing of the data set, in words; nothing if it does."""
    sizes, dataset = model.network.sizes, model.metadata.get("dataset")
    if dataset != data.name or (sizes[0], sizes[-1]) != (data.x_test.shape[1], n_classes(data)):
        return (
            f"trained on {dataset} with {sizes[0]} inputs and {sizes[-1]} classes, "
            f"not on {data.name} with {data.x_test.shape[1]} and {n_classes(data)}; "
            f"name a model of {data.name}, or use --dataset {dataset}"
        )
    own = model.metadata.get("constants")
    own = own if isinstance(own, dict) else {}
    # NAME becomes part of file names: one with a slash would leave their folder.
    has_name = re.fullmatch(r"[A-Za-z0-9+.-]+", str(own.get("NAME"))) is not None
    if not (has_name and isinstance(own.get("SEED"), int)):
        return "its metadata lack the constants NAME and SEED; train it again"
    code, own_code = code_checksum(model.network.activation), own.get("own_code")
    if isinstance(own_code, dict) and own_code.get("ACTIVATION", code) != code:
        name = model.network.activation.__name__
        return f"trained with another {name}; give --functions the file of that one"
    trained_on = model.metadata.get("training data")
    may_differ = data.name not in SHIPPED and trained_on is not None and not own.get("VALIDATION")
    if may_differ and trained_on != fingerprint(data):
        return f"trained on other samples than {data.name} has now; train it again"
    return ""


def known_models(
    constants: SimpleNamespace, data: Dataset, functions: Functions = MappingProxyType({})
) -> dict[Path, Model]:
    """The models of DATASET by path: those trained here, beside those that came with the code.

    Of these, networks that were trained here too are left out; with a note, models of an
    activation not known. Raises GLRError if none is left.
    """
    folder, known = constants.MODELS_DIR, {}
    own, shipped = (models_found(place, data.name) for place in (folder, PRETRAINED))
    if shipped and not own:
        print(f"No model of {data.name} in {folder}: evaluating those of {PRETRAINED}")
    for path in own:
        try:
            known[path] = load_model_for(path, data, functions)
        except UnknownActivationError as error:
            print(f"Left out: {error}", file=sys.stderr)
    trained_here = [model.metadata["constants"] for model in known.values()]
    for path in shipped:
        model = load_model_for(path, data)
        if not any(is_of_one_network(model.metadata["constants"], one) for one in trained_here):
            known[path] = model
    if not known:
        raise GLRError(
            f"{folder}: no model of {data.name} to evaluate; train one first, "
            f'python "Train&Test/LRS.py" --dataset {constants.DATASET}'
        )
    return labelled(known)


def is_of_one_network(shipped: dict, own: dict) -> bool:
    """Whether own constants are a shipped network's, but for the seed; it may lack later ones."""
    return all(own.get(name) == shipped[name] for name in shipped.keys() - set(OF_ONE_NETWORK))


def labelled(models: Mapping[Path, Model]) -> dict[Path, Model]:
    """The models, with names that tell those that came with the code from those trained here."""
    shipped = PRETRAINED.resolve()
    for path, model in models.items():
        if path.parent.resolve() == shipped:
            model.metadata["constants"]["NAME"] += PRETRAINED_LABEL
    return dict(models)


def chosen_models(constants: SimpleNamespace, data: Dataset) -> dict[Path, Model]:
    """The MODELS by path, or all of the data set; GLRError if those of a name have no mean."""
    functions = functions_of(constants.FUNCTIONS)
    models = {path: load_model_for(path, data, functions) for path in map(Path, constants.MODELS)}
    models = labelled(models) or known_models(constants, data, functions)
    check_seeds(models)
    return models


def check_seeds(models: Mapping[Path, Model]) -> None:
    """Raise GLRError unless models of one name, whose mean a table has, differ in seeds alone."""
    for (one, mine), (other, theirs) in combinations(models.items(), 2):
        clash = mine.name == theirs.name and clash_of(mine, theirs)
        if clash:
            raise GLRError(
                f"{one} and {other}: both are {mine.name}{clash}; "
                "evaluate one of them, with --models, or train it with another --name"
            )


def clash_of(one: Model, other: Model) -> str:
    """What two models share or differ in that have no mean, in words; nothing if they have one."""
    if one.seed == other.seed:
        return f" of seed {one.seed}"
    a, b = one.metadata["constants"], other.metadata["constants"]
    names = sorted((a.keys() | b.keys()) - set(OF_ONE_NETWORK))
    changed = ", ".join(name for name in names if a.get(name) != b.get(name))
    return f", of other {changed}" if changed else ""


def samples_of(constants: SimpleNamespace, data: Dataset) -> list[Samples]:
    """The samples that the constants name, or all of the data set's, if any; each one checked."""
    folder = samples_path(constants.DATA_DIR, data.name, "any").parent
    names = [name.removesuffix(".npz") for name in constants.SAMPLES]
    names = names or sorted(path.stem for path in folder.glob("*.npz"))
    if not names:
        print(
            f"{folder}: no samples, so the clean accuracies alone; for the others run "
            f"python {how_to_make('fgsm', constants.DATASET)} and "
            f"python {how_to_make('contrast', constants.DATASET)} first"
        )
    return [load_samples(samples_path(constants.DATA_DIR, data.name, name), data) for name in names]


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
        "for want of a gradient; that share is no robustness. --attack square needs none."
    )


def write_results(constants: SimpleNamespace, name: str = "") -> list[Row]:
    """Evaluate what the constants name; print the tables, and write them: .csv, .md and a picture.

    name : of these files; without one, it is the data set's. Those of chosen models or samples have
        a name of their own: they do not replace those of all
    """
    prepare_for_small_arrays()
    data = load_dataset(constants.DATASET, constants.DATA_DIR)
    rows = measured_rows(constants, data)
    name = name or part_name(data.name, bool(constants.MODELS or constants.SAMPLES))
    path = results_dir() / f"{name}.csv"
    page = results_page(rows, data.name)
    write_whole(path, lambda file: file.write(csv_text(rows).encode()))
    write_whole(path.with_suffix(".md"), lambda file: file.write(f"{page}\n".encode()))
    with optional_picture():
        draw_results(path.with_suffix(f".{constants.FORMAT}"), rows, data.name)
    for title, lines in result_tables(rows, data.name).items():
        print(f"\n{title}\n\n{plain_table(lines)}")
    print(f"\nWritten: {path} and .md")
    return rows


def part_name(name: str, is_part: bool) -> str:
    """The name of results' files: another for those of a part, which do not replace the whole's."""
    return f"{name}_part" if is_part else name


def results_dir() -> Path:
    """GLR_RESULTS_DIR, else RobustnessTest/results."""
    return user_path(os.environ.get("GLR_RESULTS_DIR") or HOME / "RobustnessTest" / "results")


def measured_rows(constants: SimpleNamespace, data: Dataset) -> list[Row]:
    """The accuracy of every model on every sample file, and on the clean test set."""
    models = chosen_models(constants, data)
    samples = samples_of(constants, data)
    lost = (lost_classes(model, data) for model in models.values())
    for note in filter(None, (*(blind_spot(one.metadata) for one in samples), *lost)):
        print(note)
    bar = progress_bar(models.values(), "evaluating")
    return [row for model in bar for row in rows_of(model, data, samples)]


def rows_of(model: Model, data: Dataset, samples: Iterable[Samples]) -> list[Row]:
    """The model's accuracy on the clean test set and on every severity of all samples."""
    clean = Samples(data.x_test, data.x_test[None], data.y_test, {"attack": "clean"})
    rows = []
    for _, x_adv, y, metadata in (clean, *samples):
        for severity, x in zip(severities_of(metadata), x_adv, strict=True):
            share = accuracy(model.network.logits(x.astype(np.float32, copy=False)), y)
            condition = condition_of(metadata) + fewer(len(y), data)
            rows.append(Row(model.name, model.seed, condition, severity, share, len(y)))
    return rows


def fewer(n: int, data: Dataset) -> str:
    """What sets samples of a part of the test set apart: ", first 20"; nothing for all of it."""
    return f", first {n}" if n < len(data.y_test) else ""


def accuracy_by_class(model: Model, data: Dataset) -> dict[int, float]:
    """The share in [0, 1] of each class's clean test samples that are right, by class."""
    right = is_right(model.network.logits(data.x_test), data.y_test)
    return {int(k): float(right[data.y_test == k].mean()) for k in np.unique(data.y_test)}


def lost_classes(model: Model, data: Dataset) -> str:
    """A note on the classes of which the model gets no clean test sample right, else nothing."""
    shares = accuracy_by_class(model, data).items()
    lost = [class_name(data.classes, k) for k, share in shares if share == 0]
    if not lost:
        return ""
    return f"Note: {model.name} of seed {model.seed} is never right on class {', '.join(lost)}."


def draw_results(path: Path, rows: list[Row], dataset: str) -> None:
    """Mean accuracies by condition, a bar for each model; a black line where one is published."""
    models = [*chain(*present(rows))]
    columns_of_legend = 1 + len(models) // 24  # as many lines as fit beside the bars
    figure = new_figure(11 + 2 * columns_of_legend, 4.4)
    axes = figure.subplots()
    looks = look_of(map(network_name, models))
    columns = [c for c in PUBLISHED["columns"] if any(row.condition == c for row in rows)]
    width = 0.8 / len(models)
    for i, model in enumerate(models):
        left = np.arange(len(columns)) + i * width - 0.4
        cells = [cell(rows, model, column) or [0] for column in columns]
        look = {"color": looks[network_name(model)][0], "ecolor": "grey", "align": "edge"}
        is_twice = network_name(model) != model and network_name(model) in models
        look["hatch"] = "//" if is_twice else ""  # pretrained, beside that of one's own
        spreads = [*map(spread, cells)]
        axes.bar(left, [*map(fmean, cells)], width * 0.92, yerr=spreads, label=model, **look)
        published = [float(published_cell(dataset, model, c) or "nan") for c in columns]
        axes.hlines(published, left, left + width, color="black")
    names = {"fgsm": f"FGSM\nε {TABLE_EPSILON:g}", "lbfgs": "L-BFGS"}
    axes.set_xticks(range(len(columns)), [names.get(c, c.replace("_", "\n")) for c in columns])
    axes.set(ylabel="accuracy (%), noise-free", ylim=(0, 100))
    beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "ncols": columns_of_legend}
    axes.legend(fontsize=8, frameon=False, **beside)
    plain_axes(axes, lines_of="y")
    is_any_published = any(published_cell(dataset, model, "clean") for model in models)
    note = "; black: published" if is_any_published else ""
    seeds = "; mean ± sd over seeds" if len({row.seed for row in rows}) > 1 else ""
    title = f"{dataset}, {rows[0].n} test samples; attacks transferred from a ReLU network"
    figure.suptitle(f"{title}{seeds}{note}", fontsize=10, parse_math=False)  # $ is no formula
    save_figure(path, figure)
