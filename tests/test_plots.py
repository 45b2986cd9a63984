"""Pictures: their formats, their colours, their axes, what stands in them."""

from itertools import combinations

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from processes import ROOT, attack, run

from glr.data.datasets import load_dataset
from glr.robustness import evaluation, perturbation
from glr.robustness.evaluation import PRETRAINED
from glr.robustness.tables import CONTROLS, MAIN_ROWS, Row
from glr.scripts import plots
from glr.storage.checkpoint import Evaluation
from glr.storage.models import load_model

# What red-blind and green-blind people see of linear RGB (Machado et al. 2009, severity 1).
SEEN = {
    "all": np.eye(3),
    "protan": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deutan": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)  # of linear sRGB
STARTS = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


def lab(colour, seen):
    """The CIELAB coordinates of a colour (white D65), as some see it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(seen @ linear, 0, 1) / TO_XYZ.sum(axis=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(one, other, seen):
    return float(np.linalg.norm(lab(one, seen) - lab(other, seen)))


@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN)
def test_the_networks_that_are_drawn_together_have_colours_that_all_can_tell_apart(seen):
    """2.3 is just noticeable; the networks of whitebox.py's picture, and LRS and BP more."""
    assert set(plots.COLOURS) == {*MAIN_ROWS, *CONTROLS}
    drawn = [plots.COLOURS[name] for name in (*MAIN_ROWS, "BP+L2C", "ST+L2C")]
    assert min(distance(*pair, seen) for pair in combinations(drawn, 2)) > 15
    assert distance(plots.COLOURS["LRS"], plots.COLOURS["BP"], seen) > 60
    every = {*plots.COLOURS.values(), *plots.OWN_COLOURS}
    assert len(every) == len(plots.COLOURS) + len(plots.OWN_COLOURS)


def test_a_network_s_colour_does_not_depend_on_the_others():
    names = [*plots.COLOURS, *(f"own{i}" for i in range(20))]
    looks = plots.look_of(names)
    assert [*looks] == names
    assert len(set(looks.values())) == len(names)
    assert plots.look_of(["own0", "BP"]) == {"own0": looks["own0"], "BP": looks["BP"]}


@pytest.mark.parametrize("kind", plots.FORMATS)
def test_a_learning_curve_in_every_format(kind, tmp_path):
    rows = [Evaluation(s, s, s, t, 0.5, a) for s, t, a in ((0, np.nan, 0.1), (9, 0.2, 0.98))]
    path = tmp_path / f"it.{kind}"
    plots.draw_learning_curve(path, "LRS on $digits", rows, "test", "#0072B2")
    assert path.read_bytes().startswith(STARTS[kind])


@pytest.mark.parametrize(("errors", "scale"), [([90, 3, 2.5], "log"), ([90, 0.3, 0], "symlog")])
def test_one_sample_of_few_errors_can_be_seen(errors, scale):
    """10 and 9 wrong of 360: a hundredth of the axis or more, which is all there is of it."""
    axes = plots.new_figure(4, 4).subplots()
    errors = np.array(errors)
    axes.plot([0, 1, 2], errors)
    plots.error_axis(axes, errors)
    assert axes.get_yscale() == scale
    _, up, down, top = axes.transScale.transform([(0, e) for e in (0.1, 2.78, 2.5, 90)])[:, 1]
    assert (up - down) / (top - axes.transScale.transform((0, errors.min() or 0))[1]) > 0.01


@pytest.mark.parametrize("kind", ["pdf", "svg"])
def test_scripts_draw_in_the_format_that_is_asked_for(kind, tmp_path):
    ran = run("LRS.py", "--steps", 5, "--models-dir", tmp_path, "--format", kind)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert {path.suffix for path in tmp_path.iterdir()} == {".npz", ".csv", f".{kind}"}
    assert (tmp_path / f"LRS_digits_seed0.{kind}").read_bytes().startswith(STARTS[kind])


def test_a_format_that_is_none_is_one_line():
    ran = run("LRS.py", "--format", "gif")
    assert (ran.returncode, len(ran.stderr.splitlines())) == (2, 1)
    assert "'png', 'pdf', 'svg'" in ran.stderr


def test_an_attack_s_picture_has_labels_predictions_and_a_title_in_words(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(perturbation, "save_figure", lambda *of: drawn.append(of[1:]))
    monkeypatch.setenv("GLR_DATA_DIR", str(tmp_path))
    target = PRETRAINED / "LRS_digits_seed0.npz"
    attack("--target", target, "--epsilon", "0.2", "--images", "7")
    ((figure, title),) = drawn
    says = "FGSM, ε 0.2, on LRS, seed 0 itself, whose predictions these are"
    assert title == f"{says}; digits, the first 7 of 7 test images"
    titles = [axes.get_title() for axes in figure.axes]
    data, network = load_dataset("digits", ROOT / "data"), load_model(target).network
    before = network.logits(data.x_test[:7]).argmax(axis=1)
    wanted = zip(data.y_test, before, strict=False)
    assert titles[:7] == [f"label {y}\npredicted {k}" for y, k in wanted]
    (path,) = tmp_path.rglob("*.npz")
    with np.load(path) as arrays:
        after = network.logits(arrays["x_adv"].reshape(-1, 64)).argmax(axis=1)
    assert titles[7:] == [*[""] * 7, *(f"predicted {k}" for k in after)]
    assert not np.array_equal(before, after)


def test_the_words_of_an_attack_that_is_transferred():
    words = perturbation.attack_in_words("lbfgs", "surrogate", None)
    assert words == "L-BFGS, transferred from a ReLU network, whose predictions these are"


def test_results_show_the_spread_over_seeds(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(evaluation, "save_figure", lambda *of: drawn.append(of[1:]))
    rows = [Row("LRS", seed, "clean", 0, a, 50) for seed, a in ((0, 0.9), (1, 0.94))]
    evaluation.draw_results(
        tmp_path / "it.png", [*rows, Row("BP", 0, "clean", 0, 0.8, 50)], "mnist"
    )
    ((figure, title),) = drawn
    assert title.startswith("mnist, 50 test samples; ")
    assert "mean ± sd over seeds" in title
    (axes,) = figure.axes
    bars = {c.get_label(): c for c in axes.containers if hasattr(c, "patches")}
    (ends,) = bars["LRS"].errorbar.lines[2][0].get_segments()
    np.testing.assert_allclose(ends[:, 1], [92 - 8**0.5, 92 + 8**0.5])
    assert to_rgb(bars["LRS"].patches[0].get_facecolor()[:3]) == to_rgb(plots.COLOURS["LRS"])


def test_a_png_can_be_read(tmp_path):
    figure = plots.new_figure(1, 1)
    plots.save_figure(tmp_path / "it.png", figure, "$2 and $3")
    assert figure.get_suptitle() == "$2 and $3" and not figure.texts[0].get_parse_math()
    assert matplotlib.image.imread(tmp_path / "it.png").shape == (150, 150, 4)
