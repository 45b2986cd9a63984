"""Trained networks: saved, loaded, and asked for predictions."""

import json
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from datafiles import refusal
from scipy.special import softmax

import glr
from glr.data.datasets import load_dataset
from glr.errors import UnknownActivationError
from glr.network import Network, new_network
from glr.storage.models import load_model, save_model

ROOT = Path(__file__).resolve().parent.parent
PRETRAINED = ROOT / "models" / "pretrained"
X = np.random.default_rng(1).standard_normal((5, 4), np.float32)


def staircase(v):
    """Five levels: no activation of glr's."""
    return np.round(4 / (1 + np.exp(-v))) / 4


def saved(folder, activation=glr.threshold, scale=1.0):
    """The path of a 4-3-2 network's file, and the network."""
    network = new_network([4, 3, 2], activation, np.random.default_rng(0), scale)
    save_model(folder / "m.npz", network, {"activation": activation.__name__})
    return folder / "m.npz", network


def test_a_saved_model_is_loaded_as_it_was(tmp_path):
    path, network = saved(tmp_path)
    for place in (path, str(path)):
        model = load_model(place)
        np.testing.assert_array_equal(model.network.parameters, network.parameters)
        assert model.network.sizes == [4, 3, 2]
        assert model.network.activation is glr.threshold
        assert model.metadata == {"activation": "threshold"}


# predictions ------------------------------------------------------------------------------------


def test_logits_are_those_of_the_noise_free_network(tmp_path):
    path, network = saved(tmp_path)
    (W0, b0), (W1, b1) = network.layers
    logits = glr.load(path).logits(X)
    np.testing.assert_array_equal(logits, ((X @ W0 + b0 > 0).astype(np.float32)) @ W1 + b1)


def test_class_numbers_are_of_the_largest_logit_and_probabilities_the_softmax(tmp_path):
    model = glr.load(saved(tmp_path)[0])
    np.testing.assert_array_equal(model.predict(X), model.logits(X).argmax(axis=1))
    np.testing.assert_allclose(
        model.predict_proba(X), softmax(model.logits(X), axis=1), rtol=1e-6, atol=0
    )


def test_no_class_is_predicted_from_what_is_no_number(tmp_path):
    path, _ = saved(tmp_path)
    assert "x holds NaN" in refusal(glr.load(path).predict, np.where(X > 1, np.nan, X))
    network = new_network([4, 3, 2], staircase, np.random.default_rng(0))
    save_model(path, network, {"activation": "root"})
    with np.errstate(invalid="ignore"):
        message = refusal(glr.load(path, activation=np.sqrt).predict, X)
    assert "the logits of sample 0 are NaN" in message


def test_probabilities_of_huge_logits_are_finite(tmp_path):
    model = glr.load(saved(tmp_path, scale=1e4)[0])
    assert np.abs(model.logits(X)).max() > 1000  # beyond what exp takes in float32
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("x", [X.tolist(), X.astype(np.float64), np.asfortranarray(X)])
def test_samples_of_any_type_and_order_of_numbers(tmp_path, x):
    model = glr.load(saved(tmp_path)[0])
    np.testing.assert_array_equal(model.predict(x), model.predict(X))


def test_no_samples_have_no_classes(tmp_path):
    model = glr.load(saved(tmp_path)[0])
    assert model.predict(X[:0]).shape == (0,)
    assert model.predict_proba(X[:0]).shape == model.logits(X[:0]).shape == (0, 2)


@pytest.mark.parametrize(
    ("x", "complaint"),
    [
        (X[0], "x has shape (4,); give (N, 4), samples in rows"),
        (X.T, "x has shape (4, 5); give (N, 4)"),
        (X[None], "x has shape (1, 5, 4); give (N, 4)"),
        (1.0, "x has shape (); give (N, 4)"),
        ([[1, 2, 3, 4], [1, 2]], "x is a list; give an array of numbers"),
        ([["a", "b", "c", "d"]], "x is a list; give an array of numbers"),
        (None, "x is None; give an array of numbers"),
    ],
)
@pytest.mark.parametrize("method", ["predict", "predict_proba", "logits"])
def test_samples_that_do_not_fit_are_refused(tmp_path, method, x, complaint):
    assert complaint in refusal(getattr(glr.load(saved(tmp_path)[0]), method), x)


@pytest.mark.parametrize("script", ["LRS", "LRT", "LRSZ", "LRTZ", "BP"])
def test_the_models_that_come_with_the_code_reach_what_they_say(script):
    model = glr.load(PRETRAINED / f"{script}_digits_seed0.npz")
    digits = load_dataset("digits", Path("unused"))
    n_right = (model.predict(digits.x_test) == digits.y_test).sum()
    # Rounding, which differs from machine to machine, may turn a sample on a boundary.
    assert abs(n_right - 360 * model.metadata["metrics"]["test_accuracy"]) < 2
    assert (model.name, model.seed) == (script, 0)


@pytest.mark.parametrize("folder", ["models", "data"])
def test_the_code_of_the_folder_s_page_runs(folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    page = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^    .*\n)+", page, re.MULTILINE)
    code = [textwrap.dedent(block) for block in blocks if re.search(r"^    (import|from) ", block)]
    assert code
    for block in code:
        exec(block, {})


# activations of one's own -----------------------------------------------------------------------


def test_an_activation_of_ones_own_is_given(tmp_path):
    path, network = saved(tmp_path, staircase)
    model = glr.load(path, activation=staircase)
    assert model.network.activation is staircase
    np.testing.assert_array_equal(model.logits(X), network.logits(X))


def test_an_activation_of_ones_own_that_is_not_given(tmp_path):
    path, _ = saved(tmp_path, staircase)
    with pytest.raises(UnknownActivationError) as caught:
        glr.load(path)
    assert str(caught.value) == (
        f"{path}: its activation 'staircase' is none of glr's (sigmoid, threshold, tanh, relu); "
        "give load(path, activation=f), or --functions FILE in the scripts of RobustnessTest"
    )


@pytest.mark.parametrize("activation", [glr.sigmoid, glr.threshold, glr.tanh, glr.relu])
def test_another_activation_than_that_of_glr_s_is_refused(tmp_path, activation):
    path, _ = saved(tmp_path, activation)
    assert glr.load(path, activation=activation).network.activation is activation
    message = refusal(lambda: glr.load(path, activation=staircase))
    assert message.startswith(f"{path}: was trained with glr.{activation.__name__}; leave out")


@pytest.mark.parametrize(
    ("activation", "complaint"),
    [
        ("staircase", "the activation is a str; give a function"),
        (lambda v: v.sum(axis=0), "the activation gave shape (3,) for logits (2, 3)"),
        (lambda v: 0.0, "the activation gave shape () for logits (2, 3)"),
    ],
)
def test_what_is_no_elementwise_function_is_refused(tmp_path, activation, complaint):
    path, _ = saved(tmp_path, staircase)
    with pytest.raises(glr.GLRError) as caught:
        glr.load(path, activation=activation)
    assert complaint in str(caught.value) and "\n" not in str(caught.value)


# files that are no models -----------------------------------------------------------------------


W, B = np.ones((4, 2), np.float32), np.ones(2, np.float32)
SIGMOID = np.array(json.dumps({"activation": "sigmoid"}))
BAD_MODELS = {
    "no metadata": ({"W0": W, "b0": B}, "no array 'metadata'"),
    "no layers": ({"metadata": SIGMOID}, "holds no layers"),
    "missing bias": ({"W0": W, "metadata": SIGMOID}, "no array 'b0'"),
    "wrong bias": ({"W0": W, "b0": np.ones(3, "f4"), "metadata": SIGMOID}, "W0 and b0 do not fit"),
    "deep bias": ({"W0": W, "b0": B[None], "metadata": SIGMOID}, "W0 and b0 do not fit"),
    "flat weights": ({"W0": B, "b0": B, "metadata": SIGMOID}, "W0 and b0 do not fit"),
    "no fit": ({"W0": W, "b0": B, "W1": W, "b1": B, "metadata": SIGMOID}, "W1 and b1 do not fit"),
    "not finite": ({"W0": W * np.nan, "b0": B, "metadata": SIGMOID}, "not finite float32"),
    "doubles": ({"W0": W.astype(float), "b0": B, "metadata": SIGMOID}, "not finite float32"),
    "pickles": ({"W0": np.array([{}]), "b0": B, "metadata": SIGMOID}, "W0 holds Python objects"),
    "empty": ({"W0": W[:0], "b0": B, "metadata": SIGMOID}, "W0 is empty"),
    "unknown": ({"W0": W, "b0": B, "metadata": np.array('{"activation": "step"}')}, "'step'"),
    "JSON of a list": ({"W0": W, "b0": B, "metadata": np.array("[1]")}, "no JSON object"),
    "foreign JSON": ({"W0": W, "b0": B, "metadata": np.array("[1, 2")}, "no JSON object"),
}


@pytest.mark.parametrize(("arrays", "why"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_files_that_are_no_models_are_refused_by_name(arrays, why, tmp_path):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    message = refusal(load_model, path)
    assert message.startswith(f"{path}: ") and why in message


def test_one_layer_is_a_network(tmp_path):
    network = Network(np.arange(10, dtype=np.float32), [4, 2], glr.sigmoid)
    save_model(tmp_path / "m.npz", network, {"activation": "sigmoid"})
    ((W0, b0),) = network.layers
    np.testing.assert_array_equal(glr.load(tmp_path / "m.npz").logits(X), X @ W0 + b0)
