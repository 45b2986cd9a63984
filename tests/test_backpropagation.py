"""Backpropagation, the matched control: its gradient, its noise, its state."""

from types import SimpleNamespace

import numpy as np
import pytest
from exact_means import pathwise_mean
from glr.passes import Batch
from glr.scripts.experiment import run_generator, training_noise
from problems import (
    PACKAGE_LAWS,
    Problem,
    assert_equal_means,
    assert_powerful,
    flat,
    mean_of,
    parameters_of,
    samples_of,
)

from glr.errors import GLRError
from glr.losses import cross_entropy
from glr.network import Network, layer_views, logits, new_network, sigmoid, threshold
from glr.noise import gaussian, logistic
from glr.robustness.attacks import keras_loss_and_gradient
from glr.scripts.backpropagation import (
    TrainingNoise,
    backpropagation_estimator,
    import_keras,
    keras_network,
    noise_layer,
)


def straight_through_signals(network, x, y, slope):
    """∂ cross-entropy/∂v of output (n_out × B) and hidden logits, a threshold's slope replaced.

    Its outputs forward; backward, the derivative of σ(slope·v) in the place of one of zero.
    """
    z = network.logits_of_rows(x)
    (W, b), (last, _) = network.layers
    delta = np.exp(z) / np.exp(z).sum(axis=0) - np.eye(len(z))[:, y]
    hidden = sigmoid(slope * (W.T @ x.T + b[:, None]))
    return delta, slope * hidden * (1 - hidden) * (last @ delta)


THRESHOLDS = new_network([4, 3, 2], threshold, np.random.default_rng(0))
ROWS = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([0, 1, 1, 0, 1, 0])


@pytest.mark.parametrize("slope", [1, 3])
def test_attacks_on_a_threshold_network_follow_the_gradient_of_a_sigmoid(slope):
    model = keras_network(THRESHOLDS, slope=slope)
    losses, gradient = keras_loss_and_gradient(model)(ROWS, LABELS)
    z = THRESHOLDS.logits_of_rows(ROWS)
    np.testing.assert_allclose(losses, cross_entropy(z, LABELS), rtol=1e-5)
    _, signal = straight_through_signals(THRESHOLDS, ROWS, LABELS, slope)
    expected = THRESHOLDS.layers[0].W @ signal
    np.testing.assert_allclose(gradient, expected.T, rtol=1e-4, atol=1e-6)


def test_threshold_networks_are_trained_straight_through():
    """The slope is that of F(v), the mean output of a neuron with logistic noise of deviation 1."""
    slope = 4 * (logistic.cdf(np.float32(1e-2)) - 0.5) / 1e-2  # σ′(0) = 1/4
    estimator = backpropagation_estimator(THRESHOLDS, TrainingNoise((0, 0), (0, 0)))
    found = estimator.gradient(THRESHOLDS.layers, Batch(ROWS.T, LABELS)).layers
    delta, signal = straight_through_signals(THRESHOLDS, ROWS, LABELS, slope)
    hidden = THRESHOLDS.layers[0].W.T @ ROWS.T + THRESHOLDS.layers[0].b[:, None] > 0
    for layer, x, of_logits in zip(found, (ROWS.T, hidden), (signal, delta), strict=True):
        np.testing.assert_allclose(layer.W, x @ of_logits.T / 6, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(layer.b, of_logits.mean(axis=1), rtol=1e-3, atol=1e-5)


def test_backpropagation_gradient_is_the_numerical_one():
    network = new_network([4, 3, 2], sigmoid, np.random.default_rng(0))
    x = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    batch = Batch(x, np.array([0, 1, 1, 0, 1, 0]))
    estimator = backpropagation_estimator(network, TrainingNoise((0, 0), (0, 0)))
    gradient = estimator.gradient(network.layers, batch)

    def risk(parameters):
        z = logits(layer_views(parameters, network.sizes), sigmoid, batch.x)
        return cross_entropy(z, batch.y).mean()

    exact = network.parameters.astype(float)
    for i, found in enumerate(flat(gradient)[:-1]):
        step = np.zeros_like(exact)
        step[i] = 1e-5
        slope = (risk(exact + step) - risk(exact - step)) / 2e-5
        assert found == pytest.approx(slope, abs=1e-4)
    assert gradient.risk == pytest.approx(risk(exact), abs=1e-5)


MOMENTS = {  # E[rᵏ] at unit standard deviation
    "gaussian": {2: 1, 4: 3, 8: 105},
    "logistic": {2: 1, 4: 4.2, 8: 685.8},
    "laplace": {2: 1, 4: 6, 8: 2520},
}


@pytest.mark.parametrize("perturb", ["logits", "weights"])
@pytest.mark.parametrize("law", PACKAGE_LAWS)
def test_backpropagation_noise_has_the_stated_law_and_scale(law, perturb):
    """Each moment within 5 standard errors; the fourth tells the laws apart."""
    zeros, x = np.zeros((400_000, 1), np.float32), np.full((400_000, 3), 2, np.float32)
    scale = 0.7 if perturb == "logits" else 0.7 * np.sqrt(1 + 3 * 2**2)
    layer = noise_layer(TrainingNoise((0.1, 0.7), (0, 1), law, perturb), 1)
    r = np.asarray(layer(zeros, x, training=True)) / scale
    for power in (1, 2, 4):
        wanted, of_square = (MOMENTS[law].get(k, 0) for k in (power, 2 * power))
        error = np.sqrt((of_square - wanted**2) / r.size)
        assert abs(np.mean(r**power) - wanted) < 5 * error, power
    np.testing.assert_array_equal(layer(zeros, x, training=False), zeros)


def test_a_law_that_keras_cannot_draw_is_refused_in_one_line():
    network = new_network([4, 3, 2], sigmoid, np.random.default_rng(0))
    noise = TrainingNoise((1.0, 1.0), (0, 1), law="mixture")
    with pytest.raises(GLRError, match=r"^NOISE = mixture: .* only$"):
        backpropagation_estimator(network, noise)


@pytest.mark.parametrize("perturb", ["logits", "weights"])
@pytest.mark.parametrize("law", PACKAGE_LAWS)
def test_noisy_backpropagation_has_the_gradient_that_glr_estimates(law, perturb):
    """Its mean over the noise, step after step: the control differs in the estimate alone."""
    problem = Problem((3, 4, 3), law=law, perturb=perturb)
    network = Network(parameters_of(problem), list(problem.sizes), sigmoid)
    x, y = samples_of(problem)
    batch = Batch(np.tile(x, 1500), np.tile(y, 1500))
    noise = TrainingNoise(problem.sigma, (1, 2), law, perturb)
    gradient = backpropagation_estimator(network, noise).gradient
    mean = mean_of(np.array([flat(gradient(network.layers, batch)) for _ in range(100)]))
    assert_powerful(mean, problem.sizes)
    assert_equal_means(mean, pathwise_mean(problem))


def test_every_step_has_noise_of_its_own_and_a_restored_state_repeats_it():
    problem = Problem((3, 4, 3))
    network = Network(parameters_of(problem), list(problem.sizes), sigmoid)
    estimator = backpropagation_estimator(network, TrainingNoise(problem.sigma, (1, 2)))

    def gradient():
        return tuple(flat(estimator.gradient(network.layers, Batch(*samples_of(problem)))))

    first, state = gradient(), estimator.state()
    later = [gradient() for _ in range(3)]
    assert len({first, *later}) == 4
    estimator.restore(state)
    assert [gradient() for _ in range(3)] == later


def test_no_two_layers_or_runs_share_the_seed_of_their_noise():
    constants = SimpleNamespace(SIGMA=(1.0, 0.5), HIDDEN=(4, 3), NOISE=gaussian, PERTURB="weights")
    noises = [training_noise(constants, run_generator(seed)) for seed in range(5)]
    assert len({seed for noise in noises for seed in noise.seeds}) == 5 * 3
    assert noises[0] == training_noise(constants, run_generator(0))
    assert noises[0].sigma == (1.0, 1.0, 0.5)
    assert (noises[0].law, noises[0].perturb) == ("gaussian", "weights")


def test_every_layer_draws_from_its_own_seed():
    keras, _ = import_keras()
    network = new_network([4, 3, 3, 2], sigmoid, np.random.default_rng(0))
    noise = TrainingNoise((1.0, 1.0, 1.0), (5, 6, 7))
    found = [v.numpy() for v in keras_network(network, noise).non_trainable_variables]
    wanted = [keras.random.SeedGenerator(seed).state.numpy() for seed in noise.seeds]
    np.testing.assert_array_equal(found, wanted)
