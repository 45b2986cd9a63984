"""Evaluate trained networks on clean and perturbed test samples, beside the published table.

    python testAdv.py                               every model and sample file of the digits
    python testAdv.py --dataset mnist
    python testAdv.py --dataset mnist --models ../models/LRS_mnist_seed0.npz

Run generate_adv.py and noise_generate_adv.py before it. Several seeds of a network are shown as
mean ± standard deviation. Networks that came with the code and were not trained here are marked
(pretrained). The tables are written to results/, or to the folder GLR_RESULTS_DIR of the
environment; those of chosen models, samples or noisy passes to digits_part.csv.
"""

import sys

try:
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    from glr.robustness.evaluation import write_results
    from glr.scripts.console import one_line_errors
    from glr.scripts.constants import script_constants
except ImportError as error:
    sys.exit(f"{error}; run pip install 'FOLDER[scripts]' with the folder that glr/ is in")
except KeyboardInterrupt:
    sys.exit(130)

# --------------------------------------------------------------------------------------------
DATASET = "digits"  # "digits", "mnist", "fashion_mnist", or the file that was trained on
MODELS = ()  # paths of models; none for every model of the data set in models/
SAMPLES = ()  # names of sample files, as fgsm_eps0.13; none for all of data/<dataset>/adversarial
FUNCTIONS = ""  # a .py file that defines the activations that models have and glr has not
PREDICTION_PASSES = 0  # predict by the mean over so many passes with training's noise; 0: without
# Transferred samples are no attack on that prediction itself: whitebox.py's figure is one.
# --------------------------------------------------------------------------------------------

if __name__ == "__main__":
    with one_line_errors():
        write_results(script_constants(globals()))
