"""What a run asks of the machine: memory that is used again, and one core."""

import ctypes
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
from processes import ROOT
from threadpoolctl import threadpool_info, threadpool_limits

from glr.scripts.machine import prepare_for_small_arrays, without_user_settings

FAULTS = """
import resource
import numpy as np
from glr.scripts.machine import prepare_for_small_arrays
prepare_for_small_arrays()
np.ones(2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    np.ones(2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left alone")
def test_the_memory_of_a_freed_array_is_used_again():
    """Less than one page fault an array of 8 MiB, that is 2048 pages of 4 kiB or four of 2 MiB."""
    assert int(subprocess.check_output([sys.executable, "-c", FAULTS], cwd=ROOT)) < 50


def test_products_are_on_one_core():
    with threadpool_limits(2):
        prepare_for_small_arrays()
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}


def test_a_system_without_glibc_is_no_reason_to_stop(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    prepare_for_small_arrays()


@pytest.mark.parametrize("home", ["/home/of/mine", None])
def test_the_user_s_settings_of_other_libraries_come_back(home, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    before = dict(os.environ)
    with pytest.raises(ImportError), without_user_settings():
        assert "KERAS_BACKEND" not in os.environ
        assert os.listdir(os.path.expanduser("~")) == []
        raise ImportError
    assert dict(os.environ) == before
