"""White-box attacks on a batch of flat images, given only the attacked model's gradients.

Throughout, `x` is (N, n_in) with intensities in [0, 1], `y` is (N,) integer labels, and ε is in
units of intensity (0.1 is 25.5 steps of an 8-bit image). Attacks return float32 of x's shape within
[0, 1]; x stays as it was. They raise GLRError if x, y, ε or the gradients are not of that kind.

The callables are vectorised over samples, and no sample's numbers depend on another's:

    input_gradient(x, y)     -> (N, n_in): gradient of each sample's cross-entropy in its input
    loss_and_gradient(x, y)  -> that cross-entropy (N,), and the same gradient
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import fmin_l_bfgs_b
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from glr.errors import GLRError

if TYPE_CHECKING:
    import keras

InputGradient = Callable[[np.ndarray, np.ndarray], np.ndarray]
LossAndGradient = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

# L-BFGS-B, see `lbfgs`. Larger groups take more iterations to the same depth and more memory.
LBFGS_GROUP = 100  # images solved for together
LBFGS_ITERATIONS = 50  # for each group, at most
LBFGS_MEMORY = 5  # remembered gradient differences
LBFGS_TOLERANCE = 1e-5  # stop when an iteration lowers the group's objective by this share
KERAS_BATCH = 1000  # samples in one call of a Keras model; bounds the memory


def fgsm(x: np.ndarray, y: np.ndarray, input_gradient: InputGradient, epsilon: float) -> np.ndarray:
    """Fast gradient sign method: x + ε·sign(∇ₓ cross-entropy), clipped to [0, 1].

    It is one step of `pgd`, which crosses the ball and returns to its edge.

    Source: Goodfellow, Shlens and Szegedy, "Explaining and Harnessing Adversarial Examples",
    ICLR 2015 (arXiv 1412.6572).
    """
    return pgd(x, y, input_gradient, epsilon, steps=1)


def pgd(
    x: np.ndarray, y: np.ndarray, input_gradient: InputGradient, epsilon: float, steps: int = 40
) -> np.ndarray:
    """Projected gradient descent: `steps` sign steps, each followed by a return to the ε ball.

    The ball is that of the largest change of any pixel (L∞) around x, cut with [0, 1]. The start
    is x itself, so nothing is random. A step is 2.5·ε/steps, so that all of them together cross
    the ball from anywhere in it.

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks",
    ICLR 2018 (arXiv 1706.06083).
    """
    x, y = _checked_batch(x, y)
    if steps < 1:
        raise GLRError(f"an attack needs at least one step, not {steps}")
    epsilon = _checked_size("epsilon", epsilon)
    step = _checked_size("step size", 2.5 * epsilon / steps)
    low, high = np.maximum(x - epsilon, 0), np.minimum(x + epsilon, 1)
    x_adv = x
    for _ in range(steps):
        sign = np.sign(_checked_gradient(input_gradient(x_adv, y), x)).astype(np.float32)
        x_adv = np.clip(x_adv + step * sign, low, high)
    return x_adv


def lbfgs(
    x: np.ndarray, targets: np.ndarray, loss_and_gradient: LossAndGradient, penalty: float
) -> np.ndarray:
    """Box-constrained L-BFGS: the x + r that brings each image close to its target class.

    r minimises penalty·‖r‖² + cross-entropy(x + r, target) with x + r in [0, 1]; see
    `random_targets`. Where the search ends no lower than it began, the image is returned as it was.

    Source: Szegedy et al., "Intriguing Properties of Neural Networks", ICLR 2014
    (arXiv 1312.6199). There the penalty (on ‖r‖) is line-searched for each image so that r is the
    smallest that reaches the target. Here it is one fixed number for all: the perturbation is a
    compromise between size and success, and some images may not reach their target.
    """
    x, targets = _checked_batch(x, targets)
    penalty = float(_checked_size("penalty", penalty))
    x_adv = x.copy()
    # The solver's work is inner products of microseconds: cores that share one mostly wait.
    with threadpool_limits(1, user_api="blas"):
        starts = range(0, len(x), LBFGS_GROUP)
        for start in tqdm(starts, desc="lbfgs", unit="group", disable=None):
            group = slice(start, start + LBFGS_GROUP)
            x_adv[group] = _lbfgs_group(x[group], targets[group], loss_and_gradient, penalty)
    return x_adv


def random_targets(y: np.ndarray, n_classes: int, rng: np.random.Generator) -> np.ndarray:
    """For each label of `y` (N,), a class drawn uniformly from the n_classes − 1 others."""
    y = np.asarray(y)
    if n_classes < 2:
        raise GLRError(f"a target needs two classes or more to choose from, not {n_classes}")
    _check_labels(y, n_classes)
    return (y + rng.integers(1, n_classes, size=y.shape)) % n_classes


def zero_gradient_share(gradient: np.ndarray) -> float:
    """The share of samples whose input gradient (N, n_in) is exactly zero in every entry.

    A gradient attack leaves such a sample as it is, whether or not the model is robust: a share
    that is not small says that the attack failed, not that the defence held (Athalye, Carlini and
    Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML 2018, arXiv 1802.00420).

    Raises GLRError if there is no sample.
    """
    gradient = np.asarray(gradient)
    if gradient.ndim != 2 or len(gradient) == 0:
        raise GLRError(f"input gradients must be an array (N, n_in), not of shape {gradient.shape}")
    return float(np.mean(~gradient.any(axis=1)))


def keras_input_gradient(model: keras.Model) -> InputGradient:
    """`input_gradient` of a Keras model that maps (N, n_in) to logits (N, n_classes)."""
    loss_and_gradient = keras_loss_and_gradient(model)
    return lambda x, y: loss_and_gradient(x, y)[1]


def keras_loss_and_gradient(model: keras.Model) -> LossAndGradient:
    """`loss_and_gradient` of a Keras model that maps (N, n_in) to logits (N, n_classes).

    A model that ends in softmax would be passed through a second one: end it before.
    """
    import tensorflow as tf  # noqa: PLC0415 - takes seconds, and no other attack needs it

    n_in, n_classes = model.input_shape[1], model.output_shape[1]

    @tf.function(
        input_signature=[tf.TensorSpec([None, n_in], tf.float32), tf.TensorSpec([None], tf.int64)]
    )
    def batch_loss_and_gradient(x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x, training=False))
        return loss, tape.gradient(loss, x)  # of the sum: row n is the gradient of loss n

    def loss_and_gradient(x, y):
        if x.shape[1:] != (n_in,):
            raise GLRError(f"the model takes images of {n_in} pixels, not of shape {x.shape[1:]}")
        _check_labels(y, n_classes)
        batches = [
            batch_loss_and_gradient(
                tf.constant(x[start : start + KERAS_BATCH], tf.float32),
                tf.constant(y[start : start + KERAS_BATCH], tf.int64),
            )
            for start in range(0, len(x), KERAS_BATCH)
        ]
        losses, gradients = zip(*batches, strict=True)
        return np.concatenate(losses), np.concatenate(gradients)

    return loss_and_gradient


def _lbfgs_group(
    x: np.ndarray, targets: np.ndarray, loss_and_gradient: LossAndGradient, penalty: float
) -> np.ndarray:
    """`lbfgs` for images whose objectives are minimised as one sum.

    No term of the sum shares a variable with another, so its minimum is every image's own. One
    call of the model then serves the whole group, which matters more than the iterations that the
    shared line search adds.
    """

    def objective_and_gradient(x_adv):
        loss, gradient = loss_and_gradient(x_adv, targets)
        r = x_adv.astype(np.float64) - x
        gradient = _checked_gradient(gradient, x)
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


def _check_labels(y: np.ndarray, n_classes: int) -> None:
    """GLRError if a label is none of the classes 0 … n_classes − 1."""
    if not np.all((y >= 0) & (y < n_classes)):
        raise GLRError(f"labels must lie in 0 … {n_classes - 1}, not in {y.min()} … {y.max()}")


def _checked_batch(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`x` as float32 and `y`; GLRError if they are not the batch that the module describes."""
    x, y = np.asarray(x, dtype=np.float32), np.asarray(y)
    if x.ndim != 2 or y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
        raise GLRError(
            "an attack needs images (N, n_in) and integer labels (N,), "
            f"not shapes {x.shape} and {y.shape} of {y.dtype}"
        )
    if len(x) == 0:
        raise GLRError("there is no image to attack")
    if not np.all((x >= 0) & (x <= 1)):  # false for NaN too
        raise GLRError("image intensities must lie in [0, 1]; divide 8-bit ones by 255")
    return x, y


def _checked_size(name: str, size: float) -> np.float32:
    """`size` in float32, which keeps the images in it; GLRError if negative or not finite."""
    if not 0 <= size < np.inf:
        raise GLRError(f"{name} must be a finite number of 0 or more, not {size}")
    return np.float32(size)


def _checked_gradient(gradient: np.ndarray, x: np.ndarray) -> np.ndarray:
    """`gradient`; GLRError if it has not x's shape or is not finite."""
    gradient = np.asarray(gradient)
    if gradient.shape != x.shape:
        raise GLRError(f"the input gradient has shape {gradient.shape}, the images have {x.shape}")
    if not np.all(np.isfinite(gradient)):
        raise GLRError("the input gradient is not finite; the attacked model's weights may not be")
    return gradient
