"""Train&Test/depth.py and glr/study/depth.py: deep and wide networks beside their controls."""

import os
import runpy
from types import SimpleNamespace

import pytest
from processes import run

from glr.errors import GLRError
from glr.scripts.constants import SCRIPTS
from glr.study import depth
from glr.study.depth import Network, depth_lines, networks_of, runs_of

LRS, BP = "mnist 50-50 LRS --sigma 0.5", "mnist 50-50 BP+L2C --sigma 0.5"


def test_variants_are_read():
    assert networks_of([LRS, "digits 5 LRT"]) == [
        Network("mnist", "50-50", "LRS", "--sigma 0.5"),
        Network("digits", "5", "LRT", ""),
    ]


@pytest.mark.parametrize(
    ("variants", "says"),
    [
        ((LRS, "mnist 50-50 LRS"), "VARIANTS: mnist 50-50 LRS is there twice; leave one out"),
        (("mnist LRS",), "'mnist LRS' is none; give data, hidden neurons, name, flags"),
    ],
)
def test_variants_that_cannot_be_told_are_one_clear_error(variants, says):
    with pytest.raises(GLRError, match=says):
        networks_of(variants)


def test_every_variant_can_be_run_by_jax_and_pairs_differ_in_the_estimator_alone(tmp_path):
    variants = runpy.run_path(str(SCRIPTS / "depth.py"))["VARIANTS"]
    constants = SimpleNamespace(SEEDS=1, VALIDATION=0, MODELS_DIR=tmp_path, FORMAT="png")
    recorded = {n[:3]: runs_of(n, constants)[0].recorded for n in networks_of(variants)}
    for (dataset, hidden, name), own in recorded.items():
        assert own["HIDDEN"] == [int(n) for n in hidden.split("-")]
        assert own.get("BACKEND", "jax") == "jax"
        control = recorded.get((dataset, hidden, depth.MATCHED.get(name)), {})
        shared = control.keys() & own.keys() - {"NAME"}
        assert {key: own[key] for key in shared} == {key: control[key] for key in shared}


def test_the_table_sets_a_network_beside_its_control(monkeypatch):
    reached = {
        network: [{"test_accuracy": (a + seed) / 100, "seconds": 2.6} for seed in (0, 1, 3)]
        for network, a in zip(networks_of([LRS, BP, "mnist 50 LRS"]), (96, 95, 90), strict=True)
    }
    monkeypatch.setattr(depth, "metrics_of", lambda runs: runs)
    header, ours, control, other = depth_lines(reached, "test")
    assert header[4] == "test accuracy (%)"
    assert ours[:6] == ["mnist", "50-50", "LRS", "`--sigma 0.5`", "97.33 ± 1.53", "+1.00"]
    assert control[2:] == ["BP+L2C", "`--sigma 0.5`", "96.33 ± 1.53", "", "", "3"]
    assert other[2:] == ["LRS", "", "91.33 ± 1.53", "", "", "3"]


def test_the_script_trains_and_writes_its_table(tmp_path):
    env = {**os.environ, "GLR_RESULTS_DIR": str(tmp_path / "results")}
    variant = "digits 5-4 LRT --steps 30 --backend numpy"
    words = (variant, "--seeds", 2, "--validation", 100, "--models-dir", tmp_path)
    ran = run("depth.py", *words, env=env)
    assert ran.returncode == 0, ran.stderr
    text = (tmp_path / "results" / "depth_part.md").read_text()
    assert "| digits | 5-4 | LRT | `--steps 30 --backend numpy` | " in text
    assert "validation accuracy (%)" in text
    assert len([*(tmp_path / "depth").glob("LRT-5-4_digits_seed?_validation.npz")]) == 2
