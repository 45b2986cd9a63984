"""The compiled loops give NumPy's gradients from the same random words."""

from dataclasses import replace

import numpy as np
import pytest
from problems import PUBLISHED, Problem, flat, glr_of, layers_of, samples_of, streams_of
from processes import assert_same_run, run, saved

from glr.estimator import glr_gradient
from glr.losses import cross_entropy, zero_one
from glr.passes import Batch, Loops, bernoulli

compiled = pytest.importorskip(
    "glr.compiled", reason="Numba is not installed", exc_type=ImportError
)

COPIES = 40
MANY = {"replicates": 5, "output_draws": 3}
LOCAL = {**MANY, "local_differences": True}
PROBLEMS = {
    "published": (Problem((4, 3, 3), law="laplace"), PUBLISHED),
    "sigmoid": (Problem((4, 3, 3)), MANY),
    "tanh": (Problem((4, 3, 3), "tanh"), MANY),
    "gaussian": (Problem((4, 3, 3), law="gaussian"), MANY),
    "a user's law": (Problem((4, 3, 3), law="secant"), LOCAL),
    "a user's loss": (Problem((4, 3, 3), loss="top2_error"), LOCAL),
    "deep": (Problem((3, 3, 3, 2), sigma=(0.8, 0.5, 0.6)), LOCAL),
    "deep weight noise": (Problem((3, 3, 3, 2), perturb="weights", sigma=(0.8, 0.5, 0.6)), LOCAL),
    "layer by layer": (Problem((3, 3, 3, 2), sigma=(0.8, 0.5, 0.6)), LOCAL | {"layerwise": True}),
    "threshold pass by pass": (
        Problem((3, 3, 3, 2), "threshold", law="gaussian", sigma=(0.8, 0.5, 0.6)),
        MANY | {"conditional_score": True},
    ),
    "no hidden layer": (Problem((4, 3), sigma=(0.6,)), LOCAL),
    **{
        f"{activation}, {loss}, {law}, {perturb}": (
            Problem((4, 3, 3), activation, loss, law, perturb),
            LOCAL
            | {"conditional_score": activation == "threshold"}
            | {"standardised_loss": loss == "zero_one"},
        )
        for activation in ("sigmoid", "threshold")
        for loss in ("cross_entropy", "zero_one")
        for law in ("logistic", "gaussian")
        for perturb in ("logits", "weights")
    },
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_compiled_loops_give_the_gradient_of_numpys(name):
    problem, settings = PROBLEMS[name]
    x, y = samples_of(problem)
    batch, layers = Batch(np.tile(x, COPIES), np.tile(y, COPIES)), layers_of(problem)
    glr = glr_of(problem, **settings)
    expected, found = (
        flat(glr_gradient(method, layers, batch, streams_of(problem, 1)))
        for method in (glr, replace(glr, loops=compiled.LOOPS))
    )
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_every_loop_of_its_own_is_taken(monkeypatch):
    """What the default scripts need is compiled: nothing is left to NumPy's functions."""

    def refused(*_):
        raise AssertionError("left to NumPy")

    monkeypatch.setattr(compiled, "NUMPY_LOOPS", Loops(*[refused for _ in Loops._fields]))
    for activation in ("sigmoid", "threshold"):
        for loss in ("cross_entropy", "zero_one"):
            problem = Problem((4, 3, 3), activation, loss)
            settings = LOCAL | {"conditional_score": activation == "threshold"}
            glr = glr_of(problem, loops=compiled.LOOPS, **settings)
            batch, streams = Batch(*samples_of(problem)), streams_of(problem, 1)
            glr_gradient(glr, layers_of(problem), batch, streams)


def test_neurons_of_words_below_at_and_above_their_level_are_numpys():
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 2**16, (4, 5)).astype(np.uint16)
    beside = np.array([-1, 0, 1]).reshape(3, 1, 1, 1)
    words = np.tile(levels.astype(int) + beside, (1, 2, 1, 1)).astype(np.uint16)
    gap = rng.random((4, 5), dtype=np.float32)
    for found, expected in zip(
        compiled.bernoulli(words, levels, gap), bernoulli(words, levels, gap), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_functions_are_those_of_numpy_to_a_few_units_in_the_last_place():
    grid = np.geomspace(2**-24, 2**24, 20_001, dtype=np.float32)
    below = -np.geomspace(2**-24, 86, 20_001, dtype=np.float32)
    both = np.concatenate([below, -below])
    unit = np.finfo(np.float32).eps
    log = np.array([compiled.log(x) for x in grid], np.float64)
    np.testing.assert_allclose(log, np.log(grid.astype(float)), rtol=2 * unit, atol=unit)
    exp = np.array([compiled.exp(x) for x in below], np.float64)
    np.testing.assert_allclose(exp, np.exp(below.astype(float)), rtol=2 * unit)
    tanh = np.array([compiled.tanh(x) for x in both], np.float64)
    np.testing.assert_allclose(tanh, np.tanh(both.astype(float)), rtol=4 * unit)


def test_far_exponentials_are_nothing_and_tanh_stays_within_one():
    assert 0 <= compiled.exp(np.float32(-1e30)) < 1e-37
    assert abs(compiled.tanh(np.float32(1e30))) <= 1
    assert abs(compiled.tanh(np.float32(-1e30))) <= 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_number_have_no_cross_entropy(bad):
    z = np.zeros((2, 1, 3, 4), np.float32)
    z[1, 0, 2, 3] = bad
    with np.errstate(invalid="ignore"):
        losses = compiled.losses_of(cross_entropy, z, np.array([0, 1, 2, 0]))
    assert np.isnan(losses[1, 0, 3])
    assert np.isfinite(losses).sum() == losses.size - 1


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("loss", [cross_entropy, zero_one])
def test_label_without_a_class_is_refused(loss, label):
    with pytest.raises(IndexError, match="names no class"):
        compiled.losses_of(loss, np.zeros((1, 1, 3, 2), np.float32), np.array([0, label]))


def test_compiled_script_is_reproducible_and_says_that_it_is_compiled(tmp_path):
    words = ("--compiled", "--steps", 300, "--eval-every", 100)
    for folder in ("a", "b"):
        ran = run("LRTZ.py", *words, "--models-dir", tmp_path / folder)
        assert ran.returncode == 0, ran.stderr
    assert_same_run(tmp_path / "a", tmp_path / "b", "LRTZ_digits_seed0")
    _, metadata = saved(tmp_path / "a" / "LRTZ_digits_seed0.npz")
    assert metadata["constants"]["COMPILED"] is True
    assert metadata["metrics"]["test_accuracy"] > 0.8
    model = tmp_path / "a" / "LRTZ_digits_seed0.npz"
    ran = run("LRTZ.py", "--like", model, "--models-dir", tmp_path / "c")
    assert ran.returncode == 0, ran.stderr
    assert_same_run(tmp_path / "a", tmp_path / "c", "LRTZ_digits_seed0")


def test_the_first_run_says_that_it_compiles_and_the_next_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    words = ("LRS.py", "--compiled", "--steps", 2, "--models-dir", tmp_path)
    assert "compiling" in run(*words).stderr
    assert run(*words).stderr == ""


def test_without_numba_the_script_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "numba.py").write_text("raise ImportError('No module named numba')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ran = run("LRS.py", "--compiled", "--models-dir", tmp_path)
    assert ran.returncode == 2
    assert "pip install numba" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    ran = run("LRS.py", "--steps", 5, "--models-dir", tmp_path)
    assert ran.returncode == 0, ran.stderr
