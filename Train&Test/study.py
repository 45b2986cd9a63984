"""Train every network over several seeds, test its robustness, and write the tables.

    python study.py                                 every data set found, five seeds
    python study.py --seeds 3 --datasets mnist
    python study.py --dask tcp://host:8786          the same runs on a Dask cluster

Written: RobustnessTest/results/; with --write-docs, from all data sets and seeds below, README's
table, docs/results.md, models/pretrained/, and each script's measured line.

It may be interrupted, and started again: what today's constants trained is not trained again. After
a change of glr/, delete models/*.npz first.
"""

import sys

try:
    from pathlib import Path
    from types import SimpleNamespace

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    from glr.robustness.evaluation import write_results
    from glr.robustness.perturbation import table_samples
    from glr.scripts.console import one_line_errors
    from glr.scripts.constants import script_constants
    from glr.study import runs as study
    from glr.study.pages import page_of, results_block, write_page, write_tables
except ImportError as error:
    sys.exit(f"{error}; run pip install 'FOLDER[scripts]' with the folder that glr/ is in")
except KeyboardInterrupt:
    sys.exit(130)

# --------------------------------------------------------------------------------------------
DATASETS = ("digits", "mnist", "fashion_mnist")  # the ones of these that are found are used
SEEDS = 5  # seeds 0 … SEEDS − 1 of every network
EPSILON = (0.05, 0.1, 0.13, 0.15, 0.2)  # of FGSM; the tables have 0.13
PROCESSES = 2  # runs at the same time; each uses one core
DASK = ""  # address of a Dask scheduler, as tcp://host:8786, whose workers train instead
WRITE_DOCS = False  # into README and docs/, in place of RobustnessTest/results/
AS_LRS = "--sigma 1 0.5 --weight-decay 1e-4 --centralised-gradient --learning-rate 0.01"
AS_LRT = f"{AS_LRS} --activation threshold --weight-decay 1.5e-4"  # the last of two counts
ADVERSARIAL = "--steps 40000 --adversarial-epsilon 0.1"  # chosen on held-out samples, as all is
# The networks of the tables: name, script, and flags that differ from the script's constants.
NETWORKS = {
    "LRS": ("LRS.py", ""),
    "LRT": ("LRT.py", ""),
    "LRSZ": ("LRSZ.py", ""),
    "LRTZ": ("LRTZ.py", ""),
    "BP": ("BP.py", ""),
    "BP-L2": ("BP.py", "--weight-decay 1e-4"),  # the GLR scripts' weight decay
    "BP+": ("BP.py", "--sigma 1 0.5"),  # the GLR scripts' noise (after the paper's BP+)
    "BP+L2C": ("BP.py", AS_LRS),  # both and more: everything that LRS is but its estimator
    "ST+L2C": ("BP.py", AS_LRT),  # everything that LRT is but its estimator: straight-through
    # As the second public release has it, 100 epochs of MNIST (468 full minibatches each). There
    # the output layer has no biases, and hidden biases begin as weights do, with weight decay.
    "BP-published": (
        "BP.py",
        "--initial-scale 2 --optimizer sgd --learning-rate 0.1 --schedule tenths --steps 46800 "
        "--weight-decay 1e-4",
    ),
    # More passes than in plain training: a more precise gradient in x is a stronger attack.
    "LRS-adv": ("LRS.py", f"{ADVERSARIAL} --replicates 11"),
    "LRT-adv": ("LRT.py", f"{ADVERSARIAL} --steps 80000 --weight-decay 5e-5 --replicates 5"),
    "LRSZ-adv": ("LRSZ.py", f"{ADVERSARIAL} --replicates 23"),
    "LRTZ-adv": (
        "LRTZ.py",
        f"{ADVERSARIAL} --adversarial-epsilon 0.095 --weight-decay 5e-5 --replicates 47",
    ),
    "BP+L2C-adv": ("BP.py", f"{AS_LRS} {ADVERSARIAL}"),
    "ST+L2C-adv": ("BP.py", f"{AS_LRT} {ADVERSARIAL} --steps 80000"),
}
ON_DATASET = {  # flags that differ on it from those above
    # 1,437 samples: more steps gain little
    "digits": {name: "--steps 10000" for name in NETWORKS if name.endswith("-adv")},
    "fashion_mnist": {  # so that the published accuracies are reached clean and under FGSM at once
        "LRS-adv": "--adversarial-epsilon 0.04 --replicates 2",
        "BP+L2C-adv": "--adversarial-epsilon 0.04",
        **{
            name: "--adversarial-epsilon 0.02 --learning-rate 0.005 --steps 40000 "
            "--weight-decay 5e-5"
            for name in ("LRT-adv", "ST+L2C-adv")
        },
        "LRSZ-adv": "--adversarial-epsilon 0.04 --learning-rate 0.005",  # at 0.01 classes are lost
        "LRTZ-adv": "--adversarial-epsilon 0.05 --learning-rate 0.005",
    },
}
# --------------------------------------------------------------------------------------------


def networks_on(dataset: str) -> dict[str, tuple[str, str]]:
    """Script and flags of every network of the tables, for a data set.

    Those that have flags are trained by JAX, in half of the time.
    """
    others = ON_DATASET.get(dataset, {})
    return {
        name: (script, f"--backend jax {flags} {others.get(name, '')}".strip() if flags else "")
        for name, (script, flags) in NETWORKS.items()
    }


def main() -> None:
    """Train what is missing, evaluate all, write the tables."""
    constants = script_constants(globals())
    datasets = study.datasets_found(constants)
    runs = [task for name in datasets for task in study.tasks(constants, networks_on(name), [name])]
    study.train_missing(runs, constants)
    samples = table_samples(constants.EPSILON)  # and no others that the folder may hold
    rows = {}
    for dataset in datasets:
        study.make_samples(constants, dataset)
        own = [task.path for task in runs if task.dataset == dataset]
        chosen = {"DATASET": dataset, "MODELS": own, "SAMPLES": samples, "FUNCTIONS": ""}
        name = page_of(f"study_{dataset}", constants, globals()).name
        rows[dataset] = write_results(SimpleNamespace(**vars(constants), **chosen), name)
    page = page_of("results", constants, globals())
    if not page.whole or datasets != [*DATASETS]:
        write_page(page._replace(whole=False), results_block(rows))
        return
    study.write_pretrained(runs, constants, datasets)
    write_tables(constants, runs, rows)


if __name__ == "__main__":
    with one_line_errors():
        main()
