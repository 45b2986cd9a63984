HEADER

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


