"""The steps of a run by JAX (BACKEND = "jax"), many in a call; those of BP.py, too.

And `glr.gradient` by JAX, for the classifier.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from glr import xla
from glr.checks import check_method, checked_sigma, sigma_by_layer
from glr.errors import GLRError
from glr.estimator import Method
from glr.losses import zero_one
from glr.network import Layer, layer_views, threshold
from glr.optimizers import Optimizer, adam, cosine
from glr.scripts.backpropagation import TRAINING_SLOPE, Backpropagated, check_differentiable
from glr.scripts.constants import name_of
from glr.scripts.own_code import own_error
from glr.storage.checkpoint import State
from glr.storage.files import user_path
from glr.xla_noise import LAWS, keys_of_step, random_words

if TYPE_CHECKING:
    from glr.scripts.run import Run

SETTINGS = {  # of JAX, by which glr/xla.py computes, whatever the environment has
    **dict.fromkeys(("jax_enable_x64", "jax_disable_jit"), False),
    **dict.fromkeys(("jax_numpy_rank_promotion", "jax_transfer_guard"), "allow"),
    "jax_numpy_dtype_promotion": "standard",
}
ONE_PASS = {  # what BP.py does not say
    **dict.fromkeys(("control_variate", "standardised_loss"), False),
    **{"replicates": 1, "local_differences": True},
}


def take_all_steps(run: Run) -> None:
    """Take the steps that are left to a run; raises as its `minibatches` and `descend`."""
    arrays, samples = run.state, samples_of(run)
    program = program_of(run)

    def taken(state: xla.State, rows: np.ndarray) -> xla.State:
        state, risks = xla.take_steps(program, state, samples, rows)
        if len(rows) > 1 and not is_finite(state, risks):
            state = state_of(run)
            for row in rows:  # which of them leaves the finite numbers
                state = taken(state, row[None])
            return state
        write_back(state, arrays)
        arrays.step += len(rows)
        with np.errstate(over="ignore", invalid="ignore"):
            run.check_finite(float(risks.sum()))
        arrays.risks += risks.tolist()
        return state

    state = state_of(run)
    for rows in run.legs(xla.MOST_STEPS):
        state = taken(state, rows)


def program_of(run: Run) -> xla.Program:
    """The program of a run's method and descent, compiled in its first call."""
    plan = plan_of(run.constants)._replace(centralised_gradient=run.is_centralised)
    estimator = xla.gradient if has_passes(run.constants) else backpropagated
    return xla.program(method_of(run.constants), plan, estimator)


def has_passes(constants: SimpleNamespace) -> bool:
    """Whether it is a GLR script: BP.py has none."""
    return hasattr(constants, "REPLICATES")


def backpropagated(
    method: Method, layers: xla.Layers, x: jax.Array, y: jax.Array, keys: jax.Array
) -> tuple[xla.Layers, jax.Array, jax.Array]:
    """As glr.xla.gradient, by differentiation of the loss of one pass; noisy where σ is not 0.

    Of threshold neurons that is the straight-through estimate, as in glr.scripts.backpropagation.
    """

    def risk(layers: xla.Layers, x: jax.Array) -> jax.Array:
        for t, (W, b) in enumerate(layers):
            v = W @ x + b[:, None]
            if method.sigma[t] > 0:
                noise, _ = xla.LAWS[method.noise].draw(random_words(keys[t], v.shape))
                v += xla.noise_scale(method, t, x) * noise
            x = xla.outputs_of(method, v)
            if method.activation is threshold:
                smooth = jax.nn.sigmoid(TRAINING_SLOPE * v)
                x = smooth + lax.stop_gradient(x - smooth)  # x, with the derivative of smooth
        return xla.losses_of(method, v, y).mean()

    found, (gradients, inputs) = jax.value_and_grad(risk, (0, 1))(layers, x)
    return gradients, found, inputs


@lru_cache(16)
def compiled_gradient(method: Method) -> Callable[..., Backpropagated]:
    """`glr.gradient` of a method, compiled for each shape; GLRError for what is not covered."""
    check_covered(method, SimpleNamespace(optimizer=adam, schedule=cosine))

    @partial(jax.jit, compiler_options=xla.cpu_options())
    def compiled(layers: xla.Layers, x: jax.Array, y: jax.Array, seed: jax.Array) -> Backpropagated:
        keys = keys_of_step(seed, np.uint32(0), len(layers))
        turned = [Layer(W.T, b) for W, b in layers]  # as the arrays of glr/xla.py lie
        found, risk, inputs = xla.gradient(method, turned, x.T, y, keys)
        return Backpropagated([Layer(W.T, b) for W, b in found], risk, inputs.T)

    def gradient(
        layers: list[Layer], x: np.ndarray, y: np.ndarray, rng: np.random.Generator
    ) -> Backpropagated:
        seed = rng.integers(2**32, size=2, dtype=np.uint32)
        return jax.device_get(compiled(layers, x, y.astype(np.int32), seed))

    return gradient


def samples_of(run: Run) -> tuple[jax.Array, jax.Array]:
    """The training set's x (N, n_in) and y (N,) on the device."""
    return jax.device_put((run.data.x_train, run.data.y_train.astype(np.int32)))


def state_of(run: Run) -> xla.State:
    """A run's state on the device; the optimizer's arrays are zeros before the first step."""
    arrays, optimizer = run.state, run.constants.OPTIMIZER
    if not arrays.optimizer:
        arrays.optimizer.update(first_arrays(optimizer, arrays.parameters))
    seed = run.rng.bit_generator.seed_seq.generate_state(2)  # whatever it has drawn since
    return new_state(arrays, run.network.sizes, seed)


def is_finite(state: xla.State, risks: np.ndarray) -> bool:
    """Whether all losses, and the weights' norm, are finite, as the run's check_finite has it."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = [np.vdot(part, part) for part in map(np.asarray, jax.tree.leaves(state.layers))]
        return bool(np.isfinite(np.sum(squares, dtype=np.float32) + risks.sum()))


def first_arrays(optimizer: Optimizer, parameters: np.ndarray) -> dict[str, np.ndarray]:
    """An optimizer's arrays before the first step: zeros."""
    zeros, state = np.zeros_like(parameters), {}
    optimizer(zeros, zeros, 0.0, state)
    return {name: np.zeros_like(array) for name, array in state.items()}


def new_state(arrays: State, sizes: Sequence[int], seed: np.ndarray) -> xla.State:
    """The state on the device; from that of a run, and two words of a seed."""
    parameters, perturbation = arrays.parameters, arrays.perturbation

    def in_layers(array: np.ndarray) -> xla.Layers | np.ndarray:
        if array.shape != parameters.shape:
            return np.array(array)
        return [Layer(np.array(W.T, order="C"), np.array(b)) for W, b in layer_views(array, sizes)]

    optimizer = {name: in_layers(array) for name, array in arrays.optimizer.items()}
    eta = None if perturbation is None else np.array(perturbation.T, order="C")
    return jax.device_put(
        xla.State(in_layers(parameters), optimizer, np.int32(arrays.step), seed, eta)
    )


def write_back(state: xla.State, arrays: State) -> None:
    """Write the state into the arrays that it was made from."""
    pairs = [(arrays.optimizer[name], found) for name, found in state.optimizer.items()]
    for array, found in [(arrays.parameters, state.layers), *pairs]:
        if isinstance(found, list):
            parts = [part for W, b in found for part in (np.ravel(np.transpose(W)), b)]
            np.concatenate(parts, out=array)
        else:
            array[...] = found
    if state.perturbation is not None:
        arrays.perturbation[:] = np.transpose(state.perturbation)


def method_of(constants: SimpleNamespace) -> Method:
    """The estimator that the constants describe."""
    chosen = ONE_PASS | {name.lower(): value for name, value in vars(constants).items()}
    sigmas = checked_sigma if has_passes(constants) else sigma_by_layer
    chosen["sigma"] = sigmas(constants.SIGMA, len(constants.HIDDEN) + 1)
    return Method(**{field.name: chosen[field.name] for field in fields(Method)})


def plan_of(constants: SimpleNamespace) -> xla.Plan:
    """The descent that the constants describe."""
    return xla.Plan(*(getattr(constants, name.upper()) for name in xla.Plan._fields))


def prepare(constants: SimpleNamespace) -> None:
    """Set JAX up; raise GLRError, naming it, for a constant that is not covered."""
    set_up()
    if not has_passes(constants):
        check_differentiable(constants.LOSS)
    check_covered(method_of(constants), plan_of(constants))


def set_up() -> None:
    """Have JAX compute by one thread, and keep what it compiles in the user's cache folder.

    XLA's rounding depends on the number of threads. PJRT_NPROC sets another number before JAX
    computes anything, JAX_COMPILATION_CACHE_DIR another folder.
    """
    os.environ.setdefault("PJRT_NPROC", "1")
    for name, value in SETTINGS.items():
        jax.config.update(name, value)
    if jax.config.jax_compilation_cache_dir is None:
        cache = user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "glr" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # of JAX_PLATFORMS
        reason = str(error).partition("\n")[0] or "JAX finds nothing that JAX_PLATFORMS names"
        raise GLRError(f'BACKEND = "jax": {reason}; or take another BACKEND') from error


def check_covered(method: Method, plan: xla.Plan) -> None:
    """Raise GLRError, naming it, for no method, and for what glr/xla.py does not do."""
    check_method(method, np.random.default_rng(0))
    for name, value, covered in (
        ("NOISE", method.noise, LAWS),
        ("OPTIMIZER", plan.optimizer, xla.OPTIMIZERS),
        ("SCHEDULE", plan.schedule, xla.SCHEDULES),
    ):
        if value not in covered:
            refuse(name, value, f"takes {', '.join(str(name_of(item)) for item in covered)} alone")
    if method.standardised_loss and method.loss is not zero_one:
        refuse("STANDARDISED_LOSS", True, "takes the loss zero_one alone")
    v, y = jnp.zeros((5, 64)), jnp.zeros(64, jnp.int32)  # 64 samples
    moved = jnp.zeros((5, 3, 64))  # 3 classes
    check_traced("ACTIVATION", method.activation, partial(xla.outputs_of, method), v.shape, v)
    check_traced("LOSS", method.loss, partial(xla.losses_of, method), v.shape, moved, y)


def check_traced(
    name: str, function: Callable, call: Callable, shape: tuple[int, ...], *arguments: jax.Array
) -> None:
    """Raise GLRError unless JAX can compile the call of a function, which gives the shape."""
    try:
        found = jax.eval_shape(call, *arguments).shape
    except Exception as error:  # of someone's code: anything
        reason = own_error(error) or f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        refuse(name, function, f"cannot compile it ({reason}); write it with jax.numpy", error)
    if found != shape:
        refuse(name, function, f"got shape {found} from it for shape {arguments[0].shape}")


def refuse(name: str, value: object, why: str, cause: Exception | None = None) -> NoReturn:
    """Raise GLRError for a constant."""
    message = f'{name} = {name_of(value)}: BACKEND = "jax" {why}; or take another BACKEND'
    raise GLRError(message) from cause
