"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

from glr.errors import GLRError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def user_path(word: str | Path) -> Path:
    """The path that a user has written, with ~ and $NAME expanded; GLRError if it means none."""
    path = os.path.expanduser(os.path.expandvars(word))
    if not path or path.startswith("~"):
        raise GLRError(f"{str(word)!r}: no such folder can be meant; write the path out")
    return Path(path)


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Put at `path` what `write(file)` writes, in one step; its folders are made.

    The bytes go to a temporary file beside it, reach the disk (fsync) and take the name by an
    atomic rename: a reader, or a run killed half-way, sees the old file or the new one. Raises
    GLRError if the folder cannot be written or the disk is full.
    """
    with file_beside(path) as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
        file.close()
        os.replace(file.name, path)


def check_writable(path: Path) -> None:
    """Raise GLRError unless a file can be made at `path`: before long work, not after it."""
    with file_beside(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder is in its place")


@contextmanager
def file_beside(path: Path) -> Iterator[BinaryIO]:
    """A new file beside `path`, deleted at the end unless renamed; an OSError is a GLRError."""
    place = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with one_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = place.open("xb")
        try:
            with file:
                yield file
        finally:
            place.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename the file at `path`, if there is one, to .old; return where. GLRError if it cannot."""
    place = place_aside(path)
    with one_line(place), suppress(FileNotFoundError):
        path.replace(place)
    return place


def place_aside(path: Path) -> Path:
    """Where a file goes whose name is needed by another: the first free of .old, .old2, …"""
    places = (path.with_name(f"{path.name}.old{n if n > 1 else ''}") for n in count(1))
    return next(place for place in places if not place.exists())


@contextmanager
def one_line(path: Path) -> Iterator[None]:
    """Turn an OSError within into a GLRError: why `path` cannot be written, and what to do."""
    try:
        yield
    except OSError as error:
        why = in_the_way(path) or error.strerror or error
        advice = "free some space or " if error.errno in NO_ROOM else ""
        message = f"{path}: cannot be written ({why}); {advice}choose another folder"
        raise GLRError(message) from error


def in_the_way(path: Path) -> str:
    """What stands in the place of a folder of `path`, in words; nothing if all may be folders."""
    there = next(place for place in path.absolute().parents if os.path.lexists(place))
    if there.is_symlink() and not there.exists():
        return f"{there} is a link to what is not there"
    return "" if os.path.isdir(there) else f"{there} is no folder"
