"""What must hold of every single gradient estimate: no statistics here."""

from dataclasses import replace

import numpy as np
import pytest
from glr.neurons import Logits, binary_neurons
from glr.passes import Batch, forward_passes
from problems import (
    DISTRIBUTION,
    N_SAMPLES,
    Problem,
    constant_loss,
    estimates,
    flat,
    glr_of,
    layers_of,
    parameters_of,
    relative_difference,
    samples_of,
    streams_of,
)

from glr.errors import GLRError
from glr.estimator import glr_gradient, standard_deviation_and_share_right
from glr.losses import cross_entropy, zero_one
from glr.noise import NoiseLaw, logistic


def one_gradient(problem, glr, copies=20, seed=7):
    """One flat gradient."""
    return estimates(problem, glr, 1, copies, seed)[0]


def test_what_is_never_right_counts_as_if_one_pass_more_had_been():
    """Of 15 passes; by the rule of succession the chance is 1 in 17. And of what always is."""
    losses = np.stack([np.ones(15), np.zeros(15)], axis=1).astype(np.float32)
    q = np.array([1, 16]) / 17
    np.testing.assert_allclose(
        standard_deviation_and_share_right(losses), np.sqrt(q * (1 - q)) + q, rtol=1e-5
    )


@pytest.mark.parametrize("loss", [0.5, 2, -1, np.nan])
def test_standardised_loss_of_anything_but_0_and_1_is_refused(loss):
    losses = np.array([[0, 1], [1, loss]], np.float32)
    with pytest.raises(GLRError, match="is for a loss of 0 or 1"):
        standard_deviation_and_share_right(losses)


def test_standardised_loss_divides_by_deviation_and_share_right():
    """A sample alone has its 0-1 losses' mean, and so their deviation, as the gradient's risk."""
    problem = Problem((3, 4, 3), loss="zero_one")
    x, y = samples_of(problem)
    shares_wrong = set()
    for i in range(N_SAMPLES):
        plain, standardised = (
            flat(
                glr_gradient(
                    glr_of(problem, replicates=500, standardised_loss=on),
                    layers_of(problem),
                    Batch(x[:, [i]], y[[i]]),
                    streams_of(problem, 1),
                )
            )
            for on in (False, True)
        )
        wrong = plain[-1]
        right = (500 * (1 - wrong) + 1) / 502
        divisor = np.sqrt(right * (1 - right)) + right
        assert relative_difference(standardised, plain / divisor) < 1e-4
        shares_wrong.add(wrong)
    assert len(shares_wrong) == N_SAMPLES
    assert 0 < min(shares_wrong) < max(shares_wrong) < 1


def rescaled_cross_entropy(logits, y):
    return 5 * cross_entropy(logits, y) + 3


@pytest.mark.parametrize("output_draws", [1, 3])
def test_gradient_is_linear_in_the_loss(output_draws):
    """And with the control variate a constant in the loss drops out."""
    problem = Problem((3, 4, 3))
    for control_variate in (True, False):
        settings = {"output_draws": output_draws, "control_variate": control_variate}
        plain = one_gradient(problem, glr_of(problem, **settings))
        of_one = one_gradient(problem, glr_of(problem, loss=constant_loss, **settings))
        rescaled = one_gradient(problem, glr_of(problem, loss=rescaled_cross_entropy, **settings))
        assert relative_difference(rescaled, 5 * plain + 3 * of_one) < 1e-4
        assert rescaled[-1] == pytest.approx(5 * plain[-1] + 3, rel=1e-5)
        assert np.all(of_one[:-1] == 0) == control_variate


@pytest.mark.parametrize("standardised", [False, True])
@pytest.mark.parametrize("constant", [0, 1])
def test_sample_with_equal_losses_contributes_nothing(constant, standardised):
    """Feature 2 is the second sample's alone, whose 0-1 loss is made constant."""

    def loss(logits, y):
        return np.where(np.arange(len(y)) == 1, np.float32(constant), zero_one(logits, y))

    problem = Problem((3, 4, 3))
    glr = glr_of(problem, loss=loss, output_draws=2, standardised_loss=standardised)
    batch = Batch(np.array([[0.3, 0.2], [0.9, 0.5], [0, 1]], np.float32), np.array([0, 1]))
    first = glr_gradient(glr, layers_of(problem), batch, streams_of(problem, 8)).layers[0]
    assert np.all(first.W[2] == 0)
    assert np.all(first.W[:2] != 0)


def test_arguments_and_earlier_gradients_are_left_alone():
    problem = Problem((3, 4, 3), "threshold", perturb="weights")
    layers, streams = layers_of(problem), streams_of(problem, 1)
    x, y = samples_of(problem)
    glr = glr_of(problem, conditional_score=True, output_draws=2)
    first = glr_gradient(glr, layers, Batch(x, y), streams)
    before = flat(first)
    glr_gradient(glr, layers, Batch(x, y), streams)
    assert np.array_equal(flat(first), before)
    assert np.array_equal(
        np.concatenate([part.ravel() for layer in layers for part in layer]), parameters_of(problem)
    )
    assert np.array_equal(x, samples_of(problem)[0])
    assert np.array_equal(y, samples_of(problem)[1])
    assert all(part.dtype == np.float32 for layer in first.layers for part in layer)


@pytest.mark.parametrize(
    ("sizes", "local"), [((3, 4, 3), False), ((3, 4, 4, 3), True)], ids=["none local", "one not"]
)
def test_a_control_variate_without_another_pass_is_refused(sizes, local):
    problem = Problem(sizes, sigma=(0.8, 0.7, 0.6)[: len(sizes) - 1])
    glr = glr_of(problem, replicates=1, control_variate=True, local_differences=local)
    with pytest.raises(GLRError, match="needs 2 replicates"):
        glr_gradient(glr, layers_of(problem), Batch(*samples_of(problem)), streams_of(problem, 1))


def test_one_pass_is_enough_where_every_score_has_its_local_difference():
    problem = Problem((3, 4, 3))
    settings = {"replicates": 1, "output_draws": 1, "local_differences": True}
    with_it, without = (
        one_gradient(problem, glr_of(problem, control_variate=on, **settings))
        for on in (True, False)
    )
    assert np.array_equal(with_it, without)
    assert np.all(with_it != 0)


@pytest.mark.parametrize("activation", ["sigmoid", "threshold"])
def test_local_differences_are_those_of_whole_forward_passes(activation):
    """Every neuron's opposite output is put in by hand, and its loss found from there."""
    problem = Problem((3, 4, 3), activation)
    glr = glr_of(problem, conditional_score=activation == "threshold", replicates=2, output_draws=3)
    batch = Batch(*samples_of(problem))

    def drawn(local):
        local_glr = replace(glr, local_differences=local)
        return forward_passes(local_glr, layers_of(problem), batch, streams_of(problem, 1))

    plain, local = drawn(False), drawn(True)
    (_, output), x, y = layers_of(problem), plain.inputs[1], batch.y
    r, _ = glr.noise.draw(streams_of(problem, 1)[1], plain.noise[1].score.shape)
    z = (np.einsum("no,rnb->rob", output.W, x) + output.b[:, None])[:, None] + 0.6 * r
    assert np.allclose(cross_entropy(z, y), plain.losses, rtol=1e-5)
    for i in range(4):
        changed = opposite_of(problem, plain, layers_of(problem)[0])[:, i] - x[:, i]
        moved = z + (output.W[i][:, None] * changed[:, None, :])[:, None]
        difference = (plain.losses - cross_entropy(moved, y)).mean(axis=1)
        wanted = shared_score_of(problem, plain, layers_of(problem)[0])[:, i] * difference
        assert np.allclose(local.noise[0].score[:, i], wanted, rtol=1e-3, atol=1e-6)
    for c in range(3):
        moved = z.copy()
        moved[:, :, c] -= 2 * 0.6 * r[:, :, c]
        wanted = plain.noise[1].score[:, :, c] * 0.5 * (plain.losses - cross_entropy(moved, y))
        assert np.allclose(local.noise[1].score[:, :, c], wanted, rtol=1e-3, atol=1e-6)


def opposite_of(problem, plain, layer):
    """The hidden outputs had their noise gone the other way, (R, n, B)."""
    x = plain.inputs[1]
    if problem.activation == "threshold":
        return 1 - x
    v = (layer.W.T @ plain.inputs[0] + layer.b[:, None]).astype(np.float64)
    noisy = np.log(x / (1 - x.astype(np.float64)))
    return 1 / (1 + np.exp(-(2 * v - noisy)))


def shared_score_of(problem, plain, layer):
    """The hidden scores times the probability of x, given that it is x or the opposite."""
    if problem.activation != "threshold":
        return plain.noise[0].score / 2
    v = layer.W.T @ plain.inputs[0] + layer.b[:, None]
    return (2 * plain.inputs[1] - 1) * DISTRIBUTION["logistic"].pdf(v / 0.8)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"activation": lambda v: v.sum(axis=-2)}, "the activation gave shape"),
        ({"loss": lambda z, y: z}, "the loss gave shape"),
        (
            {"noise": NoiseLaw("half", lambda rng, shape: 2 * (np.zeros(shape[1:]),))},
            "the noise half drew shapes",
        ),
    ],
)
def test_a_function_of_one_s_own_with_wrong_shapes_is_named(wrong, complaint):
    problem = Problem((7, 9, 5), sigma=(0.8, 0.7))
    with pytest.raises(GLRError, match=complaint):
        one_gradient(problem, replace(glr_of(problem), **wrong))


def hinge_that_marks_its_argument(logits, y):
    """The multi-class hinge loss as it is often written: the label's logit is overwritten."""
    own = logits[..., y, np.arange(len(y))].copy()
    logits[..., y, np.arange(len(y))] = -1e9
    return np.maximum(0, 1 - own + logits.max(axis=-2))


def loss_that_changes_the_labels(logits, y):
    y[:] = 0
    return zero_one(logits, y)


@pytest.mark.parametrize("loss", [hinge_that_marks_its_argument, loss_that_changes_the_labels])
@pytest.mark.parametrize("local", [False, True])
def test_a_loss_that_writes_to_its_arguments_is_stopped(loss, local):
    """They are needed after it: training would go wrong, and say nothing."""
    glr = glr_of(Problem((3, 4, 3)), loss=loss, local_differences=local)
    with pytest.raises(ValueError, match="read-only"):
        one_gradient(Problem((3, 4, 3)), glr)


@pytest.mark.parametrize(
    "drawn", [None, 0.5, "noise", np.zeros((2, 4, 60)), (np.zeros(3),) * 2, (0, 0, 0)]
)
def test_a_noise_law_that_draws_something_else_is_refused(drawn):
    law = NoiseLaw("odd", lambda rng, shape: drawn)
    with pytest.raises(GLRError, match=r"the noise odd drew shapes .* must return the noise and"):
        one_gradient(Problem((3, 4, 3)), glr_of(Problem((3, 4, 3)), noise=law))


def test_a_logit_far_beyond_its_noise_leaves_a_threshold_no_choice():
    """Its probability is 1, and 65536 is no 16-bit level."""
    for v, bit in ((100.0, 1), (-100.0, 0)):
        logits = Logits(np.full((3, 2), v, np.float32), np.ones((1, 1), np.float32), (200, 3, 2))
        (neurons,) = binary_neurons(logistic, logits, np.random.default_rng(0))
        assert neurons.x.mean() == pytest.approx(bit, abs=0.01)
