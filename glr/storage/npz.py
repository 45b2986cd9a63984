"""Arrays out of .npz files that may be damaged or hostile.

Nothing is unpickled, and the sizes that the zip directory and the array headers claim are checked
before anything is allocated. Whatever is refused is refused in one line that names the file.
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
from pathlib import Path
from typing import BinaryIO

import numpy as np

from glr.errors import GLRError

# ------------------------------------------------------------------------------------------------
MAX_ARRAYS = 1000  # in one file: 499 layers and their metadata
MAX_TEXT_BYTES = 2**20  # of a text, at the 4 bytes per character that NumPy uses
MAX_NPY_HEADER = 16_384  # bytes; NumPy reads no header of more than 10,000 characters
# ------------------------------------------------------------------------------------------------

# What damaged bytes make zipfile and NumPy's header parser raise. RuntimeError stands for
# passwords, for exotic compression (a kind of it) and for deeply nested headers
# (RecursionError, or MemoryError from Python's parser); MemoryError also for honest big arrays.
NPZ_DAMAGE = (
    OSError,
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
    tokenize.TokenError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    MemoryError,
)


def npz_arrays(
    path: Path, kind: str, names: str, max_bytes: int, advice: str
) -> dict[str, np.ndarray]:
    """The arrays of the .npz file at `path` whose names match `names`, a regular expression.

    Arrays of other names are left unread. Those read hold at least one number each, of a bool,
    integer or float type, or are one text: a unicode string of shape (), of up to MAX_TEXT_BYTES.
    Together they have `max_bytes` at most, unpacked.

    Raises GLRError for anything else: the path, what is wrong, and `advice`, which says what to
    do. `kind` ("model file") is what the errors call the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = npy_entries(archive, names, max_bytes)
            return {name: npy_array(archive, name, entry) for name, entry in entries.items()}
    except NPZ_DAMAGE as error:
        raise GLRError(f"{path}: {fault(error, kind)}; {advice}") from error


def json_object(path: Path, text: np.ndarray, advice: str) -> dict:
    """The JSON object that `text`, an array of `npz_arrays`, holds; GLRError if it holds none."""
    try:
        found = json.loads(str(text))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise GLRError(f"{path}: its metadata are no JSON object; {advice}")
    return found


def fault(error: Exception, kind: str) -> str:
    """What is wrong with the file that made reading raise `error`, in words, in one line."""
    if isinstance(error, FileNotFoundError):
        return f"no such {kind}"
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error})"
    return f"not a {kind} ({textwrap.shorten(str(error) or type(error).__name__, 120)})"


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
    """The array `name` in `entry`, whose header must agree with its size.

    Raises ValueError for what is not numbers or one text, and one of NPZ_DAMAGE for damage.
    """
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
    """Shape and type that an .npy file claims; `file` is left behind its header.

    Raises one of NPZ_DAMAGE, ValueError for a version that plain numbers never need.
    """
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"npy version {version}")
    shape, _, dtype = readers[version](file)
    return shape, dtype


def check_type(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise ValueError unless `shape` and `dtype` are those of numbers, or of one short text."""
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, a pickle, which is never read")
    is_text = dtype.kind == "U" and shape == ()
    if dtype.kind not in "buif" and not is_text:
        raise ValueError(f"{name} has type {dtype.name}, not bool, integer or float")
    if is_text and dtype.itemsize > MAX_TEXT_BYTES:
        raise ValueError(f"{name} is a text of {dtype.itemsize} bytes, more than {MAX_TEXT_BYTES}")
    if 0 in shape:
        raise ValueError(f"{name} is empty, of shape {shape}")
