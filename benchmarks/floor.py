"""The floor of a step on this machine: random numbers + activations + matrix products.

Each is measured alone, into memory that it has, in every way that we know; the best one counts.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from glr.arrays import Array
from measures import AtOnce, Times
from rivals import Step, compiled, plain_glr, random_batch

from glr.network import Activation, new_network, threshold
from glr.noise import logistic, random_words

PARTS = ("noise and activations", "first products", "later products")
OTHER_CORE = ThreadPoolExecutor(1)


def floor_of(times: dict[str, Times]) -> dict[str, Times]:
    """The times of each part in the way that is best, from those of floor_steps."""
    ways = {part: [ms for name, ms in times.items() if name.startswith(part)] for part in PARTS}
    return {part: min(of_part, key=np.median) for part, of_part in ways.items()}


def floor_steps(sizes: list[int], activation: Activation, R: int, B: int) -> dict[str, Step]:
    """What no step of ours can do without, in several ways; names begin with the part's.

    The random numbers (logistic noise; 16-bit words for threshold neurons) and the activations;
    two products for the first layer; two per replicate for each of the others.
    """
    whole = numpy_parts(sizes, activation, R, B)
    first, second = (numpy_parts(sizes, activation, R, B // 2) for _ in range(2))
    halves = {f"{name}, in halves": at_once(first[name], second[name]) for name in first}
    return whole | halves | compiled_parts(sizes, activation, R, B)


def at_once(one: Step, other: Step) -> Step:
    """Both steps, on two cores."""

    def step() -> None:
        waiting = OTHER_CORE.submit(other)
        one()
        waiting.result()

    return step


def numpy_parts(sizes: list[int], activation: Activation, R: int, B: int) -> dict[str, Step]:
    """The parts by NumPy; the later products in one, or a pass at a time."""
    rng = np.random.Generator(np.random.SFC64(0))
    hidden = [(R, n, B) for n in sizes[1:-1]]
    is_threshold = activation is threshold
    first = _product(sizes[1], (sizes[0], B))
    later = list(pairwise(sizes[1:]))
    in_one = [_product(n_out, (n_in, R * B)) for n_in, n_out in later]
    by_pass = [_product(n_out, (R, n_in, B)) for n_in, n_out in later]
    values = [rng.standard_normal(shape, dtype=np.float32) for shape in hidden]
    bits = [rng.integers(0, 2**16, shape, np.uint16) for shape in hidden]
    outs = [np.empty_like(v) for v in values]

    def noise_and_activations() -> None:
        for value, bit, out in zip(values, bits, outs, strict=True):
            if is_threshold:
                random_words(rng, value.shape, np.uint16)
                np.less(bit, 2**15, out=out)
            else:
                logistic.draw(rng, value.shape)
                np.tanh(value, out=out)
        logistic.draw(rng, (R, sizes[-1], B))

    def twice(products: list[Step]) -> Step:
        return lambda: [multiply() for multiply in products * 2]

    return {
        "noise and activations": noise_and_activations,
        "first products": twice([first]),
        "later products in one": twice(in_one),
        "later products by pass": twice(by_pass),
    }


def _product(n_out: int, of_x: tuple[int, ...]) -> Step:
    """Products W·x with x of shape (…, n_in, columns), into memory that they have."""
    *passes, n_in, n_columns = of_x
    W, x = np.ones((n_out, n_in), np.float32), np.ones(of_x, np.float32)
    out = np.empty((*passes, n_out, n_columns), np.float32)
    return lambda: np.matmul(W, x, out=out)


def compiled_parts(sizes: list[int], activation: Activation, R: int, B: int) -> dict[str, Step]:
    """The parts as compiled loops on two cores; none without Numba."""
    if compiled is None:
        return {}
    import floor_loops  # noqa: PLC0415  (Numba is no requirement)
    from step_loops import AT_ONCE  # noqa: PLC0415

    layers = new_network(sizes, activation, np.random.default_rng(0)).layers
    streams = np.random.Generator(np.random.SFC64(0)).spawn(len(layers))
    glr, batch = plain_glr(activation, len(layers), R), random_batch(sizes, B)
    step = compiled.step_of(glr, layers, batch, streams)
    samples = step.samples
    tiles, columns = -(-B // samples), R * samples
    n_in, n = sizes[:2]
    first = _ones((B, n_in), (n_in, n), (compiled.PARTS, B, n), (n, B), (n_in, n))
    later = [
        _ones((n_in, n), (tiles, n_in, columns), (tiles, n, columns), (tiles, n_in, n))
        for n_in, n in pairwise(sizes[1:])
    ]
    logits = [
        np.zeros((n, samples if t == 0 else columns), np.float32) for t, n in enumerate(sizes[1:])
    ]
    parts = {
        "noise and activations, compiled": lambda: [
            floor_loops.noise_and_activations(step, t, v, tiles) for t, v in enumerate(logits)
        ],
        "first products, compiled": lambda: floor_loops.first_products(*first),
        "later products, compiled": lambda: [floor_loops.later_products(*of) for of in later],
    }
    return {name: AtOnce(part, AT_ONCE) for name, part in parts.items()}


def _ones(*shapes: tuple[int, ...]) -> list[Array]:
    """Arrays to multiply, or to write into."""
    return [np.ones(shape, np.float32) for shape in shapes]
