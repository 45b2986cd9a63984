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

import functools
import tracemalloc
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from glr import estimator
from glr.errors import GLRError
from glr.estimator import GLR, Batch, glr_gradient
from glr.losses import cross_entropy, zero_one
from glr.network import layer_views, n_parameters, relu, sigmoid, tanh, threshold
from glr.noise import NoiseLaw, gaussian, laplace, logistic

FAMILY_WISE_ERROR = 1e-4
N_SAMPLES = 3  # distinct samples in every problem's batch


def _draw_secant(rng, shape):
    """f(r) = ½ sech(πr/2), by inversion; score (π/2)·tanh(πr/2)."""
    r = 2 / np.pi * np.log(np.tan(np.pi / 2 * rng.uniform(2**-40, 1, shape)))
    return r.astype(np.float32), (np.pi / 2 * np.tanh(np.pi / 2 * r)).astype(np.float32)


def staircase(v):
    """0, 1 or 2, integers: a discontinuous activation that the package does not have."""
    return (v > -0.5).astype(int) + (v > 0.75)


def top2_error(logits, y):
    """True where two logits are larger than the label's: a loss the package does not have."""
    own = logits[..., y, np.arange(len(y))]
    return (logits > own[..., None, :]).sum(axis=-2) >= 2


secant = NoiseLaw("secant", _draw_secant)  # a user's law: no cdf, no score_gap

LAWS = {law.name: law for law in (gaussian, laplace, logistic, secant)}
PACKAGE_LAWS = ("gaussian", "laplace", "logistic")
DISTRIBUTION = {  # the same laws at unit standard deviation, from SciPy
    "gaussian": stats.norm(),
    "laplace": stats.laplace(scale=1 / np.sqrt(2)),
    "logistic": stats.logistic(scale=np.sqrt(3) / np.pi),
    "secant": stats.hypsecant(scale=2 / np.pi),
}
FISHER_INFORMATION = {"gaussian": 1.0, "laplace": 2.0, "logistic": np.pi**2 / 9}  # E[s²]
SMOOTH = {"sigmoid": tf.sigmoid, "tanh": tf.tanh, "relu": tf.nn.relu}
CUTS = {"threshold": (0.0,), "staircase": (-0.5, 0.75)}  # where a step function steps by 1
ACTIVATIONS = {
    "sigmoid": sigmoid,
    "tanh": tanh,
    "relu": relu,
    "threshold": threshold,
    "staircase": staircase,
}
LOSSES = {"cross_entropy": cross_entropy, "zero_one": zero_one, "top2_error": top2_error}

PUBLISHED = {"replicates": 2, "output_draws": 1, "control_variate": False}
REDUCED = {"replicates": 3, "output_draws": 2, "control_variate": True}


def constant_loss(logits, y):
    """1, whatever the network does."""
    return np.ones((*logits.shape[:-2], len(y)), np.float32)


class Problem(NamedTuple):
    """A network at fixed random weights, three samples, and the noisy risk that is wanted."""

    sizes: tuple
    activation: str = "sigmoid"
    loss: str = "cross_entropy"
    law: str = "logistic"
    perturb: str = "logits"
    sigma: tuple = (0.8, 0.6)


class Mean(NamedTuple):
    """A mean per parameter (the risk last), its standard error and its degrees of freedom."""

    value: np.ndarray
    error: np.ndarray
    freedom: np.ndarray


# ---------------------------------------------------------------- problems and their estimates


def network_seed(problem):
    """Weights whose gradient is large against its noise in every layer: the tests' power."""
    return 15 if problem.sizes == (3, 3, 3, 2) else 46


def parameters_of(problem):
    """Flat float32 parameters."""
    rng = np.random.default_rng([network_seed(problem), *problem.sizes])
    return rng.normal(0, 1, n_parameters(problem.sizes)).astype(np.float32)


def samples_of(problem):
    """Inputs (n_in × 3) in [0, 1] and one label each."""
    rng = np.random.default_rng([network_seed(problem), 1, *problem.sizes])
    x = rng.uniform(0, 1, (problem.sizes[0], N_SAMPLES)).astype(np.float32)
    return x, np.arange(N_SAMPLES) % problem.sizes[-1]


def layers_of(problem):
    return layer_views(parameters_of(problem), list(problem.sizes))


def glr_of(problem, **settings):
    """The estimator of the problem's gradient."""
    chosen = {
        "activation": ACTIVATIONS[problem.activation],
        "loss": LOSSES[problem.loss],
        "sigma": problem.sigma,
        "noise": LAWS[problem.law],
        "perturb": problem.perturb,
    }
    return GLR(**(chosen | settings))


def streams_of(problem, seed):
    return [np.random.default_rng([seed, t]) for t in range(len(problem.sigma))]


def flat(gradient):
    """All entries of a gradient in the order of the flat parameters, then the risk."""
    parts = [part.ravel() for layer in gradient.layers for part in layer]
    return np.concatenate([*parts, [gradient.risk]])


def estimates(problem, glr, calls=100, copies=1500, seed=1):
    """(calls × (parameters + 1)): independent estimates, each a mean over copies of the batch.

    With many copies and few replicates, R/(R−1) and the like are far from 1 and still resolved.
    """
    x, y = samples_of(problem)
    batch = Batch(np.tile(x, copies), np.tile(y, copies))
    layers, streams = layers_of(problem), streams_of(problem, seed)
    return np.array([flat(glr_gradient(glr, layers, batch, streams)) for _ in range(calls)])


def mean_of(draws):
    """Their mean, with its standard error, for draws (n × parameters + 1)."""
    n, width = draws.shape
    error = draws.std(axis=0, ddof=1) / np.sqrt(n)
    return Mean(draws.mean(axis=0), error, np.full(width, n - 1.0))


def exactly(value):
    return Mean(value, np.zeros_like(value), np.full(value.shape, np.inf))


def own_objectives_mean(problem, reference):
    """What layer-wise noise estimates: each layer's slice of its own objective's gradient.

    Layer t's objective has noise in layer t alone; the risk is the mean over the objectives.
    """
    n_layers = len(problem.sigma)
    one_noisy = [
        problem._replace(sigma=tuple(s * (u == t) for u, s in enumerate(problem.sigma)))
        for t in range(n_layers)
    ]
    value, error, freedom = map(np.array, zip(*map(reference, one_noisy), strict=True))
    shapes = enumerate(pairwise(problem.sizes))
    owner = np.concatenate([np.full((i + 1) * o, t) for t, (i, o) in shapes])
    own = (owner, np.arange(len(owner)))
    return Mean(
        np.append(value[own], value[:, -1].mean()),
        np.append(error[own], error[:, -1].mean()),  # an upper bound, were they dependent
        np.append(freedom[own], freedom[:, -1].min()),
    )


def parameter_slices(sizes):
    """Where each layer's weights and biases lie in the flat parameters, by name."""
    slices, start = {}, 0
    for t, (n_in, n_out) in enumerate(pairwise(sizes)):
        for name, size in ((f"W{t}", n_in * n_out), (f"b{t}", n_out)):
            slices[name] = slice(start, start + size)
            start += size
    return slices


# ---------------------------------------------------------------- statistical assertions


def assert_equal_means(a, b):
    """Welch's t-test of every element, at FAMILY_WISE_ERROR for all of them together."""
    error = np.hypot(a.error, b.error)
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = error**4 / (a.error**4 / a.freedom + b.error**4 / b.freedom)
    freedom = np.where(error > 0, freedom, np.inf)
    critical = stats.t.isf(FAMILY_WISE_ERROR / len(error) / 2, freedom)
    rounding = 2e-6 * np.abs(b.value).max()  # float32 sums, central differences
    excess = np.abs(a.value - b.value) / (critical * error + rounding)
    assert excess.max() < 1, (
        f"element {excess.argmax()} of {len(error)}: {a.value[excess.argmax()]:.6g} against "
        f"{b.value[excess.argmax()]:.6g}, {excess.max():.2f} times what chance allows"
    )


def relative_errors(mean, sizes):
    """Standard error of the mean against the gradient, in norm, for every W and b."""
    return {
        name: np.linalg.norm(mean.error[part]) / np.linalg.norm(mean.value[part])
        for name, part in parameter_slices(sizes).items()
    }


def assert_powerful(mean, sizes, largest=0.06):
    """Errors so small that a bias of some times `largest` of the gradient cannot hide."""
    errors = relative_errors(mean, sizes)
    assert max(errors.values()) < largest, errors


def total_variance_ratio(a, b):
    """(Total variance of draws b) / (that of draws a), and the standard error of its logarithm."""
    ratio, relative_variance = [], 0.0
    for draws in (a, b):
        squares = np.square(draws - draws.mean(axis=0)).sum(axis=1)
        ratio.append(squares.mean())
        relative_variance += squares.var() / squares.mean() ** 2 / len(squares)
    return ratio[1] / ratio[0], np.sqrt(relative_variance)


def assert_lower_variance(a, b, sizes, parts, largest, name):
    """Draws b have less than `largest` times the variance of draws a, by 4 standard errors."""
    slices = parameter_slices(sizes)
    for part in parts:
        ratio, log_error = total_variance_ratio(a[:, slices[part]], b[:, slices[part]])
        print(f"variance ratio, {name}, {part}: {ratio:.3f} ± {ratio * log_error:.3f}")
        assert ratio * np.exp(4 * log_error) < largest


# ---------------------------------------------------------------- the independent computations


def noise_deviation(problem, t, x):
    """Standard deviation of the noise on layer t's logits; x are inputs in rows, (… × n_in)."""
    if problem.perturb == "logits":
        return problem.sigma[t]
    return problem.sigma[t] * np.sqrt(1 + np.square(x).sum(axis=-1, keepdims=True))


@functools.cache
def pathwise_mean(problem, groups=40, draws=1000, seed=2):
    """Gradient of the expected loss of a smooth network, by differentiating along noisy paths.

    Gaussian noise on weights is what it says: every weight and bias of every sample and draw
    gets its own. For other laws it is logit noise of deviation σ√(1 + ‖x‖²).
    """
    rng, distribution = np.random.default_rng(seed), DISTRIBUTION[problem.law]
    x0, y = samples_of(problem)
    x0, y = np.tile(x0.T.astype(np.float64), (draws, 1)), np.tile(y, draws)
    layers = layer_views(parameters_of(problem).astype(np.float64), list(problem.sizes))
    variables = [tf.Variable(part) for layer in layers for part in layer]

    def noisy_logits(t, x):
        W, b, sigma = variables[2 * t], variables[2 * t + 1], problem.sigma[t]
        if problem.perturb == "weights" and problem.law == "gaussian":
            noisy_W = W + sigma * rng.standard_normal((len(y), *W.shape))
            noisy_b = b + sigma * rng.standard_normal((len(y), *b.shape))
            return tf.einsum("si,sio->so", x, noisy_W) + noisy_b
        scale = tf.constant(sigma, tf.float64)
        if problem.perturb == "weights":
            scale *= tf.sqrt(1 + tf.reduce_sum(x * x, axis=1, keepdims=True))
        return x @ W + b + scale * distribution.rvs((len(y), b.shape[0]), random_state=rng)

    def gradient_and_risk():
        with tf.GradientTape() as tape:
            x = tf.constant(x0)
            for t in range(len(layers) - 1):
                x = SMOOTH[problem.activation](noisy_logits(t, x))
            z = noisy_logits(len(layers) - 1, x)
            risk = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, z))
        parts = tape.gradient(risk, variables)
        return np.concatenate([*(part.numpy().ravel() for part in parts), [risk.numpy()]])

    return mean_of(np.array([gradient_and_risk() for _ in range(groups)]))


@functools.cache
def quadrature(law, n):
    """Nodes r and weights w with Σ w g(r) ≈ E[g(r)]: Gauss-Legendre, apart on each side of 0.

    In √r on [0, 10], where the laws have their peak, their tails, and Laplace's kink. With the
    nodes used here gradients are right to 10⁻³ of their largest entry, less than the standard
    errors they are compared with.
    """
    t, w = np.polynomial.legendre.leggauss(n)
    r, w = 10 * ((t + 1) / 2) ** 2, 10 * (t + 1) / 2 * w
    r, w = np.concatenate([-r[::-1], r]), np.concatenate([w[::-1], w])
    w = w * DISTRIBUTION[law].pdf(r)
    assert abs(w.sum() - 1) < 1e-4
    assert abs(w @ r**2 - 1) < 1e-3
    return r, w / w.sum()


def independent_states(values, probabilities):
    """All combinations of n neurons' values and their probabilities, from (n × values) of each."""
    grids = [g.ravel() for g in np.meshgrid(*values, indexing="ij")]
    products = [p.ravel() for p in np.meshgrid(*probabilities, indexing="ij")]
    return np.stack(grids, axis=-1), np.prod(products, axis=0)


def hidden_states(problem, v, scale):
    """The next layer's inputs (states × n) and their probabilities, from logits v (n,).

    Step functions have finitely many; a smooth activation is summed over quadrature nodes.
    """
    if problem.activation in CUTS:
        with np.errstate(divide="ignore"):
            cuts = (np.array(CUTS[problem.activation]) - v[:, None]) / scale
        below = DISTRIBUTION[problem.law].cdf(cuts)
        probabilities = np.diff(below, axis=1, prepend=0, append=1)
        return independent_states([range(probabilities.shape[1])] * len(v), probabilities)
    r, w = quadrature(problem.law, 12)
    values = SMOOTH[problem.activation](v[:, None] + scale * r).numpy()
    return independent_states(values, [w] * len(v))


def expected_cross_entropy(problem, z, scale, y):
    """E over the output noise, for logits z (states × n_out): E[log Σ exp(z + r)] − z_y."""
    r, w = quadrature(problem.law, 12)
    exponentials = np.exp(z[:, :, None] + np.reshape(scale, (-1, 1, 1)) * r)  # (S, n_out, nodes)
    table = exponentials[:, 0]
    for c in range(1, z.shape[1]):
        column = exponentials[:, c]
        table = table[..., None] + column.reshape(len(z), *[1] * c, -1)
    table = np.log(table)
    for _ in range(z.shape[1]):
        table = table @ w
    return table - z[:, y]


def margins(problem, z, scale, y):
    """(states × other classes × nodes): by how much y's noisy logit beats the others' mean ones.

    In units of the noise, at every node of y's own noise; with the nodes' weights.
    """
    r, w = quadrature(problem.law, 40)
    with np.errstate(divide="ignore"):
        means = (z[:, [y]] - np.delete(z, y, axis=1)) / np.reshape(scale, (-1, 1))
    return means[..., None] + r, w


def expected_zero_one(problem, z, scale, y):
    """1 − P(every other logit is smaller), by integrating over y's own noise."""
    margin, w = margins(problem, z, scale, y)
    return 1 - DISTRIBUTION[problem.law].cdf(margin).prod(axis=1) @ w


def expected_top2_error(problem, z, scale, y):
    """P(every other logit is larger), of three classes."""
    assert z.shape[1] == 3
    margin, w = margins(problem, z, scale, y)
    return DISTRIBUTION[problem.law].sf(margin).prod(axis=1) @ w


EXPECTED_LOSSES = {
    "cross_entropy": expected_cross_entropy,
    "zero_one": expected_zero_one,
    "top2_error": expected_top2_error,
}


def exact_risk(problem, parameters):
    """E[L] over all noise, averaged over the samples; no random number is drawn."""
    layers, risks = layer_views(parameters, list(problem.sizes)), []
    inputs, labels = samples_of(problem)
    for x, y in zip(inputs.T.astype(np.float64), labels, strict=True):
        states, probabilities = x[None], np.ones(1)
        for t, (W, b) in enumerate(layers[:-1]):
            following = [
                hidden_states(problem, state @ W + b, noise_deviation(problem, t, state))
                for state in states
            ]
            weights = zip(probabilities, following, strict=True)
            probabilities = np.concatenate([p * given for p, (_, given) in weights])
            states = np.concatenate([values for values, _ in following])
        W, b = layers[-1]
        scale = noise_deviation(problem, len(layers) - 1, states)
        losses = EXPECTED_LOSSES[problem.loss](problem, states @ W + b, scale, y)
        risks.append(probabilities @ losses)
    return np.mean(risks)


@functools.cache
def exact_mean(problem):
    """Gradient of `exact_risk` by central differences, and the risk."""
    parameters, step = parameters_of(problem).astype(np.float64), 1e-3

    def slope(i):
        up, down = parameters.copy(), parameters.copy()
        up[i] += step
        down[i] -= step
        return (exact_risk(problem, up) - exact_risk(problem, down)) / (2 * step)

    slopes = [slope(i) for i in range(len(parameters))]
    return exactly(np.array([*slopes, exact_risk(problem, parameters)]))


# ---------------------------------------------------------------- unbiasedness


@pytest.mark.parametrize("settings", [PUBLISHED, REDUCED], ids=["published", "reduced"])
@pytest.mark.parametrize("perturb", ["logits", "weights"])
@pytest.mark.parametrize("law", PACKAGE_LAWS)
def test_sigmoid_network_has_the_pathwise_gradient(law, perturb, settings):
    problem = Problem((3, 4, 3), law=law, perturb=perturb)
    mean = mean_of(estimates(problem, glr_of(problem, **settings)))
    assert_powerful(mean, problem.sizes)
    assert_powerful(pathwise_mean(problem), problem.sizes)
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
    problem = problem._replace(perturb=perturb)
    mean = mean_of(estimates(problem, glr_of(problem, layerwise=True, **REDUCED)))
    assert_powerful(mean, problem.sizes)
    assert_equal_means(mean, own_objectives_mean(problem, reference))


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
REDUCTIONS = {  # network, settings before, settings added, layers that gain, largest ratio
    "control variate": ("sigmoid", {"control_variate": False}, {"control_variate": True}, 0.7),
    "conditional score": ("threshold", {}, {"conditional_score": True}, 0.7),
    "4 output draws": ("sigmoid", {}, {"output_draws": 4}, 1.0),
    "4 output draws, threshold": (
        "threshold",
        {"conditional_score": True},
        {"output_draws": 4},
        1.0,
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


# ---------------------------------------------------------------- exact properties


def one_gradient(problem, glr, copies=20, seed=7):
    """One flat gradient."""
    return estimates(problem, glr, 1, copies, seed)[0]


def relative_difference(a, b):
    """The largest difference of two gradients against the largest entry."""
    return np.abs(a - b)[:-1].max() / np.abs(b)[:-1].max()


def costly(logits, y):
    """Above 1 everywhere, so that no pass counts as right."""
    return cross_entropy(logits, y) + 3


def costlier(logits, y):
    return 5 * costly(logits, y)


@pytest.mark.parametrize("output_draws", [1, 3])
def test_standardised_loss_has_no_scale_where_nothing_is_right(output_draws, monkeypatch):
    """5·L gives what L gives, if what is added to the standard deviation scales with it.

    That addend alone breaks the invariance: a thousandth of it does so by less than a percent.
    """
    problem, floor = Problem((3, 4, 3)), estimator.SPREAD_FLOOR
    settings = {"output_draws": output_draws, "standardised_loss": True}

    def gradient(loss, addend):
        monkeypatch.setattr(estimator, "SPREAD_FLOOR", addend)
        return one_gradient(problem, glr_of(problem, loss=loss, **settings))

    plain, small = gradient(costly, floor), gradient(costly, floor / 1000)
    assert relative_difference(gradient(costlier, 5 * floor), plain) < 1e-4
    assert relative_difference(gradient(costlier, floor / 1000), small) < 0.01


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
        divisor = np.sqrt(wrong * (1 - wrong)) + (1 - wrong) + estimator.SPREAD_FLOOR
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


BLOCKED_PROBLEMS = {
    "sigmoid": (Problem((7, 9, 5)), {}),
    "gaussian": (Problem((7, 9, 5), law="gaussian"), {}),
    "one draw": (Problem((7, 9, 5)), {"output_draws": 1}),
    "conditional": (Problem((7, 9, 5), "threshold"), {"conditional_score": True}),
    "weights": (Problem((7, 9, 5), law="laplace", perturb="weights"), {}),
    "conditional, weights": (
        Problem((7, 9, 5), "threshold", "zero_one", perturb="weights"),
        {"conditional_score": True},
    ),
    "layerwise": (Problem((7, 9, 11, 5), sigma=(0.8, 0.7, 0.6)), {"layerwise": True}),
    "standardised": (Problem((7, 9, 11, 5), sigma=(0.8, 0.7, 0.6)), {"standardised_loss": True}),
    "no hidden layer": (Problem((7, 5), sigma=(0.6,)), {}),
}
EVERYTHING = 2**40


@pytest.mark.parametrize("kept_floats", [0, EVERYTHING], ids=["replayed", "kept"])
@pytest.mark.parametrize("block_floats", [1, 200, EVERYTHING], ids=["one", "some", "all"])
@pytest.mark.parametrize("name", BLOCKED_PROBLEMS)
def test_gradient_is_the_same_in_blocks(name, block_floats, kept_floats, monkeypatch):
    """One replicate at a time, a few with a remainder, or all at once; odd numbers throughout.

    The second of two gradients from the same streams also tells where the first left them.
    """
    problem, settings = BLOCKED_PROBLEMS[name]
    glr = glr_of(problem, **({"replicates": 11, "output_draws": 3} | settings))

    def gradients(block, kept):
        monkeypatch.setattr(estimator, "BLOCK_FLOATS", block)
        monkeypatch.setattr(estimator, "KEPT_FLOATS", kept)
        return estimates(problem, glr, calls=2, copies=1)

    wanted, found = gradients(EVERYTHING, EVERYTHING), gradients(block_floats, kept_floats)
    for a, b in zip(found, wanted, strict=True):
        assert relative_difference(a, b) < 1e-4
        assert a[-1] == pytest.approx(b[-1], rel=1e-5)


@pytest.mark.parametrize("name", BLOCKED_PROBLEMS)
def test_replayed_passes_give_the_same_gradient_bit_for_bit(name, monkeypatch):
    problem, settings = BLOCKED_PROBLEMS[name]
    glr = glr_of(problem, **({"replicates": 11, "output_draws": 3} | settings))
    monkeypatch.setattr(estimator, "BLOCK_FLOATS", 200)
    kept = estimates(problem, glr, 2, 1)
    monkeypatch.setattr(estimator, "KEPT_FLOATS", 0)
    assert np.array_equal(estimates(problem, glr, 2, 1), kept)


@pytest.mark.parametrize("name", BLOCKED_PROBLEMS)
def test_same_seed_gives_the_same_gradient_bit_for_bit(name):
    problem, settings = BLOCKED_PROBLEMS[name]
    glr = glr_of(problem, **settings)
    first, again, other = (estimates(problem, glr, 3, 5, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.any(np.all(first == other, axis=1))
    assert not np.array_equal(first[0], first[1])


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


def test_memory_does_not_grow_with_the_replicates():
    """R·B·n_in floats would be 4 GB here, and R·B·n_hidden 256 MB."""
    problem = Problem((784, 50, 10))
    rng = np.random.default_rng(1)
    batch = Batch(rng.random((784, 128), dtype=np.float32), rng.integers(0, 10, 128))
    glr, layers, streams = (
        glr_of(problem, replicates=10_000),
        layers_of(problem),
        streams_of(problem, 1),
    )
    tracemalloc.start()
    try:
        gradient = glr_gradient(glr, layers, batch, streams)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.all(np.isfinite(flat(gradient)))
    assert peak < 100e6


def test_a_control_variate_without_another_pass_is_refused():
    problem = Problem((3, 4, 3))
    glr = glr_of(problem, replicates=1, control_variate=True)
    with pytest.raises(GLRError, match="needs 2 replicates"):
        glr_gradient(glr, layers_of(problem), Batch(*samples_of(problem)), streams_of(problem, 1))
