"""Every constant of a script reaches what it is the constant of, and the loop does what it says."""

import runpy
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from processes import saved

import glr.estimator
from glr.data.datasets import Dataset
from glr.errors import DivergenceError, GLRError
from glr.losses import cross_entropy, zero_one
from glr.network import Layer, accuracy, layer_views, relu, sigmoid, tanh, threshold
from glr.noise import laplace, logistic
from glr.optimizers import adagrad, constant, cosine, sgd
from glr.scripts import backpropagation, records
from glr.scripts.constants import SCRIPTS, constants_of
from glr.scripts.run import Run, minibatches, new_run

LRS = {  # what LRS.py gives to gradient()
    "activation": sigmoid,
    "loss": cross_entropy,
    "noise": logistic,
    "sigma": (1.0, 0.5),
    "perturb": "logits",
    "replicates": 2,
    "local_differences": True,
    "control_variate": True,
    "standardised_loss": False,
}
ZERO_ONE = {
    "loss": zero_one,
    "replicates": 11,
    "standardised_loss": True,
}


@pytest.fixture(autouse=True)
def models_dir(tmp_path, monkeypatch):
    """Where these tests' runs write."""
    monkeypatch.setenv("GLR_MODELS_DIR", str(tmp_path))
    return tmp_path


class CalledError(Exception):
    """Ends a script at its first call of a function, with what that was given."""


def first_call(monkeypatch, module, function, script, flags):
    """What the script's main(), run with the flags, gives first to the module's function."""

    def stop(*given, **by_name):
        raise CalledError(given, by_name)

    monkeypatch.setattr(module, function, stop)
    monkeypatch.setattr(sys, "argv", [script, *flags.split()])
    with pytest.raises(CalledError) as call:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    return call.value.args


# ---------------------------------------------------------------- from a flag to what it is of


@pytest.mark.parametrize(
    ("script", "flags", "change"),
    [
        ("LRS", "", {}),
        ("LRT", "", {"activation": threshold}),
        ("LRSZ", "", ZERO_ONE),
        ("LRTZ", "", ZERO_ONE | {"activation": threshold}),
        ("LRS", "--activation tanh", {"activation": tanh}),
        ("LRS", "--loss zero_one", {"loss": zero_one}),
        ("LRS", "--noise laplace", {"noise": laplace}),
        ("LRS", "--sigma 2 3", {"sigma": (2.0, 3.0)}),
        ("LRS", "--perturb weights", {"perturb": "weights"}),
        ("LRS", "--no-control-variate", {"control_variate": False}),
        ("LRS", "--no-local-differences", {"local_differences": False}),
        ("LRS", "--local-differences", {}),
        ("LRSZ", "--no-standardised-loss", ZERO_ONE | {"standardised_loss": False}),
        (
            "LRS",
            "--sigma 0.7 --replicates 3 --local-differences output --control-variate",
            {
                "sigma": (0.7,),
                "replicates": 3,
                "local_differences": "output",
            },
        ),
    ],
)
def test_the_estimator_is_given_the_script_s_constants(script, flags, change, monkeypatch):
    """S, T: sigmoid, threshold; Z: 0-1 loss. And a flag changes what it names, nothing else."""
    (layers, x, y), given = first_call(
        monkeypatch, glr.estimator, "gradient", f"{script}.py", flags
    )
    assert [W.shape for W, _ in layers] == [(64, 50), (50, 10)]
    assert (x.shape, y.shape) == ((128, 64), (128,))
    assert isinstance(given.pop("rng").bit_generator, np.random.SFC64)
    assert given == LRS | change


def test_backpropagation_is_given_the_script_s_constants(monkeypatch):
    call = (monkeypatch, backpropagation, "backpropagation", "BP.py")
    (plain, loss, silence), _ = first_call(*call, "")
    flags = "--sigma 1 0.5 --noise laplace --perturb weights --activation relu --initial-scale 2"
    (network, _, noise), _ = first_call(*call, flags)
    assert (plain.activation, loss, silence) == (sigmoid, cross_entropy, (logistic, (0,), "logits"))
    assert (network.activation, noise) == (relu, (laplace, (1, 0.5), "weights"))
    np.testing.assert_array_equal(network.parameters, 2 * plain.parameters)


def test_the_seed_is_of_weights_noise_minibatches_and_held_out_samples():
    def all_that_is_random(seed):
        run = new_run(constants_of("LRS.py", ["--seed", seed, "--validation", "100"]))
        x, _ = next(run.minibatches())
        return [run.network.parameters, run.rng.random(9), x, run.data.x_test]

    for one, same, other in zip(*map(all_that_is_random, "001"), strict=True):
        np.testing.assert_array_equal(one, same)
        assert np.any(one != other)


# ---------------------------------------------------------------- the loop


@pytest.mark.parametrize("factor", [None, "0.1", np.ones(3), np.nan])
def test_a_schedule_that_gives_no_number_is_named(factor):
    run = small_run(SCHEDULE=lambda step, steps: factor)
    with pytest.raises(GLRError, match=r"SCHEDULE: gave .* for step 0; it must give"):
        for _ in run.minibatches():
            run.descend(level(run))


def small_run(sizes=(4, 2), are_pixels=True, **constants):
    """A run of a small network on four samples; LRS.py's constants but for these."""
    own = constants_of("LRS.py", ["--batch-size", "2", "--weight-decay", "0"])
    own.HIDDEN, own.CENTRALISED_GRADIENT = tuple(sizes[1:-1]), False
    vars(own).update(constants)
    x, y = np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])
    test = 2 * x[1:] - x[:3], np.array([1, 1, 0])
    return Run(own, Dataset("small", x, y, *test, are_pixels=are_pixels))


def level(run, risk=1.0):
    """A gradient of zero, and this mean loss."""
    return SimpleNamespace(
        layers=[Layer(*map(np.zeros_like, one)) for one in run.layers], risk=risk
    )


@pytest.mark.parametrize("schedule", [cosine, constant])
@pytest.mark.parametrize(
    ("constant_is", "are_pixels", "centralised"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
def test_a_step_is_of_the_schedule_s_rate_with_an_l2_penalty_on_w_alone(
    constant_is, are_pixels, centralised, schedule
):
    settings = {"SCHEDULE": schedule, "CENTRALISED_GRADIENT": constant_is, "WEIGHT_DECAY": 0.5}
    settings |= {"OPTIMIZER": sgd, "STEPS": 4, "LEARNING_RATE": 0.1}
    run = small_run(are_pixels=are_pixels, **settings)
    ((W, b),) = layer_views(run.network.parameters.copy(), [4, 2])
    slope = np.arange(8, dtype=np.float32).reshape(4, 2)
    for _ in run.minibatches():
        run.descend(SimpleNamespace(layers=[Layer(slope, np.ones_like(b))], risk=2.0))
    for step in range(4):
        rate = 0.1 * (1 + np.cos(np.pi * step / 4)) / 2 if schedule is cosine else 0.1
        mean = slope.mean(axis=0) if centralised else 0
        W = W - rate * (slope - mean + 0.5 * W)
        b = b - rate
    np.testing.assert_allclose(run.layers[0].W, W, rtol=1e-5)
    np.testing.assert_allclose(run.layers[0].b, b, rtol=1e-5)


def test_every_layer_is_penalised_and_the_first_alone_centralised():
    settings = {"WEIGHT_DECAY": 0.5, "CENTRALISED_GRADIENT": True, "SCHEDULE": constant}
    run = small_run((4, 3, 2), OPTIMIZER=sgd, LEARNING_RATE=1.0, **settings)
    rng, before = np.random.default_rng(7), run.network.parameters.copy()
    found = [
        Layer(*(rng.standard_normal(part.shape, np.float32) for part in layer))
        for layer in run.layers
    ]
    run.descend(SimpleNamespace(layers=found, risk=1.0))
    first, last = layer_views(before - run.network.parameters, [4, 3, 2])
    W0, W1 = (layer.W for layer in layer_views(before, [4, 3, 2]))
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(first.W, found[0].W - found[0].W.mean(axis=0) + W0 / 2, **close)
    np.testing.assert_allclose(last.W, found[1].W + W1 / 2, **close)
    np.testing.assert_allclose(first.b, found[0].b, **close)
    np.testing.assert_allclose(last.b, found[1].b, **close)


def test_the_optimizer_and_its_state_are_the_run_s():
    run = small_run(OPTIMIZER=adagrad)
    run.descend(level(run))
    assert run.state.optimizer.keys() == {"squares"}


def test_evaluations_are_of_the_test_set_and_of_the_minibatches_since_the_last():
    run = small_run(OPTIMIZER=sgd, STEPS=3, EVAL_EVERY=2)
    before = accuracy(run.network.logits(run.data.x_test), run.data.y_test)
    for (x, y), risk in zip(run.minibatches(), [1.0, 2.0, 5.0], strict=True):
        assert (x.shape, y.shape) == ((2, 4), (2,))
        run.descend(level(run, risk))
    z, y = run.network.logits(run.data.x_test), run.data.y_test
    own = cross_entropy(z.T, y).mean(), np.mean(z.argmax(axis=1) == y)
    start, *history = run.state.history
    assert (start.step, start.epoch, start.seconds) == (0, 0, 0)
    assert np.isnan(start.train_loss)
    assert start.test_accuracy == before
    assert [(row.step, row.epoch, row.train_loss) for row in history] == [(2, 1, 1.5), (3, 1.5, 5)]
    for row in history:
        assert (row.test_loss, row.test_accuracy) == pytest.approx(own)


def test_the_state_is_saved_every_checkpoint_every_steps_and_after_the_last(models_dir):
    run = small_run(STEPS=5, CHECKPOINT_EVERY=2, DATASET="small.npz")
    path = models_dir / "LRS_small_seed0.checkpoint"
    found = []
    for _ in run.minibatches():
        found.append(saved(path)[1]["step"] if path.exists() else 0)
        run.descend(level(run))
    assert found == [0, 0, 2, 2, 4]
    assert saved(path)[1]["step"] == 5


def test_a_model_that_cannot_be_written_keeps_the_last_state(models_dir):
    run, name = small_run(STEPS=3, DATASET="small.npz"), "LRS_small_seed0"
    for _ in run.minibatches():
        run.descend(level(run))
    (models_dir / f"{name}.npz").mkdir()
    with pytest.raises(GLRError, match="The run is kept: --resume then writes it"):
        run.save()
    assert saved(models_dir / f"{name}.checkpoint")[1]["step"] == 3
    (models_dir / f"{name}.npz").rmdir()
    run.save()
    assert {path.suffix for path in models_dir.iterdir()} == {".npz", ".csv", ".png"}


@pytest.mark.parametrize(
    ("interrupted", "note"),
    [
        ("draw_learning_curve", "state is in .*; the same command with --resume continues it$"),
        ("print", "LRS_small_seed0.npz is written$"),  # of the summary, last of all
    ],
)
def test_ctrl_c_while_a_run_is_saved_says_how_it_ends_well(
    interrupted, note, models_dir, monkeypatch
):
    run = small_run(STEPS=3, DATASET="small.npz")
    for _ in run.minibatches():
        run.descend(level(run))

    def interrupt(*words, file=None, **_):
        if file is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(records, interrupted, interrupt, raising=False)
    with pytest.raises(KeyboardInterrupt, match=note):
        run.save()
    monkeypatch.undo()
    assert (models_dir / "LRS_small_seed0.npz").exists()


@pytest.mark.parametrize("calls", [0, 2])
def test_a_loop_that_does_not_descend_once_a_minibatch_is_refused(calls):
    run = small_run()
    batches = run.minibatches()
    next(batches)
    for _ in range(calls):
        run.descend(level(run))
    with pytest.raises(GLRError, match=r"call run\.descend\(…\) once for each minibatch"):
        next(batches)


@pytest.mark.parametrize("end", ["last step", "break", "error"])
def test_signals_are_as_before_wherever_the_loop_ends(end):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    run = small_run(STEPS=3)
    try:
        for _ in run.minibatches():
            assert signal.getsignal(signal.SIGINT) is not before[0]
            run.descend(level(run, np.nan if end == "error" else 1.0))
            if end == "break":
                break
    except DivergenceError:
        assert end == "error"
    assert [signal.getsignal(number) for number in numbers] == before


def test_minibatches_visit_every_sample_once_an_epoch():
    batches = minibatches(10, 5, np.random.default_rng(0))
    epochs = [np.concatenate([next(batches), next(batches)]) for _ in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
    assert not np.array_equal(epochs[0], epochs[1])
    assert len(next(minibatches(3, 5, np.random.default_rng(0)))) == 3


def test_what_is_left_of_an_epoch_is_dropped():
    batches = minibatches(5, 2, np.random.default_rng(0))
    for _ in range(3):
        epoch = np.concatenate([next(batches), next(batches)])
        assert len(set(epoch)) == 4


# ---------------------------------------------------------------- what cannot be trained with


def test_a_first_loss_that_is_not_finite_is_not_blamed_on_the_step_size():
    run = small_run()
    with pytest.raises(DivergenceError, match="step 1: the loss is nan; look at LOSS"):
        run.descend(level(run, np.nan))
    with pytest.raises(DivergenceError, match="step 2: the loss is nan; lower LEARNING_RATE"):
        run.descend(level(run, np.nan))


def test_a_first_gradient_that_is_no_number_is_not_blamed_on_the_step_size():
    """As of an activation that gives NaN, where the 0-1 loss is finite."""
    run = small_run()
    lost = [layer._replace(W=layer.W * np.float32(np.nan)) for layer in run.layers]
    with pytest.raises(DivergenceError, match="step 1: the gradient is NaN; look at LOSS"):
        run.descend(SimpleNamespace(layers=lost, risk=1.0))


def test_infinite_weights_stop_a_run_whose_loss_cannot_show_them():
    """The 0-1 loss of NaN logits is 1, and finite."""
    run = small_run(OPTIMIZER=sgd)
    steep = [layer._replace(W=layer.W + np.float32(3e38)) for layer in run.layers]
    with pytest.raises(DivergenceError, match="step 1: the weights overflow; lower LEARNING_RATE"):
        run.descend(SimpleNamespace(layers=steep, risk=0.0))


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
    run = small_run(OPTIMIZER=optimizer)
    with pytest.raises(GLRError, match=complaint):
        run.descend(level(run))
