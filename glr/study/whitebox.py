"""How networks fare under attacks on themselves, beside one that is transferred and may miss.

What asks for no gradient may show that a gradient misleads (Carlini et al. 2019, arXiv 1902.06705).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from glr.data.datasets import hold_out, load_dataset
from glr.errors import GLRError
from glr.losses import cross_entropy
from glr.network import Network, is_right, threshold
from glr.robustness import attacks, tables
from glr.robustness.attacks import Attack, Batch, grouped, input_gradient, until_wrong
from glr.robustness.averaging import Averaged, predictor
from glr.robustness.evaluation import chosen_models, perturbation_generator
from glr.robustness.perturbation import check_square_images, surrogate
from glr.robustness.tables import Row, cell, mean_and_spread, network_name
from glr.scripts.console import progress_bar
from glr.scripts.constants import as_typed
from glr.scripts.machine import prepare_for_small_arrays
from glr.scripts.own_code import own_errors
from glr.scripts.plots import COLOURS, look_of
from glr.scripts.run import run_generator
from glr.storage.models import Model
from glr.study.pages import README_DATASET, Page, draw_panels, write_page, write_readme

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OWN_EPSILON = 0.1  # of the table: that of the published figures of attacks on a network itself
TRANSFERRED = "fgsm, transferred"  # from the surrogate, as in the published table
ATTACKS = ("fgsm", "pgd", "glr")  # on the network itself
AUTO_PGD = "+ autoattack"  # right is what is right clean, under the attacks before, and under this
WORST = "+ square: all"  # and so on
ZERO_GRADIENT = "zero gradient"  # samples at which the gradient that is followed is exactly zero
NO_EPSILON = ("clean", ZERO_GRADIENT)
COLUMNS = ("clean", TRANSFERRED, *ATTACKS, AUTO_PGD, WORST, ZERO_GRADIENT)
LOSSES = (cross_entropy, attacks.margin)  # whose gradients pgd and glr follow

Kind = tuple[str, float]  # an attack, and its ε


def measured_rows(constants: SimpleNamespace, dataset: str) -> list[Row]:
    """What the data set's networks get right of the first IMAGES samples, by attack."""
    own = SimpleNamespace(**vars(constants) | {"DATASET": dataset})
    data = loaded(dataset, own.DATA_DIR)
    check_square_images(data)
    models = chosen_models(own, data)
    if not own.MODELS:
        models = named_models(own, models)
    surrogate(own, data)  # trained here, where there is none
    with get_context("spawn").Pool(own.PROCESSES, start_worker) as pool:
        found = pool.imap(partial(rows_of_file, own), models)
        return [*chain(*progress_bar(found, data.name, total=len(models)))]


def start_worker() -> None:
    """Prepare a process, which leaves Ctrl-C to the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare_for_small_arrays()


loaded = cache(load_dataset)  # once in each process


def named_models(constants: SimpleNamespace, models: Mapping[Path, Model]) -> list[Path]:
    """Of the models those that NAMES and SEEDS choose, in the order of NAMES."""
    chosen = []
    for name in constants.NAMES:
        own = [path for path, one in models.items() if network_name(one.name) == name]
        if not own:
            note = f"Left out on {constants.DATASET}: {name}, of which there is no model"
            print(note, file=sys.stderr)
        chosen += [path for path in own if models[path].seed < constants.SEEDS]
    if not chosen:
        raise GLRError(
            f"NAMES = {as_typed(constants.NAMES)}: none can be attacked; there are "
            f"{', '.join(sorted({network_name(one.name) for one in models.values()}))}, and "
            'python "Train&Test/study.py" trains the default ones'
        )
    return chosen


@own_errors()
def rows_of_file(constants: SimpleNamespace, path: Path) -> list[Row]:
    """The rows of one model."""
    data = loaded(constants.DATASET, constants.DATA_DIR)
    (model,) = chosen_models(SimpleNamespace(**vars(constants) | {"MODELS": [path]}), data).values()
    transfer = input_gradient(surrogate(constants, data).network)
    held_out = model.metadata["constants"].get("VALIDATION")
    if held_out:
        data = hold_out(data, held_out, run_generator(model.seed))
    n = constants.IMAGES or len(data.x_test)
    batch = data.x_test[:n], data.y_test[:n]
    return model_rows(constants, model, batch, attacks.fgsm(batch, transfer, OWN_EPSILON))


def model_rows(
    constants: SimpleNamespace, model: Model, batch: Batch, transferred: np.ndarray
) -> list[Row]:
    """A network's accuracies: clean, under each attack, and under those of the table one by one.

    Each attack meets what is right clean and what the same of a smaller ε leaves; one with a plus,
    what all before leave. Of attacks that need what the network has not, there is no row.

    transferred : the batch's inputs after the attack that is not on this network
    """
    rng = perturbation_generator(constants.SEED)
    network = predictor(model, constants.PREDICTION_PASSES, rng)
    x, y = batch
    right = {("clean", 0.0): is_right(network.logits(x), y)}
    right[TRANSFERRED, OWN_EPSILON] = is_right(network.logits(transferred), y)
    for (name, epsilon), several in attacks_on(constants, network, rng):
        met = [
            kept
            for (kind, e), kept in right.items()
            if kind in ("clean", name) or (name.startswith("+") and e <= epsilon)
        ]
        left = np.logical_and.reduce(met)
        right[name, epsilon] = survivors(network, batch, several, left)
    shares = {kind: float(r.mean()) for kind, r in right.items()}
    if network.activation in attacks.DERIVATIVES:
        slopes = input_gradient(network)(x, y)
        shares[ZERO_GRADIENT, 0.0] = attacks.zero_gradient_share(slopes)
    return [Row(model.name, model.seed, *kind, share, len(y)) for kind, share in shares.items()]


def survivors(
    network: Network | Averaged, batch: Batch, several: Sequence[Attack], among: np.ndarray
) -> np.ndarray:
    """Which samples (N,) among some stay right under several attacks; each meets what is left."""
    (x, y), left = batch, among.copy()
    for attack in several:
        rows = np.flatnonzero(left)
        if rows.size:
            found = attack((x[rows], y[rows]))
            left[rows] = is_right(network.logits(found), y[rows])
    return left


def attacks_on(
    constants: SimpleNamespace, network: Network | Averaged, rng: np.random.Generator
) -> Iterator[tuple[Kind, list[Attack]]]:
    """The attacks by kind, those that take longest last: what has no derivative has two kinds.

    Auto-PGD is of networks whose own gradient is not zero.
    """

    def sign_attacks(gradients: list[attacks.InputGradient], epsilon: float) -> list[Attack]:
        """Along each, from the image and random starts, until the network is wrong."""
        pgd = partial(attacks.pgd, epsilon=epsilon, steps=constants.PGD_STEPS)
        return [
            grouped(partial(pgd, gradient=until_wrong(network, gradient), rng=start))
            for start in (None, *[rng] * constants.STARTS)
            for gradient in gradients
        ]

    has_derivative = network.activation in attacks.DERIVATIVES
    if has_derivative:
        slopes = [input_gradient(network, loss) for loss in LOSSES]
        fgsm = partial(attacks.fgsm, gradient=slopes[0], epsilon=OWN_EPSILON)
        yield ("fgsm", OWN_EPSILON), [fgsm]
        for epsilon in sorted({*constants.EPSILON, OWN_EPSILON}):
            yield ("pgd", epsilon), sign_attacks(slopes, epsilon)
    noise = network.noise if isinstance(network, Averaged) else None
    by_noise = [attacks.glr_input_gradient(network, rng, loss, noise) for loss in LOSSES]
    yield ("glr", OWN_EPSILON), sign_attacks(by_noise, OWN_EPSILON)
    if has_derivative and network.activation is not threshold:
        own = attacks.apgd_attacks(network, OWN_EPSILON, rng)
        yield (AUTO_PGD, OWN_EPSILON), [*map(grouped, own)]
    options = {"epsilon": OWN_EPSILON, "queries": constants.QUERIES, "rng": rng}
    yield (WORST, OWN_EPSILON), [partial(attacks.square_attack, network, **options)]


def table_lines(rows: Sequence[Row], columns: Sequence[str]) -> list[list[str]]:
    """The networks' cells in some columns, one network in each row, in their order."""
    lines = []
    for name in dict.fromkeys(row.model for row in rows):
        cells = (cell(rows, name, c, None if c in NO_EPSILON else OWN_EPSILON) for c in columns)
        lines.append([name, *map(mean_and_spread, cells)])
    return lines


def whitebox_block(by_dataset: Mapping[str, Sequence[Row]]) -> str:
    """The tables, and how they are read, as Markdown."""
    parts = []
    for dataset, rows in by_dataset.items():
        parts.append(f"On {dataset}, the first {rows[0].n} images, ε = {OWN_EPSILON}:")
        parts.append(tables.markdown_table([["model", *COLUMNS], *table_lines(rows, COLUMNS)]))
    reading = (
        "–: not run. AutoAttack's attacks need the network's own gradient, which thresholds have "
        "not; of an activation without a derivative there are glr and square. Zero gradient: "
        "images of which FGSM and PGD change nothing. If a network keeps less under glr or square, "
        "which follow no derivative, than under PGD, its gradient misleads."
    )
    return "\n\n".join([*parts, reading])


def draw_pgd(axes: Axes, rows: Sequence[Row]) -> None:
    """Accuracy under PGD on the network itself against ε, a line for each network."""
    names = dict.fromkeys(row.model for row in rows)
    looks = look_of(map(network_name, names))
    for name in names:
        colour, style = looks[network_name(name)]
        marks = f"o{style}" if network_name(name) in tables.GLR_ROWS else "s:"
        marks = marks if network_name(name) in COLOURS else f"^{style}"
        kinds = {(row.severity, row.condition) for row in rows if row.model == name}
        kinds = sorted((e, condition) for e, condition in kinds if condition in ("clean", "pgd"))
        cells = [cell(rows, name, condition, e) for e, condition in kinds]
        look = {"color": colour, "ms": 5, "markerfacecolor": "none", "capsize": 2}
        means, spreads = [*map(fmean, cells)], [*map(tables.spread, cells)]
        axes.errorbar([e for e, _ in kinds], means, spreads, fmt=marks, label=name, **look)
    axes.set(xlabel="ε of PGD", ylabel="accuracy (%)", ylim=(0, 100))


def write_whitebox(by_dataset: Mapping[str, Sequence[Row]], page: Page) -> None:
    """Print and write the tables, and draw the picture."""
    block = whitebox_block(by_dataset)
    print(block)
    title = "PGD on the network itself, mean ± sd over seeds (thresholds keep less under glr)"
    panels = {f"{name}, {rows[0].n} test images": rows for name, rows in by_dataset.items()}
    write_page(page, block, partial(draw_panels, by_dataset=panels, draw=draw_pgd, title=title))
    if page.whole:
        write_readme("whitebox", readme_block(by_dataset[README_DATASET]))


def readme_block(rows: Sequence[Row]) -> str:
    """README's table of what adversarial training reaches, as Markdown."""
    header = ["network", "clean", f"attacked itself, ε = {OWN_EPSILON}"]
    ends = tables.ADVERSARIAL
    shown = [row for row in rows if row.model in tables.GLR_ROWS or row.model.endswith(ends)]
    return tables.markdown_table([header, *table_lines(shown, ("clean", WORST))])
