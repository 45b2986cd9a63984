"""Image corruptions of five severities, as the robustness table measures them.

Each takes images (N, side, side) float32 with intensities in [0, 1], a severity from 1 to 5 and a
generator, and returns new images, clipped to [0, 1].

Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019 (arXiv 1903.12261), with the constants of its set for small images
(CIFAR-10-C). That set rounds to 8-bit intensities between steps; this module never rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

import numpy as np
from scipy.ndimage import gaussian_filter

SEVERITIES = (1, 2, 3, 4, 5)

# One constant for each severity. Intensities run from 0 to 1, and lengths are in pixels.
GAUSSIAN_NOISE_STD = (0.04, 0.06, 0.08, 0.09, 0.10)
IMPULSE_NOISE_AMOUNT = (0.01, 0.02, 0.03, 0.05, 0.07)  # share of the pixels
# Standard deviation of the blur, largest offset of a swap, passes over the image.
GLASS_BLUR = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))
CONTRAST_FACTOR = (0.75, 0.5, 0.4, 0.3, 0.15)


def as_images(x: np.ndarray) -> np.ndarray:
    """The flat images `x` (N, n_in) as (N, side, side) with side² = n_in; a view where possible."""
    side = isqrt(x.shape[1])
    return x.reshape(len(x), side, side)


def gaussian_noise(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """The images plus independent normal noise of standard deviation GAUSSIAN_NOISE_STD."""
    noise = rng.standard_normal(images.shape, dtype=np.float32)
    return np.clip(images + GAUSSIAN_NOISE_STD[severity - 1] * noise, 0, 1)


def impulse_noise(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """The images with IMPULSE_NOISE_AMOUNT of the pixels 0 or 1, as likely: salt and pepper."""
    amount = IMPULSE_NOISE_AMOUNT[severity - 1]
    u = rng.random(images.shape, dtype=np.float32)
    salted = np.where(u < amount, np.float32(1), images)
    return np.where(u < amount / 2, np.float32(0), salted)


def glass_blur(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """The images seen through frosted glass: blurred, locally shuffled, and blurred again.

    The shuffle goes over each image from the bottom right, rows and columns side−d down to d+1,
    and swaps each pixel with the one at an offset drawn uniformly from {−d … d−1}²; offsets differ
    between images. GLASS_BLUR gives the blur's standard deviation, d and the number of passes.
    At severity 1 the blur is too narrow to reach the next pixel: the shuffle is all there is.
    """
    std, reach, passes = GLASS_BLUR[severity - 1]
    # Pixels first: each swap then reads and writes runs of neighbouring memory, one per image.
    pixels = np.moveaxis(_blurred(images, std), 0, -1).copy()
    for _ in range(passes):
        _shuffle_locally(pixels, reach, rng)
    return np.clip(_blurred(np.moveaxis(pixels, -1, 0).copy(), std), 0, 1)


def contrast(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """The images with every deviation from the image's own mean scaled by CONTRAST_FACTOR."""
    mean = images.mean(axis=(1, 2), keepdims=True)
    return np.clip((images - mean) * CONTRAST_FACTOR[severity - 1] + mean, 0, 1)


CORRUPTIONS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    function.__name__: function
    for function in (gaussian_noise, impulse_noise, glass_blur, contrast)
}


def _blurred(images: np.ndarray, std: float) -> np.ndarray:
    """Each image convolved with a Gaussian of `std` pixels, as skimage.filters.gaussian does."""
    return gaussian_filter(images, sigma=(0, std, std), mode="nearest", truncate=4.0)


def _shuffle_locally(pixels: np.ndarray, reach: int, rng: np.random.Generator) -> None:
    """One pass of glass blur's swaps over `pixels` (side, side, N), in place.

    The order of the swaps matters within an image, so positions are a loop; images are not.
    """
    side, _, n = pixels.shape
    positions = range(side - reach, reach, -1)  # so that partners lie in 1 … side−1
    for row in positions:
        # A row at a time: a whole pass of offsets would outweigh the images.
        offsets = rng.integers(-reach, reach, size=(len(positions), 2, n))
        for column, (down, right) in zip(positions, offsets, strict=True):
            there = row + down, column + right, np.arange(n)
            partner = pixels[there]
            pixels[there] = pixels[row, column]
            pixels[row, column] = partner
