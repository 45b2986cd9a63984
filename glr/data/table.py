"""Tables as text (.csv): a sample in each row, a feature in each column but one, the label's."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TextIO

import numpy as np

from glr.errors import GLRError

LABEL_NAMES = ("label", "labels", "class", "target", "species", "category", "y")  # the first counts
MISSING = ("", "?", "na", "n/a", "nan", "null")  # what stands where there is no value
MAX_NAME = 100  # characters of a class's name: more is no name
SEPARATORS = ",;\t"

Rows = Iterator[tuple[int, list[str]]]  # number of a line and its cells


def table_arrays(path: Path) -> dict[str, np.ndarray]:
    """Features x (N, n_in) and labels y (N,), as text, of the table at `path`; GLRError for none.

    The label's column is one of LABEL_NAMES, else the last.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return arrays_of_rows(table_rows(file))
    except UnicodeDecodeError:
        why = "no text in UTF-8; save it as CSV, in UTF-8"
    except csv.Error as error:
        why = f"no CSV ({error}); save it again"
    except OSError as error:
        why = f"cannot be read ({error.strerror or error}); check the path"
    except GLRError as error:
        why = str(error)
    raise GLRError(f"{path}: {why}")


def table_rows(file: TextIO) -> Rows:
    """The lines that are not blank; the first one tells what separates the cells."""
    first = file.readline()
    file.seek(0)
    reader = csv.reader(file, delimiter=max(SEPARATORS, key=first.count), skipinitialspace=True)
    for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells):
            yield reader.line_num, cells


def arrays_of_rows(rows: Rows) -> dict[str, np.ndarray]:
    """The arrays of table_arrays."""
    line, first = next(rows, (1, [""]))
    if len(first) < 2:
        raise GLRError("has no two columns; part features and label by commas")
    if is_header(first):
        names, labels = first, label_column(first)
    else:
        names, labels = [f"{n}" for n in range(1, len(first) + 1)], len(first) - 1
        rows = chain([(line, first)], rows)
    x, y = [], []
    for line, cells in rows:
        if len(cells) != len(names):
            counts = f"line {line} has {len(cells)} cells, the first has {len(names)}"
            raise GLRError(f"{counts}; mend it")
        y.append(label(cells.pop(labels), f"line {line}, column {names[labels]!r}"))
        x.append(numbers(cells, line, names[:labels] + names[labels + 1 :]))
    if not x:
        raise GLRError("holds no samples; add a line for each")
    return {"x": np.array(x), "y": np.array(y)}


def is_header(first: list[str]) -> bool:
    """Whether the first row names the columns: no number is in it, or a label's name, or 0, 1, …"""
    has_label = any(cell.lower() in LABEL_NAMES for cell in first)
    counts = first == [str(n) for n in range(len(first))]
    return has_label or counts or not any(is_number(cell) for cell in first)


def label_column(names: list[str]) -> int:
    """The column of the labels. GLRError for a column without a name, which pandas' index has."""
    if "" in names:
        unnamed = f"column {names.index('') + 1} has no name"
        raise GLRError(f"{unnamed}; leave it out if it numbers the rows (index=False), or name it")
    small = [name.lower() for name in names]
    named = [small.index(name) for name in LABEL_NAMES if name in small]
    return named[0] if named else len(names) - 1


def numbers(cells: list[str], line: int, names: list[str]) -> np.ndarray:
    """The features of a line; GLRError, naming its column, for a cell that is no number."""
    with suppress(ValueError):
        values = np.array([float(cell) for cell in cells])
        if np.isfinite(values).all():
            return values
    wrong, name = next(pair for pair in zip(cells, names, strict=True) if not is_number(pair[0]))
    what = f"holds {wrong[:MAX_NAME]!r}, no number"
    advice = "encode it as numbers, or leave it out; or name it label if it is the label"
    if wrong.lower() in MISSING:
        what, advice = "holds no value", "fill it, or leave out the line"
    raise GLRError(f"line {line}, column {name!r} {what}; {advice}")


def label(cell: str, place: str) -> str:
    """The label in a cell, 3 for 3.0; GLRError, naming its place, for none, and for long texts."""
    if cell.lower() in MISSING:
        raise GLRError(f"{place} holds no label; add it, or leave out the line")
    if len(cell) > MAX_NAME:
        what = f"holds a text of {len(cell)} characters"
        raise GLRError(f"{place} {what}; name the labels' column label")
    is_whole = is_number(cell) and float(cell).is_integer()
    return str(int(float(cell))) if is_whole else cell


def is_number(cell: str) -> bool:
    """Whether a cell is a finite number."""
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
