"""Losses, network and optimizers against independent computation."""

import numpy as np
import pytest
from scipy.special import expit, log_softmax

from glr.losses import cross_entropy, zero_one
from glr.network import accuracy, is_right, logits, new_network, sigmoid, threshold
from glr.optimizers import adagrad, adam, constant, cosine, sgd, tenths


def generator(seed=0):
    return np.random.Generator(np.random.SFC64(seed))


def test_cross_entropy_is_minus_log_softmax_at_the_label():
    z = generator().normal(size=(3, 2, 5, 7)).astype(np.float32) * 30
    y = np.array([0, 1, 2, 3, 4, 0, 1])
    expected = -log_softmax(z.astype(float), axis=2)[:, :, y, np.arange(7)]
    np.testing.assert_allclose(cross_entropy(z, y), expected, rtol=1e-5, atol=1e-5)


def test_cross_entropy_of_huge_logits_is_finite():
    z = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    np.testing.assert_allclose(cross_entropy(z, np.array([0, 0])), [0, 2e4])


def test_zero_one_is_argmax_unequal_label():
    z = generator().normal(size=(4, 3, 6)).astype(np.float32)
    y = np.array([0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(zero_one(z, y), z.argmax(axis=1) != y)


def test_a_tie_of_the_largest_logits_is_right():
    z = np.array([[1.0, 2.0], [1.0, 3.0], [0.0, 3.0]])
    np.testing.assert_array_equal(zero_one(z, np.array([1, 0])), [0, 1])
    np.testing.assert_array_equal(zero_one(z, np.array([0, 2])), [0, 0])


def test_a_nan_is_never_right():
    """At the label, elsewhere, or everywhere; beside what is right without it."""
    z = np.array([[3.0, 1, 0], [np.nan, 1, 0], [3, np.nan, 0], [3, 1, np.nan], [np.nan] * 3])
    for label in range(3):
        y = np.full(5, label)
        right = np.arange(5) == (0 if label == 0 else 9)
        np.testing.assert_array_equal(zero_one(z.T, y), ~right)
        np.testing.assert_array_equal(is_right(z, y), right)


@pytest.mark.parametrize("scale", [1, 2])
def test_initial_weights_have_the_scale_over_the_root_of_their_layer_s_inputs(scale):
    """Within four standard errors, 99.99 % each; biases are zero."""
    sizes = [400, 100, 10]
    for W, b in new_network(sizes, sigmoid, generator(), scale).layers:
        error = 4 / np.sqrt(2 * W.size)
        assert W.std() * np.sqrt(len(W)) / scale == pytest.approx(1, rel=error)
        assert not b.any()


def test_network_is_matrix_products_and_activations():
    network = new_network([6, 4, 3], sigmoid, generator())
    network.parameters[:] = generator(1).normal(size=network.parameters.shape)
    (W0, b0), (W1, b1) = network.layers
    x = generator(2).normal(size=(5, 6)).astype(np.float32)
    expected = expit(x @ W0 + b0) @ W1 + b1
    np.testing.assert_allclose(network.logits(x), expected, rtol=1e-4, atol=1e-5)
    steps = (x @ W0 + b0 > 0) @ W1 + b1
    found = logits(network.layers, threshold, x)
    np.testing.assert_allclose(found, steps, rtol=1e-4, atol=1e-5)
    assert accuracy(found, steps.argmax(axis=1)) == 1


def test_accuracy_is_the_share_of_rows_whose_largest_logit_is_the_label_s():
    output = np.array([[3.0, 1.0], [1.0, 2.0], [0.0, 5.0], [2.0, 0.0]])
    np.testing.assert_array_equal(is_right(output, np.array([0, 0, 1, 1])), [1, 0, 1, 0])
    assert accuracy(output, np.array([0, 1, 0, 0])) == 0.75
    assert accuracy(output, np.array([1, 0, 0, 1])) == 0


def published_steps(optimizer, gradients, rate):
    """What the optimizer's paper makes of parameters 0 after these gradients, in float64."""
    theta, m, v, total = np.zeros((4, gradients.shape[1]))
    for t, g in enumerate(gradients.astype(float), 1):
        total += g * g
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        theta -= {
            sgd: rate * g,
            adagrad: rate * g / np.sqrt(total),
            adam: rate * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8),
        }[optimizer]
    return theta


@pytest.mark.parametrize("optimizer", [sgd, adagrad, adam])
def test_optimizers_are_those_of_their_papers(optimizer):
    """Gradients whose size falls by a factor of a thousand: the means are those of all steps."""
    gradients = generator(4).normal(size=(300, 50)) * np.geomspace(1, 1e-3, 300)[:, None]
    gradients = gradients.astype(np.float32)
    parameters, state = np.zeros(50, np.float32), {}
    for gradient in gradients:
        assert optimizer(parameters, gradient, 0.05, state) is None
    expected = published_steps(optimizer, gradients, 0.05)
    np.testing.assert_allclose(parameters, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("own", "small"), [(adagrad, 1e-10), (adam, 1e-8)])
def test_a_gradient_as_small_as_epsilon_is_halved(own, small):
    """g/(√g² + ε) of g = ε, bias-corrected in Adam (Kingma & Ba 2015, algorithm 1)."""
    parameters, gradient = np.zeros(3, np.float32), np.full(3, small, np.float32)
    own(parameters, gradient, 0.1, {})
    np.testing.assert_allclose(parameters, -0.05, rtol=1e-3)


def test_schedules_fall_along_half_a_cosine_or_in_ten_stairs_or_not_at_all():
    assert [cosine(step, 4) for step in range(5)] == pytest.approx(
        [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0]
    )
    assert [constant(step, 4) for step in range(5)] == [1] * 5
    epochs = [0.1 * tenths(468 * epoch + step, 46800) for epoch in range(100) for step in (0, 467)]
    assert epochs == pytest.approx([0.1 * 0.8 ** (i // 20) for i in range(200)])
    assert [tenths(step, 4) for step in range(4)] == pytest.approx([1, 0.8**2, 0.8**5, 0.8**7])
