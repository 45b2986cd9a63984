"""Equation (8), the differences carried back: a bias of the second order in the weights.

No Monte Carlo, but in the last test: `expected_estimate` is the exact mean of `gradient`, from one
pass for every state of the noise. Its reference here is its own (1) without differences, which is
exact: first test.
"""

import numpy as np
import pytest
from exact_means import exact_mean, expected_estimate
from problems import (
    ACTIVATIONS,
    LAWS,
    LOSSES,
    PACKAGE_LAWS,
    Problem,
    assert_equal_means,
    exactly,
    layers_of,
    mean_of,
    parameter_slices,
    relative_difference,
    samples_of,
)

from glr.estimator import Batch, Method
from glr.scripts.constants import constants_of
from glr.study.bias import first_gradients
from glr.study.comparison import method_of

BITS = Problem((3, 3, 3, 2), "threshold", sigma=(0.8, 0.8, 0.6))
SMOOTH = Problem((3, 2, 2), law="gaussian")  # nodes of Gaussian noise are right to 10⁻⁴
DEEP_SMOOTH = Problem((3, 2, 1, 2), "tanh", law="gaussian", sigma=(0.8, 0.8, 0.6))
FORWARD = {"local_differences": False}


def relative_bias(problem, local=True, nodes=12, is_exact=False):
    """Of the first layer's gradient, in norm; exact in float64, where (1) loses digits."""
    slices = parameter_slices(problem.sizes)
    first = slice(0, slices["b0"].stop)
    if is_exact:
        exact = exact_mean(problem).value[first]
    else:
        exact = expected_estimate(problem, nodes, **FORWARD)[first]
    found = expected_estimate(problem, nodes, local_differences=local)[first]
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize("perturb", ["logits", "weights"])
@pytest.mark.parametrize("problem", [BITS, BITS._replace(law="laplace"), SMOOTH])
def test_mean_over_all_states_of_the_noise_is_exact(problem, perturb):
    problem = problem._replace(perturb=perturb)
    found, wanted = expected_estimate(problem, **FORWARD), exact_mean(problem).value
    hidden = slice(0, parameter_slices(problem.sizes)[f"b{len(problem.sizes) - 3}"].stop)
    rounding = 3e-5 if problem.activation == "threshold" else 3e-4
    np.testing.assert_allclose(found[-1], wanted[-1], rtol=1e-6)
    error = np.abs(found - wanted)[hidden].max() / np.abs(wanted[hidden]).max()
    assert error < rounding


@pytest.mark.parametrize("perturb", ["logits", "weights"])
@pytest.mark.parametrize("law", PACKAGE_LAWS)
def test_last_hidden_layer_is_exact_whatever_the_weights(law, perturb):
    problem = BITS._replace(law=law, perturb=perturb, later_weights=3)
    slices = parameter_slices(problem.sizes)
    last_hidden = slice(slices["W1"].start, slices["b1"].stop)
    found = expected_estimate(problem, local_differences=True)
    wanted = expected_estimate(problem, **FORWARD)
    assert relative_difference(found[last_hidden], wanted[last_hidden]) < 1e-5
    assert relative_bias(problem) > 0.05


@pytest.mark.parametrize("local", [True, "output"])
@pytest.mark.parametrize("law", PACKAGE_LAWS)
def test_bits_half_the_weights_have_a_quarter_of_the_bias(law, local):
    whole, half = (
        relative_bias(BITS._replace(law=law, later_weights=factor), local, is_exact=True)
        for factor in (1 / 16, 1 / 32)
    )
    assert 1e-4 < half < whole < 0.02
    assert half / whole == pytest.approx(0.25, abs=0.03)


def test_smooth_neurons_half_the_weights_have_a_quarter_of_the_bias():
    """In the last hidden layer, where "output" has (8): its noise and the output's are all."""
    biases = [
        relative_bias(SMOOTH._replace(later_weights=factor), "output", nodes=6)
        for factor in (1 / 2, 1 / 4, 1 / 8)
    ]
    assert 1e-4 < biases[-1] < biases[0] < 0.01
    np.testing.assert_allclose(np.divide(biases[1:], biases[:-1]), 0.25, atol=0.03)


def test_two_smooth_layers_half_the_weights_have_at_most_a_quarter_of_the_bias():
    biases = [
        relative_bias(DEEP_SMOOTH._replace(later_weights=factor), nodes=5)
        for factor in (1, 1 / 2, 1 / 4)
    ]
    assert biases[0] < 0.25
    assert np.all(np.divide(biases[1:], biases[:-1]) < 0.25)


SIZES = {  # weights after the first layer of deviation 1/√n and 2/√n: the largest relative biases
    "threshold": (Problem((4, 4, 4, 2), "threshold"), (0.04, 0.14)),
    "threshold, 0-1": (Problem((4, 4, 4, 2), "threshold", "zero_one"), (0.05, 0.15)),
    "three threshold layers": (Problem((3, 3, 3, 3, 2), "threshold"), (0.03, 0.15)),
    "sigmoid": (Problem((3, 3, 2, 2)), (0.01, 0.06)),
    "tanh": (Problem((3, 3, 2, 2), "tanh"), (0.13, 0.45)),
}


@pytest.mark.parametrize("name", SIZES)
def test_bias_at_usual_weights(name):
    problem, largest = SIZES[name]
    hidden = problem.sizes[1:-1]
    problem = problem._replace(law="gaussian", sigma=(1.0,) * len(hidden) + (0.5,))
    for deviation, bound in zip((1, 2), largest, strict=True):
        usual = problem._replace(later_weights=deviation / np.sqrt(np.mean(hidden)))
        assert relative_bias(usual, nodes=3) < bound


@pytest.mark.parametrize(
    ("sizes", "activation", "local", "largest"),
    [
        ((4, 4, 4, 2), "threshold", True, 0.14),
        ((4, 4, 4, 2), "threshold", "output", 0.15),
        ((3, 3, 2, 2), "sigmoid", True, 0.14),
        ((3, 3, 2, 2), "sigmoid", "output", 0.35),
    ],
)
def test_bias_where_the_noise_of_the_weights_grows(sizes, activation, local, largest):
    """(8) leaves out that a neuron's output sets the size of the next layer's noise too."""
    problem = Problem(sizes, activation, law="gaussian", perturb="weights", sigma=(0.6, 0.6, 0.3))
    problem = problem._replace(later_weights=1 / np.sqrt(np.mean(sizes[1:-1])))
    assert relative_bias(problem, local, nodes=3) < largest


@pytest.mark.parametrize(("problem", "nodes"), [(BITS, 12), (DEEP_SMOOTH, 5)])
def test_gradients_that_the_study_measures_the_bias_by_have_their_means(problem, nodes):
    """By (8), and without bias: every element by Welch's t-test, at FAMILY_WISE_ERROR together."""
    settings = {"activation": ACTIVATIONS[problem.activation], "loss": LOSSES[problem.loss]}
    settings |= {"noise": LAWS[problem.law], "sigma": problem.sigma, "replicates": 500}
    method = Method(**method_of(vars(constants_of("LRS.py", []))) | settings)
    (x, y), rng = samples_of(problem), np.random.default_rng(3)
    draws = [first_gradients(method, layers_of(problem), Batch(x.T, y), rng) for _ in range(200)]
    weights = parameter_slices(problem.sizes)["W0"]
    for found, local in zip(zip(*draws, strict=True), (True, False), strict=True):
        expected = expected_estimate(problem, nodes, local_differences=local)[weights]
        measured = mean_of(np.reshape(found, (len(draws), -1)))
        assert_equal_means(measured, exactly(expected))
