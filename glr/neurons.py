"""A layer's noisy neurons: their outputs, the score of their noise, and both under reversed noise.

Arrays are (n, R, B), as in glr/estimator.py; equation numbers are those of docs/method.md.
"""

from __future__ import annotations

import numpy as np

from glr.network import Activation, Array, outputs_of
from glr.noise import WORDS, NoiseLaw

TINY = np.finfo(np.float32).tiny


class NoisyNeurons:
    """Neurons φ(v + noise) in R passes; arrays are (n, R, B), v perhaps (n, 1, B).

    outputs : x
    noise : what the noisy logits gain in proportion to the noise's deviation
    score : s, of the noise at deviation 1
    """

    def __init__(self, activation: Activation, v: Array, noise: Array, score: Array) -> None:
        """Add the noise to logits v; `score` is that of the noise at deviation 1."""
        self.activation, self.v, self.noise, self.score = activation, v, noise, score
        self.outputs = outputs_of(activation, v + noise)

    def reversal(self) -> tuple[Array, Array]:
        """What reversed noise changes in the outputs, x⁻ − x; and the score times P.

        P is the probability of x, given that it is x or x⁻: ½, since the laws are symmetric.
        """
        change = outputs_of(self.activation, self.v - self.noise) - self.outputs
        return change, np.float32(0.5) * self.score


class Bits:
    """Threshold neurons, as NoisyNeurons: bits x, which are 1 with probability p = F(v/σ).

    The loss depends on the noise by the bit alone. So its score may be the mean given the bit,

        E[s | x = 1] = f/p,    E[s | x = 0] = −f/(1 − p)        (Rao-Blackwell)           (3)
    """

    def __init__(self, law: NoiseLaw, v: Array, scale: Array, words: np.ndarray) -> None:
        """Draw the bits of logits v by uniform 32-bit words (n, R, B)."""
        self.law, self.v = law, v / scale
        level = np.minimum(law.cdf(self.v) * WORDS, WORDS - 2**8).astype(np.uint32)
        self.outputs = np.less(words, level).astype(np.float32)

    @property
    def score(self) -> Array:
        """The mean score given the bit (3). 1 − p is F(−v), so no digits are lost as p nears 1."""
        f, p, q = self.law.pdf(self.v), self.law.cdf(self.v), self.law.cdf(-self.v)
        up, down = f / np.maximum(p, TINY), f / np.maximum(q, TINY)
        return self.outputs * up - (1 - self.outputs) * down

    def reversal(self) -> tuple[Array, Array]:
        """What the other bits change, 1 − 2x; and the score times the probability of x, ±f."""
        change = 1 - 2 * self.outputs
        return change, change * -self.law.pdf(self.v)


Neurons = NoisyNeurons | Bits
