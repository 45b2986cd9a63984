"""Corrupt the test set as nature does: noise, salt and pepper, frosted glass, low contrast.

    python noise_generate_adv.py                    the embedded digits
    python noise_generate_adv.py --dataset mnist

Each corruption has five severities (Hendrycks & Dietterich 2019), stacked in one file,
data/<dataset>/adversarial/<corruption>.npz. A picture shows them all on one image.
"""

import sys

try:
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    from glr.robustness.perturbation import write_corruptions
    from glr.scripts.console import one_line_errors
    from glr.scripts.constants import script_constants
except ImportError as error:
    sys.exit(f"{error}; run pip install 'FOLDER[scripts]' with the folder that glr/ is in")
except KeyboardInterrupt:
    sys.exit(130)

# --------------------------------------------------------------------------------------------
DATASET = "digits"  # "digits", "mnist", "fashion_mnist", or a file of square images
SEED = 0  # of the noise
# --------------------------------------------------------------------------------------------

if __name__ == "__main__":
    with one_line_errors():
        write_corruptions(script_constants(globals()))
