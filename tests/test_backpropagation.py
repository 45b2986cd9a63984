"""Backpropagation, the matched control: its gradient, its noise, its random numbers."""

import functools
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from exact_means import pathwise_mean
from problems import (
    LAWS,
    PACKAGE_LAWS,
    Problem,
    assert_equal_means,
    assert_powerful,
    flat,
    mean_of,
    parameters_of,
    samples_of,
    staircase,
)

from glr.checks import sigma_by_layer
from glr.errors import GLRError
from glr.estimator import Method
from glr.losses import cross_entropy, zero_one
from glr.network import (
    Layer,
    Network,
    layer_views,
    logits,
    new_network,
    relu,
    sigmoid,
    tanh,
    threshold,
)
from glr.noise import gaussian, logistic, noise_and_score
from glr.scripts import backpropagation as module
from glr.scripts.backpropagation import (
    Backpropagated,
    TrainingNoise,
    backpropagation,
    deviation,
)
from glr.scripts.constants import constants_of

NO_NOISE = TrainingNoise(logistic, (0.0,), "logits")
ROWS = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([0, 1, 1, 0, 1, 0])
THRESHOLDS = new_network([4, 3, 2], threshold, np.random.default_rng(0))


def rng_of(seed=0):
    return np.random.Generator(np.random.SFC64(seed))


def network_of(problem):
    return Network(parameters_of(problem), list(problem.sizes), sigmoid)


def backpropagation_by_jax(network, loss, noise):
    """As `backpropagation`, by what BP.py's steps are with BACKEND = "jax"."""
    jax = pytest.importorskip("jax")
    from glr.scripts import by_jax  # noqa: PLC0415  (no requirement)

    sigma = sigma_by_layer(noise.sigma, len(network.layers))
    method = Method(network.activation, loss, noise.law, sigma, noise.perturb, **by_jax.ONE_PASS)
    compiled = jax.jit(functools.partial(by_jax.backpropagated, method))

    def gradient(x, y, rng):
        keys = rng.integers(2**32, size=(len(sigma), 2), dtype=np.uint32)
        layers = [Layer(W.T, b) for W, b in network.layers]
        found, risk, inputs = jax.device_get(compiled(layers, x.T, y, keys))
        return Backpropagated([Layer(W.T, b) for W, b in found], float(risk), inputs.T)

    return gradient


BOTH = {"tensorflow": backpropagation, "jax": backpropagation_by_jax}
by_both = pytest.mark.parametrize("backpropagation", BOTH.values(), ids=BOTH)


def straight_through_signals(network, x, y, slope):
    """∂ cross-entropy/∂v of output (N × n_out) and hidden logits, a threshold's slope replaced.

    Its outputs forward; backward, the derivative of σ(slope·v) in the place of one of zero.
    """
    z = network.logits(x)
    (W, b), (last, _) = network.layers
    delta = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) - np.eye(z.shape[1])[y]
    hidden = sigmoid(slope * (x @ W + b))
    return delta, slope * hidden * (1 - hidden) * (delta @ last.T)


def test_importing_it_does_not_import_tensorflow():
    code = "import sys, glr.scripts.backpropagation; sys.exit('tensorflow' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


KERAS = """
from glr.scripts.backpropagation import import_tensorflow
import_tensorflow()
import keras
print(keras.backend.backend(), keras.backend.floatx(), keras.backend.image_data_format())
"""
SETTINGS = '{"backend": "nonsense", "floatx": "float64", "image_data_format": "channels_first"}'


@pytest.mark.parametrize("keras_json", [SETTINGS, "[]"], ids=["other", "damaged"])
def test_the_user_s_settings_of_keras_are_not_ours(keras_json, tmp_path):
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(keras_json)
    own = {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    own |= {"KERAS_BACKEND": "nonsense", "KERAS_MAX_EPOCHS": "x", "PYTHONWARNINGS": "ignore"}
    own |= {"MPLBACKEND": "module://of_a_notebook"}
    ran = subprocess.run(
        [sys.executable, "-c", KERAS],
        env={**os.environ, **own},
        text=True,
        capture_output=True,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("tensorflow float32 channels_last\n", "")
    assert (tmp_path / ".keras" / "keras.json").read_text() == keras_json


@by_both
def test_threshold_networks_are_trained_straight_through(backpropagation):
    """The slope is that of F(v), the mean output of a neuron with logistic noise of deviation 1."""
    slope = 4 * (logistic.cdf(np.float32(1e-2)) - 0.5) / 1e-2  # σ′(0) = 1/4
    gradient = backpropagation(THRESHOLDS, cross_entropy, NO_NOISE)
    found = gradient(ROWS, LABELS, rng_of()).layers
    delta, signal = straight_through_signals(THRESHOLDS, ROWS, LABELS, slope)
    hidden = ROWS @ THRESHOLDS.layers[0].W + THRESHOLDS.layers[0].b > 0
    for layer, x, of_logits in zip(found, (ROWS, hidden), (signal, delta), strict=True):
        np.testing.assert_allclose(layer.W, x.T @ of_logits / 6, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(layer.b, of_logits.mean(axis=0), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("hidden", [[3], [4, 3]])
@pytest.mark.parametrize("activation", [sigmoid, tanh, relu])
@by_both
def test_the_gradient_is_the_numerical_one_of_the_parameters_as_they_are(
    backpropagation, activation, hidden
):
    network = new_network([4, *hidden, 2], activation, np.random.default_rng(0))
    gradient = backpropagation(network, cross_entropy, NO_NOISE)
    gradient(ROWS, LABELS, rng_of())
    network.parameters[:] *= 1.5  # after they were seen

    def risk(parameters):
        z = logits(layer_views(parameters, network.sizes), activation, ROWS.astype(float))
        return cross_entropy(z.T, LABELS).mean()

    found, exact = gradient(ROWS, LABELS, rng_of()), network.parameters.astype(float)
    steps = 1e-5 * np.eye(len(exact))
    slopes = [(risk(exact + step) - risk(exact - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(flat(found), [*slopes, risk(exact)], atol=1e-5)


@pytest.mark.parametrize("law", PACKAGE_LAWS)
def test_noise_is_drawn_of_its_law_where_there_is_any(law, monkeypatch):
    drawn = []

    def draw(*asked):
        drawn.append(asked)
        return noise_and_score(*asked)

    monkeypatch.setattr(module, "noise_and_score", draw)
    network, rng = new_network([4, 3, 5, 2], sigmoid, np.random.default_rng(0)), rng_of()
    for sigma, widths in (((0.5,), (3, 5, 2)), ((0.5, 0.0), (3, 5)), ((0.0, 0.5, 0.0), (5,))):
        gradient = backpropagation(
            network, cross_entropy, TrainingNoise(LAWS[law], sigma, "logits")
        )
        gradient(ROWS, LABELS, rng)
        assert drawn == [(LAWS[law], rng, (6, 1, width)) for width in widths]
        drawn.clear()


def test_noise_is_scaled_by_its_deviation_and_on_weights_by_the_inputs_too():
    """By σ; or by σ√(1 + ‖x‖²), the deviation of the logits of noisy weights and biases."""
    assert deviation(ROWS, 0.7, "logits") == 0.7
    lengths = np.sqrt(1 + np.square(ROWS).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(deviation(ROWS, 0.7, "weights"), 0.7 * lengths, rtol=1e-6)


@pytest.mark.parametrize("perturb", ["logits", "weights"])
@pytest.mark.parametrize(
    ("name", "law"),
    [*product(["tensorflow"], LAWS), *product(["jax"], PACKAGE_LAWS)],
)
def test_noisy_backpropagation_has_the_mean_gradient_of_the_noisy_risk(name, law, perturb):
    """The one that glr.gradient estimates: the control differs in the estimate alone.

    Every entry within Welch's t bounds, at an error of 1e-4 for all of them together.
    """
    problem = Problem((3, 4, 3), law=law, perturb=perturb)
    noise = TrainingNoise(LAWS[law], problem.sigma, perturb)
    gradient, rng = BOTH[name](network_of(problem), cross_entropy, noise), rng_of()
    x, y = samples_of(problem)
    x, y = np.tile(x, (1500, 1)), np.tile(y, 1500)
    mean = mean_of(np.array([flat(gradient(x, y, rng)) for _ in range(100)]))
    assert_powerful(mean, problem.sizes)
    assert_equal_means(mean, pathwise_mean(problem))


def test_every_step_has_noise_of_its_own_and_a_restored_generator_repeats_it():
    problem, rng = Problem((3, 4, 3)), rng_of()
    noise = TrainingNoise(gaussian, problem.sigma, "logits")
    of_batch = backpropagation(network_of(problem), cross_entropy, noise)

    def gradient():
        return tuple(flat(of_batch(*samples_of(problem), rng)))

    first, state = gradient(), rng.bit_generator.state
    later = [gradient() for _ in range(3)]
    assert len({first, *later}) == 4
    rng.bit_generator.state = state
    assert [gradient() for _ in range(3)] == later


def test_what_cannot_be_differentiated_is_refused_in_one_line():
    own = THRESHOLDS._replace(activation=staircase)
    with pytest.raises(
        GLRError, match=r"^ACTIVATION = staircase: TensorFlow has no gradient of it"
    ):
        backpropagation(own, cross_entropy, NO_NOISE)
    with pytest.raises(GLRError, match=r"^LOSS = zero_one: BP.py differentiates cross_entropy"):
        backpropagation(THRESHOLDS, zero_one, NO_NOISE)


def test_each_script_refuses_the_backend_of_another():
    for script, wrong in (("BP.py", "numpy"), ("LRS.py", "tensorflow")):
        with pytest.raises(GLRError, match=f'BACKEND = {wrong}: must be "(numpy|tensorflow)" or'):
            constants_of(script, ["--backend", wrong])
