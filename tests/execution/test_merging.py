"""Several workdirs give one table, and one workdir that goes on."""

import dataclasses
import json
import os
import pathlib
import shutil

import pandas as pd
import pytest
from helpers import tiny

import plasticity_jax as pj
from plasticity_jax.execution import merging, slices, sweep
from plasticity_jax.reporting import collect
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import workdir

SEEDS = [{"seed": 0}, {"seed": 1}, {"seed": 2}]


@pytest.fixture(scope="module")
def spec(tmp_path_factory, compiled_quickly):
    return tiny.spec(dataset=tiny.arrays(tmp_path_factory.mktemp("data")), tasks=2)


@pytest.fixture(scope="module")
def l2(spec):
    return dataclasses.replace(spec, method="l2")


@pytest.fixture(scope="module")
def parts(spec, l2, tmp_path_factory):
    """Three workdirs: one method each, and more tasks of some lanes of the first."""
    folder = tmp_path_factory.mktemp("parts")
    sweep.run(dataclasses.replace(spec, tasks=1), SEEDS, folder / "none")
    sweep.run(l2, SEEDS, folder / "l2")
    sweep.run(spec, SEEDS[1:], folder / "longer")
    return folder


@pytest.fixture(scope="module")
def whole(spec, l2, tmp_path_factory):
    """A run of all at once, and of three tasks in memory."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    table = sweep.run([(spec, SEEDS), (l2, SEEDS)], workdir=folder)
    more = [(dataclasses.replace(one, tasks=3), SEEDS) for one in (spec, l2)]
    return table, sweep.run(more)


def results(path) -> pd.DataFrame:
    return table_.read(pathlib.Path(path) / "results.parquet")


def files(path) -> dict[str, bytes]:
    """All files of a folder but for the lock."""
    found = {str(file): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
    return {name: content for name, content in found.items() if not name.endswith("lock")}


def same(left, right):
    pd.testing.assert_frame_equal(left, right, check_exact=True)


@pytest.mark.long
def test_merging_the_parts_of_a_run_gives_the_run(spec, l2, parts, whole, tmp_path):
    before = files(parts)
    goal = tmp_path / "merged"
    found = merging.merge([parts / "none", parts / "longer", parts / "l2"], goal)
    assert found == merging.Merged(lanes=6, repeated=2)
    assert files(parts) == before
    table, longer = whole
    # (one lane has only its first task so far)
    there = (table["lane"] > 0) | (table["task"] == 0)
    same(results(goal), table[there].reset_index(drop=True))
    same(pj.load(goal), results(goal))
    assert len(os.listdir(goal / "checkpoints")) == 3
    runs = [(dataclasses.replace(one, tasks=3), SEEDS) for one in (spec, l2)]
    same(sweep.run(runs, workdir=goal), longer)
    same(results(goal), longer)


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.long
def test_load_takes_each_lane_once_and_numbers_them_anew(parts, whole):
    table = pj.load(parts / "none", parts / "longer", parts / "l2")
    there = (whole[0]["lane"] > 0) | (whole[0]["task"] == 0)
    same(table, whole[0][there].reset_index(drop=True))
    other = pj.load(parts / "l2", parts / "none")
    assert other.groupby("lane")["method"].first().tolist() == ["l2"] * 3 + ["none"] * 3
    assert other.groupby("lane").size().tolist() == [2] * 3 + [1] * 3
    assert list(other.columns[:3]) == ["lane", "task", "seed"]


@pytest.mark.usefixtures("nothing_compiles")
def test_a_table_from_before_has_the_same_columns(parts, tmp_path):
    shutil.copytree(parts / "none", tmp_path / "old")
    old = results(parts / "none").drop(columns=["dataset", "samples", "batch_size", "surgery"])
    table_.write(old, tmp_path / "old" / "results.parquet")
    same(pj.load(tmp_path / "old"), results(parts / "none"))


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.parametrize("column", ["task", "lane"])
def test_what_a_table_lacks_after_a_kill_is_taken_from_checkpoints(column, parts, tmp_path):
    """A table is written less often than checkpoints are."""
    folder = shutil.copytree(parts / "l2", tmp_path / "l2")
    before = results(folder)
    table_.write(before.loc[before[column] < 1].reset_index(drop=True), folder / "results.parquet")
    same(pj.load(folder), before)
    asked = [(one.spec, one.lanes) for one in merging.programs([folder])]
    found = collect.collect([folder], asked, merging.completed)
    assert found["loss"].tolist() == before["loss"].tolist()
    with pytest.raises(workdir.WorkdirError, match=r"tasks of a lane|lanes asked"):
        collect.collect([folder], asked)
    os.unlink(folder / "results.parquet")
    same(pj.load(folder), before)
    # (of a damaged checkpoint, or one that is removed meanwhile, nothing is taken)
    table_.write(before.head(2), folder / "results.parquet")
    for data in folder.glob("checkpoints/*/[12]/data/data/*"):
        data.write_bytes(b"")
    same(pj.load(folder), before.head(2))


@pytest.mark.usefixtures("nothing_compiles")
def test_what_is_not_the_same_is_refused(parts, tmp_path):
    shutil.copytree(parts / "none", tmp_path / "changed")
    other = results(parts / "none")
    other.loc[4 - 3, "loss"] += 1
    table_.write(other, tmp_path / "changed" / "results.parquet")
    said = r"lane 1 of .*none and lane 1 of .*changed are the same run, but loss of task 0 is"
    with pytest.raises(workdir.WorkdirError, match=said):
        pj.load(parts / "none", tmp_path / "changed")
    config = json.loads((parts / "none" / "config.json").read_text())
    del config["sha256"]
    config["settings"]["data"]["fingerprint"] = "0" * 64
    (tmp_path / "changed" / "config.json").write_text(json.dumps(config))
    for read in (pj.load, lambda *paths: merging.merge(paths, tmp_path / "goal")):
        with pytest.raises(workdir.WorkdirError, match="different data of one name, arrays:"):
            read(parts / "none", tmp_path / "changed")
    assert not (tmp_path / "goal").exists()


@pytest.mark.usefixtures("nothing_compiles")
def test_what_cannot_be_merged_is_one_sentence(parts, tmp_path):
    for workdirs, to, said in [
        (["none"], "l2", "l2 is a workdir already: allowed is a folder in which nothing"),
        (["none", "nowhere"], "new", "nowhere is no folder: allowed are folders of runs."),
        (["none", ""], "new", "has no config.json: allowed are folders of runs."),
    ]:
        with pytest.raises(workdir.WorkdirError, match=said):
            merging.merge([parts / name for name in workdirs], parts / to)
    for call in (pj.load, lambda: merging.merge([], tmp_path)):
        with pytest.raises(ValueError, match="there are no workdirs: give at least one folder"):
            call()
    shutil.copytree(parts / "none", tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "checkpoints")
    with pytest.raises(workdir.WorkdirError, match=r"has no checkpoints, but .* has results of"):
        merging.merge([tmp_path / "bare"], tmp_path / "new")
    assert len(pj.load(tmp_path / "bare")) == 3
    in_use = pytest.raises(workdir.WorkdirError, match="is in use by process")
    with workdir.lock(parts / "none"), in_use:
        merging.merge([parts / "none"], tmp_path / "new")
    assert not (parts / "new").exists()
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("nothing_compiles")
def test_other_data_are_loaded_together_and_not_merged(spec, parts, tmp_path):
    shutil.copytree(parts / "none", tmp_path / "other")
    config = json.loads((parts / "none" / "config.json").read_text())
    own = config["settings"]
    del config["sha256"]
    own["data"] |= {"fingerprint": "0" * 64, "name": "digits"}
    own["programs"][0]["spec"]["dataset"] = "digits"
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    table = pj.load(parts / "none", tmp_path / "other")
    assert table.groupby("lane")["dataset"].first().tolist() == [spec.dataset] * 3 + ["digits"] * 3
    with pytest.raises(workdir.WorkdirError, match=r"are different data .* one in a workdir; load"):
        merging.merge([parts / "none", tmp_path / "other"], tmp_path / "goal")


@pytest.mark.usefixtures("nothing_compiles")
def test_a_merged_workdir_says_where_it_is_from(parts, tmp_path):
    merging.merge([parts / "l2"], tmp_path / "once")
    merging.merge([parts / "none", tmp_path / "once"], tmp_path / "twice")
    record = workdir.read_record(tmp_path / "twice")
    assert [one["workdir"] for one in record["merged"]] == [
        str(parts / "none"),
        str(tmp_path / "once"),
    ]
    assert record["versions"] == workdir.read_record(parts / "none")["versions"]
    found = slices.read(tmp_path / "twice")
    assert [one.numbers for one in found.slices] == [[0, 1, 2], [3, 4, 5]]
