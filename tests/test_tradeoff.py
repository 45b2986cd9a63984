"""The trade-off of clean and FGSM accuracy: its runs, its arithmetic, its table and picture."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from glr.data.datasets import Dataset
from glr.network import Network, sigmoid
from glr.robustness.evaluation import PRETRAINED
from glr.robustness.tables import PUBLISHED, TABLE_EPSILON, Row
from glr.scripts.plots import COLOURS
from glr.storage.models import Model
from glr.study import pages, tradeoff
from glr.study import runs as study
from glr.study.tradeoff import Measured, Setting

LOW, HIGH = Setting("penalty", 1e-4, "--weight-decay 1e-4"), Setting("weight noise", 0.5, "--x")
BOTH = ("clean", "fgsm")


def rows_at(name, setting, *accuracies):
    """Rows of seeds 0, 1, … with these (clean, FGSM) accuracies in percent."""
    return [
        Row(tradeoff.name_at(name, setting), seed, condition, epsilon, percent / 100, 100)
        for seed, both in enumerate(accuracies)
        for condition, epsilon, percent in zip(BOTH, (0, TABLE_EPSILON), both, strict=True)
    ]


def measured_on(dataset):
    """Published on MNIST, clean and FGSM: LRTZ 90.22, 61.36; LRS 95.54, 45.91."""
    rows = [
        *rows_at("LRTZ", LOW, (97, 60)),
        *rows_at("LRTZ", HIGH, (90, 62), (92, 64)),
        *rows_at("LRS", LOW, (97, 45)),
        *rows_at("LRS", HIGH, (95, 70)),
        *rows_at("BP+L2C", LOW, (97, 70)),
        *rows_at("BP+L2C", HIGH, (96, 80)),
    ]
    return Measured(dataset, ["LRTZ", "LRS", "BP+L2C"], [LOW, HIGH], rows)


def test_every_network_is_trained_at_every_setting():
    networks = tradeoff.networks_at({"BP+": ("BP.py", "--sigma 1")}, [LOW, HIGH])
    assert networks == {
        "BP+-penalty-0.0001": ("BP.py", "--sigma 1 --weight-decay 1e-4"),
        "BP+-weight-noise-0.5": ("BP.py", "--sigma 1 --x"),
    }


def test_accuracies_are_of_their_own_network_and_setting():
    measured = measured_on("mnist")
    assert measured.reached("LRTZ", HIGH, "fgsm") == pytest.approx([62, 64])
    assert measured.reached("LRS", HIGH, "clean") == pytest.approx([95])
    assert measured.reached("LRT", HIGH, "clean") == []


def test_a_setting_surpasses_the_published_accuracies_only_in_all_at_once():
    assert tradeoff.what_surpasses(measured_on("mnist"), BOTH) == (
        "LRTZ at weight noise 0.5; LRS at none of these"
    )
    assert tradeoff.what_surpasses(measured_on("mnist"), ["clean"]) == (
        "LRTZ at penalty 0.0001, weight noise 0.5; LRS at penalty 0.0001"
    )
    assert tradeoff.what_surpasses(measured_on("digits"), BOTH) == ""
    assert tradeoff.listed([LOW, LOW._replace(value=0.01), HIGH]) == (
        "penalty 0.0001, 0.01, weight noise 0.5"
    )


def test_the_published_lbfgs_column_is_of_another_attack_and_goal_of_none():
    reached = dict.fromkeys((*PUBLISHED["columns"], tradeoff.WORST_CLASS), 1.0) | {"lbfgs": 0.0}
    epsilon = {"fgsm": TABLE_EPSILON}
    name = tradeoff.name_at("LRS", LOW)
    rows = [Row(name, 0, one, epsilon.get(one, 0), share, 10) for one, share in reached.items()]
    block = tradeoff.tradeoff_block(Measured("mnist", ["LRS"], [LOW], rows))
    assert "accuracies in all columns but L-BFGS at once: LRS at penalty 0.0001." in block


def test_a_class_that_is_never_right_is_a_lost_one():
    data = Dataset("two", np.zeros((1, 2)), np.zeros(1), np.eye(2)[[0, 0, 1]], np.array([0, 0, 1]))
    rows = []
    for seed, diagonal in enumerate((1, -1)):  # of the second class: right, and wrong
        network = Network(np.array([1, 0, 0, diagonal, 0, 0], np.float32), [2, 2], sigmoid)
        constants = {"NAME": tradeoff.name_at("LRSZ", LOW), "SEED": seed}
        rows.append(tradeoff.worst_class_row(Model(network, {"constants": constants}), data))
    assert [row.accuracy for row in rows] == [1, 0]
    measured = Measured("two", ["LRSZ"], [LOW], rows)
    assert tradeoff.what_lost_a_class(measured) == "LRSZ 1 of 2"


def test_the_table_has_a_line_per_setting_and_the_published_last():
    header, first, second, published = tradeoff.tradeoff_lines(measured_on("mnist"))
    assert header == ["", "LRTZ", "LRS", "BP+L2C"]
    assert first == [str(LOW), "97.00 / 60.00", "97.00 / 45.00", "97.00 / 70.00"]
    assert second[:2] == ["weight noise 0.5", "91.00 ± 1.41 / 63.00 ± 1.41"]
    assert published == ["published", "90.22 / 61.36", "95.54 / 45.91", "–"]


@pytest.mark.parametrize("dataset", ["digits", "mnist"])
def test_every_network_has_a_panel_in_its_colour_and_stars_are_named_where_they_are(
    dataset, tmp_path, monkeypatch
):
    figures = []
    monkeypatch.setenv("GLR_RESULTS_DIR", str(tmp_path))
    monkeypatch.setattr(tradeoff, "save_figure", lambda path, figure: figures.append(figure))
    monkeypatch.setattr(tradeoff, "tradeoff_block", str)
    tradeoff.write_tradeoffs([measured_on(dataset)], pages.Page("tradeoff"))
    (figure,) = figures
    titles = [f"{name}, {dataset}" for name in ("LRTZ", "LRS", "BP+L2C")]
    assert [axes.get_title() for axes in figure.axes] == titles
    for axes, name in zip(figure.axes, ("LRTZ", "LRS", "BP+L2C"), strict=True):
        own = {container.lines[0].get_color() for container in axes.containers}
        assert own == {COLOURS[name]}
    stars = any(line.get_marker() == "*" for axes in figure.axes for line in axes.lines)
    (legend,) = figure.legends
    named = "published" in [text.get_text() for text in legend.get_texts()]
    assert stars == named == (dataset == "mnist")


def test_runs_are_measured_on_their_own_data_and_written(tmp_path, monkeypatch):
    """From training on the digits to the page, in a copy of it; the surrogate is the pretrained."""
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "results.md"
    page.write_text("head\n<!-- tradeoff: it -->\n<!-- end of tradeoff -->\ntail\n")
    places = {"DATA_DIR": tmp_path / "data", "MODELS_DIR": tmp_path / "models"}
    places["MODELS_DIR"].mkdir()
    shutil.copy(PRETRAINED / "surrogate_digits_seed1000.npz", places["MODELS_DIR"])
    chosen = SimpleNamespace(SEEDS=1, PROCESSES=2, DASK="", FORMAT="png", **places)
    settings = [LOW, Setting("weight noise", 0.5, "--perturb weights --sigma 0.5 0.1")]
    networks = tradeoff.networks_at({"LRT": ("LRT.py", "--steps 30")}, settings)
    runs = study.tasks(chosen, networks, ["digits", "mnist"])
    study.train_missing([task for task in runs if task.dataset == "digits"], chosen)
    study.make_samples(chosen, "digits")
    rows = tradeoff.measured_rows(runs, chosen, "digits")
    assert {row.model for row in rows} == set(networks)
    assert {row.condition for row in rows} == {*PUBLISHED["columns"], tradeoff.WORST_CLASS}
    measured = [Measured(dataset, ["LRT"], settings, rows) for dataset in ("digits", "mnist")]
    monkeypatch.setenv("GLR_RESULTS_DIR", str(tmp_path / "results"))
    before = page.read_text()
    tradeoff.write_tradeoffs(measured, pages.Page("tradeoff_part"))
    assert page.read_text() == before
    assert "| LRT |" in (tmp_path / "results" / "tradeoff_part.md").read_text()
    assert sorted(path.name for path in (tmp_path / "docs").iterdir()) == ["results.md"]
    tradeoff.write_tradeoffs(measured, pages.Page("tradeoff", whole=True))
    text = page.read_text()
    assert text.startswith("head\n")
    assert text.endswith("\ntail\n")
    assert "On digits:\n\n|  | LRT |\n" in text
    assert "clean and FGSM accuracies at once: LRT at none of these." in text
    assert (tmp_path / "docs" / "tradeoff.png").read_bytes().startswith(b"\x89PNG")
