"""Ray's engine, where Ray is installed: what is refused, and slices that are killed."""

import os
import pathlib
import signal
import subprocess
import sys

import pandas as pd
import pytest
from helpers import tiny
from helpers.processes import command, finish, wait_for

from plasticity_jax.execution.engines import local
from plasticity_jax.execution.engines import ray as ray_
from plasticity_jax.storage import table as table_

ROOT = pathlib.Path(__file__).parents[2]
# Ray starts its own processes by a fork that goes on as another program at once, of which jax warns
# where a test before has begun its threads
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")


def test_options_are_numbers_and_ray_is_needed(monkeypatch):
    monkeypatch.setattr(ray_, "_ray", lambda: None)
    ray_.check({"num_gpus": "0.5"})
    with pytest.raises(ValueError, match=r"ray\.num_gpus is 'all': allowed are numbers"):
        ray_.check({"num_gpus": "all"})
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="Ray is not installed: allowed with the extra ray"):
        ray_.check({})


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


SLICES = ("--engine=ray", "--slice=1", "--lane_width=1")


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
