"""Places that cannot be written: refused before the work where that can be known, and no loss."""

import os
import re
import resource
import subprocess
from pathlib import Path

import pytest
from processes import assert_same_run, assert_whole, command, run

from glr.errors import GLRError
from glr.robustness.evaluation import results_dir
from glr.scripts.constants import constants_of, script_constants
from glr.scripts.plots import optional_picture
from glr.storage.files import check_writable, write_whole
from glr.study import pages

WORDS = ("--steps", 150, "--eval-every", 50)
NAME = "LRS_digits_seed0"
ENDINGS = ("npz", "csv", "png", "checkpoint")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "file"
    write_whole(path, lambda file: file.write(b"old"))

    def fails(file):
        file.write(b"new, and half of it")
        raise OSError(28, "No space left on device")

    with pytest.raises(GLRError, match="No space left"):
        write_whole(path, fails)
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    with pytest.raises(GLRError, match="cannot be written"):
        write_whole(path.parent, lambda file: file.write(b"a folder is in the way"))
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_file_has_the_permissions_that_the_user_gives(tmp_path):
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        write_whole(path, lambda file: file.write(b"x"))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_place_is_tried_without_a_trace(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"mine")
    check_writable(path)
    assert path.read_bytes() == b"mine"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    with pytest.raises(GLRError, match="a folder is in its place"):
        check_writable(tmp_path)


def assert_refused(ran, path):
    """One line that names the path and says what to do, status 2, and no step taken."""
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert f"{path}: cannot be written (" in line
    assert line.endswith("; choose another folder")
    assert ran.stdout == ""


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_folder_in_the_place_of_a_file(tmp_path, ending):
    path = tmp_path / f"{NAME}.{ending}"
    path.mkdir()
    assert_refused(run("LRS.py", *WORDS, "--models-dir", tmp_path), path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_place_of_a_folder(tmp_path):
    folder = tmp_path / "models"
    folder.write_text("mine")
    assert_refused(run("LRS.py", *WORDS, "--models-dir", folder), folder / f"{NAME}.npz")
    assert folder.read_text() == "mine"


@pytest.mark.parametrize("below", ["", "a/b"])
def test_what_stands_in_the_place_of_a_folder_is_named(below, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for place, what in (("file", "is no folder"), ("link", "is a link to what is not there")):
        path, way = tmp_path / place / below / "x.npz", re.escape(f"({tmp_path / place} {what})")
        with pytest.raises(GLRError, match=f"cannot be written {way}; choose another folder$"):
            check_writable(path)
    assert len(list(tmp_path.rglob("*"))) == 2


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    """In variables of the environment, in flags and in constants: quotes keep it from the shell."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in ("DATA", "MODELS", "RESULTS"):
        monkeypatch.setenv(f"GLR_{place}_DIR", f"~/{place}")
    assert results_dir() == tmp_path / "RESULTS"
    words = ["--dataset", "~/x.npz"]
    for flags, data, models in (
        ([], "DATA", "MODELS"),
        (["--models-dir", "~/m", "--data-dir=~/d"], "d", "m"),
    ):
        c = constants_of("LRS.py", [*words, *flags])
        places = [str(tmp_path / name) for name in (data, models, "x.npz")]
        assert [str(c.DATA_DIR), str(c.MODELS_DIR), c.DATASET] == places
    for script, name in (
        ("study", "DATASETS"),
        ("testAdv", "MODELS"),
        ("testAdv", "FUNCTIONS"),
        ("generate_adv", "TARGET"),
    ):
        path = command(f"{script}.py")[1]
        value = ("~/one.npz", "two.npz") if name in ("DATASETS", "MODELS") else "~/one.npz"
        found = script_constants({"__file__": path, "__doc__": "", name: value}, [])
        expanded = str(tmp_path / "one.npz")
        wanted = (expanded, "two.npz") if isinstance(value, tuple) else expanded
        assert getattr(found, name) == wanted
    with pytest.raises(GLRError, match=f"^{tmp_path}/no.npz: "):
        constants_of("LRS.py", ["--like", "~/no.npz"])
    assert tmp_path / "m" == constants_of("LRS.py", ["--models-dir", "$HOME/m"]).MODELS_DIR
    for word in ("~nobody-here/m", ""):
        with pytest.raises(GLRError, match=f"^'{word}': no such folder can be meant"):
            constants_of("LRS.py", ["--models-dir", word])


@pytest.fixture
def read_only(tmp_path):
    """A folder in which nobody can make a file, not even root."""
    folder = tmp_path / "read_only"
    folder.mkdir(mode=0o500)
    folder = Path("/proc/self") if os.access(folder, os.W_OK) else folder
    if not folder.is_dir():
        pytest.skip("root can write everywhere here")
    return folder


def test_a_read_only_folder(read_only):
    ran = run("LRS.py", *WORDS, "--models-dir", read_only / "models")
    assert_refused(ran, read_only / "models" / f"{NAME}.npz")


@pytest.mark.parametrize(
    ("script", "place", "file"),
    [
        ("noise_generate_adv.py", "DATA", "digits/adversarial/gaussian_noise.npz"),
        ("testAdv.py", "RESULTS", "digits.csv"),
    ],
)
def test_samples_and_results_in_a_read_only_folder(script, place, file, read_only, tmp_path):
    places = {f"GLR_{name}_DIR": str(tmp_path / name) for name in ("DATA", "MODELS", "RESULTS")}
    subprocess.run(command("LRS.py", *WORDS), env={**os.environ, **places}, check=True)
    if script == "testAdv.py":
        made = command("noise_generate_adv.py")
        subprocess.run(made, env={**os.environ, **places}, check=True)
    places[f"GLR_{place}_DIR"] = str(read_only / "made")
    ran = subprocess.run(
        command(script), env={**os.environ, **places}, text=True, capture_output=True, check=False
    )
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert f"{read_only / 'made' / file}: cannot be written (" in line


def limited(n_bytes, *words):
    """The finished process of LRS.py on a disk that takes files of n_bytes at most."""
    return subprocess.run(
        command("LRS.py", *WORDS, *words),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes)),
        text=True,
        capture_output=True,
        check=False,
    )


def test_a_disk_that_is_full_at_the_first_checkpoint(tmp_path):
    assert run("LRS.py", *WORDS, "--models-dir", tmp_path).returncode == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ran = limited(10_000, "--seed", 0, "--models-dir", tmp_path)
    assert ran.returncode == 2
    (line,) = [line for line in ran.stderr.splitlines() if "cannot be written" in line]
    assert f"{tmp_path / NAME}.checkpoint: cannot be written (File too large); free " in line
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def assert_kept_without_a_picture(ran, folder):
    """The run has ended well, with model and history; the last line says what was not drawn."""
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("no picture: ")
    assert sorted(path.name for path in folder.iterdir()) == [f"{NAME}.csv", f"{NAME}.npz"]


def test_a_disk_that_is_full_at_the_end_costs_no_step(tmp_path):
    """There is room for the checkpoint of the last step and the model, but not for the picture."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run("LRS.py", *WORDS, "--models-dir", whole).returncode == 0
    ran = limited((whole / f"{NAME}.png").stat().st_size - 1, "--models-dir", parts)
    assert_kept_without_a_picture(ran, parts)
    (line,) = ran.stderr.splitlines()
    assert f"{NAME}.png: cannot be written (File too large)" in line
    assert_same_run(parts, whole, NAME)


SETTINGS = {  # of Matplotlib's, by the user: the variable MPLBACKEND, and a file matplotlibrc
    "notebook": ("module://matplotlib_inline.backend_inline", ""),
    "no such backend": ("nonsense", ""),
    "no TeX": ("", "text.usetex: True"),
    "other style": ("", "savefig.format: eps\nsavefig.dpi: 1"),
}


@pytest.mark.parametrize(("backend", "matplotlibrc"), SETTINGS.values(), ids=SETTINGS)
def test_a_picture_is_drawn_whatever_the_settings(backend, matplotlibrc, tmp_path):
    (tmp_path / "matplotlibrc").write_text(matplotlibrc)
    env = {**os.environ, "PATH": "", "MPLBACKEND": backend}
    ran = run("LRS.py", *WORDS, "--models-dir", tmp_path / "m", cwd=tmp_path, env=env)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(list((tmp_path / "m").iterdir())) == 3
    assert_whole(tmp_path / "m")


@pytest.mark.parametrize(
    ("name", "content"),
    [("matplotlibrc", b"font.family: \xff"), ("matplotlib.py", b"raise ImportError('no more')")],
)
def test_what_matplotlib_cannot_be_imported_for_costs_the_picture_alone(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = run("LRS.py", *WORDS, "--models-dir", tmp_path / "m", cwd=tmp_path, env=env)
    assert_kept_without_a_picture(ran, tmp_path / "m")


def test_a_picture_that_cannot_be_drawn_is_one_line_after_the_page(tmp_path, monkeypatch, capsys):
    """Whatever Matplotlib raises: of the tables of compare, whitebox and study."""
    monkeypatch.setenv("GLR_RESULTS_DIR", str(tmp_path))

    def draw(path):
        assert (tmp_path / "whitebox.md").read_text() == "the table\n"
        raise RuntimeError(f"no font\nfor {path.name}")

    pages.write_page(pages.Page("whitebox"), "the table", draw)
    assert capsys.readouterr().err == "no picture: RuntimeError: no font for whitebox.png\n"
    with pytest.raises(KeyboardInterrupt), optional_picture():
        raise KeyboardInterrupt


@pytest.mark.parametrize("script", ["noise_generate_adv.py", "testAdv.py"])
def test_a_damaged_matplotlib_costs_other_scripts_the_picture_alone(script, tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('no more')")
    places = {f"GLR_{name}_DIR": str(tmp_path / name) for name in ("DATA", "RESULTS")}
    ran = run(script, env={**os.environ, **places, "PYTHONPATH": str(tmp_path)})
    assert (ran.returncode, ran.stderr) == (0, "no picture: ImportError: no more\n")
    assert list(tmp_path.rglob("contrast.npz" if script[0] == "n" else "digits.md"))
