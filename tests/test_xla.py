"""The steps by JAX: NumPy's estimate of the same noise, its descent; the words; many steps."""

import functools
import hashlib
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from exact_means import exact_mean
from problems import (
    ACTIVATIONS,
    DISTRIBUTION,
    LAWS,
    LOSSES,
    PACKAGE_LAWS,
    Problem,
    assert_equal_means,
    assert_powerful,
    estimate_of,
    flat,
    layers_of,
    mean_of,
    relative_difference,
    samples_of,
    secant,
    staircase,
)
from processes import assert_same_run, run, saved
from scipy import stats

jax = pytest.importorskip("jax", reason="JAX is not installed: requirements-jax.txt")
import jax.numpy as jnp  # noqa: E402

import glr.scripts  # noqa: E402
from glr import estimator, xla, xla_noise  # noqa: E402
from glr.checks import check_law  # noqa: E402
from glr.data.datasets import load_dataset  # noqa: E402
from glr.errors import DivergenceError, GLRError, StoppedError  # noqa: E402
from glr.estimator import Estimate, Method  # noqa: E402
from glr.losses import cross_entropy, zero_one  # noqa: E402
from glr.network import Layer, accuracy, layer_views, new_network, sigmoid, threshold  # noqa: E402
from glr.noise import NoiseLaw, coprimes, logistic  # noqa: E402
from glr.optimizers import adagrad, adam, constant, cosine, sgd, tenths  # noqa: E402
from glr.scripts import by_jax  # noqa: E402
from glr.scripts.backpropagation import TrainingNoise, backpropagation  # noqa: E402
from glr.scripts.constants import constants_of  # noqa: E402
from glr.scripts.run import new_run  # noqa: E402
from glr.storage.checkpoint import State  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SEED = np.array([3, 1], np.uint32)


def softplus(v):
    """An activation that the package does not have, by jax.numpy."""
    return jnp.log1p(jnp.exp(v))


def rank(logits, y):
    """README's loss: how many classes are rated above the label."""
    label = logits[..., y, np.arange(len(y))]
    return (logits > label[..., None, :]).sum(axis=-2)


def is_beaten(logits, y):
    """The 0-1 loss: the label's logit is compared with itself, where XLA may round it otherwise."""
    label = logits[..., 0, :]
    for j in range(1, logits.shape[-2]):
        label = jnp.where(y == j, logits[..., j, :], label)
    return logits.max(axis=-2) > label


def method_of(problem, **settings):
    """The problem's method; settings change its fields."""
    defaults = {
        "activation": ACTIVATIONS[problem.activation],
        "loss": LOSSES[problem.loss],
        "noise": LAWS[problem.law],
        "sigma": problem.sigma,
        "perturb": problem.perturb,
        "replicates": 2,
        "local_differences": True,
        "control_variate": True,
        "standardised_loss": False,
    }
    return Method(**(defaults | settings))


def keys_of(method, step=0):
    return xla_noise.keys_of_step(SEED, jnp.int32(step), len(method.sigma))


def words_of_passes(method, key, shape):
    """The words of all passes, (n, R, B), those of one being of the shape (n, B)."""
    words = [xla_noise.random_words(key, shape)]
    while len(words) < method.replicates:
        words.append(xla_noise.words_of_next_pass(method, key, words[-1]))
    return np.stack(words, axis=1)


def transposed(layers):
    """Layers of weights (n_out, n_in), or back."""
    return [Layer(np.ascontiguousarray(np.transpose(W)), np.array(b)) for W, b in layers]


def batch_of(problem):
    """The problem's samples, 20 of each: so that one in many is right in some passes only."""
    x, y = samples_of(problem)
    return np.tile(x, (20, 1)), np.tile(y, 20)


def estimate_by_jax(method, problem, keys):
    x, y = batch_of(problem)
    found, risk, inputs = jax.jit(functools.partial(xla.gradient, method))(
        transposed(layers_of(problem)), x.T, y, keys
    )
    return flat(Estimate(transposed(found), float(risk), None, None)), np.transpose(inputs)


def estimate_by_numpy(method, problem, keys, monkeypatch):
    """Of the noise that these keys draw by JAX."""
    ours, n_drawn = LAWS[problem.law], itertools.count()
    draw_by_jax = jax.jit(xla_noise.LAWS[ours].draw)

    def words(rng, shape):
        n, size = shape[0], shape[1] * shape[2] // method.replicates
        return words_of_passes(method, keys[next(n_drawn)], (n, size)).reshape(shape)

    def draw(rng, shape):
        return tuple(np.array(part) for part in draw_by_jax(words(rng, shape)))

    monkeypatch.setattr(estimator, "random_words", words)
    fields = {name: value for name, value in vars(method).items() if name != "noise"}
    law = NoiseLaw(ours.name, draw, ours.cdf, ours.pdf)
    estimate = estimate_of(problem, *batch_of(problem), noise=law, **fields)
    return flat(estimate), estimate.inputs / len(estimate.inputs)


# ---------------------------------------------------------------- the estimate

DEEP = Problem((7, 9, 8, 5), sigma=(0.8, 0.7, 0.6))
FORWARD = {"local_differences": False, "replicates": 3}
COVERED = {
    "sigmoid": (Problem((7, 9, 5)), {}),
    "tanh, laplace": (Problem((7, 9, 5), "tanh", law="laplace"), {}),
    "relu, gaussian": (Problem((7, 9, 5), "relu", law="gaussian"), {"replicates": 1}),
    "threshold": (Problem((7, 9, 5), "threshold"), {}),
    "threshold, laplace": (Problem((7, 9, 5), "threshold", law="laplace"), {}),
    "threshold, gaussian": (Problem((7, 9, 5), "threshold", law="gaussian"), {}),
    "0-1": (Problem((7, 9, 5), "threshold", "zero_one"), {"replicates": 5}),
    "0-1, standardised": (
        Problem((7, 9, 5), loss="zero_one"),
        {"replicates": 5, "standardised_loss": True},
    ),
    "weights": (Problem((7, 9, 5), perturb="weights"), {}),
    "weights, 0-1": (
        Problem((7, 9, 5), "threshold", "zero_one", perturb="weights"),
        {"replicates": 5, "standardised_loss": True},
    ),
    "deep": (DEEP, {}),
    "deep, threshold, weights": (DEEP._replace(activation="threshold", perturb="weights"), {}),
    "output": (DEEP, {"local_differences": "output"}),
    "forward": (DEEP._replace(activation="threshold"), FORWARD),
    "forward, weights": (DEEP._replace(perturb="weights"), FORWARD),
    "forward, standardised": (
        Problem((7, 9, 5), loss="zero_one"),
        FORWARD | {"standardised_loss": True},
    ),
    "forward, no control variate": (Problem((7, 9, 5)), FORWARD | {"control_variate": False}),
    "no hidden layer": (Problem((7, 5), sigma=(0.6,)), {}),
    "deep, 0-1, standardised": (
        DEEP._replace(activation="threshold", loss="zero_one", perturb="weights"),
        {"replicates": 8, "standardised_loss": True},
    ),
    "own loss": (Problem((7, 9, 5), "threshold"), {"loss": rank}),
    "own loss, weights": (
        Problem((7, 9, 5), "threshold", perturb="weights"),
        {"loss": is_beaten, "replicates": 5},
    ),
}


@pytest.mark.parametrize("name", COVERED)
def test_same_noise_gives_the_estimate_of_numpy(name, monkeypatch):
    problem, settings = COVERED[name]
    method = method_of(problem, **settings)
    keys = keys_of(method)
    found, of_inputs = estimate_by_jax(method, problem, keys)
    wanted, wanted_of_inputs = estimate_by_numpy(method, problem, keys, monkeypatch)
    assert relative_difference(found, wanted) < 1e-5
    assert relative_difference(of_inputs, wanted_of_inputs) < 1e-5
    assert found[-1] == pytest.approx(wanted[-1], rel=1e-6)
    assert np.abs(wanted).max() > 1e-3


def test_a_nan_is_never_right():
    """At the label, elsewhere, or everywhere, of single passes and of many neurons' changes."""
    z = np.array([[3, np.nan, 3, 3, np.nan], [1, 1, np.nan, 1, np.nan], [0, 0, 0, np.nan, np.nan]])
    for label in range(3):
        y, wrong = np.full(5, label), np.arange(5) != (0 if label == 0 else 9)
        np.testing.assert_array_equal(jax.jit(xla.zero_one)(z, y), wrong)
        np.testing.assert_array_equal(jax.jit(xla.zero_one)(z[None], y), wrong[None])


def test_own_activation_is_called(monkeypatch):
    problem = Problem((7, 9, 5))
    method = method_of(problem, activation=softplus)
    found, _ = estimate_by_jax(method, problem, keys_of(method))
    by_numpy = method_of(problem, activation=lambda v: np.logaddexp(v, 0))
    wanted, _ = estimate_by_numpy(by_numpy, problem, keys_of(method), monkeypatch)
    assert relative_difference(found, wanted) < 1e-5


MEANS = {  # gradients whose exact means other files of tests compute without noise
    "sigmoid": (Problem((3, 2, 3), law="laplace"), {}),
    "threshold, weights": (Problem((3, 2, 3), "threshold", perturb="weights"), {}),
    "0-1, forward": (Problem((3, 2, 3), "threshold", "zero_one", "gaussian"), FORWARD),
}


@pytest.mark.parametrize("name", MEANS)
def test_mean_over_steps_is_the_exact_gradient(name):
    """Every element, at FAMILY_WISE_ERROR for all of them together."""
    problem, settings = MEANS[name]
    method = method_of(problem, **settings)
    layers, (x, y) = transposed(layers_of(problem)), samples_of(problem)
    x, y = np.tile(x, (2000, 1)).T, np.tile(y, 2000)

    def of_step(step):
        keys = xla_noise.keys_of_step(SEED, step, len(method.sigma))
        return xla.gradient(method, layers, x, y, keys)[:2]

    found, risks = jax.jit(lambda: jax.lax.map(of_step, jnp.arange(100)))()
    parts = [np.reshape(part, (100, -1)) for W, b in found for part in (W.transpose(0, 2, 1), b)]
    mean = mean_of(np.concatenate([*parts, np.array(risks)[:, None]], axis=1).astype(np.float64))
    assert_equal_means(mean, exact_mean(problem))
    assert_powerful(mean, problem.sizes)


# ---------------------------------------------------------------- random numbers


@pytest.mark.parametrize("name", PACKAGE_LAWS)
def test_law_is_that_of_glr_noise(name):
    """Its draws by Kolmogorov and Smirnov's test at 10⁻⁴, its score by check_law, F and f."""
    law = xla_noise.LAWS[LAWS[name]]

    def words(*shape):
        return xla_noise.random_words(jnp.array([5, 7], jnp.uint32), shape)

    def draw(rng, shape):
        return tuple(np.reshape(part, shape) for part in law.draw(words(64, 64**2)))

    check_law(NoiseLaw(name, draw, law.cdf, law.pdf), np.random.default_rng(0))
    r, _ = law.draw(words(100, 1000))
    assert stats.kstest(np.ravel(r), DISTRIBUTION[name].cdf).pvalue > 1e-4
    v = np.linspace(-6, 6, 97, dtype=np.float32)
    for found, wanted in ((law.cdf, LAWS[name].cdf), (law.pdf, LAWS[name].pdf)):
        np.testing.assert_allclose(found(v), wanted(v), rtol=2e-5)


def test_words_of_other_seeds_steps_passes_layers_and_places_are_independent():
    """Correlations of normal scores within 5 standard errors, for 276 pairs; and no key twice.

    Passes without local differences: with them they are spread.
    """
    method = method_of(Problem((3, 3, 3)), **FORWARD)
    seeds = [np.random.SeedSequence(seed).generate_state(2) for seed in (0, 1)]
    keys = np.array(
        [[xla_noise.keys_of_step(s, jnp.int32(step), 2) for step in (0, 1)] for s in seeds]
    ).reshape(-1, 2)
    assert len(np.unique(keys[:, 0])) == len(np.unique(keys[:, 1])) == len(keys)
    words = [words_of_passes(method, key, (50, 128)) for key in keys]
    words = np.concatenate(words, axis=1).swapaxes(0, 1)
    draws = np.array(xla_noise.draw_gaussian(words)[0])
    assert np.abs(np.corrcoef(draws.reshape(len(draws), -1)) - np.eye(len(draws))).max() < 5 / 80
    lagged = [(draws[..., lag:] * draws[..., :-lag]).mean() for lag in (1, 2, 16)]
    assert np.abs(lagged).max() < 5 / np.sqrt(draws.size * 0.8)
    below = (draws[:, 1:] * draws[:, :-1]).mean()
    assert abs(below) < 5 / np.sqrt(draws.size * 0.9)


@pytest.mark.parametrize("R", [2, 3, 8, 11])
def test_passes_are_spread_as_those_of_glr_noise(R):
    """No two are closer than 1/R, and each by itself is uniform: χ² of the high byte at 10⁻⁴."""
    method = method_of(Problem((3, 3, 3)), replicates=R)
    words = words_of_passes(method, jnp.array([5, 7], jnp.uint32), (200, 400))
    gaps = (words[:, :, None] - words[:, None])[:, ~np.eye(R, dtype=bool)]
    assert np.all(gaps >= 2**32 // R - R**2)
    assert len(np.unique(words[:, 1] - words[:, 0])) == len(coprimes(R))
    for of_pass in np.moveaxis(words, 1, 0):
        counts = np.bincount((of_pass >> 24).ravel(), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-4 / 11


# ---------------------------------------------------------------- the descent


def state_of(parameters, optimizer):
    """A run's state before the first step."""
    arrays = by_jax.first_arrays(optimizer, parameters)
    return State(parameters.copy(), np.random.default_rng(0), arrays)


def plan_of(**changes):
    return xla.Plan(adam, cosine, 240, 0.05, 1e-3, True, 0.0)._replace(**changes)


@pytest.mark.parametrize("optimizer", [sgd, adagrad, adam])
@pytest.mark.parametrize("schedule", [cosine, tenths, constant])
def test_descent_is_that_of_numpy(optimizer, schedule):
    """As glr.scripts.run: decay of the weights alone, ∂W of the first layer centralised."""
    sizes, rng = [7, 9, 5], np.random.default_rng(0)
    parameters = new_network(sizes, sigmoid, rng).parameters
    plan = plan_of(optimizer=optimizer, schedule=schedule, learning_rate=0.1, steps=6)
    arrays = state_of(parameters, optimizer)
    state, kept = by_jax.new_state(arrays, sizes, SEED), {}
    descend = jax.jit(functools.partial(xla.descend, plan))
    for step in range(plan.steps):
        slope = rng.standard_normal(parameters.size, np.float32)
        state = descend(state, transposed(layer_views(slope, sizes)))
        first, *_ = layer_views(slope, sizes)
        first.W[:] -= first.W.mean(axis=0)
        layers = layer_views(parameters, sizes)
        for found, layer in zip(layer_views(slope, sizes), layers, strict=True):
            found.W[:] += np.float32(plan.weight_decay) * layer.W
        optimizer(parameters, slope, 0.1 * schedule(step, plan.steps), kept)
    by_jax.write_back(state, arrays)
    np.testing.assert_allclose(arrays.parameters, parameters, rtol=1e-4, atol=1e-6)
    assert arrays.optimizer.keys() == kept.keys()
    for name, array in arrays.optimizer.items():
        assert array.dtype == kept[name].dtype
        np.testing.assert_allclose(array, kept[name], rtol=1e-5, atol=1e-7)


# ---------------------------------------------------------------- many steps


@pytest.fixture(scope="module")
def digits():
    """A run of LRT's method on the digits: what take_steps needs."""
    data = load_dataset("digits", ROOT / "data")
    method = method_of(Problem((64, 20, 10), "threshold", sigma=(1.0, 0.5)))
    network = new_network([64, 20, 10], threshold, np.random.default_rng(0))
    rows = np.random.default_rng(1).integers(0, len(data.y_train), (240, 32))
    samples = data.x_train, data.y_train.astype(np.int32)
    return SimpleNamespace(method=method, network=network, rows=rows, samples=samples, data=data)


def trained(digits, *legs):
    """Parameters, optimizer's arrays and risks after so many steps in each call."""
    arrays, risks = state_of(digits.network.parameters, adam), []
    program = xla.program(digits.method, plan_of())
    for n in legs:
        state = by_jax.new_state(arrays, digits.network.sizes, SEED)
        rows = digits.rows[arrays.step : arrays.step + n]
        state, found = xla.take_steps(program, state, digits.samples, rows)
        by_jax.write_back(state, arrays)
        arrays.step, risks = arrays.step + n, [*risks, *found]
        assert int(state.step) == arrays.step
    return everything(arrays, risks)


def everything(arrays, risks):
    """Parameters, the optimizer's arrays and risks, flat."""
    return np.concatenate([arrays.parameters, *map(np.ravel, arrays.optimizer.values()), risks])


def test_resumed_at_any_step_the_bits_are_the_same(digits):
    whole = trained(digits, 40)
    for legs in ((1, 39), (17, 23), (39, 1)):
        assert np.array_equal(trained(digits, *legs), whole)
    assert not np.array_equal(trained(digits, 40)[:100], digits.network.parameters[:100])


def test_steps_are_those_of_the_gradient_and_the_descent(digits):
    """One by one, at the steps' own keys; risks, weights and optimizer's arrays."""
    x, y = digits.samples
    arrays, risks = state_of(digits.network.parameters, adam), []
    state = by_jax.new_state(arrays, digits.network.sizes, SEED)
    one = jax.jit(functools.partial(xla.gradient, digits.method))
    descend = jax.jit(functools.partial(xla.descend, plan_of()))
    for step, rows in enumerate(digits.rows[:5]):
        found, risk, _ = one(state.layers, x[rows].T, y[rows], keys_of(digits.method, step))
        state, risks = descend(state, found), [*risks, risk]
    by_jax.write_back(state, arrays)
    wanted = everything(arrays, risks)
    np.testing.assert_allclose(trained(digits, 5), wanted, rtol=1e-3, atol=1e-5)


def test_network_learns_the_digits(digits):
    parameters = trained(digits, 240)[: digits.network.parameters.size]
    output = digits.network._replace(parameters=parameters).logits(digits.data.x_test)
    assert accuracy(output, digits.data.y_test) > 0.9


DIGEST = """
import hashlib, os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
sys.path.insert(0, sys.argv[2])
import numpy as np
from glr import xla
from glr.estimator import Method
from glr.losses import cross_entropy
from glr.network import new_network, sigmoid
from glr.noise import logistic
from glr.optimizers import adam, cosine
from glr.scripts import by_jax
from glr.storage.checkpoint import State

by_jax.set_up()
rng, sizes = np.random.default_rng(0), [784, 500, 500, 10]
x, y = rng.random((1000, 784), np.float32), rng.integers(0, 10, 1000).astype(np.int32)
sigma = 1.0, 1.0, 0.5
method = Method(sigmoid, cross_entropy, logistic, sigma, "logits", 2, True, True, False)
plan = xla.Plan(adam, cosine, 40, 0.01, 1e-4, True, 0.0)
parameters = new_network(sizes, sigmoid, rng).parameters
arrays = State(parameters, rng, by_jax.first_arrays(adam, parameters))
state = by_jax.new_state(arrays, sizes, np.array([3, 1], np.uint32))
program, rows = xla.program(method, plan), rng.integers(0, 1000, (10, 128))
state, risks = xla.take_steps(program, state, (x, y), rows)
by_jax.write_back(state, arrays)
print(hashlib.sha256(parameters.tobytes() + risks.tobytes()).hexdigest())
"""


def digest(n_cores, cache, **settings):
    """Of a large network after ten steps, in a process of its own."""
    env = os.environ | {"XDG_CACHE_HOME": str(cache)} | settings
    words = [sys.executable, "-c", DIGEST, str(n_cores), str(ROOT)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores can be chosen on Linux")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_one_core_and_two_give_the_same_bits_compiled_or_kept(tmp_path):
    one, two = digest(1, tmp_path / "one"), digest(2, tmp_path / "two")
    kept = digest(2, tmp_path / "one")
    assert one.stdout == two.stdout == kept.stdout
    assert len(one.stdout.strip()) == hashlib.sha256().digest_size * 2
    assert any((tmp_path / "one" / "glr" / "xla").glob("jit_steps_of_rows*"))
    assert one.stderr == two.stderr == kept.stderr == ""


def test_the_user_s_settings_of_jax_are_not_ours(tmp_path):
    settings = {"ENABLE_X64": "1", "NUMPY_DTYPE_PROMOTION": "strict", "TRANSFER_GUARD": "disallow"}
    settings |= {"NUMPY_RANK_PROMOTION": "raise", "DISABLE_JIT": "1"}
    other = {f"JAX_{name}": value for name, value in settings.items()}
    assert digest(1, tmp_path, **other).stdout == digest(1, tmp_path).stdout


def test_a_platform_that_jax_has_not_is_one_line(tmp_path):
    env = os.environ | {"JAX_PLATFORMS": "nonsense"}
    ran = run("LRS.py", "--backend", "jax", "--models-dir", tmp_path, env=env)
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert "nonsense" in line
    assert line.endswith("; or take another BACKEND")


def test_a_cache_that_cannot_be_written_is_not_fatal(tmp_path):
    (tmp_path / "file").touch()
    assert digest(1, tmp_path / "file").stdout


# ---------------------------------------------------------------- what is not covered


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"NOISE": secant}, 'NOISE = secant: BACKEND = "jax" takes gaussian, laplace, logistic'),
        ({"OPTIMIZER": lambda *a: None}, "OPTIMIZER = <lambda>: .* takes sgd, adagrad, adam alone"),
        ({"SCHEDULE": lambda *a: 1.0}, "SCHEDULE = <lambda>: .* cosine, tenths, constant alone"),
        ({"STANDARDISED_LOSS": True, "LOSS": rank}, "STANDARDISED_LOSS = True: .* zero_one alone"),
        ({"ACTIVATION": np.exp}, "ACTIVATION = exp: .* write it with jax.numpy"),
        ({"ACTIVATION": lambda v: v.sum()}, r"ACTIVATION = <lambda>: .* got shape \(\) from it"),
        ({"ACTIVATION": lambda v: v[..., :3]}, r"ACTIVATION = <lambda>: .* got shape \(5, 3\)"),
        ({"LOSS": LOSSES["top2_error"]}, None),
        ({"LOSS": lambda z, y: np.asarray(z)[..., 0, :]}, "LOSS = <lambda>: .* with jax.numpy"),
        ({"LOSS": lambda z, y: z}, "LOSS = <lambda>: .* got shape"),
        ({"ACTIVATION": staircase, "LOSS": rank}, None),
        ({"SIGMA": (1.0, 0.5, 0.1)}, "sigma has 3 numbers for 2 layers"),
        ({"REPLICATES": 1, "LOCAL_DIFFERENCES": False}, "replicates = 1"),
    ],
)
def test_what_is_not_covered_is_refused_by_name(changes, message):
    constants = {
        "ACTIVATION": sigmoid,
        "LOSS": zero_one if changes.get("STANDARDISED_LOSS") else cross_entropy,
        "NOISE": logistic,
        "SIGMA": (1.0, 0.5),
        "PERTURB": "logits",
        "REPLICATES": 2,
        "LOCAL_DIFFERENCES": True,
        "CONTROL_VARIATE": True,
        "STANDARDISED_LOSS": False,
        "HIDDEN": (50,),
        "OPTIMIZER": adam,
        "SCHEDULE": cosine,
        "STEPS": 10,
        "LEARNING_RATE": 0.01,
        "WEIGHT_DECAY": 0.0,
        "CENTRALISED_GRADIENT": False,
        "ADVERSARIAL_EPSILON": 0.0,
    }
    given = SimpleNamespace(**(constants | changes))
    if message is None:
        by_jax.check_covered(by_jax.method_of(given), by_jax.plan_of(given))
        return
    with pytest.raises(GLRError, match=message) as caught:
        by_jax.prepare(given)
    assert "\n" not in str(caught.value)


def test_only_the_cross_entropy_is_differentiated():
    with pytest.raises(GLRError, match=r"^LOSS = zero_one: BP.py differentiates cross_entropy"):
        by_jax.prepare(constants_of("BP.py", ["--backend", "jax", "--loss", "zero_one"]))


@pytest.mark.parametrize("activation", [sigmoid, threshold])
def test_backpropagation_gives_the_gradient_in_the_inputs_too(activation):
    """That of each sample's own loss over B, as TensorFlow's."""
    network = new_network([4, 3, 2], activation, np.random.default_rng(0))
    x, y = np.random.default_rng(1).random((6, 4), np.float32), np.array([0, 1, 1, 0, 1, 0])
    wanted = backpropagation(
        network, cross_entropy, TrainingNoise(logistic, (0.0,), "logits"), of_inputs=True
    )(x, y, None)
    method = Method(activation, cross_entropy, logistic, (0.0, 0.0), "logits", **by_jax.ONE_PASS)
    found = by_jax.backpropagated(method, transposed(network.layers), x.T, y, None)
    np.testing.assert_allclose(found[2].T, wanted.inputs, rtol=1e-4, atol=1e-7)


# ---------------------------------------------------------------- a run of a script


@pytest.fixture(autouse=True, scope="module")
def cache_folder(tmp_path_factory):
    """Where this file's tests keep what they compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def new_jax_run(folder, *flags, backend="jax", script="LRTZ.py"):
    words = ["--backend", backend, "--models-dir", str(folder), "--hidden", "20", *flags]
    return new_run(constants_of(script, words))


@pytest.mark.parametrize("script", ["LRTZ.py", "BP.py"])
def test_a_stopped_run_continues_to_the_same_weights(script, tmp_path, monkeypatch):
    flags = ["--steps", "700", "--eval-every", "300", "--checkpoint-every", "200"]
    flags += ["--adversarial-epsilon", "0.05", "--replays", "3"]
    flags += ["--sigma", "1", "0.5"]
    whole, stopped = (
        new_jax_run(tmp_path / name, *flags, script=script) for name in ("whole", "stopped")
    )
    whole.take_steps_by_jax()
    whole.save()
    evaluate = stopped.evaluate

    def evaluate_and_stop():
        evaluate()
        if stopped.state.step:
            signal.raise_signal(2)

    monkeypatch.setattr(stopped, "evaluate", evaluate_and_stop)
    with pytest.raises(StoppedError, match="stopped after step 300 of 700"):
        stopped.take_steps_by_jax()
    resumed = new_jax_run(tmp_path / "stopped", *flags, "--resume", script=script)
    resumed.take_steps_by_jax()
    resumed.save()
    name = f"{Path(script).stem}_digits_seed0"
    assert_same_run(tmp_path / "whole", tmp_path / "stopped", name)
    _, metadata = saved(tmp_path / "whole" / f"{name}.npz")
    assert metadata["constants"]["BACKEND"] == "jax"
    assert metadata["versions"]["jax"] == jax.__version__
    assert metadata["metrics"]["test_accuracy"] > 0.9


def test_a_network_of_an_own_activation_by_jax_numpy_is_evaluated_in_numpy():
    network = new_network([3, 4, 2], softplus, np.random.default_rng(0))
    x = np.random.default_rng(1).random((5, 3), np.float32)
    assert type(network.logits(x)) is np.ndarray
    by_numpy = network._replace(activation=lambda v: np.logaddexp(v, 0)).logits(x)
    np.testing.assert_allclose(network.logits(x), by_numpy, rtol=1e-5)


def test_divergence_names_the_step_that_numpy_names(tmp_path):
    """By SGD from the noise-free gradient of such weights, both diverge at the same step."""
    flags = "--optimizer sgd --learning-rate 1e5 --activation relu --weight-decay 0.1"
    flags = [*flags.split(), "--no-centralised-gradient", "--steps", "300"]
    run = new_jax_run(tmp_path, *flags, script="LRS.py")
    with pytest.raises(DivergenceError) as by_jax_steps:
        run.take_steps_by_jax()
    run = new_jax_run(tmp_path, *flags, script="LRS.py", backend="numpy")
    with pytest.raises(DivergenceError) as by_numpy:
        for x, y in run.minibatches():
            method = by_jax.method_of(run.constants)
            run.descend(estimator.gradient(run.layers, x, y, rng=run.rng, **vars(method)))
    assert str(by_jax_steps.value) == str(by_numpy.value)
    assert "step 5: the weights overflow" in str(by_numpy.value)


def test_without_jax_one_line_says_what_to_install(tmp_path, monkeypatch):
    for name in ("glr.scripts.by_jax", "glr.xla", "glr.xla_noise"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.delattr(glr.scripts, "by_jax")
    with pytest.raises(GLRError, match=r'BACKEND = "jax": .* pip install -r requirements-jax\.txt'):
        new_jax_run(tmp_path)
