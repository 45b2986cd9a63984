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
    if not isinstance(layers, (list, tuple)) or isinstance(layers, Layer):
        raise GLRError(f"layers is {_said(layers)}; give a list of glr.Layer(W, b)")
    if not layers:
        raise GLRError("layers is empty; give a list of glr.Layer(W, b)")
    found = []
    for t, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise GLRError(f"layers[{t}] is {_said(layer)}; give glr.Layer(W, b)")
        W, b = (
            _floats(f"layers[{t}].{name}", part) for name, part in zip("Wb", layer, strict=True)
        )
        if W.ndim != 2 or b.shape != W.shape[1:] or 0 in W.shape:
            raise GLRError(
                f"layers[{t}] has W of shape {W.shape} and b of shape {b.shape}; give W (n_in, "
                "n_out) and b (n_out,)"
            )
        if found and len(W) != found[-1].b.size:
            raise GLRError(
                f"layers[{t}].W has shape {W.shape}; layers[{t - 1}] has {found[-1].b.size} "
                f"neurons, so give ({found[-1].b.size}, n_out)"
            )
        found.append(Layer(W, b))
    return found


def checked_batch(
    layers: list[Layer], x: Array, y: np.ndarray, loss: Loss
) -> tuple[Array, np.ndarray]:
    """Inputs x (B, n_in) as columns (n_in, B) of float32, and the B targets y.

    The losses of glr take class labels; y of any shape (B, …) is left to a loss of one's own.
    """
    x = _floats("x", x)
    try:
        y = np.asarray(y)
    except ValueError:
        raise GLRError(
            f"y is {_said(y)} that is no array; give one target for each sample"
        ) from None
    n_in = len(layers[0].W)
    if x.ndim != 2 or x.shape[1] != n_in or len(x) == 0:
        raise GLRError(f"x has shape {x.shape}; give (B, {n_in}), samples in rows")
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
    for name, example in (("activation", "glr.sigmoid"), ("loss", "glr.cross_entropy")):
        if not callable(getattr(method, name)):
            given = _said(getattr(method, name))
            raise GLRError(f"{name} is {given}; give a function, as {example}")
    if not isinstance(method.noise, NoiseLaw):
        raise GLRError(f"noise is {_said(method.noise)}; give a glr.NoiseLaw, as glr.logistic")
    if (method.noise.cdf is None) != (method.noise.pdf is None):
        raise GLRError(f"noise {method.noise.name} has one of cdf and pdf; give both, or neither")
    if method.perturb not in ("logits", "weights"):
        raise GLRError(f'perturb is {_said(method.perturb)}; give "logits" or "weights"')
    if not isinstance(method.local_differences, (bool, str)) or (
        method.local_differences not in (True, False, "output")
    ):
        raise GLRError(
            f'local_differences is {_said(method.local_differences)}; give True, "output" or False'
        )
    R = method.replicates
    if not isinstance(R, (int, np.integer)) or R < 1:
        raise GLRError(f"replicates is {_said(R)}; give a whole number ≥ 1")
    has_control_variate = method.control_variate and not method.local_differences
    if R == 1 and (has_control_variate or method.standardised_loss):
        raise GLRError(
            "replicates = 1: the control variate and the standardised loss compare passes; give 2 "
            "or more, or set both to False"
        )
    for name in ("control_variate", "standardised_loss"):
        if not isinstance(getattr(method, name), bool):
            raise GLRError(f"{name} is {_said(getattr(method, name))}; give True or False")
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
    found = {"mean of r·s(r)": (r * s).mean(), "standard deviation of r": r.std()}
    wrong = [
        f"the {what} is {value:.2f}" for what, value in found.items() if not _is_near(value, 1)
    ]
    if wrong:
        raise GLRError(
            f"NOISE = {law.name}: {', '.join(wrong)}, not 1; scale it, or mend its score, which is "
            "−d log f/dr of a density f without jumps"
        )
    for v in CHECKED_LOGITS if law.cdf is not None else ():
        p, f = (float(of_v(np.float32(v))) for of_v in (law.cdf, law.pdf))
        drawn_p, drawn_f = (r > -v).mean(), (s * (r > -v)).mean()
        if not (_is_near(p, drawn_p) and _is_near(f, drawn_f)):
            raise GLRError(
                f"NOISE = {law.name}: at v = {v:g} cdf is {p:.2f} and pdf {f:.2f}, and by its "
                f"draws {drawn_p:.2f} and {drawn_f:.2f}; mend them, or leave both out"
            )


def _is_near(value: float, goal: float) -> bool:
    """Whether a mean over the checked draws may be that of its goal. NaN is not."""
    return abs(value - goal) < CHECKED_ERROR
