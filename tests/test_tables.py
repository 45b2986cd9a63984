"""The arithmetic of the tables."""

import runpy
from itertools import chain

import numpy as np
import pytest
from processes import ROOT
from scipy.stats import ttest_rel

from glr.robustness.tables import (
    ADVERSARIAL,
    CONTROLS,
    MAIN_ROWS,
    MATCHED,
    Row,
    cell,
    mean_and_spread,
    paired_lines,
    paired_p,
    result_tables,
    results_page,
    variants_table,
)


def test_cells_are_means_over_severities_then_over_seeds():
    rows = [
        Row("LRS", seed, "contrast", severity, (50 + 10 * seed + severity) / 100, 100)
        for seed in (0, 1)
        for severity in range(1, 6)
    ]
    rows += [Row("LRS", 0, "fgsm", epsilon, epsilon, 100) for epsilon in (0.05, 0.13, 1.0)]
    assert cell(rows, "LRS", "contrast") == pytest.approx([53, 63])
    assert mean_and_spread(cell(rows, "LRS", "contrast")) == "58.00 ± 7.07"
    assert cell(rows, "LRS", "fgsm") == pytest.approx([13])
    assert mean_and_spread(cell(rows, "LRS", "lbfgs")) == "–"
    assert result_tables(rows, "digits")["Other attacks, targets and ε"] == [
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
    three = {"LRS.py": first, "LRT.py": other, "LRT.py --sigma 9": first}
    less = [line[2] for line in variants_table(three, "it")]
    assert less == ["less the first", "", "-2.00", "+2.00"]  # the last less its script's first
    assert variants_table({"a": [1.0], "b": [2.0]}, "it") == [
        ["command", "it"],
        ["a", "1.00"],
        ["b", "2.00"],
    ]


def test_published_cells_stand_below_ours():
    rows = [Row("LRTZ", 0, "clean", 0, 0.96, 10)]
    (lines,) = result_tables(rows, "mnist").values()
    assert lines[0][:4] == ["model", "clean", "lbfgs", "fgsm"]
    assert lines[1][:2] == ["LRTZ", "96.00"]
    assert lines[2][:4] == ["  published", "90.22", "77.74", "61.36"]
    for own in ("digits", "columns", "unit"):  # the last two are names in published.json
        (lines,) = result_tables(rows, own).values()
        assert len(lines) == 2


def test_each_network_is_compared_with_its_control_seed_by_seed():
    """Seed 3 has no control: it does not count. Of LRT and ST+L2C seed 0 alone has both."""
    accuracies = {"LRS": (0.91, 0.92, 0.97, 0.1), "BP+L2C": (0.92, 0.94, 0.96)}
    rows = [
        Row(name, seed, "clean", 0, share, 100)
        for name, shares in accuracies.items()
        for seed, share in enumerate(shares)
    ]
    p = ttest_rel((91, 92, 97), (92, 94, 96)).pvalue
    lone = [Row("LRT", 0, "clean", 0, 0.5, 100), Row("ST+L2C", 0, "clean", 0, 0.4, 100)]
    header, *compared = paired_lines([*rows[::-1], *lone])
    assert header[:2] == ["", "clean"]
    assert compared == [["LRS less BP+L2C", f"-0.67 ({p:.2g})", *[""] * 6]]
    _, _, both = paired_lines([*rows, *lone, *(row._replace(seed=1) for row in lone)])
    assert both == ["LRT less ST+L2C", "+10.00 (no p: alike in all seeds)", *[""] * 6]


@pytest.mark.parametrize("counts", [(346, 346), (347, 346, 349, 345, 348), (10, 20, 30)])
@pytest.mark.parametrize("more", [0, 1, 14])
def test_differences_that_are_all_equal_have_no_p_and_ties_have_one(counts, more):
    """One sample more in each of two runs happens by chance: it is no certainty."""
    one, other = ([100 * (k + extra) / 360 for k in counts] for extra in (more, 0))
    if more:
        assert np.isnan(paired_p(one, other))
    else:
        assert paired_p(one, other) == 1
        assert variants_table({"a": other, "b": one}, "it")[2][2:] == ["+0.00", "1"]


def test_tables_without_a_row_are_left_out():
    rows = [Row("BP-L2", 0, "clean", 0, 0.5, 10)]
    assert [*result_tables(rows, "digits")] == ["Controls"]
    assert results_page(rows, "digits").startswith(
        "### digits\n\nControls:\n\n| model | clean | lbfgs |"
    )
    rows += [Row(name, s, "pgd", 0.1, 0.5, 10) for name in ("LRS", "BP+L2C") for s in (0, 1)]
    titles = [*result_tables(rows, "digits")]
    assert [title.split()[0] for title in titles] == ["Accuracy", "Controls", "Other"]


def test_networks_of_your_own_stand_in_the_main_table_and_the_study_s_others_are_controls():
    names = ("mine", "BP+L2C", "LRS (pretrained)", "A-mine", "LRS", "BP-L2 (pretrained)")
    rows = [Row(name, 0, "clean", 0, 0.5, 10) for name in names]
    main, controls = result_tables(rows, "mnist").values()
    shown = [line[0] for line in main]
    assert shown == ["model", "LRS", "LRS (pretrained)", "  published", "A-mine", "mine"]
    assert [line[0] for line in controls] == ["model", "BP-L2 (pretrained)", "BP+L2C"]
    study = runpy.run_path(str(ROOT / "Train&Test" / "study.py"))["NETWORKS"]
    plain = {name for name in study if not name.endswith(ADVERSARIAL)}
    assert {*MAIN_ROWS, *CONTROLS} == plain
    assert {*chain(*MATCHED.items())} <= {*study}


def test_adversarially_trained_networks_stand_beside_the_published_of_their_script():
    names = ("ST+L2C-adv", "LRS-adv (pretrained)", "LRT-adv", "LRS")
    rows = [Row(name, s, "clean", 0, 0.5 + s / 4, 10) for name in names for s in (0, 1)]
    tables = result_tables(rows, "mnist")
    shown = [line[0] for line in tables["Adversarially trained"]]
    networks = ["LRS-adv (pretrained)", "  published", "LRT-adv", "  published", "ST+L2C-adv"]
    assert shown == ["model", *networks]
    paired = tables["Less the matched control, in points (p of a paired t-test)"]
    assert [line[0] for line in paired[1:]] == ["LRT-adv less ST+L2C-adv"]
