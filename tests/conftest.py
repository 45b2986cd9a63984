"""Deprecations are errors in every process that the tests start, as in pyproject.toml."""

import os
import signal

import pytest


def heed_signals() -> None:
    """Have the tests' processes heed signals, though pytest was started to ignore some.

    A process in the background of a script ignores SIGINT, one under nohup SIGHUP; so do those that
    it starts.
    """
    for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


heed_signals()


pytest.register_assert_rewrite("datafiles", "problems", "processes")

DEPRECATIONS = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
os.environ.setdefault("PYTHONWARNINGS", ",".join(f"error::{name}" for name in DEPRECATIONS))
