"""What the estimators are compared by: the relative variance, and the published estimator."""

from functools import partial

import numpy as np
import pytest
from scipy import stats

from glr.data.datasets import load_dataset
from glr.estimator import gradient
from glr.losses import cross_entropy, zero_one
from glr.network import accuracy, layer_views, new_network, sigmoid, threshold
from glr.robustness.tables import GLR_ROWS
from glr.scripts.constants import ROOT, SCRIPTS, constants_of
from glr.study.comparison import (
    PUBLISHED,
    direction_and_variance,
    half_trained,
    method_of,
    published_gradient,
)

FAMILY_WISE_ERROR = 1e-4  # of all elements that a test compares, together
SIZES = [2, 2, 2]
PARAMETERS = np.array([1.2, -0.8, 0.5, 0.9, -0.3, 0.4, 1.5, -1, -0.7, 1.1, 0.2, -0.1], np.float32)
X, Y = np.array([[1.0, 0.2], [-0.5, 0.8], [0.3, -1.0]], np.float32), np.array([0, 1, 0])


def flat(estimate):
    """All entries of the gradient in the order of the flat parameters, then the risk."""
    parts = [part.ravel() for layer in estimate.layers for part in layer]
    return np.concatenate([*parts, [estimate.risk]])


def draws_of(estimate):
    """100 independent estimates, each a mean over 30,000 noisy passes of the three samples."""
    x, y = np.tile(X, (3000, 1)), np.tile(Y, 3000)
    layers, rng = layer_views(PARAMETERS, SIZES), np.random.default_rng(1)
    return np.array([flat(estimate(layers, x, y, replicates=10, rng=rng)) for _ in range(100)])


def exact_risk(parameters):
    """The 0-1 risk of the threshold network under Laplace noise of scale 1, without any draw.

    By the four states of the hidden bits; an output errs if the difference of two Laplace
    variables, whose survival function is ½e^−d·(1 + d/2) for d ≥ 0, exceeds the label's lead d.
    """
    (W, b), (V, c) = layer_views(parameters, SIZES)
    up, risk = stats.laplace.cdf(X @ W + b), 0.0
    for state in np.ndindex(2, 2):
        z = np.array(state) @ V + c
        lead = np.where(Y == 0, z[0] - z[1], z[1] - z[0])
        tail = np.exp(-np.abs(lead)) * (1 + np.abs(lead) / 2) / 2
        chance = np.prod(np.where(state, up, 1 - up), axis=1)
        risk += (chance * np.where(lead > 0, tail, 1 - tail)).mean()
    return risk


def test_the_published_estimate_has_the_exact_gradient_as_its_mean():
    """Student's t-test of the twelve slopes and the risk, at 10⁻⁴ for all together."""
    draws = draws_of(partial(published_gradient, activation=threshold, loss=zero_one))
    steps = 1e-3 * np.eye(PARAMETERS.size)
    exact = [(exact_risk(PARAMETERS + s) - exact_risk(PARAMETERS - s)) / 2e-3 for s in steps]
    expected = np.array([*exact, exact_risk(PARAMETERS)])
    p = stats.ttest_1samp(draws, expected).pvalue
    assert p.min() * p.size > FAMILY_WISE_ERROR
    errors = stats.sem(draws)
    assert np.linalg.norm(errors) < 0.03 * np.linalg.norm(expected[:-1])  # no bias can hide


@pytest.mark.parametrize("loss", [cross_entropy, zero_one])
def test_the_published_estimate_has_the_mean_of_ours_without_what_lowers_variance(loss):
    """Welch's t-test of the twelve slopes and the risk, at 10⁻⁴ for all together."""
    settings = method_of(vars(constants_of("LRS.py", PUBLISHED.split()))) | {"loss": loss}
    del settings["replicates"]
    ours = draws_of(partial(gradient, **settings))
    theirs = draws_of(partial(published_gradient, activation=sigmoid, loss=loss))
    p = stats.ttest_ind(ours, theirs, equal_var=False).pvalue
    assert p.min() * p.size > FAMILY_WISE_ERROR
    ratio = np.log(ours.var(axis=0).sum() / theirs.var(axis=0).sum())
    assert abs(ratio) < 0.4  # nor another variance; the standard error is below 0.1


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_relative_variance_is_that_of_the_estimates_whatever_their_number(spread):
    """10⁵ entries of mean 1 and known variance, from four estimates: a standard error of 0.3 %."""
    rng = np.random.default_rng(0)

    gradients = (1 + spread * rng.standard_normal((100, 1000), np.float32) for _ in range(4))
    mean, variance = direction_and_variance(gradients)
    assert variance == pytest.approx(spread**2, rel=0.03)
    np.testing.assert_allclose(mean.mean(), 1e-5**0.5, rtol=0.03)


def test_a_script_s_method_is_what_the_script_hands_to_gradient():
    methods = {name: method_of(vars(constants_of(f"{name}.py", []))) for name in GLR_ROWS}
    for name, method in methods.items():
        source = (SCRIPTS / f"{name}.py").read_text()
        assert all(f"            {key}={key.upper()},\n" in source for key in method)
        gradient(
            new_network([3, 4, 2], sigmoid, np.random.default_rng(0)).layers,
            np.ones((2, 3)),
            Y[:2],
            **method,
            rng=np.random.default_rng(0),
        )
    assert methods["LRTZ"]["loss"] is zero_one
    assert methods["LRTZ"]["sigma"] == constants_of("LRTZ.py", []).SIGMA


def test_a_half_trained_network_has_begun_to_learn_and_ours_varies_less():
    data = load_dataset("digits", ROOT / "data")
    constants = constants_of("LRS.py", ["--dataset", "digits", "--replicates", "20"])
    run = half_trained(constants, data)
    assert accuracy(run.network.logits(data.x_test), data.y_test) > 0.8
    method = method_of(vars(constants))
    batch = run.layers, data.x_train[:128], data.y_train[:128]
    published = method_of(vars(constants_of("LRS.py", [*PUBLISHED.split(), "--replicates", "20"])))

    def variance(method):
        found = (gradient(*batch, **method, rng=run.rng).layers[0].W for _ in range(200))
        return direction_and_variance(found)[1]

    ours, theirs = variance(method), variance(published)
    assert 0 < 10 * ours < theirs
