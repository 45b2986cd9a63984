"""How networks fare under attacks on themselves, beside one that is transferred to them.

A transferred attack may miss: what a network keeps under it is no lower bound of anything. An
attack on the network itself follows its own gradient, or asks it again and again; what asks for no
gradient may show that the gradient misleads (Carlini et al. 2019, arXiv 1902.06705), and so may
another gradient in the place of one that is zero.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from glr.data.datasets import Dataset, load_dataset
from glr.errors import GLRError
from glr.network import Network, is_right, threshold
from glr.robustness.attacks import (
    InputGradient,
    fgsm,
    glr_attack,
    input_gradient,
    pgd,
    square_attack,
    zero_gradient_share,
)
from glr.robustness.evaluation import known_models
from glr.robustness.perturbation import (
    check_square_images,
    perturbation_generator,
    surrogate,
)
from glr.robustness.tables import (
    GLR_ROWS,
    Row,
    cell,
    markdown_table,
    mean_and_spread,
    network_name,
    spread,
)
from glr.scripts.backpropagation import GRADIENTS
from glr.scripts.console import progress_bar
from glr.scripts.constants import as_typed
from glr.scripts.machine import prepare_for_small_arrays
from glr.scripts.plots import COLOURS, look_of
from glr.storage.models import Model
from glr.study.pages import Page, draw_panels, write_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OWN_EPSILON = 0.1  # of the table: that of the published figures of attacks on a network itself
TRANSFERRED = "fgsm, transferred"  # from the surrogate, as in the published table
ATTACKS = ("fgsm", "pgd", "glr", "square")  # on the network itself
WORST = "under all"  # right is what is right clean and under every attack, the transferred one too
ZERO_GRADIENT = "zero gradient"  # samples at which the gradient that is followed is exactly zero
NO_EPSILON = ("clean", ZERO_GRADIENT)
COLUMNS = ("clean", TRANSFERRED, *ATTACKS, WORST, ZERO_GRADIENT)

LabelledRows = tuple[np.ndarray, np.ndarray]  # inputs (N × n_in) in [0, 1], labels (N,)


def chosen_models(constants: SimpleNamespace, data: Dataset) -> list[Model]:
    """The models of DATASET that NAMES and SEEDS choose, in the order of NAMES."""
    models = known_models(constants, data).values()
    chosen = []
    for name in constants.NAMES:
        own = [
            model
            for model in models
            if network_name(model.name) == name and model.seed < constants.SEEDS
        ]
        if own and own[0].network.activation in GRADIENTS:
            chosen += own
        else:
            why = "whose activation has no known gradient" if own else "of which there is no model"
            print(f"Left out on {data.name}: {name}, {why}", file=sys.stderr)
    if not chosen:
        raise GLRError(
            f"NAMES = {as_typed(constants.NAMES)}: none can be attacked; there are "
            f"{', '.join(sorted({network_name(model.name) for model in models}))}, and "
            'python "Train&Test/study.py" trains the default ones'
        )
    return chosen


def measured_rows(constants: SimpleNamespace, dataset: str) -> list[Row]:
    """What the data set's networks get right of the first IMAGES test images, by attack."""
    prepare_for_small_arrays()
    data = load_dataset(dataset, constants.DATA_DIR)
    check_square_images(data)
    n = constants.IMAGES or len(data.x_test)
    batch = data.x_test[:n], data.y_test[:n]
    own = SimpleNamespace(**vars(constants), DATASET=dataset)
    models = chosen_models(own, data)
    transferred = fgsm(*batch, input_gradient(surrogate(own, data).network), OWN_EPSILON)
    bar = progress_bar(models, data.name)
    return [row for model in bar for row in model_rows(constants, model, batch, transferred)]


def model_rows(
    constants: SimpleNamespace, model: Model, batch: LabelledRows, transferred: np.ndarray
) -> list[Row]:
    """A network's accuracies: clean, under each attack, and under all that have the table's ε.

    transferred : the batch's inputs after the attack that is not on this network
    """
    (x, y), network = batch, model.network
    gradients = input_gradients(network, constants.SLOPES)
    inputs = {("clean", 0.0): [x], (TRANSFERRED, OWN_EPSILON): [transferred]}
    inputs |= attacked(constants, network, batch, gradients)
    right = {
        kind: np.logical_and.reduce([is_right(network.logits(x), y) for x in several])
        for kind, several in inputs.items()
    }
    compared = [r for (_, epsilon), r in right.items() if epsilon in (0, OWN_EPSILON)]
    right[WORST, OWN_EPSILON] = np.logical_and.reduce(compared)
    shares = {kind: float(r.mean()) for kind, r in right.items()}
    shares[ZERO_GRADIENT, 0.0] = zero_gradient_share(gradients[0](x, y))
    return [Row(model.name, model.seed, *kind, share, len(y)) for kind, share in shares.items()]


def input_gradients(network: Network, slopes: Sequence[float]) -> list[InputGradient]:
    """The gradients to be followed: the network's own, or those that replace a threshold's.

    No slope of the sigmoid in a threshold's place is the right one: the attacks follow each.
    """
    used = slopes if network.activation is threshold else slopes[:1]
    return [input_gradient(network, slope) for slope in used]


def attacked(
    constants: SimpleNamespace,
    network: Network,
    batch: LabelledRows,
    gradients: Sequence[InputGradient],
) -> dict[tuple[str, float], list[np.ndarray]]:
    """The batch's inputs after every attack, along each gradient if it needs one, by kind and ε."""
    x, y = batch
    rng = perturbation_generator(constants.SEED)
    square = square_attack(network, batch, OWN_EPSILON, constants.QUERIES, rng)
    by_noise = glr_attack(network, batch, OWN_EPSILON, constants.PGD_STEPS, rng)
    found = {
        ("fgsm", OWN_EPSILON): [fgsm(x, y, g, OWN_EPSILON) for g in gradients],
        ("glr", OWN_EPSILON): [by_noise],
        ("square", OWN_EPSILON): [square],
    }
    for epsilon in {*constants.EPSILON, OWN_EPSILON}:
        found["pgd", epsilon] = [pgd(x, y, g, epsilon, constants.PGD_STEPS) for g in gradients]
    return found


def names_in(rows: Sequence[Row]) -> list[str]:
    """The networks that were measured, in their order."""
    return list(dict.fromkeys(row.model for row in rows))


def whitebox_lines(rows: Sequence[Row]) -> list[list[str]]:
    """The table's cells, a header first: a network in each row."""
    lines = [["model", *COLUMNS]]
    for name in names_in(rows):
        cells = (cell(rows, name, c, None if c in NO_EPSILON else OWN_EPSILON) for c in COLUMNS)
        lines.append([name, *map(mean_and_spread, cells)])
    return lines


def whitebox_block(by_dataset: Mapping[str, Sequence[Row]]) -> str:
    """The tables, and how they are read, as Markdown."""
    parts = []
    for dataset, rows in by_dataset.items():
        parts.append(f"On {dataset}, the first {rows[0].n} test images, ε = {OWN_EPSILON}:")
        parts.append(markdown_table(whitebox_lines(rows)))
    reading = (
        "Zero gradient: images of which FGSM and PGD change nothing. If a network keeps less under "
        "glr or square, which follow no derivative, than under PGD, its gradient misleads."
    )
    return "\n\n".join([*parts, reading])


def draw_pgd(axes: Axes, rows: Sequence[Row]) -> None:
    """Accuracy under PGD on the network itself against ε, a line for each network."""
    names = names_in(rows)
    looks = look_of(map(network_name, names))
    for name in names:
        colour, style = looks[network_name(name)]
        marks = f"o{style}" if network_name(name) in GLR_ROWS else "s:"
        marks = marks if network_name(name) in COLOURS else f"^{style}"
        epsilons, cells = epsilon_curve(rows, name, "pgd")
        look = {"color": colour, "ms": 5, "markerfacecolor": "none", "capsize": 2}
        means, spreads = [*map(fmean, cells)], [*map(spread, cells)]
        axes.errorbar(epsilons, means, spreads, fmt=marks, label=name, **look)
    axes.set(xlabel="ε of PGD", ylabel="accuracy (%)", ylim=(0, 100))


def write_whitebox(by_dataset: Mapping[str, Sequence[Row]], page: Page) -> None:
    """Print and write the tables, and draw the picture."""
    block = whitebox_block(by_dataset)
    print(block)
    title = "PGD on the network itself, mean ± sd over seeds"
    panels = {f"{name}, {rows[0].n} test images": rows for name, rows in by_dataset.items()}
    draw = partial(draw_panels, by_dataset=panels, draw=draw_pgd, title=title)
    write_page(page, block, draw)


def epsilon_curve(
    rows: Sequence[Row], model: str, attack: str
) -> tuple[list[float], list[list[float]]]:
    """The ε of the attack's samples, 0 first, and at each the model's accuracies, seed by seed."""
    kinds = {(r.severity, r.condition) for r in rows if r.model == model}
    kinds = sorted((e, condition) for e, condition in kinds if condition in ("clean", attack))
    return [e for e, _ in kinds], [cell(rows, model, condition, e) for e, condition in kinds]
