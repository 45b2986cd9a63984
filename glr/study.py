"""Many runs of the training scripts: what is to be trained, and training what is missing.

A run is a script started as a process of its own, as a user starts it, in a folder of its own;
its files come back as bytes. So it makes no difference on which machine it runs.
"""

from __future__ import annotations

import runpy
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from glr.constants import ROOT, script_constants
from glr.errors import GLRError
from glr.experiment import recorded_constants, run_path
from glr.files import write_whole
from glr.models import load_model

SCRIPTS = ROOT / "Train&Test"


class Task(NamedTuple):
    """One run: a script of Train&Test, its flags, and where its files go on this machine."""

    script: str
    flags: tuple[str, ...]
    data_dir: str
    path: Path


def tasks(
    constants: SimpleNamespace, networks: Mapping[str, tuple[str, str]], datasets: Iterable[str]
) -> list[Task]:
    """Every network × data set × seed, in that order."""
    found = []
    for name, (script, extra) in networks.items():
        for dataset in datasets:
            for seed in range(constants.SEEDS):
                flags = ("--name", name, "--dataset", dataset, "--seed", str(seed), *extra.split())
                place = SimpleNamespace(
                    NAME=name,
                    DATASET=dataset,
                    SEED=seed,
                    VALIDATION=0,
                    MODELS_DIR=constants.MODELS_DIR,
                )
                found.append(Task(script, flags, str(constants.DATA_DIR), run_path(place)))
    return found


def is_finished(task: Task) -> bool:
    """Whether the run's model is there, and was trained with the constants of today's script."""
    if not task.path.exists():
        return False
    script = runpy.run_path(str(SCRIPTS / task.script))
    wanted = recorded_constants(script_constants(script, list(task.flags)))
    return load_model(task.path).metadata.get("constants") == wanted


def trained_files(task: Task) -> dict[str, bytes]:
    """The files that the run writes, by name."""
    with tempfile.TemporaryDirectory() as folder:
        places = ("--data-dir", task.data_dir, "--models-dir", folder)
        command = [sys.executable, str(SCRIPTS / task.script), *task.flags, *places]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise GLRError(ran.stderr.strip() or f"{command} ended with status {ran.returncode}")
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def train_missing(wanted: list[Task], processes: int) -> None:
    """Run the tasks that are not finished, `processes` at a time, and keep what they write.

    A run is kept as soon as it is done, its model last: an interrupted study goes on from there.
    """
    from joblib import Parallel, delayed  # noqa: PLC0415  (it takes as long as all the rest)
    from tqdm import tqdm  # noqa: PLC0415

    missing = [task for task in wanted if not is_finished(task)]
    runs = Parallel(n_jobs=processes, return_as="generator_unordered")(
        delayed(trained_files)(task) for task in missing
    )
    for files in tqdm(runs, total=len(missing), desc="training", unit="run"):
        folder = wanted[0].path.parent
        for name in sorted(files, key=lambda name: name.endswith(".npz")):
            data = files[name]
            write_whole(folder / name, lambda file, data=data: file.write(data))


def mean_and_sd(values: Iterable[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    values = list(values)
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def percent(shares: Iterable[float]) -> str:
    """Shares in [0, 1] as "mean ± sd" in percent."""
    mean, sd = mean_and_sd(shares)
    return f"{100 * mean:.2f} ± {100 * sd:.2f}"


def write_between(path: Path, begin: str, end: str, block: str) -> None:
    """Replace what stands between the line `begin` and the line `end` of a text file."""
    head, rest = path.read_text(encoding="utf-8").split(begin + "\n", 1)
    _, tail = rest.split(end, 1)
    text = f"{head}{begin}\n{block}\n{end}{tail}"
    write_whole(path, lambda file: file.write(text.encode()))
