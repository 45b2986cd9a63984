"""Training steps: a script's, the published algorithm's, and those of backpropagation.

Each function takes a script's name, more of its flags and the data, and returns a step: a call
without arguments that draws a minibatch, finds a gradient and updates the weights. One whose calls
take several has their number as `n_steps`.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice, pairwise
from types import ModuleType
from unittest.mock import patch

import numpy as np

from glr.data.datasets import Dataset
from glr.errors import GLRError
from glr.estimator import gradient
from glr.losses import losses_of
from glr.network import Array, Layer, accuracy, logits, sigmoid
from glr.scripts.backpropagation import Backpropagated, silent_stderr
from glr.scripts.constants import ROOT, SCRIPTS, as_typed, constants_of
from glr.scripts.machine import without_user_settings
from glr.scripts.run import Gradient, Run, layer_sizes, minibatches, run_generator
from glr.study.comparison import method_of
from glr.study.processes import outcome
from glr.study.published import PublishedEstimate, published_gradient

Step = Callable[[], object]
PUBLISHED_R = "10"  # replicates of the published step
JAX_STEPS = 100  # in a call; a run of a script takes up to 256


def numpy_step(script: str, flags: Sequence[str], data: Dataset, **changed: object) -> Step:
    """The script's own step; some arguments of `gradient` may be changed."""
    run = Run(constants_of(f"{script}.py", flags), data)
    return step_of(run, partial(gradient, **method_of(vars(run.constants)) | changed))


def jax_step(script: str, flags: Sequence[str], data: Dataset, **changed: object) -> Step:
    """The script's own steps by JAX; some names of glr/xla.py may be changed."""
    from glr import xla  # noqa: PLC0415  (no requirement)
    from glr.scripts import by_jax  # noqa: PLC0415

    run = Run(constants_of(f"{script}.py", [*flags, "--backend", "jax"]), data)
    batches = minibatches(len(data.x_train), run.constants.BATCH_SIZE, run_generator(0))
    by_jax.set_up()
    state, samples = by_jax.state_of(run), by_jax.samples_of(run)
    traced = xla.steps_of_rows

    def steps_of_rows(*arguments: object) -> object:  # a new function: JAX keeps what it traced
        return traced(*arguments)

    with patch.multiple(xla, **{"steps_of_rows": steps_of_rows, **changed}):  # till the first call
        program = by_jax.program_of(run)
        state, _ = xla.take_steps(program, state, samples, np.array([next(batches)]))

    def steps() -> None:
        nonlocal state
        rows = np.array(list(islice(batches, JAX_STEPS)))
        state, _ = xla.take_steps(program, state, samples, rows)

    steps.n_steps = JAX_STEPS
    return steps


def step_of(run: Run, estimate: Callable[..., Gradient]) -> Step:
    """A step of the run along what `estimate(layers, x, y, rng=…)` returns."""
    batches = minibatches(len(run.data.x_train), run.constants.BATCH_SIZE, run_generator(0))

    def step() -> None:
        rows = next(batches)
        x, y = run.data.x_train[rows], run.data.y_train[rows]
        run.descend(estimate(run.layers, x, y, rng=run.rng))

    return step


def published_step(
    script: str, flags: Sequence[str], data: Dataset, estimate: Callable = published_gradient
) -> Step:
    """The published algorithm, R 10 and SGD, with the script's activation and loss."""
    ours = constants_of(f"{script}.py", flags)
    functions = {name: getattr(ours, name.upper()) for name in ("activation", "loss")}
    words = [word for name, f in functions.items() for word in (f"--{name}", as_typed(f))]
    run = Run(constants_of("published.py", ["--replicates", PUBLISHED_R, *words, *flags]), data)
    return step_of(run, partial(estimate, replicates=run.constants.REPLICATES, **functions))


def released_gradient(  # noqa: PLR0913  (those of published_gradient)
    layers: Sequence[Layer],
    x: Array,
    y: np.ndarray,
    *,
    activation: Callable,
    loss: Callable,
    replicates: int,
    rng: np.random.Generator,
) -> PublishedEstimate:
    """published_gradient as the released code forms it: every outer product, then their mean.

    (Train&Test/LRS.py of github.com/LX-doctorAI1/GLR_ADV.) They are (R·B, n_in, n_out) floats: 2 GB
    in 784-500-500-10.
    """
    x, y = np.concatenate([x] * replicates), np.concatenate([y] * replicates)
    inputs, signs = [], []
    for t, (W, b) in enumerate(layers):
        r = rng.laplace(size=(len(x), b.size)).astype(np.float32)
        inputs.append(x)
        signs.append(np.sign(r))
        v = x @ W + b + r
        x = activation(v) if t < len(layers) - 1 else v
    losses = losses_of(loss, x.T, y)[:, None]
    found = []
    for x, sign in zip(inputs, signs, strict=True):
        outer = (x * losses)[:, :, None] * sign[:, None, :]
        found.append(Layer(outer.mean(axis=0), (losses * sign).mean(axis=0)))
    return PublishedEstimate(found, float(losses.mean()))


released_step = partial(published_step, estimate=released_gradient)


def backpropagated(
    layers: Sequence[Layer], x: Array, y: np.ndarray, *, rng: np.random.Generator | None = None
) -> Backpropagated:
    """The gradient of the mean cross-entropy of sigmoid neurons; nothing here is random."""
    inputs = [x]
    for W, b in layers[:-1]:
        inputs.append(sigmoid(inputs[-1] @ W + b))
    z = inputs[-1] @ layers[-1].W + layers[-1].b
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    own = np.arange(len(y)), y
    risk = -float(np.log(p[own]).mean())
    p[own] -= 1
    delta, found = p / np.float32(len(y)), []
    for t in reversed(range(len(layers))):
        found.insert(0, Layer(inputs[t].T @ delta, delta.sum(axis=0)))
        if t > 0:
            delta = (delta @ layers[t].W.T) * inputs[t] * (1 - inputs[t])
    return Backpropagated(found, risk)


def backpropagation_step(_script: str, flags: Sequence[str], data: Dataset) -> Step:
    """BP.py's step, but that NumPy finds the gradient."""
    return step_of(Run(constants_of("BP.py", flags), data), backpropagated)


def import_keras() -> ModuleType:
    """Keras by TensorFlow, in its own settings, without start-up notices."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silent_stderr(), without_user_settings():
        import keras  # noqa: PLC0415  (seconds, which -h does without)
    return keras


def keras_model(flags: Sequence[str], data: Dataset) -> object:
    """A compiled Keras model with BP.py's network and learning rate, by Adam."""
    keras, c = import_keras(), constants_of("BP.py", flags)
    keras.utils.set_random_seed(0)
    n_in, *hidden, classes = layer_sizes(data, c.HIDDEN)
    neurons = [keras.layers.Dense(n, activation="sigmoid") for n in hidden]
    model = keras.Sequential([keras.Input((n_in,)), *neurons, keras.layers.Dense(classes)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(c.LEARNING_RATE), loss=loss)
    return model


def keras_step(_script: str, flags: Sequence[str], data: Dataset) -> Step:
    """Backpropagation by Keras's train_on_batch."""
    model, size = keras_model(flags, data), constants_of("BP.py", flags).BATCH_SIZE
    batches = minibatches(len(data.x_train), size, run_generator(0))

    def step() -> None:
        rows = next(batches)
        model.train_on_batch(data.x_train[rows], data.y_train[rows])

    return step


def keras_curve(data: Dataset, every: int, goal: float) -> np.ndarray:
    """Keras's fit up to `goal` percent: rows step, seconds, test accuracy in percent, (3, n)."""
    model, curve, begun = keras_model([], data), [], [0.0]

    def begin(*_: object) -> None:
        begun[0] = time.perf_counter()

    def end(*_: object) -> None:
        seconds = time.perf_counter() - begun[0] + (curve[-1][1] if curve else 0)
        weights = iter(model.get_weights())
        output = logits([*map(Layer, weights, weights)], sigmoid, data.x_test)
        curve.append((len(curve) * every + every, seconds, 100 * accuracy(output, data.y_test)))
        model.stop_training = len(curve) > 1 and curve[-1][2] >= goal

    c = constants_of("BP.py", [])
    clock = import_keras().callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end)
    often = {"steps_per_epoch": every, "epochs": c.STEPS // every, "callbacks": [clock]}
    n = len(data.x_train) // (c.BATCH_SIZE * every) * c.BATCH_SIZE * every  # else Keras warns
    model.fit(data.x_train[:n], data.y_train[:n], batch_size=c.BATCH_SIZE, verbose=0, **often)
    return np.transpose(curve)


def script_curve(script: str, flags: Sequence[str]) -> np.ndarray:
    """keras_curve's rows of a run of the script, from the history that it writes."""
    path = SCRIPTS / f"{script}.py"
    files, says = outcome(ROOT, [str(path), *flags], lambda: True)
    if says:
        raise GLRError(f"{path.name}: {says}")
    (table,) = (data for name, data in files.items() if name.endswith(".csv"))
    rows = np.genfromtxt(io.BytesIO(table), delimiter=",", names=True)[1:]  # without step 0
    return np.array([rows["step"], rows["seconds"], 100 * rows["test_accuracy"]])


def pytorch_step(_script: str, flags: Sequence[str], data: Dataset) -> Step:
    """Backpropagation by PyTorch, with BP.py's network and learning rate, by Adam."""
    import torch  # noqa: PLC0415  (no requirement)

    c = constants_of("BP.py", flags)
    sizes = layer_sizes(data, c.HIDDEN)
    parts = [part for n in pairwise(sizes) for part in (torch.nn.Linear(*n), torch.nn.Sigmoid())]
    model, loss = torch.nn.Sequential(*parts[:-1]), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), c.LEARNING_RATE)
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    batches = minibatches(len(x), c.BATCH_SIZE, run_generator(0))

    def step() -> None:
        rows = torch.from_numpy(next(batches))
        optimizer.zero_grad()
        loss(model(x[rows]), y[rows]).backward()
        optimizer.step()

    return step
