"""Compare GLR with other gradient estimators: precision and accuracy at equal cost.

    python peers.py                                 MNIST, in twenty minutes, one core
    python peers.py --dataset digits --seeds 1 --steps 1000 --evaluations 3050

Each estimator trains the network of LRS or LRT, with that script's minibatches, weight decay,
optimizer and schedule: for the time of STEPS steps of the script, and for EVALUATIONS. Its learning
rate and repeats are chosen on held-out training samples, for each of the two. All are compiled by
JAX (requirements-jax.txt) and use one core; compiling is not counted.

Written: peers.md, peers.png and peers_time.png in RobustnessTest/results/ (peers_part if the
constants are not those below); with --write-docs, from the constants below, docs/.
"""

import sys

try:
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    from glr.scripts.console import one_line_errors
    from glr.scripts.constants import script_constants
    from glr.study import estimators as e
    from glr.study.comparison import PUBLISHED
    from glr.study.pages import page_of
    from glr.study.peers import BACKWARD, FORWARD, GLR, LOSSES, Peer, glr_of, measure, write_peers
except ImportError as error:
    wanted = "'FOLDER[scripts]' 'FOLDER[jax]'"
    sys.exit(f"{error}; run pip install {wanted} with the folder that glr/ is in, Python 3.11")
except KeyboardInterrupt:
    sys.exit(130)

# --------------------------------------------------------------------------------------------
DATASET = "mnist"  # "digits", "mnist", "fashion_mnist", or an .npz file with x and y, or a .csv
SEEDS = 5  # seeds 0 … SEEDS − 1 of every accuracy on the test set
STEPS = 10000  # of LRS and LRT, with their own replicates: all have as much time
EVALUATIONS = 30500  # of each estimator, in minibatches: forward passes, or their last layer alone
RATES = (0.003, 0.01, 0.03, 0.1)  # learning rates to choose from
VALIDATION = 10000  # training samples held out for choosing
WRITE_DOCS = False  # into docs/, in place of RobustnessTest/results/
OUTPUT = "--local-differences output"
# The estimators of each network: repeats to choose from, what they use, evaluations in a repeat
# (local differences take one for each neuron), and by whose mean a biased one is judged.
NETWORKS = {
    "LRS.py": (
        Peer("LRS", glr_of("LRS.py"), (1, 2, 4, 8), GLR, 61),
        Peer("LRS, output", glr_of("LRS.py", OUTPUT), (1, 2, 4, 8), GLR, 11, "LRS"),
        Peer("published estimator", glr_of("LRS.py", PUBLISHED), (10, 100), LOSSES, 1, "LRS"),
        Peer("node perturbation", e.node_perturbation, (4, 16, 64), LOSSES, 2),
        Peer("weight perturbation", e.weight_perturbation, (4, 16, 64), LOSSES, 2),
        Peer(
            "evolution strategy", e.evolution_strategy, (4, 16, 64), LOSSES, 2, "node perturbation"
        ),
        Peer("forward gradient, nodes", e.forward_gradient_of_nodes, (4, 16, 64), FORWARD, 2),
        Peer("forward gradient, weights", e.forward_gradient_of_weights, (4, 16, 64), FORWARD, 2),
        Peer("backpropagation", e.backpropagation, (1, 2, 4), BACKWARD, 1),
        Peer("direct feedback", e.direct_feedback, (1, 2, 4), BACKWARD, 1, "backpropagation"),
    ),
    "LRT.py": (
        Peer("LRT", glr_of("LRT.py"), (1, 2, 4, 8), GLR, 61),
        Peer("LRT, output", glr_of("LRT.py", OUTPUT), (1, 2, 4, 8), GLR, 11, "LRT"),
        Peer("published estimator", glr_of("LRT.py", PUBLISHED), (10, 100), LOSSES, 1, "LRT"),
        Peer("REINFORCE, leave-one-out", e.reinforce, (2, 8, 32), LOSSES, 1),
        Peer("ARM", e.arm, (1, 4, 16), LOSSES, 2),
        Peer("DisARM / U2G", e.disarm, (1, 4, 16), LOSSES, 2),
        Peer("straight-through", e.straight_through, (1, 2, 4), BACKWARD, 1, "LRT"),
    ),
}
# --------------------------------------------------------------------------------------------


def main() -> None:
    """Choose, train and measure all, write the tables and the pictures."""
    constants = script_constants(globals())
    by_script = {script: measure(script, peers, constants) for script, peers in NETWORKS.items()}
    write_peers(by_script, constants, page_of("peers", constants, globals()))


if __name__ == "__main__":
    with one_line_errors():
        main()
