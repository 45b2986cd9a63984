"""What is said where a function of the user's raises: in one line its place, error, arguments."""

from __future__ import annotations

import sysconfig
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from glr.errors import GLRError

GLR = Path(__file__).resolve().parents[1]
PYTHON = Path(sysconfig.get_path("stdlib")).resolve()
PACKAGES = ("site-packages", "dist-packages")
NO_FUNCTIONS = ("main", "<module>")  # of a script, which calls glr, and not the reverse


@contextmanager
def own_errors() -> Iterator[None]:
    """Make a GLRError of what a function of the user's raises within, called by glr."""
    try:
        yield
    except (GLRError, MemoryError, BrokenPipeError):
        raise
    except Exception as error:  # of someone's code: anything
        said = own_error(error)
        if not said:
            raise
        raise GLRError(f"{said}; mend it there") from error


def own_error(error: BaseException) -> str:
    """The error, where the user's code raised it and with what arguments; "" if it did not."""
    called, line, by_glr = None, 0, False
    for frame, number in traceback.walk_tb(error.__traceback__):
        path = Path(frame.f_code.co_filename).resolve()
        is_file = not path.name.startswith("<")  # as <frozen runpy> does
        is_own = is_file and PYTHON not in path.parents and not {*PACKAGES} & {*path.parts}
        if GLR in path.parents:
            by_glr = True
        elif frame.f_code.co_name in NO_FUNCTIONS:
            by_glr, called = False, None
        elif by_glr and is_own:
            called, line, file = called or frame, number, path
    if called is None:
        return ""
    said = textwrap.shorten(str(error).strip().partition("\n")[0], 300, placeholder=" …")
    return f"{type(error).__name__}: {said} ({file}, line {line}, in {call_of(called)})"


def call_of(frame: FrameType) -> str:
    """The call of a frame, in words: bad(v float32 (50, 2, 128))."""
    names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
    given = (f"{name} {shown(frame.f_locals.get(name))}" for name in names)
    return f"{frame.f_code.co_name}({', '.join(given)})"


def shown(value: object) -> str:
    """Type and shape of an array; of another value what it is, in short."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} {tuple(value.shape)}"
    return textwrap.shorten(repr(value), 40, placeholder=" …")
