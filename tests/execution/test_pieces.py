"""Tables that are made a piece at a time are those that are made whole."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers import tiny

from plasticity_jax.execution import pieces, rows, waves
from plasticity_jax.execution import program as program_
from plasticity_jax.storage import table as table_


def program(lanes, **changes):
    spec = tiny.spec(dataset="digits", tasks=9, points=3, **changes)
    return program_.plan([(spec, lanes)], 64, None, None)[0]


def history(lanes, tasks, *names, width=0):
    """Random numbers, some of them missing; a lane diverges."""
    random = np.random.default_rng(lanes + tasks)
    found = {"finite": np.ones((tasks, lanes), bool)}
    found["finite"][tasks // 2 :, 0] = False
    for name in ("loss", *names):
        found[name] = random.normal(size=(tasks, lanes)).astype(np.float32)
    found["loss"][0] = np.nan
    if width:
        points = random.normal(size=(tasks, lanes, width)).astype(np.float32)
        points[1, 0] = np.nan
        found["points/loss"] = points
        found["ranks"] = points + 1
    return found


@pytest.fixture
def made():
    """Programs that differ in methods, options and number of tasks done, with lanes in turn."""
    programs = [
        program([{"seed": 0}, {"seed": 1, "learning_rate": 0.5}, {"seed": 2}]),
        program([{"seed": 0, "l2.strength": 0.25}], method="l2", samples=32),
        program([{"seed": 4}], activation="tanh"),
        program([{"seed": 5}, {"seed": 6}], environment="class_split"),
    ]
    histories = [
        history(3, 9, "accuracy", width=3),
        history(1, 7, "units_reset", width=2),
        {},
        history(2, 4, "accuracy"),
    ]
    return programs, histories, [[0, 3, 6], [2], [4], [5, 1]]


STOPS = {2: 7, 3: 5, 6: 9, 4: 3}  # lane 3 went on, lane 4 has no rows


@pytest.mark.parametrize(("most", "count", "stopped"), [(4, 13, STOPS), (20, 3, {})])
def test_pieces_are_the_whole_to_the_bit(made, most, count, stopped, monkeypatch, tmp_path):
    monkeypatch.setattr(pieces, "ROWS", most)
    whole = waves.marked(rows.table(*made), stopped)
    like, parts = pieces.of_table(*made, stopped)
    table_.write_parts(like, parts, tmp_path / "results.parquet")
    found = table_.read(tmp_path / "results.parquet")
    same(found, whole)
    assert pq.read_metadata(tmp_path / "results.parquet").num_row_groups == count
    assert not stopped or found["stopped"].sum() == 2
    points = pieces.of_points(*made)
    table_.write_parts(*points, tmp_path / "points.parquet")
    same(table_.read(tmp_path / "points.parquet"), rows.points(*made))


def same(one, other):
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert one.attrs == other.attrs


def test_nothing_done_is_an_empty_table(made, tmp_path):
    programs, histories, numbers = made
    nothing = programs, [{} for _ in histories], numbers
    table_.write_parts(*pieces.of_table(*nothing, {}), tmp_path / "results.parquet")
    same(table_.read(tmp_path / "results.parquet"), rows.table(*nothing))
    assert pieces.of_points(*nothing) is None


def test_a_value_or_a_length_that_changed_is_noticed(made, tmp_path):
    path = tmp_path / "results.parquet"
    whole = rows.table(*made)
    parts = [whole.iloc[:10], whole.iloc[10:]]
    table_.write_parts(whole, parts, path)
    same(table_.read(path), whole)
    content = path.read_bytes()
    for before, after in ((b"[10, 32]", b"[11, 31]"), (b"[10, 32]", b"[10, 33]")):
        assert content.count(before) == 1
        path.write_bytes(content.replace(before, after))
        with pytest.raises(ValueError, match=r"checksum|as many rows"):
            table_.read(path)
