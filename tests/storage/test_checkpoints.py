import json
import logging
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging as absl_logging
from helpers.states import assert_same, like, small

from plasticity_jax.storage.checkpoints import Checkpoints
from plasticity_jax.storage.workdir import WorkdirError

ROOT = pathlib.Path(__file__).parents[2]
PYTHONPATH = f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'tests/storage'}"


@pytest.fixture
def two(tmp_path):
    """Checkpoints with steps 1 and 2."""
    checkpoints = Checkpoints(tmp_path / "two")
    checkpoints.save(1, small(1))
    checkpoints.save(2, small(2))
    yield checkpoints
    checkpoints.close()


@pytest.mark.parametrize("size", [0, 1, 1009, 65536, 65537, 3 * 65536 + 1, 524286, 524287])
def test_a_tree_of_any_size_is_written_in_few_files(tmp_path, monkeypatch, size):
    """Also one with a prime number of bytes, which orbax by itself cuts into as many files."""
    monkeypatch.setattr("plasticity_jax.storage.checkpoints._CHUNK_BYTES", 65536)
    checkpoints = Checkpoints(tmp_path / "primes")
    tree = {"state": np.random.default_rng(size).integers(0, 256, size).astype(np.uint8)}
    checkpoints.save(1, tree)
    chunks = [
        file
        for file in (tmp_path / "primes/1/data/data").iterdir()
        if not file.name.startswith(".")
    ]
    assert len(chunks) == max(1, -(-size // 65536))
    step, restored = checkpoints.restore(tree)
    assert step == 1
    assert_same(restored, tree)
    checkpoints.close()


def flip(file: pathlib.Path, at: int):
    content = bytearray(file.read_bytes())
    content[at] ^= 0x10
    file.write_bytes(content)


def spawn(code: str, *arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": PYTHONPATH}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_round_trip_is_bit_exact(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # nans, -0, a subnormal
    payloads = np.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0x80000000, 1], np.uint32)
    tree = {
        "state": {
            "nan": payloads.view(np.float32),
            "nan64": np.array([0x7FF8000000000123], np.uint64).view(np.float64),
            "half": np.array([0x7E01, 0xFC00], np.uint16).view(np.float16),
            "brain": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3),
            "brain_nan": np.array([0x7FC1, 0xFFC5], np.uint16).view(jnp.bfloat16),
            "key": jnp.array([1, 2**32 - 1], jnp.uint32),
            "bytes": np.arange(5, dtype=np.uint8),
            "step": jnp.int32(-3),
            "count": np.uint32(7),
            "flag": np.bool_(True),
            "mask": np.array([[True], [False]]),
            "nested": (jnp.ones((2, 1, 3)), [None, np.int64(2**62)]),
            "odd.na/me é": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            "strided": np.arange(10)[::-2],
        },
        "history": {"loss": np.zeros((0, 4), np.float32)},
    }
    checkpoints = Checkpoints("relative/folder")
    checkpoints.save(0, tree)
    monkeypatch.chdir("/")
    restored = checkpoints.restore(tree)
    checkpoints.close()
    assert restored is not None
    assert restored[0] == 0
    assert_same(restored[1], tree)
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), np.asarray(leaf).dtype), tree
    )
    again = Checkpoints(tmp_path / "relative" / "folder")
    step, got = again.restore(shapes)
    again.close()
    assert step == 0
    assert_same(got, tree)


def test_nothing_there_is_none_and_creates_nothing(tmp_path):
    assert Checkpoints(tmp_path / "none").restore(small(1)) is None
    assert not any(tmp_path.iterdir())


def test_keeps_the_newest_and_takes_history_as_it_grew(two, tmp_path):
    two.save(5, small(5))
    assert sorted(os.listdir(tmp_path / "two")) == ["2", "5"]
    step, tree = two.restore(like())
    assert step == 5
    assert_same(tree, small(5))
    two.save(5, small(6) | {"history": {}})  # the same step again replaces it
    assert_same(two.restore(like())[1], small(6) | {"history": {}})
    with pytest.raises(WorkdirError, match="holds step 5 already, so step 4 cannot follow it"):
        two.save(4, small(4))


def test_flipped_byte_in_array_data_falls_back(tmp_path, caplog):
    trees = {
        step: {"noise": np.random.default_rng(step).integers(0, 256, 4096).astype(np.uint8)}
        for step in (1, 2)
    }
    checkpoints = Checkpoints(tmp_path)
    for step, tree in trees.items():
        checkpoints.save(step, tree)
    part = trees[2]["noise"].tobytes()[100:132]
    (file,) = [
        file for file in (tmp_path / "2").rglob("*") if file.is_file() and part in file.read_bytes()
    ]
    # noise does not compress, so it lies there as it is
    flip(file, file.read_bytes().index(part) + 5)
    step, tree = checkpoints.restore(trees[1])
    assert step == 1
    assert_same(tree, trees[1])
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.getMessage() == (  # orbax noticed nothing: it was the leaf's own checksum
        f"Checkpoint 2 in {tmp_path} is damaged (leaf ['noise'] does not match its checksum): "
        "deleted, going on from step 1."
    )
    assert os.listdir(tmp_path) == ["1"]
    checkpoints.save(2, trees[2])  # the step that was bad can be saved again
    step, tree = checkpoints.restore(trees[1])
    checkpoints.close()
    assert step == 2
    assert_same(tree, trees[2])


@pytest.mark.parametrize("damage", ["delete", "truncate", "empty", "flip"])
def test_any_damage_to_any_file_gives_a_good_checkpoint(two, tmp_path, damage):
    original = tmp_path / "two"
    fallbacks = 0
    for file in sorted(file for file in (original / "2").rglob("*") if file.is_file()):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(original, copy)
        victim = copy / file.relative_to(original)
        size = victim.stat().st_size
        if damage == "delete":
            victim.unlink()
        elif damage == "flip":
            flip(victim, size // 2)
        else:
            os.truncate(victim, size // 2 if damage == "truncate" else 0)
        checkpoints = Checkpoints(copy)
        step, tree = checkpoints.restore(like())
        checkpoints.close()
        assert step in (1, 2)
        assert_same(tree, small(step))
        fallbacks += step == 1
    assert fallbacks >= 3


@pytest.mark.parametrize(
    "change", [{"shape": [2**60]}, {"chunks": [2**60]}, {"shape": [2**60], "chunks": [2**60]}]
)
def test_sizes_beyond_memory_are_not_believed(two, tmp_path, caplog, change):
    """Tensorstore would end the process."""
    file = tmp_path / "two" / "2" / "data" / "data" / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    step, tree = two.restore(like())
    assert step == 1
    assert_same(tree, small(1))
    assert "(the description of its array does not fit its manifest): deleted" in caplog.text


def test_renamed_step_does_not_verify(two, tmp_path):
    (tmp_path / "two" / "2").rename(tmp_path / "two" / "3")
    assert two.restore(like())[0] == 1


def test_all_bad_is_an_error_and_stays_one(two, tmp_path):
    for file in (tmp_path / "two").rglob("manifest/metadata"):
        flip(file, file.stat().st_size // 2)
    for _ in range(2):  # a second try must not start from zero either
        with pytest.raises(
            WorkdirError, match=r"No checkpoint in .* verifies \(step 2: .*; step 1: .*\); del"
        ):
            two.restore(like())
    assert sorted(os.listdir(tmp_path / "two")) == ["1", "2"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"w": np.zeros((12, 41), np.float32)},
            r"\['w'\] is float32\[12, 40\] but must be float32\[12, 41\]",
        ),
        (
            {"w": np.zeros((12, 40), np.float16)},
            r"\['w'\] is float32\[12, 40\] but must be float16\[12, 40\]",
        ),
        ({"count": None}, r"state lacks nothing and has unknown .*\['count'\]"),
        ({"other": np.zeros(2)}, r"state lacks .*\['other'\].* and has unknown nothing"),
    ],
)
def test_what_does_not_fit_is_refused_and_kept(two, tmp_path, change, match):
    with pytest.raises(WorkdirError, match=match):
        two.restore(like() | {"state": small(1)["state"] | change})
    assert sorted(os.listdir(tmp_path / "two")) == ["1", "2"]


def test_what_has_entries_must_fit_whatever_it_is_called(two):
    with pytest.raises(
        WorkdirError, match=r"\['history'\]\['loss'\] is float32\[2, 3\] but must be float64"
    ):
        two.restore(like() | {"history": {"loss": np.zeros((2, 3))}})
    with pytest.raises(
        WorkdirError,
        match=r"\['history'\]\['loss'\] is float32\[2, 3\] but must be float32\[0, 3\]",
    ):
        two.restore(small(0))
    assert_same(two.restore(small(2))[1], small(2))


def test_empty_dict_takes_what_was_saved_under_any_name(tmp_path):
    tree = {
        "state": {"nested": [np.arange(3), {"w": np.float16(1.5)}]},
        "history": {
            "loss": np.zeros((2, 0), np.float16),
            "probe/detail é": np.arange(4).reshape(2, 2),
            "a.b": np.True_,
        },
        "other": {"count": np.uint8(3)},
        "nothing": {},
    }
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(7, tree)
    step, got = checkpoints.restore({"other": {}, "history": {}, "nothing": {}, "absent": {}})
    checkpoints.close()
    assert step == 7
    assert list(got) == ["other", "history", "nothing", "absent"]
    assert_same(got, {key: tree.get(key, {}) for key in got})


def test_parts_that_are_not_asked_for_are_left_out(two):
    want = small(2)
    for keys in ((), ("state",), ("history",), ("history", "state")):
        step, got = two.restore({key: like()[key] for key in keys})
        assert step == 2
        assert_same(got, {key: want[key] for key in keys})
    with pytest.raises(WorkdirError, match=r"more lacks .*\['x'\].* and has unknown nothing"):
        two.restore(like() | {"more": {"x": np.zeros(2)}})


def test_names_that_begin_alike_stay_apart(tmp_path):
    tree = {
        "a": {"x": np.int32(1)},
        "ab": {"x": np.int32(2)},
        "array": np.arange(3),
        "array2": np.arange(4.0),
    }
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, tree)
    assert_same(checkpoints.restore(tree)[1], tree)
    assert_same(checkpoints.restore({"a": {}, "ab": {}})[1], {"a": tree["a"], "ab": tree["ab"]})
    checkpoints.close()


def test_damage_to_a_part_that_is_left_out_counts(two, tmp_path, caplog):
    file = tmp_path / "two" / "2" / "manifest" / "metadata"
    flip(file, file.stat().st_size // 2)
    step, tree = two.restore({"history": {}})
    assert step == 1
    assert_same(tree, {"history": small(1)["history"]})
    assert "Checkpoint 2 in" in caplog.text


def test_full_disk_is_one_sentence_and_older_steps_stay(two, tmp_path, caplog):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # stands for a full disk: writes fail half way
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(
            WorkdirError,
            match=r"checkpoint of step 3 could not be saved in .*two \(File too large\)\.$",
        ):
            two.save(3, {"state": np.random.default_rng(0).normal(size=100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caplog.records == []  # nor does orbax print tracebacks
    assert sorted(os.listdir(tmp_path / "two")) == ["1", "2"]
    assert_same(two.restore(like())[1], small(2))
    two.save(3, small(3))
    assert two.restore(like())[0] == 3


def test_orbax_is_quiet_and_the_users_verbosity_stays(two, caplog):
    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.INFO)
    try:
        two.save(3, small(3))
        two.restore(like())
        assert [record for record in caplog.records if "orbax" in record.pathname] == []
        absl_logging.info("mine")
        assert caplog.records[-1].getMessage() == "mine"
        assert absl_logging.get_verbosity() == absl_logging.INFO
    finally:
        absl_logging.set_verbosity(before)


ENDLESS = """
import sys
from plasticity_jax.storage.checkpoints import Checkpoints
from test_checkpoints import large
checkpoints = Checkpoints(sys.argv[1])
found = checkpoints.restore(large(0))
step = found[0] if found else 0
while True:
    step += 1
    checkpoints.save(step, large(step))
    print(step, flush=True)
"""


def large(step: int) -> dict:
    return {
        str(number): np.full((12, 2000), step + number / 64, np.float32) for number in range(30)
    }


def test_killed_while_saving(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    # it does nothing but save, so a kill at any time is one in mid-save
    for delay in (0.0, 0.007, 0.019, 0.031):
        with spawn(ENDLESS, tmp_path) as process:
            assert process.stdout
            done = [int(process.stdout.readline()) for _ in range(3)]
            time.sleep(delay)
            process.kill()
            done += [int(line) for line in process.stdout.read().split()]
        step, tree = checkpoints.restore(large(0))
        assert step in (done[-1], done[-1] + 1)
        assert_same(tree, large(step))
    checkpoints.save(step + 1, large(step + 1))
    checkpoints.close()
    # int(): no unfinished folder is left
    assert sorted(map(int, os.listdir(tmp_path)))[-1] == step + 1


@pytest.mark.parametrize("times", [1, 2])
def test_a_save_that_ran_out_of_time_is_tried_once_more(times, tmp_path, monkeypatch):
    """Orbax measures by the clock of the machine, which may be set forward while it waits."""
    put, calls = Checkpoints._put, []

    def late(self, *arguments):
        calls.append(arguments)
        if len(calls) <= times:
            raise TimeoutError("timed out after 0.00 seconds")
        put(self, *arguments)

    monkeypatch.setattr(Checkpoints, "_put", late)
    kept, tree = Checkpoints(tmp_path / "run"), {"state": {"w": np.arange(3.0)}}
    if times == 2:
        with pytest.raises(WorkdirError, match="timed out"):
            kept.save(1, tree)
        return
    kept.save(1, tree)
    found = kept.restore(tree)
    assert found is not None
    np.testing.assert_array_equal(found[1]["state"]["w"], tree["state"]["w"])
