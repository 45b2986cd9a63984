"""Train&Test/depth.py and glr/study/depth.py: deep and wide networks beside their controls."""

import os
import runpy
from types import SimpleNamespace

import numpy as np
import pytest
from processes import run

from glr.errors import GLRError
from glr.network import accuracy, new_network
from glr.scripts.constants import SCRIPTS, constants_of
from glr.scripts.run import load_data
from glr.storage.models import save_model
from glr.study import depth
from glr.study.bias import percent
from glr.study.depth import Network, depth_lines, networks_of, runs_of

LRS, BP = "mnist 50-50 LRS --sigma 0.5", "mnist 50-50 BP+L2C --sigma 0.5"


def test_variants_are_read():
    output = "--local-differences output"
    assert networks_of([LRS, f"digits 5 LRT,ST+L2C {output} --steps 9"]) == [
        Network("mnist", "50-50", "LRS", "--sigma 0.5"),
        Network("digits", "5", "LRT", f"{output} --steps 9"),
        Network("digits", "5", "ST+L2C", "--steps 9"),
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
        assert own["BACKEND"] == "jax"
        control = recorded.get((dataset, hidden, depth.MATCHED.get(name)), {})
        shared = control.keys() & own.keys() - {"NAME"}
        assert {key: own[key] for key in shared} == {key: control[key] for key in shared}


def test_the_table_sets_a_network_beside_its_control(monkeypatch):
    networks = networks_of([LRS, BP, "mnist 50 LRS"])
    tasks = {n: [a, a + 1, a + 3] for n, a in zip(networks, (96, 95, 90), strict=True)}
    monkeypatch.setattr(depth, "accuracy_of", lambda task, where: task)
    monkeypatch.setattr(depth, "averaged_accuracies", lambda own, constants: [97.0])
    constants = SimpleNamespace(VALIDATION=0, PREDICTION_PASSES=100)
    header, ours, control, other = depth_lines(tasks, constants)
    assert header[3] == "test accuracy (%)"
    assert ours[:5] == ["mnist 50-50", "LRS", "`--sigma 0.5`", "97.33 ± 1.53", "+1.00"]
    assert ours[6:] == ["97.00"]
    assert control[1:6] == ["BP+L2C", "`--sigma 0.5`", "96.33 ± 1.53", "", ""]
    assert other[:6] == ["mnist 50", "LRS", "", "91.33 ± 1.53", "", ""]


def test_the_script_trains_and_writes_its_tables(tmp_path):
    env = {**os.environ, "GLR_RESULTS_DIR": str(tmp_path / "results")}
    variants = [f"digits {what} --steps 30 --backend numpy" for what in ("5-4 LRT", "5 LRS-adv")]
    words = (*variants, "--seeds", 2, "--validation", 100, "--models-dir", tmp_path)
    ran = run("depth.py", *words, "--prediction-passes", 3, "--bias-draws", 2, env=env)
    assert ran.returncode == 0, ran.stderr
    text = (tmp_path / "results" / "depth_part.md").read_text()
    assert "| digits 5-4 | LRT | `--steps 30 --backend numpy` | " in text
    assert "validation accuracy (%) | less | p | mean of passes |" in text
    assert "\n\n| digits, attacked | clean | fgsm, transferred | fgsm | pgd | glr | " in text
    assert "\n| LRS-adv-5 | " in text
    assert "\n\n| bias of (8), % | σ | initial scale | 5-5 | 20-20 | 50-50 |" in text
    assert len([*(tmp_path / "depth").glob("LRT-5-4_digits_seed?_validation.npz")]) == 2


def test_the_mean_of_noisy_passes_predicts_the_evaluated_samples(tmp_path):
    """With hardly any noise, it is right where the noise-free network is."""
    constants = SimpleNamespace(SEEDS=1, VALIDATION=100, MODELS_DIR=tmp_path, FORMAT="png")
    constants.DATA_DIR, constants.PREDICTION_PASSES = tmp_path, 3
    noise = {"NOISE": "logistic", "SIGMA": [1e-6, 1e-6], "PERTURB": "logits"}
    found = {}
    for network in networks_of(["digits 9 LRT,LRS"]):
        (task,) = runs_of(network, constants)
        own = constants_of(task.script, task.flags)
        trained = new_network([64, 9, 10], own.ACTIVATION, np.random.default_rng(0))
        metadata = {"activation": own.ACTIVATION.__name__, "constants": noise}
        save_model(task.path, trained, metadata)
        data = load_data(own)
        right = 100 * accuracy(trained.logits(data.x_test), data.y_test)
        found[network.name] = depth.averaged_accuracies([task], constants), right
    assert len(data.y_test) == 100
    averaged, right = found["LRT"]
    assert averaged == pytest.approx([right])
    assert found["LRS"][0] == []


@pytest.mark.parametrize(
    ("squares", "says"),
    [([0.04, 0.04, 0.04], "20.0 ± 0.0"), ([0.01, 0.04], "15.8 ± 4.7"), ([-1e-4, 1e-4], "< 1.4")],
)
def test_a_bias_has_its_standard_error_or_a_bound(squares, says):
    assert percent(squares) == says
