"""GLRClassifier: scikit-learn's own checks, and what these do not ask."""

import doctest
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

import glr
import glr.scripts
from glr import GLRClassifier, GLRError
from glr.errors import DivergenceError
from glr.interop import classifier
from glr.interop.classifier import distinct, drawn_rows
from glr.network import new_network

ROOT = Path(__file__).resolve().parent.parent
QUICK = {"hidden_layer_sizes": 10, "max_iter": 10, "random_state": 0}
JAX_CHECKS = {  # of scikit-learn's: all pass, and compile a program for every shape, in a minute
    "check_fit_idempotent",
    "check_sample_weight_equivalence_on_dense_data",
    "check_estimators_pickle",
    "check_estimators_partial_fit_n_features",
    "check_classifiers_one_label",
}
BY_JAX = QUICK | {"max_iter": 20, "backend": "jax"}
ZERO_ONE = {"activation": "threshold", "loss": "zero_one"}
SETS = {"breast_cancer": load_breast_cancer, "wine": load_wine, "digits": load_digits}
X, Y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X).astype(np.float32)


@parametrize_with_checks([GLRClassifier(), GLRClassifier(**QUICK | {"max_iter": 20}, **ZERO_ONE)])
def test_what_scikit_learn_asks_of_a_classifier(estimator, check):
    check(estimator)


def test_the_docstring_s_example_prints_what_it_says():
    found = doctest.testmod(classifier)
    assert found.attempted > 5
    assert found.failed == 0


def accuracy(name, **parameters):
    """Mean accuracy of a five-fold cross-validation, the inputs scaled; no default is changed."""
    model = make_pipeline(StandardScaler(), GLRClassifier(random_state=0, **parameters))
    return cross_val_score(model, *SETS[name](return_X_y=True)).mean()


@pytest.mark.parametrize(("name", "wanted"), [("breast_cancer", 0.96), ("wine", 0.96)])
def test_the_defaults_suit_small_tables(name, wanted):
    smooth = accuracy(name)
    assert smooth >= wanted
    assert accuracy(name, **ZERO_ONE) >= smooth - 0.015


def test_grid_search_of_a_pipeline():
    model = make_pipeline(StandardScaler(), GLRClassifier(**QUICK))
    grid = {
        "glrclassifier__activation": ["threshold", glr.tanh],
        "glrclassifier__learning_rate_init": [1e-6, 0.03],
    }
    found = GridSearchCV(model, grid, cv=2).fit(X, Y)
    assert found.best_params_["glrclassifier__learning_rate_init"] == 0.03
    assert found.best_score_ > 0.8


def test_a_fitted_classifier_is_read_in_another_process(tmp_path):
    model = GLRClassifier(**QUICK, loss=glr.zero_one).fit(X, Y)
    joblib.dump((model, X), tmp_path / "model")
    code = "import joblib, sys; model, x = joblib.load(sys.argv[1]); print(*model.predict(x))"
    command = [sys.executable, "-c", code, str(tmp_path / "model")]
    ran = subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE)
    assert ran.stdout.split() == [str(label) for label in model.predict(X)]


def test_a_read_one_trains_on_as_the_one_that_was_written(tmp_path):
    model = GLRClassifier(**QUICK).fit(X, Y)
    joblib.dump(model, tmp_path / "model")
    read = joblib.load(tmp_path / "model")
    for one in (model, read):
        one.partial_fit(X, Y)
    np.testing.assert_array_equal(read.coefs_[0], model.coefs_[0])
    np.testing.assert_array_equal(read.predict_proba(X), model.predict_proba(X))


def test_a_clone_keeps_callables():
    parameters = {"activation": np.sin, "loss": glr.zero_one, "noise": glr.laplace}
    copied = clone(GLRClassifier(**QUICK, **parameters)).get_params()
    assert all(copied[name] == value for name, value in parameters.items())


# ---------------------------------------------------------------- labels and losses


def test_labels_of_any_kind_are_predicted():
    names = np.array(["setosa", "versicolor", "virginica"], dtype=object)
    model = GLRClassifier(**QUICK | {"max_iter": 60}).fit(X, names[Y])
    assert list(model.classes_) == list(names)
    assert model.score(X, names[Y]) > 0.9
    np.testing.assert_array_equal(
        model.predict_proba(X).argmax(axis=1), (names == model.predict(X)[:, None]).argmax(axis=1)
    )


def test_a_loss_of_one_s_own_takes_class_numbers():
    """Where calling a sample "a" costs most, less is called "a" than by the 0-1 loss."""
    seen = set()

    def cost(logits, y):
        seen.update(np.unique(y))
        return np.where(logits.argmax(axis=-2) == 0, 20, 1) * (logits.argmax(axis=-2) != y)

    labels = np.array(["a", "b"])[(Y > 1).astype(int)]
    model = GLRClassifier(**QUICK | {"max_iter": 60}, activation="threshold", loss=cost)
    model.fit(X, labels)
    assert seen == {0, 1}
    assert ((model.predict(X) == "a") & (labels == "b")).sum() == 0
    assert (model.predict(X) == "a").sum() >= 50


def test_noisy_passes_vote():
    model = GLRClassifier(**QUICK | {"max_iter": 60}, prediction_passes=8).fit(X, Y)
    shares = model.predict_proba(X)
    np.testing.assert_array_equal(shares, model.predict_proba(X))
    np.testing.assert_array_equal(shares * 8, np.round(shares * 8))
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert ((shares > 0) & (shares < 1)).sum() > 0
    without = clone(model).set_params(prediction_passes=0).fit(X, Y)
    model.set_params(sigma=1e-6)
    np.testing.assert_array_equal(model.predict(X), without.predict(X))


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("parameters", [{}, ZERO_ONE, {"early_stopping": True}])
def test_a_weight_is_a_number_of_copies_to_the_last_bit(parameters):
    weights = np.arange(len(Y)) % 4
    fitted = GLRClassifier(**QUICK, **parameters).fit(X, Y, sample_weight=weights)
    order = np.random.default_rng(0).permutation(weights.sum())
    copies = (np.repeat(part, weights, axis=0)[order] for part in (X, Y))
    copied = GLRClassifier(**QUICK, **parameters).fit(*copies)
    np.testing.assert_array_equal(fitted.coefs_[0], copied.coefs_[0])
    assert fitted.loss_curve_ == copied.loss_curve_


def test_equal_samples_are_one_and_those_of_weight_zero_none():
    x = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], np.float32)
    samples = distinct(x, np.array([1, 1, 0, 1, 0]), np.array([1.0, 0.5, 2.0, 0.0, 4.0]))
    found = sorted(zip(samples.x[:, 0].tolist(), samples.y, samples.weights, strict=True))
    assert found == [(0.0, 0, 2.0), (0.0, 1, 1.5), (4.0, 0, 4.0)]


def test_samples_are_drawn_in_proportion_to_their_weights():
    """An epoch has the number wanted, rounded; and over 4000 epochs the mean (z < 5)."""
    rng, weights = np.random.default_rng(0), np.array([0.1, 5, 1, 1, 0.4])
    wanted = 5 * weights / weights.sum()
    counts = np.array([np.bincount(drawn_rows(weights, rng), minlength=5) for _ in range(4000)])
    assert np.all(np.abs(counts - wanted) < 1)
    assert np.all(counts.sum(axis=1) == 5)
    assert np.all(np.abs(counts.mean(axis=0) - wanted) < 5 * 0.5 / 4000**0.5)
    np.testing.assert_array_equal(np.sort(drawn_rows(np.full(7, 0.1), rng)), np.arange(7))


# ---------------------------------------------------------------- epochs


def test_partial_fit_learns_batch_by_batch():
    model = GLRClassifier(**QUICK)
    for epoch in range(30):
        for part in np.array_split(np.random.default_rng(epoch).permutation(len(Y)), 3):
            model.partial_fit(X[part], Y[part], classes=[0, 1, 2])
    assert model.score(X, Y) > 0.9
    assert len(model.loss_curve_) == model.n_iter_ == 90


def test_warm_start_goes_on_from_the_weights():
    model = GLRClassifier(**QUICK, warm_start=True).fit(X, Y)
    before = [part.copy() for part in model.coefs_]
    model.set_params(learning_rate_init=1e-9).fit(X, Y)
    np.testing.assert_allclose(model.coefs_[0], before[0], atol=1e-6)
    assert model.n_iter_ == len(model.loss_curve_) == 20
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        model.set_params(hidden_layer_sizes=11).fit(X, Y)
    with pytest.raises(ValueError, match="label 3"):
        model.set_params(hidden_layer_sizes=10).fit(X, Y + 1)


def test_early_stopping_keeps_the_weights_of_the_smallest_validation_loss(monkeypatch):
    weights, mean_loss = [], GLRClassifier._mean_loss

    def recorded(self, net, samples):
        weights.append(net.layers[0].W.copy())
        return mean_loss(self, net, samples)

    monkeypatch.setattr(GLRClassifier, "_mean_loss", recorded)
    noisy = np.where(np.random.default_rng(0).random(len(Y)) < 0.3, 0, Y)
    halves = {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 3}
    model = GLRClassifier(**halves, random_state=0).fit(X, noisy)
    curve = model.validation_loss_curve_
    assert len(curve) == model.n_iter_ < model.max_iter
    assert np.argmin(curve) == len(curve) - 4
    np.testing.assert_array_equal(model.coefs_[0], weights[np.argmin(curve)])


def test_adversarial_training_perturbs_each_minibatch_four_times(monkeypatch):
    seen = []

    def recorded(layers, x, y, **method):
        seen.append(x)
        return glr.gradient(layers, x, y, **method)

    monkeypatch.setattr(classifier, "gradient", recorded)
    model = GLRClassifier(**QUICK, batch_size=len(Y), adversarial_epsilon=0.25)
    model.partial_fit(X, Y, classes=[0, 1, 2])
    clean, *perturbed = seen
    assert len(perturbed) == 3
    for x in perturbed:
        assert 0.2 < np.abs(x - clean).max() <= 0.25 + 1e-6


def test_verbose_prints_a_line_an_epoch(capsys):
    GLRClassifier(**QUICK, verbose=True).fit(X, Y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("Iteration 10, loss = 0.")


# ---------------------------------------------------------------- JAX


@pytest.fixture
def by_jax():
    pytest.importorskip("jax", reason="JAX is not installed: requirements-jax.txt")


def test_by_jax_the_main_of_what_scikit_learn_asks(by_jax):
    checks = [*estimator_checks_generator(GLRClassifier(**BY_JAX))]
    found = {check.func.__name__: check for _, check in checks}
    for name in JAX_CHECKS:
        found[name](GLRClassifier(**BY_JAX))


@pytest.mark.parametrize("parameters", [{}, ZERO_ONE])
def test_both_backends_have_one_expectation(parameters, by_jax):
    """Means over 400 estimates, of all that Adam and adversarial training take (z < 5)."""
    rng, model = np.random.default_rng(0), GLRClassifier(**QUICK, **parameters)
    layers = new_network([4, 5, 3], glr.sigmoid, rng).layers
    found = []
    for backend in ("numpy", "jax"):
        gradient = classifier.gradient_of(backend, model._method(2))
        estimates = [gradient(layers, X[:20], Y[40:60], rng=rng) for _ in range(400)]
        rows = [
            np.concatenate([*map(np.ravel, (*e.layers[0], *e.layers[1])), [e.risk]])
            for e in estimates
        ]
        found.append((np.mean(rows, axis=0), np.var(rows, axis=0) / len(rows)))
        slopes = np.mean([np.sign(e.inputs) for e in estimates], axis=0)
        found[-1] += (slopes,)
    (a, var_a, sign_a), (b, var_b, sign_b) = found
    assert np.all(np.abs(a - b) < 5 * np.sqrt(var_a + var_b) + 1e-6)
    assert np.abs(sign_a - sign_b).max() < 5 * np.sqrt(2 / 400)


@pytest.mark.parametrize("parameters", [{}, ZERO_ONE, {"early_stopping": True, "max_iter": 60}])
def test_jax_learns_as_numpy_and_the_same_again(parameters, by_jax):
    weights, scores = [], []
    for backend in ("numpy", "jax", "jax"):
        model = GLRClassifier(**QUICK | {"max_iter": 40, "backend": backend} | parameters)
        model.fit(X, Y, sample_weight=1 + Y)
        weights.append(model.coefs_[0])
        scores.append(model.score(X, Y))
    np.testing.assert_array_equal(weights[1], weights[2])
    assert not np.array_equal(weights[0], weights[1])
    assert min(scores) > 0.93


def test_by_jax_a_clone_and_a_read_one_train_on_alike(by_jax, tmp_path):
    model = clone(GLRClassifier(**BY_JAX, warm_start=True)).fit(X, Y)
    joblib.dump(model, tmp_path / "model")
    read = joblib.load(tmp_path / "model").partial_fit(X, Y).fit(X, Y)
    np.testing.assert_array_equal(model.partial_fit(X, Y).fit(X, Y).coefs_[0], read.coefs_[0])


def test_what_jax_does_not_cover_is_refused_by_name(by_jax, monkeypatch):
    def numpys(logits, y):
        return np.where(logits.argmax(axis=-2) == y, 0, 1)

    law = replace(glr.logistic, name="own")
    for name, value in (("loss", numpys), ("noise", law), ("activation", lambda v: np.sin(v) + 0)):
        with pytest.raises(GLRError, match=f"{name.upper()} = .*BACKEND") as caught:
            GLRClassifier(**BY_JAX | {name: value}).fit(X, Y)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "glr.scripts.by_jax", None)
    monkeypatch.delattr(glr.scripts, "by_jax")
    with pytest.raises(GLRError, match=r"cannot import JAX .* pip install"):
        GLRClassifier(**BY_JAX).fit(X, Y)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"activation": "step"}, ValueError, "'activation' .* Got 'step'"),
        ({"loss": "hinge"}, ValueError, "'loss' .* Got 'hinge'"),
        ({"noise": "uniform"}, ValueError, "'noise' .*'laplace'.* Got 'uniform'"),
        ({"max_iter": 0}, ValueError, "'max_iter' .* Got 0"),
        ({"batch_size": "all"}, ValueError, "'batch_size' .* Got 'all'"),
        ({"backend": "torch"}, ValueError, "'backend' .* Got 'torch'"),
        ({"hidden_layer_sizes": (5, 0)}, ValueError, "hidden_layer_sizes == 0"),
        ({"alpha": -1.0}, ValueError, "'alpha' .* Got -1"),
        ({"sigma": 0}, GLRError, "sigma = 0: every layer needs noise"),
        ({"perturb": "inputs"}, GLRError, 'give "logits" or "weights"'),
        ({"replicates": 0}, ValueError, "'replicates' .* Got 0"),
        ({"learning_rate_init": 1e30}, DivergenceError, "lower learning_rate_init"),
        ({"loss": lambda logits, y: logits}, GLRError, "must reduce the classes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else str(value)[:40],
)
def test_what_does_not_fit_is_said_in_a_line(parameters, error, message):
    with pytest.raises(error, match=message) as caught:
        GLRClassifier(**QUICK | parameters).fit(X, Y)
    assert "\n" not in str(caught.value)


def test_partial_fit_asks_for_all_labels():
    with pytest.raises(ValueError, match="give all labels in the first call"):
        GLRClassifier(**QUICK).partial_fit(X, Y)
    with pytest.raises(ValueError, match="label 2"):
        GLRClassifier(**QUICK).partial_fit(X, Y, classes=[0, 1])


def test_without_scikit_learn_the_class_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "glr.interop.classifier", None)
    with pytest.raises(ImportError, match=r"pip install 'scikit-learn>=1\.6'"):
        _ = glr.GLRClassifier
    assert "GLRClassifier" in dir(glr)
