"""Reported tables beside their commands run again: what is equal, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest

from experiments import export, repeat
from experiments.gradual.claims import tables

SPEC = {"tasks": 3, "method": "none", "dataset": "digits", "options": {"l2.on": "all"}}
LANES = [{"seed": seed, "learning_rate": 1e-3} for seed in range(2)]


def rows(seeds, tasks, **columns):
    """A table as runs write it: a row for each seed and task, its loss made of both."""
    made = [(seed, task) for seed in range(seeds) for task in range(tasks)]
    table = pd.DataFrame(made, columns=["seed", "task"])
    loss = 0.1 * table["seed"] + np.pi * table["task"]
    fixed = {"lane": table["seed"], "learning_rate": 1e-3, "method": "none", "loss": loss}
    return table.assign(**fixed, **columns)


@pytest.fixture
def workdir(tmp_path):
    """A run of two tasks and one seed of a table of three tasks and two seeds."""
    other = {"spec": {**SPEC, "method": "l2"}, "lanes": LANES}  # (an arm that is not reported)
    settings = {"programs": [{"spec": SPEC, "lanes": LANES}, other]}
    config = {"settings": settings, "data_source": "/a/digits", "versions": {"plasticity_jax": "1"}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    rows(1, 2, dataset="/a/digits", probe=[np.nan, 1.0]).to_parquet(tmp_path / "results.parquet")
    whole = rows(2, 3, dataset="digits", probe=[np.nan, 1.0, 2.0] * 2)
    whole.to_parquet(tmp_path / "table.parquet")
    return tmp_path


def again(workdir, *more):
    return repeat.main([f"--from={workdir}", "--name=table", f"--folder={workdir}", *more])


def test_equal_rows_and_what_is_recorded_of_them(workdir, capsys):
    assert again(workdir, f"--begun={workdir}", "--code=abc") == 0
    assert "2 rows run again, of the first 2 tasks: 4 of 4 values are" in capsys.readouterr().out
    (record,) = json.loads((workdir / "table.json").read_text(encoding="utf-8"))
    assert [program["lanes"] for program in record["settings"]["programs"]] == [LANES]
    assert record["programs_not_reported"] == 1
    assert (record["code_version"], record["data_source"]) == ("abc", "digits")
    assert record["versions"] == {}, "the installed package is not the one whose code ran"
    assert record["run_again"] == {
        "rows": 2,
        "rows_beside": 0,
        "tasks": 2,
        "values": 4,
        "same": 4,
        "largest_difference": 0.0,
    }


def test_a_value_that_differs_is_told(workdir, capsys):
    changed = pd.read_parquet(workdir / "results.parquet")
    changed.loc[1, "loss"] *= 1.5
    changed.to_parquet(workdir / "results.parquet")
    assert again(workdir) == 1
    assert "3 of 4 values are the same to the bit, the others by up to 0.5" in (
        capsys.readouterr().out
    )
    assert not (workdir / "table.json").exists()


def test_what_cannot_be_compared_is_one_sentence(workdir, capsys):
    other = pd.read_parquet(workdir / "results.parquet").assign(learning_rate=0.1)
    other.to_parquet(workdir / "results.parquet")
    assert again(workdir) == 2
    assert "or none that it has: allowed are" in capsys.readouterr().err
    assert again(workdir, "--code=abc") == 2
    assert "together, --begun and --code" in capsys.readouterr().err
    assert again(workdir / "nowhere") == 1
    capsys.readouterr()


@pytest.mark.parametrize(
    "path", sorted(tables.FOLDER.glob("lanes/*.parquet")), ids=lambda p: p.stem
)
def test_what_made_a_reported_table_is_beside_it(path):
    """The lanes of every reported table are those of the runs that are recorded."""
    records = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    table = pd.read_parquet(path, columns=["seed", "task", "lane"])
    lanes = [p["lanes"] for record in records for p in record["settings"]["programs"]]
    assert table["lane"].nunique() == sum(map(len, lanes))
    assert {lane["seed"] for program in lanes for lane in program} == {*table["seed"]}
    assert export.FOLDER == tables.FOLDER / "lanes"


def test_the_code_that_repeats_an_older_table_is_told():
    account = (tables.FOLDER.parent / "README.md").read_text(encoding="utf-8")
    older = 0
    for path in export.FOLDER.glob("*.json"):
        (record, *_) = json.loads(path.read_text(encoding="utf-8"))
        if again := record.get("run_again"):
            older += 1
            assert again["same"] == again["values"] > 0
            assert f"`{path.stem}` {record['code_version']}" in account
    assert older == 9
