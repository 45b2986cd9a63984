"""Many runs of the training scripts: what is to be trained, and training what is missing.

A run is a script started as a process of its own, as a user starts it, in a folder of its own;
its files come back as bytes. So it makes no difference on which machine it runs.
"""

from __future__ import annotations

import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO, NamedTuple

from glr.data.datasets import SHIPPED, fingerprint
from glr.errors import GLRError
from glr.passes import GLR
from glr.robustness.evaluation import PRETRAINED
from glr.robustness.tables import GLR_ROWS
from glr.scripts.constants import ROOT, script_constants
from glr.scripts.experiment import glr_method, load_data
from glr.scripts.records import keep_other_model, recorded_constants, run_path
from glr.storage.files import write_whole
from glr.storage.models import layers_and_metadata

SCRIPTS = ROOT / "Train&Test"
# The surrogate, the published code's separate ReLU network: what it has other than BP.py; and what
# is added to its seed. Of the seed of a network it would begin with that one's weights, and meet
# the same minibatches: too near a relative.
SURROGATE = "--hidden 50 --activation relu --steps 5000 --learning-rate 0.001"
SURROGATE_SEED = 1000


class Task(NamedTuple):
    """One run: a script of Train&Test, what it trains, and where its files go on this machine.

    extra : the flags that make the network, beside its name, data set and seed
    """

    script: str
    name: str
    dataset: str
    seed: int
    extra: tuple[str, ...]
    data_dir: str
    path: Path

    @property
    def flags(self) -> tuple[str, ...]:
        """The words after the script's name, but for the folders."""
        return flags_of(self.name, self.dataset, self.seed, self.extra)


def flags_of(name: str, dataset: str, seed: int, extra: Sequence[str]) -> tuple[str, ...]:
    """The words of a command line that trains this network."""
    return ("--name", name, "--dataset", dataset, "--seed", str(seed), *extra)


def tasks(
    constants: SimpleNamespace, networks: Mapping[str, tuple[str, str]], datasets: Iterable[str]
) -> list[Task]:
    """Every network × data set × seed, in that order; the seeds are 0 … SEEDS − 1, or SEED.

    Raises GLRError if a network's flags change any of these, or how many samples are held out.
    """
    seeds = range(constants.SEEDS) if hasattr(constants, "SEEDS") else [constants.SEED]
    chosen = {"VALIDATION": constants.VALIDATION} if hasattr(constants, "VALIDATION") else {}
    found = []
    for (name, (script, extra)), dataset, seed in product(networks.items(), datasets, seeds):
        run = (name, dataset, seed, tuple(extra.split()))
        places = ("--models-dir", str(constants.MODELS_DIR))
        settings = constants_of(script, [*flags_of(*run), *places])
        chosen |= {"NAME": name, "DATASET": dataset, "SEED": seed}
        for constant, value in chosen.items():
            if getattr(settings, constant) != value:
                raise GLRError(f"{script} {extra}: leave out {constant}, which is chosen for all")
        found.append(Task(script, *run, str(constants.DATA_DIR), run_path(settings)))
    return found


def constants_of(script: str, flags: Sequence[str]) -> SimpleNamespace:
    """The constants of a script of Train&Test after the flags; GLRError if it is not there."""
    path = SCRIPTS / script
    if not path.is_file():
        raise GLRError(f"{path}: no such script; name one of that folder")
    return script_constants(runpy.run_path(str(path)), list(flags))


def surrogate_constants(constants: SimpleNamespace) -> SimpleNamespace:
    """The constants of BP.py with which the surrogate of an attack is trained."""
    own = {"--dataset": constants.DATASET, "--seed": SURROGATE_SEED + constants.SEED}
    places = {"--data-dir": constants.DATA_DIR, "--models-dir": constants.MODELS_DIR}
    words = [str(word) for flag in (own | places).items() for word in flag]
    settings = constants_of("BP.py", [*SURROGATE.split(), *words])
    settings.NAME = "surrogate"  # a name that no training script takes
    settings.RESUME = None  # wherever there is something to resume
    return settings


def recorded_constants_of(task: Task) -> dict:
    """The constants that the run's model will record."""
    return recorded_constants(constants_of(task.script, task.flags))


def is_finished(task: Task) -> bool:
    """Whether the run's model is there, of today's constants of its script, and of today's data.

    Data of your own may have changed; others are checked whenever they are loaded.
    """
    if not task.path.exists():
        return False
    try:
        _, metadata = layers_and_metadata(task.path)
    except GLRError:  # a damaged file: the run is done again
        return False
    if task.dataset not in SHIPPED and metadata.get("training data") != data_fingerprint(task):
        return False
    return metadata.get("constants") == recorded_constants_of(task)


def data_fingerprint(task: Task) -> int:
    """That of the samples which the run would train on today."""
    return fingerprint(load_data(constants_of(task.script, task.flags)))


def trained_files(task: Task) -> dict[str, bytes]:
    """The files that the run writes, by name."""
    with tempfile.TemporaryDirectory() as folder:
        places = ("--data-dir", task.data_dir, "--models-dir", folder)
        run_training_script(task, places)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def are_trained(names: Iterable[str], constants: SimpleNamespace, datasets: Iterable[str]) -> bool:
    """Whether MODELS_DIR has these networks of study.py, with its constants and of all SEEDS."""
    networks = runpy.run_path(str(SCRIPTS / "study.py"))["NETWORKS"]
    wanted = tasks(constants, {name: networks[name] for name in names}, datasets)
    return all(is_finished(task) for task in wanted)


def run_training_script(task: Task, places: Sequence[str]) -> None:
    """Run the task's script, showing nothing; GLRError with its last complaint if it fails.

    places : the flags of its folders
    """
    command = [sys.executable, str(SCRIPTS / task.script), *task.flags, *places]
    ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if ran.returncode:
        complaint = (ran.stderr.strip() or f"ended with status {ran.returncode}").splitlines()[-1]
        run = " ".join([task.script, *task.flags])
        raise GLRError(f"{run}: {complaint.removeprefix(f'{task.script}: ')}")


@contextmanager
def workers(constants: SimpleNamespace) -> Iterator[None]:
    """Where joblib runs what it is given: PROCESSES here, or the Dask cluster at DASK."""
    from joblib import parallel_config  # noqa: PLC0415  (it takes as long as all the rest)

    if not getattr(constants, "DASK", ""):  # of many runs' scripts; demo.py has five, and none
        with parallel_config(n_jobs=constants.PROCESSES):
            yield
        return
    try:
        from distributed import Client  # noqa: PLC0415  (optional: requirements-cluster.txt)
    except ImportError as error:
        raise GLRError("DASK: run pip install -r requirements-cluster.txt first") from error
    try:
        client = Client(constants.DASK, timeout="10s")
    except (OSError, ValueError) as error:
        raise GLRError(f"DASK = {constants.DASK}: no scheduler answers there ({error})") from error
    with client, parallel_config(backend="dask", n_jobs=-1):
        yield


@contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: joblib ends its workers, and the scripts that they run."""
    usual = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)


def train_missing(wanted: list[Task], constants: SimpleNamespace) -> None:
    """Train those that are not finished: an interrupted study goes on where it was."""
    train([task for task in wanted if not is_finished(task)], constants)


def train(wanted: list[Task], constants: SimpleNamespace) -> None:
    """Run the tasks, and keep what they write: each as soon as it is done, its model last."""
    from joblib import Parallel, delayed  # noqa: PLC0415
    from tqdm import tqdm  # noqa: PLC0415

    for task in wanted:
        note = keep_other_model(task.path, recorded_constants_of(task))
        print(note, end="", file=sys.stderr)
    with ended_as_by_ctrl_c(), workers(constants):
        runs = Parallel(return_as="generator_unordered")(
            delayed(trained_files)(task) for task in wanted
        )
        for files in tqdm(runs, total=len(wanted), desc="training", unit="run"):
            keep(files, constants.MODELS_DIR)


def keep(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files to the folder, each whole or not at all, the model last."""
    for name in sorted(files, key=lambda name: name.endswith(".npz")):
        write_whole(folder / name, partial(_put, files[name]))


def _put(data: bytes, file: BinaryIO) -> None:
    file.write(data)


def script_methods() -> dict[str, GLR]:
    """The estimator of each GLR script at its default constants."""
    return {name: glr_method(constants_of(f"{name}.py", [])) for name in GLR_ROWS}


def datasets_found(constants: SimpleNamespace) -> list[str]:
    """Those of DATASETS that need no download; GLRError if there is none."""
    found = [
        name
        for name in constants.DATASETS
        if name == "digits" or name.endswith(".npz") or (constants.DATA_DIR / name).is_dir()
    ]
    if not found:
        raise GLRError(
            f"DATASETS: none of them is in {constants.DATA_DIR}; "
            'python "Train&Test/LRS.py" --dataset mnist downloads one'
        )
    return found


# Words after `python`, of the scripts in RobustnessTest.
FGSM_COMMAND = ("generate_adv.py",)
LBFGS_COMMAND = ("generate_adv.py", "--attack", "lbfgs")
CORRUPTIONS_COMMAND = ("noise_generate_adv.py",)
EVALUATION_COMMAND = ("testAdv.py",)


def run_robustness_script(words: tuple[str, ...], constants: SimpleNamespace, dataset: str) -> None:
    """Run one of the commands above on a data set, showing what it prints."""
    places = ("--data-dir", str(constants.DATA_DIR), "--models-dir", str(constants.MODELS_DIR))
    path = ROOT / "RobustnessTest" / words[0]
    command = [sys.executable, str(path), *words[1:], "--dataset", dataset, *places]
    if subprocess.run(command, check=False).returncode:
        raise GLRError(f"{words[0]} --dataset {dataset}: failed; its message stands above")


def write_pretrained(runs: list[Task], constants: SimpleNamespace, datasets: Iterable[str]) -> None:
    """Copy the models of seed 0 and the surrogates to models/pretrained/, which comes with glr."""
    attacks = [SimpleNamespace(**vars(constants), DATASET=name, SEED=0) for name in datasets]
    surrogates = [run_path(surrogate_constants(attack)) for attack in attacks]
    for path in [*(task.path for task in runs if task.seed == 0), *surrogates]:
        keep({path.name: path.read_bytes()}, PRETRAINED)
