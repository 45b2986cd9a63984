"""What generate_adv.py and noise_generate_adv.py do: perturb a test set, write and draw it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from glr.data.datasets import Dataset, dataset_label, has_square_images, load_dataset
from glr.data.labels import class_name
from glr.errors import GLRError
from glr.network import Network, accuracy, threshold
from glr.robustness import attacks
from glr.robustness.attacks import Attack, grouped, input_gradient, until_wrong
from glr.robustness.corruptions import CORRUPTIONS, SEVERITIES, as_images
from glr.robustness.evaluation import PRETRAINED, blind_spot, load_model_for, perturbation_generator
from glr.robustness.samples import (
    ATTACKS,
    WITHOUT_DERIVATIVE,
    Samples,
    has_epsilon,
    sample_name,
    samples_path,
    save_samples,
)
from glr.scripts.backpropagation import TrainingNoise, backpropagation
from glr.scripts.constants import constants_of, functions_of
from glr.scripts.machine import prepare_for_small_arrays
from glr.scripts.plots import new_figure, optional_picture, save_figure
from glr.scripts.records import keep_other_model, recorded_constants, run_path
from glr.scripts.run import new_run
from glr.storage.files import check_writable
from glr.storage.models import Model, layers_and_metadata

SHOWN = 10  # images of an attack's picture
IN_WORDS = {"fgsm": "FGSM", "pgd": "PGD", "lbfgs": "L-BFGS", "glr": "GLR", "square": "Square"}
GREY = ("gray", 0, 1)  # colour map of images, and the values at its two ends
# A row of a picture: its name, its images, their colours, and a caption above each, or none.
Strip = tuple[str, np.ndarray, tuple[str, float, float], Sequence[str]]
THRESHOLD_NOTE = (
    "Note: a threshold network's true input gradient is zero everywhere; the attack follows that "
    "of a sigmoid network of the same weights. --attack glr follows that of the thresholds' noise."
)
# The surrogate: what it has other than BP.py. The second public release of the published figures
# trains it so for ten epochs of MNIST, but by SGD of 0.01 with momentum 0.9, which BP.py has not:
# SGD of 0.01/(1 − 0.9) takes the same steps in the long run, and reaches the same training loss
# within 0.012. The initial weights have the deviation of PyTorch's, 1/√(3 n_in), but are normal;
# biases begin at 0, and have no penalty.
SURROGATE = (
    "--hidden 100 50 --activation relu --initial-scale 0.577 --optimizer sgd --learning-rate 0.1 "
    "--schedule constant --steps 4680 --weight-decay 1e-4 --backend tensorflow"
)
# What is added to its seed. Of the seed of a network it would begin with that one's weights, and
# meet the same minibatches: too near a relative.
SURROGATE_SEED = 1000


def surrogate_constants(constants: SimpleNamespace) -> SimpleNamespace:
    """The constants of BP.py with which the surrogate of an attack is trained."""
    own = {"--dataset": constants.DATASET, "--seed": SURROGATE_SEED + constants.SEED}
    places = {"--data-dir": constants.DATA_DIR, "--models-dir": constants.MODELS_DIR}
    words = [str(word) for flag in (own | places).items() for word in flag]
    settings = constants_of("BP.py", [*SURROGATE.split(), *words])
    settings.NAME = "surrogate"  # a name that no training script takes
    settings.RESUME = None  # wherever there is something to resume
    return settings


def surrogate(constants: SimpleNamespace, data: Dataset) -> Model:
    """The surrogate of the data set and seed; trained, and kept in models/, when none is there.

    One of other constants is put aside. Raises GLRError for a damaged file, or one of other data.
    """
    settings = surrogate_constants(constants)
    path, wanted = run_path(settings), recorded_constants(settings)
    print(keep_other_model(path, wanted), end="", file=sys.stderr)
    shipped = PRETRAINED / path.name
    if not path.exists() and shipped.exists():
        _, metadata = layers_and_metadata(shipped)
        path = shipped if metadata["constants"] == wanted else path
    if not path.exists():
        print(f"No surrogate at {path}: training one", file=sys.stderr)
        train_by_backpropagation(settings)
    try:
        return load_model_for(path, data, {})
    except GLRError as error:
        raise GLRError(f"{error}. If deleted, a surrogate of these data is trained") from error


def train_by_backpropagation(settings: SimpleNamespace) -> None:
    """Train and save what the constants of BP.py describe, as BP.py does."""
    run = new_run(settings)
    noise = TrainingNoise(settings.NOISE, settings.SIGMA, settings.PERTURB)
    gradient = backpropagation(run.network, settings.LOSS, noise)
    for x, y in run.minibatches():
        run.descend(gradient(x, y, run.rng))
    run.save()


def attacked_model(constants: SimpleNamespace, data: Dataset) -> tuple[Network, str]:
    """The attacked network, and its name in files; GLRError if it lacks the gradient needed."""
    if constants.TARGET == "surrogate":
        return surrogate(constants, data).network, "surrogate"
    model = load_model_for(Path(constants.TARGET), data, functions_of(constants.FUNCTIONS))
    activation = model.network.activation
    if constants.ATTACK not in WITHOUT_DERIVATIVE and activation not in attacks.DERIVATIVES:
        raise GLRError(
            f"{constants.TARGET}: no gradient of its activation {activation.__name__} is known; "
            "use --attack glr or square, or the surrogate"
        )
    return model.network, f"{model.name}-seed{model.seed}"


def check_image_range(data: Dataset) -> None:
    """Raise GLRError unless the test inputs lie in [0, 1], where ε and corruptions have sense."""
    if data.x_test.min() < 0 or data.x_test.max() > 1:
        raise GLRError(f"{data.name}: inputs leave [0, 1]; scale them to it, as images are")


def check_square_images(data: Dataset) -> None:
    """Raise GLRError unless the samples are square grey images, within [0, 1]."""
    check_image_range(data)
    if not has_square_images(data):
        shape = data.shape or data.x_test.shape[1:]
        raise GLRError(
            f"{data.name}: samples of shape {shape}; corruptions and the square attack need square "
            "grey images"
        )


def write_attacks(constants: SimpleNamespace) -> None:
    """Attack the test set as the constants say, at each ε; write samples and pictures."""
    prepare_for_small_arrays()
    attack = constants.ATTACK
    if attack not in ATTACKS:
        raise GLRError(f"ATTACK = {attack}: give one of {', '.join(ATTACKS)}")
    data = load_dataset(constants.DATASET, constants.DATA_DIR)
    (check_square_images if attack == "square" else check_image_range)(data)
    network, target = attacked_model(constants, data)
    n = constants.IMAGES or len(data.x_test)
    first = n if n < len(data.x_test) else 0
    x, y = data.x_test[:n], data.y_test[:n]
    epsilons = constants.EPSILON if has_epsilon(attack) else (None,)
    names = [sample_name(attack, target, epsilon, first) for epsilon in epsilons]
    paths = [samples_path(constants.DATA_DIR, data.name, name) for name in names]
    check_writable(paths[0])
    labels = attack_labels(constants, network, y)
    has_derivative = attack not in WITHOUT_DERIVATIVE
    share = 0
    if has_derivative:
        share = attacks.zero_gradient_share(input_gradient(network)(x, labels))
    metadata = {
        **{"attack": attack, "dataset": dataset_label(constants.DATASET), "target": target},
        **{"seed": constants.SEED, "zero_gradient_share": share},
        **{name.lower(): getattr(constants, name) for name in [ATTACKS[attack]] if name},
    }
    for epsilon, path in zip(epsilons, paths, strict=True):
        x_adv = attack_of(constants, network, epsilon)((x, labels))
        save_samples(path, Samples(x, x_adv, y, metadata | {"epsilon": epsilon}))
        before, after = (100 * accuracy(network.logits(inputs), y) for inputs in (x, x_adv))
        print(f"{path.stem}: {target}'s accuracy {before:.2f} → {after:.2f} % of {len(y)}; {path}")
        if has_square_images(data):
            with optional_picture():
                title = f"{attack_in_words(attack, target, epsilon)}; {data.name}, the first "
                title += f"{len(x[:SHOWN])} of {len(y)} test images"
                picture = path.with_suffix(f".{constants.FORMAT}")
                draw_images(picture, attack_strips(network, data, (x, x_adv)), title)
    if has_derivative and network.activation is threshold:
        print(THRESHOLD_NOTE, file=sys.stderr)
    if share:
        print(blind_spot(metadata), file=sys.stderr)


def attack_in_words(attack: str, target: str, epsilon: float | None) -> str:
    """The attack, its ε, and whose predictions are shown: FGSM, ε 0.13, transferred from …"""
    size = "" if epsilon is None else f", ε {epsilon:g}"
    own = f"on {target.replace('-seed', ', seed ')} itself"
    where = "transferred from a ReLU network" if target == "surrogate" else own
    return f"{IN_WORDS[attack]}{size}, {where}, whose predictions these are"


def table_samples(epsilons: Sequence[float]) -> list[str]:
    """The names of the sample files that the tables are of: FGSM at each ε, L-BFGS, corruptions."""
    return [*(sample_name("fgsm", "surrogate", e) for e in epsilons), "lbfgs", *CORRUPTIONS]


def attack_of(constants: SimpleNamespace, network: Network, epsilon: float | None) -> Attack:
    """The attack that the constants name, on a batch (x, attack_labels)."""
    rng, steps = perturbation_generator(constants.SEED), constants.PGD_STEPS
    if constants.ATTACK == "square":
        options = {"epsilon": epsilon, "queries": constants.QUERIES, "rng": rng}
        return partial(attacks.square_attack, network, **options)
    if constants.ATTACK == "lbfgs":
        model = attacks.loss_and_gradient(network)
        attack = partial(attacks.lbfgs, model=model, penalty=constants.PENALTY)
    elif constants.ATTACK == "fgsm":
        attack = partial(attacks.fgsm, gradient=input_gradient(network), epsilon=epsilon)
    else:
        if constants.ATTACK == "pgd":
            gradient = input_gradient(network)
        else:
            gradient = until_wrong(network, attacks.glr_input_gradient(network, rng))
        attack = partial(attacks.pgd, gradient=gradient, epsilon=epsilon, steps=steps)
    return grouped(attack, constants.ATTACK)


def attack_labels(constants: SimpleNamespace, network: Network, y: np.ndarray) -> np.ndarray:
    """The labels that the attack leads away from, the true ones; or to, other ones at random."""
    if constants.ATTACK != "lbfgs":
        return y
    n_classes, rng = network.sizes[-1], perturbation_generator(constants.SEED)
    return (y + rng.integers(1, n_classes, size=y.shape)) % n_classes


def write_corruptions(constants: SimpleNamespace) -> None:
    """Corrupt the test set by every corruption; write samples, in half precision, and a picture."""
    data = load_dataset(constants.DATASET, constants.DATA_DIR)
    check_square_images(data)
    x, rows = data.x_test, []
    rngs = perturbation_generator(constants.SEED).spawn(len(CORRUPTIONS))
    for name, rng in zip(CORRUPTIONS, rngs, strict=True):
        stack = [CORRUPTIONS[name](as_images(x), severity, rng) for severity in SEVERITIES]
        x_adv = np.stack(stack).reshape(len(stack), *x.shape).astype(np.float16)
        metadata = {"attack": name, "dataset": data.name, "severities": [*SEVERITIES]}
        path = samples_path(constants.DATA_DIR, data.name, name)
        save_samples(path, Samples(x, x_adv, data.y_test, metadata | {"seed": constants.SEED}))
        print(f"{name}: {len(x)} images × severities 1–5; {path}")
        captions = ["clean", *(f"severity {s}" for s in SEVERITIES)] if not rows else []
        images = as_images(np.stack([x[0], *x_adv[:, 0]]))
        rows.append((name.replace("_", " "), images, GREY, captions))
    picture = path.with_name(f"corruptions.{constants.FORMAT}")
    with optional_picture():
        draw_images(picture, rows, f"{data.name}: the first test image, corrupted")
        print(f"picture: {picture}")


def attack_strips(
    network: Network, data: Dataset, inputs: tuple[np.ndarray, np.ndarray]
) -> list[Strip]:
    """The first of both inputs, clean and attacked, as images, with predictions; and the change."""
    inputs = [x[:SHOWN] for x in inputs]
    clean, attacked = map(as_images, inputs)
    before, after = (
        [f"predicted {class_name(data.classes, k)}" for k in network.logits(x).argmax(axis=1)]
        for x in inputs
    )
    labels = [f"label {class_name(data.classes, k)}\n" for k in data.y_test[: len(before)]]
    change = attacked - clean
    largest = max(float(np.abs(change).max()), 1e-6)
    return [
        ("clean", clean, GREY, [*map(str.__add__, labels, before)]),
        (f"change (±{largest:.2g})", change, ("RdBu_r", -largest, largest), ()),
        ("attacked", attacked, GREY, after),
    ]


def draw_images(path: Path, rows: Sequence[Strip], title: str) -> None:
    """A grid of images, a row for each strip."""
    columns = len(rows[0][1])
    figure = new_figure(1.2 * columns + 1, 1.4 * len(rows) + 0.5)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, images, (colours, low, high), captions) in zip(grid, rows, strict=True):
        line[0].set_ylabel(name, fontsize=9)
        for axes, image, caption in zip_longest(line, images, captions, fillvalue=""):
            axes.imshow(image, colours, vmin=low, vmax=high, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.set_title(caption, fontsize=9, parse_math=False)
    save_figure(path, figure, title)
