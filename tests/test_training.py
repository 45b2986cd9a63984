"""Losses, network, optimizers, training loop and model files against independent computation."""

import json

import numpy as np
import pytest
from glr.scripts.training import (
    Plan,
    Run,
    check_finite,
    minibatches,
    next_pause,
    train,
    write_descent,
)
from scipy.special import expit, log_softmax

from glr.data.datasets import Dataset
from glr.errors import DivergenceError, GLRError
from glr.estimator import Estimator, Gradient
from glr.losses import cross_entropy, zero_one
from glr.network import Layer, accuracy, layer_views, logits, new_network, sigmoid, threshold
from glr.optimizers import adagrad, adam, constant, cosine, sgd
from glr.scripts import training
from glr.storage.files import write_whole
from glr.storage.models import load_model, save_model


def generator(seed=0):
    return np.random.Generator(np.random.SFC64(seed))


def test_cross_entropy_is_minus_log_softmax_at_the_label():
    z = generator().normal(size=(3, 2, 5, 7)).astype(np.float32) * 30
    y = np.array([0, 1, 2, 3, 4, 0, 1])
    expected = -log_softmax(z.astype(float), axis=2)[:, :, y, np.arange(7)]
    np.testing.assert_allclose(cross_entropy(z, y), expected, rtol=1e-5, atol=1e-5)


def test_cross_entropy_of_huge_logits_is_finite():
    z = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    np.testing.assert_allclose(cross_entropy(z, np.array([0, 0])), [0, 2e4])


def test_zero_one_is_argmax_unequal_label():
    z = generator().normal(size=(4, 3, 6)).astype(np.float32)
    y = np.array([0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(zero_one(z, y), z.argmax(axis=1) != y)


def test_a_tie_of_the_largest_logits_is_right():
    z = np.array([[1.0, 2.0], [1.0, 3.0], [0.0, 3.0]])
    np.testing.assert_array_equal(zero_one(z, np.array([1, 0])), [0, 1])
    np.testing.assert_array_equal(zero_one(z, np.array([0, 2])), [0, 0])


@pytest.mark.parametrize("scale", [1, 2])
def test_initial_weights_have_the_scale_over_the_root_of_their_layer_s_inputs(scale):
    """Within four standard errors, 99.99 % each; biases are zero."""
    sizes = [400, 100, 10]
    for W, b in new_network(sizes, sigmoid, generator(), scale).layers:
        error = 4 / np.sqrt(2 * W.size)
        assert W.std() * np.sqrt(len(W)) / scale == pytest.approx(1, rel=error)
        assert not b.any()


def test_network_is_matrix_products_and_activations():
    network = new_network([6, 4, 3], sigmoid, generator())
    network.parameters[:] = generator(1).normal(size=network.parameters.shape)
    (W0, b0), (W1, b1) = network.layers
    x = generator(2).normal(size=(5, 6)).astype(np.float32)
    expected = expit(x @ W0 + b0) @ W1 + b1
    np.testing.assert_allclose(network.logits_of_rows(x), expected.T, rtol=1e-4, atol=1e-5)
    steps = (x @ W0 + b0 > 0) @ W1 + b1
    found = logits(network.layers, threshold, x.T)
    np.testing.assert_allclose(found, steps.T, rtol=1e-4, atol=1e-5)
    assert accuracy(found, steps.argmax(axis=1)) == 1


def test_accuracy_is_the_share_of_columns_whose_largest_logit_is_the_label_s():
    output = np.array([[3.0, 1.0, 0.0, 2.0], [1.0, 2.0, 5.0, 0.0]])
    assert accuracy(output, np.array([0, 1, 0, 0])) == 0.75
    assert accuracy(output, np.array([1, 1, 1, 0])) == 0.75
    assert accuracy(output, np.array([1, 0, 0, 1])) == 0


@pytest.mark.parametrize("own", [sgd, adagrad, adam])
def test_optimizers_agree_with_keras(own):
    keras = pytest.importorskip("keras")
    theirs = {
        sgd: lambda: keras.optimizers.SGD(0.05),
        adagrad: lambda: keras.optimizers.Adagrad(0.05, initial_accumulator_value=0, epsilon=1e-10),
        adam: lambda: keras.optimizers.Adam(0.05, epsilon=1e-8),
    }[own]()
    parameters, state = np.ones(5, np.float32), {}
    variable = keras.Variable(parameters.copy())
    rng = generator(4)
    for _ in range(20):
        gradient = rng.normal(size=5).astype(np.float32)
        own(parameters, gradient, 0.05, state)
        theirs.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    assert np.abs(parameters - 1).min() > 1e-3
    np.testing.assert_allclose(parameters, np.asarray(variable), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("own", "small"), [(adagrad, 1e-10), (adam, 1e-8)])
def test_a_gradient_as_small_as_epsilon_is_halved(own, small):
    """g/(√g² + ε) of g = ε, bias-corrected in Adam (Kingma & Ba 2015, algorithm 1)."""
    parameters, gradient = np.zeros(3, np.float32), np.full(3, small, np.float32)
    own(parameters, gradient, 0.1, {})
    np.testing.assert_allclose(parameters, -0.05, rtol=1e-3)


def test_what_is_left_of_an_epoch_is_dropped():
    batches = minibatches(5, 2, generator())
    for _ in range(3):
        epoch = np.concatenate([next(batches), next(batches)])
        assert len(set(epoch)) == 4


def test_minibatches_visit_every_sample_once_an_epoch():
    batches = minibatches(10, 5, generator())
    epochs = [np.concatenate([next(batches), next(batches)]) for _ in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
    assert not np.array_equal(epochs[0], epochs[1])
    assert len(next(minibatches(3, 5, generator()))) == 3


def small_data():
    x, y = np.eye(4, dtype=np.float32), np.arange(4) % 2
    return Dataset("small", x, y, x[:3], y[:3])


@pytest.mark.parametrize("schedule", [cosine, constant])
@pytest.mark.parametrize("centralised", [False, True])
def test_training_follows_the_plan(centralised, schedule):
    """One SGD step at a time: rate of the schedule, L2 penalty on W and not on b."""
    network = new_network([4, 2], sigmoid, generator())
    start = network.parameters.copy()
    plan = Plan(cross_entropy, sgd, 4, 4, 0.1, schedule, 0.5, centralised, 3)
    slope = np.arange(8, dtype=np.float32).reshape(4, 2)

    def known_gradient(layers, batch):
        return Gradient([Layer(slope, np.ones_like(layers[0].b))], 2.0)

    run = Run(network, Estimator(known_gradient))
    yielded = list(train(run, small_data(), plan, generator()))
    rows = run.history
    assert yielded == [None, None, *rows]
    assert [row.step for row in rows] == [3, 4]
    assert rows[-1].train_loss == 2.0
    assert rows[-1].epoch == 4
    (W, b), (found_W, found_b) = layer_views(start, [4, 2])[0], network.layers[0]
    for step in range(4):
        rate = 0.1 * (1 + np.cos(np.pi * step / 4)) / 2 if schedule is cosine else 0.1
        mean = slope.mean(axis=0) if centralised else 0
        W = W - rate * (slope - mean + 0.5 * W)
        b = b - rate
    np.testing.assert_allclose(found_W, W, rtol=1e-5)
    np.testing.assert_allclose(found_b, b, rtol=1e-5)


def test_training_pauses_for_evaluations_and_for_what_else_is_asked():
    plan = Plan(cross_entropy, sgd, 12, 4, 0.1, constant, 0.0, False, 10, pause_every=4)
    pauses = [next_pause(step, plan) for step in range(12)]
    assert pauses == [4] * 4 + [8] * 4 + [10] * 2 + [12] * 2
    assert [next_pause(step, plan._replace(pause_every=1)) for step in (0, 5)] == [1, 6]


def test_as_many_steps_are_taken_at_once_as_fit_into_a_leg(monkeypatch):
    """Of 5 steps in LEG_SECONDS, that is 5 after the first, or until the next pause."""
    taken, seconds = [], [0.0]

    def take_steps(run, data, batches, plan):
        taken.append(len(batches))
        seconds[0] += len(batches) * 0.18 * training.LEG_SECONDS
        run.step += len(batches)
        run.risks += [0.0] * len(batches)

    monkeypatch.setattr(training.time, "perf_counter", lambda: seconds[0])
    plan = Plan(cross_entropy, sgd, 17, 4, 0.1, constant, 0.0, False, 9, 8, take_steps)
    run = Run(new_network([4, 2], sigmoid, generator()), None)
    pauses = [run.step for _ in train(run, small_data(), plan, generator())]
    assert taken == [1, 5, 2, 1, 5, 2, 1]
    assert pauses == [1, 6, 8, 9, 14, 16, 17]
    assert [row.step for row in run.history] == [9, 17]
    assert run.seconds == pytest.approx(17 * 0.18 * training.LEG_SECONDS)


def test_evaluations_are_of_the_test_set_and_of_the_batches_since_the_last():
    network = new_network([4, 2], sigmoid, generator())
    risks = iter([1.0, 2.0, 5.0])
    estimator = Estimator(
        lambda layers, batch: Gradient([Layer(*map(np.zeros_like, layers[0]))], next(risks))
    )
    x, y = np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])
    x_test, y_test = 2 * x[1:] - x[:3], np.array([1, 1, 0])
    data = Dataset("small", x, y, x_test, y_test)
    run = Run(network, estimator)
    list(
        train(run, data, Plan(cross_entropy, sgd, 3, 2, 0.1, constant, 0.0, False, 2), generator())
    )
    z = network.logits_of_rows(x_test)
    own = cross_entropy(z, y_test).mean(), np.mean(z.argmax(axis=0) == y_test)
    assert [(row.step, row.epoch, row.train_loss) for row in run.history] == [
        (2, 1, 1.5),
        (3, 1.5, 5),
    ]
    for row in run.history:
        assert (row.test_loss, row.test_accuracy) == pytest.approx(own)


def test_every_layer_is_penalised_and_the_first_alone_centralised():
    network = new_network([4, 3, 2], sigmoid, generator())
    gradient = [
        Layer(*(generator(7).normal(size=part.shape).astype(np.float32) for part in layer))
        for layer in network.layers
    ]
    into = new_network([4, 3, 2], sigmoid, generator(1)).layers
    plan = Plan(cross_entropy, sgd, 1, 2, 0.1, constant, 0.5, True, 1)
    write_descent(into, gradient, network.layers, plan)
    first, last = (g.W + 0.5 * layer.W for g, layer in zip(gradient, network.layers, strict=True))
    np.testing.assert_allclose(into[0].W, first - gradient[0].W.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(into[1].W, last, rtol=1e-6)
    for total, found in zip(into, gradient, strict=True):
        np.testing.assert_array_equal(total.b, found.b)


def test_a_first_loss_that_is_not_finite_is_not_blamed_on_the_step_size():
    finite = np.ones(2, np.float32)
    with pytest.raises(DivergenceError, match="step 1: the loss is nan; look at LOSS"):
        check_finite(float("nan"), finite, 1)
    with pytest.raises(DivergenceError, match="step 2: the loss is nan; lower LEARNING_RATE"):
        check_finite(float("nan"), finite, 2)
    with (
        np.errstate(over="ignore"),
        pytest.raises(DivergenceError, match="step 1: the weights overflow; lower LEARNING_RATE"),
    ):
        check_finite(1.0, finite * np.float32(3e38), 1)
    check_finite(1.0, finite, 1)


def returns_the_parameters(parameters, gradient, rate, state):
    return parameters - rate * gradient


def counts_in_a_number(parameters, gradient, rate, state):
    state["step"] = state.get("step", 0) + 1


@pytest.mark.parametrize(
    ("optimizer", "complaint"),
    [
        (returns_the_parameters, "OPTIMIZER: returned something; it must change the parameters in"),
        (counts_in_a_number, "OPTIMIZER: step of its state is no array, and could not be stored"),
    ],
)
def test_an_optimizer_that_could_not_train_or_be_stored_is_refused(optimizer, complaint):
    network = new_network([4, 2], sigmoid, generator())
    estimator = Estimator(lambda layers, batch: Gradient(layers, 1.0))
    plan = Plan(cross_entropy, optimizer, 4, 2, 0.1, constant, 0.0, False, 3)
    data = Dataset("own", np.ones((4, 4), np.float32), np.array([0, 1, 0, 1]), *[None] * 2)
    with pytest.raises(GLRError, match=complaint):
        next(train(Run(network, estimator), data, plan, generator()))


def test_a_saved_model_is_loaded_as_it_was(tmp_path):
    network = new_network([4, 3, 2], threshold, generator())
    path = tmp_path / "m.npz"
    save_model(path, network, {"activation": "threshold"})
    model = load_model(path)
    np.testing.assert_array_equal(model.network.parameters, network.parameters)
    assert model.network.sizes == [4, 3, 2]
    assert model.network.activation is threshold


def bad_models():
    """Name, and arrays, of files that are no models."""
    W, b = np.ones((4, 2), np.float32), np.ones(2, np.float32)
    meta = np.array(json.dumps({"activation": "sigmoid"}))
    yield "no metadata", {"W0": W, "b0": b}
    yield "no layers", {"metadata": meta}
    yield "missing bias", {"W0": W, "metadata": meta}
    yield "wrong bias", {"W0": W, "b0": np.ones(3, np.float32), "metadata": meta}
    yield "layers that do not fit", {"W0": W, "b0": b, "W1": W, "b1": b, "metadata": meta}
    yield "not finite", {"W0": W * np.nan, "b0": b, "metadata": meta}
    yield "doubles", {"W0": W.astype(float), "b0": b, "metadata": meta}
    yield "pickles", {"W0": np.array([{}]), "b0": b, "metadata": meta}
    yield "unknown activation", {"W0": W, "b0": b, "metadata": np.array('{"activation": "step"}')}
    yield "JSON of a list", {"W0": W, "b0": b, "metadata": np.array("[1]")}
    yield "foreign JSON", {"W0": W, "b0": b, "metadata": np.array("[1, 2")}


@pytest.mark.parametrize(("name", "arrays"), list(bad_models()))
def test_files_that_are_no_models_are_refused_by_name(name, arrays, tmp_path):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(GLRError, match=r"bad\.npz"):
        load_model(path)


def test_truncated_and_missing_models_are_refused_by_name(tmp_path):
    path = tmp_path / "m.npz"
    save_model(path, new_network([4, 2], sigmoid, generator()), {"activation": "sigmoid"})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(GLRError, match=r"m\.npz: not a model file"):
        load_model(path)
    with pytest.raises(GLRError, match=r"other\.npz: no such model"):
        load_model(tmp_path / "other.npz")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "file"
    write_whole(path, lambda file: file.write(b"old"))

    def fails(file):
        file.write(b"new, and half of it")
        raise OSError(28, "No space left on device")

    with pytest.raises(GLRError, match="No space left"):
        write_whole(path, fails)
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    with pytest.raises(GLRError, match="cannot be written"):
        write_whole(path.parent, lambda file: file.write(b"a folder is in the way"))
