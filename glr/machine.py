"""What the machine is asked for: memory that is reused, one core for small work, more for large."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

Part, Result = TypeVar("Part"), TypeVar("Result")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt's parameters, from glibc's malloc.h
KEEP_BYTES = 2**30


def prepare_for_small_arrays() -> None:
    """Let NumPy reuse the memory of freed arrays, and multiply small matrices on one core.

    By default glibc gives every array of some 100 kB back to the system, which hands it out
    again a page fault at a time. BLAS splits small products over cores that then wait for each
    other; and the last bits of a sum would depend on how many cores there are. Measured:
    benchmarks/results/bench.md, part 7.
    """
    threadpool_limits(1)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc only: musl has none
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, KEEP_BYTES)
            mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """The threads of a process, kept: to start one for every step costs a quarter of 1 ms.

    process : its number, since a fork has none of its parent's threads
    """
    return ThreadPoolExecutor(thread_name_prefix=f"glr-{process}")


def results_of_threads(function: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
    """function(part) of every part, in their order, all but the first in other threads.

    NumPy holds no lock while it computes, so the threads share out the cores. What one of them
    raises is raised here, after the last; np.errstate is the caller's in all. Not to be called by
    `function`, which may find no thread left.
    """
    state = np.geterr()

    def result(part: Part) -> Result:
        with np.errstate(**state):
            return function(part)

    first, *others = parts
    waiting = [_threads(os.getpid()).submit(result, part) for part in others]
    try:
        found = result(first)
    finally:
        wait(waiting)
    return [found, *(thread.result() for thread in waiting)]
