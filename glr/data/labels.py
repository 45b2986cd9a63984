"""Labels of your own data: whole numbers from 0, or names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glr.data.table import MISSING, is_number
from glr.errors import GLRError

MAX_CLASSES = 10_000
FEW_CLASSES = 20  # or fewer are no regression, however few samples they have
FEW_SAMPLES = 5  # of a class, in the mean: fewer are one
NUMBERED = "number the classes 0, 1, 2, ..., as np.unique(y, return_inverse=True)[1] does"
OWN_LOSS = "train by glr.gradient with a loss of your own"
REGRESSION = f"this looks like regression: put values into classes (np.digitize), or {OWN_LOSS}"


def labels_and_names(given: dict[str, np.ndarray]) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Labels (N,) int64 of each array, and the names of the classes, () if these are numbers.

    given : arrays y and perhaps y_test by name, (N,) or (N, 1). GLRError for what are no labels.
    """
    flat = {name: one_label_each(y, name) for name, y in given.items()}
    are_names = [y.dtype.kind == "U" for y in flat.values()]
    if not any(are_names):
        return [class_labels(y, name) for name, y in flat.items()], ()
    if not all(are_names):
        raise GLRError("one of y and y_test holds names, the other numbers; save them alike")
    for name, y in flat.items():
        check_names(y, name)
    found = np.unique(np.concatenate([*flat.values()])).tolist()
    numbers = sorted(filter(is_number, found), key=float)
    classes = (*numbers, *(name for name in found if not is_number(name)))
    number_of = {name: k for k, name in enumerate(classes)}
    labels = [np.array([number_of[name] for name in y.tolist()], np.int64) for y in flat.values()]
    return labels, () if classes == tuple(map(str, range(len(classes)))) else classes


def class_name(classes: Sequence[str], k: int) -> str:
    """How class k is shown: by its name, if it has one."""
    return repr(classes[k]) if classes else str(k)


def one_label_each(y: np.ndarray, name: str) -> np.ndarray:
    """`y` (N,) or (N, 1) as (N,); GLRError for other shapes."""
    if y.size == len(y) and y.ndim <= 2:
        return y.reshape(-1)
    advice = "save one label per sample, shape (N,)"
    if y.ndim == 2 and y.dtype.kind != "U" and (y >= 0).all():
        if np.allclose(y.sum(axis=1), 1):
            advice = f"one-hot or probabilities? Save {name}.argmax(axis=1)"
        elif (y <= 1).all():
            advice = f"several labels of a sample? Save one, shape (N,), or {OWN_LOSS}"
    raise GLRError(f"{name} has shape {y.shape}; {advice}")


def class_labels(y: np.ndarray, name: str) -> np.ndarray:
    """`y` (N,) as labels (N,) int64; GLRError for what are no whole numbers from 0."""
    if y.dtype.kind == "f":
        if np.isnan(y).any():
            raise GLRError(f"{name} holds NaN; give each sample a label")
        fractions = y[~(np.floor(y) == y) | np.isinf(y)]
        if fractions.size:
            raise GLRError(f"{name} holds {fractions[0]:g}, not whole numbers; {REGRESSION}")
    if y.min() < 0:
        raise GLRError(f"{name} holds the negative label {y.min()}; {NUMBERED}")
    if y.max() >= MAX_CLASSES:
        raise GLRError(f"{name} holds label {y.max()}, {MAX_CLASSES} or more; {NUMBERED}")
    return y.astype(np.int64)


def check_names(y: np.ndarray, name: str) -> None:
    """Raise GLRError unless `y` (N,) holds names of classes."""
    names = np.unique(y).tolist()
    if any(one.strip().lower() in MISSING for one in names):
        raise GLRError(f"{name} holds an empty name, or NaN; give each sample a label")
    if len(names) >= MAX_CLASSES:
        raise GLRError(f"{name} holds {len(names)} names, {MAX_CLASSES} or more; {REGRESSION}")
    if all(map(is_number, names)):
        fractions = [one for one in names if not float(one).is_integer()]
        if fractions:
            raise GLRError(f"{name} holds {fractions[0]}, not whole numbers; {REGRESSION}")


def check_counts(y: np.ndarray) -> None:
    """Raise GLRError unless the labels (N,) are of two classes or more, and not of a regression."""
    found = np.unique(y).size
    if found < 2:
        raise GLRError("y holds one class only; save at least two")
    if found > FEW_CLASSES and len(y) < FEW_SAMPLES * found:
        raise GLRError(f"y holds {found} different labels for {len(y)} samples; {REGRESSION}")
    if y.max() > len(y):
        raise GLRError(f"label {y.max()} among {len(y)} samples; {NUMBERED}")


def check_classes(y_train: np.ndarray, y_test: np.ndarray, classes: Sequence[str]) -> None:
    """Raise GLRError unless every class, from 0 to the largest label, has training samples."""
    for untrained in np.setdiff1d(y_test, y_train):
        missing = f"class {class_name(classes, untrained)} has test samples but no training sample"
        raise GLRError(f"{missing}; add some or leave it out")
    for skipped in np.setdiff1d(np.arange(y_train.max()), y_train):
        missing = f"no training sample of class {skipped}, though labels go up to {y_train.max()}"
        raise GLRError(f"{missing}; {NUMBERED}")
