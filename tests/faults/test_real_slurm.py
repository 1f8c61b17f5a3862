"""Jobs of a real SLURM that are disturbed: the table is that of one process, to the bit.

Skipped where no SLURM answers; one node that is also the controller is enough.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import time

import pandas as pd
import pytest
from helpers import processes, tiny

from plasticity_jax.execution.engines import worker
from plasticity_jax.storage import table as table_

pytestmark = [pytest.mark.faults, pytest.mark.slow]

TASKS = 60
LONG = 800  # which take longer than a minute


def called(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def answers():
    try:
        called("sinfo", "--noheader")
    except (OSError, AssertionError):
        pytest.skip("no SLURM answers")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.arrays(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def begin(data, environment):
    """Starts a run of two lanes."""

    def start(folder, *more):
        words = processes.command(folder, data, "--lane_width=1", f"--tasks={TASKS}", *more)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(words, env=environment, **pipes)

    return start


@pytest.fixture(scope="module")
def straight(begin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight") / "run"
    code, _, err = processes.finish(begin(folder))
    assert code == 0, err
    return table_.read(folder / "results.parquet")


def nothing(folder, job):
    pass


def killed(folder, job):
    os.kill(processes.wait_for(folder)[0], signal.SIGKILL)


def requeued(folder, job):
    called("scontrol", "requeue", job)


def preempted(folder, job):
    """By a job of a partition of higher priority that takes the whole node for some seconds."""
    words = ("--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 5")
    called("sbatch", "--parsable", *words)


def lost(folder, job):
    """The node: its daemon and all processes of jobs are killed at once, and it comes back."""
    node = called("squeue", "--noheader", f"--job={job}", "--format=%N")
    daemons = named("slurmd")
    if os.geteuid() or len(daemons) != 1:
        pytest.skip("the node is not one on this machine that may be ended")
    (daemon,) = daemons
    words = pathlib.Path(f"/proc/{daemon}/cmdline").read_bytes().decode().split("\0")[:-1]
    for process in (daemon, *named("slurmstepd"), *processes.wait_for(folder)):
        os.kill(process, signal.SIGKILL)
    try:
        called("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")
    finally:
        called(*words)
        # (refused where the node is back by itself)
        back = ("scontrol", "update", f"nodename={node}", "state=resume")
        subprocess.run(back, capture_output=True)


def named(name):
    """The processes of a program."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):  # (ended meanwhile)
            found += [int(path.parent.name)] if path.read_text().strip() == name else []
    return found


@pytest.mark.parametrize("disturb", [nothing, killed, requeued, preempted, lost])
def test_the_table_is_that_of_one_process(disturb, begin, straight, tmp_path):
    if disturb is preempted and "high" not in called("sinfo", "--noheader", "--format=%P"):
        pytest.skip("there is no partition called high that preempts others")
    folder = tmp_path / "my run"
    process = begin(folder, "--engine=slurm", "--slice=1")
    while process.poll() is None and not any(map(worker.tasks_done, homes(folder))):
        time.sleep(0.1)
    done = max(map(worker.tasks_done, homes(folder)), default=0)
    assert 0 < done < TASKS
    first = called("squeue", "--me", "--noheader", "--array", "--states=running", "--format=%i")
    disturb(folder, first.split()[0])
    code, _, err = processes.finish(process)
    assert code == 0, err
    found = table_.read(folder / "results.parquet")
    pd.testing.assert_frame_equal(found, straight, check_exact=True)
    tries = sum(log.read_text().count("stopped: ") for log in folder.glob("slices/*/log.txt"))
    print(f"after {done} tasks; {tries} stops; said: {err.strip()}")


@pytest.mark.parametrize("state", ["running", "pending"])
def test_a_job_that_the_user_takes_back_is_not_sent_again(state, begin, straight, tmp_path):
    """The other one goes on, and the same command then sends it."""
    folder = tmp_path / "run"
    # (both cores of the node for each, so that one waits)
    asked = ("--engine=slurm", "--slice=1", "--slurm.cpus-per-task=2")
    process = begin(folder, *asked)
    listed = ("squeue", "--me", "--noheader", "--array", f"--states={state}", "--format=%i")
    while process.poll() is None and not any(map(worker.tasks_done, homes(folder))):
        time.sleep(0.1)
    job = called(*listed).split()[0]
    called("scancel", job)
    code, _, err = processes.finish(process)
    assert code == 1, err
    assert "(its job was cancelled): 1 of 2 slices are done" in err
    assert "is sent again" not in err
    assert err.count(" are sent as job ") == 1
    code, _, err = processes.finish(begin(folder, *asked))
    assert code == 0, err
    found = table_.read(folder / "results.parquet")
    pd.testing.assert_frame_equal(found, straight, check_exact=True)


def test_slices_save_before_their_time_limit_and_go_on(begin, tmp_path):
    """A minute of work in each try, after which SLURM waits two: this may take ten minutes."""
    folder, many = tmp_path / "my run", f"--tasks={LONG}"
    limits = ("--slurm.time=3", "--slurm.signal=B:USR1@120")
    for process in (
        begin(tmp_path / "straight", many),
        begin(folder, many, "--engine=slurm", "--slice=1", *limits),
    ):
        _, err = process.communicate(timeout=3600)
        assert process.returncode == 0, err
    found, straight = (
        table_.read(one / "results.parquet") for one in (folder, tmp_path / "straight")
    )
    pd.testing.assert_frame_equal(found, straight, check_exact=True)
    stops = sum(log.read_text().count("stopped: ") for log in folder.glob("slices/*/log.txt"))
    print(f"{stops} stops")
    if not stops:
        pytest.skip("all tasks were done before the limit")


def homes(folder):
    return list(folder.glob("slices/[0-9a-f]*"))
