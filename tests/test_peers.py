"""The peers' gradient estimators: their means, by enumeration and autodiff, or their bias."""

from functools import partial

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

from glr.estimator import Method  # noqa: E402
from glr.losses import cross_entropy  # noqa: E402
from glr.network import Layer, sigmoid, threshold  # noqa: E402
from glr.noise import logistic  # noqa: E402
from glr.study import estimators  # noqa: E402
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
    activation: Method(
        activation, cross_entropy, logistic, SIGMA, "logits", 2, 1, True, True, False
    )
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
    "forward gradient": (estimators.forward_gradient, {}, exact_without_noise),
    "of activations": (estimators.forward_gradient_of_activations, {}, exact_without_noise),
    "weight perturbation": (estimators.weight_perturbation, {"size": 0.01}, exact_without_noise),
    "node perturbation": (estimators.node_perturbation, {"size": 0.01}, exact_without_noise),
    "reinforce": (estimators.reinforce, {}, exact_of_bits),
    "arm": (estimators.arm, {}, exact_of_bits),
    "disarm": (estimators.disarm, {}, exact_of_bits),
}


@pytest.mark.parametrize(("estimator", "settings", "wanted"), UNBIASED.values(), ids=UNBIASED)
def test_the_mean_is_the_gradient_of_its_objective(estimator, settings, wanted):
    """By differences of 0.01 too: their bias, of its square, is within the error of these draws."""
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
    there = [hidden, Layer(estimators.feedback_weights(output.W.shape), output.b)]

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


def test_pairs_of_the_evolution_strategy_are_weighed_by_their_ranks():
    """The lowest of n losses is gone to and the highest left, by −½ to ½, over n·size."""
    size, pairs = 0.5, 3

    @jax.jit
    def found_and_tried(layers):
        keys = keys_from(KEY, pairs)
        noise = [estimators.noise_like(layers, key, estimators.normal) for key in keys]
        tried = [estimators.moved(layers, by, one) for one in noise for by in (size, -size)]
        losses = jnp.stack([estimators.mean_loss(one, BATCH) for one in tried])
        return estimators.evolution_strategy(KEY, layers, BATCH, repeats=pairs, size=size), (
            jnp.stack([one[0].W - layers[0].W for one in tried]) / size,
            losses,
        )

    found, (directions, losses) = found_and_tried(LAYERS)
    weights = np.linspace(-0.5, 0.5, 2 * pairs) / (2 * pairs * size)
    wanted = np.tensordot(weights, directions[np.argsort(losses)], 1)
    np.testing.assert_allclose(found[0].W, wanted, rtol=1e-4, atol=1e-5)
