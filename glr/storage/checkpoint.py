"""An unfinished run on disk, from which training continues bit for bit.

One .npz without pickle: the arrays of State.arrays, and as `metadata` a JSON string of step,
seconds, the run's constants and a fingerprint of its training data. The order of the minibatches is
not in it: it follows from the seed.
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
from glr.storage.npz import load_arrays, refusals, save_arrays

MAX_BYTES = 2**32  # of a checkpoint's arrays together
RETUNABLE = ("LEARNING_RATE", "SIGMA")  # what a run that diverged may be continued with
NAMES, PREFIX = "parameters|rng|risks|history|perturbation|optimizer_.+", "optimizer_"
KIND, ADVICE = "checkpoint", "leave out --resume to start anew"


class Evaluation(NamedTuple):
    """A row of the learning curve: test figures are noise-free; train_loss is NaN at step 0."""

    step: int
    epoch: float
    seconds: float
    train_loss: float
    test_loss: float
    test_accuracy: float


@dataclass
class State:
    """All that training changes; with the seed, all that a run needs to be continued."""

    parameters: Array
    rng: np.random.Generator  # SFC64, of the noise
    optimizer: dict[str, np.ndarray] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0  # of the steps, evaluations not counted
    risks: list[float] = field(default_factory=list)  # mean losses since the last evaluation
    history: list[Evaluation] = field(default_factory=list)
    perturbation: Array | None = None  # of adversarial training, (B, n_in)
    retuned: list[dict] = field(default_factory=list)  # after which steps, from what constants

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of a checkpoint, under their names in the file, which holds no empty ones."""
        found = {"parameters": self.parameters, "rng": generator_words(self.rng)}
        found |= {PREFIX + name: array for name, array in self.optimizer.items()}
        for name, rows in (("history", self.history), ("risks", self.risks)):
            if rows:
                found[name] = np.array(rows, np.float64)
        return found | ({} if self.perturbation is None else {"perturbation": self.perturbation})


def save_checkpoint(path: Path, state: State, origin: dict) -> None:
    """Write the state to `path`; origin, as JSON can hold it, must be the same to continue it."""
    place = {"step": state.step, "seconds": state.seconds, "retuned": state.retuned}
    save_arrays(path, place | {"origin": origin}, state.arrays())


def restore_checkpoint(path: Path, state: State, origin: dict, optimizer: Optimizer) -> dict:
    """Bring a new state to that in `path`; return the RETUNABLE constants that were others then.

    Raises GLRError, and leaves the state as it is, if the file is damaged, or if it belongs to a
    run of other constants or data.
    """
    arrays, place = load_arrays(path, KIND, NAMES, MAX_BYTES, ADVICE)
    with refusals(path, KIND, ADVICE):
        check_place(place)
        was = changed_constants(place["origin"], origin)
        like = state_like(state, place["step"], origin, optimizer)
        check_arrays(arrays, like.arrays())

    state.parameters[:] = arrays["parameters"]
    set_generator_words(state.rng, arrays["rng"])
    state.perturbation = arrays.get("perturbation")
    state.optimizer.update((name, arrays[PREFIX + name]) for name in like.optimizer)
    state.step, state.seconds, state.retuned = (place[n] for n in ("step", "seconds", "retuned"))
    state.retuned += [{"after_step": state.step, "was": was}] if was else []
    rows = arrays["history"].tolist() if like.history else []
    state.history = [Evaluation(int(at), *row) for at, *row in rows]
    state.risks = arrays["risks"].tolist() if like.risks else []
    return was


def check_place(place: dict) -> None:
    """Raise GLRError unless the metadata say where the run stood, and which it is."""
    kinds = {"step": int, "seconds": float, "retuned": list, "origin": dict}
    is_there = all(type(place.get(name)) is kind for name, kind in kinds.items())
    if not is_there or place["step"] < 1 or not all(type(one) is dict for one in place["retuned"]):
        raise GLRError("does not say after which step of which run it was saved")


def state_like(state: State, step: int, origin: dict, optimizer: Optimizer) -> State:
    """A state of the form that a run of this origin has after so many steps, of zeros otherwise."""
    steps, every, zeros = origin["STEPS"], origin["EVAL_EVERY"], np.zeros_like(state.parameters)
    if step > steps:
        raise GLRError(f"is of step {step}, and the run of {steps} steps")
    like = State(zeros, state.rng, perturbation=state.perturbation)
    optimizer(zeros, zeros, 0.0, like.optimizer)  # tells which arrays it keeps
    evaluated = [at for at in range(step + 1) if at % every == 0 or at == steps]
    like.history = [Evaluation(at, 0, 0, 0, 0, 0) for at in evaluated]
    like.risks = [0.0] * (step - max(evaluated))
    return like


def changed_constants(found: dict, wanted: dict) -> dict:
    """The RETUNABLE constants of the checkpoint's origin that differ; GLRError if others do."""
    wanted = json.loads(json.dumps(wanted))
    changed = {name: found.get(name) for name in wanted if found.get(name) != wanted[name]}
    for name in (name for name in changed if name not in RETUNABLE):
        its = textwrap.shorten(str(changed[name]), 80)  # one line, whatever the file says
        raise GLRError(f"belongs to a run of {name} = {its}, not {wanted[name]}")
    return changed


def check_arrays(arrays: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Raise GLRError unless the arrays are of the names, shapes and types wanted, and finite."""
    for name in arrays.keys() - wanted.keys():
        raise GLRError(f"{name} is of another run")
    for name, like in wanted.items():
        found = arrays[name]
        if (found.shape, found.dtype) != (like.shape, like.dtype):
            raise GLRError(f"{name} does not fit the run")
        # Of the history, the steps alone: a loss of the test set may overflow.
        is_right = found[:, 0] == like[:, 0] if name == "history" else np.isfinite(found)
        if not is_right.all():
            raise GLRError(f"{name} holds numbers that are not finite, or of no such run")


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
