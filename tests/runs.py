"""A run of a small network, stopped after some steps, and its checkpoint."""

import numpy as np
from glr.passes import GLR
from glr.scripts.training import Plan, Run, train

from glr.data.datasets import Dataset
from glr.estimator import glr_estimator
from glr.losses import zero_one
from glr.network import new_network, sigmoid
from glr.noise import gaussian
from glr.optimizers import adam, cosine
from glr.storage.checkpoint import save_checkpoint

ORIGIN = {"SEED": 0, "SIGMA": [1.0], "training data": 7}
PLAN = Plan(
    loss=zero_one,
    optimizer=adam,
    steps=10,
    batch_size=5,
    learning_rate=0.1,
    schedule=cosine,
    weight_decay=0.0,
    centralised=False,
    eval_every=4,
)


def small_run(seed=0):
    """A run of a 3-4-2 network before its first step."""
    rng = np.random.Generator(np.random.SFC64(seed))
    glr = GLR(sigmoid, zero_one, (1.0, 1.0), gaussian)
    return Run(new_network([3, 4, 2], sigmoid, rng), glr_estimator(glr, rng))


def run_with_checkpoint(folder):
    """The run after five steps, one of them since the last evaluation; its checkpoint's path."""
    run, path = small_run(), folder / "run.checkpoint"
    x, y = np.ones((5, 3), np.float32), np.array([0, 1, 0, 1, 0])
    steps = train(run, Dataset("toy", x, y, x, y), PLAN, np.random.Generator(np.random.SFC64(0)))
    for _ in range(5):
        next(steps)
    save_checkpoint(path, run, ORIGIN)
    return run, path
