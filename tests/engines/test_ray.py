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

from plasticity_jax.execution.engines import ray as ray_
from plasticity_jax.storage import table as table_

ROOT = pathlib.Path(__file__).parents[2]


def test_options_are_numbers_and_ray_is_needed(monkeypatch):
    monkeypatch.setattr(ray_, "_ray", lambda: None)
    ray_.check({"num_gpus": "0.5"})
    with pytest.raises(ValueError, match=r"ray\.num_gpus is 'all': allowed are numbers"):
        ray_.check({"num_gpus": "all"})
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="Ray is not installed: allowed with the extra ray"):
        ray_.check({})


@pytest.mark.faults
@pytest.mark.slow
def test_a_killed_slice_is_sent_again(tmp_path):
    """To the table of one process, to the bit."""
    pytest.importorskip("ray")
    data = tiny.arrays(tmp_path / "data")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "PLASTICITY_CACHE_DIR": str(tmp_path / "cache")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    words = command(tmp_path / "run", data, "--engine=ray", "--slice=1", "--lane_width=1")
    run = subprocess.Popen(words, env=env, **pipes)
    os.kill(wait_for(tmp_path / "run")[0], signal.SIGKILL)
    code, _, err = finish(run)
    assert code == 0, err
    assert "it is sent again" in err
    code, _, err = finish(subprocess.Popen(command(tmp_path / "one", data), env=env, **pipes))
    assert code == 0, err
    found, whole = (table_.read(tmp_path / n / "results.parquet") for n in ("run", "one"))
    pd.testing.assert_frame_equal(found, whole, check_exact=True)
