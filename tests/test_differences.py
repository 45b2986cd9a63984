"""Local differences of the 0-1 loss are what evaluating it everywhere gives, and evaluated less."""

from functools import partial

import numpy as np
import pytest
from glr.differences import Output, evaluated_differences, loss_differences, may_turn
from glr.passes import Batch
from problems import Problem, flat, glr_of, layers_of, samples_of, streams_of

from glr import differences
from glr.estimator import glr_gradient
from glr.losses import zero_one

SHAPES = {  # replicates, draws, classes, samples, hidden neurons
    "one of each": (1, 1, 2, 1, 1),
    "two classes": (3, 2, 2, 7, 5),
    "one draw": (4, 1, 5, 6, 3),
    "three draws": (2, 3, 4, 9, 6),
}


def drawn(shape, spread, bits):
    """Output logits of the given spread, weights, and changes of hidden neurons and of outputs."""
    R, K, n_out, B, n = shape
    rng = np.random.default_rng([R, K, n_out, B, n])
    z = spread * rng.standard_normal((R, K, n_out, B)).astype(np.float32)
    y = rng.integers(0, n_out, B)
    W = rng.standard_normal((n, n_out)).astype(np.float32)
    change = rng.standard_normal((R, 1, n, B)).astype(np.float32)
    output_change = rng.standard_normal(z.shape).astype(np.float32)
    output = Output(z, zero_one(z, y), zero_one, y, None)
    return output, W, np.sign(change) if bits else change, output_change


@pytest.mark.parametrize("bits", [False, True])
@pytest.mark.parametrize("spread", [0, 0.3, 3, 1000])
@pytest.mark.parametrize("name", SHAPES)
def test_zero_one_differences_are_those_evaluated_everywhere(name, spread, bits):
    output, W, change, output_change = drawn(SHAPES[name], spread, bits)
    everywhere = evaluated_differences(output, W, change, None)
    np.testing.assert_array_equal(loss_differences(output, W, change, None), everywhere)
    own = np.eye(output.z.shape[-2], dtype=np.float32)
    everywhere = evaluated_differences(output, own, output_change, None)
    np.testing.assert_array_equal(loss_differences(output, None, output_change, None), everywhere)


def test_the_loss_is_evaluated_in_the_passes_that_a_neuron_may_turn_alone(monkeypatch):
    output, W, change, _ = drawn((6, 4, 5, 200, 3), 3, bits=True)
    everywhere = evaluated_differences(output, W, change, None)
    turned = np.any(
        [
            zero_one(output.z + w[:, None] * c, output.y) != output.losses
            for w, c in rows(W, change)
        ],
        axis=0,
    )
    seen = []

    def watched(few, *others):
        seen.append(few.losses.size)
        return evaluated_differences(few, *others)

    monkeypatch.setattr(differences, "evaluated_differences", watched)
    np.testing.assert_array_equal(loss_differences(output, W, change, None), everywhere)
    assert np.all(may_turn(output, W, change) >= turned)
    assert 0 < turned.sum() <= seen[0] < 0.7 * output.losses.size


def rows(W, change):
    """Each neuron's weights (n_out,) and its change (R, 1, 1, B)."""
    return [(W[i], change[:, :, i : i + 1]) for i in range(len(W))]


def test_logits_that_are_no_number_are_evaluated():
    output, W, change, _ = drawn(SHAPES["three draws"], 1000, bits=False)
    output.z[1, 2, 3, 4] = np.nan
    assert may_turn(output, W, change)[1, 2, 4]


@pytest.mark.parametrize("activation", ["sigmoid", "threshold"])
@pytest.mark.parametrize("perturb", ["logits", "weights"])
def test_gradient_is_that_of_the_same_loss_unknown_to_glr(activation, perturb):
    """Bit for bit: a 0-1 loss of one's own is evaluated everywhere."""
    problem = Problem((4, 6, 3), activation, "zero_one", perturb=perturb)
    x, y = samples_of(problem)
    batch = Batch(np.tile(x, 40), np.tile(y, 40))
    settings = {"replicates": 4, "output_draws": 3, "local_differences": True}
    found, expected = (
        flat(glr_gradient(glr, layers_of(problem), batch, streams_of(problem, 1)))
        for glr in (
            glr_of(problem, **settings),
            glr_of(problem, **settings, loss=partial(zero_one)),
        )
    )
    assert np.abs(expected).max() > 0.01
    np.testing.assert_array_equal(found, expected)
