"""Attacks on the networks themselves: what is measured, what the page says, how it is written."""

import os
import re
import runpy
from types import SimpleNamespace

import numpy as np
import pytest
from processes import ROOT, attack, run

from glr.data.datasets import load_dataset
from glr.errors import GLRError
from glr.network import Network, new_network, sigmoid, threshold
from glr.noise import logistic
from glr.robustness.averaging import predictor, training_noise
from glr.robustness.evaluation import PRETRAINED, chosen_models
from glr.robustness.tables import Row
from glr.scripts.constants import constants_of, script_constants
from glr.scripts.run import load_data
from glr.storage.models import Model, save_model
from glr.study import pages, whitebox

# A network of two inputs whose class is the larger one.
LARGER = Network(np.array([1, 0, 0, 1, 0, 0], np.float32), [2, 2], sigmoid)
MODEL = Model(LARGER, {"constants": {"NAME": "LRS", "SEED": 3}})
X, Y = np.array([[0.9, 0.1]] * 4, np.float32), np.zeros(4, np.int64)


def fooled(*images):
    """The inputs after an attack that succeeds on these images."""
    x = X.copy()
    x[list(images)] = X[0, ::-1]
    return x


def rows_of(name, seed, **shares):
    """Rows of one network, 1 under whatever attack is not named."""
    kinds = {"clean": 0, whitebox.ZERO_GRADIENT: 0}
    attacks = (whitebox.TRANSFERRED, *whitebox.ATTACKS, whitebox.AUTO_PGD, whitebox.WORST)
    kinds |= dict.fromkeys(attacks, whitebox.OWN_EPSILON)
    every = {**dict.fromkeys(kinds, 1.0), whitebox.ZERO_GRADIENT: 0.0, **shares}
    return [Row(name, seed, kind, kinds[kind], share, 360) for kind, share in every.items()]


def test_each_attack_meets_what_is_left_and_the_last_what_all_before_leave(monkeypatch):
    met = {}

    def attack(name, *images):
        def attacked(batch):
            rows = (batch[0][:, 2] * 4).round().astype(int)  # which images they are
            met.setdefault(name, []).append([*rows])
            moved = batch[0].copy()
            is_fooled = np.isin(rows, images)
            moved[is_fooled, :2] = moved[is_fooled, 1::-1]
            return moved

        return attacked

    e = whitebox.OWN_EPSILON
    own = [
        (("fgsm", e), [attack("fgsm")]),
        (("pgd", 0.05), [attack("near", 3)]),
        (("pgd", e), [attack("pgd", 0), attack("pgd", 0)]),
        (("pgd", 0.3), [attack("far", 0, 1, 2, 3)]),
        (("glr", e), [attack("glr", 3)]),
        ((whitebox.AUTO_PGD, e), [attack("auto"), attack("auto", 1)]),
        ((whitebox.WORST, e), [attack("square")]),
    ]
    flat = np.array([[0, 0, 0], [0, 1, 0], [1, 1, 0], [0, -1, 0]])
    monkeypatch.setattr(whitebox, "input_gradient", lambda network: lambda x, y: flat)
    monkeypatch.setattr(whitebox, "attacks_on", lambda *of: own)
    network = Network(np.array([1, 0, 0, 1, 0, 0, 0, 0], np.float32), [3, 2], sigmoid)
    x = np.float32([[0.9, 0.1, i / 4] for i in range(4)])
    transferred = x.copy()
    transferred[0, :2] = 0.1, 0.9
    constants = SimpleNamespace(SEED=0, PREDICTION_PASSES=0)
    rows = whitebox.model_rows(constants, MODEL._replace(network=network), (x, Y), transferred)
    assert {row[:2] for row in rows} == {("LRS", 3)}
    assert {row.n for row in rows} == {4}
    assert {row[2:4]: row.accuracy for row in rows} == {
        ("clean", 0): 1,
        (whitebox.TRANSFERRED, e): 0.75,
        ("fgsm", e): 1,
        ("pgd", 0.05): 0.75,
        ("pgd", e): 0.5,
        ("pgd", 0.3): 0,
        ("glr", e): 0.75,
        (whitebox.AUTO_PGD, e): 0.25,
        (whitebox.WORST, e): 0.25,
        (whitebox.ZERO_GRADIENT, 0): 0.25,
    }
    assert met == {
        "fgsm": [[0, 1, 2, 3]],
        "near": [[0, 1, 2, 3]],
        "pgd": [[0, 1, 2], [1, 2]],
        "far": [[1, 2]],
        "glr": [[0, 1, 2, 3]],
        "auto": [[1, 2], [1, 2]],
        "square": [[2]],
    }


def wave(v):
    """An activation of one's own."""
    return np.sin(v)


def test_the_attacks_are_of_both_losses_from_the_image_and_from_every_start():
    """Those that a network's activation allows."""
    constants = SimpleNamespace(SEED=0, QUERIES=9, EPSILON=(0.2,), PGD_STEPS=2, STARTS=3)
    x = np.random.default_rng(0).random((20, 64), dtype=np.float32)
    e = whitebox.OWN_EPSILON
    by_slope = {("fgsm", e): 1, ("pgd", e): 8, ("pgd", 0.2): 8}
    without, auto = {("glr", e): 8, (whitebox.WORST, e): 1}, {(whitebox.AUTO_PGD, e): 3}
    for activation, wanted in (
        (threshold, by_slope | without),
        (sigmoid, by_slope | without | auto),
        (wave, without),
    ):
        network = new_network([64, 6, 3], activation, np.random.default_rng(1))
        y = network.logits(x).argmax(axis=1)
        own = dict(whitebox.attacks_on(constants, network, np.random.default_rng(0)))
        assert {kind: len(attacks) for kind, attacks in own.items()} == wanted
        for (_, epsilon), attacks in own.items():
            for one in attacks:
                assert 0 < np.abs(one((x, y)) - x).max() <= epsilon + 1e-6


def test_prediction_by_noisy_passes_is_their_mean_and_is_attacked_through_them(monkeypatch):
    """Bits of logits v and logistic noise are 1 with probability F(v/σ): a sigmoid network's."""
    network = new_network([64, 6, 3], threshold, np.random.default_rng(1), scale=4)
    noise = {"NOISE": "logistic", "SIGMA": [1.5, 0.5], "PERTURB": "logits"}
    model = Model(network, {"constants": {"NAME": "LRT", "SEED": 0, **noise}})
    constants = SimpleNamespace(EPSILON=(), PGD_STEPS=1, STARTS=0, QUERIES=1)
    averaged = predictor(model, 20_000, np.random.default_rng(0))
    x = np.random.default_rng(0).random((3, 64), dtype=np.float32)
    (W, b), (V, c) = network.layers
    expected = logistic.cdf((x @ W + b) / 1.5) @ V + c
    deviation = np.sqrt((0.25 * np.square(V).sum(axis=0) + 0.25) / 20_000)
    assert np.all(np.abs(averaged.logits(x) - expected) < 6 * deviation)
    assert np.any(averaged.logits(x) != averaged.logits(x)), "noise is drawn anew"
    asked = []
    monkeypatch.setattr(whitebox.attacks, "glr_input_gradient", lambda *of: asked.append(of))
    dict(whitebox.attacks_on(constants, averaged, np.random.default_rng(0)))
    assert [of[3] for of in asked] == [averaged.noise] * 2
    assert averaged.noise == {"noise": logistic, "sigma": (1.5, 0.5), "perturb": "logits"}
    model.metadata["constants"]["SIGMA"] = [0.0]
    assert training_noise(model) == {}


def test_the_table_is_of_the_means_over_seeds():
    rows = [*rows_of("LRT", 0, pgd=0.5), *rows_of("LRT", 1, pgd=0.6), *rows_of("BP", 0)]
    first, second = whitebox.table_lines(rows, whitebox.COLUMNS)
    header = ["model", *whitebox.COLUMNS]
    assert first[0] == "LRT"
    assert first[header.index("pgd")] == "55.00 ± 7.07"
    assert second == ["BP", *["100.00"] * 7, "0.00"]
    assert header[-1] == whitebox.ZERO_GRADIENT
    block = whitebox.whitebox_block({"digits": rows})
    assert block.startswith("On digits, the first 360 images, ε = 0.1:\n\n| model | clean |")


def test_every_panel_has_the_networks_of_its_data_set_each_with_a_look_of_its_own(tmp_path):
    """Those trained here need not be of all data sets."""
    names = {"digits": [f"own{i}" for i in range(14)], "mnist": ["LRT (pretrained)", "BP"]}
    rows = {data: [row for n in names[data] for row in rows_of(n, 0)] for data in names}
    drawn = []

    def draw(axes, measured):
        whitebox.draw_pgd(axes, measured)
        drawn.append(axes)

    pages.draw_panels(tmp_path / "it.png", rows, draw, "it")
    for axes, shown in zip(drawn, names.values(), strict=True):
        assert [text.get_text() for text in axes.get_legend().get_texts()] == shown
        lines = [container.lines[0] for container in axes.containers]
        assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(shown)


def test_a_whole_run_is_written_to_the_page_and_another_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setenv("GLR_RESULTS_DIR", str(tmp_path / "results"))
    page = tmp_path / "docs" / "results.md"
    page.parent.mkdir()
    page.write_text("head\n<!-- whitebox: it -->\n<!-- end of whitebox -->\ntail\n")
    (tmp_path / "README.md").write_text(page.read_text())
    rows = rows_of("BP", 0) + rows_of("LRT-adv", 0)
    before, by_dataset = page.read_text(), {"digits": rows_of("LRT", 0), "mnist": rows}
    whitebox.write_whitebox(by_dataset, pages.Page("whitebox_part"))
    assert page.read_text() == before
    assert sorted(path.name for path in page.parent.iterdir()) == ["results.md"]
    assert "| LRT |" in (tmp_path / "results" / "whitebox_part.md").read_text()
    assert (tmp_path / "results" / "whitebox_part.png").read_bytes().startswith(b"\x89PNG")
    whitebox.write_whitebox(by_dataset, pages.Page("whitebox", whole=True))
    text = page.read_text()
    assert text.startswith("head\n")
    assert text.endswith("\ntail\n")
    assert "On mnist, the first 360 images, ε = 0.1:" in text
    assert (page.parent / "whitebox.png").exists()
    names = [line.split(" | ")[0] for line in (tmp_path / "README.md").read_text().splitlines()]
    assert names == [
        "head",
        "<!-- whitebox: it -->",
        "",
        "| network",
        "| ---",
        "| LRT-adv",
        "",
        "<!-- end of whitebox -->",
        "tail",
    ]


def test_the_script_attacks_pretrained_networks_as_generate_adv_does(tmp_path, monkeypatch, capsys):
    for place in ("DATA", "MODELS", "RESULTS"):
        monkeypatch.setenv(f"GLR_{place}_DIR", str(tmp_path / place.lower()))
    (tmp_path / "models").mkdir()
    own = (PRETRAINED / "BP_digits_seed0.npz").read_bytes()
    (tmp_path / "models" / "BP_digits_seed0.npz").write_bytes(own)
    few = ("--images", 30, "--queries", 5, "--starts", 1, "--pgd-steps", 5)
    words = ("--datasets", "digits", "--names", "LRTZ", "BP", "--epsilon", 0.1, 0.4)
    ran = run("whitebox.py", *words, *few)
    assert (ran.returncode, ran.stderr) == (0, "")  # nor a warning of ART's
    page = (tmp_path / "results" / "whitebox_part.md").read_text()
    assert "\n| BP | " in page
    row = re.search(r"^\| LRTZ \(pretrained\) \| (.*) \|$", page, re.MULTILINE)
    cells = row.group(1).split(" | ")
    shown = dict(zip(whitebox.COLUMNS, cells, strict=True))
    assert shown.pop(whitebox.AUTO_PGD) == "–"
    shown = {name: float(said) for name, said in shown.items()}
    assert shown[whitebox.WORST] <= min(shown[name] for name in ("clean", "fgsm", "pgd", "glr"))
    target = PRETRAINED / "LRTZ_digits_seed0.npz"
    attack("--target", target, "--images", 30, "--epsilon", whitebox.OWN_EPSILON)
    before, after = re.search(r"accuracy (\S+) → (\S+) % of 30;", capsys.readouterr().out).groups()
    assert (shown["clean"], shown["fgsm"]) == (float(before), float(after))


def test_a_network_that_left_samples_out_is_attacked_on_those(tmp_path, monkeypatch):
    words = ("--dataset", "digits", "--validation", "50", "--models-dir", str(tmp_path))
    trained = load_data(constants_of("LRS.py", [*words, "--seed", "1"]))
    network = new_network([64, 2, 10], sigmoid, np.random.default_rng(0))
    constants = {"NAME": "LRS", "SEED": 1, "VALIDATION": 50}
    metadata = {"activation": "sigmoid", "dataset": "digits", "constants": constants}
    path = tmp_path / "LRS_digits_seed1_validation.npz"
    save_model(path, network, metadata)
    met = []
    monkeypatch.setattr(whitebox, "model_rows", lambda _, model, batch, moved: met.append(batch))
    asked = script_constants(runpy.run_path(str(ROOT / "RobustnessTest/whitebox.py")), [])
    asked.DATASET, asked.IMAGES = "digits", 20
    whitebox.rows_of_file(asked, path)
    np.testing.assert_array_equal(met[0][0], trained.x_test[:20])
    np.testing.assert_array_equal(met[0][1], trained.y_test[:20])


@pytest.mark.parametrize("words", ["--names LRX", "--names --datasets digits"])
def test_a_network_that_is_not_there_is_one_line(words):
    ran = run("whitebox.py", *words.split(), "--datasets", "digits")
    assert ran.returncode == 2
    said = ran.stderr.splitlines()
    if "LRX" in words:
        assert said.pop(0) == "Left out on digits: LRX, of which there is no model"
    (line,) = said
    assert line.startswith("whitebox.py: NAMES = ")
    assert line.endswith('and python "Train&Test/study.py" trains the default ones')


def test_networks_of_an_own_activation_are_attacked_by_what_needs_no_derivative(tmp_path):
    network = new_network([64, 8, 10], sigmoid, np.random.default_rng(0))
    metadata = {"activation": "wave", "dataset": "digits"}
    for seed in (0, 1):
        metadata["constants"] = {"NAME": "OWN", "SEED": seed}
        save_model(tmp_path / f"OWN_digits_seed{seed}.npz", network, metadata)
    functions = tmp_path / "mine.py"
    functions.write_text("import numpy as np\n\n\ndef wave(v):\n    return np.sin(v)\n")
    few = ("--images", 30, "--queries", 5, "--starts", 1, "--pgd-steps", 5)
    words = ("--models", *sorted(tmp_path.glob("*.npz")), "--functions", functions)
    env = {**os.environ, "GLR_RESULTS_DIR": str(tmp_path)}
    ran = run("whitebox.py", "--datasets", "digits", *words, *few, env=env)
    assert (ran.returncode, ran.stderr) == (0, "")
    row = re.search(r"^\| OWN \| (.*) \|$", (tmp_path / "whitebox_part.md").read_text(), re.M)
    shown = dict(zip(whitebox.COLUMNS, row.group(1).split(" | "), strict=True))
    assert row.group(0) in ran.stdout
    is_run = {name for name, said in shown.items() if said != "–"}
    assert is_run == {"clean", whitebox.TRANSFERRED, "glr", whitebox.WORST}
    functions.write_text("def wave(v):\n    return v / [1, 2, 3]\n")
    asked = script_constants(runpy.run_path(str(ROOT / "RobustnessTest/whitebox.py")), [])
    asked.DATASET, asked.FUNCTIONS, asked.IMAGES = "digits", str(functions), 5
    with pytest.raises(GLRError, match=r"in wave.*mend it there"):
        whitebox.rows_of_file(asked, tmp_path / "OWN_digits_seed0.npz")


def test_models_without_noise_are_left_out_of_prediction_by_noisy_passes(capsys):
    asked = SimpleNamespace(FUNCTIONS="", PREDICTION_PASSES=10)
    asked.MODELS = [PRETRAINED / f"{name}_digits_seed0.npz" for name in ("BP", "LRT")]
    data = load_dataset("digits", ROOT / "data")
    (model,) = chosen_models(asked, data).values()
    assert model.name == "LRT (pretrained)"
    assert "Left out on digits: BP (pretrained), trained without noise" in capsys.readouterr().err
    asked.MODELS = asked.MODELS[:1]
    with pytest.raises(GLRError, match="PREDICTION_PASSES: no model has noise to predict with"):
        chosen_models(asked, data)


def test_evaluation_by_noisy_passes_is_a_part_and_says_so(tmp_path):
    env = {**os.environ, "GLR_RESULTS_DIR": str(tmp_path), "GLR_DATA_DIR": str(tmp_path)}
    words = ("--models", PRETRAINED / "LRT_digits_seed0.npz", "--prediction-passes", 5)
    ran = run("testAdv.py", *words, env=env)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "in percent, mean of 5 noisy passes" in ran.stdout
    assert (tmp_path / "digits_part.csv").exists()
