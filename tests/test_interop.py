"""Networks to Keras and PyTorch and back: the same logits, and refusals of what cannot travel."""

import pickle
import sys

import numpy as np
import pytest

import glr
from glr.interop import from_keras, from_torch, to_keras, to_torch
from glr.network import Network, new_network
from glr.robustness.evaluation import PRETRAINED
from glr.scripts.backpropagation import import_tensorflow
from glr.storage.models import Model, save_model

RNG = np.random.default_rng(0)
X = RNG.random((40, 64), dtype=np.float32)


@pytest.fixture(scope="module")
def keras():
    import_tensorflow()
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def model_of(activation, sizes=(64, 30, 20, 10)):
    return Model(new_network([*sizes], activation, np.random.default_rng(1)), {})


def staircase(v):
    return np.round(v)


def refusal(convert, model):
    with pytest.raises(glr.GLRError) as caught:
        convert(model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")  # within Keras's save
@pytest.mark.parametrize("activation", [glr.sigmoid, glr.threshold, glr.tanh, glr.relu])
def test_keras_gives_the_same_logits_and_gives_the_network_back(activation, keras, tmp_path):
    model = model_of(activation)
    theirs = to_keras(model)
    np.testing.assert_allclose(theirs(X), model.logits(X), rtol=0, atol=1e-5)
    theirs.save(tmp_path / "it.keras")
    theirs = keras.saving.load_model(tmp_path / "it.keras", safe_mode=True)
    back = from_keras(theirs)
    assert back.network.activation is activation
    np.testing.assert_array_equal(back.network.parameters, model.network.parameters)


@pytest.mark.parametrize("activation", [glr.sigmoid, glr.threshold, glr.tanh, glr.relu])
def test_pytorch_gives_the_same_logits_and_gives_the_network_back(activation, torch):
    model = model_of(activation)
    theirs = pickle.loads(pickle.dumps(to_torch(model)))  # as torch.save does
    with torch.no_grad():
        np.testing.assert_allclose(theirs(torch.tensor(X)), model.logits(X), rtol=0, atol=1e-5)
    back = from_torch(theirs)
    assert back.network.activation is activation
    np.testing.assert_array_equal(back.network.parameters, model.network.parameters)


@pytest.mark.parametrize("script", ["LRS", "LRTZ"])
def test_a_saved_network_travels(script, keras):
    model = glr.load(PRETRAINED / f"{script}_digits_seed0.npz")
    np.testing.assert_allclose(to_keras(model)(X), model.logits(X), rtol=0, atol=1e-5)


def test_what_keras_trains_comes_and_can_be_saved_here(keras, tmp_path):
    """Flattened images, no biases, dropout, activations as layers: as people write them."""
    dense = keras.layers.Dense
    theirs = keras.Sequential(
        [
            keras.Input((8, 8)),
            keras.layers.Flatten(),
            dense(30, activation="relu", use_bias=False),
            keras.layers.Dropout(0.5),
            dense(20),
            keras.layers.ReLU(),
            dense(10),
        ]
    )
    model = from_keras(theirs)
    np.testing.assert_allclose(theirs(X.reshape(-1, 8, 8)), model.logits(X), rtol=0, atol=1e-5)
    save_model(tmp_path / "it.npz", model.network, model.metadata)
    np.testing.assert_array_equal(glr.load(tmp_path / "it.npz").logits(X), model.logits(X))


def test_what_pytorch_trains_comes(torch):
    nn = torch.nn
    hidden = nn.Flatten(), nn.Linear(64, 30, bias=False), nn.Tanh(), nn.Dropout(0.5)
    theirs = nn.Sequential(*hidden, nn.Linear(30, 10)).double().train()
    model = from_torch(theirs)
    with torch.no_grad():
        expected = theirs.eval()(torch.tensor(X).double())
    np.testing.assert_allclose(expected, model.logits(X), rtol=0, atol=1e-5)
    assert next(theirs.parameters()).dtype is torch.float64  # as it was


def test_one_layer_travels(keras):
    model = model_of(glr.tanh, (64, 10))
    np.testing.assert_array_equal(from_keras(to_keras(model)).logits(X), model.logits(X))


def keras_models(keras):
    """Models that cannot come, and what is said of them."""
    layers = keras.layers
    x = keras.Input((64,))
    a = layers.Dense(64, "relu")(x)
    twice = layers.Dense(64, "relu")

    def chain(*found, shape=(64,)):
        return keras.Sequential([keras.Input(shape), *found])

    def hidden(activation):
        return chain(layers.Dense(30, activation), layers.Dense(10))

    image = [layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(10)]
    return [
        (hidden("gelu"), "gelu between dense layers: glr has sigmoid, threshold, tanh, relu"),
        (hidden(layers.ReLU(max_value=6)), "ReLU between dense layers"),
        (hidden("softmax"), "softmax between dense layers"),
        (chain(layers.Dense(10, "softmax")), "softmax after the last dense layer: take it away"),
        (chain(layers.Dense(9), layers.Softmax()), "Softmax after the last dense layer"),
        (chain(*image, shape=(8, 8, 1)), "Conv2D, Flatten before the first dense layer"),
        (chain(layers.Rescaling(1 / 255), layers.Dense(9)), "Rescaling before the first dense"),
        (chain(layers.Dense(9), layers.BatchNormalization()), "BatchNormalization after the last"),
        (chain(layers.Dense(9, "relu"), layers.Dense(9, "tanh"), layers.Dense(9)), "relu, tanh"),
        (keras.Model(x, layers.Dense(10)(a + x)), "no chain of layers; only chains travel"),
        (keras.Model(x, layers.Dense(10)(twice(twice(x)))), "no chain of layers"),
        (chain(layers.Dense(9), shape=(8, 8)), "inputs of shape (8, 8): apply it to the data"),
        (keras.Model(x, [a, a]), "give a Keras model of one output"),
        (chain(layers.Flatten()), "the model has no dense layers"),
        (keras.Sequential([layers.Dense(10)]), "a chain of layers that was called"),
    ]


def test_what_cannot_come_from_keras_is_refused_by_name(keras):
    for model, complaint in keras_models(keras):
        assert complaint in refusal(from_keras, model)


def test_what_cannot_come_from_pytorch_is_refused_by_name(torch):
    nn = torch.nn
    for modules, complaint in (
        ([nn.Linear(64, 9), nn.GELU(), nn.Linear(9, 2)], "GELU between dense layers"),
        ([nn.Linear(64, 9), nn.Linear(9, 2)], "nothing between dense layers"),
        ([nn.Linear(64, 9), nn.LogSoftmax(1)], "LogSoftmax after the last dense layer"),
        ([nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 9)], "Conv2d, Flatten before the first"),
        ([nn.ReLU()], "the model has no dense layers"),
        ([nn.Linear(64, 9), nn.Sequential(nn.Linear(9, 2))], "Sequential after the last dense"),
    ):
        assert complaint in refusal(from_torch, nn.Sequential(*modules))
    assert "Linear is no torch.nn.Sequential" in refusal(from_torch, nn.Linear(2, 2))


@pytest.mark.parametrize("convert", [to_keras, to_torch])
def test_an_activation_of_ones_own_does_not_travel(convert, keras):
    if convert is to_torch:
        pytest.importorskip("torch")
    own = Model(Network(np.ones(10, np.float32), [4, 2], staircase), {})
    assert refusal(convert, own).startswith("staircase: only glr's activations travel, sigmoid")


@pytest.mark.parametrize(("name", "convert"), [("keras", to_keras), ("torch", from_torch)])
def test_a_framework_that_is_not_there_is_one_line(name, convert, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    assert f"cannot import {name} (" in refusal(convert, model_of(glr.sigmoid))
