"""What a run of a training script leaves: its files, their names, and all that they tell of it."""

from __future__ import annotations

import functools
import inspect
import math
import platform
import sys
import zlib
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from glr.data.datasets import dataset_label
from glr.data.labels import class_name
from glr.errors import GLRError
from glr.noise import NoiseLaw
from glr.scripts.constants import name_of
from glr.scripts.plots import draw_learning_curve, look_of, optional_picture
from glr.storage.checkpoint import Evaluation
from glr.storage.files import set_aside, write_whole
from glr.storage.models import layers_and_metadata, save_model

if TYPE_CHECKING:
    from glr.scripts.run import Run

# Constants that have no bearing on the weights.
NO_BEARING = {"SCRIPT", "DATA_DIR", "MODELS_DIR", "FORMAT"}
NO_BEARING |= {"CHECKPOINT_EVERY", "RESUME", "OWN_DATA"}
# Packages whose versions may change last bits, and the modules that are there where they are used.
USED = {"numpy": "numpy", "jax": "glr.xla", "tensorflow": "tensorflow"}


def evaluated_on(constants: SimpleNamespace) -> str:
    """Which samples the reports are of: held-out ones, "validation", or those of the "test" set."""
    return "validation" if constants.VALIDATION else "test"


def samples_of(constants: SimpleNamespace) -> str:
    """Which samples the reports are of, in words."""
    return "held-out training samples" if constants.VALIDATION else "test samples"


def reached(constants: SimpleNamespace, row: Evaluation) -> str:
    """The accuracy of an evaluation, in words."""
    return f"{evaluated_on(constants)} accuracy {100 * row.test_accuracy:.2f} %"


def run_path(constants: SimpleNamespace) -> Path:
    """Where the run's model goes: models/LRS_mnist_seed0.npz (NAME, data set, seed)."""
    name = f"{constants.NAME}_{dataset_label(constants.DATASET)}_seed{constants.SEED}"
    if constants.VALIDATION:
        name += "_validation"  # trained on fewer samples: never taken for a model to report
    return constants.MODELS_DIR / f"{name}.npz"


def run_files(constants: SimpleNamespace) -> list[Path]:
    """All that the run writes: model, history, learning curve; and, while it trains, checkpoint."""
    kinds = "npz", "csv", constants.FORMAT, "checkpoint"
    return [run_path(constants).with_suffix(f".{kind}") for kind in kinds]


def save_run(run: Run) -> None:
    """Write the model (.npz), its history (.csv) and learning curve; print the summary.

    The checkpoint is deleted last, so nothing is lost if model or history cannot be written. A
    model of the same name and other constants is kept beside it.
    """
    constants, rows = run.constants, run.state.history
    where, label = evaluated_on(constants), dataset_label(constants.DATASET)
    model, history, picture, checkpoint = run_files(constants)
    samples = f"{len(run.data.y_test)} {samples_of(constants)}"
    sizes = "-".join(map(str, run.network.sizes))
    title = f"{constants.NAME} on {label}, seed {constants.SEED}: {sizes}, {samples}"
    colour, _ = look_of([constants.NAME])[constants.NAME]
    try:
        kept = keep_other_model(model, recorded_constants(constants))
        write_history(history, rows, where)
        save_model(model, run.network, run_metadata(run))
    except GLRError as error:
        raise GLRError(f"{error}. The run is kept: --resume then writes it") from error
    with optional_picture():
        draw_learning_curve(picture, title, rows, where, colour)
    checkpoint.unlink(missing_ok=True)
    if kept:
        print(kept, end="", file=sys.stderr)
    if note := chance_note(run):
        print(note)
    print(
        f"{constants.NAME}  {label}  seed {constants.SEED}  {reached(constants, rows[-1])} "
        f"(noise-free)  {rows[-1].seconds:.1f} s  {model}"
    )


def constants_in(path: Path) -> dict:
    """The constants that a model file records; {} if there is no such file."""
    try:
        _, metadata = layers_and_metadata(path)
    except GLRError:  # none, or damaged
        return {}
    recorded = metadata.get("constants")
    return recorded if isinstance(recorded, dict) else {}


def finished_note(constants: SimpleNamespace) -> str:
    """That the run of this name is finished, and so cannot go on; nothing if it is not."""
    steps = constants_in(run_path(constants)).get("STEPS")
    note = f"the run of {steps} steps there is finished, and this is another, which "
    return note if steps else ""


def chance_note(run: Run) -> str:
    """What to try where the network is no better than one answer to all, to the binomial error."""
    data, row = run.data, run.state.history[-1]
    n, counts = len(data.y_test), np.bincount(data.y_test)
    share = counts.max() / n
    if row.test_accuracy > share + math.sqrt(share * (1 - share) / n):
        return ""
    advice = "try more STEPS, another LEARNING_RATE, SIGMA near 1, features of standard deviation 1"
    if np.isnan(run.network.logits(data.x_test)).any():
        advice = "its outputs are NaN: look at ACTIVATION and SIGMA"
    most = class_name(data.classes, int(counts.argmax()))
    return f"note: no better than to say class {most} always ({100 * share:.2f} %); {advice}"


def keep_other_model(path: Path, wanted: dict) -> str:
    """Put a model that is not of the wanted constants, as recorded, aside; a line that it was."""
    earlier = constants_in(path)
    if not earlier or earlier == wanted:
        return ""
    changed = [name for name in wanted if earlier.get(name) != wanted[name]]
    place = set_aside(path)
    return (
        f"{path.name} was a model of other {', '.join(changed) or 'constants'}: it goes to "
        f"{place.name}; --name gives each its own\n"
    )


def recorded_constants(constants: SimpleNamespace) -> dict:
    """The script's constants as JSON can hold them; `own_code` has checksums of own functions."""
    recorded = {
        name: [name_of(v) for v in value] if isinstance(value, tuple) else name_of(value)
        for name, value in vars(constants).items()
        if name not in NO_BEARING
    }
    own_code = {name: crc for name, v in vars(constants).items() if (crc := code_checksum(v))}
    return recorded | ({"own_code": own_code} if own_code else {})


@functools.cache  # a script may be edited while it runs: what it began with counts
def code_checksum(value: object) -> int:
    """A CRC-32 of the source of a function, or of a noise law's; 0 if it is glr's, or has none."""
    parts = (value.draw, value.cdf, value.pdf) if isinstance(value, NoiseLaw) else (value,)
    functions = [part for part in parts if isinstance(part, FunctionType)]
    own = [inspect.getsource(f) for f in functions if not f.__module__.startswith("glr.")]
    return zlib.crc32("".join(own).encode())


def run_metadata(run: Run) -> dict:
    """All that is needed to know, and to retrain, what the weights are."""
    constants, network, last = run.constants, run.network, run.state.history[-1]
    where = evaluated_on(constants)
    return {
        "script": constants.SCRIPT,
        "dataset": dataset_label(constants.DATASET),
        "sizes": network.sizes,
        "activation": name_of(network.activation),
        "loss": name_of(constants.LOSS),
        "constants": recorded_constants(constants),
        "training data": run.origin["training data"],
        **({"classes": run.data.classes} if run.data.classes else {}),
        **({"retuned": run.state.retuned} if run.state.retuned else {}),
        "metrics": {
            f"{where}_accuracy": last.test_accuracy,
            f"{where}_loss": last.test_loss,
            "train_loss": last.train_loss,
            "seconds": round(last.seconds, 3),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: sys.modules[name].__version__ for name in USED if USED[name] in sys.modules},
        },
    }


def write_history(path: Path, history: list[Evaluation], where: str) -> None:
    """The learning curve as CSV, a column for each field of Evaluation; `where` replaces "test"."""
    rows = [[str(row.step), *(f"{figure:.6g}" for figure in row[1:])] for row in history]
    header = [field.replace("test", where) for field in Evaluation._fields]
    text = "".join(f"{','.join(row)}\n" for row in (header, *rows))
    write_whole(path, lambda file: file.write(text.encode()))
