"""Why GLRClassifier's defaults are what they are, and what they reach.

    python benchmarks/classifier.py     half an hour on one core; writes docs/classifier.md's tables

The choice is made on samples held out of the training parts of folds; see choice_lines.
"""

from __future__ import annotations

import sys

try:
    import argparse
    import time
    import warnings
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from statistics import fmean

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # glr/, without an install

    import numpy as np
    from sklearn import datasets
    from sklearn.model_selection import StratifiedKFold, cross_val_score
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

SEEDS = range(5)
PAGE = Path(__file__).resolve().parents[1] / "docs" / "classifier.md"
NETWORKS = {
    "sigmoid, cross-entropy": {},
    "threshold, 0-1": {"activation": "threshold", "loss": "zero_one"},
}
VARIANTS = {
    "the defaults": {},
    "no adversarial training, 100 epochs": {"adversarial_epsilon": 0, "max_iter": 100},
    "`hidden_layer_sizes` (100,)": {"hidden_layer_sizes": (100,)},
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


def held_out_parts(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Of four folds' training parts: the rows to fit, and a fourth that is held out."""
    folds = StratifiedKFold(4)
    for fold, (training, _) in enumerate(folds.split(x, y)):
        yield tuple(training[part] for part in [*folds.split(x[training], y[training])][fold])


def choice_lines(network: str, sets: Mapping[str, Samples]) -> list[list[str]]:
    """The header, and a line of held-out accuracies in percent for each variant."""
    lines = [[network, *sets, "mean"]]
    for name, changed in progress_bar(VARIANTS.items(), network):
        classifier = GLRClassifier(random_state=0, **NETWORKS[network] | changed)
        model = make_pipeline(StandardScaler(), classifier)
        scores = [cross_val_score(model, *xy, cv=held_out_parts(*xy)) for xy in sets.values()]
        lines.append([name, *(f"{100 * np.mean(part):.1f}" for part in (*scores, scores))])
    return lines


def reached_lines(sets: Mapping[str, Samples]) -> list[list[str]]:
    """The header, and for each classifier the mean, and the least, of the seeds' own means."""
    classifiers = {name: GLRClassifier(**NETWORKS[name]) for name in NETWORKS}
    classifiers["scikit-learn's MLPClassifier"] = MLPClassifier()
    lines = [["defaults", *sets, "seconds of a fold, at most"]]
    for name, classifier in progress_bar(classifiers.items(), "reached"):
        cells, most = [], 0.0
        for x, y in sets.values():
            begun = time.process_time()
            model, found = make_pipeline(StandardScaler(), classifier), []
            for seed in SEEDS:
                classifier.set_params(random_state=seed)
                found.append(100 * cross_val_score(model, x, y).mean())
            cells.append(f"{fmean(found):.1f} ({min(found):.1f})")
            most = max(most, (time.process_time() - begun) / (5 * len(SEEDS)))
        lines.append([name, *cells, f"{most:.1f}"])
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
