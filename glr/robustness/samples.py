"""Perturbed test samples on disk, between the scripts that make them and the one that evaluates.

A file holds `x` (N × n_in), the clean test inputs; `x_adv`, their perturbations, of the same shape,
or (S × N × n_in) for S severities; `y` (N,), the labels; and `metadata`, a JSON string.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glr.data.datasets import Dataset
from glr.errors import GLRError
from glr.storage.npz import load_arrays, refusals, save_arrays

KIND = "file of samples"
MAX_BYTES = 8 * 2**30  # of a file's arrays together
LARGEST = 1e6  # number that the metadata may hold
ROUNDING = 1e-6  # of float32 sums in [0, 1]: how far a perturbation may exceed its ε

# The attacks, with the constant that each alone takes.
ATTACKS = dict(fgsm="", pgd="PGD_STEPS", lbfgs="PENALTY", glr="PGD_STEPS", square="QUERIES")
WITHOUT_DERIVATIVE = ("glr", "square")  # attacks of any network, whatever its activation


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


def sample_name(attack: str, target: str, epsilon: float | None, first: int = 0) -> str:
    """The name of an attack's file: lbfgs, pgd_LRT-seed0_eps0.1, lbfgs_first20 (first = 0: all)."""
    of_target = "" if target == "surrogate" else f"_{target}"
    of_size = "" if epsilon is None else f"_eps{epsilon:g}"
    return attack + of_target + of_size + (f"_first{first}" if first else "")


def save_samples(path: Path, samples: Samples) -> None:
    """Write the samples, whole or not at all."""
    arrays = {"x": samples.x, "x_adv": samples.x_adv, "y": samples.y}
    save_arrays(path, samples.metadata, arrays)


def load_samples(path: Path, data: Dataset) -> Samples:
    """Read a file of samples; GLRError unless it holds what it claims, for this data set."""
    advice = f"run python {how_to_make(path.stem, data.source or f'{data.name}.npz')} again"
    arrays, metadata = load_arrays(path, KIND, "x|x_adv|y", MAX_BYTES, advice)
    with refusals(path, KIND, advice):
        x, x_adv, y = arrays["x"], arrays["x_adv"], arrays["y"]
        samples = Samples(x, x_adv if x_adv.ndim == 3 else x_adv[None], y, metadata)
        check_samples(samples, data)
    return samples


def how_to_make(name: str, source: str) -> str:
    """What `python` is given to write the samples called name, of the data set source (DATASET)."""
    script = "generate_adv.py" if name.startswith((*ATTACKS,)) else "noise_generate_adv.py"
    return f'"RobustnessTest/{script}" --dataset {shlex.quote(source)}'


def check_samples(samples: Samples, data: Dataset) -> None:
    """Raise GLRError, which does not name the file, unless samples are what they say, of `data`."""
    x, x_adv, y, metadata = samples
    words = (metadata.get("attack"), metadata.get("dataset"), metadata.get("target", ""))
    if not all(isinstance(word, str) for word in words):
        raise GLRError("the metadata do not name attack and dataset, or name no target")
    if metadata["dataset"] != data.name:
        raise GLRError(f"the metadata say that it is of {metadata['dataset']}, not of {data.name}")
    severities, epsilon = severities_of(metadata), metadata.get("epsilon")
    others = (epsilon, metadata.get("zero_gradient_share"))
    numbers = [*severities, *(number for number in others if number is not None)]
    if not all(isinstance(number, (int, float)) and 0 <= number < LARGEST for number in numbers):
        raise GLRError("a severity, ε or share in the metadata is no number ≥ 0")
    if x.ndim != 2 or x_adv.shape != (len(severities), *x.shape):
        raise GLRError(
            f"shapes {x.shape}, {x_adv.shape} and {len(severities)} severities do not fit together"
        )
    n = len(x)
    if not (np.array_equal(x, data.x_test[:n]) and np.array_equal(y, data.y_test[:n])):
        raise GLRError(f"the clean inputs or labels are not those of the test set of {data.name}")
    if not (x_adv.min() >= 0 and x_adv.max() <= 1):  # false for NaN too
        raise GLRError("perturbed inputs leave [0, 1]")
    if epsilon is not None and (change := np.abs(x_adv - x).max()) > epsilon + ROUNDING:
        raise GLRError(f"a perturbation of {change:.4f} exceeds the claimed ε {epsilon}")


def severities_of(metadata: dict) -> list:
    """The severity of each stack of perturbations: 1…5, or the attack's ε, or 0 for neither."""
    severities = metadata.get("severities", [metadata.get("epsilon") or 0])
    return severities if isinstance(severities, list) else [severities]
