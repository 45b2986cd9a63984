"""Free adversarial training: what a step is on, and how the perturbation goes on."""

import numpy as np
import pytest

from glr.data.datasets import Dataset
from glr.errors import GLRError
from glr.estimator import gradient
from glr.losses import cross_entropy
from glr.network import new_network, sigmoid
from glr.scripts.adversarial import moved
from glr.scripts.backpropagation import TrainingNoise, backpropagation
from glr.scripts.constants import constants_of
from glr.scripts.run import Run

EPSILON = np.float32(0.1)
X = np.random.default_rng(0).random((24, 6), np.float32)
Y = np.arange(24) % 3


def run_of(*flags, x=X, script="LRS.py"):
    words = ["--hidden", "4", "--batch-size", "8", "--steps", "7", *map(str, flags)]
    return Run(constants_of(script, words), Dataset("tiny", x, Y, x, Y))


def steps_of(run):
    """The minibatch and the perturbation after each step along the GLR estimate."""
    found = []
    for x, y in run.minibatches():
        estimate = gradient(
            run.layers, x, y, activation=sigmoid, loss=cross_entropy, sigma=1.0, rng=run.rng
        )
        run.descend(estimate)
        found.append((x, y, estimate.inputs, run.state.perturbation))
    return found


def test_a_step_moves_the_perturbation_along_the_sign_of_its_own_input_gradient(tmp_path):
    flags = "--adversarial-epsilon", EPSILON, "--replays", 3, "--models-dir", tmp_path
    plain = [x for x, *_ in steps_of(run_of("--models-dir", tmp_path / "plain"))]
    eta = np.zeros((8, 6), np.float32)
    for step, (x, _, inputs, after) in enumerate(steps_of(run_of(*flags))):
        np.testing.assert_array_equal(x, np.clip(plain[step // 3] + eta, 0, 1))
        eta = np.clip(eta + EPSILON * np.sign(inputs), -EPSILON, EPSILON)
        np.testing.assert_allclose(after, eta, atol=1e-7)
    assert step == 6
    assert np.abs(eta).max() == pytest.approx(EPSILON) and np.ptp(eta, axis=0).min() > 0


def test_a_zero_slope_moves_nothing_and_no_pixel_moves_by_more_than_epsilon():
    eta = moved(np.array([0.1, -0.1, 0.05], np.float32), np.array([3, -2, 0.0]), 0.1)
    np.testing.assert_allclose(eta, [0.1, -0.1, 0.05], atol=1e-7)


def test_data_that_are_no_pixels_are_refused(tmp_path):
    with pytest.raises(GLRError, match=r"ADVERSARIAL_EPSILON: x goes from .* scale x"):
        run_of("--adversarial-epsilon", 0.1, x=3 * X)
    assert run_of("--adversarial-epsilon", 0, x=3 * X).state.perturbation is None


def test_backpropagation_has_the_numerical_gradient_of_the_inputs_if_asked():
    network = new_network([6, 4, 3], sigmoid, np.random.default_rng(0))
    noise = TrainingNoise(None, (0.0,), "logits")
    found = backpropagation(network, cross_entropy, noise, of_inputs=True)(X, Y, None)
    assert backpropagation(network, cross_entropy, noise)(X, Y, None).inputs is None

    def risk(x):
        return cross_entropy(network.logits(x).T, Y).mean()

    slopes = np.zeros_like(X)
    for place in np.ndindex(*X.shape):
        step = np.zeros(X.shape)
        step[place] = 1e-3
        slopes[place] = (risk(X + step) - risk(X - step)) / 2e-3
    np.testing.assert_allclose(found.inputs, slopes, atol=1e-4)
