"""What the estimators are compared by: the relative variance, and the published estimator."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from glr.passes import GLR, Batch, forward_passes

from glr.estimator import glr_gradient
from glr.losses import zero_one
from glr.network import new_network, threshold
from glr.study import comparison
from glr.study.comparison import published_estimator, relative_variance

OURS = GLR(
    threshold,
    zero_one,
    (1.0, 0.5),
    output_draws=3,
    conditional_score=True,
    standardised_loss=True,
    local_differences=True,
    redraws=4,
    layerwise=True,
)


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_relative_variance_is_that_of_the_estimates_whatever_their_number(spread, monkeypatch):
    """10⁵ entries of mean 1 and known variance, from four estimates: a standard error of 0.3 %."""
    monkeypatch.setattr(comparison, "LEAST_DRAWS", 4)
    monkeypatch.setattr(comparison, "PASSES", 4)
    rng = np.random.default_rng(0)

    def estimate(glr, layers, batch, streams):
        W = 1 + spread * rng.standard_normal((100, 1000), dtype=np.float32)
        return SimpleNamespace(layers=[SimpleNamespace(W=W)])

    monkeypatch.setattr(comparison, "glr_gradient", estimate)
    network = new_network([100, 1000], threshold, rng)
    found = relative_variance(OURS, network, None, None)
    assert found == pytest.approx(spread**2, rel=0.03)


def test_published_estimator_is_loss_times_input_times_the_sign_of_unit_laplace_noise():
    glr = replace(published_estimator(OURS), replicates=5)
    rng = np.random.default_rng(0)
    network = new_network([4, 3, 2], threshold, rng)
    batch = Batch(rng.random((4, 6), dtype=np.float32), rng.integers(0, 2, 6))

    def streams():
        return [np.random.default_rng([1, t]) for t in range(2)]

    passes = forward_passes(glr, network.layers, batch, streams())
    found = glr_gradient(glr, network.layers, batch, streams())
    losses, signs = passes.losses[:, 0], np.sign(passes.noise[0].score)
    expected = np.einsum("rb,ib,rnb->in", losses, batch.x, signs) / losses.size
    np.testing.assert_allclose(found.layers[0].W, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(passes.noise[0].score / passes.noise[0].scale, signs, rtol=1e-5)
    assert glr.sigma == (2**0.5, 2**0.5)


def test_published_noise_has_unit_scale():
    """The mean of |r| is Laplace noise's scale; its standard error here is 0.3 %."""
    glr = published_estimator(OURS)
    r, _ = glr.noise.draw(np.random.default_rng(0), (1, 100, 1000))
    assert glr.sigma[0] * np.abs(r).mean() == pytest.approx(1, rel=0.015)
