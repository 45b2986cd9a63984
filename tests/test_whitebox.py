"""Attacks on the networks themselves: what is measured, what the page says, how it is written."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from processes import attack, run

from glr.data.datasets import Dataset
from glr.errors import GLRError
from glr.network import Network, new_network, sigmoid, threshold
from glr.robustness.evaluation import PRETRAINED
from glr.robustness.tables import Row
from glr.storage.models import Model
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
    attacks = (whitebox.TRANSFERRED, *whitebox.ATTACKS, whitebox.WORST)
    kinds |= dict.fromkeys(attacks, whitebox.OWN_EPSILON)
    every = {**dict.fromkeys(kinds, 1.0), whitebox.ZERO_GRADIENT: 0.0, **shares}
    return [Row(name, seed, kind, kinds[kind], share, 360) for kind, share in every.items()]


def test_only_what_is_right_under_every_attack_of_the_table_s_size_counts(monkeypatch):
    found = {
        ("fgsm", whitebox.OWN_EPSILON): [fooled(0), fooled(0)],
        ("pgd", whitebox.OWN_EPSILON): [fooled(0), fooled(1)],  # along one gradient or another
        ("square", whitebox.OWN_EPSILON): [fooled(2)],
        ("pgd", 0.3): [fooled(0, 1), fooled(2, 3)],
    }
    flat = np.array([[0, 0], [0, 1], [1, 1], [0, -1]])
    monkeypatch.setattr(whitebox, "input_gradient", lambda network, slope: lambda x, y: flat)
    monkeypatch.setattr(whitebox, "attacked", lambda *asked: found)
    rows = whitebox.model_rows(SimpleNamespace(SLOPES=(1.0,)), MODEL, (X, Y), fooled(1))
    assert {row[:2] for row in rows} == {("LRS", 3)}
    assert {row.n for row in rows} == {4}
    assert {row[2:4]: row.accuracy for row in rows} == {
        ("clean", 0): 1,
        (whitebox.TRANSFERRED, whitebox.OWN_EPSILON): 0.75,
        ("fgsm", whitebox.OWN_EPSILON): 0.75,
        ("pgd", whitebox.OWN_EPSILON): 0.5,
        ("square", whitebox.OWN_EPSILON): 0.75,
        (whitebox.WORST, whitebox.OWN_EPSILON): 0.25,
        ("pgd", 0.3): 0,
        (whitebox.ZERO_GRADIENT, 0): 0.25,
    }


def test_a_threshold_network_is_attacked_along_every_slope_and_others_along_their_gradient():
    x = np.random.default_rng(0).random((5, 64), dtype=np.float32)
    y = np.array([0, 1, 2, 0, 1])
    found = {}
    for activation in (threshold, sigmoid):
        network = new_network([64, 6, 3], activation, np.random.default_rng(1))
        found[activation] = [g(x, y) for g in whitebox.input_gradients(network, (1.0, 3.0))]
    (steep, flat), (own,) = found[threshold], found[sigmoid]
    assert not np.allclose(steep, flat)
    assert own.shape == flat.shape == x.shape
    constants = SimpleNamespace(SEED=0, QUERIES=1, EPSILON=(0.2,), PGD_STEPS=2)
    image = np.full((2, 64), 0.5, np.float32), np.array([0, 1])
    gradients = [lambda x, y: np.ones_like(x), lambda x, y: -np.ones_like(x)]
    network = new_network([64, 6, 3], threshold, np.random.default_rng(1))
    inputs = whitebox.attacked(constants, network, image, gradients)
    assert {kind: len(several) for kind, several in inputs.items()} == {
        ("fgsm", whitebox.OWN_EPSILON): 2,
        ("glr", whitebox.OWN_EPSILON): 1,
        ("square", whitebox.OWN_EPSILON): 1,
        ("pgd", whitebox.OWN_EPSILON): 2,
        ("pgd", 0.2): 2,
    }
    for kind in (("fgsm", whitebox.OWN_EPSILON), ("pgd", whitebox.OWN_EPSILON)):
        up, down = inputs[kind]
        np.testing.assert_allclose(up, image[0] + whitebox.OWN_EPSILON, rtol=1e-6)
        np.testing.assert_allclose(down, image[0] - whitebox.OWN_EPSILON, rtol=1e-6)


def test_the_table_is_of_the_means_over_seeds():
    rows = [*rows_of("LRT", 0, pgd=0.5), *rows_of("LRT", 1, pgd=0.6), *rows_of("BP", 0)]
    header, first, second = whitebox.whitebox_lines(rows)
    assert header == ["model", *whitebox.COLUMNS]
    assert first[0] == "LRT"
    assert first[header.index("pgd")] == "55.00 ± 7.07"
    assert second == ["BP", *["100.00"] * 7, "0.00"]
    assert header[-1] == whitebox.ZERO_GRADIENT
    block = whitebox.whitebox_block({"digits": rows})
    assert block.startswith("On digits, the first 360 test images, ε = 0.1:\n\n| model | clean |")


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
    before, by_dataset = page.read_text(), {"digits": rows_of("LRT", 0), "mnist": rows_of("BP", 0)}
    whitebox.write_whitebox(by_dataset, pages.Page("whitebox_part"))
    assert page.read_text() == before
    assert sorted(path.name for path in page.parent.iterdir()) == ["results.md"]
    assert "| LRT |" in (tmp_path / "results" / "whitebox_part.md").read_text()
    assert (tmp_path / "results" / "whitebox_part.png").read_bytes().startswith(b"\x89PNG")
    whitebox.write_whitebox(by_dataset, pages.Page("whitebox", whole=True))
    text = page.read_text()
    assert text.startswith("head\n")
    assert text.endswith("\ntail\n")
    assert "On mnist, the first 360 test images, ε = 0.1:" in text
    assert (page.parent / "whitebox.png").exists()


def test_the_script_attacks_pretrained_networks_as_generate_adv_does(tmp_path, monkeypatch, capsys):
    for place in ("DATA", "MODELS", "RESULTS"):
        monkeypatch.setenv(f"GLR_{place}_DIR", str(tmp_path / place.lower()))
    (tmp_path / "models").mkdir()
    own = (PRETRAINED / "BP_digits_seed0.npz").read_bytes()
    (tmp_path / "models" / "BP_digits_seed0.npz").write_bytes(own)
    of_both = ("--images", 50, "--queries", 5)
    slope = ("--slopes", 1)
    words = ("--datasets", "digits", "--names", "LRTZ", "BP", "--epsilon", 0.1, 0.4)
    ran = run("whitebox.py", *words, *of_both, *slope)
    assert (ran.returncode, ran.stderr) == (0, "")  # nor a warning of ART's
    page = (tmp_path / "results" / "whitebox_part.md").read_text()
    assert "\n| BP | " in page
    row = re.search(r"^\| LRTZ \(pretrained\) \| (.*) \|$", page, re.MULTILINE)
    cells = row.group(1).split(" | ")
    shown = dict(zip(whitebox.COLUMNS, map(float, cells), strict=True))
    assert shown[whitebox.WORST] <= min(shown[name] for name in whitebox.COLUMNS[:-1])
    target = PRETRAINED / "LRTZ_digits_seed0.npz"
    for name in ("pgd", "square"):
        epsilon = ("--epsilon", whitebox.OWN_EPSILON)
        attack("--attack", name, "--target", target, *of_both, *epsilon)
        said = capsys.readouterr().out
        before, after = re.search(r"accuracy (\S+) → (\S+) % of 50;", said).groups()
        assert (shown["clean"], shown[name]) == (float(before), float(after)), name


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
    asked = SimpleNamespace(NAMES=("wave", "LRS"), SEEDS=5)
    data = Dataset("digits", *[None] * 4)
    assert whitebox.chosen_models(asked, data) == [MODEL]
    says = "Left out on digits: wave, whose activation has no known gradient\n"
    assert capsys.readouterr().err == says
    asked.NAMES = ("wave",)
    with pytest.raises(GLRError, match="NAMES = wave: none can be attacked; there are LRS, wave"):
        whitebox.chosen_models(asked, data)
