"""What robustness costs: clean accuracy against FGSM accuracy as the L2 penalty grows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import NamedTuple

from glr.constants import ROOT
from glr.data import load_dataset
from glr.plots import new_figure, save_figure
from glr.robustness import (
    PUBLISHED_EPSILON,
    Row,
    cell,
    load_model_for,
    markdown_table,
    mean_and_spread,
    published_cell,
    rows_of,
)
from glr.samples import load_samples, samples_path
from glr.study import Task, write_between

TRADEOFF_MARKS = (
    '<!-- tradeoff: written by "Train&Test/tradeoff.py" -->',
    "<!-- end of tradeoff -->",
)


class Point(NamedTuple):
    """Clean and FGSM accuracies in percent, seed by seed, of a network at one penalty."""

    penalty: float
    clean: list[float]
    fgsm: list[float]


Curves = dict[str, list[Point]]  # by network


def penalised_networks(
    networks: Mapping[str, tuple[str, str]], penalties: tuple[float, ...]
) -> dict[str, tuple[str, str]]:
    """Every network at every penalty, as glr.study.tasks takes them."""
    return {
        penalised_name(name, penalty): (script, f"{flags} --weight-decay {penalty:g}")
        for name, (script, flags) in networks.items()
        for penalty in penalties
    }


def penalised_name(name: str, penalty: float) -> str:
    """LRS-0.001."""
    return f"{name}-{penalty:g}"


def measured_rows(runs: list[Task], constants: SimpleNamespace, dataset: str) -> list[Row]:
    """The accuracies of a data set's runs on the test set and on generate_adv.py's FGSM samples."""
    data = load_dataset(dataset, constants.DATA_DIR)
    path = samples_path(constants.DATA_DIR, data.name, f"fgsm_eps{PUBLISHED_EPSILON:g}")
    samples = [load_samples(path, data)]
    paths = [task.path for task in runs if dataset in task.flags]
    return [row for path in paths for row in rows_of(load_model_for(path, data), data, samples)]


def curves_of(rows: list[Row], names: list[str], penalties: tuple[float, ...]) -> Curves:
    """Each network's points, the smallest penalty first."""
    found: Curves = {}
    for name in names:
        for penalty in sorted(penalties):
            cells = [
                cell(rows, penalised_name(name, penalty), condition)
                for condition in ("clean", "fgsm")
            ]
            found.setdefault(name, []).append(Point(penalty, *cells))
    return found


def published_point(dataset: str, name: str) -> tuple[float, float] | None:
    """The published clean and FGSM accuracy of a network, if it has them."""
    clean, fgsm = (published_cell(dataset, name, c) for c in ("clean", "fgsm"))
    return (float(clean), float(fgsm)) if clean else None


def tradeoff_lines(curves: Curves, dataset: str) -> list[list[str]]:
    """A row per penalty, with cells "clean / FGSM"; the published accuracies last."""
    lines = [["penalty", *curves]]
    for points in zip(*curves.values(), strict=True):
        cells = [f"{mean_and_spread(p.clean)} / {mean_and_spread(p.fgsm)}" for p in points]
        lines.append([f"{points[0].penalty:g}", *cells])
    published = [published_point(dataset, name) for name in curves]
    return [*lines, ["published", *(f"{p[0]:.2f} / {p[1]:.2f}" if p else "–" for p in published)]]


def what_surpasses(curves: Curves, dataset: str) -> str:
    """At which penalties the means surpass the published clean and FGSM accuracies at once.

    Nothing for a data set that has no published accuracies.
    """
    parts = []
    for name, points in curves.items():
        published = published_point(dataset, name)
        if published is None:
            continue
        above = [
            f"{point.penalty:g}"
            for point in points
            if fmean(point.clean) > published[0] and fmean(point.fgsm) > published[1]
        ]
        parts.append(f"{name} at {' and '.join(above) or 'no penalty of these'}")
    says = f"Above the published clean and FGSM accuracies at once: {', '.join(parts)}."
    return says if parts else ""


def draw_tradeoffs(path: Path, by_dataset: dict[str, Curves]) -> None:
    """FGSM accuracy against clean accuracy, a panel per data set; the published ones as stars."""
    figure = new_figure(5.2 * len(by_dataset), 4.4)
    panels = figure.subplots(1, len(by_dataset), squeeze=False)[0]
    for axes, (dataset, curves) in zip(panels, by_dataset.items(), strict=True):
        for i, (name, points) in enumerate(curves.items()):
            published = published_point(dataset, name)
            style = {"color": f"C{i}"} if published else {"color": "black", "ls": "--"}
            clean, fgsm = ([fmean(point[k]) for point in points] for k in (1, 2))
            axes.plot(clean, fgsm, marker="o", ms=3, label=name, **style)
            if published:
                axes.plot(*published, marker="*", ms=11, **style)
        axes.set(title=dataset, xlabel="clean accuracy (%)", ylabel="FGSM accuracy, ε 0.1 (%)")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(fontsize=8, frameon=False)
    figure.suptitle("The penalty grows from right to left; stars: published", fontsize=10)
    save_figure(path, figure)


def write_tradeoffs(by_dataset: dict[str, Curves]) -> None:
    """Write docs/tradeoff.png and its tables in docs/results.md."""
    draw_tradeoffs(ROOT / "docs" / "tradeoff.png", by_dataset)
    parts = []
    for dataset, curves in by_dataset.items():
        table = markdown_table(tradeoff_lines(curves, dataset))
        parts += [f"On {dataset}:", table, what_surpasses(curves, dataset)]
    block = "\n\n".join(filter(None, parts))
    print(block)
    write_between(ROOT / "docs" / "results.md", *TRADEOFF_MARKS, f"\n{block}\n")
