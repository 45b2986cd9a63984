"""Train the networks with larger and larger penalties: what robustness costs in clean accuracy.

    python tradeoff.py                              MNIST and Fashion-MNIST, if found; 20 minutes
    python tradeoff.py --seeds 1 --datasets mnist

Every penalty is reported: none is chosen by the test set. Finished runs are not repeated. Written:
docs/results.md and docs/tradeoff.png; the models go to models/tradeoff/.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

from glr.constants import script_constants
from glr.errors import GLRError
from glr.experiment import one_line_errors
from glr.study import FGSM, datasets_found, run_robustness_script, tasks, train_missing
from glr.tradeoff import curves_of, measured_rows, penalised_networks, write_tradeoffs

# --------------------------------------------------------------------------------------------
DATASETS = ("mnist", "fashion_mnist")  # the ones of these that are found are used
SEEDS = 3  # seeds 0 … SEEDS − 1 of every network
PROCESSES = 2  # runs at the same time; each uses one core
DASK = ""  # address of a Dask scheduler, as tcp://host:8786, whose workers train instead
PENALTIES = (1e-4, 1e-3, 3e-3, 1e-2)  # values of WEIGHT_DECAY, the scripts' own first
# The networks: name, script, and flags that differ from the script's constants.
NETWORKS = {
    "LRS": ("LRS.py", ""),
    "LRT": ("LRT.py", ""),
    "LRSZ": ("LRSZ.py", ""),
    "LRTZ": ("LRTZ.py", ""),
    "BP+L2C": (  # backpropagation of what LRS trains, as in study.py
        "BP.py",
        "--sigma 1 0.5 --centralised-gradient --learning-rate 0.01",
    ),
}
# --------------------------------------------------------------------------------------------


def main() -> None:
    """Train what is missing, evaluate all, write the tables and the picture."""
    constants = script_constants(globals())
    datasets = datasets_found(constants)
    if not datasets:
        raise GLRError(
            f"DATASETS: none of them is in {constants.DATA_DIR}; python LRS.py --dataset mnist "
            "downloads one"
        )
    places = {**vars(constants), "MODELS_DIR": constants.MODELS_DIR / "tradeoff"}
    own = SimpleNamespace(**places)
    runs = tasks(own, penalised_networks(NETWORKS, constants.PENALTIES), datasets)
    train_missing(runs, own)
    curves = {}
    for dataset in datasets:
        run_robustness_script(FGSM, constants, dataset)
        rows = measured_rows(runs, constants, dataset)
        curves[dataset] = curves_of(rows, list(NETWORKS), constants.PENALTIES)
    write_tradeoffs(curves)


if __name__ == "__main__":
    with one_line_errors():
        main()
