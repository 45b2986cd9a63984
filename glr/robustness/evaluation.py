"""What testAdv.py does: evaluate models on samples, print the tables, write them and a picture."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from itertools import chain, combinations
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import numpy as np

from glr.data.datasets import SHIPPED, Dataset, fingerprint, load_dataset, n_classes
from glr.data.labels import class_name
from glr.errors import GLRError, UnknownActivationError
from glr.network import Activation, accuracy, is_right
from glr.robustness import tables
from glr.robustness.averaging import predictor, training_noise
from glr.robustness.samples import Samples, how_to_make, load_samples, samples_path, severities_of
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


def perturbation_generator(seed: int) -> np.random.Generator:
    """The generator of attacks, corruptions and certificates.

    It shares no number with the training of that seed, whose noise would else be met again.
    """
    return np.random.Generator(np.random.SFC64([seed, 1]))


def models_found(models_dir: Path, dataset: str) -> list[Path]:
    """The trained models of a data set, whatever their names and seeds; no surrogates."""
    name = re.compile(rf"(?!surrogate_)[^_]+_{re.escape(dataset)}_seed\d+\.npz")
    return sorted(path for path in models_dir.glob("*.npz") if name.fullmatch(path.name))


def load_model_for(path: Path, data: Dataset, functions: Mapping[str, Activation]) -> Model:
    """The model, if it was trained on this data set, as it is today; else GLRError.

    functions : those that may be its activation, by name, beside glr's own
    """
    _, metadata = layers_and_metadata(path)
    model = load_model(path, functions.get(str(metadata.get("activation"))))
    check_fit(path, model, data)
    return model


def check_fit(path: Path, model: Model, data: Dataset) -> None:
    """Raise GLRError unless the model, of this file, tells something of the data set."""
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
        name = model.network.activation.__name__
        wrong = f"{path}: trained with another {name}"
        raise GLRError(f"{wrong}; give --functions the file of that one")
    trained_on = model.metadata.get("training data")
    may_differ = data.name not in SHIPPED and trained_on is not None and not own.get("VALIDATION")
    if may_differ and trained_on != fingerprint(data):
        wrong = f"{path}: trained on other samples than {data.name} has now"
        raise GLRError(f"{wrong}; train it again")


def known_models(
    constants: SimpleNamespace, data: Dataset, functions: Mapping[str, Activation]
) -> dict[Path, Model]:
    """The models of DATASET by path: those trained here, and others that came with the code.

    With a note, models of an activation not known are left out. Raises GLRError if none is left.
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
        model = load_model_for(path, data, {})
        constants_of_it = model.metadata["constants"]
        compared = constants_of_it.keys() - set(OF_ONE_NETWORK)  # it may lack later ones
        if not any(
            all(one.get(name) == constants_of_it[name] for name in compared) for one in trained_here
        ):
            known[path] = model
    if not known:
        raise GLRError(
            f"{folder}: no model of {data.name} to evaluate; train one first, "
            f'python "Train&Test/LRS.py" --dataset {constants.DATASET}'
        )
    return known


def chosen_models(constants: SimpleNamespace, data: Dataset) -> dict[Path, Model]:
    """The MODELS by path, or all of the data set, which can predict as the constants say.

    Those that came with the code are called so. Raises GLRError if those of a name have no mean.
    """
    functions = functions_of(constants.FUNCTIONS)
    models = {path: load_model_for(path, data, functions) for path in map(Path, constants.MODELS)}
    models = models or known_models(constants, data, functions)
    for path, model in models.items():
        if path.parent.resolve() == PRETRAINED.resolve():
            model.metadata["constants"]["NAME"] += tables.PRETRAINED_LABEL
    if getattr(constants, "PREDICTION_PASSES", 0):
        noiseless = {path: one for path, one in models.items() if not training_noise(one)}
        for name in dict.fromkeys(one.name for one in noiseless.values()):
            why = "trained without noise of glr's laws in every layer, as PREDICTION_PASSES needs"
            print(f"Left out on {data.name}: {name}, {why}", file=sys.stderr)
        models = {path: one for path, one in models.items() if path not in noiseless}
        if not models:
            raise GLRError("PREDICTION_PASSES: no model has noise to predict with; set it to 0")
    check_seeds(models)
    return models


def check_seeds(models: Mapping[Path, Model]) -> None:
    """Raise GLRError unless models of one name, whose mean a table has, differ in seeds alone."""
    for (one, mine), (other, theirs) in combinations(models.items(), 2):
        a, b = mine.metadata["constants"], theirs.metadata["constants"]
        names = sorted((a.keys() | b.keys()) - set(OF_ONE_NETWORK))
        changed = ", ".join(name for name in names if a.get(name) != b.get(name))
        clash = f" of seed {mine.seed}" if mine.seed == theirs.seed else f", of other {changed}"
        if mine.name == theirs.name and (changed or mine.seed == theirs.seed):
            raise GLRError(
                f"{one} and {other}: both are {mine.name}{clash}; "
                "evaluate one of them, with --models, or train it with another --name"
            )


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


def write_results(constants: SimpleNamespace, name: str = "") -> list[tables.Row]:
    """Evaluate what the constants name; print the tables, and write them: .csv, .md and a picture.

    name : of these files; without one, it is the data set's. Those of chosen models, samples or
        passes have a name of their own: they do not replace those of all
    """
    prepare_for_small_arrays()
    data = load_dataset(constants.DATASET, constants.DATA_DIR)
    rows = measured_rows(constants, data)
    passes = getattr(constants, "PREDICTION_PASSES", 0)
    how = f"mean of {passes} noisy passes" if passes else "noise-free"
    part = "_part" if constants.MODELS or constants.SAMPLES or passes else ""
    path = results_dir() / f"{name or data.name + part}.csv"
    page = tables.results_page(rows, data.name, how)
    write_whole(path, lambda file: file.write(tables.csv_text(rows).encode()))
    write_whole(path.with_suffix(".md"), lambda file: file.write(f"{page}\n".encode()))
    with optional_picture():
        draw_results(path.with_suffix(f".{constants.FORMAT}"), rows, data.name, how)
    for title, lines in tables.result_tables(rows, data.name, how).items():
        print(f"\n{title}\n\n{tables.plain_table(lines)}")
    print(f"\nWritten: {path} and .md")
    return rows


def results_dir() -> Path:
    """GLR_RESULTS_DIR, else RobustnessTest/results."""
    return user_path(os.environ.get("GLR_RESULTS_DIR") or HOME / "RobustnessTest" / "results")


def measured_rows(constants: SimpleNamespace, data: Dataset) -> list[tables.Row]:
    """The accuracy of every model on every sample file, and on the clean test set."""
    models = chosen_models(constants, data)
    samples = samples_of(constants, data)
    lost = (lost_classes(model, data) for model in models.values())
    for note in filter(None, (*(blind_spot(one.metadata) for one in samples), *lost)):
        print(note)
    passes = getattr(constants, "PREDICTION_PASSES", 0)
    bar = progress_bar(models.values(), "evaluating")
    return [row for model in bar for row in rows_of(model, data, samples, passes)]


def rows_of(
    model: Model, data: Dataset, samples: Iterable[Samples], passes: int
) -> list[tables.Row]:
    """The model's accuracy on the clean test set and on every severity of all samples.

    passes : noisy ones, by whose mean it predicts, drawn by its seed; 0: noise-free
    """
    network = predictor(model, passes, perturbation_generator(model.seed))
    clean = Samples(data.x_test, data.x_test[None], data.y_test, {"attack": "clean"})
    rows = []
    for _, x_adv, y, metadata in (clean, *samples):
        condition = condition_of(metadata)
        condition += f", first {len(y)}" if len(y) < len(data.y_test) else ""
        for severity, x in zip(severities_of(metadata), x_adv, strict=True):
            share = accuracy(network.logits(x.astype(np.float32, copy=False)), y)
            rows.append(tables.Row(model.name, model.seed, condition, severity, share, len(y)))
    return rows


def lost_classes(model: Model, data: Dataset) -> str:
    """A note on the classes of which the model gets no clean test sample right, else nothing."""
    right = is_right(model.network.logits(data.x_test), data.y_test)
    lost = np.setdiff1d(data.y_test, data.y_test[right])
    if not lost.size:
        return ""
    names = ", ".join(class_name(data.classes, int(k)) for k in lost)
    return f"Note: {model.name} of seed {model.seed} is never right on class {names}."


def draw_results(path: Path, rows: list[tables.Row], dataset: str, how: str = "noise-free") -> None:
    """Mean accuracies by condition, a bar for each model; a black line where one is published."""
    models = [*chain(*tables.present(rows))]
    figure = new_figure(13, 4.4)
    axes = figure.subplots()
    looks = look_of(map(tables.network_name, models))
    columns = [c for c in tables.PUBLISHED["columns"] if any(row.condition == c for row in rows)]
    width = 0.8 / len(models)
    for i, model in enumerate(models):
        left = np.arange(len(columns)) + i * width - 0.4
        cells = [tables.cell(rows, model, column) or [0] for column in columns]
        look = {"color": looks[tables.network_name(model)][0], "ecolor": "grey", "align": "edge"}
        look["hatch"] = "//" if tables.network_name(model) != model else ""  # pretrained
        spreads = [*map(tables.spread, cells)]
        axes.bar(left, [*map(fmean, cells)], width * 0.92, yerr=spreads, label=model, **look)
        published = [float(tables.published_cell(dataset, model, c) or "nan") for c in columns]
        axes.hlines(published, left, left + width, color="black")
    names = {"fgsm": f"FGSM\nε {tables.TABLE_EPSILON:g}", "lbfgs": "L-BFGS"}
    axes.set_xticks(range(len(columns)), [names.get(c, c.replace("_", "\n")) for c in columns])
    axes.set(ylabel=f"accuracy (%), {how}", ylim=(0, 100))
    beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "ncols": 1 + len(models) // 24}
    axes.legend(fontsize=8, frameon=False, **beside)
    plain_axes(axes, lines_of="y")
    note = "; black: published" if dataset in tables.PUBLISHED else ""
    seeds = "; mean ± sd over seeds" if len({row.seed for row in rows}) > 1 else ""
    title = f"{dataset}, {rows[0].n} test samples; attacks transferred from a ReLU network"
    save_figure(path, figure, f"{title}{seeds}{note}")
