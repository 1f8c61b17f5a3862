"""Ray's engine, where Ray is installed: what is refused, and slices that are killed."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import types

import pandas as pd
import pytest
from helpers import tiny
from helpers.processes import command, finish, wait_for

from plasticity_jax.cli import commands, launcher, slicing
from plasticity_jax.execution import engines
from plasticity_jax.execution.engines import local
from plasticity_jax.execution.engines import ray as ray_
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import workdir

ROOT = pathlib.Path(__file__).parents[3]
# Ray starts its own processes by a fork that goes on as another program at once, of which jax warns
# where a test before has begun its threads
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")


SLICES = ("--engine=ray", "--slice=1", "--lane_width=1")
OPTIONS = [
    ("num_cpu=1", r"is given: allowed are ray\.num_cpus, ray\.num_gpus, ray\.memory, and ray\.res"),
    ("max_retries=3", "is given: allowed are "),
    ("name=1", "is given: allowed are "),
    ("num_returns=1", "is given: allowed are "),
    ("resources.=1", "is given: allowed are "),
    ("resources.CPU=1", "is given: allowed are "),
    ("num_gpus=all", "is 'all': allowed are 0 and numbers from 0.0001 to 1e+14"),
    ("num_cpus=inf", "is 'inf': allowed are 0 and numbers"),
    ("num_cpus=nan", "is 'nan': allowed are 0 and numbers"),
    ("num_cpus=-1", "is '-1': allowed are 0 and numbers"),
    ("memory=1e15", "is '1e15': allowed are 0 and numbers"),
    ("resources.mine=1e-9", "is '1e-9': allowed are 0 and numbers"),
    ("num_gpus=1.5", "is '1.5': allowed are parts of 1 and whole numbers"),
]


@pytest.mark.parametrize(("given", "said"), OPTIONS)
def test_options_are_quantities_of_resources(given, said, monkeypatch):
    monkeypatch.setattr(ray_, "_ray", lambda: None)
    name, _, value = given.partition("=")
    with pytest.raises(ValueError, match=rf"^ray\.{name} {said.replace('+', '[+]')}.*\.$"):
        ray_.check({name: value})
    fine = {"num_gpus": "0.5", "num_cpus": "4", "memory": "1e9", "resources.mine": "1"}
    assert ray_._needs(fine) == {name: float(value) for name, value in fine.items()}


def test_an_address_is_that_of_a_cluster(monkeypatch):
    monkeypatch.setattr(ray_, "_ray", lambda: None)
    met = []
    connected = types.SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(
        ray_.socket, "create_connection", lambda where, _: met.append(where) or connected
    )
    for address in ("", "auto", "local", "head:6379", "ray://10.0.0.1:10001", "[::1]:6379"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        ray_.check({})
    assert met == [("head", 6379), ("10.0.0.1", 10001), ("::1", 6379)]
    for address in ("nonsense", "head:", "head:99999", "http://head:8265", "head:x"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(
            ValueError, match=rf"^RAY_ADDRESS is '{address}': allowed are HOST:PORT"
        ):
            ray_.check({})


def test_an_address_where_nobody_answers_is_one_sentence(monkeypatch):
    monkeypatch.setattr(ray_, "_ray", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        ray_.check({})
    with pytest.raises(
        workdir.WorkdirError, match=rf"^there is no Ray .* {address} \(Connection ref"
    ):
        ray_.check({})


def test_ray_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="Ray is not installed: allowed with the extra ray"):
        ray_.check({})


def test_a_command_line_is_refused_before_anything_is_written(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(ray_, "_ray", lambda: None)
    monkeypatch.setattr(launcher, "prepare_jax", lambda *_: None)  # (for processes of their own)
    monkeypatch.setattr(slicing, "prepare", lambda values: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    data, folder = tiny.arrays(tmp_path / "data"), tmp_path / "run"
    words = command(folder, data, *SLICES, "--ray.max_retries=3")
    assert commands.main(words[words.index("run") :]) == 2
    assert capfd.readouterr().err.startswith("error: ray.max_retries is given: allowed are ")
    assert not folder.exists()

    def late(*_, **__):
        raise ValueError("what only the scheduler could tell.")

    monkeypatch.setattr(launcher.sliced, "run_in_slices", late)
    assert commands.main(words[words.index("run") : -1]) == 2
    assert capfd.readouterr().err == "error: what only the scheduler could tell.\n"


class Stand:
    """In place of Ray: a cluster of one node, or none."""

    exceptions = types.SimpleNamespace(RayError=type("RayError", (Exception,), {}))

    def __init__(self, resources, fault=None):
        self._resources, self._fault = resources, fault
        self.asked = {}

    def init(self, **_):
        if self._fault:
            raise self._fault

    def nodes(self):
        return [{"Alive": True, "Resources": self._resources}, {"Alive": False, "Resources": {}}]

    def remote(self, **asked):
        self.asked = asked
        return lambda function: function

    def shutdown(self):
        pass


def options(tmp_path, passed, told=None):
    tell = (lambda line: None) if told is None else told.append
    given = (tmp_path, 0, "", (), passed, lambda: None, tell, workdir.Stop())
    return engines.Options(*given)


@pytest.mark.parametrize(
    "fault", [ConnectionError("gone.\nMore"), ValueError("gone"), RuntimeError("gone")]
)
def test_ray_that_does_not_start_is_one_sentence(fault, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_, "_ray", lambda: Stand({}, fault))
    with pytest.raises(workdir.WorkdirError, match=r"^Ray does not start \(gone\)\.$"):
        ray_.run([], options(tmp_path, {}))
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(workdir.WorkdirError, match=r"^Ray cannot be reached at head:6379 \(gone\)"):
        ray_.run([], options(tmp_path, {}))


def test_more_than_a_cluster_has_is_told_or_refused(tmp_path, monkeypatch):
    """A cluster may get nodes; one that is started here does not."""
    ray = Stand({"CPU": 2.0, "memory": 5e9, "mine": 1.0})
    monkeypatch.setattr(ray_, "_ray", lambda: ray)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    passed, told = {"num_cpus": "2", "resources.mine": "1"}, []
    ray_.run([], options(tmp_path, passed, told))
    assert told == []
    assert ray.asked == {"max_retries": 0, "num_cpus": 2.0, "resources": {"mine": 1.0}}
    for name, asked, most in (("num_cpus", 1000, 2), ("num_gpus", 1, 0), ("resources.your", 1, 0)):
        said = f"ray.{name} is {asked}, but no node of the cluster has more than {most}"
        monkeypatch.setenv("RAY_ADDRESS", "head:6379")
        told.clear()
        ray_.run([], options(tmp_path, {name: str(asked)}, told))
        assert told == [f"note: {said}, so that slices wait until one has."]
        monkeypatch.delenv("RAY_ADDRESS")
        with pytest.raises(workdir.WorkdirError, match=rf"^{said}: allowed is what"):
            ray_.run([], options(tmp_path, {name: str(asked)}, told))


def test_slices_of_a_node_share_its_cores(tmp_path, monkeypatch):
    """Each has as many as it asks for, for itself; none is bound where they are too few."""
    monkeypatch.setattr(ray_.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(local, "cores", lambda: [3, 5, 8])
    with ray_._cores(2) as first, ray_._cores(1) as second, ray_._cores(1) as third:
        assert (first, second, third) == ([3, 5], [8], [])
    with ray_._cores(2) as first, ray_._cores(2) as second:
        assert (first, second) == ([3, 5], [])
        with ray_._cores(1) as third:  # (what was too little is free again)
            assert third == [8]
    with ray_._cores(0) as none:
        assert none == []
    # a node that keeps no files binds none
    monkeypatch.setattr(ray_.tempfile, "gettempdir", lambda: str(tmp_path / "nowhere"))
    with ray_._cores(1) as none:
        assert none == []


@pytest.mark.parametrize("count", [0, 1])
def test_a_slice_is_told_its_cores(count, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(local, "cores", lambda: [3])
    words = [sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(7)"]
    assert ray_._code(words, str(tmp_path), str(tmp_path / "log.txt"), count) == 7
    told = [f"--parent={os.getpid()}", "--cores=3"][: 1 + count]
    assert (tmp_path / "log.txt").read_text().strip() == str(told)


def begin(folder, data, tmp_path, *more, **env):
    """Starts a run and returns its process."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "PLASTICITY_CACHE_DIR": str(tmp_path / "cache"), **env}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(folder, data, *more), env=env, **pipes)


def check_same(data, tmp_path, *more):
    """To the table of one process, to the bit."""
    code, _, err = finish(begin(tmp_path / "one", data, tmp_path, *more))
    assert code == 0, err
    found, whole = (table_.read(tmp_path / n / "results.parquet") for n in ("run", "one"))
    pd.testing.assert_frame_equal(found, whole, check_exact=True)


@pytest.mark.faults
@pytest.mark.slow
def test_a_killed_slice_is_sent_again(tmp_path):
    pytest.importorskip("ray")
    data = tiny.arrays(tmp_path / "data")
    run = begin(tmp_path / "run", data, tmp_path, *SLICES)
    os.kill(wait_for(tmp_path / "run")[0], signal.SIGKILL)
    code, _, err = finish(run)
    assert code == 0, err
    assert "it is sent again" in err
    check_same(data, tmp_path)


@pytest.mark.faults
@pytest.mark.slow
def test_slices_of_a_lost_node_go_on_elsewhere(tmp_path):
    """One of two raylets is killed while it runs a slice."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    data, folder, long = tiny.arrays(tmp_path / "data"), tmp_path / "run", "--tasks=100"
    small = {"object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
        run = begin(folder, data, tmp_path, *SLICES, long, RAY_ADDRESS=cluster.address)
        begun = wait_for(folder)
        if len(begun) < 2:  # one on each node
            wait_for(folder, besides=begun)
        cluster.remove_node(nodes[0], allow_graceful=False)
        code, _, err = finish(run)
        assert code == 0, err
        assert err.count("it is sent again") == 1
    finally:
        cluster.shutdown()
    check_same(data, tmp_path, long)
