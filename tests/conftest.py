"""What holds in every process that the tests start: deprecations are errors, as in pyproject.toml.

And what Numba compiles is kept for this run of the tests alone, so that its first process compiles.
"""

import os
import tempfile

import pytest

pytest.register_assert_rewrite("datafiles", "problems", "processes")

DEPRECATIONS = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
os.environ.setdefault("PYTHONWARNINGS", ",".join(f"error::{name}" for name in DEPRECATIONS))
if "PYTEST_XDIST_WORKER" not in os.environ:  # else the folder of the process that started this one
    NUMBA_CACHE = tempfile.TemporaryDirectory(prefix="glr-tests-")
    os.environ["NUMBA_CACHE_DIR"] = NUMBA_CACHE.name
