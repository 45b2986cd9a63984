"""What the compiled step is made of: random words, products, functions, losses, parts taken."""

import numpy as np
import pytest
from problems import FAMILY_WISE_ERROR
from scipy import stats

compiled = pytest.importorskip(
    "glr.compiled", reason="Numba is not installed", exc_type=ImportError
)


def test_each_part_is_taken_by_one_core():
    numba = pytest.importorskip("numba")

    @numba.njit(parallel=True)
    def taken_by_cores(taken):
        counts = np.zeros(2, np.int64)
        for core in numba.prange(2):
            for place in range(len(taken)):
                if compiled.is_first_to_take(taken, place):
                    counts[core] += 1
        return counts

    taken = np.zeros(100_000, np.int64)
    taken[::3] = 1
    assert taken_by_cores(taken).sum() == np.count_nonzero(np.arange(taken.size) % 3)
    assert taken.all()


# ---------------------------------------------------------------- random words


def words_from(start, n):
    """The n words from the place `start` on."""
    words = np.empty(n, np.uint64)
    compiled.write_words(np.uint64(start), words)
    return words


def test_words_are_those_of_splitmix64():
    """The first five that its authors' program gives for the seed 1234567."""
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert list(words_from(1234567 + 0x9E3779B97F4A7C15, 5)) == expected


def test_words_of_neighbouring_seeds_are_uniform_and_independent():
    """χ² of 16-bit parts over 256 cells, and of pairs of them: confidence 99.99 % for all."""
    rows = np.array([words_from(seed, 2**16) for seed in (1, 2, 2**63)]).view(np.uint16) >> 8
    pairs = [(rows[0], rows[1]), (rows[1], rows[2]), (rows[0][:-1], rows[0][1:])]
    pairs.append((rows[0][:-4], rows[0][4:]))
    p_values = [stats.chisquare(np.bincount(row, minlength=256)).pvalue for row in rows]
    for one, other in pairs:
        cells = (one >> 4) * 16 + (other >> 4)
        p_values.append(stats.chisquare(np.bincount(cells, minlength=256)).pvalue)
    assert min(p_values) > FAMILY_WISE_ERROR / len(p_values)


# ---------------------------------------------------------------- products, functions and losses


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1),
        (1, 5, 3),
        (5, 1, 3),
        (5, 3, 1),
        (6, 4, 5),
        (0, 2, 3),
        (2, 0, 3),
        (2, 3, 0),
        (100, 129, 65),
        (97, 260, 130),
    ],
)
@pytest.mark.parametrize("x_order", ["rows", "columns", "part"])
@pytest.mark.parametrize("y_order", ["rows", "columns", "part"])
def test_products_are_numpys(shape, x_order, y_order):
    """Of matrices by rows, by columns and within others; small ones, and what is cut into blocks.

    A sum of n products of unit numbers is off by n units in the last place at most.
    """
    rng = np.random.default_rng(0)
    rows, inner, columns = shape

    def matrix(n, m, order):
        if order == "part":
            return rng.uniform(-1, 1, (n + 2, m + 3)).astype(np.float32)[1 : n + 1, 2 : m + 2]
        found = rng.uniform(-1, 1, (n, m)).astype(np.float32)
        return found if order == "rows" else np.asfortranarray(found)

    x, y = matrix(rows, inner, x_order), matrix(inner, columns, y_order)
    expected = x.astype(float) @ y.astype(float)
    outside = np.full((rows + 2, columns + 2), np.nan, np.float32)
    out = outside[1:-1, 1:-1]
    compiled.write_product(x, y, out)
    tolerance = (inner + 1) * np.finfo(np.float32).eps
    np.testing.assert_allclose(out, expected, rtol=0, atol=tolerance)
    out[:] = 1
    compiled.add_product(x, y, out)
    np.testing.assert_allclose(out, 1 + expected, rtol=0, atol=2 * tolerance)
    assert np.isnan(outside).sum() == outside.size - out.size


def test_functions_are_numpys_to_a_few_units_in_the_last_place():
    grid = np.geomspace(2**-24, 2**24, 20_001, dtype=np.float32)
    near = np.linspace(-125, 125, 20_001, dtype=np.float32)
    unit = np.finfo(np.float32).eps
    log = np.array([compiled.log2(x) for x in grid], np.float64)
    np.testing.assert_allclose(log, np.log2(grid.astype(float)), rtol=3 * unit, atol=2 * unit)
    exp = np.array([compiled.exp2(x) for x in near], np.float64)
    np.testing.assert_allclose(exp, np.exp2(near.astype(float)), rtol=3 * unit)


def test_far_powers_are_nothing_or_huge_and_nan_stays_nan():
    assert 0 <= compiled.exp2(np.float32(-1e30)) < 1e-37
    assert 1e37 < compiled.exp2(np.float32(1e30)) < np.inf
    assert np.isnan(compiled.exp2(np.float32(np.nan)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_number_have_no_cross_entropy(bad):
    z = np.zeros((3, 8), np.float32)
    z[2, 7] = bad
    losses = compiled.output_of(z, np.array([0, 1, 2, 0]), False).losses[0]
    assert np.isnan(losses[7])
    assert np.isfinite(losses).sum() == losses.size - 1
