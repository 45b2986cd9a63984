"""Tables of measured accuracies beside the published ones, and what they say in a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from glr.robustness.rows import Row
from glr.robustness.samples import ATTACKS
from glr.storage.models import Model

GLR_ROWS = ("LRS", "LRT", "LRSZ", "LRTZ")
MAIN_ROWS = ("BP", *GLR_ROWS)  # the published table's; others are controls
MATCHED = {"LRS": "BP+L2C", "LRT": "ST+L2C"}  # GLR networks, and controls of the same constants
PUBLISHED = json.loads((Path(__file__).parent / "published.json").read_text(encoding="utf-8"))
TABLE_EPSILON = 0.1  # whose accuracies stand in the tables; the published ε is not known


def cell(rows: Iterable[Row], model: str, condition: str) -> list[float]:
    """A table's cell, seed by seed, in percent: the mean over severities; [] if not measured."""
    return list(cell_by_seed(rows, model, condition).values())


def cell_by_seed(rows: Iterable[Row], model: str, condition: str) -> dict[int, float]:
    """A table's cell in percent, by seed in their order.

    Of an attack that has an ε, the samples of TABLE_EPSILON count.
    """
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        if (row.model, row.condition) == (model, condition) and not has_other_epsilon(row):
            by_seed.setdefault(row.seed, []).append(100 * row.accuracy)
    return {seed: fmean(values) for seed, values in sorted(by_seed.items())}


def has_other_epsilon(row: Row) -> bool:
    """Whether the row is of an attack with an ε, and not that of the tables."""
    attack = ATTACKS.get(row.condition)
    return attack is not None and attack.has_epsilon and row.severity != TABLE_EPSILON


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
    if len(first) < 2:
        return [["command", title], *([name, mean_and_spread(v)] for name, v in accuracies.items())]
    lines = [["command", title, "less the first", "p"]]
    for name, values in accuracies.items():
        compared = [f"{fmean(values) - fmean(first):+.2f}", f"{paired_p(values, first):.2g}"]
        lines.append([name, mean_and_spread(values), *(compared if len(lines) > 1 else ["", ""])])
    return lines


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
        lines.append(
            [model, *(mean_and_spread(accuracies_at(rows, model, kind)) for kind in kinds)]
        )
    return lines


def what_epsilon_decides(rows: list[Row], dataset: str) -> str:
    """At which ε of FGSM how many GLR rows surpass the published accuracy, whose ε is not known."""
    published = {name: published_cell(dataset, name, "fgsm") for name in glr_rows(rows)}
    goals = {name: float(goal) for name, goal in published.items() if goal}
    parts = []
    for epsilon in sorted({row.severity for row in rows if row.condition == "fgsm"}):
        reached = {name: accuracies_at(rows, name, ("fgsm", epsilon)) for name in goals}
        above = [name for name, goal in goals.items() if fmean(reached[name]) > goal]
        parts.append(f"{epsilon:g}: {len(above)} of {len(goals)}")
    if not goals or len(parts) < 2:
        return ""
    return (
        "GLR rows above the published FGSM accuracy, whose ε is not known, by the ε of ours: "
        f"{', '.join(parts)}."
    )


def accuracies_at(rows: Iterable[Row], model: str, kind: tuple[str, float]) -> list[float]:
    """A model's accuracies under one condition and severity, seed by seed, in percent."""
    return [
        100 * row.accuracy
        for row in rows
        if row.model == model and (row.condition, row.severity) == kind
    ]


def smaller_samples(rows: list[Row]) -> str:
    """A note on the conditions that were measured on fewer samples than the clean accuracy."""
    n_clean = max(row.n for row in rows if row.condition == "clean")
    fewer = sorted({(row.condition, row.n) for row in rows if row.n < n_clean})
    listed = ", ".join(f"{condition} {n}" for condition, n in fewer)
    return f"Of the first samples only, not of all {n_clean}: {listed}." if fewer else ""


def what_controls_say(rows: list[Row]) -> str:
    """FGSM accuracies less that of BP, in points: those of the GLR rows, then of the controls."""
    fgsm = {name: cell(rows, name, "fgsm") for name in {row.model for row in rows}}
    if not fgsm.get("BP"):
        return ""
    base = fmean(fgsm["BP"])
    gains = {name: fmean(v) - base for name, v in fgsm.items() if v and name != "BP"}
    glr = ", ".join(f"{n} {gains[n]:+.1f}" for n in glr_rows(rows) if n in gains)
    own = ", ".join(f"{n} {gains[n]:+.1f}" for n in sorted(gains) if n.startswith(("BP", "ST")))
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
        parts = [
            compared
            for condition in PUBLISHED["columns"]
            if (compared := difference(rows, (name, control), condition))
        ]
        if parts:
            found.append(
                f"{name} less {control}, in points (p of a paired t-test over the seeds, each for "
                f"itself): {', '.join(parts)}."
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
