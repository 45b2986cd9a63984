"""GLRClassifier: scikit-learn's own checks, and what these do not ask."""

from pathlib import Path

from sklearn.utils.estimator_checks import parametrize_with_checks

from glr import GLRClassifier

ROOT = Path(__file__).resolve().parent.parent
QUICK = {"hidden_layer_sizes": 10, "max_iter": 20, "random_state": 0}


@parametrize_with_checks(
    [
        GLRClassifier(),
        GLRClassifier(
            **QUICK,
            activation="threshold",
            loss="zero_one",
            early_stopping=False,
            prediction_passes=5,
        ),
    ]
)
def test_what_scikit_learn_asks_of_a_classifier(estimator, check):
    check(estimator)
