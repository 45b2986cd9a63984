"""The constants at the top of a script, and the command line that overrides them.

A script states its constants as `NAME = value  # what it is`; the comments become the help of
`-h`, and `NAME` can be given as `--name value`. Functions are given by their names.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import re
import runpy
import sys
import textwrap
import tokenize
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import NamedTuple

from glr import losses, network, noise, optimizers
from glr.errors import GLRError
from glr.storage.models import layers_and_metadata

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "Train&Test"


class Kind(NamedTuple):
    """What values a constant takes: how a word is read, which values are right, in words."""

    read: Callable[[str], object]
    is_right: Callable[[object], bool]
    words: str
    many: bool = False


def is_file_name(name: str) -> bool:
    """Whether NAME can begin a file name, and be told from the data set and seed that follow."""
    return re.fullmatch(r"(?!surrogate$)[A-Za-z0-9+.-]+", name) is not None


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(lowest: int) -> Kind:
    return Kind(int, lambda v: _is_whole(v) and v >= lowest, f"a whole number ≥ {lowest}")


def _text(words: str) -> Kind:
    return Kind(str, lambda v: isinstance(v, str) and v.strip() != "", words, many=True)


def _choice(*values: str) -> Kind:
    return Kind(str, lambda v: v in values, " or ".join(f'"{value}"' for value in values))


def _function(words: str) -> Kind:
    return Kind(str, callable, words)


POSITIVE = Kind(float, lambda v: _is_number(v) and v > 0, "a number > 0")
NOT_NEGATIVE = Kind(float, lambda v: _is_number(v) and v >= 0, "a number ≥ 0")
FLAG = Kind(bool, lambda v: isinstance(v, bool), "True or False")

KINDS: dict[str, Kind] = {
    "NAME": Kind(
        str,
        lambda v: isinstance(v, str) and is_file_name(v),
        "letters, digits and + - . alone, and not surrogate",
    ),
    "DATASET": _text("a name or the path of an .npz")._replace(many=False),
    "SEED": _whole(0),
    "HIDDEN": _whole(1)._replace(many=True),
    "INITIAL_SCALE": POSITIVE,
    "ACTIVATION": _function("a function of an array"),
    "LOSS": _function("a function of logits and labels"),
    "NOISE": Kind(str, lambda v: isinstance(v, noise.NoiseLaw), "a NoiseLaw"),
    "SIGMA": NOT_NEGATIVE._replace(many=True),
    "PERTURB": _choice("logits", "weights"),
    "REPLICATES": _whole(1),
    "CONTROL_VARIATE": FLAG,
    "STANDARDISED_LOSS": FLAG,
    "LOCAL_DIFFERENCES": Kind(
        str, lambda v: v in (True, False, "output"), 'True, "output" or False'
    ),
    "OPTIMIZER": _function("a function of glr.optimizers"),
    "BATCH_SIZE": _whole(1),
    "STEPS": _whole(1),
    "LEARNING_RATE": POSITIVE,
    "SCHEDULE": _function("a function of the step and of how many there are"),
    "WEIGHT_DECAY": NOT_NEGATIVE,
    "CENTRALISED_GRADIENT": FLAG,
    "EVAL_EVERY": _whole(1),
    "CHECKPOINT_EVERY": _whole(1),
    "VALIDATION": _whole(0),
    "MODELS": _text("paths of models"),
    "SAMPLES": _text("names of sample files"),
    "CORRUPTIONS": _text("names of corruptions"),
    "ATTACK": _text("a name of an attack")._replace(many=False),
    "EPSILON": POSITIVE._replace(many=True),
    "TARGET": _text("surrogate, or the path of a model")._replace(many=False),
    "IMAGES": _whole(0),
    "PGD_STEPS": _whole(1),
    "SLOPES": POSITIVE._replace(many=True),
    "PENALTY": POSITIVE,
    "PENALTIES": POSITIVE._replace(many=True),
    "WEIGHT_SIGMAS": POSITIVE._replace(many=True),
    "QUERIES": _whole(1),
    "FUNCTIONS": Kind(str, lambda v: isinstance(v, str), "the path of a .py file, or nothing"),
    "DATASETS": _text("names of data sets"),
    "NAMES": _text("names of networks"),
    "SEEDS": _whole(1),
    "PROCESSES": _whole(1),
    "WRITE_DOCS": FLAG,
    "VARIANTS": _text("scripts of Train&Test with flags"),
    "DASK": Kind(str, lambda v: isinstance(v, str), "the address of a Dask scheduler, or nothing"),
}

# Functions and laws that a word of the command line can name, beside those of the script itself.
NAMED: dict[str, dict[str, object]] = {
    "ACTIVATION": {f.__name__: f for f in network.ACTIVATIONS},
    "LOSS": {f.__name__: f for f in (losses.cross_entropy, losses.zero_one)},
    "NOISE": {law.name: law for law in noise.LAWS},
    "OPTIMIZER": {f.__name__: f for f in (optimizers.sgd, optimizers.adagrad, optimizers.adam)},
    "SCHEDULE": {f.__name__: f for f in (optimizers.cosine, optimizers.constant)},
}

LIKE = {
    "type": Path,
    "metavar": "MODEL",
    "help": "train again what this file of models/ holds: its constants become the defaults",
}


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line, without the usage before it."""

    def error(self, message: str) -> None:
        """Print the complaint and end with status 2."""
        self.exit(2, f"{self.prog}: {message}; -h lists what it takes\n")


def comments(source: str) -> dict[str, str]:
    """The comment at the end of every line `NAME = value  # comment`, by NAME."""
    found, name = {}, ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and token.start[1] == 0:
            name = token.string
        elif token.type == tokenize.COMMENT and token.start[1] > 0 and name.isupper():
            found[name] = (found.get(name, "") + " " + token.string.lstrip("# ")).strip()
    return found


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

    Adds SCRIPT (the script's name), DATA_DIR and MODELS_DIR; RESUME to those of a script that
    saves checkpoints, which also takes --like. Raises GLRError for a bad constant; ends the
    process, as argparse does, for a bad word (status 2) and after -h.
    """
    path = Path(str(script["__file__"]))
    words = sys.argv[1:] if words is None else words
    defaults = {name: script[name] for name in KINDS if name in script}
    if "CHECKPOINT_EVERY" in defaults:
        defaults |= constants_like(path.stem, defaults, words)
    given = vars(_script_parser(path, script["__doc__"], defaults).parse_args(words))
    others = [name for name in ("DATA_DIR", "MODELS_DIR", "RESUME") if name.lower() in given]
    return SimpleNamespace(
        SCRIPT=path.stem,
        **{name: given[name.lower()] for name in others},
        **{name: _checked(name, given[name.lower()], script) for name in defaults},
    )


def constants_of(script: str, flags: Sequence[str]) -> SimpleNamespace:
    """The constants of a script of Train&Test after the flags; GLRError if it is not there."""
    path = SCRIPTS / script
    if not path.is_file():
        raise GLRError(f"{path}: no such script; name one of that folder")
    return script_constants(runpy.run_path(str(path)), list(flags))


def functions_of(path: str) -> dict[str, Callable]:
    """What may be called in a .py file, by the names that models record; {} for no path ("")."""
    if not path:
        return {}
    if not Path(path).is_file():
        raise GLRError(f"FUNCTIONS = {path}: no such file; give the .py file that defines them")
    found = {str(name_of(item)): item for item in runpy.run_path(path).values() if callable(item)}
    return {name: item for name, item in found.items() if name not in NAMED["ACTIVATION"]}


def constants_like(script: str, defaults: Mapping[str, object], words: list[str]) -> dict:
    """The constants of the model that --like names, where the script has them; {} without it.

    Raises GLRError if the file is no model of that script, or of another version of it.
    """
    parser = OneLineParser(prog=f"{script}.py", add_help=False, allow_abbrev=False)
    parser.add_argument("--like", **LIKE)
    path = parser.parse_known_args(words)[0].like
    if path is None:
        return {}
    _, metadata = layers_and_metadata(path)
    recorded = metadata.get("constants")
    if not isinstance(recorded, dict):
        raise GLRError(f"{path}: does not say its constants; name a model that {script}.py trained")
    if metadata.get("script") != script:
        raise GLRError(
            f"{path}: was trained by {metadata.get('script')}.py, not by {script}.py; run that one"
        )
    unsaid = sorted(defaults.keys() - recorded.keys() - {"CHECKPOINT_EVERY"})
    if unsaid:
        raise GLRError(
            f"{path}: does not say {', '.join(unsaid)}: another version of {script}.py trained it"
        )
    if "retuned" in metadata:
        raise GLRError(f"{path}: its constants were changed half-way; no one command trains it")
    return {name: value for name, value in recorded.items() if name in defaults}


def _script_parser(path: Path, description: str, defaults: Mapping[str, object]) -> OneLineParser:
    """The parser of a script's command line: a flag for each constant, the places, resuming."""
    parser = OneLineParser(
        prog=path.name,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    says = comments(path.read_text(encoding="utf-8"))
    for name, default in defaults.items():
        _add_flag(parser, name, default, says.get(name, ""))
    for place in ("data", "models"):
        parser.add_argument(
            f"--{place}-dir",
            type=Path,
            default=os.environ.get(f"GLR_{place.upper()}_DIR") or ROOT / place,
            metavar="DIR",
            help=f"the {place} folder (default: GLR_{place.upper()}_DIR, else {place}/)",
        )
    if "CHECKPOINT_EVERY" in defaults:
        parser.add_argument("--like", **LIKE)
        parser.add_argument(
            "--resume", action="store_true", help="continue the run from its last saved state"
        )
    return parser


def _add_flag(parser: OneLineParser, name: str, default: object, comment: str) -> None:
    """Add --name to the parser, with the script's comment and value as its help."""
    kind = KINDS[name]
    flag = "--" + name.lower().replace("_", "-")
    shown = textwrap.shorten(as_typed(default), 200, placeholder=" …")
    text = f"{comment} (default: {shown or 'none'})".replace("%", "%%")
    if name == "LOCAL_DIFFERENCES":
        parser.add_argument(
            flag, nargs="?", const=True, default=default, metavar="output", help=text
        )
        parser.add_argument("--no-local-differences", dest=name.lower(), action="store_false")
        return
    if kind is FLAG:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=text)
        return
    parser.add_argument(
        flag,
        type=_reader(kind),
        nargs=("*" if kind.read is str else "+") if kind.many else None,
        default=default,
        metavar="X" if kind.read is float else "N" if kind.read is int else "NAME",
        help=text,
    )


def _reader(kind: Kind) -> Callable[[str], object]:
    def read(word: str) -> object:
        try:
            return kind.read(word)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{word!r} is not {kind.words}") from None

    return read


def _is_own(key: str, value: object, script: Mapping[str, object]) -> bool:
    """Whether the script itself defines the value under that name: a function, or a noise law."""
    if key == "main" or key.isupper():
        return False
    return isinstance(value, noise.NoiseLaw) or (
        isinstance(value, FunctionType) and value.__module__ == script["__name__"]
    )


def _checked(name: str, value: object, script: Mapping[str, object]) -> object:
    """The value of a constant, with names replaced by what they name, or a GLRError."""
    kind = KINDS[name]
    if name in NAMED and isinstance(value, str):
        own = {key: item for key, item in script.items() if _is_own(key, item, script)}
        fitting = {key: item for key, item in own.items() if kind.is_right(item)}
        by_name = {str(name_of(item)): item for item in fitting.values()}
        choices = NAMED[name] | by_name | fitting
        if value not in choices:
            raise GLRError(f"{name} = {value}: no such name; give one of {', '.join(choices)}")
        value = choices[value]
    values = value if kind.many and isinstance(value, (tuple, list)) else (value,)
    may_be_none = kind.many and kind.read is str
    if (not values and not may_be_none) or not all(kind.is_right(item) for item in values):
        raise GLRError(f"{name} = {as_typed(value) or 'nothing'}: must be {kind.words}")
    if name in NAMED and not isinstance(name_of(value), str):
        raise GLRError(f"{name}: has no name to be recorded by; wrap it in a function (def)")
    if name in NAMED and NAMED[name].get(name_of(value), value) is not value:
        raise GLRError(f"{name} = {name_of(value)}: is the name of another in glr; rename yours")
    return tuple(values) if kind.many else value
