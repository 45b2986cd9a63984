"""LRS-published: LRS as the released code of Peng et al. (2022) trains it, for comparison.

    python published.py --dataset mnist             the paper's 784-50-10
    python published.py -h                          every constant below, as a flag

Laplace noise of scale 1 in every neuron, ten noisy passes, and nothing that lowers the variance.
Steps are ten epochs of MNIST; the initial weights are larger than the other scripts'.
"""

import sys

try:
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    from glr.losses import cross_entropy
    from glr.network import sigmoid
    from glr.optimizers import constant, sgd
    from glr.scripts.console import one_line_errors
    from glr.scripts.run import start
    from glr.study.published import published_gradient
except ImportError as error:
    sys.exit(f"{error}; run pip install 'FOLDER[scripts]' with the folder that glr/ is in")
except KeyboardInterrupt:
    print("interrupted; start it again", file=sys.stderr)
    sys.exit(130)

# --------------------------------------------------------------------------------------------
NAME = "LRS-published"  # first part of the written files' names
DATASET = "digits"  # "digits", "mnist", "fashion_mnist", or an .npz file with x and y, or a .csv
SEED = 0  # of the initial weights, minibatches and noise; the same seed gives the same weights
HIDDEN = (50,)  # neurons of each hidden layer
INITIAL_SCALE = 2.0  # standard deviation of the initial weights, in units of 1/√(inputs of a layer)
ACTIVATION = sigmoid  # of the hidden neurons: any elementwise function
LOSS = cross_entropy  # of output logits and labels: any function that gives a number per sample
REPLICATES = 10  # R, noisy forward passes per sample
OPTIMIZER = sgd  # "sgd", "adagrad" or "adam"
BATCH_SIZE = 128  # samples per step
STEPS = 4680  # minibatch steps
LEARNING_RATE = 0.01  # of the first step
SCHEDULE = (
    constant  # how the learning rate goes on: "cosine" (to 0), "tenths" (× 0.8 each), "constant"
)
WEIGHT_DECAY = 1e-4  # L2 penalty on the weights, added to the gradient
CENTRALISED_GRADIENT = False  # of pixels: subtract each first-layer neuron's mean weight gradient
EVAL_EVERY = 500  # steps between evaluations on the test set
CHECKPOINT_EVERY = 1000  # steps between saved states, from which --resume continues
VALIDATION = 0  # training samples held out and evaluated in place of the test set
# --------------------------------------------------------------------------------------------


def main() -> None:
    """Train the network by the published estimator, and save it as the other scripts do."""
    run = start(globals())  # the command line's constants, data, network; or a saved state
    for x, y in run.minibatches():  # with progress, evaluations and checkpoints
        estimate = published_gradient(
            run.layers,
            x,
            y,
            activation=ACTIVATION,
            loss=LOSS,
            replicates=REPLICATES,
            rng=run.rng,
        )
        run.descend(estimate)  # the optimizer's step, with weight decay
    run.save()


if __name__ == "__main__":
    with one_line_errors():
        main()
