"""Damaged and hostile .npz files, and how data sets, models and samples are read from such."""

import json
import re
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from datafiles import CUT, EDITS, FUZZ, X, Y, bounded, mutated, npy_bytes, npz_bytes, refusal
from hypothesis import example, given
from hypothesis import strategies as st

from glr.data.datasets import Dataset
from glr.errors import GLRError
from glr.network import new_network, sigmoid
from glr.robustness import samples
from glr.robustness.samples import Samples, load_samples, save_samples
from glr.storage import models, npz
from glr.storage.models import load_model, save_model
from glr.storage.npz import load_arrays, npz_arrays, save_arrays

MANY = 2**33  # bytes, more than any file here has or claims


def read(path):
    return npz_arrays(path, "data set", "[xy]", MANY, "save it again")


def npz_refusal(path):
    """The message of `path`'s refusal, which has the form that all have."""
    message = refusal(read, path)
    assert message.startswith(f"{path}: ") and message.endswith("; save it again")
    return message


def load(path):
    return load_arrays(path, "data set", "[xy]", MANY, "save it again")


def peak_memory(call, *args):
    """Bytes that `call` had allocated at most."""
    tracemalloc.start()
    call(*args)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.fixture
def path(tmp_path):
    return tmp_path / "own.npz"


# what is read -----------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_named_arrays_are_read_and_no_others(path, save):
    save(path, x=X, y=Y, xy=X, extra=np.array([{}], object))
    arrays = read(path)
    assert arrays.keys() == {"x", "y"}
    np.testing.assert_array_equal(arrays["x"], X)
    np.testing.assert_array_equal(arrays["y"], Y)
    assert arrays["x"].dtype == X.dtype and arrays["y"].dtype == Y.dtype


def test_one_text_is_read(path):
    np.savez(path, x=np.array("σ" * 2**18))  # of 2**20 bytes
    assert str(read(path)["x"]) == "σ" * 2**18
    np.savez(path, x=np.array("σ" * 2**18 + "."))
    assert "x is a text of 1048580 bytes, more than 1048576" in npz_refusal(path)


def test_several_texts_are_refused(path):
    np.savez(path, x=np.array(["a", "b"]))
    assert "x has type str32" in npz_refusal(path)


def test_too_many_arrays_are_refused(path, monkeypatch):
    np.savez(path, x=X, y=Y, others=X)
    monkeypatch.setattr(npz, "MAX_ARRAYS", 2)
    assert len(read(path)) == 2
    monkeypatch.setattr(npz, "MAX_ARRAYS", 1)
    assert "2 arrays, more than 1" in npz_refusal(path)


def test_too_many_bytes_are_refused(path):
    np.savez_compressed(path, x=X, y=Y, others=X)
    n_bytes = len(npy_bytes(X)) + len(npy_bytes(Y))
    assert len(npz_arrays(path, "data set", "[xy]", n_bytes, "save it")) == 2
    message = refusal(npz_arrays, path, "data set", "[xy]", n_bytes - 1, "save it")
    assert f"{n_bytes} bytes unpacked, more than {n_bytes - 1}" in message


@pytest.mark.parametrize(
    "text",
    ["", "[1]", "3", '{"a": 1', "[" * 100_000, "9" * 100_000, "\ud800"],
    ids=["empty", "list", "number", "open", "deep", "long", "surrogate"],
)
def test_json_that_is_no_object(path, text):
    np.savez(path, metadata=np.array(text))
    assert refusal(load, path) == f"{path}: its metadata are no JSON object; save it again"


def test_json_of_what_is_no_text(path):
    beyond_unicode = np.frombuffer(b"\xff" * 12, "<U3")[0:1].reshape(())
    for array in (np.array(3.0), X, beyond_unicode):
        np.savez(path, metadata=array)
        assert "no JSON object" in refusal(load, path)
    np.savez(path, metadata=np.array('{"a": 1}', ">U8"))
    assert load(path) == ({}, {"a": 1})


def test_metadata_come_back_as_they_were_saved_beside_the_arrays(path):
    save_arrays(path, {"of": ["σ", 0.1, None]}, {"x": X})
    arrays, metadata = load(path)
    assert metadata == {"of": ["σ", 0.1, None]}
    assert arrays.keys() == {"x"}
    np.testing.assert_array_equal(arrays["x"], X)


# damage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"PK\x03\x04 garbage", npy_bytes(np.ones(3))],
    ids=["empty", "garbage", "zip garbage", "npy"],
)
def test_file_that_is_no_zip(path, content):
    path.write_bytes(content)
    assert "not a data set (" in npz_refusal(path)


def test_missing_file(path):
    assert npz_refusal(path) == f"{path}: no such data set; save it again"


def test_folder(path):
    path.mkdir()
    assert "cannot be read (Is a directory)" in npz_refusal(path)


def test_truncated_anywhere(path):
    whole = npz_bytes(np.savez, x=X, y=Y)
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        assert "not a data set (" in npz_refusal(path)


def test_flipped_bit(path):
    whole = bytearray(npz_bytes(np.savez, x=X, y=Y))
    whole[whole.index(X.tobytes()) + 100] ^= 1
    path.write_bytes(whole)
    assert "CRC" in npz_refusal(path)


def zipped(tmp_path, x_npy, **options):
    """An .npz whose x.npy is `x_npy` and whose y is right."""
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("x.npy", x_npy)
        archive.writestr("y.npy", npy_bytes(Y))
    return path


def npy(header, payload=b"", version=1):
    text = header.encode("latin1") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + payload


def shape_header(shape, descr="'<f4'"):
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


BAD_NPY = {
    "more promised": npy(shape_header("(10, 4)"), bytes(120)),
    "less promised": npy(shape_header("(30, 4)"), bytes(484)),
    "petabytes promised": npy(shape_header(f"({2**48}, 4)"), bytes(480)),
    "beyond int64": npy(shape_header(f"({2**80},)"), bytes(480)),
    "empty beyond int64": npy(shape_header(f"(0, {2**80})")),
    "negative": npy(shape_header("(-30, -4)"), bytes(480)),
    "too many dimensions": npy(shape_header(f"({'1, ' * 99})"), bytes(4)),
    "shape is text": npy(shape_header("'30'")),
    "type unknown": npy(shape_header("(30, 4)", "'q9'"), bytes(480)),
    "type is an empty tuple": npy(shape_header("(30, 4)", "()"), bytes(480)),
    "type is a number": npy(shape_header("(30, 4)", "3"), bytes(480)),
    "type is nested": npy(shape_header("(30, 4)", "(" * 99 + "'<f4'" + ",)" * 99), bytes(480)),
    "keys of two kinds": npy("{'descr': '<f4', 'fortran_order': False, 3: (30, 4)}", bytes(480)),
    "header open": npy("{'descr': ("),
    "header deep": npy("-" * 9000 + "1"),
    "header indented": npy("  1\n 2"),
    "header long": npy("#" * 20_000),
    "header of 4 GiB": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"{" * 20_000,
    "header code": npy("__import__('os').getcwd()"),
    "no npy": b"garbage",
    "nothing": b"",
    "a pickle": b"\x80\x04K\x01.",
}


@pytest.mark.parametrize("x_npy", BAD_NPY.values(), ids=BAD_NPY)
def test_damaged_array(tmp_path, x_npy):
    assert "not a data set (" in npz_refusal(zipped(tmp_path, x_npy))


@pytest.mark.parametrize("version", [3, 9])
def test_array_of_an_odd_version(tmp_path, version):
    path = zipped(tmp_path, npy(shape_header("(30, 4)"), bytes(480), version))
    assert f"npy version ({version}, 0)" in npz_refusal(path)


def test_header_that_is_a_bomb(tmp_path):
    bomb = b"\x93NUMPY\x02\x00\xff\xff\xff\x00" + b" " * 2**24
    path = zipped(tmp_path, bomb, compression=zipfile.ZIP_DEFLATED)
    assert peak_memory(npz_refusal, path) < 2**21


def test_array_larger_than_its_header_says(tmp_path):
    bomb = npy(shape_header("(30, 4)"), bytes(2**24))
    path = zipped(tmp_path, bomb, compression=zipfile.ZIP_DEFLATED)
    assert "header promises 480 bytes, 16777216 follow" in npz_refusal(path)
    assert peak_memory(npz_refusal, path) < 2**21


@pytest.mark.parametrize("version", [1, 2])
def test_handmade_array(tmp_path, version):
    x_npy = npy(shape_header("(30, 4)"), np.ones(120, "f4").tobytes(), version)
    np.testing.assert_array_equal(read(zipped(tmp_path, x_npy))["x"], np.ones((30, 4)))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_that_numpy_does_not_write(tmp_path, compression):
    path = zipped(tmp_path, npy_bytes(X), compression=compression)
    assert "compression" in npz_refusal(path)


def test_password(tmp_path):
    path = zipped(tmp_path, npy_bytes(X))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x03\x04") + 6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    assert "password" in npz_refusal(path)


def test_directory_claims_gigabytes(tmp_path):
    path = zipped(tmp_path, npy_bytes(X))
    raw = bytearray(path.read_bytes())
    for found in re.finditer(b"PK\x01\x02", bytes(raw)):  # 4 GiB less 2 bytes for x and for y
        raw[found.start() + 24 : found.start() + 28] = b"\xfe\xff\xff\xff"
    path.write_bytes(raw)
    assert "header promises" in npz_refusal(path)


def test_directory_points_at_its_end(tmp_path):
    path = zipped(tmp_path, npy_bytes(X))
    raw = bytearray(path.read_bytes())
    position = raw.index(b"PK\x01\x02") + 42
    raw[position : position + 4] = struct.pack("<I", len(raw) - 5)
    path.write_bytes(raw)
    assert "not a data set (" in npz_refusal(path)


def test_directory_points_beyond_all_files(tmp_path):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy_bytes(X))
        archive.writestr("y.npy", npy_bytes(Y))
        archive.getinfo("x.npy").header_offset = 2**64 - 1
    assert "not a data set (" in npz_refusal(path)


def assert_read_or_refused(path):
    try:
        arrays = bounded(read, path)
    except GLRError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        assert all(array.dtype.kind in "buifU" and array.size for array in arrays.values())


SEEDS = [npz_bytes(save, x=X[:12], y=np.array("12")) for save in (np.savez, np.savez_compressed)]


@FUZZ
@given(st.sampled_from(SEEDS), EDITS, CUT)
@example(SEEDS[0], [], None)
def test_fuzzed_file_is_read_or_refused(tmp_path, seed, edits, cut):
    path = tmp_path / "own.npz"
    path.write_bytes(mutated(seed, edits, cut))
    assert_read_or_refused(path)


NPY_X = npy_bytes(X.astype(np.float32))


@FUZZ
@given(st.integers(0, 127), st.text("(){}[]'\"<>,:-1290fuiOVSTUL#\\ \n", max_size=8))
@pytest.mark.filterwarnings("ignore:Reading `.npy`", "ignore:invalid escape", "ignore:.*literal")
def test_fuzzed_header_is_read_or_refused(tmp_path, position, text):
    header = NPY_X[:position] + text.encode() + NPY_X[position + len(text) :]
    assert_read_or_refused(zipped(tmp_path, header))  # with a checksum that is right


# models and samples -----------------------------------------------------------------------------


TEST_SET = Dataset("toy", X.astype("f4"), Y, X[:4].astype("f4"), Y[:4])
SAMPLES = Samples(
    TEST_SET.x_test, TEST_SET.x_test[None], TEST_SET.y_test, {"attack": "fgsm", "dataset": "toy"}
)


def saved_model(folder):
    path, network = folder / "model.npz", new_network([4, 3], sigmoid, np.random.default_rng(0))
    save_model(path, network, {"activation": "sigmoid"})
    return path


def saved_samples(folder):
    save_samples(folder / "fgsm.npz", SAMPLES)
    return folder / "fgsm.npz"


def samples_of(path):
    return load_samples(path, TEST_SET)


KINDS = {
    "model": (saved_model, load_model, models, "not a model file", "train it again"),
    "samples": (saved_samples, samples_of, samples, "not a file of samples", "generate_adv.py"),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request):
    return request.param


def test_kinds_are_read(tmp_path, kind):
    save, load, *_ = kind
    assert isinstance(load(save(tmp_path)).metadata, dict)


def changed(path, **arrays):
    """The file at `path` with `arrays` added or replaced, or left out if None."""
    with np.load(path) as old:
        new = {**old, **arrays}
    np.savez(path, **{name: array for name, array in new.items() if array is not None})
    return path


CHANGES = {
    "no metadata": {"metadata": None},
    "long metadata": {"metadata": np.array(json.dumps({"activation": "a" * 2**18}))},
    "many metadata": {"metadata": np.array(["{}", "{}"])},
    "pickled metadata": {"metadata": np.array({})},
}


@pytest.mark.parametrize("arrays", CHANGES.values(), ids=CHANGES)
def test_kinds_with_bad_metadata(tmp_path, kind, arrays):
    save, load, _, what, advice = kind
    path = changed(save(tmp_path), **arrays)
    message = refusal(load, path)
    assert message.startswith(f"{path}: {what} (") and advice in message


def test_kinds_are_bounded(tmp_path, kind, monkeypatch):
    save, load, module, what, _ = kind
    path = save(tmp_path)
    monkeypatch.setattr(module, "MAX_BYTES", 300)
    message = refusal(load, path)
    assert what in message and "more than 300" in message


def test_kinds_that_are_missing_or_truncated(tmp_path, kind):
    save, load, _, what, advice = kind
    path = save(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    assert refusal(load, path).startswith(f"{path}: {what} (")
    path.unlink()
    message = refusal(load, path)
    assert message.startswith(f"{path}: no such") and advice in message


def test_model_of_hundreds_of_layers(tmp_path):
    W, b = np.ones((4, 4), np.float32), np.ones(4, np.float32)
    layers = {f"{name}{t}": part for t in range(500) for name, part in (("W", W), ("b", b))}
    message = refusal(load_model, changed(saved_model(tmp_path), **layers))
    assert "1001 arrays, more than 1000" in message


def test_model_that_lacks_a_layer(tmp_path):
    path = changed(saved_model(tmp_path), W2=np.ones((3, 3), np.float32))
    assert "no array 'W1'" in refusal(load_model, path)


def test_model_whose_activation_is_a_list(tmp_path):
    path = changed(saved_model(tmp_path), metadata=np.array('{"activation": []}'))
    assert "its activation '[]'" in refusal(load_model, path)


@pytest.mark.parametrize("name", ["x", "x_adv", "y"])
def test_samples_that_lack_or_empty_an_array(tmp_path, name):
    path = changed(saved_samples(tmp_path), **{name: None})
    assert f"no array '{name}'" in refusal(samples_of, path)
    path = changed(saved_samples(tmp_path), **{name: np.zeros((0, 4, 4), np.float32)})
    assert f"{name} is empty" in refusal(samples_of, path)
