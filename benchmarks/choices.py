"""What each choice made for speed saves: the way of glr/ beside the plain way, alone.

Sizes are those of the hidden layer of 784-50-10 at R 10, B 128, or of its output layer.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
from accuracies import benchmark_data
from glr.arrays import columns, empty_neurons_first
from glr.neurons import Logits, binary_neurons, noisy_neurons
from glr.passes import Batch, logits_of
from glr.scripts.experiment import plan_of
from glr.scripts.training import Run, minibatches, take_steps
from measures import COMPILED, AtOnce
from rivals import Step, compiled, glr_step, glr_steps, random_batch, step_of

from glr import estimator
from glr.estimator import glr_estimator
from glr.losses import cross_entropy, zero_one
from glr.network import new_network, sigmoid, threshold
from glr.noise import logistic, random_words, uniform
from glr.study.comparison import half_trained_network
from glr.study.runs import constants_of, script_methods

SIZES, R, B = [784, 50, 10], 10, 128


class Choice(NamedTuple):
    """What is computed; our way; and another one, with what it is called."""

    what: str
    ours: Step
    other: str
    theirs: Step


def choices() -> list[Choice]:
    """Every choice whose gain a comment in glr/ speaks of."""
    return [
        *random_number_choices(),
        *neuron_choices(),
        *layout_choices(),
        *core_choices(),
        zero_one_choice(),
        *compiled_choices(),
    ]


def random_number_choices() -> list[Choice]:
    """Random numbers, most of the bill at large R."""
    rng, hidden = np.random.Generator(np.random.SFC64(0)), (R, SIZES[1], B)
    return [
        Choice(
            "uniforms from words of the generator (noise.uniform)",
            lambda: uniform(rng, hidden),
            "Generator.random",
            lambda: rng.random(hidden, np.float32),
        ),
        Choice(
            "16-bit words (noise.random_words)",
            lambda: random_words(rng, hidden, np.uint16),
            "Generator.integers",
            lambda: rng.integers(0, 2**16, hidden, np.uint16),
        ),
        Choice(
            "logistic noise and its score (noise.logistic)",
            lambda: logistic.draw(rng, hidden),
            "Gaussian noise, which is its score",
            lambda: rng.standard_normal(hidden, np.float32),
        ),
    ]


def neuron_choices() -> list[Choice]:
    """Activations, and threshold neurons as Bernoulli bits."""
    rng, hidden = np.random.Generator(np.random.SFC64(0)), (R, SIZES[1], B)
    v = rng.standard_normal(hidden, np.float32)
    logits = Logits(v[0], np.ones((1, 1), np.float32), hidden)
    return [
        Choice(
            "sigmoid as (1 + tanh(v/2))/2 (network.sigmoid)",
            lambda: sigmoid(v),
            "1/(1 + exp(−v))",
            lambda: 1 / (1 + np.exp(-v)),
        ),
        Choice(
            "threshold neurons drawn as bits (neurons.binary_neurons)",
            lambda: binary_neurons(logistic, logits, rng),
            "drawn as noise that is compared with 0",
            lambda: noisy_neurons(logistic, threshold, logits, rng),
        ),
    ]


def layout_choices() -> list[Choice]:
    """Neurons first in memory, products in pieces, and the replicates' sum before the first."""
    rng = np.random.default_rng(0)
    layers = new_network(SIZES, sigmoid, rng).layers
    batch = random_batch(SIZES, B)
    x, z, score = (empty_neurons_first(shape) for shape in ((100, 50, B), (R, 10, B), (R, 50, B)))
    for array in (x, z, score):
        array[:] = rng.standard_normal(array.shape, np.float32)
    z_by_pass = np.ascontiguousarray(z)
    copies = np.concatenate([batch.x] * R, axis=1)
    W, b = layers[1]
    return [
        Choice(
            "cross-entropy of neurons first in memory (arrays.empty_neurons_first)",
            lambda: cross_entropy(z, batch.y),
            "of passes first",
            lambda: cross_entropy(z_by_pass, batch.y),
        ),
        Choice(
            "output logits of 100 passes in pieces (passes.piece_size)",
            lambda: logits_of(layers[1], x),
            "in one product",
            lambda: W.T @ columns(x) + b[:, None],
        ),
        Choice(
            "first layer's product after the sum over R (estimator.layer_gradient)",
            lambda: batch.x @ np.einsum("rnb->nb", score).T,
            "with R copies of the batch",
            lambda: copies @ columns(score).T,
        ),
    ]


def core_choices() -> list[Choice]:
    """Two cores for large steps, of wide layers or of many replicates."""
    return [halves_choice([784, 500, 500, 10], R), halves_choice(SIZES, 1000)]


def halves_choice(sizes: list[int], replicates: int) -> Choice:
    """A step that is large enough to be done in halves, and the same in one."""
    step, name = glr_step(sizes, sigmoid, replicates, B), "-".join(map(str, sizes))

    def in_one() -> None:
        with patch.object(estimator, "HALVED_COST", math.inf):
            step()

    what = f"a step of {name} at R {replicates} in halves (estimator.step_cost)"
    return Choice(what, step, "in one", in_one)


def zero_one_choice() -> Choice:
    """LRTZ's step for a network that has begun to learn, with a loss that is known to be 0-1."""
    data, glr = benchmark_data(), script_methods()["LRTZ"]
    network = half_trained_network(glr, data, np.random.Generator(np.random.SFC64(0)))
    batch = Batch(data.x_train[:B].T, data.y_train[:B])
    unknown_to_glr = replace(glr, loss=partial(zero_one))
    return Choice(
        "a step of LRTZ, 0-1 loss evaluated where a neuron may turn it (differences.may_turn)",
        step_of(glr, network, batch),
        "everywhere",
        step_of(unknown_to_glr, network, batch),
    )


def compiled_choices() -> list[Choice]:
    """What the compiled step does; none without Numba."""
    if compiled is None:
        return []
    from numba import set_num_threads  # noqa: PLC0415

    step = glr_steps(SIZES, sigmoid, R, B)[COMPILED]

    def on_one_core() -> None:
        set_num_threads(1)
        step()
        set_num_threads(compiled.CORES)

    return [
        Choice(
            "a compiled step on two cores (compiled.write_batch_sums)",
            step,
            "on one",
            AtOnce(on_one_core, step.steps),
        ),
        training_choice(),
        product_choice("first layer's, 784-50-10", (B, 392, 50)),
        product_choice("first layer's, 784-500-500-10", (B, 392, 500)),
        product_choice("second layer's, 784-500-500-10", (64 * R, 500, 500)),
    ]


def training_choice() -> Choice:
    """Training steps of LRS, compiled: twenty in one call, or a call for each, NumPy descending."""
    from glr import compiled_training  # noqa: PLC0415  (Numba is no requirement)

    rng, data = np.random.Generator(np.random.SFC64(0)), benchmark_data()
    glr = replace(script_methods()["LRS"], gradient_of_group=compiled.gradient)
    sizes = [data.x_train.shape[1], *SIZES[1:]]
    run = Run(new_network(sizes, glr.activation, rng), glr_estimator(glr, rng))
    plan = plan_of(constants_of("LRS.py", []))
    batches = list(islice(minibatches(len(data.x_train), B, rng), 20))
    return Choice(
        f"a training step of LRS on {data.name}, compiled (compiled_training.take_steps)",
        AtOnce(lambda: compiled_training.take_steps(run, data, batches, plan), 20),
        "one in a call, descent by NumPy",
        AtOnce(lambda: take_steps(run, data, batches, plan), 20),
    )


def product_choice(which: str, shape: tuple[int, int, int]) -> Choice:
    """A core's share of a layer's product, of (rows, inner numbers, columns)."""
    rows, inner, columns = shape
    x, W, v = (np.ones(s, np.float32) for s in ((rows, inner), (inner, columns), (rows, columns)))
    return Choice(
        f"a core's product, the {which}, in blocks (compiled.block_of)",
        lambda: compiled.write_product(x, W, v),
        "in one",
        lambda: compiled.blas_multiply(x, W, np.float32(0), v),
    )
