"""Part 5 of the benchmark: how long training takes to the published accuracies."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measures import COMPILED, Comparison, own_process_ms
from rivals import PAPER, WAYS

from glr.data.datasets import Dataset, load_dataset
from glr.network import sigmoid, threshold
from glr.robustness.tables import PUBLISHED
from glr.scripts.constants import ROOT

# The published runs: activation, R, B, and the flags that make our script do the same.
PLAIN = (
    "--initial-scale 2 --noise laplace --sigma 1.4142 --no-control-variate --no-local-differences "
    "--output-draws 1 --learning-rate 0.01 --schedule constant --weight-decay 1e-4 "
    "--no-centralised-gradient "
)
PUBLISHED_RUNS = {
    "LRS": (sigmoid, 10, 128, PLAIN + "--replicates 10 --optimizer sgd --steps 4680"),
    "LRT": (
        threshold,
        10,
        32,
        PLAIN + "--replicates 10 --optimizer sgd --steps 18750 --batch-size 32 "
        "--no-conditional-score",
    ),
    "LRSZ": (
        sigmoid,
        100,
        128,
        PLAIN + "--replicates 100 --optimizer adagrad --steps 9360 --no-standardised-loss",
    ),
    "LRTZ": (
        threshold,
        100,
        128,
        PLAIN + "--replicates 100 --optimizer adagrad --steps 9360 --no-standardised-loss "
        "--no-conditional-score",
    ),
}


OUR_FLAGS = {"": "", COMPILED: "--compiled"}


def data_dir() -> Path:
    """The data folder, as for the scripts."""
    return Path(os.environ.get("GLR_DATA_DIR", ROOT / "data"))


def benchmark_data() -> Dataset:
    """MNIST where it is found, else the digits."""
    return load_dataset("mnist" if (data_dir() / "mnist").is_dir() else "digits", data_dir())


def time_to_published_accuracy(_repeats: int) -> list[Comparison]:
    """Part 5: milliseconds to the published clean accuracy on MNIST, default constants, seed 0.

    The others are backpropagation (BP.py), and the published estimator with its constants, initial
    weights and step size, whose steps are counted here and timed in NumPy, in a process of their
    own. One run each, evaluated every hundred steps, and timed without its start: Keras compiles.
    """
    if not (data_dir() / "mnist").is_dir():
        print("5  left out: no MNIST; set GLR_DATA_DIR to a folder that has mnist/")
        return []
    found, backpropagation = [], history("BP.py", "")
    for name, (activation, R, B, flags) in PUBLISHED_RUNS.items():
        goal = PUBLISHED["mnist"][name][0]
        ours = {way: seconds_to(goal, history(f"{name}.py", OUR_FLAGS[way])) for way in WAYS}
        rows = history(f"{name}.py", flags)
        last = rows[-1]
        theirs = own_process_ms(f"published_step({PAPER}, {activation.__name__}, {R}, {B})")
        rival = (
            "published algorithm and constants, which end after step "
            f"{last['step']:.0f} at {100 * last['test_accuracy']:.1f} %"
        )
        others = {
            "BP.py to the same": 1e3 * seconds_to(goal, backpropagation),
            rival: theirs * steps_to(goal, rows),
        }
        found += [
            Comparison(5, f"{name} to {goal} % on MNIST{way}", other, 1e3 * seconds, ms)
            for other, ms in others.items()
            for way, seconds in ours.items()
        ]
    return found


def history(script: str, flags: str) -> list[dict[str, float]]:
    """The learning curve of a script on MNIST, evaluated every hundred steps."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--dataset", "mnist", "--eval-every", "100", "--data-dir", str(data_dir())]
        command = [sys.executable, str(ROOT / "Train&Test" / script), *words, *flags.split()]
        subprocess.run([*command, "--models-dir", folder], check=True, stdout=subprocess.DEVNULL)
        (path,) = Path(folder).glob("*.csv")
        with path.open(encoding="utf-8", newline="") as file:
            return [{name: float(x) for name, x in row.items()} for row in csv.DictReader(file)]


def steps_to(goal: float, rows: list[dict[str, float]]) -> float:
    """The step of the first row of a learning curve at `goal` percent; infinity if none is."""
    reached = (row["step"] for row in rows if 100 * row["test_accuracy"] >= goal)
    return next(reached, math.inf)


def seconds_to(goal: float, rows: list[dict[str, float]]) -> float:
    """What these steps take, at the pace of all after the first row.

    Before it TensorFlow compiles BP.py's step: once, whatever the goal.
    """
    first, last = rows[0], rows[-1]
    pace = (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])
    return pace * steps_to(goal, rows)
