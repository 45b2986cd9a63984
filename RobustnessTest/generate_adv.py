"""Attack the test set: fast gradient sign method, and others.

    python generate_adv.py                          FGSM on the embedded digits
    python generate_adv.py --dataset mnist --epsilon 0.05 0.1 0.13
    python generate_adv.py --dataset mnist --attack lbfgs
    python generate_adv.py --dataset mnist --target ../models/LRT_mnist_seed0.npz
    python generate_adv.py --dataset mnist --attack glr --target ../models/LRT_mnist_seed0.npz
    python generate_adv.py --dataset mnist --attack square --images 500    needs no gradient

The target is whose gradient is followed. The default, the paper's, is a surrogate: a ReLU network
trained by backpropagation, whose attack is transferred to the others. Of a threshold network the
gradient of a sigmoid network of its weights is followed.
Samples go to data/<dataset>/adversarial/, with a picture of the first ten.
"""

import sys

try:
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    from glr.robustness.perturbation import write_attacks
    from glr.scripts.console import one_line_errors
    from glr.scripts.constants import script_constants
except ImportError as error:
    sys.exit(f"{error}; run pip install 'FOLDER[scripts]' with the folder that glr/ is in")
except KeyboardInterrupt:
    sys.exit(130)

# --------------------------------------------------------------------------------------------
DATASET = "digits"  # "digits", "mnist", "fashion_mnist", or a file with inputs in [0, 1]
ATTACK = "fgsm"  # "fgsm", "pgd", "lbfgs"; without a derivative "glr" (by noise), "square"
EPSILON = (0.13,)  # largest change of a pixel, of inputs in [0, 1]; one file for each
TARGET = "surrogate"  # whose gradient: "surrogate" (transfer), or the path of a model (white box)
IMAGES = 0  # attack the first so many test images, into a file named after them; 0 for all
SEED = 0  # of the surrogate's training, and of random choices
PGD_STEPS = 40  # of pgd and glr
PENALTY = 0.2  # of lbfgs, on squared changes: small enough for nearly all to reach their target
QUERIES = 300  # squares that square tries on each image
FUNCTIONS = ""  # a .py file that defines the activations that models have and glr has not
# --------------------------------------------------------------------------------------------

if __name__ == "__main__":
    with one_line_errors():
        write_attacks(script_constants(globals()))
