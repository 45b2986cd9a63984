"""Time one training step, side by side with the published algorithm, backpropagation and a floor.

    python benchmarks/bench.py                      everything; some 40 minutes
    python benchmarks/bench.py --parts 1 2 --repeats 5
    GLR_DATA_DIR=data python benchmarks/bench.py    with real MNIST, for part 5

Parts: 1 the published algorithm, 2 backpropagation, 3 the floor, 4 precision per second,
5 time to the published accuracy, 6 growth, 7 what each choice made for speed saves. Both sides
take turns in one run: a ratio is that of a turn, and the median of all turns; but for part 5, which
is one training run each. In parts 1 to 5 ours is also timed compiled, if Numba is installed: a step
of many in one call, descent too, as training takes them.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

import numpy as np
from accuracies import benchmark_data, time_to_published_accuracy
from choices import choices
from floor import floor_of, floor_steps
from glr.passes import GLR, Batch
from measures import Comparison, Times, by_turn, medians, own_process_ms, turns, write_results
from rivals import (
    PAPER,
    WAYS,
    Step,
    compiled,
    glr_step,
    glr_steps,
    keras_step,
    new_steps,
    numpy_backpropagation_step,
    numpy_backpropagation_step_on_two_cores,
    plain_glr,
    pytorch_step,
    random_batch,
    redrawn_glr,
    step_of,
    steps_of,
)

from glr.network import Activation, new_network, sigmoid, threshold
from glr.scripts.console import one_line_errors
from glr.scripts.constants import OneLineParser
from glr.scripts.machine import prepare_for_small_arrays
from glr.storage.files import check_writable
from glr.study.comparison import half_trained_network, published_estimator, relative_variance
from glr.study.runs import script_methods

# --------------------------------------------------------------------------------------------
WIDE = [784, 500, 500, 10]
COMPARED_SIZES = ((10, 128), (100, 32), (100, 128))  # R and B; LRS has the first, LRSZ the last
PUBLISHED_R = 10  # of the estimator whose precision per second is compared
RESULTS = Path(__file__).resolve().parent / "results"
REPEATS = 15  # turns of each step, of 50 ms or two calls; the median call of a turn counts
GROWTH_REPEATS = 5  # turns at most where a step takes up to a second
PUBLISHED_STEPS = {"NumPy": "published_step", "PyTorch": "published_pytorch_step"}
PROCESSES = 5  # in which each published step is timed, ours before and after each
Published = tuple[list[int], Activation, int, int]  # a network's sizes and φ, R and B
# --------------------------------------------------------------------------------------------


def name_of(sizes: list[int]) -> str:
    """784-50-10."""
    return "-".join(map(str, sizes))


def against_published(repeats: int) -> list[Comparison]:
    """Part 1: the published algorithm's step at three sizes of R and B, in NumPy and PyTorch.

    Ours, here and in parts 2 and 3, is the same estimate pass by pass, with one output draw and no
    local differences: the scripts need fewer passes, and part 4 times those. Compiled, it is one of
    twenty in a call, as training takes them, and the floor is measured so; all others are calls of
    their own, as their users have them. The published step runs in processes of its own, without
    our settings of memory and BLAS; they and ours take turns, so that a slow moment of the machine
    meets both. All have the CPU: the released code asks for a GPU ("cuda:1"), on which it has not
    been timed. In the wide network the published step forms 2 GB at R 10, and would form 5 and 20
    GB at the larger sizes.
    """
    found = []
    for activation in (sigmoid, threshold):
        for R, B in COMPARED_SIZES:
            case = f"{name_of(PAPER)} {activation.__name__}, R {R}, B {B}"
            cases = {case: glr_steps(PAPER, activation, R, B)}
            found += cases_beside_published(cases, (PAPER, activation, R, B), repeats)
    for activation in (sigmoid, threshold):
        cases = wide_cases(activation)
        found += cases_beside_published(cases, (WIDE, activation, *COMPARED_SIZES[0]), repeats)
    return found


def wide_cases(activation: Activation) -> dict[str, dict[str, Step]]:
    """Our steps of the wide network: pass by pass, and by as many losses of redraws."""
    name, (R, B) = f"{name_of(WIDE)} {activation.__name__}", COMPARED_SIZES[0]
    redrawn = redrawn_glr(activation, len(WIDE) - 1)
    return {
        f"{name}, R {R}, B {B}": glr_steps(WIDE, activation, R, B),
        f"{name}, a pass and {redrawn.redraws} redraws, B {B}": new_steps(redrawn, WIDE, B),
    }


def cases_beside_published(
    cases: dict[str, dict[str, Step]], published: Published, repeats: int
) -> list[Comparison]:
    """Our steps of each case beside the published one."""
    ours = {case + way: step for case, steps in cases.items() for way, step in steps.items()}
    times, others = beside_published(ours, published, repeats)
    found = []
    for case in cases:
        found += comparisons(1, case, {way: times[case + way] for way in WAYS}, others)
    return found


def beside_published(
    steps: dict[str, Step], published: Published, repeats: int
) -> tuple[dict[str, Times], dict[str, Times]]:
    """Milliseconds of our steps, and of the published one, each in its libraries.

    A turn is ours, the published one's in all of its libraries, and ours again.
    """
    sizes, activation, R, B = published
    call = f"({sizes}, {activation.__name__}, {R}, {B})"
    ours: list[dict[str, float]] = []
    others: list[dict[str, float]] = []
    before = medians(steps, repeats)
    for _ in range(PROCESSES):
        theirs = {library: own_process_ms(of + call) for library, of in PUBLISHED_STEPS.items()}
        after = medians(steps, repeats)
        ours.append({name: (ms + after[name]) / 2 for name, ms in before.items()})
        others.append({f"published algorithm, {name}": ms for name, ms in theirs.items()})
        before = after
    return by_turn(ours), {name: ms for name, ms in by_turn(others).items() if ms.all()}


def comparisons(
    part: int, case: str, ours: dict[str, Times], others: dict[str, Times]
) -> list[Comparison]:
    """The times of each of our steps, named as in WAYS, beside each of the others'."""
    return [
        Comparison(part, case + name, other, ours[name], theirs)
        for other, theirs in others.items()
        for name in WAYS
    ]


def against_backpropagation(repeats: int) -> list[Comparison]:
    """Part 2: a backpropagation step of the same network, by NumPy, Keras and PyTorch.

    Keras and PyTorch take the cores that they like; ours takes two, but one by NumPy for the
    narrow network. Nothing is propagated through a threshold: those rows, too, have the
    backpropagation of sigmoids. Pass by pass, our products between hidden layers have R times as
    many columns as backpropagation's: in the wide network they are nearly all of the step, and of
    its floor (part 3), which no such step can be faster than. By redraws (docs/method.md, section
    8) the ten losses of a pass and nine redraws take two such columns; part 4 has the variances.
    """
    found = []
    for sizes in (PAPER, WIDE):
        for activation in (sigmoid, threshold):
            rivals = {
                "NumPy backpropagation": numpy_backpropagation_step(sizes, 128),
                "NumPy backpropagation on two cores": numpy_backpropagation_step_on_two_cores(
                    sizes, 128
                ),
                "Keras backpropagation": keras_step(sizes, 128),
                "PyTorch backpropagation": pytorch_step(sizes, 128),
            }
            rivals = {name: step for name, step in rivals.items() if step is not None}
            case = f"{name_of(PAPER)} {activation.__name__}, R 10, B 128"
            narrow = {case: glr_steps(PAPER, activation, 10, 128)}
            cases = wide_cases(activation) if sizes is WIDE else narrow
            ours = {case + way: step for case, of in cases.items() for way, step in of.items()}
            times = turns(ours | rivals, repeats)
            for case in cases:
                of_case = {way: times[case + way] for way in WAYS}
                found += comparisons(2, case, of_case, {other: times[other] for other in rivals})
    return found


def against_floor(repeats: int) -> list[Comparison]:
    """Part 3: random numbers + activations + matrix products, each alone at its best.

    The best is whichever way is fastest here: by NumPy, in one or in halves on two cores; or, where
    Numba is installed, compiled on two cores.
    """
    found = []
    for sizes in (PAPER, WIDE):
        for activation in (sigmoid, threshold):
            for R in (10, 100) if sizes is PAPER else (10,):
                steps = glr_steps(sizes, activation, R, 128)
                times = turns(steps | floor_steps(sizes, activation, R, 128), repeats)
                parts = floor_of(times)
                floor = sum(parts.values())
                elements = np.median(parts["noise and activations"] / floor)
                other = f"floor (noise and activations {elements:.0%}, the rest products)"
                case = f"{name_of(sizes)} {activation.__name__}, R {R}, B 128"
                found += comparisons(3, case, times, {other: floor})
    return found


def precision_per_second(repeats: int) -> list[Comparison]:
    """Part 4: step time × relative variance: the time to a gradient of relative variance 1.

    Ours is at the scripts' constants, the published estimator at R 10, on the same network. Each
    has its own noise, and with the 0-1 loss its own risk, whose gradient the variance is relative
    to. The last rows are of ours alone, in part 2's wide network.
    """
    found, data = [], benchmark_data()
    for name, glr in script_methods().items():
        rng = np.random.Generator(np.random.SFC64(0))
        network = half_trained_network(glr, data, rng)
        batch = Batch(data.x_train[:128].T, data.y_train[:128])
        ours = relative_variance(glr, network, batch, rng.spawn(2))
        published = replace(published_estimator(glr), replicates=PUBLISHED_R)
        theirs = relative_variance(published, network, batch, rng.spawn(2))
        steps = steps_of(glr, network, batch)
        their_step = (PAPER, glr.activation, PUBLISHED_R, 128)
        times, others = beside_published(steps, their_step, repeats)
        case = f"{name} on {data.name}: variance {ours:.3g}, published {theirs:.3g}"
        found += comparisons(
            4,
            case,
            {way: ours * ms for way, ms in times.items()},
            {other: theirs * ms for other, ms in others.items()},
        )
    return found + precision_of_redraws(repeats)


def precision_of_redraws(repeats: int) -> list[Comparison]:
    """Step time × relative variance in a wide network, by redraws and pass by pass at R 10."""
    found, data = [], benchmark_data()
    for activation in (sigmoid, threshold):
        methods = [redrawn_glr(activation, len(WIDE) - 1), plain_glr(activation, len(WIDE) - 1, 10)]
        fastest = [replace(glr, gradient_of_group=list(WAYS.values())[-1]) for glr in methods]
        rng = np.random.Generator(np.random.SFC64(0))
        network = half_trained_network(fastest[0], data, rng, WIDE[1:-1])
        batch = Batch(data.x_train[:128].T, data.y_train[:128])
        ours, theirs = (relative_variance(glr, network, batch, rng.spawn(3)) for glr in fastest)
        steps = [steps_of(glr, network, batch) for glr in methods]
        case = (
            f"{name_of(network.sizes)} {activation.__name__}, a pass and 9 redraws, on "
            f"{data.name}: variance {ours:.3g}, pass by pass {theirs:.3g}"
        )
        for way in WAYS:
            times = turns({"ours": steps[0][way], "other": steps[1][way]}, repeats)
            ms = ours * times["ours"], theirs * times["other"]
            found.append(Comparison(4, case + way, "ours pass by pass, R 10", *ms))
    return found


def growth(repeats: int) -> list[Comparison]:
    """Part 6: a step of ours at one size (`ours_ms`) and at a larger one (`other_ms`).

    The ratio is how much the step grew; linear growth in R would give R's own ratio. The last rows
    are the peak memory of a step in MB: of ours as in part 1, and of the scripts' at their default
    constants but R.
    """
    found = []
    for what, sizes_of, values in (
        ("R", lambda R: (PAPER, R, 128), (1, 10, 100, 1000, 10000)),
        ("width", lambda n: ([784, n, 10], 10, 128), (50, 100, 200, 500, 1000, 2000)),
        ("depth", lambda d: ([784, *[50] * d, 10], 10, 128), (1, 2, 4, 8)),
        ("batch", lambda B: (PAPER, 10, B), (32, 64, 128, 256, 512)),
    ):
        steps = {}
        for value in values:
            sizes, R, B = sizes_of(value)
            steps[value] = glr_step(sizes, sigmoid, R, B)
        times = turns(steps, min(repeats, GROWTH_REPEATS))
        found += [
            Comparison(
                6, f"{what} {low} → {high} (× {high / low:g})", "grows", times[low], times[high]
            )
            for low, high in pairwise(values)
        ]
    return found + memory_growth()


def memory_growth() -> list[Comparison]:
    """Peak memory of steps in MB, in the place of ms, against R; the ratio is how much it grew."""
    methods = {"ours": plain_glr(sigmoid, 2, 10), **script_methods()}
    found = []
    for name, glr in methods.items():
        peaks = {R: peak_megabytes(replace(glr, replicates=R)) for R in (10, 100, 1000, 10000)}
        found += [
            Comparison(6, f"peak MB of {name}, R {low} → {high}", "grows", peaks[low], peaks[high])
            for low, high in pairwise(peaks)
        ]
    return found


def peak_megabytes(glr: GLR) -> float:
    """Peak memory of a step of 784-50-10 with 128 samples, in MB of 2²⁰ bytes."""
    network = new_network(PAPER, glr.activation, np.random.default_rng(0))
    step = step_of(glr, network, random_batch(PAPER, 128))
    tracemalloc.start()
    step()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return peak


def savings(repeats: int) -> list[Comparison]:
    """Part 7: the choices that glr/ made for speed, each beside the plain way.

    The first is glr/scripts/machine.py's settings, by a whole step in processes with and without them.
    """
    found = []
    for R in (10, 100):
        step = f"glr_step({PAPER}, sigmoid, {R}, 128)"
        with_settings = f"prepare_for_small_arrays() or {step}"
        case = f"a step at R {R} with memory reused and one core (glr/scripts/machine.py)"
        times = [(own_process_ms(with_settings), own_process_ms(step)) for _ in range(PROCESSES)]
        found.append(Comparison(7, case, "as Python starts", *np.transpose(times)))
    found += [] if compiled is None else [at_once()]
    for choice in choices():
        times = turns({"ours": choice.ours, "other": choice.theirs}, repeats)
        found.append(Comparison(7, choice.what, choice.other, times["ours"], times["other"]))
    return found


def at_once() -> Comparison:
    """A compiled step while another run does the same, on the same two cores."""
    step = f"prepare_for_small_arrays() or glr_steps({PAPER}, sigmoid, 10, 128)[COMPILED]"

    def milliseconds(spin_count: str) -> float:
        measure = partial(own_process_ms, step, GOMP_SPINCOUNT=spin_count)
        with ThreadPoolExecutor(2) as processes:
            both = [processes.submit(measure) for _ in range(2)]
        return sum(one.result() for one in both) / 2

    times = [(milliseconds(compiled.SPIN_COUNT), milliseconds("300000")) for _ in range(PROCESSES)]
    case = "a compiled step beside another run, at R 10 (compiled.SPIN_COUNT)"
    return Comparison(7, case, "waiting as OpenMP does", *np.transpose(times))


PARTS: dict[int, Callable[[int], list[Comparison]]] = {
    1: against_published,
    2: against_backpropagation,
    3: against_floor,
    4: precision_per_second,
    5: time_to_published_accuracy,
    6: growth,
    7: savings,
}


def notes() -> dict[int, str]:
    """What each part is, in the words of the function that measures it."""
    return {part: str(inspect.getdoc(measured)) for part, measured in PARTS.items()}


def main() -> None:
    """Run the parts that are asked for; print and write what they found."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--parts", type=int, nargs="+", choices=PARTS, default=list(PARTS), help="(default: all)"
    )
    parser.add_argument(
        "--repeats", type=int, default=REPEATS, help=f"turns of each step (default: {REPEATS})"
    )
    parser.add_argument(
        "--results-dir",
        type=Path,
        metavar="DIR",
        help="for bench.csv, .md and .png (default: benchmarks/results if all parts are run)",
    )
    given = parser.parse_args()
    if given.repeats < 1:
        parser.error("--repeats: give 1 or more")
    folder = given.results_dir or (RESULTS if set(given.parts) == set(PARTS) else None)
    if folder is not None:
        check_writable(folder / "bench.csv")
    prepare_for_small_arrays()
    found = []
    for part in given.parts:
        rows = PARTS[part](given.repeats)
        for row in rows:
            print(row, flush=True)
        found += rows
    if folder is None:
        print(f"Not written: {RESULTS} keeps its whole run; --results-dir DIR writes this one")
        return
    write_results(folder, found, notes())


if __name__ == "__main__":
    with one_line_errors():
        main()
