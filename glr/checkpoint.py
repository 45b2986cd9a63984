"""An unfinished run on disk, from which training continues bit for bit.

A checkpoint is one .npz without pickle: `parameters`, the optimizer's arrays (`optimizer_…`),
the state of the noise generators (`noise_…`), `risks`, `history`, and `metadata`, a JSON string
of step, seconds, the run's constants and a fingerprint of its training data. The order of the
minibatches is not in it: it follows from the seed.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

from glr.data import Dataset
from glr.errors import GLRError
from glr.files import write_whole
from glr.npz import json_object, npz_arrays
from glr.optimizers import Optimizer, State
from glr.training import Evaluation, Run

MAX_BYTES = 2**32  # of a checkpoint's arrays together
RETUNABLE = ("LEARNING_RATE", "SIGMA")  # what a run that diverged may be continued with
NAMES = r"metadata|parameters|risks|history|(optimizer|noise)_\w+"
ADVICE = "delete it and start anew"


def fingerprint(data: Dataset) -> int:
    """A CRC-32 of the training samples, which tells other data from the run's own."""
    return zlib.crc32(data.y_train, zlib.crc32(np.ascontiguousarray(data.x_train)))


def save_checkpoint(path: Path, run: Run, origin: dict) -> None:
    """Write the run's state to `path`, whole or not at all.

    origin : what must be the same when the run is continued, as JSON can hold it.
    """
    arrays = {f"optimizer_{name}": array for name, array in run.optimizer_state.items()}
    arrays |= {f"noise_{name}": array for name, array in run.estimator.state().items()}
    if run.history:
        arrays["history"] = np.array(run.history, np.float64)
    if run.risks:
        arrays["risks"] = np.array(run.risks, np.float64)
    place = {"step": run.step, "seconds": run.seconds, "retuned": run.retuned, "origin": origin}
    arrays |= {"parameters": run.network.parameters, "metadata": np.array(json.dumps(place))}
    write_whole(path, lambda file: np.savez(file, **arrays))


def restore_checkpoint(path: Path, run: Run, origin: dict, optimizer: Optimizer) -> None:
    """Bring a new run to the state in `path`, and note in run.retuned what is not as it was.

    Raises GLRError, and leaves the run as it is, if the file is damaged, or if it belongs to a
    run of other constants or data.
    """
    arrays = npz_arrays(path, "checkpoint", NAMES, MAX_BYTES, ADVICE)
    metadata = json_object(path, arrays.get("metadata", np.array("")), ADVICE)
    step, seconds = metadata.get("step"), metadata.get("seconds")
    retuned = metadata.get("retuned")
    if (type(step), type(seconds), type(retuned)) != (int, float, list) or step < 1:
        raise GLRError(f"{path}: its step, {step!r}, or what follows it is none; {ADVICE}")
    was = changed_constants(path, metadata.get("origin"), origin)
    optimizer_state: State = {}
    zeros = np.zeros_like(run.network.parameters)
    optimizer(zeros, zeros, 0.0, optimizer_state)  # tells which arrays there must be
    wanted = {f"optimizer_{name}": array for name, array in optimizer_state.items()}
    wanted |= {f"noise_{name}": array for name, array in run.estimator.state().items()}
    wanted["parameters"] = zeros
    check_arrays(path, arrays, wanted)
    history, risks = history_rows(path, arrays), arrays.get("risks", np.empty(0))

    run.network.parameters[:] = arrays["parameters"]
    run.optimizer_state = {name: arrays[f"optimizer_{name}"] for name in optimizer_state}
    noise = {name: arrays[f"noise_{name}"] for name in run.estimator.state()}
    run.estimator.restore(noise)
    run.step, run.seconds = step, seconds
    run.retuned = [*retuned, {"after_step": step, "was": was}] if was else retuned
    run.history, run.risks = history, risks.ravel().tolist()


def changed_constants(path: Path, found: object, wanted: dict) -> dict:
    """What the checkpoint's origin has of the RETUNABLE constants, where the wanted one differs.

    Raises GLRError, naming it, if anything else differs.
    """
    if not isinstance(found, dict):
        raise GLRError(f"{path}: does not say which run it belongs to; {ADVICE}")
    wanted = json.loads(json.dumps(wanted))
    changed = [name for name in wanted if found.get(name) != wanted[name]]
    for name in changed:
        if name not in RETUNABLE:
            raise GLRError(
                f"{path}: belongs to a run of {name} = {found.get(name)}, not {wanted[name]}; "
                "give that, or leave out --resume to start anew"
            )
    return {name: found.get(name) for name in changed}


def check_arrays(path: Path, arrays: State, wanted: State) -> None:
    """Raise GLRError unless every wanted array is there, of its shape and type, and finite."""
    for name, like in wanted.items():
        found = arrays.get(name)
        if found is None or (found.shape, found.dtype) != (like.shape, like.dtype):
            raise GLRError(f"{path}: {name} is missing or does not fit the network; {ADVICE}")
        if not np.isfinite(found).all():
            raise GLRError(f"{path}: {name} holds numbers that are not finite; {ADVICE}")


def history_rows(path: Path, arrays: State) -> list[Evaluation]:
    """The evaluations in `history`, (n, fields); none if there is no such array."""
    if "history" not in arrays:
        return []
    table = arrays["history"]
    if table.ndim != 2 or table.shape[1] != len(Evaluation._fields):
        raise GLRError(f"{path}: its history has shape {table.shape}; {ADVICE}")
    return [Evaluation(int(step), *row) for step, *row in table.tolist()]
