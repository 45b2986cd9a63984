"""Equation (6): passes of a neuron and sample are spread, but where (2) is used. Fixed seeds."""

import numpy as np
import pytest
from problems import (
    FAMILY_WISE_ERROR,
    N_SAMPLES,
    Problem,
    assert_equal_means,
    assert_lower_variance,
    estimate_of,
    estimates,
    mean_of,
    samples_of,
)
from scipy import stats

from glr import estimator, noise
from glr.noise import LOGISTIC_SCALE, NoiseLaw, coprimes, logistic, random_words

ERROR = 1e-4  # the probability that one statistical test rejects right words
PASSES = (1, 2, 3, 8, 11, 12)
LOCAL = {"local_differences": True}
SMALL = Problem((3, 4, 3))

each_number_of_passes = pytest.mark.parametrize("R", PASSES)


def test_numbers_coprime_to_the_passes():
    wanted = {1: [1], 2: [1], 3: [1, 2], 8: [1, 3, 5, 7], 12: [1, 5, 7, 11]}
    assert {R: coprimes(R).tolist() for R in wanted} == wanted
    assert len(coprimes(11)) == 10


@each_number_of_passes
def test_words_of_a_pass_are_uniform_and_independent(R):
    """Of every pass by itself: χ² of the high byte, and of pairs of neighbours, both ways."""
    words = random_words(np.random.default_rng(1), (200, R, 500))
    for of_pass in np.moveaxis(words, 1, 0):
        high = of_pass >> 28
        pairs = [16 * high[::2] + high[1::2], 16 * high[:, ::2] + high[:, 1::2]]
        for bytes_ in (of_pass >> 24, *pairs):
            counts = np.bincount(bytes_.ravel(), minlength=256)
            assert stats.chisquare(counts).pvalue > ERROR / (3 * R)


@each_number_of_passes
def test_passes_of_a_neuron_and_sample_are_spread(R):
    """No two nearer than 1/R; each k is drawn, of 200 neurons (but with probability 10⁻⁸)."""
    words = random_words(np.random.default_rng(1), (200, R, 20))
    gaps = words[:, :, None] - words[:, None]  # modulo 2³²
    assert np.all(gaps[:, ~np.eye(R, dtype=bool)] >= 2**32 // R)
    assert R == 1 or len(np.unique(words[:, 1] - words[:, 0])) == len(coprimes(R))


@pytest.mark.parametrize(
    ("R", "law", "largest"),
    [(2, "logistic", 0.95), (3, "laplace", 0.8), (8, "gaussian", 0.6), (11, "logistic", 0.45)],
)
@pytest.mark.parametrize("activation", ["sigmoid", "threshold"])
def test_spread_passes_keep_the_mean_and_have_less_variance(
    activation, R, law, largest, monkeypatch
):
    """(6) against as many independent passes: the mean at FAMILY_WISE_ERROR, 4 standard errors."""
    problem, settings = Problem((3, 4, 3), activation, law=law), LOCAL | {"replicates": R}
    spread = estimates(problem, 1500, 50, seed=4, **settings)
    for module in (noise, estimator):
        monkeypatch.setattr(module, "random_words", noise.independent_words)
    independent = estimates(problem, 1500, 50, seed=5, **settings)
    assert_equal_means(mean_of(spread), mean_of(independent))
    assert_lower_variance(independent, spread, problem.sizes, largest, f"R {R}, {law}")


def correlations(activation, **settings):
    """Of each neuron's outputs in one pass and in the other, for each sample: 4 × N_SAMPLES."""
    drawn, make = [], estimator.noisy_passes
    x, y = (np.repeat(part, 5000, axis=0) for part in samples_of(SMALL))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            estimator, "noisy_passes", lambda *args: drawn.append(make(*args)) or drawn[0]
        )
        estimate_of(SMALL._replace(activation=activation), x, y, replicates=2, **settings)
    outputs = drawn[0].neurons[0].outputs.reshape(4, 2, N_SAMPLES, 5000).transpose(0, 2, 1, 3)
    return [np.corrcoef(of_sample)[0, 1] for of_neuron in outputs for of_sample in of_neuron]


@pytest.mark.parametrize("local", [True, "output", False])
@pytest.mark.parametrize("activation", ["sigmoid", "threshold"])
def test_passes_are_independent_where_the_control_variate_wants_it(activation, local):
    """With local differences they are opposed; without, at FAMILY_WISE_ERROR of all, are not."""
    found = correlations(activation, local_differences=local)
    if local:
        assert np.mean(found) < -0.1
    else:
        assert np.abs(found).max() < independent_bound()


def independent_bound():
    """What 12 correlations of 5,000 independent pairs all stay below, at FAMILY_WISE_ERROR."""
    return stats.norm.isf(FAMILY_WISE_ERROR / 24) / np.sqrt(5000)


@pytest.mark.parametrize(("activation", "spread"), [("sigmoid", False), ("threshold", True)])
def test_a_law_that_draws_otherwise_is_spread_in_threshold_neurons_alone(activation, spread):
    """Its bits are drawn by its cdf."""

    def draw(rng, shape):
        r = rng.logistic(0, LOGISTIC_SCALE, shape)
        return r, np.tanh(r / (2 * LOGISTIC_SCALE)) / LOGISTIC_SCALE

    law = NoiseLaw("own", draw, logistic.cdf, logistic.pdf)
    found = correlations(activation, noise=law, **LOCAL)
    assert (np.mean(found) < -0.1) == spread
    assert (np.abs(found).max() < independent_bound()) != spread
