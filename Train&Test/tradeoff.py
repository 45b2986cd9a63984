"""Train the networks with more penalty or more noise: what robustness costs in clean accuracy.

    python tradeoff.py                              MNIST and Fashion-MNIST, if found; an hour
    python tradeoff.py --seeds 1 --datasets mnist --penalties 1e-4 1e-3

Noise on the weights has a larger step size, which the scripts' own noise is given as well, to tell
the two apart.

Every setting is reported: none is chosen by the test set. Finished runs are not repeated; the
models are in models/tradeoff/. Written: tradeoff.md and its picture in RobustnessTest/results/
(tradeoff_part if the constants are not those below); with --write-docs, from the constants below,
docs/results.md and docs/tradeoff.png.
"""

import sys

try:
    from pathlib import Path
    from types import SimpleNamespace

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    from glr.scripts.console import one_line_errors
    from glr.scripts.constants import script_constants
    from glr.study.pages import page_of
    from glr.study.runs import datasets_found, make_samples, study_networks, tasks, train_missing
    from glr.study.tradeoff import Measured, Setting, measured_rows, networks_at, write_tradeoffs
except ImportError as error:
    sys.exit(f"{error}; run pip install 'FOLDER[scripts]' with the folder that glr/ is in")
except KeyboardInterrupt:
    print("interrupted; start it again", file=sys.stderr)
    sys.exit(130)

# --------------------------------------------------------------------------------------------
DATASETS = ("mnist", "fashion_mnist")  # the ones of these that are found are used
NAMES = ("LRS", "LRT", "LRSZ", "LRTZ", "BP+L2C")  # of the networks, as in study.py
SEEDS = 3  # seeds 0 … SEEDS − 1 of every network
PROCESSES = 2  # runs at the same time; each uses one core
DASK = ""  # address of a Dask scheduler, as tcp://host:8786, whose workers train instead
WRITE_DOCS = False  # into docs/, in place of RobustnessTest/results/
PENALTIES = (1e-4, 1e-3, 3e-3, 1e-2)  # values of WEIGHT_DECAY, the scripts' own first
WEIGHT_SIGMAS = (0.2, 0.3, 0.35, 0.5, 0.7, 1.2)  # σ of noise on the hidden neurons' weights
LEARNING_RATE = 0.03  # of noise on the weights; and once of the scripts' own noise
WEIGHT_NOISE = "--perturb weights --sigma {} 0.1 --learning-rate {}"  # the flags for it
# --------------------------------------------------------------------------------------------


def main() -> None:
    """Train what is missing, evaluate all, write the tables and the picture."""
    constants = script_constants(globals())
    datasets = datasets_found(constants)
    places = {**vars(constants), "MODELS_DIR": constants.MODELS_DIR / "tradeoff"}
    own = SimpleNamespace(**places)
    settings = [Setting("penalty", p, f"--weight-decay {p:g}") for p in constants.PENALTIES]
    rate = constants.LEARNING_RATE
    settings += [Setting("step size", rate, f"--learning-rate {rate:g}")]
    settings += [
        Setting("weight noise", s, WEIGHT_NOISE.format(s, rate)) for s in constants.WEIGHT_SIGMAS
    ]
    runs = tasks(own, networks_at(study_networks(constants.NAMES), settings), datasets)
    train_missing(runs, own)
    measured = []
    for dataset in datasets:
        make_samples(constants, dataset)
        rows = measured_rows(runs, constants, dataset)
        measured.append(Measured(dataset, list(constants.NAMES), settings, rows))
    page = page_of("tradeoff", constants, globals())
    write_tradeoffs(measured, page._replace(whole=page.whole and datasets == [*DATASETS]))


if __name__ == "__main__":
    with one_line_errors():
        main()
