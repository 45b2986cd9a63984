"""Accuracy of trained networks on clean and perturbed test samples, in rows."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glr.data.datasets import SHIPPED, Dataset, fingerprint, n_classes
from glr.errors import GLRError
from glr.network import accuracy, is_right
from glr.robustness.samples import Samples, severities_of
from glr.storage.models import Model, load_model


class Row(NamedTuple):
    """One measurement: the share in [0, 1] of n samples that a model classifies as labelled.

    severity is 1…5 of a corruption, ε of an attack that has one, and 0 for `clean` and others.
    """

    model: str
    seed: int
    condition: str
    severity: float
    accuracy: float
    n: int


def models_found(models_dir: Path, dataset: str) -> list[Path]:
    """The trained models of a data set, whatever their names and seeds; no surrogates."""
    name = re.compile(rf"(?!surrogate_)[^_]+_{re.escape(dataset)}_seed\d+\.npz")
    return sorted(path for path in models_dir.glob("*.npz") if name.fullmatch(path.name))


def load_model_for(path: Path, data: Dataset) -> Model:
    """The model, if it was trained on this data set, as it is today; else GLRError."""
    model = load_model(path)
    sizes, dataset = model.network.sizes, model.metadata.get("dataset")
    if dataset != data.name or (sizes[0], sizes[-1]) != (data.x_test.shape[1], n_classes(data)):
        raise GLRError(
            f"{path}: trained on {dataset} with {sizes[0]} inputs and {sizes[-1]} classes, "
            f"not on {data.name} with {data.x_test.shape[1]} and {n_classes(data)}; "
            f"name a model of {data.name}, or use --dataset {dataset}"
        )
    constants = model.metadata.get("constants")
    own = constants if isinstance(constants, dict) else {}
    # NAME becomes part of file names: one with a slash would leave their folder.
    has_name = re.fullmatch(r"[A-Za-z0-9+.-]+", str(own.get("NAME"))) is not None
    if not (has_name and isinstance(own.get("SEED"), int)):
        raise GLRError(f"{path}: its metadata lack the constants NAME and SEED; train it again")
    trained_on = model.metadata.get("training data")
    may_differ = data.name not in SHIPPED and trained_on is not None and not own.get("VALIDATION")
    if may_differ and trained_on != fingerprint(data):
        raise GLRError(f"{path}: trained on other samples than {data.name} has now; train it again")
    return model


def condition_of(metadata: dict) -> str:
    """The name of a condition: the attack, and whose gradient it used if not the surrogate's."""
    target = metadata.get("target", "surrogate")
    return metadata["attack"] if target == "surrogate" else f"{metadata['attack']} on {target}"


def blind_spot(metadata: dict) -> str:
    """A warning where an attack met gradients that are exactly zero, else nothing."""
    zero_share = metadata.get("zero_gradient_share")
    if not zero_share:
        return ""
    return (
        f"Note: {condition_of(metadata)} left {100 * zero_share:.2f} % of the samples unchanged, "
        "for want of a gradient; that share is no robustness."
    )


def rows_of(model: Model, data: Dataset, samples: Iterable[Samples]) -> list[Row]:
    """The model's accuracy on the clean test set and on every severity of all samples."""

    def row(condition: str, severity: float, x: np.ndarray, y: np.ndarray) -> Row:
        share = accuracy(model.network.logits_of_rows(x.astype(np.float32, copy=False)), y)
        return Row(model.name, model.seed, condition, severity, share, len(y))

    rows = [row("clean", 0, data.x_test, data.y_test)]
    for _, x_adv, y, metadata in samples:
        condition = condition_of(metadata)
        rows += [
            row(condition, severity, x, y)
            for severity, x in zip(severities_of(metadata), x_adv, strict=True)
        ]
    return rows


def accuracy_by_class(model: Model, data: Dataset) -> dict[int, float]:
    """The share in [0, 1] of each class's clean test samples that are right, by class."""
    right = is_right(model.network.logits_of_rows(data.x_test), data.y_test)
    return {int(k): float(right[data.y_test == k].mean()) for k in np.unique(data.y_test)}


def csv_text(rows: Iterable[Row]) -> str:
    """The rows as CSV with the columns model, seed, condition, severity, accuracy, n."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(rows)
    return text.getvalue()


def read_csv(path: Path) -> list[Row]:
    """The rows that csv_text wrote."""
    types = (str, int, str, float, float, int)  # of Row's fields
    with path.open(encoding="utf-8", newline="") as file:
        _, *lines = csv.reader(file)
    return [Row(*(read(text) for read, text in zip(types, line, strict=True))) for line in lines]
