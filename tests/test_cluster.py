"""Runs on a Dask cluster: scheduler and workers are other processes, in folders of their own.

They are started by docs/recipes.md's lines, and nothing of the project is in their environment.
"""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
from processes import assert_same_run, command_lines_with, run, saved

from glr.errors import GLRError
from glr.scripts.constants import ROOT
from glr.study import cluster as clusters
from glr.study import runs as study

distributed = pytest.importorskip("distributed")

RECIPES = (ROOT / "docs" / "recipes.md").read_text("utf-8")
HOST = "tcp://host:8786"  # as the recipes have it
SCHEDULER, WORKER = (
    shlex.split(line, comments=True) for line in re.findall("^dask .*", RECIPES, re.M)
)


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/cmdline").exists(), reason="no /proc to look at"
)


class Processes:
    """A scheduler without workers, and what it takes to add some; all are killed at the end."""

    def __init__(self, folder):
        self.folder, self.started = folder, []
        note = folder / "scheduler.json"
        here = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(note)]
        self.scheduler = self.start([*SCHEDULER, *here], "scheduler")
        while not note.exists():
            assert self.scheduler.poll() is None
            time.sleep(0.1)
        with distributed.Client(scheduler_file=str(note)) as client:
            self.address = client.scheduler.address

    def start(self, words, name, **env):
        """The process of a line of the recipes in a new folder, the first of its session."""
        dask = str(Path(sys.executable).with_name("dask"))
        home = self.folder / name
        home.mkdir()
        blas = {name: os.environ[name] for name in os.environ if name.startswith("OPENBLAS_")}
        env = {"PATH": os.environ["PATH"], "HOME": str(home), **blas, **env}  # to the same last bit
        self.started.append(
            subprocess.Popen(
                [dask, *words[1:], "--no-dashboard"],
                cwd=home,
                env=env,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        return self.started[-1]

    def add_worker(self, name, **env):
        """A worker with two threads, once the scheduler has it."""
        words = [word.replace(HOST, self.address) for word in WORKER]
        with distributed.Client(self.address) as client:
            n = len(client.nthreads())
            worker = self.start([*words, "--nthreads", "2", "--name", name], name, **env)
            client.wait_for_workers(n + 1)
        return worker

    def end(self):
        for process in self.started:
            kill(process)


def kill(process):
    """Kill the process and those that it has started in its session, but for runs of scripts."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two workers and their scheduler."""
    processes = Processes(tmp_path_factory.mktemp("cluster"))
    processes.add_worker("one")
    processes.add_worker("two")
    yield processes
    processes.end()


@pytest.fixture
def lone_scheduler(tmp_path):
    processes = Processes(tmp_path)
    yield processes
    processes.end()


def constants(folder, address, **changes):
    """The constants of a study on the cluster, with models in the folder."""
    values = {
        "SEEDS": 1,
        "PROCESSES": 1,
        "DASK": address,
        "DATA_DIR": Path("data"),
        "FORMAT": "png",
    }
    return SimpleNamespace(**{**values, "MODELS_DIR": folder, **changes})


def train(chosen, script, flags="--steps 20", dataset="digits"):
    """Train a network on the cluster; its tasks."""
    tasks = study.tasks(chosen, {"LRS": (str(script), flags)}, [dataset])
    study.train_missing(tasks, chosen)
    return tasks


def test_readme_s_lines_train_on_the_workers_what_is_trained_here(cluster, tmp_path):
    (line,) = re.findall(f"^python (.*{HOST}.*)", RECIPES, re.MULTILINE)
    script, *words = shlex.split(line.replace(HOST, cluster.address))
    words[words.index("--seeds") + 1] = "1"
    words += ["LRS.py --steps 40", "LRT.py --steps 30 --noise laplace"]
    env = {**os.environ, "GLR_RESULTS_DIR": str(tmp_path)}
    for place, more in (("there", []), ("here", ["--dask", ""])):
        models = ["--models-dir", place]
        ran = run(Path(script).name, *words, *more, *models, cwd=tmp_path, env=env)
        assert ran.returncode == 0, ran.stderr
        assert [line.partition(":")[0] for line in ran.stderr.splitlines()] == [
            f"trained {n}/2" for n in (1, 2)
        ]
    for variant in ("LRS--steps-40", "LRT--steps-30--noise-laplace"):
        name = f"{variant}_digits_seed0_validation"
        assert_same_run(tmp_path / "here" / "compare", tmp_path / "there" / "compare", name)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with data and a script of one's own, with modules beside it; we are in it."""
    rng = np.random.default_rng(0)
    x, y = rng.random((60, 4), np.float32), np.arange(60) % 2
    (tmp_path / "d").mkdir()
    np.savez(tmp_path / "d" / "own.npz", x=x, y=y)
    table = [
        f"{','.join(map(str, row))},{'no' if k else 'yes'}" for row, k in zip(x, y, strict=True)
    ]
    (tmp_path / "d" / "table.csv").write_text("\n".join(["a,b,c,d,label", *table]))
    script = (ROOT / "Train&Test" / "LRS.py").read_text()
    (begin, _, rest) = script.partition("    sys.path.insert(0, ")
    script = begin + rest.partition("\n")[2]  # as of a script that relies on an install
    functions = "from helper import ramp\nfrom parts.losses import margin\n\n# ----"
    (tmp_path / "my.py").write_text(script.replace("# ----", functions, 1))
    (tmp_path / "helper.py").write_text("def ramp(v):\n    return v.clip(0, 1)\n")
    (tmp_path / "parts").mkdir()
    loss = """
        import numpy as np

        def margin(logits, y):
            return (logits > logits[..., y, np.arange(len(y))][..., None, :]).sum(axis=-2)
        """
    (tmp_path / "parts" / "losses.py").write_text(textwrap.dedent(loss))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("dataset", ["d/own.npz", "d/table.csv"])
def test_data_and_code_of_one_s_own_travel(dataset, cluster, own, capsys):
    chosen = constants(own / "models", cluster.address)
    flags = "--steps 20 --hidden 5"
    (task,) = train(chosen, own / "my.py", flags, dataset)
    _, metadata = saved(task.path)
    assert metadata["constants"]["DATASET"] == dataset
    assert "OWN_DATA" not in metadata["constants"]
    again = constants(own / "models", "", PROCESSES=0)  # which trains nothing
    train(again, own / "my.py", flags, dataset)
    capsys.readouterr()
    like = f"--like {task.path.relative_to(own)} --seed 0"
    (task,) = train(constants(own / "like", cluster.address), own / "my.py", like, dataset)
    assert_same_run(own / "models", own / "like", task.path.stem)


def test_what_a_run_cannot_do_there_is_said_as_here(cluster, own):
    chosen = constants(own / "models", cluster.address)
    with pytest.raises(
        GLRError, match=r"^LRS.py .* --sigma 0: sigma = \(0.0,\): every layer needs"
    ):
        train(chosen, "LRS.py", "--sigma 0")
    with pytest.raises(GLRError, match=r"^d/none.npz: cannot be read .No such file"):
        train(chosen, "LRS.py", dataset="d/none.npz")
    (own / "d" / "bad.csv").write_text("a,b\n")
    with pytest.raises(GLRError, match=r"^LRS.py .*: own/bad.csv: "):
        train(chosen, "LRS.py", dataset="d/bad.csv")


def test_every_run_arrives_once_though_a_worker_is_killed(cluster, tmp_path, monkeypatch):
    worker, kept, keep = cluster.add_worker("three"), [], study.keep

    def keep_and_kill(files, folder):
        kept.append(sorted(files)[1])
        kill(worker)
        keep(files, folder)

    monkeypatch.setattr(study, "keep", keep_and_kill)
    train(constants(tmp_path, cluster.address, SEEDS=4), "LRS.py", "--steps 400 --replicates 4")
    assert sorted(kept) == [f"LRS_digits_seed{seed}.npz" for seed in range(4)]


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_client_that_is_ended_leaves_nothing_computing(number, cluster, tmp_path):
    steps = f"{10**9 + os.getpid()}{number}"
    words = [sys.executable, str(ROOT / "Train&Test" / "compare.py"), "--dataset", "digits"]
    words += ["--validation", "100", "--models-dir", str(tmp_path), "--dask", cluster.address]
    with subprocess.Popen([*words, f"LRS.py --steps {steps}"]) as process:
        while not command_lines_with(f"--steps\0{steps}"):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(number)
    assert process.returncode == (130 if number == signal.SIGTERM else -number)
    while command_lines_with(f"--steps\0{steps}"):
        time.sleep(0.1)


@needs_proc
def test_a_cluster_that_cannot_serve_says_so(lone_scheduler, tmp_path, monkeypatch):
    address = lone_scheduler.address
    chosen = constants(tmp_path / "models", address)
    with pytest.raises(GLRError, match=f"{address}: no worker is there; .* dask worker {address}"):
        train(chosen, "LRS.py")
    (tmp_path / "bare").mkdir()
    lack = "raise ModuleNotFoundError(\"No module named 'numpy'\")\n"
    (tmp_path / "bare" / "numpy.py").write_text(lack)
    bare = lone_scheduler.add_worker("bare worker", PYTHONPATH=str(tmp_path / "bare"))
    with pytest.raises(GLRError, match=r"^LRS.py .*: No module named 'numpy'; run pip install"):
        train(chosen, "LRS.py")
    kill(bare)
    with distributed.Client(address) as client:
        while client.nthreads():
            time.sleep(0.1)
    lone_scheduler.add_worker("good")

    steps, keep = f"{10**9 + os.getpid()}", study.keep

    def keep_and_kill(files, folder):
        keep(files, folder)
        while not command_lines_with(f"--steps\0{steps}"):
            time.sleep(0.1)
        kill(lone_scheduler.scheduler)

    monkeypatch.setattr(study, "keep", keep_and_kill)
    with pytest.raises(GLRError, match="the scheduler is gone; what is trained is kept"):
        networks = {"short": ("LRS.py", "--steps 20"), "long": ("LRS.py", f"--steps {steps}")}
        study.train_missing(study.tasks(chosen, networks, ["digits"]), chosen)
    assert [path.name for path in chosen.MODELS_DIR.glob("*.npz")] == ["short_digits_seed0.npz"]
    while command_lines_with(f"--steps\0{steps}"):
        time.sleep(0.1)


class Page(BaseHTTPRequestHandler):
    """A web server's answer."""

    def do_GET(self):
        self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def others():
    """The ports of what is no scheduler: a web server, and what never says a word."""
    with (
        HTTPServer(("127.0.0.1", 0), Page) as server,
        socket.create_server(("127.0.0.1", 0)) as mute,
    ):
        Thread(target=server.serve_forever, daemon=True).start()
        yield {"web": server.server_port, "mute": mute.getsockname()[1]}
        server.shutdown()


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:9",
        "nonsense",
        ":",
        "tcp://",
        "ucx://127.0.0.1:9",
        "inproc://a/1/2",
        "tcp://127.0.0.1:{web}",
        "http://127.0.0.1:{web}",
        "tcp://127.0.0.1:{mute}",
        "{worker}",
    ],
)
def test_an_address_without_a_scheduler_is_one_clear_error(
    address, cluster, others, tmp_path, monkeypatch
):
    with distributed.Client(cluster.address) as client:
        worker = next(iter(client.nthreads()))
    address = address.format(**others, worker=worker)
    monkeypatch.setattr(clusters, "PATIENCE", 1)
    with pytest.raises(
        GLRError, match=r"^DASK = .*: no scheduler answers there .*as tcp://host:8786$"
    ):
        train(constants(tmp_path, address), "LRS.py")


def test_a_worker_of_another_python_is_named():
    here, other = "{}.{}.1".format(*sys.version_info), "3.8.1"
    found = {"tcp://a": here, "tcp://b": other}
    workers = {place: {"host": {"python": python}} for place, python in found.items()}
    versions = {"scheduler": {"host": {"python": here}}, "workers": workers}
    client = SimpleNamespace(
        scheduler=SimpleNamespace(address="tcp://s"),
        get_versions=lambda: versions,
        wait_for_workers=lambda *_, **__: None,
    )
    with pytest.raises(GLRError, match=r"tcp://s: tcp://b has Python 3\.8\.1; start it with "):
        clusters.check_workers(client)
