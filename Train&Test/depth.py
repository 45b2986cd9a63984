"""Train deep and wide networks, beside backpropagation and straight-through; the constants of each.

    python depth.py                                 those of docs/results.md; two hours
    python depth.py "mnist 50-50 LRS,BP+L2C" --seeds 1 --bias-draws 0
    python depth.py --validation 10000              on held-out samples, by which to choose flags

A variant has a data set, the hidden layers' neurons, networks of study.py, and the flags that
differ from theirs, chosen on held-out samples of seed 0. Finished runs are not repeated; their
models are in models/depth/. Networks that are trained adversarially (-adv) are attacked as by
whitebox.py. Written: depth.md in RobustnessTest/results/ (depth_part if the
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
    from glr.study.bias import bias_lines
    from glr.study.depth import attack_tables, depth_lines, networks_of, runs_of
    from glr.study.pages import page_of, write_page
    from glr.study.runs import train_missing
except ImportError as error:
    sys.exit(f"{error}; run pip install 'FOLDER[scripts]' with the folder that glr/ is in")
except KeyboardInterrupt:
    sys.exit(130)

# --------------------------------------------------------------------------------------------
VALIDATION = 0  # training samples held out and evaluated in place of the test set
SEEDS = 3  # seeds 0 … SEEDS − 1 of every variant
PREDICTION_PASSES = 100  # noisy ones, by whose mean threshold networks predict, too; 0: none
BIAS_DRAWS = 256  # gradients that the bias of (8) in each network is measured by; 0: no bias
PROCESSES = 2  # runs at the same time; each uses one core
DASK = ""  # address of a Dask scheduler, as tcp://host:8786, whose workers train instead
WRITE_DOCS = False  # into docs/, in place of RobustnessTest/results/
OUTPUT = "--local-differences output"  # as accurate in deep networks, in less time
SMOOTH = "--sigma 2 0.5 --weight-decay 1e-5"  # of deep sigmoid networks
BITS = "--learning-rate 0.005"  # of deep threshold networks
WIDE_ADVERSARIAL = f"--weight-decay 1e-5 --replicates 3 {OUTPUT}"
VARIANTS = (  # data set, hidden neurons, networks of study.py, flags that differ from theirs
    "mnist 50-50 LRS,BP+L2C --sigma 0.5 --replicates 4",
    "mnist 50-50 LRT,ST+L2C --steps 20000",
    "mnist 50-50 LRSZ,LRTZ --sigma 0.5",
    f"mnist 200-200-200 LRS,BP+L2C {SMOOTH} {OUTPUT}",
    f"mnist 200-200-200 LRT,ST+L2C {BITS}",
    f"mnist 200-200-200 LRSZ --sigma 0.5 2 --initial-scale 2 --learning-rate 0.003 {OUTPUT}",
    f"mnist 200-200-200 LRTZ --sigma 0.5 --learning-rate 0.003 --steps 10000 {OUTPUT}",
    f"mnist 200-200-200-200 LRS,BP+L2C --weight-decay 1e-5 {OUTPUT}",
    f"mnist 200-200-200-200 LRT,ST+L2C {BITS} --weight-decay 5e-5 --replicates 4",
    f"fashion_mnist 300-100-50 LRS,BP+L2C {SMOOTH}",
    f"fashion_mnist 300-100-50 LRT,ST+L2C {BITS} --weight-decay 2e-5 --replicates 4",
    "mnist 256-256 LRS,BP+L2C --weight-decay 1e-5",
    f"mnist 256-256 LRT,ST+L2C {BITS} --weight-decay 3e-5",
    "mnist 500-500 LRS,BP+L2C --weight-decay 1e-5",
    f"mnist 500-500 LRT,ST+L2C {BITS} --weight-decay 3e-5",
    "mnist 1024 LRS,BP+L2C --weight-decay 1e-5",
    "mnist 1024 LRT,ST+L2C --weight-decay 1e-5",
    f"mnist 1024 LRS-adv,BP+L2C-adv {WIDE_ADVERSARIAL} --adversarial-epsilon 0.15",
    f"fashion_mnist 1024 LRS-adv,BP+L2C-adv {WIDE_ADVERSARIAL} --adversarial-epsilon 0.1 "
    "--steps 20000",
)
# --------------------------------------------------------------------------------------------


def main() -> None:
    """Train what is missing; print and write the tables."""
    constants = script_constants(globals())
    own = SimpleNamespace(**{**vars(constants), "MODELS_DIR": constants.MODELS_DIR / "depth"})
    networks = networks_of(constants.VARIANTS)
    runs = {network: runs_of(network, own) for network in networks}
    train_missing([task for tasks in runs.values() for task in tasks], own)
    tables = [depth_lines(runs, own), *attack_tables(runs, own)]
    if constants.BIAS_DRAWS > 1:
        tables.append(bias_lines(constants.BIAS_DRAWS))
    print("\n\n".join(map(plain_table, tables)))
    block = "\n\n".join(map(markdown_table, tables))
    write_page(page_of("depth", constants, globals()), block)


if __name__ == "__main__":
    with one_line_errors():
        main()
