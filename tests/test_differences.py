"""Local differences (4), (5): what one pass gives, by hand; how often the loss is asked for it."""

from functools import partial

import numpy as np
import pytest
from problems import (
    DISTRIBUTION,
    Problem,
    constant_loss,
    estimate_of,
    estimates,
    flat,
    layers_of,
    samples_of,
)

from glr import differences, estimator
from glr.estimator import gradient
from glr.losses import cross_entropy, zero_one
from glr.network import new_network, sigmoid, tanh, threshold
from glr.noise import NoiseLaw, logistic

# ---------------------------------------------------------------- one pass by hand


@pytest.fixture
def drawn(monkeypatch):
    """A logistic law, and what it and random_words draw: (noise, score) or words, by layer."""
    found = []

    def draw(rng, shape):
        found.append([part[:, 0, 0].astype(float) for part in logistic.draw(rng, shape)])
        return tuple(part[:, None, None].astype(np.float32) for part in found[-1])

    def words(rng, shape):
        found.append(rng.integers(0, 2**32, shape, np.uint32))
        return found[-1]

    monkeypatch.setattr(estimator, "random_words", words)
    return NoiseLaw("watched", draw, logistic.cdf, logistic.pdf), found


@pytest.mark.parametrize("perturb", ["logits", "weights"])
@pytest.mark.parametrize("activation", [sigmoid, threshold])
def test_one_pass_of_one_sample_gives_what_whole_forward_passes_give(activation, perturb, drawn):
    """The bias's gradient is δ: every neuron's opposite is put in, and the loss found anew."""
    problem, (law, found) = Problem((3, 4, 3), activation.__name__, perturb=perturb), drawn
    x, y = (part[:1] for part in samples_of(problem))
    estimate = estimate_of(problem, x, y, noise=law, replicates=1)
    (W, b), (W_out, b_out) = layers_of(problem)
    r_out, s_out = found[1]

    def scale(t, x):
        return problem.sigma[t] * (np.sqrt(1 + x @ x) if perturb == "weights" else 1)

    def loss(hidden, r_out=r_out):
        z = hidden @ W_out + b_out + scale(1, hidden) * r_out
        return cross_entropy(z[:, None], y)[0]

    v = (x[0].astype(float) @ W + b) / scale(0, x[0])
    if activation is threshold:
        hidden = (found[0].ravel() / 2**32 < DISTRIBUTION["logistic"].cdf(v)).astype(float)
        opposite, weight = 1 - hidden, (2 * hidden - 1) * DISTRIBUTION["logistic"].pdf(v)
    else:
        r, s = found[0]
        hidden, opposite = (sigmoid(scale(0, x[0]) * (v + sign * r)) for sign in (1, -1))
        weight = s / 2
    turned = [loss(np.where(np.arange(4) == i, opposite, hidden)) for i in range(4)]
    wanted = weight * (loss(hidden) - turned) / scale(0, x[0])
    np.testing.assert_allclose(estimate.layers[0].b, wanted, rtol=2e-3, atol=1e-6)
    turned = [loss(hidden, np.where(np.arange(3) == c, -r_out, r_out)) for c in range(3)]
    wanted = s_out / 2 * (loss(hidden) - turned) / scale(1, hidden)
    np.testing.assert_allclose(estimate.layers[1].b, wanted, rtol=2e-3, atol=1e-6)


def test_one_pass_is_enough_and_has_no_control_variate():
    with_it, without = (
        estimates(Problem((3, 4, 3)), 1, replicates=1, control_variate=on) for on in (True, False)
    )
    assert np.array_equal(with_it, without)
    assert np.all(with_it != 0)


# ---------------------------------------------------------------- loss values asked for


class Counted:
    """A loss that counts the values it has given."""

    def __init__(self, loss):
        self.loss, self.values = loss, 0

    def __call__(self, logits, y):
        found = self.loss(logits, y)
        self.values += found.size
        return found


@pytest.mark.parametrize("perturb", ["logits", "weights"])
@pytest.mark.parametrize("activation", ["sigmoid", "threshold"])
@pytest.mark.parametrize(("local", "others"), [(True, 6 + 3), ("output", 3), (False, 0)])
def test_loss_values_of_a_pass(local, others, activation, perturb):
    """One, and one for each neuron that has a local difference: of the output and last hidden."""
    problem = Problem((3, 5, 6, 3), activation, perturb=perturb, sigma=(0.8, 0.8, 0.6))
    loss = Counted(cross_entropy)
    estimate_of(problem, loss=loss, replicates=7, local_differences=local)
    assert loss.values == (1 + others) * 7 * 3


@pytest.mark.parametrize("local", [True, "output"])
def test_neuron_that_changes_nothing_has_no_gradient(local):
    estimate = estimate_of(Problem((3, 4, 3)), loss=constant_loss, local_differences=local)
    assert np.all(flat(estimate)[:-1] == 0)
    assert estimate.risk == 1


# ---------------------------------------------------------------- the 0-1 loss, where it can turn


def staircase(v):
    """0, 1 or 2."""
    return (v > -0.5).astype(int) + (v > 0.75)


def assert_evaluated_everywhere_gives_the_same(network, **settings):
    """Bit for bit, partial(zero_one) being a loss unknown to glr; returns the estimate."""
    rng = np.random.default_rng(1)
    x = rng.random((60, network.sizes[0]), dtype=np.float32)
    y = rng.integers(0, network.sizes[-1], 60)
    common = {"activation": network.activation, "replicates": 4}
    found, wanted = (
        gradient(
            network.layers, x, y, loss=loss, rng=np.random.default_rng(2), **common, **settings
        )
        for loss in (zero_one, partial(zero_one))
    )
    np.testing.assert_array_equal(flat(found), flat(wanted))
    np.testing.assert_array_equal(found.inputs, wanted.inputs)
    return found


@pytest.mark.parametrize("spread", [0.1, 1, 30, 1000])
@pytest.mark.parametrize("sizes", [(4, 6, 3), (3, 1, 2), (5, 4, 7, 5), (4, 3)])
@pytest.mark.parametrize("perturb", ["logits", "weights"])
def test_zero_one_differences_are_those_evaluated_everywhere(sizes, spread, perturb):
    """The spread is the weights'; the noise grows with it, so that differences are not all zero."""
    for activation in (sigmoid, tanh, threshold, staircase):
        network = new_network(list(sizes), activation, np.random.default_rng(0), scale=spread)
        settings = {"sigma": 0.5 * max(1, spread), "perturb": perturb}
        for local in (True, "output"):
            found = assert_evaluated_everywhere_gives_the_same(
                network, local_differences=local, **settings
            )
            assert np.any(found.layers[-1].b != 0)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("class_", [0, 2])
def test_logits_that_are_no_number_are_evaluated(value, class_):
    """A bit of one hidden neuron makes a logit infinite, or an infinity no number."""
    network = new_network([4, 3, 3], threshold, np.random.default_rng(0))
    network.layers[1].W[1, class_] = value
    for biases in (0, 50):  # hidden bits of either kind, or all of them 1
        network.layers[0].b[:] = biases
        network.layers[0].b[0] = 0
        found = assert_evaluated_everywhere_gives_the_same(network)
        assert np.isnan(value) or np.any(found.layers[1].b != 0)


@pytest.mark.parametrize("class_", [0, 1])
def test_a_neuron_that_makes_a_logit_no_number_makes_the_pass_wrong(class_):
    """A bit, the other way, makes an infinity of either logit, or of two infinities a NaN."""
    z, change = np.full((2, 1, 1), -np.inf, np.float32), np.full((1, 1, 1), np.inf, np.float32)
    z[1 - class_], effect = 0, np.float32([[class_ == 0, class_ == 1]])
    for label, before in enumerate([class_ == 0, class_ == 1]):
        y = np.array([label])
        losses = zero_one(z.transpose(1, 0, 2), y)
        assert losses == before
        output = differences.Output(z, z, losses, zero_one, y)
        with np.errstate(invalid="ignore"):
            found = differences.loss_differences(output, effect, change, None)
        assert found == before - 1  # wrong after it, whatever it was


@pytest.mark.parametrize("activation", [sigmoid, threshold])
def test_zero_one_loss_is_evaluated_where_a_neuron_can_turn_it(activation, monkeypatch):
    """Of leads that are large against the weights: in a tenth of the passes, or fewer."""
    found, indices = [], differences.turning
    monkeypatch.setattr(
        differences, "turning", lambda *given: found.append(indices(*given)) or found[-1]
    )
    network = new_network([4, 20, 5], activation, np.random.default_rng(0))
    network.layers[1].b[:] = np.arange(5)
    x, y = np.random.default_rng(1).random((200, 4), dtype=np.float32), np.arange(200) % 5
    settings = {"activation": activation, "loss": zero_one, "sigma": 0.3}
    gradient(network.layers, x, y, **settings, rng=np.random.default_rng(2))
    passes = 2 * len(y)
    assert 0 < len(found[0]) < 0.1 * passes * (20 + 5)
