"""GLR beside other gradient estimators: precision and accuracy at equal cost; tables, pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice, product
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from glr import xla
from glr.data.datasets import Dataset
from glr.network import Layer, accuracy
from glr.robustness.tables import markdown_table, mean_and_spread
from glr.scripts import by_jax
from glr.scripts.console import progress_bar
from glr.scripts.constants import constants_of
from glr.scripts.machine import prepare_for_small_arrays
from glr.scripts.plots import COLOURS, legend_above, new_figure, plain_axes, save_figure
from glr.scripts.run import Run, load_data, minibatches, run_generator
from glr.study import estimators
from glr.study.comparison import direction_and_variance, half_trained
from glr.study.estimators import Estimator, keys_from
from glr.study.pages import Page, write_page

TIMED_STEPS, TURNS = 64, 7  # steps of a turn; the fastest turn counts
DRAWS = 2048  # gradients that a variance is estimated from
POINTS = 10  # of a learning curve
GLR, LOSSES = "loss values, by GLR", "loss values"  # what estimators use
FORWARD, BACKWARD = "derivatives, forward", "derivatives, backward"


class Peer(NamedTuple):
    """An estimator, and what is tuned of it.

    repeats : of the estimator, to choose from; uses : GLR, LOSSES, FORWARD or BACKWARD
    evaluations : of the loss, for each sample in every repeat
    against : the peer whose mean is that of this one but for its bias; "" if it has none
    """

    name: str
    estimator: Callable[..., xla.Layers]
    repeats: tuple[int, ...]
    uses: str
    evaluations: int
    against: str = ""


class Outcome(NamedTuple):
    """Of a budget: the repeats and learning rate that are best on held-out samples, and the steps.

    curves : by seed, of POINTS test accuracies (%) each
    """

    repeats: int
    rate: float
    steps: int
    curves: list[list[float]]

    def __str__(self) -> str:
        """The accuracy at the end, and the setting."""
        reached = mean_and_spread([curve[-1] for curve in self.curves])
        return f"{reached} (R {self.repeats}, rate {self.rate:g})"


class Measured(NamedTuple):
    """A peer's outcomes, and what a gradient costs at the setting of equal time.

    step : CPU seconds of a training step; variance : of the first layer's gradient, relative
    cosine : of its mean with that of the peer `against`
    """

    peer: Peer
    step: float
    variance: float
    cosine: float | None
    by_time: Outcome
    by_evaluations: Outcome | None

    @property
    def milliseconds(self) -> float:
        """To a relative variance of 1."""
        return 1000 * self.variance * self.step

    @property
    def evaluations(self) -> float:
        """For each sample, to a relative variance of 1."""
        return self.variance * self.peer.evaluations * self.by_time.repeats


def glr_of(script: str, flags: str = "") -> Callable[..., xla.Layers]:
    """The estimate of a script; or with flags that differ from its constants."""
    return partial(estimators.glr, method=by_jax.method_of(constants_of(script, flags.split())))


# ---------------------------------------------------------------- training


class Bench(NamedTuple):
    """What the peers of a network share: its script's constants, data, and these on the device."""

    own: SimpleNamespace
    data: Dataset
    samples: tuple[jax.Array, jax.Array]

    def new_run(self, seed: int) -> Run:
        """The script's run of a seed, before its first step."""
        return Run(SimpleNamespace(**vars(self.own) | {"SEED": seed}), self.data)

    def minibatches(self, seed: int) -> Iterator[np.ndarray]:
        """Rows (B,) of minibatch after minibatch."""
        return minibatches(len(self.data.y_train), self.own.BATCH_SIZE, run_generator(seed))


def bench_of(script: str, constants: SimpleNamespace, validation: int) -> Bench:
    """The bench of a script's network on DATASET, with so many training samples held out."""
    flags = ["--dataset", constants.DATASET, f"--validation={validation}"]
    own = constants_of(script, [*flags, "--data-dir", str(constants.DATA_DIR)])
    run = Run(own, load_data(own))
    own.CENTRALISED_GRADIENT = run.is_centralised
    return Bench(own, run.data, by_jax.samples_of(run))


Program = Callable[..., xla.State]


def program(estimator: Estimator, plan: xla.Plan) -> Program:
    """Steps along an estimator, compiled: rows of minibatches as glr.xla.program has them."""

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

    return jax.jit(take, donate_argnums=0, compiler_options=xla.cpu_options())


def next_rows(batches: Iterator[np.ndarray], n: int) -> np.ndarray:
    """The rows of the next n minibatches, as glr.xla.program takes them."""
    rows = np.array([*islice(batches, n)])
    return np.pad(rows, ((0, xla.MOST_STEPS - n), (0, 0)), constant_values=-1)


def step_seconds(compiled: Program, bench: Bench) -> float:
    """CPU time of a training step, by the fastest turn."""
    batches, found = bench.minibatches(0), []
    for _ in range(TURNS):
        state, rows = by_jax.state_of(bench.new_run(0)), next_rows(batches, TIMED_STEPS)
        begun = time.process_time()
        jax.block_until_ready(compiled(state, bench.samples, rows, rate=0.01, steps=TIMED_STEPS))
        found.append((time.process_time() - begun) / TIMED_STEPS)
    return min(found)


def learning_curve(compiled: Program, bench: Bench, seed: int, steps: int) -> list[float]:
    """Noise-free accuracy in percent after each of POINTS equal parts of a run by a program."""
    run, batches, found = bench.new_run(seed), bench.minibatches(seed), []
    state = by_jax.state_of(run)
    for part in np.diff(np.arange(POINTS + 1) * steps // POINTS):
        for begun in range(0, part, xla.MOST_STEPS):
            rows = next_rows(batches, min(xla.MOST_STEPS, part - begun))
            state = compiled(state, bench.samples, rows, steps=steps)
        by_jax.write_back(state, run.state)
        output = run.network.logits(bench.data.x_test)
        found.append(100 * accuracy(output, bench.data.y_test))
    return found


def outcome(
    programs: Mapping[int, Program],
    steps: dict[int, int],
    benches: tuple[Bench, Bench],
    constants: SimpleNamespace,
) -> Outcome:
    """Choose repeats and one of RATES on held-out samples; test that setting, SEEDS times.

    programs, steps : by repeats; benches : of the test set, and of the held-out samples
    """

    def curve(R: int, rate: float, bench: Bench, seed: int) -> list[float]:
        return learning_curve(partial(programs[R], rate=rate), bench, seed, steps[R])

    tested, held_out = benches
    settings = product(programs, constants.RATES)
    R, rate = max(settings, key=lambda setting: curve(*setting, held_out, 0)[-1])
    curves = [curve(R, rate, tested, seed) for seed in range(constants.SEEDS)]
    return Outcome(R, rate, steps[R], curves)


def draws_of(estimator: Estimator, layers: xla.Layers, batch: tuple) -> Iterator[np.ndarray]:
    """DRAWS independent gradients of the first layer's weights."""
    draw = jax.jit(lambda key: estimator(key, layers, batch)[0].W)
    keys = np.asarray(keys_from(jnp.zeros(2, jnp.uint32), DRAWS))
    return (np.asarray(draw(key)) for key in keys)


def common_problem(bench: Bench) -> tuple[xla.Layers, tuple]:
    """A network after some hundred steps along its script's estimate, and a minibatch."""
    layers, rows = half_trained(bench.own, bench.data).layers, next(bench.minibatches(1))
    batch = bench.data.x_train[rows].T, bench.data.y_train[rows]
    return [Layer(jnp.array(W.T), jnp.array(b)) for W, b in layers], batch


def measure(script: str, peers: Sequence[Peer], constants: SimpleNamespace) -> list[Measured]:
    """Measure the peers of a script: all have the time of STEPS of the first, its own estimate."""
    prepare_for_small_arrays()
    by_jax.set_up()
    benches = tuple(bench_of(script, constants, n) for n in (0, constants.VALIDATION))
    bench, seconds, found, means = benches[0], 0.0, [], {}
    plan, problem = by_jax.plan_of(bench.own), common_problem(bench)
    for peer in progress_bar(peers, script):
        repeated = {R: partial(peer.estimator, repeats=R) for R in peer.repeats}
        programs = {R: program(estimator, plan) for R, estimator in repeated.items()}
        step = {R: step_seconds(compiled, bench) for R, compiled in programs.items()}
        seconds = seconds or constants.STEPS * step[bench.own.REPLICATES]
        in_time = {R: int(seconds / step[R]) for R in step}
        by_time, by_evaluations = outcome(programs, in_time, benches, constants), None
        if peer.uses != BACKWARD:
            steps = {R: constants.EVALUATIONS // (R * peer.evaluations) for R in step}
            by_evaluations = outcome(programs, steps, benches, constants)
        R = by_time.repeats
        means[peer.name], variance = direction_and_variance(draws_of(repeated[R], *problem))
        cosine = np.vdot(means[peer.name], means[peer.against]) if peer.against else None
        found.append(Measured(peer, step[R], variance, cosine, by_time, by_evaluations))
        print(*cells(found[-1]).values(), sep=" | ", flush=True)
    return found


# ---------------------------------------------------------------- what is written


def cells(one: Measured) -> dict[str, str]:
    """A peer's line of the table, by column."""
    after = one.by_evaluations
    return {
        "estimator": one.peer.name,
        "uses": one.peer.uses,
        "ms a step": f"{1000 * one.step:.2f}",
        "its mean": "unbiased" if one.cosine is None else f"cosine {one.cosine:.2f}",
        "relative variance": figure(one.variance),
        "× evaluations": figure(one.evaluations) if after else "–",
        "× ms": figure(one.milliseconds),
        "accuracy, equal time": str(one.by_time),
        "equal evaluations": str(after or "–"),
    }


def figure(x: float) -> str:
    """Two digits."""
    return f"{float(f'{x:.2g}'):,g}"


def block(by_script: Mapping[str, Sequence[Measured]], c: SimpleNamespace) -> str:
    """The tables, as Markdown."""
    parts = [
        f"On {c.DATASET}, test accuracy in percent, mean ± sd of {c.SEEDS} seeds; equal time: that "
        f"of {c.STEPS:,} steps of the script; equal evaluations: {c.EVALUATIONS:,} of a minibatch. "
        "The costs of a gradient are those at the R of equal time."
    ]
    for script, found in by_script.items():
        parts += [f"The network of {script}; equal time is {seconds_of(found[0]):.1f} s:"]
        lines = [cells(one) for one in found]
        parts += [markdown_table([[*lines[0]], *([*line.values()] for line in lines)])]
    return "\n\n".join(parts)


def seconds_of(one: Measured) -> float:
    """How long its training of equal time takes."""
    return one.step * one.by_time.steps


def draw_costs(path: Path, by_script: Mapping[str, Sequence[Measured]], dataset: str) -> None:
    """What a gradient of relative variance 1 costs in evaluations and in time, a dot for each."""
    rows = [(i, one) for i, found in enumerate(by_script.values()) for one in found]
    drawn = new_figure(9, 0.28 * len(rows) + 1.2)
    panels = drawn.subplots(1, 2, sharey=True)
    for axes, what in zip(panels, ("evaluations", "milliseconds"), strict=True):
        for y, (i, one) in enumerate(rows):
            if one.by_evaluations or what == "milliseconds":
                marker = "D" if one.peer.uses == GLR else "o"
                axes.plot(getattr(one, what), y, marker, color=f"C{i}")
        axes.set(xscale="log", xlabel=f"{what} to a relative variance of 1")
        plain_axes(axes)
    names = [one.peer.name + " (biased)" * bool(one.peer.against) for _, one in rows]
    panels[0].set_yticks(range(len(rows)), names)
    panels[0].invert_yaxis()
    for i, script in enumerate(by_script):
        panels[1].plot([], [], "s", color=f"C{i}", label=f"network of {script}")
    legend_above(panels[1], columns=2)
    title = "a first-layer gradient of relative variance 1; diamonds: GLR by local differences"
    drawn.suptitle(f"{dataset}: {title}", fontsize=10)
    save_figure(path, drawn)


def draw_accuracies(path: Path, by_script: Mapping[str, Sequence[Measured]], dataset: str) -> None:
    """Test error, mean ± sd, against the seconds of training, a panel for each network."""
    drawn, styles = new_figure(10, 4.6), {GLR: "-", BACKWARD: "--"}
    panels = drawn.subplots(1, len(by_script), squeeze=False)[0]
    for axes, (script, found) in zip(panels, by_script.items(), strict=True):
        n = len(found[0].by_time.curves)
        for i, one in enumerate(found):
            times, name = seconds_of(one) * np.arange(1, POINTS + 1) / POINTS, one.peer.name
            errors = 100 - np.array(one.by_time.curves)
            mean, sd = errors.mean(axis=0), errors.std(axis=0, ddof=n > 1)
            look = {"color": COLOURS.get(name, f"C{i}"), "label": name}
            axes.plot(times, mean, styles.get(one.peer.uses, ":"), **look)
            axes.fill_between(times, mean - sd, mean + sd, color=look["color"], alpha=0.2, lw=0)
        axes.set(yscale="log", xlabel="seconds of one core", ylabel="test error (%)")
        axes.yaxis.set_ticks(ticks := (2, 3, 4, 6, 10, 20, 40, 80), map(str, ticks))
        axes.yaxis.set_ticks([], minor=True)
        axes.set_title(f"{dataset}, network of {script}: mean ± sd of {n} seeds", fontsize=10)
        plain_axes(axes)
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.15), ncols=2)
    save_figure(path, drawn)


def write_peers(
    by_script: Mapping[str, Sequence[Measured]], constants: SimpleNamespace, page: Page
) -> None:
    """Print and write the tables, and draw the pictures: to docs/ if they are of a whole run."""
    text = block(by_script, constants)
    print(text)
    text += f"\n\n![what a gradient costs]({page.name}.png)"
    text += f"\n\n![test error against time of each estimator]({page.name}_time.png)"

    def draw(path: Path) -> None:
        draw_costs(path, by_script, constants.DATASET)
        draw_accuracies(path.with_stem(f"{path.stem}_time"), by_script, constants.DATASET)

    write_page(page, text, draw)
