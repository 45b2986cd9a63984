"""Many runs of the training scripts: what is to be trained, and training what is missing.

A run is a script started as a process of its own, as a user starts it, in a folder of its own;
its files come back as bytes. So it makes no difference on which machine it runs.
"""

from __future__ import annotations

import re
import runpy
import statistics
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO, NamedTuple

from glr.comparison import (
    REPLICATES,
    draw_accuracy_against_time,
    draw_variances,
    variances_by_replicates,
)
from glr.constants import ROOT, script_constants
from glr.data import load_dataset
from glr.errors import GLRError
from glr.estimator import GLR
from glr.evaluation import PRETRAINED, results_dir
from glr.experiment import glr_method, recorded_constants, run_generator, run_path
from glr.files import write_whole
from glr.models import load_model
from glr.network import accuracy
from glr.perturbation import perturbed, surrogate
from glr.robustness import (
    Row,
    cell,
    markdown_table,
    mean_and_spread,
    present,
    published_cell,
    read_csv,
    table_lines,
    what_controls_say,
    what_published_cells_say,
    what_the_estimate_changes,
)

SCRIPTS = ROOT / "Train&Test"
RESULTS_MARKS = ('<!-- results: written by "Train&Test/study.py" -->', "<!-- end of results -->")
ABLATION_MARKS = (
    '<!-- ablation: written by "Train&Test/ablation.py" -->',
    "<!-- end of ablation -->",
)
PENALTY_MARKS = (
    '<!-- penalties: written by "RobustnessTest/calibrate.py" -->',
    "<!-- end of penalties -->",
)
VARIANCE_MARKS = ('<!-- variance: written by "Train&Test/study.py" -->', "<!-- end of variance -->")


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
                places = ("--models-dir", str(constants.MODELS_DIR))
                path = run_path(constants_of(script, [*flags, *places]))
                found.append(Task(script, flags, str(constants.DATA_DIR), path))
    return found


def constants_of(script: str, flags: Sequence[str]) -> SimpleNamespace:
    """The constants of a script of Train&Test after the flags."""
    return script_constants(runpy.run_path(str(SCRIPTS / script)), list(flags))


def is_finished(task: Task) -> bool:
    """Whether the run's model is there, and was trained with the constants of today's script."""
    if not task.path.exists():
        return False
    wanted = recorded_constants(constants_of(task.script, task.flags))
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


@contextmanager
def workers(constants: SimpleNamespace) -> Iterator[None]:
    """Where joblib runs what it is given: PROCESSES here, or the Dask cluster at DASK."""
    from joblib import parallel_config  # noqa: PLC0415  (it takes as long as all the rest)

    if not constants.DASK:
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


def train_missing(wanted: list[Task], constants: SimpleNamespace) -> None:
    """Run the tasks that are not finished, and keep what they write.

    A run is kept as soon as it is done, its model last: an interrupted study goes on from there.
    """
    from joblib import Parallel, delayed  # noqa: PLC0415
    from tqdm import tqdm  # noqa: PLC0415

    missing = [task for task in wanted if not is_finished(task)]
    with workers(constants):
        runs = Parallel(return_as="generator_unordered")(
            delayed(trained_files)(task) for task in missing
        )
        for files in tqdm(runs, total=len(missing), desc="training", unit="run"):
            keep(files, constants.MODELS_DIR)


def keep(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files to the folder, each whole or not at all, the model last."""
    for name in sorted(files, key=lambda name: name.endswith(".npz")):
        write_whole(folder / name, partial(_put, files[name]))


def _put(data: bytes, file: BinaryIO) -> None:
    file.write(data)


def script_methods() -> dict[str, GLR]:
    """The estimator of each GLR script at its default constants."""
    names = ("LRS", "LRT", "LRSZ", "LRTZ")
    return {name: glr_method(constants_of(f"{name}.py", [])) for name in names}


def datasets_found(constants: SimpleNamespace) -> list[str]:
    """Those of DATASETS that need no download."""
    return [
        name
        for name in constants.DATASETS
        if name == "digits" or name.endswith(".npz") or (constants.DATA_DIR / name).is_dir()
    ]


FGSM = ("generate_adv.py",)
LBFGS = ("generate_adv.py", "--attack", "lbfgs")
CORRUPTIONS = ("noise_generate_adv.py",)
EVALUATION = ("testAdv.py",)


def run_robustness_script(words: tuple[str, ...], constants: SimpleNamespace, dataset: str) -> None:
    """Run one of the commands above on a data set, showing what it prints."""
    places = ("--data-dir", str(constants.DATA_DIR), "--models-dir", str(constants.MODELS_DIR))
    path = ROOT / "RobustnessTest" / words[0]
    command = [sys.executable, str(path), *words[1:], "--dataset", dataset, *places]
    if subprocess.run(command, check=False).returncode:
        raise GLRError(f"{' '.join(words)} --dataset {dataset}: failed; its message stands above")


def write_pretrained(runs: list[Task], datasets: list[str]) -> None:
    """Copy the models of seed 0 and the surrogates to models/pretrained/, which comes with glr."""
    models_dir = runs[0].path.parent
    surrogates = [models_dir / f"surrogate_{dataset}_seed0.npz" for dataset in datasets]
    for path in [t.path for t in runs if t.path.stem.endswith("_seed0")] + surrogates:
        keep({path.name: path.read_bytes()}, PRETRAINED)


def write_comparisons(constants: SimpleNamespace, dataset: str) -> None:
    """Draw the variances of both estimators, and accuracy against time, to docs/."""
    data = load_dataset(dataset, constants.DATA_DIR)
    variances = variances_by_replicates(script_methods(), data, run_generator(0))
    draw_variances(ROOT / "docs" / "variance.png", variances)
    names = ("LRS", "LRT", "LRSZ", "LRTZ", "BP", "LRS-published")
    histories = {name: constants.MODELS_DIR / f"{name}_{dataset}_seed0.csv" for name in names}
    draw_accuracy_against_time(ROOT / "docs" / "time.png", histories)
    lines = [["method", *(f"R {R}" for R in REPLICATES)]]
    for name, kinds in variances.items():
        for kind, values in zip(("", ", published estimator"), kinds, strict=True):
            lines.append([name + kind, *(f"{value:.3g}" for value in values)])
    block = f"On {dataset}:\n\n{markdown_table(lines)}"
    write_between(ROOT / "docs" / "results.md", *VARIANCE_MARKS, f"\n{block}\n")


def write_penalties(constants: SimpleNamespace) -> None:
    """Write docs/results.md's table of BP's accuracy under L-BFGS against the attack's penalty."""
    places = ("--data-dir", str(constants.DATA_DIR), "--models-dir", str(constants.MODELS_DIR))
    words = ("--attack", "lbfgs", "--dataset", constants.DATASET, *places)
    script = runpy.run_path(str(ROOT / "RobustnessTest" / "generate_adv.py"))
    data = load_dataset(constants.DATASET, constants.DATA_DIR)
    label, batch = data.name, (data.x_test, data.y_test)
    names = [f"BP_{label}_seed{seed}.npz" for seed in range(constants.SEEDS)]
    networks = [load_model(constants.MODELS_DIR / name).network for name in names]
    published = published_cell(label, "BP", "lbfgs")
    lines = [["penalty", "BP under L-BFGS (%)", "published"]]
    for penalty in constants.PENALTIES:
        attack = script_constants(script, [*words, "--penalty", str(penalty)])
        x_adv = perturbed(attack, surrogate(attack).network, batch, None)
        reached = [100 * accuracy(network.logits(x_adv), data.y_test) for network in networks]
        lines.append([f"{penalty:g}", mean_and_spread(reached), published])
    table = markdown_table(lines)
    print(table)
    write_between(ROOT / "docs" / "results.md", *PENALTY_MARKS, f"\n{table}\n")


def write_ablation(runs: list[Task]) -> None:
    """Write docs/results.md's table of what else was tried, on held-out training samples."""
    accuracies: dict[str, list[float]] = {}
    for task in runs:
        reached = load_model(task.path).metadata["metrics"]["validation_accuracy"]
        accuracies.setdefault(" ".join([task.script, *task.flags[6:]]), []).append(100 * reached)
    lines = [["command", "validation accuracy (%)"]]
    lines += [[f"`{command}`", mean_and_spread(values)] for command, values in accuracies.items()]
    write_between(ROOT / "docs" / "results.md", *ABLATION_MARKS, f"\n{markdown_table(lines)}\n")


def write_tables(constants: SimpleNamespace, runs: list[Task], datasets: list[str]) -> None:
    """Write README's table, docs/results.md, and what the training scripts say of themselves."""
    rows = {dataset: read_csv(results_dir() / f"{dataset}.csv") for dataset in datasets}
    seconds: dict[str, list[float]] = {}
    for task in runs:
        run = load_model(task.path).metadata["metrics"]["seconds"]
        seconds.setdefault(task.path.stem.rsplit("_seed", 1)[0], []).append(run)
    note = (
        f"Test accuracy in percent, noise-free, mean ± sd over {constants.SEEDS} seeds; "
        "published: Peng et al. (2022); FGSM transferred from a ReLU network, ε = 0.1; seconds on "
        'one core. Written by `python "Train&Test/study.py"`; more in '
        "[docs/results.md](docs/results.md)."
    )
    table = markdown_table(readme_lines(rows, seconds))
    write_between(ROOT / "README.md", *RESULTS_MARKS, f"\n{table}\n\n{note}\n")
    pages = "\n\n".join(dataset_page(dataset, rows[dataset]) for dataset in datasets)
    write_between(ROOT / "docs" / "results.md", *RESULTS_MARKS, f"\n{pages}\n")
    for name in ("LRS", "LRT", "LRSZ", "LRTZ", "BP"):
        write_measured(SCRIPTS / f"{name}.py", measured(name, rows, seconds, constants.SEEDS))


def readme_lines(rows: dict[str, list[Row]], seconds: dict[str, list[float]]) -> list[list[str]]:
    """The cells of README's table, a header first."""
    lines = [["data", "script", "clean", "published", "FGSM", "published", "seconds"]]
    for dataset, measured_rows in rows.items():
        for model in ("LRS", "LRT", "LRSZ", "LRTZ", "BP"):
            line = [dataset, f"[{model}.py](Train%26Test/{model}.py)"]
            for condition in ("clean", "fgsm"):
                line.append(mean_and_spread(cell(measured_rows, model, condition)))
                line.append(published_cell(dataset, model, condition) or "–")
            lines.append([*line, f"{statistics.fmean(seconds[f'{model}_{dataset}']):.0f}"])
    return lines


def dataset_page(dataset: str, rows: list[Row]) -> str:
    """The data set's tables as Markdown: published rows, controls, worst seeds."""
    main, controls = present(rows)
    worst = [["model", "worst seed, clean"]] + [
        [model, f"{min(cell(rows, model, 'clean')):.2f}"] for model in main + controls
    ]
    parts = [
        f"### {dataset}",
        markdown_table(table_lines(rows, dataset, main)),
        what_published_cells_say(rows, dataset),
        "Controls, and the published estimator with its constants:",
        markdown_table(table_lines(rows, dataset, controls)),
        what_controls_say(rows),
        what_the_estimate_changes(rows),
        markdown_table(worst),
    ]
    return "\n\n".join(filter(None, parts))


def measured(
    name: str, rows: dict[str, list[Row]], seconds: dict[str, list[float]], seeds: int
) -> str:
    """What a script's docstring says of its accuracy and time, in lines as long as code may be."""
    parts = [
        f"{dataset} {mean_and_spread(cell(measured_rows, name, 'clean'))} % in "
        f"{statistics.fmean(seconds[f'{name}_{dataset}']):.0f} s"
        for dataset, measured_rows in rows.items()
    ]
    return textwrap.fill(f"Measured over {seeds} seeds: {', '.join(parts)}.", 100)


def write_measured(script: Path, paragraph: str) -> None:
    """Replace the paragraph of a script's docstring that begins with "Measured"."""
    earlier = re.compile(r"^Measured.*(?:\n(?!\"\"\").+)*", re.MULTILINE)
    text = earlier.sub(paragraph, script.read_text(encoding="utf-8"), count=1)
    write_whole(script, lambda file: file.write(text.encode()))


def write_between(path: Path, begin: str, end: str, block: str) -> None:
    """Replace what stands between the line `begin` and the line `end` of a text file."""
    head, rest = path.read_text(encoding="utf-8").split(begin + "\n", 1)
    _, tail = rest.split(end, 1)
    text = f"{head}{begin}\n{block}\n{end}{tail}"
    write_whole(path, lambda file: file.write(text.encode()))
