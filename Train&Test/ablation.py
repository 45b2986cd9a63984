"""Compare variants of the scripts on held-out training samples, over one seed or several.

    python ablation.py                              those of docs/results.md; some twenty minutes
    python ablation.py --dataset digits --validation 300 --variants LRS.py "LRS.py --sigma 2 0.5"
    python ablation.py --seeds 5                    the same over five seeds

With several seeds the table has each variant's difference from the first, and the p of a paired
t-test for it. VALIDATION = 0 compares on the test set, which is for the last run. Finished runs are
not repeated; their models are in models/ablation/. Written: ablation.md in RobustnessTest/results/;
ablation_part.md if the constants are not those below.
"""

import sys

try:
    from pathlib import Path
    from types import SimpleNamespace

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    from glr.scripts.console import one_line_errors
    from glr.scripts.constants import script_constants
    from glr.scripts.records import evaluated_on
    from glr.study.pages import is_for_docs, page_name, write_ablation
    from glr.study.runs import tasks, train_missing
except ImportError as error:
    sys.exit(f"{error}; run pip install 'FOLDER[scripts]' with the folder that glr/ is in")
except KeyboardInterrupt:
    print("interrupted; start it again", file=sys.stderr)
    sys.exit(130)

# --------------------------------------------------------------------------------------------
DATASET = "mnist"  # "digits", "mnist", "fashion_mnist", or an .npz file with x and y, or a .csv
VALIDATION = 10000  # training samples held out and evaluated; 0 for the test set
SEEDS = 1  # seeds 0 … SEEDS − 1 of every variant
PROCESSES = 2  # runs at the same time; each uses one core
DASK = ""  # address of a Dask scheduler, as tcp://host:8786, whose workers train instead
WRITE_DOCS = False  # into docs/, in place of RobustnessTest/results/
GLOBAL = "--no-local-differences --replicates 16"  # takes about as long as LRS.py
DEEP = "--hidden 200 200 200"
AS_LRS = "--sigma 1 0.5 --weight-decay 1e-4 --centralised-gradient --learning-rate 0.01"  # of BP
VARIANTS = (  # scripts, each with the flags that differ from its constants
    "LRS.py",
    "LRS.py --replicates 1",
    "LRS.py --replicates 4",
    "LRS.py --local-differences output",
    f"LRS.py {GLOBAL}",
    f"LRS.py {GLOBAL} --learning-rate 0.005",
    f"LRS.py {GLOBAL} --no-control-variate",
    "LRS.py --noise gaussian",
    "LRS.py --noise laplace",
    "LRS.py --sigma 0.5 0.5",
    "LRS.py --sigma 2 0.5",
    "LRS.py --sigma 1 1",
    "LRS.py --perturb weights --sigma 0.1 0.1",
    "LRS.py --learning-rate 0.005",
    "LRS.py --learning-rate 0.02",
    "LRS.py --weight-decay 2e-4",
    "LRS.py --no-centralised-gradient",
    "LRS.py --initial-scale 2",
    "LRS.py --schedule constant",
    "LRS.py --hidden 50 50",
    "LRS.py --hidden 50 50 --replicates 1",
    f"LRS.py --hidden 50 50 {GLOBAL}",
    f"LRS.py {DEEP}",
    f"LRS.py {DEEP} {GLOBAL}",
    f"BP.py {AS_LRS}",
    f"BP.py {AS_LRS} --hidden 50 50",
    f"BP.py {AS_LRS} {DEEP}",
    "LRT.py",
    "LRT.py --local-differences output",
    f"LRT.py {GLOBAL}",
    "LRT.py --hidden 50 50",
    f"LRT.py --hidden 50 50 {GLOBAL}",
    f"LRT.py {DEEP}",
    "LRSZ.py",
    "LRSZ.py --replicates 2",
    "LRSZ.py --local-differences output",
    f"LRSZ.py {GLOBAL}",
    "LRSZ.py --no-standardised-loss",
    "LRSZ.py --hidden 50 50",
    f"LRSZ.py --hidden 50 50 {GLOBAL}",
    f"LRSZ.py {DEEP}",
    "LRTZ.py",
    "LRTZ.py --replicates 2",
    "LRTZ.py --local-differences output",
    f"LRTZ.py {GLOBAL}",
    "LRTZ.py --no-standardised-loss",
    "LRTZ.py --no-centralised-gradient",
    "LRTZ.py --hidden 50 50",
    f"LRTZ.py --hidden 50 50 {GLOBAL}",
    f"LRTZ.py {DEEP}",
    "LRS.py --hidden 500 500",
    f"BP.py {AS_LRS} --hidden 500 500",
)
# --------------------------------------------------------------------------------------------


def main() -> None:
    """Train what is missing, print and write the table."""
    constants = script_constants(globals())
    own = SimpleNamespace(**{**vars(constants), "MODELS_DIR": constants.MODELS_DIR / "ablation"})
    held_out = ["--validation", str(constants.VALIDATION)] if constants.VALIDATION else []
    variants = {}
    for i, (script, *flags) in enumerate(map(str.split, constants.VARIANTS)):
        variants[f"try{i}"] = script, " ".join([*held_out, *flags])
    runs = tasks(own, variants, [constants.DATASET])
    train_missing(runs, own)
    page = page_name("ablation", constants, globals())
    write_ablation(runs, evaluated_on(constants), is_for_docs(constants, globals()), page)


if __name__ == "__main__":
    with one_line_errors():
        main()
