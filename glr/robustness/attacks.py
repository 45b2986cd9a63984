"""Attacks on a batch of flat images: along a derivative, along noise's estimate of it, by answers.

Throughout, `x` is (N, n_in) float32 with intensities in [0, 1], `y` is (N,) integer labels, a batch
is both, and ε is in units of intensity (0.1 is 25.5 steps of an 8-bit image): the callers have
checked them. Attacks return float32 of x's shape within [0, 1]; x stays as it was.

A gradient is a callable, vectorised over samples, of which none depends on another:

    input_gradient(network)     -> f(x, y, progress), (N, n_in): that of each sample's loss
    loss_and_gradient(network)  -> f(x, y, progress), (N,) and (N, n_in): that loss, and the same

Progress is that of the attack, in [0, 1): what stands in a threshold's place nears it on the way.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import fmin_l_bfgs_b

from glr.errors import GLRError
from glr.estimator import gradient as glr_gradient
from glr.losses import Loss, cross_entropy, label_logits
from glr.network import Network, is_right, threshold
from glr.robustness.corruptions import as_images
from glr.scripts.backpropagation import differentiable, import_tensorflow, tf_logits
from glr.scripts.console import progress_bar
from glr.scripts.machine import without_user_settings

if TYPE_CHECKING:
    import tensorflow as tf

Batch = tuple[np.ndarray, np.ndarray]
InputGradient = Callable[..., np.ndarray]
LossAndGradient = Callable[..., tuple[np.ndarray, np.ndarray]]

# L-BFGS-B, see `lbfgs`. Larger groups take more iterations to the same depth and more memory.
LBFGS_GROUP = 100  # images solved for together
LBFGS_ITERATIONS = 50  # for each group, at most
LBFGS_MEMORY = 5  # remembered gradient differences
LBFGS_TOLERANCE = 1e-5  # stop when an iteration lowers the group's objective by this share
GLR_SIGMAS = (2.0, 0.1)  # deviation of the hidden neurons' noise, from the first step to the last
GLR_OUTPUT_SIGMA = 0.01  # of the output's: next to none
GLR_REPLICATES = 8  # noisy passes of each image in a step
SLOPES = (1.0, 10.0)  # of the sigmoid in a threshold's place, from the first step to the last
STEP = 0.2  # of ε, unless there are fewer than five steps
GROUP = 128  # images in a call of noisy passes, for memory's sake
TINY = 1e-12  # keeps a ratio of logits finite
SMALLEST_SIDE = 5  # of an image: in smaller ones ART's first square leaves no place to draw


def fgsm(batch: Batch, gradient: InputGradient, epsilon: float) -> np.ndarray:
    """Fast gradient sign method: x + ε·sign(∇ₓ cross-entropy), clipped to [0, 1].

    Source: Goodfellow, Shlens and Szegedy, "Explaining and Harnessing Adversarial Examples",
    ICLR 2015 (arXiv 1412.6572).
    """
    return pgd(batch, gradient, epsilon, steps=1)


def pgd(
    batch: Batch,
    gradient: InputGradient,
    epsilon: float,
    steps: int,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Projected gradient descent: `steps` sign steps, each followed by a return to the ε ball.

    The ball is that of the largest change of any pixel (L∞) around x, cut with [0, 1].

    rng : of a start that is uniform in the ball; without it the start is x itself

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks",
    ICLR 2018 (arXiv 1706.06083).
    """
    x, y = batch
    step, epsilon = np.float32(epsilon * max(STEP, 1 / steps)), np.float32(epsilon)
    low, high = np.maximum(x - epsilon, 0), np.minimum(x + epsilon, 1)
    x_adv = x if rng is None else low + (high - low) * rng.random(x.shape, np.float32)
    for n in range(steps):
        sign = np.sign(gradient(x_adv, y, n / steps)).astype(np.float32)
        x_adv = np.clip(x_adv + step * sign, low, high)
    return x_adv


def until_wrong(network: Network, gradient: InputGradient) -> InputGradient:
    """The gradient, and zero once the network is wrong: a sign attack then stays where it is."""

    def of_right(x, y, progress):
        rows, slope = is_right(network.logits(x), y), np.zeros_like(x)
        slope[rows] = gradient(x[rows], y[rows], progress)
        return slope

    return of_right


def lbfgs(x: np.ndarray, targets: np.ndarray, model: LossAndGradient, penalty: float) -> np.ndarray:
    """Box-constrained L-BFGS: the x + r that brings each image close to its target class.

    r minimises penalty·‖r‖² + cross-entropy(x + r, target) with x + r in [0, 1]; see
    `random_targets`. Where the search ends no lower than it began, the image is returned as it was.

    Source: Szegedy et al., "Intriguing Properties of Neural Networks", ICLR 2014
    (arXiv 1312.6199). There the penalty (on ‖r‖) is line-searched for each image so that r is the
    smallest that reaches the target. Here it is one fixed number for all: the perturbation is a
    compromise between size and success, and some images may not reach their target.
    """
    x_adv = np.empty_like(x)
    starts = range(0, len(x), LBFGS_GROUP)
    for start in progress_bar(starts, "lbfgs"):
        group = slice(start, start + LBFGS_GROUP)
        x_adv[group] = _lbfgs_group(x[group], targets[group], model, penalty)
    return x_adv


def glr_attack(
    network: Network, batch: Batch, epsilon: float, steps: int, rng: np.random.Generator
) -> np.ndarray:
    """Sign steps along ∂E[cross-entropy]/∂x = W⁰·δ⁰, which noise and losses alone tell.

    No activation is differentiated: threshold neurons and those of your own are attacked as they
    are. Less and less noise makes the gradient that of the network itself. An image is left as it
    is once the network gets it wrong.
    """
    return pgd(batch, until_wrong(network, glr_input_gradient(network, rng)), epsilon, steps)


def glr_input_gradient(
    network: Network,
    rng: np.random.Generator,
    loss: Loss = cross_entropy,
    noise: Mapping[str, object] | None = None,
) -> InputGradient:
    """The GLR estimate of ∂E[loss]/∂x.

    noise : options of `glr.gradient`; without it, logistic noise that falls with progress
    """
    options = {"activation": network.activation, "loss": loss, "replicates": GLR_REPLICATES}
    hidden = len(network.layers) - 1

    def estimate(x, y, progress):
        own = noise or {"sigma": [*[between(GLR_SIGMAS, progress)] * hidden, GLR_OUTPUT_SIGMA]}
        found = [
            glr_gradient(network.layers, x[g], y[g], rng=rng, **own, **options).inputs
            for g in groups_of(len(x))
        ]
        return np.concatenate([x[:0], *found])

    return estimate


def groups_of(n: int) -> list[slice]:
    """The rows of n samples in groups, for memory's sake."""
    return [slice(start, start + GROUP) for start in range(0, n, GROUP)]


def between(ends: tuple[float, float], progress: float) -> float:
    """From the first end at progress 0 to the last at 1, geometrically."""
    first, last = ends
    return first * (last / first) ** progress


def margin(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The largest other logit less the label's, of (…, classes, B): positive where it is wrong."""
    others = logits.copy()
    others[..., y, np.arange(len(y))] = -np.inf
    return others.max(axis=-2) - label_logits(logits, y)


def apgd_attacks(
    network: Network, epsilon: float, rng: np.random.Generator
) -> list[Callable[[Batch], np.ndarray]]:
    """AutoAttack's attacks along the gradient: auto-PGD, from one random start, of 100 steps.

    One of cross-entropy, and towards each other class one of the logits' difference ratio.

    Source: Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of
    Diverse Parameter-free Attacks", ICML 2020 (arXiv 2003.01690).
    """
    tf, n_classes = import_tensorflow(), network.sizes[-1]
    with imported_art():
        from art.attacks.evasion import AutoProjectedGradientDescent  # noqa: PLC0415
        from art.estimators.classification import TensorFlowV2Classifier  # noqa: PLC0415
    activation = differentiable(network.activation)

    @tf.function(reduce_retracing=True)
    def logits(x):
        return tf_logits(network.layers, tf.cast(x, tf.float32), activation, {})

    def losses(value):
        def of_one_hot(y, z):
            return value(tf.argmax(y, axis=1), z)

        of_one_hot.reduction = "none"  # which ART sets, and asks for
        return of_one_hot

    def attack(value, offset, batch):
        x, y = batch
        classifier = TensorFlowV2Classifier(
            lambda x, training: logits(x), n_classes, x.shape[1:], losses(value), clip_values=(0, 1)
        )
        search = AutoProjectedGradientDescent(
            classifier,
            eps=epsilon,
            eps_step=2 * epsilon,
            targeted=offset > 0,
            nb_random_init=1,
            batch_size=len(x),
            verbose=False,
        )
        with lent_seed(rng):
            found = search.generate(
                x, np.eye(n_classes, dtype=np.float32)[(y + offset) % n_classes]
            )
        return in_ball(found, x, epsilon)

    by_cross_entropy = partial(attack, tf.nn.sparse_softmax_cross_entropy_with_logits, 0)
    return [by_cross_entropy, *(partial(attack, tf_ratio, k) for k in range(1, n_classes))]


def tf_ratio(y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The margin over the difference of the largest and the third largest logit (N, classes)."""
    tf = import_tensorflow()
    ordered = tf.sort(logits, axis=1)
    return tf_margin(y, logits) / (ordered[:, -1] - ordered[:, -min(3, logits.shape[1])] + TINY)


def square_attack(
    network: Network,
    batch: tuple[np.ndarray, np.ndarray],
    epsilon: float,
    queries: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Andriushchenko et al. 2020: random squares of ±ε, kept when the margin shrinks.

    batch : x (N × n_in) in [0, 1] with n_in a square number, labels y (N,)
    queries : squares that are tried on each sample, at most; ART evaluates a sample three times
        for each of them

    Where the later squares lie is drawn for all samples at once: what is found for one depends on
    how many they are.

    Raises GLRError for images of fewer pixels than SMALLEST_SIDE².
    """
    with imported_art():
        from art.attacks.evasion import SquareAttack  # noqa: PLC0415  (seconds, for this alone)
        from art.estimators.classification import BlackBoxClassifierNeuralNetwork  # noqa: PLC0415

    x, y = batch
    images = as_images(x)[..., None]
    if images.shape[1] < SMALLEST_SIDE:
        raise GLRError(
            f"ATTACK = square: needs images of {SMALLEST_SIDE} × {SMALLEST_SIDE} pixels or more; "
            "use another attack"
        )

    def answers(asked: np.ndarray) -> np.ndarray:
        return network.logits(np.asarray(asked, np.float32).reshape(len(asked), -1))

    classifier = BlackBoxClassifierNeuralNetwork(
        answers, images.shape[1:], network.sizes[-1], channels_first=False, clip_values=(0.0, 1.0)
    )
    attack = SquareAttack(
        classifier, eps=epsilon, max_iter=queries, batch_size=len(x), verbose=False
    )
    with lent_seed(rng):
        found = attack.generate(images, y=np.eye(network.sizes[-1], dtype=np.float32)[y])
    return in_ball(found.reshape(x.shape), x, epsilon)


@contextmanager
def imported_art() -> Iterator[None]:
    """Import ART without the user's settings, and without its warning that PyTorch is not there."""
    with warnings.catch_warnings(), without_user_settings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def lent_seed(rng: np.random.Generator) -> Iterator[None]:
    """Lend NumPy's global generator, from which ART draws, a seed of rng's."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def in_ball(found: np.ndarray, x: np.ndarray, epsilon: float) -> np.ndarray:
    """What was found, rounded into the ε ball around x and into [0, 1]."""
    return np.clip(found, x - epsilon, x + epsilon).clip(0, 1).astype(np.float32)


def random_targets(y: np.ndarray, n_classes: int, rng: np.random.Generator) -> np.ndarray:
    """For each label of `y` (N,), a class drawn uniformly from the n_classes − 1 others."""
    return (y + rng.integers(1, n_classes, size=y.shape)) % n_classes


def zero_gradient_share(gradient: np.ndarray) -> float:
    """The share of samples whose input gradient (N, n_in) is exactly zero in every entry.

    A gradient attack leaves such a sample as it is, whether or not the model is robust: a share
    that is not small says that the attack failed, not that the defence held (Athalye, Carlini and
    Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML 2018, arXiv 1802.00420).
    """
    return float(np.mean(~gradient.any(axis=1)))


def input_gradient(network: Network, loss: Loss = cross_entropy) -> InputGradient:
    """The gradient alone of `loss_and_gradient`."""
    both = loss_and_gradient(network, loss)
    return lambda *at: both(*at)[1]


def loss_and_gradient(network: Network, loss: Loss = cross_entropy) -> LossAndGradient:
    """Each sample's loss, cross_entropy or margin, and its gradient, of the network as it is now.

    Of threshold neurons, whose gradient is zero, a sigmoid σ(slope·v) takes the place, forward and
    back; the slope grows with progress.

    Raises GLRError for an activation that TensorFlow has no gradient of. What it returns does for
    a gradient that is not finite.
    """
    tf = import_tensorflow()
    is_threshold = network.activation is threshold
    activation = None if is_threshold else differentiable(network.activation)
    value = {cross_entropy: tf.nn.sparse_softmax_cross_entropy_with_logits, margin: tf_margin}[loss]

    @tf.function(reduce_retracing=True)
    def traced(x, y, slope):
        with tf.GradientTape() as tape:
            tape.watch(x)
            smooth = (lambda v: tf.sigmoid(slope * v)) if is_threshold else activation
            losses = value(y, tf_logits(network.layers, x, smooth, {}))
        return losses, tape.gradient(losses, x)  # of the sum: row n is the gradient of loss n

    def of_batch(x, y, progress=0.0):
        slope = tf.constant(between(SLOPES, progress), tf.float32)
        x = x.astype(np.float32, copy=False)
        losses, gradient = (part.numpy() for part in traced(x, y, slope))
        if not np.isfinite(gradient).all():
            raise GLRError("an input gradient overflows: the weights are too large to be attacked")
        return losses, gradient

    return of_batch


def tf_margin(y: np.ndarray, logits: tf.Tensor) -> tf.Tensor:
    """`margin` in TensorFlow, of logits (N, classes)."""
    tf = import_tensorflow()
    is_own = tf.one_hot(y, logits.shape[1], True, False, dtype=tf.bool)
    other = tf.reduce_max(tf.where(is_own, -np.inf, logits), axis=1)
    return other - tf.reduce_max(tf.where(is_own, logits, -np.inf), axis=1)


def _lbfgs_group(
    x: np.ndarray, targets: np.ndarray, model: LossAndGradient, penalty: float
) -> np.ndarray:
    """`lbfgs` for images whose objectives are minimised as one sum.

    No term of the sum shares a variable with another, so its minimum is every image's own. One
    call of the model then serves the whole group, which matters more than the iterations that the
    shared line search adds.
    """

    def objective_and_gradient(x_adv):
        loss, gradient = model(x_adv, targets)
        r = x_adv.astype(np.float64) - x
        return loss + penalty * np.sum(r * r, axis=1), gradient + 2 * penalty * r

    def sum_and_gradient(flat):
        objective, gradient = objective_and_gradient(flat.reshape(x.shape))
        return np.sum(objective, dtype=np.float64), gradient.ravel()

    # minimize(method="L-BFGS-B") ends in the same solver, but converts the bounds back and forth,
    # one by one, on the way; with 784 of them for each image that costs as much as the search.
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
