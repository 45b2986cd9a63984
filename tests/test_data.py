"""Data sets: sources and labels, the digits, the splits, and own arrays."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datafiles import (
    CUT,
    EDITS,
    FUZZ,
    X,
    Y,
    assert_dataset,
    bounded,
    mutated,
    npy_bytes,
    npz_bytes,
    refusal,
    toy,
)
from hypothesis import example, given
from hypothesis import strategies as st

from glr.data import datasets as data
from glr.data.datasets import Dataset, dataset_label, hold_out, load_dataset, n_classes
from glr.errors import GLRError

# sources and labels -----------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["digits", "mnist", "fashion_mnist"])
def test_label_of_a_shipped_set_is_its_name(source):
    assert dataset_label(source) == source


def test_label_of_an_npz_is_its_stem():
    assert dataset_label("some/where/my.cells.npz") == "my.cells"


@pytest.mark.parametrize("name", ["digits", "mnist", "fashion_mnist"])
@pytest.mark.parametrize("call", [dataset_label, lambda source: load_dataset(source, Path())])
def test_own_file_called_like_a_shipped_set(name, call):
    message = refusal(call, f"some/where/{name}.npz")
    assert message.startswith(f"some/where/{name}.npz: ") and "rename it" in message


@pytest.mark.parametrize("source", ["", "MNIST", "cifar10", "x.npy", "mnist/"])
@pytest.mark.parametrize("call", [dataset_label, lambda source: load_dataset(source, Path())])
def test_unknown_source_lists_the_choices(source, call):
    message = refusal(call, source)
    assert repr(source) in message
    for choice in ("digits", "mnist", "fashion_mnist", ".npz"):
        assert choice in message


# digits -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", Path("nowhere"))


def test_digits_shapes(digits):
    assert_dataset(digits)
    assert digits.name == "digits"
    assert digits.x_train.shape == (1437, 64)
    assert digits.x_test.shape == (360, 64)
    assert n_classes(digits) == 10


def test_digits_are_those_of_scikit_learn(digits):
    from sklearn.datasets import load_digits  # noqa: PLC0415

    x, y = load_digits(return_X_y=True)
    test = data.stratified_fifth(y)
    train = np.setdiff1d(np.arange(len(y)), test)
    np.testing.assert_array_equal(digits.x_train, x[train] / 16)
    np.testing.assert_array_equal(digits.y_train, y[train])
    np.testing.assert_array_equal(digits.x_test, x[test] / 16)
    np.testing.assert_array_equal(digits.y_test, y[test])


def test_digits_split_is_stratified(digits):
    train, test = np.bincount(digits.y_train), np.bincount(digits.y_test)
    assert np.abs(test - (train + test) / 5).max() < 1


def test_digits_split_never_changes(digits):
    # Published accuracies depend on it; if this fails, the split has moved.
    assert data.stratified_fifth(np.arange(100) % 4)[:6].tolist() == [1, 2, 5, 11, 13, 18]
    again = load_dataset("digits", Path())
    for one, other in zip(digits[1:], again[1:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_digits_do_not_import_scikit_learn():
    code = (
        "import sys; from glr.data.datasets import load_dataset; load_dataset('digits', '.');"
        "print(sorted(set(sys.modules) & {'sklearn', 'tqdm', 'urllib.request'}))"
    )
    root = Path(data.__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: None)
    assert "pip install scikit-learn" in refusal(load_dataset, "digits", Path())


def test_digits_with_another_package_called_sklearn(monkeypatch, tmp_path):
    (tmp_path / "sklearn").mkdir()
    (tmp_path / "sklearn" / "__init__.py").touch()
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert "pip install scikit-learn" in refusal(load_dataset, "digits", Path())


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"1,2\n3,4\n"), gzip.compress(b"a,b\n" * 9)[:-9]],
    ids=["empty", "no gzip", "small", "truncated"],
)
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_digits_from_a_damaged_installation(monkeypatch, tmp_path, content):
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(content)
    monkeypatch.setattr(data, "digits_path", lambda: path)
    message = refusal(load_dataset, "digits", Path())
    assert str(path) in message and "--force-reinstall scikit-learn" in message


# hold-out ---------------------------------------------------------------------------------------


def numbered_dataset(n=10):
    x = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    return Dataset("toy", x, np.arange(n) % 3, -np.ones((4, 2), np.float32), np.zeros(4, int))


@pytest.mark.parametrize("n", [1, 4, 9])
def test_hold_out_parts_the_training_samples(n):
    dataset = numbered_dataset()
    held = hold_out(dataset, n, np.random.default_rng(0))
    assert (len(held.x_train), len(held.x_test)) == (10 - n, n)
    rows = np.concatenate([held.x_train, held.x_test])[:, 0] / 2
    assert sorted(rows) == list(range(10))  # every sample once, none of the true test set
    labels = np.concatenate([held.y_train, held.y_test])
    np.testing.assert_array_equal(labels, rows % 3)  # still with its own label
    assert held.name == "toy"
    assert (np.diff(held.x_train[:, 0]) > 0).all()


def test_hold_out_follows_its_generator():
    dataset = numbered_dataset(100)
    one, same, other = (
        hold_out(dataset, 30, np.random.default_rng(seed)).x_test for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("n", [-1, 0, 10, 11])
def test_hold_out_of_all_or_nothing(n):
    message = refusal(hold_out, numbered_dataset(), n, np.random.default_rng(0))
    assert f"hold out {n} of 10" in message and "1 to 9" in message


def test_n_classes_counts_over_both_parts():
    dataset = numbered_dataset()
    assert n_classes(dataset) == 3
    assert n_classes(dataset._replace(y_test=np.array([6]))) == 7


# own arrays -------------------------------------------------------------------------------------


def saved(tmp_path, **arrays):
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    return str(path)


def load(source):
    return load_dataset(source, Path("unused"))


def npz_refusal(tmp_path, **arrays):
    source = saved(tmp_path, **arrays)
    message = refusal(load, source)
    assert message.startswith(f"{source}: ")
    return message


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_its_own_test_set(tmp_path, save):
    x, y = toy()
    path = tmp_path / "my cells.npz"
    save(path, x=x, y=y, x_test=x[:7], y_test=y[:7], ignored=np.array([{}], object))
    dataset = load(str(path))
    assert_dataset(dataset)
    assert dataset.name == "my cells"
    np.testing.assert_array_equal(dataset.x_train, x.astype(np.float32))
    np.testing.assert_array_equal(dataset.y_train, y)
    np.testing.assert_array_equal(dataset.x_test, x[:7].astype(np.float32))
    np.testing.assert_array_equal(dataset.y_test, y[:7])
    assert n_classes(dataset) == 3


def test_npz_without_a_test_set_is_split(tmp_path):
    x, y = toy(n=100)
    dataset = load(saved(tmp_path, x=x, y=y))
    assert_dataset(dataset)
    assert len(dataset.y_train) == 80 and len(dataset.y_test) == 20
    both = np.concatenate([dataset.x_train, dataset.x_test])
    np.testing.assert_array_equal(np.unique(both, axis=0), np.unique(x.astype("f4"), axis=0))
    assert np.bincount(dataset.y_test).tolist() in ([7, 7, 6], [7, 6, 7])
    again = load(saved(tmp_path, x=x, y=y))
    np.testing.assert_array_equal(dataset.x_test, again.x_test)


@pytest.mark.parametrize("n", [2, 3, 4, 7, 500, 1001])
@pytest.mark.parametrize("n_in_class", [1, 3])
def test_split_is_a_fifth_of_each_class(n, n_in_class):
    labels = np.arange(n) // n_in_class
    test = data.stratified_fifth(labels)
    assert len(test) == len(set(test)) == -(-n // 5)
    whole, part = np.bincount(labels), np.bincount(labels[test], minlength=labels[-1] + 1)
    assert np.abs(part - whole / 5).max() < 1


def test_npz_images_are_flattened_and_bytes_scaled(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (30, 5, 4), dtype=np.uint8)
    y = toy()[1]
    for given_x in (x, np.asfortranarray(x), np.asfortranarray(x.reshape(30, 20))):
        dataset = load(saved(tmp_path, x=given_x, y=y, x_test=given_x, y_test=y))
        assert_dataset(dataset)
        expected = (x.reshape(30, 20) / 255.0).astype(np.float32)
        np.testing.assert_array_equal(dataset.x_train, expected)
        np.testing.assert_array_equal(dataset.x_test, expected)
        assert dataset.are_pixels
    floats = saved(tmp_path, x=x.astype(np.float32), y=y)
    assert not load(floats).are_pixels


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", ">i4", "i8", "u8", "f2", ">f4", "f8", "g"])
def test_npz_other_numbers_are_taken_as_they_are(tmp_path, dtype):
    x = (np.arange(60) % 2).reshape(30, 2).astype(dtype)
    dataset = load(saved(tmp_path, x=x, y=toy()[1], x_test=x, y_test=toy()[1]))
    assert_dataset(dataset)
    np.testing.assert_array_equal(dataset.x_train, np.arange(60).reshape(30, 2) % 2)


@pytest.mark.parametrize("dtype", ["?", "u1", ">i2", "u8", "f4", "f8"])
@pytest.mark.parametrize("shape", [(30,), (30, 1)])
def test_npz_labels_of_any_whole_numbers(tmp_path, dtype, shape):
    y = np.arange(30) % 2
    dataset = load(saved(tmp_path, x=toy()[0], y=y.astype(dtype).reshape(shape)))
    assert_dataset(dataset)
    assert np.bincount(dataset.y_train).tolist() == [12, 12]


def test_npz_one_number_per_sample(tmp_path):
    dataset = load(saved(tmp_path, x=np.arange(30), y=toy()[1]))
    assert dataset.x_train.shape == (24, 1)


def test_npz_missing_file(tmp_path):
    source = str(tmp_path / "none.npz")
    message = refusal(load, source)
    assert message.startswith(f"{source}: no such data set; check the path")


TEST_PART = {"x_test": X[:3], "y_test": Y[:3]}
REFUSED = {
    "no x": ({"y": Y}, "no array named x"),
    "no y": ({"x": X}, "no array named y"),
    "nothing": ({}, "no array named x"),
    "x_test alone": ({"x": X, "y": Y, "x_test": X}, "without the other"),
    "y_test alone": ({"x": X, "y": Y, "y_test": Y}, "without the other"),
    "object x": ({"x": X.astype(object), "y": Y}, "x holds Python objects"),
    "object y": ({"x": X, "y": Y.astype(object)}, "y holds Python objects"),
    "object x_test": ({"x": X, "y": Y, **TEST_PART, "x_test": X.astype(object)}, "x_test holds"),
    "complex": ({"x": X + 0j, "y": Y}, "x has type complex128"),
    "strings": ({"x": X.astype("U3"), "y": Y}, "x has type str96"),
    "a name for all": ({"x": X, "y": np.array(["a"] * 30)}, "one class only"),
    "an empty name": ({"x": X, "y": np.array(["", "b", "c"])[Y]}, "y holds an empty name"),
    "a NaN name": ({"x": X, "y": np.array(["a", "nan", "c"])[Y]}, "y holds an empty name, or NaN"),
    "a name and numbers": (
        {"x": X, "y": np.array(["a", "b", "c"])[Y], "x_test": X, "y_test": Y},
        "one of y and y_test holds names",
    ),
    "another name in the test": (
        {"x": X, "y": np.array(["a", "b", "c"])[Y % 2], "x_test": X, "y_test": Y.astype("U1")},
        "class '0' has test samples but no training sample",
    ),
    "bytes": ({"x": X.astype("S4"), "y": Y}, "x has type bytes32"),
    "dates": ({"x": Y.astype("M8[s]"), "y": Y}, "x has type datetime64"),
    "records": ({"x": np.zeros(30, "f4,f4"), "y": Y}, "x has type void64"),
    "NaN": ({"x": np.where(X > 0.9, np.nan, X), "y": Y}, "x holds NaN"),
    "infinity": ({"x": X, "y": Y, **TEST_PART, "x_test": X[:3] + np.inf}, "x_test holds NaN"),
    "beyond float32": ({"x": X * 1e300, "y": Y}, "beyond float32"),
    "lengths": ({"x": X[1:], "y": Y}, "29 samples in x, 30 labels in y"),
    "test lengths": ({"x": X, "y": Y, "x_test": X, "y_test": Y[1:]}, "30 samples in x_test, 29"),
    "empty": ({"x": X[:0], "y": Y[:0]}, "shape (0, 4)"),
    "no features": ({"x": X[:, :0], "y": Y}, "shape (30, 0)"),
    "scalar": ({"x": np.array(1.0), "y": Y}, "x has shape ()"),
    "text": ({"x": X, "y": np.array("labels")}, "y has shape ()"),
    "no test rows": ({"x": X, "y": Y, "x_test": X[:0], "y_test": Y[:0]}, "x_test is empty"),
    "one class": ({"x": X, "y": Y * 0}, "one class only"),
    "one sample": ({"x": X[:1], "y": Y[:1]}, "one class only"),
    "negative": ({"x": X, "y": Y - 1}, "negative label -1"),
    "fractions": ({"x": X, "y": Y / 2}, "not whole numbers"),
    "NaN label": ({"x": X, "y": np.where(Y > 1, np.nan, Y)}, "y holds NaN"),
    "infinite label": ({"x": X, "y": np.where(Y > 1, np.inf, Y)}, "not whole numbers"),
    "huge label": (
        {"x": X, "y": np.where(Y > 1, np.uint64(2**64 - 1), Y.astype("u8"))},
        "10000 or more",
    ),
    "huge float label": ({"x": X, "y": np.where(Y > 1, 1e300, Y)}, "10000 or more"),
    "label 10000": ({"x": X, "y": np.where(Y > 1, 10_000, Y)}, "10000 or more"),
    "label gaps": ({"x": X, "y": np.where(Y > 1, 31, Y)}, "label 31 among 30 samples"),
    "labels from 1": ({"x": X, "y": Y + 1}, "no training sample of class 0, though labels go up"),
    "skipped label": ({"x": X, "y": np.where(Y > 1, 3, Y)}, "class 2, though labels go up to 3"),
    "one-hot": ({"x": X, "y": np.eye(3)[Y]}, "y has shape (30, 3); one-hot or prob"),
    "one-hot bits": ({"x": X, "y": np.eye(3)[Y] > 0}, "Save y.argmax(axis=1)"),
    "probabilities": ({"x": X, "y": np.full((30, 3), 1 / 3)}, "Save y.argmax(axis=1)"),
    "several labels": ({"x": X, "y": np.eye(3)[Y] + np.eye(3)[0] > 0}, "train by glr.gradient"),
    "rows of numbers": ({"x": X, "y": X}, "y has shape (30, 4); "),
    "real values": ({"x": X, "y": X[:, 0]}, "y holds 0.636962, not whole numbers; this looks like"),
    "real names": ({"x": X, "y": X[:, 0].astype("U9")}, "not whole numbers; this looks like regr"),
    "whole values": ({"x": X, "y": np.arange(30.0)}, "30 different labels for 30 samples; this"),
    "new test class": ({"x": X, "y": Y, "x_test": X, "y_test": Y + 1}, "class 3 has test samples"),
    "features": ({"x": X, "y": Y, "x_test": X[:3, 1:], "y_test": Y[:3]}, "4 numbers per sample"),
    "scales": (
        {"x": X.astype("u1"), "y": Y, "x_test": X[:3], "y_test": Y[:3]},
        "x is uint8, x_test is float64",
    ),
    "integers, then floats": (
        {"x": (X * 255).astype(int), "y": Y, "x_test": X, "y_test": Y},
        "x is int64, x_test is float64",
    ),
    "floats, then integers": (
        {"x": X, "y": Y, "x_test": (X * 255).astype("u2"), "y_test": Y},
        "x is float64, x_test is uint16",
    ),
    "floats to 255": ({"x": X * 255, "y": Y, "x_test": X, "y_test": Y}, "x goes up to 254"),
    "test to 255": ({"x": X, "y": Y, "x_test": X * 255, "y_test": Y}, "x_test up to 254"),
    "bytes of fractions": (
        {"x": (X * 255).astype("u1"), "y": Y, "x_test": np.ones((30, 4), "u1"), "y_test": Y},
        "scale both by the same numbers",
    ),
    "two samples": ({"x": X[:2], "y": Y[:2]}, "no training sample"),
}


@pytest.mark.parametrize(("arrays", "why"), REFUSED.values(), ids=REFUSED)
def test_npz_refused(tmp_path, arrays, why):
    assert why in npz_refusal(tmp_path, **arrays)


@pytest.mark.parametrize("names", [["cat", "dog", "fox"], ["-1", "1", "10"], ["a", "Ä", "$b$"]])
def test_npz_labels_that_are_names(tmp_path, names):
    y = np.array(names)[Y]
    dataset = load(saved(tmp_path, x=X, y=y[:, None], x_test=X[:3], y_test=y[:3].astype("U40")))
    assert_dataset(dataset)
    assert [dataset.classes[k] for k in dataset.y_train] == y.tolist()
    assert [dataset.classes[k] for k in dataset.y_test] == y[:3].tolist()
    assert load(saved(tmp_path, x=X, y=Y.astype("U1"))).classes == ()  # numbers from 0


def test_features_of_other_scales_are_noted_and_pixels_are_not(tmp_path):
    x, names = X.copy(), np.array(["a", "b", "c"])
    assert not data.scale_note(load(saved(tmp_path, x=x * [1, 20, -1, 0], y=names[Y])))
    note = data.scale_note(load(saved(tmp_path, x=x * [1, 300, 1, 0], y=names[Y])))
    assert "(x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9)" in note
    pixels = np.zeros((30, 100))
    pixels[:, :60], pixels[3, 99] = np.arange(30)[:, None] / 30, 1 / 255
    assert not data.scale_note(load(saved(tmp_path, x=pixels, y=Y)))


# tables -----------------------------------------------------------------------------------------

ROWS = [f"{a},{b}" for a, b in X[:, :2].round(3).tolist()]
LABELS = [["owl", "elk", "emu"][k] for k in Y]


def table(tmp_path, *lines, encoding="utf-8"):
    path = tmp_path / "own.csv"
    path.write_bytes("\n".join(lines).encode(encoding))
    return str(path)


def first(*columns):
    return [",".join(cells) for cells in zip(*columns, strict=True)]


TABLES = {
    "last": (["u,v,kind", *first(ROWS, LABELS)], "utf-8"),
    "named": (["Species,v,kind", *first(LABELS, ROWS)], "utf-8"),
    "no names": (first(ROWS, LABELS), "utf-8"),
    "numbers for names": (["0,1,2", *first(ROWS, LABELS)], "utf-8"),
    "one number is a name": (["0,1,label", *first(ROWS, LABELS)], "utf-8"),
    "Excel": (
        ["u;v;class", *(r.replace(",", ";") for r in first(ROWS, LABELS)), ";;"],
        "utf-8-sig",
    ),
    "tabs, spaces": (["u\t v\t y", *(r.replace(",", "\t ") for r in first(ROWS, LABELS))], "utf-8"),
    "quotes": (['"u","v","y"', *first(ROWS, [f'"{name}"' for name in LABELS]), ""], "utf-8"),
}


@pytest.mark.parametrize(("lines", "encoding"), TABLES.values(), ids=TABLES)
def test_a_table_is_a_dataset(tmp_path, lines, encoding):
    dataset = load(table(tmp_path, *lines, encoding=encoding))
    assert_dataset(dataset)
    assert (dataset.name, dataset.classes) == ("own", ("elk", "emu", "owl"))
    same = load(saved(tmp_path, x=X[:, :2].round(3), y=np.array(LABELS)))
    for one, other in zip(dataset[1:5], same[1:5], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ("0 1 2", ()),
        ("0.0 1.0 2.0", ()),
        ("1 2 10", ("1", "2", "10")),
        ("-1 1 7", ("-1", "1", "7")),
    ],
)
def test_a_table_s_numbers_are_names_in_their_order(tmp_path, labels, classes):
    dataset = load(table(tmp_path, *first(ROWS, [labels.split()[k] for k in Y])))
    assert dataset.classes == classes
    assert dataset.y_train[:9].max() == 2 and np.bincount(dataset.y_train).tolist() == [8, 8, 8]


def with_line(line, n=4):
    lines = ["u,v,kind", *first(ROWS, LABELS)]
    return [*lines[: n - 1], line, *lines[n - 1 :]]


BAD_TABLES = {
    "missing": (with_line(",2,owl"), "line 4, column 'u' holds no value; fill it"),
    "NA": (with_line("1,NA,owl"), "line 4, column 'v' holds no value; fill it"),
    "text": (with_line("1,red,owl"), "line 4, column 'v' holds 'red', no number; encode it"),
    "infinity": (with_line("1,inf,owl"), "line 4, column 'v' holds 'inf', no number"),
    "no label": (with_line("1,2,"), "line 4, column 'kind' holds no label; add it"),
    "a long label": (with_line("1,2," + "owl " * 99), "a text of 395 characters"),
    "short": (with_line("1,owl"), "line 4 has 2 cells, the first has 3; mend it"),
    "long": (with_line("1,2,owl,"), "line 4 has 4 cells, the first has 3"),
    "one class": (first(ROWS, ["owl"] * 30), "one class only"),
    "an index": ([",u,kind", *first(ROWS, LABELS)], "column 1 has no name; leave it out"),
    "regression": (first(ROWS, [f"{v}" for v in X[:, 0]]), "this looks like regression"),
    "one column": (LABELS, "has no two columns"),
    "nothing": ([], "has no two columns"),
    "names alone": (["u,v,kind"], "holds no samples"),
    "a rare class": (with_line("1,2,yak"), "class 'yak' has test samples"),
}


@pytest.mark.parametrize(("lines", "why"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_what_is_no_table_is_refused_by_line_and_column(tmp_path, lines, why):
    source = table(tmp_path, *lines)
    message = refusal(load, source)
    assert message.startswith(f"{source}: ") and why in message


def test_a_table_that_cannot_be_read(tmp_path):
    assert "no text in UTF-8" in refusal(load, table(tmp_path, "u,é", "1,2", encoding="latin-1"))
    assert "cannot be read (No such file" in refusal(load, str(tmp_path / "none.csv"))
    (tmp_path / "folder.csv").mkdir()
    assert "cannot be read (Is a directory)" in refusal(load, str(tmp_path / "folder.csv"))


@FUZZ
@given(EDITS, CUT)
def test_a_fuzzed_table_is_a_dataset_or_refused(tmp_path, edits, cut):
    path = tmp_path / "own.csv"
    path.write_bytes(mutated("\n".join(["u,v,kind", *first(ROWS, LABELS)]).encode(), edits, cut))
    try:
        dataset = bounded(load, str(path))
    except GLRError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        assert_dataset(dataset)


def test_npz_too_large_in_all(tmp_path, monkeypatch):
    source = saved(tmp_path, x=X, y=Y)
    n_bytes = len(npy_bytes(X)) + len(npy_bytes(Y))
    monkeypatch.setattr(data, "MAX_NPZ_BYTES", n_bytes)
    assert_dataset(load(source))
    monkeypatch.setattr(data, "MAX_NPZ_BYTES", n_bytes - 1)
    assert f"{n_bytes} bytes unpacked, more than {n_bytes - 1}" in refusal(load, source)


NPZ_SEEDS = [
    npz_bytes(np.savez, x=X[:12], y=Y[:12]),
    npz_bytes(np.savez_compressed, x=X[:12], y=Y[:12], x_test=X[:3], y_test=Y[:3]),
]


@FUZZ
@given(st.sampled_from(NPZ_SEEDS), EDITS, CUT)
@example(NPZ_SEEDS[0], [], None)
def test_fuzzed_npz_is_a_dataset_or_refused(tmp_path, seed, edits, cut):
    path = tmp_path / "own.npz"
    path.write_bytes(mutated(seed, edits, cut))
    try:
        dataset = bounded(load, str(path))
    except GLRError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        assert_dataset(dataset)
