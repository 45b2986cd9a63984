"""Whether the arguments of `glr.gradient` fit one another: GLRError, in one line, where not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from glr.errors import GLRError
from glr.losses import Loss, cross_entropy, zero_one
from glr.network import Array, Layer
from glr.noise import NoiseLaw, noise_and_score

if TYPE_CHECKING:
    from glr.estimator import Method

CHECKED_SHAPE = (64, 64, 64)  # of the draws that a law of your own is checked by
CHECKED_ERROR = 0.1  # far more than the means err by, and less than what matters
CHECKED_LOGITS = (-30.0, -2.0, -1.0, -0.3, 0.3, 1.0, 2.0, 30.0)


def checked_layers(layers: Sequence[Layer]) -> list[Layer]:
    """The layers as float32, each with as many inputs as the one before has neurons."""
    if not isinstance(layers, (list, tuple)) or isinstance(layers, Layer) or not layers:
        raise GLRError(f"layers is {_said(layers)}; give a list of glr.Layer(W, b), at least one")
    found = []
    for t, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise GLRError(f"layers[{t}] is {_said(layer)}; give glr.Layer(W, b)")
        W, b = _floats(f"layers[{t}].W", layer.W), _floats(f"layers[{t}].b", layer.b)
        if W.ndim != 2 or b.shape != W.shape[1:] or 0 in W.shape:
            shapes = f"W of shape {W.shape} and b of shape {b.shape}"
            raise GLRError(f"layers[{t}] has {shapes}; give W (n_in, n_out) and b (n_out,)")
        if found and len(W) != (n_in := found[-1].b.size):
            wrong = f"layers[{t}].W has shape {W.shape}; layers[{t - 1}] has {n_in} neurons"
            raise GLRError(f"{wrong}, so give ({n_in}, n_out)")
        found.append(Layer(W, b))
    return found


def checked_inputs(x: Array, n_in: int) -> Array:
    """Samples x (N, n_in) as float32; GLRError for what is not."""
    x = _floats("x", x)
    if x.ndim != 2 or x.shape[1] != n_in:
        raise GLRError(f"x has shape {x.shape}; give (N, {n_in}), samples in rows")
    return x


def checked_batch(
    layers: list[Layer], x: Array, y: np.ndarray, loss: Loss
) -> tuple[Array, np.ndarray]:
    """Inputs x (B, n_in) as columns (n_in, B) of float32, and the B targets y.

    The losses of glr take class labels; y of any shape (B, …) is left to a loss of your own.
    """
    x = checked_inputs(x, len(layers[0].W))
    if len(x) == 0:
        raise GLRError(f"x has shape {x.shape}; give one sample at least")
    try:
        y = np.asarray(y)
    except ValueError:
        wrong = f"y is {_said(y)} that is no array"
        raise GLRError(f"{wrong}; give one target for each sample") from None
    if y.ndim == 0 or len(y) != len(x):
        raise GLRError(f"y has shape {y.shape} for {len(x)} samples; give one target for each")
    if loss is cross_entropy or loss is zero_one:
        classes = layers[-1].b.size
        wanted = f"{loss.__name__} takes whole class labels 0 … {classes - 1}, shape (B,)"
        if y.ndim != 1 or y.dtype.kind not in "iu":
            advice = "of rows y.argmax(axis=1); a loss of your own takes any y"
            raise GLRError(f"y is {y.dtype} of shape {y.shape}; {wanted}: {advice}")
        if y.astype(np.uint64).max() >= classes:  # a negative label becomes a huge one
            raise GLRError(f"y has labels {y.min()} … {y.max()}; {wanted}")
    return x.T, y


def checked_sigma(sigma: float | Sequence[float], n_layers: int) -> tuple[float, ...]:
    """One positive σ for each layer; see sigma_by_layer."""
    with np.errstate(over="ignore"):  # refused below
        given = _floats("sigma", sigma)
    if given.ndim > 1:
        raise GLRError(f"sigma is {_said(sigma)}; give one number, or a list of one for each layer")
    if not np.all((given > 0) & (given < np.inf)):
        raise GLRError(f"sigma = {sigma}: every layer needs noise; give finite numbers > 0")
    return sigma_by_layer(tuple(np.atleast_1d(given).tolist()), n_layers)


def sigma_by_layer(sigma: Sequence[float], n_layers: int) -> tuple[float, ...]:
    """One σ for each layer: from one for all, two for hidden and output, or one each."""
    if len(sigma) == n_layers:
        return tuple(sigma)
    if len(sigma) in (1, 2):
        return (*sigma[:1] * (n_layers - 1), sigma[-1])
    listed = "1 or 2" if n_layers == 2 else f"1, 2 or {n_layers}"
    raise GLRError(f"sigma has {len(sigma)} numbers for {n_layers} layers; give {listed}")


def check_method(method: Method, rng: np.random.Generator) -> None:
    """Raise GLRError unless every choice is one there is, and none contradicts another."""

    def require(name: str, is_right: bool, wanted: str) -> None:
        if not is_right:
            raise GLRError(f"{name} is {_said(getattr(method, name))}; give {wanted}")

    require("activation", callable(method.activation), "a function, as glr.sigmoid")
    require("loss", callable(method.loss), "a function, as glr.cross_entropy")
    law, where, R = method.noise, method.local_differences, method.replicates
    require("noise", isinstance(law, NoiseLaw), "a glr.NoiseLaw, as glr.logistic")
    if (law.cdf is None) != (law.pdf is None):
        raise GLRError(f"noise {law.name} has one of cdf and pdf; give both, or neither")
    require("perturb", method.perturb in ("logits", "weights"), '"logits" or "weights"')
    is_place = isinstance(where, bool) or (isinstance(where, str) and where == "output")
    require("local_differences", is_place, 'True, "output" or False')
    require("replicates", isinstance(R, (int, np.integer)) and R >= 1, "a whole number ≥ 1")
    for name in ("control_variate", "standardised_loss"):
        require(name, isinstance(getattr(method, name), bool), "True or False")
    if R == 1 and (method.standardised_loss or (method.control_variate and not where)):
        compared = "the control variate and the standardised loss compare passes"
        raise GLRError(f"replicates = 1: {compared}; give 2 or more, or set both to False")
    if not isinstance(rng, np.random.Generator):
        raise GLRError(f"rng is {_said(rng)}; give np.random.default_rng(seed)")


def _floats(name: str, value: object) -> Array:
    """An array of real numbers as float32."""
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unequal lengths
        array = np.asarray(None)
    if array.dtype.kind not in "fiub":
        raise GLRError(f"{name} is {_said(value)}; give an array of numbers")
    return array.astype(np.float32, copy=False)


def _said(value: object) -> str:
    """What was given, in a few words."""
    if isinstance(value, (str, int, float, bool)) or value is None:
        return repr(value)
    return f"a {type(value).__name__}"


def check_law(law: NoiseLaw, rng: np.random.Generator) -> None:
    """Raise GLRError unless a law's draws fit one another, as far as a sample of them shows.

    E[r·s(r)] is 1 for every density without jumps, by parts; E[s; r > −v] is f(v).
    """
    r, s = (np.asarray(part, np.float64) for part in noise_and_score(law, rng, CHECKED_SHAPE))
    for what, value in (("mean of r·s(r)", (r * s).mean()), ("standard deviation of r", r.std())):
        if not _is_near(value, 1):
            wrong = f"NOISE = {law.name}: the {what} is {value:.2f}, not 1"
            score = "its score, which is −d log f/dr of a density f without jumps"
            raise GLRError(f"{wrong}; scale it, or mend {score}")
    for v in CHECKED_LOGITS if law.cdf is not None else ():
        p, f = (float(of_v(np.float32(v))) for of_v in (law.cdf, law.pdf))
        drawn_p, drawn_f = (r > -v).mean(), (s * (r > -v)).mean()
        if not (_is_near(p, drawn_p) and _is_near(f, drawn_f)):
            found = f"cdf is {p:.2f} and pdf {f:.2f}, by its draws {drawn_p:.2f} and {drawn_f:.2f}"
            raise GLRError(f"NOISE = {law.name}: at v = {v:g} {found}; mend both or leave both out")


def _is_near(value: float, goal: float) -> bool:
    """Whether a mean over the checked draws may be that of its goal. NaN is not."""
    return abs(value - goal) < CHECKED_ERROR
