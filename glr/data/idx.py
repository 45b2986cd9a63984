"""MNIST and Fashion-MNIST as published: four idx files each, found or downloaded, and checked.

No file is used, and none is kept, unless its SHA-256 is that of the published one.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import re
import sys
import textwrap
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from glr.errors import GLRError
from glr.storage.files import in_the_way, write_whole

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # x_train, y_train, x_test, y_test

# Bytes of each idx file, unpacked: a header of 4-byte numbers, then one byte per pixel or label.
IDX_BYTES = {
    "train-images-idx3-ubyte": 16 + 60_000 * 28 * 28,
    "train-labels-idx1-ubyte": 8 + 60_000,
    "t10k-images-idx3-ubyte": 16 + 10_000 * 28 * 28,
    "t10k-labels-idx1-ubyte": 8 + 10_000,
}
_MNIST = (  # SHA-256 of each unpacked file; the packed ones differ from mirror to mirror
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
_FASHION_MNIST = (
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
)
SHA256 = {
    "mnist": dict(zip(IDX_BYTES, _MNIST, strict=True)),
    "fashion_mnist": dict(zip(IDX_BYTES, _FASHION_MNIST, strict=True)),
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

# What damaged bytes make gzip raise (BadGzipFile is an OSError).
GZIP_DAMAGE = (OSError, EOFError, zlib.error)


def idx_split(source: str, folder: Path) -> Split:
    """x_train, y_train, x_test, y_test of "mnist" or "fashion_mnist".

    60,000 + 10,000 images of 28x28 as rows (N, 784) float32, pixel/255 in [0, 1]; labels (N,)
    int64, 0 to 9. The four idx files are looked for in `folder` and below, with or without .gz;
    those missing are downloaded. Raises GLRError for a file that is not the published one.

    Sources: Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits;
    H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, arXiv 1708.07747.
    """
    paths = {name: idx_path(source, name, folder) for name in IDX_BYTES}
    train, test = (images_and_labels(source, split, paths) for split in ("train", "t10k"))
    return *train, *test


def idx_path(source: str, name: str, folder: Path) -> Path:
    """Path of the idx file `name` in `folder`, downloaded if it is not there; GLRError if not."""
    packed = folder / f"{name}.gz"
    for path in (folder / name, packed, *paths_elsewhere(name, folder)):
        if os.path.isfile(path):  # False for a folder closed to us, where Path.is_file raises
            return path
    if os.path.isdir(packed):
        raise idx_refusal(packed, "cannot be read (a folder)")
    if wrong := in_the_way(packed):  # before a download that could not be kept
        raise GLRError(f"{folder}: cannot be written ({wrong}); choose another data folder")
    content = downloaded(source, name, folder)
    write_whole(packed, lambda file: file.write(content))
    return packed


def paths_elsewhere(name: str, folder: Path) -> Iterator[Path]:
    """The files called `name` as others spell it, in any folder called like `folder` or below it.

    So Kaggle's train-images-idx3-ubyte/train-images.idx3-ubyte, torchvision's MNIST/raw.
    """
    for place in folders_like(folder):
        yield from (path for path in sorted(place.rglob("*")) if plain(path) == plain(Path(name)))


def folders_like(folder: Path) -> list[Path]:
    """The folders beside `folder` that are called as it is, but for case, spaces and hyphens."""
    beside = (place for place in folder.parent.glob("*") if plain(place) == plain(folder))
    return sorted(place for place in beside if os.path.isdir(place))


def plain(path: Path) -> str:
    """A name in small letters, without .gz, and without what stands between its words."""
    return re.sub("[-_. ]", "", path.name.lower().removesuffix(".gz"))


def images_and_labels(
    source: str, split: str, paths: dict[str, Path]
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels of split "train" or "t10k"; GLRError that names the file at fault.

    paths : of each idx file, by its name
    """
    names = [name for name in paths if name.startswith(split)]
    raws = [idx_bytes(paths[name], IDX_BYTES[name]) for name in names]
    images, labels = (idx_array(raw, paths[name]) for raw, name in zip(raws, names, strict=True))
    if len(images) != len(labels):
        raise idx_refusal(paths[names[1]], f"{len(labels)} labels for {len(images)} images")
    for raw, name in zip(raws, names, strict=True):
        if not is_published(raw, source, name):
            raise idx_refusal(paths[name], f"not the {name} of {source} (its SHA-256 differs)")
    return scaled_pixels(images), labels.astype(np.int64)


def idx_bytes(path: Path, n_bytes: int) -> bytes:
    """The bytes of a file, gunzipped if need be; GLRError if they are damaged or over `n_bytes`."""
    try:
        with path.open("rb") as file:
            raw = unpacked(file, n_bytes)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise idx_refusal(path, f"truncated or damaged gzip file ({error})") from error
    except OSError as error:
        raise idx_refusal(path, f"cannot be read ({error.strerror or error})") from error
    if len(raw) > n_bytes:
        raise idx_refusal(path, f"longer than the {n_bytes} bytes it should have")
    return raw


def unpacked(file: BinaryIO, n_bytes: int) -> bytes:
    """The bytes of `file`, gunzipped if they are gzip, cut at `n_bytes` + 1.

    The cut is what makes a gzip bomb harmless; the 1 shows that there was more. Reading that one
    also takes gzip to its end, where it checks the CRC. Raises one of GZIP_DAMAGE.
    """
    is_gzip = file.read(2) == b"\x1f\x8b"  # some browsers unpack a download and leave it its .gz
    file.seek(0)
    return (gzip.GzipFile(fileobj=file) if is_gzip else file).read(n_bytes + 1)


def idx_array(raw: bytes, path: Path) -> np.ndarray:
    """Images (N, 28, 28) or labels (N,) as a uint8 view of `raw`, an idx file's bytes.

    `path` says by its name which of the two to expect, and is named in errors. Raises GLRError for
    another kind of file, a header that does not match the length, no items, and labels beyond 9.
    """
    kinds = {0x803: "images", 0x801: "labels"}
    magic, item = (0x803, (28, 28)) if "images" in path.name.lower() else (0x801, ())
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

    If none does, raises a GLRError that says what to put in `folder`.
    """
    failures = []
    for mirror in MIRRORS[source]:
        try:
            content = url_bytes(f"{mirror}{name}.gz")
            if is_published(unpacked(io.BytesIO(content), IDX_BYTES[name]), source, name):
                return content
            failures.append(f"{mirror} wrong SHA-256")
        except (*GZIP_DAMAGE, ValueError) as error:
            failures.append(f"{mirror} {textwrap.shorten(str(error), 80)}")
    files = ", ".join(f"{name}.gz" for name in IDX_BYTES)
    raise GLRError(
        f"{source}: {name}.gz cannot be downloaded ({'; '.join(failures)}); "
        f"put {files} into {folder} or use --dataset digits, which needs no network"
    )


def is_published(raw: bytes, source: str, name: str) -> bool:
    """Whether these are the bytes of the published file `name` of `source`, unpacked."""
    return hashlib.sha256(raw).hexdigest() == SHA256[source][name]


def url_bytes(url: str) -> bytes:
    """What `url` serves; OSError if it cannot be had, ValueError beyond MAX_DOWNLOAD_BYTES."""
    # Imported here because few runs download: together they take a tenth of a second.
    import http.client  # noqa: PLC0415
    import urllib.request  # noqa: PLC0415

    print(f"downloading {url}", file=sys.stderr)
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT) as response:
            content = response.read(MAX_DOWNLOAD_BYTES + 1)
    except http.client.HTTPException as error:
        raise OSError(f"broken answer ({error})") from error
    if len(content) > MAX_DOWNLOAD_BYTES:
        raise ValueError(f"more than {MAX_DOWNLOAD_BYTES} bytes")
    return content
