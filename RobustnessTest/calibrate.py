"""How BP's accuracy under L-BFGS depends on the attack's penalty, beside the published accuracy.

    python calibrate.py                             minutes for each penalty; needs study.py's BP
    python calibrate.py --penalties 1 2 4

And how often the attack reaches its target on the surrogate, whose gradient it follows. The
published penalty is not known. PENALTY of generate_adv.py was chosen by this table, on the BP
row alone. Written: penalties.md in RobustnessTest/results/; with --write-docs, docs/results.md.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

from glr.console import one_line_errors
from glr.constants import script_constants
from glr.pages import is_for_docs, write_penalties
from glr.study import are_trained

# --------------------------------------------------------------------------------------------
DATASET = "mnist"  # whose published L-BFGS accuracy is compared
SEEDS = 5  # BP networks of seeds 0 … SEEDS − 1
PENALTIES = (0.5, 0.8, 1.2, 2.3, 2.8)  # on the squared size of a change
WRITE_DOCS = False  # into docs/, in place of RobustnessTest/results/
# --------------------------------------------------------------------------------------------


def main() -> None:
    """Attack with every penalty, and write the table."""
    constants = script_constants(globals())
    whole = is_for_docs(constants, globals()) and are_trained(("BP",), constants, [DATASET])
    write_penalties(constants, whole)


if __name__ == "__main__":
    with one_line_errors():
        main()
