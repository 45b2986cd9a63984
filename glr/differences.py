"""What each neuron's own noise did to the loss: the L − L′ of docs/method.md, section 8.

Arrays are float32 and shaped as in glr/passes.py. A neuron's `change` is what its opposite noise,
or the opposite bit, adds to its output; all other noise stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from glr.arrays import Array, columns, empty_neurons_first, neurons_first, neurons_last_but_one
from glr.losses import Loss, label_logits, losses_of, zero_one

MOVED_FLOATS = 2**18  # of output logits after local changes at a time: 1 MB, as caches have
MORE_THAN_ROUNDING = np.float32(1.001)  # so that no logit is rounded past the label's


@dataclass(frozen=True)
class Output:
    """Output logits z (R, K, n_out, B), their losses (R, K, B), and how these were found.

    weight_noise : the part of z that is noise, if its size depends on the input, else None
    """

    z: Array
    losses: Array
    loss: Loss
    y: np.ndarray
    weight_noise: Array | None

    @cached_property
    def label(self) -> Array:
        """The logits (R, K, B) of the labels."""
        return np.ascontiguousarray(label_logits(self.z, self.y))

    @cached_property
    def largest_other(self) -> Array:
        """The largest logits (R, K, B) of the classes that are not the label."""
        others = self.z.copy(order="K")
        others[..., self.y, np.arange(len(self.y))] = -np.inf
        return others.max(axis=-2)


def loss_differences(output: Output, W: Array | None, change: Array, growth: Array | None) -> Array:
    """The losses less what they are after each neuron's change alone, shaped as the change.

    W : what a hidden neuron's output adds to the output logits (n × n_out); None for the output
        neurons, whose outputs they are
    change : of output neurons (R, K, n_out, B); of hidden ones (R, 1, n, B), which the draws share:
        then the differences are averaged over the draws
    growth : by what part of it the weight noise grows with each change (R, n, B), or None
    """
    if output.loss is zero_one and W is None:
        return zero_one_differences_of_outputs(output, change)
    if output.loss is zero_one and growth is None:
        return zero_one_differences(output, W, change)
    return evaluated_differences(output, effect_on_logits(output, W), change, growth)


def effect_on_logits(output: Output, W: Array | None) -> Array:
    """What a neuron's output adds to the output logits: W, or for output neurons the identity."""
    return np.eye(output.z.shape[-2], dtype=np.float32) if W is None else W


def evaluated_differences(output: Output, W: Array, change: Array, growth: Array | None) -> Array:
    """loss_differences by evaluating the loss after every change; W is an effect_on_logits."""
    (R, K, n_out, B), n = output.z.shape, len(W)
    rows = np.ascontiguousarray(W.T)[:, None, None, :, None]
    differences = empty_neurons_first((R, K, n, B))
    floats = max(1, n_out * K * B)  # of a neuron and pass; B may be 0
    at_once = max(1, MOVED_FLOATS // floats)  # neurons, of one pass or of several
    passes, neurons = max(1, at_once // n), min(at_once, n)
    for first_pass, first in product(range(0, R, passes), range(0, n, neurons)):
        r, i = slice(first_pass, first_pass + passes), slice(first, first + neurons)
        # n_out × R × K × neurons × B, so that the loss reduces whole rows of memory
        moved = rows[:, :, :, i] * change[r, :, i]
        z = neurons_first(output.z[r])[:, :, :, None]
        moved = np.add(moved, z, out=moved if change.shape[1] == K else None)
        if growth is not None:
            moved += growth[r, None, i] * neurons_first(output.weight_noise[r])[:, :, :, None]
        after = losses_of(output.loss, moved.transpose(1, 2, 3, 0, 4), output.y)
        differences[r, :, i] = output.losses[r][:, :, None] - after
    return differences if change.shape[1] == K else differences.mean(axis=1, keepdims=True)


def zero_one_differences(output: Output, W: Array, change: Array) -> Array:
    """loss_differences of the 0-1 loss for hidden neurons, evaluated only where it may be turned.

    These passes are few once the network has begun to learn (what it saves:
    benchmarks/results/bench.md, part 7).
    """
    (R, K, _, B), n = output.z.shape, len(W)
    near = np.flatnonzero(may_turn(output, W, change))
    of_sample, of_change = near % B, near // (K * B) * B + near % B
    near_z, near_losses = columns(output.z).take(near, axis=1), output.losses.reshape(-1)[near]
    near_output = Output(
        near_z[None, None], near_losses[None, None], output.loss, output.y[of_sample], None
    )
    near_change = columns(change).take(of_change, axis=1)[None, None]
    differences = np.zeros((R * K * B, n), np.float32)
    differences[near] = evaluated_differences(near_output, W, near_change, None)[0, 0].T
    over_draws = np.einsum("rkbn->nrb", differences.reshape(R, K, B, n)) / np.float32(K)
    return neurons_last_but_one(over_draws)[:, None]


def may_turn(output: Output, W: Array, change: Array) -> np.ndarray:
    """Whether any one neuron's change may turn a pass's 0-1 loss: (R, K, B).

    The label's lead over another class j changes by change·(W_iy − W_ij).
    """
    lead = output.label - output.largest_other
    farthest = np.maximum(W.max(axis=1)[:, None] - W, W - W.min(axis=1)[:, None])
    reach = (np.abs(change) * farthest.take(output.y, axis=1)).max(axis=-2)
    return ~(np.abs(lead) > reach * MORE_THAN_ROUNDING)  # a NaN is looked at


def zero_one_differences_of_outputs(output: Output, change: Array) -> Array:
    """loss_differences of the 0-1 loss for output neurons, from how many logits beat the label's.

    Another class's change adds to these, or takes away, none but its own.
    """
    y, label, moved = output.y, output.label[..., None, :], output.z + change
    is_above = output.z > label
    others_are_above = is_above.sum(axis=-2, keepdims=True, dtype=np.int32) > is_above
    is_wrong = others_are_above | (moved > label)
    is_wrong[..., y, np.arange(len(y))] = output.largest_other > label_logits(moved, y)
    return output.losses[..., None, :] - is_wrong


def noise_growth(x: Array, opposite: Array) -> Array:
    """By what part of it the next layer's weight noise grows, √(1 + ‖x′‖²)/√(1 + ‖x‖²) − 1.

    x′ is x (R, n, B) with one neuron's output, each in turn, replaced by its opposite: (R, n, B).
    """
    square = 1 + np.square(x).sum(axis=-2, keepdims=True)
    return np.sqrt(1 + (np.square(opposite) - np.square(x)) / square) - 1
