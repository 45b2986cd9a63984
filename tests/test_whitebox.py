"""Attacks on the networks themselves: what is measured, what the page says, how it is written."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from processes import attack, run

from glr.data.datasets import Dataset, load_dataset
from glr.errors import GLRError
from glr.network import Network, new_network, sigmoid, threshold
from glr.noise import logistic
from glr.robustness.evaluation import PRETRAINED
from glr.robustness.tables import Row
from glr.scripts.constants import constants_of
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
            met.setdefault(name, []).append(len(batch[0]))
            moved = batch[0].copy()
            moved[[i for i in images if i < len(moved)]] = X[0, ::-1]
            return moved

        return attacked

    own = {
        ("fgsm", whitebox.OWN_EPSILON): [attack("fgsm")],
        ("pgd", whitebox.OWN_EPSILON): [attack("pgd", 0), attack("pgd", 0)],
        ("pgd", 0.3): [attack("far", 0, 1, 2, 3)],
    }
    last = {whitebox.AUTO_PGD: [attack("auto"), attack("auto", 0)], whitebox.WORST: []}
    flat = np.array([[0, 0], [0, 1], [1, 1], [0, -1]])
    monkeypatch.setattr(whitebox, "input_gradient", lambda network: lambda x, y: flat)
    monkeypatch.setattr(whitebox, "attacks_on", lambda *of: own)
    monkeypatch.setattr(whitebox, "last_attacks", lambda *of: last)
    constants = SimpleNamespace(SEED=0, PREDICTION_PASSES=0)
    rows = whitebox.model_rows(constants, MODEL, (X, Y), fooled(0))
    assert {row[:2] for row in rows} == {("LRS", 3)}
    assert {row.n for row in rows} == {4}
    assert {row[2:4]: row.accuracy for row in rows} == {
        ("clean", 0): 1,
        (whitebox.TRANSFERRED, whitebox.OWN_EPSILON): 0.75,
        ("fgsm", whitebox.OWN_EPSILON): 1,
        ("pgd", whitebox.OWN_EPSILON): 0.5,
        ("pgd", 0.3): 0,
        (whitebox.AUTO_PGD, whitebox.OWN_EPSILON): 0.25,
        (whitebox.WORST, whitebox.OWN_EPSILON): 0.25,
        (whitebox.ZERO_GRADIENT, 0): 0.25,
    }
    assert met == {"fgsm": [4], "pgd": [4, 3], "far": [4], "auto": [2, 2]}


def test_the_attacks_are_of_both_losses_from_the_image_and_from_every_start():
    constants = SimpleNamespace(SEED=0, QUERIES=1, EPSILON=(0.2,), PGD_STEPS=2, STARTS=3)
    x = np.random.default_rng(0).random((20, 64), dtype=np.float32)
    for activation, n_last in ((threshold, 0), (sigmoid, 3)):
        network = new_network([64, 6, 3], activation, np.random.default_rng(1))
        y = network.logits(x).argmax(axis=1)
        own = whitebox.attacks_on(constants, network, np.random.default_rng(0))
        assert {kind: len(attacks) for kind, attacks in own.items()} == {
            ("fgsm", whitebox.OWN_EPSILON): 1,
            ("pgd", whitebox.OWN_EPSILON): 8,
            ("pgd", 0.2): 8,
            ("glr", whitebox.OWN_EPSILON): 8,
        }
        for (_, epsilon), attacks in own.items():
            for one in attacks:
                assert 0 < np.abs(one((x, y)) - x).max() <= epsilon + 1e-6
        last = whitebox.last_attacks(constants, network, np.random.default_rng(0))
        assert [len(attacks) for attacks in last.values()] == [n_last, 1]


def test_prediction_by_noisy_passes_is_their_mean_and_is_attacked_through_them(monkeypatch):
    """Bits of logits v and logistic noise are 1 with probability F(v/σ): a sigmoid network's."""
    network = new_network([64, 6, 3], threshold, np.random.default_rng(1), scale=4)
    noise = {"NOISE": "logistic", "SIGMA": [1.5, 0.5], "PERTURB": "logits"}
    model = Model(network, {"constants": {"NAME": "LRT", "SEED": 0, **noise}})
    constants = SimpleNamespace(PREDICTION_PASSES=20_000, EPSILON=(), PGD_STEPS=1, STARTS=0)
    averaged = whitebox.predictor(constants, model, np.random.default_rng(0))
    x = np.random.default_rng(0).random((3, 64), dtype=np.float32)
    (W, b), (V, c) = network.layers
    expected = logistic.cdf((x @ W + b) / 1.5) @ V + c
    deviation = np.sqrt((0.25 * np.square(V).sum(axis=0) + 0.25) / 20_000)
    assert np.all(np.abs(averaged.logits(x) - expected) < 6 * deviation)
    assert np.any(averaged.logits(x) != averaged.logits(x)), "noise is drawn anew"
    asked = []
    monkeypatch.setattr(whitebox, "glr_input_gradient", lambda *of: asked.append(of))
    whitebox.attacks_on(constants, averaged, np.random.default_rng(0))
    assert [of[3] for of in asked] == [averaged.noise] * 2
    assert averaged.noise == {"noise": logistic, "sigma": (1.5, 0.5), "perturb": "logits"}
    asked = SimpleNamespace(PREDICTION_PASSES=10)
    assert whitebox.own_refusal(asked, model) == ""
    model.metadata["constants"]["SIGMA"] = [0.0]
    assert whitebox.own_refusal(asked, model).startswith("trained without noise")


def test_the_table_is_of_the_means_over_seeds():
    rows = [*rows_of("LRT", 0, pgd=0.5), *rows_of("LRT", 1, pgd=0.6), *rows_of("BP", 0)]
    header, first, second = whitebox.whitebox_lines(rows)
    assert header == ["model", *whitebox.COLUMNS]
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
    shown = dict(zip(whitebox.COLUMNS, map(float, cells), strict=True))
    assert shown[whitebox.WORST] <= min(shown[name] for name in whitebox.COLUMNS[:-1])
    target = PRETRAINED / "LRTZ_digits_seed0.npz"
    attack("--target", target, "--images", 30, "--epsilon", whitebox.OWN_EPSILON)
    before, after = re.search(r"accuracy (\S+) → (\S+) % of 30;", capsys.readouterr().out).groups()
    assert (shown["clean"], shown["fgsm"]) == (float(before), float(after))


def test_held_out_samples_are_those_that_the_model_did_not_train_on(tmp_path):
    words = ("--dataset", "digits", "--validation", "50", "--models-dir", str(tmp_path))
    trained = load_data(constants_of("LRS.py", [*words, "--seed", "1"]))
    network = new_network([64, 2, 10], sigmoid, np.random.default_rng(0))
    for seed, n in ((1, 50), (2, 60)):
        constants = {"NAME": "LRS", "SEED": seed, "VALIDATION": n}
        metadata = {"activation": "sigmoid", "dataset": "digits", "constants": constants}
        save_model(tmp_path / f"LRS_digits_seed{seed}_validation.npz", network, metadata)
    asked = SimpleNamespace(VALIDATION=50, MODELS_DIR=tmp_path, IMAGES=20)
    data = load_dataset("digits", tmp_path)
    (model,) = whitebox.held_out_models(asked, data)
    x, y = whitebox.first_samples(asked, data, model.seed)
    np.testing.assert_array_equal(x, trained.x_test[:20])
    np.testing.assert_array_equal(y, trained.y_test[:20])
    asked.VALIDATION = 70
    with pytest.raises(GLRError, match="no model of digits that was trained with --validation 70;"):
        whitebox.held_out_models(asked, data)


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


def test_a_network_without_a_gradient_is_left_out_with_a_note(monkeypatch, capsys):
    def wave(v):
        return np.sin(v)

    own = MODEL._replace(
        network=MODEL.network._replace(activation=wave),
        metadata={"constants": {"NAME": "wave", "SEED": 0}},
    )
    models = {Path("LRS.npz"): MODEL, Path("wave.npz"): own}
    monkeypatch.setattr(whitebox, "known_models", lambda constants, data: models)
    asked = SimpleNamespace(NAMES=("wave", "LRS"), SEEDS=5, VALIDATION=0, PREDICTION_PASSES=0)
    data = Dataset("digits", *[None] * 4)
    assert whitebox.chosen_models(asked, data) == [MODEL]
    says = "Left out on digits: wave, whose activation has no known gradient\n"
    assert capsys.readouterr().err == says
    asked.NAMES = ("wave",)
    with pytest.raises(GLRError, match="NAMES = wave: none can be attacked; there are LRS, wave"):
        whitebox.chosen_models(asked, data)
