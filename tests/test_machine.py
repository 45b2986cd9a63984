"""Threads: their results, their errors, and what NumPy warns of in them."""

import threading
import warnings

import numpy as np
import pytest

from glr.machine import results_of_threads


def test_results_are_in_the_order_of_the_parts_which_run_at_once():
    """Each part waits for all the others: one thread could not go on alone."""
    barrier = threading.Barrier(3, timeout=30)

    def square(x):
        barrier.wait()
        return x * x

    assert results_of_threads(square, iter([3, 1, 2])) == [9, 1, 4]
    assert results_of_threads(abs, [-1]) == [1]


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
