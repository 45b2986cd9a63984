"""The attack that asks for answers only: what it draws from, how often it asks, what it refuses."""

import numpy as np
import pytest

from glr.errors import GLRError
from glr.network import Network, new_network, threshold
from glr.robustness.black_box import SMALLEST_SIDE, square_attack


def test_square_attack_draws_from_its_generator_alone():
    """ART draws from NumPy's global one: it is lent a seed, and given back as it was."""
    side = SMALLEST_SIDE
    network = new_network([side**2, 5, 3], threshold, np.random.default_rng(0))
    x = np.random.default_rng(1).random((20, side**2), dtype=np.float32)
    y = network.logits_of_rows(x).argmax(axis=0)
    global_state = np.random.get_state
    before, found = global_state()[1].copy(), []
    for seed in (2, 2, 3):
        found.append(square_attack(network, (x, y), 0.3, 10, np.random.default_rng(seed)))
        np.testing.assert_array_equal(global_state()[1], before)
    np.testing.assert_array_equal(found[0], found[1])
    assert np.any(found[0] != found[2])
    assert np.abs(found[0] - x).max() == pytest.approx(0.3, abs=1e-6)


def test_square_attack_asks_the_same_for_each_of_its_queries(monkeypatch):
    """A network that nothing fools, so that it goes on to the end."""
    asked, logits_of_rows = [], Network.logits_of_rows

    def counted(network, x):
        asked[-1] += len(x)
        return logits_of_rows(network, x)

    monkeypatch.setattr(Network, "logits_of_rows", counted)
    network = new_network([25, 5, 3], threshold, np.random.default_rng(0))
    network.parameters[:] = 0
    network.layers[-1].b[:] = 1, 0, 0
    x, y = np.full((4, 25), 0.5, np.float32), np.zeros(4, np.int64)
    for queries in (10, 30):
        asked.append(0)
        square_attack(network, (x, y), 0.3, queries, np.random.default_rng(0))
    assert asked[1] - asked[0] == 3 * 20 * len(x)


def test_square_attack_on_images_too_small_for_it_is_refused():
    network = new_network([16, 5, 3], threshold, np.random.default_rng(0))
    x, y = np.zeros((2, 16), np.float32), np.zeros(2, np.int64)
    with pytest.raises(GLRError, match="needs images of 5 × 5 pixels or more"):
        square_attack(network, (x, y), 0.3, 10, np.random.default_rng(0))
