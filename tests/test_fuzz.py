"""Real files, mutated: whatever a reader is given, it loads what it promises or refuses it.

`make fuzz` runs these and every other fuzzed test with 10,000 cases each.
"""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from datafiles import CUT, EDITS, FUZZ, bounded, mutated
from hypothesis import given
from hypothesis import strategies as st
from runs import ORIGIN, small_state, state_with_checkpoint

from glr.data.idx import published_bytes
from glr.errors import GLRError
from glr.optimizers import adam
from glr.storage.checkpoint import restore_checkpoint
from glr.storage.models import load_model

ROOT = Path(__file__).resolve().parent.parent
MODEL = (ROOT / "models" / "pretrained" / "LRT_digits_seed0.npz").read_bytes()
LABELS = "t10k-labels-idx1-ubyte"
MNIST = Path(os.environ.get("GLR_DATA_DIR", ROOT / "data")) / "mnist" / f"{LABELS}.gz"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The bytes of a checkpoint."""
    _, path = state_with_checkpoint(tmp_path_factory.mktemp("run"))
    return path.read_bytes()


def with_entry_mutated(archive, entry, edits, cut):
    """The .npz `archive` with one of its files mutated, under a checksum that is right."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(packed, "w") as new:
        names = old.namelist()
        for name in names:
            content = old.read(name)
            if name == names[entry % len(names)]:
                content = mutated(content, edits, cut)
            new.writestr(name, content)
    return packed.getvalue()


def assert_model_or_refused(path):
    """What load_model gives is a network that predicts; what it raises is one line."""
    try:
        model = bounded(load_model, path)
    except GLRError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        assert model.network.parameters.dtype == np.float32
        assert np.isfinite(model.network.parameters).all()
        sizes = model.network.sizes
        assert model.logits(np.zeros((1, sizes[0]))).shape == (1, sizes[-1])
        assert isinstance(model.metadata, dict)


def kept_by_adam():
    """The names of the arrays that Adam keeps."""
    kept, zeros = {}, np.zeros(1, np.float32)
    adam(zeros, zeros, 0.0, kept)
    return kept.keys()


def assert_restored_or_refused(path):
    """A checkpoint is taken over whole, or the state stays that of the beginning."""
    state = small_state()
    before = state.parameters.copy()
    try:
        bounded(restore_checkpoint, path, state, ORIGIN, adam)
    except GLRError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        np.testing.assert_array_equal(state.parameters, before)
        assert (state.step, state.optimizer) == (0, {})
    else:
        assert state.step >= 1 and np.isfinite(state.parameters).all()
        assert state.optimizer.keys() == kept_by_adam()


# Edits near both ends, where a zip file keeps its headers and its directory.
ENDS = st.lists(
    st.tuples(
        st.integers(0, 400) | st.integers(len(MODEL) - 700, len(MODEL) - 1), st.integers(0, 255)
    ),
    max_size=6,
)
# Edits of a single file's first bytes: an array's header, or the metadata's text.
HEADS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6)


@FUZZ
@given(EDITS | ENDS, CUT)
def test_fuzzed_model_file(tmp_path, edits, cut):
    path = tmp_path / "model.npz"
    path.write_bytes(mutated(MODEL, edits, cut))
    assert_model_or_refused(path)


@FUZZ
@given(st.integers(0, 4), HEADS, CUT)
@pytest.mark.filterwarnings("ignore:Reading `.npy`", "ignore:invalid escape", "ignore:.*literal")
def test_fuzzed_arrays_of_a_model(tmp_path, entry, edits, cut):
    path = tmp_path / "model.npz"
    path.write_bytes(with_entry_mutated(MODEL, entry, edits, cut))
    assert_model_or_refused(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = st.sampled_from(["step", "seconds", "retuned", "origin", "activation", "constants", "x"])


@FUZZ
@given(JSON | st.dictionaries(FIELDS, JSON))
def test_fuzzed_metadata(tmp_path, checkpoint, value):
    for seed, check in (
        (MODEL, assert_model_or_refused),
        (checkpoint, assert_restored_or_refused),
    ):
        with np.load(io.BytesIO(seed)) as arrays:
            old = {name: arrays[name] for name in arrays.files}
        if isinstance(value, dict):
            value = {**json.loads(str(old["metadata"])), **value}
        path = tmp_path / "file"
        with path.open("wb") as file:
            np.savez(file, **{**old, "metadata": np.array(json.dumps(value))})
        check(path)


@FUZZ
@given(EDITS, CUT)
def test_fuzzed_checkpoint(tmp_path, checkpoint, edits, cut):
    path = tmp_path / "run.checkpoint"
    path.write_bytes(mutated(checkpoint, edits, cut))
    assert_restored_or_refused(path)


@FUZZ
@given(st.integers(0, 20), HEADS, CUT)
@pytest.mark.filterwarnings("ignore:Reading `.npy`", "ignore:invalid escape", "ignore:.*literal")
def test_fuzzed_arrays_of_a_checkpoint(tmp_path, checkpoint, entry, edits, cut):
    path = tmp_path / "run.checkpoint"
    path.write_bytes(with_entry_mutated(checkpoint, entry, edits, cut))
    assert_restored_or_refused(path)


@pytest.mark.skipif(not MNIST.exists(), reason="no MNIST: set GLR_DATA_DIR to a folder with mnist/")
@FUZZ
@given(EDITS | HEADS, CUT)
def test_fuzzed_mnist_labels(tmp_path, edits, cut):
    path = tmp_path / f"{LABELS}.gz"
    path.write_bytes(mutated(MNIST.read_bytes(), edits, cut))
    try:
        raw = bounded(published_bytes, "mnist", LABELS, path)
    except GLRError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        assert len(raw) == 10_008
