"""Time one training step, side by side with the published algorithm, backpropagation and a floor.

    python benchmarks/bench.py                      everything; about five minutes
    python benchmarks/bench.py --parts 1 2 --repeats 5
    GLR_DATA_DIR=data python benchmarks/bench.py    with real MNIST for parts 4 and 5

All figures are ratios of medians, measured in turns within one run. Written to
benchmarks/results/: bench.csv and bench.png.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

import numpy as np
from published import published_step

from glr.estimator import GLR, Batch, glr_gradient
from glr.losses import cross_entropy
from glr.machine import prepare_for_small_arrays
from glr.network import new_network, sigmoid, threshold
from glr.noise import logistic

PAPER = [784, 50, 10]
WIDE = [784, 500, 500, 10]


class Comparison(NamedTuple):
    """One line of the table: how many times faster ours is than the other, or slower (< 1)."""

    part: int
    case: str
    other: str
    ours_ms: float
    other_ms: float

    @property
    def ratio(self) -> float:
        """The other's time over ours."""
        return self.other_ms / self.ours_ms


def medians(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each run, taken in turns after a warm-up of one call each."""
    for run in runs.values():
        run()
    times = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: median(values) for name, values in times.items()}


def random_batch(sizes: list[int], B: int, rng: np.random.Generator) -> Batch:
    """Random inputs and labels; the time of a step does not depend on their values."""
    x = rng.random((B, sizes[0]), dtype=np.float32)
    return Batch(x.T, rng.integers(0, sizes[-1], B))


def glr_step(sizes: list[int], activation, R: int, B: int) -> Callable[[], None]:
    """One step of ours, gradient and SGD, as a function without arguments."""
    rng = np.random.Generator(np.random.SFC64(0))
    network, batch = new_network(sizes, activation, rng), random_batch(sizes, B, rng)
    glr = GLR(
        activation,
        cross_entropy,
        (1.0,) * (len(sizes) - 1),
        logistic,
        replicates=R,
        conditional_score=activation is threshold,
    )
    streams = rng.spawn(len(sizes) - 1)

    def step() -> None:
        gradient = glr_gradient(glr, network.layers, batch, streams)
        for layer, estimate in zip(network.layers, gradient.layers, strict=True):
            layer.W[:] -= np.float32(0.01) * (estimate.W + np.float32(1e-4) * layer.W)
            layer.b[:] -= np.float32(0.01) * estimate.b

    return step


def against_published(repeats: int) -> list[Comparison]:
    """Part 1: our step against the published algorithm's, at the published R and B."""
    found = []
    for activation in (sigmoid, threshold):
        for R, B in ((10, 128), (100, 32), (100, 128)):
            rng = np.random.default_rng(0)
            network, batch = new_network(PAPER, activation, rng), random_batch(PAPER, B, rng)
            ours = glr_step(PAPER, activation, R, B)
            x, y = np.ascontiguousarray(batch.x.T), batch.y
            theirs = lambda: published_step(network.layers, activation, x, y, R, rng)  # noqa: B023, E731
            times = medians({"ours": ours, "published": theirs}, repeats)
            case = f"784-50-10 {activation.__name__}, R {R}, B {B}"
            found.append(Comparison(1, case, "published", times["ours"], times["published"]))
    return found


def main() -> None:
    """Run the comparisons and print them."""
    prepare_for_small_arrays()
    for c in against_published(5):
        print(f"{c.case}: ours {c.ours_ms:.3f} ms, {c.other} {c.other_ms:.1f} ms: {c.ratio:.0f} ×")


if __name__ == "__main__":
    main()
