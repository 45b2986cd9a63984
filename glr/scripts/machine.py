"""What the machine is asked for: memory that is reused, and one core."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from threadpoolctl import threadpool_limits

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt's parameters, from glibc's malloc.h
KEEP_BYTES = 2**30
HOMES = ("HOME", "USERPROFILE")  # where ~ is, by the system


def prepare_for_small_arrays() -> None:
    """Let NumPy reuse the memory of freed arrays, and multiply small matrices on one core.

    By default glibc returns every array of some 100 kB to the system, which hands it out again a
    page fault at a time. BLAS splits small products over cores that wait for each other, and the
    last bits of a sum depend on their number.
    """
    threadpool_limits(1)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc only: musl has none
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, KEEP_BYTES)
            mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)


@contextmanager
def without_user_settings() -> Iterator[None]:
    """Import a library that reads its settings then, as Keras does, as if the user had none.

    Keras imports Matplotlib too, and fails where MPLBACKEND names what is not there. Settings stand
    in the environment and in the home folder, which is an empty one meanwhile.
    """
    names = (*HOMES, "MPLBACKEND")
    own = [name for name in os.environ if name in names or name.startswith("KERAS_")]
    hidden = {name: os.environ.pop(name) for name in own}
    with TemporaryDirectory() as home:
        os.environ.update(dict.fromkeys(HOMES, home))
        try:
            yield
        finally:
            for name in HOMES:
                del os.environ[name]
            os.environ.update(hidden)
