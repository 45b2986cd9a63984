"""Attack every network itself, not by way of another: what of its robustness is left.

    python whitebox.py                              study.py's networks, in seven minutes; those
                                                    not trained here are the pretrained ones
    python whitebox.py --datasets digits --seeds 1 --names LRS LRT BP+L2C

The attacks of the table have ε 0.1: FGSM transferred from the surrogate, as in testAdv.py; FGSM and
PGD along the network's own gradient; glr along that which noise and losses tell; and square, which
follows none. A threshold network has no gradient of its own: FGSM and PGD follow those of four
sigmoid networks of its weights, and an image counts if all four fail. Only what is right under
every attack counts in the last column. A picture shows PGD at other ε.

Written: whitebox.md and a picture in RobustnessTest/results/ (whitebox_part if the constants are
not those below); with --write-docs, from the constants below and all of study.py's networks,
docs/results.md and docs/whitebox.png.
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
    print("interrupted; start it again", file=sys.stderr)
    sys.exit(130)

# --------------------------------------------------------------------------------------------
DATASETS = ("digits", "mnist", "fashion_mnist")  # the ones of these that are found are used
NAMES = ("LRS", "LRT", "LRSZ", "LRTZ", "BP", "BP+L2C", "ST+L2C")  # of the networks, as in study.py
SEEDS = 5  # those of seeds 0 … SEEDS − 1
SEED = 0  # of glr's and square's random choices, and of the surrogate
IMAGES = 1000  # the first so many test images; 0 for all
EPSILON = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)  # of PGD in the picture
PGD_STEPS = 40  # of pgd and glr
SLOPES = (1.0, 1.8, 3.0, 6.0)  # of the sigmoids whose gradients stand for a threshold's; all count
QUERIES = 1000  # squares that square tries on each image
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
