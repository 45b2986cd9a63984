"""What a script meets at the terminal: errors in one line, and signals that ask it to stop."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from glr.errors import GLRError
from glr.scripts.constants import KINDS
from glr.scripts.own_code import own_errors

if TYPE_CHECKING:
    from tqdm import tqdm

# A full disk, a quota, a file size limit, a terminal that is gone, a reader that has read enough.
OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE)
BAR = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}, {remaining} left"


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Show a GLRError as one line and end with its status.

    A character that the terminal's encoding lacks is shown as a question mark. A standard stream
    that is closed is the null device: files would take its number, and get what is written to it.
    """
    open_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        try:
            with own_errors():
                yield
        finally:  # after -h, too
            sys.stdout.flush()
    except GLRError as error:
        end(str(error), error.status)
    except MemoryError as error:
        end(f"not enough memory ({error}); make the network, the batch or the data set smaller")
    except KeyboardInterrupt as interrupt:
        end(f"interrupted; {str(interrupt) or 'start it again'}", 130)
    except OSError as error:
        if error.filename is not None:
            end(f"{error.filename}: {error.strerror}; see that it is there, and open to you")
        if error.errno not in OUTPUT_ERRORS:
            raise
        if error.errno == errno.EPIPE:
            end("its output was closed; stopped")
        end(f"its output cannot be written ({error.strerror})")
    except ImportError as error:
        end(f"{error}; pip install -r requirements.txt")
    except (AttributeError, NameError) as error:
        if error.name not in KINDS:
            raise
        end(f"has no constant {error.name}; state it at the top, as the scripts beside it do")


def open_streams() -> None:
    """Put the null device in the place of every standard stream that is closed."""
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest number that is free
        os.set_inheritable(spare, True)
    os.close(spare)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, errors="replace", closefd=False))


def end(complaint: str, status: int = GLRError.status) -> NoReturn:
    """End the script with this status, and one line on stderr."""
    for stream, last in ((sys.stdout, ""), (sys.stderr, f"{Path(sys.argv[0]).name}: {complaint}")):
        try:
            print(last, end="\n" if last else "", file=stream, flush=True)
        except OSError:  # it takes no more: what is still to be flushed goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)


def progress_bar(items: Iterable | None = None, desc: str = "", **counts: int) -> tqdm:
    """Items with a bar on a terminal, or a bar alone, of 40 columns or more.

    desc : of which the first 14 characters are shown; counts : tqdm's total, and initial
    """
    from tqdm import tqdm  # noqa: PLC0415  (after -h, which it would slow)

    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    width = os.get_terminal_size(sys.stderr.fileno()).columns if is_terminal else 0
    fits = {"dynamic_ncols": True} if width else {"ncols": 80, "nrows": 24}  # some tell none
    shown = f"{desc[:14]}: " if desc else ""
    return tqdm(items, shown, bar_format=BAR, disable=not is_terminal, **fits, **counts)


def heeded(*names: str) -> list[int]:
    """The signals of these names that there are here, without those that are ignored (nohup)."""
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def stop_signals(note: Callable[[], str]) -> Iterator[list[int]]:
    """A list that gathers SIGINT (Ctrl-C), SIGTERM and SIGHUP, so that a step is finished first.

    A second Ctrl-C acts at once, and says the note; another second signal acts as usual.
    """
    received, numbers = [], heeded("SIGINT", "SIGTERM", "SIGHUP")

    def act(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(note())

    def gather(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, act if number == signal.SIGINT else usual[number])

    usual = {number: signal.signal(number, gather) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
