"""MNIST and Fashion-MNIST as published: four idx files each, found or downloaded, and checked.

No file is used, and none is kept, unless its SHA-256 is that of the published one.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import sys
import textwrap
import zlib
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
    raws = (published_bytes(source, name, path) for name, path in paths.items())
    train_images, train_labels, images, labels = (np.frombuffer(raw, np.uint8) for raw in raws)
    train = scaled_pixels(train_images[16:].reshape(-1, 28 * 28)), train_labels[8:].astype(np.int64)
    return *train, scaled_pixels(images[16:].reshape(-1, 28 * 28)), labels[8:].astype(np.int64)


def idx_path(source: str, name: str, folder: Path) -> Path:
    """Path of the idx file `name` in `folder`, downloaded if it is not there; GLRError if not."""
    if found := files_called(name, folder):
        return found[0]
    packed = folder / f"{name}.gz"
    wrong = "a folder is in its place" if os.path.isdir(packed) else in_the_way(packed)
    if wrong:  # before a download that could not be kept
        raise GLRError(f"{packed}: cannot be written ({wrong}); choose another data folder")
    content = downloaded(source, name, folder)
    write_whole(packed, lambda file: file.write(content))
    return packed


def files_called(name: str, folder: Path) -> list[Path]:
    """The files called `name`, however spelt, in any folder called like `folder` or below it.

    So Kaggle's train-images-idx3-ubyte/train-images.idx3-ubyte, torchvision's MNIST/raw.
    """
    below = (path for place in folders_like(folder) for path in sorted(place.rglob("*")))
    # os.path.isfile is False in a folder closed to us, where Path.is_file raises.
    return [path for path in below if plain(path) == plain(Path(name)) and os.path.isfile(path)]


def folders_like(folder: Path) -> list[Path]:
    """The folders beside `folder` that are called as it is, but for case, spaces and hyphens."""
    beside = (place for place in folder.parent.glob("*") if plain(place) == plain(folder))
    return sorted(place for place in beside if os.path.isdir(place))


def plain(path: Path) -> str:
    """A name in small letters, without .gz, and without what stands between its words."""
    return re.sub("[-_. ]", "", path.name.lower().removesuffix(".gz"))


def published_bytes(source: str, name: str, path: Path) -> bytes:
    """The bytes of the file `name` of `source`, unpacked; GLRError if `path` holds others."""
    try:
        with path.open("rb") as file:
            raw = unpacked(file, IDX_BYTES[name])
        if is_published(raw, source, name):
            return raw
        why = f"not the {name} of {source} (its SHA-256 differs)"
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        why = f"truncated or damaged gzip file ({error})"
    except OSError as error:
        why = f"cannot be read ({error.strerror or error})"
    raise GLRError(f"{path}: {why}; delete it and run again to download it afresh")


def unpacked(file: BinaryIO, n_bytes: int) -> bytes:
    """The bytes of `file`, gunzipped if they are gzip, cut at `n_bytes` + 1.

    The cut makes a gzip bomb harmless; the 1 shows that there was more. Reading that one also takes
    gzip to its end, where it checks the CRC. Raises one of GZIP_DAMAGE.
    """
    is_gzip = file.read(2) == b"\x1f\x8b"  # some browsers unpack a download and leave it its .gz
    file.seek(0)
    return (gzip.GzipFile(fileobj=file) if is_gzip else file).read(n_bytes + 1)


def scaled_pixels(pixels: np.ndarray) -> np.ndarray:
    """`pixels` (N, ...) uint8 as (N, n_in) float32 in [0, 1], C-contiguous: pixel/255."""
    # One pass, with no float64 or unscaled copy of what may be hundreds of megabytes.
    return np.divide(pixels.reshape(len(pixels), -1), np.float32(255), dtype=np.float32, order="C")


def downloaded(source: str, name: str, folder: Path) -> bytes:
    """`name`.gz of `source`, from the first mirror that has it as published; GLRError if none."""
    # Imported here because few runs download: together they take a tenth of a second.
    from http.client import HTTPException  # noqa: PLC0415
    from urllib.request import urlopen  # noqa: PLC0415

    failures = []
    for mirror in MIRRORS[source]:
        print(f"downloading {mirror}{name}.gz", file=sys.stderr)
        try:
            with urlopen(f"{mirror}{name}.gz", timeout=DOWNLOAD_TIMEOUT) as response:
                content = response.read(MAX_DOWNLOAD_BYTES)
            if is_published(unpacked(io.BytesIO(content), IDX_BYTES[name]), source, name):
                return content
            failures.append(f"{mirror} wrong SHA-256")
        except (*GZIP_DAMAGE, HTTPException) as error:
            failures.append(f"{mirror} {textwrap.shorten(str(error), 80)}")
    files = ", ".join(f"{name}.gz" for name in IDX_BYTES)
    raise GLRError(
        f"{source}: {name}.gz cannot be downloaded ({'; '.join(failures)}); "
        f"put {files} into {folder} or use --dataset digits, which needs no network"
    )


def is_published(raw: bytes, source: str, name: str) -> bool:
    """Whether these are the bytes of the published file `name` of `source`, unpacked."""
    return hashlib.sha256(raw).hexdigest() == SHA256[source][name]
