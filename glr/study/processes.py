"""A script as a process that ends when the one that started it does, here or on a cluster's worker.

Workers are sent these functions, so they need Python and Dask alone. The process itself is this
file: python processes.py script.py flags.
"""

from __future__ import annotations

import io
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

POLL_SECONDS = 0.1  # until a run that is no longer wanted is ended
Outcome = tuple[dict[str, bytes], str]  # files by name, and a complaint, "" where all went well


def script_process(root: Path, words: Sequence[str], **options: object) -> subprocess.Popen:
    """The process of a script and its flags, which ends when this one does; root has glr/."""
    here = str(root / "glr" / "study" / "processes.py")
    return subprocess.Popen([sys.executable, here, *words], stdin=subprocess.PIPE, **options)


def outcome(
    root: Path, words: Sequence[str], is_wanted: Callable[[], bool], **options: object
) -> Outcome:
    """What a training script writes, and the last line of its complaint if it fails.

    is_wanted : asked all the time; the run is ended where it says no. The rest as `script_process`
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as stderr:
        streams = {"stdout": subprocess.DEVNULL, "stderr": stderr}
        words = [*words, "--models-dir", folder]
        with script_process(root, words, **streams, **options) as process:
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
                if not is_wanted():
                    process.kill()
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        stderr.seek(0)
        says = stderr.read().decode(errors="replace").strip()
    says = (says or f"ended with status {process.returncode}").splitlines()[-1]
    return files, says.removeprefix(f"{Path(words[0]).name}: ") if process.returncode else ""


def outcome_away(archives: Sequence[bytes], words: Sequence[str]) -> Outcome:
    """As `outcome`, of a script in zip archives; paths in its flags are from where they unpack."""
    with tempfile.TemporaryDirectory() as folder:
        for archive in archives:
            zipfile.ZipFile(io.BytesIO(archive)).extractall(folder)
        home = Path(folder).resolve()
        files, says = outcome(home, words, is_task_wanted, cwd=home)
    return files, says.replace(f"{home}{os.sep}", "")


def is_task_wanted() -> bool:
    """Whether the task of this thread is still wanted: its client or the scheduler may be gone."""
    from distributed import get_worker  # noqa: PLC0415  (workers have it)

    worker = get_worker()
    task = worker.state.tasks.get(worker.get_current_task())
    is_open = worker.status.name not in ("closing", "closed", "failed")
    return is_open and task is not None and task.state != "cancelled"


def end_with_parent() -> None:
    """End this process as soon as the other end of its standard input is closed."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.argv = sys.argv[1:]
    home, script = Path(__file__).resolve().parents[2], Path(sys.argv[0]).resolve()
    sys.path[:1] = [str(home), str(script.parent)]  # a script without an install finds glr here
    runpy.run_path(sys.argv[0], run_name="__main__")
