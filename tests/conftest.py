"""Deprecations are errors in every process that the tests start, as in pyproject.toml."""

import os

import pytest

pytest.register_assert_rewrite("datafiles", "problems", "processes")

DEPRECATIONS = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
os.environ.setdefault("PYTHONWARNINGS", ",".join(f"error::{name}" for name in DEPRECATIONS))
