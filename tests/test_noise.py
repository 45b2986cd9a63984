"""The noise laws against SciPy's. Fixed seeds; every statistical test has 99.99 % confidence."""

import numpy as np
import pytest
from scipy import stats

from glr import estimator
from glr.checks import check_law
from glr.errors import GLRError
from glr.estimator import gradient
from glr.network import Layer, threshold
from glr.noise import NoiseLaw, gaussian, independent_words, laplace, logistic

ERROR = 1e-4  # the probability that one statistical test rejects a right law
SHAPE = (1001, 1, 999)  # a million draws of one pass, an odd number of them

LAWS = {
    "gaussian": (gaussian, stats.norm()),
    "laplace": (laplace, stats.laplace(scale=1 / np.sqrt(2))),
    "logistic": (logistic, stats.logistic(scale=np.sqrt(3) / np.pi)),
}
FISHER_INFORMATION = {"gaussian": 1, "laplace": 2, "logistic": np.pi**2 / 9}

each_law = pytest.mark.parametrize("name", LAWS)


def generator(seed=1):
    return np.random.default_rng(seed)


def noise_and_score(name, shape=SHAPE, seed=1):
    """Draws and scores, flat and in float64."""
    r, score = LAWS[name][0].draw(generator(seed), shape)
    return r.ravel().astype(np.float64), score.ravel().astype(np.float64)


def assert_mean(values, wanted):
    """A z-test, but for float32's rounding; it can fail: the standard error is below 0.5 %."""
    error = values.std() / np.sqrt(len(values))
    assert error < 0.005
    assert abs(values.mean() - wanted) < stats.norm.isf(ERROR / 2) * error + 1e-6


@each_law
def test_name(name):
    assert LAWS[name][0].name == name


@each_law
def test_noise_has_mean_zero_and_unit_variance(name):
    r, _ = noise_and_score(name)
    assert LAWS[name][1].var() == pytest.approx(1)
    assert_mean(r, 0)
    assert_mean(r**2, 1)


@each_law
def test_noise_has_its_distribution(name):
    """Kolmogorov-Smirnov, of each half of the draws apart too: of the first, of every second."""
    r, _ = noise_and_score(name)
    for part in (r, r[: len(r) // 2], r[1::2]):
        assert stats.kstest(part, LAWS[name][1].cdf).pvalue > ERROR / 3


@each_law
def test_draws_are_independent(name):
    """Neither neighbours nor draws a row apart correlate, in value or in size."""
    r, _ = noise_and_score(name)
    for lag in (1, 2, 3, 4, 999, 1000):
        for a in (r, np.abs(r) - np.abs(r).mean()):
            products = a[:-lag] * a[lag:]
            error = products.std() / np.sqrt(len(products))
            assert abs(products.mean()) < stats.norm.isf(ERROR / 24) * error


@pytest.mark.parametrize(("name", "wanted"), [("gaussian", 2), ("logistic", 1.43), ("laplace", 1)])
def test_variance_of_a_local_difference_of_a_linear_loss(name, wanted):
    """Of slope 1: that of r·s, as docs/method.md has it, whose mean is 1."""
    r, score = noise_and_score(name)
    error = (r * score).std() / np.sqrt(r.size)
    assert abs((r * score).mean() - 1) < stats.norm.isf(ERROR / 2) * error
    square = np.square(r * score - 1)
    error = square.std() / np.sqrt(square.size)
    assert abs(square.mean() - wanted) < stats.norm.isf(ERROR / 2) * error + 0.002


@each_law
def test_score_is_minus_the_log_densitys_slope(name):
    """By central differences of SciPy's log-density, away from the Laplace law's kink at 0."""
    r, score = noise_and_score(name, (100, 1, 1000))
    step = 1e-4
    slope = LAWS[name][1].logpdf(r + step) - LAWS[name][1].logpdf(r - step)
    smooth = np.abs(r) > 2 * step
    assert smooth.mean() > 0.99
    np.testing.assert_allclose(score[smooth], -slope[smooth] / (2 * step), rtol=1e-4, atol=1e-5)


@each_law
def test_score_integrates_by_parts(name):
    """E[s] = 0, E[r·s] = 1 and E[s²] is the law's Fisher information."""
    r, score = noise_and_score(name)
    assert_mean(score, 0)
    assert_mean(r * score, 1)
    assert_mean(score**2, FISHER_INFORMATION[name])


# ---------------------------------------------------------------- threshold neurons


SATURATED = np.array([-30, -10, -9, -6, -1, 0, 1, 6, 9, 10, 30], np.float32)
TINY = np.finfo(np.float32).tiny  # what is smaller has fewer digits, or none


@each_law
@pytest.mark.parametrize("function", ["cdf", "pdf"])
def test_cdf_and_pdf_are_scipys_in_the_tails_too(name, function):
    """To 10⁻⁵ of the value: float32's exponentials of arguments up to 60 have such an error."""
    law, distribution = LAWS[name]
    v = np.concatenate([np.linspace(-9, 9, 10_001, dtype=np.float32), SATURATED])
    found, wanted = getattr(law, function)(v), getattr(distribution, function)(v.astype(float))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=TINY)


def scores_of_words(law, v, words):
    """What threshold neurons of logits v have for a score, each from a random word of 32 bits.

    With a loss of 1 and one pass of one sample, a bias's gradient is its neuron's score.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimator, "random_words", lambda rng, shape: words.reshape(shape))
        estimate = gradient(
            [Layer(np.zeros((1, v.size)), v), Layer(np.zeros((v.size, 2)), np.zeros(2))],
            np.zeros((1, 1)),
            np.zeros(1),
            activation=threshold,
            loss=lambda logits, y: np.ones(logits.shape[:-2] + logits.shape[-1:]),
            noise=law,
            replicates=1,
            local_differences=False,
            control_variate=False,
            rng=generator(),
        )
    return estimate.layers[0].b.astype(float)


LOWEST, HIGHEST = np.uint32(0), np.uint32(2**32 - 1)


def scores_of_both_bits(law):
    """At each saturated logit: from the word that gives 1 if any does, and from the one for 0."""
    return (scores_of_words(law, SATURATED, np.full(SATURATED.size, w)) for w in (LOWEST, HIGHEST))


@each_law
def test_conditional_score_of_saturated_neurons_is_scipys(name):
    """f/p of a bit 1 and −f/(1 − p) of 0, to 10⁻⁵: 1 − p by subtraction would have lost it all.

    Where float32 has the density, and the rarer bit is drawn at all: p is a multiple of 2⁻³².
    """
    law, distribution = LAWS[name]
    v = SATURATED.astype(float)
    up, down = scores_of_both_bits(law)
    has_density = distribution.pdf(v) > TINY
    wanted_up, wanted_down = np.exp(
        distribution.logpdf(v) - [distribution.logcdf(v), distribution.logsf(v)]
    )
    drawn = has_density & (distribution.cdf(v) > 2.0**-32)
    np.testing.assert_allclose(up[drawn], wanted_up[drawn], rtol=1e-5)
    np.testing.assert_allclose(down[has_density], -wanted_down[has_density], rtol=1e-5)
    assert np.all(np.abs(up) <= np.maximum(wanted_up, wanted_down) * (1 + 1e-5))
    assert np.all(np.abs(down) <= wanted_down * (1 + 1e-5))
    assert has_density.sum() >= SATURATED.size - 2
    assert {9, 10} <= set(v[has_density])


def share_of_words(law):
    """The actual probability of a bit 1, by bisection over the words, at each saturated logit."""
    of_lowest, _ = scores_of_both_bits(law)
    least, most = np.zeros(SATURATED.size, np.int64), np.full(SATURATED.size, 2**32)
    for _ in range(32):
        middle = (least + most) // 2
        same = scores_of_words(law, SATURATED, middle.astype(np.uint32)) == of_lowest
        least, most = np.where(same, middle, least), np.where(same, most, middle)
    return most / 2**32


@each_law
def test_conditional_score_has_mean_zero_under_the_bits_that_are_drawn(name):
    """To the rounding of p: to 2⁻²³, float32's near 1 and the highest word's, of a score."""
    law = LAWS[name][0]
    up, down = scores_of_both_bits(law)
    p = share_of_words(law)
    assert np.all(np.abs(p * up + (1 - p) * down) < 2.0**-23 * np.maximum(1, np.abs(down)))
    ordinary = np.abs(SATURATED) <= 1
    np.testing.assert_allclose(p[ordinary], LAWS[name][1].cdf(SATURATED[ordinary]), rtol=1e-6)


@each_law
@pytest.mark.parametrize("v", [-50, 50, -1e4, 1e4])
def test_far_logits_have_finite_probabilities_and_scores(name, v):
    law, v = LAWS[name][0], np.full(6, v, np.float32)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(law.cdf(v), v > 0, atol=1e-7)
        np.testing.assert_allclose(law.pdf(v), 0, atol=1e-15)
    scores = scores_of_words(law, v, generator().integers(0, 2**32, 6, np.uint32))
    assert np.all(np.abs(scores) < 1e-5)


@each_law
def test_everything_is_float32(name):
    law, v = LAWS[name][0], np.linspace(-3, 3, 6, dtype=np.float32).reshape(2, 3)
    r, score = law.draw(generator(), (4, 3, 5))
    assert r.shape == score.shape == (4, 3, 5)
    assert law.cdf(v).shape == law.pdf(v).shape == v.shape
    assert {a.dtype for a in (r, score, law.cdf(v), law.pdf(v))} == {np.dtype(np.float32)}


# ---------------------------------------------------------------- random bits


def generator_starting_with(word):
    """A generator whose first 64 random bits are `word`: SFC64 starts with its state's a + b."""
    bits = np.random.SFC64(0)
    bits.state = bits.state | {"state": {"state": np.array([word, 0, 1, 0], np.uint64)}}
    return np.random.Generator(bits)


EXTREME_WORDS = {
    "zeros": 0,
    "ones": 2**64 - 1,
    "largest int32": 0x7FFF_FFFF_7FFF_FFFF,
    "smallest int32": 0x8000_0000_8000_0000,
}


@pytest.mark.parametrize("word", EXTREME_WORDS.values(), ids=EXTREME_WORDS)
def test_extreme_bits_give_finite_noise(word):
    """Uniforms stay strictly inside (−1, 1), where no law's inverse is infinite."""
    assert generator_starting_with(word).bit_generator.random_raw() == word
    for law, _ in LAWS.values():
        r, score = law.draw(generator_starting_with(word), (1, 1, 2))
        assert np.all(np.isfinite(r))
        assert np.all(np.isfinite(score))


def test_words_are_uniform():
    """χ² of the high byte and of the low byte, in either half of a 64-bit word."""
    words = independent_words(generator(), (64, 4096))
    assert words.dtype == np.uint32
    for half in (words[:, ::2].ravel(), words[:, 1::2].ravel()):
        for byte in (half >> 24, half & 255):
            assert stats.chisquare(np.bincount(byte, minlength=256)).pvalue > ERROR / 4


@pytest.mark.parametrize("shape", [(11, 7), (11, 3, 5), (11, 2, 3, 3), (11, 1), (1,), (0, 3)])
def test_words_have_any_shape_and_are_all_different(shape):
    words = independent_words(generator(), shape)
    assert words.shape == shape
    assert len(np.unique(words)) == words.size


@each_law
def test_same_seed_gives_the_same_noise(name):
    first, again, other = (LAWS[name][0].draw(generator(s), (3, 1, 5))[0] for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.any(first == other)


def student_t(rng, shape):
    """Student's t of 5 degrees of freedom at unit variance: heavy tails, and a right score."""
    scale, t = np.sqrt(5 / 3), rng.standard_t(5, shape)
    return t / scale, 6 * t / (5 + t * t) * scale


def flat(rng, shape):
    """Uniform noise, whose density jumps."""
    return rng.uniform(-np.sqrt(3), np.sqrt(3), shape), np.zeros(shape)


def times(r_factor, s_factor):
    """Gaussian noise and score times these."""

    def draw(rng, shape):
        r = rng.standard_normal(shape)
        return r_factor * r, s_factor * r

    return draw


@each_law
def test_glr_s_laws_pass_the_check_of_your_own(name):
    check_law(LAWS[name][0], generator())


def test_a_law_of_heavy_tails_passes_the_check():
    check_law(NoiseLaw("t5", student_t), generator())


@pytest.mark.parametrize(
    ("draw", "complaint"),
    [
        (flat, r"the mean of r·s\(r\) is 0.00, not 1"),
        (times(1, -1), r"the mean of r·s\(r\) is -1.00, not 1"),
        (times(3, 1), r"the mean of r·s\(r\) is 2.99, not 1"),
        (times(3, 1 / 3), r"NOISE = own: the standard deviation of r is 3.00, not 1; scale it"),
        (times(1, np.nan), r"the mean of r·s\(r\) is nan"),
        (lambda rng, shape: rng.random(shape), r"the noise own drew shapes \(64, 64, 64\), not"),
    ],
)
def test_a_law_whose_noise_and_score_do_not_fit_is_refused(draw, complaint):
    with pytest.raises(GLRError, match=complaint):
        check_law(NoiseLaw("own", draw), generator())


@pytest.mark.parametrize(
    ("cdf", "pdf", "complaint"),
    [
        (lambda v: logistic.cdf(-v), gaussian.pdf, r"at v = -30 cdf is 1.00"),
        (gaussian.cdf, lambda v: 2 * gaussian.pdf(v), r"at v = -1 .* by its draws 0.16 and 0.24"),
        (gaussian.cdf, lambda v: gaussian.pdf(v) / (abs(v) < 9), "at v = -30 .* nan"),
    ],
)
def test_a_law_whose_cdf_and_pdf_do_not_fit_its_draws_is_refused(cdf, pdf, complaint):
    check_law(NoiseLaw("own", gaussian.draw), generator())
    law = NoiseLaw("own", gaussian.draw, cdf, pdf)
    with np.errstate(all="ignore"), pytest.raises(GLRError, match=complaint):
        check_law(law, generator())
