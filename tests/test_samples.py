"""Files of samples against what their metadata say, and what makes them."""

import numpy as np
import pytest
from processes import ROOT

from glr.data.datasets import load_dataset
from glr.robustness.samples import ATTACKS, Samples, fault, has_epsilon, how_to_make, sample_name

DIGITS = load_dataset("digits", ROOT / "data")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({}, ""),
        ({"severities": [1, 2]}, ""),
        ({"severities": [1, 2, 3]}, "2 severities, and the metadata name 3"),
        ({"severities": 0}, "2 severities, and the metadata name 1"),
        ({"severities": [1, "x"]}, "no number"),
        ({"severities": [1, 2], "epsilon": "x"}, "no number"),
        ({"severities": [1, 2], "epsilon": float("nan")}, "no number"),
        ({"severities": [1, -2]}, "no number"),
        ({"zero_gradient_share": "x"}, "no number"),
        ({"attack": ["x"]}, "do not name attack and dataset"),
        ({"dataset": 3}, "do not name attack and dataset"),
        ({"dataset": "mnist"}, "that it is of mnist, not of digits"),
        ({"target": 3}, "no target"),
    ],
)
def test_samples_are_what_their_metadata_say(changes, complaint):
    x = DIGITS.x_test[:10]
    metadata = {"attack": "contrast", "dataset": "digits", "severities": [1, 2]} | changes
    found = fault(Samples(x, np.stack([x, 1 - x]), DIGITS.y_test[:10], metadata), DIGITS)
    assert complaint in found
    assert bool(complaint) == bool(found)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("lbfgs", 'generate_adv.py" --dataset mnist --attack lbfgs'),
        ("glass_blur", 'noise_generate_adv.py" --dataset mnist --corruptions glass_blur'),
        (
            "pgd_BP+L2C-seed1_eps0.05",
            'generate_adv.py" --dataset mnist --attack pgd '
            "--target models/BP+L2C_mnist_seed1.npz --epsilon 0.05",
        ),
        ("mine", 'generate_adv.py" --dataset mnist'),
    ],
)
def test_how_to_make_a_file_of_samples(name, command):
    assert how_to_make(name, "mnist") == f'"RobustnessTest/{command}'


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_s_file_is_known_by_its_name(attack):
    epsilon = 0.05 if has_epsilon(attack) else None
    words = f" --attack {attack} --target models/LRT_mnist_seed2.npz"
    command = how_to_make(sample_name(attack, "LRT-seed2", epsilon), "mnist")
    assert command.endswith(words + (" --epsilon 0.05" if epsilon else ""))
