"""Train deep and wide networks, beside backpropagation and straight-through; the constants of each.

    python depth.py                                 those of docs/results.md; a quarter of an hour
    python depth.py "mnist 50-50 LRS" "mnist 50-50 BP+L2C" --seeds 1
    python depth.py --validation 10000              on held-out samples, by which to choose flags

A variant has a data set, the hidden layers' neurons, a network of study.py, and the flags that
differ from it. LRS is set beside BP+L2C, and LRT beside ST+L2C, of the same layers.

The flags below were chosen on held-out samples of seed 0. Finished runs are not repeated; their
models are in models/depth/. Written: depth.md in RobustnessTest/results/ (depth_part if the
constants are not those below); with --write-docs, from the constants below, docs/results.md.
"""

import sys

try:
    from pathlib import Path
    from types import SimpleNamespace

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    from glr.robustness.tables import markdown_table, plain_table
    from glr.scripts.console import one_line_errors
    from glr.scripts.constants import script_constants
    from glr.scripts.records import evaluated_on
    from glr.study.depth import depth_lines, networks_of, runs_of
    from glr.study.pages import page_of, write_page
    from glr.study.runs import train_missing
except ImportError as error:
    sys.exit(f"{error}; run pip install 'FOLDER[scripts]' with the folder that glr/ is in")
except KeyboardInterrupt:
    print("interrupted; start it again", file=sys.stderr)
    sys.exit(130)

# --------------------------------------------------------------------------------------------
VALIDATION = 0  # training samples held out and evaluated in place of the test set
SEEDS = 3  # seeds 0 … SEEDS − 1 of every variant
PROCESSES = 2  # runs at the same time; each uses one core
DASK = ""  # address of a Dask scheduler, as tcp://host:8786, whose workers train instead
WRITE_DOCS = False  # into docs/, in place of RobustnessTest/results/
OUTPUT = "--local-differences output"  # of wide layers: as accurate, in three quarters of the time
SMOOTH = "--sigma 2 0.5 --weight-decay 1e-5"  # of deep sigmoid networks
BITS = "--learning-rate 0.005"  # of deep threshold networks
VARIANTS = (  # data set, hidden neurons, network of study.py, flags that differ from it
    "mnist 50-50 LRS",
    "mnist 50-50 BP+L2C",
    "mnist 50-50 LRT --steps 20000",
    "mnist 50-50 ST+L2C --steps 20000",
    "mnist 50-50 LRSZ --sigma 0.5",
    "mnist 50-50 LRTZ --sigma 0.5",
    f"mnist 200-200-200 LRS {SMOOTH} {OUTPUT}",
    f"mnist 200-200-200 BP+L2C {SMOOTH}",
    f"mnist 200-200-200 LRT {BITS}",
    f"mnist 200-200-200 ST+L2C {BITS}",
    f"mnist 200-200-200 LRSZ --sigma 0.5 2 --initial-scale 2 --learning-rate 0.003 {OUTPUT}",
    f"mnist 200-200-200 LRTZ --sigma 0.5 --learning-rate 0.003 {OUTPUT}",
)
# --------------------------------------------------------------------------------------------


def main() -> None:
    """Train what is missing, print and write the table."""
    constants = script_constants(globals())
    own = SimpleNamespace(**{**vars(constants), "MODELS_DIR": constants.MODELS_DIR / "depth"})
    networks = networks_of(constants.VARIANTS)
    runs = {network: runs_of(network, own) for network in networks}
    train_missing([task for tasks in runs.values() for task in tasks], own)
    lines = depth_lines(runs, evaluated_on(constants))
    print(plain_table(lines))
    write_page(page_of("depth", constants, globals()), markdown_table(lines))


if __name__ == "__main__":
    with one_line_errors():
        main()
