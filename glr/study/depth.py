"""Deep and wide networks: which are trained, and the table of what they reached."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from glr.errors import GLRError
from glr.network import accuracy, threshold
from glr.robustness.averaging import predictor
from glr.robustness.tables import ADVERSARIAL, MATCHED, difference, mean_and_spread
from glr.scripts.console import progress_bar
from glr.scripts.constants import constants_of
from glr.scripts.records import evaluated_on
from glr.scripts.run import load_data, run_generator
from glr.storage.models import load_model
from glr.study.runs import Task, study_networks, tasks
from glr.study.variants import accuracy_of
from glr.study.whitebox import COLUMNS, measured_rows, table_lines

WHITEBOX = "../RobustnessTest/whitebox.py"  # from the folder of the training scripts


class Network(NamedTuple):
    """A network of study.py, by name, on a data set, with other hidden layers and flags."""

    dataset: str
    hidden: str  # neurons of each layer, joined by "-"
    name: str
    flags: str


def networks_of(variants: Iterable[str]) -> list[Network]:
    """The networks that variants describe, as "mnist 200-200 LRT,ST+L2C --sigma 0.5".

    A control is without the flags that are the estimator's alone. Raises GLRError for a
    variant of fewer than three words, or a network that is there twice.
    """
    found = {}
    for variant in variants:
        if len(variant.split()) < 3:
            raise GLRError(f"VARIANTS: {variant!r} is none; give data, hidden neurons, name, flags")
        dataset, hidden, names, *words = variant.split()
        for name in names.split(","):
            place, flags = (dataset, hidden, name), " ".join(words)
            if place in found:
                raise GLRError(f"VARIANTS: {' '.join(place)} is there twice; leave one out")
            if name in MATCHED.values():
                flags = re.sub(r" ?--(local-differences|replicates) \S+", "", flags).strip()
            found[place] = Network(*place, flags)
    return list(found.values())


def runs_of(network: Network, constants: SimpleNamespace) -> list[Task]:
    """The network's runs, one for every seed, by JAX."""
    (script, flags), *_ = study_networks([network.name], network.dataset).values()
    hidden, held_out = network.hidden.replace("-", " "), f"--validation {constants.VALIDATION}"
    words = f"{flags} --hidden {hidden} --backend jax {held_out} {network.flags}"
    named = {f"{network.name}-{network.hidden}": (script, words)}
    return tasks(constants, named, [network.dataset])


def depth_lines(runs: dict[Network, list[Task]], constants: SimpleNamespace) -> list[list[str]]:
    """What each network reached, and what it did less its matched control there; a header first."""
    where = evaluated_on(constants)
    reached = {n[:3]: [accuracy_of(task, where) for task in own] for n, own in runs.items()}
    header = ["network", "script", "flags", f"{where} accuracy (%)", "less", "p"]
    lines = [[*header, "mean of passes"]]
    for network, own in progress_bar(runs.items(), "noisy passes"):
        ours = reached[network[:3]]
        theirs = reached.get((*network[:2], MATCHED.get(network.name)), [])
        compared = difference(ours, theirs) if len(theirs) > 1 else ("", "")
        by_mean = mean_and_spread(averaged_accuracies(own, constants))
        flags = f"`{network.flags}`" if network.flags else ""
        what = [f"{network.dataset} {network.hidden}", network.name, flags]
        lines.append([*what, mean_and_spread(ours), *compared, by_mean])
    return lines


@np.errstate(over="ignore")  # of bits that are sure
def averaged_accuracies(runs: Iterable[Task], constants: SimpleNamespace) -> list[float]:
    """In percent, of threshold networks that predict by the mean logits of noisy passes; or []."""
    found, passes = [], constants.PREDICTION_PASSES
    for task in runs if passes else []:
        model = load_model(task.path)
        if model.network.activation is threshold:
            own = constants_of(task.script, [*task.flags, "--data-dir", str(constants.DATA_DIR)])
            data, rng = load_data(own), run_generator(task.seed)
            logits = predictor(model, passes, rng).logits(data.x_test)
            found.append(100 * accuracy(logits, data.y_test))
    return found


def attack_tables(
    runs: dict[Network, list[Task]], constants: SimpleNamespace
) -> list[list[list[str]]]:
    """What whitebox.py finds of networks that are trained adversarially, a table a data set."""
    paths = defaultdict(list)
    for network, own in runs.items():
        if network.name.endswith(ADVERSARIAL):
            paths[network.dataset] += [str(task.path) for task in own]
    tables = []
    for dataset, models in paths.items():
        places = ["--data-dir", str(constants.DATA_DIR), "--processes", str(constants.PROCESSES)]
        rows = measured_rows(constants_of(WHITEBOX, ["--models", *models, *places]), dataset)
        tables.append([[f"{dataset}, attacked", *COLUMNS], *table_lines(rows, COLUMNS)])
    return tables
