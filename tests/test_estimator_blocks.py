"""How the passes are walked changes no gradient: blocks, groups, halves, threads; and memory."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from glr.passes import Batch, forward_passes
from problems import (
    N_SAMPLES,
    Problem,
    estimates,
    flat,
    glr_of,
    layers_of,
    relative_difference,
    samples_of,
    streams_of,
)

from glr import differences, estimator, passes
from glr.estimator import glr_gradient, group_sizes
from glr.network import new_network
from glr.study.runs import script_methods

SCRIPT_METHODS = script_methods()

BLOCKED_PROBLEMS = {
    "sigmoid": (Problem((7, 9, 5)), {}),
    "gaussian": (Problem((7, 9, 5), law="gaussian"), {}),
    "one draw": (Problem((7, 9, 5)), {"output_draws": 1}),
    "conditional": (Problem((7, 9, 5), "threshold"), {"conditional_score": True}),
    "weights": (Problem((7, 9, 5), law="laplace", perturb="weights"), {}),
    "conditional, weights": (
        Problem((7, 9, 5), "threshold", "zero_one", perturb="weights"),
        {"conditional_score": True},
    ),
    "local": (Problem((7, 9, 11, 5), sigma=(0.8, 0.7, 0.6)), {"local_differences": True}),
    "redrawn": (
        Problem((7, 9, 11, 8, 5), sigma=(0.8, 0.7, 0.7, 0.6)),
        {"local_differences": True, "redraws": 4},
    ),
    "redrawn, gaussian, weights": (
        Problem((7, 9, 11, 5), law="gaussian", perturb="weights", sigma=(0.8, 0.7, 0.6)),
        {"local_differences": True, "redraws": 4},
    ),
    "redrawn, conditional, standardised": (
        Problem((7, 9, 11, 5), "threshold", "zero_one", sigma=(0.8, 0.7, 0.6)),
        {
            "local_differences": True,
            "redraws": 4,
            "conditional_score": True,
            "standardised_loss": True,
        },
    ),
    "local, conditional, standardised": (
        Problem((7, 9, 5), "threshold", "zero_one", law="gaussian"),
        {"local_differences": True, "conditional_score": True, "standardised_loss": True},
    ),
    "local, weights": (Problem((7, 9, 5), perturb="weights"), {"local_differences": True}),
    "layerwise": (Problem((7, 9, 11, 5), sigma=(0.8, 0.7, 0.6)), {"layerwise": True}),
    "standardised": (
        Problem((7, 9, 11, 5), loss="zero_one", sigma=(0.8, 0.7, 0.6)),
        {"standardised_loss": True},
    ),
    "no hidden layer": (Problem((7, 5), sigma=(0.6,)), {}),
}
EVERYTHING = 2**40


@pytest.mark.parametrize("n_pieces", [0, 2, 5])
@pytest.mark.parametrize("name", BLOCKED_PROBLEMS)
def test_blocks_of_any_size_give_the_same_gradient_bit_for_bit(name, n_pieces, monkeypatch):
    """One piece at a time, two with a remainder, or all at once; odd numbers throughout.

    The second of two gradients from the same streams also tells where the first left them.
    """
    problem, settings = BLOCKED_PROBLEMS[name]
    glr = glr_of(problem, **({"replicates": 75, "output_draws": 3} | settings))
    monkeypatch.setattr(passes, "PIECE_COLUMNS", 32 * N_SAMPLES)
    piece_floats = 32 * glr.output_draws * max(problem.sizes[1:]) * N_SAMPLES
    found, block = gradients_and_block(problem, glr, n_pieces * piece_floats, monkeypatch)
    wanted, _ = gradients_and_block(problem, glr, EVERYTHING, monkeypatch)
    assert np.array_equal(found, wanted)
    assert block == {0: 32, 2: 64, 5: 75}[n_pieces]


def gradients_and_block(problem, glr, block_floats, monkeypatch, copies=1):
    """Two gradients, and the replicates of the largest block that they were walked in."""
    monkeypatch.setattr(estimator, "BLOCK_FLOATS", block_floats)
    walked = []
    with monkeypatch.context() as patch:

        def watched(part, *arguments):
            walked.append(part.replicates)
            return forward_passes(part, *arguments)

        patch.setattr(estimator, "forward_passes", watched)
        found = estimates(problem, glr, 2, copies)
    return found, max(walked)


@pytest.mark.parametrize("name", BLOCKED_PROBLEMS)
def test_passes_too_many_to_keep_give_the_mean_over_their_groups(name, monkeypatch):
    """75 replicates, of which 16 are kept: five groups of 15, from the same streams."""
    problem, settings = BLOCKED_PROBLEMS[name]
    glr = glr_of(problem, **({"replicates": 75, "output_draws": 3} | settings))
    of_group = estimates(problem, replace(glr, replicates=15), 5, 1)
    monkeypatch.setattr(estimator, "KEPT_FLOATS", 1)
    (found,) = estimates(problem, glr, 1, 1)
    assert relative_difference(found, of_group.mean(axis=0)) < 1e-5
    assert found[-1] == pytest.approx(of_group.mean(axis=0)[-1], rel=1e-6)


def test_groups_of_passes_count_by_their_sizes(monkeypatch):
    """31 passes are groups of 15 and 16; a loss here is the number of passes evaluated at once."""
    problem = Problem((3, 4, 3))
    glr = glr_of(problem, loss=lambda z, y: np.full(z.shape[:-2] + y.shape, len(z)), replicates=31)
    monkeypatch.setattr(estimator, "KEPT_FLOATS", 1)
    (found,) = estimates(problem, glr, 1, 1)
    assert found[-1] == pytest.approx((15 * 15 + 16 * 16) / 31, rel=1e-6)


@pytest.mark.parametrize("replicates", [1, 2, 16, 17, 99, 1500, 10_001])
@pytest.mark.parametrize("kept", [1, 40])
def test_groups_of_passes_fit_the_memory_and_have_no_pass_alone(replicates, kept, monkeypatch):
    """Every pass has 8 + 3·5 activations of 6 samples; there is room for 16 at least."""
    problem = Problem((7, 8, 5))
    glr = glr_of(problem, replicates=replicates, output_draws=3)
    monkeypatch.setattr(estimator, "KEPT_FLOATS", kept * (8 + 3 * 5) * 6)
    sizes = group_sizes(glr, layers_of(problem), 6)
    assert sum(sizes) == replicates
    assert max(sizes) <= max(16, kept)
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == 1 or min(sizes) >= 8
    assert len(sizes) == -(-replicates // max(16, kept))


@pytest.mark.parametrize("name", [name for name in BLOCKED_PROBLEMS if name != "layerwise"])
@pytest.mark.parametrize("copies", [1, 3])
def test_large_step_is_the_mean_over_the_halves_of_the_batch(name, copies, monkeypatch):
    """Each with generators of its own, which are seeded by the streams; one has a sample more."""
    problem, settings = BLOCKED_PROBLEMS[name]
    glr = glr_of(problem, **({"replicates": 75, "output_draws": 3} | settings))
    x, y = (np.tile(part, copies) for part in samples_of(problem))
    assert y.size % 2 == 1
    layers, streams, first = layers_of(problem), streams_of(problem, 5), y.size // 2
    expected = []
    for half in (slice(first), slice(first, None)):
        seeds = [stream.bit_generator.random_raw(2) for stream in streams]
        own = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
        share = y[half].size / y.size
        expected.append(share * flat(glr_gradient(glr, layers, Batch(x[:, half], y[half]), own)))
    monkeypatch.setattr(estimator, "HALVED_COST", 0)
    found = flat(glr_gradient(glr, layers, Batch(x, y), streams_of(problem, 5)))
    np.testing.assert_allclose(found, sum(expected), rtol=1e-5, atol=1e-6)


def test_a_sample_alone_has_no_halves(monkeypatch):
    problem = Problem((3, 4, 3))
    x, y = samples_of(problem)
    alone, layers = Batch(x[:, :1], y[:1]), layers_of(problem)
    expected = flat(glr_gradient(glr_of(problem), layers, alone, streams_of(problem, 5)))
    monkeypatch.setattr(estimator, "HALVED_COST", 0)
    found = flat(glr_gradient(glr_of(problem), layers, alone, streams_of(problem, 5)))
    assert np.array_equal(found, expected)


def test_threads_change_no_bit(monkeypatch):
    """The halves of a step of several groups, at once and one after the other."""
    problem = Problem((3, 4, 3))
    glr = glr_of(problem, replicates=75, local_differences=True)
    monkeypatch.setattr(estimator, "HALVED_COST", 0)
    monkeypatch.setattr(estimator, "KEPT_FLOATS", 1)
    at_once = estimates(problem, glr, 3)
    monkeypatch.setattr(estimator, "results_of_threads", lambda f, parts: [f(p) for p in parts])
    assert np.array_equal(estimates(problem, glr, 3), at_once)


def test_cost_of_a_step_is_in_the_neurons_the_changed_logits_and_the_later_products():
    layers = layers_of(Problem((784, 50, 20, 10)))
    glr = glr_of(Problem((3, 4, 3)), replicates=7, output_draws=2)
    neurons, products = 50 + 20 + 2 * 10, (50 * 20 + 20 * 10) / 256
    assert estimator.step_cost(glr, layers, 5) == 7 * 5 * (neurons + products)
    local = replace(glr, local_differences=True)
    changed = (20 + 10) * 2 * 10 / 8
    assert estimator.step_cost(local, layers, 5) == 7 * 5 * (neurons + products + changed)
    redrawn = replace(local, redraws=4)
    again = 50 + 50 * 20 / 256 + 4 * (20 + 2 * 10 + 20 * 10 / 256)
    assert estimator.step_cost(redrawn, layers, 5) == 7 * 5 * (neurons + products + changed + again)
    assert estimator.step_cost(redrawn, layers[1:], 5) == estimator.step_cost(local, layers[1:], 5)


@pytest.mark.parametrize("activation", ["sigmoid", "threshold"])
def test_blocks_of_any_size_give_the_same_gradient_of_the_paper_s_network(activation, monkeypatch):
    """Where matrix products take the fast ways that they have for large sizes."""
    problem = Problem((784, 50, 10), activation)
    glr = glr_of(problem, replicates=75, conditional_score=activation == "threshold")
    found = [
        gradients_and_block(problem, glr, block_floats, monkeypatch, copies=43)
        for block_floats in (1, 500_000, EVERYTHING)
    ]
    assert [block for _, block in found] == [9, 72, 75]
    for gradients, _ in found[:2]:
        assert np.array_equal(gradients, found[2][0])


@pytest.mark.parametrize("name", BLOCKED_PROBLEMS)
def test_pieces_of_other_sizes_give_the_same_gradient_but_for_rounding(name, monkeypatch):
    problem, settings = BLOCKED_PROBLEMS[name]
    glr = glr_of(problem, **({"replicates": 75, "output_draws": 3} | settings))
    found = []
    for piece in (1, 32, 100):
        monkeypatch.setattr(passes, "PIECE_COLUMNS", piece * N_SAMPLES)
        found.append(estimates(problem, glr, 2, 1))
    for a in found[:2]:
        for one, other in zip(a, found[2], strict=True):
            assert relative_difference(one, other) < 1e-4
            assert one[-1] == pytest.approx(other[-1], rel=1e-5)


@pytest.mark.parametrize("name", BLOCKED_PROBLEMS)
def test_same_seed_gives_the_same_gradient_bit_for_bit(name):
    problem, settings = BLOCKED_PROBLEMS[name]
    glr = glr_of(problem, **settings)
    first, again, other = (estimates(problem, glr, 3, 5, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.any(np.all(first == other, axis=1))
    assert not np.array_equal(first[0], first[1])


def peak_memory(glr, sizes, B):
    """Bytes at the peak of one gradient, which is finite."""
    rng = np.random.default_rng(1)
    layers = new_network(sizes, glr.activation, rng).layers
    batch = Batch(rng.random((sizes[0], B), dtype=np.float32), rng.integers(0, sizes[-1], B))
    streams = np.random.Generator(np.random.SFC64(1)).spawn(len(layers))
    tracemalloc.start()
    try:
        gradient = glr_gradient(glr, layers, batch, streams)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.all(np.isfinite(flat(gradient)))
    return peak


@pytest.mark.parametrize(("hidden", "R"), [(50, 10_000), (2000, 250)])
def test_memory_does_not_grow_with_the_replicates(hidden, R):
    """R·B·n_hidden floats would be 256 MB here, and R·B·n_in up to 4 GB."""
    glr = glr_of(Problem((784, hidden, 10)), replicates=R)
    assert peak_memory(glr, [784, hidden, 10], 128) < 100e6


@pytest.mark.parametrize("name", SCRIPT_METHODS)
@pytest.mark.parametrize(("hidden", "R"), [([50], 1000), ([500, 500], 200)])
def test_memory_of_the_scripts_estimators_is_bounded(name, hidden, R):
    """R·B·K·n·n_out floats, the logits after every local change, would be 256 MB to 2 GB."""
    glr = SCRIPT_METHODS[name]
    sigma = (glr.sigma[0],) * len(hidden) + (glr.sigma[-1],)
    glr = replace(glr, sigma=sigma, replicates=R)
    assert peak_memory(glr, [784, *hidden, 10], 128) < 100e6


def test_memory_of_local_differences_does_not_grow_with_width():
    """The moved output logits of all neurons at once would be 31 MB, several times over."""
    glr = glr_of(Problem((20, 3000, 10)), replicates=2, output_draws=4, local_differences=True)
    assert peak_memory(glr, [20, 3000, 10], 64) < 31e6


@pytest.mark.parametrize("name", ["local", "local, conditional, standardised", "local, weights"])
def test_local_differences_are_the_same_a_neuron_at_a_time(name, monkeypatch):
    problem, settings = BLOCKED_PROBLEMS[name]
    glr = glr_of(problem, **settings)
    at_once = estimates(problem, glr, 2, 5)
    monkeypatch.setattr(differences, "MOVED_FLOATS", 1)
    assert np.array_equal(estimates(problem, glr, 2, 5), at_once)
