"""The scripts as their users read and run them: as processes, from other folders, with flags."""

import ast
import csv
import fcntl
import os
import platform
import pty
import re
import struct
import subprocess
import sys
import termios
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from processes import ROOT, assert_same_run, command, copy_of_the_scripts, history, run, saved

GLR_SCRIPTS = ("LRS", "LRSZ", "LRT", "LRTZ")
# What differs between them.
DIFFERS = (
    *("NAME", "ACTIVATION", "LOSS", "REPLICATES", "STANDARDISED_LOSS", "STEPS", "WEIGHT_DECAY"),
)
HAS_MNIST = (Path(os.environ.get("GLR_DATA_DIR", ROOT / "data")) / "mnist").is_dir()


def source_of(script):
    return (ROOT / "Train&Test" / f"{script}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", GLR_SCRIPTS)
def test_the_four_differ_by_name_neurons_loss_and_their_constants_alone(script):
    """All else, comments too, is the same text: read one, and you have read all."""

    def common(name):
        docstring, rest = source_of(name).removeprefix('"""').split('"""', 1)
        assert docstring.startswith(f"{name}: ")
        rest = re.sub(rf"^({'|'.join(DIFFERS)}) = \S+", r"\1 =", rest, flags=re.MULTILINE)
        return re.sub(r"^( +from glr.(losses|network) import) .*", r"\1", rest, flags=re.MULTILINE)

    assert common(script) == common("LRS")


def call_in_the_loop(script):
    """What is called at each minibatch, beside run.descend, in the script's main()."""
    (main,) = (
        node
        for node in ast.parse(source_of(script)).body
        if isinstance(node, ast.FunctionDef) and node.name == "main"
    )
    (loop,) = (node for node in ast.walk(main) if isinstance(node, ast.For))
    assert ast.unparse(loop.iter) == "run.minibatches()"
    calls = [node for node in ast.walk(loop) if isinstance(node, ast.Call)]
    (call,) = (node for node in calls[1:] if ast.unparse(node.func) != "run.descend")
    return call


@pytest.mark.parametrize("script", [*GLR_SCRIPTS, "BP"])
def test_a_reader_finds_the_gradient_in_main(script):
    call = call_in_the_loop(script)
    assert ast.unparse(call.func) == "gradient"
    constants = {word.arg: ast.unparse(word.value) for word in call.keywords if word.arg != "rng"}
    assert constants == {name: name.upper() for name in constants}, "each is a constant of its name"


@pytest.mark.parametrize(
    ("script", "used"),
    [*((script, {"numpy"}) for script in GLR_SCRIPTS), ("BP", {"numpy", "tensorflow"})],
)
def test_short_run_writes_weights_history_and_picture(script, used, tmp_path):
    words = ("--steps", 60, "--eval-every", 25, "--models-dir", tmp_path, "--seed", 3)
    ran = run(f"{script}.py", *words, cwd=ROOT / "Train&Test")
    assert ran.returncode == 0, ran.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"{script}_digits_seed3.{ending}" for ending in ("csv", "npz", "png")
    ]
    arrays, metadata = saved(tmp_path / f"{script}_digits_seed3.npz")
    assert {name: a.shape for name, a in arrays.items()} == {
        "W0": (64, 50),
        "b0": (50,),
        "W1": (50, 10),
        "b1": (10,),
    }
    assert all(a.dtype == np.float32 for a in arrays.values())
    assert metadata["activation"] == ("threshold" if "T" in script else "sigmoid")
    assert metadata["loss"] == ("zero_one" if "Z" in script else "cross_entropy")
    assert metadata["dataset"] == "digits"
    assert metadata["constants"]["SEED"] == 3
    assert metadata["versions"] == {
        "python": platform.python_version(),
        **{package: version(package) for package in used},
    }
    with (tmp_path / f"{script}_digits_seed3.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "step",
        "epoch",
        "seconds",
        "train_loss",
        "test_loss",
        "test_accuracy",
    ]
    assert [int(row["step"]) for row in rows] == [0, 25, 50, 60]
    assert rows[0]["train_loss"] == "nan"
    accuracy = metadata["metrics"]["test_accuracy"]
    assert float(rows[-1]["test_accuracy"]) == pytest.approx(accuracy, abs=1e-5)
    summary = ran.stdout.splitlines()[-1]
    assert summary.startswith(f"{script}  digits  seed 3  test accuracy {100 * accuracy:.2f} %")
    assert summary.endswith(f"{script}_digits_seed3.npz")
    assert ran.stdout.splitlines()[0].startswith("step 25/60  loss ")


@pytest.mark.parametrize(
    ("script", "goal"), [("LRS", 0.95), ("LRT", 0.95), ("LRSZ", 0.93), ("LRTZ", 0.93)]
)
def test_default_constants_learn_the_digits(script, goal, tmp_path):
    ran = run(f"{script}.py", "--models-dir", tmp_path)
    assert ran.returncode == 0, ran.stderr
    _, metadata = saved(tmp_path / f"{script}_digits_seed0.npz")
    assert metadata["metrics"]["test_accuracy"] >= goal


@pytest.mark.skipif(not HAS_MNIST, reason="no MNIST: set GLR_DATA_DIR to a folder that has mnist/")
@pytest.mark.parametrize("script", GLR_SCRIPTS)
def test_mnist_is_learnt_on_held_out_training_samples(script, tmp_path):
    words = ("--dataset", "mnist", "--steps", 2000, "--validation", 5000)
    ran = run(f"{script}.py", *words, "--models-dir", tmp_path)
    assert ran.returncode == 0, ran.stderr
    arrays, metadata = saved(tmp_path / f"{script}_mnist_seed0_validation.npz")
    assert arrays["W0"].shape == (784, 50)
    assert "test_accuracy" not in metadata["metrics"]
    assert metadata["metrics"]["validation_accuracy"] >= 0.92


def test_a_seed_gives_the_same_weights_bit_for_bit(tmp_path):
    for folder in ("one", "two"):
        words = ("--steps", 40, "--models-dir", tmp_path / folder)
        assert run("LRTZ.py", *words).returncode == 0
    assert_same_run(tmp_path / "one", tmp_path / "two", "LRTZ_digits_seed0")


def test_flags_override_constants_and_are_stored(tmp_path):
    words = "--sigma 1 --hidden 20 12 --replicates 8 --noise gaussian --steps 10 --perturb weights"
    ran = run("LRS.py", *words.split(), "--no-control-variate", "--models-dir", tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    arrays, metadata = saved(tmp_path / "LRS_digits_seed0.npz")
    assert [arrays[f"W{t}"].shape for t in range(3)] == [(64, 20), (20, 12), (12, 10)]
    constants = metadata["constants"]
    assert constants["SIGMA"] == [1.0]
    assert constants["NOISE"] == "gaussian"
    assert constants["CONTROL_VARIATE"] is False


def test_own_data_in_an_npz(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    x = (rng.normal(size=(400, 5)) + 3 * np.eye(5)[y]).astype(np.float32)
    np.savez(tmp_path / "blobs.npz", x=x, y=y)
    words = ("--dataset", "blobs.npz", "--steps", 600, "--models-dir", tmp_path)
    ran = run("LRT.py", *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    _, metadata = saved(tmp_path / "LRT_blobs_seed0.npz")
    assert metadata["metrics"]["test_accuracy"] > 0.9


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--sigm 3", "unrecognized arguments"),
        ("--sigma x", "invalid float value: 'x'"),
        ("--sigma 0", "every layer needs noise; give finite numbers > 0"),
        ("--sigma 1e39", "SIGMA = 1e+39: must be a number ≥ 0, below 1e38"),
        ("--learning-rate 1e39", "LEARNING_RATE = 1e+39: must be a number > 0, below 1e38"),
        ("--sigma 1 1 1 1", "sigma has 4 numbers for 2 layers; give 1 or 2"),
        ("--replicates 1 --no-local-differences", "replicates = 1: the control variate"),
        ("--replicates 0", "REPLICATES = 0: must be a whole number ≥ 1"),
        ("--local-differences hidden", "invalid choice: 'hidden'"),
        ("--hidden 0", "HIDDEN = 0"),
        ("--hidden" + " 2" * 501, "HIDDEN: 501 layers are too many for a model file"),
        ("--name " + "n" * 230, "File name too long"),
        ("--activation main", "no such name; give one of sigmoid, threshold, tanh, relu\n"),
        ("--noise main", "no such name; give one of gaussian, laplace, logistic\n"),
        ("--hidden 99999999999999999999", "weights, more than 268435456; use fewer"),
        ("--steps -5", "STEPS = -5"),
        ("--noise cauchy", "NOISE = cauchy: no such name"),
        ("--activation step", "ACTIVATION = step: no such name"),
        ("--perturb inputs", "PERTURB = inputs"),
        ("--standardised-loss", "standardised_loss = True is for a loss of 0 or 1"),
        ("--learning-rate nan", "LEARNING_RATE = nan"),
        ("--name ../evil", "NAME = ../evil"),
        ("--name surrogate", "NAME = surrogate"),
        ("--dataset nothing", "nothing"),
        ("--dataset nothing.npz", "nothing.npz"),
        ("--validation 99999", "99999"),
        ("--dataset $(touch${IFS}owned).npz", "no such data set"),
        ("--dataset __import__('os').mkdir('owned').npz", "no such data set"),
        ("--checkpoint-every 0", "CHECKPOINT_EVERY = 0"),
        ("--like nothing.npz", "nothing.npz: no such model file"),
    ],
)
def test_bad_words_get_one_line_and_status_2_and_write_nothing(words, complaint, tmp_path):
    ran = run("LRS.py", *words.split(), "--models-dir", tmp_path, cwd=tmp_path)
    assert ran.returncode == 2
    assert complaint in ran.stderr
    assert len(ran.stderr.splitlines()) == 1, ran.stderr
    assert not list(tmp_path.iterdir())


def test_a_network_larger_than_the_memory_is_one_line(tmp_path):
    """Of 300 MB, where the process may have 1 GB in all: parameters, slope, gradient, Adam's."""
    words = command("LRS.py", "--hidden", 1_000_000, "--models-dir", tmp_path)
    ran = subprocess.run(
        ["sh", "-c", 'ulimit -v 1000000 && exec "$@"', "sh", *words],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 2
    assert re.fullmatch(
        r"LRS\.py: not enough memory \(.*\); make the network, .* smaller\n", ran.stderr
    )


def test_divergence_is_one_line_with_the_step_and_status_3(tmp_path):
    words = ("--learning-rate", 1e30, "--optimizer", "sgd", "--models-dir", tmp_path)
    ran = run("LRS.py", *words)
    assert ran.returncode == 3
    (line,) = ran.stderr.splitlines()
    assert re.fullmatch(
        r"LRS\.py: step \d+: (the loss is (nan|inf)|the weights overflow); lower LEARNING_RATE.*",
        line,
    )
    assert not list(tmp_path.iterdir())


def on_a_terminal(columns, *words):
    """The finished process of `python words`, and what it wrote to stderr, a terminal."""
    terminal, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("4H", 24 if columns else 0, columns, 0, 0))
    ran = subprocess.run(command(*words), stdout=subprocess.PIPE, stderr=its_end, check=False)
    os.close(its_end)
    shown = os.read(terminal, 2**16).decode()
    os.close(terminal)
    return ran, shown


@pytest.mark.parametrize("columns", [0, 40, 80])  # 0: of a terminal that does not tell its size
def test_on_a_terminal_the_bar_is_whole_and_each_evaluation_leaves_a_line(columns, tmp_path):
    words = ("--steps", 30, "--eval-every", 10, "--models-dir", tmp_path)
    ran, shown = on_a_terminal(columns, "LRS.py", *words, "--name", "a-rather-long-name-of-mine")
    assert ran.returncode == 0
    evaluations = re.findall(rb"^step (\d+)/30  loss .* s$", ran.stdout, re.MULTILINE)
    assert evaluations == [b"10", b"20", b"30"]
    bars = [part for part in re.split(r"[\r\n]+", shown) if "%" in part]
    assert bars[-1].startswith("100%|")
    assert all(len(bar) <= (columns or 80) and re.search(r" \d+/30, .* left$", bar) for bar in bars)


def test_on_a_terminal_there_is_a_bar_and_a_complaint_has_a_line_of_its_own(tmp_path):
    words = ("--learning-rate", 60, "--weight-decay", 1, "--optimizer", "sgd")
    ran, shown = on_a_terminal(40, "LRS.py", *words, "--models-dir", tmp_path)
    assert (ran.returncode, ran.stdout) == (3, b"")
    assert "| 0/10000, ? left" in shown
    assert shown.splitlines()[-1].startswith("LRS.py: step ")


@pytest.mark.parametrize("script", [*GLR_SCRIPTS, "BP"])
def test_help_teaches_every_constant(script):
    ran = run(f"{script}.py", "-h")
    assert ran.returncode == 0
    constants = re.findall(r"^([A-Z_]+) = .*?  # (\w+)", source_of(script), re.MULTILINE)
    assert len(constants) >= 3
    for name, first_word in constants:
        flag = "--" + name.lower().replace("_", "-")
        assert re.search(rf"^  {flag}.*?{first_word}", ran.stdout, re.MULTILINE | re.DOTALL)


def test_glr_scripts_do_not_import_tensorflow_or_sklearn(tmp_path):
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__'); "
        "print(sorted({'tensorflow', 'keras', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    script = ROOT / "Train&Test" / "LRS.py"
    words = [str(script), "--steps", "5", "--models-dir", str(tmp_path)]
    ran = subprocess.run(
        [sys.executable, "-c", code, *words], text=True, capture_output=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == "[]"


def test_an_edited_constant_is_obeyed_and_a_whole_number_serves_as_a_float(tmp_path):
    home = copy_of_the_scripts(tmp_path / "home")
    script = home / "Train&Test" / "LRS.py"
    source = re.sub(r"^SIGMA = \(.*?\)", "SIGMA = 1", script.read_text(), flags=re.MULTILINE)
    script.write_text(re.sub(r"^STEPS = \d+", "STEPS = 7", source, flags=re.MULTILINE))
    ran = run("LRS.py", "--models-dir", tmp_path / "m", home=home)
    assert ran.returncode == 0, ran.stderr
    _, metadata = saved(tmp_path / "m" / "LRS_digits_seed0.npz")
    assert metadata["constants"]["SIGMA"] == [1]
    assert metadata["constants"]["STEPS"] == 7
    bad = re.sub(r"^STEPS = \d+", "STEPS = 7.5", script.read_text(), flags=re.MULTILINE)
    script.write_text(bad)
    ran = run("LRS.py", home=home)
    assert ran.returncode == 2
    assert "STEPS = 7.5: must be a whole number" in ran.stderr


@pytest.mark.parametrize("script", ["LRS.py", "testAdv.py"])
def test_a_terminal_that_lacks_characters_is_no_reason_to_stop(script):
    ran = run(script, "-h", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert ran.returncode == 0, ran.stderr
    assert "--dataset" in ran.stdout


def test_a_run_that_starts_anew_keeps_the_unfinished_one(tmp_path):
    checkpoint = tmp_path / "LRS_digits_seed0.checkpoint"
    checkpoint.write_bytes(b"of another run")
    ran = run("LRS.py", "--steps", 5, "--models-dir", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == (
        f"starts anew; --resume would continue the unfinished run in {checkpoint}, which goes to "
        "LRS_digits_seed0.checkpoint.old\n"
    )
    assert (tmp_path / "LRS_digits_seed0.checkpoint.old").read_bytes() == b"of another run"


def test_a_model_of_other_constants_is_kept_beside_the_new_one(tmp_path):
    words = ("--steps", 5, "--models-dir", tmp_path)
    model = tmp_path / "LRS_digits_seed0.npz"
    run("LRS.py", *words)
    ran = run("LRS.py", *words)
    assert ran.stderr == ""
    assert not (tmp_path / "LRS_digits_seed0.npz.old").exists()
    ran = run("LRS.py", *words, "--sigma", 0.3, "--batch-size", 7)
    assert ran.stderr == (
        "LRS_digits_seed0.npz was a model of other SIGMA, BATCH_SIZE: it goes to "
        "LRS_digits_seed0.npz.old; --name gives each its own\n"
    )
    assert saved(tmp_path / "LRS_digits_seed0.npz.old")[1]["constants"]["SIGMA"] == [1, 0.5]
    assert saved(model)[1]["constants"]["SIGMA"] == [0.3]


def test_a_validation_run_s_history_does_not_speak_of_the_test_set(tmp_path):
    run("LRS.py", "--steps", 5, "--validation", 100, "--models-dir", tmp_path)
    *_, row = history(tmp_path / "LRS_digits_seed0_validation.csv")
    assert list(row) == ["step", "epoch", "train_loss", "validation_loss", "validation_accuracy"]
