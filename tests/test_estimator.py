"""The GLR gradient against independent computation: every expectation is computed a second way.

Smooth networks under cross-entropy: TensorFlow differentiates the noisy loss along its paths, the
noise drawn here in float64 (`pathwise_mean`). Threshold and staircase networks, and losses without
a derivative: the expected loss is a sum over hidden states and an integral over the output noise,
differentiated by central differences (`exact_mean`). No expected number is stored.

Every statistical test compares means element by element by a t-test, Bonferroni-corrected so that
the chance that a right estimator fails *one whole test* is at most FAMILY_WISE_ERROR (confidence
99.99 % per test), and from fixed seeds. `assert_powerful` bounds the standard errors by a few
percent of the gradient's norm in every layer, so that a wrong estimator does fail.
"""

import numpy as np
import pytest
from exact_means import exact_mean, pathwise_mean
from glr.passes import Batch
from problems import (
    DISTRIBUTION,
    FAMILY_WISE_ERROR,
    FISHER_INFORMATION,
    N_SAMPLES,
    PACKAGE_LAWS,
    PUBLISHED,
    REDUCED,
    Problem,
    assert_equal_means,
    assert_lower_variance,
    assert_powerful,
    constant_loss,
    estimates,
    glr_of,
    mean_of,
    own_objectives_mean,
    parameter_slices,
    parameters_of,
    relative_difference,
    samples_of,
    streams_of,
)
from scipy import stats

from glr import estimator
from glr.estimator import glr_gradient
from glr.network import layer_views

# ---------------------------------------------------------------- unbiasedness


def standardised_risk(problem, parameters):
    """Mean over samples of −arcsin √q − log(√q + √(1 − q)), each right with chance q.

    Of one layer and two classes with Gaussian noise, q = Φ((v_label − v_other)/(σ√2)).
    """
    x, y = samples_of(problem)
    ((W, b),) = layer_views(parameters, list(problem.sizes))
    v = W.T @ x.astype(np.float64) + b[:, None]
    own, other = v[y, np.arange(N_SAMPLES)], v[1 - y, np.arange(N_SAMPLES)]
    q = stats.norm.cdf((own - other) / (problem.sigma[0] * np.sqrt(2)))
    return np.mean(-np.arcsin(np.sqrt(q)) - np.log(np.sqrt(q) + np.sqrt(1 - q)))


def test_standardised_loss_of_many_passes_has_the_gradient_of_its_own_risk():
    """Of 1,000 passes q is known to a few percent: 2 % is for that; chance has a tenth of it."""
    problem = Problem((3, 2), loss="zero_one", law="gaussian", sigma=(0.8,))
    glr = glr_of(problem, replicates=1000, standardised_loss=True)
    mean = mean_of(estimates(problem, glr, copies=20))
    start = parameters_of(problem).astype(np.float64)
    steps = 1e-5 * np.eye(len(start))
    exact = np.array(
        [
            standardised_risk(problem, start + step) - standardised_risk(problem, start - step)
            for step in steps
        ]
    ) / (2e-5)
    assert_powerful(mean, problem.sizes, largest=0.002)
    assert relative_difference(mean.value, np.append(exact, 0)) < 0.02


@pytest.mark.parametrize("settings", [PUBLISHED, REDUCED], ids=["published", "reduced"])
@pytest.mark.parametrize("perturb", ["logits", "weights"])
@pytest.mark.parametrize("law", PACKAGE_LAWS)
def test_sigmoid_network_has_the_pathwise_gradient(law, perturb, settings):
    problem = Problem((3, 4, 3), law=law, perturb=perturb)
    mean = mean_of(estimates(problem, glr_of(problem, **settings)))
    assert_powerful(mean, problem.sizes)
    assert_powerful(pathwise_mean(problem), problem.sizes)
    assert_equal_means(mean, pathwise_mean(problem))


def test_step_in_halves_has_the_pathwise_gradient(monkeypatch):
    monkeypatch.setattr(estimator, "HALVED_COST", 0)
    problem = Problem((3, 4, 3))
    mean = mean_of(estimates(problem, glr_of(problem, **REDUCED)))
    assert_powerful(mean, problem.sizes)
    assert_equal_means(mean, pathwise_mean(problem))


@pytest.mark.parametrize("perturb", ["logits", "weights"])
@pytest.mark.parametrize("law", PACKAGE_LAWS)
def test_two_hidden_layers_have_the_pathwise_gradient(law, perturb):
    problem = Problem((3, 3, 3, 2), law=law, perturb=perturb, sigma=(0.8, 0.8, 0.6))
    mean = mean_of(estimates(problem, glr_of(problem, **REDUCED)))
    assert_powerful(mean, problem.sizes)
    assert_powerful(pathwise_mean(problem), problem.sizes)
    assert_equal_means(mean, pathwise_mean(problem))


@pytest.mark.parametrize("conditional", [False, True], ids=["plain", "conditional"])
@pytest.mark.parametrize("perturb", ["logits", "weights"])
@pytest.mark.parametrize("law", PACKAGE_LAWS)
def test_threshold_network_has_the_enumerated_gradient(law, perturb, conditional):
    problem = Problem((3, 4, 3), "threshold", law=law, perturb=perturb)
    glr = glr_of(problem, conditional_score=conditional, **REDUCED)
    mean = mean_of(estimates(problem, glr))
    assert_powerful(mean, problem.sizes)
    assert_equal_means(mean, exact_mean(problem))


@pytest.mark.parametrize("perturb", ["logits", "weights"])
@pytest.mark.parametrize("law", PACKAGE_LAWS)
@pytest.mark.parametrize(
    ("activation", "sizes"),
    [("sigmoid", (3, 2, 3)), ("threshold", (3, 4, 3))],
    ids=["sigmoid", "threshold"],
)
def test_zero_one_loss_has_the_integrated_gradient(activation, sizes, law, perturb):
    problem = Problem(sizes, activation, "zero_one", law, perturb)
    glr = glr_of(problem, conditional_score=activation == "threshold", **REDUCED)
    mean = mean_of(estimates(problem, glr))
    assert_powerful(mean, problem.sizes)
    assert_equal_means(mean, exact_mean(problem))


GENERAL_PROBLEMS = {  # what no script uses, each with the computation that can check it
    "no hidden layer": (Problem((3, 3), sigma=(0.6,)), exact_mean),
    "no hidden layer, weights": (Problem((3, 3), sigma=(0.6,), perturb="weights"), exact_mean),
    "three hidden layers": (
        Problem((3, 3, 3, 3, 2), "tanh", sigma=(0.8, 0.8, 0.8, 0.6)),
        pathwise_mean,
    ),
    "two threshold layers": (
        Problem((3, 3, 3, 2), "threshold", "zero_one", sigma=(0.8, 0.8, 0.6)),
        exact_mean,
    ),
    "relu": (Problem((3, 4, 3), "relu"), pathwise_mean),
    "own activation": (Problem((3, 4, 3), "staircase", "zero_one"), exact_mean),
    "own loss": (Problem((3, 4, 3), "threshold", "top2_error"), exact_mean),
    "own law": (Problem((3, 4, 3), law="secant"), pathwise_mean),
    "own law, threshold": (Problem((3, 4, 3), "threshold", law="secant"), exact_mean),
}


@pytest.mark.parametrize("name", GENERAL_PROBLEMS)
def test_any_network_loss_and_law_has_its_gradient(name):
    problem, reference = GENERAL_PROBLEMS[name]
    mean = mean_of(estimates(problem, glr_of(problem, **REDUCED)))
    assert_powerful(mean, problem.sizes)
    assert_equal_means(mean, reference(problem))


LOCAL = {"local_differences": True}
ONE_PASS = LOCAL | {"replicates": 1, "output_draws": 1, "control_variate": False}
REDRAWN = LOCAL | {"redraws": 2}  # of three neurons: one, and two
CONDITIONAL = LOCAL | {"conditional_score": True}
LOCAL_PROBLEMS = {
    "one pass": (Problem((3, 4, 3)), ONE_PASS, pathwise_mean),
    "zero-one": (Problem((3, 2, 3), loss="zero_one"), LOCAL, exact_mean),
    "two hidden layers": (
        Problem((3, 3, 3, 2), sigma=(0.8, 0.8, 0.6)),
        LOCAL,
        pathwise_mean,
    ),
    "two threshold layers": (
        Problem((3, 3, 3, 2), "threshold", "zero_one", sigma=(0.8, 0.8, 0.6)),
        CONDITIONAL,
        exact_mean,
    ),
    "redraws": (Problem((3, 3, 3, 2), sigma=(0.8, 0.8, 0.6)), REDRAWN, pathwise_mean),
    "redraws, one pass": (
        Problem((3, 3, 3, 2), sigma=(0.8, 0.8, 0.6)),
        ONE_PASS | REDRAWN,
        pathwise_mean,
    ),
    "redraws, weights": (
        Problem((3, 3, 3, 2), law="gaussian", perturb="weights", sigma=(0.8, 0.8, 0.6)),
        REDRAWN,
        pathwise_mean,
    ),
    "redraws of three layers": (
        Problem((3, 3, 3, 3, 2), "tanh", sigma=(0.8, 0.8, 0.8, 0.6)),
        REDRAWN,
        pathwise_mean,
    ),
    "redraws, threshold": (
        Problem((3, 3, 3, 2), "threshold", "zero_one", sigma=(0.8, 0.8, 0.6)),
        CONDITIONAL | REDRAWN,
        exact_mean,
    ),
    "redraws, threshold and weights": (
        Problem((3, 3, 3, 2), "threshold", perturb="weights", sigma=(0.8, 0.8, 0.6)),
        CONDITIONAL | REDRAWN,
        exact_mean,
    ),
    "redraws, threshold with its plain score": (
        Problem((3, 3, 3, 2), "threshold", sigma=(0.8, 0.8, 0.6)),
        REDRAWN,
        exact_mean,
    ),
    "no hidden layer": (Problem((3, 3), sigma=(0.6,)), LOCAL, exact_mean),
    "own activation": (Problem((3, 4, 3), "staircase", "zero_one"), LOCAL, exact_mean),
    "own loss": (Problem((3, 4, 3), "threshold", "top2_error"), CONDITIONAL, exact_mean),
    "own law": (Problem((3, 4, 3), law="secant"), LOCAL, pathwise_mean),
    "own law, threshold": (Problem((3, 4, 3), "threshold", law="secant"), LOCAL, exact_mean),
}


def assert_gradient(problem, settings, reference):
    mean = mean_of(estimates(problem, glr_of(problem, **(REDUCED | settings))))
    assert_powerful(mean, problem.sizes)
    assert_equal_means(mean, reference(problem))


@pytest.mark.parametrize("name", LOCAL_PROBLEMS)
def test_local_differences_have_the_gradient(name):
    assert_gradient(*LOCAL_PROBLEMS[name])


@pytest.mark.parametrize("perturb", ["logits", "weights"])
@pytest.mark.parametrize("law", PACKAGE_LAWS)
def test_local_differences_have_the_gradient_for_every_law(law, perturb):
    problem = Problem((3, 4, 3), law=law, perturb=perturb)
    assert_gradient(problem, LOCAL, pathwise_mean)
    problem = problem._replace(activation="threshold")
    assert_gradient(problem, LOCAL, exact_mean)
    assert_gradient(problem, CONDITIONAL, exact_mean)
    assert_gradient(problem._replace(loss="zero_one"), CONDITIONAL, exact_mean)


@pytest.mark.parametrize("perturb", ["logits", "weights"])
@pytest.mark.parametrize(
    ("problem", "reference"),
    [
        (Problem((3, 3, 3, 2), law="gaussian", sigma=(0.8, 0.8, 0.6)), pathwise_mean),
        (Problem((3, 4, 3), "threshold"), exact_mean),
    ],
    ids=["sigmoid", "threshold"],
)
def test_layerwise_gradient_is_each_layers_own(problem, reference, perturb):
    problem, wanted = problem._replace(perturb=perturb), lambda p: own_objectives_mean(p, reference)
    assert_gradient(problem, {"layerwise": True}, wanted)
    assert_gradient(problem, LOCAL | {"layerwise": True}, wanted)
    assert_gradient(problem, REDRAWN | {"layerwise": True}, wanted)


def test_score_has_mean_zero_where_a_neuron_almost_never_fires():
    """A probability of a few 2⁻¹⁶, rounded in the draw but not in the score, would bias it.

    With a loss of 1 and no control variate the biases' gradient is the mean score: zero.
    """
    calls, replicates, n = 100, 10, 5000
    firing = (np.arange(4) + 0.7) / 2**16
    b = DISTRIBUTION["logistic"].ppf(firing)
    parameters = np.concatenate([np.zeros(4), b, np.zeros(10)]).astype(np.float32)
    layers = layer_views(parameters, [1, 4, 2])
    problem = Problem((1, 4, 2), "threshold", sigma=(1.0, 1.0))
    glr = glr_of(
        problem,
        loss=constant_loss,
        replicates=replicates,
        control_variate=False,
        conditional_score=True,
    )
    batch, streams = Batch(np.ones((1, n), np.float32), np.zeros(n, int)), streams_of(problem, 3)
    mean = np.mean([glr_gradient(glr, layers, batch, streams).layers[0].b for _ in range(calls)], 0)
    gap = np.pi / np.sqrt(3)  # of the logistic law's two conditional scores
    error = gap * np.sqrt(firing / (calls * replicates * n))
    critical = stats.norm.isf(FAMILY_WISE_ERROR / len(firing) / 2)
    assert critical * error[0] < 0.5 * gap * 2**-16  # less than that rounding's 0.7 · gap · 2⁻¹⁶
    assert np.all(np.abs(mean) < critical * error)


# ---------------------------------------------------------------- σ and the law's score


@pytest.mark.parametrize("perturb", ["logits", "weights"])
@pytest.mark.parametrize("law", PACKAGE_LAWS)
def test_each_layer_has_its_own_sigma(law, perturb):
    """A loss of 1 without control variate makes a bias's gradient a mean of R·B scores.

    Its variance is E[s²]/(R·B) times the mean of 1/scale², E[s²] being the law's Fisher
    information, so that the estimated variance is a χ². With weight noise the scale is known
    for the first layer, whose input is fixed.
    """
    problem = Problem((3, 4, 4, 3), law=law, perturb=perturb, sigma=(0.5, 2.0, 1.25))
    glr = glr_of(problem, loss=constant_loss, replicates=40, control_variate=False)
    draws = estimates(problem, glr, calls=1500, copies=1)
    n_known = 1 if perturb == "weights" else len(problem.sigma)
    for t in range(n_known):
        precision = problem.sigma[t] ** -2.0
        if perturb == "weights":
            precision *= np.mean(1 / (1 + np.square(samples_of(problem)[0]).sum(axis=0)))
        variance = FISHER_INFORMATION[law] * precision / (40 * N_SAMPLES)
        biases = draws[:, parameter_slices(problem.sizes)[f"b{t}"]]
        tail = FAMILY_WISE_ERROR / n_known / 2
        low, high = stats.chi2.ppf([tail, 1 - tail], biases.size) / biases.size
        assert 0.9 < low < high < 1.1
        assert low < np.mean(biases**2) / variance < high


# ---------------------------------------------------------------- variance reductions


HIDDEN, OUTPUT = ["W0", "b0"], ["W1", "b1"]
REDUCTIONS = {  # network, settings before, settings added, largest ratio of the variances
    "control variate": ("sigmoid", {"control_variate": False}, {"control_variate": True}, 0.7),
    "conditional score": ("threshold", {}, {"conditional_score": True}, 0.7),
    "4 output draws": ("sigmoid", {}, {"output_draws": 4}, 1.0),
    "4 output draws, threshold": (
        "threshold",
        {"conditional_score": True},
        {"output_draws": 4},
        1.0,
    ),
    "local differences": ("sigmoid", {}, {"local_differences": True}, 0.4),
    "local differences, threshold": (
        "threshold",
        {"conditional_score": True},
        {"local_differences": True},
        0.4,
    ),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_variance_reduction_keeps_the_mean(name):
    activation, before, added, largest = REDUCTIONS[name]
    problem = Problem((3, 4, 3), activation)
    plain = estimates(problem, glr_of(problem, **before), 400, 250, seed=4)
    reduced = estimates(problem, glr_of(problem, **(before | added)), 400, 250, seed=5)
    assert_powerful(mean_of(plain), problem.sizes)
    assert_equal_means(mean_of(plain), mean_of(reduced))
    gaining = HIDDEN if "conditional_score" in added else HIDDEN + OUTPUT
    assert_lower_variance(plain, reduced, problem.sizes, gaining, largest, name)


def test_redraws_have_less_variance_than_as_many_passes():
    """A pass and four redraws, or five passes: as many losses, the first layer's gradient."""
    problem = Problem((3, 8, 6, 3), sigma=(0.8, 0.8, 0.6))
    passes = glr_of(problem, replicates=5, **LOCAL)
    redraws = glr_of(problem, replicates=1, redraws=4, **LOCAL)
    a, b = (estimates(problem, glr, 400, 50, seed) for glr, seed in ((passes, 4), (redraws, 5)))
    assert_lower_variance(a, b, problem.sizes, HIDDEN, 0.2, "redraws")


@pytest.mark.parametrize("law", ["gaussian", "logistic"])
def test_law_with_less_fisher_information_has_less_variance(law):
    """Without control variate the variance is mostly E[L²]·E[s²]: 1, 1.10, Laplace's 2."""
    published = {"replicates": 10, "control_variate": False}
    draws = {
        name: estimates(problem, glr_of(problem, **published), 400, 50, seed=6)
        for name in (law, "laplace")
        for problem in [Problem((3, 4, 3), law=name)]
    }
    assert_lower_variance(draws["laplace"], draws[law], (3, 4, 3), HIDDEN + OUTPUT, 0.8, law)
