"""glr.gradient, the public function: what holds of every single estimate, and what is refused."""

import os
import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from problems import (
    N_SAMPLES,
    Problem,
    constant_loss,
    estimate_of,
    estimates,
    flat,
    layers_of,
    parameters_of,
    relative_difference,
    samples_of,
)

from glr import estimator
from glr.errors import GLRError
from glr.estimator import gradient
from glr.losses import cross_entropy, zero_one
from glr.network import Layer, new_network, sigmoid, threshold
from glr.noise import NoiseLaw, logistic
from glr.scripts.constants import ROOT, constants_of

METHOD_CONSTANTS = (
    "activation",
    "loss",
    "noise",
    "sigma",
    "perturb",
    "replicates",
    "local_differences",
    "control_variate",
    "standardised_loss",
)
SCRIPTS = ("LRS.py", "LRSZ.py", "LRT.py", "LRTZ.py")
VARIANTS = {
    "sigmoid": (Problem((7, 9, 5)), {}),
    "forward": (Problem((7, 9, 11, 5), sigma=(0.8, 0.7, 0.6)), {"local_differences": False}),
    "output": (Problem((7, 9, 5), law="gaussian"), {"local_differences": "output"}),
    "deep": (Problem((7, 9, 11, 8, 5), "tanh", sigma=(0.8, 0.7, 0.7, 0.6)), {}),
    "threshold": (Problem((7, 9, 5), "threshold", law="laplace"), {}),
    "threshold, deep": (Problem((7, 9, 8, 5), "threshold", perturb="weights"), {}),
    "zero-one": (Problem((7, 9, 5), loss="zero_one"), {"standardised_loss": True}),
    "weights": (Problem((7, 9, 5), perturb="weights"), {}),
    "no hidden layer": (Problem((7, 5), sigma=(0.6,)), {}),
}
each_variant = pytest.mark.parametrize("name", VARIANTS)


def everything(estimate):
    """The parameters' gradient, the risk and the inputs' gradient, flat."""
    return np.concatenate([flat(estimate), estimate.inputs.ravel()])


# ---------------------------------------------------------------- what comes back


@each_variant
def test_estimate_is_float32_of_the_arguments_shapes_and_leaves_them_alone(name):
    problem, settings = VARIANTS[name]
    layers, (x, y) = layers_of(problem), samples_of(problem)
    estimate = estimate_of(problem, x, y, **settings)
    before = everything(estimate)
    estimate_of(problem, x, y, rng=2, **settings)
    assert np.array_equal(everything(estimate), before)
    for layer, found in zip(layers, estimate.layers, strict=True):
        assert [part.shape for part in found] == [part.shape for part in layer]
        assert {part.dtype for part in found} == {np.dtype(np.float32)}
    assert estimate.inputs.shape == x.shape
    assert estimate.inputs.dtype == np.float32
    assert isinstance(estimate.risk, float)
    assert np.array_equal(x, samples_of(problem)[0])
    assert np.array_equal(y, samples_of(problem)[1])
    flat_layers = np.concatenate([part.ravel() for layer in layers for part in layer])
    assert np.array_equal(flat_layers, parameters_of(problem))


def test_a_law_that_draws_float64_gives_float32():
    law = NoiseLaw("double", lambda rng, shape: (rng.standard_normal(shape),) * 2)
    estimate = estimate_of(Problem((3, 4, 3)), noise=law)
    assert {part.dtype for layer in estimate.layers for part in layer} == {np.dtype(np.float32)}


@each_variant
def test_arrays_of_any_number_type_and_order_give_the_same(name):
    problem, settings = VARIANTS[name]
    (x, y), layers = samples_of(problem), layers_of(problem)
    wanted = everything(estimate_of(problem, **settings))
    x = np.asfortranarray(x.astype(np.float64))
    assert np.array_equal(wanted, everything(estimate_of(problem, x, y.tolist(), **settings)))
    assert np.array_equal(
        wanted, everything(estimate_of(problem, x.tolist(), y.astype(np.uint8), **settings))
    )
    doubles = tuple(Layer(W.astype(np.float64), b.tolist()) for W, b in layers)
    rng = np.random.default_rng(1)
    found = estimate_of(problem, layers=doubles, rng=rng, **settings)
    assert np.array_equal(wanted, everything(found))


@each_variant
def test_same_seed_gives_the_same_bits(name):
    problem, settings = VARIANTS[name]
    first, again, other = (estimates(problem, 3, 5, seed, **settings) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.any(np.all(first == other, axis=1))
    assert not np.array_equal(first[0], first[1])


DIGEST_OF_THE_PAPER_S_NETWORK = """
import hashlib, os, sys
cores = sorted(os.sched_getaffinity(0))[: int(sys.argv[1])]
os.sched_setaffinity(0, cores)
import numpy as np
from glr.estimator import gradient
from glr.losses import cross_entropy
from glr.network import new_network, sigmoid
from glr.scripts.machine import prepare_for_small_arrays
prepare_for_small_arrays()
rng = np.random.default_rng(0)
layers = new_network([784, 50, 10], sigmoid, rng).layers
x, y = rng.random((128, 784), dtype=np.float32), rng.integers(0, 10, 128)
found = gradient(layers, x, y, activation=sigmoid, loss=cross_entropy, rng=rng)
bits = b"".join(part.tobytes() for layer in found.layers for part in layer)
print(hashlib.sha256(bits).hexdigest())
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone lends cores")
def test_bits_do_not_depend_on_the_cores_where_blas_has_one():
    """As scripts do: prepare_for_small_arrays. Else the last bits are those of BLAS's threads."""
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST_OF_THE_PAPER_S_NETWORK, n],
            cwd=ROOT,
            env=os.environ | {"OPENBLAS_NUM_THREADS": n},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for n in ("1", "2")
    }
    assert len(digests) == 1


# ---------------------------------------------------------------- the gradient in the inputs


@pytest.mark.parametrize("name", [n for n, (p, _) in VARIANTS.items() if p.perturb == "logits"])
def test_inputs_have_the_first_layer_s_gradient_sample_by_sample(name):
    """A bias's gradient is δ, for a sample alone; its inputs' is W·δ."""
    problem, settings = VARIANTS[name]
    x, y = (part[:1] for part in samples_of(problem))
    estimate = estimate_of(problem, x, y, **settings)
    wanted = layers_of(problem)[0].W @ estimate.layers[0].b
    np.testing.assert_allclose(estimate.inputs[0], wanted, rtol=1e-5, atol=1e-7)


def test_inputs_stay_when_weights_and_samples_are_changed_in_place():
    problem = Problem((3, 4, 3))
    layers, (x, y) = layers_of(problem), samples_of(problem)
    unchanged, changed = (estimate_of(problem, x, y, layers=layers) for _ in range(2))
    wanted = unchanged.inputs
    layers[0].W[:] = 0
    x[:] = 0
    assert np.any(wanted != 0)
    np.testing.assert_array_equal(changed.inputs, wanted)


# ---------------------------------------------------------------- the loss


@pytest.mark.parametrize("local", [True, "output", False])
def test_gradient_is_linear_in_the_loss(local):
    problem = Problem((3, 4, 4, 3), sigma=(0.8, 0.8, 0.6))
    for control_variate in (True, False):
        settings = {"control_variate": control_variate, "local_differences": local}
        plain, of_one, rescaled = (
            everything(estimate_of(problem, loss=loss, **settings))
            for loss in (cross_entropy, constant_loss, lambda z, y: 5 * cross_entropy(z, y) + 3)
        )
        np.testing.assert_allclose(rescaled, 5 * plain + 3 * of_one, rtol=1e-3, atol=1e-4)
        drops_out = control_variate or local  # a constant in the loss
        assert np.all(flat(estimate_of(problem, loss=constant_loss, **settings))[:-1] == 0) == bool(
            drops_out
        )


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("standardised", [False, True])
@pytest.mark.parametrize("constant", [0, 1])
def test_sample_with_equal_losses_contributes_nothing(constant, standardised, local):
    """Feature 2 is the second sample's alone, whose 0-1 loss is made constant."""

    def loss(logits, y):
        return np.where(np.arange(len(y)) == 1, np.float32(constant), zero_one(logits, y))

    x = np.array([[0.3, 0.9, 0], [0.2, 0.5, 1]], np.float32)
    settings = {"standardised_loss": standardised, "local_differences": local, "replicates": 200}
    estimate = estimate_of(Problem((3, 4, 3)), x, [0, 1], loss=loss, **settings)
    assert np.all(estimate.layers[0].W[2] == 0)
    assert np.all(estimate.layers[0].W[:2] != 0)
    assert np.all(estimate.inputs[1] == 0)


@pytest.mark.parametrize("local", [True, "output", False])
def test_standardised_loss_divides_by_deviation_and_share_right(local):
    """Of 200 passes; by the rule of succession the share right is (right + 1)/202."""
    problem = Problem((3, 4, 3), loss="zero_one")
    x, y = samples_of(problem)
    shares_wrong = set()
    for i in range(N_SAMPLES):
        plain, standardised = (
            flat(
                estimate_of(
                    problem,
                    x[[i]],
                    y[[i]],
                    rng=3,
                    replicates=200,
                    standardised_loss=on,
                    local_differences=local,
                )
            )
            for on in (False, True)
        )
        q = (200 * (1 - plain[-1]) + 1) / 202
        assert relative_difference(standardised, plain / (np.sqrt(q * (1 - q)) + q)) < 1e-5
        assert standardised[-1] == plain[-1]
        shares_wrong.add(plain[-1])
    assert 0 < min(shares_wrong) < max(shares_wrong) < 1


@pytest.mark.parametrize("loss", [0.5, 2, -1, np.nan])
def test_standardised_loss_of_anything_but_0_and_1_is_refused(loss):
    def one_of_another(logits, y):
        return np.where(np.arange(len(y)) == 1, np.float32(loss), zero_one(logits, y))

    with pytest.raises(GLRError, match="is for a loss of 0 or 1"):
        estimate_of(Problem((3, 4, 3)), loss=one_of_another, standardised_loss=True)


# ---------------------------------------------------------------- groups of passes, and memory


@each_variant
def test_passes_too_many_to_keep_give_the_mean_over_their_groups(name, monkeypatch):
    """75 replicates, of which 16 are kept: five groups of 15, one after the other."""
    problem, settings = VARIANTS[name]
    rng = np.random.default_rng(1)
    groups = [
        everything(estimate_of(problem, rng=rng, replicates=15, **settings)) for _ in range(5)
    ]
    monkeypatch.setattr(estimator, "FLOATS_AT_ONCE", 1)
    found = everything(estimate_of(problem, replicates=75, **settings))
    np.testing.assert_allclose(found, np.mean(groups, axis=0), rtol=1e-4, atol=1e-6)


def test_groups_of_passes_count_by_their_sizes(monkeypatch):
    """31 passes are groups of 15 and 16; a loss here is the number of passes evaluated at once."""
    monkeypatch.setattr(estimator, "FLOATS_AT_ONCE", 1)
    loss = {"loss": lambda z, y: np.full(z.shape[:-2] + y.shape, len(z), np.float32)}
    estimate = estimate_of(Problem((3, 4, 3)), replicates=31, local_differences=False, **loss)
    assert estimate.risk == pytest.approx((15 * 15 + 16 * 16) / 31, rel=1e-6)


@pytest.mark.parametrize("replicates", [1, 2, 16, 17, 99, 1500, 10_001])
@pytest.mark.parametrize("floats", [1, 40 * 8 * 6])
def test_no_pass_is_alone_in_its_group(replicates, floats, monkeypatch):
    """The widest layer has 8 neurons, the batch 6 samples: 40 passes are kept, or 16."""
    monkeypatch.setattr(estimator, "FLOATS_AT_ONCE", floats)
    sizes = estimator.groups_of_passes(replicates, 8 * 6)
    kept = 16 if floats == 1 else 40
    assert sum(sizes) == replicates
    assert len(sizes) == -(-replicates // kept)
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == 1 or min(sizes) >= 8


def peak_memory(hidden, method):
    """Bytes at the peak of one gradient of 784-…-10 for 128 samples, which is finite."""
    rng = np.random.default_rng(1)
    layers = new_network([784, *hidden, 10], method["activation"], rng).layers
    x, y = rng.random((128, 784), dtype=np.float32), rng.integers(0, 10, 128)
    tracemalloc.start()
    try:
        estimate = gradient(layers, x, y, **method, rng=rng)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.all(np.isfinite(everything(estimate)))
    return peak


def script_method(script, **others):
    """The arguments of gradient that a script's constants are."""
    constants = constants_of(script, [])
    return {name: getattr(constants, name.upper()) for name in METHOD_CONSTANTS} | others


@pytest.mark.parametrize(("hidden", "R"), [([50], 10_000), ([500, 500], 100)], ids=str)
@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("script", SCRIPTS)
def test_memory_of_the_scripts_methods_is_bounded(script, local, hidden, R):
    """A float for each pass, sample and hidden neuron would be 256 MB, or 51 MB many times over."""
    method = script_method(script, replicates=R, local_differences=local)
    assert peak_memory(hidden, method) < 100e6


@pytest.mark.parametrize("hidden", [[50], [2000]], ids=str)
def test_memory_does_not_grow_with_the_passes(hidden):
    """From two groups of passes on: the sum over groups is kept, and no group's part of it."""
    floats = estimator.FLOATS_AT_ONCE // (128 * max(hidden))
    in_a_group = max(estimator.PASSES_AT_ONCE, floats)
    few, many = (
        peak_memory(hidden, script_method("LRS.py", replicates=n, local_differences=False))
        for n in (2 * in_a_group, 12 * in_a_group)
    )
    assert many < 1.1 * few


# ---------------------------------------------------------------- what is refused


def network_layers():
    return new_network([4, 3, 2], sigmoid, np.random.default_rng(0)).layers


FIRST, LAST = network_layers()
X = np.random.default_rng(0).random((5, 4), dtype=np.float32)
Y = np.array([0, 1, 1, 0, 1])
WRONG = {  # arguments, what was given, what is wanted
    "columns": ({"x": X.T}, "x has shape (4, 5)", "(N, 4)"),
    "one sample without its axis": ({"x": X[0], "y": Y[:1]}, "x has shape (4,)", "(N, 4)"),
    "no sample": ({"x": X[:0], "y": Y[:0]}, "x has shape (0, 4)", "one sample at least"),
    "words": ({"x": [["a"] * 4] * 5}, "x is a list", "an array of numbers"),
    "ragged x": ({"x": [[1], [1, 2]]}, "x is a list", "an array of numbers"),
    "too few labels": ({"y": Y[:3]}, "y has shape (3,) for 5 samples", "one target for each"),
    "one label": ({"y": 1}, "y has shape () for 5 samples", "one target for each"),
    "ragged labels": ({"y": [[1], [1, 0], [1], [1], [0]]}, "y is a list", "target"),
    "float labels": ({"y": Y / 2}, "float64", "whole class labels 0 … 1"),
    "true labels": ({"y": Y == 1}, "bool", "whole class labels 0 … 1"),
    "labels in columns": ({"y": Y[:, None]}, "shape (5, 1)", "shape (B,)"),
    "labels too large": ({"y": Y + 1}, "2", "whole class labels 0 … 1"),
    "labels below 0": ({"y": Y - 1}, "-1", "whole class labels 0 … 1"),
    "float labels of 0-1": ({"y": Y / 2, "loss": zero_one}, "float64", "zero_one takes whole"),
    "one layer": ({"layers": FIRST}, "layers is a Layer", "a list of glr.Layer(W, b)"),
    "no layers": ({"layers": []}, "layers is", "a list of glr.Layer(W, b)"),
    "an array": ({"layers": X}, "layers is a ndarray", "a list of glr.Layer(W, b)"),
    "plain tuple": ({"layers": [FIRST, tuple(LAST)]}, "layers[1] is a tuple", "glr.Layer(W, b)"),
    "layers that do not fit": (
        {"layers": [LAST, FIRST], "x": X[:, :3]},
        "layers[1].W has shape (4, 3)",
        "(2, n_out)",
    ),
    "weights in rows": (
        {"layers": [Layer(FIRST.W.T, FIRST.b), LAST]},
        "layers[0] has W of shape (3, 4) and b of shape (3,)",
        "W (n_in, n_out) and b (n_out,)",
    ),
    "weights of words": (
        {"layers": [Layer("W", FIRST.b), LAST]},
        "layers[0].W is 'W'",
        "an array of numbers",
    ),
    "law by name": ({"noise": "logistic"}, "noise is 'logistic'", "a glr.NoiseLaw"),
    "activation by name": ({"activation": "tanh"}, "activation is 'tanh'", "a function"),
    "no loss": ({"loss": None}, "loss is None", "a function"),
    "seed": ({"rng": 3}, "rng is 3", "np.random.default_rng(seed)"),
    "old generator": ({"rng": np.random.RandomState(0)}, "a RandomState", "default_rng(seed)"),
    "σ for three": ({"sigma": (1, 1, 1)}, "sigma has 3 numbers for 2 layers", "give 1 or 2"),
    "no σ": ({"sigma": ()}, "sigma has 0 numbers for 2 layers", "give 1 or 2"),
    "σ 0": ({"sigma": (1, 0)}, "sigma = (1, 0)", "finite numbers > 0"),
    "σ negative": ({"sigma": -1}, "sigma = -1", "finite numbers > 0"),
    "σ no number": ({"sigma": np.nan}, "sigma = nan", "finite numbers > 0"),
    "σ infinite": ({"sigma": (np.inf, 1)}, "inf", "finite numbers > 0"),
    "σ too small for float32": ({"sigma": 1e-50}, "1e-50", "numbers > 0"),
    "σ too large for float32": ({"sigma": 1e300}, "1e+300", "finite"),
    "σ in a table": ({"sigma": [[1, 2]]}, "sigma is a list", "one number"),
    "σ a word": ({"sigma": "one"}, "sigma is 'one'", "an array of numbers"),
    "place": ({"perturb": "inputs"}, "perturb is 'inputs'", '"logits" or "weights"'),
    "control variate by word": ({"control_variate": "no"}, "control_variate is 'no'", "True or"),
    "standardised by array": (
        {"standardised_loss": np.ones(2)},
        "standardised_loss is a ndarray",
        "True or False",
    ),
    "loss of zeros": ({"loss": np.zeros(3)}, "loss is a ndarray", "a function"),
    "differences by 1": ({"local_differences": 1}, "is 1", 'True, "output" or False'),
    "differences by word": ({"local_differences": "all"}, "is 'all'", 'True, "output" or False'),
    "no passes": ({"replicates": 0}, "replicates is 0", "a whole number ≥ 1"),
    "half a pass": ({"replicates": 2.5}, "replicates is 2.5", "a whole number ≥ 1"),
    "one pass": ({"replicates": 1, "local_differences": False}, "replicates = 1", "give 2 or more"),
    "one pass to standardise": (
        {"replicates": 1, "standardised_loss": True, "loss": zero_one},
        "replicates = 1",
        "give 2 or more",
    ),
    "activation that sums": (
        {"activation": lambda v: v.sum(axis=0)},
        "the activation gave shape (2, 5) for logits (3, 2, 5)",
        "it must be elementwise",
    ),
    "activation of text": (
        {"activation": lambda v: "x"},
        "the activation gave str32",
        "must give real numbers",
    ),
    "loss of complex numbers": (
        {"loss": lambda z, y: z[..., 0, :] + 1j},
        "the loss gave complex64",
        "must give real numbers",
    ),
    "loss of every class": (
        {"loss": lambda z, y: z},
        "the loss gave shape (2, 2, 5)",
        "it must reduce the classes",
    ),
    "law with cdf alone": (
        {"noise": NoiseLaw("half", logistic.draw, logistic.cdf), "activation": threshold},
        "half",
        "pdf",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_in_one_line(name):
    wrong, given, wanted = WRONG[name]
    arguments = {
        "layers": network_layers(),
        "x": X,
        "y": Y,
        "activation": sigmoid,
        "loss": cross_entropy,
        "rng": np.random.default_rng(0),
    }
    with pytest.raises(GLRError) as error:
        gradient(**(arguments | wrong))
    message = str(error.value)
    assert "\n" not in message
    assert given in message
    assert wanted in message


@pytest.mark.parametrize(("sizes", "listed"), [((4, 3, 2), "1 or 2"), ((4, 3, 3, 2), "1, 2 or 3")])
def test_numbers_of_sigma_that_there_may_be(sizes, listed):
    problem = Problem(sizes, sigma=(1.0,) * 5)
    with pytest.raises(GLRError, match=f"sigma has 5 numbers .* give {listed}$"):
        estimate_of(problem)


@pytest.mark.parametrize(
    ("given", "by_layer"), [(0.7, (0.7,) * 3), ((0.7, 0.5), (0.7, 0.7, 0.5)), ([0.7], (0.7,) * 3)]
)
def test_one_sigma_is_for_all_layers_and_two_for_hidden_and_output(given, by_layer):
    problem = Problem((3, 4, 4, 3))
    found, wanted = (everything(estimate_of(problem, sigma=sigma)) for sigma in (given, by_layer))
    np.testing.assert_array_equal(found, wanted)


def test_one_layer_has_the_sigma_of_the_output():
    problem = Problem((3, 3))
    found, wanted = (everything(estimate_of(problem, sigma=sigma)) for sigma in ((9, 0.5), 0.5))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    "drawn", [None, 0.5, "noise", np.zeros((2, 4, 60)), (np.zeros(3),) * 2, (0, 0, 0)]
)
def test_a_noise_law_that_draws_something_else_is_refused(drawn):
    law = NoiseLaw("odd", lambda rng, shape: drawn)
    with pytest.raises(GLRError, match=r"the noise odd drew shapes .* must return the noise and"):
        estimate_of(Problem((3, 4, 3)), noise=law)


def hinge_that_marks_its_argument(logits, y):
    """The multi-class hinge loss as it is often written: the label's logit is overwritten."""
    own = logits[..., y, np.arange(len(y))].copy()
    logits[..., y, np.arange(len(y))] = -1e9
    return np.maximum(0, 1 - own + logits.max(axis=-2))


def loss_that_changes_the_labels(logits, y):
    y[:] = 0
    return zero_one(logits, y)


@pytest.mark.parametrize("loss", [hinge_that_marks_its_argument, loss_that_changes_the_labels])
@pytest.mark.parametrize("local", [True, "output", False])
def test_a_loss_that_writes_to_its_arguments_is_stopped(loss, local):
    """They are needed after it: training would go wrong, and say nothing."""
    with pytest.raises(ValueError, match="read-only"):
        estimate_of(Problem((3, 4, 3)), loss=loss, local_differences=local)


def test_docstring_names_every_argument():
    names = re.findall(r"^    (\w[\w, ]*) : ", gradient.__doc__, re.M)
    documented = {word for group in names for word in group.split(", ")}
    assert documented == set(gradient.__annotations__) - {"return"}
