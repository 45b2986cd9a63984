"""Deprecations are errors in every process that the tests start, as pyproject.toml has it here."""

import os

DEPRECATIONS = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
os.environ.setdefault("PYTHONWARNINGS", ",".join(f"error::{name}" for name in DEPRECATIONS))
