"""The constants at the top of a script, and the command line that overrides them.

A script states its constants as `NAME = value  # what it is`; the comments become the help of
`-h`, and `NAME` can be given as `--name value`. Functions are given by their names.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import runpy
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import NamedTuple

from glr import losses, network, noise, optimizers
from glr.errors import GLRError
from glr.scripts.plots import FORMATS
from glr.storage.files import user_path
from glr.storage.models import layers_and_metadata

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "Train&Test"
HOME = ROOT if SCRIPTS.is_dir() else Path()  # of what scripts write: here, where glr is installed
PATHS = ("DATASET", "DATASETS", "MODELS", "TARGET", "FUNCTIONS")  # constants that may be paths


class Kind(NamedTuple):
    """What values a constant takes: its type, which of them are right, that in words."""

    read: type
    is_right: Callable[[object], bool]
    words: str
    many: bool = False


def _whole(lowest: int) -> Kind:
    return Kind(int, lambda v: isinstance(v, int) and v >= lowest, f"a whole number ≥ {lowest}")


def _choice(*values: object) -> Kind:
    words = [f'"{value}"' if isinstance(value, str) else str(value) for value in values]
    return Kind(str, lambda v: v in values, f"{', '.join(words[:-1])} or {words[-1]}")


def _many(kind: Kind) -> Kind:
    return kind._replace(many=True)


def _number(words: str, is_right: Callable[[float], bool]) -> Kind:
    is_number = (int, float)
    return Kind(float, lambda v: isinstance(v, is_number) and is_right(v), f"a number {words}")


BELOW = "below 1e38"  # so that it is finite as float32
OF_A_PIXEL = "≤ 1, as pixels are in [0, 1]: 8 of 255 is 0.0314"
POSITIVE = _number(f"> 0, {BELOW}", lambda v: 0 < v < 1e38)
NOT_NEGATIVE = _number(f"≥ 0, {BELOW}", lambda v: 0 <= v < 1e38)
FLAG = _choice(True, False)
FUNCTION = Kind(str, callable, "a function")
FILE_NAME = Kind(  # begins a file name, and is told from the data set and seed that follow
    str,
    lambda v: isinstance(v, str) and bool(re.fullmatch(r"(?!surrogate$)[A-Za-z0-9+.-]+", v)),
    "letters, digits and + - . alone, and not surrogate",
)
WORD = Kind(str, lambda v: isinstance(v, str) and v.strip() != "", "a name or a path")
WORD_OR_NOTHING = Kind(str, lambda v: isinstance(v, str), "a path or an address, or nothing")

KINDS: dict[str, Kind] = {
    name: kind
    for names, kind in {
        "NAME": FILE_NAME,
        "DATASET ATTACK TARGET": WORD,
        "DATASETS NAMES MODELS SAMPLES VARIANTS": _many(WORD),
        "FUNCTIONS DASK": WORD_OR_NOTHING,
        "SEED VALIDATION IMAGES STARTS PREDICTION_PASSES BIAS_DRAWS": _whole(0),
        "BATCH_SIZE STEPS EVAL_EVERY CHECKPOINT_EVERY REPLICATES REPLAYS": _whole(1),
        "PGD_STEPS QUERIES SEEDS PROCESSES PASSES EVALUATIONS": _whole(1),
        "HIDDEN": _many(_whole(1)),
        "INITIAL_SCALE LEARNING_RATE PENALTY": POSITIVE,
        "EPSILON": _many(_number(f"> 0 and {OF_A_PIXEL}", lambda v: 0 < v <= 1)),
        "SIGMAS RADII RATES": _many(POSITIVE),
        "ALPHA": _number("> 0 and < 1", lambda v: 0 < v < 1),
        "WEIGHT_DECAY": NOT_NEGATIVE,
        "ADVERSARIAL_EPSILON": _number(f"≥ 0 and {OF_A_PIXEL}", lambda v: 0 <= v <= 1),
        "SIGMA": _many(NOT_NEGATIVE),
        "CONTROL_VARIATE STANDARDISED_LOSS CENTRALISED_GRADIENT WRITE_DOCS": FLAG,
        "LOCAL_DIFFERENCES": _choice(True, "output", False),
        "BACKEND": _choice("numpy", "jax"),  # see BP_BACKEND
        "PERTURB": _choice("logits", "weights"),
        "ACTIVATION LOSS OPTIMIZER SCHEDULE": FUNCTION,
        "NOISE": Kind(str, lambda v: isinstance(v, noise.NoiseLaw), "a NoiseLaw"),
    }.items()
    for name in names.split()
}

BP_BACKEND = _choice("tensorflow", "jax")  # of a script that has glr.scripts.backpropagation

# Functions and laws of glr that a word of the command line can name.
NAMED: dict[str, dict[str, object]] = {
    constant: {getattr(item, "name", None) or item.__name__: item for item in items}
    for constant, items in {
        "ACTIVATION": network.ACTIVATIONS,
        "LOSS": (losses.cross_entropy, losses.zero_one),
        "NOISE": noise.LAWS,
        "OPTIMIZER": (optimizers.sgd, optimizers.adagrad, optimizers.adam),
        "SCHEDULE": (optimizers.cosine, optimizers.tenths, optimizers.constant),
    }.items()
}

# What a function is called with; of a law, what its parts are.
FORMS = {
    "ACTIVATION": {"": ("v",)},
    "LOSS": {"": ("logits", "y")},
    "NOISE": {"draw": ("rng", "shape"), "cdf": ("v",), "pdf": ("v",)},
    "OPTIMIZER": {"": ("parameters", "gradient", "rate", "state")},
    "SCHEDULE": {"": ("step", "steps")},
}


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line, without the usage before it."""

    def error(self, message: str) -> None:
        """Print the complaint and end with status 2."""
        self.exit(2, f"{self.prog}: {message}; -h lists what it takes\n")


LIKE = OneLineParser(add_help=False, allow_abbrev=False)  # of the scripts that train
LIKE_SAYS = "train again what this file of models/ holds: its constants become the defaults"
LIKE.add_argument("--like", type=user_path, metavar="MODEL", help=LIKE_SAYS)


def comments(source: str) -> dict[str, str]:
    """The comment at the end of every line `NAME = value  # comment`, by NAME."""
    return dict(re.findall(r"^([A-Z_]+) = .*?  # (.+)$", source, re.MULTILINE))


def name_of(value: object) -> object:
    """How a constant is shown and stored: functions and laws by name, anything else as it is."""
    return getattr(value, "name", getattr(value, "__name__", value))


def as_typed(value: object) -> str:
    """A constant as it is typed on the command line."""
    many = isinstance(value, (tuple, list))
    return " ".join(map(str, value)) if many else str(name_of(value))


def script_constants(
    script: Mapping[str, object], words: list[str] | None = None
) -> SimpleNamespace:
    """A script's constants after the command line, as attributes of one object.

    script : the script's `globals()`; its names in capitals that stand in KINDS are constants
    words : the command line, sys.argv[1:] by default

    Adds SCRIPT (the script's name), DATA_DIR, MODELS_DIR, FORMAT; where the script trains, RESUME
    and OWN_DATA (a cluster worker's copy of your own DATASET). Raises GLRError for a bad constant;
    ends the process, as argparse does, for a bad word (status 2) and after -h.
    """
    path = Path(str(script["__file__"]))
    words = sys.argv[1:] if words is None else words
    defaults = {name: value for name, value in script.items() if name in KINDS}
    if "CHECKPOINT_EVERY" in defaults:
        defaults |= constants_like(path.stem, defaults, words)
    given = vars(_script_parser(path, script, defaults).parse_args(words))
    given.pop("like", None)
    checked = {name: _checked(name, given[name], script) for name in defaults}
    return SimpleNamespace(SCRIPT=path.stem, **given | checked)


def constants_of(script: str, flags: Sequence[str]) -> SimpleNamespace:
    """The constants of a script of Train&Test after the flags; GLRError if it is not there."""
    path = SCRIPTS / script
    return script_constants(_globals_of(path, str(path)), list(flags))


def functions_of(path: str) -> dict[str, Callable]:
    """What may be called in a .py file, by the names that models record; {} for no path ("")."""
    items = _globals_of(Path(path), f"FUNCTIONS = {path}").values() if path else ()
    found = {str(name_of(item)): item for item in items if callable(item)}
    return {name: item for name, item in found.items() if name not in NAMED["ACTIVATION"]}


def _globals_of(path: Path, what: str) -> dict[str, object]:
    """What a .py file defines; GLRError, of `what`, if it cannot be run."""
    if not path.is_file():
        raise GLRError(f"{what}: no such file; give a .py file that is there")
    before = sys.path[:]
    sys.path.insert(0, str(path.resolve().parent))  # of modules beside it, as Python does
    try:
        return runpy.run_path(str(path))
    except (Exception, SystemExit) as error:  # of someone's code: anything
        why = f"{type(error).__name__}: {error}"
        raise GLRError(f"{what}: cannot be run ({why}); mend it first") from error
    finally:
        sys.path[:] = before


def constants_like(script: str, defaults: Mapping[str, object], words: list[str]) -> dict:
    """The constants of the model that --like names, or {}; GLRError if it is of another script."""
    path = LIKE.parse_known_args(words)[0].like
    if path is None:
        return {}
    _, metadata = layers_and_metadata(path)
    recorded, trainer = metadata.get("constants"), metadata.get("script")
    recorded = recorded if isinstance(recorded, dict) else {}
    if trainer != script:
        raise GLRError(f"{path}: was trained by {trainer}.py, not by {script}.py; run that one")
    unsaid = sorted(defaults.keys() - recorded.keys() - {"CHECKPOINT_EVERY", "BACKEND"})
    if unsaid:
        other = f"another version of {script}.py trained it"
        raise GLRError(f"{path}: does not say {', '.join(unsaid)}: {other}")
    if "retuned" in metadata:
        raise GLRError(f"{path}: its constants were changed half-way; no one command trains it")
    return {name: value for name, value in recorded.items() if name in defaults}


def _script_parser(
    path: Path, script: Mapping[str, object], defaults: Mapping[str, object]
) -> OneLineParser:
    """The parser of a script's command line: a flag for each constant, the places, resuming."""
    trains = "CHECKPOINT_EVERY" in defaults
    parser = OneLineParser(
        prog=path.name,
        description=script["__doc__"],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        parents=[LIKE] if trains else [],
    )
    said = comments(path.read_text(encoding="utf-8"))
    for name, default in defaults.items():
        comment, listed = said.get(name, ""), _listed(name, script) if name in NAMED else []
        is_said = all(f'"{one}"' in comment for one in listed)
        _add_flag(parser, name, default, comment if is_said else f"{comment}; {', '.join(listed)}")
    for place in ("data", "models"):
        dest = f"{place.upper()}_DIR"
        says = f"the {place} folder (default: GLR_{dest}, else {place}/)"
        parser.add_argument(f"--{place}-dir", dest=dest, type=user_path, metavar="DIR", help=says)
        parser.set_defaults(**{dest: os.environ.get(f"GLR_{dest}") or HOME / place})
    says = f"of the pictures: {', '.join(FORMATS)} (default: {FORMATS[0]})"
    parser.add_argument("--format", dest="FORMAT", choices=FORMATS, default=FORMATS[0], help=says)
    if trains:
        says = "continue the run from its last saved state"
        parser.add_argument("--resume", dest="RESUME", action="store_true", help=says)
        parser.add_argument("--own-data", dest="OWN_DATA", help=argparse.SUPPRESS)
    return parser


def _add_flag(parser: OneLineParser, name: str, default: object, comment: str) -> None:
    """Add --name to the parser, with the script's comment and value as its help."""
    kind = KINDS[name]
    flag = "--" + name.lower().replace("_", "-")
    shown = textwrap.shorten(as_typed(default), 200, placeholder=" …")
    says = f"{comment} (default: {shown or 'none'})".replace("%", "%%")
    options = {"dest": name, "default": default, "help": says}
    if name == "VARIANTS":  # words of their own, in quotes
        options.pop("dest")
        parser.add_argument(name, type=kind.read, nargs="*", metavar="VARIANT", **options)
    elif kind is FLAG:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
    elif name == "LOCAL_DIFFERENCES":
        parser.add_argument(flag, nargs="?", const=True, choices=["output"], **options)
        parser.add_argument("--no-local-differences", dest=name, action="store_false")
    else:
        nargs = ("*" if kind.read is str else "+") if kind.many else None
        metavar = {float: "X", int: "N", str: "NAME"}[kind.read]
        parser.add_argument(flag, type=kind.read, nargs=nargs, metavar=metavar, **options)


def _own(name: str, script: Mapping[str, object]) -> dict[str, object]:
    """The functions, or the noise laws, that the script gives the constant to choose from."""

    def is_own(item: object) -> bool:
        if name == "NOISE":
            return isinstance(item, noise.NoiseLaw)
        return isinstance(item, FunctionType) and item.__module__ == script["__name__"]

    named = {key: item for key, item in script.items() if key != "main" and not key.isupper()}
    return {key: item for key, item in named.items() if is_own(item)}


def _listed(name: str, script: Mapping[str, object]) -> list[str]:
    """The names that the constant takes: glr's, and the script's with parameters of those names."""
    takes = FORMS[name].get("")
    own = [
        key
        for key, item in _own(name, script).items()
        if name == "NOISE" or tuple(inspect.signature(item).parameters) == takes
    ]
    return [*dict.fromkeys([*NAMED[name], *own])]


def _misfit(name: str, value: object) -> str:
    """What a constant's function, or a part of its law, cannot be called with; "" if it can."""
    for part, given in FORMS[name].items():
        function = getattr(value, part) if part else value
        try:
            inspect.signature(function).bind(*given) if function is not None else None
        except TypeError:
            return f"{part or 'it'} is called with {', '.join(given)}, which it does not take"
        except ValueError:  # of compiled code, which says no parameters
            continue
    return ""


def _checked(name: str, value: object, script: Mapping[str, object]) -> object:
    """The value of a constant, or a GLRError."""
    kind = BP_BACKEND if name == "BACKEND" and "backpropagation" in script else KINDS[name]
    if name in NAMED:
        return _checked_function(name, value, script)
    values = value if kind.many and isinstance(value, (tuple, list)) else (value,)
    may_be_none = kind.many and kind.read is str
    if (not values and not may_be_none) or not all(kind.is_right(item) for item in values):
        raise GLRError(f"{name} = {as_typed(value) or 'nothing'}: must be {kind.words}")
    if name in PATHS:
        values = [str(user_path(word)) if word else word for word in values]
    return tuple(values) if kind.many else values[0]


def _checked_function(name: str, value: object, script: Mapping[str, object]) -> object:
    """The function or law that a constant is, or names; GLRError for none, and for a misfit."""
    if isinstance(value, str):
        own = _own(name, script)
        choices = NAMED[name] | {str(name_of(item)): item for item in own.values()} | own
        if value not in choices:
            listed = ", ".join(_listed(name, script))
            raise GLRError(f"{name} = {value}: no such name; give one of {listed}")
        value = choices[value]
    said = name_of(value)
    if not KINDS[name].is_right(value):
        raise GLRError(f"{name} = {said}: must be {KINDS[name].words}")
    if not isinstance(said, str):
        raise GLRError(f"{name}: has no name to be recorded by; wrap it in a function (def)")
    if NAMED[name].get(said, value) is not value:
        raise GLRError(f"{name} = {said}: is the name of another in glr; rename yours")
    if wrong := _misfit(name, value):
        raise GLRError(f"{name} = {said}: {wrong}; make it take these")
    return value
