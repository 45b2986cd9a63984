"""GLRClassifier: scikit-learn's own checks, and what these do not ask."""

import doctest
import os
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris, load_wine, make_classification
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import glr
from glr import GLRClassifier
from glr.errors import DivergenceError
from glr.interop import classifier
from glr.interop.samples import distinct, drawn_rows

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
