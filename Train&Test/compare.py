"""Compare variants of the scripts over seeds: a table, and their learning curves in one picture.

    python compare.py "LRS.py" "LRS.py --noise laplace" --seeds 5 --dataset mnist --validation 10000
    python compare.py "LRS.py" "my.py --sigma 2 0.5" "BP.py" --dataset digits --validation 300
    python compare.py                               those of docs/results.md; five minutes, by JAX

A variant is a script of this folder and its flags. With several seeds the table has each variant's
difference from the first of its script (of a script's first, from the first of all), and the p of a
paired t-test for it; the curves are means, with the range over the seeds. Finished runs are not
repeated: models and histories are in models/compare/, named as LRS--sigma-2-0.5. Written:
compare.md and, of up to 12 variants, its picture in RobustnessTest/results/; compare_part if the
constants are not those below.
"""

import sys

try:
    from pathlib import Path
    from types import SimpleNamespace

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    from glr.scripts.console import one_line_errors
    from glr.scripts.constants import script_constants
    from glr.study.pages import page_of
    from glr.study.runs import tasks, train_missing
    from glr.study.variants import networks_of, write_comparison
except ImportError as error:
    sys.exit(f"{error}; run pip install 'FOLDER[scripts]' with the folder that glr/ is in")
except KeyboardInterrupt:
    sys.exit(130)

# --------------------------------------------------------------------------------------------
DATASET = "mnist"  # "digits", "mnist", "fashion_mnist", or an .npz file with x and y, or a .csv
VALIDATION = 10000  # training samples held out and evaluated; 0 for the test set
SEEDS = 3  # seeds 0 … SEEDS − 1 of every variant
PROCESSES = 2  # runs at the same time; each uses one core
DASK = ""  # address of a Dask scheduler, as tcp://host:8786, whose workers train instead
WRITE_DOCS = False  # into docs/, in place of RobustnessTest/results/
GLOBAL = "--no-local-differences --replicates 16"  # takes about as long as LRS.py
CHANGES = {  # one thing each, of a script's constants
    "LRS.py": (
        *("", "--replicates 1", "--replicates 4", "--local-differences output"),
        *(GLOBAL, f"{GLOBAL} --no-control-variate", "--noise gaussian", "--noise laplace"),
        *("--sigma 0.5 0.5", "--sigma 2 0.5", "--perturb weights --sigma 0.1 0.1"),
        *("--weight-decay 2e-4", "--no-centralised-gradient", "--schedule constant"),
    ),
    "LRT.py": ("", "--local-differences output", GLOBAL, "--weight-decay 1e-4"),
    "LRSZ.py": ("", "--replicates 4", GLOBAL, "--no-standardised-loss", "--steps 10000"),
    "LRTZ.py": ("", "--replicates 4", GLOBAL, "--no-standardised-loss", "--steps 10000"),
}
VARIANTS = tuple(  # scripts, each with the flags that differ from its constants
    f"{script} --backend jax {flags}".rstrip()
    for script, changes in CHANGES.items()
    for flags in changes
)
# --------------------------------------------------------------------------------------------


def main() -> None:
    """Train what is missing, print and write the table, draw the curves."""
    constants = script_constants(globals())
    own = SimpleNamespace(**{**vars(constants), "MODELS_DIR": constants.MODELS_DIR / "compare"})
    runs = tasks(own, networks_of(constants.VARIANTS), [constants.DATASET])
    train_missing(runs, own)
    write_comparison(runs, constants, page_of("compare", constants, globals()))


if __name__ == "__main__":
    with one_line_errors():
        main()
