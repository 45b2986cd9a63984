"""The corruptions against their definitions, a plain loop, and scikit-image.

Statistical bounds hold with probability 1 − 1e-6 each if the code is right; seeds are fixed.
"""

import numpy as np
import pytest
from scipy import stats
from skimage.filters import gaussian
from skimage.util import random_noise

from glr.robustness.corruptions import CORRUPTIONS, SEVERITIES, as_images, contrast, glass_blur
from glr.robustness.corruptions import gaussian_noise as add_gaussian_noise
from glr.robustness.corruptions import impulse_noise as add_impulse_noise

CONFIDENCE = 1 - 1e-6
# The published constants, written out again so that a slip in the module shows.
STD = {1: 0.04, 2: 0.06, 3: 0.08, 4: 0.09, 5: 0.10}
AMOUNT = {1: 0.01, 2: 0.02, 3: 0.03, 4: 0.05, 5: 0.07}
FACTOR = {1: 0.75, 2: 0.5, 3: 0.4, 4: 0.3, 5: 0.15}
GLASS = {1: (0.05, 1, 1), 2: (0.25, 1, 1), 3: (0.4, 1, 1), 4: (0.25, 1, 2), 5: (0.4, 1, 2)}

each_severity = pytest.mark.parametrize("severity", SEVERITIES)
each_corruption = pytest.mark.parametrize("name", CORRUPTIONS)


def random_images(n, side, seed=0):
    return np.random.default_rng(seed).random((n, side, side), dtype=np.float32)


def grey_images(n, side=28):
    return np.full((n, side, side), 0.5, dtype=np.float32)


@each_corruption
@each_severity
@pytest.mark.parametrize("side", [1, 2, 3, 8, 28])
def test_result_is_a_batch_of_images_of_the_same_shape(name, severity, side):
    images = random_images(5, side)
    before = images.copy()
    corrupted = CORRUPTIONS[name](images, severity, np.random.default_rng(1))
    assert corrupted.shape == images.shape
    assert corrupted.dtype == np.float32
    assert corrupted.min() >= 0
    assert corrupted.max() <= 1
    np.testing.assert_array_equal(images, before)


@each_corruption
def test_same_seed_same_result(name):
    images = random_images(5, 28)
    first, again, other = (
        CORRUPTIONS[name](images, 3, np.random.default_rng(seed)) for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(first, again)
    assert np.array_equal(first, other) == (name == "contrast")


@each_corruption
def test_images_of_a_batch_are_corrupted_differently(name):
    images = np.repeat(random_images(1, 28), 2, axis=0)
    first, second = CORRUPTIONS[name](images, 1, np.random.default_rng(0))
    assert np.array_equal(first, second) == (name == "contrast")


@each_severity
def test_gaussian_noise_has_the_published_std(severity):
    noise = add_gaussian_noise(grey_images(200), severity, np.random.default_rng(2)) - 0.5
    n = noise.size
    low, high = np.sqrt(np.array(stats.chi2.interval(CONFIDENCE, n - 1)) / (n - 1))
    assert low < noise.std(ddof=1, dtype=np.float64) / STD[severity] < high
    reach = stats.norm.interval(CONFIDENCE)[1] * STD[severity] / np.sqrt(n)
    assert abs(noise.mean(dtype=np.float64)) < reach


@each_severity
def test_gaussian_noise_has_the_law_of_skimage(severity):
    # Black, grey and white, so that what is clipped is compared too.
    images = np.repeat(np.float32([0, 0.02, 0.5, 1]), 20_000).reshape(5, 4, 4000)
    images = images.reshape(-1, 20, 20)
    ours = add_gaussian_noise(images, severity, np.random.default_rng(3))
    theirs = random_noise(images, "gaussian", rng=4, var=STD[severity] ** 2)
    assert stats.ks_2samp(ours.ravel(), theirs.ravel()).pvalue > 1 - CONFIDENCE


@each_severity
def test_impulse_noise_changes_the_published_share_half_to_white(severity):
    images = add_impulse_noise(grey_images(200), severity, np.random.default_rng(5))
    salt, pepper = np.sum(images == 1), np.sum(images == 0)
    assert salt + pepper == np.sum(images != 0.5)
    low, high = stats.binom.interval(CONFIDENCE, images.size, AMOUNT[severity])
    assert low <= salt + pepper <= high
    low, high = stats.binom.interval(CONFIDENCE, salt + pepper, 0.5)
    assert low <= salt <= high


@each_severity
def test_impulse_noise_has_the_law_of_skimage(severity):
    images = grey_images(3000, side=12)
    ours = add_impulse_noise(images, severity, np.random.default_rng(6))
    theirs = random_noise(images, "s&p", rng=7, amount=AMOUNT[severity], salt_vs_pepper=0.5)
    for value in (0, 1):  # pixels of that value in each image
        counts = [np.sum(batch == value, axis=(1, 2)) for batch in (ours, theirs)]
        assert stats.ks_2samp(*counts).pvalue > 1 - CONFIDENCE


@each_severity
def test_contrast_keeps_the_mean_and_scales_the_deviations(severity):
    images = random_images(20, 28)
    rng = np.random.default_rng(0)
    state = rng.bit_generator.state
    flattened = contrast(images, severity, rng)
    mean = images.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    # Factors below 1 pull towards a mean within [0, 1]: nothing is ever clipped.
    np.testing.assert_allclose(flattened, mean + FACTOR[severity] * (images - mean), atol=2e-7)
    np.testing.assert_allclose(
        flattened.mean(axis=(1, 2), dtype=np.float64), mean[:, 0, 0], atol=1e-7
    )
    assert rng.bit_generator.state == state


def slow_glass_blur(image, severity, offsets):
    """The published loop over one image; `offsets` yields (down, right) for one swap each."""
    std, d, passes = GLASS[severity]
    side = len(image)
    image = gaussian(image, sigma=std)
    for _ in range(passes):
        for row in range(side - d, d, -1):
            for column in range(side - d, d, -1):
                down, right = next(offsets)
                keep = float(image[row, column])
                image[row, column] = image[row + down, column + right]
                image[row + down, column + right] = keep
    return np.clip(gaussian(image, sigma=std), 0, 1)


@each_severity
@pytest.mark.parametrize("side", [8, 28])
def test_glass_blur_equals_the_plain_loop(severity, side):
    n, (_, d, passes) = 3, GLASS[severity]
    images = random_images(n, side)
    rng = np.random.default_rng(9)
    rows = [rng.integers(-d, d, size=(side - 2 * d, 2, n)) for _ in range(passes * (side - 2 * d))]
    offsets = np.concatenate(rows)
    assert set(np.unique(offsets)) == {-1, 0}
    slow = [slow_glass_blur(images[i], severity, iter(offsets[:, :, i])) for i in range(n)]
    np.testing.assert_allclose(
        glass_blur(images, severity, np.random.default_rng(9)), slow, rtol=0, atol=3e-7
    )


def test_mildest_glass_blur_only_moves_pixels_and_not_far():
    side = 28
    # Every pixel its own shade, so that each can be found again.
    image = (np.arange(side * side, dtype=np.float32) / side**2).reshape(1, side, side)
    blurred = glass_blur(np.repeat(image, 50, axis=0), 1, np.random.default_rng(10))
    flat = blurred.reshape(50, -1)
    np.testing.assert_array_equal(np.sort(flat, axis=1), np.repeat(image.reshape(1, -1), 50, 0))

    place = np.argsort(flat, axis=1)  # where the pixel that was at 0, 1, 2, … is now
    rows, columns = np.divmod(np.arange(side * side), side)
    down, right = place // side - rows, place % side - columns
    # Swaps go up or left and the scan follows them: a pixel can be carried along for many swaps
    # that way, but takes one step down or right, after which the scan has passed it.
    assert down.max() == right.max() == 1
    assert down.min() < -1
    assert right.min() < -1
    # No swap reaches the first row or column.
    np.testing.assert_array_equal(blurred[:, 0], np.repeat(image[:, 0], 50, 0))
    np.testing.assert_array_equal(blurred[:, :, 0], np.repeat(image[:, :, 0], 50, 0))


@pytest.mark.parametrize("severity", [2, 3, 4, 5])
def test_glass_blur_keeps_a_plain_image(severity):
    blurred = glass_blur(grey_images(2), severity, np.random.default_rng(0))
    np.testing.assert_allclose(blurred, 0.5, atol=1e-6)


def test_as_images_makes_squares():
    flat = np.arange(3 * 64, dtype=np.float32).reshape(3, 64)
    images = as_images(flat)
    assert images.shape == (3, 8, 8)
    np.testing.assert_array_equal(images.reshape(3, 64), flat)
