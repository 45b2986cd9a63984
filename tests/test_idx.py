"""The idx files of MNIST and Fashion-MNIST: found, unpacked, checked, downloaded."""

import gzip
import hashlib
import http.server
import os
import re
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from datafiles import CUT, EDITS, FUZZ, assert_dataset, bounded, mutated, refusal
from hypothesis import given

from glr.data import idx
from glr.data.datasets import load_dataset, n_classes
from glr.errors import GLRError

IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"


def idx_file(array):
    magic = 0x803 if array.ndim == 3 else 0x801
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def tiny_images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 28, 28), dtype=np.uint8)


def tiny_labels(n):
    return np.arange(n, dtype=np.uint8) % 10


FILES = {
    IMAGES: idx_file(tiny_images(12)),
    LABELS: idx_file(tiny_labels(12)),
    TEST_IMAGES: idx_file(tiny_images(5, seed=1)),
    TEST_LABELS: idx_file(tiny_labels(5)),
}
PACKED = {name: gzip.compress(raw, mtime=0) for name, raw in FILES.items()}


@pytest.fixture
def published(monkeypatch):
    """Small files that pass for the published MNIST: their sizes and checksums are expected."""
    monkeypatch.setattr(idx, "IDX_BYTES", {name: len(raw) for name, raw in FILES.items()})
    sums = {name: hashlib.sha256(raw).hexdigest() for name, raw in FILES.items()}
    monkeypatch.setattr(idx, "SHA256", {"mnist": sums, "fashion_mnist": sums})
    monkeypatch.setattr(idx, "MIRRORS", {"mnist": (), "fashion_mnist": ()})
    return FILES


def put(folder, files, packed=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(raw) if packed else raw)


def listing(folder):
    return sorted(path.name for path in folder.rglob("*"))


# one file ---------------------------------------------------------------------------------------


@FUZZ
@given(EDITS, CUT)
def test_fuzzed_gzip_is_read_or_refused(tmp_path, published, edits, cut):
    path = tmp_path / f"{LABELS}.gz"
    path.write_bytes(mutated(PACKED[LABELS], edits, cut))
    try:
        read = bounded(idx.published_bytes, "mnist", LABELS, path)
    except GLRError as error:
        assert str(error).startswith(str(path))
    else:
        assert read == published[LABELS]


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


OTHERS = {
    "points": "mnist/{dotted}",
    "Kaggle's": "mnist/archive/{name}/{name}",
    "capitals": "MNIST/{dotted}.GZ",
    "torchvision's": "MNIST/raw/{name}.gz",
    "torchvision's, below": "mnist/MNIST/raw/{name}",
}


@pytest.mark.parametrize("pattern", OTHERS.values(), ids=OTHERS)
def test_idx_files_as_others_name_them(tmp_path, published, pattern):
    for name, raw in published.items():
        path = tmp_path / pattern.format(name=name, dotted=name.replace("-idx", ".idx"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PACKED[name] if path.suffix.lower() == ".gz" else raw)
    before = listing(tmp_path)
    assert_dataset(load_dataset("mnist", tmp_path))
    assert listing(tmp_path) == before


@pytest.mark.parametrize("folder", ["FashionMNIST/raw", "fashion-mnist/data/fashion"])
def test_fashion_mnist_s_folder_as_others_name_it(tmp_path, published, folder):
    put(tmp_path / folder, published)
    assert_dataset(load_dataset("fashion_mnist", tmp_path))


def test_unpacked_file_that_kept_its_gz(tmp_path, published):
    put(tmp_path / "mnist", published)
    (tmp_path / "mnist" / f"{LABELS}.gz").write_bytes(published[LABELS])
    assert_dataset(load_dataset("mnist", tmp_path))


BAD_FILES = {
    "cut": (IMAGES, PACKED[IMAGES][:-100], "truncated"),
    "CRC": (IMAGES, PACKED[IMAGES][:-8] + bytes(8), "CRC"),
    "stream": (LABELS, PACKED[LABELS][:10] + b"\x07" + PACKED[LABELS][11:], "damaged gzip"),
    "exchanged": (IMAGES, PACKED[LABELS], "not the train-images"),
    "counts": (LABELS, gzip.compress(idx_file(tiny_labels(11))), "SHA-256"),
    "content": (IMAGES, gzip.compress(idx_file(tiny_images(12, seed=9))), "SHA-256"),
    "longer": (IMAGES, gzip.compress(FILES[IMAGES] + b"\0"), "SHA-256"),
    "web page": (IMAGES, b"<!DOCTYPE html><html></html>", "SHA-256"),
    "nothing": (LABELS, b"", "SHA-256"),
}


@pytest.mark.parametrize(("name", "content", "why"), BAD_FILES.values(), ids=BAD_FILES)
def test_one_bad_file_in_the_folder(tmp_path, published, name, content, why):
    put(tmp_path / "mnist", published)
    path = tmp_path / "mnist" / f"{name}.gz"
    path.write_bytes(content)
    message = refusal(load_dataset, "mnist", tmp_path)
    assert message.startswith(f"{path}: ") and why in message
    assert "delete it and run again to download it afresh" in message
    assert path.read_bytes() == content  # never deleted for the user


def test_test_set_under_the_name_of_the_training_set(tmp_path, published):
    files = {IMAGES: published[TEST_IMAGES], LABELS: published[TEST_LABELS]}
    put(tmp_path / "mnist", published | files)
    message = refusal(load_dataset, "mnist", tmp_path)
    assert IMAGES in message and "SHA-256" in message


def test_gzip_bomb_is_cut(tmp_path):
    path = tmp_path / IMAGES
    path.write_bytes(gzip.compress(bytes(10**7)))
    with path.open("rb") as file:
        assert len(idx.unpacked(file, 1000)) == 1001


def test_folder_under_the_name_of_a_file(tmp_path, published):
    put(tmp_path / "mnist", published)
    path = tmp_path / "mnist" / f"{IMAGES}.gz"
    path.unlink()
    path.mkdir()
    message = refusal(load_dataset, "mnist", tmp_path)
    assert message.startswith(f"{path}: cannot be written (a folder is in its place)")


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
    monkeypatch.setattr(idx, "MIRRORS", {"mnist": urls, "fashion_mnist": urls})


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


BAD_PAGES = {
    "404": None,
    "empty": b"",
    "web page": b"<html>please log in</html>",
    "wrong checksum": gzip.compress(idx_file(tiny_images(12, seed=9))),
    "another file": PACKED[LABELS],
    "truncated gzip": PACKED[IMAGES][:-20],
    "damaged gzip": PACKED[IMAGES][:500] + b"garbage" + PACKED[IMAGES][507:],
    "trailing garbage": PACKED[IMAGES] + b"garbage",
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
    monkeypatch.setattr(idx, "MIRRORS", {"mnist": (f"http://127.0.0.1:{port}/",)})
    message = refusal(load_dataset, "mnist", tmp_path)
    assert "refused" in message and "--dataset digits" in message
    assert listing(tmp_path) == []


def test_mirror_that_never_answers(tmp_path, published, server, monkeypatch):
    answer = threading.Event()
    server.pages[f"/slow/{IMAGES}.gz"] = lambda handler: answer.wait(2)
    use_mirrors(monkeypatch, server, "slow")
    monkeypatch.setattr(idx, "DOWNLOAD_TIMEOUT", 0.1)
    message = refusal(load_dataset, "mnist", tmp_path)
    answer.set()
    assert "timed out" in message
    assert listing(tmp_path) == []


def test_endless_download_is_cut(tmp_path, published, server, monkeypatch):
    server.pages[f"/big/{IMAGES}.gz"] = bytes(10**6)
    use_mirrors(monkeypatch, server, "big")
    monkeypatch.setattr(idx, "MAX_DOWNLOAD_BYTES", 10**5)
    assert "wrong SHA-256" in refusal(load_dataset, "mnist", tmp_path)
    assert listing(tmp_path) == []


def test_download_into_a_folder_that_cannot_be(tmp_path, published, server, monkeypatch):
    """It is refused before anything is downloaded."""
    serve(server, "good", published)
    use_mirrors(monkeypatch, server, "good")
    monkeypatch.setattr(idx, "downloaded", None)
    (tmp_path / "file").touch()
    message = refusal(load_dataset, "mnist", tmp_path / "file")
    assert f"cannot be written ({tmp_path / 'file'} is no folder)" in message


def test_constants_describe_the_same_files():
    for source in ("mnist", "fashion_mnist"):
        assert idx.SHA256[source].keys() == idx.IDX_BYTES.keys()
        assert all(re.fullmatch("[0-9a-f]{64}", known) for known in idx.SHA256[source].values())
        assert all(re.fullmatch("https?://.*/", mirror) for mirror in idx.MIRRORS[source])


# the real MNIST ---------------------------------------------------------------------------------


DATA_DIR = Path(os.environ.get("GLR_DATA_DIR") or "data")
needs_mnist = pytest.mark.skipif(
    not (DATA_DIR / "mnist").is_dir(), reason="no MNIST: set GLR_DATA_DIR to a folder with mnist/"
)


@needs_mnist
def test_real_mnist():
    mnist = load_dataset("mnist", DATA_DIR)
    assert_dataset(mnist)
    assert mnist.x_train.shape == (60_000, 784) and mnist.x_test.shape == (10_000, 784)
    assert n_classes(mnist) == 10
    assert mnist.y_train[:3].tolist() == [5, 0, 4] and mnist.y_test[:3].tolist() == [7, 2, 1]
    assert np.bincount(mnist.y_test)[:2].tolist() == [980, 1135]
    assert mnist.x_train.min() == 0 and mnist.x_train.max() == 1
    assert abs(mnist.x_train.mean(dtype=np.float64) - 0.1307) < 1e-4  # the well-known mean


@needs_mnist
def test_real_mnist_under_the_name_of_the_other(tmp_path):
    (tmp_path / "fashion_mnist").symlink_to((DATA_DIR / "mnist").resolve())
    message = refusal(load_dataset, "fashion_mnist", tmp_path)
    assert IMAGES in message and "not the train-images-idx3-ubyte of fashion_mnist" in message
