"""Train LRS, LRT, LRSZ, LRTZ and BP, attack and corrupt the test set, and print the tables.

python demo.py                                  the embedded 8×8 digits, no download
python demo.py --dataset mnist --seed 1         the paper's 784-50-10
"""

import sys

try:
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    from glr.data.datasets import dataset_label
    from glr.robustness.evaluation import results_dir
    from glr.robustness.tables import plain_table, training_lines
    from glr.scripts.console import one_line_errors
    from glr.scripts.constants import script_constants
    from glr.storage.models import load_model
    from glr.study.runs import run_robustness_script, tasks, train
except ImportError as error:
    sys.exit(f"{error}; run pip install 'FOLDER[scripts]' with the folder that glr/ is in")
except KeyboardInterrupt:
    print("interrupted; start it again", file=sys.stderr)
    sys.exit(130)

# --------------------------------------------------------------------------------------------
DATASET = "digits"  # "digits", "mnist", "fashion_mnist", or an .npz file with x and y, or a .csv
SEED = 0  # of all five
SCRIPTS = ("LRS", "LRT", "LRSZ", "LRTZ", "BP")  # in the order of the table
PROCESSES = 2  # scripts that run at the same time; each uses one core
# --------------------------------------------------------------------------------------------


def main() -> None:
    """Train all and print what they reached."""
    constants = script_constants(globals())
    label = dataset_label(constants.DATASET)
    networks = {script: (f"{script}.py", "") for script in SCRIPTS}
    runs = tasks(constants, networks, [constants.DATASET])
    train(runs, constants)
    print(plain_table(training_lines(load_model(run.path) for run in runs)), "\n", flush=True)
    for script in ("generate_adv.py", "noise_generate_adv.py", "testAdv.py"):
        run_robustness_script([script], constants, constants.DATASET)
    print("\nPictures:")
    kind = constants.FORMAT
    print(f"  learning curves        {constants.MODELS_DIR}/*.{kind}")
    print(f"  attack and corruptions {constants.DATA_DIR / label / 'adversarial'}/*.{kind}")
    print(f"  robustness             {results_dir() / label}.{kind}")


if __name__ == "__main__":
    with one_line_errors():
        main()
