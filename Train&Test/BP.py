"""BP: sigmoid neurons, cross-entropy, trained by backpropagation (TensorFlow): the baseline.

Measured over 5 seeds: digits 97.11 ± 0.32 % in 6 s, mnist 97.03 ± 0.14 % in 8 s, fashion_mnist
88.51 ± 0.16 % in 8 s.

    python BP.py                                    the embedded 8×8 digits, no download
    python BP.py --dataset mnist                    the paper's 784-50-10
    python BP.py --name BP+ --sigma 1 0.5           the paper's BP+: the GLR scripts' noise
    python BP.py --name ST --activation threshold   by the straight-through estimator

Only the gradient differs from the GLR scripts: data, weight decay, optimizer etc. are the same.
"""

import sys

try:
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    from glr.losses import cross_entropy
    from glr.network import sigmoid
    from glr.noise import logistic
    from glr.optimizers import adam, cosine
    from glr.scripts.backpropagation import TrainingNoise, backpropagation
    from glr.scripts.console import one_line_errors
    from glr.scripts.run import start
except ImportError as error:
    sys.exit(f"{error}; run pip install 'FOLDER[scripts]' with the folder that glr/ is in")
except KeyboardInterrupt:
    sys.exit(130)

# --------------------------------------------------------------------------------------------
NAME = "BP"  # first part of the written files' names
DATASET = "digits"  # "digits", "mnist", "fashion_mnist", or an .npz file with x and y, or a .csv
SEED = 0  # of the initial weights, minibatches and noise; the same seed gives the same weights
HIDDEN = (50,)  # neurons of each hidden layer
INITIAL_SCALE = 1.0  # s: initial weights have standard deviation s/√(inputs of their layer)
ACTIVATION = sigmoid  # of the hidden neurons: "sigmoid", "tanh", "relu" or "threshold"
LOSS = cross_entropy  # the only one here: it is differentiated
NOISE = logistic  # law of the noise in every neuron: "gaussian", "laplace" or "logistic"
SIGMA = (0.0,)  # its standard deviation: 0 for none, else as in the GLR scripts (BP+)
PERTURB = "logits"  # where the noise goes: "logits" (the paper) or "weights"
BACKEND = "tensorflow"  # what finds the gradient: "tensorflow", or "jax", many steps in a call
OPTIMIZER = adam  # "sgd", "adagrad" or "adam"
BATCH_SIZE = 128  # samples per step
STEPS = 10000  # minibatch steps
LEARNING_RATE = 0.005  # of the first step
SCHEDULE = cosine  # of the learning rate: "cosine" (to 0), "tenths" (× 0.8 each), "constant"
WEIGHT_DECAY = 0.0  # λ: λ·W is added to the gradient of every W
CENTRALISED_GRADIENT = False  # of pixels: subtract each first-layer neuron's mean weight gradient
ADVERSARIAL_EPSILON = 0.0  # ε of free adversarial training, 0 for none; pixels are in [0, 1]
REPLAYS = 4  # steps on each minibatch in adversarial training
EVAL_EVERY = 500  # steps between evaluations on the test set
CHECKPOINT_EVERY = 1000  # steps between saved states, from which --resume continues
VALIDATION = 0  # training samples held out and evaluated in place of the test set
# --------------------------------------------------------------------------------------------


def main() -> None:
    """Train the network by backpropagation, and save its weights, history and learning curve."""
    run = start(globals())  # the command line's constants, data, network; or a saved state
    if BACKEND == "jax":
        run.take_steps_by_jax()
    else:
        noise, is_adversarial = TrainingNoise(NOISE, SIGMA, PERTURB), ADVERSARIAL_EPSILON > 0
        gradient = backpropagation(run.network, LOSS, noise, of_inputs=is_adversarial)
        for x, y in run.minibatches():  # with progress, evaluations and checkpoints
            run.descend(gradient(x, y, run.rng))  # the optimizer's step, with weight decay
    run.save()


if __name__ == "__main__":
    with one_line_errors():
        main()
