"""Attacks on a batch of flat images: along a derivative, along noise's estimate of it, by answers.

`x` is (N, n_in) float32 with intensities in [0, 1], `y` is (N,) integer labels, a batch is both,
and ε is in units of intensity: the callers have checked them. Attacks return float32 of x's shape
within [0, 1]. A gradient is a function of x, y and the attack's progress in [0, 1), (N, n_in).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import isqrt, sqrt

import numpy as np
from scipy.optimize import fmin_l_bfgs_b

from glr.errors import GLRError
from glr.estimator import gradient as glr_gradient
from glr.losses import Loss, cross_entropy, label_logits
from glr.network import Array, Network, is_right, logits, relu, sigmoid, tanh, threshold
from glr.scripts.console import progress_bar

Batch = tuple[np.ndarray, np.ndarray]
Attack = Callable[[Batch], np.ndarray]
InputGradient = Callable[..., np.ndarray]
LossAndGradient = Callable[..., tuple[np.ndarray, np.ndarray]]

LBFGS_ITERATIONS = 50  # of L-BFGS-B, at most
LBFGS_MEMORY = 5  # remembered gradient differences
LBFGS_TOLERANCE = 1e-5  # stop when an iteration lowers the group's objective by this share
GLR_SIGMAS = (2.0, 0.1)  # deviation of the hidden neurons' noise, from the first step to the last
GLR_OUTPUT_SIGMA = 0.01  # of the output's: next to none
GLR_REPLICATES = 8  # noisy passes of each image in a step
SLOPES = (1.0, 10.0)  # of the sigmoid in a threshold's place, from the first step to the last
STEP = 0.2  # of ε, unless there are fewer than five steps
APGD_STEPS, CHECKPOINTS = 100, (22, 41, 57, 70, 80, 87, 93, 99)  # the source's
MOMENTUM = 0.25  # of auto-PGD's last step, in the next
RISES = 0.75  # share of steps between two checkpoints that must raise auto-PGD's loss
SQUARES = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # progress at which they are halved
SQUARE = 0.8  # share of the image that the first one covers
GROUP = 128  # images in a call, for memory's and the cache's sake
TINY = 1e-12  # keeps a ratio of logits finite


def pgd(
    batch: Batch,
    gradient: InputGradient,
    epsilon: float,
    steps: int,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Projected gradient descent: sign steps, each followed by a return to the L∞ ball around x.

    rng : of a start that is uniform in the ball; without it the start is x itself

    Sources: Madry et al., ICLR 2018 (arXiv 1706.06083); of `fgsm`, which is one step, Goodfellow,
    Shlens and Szegedy, ICLR 2015 (arXiv 1412.6572).
    """
    x, y = batch
    step = np.float32(epsilon * max(STEP, 1 / steps))
    low, high = ball(x, epsilon)
    x_adv = x if rng is None else low + (high - low) * rng.random(x.shape, np.float32)
    for n in range(steps):
        sign = np.sign(gradient(x_adv, y, n / steps)).astype(np.float32, copy=False)
        x_adv = np.clip(x_adv + step * sign, low, high)
    return x_adv


fgsm = partial(pgd, steps=1)  # x + ε·sign of the gradient


def ball(x: np.ndarray, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest intensities of the ε ball around x, cut with [0, 1]."""
    return np.maximum(x - np.float32(epsilon), 0), np.minimum(x + np.float32(epsilon), 1)


def grouped(attack: Attack, shown: str = "") -> Attack:
    """The attack on GROUP images at a time; with a bar of progress that is called as shown."""

    def of_batch(batch):
        x, y = batch
        groups = groups_of(len(x))
        groups = progress_bar(groups, shown) if shown else groups
        return np.concatenate([x[:0], *(attack((x[g], y[g])) for g in groups)])

    return of_batch


def groups_of(n: int) -> list[slice]:
    """The rows of n samples in groups of GROUP."""
    return [slice(start, start + GROUP) for start in range(0, n, GROUP)]


def until_wrong(network: Network, gradient: InputGradient) -> InputGradient:
    """The gradient, and zero once the network is wrong: a sign attack then stays where it is."""

    def of_right(x, y, progress):
        rows, slope = is_right(network.logits(x), y), np.zeros_like(x)
        slope[rows] = gradient(x[rows], y[rows], progress)
        return slope

    return of_right


def glr_input_gradient(
    network: Network,
    rng: np.random.Generator,
    loss: Loss = cross_entropy,
    noise: Mapping[str, object] | None = None,
) -> InputGradient:
    """∂E[loss]/∂x = W⁰·δ⁰, which noise and losses alone tell.

    noise : options of `glr.gradient`; without it, logistic noise that falls with progress, so that
        the gradient nears that of the network itself
    """
    options = {"activation": network.activation, "loss": loss, "replicates": GLR_REPLICATES}
    hidden = len(network.layers) - 1

    def estimate(x, y, progress):
        if not len(x):
            return x
        own = noise or {"sigma": [*[between(GLR_SIGMAS, progress)] * hidden, GLR_OUTPUT_SIGMA]}
        return glr_gradient(network.layers, x, y, rng=rng, **own, **options).inputs

    return estimate


def between(ends: tuple[float, float], progress: float) -> float:
    """From the first end at progress 0 to the last at 1, geometrically."""
    first, last = ends
    return first * (last / first) ** progress


def margin(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The largest other logit less the label's, of (…, classes, B): positive where it is wrong."""
    others = logits.copy()
    others[..., y, np.arange(len(y))] = -np.inf
    return others.max(axis=-2) - label_logits(logits, y)


def cross_entropy_slope(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy, (N,), and its slopes, (N, classes)."""
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return cross_entropy(z.T, y), p


def margin_slope(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`margin`, (N,), and its slopes, (N, classes)."""
    rows, others = np.arange(len(y)), z.copy()
    others[rows, y] = -np.inf
    slope = np.zeros_like(z)
    slope[rows, others.argmax(axis=1)] = 1
    slope[rows, y] -= 1
    return margin(z.T, y), slope


def ratio_slope(z: np.ndarray, y: np.ndarray, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """AutoAttack's ratio of logit differences towards class y + offset, (N,), and its slopes."""
    rows, target = np.arange(len(y)), (y + offset) % z.shape[1]
    order = np.argsort(-z, axis=1)
    third, fourth = (order[:, min(k, z.shape[1] - 1)] for k in (2, 3))
    scale = z[rows, order[:, 0]] - (z[rows, third] + z[rows, fourth]) / 2 + TINY
    value = (z[rows, target] - z[rows, y]) / scale
    slope = np.zeros_like(z)
    for k, share in ((target, 1), (y, -1)):
        slope[rows, k] += share
    for k, share in ((order[:, 0], -1), (third, 0.5), (fourth, 0.5)):
        slope[rows, k] += share * value
    return value, slope / scale[:, None]


VALUE_AND_SLOPE = {cross_entropy: cross_entropy_slope, margin: margin_slope}
# Derivatives of activations, from their outputs; a threshold has a sigmoid in its place.
DERIVATIVES = {
    sigmoid: lambda a: a * (1 - a),
    threshold: lambda a: a * (1 - a),
    tanh: lambda a: 1 - a * a,
    relu: lambda a: a > 0,
}


def apgd_attacks(network: Network, epsilon: float, rng: np.random.Generator) -> list[Attack]:
    """AutoAttack's attacks along the gradient: auto-PGD, from one random start.

    One of cross-entropy, and towards each other class one of the logits' difference ratio.
    """
    offsets = range(1, network.sizes[-1])
    losses = [cross_entropy_slope, *(partial(ratio_slope, offset=k) for k in offsets)]
    models = [loss_and_gradient(network, loss) for loss in losses]
    return [partial(apgd, model=model, epsilon=epsilon, rng=rng) for model in models]


def apgd(
    batch: Batch, model: LossAndGradient, epsilon: float, rng: np.random.Generator
) -> np.ndarray:
    """Auto-PGD: sign steps with momentum, halved for an image where they no longer help it.

    Then it goes on from the best point so far, which is what is returned.

    Source: Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of
    Diverse Parameter-free Attacks", ICML 2020 (arXiv 2003.01690), algorithm 1.
    """
    x, y = batch
    low, high = ball(x, epsilon)
    now = before = low + (high - low) * rng.random(x.shape, np.float32)
    loss, slope = model(now, y)
    best, best_slope, highest, last_highest = now.copy(), slope.copy(), loss, loss
    size, is_halved = np.full((len(x), 1), 2 * epsilon, np.float32), np.zeros(len(x), bool)
    rises, since = 0, 0
    for n in range(1, APGD_STEPS + 1):
        step = np.clip(now + size * np.sign(slope), low, high) - now
        drift = MOMENTUM * (now - before) if n > 1 else step * MOMENTUM
        before, now = now, np.clip(now + (1 - MOMENTUM) * step + drift, low, high)
        last, (loss, slope) = loss, model(now, y)
        rises = rises + (loss > last)
        is_better = loss > highest
        best[is_better], best_slope[is_better] = now[is_better], slope[is_better]
        highest = np.maximum(loss, highest)
        if n in CHECKPOINTS:
            is_stuck = (rises < RISES * (n - since)) | (~is_halved & (highest == last_highest))
            size[is_stuck] /= 2
            now[is_stuck], slope[is_stuck] = best[is_stuck], best_slope[is_stuck]
            rises, since, is_halved, last_highest = 0, n, is_stuck, highest
    return best


def square_attack(
    network: Network, batch: Batch, epsilon: float, queries: int, rng: np.random.Generator
) -> np.ndarray:
    """Squares of ±ε, kept where the margin grows: what asks for answers alone.

    queries : squares that are tried on each sample, at most; they lie alike in all, and each has a
        sign of its own

    Source: Andriushchenko et al., "Square Attack", ECCV 2020 (arXiv 1912.00049).
    """
    x, y = batch
    side, (low, high) = isqrt(x.shape[1]), ball(x, epsilon)
    first, rest = split_after_first(network)
    signs = rng.choice(np.float32([-1, 1]), (len(x), 1, side))
    x_adv = np.where(np.broadcast_to(signs, (len(x), side, side)).reshape(x.shape) > 0, high, low)
    v = x_adv @ first
    so_far = margin(rest(v).T, y)
    for n in range(queries):
        rows = np.flatnonzero(so_far <= 0)
        if not rows.size:
            break
        pixels = window(side, n / queries, rng)
        sign = rng.choice(np.float32([-1, 1]), (rows.size, 1))
        at = np.ix_(rows, pixels)
        tried = np.where(sign > 0, high[at], low[at])
        v_tried = v[rows] + (tried - x_adv[at]) @ first[pixels]
        found = margin(rest(v_tried).T, y[rows])
        is_better = found > so_far[rows]
        kept = rows[is_better]
        x_adv[np.ix_(kept, pixels)] = tried[is_better]
        v[kept], so_far[kept] = v_tried[is_better], found[is_better]
    return x_adv


def split_after_first(network: Network) -> tuple[Array, Callable[[Array], Array]]:
    """A matrix that multiplies the inputs, and what makes logits of that.

    So a change of few pixels takes few of its rows. Of no plain network it is the identity.
    """
    if not isinstance(network, Network):
        return np.eye(network.sizes[0], dtype=np.float32), network.logits
    (W, b), *others = network.layers
    if not others:
        return W, lambda v: v + b
    return W, lambda v: logits(others, network.activation, np.asarray(network.activation(v + b)))


def window(side: int, progress: float, rng: np.random.Generator) -> np.ndarray:
    """The pixels of a square somewhere in the image, whose size falls with progress."""
    share = SQUARE / 2 ** sum(progress > at for at in SQUARES)
    n = max(round(sqrt(share) * side), 1)
    top, left = rng.integers(0, side - n + 1, 2)
    return (np.arange(top, top + n)[:, None] * side + np.arange(left, left + n)).ravel()


def zero_gradient_share(gradient: np.ndarray) -> float:
    """The share of samples whose input gradient (N, n_in) is exactly zero in every entry.

    An attack leaves such a sample as it is: a large share says that the attack failed, not that the
    defence held (Athalye, Carlini and Wagner, ICML 2018, arXiv 1802.00420).
    """
    return float(np.mean(~gradient.any(axis=1)))


def input_gradient(network: Network, loss: Loss = cross_entropy) -> InputGradient:
    """The gradient alone of `loss_and_gradient`."""
    both = loss_and_gradient(network, loss)
    return lambda *at: both(*at)[1]


def loss_and_gradient(network: Network, loss: Callable = cross_entropy) -> LossAndGradient:
    """Each sample's loss and its gradient in x, by backpropagation, of the network as it is now.

    Of threshold neurons, whose gradient is zero, a sigmoid σ(slope·v) takes the place, forward and
    back; the slope grows with progress.

    loss : cross_entropy or margin; or from logits (N, classes) and y to losses and their slopes

    Raises GLRError for an activation of no known derivative. What it returns does for a gradient
    that is not finite.
    """
    if network.activation not in DERIVATIVES:
        given = f"ACTIVATION = {network.activation.__name__}"
        raise GLRError(f"{given}: no derivative of it is known; use --attack glr or square")
    derivative, of_logits = DERIVATIVES[network.activation], VALUE_AND_SLOPE.get(loss, loss)
    is_threshold = network.activation is threshold
    activation = sigmoid if is_threshold else network.activation

    def of_batch(x, y, progress=0.0):
        slope = np.float32(between(SLOPES, progress) if is_threshold else 1)
        outputs = [x.astype(np.float32, copy=False)]
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            for W, b in network.layers:
                z = outputs[-1] @ W + b
                outputs.append(activation(slope * z))
            losses, delta = of_logits(z, y)
            gradient = delta @ network.layers[-1].W.T
            for (W, _), output in zip(network.layers[-2::-1], outputs[-2:0:-1], strict=True):
                gradient = (gradient * derivative(output) * slope) @ W.T
        if not np.isfinite(gradient).all():
            raise GLRError("an input gradient overflows: the weights are too large to be attacked")
        return losses, gradient

    return of_batch


def lbfgs(batch: Batch, model: LossAndGradient, penalty: float) -> np.ndarray:
    """Box-constrained L-BFGS: the x + r that brings each image close to its target class.

    r minimises penalty·‖r‖² + cross-entropy(x + r, target) with x + r in [0, 1], all images as one
    sum: no term shares a variable with another. Where the search ends no lower than it began, the
    image is returned as it was.

    Source: Szegedy et al., "Intriguing Properties of Neural Networks", ICLR 2014 (arXiv 1312.6199).
    There the penalty is line-searched for each image, so that r is the smallest that reaches the
    target; here it is one number for all, and some images may not reach theirs.
    """
    x, targets = batch

    def objective_and_gradient(x_adv):
        loss, gradient = model(x_adv, targets)
        r = x_adv.astype(np.float64) - x
        return loss + penalty * np.sum(r * r, axis=1), gradient + 2 * penalty * r

    def sum_and_gradient(flat):
        objective, gradient = objective_and_gradient(flat.reshape(x.shape))
        return np.sum(objective, dtype=np.float64), gradient.ravel()

    # minimize(method="L-BFGS-B") ends in this, but converts 784 bounds of each image one by one.
    flat, _, _ = fmin_l_bfgs_b(
        sum_and_gradient,
        x.ravel().astype(np.float64),
        bounds=[(0.0, 1.0)] * x.size,
        m=LBFGS_MEMORY,
        factr=LBFGS_TOLERANCE / np.finfo(np.float64).eps,
        maxiter=LBFGS_ITERATIONS,
    )
    x_adv = flat.reshape(x.shape).astype(np.float32)
    lower = objective_and_gradient(x_adv)[0] < objective_and_gradient(x)[0]
    return np.where(lower[:, None], x_adv, x)
