"""Data sets: the digits inside scikit-learn, MNIST, Fashion-MNIST, and your own, .npz or .csv."""

from __future__ import annotations

import importlib.util
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glr.data.idx import GZIP_DAMAGE, Split, idx_split, scaled_pixels
from glr.data.labels import check_classes, check_counts, labels_and_names
from glr.data.table import table_arrays
from glr.errors import GLRError
from glr.storage.npz import npz_arrays

SHIPPED = ("digits", "mnist", "fashion_mnist")
OWN = (".npz", ".csv")  # how the names of your own end
SPLIT_SEED = 0  # of the fixed train/test split of sets that come without one
MAX_NPZ_BYTES = 8 * 2**30  # of your own arrays together, unpacked
SCALES_APART = 10  # more between training and test inputs: they were scaled by different rules
SPREADS_APART = 100  # or more between features: one learning rate does not suit them all


class Dataset(NamedTuple):
    """One classification task, split into training and test samples."""

    name: str  # of the files about it
    x_train: np.ndarray  # (N, n_in) float32, C-contiguous, in [0, 1] for the shipped sets
    y_train: np.ndarray  # (N,) class numbers from 0, int64
    x_test: np.ndarray
    y_test: np.ndarray
    source: str = ""  # what DATASET called it
    shape: tuple[int, ...] = ()  # of a sample in your own file
    classes: tuple[str, ...] = ()  # their names, where labels are names
    are_pixels: bool = False  # of images, which have one scale


def has_square_images(dataset: Dataset) -> bool:
    """Whether the samples are square grey images, as far as their shape tells."""
    n_in = dataset.x_test.shape[1]
    side = math.isqrt(n_in)
    return side**2 == n_in and dataset.shape in ((), (n_in,), (side, side))


def n_classes(dataset: Dataset) -> int:
    """Number of classes: the largest label of either part, plus 1."""
    return int(max(dataset.y_train.max(), dataset.y_test.max())) + 1


def fingerprint(data: Dataset) -> int:
    """A CRC-32 of the training samples, which tells them from others of the same name."""
    return zlib.crc32(data.y_train, zlib.crc32(data.x_train))


def dataset_label(source: str) -> str:
    """Name of the data set in file names; GLRError for an unknown or a misleading source."""
    if source in SHIPPED:
        return source
    if not source.lower().endswith(OWN):
        choices = f"{', '.join(SHIPPED)} or a path ending in {' or '.join(OWN)}"
        raise GLRError(f"unknown dataset {source!r}; choose {choices}")
    stem = Path(source).stem
    if stem in SHIPPED:
        raise GLRError(f"{source}: its outputs would be taken for those of {stem}; rename it")
    return stem


def load_dataset(source: str, data_dir: Path | str) -> Dataset:
    """The data set that `source` names, from `data_dir`/name for MNIST; GLRError if unusable."""
    name = dataset_label(source)
    if source in SHIPPED:
        split = digits_split() if source == "digits" else idx_split(source, Path(data_dir) / source)
        return Dataset(name, *split, source, are_pixels=True)
    return own_dataset(source)


def hold_out(dataset: Dataset, n: int, rng: np.random.Generator) -> Dataset:
    """`dataset` with `n` random training samples as its test set; GLRError for too many or 0."""
    n_train = len(dataset.y_train)
    if not 1 <= n < n_train:
        wrong = f"{dataset.name}: cannot hold out {n} of {n_train} training samples"
        raise GLRError(f"{wrong}; choose 1 to {n_train - 1}")
    rows = rng.permutation(n_train)
    held, kept = rows[:n], np.sort(rows[n:])
    x, y = dataset.x_train, dataset.y_train
    return dataset._replace(x_train=x[kept], y_train=y[kept], x_test=x[held], y_test=y[held])


def stratified_fifth(labels: np.ndarray) -> np.ndarray:
    """Rows (ceil(N/5),) of `labels` (N,), ascending: every fifth by class, then by random keys."""
    # The raw stream of PCG64 is frozen; Generator.permutation may change between NumPy versions.
    keys = np.random.PCG64(SPLIT_SEED).random_raw(len(labels))
    return np.sort(np.lexsort((keys, labels))[::5])


def train_test_split(x: np.ndarray, y: np.ndarray) -> Split:
    """x_train, y_train, x_test, y_test: always the same, 80/20 in each class to within a sample."""
    test = stratified_fifth(y)
    return np.delete(x, test, axis=0), np.delete(y, test), x[test], y[test]


def digits_path() -> Path:
    """Path of digits.csv.gz inside the installed scikit-learn; GLRError if it is not there."""
    spec = importlib.util.find_spec("sklearn")  # without its import, which takes a second or two
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            return path
    raise GLRError("digits: they ship inside scikit-learn, not found; pip install scikit-learn")


def digits_split() -> Split:
    """The 1437 + 360 digits of scikit-learn: 8x8 pixels, pixel/16; GLRError if they are missing.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    path = digits_path()
    try:
        table = np.loadtxt(path, delimiter=",", dtype=np.float32).reshape(1797, 65)
    except (*GZIP_DAMAGE, ValueError) as error:
        raise GLRError(f"{path}: damaged; pip install --force-reinstall scikit-learn") from error
    x = table[:, :64] / np.float32(16)  # exact
    return train_test_split(x, table[:, 64].astype(np.int64))


def own_dataset(source: str) -> Dataset:
    """The data set in an .npz of x, y and perhaps x_test, y_test; or in a .csv (table_arrays).

    x (N, ...) is flattened to (N, n_in) float32; uint8, taken for pixels, is divided by 255. y (N,)
    or (N, 1) holds class numbers from 0, or names. Without x_test and y_test, `train_test_split` is
    made. Raises GLRError, which names the file, for anything else.
    """
    path = Path(source)
    if path.suffix.lower() == ".npz":
        advice = "check the path, or save it again with np.savez(path, x=..., y=...)"
        arrays = npz_arrays(path, "data set", "[xy](_test)?", MAX_NPZ_BYTES, advice)
    else:
        arrays = table_arrays(path)
    try:
        split, classes = own_split(arrays)
    except GLRError as error:
        raise GLRError(f"{source}: {error}") from error
    x = arrays["x"]
    are_pixels = x.dtype == np.uint8
    return Dataset(dataset_label(source), *split, source, x.shape[1:], classes, are_pixels)


def own_split(arrays: dict[str, np.ndarray]) -> tuple[Split, tuple[str, ...]]:
    """The split, and the classes' names or (); GLRError, without the path, for no data set."""
    for name in ("x", "y"):
        if name not in arrays:
            raise GLRError(f"no array named {name}; save it with np.savez(path, x=..., y=...)")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise GLRError("one of x_test and y_test without the other; save both or none")
    parts = [part for part in ("", "_test") if f"x{part}" in arrays]
    for part in parts:
        check_lengths(arrays[f"x{part}"], arrays[f"y{part}"], part)
    labels, classes = labels_and_names({f"y{part}": arrays[f"y{part}"] for part in parts})
    check_counts(labels[0])
    if len(parts) == 1:
        split = train_test_split(flat_inputs(arrays["x"], "x"), labels[0])
    else:
        check_likeness(arrays["x"], arrays["x_test"])
        inputs = [flat_inputs(arrays[name], name) for name in ("x", "x_test")]
        check_scales(*inputs)
        split = inputs[0], labels[0], inputs[1], labels[1]
    check_classes(split[1], split[3], classes)
    return split, classes


def check_lengths(x: np.ndarray, y: np.ndarray, part: str) -> None:
    """Raise GLRError unless x and y of the part "" or "_test" have a row for each sample."""
    if 0 in (x.ndim, y.ndim):
        raise GLRError(f"{'y' if x.ndim else 'x'}{part} has shape (); save at least one sample")
    if len(x) != len(y):
        counts = f"{len(x)} samples in x{part}, {len(y)} labels in y{part}"
        raise GLRError(f"{counts}; save one for each")


def check_likeness(x: np.ndarray, x_test: np.ndarray) -> None:
    """Raise GLRError unless `x` and `x_test` agree in numbers per sample and in their kind."""
    n_in, n_in_test = math.prod(x.shape[1:]), math.prod(x_test.shape[1:])
    if n_in != n_in_test:
        raise GLRError(f"{n_in} numbers per sample in x, {n_in_test} in x_test; save them alike")
    kinds = {"u1" if a.dtype == np.uint8 else a.dtype.kind.replace("u", "i") for a in (x, x_test)}
    if len(kinds) > 1:  # bytes alone are divided by 255, and other integers may be pixels too
        found = f"x is {x.dtype.name}, x_test is {x_test.dtype.name}"
        raise GLRError(f"{found}; save both as one type, in one scale")


def check_scales(x: np.ndarray, x_test: np.ndarray) -> None:
    """Raise GLRError if inputs (N, n_in) differ, by largest and mean, in order of magnitude."""
    sizes = [(float(a.max()), float(a.mean(dtype=float))) for a in (np.abs(x), np.abs(x_test))]
    if all(max(two) > SCALES_APART * min(two) for two in zip(*sizes, strict=True)):
        found = "x goes up to {:g}, x_test up to {:g}".format(*(largest for largest, _ in sizes))
        raise GLRError(f"{found}; scale both by the same numbers")


def flat_inputs(x: np.ndarray, name: str) -> np.ndarray:
    """`x` (N, ...) as own_dataset says; GLRError for NaN, and for what is infinite as float32."""
    if x.dtype == np.uint8:
        return scaled_pixels(x)
    with np.errstate(over="ignore"):  # a float64 beyond float32: refused below
        flat = np.ascontiguousarray(x.reshape(len(x), -1), dtype=np.float32)
    if not np.isfinite(flat).all():
        raise GLRError(f"{name} holds NaN, infinity or numbers beyond float32; clean them")
    return flat


def scale_note(dataset: Dataset) -> str:
    """Advice to standardise, where the ranges of features (without the least 5 %) differ much."""
    ends = (of(dataset.x_train, axis=0) for of in (np.max, np.min))
    ranges = np.subtract(*ends, dtype=float)
    ranges = ranges[ranges > 0]
    if dataset.name in SHIPPED or ranges.size == 0:
        return ""
    apart = ranges.max() / np.quantile(ranges, 0.05, method="lower")
    if apart < SPREADS_APART:
        return ""
    return (
        f"note: features of {dataset.name} differ in scale by a factor of {apart:.0f}; standardise "
        "them: x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9), and x_test by the same numbers"
    )
