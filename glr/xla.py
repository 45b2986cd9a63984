"""Training steps by JAX: the estimate of glr/estimator.py and its descent, many steps in a call.

JAX compiles a loop over the steps around a loop over the noisy passes, for the processor or a GPU.
Arrays are those of one pass, the neurons first and the samples last, (n, B). Weights are (n_out,
n_in): the other way round, the first layer's products take a quarter longer. Equation numbers are
those of docs/method.md; benchmarks/results/bench.md has what most choices for speed buy.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, tree

import glr.losses
from glr import network, optimizers
from glr.estimator import Method
from glr.network import Layer
from glr.neurons import TINY
from glr.noise import WORDS
from glr.optimizers import BETA_1, BETA_2, Optimizer, Schedule
from glr.xla_noise import LAWS, keys_of_step, random_words, words_of_next_pass

MOST_STEPS = 256  # of a call: arguments of one shape, so that one program takes any number of steps

Layers = list[Layer]


class Plan(NamedTuple):
    """How the gradient is descended, in so many steps in all: constants of a training script."""

    optimizer: Optimizer
    schedule: Schedule
    steps: int
    learning_rate: float
    weight_decay: float
    centralised_gradient: bool
    adversarial_epsilon: float


class State(NamedTuple):
    """What a step changes, and the two words of its seed, which stay.

    optimizer : its arrays by name; what has a number for each parameter is in the form of layers
    perturbation : of adversarial training, (n_in, B); None without
    """

    layers: Layers
    optimizer: dict
    step: jax.Array
    seed: jax.Array
    perturbation: jax.Array | None


# ---------------------------------------------------------------- activations and losses


def by_class(logits: jax.Array) -> list[jax.Array]:
    """The logits (…, classes, B) of each class, (…, B).

    XLA makes one vectorised loop of arithmetic with them. Reductions over the axis of classes make
    a step of LRTZ a third longer.
    """
    return [logits[..., j, :] for j in range(logits.shape[-2])]


def label_logits(logits: jax.Array, y: jax.Array) -> jax.Array:
    """The logit of each sample's own class, (…, B)."""
    found, *others = by_class(logits)
    for j, logit in enumerate(others, 1):
        found = jnp.where(y == j, logit, found)
    return found


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """As in glr.losses."""
    largest = logits.max(axis=-2)
    total = sum(jnp.exp(logit - largest) for logit in by_class(logits))
    return jnp.log(total) + largest - label_logits(logits, y)


def zero_one(logits: jax.Array, y: jax.Array) -> jax.Array:
    """As in glr.losses, the label's logit compared with the others alone.

    XLA may compute a logit once more where it is used again, and round it otherwise there.
    """
    label = label_logits(logits, y)
    if logits.ndim == 2:
        # Of a pass's own logits by a reduction, the result of which XLA keeps. The rest it would
        # compute over for every neuron that it is compared with.
        is_larger = ~(logits <= label) & (jnp.arange(len(logits))[:, None] != y)
        return is_larger.any(axis=0)
    is_larger = [~(logit <= label) & (y != j) for j, logit in enumerate(by_class(logits))]
    return functools.reduce(jnp.logical_or, is_larger)


ACTIVATIONS = {
    network.sigmoid: lambda v: 0.5 + 0.5 * jnp.tanh(0.5 * v),
    network.threshold: lambda v: v > 0,
    network.tanh: jnp.tanh,
    network.relu: jax.nn.relu,
}
LOSSES = {glr.losses.cross_entropy: cross_entropy, glr.losses.zero_one: zero_one}


def outputs_of(method: Method, v: jax.Array) -> jax.Array:
    """φ(v) as float32."""
    return jnp.asarray(ACTIVATIONS.get(method.activation, method.activation)(v), jnp.float32)


def losses_of(method: Method, logits: jax.Array, y: jax.Array) -> jax.Array:
    """The losses (…, B) of logits (…, classes, B) as float32.

    A loss of one's own may compare a logit with itself, and so takes them from memory (see
    zero_one): XLA fuses no product, and this one, by 1 and 0, is exact.
    """
    if method.loss in LOSSES:
        losses = LOSSES[method.loss](logits, y)
    else:
        kept = jnp.matmul(jnp.eye(logits.shape[-2]), logits, precision="highest")
        losses = method.loss(kept, y)
    return jnp.asarray(losses, jnp.float32)


# ---------------------------------------------------------------- the estimate


class Neurons(NamedTuple):
    """A layer's neurons in one pass, (n, B): NoisyNeurons or Bits of glr.neurons.

    noise : of the logits, of deviation `scale`, () or (B,); of bits None
    change, weighed_score : what reversed noise changes in the outputs; the score times P
    """

    outputs: jax.Array
    noise: jax.Array | None
    scale: jax.Array
    score: jax.Array
    change: jax.Array
    weighed_score: jax.Array


Draw = Callable[[jax.Array], Neurons]  # by random words (n, B)


def noisy_layer(method: Method, layers: Layers, t: int, x: jax.Array) -> Draw:
    """What makes layer t's neurons of words: what passes of the same inputs share is done once.

    x : inputs (n_in, B)
    """
    (W, b), law, is_output = layers[t], LAWS[method.noise], t == len(layers) - 1
    v, scale = W @ x + b[:, None], noise_scale(method, t, x)

    def neurons(words: jax.Array) -> Neurons:
        r, score = law.draw(words)
        noise = scale * r
        up, down = v + noise, v - noise
        if not is_output:
            up, down = outputs_of(method, up), outputs_of(method, down)
        return Neurons(up, noise, scale, score, down - up, 0.5 * score)

    if method.activation is not network.threshold or is_output:
        return neurons
    p, q, f = law.cdf(v / scale), law.cdf(-v / scale), law.pdf(v / scale)
    level = jnp.minimum(p * WORDS, WORDS - 2**8).astype(jnp.uint32)

    def bits(words: jax.Array) -> Neurons:
        x = (words < level).astype(jnp.float32)
        score = x * (f / jnp.maximum(p, TINY)) - (1 - x) * (f / jnp.maximum(q, TINY))  # (3)
        change = 1 - 2 * x
        return Neurons(x, None, scale, score, change, -change * f)

    return bits


def noise_scale(method: Method, t: int, x: jax.Array) -> jax.Array:
    """The deviation of layer t's noise: σ; of noise on the weights σ√(1 + ‖x‖²), (B,)."""
    sigma = np.float32(method.sigma[t])
    return sigma if method.perturb == "logits" else sigma * jnp.sqrt(1 + jnp.square(x).sum(axis=0))


def gradient(
    method: Method, layers: Layers, x: jax.Array, y: jax.Array, keys: jax.Array
) -> tuple[Layers, jax.Array, jax.Array]:
    """Equation (1) for every layer, averaged over the batch; the mean loss of the passes; ∂E[L]/∂x.

    x : inputs (n_in, B)
    keys : of the layers, see keys_of_step
    """
    first_neurons = noisy_layer(method, layers, 0, x)
    shapes = [(len(b), len(y)) for _, b in layers]
    first_words = [random_words(key, shape) for key, shape in zip(keys, shapes, strict=True)]

    def next_words(words: list[jax.Array]) -> list[jax.Array]:
        return [words_of_next_pass(method, *given) for given in zip(keys, words, strict=True)]

    def noisy_pass(words: list[jax.Array]) -> tuple[list[Neurons], jax.Array]:
        neurons = [first_neurons(words[0])]
        for t in range(1, len(layers)):
            neurons_of = noisy_layer(method, layers, t, neurons[-1].outputs)
            neurons.append(neurons_of(words[t]))
        return neurons, losses_of(method, neurons[-1].outputs, y)

    def losses_of_pass(words: list[jax.Array], _: None) -> tuple[list[jax.Array], jax.Array]:
        return next_words(words), noisy_pass(words)[1]

    def one_pass(carry: tuple, factors: jax.Array | None) -> tuple[tuple, tuple]:
        words, first_sum = carry
        neurons, losses = noisy_pass(words)
        *hidden, output = neurons
        if method.local_differences:
            last = hidden[-1:] if method.local_differences is True else []
            found = local_scores(method, layers[-1].W, last, output, losses, y)
            for t in reversed(range(len(layers) - len(found))):
                found.insert(0, carried_back(hidden[t], layers[t + 1].W, found[0]))
        else:
            found = [layer.score * factors / layer.scale for layer in neurons]
        carry = next_words(words), first_sum + found[0]
        return carry, (losses, [layer.outputs for layer in hidden], found[1:])

    factors = None
    if not method.local_differences:  # the mean (2) is over all passes: each is run twice
        _, losses = lax.scan(losses_of_pass, first_words, length=method.replicates)
        factors = centred(method, losses)
    carry = first_words, jnp.zeros(shapes[0])
    (_, first), found = lax.scan(one_pass, carry, factors, length=method.replicates)
    losses, inputs, others = found
    weight = 1 / losses.size  # of a pass and sample in the mean
    if method.standardised_loss:
        weight = weight / deviation_and_share_right(losses)
    first = first * weight
    found = [Layer(first @ x.T, first.sum(axis=1))]  # the passes share these inputs
    for x_t, delta in zip(inputs, others, strict=True):  # (R, n, B)
        weighted = delta * weight
        W = jnp.einsum("rib,rjb->ij", weighted, x_t)
        found.append(Layer(W, weighted.sum(axis=(0, 2))))
    return found, losses.mean(), layers[0].W.T @ first


def local_scores(  # noqa: PLR0913, PLR0917  (all there is of a pass)
    method: Method,
    W: jax.Array,
    hidden: list[Neurons],
    output: Neurons,
    losses: jax.Array,
    y: jax.Array,
) -> list[jax.Array]:
    """s·P·(L − L⁻)/σ (4), (5), of the output layer and perhaps of the last hidden one."""
    found = []
    for layer, effect in [*((layer, W) for layer in hidden), (output, jnp.eye(len(W)))]:
        moved = output.outputs + effect.T[:, :, None] * layer.change[:, None]  # (n, classes, B)
        if method.perturb == "weights" and layer is not output:
            moved += noise_growth(layer)[:, None] * output.noise
        differences = losses - losses_of(method, moved, y)
        found.append(layer.weighed_score * differences / layer.scale)
    return found


def noise_growth(layer: Neurons) -> jax.Array:
    """By what part of it the next layer's weight noise grows with each neuron's change alone."""
    x, change = layer.outputs, layer.change
    return jnp.sqrt(1 + change * (2 * x + change) / (1 + jnp.square(x).sum(axis=0))) - 1


def carried_back(layer: Neurons, W: jax.Array, delta: jax.Array) -> jax.Array:
    """½·s·(x − x⁻)·Σ_k W_k δ_k/σ (8): the next layer's δ, through its weights W."""
    return -0.5 * layer.score * layer.change * (W.T @ delta) / layer.scale


def centred(method: Method, losses: jax.Array) -> jax.Array:
    """Losses (R, B) less the mean loss of the sample's other passes (2)."""
    if not method.control_variate:
        return losses
    return (losses - losses.mean(axis=0)) * (len(losses) / (len(losses) - 1))


def deviation_and_share_right(losses: jax.Array) -> jax.Array:
    """√(q(1 − q)) + q, (B,), from 0-1 losses (R, B); q is (right passes + 1)/(R + 2)."""
    q = ((1 - losses).sum(axis=0) + 1) / (len(losses) + 2)
    return jnp.sqrt(q * (1 - q)) + q


# ---------------------------------------------------------------- the descent


def sgd(layers: Layers, slopes: Layers, rate: jax.Array, state: dict) -> tuple[Layers, dict]:
    """As in glr.optimizers: the new layers and state."""
    return tree.map(lambda w, g: w - rate * g, layers, slopes), state


def adagrad(layers: Layers, slopes: Layers, rate: jax.Array, state: dict) -> tuple[Layers, dict]:
    """As in glr.optimizers: the new layers and state."""
    total = tree.map(lambda s, g: s + g * g, state["squares"], slopes)
    layers = tree.map(lambda w, g, s: w - rate * g / (jnp.sqrt(s) + 1e-10), layers, slopes, total)
    return layers, {"squares": total}


def adam(layers: Layers, slopes: Layers, rate: jax.Array, state: dict) -> tuple[Layers, dict]:
    """As in glr.optimizers: the new layers and state."""
    step = state["step"] + 1
    root = jnp.sqrt(-jnp.expm1(step * math.log(BETA_2)))  # √(1 − β₂^step)
    factor = rate * root / -jnp.expm1(step * math.log(BETA_1))
    mean = tree.map(lambda m, g: m + (1 - BETA_1) * (g - m), state["mean"], slopes)
    square = tree.map(lambda v, g: v + (1 - BETA_2) * (g * g - v), state["square"], slopes)
    layers = tree.map(
        lambda w, m, v: w - factor * (m / (jnp.sqrt(v) + 1e-8 * root)), layers, mean, square
    )
    return layers, {"mean": mean, "square": square, "step": step}


OPTIMIZERS = {optimizers.sgd: sgd, optimizers.adagrad: adagrad, optimizers.adam: adam}
SCHEDULES = {
    optimizers.cosine: lambda step, steps: 0.5 * (1 + jnp.cos(math.pi / steps * step)),
    optimizers.tenths: lambda step, steps: 0.8 ** (10 * step // steps),
    optimizers.constant: lambda step, steps: 1.0,
}


def descend(plan: Plan, state: State, gradients: Layers) -> State:
    """The state after a step along the gradients and the weight decay."""
    slopes = [
        Layer(found.W + plan.weight_decay * layer.W, found.b)
        for found, layer in zip(gradients, state.layers, strict=True)
    ]
    if plan.centralised_gradient:
        mean = gradients[0].W.mean(axis=1, keepdims=True)
        slopes[0] = slopes[0]._replace(W=slopes[0].W - mean)
    rate = plan.learning_rate * SCHEDULES[plan.schedule](state.step, plan.steps)
    layers, optimizer = OPTIMIZERS[plan.optimizer](state.layers, slopes, rate, state.optimizer)
    return state._replace(layers=layers, optimizer=optimizer, step=state.step + 1)


# ---------------------------------------------------------------- many steps


Program = Callable[[State, tuple, np.ndarray], tuple[State, jax.Array]]


def program(method: Method, plan: Plan, estimator: Callable = gradient) -> Program:
    """As take_steps, compiled, with rows (MOST_STEPS, B): those of −1 are no minibatch.

    estimator : `gradient`, or another that takes and returns the same
    """

    def steps_of_rows(state: State, data: tuple, rows: jax.Array) -> tuple[State, jax.Array]:
        x, y = data

        def step(i: jax.Array, carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
            state, risks = carry
            keys = keys_of_step(state.seed, state.step, len(state.layers))
            batch, eta, epsilon = x[rows[i]].T, state.perturbation, plan.adversarial_epsilon
            if eta is not None:  # as in glr.scripts.adversarial
                batch = jnp.clip(batch + eta, 0, 1)
            gradients, risk, inputs = estimator(method, state.layers, batch, y[rows[i]], keys)
            if eta is not None:
                moved = jnp.clip(eta + epsilon * jnp.sign(inputs), -epsilon, epsilon)
                state = state._replace(perturbation=moved)
            return descend(plan, state, gradients), risks.at[i].set(risk)

        n = (rows[:, 0] >= 0).sum()
        return lax.fori_loop(0, n, step, (state, jnp.zeros(len(rows))))

    return jax.jit(steps_of_rows, donate_argnums=0, compiler_options=cpu_options())


def cpu_options() -> dict[str, int] | None:
    """What XLA is told on a processor.

    By vectors of its choice a step of LRTZ takes a quarter longer, where 512 bits are had.
    """
    return {"xla_cpu_prefer_vector_width": 512} if jax.default_backend() == "cpu" else None


def take_steps(
    compiled: Program, state: State, data: tuple, rows: np.ndarray
) -> tuple[State, np.ndarray]:
    """The state after a step with each minibatch, and their mean losses (S,).

    state : on the device; what is given is used up
    data : all inputs x (N, n_in) and targets y (N, …), on the device
    rows : of data in each minibatch, (S, B), S ≤ MOST_STEPS
    """
    padded = np.full((MOST_STEPS, rows.shape[1]), -1, np.int32)
    padded[: len(rows)] = rows
    state, risks = compiled(state, data, padded)
    return state, np.asarray(risks)[: len(rows)]
