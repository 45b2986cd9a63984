"""GLR beside other gradient estimators: precision per loss value and second, and accuracy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from glr import xla
from glr.data.datasets import Dataset, hold_out, load_dataset
from glr.network import Layer, accuracy, logits, new_network
from glr.robustness.tables import markdown_table, mean_and_spread
from glr.scripts import by_jax
from glr.scripts.console import progress_bar
from glr.scripts.constants import constants_of
from glr.scripts.machine import prepare_for_small_arrays
from glr.scripts.plots import new_figure, plain_axes, save_figure
from glr.scripts.run import layer_sizes, minibatches, run_generator
from glr.storage.checkpoint import State
from glr.study import estimators
from glr.study.comparison import BATCH, half_trained_network, method_of, moments_of
from glr.study.estimators import Estimator, keys_from
from glr.study.pages import write_page

TIMED_STEPS, TURNS = 64, 7  # steps of a turn; the fastest turn counts
DRAWS, AT_ONCE = 4096, 64  # gradients that a variance is estimated from
POINTS = 20  # of a learning curve
SEED = np.array([1, 2], np.uint32)  # of the gradients of a variance
GLR, LOSSES = "loss values, by GLR", "loss values"  # what estimators use
FORWARD, BACKWARD = "derivatives, forward", "derivatives, backward"


class Peer(NamedTuple):
    """An estimator, and what is tuned of it.

    estimator : takes `repeats` too; repeats : those to choose from
    uses : GLR, LOSSES, FORWARD or BACKWARD
    evaluations : of the network and its loss, for each sample in every repeat
    against : the peer of the same mean if this were unbiased; none if it is
    """

    name: str
    estimator: Callable
    repeats: tuple[int, ...]
    uses: str
    evaluations: int
    against: str = ""


class Setting(NamedTuple):
    """What is chosen on held-out samples."""

    repeats: int
    rate: float


class Outcome(NamedTuple):
    """Of a budget: held-out accuracy in percent at every setting; test accuracies at the best.

    steps : by repeats; curves : by seed, of POINTS accuracies in percent each
    """

    grid: dict[Setting, float]
    steps: dict[int, int]
    curves: list[list[float]]

    @property
    def setting(self) -> Setting:
        """The best on held-out samples."""
        return max(self.grid, key=self.grid.get)

    @property
    def accuracies(self) -> list[float]:
        """At the end, seed by seed."""
        return [curve[-1] for curve in self.curves]


class Measured(NamedTuple):
    """A peer: its outcomes, and of the setting of equal time what a gradient costs.

    step : CPU seconds of a training step
    variance : of the first layer's gradient, relative to its square
    cosine : of its mean with that of the peer `against`; None of an unbiased one
    """

    peer: Peer
    step: float
    variance: float
    cosine: float | None
    by_time: Outcome
    by_evaluations: Outcome | None

    def budget(self, what: str) -> Outcome:
        """The outcome of equal "time" or "evaluations"."""
        return self.by_time if what == "time" else self.by_evaluations

    @property
    def cost(self) -> float:
        """CPU seconds to a relative variance of 1."""
        return self.variance * self.step

    @property
    def evaluations(self) -> float:
        """Of each sample, to a relative variance of 1."""
        return self.variance * self.peer.evaluations * self.by_time.setting.repeats


def glr_of(script: str, differences: str = "") -> Callable:
    """The estimate of a script, perhaps with local differences from there on alone."""
    flags = ["--local-differences", differences] if differences else []
    return partial(estimators.glr, method=by_jax.method_of(constants_of(script, flags)))


# ---------------------------------------------------------------- training


class Samples(NamedTuple):
    """A data set, and its training samples on the device."""

    data: Dataset
    device: tuple[jax.Array, jax.Array]


class Bench(NamedTuple):
    """What the peers of a network share: its script's constants, its plan, and samples."""

    own: SimpleNamespace
    plan: xla.Plan
    samples: Samples
    held_out: Samples


def bench_of(script: str, constants: SimpleNamespace) -> Bench:
    """The bench of a script's network on the study's data set."""
    prepare_for_small_arrays()
    by_jax.set_up()
    own, data = constants_of(script, []), load_dataset(constants.DATASET, constants.DATA_DIR)
    plan = by_jax.plan_of(own)._replace(centralised_gradient=data.are_pixels)
    held_out = hold_out(data, constants.VALIDATION, run_generator(0))
    both = (Samples(d, jax.device_put((d.x_train, np.int32(d.y_train)))) for d in (data, held_out))
    return Bench(own, plan, *both)


Program = Callable[[xla.State, tuple, np.ndarray, float, int], xla.State]


def program(estimator: Estimator, plan: xla.Plan) -> Program:
    """Steps along an estimator: from state, samples, rows as of glr.xla, learning rate, steps."""

    def take(
        state: xla.State, samples: tuple, rows: jax.Array, rate: float, steps: int
    ) -> xla.State:
        (x, y), own = samples, plan._replace(learning_rate=rate, steps=steps)

        def step(i: jax.Array, state: xla.State) -> xla.State:
            word = state.seed[1] ^ state.step.astype(jnp.uint32)
            key = keys_from(jnp.stack([state.seed[0], word]), 1)[0]
            batch = x[rows[i]].T, y[rows[i]]
            return xla.descend(own, state, estimator(key, state.layers, batch))

        return lax.fori_loop(0, (rows[:, 0] >= 0).sum(), step, state)

    options = {"xla_cpu_prefer_vector_width": 512}  # as in glr.xla.program
    return jax.jit(take, donate_argnums=0, compiler_options=options)


def first_state(bench: Bench, seed: int) -> xla.State:
    """A new network before its first step."""
    own, rng = bench.own, run_generator(seed)
    sizes = layer_sizes(bench.samples.data, own.HIDDEN)
    arrays = State(new_network(sizes, own.ACTIVATION, rng, own.INITIAL_SCALE).parameters, rng)
    arrays.optimizer |= by_jax.first_arrays(own.OPTIMIZER, arrays.parameters)
    return by_jax.new_state(arrays, sizes, by_jax.seed_words(rng))


def next_rows(batches: Iterator[np.ndarray], n: int) -> np.ndarray:
    """The rows of the next n minibatches, as glr.xla.steps_of_rows takes them."""
    rows = np.full((xla.MOST_STEPS, BATCH), -1, np.int32)
    rows[:n] = list(islice(batches, n))
    return rows


def step_seconds(compiled: Program, bench: Bench) -> float:
    """CPU time of a training step: that of the fastest turn."""
    batches, found = minibatches(len(bench.samples.data.x_train), BATCH, run_generator(0)), []
    for _ in range(TURNS):
        state, rows = first_state(bench, 0), next_rows(batches, TIMED_STEPS)
        begun = time.process_time()
        jax.block_until_ready(compiled(state, bench.samples.device, rows, 0.01, TIMED_STEPS))
        found.append((time.process_time() - begun) / TIMED_STEPS)
    return min(found)


def learning_curve(
    run: Callable, bench: Bench, samples: Samples, seed: int, steps: int
) -> list[float]:
    """Noise-free accuracy in percent after each of POINTS equal parts of a run.

    run : a program, with its learning rate
    """
    data, state, found = samples.data, first_state(bench, seed), []
    batches = minibatches(len(data.x_train), BATCH, run_generator(seed))
    for part in np.diff(np.arange(POINTS + 1) * steps // POINTS):
        for begun in range(0, part, xla.MOST_STEPS):
            rows = next_rows(batches, min(xla.MOST_STEPS, part - begun))
            state = run(state, samples.device, rows, steps=steps)
        layers = [Layer(np.asarray(W).T, np.asarray(b)) for W, b in state.layers]
        output = logits(layers, bench.own.ACTIVATION, data.x_test)
        found.append(100 * accuracy(output, data.y_test))
    return found


def outcome(
    programs: Mapping[int, Program], steps: dict[int, int], bench: Bench, c: SimpleNamespace
) -> Outcome:
    """Choose among programs, by repeats, and RATES on held-out samples; test the best, SEEDS times.

    steps : of the programs
    """

    def curve(setting: Setting, samples: Samples, seed: int) -> list[float]:
        R, rate = setting
        return learning_curve(partial(programs[R], rate=rate), bench, samples, seed, steps[R])

    settings = [Setting(R, rate) for R in programs for rate in c.RATES]
    grid = {setting: curve(setting, bench.held_out, 0)[-1] for setting in settings}
    found = Outcome(grid, steps, [])
    found.curves.extend(curve(found.setting, bench.samples, seed) for seed in range(c.SEEDS))
    return found


# ---------------------------------------------------------------- measurement


class Mean(NamedTuple):
    """A mean gradient of the first layer's weights, and the square of its norm without noise."""

    gradient: np.ndarray
    square: float

    def cosine(self, other: Mean) -> float:
        """With another mean."""
        return float(np.vdot(self.gradient, other.gradient)) / (self.square * other.square) ** 0.5


def mean_and_variance(estimator: Estimator, layers: list, batch: tuple) -> tuple[Mean, float]:
    """The mean of DRAWS gradients of the first layer, and its relative variance."""

    @jax.jit
    def sums(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        def add(total: tuple, key: jax.Array) -> tuple[tuple, None]:
            W = estimator(key, layers, batch)[0].W
            return (total[0] + W, total[1] + jnp.square(W).sum()), None

        return lax.scan(add, (jnp.zeros_like(layers[0].W), jnp.zeros(())), keys)[0]

    total, squares = 0.0, 0.0
    for keys in np.array(keys_from(SEED, DRAWS)).reshape(-1, AT_ONCE, 2):
        found = sums(keys)
        total, squares = total + np.float64(found[0]), squares + float(found[1])
    square, variance = moments_of(total, squares, DRAWS)
    return Mean(total / DRAWS, square), variance / square


def measure(script: str, peers: Sequence[Peer], constants: SimpleNamespace) -> list[Measured]:
    """Measure the peers of a script's network; the first is GLR, whose STEPS say how long.

    That is the CPU time of STEPS steps with the script's own replicates.
    """
    bench, rng = bench_of(script, constants), run_generator(0)
    data, method = bench.samples.data, method_of(vars(bench.own))
    layers = half_trained_network(method, data, rng).layers
    layers = [Layer(jnp.array(W.T), jnp.array(b)) for W, b in layers]
    rows = rng.permutation(len(data.x_train))[:BATCH]
    batch = jnp.array(data.x_train[rows].T), jnp.array(data.y_train[rows], jnp.int32)
    found, means, seconds = [], {}, 0.0
    for peer in progress_bar(peers, script):
        of_repeats = {R: partial(peer.estimator, repeats=R) for R in peer.repeats}
        programs = {R: program(estimator, bench.plan) for R, estimator in of_repeats.items()}
        step = {R: step_seconds(compiled, bench) for R, compiled in programs.items()}
        seconds = seconds or constants.STEPS * step[bench.own.REPLICATES]
        by_time = outcome(programs, {R: int(seconds / step[R]) for R in step}, bench, constants)
        by_evaluations = None
        if peer.uses != BACKWARD:
            steps = {R: constants.EVALUATIONS // (R * peer.evaluations) for R in step}
            by_evaluations = outcome(programs, steps, bench, constants)
        R = by_time.setting.repeats
        means[peer.name], variance = mean_and_variance(of_repeats[R], layers, batch)
        cosine = means[peer.name].cosine(means[peer.against]) if peer.against else None
        found.append(Measured(peer, step[R], variance, cosine, by_time, by_evaluations))
        print(plain(found[-1]), flush=True)
    return found


# ---------------------------------------------------------------- what is written


HEAD = (
    *("estimator", "uses", "R", "ms a step", "mean", "relative variance"),
    *("× evaluations", "× ms", "accuracy, equal time", "equal evaluations"),
)


def cells(one: Measured) -> list[str]:
    """A peer's line of the table."""
    after = one.by_evaluations.accuracies if one.by_evaluations else []
    return [
        one.peer.name,
        one.peer.uses,
        f"{one.by_time.setting.repeats}",
        f"{1000 * one.step:.2f}",
        "unbiased" if one.cosine is None else f"cosine {one.cosine:.3f}",
        figure(one.variance),
        figure(one.evaluations) if after else "–",
        figure(1000 * one.cost),
        mean_and_spread(one.by_time.accuracies),
        mean_and_spread(after),
    ]


def figure(x: float) -> str:
    """Two digits, and none after thousands."""
    return f"{float(f'{x:.2g}'):,g}"


def plain(one: Measured) -> str:
    """The same for a terminal."""
    name, *figures = cells(one)
    shown = zip(HEAD[1:], figures, strict=True)
    return f"{name}: {', '.join(f'{head} {cell}' for head, cell in shown)}"


def grid_lines(found: Sequence[Measured], rates: Sequence[float]) -> list[list[str]]:
    """Held-out accuracies of time / evaluations, of the chosen setting in bold."""
    lines = [["estimator", "R", *(f"{rate:g}" for rate in rates)]]
    for one in found:
        for R in one.peer.repeats:
            line = [one.peer.name, str(R)]
            for rate in rates:
                outcomes = filter(None, (one.by_time, one.by_evaluations))
                line.append(" / ".join(grid_cell(o, Setting(R, rate)) for o in outcomes))
            lines.append(line)
    return lines


def grid_cell(outcome: Outcome, setting: Setting) -> str:
    """The held-out accuracy at a setting, in bold if it is the chosen one."""
    text = f"{outcome.grid[setting]:.1f}"
    return f"**{text}**" if setting == outcome.setting else text


def says(found: Sequence[Measured]) -> str:
    """How the first, GLR, compares with the best by loss values alone, and with backpropagation."""
    own, *others = found
    rivals = [one for one in others if one.peer.uses == LOSSES]
    name, best = own.peer.name, min(rivals, key=lambda one: one.cost)
    parts = [
        f"{name} has {figure(best.cost / own.cost)} times the precision per second of the best "
        f"other estimator that uses loss values alone, {best.peer.name}"
    ]
    best = min(rivals, key=lambda one: one.evaluations)
    ratio = figure(best.evaluations / own.evaluations)
    parts.append(f"{ratio} times that per evaluation of {best.peer.name}")
    backward = [one for one in others if one.peer.uses == BACKWARD]
    for what, compared in (("time", [*rivals, *backward]), ("evaluations", rivals)):
        reached = {one.peer.name: fmean(one.budget(what).accuracies) for one in compared}
        for group in filter(None, (rivals, backward if what == "time" else [])):
            best = max((one.peer.name for one in group), key=reached.get)
            lead = fmean(own.budget(what).accuracies) - reached[best]
            parts.append(f"after equal {what} it is {lead:+.2f} points to {best}")
    return f"{'; '.join(parts)}."


def block(by_script: Mapping[str, Sequence[Measured]], constants: SimpleNamespace) -> str:
    """The tables and what they say, as Markdown."""
    parts = []
    for script, found in by_script.items():
        lines = [HEAD, *map(cells, found)]
        seconds = constants.STEPS * found[0].step
        title = f"The network of {script}, on {constants.DATASET}; equal time: {seconds:.1f} s"
        parts += [f"{title}:", markdown_table(lines), says(found)]
    parts.append("Held-out accuracies, of equal time / equal evaluations, the chosen in bold:")
    grids = [
        line for found in by_script.values() for line in grid_lines(found, constants.RATES)[1:]
    ]
    return "\n\n".join([*parts, markdown_table([grid_lines([], constants.RATES)[0], *grids])])


def draw_costs(path: Path, by_script: Mapping[str, Sequence[Measured]]) -> None:
    """What a gradient of relative variance 1 costs, in evaluations and in time, as dots."""
    rows = [(i, one) for i, found in enumerate(by_script.values()) for one in found]
    drawn = new_figure(9, 0.28 * len(rows) + 1.2)
    panels = drawn.subplots(1, 2, sharey=True)
    names = [f"{one.peer.name}{'' if one.cosine is None else ' (biased)'}" for _, one in rows]
    for y, (i, one) in enumerate(rows):
        marker = "D" if one.peer.uses == GLR else "o"
        if one.by_evaluations:
            panels[0].plot(one.evaluations, y, marker, color=f"C{i}")
        panels[1].plot(1000 * one.cost, y, marker, color=f"C{i}")
    panels[0].set_yticks(range(len(rows)), names)
    panels[0].invert_yaxis()
    for axes, what in zip(panels, ("evaluations of each sample", "ms of one core"), strict=True):
        axes.set(xscale="log", xlabel=f"{what}, to a relative variance of 1")
        plain_axes(axes)
    for i, script in enumerate(by_script):
        panels[1].plot([], [], "s", color=f"C{i}", label=f"network of {script}")
    panels[1].legend(fontsize=8, frameon=False)
    save_figure(path, drawn)


def draw_accuracies(path: Path, by_script: Mapping[str, Sequence[Measured]]) -> None:
    """Mean test error against the seconds of training, a panel for each network."""
    drawn = new_figure(10, 4.6)
    for axes, (script, found) in zip(
        drawn.subplots(1, len(by_script), squeeze=False)[0], by_script.items(), strict=True
    ):
        for i, one in enumerate(found):
            R = one.by_time.setting.repeats
            seconds = one.step * one.by_time.steps[R] * np.arange(1, POINTS + 1) / POINTS
            errors = 100 - np.mean(one.by_time.curves, axis=0)
            style = "-" if one.peer.uses == GLR else "--" if one.peer.uses == BACKWARD else ":"
            axes.plot(seconds, errors, style, color=f"C{i}", label=one.peer.name)
        ticks = (2, 3, 4, 6, 10, 20, 40, 80)
        axes.set(yscale="log", xlabel="seconds of one core", ylabel="test error (%)")
        axes.yaxis.set_ticks(ticks, [str(tick) for tick in ticks])
        axes.yaxis.set_ticks([], minor=True)
        axes.set_title(f"the network of {script}", fontsize=10)
        plain_axes(axes)
        axes.legend(fontsize=8, frameon=False)
    save_figure(path, drawn)


def write_peers(
    by_script: Mapping[str, Sequence[Measured]], constants: SimpleNamespace, whole: bool, name: str
) -> None:
    """Print and write the tables, and draw the pictures: to docs/ if they are of a whole run."""
    text = block(by_script, constants)
    print(text)

    def draw(path: Path) -> None:
        draw_costs(path, by_script)
        draw_accuracies(path.with_stem(f"{path.stem}_time"), by_script)

    write_page(name, text, whole, draw)
