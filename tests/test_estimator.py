"""The GLR gradient against independent computation: every expectation is computed a second way.

Smooth networks under cross-entropy: TensorFlow differentiates the noisy loss along its paths, the
noise drawn here in float64 (`pathwise_mean`). Threshold and staircase networks, and losses without
a derivative: the expected loss is a sum over hidden states and an integral over the output noise,
differentiated by central differences (`exact_mean`). No expected number is stored.

Every statistical test compares means element by element by a t-test, Bonferroni-corrected so that
the probability that a right estimator fails *one whole test* is at most FAMILY_WISE_ERROR
(confidence 99.99 % per test), and from fixed seeds. `assert_powerful` bounds the standard errors by
a few percent of the gradient's norm in every layer, so that a wrong estimator does fail.
"""

import numpy as np
import pytest
from exact_means import exact_inputs, exact_mean, pathwise_inputs, pathwise_mean, slopes
from problems import (
    FAMILY_WISE_ERROR,
    FISHER_INFORMATION,
    LAWS,
    N_SAMPLES,
    PACKAGE_LAWS,
    Mean,
    Problem,
    assert_equal_means,
    assert_lower_variance,
    assert_powerful,
    constant_loss,
    estimate_of,
    estimates,
    exactly,
    flat,
    mean_of,
    parameter_slices,
    parameters_of,
    relative_difference,
    samples_of,
)
from scipy import stats

from glr.network import layer_views
from glr.noise import NoiseLaw

PUBLISHED = {"replicates": 2, "control_variate": False, "local_differences": False}
FORWARD = {"replicates": 3, "local_differences": False}  # (1) with (2)
LOCAL = {"replicates": 2, "local_differences": True}
DEEP = Problem((3, 3, 3, 2), sigma=(0.8, 0.8, 0.6))
DEEP_BITS = DEEP._replace(activation="threshold")

each_place = pytest.mark.parametrize("perturb", ["logits", "weights"])
each_law = pytest.mark.parametrize("law", PACKAGE_LAWS)


def plain_score(law):
    """The law without cdf and pdf: threshold neurons have the score of their noise, not (3)."""
    return {"noise": NoiseLaw(law, LAWS[law].draw)}


def assert_gradient(problem, reference, **settings):
    mean = mean_of(estimates(problem, **settings))
    assert_powerful(mean, problem.sizes)
    assert_powerful(reference(problem), problem.sizes)
    assert_equal_means(mean, reference(problem))


# ---------------------------------------------------------------- (1), (2), (3): every layer


@pytest.mark.parametrize("settings", [PUBLISHED, FORWARD], ids=["published", "control variate"])
@each_place
@each_law
def test_sigmoid_network_has_the_pathwise_gradient(law, perturb, settings):
    assert_gradient(Problem((3, 4, 3), law=law, perturb=perturb), pathwise_mean, **settings)


@each_place
@each_law
def test_two_hidden_layers_have_the_pathwise_gradient(law, perturb):
    assert_gradient(DEEP._replace(law=law, perturb=perturb), pathwise_mean, **FORWARD)


@pytest.mark.parametrize("loss", ["cross_entropy", "zero_one"])
@each_place
@each_law
def test_threshold_network_has_the_enumerated_gradient(law, perturb, loss):
    problem = Problem((3, 4, 3), "threshold", loss, law, perturb)
    assert_gradient(problem, exact_mean, **FORWARD)


@each_place
@each_law
def test_threshold_network_with_the_plain_score_has_the_enumerated_gradient(law, perturb):
    problem = Problem((3, 4, 3), "threshold", law=law, perturb=perturb)
    assert_gradient(problem, exact_mean, **FORWARD, **plain_score(law))


@each_place
@each_law
def test_zero_one_loss_has_the_integrated_gradient(law, perturb):
    problem = Problem((3, 2, 3), loss="zero_one", law=law, perturb=perturb)
    assert_gradient(problem, exact_mean, calls=200, **FORWARD)


GENERAL_PROBLEMS = {  # what no script uses, each with the computation that can check it
    "no hidden layer": (Problem((3, 3), sigma=(0.6,)), exact_mean),
    "no hidden layer, weights": (Problem((3, 3), sigma=(0.6,), perturb="weights"), exact_mean),
    "three hidden layers": (
        Problem((3, 3, 3, 3, 2), "tanh", sigma=(0.8, 0.8, 0.8, 0.6)),
        pathwise_mean,
    ),
    "two threshold layers": (DEEP_BITS._replace(loss="zero_one"), exact_mean),
    "two threshold layers, weights": (DEEP_BITS._replace(perturb="weights"), exact_mean),
    "relu": (Problem((3, 4, 3), "relu"), pathwise_mean),
    "own activation": (Problem((3, 4, 3), "staircase", "zero_one"), exact_mean),
    "own loss": (Problem((3, 4, 3), "threshold", "top2_error"), exact_mean),
    "own law": (Problem((3, 4, 3), law="secant"), pathwise_mean),
    "own law, threshold": (Problem((3, 4, 3), "threshold", law="secant"), exact_mean),
}


@pytest.mark.parametrize("name", GENERAL_PROBLEMS)
def test_any_network_loss_and_law_has_its_gradient(name):
    assert_gradient(*GENERAL_PROBLEMS[name], **FORWARD)


def squared_error(logits, y):
    """Of real-valued targets y (B, n_out)."""
    return np.square(logits - y.T).sum(axis=-2)


def hamming(logits, y):
    """The share of wrong answers to n_out questions for each sample: y is bools (B, n_out)."""
    return ((logits > 0) != y.T).mean(axis=-2)


OWN_TARGETS = {  # loss, targets, their expected loss of logits with Gaussian noise of deviation σ
    "real": (
        squared_error,
        np.array([[0.3, -1, 2.5], [0, 0.7, -0.2], [1.5, -2, 0.1]]),
        lambda z, sigma, y: (np.square(z - y) + sigma**2).sum(axis=-1),
    ),
    "several labels": (
        hamming,
        np.array([[True, False, False], [False, False, False], [True, True, False]]),
        lambda z, sigma, y: stats.norm.cdf(np.where(y, -z, z) / sigma).mean(axis=-1),
    ),
}


@pytest.mark.parametrize("settings", [FORWARD, LOCAL, LOCAL | {"local_differences": "output"}])
@pytest.mark.parametrize("name", OWN_TARGETS)
def test_own_loss_with_targets_of_any_shape_has_its_gradient(name, settings):
    """Of one layer, so that every choice of local_differences is exact."""
    loss, targets, expected = OWN_TARGETS[name]
    problem = Problem((3, 3), law="gaussian", sigma=(0.6,))
    x, rng = samples_of(problem)[0], np.random.default_rng(1)
    batch = np.tile(x, (1000, 1)), np.tile(targets, (1000, 1))
    draws = [flat(estimate_of(problem, *batch, loss=loss, rng=rng, **settings)) for _ in range(100)]

    def risk(parameters):
        ((W, b),) = layer_views(parameters, list(problem.sizes))
        return expected(x.astype(np.float64) @ W + b, problem.sigma[0], targets).mean()

    start = parameters_of(problem).astype(np.float64)
    assert_powerful(mean_of(np.array(draws)), problem.sizes)
    assert_equal_means(
        mean_of(np.array(draws)), exactly(np.append(slopes(risk, start), risk(start)))
    )


def standardised_risk(parameters, problem):
    """Mean over samples of −arcsin √q − log(√q + √(1 − q)), each right with probability q (7).

    Of one layer and two classes with Gaussian noise, q = Φ((v_label − v_other)/(σ√2)).
    """
    x, y = samples_of(problem)
    ((W, b),) = layer_views(parameters, list(problem.sizes))
    v, each = x.astype(np.float64) @ W + b, np.arange(N_SAMPLES)
    q = stats.norm.cdf((v[each, y] - v[each, 1 - y]) / (problem.sigma[0] * np.sqrt(2)))
    return np.mean(-np.arcsin(np.sqrt(q)) - np.log(np.sqrt(q) + np.sqrt(1 - q)))


@pytest.mark.parametrize("local", [False, True])
def test_standardised_loss_of_many_passes_has_the_gradient_of_its_own_risk(local):
    """Of 1,000 passes q is known to a few percent: 2 % is for that; chance has a tenth of it."""
    problem = Problem((3, 2), loss="zero_one", law="gaussian", sigma=(0.8,))
    settings = {"replicates": 1000, "standardised_loss": True, "local_differences": local}
    mean = mean_of(estimates(problem, copies=20, **settings))
    start = parameters_of(problem).astype(np.float64)
    exact = slopes(lambda parameters: standardised_risk(parameters, problem), start, 1e-5)
    assert_powerful(mean, problem.sizes, largest=0.002)
    assert relative_difference(mean.value, np.append(exact, 0)) < 0.02


# ---------------------------------------------------------------- (4), (5): the last two layers


@each_place
@each_law
def test_local_differences_have_the_gradient_for_every_law(law, perturb):
    problem = Problem((3, 4, 3), law=law, perturb=perturb)
    assert_gradient(problem, pathwise_mean, **LOCAL)
    problem = problem._replace(activation="threshold")
    assert_gradient(problem, exact_mean, **LOCAL, **plain_score(law))
    assert_gradient(problem, exact_mean, **LOCAL)
    assert_gradient(problem._replace(loss="zero_one"), exact_mean, **LOCAL)


LOCAL_PROBLEMS = {
    "one pass": (Problem((3, 4, 3)), pathwise_mean, {"replicates": 1}),
    "zero-one": (Problem((3, 2, 3), loss="zero_one"), exact_mean, {}),
    "no hidden layer": (Problem((3, 3), sigma=(0.6,)), exact_mean, {}),
    "no hidden layer, output": (
        Problem((3, 3), loss="zero_one", sigma=(0.6,)),
        exact_mean,
        {"local_differences": "output"},
    ),
    "relu": (Problem((3, 4, 3), "relu"), pathwise_mean, {}),
    "own activation": (Problem((3, 4, 3), "staircase", "zero_one"), exact_mean, {}),
    "own loss": (Problem((3, 4, 3), "threshold", "top2_error"), exact_mean, {}),
    "own law": (Problem((3, 4, 3), law="secant"), pathwise_mean, {}),
    "own law, threshold": (Problem((3, 4, 3), "threshold", law="secant"), exact_mean, {}),
}


@pytest.mark.parametrize("name", LOCAL_PROBLEMS)
def test_local_differences_have_the_gradient(name):
    problem, reference, settings = LOCAL_PROBLEMS[name]
    assert_gradient(problem, reference, **(LOCAL | settings))


def last_layers(mean, sizes, n):
    """The mean of the last n layers' parameters and the risk."""
    start = parameter_slices(sizes)[f"W{len(sizes) - 1 - n}"].start
    return Mean(*(part[start:] for part in mean))


@pytest.mark.parametrize(("local", "n"), [(True, 2), ("output", 1)])
@each_place
@pytest.mark.parametrize(
    ("problem", "reference"),
    [
        (DEEP, pathwise_mean),
        (DEEP_BITS, exact_mean),
        (DEEP_BITS._replace(loss="zero_one"), exact_mean),
    ],
    ids=["sigmoid", "threshold", "zero-one"],
)
def test_last_layers_of_a_deep_network_have_their_gradient(problem, reference, perturb, local, n):
    """(8) is for the layers before these alone: test_depth.py."""
    problem = problem._replace(perturb=perturb)
    settings = LOCAL | {"local_differences": local}
    mean = mean_of(estimates(problem, **settings))
    assert_powerful(mean, problem.sizes)
    found, wanted = (last_layers(m, problem.sizes, n) for m in (mean, reference(problem)))
    assert_equal_means(found, wanted)


# ---------------------------------------------------------------- the gradient in the inputs


def input_estimates(problem, calls=100, copies=1500, **settings):
    """(calls × inputs): independent estimates of each sample's gradient, means over its copies."""
    x, y = samples_of(problem)
    x, y, rng = np.tile(x, (copies, 1)), np.tile(y, copies), np.random.default_rng(9)
    draws = [estimate_of(problem, x, y, rng=rng, **settings).inputs for _ in range(calls)]
    return np.reshape(draws, (calls, copies, -1)).mean(axis=1)


INPUT_PROBLEMS = {
    "local": (Problem((3, 4, 3)), pathwise_inputs, LOCAL),
    "forward": (Problem((3, 4, 3)), pathwise_inputs, FORWARD),
    "forward, deep": (DEEP, pathwise_inputs, FORWARD),
    "threshold": (Problem((3, 4, 3), "threshold"), exact_inputs, LOCAL),
    "threshold, forward, deep": (DEEP_BITS, exact_inputs, FORWARD),
    "threshold, zero-one": (Problem((3, 4, 3), "threshold", "zero_one"), exact_inputs, LOCAL),
    "no hidden layer": (Problem((3, 3), sigma=(0.6,)), exact_inputs, LOCAL),
}


@pytest.mark.parametrize("name", INPUT_PROBLEMS)
def test_gradient_in_the_inputs(name):
    problem, reference, settings = INPUT_PROBLEMS[name]
    found, wanted = mean_of(input_estimates(problem, **settings)), reference(problem)
    for mean in (found, wanted):
        assert np.linalg.norm(mean.error) < 0.06 * np.linalg.norm(mean.value)
    assert_equal_means(found, wanted)


# ---------------------------------------------------------------- σ and the law's score


@each_place
@each_law
def test_each_layer_has_its_own_sigma(law, perturb):
    """A loss of 1 without control variate makes a bias's gradient a mean of R·B scores.

    Its variance is E[s²]/(R·B) times the mean of 1/scale², E[s²] being the law's Fisher
    information, so that the estimated variance is a χ². With weight noise the scale is known
    for the first layer, whose input is fixed.
    """
    problem = Problem((3, 4, 4, 3), law=law, perturb=perturb, sigma=(0.5, 2.0, 1.25))
    settings = PUBLISHED | {"loss": constant_loss, "replicates": 40}
    draws = estimates(problem, calls=1500, copies=1, **settings)
    n_known = 1 if perturb == "weights" else len(problem.sigma)
    for t in range(n_known):
        precision = problem.sigma[t] ** -2.0
        if perturb == "weights":
            precision *= np.mean(1 / (1 + np.square(samples_of(problem)[0]).sum(axis=1)))
        variance = FISHER_INFORMATION[law] * precision / (40 * N_SAMPLES)
        biases = draws[:, parameter_slices(problem.sizes)[f"b{t}"]]
        tail = FAMILY_WISE_ERROR / n_known / 2
        low, high = stats.chi2.ppf([tail, 1 - tail], biases.size) / biases.size
        assert 0.9 < low < high < 1.1
        assert low < np.mean(biases**2) / variance < high


# ---------------------------------------------------------------- variance reductions


HIDDEN = ["W0", "b0"]
REDUCTIONS = {  # network, settings before, settings added, largest ratio of the variances, of what
    "control variate": ("sigmoid", PUBLISHED, {"control_variate": True}, 0.7, None),
    "conditional score": (
        "threshold",
        FORWARD | plain_score("logistic"),
        {"noise": LAWS["logistic"]},
        0.7,
        HIDDEN,
    ),
    "local differences": ("sigmoid", FORWARD, LOCAL | {"replicates": 3}, 0.4, None),
    "local differences, threshold": ("threshold", FORWARD, LOCAL | {"replicates": 3}, 0.4, None),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_variance_reduction_keeps_the_mean(name):
    activation, before, added, largest, parts = REDUCTIONS[name]
    problem = Problem((3, 4, 3), activation)
    plain = estimates(problem, 400, 250, seed=4, **before)
    reduced = estimates(problem, 400, 250, seed=5, **(before | added))
    assert_powerful(mean_of(plain), problem.sizes)
    assert_equal_means(mean_of(plain), mean_of(reduced))
    assert_lower_variance(plain, reduced, problem.sizes, largest, name, parts)


@pytest.mark.parametrize("activation", ["sigmoid", "threshold"])
def test_differences_carried_back_have_a_tenth_of_the_variance(activation):
    """(8) against (1) with (2), as many passes, in both layers before the last hidden one."""
    problem = Problem((3, 8, 8, 6, 3), activation, sigma=(0.8, 0.8, 0.8, 0.6))
    forward = estimates(problem, 400, 50, seed=4, **FORWARD)
    carried = estimates(problem, 400, 50, seed=5, **(LOCAL | {"replicates": 3}))
    parts = ["W0", "b0", "W1", "b1"]
    assert_lower_variance(forward, carried, problem.sizes, 0.1, "carried back", parts)


@pytest.mark.parametrize("law", ["gaussian", "logistic"])
def test_law_with_less_fisher_information_has_less_variance(law):
    """Without control variate the variance is mostly E[L²]·E[s²]: 1, 1.10, Laplace's 2."""
    settings = PUBLISHED | {"replicates": 10}
    problem = Problem((3, 4, 3))
    draws, wide = (
        estimates(problem._replace(law=name), 400, 50, seed=6, **settings)
        for name in (law, "laplace")
    )
    assert_lower_variance(wide, draws, problem.sizes, 0.8, law)
