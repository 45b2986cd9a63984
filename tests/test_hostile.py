"""What an operator does to a run that is under way, to its data, its model and its outputs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from processes import ROOT, command, copy_of_the_scripts, run, saved

from glr.errors import GLRError
from glr.storage.files import set_aside

OWN = "import numpy as np\n\n\ndef staircase(v):\n    return np.round(4 / (1 + np.exp(-v))) / 4\n"


@pytest.mark.parametrize("edit", ["# a remark\n" + "{}", "", None])
def test_a_script_edited_while_it_runs_records_what_it_began_with(edit, tmp_path):
    home = copy_of_the_scripts(tmp_path / "home")
    script = home / "Train&Test" / "LRS.py"
    source = script.read_text().replace("\n# -----", f"\n{OWN}\n# -----", 1)
    script.write_text(source)
    words = ("--activation", "staircase", "--steps", 300, "--eval-every", 100)
    words = (*words, "--models-dir", tmp_path)
    with subprocess.Popen(command("LRS.py", *words, home=home), stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        script.unlink() if edit is None else script.write_text(edit.format(source))
        process.stdout.read()
    assert process.returncode == 0
    first = saved(tmp_path / "LRS_digits_seed0.npz")[1]["constants"]
    script.write_text(source)
    assert run("LRS.py", *words, home=home).stderr == ""  # the same constants: nothing set aside
    assert saved(tmp_path / "LRS_digits_seed0.npz")[1]["constants"] == first


def test_changed_data_are_trained_on_again(tmp_path, monkeypatch):
    monkeypatch.setenv("GLR_RESULTS_DIR", str(tmp_path / "results"))
    rng, y = np.random.default_rng(0), np.arange(400) % 2
    words = ("--dataset", tmp_path / "toy.npz", "--validation", 100, "--models-dir", tmp_path)
    for shift in (3, 0):
        np.savez(tmp_path / "toy.npz", x=rng.random((400, 4)) + shift * y[:, None], y=y)
        ran = run("compare.py", *words, "LRS.py --steps 50")
        assert ran.returncode == 0, ran.stderr
        assert ("100.00" in ran.stdout) == (shift == 3)


def test_a_model_of_earlier_data_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GLR_RESULTS_DIR", str(tmp_path / "results"))
    rng, y = np.random.default_rng(0), np.arange(40) % 2
    places = ("--dataset", tmp_path / "toy.npz", "--models-dir", tmp_path, "--data-dir", tmp_path)
    np.savez(tmp_path / "toy.npz", x=rng.random((40, 4)), y=y)
    assert run("LRS.py", "--steps", 5, *places).returncode == 0
    evaluate = ("testAdv.py", *places, "--models", tmp_path / "LRS_toy_seed0.npz")
    assert run(*evaluate).returncode == 0
    np.savez(tmp_path / "toy.npz", x=rng.random((40, 4)), y=y)
    ran = run(*evaluate)
    assert (ran.returncode, len(ran.stderr.splitlines())) == (2, 1)
    assert "trained on other samples than toy has now" in ran.stderr


@pytest.mark.parametrize("name", ["/../../../../owned/evil", "a\nb", "x\0y"])
def test_a_model_s_name_cannot_leave_the_folder(name, tmp_path):
    arrays, metadata = saved(ROOT / "models" / "pretrained" / "LRS_digits_seed0.npz")
    metadata["constants"]["NAME"] = name
    np.savez(tmp_path / "evil.npz", **arrays, metadata=json.dumps(metadata))
    words = ("--target", tmp_path / "evil.npz", "--data-dir", tmp_path / "a" / "b")
    ran = run("generate_adv.py", *words)
    assert ran.returncode == 2
    assert "NAME" in ran.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["evil.npz"]


def test_names_of_classes_survive_and_what_is_no_better_than_one_of_them_is_said(tmp_path):
    """A table of noise, its scales apart: trained, evaluated; and trained with more steps."""
    rng, names = np.random.default_rng(0), np.array(["ant", "$bee$"])
    x, y = rng.random((200, 2)) * [1, 1000], np.arange(200) % 5 == 0
    lines = [f"{a},{b},{name}" for (a, b), name in zip(x, names[y.astype(int)], strict=True)]
    (tmp_path / "toy.csv").write_text("\n".join(["u,v,Class", *lines]))
    places = ("--dataset", tmp_path / "toy.csv", "--models-dir", tmp_path, "--data-dir", tmp_path)
    ran = run("LRS.py", "--steps", 20, *places)
    assert ran.returncode == 0
    assert re.fullmatch("note: features of toy differ in scale by a factor of 1.*\n", ran.stderr)
    assert "note: no better than to say class 'ant' always (80.00 %); try" in ran.stdout
    assert saved(tmp_path / "LRS_toy_seed0.npz")[1]["classes"] == ["$bee$", "ant"]
    env = os.environ | {"GLR_RESULTS_DIR": str(tmp_path / "results")}
    ran = run("testAdv.py", *places, env=env)
    assert ran.returncode == 0, ran.stderr
    assert "LRS of seed 0 is never right on class '$bee$'." in ran.stdout
    ran = run("LRS.py", "--steps", 30, *places, "--resume")
    assert ran.returncode == 0
    assert "the run of 20 steps there is finished, and this is another" in ran.stderr


def test_a_dollar_in_the_name_of_the_data_is_no_formula(tmp_path):
    y = np.arange(60) % 2
    np.savez(tmp_path / "from_$5_to_$6.npz", x=np.eye(2)[y], y=y)
    words = ("--dataset", tmp_path / "from_$5_to_$6.npz", "--steps", 5, "--models-dir", tmp_path)
    assert run("LRS.py", *words).returncode == 0


def test_what_is_put_aside_takes_no_place_that_is_taken(tmp_path):
    words = ("--steps", 5, "--models-dir", tmp_path)
    (tmp_path / "LRS_digits_seed0.npz.old").mkdir()
    for sigma in ("0.3", "0.4", "0.5"):
        assert run("LRS.py", *words, "--sigma", sigma).returncode == 0
    kept = [saved(tmp_path / f"LRS_digits_seed0.npz{old}")[1] for old in (".old2", ".old3", "")]
    assert [one["constants"]["SIGMA"] for one in kept] == [[0.3], [0.4], [0.5]]


def test_what_cannot_be_put_aside_ends_in_one_line(tmp_path, monkeypatch):
    """As in a folder of others, or of a file that Windows has open."""

    def refuse(path, place):
        raise PermissionError(13, "no")

    (tmp_path / "LRS.npz").touch()
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(GLRError, match=r"LRS\.npz\.old: cannot be written \(no\)"):
        set_aside(tmp_path / "LRS.npz")


def redirected(streams, words):
    """The finished process of the words, with its streams as a shell is told to have them."""
    words = ["sh", "-c", f'exec "$@" {streams}', "sh", *words]
    return subprocess.run(words, text=True, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("script", "streams"),
    [
        ("LRS.py", ">&-"),
        ("LRS.py", "2>&-"),
        ("LRS.py", "<&- >&- 2>&-"),
        ("BP.py", "2>&-"),
        ("BP.py", "<&- >&- 2>&-"),
    ],
)
def test_a_closed_stream_is_no_reason_to_stop(script, streams, tmp_path):
    ran = redirected(streams, command(script, "--steps", 5, "--models-dir", tmp_path))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("script", ["noise_generate_adv.py", "testAdv.py"])
def test_a_closed_stream_stops_no_other_script(script, tmp_path, monkeypatch):
    monkeypatch.setenv("GLR_RESULTS_DIR", str(tmp_path))
    ran = redirected("<&- >&- 2>&-", command(script, "--data-dir", tmp_path))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert list(tmp_path.rglob("*.png"))


def test_what_is_written_to_a_closed_stream_gets_into_no_file():
    """The first file that is opened would take the number of the stream."""
    code = (
        "import os, subprocess, sys, tempfile\n"
        "from glr.scripts.console import one_line_errors\n"
        "with one_line_errors(), tempfile.TemporaryFile() as file:\n"
        "    print('lost', file=sys.stderr)\n"
        "    os.write(2, b'lost')\n"
        "    subprocess.run(['sh', '-c', 'echo lost >&2 && echo kept'], check=True)\n"
        "    print(file.fileno() > 2, os.fstat(file.fileno()).st_size, sys.stdin.read())\n"
    )
    ran = redirected("<&- 2>&-", ["env", f"PYTHONPATH={ROOT}", sys.executable, "-c", code])
    assert ran.stdout == "kept\nTrue 0 \n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_under_the_output_is_one_line(tmp_path):
    words = command("LRS.py", "--steps", 5, "--models-dir", tmp_path)
    ran = redirected(">/dev/full", words)
    says = "LRS.py: its output cannot be written (No space left on device)\n"
    assert (ran.returncode, ran.stderr) == (2, says)
    assert redirected(">/dev/full 2>/dev/full", words).returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_note_that_cannot_be_written_costs_no_model(tmp_path):
    """The first run has nothing to say; the second, that it puts another model aside."""
    for steps, status in ((5, 0), (6, 2)):
        words = command("LRS.py", "--steps", steps, "--models-dir", tmp_path)
        assert redirected("2>/dev/full", words).returncode == status
        _, metadata = saved(tmp_path / "LRS_digits_seed0.npz")
        assert metadata["constants"]["STEPS"] == steps
    assert not list(tmp_path.glob("*.checkpoint"))


def test_a_reader_that_goes_away_stops_a_run_which_keeps_its_state(tmp_path):
    """As `| head -1` does."""
    words = command("LRS.py", "--checkpoint-every", 100, "--models-dir", tmp_path)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        complaint = process.stderr.read().decode()
    state = f"an earlier state is in {tmp_path / 'LRS_digits_seed0.checkpoint'}"
    assert process.returncode == 2
    how = "the same command with --resume continues it"
    assert complaint == f"{state}; {how}\nLRS.py: its output was closed; stopped\n"


@pytest.mark.parametrize("name", ["BATCH_SIZE", "REPLICATES"])
def test_a_script_that_lacks_a_constant_says_which(name, tmp_path):
    """One that the run looks up, and one that main() does."""
    home = copy_of_the_scripts(tmp_path / "home")
    script = home / "Train&Test" / "LRS.py"
    script.write_text(script.read_text().replace(f"\n{name} = ", "\n_ = "))
    ran = run("LRS.py", "--models-dir", tmp_path, home=home)
    assert (ran.returncode, len(ran.stderr.splitlines())) == (2, 1)
    assert f"has no constant {name}" in ran.stderr


def test_another_name_that_is_not_there_is_a_bug_with_its_traceback(tmp_path):
    home = copy_of_the_scripts(tmp_path / "home")
    script = home / "Train&Test" / "LRS.py"
    script.write_text(script.read_text().replace("rng=run.rng", "rng=run.generator"))
    ran = run("LRS.py", "--models-dir", tmp_path, home=home)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith("AttributeError: 'Run' object has no attribute")


@pytest.mark.parametrize(
    "variants", [" ", "LRS.py --name A", "LRS.py --seed 3", "LRS.py --validation 0"]
)
def test_variants_that_choose_what_is_chosen_for_all_are_refused(variants, tmp_path):
    words = ("--dataset", "digits", "--validation", 9, "--models-dir", tmp_path)
    ran = run("compare.py", *words, variants)
    assert (ran.returncode, len(ran.stderr.splitlines())) == (2, 1)
