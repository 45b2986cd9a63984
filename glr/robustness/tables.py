"""Measured accuracies in rows, and their tables: beside the published ones, and in pairs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

from glr.data.datasets import SHIPPED
from glr.robustness.samples import has_epsilon

GLR_ROWS = ("LRS", "LRT", "LRSZ", "LRTZ")
MAIN_ROWS = ("BP", *GLR_ROWS)  # the published table's
CONTROLS = ("BP-L2", "BP+", "BP+L2C", "ST+L2C", "BP-published")
ADVERSARIAL = "-adv"  # ends the name of a network that was trained adversarially
MATCHED = {  # GLR networks, and controls of the same constants
    **{"LRS": "BP+L2C", "LRT": "ST+L2C"},
    **{"LRS-adv": "BP+L2C-adv", "LRT-adv": "ST+L2C-adv"},
}
PUBLISHED = json.loads((Path(__file__).parent / "published.json").read_text(encoding="utf-8"))
PRETRAINED_LABEL = " (pretrained)"  # follows the name of a model that came with the code
TABLE_EPSILON = 0.13  # of the tables: the second public release's, of the same figures


class Row(NamedTuple):
    """One measurement: the share in [0, 1] of n samples that a model classifies as labelled.

    severity : 1…5 of a corruption, an attack's ε, a certificate's radius; 0 of others
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
    csv.writer(text, lineterminator="\n").writerows([Row._fields, *rows])
    return text.getvalue()


def cell(
    rows: Iterable[Row], model: str, condition: str, severity: float | None = None
) -> list[float]:
    """A table's cell, seed by seed, in percent; [] if not measured: see `cell_by_seed`."""
    return list(cell_by_seed(rows, model, condition, severity).values())


def cell_by_seed(
    rows: Iterable[Row], model: str, condition: str, severity: float | None = None
) -> dict[int, float]:
    """A table's cell in percent, by seed in their order: of one severity, else the mean over all.

    Of an attack that has an ε, the samples of TABLE_EPSILON count.
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


def spread(values: Sequence[float]) -> float:
    """The standard deviation over seeds, 0 of one seed: an error bar's."""
    return stdev(values) if len(values) > 1 else 0.0


def published_cell(dataset: str, model: str, condition: str) -> str:
    """The published accuracy in percent, of adversarially trained networks too; or nothing."""
    by_model = PUBLISHED.get(dataset, {}) if dataset in SHIPPED else {}  # not of columns.npz
    cells = by_model.get(network_name(model).removesuffix(ADVERSARIAL), [])
    return f"{cells[PUBLISHED['columns'].index(condition)]:.2f}" if cells else ""


def network_name(model: str) -> str:
    """A model's name, without the label of those that came with the code."""
    return model.removesuffix(PRETRAINED_LABEL)


def present(rows: Iterable[Row]) -> tuple[list[str], list[str], list[str]]:
    """The models measured: of the main table, your own last; controls; adversarially trained."""
    order = {name: i for i, name in enumerate((*MAIN_ROWS, *CONTROLS))}

    def place(name: str) -> int:
        return order.get(network_name(name).removesuffix(ADVERSARIAL), len(order))

    names = sorted(sorted({row.model for row in rows}), key=place)
    adversarial = [name for name in names if network_name(name).endswith(ADVERSARIAL)]
    controls = [name for name in names if network_name(name) in CONTROLS]
    main = [name for name in names if name not in {*adversarial, *controls}]
    return main, controls, adversarial


def result_tables(
    rows: list[Row], dataset: str, how: str = "noise-free"
) -> dict[str, list[list[str]]]:
    """Those tables of testAdv.py that have rows, by title; how : the networks predict, in words."""
    main, controls, adversarial = present(rows)
    columns = [(condition, None) for condition in PUBLISHED["columns"]]
    others = (r for r in rows if r.condition not in PUBLISHED["columns"] or has_other_epsilon(r))
    kinds = sorted({(row.condition, row.severity) for row in others})
    tables = {
        f"Accuracy on {dataset} in percent, {how}; corruptions: mean of five severities": (
            table_lines(rows, main, columns, dataset)
        ),
        "Controls": table_lines(rows, controls, columns),
        "Adversarially trained": table_lines(rows, adversarial, columns, dataset),
        "Less the matched control, in points (p of a paired t-test)": paired_lines(rows),
        "Other attacks, targets and ε": table_lines(rows, main + controls + adversarial, kinds),
    }
    return {title: lines for title, lines in tables.items() if len(lines) > 1 < len(lines[0])}


def results_page(rows: list[Row], dataset: str, how: str = "noise-free") -> str:
    """The same tables as a section in Markdown."""
    tables = result_tables(rows, dataset, how).items()
    titled = (f"{title}:\n\n{markdown_table(lines)}" for title, lines in tables)
    return "\n\n".join([f"### {dataset}", *titled])


def table_lines(
    rows: list[Row], models: list[str], kinds: list[tuple], dataset: str = ""
) -> list[list[str]]:
    """Each model's accuracies, below them the published ones of the data set, if there are any.

    kinds : the columns, each a condition and its severity; None stands for that of the tables
    """
    lines = [["model", *(f"{condition} ε {s:g}" if s else condition for condition, s in kinds)]]
    for i, model in enumerate(models):
        lines.append([model, *(mean_and_spread(cell(rows, model, *kind)) for kind in kinds)])
        below = [published_cell(dataset, model, condition) for condition, _ in kinds]
        if any(below) and network_name(model) not in map(network_name, models[i + 1 :]):
            lines.append(["  published", *below])
    return lines


def paired_lines(rows: list[Row]) -> list[list[str]]:
    """Each GLR network less its control: points and p, where two seeds or more have both."""
    columns = PUBLISHED["columns"]
    lines = [
        [" less ".join(pair), *(paired_cell(rows, pair, column) for column in columns)]
        for pair in MATCHED.items()
    ]
    return [["", *columns], *(line for line in lines if any(line[1:]))]


def paired_cell(rows: list[Row], pair: tuple[str, str], condition: str) -> str:
    """The first model's cell less the second's, and p, over the seeds of both; or nothing."""
    one, other = (cell_by_seed(rows, name, condition) for name in pair)
    seeds = one.keys() & other.keys()
    if len(seeds) < 2:
        return ""
    points, p = difference([one[seed] for seed in seeds], [other[seed] for seed in seeds])
    return f"{points} ({p})"


def variants_table(accuracies: Mapping[str, Sequence[float]], title: str) -> list[list[str]]:
    """The accuracies of variants, seed by seed, as cells with a header.

    With two seeds or more, each less the first of its script, and the first of a script less the
    first of all, with p of a paired t-test: variants of one seed share held-out samples,
    minibatches and first weights.
    """
    first, *_ = accuracies
    firsts: dict[str, str] = {}
    lines = [["command", title, "less the first", "p"]]
    for name, values in accuracies.items():
        own = firsts.setdefault(name.split()[0], name)
        base = accuracies[first if name == own else own]
        is_compared = name != first and len(values) > 1
        compared = difference(values, base) if is_compared else ("", "")
        lines.append([name, mean_and_spread(values), *compared])
    return lines if len(base) > 1 else [line[:2] for line in lines]


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


def difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[str, str]:
    """The mean of ours less that of theirs, and p; paired, two or more."""
    points = round(fmean(ours) - fmean(theirs), 2) + 0  # no −0.00
    p = paired_p(ours, theirs)
    return f"{points:+.2f}", "no p: alike in all seeds" if isnan(p) else f"{p:.2g}"


def paired_p(one: Sequence[float], other: Sequence[float]) -> float:
    """The p of a paired t-test; 1 if all are equal, NaN if all differ by the same, as few may."""
    from scipy.stats import ttest_rel  # noqa: PLC0415  (a second, for this alone)

    differences = np.subtract(one, other)
    if np.allclose(differences, differences[0]):
        return 1.0 if np.allclose(differences, 0) else float("nan")
    return float(ttest_rel(one, other).pvalue)
