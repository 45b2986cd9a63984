"""The GLR gradient against independent computation: every expectation is computed a second way.

Smooth networks under cross-entropy: TensorFlow differentiates the noisy loss along its paths, the
noise drawn here in float64 (`pathwise_mean`). Threshold and staircase networks, and losses without
a derivative: the expected loss is a finite sum over hidden states and an integral over the output
noise, differentiated by central differences (`exact_mean`). No expected number is stored.

Every statistical test compares means element by element by a t-test, Bonferroni-corrected so that
the chance that a right estimator fails *one whole test* is at most FAMILY_WISE_ERROR (confidence
99.99 % per test), and from fixed seeds. `assert_powerful` bounds the standard errors by a few
percent of the gradient's norm in every layer, so that a wrong estimator does fail.
"""

import functools
import tracemalloc
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from glr import estimator
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
    """0, 1 or 2: a discontinuous activation that the package does not have."""
    return (v > -0.5).astype(np.float32) + (v > 0.75)


def top2_error(logits, y):
    """1 where the label is not among the two largest logits: a loss the package does not have."""
    own = logits[..., y, np.arange(len(y))]
    return ((logits > own[..., None, :]).sum(axis=-2) >= 2).astype(np.float32)


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
    return GLR(
        ACTIVATIONS[problem.activation],
        LOSSES[problem.loss],
        problem.sigma,
        LAWS[problem.law],
        problem.perturb,
        **settings,
    )


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


def parameter_slices(sizes):
    """Where each layer's weights and biases lie in the flat parameters, by name."""
    slices, start = {}, 0
    for t, (n_in, n_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
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
def pathwise_mean(problem, groups=40, draws=1500, seed=2):
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

    In √r on [0, 12], where the laws have their peak, their tails, and Laplace's kink.
    """
    t, w = np.polynomial.legendre.leggauss(n)
    r, w = 12 * ((t + 1) / 2) ** 2, 12 * (t + 1) / 2 * w
    r, w = np.concatenate([-r[::-1], r]), np.concatenate([w[::-1], w])
    w = w * DISTRIBUTION[law].pdf(r)
    assert abs(w.sum() - 1) < 1e-5
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
            below = DISTRIBUTION[problem.law].cdf((np.array(CUTS[problem.activation]) - v[:, None]) / scale)
        probabilities = np.diff(below, axis=1, prepend=0, append=1)
        return independent_states([range(probabilities.shape[1])] * len(v), probabilities)
    r, w = quadrature(problem.law, 16)
    values = SMOOTH[problem.activation](v[:, None] + scale * r).numpy()
    return independent_states(values, [w] * len(v))


def expected_cross_entropy(problem, z, scale, y):
    """E over the output noise, for logits z (states × n_out): E[log Σ exp(z + r)] − z_y."""
    r, w = quadrature(problem.law, 16)
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
    for x, y in zip(samples_of(problem)[0].T.astype(np.float64), samples_of(problem)[1], strict=True):
        states, probabilities = x[None], np.ones(1)
        for t, (W, b) in enumerate(layers[:-1]):
            found = []
            for state, probability in zip(states, probabilities, strict=True):
                following, p = hidden_states(problem, state @ W + b, noise_deviation(problem, t, state))
                found.append((following, probability * p))
            states = np.concatenate([f[0] for f in found])
            probabilities = np.concatenate([f[1] for f in found])
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
    reference = pathwise_mean(problem)
    assert_powerful(mean, problem.sizes)
    assert_powerful(reference, problem.sizes)
    assert_equal_means(mean, reference)


@pytest.mark.parametrize("perturb", ["logits", "weights"])
@pytest.mark.parametrize("law", PACKAGE_LAWS)
def test_two_hidden_layers_have_the_pathwise_gradient(law, perturb):
    problem = Problem((3, 3, 3, 2), law=law, perturb=perturb, sigma=(0.8, 0.8, 0.6))
    mean = mean_of(estimates(problem, glr_of(problem, **REDUCED)))
    reference = pathwise_mean(problem)
    assert_powerful(mean, problem.sizes)
    assert_powerful(reference, problem.sizes)
    assert_equal_means(mean, reference)


@pytest.mark.parametrize("conditional", [False, True], ids=["plain score", "conditional score"])
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
    ("activation", "sizes"), [("sigmoid", (3, 2, 3)), ("threshold", (3, 4, 3))]
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
    mean = mean_of(estimates(problem, glr_of(problem, **REDUCED), copies=2500))
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
    """Layer t's objective has noise in layer t alone; the risk is the mean of the objectives."""
    problem = problem._replace(perturb=perturb)
    n_layers, slices = len(problem.sigma), parameter_slices(problem.sizes)
    objectives = [
        problem._replace(sigma=tuple(s * (u == t) for u, s in enumerate(problem.sigma)))
        for t in range(n_layers)
    ]
    wanted = [reference(objective) for objective in objectives]
    own = [Mean(*(np.copy(part) for part in wanted[0]))]
    for t in range(1, n_layers):
        for part, of_layer_t in zip(own[0], wanted[t], strict=True):
            for name in (f"W{t}", f"b{t}"):
                part[slices[name]] = of_layer_t[slices[name]]
    own[0].value[-1] = np.mean([mean.value[-1] for mean in wanted])
    own[0].error[-1] = np.sum([mean.error[-1] for mean in wanted]) / n_layers  # dependent or not
    mean = mean_of(estimates(problem, glr_of(problem, layerwise=True, **REDUCED)))
    assert_powerful(mean, problem.sizes)
    assert_equal_means(mean, own[0])


def test_score_has_mean_zero_where_a_neuron_almost_never_fires():
    """A probability of a few 2⁻¹⁶, rounded in the draw but not in the score, would bias it.

    With a loss of 1 and no control variate the biases' gradient is the mean score: zero.
    """
    firing = (np.arange(4) + 0.7) / 2**16
    b = DISTRIBUTION["logistic"].ppf(firing).astype(np.float32)
    layers = layer_views(np.concatenate([np.zeros(4), b, np.zeros(10)]).astype(np.float32), [1, 4, 2])
    glr = GLR(
        threshold, constant_loss, (1.0, 1.0), logistic, control_variate=False, conditional_score=True
    )
    batch = Batch(np.ones((1, 5000), np.float32), np.zeros(5000, np.int64))
    streams = [np.random.default_rng([9, t]) for t in range(2)]
    draws = np.array([glr_gradient(glr, layers, batch, streams).layers[0].b for _ in range(100)])
    mean = mean_of(draws)
    gap = np.pi / np.sqrt(3)
    critical = stats.norm.isf(FAMILY_WISE_ERROR / 8)
    standard_error = gap * np.sqrt(firing / (100 * 10 * 5000))
    assert np.all(standard_error < 0.3 * gap * 2**-16)
    assert np.all(np.abs(mean.value) < critical * standard_error)


# ---------------------------------------------------------------- σ and the law's score


def constant_loss(logits, y):
    """1, whatever the network does."""
    return np.ones(logits.shape[:-2] + y.shape, np.float32)


@pytest.mark.parametrize("perturb", ["logits", "weights"])
@pytest.mark.parametrize("law", PACKAGE_LAWS)
def test_each_layer_has_its_own_sigma(law, perturb):
    """A loss of 1 without control variate makes a bias's gradient a mean of R·B scores.

    Its variance is E[s²]/(R·B) times the mean of 1/scale², E[s²] being the law's Fisher
    information; the estimated variance is a χ². Weight noise: for the first layer, whose input
    is fixed.
    """
    problem = Problem((3, 4, 4, 3), law=law, perturb=perturb, sigma=(0.5, 2.0, 1.25))
    glr = glr_of(problem, replicates=40, control_variate=False)._replace_loss(constant_loss)


# ---------------------------------------------------------------- variance reductions
