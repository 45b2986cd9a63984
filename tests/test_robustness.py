"""The robustness scripts as their users run them, and the table that they make."""

import csv
import json
import os
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from processes import ROOT, attack, command, copy_of_the_scripts, run, saved

from glr.data.datasets import load_dataset
from glr.errors import GLRError
from glr.network import new_network, sigmoid, threshold
from glr.robustness.evaluation import PRETRAINED, blind_spot, chosen_models, models_found
from glr.robustness.samples import ATTACKS, has_epsilon
from glr.storage.models import load_model, save_model

DIGITS = load_dataset("digits", ROOT / "data")


def save_quick_model(folder, name, seed, activation=sigmoid, dataset="digits"):
    """An untrained network of the digits' shape, saved as a training script saves it."""
    network = new_network([64, 50, 10], activation, np.random.default_rng(seed))
    constants = {"NAME": name, "SEED": seed}
    metadata = {"activation": activation.__name__, "dataset": dataset, "constants": constants}
    save_model(folder / f"{name}_{dataset}_seed{seed}.npz", network, metadata)
    return network


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Environment after the whole chain on the digits: models, samples, results."""
    home = tmp_path_factory.mktemp("home")
    places = {
        f"GLR_{place}_DIR": str(home / place.lower()) for place in ("DATA", "MODELS", "RESULTS")
    }
    env = {**os.environ, **places}
    trained = {}
    for name, seed in (("LRS", 0), ("LRS", 1), ("BP", 0), ("BP-L2", 0)):
        trained[name, seed] = save_quick_model(home / "models", name, seed)
    trained["LRT", 0] = save_quick_model(home / "models", "LRT", 0, threshold)
    printed = {}
    for script, words in (
        ("generate_adv.py", ("--epsilon", 0.05, 0.13)),
        ("noise_generate_adv.py", ()),
        ("testAdv.py", ()),
    ):
        ran = run(script, *words, env=env)
        assert ran.returncode == 0, ran.stderr
        printed[script] = ran.stdout
    return home, env, trained, printed


@pytest.fixture
def in_the_chain_s_places(chain, monkeypatch):
    """This process in the environment of the chain."""
    for name, place in chain[1].items():
        monkeypatch.setenv(name, place)


def test_the_chain_writes_samples_results_and_pictures(chain):
    home, *_ = chain
    samples = home / "data" / "digits" / "adversarial"
    assert {p.name for p in samples.iterdir()} == {
        *(f"{n}.npz" for n in ("gaussian_noise", "impulse_noise", "glass_blur", "contrast")),
        *(f"fgsm_eps{e}.{ending}" for e in (0.05, 0.13) for ending in ("npz", "png")),
        "corruptions.png",
    }
    assert {p.name for p in (home / "results").iterdir()} == {
        f"digits.{ending}" for ending in ("csv", "md", "png")
    }
    assert not [*(home / "models").glob("surrogate*")]  # the pretrained one has these constants


def test_samples_obey_their_metadata(chain):
    home, *_ = chain
    folder = home / "data" / "digits" / "adversarial"
    for epsilon in (0.05, 0.13):
        with np.load(folder / f"fgsm_eps{epsilon}.npz", allow_pickle=False) as arrays:
            metadata = json.loads(str(arrays["metadata"]))
            change = np.abs(arrays["x_adv"] - arrays["x"])
            np.testing.assert_array_equal(arrays["x"], DIGITS.x_test)
            np.testing.assert_array_equal(arrays["y"], DIGITS.y_test)
        assert metadata["epsilon"] == epsilon
        assert metadata["target"] == "surrogate"
        assert change.max() == pytest.approx(epsilon, abs=1e-6)
        assert np.mean(change > 0.9 * epsilon) > 0.3  # FGSM moves all it can
    with np.load(folder / "contrast.npz", allow_pickle=False) as arrays:
        assert arrays["x_adv"].shape == (5, 360, 64)


def test_results_are_the_models_own_accuracies(chain):
    home, _, trained, _ = chain
    with (home / "results" / "digits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["model", "seed", "condition", "severity", "accuracy", "n"]
    pretrained = {r["model"] for r in rows if r["model"].endswith(" (pretrained)")}
    assert {"LRS (pretrained)", "BP+L2C (pretrained)"} < pretrained
    assert len(rows) == (5 + len(pretrained)) * (1 + 2 + 4 * 5)
    with np.load(home / "data/digits/adversarial/fgsm_eps0.13.npz", allow_pickle=False) as arrays:
        x_adv = arrays["x_adv"]
    for (name, seed), network in trained.items():
        mine = [r for r in rows if (r["model"], int(r["seed"])) == (name, seed)]
        for condition, severity, x in (("clean", 0, DIGITS.x_test), ("fgsm", 0.13, x_adv)):
            (row,) = [
                r for r in mine if r["condition"] == condition and float(r["severity"]) == severity
            ]
            predicted = network.logits(x).argmax(axis=1)
            assert float(row["accuracy"]) == pytest.approx(np.mean(predicted == DIGITS.y_test))
            assert int(row["n"]) == 360


def test_the_printed_table_has_models_conditions_and_controls(chain):
    printed = chain[3]["testAdv.py"]
    for word in ("clean", "fgsm", "glass_blur", "LRS", "LRT", "Controls", "BP-L2", "±"):
        assert word in printed


@pytest.mark.usefixtures("in_the_chain_s_places")
def test_white_box_attack_on_a_threshold_network_says_what_it_followed(chain, capsys):
    home, env, *_ = chain
    attack("--target", home / "models" / "LRT_digits_seed0.npz", "--images", 20)
    assert "true input gradient is zero everywhere" in capsys.readouterr().err
    name, whole = "fgsm_LRT-seed0_eps0.13_first20", home / "results" / "digits.csv"
    assert (home / f"data/digits/adversarial/{name}.npz").exists()
    before = whole.read_bytes()
    ran = run("testAdv.py", "--samples", name, env=env)
    assert ran.returncode == 0, ran.stderr
    assert "fgsm on LRT-seed0, first 20 ε 0.13" in ran.stdout
    assert whole.read_bytes() == before  # those of a part have files of their own
    part = (home / "results" / "digits_part.csv").read_text()
    assert {line.split(",")[2] for line in part.replace('"', "").splitlines()} > {"clean"}


@pytest.mark.usefixtures("in_the_chain_s_places")
def test_zero_gradients_are_reported_and_not_called_robustness(tmp_path, capsys):
    """A network of class 0 alone: where that is right, no gradient is left in float32."""
    network = new_network([64, 50, 10], sigmoid, np.random.default_rng(0))
    network.layers[1].b[0] = 1000
    metadata = {
        "activation": "sigmoid",
        "dataset": "digits",
        "constants": {"NAME": "flat", "SEED": 0},
    }
    save_model(tmp_path / "flat.npz", network, metadata)
    attack("--target", tmp_path / "flat.npz", "--images", 30)
    said = capsys.readouterr().err
    share = 100 * np.mean(DIGITS.y_test[:30] == 0)
    assert f"Note: fgsm on flat-seed0 left {share:.2f} % of the samples unchanged" in said
    assert "no robustness. --attack square needs none" in said
    metadata = {"attack": "fgsm", "zero_gradient_share": 0.25}
    assert blind_spot(metadata).startswith("Note: fgsm left 25.00 % of the samples")
    assert blind_spot(metadata | {"zero_gradient_share": 0}) == ""


@pytest.mark.usefixtures("in_the_chain_s_places")
@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - {"fgsm"}))
def test_other_attacks_write_samples_in_range(name, chain):
    home, *_ = chain
    model = home / "models" / "LRS_digits_seed0.npz"
    attack("--attack", name, "--target", model, "--images", 12, "--queries", 20)
    suffix = "_eps0.13" if has_epsilon(name) else ""
    path = home / f"data/digits/adversarial/{name}_LRS-seed0{suffix}_first12.npz"
    with np.load(path, allow_pickle=False) as arrays:
        x, x_adv = arrays["x"], arrays["x_adv"]
    assert x_adv.shape == (12, 64)
    assert 0 <= x_adv.min() <= x_adv.max() <= 1
    assert np.abs(x_adv - x).max() > 0
    if suffix:
        assert np.abs(x_adv - x).max() <= 0.13 + 1e-6


def tampered(chain, tmp_path, **changes):
    """An environment whose only sample file is FGSM's with some arrays changed."""
    home, env, *_ = chain
    with np.load(home / "data/digits/adversarial/fgsm_eps0.13.npz", allow_pickle=False) as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    for name, change in changes.items():
        kept[name] = change(kept[name])
    folder = tmp_path / "data" / "digits" / "adversarial"
    folder.mkdir(parents=True)
    np.savez(folder / "fgsm_eps0.13.npz", **kept)
    return {
        **env,
        "GLR_DATA_DIR": str(tmp_path / "data"),
        "GLR_RESULTS_DIR": str(tmp_path / "results"),
    }


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"x_adv": lambda x: np.clip(x + 0.05, 0, 1)}, "exceeds the claimed ε 0.13"),
        ({"x_adv": lambda x: x - 0.2}, "leave [0, 1]"),
        ({"x_adv": lambda x: x * np.nan}, "leave [0, 1]"),
        ({"x_adv": lambda x: x[:, :32]}, "do not fit together"),
        ({"x_adv": lambda x: x[0, 0], "x": lambda x: x[0, 0]}, "do not fit together"),
        ({"y": lambda y: (y + 1) % 10}, "labels are not those of the test set"),
        ({"y": lambda y: y[:9]}, "labels are not those of the test set"),
        ({"x": lambda x: x[::-1]}, "clean inputs or labels are not those of the test set"),
        ({"metadata": lambda _: np.array("{")}, "fgsm_eps0.13.npz"),
        ({"metadata": lambda _: np.array('{"attack": "fgsm"}')}, "do not name attack and dataset"),
    ],
)
def test_tampered_samples_are_refused_in_one_line(changes, complaint, chain, tmp_path):
    env = tampered(chain, tmp_path, **changes)
    assert_refused(run("testAdv.py", env=env), complaint, tmp_path)


def assert_refused(ran, complaint, folder):
    """One line with the complaint, status 2, and no results."""
    assert ran.returncode == 2, ran.stdout
    assert complaint in ran.stderr
    assert len(ran.stderr.splitlines()) == 1, ran.stderr
    assert not (folder / "results").exists()


def test_truncated_samples_are_refused_with_what_to_run(chain, tmp_path):
    env = tampered(chain, tmp_path)
    path = tmp_path / "data/digits/adversarial/fgsm_eps0.13.npz"
    path.write_bytes(path.read_bytes()[:-1000])
    assert_refused(
        run("testAdv.py", env=env),
        'run python "RobustnessTest/generate_adv.py" --dataset digits again',
        tmp_path,
    )


def test_missing_samples_and_models_are_named_with_what_to_run(chain, tmp_path):
    _, env, *_ = chain
    empty = {**env, "GLR_RESULTS_DIR": str(tmp_path / "results")}
    np.savez(tmp_path / "own.npz", x=DIGITS.x_test, y=DIGITS.y_test)
    ran = run("testAdv.py", "--dataset", tmp_path / "own.npz", env=empty)
    assert_refused(ran, "no model of own to evaluate; train one first", tmp_path)
    assert_refused(run("testAdv.py", "--samples", "pgd", env=empty), "no such", tmp_path)
    assert_refused(run("testAdv.py", "--models", "none.npz", env=empty), "none.npz", tmp_path)
    ran = run("generate_adv.py", "--target", "none.npz", env=empty)
    assert_refused(ran, "none.npz", tmp_path)
    ran = run("generate_adv.py", "--attack", "deepfool", env=empty)
    assert_refused(ran, "ATTACK = deepfool: give one of fgsm, pgd, lbfgs, glr, square", tmp_path)


def test_without_samples_the_clean_accuracies_are_shown_and_what_makes_others(chain, tmp_path):
    _, env, *_ = chain
    places = {"GLR_RESULTS_DIR": str(tmp_path / "results"), "GLR_DATA_DIR": str(tmp_path / "none")}
    ran = run("testAdv.py", env=env | places)
    assert ran.returncode == 0, ran.stderr
    folder = tmp_path / "none" / "digits" / "adversarial"
    assert ran.stdout.startswith(
        f"{folder}: no samples, so the clean accuracies alone; for the others run python "
        '"RobustnessTest/generate_adv.py" --dataset digits and python '
    )
    assert "Note: BP-L2 of seed 0 is never right on class " in ran.stdout
    with (tmp_path / "results" / "digits.csv").open() as file:
        assert {row["condition"] for row in csv.DictReader(file)} == {"clean"}


def test_pretrained_models_serve_where_none_were_trained_and_it_says_so(chain, tmp_path):
    _, env, *_ = chain
    places = {"GLR_RESULTS_DIR": str(tmp_path / "r"), "GLR_MODELS_DIR": str(tmp_path / "none")}
    ran = run("testAdv.py", env={**env, **places})
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("No model of digits in ")
    with (tmp_path / "r" / "digits.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["condition"] == "clean"]
    clean = {row["model"].removesuffix(" (pretrained)"): float(row["accuracy"]) for row in rows}
    assert {"BP", "LRS", "LRT", "LRSZ", "LRTZ"} <= clean.keys()
    assert all(clean[name] >= 0.95 for name in ("LRS", "LRT", "LRSZ", "LRTZ"))


def test_pretrained_networks_stand_beside_others_but_not_beside_themselves(tmp_path):
    """Trained here with the same constants, of whatever seed, a network is shown once."""
    shipped = load_model(PRETRAINED / "LRS_digits_seed0.npz")
    for name, seed, changes in (("LRS", 3, {}), ("LRT", 0, {"SIGMA": [9.0]}), ("mine", 0, {})):
        constants = {**shipped.metadata["constants"], "NAME": name, "SEED": seed, **changes}
        metadata = {**shipped.metadata, "constants": constants}
        save_model(tmp_path / f"{name}_digits_seed{seed}.npz", shipped.network, metadata)
    asked = SimpleNamespace(MODELS_DIR=tmp_path, DATASET="digits", MODELS=(), FUNCTIONS="")
    names = [model.name for model in chosen_models(asked, DIGITS).values()]
    assert {"LRS", "LRT", "LRT (pretrained)", "mine", "BP+L2C (pretrained)"} < {*names}
    assert "LRS (pretrained)" not in names
    asked.MODELS_DIR = PRETRAINED
    names = [model.name for model in chosen_models(asked, DIGITS).values()]
    assert len({*names}) == len(names) == 16


def test_tables_are_written_though_nobody_reads_the_output(chain, tmp_path):
    """As in `python testAdv.py | head -1`, which closes the pipe."""
    _, env, *_ = chain
    env = {**env, "GLR_RESULTS_DIR": str(tmp_path), "PYTHONUNBUFFERED": ""}
    words, pipe = command("testAdv.py"), subprocess.PIPE
    with subprocess.Popen(words, env=env, stdout=pipe, stderr=pipe, text=True) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 2
    assert errors.splitlines()[-1] == "testAdv.py: its output was closed; stopped"
    assert {path.name for path in tmp_path.iterdir()} == {"digits.csv", "digits.md", "digits.png"}


def test_a_picture_that_cannot_be_written_is_one_line_after_the_results(chain, tmp_path):
    """A folder stands in the place of each."""
    _, env, *_ = chain
    env = {**env, "GLR_DATA_DIR": str(tmp_path / "data"), "GLR_RESULTS_DIR": str(tmp_path)}
    samples = tmp_path / "data" / "digits" / "adversarial"
    for script, picture, written in (
        ("generate_adv.py", samples / "fgsm_eps0.13.png", samples / "fgsm_eps0.13.npz"),
        ("noise_generate_adv.py", samples / "corruptions.png", samples / "contrast.npz"),
        ("testAdv.py", tmp_path / "digits.png", tmp_path / "digits.md"),
    ):
        picture.mkdir(parents=True)
        ran = run(script, env=env)
        assert ran.returncode == 0, ran.stderr
        assert ran.stderr.splitlines()[-1].startswith(f"no picture: {picture}: cannot be written")
        assert written.exists()
        assert str(picture) not in ran.stdout


def test_a_model_of_another_data_set_is_refused(chain, tmp_path):
    _, env, *_ = chain
    save_quick_model(tmp_path, "LRS", 0, dataset="mnist")
    env = {**env, "GLR_RESULTS_DIR": str(tmp_path / "results")}
    model = tmp_path / "LRS_mnist_seed0.npz"
    assert_refused(run("testAdv.py", "--models", model, env=env), "trained on mnist", tmp_path)


def test_models_found_are_those_of_the_data_set_alone(tmp_path):
    for name in (
        "LRS_digits_seed0.npz",
        "BP+L2_digits_seed12.npz",
        "LRS_my_digits_seed0.npz",
        "LRS_digits_seed0_validation.npz",
        "surrogate_digits_seed1000.npz",
        "LRS_mnist_seed0.npz",
    ):
        (tmp_path / name).touch()
    names = [path.name for path in models_found(tmp_path, "digits")]
    assert names == ["BP+L2_digits_seed12.npz", "LRS_digits_seed0.npz"]


def test_a_surrogate_s_constants_are_not_the_attack_s():
    """So that one whose training was stopped is continued by any attack."""
    constants = load_model(PRETRAINED / "surrogate_digits_seed1000.npz").metadata["constants"]
    assert not {"ATTACK", "EPSILON", "IMAGES", "TARGET", "PENALTY"} & constants.keys()


def test_two_models_of_one_name_and_seed_are_refused_not_averaged(chain, tmp_path):
    home, env, *_ = chain
    (tmp_path / "other").mkdir()
    paths = [home / "models" / "LRS_digits_seed0.npz", tmp_path / "other" / "LRS_digits_seed0.npz"]
    paths[1].write_bytes(paths[0].read_bytes())
    env = {**env, "GLR_RESULTS_DIR": str(tmp_path / "results")}
    ran = run("testAdv.py", "--models", *paths, env=env)
    assert_refused(ran, "both are LRS of seed 0", tmp_path)


def test_models_of_one_name_that_differ_in_more_than_their_seeds_are_not_averaged(chain, tmp_path):
    home, env, *_ = chain
    models = tmp_path / "models"
    shutil.copytree(home / "models", models)
    other = models / "LRS_digits_seed1.npz"
    arrays, metadata = saved(other)
    for constants, status in (({"EVAL_EVERY": 7}, 0), ({"SIGMA": [0.05]}, 2)):
        metadata["constants"] |= constants
        np.savez(other, metadata=np.array(json.dumps(metadata)), **arrays)
        places = {"GLR_MODELS_DIR": str(models), "GLR_RESULTS_DIR": str(tmp_path / "results")}
        ran = run("testAdv.py", "--samples", "fgsm_eps0.13", env=env | places)
        assert ran.returncode == status, ran.stderr
    assert ran.stderr == (
        f"testAdv.py: {models / 'LRS_digits_seed0.npz'} and {other}: both are LRS, of other SIGMA; "
        "evaluate one of them, with --models, or train it with another --name\n"
    )


STAIRCASE = """import numpy as np


def staircase(v):
    return np.round(4 / (1 + np.exp(-v))) / 4
"""


@pytest.fixture
def own(chain, tmp_path):
    """A model of an activation that glr has not, the file that defines it, and their places."""
    home, env, *_ = chain
    models = tmp_path / "models"
    shutil.copytree(home / "models", models)
    arrays, metadata = saved(models / "LRS_digits_seed0.npz")
    metadata["activation"], metadata["constants"]["NAME"] = "staircase", "OWN"
    model, functions = models / "OWN_digits_seed0.npz", tmp_path / "mine.py"
    np.savez(model, metadata=np.array(json.dumps(metadata)), **arrays)
    functions.write_text(STAIRCASE)
    places = {"GLR_MODELS_DIR": str(models), "GLR_RESULTS_DIR": str(tmp_path / "results")}
    return model, functions, env | places


def test_a_model_of_an_activation_of_its_own_is_left_out_unless_it_is_named(own, tmp_path):
    model, _, env = own
    ran = run("testAdv.py", "--models", model, env=env)
    assert_refused(ran, f"{model}: its activation 'staircase'", tmp_path)
    assert "--functions" in ran.stderr
    ran = run("testAdv.py", env=env)
    assert ran.returncode == 0, ran.stderr
    assert f"Left out: {model}: its activation 'staircase'" in ran.stderr
    assert "LRS" in ran.stdout


def test_a_model_of_an_activation_of_its_own_is_evaluated_with_the_file_that_has_it(own, tmp_path):
    model, functions, env = own
    ran = run("testAdv.py", "--functions", functions, "--samples", "fgsm_eps0.13", env=env)
    assert (ran.returncode, ran.stderr) == (0, "")
    with (tmp_path / "results" / "digits_part.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "OWN"]
    (W0, b0), (W1, b1) = load_model(model, lambda v: np.round(4 / (1 + np.exp(-v))) / 4)[0].layers
    x, y = DIGITS.x_test, DIGITS.y_test
    hidden = np.round(4 / (1 + np.exp(-(x @ W0 + b0)))) / 4
    right = np.argmax(hidden @ W1 + b1, axis=1) == y
    assert {row["condition"] for row in rows} == {"clean", "fgsm"}
    assert float(rows[0]["accuracy"]) == pytest.approx(right.mean())


def test_attacks_without_a_derivative_alone_are_for_an_activation_of_its_own(own, tmp_path):
    model, functions, env = own
    words = ("--target", model, "--functions", functions, "--images", 10, "--queries", 5)
    env |= {"GLR_DATA_DIR": str(tmp_path / "data")}
    for name in ("fgsm", "pgd", "lbfgs"):
        with pytest.raises(GLRError, match="no gradient of its activation staircase is known"):
            attack("--attack", name, *words)
    ran = run("generate_adv.py", *words, env=env)
    assert_refused(ran, "use --attack glr or square, or the surrogate", tmp_path)
    for name in ("glr", "square"):
        ran = run("generate_adv.py", "--attack", name, *words, env=env)
        assert ran.returncode == 0, ran.stderr
        assert "OWN-seed0's accuracy" in ran.stdout
    ran = run("generate_adv.py", "--attack", "square", *words[:2], env=env)
    assert_refused(ran, "its activation 'staircase'", tmp_path)


@pytest.mark.parametrize(
    ("code", "complaint"),
    [(None, "FUNCTIONS = "), ("x = 1", "its activation 'staircase'")],
)
def test_a_file_without_the_activation_is_refused(code, complaint, own, tmp_path):
    model, _, env = own
    functions = tmp_path / "other.py"
    if code is not None:
        functions.write_text(code)
    ran = run("testAdv.py", "--models", model, "--functions", functions, env=env)
    assert_refused(ran, complaint, tmp_path)


def test_functions_of_a_file_do_not_replace_glr_s(own, tmp_path):
    """A file that defines a sigmoid of its own for other purposes: LRS's stays glr's."""
    model, functions, env = own
    functions.write_text(STAIRCASE + "\n\ndef sigmoid(v):\n    return 0 * v\n")
    paths = (model, model.parent / "LRS_digits_seed0.npz")
    ran = run("testAdv.py", "--models", *paths, "--functions", functions, env=env)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_readme_s_staircase_is_trained_evaluated_and_attacked(tmp_path):
    """The function stands in a copy of LRS.py, which --functions reads as well."""
    home = copy_of_the_scripts(tmp_path / "home")
    script = home / "Train&Test" / "LRS.py"
    head, rest = script.read_text().split("\n# -----", 1)
    script.write_text(f"{head}\n{STAIRCASE}\n# -----{rest}")
    env = {**os.environ, "GLR_MODELS_DIR": str(tmp_path), "GLR_RESULTS_DIR": str(tmp_path / "r")}
    env["GLR_DATA_DIR"] = str(tmp_path / "data")
    words = ("--activation", "staircase", "--name", "OWN", "--steps", 300, "--eval-every", 300)
    ran = run("LRS.py", *words, home=home, env=env)
    assert ran.returncode == 0, ran.stderr
    model = tmp_path / "OWN_digits_seed0.npz"
    words = ("--attack", "square", "--target", model, "--functions", script, "--queries", 30)
    ran = run("generate_adv.py", *words, "--epsilon", 0.3, env=env)
    assert ran.returncode == 0, ran.stderr
    before, after = map(float, re.search(r"accuracy (\S+) → (\S+) % of 360;", ran.stdout).groups())
    trained = 100 * saved(model)[1]["metrics"]["test_accuracy"]
    assert before == pytest.approx(trained, abs=0.01)
    assert before > 80
    assert after < before - 10
    ran = run("testAdv.py", "--functions", script, env=env)
    assert ran.returncode == 0, ran.stderr
    assert f"{before:.2f}" in ran.stdout
    assert f"{after:.2f}" in ran.stdout
    script.write_text(script.read_text().replace("np.round(4 /", "np.round(2 *"))
    ran = run("testAdv.py", "--functions", script, env=env | {"GLR_RESULTS_DIR": str(tmp_path)})
    assert ran.returncode == 2
    assert f"{model}: trained with another staircase; give --functions the file" in ran.stderr
