"""What our step is timed against: the published algorithm and backpropagation.

Every function here returns a step without arguments for a network of the given sizes, on random
data: the time of a step does not depend on the values, as long as none is denormal (step_loops.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
from glr.passes import GLR, Batch
from measures import COMPILED, AtOnce
from threadpoolctl import ThreadpoolController

from glr.estimator import glr_gradient
from glr.losses import cross_entropy
from glr.network import Activation, Layer, Network, new_network, sigmoid, threshold
from glr.noise import logistic
from glr.scripts.backpropagation import import_keras

try:
    from glr import compiled
except ImportError:  # Numba is no requirement
    compiled = None

Step = Callable[[], object]
WAYS = {"": None}  # what computes our step, by how the names of its cases end
if compiled is not None:
    WAYS[COMPILED] = compiled.gradient
PAPER = [784, 50, 10]  # neurons of the published network
RATE, DECAY = np.float32(0.01), np.float32(1e-4)


def random_batch(sizes: list[int], B: int) -> Batch:
    """Random inputs and labels."""
    rng = np.random.default_rng(1)
    x = rng.random((B, sizes[0]), dtype=np.float32)
    return Batch(x.T, rng.integers(0, sizes[-1], B))


def sgd(layers: list[Layer], gradient: list[Layer]) -> None:
    """One step of SGD with an L2 penalty, in place, by NumPy."""
    for layer, estimate in zip(layers, gradient, strict=True):
        np.multiply(estimate.W, RATE, out=estimate.W)
        np.multiply(layer.W, 1 - RATE * DECAY, out=layer.W)
        np.subtract(layer.W, estimate.W, out=layer.W)
        np.subtract(layer.b, RATE * estimate.b, out=layer.b)


def plain_glr(activation: Activation, n_layers: int, R: int) -> GLR:
    """Our estimator pass by pass: one output draw, and no local differences, which need fewer."""
    return GLR(
        activation,
        cross_entropy,
        (1.0,) * n_layers,
        logistic,
        replicates=R,
        control_variate=R > 1,
        conditional_score=activation is threshold,
    )


def redrawn_glr(activation: Activation, n_layers: int) -> GLR:
    """Our estimator by differences, those of layers before the last hidden one by redraws.

    A pass and nine redraws: ten losses of ten noisy networks for a layer, as many as at R 10.
    """
    plain = plain_glr(activation, n_layers, 1)
    return replace(plain, local_differences=True, redraws=9)


def glr_step(sizes: list[int], activation: Activation, R: int, B: int) -> Step:
    """Ours, in NumPy."""
    return glr_steps(sizes, activation, R, B)[""]


def glr_steps(sizes: list[int], activation: Activation, R: int, B: int) -> dict[str, Step]:
    """Ours, by what computes it: NumPy, and Numba where that is installed."""
    return new_steps(plain_glr(activation, len(sizes) - 1, R), sizes, B)


def new_steps(glr: GLR, sizes: list[int], B: int) -> dict[str, Step]:
    """Our estimator's steps for a new network and a random batch, one for each of WAYS."""
    network = new_network(sizes, glr.activation, np.random.default_rng(0))
    return steps_of(glr, network, random_batch(sizes, B))


def steps_of(glr: GLR, network: Network, batch: Batch) -> dict[str, Step]:
    """Our estimator's steps for a network and a batch, one for each of WAYS."""
    return {
        name: step_of(replace(glr, gradient_of_group=way), network, batch)
        for name, way in WAYS.items()
    }


def step_of(glr: GLR, network: Network, batch: Batch) -> Step:
    """Our estimator's step for a network and a batch; compiled, it is many steps in one call."""
    layers = network.layers
    streams = np.random.Generator(np.random.SFC64(0)).spawn(len(layers))
    if glr.gradient_of_group is None:
        return lambda: sgd(layers, glr_gradient(glr, layers, batch, streams).layers)
    import step_loops  # noqa: PLC0415  (Numba is no requirement)

    step = compiled.step_of(glr, layers, batch, streams)
    steps = step_loops.steps_of(step, streams, float(RATE), float(DECAY))
    return AtOnce(steps, step_loops.AT_ONCE)


def published_gradient(
    layers: list[Layer], activation: Activation, batch: Batch, R: int, rng: np.random.Generator
) -> list[Layer]:
    """The published algorithm in NumPy, its operations in the order of the released code.

    (Train&Test/LRS.py of github.com/LX-doctorAI1/GLR_ADV.) The batch is copied R times, Laplace
    noise of scale σ = 1 is drawn in float64 and added to the logits of every layer, the layer's
    input is multiplied by the loss, its outer products with the noise's sign (R·B × n_in × n_out)
    are formed, divided by σ, and averaged. No control variate.
    """
    x, y = np.concatenate([batch.x.T] * R), np.concatenate([batch.y] * R)
    inputs, signs, sigma = [], [], np.float32(1)
    for t, (W, b) in enumerate(layers):
        inputs.append(x)
        r = rng.laplace(0.0, sigma, (len(x), b.size)).astype(np.float32)
        signs.append(np.sign(r))
        v = x @ W + b + r
        x = v if t == len(layers) - 1 else activation(v)
    losses = cross_entropy(x.T, y)[:, None]
    gradient = []
    for layer_input, sign in zip(inputs, signs, strict=True):
        outer = (layer_input * losses)[:, :, None] * sign[:, None, :]
        outer /= sigma
        gradient.append(Layer(outer.mean(axis=0), (losses * sign / sigma).mean(axis=0)))
    return gradient


def published_step(sizes: list[int], activation: Activation, R: int, B: int) -> Step:
    """The published algorithm's step."""
    rng = np.random.default_rng(0)
    network, batch = new_network(sizes, activation, rng), random_batch(sizes, B)
    layers = network.layers
    return lambda: sgd(layers, published_gradient(layers, activation, batch, R, rng))


def pytorch_weights(layers: list[Layer]) -> list:
    """The weights of every layer as PyTorch tensors, the first one's with its biases below."""
    import torch  # noqa: PLC0415  (no requirement)

    (W, b), *others = layers
    return [torch.from_numpy(W) for W in (np.vstack([W, b]), *(W.copy() for W, _ in others))]


def published_pytorch_step(sizes: list[int], activation: Activation, R: int, B: int) -> Step | None:
    """The published algorithm's step in PyTorch, which it was written in; None where that is not.

    As published_gradient, and as the released code has it: NumPy's Laplace noise, a one-hot
    cross-entropy of the softmax, and a constant 1 as the input of the first layer's biases (the
    other layers have none).
    """
    try:
        import torch  # noqa: PLC0415  (no requirement)
    except ImportError:
        return None
    rng, sigma = np.random.default_rng(0), 1.0
    network, batch = new_network(sizes, activation, rng), random_batch(sizes, B)
    weights = pytorch_weights(network.layers)
    samples = torch.from_numpy(np.ascontiguousarray(batch.x.T))
    labels = torch.nn.functional.one_hot(torch.from_numpy(batch.y), sizes[-1]).float()
    phi = torch.sigmoid if activation is sigmoid else lambda v: (v > 0).float()

    def step() -> None:
        copies, y = torch.cat([samples] * R), torch.cat([labels] * R)
        x, inputs, signs = torch.cat([copies, torch.ones(len(copies), 1)], dim=1), [], []
        for t, W in enumerate(weights):
            inputs.append(x)
            noise = rng.laplace(0.0, sigma, (len(x), W.shape[1]))
            r = torch.from_numpy(noise).to(torch.float32)
            signs.append(torch.sign(r))
            v = x @ W + r
            x = torch.softmax(v, dim=1) if t == len(weights) - 1 else phi(v)
        losses = -(y * torch.log(x)).sum(dim=1, keepdim=True)
        for W, layer_input, sign in zip(weights, inputs, signs, strict=True):
            outer = torch.einsum("ni,nj->nij", layer_input * losses, sign)
            outer /= sigma
            W.sub_(float(RATE) * (outer.mean(dim=0) + float(DECAY) * W))

    return step


def numpy_backpropagation_step(sizes: list[int], B: int) -> Step:
    """Backpropagation through sigmoids and cross-entropy, in plain NumPy; samples are rows."""
    layers = new_network(sizes, sigmoid, np.random.default_rng(0)).layers
    batch = random_batch(sizes, B)

    def step() -> None:
        xs = [batch.x.T]
        for W, b in layers:
            v = xs[-1] @ W + b
            xs.append(sigmoid(v))
        delta = np.exp(v - v.max(axis=1, keepdims=True))
        delta /= delta.sum(axis=1, keepdims=True)
        delta[np.arange(B), batch.y] -= 1
        delta /= B
        gradient = []
        for t in reversed(range(len(layers))):
            gradient.append(Layer(xs[t].T @ delta, delta.sum(axis=0)))
            if t > 0:
                delta = (delta @ layers[t].W.T) * (xs[t] * (1 - xs[t]))
        sgd(layers, gradient[::-1])

    return step


def numpy_backpropagation_step_on_two_cores(sizes: list[int], B: int) -> Step:
    """The same with each product shared out to two cores by BLAS."""
    step, blas = numpy_backpropagation_step(sizes, B), ThreadpoolController()

    def step_on_two_cores() -> None:
        with blas.limit(limits=2):
            step()

    return step_on_two_cores


def keras_step(sizes: list[int], B: int) -> Step:
    """Backpropagation by Keras: train_on_batch with SGD."""
    keras, _ = import_keras()
    hidden = [keras.layers.Dense(n, activation="sigmoid") for n in sizes[1:-1]]
    model = keras.Sequential([keras.Input((sizes[0],)), *hidden, keras.layers.Dense(sizes[-1])])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(float(RATE)), loss=loss)
    batch = random_batch(sizes, B)
    x = np.ascontiguousarray(batch.x.T)
    return lambda: model.train_on_batch(x, batch.y)


def pytorch_step(sizes: list[int], B: int) -> Step | None:
    """Backpropagation by PyTorch with SGD; None where it is not installed."""
    try:
        import torch  # noqa: PLC0415  (no requirement)
    except ImportError:
        return None
    parts = []
    for n_in, n_out in pairwise(sizes):
        parts += [torch.nn.Linear(n_in, n_out), torch.nn.Sigmoid()]
    model, loss = torch.nn.Sequential(*parts[:-1]), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), float(RATE), weight_decay=float(DECAY))
    batch = random_batch(sizes, B)
    x, y = torch.from_numpy(np.ascontiguousarray(batch.x.T)), torch.from_numpy(batch.y)

    def step() -> None:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()

    return step
