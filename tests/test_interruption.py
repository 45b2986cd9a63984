"""Runs that are stopped, killed, continued, repeated, or that have company."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from processes import (
    ROOT,
    assert_same_run,
    assert_whole,
    command,
    copy_of_the_scripts,
    run,
    saved,
    started,
)
from runs import ORIGIN, small_state, state_with_checkpoint

from glr.data.datasets import Dataset, fingerprint
from glr.errors import GLRError
from glr.optimizers import adam
from glr.scripts.console import one_line_errors, stop_signals
from glr.storage.checkpoint import generator_words, restore_checkpoint, set_generator_words

KILLS = 50
NAME = "LRS_digits_seed0"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The folder of a run of LRS.py with the flags SHORT that nothing disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    ran = run("LRS.py", *SHORT, "--models-dir", folder)
    assert ran.returncode == 0, ran.stderr
    return folder


SHORT = ("--steps", 300, "--eval-every", 20, "--checkpoint-every", 1)


def test_killed_fifty_times_a_run_ends_with_the_same_weights(uninterrupted, tmp_path):
    """SIGKILL at random moments; a checkpoint after every step makes most of them writes."""
    rng = np.random.default_rng(0)
    kills = 0
    while kills < KILLS:
        process = started("LRS.py", *SHORT, "--resume", "--models-dir", tmp_path)
        try:
            assert process.wait(timeout=rng.uniform(0.2, 1.0)) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        assert_whole(tmp_path)
    killed_while_writing = list(tmp_path.glob(".*.tmp"))
    print(f"{len(killed_while_writing)} of {kills} were killed while a file was being written")
    assert killed_while_writing
    assert run("LRS.py", *SHORT, "--resume", "--models-dir", tmp_path).returncode == 0
    assert_same_run(tmp_path, uninterrupted, NAME)


def test_samples_are_old_or_new_wherever_their_writer_is_killed(tmp_path):
    """A process that writes sample files without end is killed 20 times."""
    path = tmp_path / "samples.npz"
    code = (
        "import sys, numpy as np; from pathlib import Path; from itertools import count\n"
        "from glr.robustness.samples import Samples, save_samples\n"
        "for i in count():\n"
        "    x = np.full((200, 64), i % 100 / 100, np.float32)\n"
        "    save_samples(Path(sys.argv[1]), Samples(x, x, np.zeros(200, np.int64), {'i': i}))\n"
    )
    rng = np.random.default_rng(1)
    for _ in range(20):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)])
        time.sleep(rng.uniform(0.2, 0.5))
        process.kill()
        process.wait()
        if path.exists():
            arrays, metadata = saved(path)
            assert np.all(arrays["x_adv"] == np.float32(metadata["i"] % 100 / 100))
    assert path.exists()


@pytest.mark.parametrize(
    ("script", "words", "number"),
    [
        ("LRTZ.py", ("--steps", 100_000, "--noise", "gaussian"), signal.SIGINT),
        ("LRS.py", ("--steps", 100_000, "--replicates", 16, "--hidden", 20, 12), signal.SIGTERM),
        ("LRT.py", ("--steps", 100_000), signal.SIGHUP),
    ],
)
def test_a_stopped_run_says_so_in_one_line_and_keeps_its_state(script, words, number, tmp_path):
    words = (*words, "--models-dir", tmp_path)
    process = begun(signal.SIG_DFL, number, command(script, *words))
    process.send_signal(number)
    _, complaint = process.communicate()
    assert process.returncode == 128 + number
    (line,) = complaint.splitlines()
    assert re.search(
        r"stopped after step \d+ of 100000, test accuracy [\d.]+ % at step 500; ", line
    )
    assert "--resume continues" in line
    (checkpoint,) = tmp_path.iterdir()
    assert checkpoint.suffix == ".checkpoint"


def begun(handler, number, words):
    """A script past step 500, which takes the signal so, whatever this process does."""
    process = subprocess.Popen(
        words,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, handler),  # noqa: PLW1509  (no threads)
    )
    assert process.stdout.readline().startswith("step 500/100000")
    return process


STUCK = """
import time
from pathlib import Path


def stuck(v):
    folder = Path(__file__).parent
    if (folder / "stop").exists():
        (folder / "here").touch()
        time.sleep(60)
    return v
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_wait_for_the_step(number, tmp_path):
    """The first waits for a step that takes a minute; a second Ctrl-C says where the state is."""
    home, models = copy_of_the_scripts(tmp_path / "home"), tmp_path / "models"
    folder, checkpoint = home / "Train&Test", models / f"{NAME}.checkpoint"
    source = (folder / "LRS.py").read_text()
    (folder / "LRS.py").write_text(source.replace("\n# -----", f"{STUCK}\n# -----", 1))
    words = ("--activation", "stuck", "--checkpoint-every", 1, "--models-dir", models)
    words = command("LRS.py", *words, home=home)
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        wait_for(checkpoint, process)
        (folder / "stop").touch()
        wait_for(folder / "here", process)
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)
        process.send_signal(number)
        complaint = process.stderr.read().decode()
    if number == signal.SIGTERM:
        assert (process.returncode, complaint) == (-number, "")
    else:
        where = f"an earlier state is in {checkpoint}; the same command with --resume"
        says = f"LRS.py: interrupted; {where} continues it\n"
        assert (process.returncode, complaint) == (130, says)
    assert_whole(models)


def wait_for(path, process):
    """Wait until the running process has made a file."""
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.01)


def test_ctrl_c_outside_of_the_loop_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err.endswith(": interrupted; start it again\n")


def test_the_first_signal_is_gathered_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    with stop_signals(lambda: "the note") as received:
        os.kill(os.getpid(), signal.SIGINT)
        assert received == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt, match="the note"):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_is_ignored_stays_so(number, tmp_path):
    """As SIGHUP is under nohup, and SIGINT in the background of a shell's script."""
    words = command("LRS.py", "--steps", 100_000, "--models-dir", tmp_path)
    process = begun(signal.SIG_IGN, number, words)
    process.send_signal(number)
    assert process.stdout.readline().startswith("step 1000/100000")
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("script", ["LRTZ.py", "BP.py"])
def test_a_stopped_run_continues_to_the_same_weights(script, tmp_path):
    """Stopped between two evaluations, with Gaussian noise, whose generator keeps half-words."""
    words = ("--steps", 900, "--eval-every", 200, "--noise", "gaussian", "--sigma", 1)
    words += ("--adversarial-epsilon", 0.05, "--replays", 3)
    name = f"{script.removesuffix('.py')}_digits_seed0"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(script, *words, "--models-dir", whole).returncode == 0
    process = subprocess.Popen(
        command(script, *words, "--models-dir", parts), text=True, stdout=subprocess.PIPE
    )
    assert process.stdout.readline().startswith("step 200/900")
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    ran = run(script, *words, "--models-dir", parts, "--resume")
    assert ran.returncode == 0, ran.stderr
    assert re.match(r"continues after step \d+, saved in ", ran.stderr)
    assert_same_run(parts, whole, name)
    assert not list(parts.glob("*.checkpoint"))


def test_nothing_to_resume_starts_at_the_beginning(uninterrupted, tmp_path):
    ran = run("LRS.py", *SHORT, "--resume", "--models-dir", tmp_path)
    assert ran.returncode == 0
    assert ran.stderr.startswith("nothing to resume at ")
    assert_same_run(tmp_path, uninterrupted, NAME)


def test_a_state_that_was_put_aside_is_named_where_there_is_no_other(tmp_path):
    words = ("--steps", 20, "--resume", "--models-dir", tmp_path)
    checkpoint = tmp_path / f"{NAME}.checkpoint"
    for second, ending in enumerate(("", "3", "2")):
        path = checkpoint.with_name(f"{checkpoint.name}.old{ending}")
        path.write_bytes(b"of another run")
        os.utime(path, (second, second))
    ran = run("LRS.py", *words)
    assert ran.returncode == 0
    assert ran.stderr == (
        f"nothing to resume at {checkpoint}: starts at step 1; to continue {path.name}, "
        f"which was put aside, rename it to {checkpoint.name}\n"
    )


SCRIPTS_OF_ALL = sorted(
    path
    for folder in ("Train&Test", "RobustnessTest", "benchmarks")
    for path in (ROOT / folder).glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("script", SCRIPTS_OF_ALL, ids=lambda path: path.name)
def test_ctrl_c_while_a_script_imports_is_no_traceback(script, tmp_path):
    (tmp_path / "numpy.py").write_text("raise KeyboardInterrupt\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    words = [sys.executable, str(script)]
    ran = subprocess.run(words, env=env, text=True, capture_output=True, check=False)
    assert (ran.returncode, ran.stdout) == (130, "")
    assert ran.stderr == ""


@pytest.mark.parametrize("script", SCRIPTS_OF_ALL, ids=lambda path: path.name)
def test_a_script_without_glr_says_in_one_line_what_to_install(script, tmp_path):
    copy = tmp_path / "elsewhere" / "my.py"
    copy.parent.mkdir()
    shutil.copy(script, copy)
    ran = subprocess.run(
        [sys.executable, str(copy)], cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert re.match(r"No module named '(glr|rivals)'; run pip install 'FOLDER\[scripts\]' ", line)


def test_two_runs_and_a_reader_at_once(uninterrupted, tmp_path, monkeypatch):
    """Two runs of the same seed write the same files while testAdv.py reads them."""
    for place in ("DATA", "MODELS", "RESULTS"):
        monkeypatch.setenv(f"GLR_{place}_DIR", str(tmp_path / place.lower()))
    models = tmp_path / "models"
    assert run("noise_generate_adv.py").returncode == 0
    assert run("LRS.py", *SHORT).returncode == 0
    readers = []
    for _ in range(2):
        runs = [started("LRS.py", *SHORT) for _ in range(2)]
        while any(process.poll() is None for process in runs):
            readers.append(run("testAdv.py"))
            assert_whole(models)
        assert [process.returncode for process in runs] == [0, 0]
    assert [(r.returncode, r.stderr) for r in readers] == [(0, "")] * len(readers)
    assert_same_run(models, uninterrupted, NAME)


def test_a_seed_gives_the_same_weights_with_any_number_of_threads(tmp_path):
    """Samples so large that BLAS, left to itself, adds up their products in another order."""
    rng = np.random.default_rng(0)
    path = tmp_path / "large.npz"
    np.savez(path, x=rng.random((600, 784), dtype=np.float32), y=rng.integers(0, 10, 600))
    flags = ("--dataset", path, "--steps", 50)
    for threads in ("1", "2"):
        places = {f"{library}_NUM_THREADS": threads for library in ("OPENBLAS", "OMP", "MKL")}
        words = command("LRS.py", *flags, "--models-dir", tmp_path / threads)
        subprocess.run(words, env={**os.environ, **places}, check=True, stdout=subprocess.DEVNULL)
    assert_same_run(tmp_path / "1", tmp_path / "2", "LRS_large_seed0")


def test_a_model_s_metadata_train_it_again(tmp_path):
    words = "--steps 120 --sigma 0.7 --hidden 20 12 --noise laplace --no-control-variate --seed 5"
    first = run("LRTZ.py", *words.split(), "--eval-every", 50, "--models-dir", tmp_path / "one")
    assert first.returncode == 0, first.stderr
    model = tmp_path / "one" / "LRTZ_digits_seed5.npz"
    again = run("LRTZ.py", "--like", model, "--models-dir", tmp_path / "two")
    assert again.returncode == 0, again.stderr
    assert_same_run(tmp_path / "one", tmp_path / "two", "LRTZ_digits_seed5")
    other = run("LRTZ.py", "--like", model, "--seed", 6, "--models-dir", tmp_path / "two")
    assert "seed 6" in other.stdout.splitlines()[-1]
    wrong = run("LRS.py", "--like", model, "--models-dir", tmp_path / "two")
    assert wrong.returncode == 2
    assert "was trained by LRTZ.py, not by LRS.py" in wrong.stderr
    arrays, metadata = saved(model)
    del metadata["constants"]["LOCAL_DIFFERENCES"]
    np.savez(tmp_path / "earlier.npz", **arrays, metadata=json.dumps(metadata))
    earlier = run("LRTZ.py", "--like", tmp_path / "earlier.npz", "--models-dir", tmp_path / "two")
    assert earlier.returncode == 2
    assert "earlier.npz: does not say LOCAL_DIFFERENCES" in earlier.stderr


def test_divergence_keeps_the_last_good_state_which_another_step_size_continues(tmp_path):
    """SGD with this learning rate and penalty multiplies the weights by −59 at every step."""
    words = ("--optimizer", "sgd", "--weight-decay", 1, "--steps", 400, "--models-dir", tmp_path)
    words = (*words, "--checkpoint-every", 4, "--eval-every", 100)
    ran = run("LRSZ.py", *words, "--learning-rate", 60)
    assert ran.returncode == 3
    (line,) = ran.stderr.splitlines()
    step = int(re.match(r"LRSZ\.py: step (\d+): ", line).group(1))
    last = (step - 1) // 4 * 4
    path = tmp_path / "LRSZ_digits_seed0.checkpoint"
    assert last > 0
    assert line.endswith(f". An earlier state is in {path}")
    arrays, metadata = saved(path)
    assert metadata["step"] == last
    assert np.isfinite(arrays["parameters"]).all()
    ran = run("LRSZ.py", *words, "--learning-rate", 60, "--checkpoint-every", 400)
    assert ran.returncode == 3
    assert "An earlier state" not in ran.stderr, "that is another run's"
    ran = run("LRSZ.py", *words, "--learning-rate", 0.5, "--resume")
    assert ran.returncode == 0, ran.stderr
    assert f"continues after step {last}, " in ran.stderr
    assert ran.stderr.rstrip().endswith("with other LEARNING_RATE")
    _, metadata = saved(tmp_path / "LRSZ_digits_seed0.npz")
    assert metadata["retuned"] == [{"after_step": last, "was": {"LEARNING_RATE": 60.0}}]
    again = run("LRSZ.py", "--like", tmp_path / "LRSZ_digits_seed0.npz")
    assert again.returncode == 2
    assert "changed half-way" in again.stderr


@pytest.fixture
def checkpoint(tmp_path):
    """The path of a checkpoint, its state, and its arrays."""
    state, path = state_with_checkpoint(tmp_path)
    with np.load(path, allow_pickle=False) as arrays:
        return path, state, {name: arrays[name] for name in arrays.files}


def test_a_checkpoint_holds_all_that_training_changes(checkpoint):
    path, old, _ = checkpoint
    new = small_state(1)
    restore_checkpoint(path, new, ORIGIN, adam)
    np.testing.assert_array_equal(new.parameters, old.parameters)
    assert new.optimizer.keys() == old.optimizer.keys() == {"mean", "square", "step"}
    for name, array in old.optimizer.items():
        np.testing.assert_array_equal(new.optimizer[name], array)
    np.testing.assert_array_equal(new.rng.random(5), old.rng.random(5))
    assert (len(old.history), len(old.risks)) == (2, 1)
    for name in ("step", "seconds", "risks", "history", "retuned"):
        assert getattr(new, name) == getattr(old, name)


def test_other_samples_or_labels_in_training_have_another_fingerprint():
    x, y = np.ones((5, 3), np.float32), np.array([0, 1, 0, 1, 0])
    other_x, other_y = x.copy(), y.copy()
    other_x[4, 2], other_y[4] = 0.5, 1
    own = fingerprint(Dataset("toy", x, y, x, y))
    assert fingerprint(Dataset("toy", x.copy(), y.copy(), other_x, other_y)) == own
    assert fingerprint(Dataset("toy", other_x, y, x, y)) != own
    assert fingerprint(Dataset("toy", x, other_y, x, y)) != own


def test_any_words_are_a_state_of_the_generator():
    """As the fuzzed checkpoints found: NumPy raises OverflowError for the last two."""
    rng = np.random.Generator(np.random.SFC64(0))
    set_generator_words(rng, np.full(6, 2**64 - 1, np.uint64))
    assert generator_words(rng).tolist() == [2**64 - 1] * 4 + [1, 2**32 - 1]


def rewritten(path, arrays, **other):
    """The checkpoint with other arrays in the place of some; None takes one away."""
    arrays = {name: a for name, a in {**arrays, **other}.items() if a is not None}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def with_step(step):
    """Metadata of the right origin that claim another step than the arrays."""
    place = {"step": step, "seconds": 1.0, "retuned": [], "origin": ORIGIN}
    return np.array(json.dumps(place))


@pytest.mark.parametrize(
    "other",
    [
        {"parameters": None},
        {"parameters": np.ones(25, np.float32)},
        {"parameters": np.full(26, np.nan, np.float32)},
        {"parameters": np.ones(26)},
        {"optimizer_mean": None},
        {"optimizer_velocity": np.ones(26, np.float32)},
        {"optimizer_step": np.ones(3)},
        {"rng": np.ones(5, np.uint64)},
        {"rng": np.ones(6, np.int64)},
        {"history": np.ones((2, 3))},
        {"history": np.full((2, 6), np.nan)},
        {"history": np.ones((2, 6))},
        {"history": None},
        {"risks": None},
        {"risks": np.array([np.inf])},
        {"metadata": None},
        {"metadata": np.array("[]")},
        {"metadata": np.array('{"step": 5, "seconds": 1.0, "retuned": [5], "origin": {}}')},
        {"metadata": with_step(9)},
        {"metadata": with_step(11)},
        {"metadata": np.array('{"step": -1, "seconds": 1.0, "retuned": [], "origin": {}}')},
        {"metadata": np.array('{"step": 5, "seconds": 1.0, "retuned": [], "origin": []}')},
        {"parameters": np.array([{}], object)},
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name_and_changes_nothing(other, checkpoint):
    path, _, arrays = checkpoint
    rewritten(path, arrays, **other)
    new = small_state(1)
    before = new.parameters.copy()
    with pytest.raises(
        GLRError, match=f"^{re.escape(str(path))}: .*; leave out --resume to start anew$"
    ):
        restore_checkpoint(path, new, ORIGIN, adam)
    np.testing.assert_array_equal(new.parameters, before)
    assert (new.step, new.optimizer, new.history) == (0, {}, [])


def test_what_a_checkpoint_says_of_its_run_stays_one_short_line(checkpoint):
    path, _, arrays = checkpoint
    place = {"step": 5, "seconds": 1.0, "retuned": [], "origin": {"SEED": "\n" + "very long " * 99}}
    rewritten(path, arrays, metadata=np.array(json.dumps(place)))
    with pytest.raises(GLRError) as caught:
        restore_checkpoint(path, small_state(), ORIGIN, adam)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("name", "value"), [("SEED", 1), ("training data", 8)])
def test_a_checkpoint_of_another_run_is_refused(name, value, checkpoint):
    path, *_ = checkpoint
    with pytest.raises(GLRError, match=rf"belongs to a run of {name} = \d, not {value}; "):
        restore_checkpoint(path, small_state(), {**ORIGIN, name: value}, adam)
