"""Why GLRClassifier's defaults are what they are, and what they reach.

    python benchmarks/classifier.py     some minutes on one core; writes docs/classifier.md's tables

The choice is made on held-out samples alone: a fourth of each of four folds' training parts is held
out (both unshuffled, as in cross_val_score), and variants of the defaults are compared on it.
"""

from __future__ import annotations

import sys

try:
    import argparse
    import time
    import warnings
    from collections.abc import Mapping
    from pathlib import Path
    from statistics import fmean

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    import numpy as np
    from sklearn import datasets
    from sklearn.model_selection import StratifiedKFold, cross_validate
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from glr import GLRClassifier
    from glr.robustness.tables import markdown_table
    from glr.scripts.console import one_line_errors, progress_bar
    from glr.study.pages import write_section
except ImportError as error:
    sys.exit(f"{error}; run pip install 'FOLDER[scripts]' with the folder that glr/ is in")
except KeyboardInterrupt:
    sys.exit(130)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "classifier.md"
NETWORKS = {
    "sigmoid, cross-entropy": {},
    "threshold, 0-1": {"activation": "threshold", "loss": "zero_one"},
}
VARIANTS = {
    "the defaults": {},
    "no adversarial training, 100 epochs": {"adversarial_epsilon": 0, "max_iter": 100},
    "`adversarial_epsilon` 0.1": {"adversarial_epsilon": 0.1},
    "`adversarial_epsilon` 0.4": {"adversarial_epsilon": 0.4},
    "`sigma` (1, 0.5)": {"sigma": (1.0, 0.5)},
    "`learning_rate_init` 0.01": {"learning_rate_init": 0.01},
}

Samples = tuple[np.ndarray, np.ndarray]


def data_sets() -> dict[str, Samples]:
    """Samples and labels by name: those that scikit-learn ships or makes."""
    x, progression = datasets.load_diabetes(return_X_y=True)
    return {
        "iris": datasets.load_iris(return_X_y=True),
        "wine": datasets.load_wine(return_X_y=True),
        "breast_cancer": datasets.load_breast_cancer(return_X_y=True),
        "digits": datasets.load_digits(return_X_y=True),
        "diabetes": (x, progression > np.median(progression)),
        "moons": datasets.make_moons(500, noise=0.25, random_state=0),
        "made": datasets.make_classification(800, 20, n_informative=6, n_classes=3, random_state=0),
    }


def held_out_accuracy(parameters: Mapping[str, object], samples: Samples) -> float:
    """Accuracy in percent on the held-out parts of four folds' training samples."""
    x, y = samples
    found = []
    for fold, (training, _) in enumerate(StratifiedKFold(4).split(x, y)):
        parts = [*StratifiedKFold(4).split(x[training], y[training])][fold]
        fitted, held_out = (training[part] for part in parts)
        model = scaled(GLRClassifier(random_state=fold, **parameters))
        found.append(model.fit(x[fitted], y[fitted]).score(x[held_out], y[held_out]))
    return 100 * fmean(found)


def scaled(classifier: object) -> object:
    """The classifier, after its inputs are scaled."""
    return make_pipeline(StandardScaler(), classifier)


def choice_lines(network: str, sets: Mapping[str, Samples]) -> list[list[str]]:
    """The header, and a line of held-out accuracies for each variant."""
    lines = [[network, *sets, "mean"]]
    for name, changed in progress_bar(VARIANTS.items(), network):
        found = [held_out_accuracy(NETWORKS[network] | changed, part) for part in sets.values()]
        lines.append([name, *(f"{value:.1f}" for value in (*found, fmean(found)))])
    return lines


def reached_lines(sets: Mapping[str, Samples]) -> list[list[str]]:
    """The header, and a line for each classifier: cross_val_score's means, seconds of a fold."""
    classifiers = {name: GLRClassifier(random_state=0, **NETWORKS[name]) for name in NETWORKS}
    classifiers["scikit-learn's MLPClassifier"] = MLPClassifier(random_state=0)
    lines = [["defaults", *sets, "seconds of a fold, at most"]]
    for name, classifier in progress_bar(classifiers.items(), "reached"):
        found, most = [], 0.0
        for x, y in sets.values():
            begun = time.process_time()
            found.append(cross_validate(scaled(classifier), x, y)["test_score"].mean())
            most = max(most, (time.process_time() - begun) / 5)
        lines.append([name, *(f"{100 * value:.1f}" for value in found), f"{most:.1f}"])
    return lines


def main() -> None:
    """Measure, and write the page's tables."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    warnings.simplefilter("ignore")  # MLPClassifier's, that 200 epochs are too few
    sets = data_sets()
    reached = markdown_table(reached_lines(sets))
    choices = [markdown_table(choice_lines(network, sets)) for network in NETWORKS]
    write_section(PAGE, "reached", reached)
    write_section(PAGE, "choice", "\n\n".join(choices))


if __name__ == "__main__":
    with one_line_errors():
        main()
