"""Deep and wide networks: which are trained, and the table of what they reached."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from types import SimpleNamespace
from typing import NamedTuple

from glr.errors import GLRError
from glr.robustness.tables import MATCHED, difference, mean_and_spread
from glr.storage.models import layers_and_metadata
from glr.study.runs import Task, study_networks, tasks


class Network(NamedTuple):
    """A network of study.py, by name, on a data set, with other hidden layers and flags."""

    dataset: str
    hidden: str  # neurons of each layer, joined by "-"
    name: str
    flags: str


def networks_of(variants: Iterable[str]) -> list[Network]:
    """The networks that variants describe, as "mnist 200-200 LRT --sigma 0.5".

    Raises GLRError for a variant of fewer than three words, or a network that is there twice.
    """
    found = {}
    for variant in variants:
        place, flags = tuple(variant.split()[:3]), variant.split()[3:]
        if len(place) < 3:
            raise GLRError(f"VARIANTS: {variant!r} is none; give data, hidden neurons, name, flags")
        if place in found:
            raise GLRError(f"VARIANTS: {' '.join(place)} is there twice; leave one out")
        found[place] = Network(*place, " ".join(flags))
    return list(found.values())


def runs_of(network: Network, constants: SimpleNamespace) -> list[Task]:
    """The network's runs, one for every seed; the GLR scripts' by JAX."""
    (script, flags), *_ = study_networks([network.name], network.dataset).values()
    by_jax = "" if script == "BP.py" else "--backend jax"
    hidden, held_out = network.hidden.replace("-", " "), f"--validation {constants.VALIDATION}"
    words = f"{flags} --hidden {hidden} {by_jax} {held_out} {network.flags}"
    named = {f"{network.name}-{network.hidden}": (script, words)}
    return tasks(constants, named, [network.dataset])


def depth_lines(runs: dict[Network, list[Task]], where: str) -> list[list[str]]:
    """What each network reached, and what it did less its matched control there; a header first.

    where : "validation" or "test", which samples the accuracies are of
    """
    reached = {network: metrics_of(own) for network, own in runs.items()}
    accuracies = {n[:3]: [100 * m[f"{where}_accuracy"] for m in reached[n]] for n in reached}
    lines = [["data", "hidden", "script", "flags", f"{where} accuracy (%)", "less", "p", "s"]]
    for network, metrics in reached.items():
        ours = accuracies[network[:3]]
        theirs = accuracies.get((*network[:2], MATCHED.get(network.name)), [])
        compared = difference(ours, theirs) if len(theirs) > 1 else ("", "")
        flags = f"`{network.flags}`" if network.flags else ""
        seconds = f"{fmean(m['seconds'] for m in metrics):.0f}"
        lines.append([*network[:3], flags, mean_and_spread(ours), *compared, seconds])
    return lines


def metrics_of(runs: Iterable[Task]) -> list[dict]:
    """What each finished run's model says that it reached."""
    return [layers_and_metadata(task.path)[1]["metrics"] for task in runs]
