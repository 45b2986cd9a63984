"""Data sets: the digits inside scikit-learn, MNIST, Fashion-MNIST, and your own arrays in an .npz.

Whatever is read is checked before it is used, and whatever is refused is refused by name.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import math
import os
import textwrap
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from glr.errors import GLRError
from glr.files import write_whole

# ------------------------------------------------------------------------------------------------
SHIPPED = ("digits", "mnist", "fashion_mnist")
SPLIT_SEED = 0  # of the fixed train/test split of sets that come without one

# Bytes of each idx file, unpacked: a header of 4-byte numbers, then one byte per pixel or label.
IDX_BYTES = {
    "train-images-idx3-ubyte": 16 + 60_000 * 28 * 28,
    "train-labels-idx1-ubyte": 8 + 60_000,
    "t10k-images-idx3-ubyte": 16 + 10_000 * 28 * 28,
    "t10k-labels-idx1-ubyte": 8 + 10_000,
}
# SHA-256 of the unpacked files; the packed ones differ from mirror to mirror.
SHA256 = {
    "mnist": {
        "train-images-idx3-ubyte": (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
        ),
        "train-labels-idx1-ubyte": (
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
        ),
        "t10k-images-idx3-ubyte": (
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
        ),
        "t10k-labels-idx1-ubyte": (
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
        ),
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte": (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
        ),
        "train-labels-idx1-ubyte": (
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
        ),
        "t10k-images-idx3-ubyte": (
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
        ),
        "t10k-labels-idx1-ubyte": (
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
        ),
    },
}
# Tried in this order. Plain http is safe here: nothing is kept unless its SHA-256 is right.
MIRRORS = {
    "mnist": (
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    "fashion_mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
}
DOWNLOAD_TIMEOUT = 10.0  # seconds, to connect and between two packets
MAX_DOWNLOAD_BYTES = 64 * 2**20  # the largest packed file has 26 MB

NPZ_NAMES = ("x", "y", "x_test", "y_test")
MAX_NPZ_BYTES = 8 * 2**30  # of the arrays together, unpacked
MAX_NPY_HEADER = 16_384  # bytes; NumPy reads no header of more than 10,000 characters
MAX_CLASSES = 10_000
# ------------------------------------------------------------------------------------------------

# What damaged bytes make gzip raise (BadGzipFile is an OSError).
GZIP_DAMAGE = (OSError, EOFError, zlib.error)
# What damaged bytes make zipfile and NumPy's header parser raise. RuntimeError stands for
# passwords, for exotic compression (NotImplementedError) and for deeply nested headers
# (RecursionError, or MemoryError from Python's parser); MemoryError also for honest big arrays.
NPZ_DAMAGE = (
    *GZIP_DAMAGE,
    zipfile.BadZipFile,
    tokenize.TokenError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    MemoryError,
)


class Dataset(NamedTuple):
    """One classification task, split into training and test samples.

    `name` is used in file names. `x_train` (N, n_in) and `x_test` (M, n_in) are float32 and
    C-contiguous, in [0, 1] for the shipped sets; `y_train` (N,) and `y_test` (M,) are int64
    class numbers from 0.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def n_classes(dataset: Dataset) -> int:
    """Number of classes: the largest label of either part, plus 1."""
    return int(max(dataset.y_train.max(), dataset.y_test.max())) + 1


def dataset_label(source: str) -> str:
    """Short name for file names: "digits", "mnist", "fashion_mnist", or the stem of the .npz.

    Raises GLRError, with the choices, for any other source.
    """
    if source in SHIPPED:
        return source
    if source.endswith(".npz"):
        return Path(source).stem
    raise GLRError(
        f"unknown dataset {source!r}; choose {', '.join(SHIPPED)} or a path ending in .npz"
    )


def load_dataset(source: str, data_dir: Path) -> Dataset:
    """The data set that `source` names.

    `source` is "digits" (see `digits_dataset`), "mnist" or "fashion_mnist" (`idx_dataset`; files
    in a folder of that name under `data_dir`, downloaded if missing) or a path ending in .npz
    (`npz_dataset`). Raises GLRError for an unknown source and for data that cannot be used.
    """
    name = dataset_label(source)
    if source == "digits":
        return digits_dataset()
    if source in SHIPPED:
        return idx_dataset(source, Path(data_dir) / source)
    return Dataset(name, *npz_dataset(Path(source)))


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
    return Dataset(dataset.name, x[kept], y[kept], x[held], y[held])


def stratified_fifth(labels: np.ndarray) -> np.ndarray:
    """Rows (ceil(N/5),) int64, ascending, that the fixed split of `labels` (N,) gives to testing.

    Samples are sorted by class and, within a class, by random keys; every fifth, from the first,
    is a test sample, so each class is split 80/20 to within one sample.
    """
    # The raw stream of PCG64 is frozen; Generator.permutation may change between NumPy versions.
    keys = np.random.PCG64(SPLIT_SEED).random_raw(len(labels))
    return np.sort(np.lexsort((keys, labels))[::5])


def train_test_split(
    x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x_train, y_train, x_test, y_test of the fixed split that `stratified_fifth` makes."""
    is_test = np.zeros(len(y), dtype=bool)
    is_test[stratified_fifth(y)] = True
    return x[~is_test], y[~is_test], x[is_test], y[is_test]


# digits -----------------------------------------------------------------------------------------


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


def digits_dataset() -> Dataset:
    """The 1797 handwritten digits of scikit-learn: 8x8 pixels, pixel/16 in [0, 1], 10 classes.

    1437 samples for training and 360 for testing, stratified by class: the fixed split of
    `stratified_fifth`, whose random keys are the raw stream of PCG64 seeded with SPLIT_SEED (0).
    Needs no network. Raises GLRError if scikit-learn is missing or its file is damaged.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository, 1998 (its test part), as in `sklearn.datasets.load_digits`.
    """
    path = digits_path()
    try:
        table = np.loadtxt(path, delimiter=",", dtype=np.float32).reshape(1797, 65)
    except (*GZIP_DAMAGE, ValueError) as error:
        raise GLRError(f"{path}: damaged; pip install --force-reinstall scikit-learn") from error
    x = table[:, :64] / np.float32(16)  # exact
    return Dataset("digits", *train_test_split(x, table[:, 64].astype(np.int64)))


# MNIST and Fashion-MNIST ------------------------------------------------------------------------


def idx_dataset(source: str, folder: Path) -> Dataset:
    """MNIST or Fashion-MNIST: 60,000 + 10,000 images of 28x28, pixel/255 in [0, 1], 10 classes.

    The four idx files are looked for in `folder`, with or without .gz; those missing are
    downloaded. Raises GLRError for a file that is damaged, mislabelled or not the published one
    (SHA-256), and if a download fails.

    Sources: Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits;
    H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, arXiv 1708.07747.
    """
    paths = {name: idx_path(source, name, folder) for name in IDX_BYTES}
    train, test = (images_and_labels(source, split, paths) for split in ("train", "t10k"))
    return Dataset(source, *train, *test)


def idx_path(source: str, name: str, folder: Path) -> Path:
    """Path of the idx file `name` in `folder`, downloaded if it is not there; GLRError if not."""
    packed = folder / f"{name}.gz"
    for path in (folder / name, packed):
        if os.path.exists(path):  # False for a folder closed to us, where Path.exists raises
            return path
    content = downloaded(source, name, folder)
    write_whole(packed, lambda file: file.write(content))
    return packed


def images_and_labels(
    source: str, split: str, paths: dict[str, Path]
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (N, 784) float32 in [0, 1] and labels (N,) int64 of split "train" or "t10k".

    `paths` gives the path of each file name. Raises GLRError that names the file at fault.
    """
    names = f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte"
    raws = [idx_bytes(paths[name], IDX_BYTES[name]) for name in names]
    images, labels = (idx_array(raw, paths[name]) for raw, name in zip(raws, names, strict=True))
    if len(images) != len(labels):
        raise idx_refusal(paths[names[1]], f"{len(labels)} labels for {len(images)} images")
    for raw, name in zip(raws, names, strict=True):
        if hashlib.sha256(raw).hexdigest() != SHA256[source][name]:
            raise idx_refusal(paths[name], f"not the {name} of {source} (its SHA-256 differs)")
    return scaled_pixels(images), labels.astype(np.int64)


def idx_bytes(path: Path, n_bytes: int) -> bytes:
    """The bytes of the file at `path`, gunzipped if need be; no more than `n_bytes` are accepted.

    Raises GLRError for a file that is unreadable, damaged, truncated or longer.
    """
    try:
        with path.open("rb") as file:
            raw = unpacked(file, n_bytes)
    except EOFError as error:
        raise idx_refusal(path, "truncated gzip file") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise idx_refusal(path, f"damaged gzip file ({error})") from error
    except OSError as error:
        raise GLRError(
            f"{path}: cannot be read ({error.strerror or error}); make it a readable file"
        ) from error
    if len(raw) > n_bytes:
        raise idx_refusal(path, f"longer than the {n_bytes} bytes it should have")
    return raw


def unpacked(file: BinaryIO, n_bytes: int) -> bytes:
    """The bytes of `file`, gunzipped if they are gzip, cut at `n_bytes` + 1.

    The cut is what makes a gzip bomb harmless; the 1 shows that there was more. Reading that one
    also takes gzip to its end, where it checks the CRC. Raises one of GZIP_DAMAGE.
    """
    # By content, not by name: some browsers unpack a download and leave it its .gz.
    is_gzip = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not is_gzip:
        return file.read(n_bytes + 1)
    with gzip.GzipFile(fileobj=file) as content:
        return content.read(n_bytes + 1)


def idx_array(raw: bytes, path: Path) -> np.ndarray:
    """Images (N, 28, 28) or labels (N,) as a uint8 view of `raw`, an idx file's bytes.

    `path` says by its name which of the two to expect, and is named in errors. Nothing is
    allocated. Raises GLRError for another kind of file, a header that does not match the length,
    no items, and labels beyond 9.
    """
    kinds = {0x803: "images", 0x801: "labels"}
    magic, item = (0x803, (28, 28)) if "images" in path.name else (0x801, ())
    n_header = 8 + 4 * len(item)
    if len(raw) < n_header:
        raise idx_refusal(path, f"truncated ({len(raw)} bytes, less than the header)")
    found, count, *shape = np.frombuffer(raw, ">u4", n_header // 4).tolist()
    if found != magic:
        what = f"holds {kinds[found]}" if found in kinds else "no idx file of bytes"
        raise idx_refusal(path, f"{what}, not {kinds[magic]} (magic number {found:#x})")
    if tuple(shape) != item:
        raise idx_refusal(path, f"images of {shape[0]}x{shape[1]} pixels, not 28x28")
    promised, held = count * math.prod(item), len(raw) - n_header
    if held != promised:
        what = "truncated" if held < promised else "too long"
        raise idx_refusal(path, f"{what} (header promises {promised} bytes, {held} follow)")
    if count == 0:
        raise idx_refusal(path, f"holds no {kinds[magic]}")
    array = np.frombuffer(raw, np.uint8, offset=n_header).reshape(count, *item)
    if not item and array.max() > 9:
        raise idx_refusal(path, f"label {array.max()}, beyond 0 to 9")
    return array


def idx_refusal(path: Path, why: str) -> GLRError:
    """The error for an idx file that is not used."""
    return GLRError(f"{path}: {why}; delete it and run again to download it afresh")


def scaled_pixels(pixels: np.ndarray) -> np.ndarray:
    """`pixels` (N, ...) uint8 as (N, n_in) float32 in [0, 1], C-contiguous: pixel/255."""
    # One pass, with no float64 or unscaled copy of what may be hundreds of megabytes.
    return np.divide(pixels.reshape(len(pixels), -1), np.float32(255), dtype=np.float32, order="C")


def downloaded(source: str, name: str, folder: Path) -> bytes:
    """The gzip file `name`.gz of `source`, from the first mirror that gives it as published.

    Nothing is written. If no mirror does, raises a GLRError that says what to put in `folder`.
    """
    failures = []
    for mirror in MIRRORS[source]:
        try:
            return verified_download(f"{mirror}{name}.gz", IDX_BYTES[name], SHA256[source][name])
        except (*GZIP_DAMAGE, ValueError) as error:
            failures.append(f"{mirror} {textwrap.shorten(str(error), 80)}")
    files = ", ".join(f"{name}.gz" for name in IDX_BYTES)
    raise GLRError(
        f"{source}: {name}.gz cannot be downloaded ({'; '.join(failures)}); "
        f"put {files} into {folder} or use --dataset digits, which needs no network"
    )


def verified_download(url: str, n_bytes: int, sha256: str) -> bytes:
    """What `url` serves, if it unpacks to at most `n_bytes` with the SHA-256 `sha256`.

    Raises ValueError if it does not, or one of GZIP_DAMAGE.
    """
    content = url_bytes(url)
    if hashlib.sha256(unpacked(io.BytesIO(content), n_bytes)).hexdigest() != sha256:
        raise ValueError("wrong SHA-256")
    return content


def url_bytes(url: str) -> bytes:
    """What `url` serves, with a progress bar on a terminal.

    Raises OSError if it cannot be had, ValueError beyond MAX_DOWNLOAD_BYTES.
    """
    # Imported here because few runs download: together they take a tenth of a second.
    import http.client  # noqa: PLC0415
    import urllib.request  # noqa: PLC0415

    from tqdm import tqdm  # noqa: PLC0415

    content = bytearray()
    try:
        with (
            urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT) as response,
            tqdm(
                total=response.length,
                desc=url.rsplit("/", 1)[-1],
                unit="B",
                unit_scale=True,
                disable=None,  # shown on a terminal only
            ) as bar,
        ):
            while chunk := response.read(2**16):
                content += chunk
                bar.update(len(chunk))
                if len(content) > MAX_DOWNLOAD_BYTES:
                    raise ValueError(f"more than {MAX_DOWNLOAD_BYTES} bytes")
    except http.client.HTTPException as error:
        raise OSError(f"broken answer ({error})") from error
    return bytes(content)


# your own arrays --------------------------------------------------------------------------------


def npz_dataset(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x_train, y_train, x_test, y_test of an .npz file with arrays x, y and perhaps x_test, y_test.

    x (N, ...) is flattened to (N, n_in) float32: uint8 is divided by 255; floats are taken as
    they are, and so are bools and other integers, as numbers. y (N,) or (N, 1) holds whole
    numbers from 0, of any of those types. Without x_test and y_test, the fixed stratified 80/20
    split of `stratified_fifth` is made.

    Pickles are never read. Raises GLRError, which names the file, for anything else, for arrays
    of more than MAX_NPZ_BYTES in all, and for labels from MAX_CLASSES.
    """
    arrays = npz_arrays(path)
    x, y = inputs_and_labels(arrays, "", path)
    if np.unique(y).size < 2:
        raise GLRError(f"{path}: y holds one class only; save at least two")
    if y.max() > len(y):
        raise GLRError(
            f"{path}: label {y.max()} among {len(y)} samples; number the classes 0, 1, 2, ..."
        )
    if "x_test" in arrays:
        check_likeness(arrays["x"], arrays["x_test"], path)
        split = x, y, *inputs_and_labels(arrays, "_test", path)
    else:
        split = train_test_split(x, y)
    untrained = np.setdiff1d(split[3], split[1])
    if untrained.size:
        raise GLRError(
            f"{path}: class {untrained[0]} has test samples but no training sample; "
            "add some or leave it out"
        )
    return split


def inputs_and_labels(
    arrays: dict[str, np.ndarray], part: str, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (N, n_in) float32 and labels (N,) int64 of the part "" or "_test" of `arrays`.

    Raises GLRError.
    """
    x, y = arrays[f"x{part}"], arrays[f"y{part}"]
    if len(x) != len(y):
        raise GLRError(
            f"{path}: {len(x)} samples in x{part}, {len(y)} labels in y{part}; save one for each"
        )
    return flat_inputs(x, f"{path}: x{part}"), class_labels(y, f"{path}: y{part}")


def check_likeness(x: np.ndarray, x_test: np.ndarray, path: Path) -> None:
    """Raise GLRError unless `x` and `x_test` agree in numbers per sample and in scale."""
    n_in, n_in_test = math.prod(x.shape[1:]), math.prod(x_test.shape[1:])
    if n_in != n_in_test:
        raise GLRError(
            f"{path}: {n_in} numbers per sample in x, {n_in_test} in x_test; save them alike"
        )
    if (x.dtype == np.uint8) != (x_test.dtype == np.uint8):  # only one would be divided by 255
        raise GLRError(
            f"{path}: x is {x.dtype.name}, x_test is {x_test.dtype.name}; save both as one type"
        )


def npz_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays x, y and, if they are there, x_test and y_test of the .npz at `path`.

    They hold at least one number each, of a bool, integer or float type. Their sizes, as the zip
    directory and the array headers give them, are checked before anything is allocated. Raises
    GLRError.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = npz_members(archive, path)
            return {
                name: npy_array(archive, member, f"{path}: {name}")
                for name, member in members.items()
            }
    except FileNotFoundError as error:
        raise GLRError(f"{path}: no such file; check the path") from error
    except NPZ_DAMAGE as error:
        why = textwrap.shorten(f"{type(error).__name__}: {error}", 120)
        raise GLRError(
            f"{path}: cannot be read as .npz ({why}); check it or save it again"
        ) from error


def npz_members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Entries of x, y and, if they are there, x_test and y_test. Raises GLRError."""
    present = {entry.filename: entry for entry in archive.infolist()}
    members = {name: present[f"{name}.npy"] for name in NPZ_NAMES if f"{name}.npy" in present}
    for name in ("x", "y"):
        if name not in members:
            raise GLRError(
                f"{path}: no array named {name}; save it with np.savez(path, x=..., y=...)"
            )
    if ("x_test" in members) != ("y_test" in members):
        raise GLRError(f"{path}: one of x_test and y_test without the other; save both or none")
    n_bytes = sum(member.file_size for member in members.values())
    if n_bytes > MAX_NPZ_BYTES:
        raise GLRError(
            f"{path}: {n_bytes} bytes unpacked, more than {MAX_NPZ_BYTES}; save fewer samples"
        )
    return members


def npy_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> np.ndarray:
    """The array in `member`, whose header must agree with its size. `where` begins the errors.

    Raises GLRError for types that are not numbers, and one of NPZ_DAMAGE for damage.
    """
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotImplementedError("a compression that NumPy does not write")
    with archive.open(member) as file:
        # A slice, because a version 2 header may claim 4 GiB for itself.
        header = io.BytesIO(file.read(MAX_NPY_HEADER))
    shape, dtype = npy_header(header)
    if dtype.hasobject:
        raise GLRError(f"{where} holds Python objects, a pickle, never read; save plain numbers")
    if dtype.kind not in "buif":
        raise GLRError(f"{where} has type {dtype.name}; save bools, integers or floats")
    if 0 in shape or not shape:
        raise GLRError(f"{where} has shape {shape}; save at least one sample")
    promised, held = dtype.itemsize * math.prod(shape), member.file_size - header.tell()
    if promised != held:
        raise ValueError(f"header promises {promised} bytes, {held} follow")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def npy_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that an .npy file claims; `file` is left behind its header.

    Raises one of NPZ_DAMAGE, NotImplementedError for a version that plain numbers never need.
    """
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise NotImplementedError(f"npy version {version}")
    shape, _, dtype = readers[version](file)
    return shape, dtype


def flat_inputs(x: np.ndarray, where: str) -> np.ndarray:
    """`x` (N, ...) as (N, n_in) float32, C-contiguous: uint8 divided by 255, others as they are.

    `where` begins the errors. Raises GLRError for NaN, and for what is infinite as float32.
    """
    if x.dtype == np.uint8:
        return scaled_pixels(x)
    with np.errstate(over="ignore"):  # a float64 beyond float32: refused below
        flat = np.ascontiguousarray(x.reshape(len(x), -1), dtype=np.float32)
    if not np.isfinite(flat).all():
        raise GLRError(f"{where} holds NaN, infinity or numbers beyond float32; clean them")
    return flat


def class_labels(y: np.ndarray, where: str) -> np.ndarray:
    """`y` (N,) or (N, 1), whole numbers of any type, as labels (N,) int64.

    `where` begins the errors. Raises GLRError for other shapes, fractions, negative labels and
    labels from MAX_CLASSES.
    """
    if y.shape not in ((len(y),), (len(y), 1)):
        raise GLRError(f"{where} has shape {y.shape}; save one label per sample, shape (N,)")
    y = y.reshape(-1)
    if y.dtype.kind == "f" and not (np.isfinite(y) & (np.floor(y) == y)).all():
        raise GLRError(f"{where} holds labels that are not whole numbers; save integers")
    if y.min() < 0:
        raise GLRError(f"{where} holds the negative label {y.min()}; number the classes from 0")
    if y.max() >= MAX_CLASSES:
        raise GLRError(
            f"{where} holds label {y.max()}, {MAX_CLASSES} or more; number the classes 0, 1, 2, ..."
        )
    return y.astype(np.int64)
