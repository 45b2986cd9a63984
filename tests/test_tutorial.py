"""docs/tutorial.ipynb runs as it stands, and prints what is printed in it."""

import os
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
PATH = ROOT / "docs" / "tutorial.ipynb"
OTHERS = ("PYTHONWARNINGS", "MPLBACKEND")  # settings of this process, not of the notebook's
NUMBER = r"-?\d+(?:\.\d+)?"


def printed(notebook):
    """What each cell prints, and how many pictures it draws."""
    found = []
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        text = "".join(output["text"] for output in outputs if output.output_type == "stream")
        pictures = sum("image/png" in output.get("data", {}) for output in outputs)
        found.append((text, pictures))
    return found


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(PATH, as_version=4)


def test_the_notebook_runs_and_prints_what_is_printed_in_it(committed, tmp_path):
    """By this Python, whatever kernels and settings the user has.

    Numbers may differ as those of another seed: rounding, which differs from machine to machine,
    changes a network of thresholds.
    """
    specs = KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True)
    manager = KernelManager(kernel_name="python3", kernel_spec_manager=specs)
    own = {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path), "MPLCONFIGDIR": str(tmp_path)}
    env = {name: value for name, value in os.environ.items() if name not in OTHERS} | own
    ran = nbformat.from_dict(committed)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(ran, km=manager, timeout=None, resources=where).execute(env=env)
    for (now, pictures), (before, pictures_before) in zip(
        printed(ran), printed(committed), strict=True
    ):
        assert re.sub(NUMBER, "#", now).split() == re.sub(NUMBER, "#", before).split()
        assert pictures == pictures_before
        numbers, wanted = (
            [float(number) for number in re.findall(NUMBER, text)] for text in (now, before)
        )
        np.testing.assert_allclose(numbers, wanted, rtol=0.25, atol=0.03)


def test_the_committed_notebook_is_complete_and_clean(committed):
    """All cells were run, in order, without warnings; there is no path of one's own."""
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert sum(pictures for _, pictures in printed(committed)) >= 3
    text = PATH.read_text(encoding="utf-8")
    assert not re.search(r"/home/|/root/|/tmp/|/usr/|C:\\\\", text)
    assert len(text) < 400_000
