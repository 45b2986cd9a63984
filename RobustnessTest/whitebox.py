"""Attack every network itself, not by way of another: what of its robustness is left.

    python whitebox.py                              study.py's networks, or the pretrained ones
    python whitebox.py --datasets digits --seeds 1 --names LRS LRT BP+L2C
    python whitebox.py --datasets mnist --models ../models/depth/LRS-adv-1024_mnist_seed?.npz

The attacks of the table have ε 0.1: FGSM transferred from the surrogate, as in testAdv.py; FGSM and
PGD along the network's own gradient (of a threshold network, that of a sigmoid network of its
weights); glr along that which noise and losses tell; then, on what all these leave, AutoAttack's
gradient attacks and Square. What that one leaves is the figure. Activations of your own are
attacked by glr and Square, which take no derivative. Models that were trained with --validation
are attacked on the samples that they left out.

Written: whitebox.md and a picture of PGD at other ε in results/ (whitebox_part if the constants are
not those below); with --write-docs README.md, docs/results.md and docs/whitebox.png.
"""

import sys

try:
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    from glr.scripts.console import one_line_errors
    from glr.scripts.constants import script_constants
    from glr.study.pages import page_of
    from glr.study.runs import are_trained, datasets_found
    from glr.study.whitebox import measured_rows, write_whitebox
except ImportError as error:
    sys.exit(f"{error}; run pip install 'FOLDER[scripts]' with the folder that glr/ is in")
except KeyboardInterrupt:
    sys.exit(130)

# --------------------------------------------------------------------------------------------
DATASETS = ("mnist", "fashion_mnist")  # the ones of these that are found are used
NAMES = (  # of the networks, as in study.py
    *("LRS", "LRT", "LRSZ", "LRTZ", "BP", "BP+L2C", "ST+L2C"),
    *("LRS-adv", "LRT-adv", "LRSZ-adv", "LRTZ-adv", "BP+L2C-adv", "ST+L2C-adv"),
)
SEEDS = 5  # those of seeds 0 … SEEDS − 1
MODELS = ()  # paths of models of a data set, in the place of NAMES and SEEDS
FUNCTIONS = ""  # a .py file that defines the activations that models have and glr has not
SEED = 0  # of glr's and square's random choices, and of the surrogate
IMAGES = 1000  # the first so many test images; 0 for all
EPSILON = (0.05, 0.2)  # of PGD in the picture, beside the table's 0.1
PGD_STEPS = 40  # of pgd and glr
STARTS = 4  # random ones of pgd and glr, beside the image itself
QUERIES = 5000  # squares that square tries on each image
PREDICTION_PASSES = 0  # predict by the mean over so many passes with training's noise; 0: without
PROCESSES = 2  # networks that are attacked at the same time
WRITE_DOCS = False  # into docs/, in place of RobustnessTest/results/
# --------------------------------------------------------------------------------------------


def main() -> None:
    """Attack all, write the tables and the picture."""
    constants = script_constants(globals())
    by_dataset = {name: measured_rows(constants, name) for name in datasets_found(constants)}
    page = page_of("whitebox", constants, globals())
    whole = page.whole and [*by_dataset] == [*DATASETS]
    whole = whole and are_trained(NAMES, constants, DATASETS)
    write_whitebox(by_dataset, page._replace(whole=whole))


if __name__ == "__main__":
    with one_line_errors():
        main()
