"""What the benchmark times is what it says, and what it finds is written whatever fails."""

import csv
import itertools
import os
import re
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from glr.data.datasets import Dataset
from glr.errors import GLRError
from glr.losses import cross_entropy, zero_one
from glr.network import layer_views, logits, new_network, sigmoid, threshold
from glr.noise import logistic
from glr.scripts.constants import ROOT
from glr.study import comparison
from glr.study.published import published_gradient

sys.path.insert(0, str(ROOT / "benchmarks"))
import bench
import rivals

SIZES, B = [4, 3, 2], 6
X = np.random.default_rng(1).random((B, SIZES[0]), np.float32)
Y = np.random.default_rng(2).integers(0, SIZES[-1], B)
LAYERS = new_network(SIZES, sigmoid, np.random.default_rng(0)).layers


def tiny_data():
    """200 samples of random pixels whose class is where the sum of their thirds is largest."""
    x = np.random.default_rng(3).random((200, 12), np.float32)
    y = x.reshape(200, 3, 4).sum(axis=2).argmax(axis=1)
    return Dataset("tiny", x, y, x, y)


@pytest.fixture
def tiny(monkeypatch):
    """A benchmark of tiny sizes, each of its turns one call."""
    growth = {what: (flags_of, (2,)) for what, (flags_of, _) in bench.GROWTH.items()}
    constants = {"HIDDEN": ("3",), "GLR_ROWS": ("LRS", "LRTZ"), "MANY_REPLICATES": 20}
    constants |= {"GROWTH": growth, "WARM_STEPS": 2, "TURN_SECONDS": 0}
    for name, value in constants.items():
        monkeypatch.setattr(bench, name, value)
    for name in ("LEAST_DRAWS", "PASSES", "HALF_TRAINED_STEPS"):
        monkeypatch.setattr(comparison, name, 10)
    return tiny_data()


@pytest.mark.parametrize("activation", [sigmoid, threshold])
@pytest.mark.parametrize("loss", [cross_entropy, zero_one])
def test_the_released_form_of_the_published_estimate_is_the_same(activation, loss):
    """With the same draws: the mean of outer products is one product of matrices."""
    named = {"activation": activation, "loss": loss, "replicates": 5}
    ours, theirs = (
        estimate(LAYERS, X, Y, **named, rng=np.random.default_rng(1))
        for estimate in (rivals.released_gradient, published_gradient)
    )
    assert ours.risk == pytest.approx(theirs.risk, rel=1e-6)
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        for part, same in zip(mine, other, strict=True):
            np.testing.assert_allclose(part, same, rtol=1e-4, atol=1e-6)


def test_the_published_step_descends_the_published_estimate_at_r_10(monkeypatch):
    """With the script's activation and loss, the learning rate 0.01 and the penalty 10⁻⁴ on W."""
    runs, found = [], []
    init = rivals.Run.__init__
    monkeypatch.setattr(rivals.Run, "__init__", lambda run, *_: runs.append(run) or init(run, *_))

    def estimate(*batch, **named):
        assert (named["activation"], named["loss"]) == (threshold, zero_one)
        assert named["replicates"] == 10
        found.append(published_gradient(*batch, **named))
        return found[-1]

    step = rivals.published_step("LRTZ", ["--hidden", "3"], tiny_data(), estimate)
    before = runs[0].network.parameters.copy()
    step()
    for layer, start, slope in zip(
        runs[0].layers, layer_views(before, runs[0].network.sizes), found[0].layers, strict=True
    ):
        np.testing.assert_allclose(layer.b, start.b - 0.01 * slope.b, atol=1e-6)
        np.testing.assert_allclose(layer.W, start.W - 0.01 * (slope.W + 1e-4 * start.W), atol=1e-6)
    assert not np.array_equal(before, runs[0].network.parameters)


def test_numpy_backpropagation_finds_the_numerical_gradient():
    sizes = [4, 3, 3, 2]
    network = new_network(sizes, sigmoid, np.random.default_rng(0))

    def risk(parameters):
        z = logits(layer_views(parameters, sizes), sigmoid, X.astype(np.float64))
        return cross_entropy(z.T, Y).mean()

    at = network.parameters.astype(np.float64)
    steps = 1e-5 * np.eye(at.size)
    numerical = [(risk(at + step) - risk(at - step)) / 2e-5 for step in steps]
    found = rivals.backpropagated(network.layers, X, Y)
    flat = np.concatenate([part.ravel() for layer in found.layers for part in layer])
    np.testing.assert_allclose(flat, numerical, atol=1e-6)
    assert found.risk == pytest.approx(risk(at), rel=1e-6)


def test_keras_learns_and_its_curve_ends_at_the_goal():
    steps, seconds, percent = rivals.keras_curve(tiny_data(), 1, 80)
    np.testing.assert_array_equal(steps, np.arange(1, len(steps) + 1))
    assert np.all(np.diff(seconds) > 0)
    assert percent[-1] >= 80
    assert np.all(percent[1:-1] < 80)


def test_a_script_s_curve_is_its_history():
    words = ["--dataset", "digits", "--steps", "40", "--eval-every", "20"]
    steps, seconds, percent = rivals.script_curve("LRS", words)
    np.testing.assert_array_equal(steps, [20, 40])
    assert 0 < seconds[0] < seconds[1]
    assert 50 < percent[1] < 100


def test_the_time_to_an_accuracy_is_without_what_the_first_steps_compile():
    percent = np.array([50.0, 90.0, 95.0])
    for start in (0, 3):
        curve = np.array([100, 200, 300]), start + np.array([1.0, 2.0, 3.0]), percent
        assert bench.seconds_to(90, *curve) == 2
    with pytest.raises(GLRError, match="never reached, in 300 steps"):
        bench.seconds_to(96, *curve)


def test_a_machine_that_is_slow_for_some_turns_changes_no_ratio():
    """Twice as fast in each of five turns; the medians of the two sides are of other turns."""
    row = bench.Row(1, "", "", "ms", [1.0, 1.4, 1.4, 1.0, 1.0], [2.0, 2.8, 2.8, 2.0, 2.0])
    np.testing.assert_allclose(row.ratio, [2, 2, 2])
    assert row.says == "2.00 (2.00–2.00)"
    assert bench.Row(3, "", "", "s", [0.5], [65_000.0]).says == "130,000"


def test_every_turn_is_of_all_steps_and_counts_cpu_time(monkeypatch):
    clock = itertools.count(step=0.5)  # each look at it is half a second later
    monkeypatch.setattr(bench.time, "process_time", lambda: next(clock))
    called = []
    steps = {name: lambda name=name: called.append(name) for name in "ab"}
    found = bench.cpu_turns(steps, 2)
    assert found == {"a": [500, 500], "b": [500, 500]}
    assert "".join(called) == "ab" + "aabb" * 2  # a call before a turn's clock starts


@pytest.mark.skipif(not find_spec("jax"), reason="JAX is not installed: requirements-jax.txt")
def test_a_step_of_jax_is_the_script_s_whatever_another_one_is(tmp_path, monkeypatch):
    """What takes a name's place is in its own program alone; a call is of JAX_STEPS."""
    from glr import xla  # noqa: PLC0415  (no requirement)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    losses, traced, loss = {}, [], xla.LOSSES[cross_entropy]

    def changed_loss(logits, y):
        traced.append(1)
        return loss(logits, y)

    take_steps = xla.take_steps

    def kept(*arguments):
        state, risks = take_steps(*arguments)
        losses.setdefault(arguments[0], []).extend(risks)
        return state, risks

    monkeypatch.setattr(xla, "take_steps", kept)
    ours = rivals.jax_step("LRS", ["--hidden", "3"], tiny_data())
    assert not traced
    changed = {"LOSSES": {cross_entropy: changed_loss}}
    other = rivals.jax_step("LRS", ["--hidden", "3"], tiny_data(), **changed)
    n_traced = len(traced)
    assert n_traced > 0
    ours()
    other()
    assert len(traced) == n_traced
    first, second = losses.values()
    assert len(first) == ours.n_steps + 1 and first == second
    assert np.mean(first[-10:]) < np.mean(first[:10])


@pytest.mark.skipif(not find_spec("jax"), reason="JAX is not installed: requirements-jax.txt")
def test_the_plain_ways_compute_the_same():
    """As glr/xla.py; the bits but for rounding, the words but in their law."""
    import jax  # noqa: PLC0415  (no requirement)
    import plain_jax  # noqa: PLC0415

    from glr import xla  # noqa: PLC0415

    z = np.random.default_rng(0).standard_normal((7, 4, 50)).astype(np.float32)
    y = np.random.default_rng(1).integers(0, 4, 50)
    for loss in (cross_entropy, zero_one):
        for logits_of in (z, z[0]):
            found = getattr(plain_jax, loss.__name__)(logits_of, y)
            np.testing.assert_allclose(found, xla.LOSSES[loss](logits_of, y), atol=1e-5)
    np.testing.assert_allclose(
        plain_jax.logistic_pdf(z), xla.LAWS[logistic].pdf(z), rtol=1e-4, atol=1e-7
    )
    words = plain_jax.threefry_words(jax.numpy.array([1, 2], "uint32"), (100, 100))
    assert words.dtype == np.uint32
    assert abs(np.mean(np.asarray(words, float)) / 2**32 - 0.5) < 5 / np.sqrt(12 * words.size)


def test_the_parts_compare_every_path_with_every_rival(tiny, monkeypatch):
    """At tiny sizes: two scripts, one network, all parts but the runs on MNIST."""
    monkeypatch.setattr(bench, "PATHS", {"NumPy": rivals.numpy_step})
    methods = {"LRT": comparison.script_methods()["LRT"]}
    monkeypatch.setattr(bench, "script_methods", lambda: methods)
    monkeypatch.setattr(bench, "own_process_ms", lambda setting: 1.0)
    rows = [row for part in (1, 2, 4, 5) for row in bench.PARTS[part](tiny, 2)]
    of = {part: [row for row in rows if row.part == part] for part in (1, 2, 4, 5)}
    assert [row.column for row in of[1]] == 2 * list(bench.RIVALS)
    assert [row.column for row in of[2]] == ["published", "as released"]
    assert [row.case for row in of[4][:4]] == [f"{what} 2, NumPy" for what in bench.GROWTH]
    assert [row.unit for row in of[4]] == 4 * ["ms"] + 2 * ["MB"]
    assert len(of[5]) == 4
    for row in rows:
        assert np.all(row.ratio > 0) and np.all(np.isfinite(row.ratio)), row


@pytest.mark.skipif(not find_spec("jax"), reason="JAX is not installed: requirements-jax.txt")
def test_every_choice_of_jax_has_its_row(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rows = list(bench.choices_of_jax(tiny, 2))
    assert len({row.case for row in rows}) == 5
    for row in rows:
        assert np.all(row.ratio > 0) and np.all(np.isfinite(row.ratio)), row


def test_a_step_in_a_process_of_its_own_is_timed():
    """What is pickled finds its way: the process imports the benchmark anew."""
    assert bench.own_process_ms(bench.prepare_for_small_arrays) > 0


def test_a_failing_part_keeps_its_own_and_the_others_rows(tiny, monkeypatch, tmp_path, capsys):
    def fails(data, turns):
        """A title

        What it measures.
        """
        yield bench.Row(2, "before", "Keras", "ms", [1.0], [2.0])
        raise ZeroDivisionError("by zero\nand more")

    def of(part):
        def measured(data, turns):
            """Another title

            What it measures.
            """
            yield bench.Row(part, f"case {part}", "Keras", "ms", [2.0, 2.0], [3.0, 5.0])

        return measured

    monkeypatch.setattr(bench, "PARTS", {1: of(1), 2: fails, 3: of(3)})
    monkeypatch.setattr(bench, "benchmark_data", lambda: tiny)
    assert not bench.run_parts([1, 2, 3], 2, tmp_path)
    assert capsys.readouterr().err == "part 2 failed: ZeroDivisionError: by zero\n"
    with (tmp_path / "bench.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["case 1", "before", "case 3"]
    assert [row["ratio"] for row in rows] == ["2", "2", "2"]
    page = (tmp_path / "bench.md").read_text(encoding="utf-8")
    assert "## 2. A title\n\nWhat it measures.\n\nThis part failed: ZeroDivisionError" in page
    assert "| case 3 | 2.00 ms | 2.00 (1.75–2.25) |" in page
    assert re.search(r"Machine: one of \d+ cores, .+; Python 3\..+, numpy \d", page)
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert bench.run_parts([1], 2, None)


def bench_process(*words, **env):
    """The finished process of `python bench.py words`."""
    command = [sys.executable, str(ROOT / "benchmarks" / "bench.py"), *words]
    env = os.environ | env
    return subprocess.run(command, env=env, text=True, capture_output=True, check=False)


def test_the_command_line_teaches_and_leaves_out_what_it_cannot_do(tmp_path):
    taught = bench_process("-h")
    assert taught.returncode == 0 and "--turns" in taught.stdout
    refused = bench_process("--turns", "0")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    ran = bench_process("--parts", "3", GLR_DATA_DIR=str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert "3  left out: needs MNIST" in ran.stdout
    assert "Not written" in ran.stdout
