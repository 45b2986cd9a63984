"""Runs on a Dask cluster: what a run reads travels to the workers, and what it writes comes back.

Workers need the client's Python and the packages of requirements.txt and requirements-cluster.txt.
"""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from glr.data.datasets import SHIPPED
from glr.data.idx import IDX_BYTES, idx_path
from glr.errors import GLRError
from glr.scripts.constants import LIKE, ROOT, SCRIPTS
from glr.study import processes

if TYPE_CHECKING:
    from distributed import Client, Future

    from glr.study.runs import Task

PATIENCE = 6  # seconds without a scheduler, or without a worker


def outcomes_on_cluster(
    wanted: Sequence[Task], constants: SimpleNamespace
) -> Iterator[tuple[Task, processes.Outcome]]:
    """Each task as soon as it is done, and what came of it, by the workers of the scheduler DASK.

    Raises GLRError if it is not there, or has no worker. If workers go, others do what they had.
    """
    with connected(constants.DASK) as client:
        from distributed import as_completed  # noqa: PLC0415

        check_workers(client)
        runs = submitted(client, wanted, constants.DATA_DIR)
        for run in as_completed(runs, loop=client.loop):
            # Of a worker that is killed, a run has an error only after others were killed by it.
            says = one_line(run.exception()) if run.status == "error" else ""
            yield runs[run], ({}, says) if says else run.result()


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """A client of the scheduler there; GLRError if there is none, or it goes in the middle."""
    try:
        import cloudpickle  # noqa: PLC0415  (all are optional: requirements-cluster.txt)
        from dask import config  # noqa: PLC0415
        from distributed import CancelledError, Client  # noqa: PLC0415
    except ImportError as error:
        raise GLRError("DASK: run pip install -r requirements-cluster.txt first") from error
    logging.disable()  # what goes wrong is one line, and ours
    warnings.filterwarnings("ignore", module="distributed")  # of other versions: workers are tried
    cloudpickle.register_pickle_by_value(processes)  # workers have no glr
    check_scheduler(address)
    try:
        with (
            Client(address, timeout=PATIENCE, set_as_default=False) as client,
            config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}),
        ):
            yield client
    except (CancelledError, OSError) as error:
        how = "what is trained is kept, and is not repeated when you start it again"
        raise GLRError(f"DASK = {address}: the scheduler is gone; {how}") from error


def check_scheduler(address: str) -> None:
    """Raise GLRError unless a scheduler answers within PATIENCE; a Client may wait for ever."""
    from distributed import Security, rpc  # noqa: PLC0415

    async def kind() -> str:
        async with rpc(address, connection_args=Security().get_connection_args("client")) as there:
            return (await there.identity())["type"]

    try:
        found = f"but a {asyncio.run(asyncio.wait_for(kind(), PATIENCE))}"
    except Exception as error:  # of what is no part of Dask, too
        found = one_line(error)
    if found != "but a Scheduler":
        how = "give the address that dask scheduler prints, as tcp://host:8786"
        raise GLRError(f"DASK = {address}: no scheduler answers there ({found}); {how}")


def one_line(error: Exception) -> str:
    """What the error says, or what it is."""
    return " ".join(str(error).split()) or type(error).__name__


def check_workers(client: Client) -> None:
    """Raise GLRError if there is no worker within PATIENCE, or one that our functions crash."""
    from distributed import TimeoutError as LateError  # noqa: PLC0415  (Python 3.10 has two)

    address = client.scheduler.address
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except LateError as error:
        how = f"start one or more: dask worker {address}"
        raise GLRError(f"DASK = {address}: no worker is there; {how}") from error
    versions, here = client.get_versions(), "{}.{}".format(*sys.version_info)
    for place, found in {address: versions["scheduler"], **versions["workers"]}.items():
        python = found["host"]["python"]
        if not python.startswith(f"{here}."):
            how = f"start it with {here}, as here"
            raise GLRError(f"DASK = {address}: {place} has Python {python}; {how}")


def submitted(client: Client, wanted: Sequence[Task], data_dir: Path) -> dict[Future, Task]:
    """The tasks by their futures; what several of them read goes out once."""

    @cache
    def sent(files: Callable[..., Mapping[str, Path]], *arguments: object) -> Future:
        return client.submit(bytes, archive(files(*arguments)), pure=False)  # never lost for good

    def unnamed(*given: object) -> processes.Outcome:  # a module's is sent by its name alone
        return processes.outcome_away(*given)

    runs = {}
    for task in wanted:
        words = [f"Train&Test/{Path(task.script).name}", *task.flags, "--data-dir", "data"]
        archives = [sent(code_files, task.script), sent(data_files, task.dataset, data_dir)]
        like = LIKE.parse_known_args(task.flags)[0].like
        if like:
            archives.append(archive({"like.npz": like}))
            words += ["--like", "like.npz"]
        if task.dataset not in SHIPPED:
            words += ["--own-data", *data_files(task.dataset, data_dir)]
        runs[client.submit(unnamed, archives, words, pure=False)] = task
    return runs


def code_files(script: str) -> dict[str, Path]:
    """glr, the script and the modules beside it, one folder down too, by where they go."""
    folder = (SCRIPTS / script).parent
    beside = [path for level in ("*.py", "*/*.py") for path in folder.glob(level) if path.is_file()]
    glr = [path for path in (ROOT / "glr").rglob("*") if path.suffix in (".py", ".json")]
    return {path.relative_to(ROOT).as_posix(): path for path in glr} | {
        f"Train&Test/{path.relative_to(folder).as_posix()}": path for path in beside
    }


def data_files(dataset: str, data_dir: Path) -> dict[str, Path]:
    """The files of a data set by where they go; those of MNIST are downloaded if need be."""
    if dataset == "digits":  # workers have scikit-learn
        return {}
    if dataset not in SHIPPED:
        return {f"own/{Path(dataset).name}": Path(dataset)}
    folder = data_dir / dataset
    return {f"data/{dataset}/{name}": idx_path(dataset, name, folder) for name in IDX_BYTES}


def archive(files: Mapping[str, Path]) -> bytes:
    """The files as a zip, by their names in it; GLRError if one cannot be read."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", strict_timestamps=False) as file:
        for name, path in files.items():
            try:
                file.write(path, name)
            except OSError as error:
                raise GLRError(f"{path}: cannot be read ({error.strerror})") from error
    return packed.getvalue()
