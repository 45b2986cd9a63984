"""Arrays and metadata in .npz files, which may be damaged or hostile.

Nothing is unpickled. The sizes that the zip directory and the array headers claim are checked
before anything is allocated.
"""

from __future__ import annotations

import io
import json
import math
import re
import textwrap
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from glr.errors import GLRError
from glr.storage.files import write_whole

MAX_ARRAYS = 1000  # in one file: 499 layers and their metadata
MAX_TEXT_BYTES = 2**20  # of a text, at the 4 bytes per character that NumPy uses
LABELS = ("y", "y_test")  # arrays that may hold names
MAX_NPY_HEADER = 16_384  # bytes; NumPy reads no header of more than 10,000 characters

# What damaged bytes make zipfile raise, RuntimeError for passwords and exotic compression; and
# NumPy's header parser, MemoryError for deep nesting (as for honest big arrays).
DAMAGE = (EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, tokenize.TokenError)
DAMAGE += (SyntaxError, ValueError, TypeError, LookupError, MemoryError)


def save_arrays(path: Path, metadata: dict, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the arrays and the metadata, as a JSON text, to an .npz file, whole or not at all."""
    text = np.array(json.dumps(metadata, indent=1))
    write_whole(path, lambda file: np.savez(file, metadata=text, **arrays))


def load_arrays(
    path: Path, kind: str, names: str, max_bytes: int, advice: str
) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays and the metadata of a file that save_arrays wrote. See npz_arrays."""
    arrays = npz_arrays(path, kind, f"metadata|{names}", max_bytes, advice)
    with refusals(path, kind, advice):
        text = arrays.pop("metadata")
        try:
            metadata = json.loads(str(text))
        except (ValueError, RecursionError):
            metadata = None
        if not isinstance(metadata, dict):
            raise GLRError("its metadata are no JSON object")
    return arrays, metadata


def npz_arrays(
    path: Path, kind: str, names: str, max_bytes: int, advice: str
) -> dict[str, np.ndarray]:
    """The arrays of the .npz file at `path` whose names match the regular expression `names`.

    Each has at least one bool, integer or float; or is one text of up to MAX_TEXT_BYTES; y and
    y_test may hold texts. Together they have `max_bytes` at most, unpacked. Raises GLRError for
    others: the path, what is wrong with this `kind` ("model file"), and `advice`.
    """
    with refusals(path, kind, advice), zipfile.ZipFile(path) as archive:
        entries = npy_entries(archive, names, max_bytes)
        return {name: npy_array(archive, name, entry) for name, entry in entries.items()}


@contextmanager
def refusals(path: Path, kind: str, advice: str) -> Iterator[None]:
    """Make a GLRError, which names the file, of what reading or checking it raises within."""
    try:
        yield
    except FileNotFoundError as error:
        raise GLRError(f"{path}: no such {kind}; {advice}") from error
    except OSError as error:
        raise GLRError(f"{path}: cannot be read ({error.strerror or error}); {advice}") from error
    except GLRError as error:
        raise GLRError(f"{path}: {error}; {advice}") from error
    except DAMAGE as error:
        said = f"no array {error}" if isinstance(error, KeyError) else str(error)
        why = textwrap.shorten(said or type(error).__name__, 120)
        raise GLRError(f"{path}: not a {kind} ({why}); {advice}") from error


def npy_entries(archive: zipfile.ZipFile, names: str, max_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Entries of the arrays whose names match `names`, by name. Raises ValueError for too much."""
    entries = {
        entry.filename.removesuffix(".npy"): entry
        for entry in archive.infolist()
        if re.fullmatch(rf"({names})\.npy", entry.filename)
    }
    if len(entries) > MAX_ARRAYS:
        raise ValueError(f"{len(entries)} arrays, more than {MAX_ARRAYS}")
    n_bytes = sum(entry.file_size for entry in entries.values())
    if n_bytes > max_bytes:
        raise ValueError(f"{n_bytes} bytes unpacked, more than {max_bytes}")
    return entries


def npy_array(archive: zipfile.ZipFile, name: str, entry: zipfile.ZipInfo) -> np.ndarray:
    """The array `name` in `entry`; ValueError unless its header is right and fits its size."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} has a compression that NumPy does not write")
    with archive.open(entry) as file:
        # A slice, because a version 2 header may claim 4 GiB for itself.
        header = io.BytesIO(file.read(MAX_NPY_HEADER))
    shape, dtype = npy_header(header)
    check_type(name, shape, dtype)
    promised, held = dtype.itemsize * math.prod(shape), entry.file_size - header.tell()
    if promised != held:
        raise ValueError(f"{name}: header promises {promised} bytes, {held} follow")
    with archive.open(entry) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def npy_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that an .npy file claims; `file` is left behind its header."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):  # plain numbers never need another
        raise ValueError(f"npy version {version}")
    shape, _, dtype = getattr(np.lib.format, f"read_array_header_{version[0]}_0")(file)
    return shape, dtype


def check_type(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise ValueError unless `shape` and `dtype` are those of numbers, or of one short text."""
    if dtype.hasobject:
        why = "holds Python objects, a pickle, which is never read"
        raise ValueError(f"{name} {why}: make it .astype(str) or .astype(float)")
    is_text = dtype.kind == "U" and shape == ()
    if dtype.kind == "U" and name in LABELS and not is_text:
        return
    if dtype.kind not in "buif" and not is_text:
        raise ValueError(f"{name} has type {dtype.name}, not bool, integer or float")
    if is_text and dtype.itemsize > MAX_TEXT_BYTES:
        raise ValueError(f"{name} is a text of {dtype.itemsize} bytes, more than {MAX_TEXT_BYTES}")
    if 0 in shape:
        raise ValueError(f"{name} is empty, of shape {shape}")
