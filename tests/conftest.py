"""Fixtures of several test files."""

import tracemalloc

import pytest


@pytest.fixture
def within_200_mb():
    """Fail the test if what it allocates, arrays included, ever comes to 200 MB."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
