"""An attack that asks a network for its answers only: ART's SquareAttack."""

from __future__ import annotations

import sys

import numpy as np

from glr.errors import GLRError
from glr.network import Network
from glr.robustness.corruptions import as_images

SMALLEST_SIDE = 5  # of an image: in smaller ones ART's first square leaves no place to draw


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
    from art.attacks.evasion import SquareAttack  # noqa: PLC0415  (seconds, for this attack only)
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork  # noqa: PLC0415

    x, y = batch
    images = as_images(x)[..., None]
    if images.shape[1] < SMALLEST_SIDE:
        raise GLRError(
            f"ATTACK = square: needs images of {SMALLEST_SIDE} × {SMALLEST_SIDE} pixels or more; "
            "use another attack"
        )

    def answers(asked: np.ndarray) -> np.ndarray:
        return network.logits_of_rows(np.asarray(asked, np.float32).reshape(len(asked), -1)).T

    classifier = BlackBoxClassifierNeuralNetwork(
        answers, images.shape[1:], network.sizes[-1], channels_first=False, clip_values=(0.0, 1.0)
    )
    attack = SquareAttack(
        classifier, eps=epsilon, max_iter=queries, batch_size=len(x), verbose=sys.stderr.isatty()
    )
    before = np.random.get_state()  # ART draws from NumPy's global generator: lend it a seed
    np.random.seed(int(rng.integers(2**32)))
    try:
        found = attack.generate(images, y=np.eye(network.sizes[-1], dtype=np.float32)[y])
    finally:
        np.random.set_state(before)
    return np.clip(found.reshape(x.shape), x - epsilon, x + epsilon).clip(0, 1).astype(np.float32)
