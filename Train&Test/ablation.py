"""Train variants of the constants and compare them on held-out training samples of MNIST.

    python ablation.py                              every variant; about ten minutes on two cores

Nothing here looks at the test set. Finished runs are not repeated. Written: docs/results.md.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

from glr.console import one_line_errors
from glr.constants import script_constants
from glr.pages import is_whole, write_ablation
from glr.study import tasks, train_missing

# --------------------------------------------------------------------------------------------
SEEDS = 1  # seeds 0 … SEEDS − 1 of every variant
PROCESSES = 2  # runs at the same time; each uses one core
DASK = ""  # address of a Dask scheduler, as tcp://host:8786, whose workers train instead
# What is compared: a script, and flags that differ from its constants.
GLOBAL = "--no-local-differences --replicates 16 --output-draws 4"  # about the same time a step
AS_LRS = "--sigma 1 0.5 --weight-decay 1e-4 --centralised-gradient --learning-rate 0.01"  # of BP
VARIANTS = (
    ("LRS.py", ""),
    ("LRS.py", "--replicates 1"),
    ("LRS.py", "--replicates 4"),
    ("LRS.py", "--output-draws 4"),
    ("LRS.py", GLOBAL),
    ("LRS.py", f"{GLOBAL} --learning-rate 0.005"),
    ("LRS.py", f"{GLOBAL} --no-control-variate"),
    ("LRS.py", f"{GLOBAL} --layerwise"),
    ("LRS.py", "--layerwise"),
    ("LRS.py", "--noise gaussian"),
    ("LRS.py", "--noise laplace"),
    ("LRS.py", "--sigma 0.5 0.5"),
    ("LRS.py", "--sigma 2 0.5"),
    ("LRS.py", "--sigma 1 1"),
    ("LRS.py", "--perturb weights --sigma 0.1 0.1"),
    ("LRS.py", "--learning-rate 0.005"),
    ("LRS.py", "--learning-rate 0.02"),
    ("LRS.py", "--weight-decay 2e-4"),
    ("LRS.py", "--no-centralised-gradient"),
    ("LRS.py", "--initial-scale 2"),
    ("LRS.py", "--schedule constant"),
    ("LRS.py", "--hidden 50 50 --replicates 16"),
    ("BP.py", AS_LRS),
    ("BP.py", f"{AS_LRS} --hidden 50 50"),
    ("LRT.py", ""),
    ("LRT.py", "--no-conditional-score"),
    ("LRT.py", GLOBAL),
    ("LRT.py", f"{GLOBAL} --no-conditional-score"),
    ("LRT.py", "--layerwise"),
    ("LRSZ.py", ""),
    ("LRSZ.py", "--replicates 2"),
    ("LRSZ.py", GLOBAL),
    ("LRSZ.py", "--no-standardised-loss"),
    ("LRSZ.py", "--layerwise"),
    ("LRTZ.py", ""),
    ("LRTZ.py", "--replicates 2"),
    ("LRTZ.py", GLOBAL),
    ("LRTZ.py", "--no-standardised-loss"),
    ("LRTZ.py", "--no-conditional-score"),
    ("LRTZ.py", "--no-centralised-gradient"),
)
# --------------------------------------------------------------------------------------------


def main() -> None:
    """Train what is missing, and write the table."""
    constants = script_constants(globals())
    variants = {
        f"try{i}": (script, f"--validation 10000 {flags}")
        for i, (script, flags) in enumerate(VARIANTS)
    }
    runs = tasks(constants, variants, ["mnist"])
    train_missing(runs, constants)
    write_ablation(runs, is_whole(constants, globals()))


if __name__ == "__main__":
    with one_line_errors():
        main()
