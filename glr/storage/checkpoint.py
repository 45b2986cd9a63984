"""An unfinished run on disk, from which training continues bit for bit.

A checkpoint is one .npz without pickle: `parameters`, the optimizer's arrays (`optimizer_…`), the
generator's words (`rng`), `risks`, `history`, and `metadata`, a JSON string of step, seconds, the
run's constants and a fingerprint of its training data. The order of the minibatches is not in it:
it follows from the seed.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glr.errors import GLRError
from glr.network import Array
from glr.optimizers import Optimizer
from glr.storage.files import write_whole
from glr.storage.npz import json_object, npz_arrays

MAX_BYTES = 2**32  # of a checkpoint's arrays together
RETUNABLE = ("LEARNING_RATE", "SIGMA")  # what a run that diverged may be continued with
NAMES = r"metadata|parameters|rng|risks|history|optimizer_\w+"
ADVICE = "delete it and start anew"


class Evaluation(NamedTuple):
    """One row of the learning curve. Test figures are noise-free, of the data's test set."""

    step: int
    epoch: float
    seconds: float
    train_loss: float
    test_loss: float
    test_accuracy: float


@dataclass
class State:
    """All that training changes; with the seed, all that a run needs to be continued.

    rng : an SFC64 generator, of the noise
    optimizer : its arrays
    step, seconds : minibatch steps taken, and spent on them, evaluations not counted
    risks : the minibatches' mean losses since the last evaluation
    retuned : after which steps it was continued with other constants, and what they were before
    """

    parameters: Array
    rng: np.random.Generator
    optimizer: dict[str, np.ndarray] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0
    risks: list[float] = field(default_factory=list)
    history: list[Evaluation] = field(default_factory=list)
    retuned: list[dict] = field(default_factory=list)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that every checkpoint holds, under their names in the file."""
        optimizer = {f"optimizer_{name}": array for name, array in self.optimizer.items()}
        return {"parameters": self.parameters, "rng": generator_words(self.rng), **optimizer}


def save_checkpoint(path: Path, state: State, origin: dict) -> None:
    """Write the state to `path`, whole or not at all.

    origin : what must be the same when the run is continued, as JSON can hold it.
    """
    arrays = state.arrays()
    if state.history:
        arrays["history"] = np.array(state.history, np.float64)
    if state.risks:
        arrays["risks"] = np.array(state.risks, np.float64)
    place = {"step": state.step, "seconds": state.seconds, "retuned": state.retuned}
    text = np.array(json.dumps(place | {"origin": origin}))
    write_whole(path, lambda file: np.savez(file, metadata=text, **arrays))


def restore_checkpoint(path: Path, state: State, origin: dict, optimizer: Optimizer) -> None:
    """Bring a new state to that in `path`, and note in `retuned` what is not as it was.

    Raises GLRError, and leaves the state as it is, if the file is damaged, or if it belongs to a
    run of other constants or data.
    """
    arrays = npz_arrays(path, "checkpoint", NAMES, MAX_BYTES, ADVICE)
    step, seconds, retuned, found_origin = place_in_run(path, arrays)
    was = changed_constants(path, found_origin, origin)
    check_arrays(path, arrays, expected_arrays(state, optimizer))
    history, risks = history_and_risks(path, arrays, step, origin)

    state.parameters[:] = arrays["parameters"]
    set_generator_words(state.rng, arrays["rng"])
    prefix = "optimizer_"
    state.optimizer.update(
        (name.removeprefix(prefix), array)
        for name, array in arrays.items()
        if name.startswith(prefix)
    )
    state.step, state.seconds = step, seconds
    state.retuned = [*retuned, {"after_step": step, "was": was}] if was else retuned
    state.history, state.risks = history, risks


def place_in_run(path: Path, arrays: dict[str, np.ndarray]) -> tuple[int, float, list, object]:
    """Step, seconds, earlier changes and origin in the metadata; GLRError if they are not there."""
    metadata = json_object(path, arrays.get("metadata", np.array("")), ADVICE)
    step, seconds, retuned = (metadata.get(name) for name in ("step", "seconds", "retuned"))
    is_right = (type(step), type(seconds), type(retuned)) == (int, float, list) and step >= 1
    if not is_right or not all(is_change(item) for item in retuned):
        raise GLRError(f"{path}: does not say after which step it was saved; {ADVICE}")
    return step, seconds, retuned, metadata.get("origin")


def is_change(item: object) -> bool:
    """Whether a piece of JSON is an item of State.retuned."""
    return (
        isinstance(item, dict)
        and item.keys() == {"after_step", "was"}
        and isinstance(item["was"], dict)
    )


def expected_arrays(state: State, optimizer: Optimizer) -> dict[str, np.ndarray]:
    """Arrays of the names, shapes and types that a checkpoint of a run like this one holds."""
    zeros = np.zeros_like(state.parameters)
    own = State(zeros, state.rng)
    optimizer(zeros, zeros, 0.0, own.optimizer)  # tells which arrays it keeps
    return own.arrays()


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


def check_arrays(path: Path, arrays: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Raise GLRError unless the arrays are those wanted, of their shapes and types, and finite."""
    unknown = arrays.keys() - wanted.keys() - {"metadata", "history", "risks"}
    if unknown:
        raise GLRError(f"{path}: {min(unknown)} is of another optimizer; {ADVICE}")
    for name, like in wanted.items():
        found = arrays.get(name)
        if found is None or (found.shape, found.dtype) != (like.shape, like.dtype):
            raise GLRError(f"{path}: {name} is missing or does not fit the network; {ADVICE}")
        if not np.isfinite(found).all():
            raise GLRError(f"{path}: {name} holds numbers that are not finite; {ADVICE}")


def history_and_risks(
    path: Path, arrays: dict[str, np.ndarray], step: int, origin: dict
) -> tuple[list[Evaluation], list[float]]:
    """The evaluations in `history` (n, fields), and the mean losses since the last in `risks` (n,).

    Raises GLRError unless they are those of a run of this origin after so many steps.
    """
    steps, eval_every = origin["STEPS"], origin["EVAL_EVERY"]
    table = arrays.get("history", np.empty((0, len(Evaluation._fields))))
    risks = arrays.get("risks", np.empty(0))
    last = step if step == steps else step - step % eval_every
    n_rows = -(-last // eval_every)
    fits = table.shape == (n_rows, len(Evaluation._fields)) and risks.shape == (step - last,)
    if step > steps or not fits or (n_rows and table[-1, 0] != last):
        raise GLRError(f"{path}: its history is not that of {step} steps; {ADVICE}")
    if not (np.isfinite(table[:, 0]).all() and np.isfinite(risks).all()):
        raise GLRError(f"{path}: its history holds numbers that are not finite; {ADVICE}")
    return [Evaluation(int(at), *row) for at, *row in table.tolist()], risks.tolist()


def generator_words(rng: np.random.Generator) -> np.ndarray:
    """The state of an SFC64 generator as 6 uint64: its four words, and a spare half-word."""
    state = rng.bit_generator.state
    return np.array([*state["state"]["state"], state["has_uint32"], state["uinteger"]], np.uint64)


def set_generator_words(rng: np.random.Generator, words: np.ndarray) -> None:
    """Put an SFC64 generator into the state that generator_words gave, or that any 6 words say."""
    rng.bit_generator.state = {
        "bit_generator": "SFC64",
        "state": {"state": words[:4]},
        "has_uint32": int(words[4] > 0),
        "uinteger": int(words[5]) % 2**32,
    }
