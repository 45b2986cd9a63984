"""compare.py: the names of its files, its table and its curves."""

import os
import re
import runpy
from types import SimpleNamespace

import numpy as np
import pytest
from processes import ROOT, history, run

from glr.errors import GLRError
from glr.scripts.constants import SCRIPTS, constants_of
from glr.scripts.plots import COLOURS
from glr.scripts.records import recorded_constants
from glr.study import variants

SCRIPT = runpy.run_path(str(SCRIPTS / "compare.py"))


def test_every_variant_of_the_docs_can_be_run():
    words = [variant.split() for variant in SCRIPT["VARIANTS"]]
    settings = [recorded_constants(constants_of(name, flags)) for name, *flags in words]
    assert all(settings.count(setting) == 1 for setting in settings)


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("LRS.py", "LRS"),
        ("LRS.py --sigma 2 0.5", "LRS--sigma-2-0.5"),
        ("LRS.py --weight-decay 1e-4", "LRS--weight-decay-1e-4"),
        ("LRS.py --no-local-differences", "LRS--no-local-differences"),
    ],
)
def test_files_are_named_after_what_varies(variant, name):
    script, _, flags = variant.partition(" ")
    assert variants.networks_of([variant]) == {name: (script, flags)}


def test_odd_and_long_names_are_legal_short_and_told_apart():
    odd = [
        "my_script.py",
        "my-script.py",
        "my/script.py",
        "LRS.py --activation a_b",
        "LRS.py --activation a-b",
        "LRS.py --activation a b",
        "LRS.py --activation ä",
        "LRS.py --hidden " + " ".join(["50"] * 40),
        "LRS.py --hidden " + " ".join(["50"] * 41),
        "surrogate.py --like ../x.npz",
    ]
    names = [*variants.networks_of(odd)]
    assert len({name.lower() for name in names}) == len(odd)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9+.-]{1,80}", name)
        constants_of("LRS.py", ["--name", name])  # which a script takes


def test_a_variant_that_is_given_twice_is_refused():
    with pytest.raises(GLRError, match=r"^LRS.py --seed 1: is given twice; leave one out$"):
        variants.networks_of(["LRS.py --seed 1", "LRS.py", "LRS.py  --seed  1 "])


def test_variants_are_compared_over_seeds_and_docs_stay_as_they_are(tmp_path):
    page = (ROOT / "docs" / "results.md").read_bytes()
    env = {**os.environ, "GLR_RESULTS_DIR": str(tmp_path / "results")}
    places = ("--models-dir", tmp_path, "--format", "svg")
    words = ("--dataset", "digits", "--validation", 100, "--seeds", 2, *places)
    ran = run("compare.py", "LRS.py --steps 30", "LRT.py --steps 20 --sigma 2 1", *words, env=env)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0].split("  ")[0] == "command"
    text = (tmp_path / "results" / "compare_part.md").read_text()
    assert text.startswith("| command | validation accuracy (%) | less the first | p |\n")
    assert "| `LRT.py --steps 20 --sigma 2 1` | " in text
    assert (ROOT / "docs" / "results.md").read_bytes() == page
    name = "LRT--steps-20--sigma-2-1_digits_seed1_validation"
    assert [row["step"] for row in history(tmp_path / "compare" / f"{name}.csv")] == ["0", "20"]
    assert (tmp_path / "compare" / f"{name}.svg").exists()
    picture = (tmp_path / "results" / "compare_part.svg").read_text()
    assert "<svg" in picture
    for words in ("digits, 100 held-out training samples: mean and range over 2 seeds", "LRT.py"):
        assert words in picture
    ran = run("compare.py", "none.py", *words, env=env)
    assert ran.stderr == (
        f"compare.py: {SCRIPTS / 'none.py'}: no such file; give a .py file that is there\n"
    )


def test_curves_are_means_and_ranges_from_step_0(tmp_path, monkeypatch):
    figures, path = [], tmp_path / "it.png"
    monkeypatch.setattr(variants, "save_figure", lambda path, figure, title: figures.append(figure))
    steps = [0, 10, 20]
    seeds = [np.array([steps, [90, 10, 2]]), np.array([steps, [80, 20, 0]])]
    curves = {"LRS.py --sigma 2": seeds, "LRS.py": seeds, "BP.py": seeds}
    variants.draw_curves(path, curves, "digits")
    (axes,) = figures[0].axes
    assert [line.get_color() for line in axes.lines][1:] == [COLOURS["LRS"], COLOURS["BP"]]
    assert len({line.get_color() for line in axes.lines}) == 3
    for line in axes.lines:
        np.testing.assert_array_equal(line.get_xydata(), [[0, 85], [10, 15], [20, 1]])
    band = axes.collections[0].get_paths()[0].vertices
    assert {tuple(point) for point in band} >= {(10, 10), (10, 20), (20, 0), (20, 2)}


def test_a_curve_is_that_of_the_run_s_history(tmp_path):
    (tmp_path / "it.csv").write_text("step,test_accuracy\n0,0.1\n5,0.9\n")
    found = variants.curve(SimpleNamespace(path=tmp_path / "it.npz"), "test")
    np.testing.assert_allclose(found, [[0, 5], [90, 10]])


def test_more_curves_than_can_be_told_apart_are_no_picture(monkeypatch):
    drawn = []
    monkeypatch.setattr(variants, "write_page", lambda page, block, draw: drawn.append(draw))
    monkeypatch.setattr(variants, "accuracy_of", lambda task, where: 90.0)
    constants = SimpleNamespace(VALIDATION=0, DATASET="digits", DATA_DIR="", SEEDS=1)
    tasks = [SimpleNamespace(script="LRS.py", extra=f"--steps {n}") for n in range(1, 14)]
    for n in (12, 13):
        variants.write_comparison(tasks[:n], constants, None)
    assert [draw is None for draw in drawn] == [False, True]
