"""The arithmetic of the tables, and what stands below them."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from glr.robustness.tables import (
    Row,
    cell,
    mean_and_spread,
    other_conditions,
    paired_p,
    smaller_samples,
    table_lines,
    variants_table,
    what_controls_say,
    what_epsilon_decides,
    what_published_cells_say,
    what_the_estimate_changes,
)


def test_cells_are_means_over_severities_then_over_seeds():
    rows = [
        Row("LRS", seed, "contrast", severity, (50 + 10 * seed + severity) / 100, 100)
        for seed in (0, 1)
        for severity in range(1, 6)
    ]
    rows += [Row("LRS", 0, "fgsm", epsilon, epsilon, 100) for epsilon in (0.05, 0.1, 1.0)]
    assert cell(rows, "LRS", "contrast") == pytest.approx([53, 63])
    assert mean_and_spread(cell(rows, "LRS", "contrast")) == "58.00 ± 7.07"
    assert cell(rows, "LRS", "fgsm") == pytest.approx([10])
    assert mean_and_spread(cell(rows, "LRS", "lbfgs")) == "–"
    assert other_conditions(rows) == [
        ["model", "fgsm ε 0.05", "fgsm ε 1"],
        ["LRS", "5.00", "100.00"],
    ]


def test_variants_of_several_seeds_are_compared_with_the_first():
    first, other = [95.0, 96.0, 97.0], [93.0, 93.5, 95.5]
    table = variants_table({"LRS.py": first, "LRS.py --sigma 9": other}, "test accuracy (%)")
    assert table == [
        ["command", "test accuracy (%)", "less the first", "p"],
        ["LRS.py", "96.00 ± 1.00", "", ""],
        [
            "LRS.py --sigma 9",
            "94.00 ± 1.32",
            "-2.00",
            f"{ttest_rel(other, first).pvalue:.2g}",
        ],
    ]
    assert variants_table({"a": [1.0], "b": [2.0]}, "it") == [
        ["command", "it"],
        ["a", "1.00"],
        ["b", "2.00"],
    ]


def test_published_cells_stand_below_ours():
    lines = table_lines([Row("LRTZ", 0, "clean", 0, 0.96, 10)], "mnist", ["LRTZ"])
    assert lines[0][:4] == ["model", "clean", "lbfgs", "fgsm"]
    assert lines[1][:2] == ["LRTZ", "96.00"]
    assert lines[2][:4] == ["  published", "90.22", "77.74", "61.36"]


def test_conditions_of_fewer_samples_are_named():
    rows = [Row("LRS", 0, "clean", 0, 0.9, 360), Row("LRS", 0, "fgsm", 0.1, 0.5, 360)]
    assert smaller_samples(rows) == ""
    rows += [Row("LRS", seed, "square", 0.1, 0.5, 20) for seed in (0, 1)]
    assert smaller_samples(rows) == "Of the first samples only, not of all 360: square 20."


def test_what_controls_say_is_arithmetic():
    rows = [
        Row(name, 0, "fgsm", 0.1, share, 10)
        for name, share in (("BP", 0.3), ("LRS", 0.55), ("BP-L2", 0.5))
    ]
    assert "LRS +25.0; controls by backpropagation: BP-L2 +20.0" in what_controls_say(rows)


def test_what_the_estimate_changes_compares_each_network_with_its_control_seed_by_seed():
    """Seed 3 has no control: it does not count. Of LRT and ST+L2C seed 0 alone has both."""
    accuracies = {"LRS": (0.91, 0.92, 0.97, 0.1), "BP+L2C": (0.92, 0.94, 0.96)}
    rows = [
        Row(name, seed, "clean", 0, share, 100)
        for name, shares in accuracies.items()
        for seed, share in enumerate(shares)
    ]
    p = ttest_rel((91, 92, 97), (92, 94, 96)).pvalue
    lone = [Row("LRT", 0, "clean", 0, 0.5, 100), Row("ST+L2C", 0, "clean", 0, 0.4, 100)]
    says = what_the_estimate_changes([*rows[::-1], *lone])
    assert says.startswith("LRS less BP+L2C, in points")
    assert says.endswith(f" clean -0.67 ({p:.2g}).")
    both = what_the_estimate_changes([*rows, *lone, *(row._replace(seed=1) for row in lone)])
    assert "ST+L2C, in points" in both.split("\n\n")[1]
    assert "clean +10.00 (" in both.split("\n\n")[1]


@pytest.mark.parametrize("counts", [(346, 346), (347, 346, 349, 345, 348), (10, 20, 30)])
@pytest.mark.parametrize("more", [0, 1, 14])
def test_differences_that_are_all_equal_have_no_p(counts, more):
    """One sample more in each of two runs happens by chance: it is no certainty."""
    one, other = ([100 * (k + extra) / 360 for k in counts] for extra in (more, 0))
    assert np.isnan(paired_p(one, other))


def test_what_epsilon_decides_counts_the_rows_above_the_published_cell_at_each():
    """Published under FGSM: LRS 45.91, LRT 54.35 on MNIST."""
    accuracies = {"LRS": {0.1: (0.5, 0.6), 0.2: (0.2, 0.3)}, "LRT": {0.1: (0.7,), 0.2: (0.55,)}}
    rows = [
        Row(name, seed, "fgsm", epsilon, share, 100)
        for name, by_epsilon in accuracies.items()
        for epsilon, shares in by_epsilon.items()
        for seed, share in enumerate(shares)
    ]
    bp = Row("BP", 0, "fgsm", 0.2, 0.9, 100)
    assert what_epsilon_decides([*rows, bp], "mnist").endswith(
        "by the ε of ours: 0.1: 2 of 2, 0.2: 1 of 2."
    )
    assert what_epsilon_decides([row for row in rows if row.severity == 0.1], "mnist") == ""
    assert what_epsilon_decides(rows, "digits") == ""


def test_what_published_cells_say_names_those_that_are_not_surpassed():
    """Published on MNIST: LRTZ 90.22 clean, LRS 45.91 under FGSM; BP's cells do not count."""
    rows = [Row("LRTZ", seed, "clean", 0, share, 10) for seed, share in ((0, 0.89), (1, 0.91))]
    rows += [Row("LRS", 0, "fgsm", 0.1, 0.5, 10), Row("BP", 0, "clean", 0, 0.1, 10)]
    says = what_published_cells_say(rows, "mnist")
    assert says == (
        "Above the published figure: 1 of the 2 cells of the GLR rows; "
        "not: LRTZ clean 90.00 ± 1.41 (90.22)."
    )
    assert what_published_cells_say(rows, "digits") == ""
    assert what_published_cells_say(rows[2:], "mnist").endswith("1 of the 1 cells of the GLR rows.")
