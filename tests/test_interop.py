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
        (hidden("gelu"), "Dense, gelu, Dense: what travels is a chain of dense layers that was"),
        (hidden(layers.LeakyReLU(0.1)), "Dense, LeakyReLU, Dense: "),
        (hidden(layers.ReLU(max_value=6)), "Dense, ReLU, Dense: "),
        (hidden("softmax"), "Dense, softmax, Dense: "),
        (hidden("linear"), "Dense, Dense: "),
        (chain(layers.Dense(10, "softmax")), "Dense, softmax: "),
        (chain(layers.Dense(9), layers.Softmax()), "Dense, Softmax: "),
        (chain(*image, shape=(8, 8, 1)), "Conv2D, Flatten, Dense: "),
        (chain(layers.Rescaling(1 / 255), layers.Dense(9)), "Rescaling, Dense: "),
        (chain(layers.Dense(9), layers.BatchNormalization()), "Dense, BatchNormalization: "),
        (
            chain(layers.Dense(9, "relu"), layers.Dense(9, "tanh"), layers.Dense(9)),
            "relu, Dense, t",
        ),
        (keras.Model(x, layers.Dense(10)(a + x)), "InputLayer, Dense, relu, Dense: "),
        (keras.Model(x, layers.Dense(10)(twice(twice(x)))), "InputLayer, Dense, relu, Dense: "),
        (chain(layers.Dense(9), shape=(8, 8)), "Dense: "),
        (keras.Model(x, [a, a]), "InputLayer, Dense, relu: "),
        (chain(layers.Flatten()), "Flatten: "),
        (keras.Sequential([layers.Dense(10)]), "Dense: "),
    ]


def test_what_cannot_come_from_keras_is_refused_by_name(keras):
    for model, complaint in keras_models(keras):
        assert complaint in refusal(from_keras, model)


def test_what_cannot_come_from_pytorch_is_refused_by_name(torch):
    nn = torch.nn
    for modules, complaint in (
        ([nn.Linear(64, 9), nn.GELU(), nn.Linear(9, 2)], "Linear, GELU, Linear: what travels is a"),
        ([nn.Linear(64, 9), nn.Linear(9, 2)], "Linear, Linear: "),
        ([nn.Linear(64, 9), nn.LogSoftmax(1)], "Linear, LogSoftmax: "),
        ([nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 9)], "Conv2d, Flatten, Linear: "),
        ([nn.ReLU()], "ReLU: "),
    ):
        assert complaint in refusal(from_torch, nn.Sequential(*modules))


def test_a_module_of_ones_own_comes_if_it_is_a_chain(torch):
    class Chain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = torch.nn.Linear(64, 10), torch.nn.Linear(64, 64)

        def forward(self, x):
            return self.last(torch.relu(self.first(x)))

    own = Chain()
    assert "Linear, Linear: " in refusal(from_torch, own)  # by their order in the module
    own.last, own.first = own.first, own.last
    theirs = torch.nn.Sequential(own.last, torch.nn.Sequential(torch.nn.ReLU(), own.first))
    assert from_torch(theirs).network.activation is glr.relu


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
