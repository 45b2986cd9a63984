"""Time training by GLR beside the published algorithm and backpropagation.

    python benchmarks/bench.py                      everything; some ten minutes
    python benchmarks/bench.py --parts 1 3          two parts, printed but not kept
    python benchmarks/bench.py --turns 5            fewer turns: quicker, and less sure
    GLR_DATA_DIR=data python benchmarks/bench.py    with real MNIST, which part 3 needs

Parts: 1 a training step, 2 precision per second, 3 seconds to the published accuracy, 4 growth and
memory, 5 choices that cost clarity. All that a table compares takes turns in one run, on one core
(on Linux), and a ratio is that of a turn: the median of all turns, with the quartiles behind it.
bench.csv, bench.md and a picture in benchmarks/results are written after every part.
"""

from __future__ import annotations

import sys

try:
    import argparse
    import csv
    import inspect
    import io
    import os
    import platform
    import time
    import tracemalloc
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import ProcessPoolExecutor
    from functools import partial
    from importlib.metadata import version
    from importlib.util import find_spec
    from multiprocessing import get_context
    from pathlib import Path
    from typing import NamedTuple

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    import numpy as np
    import rivals
    from rivals import Step
    from threadpoolctl import threadpool_info, threadpool_limits
    from tqdm import tqdm

    from glr.data.datasets import Dataset, load_dataset
    from glr.errors import GLRError
    from glr.estimator import gradient
    from glr.losses import zero_one
    from glr.network import sigmoid
    from glr.noise import random_words
    from glr.robustness.tables import GLR_ROWS, PUBLISHED, markdown_table
    from glr.scripts.console import one_line_errors
    from glr.scripts.constants import ROOT, OneLineParser, add_format_flag
    from glr.scripts.machine import prepare_for_small_arrays
    from glr.scripts.plots import (
        FORMATS,
        look_of,
        new_figure,
        optional_picture,
        plain_axes,
        save_figure,
    )
    from glr.scripts.run import run_generator
    from glr.storage.files import check_writable, user_path, write_whole
    from glr.study.comparison import half_trained_network, script_methods, variance_at
    from glr.study.published import published_gradient
except ImportError as error:
    sys.exit(f"{error}; run pip install 'FOLDER[scripts]' with the folder that glr/ is in")
except KeyboardInterrupt:
    print("interrupted; start it again", file=sys.stderr)
    sys.exit(130)

# --------------------------------------------------------------------------------------------
PATHS = {"NumPy": rivals.numpy_step}  # what takes a script's step: its --backend
PATHS |= {"JAX": rivals.jax_step} if find_spec("jax") else {}  # no requirement
RIVALS = {
    "published": rivals.published_step,
    "NumPy backprop.": rivals.backpropagation_step,
    "Keras": rivals.keras_step,
} | ({"PyTorch": rivals.pytorch_step} if find_spec("torch") else {})  # no requirement
HIDDEN = ("50", "500 500")  # neurons of the networks' hidden layers
GROWTH = {  # flags of a size, and the sizes that are doubled
    "R": (lambda n: f"--replicates {n}", (2, 256)),
    "width": (lambda n: f"--hidden {n}", (50, 500)),
    "depth": (lambda n: "--hidden" + n * " 50", (1, 8)),
    "batch": (lambda n: f"--batch-size {n}", (128, 1024)),
}
MANY_REPLICATES = 10_000  # at which peak memory is measured
EVAL_EVERY = 20  # steps between evaluations in part 3
KERAS_RUNS = 3  # of training in part 3
WARM_STEPS = 500  # of training before its steps are timed
TURN_SECONDS = 0.05  # of a step in a turn, at least
PROCESS_TURNS = 5  # at most, where a turn starts processes
TURNS = 15
RESULTS = Path(__file__).resolve().parent / "results"
TIMED = ("numpy", "jax", "tensorflow", "keras", "torch")  # whose versions are stated
# --------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One ratio of a table: how many times ours the other is, turn by turn.

    case, column : the table's line and column; unit : of both sides' values, one for each turn
    """

    part: int
    case: str
    column: str
    unit: str
    ours: Sequence[float]
    others: Sequence[float]

    @property
    def ratio(self) -> np.ndarray:
        """The median of the turns' ratios, the lower and the upper quartile."""
        return np.quantile(np.divide(self.others, self.ours), (0.5, 0.25, 0.75))

    @property
    def says(self) -> str:
        """The ratio and, where there were several turns, its quartiles."""
        middle, low, high = map(short, self.ratio)
        return middle if len(self.ours) == 1 else f"{middle} ({low}–{high})"


progress = partial(tqdm, disable=None, leave=False)  # a bar, on a terminal only


def short(value: float) -> str:
    """Three digits, which is more than two runs agree in: 0.704, 1.30, 130,000."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:#.3g}"


def cpu_ms(step: Step) -> float:
    """CPU milliseconds of a step, by all threads: the mean of TURN_SECONDS of calls."""
    step()  # brings its arrays into the cache
    calls, seconds, begun = 0, 0.0, time.process_time()
    while calls == 0 or seconds < TURN_SECONDS:
        step()
        calls, seconds = calls + 1, time.process_time() - begun
    return 1e3 * seconds / (calls * n_steps(step))


def n_steps(step: Step) -> int:
    """How many steps a call takes."""
    return getattr(step, "n_steps", 1)


def cpu_turns(steps: Mapping[str, Step], turns: int) -> dict[str, list[float]]:
    """CPU milliseconds of each step in every turn; a turn is of all steps."""
    for step in progress(steps.values(), "first steps"):
        step()  # some are compiled now
    found = {name: [] for name in steps}
    for _ in progress(range(turns), "turns"):
        for name, step in steps.items():
            found[name].append(cpu_ms(step))
    return found


def in_training(step: Step) -> Step:
    """The step, after WARM_STEPS of it: in a network that has learned, the 0-1 loss is cheaper."""
    for _ in range(-(-WARM_STEPS // n_steps(step))):
        step()
    return step


def training_steps(data: Dataset, turns: int) -> Iterator[Row]:
    """A training step

    CPU time of a whole step, from the minibatch to the optimizer. Ours is at the scripts' constants
    after 500 steps; `published` is the published estimator at R 10, one matrix product for the mean
    of its outer products, and SGD; the others are backpropagation of sigmoids and cross-entropy by
    Adam, in the same network. Batch 128; all with our settings of memory and BLAS. JAX computes by
    one thread, as in the scripts, without the time in which it compiles.
    """
    for hidden in HIDDEN:
        flags = ["--hidden", *hidden.split()]
        network = "-".join(["784", *hidden.split(), "10"])
        for script in GLR_ROWS:
            ours = {name: in_training(of(script, flags, data)) for name, of in PATHS.items()}
            others = {name: of(script, flags, data) for name, of in RIVALS.items()}
            ms = cpu_turns(ours | others, turns)
            for path in PATHS:
                case = f"{network} {script}, {path}"
                for rival in RIVALS:
                    yield Row(1, case, rival, "ms", ms[path], ms[rival])


def precision(data: Dataset, turns: int) -> Iterator[Row]:
    """Precision per second

    CPU time to a gradient of relative variance 1, which is relative variance × step time: of the
    first layer of 784-50-10 after 500 steps, the published estimator's at R 10. Each has its own
    noise, and with the 0-1 loss its own risk. `as released`, the published algorithm forms every
    outer product.
    """
    others = {"published": rivals.published_step, "as released": rivals.released_step}
    for script, method in progress(script_methods().items(), "precision"):
        rng = run_generator(0)
        layers = half_trained_network(method, data, rng).layers
        batch = layers, data.x_train[:128], data.y_train[:128]
        functions = {name: method[name] for name in ("activation", "loss")}
        published = partial(published_gradient, *batch, **functions, rng=rng)
        theirs = variance_at(int(rivals.PUBLISHED_R), published)
        ours = variance_at(method["replicates"], partial(gradient, *batch, **method, rng=rng))
        steps = {name: in_training(of(script, [], data)) for name, of in PATHS.items()}
        steps |= {name: of(script, [], data) for name, of in others.items()}
        ms = cpu_turns(steps, turns)
        for path in PATHS:
            for other in others:
                sides = np.multiply(ours, ms[path]), np.multiply(theirs, ms[other])
                yield Row(2, f"{script} to variance 1, {path}", other, "ms", *sides)


def time_to_accuracy(data: Dataset, _turns: int) -> Iterator[Row]:
    """Time to the published accuracy

    Seconds of training to the published clean accuracy on MNIST: one run each at the default
    constants, seed 0, evaluated every 20 steps. Wall time on one core, without the start, since
    Keras compiles: all steps at the pace of those after the first 20. Keras trains by
    backpropagation (fit, Adam, BP.py's learning rate) to the same accuracy: the median of three
    runs, which differ by up to a factor of two.
    """
    if data.name != "mnist":
        tqdm.write("3  left out: needs MNIST; set GLR_DATA_DIR to a folder that has mnist/")
        return
    goals = {script: PUBLISHED["mnist"][script][0] for script in GLR_ROWS}
    highest = max(goals.values())
    keras = [rivals.keras_curve(data, EVAL_EVERY, highest) for _ in range(KERAS_RUNS)]
    words = ["--dataset", "mnist", "--eval-every", str(EVAL_EVERY)]
    for script, goal in progress(goals.items(), "accuracy"):
        for path in PATHS:
            ours = rivals.script_curve(script, [*words, "--backend", path.lower()])
            theirs = np.median([seconds_to(goal, *curve) for curve in keras])
            sides = [seconds_to(goal, *ours)], [theirs]
            yield Row(3, f"{script} to {goal} %, {path}", "Keras", "s", *sides)


def seconds_to(goal: float, step: np.ndarray, seconds: np.ndarray, percent: np.ndarray) -> float:
    """What the steps to the goal take, at the pace of all after the first evaluation."""
    if percent.max() < goal:
        raise GLRError(f"{goal} % was never reached, in {step[-1]:.0f} steps")
    return float(step[percent >= goal][0] * np.ptp(seconds) / np.ptp(step))


def growth(data: Dataset, turns: int) -> Iterator[Row]:
    """Growth

    How many times the CPU time of a step of LRS grows where one of its constants is doubled: 2 is
    linear growth. Then the peak memory of a step's arrays, NumPy's alone.
    """
    for what, (flags_of, sizes) in GROWTH.items():
        for size in sizes:
            flags = {n: flags_of(n).split() for n in (size, 2 * size)}
            for path, of in PATHS.items():
                steps = {str(n): of("LRS", words, data) for n, words in flags.items()}
                ours, others = cpu_turns(steps, turns).values()
                yield Row(4, f"{what} {size:,}, {path}", "time, doubled", "ms", ours, others)
    for script in progress(GLR_ROWS, "memory"):
        many, few = ([peak_megabytes(script, R, data)] for R in (MANY_REPLICATES, 10))
        yield Row(4, f"{script}, R {MANY_REPLICATES:,}", "memory, R 10", "MB", many, few)


def peak_megabytes(script: str, replicates: int, data: Dataset) -> float:
    """Peak memory of the arrays of a step, beside the network's, in MB of 10⁶ bytes."""
    step = rivals.numpy_step(script, ["--replicates", str(replicates)], data)
    tracemalloc.start()
    step()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return peak


def choices(data: Dataset, turns: int) -> Iterator[Row]:
    """Choices that cost clarity

    How many times ours the CPU time of the plain way is, each alone. The random numbers and
    sigmoids are those of a step of LRSZ, (50, 14, 128).
    """
    rng, shape = run_generator(0), (50, 14, 128)
    v = rng.standard_normal(shape, dtype=np.float32)
    pairs: dict[str, tuple[Step, Step]] = {
        "step of LRTZ: 0-1 loss where a neuron can turn it": (
            in_training(rivals.numpy_step("LRTZ", [], data)),
            in_training(rivals.numpy_step("LRTZ", [], data, loss=partial(zero_one))),  # not known
        ),
        "random 32-bit words: halves of 64-bit ones": (
            lambda: random_words(rng, shape),
            lambda: rng.random(shape, np.float32),
        ),
        "sigmoid: (1 + tanh(v/2))/2": (lambda: sigmoid(v), lambda: 1 / (1 + np.exp(-v))),
    }
    for case, (ours, plain) in pairs.items():
        ms = cpu_turns({"ours": ours, "plain": plain}, turns)
        yield Row(5, case, "the plain way", "ms", *ms.values())
    settings = prepare_for_small_arrays, partial(threadpool_limits, 1)
    times = [
        [own_process_ms(setting) for setting in settings]
        for _ in progress(range(min(turns, PROCESS_TURNS)), "processes")
    ]
    case = "step of LRS: memory that is kept (scripts/machine.py)"
    yield Row(5, case, "the plain way", "ms", *np.transpose(times))
    if "JAX" in PATHS:
        yield from choices_of_jax(data, turns)


def choices_of_jax(data: Dataset, turns: int) -> Iterator[Row]:
    """Of glr/xla.py: a step of LRTZ with each of its choices made the plain way."""
    import plain_jax  # noqa: PLC0415  (no requirement)

    steps = {
        case: in_training(rivals.jax_step("LRTZ", [], data, **changed))
        for case, changed in {"ours": {}, **plain_jax.WAYS}.items()
    }
    ours, *others = cpu_turns(steps, turns).values()
    for case, ms in zip(plain_jax.WAYS, others, strict=True):
        yield Row(5, f"step of LRTZ, JAX: {case}", "the plain way", "ms", ours, ms)
    ms = cpu_turns({name: of() for name, of in plain_jax.PRODUCTS.items()}, turns)
    case = "first layer's products, JAX: weights (n_out, n_in), (n_in, n_out)"
    yield Row(5, case, "the plain way", "ms", *ms.values())


def own_process_ms(setting: Callable[[], object]) -> float:
    """CPU milliseconds of a step of LRS in a new process with this setting of memory and BLAS."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=setting) as process:
        return process.submit(new_step_ms).result()


def new_step_ms() -> float:
    """CPU milliseconds of a step of LRS on random data."""
    return cpu_ms(in_training(rivals.numpy_step("LRS", [], random_data())))


PARTS = dict(enumerate((training_steps, precision, time_to_accuracy, growth, choices), start=1))


def benchmark_data() -> Dataset:
    """MNIST where it is in the data folder, else random data of its shape, a sixth as many."""
    folder = user_path(os.environ.get("GLR_DATA_DIR") or ROOT / "data")
    return load_dataset("mnist", folder) if (folder / "mnist").is_dir() else random_data()


def random_data() -> Dataset:
    """10,000 samples of MNIST's shape."""
    rng = np.random.default_rng(0)
    x, y = rng.random((10_000, 784), np.float32), rng.integers(0, 10, 10_000)
    return Dataset("random data of MNIST's shape", x, y, x, y, are_pixels=True)


def run_parts(
    parts: Sequence[int], turns: int, folder: Path | None, kind: str = FORMATS[0]
) -> bool:
    """Run the parts; print what they find and, after each, write it. Whether none failed.

    kind : the format of the picture
    """
    data, found, failures = benchmark_data(), [], {}
    for part in progress(parts, "parts"):
        try:
            for row in PARTS[part](data, turns):
                found.append(row)
                tqdm.write(f"{part}  {row.case}: {row.column} {row.says}")
        except Exception as error:  # the other parts' rows are not to be lost by it
            failures[part] = f"{type(error).__name__}: {error}".splitlines()[0]
            tqdm.write(f"part {part} failed: {failures[part]}", file=sys.stderr)
        if folder is not None and found:
            how = f"Data: {data.name}; {turns} turns."
            write_results(folder / f"bench.{kind}", found, failures, how)
    return not failures


def write_results(picture: Path, found: list[Row], failures: dict[int, str], how: str) -> None:
    """Write bench.csv, bench.md and the picture beside them, each whole or not at all."""
    folder = picture.parent
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["part", "case", "column", "unit", "ours", "other", "ratio", "low", "high"])
    for row in found:
        figures = (np.median(row.ours), np.median(row.others), *row.ratio)
        writer.writerow([*row[:4], *(f"{figure:.4g}" for figure in figures)])
    write_whole(folder / "bench.csv", lambda file: file.write(text.getvalue().encode()))
    page = page_of(found, failures, how).replace("(bench.png)", f"({picture.name})")
    write_whole(folder / "bench.md", lambda file: file.write(page.encode()))
    if any(row.part <= 3 for row in found):
        with optional_picture():
            draw(picture, found, how)


def page_of(found: list[Row], failures: dict[int, str], how: str) -> str:
    """bench.md: what is measured and on what, and a table for each part."""
    sections = [
        "# The benchmark",
        "Written by `make bench`. A figure in a table is the other's time over ours in the same "
        "turn, so above 1 ours is faster: the median of the turns, and in brackets the quartiles.",
        f"{how} {machine()}",
        "![the ratios](bench.png)",
    ]
    for part, measured in PARTS.items():
        rows = [row for row in found if row.part == part]
        title, text = str(inspect.getdoc(measured)).split("\n\n")
        note = [f"This part failed: {failures[part]}"] if part in failures else []
        if rows or note:
            sections += [f"## {part}. {title}", text, *note, *([table(rows)] if rows else [])]
    return "\n\n".join(sections) + "\n"


def table(rows: list[Row]) -> str:
    """A line for each case: ours, and the ratio of each column."""
    columns = list(dict.fromkeys(row.column for row in rows))
    lines: dict[str, list[str]] = {}
    for row in rows:
        ours = f"{short(np.median(row.ours))} {row.unit}"
        line = lines.setdefault(row.case, [row.case, ours, *[""] * len(columns)])
        line[2 + columns.index(row.column)] = row.says
    return markdown_table([["case", "ours", *columns], *lines.values()])


def machine() -> str:
    """What was measured on: processor, cores, BLAS, and the versions of what was timed."""
    listed = Path("/proc/cpuinfo")  # of Linux; elsewhere Python knows the processor's name
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    libraries = [lib for lib in threadpool_info() if lib["user_api"] == "blas"]  # NumPy's first
    blas = [f"{lib['internal_api']} for {lib.get('architecture')}" for lib in libraries]
    versions = [f"{name} {version(name)}" for name in TIMED if find_spec(name)]
    without = "" if "PyTorch" in RIVALS else " PyTorch is not installed: no column of it."
    return (
        f"Machine: one of {os.cpu_count()} cores, {names[0] if names else platform.processor()}; "
        f"Python {platform.python_version()}, {', '.join([*versions, *blas[:1]])}.{without}"
    )


def draw(path: Path, found: list[Row], how: str) -> None:
    """The ratios of the parts 1 to 3, a line for each case and a mark for each column."""
    rows = [row for row in found if row.part <= 3]
    cases = list(dict.fromkeys((row.part, row.case) for row in rows))
    places = {case: -(i + case[0]) for i, case in enumerate(cases)}  # with a gap between the parts
    figure = new_figure(8, 1.6 + 0.18 * len(cases))
    axes = figure.subplots()
    for column, (colour, _) in look_of(row.column for row in rows).items():
        own = [row for row in rows if row.column == column]
        ratio, low, high = np.transpose([row.ratio for row in own])
        ends = np.maximum([ratio - low, high - ratio], 0)
        at = [places[row.part, row.case] for row in own]
        axes.errorbar(ratio, at, xerr=ends, fmt="o", ms=5, color=colour, label=column)
    axes.axvline(1, color="grey", lw=0.8, zorder=0)
    axes.set_yticks([*places.values()], [case for _, case in cases], fontsize=7)
    axes.set(xscale="log", xlabel="the other's time / ours: right of 1, ours is faster")
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.xaxis.set_minor_formatter("")
    plain_axes(axes)
    figure.legend(loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.suptitle(f"{how} Medians and quartiles.", fontsize=9, parse_math=False)
    save_figure(path, figure)


def main() -> None:
    """Run the parts that are asked for; print and write what they found."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--parts", type=int, nargs="+", choices=PARTS, default=[*PARTS], help="(default: all)"
    )
    parser.add_argument(
        "--turns", type=int, default=TURNS, help=f"of each comparison (default: {TURNS})"
    )
    parser.add_argument(
        "--results-dir",
        type=user_path,
        metavar="DIR",
        help="where all is written (default: benchmarks/results, of all parts alone)",
    )
    add_format_flag(parser)
    given = parser.parse_args()
    if given.turns < 1:
        parser.error("--turns: give 1 or more")
    folder = given.results_dir or (RESULTS if set(given.parts) == set(PARTS) else None)
    if folder is not None:
        check_writable(folder / "bench.csv")
    if hasattr(os, "sched_setaffinity"):  # Linux's: before Keras and PyTorch start their threads
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    prepare_for_small_arrays()
    if not run_parts(given.parts, given.turns, folder, given.FORMAT):
        sys.exit(1)
    files = f"{folder}/bench.csv, .md, .{given.FORMAT}"
    print(f"Written: {files}" if folder else "Not written: no --results-dir")


if __name__ == "__main__":
    with one_line_errors():
        main()
