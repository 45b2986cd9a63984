"""How networks fare under attacks on themselves, beside one that is transferred to them.

A transferred attack may miss: what a network keeps under it is no lower bound of anything. An
attack on the network itself follows its own gradient, or asks it again and again; what asks for no
gradient may show that the gradient misleads (Carlini et al. 2019, arXiv 1902.06705), and so may
another gradient in the place of one that is zero.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import numpy as np
from tqdm import tqdm

from glr.data.datasets import Dataset, load_dataset
from glr.errors import GLRError
from glr.network import Network, is_right, threshold
from glr.robustness.attacks import (
    InputGradient,
    fgsm,
    keras_input_gradient,
    pgd,
    zero_gradient_share,
)
from glr.robustness.black_box import square_attack
from glr.robustness.evaluation import epsilon_curve, known_models
from glr.robustness.perturbation import (
    check_image_range,
    check_square_images,
    perturbation_generator,
    surrogate,
)
from glr.robustness.rows import Row
from glr.robustness.tables import GLR_ROWS, TABLE_EPSILON, cell, markdown_table, mean_and_spread
from glr.scripts.backpropagation import GRADIENTS, keras_network
from glr.scripts.constants import as_typed
from glr.scripts.machine import prepare_for_small_arrays
from glr.scripts.plots import new_figure, plain_axes, save_figure
from glr.storage.models import Model
from glr.study.pages import write_section_and_picture

TRANSFERRED = "fgsm, transferred"  # from the surrogate, as in the published table
ATTACKS = ("fgsm", "pgd", "square")  # on the network itself
WORST = "under all"  # right is what is right clean and under every attack, the transferred one too
COLUMNS = ("clean", TRANSFERRED, *ATTACKS, WORST)
ZERO_GRADIENT = "zero gradient"  # samples at which the gradient that is followed is exactly zero

LabelledRows = tuple[np.ndarray, np.ndarray]  # inputs (N × n_in) in [0, 1], labels (N,)


def chosen_models(constants: SimpleNamespace, data: Dataset) -> list[Model]:
    """The models of DATASET that NAMES and SEEDS choose, in the order of NAMES."""
    models = known_models(constants, data).values()
    chosen = []
    for name in constants.NAMES:
        own = [model for model in models if model.name == name and model.seed < constants.SEEDS]
        if not own:
            print(f"Left out: {name}, of which there is no model of {data.name}", file=sys.stderr)
        elif own[0].network.activation not in GRADIENTS:
            print(f"Left out: {name}, whose activation Keras has no gradient of", file=sys.stderr)
        else:
            chosen += own
    if not chosen:
        raise GLRError(
            f"NAMES = {as_typed(constants.NAMES)}: none can be attacked; there are "
            f"{', '.join(sorted({model.name for model in models}))}, and "
            'python "Train&Test/study.py" trains the default ones'
        )
    return chosen


def measured_rows(constants: SimpleNamespace, dataset: str) -> list[Row]:
    """What the data set's networks get right of the first IMAGES test images, by attack."""
    prepare_for_small_arrays()
    data = load_dataset(dataset, constants.DATA_DIR)
    check_image_range(data)
    check_square_images(data)
    n = constants.IMAGES or len(data.x_test)
    batch = data.x_test[:n], data.y_test[:n]
    own = SimpleNamespace(**vars(constants), DATASET=dataset)
    models = chosen_models(own, data)
    gradient = keras_input_gradient(keras_network(surrogate(own, data).network))
    transferred = fgsm(*batch, gradient, TABLE_EPSILON)
    bar = tqdm(models, desc=f"attacks on {dataset}", unit="network", disable=None)
    return [row for model in bar for row in model_rows(constants, model, batch, transferred)]


def model_rows(
    constants: SimpleNamespace, model: Model, batch: LabelledRows, transferred: np.ndarray
) -> list[Row]:
    """A network's accuracies: clean, under each attack, and under all that have the table's ε.

    transferred : the batch's inputs after the attack that is not on this network
    """
    (x, y), network = batch, model.network
    gradients = input_gradients(network, constants.SLOPES)
    inputs = {("clean", 0.0): [x], (TRANSFERRED, TABLE_EPSILON): [transferred]}
    inputs |= attacked(constants, network, batch, gradients)
    right = {
        kind: np.logical_and.reduce([is_right(network.logits_of_rows(x), y) for x in several])
        for kind, several in inputs.items()
    }
    compared = [r for (_, epsilon), r in right.items() if epsilon in (0, TABLE_EPSILON)]
    right[WORST, TABLE_EPSILON] = np.logical_and.reduce(compared)
    shares = {kind: float(r.mean()) for kind, r in right.items()}
    shares[ZERO_GRADIENT, 0.0] = zero_gradient_share(gradients[0](x, y))
    return [Row(model.name, model.seed, *kind, share, len(y)) for kind, share in shares.items()]


def input_gradients(network: Network, slopes: Sequence[float]) -> list[InputGradient]:
    """The gradients to be followed: the network's own, or those that replace a threshold's.

    No slope of the sigmoid in a threshold's place is the right one: the attacks follow each.
    """
    used = slopes if network.activation is threshold else slopes[:1]
    return [keras_input_gradient(keras_network(network, slope=slope)) for slope in used]


def attacked(
    constants: SimpleNamespace,
    network: Network,
    batch: LabelledRows,
    gradients: Sequence[InputGradient],
) -> dict[tuple[str, float], list[np.ndarray]]:
    """The batch's inputs after every attack, along each gradient if it needs one, by kind and ε."""
    x, y = batch
    rng = perturbation_generator(constants.SEED)
    found = {
        ("fgsm", TABLE_EPSILON): [fgsm(x, y, g, TABLE_EPSILON) for g in gradients],
        ("square", TABLE_EPSILON): [
            square_attack(network, batch, TABLE_EPSILON, constants.QUERIES, rng)
        ],
    }
    for epsilon in {*constants.EPSILON, TABLE_EPSILON}:
        found["pgd", epsilon] = [
            pgd(x, y, g, epsilon, steps=constants.PGD_STEPS) for g in gradients
        ]
    return found


def names_in(rows: Sequence[Row]) -> list[str]:
    """The networks that were measured, in their order."""
    return list(dict.fromkeys(row.model for row in rows))


def whitebox_lines(rows: Sequence[Row]) -> list[list[str]]:
    """The table's cells, a header first: a network in each row."""
    lines = [["model", *COLUMNS]]
    for name in names_in(rows):
        lines.append([name, *(mean_and_spread(cell(rows, name, c)) for c in COLUMNS)])
    return lines


def what_gradients_hide(rows: Sequence[Row]) -> str:
    """Where the gradient that FGSM and PGD follow misleads: square, which has none, does more."""
    means = {
        (name, condition): fmean(cell(rows, name, condition))
        for name in names_in(rows)
        for condition in (*ATTACKS, ZERO_GRADIENT)
    }
    zero = [
        f"{name} {means[name, ZERO_GRADIENT]:.2f} %"
        for name in names_in(rows)
        if means[name, ZERO_GRADIENT] > 0
    ]
    misled = [name for name in names_in(rows) if means[name, "square"] < means[name, "pgd"]]
    return (
        f"Images whose gradient is exactly zero: {', '.join(zero) or 'none'}. Networks that keep "
        "less under square, which follows no gradient, than under PGD: "
        f"{', '.join(misled) or 'none'}."
    )


def whitebox_block(by_dataset: Mapping[str, Sequence[Row]]) -> str:
    """The tables and what they say, as Markdown."""
    parts = []
    for dataset, rows in by_dataset.items():
        parts += [
            f"On {dataset}, the first {rows[0].n} test images:",
            markdown_table(whitebox_lines(rows)),
            what_gradients_hide(rows),
        ]
    return "\n\n".join(parts)


def draw_pgd(path: Path, by_dataset: Mapping[str, Sequence[Row]]) -> None:
    """Accuracy under PGD on the network itself against ε, a panel per data set."""
    figure = new_figure(4.4 * len(by_dataset), 4)
    panels = figure.subplots(1, len(by_dataset), squeeze=False, sharey=True)[0]
    for axes, (dataset, rows) in zip(panels, by_dataset.items(), strict=True):
        for i, name in enumerate(names_in(rows)):
            style = "s:" if name not in GLR_ROWS else "o-"
            axes.plot(*epsilon_curve(rows, name, "pgd"), style, ms=3, color=f"C{i}", label=name)
        axes.set(title=dataset, xlabel="ε of PGD on the network itself", ylim=(0, 100))
        plain_axes(axes)
    panels[0].set_ylabel("accuracy (%)")
    panels[-1].legend(fontsize=8, frameon=False)
    save_figure(path, figure)


def write_whitebox(by_dataset: Mapping[str, Sequence[Row]], whole: bool) -> None:
    """Write the tables and the picture, to docs/ if they are of a whole run."""
    block = whitebox_block(by_dataset)
    write_section_and_picture("whitebox", block, lambda path: draw_pgd(path, by_dataset), whole)
