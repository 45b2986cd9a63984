"""Every constant of a script reaches what it is the constant of, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from glr.passes import GLR
from glr.scripts.experiment import (
    glr_method,
    layer_sigmas,
    load_data,
    plan_of,
    train_by_glr,
    training_noise,
)
from glr.scripts.training import Plan

from glr.errors import GLRError
from glr.losses import cross_entropy, zero_one
from glr.network import sigmoid, tanh, threshold
from glr.noise import laplace, logistic
from glr.optimizers import adagrad, adam, constant, cosine
from glr.scripts import experiment
from glr.study.runs import constants_of


def changes(one, other):
    """The fields in which two of a kind differ, with the other's values."""
    names = getattr(one, "_fields", None) or one.__dataclass_fields__
    values = {name: getattr(other, name) for name in names}
    return {name: value for name, value in values.items() if value != getattr(one, name)}


@pytest.mark.parametrize(
    ("script", "flags", "change"),
    [
        ("LRS", "--activation tanh", {"activation": tanh}),
        ("LRS", "--loss zero_one", {"loss": zero_one}),
        ("LRS", "--noise laplace", {"noise": laplace}),
        ("LRS", "--sigma 2 3", {"sigma": (2.0, 3.0)}),
        ("LRS", "--perturb weights", {"perturb": "weights"}),
        ("LRS", "--replicates 7", {"replicates": 7}),
        ("LRS", "--output-draws 3", {"output_draws": 3}),
        ("LRS", "--no-control-variate", {"control_variate": False}),
        ("LRS", "--no-local-differences", {"local_differences": False}),
        ("LRS", "--redraws 3", {"redraws": 3}),
        ("LRS", "--layerwise", {"layerwise": True}),
        ("LRT", "--no-conditional-score", {"conditional_score": False}),
        ("LRSZ", "--no-standardised-loss", {"standardised_loss": False}),
    ],
)
def test_a_constant_of_the_estimator_reaches_it(script, flags, change):
    default, changed = (
        glr_method(constants_of(f"{script}.py", words)) for words in ([], flags.split())
    )
    assert changes(default, changed) == change


def test_compiled_steps_reach_the_estimator_and_are_compiled_before_training(monkeypatch):
    compiled = pytest.importorskip("glr.compiled")
    prepared = []
    monkeypatch.setattr(compiled, "prepare", prepared.append)
    method = glr_method(constants_of("LRS.py", ["--compiled"]))
    assert method.gradient_of_group is compiled.gradient
    assert [replace(one, gradient_of_group=compiled.gradient) for one in prepared] == [method]


def test_the_scripts_are_what_their_names_say():
    """S, T: sigmoid, threshold; Z: 0-1 loss; and what suits each."""
    for script, activation, loss in (
        ("LRS", sigmoid, cross_entropy),
        ("LRSZ", sigmoid, zero_one),
        ("LRT", threshold, cross_entropy),
        ("LRTZ", threshold, zero_one),
    ):
        glr = glr_method(constants_of(f"{script}.py", []))
        plain = GLR(activation, loss, (1.0, 0.5), logistic)
        own = changes(plain, glr).keys() - {"replicates", "output_draws"}
        assert own == {
            "local_differences",
            "redraws",
            *(["conditional_score"] if activation is threshold else []),
            *(["standardised_loss"] if loss is zero_one else []),
        }


@pytest.mark.parametrize(
    ("flags", "change"),
    [
        ("--loss zero_one", {"loss": zero_one}),
        ("--optimizer adagrad", {"optimizer": adagrad}),
        ("--steps 7", {"steps": 7}),
        ("--batch-size 9", {"batch_size": 9}),
        ("--learning-rate 0.5", {"learning_rate": 0.5}),
        ("--schedule constant", {"schedule": constant}),
        ("--weight-decay 0.25", {"weight_decay": 0.25}),
        ("--no-centralised-gradient", {"centralised": False}),
        ("--eval-every 3", {"eval_every": 3}),
        ("--checkpoint-every 3", {"pause_every": 3}),
    ],
)
def test_a_constant_of_training_reaches_the_plan(flags, change):
    default = plan_of(constants_of("LRS.py", []))
    assert default == Plan(
        loss=cross_entropy,
        optimizer=adam,
        steps=10_000,
        batch_size=128,
        learning_rate=0.01,
        schedule=cosine,
        weight_decay=1e-4,
        centralised=True,
        eval_every=500,
        pause_every=1000,
    )
    assert changes(default, plan_of(constants_of("LRS.py", flags.split()))) == change


def test_the_noise_of_backpropagation_is_what_the_constants_say():
    flags = "--sigma 1 0.5 --noise laplace --perturb weights"
    noise = training_noise(constants_of("BP.py", flags.split()), np.random.default_rng(0))
    assert (noise.sigma, noise.law, noise.perturb) == ((1.0, 0.5), "laplace", "weights")


def test_two_sigmas_are_of_the_hidden_layers_and_of_the_output():
    assert layer_sigmas((1.0,), 3) == (1.0, 1.0, 1.0)
    assert layer_sigmas((1.0, 0.5), 3) == (1.0, 1.0, 0.5)
    assert layer_sigmas((1.0, 0.5, 0.2), 3) == (1.0, 0.5, 0.2)
    with pytest.raises(GLRError, match="give 1, 2 or 4"):
        layer_sigmas((1.0, 0.5, 0.2), 4)


def test_the_seed_is_of_weights_noise_and_held_out_samples(monkeypatch):
    monkeypatch.setattr(experiment, "trained", lambda run, *_: run)
    words = (["--seed", seed, "--validation", "100"] for seed in ("0", "0", "1"))
    constants = [constants_of("LRS.py", flags) for flags in words]
    states = []
    for found in map(train_by_glr, constants):
        (first, last) = found.estimator.state().values()
        assert np.any(first != last)
        states.append([found.network.parameters, first, last])
    states = [[*state, load_data(own).x_test] for state, own in zip(states, constants, strict=True)]
    for one, same, other in zip(*states, strict=True):
        np.testing.assert_array_equal(one, same)
        assert np.any(one != other)


def test_backpropagation_is_given_the_noise_of_the_constants(monkeypatch):
    given = []
    monkeypatch.setattr(
        experiment,
        "backpropagation_estimator",
        lambda network, noise: given.append((network, noise)),
    )
    monkeypatch.setattr(experiment, "trained", lambda run, *others: run)
    own = constants_of(
        "BP.py", ["--sigma", "1", "0.5", "--noise", "laplace", "--initial-scale", "2"]
    )
    experiment.train_by_backpropagation(own)
    experiment.train_by_backpropagation(constants_of("BP.py", []))
    (network, noise), (plain, silence) = given
    assert (noise.sigma, noise.law, silence.sigma) == ((1, 0.5), "laplace", (0, 0))
    np.testing.assert_array_equal(network.parameters, 2 * plain.parameters)
