"""Time training by GLR beside the published algorithm and backpropagation.

    python benchmarks/bench.py                everything; some ten minutes
    python benchmarks/bench.py --parts 1 3    two parts, printed but not kept
    python benchmarks/bench.py --turns 5      fewer turns: quicker, and less sure

Parts: 1 a training step, 2 precision per second, 3 seconds to the published accuracy, 4 growth and
memory, 5 choices that cost clarity. MNIST is that of GLR_DATA_DIR, else data/. All that a table
compares takes turns in one run, on one core (on Linux). bench.md and bench.png in
benchmarks/results are written after every part.
"""

from __future__ import annotations

import sys

try:
    import argparse
    import inspect
    import os
    import platform
    import re
    import time
    import tracemalloc
    from collections.abc import Callable, Iterator, Mapping
    from functools import partial
    from importlib.metadata import version
    from importlib.util import find_spec
    from itertools import product
    from pathlib import Path
    from unittest.mock import patch

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    import numpy as np
    import rivals
    from rivals import Steps, repeated

    import glr
    from glr.data.datasets import Dataset, load_dataset
    from glr.errors import GLRError
    from glr.estimator import Estimate
    from glr.network import accuracy
    from glr.noise import independent_words
    from glr.robustness.tables import GLR_ROWS, PUBLISHED, markdown_table
    from glr.scripts.console import one_line_errors, progress_bar
    from glr.scripts.constants import ROOT, OneLineParser, constants_of
    from glr.scripts.machine import prepare_for_small_arrays
    from glr.scripts.plots import look_of, new_figure, optional_picture, plain_axes, save_figure
    from glr.scripts.run import Run, run_generator
    from glr.storage.files import user_path, write_whole
    from glr.study.comparison import direction_and_variance, half_trained, method_of
except ImportError as error:
    sys.exit(f"{error}; run pip install 'FOLDER[scripts]' with the folder that glr/ is in")
except KeyboardInterrupt:
    sys.exit(130)

# --------------------------------------------------------------------------------------------
PATHS = {"NumPy": rivals.numpy_training}  # what takes a script's steps: its --backend
PATHS |= {"JAX": rivals.jax_training} if find_spec("jax") else {}  # no requirement
RIVALS = {
    "published": rivals.published_training,
    "NumPy backprop.": rivals.numpy_backpropagation,
    "Keras": rivals.keras_training,
} | ({"PyTorch": rivals.pytorch_training} if find_spec("torch") else {})  # no requirement
HIDDEN = ("50", "500 500")  # neurons of the networks' hidden layers
GROWTH = {  # flags of a size, and the sizes that are doubled
    "R": (lambda n: f"--replicates {n}", (2, 256)),
    "width": (lambda n: f"--hidden {n}", (50, 500)),
    "depth": (lambda n: "--hidden" + n * " 50", (1, 8)),
    "batch": (lambda n: f"--batch-size {n}", (128, 1024)),
}
REPLICATES = (10, 10_000)  # at which peak memory is measured
PASSES = 10_000  # noisy ones in all, of the gradients that a variance is estimated from
WARM_STEPS = 500  # of training before its steps are timed
TURN_SECONDS = 0.05  # of CPU in a turn
CALL = 256  # steps of a turn at most: as many as JAX takes at once
TURNS = 15
# --------------------------------------------------------------------------------------------

RESULTS = Path(__file__).resolve().parent / "results"
Row = tuple[str, str, np.ndarray, dict[str, np.ndarray]]  # case, unit; ours and others by turn


def cpu_ms(steps: Steps) -> float:
    """CPU milliseconds of a step: of the first of 2, 4, 8 … at once that take TURN_SECONDS."""
    n, seconds = 1, 0.0
    while seconds < TURN_SECONDS and n < CALL:
        n *= 2
        begun = time.process_time()
        steps(n)
        seconds = time.process_time() - begun
    return 1e3 * seconds / n


def compared(ours: Mapping[str, Steps], others: Mapping[str, Steps], turns: int) -> Iterator[Row]:
    """A row for each of ours: milliseconds of a step, in turns that are of all of them."""
    both = [*ours.values(), *others.values()]
    for steps in both:
        steps(1)  # some are compiled now
    bar = progress_bar(range(turns), "turns", leave=False)
    ms = np.array([[cpu_ms(steps) for steps in both] for _ in bar]).T
    for case, own in zip(ours, ms, strict=False):
        yield case, "ms", own, dict(zip(others, ms[len(ours) :], strict=True))


def in_training(steps: Steps) -> Steps:
    """The steps after WARM_STEPS: in a network that has learned, the 0-1 loss is cheaper."""
    for _ in progress_bar(range(10), "training", leave=False):
        steps(WARM_STEPS // 10)
    return steps


def by_path(case: str, script: str, flags: list[str], data: Dataset) -> dict[str, Steps]:
    """The script's steps by NumPy and JAX, in training."""
    return {f"{case}, {path}": in_training(of(script, flags, data)) for path, of in PATHS.items()}


def training_steps(data: Dataset, turns: int) -> Iterator[Row]:
    """A training step

    CPU time of a whole step, from the minibatch to the optimizer. Ours is at the scripts' constants
    after 500 steps; `published` is the published estimator at R 10, one matrix product for the mean
    of its outer products, and SGD; the others are backpropagation of sigmoids and cross-entropy by
    Adam, in the same network. Batch 128; all with our settings of memory and BLAS. JAX computes by
    one thread, as in the scripts, without the time in which it compiles.
    """
    for hidden in HIDDEN:
        flags, network = ["--hidden", *hidden.split()], f"784-{hidden.replace(' ', '-')}-10"
        for script in GLR_ROWS:
            others = {name: of(script, flags, data) for name, of in RIVALS.items()}
            yield from compared(by_path(f"{network} {script}", script, flags, data), others, turns)


def precision(data: Dataset, turns: int) -> Iterator[Row]:
    """Precision per second

    CPU time to a gradient of relative variance 1: relative variance × step time, of the first
    layer of 784-50-10 after 500 steps of the script; the published estimator has R 10. Each has its
    own noise, and with the 0-1 loss its own risk. The last column is ours without equation (6): by
    as many passes drawn independently, taken to last as long.
    """
    for script in GLR_ROWS:
        run = half_trained(constants_of(f"{script}.py", []), data)
        own, R = partial(glr.gradient, **method_of(vars(run.constants))), run.constants.REPLICATES
        variance, plain = relative_variance(own, R, run), {"random_words": independent_words}
        with patch.dict(vars(glr.estimator), plain), patch.dict(vars(glr.noise), plain):
            independent = relative_variance(own, R, run)
        theirs = relative_variance(rivals.published_estimate(run), 10, run)
        others = {"published": RIVALS["published"](script, [], data)}
        ours = by_path(f"{script} to variance 1", script, [], data)
        for case, unit, a, b in compared(ours, others, turns):
            found = {"published": theirs * b["published"], "independent passes": independent * a}
            yield case, unit, variance * a, found


def relative_variance(estimate: Callable[..., Estimate], R: int, run: Run) -> float:
    """That of the first layer's estimated gradient from R passes, at a run's state."""
    draw = partial(estimate, run.layers, run.data.x_train[:128], run.data.y_train[:128])
    weights = (draw(rng=run.rng).layers[0].W for _ in range(PASSES // R))
    return direction_and_variance(weights)[1]


def time_to_accuracy(data: Dataset, turns: int) -> Iterator[Row]:
    """Time to the published accuracy

    CPU seconds of training to the published clean accuracy on MNIST: the steps that one run takes
    at the default constants, seed 0, evaluated every 20, times the time of a step, without what JAX
    and Keras compile. Keras trains the network of BP.py by backpropagation (train_on_batch, Adam,
    its learning rate) to the same accuracy.
    """
    for script in GLR_ROWS:
        goal = PUBLISHED["mnist"][script][0]
        keras = RIVALS["Keras"](script, [], data)
        theirs = steps_to(goal, keras, data) / 1e3
        for path, of in PATHS.items():
            ours = of(script, [], data)
            n, case = steps_to(goal, ours, data) / 1e3, f"{script} to {goal} %, {path}"
            for *_, a, b in compared({case: ours}, {"Keras": keras}, turns):
                yield case, "s", n * a, {"Keras": theirs * b["Keras"]}


def steps_to(goal: float, steps: Steps, data: Dataset) -> int:
    """How many of a new training's steps reach a test accuracy in percent, evaluated every 20."""
    for n in range(20, 10_001, 20):
        network = steps(20)
        if 100 * accuracy(network(data.x_test), data.y_test) >= goal:
            return n
    raise glr.GLRError(f"{goal} % was never reached")


def growth(data: Dataset, turns: int) -> Iterator[Row]:
    """Growth

    The CPU time of a step of LRS with one of its constants doubled, over that without: 2 is linear
    growth. Then the same of the peak memory of a step's arrays, NumPy's alone, with R doubled.
    """
    for (what, (flags_of, sizes)), path in product(GROWTH.items(), PATHS):
        for n in sizes:
            one, two = (PATHS[path]("LRS", flags_of(m).split(), data) for m in (n, 2 * n))
            yield from compared({f"{what} {n:,}, {path}": one}, {"doubled": two}, turns)
    for script, R in product(GLR_ROWS, REPLICATES):
        memory = [peak_megabytes(script, n, data) for n in (R, 2 * R)]
        yield f"memory of {script}, R {R:,}", "MB", memory[0], {"doubled": memory[1]}


def peak_megabytes(script: str, replicates: int, data: Dataset) -> np.ndarray:
    """Peak memory of the arrays of a step, beside the network's, in MB of 10⁶ bytes, (1,)."""
    steps = rivals.numpy_training(script, ["--replicates", str(replicates)], data)
    tracemalloc.start()
    steps(1)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return np.array([peak])


def choices(data: Dataset, turns: int) -> Iterator[Row]:
    """Choices that cost clarity

    The CPU time of the plain way over ours, one choice at a time. The random numbers and sigmoids
    are those of 14 passes, (50, 14, 128). The plain ways: a loss that GLR does not know,
    NumPy's floats, 1/(1 + e⁻ᵛ); vectors as XLA chooses, argmax, JAX's own words.
    """
    rng, shape = run_generator(0), (50, 14, 128)
    v = rng.standard_normal(shape, dtype=np.float32)
    halves, floats = partial(independent_words, rng, shape), partial(rng.random, shape, np.float32)
    tanh, exp = (lambda: glr.sigmoid(v)), (lambda: 1 / (1 + np.exp(-v)))
    lrtz, unknown = partial(rivals.numpy_training, "LRTZ", [], data), partial(glr.zero_one)
    pairs = [
        ("step of LRTZ: 0-1 loss where a neuron can turn it", lrtz(), lrtz(loss=unknown)),
        ("random 32-bit words: halves of 64-bit ones", repeated(halves), repeated(floats)),
        ("sigmoid: (1 + tanh(v/2))/2", repeated(tanh), repeated(exp)),
    ]
    if "JAX" in PATHS:  # and what takes a name's place in glr/xla.py
        from jax.random import bits  # noqa: PLC0415

        jax = partial(rivals.jax_training, "LRTZ", [], data)
        losses = {glr.zero_one: lambda logits, y: logits.argmax(axis=-2) != y}
        pairs += [
            ("step of LRTZ, JAX: vectors of 512 bits", jax(), jax(cpu_options=lambda: None)),
            ("step of LRTZ, JAX: 0-1 loss class by class", jax(), jax(LOSSES=losses)),
            ("step of LRTZ, JAX: random words by a hash", jax(), jax(random_words=bits)),
        ]
    for case, ours, plain in pairs:
        yield from compared({case: in_training(ours)}, {"plain": in_training(plain)}, turns)


PARTS = dict(enumerate((training_steps, precision, time_to_accuracy, growth, choices), start=1))


def ratio(ours: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How many times ours the other is: the median of the turns, lower and upper quartile."""
    return np.quantile(other / ours, (0.5, 0.25, 0.75))


def short(value: float) -> str:
    """Three digits, which is more than two runs agree in."""
    return f"{float(f'{value:.3g}'):,g}"


def cells(row: Row) -> list[str]:
    """A row's line of the table: ours, and the ratios."""
    case, unit, ours, others = row
    found = (map(short, ratio(ours, other)) for other in others.values())
    says = (f"{middle} ({low}–{high})" if low < high else middle for middle, low, high in found)
    return [case, f"{short(np.median(ours))} {unit}", *says]


def run_parts(parts: list[int], turns: int, folder: Path | None) -> None:
    """Run the parts; print rows, and write all after each; GLRError at the end if parts failed."""
    data = load_dataset("mnist", user_path(os.environ.get("GLR_DATA_DIR") or ROOT / "data"))
    found: dict[int, list[Row]] = {}
    failures = []
    for part in parts:
        rows = found[part] = []
        try:
            for row in PARTS[part](data, turns):
                rows.append(row)
                print(part, *cells(row), sep="  ", flush=True)
        except Exception as error:
            failures.append(f"part {part} failed: {type(error).__name__}: {error}")
        if folder is not None:
            write_results(folder, found, f"{data.name}, {turns} turns")
    if failures:
        raise GLRError("; ".join(failures))


def write_results(folder: Path, found: dict[int, list[Row]], how: str) -> None:
    """Write bench.md and bench.png, each whole or not at all."""
    page = [
        "# The benchmark",
        "Written by `make bench`. A figure in a table is the other's time over ours in the same "
        "turn, so above 1 ours is faster: the median of the turns, and in brackets the quartiles.",
        f"Data: {how}. {machine()}",
        "![the ratios](bench.png)",
    ]
    for part, rows in found.items():
        title, says = str(inspect.getdoc(PARTS[part])).split("\n\n")
        page += [f"## {part}. {title}", says]
        page += [markdown_table([["case", "ours", *rows[0][3]], *map(cells, rows)])] if rows else []
    text = "\n\n".join(page)
    write_whole(folder / "bench.md", lambda file: file.write(f"{text}\n".encode()))
    if drawn := [row for part in (1, 2, 3) for row in found.get(part, [])]:
        with optional_picture():
            draw(folder / "bench.png", drawn, how)


def machine() -> str:
    """What was measured on: processor, and the versions of what was timed."""
    listed = Path("/proc/cpuinfo")  # of Linux; elsewhere Python knows the processor's name
    text = listed.read_text(encoding="utf-8") if listed.exists() else ""
    name = re.search("model name.*: (.*)", text + f"\nmodel name: {platform.processor()}")[1]
    timed = [one for one in ("numpy", "jax", "tensorflow", "keras", "torch") if find_spec(one)]
    versions = ", ".join(f"{one} {version(one)}" for one in timed)
    cores = f"one of {os.cpu_count()} cores, {name}"
    return f"Machine: {cores}; Python {platform.python_version()}, {versions}."


def draw(path: Path, rows: list[Row], how: str) -> None:
    """The ratios, a line for each case and a mark for each column."""
    figure = new_figure(8, 1.6 + 0.18 * len(rows))
    axes = figure.subplots()
    for column, (colour, _) in look_of(name for row in rows for name in row[3]).items():
        own = [(i, row[2], row[3][column]) for i, row in enumerate(rows) if column in row[3]]
        middle, low, high = np.transpose([ratio(ours, other) for _, ours, other in own])
        ends, at = [middle - low, high - middle], [i for i, *_ in own]
        axes.errorbar(middle, at, xerr=ends, fmt="o", ms=5, color=colour, label=column)
    axes.axvline(1, color="grey", lw=0.8, zorder=0)
    axes.set_yticks(range(len(rows)), [case for case, *_ in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="the other's time / ours: right of 1, ours is faster")
    axes.xaxis.set_major_formatter("{x:,g}")
    plain_axes(axes)
    figure.legend(loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.suptitle(f"{how}: medians and quartiles", fontsize=9)
    save_figure(path, figure)


def main() -> None:
    """Run the parts that are asked for; print and write what they found."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--turns", type=int, default=TURNS, help=f"(default: {TURNS})")
    parser.add_argument("--parts", type=int, nargs="+", choices=PARTS, default=[*PARTS])
    given = parser.parse_args()
    if given.turns < 1:
        parser.error("--turns: give 1 or more")
    is_whole = set(given.parts) == set(PARTS)
    if hasattr(os, "sched_setaffinity"):  # Linux's: before Keras and PyTorch start their threads
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    prepare_for_small_arrays()
    run_parts(given.parts, given.turns, RESULTS if is_whole else None)
    print(f"Written: {RESULTS}/bench.md, .png" if is_whole else "Not written: of some parts alone")


if __name__ == "__main__":
    with one_line_errors():
        main()
