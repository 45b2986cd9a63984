"""What generate_adv.py and noise_generate_adv.py do: perturb a test set, write and draw it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tqdm import tqdm

from glr.data.datasets import Dataset, dataset_label, has_square_images, load_dataset
from glr.errors import GLRError
from glr.network import Network, accuracy, threshold
from glr.robustness.attacks import (
    fgsm,
    keras_input_gradient,
    keras_loss_and_gradient,
    lbfgs,
    pgd,
    random_targets,
    zero_gradient_share,
)
from glr.robustness.black_box import square_attack
from glr.robustness.corruptions import CORRUPTIONS, SEVERITIES, as_images
from glr.robustness.pictures import draw_attack, draw_corruptions
from glr.robustness.rows import load_model_for
from glr.robustness.samples import ATTACKS, Samples, sample_name, samples_path, save_samples
from glr.scripts.backpropagation import keras_network
from glr.scripts.constants import as_typed
from glr.scripts.experiment import train_by_backpropagation
from glr.scripts.machine import prepare_for_small_arrays
from glr.scripts.records import keep_other_model, recorded_constants, run_path, save_run
from glr.storage.files import check_writable
from glr.storage.models import Model
from glr.study.runs import surrogate_constants

PERTURBATIONS = 1  # beside the seed, what tells their generator from that of the seed's training


def perturbation_generator(seed: int) -> np.random.Generator:
    """The generator of corruptions, random targets and the square attack.

    It shares no number with the training of that seed: the noise that a network has met in its
    neurons would else be that of the corruptions, word for word.
    """
    return np.random.Generator(np.random.SFC64([seed, PERTURBATIONS]))


def surrogate(constants: SimpleNamespace, data: Dataset) -> Model:
    """The surrogate of the data set and seed; trained, and kept in models/, when missing.

    One that other constants than today's trained is put aside.

    Raises GLRError if the file in its place is damaged, or of other data.
    """
    settings = surrogate_constants(constants)
    path = run_path(settings)
    print(keep_other_model(path, recorded_constants(settings)), end="", file=sys.stderr)
    if not path.exists():
        print(f"No surrogate at {path}: training one", file=sys.stderr)
        save_run(train_by_backpropagation(settings), settings)
    try:
        return load_model_for(path, data)
    except GLRError as error:
        raise GLRError(f"{error}. If deleted, a surrogate of these data is trained") from error


def attacked_model(constants: SimpleNamespace, data: Dataset) -> tuple[Network, str]:
    """The network whose gradient is followed, and what it is called in file names."""
    if constants.TARGET == "surrogate":
        return surrogate(constants, data).network, "surrogate"
    model = load_model_for(Path(constants.TARGET), data)
    return model.network, f"{model.name}-seed{model.seed}"


def check_image_range(data: Dataset) -> None:
    """Raise GLRError unless the test inputs lie in [0, 1], where ε and corruptions have sense."""
    if data.x_test.min() < 0 or data.x_test.max() > 1:
        raise GLRError(f"{data.name}: inputs leave [0, 1]; scale them to it, as images are")


def check_square_images(data: Dataset) -> None:
    """Raise GLRError unless the samples are square grey images."""
    if not has_square_images(data):
        shape = data.shape or data.x_test.shape[1:]
        raise GLRError(
            f"{data.name}: samples of shape {shape}; corruptions and the square attack need square "
            "grey images"
        )


def write_attacks(constants: SimpleNamespace) -> None:
    """Attack the test set as the constants say, at each ε; write samples and pictures."""
    prepare_for_small_arrays()
    data = load_dataset(constants.DATASET, constants.DATA_DIR)
    check_image_range(data)
    attack = ATTACKS[constants.ATTACK]
    if attack.needs_square_images:
        check_square_images(data)
    n = constants.IMAGES or len(data.x_test)
    x, y = data.x_test[:n], data.y_test[:n]
    network, target = attacked_model(constants, data)
    epsilons = constants.EPSILON if attack.has_epsilon else (None,)
    paths = [
        samples_path(constants.DATA_DIR, data.name, sample_name(constants.ATTACK, target, epsilon))
        for epsilon in epsilons
    ]
    for path in paths:
        check_writable(path)
    labels = attack_labels(constants, network, y)
    zero_share = zero_share_of(network, x, labels) if attack.follows_gradient else 0.0
    for epsilon, path in zip(epsilons, paths, strict=True):
        x_adv = perturbed(constants, network, (x, y), epsilon)
        metadata = attack_metadata(constants, target, epsilon, zero_share)
        save_samples(path, Samples(x, x_adv, y, metadata))
        if has_square_images(data):
            draw_attack(path.with_suffix(".png"), x, x_adv, y)
        before, after = (100 * accuracy(network.logits_of_rows(a), y) for a in (x, x_adv))
        print(f"{path.stem}: {target}'s accuracy {before:.2f} → {after:.2f} % of {len(y)}; {path}")
    for note in gradient_notes(network, zero_share) if attack.follows_gradient else ():
        print(note, file=sys.stderr)


def table_samples(epsilons: Sequence[float]) -> list[str]:
    """The names of the sample files that the tables are of: FGSM at each ε, L-BFGS, corruptions."""
    return [*(sample_name("fgsm", "surrogate", e) for e in epsilons), "lbfgs", *CORRUPTIONS]


def attack_metadata(
    constants: SimpleNamespace, target: str, epsilon: float | None, zero_share: float
) -> dict:
    """What is written beside the samples of an attack."""
    own = ATTACKS[constants.ATTACK].own
    return {
        "attack": constants.ATTACK,
        "dataset": dataset_label(constants.DATASET),
        "target": target,
        "epsilon": epsilon,
        "norm": "L-infinity" if epsilon is not None else "L2, penalised",
        "penalty": constants.PENALTY if own == "PENALTY" else None,
        "steps": constants.PGD_STEPS if own == "PGD_STEPS" else None,
        "queries": constants.QUERIES if own == "QUERIES" else None,
        "seed": constants.SEED,
        "zero_gradient_share": zero_share,
    }


def perturbed(
    constants: SimpleNamespace,
    network: Network,
    batch: tuple[np.ndarray, np.ndarray],
    epsilon: float | None,
) -> np.ndarray:
    """The batch's inputs after the attack that the constants name."""
    x, y = batch
    if constants.ATTACK == "square":
        rng = perturbation_generator(constants.SEED)
        return square_attack(network, batch, epsilon, constants.QUERIES, rng)
    model = keras_network(network)
    if constants.ATTACK == "fgsm":
        return fgsm(x, y, keras_input_gradient(model), epsilon)
    if constants.ATTACK == "pgd":
        return pgd(x, y, keras_input_gradient(model), epsilon, steps=constants.PGD_STEPS)
    targets = attack_labels(constants, network, y)
    return lbfgs(x, targets, keras_loss_and_gradient(model), constants.PENALTY)


def attack_labels(constants: SimpleNamespace, network: Network, y: np.ndarray) -> np.ndarray:
    """The labels that the attack leads away from, the true ones; or to, L-BFGS's random targets."""
    if not ATTACKS[constants.ATTACK].is_targeted:
        return y
    return random_targets(y, network.sizes[-1], perturbation_generator(constants.SEED))


def zero_share_of(network: Network, x: np.ndarray, labels: np.ndarray) -> float:
    """The share of samples at which the cross-entropy's gradient is exactly zero."""
    model = keras_network(network)
    return zero_gradient_share(keras_input_gradient(model)(x, labels))


def gradient_notes(network: Network, zero_share: float) -> list[str]:
    """What must be known before the attack's success is read as the network's robustness."""
    notes = []
    if network.activation is threshold:
        notes.append(
            "Note: a threshold network's true input gradient is zero everywhere; the attack "
            "follows that of a sigmoid network of the same weights. whitebox.py follows several, "
            "and leaves far less."
        )
    if zero_share > 0:
        notes.append(
            f"Note: {100 * zero_share:.2f} % of the followed gradients are exactly zero. There the "
            "attack changes nothing, whatever the network: not robustness. Try --attack square."
        )
    return notes


def write_corruptions(constants: SimpleNamespace) -> None:
    """Corrupt the test set at five severities by every corruption; write samples and a picture."""
    unknown = set(constants.CORRUPTIONS) - set(CORRUPTIONS)
    if unknown or not constants.CORRUPTIONS:
        raise GLRError(
            f"CORRUPTIONS = {as_typed(constants.CORRUPTIONS)}: give {', '.join(CORRUPTIONS)}"
        )
    data = load_dataset(constants.DATASET, constants.DATA_DIR)
    check_image_range(data)
    check_square_images(data)
    chosen = [name for name in CORRUPTIONS if name in constants.CORRUPTIONS]
    check_writable(samples_path(constants.DATA_DIR, data.name, chosen[0]))
    shown = {}
    for name in tqdm(chosen, unit="corruption", disable=None):
        samples = corrupted(data, name, constants.SEED)
        path = samples_path(constants.DATA_DIR, data.name, name)
        save_samples(path, samples)
        print(f"{name}: {len(samples.x)} images × severities 1–5; {path}")
        shown[name] = as_images(samples.x_adv[:, 0].astype(np.float32))
    title = "corruptions" if chosen == [*CORRUPTIONS] else "+".join(chosen)
    picture = samples_path(constants.DATA_DIR, data.name, title).with_suffix(".png")
    draw_corruptions(picture, as_images(data.x_test[:1])[0], shown)
    print(f"picture: {picture}")


def corrupted(data: Dataset, name: str, seed: int) -> Samples:
    """The test images at the severities of a corruption; the same whichever others are asked for.

    In half precision: 2⁻¹² of intensity at most, a sixteenth of an 8-bit step, for half the bytes.
    """
    images = as_images(data.x_test)
    rng = perturbation_generator(seed).spawn(len(CORRUPTIONS))[[*CORRUPTIONS].index(name)]
    stack = np.stack([CORRUPTIONS[name](images, severity, rng) for severity in SEVERITIES])
    x_adv = stack.reshape(len(SEVERITIES), len(images), -1).astype(np.float16)
    metadata = {
        "attack": name,
        "dataset": data.name,
        "severities": list(SEVERITIES),
        "seed": seed,
    }
    return Samples(data.x_test, x_adv, data.y_test, metadata)
