"""The state of a small run after some steps, and its checkpoint."""

import numpy as np

from glr.network import new_network, sigmoid
from glr.optimizers import adam
from glr.storage.checkpoint import Evaluation, State, save_checkpoint

ORIGIN = {"SEED": 0, "SIGMA": [1.0], "STEPS": 10, "EVAL_EVERY": 4, "training data": 7}


def small_state(seed=0):
    """That of a 3-4-2 network before its first step; its optimizer is Adam."""
    rng = np.random.Generator(np.random.SFC64(seed))
    return State(new_network([3, 4, 2], sigmoid, rng).parameters, rng)


def state_with_checkpoint(folder):
    """The state after five steps, one of them since the last evaluation; its checkpoint's path."""
    state, path = small_state(), folder / "run.checkpoint"
    for _ in range(5):
        slope = state.rng.standard_normal(state.parameters.size, np.float32)
        adam(state.parameters, slope, 0.1, state.optimizer)
        state.step += 1
    state.seconds, state.risks = 0.5, [0.25]
    state.history.append(Evaluation(0, 0.0, 0.0, 2.4, 2.3, 0.25))
    state.history.append(Evaluation(4, 4.0, 0.4, 0.3, 0.35, 0.75))
    save_checkpoint(path, state, ORIGIN)
    return state, path
