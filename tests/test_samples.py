"""Files of samples against what their metadata say, and what makes them."""

from contextlib import nullcontext

import numpy as np
import pytest
from processes import ROOT

from glr.data.datasets import load_dataset
from glr.errors import GLRError
from glr.robustness.samples import Samples, check_samples, how_to_make

DIGITS = load_dataset("digits", ROOT / "data")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({}, ""),
        ({"severities": [1, 2]}, ""),
        ({"severities": [1, 2, 3]}, "and 3 severities do not fit together"),
        ({"severities": 0}, "and 1 severities do not fit together"),
        ({"severities": [1, "x"]}, "no number"),
        ({"severities": [1, None]}, "no number"),
        ({"severities": [1, 2], "epsilon": []}, "no number"),
        ({"severities": [1, 2], "epsilon": "x"}, "no number"),
        ({"severities": [1, 2], "epsilon": float("nan")}, "no number"),
        ({"severities": [1, -2]}, "no number"),
        ({"zero_gradient_share": "x"}, "no number"),
        ({"attack": ["x"]}, "do not name attack and dataset"),
        ({"dataset": 3}, "do not name attack and dataset"),
        ({"dataset": "mnist"}, "of mnist, not of digits"),
        ({"target": 3}, "no target"),
    ],
)
def test_samples_are_what_their_metadata_say(changes, complaint):
    x = DIGITS.x_test[:10]
    metadata = {"attack": "contrast", "dataset": "digits", "severities": [1, 2]} | changes
    samples = Samples(x, np.stack([x, 1 - x]), DIGITS.y_test[:10], metadata)
    with pytest.raises(GLRError, match=complaint) if complaint else nullcontext():
        check_samples(samples, DIGITS)


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("lbfgs", "generate_adv.py"),
        ("pgd_BP+L2C-seed1_eps0.05", "generate_adv.py"),
        ("glass_blur", "noise_generate_adv.py"),
    ],
)
def test_how_to_make_a_file_of_samples(name, script):
    assert (
        how_to_make(name, "my data.npz") == f"\"RobustnessTest/{script}\" --dataset 'my data.npz'"
    )
