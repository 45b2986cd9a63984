"""How accuracy under L-BFGS depends on the attack's penalty, beside the published accuracies.

    python calibrate.py                             a minute for each penalty; needs study.py's
                                                    networks
    python calibrate.py --penalties 1 2 4 --names BP LRS

And how often the attack reaches its target on the surrogate, whose gradient it follows. The
published penalty is not known. PENALTY of generate_adv.py was chosen by this table, by BP's
column alone. Written: penalties.md in RobustnessTest/results/; with --write-docs, docs/results.md.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

from glr.scripts.console import one_line_errors
from glr.scripts.constants import script_constants
from glr.study.pages import is_for_docs, write_penalties
from glr.study.runs import are_trained

# --------------------------------------------------------------------------------------------
DATASET = "mnist"  # whose published L-BFGS accuracy is compared
NAMES = ("BP", "BP-published", "BP+L2C", "LRS", "ST+L2C", "LRT", "LRSZ", "LRTZ")  # as in study.py
SEEDS = 5  # networks of seeds 0 … SEEDS − 1
PENALTIES = (0.5, 0.8, 1.2, 2.3, 2.8)  # on the squared size of a change
WRITE_DOCS = False  # into docs/, in place of RobustnessTest/results/
# --------------------------------------------------------------------------------------------


def main() -> None:
    """Attack with every penalty, and write the table."""
    constants = script_constants(globals())
    whole = is_for_docs(constants, globals()) and are_trained(constants.NAMES, constants, [DATASET])
    write_penalties(constants, whole)


if __name__ == "__main__":
    with one_line_errors():
        main()
