"""Many runs of the training scripts: what is to be trained, and training what is missing.

A run is a script in a process and a folder of its own; its files come back as bytes. So it may run
here (glr/study/processes.py) or on another machine (glr/study/cluster.py).
"""

from __future__ import annotations

import runpy
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from itertools import product
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import NamedTuple

from glr.data.datasets import SHIPPED, fingerprint
from glr.data.idx import folders_like
from glr.errors import GLRError
from glr.robustness.evaluation import PRETRAINED
from glr.robustness.perturbation import surrogate_constants
from glr.scripts.console import heeded, progress_bar
from glr.scripts.constants import ROOT, SCRIPTS, constants_of
from glr.scripts.plots import FORMATS
from glr.scripts.records import keep_other_model, recorded_constants, run_path
from glr.scripts.run import load_data
from glr.storage.files import write_whole
from glr.storage.models import layers_and_metadata
from glr.study.cluster import outcomes_on_cluster
from glr.study.processes import Outcome, outcome, script_process


class Task(NamedTuple):
    """One run: a script of Train&Test, what it trains, and where its model goes on this machine.

    flags : the words after the script's name, but for the folders
    extra : those of them that make the network, beside its name, data set and seed
    recorded : the constants that the model will record
    """

    script: str
    name: str
    dataset: str
    seed: int
    extra: str
    flags: list[str]
    path: Path
    recorded: dict


def tasks(
    constants: SimpleNamespace, networks: Mapping[str, tuple[str, str]], datasets: Iterable[str]
) -> list[Task]:
    """Every network × data set × seed, in that order; the seeds are 0 … SEEDS − 1.

    networks : by name, a script and the flags that differ from its constants

    Raises GLRError if there is no network, or if its flags change what is chosen for all.
    """
    if not networks:
        raise GLRError("there is no network to train; name one or more")
    n_held_out = getattr(constants, "VALIDATION", 0)  # study.py holds out none
    common = [f"--validation={n_held_out}"] if n_held_out else []
    drawn = [] if FORMATS[0] == constants.FORMAT else ["--format", constants.FORMAT]
    found = []
    for (name, (script, extra)), dataset, seed in product(
        networks.items(), datasets, range(constants.SEEDS)
    ):
        flags = ["--name", name, "--dataset", dataset, "--seed", str(seed)]
        flags += [*common, *extra.split(), *drawn]
        settings = constants_of(script, [*flags, "--models-dir", str(constants.MODELS_DIR)])
        chosen = {"NAME": name, "DATASET": dataset, "SEED": seed, "VALIDATION": n_held_out}
        for constant, value in chosen.items():
            if getattr(settings, constant) != value:
                raise GLRError(f"{script} {extra}: leave out {constant}, which is chosen for all")
        places = run_path(settings), recorded_constants(settings)
        found.append(Task(script, name, dataset, seed, extra, flags, *places))
    return found


def study_networks(names: Iterable[str], dataset: str) -> dict[str, tuple[str, str]]:
    """These of study.py's networks, on a data set, as `tasks` takes them."""
    networks = runpy.run_path(str(SCRIPTS / "study.py"))["networks_on"](dataset)
    unknown = [name for name in names if name not in networks]
    if unknown:
        raise GLRError(f"NAMES: study.py has no {', '.join(unknown)}; give {', '.join(networks)}")
    return {name: networks[name] for name in names}


def are_trained(names: Iterable[str], constants: SimpleNamespace, datasets: Iterable[str]) -> bool:
    """Whether MODELS_DIR has these networks of study.py, with its constants and of all SEEDS."""
    return all(
        is_finished(task)
        for dataset in datasets
        for task in tasks(constants, study_networks(names, dataset), [dataset])
    )


def is_finished(task: Task) -> bool:
    """Whether the run's model is there, of today's constants of its script, and of today's data."""
    try:
        _, metadata = layers_and_metadata(task.path)
    except GLRError:  # none, or a damaged one: the run is done again
        return False
    if metadata.get("constants") != task.recorded:
        return False
    if task.dataset in SHIPPED:
        return True
    data = load_data(constants_of(task.script, task.flags))  # your own may have changed
    return metadata.get("training data") == fingerprint(data)


def train_missing(tasks: Iterable[Task], constants: SimpleNamespace) -> None:
    """Run the tasks that are not finished, and keep what each writes; GLRError if one fails."""
    wanted = [task for task in tasks if not is_finished(task)]
    if not wanted:
        return
    for number in heeded("SIGTERM", "SIGHUP"):  # end the runs as Ctrl-C does, also on a cluster
        signal.signal(number, signal.default_int_handler)
    on_cluster = getattr(constants, "DASK", "")  # certify.py has none
    runs = (outcomes_on_cluster if on_cluster else outcomes_here)(wanted, constants)
    counts = {"total": len(wanted), "desc": "training"}
    with closing(runs), progress_bar(**counts) as bar:
        for n, (task, (files, says)) in enumerate(runs, 1):
            run = " ".join([task.script, *task.flags])
            if says:
                raise GLRError(f"{run}: {says}")
            with bar.external_write_mode(sys.stderr):
                print(keep_other_model(task.path, task.recorded), end="", file=sys.stderr)
            keep(files, constants.MODELS_DIR)
            bar.update()
            if bar.disable:  # no terminal: a log has a line of each
                print(f"trained {n}/{len(wanted)}: {run}", file=sys.stderr, flush=True)


def outcomes_here(
    wanted: Iterable[Task], constants: SimpleNamespace
) -> Iterator[tuple[Task, Outcome]]:
    """Each task as soon as it is done, and what came of it; PROCESSES at a time."""
    stop = Event()
    with ThreadPoolExecutor(constants.PROCESSES) as pool:
        runs = {}
        for task in wanted:
            words = [str(SCRIPTS / task.script), *task.flags, "--data-dir", str(constants.DATA_DIR)]
            runs[pool.submit(outcome, ROOT, words, lambda: not stop.is_set())] = task
        try:
            for run in as_completed(runs):
                yield runs[run], run.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def keep(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files to the folder, each whole or not at all, the model last."""
    for name in sorted(files, key=lambda name: name.endswith(".npz")):
        write_whole(folder / name, lambda file, data=files[name]: file.write(data))


def datasets_found(constants: SimpleNamespace) -> list[str]:
    """Those of DATASETS that need no download; GLRError if there is none."""
    found = [
        name
        for name in constants.DATASETS
        if name not in SHIPPED[1:] or folders_like(constants.DATA_DIR / name)
    ]
    if not found:
        raise GLRError(
            f"DATASETS: none of them is in {constants.DATA_DIR}; "
            'python "Train&Test/LRS.py" --dataset mnist downloads one'
        )
    return found


def run_robustness_script(words: list[str], constants: SimpleNamespace, dataset: str) -> None:
    """Run a script of RobustnessTest, and its flags, on a data set, showing what it prints."""
    places = ["--data-dir", str(constants.DATA_DIR), "--models-dir", str(constants.MODELS_DIR)]
    places += ["--format", constants.FORMAT]
    path = ROOT / "RobustnessTest" / words[0]
    if script_process(ROOT, [str(path), *words[1:], "--dataset", dataset, *places]).wait():
        raise GLRError(f"{words[0]} --dataset {dataset}: failed; its message stands above")


def make_samples(constants: SimpleNamespace, dataset: str) -> None:
    """Make the samples of the published columns: FGSM at each EPSILON, L-BFGS, the corruptions."""
    fgsm = ["generate_adv.py", "--epsilon", *map(str, constants.EPSILON)]
    lbfgs = ["generate_adv.py", "--attack", "lbfgs"]
    for words in (fgsm, lbfgs, ["noise_generate_adv.py"]):
        run_robustness_script(words, constants, dataset)


def write_pretrained(runs: list[Task], constants: SimpleNamespace, datasets: Iterable[str]) -> None:
    """Copy the models of seed 0 and the surrogates to models/pretrained/, which comes with glr."""
    paths = [task.path for task in runs if task.seed == 0]
    for name in datasets:
        attack = SimpleNamespace(**vars(constants), DATASET=name, SEED=0)
        paths.append(run_path(surrogate_constants(attack)))
    for path in paths:
        if path.exists():  # else the pretrained surrogate served
            keep({path.name: path.read_bytes()}, PRETRAINED)
