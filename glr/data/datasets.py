"""Data sets: the digits inside scikit-learn, MNIST, Fashion-MNIST, and your own arrays in an .npz.

Whatever is read is checked before it is used, and whatever is refused is refused by name.
"""

from __future__ import annotations

import importlib.util
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glr.data.idx import GZIP_DAMAGE, Split, idx_split, scaled_pixels
from glr.errors import GLRError
from glr.storage.npz import npz_arrays

SHIPPED = ("digits", "mnist", "fashion_mnist")
SPLIT_SEED = 0  # of the fixed train/test split of sets that come without one
MAX_NPZ_BYTES = 8 * 2**30  # of your own arrays together, unpacked
MAX_CLASSES = 10_000


class Dataset(NamedTuple):
    """One classification task, split into training and test samples.

    name : of the files about it; source : what DATASET called it
    x_train (N, n_in), x_test (M, n_in) : float32, C-contiguous, in [0, 1] for the shipped sets
    y_train (N,), y_test (M,) : class numbers from 0, int64
    shape : that of a sample in its file, where that is your own
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    source: str = ""
    shape: tuple[int, ...] = ()


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
    """Short name for file names: "digits", "mnist", "fashion_mnist", or the stem of the .npz.

    Raises GLRError for any other source, and for an .npz called like one of the three.
    """
    if source in SHIPPED:
        return source
    if not source.endswith(".npz"):
        choices = f"{', '.join(SHIPPED)} or a path ending in .npz"
        raise GLRError(f"unknown dataset {source!r}; choose {choices}")
    stem = Path(source).stem
    if stem in SHIPPED:
        raise GLRError(f"{source}: its outputs would be taken for those of {stem}; rename it")
    return stem


def load_dataset(source: str, data_dir: Path | str) -> Dataset:
    """The data set that `source` names; GLRError for an unknown one and data of no use.

    data_dir : has a folder of the name of each idx data set, or gets it by a download
    """
    name = dataset_label(source)
    if source == "digits":
        return Dataset(name, *digits_split(), source)
    if source in SHIPPED:
        return Dataset(name, *idx_split(source, Path(data_dir) / source), source)
    return own_dataset(source)


def hold_out(dataset: Dataset, n: int, rng: np.random.Generator) -> Dataset:
    """`dataset` with `n` random training samples, removed from training, as its test set.

    The true test set is dropped, so nothing can be tuned on it. The other training samples keep
    their order. Raises GLRError unless 1 <= n < number of training samples.
    """
    n_train = len(dataset.y_train)
    if not 1 <= n < n_train:
        raise GLRError(
            f"{dataset.name}: cannot hold out {n} of {n_train} training samples; "
            f"choose 1 to {n_train - 1}"
        )
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
    # find_spec locates the package without running it: importing sklearn.datasets takes one to
    # two seconds, longer than everything else before the first training step.
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            return path
    raise GLRError("digits: they ship inside scikit-learn, not found; pip install scikit-learn")


def digits_split() -> Split:
    """The 1797 handwritten digits of scikit-learn: 8x8 pixels, pixel/16 in [0, 1], 10 classes.

    1437 for training and 360 for testing. Raises GLRError if scikit-learn or its file is missing or
    damaged.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository, 1998 (its test part), as in `sklearn.datasets.load_digits`.
    """
    path = digits_path()
    try:
        table = np.loadtxt(path, delimiter=",", dtype=np.float32).reshape(1797, 65)
    except (*GZIP_DAMAGE, ValueError) as error:
        raise GLRError(f"{path}: damaged; pip install --force-reinstall scikit-learn") from error
    x = table[:, :64] / np.float32(16)  # exact
    return train_test_split(x, table[:, 64].astype(np.int64))


def own_dataset(source: str) -> Dataset:
    """The data set in an .npz file with arrays x, y and perhaps x_test, y_test.

    x (N, ...) is flattened to (N, n_in) float32: uint8 is divided by 255; floats, other integers
    and bools are taken as they are. y (N,) or (N, 1) holds whole numbers from 0, of any of those
    types. Without x_test and y_test, `train_test_split` is made.

    Raises GLRError, which names the file, for anything else, for arrays of more than MAX_NPZ_BYTES
    in all, and for labels from MAX_CLASSES.
    """
    advice = "check the path, or save it again with np.savez(path, x=..., y=...)"
    arrays = npz_arrays(Path(source), "data set", "[xy](_test)?", MAX_NPZ_BYTES, advice)
    try:
        split = own_split(arrays)
    except GLRError as error:
        raise GLRError(f"{source}: {error}") from error
    return Dataset(dataset_label(source), *split, source, arrays["x"].shape[1:])


def own_split(arrays: dict[str, np.ndarray]) -> Split:
    """The split that x, y and perhaps x_test, y_test make; GLRError, without the path, if none."""
    for name in ("x", "y"):
        if name not in arrays:
            raise GLRError(f"no array named {name}; save it with np.savez(path, x=..., y=...)")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise GLRError("one of x_test and y_test without the other; save both or none")
    x, y = inputs_and_labels(arrays, "")
    if np.unique(y).size < 2:
        raise GLRError("y holds one class only; save at least two")
    if y.max() > len(y):
        raise GLRError(f"label {y.max()} among {len(y)} samples; number the classes 0, 1, 2, ...")
    if "x_test" in arrays:
        check_likeness(arrays["x"], arrays["x_test"])
        split = x, y, *inputs_and_labels(arrays, "_test")
    else:
        split = train_test_split(x, y)
    check_classes(split[1], split[3])
    return split


def inputs_and_labels(arrays: dict[str, np.ndarray], part: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (N, n_in) float32 and labels (N,) int64 of the part "" or "_test"; or GLRError."""
    x, y = arrays[f"x{part}"], arrays[f"y{part}"]
    for name, array in ((f"x{part}", x), (f"y{part}", y)):
        if array.ndim == 0:
            raise GLRError(f"{name} has shape (); save at least one sample")
    if len(x) != len(y):
        counts = f"{len(x)} samples in x{part}, {len(y)} labels in y{part}"
        raise GLRError(f"{counts}; save one for each")
    return flat_inputs(x, f"x{part}"), class_labels(y, f"y{part}")


def check_likeness(x: np.ndarray, x_test: np.ndarray) -> None:
    """Raise GLRError unless `x` and `x_test` agree in numbers per sample and in scale."""
    n_in, n_in_test = math.prod(x.shape[1:]), math.prod(x_test.shape[1:])
    if n_in != n_in_test:
        raise GLRError(f"{n_in} numbers per sample in x, {n_in_test} in x_test; save them alike")
    if (x.dtype == np.uint8) != (x_test.dtype == np.uint8):  # only one would be divided by 255
        raise GLRError(f"x is {x.dtype.name}, x_test is {x_test.dtype.name}; save both as one type")


def check_classes(y_train: np.ndarray, y_test: np.ndarray) -> None:
    """Raise GLRError unless every class, from 0 to the largest label, has training samples."""
    for untrained in np.setdiff1d(y_test, y_train):
        raise GLRError(
            f"class {untrained} has test samples but no training sample; add some or leave it out"
        )
    for skipped in np.setdiff1d(np.arange(y_train.max()), y_train):
        raise GLRError(
            f"no training sample of class {skipped}, though labels go up to {y_train.max()}; "
            "number the classes 0, 1, 2, ..."
        )


def flat_inputs(x: np.ndarray, name: str) -> np.ndarray:
    """`x` (N, ...) as own_dataset says; GLRError for NaN, and for what is infinite as float32."""
    if x.dtype == np.uint8:
        return scaled_pixels(x)
    with np.errstate(over="ignore"):  # a float64 beyond float32: refused below
        flat = np.ascontiguousarray(x.reshape(len(x), -1), dtype=np.float32)
    if not np.isfinite(flat).all():
        raise GLRError(f"{name} holds NaN, infinity or numbers beyond float32; clean them")
    return flat


def class_labels(y: np.ndarray, name: str) -> np.ndarray:
    """`y` (N,) or (N, 1) as labels (N,) int64; GLRError for other shapes, and for no classes."""
    if y.size != len(y) or y.ndim > 2:
        raise GLRError(f"{name} has shape {y.shape}; save one label per sample, shape (N,)")
    y = y.reshape(-1)
    if y.dtype.kind == "f" and not (np.isfinite(y) & (np.floor(y) == y)).all():
        raise GLRError(f"{name} holds labels that are not whole numbers; save integers")
    wanted = "number the classes 0, 1, 2, ..."
    if y.min() < 0:
        raise GLRError(f"{name} holds the negative label {y.min()}; {wanted}")
    if y.max() >= MAX_CLASSES:
        raise GLRError(f"{name} holds label {y.max()}, {MAX_CLASSES} or more; {wanted}")
    return y.astype(np.int64)
