"""The compiled step gives NumPy's gradient from the same random words, and its words are random."""

import subprocess
import sys
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from exact_means import exact_mean, pathwise_mean
from problems import (
    REDUCED,
    Problem,
    assert_equal_means,
    assert_powerful,
    estimates,
    flat,
    glr_of,
    layers_of,
    mean_of,
    parameters_of,
    samples_of,
    streams_of,
)
from processes import ROOT, assert_same_run, run, saved
from runs import PLAN

from glr import estimator, neurons, noise
from glr.comparison import published_estimator
from glr.data import Dataset
from glr.errors import DivergenceError, GLRError
from glr.estimator import glr_estimator, glr_gradient
from glr.experiment import plan_of
from glr.network import Layer, Network, layer_views, n_parameters
from glr.optimizers import adagrad, adam, sgd
from glr.passes import Batch
from glr.study import constants_of
from glr.training import Run, minibatches, take_steps

compiled = pytest.importorskip(
    "glr.compiled", reason="Numba is not installed", exc_type=ImportError
)
compiled_training = pytest.importorskip("glr.compiled_training")

MANY = {"replicates": 6, "output_draws": 3}  # of few samples two stand side by side,
LOCAL = {"replicates": 4, "output_draws": 3, "local_differences": True}  # or four
REDRAWN = {"redraws": 3}
BITS = {"conditional_score": True}
PROBLEMS = {
    "published": (Problem((4, 3, 3)), {"replicates": 2, "control_variate": False}),
    "an odd number of passes": (Problem((4, 3, 3)), {"replicates": 5}),
    "one pass": (Problem((4, 3, 3)), {"replicates": 1, "local_differences": True}),
    "two hidden layers": (Problem((3, 5, 4, 2), sigma=(0.8, 0.5, 0.6)), LOCAL),
    "two hidden layers, pass by pass": (Problem((3, 5, 4, 2), sigma=(0.8, 0.5, 0.6)), MANY),
    "two hidden layers of bits": (
        Problem((3, 5, 4, 2), "threshold", sigma=(0.8, 0.5, 0.6)),
        LOCAL | BITS,
    ),
    "two hidden layers of bits, pass by pass": (
        Problem((3, 5, 4, 2), "threshold", "zero_one", sigma=(0.8, 0.5, 0.6)),
        MANY | BITS | {"standardised_loss": True},
    ),
    "redraws": (Problem((3, 5, 4, 2), sigma=(0.8, 0.5, 0.6)), LOCAL | REDRAWN),
    "redraws of bits": (
        Problem((3, 5, 4, 2), "threshold", "zero_one", sigma=(0.8, 0.5, 0.6)),
        LOCAL | REDRAWN | BITS | {"standardised_loss": True},
    ),
    "redraws of three layers, one pass": (
        Problem((3, 5, 4, 3, 2), sigma=(0.8, 0.5, 0.7, 0.6)),
        LOCAL | {"replicates": 1, "redraws": 10},
    ),
    "no hidden layer": (Problem((4, 3), sigma=(0.6,)), LOCAL),
    "no hidden layer, pass by pass": (Problem((4, 3), sigma=(0.6,)), MANY),
    "many inputs": (Problem((784, 5, 3)), LOCAL),
    **{
        f"{activation}, {loss}, {'local' if settings is LOCAL else 'pass by pass'}": (
            Problem((4, 3, 3), activation, loss),
            settings
            | {"conditional_score": activation == "threshold"}
            | {"standardised_loss": loss == "zero_one"},
        )
        for activation in ("sigmoid", "threshold")
        for loss in ("cross_entropy", "zero_one")
        for settings in (LOCAL, MANY)
    },
}


TWO_STEPS = ("LRS.py", "--compiled", "--steps", 2, "--models-dir")


@pytest.fixture(scope="module", autouse=True)
def first_run(tmp_path_factory):
    """A run that finds nothing compiled; what it compiles, all tests here take from its cache."""
    return run(*TWO_STEPS, tmp_path_factory.mktemp("models"))


def split_mix(start, n):
    """The n numbers that SplitMix64 gives from the state `start` on, that one's among them."""
    with np.errstate(over="ignore"):
        z = np.uint64(start) + np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def words_of_layer(seed, shape, dtype, T):
    """The compiled step's words of a layer (draws, P, n, B), in tiles of T samples."""
    draws, P, n, B = shape
    words, per_word, tiles = np.empty(shape, dtype), 8 // np.dtype(dtype).itemsize, -(-B // T)
    for draw, tile, i in np.ndindex(draws, tiles, n):
        samples = slice(tile * T, min(tile * T + T, B))
        of_neuron = -(-P * (samples.stop - samples.start) // per_word)
        place = (draw * tiles + tile) * n * P * T + i * of_neuron
        start = (int(seed) + place * 0x9E3779B97F4A7C15) % 2**64
        row = split_mix(start, of_neuron).view(dtype)[: P * (samples.stop - samples.start)]
        words[draw, :, i, samples] = row.reshape(P, -1)
    return words


def numpy_gradient_of_the_same_words(glr, layers, batch, streams, monkeypatch):
    """glr_gradient by NumPy, with the noise that the compiled step draws from these streams."""
    seeds = {id(stream): stream.bit_generator.random_raw() for stream in streams}
    T = compiled.tile_samples(glr.replicates, batch.y.size)

    def same_words(rng, shape, dtype):
        R, draws, *K, n, B = shape  # the output draws come after one another
        words = words_of_layer(seeds[id(rng)], (draws, int(np.prod(K)) * R, n, B), dtype, T)
        return np.moveaxis(words.reshape(draws, *K, R, n, B), -3, 0)

    monkeypatch.setattr(noise, "random_words", same_words)
    monkeypatch.setattr(neurons, "random_words", same_words)
    monkeypatch.setattr(estimator, "HALVED_COST", np.inf)
    return flat(glr_gradient(glr, layers, batch, streams))


@pytest.mark.parametrize("copies", [1, 40, 50])
@pytest.mark.parametrize("name", PROBLEMS)
def test_compiled_step_gives_the_gradient_of_numpys(name, copies, monkeypatch):
    """Batches of one tile, of equal tiles, and of tiles that are not full: 3, 120, 150 samples."""
    problem, settings = PROBLEMS[name]
    x, y = samples_of(problem)
    batch, layers = Batch(np.tile(x, copies), np.tile(y, copies)), layers_of(problem)
    glr = glr_of(problem, **settings)
    assert compiled.covers(glr)
    by_numba = replace(glr, gradient_of_group=compiled.gradient)
    found = flat(glr_gradient(by_numba, layers, batch, streams_of(problem, 1)))
    streams = streams_of(problem, 1)
    expected = numpy_gradient_of_the_same_words(glr, layers, batch, streams, monkeypatch)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("activation", ["sigmoid", "threshold"])
def test_compiled_step_is_unbiased(activation):
    """By its own words, and in groups of passes, against means found another way."""
    problem = Problem((3, 4, 3), activation)
    of_bits = {"conditional_score": activation == "threshold"}
    glr = glr_of(problem, **REDUCED, **of_bits, gradient_of_group=compiled.gradient)
    mean = mean_of(estimates(problem, glr))
    assert_powerful(mean, problem.sizes)
    exact = exact_mean(problem) if activation == "threshold" else pathwise_mean(problem)
    assert_equal_means(mean, exact)


def test_groups_of_passes_are_averaged(monkeypatch):
    problem = Problem((3, 4, 3))
    x, y = samples_of(problem)
    glr = glr_of(problem, replicates=35, gradient_of_group=compiled.gradient)
    monkeypatch.setattr(estimator, "KEPT_FLOATS", 1)
    sizes = estimator.group_sizes(glr, layers_of(problem), len(y))
    assert len(sizes) == 3
    streams = streams_of(problem, 1)
    parts = [
        flat(
            compiled.gradient(replace(glr, replicates=R), layers_of(problem), Batch(x, y), streams)
        )
        for R in sizes
    ]
    found = flat(glr_gradient(glr, layers_of(problem), Batch(x, y), streams_of(problem, 1)))
    np.testing.assert_allclose(found, np.average(parts, axis=0, weights=sizes), atol=1e-6)


def test_threads_change_no_bit():
    numba = pytest.importorskip("numba")
    problem = Problem((784, 50, 10))
    glr = glr_of(problem, replicates=40, local_differences=True)
    glr = replace(glr, gradient_of_group=compiled.gradient)
    found, before = [], numba.get_num_threads()
    for threads in {1, before}:
        numba.set_num_threads(threads)
        found.append(estimates(problem, glr, 2, copies=43))
    numba.set_num_threads(before)
    assert all(np.array_equal(one, found[0]) for one in found)


def test_sigma_may_be_given_as_a_list():
    problem = Problem((4, 3, 3))
    x, y = samples_of(problem)
    by_tuple = glr_of(problem, gradient_of_group=compiled.gradient)
    by_list = replace(by_tuple, sigma=list(problem.sigma))
    found, expected = (
        flat(glr_gradient(glr, layers_of(problem), Batch(x, y), streams_of(problem, 1)))
        for glr in (by_list, by_tuple)
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("settings", [LOCAL, MANY])
def test_nothing_is_left_of_what_the_memory_held(settings):
    """The gradient and the mean loss, from memory that holds no numbers; and from it once more."""
    problem = Problem((3, 5, 4, 2), sigma=(0.8, 0.5, 0.6))
    x, y = samples_of(problem)
    glr, layers, batch = glr_of(problem, **settings), layers_of(problem), Batch(x, y)
    expected = compiled.gradient(glr, layers, batch, streams_of(problem, 1))
    step = compiled.step_of(glr, layers, batch, streams_of(problem, 1))
    shared = compiled.shared_of(step.sizes, len(y))
    for array in shared[1:]:
        array[:] = np.nan
    for _ in range(2):
        risk = compiled.write_batch_sums(tuple(step), tuple(shared))
        np.testing.assert_array_equal([*shared.sums, risk], flat(expected))


def test_stored_streams_continue_bit_for_bit():
    """The noise of a step follows from words of the streams, whose state a checkpoint keeps."""
    problem = Problem((4, 3, 3))
    glr, batch = glr_of(problem, gradient_of_group=compiled.gradient), Batch(*samples_of(problem))
    one, other = (glr_estimator(glr, np.random.Generator(np.random.SFC64(s))) for s in (0, 1))
    first = flat(one.gradient(layers_of(problem), batch))
    other.restore(one.state())
    second, continued = (flat(e.gradient(layers_of(problem), batch)) for e in (one, other))
    assert np.array_equal(second, continued)
    assert not np.array_equal(first, second)


def test_layers_that_are_no_views_of_one_vector_give_the_same_gradient():
    problem = Problem((4, 3, 3))
    glr, batch = glr_of(problem, gradient_of_group=compiled.gradient), Batch(*samples_of(problem))
    layers = layers_of(problem)
    apart = [Layer(W.copy(), b.copy()) for W, b in layers]
    longer = np.append(np.zeros(7, np.float32), compiled.flat_parameters(layers))
    within = layer_views(longer[7:], list(problem.sizes))
    found = [
        flat(compiled.gradient(glr, some, batch, streams_of(problem, 1)))
        for some in (layers, apart, within)
    ]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize(
    "other",
    [
        {"law": "gaussian"},
        {"perturb": "weights"},
        {"activation": "tanh"},
        {"activation": "threshold"},
        {"loss": "top2_error"},
        {"sigma": (0.8, 0.0)},
    ],
)
def test_what_has_no_loops_is_refused(other):
    problem = Problem((4, 3, 3))._replace(**other)
    glr, batch = glr_of(problem), Batch(*samples_of(problem))
    with pytest.raises(GLRError, match="COMPILED = True: is for"):
        compiled.gradient(glr, layers_of(problem), batch, streams_of(problem, 1))


def test_variants_of_a_compiled_method_do_not_take_its_loops_unawares():
    problem = Problem((4, 3, 3))
    glr = glr_of(problem, gradient_of_group=compiled.gradient)
    batch, layers = Batch(*samples_of(problem)), layers_of(problem)
    with pytest.raises(GLRError, match="COMPILED = True: is for"):
        glr_gradient(replace(glr, layerwise=True), layers, batch, streams_of(problem, 1))
    found, expected = (
        flat(glr_gradient(published_estimator(one), layers, batch, streams_of(problem, 1)))
        for one in (glr, replace(glr, gradient_of_group=None))
    )
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("label", [-1, 3])
def test_label_without_a_class_is_refused(label):
    problem = Problem((4, 3, 3))
    x, _ = samples_of(problem)
    batch = Batch(x, np.array([0, 1, label]))
    with pytest.raises(IndexError, match="names no class"):
        compiled.gradient(glr_of(problem), layers_of(problem), batch, streams_of(problem, 1))


# ---------------------------------------------------------------- training


def compiled_run(sizes, rng_seed=0, **settings):
    """A run of a network of random weights by the compiled gradient, and data of 20 samples."""
    rng = np.random.default_rng(1)
    problem = Problem(tuple(sizes), sigma=(0.8,) * (len(sizes) - 1))
    glr = glr_of(problem, **{"replicates": 4} | settings, gradient_of_group=compiled.gradient)
    network = Network(rng.standard_normal(n_parameters(sizes), np.float32), sizes, glr.activation)
    estimator = glr_estimator(glr, np.random.Generator(np.random.SFC64(rng_seed)))
    x, y = rng.random((20, sizes[0]), np.float32), rng.integers(0, sizes[-1], 20)
    return Run(network, estimator), Dataset("random", x, y, x, y)


def batches_of(steps, size=5):
    """The rows of so many minibatches of 20 samples."""
    return list(islice(minibatches(20, size, np.random.default_rng(2)), steps))


def assert_equal_runs(one, other, **tolerance):
    """Their weights, optimizers' states, losses and streams."""
    assert one.step == other.step
    assert one.optimizer_state.keys() == other.optimizer_state.keys()
    for name, state in other.optimizer_state.items():
        np.testing.assert_allclose(one.optimizer_state[name], state, **tolerance)
    np.testing.assert_allclose(one.network.parameters, other.network.parameters, **tolerance)
    np.testing.assert_allclose(one.risks, other.risks, **tolerance)
    for name, words in other.estimator.state().items():
        np.testing.assert_array_equal(one.estimator.state()[name], words)


@pytest.mark.parametrize("optimizer", [adam, sgd])
@pytest.mark.parametrize("centralised", [False, True])
@pytest.mark.parametrize("sizes", [[1, 2], [7, 5, 4, 3], [784, 50, 10]])
def test_compiled_steps_are_numpys_descents_along_compiled_gradients(sizes, centralised, optimizer):
    """Five of them, with a penalty that a bias, if it had one, would show."""
    plan = PLAN._replace(weight_decay=0.5, centralised=centralised, optimizer=optimizer)
    (ours, data), (theirs, _) = compiled_run(sizes), compiled_run(sizes)
    start = ours.network.parameters.copy()
    compiled_training.take_steps(ours, data, batches_of(5), plan)
    take_steps(theirs, data, batches_of(5), plan)
    assert not np.allclose(ours.network.parameters, start, atol=0.01)
    assert_equal_runs(ours, theirs, rtol=1e-4, atol=1e-5)


def test_nothing_is_left_of_what_the_memory_of_steps_held(monkeypatch):
    (clean, data), (other, _) = compiled_run([7, 5, 3]), compiled_run([7, 5, 3])
    compiled_training.take_steps(clean, data, batches_of(3), PLAN)

    def full_of_nan(sizes, B):
        shared = compiled.shared_of(sizes, B)
        for array in shared[1:]:
            array[:] = np.nan
        return shared

    monkeypatch.setattr(compiled_training, "shared_of", full_of_nan)
    compiled_training.take_steps(other, data, batches_of(3), PLAN)
    assert_equal_runs(other, clean, rtol=0)


def test_no_bit_depends_on_how_many_steps_are_taken_at_once():
    batches = batches_of(7)
    (at_once, data), (one_by_one, _) = compiled_run([7, 5, 3]), compiled_run([7, 5, 3])
    compiled_training.take_steps(at_once, data, batches, PLAN)
    for batch in batches:
        compiled_training.take_steps(one_by_one, data, [batch], PLAN)
    assert_equal_runs(at_once, one_by_one, rtol=0)


@pytest.mark.parametrize(("optimizer", "R", "kept"), [(adagrad, 4, 2**22), (adam, 35, 1)])
def test_other_optimizers_and_groups_of_passes_go_step_by_step(optimizer, R, kept, monkeypatch):
    monkeypatch.setattr(estimator, "KEPT_FLOATS", kept)
    plan = PLAN._replace(optimizer=optimizer)
    (ours, data), (theirs, _) = (compiled_run([4, 3, 3], replicates=R) for _ in range(2))
    compiled_training.take_steps(ours, data, batches_of(3), plan)
    take_steps(theirs, data, batches_of(3), plan)
    assert_equal_runs(ours, theirs, rtol=0)


@pytest.mark.parametrize("take", [take_steps, compiled_training.take_steps])
def test_training_ends_at_the_first_step_that_is_not_finite(take):
    """At a step size of 10³⁰ in the third step, of five that might be taken at once."""
    run, data = compiled_run([4, 3, 3])
    plan = PLAN._replace(optimizer=sgd, schedule=lambda step, _: 1e30 if step == 2 else 1)
    with pytest.raises(DivergenceError, match="step 3: the weights overflow"):
        take(run, data, batches_of(5), plan)
    assert run.step == 3


def test_one_pass_has_no_control_variate():
    run, data = compiled_run([4, 3, 3], replicates=1, control_variate=True)
    with pytest.raises(GLRError, match="needs 2 replicates"):
        compiled_training.take_steps(run, data, batches_of(1), PLAN)


def test_steps_are_compiled_if_that_is_asked_for():
    for script, words, expected in (
        ("LRS.py", "--compiled", compiled_training.take_steps),
        ("LRS.py", "", None),
        ("BP.py", "", None),
    ):
        assert plan_of(constants_of(script, words.split())).take_steps is expected


# ---------------------------------------------------------------- scripts


def test_compiled_script_is_reproducible_and_says_that_it_is_compiled(tmp_path):
    words = ("--compiled", "--steps", 300, "--eval-every", 100)
    for folder in ("a", "b"):
        ran = run("LRTZ.py", *words, "--models-dir", tmp_path / folder)
        assert ran.returncode == 0, ran.stderr
    assert_same_run(tmp_path / "a", tmp_path / "b", "LRTZ_digits_seed0")
    _, metadata = saved(tmp_path / "a" / "LRTZ_digits_seed0.npz")
    assert metadata["constants"]["COMPILED"] is True
    assert metadata["metrics"]["test_accuracy"] > 0.8
    model = tmp_path / "a" / "LRTZ_digits_seed0.npz"
    ran = run("LRTZ.py", "--like", model, "--models-dir", tmp_path / "c")
    assert ran.returncode == 0, ran.stderr
    assert_same_run(tmp_path / "a", tmp_path / "c", "LRTZ_digits_seed0")


@pytest.mark.parametrize(
    ("own", "count"),
    [
        ({}, compiled.SPIN_COUNT),
        ({"GOMP_SPINCOUNT": "77"}, "77"),
        ({"OMP_WAIT_POLICY": "passive"}, "0"),
    ],
)
def test_cores_wait_as_long_as_is_said(own, count, monkeypatch):
    """As GNU's OpenMP shows its settings when it is loaded; nothing else here has them."""
    monkeypatch.setenv("OMP_DISPLAY_ENV", "verbose")
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    code = (
        "import os, glr.compiled, numba; print(os.environ.get('GOMP_SPINCOUNT'));"
        "print(numba.threading_layer())"
    )
    words = [sys.executable, "-c", code]
    ran = subprocess.run(words, cwd=ROOT, text=True, capture_output=True, check=True)
    left, layer = ran.stdout.split()
    assert left == str(own.get("GOMP_SPINCOUNT"))
    if layer != "omp" or "GOMP_SPINCOUNT" not in ran.stderr:
        pytest.skip(f"Numba's threads are not GNU OpenMP's here: {layer}")
    assert f"GOMP_SPINCOUNT = '{count}'" in ran.stderr


def test_the_first_run_says_that_it_compiles_and_the_next_does_not(first_run, tmp_path):
    assert "compiling" in first_run.stderr
    assert run(*TWO_STEPS, tmp_path).stderr == ""


def test_the_step_is_compiled_for_networks_of_all_sizes():
    """What prepare() compiles is what any later step takes."""
    prepared = glr_of(Problem((4, 3, 3)), **LOCAL, gradient_of_group=compiled.gradient)
    compiled.prepare(prepared)
    compiled_training.prepare(prepared)
    functions = compiled.write_batch_sums, compiled_training.risks_of_steps
    kinds = [len(function.signatures) for function in functions]
    settings = LOCAL | BITS | {"standardised_loss": True}
    problem = Problem((3, 5, 4, 2), "threshold", "zero_one", sigma=(0.8, 0.5, 0.6))
    glr = glr_of(problem, **settings, gradient_of_group=compiled.gradient)
    network = Network(parameters_of(problem), list(problem.sizes), glr.activation)
    x, y = samples_of(problem)
    compiled.gradient(glr, network.layers, Batch(x, y), streams_of(problem, 1))
    run = Run(network, glr_estimator(glr, np.random.Generator(np.random.SFC64(0))))
    data = Dataset("three samples", x.T, y, x.T, y)
    for optimizer, centralised in ((sgd, True), (adam, False)):
        plan = PLAN._replace(optimizer=optimizer, centralised=centralised)
        compiled_training.take_steps(run, data, [np.arange(3)] * 2, plan)
    assert [len(function.signatures) for function in functions] == kinds


def test_a_method_without_loops_is_refused_in_one_line(tmp_path):
    ran = run("LRS.py", "--compiled", "--noise", "gaussian", "--models-dir", tmp_path)
    assert ran.returncode == 2
    assert "logistic noise" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_without_numba_the_script_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "numba.py").write_text("raise ImportError('No module named numba')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ran = run("LRS.py", "--compiled", "--models-dir", tmp_path)
    assert ran.returncode == 2
    assert "pip install numba" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    ran = run("LRS.py", "--steps", 5, "--models-dir", tmp_path)
    assert ran.returncode == 0, ran.stderr
