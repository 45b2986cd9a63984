"""Measured accuracies in rows, their tables beside the published ones, and what these say."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

from glr.robustness.samples import has_epsilon
from glr.storage.models import Model

GLR_ROWS = ("LRS", "LRT", "LRSZ", "LRTZ")
MAIN_ROWS = ("BP", *GLR_ROWS)  # the published table's; others are controls
MATCHED = {"LRS": "BP+L2C", "LRT": "ST+L2C"}  # GLR networks, and controls of the same constants
PUBLISHED = json.loads((Path(__file__).parent / "published.json").read_text(encoding="utf-8"))
TABLE_EPSILON = 0.1  # whose accuracies stand in the tables; the published ε is not known


class Row(NamedTuple):
    """One measurement: the share in [0, 1] of n samples that a model classifies as labelled.

    severity is 1…5 of a corruption, ε of an attack that has one, and 0 for `clean` and others.
    """

    model: str
    seed: int
    condition: str
    severity: float
    accuracy: float
    n: int


def csv_text(rows: Iterable[Row]) -> str:
    """The rows as CSV with the columns model, seed, condition, severity, accuracy, n."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(rows)
    return text.getvalue()


def read_csv(path: Path) -> list[Row]:
    """The rows that csv_text wrote."""
    types = (str, int, str, float, float, int)  # of Row's fields
    with path.open(encoding="utf-8", newline="") as file:
        _, *lines = csv.reader(file)
    return [Row(*(read(text) for read, text in zip(types, line, strict=True))) for line in lines]


def cell(
    rows: Iterable[Row], model: str, condition: str, severity: float | None = None
) -> list[float]:
    """A table's cell, seed by seed, in percent; [] if not measured: see `cell_by_seed`."""
    return list(cell_by_seed(rows, model, condition, severity).values())


def cell_by_seed(
    rows: Iterable[Row], model: str, condition: str, severity: float | None = None
) -> dict[int, float]:
    """A table's cell in percent, by seed in their order: of one severity, else the mean over all.

    The mean over ε has no sense: of an attack that has an ε, the samples of TABLE_EPSILON count.
    """
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        counts = row.severity == severity if severity is not None else not has_other_epsilon(row)
        if (row.model, row.condition) == (model, condition) and counts:
            by_seed.setdefault(row.seed, []).append(100 * row.accuracy)
    return {seed: fmean(values) for seed, values in sorted(by_seed.items())}


def has_other_epsilon(row: Row) -> bool:
    """Whether the row is of an attack with an ε, and not that of the tables."""
    return has_epsilon(row.condition) and row.severity != TABLE_EPSILON


def mean_and_spread(values: Sequence[float]) -> str:
    """Percentages as "mean ± sd", the sd over seeds where there are several; – for none."""
    if not values:
        return "–"
    mean = f"{fmean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {stdev(values):.2f}"


def published_cell(dataset: str, model: str, condition: str) -> str:
    """The published accuracy in percent, or nothing."""
    cells = PUBLISHED.get(dataset, {}).get(model, [])
    return f"{cells[PUBLISHED['columns'].index(condition)]:.2f}" if cells else ""


def present(rows: Iterable[Row]) -> tuple[list[str], list[str]]:
    """The models of the main table and the controls that were measured, each in its order."""
    names = {row.model for row in rows}
    return [n for n in MAIN_ROWS if n in names], sorted(names - set(MAIN_ROWS))


def glr_rows(rows: Iterable[Row]) -> list[str]:
    """The GLR networks that were measured, in the order of the published table."""
    names = {row.model for row in rows}
    return [name for name in GLR_ROWS if name in names]


def tables_and_sayings(rows: list[Row], dataset: str) -> tuple[dict[str, list[list[str]]], str]:
    """The tables of testAdv.py by title, those that have rows; and what they say, in paragraphs."""
    main, controls = present(rows)
    tables = {
        f"Accuracy on {dataset} in percent, noise-free; corruptions: mean of five severities": (
            table_lines(rows, dataset, main)
        ),
        "Controls": table_lines(rows, dataset, controls) if controls else [],
        "Other attacks, targets and ε": other_conditions(rows),
    }
    sayings = (
        smaller_samples(rows),
        what_published_cells_say(rows, dataset),
        what_epsilon_decides(rows, dataset),
        what_controls_say(rows),
        what_the_estimate_changes(rows),
    )
    tables = {title: lines for title, lines in tables.items() if lines}
    return tables, "\n\n".join(filter(None, sayings))


def training_lines(models: Iterable[Model]) -> list[list[str]]:
    """What the models' training reached and took; cells with a header."""
    lines = [["network", "test accuracy (%)", "seconds"]]
    for model in models:
        metrics = model.metadata["metrics"]
        accuracy, seconds = 100 * metrics["test_accuracy"], metrics["seconds"]
        lines.append([model.name, f"{accuracy:.2f}", f"{seconds:.1f}"])
    return lines


def table_lines(rows: list[Row], dataset: str, models: list[str]) -> list[list[str]]:
    """The table's cells, a header first: each model's accuracies, and the published below."""
    columns = PUBLISHED["columns"]
    lines = [["model", *columns]]
    for model in models:
        lines.append([model, *(mean_and_spread(cell(rows, model, c)) for c in columns)])
        below = [published_cell(dataset, model, c) for c in columns]
        if any(below):
            lines.append(["  published", *below])
    return lines


def variants_table(accuracies: Mapping[str, Sequence[float]], title: str) -> list[list[str]]:
    """The accuracies of variants, seed by seed, as cells with a header.

    With two seeds or more, each less the first variant's, and how likely as much is by chance: p of
    a paired t-test, since variants of one seed share held-out samples, minibatches and weights to
    begin with.
    """
    first, *_ = accuracies.values()
    lines = [["command", title, "less the first", "p"]]
    for name, values in accuracies.items():
        compared = ["", ""]
        if values is not first and len(first) > 1:
            compared = [f"{fmean(values) - fmean(first):+.2f}", f"{paired_p(values, first):.2g}"]
        lines.append([name, mean_and_spread(values), *compared])
    return lines if len(first) > 1 else [line[:2] for line in lines]


def plain_table(lines: list[list[str]]) -> str:
    """Cells in columns for a terminal."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


def markdown_table(lines: list[list[str]]) -> str:
    """Cells as a Markdown table."""
    header, *body = lines
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *body])


def other_conditions(rows: list[Row]) -> list[list[str]]:
    """What the main table has no column for: other attacks, targets and ε. Cells with a header."""
    columns = PUBLISHED["columns"]
    others = [r for r in rows if r.condition not in columns or has_other_epsilon(r)]
    kinds = sorted({(r.condition, r.severity) for r in others})
    if not kinds:
        return []
    main, controls = present(rows)
    lines = [["model", *(f"{c} ε {s:g}" if s else c for c, s in kinds)]]
    for model in main + controls:
        lines.append([model, *(mean_and_spread(cell(rows, model, *kind)) for kind in kinds)])
    return lines


def what_epsilon_decides(rows: list[Row], dataset: str) -> str:
    """At which ε of FGSM how many GLR rows surpass the published accuracy, whose ε is not known."""
    published = {name: published_cell(dataset, name, "fgsm") for name in glr_rows(rows)}
    goals = {name: float(goal) for name, goal in published.items() if goal}
    parts = []
    for epsilon in sorted({row.severity for row in rows if row.condition == "fgsm"}):
        reached = {name: fmean(cell(rows, name, "fgsm", epsilon)) for name in goals}
        above = [name for name, goal in goals.items() if reached[name] > goal]
        parts.append(f"{epsilon:g}: {len(above)} of {len(goals)}")
    if not goals or len(parts) < 2:
        return ""
    return (
        "GLR rows above the published FGSM accuracy, whose ε is not known, by the ε of ours: "
        f"{', '.join(parts)}."
    )


def smaller_samples(rows: list[Row]) -> str:
    """A note on the conditions that were measured on fewer samples than the clean accuracy."""
    n_clean = max(row.n for row in rows if row.condition == "clean")
    fewer = ", ".join(sorted({f"{row.condition} {row.n}" for row in rows if row.n < n_clean}))
    return f"Of the first samples only, not of all {n_clean}: {fewer}." if fewer else ""


def what_controls_say(rows: list[Row]) -> str:
    """FGSM accuracies less that of BP, in points: those of the GLR rows, then of the controls."""
    base = cell(rows, "BP", "fgsm")
    if not base:
        return ""
    reached = {name: cell(rows, name, "fgsm") for name in sorted({row.model for row in rows})}
    gains = {n: f"{n} {fmean(v) - fmean(base):+.1f}" for n, v in reached.items() if v}
    glr = ", ".join(gains[name] for name in glr_rows(rows) if name in gains)
    own = ", ".join(gains[n] for n in gains if n != "BP" and n.startswith(("BP", "ST")))
    return (
        f"FGSM accuracy against plain backpropagation, in points: {glr or 'no GLR row'}; "
        f"controls by backpropagation: {own or 'none trained'}."
    )


def what_the_estimate_changes(rows: list[Row]) -> str:
    """Each GLR network less its matched control in every column, with p of a paired t-test.

    Of the seeds that both were trained with; nothing of those with fewer than two.
    """
    found = []
    for name, control in MATCHED.items():
        compared = (difference(rows, (name, control), c) for c in PUBLISHED["columns"])
        if parts := ", ".join(filter(None, compared)):
            found.append(
                f"{name} less {control}, in points (p of a paired t-test over the seeds, each for "
                f"itself): {parts}."
            )
    return "\n\n".join(found)


def difference(rows: list[Row], pair: tuple[str, str], condition: str) -> str:
    """The first model's cell less the second's, and p, over the seeds of both."""
    one, other = (cell_by_seed(rows, name, condition) for name in pair)
    seeds = sorted(one.keys() & other.keys())
    if len(seeds) < 2:
        return ""
    ours, theirs = [one[seed] for seed in seeds], [other[seed] for seed in seeds]
    points = round(fmean(ours) - fmean(theirs), 2) + 0  # no −0.00
    return f"{condition} {points:+.2f} ({paired_p(ours, theirs):.2g})"


def paired_p(one: Sequence[float], other: Sequence[float]) -> float:
    """The probability that paired values of equal expectation differ as much: Student's t.

    NaN if all differences are equal: a few runs, of whole samples, differ so by chance, and tell
    nothing of how much they vary.
    """
    from scipy.special import stdtr  # noqa: PLC0415  (for this alone)

    differences = np.subtract(one, other)
    n = len(differences)
    if np.allclose(differences, differences[0]):
        return float("nan")
    t = differences.mean() / (differences.std(ddof=1) / np.sqrt(n))
    return float(2 * stdtr(n - 1, -abs(t)))


def what_published_cells_say(rows: list[Row], dataset: str) -> str:
    """How many published cells of the GLR rows our means surpass, and which they do not."""
    compared = [
        (name, condition, cell(rows, name, condition), published_cell(dataset, name, condition))
        for name in glr_rows(rows)
        for condition in PUBLISHED["columns"]
    ]
    compared = [cells for cells in compared if cells[2] and cells[3]]
    if not compared:
        return ""
    below = [cells for cells in compared if fmean(cells[2]) <= float(cells[3])]
    listed = ", ".join(
        f"{name} {condition} {mean_and_spread(ours)} ({published})"
        for name, condition, ours, published in below
    )
    return (
        f"Above the published figure: {len(compared) - len(below)} of the {len(compared)} cells of "
        f"the GLR rows{f'; not: {listed}' if below else ''}."
    )
