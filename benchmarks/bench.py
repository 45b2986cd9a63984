"""Time one training step, side by side with the published algorithm, backpropagation and a floor.

    python benchmarks/bench.py                      everything; some minutes
    python benchmarks/bench.py --parts 1 2 --repeats 5
    GLR_DATA_DIR=data python benchmarks/bench.py    with real MNIST, for part 5

Parts: 1 the published algorithm, 2 backpropagation, 3 the floor, 4 precision per second,
5 time to the published accuracy, 6 growth. All are ratios of medians, the two sides measured in
turns within one run. Written to benchmarks/results/: bench.csv, bench.md and bench.png.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

from measures import Comparison, medians, write_results
from rivals import (
    floor_parts,
    glr_step,
    keras_step,
    numpy_backpropagation_step,
    published_step,
    pytorch_step,
)

from glr.experiment import one_line_errors
from glr.machine import prepare_for_small_arrays
from glr.network import sigmoid, threshold

# --------------------------------------------------------------------------------------------
PAPER = [784, 50, 10]
WIDE = [784, 500, 500, 10]
PUBLISHED_SIZES = ((10, 128), (100, 32), (100, 128))  # R and B of the published constants
REPEATS = 15  # of each step; the median counts
# --------------------------------------------------------------------------------------------


def name_of(sizes: list[int]) -> str:
    """784-50-10."""
    return "-".join(map(str, sizes))


def against_published(repeats: int) -> list[Comparison]:
    """Part 1: the published algorithm's step at the published R and B."""
    found = []
    for activation in (sigmoid, threshold):
        for R, B in PUBLISHED_SIZES:
            times = medians(
                {
                    "ours": glr_step(PAPER, activation, R, B),
                    "published": published_step(PAPER, activation, R, B),
                },
                min(repeats, 5),
            )
            case = f"{name_of(PAPER)} {activation.__name__}, R {R}, B {B}"
            found.append(Comparison(1, case, "published algorithm", **times_of(times, "published")))
    return found


def times_of(times: dict[str, float], other: str) -> dict[str, float]:
    """The two times of a comparison, as its fields."""
    return {"ours_ms": times["ours"], "other_ms": times[other]}


def against_backpropagation(repeats: int) -> list[Comparison]:
    """Part 2: a backpropagation step of the same network, by NumPy, Keras and PyTorch."""
    found = []
    for sizes in (PAPER, WIDE):
        for activation in (sigmoid, threshold):
            runs = {
                "ours": glr_step(sizes, activation, 10, 128),
                "NumPy backpropagation": numpy_backpropagation_step(sizes, 128),
                "Keras backpropagation": keras_step(sizes, 128),
                "PyTorch backpropagation": pytorch_step(sizes, 128),
            }
            runs = {name: run for name, run in runs.items() if run is not None}
            times = medians(runs, repeats)
            case = f"{name_of(sizes)} {activation.__name__}, R 10, B 128"
            for other in list(runs)[1:]:
                found.append(Comparison(2, case, other, **times_of(times, other)))
    return found


def against_floor(repeats: int) -> list[Comparison]:
    """Part 3: random numbers + activations + matrix products, each alone at its best."""
    found = []
    for sizes in (PAPER, WIDE):
        for activation in (sigmoid, threshold):
            for R in (10, 100) if sizes is PAPER else (10,):
                parts = floor_parts(sizes, activation, R, 128)
                times = medians({"ours": glr_step(sizes, activation, R, 128)} | parts, repeats)
                floor = sum(times[name] for name in parts)
                shares = ", ".join(f"{name} {times[name] / floor:.0%}" for name in parts)
                case = f"{name_of(sizes)} {activation.__name__}, R {R}, B 128"
                found.append(Comparison(3, case, f"floor ({shares})", times["ours"], floor))
    return found


PARTS: dict[int, Callable[[int], list[Comparison]]] = {
    1: against_published,
    2: against_backpropagation,
    3: against_floor,
}


def main() -> None:
    """Run the parts that are asked for; print and write what they found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=int, nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"(default: {REPEATS})")
    given = parser.parse_args()
    prepare_for_small_arrays()
    found = []
    for part in given.parts:
        rows = PARTS[part](given.repeats)
        for row in rows:
            print(row, flush=True)
        found += rows
    write_results(found)


if __name__ == "__main__":
    with one_line_errors():
        main()
