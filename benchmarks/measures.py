"""How the benchmark measures, and what it writes."""

from __future__ import annotations

import csv
import io
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from glr.robustness.tables import markdown_table
from glr.scripts.constants import ROOT
from glr.scripts.plots import new_figure, plain_axes, save_figure
from glr.storage.files import write_whole

TURN_SECONDS = 0.05
TURNS = 3  # of TURN_SECONDS or two calls, where a step has a process of its own
TIMED = ("numpy", "numba", "tensorflow", "keras", "torch")  # those that are installed
COMPILED = ", compiled"  # ends the cases where our step is compiled


Times = np.ndarray | float  # milliseconds of every turn; or of all that there is


class AtOnce(NamedTuple):
    """A call of so many steps, as compiled training takes them."""

    call: Callable[[], object]
    steps: int

    def __call__(self) -> None:
        """Take them all."""
        self.call()


class Comparison(NamedTuple):
    """One line of the table: how many times faster our step is than the other, turn by turn."""

    part: int
    case: str
    other: str
    ours: Times
    others: Times

    @property
    def ours_ms(self) -> float:
        """Our time: the median turn's."""
        return float(np.median(self.ours))

    @property
    def other_ms(self) -> float:
        """The other's time: the median turn's."""
        return float(np.median(self.others))

    @property
    def ratio(self) -> float:
        """The other's time over ours in the same turn, the median of all turns.

        A machine that is slower for some minutes, and not by as much for both, has no part in it.
        """
        return float(np.median(np.divide(self.others, self.ours)))

    def __str__(self) -> str:
        """One line for the terminal."""
        unit = "MB" if "MB" in self.case else "ms"
        theirs = f"{self.other_ms:.3f} {unit}, {self.ratio:.3g} ×"
        return (
            f"{self.part}  {self.case:40s} {self.ours_ms:9.3f} {unit}   {self.other}: "
            f"{theirs if math.isfinite(self.other_ms) else 'never'}"
        )


def turns(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, np.ndarray]:
    """Median milliseconds of each run's every turn, in its steady state; they take turns.

    The first turn, and the first call of every turn, only warm up: the caches that the others'
    turns have emptied come back, as in training, where a step follows a step of its own kind.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            found = turn_ms(run)
            if turn > 0:
                times[name].append(median(found))
    return {name: np.array(values) for name, values in times.items()}


def medians(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Milliseconds of each run: the median turn's."""
    return {name: float(np.median(ms)) for name, ms in turns(runs, repeats).items()}


def by_turn(times: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """The milliseconds of every turn, by what they are of."""
    return {name: np.array([turn[name] for turn in times]) for name in times[0]}


def turn_ms(run: Callable[[], object]) -> list[float]:
    """Milliseconds of a step in each call after the first, for TURN_SECONDS and at least one."""
    run()
    steps = run.steps if isinstance(run, AtOnce) else 1
    times, end = [], time.perf_counter() + TURN_SECONDS
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start) / steps)
    return times


def own_process_ms(step: str, **settings: str) -> float:
    """Median milliseconds of a step of rivals.py in a new process; 0 if it is not installed.

    settings : environment variables of the process
    """
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]; from rivals import *; "
        "from glr.scripts.machine import prepare_for_small_arrays; "
        f"from measures import medians; step = {step}; "
        f"print(medians({{'it': step}}, {TURNS})['it'] if step else 0)"
    )
    words = [sys.executable, "-c", code, str(ROOT), str(ROOT / "benchmarks")]
    env = os.environ | settings
    ran = subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE, env=env)
    return float(ran.stdout)


def write_results(folder: Path, found: list[Comparison], notes: dict[int, str]) -> None:
    """Write bench.csv, bench.md and bench.png to the folder; the notes say what each part is."""
    header = ["part", "case", "other", "ours_ms", "other_ms", "ratio"]
    rows = [[*row[:3], *map(three_digits, (row.ours_ms, row.other_ms, row.ratio))] for row in found]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *rows])
    write_whole(folder / "bench.csv", lambda file: file.write(text.getvalue().encode()))
    columns = (
        "`ours_ms` and `other_ms` are milliseconds, `ratio` is the other's time over ours in the "
        "same turn: medians over the turns."
    )
    table = markdown_table([header, *[[str(cell) for cell in row] for row in rows]])
    page = "\n\n".join([columns, machine(), *notes.values(), table]) + "\n"
    write_whole(folder / "bench.md", lambda file: file.write(page.encode()))
    draw_ratios(folder / "bench.png", found, notes)
    print(f"Written: {folder}/bench.csv, .md and .png")


def machine() -> str:
    """What was measured on: processor, cores, and the versions of what was timed."""
    listed = Path("/proc/cpuinfo")  # of Linux; elsewhere Python knows the processor's name
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    versions = [f"{name} {version(name)}" for name in TIMED if find_spec(name)]
    python = f"Python {platform.python_version()}"
    return (
        f"Measured on {names[0] if names else platform.processor()}, {os.cpu_count()} cores, by "
        f"{', '.join([python, *versions])}."
    )


def three_digits(value: float) -> str:
    """The value to three digits, which is more than two runs agree in: 0.704, 1300."""
    return f"{float(f'{value:.3g}'):g}"


def draw_ratios(path: Path, found: list[Comparison], notes: dict[int, str]) -> None:
    """A panel of ratios for each part, under the first line of its note.

    What never ended has no bar.
    """
    by_part: dict[int, list[Comparison]] = {}
    for row in found:
        if math.isfinite(row.ratio):
            by_part.setdefault(row.part, []).append(row)
    lines = [len({label_of(row) for row in rows}) for rows in by_part.values()]
    figure = new_figure(11, 1 + 0.26 * sum(lines) + 0.7 * len(lines))
    panels = figure.subplots(len(lines), squeeze=False, height_ratios=[n + 1 for n in lines])
    for axes, (part, rows) in zip(panels[:, 0], by_part.items(), strict=True):
        draw_part(axes, rows)
        axes.set_title(notes[part].splitlines()[0].replace("`", ""), fontsize=9, loc="right")
    figure.suptitle(
        "The other's time / ours: to the right of 1, ours is faster (part 6: how ours grows).\n"
        "Paler: ours compiled. What never reached the accuracy has no bar"
    )
    save_figure(path, figure, dpi=100)  # 90 cm high: over 1 MB at 150


def draw_part(axes, rows: list[Comparison]) -> None:
    """Every ratio as a bar from 1 on a logarithmic axis, to the left where ours is slower.

    The compiled step's bar is the paler one below NumPy's.
    """
    from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415  (as in glr.scripts.plots)

    labels = list(dict.fromkeys(label_of(row) for row in rows))
    ratios = [1, *(row.ratio for row in rows)]
    for row in rows:
        is_compiled = row.case.endswith(COMPILED)
        place = labels.index(label_of(row)) + (0.2 if is_compiled else -0.2)
        style = {"color": f"C{row.part - 1}", "alpha": 0.5 if is_compiled else 1}
        bar = axes.barh(place, row.ratio - 1, 0.4, left=1, **style)
        says = f"{row.ratio:,.0f}" if row.ratio >= 100 else f"{row.ratio:.3g}"
        axes.bar_label(bar, [says], padding=3, fontsize=6)
    room = (max(ratios) / min(ratios)) ** 0.15  # for the figures at the ends of the bars
    axes.set(xscale="log", xlim=(min(ratios) / room, max(ratios) * room))
    steps = (1, 2, 5) if max(ratios) < 20 * min(ratios) else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter("{x:,.9g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(labels)), labels)
    axes.axvline(1, color="black", lw=0.8)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    plain_axes(axes, lines_of="x")
    axes.tick_params(labelsize=8)


def label_of(row: Comparison) -> str:
    """The case and the other side, the same for both of our steps."""
    return f"{row.case.removesuffix(COMPILED)}: {row.other.split(' (')[0]}"
