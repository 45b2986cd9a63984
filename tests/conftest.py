"""What several test files need: deprecations are errors in every process; a bound on memory."""

import os
import tracemalloc

import pytest

# Of the scripts that the tests start; pyproject.toml does it for the tests themselves.
DEPRECATIONS = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
os.environ.setdefault("PYTHONWARNINGS", ",".join(f"error::{name}" for name in DEPRECATIONS))


@pytest.fixture
def within_200_mb():
    """Fail the test if what it allocates, arrays included, ever comes to 200 MB."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
