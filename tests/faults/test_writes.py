"""A disk that does not take what is written, at every write that a run makes."""

import errno
import os
import pathlib
import subprocess
import tempfile

import pandas as pd
import pytest
from helpers import tiny

from plasticity_jax.cli import launcher
from plasticity_jax.execution import sweep
from plasticity_jax.storage import table as table_

pytestmark = [pytest.mark.faults, pytest.mark.slow]

SEEDS = [{"seed": 0}, {"seed": 1}]
WRITING = ("w", "a", "x", "+")


class Disk:
    """Counts the calls that write below a folder, and lets one of them fail."""

    def __init__(self, folder, fails, number):
        self.folder, self.fails, self.number, self.calls = str(folder), fails, number, 0

    def meets(self, path) -> None:
        if not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(self.folder):
            return
        self.calls += 1
        if self.calls == self.fails:
            raise OSError(self.number, os.strerror(self.number), os.fspath(path))


@pytest.fixture
def disk(monkeypatch):
    """Puts a `Disk` between Python and the folder."""

    def use(folder, fails, number):
        made = Disk(folder, fails, number)
        for name in ("replace", "rename", "mkdir", "makedirs", "link"):
            monkeypatch.setattr(os, name, wrapped(made, getattr(os, name)))
        opened = open

        def watched(path, mode="r", *rest, **more):
            if any(letter in str(mode) for letter in WRITING):
                made.meets(path)
            return opened(path, mode, *rest, **more)

        monkeypatch.setattr("builtins.open", watched)
        return made

    def wrapped(made, function):
        def call(path, *rest, **more):
            made.meets(path)
            return function(path, *rest, **more)

        return call

    return use


@pytest.fixture(scope="module")
def spec(tmp_path_factory, compiled_quickly):
    return tiny.spec(dataset=tiny.arrays(tmp_path_factory.mktemp("data")), tasks=2, points=2)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_every_write_may_fail(number, spec, disk, tmp_path, monkeypatch):
    """One sentence, and the same call goes on once there is room. Each kind of fault meets another
    quarter of the writes.
    """
    straight = sweep.run(spec, SEEDS, tmp_path / "straight")
    made = disk(tmp_path / "counted", 0, number)
    sweep.run(spec, SEEDS, tmp_path / "counted")
    monkeypatch.undo()
    assert made.calls > 10
    kinds = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
    met = 0
    for fails in range(1 + kinds.index(number), made.calls + 1, len(kinds)):
        folder = tmp_path / f"run_{fails}"
        disk(folder, fails, number)
        try:
            sweep.run(spec, SEEDS, folder)
        except launcher.ENVIRONMENT_FAULTS as error:
            met += 1
            said = launcher.sentence(error)
            assert os.strerror(number) in said
            assert "Traceback" not in said
            assert "\n" not in said
        monkeypatch.undo()
        found = sweep.run(spec, SEEDS, folder)
        pd.testing.assert_frame_equal(found, straight, check_exact=True)
    # (what fails at the very end, such as the time at which a call ended, is worth no fault)
    assert met >= made.calls // len(kinds) - 2
    print(f"{met} of {made.calls} writes failed")


def test_a_disk_that_is_full(spec, tmp_path):
    """A file system of its own, so that what is written from C++ meets it as well."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=tmp_path))
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(words, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        straight = sweep.run(spec, SEEDS, tmp_path / "straight")
        filler = folder / "filler"
        for left in (0, 4096, 16384, 40960, 65536, 98304):
            run = folder / f"run_{left}"
            run.mkdir()
            filler.write_bytes(b"")
            free = os.statvfs(folder)
            filler.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - left)))
            with pytest.raises(launcher.ENVIRONMENT_FAULTS) as error:
                sweep.run(spec, SEEDS, run)
            assert "No space left" in launcher.sentence(error.value)
            filler.unlink()
            found = sweep.run(spec, SEEDS, run)
            pd.testing.assert_frame_equal(found, straight, check_exact=True)
            table_.read(run / "results.parquet")
            subprocess.run(["rm", "-r", str(run)], check=True)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
