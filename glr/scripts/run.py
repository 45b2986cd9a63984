"""One run of a training script: all that surrounds its loop.

run = start(globals())                 # constants, data, network, optimizer; or a saved state
for x, y in run.minibatches():         # progress, evaluations, checkpoints, Ctrl-C
    run.descend(gradient(run.layers, x, y, …))
run.save()                             # weights, learning curve, picture
"""

from __future__ import annotations

import glob
import math
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from glr.checks import check_law
from glr.data import datasets
from glr.data.datasets import Dataset, hold_out, load_dataset
from glr.errors import DivergenceError, GLRError, StoppedError
from glr.losses import losses_of
from glr.network import Array, Layer, accuracy, layer_views, n_parameters, new_network
from glr.noise import LAWS
from glr.scripts.adversarial import first_perturbation, moved
from glr.scripts.console import progress_bar, stop_signals
from glr.scripts.constants import as_typed, script_constants
from glr.scripts.machine import prepare_for_small_arrays
from glr.scripts.records import finished_note, reached, recorded_constants, run_files, save_run
from glr.storage.checkpoint import Evaluation, State, restore_checkpoint, save_checkpoint
from glr.storage.files import check_writable, place_aside, set_aside
from glr.storage.models import MAX_BYTES
from glr.storage.npz import MAX_ARRAYS

if TYPE_CHECKING:
    from tqdm import tqdm

    from glr.estimator import Estimate
    from glr.scripts.backpropagation import Backpropagated

LEG_SECONDS = 0.2  # of steps that are taken in one call: a signal waits no longer


def start(script: dict[str, object]) -> Run:
    """The run of a script (its `globals()`, which take the command line's values), ready to go on.

    Raises GLRError for a bad constant, data that cannot be used, a folder that cannot be written,
    or a damaged checkpoint.
    """
    constants = script_constants(script)
    script.update((name, value) for name, value in vars(constants).items() if name in script)
    return new_run(constants)


def new_run(constants: SimpleNamespace) -> Run:
    """The run that the constants describe, as `start`."""
    prepare_for_small_arrays()
    if getattr(constants, "BACKEND", "numpy") == "jax":
        by_jax().prepare(constants)
    if getattr(constants, "NOISE", LAWS[0]) not in LAWS:  # a law of your own
        check_law(constants.NOISE, run_generator(constants.SEED))
    run = Run(constants, load_data(constants))
    if note := datasets.scale_note(run.data):
        print(note, file=sys.stderr)
    for path in run_files(constants):
        check_writable(path)
    run.resume()
    return run


class Run:
    """A network in training.

    layers : of the network, views that change with every step
    rng : of the noise; --resume continues it
    state : all that training changes; origin : what must be the same when it is continued
    """

    def __init__(self, constants: SimpleNamespace, data: Dataset) -> None:
        """Make the network, before its first step."""
        self.constants, self.data = constants, data
        self._batch_rng = run_generator(constants.SEED)
        functions = constants.ACTIVATION, self._batch_rng, constants.INITIAL_SCALE
        self.network = new_network(layer_sizes(data, constants.HIDDEN), *functions)
        self.layers = self.network.layers
        (self.rng,) = self._batch_rng.spawn(1)
        self.state = State(self.network.parameters, self.rng)
        self.state.perturbation = first_perturbation(constants, data)
        self.origin = {**recorded_constants(constants), "training data": datasets.fingerprint(data)}
        self.is_centralised = constants.CENTRALISED_GRADIENT and data.are_pixels
        *_, self._checkpoint = run_files(constants)
        self._is_kept = False  # whether the checkpoint that is there is this run's
        self._slope = np.empty_like(self.network.parameters)
        self._slopes = layer_views(self._slope, self.network.sizes)

    def minibatches(self) -> Iterator[tuple[Array, np.ndarray]]:
        """Inputs x (B, n_in) and labels y (B,) of each step; StoppedError after a signal."""
        x, y = self.data.x_train, self.data.y_train
        for (rows,) in self.legs(most=1):
            eta = self.state.perturbation
            yield x[rows] if eta is None else np.clip(x[rows] + eta, 0, 1), y[rows]

    def take_steps_by_jax(self) -> None:
        """Take all steps that are left, many in a call; raises as `minibatches` and `descend`."""
        by_jax().take_all_steps(self)

    def legs(self, most: int) -> Iterator[np.ndarray]:
        """Rows (S, B) of the minibatches of the next S steps, which are taken before the next leg.

        S ≤ most, for LEG_SECONDS or so. Between legs: evaluations every EVAL_EVERY steps,
        checkpoints every CHECKPOINT_EVERY, progress, signals. Before the first, an evaluation.
        """
        c, state, at_once = self.constants, self.state, 1
        batches = minibatches(len(self.data.y_train), c.BATCH_SIZE, self._batch_rng)
        if state.perturbation is not None:
            batches = (rows for rows in batches for _ in range(c.REPLAYS))
        batches = islice(batches, state.step, None)
        if not state.history:
            self.evaluate()  # as it is at step 0
        try:
            counts = {"total": c.STEPS, "initial": state.step}
            with stop_signals(self.earlier_state_note) as signals, progress_bar(**counts) as bar:
                while state.step < c.STEPS:
                    begun, before = time.perf_counter(), state.step
                    rows = np.array(list(islice(batches, min(at_once, steps_to_pause(c, before)))))
                    yield rows
                    if state.step != before + len(rows):
                        raise GLRError("call run.descend(…) once for each minibatch")
                    state.seconds += (seconds := time.perf_counter() - begun)
                    at_once = max(1, min(most, int(len(rows) * LEG_SECONDS / seconds)))
                    if state.step == c.STEPS or state.step % c.EVAL_EVERY == 0:
                        self.evaluate()
                        show(self, bar)
                    bar.update(len(rows))
                    self.pause(signals)
        except OSError:  # of its output
            if self._is_kept:
                print(self.earlier_state_note(), file=sys.stderr)
            raise

    def descend(self, gradient: Estimate | Backpropagated) -> None:
        """Take the optimizer's step with weight decay; DivergenceError for what is not finite."""
        c, state = self.constants, self.state
        state.step += 1
        if (eta := state.perturbation) is not None:
            state.perturbation = moved(eta, gradient.inputs, c.ADVERSARIAL_EPSILON)
        with np.errstate(over="ignore", invalid="ignore"):  # check_finite sees to it
            self.write_slope(gradient.layers)
            rate = c.LEARNING_RATE * checked_factor(c, state.step - 1)
            returned = c.OPTIMIZER(state.parameters, self._slope, rate, state.optimizer)
            check_optimizer(returned, state.optimizer)
            self.check_finite(gradient.risk)
        state.risks.append(gradient.risk)

    def write_slope(self, gradient: list[Layer]) -> None:
        """Write what the optimizer descends: ∂W + WEIGHT_DECAY·W, ∂W centralised if so; ∂b."""
        for slope, found, layer in zip(self._slopes, gradient, self.layers, strict=True):
            np.multiply(layer.W, np.float32(self.constants.WEIGHT_DECAY), out=slope.W)
            np.add(slope.W, found.W, out=slope.W)
            slope.b[:] = found.b
        if self.is_centralised:
            first = self._slopes[0].W
            first -= gradient[0].W.mean(axis=0)

    def check_finite(self, risk: float) -> None:
        """Raise DivergenceError unless the minibatch's mean loss and all weights are finite."""
        step, parameters, is_finite = self.state.step, self.state.parameters, math.isfinite(risk)
        if is_finite and math.isfinite(parameters @ parameters):  # faster than looking at each
            return
        what = "the weights overflow" if is_finite else f"the loss is {risk}"
        advice = "lower LEARNING_RATE, or raise SIGMA (the estimate's variance falls as 1/σ²)"
        if step == 1 and (not is_finite or np.isnan(parameters).any()):  # by no learning rate
            what = what if not is_finite else "the gradient is NaN"
            advice = "look at LOSS, ACTIVATION, NOISE, SIGMA"
        kept = f". An earlier state is in {self._checkpoint}" if self._is_kept else ""
        raise DivergenceError(f"step {step}: {what}; {advice}{kept}")

    def evaluate(self) -> None:
        """Add the network's figures on the test set, noise-free, to the history."""
        c, state, y, n = self.constants, self.state, self.data.y_test, len(self.data.y_train)
        epoch = state.step * min(c.BATCH_SIZE, n) / n
        output = self.network.logits(self.data.x_test)
        test_loss = float(losses_of(c.LOSS, output.T, y).mean())
        train_loss = float(np.mean(state.risks)) if state.risks else math.nan  # before all steps
        figures = train_loss, test_loss, accuracy(output, y)
        state.history.append(Evaluation(state.step, epoch, state.seconds, *figures))
        state.risks.clear()

    def pause(self, signals: list[int]) -> None:
        """Save the state if that is due, or a signal asks to stop: then raise StoppedError."""
        c, step = self.constants, self.state.step
        if signals or step == c.STEPS or step % c.CHECKPOINT_EVERY == 0:
            if not self._is_kept:
                set_aside(self._checkpoint)
            save_checkpoint(self._checkpoint, self.state, self.origin)
            self._is_kept = True
        if signals:
            raise StoppedError(self.stop_note(), signals[0])

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one, and RESUME does not forbid it; say so."""
        c, path = self.constants, self._checkpoint
        if path.exists() and c.RESUME is not False:
            was = restore_checkpoint(path, self.state, self.origin, c.OPTIMIZER)
            self._is_kept = True
            other = f" with other {', '.join(was)}" if was else ""
            note = f"continues after step {self.state.step}, saved in {path}{other}"
        elif path.exists():
            note = f"starts anew; --resume would continue the unfinished run in {path}, "
            note += f"which goes to {place_aside(path).name}"
        elif c.RESUME:
            begins = f"{finished_note(c)}starts at step 1{aside_note(path)}"
            note = f"nothing to resume at {path}: {begins}"
        else:
            return
        print(note, file=sys.stderr)

    def earlier_state_note(self) -> str:
        """Where the last saved state is, if there is one."""
        if not self._is_kept:
            return ""
        return f"an earlier state is in {self._checkpoint}; {self.how_to_go_on()} continues it"

    def stop_note(self) -> str:
        """Where the run stands, and how to go on with it."""
        c, state, figures = self.constants, self.state, ""
        for row in state.history[1:][-1:]:  # none of the network as it began
            figures = f", {reached(c, row)} at step {row.step}"
        at = f"stopped after step {state.step} of {c.STEPS}{figures}"
        return f"{at}; {self.how_to_go_on()} continues from {self._checkpoint}"

    def how_to_go_on(self) -> str:
        """The command that continues the run, in words."""
        return "the same command" + (" with --resume" if self.constants.RESUME is False else "")

    def save(self) -> None:
        """Write the model, its history and its learning curve, and say what was reached."""
        try:
            if not self.state.history or self.state.history[-1].step != self.state.step:
                self.evaluate()  # after a break out of the loop
            save_run(self)
        except KeyboardInterrupt as interrupt:
            model, *_ = run_files(self.constants)
            is_done = self._is_kept and not self._checkpoint.exists()
            note = f"{model} is written" if is_done else self.earlier_state_note()
            raise KeyboardInterrupt(note) from interrupt


def aside_note(checkpoint: Path) -> str:
    """The newest state of its name that was put aside, and how to continue it; else nothing."""
    aside = [*checkpoint.parent.glob(f"{glob.escape(checkpoint.name)}.old*")]
    if not aside:
        return ""
    newest = max(aside, key=lambda path: path.stat().st_mtime)
    return f"; to continue {newest.name}, which was put aside, rename it to {checkpoint.name}"


def by_jax() -> ModuleType:
    """glr.scripts.by_jax; GLRError where JAX is not installed, or refuses its settings."""
    try:
        from glr.scripts import by_jax  # noqa: PLC0415  (no requirement)
    except (ImportError, OSError, RuntimeError, ValueError) as error:  # of a broken one, too
        advice = "pip install -r requirements-jax.txt, or take another BACKEND"
        raise GLRError(f'BACKEND = "jax": cannot import JAX ({error}); {advice}') from error
    return by_jax


def steps_to_pause(constants: SimpleNamespace, step: int) -> int:
    """How many steps there are from a step to the next evaluation, checkpoint, or the end."""
    c = constants
    return min(c.STEPS - step, *(n - step % n for n in (c.EVAL_EVERY, c.CHECKPOINT_EVERY)))


def run_generator(seed: int) -> np.random.Generator:
    """The one generator of a run. SFC64 is the fastest of NumPy's, and random numbers the bill."""
    return np.random.Generator(np.random.SFC64(seed))


def load_data(constants: SimpleNamespace) -> Dataset:
    """The data set that the constants name; VALIDATION samples, by SEED, as its test set."""
    data = load_dataset(constants.OWN_DATA or constants.DATASET, constants.DATA_DIR)
    if constants.VALIDATION:
        data = hold_out(data, constants.VALIDATION, run_generator(constants.SEED))
    return data


def layer_sizes(data: Dataset, hidden: tuple[int, ...]) -> list[int]:
    """Sizes of all layers, input to classes; GLRError for more than a model file may hold."""
    sizes = [data.x_train.shape[1], *hidden, datasets.n_classes(data)]
    if 2 * len(sizes) > MAX_ARRAYS:  # W and b of each layer, and the metadata
        raise GLRError(f"HIDDEN: {len(hidden)} layers are too many for a model file; use fewer")
    n, most = n_parameters(sizes), MAX_BYTES // 4  # bytes of a float32
    if n > most:
        given = f"HIDDEN = {as_typed(hidden)}"
        raise GLRError(f"{given}: {n} weights, more than {most}; use fewer neurons")
    return sizes


def minibatches(n: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of whole minibatches, without end: a new permutation of n samples every epoch."""
    size = min(size, n)
    while True:
        order = rng.permutation(n)
        for start in range(0, n - size + 1, size):
            yield order[start : start + size]


def checked_factor(constants: SimpleNamespace, step: int) -> float:
    """What the schedule multiplies the learning rate by; GLRError for what is no finite number."""
    factor = constants.SCHEDULE(step, constants.STEPS)
    if isinstance(factor, (int, float, np.number)) and math.isfinite(factor):
        return factor
    raise GLRError(f"SCHEDULE: gave {factor!r} for step {step}; it must give a finite number")


def check_optimizer(returned: object, state: dict[str, object]) -> None:
    """Raise GLRError unless the optimizer returned nothing, and its state can be stored."""
    if returned is not None:
        how = "it must change the parameters in place, as parameters -= …, and return nothing"
        raise GLRError(f"OPTIMIZER: returned something; {how}")
    for key, value in state.items():
        if not (isinstance(value, np.ndarray) and value.dtype.kind in "fiu"):
            wrong = f"OPTIMIZER: {key} of its state is no array, and could not be stored"
            raise GLRError(f"{wrong}; keep np.zeros(()) for a number, and change it in place")


def show(run: Run, bar: tqdm) -> None:
    """Print the last evaluation, above the bar if there is one."""
    row, c = run.state.history[-1], run.constants
    figures = f"loss {row.train_loss:.4f}, {reached(c, row)}"
    with bar.external_write_mode():
        print(f"step {row.step}/{c.STEPS}  {figures}  {row.seconds:.1f} s", flush=True)
