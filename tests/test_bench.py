"""What the benchmark times is what it says, and what it finds is written whatever fails."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from glr.data.datasets import Dataset
from glr.errors import GLRError
from glr.losses import cross_entropy, zero_one
from glr.network import accuracy, layer_views, logits, new_network, sigmoid, threshold
from glr.scripts.constants import ROOT
from glr.study import comparison
from glr.study.comparison import published_gradient

sys.path.insert(0, str(ROOT / "benchmarks"))
import bench
import rivals

WITH_JAX = pytest.mark.skipif(not find_spec("jax"), reason="needs requirements-jax.txt")
WITH_TORCH = pytest.mark.skipif(not find_spec("torch"), reason="PyTorch is no requirement")
X = np.random.default_rng(1).random((6, 4), np.float32)
Y = np.random.default_rng(2).integers(0, 2, 6)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """200 random samples whose class is where the sum of their thirds is largest."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    x = np.random.default_rng(3).random((200, 12), np.float32)
    y = x.reshape(200, 3, 4).sum(axis=2).argmax(axis=1)
    return Dataset("tiny", x, y, x, y)


@pytest.mark.parametrize(
    "kind",
    [
        rivals.numpy_training,
        pytest.param(rivals.jax_training, marks=WITH_JAX),
        rivals.numpy_backpropagation,
        rivals.keras_training,
        pytest.param(rivals.pytorch_training, marks=WITH_TORCH),
    ],
)
def test_every_rival_learns(kind, data):
    """Class 0 of three, by chance a third, is not enough."""
    steps = kind("LRS", ["--hidden", "9"], data)
    before = accuracy(steps(1)(data.x_test), data.y_test)
    assert accuracy(steps(200)(data.x_test), data.y_test) > max(0.8, before)
    assert 20 < bench.steps_to(80, kind("LRS", ["--hidden", "9"], data), data) <= 200


def test_an_accuracy_that_is_never_reached_is_an_error(data):
    with pytest.raises(GLRError, match="101 % was never reached"):
        bench.steps_to(101, lambda n: lambda x: np.eye(3)[data.y_test], data)


def test_the_published_step_descends_the_published_estimate_at_r_10(data, monkeypatch):
    """With the script's activation and loss, the learning rate 0.01 and weight decay 10⁻⁴ of W."""
    runs, found = [], []

    def estimate(*batch, **named):
        assert (named["activation"], named["loss"]) == (threshold, zero_one)
        assert named["replicates"] == 10
        found.append(published_gradient(*batch, **named))
        return found[-1]

    init = rivals.Run.__init__
    monkeypatch.setattr(rivals.Run, "__init__", lambda run, *_: runs.append(run) or init(run, *_))
    monkeypatch.setattr(rivals, "published_gradient", estimate)
    steps = rivals.published_training("LRTZ", ["--hidden", "3"], data)
    start = layer_views(runs[0].network.parameters.copy(), runs[0].network.sizes)
    steps(1)
    for layer, old, slope in zip(runs[0].layers, start, found[0].layers, strict=True):
        np.testing.assert_allclose(layer.b, old.b - 0.01 * slope.b, atol=1e-6)
        np.testing.assert_allclose(layer.W, old.W - 0.01 * (slope.W + 1e-4 * old.W), atol=1e-6)
    assert np.any(found[0].layers[0].W)


def test_numpy_backpropagation_finds_the_numerical_gradient():
    sizes = [4, 3, 3, 2]
    network = new_network(sizes, sigmoid, np.random.default_rng(0))

    def risk(parameters):
        z = logits(layer_views(parameters, sizes), sigmoid, X.astype(np.float64))
        return cross_entropy(z.T, Y).mean()

    at = network.parameters.astype(np.float64)
    numerical = [(risk(at + step) - risk(at - step)) / 2e-5 for step in 1e-5 * np.eye(at.size)]
    found = rivals.backpropagated(network.layers, X, Y).layers
    flat = np.concatenate([part.ravel() for layer in found for part in layer])
    np.testing.assert_allclose(flat, numerical, atol=1e-6)


@WITH_JAX
def test_what_takes_a_name_s_place_in_jax_is_in_its_own_program_alone(data):
    from glr import xla  # noqa: PLC0415  (no requirement)

    traced, loss = [], xla.LOSSES[cross_entropy]
    changed = {"LOSSES": {cross_entropy: lambda *batch: traced.append(1) or loss(*batch)}}
    ours = rivals.jax_training("LRS", ["--hidden", "3"], data)
    assert not traced
    other = rivals.jax_training("LRS", ["--hidden", "3"], data, **changed)
    n_traced = len(traced)
    assert n_traced > 0
    np.testing.assert_array_equal(ours(20)(X.repeat(3, axis=1)), other(20)(X.repeat(3, axis=1)))
    assert len(traced) == n_traced


def test_a_turn_is_of_all_and_a_slow_one_changes_no_ratio(monkeypatch):
    """A step of a takes 1 s, of b 2, in the second turn twice as much; a turn is of 2 steps."""
    now, called = [0.0], []

    def steps(name, seconds):
        def take(n):
            called.append(name * n)
            now[0] += seconds * n * (1 + (len(called) in (5, 6)))

        return take

    monkeypatch.setattr(bench.time, "process_time", lambda: now[0])
    ((case, unit, ours, others),) = bench.compared({"a": steps("a", 1)}, {"b": steps("b", 2)}, 2)
    assert called == ["a", "b", "aa", "bb", "aa", "bb"]
    assert (case, unit, list(ours), list(others["b"])) == ("a", "ms", [1e3, 2e3], [2e3, 4e3])
    assert bench.cells((case, unit, ours, others)) == ["a", "1,500 ms", "2"]


def test_the_parts_compare_every_path_with_every_rival(data, monkeypatch):
    """At tiny sizes: two scripts, one network."""
    growth = {what: (flags_of, (2,)) for what, (flags_of, _) in bench.GROWTH.items()}
    constants = {"HIDDEN": ("3",), "GLR_ROWS": ("LRS", "LRTZ"), "GROWTH": growth, "PASSES": 200}
    constants |= {"REPLICATES": (2, 3), "CALL": 2}
    constants |= {"WARM_STEPS": 10, "TURN_SECONDS": 1e-9}
    constants |= {"PATHS": {"NumPy": rivals.numpy_training}}
    constants |= {"PUBLISHED": {"mnist": {"LRS": [60], "LRTZ": [60]}}}
    for name, value in constants.items():
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(comparison, "HALF_TRAINED_STEPS", 10)
    found = {part: list(measured(data, 2)) for part, measured in bench.PARTS.items()}
    columns = {part: [list(row[3]) for row in rows] for part, rows in found.items()}
    assert columns[1] == 2 * [list(bench.RIVALS)]
    assert columns[2] == 2 * [["published", "independent passes"]]
    assert columns[3] == 2 * [["Keras"]]
    assert columns[4] == (len(growth) + 4) * [["doubled"]]
    assert columns[5] == 3 * [["plain"]]
    for case, _, ours, others in (row for rows in found.values() for row in rows):
        for other in others.values():
            assert np.all(other > 0) and np.all(ours > 0), case


def test_a_failing_part_keeps_its_own_and_the_others_rows(data, monkeypatch, tmp_path, capsys):
    def good(_data, turns):
        """A title

        What it measures.
        """
        yield "a case, NumPy", "ms", np.array([2.0, 2.0]), {"Keras": np.array([3.0, 5.0])}

    def fails(_data, turns):
        """Another title

        What it measures.
        """
        yield from good(_data, turns)
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(bench, "PARTS", {1: good, 2: fails, 3: good})
    monkeypatch.setattr(bench, "load_dataset", lambda *_: data)
    with pytest.raises(GLRError, match="part 2 failed: ZeroDivisionError: by zero"):
        bench.run_parts([1, 2, 3], 2, tmp_path)
    line = "a case, NumPy  2 ms  2 (1.75–2.25)"
    assert capsys.readouterr().out == f"1  {line}\n2  {line}\n3  {line}\n"
    page = (tmp_path / "bench.md").read_text(encoding="utf-8")
    assert "## 2. Another title\n\nWhat it measures.\n\n| case | ours | Keras |\n" in page
    assert page.count("| a case, NumPy | 2 ms | 2 (1.75–2.25) |") == 3
    assert "Python 3." in page and f"numpy {np.__version__}" in page
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    bench.run_parts([1], 2, None)


def test_the_command_line_teaches():
    command = [sys.executable, str(ROOT / "benchmarks" / "bench.py")]
    for words, status, says in ((["-h"], 0, "--turns"), (["--turns", "0"], 2, "give 1 or more")):
        ran = subprocess.run([*command, *words], text=True, capture_output=True, check=False)
        assert ran.returncode == status and says in ran.stdout + ran.stderr
        assert ran.stderr.count("\n") == (status > 0)
