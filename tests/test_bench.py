"""What the benchmark times is what it says: the published estimate, and the floor's parts."""

import itertools
import re
import runpy
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from glr.scripts.experiment import glr_method
from processes import ROOT

from glr.estimator import glr_gradient
from glr.losses import cross_entropy
from glr.network import layer_views, logits, new_network, sigmoid, threshold
from glr.optimizers import constant
from glr.study.comparison import published_estimator
from glr.study.runs import SCRIPTS, constants_of

sys.path.insert(0, str(ROOT / "benchmarks"))
import bench
import choices
import floor
import measures
import rivals
from accuracies import PUBLISHED_RUNS, seconds_to, steps_to
from measures import COMPILED, AtOnce, Comparison, write_results

GLR_SCRIPTS = ("LRS", "LRSZ", "LRT", "LRTZ")
SIZES, R, B = [4, 3, 2], 5, 6


@pytest.mark.parametrize("activation", [sigmoid, threshold])
def test_published_gradient_is_the_mean_of_loss_times_input_times_score(activation):
    """Sample by sample, with the same draws."""
    layers = new_network(SIZES, activation, np.random.default_rng(0)).layers
    batch = rivals.random_batch(SIZES, B)
    found = rivals.published_gradient(layers, activation, batch, R, np.random.default_rng(1))
    rng = np.random.default_rng(1)
    noise = [rng.laplace(0, 1, (R * B, n)).astype(np.float32) for n in SIZES[1:]]
    expected = [[np.zeros_like(part) for part in layer] for layer in layers]
    for i in range(R * B):
        xs = [batch.x[:, i % B]]
        for (W, b), r in zip(layers, noise, strict=True):
            xs.append(W.T @ xs[-1] + b + r[i])
            if len(xs) < len(SIZES):
                xs[-1] = activation(xs[-1])
        loss = cross_entropy(xs[-1][:, None], batch.y[i % B : i % B + 1])[0]
        for mean, x, r in zip(expected, xs[:-1], noise, strict=True):
            mean[0] += loss * np.outer(x, np.sign(r[i])) / (R * B)
            mean[1] += loss * np.sign(r[i]) / (R * B)
    for layer, means in zip(found, expected, strict=True):
        for part, mean in zip(layer, means, strict=True):
            np.testing.assert_allclose(part, mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("activation", [sigmoid, threshold])
def test_published_step_in_pytorch_takes_the_step_of_the_numpy_one(activation, monkeypatch):
    """Both draw the same noise; where PyTorch is installed."""
    pytest.importorskip("torch")
    seen = []
    weights_of = rivals.pytorch_weights
    monkeypatch.setattr(rivals, "pytorch_weights", lambda n: seen.append(weights_of(n)) or seen[-1])
    rivals.published_pytorch_step(SIZES, activation, R, B)()
    monkeypatch.setattr(
        rivals, "new_network", lambda *of: seen.append(new_network(*of)) or seen[-1]
    )
    rivals.published_step(SIZES, activation, R, B)()
    (first, last), network = seen
    before = new_network(SIZES, activation, np.random.default_rng(0))
    assert np.abs(network.parameters - before.parameters).max() > 1e-3
    np.testing.assert_allclose(first.numpy()[:-1], network.layers[0].W, atol=1e-6)
    np.testing.assert_allclose(last.numpy(), network.layers[1].W, atol=1e-6)


def test_numpy_backpropagation_descends_the_numerical_gradient(monkeypatch):
    network = new_network(SIZES, sigmoid, np.random.default_rng(0))
    before, batch = network.parameters.copy(), rivals.random_batch(SIZES, B)

    def risk(parameters):
        z = logits(layer_views(parameters, SIZES), sigmoid, batch.x)
        return cross_entropy(z, batch.y).mean()

    slopes = []
    for i in range(len(before)):
        step = np.zeros(len(before))
        step[i] = 1e-5
        slopes.append((risk(before + step) - risk(before - step)) / 2e-5)
    penalty = rivals.DECAY * before
    for _, b in layer_views(penalty, SIZES):
        b[:] = 0
    monkeypatch.setattr(rivals, "new_network", lambda *_: network)
    rivals.numpy_backpropagation_step(SIZES, B)()
    found = (before - network.parameters) / rivals.RATE
    np.testing.assert_allclose(found, slopes + penalty, atol=1e-4)


def test_our_compiled_steps_are_as_many_of_numpys_descents(monkeypatch):
    """From the same weights in every call, along compiled gradients, with a penalty that shows."""
    step_loops = pytest.importorskip("step_loops", exc_type=ImportError)
    monkeypatch.setattr(rivals, "RATE", np.float32(0.1))
    monkeypatch.setattr(rivals, "DECAY", np.float32(0.3))
    glr = rivals.plain_glr(sigmoid, len(SIZES) - 1, R)
    glr = replace(glr, gradient_of_group=rivals.WAYS[COMPILED])
    ours, theirs = (new_network(SIZES, sigmoid, np.random.default_rng(0)) for _ in range(2))
    batch = rivals.random_batch(SIZES, B)
    streams = np.random.Generator(np.random.SFC64(0)).spawn(len(theirs.layers))
    step, start = rivals.step_of(glr, ours, batch), theirs.parameters.copy()
    for stream in streams:
        stream.bit_generator.random_raw()  # as in step_of
    for _ in range(2):
        step()
        theirs.parameters[:] = start
        for _ in range(step_loops.AT_ONCE):
            rivals.sgd(theirs.layers, glr_gradient(glr, theirs.layers, batch, streams).layers)
    assert step.steps == step_loops.AT_ONCE
    np.testing.assert_allclose(ours.parameters, theirs.parameters, rtol=1e-3, atol=1e-4)
    assert not np.allclose(theirs.parameters, start, atol=0.1)


def test_a_call_is_of_as_many_steps_on_both_sides_of_a_choice():
    pytest.importorskip("step_loops", exc_type=ImportError)
    found = choices.compiled_choices()
    steps = [[getattr(side, "steps", 1) for side in (it.ours, it.theirs)] for it in found]
    assert len(steps) == 5
    assert max(map(max, steps)) > 1
    assert all(ours == theirs for ours, theirs in steps)


def test_a_call_of_many_steps_counts_as_so_many(monkeypatch):
    clock = itertools.count(step=0.5)
    monkeypatch.setattr(measures.time, "perf_counter", lambda: next(clock))
    of_one, of_ten = measures.turn_ms(lambda: None), measures.turn_ms(AtOnce(lambda: None, 10))
    assert of_one == [10 * ms for ms in of_ten] == [500]


def test_rivals_run_without_our_settings_of_memory_and_blas():
    """Their processes import what ours is made of: none of that may set anything."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; import glr.scripts.machine; "
        "glr.scripts.machine.prepare_for_small_arrays = lambda: 1 / 0; from rivals import *"
    )
    words = [sys.executable, "-c", code, str(ROOT), str(ROOT / "benchmarks")]
    subprocess.run(words, check=True)


@pytest.mark.parametrize("sizes", [SIZES, [784, 5, 4, 3]])
@pytest.mark.parametrize("activation", [sigmoid, threshold])
def test_every_part_of_the_floor_has_several_ways_that_run(sizes, activation):
    steps = floor.floor_steps(sizes, activation, R, B)
    for step in steps.values():
        step()
    ways = [[name for name in steps if name.startswith(part)] for part in floor.PARTS]
    assert sum(map(len, ways)) == len(steps)
    assert min(map(len, ways)) >= (3 if rivals.compiled else 2)


def test_the_best_way_of_every_part_counts():
    first, second, third = floor.PARTS
    times = {first: 3.0, f"{first}, in halves": 2.0, second: 5.0, f"{third} in one": 7.0}
    times |= {f"{third} by pass": 8.0, f"{second}, compiled": 6.0, "our step": 1.0}
    assert floor.floor_of(times) == {first: 2.0, second: 5.0, third: 7.0}


def test_a_machine_that_is_slow_for_some_turns_changes_no_ratio():
    """Twice as fast in each of five turns; the medians of the two sides are of other turns."""
    ours = np.array([1.0, 1.4, 1.4, 1.0, 1.0])
    row = Comparison(3, "a step", "theirs", ours, [2.0, 2.8, 2.8, 2.8, 2.0])
    assert (row.ours_ms, row.other_ms, row.ratio) == (1.0, 2.8, 2.0)


def test_every_turn_is_of_all_steps_and_the_first_one_warms_up(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(measures, "turn_ms", lambda step: [step(), next(clock), 50])
    found = measures.turns({"one": lambda: 0, "other": lambda: 100}, 3)
    np.testing.assert_array_equal(found["one"], [2, 4, 6])
    np.testing.assert_array_equal(found["other"], [50, 50, 50])


def test_the_published_step_stands_between_two_measurements_of_ours(monkeypatch):
    """Where PyTorch is not installed, there is no row of it."""
    ours, theirs = iter(range(1, 100)), iter(range(10, 100, 10))

    def own_process_ms(step):
        return 0.0 if "pytorch" in step else float(next(theirs))

    monkeypatch.setattr(bench, "own_process_ms", own_process_ms)
    monkeypatch.setattr(bench, "medians", lambda steps, repeats: {"": float(next(ours))})
    of_ours, others = bench.beside_published({"": None}, (SIZES, sigmoid, R, B), 1)
    np.testing.assert_array_equal(of_ours[""], np.arange(bench.PROCESSES) + 1.5)
    assert list(others) == ["published algorithm, NumPy"]
    found = others["published algorithm, NumPy"]
    np.testing.assert_array_equal(found, 10 * (np.arange(bench.PROCESSES) + 1))


def test_the_floor_s_halves_have_half_of_the_samples_each(monkeypatch):
    ran = []

    def parts(sizes, activation, replicates, B):
        return {"all": lambda: ran.append(B)}

    monkeypatch.setattr(floor, "numpy_parts", parts)
    monkeypatch.setattr(floor, "compiled_parts", lambda *_: {})
    steps = floor.floor_steps([784, 50, 10], sigmoid, R, 128)
    steps["all"]()
    steps["all, in halves"]()
    assert ran == [128, 64, 64]


def test_the_floor_s_compiled_products_are_products():
    """Before the noise and after it, by parts of the inputs, and in tiles."""
    floor_loops = pytest.importorskip("floor_loops", exc_type=ImportError)
    rng = np.random.default_rng(0)
    x, W, delta = (rng.random(shape, np.float32) for shape in ((4, 7), (7, 3), (3, 4)))
    v, sums = np.empty((2, 4, 3), np.float32), np.empty((7, 3), np.float32)
    floor_loops.first_products(x, W, v, delta, sums)
    np.testing.assert_allclose(v[0], x[:, :3] @ W[:3], rtol=1e-5)
    np.testing.assert_allclose(v[1], x[:, 3:] @ W[3:], rtol=1e-5)
    np.testing.assert_allclose(sums, x.T @ delta.T, rtol=1e-5)
    W, x = rng.random((3, 2), np.float32), rng.random((2, 3, 5), np.float32)
    z, sums = np.empty((2, 2, 5), np.float32), np.empty((2, 3, 2), np.float32)
    floor_loops.later_products(W, x, z, sums)
    np.testing.assert_allclose(z, W.T @ x, rtol=1e-5)
    np.testing.assert_allclose(sums, x @ z.swapaxes(1, 2), rtol=1e-5)


def test_results_are_written_as_table_and_picture(tmp_path):
    """A part whose other side never ended has a row in the table, and no bar."""
    found = [
        Comparison(1, "a step", "theirs", 2.0, 3.0),
        Comparison(1, f"a step{COMPILED}", "theirs", 1.0, 3.0),
        Comparison(2, "a run", "theirs", 1.0, np.inf),
    ]
    write_results(tmp_path, found, {1: "Part 1: steps.", 2: "Part 2: runs."})
    page = (tmp_path / "bench.md").read_text(encoding="utf-8")
    assert "Part 2: runs." in page
    assert re.search(r"^Measured on .+, \d+ cores, by Python 3\..+, numpy \d", page, re.MULTILINE)
    assert "| 1 | a step | theirs | 2 | 3 | 1.5 |" in page
    rows = (tmp_path / "bench.csv").read_text(encoding="utf-8").splitlines()
    assert rows[1:] == [
        "1,a step,theirs,2,3,1.5",
        '1,"a step, compiled",theirs,1,3,3',
        "2,a run,theirs,1,inf,inf",
    ]
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", GLR_SCRIPTS)
def test_the_published_runs_are_of_the_published_estimator(name):
    """Its flags in the benchmark, the study and the method page say the same."""
    flags = PUBLISHED_RUNS[name][3].split()
    constants = constants_of(f"{name}.py", flags)
    estimator = glr_method(constants)
    wanted = published_estimator(glr_method(constants_of(f"{name}.py", [])))
    wanted = replace(wanted, replicates=estimator.replicates, sigma=estimator.sigma)
    assert estimator == wanted
    assert estimator.sigma == pytest.approx((2**0.5, 2**0.5), rel=1e-4)
    activation, R, B = PUBLISHED_RUNS[name][:3]
    assert (estimator.activation, estimator.replicates) == (activation, R)
    assert constants.BATCH_SIZE == B
    assert (2, constant) == (constants.INITIAL_SCALE, constants.SCHEDULE)


def test_the_published_run_of_lrs_is_the_same_in_benchmark_study_and_method_page():
    page = (ROOT / "docs" / "method.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(r'^    python "Train&Test/LRS\.py" (--initial-scale .*)$', page, re.M)
    study = runpy.run_path(str(SCRIPTS / "study.py"))["NETWORKS"]["LRS-published"][1]
    flags = (PUBLISHED_RUNS["LRS"][3], study, f"{command} --steps 4680")
    one, *others = (constants_of("LRS.py", words.split()) for words in flags)
    assert others == [one, one]


def test_the_time_to_an_accuracy_is_without_what_the_first_step_compiles():
    for start in (0.0, 3.0):
        curve = [(100, 0.5), (200, 0.9), (300, 0.95)]
        rows = [{"step": n, "seconds": start + n / 100, "test_accuracy": a} for n, a in curve]
        assert (steps_to(90, rows), seconds_to(90, rows)) == (200, 2.0)
        assert steps_to(99, rows) == seconds_to(99, rows) == np.inf
