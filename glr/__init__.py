"""Training neural networks from the loss value alone, by generalized likelihood ratios (GLR).

    layers = [glr.Layer(W0, b0), glr.Layer(W1, b1)]  # W (n_in, n_out), b (n_out,)
    estimate = glr.gradient(
        layers, x, y, activation=glr.sigmoid, loss=glr.cross_entropy, noise=glr.logistic,
        sigma=(1.0, 0.5), replicates=2, rng=np.random.default_rng(0),
    )  # x (B, n_in), y (B,)
    estimate.layers  # ∂E[L]/∂W, ∂E[L]/∂b of each layer
    estimate.risk    # the mean loss of the noisy passes
    estimate.inputs  # ∂E[L]/∂x of each sample, (B, n_in)

`gradient` gives an `Estimate`. The activation (`sigmoid`, `threshold`, `tanh`, `relu`), the loss
(`cross_entropy`, `zero_one`) and the noise (`gaussian`, `laplace`, `logistic`, or another
`NoiseLaw`) may be your own. `load(path)` reads a network that a script trained: its `predict(x)`,
`predict_proba(x)` and `logits(x)` take samples in rows; `glr.interop` has to_keras and to_torch of
it, and from_keras and from_torch. `GLRClassifier` is all of it in one scikit-learn estimator. What
does not fit is a `GLRError` of one line. Steps that learn a disc from the number of errors, where
backpropagation finds no slope:

    import numpy as np
    import glr

    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (300, 2))
    y = ((x**2).sum(axis=1) < 0.64).astype(int)
    layers = [glr.Layer(rng.normal(size=shape), np.zeros(shape[1])) for shape in ((2, 30), (30, 2))]
    for _ in range(400):
        estimate = glr.gradient(
            layers, x, y, activation=glr.threshold, loss=glr.zero_one, sigma=(0.3, 1.0), rng=rng
        )
        for (W, b), slope in zip(layers, estimate.layers):
            W -= 10 * slope.W
            b -= 10 * slope.b
    (W0, b0), (W1, b1) = layers
    logits = (x @ W0 + b0 > 0) @ W1 + b1
    print(f"{(logits.argmax(axis=1) == y).mean():.2f}")  # 0.98, and 0.96 or more with other seeds
"""

from importlib.util import find_spec

from glr.errors import GLRError
from glr.estimator import Estimate, gradient
from glr.losses import cross_entropy, zero_one
from glr.network import Layer, relu, sigmoid, tanh, threshold
from glr.noise import NoiseLaw, gaussian, laplace, logistic
from glr.storage.models import load_model as load

__version__ = "1.0.0"

__all__ = [
    "Estimate",
    "GLRError",
    "Layer",
    "NoiseLaw",
    "__version__",
    "cross_entropy",
    "gaussian",
    "gradient",
    "laplace",
    "load",
    "logistic",
    "relu",
    "sigmoid",
    "tanh",
    "threshold",
    "zero_one",
]
if find_spec("sklearn"):  # else `from glr import *` and help(glr) would fail
    __all__ += ["GLRClassifier"]


def __getattr__(name: str) -> type:
    """GLRClassifier, imported where it is asked for: scikit-learn is no requirement."""
    if name != "GLRClassifier":
        raise AttributeError(f"module 'glr' has no attribute {name!r}")
    try:
        from glr.interop.classifier import GLRClassifier  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            f"GLRClassifier cannot import scikit-learn ({error}); pip install 'scikit-learn>=1.6'"
        ) from error
    return GLRClassifier


def __dir__() -> list[str]:
    """All names, and the one that is imported on demand."""
    return sorted({*globals(), *__all__})
