"""What the tests of data files share: small files, damage, and the form of a refusal."""

import io
import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from glr.errors import GLRError

FUZZ = settings(
    max_examples=int(os.environ.get("GLR_FUZZ_CASES", "150")),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
EDITS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6)
CUT = st.none() | st.integers(0, 10**6)


def mutated(seed, edits, cut):
    """The bytes `seed` with some replaced (EDITS), then cut short (CUT)."""
    raw = bytearray(seed)
    for position, byte in edits:
        raw[position % len(raw)] = byte
    return bytes(raw[: cut % (len(raw) + 1)] if cut is not None else raw)


def bounded(call, *args):
    """What `call` returns or raises; fails if it ever allocates 200 MB, arrays included."""
    tracemalloc.start()
    try:
        return call(*args)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 200e6


def refusal(call, *args):
    """The message of the GLRError that `call` raises: one line."""
    with pytest.raises(GLRError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message, "says no remedy"
    return message


def assert_dataset(dataset):
    """Assert what `Dataset` promises of every data set."""
    for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        assert x.dtype == np.float32 and x.ndim == 2 and x.flags.c_contiguous
        assert y.dtype == np.int64 and y.shape == (len(x),) and len(x) >= 1
        assert np.isfinite(x).all() and y.min() >= 0
    assert dataset.x_train.shape[1] == dataset.x_test.shape[1] >= 1
    assert set(dataset.y_test) <= set(dataset.y_train)


def npy_bytes(array):
    """`array` as the bytes of an .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz_bytes(save, **arrays):
    """`arrays` as the bytes of an .npz file; `save` is np.savez or np.savez_compressed."""
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def toy(n=30, n_in=4, n_classes=3):
    """Random inputs (n, n_in) and labels (n,), the classes in turn."""
    rng = np.random.default_rng(0)
    return rng.random((n, n_in)), np.arange(n) % n_classes


X, Y = toy()
