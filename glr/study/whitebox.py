"""How networks fare under attacks on themselves, beside one that is transferred to them.

A transferred attack may miss: what a network keeps under it is no lower bound of anything. An
attack on the network itself follows its own gradient, or asks it again and again; what asks for no
gradient may show that the gradient misleads (Carlini et al. 2019, arXiv 1902.06705), and so may
another gradient in the place of one that is zero.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import fmean
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from glr.data.datasets import Dataset, hold_out, load_dataset
from glr.errors import GLRError
from glr.losses import cross_entropy
from glr.network import Network, is_right, threshold
from glr.robustness.attacks import (
    Batch,
    apgd_attacks,
    fgsm,
    glr_input_gradient,
    input_gradient,
    margin,
    pgd,
    square_attack,
    until_wrong,
    zero_gradient_share,
)
from glr.robustness.averaging import Averaged, training_noise
from glr.robustness.evaluation import known_models, load_model_for
from glr.robustness.perturbation import (
    check_square_images,
    perturbation_generator,
    surrogate,
)
from glr.robustness.tables import (
    ADVERSARIAL,
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
LOSSES = (cross_entropy, margin)  # whose gradients pgd and glr follow

Attack = Callable[[Batch], np.ndarray]


def chosen_models(constants: SimpleNamespace, data: Dataset) -> list[Model]:
    """The models of DATASET that NAMES and SEEDS choose, in the order of NAMES."""
    find = held_out_models if constants.VALIDATION else lambda *of: known_models(*of).values()
    models = find(constants, data)
    chosen = []
    for name in constants.NAMES:
        own = [
            model
            for model in models
            if network_name(model.name) == name and model.seed < constants.SEEDS
        ]
        why = own_refusal(constants, own[0]) if own else "of which there is no model"
        if why:
            print(f"Left out on {data.name}: {name}, {why}", file=sys.stderr)
        else:
            chosen += own
    if not chosen:
        raise GLRError(
            f"NAMES = {as_typed(constants.NAMES)}: none can be attacked; there are "
            f"{', '.join(sorted({network_name(model.name) for model in models}))}, and "
            'python "Train&Test/study.py" trains the default ones'
        )
    return chosen


def own_refusal(constants: SimpleNamespace, model: Model) -> str:
    """Why the model cannot be attacked, or predict, as the constants say; nothing if it can."""
    if model.network.activation not in GRADIENTS:
        return "whose activation has no known gradient"
    if constants.PREDICTION_PASSES and not training_noise(model):
        return "trained without noise of glr's laws in every layer"
    return ""


def predictor(
    constants: SimpleNamespace, model: Model, rng: np.random.Generator
) -> Network | Averaged:
    """The model's network; or, with PREDICTION_PASSES, by its mean over so many noisy ones."""
    if not constants.PREDICTION_PASSES:
        return model.network
    return Averaged(model.network, training_noise(model), constants.PREDICTION_PASSES, rng)


def held_out_models(constants: SimpleNamespace, data: Dataset) -> list[Model]:
    """The models of DATASET in MODELS_DIR that were trained with --validation VALIDATION."""
    paths = sorted(constants.MODELS_DIR.glob(f"*_{data.name}_seed*_validation.npz"))
    models = [load_model_for(path, data) for path in paths]
    n = constants.VALIDATION
    found = [model for model in models if model.metadata["constants"].get("VALIDATION") == n]
    if not found:
        raise GLRError(
            f"{constants.MODELS_DIR}: no model of {data.name} that was trained with --validation "
            f'{n}; train one, python "Train&Test/LRS.py" --dataset {data.name} --validation {n}'
        )
    return found


def measured_rows(constants: SimpleNamespace, dataset: str) -> list[Row]:
    """What the data set's networks get right of the first IMAGES samples, by attack."""
    prepare_for_small_arrays()
    data = load_dataset(dataset, constants.DATA_DIR)
    check_square_images(data)
    own = SimpleNamespace(**vars(constants), DATASET=dataset)
    models = chosen_models(own, data)
    transfer = input_gradient(surrogate(own, data).network)
    rows = []
    for model in progress_bar(models, data.name):
        batch = first_samples(constants, data, model.seed)
        rows += model_rows(constants, model, batch, fgsm(batch, transfer, OWN_EPSILON))
    return rows


def first_samples(constants: SimpleNamespace, data: Dataset, seed: int) -> Batch:
    """The first IMAGES test samples, or of those that a model of the seed did not train on."""
    if constants.VALIDATION:
        data = hold_out(data, constants.VALIDATION, run_generator(seed))
    n = constants.IMAGES or len(data.x_test)
    return data.x_test[:n], data.y_test[:n]


def model_rows(
    constants: SimpleNamespace, model: Model, batch: Batch, transferred: np.ndarray
) -> list[Row]:
    """A network's accuracies: clean, under each attack, and under those of the table one by one.

    transferred : the batch's inputs after the attack that is not on this network
    """
    rng = perturbation_generator(constants.SEED)
    network = predictor(constants, model, rng)
    x, y = batch
    right = {("clean", 0.0): survivors(network, batch, [])}
    right[TRANSFERRED, OWN_EPSILON] = is_right(network.logits(transferred), y)
    for kind, attacks in attacks_on(constants, network, rng).items():
        right[kind] = survivors(network, batch, attacks)
    left = np.logical_and.reduce([r for (_, e), r in right.items() if e in (0, OWN_EPSILON)])
    for name, attacks in last_attacks(constants, network, rng).items():
        left = right[name, OWN_EPSILON] = survivors(network, batch, attacks, left)
    shares = {kind: float(r.mean()) for kind, r in right.items()}
    shares[ZERO_GRADIENT, 0.0] = zero_gradient_share(input_gradient(network)(x, y))
    return [Row(model.name, model.seed, *kind, share, len(y)) for kind, share in shares.items()]


def survivors(
    network: Network | Averaged,
    batch: Batch,
    attacks: Sequence[Attack],
    among: np.ndarray | None = None,
) -> np.ndarray:
    """Which samples (N,) are right, and stay so under every attack; each meets what is left.

    among : those that count, all by default
    """
    x, y = batch
    left = is_right(network.logits(x), y) if among is None else among.copy()
    for attack in attacks:
        rows = np.flatnonzero(left)
        if rows.size:
            found = attack((x[rows], y[rows]))
            left[rows] = is_right(network.logits(found), y[rows])
    return left


def attacks_on(
    constants: SimpleNamespace, network: Network | Averaged, rng: np.random.Generator
) -> dict[tuple[str, float], list[Attack]]:
    """The sign attacks by kind and ε: along each loss's gradient, from the image and elsewhere.

    All stay where the network is wrong, so that an image is lost at any step.
    """
    noise = network.noise if isinstance(network, Averaged) else None
    by_derivative = [input_gradient(network, loss) for loss in LOSSES]
    by_noise = [glr_input_gradient(network, rng, loss, noise) for loss in LOSSES]
    found = {("fgsm", OWN_EPSILON): [partial(fgsm, gradient=by_derivative[0], epsilon=OWN_EPSILON)]}
    kinds = [("pgd", e, by_derivative) for e in sorted({*constants.EPSILON, OWN_EPSILON})]
    for name, epsilon, gradients in (*kinds, ("glr", OWN_EPSILON, by_noise)):
        options = {"epsilon": epsilon, "steps": constants.PGD_STEPS}
        found[name, epsilon] = [
            partial(pgd, gradient=until_wrong(network, gradient), rng=start, **options)
            for start in (None, *[rng] * constants.STARTS)
            for gradient in gradients
        ]
    return found


def last_attacks(
    constants: SimpleNamespace, network: Network | Averaged, rng: np.random.Generator
) -> dict[str, list[Attack]]:
    """The attacks that take longest, on what the others leave; of a threshold no auto-PGD."""
    has_gradient = network.activation is not threshold
    return {
        AUTO_PGD: apgd_attacks(network, OWN_EPSILON, rng) if has_gradient else [],
        WORST: [
            lambda batch: square_attack(network, batch, OWN_EPSILON, constants.QUERIES, rng),
        ],
    }


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
        parts.append(f"On {dataset}, the first {rows[0].n} images, ε = {OWN_EPSILON}:")
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
    if page.whole:
        write_readme("whitebox", readme_block(by_dataset[README_DATASET]))


def readme_block(rows: Sequence[Row]) -> str:
    """README's table of what adversarial training reaches, as Markdown."""
    lines = [["network", "clean", f"attacked itself, ε = {OWN_EPSILON}"]]
    for name in names_in(rows):
        if name in GLR_ROWS or name.endswith(ADVERSARIAL):
            cells = cell(rows, name, "clean"), cell(rows, name, WORST, OWN_EPSILON)
            lines.append([name, *map(mean_and_spread, cells)])
    return markdown_table(lines)


def epsilon_curve(
    rows: Sequence[Row], model: str, attack: str
) -> tuple[list[float], list[list[float]]]:
    """The ε of the attack's samples, 0 first, and at each the model's accuracies, seed by seed."""
    kinds = {(r.severity, r.condition) for r in rows if r.model == model}
    kinds = sorted((e, condition) for e, condition in kinds if condition in ("clean", attack))
    return [e for e, _ in kinds], [cell(rows, model, condition, e) for e, condition in kinds]
