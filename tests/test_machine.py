"""Threads: their results, their errors, and what NumPy warns of in them."""

import os
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from processes import ROOT

from glr.scripts.machine import results_of_threads


def test_results_are_in_the_order_of_the_parts_which_run_at_once():
    """Each part waits for all the others: one thread could not go on alone."""
    barrier = threading.Barrier(3, timeout=30)

    def square(x):
        barrier.wait()
        return x * x

    assert results_of_threads(square, iter([3, 1, 2])) == [9, 1, 4]
    assert results_of_threads(abs, [-1]) == [1]


def test_threads_are_kept_for_the_next_calls():
    """A pool has 32 at most."""
    found = [results_of_threads(lambda _: threading.current_thread(), [1, 2]) for _ in range(100)]
    assert {first for first, _ in found} == {threading.current_thread()}
    assert len({other for _, other in found} - {threading.current_thread()}) in range(1, 33)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_has_threads_of_its_own():
    """It would wait for its parent's for ever: SIGALRM, which it does not catch, ends it."""
    code = (
        "import os, signal; from glr.scripts.machine import results_of_threads as results; "
        "results(abs, [-1, -2]); child = os.fork(); child or signal.alarm(30); "
        "child or os._exit(results(abs, [-1, -2]) != [1, 2]); "
        "print(os.waitpid(child, 0)[1])"
    )
    words = [sys.executable, "-W", "ignore", "-c", code]
    ran = subprocess.run(words, cwd=ROOT, text=True, capture_output=True, check=True)
    assert ran.stdout == "0\n"


def test_the_other_parts_have_ended_when_what_the_first_raised_is_raised():
    ended = []

    def fail_or_end(x):
        if x == 0:
            raise ValueError
        time.sleep(0.2)
        ended.append(x)

    with pytest.raises(ValueError):
        results_of_threads(fail_or_end, [0, 1])
    assert ended == [1]


@pytest.mark.parametrize("place", [0, 1])
def test_what_a_part_raises_is_raised(place):
    def reciprocal(x):
        return 1 / x

    with pytest.raises(ZeroDivisionError):
        results_of_threads(reciprocal, np.roll([0, 1], place).tolist())


def test_every_thread_has_the_caller_s_errstate():
    def overflow(x):
        return np.float32(3e38) * np.float32(x)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with np.errstate(over="ignore"):
            assert results_of_threads(overflow, [10, 20]) == [np.inf, np.inf]
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        results_of_threads(overflow, [1, 10])
