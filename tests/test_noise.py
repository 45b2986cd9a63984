"""The noise laws against SciPy's. Fixed seeds; every statistical test has 99.99 % confidence."""

import numpy as np
import pytest
from scipy import stats

from glr.errors import GLRError
from glr.noise import NoiseLaw, check_law, gaussian, laplace, logistic, random_words, uniform

ERROR = 1e-4  # the chance that one statistical test rejects a right law
SHAPE = (1001, 3, 333)  # a million draws, an odd number in every replicate

LAWS = {
    "gaussian": (gaussian, stats.norm()),
    "laplace": (laplace, stats.laplace(scale=1 / np.sqrt(2))),
    "logistic": (logistic, stats.logistic(scale=np.sqrt(3) / np.pi)),
}
FISHER_INFORMATION = {"gaussian": 1, "laplace": 2, "logistic": np.pi**2 / 9}

each_law = pytest.mark.parametrize("name", LAWS)
each_word = pytest.mark.parametrize("dtype", [np.uint16, np.uint32])


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
    """Kolmogorov-Smirnov, of each half of the draws apart too: the first index is a replicate."""
    r, _ = noise_and_score(name)
    for part in (r, r[: len(r) // 2], r[1::2]):
        assert stats.kstest(part, LAWS[name][1].cdf).pvalue > ERROR / 3


@each_law
def test_draws_are_independent(name):
    """Neither neighbouring draws nor neighbouring replicates correlate, in value or in size."""
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
    r, score = noise_and_score(name, (100, 1000))
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


@each_law
def test_cdf_is_scipys(name):
    v = np.linspace(-9, 9, 10_001, dtype=np.float32)
    law, distribution = LAWS[name]
    np.testing.assert_allclose(law.cdf(v), distribution.cdf(v), rtol=0, atol=1.2e-6)


@each_law
def test_score_gap_is_the_density_over_both_probabilities(name):
    """f/(F(1 − F)), the difference of the score's two conditional means."""
    v = np.linspace(-3, 3, 10_001, dtype=np.float32)
    law, distribution = LAWS[name]
    F = distribution.cdf(v)
    found = np.broadcast_to(law.score_gap(v), v.shape)
    np.testing.assert_allclose(found, distribution.pdf(v) / (F * (1 - F)), rtol=1e-3)


@each_law
def test_score_gap_is_the_difference_of_the_scores_two_conditional_means(name):
    """E[s | r > −v] − E[s | r < −v] over draws."""
    r, score = noise_and_score(name)
    for v in (-1.0, 0.25, 1.5):
        above, below = score[r > -v], score[r < -v]
        error = np.hypot(above.std() / np.sqrt(len(above)), below.std() / np.sqrt(len(below)))
        gap = float(LAWS[name][0].score_gap(np.float32(v)))
        assert error < 0.005 * gap
        assert abs(above.mean() - below.mean() - gap) < stats.norm.isf(ERROR / 6) * error


@each_law
@pytest.mark.parametrize("v", [-50, 50, -1e4, 1e4])
def test_far_logits_have_finite_probabilities_and_scores(name, v):
    law = LAWS[name][0]
    v = np.full((2, 3), v, np.float32)
    assert np.all((law.cdf(v) >= 0) & (law.cdf(v) <= 1))
    np.testing.assert_allclose(law.cdf(v), v > 0, atol=1.2e-6)
    assert np.all(np.isfinite(law.score_gap(v)))


@each_law
def test_everything_is_float32(name):
    law, v = LAWS[name][0], np.linspace(-3, 3, 6, dtype=np.float32).reshape(2, 3)
    r, score = law.draw(generator(), (4, 3, 5))
    assert r.shape == score.shape == (4, 3, 5)
    assert {a.dtype for a in (r, score, law.cdf(v), v * law.score_gap(v))} == {r.dtype}
    assert r.dtype == np.float32


def test_uniform_is_uniform_and_symmetric():
    c = uniform(generator(), SHAPE)
    assert c.dtype == np.float32
    assert c.shape == SHAPE
    assert stats.kstest(c.ravel(), stats.uniform(-1, 2).cdf).pvalue > ERROR
    assert_mean(c.ravel().astype(np.float64), 0)


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
    assert np.all(np.abs(uniform(generator_starting_with(word), (1, 2))) < 1)
    for law, _ in LAWS.values():
        r, score = law.draw(generator_starting_with(word), (1, 2))
        assert np.all(np.isfinite(r))
        assert np.all(np.isfinite(score))


@each_word
def test_words_are_uniform(dtype):
    """χ² of the high byte and of the low byte, at every place in a 64-bit word."""
    bits = 8 * np.dtype(dtype).itemsize
    words = random_words(generator(), (64, 4096), dtype)
    assert words.dtype == dtype
    places = 64 // bits
    for place in range(places):
        part = words[:, place::places].ravel()
        for byte in (part >> (bits - 8), part & 255):
            p = stats.chisquare(np.bincount(byte, minlength=256)).pvalue
            assert p > ERROR / (2 * places)


@each_word
@pytest.mark.parametrize("shape", [(11, 7), (11, 3, 5), (11, 2, 3, 3), (11, 1), (11, 8)])
def test_words_are_the_same_in_blocks_of_replicates(dtype, shape):
    at_once = random_words(generator(), shape, dtype)
    assert at_once.shape == shape
    rng = generator()
    blocks = [random_words(rng, (size, *shape[1:]), dtype) for size in (1, 4, 6)]
    assert np.array_equal(np.concatenate(blocks), at_once)
    assert len(np.unique(at_once[:, 0])) > 1


@each_law
@pytest.mark.parametrize("shape", [(11, 7), (11, 3, 5), (11, 2, 3, 3), (11, 1)])
def test_noise_is_the_same_in_blocks_of_replicates(name, shape):
    draw = LAWS[name][0].draw
    at_once, rng = draw(generator(), shape), generator()
    blocks = [draw(rng, (size, *shape[1:])) for size in (1, 4, 6)]
    for whole, parts in zip(at_once, zip(*blocks, strict=True), strict=True):
        assert np.array_equal(np.concatenate(parts), whole)


@each_law
def test_same_seed_gives_the_same_noise(name):
    first, again, other = (LAWS[name][0].draw(generator(s), (3, 5))[0] for s in (1, 1, 2))
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
    check_law(LAWS[name][0], generator(), needs_cdf=True)


def test_a_law_of_heavy_tails_passes_the_check():
    check_law(NoiseLaw("t5", student_t), generator(), needs_cdf=False)


@pytest.mark.parametrize(
    ("draw", "complaint"),
    [
        (flat, r"the mean of r·s\(r\) is 0.00, not 1"),
        (times(1, -1), r"the mean of r·s\(r\) is -1.00, not 1"),
        (times(3, 1), r"r·s\(r\) is 2.99, the standard deviation of r is 3.00, not 1"),
        (times(3, 1 / 3), r"NOISE = own: the standard deviation of r is 3.00, not 1; scale it"),
        (times(1, np.nan), r"the mean of r·s\(r\) is nan"),
        (lambda rng, shape: rng.random(shape), r"the noise own drew shapes \(64, 64, 64\), not"),
    ],
)
def test_a_law_whose_noise_and_score_do_not_fit_is_refused(draw, complaint):
    with pytest.raises(GLRError, match=complaint):
        check_law(NoiseLaw("own", draw), generator(), needs_cdf=False)


@pytest.mark.parametrize(
    ("cdf", "score_gap", "complaint"),
    [
        (lambda v: logistic.cdf(-v), gaussian.score_gap, r"at v = -30 cdf is 1.00"),
        (gaussian.cdf, lambda v: 2 * gaussian.score_gap(v), r"at v = -1 .* by its draws 0.16 and"),
        (gaussian.cdf, lambda v: gaussian.score_gap(v) / (abs(v) < 9), "at v = -30 .* (nan|inf)"),
    ],
)
def test_a_law_whose_conditional_scores_do_not_fit_its_draws_is_refused(cdf, score_gap, complaint):
    law = NoiseLaw("own", gaussian.draw, cdf, score_gap)
    check_law(law, generator(), needs_cdf=False)
    with np.errstate(all="ignore"), pytest.raises(GLRError, match=complaint):
        check_law(law, generator(), needs_cdf=True)
