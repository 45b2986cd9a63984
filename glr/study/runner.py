"""Runs another script until its own standard input is closed: python runner.py script.py flags.

The process that started it holds the other end, which is closed however that ends.
"""

import os
import runpy
import sys
import threading
from pathlib import Path


def end_with_parent() -> None:
    """End this process as soon as the other end of its standard input is closed."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.argv = sys.argv[1:]
    root, script = Path(__file__).resolve().parents[2], Path(sys.argv[0]).resolve()
    sys.path[:1] = [str(root), str(script.parent)]  # a script without an install finds glr here
    runpy.run_path(sys.argv[0], run_name="__main__")
