"""A disk that does not take what is written, at every write that is made."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pandas as pd
import pytest
from helpers import tiny

import plasticity_jax as pj
from plasticity_jax.cli import launcher
from plasticity_jax.execution import sweep
from plasticity_jax.storage import table as table_

FAULTS = [pytest.mark.faults, pytest.mark.slow]

SEEDS = [{"seed": 0}, {"seed": 1}]
ROOT = pathlib.Path(__file__).parents[2]
# calls of each case that fail, one in each try; those of all cases are some thousands
TRIES = os.environ.get("PLASTICITY_FAULTS_WRITES", "150")
PLAIN = ("run", "growth", "merge", "report", "figure", "command", "slices")
CASES = {name: "" for name in (*PLAIN, "slurm", "waves", "select", "cache")}
# and those with a package that may not be there
CASES |= {"tensorboard": "tensorboardX", "wandb": "wandb"}


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """The library that stands between a process and its disk."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    made = tmp_path_factory.mktemp("disk") / "disk.so"
    source = ROOT / "tests" / "faults" / "disk.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True)
    return made


@pytest.mark.parametrize(
    ("case", "tries"),
    [("cache", 12), *(pytest.param(case, int(TRIES), marks=FAULTS) for case in CASES)],
)
def test_any_call_that_writes_may_fail(case, tries, disk, tmp_path):
    """A disk that is full, over its quota, read-only or broken, at any call of Python or a library
    that changes a file, once or from then on: see `refused.py`. `make test` has a case in which
    nothing is compiled.
    """
    if CASES[case]:
        pytest.importorskip(CASES[case])
    env = {
        **os.environ,
        "LD_PRELOAD": str(disk),
        "PYTHONPATH": ":".join([str(ROOT), str(ROOT / "tests"), *sys.path[1:]]),
        "PLASTICITY_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    words = [sys.executable, str(ROOT / "tests" / "faults" / "refused.py"), case]
    (tmp_path / "tried").mkdir()
    pipes = {"capture_output": True, "text": True}
    done = subprocess.run([*words, str(tmp_path / "tried"), str(tries)], env=env, **pipes)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(case, found)
    # (what only `status` reads is not told, nor what a library tries again)
    assert found["told"] > found["tries"] // 3


@pytest.fixture(scope="module")
def spec(tmp_path_factory, compiled_quickly):
    return tiny.spec(dataset=tiny.arrays(tmp_path_factory.mktemp("data")), tasks=2, points=2)


@pytest.mark.faults
@pytest.mark.slow
def test_a_folder_that_is_deleted_while_it_is_used(spec, tmp_path):
    """Or that another one takes the place of: nothing is written there any more."""
    straight = sweep.run(spec, SEEDS, tmp_path / "straight")
    for again in (False, True):

        def delete(rows, again=again):
            shutil.rmtree(tmp_path / "run")
            if again:
                (tmp_path / "run").mkdir()

        with pytest.raises(launcher.ENVIRONMENT_FAULTS) as error:
            sweep.run(spec, SEEDS, tmp_path / "run", on_task=delete)
        said = launcher.sentence(error.value)
        assert said.startswith(f"{tmp_path / 'run'} was deleted while it was in use")
        assert (tmp_path / "run").exists() == again
        assert not again or not list((tmp_path / "run").iterdir())
        found = sweep.run(spec, SEEDS, tmp_path / "run")
        pd.testing.assert_frame_equal(found, straight, check_exact=True)
        shutil.rmtree(tmp_path / "run")


@pytest.mark.faults
@pytest.mark.slow
def test_a_disk_that_is_made_read_only(spec, tmp_path):
    """Between two calls: a file system that a process writes to is busy."""
    with mounted(tmp_path) as folder:
        straight = sweep.run(spec, SEEDS, tmp_path / "straight")
        first = dataclasses.replace(spec, tasks=1)
        sweep.run(first, SEEDS, folder / "run")
        before = table_.read(folder / "run" / "results.parquet")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        with pytest.raises(launcher.ENVIRONMENT_FAULTS) as error:
            sweep.run(spec, SEEDS, folder / "run")
        said = launcher.sentence(error.value)
        assert "Read-only file system" in said
        assert str(folder / "run") in said
        pd.testing.assert_frame_equal(table_.read(folder / "run" / "results.parquet"), before)
        assert len(pj.load(folder / "run")) == len(before)
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        found = sweep.run(spec, SEEDS, folder / "run")
        pd.testing.assert_frame_equal(found, straight, check_exact=True)


@contextlib.contextmanager
def mounted(root):
    """A file system of its own, of 1 MiB, so that what is written from C++ meets it as well."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=root))
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(words, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.faults
@pytest.mark.slow
def test_a_disk_that_is_full(spec, tmp_path):
    with mounted(tmp_path) as folder:
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
            shutil.rmtree(run)
