"""Tiny problems for the estimator, its estimates of them, and statistical assertions."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy import stats

from glr.estimator import gradient
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


def constant_loss(logits, y):
    """1, whatever the network does."""
    return np.ones((*logits.shape[:-2], len(y)), np.float32)


secant = NoiseLaw("secant", _draw_secant)  # a user's law, without cdf and pdf

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
ACTIVATIONS = {f.__name__: f for f in (sigmoid, tanh, relu, threshold, staircase)}
LOSSES = {f.__name__: f for f in (cross_entropy, zero_one, top2_error)}


class Problem(NamedTuple):
    """A network at fixed random weights, three samples, and the noisy risk that is wanted."""

    sizes: tuple
    activation: str = "sigmoid"
    loss: str = "cross_entropy"
    law: str = "logistic"
    perturb: str = "logits"
    sigma: tuple = (0.8, 0.6)
    later_weights: float = 1.0  # factor of the weights, not biases, after the first layer


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
    parameters = rng.normal(0, 1, n_parameters(problem.sizes)).astype(np.float32)
    for layer in layer_views(parameters, list(problem.sizes))[1:]:
        layer.W[:] *= np.float32(problem.later_weights)
    return parameters


def samples_of(problem):
    """Inputs (3, n_in) in [0, 1] and one label each."""
    rng = np.random.default_rng([network_seed(problem), 1, *problem.sizes])
    x = rng.uniform(0, 1, (problem.sizes[0], N_SAMPLES)).astype(np.float32)
    return x.T, np.arange(N_SAMPLES) % problem.sizes[-1]


def layers_of(problem):
    return layer_views(parameters_of(problem), list(problem.sizes))


def estimate_of(problem, x=None, y=None, *, rng=1, **settings):
    """What glr.gradient estimates of the problem, or of it with other samples or settings."""
    own_x, own_y = samples_of(problem)
    chosen = {
        "layers": layers_of(problem),
        "x": own_x if x is None else x,
        "y": own_y if y is None else y,
        "activation": ACTIVATIONS[problem.activation],
        "loss": LOSSES[problem.loss],
        "sigma": problem.sigma,
        "noise": LAWS[problem.law],
        "perturb": problem.perturb,
        "rng": np.random.default_rng(rng),
    }
    return gradient(**(chosen | settings))


def flat(estimate):
    """All entries of a gradient in the order of the flat parameters, then the risk."""
    parts = [part.ravel() for layer in estimate.layers for part in layer]
    return np.concatenate([*parts, [estimate.risk]])


def relative_difference(a, b):
    """The largest difference of two gradients against the largest entry."""
    return np.abs(a - b)[:-1].max() / np.abs(b)[:-1].max()


def estimates(problem, calls=100, copies=1500, seed=1, **settings):
    """(calls × (parameters + 1)): independent estimates, each a mean over copies of the batch.

    With many copies and few replicates, R/(R−1) and the like are far from 1 and still resolved.
    """
    x, y = samples_of(problem)
    x, y, rng = np.tile(x, (copies, 1)), np.tile(y, copies), np.random.default_rng(seed)
    return np.array([flat(estimate_of(problem, x, y, rng=rng, **settings)) for _ in range(calls)])


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


def assert_lower_variance(a, b, sizes, largest, name, parts=None):
    """Draws b have less than `largest` times the variance of draws a, by 4 standard errors."""
    slices = parameter_slices(sizes)
    for part in parts or slices:
        ratio, log_error = total_variance_ratio(a[:, slices[part]], b[:, slices[part]])
        print(f"variance ratio, {name}, {part}: {ratio:.3f} ± {ratio * log_error:.3f}")
        assert ratio * np.exp(4 * log_error) < largest
