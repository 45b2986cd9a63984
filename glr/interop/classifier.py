"""`glr.GLRClassifier`: networks trained from the loss value alone, as scikit-learn has classifiers.

The estimate is `glr.gradient`, the step Adam's; `fit` is the loop around them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from numbers import Integral, Real
from statistics import fmean
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.extmath import softmax
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from glr import network
from glr.checks import checked_sigma
from glr.errors import DivergenceError
from glr.estimator import Method, gradient, noisy_passes
from glr.losses import Loss, losses_of, zero_one
from glr.network import Activation, Array, Layer, Network, network_of, new_network
from glr.noise import NoiseLaw
from glr.optimizers import adam, cosine
from glr.scripts import constants
from glr.scripts.adversarial import moved

NAMED = {name: constants.NAMED[name.upper()] for name in ("activation", "loss", "noise")}
COUNT = Interval(Integral, 1, None, closed="left")
NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
REPLAYS = 4  # steps on each minibatch in adversarial training


class Samples(NamedTuple):
    """Inputs x (N, n_in) float32, class numbers y (N,) and weights (N,) > 0."""

    x: Array
    y: np.ndarray
    weights: np.ndarray


@dataclass(eq=False, repr=False)
class GLRClassifier(ClassifierMixin, BaseEstimator):
    """A multilayer perceptron that is trained from its loss values alone.

    Neither the activation nor the loss is differentiated: neurons may be thresholds, and the loss
    what the errors really cost. Parameters that scikit-learn's MLPClassifier has mean the same.
    Scale the inputs, as in the example.

    hidden_layer_sizes : neurons of each hidden layer; with the 0-1 loss and small tables give 100
    activation : "sigmoid", "threshold", "tanh", "relu", or any elementwise function
    loss : "cross_entropy", "zero_one", or a function of logits (…, classes, B) and class numbers
        y (B,), which count along classes_, to one number a pass and sample, (…, B)
    noise : "logistic", "gaussian", "laplace", or a glr.NoiseLaw
    sigma : its standard deviation; one, two (hidden, output), or one a layer
    perturb : where the noise goes: "logits", or "weights", for which sigma should be a tenth
    replicates : noisy forward passes of each sample in a step; "auto": 2, with the 0-1 loss 8
    backend : "numpy"; or "jax", which compiles a step: own functions are then written by jax.numpy
    alpha : L2 penalty alpha/2·‖W‖² on the weights, divided by the minibatch's size
    batch_size : samples in a step; "auto": a sixteenth of them, but 8 to 128
    learning_rate_init : of Adam; it falls to 0 along half a cosine over max_iter epochs
    max_iter : epochs
    early_stopping : hold validation_fraction of the samples out, stop after n_iter_no_change epochs
        without a smaller validation loss, and keep the weights that had the smallest
    adversarial_epsilon : largest change of an input in adversarial training, which grows to that
        as the learning rate falls; in units of the scaled inputs. Four steps are then taken on each
        minibatch. 0: no such training, for which max_iter should be larger
    prediction_passes : noisy passes that vote on a prediction; 0: predict without noise
    warm_start : go on from the weights of the last fit
    verbose : print the loss of every epoch
    random_state : seed of weights, minibatches and noise

    After fit: classes_, coefs_ (n_in, n_out) and intercepts_ (n_out,) of each layer, loss_curve_
    (of the noisy passes, each epoch), validation_loss_curve_ (noise-free), n_iter_, n_features_in_.

    Example: reading digit i as j costs |i − j|. Five threshold neurons that go on from the weights
    of cross-entropy cost less if trained on that than by more cross-entropy and the Bayes decision,
    the class of least expected cost. With 100 neurons, which fit all digits, cross-entropy is the
    better (docs/tutorial.ipynb, and the top-2 error there).

    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from glr import GLRClassifier
    >>> def misreading(logits, y):
    ...     return abs(y - logits.argmax(axis=-2))
    >>> digits = load_digits(return_X_y=True)
    >>> x, x_test, y, y_test = train_test_split(*digits, test_size=0.5, random_state=0)
    >>> def probabilities(loss):
    ...     few = GLRClassifier(5, "threshold", warm_start=True, random_state=0)
    ...     model = make_pipeline(StandardScaler(), few).fit(x, y)
    ...     return model.set_params(glrclassifier__loss=loss).fit(x, y).predict_proba(x_test)
    >>> p = probabilities("cross_entropy")
    >>> bayes = (p @ abs(np.subtract.outer(range(10), range(10)))).argmin(axis=1)
    >>> bool(misreading(probabilities(misreading).T, y_test).mean() < abs(y_test - bayes).mean())
    True
    """

    hidden_layer_sizes: int | Sequence[int] = (200,)
    activation: str | Activation = "sigmoid"
    _: KW_ONLY
    loss: str | Loss = "cross_entropy"
    noise: str | NoiseLaw = "logistic"
    sigma: float | Sequence[float] = (1.0, 2.0)
    perturb: str = "logits"
    replicates: int | str = "auto"
    backend: str = "numpy"
    alpha: float = 0.01
    batch_size: int | str = "auto"
    learning_rate_init: float = 0.02
    max_iter: int = 30
    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: int = 10
    adversarial_epsilon: float = 0.2
    prediction_passes: int = 0
    warm_start: bool = False
    verbose: bool = False
    random_state: int | np.random.RandomState | None = None

    _parameter_constraints: ClassVar[dict] = {
        **{name: [callable, NoiseLaw, StrOptions({*known})] for name, known in NAMED.items()},
        "backend": [StrOptions({"numpy", "jax"})],
        **{name: [StrOptions({"auto"}), COUNT] for name in ("batch_size", "replicates")},
        **{name: [COUNT] for name in ("max_iter", "n_iter_no_change")},
        **{name: [NOT_NEGATIVE] for name in ("alpha", "adversarial_epsilon")},
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "prediction_passes": [Interval(Integral, 0, None, closed="left")],
    }

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> GLRClassifier:
        """Train on samples X (N, n_in) of labels y (N,), for max_iter epochs or less.

        sample_weight : (N,) ≥ 0, factors of the samples' losses. A sample is drawn in proportion to
            its weight, which a loss of any kind bears; weight 2 is as good as two copies.

        Raises ValueError, or GLRError for what glr.gradient refuses or training that diverges.
        """
        is_new = not (self.warm_start and hasattr(self, "coefs_"))
        net, samples = self._begun(is_new, X, y, sample_weight)
        samples, held_out = self._split(samples)
        self._optimizer, best = {}, net.parameters.copy()
        losses = self.validation_loss_curve_ = []
        for epoch in range(self.max_iter):
            fall = cosine(epoch, self.max_iter)
            epsilon = self.adversarial_epsilon * (1 - fall)
            self._take_epoch(net, samples, self.learning_rate_init * fall, epsilon)
            if held_out is None:
                continue
            losses.append(self._mean_loss(net, held_out))
            since_best = len(losses) - 1 - np.argmin(losses)
            if since_best == 0:
                best = net.parameters.copy()
            if since_best >= self.n_iter_no_change:
                break
        if held_out is not None:
            net.parameters[:] = best
        return self

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> GLRClassifier:
        """Train for one epoch on samples as `fit` takes them, at the rate learning_rate_init.

        classes : all labels there will be, asked for in the first call

        Raises what `fit` does.
        """
        is_new = not hasattr(self, "coefs_")
        if is_new and classes is None:
            raise ValueError("classes is None; give all labels in the first call of partial_fit")
        net, samples = self._begun(is_new, X, y, sample_weight, classes)
        self._take_epoch(net, samples, self.learning_rate_init, self.adversarial_epsilon)
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The most probable label of each sample of X (N, n_in), (N,)."""
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities (N, classes) in the order of classes_, by noise-free logits and softmax.

        With prediction_passes: how often each class has the largest logit in noisy passes. These
        are the same in every call.
        """
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float32, reset=False)
        if self.prediction_passes:
            return self._votes(x) / self.prediction_passes
        return softmax(network.logits(self._layers(), self._function("activation"), x))

    def _take_epoch(self, net: Network, samples: Samples, rate: float, epsilon: float) -> None:
        """On each minibatch of an epoch estimate the gradient, and take Adam's step along it.

        Raises DivergenceError unless the mean loss and all weights are finite.
        """
        rows, losses = drawn_rows(samples.weights, self._rng), []
        size = min(max(len(rows) // 16, 8), 128) if self.batch_size == "auto" else self.batch_size
        batches = np.array_split(rows, math.ceil(len(rows) / size))
        gradient = gradient_of(self.backend, self._method(len(net.layers)))
        change = np.zeros((len(batches[0]), samples.x.shape[1]), np.float32)
        for batch in (batch for batch in batches for _ in range(REPLAYS if epsilon else 1)):
            eta = change[: len(batch)]
            x, y = samples.x[batch] + eta, samples.y[batch]
            found = gradient(net.layers, x, y, rng=self._rng)
            if epsilon:
                eta[:] = moved(eta, found.inputs, epsilon)
            decay = np.float32(self.alpha / len(batch))
            with np.errstate(over="ignore", invalid="ignore"):  # seen to below
                pairs = zip(net.layers, found.layers, strict=True)
                slopes = [Layer(part.W + decay * W, part.b) for (W, _), part in pairs]
                slope = network_of(slopes, net.activation).parameters
                adam(net.parameters, slope, rate, self._optimizer)
            losses.append(found.risk)
        self.loss_curve_.append(fmean(losses))
        self.n_iter_ += 1
        if not np.isfinite(np.append(net.parameters, fmean(losses))).all():
            raise DivergenceError(
                f"epoch {self.n_iter_}: the loss or the weights are not finite; lower "
                "learning_rate_init, or raise sigma"
            )
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_curve_[-1]:.8f}")

    def _function(self, name: str) -> Callable | NoiseLaw:
        """What a parameter of NAMED is, or is the name of."""
        value = getattr(self, name)
        return NAMED[name][value] if isinstance(value, str) else value

    def _method(self, n_layers: int) -> Method:
        """What is estimated and how; the 0-1 loss as in LRTZ.py."""
        is_zero_one = self._function("loss") is zero_one
        return Method(
            **{name: self._function(name) for name in NAMED},
            sigma=checked_sigma(self.sigma, n_layers),
            perturb=self.perturb,
            replicates=(8 if is_zero_one else 2) if self.replicates == "auto" else self.replicates,
            local_differences=True,
            control_variate=True,
            standardised_loss=is_zero_one,
        )

    def _begun(
        self,
        is_new: bool,
        X: ArrayLike,
        y: ArrayLike,
        weights: ArrayLike | None,
        classes: ArrayLike | None = None,
    ) -> tuple[Network, Samples]:
        """The network of coefs_ and intercepts_, its views, and what it is trained on, checked.

        is_new : whether it is made anew, for classes, or those of y
        """
        self._validate_params()
        widths = np.atleast_1d(self.hidden_layer_sizes).tolist()
        hidden = [check_scalar(n, "hidden_layer_sizes", Integral, min_val=1) for n in widths]
        X, y = validate_data(self, X, y, dtype=np.float32, reset=is_new)
        check_classification_targets(y)
        weights = _check_sample_weight(weights, X, dtype=np.float64, ensure_non_negative=True)
        if is_new:
            self.classes_ = np.unique(y if classes is None else classes)
            self._seed = check_random_state(self.random_state).randint(2**31)
            self._rng = np.random.Generator(np.random.SFC64(self._seed))
            self._optimizer, self.loss_curve_, self.n_iter_ = {}, [], 0
            sizes = [X.shape[1], *hidden, len(self.classes_)]
            net = new_network(sizes, self._function("activation"), self._rng)
        else:
            net = network_of(self._layers(), self._function("activation"))
        if net.sizes[1:-1] != hidden:
            raise ValueError("hidden_layer_sizes is not that of coefs_; set warm_start = False")
        is_known = np.isin(y, self.classes_)
        if not is_known.all():
            raise ValueError(f"y has the label {y[~is_known][0]}, not one of {self.classes_}")
        self.coefs_, self.intercepts_ = map(list, zip(*net.layers, strict=True))
        return net, distinct(X, np.searchsorted(self.classes_, y), weights)

    def _layers(self) -> list[Layer]:
        """The trained layers."""
        return [Layer(W, b) for W, b in zip(self.coefs_, self.intercepts_, strict=True)]

    def _split(self, samples: Samples) -> tuple[Samples, Samples | None]:
        """What is trained on, and with early_stopping a share of every class that is held out."""
        if not self.early_stopping:
            return samples, None
        seed = int(self._rng.integers(2**31))
        parts = train_test_split(
            *samples, test_size=self.validation_fraction, stratify=samples.y, random_state=seed
        )
        return Samples(*parts[::2]), Samples(*parts[1::2])

    def _mean_loss(self, net: Network, samples: Samples) -> float:
        """The samples' mean loss, noise-free."""
        losses = losses_of(self._function("loss"), net.logits(samples.x).T, samples.y)
        return float(np.average(losses, weights=samples.weights))

    def _votes(self, x: Array) -> np.ndarray:
        """In how many of prediction_passes noisy passes each class has the largest logit."""
        layers, rng = self._layers(), np.random.Generator(np.random.SFC64(self._seed))
        method = replace(self._method(len(layers)), replicates=1)
        one_of_classes = np.eye(len(self.classes_))
        votes = np.zeros((len(x), len(one_of_classes)))
        for _ in range(self.prediction_passes):
            with np.errstate(over="ignore"):
                logits = noisy_passes(method, layers, x.T, rng).neurons[-1].outputs[:, 0]
            votes += one_of_classes[logits.argmax(axis=0)]
        return votes


def gradient_of(backend: str, method: Method) -> Callable:
    """`gradient(layers, x, y, rng=rng)` by a backend; GLRError for what JAX does not cover."""
    if backend == "numpy":
        return partial(gradient, **vars(method))
    from glr.scripts.run import by_jax  # noqa: PLC0415  (which says it where there is no JAX)

    by_jax().set_up()
    return by_jax().compiled_gradient(method)


def distinct(x: Array, y: np.ndarray, weights: np.ndarray) -> Samples:
    """The samples of positive weight in a fixed order, equal ones once with their weights' sum.

    So two copies of a sample are one of weight 2, to the last bit. ValueError if there is none.
    """
    x = x + np.float32(0)  # −0 becomes 0: rows are compared by their bytes
    keyed = np.ascontiguousarray(np.column_stack([x, y.astype(np.float32)]))
    rows = keyed.view(np.dtype((np.void, keyed[0].nbytes))).ravel()
    _, first, numbers = np.unique(rows, return_index=True, return_inverse=True)
    sums = np.bincount(numbers.ravel(), weights)
    kept = sums > 0
    if not kept.any():
        raise ValueError("sample_weight: all weights are zero; give one that is not")
    return Samples(x[first[kept]], y[first[kept]], sums[kept])


def drawn_rows(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows for an epoch of N samples, (N,), in random order: each drawn N·weight/Σ weights times.

    In the mean, and up to less than 1 always (systematic sampling, Madow & Madow 1944): equal
    weights give each row once.
    """
    n = len(weights)
    ends = np.cumsum(weights) * (n / weights.sum())
    rows = np.searchsorted(ends, rng.random() + np.arange(n), side="right")
    return rng.permutation(rows.clip(max=n - 1))  # ends[-1] may be rounded down
