"""Certify networks: how far every change of an image, in ℓ2 norm, surely leaves its class.

    python certify.py                               every model of the digits
    python certify.py --dataset mnist
    python certify.py --dataset mnist --models ../models/LRS_mnist_seed0.npz --sigmas 1 2 4
    python certify.py --dataset mnist --write-docs  NETWORKS, trained first if they are not there

A network predicts here by vote, over passes with Gaussian noise on its first layer's logits alone.
How sure the vote is bounds how far an image must move to turn it: randomised smoothing (Cohen et
al. 2019; docs/method.md has the derivation). An image counts within a radius if the vote is right,
and is sure to stay so there. More noise certifies larger radii, of fewer images.

Written: <dataset>_certified.csv and its picture in results/, or in the folder GLR_RESULTS_DIR of
the environment; a minute at most for 500 images, a network of up to 1,024 neurons, and a σ. With
--write-docs, of NETWORKS, in models/certified/, SEEDS of each: docs/results.md too.
"""

import sys

try:
    from pathlib import Path
    from types import SimpleNamespace

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    from glr.robustness.certificate import write_certificates
    from glr.robustness.tables import markdown_table
    from glr.scripts.console import one_line_errors
    from glr.scripts.constants import script_constants
    from glr.study.pages import page_of, write_page
    from glr.study.runs import tasks, train_missing
except ImportError as error:
    sys.exit(f"{error}; run pip install 'FOLDER[scripts]' with the folder that glr/ is in")
except KeyboardInterrupt:
    sys.exit(130)

# --------------------------------------------------------------------------------------------
DATASET = "digits"  # "digits", "mnist", "fashion_mnist", or the .npz that was trained on
MODELS = ()  # paths of models; none for every model of the data set in models/
FUNCTIONS = ""  # a .py file that defines the activations that models have and glr has not
IMAGES = 500  # the first so many test images; 0 for all
SIGMAS = (1.5, 4.0)  # standard deviations of the noise, each with a table and a curve of its own
RADII = (0.25, 0.5, 1.0)  # of the table, in units of the inputs: 1 is one pixel from black to white
PASSES = 10000  # noisy passes that are counted; the largest radius grows with them, slowly
ALPHA = 0.001  # probability that an image's radius is too large
SEED = 0  # of the noise
WRITE_DOCS = False  # train and certify NETWORKS, and write the table into docs/
SEEDS = 5  # seeds 0 … SEEDS − 1 of each of NETWORKS
PROCESSES = 2  # of them that are trained at the same time
# --------------------------------------------------------------------------------------------

AS_LRS = "--centralised-gradient --learning-rate 0.01"  # what BP.py else has otherwise
GAUSSIAN = "--backend jax --noise gaussian --sigma"
NETWORKS = {  # by name: a script of Train&Test, and what it is given; chosen on held-out samples
    "LRS-certified": ("LRS.py", f"{GAUSSIAN} 2 0.5 --weight-decay 3e-4"),
    "BP-certified": ("BP.py", f"{GAUSSIAN} 2 0.5 --weight-decay 3e-4 {AS_LRS}"),
    "LRT-certified": ("LRT.py", f"{GAUSSIAN} 4 0.5"),
    "ST-certified": (
        "BP.py",
        f"--activation threshold {GAUSSIAN} 4 0.5 --weight-decay 1.5e-4 {AS_LRS}",
    ),
}


def main() -> None:
    """Certify, print the table, write it and the picture."""
    constants = script_constants(globals())
    if not constants.WRITE_DOCS:
        write_certificates(constants)
        return
    own = SimpleNamespace(**{**vars(constants), "MODELS_DIR": constants.MODELS_DIR / "certified"})
    runs = tasks(own, NETWORKS, [constants.DATASET])
    train_missing(runs, own)
    own.MODELS = [task.path for task in runs]
    page = page_of("certified", constants, {**globals(), "DATASET": "mnist"})
    write_page(page, block(constants, write_certificates(own)))


def block(constants: SimpleNamespace, lines: list[list[str]]) -> str:
    """The table of NETWORKS, and how they are trained and certified, as Markdown."""
    trained = [
        f'- {name}: `python "Train&Test/{script}" --dataset {constants.DATASET} {flags}`'
        for name, (script, flags) in NETWORKS.items()
    ]
    images = f"the first {constants.IMAGES}" if constants.IMAGES else "all"
    how = f"{images} test images, {constants.PASSES:,} passes, α {constants.ALPHA}"
    heading = f"On {constants.DATASET}, {how}, {constants.SEEDS} seeds:"
    return "\n\n".join([heading, markdown_table(lines), "\n".join(trained)])


if __name__ == "__main__":
    with one_line_errors():
        main()
