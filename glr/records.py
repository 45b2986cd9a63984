"""What a run of a training script leaves: its files, their names, and all that they tell of it."""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

from glr.constants import name_of
from glr.data import dataset_label
from glr.errors import GLRError
from glr.files import write_whole
from glr.models import save_model
from glr.plots import draw_learning_curve
from glr.training import Evaluation, Run

# Of a script's constants, those that have no bearing on the weights.
NO_BEARING = ("SCRIPT", "DATA_DIR", "MODELS_DIR", "CHECKPOINT_EVERY", "RESUME")


def evaluated_on(constants: SimpleNamespace) -> str:
    """Which samples the reports are of: held-out ones, "validation", or those of the "test" set."""
    return "validation" if constants.VALIDATION else "test"


def run_path(constants: SimpleNamespace) -> Path:
    """Where the run's model goes: models/LRS_mnist_seed0.npz (NAME, data set, seed)."""
    name = f"{constants.NAME}_{dataset_label(constants.DATASET)}_seed{constants.SEED}"
    if constants.VALIDATION:
        name += "_validation"  # trained on fewer samples: never taken for a model to report
    return constants.MODELS_DIR / f"{name}.npz"


def checkpoint_path(constants: SimpleNamespace) -> Path:
    """Where the run's checkpoint is while it trains: models/LRS_mnist_seed0.checkpoint."""
    return run_path(constants).with_suffix(".checkpoint")


def run_files(constants: SimpleNamespace) -> list[Path]:
    """All that the run writes: model, history, learning curve, checkpoint."""
    path = run_path(constants)
    return [path, path.with_suffix(".csv"), path.with_suffix(".png"), checkpoint_path(constants)]


def save_run(run: Run, constants: SimpleNamespace) -> None:
    """Write the model (.npz), its history (.csv) and learning curve (.png); print the summary.

    The checkpoint is deleted last: nothing is lost if one of them cannot be written.
    """
    network, last, where = run.network, run.history[-1], evaluated_on(constants)
    model, history, picture, checkpoint = run_files(constants)
    accuracy = last.test_accuracy
    title = f"{model.stem}: {', '.join(map(str, network.sizes))} neurons"
    try:
        write_history(history, run.history)
        draw_learning_curve(picture, title, run.history, where)
        save_model(model, network, run_metadata(run, constants))
    except GLRError as error:
        raise GLRError(f"{error}. The run is kept: --resume then writes it") from error
    checkpoint.unlink(missing_ok=True)
    print(
        f"{constants.NAME}  {dataset_label(constants.DATASET)}  seed {constants.SEED}  "
        f"{where} accuracy {100 * accuracy:.2f} % (noise-free)  {last.seconds:.1f} s  {model}"
    )


def recorded_constants(constants: SimpleNamespace) -> dict:
    """The script's constants as JSON can hold them: functions by name, tuples as lists."""
    return {
        name: [name_of(v) for v in value] if isinstance(value, tuple) else name_of(value)
        for name, value in vars(constants).items()
        if name not in NO_BEARING
    }


def run_metadata(run: Run, constants: SimpleNamespace) -> dict:
    """All that is needed to know, and to retrain, what the weights are."""
    network, last = run.network, run.history[-1]
    retuned = {"retuned": run.retuned} if run.retuned else {}
    return {
        "script": constants.SCRIPT,
        "dataset": dataset_label(constants.DATASET),
        "sizes": network.sizes,
        "activation": name_of(network.activation),
        "loss": name_of(constants.LOSS),
        "constants": recorded_constants(constants),
        **retuned,
        "metrics": {
            f"{evaluated_on(constants)}_accuracy": last.test_accuracy,
            f"{evaluated_on(constants)}_loss": last.test_loss,
            "train_loss": last.train_loss,
            "seconds": round(last.seconds, 3),
        },
        "versions": {"python": platform.python_version(), "numpy": version("numpy")},
    }


def write_history(path: Path, history: list[Evaluation]) -> None:
    """The learning curve as CSV: step, epoch, seconds, train_loss, test_loss, test_accuracy."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(Evaluation._fields)
    rows.writerows([row.step, *(f"{figure:.6g}" for figure in row[1:])] for row in history)
    write_whole(path, lambda file: file.write(text.getvalue().encode()))


def results_table(runs: Iterable[dict]) -> str:
    """The models' metadata as a table: script | test accuracy | seconds."""
    lines = [
        f"{'script':8s} | {'test accuracy':>13s} | {'seconds':>7s}",
        "-" * 9 + "|" + "-" * 15 + "|" + "-" * 8,
    ]
    for run in runs:
        accuracy, seconds = run["metrics"]["test_accuracy"], run["metrics"]["seconds"]
        lines.append(f"{run['script']:8s} | {100 * accuracy:11.2f} % | {seconds:7.1f}")
    return "\n".join(lines)
