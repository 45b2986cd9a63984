"""Certify networks: how far every change of an image, in ℓ2 norm, surely leaves its class.

    python certify.py                               every model of the digits
    python certify.py --dataset mnist
    python certify.py --dataset mnist --models ../models/LRS_mnist_seed0.npz --sigmas 1 2 4

No attack is run. A network predicts here by vote, over passes with Gaussian noise on its first
layer's logits alone, whatever noise it was trained with. How sure the vote is bounds how far an
image must move to turn it: randomised smoothing (Cohen et al. 2019); docs/method.md has the
derivation. An image counts within a radius if the vote is right, and is sure to stay so there. More
noise certifies larger radii, of fewer images; compare noise at held-out samples, or show all of it.
The certificate is the vote's: the network without noise, which the other scripts test, has none.

Written: <dataset>_certified.csv and a picture in results/, or in the folder GLR_RESULTS_DIR of the
environment; a minute at most for 500 images, a network of up to 1,024 neurons, and a σ.
"""

import sys

try:
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    from glr.robustness.certificate import write_certificates
    from glr.scripts.console import one_line_errors
    from glr.scripts.constants import script_constants
except ImportError as error:
    sys.exit(f"{error}; run pip install 'FOLDER[scripts]' with the folder that glr/ is in")
except KeyboardInterrupt:
    print("interrupted; start it again", file=sys.stderr)
    sys.exit(130)

# --------------------------------------------------------------------------------------------
DATASET = "digits"  # "digits", "mnist", "fashion_mnist", or the .npz that was trained on
MODELS = ()  # paths of models; none for every model of the data set in models/
FUNCTIONS = ""  # a .py file that defines the activations that models have and glr has not
IMAGES = 500  # the first so many test images; 0 for all
SIGMAS = (1.0, 2.0)  # standard deviations of the noise, each with a table and a curve of its own
RADII = (0.25, 0.5, 1.0)  # of the table, in units of the inputs: 1 is one pixel from black to white
PASSES = 10000  # noisy passes that are counted; the largest radius grows with them, slowly
ALPHA = 0.001  # probability that an image's radius is too large
SEED = 0  # of the noise
# --------------------------------------------------------------------------------------------


def main() -> None:
    """Certify, print the table, write it and the picture."""
    write_certificates(script_constants(globals()))


if __name__ == "__main__":
    with one_line_errors():
        main()
