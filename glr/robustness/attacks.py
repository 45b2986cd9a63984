"""Attacks on a batch of flat images: three follow a derivative, two ask for answers only.

Throughout, `x` is (N, n_in) float32 with intensities in [0, 1], `y` is (N,) integer labels, and ε
is in units of intensity (0.1 is 25.5 steps of an 8-bit image): the callers have checked them.
Attacks return float32 of x's shape within [0, 1]; x stays as it was.

A gradient is a callable, vectorised over samples, of which none depends on another:

    input_gradient(network)     -> f(x, y), (N, n_in): that of each sample's cross-entropy
    loss_and_gradient(network)  -> f(x, y), (N,) and (N, n_in): that cross-entropy, and the same
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from scipy.optimize import fmin_l_bfgs_b

from glr.errors import GLRError
from glr.estimator import gradient as glr_gradient
from glr.losses import cross_entropy
from glr.network import Network, is_right
from glr.robustness.corruptions import as_images
from glr.scripts.backpropagation import differentiable, import_tensorflow, tf_logits
from glr.scripts.console import progress_bar
from glr.scripts.machine import without_user_settings

InputGradient = Callable[[np.ndarray, np.ndarray], np.ndarray]
LossAndGradient = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

# L-BFGS-B, see `lbfgs`. Larger groups take more iterations to the same depth and more memory.
LBFGS_GROUP = 100  # images solved for together
LBFGS_ITERATIONS = 50  # for each group, at most
LBFGS_MEMORY = 5  # remembered gradient differences
LBFGS_TOLERANCE = 1e-5  # stop when an iteration lowers the group's objective by this share
GLR_SIGMAS = (2.0, 0.2)  # deviation of the hidden neurons' noise, from the first step to the last
GLR_OUTPUT_SIGMA = 0.01  # of the output's: next to none
GLR_REPLICATES = 8  # noisy passes of each image in a step
GLR_STEP = 0.2  # of ε
GLR_GROUP = 128  # images in a call, for memory's sake
SMALLEST_SIDE = 5  # of an image: in smaller ones ART's first square leaves no place to draw


def fgsm(x: np.ndarray, y: np.ndarray, gradient: InputGradient, epsilon: float) -> np.ndarray:
    """Fast gradient sign method: x + ε·sign(∇ₓ cross-entropy), clipped to [0, 1].

    It is one step of `pgd`, which crosses the ball and returns to its edge.

    Source: Goodfellow, Shlens and Szegedy, "Explaining and Harnessing Adversarial Examples",
    ICLR 2015 (arXiv 1412.6572).
    """
    return pgd(x, y, gradient, epsilon, steps=1)


def pgd(
    x: np.ndarray, y: np.ndarray, gradient: InputGradient, epsilon: float, steps: int = 40
) -> np.ndarray:
    """Projected gradient descent: `steps` sign steps, each followed by a return to the ε ball.

    The ball is that of the largest change of any pixel (L∞) around x, cut with [0, 1]. The start
    is x itself, so nothing is random. A step is 2.5·ε/steps, so that all of them together cross
    the ball from anywhere in it.

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks",
    ICLR 2018 (arXiv 1706.06083).
    """
    epsilon, step = np.float32(epsilon), np.float32(2.5 * epsilon / steps)
    low, high = np.maximum(x - epsilon, 0), np.minimum(x + epsilon, 1)
    x_adv = x
    for _ in range(steps):
        sign = np.sign(gradient(x_adv, y)).astype(np.float32)
        x_adv = np.clip(x_adv + step * sign, low, high)
    return x_adv


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
    network: Network,
    batch: tuple[np.ndarray, np.ndarray],
    epsilon: float,
    steps: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Sign steps along ∂E[cross-entropy]/∂x = W⁰·δ⁰, which noise and losses alone tell.

    No activation is differentiated: threshold neurons and those of your own are attacked as they
    are. Less and less noise makes the gradient that of the network itself. An image is left as it
    is once the network gets it wrong.
    """
    x, y = batch
    epsilon, x_adv = np.float32(epsilon), x.copy()
    low, high = np.maximum(x - epsilon, 0), np.minimum(x + epsilon, 1)
    rows = np.arange(len(x))
    for step in range(steps):
        rows = rows[is_right(network.logits(x_adv[rows]), y[rows])]
        slope = glr_input_gradient(network, (x_adv[rows], y[rows]), step / steps, rng)
        moved = x_adv[rows] + np.float32(GLR_STEP) * epsilon * np.sign(slope)
        x_adv[rows] = np.clip(moved, low[rows], high[rows])
    return x_adv


def glr_input_gradient(
    network: Network,
    batch: tuple[np.ndarray, np.ndarray],
    progress: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """The GLR estimate of ∂E[cross-entropy]/∂x, (N, n_in); noise falls with progress, in [0, 1)."""
    (x, y), (first, last) = batch, GLR_SIGMAS
    sigma = first * (last / first) ** progress
    sigmas = [*[sigma] * (len(network.layers) - 1), GLR_OUTPUT_SIGMA]
    options = {"activation": network.activation, "loss": cross_entropy, "sigma": sigmas}
    options |= {"replicates": GLR_REPLICATES, "rng": rng}
    groups = (slice(start, start + GLR_GROUP) for start in range(0, len(x), GLR_GROUP))
    found = [glr_gradient(network.layers, x[g], y[g], **options).inputs for g in groups]
    return np.concatenate([x[:0], *found])


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
    with warnings.catch_warnings(), without_user_settings():
        warnings.simplefilter("ignore")  # that PyTorch is not there
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
    before = np.random.get_state()  # noqa: NPY002  (ART draws from the global one: lend it a seed)
    np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
    try:
        found = attack.generate(images, y=np.eye(network.sizes[-1], dtype=np.float32)[y])
    finally:
        np.random.set_state(before)  # noqa: NPY002
    return np.clip(found.reshape(x.shape), x - epsilon, x + epsilon).clip(0, 1).astype(np.float32)


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


def input_gradient(network: Network, slope: float = 1.0) -> InputGradient:
    """The gradient alone of `loss_and_gradient`."""
    both = loss_and_gradient(network, slope)
    return lambda x, y: both(x, y)[1]


def loss_and_gradient(network: Network, slope: float = 1.0) -> LossAndGradient:
    """Each sample's cross-entropy and its gradient in the input, of the network as it is now.

    slope : of the sigmoid σ(slope·v) whose derivative stands for a threshold's, which is zero

    Raises GLRError for an activation that TensorFlow has no gradient of. What it returns does for
    a gradient that is not finite.
    """
    tf = import_tensorflow()
    activation = differentiable(network.activation, slope)

    @tf.function(reduce_retracing=True)
    def traced(x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            z = tf_logits(network.layers, x, activation, {})
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, z)
        return loss, tape.gradient(loss, x)  # of the sum: row n is the gradient of loss n

    def of_batch(x, y):
        loss, gradient = (part.numpy() for part in traced(x.astype(np.float32, copy=False), y))
        if not np.isfinite(gradient).all():
            raise GLRError("an input gradient overflows: the weights are too large to be attacked")
        return loss, gradient

    return of_batch


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
