"""One run of a training script: data and constants in, progress shown, a trained network out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from glr.backpropagation import TrainingNoise, backpropagation_estimator
from glr.checkpoint import restore_checkpoint, save_checkpoint
from glr.console import stop_signals
from glr.constants import as_typed, name_of
from glr.data import Dataset, fingerprint, hold_out, load_dataset, n_classes
from glr.errors import DivergenceError, GLRError, StoppedError
from glr.estimator import glr_estimator
from glr.files import check_writable, place_aside, set_aside
from glr.losses import cross_entropy
from glr.machine import prepare_for_small_arrays
from glr.models import MAX_BYTES
from glr.network import Network, n_parameters, new_network, threshold
from glr.noise import LAWS, check_law
from glr.npz import MAX_ARRAYS
from glr.passes import GLR
from glr.records import checkpoint_path, evaluated_on, recorded_constants, run_files
from glr.training import Evaluation, Plan, Run, TakeSteps, train


def run_generator(seed: int) -> np.random.Generator:
    """The one generator of a run. SFC64 is the fastest of NumPy's, and random numbers the bill."""
    return np.random.Generator(np.random.SFC64(seed))


def load_data(constants: SimpleNamespace) -> Dataset:
    """The data set that the constants name; VALIDATION training samples take the test set's place.

    The held-out samples depend on SEED alone.
    """
    data = load_dataset(constants.DATASET, constants.DATA_DIR)
    if constants.VALIDATION:
        data = hold_out(data, constants.VALIDATION, run_generator(constants.SEED))
    return data


def layer_sigmas(sigma: tuple[float, ...], n_layers: int) -> tuple[float, ...]:
    """One σ per layer from SIGMA: one number for all, two for hidden and output, or one each."""
    if len(sigma) == n_layers:
        return sigma
    if len(sigma) == 1:
        return sigma * n_layers
    if len(sigma) == 2:
        return (sigma[0],) * (n_layers - 1) + (sigma[1],)
    listed = "1 or 2" if n_layers == 2 else f"1, 2 or {n_layers}"
    raise GLRError(f"SIGMA has {len(sigma)} numbers for {n_layers} layers; give {listed}")


def glr_method(constants: SimpleNamespace) -> GLR:
    """The estimator that the constants describe."""
    c = constants
    has_layer_not_local = not c.LOCAL_DIFFERENCES or (len(c.HIDDEN) > 1 and c.REDRAWS == 0)
    has_control_variate = c.CONTROL_VARIATE and has_layer_not_local
    if c.REPLICATES < 2 and (has_control_variate or c.STANDARDISED_LOSS):
        raise GLRError(
            f"REPLICATES = {c.REPLICATES}: the control variate and the standardised loss compare "
            "replicates; use 2 or more, or switch both off"
        )
    if min(c.SIGMA) <= 0:
        raise GLRError(f"SIGMA = {as_typed(c.SIGMA)}: GLR needs noise in every layer; use σ > 0")
    if c.CONDITIONAL_SCORE and c.ACTIVATION is not threshold:
        raise GLRError("CONDITIONAL_SCORE = True: is for ACTIVATION = threshold; set it to False")
    if c.CONDITIONAL_SCORE and (c.NOISE.cdf is None or c.NOISE.score_gap is None):
        raise GLRError("CONDITIONAL_SCORE = True: NOISE has no cdf and score_gap; set it to False")
    if c.NOISE not in LAWS:
        check_law(c.NOISE, run_generator(c.SEED), needs_cdf=c.CONDITIONAL_SCORE)
    glr = GLR(
        activation=c.ACTIVATION,
        loss=c.LOSS,
        sigma=layer_sigmas(c.SIGMA, len(c.HIDDEN) + 1),
        noise=c.NOISE,
        perturb=c.PERTURB,
        replicates=c.REPLICATES,
        output_draws=c.OUTPUT_DRAWS,
        control_variate=c.CONTROL_VARIATE,
        conditional_score=c.CONDITIONAL_SCORE,
        standardised_loss=c.STANDARDISED_LOSS,
        local_differences=c.LOCAL_DIFFERENCES,
        redraws=c.REDRAWS,
        layerwise=c.LAYERWISE,
    )
    return compiled_method(glr) if c.COMPILED else glr


def compiled_method(glr: GLR) -> GLR:
    """The method with steps compiled by Numba; GLRError without Numba, or if it is not covered."""
    try:
        from glr import compiled, compiled_training  # noqa: PLC0415  (no requirement)
    except (ImportError, RuntimeError) as error:  # RuntimeError: no folder for Numba's cache
        raise GLRError(
            f"COMPILED = True: cannot use Numba ({error}); pip install numba, "
            "give it a folder by NUMBA_CACHE_DIR, or set it to False"
        ) from error
    prepare_for_small_arrays()  # of SciPy's BLAS too, which has come with it
    functions = compiled.write_batch_sums, compiled_training.risks_of_steps
    if compiled.covers(glr) and not all(map(compiled.is_in_cache, functions)):
        print("compiling the step, this once: about a minute", file=sys.stderr)
    compiled.prepare(glr)
    compiled_training.prepare(glr)
    return replace(glr, gradient_of_group=compiled.gradient)


def plan_of(constants: SimpleNamespace) -> Plan:
    """How long and how fast to train."""
    return Plan(
        loss=constants.LOSS,
        optimizer=constants.OPTIMIZER,
        steps=constants.STEPS,
        batch_size=constants.BATCH_SIZE,
        learning_rate=constants.LEARNING_RATE,
        schedule=constants.SCHEDULE,
        weight_decay=constants.WEIGHT_DECAY,
        centralised=constants.CENTRALISED_GRADIENT,
        eval_every=constants.EVAL_EVERY,
        pause_every=constants.CHECKPOINT_EVERY,
        take_steps=compiled_steps(constants),
    )


def compiled_steps(constants: SimpleNamespace) -> TakeSteps | None:
    """What takes steps where they are compiled; else None."""
    if not getattr(constants, "COMPILED", False):  # a constant that BP.py has not
        return None
    from glr import compiled_training  # noqa: PLC0415  (no requirement)

    return compiled_training.take_steps


def train_by_glr(constants: SimpleNamespace) -> Run:
    """Train a network by GLR as the constants say, and show it."""
    prepare_for_small_arrays()
    glr, data = glr_method(constants), load_data(constants)
    print(depth_note(constants), end="", file=sys.stderr)
    rng = run_generator(constants.SEED)
    network = initial_network(data, constants, rng)
    return trained(Run(network, glr_estimator(glr, rng)), data, constants, rng)


def depth_note(constants: SimpleNamespace) -> str:
    """What the reader should know who trains several hidden layers with few passes."""
    c = constants
    if not c.LOCAL_DIFFERENCES or len(c.HIDDEN) < 2 or c.REDRAWS > 0 or c.REPLICATES >= 16:
        return ""
    return (
        f"REPLICATES = {c.REPLICATES} is few for several hidden layers: without REDRAWS only the "
        "last has differences; --redraws 16 gives the others a better gradient\n"
    )


def train_by_backpropagation(constants: SimpleNamespace) -> Run:
    """Train a network by backpropagation as the constants say, and show it."""
    if constants.LOSS is not cross_entropy:
        raise GLRError(f"LOSS = {name_of(constants.LOSS)}: BP.py differentiates cross_entropy only")
    prepare_for_small_arrays()
    data = load_data(constants)
    rng = run_generator(constants.SEED)
    network = initial_network(data, constants, rng)
    noise = training_noise(constants, rng)
    return trained(Run(network, backpropagation_estimator(network, noise)), data, constants, rng)


def training_noise(constants: SimpleNamespace, rng: np.random.Generator) -> TrainingNoise:
    """The noise that the constants describe, each layer's from a stream of its own."""
    sigma = layer_sigmas(constants.SIGMA, len(constants.HIDDEN) + 1)
    seeds = [int(stream.integers(2**31)) for stream in rng.spawn(len(sigma))]
    return TrainingNoise(sigma, seeds, constants.NOISE.name, constants.PERTURB)


def trained(run: Run, data: Dataset, constants: SimpleNamespace, rng: np.random.Generator) -> Run:
    """The run after its last step. It is shown, and kept in checkpoints on the way.

    Raises StoppedError at Ctrl-C, at the system's request to stop (SIGTERM), and when the
    terminal is closed (SIGHUP).
    """
    path, plan = checkpoint_path(constants), plan_of(constants)
    run.fingerprint = fingerprint(data)
    origin = {**recorded_constants(constants), "training data": run.fingerprint}
    for written in run_files(constants):
        check_writable(written)
    if path.exists() and constants.RESUME is not False:
        restore_checkpoint(path, run, origin, plan)
    print(start_note(path, run, constants), end="", file=sys.stderr)
    is_kept = run.step > 0
    try:
        with stop_signals() as signals:
            for _ in shown(train(run, data, plan, rng), run, constants):
                is_last = run.step == constants.STEPS
                if signals or is_last or run.step % constants.CHECKPOINT_EVERY == 0:
                    if not is_kept:
                        set_aside(path)
                    save_checkpoint(path, run, origin)
                    is_kept = True
                if signals:
                    raise StoppedError(stop_note(path, run, constants), signals[0])
    except (KeyboardInterrupt, BrokenPipeError):
        if is_kept:
            print(f"an earlier state is in {path}; --resume continues it", file=sys.stderr)
        raise
    except DivergenceError as error:
        kept = f". An earlier state is in {path}" if is_kept else ""
        raise DivergenceError(f"{error}{kept}") from error
    return run


def start_note(path: Path, run: Run, constants: SimpleNamespace) -> str:
    """What the reader should know of a checkpoint that is, or is not, at `path`; else nothing."""
    if run.step:
        new = run.retuned and run.retuned[-1]["after_step"] == run.step
        other = f" with other {', '.join(run.retuned[-1]['was'])}" if new else ""
        return f"continues after step {run.step}, saved in {path}{other}\n"
    if constants.RESUME:
        return f"nothing to resume at {path}: starts at step 1\n"
    if path.exists():
        return (
            f"starts anew; --resume would continue the unfinished run in {path}, which goes to "
            f"{place_aside(path).name}\n"
        )
    return ""


def stop_note(path: Path, run: Run, constants: SimpleNamespace) -> str:
    """Where the run stands, and how to go on with it."""
    figures = ""
    if run.history:
        last = run.history[-1]
        where, accuracy = evaluated_on(constants), 100 * last.test_accuracy
        figures = f", {where} accuracy {accuracy:.2f} % at step {last.step}"
    how = "the same command with --resume" if constants.RESUME is False else "the same command"
    return (
        f"stopped after step {run.step} of {constants.STEPS}{figures}; {how} continues from {path}"
    )


def initial_network(data: Dataset, constants: SimpleNamespace, rng: np.random.Generator) -> Network:
    """The network before the first step."""
    sizes = layer_sizes(data, constants.HIDDEN)
    return new_network(sizes, constants.ACTIVATION, rng, constants.INITIAL_SCALE)


def layer_sizes(data: Dataset, hidden: tuple[int, ...]) -> list[int]:
    """The neurons of every layer, from the data's features to its classes.

    Raises GLRError for a network that no model file may hold.
    """
    sizes = [data.x_train.shape[1], *hidden, n_classes(data)]
    if 2 * len(sizes) > MAX_ARRAYS:  # W and b of each layer, and the metadata
        raise GLRError(f"HIDDEN: {len(hidden)} layers are too many for a model file; use fewer")
    n, most = n_parameters(sizes), MAX_BYTES // np.float32().itemsize
    if n > most:
        raise GLRError(
            f"HIDDEN = {as_typed(hidden)}: {n} weights, more than {most}; use fewer neurons"
        )
    return sizes


def shown(
    evaluations: Iterable[Evaluation | None], run: Run, constants: SimpleNamespace
) -> Iterator[Evaluation | None]:
    """Pass the evaluations on and show them: a bar on a terminal, plain lines elsewhere."""
    from tqdm import tqdm  # noqa: PLC0415  (after -h, which it would slow)

    with tqdm(
        total=constants.STEPS,
        initial=run.step,
        unit="step",
        desc=constants.NAME,
        disable=sys.stderr is None or not sys.stderr.isatty(),
    ) as bar:
        for row in evaluations:
            if row is not None:
                figures = (
                    f"loss {row.train_loss:.4f}, "
                    f"{evaluated_on(constants)} accuracy {100 * row.test_accuracy:.2f} %"
                )
                bar.set_postfix_str(figures, refresh=False)
                if bar.disable:
                    where = f"step {row.step}/{constants.STEPS}"
                    print(f"{where}  {figures}  {row.seconds:.1f} s", flush=True)
            bar.update(run.step - bar.n)
            yield row
