"""A step's gradient compiled by Numba, for COMPILED = True (pip install numba).

The estimate is that of glr/estimator.py, equation by equation (docs/method.md), for the methods
that `covers` names. What is saved is NumPy's way through memory, once for every operation; and two
cores share a step of any size. benchmarks/results/bench.md times it beside NumPy's ("compiled").

The batch is cut into tiles of a few samples, all passes of which stay in a core's cache. Products
are found in blocks that BLAS multiplies where they stand (block_of). A random word is a function of
its place (write_words): so no bit depends on the number of cores. Words are kept, and scores found
from them when the weight of a pass is known.

Arrays are (neurons n, columns). Column p·T + b is pass p of sample b of a tile's T samples; the
output layer's K draws stand after one another, each with the R passes of the hidden layers. Logits
(n, M) that several passes share belong to columns 0 … M − 1, M … 2M − 1 and so on; those of few
samples stand side by side some times over in the loops, whose rows are too short for SIMD else.

There is no fast-math but a·b + c in one instruction, where the processor has it. Loops go over p
and then c, since LLVM makes SIMD instructions of such: of `range(0, C, M)` it does not, and takes
five times as long. All is in this file, since it is the one that Numba's cache looks at: a loop
changed in another would go unnoticed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from llvmlite.binding import add_symbol, get_host_cpu_features
from numba import cfunc, config, njit, prange, set_num_threads, typeof, types
from numba.core import cgutils
from numba.core.ccallback import CFunc
from numba.core.dispatcher import Dispatcher
from numba.core.typing import Signature
from numba.extending import get_cython_function_address, intrinsic

from glr.arrays import Array
from glr.errors import GLRError
from glr.estimator import Gradient
from glr.losses import cross_entropy, zero_one
from glr.network import Layer, layer_views, n_parameters, sigmoid, threshold
from glr.noise import LOGISTIC_SCALE, UNIFORM_STEP, logistic
from glr.passes import GLR, Batch, Streams

f4, i4, i8, u8 = np.float32, np.int32, np.int64, np.uint64
FIRST = i8(0)  # layer or draw: for a literal 0, Numba compiles what it goes to another time
PARTS = 2  # of the inputs or of the batch, which two cores share out: v[0] + v[1]
CORES = min(PARTS, config.NUMBA_NUM_THREADS)
STAGES = 3  # of a step, see write_parts
TILE_COLUMNS = 1280  # passes × samples of a tile, as in glr.passes.piece_size, or more if need be
MULTIPLE = 16  # of samples in a tile: so many numbers go through one instruction
SHORT_ROW = 64  # columns: in shorter rows, SIMD waits for the loop, and a sum for the last one
LONG_ROW = 640  # columns: a loop's beginning and end take the time of some hundred, see long_rows
BY_ROW, BY_COLUMN = ord("N"), ord("T")  # see order
BLOCK, SMALL_PRODUCT = (96, 64, 128), 10**6  # see block_of
HAS_SMALL_PRODUCTS = bool(get_host_cpu_features().get("avx512vl"))
BETA, BOUND = f4(LOGISTIC_SCALE), f4(1 / LOGISTIC_SCALE)
SCORE_STEP = f4(UNIFORM_STEP / LOGISTIC_SCALE)
LOG_2, LOG2_E = f4(math.log(2)), f4(1 / math.log(2))
GAMMA, MIX_1, MIX_2 = u8(0x9E3779B97F4A7C15), u8(0xBF58476D1CE4E5B9), u8(0x94D049BB133111EB)
ROUNDER = f4(1.5 * 2**23)  # added, it leaves a whole number in a float32's last bits
LOGIT, SIGMOID, BIT = 0, 1, 2  # kinds of noisy neurons: v + σr; its sigmoid; whether it is above 0

# How often a core that waits for the other looks, some 0.1 ms in all, before it sleeps. By GNU's
# OpenMP it is 300,000 times, and a second run waits as long (benchmarks/results/bench.md, part 7).
SPIN_COUNT = "6000"
OPTIONS = {"error_model": "numpy", "nogil": True, "cache": True, "fastmath": {"contract"}}
# Numba would share out zeros, sums and slices too, too small for it: 3 % of a step at R 10.
ONLY_PRANGE = dict.fromkeys(("comprehension", "fusion", "numpy", "reduction", "setitem"), False)
compiled = njit(**OPTIONS)
SGEMM = get_cython_function_address("scipy.linalg.cython_blas", "sgemm")
add_symbol("scipy_sgemm", SGEMM)
sgemm = types.ExternalFunction("scipy_sgemm", types.void(*[types.voidptr] * 13))


def launch_threads() -> None:
    """Let Numba start its threads; OpenMP reads now, and never again, how they wait.

    What the user has set counts; and other processes and libraries find nothing of ours.
    """
    is_chosen = not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}.isdisjoint(os.environ)
    settings = {} if is_chosen else {"GOMP_SPINCOUNT": SPIN_COUNT}
    os.environ.update(settings)
    set_num_threads(CORES)
    for name in settings:
        del os.environ[name]


launch_threads()


class Method(NamedTuple):
    """What all steps of a run share: the network's size, and what of a GLR the loops ask.

    sizes : n_0 … n_T; sigma : of each layer's noise; samples : in a tile
    side_by_side : of the first layer's Neurons
    """

    sizes: np.ndarray
    sigma: Array
    kind: int
    R: int
    K: int
    samples: int
    side_by_side: int
    is_zero_one: bool
    local_differences: bool
    redraws: int
    control_variate: bool
    standardised: bool


Step = NamedTuple(
    "Step",
    [
        *Method.__annotations__.items(),
        ("parameters", Array),
        ("x", Array),
        ("y", np.ndarray),
        ("seeds", np.ndarray),
    ],
)
Step.__doc__ = """What all tiles share: a method, the network and the batch, in one, as prange asks.

parameters : of all layers, flat (glr.network.layer_views)
x : inputs, samples are rows (B, n_0); y : labels (B,); seeds : of each layer's random words
"""


class Shared(NamedTuple):
    """What the cores hand over to each other within a step, each having written its part.

    taken : of each stage, whether a core has taken the part (STAGES, PARTS); zeros at first
    v : the first layer's logits without biases (PARTS, B, n), to be added up
    delta : Σ weight·s of that layer (n, B), to be multiplied with x
    later : the later layers' sums (PARTS, ·), to be added up; losses : their sums (PARTS,)
    sums : the flat gradient of all layers
    """

    taken: np.ndarray
    v: Array
    delta: Array
    later: Array
    losses: np.ndarray
    sums: Array


class Neurons(NamedTuple):
    """A layer's noisy neurons in a tile: kind, logits v (n, M), noise scale σ, outputs x (n, C).

    side_by_side : how many times over a neuron's logits stand in a row of the loops
    words : random bits (n, ·), 32 for a column, or 16 for a bit; neurons begin with a new word
    chances : of bits, P(x = 1) = F(v/σ), and ⌊65536·P⌋, at most 65535: (2, n, M), else (2, n, 0)
    """

    kind: int
    v: Array
    side_by_side: int
    scale: f4
    words: np.ndarray
    chances: Array
    x: Array


class Output(NamedTuple):
    """Output logits z (n_out, draws, C) of a tile; the label's and the losses (draws, C).

    y : the labels (T,). The draws of the output layer stand in one (C: all columns) or by_draws.
    """

    z: Array
    own: Array
    losses: Array
    y: np.ndarray
    is_zero_one: bool


class Change(NamedTuple):
    """How m neurons, each alone, change the output logits by x·effect; and what follows from it.

    effect (m, n_out); x (m, C), like the label's logit after the change, the largest, the losses
    """

    effect: Array
    x: Array
    own: Array
    largest: Array
    losses: Array


def covers(glr: GLR) -> bool:
    """Whether there are compiled loops for a method."""
    return (
        glr.noise is logistic
        and glr.perturb == "logits"
        and not glr.layerwise
        and min(glr.sigma) > 0
        and glr.loss in (cross_entropy, zero_one)
        and (glr.activation is sigmoid or (glr.activation is threshold and glr.conditional_score))
    )


def gradient(glr: GLR, layers: list[Layer], batch: Batch, streams: Streams) -> Gradient:
    """Equation (1) for every layer, from a group of passes: see glr.estimator.

    Each stream gives one word, which all noise of its layer in this step follows from.

    Raises GLRError for a method without compiled loops.
    """
    step = step_of(glr, layers, batch, streams)
    check_labels(step.y, step.sizes[-1])
    shared = shared_of(step.sizes, batch.y.size)
    make_callable()
    risk = write_batch_sums(tuple(step), tuple(shared))
    return Gradient(layer_views(shared.sums, step.sizes.tolist()), risk)


def step_of(glr: GLR, layers: list[Layer], batch: Batch, streams: Streams) -> Step:
    """A step, as the loops are told it."""
    sizes = len(layers[0].W), *[b.size for _, b in layers]
    return Step(
        *method_of(glr, sizes, batch.y.size),
        flat_parameters(layers),
        np.ascontiguousarray(batch.x.T),
        np.ascontiguousarray(batch.y, np.int64),
        np.array([stream.bit_generator.random_raw() for stream in streams], u8),
    )


@lru_cache
def method_of(glr: GLR, sizes: tuple[int, ...], B: int) -> Method:
    """A method for an n_0-…-n_T network and batches of B, as the loops are told it.

    It is kept for the steps that follow, since to find it takes 6 us, and 1 us to find it again.

    Raises GLRError for a method without compiled loops.
    """
    if not covers(glr):
        raise GLRError(
            "COMPILED = True: is for sigmoid neurons, or threshold neurons with the conditional "
            "score, cross-entropy or the 0-1 loss, and logistic noise on the logits of all layers "
            "at once; set it to False"
        )
    samples = tile_samples(glr.replicates, B)
    return Method(
        sizes=np.array(sizes),
        sigma=np.array(glr.sigma, f4),
        kind=BIT if glr.activation is threshold else SIGMOID,
        R=glr.replicates,
        K=glr.output_draws,
        samples=samples,
        side_by_side=math.gcd(glr.replicates, max(1, SHORT_ROW // samples)),
        is_zero_one=glr.loss is zero_one,
        local_differences=glr.local_differences,
        redraws=glr.redraws,
        control_variate=glr.control_variate,
        standardised=glr.standardised_loss,
    )


def check_labels(y: np.ndarray, classes: int) -> None:
    """Raise IndexError for a label that is no class: the loops would read beside an array."""
    if y.min() < 0 or y.max() >= classes:
        raise IndexError("a label names no class of the logits")


def flat_parameters(layers: list[Layer]) -> Array:
    """The vector that the layers are all the views of (glr.network.layer_views), or a copy."""
    flat, n = layers[0].W.base, 0
    are_views = flat is not None and flat.ndim == 1 and flat.flags.carray
    for W, b in layers:
        are_views = are_views and W.base is flat and b.base is flat
        n += W.size + b.size
    if are_views and flat.size == n:
        return flat
    return np.concatenate([part.ravel() for layer in layers for part in layer])


def shared_of(sizes: np.ndarray, B: int) -> Shared:
    """Memory for what the cores hand over, in steps of an n_0-…-n_T network with batches of B."""
    n_in, n, *_ = sizes.tolist()
    n_all = n_parameters(sizes.tolist())
    return Shared(
        taken=np.zeros((STAGES, PARTS), i8),
        v=np.empty((PARTS, B, n), f4),
        delta=np.empty((n, B), f4),
        later=np.empty((PARTS, n_all - (n_in + 1) * n), f4),
        losses=np.empty(PARTS),
        sums=np.empty(n_all, f4),
    )


def tile_samples(replicates: int, B: int) -> int:
    """The samples in a tile, so that the parts of a batch of B have as many of them each."""
    of_part = -(-B // PARTS)
    tiles = -(-of_part * replicates // TILE_COLUMNS)
    return max(1, -(-of_part // (tiles * MULTIPLE))) * MULTIPLE


@njit(**OPTIONS, parallel=ONLY_PRANGE)
def write_batch_sums(of_step: tuple, of_shared: tuple) -> float:
    """Write the flat gradient of all layers as shared.sums; returns the mean loss.

    Plain tuples are what a Step and a Shared are made of, since Numba takes 2 us more to look at a
    named one, and prange finds tuples of a name only where they are made. Only after
    make_callable(), without which the process would end: LLVM knows no write_parts.

    All passes share x: its products are one before the noise, and one after the sum over passes.
    In these the cores share out the inputs, since most of the weights are the first layer's, and a
    core has what it wrote itself at hand; in between they share out the samples.
    """
    step, shared = Step(*of_step), Shared(*of_shared)
    for stage in range(STAGES):
        for core in prange(CORES):  # it counts in u8: u8 + i8 is a float
            call_write_parts(step, stage, i8(core), shared)
    return shared.losses.sum() / (len(step.y) * step.R * step.K)


def write_parts(step: Step, stage: int, core: int, shared: Shared) -> None:
    """Write what a stage's parts give: a core's own, and another's that has not begun with it.

    See by_name.
    """
    for k in range(PARTS):
        part = (core + k) % PARTS
        if is_first_to_take(shared.taken[stage], part):
            shared.taken[(stage + 1) % STAGES, part] = 0  # which begins when this stage has ended
            if stage == 0:
                write_first_products(step, part, shared)
            elif stage == 1:
                write_tiles(step, part, shared)
            else:
                write_first_sums(step, part, shared)
                write_later_sums(step, part, shared)


@intrinsic
def is_first_to_take(typing, taken, place):
    """Whether taken[place] was 0; it is 1 from now on. Of two cores, one is the first."""

    def exchange(context, builder, signature, arguments):
        (kind, _), (array, index) = signature.args, arguments
        struct = context.make_array(kind)(context, builder, array)
        place = cgutils.get_item_pointer(context, builder, kind, struct, [index])
        one, zero = (context.get_constant(kind.dtype, value) for value in (1, 0))
        old = builder.atomic_rmw("xchg", place, one, "acq_rel")
        return builder.icmp_signed("==", old, zero)

    return types.boolean(taken, types.intp), exchange


def types_of_step() -> Signature:
    """The types of write_parts's and write_tile's arguments, by examples; they return nothing."""
    counts, floats, words = np.zeros(1, np.int64), np.zeros(1, f4), np.zeros(1, u8)
    matrix, matrices = np.zeros((1, 1), f4), np.zeros((PARTS, 1, 1), f4)
    method = Method(counts, floats, *[1] * 5, True, True, 1, True, True)
    step = Step(*method, floats, matrix, counts, words)
    taken = np.zeros((STAGES, PARTS), i8)
    shared = Shared(taken, matrices, matrix, matrix, np.zeros(PARTS), floats)
    return types.none(*map(typeof, (step, 1, 1, shared)))


TYPES_OF_STEP, SYMBOL = types_of_step(), "glr_"


@cache
def make_callable() -> list[CFunc]:
    """Compile write_tile and write_parts, or read them from the disk, to be called by name."""
    found = []
    for function in (write_tile, write_parts):  # which calls the first
        found.append(cfunc(TYPES_OF_STEP, **OPTIONS)(function))
        add_symbol(SYMBOL + function.__name__, found[-1].address)
    return found


def by_name(name: str) -> Callable:
    """What calls write_tile or write_parts by its name in LLVM.

    A compiled function that is called else is compiled again with what calls it, and that again:
    this saves a third of the time of compiling. And what has been read from Numba's cache, in
    glr/compiled_training.py too, calls them as they are now.
    """

    def call(context, builder, signature, arguments):
        kinds = [context.get_value_type(kind) for kind in signature.args]
        kind = ir.FunctionType(context.get_value_type(types.none), kinds)
        function = cgutils.get_or_insert_function(builder.module, kind, SYMBOL + name)
        builder.call(function, arguments)
        return context.get_dummy_value()

    @intrinsic
    def call_it(typing, step, first, second, shared):
        return TYPES_OF_STEP, call

    return call_it


call_write_tile, call_write_parts = by_name("write_tile"), by_name("write_parts")


@compiled
def write_first_products(step: Step, part: int, shared: Shared) -> None:
    """Write xW of a part of the inputs: (B, n)."""
    W, _ = layer_of(step, FIRST)
    first, end = part_of(len(W), part)
    write_product(step.x[:, first:end], W[first:end], shared.v[part])


@compiled
def part_of(n: int, part: int, parts: int = PARTS) -> tuple[int, int]:
    """Where a part of n begins and ends."""
    return part * n // parts, (part + 1) * n // parts


@compiled
def n_tiles(step: Step) -> int:
    """The number of tiles in a batch."""
    return (len(step.y) + step.samples - 1) // step.samples


@compiled
def write_tiles(step: Step, part: int, shared: Shared) -> None:
    """Write what follows from a part's samples."""
    first, end = part_of(n_tiles(step), part)
    shared.later[part], shared.losses[part] = 0, 0
    for tile in range(first, end):
        call_write_tile(step, part, tile, shared)


@compiled
def first_logits(step: Step, v: Array) -> Array:
    """Logits xW + b (n, T) of the first layer, from their parts (PARTS, T, n)."""
    _, b = layer_of(step, FIRST)
    logits = np.empty((v.shape[2], v.shape[1]), f4)
    for i in range(len(logits)):
        for c in range(logits.shape[1]):
            logits[i, c] = v[0, c, i] + v[1, c, i] + b[i]
    return logits


@compiled
def write_first_sums(step: Step, part: int, shared: Shared) -> None:
    """Write Σ x·delta for a part's inputs, and Σ delta (n, B) for the biases."""
    n, n_in, delta = len(shared.delta), step.x.shape[1], shared.delta
    first, end = part_of(n_in, part)
    sums = shared.sums[: n_in * n].reshape(n_in, n)
    write_product(step.x[:, first:end].T, delta.T, sums[first:end])
    first, end = part_of(n, part)
    for i in range(first, end):
        shared.sums[n_in * n + i] = sum_of(delta[i])


@compiled
def write_later_sums(step: Step, part: int, shared: Shared) -> None:
    """Write a part of the later layers' sums, which the parts of the samples have found."""
    first, end = part_of(shared.later.shape[1], part)
    own = shared.sums[layer_slice(step, FIRST).stop :]
    own[first:end] = shared.later[0, first:end] + shared.later[1, first:end]


@compiled
def layer_slice(step: Step, t: int) -> slice:
    """Where layer t stands among the flat parameters."""
    sizes, first = step.sizes, 0
    for u in range(t):
        first += (sizes[u] + 1) * sizes[u + 1]
    return slice(first, first + (sizes[t] + 1) * sizes[t + 1])


@compiled
def later_sums(step: Step, t: int, later: Array) -> Array:
    """Layer t's sums among those of all later layers than the first."""
    own, skipped = layer_slice(step, t), layer_slice(step, FIRST).stop
    return later[own.start - skipped : own.stop - skipped]


@compiled
def layer_of(step: Step, t: int) -> tuple[Array, Array]:
    """Weights W (n_in × n) and biases b (n,) of layer t."""
    n_in, n, own = step.sizes[t], step.sizes[t + 1], step.parameters[layer_slice(step, t)]
    return own[: n_in * n].reshape(n_in, n), own[n_in * n :]


@compiled
def add_sums(x: Array, delta: Array, sums: Array) -> None:
    """Add Σ x·delta for the weights and Σ delta (n, columns) for the biases of a later layer."""
    n_in, n = len(x), len(delta)
    add_product(x, delta.T, sums[: n_in * n].reshape(n_in, n))
    for i in range(n):
        sums[n_in * n + i] += sum_of(delta[i])


@compiled
def write_product(x: Array, y: Array, out: Array) -> None:
    """Write the product xy of two matrices."""
    multiply(x, y, f4(0), out)


@compiled
def add_product(x: Array, y: Array, out: Array) -> None:
    """Add the product xy of two matrices to out."""
    multiply(x, y, f4(1), out)


@compiled
def multiply(x: Array, y: Array, share: f4, out: Array) -> None:
    """Write xy + share·out, block by block."""
    rows, columns, inner = block_of(x, y)
    for i in range(0, len(x), rows):
        for j in range(0, y.shape[1], columns):
            for k in range(0, max(len(y), 1), inner):
                left, right = x[i : i + rows, k : k + inner], y[k : k + inner, j : j + columns]
                own_share = share if k == 0 else f4(1)
                blas_multiply(left, right, own_share, out[i : i + rows, j : j + columns])


@compiled
def block_of(x: Array, y: Array) -> tuple[int, int, int]:
    """The rows, columns and inner numbers of blocks in which xy is found fastest.

    For processors with AVX-512, OpenBLAS does products of up to a million multiplications without
    copies of its own (what that saves: benchmarks/results/bench.md, part 7). Only where the inner
    numbers are neighbours in both, the copies are worth it.
    """
    (rows, inner), columns = x.shape, y.shape[1]
    is_small = rows * inner * columns <= SMALL_PRODUCT
    if is_small or not HAS_SMALL_PRODUCTS or (order(x) == BY_ROW and order(y) == BY_COLUMN):
        return max(rows, 1), max(columns, 1), max(inner, 1)
    return BLOCK


@compiled
def blas_multiply(x: Array, y: Array, share: f4, out: Array) -> None:
    """Write xy + share·out by SciPy's BLAS: unlike np.dot, from and into parts of arrays.

    BLAS has matrices column by column, where ours are row by row: so it is told outᵀ = yᵀxᵀ.
    """
    orders = np.array([order(y), order(x)], np.uint8)
    n = np.array([out.shape[1], len(out), len(y), line(y), line(x), line(out)], i4)
    factors = np.array([f4(1), share])
    sgemm(
        orders.ctypes,
        orders[1:].ctypes,
        n.ctypes,
        n[1:].ctypes,
        n[2:].ctypes,
        factors.ctypes,
        y.ctypes,
        n[3:].ctypes,
        x.ctypes,
        n[4:].ctypes,
        factors[1:].ctypes,
        out.ctypes,
        n[5:].ctypes,
    )


@compiled
def order(x: Array) -> int:
    """BLAS's letter for a matrix: whether a row's numbers are neighbours, or a column's."""
    return BY_ROW if x.strides[1] == x.itemsize else BY_COLUMN


@compiled
def line(x: Array) -> int:
    """From how many numbers to how many the next row of a matrix begins, or column if that."""
    rows, columns = x.shape
    return max(max(x.strides) // x.itemsize, columns if order(x) == BY_ROW else rows, 1)


@njit(**OPTIONS | {"fastmath": {"contract", "reassoc"}})
def sum_of(row: Array) -> float:
    """Σ row, in whatever order is fastest."""
    total = f4(0)
    for c in range(len(row)):
        total += row[c]
    return total


def write_tile(step: Step, part: int, tile: int, shared: Shared) -> None:
    """Write what follows from the samples of one of a part's tiles. See by_name."""
    own = slice(tile * step.samples, min((tile + 1) * step.samples, len(step.y)))
    v, y = first_logits(step, shared.v[:, own]), step.y[own]
    last, layers = len(step.sigma) - 1, forward_passes(step, tile, v, len(y))
    output = output_of(layers[last].x, y, step.is_zero_one)
    losses = output.losses[0]
    unit = standard_units(losses, len(y)) if step.standardised else np.ones(len(y), f4)
    for t in range(last, -1, -1):
        neurons = layers[t]
        delta = np.empty(neurons.v.shape, f4)
        weights = pass_weights(step, t, losses, neurons.x.shape[1], unit)
        weights /= neurons.scale
        if is_redrawn(step, t):
            scores = redrawn_scores(step, t, tile, layers, output)
            write_sums_of_scores(neurons, weights, scores, delta)
        elif is_local(step, t):
            effect = layer_of(step, last)[0] if t < last else np.eye(len(output.z)).astype(f4)
            write_local_scores(neurons, weights, output, effect, delta)
        else:
            write_scores(neurons, weights, delta)
        if t > 0:
            add_sums(layers[t - 1].x, delta, later_sums(step, t, shared.later[part]))
        else:
            shared.delta[:, own] = delta
    shared.losses[part] += np.float64(sum_of(losses))


@compiled
def is_local(step: Step, t: int) -> bool:
    """As glr.passes.is_local."""
    return step.local_differences and (t >= len(step.sigma) - 2 or step.redraws > 0)


@compiled
def is_redrawn(step: Step, t: int) -> bool:
    """As glr.passes.is_redrawn."""
    return is_local(step, t) and t < len(step.sigma) - 2


@compiled
def forward_passes(step: Step, tile: int, v: Array, T: int) -> list[Neurons]:
    """The noisy neurons of all layers; the first one's logits are v."""
    layers = [noisy_neurons(step, FIRST, tile, v, T)]
    for t in range(1, len(step.sigma)):
        layers.append(noisy_neurons(step, t, tile, logits_of(step, t, layers[t - 1].x), T))
    return layers


@compiled
def logits_of(step: Step, t: int, x: Array) -> Array:
    """Logits Wᵀx + b (n, C) of a later layer."""
    W, b = layer_of(step, t)
    v = np.empty((len(b), x.shape[1]), f4)
    for i in range(len(b)):
        v[i] = b[i]
    add_product(W.T, x, v)
    return v


@compiled
def pass_weights(step: Step, t: int, losses: Array, columns: int, unit: Array) -> Array:
    """What multiplies the scores of layer t, of so many columns, see glr.estimator: (columns,).

    Losses are averaged over the output draws that the layer's passes share.
    """
    T, C, are_local = len(unit), columns, is_local(step, t)
    weights, mean, passes = np.zeros(C, f4), np.zeros(T, f4), C // T
    for draw in range(len(losses) // C):
        for c in range(C):
            loss = f4(1) if are_local else losses[draw * C + c]
            weights[c] += loss * f4(C / len(losses))
    factor = f4(1)
    if step.control_variate and not are_local:
        factor = f4(passes / (passes - 1))
        for p in range(passes):
            for b in range(T):
                mean[b] += weights[p * T + b] / f4(passes)
    shares = factor / (unit * f4(passes * len(step.y)))
    for p in range(passes):
        for b in range(T):
            weights[p * T + b] = (weights[p * T + b] - mean[b]) * shares[b]
    return weights


@compiled
def standard_units(losses: Array, T: int) -> Array:
    """√(q(1 − q)) + q of each sample's 0-1 losses: (T,)."""
    units, passes = np.zeros(T, f4), len(losses) // T
    for p in range(passes):
        for b in range(T):
            units[b] += f4(1) - losses[p * T + b]
    for b in range(T):
        q = (units[b] + f4(1)) / f4(passes + 2)
        units[b] = math.sqrt(q * (f4(1) - q)) + q
    return units


@compiled
def noisy_neurons(step: Step, t: int, tile: int, v: Array, T: int) -> Neurons:
    """Layer t's neurons with logits v in a tile of T samples. No other tile has their words."""
    is_last = t == len(step.sigma) - 1
    kind, passes = LOGIT if is_last else step.kind, step.R * step.K if is_last else step.R
    C, most = passes * T, len(v) * passes * step.samples  # most words of a tile
    words = np.empty((len(v), (C + 3) // 4 if kind == BIT else (C + 1) // 2), u8)
    times = step.side_by_side if t == 0 else 1
    chances, x = chances_of(kind, v, step.sigma[t]), np.empty((len(v), C), f4)
    neurons = Neurons(kind, v, times, step.sigma[t], words, chances, x)
    draw_neurons(neurons, step.seeds[t] + u8(tile * most) * GAMMA)
    return neurons


@compiled
def draw_neurons(neurons: Neurons, seed: u8) -> None:
    """Write words and outputs, row by row: what a row is made of stays in the nearest cache."""
    if neurons.kind == BIT:
        write_words(seed, neurons.words.reshape(-1))
        write_bits(long_rows(neurons))
        return
    rows = long_rows(neurons)
    words, noise, v = rows.words.view(i4), np.empty(rows.x.shape[1], f4), row_of_logits(rows)
    for i in range(len(words)):
        write_words(seed + u8(i * rows.words.shape[1]) * GAMMA, rows.words[i])
        write_noise(words[i], neurons.scale, noise)
        repeat(rows.v, i, v)
        write_outputs(neurons.kind, v, noise, rows.x[i])


@compiled
def noise_of(neurons: Neurons) -> Array:
    """The noise σr/log 2 of neurons: (n, C). That of bits is in their words: none."""
    if neurons.kind == BIT:
        return np.empty((0, 0), f4)
    noise, rows = np.empty(neurons.x.shape, f4), long_rows(neurons)
    words, noise_rows = rows.words.view(i4), noise.reshape(rows.x.shape)
    for i in range(len(words)):
        write_noise(words[i], neurons.scale, noise_rows[i])
    return noise


@compiled
def with_logits(neurons: Neurons, v: Array, noise: Array) -> Neurons:
    """The same neurons with other logits v (n, M), but the same noise (noise_of)."""
    kind, _, times, scale, words, _, x = neurons
    chances = chances_of(kind, v, scale)
    found = Neurons(kind, v, times, scale, words, chances, np.empty(x.shape, f4))
    write_neurons(found, noise)
    return found


@compiled
def write_neurons(neurons: Neurons, noise: Array) -> None:
    """Write the outputs x, by noise_of these neurons."""
    rows = long_rows(neurons)
    if neurons.kind == BIT:
        write_bits(rows)
        return
    noise_rows, v = noise.reshape(rows.x.shape), row_of_logits(rows)
    for i in range(len(noise_rows)):
        repeat(rows.v, i, v)
        write_outputs(neurons.kind, v, noise_rows[i], rows.x[i])


@compiled
def long_rows(neurons: Neurons) -> Neurons:
    """The same neurons, several in a row if their rows are short and no passes share logits.

    A step of 784-500-500-10 with one pass and nine redraws takes two thirds of the time by that.
    """
    (n, M), C = neurons.v.shape, neurons.x.shape[1]
    has_whole_words = C % 4 == 0  # since each neuron's begin with a new word of 64 bits
    in_row = max(1, LONG_ROW // C) if M == C and has_whole_words else 1
    while n % in_row > 0:
        in_row -= 1
    v, x = neurons.v.reshape(n // in_row, in_row * M), neurons.x.reshape(n // in_row, in_row * C)
    words = neurons.words.reshape(n // in_row, -1)
    chances = neurons.chances.reshape(2, n // in_row, in_row * neurons.chances.shape[2])
    return Neurons(neurons.kind, v, neurons.side_by_side, neurons.scale, words, chances, x)


@compiled
def write_words(start: u8, words: np.ndarray) -> None:
    """Write random words by SplitMix64 (Steele, Lea & Flood 2014): each is its place, mixed.

    So any core can have them at any time, and several in one instruction.
    """
    for k in range(len(words)):
        z = start + u8(k) * GAMMA
        z = (z ^ (z >> u8(30))) * MIX_1
        z = (z ^ (z >> u8(27))) * MIX_2
        words[k] = z ^ (z >> u8(31))


@compiled
def row_of_logits(neurons: Neurons) -> Array:
    """Memory for a neuron's logits side by side, or for what they have each."""
    return np.empty(neurons.side_by_side * neurons.v.shape[1], f4)


@compiled
def repeat(x: Array, i: int, row: Array) -> None:
    """Write row i of x, side by side as often as it fits."""
    M = x.shape[1]
    for p in range(len(row) // M):
        for c in range(M):
            row[p * M + c] = x[i, c]


@compiled
def write_noise(words: np.ndarray, scale: f4, noise: Array) -> None:
    """Write σr/log 2, where r = β log((1/β + s)/(1/β − s)), and signed words of 32 bits give s."""
    power = scale * BETA
    for c in range(len(noise)):
        s = f4(words[c]) * SCORE_STEP
        noise[c] = power * log2((BOUND + s) / (BOUND - s))


@compiled
def write_outputs(kind: int, v: Array, noise: Array, x: Array) -> None:
    """Write v + σr, or its sigmoid by powers of 2, for every M of x (·,) that share v (M,).

    noise : σr/log 2
    """
    M = len(v)
    for p in range(len(x) // M):
        if kind == SIGMOID:
            for c in range(M):
                odds = exp2(-LOG2_E * v[c] - noise[p * M + c])
                x[p * M + c] = f4(1) / (f4(1) + odds)
        else:
            for c in range(M):
                x[p * M + c] = v[c] + LOG_2 * noise[p * M + c]


@compiled
def chances_of(kind: int, v: Array, scale: f4) -> Array:
    """Chances, as Neurons has them, of neurons with logits v (n, M)."""
    n, M = v.shape
    chances = np.empty((2, n, M if kind == BIT else 0), f4)
    for i in range(n):
        for c in range(chances.shape[2]):
            chance = f4(1) / (f4(1) + exp2(v[i, c] * (-LOG2_E * BOUND / scale)))
            chances[0, i, c] = chance
            chances[1, i, c] = np.floor(min(chance * f4(65536), f4(65535)))
    return chances


@compiled
def write_bits(neurons: Neurons) -> None:
    """Write 1 where a random 16-bit word is below its neuron's level, else 0."""
    words, levels, x = neurons.words.view(np.uint16), neurons.chances[1], neurons.x
    row = row_of_logits(neurons)
    M = len(row)
    for i in range(len(x)):
        repeat(levels, i, row)
        for p in range(x.shape[1] // M):
            for c in range(M):
                x[i, p * M + c] = f4(1) if f4(words[i, p * M + c]) < row[c] else f4(0)


@compiled
def write_scores(neurons: Neurons, weights: Array, delta: Array) -> None:
    """Write Σ weight·s over the passes that share a logit, shaped as the logits (n, M)."""
    if neurons.kind == BIT:
        write_bit_scores(neurons, weights * BOUND, delta)
        return
    times, weights = neurons.side_by_side, weights * SCORE_STEP
    write_weighted_sums(neurons.words.view(i4), weights, times, delta)


@compiled
def write_bit_scores(neurons: Neurons, weights: Array, delta: Array) -> None:
    """Write Σ weight·(x − level/65536) of bits x, (3), whose level the passes share."""
    times, total = neurons.side_by_side, np.empty((1, delta.shape[1]), f4)
    write_weighted_sums(np.ones((1, len(weights)), f4), weights, times, total)
    write_weighted_sums(neurons.x, weights, times, delta)
    for i in range(len(delta)):
        for c in range(delta.shape[1]):
            delta[i, c] -= total[0, c] * (neurons.chances[1, i, c] * f4(2**-16))


@compiled
def write_weighted_sums(x: np.ndarray, weights: Array, times: int, sums: Array) -> None:
    """Write Σ weight·x (n, columns) over the passes that share a logit: (n, M).

    The sums of passes that stand side by side, so many times over, are found apart and added up.
    """
    n, M = sums.shape
    row = np.empty(times * M, f4)
    for i in range(n):
        row[:] = 0
        for p in range(len(weights) // len(row)):
            for c in range(len(row)):
                row[c] += weights[p * len(row) + c] * f4(x[i, p * len(row) + c])
        write_sums_of_parts(row, sums, i)


@compiled
def write_sums_of_parts(row: Array, sums: Array, i: int) -> None:
    """Write the sums of what stands side by side in a row, as row i of sums (n, M)."""
    M = sums.shape[1]
    for c in range(M):
        sums[i, c] = row[c]
    for p in range(1, len(row) // M):
        for c in range(M):
            sums[i, c] += row[p * M + c]


@compiled
def write_local_scores(
    neurons: Neurons, weights: Array, output: Output, effect: Array, delta: Array
) -> None:
    """Write Σ weight·(4), or of bits (5); effect (n, n_out): of neurons' outputs on the logits."""
    rows, C, row = long_rows(neurons), neurons.x.shape[1], row_of_logits(neurons)
    M, m, output = len(row), len(neurons.x) // len(rows.x), by_draws(output, C)
    score, difference = np.empty((m, C), f4), np.empty((m, C), f4)
    for first in range(0, len(delta), m):
        change = new_change(effect[first : first + m], C)
        write_opposites(rows, first // m, change.x.reshape(-1), score.reshape(-1))
        write_differences(output, change, difference)
        for i in range(m):
            row[:] = 0
            for p in range(C // M):
                for c in range(M):
                    k = p * M + c
                    row[c] += weights[k] * score[i, k] * difference[i, k]
            write_sums_of_parts(row, delta, first + i)


@compiled
def write_opposites(neurons: Neurons, i: int, change: Array, score: Array) -> None:
    """Write what the opposite noise or bit adds to neuron i's x; and s·P(x | x or its opposite)."""
    x, row = neurons.x[i], row_of_logits(neurons)
    if neurons.kind != BIT:
        words = neurons.words[i].view(i4)
        write_noise(words, neurons.scale, score)
        repeat(neurons.v, i, row)
        write_outputs(neurons.kind, row, -score, change)
        for c in range(len(x)):
            change[c] -= x[c]
            score[c] = f4(words[c]) * (SCORE_STEP * f4(0.5))
        return
    repeat(neurons.chances[0], i, row)
    M = len(row)
    for p in range(len(x) // M):
        for c in range(M):
            change[p * M + c] = f4(1) - f4(2) * x[p * M + c]
            density = BOUND * row[c] * (f4(1) - row[c])
            score[p * M + c] = -change[p * M + c] * density


@compiled
def redrawn_scores(step: Step, t: int, tile: int, layers: list[Neurons], output: Output) -> Array:
    """½(s − s′)(L − L′) of layer t's neurons, (6): (n, C); L′ is the mean over the output draws."""
    T, tiles = len(output.y), n_tiles(step)
    again = noisy_neurons(step, t, tiles + tile, layers[t].v, T)  # words that no tile has
    scores, change = score_differences(layers[t], again), again.x - layers[t].x
    (W, _), n, C = layer_of(step, t + 1), len(change), change.shape[1]
    noise = [noise_of(later) for later in layers[t + 1 :]]
    parts = min(step.redraws, n)
    for part in range(parts):
        first, end = part_of(n, part, parts)
        v = layers[t + 1].v.copy()
        add_product(W[first:end].T, change[first:end], v)
        difference = mean_difference(output, moved_logits(step, layers[t + 1 :], noise, v), C)
        for i in range(first, end):
            for c in range(C):
                scores[i, c] *= f4(0.5) * difference[c]
    return scores


@compiled
def moved_logits(step: Step, layers: list[Neurons], noise: list[Array], v: Array) -> Array:
    """Output logits by the last layers with the same noise, the first of these having logits v."""
    first = len(step.sigma) - len(layers)
    moved = with_logits(layers[0], v, noise[0])
    for t in range(1, len(layers)):
        v = logits_of(step, first + t, moved.x)
        moved = with_logits(layers[t], v, noise[t])
    return moved.x


@compiled
def mean_difference(output: Output, z: Array, C: int) -> Array:
    """The losses less those of other output logits z, averaged over the output draws: (C,)."""
    old = by_draws(output, C).losses
    new = by_draws(output_of(z, output.y, output.is_zero_one), C).losses
    difference = np.zeros(C, f4)
    for draw in range(len(new)):
        for c in range(C):
            difference[c] += old[draw, c] - new[draw, c]
    return difference * f4(1 / len(new))


@compiled
def score_differences(drawn: Neurons, again: Neurons) -> Array:
    """The scores s − s′ of two draws of the same neurons: (n, C)."""
    if drawn.kind == BIT:
        return (drawn.x - again.x) * BOUND
    scores = np.empty(drawn.x.shape, f4)
    for i in range(len(scores)):
        words, others = drawn.words[i].view(i4), again.words[i].view(i4)
        for c in range(scores.shape[1]):
            scores[i, c] = (f4(words[c]) - f4(others[c])) * SCORE_STEP
    return scores


@compiled
def write_sums_of_scores(neurons: Neurons, weights: Array, scores: Array, delta: Array) -> None:
    """Write Σ weight·score over the passes that share a logit, shaped as the logits (n, M)."""
    write_weighted_sums(scores, weights, neurons.side_by_side, delta)


@compiled
def output_of(z: Array, y: np.ndarray, is_zero_one: bool) -> Output:
    """The losses of output logits z (n_out, C)."""
    (n_out, C), T = z.shape, len(y)
    no_change = new_change(np.zeros((1, n_out), f4), C)
    no_change.x[:] = 0
    own = np.empty((1, C), f4)
    for p in range(C // T):
        for b in range(T):
            own[0, p * T + b] = z[y[b], p * T + b]
    output = Output(z.reshape(n_out, 1, C), own, no_change.losses, y, is_zero_one)
    write_losses(output, FIRST, no_change)
    return output


@compiled
def by_draws(output: Output, C: int) -> Output:
    """The same, C columns being a draw."""
    z, own, losses = output.z, output.own.reshape(-1, C), output.losses.reshape(-1, C)
    z = z.reshape(len(z), len(own), C)
    return Output(z, own, losses, output.y, output.is_zero_one)


@compiled
def new_change(effect: Array, C: int) -> Change:
    """Memory for what a change with such effects leads to in C columns."""
    of_all = np.empty((4, len(effect), C), f4)
    return Change(effect, of_all[0], of_all[1], of_all[2], of_all[3])


@compiled
def write_differences(output: Output, change: Change, difference: Array) -> None:
    """Write the losses less what they are after a change (m, C), averaged over the draws."""
    draws, C = output.losses.shape
    difference[:] = 0
    for draw in range(draws):
        write_losses(output, draw, change)
        for i in range(len(difference)):
            for c in range(C):
                by_draw = output.losses[draw, c] - change.losses[i, c]
                difference[i, c] += by_draw * f4(1 / draws)


@compiled
def write_losses(output: Output, draw: int, change: Change) -> None:
    """Write a draw's losses after a change; its logits are found twice: faster than kept."""
    write_logits_of_labels(output, draw, change)
    write_largest_logits(output.z, draw, change)
    if output.is_zero_one:
        for i in range(len(change.losses)):
            for c in range(change.losses.shape[1]):
                change.losses[i, c] = f4(1) if change.largest[i, c] > change.own[i, c] else f4(0)
    else:
        write_cross_entropies(output.z, draw, change)


@compiled
def write_logits_of_labels(output: Output, draw: int, change: Change) -> None:
    """Write the labels' logits of a draw after a change."""
    T = len(output.y)
    for i in range(len(change.x)):
        for p in range(change.x.shape[1] // T):
            for b in range(T):
                c, effect = p * T + b, change.effect[i, output.y[b]]
                change.own[i, c] = output.own[draw, c] + effect * change.x[i, c]


@compiled
def write_largest_logits(z: Array, draw: int, change: Change) -> None:
    """Write the largest of a draw's logits after a change."""
    effect, x, largest = change.effect, change.x, change.largest
    largest[:] = -np.inf
    for j in range(len(z)):
        for i in range(len(x)):
            for c in range(x.shape[1]):
                largest[i, c] = max(largest[i, c], z[j, draw, c] + effect[i, j] * x[i, c])


@compiled
def write_cross_entropies(z: Array, draw: int, change: Change) -> None:
    """Write a draw's losses log Σ exp(logit) − the label's logit after a change."""
    effect, x, own, largest, losses = change
    losses[:] = 0
    for j in range(len(z)):
        for i in range(len(x)):
            for c in range(x.shape[1]):
                below = z[j, draw, c] + effect[i, j] * x[i, c] - largest[i, c]
                losses[i, c] += exp2(LOG2_E * below)
    for i in range(len(x)):
        for c in range(x.shape[1]):
            zero_or_nan = losses[i, c] - losses[i, c]
            losses[i, c] = LOG_2 * log2(losses[i, c]) + zero_or_nan + largest[i, c] - own[i, c]


# Numba compiles NumPy's log and exp to one call per number; these it turns into SIMD instructions.
# The polynomials interpolate at Chebyshev's nodes; errors are a few units in the last place.


@compiled
def log2(x: float) -> float:
    """The logarithm to base 2 of a normal x > 0: x = 2^k·(1 + t), with 1 + t from 0.71 to 1.41."""
    bits = f4(x).view(i4)
    k = i4(i4(bits - i4(0x3F3504F3)) >> i4(23))
    t = i4(bits - i4(k << i4(23))).view(f4) - f4(1)
    series = f4(-0.146203534) * t + f4(0.234209851)
    series = series * t + f4(-0.248821806)
    series = series * t + f4(0.287075611)
    series = series * t + f4(-0.360241986)
    series = series * t + f4(0.480924039)
    series = series * t + f4(-0.721352759)
    series = series * t + f4(1.44269496)
    return f4(k) + t * series


@compiled
def exp2(x: float) -> float:
    """2^x = 2^k·2^r with |r| ≤ ½, for |x| ≤ 126; beyond, what it is there. NaN stays NaN."""
    x = f4(-126) if x < f4(-126) else x
    x = f4(126) if x > f4(126) else x
    rounded = f4(x + ROUNDER)
    r = x - (rounded - ROUNDER)
    power = i4(i4(f4(rounded).view(i4) << i4(23)) + i4(0x3F800000)).view(f4)
    series = f4(0.00134004322) * r + f4(0.0096760371)
    series = series * r + f4(0.0555032721)
    series = series * r + f4(0.240221074)
    series = series * r + f4(0.693147207)
    return (series * r + f4(1)) * power


def prepare(glr: GLR) -> None:
    """Compile the step, or read it from the disk: now, and not in the time of the first one.

    It is made once, with weights of 0. Raises GLRError for a method without compiled loops.
    """
    sizes = [1] * len(glr.sigma) + [2]
    layers = layer_views(np.zeros(n_parameters(sizes), f4), sizes)
    streams = [np.random.Generator(np.random.SFC64(0)) for _ in layers]
    gradient(glr, layers, Batch(np.zeros((1, 1), f4), np.zeros(1, np.int64)), streams)


def is_in_cache(function: Dispatcher) -> bool:
    """Whether an earlier run has left a compiled function on the disk."""
    file = Path(function.py_func.__code__.co_filename).stem
    return any(Path(function.stats.cache_path).glob(f"{file}.{function.__name__}-*.nbi"))
