"""The study: which runs are missing, what interrupts it, and what it writes."""

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from processes import command_lines_with

from glr.data.datasets import SHIPPED, fingerprint, load_dataset
from glr.errors import GLRError
from glr.network import new_network, sigmoid
from glr.robustness.corruptions import CORRUPTIONS
from glr.robustness.tables import GLR_ROWS, MATCHED, Row
from glr.scripts.constants import ROOT, SCRIPTS, constants_of
from glr.scripts.records import recorded_constants
from glr.storage.models import save_model
from glr.study import pages
from glr.study import runs as study

NAMES = ("LRS", "LRT", "LRSZ", "LRTZ")
NETWORKS = {"LRS": ("LRS.py", "--steps 40 --replicates 4"), "short": ("LRT.py", "--steps 20")}


def constants(folder, **changes):
    """The study's constants, with models in the folder."""
    values = {"SEEDS": 2, "PROCESSES": 2, "DASK": "", "DATA_DIR": ROOT / "data", "FORMAT": "png"}
    return SimpleNamespace(**{**values, "MODELS_DIR": folder, **changes})


def test_only_missing_and_outdated_runs_are_trained(tmp_path, monkeypatch):
    chosen = constants(tmp_path)
    runs = study.tasks(chosen, NETWORKS, ["digits"])
    assert [task.path.name for task in runs] == [
        "LRS_digits_seed0.npz",
        "LRS_digits_seed1.npz",
        "short_digits_seed0.npz",
        "short_digits_seed1.npz",
    ]
    study.train_missing(runs, chosen)
    assert all(study.is_finished(task) for task in runs)
    assert len(list(tmp_path.iterdir())) == 3 * len(runs)
    runs[2].path.unlink()
    changed = study.tasks(chosen, {"LRS": ("LRS.py", "--steps 41 --replicates 4")}, ["digits"])
    assert not any(study.is_finished(task) for task in changed)
    trained = []
    monkeypatch.setattr(study, "keep", lambda files, folder: trained.append(sorted(files)[1]))
    study.train_missing(runs, chosen)
    assert trained == ["short_digits_seed0.npz"]
    runs[0].path.write_bytes(runs[0].path.read_bytes()[:-100])
    assert not study.is_finished(runs[0])


def test_the_study_evaluates_the_samples_that_it_makes_and_no_others(monkeypatch):
    main = runpy.run_path(str(SCRIPTS / "study.py"))["main"]
    ran = []
    monkeypatch.setattr(study, "train_missing", lambda *_: None)
    for name in ("results_block", "write_page"):
        monkeypatch.setitem(main.__globals__, name, lambda *_, **__: None)
    monkeypatch.setattr(study, "run_robustness_script", lambda words, *_: ran.append(words))
    monkeypatch.setitem(main.__globals__, "write_results", lambda *asked: ran.append(asked))
    words = ["study.py", "--datasets", "digits", "--epsilon", "0.1", "0.2"]
    monkeypatch.setattr(sys, "argv", words)
    main()
    *made, (evaluation, name) = ran
    assert made == [
        ["generate_adv.py", "--epsilon", "0.1", "0.2"],
        ["generate_adv.py", "--attack", "lbfgs"],
        ["noise_generate_adv.py"],
    ]
    names = ["fgsm_eps0.1", "fgsm_eps0.2", "lbfgs", *CORRUPTIONS]
    assert names == evaluation.SAMPLES
    assert name == "study_digits_part"  # with constants that are not its own


def test_a_run_that_fails_ends_the_study_with_its_own_message(tmp_path):
    chosen = constants(tmp_path, SEEDS=1)
    runs = study.tasks(chosen, {"LRS": ("LRS.py", "--steps 10 --sigma 0")}, ["digits"])
    says = "LRS.py --name LRS --dataset digits --seed 0 --steps 10 --sigma 0: sigma = "
    with pytest.raises(GLRError, match=rf"^{says}\(0.0,\): every layer needs noise"):
        study.train_missing([task for task in runs if not task.path.exists()], chosen)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="no /proc to look at")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_study_that_is_ended_leaves_no_script_running(number, tmp_path):
    words = ("--datasets", "digits", "--seeds", "1", "--models-dir", str(tmp_path / "models"))
    command = [sys.executable, str(SCRIPTS / "study.py"), *words]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(  # noqa: PLW1509  (no threads)
            signal.SIGHUP, signal.SIG_DFL
        ),
    ) as process:
        while not command_lines_with(f"--models-dir\0{tmp_path}/tmp"):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(number)
        _, errors = process.communicate()
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 130
        assert errors == "study.py: interrupted; start it again\n"
    while command_lines_with(str(tmp_path)):
        time.sleep(0.1)
    assert not list(tmp_path.rglob("*.npz"))  # as a script that had gone on would have written


def test_what_is_chosen_for_all_runs_is_no_network_s_own(tmp_path):
    with pytest.raises(GLRError, match="--seed 9: leave out SEED, which is chosen for all"):
        study.tasks(constants(tmp_path), {"LRS": ("LRS.py", "--seed 9")}, ["digits"])


def test_a_run_is_for_docs_only_if_asked_for_with_the_script_s_own_constants():
    own = {"SEEDS": 5, "PENALTIES": (1.0, 2.0), "PROCESSES": 2, "WRITE_DOCS": False}
    script = {**own, "Path": Path}
    for changes, is_for_docs in (
        ({"WRITE_DOCS": True, "PROCESSES": 9}, True),
        ({}, False),
        ({"WRITE_DOCS": True, "SEEDS": 3}, False),
        ({"WRITE_DOCS": True, "PENALTIES": (1.0,)}, False),
    ):
        chosen = SimpleNamespace(**(own | changes), FORMAT="pdf")
        part = "_part" if changes.keys() & {"SEEDS", "PENALTIES"} else ""
        assert pages.page_of("page", chosen, script) == (f"page{part}", is_for_docs, "pdf")


def test_a_study_of_no_data_set_is_one_clear_error(tmp_path):
    with pytest.raises(GLRError, match="none of them is in"):
        study.datasets_found(SimpleNamespace(DATASETS=("mnist",), DATA_DIR=tmp_path))


def test_a_section_is_replaced_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    text = "head\n<!-- a: by b.py -->\n{}\n<!-- end of a -->\ntail\n<!-- end of b -->\n"
    page.write_text(text.format("old\nlines"))
    pages.write_section(page, "a", r"new \1")
    assert page.read_text() == text.format("\nnew \\1\n")
    for marks in ("", text * 2):
        page.write_text(marks)
        with pytest.raises(GLRError, match=f"page.md: {marks.count('a: ')} sections a; restore"):
            pages.write_section(page, "a", "new")
        assert page.read_text() == marks


@pytest.mark.parametrize(
    ("page", "name"),
    [("README.md", "results"), ("README.md", "whitebox")]
    + [
        ("docs/results.md", name)
        for name in ("results", "whitebox", "certified", "peers", "depth", "compare")
    ],
)
def test_the_pages_have_the_sections_that_are_written(page, name, tmp_path):
    text = (ROOT / page).read_text(encoding="utf-8")
    copy = tmp_path / "page.md"
    copy.write_text(text, encoding="utf-8")
    pages.write_section(copy, name, "new")
    assert copy.read_text(encoding="utf-8") != text


@pytest.mark.parametrize("earlier", ["Measured: old.", "Measured: old\nand older."])
@pytest.mark.parametrize("later", ["", "\n\n    python LRS.py\n"])
def test_the_measured_paragraph_of_a_script_is_replaced(earlier, later, tmp_path):
    script = tmp_path / "LRS.py"
    script.write_text(f'"""LRS.\n\n{earlier}\n{later}"""\nSTEPS = 1\n')
    pages.write_measured(script, "Measured over 5 seeds:\n96 %.")
    assert script.read_text() == (
        f'"""LRS.\n\nMeasured over 5 seeds:\n96 %.\n{later}"""\nSTEPS = 1\n'
    )


def test_readme_s_table_has_every_script_on_mnist():
    rows = {"digits": [], "mnist": [Row("LRT", s, "clean", 0, 0.97, 10) for s in (0, 1)]}
    seconds = {f"{name}_mnist": [2.0, 3.2] for name in (*GLR_ROWS, "BP")}
    header, *lines = pages.readme_lines(rows, seconds)
    assert len(lines) == 5
    assert {len(line) for line in lines} == {len(header)}
    script = ["[LRT.py](Train%26Test/LRT.py)", "threshold, cross-entropy"]
    assert lines[1] == [*script, "97.00 ± 0.00", "95.33", "–", "54.35", "3"]


@pytest.mark.parametrize(("name", "control"), MATCHED.items())
def test_a_matched_control_differs_from_its_network_in_the_estimator_alone(name, control):
    networks = runpy.run_path(str(SCRIPTS / "study.py"))["networks_on"]("mnist")
    ours, theirs = (
        recorded_constants(constants_of(script, extra.split()))
        for script, extra in (networks[name], networks[control])
    )
    shared = (ours.keys() & theirs.keys()) - {"NAME", "BACKEND"}
    assert {"SIGMA", "WEIGHT_DECAY", "LEARNING_RATE", "ACTIVATION"} < shared
    # Straight-through takes attacks better with its own weight decay, and is given it.
    shared -= {"WEIGHT_DECAY"} if control == "ST+L2C-adv" else set()
    assert {one: ours[one] for one in shared} == {one: theirs[one] for one in shared}


def test_a_script_says_its_mean_accuracy_and_seconds():
    rows = [Row("LRS", seed, "clean", 0, share, 10) for seed, share in ((0, 0.96), (1, 0.98))]
    assert pages.measured("LRS", {"digits": rows}, {"LRS_digits": [2.0, 4.0]}, 2) == (
        "Measured over 2 seeds: digits 97.00 ± 1.41 % in 3 s."
    )


def test_networks_are_the_study_s_by_their_constants_not_by_their_names(tmp_path):
    """The page would else have the figures of whatever a folder holds."""
    network = new_network([4, 3, 2], sigmoid, np.random.default_rng(0))
    names, datasets = ("LRT", "BP+L2C"), ["digits", "mnist"]
    chosen = constants(tmp_path, SEEDS=1)
    for task in study.tasks(chosen, study.study_networks(names, "mnist"), datasets):
        save_model(task.path, network, {"constants": task.recorded})
    assert study.are_trained(names, chosen, datasets)
    assert not study.are_trained(names, constants(tmp_path), datasets)  # of two seeds
    save_model(task.path, network, {"constants": task.recorded | {"STEPS": 9}})
    assert study.are_trained(names, chosen, ["digits"])
    assert not study.are_trained(names, chosen, datasets)
    with pytest.raises(GLRError, match="has no LRX; give LRS, LRT"):
        study.study_networks(["LRX"], "digits")


def test_the_size_of_adversarial_changes_is_that_of_the_data_set():
    constants = [
        constants_of(script, flags.split())
        for name in SHIPPED
        for script, flags in study.study_networks(["LRT-adv"], name).values()
    ]
    assert [one.ADVERSARIAL_EPSILON for one in constants] == [0.1, 0.1, 0.02]


def test_a_run_on_data_of_one_s_own_is_finished_only_while_they_are_the_same(tmp_path):
    path, rng = tmp_path / "own.npz", np.random.default_rng(0)
    arrays = {"x": rng.random((8, 4), np.float32), "y": np.arange(8) % 2}
    np.savez(path, **arrays, x_test=arrays["x"], y_test=arrays["y"])
    (task,) = study.tasks(constants(tmp_path, SEEDS=1), {"LRS": ("LRS.py", "")}, [str(path)])
    network = new_network([4, 3, 2], sigmoid, rng)
    found = fingerprint(load_dataset(str(path), tmp_path))
    save_model(task.path, network, {"constants": task.recorded, "training data": found})
    assert study.is_finished(task)
    np.savez(path, **arrays | {"x": arrays["x"] / 2}, x_test=arrays["x"], y_test=arrays["y"])
    assert not study.is_finished(task)
