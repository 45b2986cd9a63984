"""The attacks against ART, SciPy run image by image, and their own promises.

Auto-PGD and Square are no weaker than ART's, on the same network.
"""

import os
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import Bounds, minimize

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from glr.errors import GLRError
from glr.losses import cross_entropy as glr_cross_entropy
from glr.network import Network, is_right, new_network, relu, sigmoid, tanh, threshold
from glr.noise import logistic
from glr.robustness.attacks import (
    GLR_SIGMAS,
    SLOPES,
    apgd_attacks,
    between,
    fgsm,
    glr_input_gradient,
    grouped,
    input_gradient,
    lbfgs,
    loss_and_gradient,
    margin,
    pgd,
    ratio_slope,
    square_attack,
    until_wrong,
    zero_gradient_share,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that PyTorch is not there
    from art.attacks.evasion import (
        AutoProjectedGradientDescent,
        FastGradientMethod,
        ProjectedGradientDescent,
        SquareAttack,
    )
    from art.estimators.classification import (
        BlackBoxClassifierNeuralNetwork,
        TensorFlowV2Classifier,
    )

N, N_IN, N_CLASSES = 150, 36, 4
EPSILON = 0.1
ROUNDING = 1e-6  # of float32 intensities


@pytest.fixture(scope="module")
def batch():
    """Random images, black and white pixels among them so that the box matters, and labels."""
    rng = np.random.default_rng(0)
    x = np.clip(rng.uniform(-0.5, 1.5, size=(N, N_IN)), 0, 1).astype(np.float32)
    return x, rng.integers(N_CLASSES, size=N)


@pytest.fixture(scope="module")
def weights():
    """A ReLU network's (W0, b0, W1, b1)."""
    rng = np.random.default_rng(1)
    shapes = [(N_IN, 16), (16,), (16, N_CLASSES), (N_CLASSES,)]
    return [rng.normal(scale=0.5, size=shape) for shape in shapes]


@pytest.fixture(scope="module")
def network(weights):
    """The network of those weights."""
    parameters = np.concatenate([part.ravel() for part in weights]).astype(np.float32)
    return Network(parameters, [N_IN, 16, N_CLASSES], relu)


@pytest.fixture(scope="module")
def art_classifier(weights):
    """The same network by Keras and ART, which share no code with glr's attacks."""
    layers = [keras.layers.Dense(16, activation="relu"), keras.layers.Dense(N_CLASSES)]
    model = keras.Sequential([keras.Input((N_IN,)), *layers])
    model.set_weights(weights)
    return TensorFlowV2Classifier(
        model=model,
        nb_classes=N_CLASSES,
        input_shape=(N_IN,),
        loss_object=keras.losses.CategoricalCrossentropy(from_logits=True),
        clip_values=(0.0, 1.0),
    )


def cross_entropy(logits, y):
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(y)), y], np.exp(log_p) - np.eye(logits.shape[1])[y]


def relu_loss_and_gradient(weights):
    W0, b0, W1, b1 = weights

    def loss_and_gradient(x, y, progress=0.0):
        v = x @ W0 + b0
        loss, d = cross_entropy(np.maximum(v, 0) @ W1 + b1, y)
        return loss, ((d @ W1.T) * (v > 0)) @ W0.T

    return loss_and_gradient


def linear_loss_and_gradient(W):
    def loss_and_gradient(x, y):
        loss, d = cross_entropy(x @ W, y)
        return loss, d @ W.T

    return loss_and_gradient


def no_gradient(x, y, progress):
    return np.zeros_like(x)


def assert_in_ball_and_box(x_adv, x, epsilon):
    assert x_adv.shape == x.shape
    assert x_adv.dtype == np.float32
    assert np.abs(x_adv - x).max() <= epsilon + ROUNDING
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1


def test_importing_attacks_does_not_import_tensorflow():
    code = "import sys, glr.robustness.attacks; sys.exit('tensorflow' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_loss_and_gradient_equal_numpy(batch, network, weights):
    loss, gradient = loss_and_gradient(network)(*batch)
    expected_loss, expected_gradient = relu_loss_and_gradient(weights)(*batch)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(input_gradient(network)(*batch), gradient)


@pytest.mark.parametrize("activation", [sigmoid, tanh, relu])
def test_gradients_of_deep_networks_are_the_numerical_ones(batch, activation):
    """Central differences of the loss along a random direction: 1e-2 of the gradient's norm."""
    x, y = batch
    deep = loss_and_gradient(
        new_network([N_IN, 9, 8, N_CLASSES], activation, np.random.default_rng(6))
    )
    direction = np.random.default_rng(7).normal(size=x.shape)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    step = 1e-2 * direction
    numerical = (deep(x + step, y)[0] - deep(x - step, y)[0]) / 2e-2
    gradient = deep(x, y)[1]
    error = numerical - (gradient * direction).sum(axis=1)
    assert np.median(np.abs(error) / np.linalg.norm(gradient, axis=1)) < 1e-2


@pytest.mark.parametrize("activation", [relu, threshold])
@pytest.mark.parametrize("loss", [glr_cross_entropy, margin])
def test_both_losses_are_those_that_the_glr_estimate_is_given(batch, network, activation, loss):
    """Of thresholds those of the sigmoid in their place, which nears them."""
    x, y = batch
    network = network._replace(activation=activation)
    of_batch = loss_and_gradient(network, loss)
    for progress in (0.0, 0.5):
        slope = between(SLOPES, progress)
        v = x @ network.layers[0].W + network.layers[0].b
        hidden = np.maximum(v, 0) if activation is relu else sigmoid(np.float32(slope) * v)
        z = hidden @ network.layers[1].W + network.layers[1].b
        found, gradient = of_batch(x, y, progress)
        np.testing.assert_allclose(found, loss(z.T, y), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(input_gradient(network, loss)(x, y, progress), gradient)
    np.testing.assert_array_equal(margin(z.T, y) < 0, is_right(z, y))


def test_an_activation_without_a_gradient_is_refused(network):
    with pytest.raises(GLRError, match="sin: no derivative of it is known"):
        loss_and_gradient(network._replace(activation=np.sin))


def test_a_gradient_that_overflows_is_refused(batch, network):
    network = network._replace(parameters=np.float32(1e30) * network.parameters)
    with pytest.raises(GLRError, match="an input gradient overflows"):
        input_gradient(network)(*batch)


def test_fgsm_agrees_with_art(batch, network, art_classifier):
    x, y = batch
    theirs = FastGradientMethod(art_classifier, eps=EPSILON).generate(x, np.eye(N_CLASSES)[y])
    ours = fgsm(batch, input_gradient(network), EPSILON)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=ROUNDING)


def test_pgd_agrees_with_art(batch, network, art_classifier):
    x, y = batch
    theirs = ProjectedGradientDescent(
        art_classifier,
        eps=EPSILON,
        eps_step=0.2 * EPSILON,
        max_iter=10,
        num_random_init=0,
        verbose=False,
    ).generate(x, np.eye(N_CLASSES)[y])
    ours = pgd(batch, input_gradient(network), EPSILON, steps=10)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("epsilon", [0.0, 0.01, 0.1, 0.5, 2.0])
def test_sign_attacks_stay_in_the_ball_and_in_the_box(batch, weights, epsilon):
    x = batch[0]
    before = x.copy()
    model = relu_loss_and_gradient(weights)
    rng = np.random.default_rng(2)
    for attack in (fgsm, partial(pgd, steps=40), partial(pgd, steps=3, rng=rng)):
        x_adv = attack(batch, lambda *at: model(*at)[1], epsilon)
        assert_in_ball_and_box(x_adv, x, epsilon)
    np.testing.assert_array_equal(x, before)


def test_pgd_beats_fgsm_and_fgsm_beats_nothing(batch, weights):
    x, y = batch
    model = relu_loss_and_gradient(weights)

    def gradient(*at):
        return model(*at)[1]

    attacked = (x, fgsm(batch, gradient, EPSILON), pgd(batch, gradient, EPSILON, steps=40))
    clean, one_step, many_steps = (model(images, y)[0].mean() for images in attacked)
    assert clean < one_step <= many_steps


def test_a_pgd_step_is_a_fifth_of_the_ball_and_all_of_it_where_there_is_one():
    """Along a gradient that is zero after the first step."""
    x, y = np.full((1, 4), 0.5, np.float32), np.zeros(1, np.int64)
    for steps, size in ((1, 1), (2, 0.5), (5, 0.2), (10, 0.2)):
        x_adv = pgd((x, y), lambda x, y, progress: x * (progress == 0), 0.2, steps)
        np.testing.assert_allclose(x_adv, 0.5 + size * 0.2, rtol=1e-6)


def test_pgd_reaches_the_ball_s_edge(batch):
    x_adv = pgd(batch, lambda x, y, progress: np.ones_like(x), EPSILON, steps=40)
    np.testing.assert_allclose(x_adv, np.minimum(batch[0] + EPSILON, 1), atol=ROUNDING)


def test_random_starts_fill_the_ball(batch):
    x, rng = batch[0], np.random.default_rng(0)
    one, other = (pgd(batch, no_gradient, EPSILON, 1, rng) for _ in range(2))
    assert np.any(one != other)
    assert_in_ball_and_box(one, x, EPSILON)
    away = (one - x)[(x > EPSILON) & (x < 1 - EPSILON)]
    assert stats.kstest(away, stats.uniform(-EPSILON, 2 * EPSILON).cdf).pvalue > 1e-6


def test_an_attack_stays_where_the_network_is_first_wrong():
    """At its last step it would be right again: class 0 is right outside of 0.6 < x < 0.8."""
    parameters = np.float32([1, 1, -0.6, -0.8, -1, 1, 1, -1, 0.5, 0])
    band = Network(parameters, [1, 2, 2], threshold)
    x, y = np.full((1, 1), 0.5, np.float32), np.zeros(1, np.int64)
    assert [*is_right(band.logits(np.float32([[0.5], [0.7], [0.9]])), [0] * 3)] == [1, 0, 1]

    def upwards(x, y, progress):
        return np.ones_like(x)

    plain, staying = (
        pgd((x, y), gradient, 0.45, steps=5) for gradient in (upwards, until_wrong(band, upwards))
    )
    assert is_right(band.logits(plain), y) and not is_right(band.logits(staying), y)


def test_zero_gradients_are_counted_and_change_nothing(batch):
    for attack in (fgsm, partial(pgd, steps=40)):
        np.testing.assert_array_equal(attack(batch, no_gradient, EPSILON), batch[0])
    gradient = np.ones((8, 5))
    assert zero_gradient_share(gradient) == 0
    gradient[:3] = 0
    gradient[3, 1:] = 0  # one entry is left
    assert zero_gradient_share(gradient) == 3 / 8
    assert zero_gradient_share(np.zeros((2, 5))) == 1


def other_labels(y):
    """Labels, all of them wrong."""
    return (y + np.random.default_rng(4).integers(1, N_CLASSES, len(y))) % N_CLASSES


def objective(x_adv, x, targets, model, penalty):
    r = x_adv.astype(np.float64) - x
    return model(x_adv, targets)[0] + penalty * np.sum(r * r, axis=1)


def image_by_image(x, targets, model, penalty):
    """The minimum of every image's objective, each found by a search of its own."""
    found = np.empty(x.shape)
    for i in range(len(x)):

        def function(v, i=i):
            loss, gradient = model(v[None], targets[i : i + 1])
            r = v - x[i]
            return loss[0] + penalty * r @ r, gradient[0] + 2 * penalty * r

        found[i] = minimize(
            function,
            x[i].astype(np.float64),
            jac=True,
            method="L-BFGS-B",
            bounds=Bounds(0, 1),
        ).x
    return found


@pytest.mark.parametrize("penalty", [0.05, 0.5, 5.0])
def test_lbfgs_in_groups_finds_each_image_s_own_minimum(batch, penalty):
    # A linear model's objective is convex: each image has one minimum, the same for all searches.
    x, y = batch
    targets = other_labels(y)
    model = linear_loss_and_gradient(np.random.default_rng(5).normal(size=(N_IN, N_CLASSES)))
    together = lbfgs((x, targets), model, penalty)
    single = image_by_image(x, targets, model, penalty)
    np.testing.assert_allclose(together, single, atol=0.02)
    np.testing.assert_allclose(
        objective(together, x, targets, model, penalty),
        objective(single, x, targets, model, penalty),
        rtol=0.01,
        atol=1e-3,
    )


@pytest.mark.parametrize("penalty", [0.05, 0.5])
def test_lbfgs_in_groups_is_as_good_as_image_by_image_on_a_relu_network(batch, weights, penalty):
    # Here an image has several minima, and now and then the two searches end in different ones.
    x, y = batch[0][:60], batch[1][:60]
    targets = other_labels(y)
    model = relu_loss_and_gradient(weights)
    together, single = (
        objective(found, x, targets, model, penalty)
        for found in (
            lbfgs((x, targets), model, penalty),
            image_by_image(x, targets, model, penalty),
        )
    )
    assert np.median(together / single) < 1.01
    assert together.mean() < 1.1 * single.mean()


def test_lbfgs_lowers_every_objective_and_stays_in_the_box(batch, network):
    x, y = batch
    before = x.copy()
    model = loss_and_gradient(network)
    targets = other_labels(y)
    for penalty in (0.0, 0.1, 10.0):
        x_adv = lbfgs((x, targets), model, penalty)
        assert_in_ball_and_box(x_adv, x, epsilon=1)
        lowered = objective(x_adv, x, targets, model, penalty)
        assert np.all(lowered < model(x, targets)[0])
    np.testing.assert_array_equal(x, before)


def test_lbfgs_of_a_huge_penalty_returns_the_image(batch, network):
    x, y = batch
    x_adv = lbfgs((x, (y + 1) % N_CLASSES), loss_and_gradient(network), penalty=1e9)
    np.testing.assert_allclose(x_adv, x, rtol=0, atol=ROUNDING)


def test_lbfgs_without_a_gradient_returns_the_image(batch):
    x, y = batch
    x_adv = lbfgs((x, y), lambda x, y: (np.ones(len(x)), np.zeros_like(x)), penalty=1.0)
    np.testing.assert_array_equal(x_adv, x)


def test_lbfgs_returns_an_image_whose_objective_rose_while_the_group_s_sum_fell():
    """The second image's gradient points uphill, too weakly for the sum to notice."""

    def uphill_in_the_second(x, y):
        loss = 10 * np.square(x - 1).sum(axis=1) * (y == 0) + x.sum(axis=1) * (y == 1)
        return loss, np.where(y[:, None] == 0, 20 * (x - 1), -0.1)

    x = np.full((2, 4), 0.5, np.float32)
    found = lbfgs((x, np.array([0, 1])), uphill_in_the_second, penalty=0.0)
    np.testing.assert_allclose(found[0], 1, atol=1e-3)
    np.testing.assert_array_equal(found[1], x[1])


# ---------------------------------------------------------------- along the GLR estimate


def mean_gradient(network, batch, progress, calls):
    gradient = glr_input_gradient(network, np.random.default_rng(1))
    return np.mean([gradient(*batch, progress) for _ in range(calls)], axis=0)


def cosines(a, b):
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("progress", [0.0, 0.9])
def test_the_glr_input_gradient_is_backpropagation_averaged_over_the_noise(
    progress, batch, network, weights
):
    """Of a ReLU network; that output noise of 0.01 is left out changes nothing to be seen."""
    x, y = batch[0][:20], batch[1][:20]
    W0, b0, W1, b1 = weights
    sigma = between(GLR_SIGMAS, progress)
    v = x @ W0 + b0 + sigma * logistic.draw(np.random.default_rng(0), (4000, 20, 16))[0]
    z = np.maximum(v, 0) @ W1 + b1
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    p[:, np.arange(20), y] -= 1
    wanted = ((p @ W1.T) * (v > 0)).mean(axis=0) @ W0.T
    found = mean_gradient(network, (x, y), progress, 300)
    assert cosines(found, wanted).min() > 0.995
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(wanted, axis=1), 0.06)


def test_the_glr_input_gradient_of_bits_is_that_of_their_enumerated_risk():
    rng = np.random.default_rng(0)
    network = new_network([5, 3, 3], threshold, rng)
    x, y = rng.random((8, 5), np.float32), np.arange(8) % 3
    (W0, b0), (W1, b1) = network.layers

    def risks(x):
        p = logistic.cdf((x @ W0 + b0) / 2.0)
        bits = np.array([*np.ndindex(2, 2, 2)])
        weights = np.where(bits[:, None], p, 1 - p).prod(axis=-1)  # (8 settings, N)
        losses = [cross_entropy(np.tile(z, (8, 1)), y)[0] for z in bits @ W1 + b1]
        return (weights * losses).sum(axis=0)

    steps = 1e-3 * np.eye(5)
    wanted = np.transpose([(risks(x + s) - risks(x - s)) / 2e-3 for s in steps])
    found = mean_gradient(network, (x, y), 0.0, 1000)
    assert cosines(found, wanted).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(wanted, axis=1), 0.06)


def test_the_glr_attack_stays_in_ball_and_box_and_leaves_what_is_wrong(batch, weights):
    parameters = np.concatenate([part.ravel() for part in weights]).astype(np.float32)
    network = Network(parameters, [N_IN, 16, N_CLASSES], threshold)
    x, y = batch

    def attacked():
        gradient = glr_input_gradient(network, np.random.default_rng(0))
        return pgd(batch, until_wrong(network, gradient), 0.1, 20)

    x_adv = attacked()
    assert_in_ball_and_box(x_adv, x, 0.1)
    before, after = is_right(network.logits(x), y), is_right(network.logits(x_adv), y)
    np.testing.assert_array_equal(x_adv[~before], x[~before])
    assert after.sum() < before.sum() and not np.any(after & ~before)
    np.testing.assert_array_equal(attacked(), x_adv)


def kept(network, x, y):
    return np.mean(is_right(network.logits(x), y))


def test_a_ratio_s_slope_is_the_numerical_one():
    z, y = np.random.default_rng(0).normal(size=(20, 5)), np.arange(20) % 5
    value, slope = ratio_slope(z, y, 2)
    largest, _, third, fourth, _ = np.sort(z, axis=1).T[::-1]
    label, target = z[np.arange(20), y], z[np.arange(20), (y + 2) % 5]
    np.testing.assert_allclose(value, (target - label) / (largest - (third + fourth) / 2))
    for k, step in enumerate(1e-6 * np.eye(5)):
        numerical = (ratio_slope(z + step, y, 2)[0] - ratio_slope(z - step, y, 2)[0]) / 2e-6
        np.testing.assert_allclose(slope[:, k], numerical, rtol=1e-4, atol=1e-6)


def test_auto_pgd_is_no_weaker_than_art_s_and_ends_at_the_class_that_is_aimed_at(
    batch, network, art_classifier
):
    x, y = batch[0], network.logits(batch[0]).argmax(axis=1)
    attacks = apgd_attacks(network, EPSILON, np.random.default_rng(0))
    assert len(attacks) == N_CLASSES
    found = [attack((x, y)) for attack in attacks]
    for x_adv in found:
        assert_in_ball_and_box(x_adv, x, EPSILON)
    options = {"eps": EPSILON, "eps_step": 2 * EPSILON, "nb_random_init": 1, "verbose": False}
    np.random.seed(0)  # noqa: NPY002  (ART draws its start from it)
    theirs = AutoProjectedGradientDescent(art_classifier, batch_size=N, **options).generate(
        x, np.eye(N_CLASSES)[y]
    )
    assert 0.1 < kept(network, theirs, y) < 0.9
    assert kept(network, found[0], y) <= kept(network, theirs, y) + 0.01
    reached = np.bincount((network.logits(found[1]).argmax(axis=1) - y) % N_CLASSES)
    assert reached[1] > 2 * reached[2:].sum()
    again = apgd_attacks(network, EPSILON, np.random.default_rng(0))[0]((x, y))
    np.testing.assert_array_equal(again, found[0])


@pytest.mark.parametrize("activation", [relu, threshold])
def test_square_is_no_weaker_than_art_s(activation, batch, network):
    """From as many squares; what it finds is the network's own answer."""
    network = network._replace(activation=activation)
    x, y = batch[0], network.logits(batch[0]).argmax(axis=1)
    x_adv = square_attack(network, (x, y), EPSILON, 200, np.random.default_rng(0))
    assert_in_ball_and_box(x_adv, x, EPSILON)
    again = square_attack(network, (x, y), EPSILON, 200, np.random.default_rng(0))
    np.testing.assert_array_equal(again, x_adv)
    classifier = BlackBoxClassifierNeuralNetwork(
        lambda asked: network.logits(np.float32(asked).reshape(len(asked), -1)),
        (6, 6, 1),
        N_CLASSES,
        channels_first=False,
        clip_values=(0.0, 1.0),
    )
    attack = SquareAttack(classifier, eps=EPSILON, max_iter=200, batch_size=N, verbose=False)
    ours, theirs = [], []
    for seed in range(3):
        x_adv = square_attack(network, (x, y), EPSILON, 200, np.random.default_rng(seed))
        ours.append(kept(network, x_adv, y))
        np.random.seed(seed)  # noqa: NPY002  (ART draws from it)
        x_adv = attack.generate(x.reshape(N, 6, 6, 1), y=np.eye(N_CLASSES)[y]).reshape(N, -1)
        theirs.append(kept(network, x_adv, y))
    assert np.mean(ours) <= np.mean(theirs) < 0.95


def test_square_asks_once_for_each_of_its_queries():
    """A network that nothing fools, so that it goes on to the end."""
    asked = []

    def counted(v):
        asked.append(len(v))
        return 0 * v

    network = new_network([25, 5, 3], counted, np.random.default_rng(0))
    network.layers[-1].b[:] = 1, 0, 0
    x, y = np.full((4, 25), 0.5, np.float32), np.zeros(4, np.int64)
    square_attack(network, (x, y), 0.3, 10, np.random.default_rng(0))
    assert asked == [4] * 11


def test_groups_are_attacked_one_by_one_and_none_is_lost():
    x, met = np.arange(300, dtype=np.float32)[:, None], []

    def attack(batch):
        met.append(len(batch[0]))
        return batch[0] + batch[1][:, None]

    np.testing.assert_array_equal(grouped(attack)((x, np.arange(300))), 2 * x)
    assert met == [128, 128, 44]
    assert grouped(attack)((x[:0], np.arange(0))).shape == (0, 1)
