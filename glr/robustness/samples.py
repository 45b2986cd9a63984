"""Perturbed test samples on disk, between the scripts that make them and the one that evaluates.

A file holds `x` (N × n_in), the clean test inputs; `x_adv`, their perturbations, of the same shape,
or (S × N × n_in) for S severities; `y` (N,), the labels; and `metadata`, a JSON string.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glr.data.datasets import Dataset, dataset_label
from glr.errors import GLRError
from glr.storage.files import write_whole
from glr.storage.npz import json_object, npz_arrays

MAX_BYTES = 8 * 2**30  # of a file's arrays together
LARGEST = 1e6  # number that the metadata may hold
ROUNDING = 1e-6  # of float32 sums in [0, 1]: how far a perturbation may exceed its ε


# The attacks (see glr.robustness.perturbation.perturbed), with the constant that each alone takes.
ATTACKS = {"fgsm": "", "pgd": "PGD_STEPS", "lbfgs": "PENALTY", "square": "QUERIES"}


class Samples(NamedTuple):
    """Clean inputs (N × n_in), their perturbations by severity, labels (N,) and metadata.

    x_adv : (S × N × n_in); or, to be saved, (N × n_in) of an attack, which has no severities
    """

    x: np.ndarray
    x_adv: np.ndarray
    y: np.ndarray
    metadata: dict


def has_epsilon(attack: str) -> bool:
    """Whether it is an attack of samples for each ε; a penalty keeps those of L-BFGS near."""
    return attack in ATTACKS and attack != "lbfgs"


def samples_path(data_dir: Path, dataset: str, name: str) -> Path:
    """data/<dataset>/adversarial/<name>.npz."""
    return data_dir / dataset / "adversarial" / f"{name}.npz"


def sample_name(attack: str, target: str, epsilon: float | None) -> str:
    """The name of an attack's file: fgsm_eps0.1, lbfgs, pgd_LRT-seed0_eps0.1. See how_to_make."""
    of_target = "" if target == "surrogate" else f"_{target}"
    return attack + of_target + ("" if epsilon is None else f"_eps{epsilon:g}")


def save_samples(path: Path, samples: Samples) -> None:
    """Write the samples, whole or not at all."""
    arrays = {"x": samples.x, "x_adv": samples.x_adv, "y": samples.y}
    text = np.array(json.dumps(samples.metadata, indent=1))
    write_whole(path, lambda file: np.savez(file, metadata=text, **arrays))


def load_samples(path: Path, data: Dataset) -> Samples:
    """Read a file of samples and check that it holds what it claims, for this data set.

    Raises GLRError, in one line, for a file that is missing, damaged, of other data, outside
    [0, 1], or whose perturbations exceed the ε in its metadata.
    """
    advice = f"run python {how_to_make(path.stem, data.source or f'{data.name}.npz')} again"
    arrays = npz_arrays(path, "file of samples", "x|x_adv|y|metadata", MAX_BYTES, advice)
    try:
        x, y, x_adv = arrays["x"], arrays["y"], arrays["x_adv"]
        metadata = json_object(path, arrays["metadata"], advice)
    except KeyError as error:
        raise GLRError(f"{path}: not a file of samples (no array {error}); {advice}") from error
    samples = Samples(x, x_adv if x_adv.ndim == 3 else x_adv[None], y, metadata)
    wrong = fault(samples, data)
    if wrong:
        raise GLRError(f"{path}: {wrong}; {advice}")
    return samples


def how_to_make(name: str, source: str) -> str:
    """What `python` is given to write the file of samples called name (or "corruptions", all).

    source : the data set, as DATASET names it
    """
    from glr.robustness.corruptions import CORRUPTIONS  # noqa: PLC0415  (SciPy, for a complaint alone)

    label, source = dataset_label(source), shlex.quote(source)
    if name in ("corruptions", *CORRUPTIONS):
        one = f" --corruptions {name}" if name in CORRUPTIONS else ""
        return f'"RobustnessTest/noise_generate_adv.py" --dataset {source}{one}'
    words = f'"RobustnessTest/generate_adv.py" --dataset {source}'
    known = re.fullmatch(rf"({'|'.join(ATTACKS)})(_(.+)-seed(\d+))?(_eps(.+))?", name)
    if known is None:
        return words
    attack, _, network, seed, _, epsilon = known.groups()
    words += f" --attack {attack}"
    words += f" --target models/{network}_{label}_seed{seed}.npz" if network else ""
    return words + (f" --epsilon {epsilon}" if epsilon else "")


def fault(samples: Samples, data: Dataset) -> str:
    """What is wrong with the samples, in words; nothing ("") if they are right."""
    return metadata_fault(samples.metadata, data) or arrays_fault(samples, data)


def metadata_fault(metadata: dict, data: Dataset) -> str:
    """What is wrong with what a file of samples says of itself; nothing if it is right."""
    if not all(isinstance(metadata.get(name), str) for name in ("attack", "dataset")):
        return "the metadata do not name attack and dataset"
    if metadata["dataset"] != data.name:
        return f"the metadata say that it is of {metadata['dataset']}, not of {data.name}"
    if not isinstance(metadata.get("target", ""), str):
        return "the metadata name no target"
    others = [metadata.get(name) for name in ("epsilon", "zero_gradient_share")]
    numbers = [*severities_of(metadata), *(number for number in others if number is not None)]
    if not all(isinstance(number, (int, float)) and 0 <= number < LARGEST for number in numbers):
        return "a severity, ε or share in the metadata is no number ≥ 0"
    return ""


def arrays_fault(samples: Samples, data: Dataset) -> str:
    """What is wrong with the arrays of a file of samples; nothing if they are right."""
    x, x_adv, y, metadata = samples
    if x.ndim != 2 or x_adv.ndim != 3 or x_adv.shape[1:] != x.shape or y.shape != x.shape[:1]:
        return f"shapes {x.shape}, {x_adv.shape}, {y.shape} do not fit one another"
    n = len(x)
    if n == 0 or x.shape[1] != data.x_test.shape[1] or n > len(data.x_test):
        return f"shape {x.shape} is not of the test set {data.x_test.shape} of {data.name}"
    if not np.array_equal(y, data.y_test[:n]):
        return f"the labels are not those of the test set of {data.name}"
    if not np.array_equal(x, data.x_test[:n]):
        return f"the clean inputs are not those of the test set of {data.name}"
    if not (x_adv.min() >= 0 and x_adv.max() <= 1):  # false for NaN too
        return "perturbed inputs leave [0, 1]"
    if len(severities_of(metadata)) != len(x_adv):
        return f"{len(x_adv)} severities, and the metadata name {len(severities_of(metadata))}"
    epsilon = metadata.get("epsilon")
    if epsilon is not None and (change := np.abs(x_adv - x).max()) > epsilon + ROUNDING:
        return f"a perturbation of {change:.4f} exceeds the claimed ε {epsilon}"
    return ""


def severities_of(metadata: dict) -> list:
    """The severity of each stack of perturbations: 1…5, or the attack's ε, or 0 for neither."""
    severities = metadata.get("severities", [metadata.get("epsilon") or 0])
    return severities if isinstance(severities, list) else [severities]
