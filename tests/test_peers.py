"""The peers' gradient estimators: their means, by enumeration and autodiff, or their bias."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from exact_means import exact_mean, pathwise_draws, pathwise_mean
from problems import (
    Mean,
    Problem,
    assert_equal_means,
    assert_powerful,
    exactly,
    layers_of,
    mean_of,
    parameter_slices,
    samples_of,
)

jax = pytest.importorskip("jax", reason="JAX is not installed: requirements-jax.txt")
import jax.numpy as jnp  # noqa: E402
from jax.flatten_util import ravel_pytree  # noqa: E402

from glr.estimator import Method  # noqa: E402
from glr.losses import cross_entropy  # noqa: E402
from glr.network import Layer, sigmoid, threshold  # noqa: E402
from glr.noise import logistic  # noqa: E402
from glr.study import estimators, pages, peers  # noqa: E402
from glr.study.comparison import direction_and_variance  # noqa: E402
from glr.study.estimators import keys_from  # noqa: E402

SIZES = (4, 3, 3)
SIGMA = (estimators.SIGMA, estimators.OUTPUT_SIGMA)
SMOOTH, STILL, BITS = (
    Problem(SIZES, sigma=SIGMA),
    Problem(SIZES, sigma=(0.0, 0.0)),
    Problem(SIZES, "threshold", sigma=SIGMA),
)
LAYERS = [Layer(jnp.array(W.T), jnp.array(b)) for W, b in layers_of(SMOOTH)]  # the same of all
BATCH = jnp.array(samples_of(SMOOTH)[0].T), jnp.array(samples_of(SMOOTH)[1])
KEY = jnp.array([5, 7], jnp.uint32)
METHODS = {
    activation: Method(activation, cross_entropy, logistic, SIGMA, "logits", 2, True, True, False)
    for activation in (sigmoid, threshold)
}


def draws_of(estimate, n=40_000, layers=LAYERS):
    """Independent estimates (n × parameters) in the order of the flat parameters."""

    def flat(key):
        parts = [(layer.W.T, layer.b) for layer in estimate(key, layers, BATCH)]
        return jnp.concatenate([part.ravel() for pair in parts for part in pair])

    return np.asarray(jax.jit(jax.vmap(flat))(keys_from(KEY, n)), np.float64)


def without_risk(mean):
    return Mean(*(part[:-1] for part in mean))


def exact_without_noise():
    """By autodiff, in float64."""
    return without_risk(exactly(pathwise_draws(STILL, 1, 1)[0, : len(exact_mean(BITS).value)]))


def exact_of_sigmoids():
    return without_risk(pathwise_mean(SMOOTH))


def exact_of_bits():
    return without_risk(exact_mean(BITS))


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


UNBIASED = {
    "LRS": (estimators.glr, {"method": METHODS[sigmoid]}, exact_of_sigmoids),
    "LRT": (estimators.glr, {"method": METHODS[threshold]}, exact_of_bits),
    "backpropagation": (estimators.backpropagation, {}, exact_of_sigmoids),
    "forward gradient": (estimators.forward_gradient_of_weights, {}, exact_without_noise),
    "of activations": (estimators.forward_gradient_of_nodes, {}, exact_without_noise),
    "weight perturbation": (estimators.weight_perturbation, {}, exact_without_noise),
    "node perturbation": (estimators.node_perturbation, {}, exact_without_noise),
    "reinforce": (estimators.reinforce, {}, exact_of_bits),
    "arm": (estimators.arm, {}, exact_of_bits),
    "disarm": (estimators.disarm, {}, exact_of_bits),
}


@pytest.mark.parametrize(("estimator", "settings", "wanted"), UNBIASED.values(), ids=UNBIASED)
def test_the_mean_is_the_gradient_of_its_objective(estimator, settings, wanted):
    """By small differences too: their bias, of the square, is within the error of these draws."""
    mean = mean_of(draws_of(partial(estimator, repeats=2, **settings)))
    assert_powerful(mean, SIZES)
    assert_equal_means(mean, wanted())


def test_disarm_has_less_variance_than_arm():
    both = estimators.arm, estimators.disarm
    one, other = (draws_of(partial(estimator, repeats=1), 4000) for estimator in both)
    first = parameter_slices(SIZES)["W0"]
    assert other[:, first].var(axis=0).sum() < 0.8 * one[:, first].var(axis=0).sum()


def test_straight_through_is_biased_in_the_hidden_layer_alone():
    mean = mean_of(draws_of(partial(estimators.straight_through, repeats=1)))
    wanted = exact_of_bits()
    parts = parameter_slices(SIZES)
    hidden, output = (slice(parts[f"W{t}"].start, parts[f"b{t}"].stop) for t in (0, 1))
    assert_equal_means(*(Mean(*(part[output] for part in one)) for one in (mean, wanted)))
    difference = np.abs(mean.value - wanted.value)[hidden]
    assert (difference / mean.error[hidden]).max() > 10
    assert cosine(mean.value[hidden], wanted.value[hidden]) > 0.9


def test_direct_feedback_is_backpropagation_where_the_weights_are_the_feedback():
    hidden, output = LAYERS
    there = [hidden, Layer(estimators.fixed_weights(output.W), output.b)]

    @jax.jit
    def of_both(layers):
        both = estimators.direct_feedback, estimators.backpropagation
        return [estimator(KEY, layers, BATCH, repeats=2) for estimator in both]

    for layers, close in ((there, True), (LAYERS, False)):
        one, other = (np.asarray(found[0].W) for found in of_both(layers))
        assert np.allclose(one, other, rtol=1e-5, atol=1e-6) == close


def test_one_pair_of_the_evolution_strategy_goes_along_the_gradient_by_a_known_length():
    """Of a normal direction z and small steps, E[sign(g·z) z] = √(2/π) g/‖g‖."""
    size, g = 1e-3, exact_without_noise().value
    mean = mean_of(draws_of(partial(estimators.evolution_strategy, repeats=1, size=size)))
    length = np.sqrt(2 / np.pi) / (2 * size)
    assert_equal_means(mean, exactly(length * g / np.linalg.norm(g)))


def pairs_of_the_evolution_strategy(layers, pairs, size):
    """Its estimate, the normal directions that it goes, there and back, and the losses there."""

    def normal(words):
        return estimators.draw_gaussian(words)[0]

    noise = [estimators.drawn_like(layers, key, normal) for key in keys_from(KEY, pairs)]
    directions = [jax.tree.map(lambda n, by=by: by * n, one) for by in (1, -1) for one in noise]
    steps = [jax.tree.map(lambda n: size * n, one) for one in directions]
    losses = jnp.stack([estimators.mean_loss(layers, BATCH, step) for step in steps])
    found = estimators.evolution_strategy(KEY, layers, BATCH, repeats=pairs, size=size)
    return ravelled(found), jnp.stack([*map(ravelled, directions)]), losses


def ravelled(layers):
    return ravel_pytree(layers)[0]


def test_pairs_of_the_evolution_strategy_are_weighed_by_their_ranks():
    """The lowest of n losses is gone to and the highest left, by −½ to ½, over n·size."""
    size, pairs = 0.5, 2
    run = jax.jit(partial(pairs_of_the_evolution_strategy, pairs=pairs, size=size))
    found, directions, losses = run(LAYERS)
    weights = np.linspace(-0.5, 0.5, 2 * pairs) / (2 * pairs * size)
    wanted = np.tensordot(weights, directions[np.argsort(losses)], 1)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_evolution_strategy_is_that_of_evosax():
    """Open_ES goes where we do, given our directions. Runs where evosax (0.3.2) is installed."""
    algorithms = pytest.importorskip("evosax.algorithms", reason="evosax: for this test alone")
    optax = pytest.importorskip("optax")  # comes with it
    size, pairs = 0.05, 8
    run = jax.jit(partial(pairs_of_the_evolution_strategy, pairs=pairs, size=size))
    (found, directions, losses), start = run(LAYERS), ravelled(LAYERS)
    schedules = {"optimizer": optax.sgd(1.0), "std_schedule": optax.constant_schedule(size)}
    theirs = algorithms.Open_ES(2 * pairs, start, **schedules)
    state = theirs.init(KEY, start, theirs.default_params)
    tried = start + size * directions
    told, _ = theirs.tell(KEY, tried, losses, state, theirs.default_params)
    np.testing.assert_allclose(found, start - told.mean, rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------- the study


def bench_of_digits(tmp_path):
    constants = SimpleNamespace(DATASET="digits", DATA_DIR=tmp_path)
    return peers.bench_of("LRT.py", constants, validation=300)


@pytest.mark.parametrize("steps", [7, 1000])
def test_a_run_takes_its_steps_by_minibatches_of_training_samples(steps, tmp_path):
    bench, taken = bench_of_digits(tmp_path), []

    def run(state, samples, rows, *, steps):
        rows = rows[rows[:, 0] >= 0]
        taken.append((len(rows), rows.max(), steps))
        return state

    curve = peers.learning_curve(run, bench, 0, steps)
    counts, largest, told = zip(*taken, strict=True)
    assert (sum(counts), set(told)) == (steps, {steps})
    assert max(largest) < len(bench.data.x_train) == 1437 - 300
    assert len(curve) == peers.POINTS
    assert len(set(curve)) == 1  # of the same network


def test_the_setting_is_chosen_on_held_out_samples_and_then_tested(monkeypatch):
    """The best of all on the test set, rate 0.1, is not the best on the held-out samples."""
    reached = {"held out": {0.01: 80, 0.03: 90, 0.1: 70}, "test": {0.03: 91, 0.1: 99}}

    def curve(run, bench, seed, steps):
        return [0, run.keywords["rate"] * steps / 20, reached[bench][run.keywords["rate"]] + seed]

    monkeypatch.setattr(peers, "learning_curve", curve)
    constants = SimpleNamespace(RATES=(0.01, 0.03, 0.1), SEEDS=2)
    found = peers.outcome({2: print}, {2: 20}, ("test", "held out"), constants)
    assert found == (2, 0.03, 20, [[0, 0.03, 91], [0, 0.03, 92]])
    assert str(found) == "91.50 ± 0.71 (R 2, rate 0.03)"


def test_the_variance_is_relative_and_the_cosine_that_of_the_means():
    """Of means (3, 4)·e and (4, 3)·e and noise of deviation 5 in each of 2 entries."""

    def estimator(mean, key, layers, batch):
        noise = estimators.draw_gaussian(estimators.random_words(key, (1, 2)))[0]
        return [Layer(jnp.array([mean]) + 5 * noise, None)]

    layers = [Layer(jnp.zeros((1, 2)), None)]
    means, variances = zip(
        *(
            direction_and_variance(peers.draws_of(partial(estimator, mean), layers, None))
            for mean in ((3.0, 4.0), (4.0, 3.0))
        ),
        strict=True,
    )
    error = np.sqrt((2 * 2 + 4 * 4) / peers.DRAWS)  # by χ²(2)'s variance, and by the mean's
    assert abs(np.array(variances) - 2).max() < 4 * error
    assert abs(np.vdot(*means) - 24 / 25) < 0.05


def test_two_peers_are_measured_by_equal_time_and_evaluations(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "DRAWS", 64)
    monkeypatch.setattr(peers, "TURNS", 2)
    constants = SimpleNamespace(
        **{"DATASET": "digits", "DATA_DIR": tmp_path, "VALIDATION": 300, "SEEDS": 1},
        **{"STEPS": 400, "EVALUATIONS": 61 * 400, "RATES": (0.01,)},
    )
    chosen = (
        peers.Peer("LRT", peers.glr_of("LRT.py"), (2,), peers.GLR, 61),
        peers.Peer("ST", estimators.straight_through, (1,), peers.BACKWARD, 1, "LRT"),
    )
    own, other = peers.measure("LRT.py", chosen, constants)
    assert own.by_time.steps in (400, 399)
    assert own.by_evaluations.steps == 200
    assert own.cosine is other.by_evaluations is None
    assert 0.5 < other.cosine < 1.1
    assert min(one.by_time.curves[0][-1] for one in (own, other)) > 85
    assert own.milliseconds == 1000 * own.variance * own.step
    assert own.evaluations == pytest.approx(own.variance * 122)


def measured(name, uses, step, variance, accuracy):
    """Figures of a peer."""
    outcome = peers.Outcome(1, 0.03, 10, [[accuracy] * peers.POINTS] * 2)
    peer = peers.Peer(name, None, (1,), uses, 2)
    of_evaluations = None if uses == peers.BACKWARD else outcome
    return peers.Measured(peer, step, variance, None, outcome, of_evaluations)


FOUND = [
    measured("GLR", peers.GLR, 1e-3, 0.5, 97.0),
    measured("precise", peers.LOSSES, 1e-3, 6.0, 90.0),
    measured("accurate", peers.LOSSES, 4e-3, 5.0, 97.5),
    measured("forward", peers.FORWARD, 1e-3, 0.1, 99.0),
    measured("backward", peers.BACKWARD, 1e-3, 0.1, 98.0),
]


def test_the_page_has_all_figures_and_the_pictures_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("GLR_RESULTS_DIR", str(tmp_path))
    constants = SimpleNamespace(
        **{"DATASET": "digits", "SEEDS": 2, "STEPS": 10, "EVALUATIONS": 10, "RATES": (0.01, 0.03)}
    )
    peers.write_peers({"LRS.py": FOUND}, constants, pages.Page("peers_part"))
    text = (tmp_path / "peers_part.md").read_text()
    reached = "97.50 ± 0.00 (R 1, rate 0.03)"
    figures = f"4.00 | unbiased | 5 | 10 | 20 | {reached} | {reached}"
    assert f"| accurate | loss values | {figures} |" in text
    backward = "| backward | derivatives, backward | 1.00 | unbiased | 0.1 | – | 0.1 |"
    assert f"{backward} 98.00 ± 0.00 (R 1, rate 0.03) | – |" in text
    for name in ("peers_part.png", "peers_part_time.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
