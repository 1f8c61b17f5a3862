import errno
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from plasticity_jax.storage import workdir

ROOT = pathlib.Path(__file__).parents[2]


def spawn(code: str, *arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


# The lock


HOLDER = """
import sys, time
from plasticity_jax.storage import workdir
with workdir.lock(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(1800)
"""


def test_lock_names_its_live_holder_and_dies_with_it(tmp_path):
    path = tmp_path / "runs" / "mnist"
    with spawn(HOLDER, path) as process:
        assert process.stdout
        assert process.stdout.readline() == "locked\n"
        written = (path / "lock").read_text()
        with pytest.raises(workdir.WorkdirError) as caught, workdir.lock(path):
            pass
        assert (path / "lock").read_text() == written
        process.kill()
    message = str(caught.value)
    assert message.startswith(
        f"{path} is in use by process {process.pid} on host {os.uname().nodename}, started 20"
    )
    assert message.endswith("; wait for it or choose another --workdir.")
    with workdir.lock(path):  # the file of the killed process is still there
        assert json.loads((path / "lock").read_text())["pid"] == os.getpid()
        with (
            pytest.raises(workdir.WorkdirError, match=f"process {os.getpid()} "),
            workdir.lock(path),
        ):
            pass
    with workdir.lock(path):
        (path / "lock").write_text("")
        with (
            pytest.raises(workdir.WorkdirError, match="in use by another process;"),
            workdir.lock(path),
        ):
            pass


def test_import_is_cheap():
    code = (
        "import sys; from plasticity_jax.storage import checkpoints, workdir; from jax._src import "
        "xla_bridge; "
        "print('orbax.checkpoint' in sys.modules, xla_bridge.backends_are_initialized())"
    )
    with spawn(code) as process:
        assert process.communicate()[0] == "False False\n"


@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_below_a_file_is_refused(tmp_path, below):
    file = tmp_path / "file"
    file.write_text("kept")
    for function in (workdir.check_writable, lambda path: workdir.lock(path).__enter__()):
        with pytest.raises(
            workdir.WorkdirError, match=f"cannot be used: {file} is not a directory.$"
        ):
            function(file / below)
    assert file.read_text() == "kept"


def test_not_writable_is_refused(tmp_path):
    # so for root as well
    with pytest.raises(workdir.WorkdirError, match="cannot be used: /proc is not writable"):
        workdir.check_writable("/proc/runs/x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(workdir.WorkdirError, match="is not a directory"):
        workdir.check_writable(tmp_path / "dangling" / "x")
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(workdir.WorkdirError, match="is not writable"):
            workdir.check_writable(tmp_path)


def test_writable_is_left_as_it_is(tmp_path):
    before = tmp_path.stat().st_mtime_ns
    workdir.check_writable(tmp_path)
    workdir.check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    assert tmp_path.stat().st_mtime_ns == before


# The settings


SETTINGS = {
    "learning_rate": 0.001,
    "seeds": (0, 1),
    "task": {"name": "mnist", "limit": None},
    "floor": float("nan"),
}


def test_settings_are_read_as_they_were_written(tmp_path):
    assert workdir.read_settings(tmp_path / "new") is None
    assert workdir.read_settings(tmp_path) is None
    workdir.write_config(tmp_path, SETTINGS, {"version": "1"})
    found = workdir.read_settings(tmp_path)
    assert found is not None
    assert json.dumps(found) == json.dumps(SETTINGS, sort_keys=True)
    recorded = json.loads((tmp_path / "config.json").read_text())
    assert list(recorded) == ["settings", "version", "sha256"]
    assert list(recorded["settings"]) == sorted(SETTINGS)
    assert workdir.read_record(tmp_path) == {"version": "1"}
    # (another number, as a flipped bit makes it, is noticed, and one without a checksum is old)
    for checksum in (recorded["sha256"], None):
        changed = {"settings": {**recorded["settings"], "other": 1}, "sha256": checksum}
        (tmp_path / "config.json").write_text(json.dumps(changed))
        if checksum is None:
            assert workdir.read_settings(tmp_path)["other"] == 1
            continue
        with pytest.raises(
            workdir.WorkdirError, match=r"config\.json cannot be read .*written with"
        ):
            workdir.read_settings(tmp_path)
    assert os.listdir(tmp_path) == ["config.json"]


def test_nothing_else_reads_it():
    """So that all look at its checksum; networks of others have another config.json."""
    root = pathlib.Path(workdir.__file__).parents[2]
    own = {root / "plasticity_jax" / "models" / "pretrained" / "reading.py"}
    reading = re.compile(r"(read_json|json\.loads?|open)\([^\n]*config\.json|config\.json\W+read_")
    files = [*root.glob("plasticity_jax/**/*.py"), *root.glob("experiments/**/*.py")]
    found = {file for file in files if reading.search(file.read_text(encoding="utf-8"))}
    assert found == own


DAMAGED = [
    "",
    "{",
    "[]",
    "{}",
    "null",
    "3",
    '{"settings": null}',
    '{"settings": "x"}',
    '{"settings": [1]}',
    "[" * 100_000,
    "\x80",
]


@pytest.mark.parametrize("text", DAMAGED)
def test_unreadable_config_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(
        workdir.WorkdirError, match=r"config.json cannot be read as the record of a run \(.+\); use"
    ):
        workdir.read_settings(tmp_path)


def test_config_that_cannot_be_written(tmp_path):
    with pytest.raises(
        workdir.WorkdirError,
        match=r"config.json cannot be written \(No such file or directory\)\.$",
    ):
        workdir.write_config(tmp_path / "missing", SETTINGS, {})


# Stop


@pytest.mark.parametrize("number", workdir.STOPPING)
def test_stop_is_requested_and_handlers_come_back(number):
    before = [signal.getsignal(other) for other in workdir.STOPPING]
    with workdir.Stop() as stop:
        assert (stop.requested, stop.signal) == (False, None)
        os.kill(os.getpid(), number)
        assert (stop.requested, stop.signal) == (True, number)
    assert [signal.getsignal(other) for other in workdir.STOPPING] == before


def test_a_hangup_that_is_ignored_stays_ignored():
    """As under nohup, which is how a run is made to outlive its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with workdir.Stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_second_interrupt_is_immediate():
    before = signal.getsignal(signal.SIGINT)
    with workdir.Stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_stop_does_nothing_in_another_thread():
    seen = []

    def body():
        with workdir.Stop() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [(False, signal.getsignal(signal.SIGTERM))]


def test_a_name_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(workdir.WorkdirError, match=r"cannot be used \(File name too long\)\.$"):
        workdir.check_writable(tmp_path / ("x" * 300) / "run")


def test_a_remark_is_written_once_and_replaced(tmp_path):
    workdir.write_config(tmp_path, {"a": 1}, {"versions": {}})
    for text in ("two epochs, not 80", "one epoch"):
        workdir.remark(tmp_path, text)
        assert workdir.read_record(tmp_path) == {"versions": {}, "remarks": text}
    before = (tmp_path / "config.json").stat().st_mtime_ns
    workdir.remark(tmp_path, "one epoch")
    assert (tmp_path / "config.json").stat().st_mtime_ns == before
    assert workdir.read_settings(tmp_path) == {"a": 1}


def test_the_lock_of_a_dead_process_on_another_host_is_taken_over(tmp_path):
    """Its file stays behind in a shared folder; the kernel knows that nobody holds it."""
    old = {"pid": os.getpid(), "host": "node17", "started": "2020-01-01", "command": "python"}
    (tmp_path / "lock").write_text(json.dumps(old))
    assert not workdir.is_held(tmp_path)
    with workdir.lock(tmp_path):
        assert workdir.is_held(tmp_path)
        assert json.loads((tmp_path / "lock").read_text())["host"] != "node17"
        began = time.monotonic()
        with pytest.raises(workdir.InUse), workdir.lock(tmp_path):
            pass
        assert time.monotonic() - began < 1
    assert not workdir.is_held(tmp_path)


def test_who_only_asks_keeps_nobody_out(tmp_path):
    """`is_held` holds the lock for an instant, in which another process may want it."""
    with workdir.lock(tmp_path):
        pass
    with open(tmp_path / "lock") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.03, fcntl.flock, (file, fcntl.LOCK_UN)).start()
        with workdir.lock(tmp_path):
            assert workdir.is_held(tmp_path)


def test_the_reason_of_a_folder_that_cannot_be_copied(tmp_path, monkeypatch):
    """`shutil.copytree` tells of every file, by a list; the sentence has the first one's reason."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a").write_bytes(b"a")
    (tmp_path / "here" / "b").write_bytes(b"b")

    def full(source, target, **_):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), target)

    with pytest.raises(shutil.Error) as caught:
        shutil.copytree(tmp_path / "here", tmp_path / "there", copy_function=full)
    assert workdir.reason_of(caught.value) == os.strerror(errno.EDQUOT)
    assert workdir.reason_of(shutil.Error("two words")) == "two words"
