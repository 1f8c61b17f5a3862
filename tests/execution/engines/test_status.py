"""How far a run is, read from its folder alone."""

import contextlib
import subprocess
import sys

import pandas as pd
import pytest

from plasticity_jax.cli import commands
from plasticity_jax.cli import status as told
from plasticity_jax.execution import progress
from plasticity_jax.execution.engines import status, worker
from plasticity_jax.execution.progress import Progress
from plasticity_jax.reporting import metrics
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import workdir
from plasticity_jax.storage.workdir import WorkdirError


def results(lanes, tasks, diverged=()):
    found = []
    for lane in lanes:
        for task in range(tasks):
            found.append([lane, task, 0.25 * (lane % 4) + task, lane not in diverged])
    made = pd.DataFrame(found, columns=["lane", "task", "online_accuracy", "finite"])
    made.attrs[metrics.KEY] = {"scores": ["online_accuracy"], "columns": {}}
    return made


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Four slices of two lanes and four tasks: done, half done, failed, not begun."""
    programs = []
    for number, name in enumerate(("aa", "bb", "cc", "dd")):
        own = [2 * number, 2 * number + 1]
        record = {"spec": {"tasks": 4}, "lanes": [{}, {}], "numbers": own, "folder": name}
        programs.append(record | {"slice": name})
        (tmp_path / "slices" / name).mkdir(parents=True)
    workdir.write_config(tmp_path, {"programs": programs, "data": {}}, {})
    for name, done in (("aa", 4), ("bb", 2), ("cc", 1)):
        home = tmp_path / "slices" / name
        for step in range(1, done + 1):
            (home / "checkpoints" / name / str(step)).mkdir(parents=True)
        table_.write(
            results([0, 1], done, diverged=[1] if name == "bb" else []), home / "results.parquet"
        )
    table_.write(results([0, 1], 4), tmp_path / "results.parquet")
    worker.note_fault(tmp_path / "slices" / "cc", "no room is left.")
    monkeypatch.setattr(status.time, "time", lambda: 1008.0)
    progress.note(tmp_path / "slices" / "bb", Progress("bb", "", 1000.0, 0))
    return tmp_path


def test_states_of_slices(run):
    found = status.read(run)
    assert [one.state for one in found.slices] == ["done", "waiting", "failed", "waiting"]
    assert found.seconds_left() is None
    with workdir.lock(run / "slices" / "bb"):
        found = status.read(run)
    assert [one.state for one in found.slices] == ["done", "running", "failed", "waiting"]
    assert [one.diverged for one in found.slices] == [0, 1, 0, 0]
    assert [one.last for one in found.slices] == [3.125, 1.125, 0.125, None]
    # four lane-tasks in eight seconds, four more of its own and eight that wait
    assert found.seconds_left() == 24
    worker.forget(run / "slices" / "bb")  # (as the same command does, which waits for it)
    with workdir.lock(run / "slices" / "bb"):
        assert status.read(run).seconds_left() == 24


def test_what_compiles_is_told(run, capsys):
    progress.note(run / "slices" / "bb", Progress("bb", "mlp with redo", 1000.0, 4))
    with workdir.lock(run / "slices" / "bb"):
        assert commands.main(["status", str(run)]) == 0
        assert progress.compiling(run / "slices" / "bb") == "mlp with redo"
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "left" not in said[0]
    assert "bb 2 2 of 4 running 1.125 1 lane diverged compiling mlp with redo" in said
    assert progress.compiling(run / "slices" / "bb") == ""  # (its process was killed)


def test_a_damaged_note_says_nothing(run):
    """Each digit of it changed; and other things than it has."""
    path = run / "slices" / "bb" / progress.FILE
    whole = path.read_bytes()
    with workdir.lock(path.parent):
        assert progress.read(path.parent) == Progress("bb", "", 1000.0, 0)
        for place, byte in enumerate(whole):
            if chr(byte).isdecimal():
                path.write_bytes(whole[:place] + bytes([byte ^ 1]) + whole[place + 1 :])
                assert progress.read(path.parent) is None
        for other in (b"", b"[]", b'{"folder": "bb"}', whole.replace(b'"bb"', b"3")):
            path.write_bytes(other)
            assert progress.read(path.parent) is None
        assert status.read(run).seconds_left() is None


def test_what_is_printed(run, capsys):
    with workdir.lock(run / "slices" / "bb"):
        assert commands.main(["status", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"{run}: 8 lanes in 4 slices; 1 done, 1 running, 1 waiting, 1 failed; 1 lane diverged; "
        "about 24.0 seconds left"
    )
    assert [" ".join(line.split()) for line in lines[2:]] == [
        "slice lanes tasks state online accuracy",
        "cc 2 1 of 4 failed 0.125 no room is left.",
        "bb 2 2 of 4 running 1.125 1 lane diverged",
        "dd 2 0 of 4 waiting",
    ]
    assert commands.main(["status", "--long", str(run)]) == 0
    assert "aa" in capsys.readouterr().out


def test_a_table_that_is_behind_is_told(run, capsys):
    """As after a kill: states are saved more often than the table is written."""
    table_.write(results([0, 1], 1), run / "slices" / "bb" / "results.parquet")
    assert commands.main(["status", str(run)]) == 0
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "bb 2 2 of 4 waiting 0.125 (after task 1)" in said


def test_it_is_watched_until_nothing_is_left(run, monkeypatch, capsys):
    def finish(seconds):
        for name in ("bb", "dd"):
            (run / "slices" / name / "checkpoints" / name / "4").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(told.time, "sleep", finish)
    assert commands.main(["status", "--watch", str(run)]) == 0
    assert capsys.readouterr().out.count("8 lanes in 4 slices") == 2


def test_a_run_without_slices_of_its_own(run):
    """As one process makes it, which trains them one after another."""
    settings = workdir.read_settings(run)
    for program in settings["programs"]:
        del program["slice"]
    workdir.write_config(run, settings, {})
    (run / "checkpoints" / "bb" / "3").mkdir(parents=True)
    progress.note(run, Progress("bb", "", 1000.0, 2))
    assert [one.state for one in status.read(run).slices] == ["waiting"] * 4
    with workdir.lock(run):
        found = status.read(run)
    assert [one.done for one in found.slices] == [0, 3, 0, 0]
    assert [one.state for one in found.slices] == ["waiting", "running", "waiting", "waiting"]
    # four lane-tasks in eight seconds, two more of its own and 24 that wait
    assert found.seconds_left() == 52


def test_slices_that_one_process_goes_on_with(run):
    """It holds the folders of all, and is at one of them."""
    progress.note(run, Progress("dd", "mlp with redo", 1000.0, 10))
    with contextlib.ExitStack() as held:
        for folder in (run, *(run / "slices").iterdir()):
            held.enter_context(workdir.lock(folder))
        found = status.read(run)
    assert [one.state for one in found.slices] == ["done", "waiting", "waiting", "running"]
    assert found.slices[3].compiling == "mlp with redo"
    assert found.seconds_left() == 8 * (4 + 6 + 8) / 4


def test_no_backend_is_started(run):
    """As the machine may have no accelerator, or one that is in use."""
    code = (
        "import sys; from plasticity_jax.cli import commands;"
        f"assert commands.main(['status', {str(run)!r}]) == 0;"
        "from jax._src import xla_bridge; assert not xla_bridge._backends"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("programs", [3, [{}], [{"lanes": [], "spec": {"tasks": "x"}}]])
def test_a_record_that_says_something_else_is_one_sentence(programs, tmp_path):
    workdir.write_config(tmp_path, {"programs": programs}, {})
    with pytest.raises(WorkdirError, match=r"config\.json cannot be read as the record of a run"):
        status.read(tmp_path)
    with pytest.raises(WorkdirError, match=r"has no config\.json: allowed are folders of runs"):
        status.read(tmp_path / "..")
