"""An unfinished run on disk, from which training continues bit for bit.

A checkpoint is one .npz without pickle: `parameters`, the optimizer's arrays (`optimizer_…`),
the state of the noise generators (`noise_…`), `risks`, `history`, and `metadata`, a JSON string
of step, seconds, the run's constants and a fingerprint of its training data. The order of the
minibatches is not in it: it follows from the seed.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np

from glr.arrays import State
from glr.errors import GLRError
from glr.files import write_whole
from glr.npz import json_object, npz_arrays
from glr.optimizers import Optimizer
from glr.training import Evaluation, Plan, Run

MAX_BYTES = 2**32  # of a checkpoint's arrays together
RETUNABLE = ("LEARNING_RATE", "SIGMA")  # what a run that diverged may be continued with
NAMES = r"metadata|parameters|risks|history|(optimizer|noise)_\w+"
ADVICE = "delete it and start anew"


def prefixed(prefix: str, state: State) -> State:
    """The arrays under names that begin with `prefix`."""
    return {prefix + name: array for name, array in state.items()}


def stripped(prefix: str, arrays: State) -> State:
    """Those of the arrays whose names begin with `prefix`, without it."""
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def state_arrays(run: Run) -> State:
    """The arrays that every checkpoint of the run holds, under their names in the file."""
    return {
        "parameters": run.network.parameters,
        **prefixed("optimizer_", run.optimizer_state),
        **prefixed("noise_", run.estimator.state()),
    }


def save_checkpoint(path: Path, run: Run, origin: dict) -> None:
    """Write the run's state to `path`, whole or not at all.

    origin : what must be the same when the run is continued, as JSON can hold it.
    """
    arrays = state_arrays(run)
    if run.history:
        arrays["history"] = np.array(run.history, np.float64)
    if run.risks:
        arrays["risks"] = np.array(run.risks, np.float64)
    place = {"step": run.step, "seconds": run.seconds, "retuned": run.retuned, "origin": origin}
    text = np.array(json.dumps(place))
    write_whole(path, lambda file: np.savez(file, metadata=text, **arrays))


def restore_checkpoint(path: Path, run: Run, origin: dict, plan: Plan) -> None:
    """Bring a new run to the state in `path`, and note in run.retuned what is not as it was.

    Raises GLRError, and leaves the run as it is, if the file is damaged, or if it belongs to a
    run of other constants or data.
    """
    arrays = npz_arrays(path, "checkpoint", NAMES, MAX_BYTES, ADVICE)
    step, seconds, retuned, found_origin = place_in_run(path, arrays)
    was = changed_constants(path, found_origin, origin)
    check_arrays(path, arrays, expected_arrays(run, plan.optimizer))
    history, risks = history_and_risks(path, arrays, step, plan)

    run.network.parameters[:] = arrays["parameters"]
    run.optimizer_state = stripped("optimizer_", arrays)
    run.estimator.restore(stripped("noise_", arrays))
    run.step, run.seconds = step, seconds
    run.retuned = [*retuned, {"after_step": step, "was": was}] if was else retuned
    run.history, run.risks = history, risks


def place_in_run(path: Path, arrays: State) -> tuple[int, float, list, object]:
    """Step, seconds, earlier changes and origin in the metadata; GLRError if they are not there."""
    metadata = json_object(path, arrays.get("metadata", np.array("")), ADVICE)
    step, seconds, retuned = (metadata.get(name) for name in ("step", "seconds", "retuned"))
    is_right = (type(step), type(seconds), type(retuned)) == (int, float, list) and step >= 1
    if not is_right or not all(is_change(item) for item in retuned):
        raise GLRError(f"{path}: does not say after which step it was saved; {ADVICE}")
    return step, seconds, retuned, metadata.get("origin")


def is_change(item: object) -> bool:
    """Whether a piece of JSON is an item of Run.retuned."""
    return (
        isinstance(item, dict)
        and item.keys() == {"after_step", "was"}
        and isinstance(item["was"], dict)
    )


def expected_arrays(run: Run, optimizer: Optimizer) -> State:
    """Arrays of the names, shapes and types that a checkpoint of a run like this one holds."""
    zeros, optimizer_state = np.zeros_like(run.network.parameters), {}
    optimizer(zeros, zeros, 0.0, optimizer_state)  # tells which arrays it keeps
    return state_arrays(replace(run, optimizer_state=optimizer_state))


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
            its = textwrap.shorten(str(found.get(name)), 80)  # one line, whatever the file says
            raise GLRError(
                f"{path}: belongs to a run of {name} = {its}, not {wanted[name]}; "
                "give that, or leave out --resume to start anew"
            )
    return {name: found.get(name) for name in changed}


def check_arrays(path: Path, arrays: State, wanted: State) -> None:
    """Raise GLRError unless the arrays are those wanted, of their shapes and types, and finite."""
    unknown = arrays.keys() - wanted.keys() - {"metadata", "history", "risks"}
    if unknown:
        raise GLRError(f"{path}: {min(unknown)} is of another optimizer or estimator; {ADVICE}")
    for name, like in wanted.items():
        found = arrays.get(name)
        if found is None or (found.shape, found.dtype) != (like.shape, like.dtype):
            raise GLRError(f"{path}: {name} is missing or does not fit the network; {ADVICE}")
        if not np.isfinite(found).all():
            raise GLRError(f"{path}: {name} holds numbers that are not finite; {ADVICE}")


def history_and_risks(
    path: Path, arrays: State, step: int, plan: Plan
) -> tuple[list[Evaluation], list[float]]:
    """The evaluations in `history` (n, fields), and the mean losses since the last in `risks` (n,).

    Raises GLRError unless they are those of a run of this plan after so many steps.
    """
    table = arrays.get("history", np.empty((0, len(Evaluation._fields))))
    risks = arrays.get("risks", np.empty(0))
    last = step if step == plan.steps else step - step % plan.eval_every
    n_rows = -(-last // plan.eval_every)
    fits = table.shape == (n_rows, len(Evaluation._fields)) and risks.shape == (step - last,)
    if step > plan.steps or not fits or (n_rows and table[-1, 0] != last):
        raise GLRError(f"{path}: its history is not that of {step} steps; {ADVICE}")
    if not (np.isfinite(table[:, 0]).all() and np.isfinite(risks).all()):
        raise GLRError(f"{path}: its history holds numbers that are not finite; {ADVICE}")
    return [Evaluation(int(at), *row) for at, *row in table.tolist()], risks.tolist()
