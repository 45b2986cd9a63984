"""Our compiled step as training takes it: many in one call, so that Python has no part in them.

As in glr/compiled_training.py, but that all are of one batch, as the rivals' steps are. Compiled in
every run: see floor_loops.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from glr.arrays import Array
from glr.compiled import OPTIONS, Step, make_callable, shared_of, write_batch_sums
from glr.compiled_training import Factors, Weights, move
from glr.passes import Streams
from numba import njit

AT_ONCE = 20  # steps; training takes as many as fit into glr.scripts.training.LEG_SECONDS
OWN_OPTIONS = OPTIONS | {"cache": False}


def steps_of(step: Step, streams: Streams, rate: float, decay: float) -> Callable[[], None]:
    """AT_ONCE steps of SGD with an L2 penalty, from the step's weights on in every call.

    In tens of thousands of steps with one batch the weights would grow, until outputs near 0 slow
    the processor down, which no training does.
    """
    shared, start = shared_of(step.sizes, len(step.y)), step.parameters.copy()
    weights = Weights(step.parameters, *[shared.sums] * 3)
    factors = np.array(Factors(decay, rate), np.float32)
    make_callable()

    def take_steps() -> None:
        step.parameters[:] = start
        words = np.stack([stream.bit_generator.random_raw(AT_ONCE) for stream in streams], axis=1)
        descend(tuple(step)[:-1], words, (tuple(shared), tuple(weights)), factors)

    return take_steps


@njit(**OWN_OPTIONS)
def descend(of_batch: tuple, seeds: np.ndarray, memory: tuple, factors: Array) -> None:
    """Take a step with each of the seeds (AT_ONCE, T), which a Step's fields lack but for them.

    memory : what a Shared and Weights are made of
    """
    of_shared, of_weights = memory
    for step in range(len(seeds)):
        write_batch_sums((*of_batch, seeds[step]), of_shared)
        move(of_weights, of_batch[0], False, factors)
