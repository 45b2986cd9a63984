"""What the scripts write of their runs: the tables of README.md, docs/results.md and docstrings.

WRITE_DOCS writes the committed pages, from the scripts' own constants and all data sets. Any other
run is written to a page of its own beside the results.
"""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

from glr.errors import GLRError
from glr.robustness import tables
from glr.robustness.evaluation import results_dir
from glr.robustness.tables import Row, cell, mean_and_spread, published_cell
from glr.scripts.constants import ROOT, SCRIPTS
from glr.scripts.plots import FORMATS, new_figure, optional_picture, plain_axes, save_figure
from glr.storage.files import write_whole
from glr.storage.models import layers_and_metadata
from glr.study.runs import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

README_DATASET = "mnist"
README_ROWS = {  # what README's table says of each script
    "LRS": "sigmoid, cross-entropy",
    "LRT": "threshold, cross-entropy",
    "LRSZ": "sigmoid, 0-1 loss",
    "LRTZ": "threshold, 0-1 loss",
    "BP": "sigmoid, cross-entropy; backpropagation",
}
NO_BEARING = ("PROCESSES", "DASK", "WRITE_DOCS")  # of the constants, on any figure


class Page(NamedTuple):
    """Where a table and its picture go.

    whole : whether both go to docs/, the picture as PNG; else beside the results, in this format
    """

    name: str
    whole: bool = False
    format: str = FORMATS[0]


def page_of(name: str, constants: SimpleNamespace, script: Mapping[str, object]) -> Page:
    """The page of a run: name_part unless all constants with a bearing are the script's own."""
    stated = (vars(constants).keys() & script.keys()) - set(NO_BEARING)
    are_own = all(getattr(constants, one) == script[one] for one in stated)
    name += "" if are_own else "_part"
    return Page(name, constants.WRITE_DOCS and are_own, constants.FORMAT)


def write_page(page: Page, block: str, draw: Callable[[Path], object] | None = None) -> None:
    """Put the block in its section of docs/results.md, or on its own page; draw its picture."""
    folder = ROOT / "docs" if page.whole else results_dir()
    picture = folder / f"{page.name}.{FORMATS[0] if page.whole else page.format}"
    if page.whole:
        write_section(folder / "results.md", page.name, block)
    else:
        path = folder / f"{page.name}.md"
        write_text(path, f"{block}\n")
        print(f"Written: {path}; docs/ takes --write-docs, the script's own constants and all data")
    if draw is not None:
        with optional_picture():
            draw(picture)
            print(f"picture: {picture}")


def draw_panels(
    path: Path, by_dataset: Mapping[str, object], draw: Callable[[Axes, object], object], title: str
) -> None:
    """A panel and a legend for each data set, which `draw` fills by what was measured on it."""
    figure = new_figure(5.2 * len(by_dataset), 4.8)
    panels = figure.subplots(1, len(by_dataset), squeeze=False)[0]
    for axes, (dataset, measured) in zip(panels, by_dataset.items(), strict=True):
        draw(axes, measured)
        axes.set_title(dataset, fontsize=10, parse_math=False)
        plain_axes(axes)
        beneath = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12), "ncols": 4}
        axes.legend(fontsize=8, frameon=False, **beneath)
    save_figure(path, figure, title)


def write_tables(
    constants: SimpleNamespace, runs: list[Task], rows: Mapping[str, list[Row]]
) -> None:
    """Write README's table, docs/results.md, and the scripts' own lines; rows are by data set."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for task in runs:
        _, metadata = layers_and_metadata(task.path)
        seconds[f"{task.name}_{task.dataset}"].append(metadata["metrics"]["seconds"])
    note = (
        f"MNIST, 784-50-10: test accuracy in percent, noise-free, mean ± sd of {constants.SEEDS} "
        "seeds, beside that of Peng et al. (2022); FGSM transferred from a ReLU network, ε = "
        f"{tables.TABLE_EPSILON} (ℓ∞); seconds of training on one core, by NumPy (BP: TensorFlow)."
    )
    table = tables.markdown_table(readme_lines(rows, seconds))
    write_readme("results", f"{table}\n\n{note}")
    write_page(Page("results", whole=True), results_block(rows))
    for name in README_ROWS:
        write_measured(SCRIPTS / f"{name}.py", measured(name, rows, seconds, constants.SEEDS))


def readme_lines(rows: dict[str, list[Row]], seconds: dict[str, list[float]]) -> list[list[str]]:
    """The cells of README's table, a header first."""
    lines = [["script", "neurons, loss", "clean", "published", "FGSM", "published", "seconds"]]
    for name, what in README_ROWS.items():
        line = [f"[{name}.py](Train%26Test/{name}.py)", what]
        for condition in ("clean", "fgsm"):
            line.append(mean_and_spread(cell(rows[README_DATASET], name, condition)))
            line.append(published_cell(README_DATASET, name, condition))
        lines.append([*line, f"{fmean(seconds[f'{name}_{README_DATASET}']):.0f}"])
    return lines


def results_block(rows: Mapping[str, list[Row]]) -> str:
    """What docs/results.md shows of the rows of each data set."""
    return "\n\n".join(tables.results_page(own, dataset) for dataset, own in rows.items())


def measured(
    name: str, rows: dict[str, list[Row]], seconds: dict[str, list[float]], seeds: int
) -> str:
    """What a script's docstring says of its accuracy and time, in lines as long as code may be."""
    parts = [
        f"{dataset} {mean_and_spread(cell(own, name, 'clean'))} % in "
        f"{fmean(seconds[f'{name}_{dataset}']):.0f} s"
        for dataset, own in rows.items()
    ]
    return textwrap.fill(f"Measured over {seeds} seeds: {', '.join(parts)}.", 100)


def write_measured(script: Path, paragraph: str) -> None:
    """Replace the paragraph of a script's docstring that begins with "Measured"."""
    earlier = re.compile(r"^Measured.*(?:\n(?!\"\"\").+)*", re.MULTILINE)
    write_text(script, earlier.sub(paragraph, script.read_text(encoding="utf-8"), count=1))


def write_section(path: Path, name: str, block: str) -> None:
    """Replace the section from <!-- name: … --> to <!-- end of name -->; GLRError unless one is."""
    section = re.compile(rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    text = path.read_text(encoding="utf-8")
    text, found = section.subn(lambda marks: f"{marks[1]}\n{block}\n\n{marks[2]}", text)
    if found != 1:
        raise GLRError(
            f"{path}: {found} sections {name}; restore the lines <!-- {name}: … --> and "
            f"<!-- end of {name} -->"
        )
    write_text(path, text)


def write_readme(name: str, block: str) -> None:
    """Replace what stands in a section of README.md."""
    write_section(ROOT / "README.md", name, block)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_whole(path, lambda file: file.write(text.encode()))
