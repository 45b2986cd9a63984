"""`glr.GLRClassifier`: networks trained from the loss value alone, as scikit-learn has classifiers.

The estimate is `glr.gradient`, the step Adam's; `fit` is the loop around them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from statistics import fmean

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from glr import network
from glr.checks import checked_sigma
from glr.errors import DivergenceError
from glr.estimator import Estimate, Method, gradient, noisy_passes
from glr.interop.samples import Samples, distinct, drawn_rows
from glr.losses import Loss, cross_entropy, losses_of, zero_one
from glr.network import Activation, Array, Layer, Network, new_network
from glr.noise import LAWS, NoiseLaw
from glr.optimizers import adam, cosine
from glr.scripts.adversarial import moved

NAMED = {
    "activation": {function.__name__: function for function in network.ACTIVATIONS},
    "loss": {function.__name__: function for function in (cross_entropy, zero_one)},
    "noise": {law.name: law for law in LAWS},
}
RANGES = {  # of numbers: the type, the least, and whether that is one of them
    "alpha": (Real, 0, "left"),
    "learning_rate_init": (Real, 0, "neither"),
    "max_iter": (Integral, 1, "left"),
    "n_iter_no_change": (Integral, 1, "left"),
    "adversarial_epsilon": (Real, 0, "left"),
    "prediction_passes": (Integral, 0, "left"),
}
REPLAYS = 4  # steps on each minibatch in adversarial training


class GLRClassifier(ClassifierMixin, BaseEstimator):
    """A multilayer perceptron that is trained from its loss values alone.

    Neither the activation nor the loss is differentiated: neurons may be thresholds, and the loss
    what the errors really cost. Parameters that scikit-learn's MLPClassifier has mean the same.
    Scale the inputs, as in the example.

    hidden_layer_sizes : neurons of each hidden layer
    activation : "sigmoid", "threshold", "tanh", "relu", or any elementwise function
    loss : "cross_entropy", "zero_one", or a function of logits (…, classes, B) and class numbers
        y (B,), which count along classes_, to one number a pass and sample, (…, B)
    noise : "logistic", "gaussian", "laplace", or a glr.NoiseLaw
    sigma : its standard deviation; one, two (hidden, output), or one a layer
    perturb : where the noise goes: "logits", or "weights", for which sigma should be a tenth
    replicates : noisy forward passes of each sample in a step
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

    Example: reading digit i as j costs |i − j|, and five threshold neurons cannot get all right.
    Trained on that cost, from the weights that cross-entropy gave, they cost less than with as much
    more cross-entropy and the Bayes decision, the class of least expected cost; and the label is
    more often one of the two that are rated highest, when trained on that. With 100 neurons, which
    fit all digits, cross-entropy is the better of the two (docs/tutorial.ipynb).

    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from glr import GLRClassifier
    >>> def misreading(logits, y):
    ...     return abs(y - logits.argmax(axis=-2))
    >>> def top_2_error(logits, y):
    ...     label = logits[..., y, np.arange(len(y))]
    ...     return (logits > label[..., None, :]).sum(axis=-2) > 1
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
    >>> own, other = (top_2_error(q.T, y_test).mean() for q in (probabilities(top_2_error), p))
    >>> bool(own < other)
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str | Activation = "sigmoid",
        *,
        loss: str | Loss = "cross_entropy",
        noise: str | NoiseLaw = "logistic",
        sigma: float | Sequence[float] = (1.0, 2.0),
        perturb: str = "logits",
        replicates: int = 2,
        alpha: float = 0.01,
        batch_size: int | str = "auto",
        learning_rate_init: float = 0.02,
        max_iter: int = 30,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        adversarial_epsilon: float = 0.2,
        prediction_passes: int = 0,
        warm_start: bool = False,
        verbose: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.loss = loss
        self.noise = noise
        self.sigma = sigma
        self.perturb = perturb
        self.replicates = replicates
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.adversarial_epsilon = adversarial_epsilon
        self.prediction_passes = prediction_passes
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> GLRClassifier:
        """Train on samples X (N, n_in) of labels y (N,), for max_iter epochs or less.

        sample_weight : (N,) ≥ 0, factors of the samples' losses. A sample is drawn in proportion to
            its weight, which a loss of any kind bears; weight 2 is as good as two copies.

        Raises ValueError, or GLRError for what glr.gradient refuses or training that diverges.
        """
        is_new = not (self.warm_start and hasattr(self, "coefs_"))
        samples = self._samples(X, y, sample_weight, is_new)
        net = self._network(samples, is_new)
        samples, held_out = self._split(samples)
        self._optimizer, self.validation_loss_curve_, best = {}, [], net.parameters.copy()
        for epoch in range(self.max_iter):
            fall = cosine(epoch, self.max_iter)
            epsilon = self.adversarial_epsilon * (1 - fall)
            self._take_epoch(net, samples, self.learning_rate_init * fall, epsilon)
            if held_out is not None:
                losses = self.validation_loss_curve_
                losses.append(self._mean_loss(net, held_out))
                if losses[-1] < min(losses[:-1], default=math.inf):
                    best = net.parameters.copy()
                if len(losses) - 1 - np.argmin(losses) >= self.n_iter_no_change:
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
        samples = self._samples(X, y, sample_weight, is_new, classes)
        net = self._network(samples, is_new)
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
        z = network.logits(self._layers(), self._method()["activation"], x)
        exponentials = np.exp(z - z.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def _take_epoch(self, net: Network, samples: Samples, rate: float, epsilon: float) -> None:
        """On each minibatch of an epoch estimate the gradient, and take Adam's step along it."""
        rows, method, losses = drawn_rows(samples.weights, self._rng), self._method(), []
        is_zero_one = method["loss"] is zero_one  # which is then trained as in LRTZ.py
        batches = np.array_split(rows, math.ceil(len(rows) / self._size_of_batch(len(rows))))
        change = np.zeros((len(batches[0]), samples.x.shape[1]), np.float32)
        for batch in (batch for batch in batches for _ in range(REPLAYS if epsilon else 1)):
            eta = change[: len(batch)]
            estimate = gradient(
                net.layers,
                samples.x[batch] + eta,
                samples.y[batch],
                **method,
                replicates=self.replicates,
                standardised_loss=is_zero_one,
                rng=self._rng,
            )
            if epsilon:
                eta[:] = moved(eta, estimate.inputs, epsilon)
            with np.errstate(over="ignore", invalid="ignore"):  # _end_epoch sees to it
                slope = slope_of(net, estimate, self.alpha / len(batch))
                adam(net.parameters, slope, rate, self._optimizer)
            losses.append(estimate.risk)
        self._end_epoch(net, fmean(losses))

    def _end_epoch(self, net: Network, loss: float) -> None:
        """Note the epoch's mean loss; DivergenceError unless it and all weights are finite."""
        self.loss_curve_.append(loss)
        self.n_iter_ += 1
        if not (math.isfinite(loss) and np.isfinite(net.parameters).all()):
            raise DivergenceError(
                f"epoch {self.n_iter_}: the loss or the weights are not finite; lower "
                "learning_rate_init, or raise sigma"
            )
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {loss:.8f}")

    def _method(self) -> dict:
        """What glr.gradient takes of the parameters, functions in the place of names."""
        found = {name: getattr(self, name) for name in (*NAMED, "sigma", "perturb")}
        for name, known in NAMED.items():
            if isinstance(found[name], str):
                if found[name] not in known:
                    wanted = f"give one of {', '.join(known)}, or what the docstring says"
                    raise ValueError(f"{name} = {found[name]!r}; {wanted}")
                found[name] = known[found[name]]
        return found

    def _size_of_batch(self, n: int) -> int:
        """Samples in a minibatch of n."""
        return self.batch_size if self.batch_size != "auto" else min(max(n // 16, 8), 128)

    def _samples(
        self,
        X: ArrayLike,
        y: ArrayLike,
        weights: ArrayLike | None,
        is_new: bool,
        classes: ArrayLike | None = None,
    ) -> Samples:
        """What is trained on, checked; classes are those of y, if none are given."""
        self._check_ranges()
        X, y = validate_data(self, X, y, dtype=np.float32, reset=is_new)
        check_classification_targets(y)
        weights = _check_sample_weight(weights, X, dtype=np.float64, ensure_non_negative=True)
        if is_new:
            self.classes_ = np.unique(y if classes is None else classes)
        is_known = np.isin(y, self.classes_)
        if not is_known.all():
            raise ValueError(f"y has the label {y[~is_known][0]}, not one of {self.classes_}")
        return distinct(X, np.searchsorted(self.classes_, y), weights)

    def _check_ranges(self) -> None:
        """Raise ValueError or TypeError for a number that is not one, or out of its range."""
        for name, (kind, least, boundaries) in RANGES.items():
            value = getattr(self, name)
            check_scalar(value, name, kind, min_val=least, include_boundaries=boundaries)
        if self.batch_size != "auto":
            check_scalar(self.batch_size, "batch_size", Integral, min_val=1)
        for width in np.atleast_1d(self.hidden_layer_sizes).tolist():
            check_scalar(width, "hidden_layer_sizes", Integral, min_val=1)

    def _network(self, samples: Samples, is_new: bool) -> Network:
        """The network of coefs_ and intercepts_, which are made views of it; a new one if so."""
        hidden = np.atleast_1d(self.hidden_layer_sizes).tolist()
        sizes = [samples.x.shape[1], *hidden, len(self.classes_)]
        activation = self._method()["activation"]
        if is_new:
            self._seed = check_random_state(self.random_state).randint(2**31)
            self._rng = np.random.Generator(np.random.SFC64(self._seed))
            self._optimizer, self.loss_curve_, self.n_iter_ = {}, [], 0
            net = new_network(sizes, activation, self._rng)
        else:
            if sizes[1:-1] != [b.size for b in self.intercepts_[:-1]]:
                raise ValueError("hidden_layer_sizes is not that of coefs_; set warm_start = False")
            parts = [part.ravel() for layer in self._layers() for part in layer]
            net = Network(np.concatenate(parts), sizes, activation)
        self.coefs_, self.intercepts_ = map(list, zip(*net.layers, strict=True))
        return net

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
        losses = losses_of(self._method()["loss"], net.logits(samples.x).T, samples.y)
        return float(np.average(losses, weights=samples.weights))

    def _votes(self, x: Array) -> np.ndarray:
        """In how many of prediction_passes noisy passes each class has the largest logit."""
        layers, rng = self._layers(), np.random.Generator(np.random.SFC64(self._seed))
        choices = self._method() | {"sigma": checked_sigma(self.sigma, len(layers))}
        method = Method(
            **choices,
            replicates=1,
            local_differences=False,
            control_variate=False,
            standardised_loss=False,
        )
        votes = np.zeros((len(x), len(self.classes_)))
        for _ in range(self.prediction_passes):
            with np.errstate(over="ignore"):
                logits = noisy_passes(method, layers, x.T, rng).neurons[-1].outputs[:, 0]
            votes[np.arange(len(x)), logits.argmax(axis=0)] += 1
        return votes


def slope_of(net: Network, estimate: Estimate, decay: float) -> Array:
    """The estimated gradient and weight decay, of all parameters in their order."""
    slopes = [
        part.ravel()
        for layer, found in zip(net.layers, estimate.layers, strict=True)
        for part in (found.W + np.float32(decay) * layer.W, found.b)
    ]
    return np.concatenate(slopes)
