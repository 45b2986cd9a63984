import gzip
import hashlib
import http.server
import io
import os
import re
import struct
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from glr import data
from glr.data import Dataset, dataset_label, hold_out, idx_array, load_dataset, n_classes
from glr.errors import GLRError

IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"

FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def idx(array, magic=None):
    magic = magic or (0x803 if array.ndim == 3 else 0x801)
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def tiny_images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 28, 28), dtype=np.uint8)


def tiny_labels(n):
    return np.arange(n, dtype=np.uint8) % 10


def tiny_files():
    """The bytes of four small idx files, by name."""
    return {
        IMAGES: idx(tiny_images(12)),
        LABELS: idx(tiny_labels(12)),
        TEST_IMAGES: idx(tiny_images(5, seed=1)),
        TEST_LABELS: idx(tiny_labels(5)),
    }


@pytest.fixture
def published(monkeypatch):
    """Small files that pass for the published MNIST: their sizes and checksums are expected."""
    files = tiny_files()
    monkeypatch.setattr(data, "IDX_BYTES", {name: len(raw) for name, raw in files.items()})
    sums = {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()}
    monkeypatch.setattr(data, "SHA256", {"mnist": sums, "fashion_mnist": sums})
    monkeypatch.setattr(data, "MIRRORS", {"mnist": (), "fashion_mnist": ()})
    return files


def put(folder, files, packed=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(raw) if packed else raw)


def refusal(call, *args):
    """The message of the GLRError that `call` raises: one line."""
    with pytest.raises(GLRError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message, "says no remedy"
    return message


def listing(folder):
    return sorted(path.name for path in folder.rglob("*"))


def assert_dataset(dataset):
    for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        assert x.dtype == np.float32 and x.ndim == 2 and x.flags.c_contiguous
        assert y.dtype == np.int64 and y.shape == (len(x),) and len(x) >= 1
        assert np.isfinite(x).all() and y.min() >= 0
    assert dataset.x_train.shape[1] == dataset.x_test.shape[1] >= 1
    assert set(dataset.y_test) <= set(dataset.y_train)


# sources and labels -----------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["digits", "mnist", "fashion_mnist"])
def test_label_of_a_shipped_set_is_its_name(source):
    assert dataset_label(source) == source


def test_label_of_an_npz_is_its_stem():
    assert dataset_label("some/where/my.cells.npz") == "my.cells"


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
        "import sys; from glr.data import load_dataset; load_dataset('digits', '.');"
        "print(sorted(set(sys.modules) & {'sklearn', 'tqdm', 'urllib.request'}))"
    )
    root = Path(data.__file__).parents[1]
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


# idx files --------------------------------------------------------------------------------------


def test_idx_array_gives_images_and_labels():
    images, labels = tiny_images(3), tiny_labels(3)
    np.testing.assert_array_equal(idx_array(idx(images), Path(IMAGES)), images)
    np.testing.assert_array_equal(idx_array(idx(labels), Path(LABELS)), labels)


@pytest.mark.parametrize(
    ("raw", "name", "why"),
    [
        (b"", IMAGES, "truncated"),
        (idx(tiny_images(2))[:15], IMAGES, "truncated"),
        (idx(tiny_images(2))[:-1], IMAGES, "truncated"),
        (idx(tiny_labels(2))[:7], LABELS, "truncated"),
        (idx(tiny_labels(2))[:-1], LABELS, "truncated"),
        (struct.pack(">4I", 0x803, 2**32 - 1, 28, 28), IMAGES, "truncated"),
        (struct.pack(">2I", 0x801, 2**32 - 1), LABELS, "truncated"),
        (idx(tiny_images(2)) + b"\0", IMAGES, "too long"),
        (idx(tiny_labels(2)) + b"\0", LABELS, "too long"),
        (idx(tiny_labels(99)), IMAGES, "holds labels, not images"),
        (idx(tiny_images(2)), LABELS, "holds images, not labels"),
        (idx(tiny_images(2), magic=0xD03), IMAGES, "magic number 0xd03"),
        (b"<!DOCTYPE html><html></html>", LABELS, "magic number"),
        (idx(np.zeros((3, 32, 32), np.uint8)), IMAGES, "32x32"),
        (idx(np.zeros((3, 2**14, 0), np.uint8)), IMAGES, "16384x0"),
        (idx(tiny_images(0)), IMAGES, "no images"),
        (idx(tiny_labels(0)), LABELS, "no labels"),
        (idx(np.array([0, 10, 3], np.uint8)), LABELS, "label 10"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_array_refuses(raw, name, why, suffix):
    path = Path("some", "where", name + suffix)
    message = refusal(idx_array, raw, path)
    assert message.startswith(f"{path}: ")
    assert why in message and "delete it and run again" in message


def mutated(seed, edits, cut):
    raw = bytearray(seed)
    for position, byte in edits:
        raw[position % len(raw)] = byte
    return bytes(raw[: cut % (len(raw) + 1)] if cut is not None else raw)


EDITS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6)
HEADER_EDITS = st.lists(st.tuples(st.integers(0, 15), st.integers(0, 255)), max_size=4)
CUT = st.none() | st.integers(0, 10**6)


@FUZZ
@given(st.sampled_from([IMAGES, LABELS]), st.sampled_from([IMAGES, LABELS]), HEADER_EDITS, CUT)
def test_fuzzed_idx_is_an_array_or_refused(content, name, edits, cut):
    raw = mutated(tiny_files()[content], edits, cut)
    try:
        array = idx_array(raw, Path(name))
    except GLRError as error:
        assert str(error).startswith(name)
    else:
        assert array.shape == ((12, 28, 28) if name == IMAGES else (12,))
        assert raw.endswith(array.tobytes())


@FUZZ
@given(EDITS, CUT)
def test_fuzzed_gzip_is_read_or_refused(tmp_path, edits, cut):
    raw = tiny_files()[LABELS]
    path = tmp_path / f"{LABELS}.gz"
    path.write_bytes(mutated(gzip.compress(raw, mtime=0), edits, cut))
    try:
        read = data.idx_bytes(path, len(raw))
    except GLRError as error:
        assert str(error).startswith(str(path))
    else:
        assert len(read) <= len(raw)


# folders of idx files ---------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("source", ["mnist", "fashion_mnist"])
def test_idx_files_found_in_the_folder(tmp_path, published, source, packed):
    put(tmp_path / source, published, packed)
    dataset = load_dataset(source, tmp_path)
    assert_dataset(dataset)
    assert dataset.name == source
    expected = tiny_images(12).reshape(12, 784).astype(np.float64) / 255
    np.testing.assert_array_equal(dataset.x_train, expected.astype(np.float32))
    np.testing.assert_array_equal(dataset.y_train, tiny_labels(12))
    assert dataset.x_test.shape == (5, 784)
    assert dataset.x_train.min() >= 0 and dataset.x_train.max() == 1


def test_unpacked_file_that_kept_its_gz(tmp_path, published):
    put(tmp_path / "mnist", published)
    (tmp_path / "mnist" / f"{LABELS}.gz").write_bytes(published[LABELS])
    assert_dataset(load_dataset("mnist", tmp_path))


def bad_file(tmp_path, published, name, content):
    """The refusal of a folder that is right but for `content` in the file `name`.gz."""
    put(tmp_path / "mnist", published)
    path = tmp_path / "mnist" / f"{name}.gz"
    path.write_bytes(content)
    message = refusal(load_dataset, "mnist", tmp_path)
    assert message.startswith(f"{path}: ")
    assert "delete it and run again to download it afresh" in message
    assert path.read_bytes() == content  # never deleted for the user
    return message


def test_truncated_gzip(tmp_path, published):
    whole = gzip.compress(published[IMAGES])
    assert "truncated" in bad_file(tmp_path, published, IMAGES, whole[:-100])


def test_gzip_with_a_wrong_crc(tmp_path, published):
    whole = bytearray(gzip.compress(published[IMAGES]))
    whole[-6] ^= 1
    assert "CRC" in bad_file(tmp_path, published, IMAGES, bytes(whole))


def test_gzip_with_a_damaged_stream(tmp_path, published):
    whole = bytearray(gzip.compress(published[LABELS]))
    whole[10] |= 6  # a block type that does not exist
    assert "damaged gzip" in bad_file(tmp_path, published, LABELS, bytes(whole))


def test_labels_under_the_name_of_the_images(tmp_path, published):
    content = gzip.compress(published[LABELS])
    assert "holds labels, not images" in bad_file(tmp_path, published, IMAGES, content)


def test_counts_that_differ(tmp_path, published):
    content = gzip.compress(idx(tiny_labels(11)))
    assert "11 labels for 12 images" in bad_file(tmp_path, published, LABELS, content)


def test_content_that_is_not_the_published_one(tmp_path, published):
    content = gzip.compress(idx(tiny_images(12, seed=9)))
    assert "SHA-256" in bad_file(tmp_path, published, IMAGES, content)


def test_longer_than_published(tmp_path, published):
    content = gzip.compress(idx(tiny_images(13)))
    assert "longer than" in bad_file(tmp_path, published, IMAGES, content)


def test_gzip_bomb_is_cut(tmp_path):
    path = tmp_path / IMAGES
    path.write_bytes(gzip.compress(bytes(10**7)))
    with path.open("rb") as file:
        assert len(data.unpacked(file, 1000)) == 1001


def test_folder_under_the_name_of_a_file(tmp_path, published):
    put(tmp_path / "mnist", published)
    path = tmp_path / "mnist" / f"{IMAGES}.gz"
    path.unlink()
    path.mkdir()
    message = refusal(load_dataset, "mnist", tmp_path)
    assert message.startswith(f"{path}: cannot be read")


# downloads --------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch):
    """A web server on this machine; put bytes (or a handler's function) in `.pages[path]`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            page = pages.get(self.path)
            if page is None:
                self.send_error(404)
            elif callable(page):
                page(self)
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

        def log_message(self, *args):
            pass

    pages, asked = {}, []
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.pages, running.asked = pages, asked
        running.url = f"http://127.0.0.1:{running.server_port}"
        yield running
        running.shutdown()
        thread.join()


def serve(server, mirror, files):
    server.pages.update({f"/{mirror}/{name}.gz": gzip.compress(raw) for name, raw in files.items()})


def use_mirrors(monkeypatch, server, *mirrors):
    urls = tuple(f"{server.url}/{mirror}/" for mirror in mirrors)
    monkeypatch.setattr(data, "MIRRORS", {"mnist": urls, "fashion_mnist": urls})


def test_download_keeps_the_four_files(tmp_path, published, server, monkeypatch):
    serve(server, "good", published)
    use_mirrors(monkeypatch, server, "good", "unused")
    folder = tmp_path / "not" / "there" / "yet"
    first = load_dataset("fashion_mnist", folder)
    assert_dataset(first)
    assert listing(folder / "fashion_mnist") == sorted(f"{name}.gz" for name in published)
    assert len(server.asked) == 4
    second = load_dataset("fashion_mnist", folder)  # from the folder
    assert len(server.asked) == 4
    np.testing.assert_array_equal(first.x_train, second.x_train)


def test_download_fetches_what_is_missing_only(tmp_path, published, server, monkeypatch):
    serve(server, "good", published)
    use_mirrors(monkeypatch, server, "good")
    put(tmp_path / "mnist", {IMAGES: published[IMAGES]}, packed=False)
    put(tmp_path / "mnist", {LABELS: published[LABELS]})
    assert_dataset(load_dataset("mnist", tmp_path))
    assert sorted(server.asked) == [f"/good/{TEST_IMAGES}.gz", f"/good/{TEST_LABELS}.gz"]


def short_body(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"\x1f\x8b\x08")


def no_http(handler):
    handler.wfile.write(b"garbage\r\n\r\n")


def bad_chunks(handler):
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"zz\r\nno hexadecimal\r\n")
    handler.close_connection = True


GOOD = gzip.compress(tiny_files()[IMAGES])
BAD_PAGES = {
    "404": None,
    "empty": b"",
    "web page": b"<html>please log in</html>",
    "wrong checksum": gzip.compress(idx(tiny_images(12, seed=9))),
    "another file": gzip.compress(tiny_files()[LABELS]),
    "truncated gzip": GOOD[:-20],
    "damaged gzip": GOOD[:500] + b"garbage" + GOOD[507:],
    "trailing garbage": GOOD + b"garbage",
    "gzip bomb": gzip.compress(bytes(10**7)),
    "short body": short_body,
    "no http": no_http,
    "bad chunks": bad_chunks,
}


@pytest.mark.parametrize("page", BAD_PAGES.values(), ids=BAD_PAGES)
def test_good_mirror_after_a_bad_one(tmp_path, published, server, monkeypatch, page):
    serve(server, "bad", published)
    serve(server, "good", published)
    server.pages[f"/bad/{IMAGES}.gz"] = page
    use_mirrors(monkeypatch, server, "bad", "good")
    assert_dataset(load_dataset("mnist", tmp_path))
    assert server.asked[:2] == [f"/bad/{IMAGES}.gz", f"/good/{IMAGES}.gz"]
    assert listing(tmp_path / "mnist") == sorted(f"{name}.gz" for name in published)


@pytest.mark.parametrize("page", BAD_PAGES.values(), ids=BAD_PAGES)
def test_bad_mirrors_leave_nothing(tmp_path, published, server, monkeypatch, page):
    server.pages.update({f"/{mirror}/{IMAGES}.gz": page for mirror in ("one", "two")})
    use_mirrors(monkeypatch, server, "one", "two")
    message = refusal(load_dataset, "mnist", tmp_path)
    assert listing(tmp_path) == []
    for said in (*published, str(tmp_path / "mnist"), "--dataset digits", "/one/", "/two/"):
        assert said in message


def test_offline(tmp_path, published, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), None) as closed:
        port = closed.server_port
    monkeypatch.setattr(data, "MIRRORS", {"mnist": (f"http://127.0.0.1:{port}/",)})
    message = refusal(load_dataset, "mnist", tmp_path)
    assert "refused" in message and "--dataset digits" in message
    assert listing(tmp_path) == []


def test_mirror_that_never_answers(tmp_path, published, server, monkeypatch):
    answer = threading.Event()
    server.pages[f"/slow/{IMAGES}.gz"] = lambda handler: answer.wait(2)
    use_mirrors(monkeypatch, server, "slow")
    monkeypatch.setattr(data, "DOWNLOAD_TIMEOUT", 0.1)
    message = refusal(load_dataset, "mnist", tmp_path)
    answer.set()
    assert "timed out" in message
    assert listing(tmp_path) == []


def test_endless_download_is_cut(tmp_path, published, server, monkeypatch):
    server.pages[f"/big/{IMAGES}.gz"] = bytes(10**6)
    use_mirrors(monkeypatch, server, "big")
    monkeypatch.setattr(data, "MAX_DOWNLOAD_BYTES", 10**5)
    assert "more than 100000 bytes" in refusal(load_dataset, "mnist", tmp_path)
    assert listing(tmp_path) == []


def test_download_into_a_folder_that_cannot_be(tmp_path, published, server, monkeypatch):
    serve(server, "good", published)
    use_mirrors(monkeypatch, server, "good")
    (tmp_path / "file").touch()
    message = refusal(load_dataset, "mnist", tmp_path / "file")
    assert str(tmp_path / "file") in message and "cannot be written" in message


def test_constants_describe_the_same_files():
    for source in ("mnist", "fashion_mnist"):
        assert data.SHA256[source].keys() == data.IDX_BYTES.keys()
        assert all(re.fullmatch("[0-9a-f]{64}", known) for known in data.SHA256[source].values())
        assert all(re.fullmatch("https?://.*/", mirror) for mirror in data.MIRRORS[source])


# the real MNIST ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist_dir():
    folder = os.environ.get("GLR_DATA_DIR")
    if not folder or not Path(folder, "mnist").is_dir():
        pytest.skip("set GLR_DATA_DIR to a folder with mnist/*-ubyte.gz to test the real MNIST")
    return Path(folder)


def test_real_mnist(mnist_dir):
    mnist = load_dataset("mnist", mnist_dir)
    assert_dataset(mnist)
    assert mnist.x_train.shape == (60_000, 784) and mnist.x_test.shape == (10_000, 784)
    assert n_classes(mnist) == 10
    assert mnist.y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.y_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(mnist.y_test)[:2].tolist() == [980, 1135]
    assert mnist.x_train.min() == 0 and mnist.x_train.max() == 1
    assert abs(mnist.x_train.mean(dtype=np.float64) - 0.1307) < 1e-4  # the well-known mean


def test_real_mnist_under_the_name_of_the_other(mnist_dir, tmp_path):
    (tmp_path / "fashion_mnist").symlink_to(mnist_dir / "mnist", target_is_directory=True)
    message = refusal(load_dataset, "fashion_mnist", tmp_path)
    assert IMAGES in message and "not the train-images-idx3-ubyte of fashion_mnist" in message


def test_real_test_set_under_the_name_of_the_training_set(mnist_dir, tmp_path):
    (tmp_path / "mnist").mkdir()
    for name in (IMAGES, LABELS):
        for end in ("", ".gz"):
            wrong = mnist_dir / "mnist" / f"{name.replace('train', 't10k')}{end}"
            if wrong.exists():
                (tmp_path / "mnist" / f"{name}{end}").symlink_to(wrong)
                (tmp_path / "mnist" / wrong.name).symlink_to(wrong)
    message = refusal(load_dataset, "mnist", tmp_path)
    assert str(tmp_path / "mnist" / IMAGES) in message and "SHA-256" in message


# npz files --------------------------------------------------------------------------------------


def toy(n=30, n_in=4, n_classes=3):
    rng = np.random.default_rng(0)
    return rng.random((n, n_in)), np.arange(n) % n_classes


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
    assert message.startswith(source) and "no such file" in message


def npy_bytes(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"PK\x03\x04 garbage", b"PK\x05\x06" + bytes(18), npy_bytes(np.ones(3))],
    ids=["empty", "garbage", "zip garbage", "empty zip", "npy"],
)
def test_npz_that_is_none(tmp_path, content):
    path = tmp_path / "own.npz"
    path.write_bytes(content)
    assert refusal(load, str(path)).startswith(f"{path}: ")


def test_npz_that_is_a_folder(tmp_path):
    (tmp_path / "own.npz").mkdir()
    assert "cannot be read" in refusal(load, str(tmp_path / "own.npz"))


def test_npz_truncated(tmp_path):
    x, y = toy()
    path = Path(saved(tmp_path, x=x, y=y))
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        assert "cannot be read as .npz" in refusal(load, str(path))


def test_npz_with_a_flipped_bit(tmp_path):
    x, y = toy()
    path = Path(saved(tmp_path, x=x, y=y))
    whole = bytearray(path.read_bytes())
    whole[whole.index(x.tobytes()) + 100] ^= 1
    path.write_bytes(whole)
    assert "CRC" in refusal(load, str(path))


X, Y = toy()
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
    "strings": ({"x": X, "y": Y.astype("U3")}, "y has type str96"),
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
    "scalar": ({"x": np.array(1.0), "y": Y}, "shape ()"),
    "no test rows": ({"x": X, "y": Y, "x_test": X[:0], "y_test": Y[:0]}, "x_test has shape (0, 4)"),
    "one class": ({"x": X, "y": Y * 0}, "one class only"),
    "one sample": ({"x": X[:1], "y": Y[:1]}, "one class only"),
    "negative": ({"x": X, "y": Y - 1}, "negative label -1"),
    "fractions": ({"x": X, "y": Y / 2}, "not whole numbers"),
    "NaN label": ({"x": X, "y": np.where(Y > 1, np.nan, Y)}, "not whole numbers"),
    "infinite label": ({"x": X, "y": np.where(Y > 1, np.inf, Y)}, "not whole numbers"),
    "huge label": ({"x": X, "y": np.where(Y > 1, 2**64 - 1, Y).astype("u8")}, "10000 or more"),
    "huge float label": ({"x": X, "y": np.where(Y > 1, 1e300, Y)}, "10000 or more"),
    "label 10000": ({"x": X, "y": np.where(Y > 1, 10_000, Y)}, "10000 or more"),
    "label gaps": ({"x": X, "y": np.where(Y > 1, 31, Y)}, "label 31 among 30 samples"),
    "one-hot": ({"x": X, "y": np.eye(3)[Y]}, "y has shape (30, 3)"),
    "new test class": ({"x": X, "y": Y, "x_test": X, "y_test": Y + 1}, "class 3 has test samples"),
    "features": ({"x": X, "y": Y, "x_test": X[:3, 1:], "y_test": Y[:3]}, "4 numbers per sample"),
    "scales": (
        {"x": X.astype("u1"), "y": Y, "x_test": X[:3], "y_test": Y[:3]},
        "x is uint8, x_test is float64",
    ),
    "two samples": ({"x": X[:2], "y": Y[:2]}, "no training sample"),
}


@pytest.mark.parametrize(("arrays", "why"), REFUSED.values(), ids=REFUSED)
def test_npz_refused(tmp_path, arrays, why):
    assert why in npz_refusal(tmp_path, **arrays)


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
def test_npz_with_a_damaged_array(tmp_path, x_npy):
    path = zipped(tmp_path, x_npy)
    assert refusal(load, str(path)).startswith(f"{path}: ")


@pytest.mark.parametrize("version", [3, 9])
def test_npz_of_an_odd_version(tmp_path, version):
    path = zipped(tmp_path, npy(shape_header("(30, 4)"), bytes(480), version))
    assert f"npy version ({version}, 0)" in refusal(load, str(path))


def test_npz_whose_header_is_a_bomb(tmp_path):
    bomb = b"\x93NUMPY\x02\x00\xff\xff\xff\x00" + b" " * 2**24
    path = zipped(tmp_path, bomb, compression=zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    refusal(load, str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21


def test_npz_whose_array_is_larger_than_its_header_says(tmp_path):
    bomb = npy(shape_header("(30, 4)"), bytes(2**24))
    path = zipped(tmp_path, bomb, compression=zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    assert "header promises 480 bytes, 16777216 follow" in refusal(load, str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21


@pytest.mark.parametrize("version", [1, 2])
def test_npz_with_a_handmade_array(tmp_path, version):
    x_npy = npy(shape_header("(30, 4)"), np.ones(120, "f4").tobytes(), version)
    assert load(str(zipped(tmp_path, x_npy))).x_train.shape == (24, 4)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_npz_with_a_compression_of_others(tmp_path, compression):
    path = zipped(tmp_path, npy_bytes(X), compression=compression)
    assert "compression" in refusal(load, str(path))


def test_npz_with_a_password(tmp_path):
    path = zipped(tmp_path, npy_bytes(X))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x03\x04") + 6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    assert "password" in refusal(load, str(path))


def test_npz_whose_directory_claims_gigabytes(tmp_path):
    path = zipped(tmp_path, npy_bytes(X))
    raw = bytearray(path.read_bytes())
    for found in re.finditer(b"PK\x01\x02", bytes(raw)):  # 4 GiB less 2 bytes for x and for y
        raw[found.start() + 24 : found.start() + 28] = b"\xfe\xff\xff\xff"
    path.write_bytes(raw)
    assert "header promises" in refusal(load, str(path))


def test_npz_whose_directory_points_at_its_end(tmp_path):
    path = zipped(tmp_path, npy_bytes(X))
    raw = bytearray(path.read_bytes())
    position = raw.index(b"PK\x01\x02") + 42
    raw[position : position + 4] = struct.pack("<I", len(raw) - 5)
    path.write_bytes(raw)
    assert "cannot be read as .npz" in refusal(load, str(path))


def test_npz_whose_directory_points_beyond_all_files(tmp_path):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy_bytes(X))
        archive.writestr("y.npy", npy_bytes(Y))
        archive.getinfo("x.npy").header_offset = 2**64 - 1
    assert "cannot be read as .npz" in refusal(load, str(path))


def test_npz_too_large_in_all(tmp_path, monkeypatch):
    source = saved(tmp_path, x=X, y=Y)
    n_bytes = len(npy_bytes(X)) + len(npy_bytes(Y))
    monkeypatch.setattr(data, "MAX_NPZ_BYTES", n_bytes)
    assert_dataset(load(source))
    monkeypatch.setattr(data, "MAX_NPZ_BYTES", n_bytes - 1)
    assert f"{n_bytes} bytes unpacked, more than {n_bytes - 1}" in refusal(load, source)


def npz_bytes(save, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


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
        dataset = load(str(path))
    except GLRError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        assert_dataset(dataset)


NPY_X = npy_bytes(X.astype(np.float32))


@FUZZ
@given(st.integers(0, 127), st.text("(){}[]'\"<>,:-1290fuiOVSTL#\\ \n", max_size=8))
@pytest.mark.filterwarnings("ignore:Reading `.npy`", "ignore:invalid escape", "ignore:.*literal")
def test_fuzzed_npy_header_is_a_dataset_or_refused(tmp_path, position, text):
    header = NPY_X[:position] + text.encode() + NPY_X[position + len(text) :]
    path = zipped(tmp_path, header)  # with a checksum that is right
    try:
        dataset = load(str(path))
    except GLRError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        assert_dataset(dataset)
