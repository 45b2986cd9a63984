"""The trade-off of clean and FGSM accuracy: its runs, its arithmetic, its table and picture."""

from types import SimpleNamespace

import pytest

from glr import study, tradeoff
from glr.constants import ROOT
from glr.robustness import Row
from glr.tradeoff import Point

CURVES = {
    "LRTZ": [Point(1e-4, [97.0], [60.0]), Point(1e-3, [90.0, 92.0], [62.0, 64.0])],
    "LRS": [Point(1e-4, [97.0], [45.0]), Point(1e-3, [95.0], [70.0])],
    "BP+L2C": [Point(1e-4, [97.0], [70.0]), Point(1e-3, [96.0], [80.0])],
}


def test_every_network_is_trained_at_every_penalty():
    networks = tradeoff.penalised_networks({"BP+": ("BP.py", "--sigma 1")}, (1e-4, 1e-7))
    assert networks == {
        "BP+-0.0001": ("BP.py", "--sigma 1 --weight-decay 0.0001"),
        "BP+-1e-07": ("BP.py", "--sigma 1 --weight-decay 1e-07"),
    }


def test_points_are_of_their_own_network_and_penalty():
    rows = [
        Row(name, seed, condition, epsilon, share + seed / 100, 100)
        for name, share in (("LRS-0.01", 0.5), ("LRS-0.001", 0.7), ("LRSZ-0.001", 0.1))
        for seed in (0, 1)
        for condition, epsilon in (("clean", 0), ("fgsm", 0.1))
    ]
    (first, last) = tradeoff.curves_of(rows, ["LRS"], (0.01, 0.001))["LRS"]
    assert (first.penalty, last.penalty) == (0.001, 0.01)
    assert first.clean == first.fgsm == pytest.approx([70, 71])
    assert last.clean == last.fgsm == pytest.approx([50, 51])


def test_a_penalty_surpasses_the_published_point_only_in_both_accuracies():
    """Published on MNIST, clean and FGSM: LRTZ 90.22, 61.36; LRS 95.54, 45.91."""
    assert tradeoff.what_surpasses(CURVES, "mnist") == (
        "Above the published clean and FGSM accuracies at once: "
        "LRTZ at 0.001, LRS at no penalty of these."
    )
    assert tradeoff.what_surpasses(CURVES, "digits") == ""


def test_the_table_has_a_line_per_penalty_and_the_published_last():
    header, first, second, published = tradeoff.tradeoff_lines(CURVES, "mnist")
    assert header == ["penalty", "LRTZ", "LRS", "BP+L2C"]
    assert first == ["0.0001", "97.00 / 60.00", "97.00 / 45.00", "97.00 / 70.00"]
    assert second[1] == "91.00 ± 1.41 / 63.00 ± 1.41"
    assert published == ["published", "90.22 / 61.36", "95.54 / 45.91", "–"]


def test_runs_are_measured_on_their_own_data_and_written(tmp_path, monkeypatch):
    """From training on the digits to the page, in a copy of it."""
    monkeypatch.setattr(tradeoff, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "results.md"
    page.write_text("\n".join(["head", *tradeoff.TRADEOFF_MARKS, "tail", ""]))
    places = {"DATA_DIR": tmp_path / "data", "MODELS_DIR": tmp_path / "models"}
    chosen = SimpleNamespace(SEEDS=1, PROCESSES=2, DASK="", **places)
    networks = tradeoff.penalised_networks({"LRT": ("LRT.py", "--steps 30")}, (1e-4, 1e-3))
    runs = study.tasks(chosen, networks, ["digits", "mnist"])
    study.train_missing(runs[::2], chosen)
    study.run_robustness_script(study.FGSM, chosen, "digits")
    rows = tradeoff.measured_rows(runs, chosen, "digits")
    assert [(row.model, row.condition) for row in rows] == [
        (name, condition) for name in networks for condition in ("clean", "fgsm")
    ]
    curves = tradeoff.curves_of(rows, ["LRT"], (1e-4, 1e-3))
    tradeoff.write_tradeoffs({"digits": curves, "mnist": curves})
    text = page.read_text()
    assert text.startswith("head\n")
    assert text.endswith("\ntail\n")
    assert "On digits:\n\n| penalty | LRT |" in text
    assert "LRT at no penalty of these." in text
    assert (tmp_path / "docs" / "tradeoff.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_has_the_marks_that_the_script_writes_between():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert all(text.count(f"{mark}\n") == 1 for mark in tradeoff.TRADEOFF_MARKS)
