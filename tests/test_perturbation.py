"""Every constant of generate_adv.py reaches the attack; the shipped models are of today's code."""

import runpy

import numpy as np
import pytest
from processes import run
from scipy.stats import chisquare

from glr.data.datasets import Dataset, has_square_images, hold_out, load_dataset
from glr.errors import GLRError
from glr.network import new_network, relu, sigmoid
from glr.robustness import perturbation
from glr.robustness.evaluation import PRETRAINED
from glr.robustness.perturbation import attack_labels, attack_of, surrogate_constants
from glr.robustness.samples import ATTACKS
from glr.robustness.tables import TABLE_EPSILON
from glr.scripts.constants import ROOT, SCRIPTS, comments, script_constants
from glr.scripts.records import recorded_constants
from glr.scripts.run import run_generator
from glr.storage.models import load_model, save_model
from glr.study.runs import is_finished, tasks
from glr.study.whitebox import OWN_EPSILON

DATASETS = ("digits", "mnist", "fashion_mnist")
RNG = np.random.default_rng(0)
NETWORK = new_network([4, 3, 2], sigmoid, np.random.default_rng(0))
X, Y = np.zeros((50, 4), np.float32), np.arange(50) % 2


def constants_of_attack(*words):
    """The constants of generate_adv.py after these words."""
    return script_constants(
        runpy.run_path(str(ROOT / "RobustnessTest" / "generate_adv.py")), [*words]
    )


@pytest.fixture
def asked(monkeypatch):
    """What the attacks are asked for, in the place of what they find."""
    monkeypatch.setattr(perturbation, "input_gradient", lambda network: network)
    monkeypatch.setattr(perturbation.attacks, "loss_and_gradient", lambda network: network)
    monkeypatch.setattr(perturbation, "grouped", lambda attack, shown: attack)
    monkeypatch.setattr(perturbation, "until_wrong", lambda network, gradient: gradient)
    monkeypatch.setattr(perturbation.attacks, "glr_input_gradient", lambda network, rng: rng)
    for name in ("fgsm", "pgd", "lbfgs", "square_attack"):

        def attack(*values, name=name, **named):
            return name, values, named

        monkeypatch.setattr(perturbation.attacks, name, attack)

    def ask(*words):
        constants = constants_of_attack(*words)
        labels = attack_labels(constants, NETWORK, Y)
        return attack_of(constants, NETWORK, 0.25)((X, labels))

    return ask


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_of_the_table_is_run_and_told_of(attack, asked):
    assert asked("--attack", attack)[0].removesuffix("_attack") == {"glr": "pgd"}.get(
        attack, attack
    )
    script = ROOT / "RobustnessTest" / "generate_adv.py"
    assert f'"{attack}"' in comments(script.read_text(encoding="utf-8"))["ATTACK"]


def test_the_tables_epsilon_is_that_of_the_attack_the_study_and_what_whitebox_says():
    assert constants_of_attack().EPSILON == (TABLE_EPSILON,)
    assert TABLE_EPSILON in runpy.run_path(str(SCRIPTS / "study.py"))["EPSILON"]
    whitebox = runpy.run_path(str(ROOT / "RobustnessTest" / "whitebox.py"))
    assert f"attacks of the table have ε {OWN_EPSILON}:" in whitebox["__doc__"]


def test_gradient_attacks_are_of_the_given_size_and_length(asked):
    options = {"gradient": NETWORK, "epsilon": 0.25}
    assert asked() == ("fgsm", ((X, Y),), options)
    by_pgd = asked("--attack", "pgd", "--pgd-steps", "7")
    assert by_pgd == ("pgd", ((X, Y),), options | {"steps": 7})


def test_square_attack_has_its_queries_and_the_seed_s_generator(asked):
    words = "--attack", "square", "--queries", "9", "--seed", "3"
    name, (network, batch), options = asked(*words)
    assert (name, network, batch) == ("square_attack", NETWORK, (X, Y))
    assert (options["epsilon"], options["queries"]) == (0.25, 9)
    assert options["rng"].random() == perturbation.perturbation_generator(3).random()


def test_glr_attack_has_pgd_s_steps_and_the_seed_s_generator(asked):
    words = "--attack", "glr", "--pgd-steps", "9", "--seed", "3"
    name, (batch,), options = asked(*words)
    assert (name, batch) == ("pgd", (X, Y))
    assert (options["epsilon"], options["steps"]) == (0.25, 9)
    assert options["gradient"].random() == perturbation.perturbation_generator(3).random()


@pytest.mark.parametrize("seed", [0, 1, 1000])
def test_perturbations_share_no_random_number_with_the_training_of_their_seed(seed):
    """The noise that a network has learnt with would else be that of the corruptions."""
    words = [
        set(stream.bit_generator.random_raw(10_000).tolist())
        for rng in (run_generator(seed), perturbation.perturbation_generator(seed))
        for stream in (rng, *rng.spawn(4))
    ]
    assert len(set.union(*words)) == sum(map(len, words)) == 100_000


def test_lbfgs_has_its_penalty_and_wrong_targets(asked):
    words = ("--attack", "lbfgs", "--penalty", "0.7")
    name, ((x, targets),), options = asked(*words)
    assert (name, options) == ("lbfgs", {"model": NETWORK, "penalty": 0.7})
    assert x is X
    assert np.all(targets != Y)
    many = attack_labels(
        constants_of_attack(*words), NETWORK._replace(sizes=[4, 10]), np.full(30_000, 2)
    )
    counts = np.bincount(many, minlength=10)
    assert counts[2] == 0
    assert chisquare(np.delete(counts, 2)).pvalue > 1e-6
    np.testing.assert_array_equal(targets, attack_labels(constants_of_attack(*words), NETWORK, Y))
    for attack in ATTACKS.keys() - {"lbfgs"}:
        assert attack_labels(constants_of_attack("--attack", attack), NETWORK, Y) is Y


def test_pretrained_networks_have_the_constants_of_today_s_study():
    study = runpy.run_path(str(SCRIPTS / "study.py"))
    constants = script_constants(study, ["--seeds", "1", "--models-dir", str(PRETRAINED)])
    runs = [task for d in DATASETS for task in tasks(constants, study["networks_on"](d), [d])]
    assert len(runs) == 3 * len(study["NETWORKS"])
    assert [task.path.name for task in runs if not is_finished(task)] == []


@pytest.mark.parametrize("dataset", DATASETS)
def test_pretrained_surrogates_have_the_constants_of_today_s_attack(dataset, monkeypatch):
    """So they serve, and none is trained."""
    trained = []
    monkeypatch.setattr(perturbation, "train_by_backpropagation", trained.append)
    monkeypatch.setattr(perturbation, "load_model_for", lambda path, *of: path)
    words = ("--dataset", dataset, "--models-dir", "nowhere", "--data-dir", "nowhere")
    path = perturbation.surrogate(constants_of_attack(*words), None)
    assert (path, trained) == (PRETRAINED / f"surrogate_{dataset}_seed1000.npz", [])
    settings = surrogate_constants(constants_of_attack(*words))
    assert load_model(path).metadata["constants"] == recorded_constants(settings)
    assert settings.SEED == 1000  # of no network's initial weights


def test_the_surrogate_is_what_bp_trains_from_its_constants(tmp_path):
    """So BP.py's own loop, and the one here, give the same weights."""
    places = ("--data-dir", str(tmp_path), "--models-dir", str(tmp_path))
    settings = surrogate_constants(constants_of_attack(*places))
    settings.STEPS = settings.EVAL_EVERY = 20
    perturbation.train_by_backpropagation(settings)
    words = f"{perturbation.SURROGATE} --steps 20 --eval-every 20 --seed 1000".split()
    assert run("BP.py", *words, *places).returncode == 0
    ours, theirs = (
        load_model(tmp_path / f"{name}_digits_seed1000.npz") for name in ("surrogate", "BP")
    )
    np.testing.assert_array_equal(ours.network.parameters, theirs.network.parameters)


def test_a_surrogate_of_other_data_is_refused_with_what_to_do(tmp_path):
    """Data sets whose files have the same name share its place."""
    constants = constants_of_attack("--models-dir", str(tmp_path), "--dataset", "own.npz")
    settings = recorded_constants(surrogate_constants(constants))
    metadata = {"activation": "relu", "dataset": "own", "constants": settings}
    save_model(tmp_path / "surrogate_own_seed1000.npz", new_network([4, 3, 2], relu, RNG), metadata)
    x, y = np.zeros((2, 9), np.float32), np.arange(2)
    with pytest.raises(GLRError, match=r"with 4 inputs .* not on own with 9 .* If deleted, a surr"):
        perturbation.surrogate(constants, Dataset("own", x, y, x, y))


def test_a_surrogate_of_other_constants_is_put_aside_and_trained_anew(
    tmp_path, monkeypatch, capsys
):
    """The tables would else be of an attack that today's code does not make."""
    path = tmp_path / "surrogate_digits_seed1000.npz"
    model = load_model(PRETRAINED / path.name)
    model.metadata["constants"]["STEPS"] = 9
    save_model(path, *model)
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    save_model(shipped / path.name, *model)  # of other constants than today's, too
    monkeypatch.setattr(perturbation, "PRETRAINED", shipped)
    trained = []
    monkeypatch.setattr(perturbation, "train_by_backpropagation", trained.append)
    monkeypatch.setattr(perturbation, "load_model_for", lambda path, *of: path)
    perturbation.surrogate(constants_of_attack("--models-dir", str(tmp_path)), None)
    assert [settings.STEPS for settings in trained] == [4680]
    assert "--name gives each its own\nNo surrogate" in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["shipped", f"{path.name}.old"]


def test_an_epsilon_of_255_is_refused_with_what_is_meant():
    script = runpy.run_path(str(ROOT / "RobustnessTest" / "whitebox.py"))
    for epsilon in ("8", "5", "1.001", "inf"):
        for words in ((epsilon,), ("0.1", epsilon)):
            with pytest.raises(GLRError, match=r"^EPSILON = .*≤ 1, .*: 8 of 255 is 0\.0314$"):
                constants_of_attack("--epsilon", *words)
            with pytest.raises(GLRError, match="≤ 1"):
                script_constants(script, ["--epsilon", *words])
    assert constants_of_attack("--epsilon", "1", "0.0314").EPSILON == (1, 0.0314)


@pytest.mark.parametrize("shape", [(2, 8), (4, 4, 4), (15,)])
def test_what_is_no_square_grey_image_is_not_taken_for_one(shape, tmp_path):
    x = RNG.random((10, *shape), dtype=np.float32)
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(10) % 2)
    data = load_dataset(str(tmp_path / "own.npz"), tmp_path)
    assert not has_square_images(data)
    for kept in (data, hold_out(data, 2, np.random.default_rng(0))):
        with pytest.raises(GLRError, match="need square grey images"):
            perturbation.check_square_images(kept)


@pytest.mark.parametrize("shape", [(4, 4), (16,)])
def test_square_grey_images_are_known_by_their_shape_or_number(shape, tmp_path):
    np.savez(tmp_path / "own.npz", x=np.zeros((10, *shape)), y=np.arange(10) % 2)
    data = load_dataset(str(tmp_path / "own.npz"), tmp_path)
    perturbation.check_square_images(data)
    for change in (-0.1, 1.1):
        with pytest.raises(GLRError, match=r"inputs leave \[0, 1\]; scale them"):
            perturbation.check_square_images(data._replace(x_test=data.x_test + change))
