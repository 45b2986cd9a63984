"""Functions and laws of your own in a script: the recipes' train; what cannot work is refused."""

import io
import re
import runpy
import subprocess
from contextlib import redirect_stdout

import numpy as np
import pytest
from processes import ROOT, command, copy_of_the_scripts, run, saved

import glr
from glr.errors import GLRError
from glr.noise import NoiseLaw, gaussian
from glr.scripts import constants
from glr.scripts.constants import script_constants

RECIPES = ROOT / "docs" / "recipes.md"
DEFINED = ("def staircase(", "mixture = NoiseLaw(", "def momentum(")  # in the recipes' code


def script_with_the_recipes_code(home):
    """A copy of the project whose LRS.py has the recipes' own functions above its constants."""
    recipes = RECIPES.read_text()
    blocks = re.findall(r"```python\n(.*?)```", recipes, re.DOTALL)
    blocks = [block for block in blocks if any(line in block for line in DEFINED)]
    assert len(blocks) == len(DEFINED)
    script = copy_of_the_scripts(home) / "Train&Test" / "LRS.py"
    rule = "\n# -----"
    head, rest = script.read_text().split(rule, 1)
    script.write_text(head + "\n".join(blocks) + rule + rest)


def test_the_recipes_own_activation_and_loss_train(tmp_path):
    script_with_the_recipes_code(tmp_path / "home")
    recipes = RECIPES.read_text()
    (command,) = re.findall(r'^python "Train&Test/(LRS\.py" --activation .*)$', recipes, re.M)
    words = command.replace('"', "").split()
    few = ("--steps", 3000, "--models-dir", tmp_path / "m")
    ran = run(*words, *few, home=tmp_path / "home")
    assert ran.returncode == 0, ran.stderr
    _, metadata = saved(tmp_path / "m" / "LRS-rank_digits_seed0.npz")
    assert metadata["activation"] == "staircase"
    assert metadata["loss"] == "rank"
    assert metadata["metrics"]["test_accuracy"] > 0.9
    places = ("--models-dir", tmp_path / "again")
    like = ("--like", tmp_path / "m" / "LRS-rank_digits_seed0.npz")
    ran = run("LRS.py", *like, "--steps", 30, *places, home=tmp_path / "home")
    assert ran.returncode == 0, ran.stderr
    _, metadata = saved(tmp_path / "again" / "LRS-rank_digits_seed0.npz")
    assert metadata["activation"] == "staircase"


def test_the_recipes_own_noise_law_trains(tmp_path):
    script_with_the_recipes_code(tmp_path / "home")
    words = ("--noise", "mixture", "--steps", 1500, "--models-dir", tmp_path / "m")
    ran = run("LRS.py", *words, home=tmp_path / "home")
    assert ran.returncode == 0, ran.stderr
    _, metadata = saved(tmp_path / "m" / "LRS_digits_seed0.npz")
    assert metadata["constants"]["NOISE"] == "mixture"
    assert metadata["metrics"]["test_accuracy"] > 0.9


def test_the_recipes_own_optimizer_and_schedule_train_and_resume(tmp_path):
    script_with_the_recipes_code(tmp_path / "home")
    flags = "--optimizer momentum --schedule halves --learning-rate 0.1"
    assert flags in RECIPES.read_text()
    words = (*flags.split(), "--models-dir", tmp_path / "m")
    short = ("--steps", 600, "--checkpoint-every", 100, "--eval-every", 600)
    with subprocess.Popen(command("LRS.py", *words, *short, home=tmp_path / "home")) as process:
        while not (tmp_path / "m" / "LRS_digits_seed0.checkpoint").exists():
            assert process.poll() is None
        process.terminate()
    ran = run("LRS.py", *words, *short, "--resume", home=tmp_path / "home")
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.startswith("continues after step ")
    _, metadata = saved(tmp_path / "m" / "LRS_digits_seed0.npz")
    assert metadata["constants"]["OPTIMIZER"] == "momentum"
    assert metadata["metrics"]["test_accuracy"] > 0.85


def test_a_changed_function_is_another_constant(tmp_path):
    """By its name alone a run would go on with another loss, a study take the old one for it."""
    script_with_the_recipes_code(tmp_path / "home")
    words = ("--loss", "rank", "--steps", 40, "--models-dir", tmp_path / "m")
    home = tmp_path / "home"
    assert run("LRS.py", *words, home=home).returncode == 0
    _, metadata = saved(tmp_path / "m" / "LRS_digits_seed0.npz")
    assert metadata["constants"]["own_code"].keys() == {"LOSS"}
    assert run("LRS.py", *words, home=home).stderr == ""
    script = home / "Train&Test" / "LRS.py"
    script.write_text(script.read_text().replace("sum(axis=-2)", "sum(axis=-2) ** 2"))
    ran = run("LRS.py", *words, home=home)
    assert ran.stderr.startswith("LRS_digits_seed0.npz was a model of other own_code: it goes to")


FAILING = """
import math
import numpy as np
from glr.noise import NoiseLaw


def short(v):
    return v + np.ones(7)


def helper(step):
    return 1 // (step - 2)


def halting(step, steps):
    return helper(step) * steps


def odd(logits, y):
    if y.shape == (128,):
        raise ValueError("one line\\nand another")
    return (logits.max(axis=-2) - logits[..., y, range(len(y))]) + 0


def lonely(logits):
    return logits


def kept(parameters, gradient, rate, state):
    state["none"] += gradient


def drawn(rng, shape):
    raise OSError("no dice")


dice = NoiseLaw("dice", drawn)
"""
RAISED = {
    "--activation short": ("ValueError: operands could", "short(v float32 (360, 50))", "v + np"),
    "--loss odd": (
        "ValueError: one line (",
        "odd(logits float32 (2, 10, 128), y int64 (",
        "raise Va",
    ),
    "--schedule halting": ("ZeroDivisionError: ", "halting(step 2, steps 9)", "1 // (step"),
    "--optimizer kept": ("KeyError: 'none'", "kept(parameters float32 (3760,), ", 'state["none"]'),
    "--noise dice": ("OSError: no dice", "drawn(rng ", "raise OSE"),
    "--backend jax --activation short": ("ValueError: Inc", "short(v float32 (5, 64))", "v + np"),
}


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    """A copy of the project whose LRS.py has functions that raise above its constants."""
    home = tmp_path_factory.mktemp("failing")
    script = copy_of_the_scripts(home) / "Train&Test" / "LRS.py"
    script.write_text(script.read_text().replace("\n# -----", f"{FAILING}\n# -----", 1))
    return home


@pytest.mark.parametrize("words", RAISED)
def test_a_function_of_one_s_own_that_raises_is_named_in_one_line(words, failing, tmp_path):
    error, call, code = RAISED[words]
    if "jax" in words:
        pytest.importorskip("jax")
    ran = run("LRS.py", *words.split(), "--steps", 9, "--models-dir", tmp_path, home=failing)
    assert (ran.returncode, len(ran.stderr.splitlines())) == (2, 1)
    script = failing / "Train&Test" / "LRS.py"
    source = script.read_text().splitlines()
    (line,) = (n for n, text in enumerate(source, 1) if code in text)
    assert error in ran.stderr and call in ran.stderr
    assert f"({script}, line {line}, in " in ran.stderr


@pytest.mark.parametrize("text", ["def (", "import nothing_called_so", "1 / 0", "exit('no')"])
def test_a_file_that_cannot_be_run_is_named_in_one_line(text, tmp_path, monkeypatch):
    (tmp_path / "my.py").write_text(text)
    monkeypatch.setattr(constants, "SCRIPTS", tmp_path)
    for call in (
        lambda: constants.functions_of(str(tmp_path / "my.py")),
        lambda: constants.constants_of("my.py", []),
    ):
        with pytest.raises(
            GLRError, match=r"^[^\n]*my\.py: cannot be run \([^\n]*; mend it first$"
        ):
            call()


def test_an_error_of_one_s_own_leaves_gradient_as_it_is():
    error = ZeroDivisionError("mine")

    def raises(logits, y):
        raise error

    layers = [glr.Layer(np.ones((2, 3)), np.zeros(3))]
    settings = {"activation": glr.sigmoid, "loss": raises, "rng": np.random.default_rng(0)}
    with pytest.raises(ZeroDivisionError) as caught:
        glr.gradient(layers, np.ones((4, 2)), np.zeros(4, int), **settings)
    assert caught.value is error


def test_the_names_that_fit_are_listed_and_others_are_refused(failing, tmp_path):
    wanted = {
        "--activation": "sigmoid, threshold, tanh, relu, short",
        "--loss": "cross_entropy, zero_one, odd",
        "--noise": "gaussian, laplace, logistic, dice",
        "--optimizer": "sgd, adagrad, adam, kept",
        "--schedule": "cosine, tenths, constant, halting",
    }
    script = runpy.run_path(str(failing / "Train&Test" / "LRS.py"))
    with pytest.raises(SystemExit), redirect_stdout(io.StringIO()) as shown:
        script_constants(script, ["-h"])
    said = " ".join(shown.getvalue().split())
    for flag, names in wanted.items():
        assert f"; {names} (default: " in said
        with pytest.raises(GLRError, match=f"no such name; give one of {names}$"):
            script_constants(script, [flag, "gelu"])
    with pytest.raises(GLRError, match="LOSS = lonely: it is called with logits, y, which"):
        script_constants(script, ["--loss", "lonely"])
    script["NOISE"] = NoiseLaw("mine", gaussian.draw, lambda: 0, gaussian.pdf)
    with pytest.raises(GLRError, match="NOISE = mine: cdf is called with v, which"):
        script_constants(script, [])


@pytest.mark.parametrize(
    ("constant", "code", "complaint"),
    [
        (
            "ACTIVATION = sigmoid",
            "def sigmoid(v):\n    return v",
            "ACTIVATION = sigmoid: is the name of another in glr; rename yours",
        ),
        (
            "NOISE = logistic",
            "from glr.noise import NoiseLaw, laplace\nlogistic = NoiseLaw('laplace', laplace.draw)",
            "NOISE = laplace: is the name of another in glr; rename yours",
        ),
        (
            "OPTIMIZER = adam",
            "def adam(parameters, gradient, rate, state):\n    return parameters - rate * gradient",
            "OPTIMIZER = adam: is the name of another in glr; rename yours",
        ),
    ],
)
def test_a_name_of_glr_s_is_refused_for_one_of_your_own(constant, code, complaint, tmp_path):
    """Only the name is recorded: testAdv.py would evaluate another network."""
    script = copy_of_the_scripts(tmp_path / "home") / "Train&Test" / "LRS.py"
    source = script.read_text()
    assert f"\n{constant} " in source
    script.write_text(source.replace("\n# -----", f"\n{code}\n# -----", 1))
    ran = run("LRS.py", "--models-dir", tmp_path / "m", home=tmp_path / "home")
    assert (ran.returncode, ran.stderr) == (2, f"LRS.py: {complaint}\n")


def test_a_loss_without_a_name_is_refused_before_training(tmp_path):
    """Its name is recorded with the weights: at the first checkpoint, after a thousand steps."""
    home = copy_of_the_scripts(tmp_path / "home")
    script = home / "Train&Test" / "LRS.py"
    source = script.read_text().replace("\nLOSS = cross_entropy", "\nLOSS = partial(cross_entropy)")
    script.write_text(
        source.replace("\nimport sys\n", "\nimport sys\nfrom functools import partial\n")
    )
    ran = run("LRS.py", "--models-dir", tmp_path / "m", home=home)
    assert ran.returncode == 2
    assert (
        ran.stderr == "LRS.py: LOSS: has no name to be recorded by; wrap it in a function (def)\n"
    )
