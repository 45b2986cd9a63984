"""Scripts as processes, and the files that they leave."""

import csv
import json
import runpy
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import matplotlib.image
import numpy as np

from glr.robustness.perturbation import write_attacks
from glr.scripts.constants import script_constants

ROOT = Path(__file__).resolve().parent.parent


def command(script, *words, home=ROOT):
    """The words of `python script words`, for a script of Train&Test or RobustnessTest."""
    (path,) = (
        p for p in (home / f / script for f in ("Train&Test", "RobustnessTest")) if p.exists()
    )
    return [sys.executable, str(path), *map(str, words)]


def run(script, *words, cwd=ROOT, home=ROOT, env=None):
    """The finished process of `python script words`."""
    words = command(script, *words, home=home)
    return subprocess.run(words, cwd=cwd, env=env, text=True, capture_output=True, check=False)


def attack(*words):
    """As `python generate_adv.py words`, in this process: TensorFlow takes seconds to import."""
    script = runpy.run_path(command("generate_adv.py")[1])
    write_attacks(script_constants(script, [*map(str, words)]))


def started(script, *words):
    """The running process of `python script words`, which says nothing."""
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(command(script, *words), stdout=nowhere, stderr=nowhere)


def command_lines_with(words):
    """Those of the running processes that have the words."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # of a process that has just ended
            lines.append(path.read_bytes().decode(errors="replace"))
    return [line for line in lines if words in line]


def saved(path):
    """Arrays and metadata of a model file."""
    with np.load(path, allow_pickle=False) as arrays:
        loaded = {name: arrays[name] for name in arrays.files}
    return loaded, json.loads(str(loaded.pop("metadata")))


def history(path):
    """The learning curve in a CSV, without the column that no two runs share: seconds."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(None not in row and None not in row.values() for row in rows), path
    return [{name: cell for name, cell in row.items() if name != "seconds"} for row in rows]


def assert_whole(folder):
    """Every file of a models folder can be read to its end.

    What a killed write leaves has a name of its own, which begins with a dot.
    """
    for path in folder.glob("[!.]*"):
        if path.suffix in (".npz", ".checkpoint") or path.suffix.startswith(".old"):
            saved(path)
        elif path.suffix == ".csv":
            assert path.read_bytes().endswith(b"\n")
            assert history(path)
        else:
            assert path.suffix == ".png"
            assert matplotlib.image.imread(path).size > 0


def assert_same_run(folder, other, name):
    """Both folders hold the same weights bit for bit, and the same history."""
    mine, theirs = (saved(place / f"{name}.npz")[0] for place in (folder, other))
    assert mine.keys() == theirs.keys()
    for key, array in mine.items():
        np.testing.assert_array_equal(array, theirs[key])
    assert history(folder / f"{name}.csv") == history(other / f"{name}.csv")


def copy_of_the_scripts(folder):
    """A copy of the project that a test may edit."""
    for name in ("glr", "Train&Test"):
        shutil.copytree(ROOT / name, folder / name)
    return folder
