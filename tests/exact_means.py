"""What the estimator's means must be, computed without it: autodiff, enumeration, integration."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from problems import (
    ACTIVATIONS,
    CUTS,
    DISTRIBUTION,
    LAWS,
    LOSSES,
    N_SAMPLES,
    SMOOTH,
    estimate_of,
    exactly,
    flat,
    layers_of,
    mean_of,
    parameters_of,
    samples_of,
)

from glr import estimator
from glr.network import layer_views, n_parameters
from glr.noise import NoiseLaw


def noise_deviation(problem, t, x):
    """Standard deviation of the noise on layer t's logits; x are inputs in rows, (… × n_in)."""
    if problem.perturb == "logits":
        return problem.sigma[t]
    return problem.sigma[t] * np.sqrt(1 + np.square(x).sum(axis=-1, keepdims=True))


@functools.cache
def pathwise_draws(problem, groups=40, draws=1000, seed=2):
    """(groups × (parameters + 1 + inputs)): gradients of a smooth network along noisy paths.

    Of the mean risk in the parameters, then the risk, then of each sample's own in its inputs.
    Gaussian noise on weights is what it says: every weight and bias of every sample and draw
    gets its own. For other laws it is logit noise of deviation σ√(1 + ‖x‖²).
    """
    rng, distribution = np.random.default_rng(seed), DISTRIBUTION[problem.law]
    x0, y = samples_of(problem)
    x0, y = np.tile(x0.astype(np.float64), (draws, 1)), np.tile(y, draws)
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
        inputs = tf.Variable(x0)
        with tf.GradientTape() as tape:
            x = tf.identity(inputs)
            for t in range(len(layers) - 1):
                x = SMOOTH[problem.activation](noisy_logits(t, x))
            z = noisy_logits(len(layers) - 1, x)
            risk = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, z))
        *parts, of_inputs = tape.gradient(risk, [*variables, inputs])
        of_samples = N_SAMPLES * np.reshape(of_inputs, (draws, -1)).sum(axis=0)
        return np.concatenate([*(part.numpy().ravel() for part in parts), [risk], of_samples])

    return np.array([gradient_and_risk() for _ in range(groups)])


def pathwise_mean(problem):
    """Gradient of the expected loss of a smooth network, and the risk."""
    return mean_of(pathwise_draws(problem)[:, : n_parameters(problem.sizes) + 1])


def pathwise_inputs(problem):
    """Gradient of each sample's expected loss in its inputs, flat."""
    return mean_of(pathwise_draws(problem)[:, n_parameters(problem.sizes) + 1 :])


@functools.cache
def quadrature(law, n):
    """2n nodes r and weights w with Σ w g(r) ≈ E[g(r)]: Gauss-Hermite for the Gaussian law.

    For others Gauss-Legendre, apart on each side of 0, in √r on [0, 10], where the laws have their
    peak, their tails, and Laplace's kink. With 24 nodes gradients are right to 10⁻³ of their
    largest entry, less than the standard errors they are compared with.
    """
    if law == "gaussian":
        r, w = np.polynomial.hermite_e.hermegauss(2 * n)
        return r, w / w.sum()
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


def exact_risks(problem, parameters, inputs):
    """E[L] of each sample over all noise (3,); no random number is drawn."""
    layers, risks = layer_views(parameters, list(problem.sizes)), []
    for x, y in zip(inputs, samples_of(problem)[1], strict=True):
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
    return np.array(risks)


def slopes(function, start, step=1e-3):
    """Central differences of a function in every entry of its argument, the entries first."""
    steps = step * np.eye(start.size).reshape(start.size, *start.shape)
    return np.array([function(start + s) - function(start - s) for s in steps]) / (2 * step)


@functools.cache
def exact_mean(problem):
    """Gradient of the expected loss by central differences, and the risk."""
    inputs = samples_of(problem)[0].astype(np.float64)
    parameters = parameters_of(problem).astype(np.float64)

    def risk(parameters):
        return exact_risks(problem, parameters, inputs).mean()

    return exactly(np.append(slopes(risk, parameters), risk(parameters)))


def exact_inputs(problem):
    """Gradient of each sample's expected loss in its inputs, flat."""
    parameters = parameters_of(problem).astype(np.float64)
    inputs = samples_of(problem)[0].astype(np.float64)
    return exactly(slopes(lambda x: exact_risks(problem, parameters, x).sum(), inputs))


# ---------------------------------------------------------------- the estimator's own mean


def state_probabilities(problem, x, states, nodes):
    """Of each state, given a sample x: states are indices (states × n) of bits, or of nodes."""
    (r, w), last = nodes, len(states) - 1
    probabilities, x = np.ones(len(states[0])), x[None]
    for t, ((W, b), index) in enumerate(zip(layers_of(problem), states, strict=True)):
        v, scale = x @ W.astype(np.float64) + b, noise_deviation(problem, t, x)
        if problem.activation == "threshold" and t < last:
            p = DISTRIBUTION[problem.law].cdf(v / scale)
            chances, x = np.where(index, p, 1 - p), index
        else:
            chances, x = w[index], ACTIVATIONS[problem.activation](v + scale * r[index])
        probabilities = probabilities * chances.prod(axis=1)
    return probabilities


@functools.cache
def expected_estimate(problem, nodes=12, **settings):
    """The mean of what `gradient` gives, flat: from one pass for every state of the noise.

    A state has a bit for every hidden threshold neuron, one of 2·nodes values for all other noise.
    The estimate is linear in the loss, so that each pass's is multiplied by its probability.
    """
    r, w = quadrature(problem.law, nodes)
    log_density, step = DISTRIBUTION[problem.law].logpdf, 1e-6
    score = (log_density(r - step) - log_density(r + step)) / (2 * step)
    hidden = 2 if problem.activation == "threshold" else len(r)
    counts = [hidden] * sum(problem.sizes[1:-1]) + [len(r)] * problem.sizes[-1]
    states = np.indices(counts).reshape(len(counts), -1).T
    states = np.split(states, np.cumsum(problem.sizes[1:-1]), axis=1)

    def loss(logits, y):
        return y[:, 1] * LOSSES[problem.loss](logits, y[:, 0].astype(int))

    def expected(x, label):
        probabilities = state_probabilities(problem, x, states, (r, w))
        n, drawn = len(probabilities), iter(states)

        def words(rng, shape):
            return np.where(next(drawn).T, 0, 2**32 - 1).astype(np.uint32).reshape(shape)

        def draw(rng, shape):
            index = next(drawn).T.reshape(shape)
            return r.astype(np.float32)[index], score.astype(np.float32)[index]

        package_law = LAWS[problem.law]
        chosen = {
            "loss": loss,
            "noise": NoiseLaw("states", draw, package_law.cdf, package_law.pdf),
            "replicates": 1,
            "control_variate": False,
        }
        y = np.stack([np.full(n, label), n * probabilities], axis=1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(estimator, "random_words", words)
            return flat(estimate_of(problem, np.tile(x, (n, 1)), y, **chosen, **settings))

    return np.mean([expected(*sample) for sample in zip(*samples_of(problem), strict=True)], axis=0)
