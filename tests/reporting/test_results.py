import pathlib
import textwrap

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from plasticity_jax.reporting import over_seeds, statistics, tables
from plasticity_jax.storage import table as table_

ARMS = ("transition", "method", "granularity", "l2.strength")
ABRUPT = {"transition": "output", "method": "none", "granularity": 1, "l2.strength": np.nan}
GRADUAL = ABRUPT | {"granularity": 20}
L2 = ABRUPT | {"method": "l2", "l2.strength": 0.001}


def lanes(*described, metric="online_accuracy"):
    """A table from (arm, seed, values per task), lanes numbered as given."""
    rows = [
        {"lane": lane, "task": task, "seed": seed, **arm, metric: value, "finite": True}
        for lane, (arm, seed, values) in enumerate(described)
        for task, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def small():
    return lanes(
        (ABRUPT, 0, [0.9, 0.2, 0.1]),
        (ABRUPT, 1, [0.9, 0.4, 0.2]),
        (GRADUAL, 0, [0.9, 0.8, 0.7]),
        (GRADUAL, 1, [0.9, 0.9, 0.9]),
        (L2, 1, [0.9, 0.5, 0.4]),
    )


# --- statistics
# --------------------------------------------------------------------------------------------------


def test_statistics_by_hand():
    s = over_seeds.statistics(np.array([1.0, 2.0, 3.0, 10.0]))
    assert (s.count, s.mean, s.minimum, s.maximum) == (4, 4.0, 1.0, 10.0)
    assert s.standard_error == pytest.approx(np.sqrt((9 + 4 + 1 + 36) / 3) / 2)
    assert s.interquartile_mean == 2.5  # of 2 and 3


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 3.0], 2.0),
        ([0.0, 3.0, 9.0], (0.25 * 0 + 3 + 0.25 * 9) / 1.5),
        ([5.0, 1.0, 2.0, 3.0, 100.0], (0.75 * 2 + 3 + 0.75 * 5) / 2.5),
    ],
)
def test_interquartile_mean_by_hand(values, expected):
    assert over_seeds.statistics(np.array(values)).interquartile_mean == pytest.approx(expected)


@pytest.mark.parametrize("seeds", [4, 8, 12])
def test_interquartile_mean_is_the_trimmed_mean_where_four_divides_the_seeds(seeds):
    values = np.random.default_rng(seeds).normal(size=(seeds, 6))
    expected = scipy.stats.trim_mean(values, 0.25, axis=0)
    np.testing.assert_allclose(over_seeds.statistics(values).interquartile_mean, expected)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        np.float64, st.tuples(st.integers(2, 6), st.integers(1, 4)), elements=st.floats(-1e3, 1e3)
    )
)
def test_statistics_agree_with_numpy_and_scipy(values):
    s = over_seeds.statistics(values, resamples=50)
    np.testing.assert_allclose(s.mean, values.mean(0), atol=1e-9)
    np.testing.assert_array_equal(s.minimum, values.min(0))
    np.testing.assert_array_equal(s.maximum, values.max(0))
    np.testing.assert_allclose(s.standard_error, scipy.stats.sem(values, axis=0), atol=1e-9)
    assert (s.low >= s.minimum - 1e-9).all()
    assert (s.high <= s.maximum + 1e-9).all()
    assert (s.low <= s.high).all()


@pytest.mark.parametrize(("seeds", "level"), [(3, 0.95), (5, 0.95), (20, 0.8)])
def test_interval_is_scipys_percentile_bootstrap(seeds, level):
    values = np.random.default_rng(1).normal(size=(seeds, 3))
    s = over_seeds.statistics(values, level=level, resamples=2000)
    for position in range(3):
        expected = scipy.stats.bootstrap(
            (values[:, position],),
            np.mean,
            n_resamples=2000,
            confidence_level=level,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        np.testing.assert_allclose([s.low[position], s.high[position]], expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("seeds", "level"), [(2, 0.95), (3, 0.95), (5, 0.9), (9, 0.99), (40, 0.95)]
)
def test_t_interval_is_scipys(seeds, level):
    values = np.random.default_rng(seeds).normal(5.0, 2.0, size=(seeds, 4))
    s = over_seeds.statistics(values, level=level, resamples=10)
    expected = scipy.stats.t.interval(
        level, seeds - 1, loc=values.mean(0), scale=scipy.stats.sem(values)
    )
    np.testing.assert_allclose([s.t_low, s.t_high], expected, rtol=1e-10)


def test_t_interval_by_hand():
    """Of 1, 2, 3: the mean 2, its standard error 1 / sqrt(3), Student's 97.5 % point for two
    degrees 4.302653.
    """
    s = over_seeds.statistics(np.array([1.0, 2.0, 3.0]))
    assert (float(s.t_low), float(s.t_high)) == pytest.approx(
        (2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5)
    )
    assert (float(s.low), float(s.high)) == (1.0, 3.0)  # the bootstrap's is the whole range


def test_t_interval_holds_the_true_mean_as_often_as_it_says():
    values = np.random.default_rng(5).normal(size=(3, 20_000))
    s = over_seeds.statistics(values, resamples=1)
    held = ((s.t_low < 0) & (s.t_high > 0)).mean()
    assert held == pytest.approx(0.95, abs=3 * (0.95 * 0.05 / 20_000) ** 0.5)


def test_interval_near_the_normal_one_with_many_seeds():
    values = np.random.default_rng(2).normal(3.0, 2.0, size=400)
    s = over_seeds.statistics(values)
    np.testing.assert_allclose(
        [s.low, s.high], s.mean + np.array([-1.96, 1.96]) * s.standard_error, atol=0.03
    )


def test_statistics_are_deterministic_keep_shape_and_each_position_stands_alone():
    values = np.random.default_rng(3).normal(size=(5, 2, 3))
    first, second = over_seeds.statistics(values), over_seeds.statistics(values)
    for a, b in zip(first, second, strict=True):
        assert a.shape == (2, 3)
        np.testing.assert_array_equal(a, b)
    for a, b in zip(first, over_seeds.statistics(values[:, 1, 2]), strict=True):
        np.testing.assert_allclose(a[1, 2], b, rtol=1e-12)


def test_many_positions_are_cut_into_parts_without_a_seam():
    values = np.random.default_rng(4).normal(size=(3, 50))
    whole = over_seeds.statistics(values, resamples=100)
    # 45000 positions, above 4e6 / 100
    parts = over_seeds.statistics(np.tile(values, 900), resamples=100)
    np.testing.assert_allclose(parts.low.reshape(900, 50), np.tile(whole.low, (900, 1)), rtol=1e-12)


def test_equal_seeds_have_an_interval_of_no_width():
    s = over_seeds.statistics(np.full(3, 0.75))
    assert s.low == s.high == s.t_low == s.t_high == s.mean == 0.75
    assert s.standard_error == 0


def test_one_seed_has_a_mean_but_no_interval():
    s = over_seeds.statistics(np.array([[2.0, 3.0]]))
    np.testing.assert_array_equal(s.mean, [2, 3])
    np.testing.assert_array_equal(s.interquartile_mean, [2, 3])
    for unknown in (s.standard_error, s.low, s.high, s.t_low, s.t_high):
        assert np.isnan(unknown).all()


def test_values_that_are_not_finite_are_left_out_and_not_counted():
    values = np.array(
        [[1.0, 1.0, np.nan, np.nan], [3.0, np.inf, np.nan, 5.0], [8.0, 2.0, np.nan, np.nan]]
    )
    s = over_seeds.statistics(values)
    np.testing.assert_array_equal(s.count, [3, 2, 0, 1])
    np.testing.assert_array_equal(s.mean, [4.0, 1.5, np.nan, 5.0])
    np.testing.assert_array_equal(s.maximum, [8.0, 2.0, np.nan, 5.0])
    np.testing.assert_array_equal(np.isnan(s.low), [False, False, True, True])
    alone = over_seeds.statistics(np.array([1.0, 2.0]))
    np.testing.assert_allclose([s.low[1], s.high[1]], [alone.low, alone.high])


@pytest.mark.parametrize("shape", [(0,), (0, 3), (4, 0)])
def test_statistics_of_nothing(shape):
    s = over_seeds.statistics(np.zeros(shape))
    assert s.mean.shape == shape[1:]
    assert (s.count == 0).all()
    assert np.isnan(s.mean).all()


@pytest.mark.parametrize("bad", [{"values": 1.0}, {"level": 1.0}, {"level": 95}, {"resamples": 0}])
def test_statistics_refuses(bad):
    with pytest.raises(ValueError, match=r"values|level|resamples"):
        over_seeds.statistics(**{"values": np.ones(3), **bad})


# --- table
# --------------------------------------------------------------------------------------------------


def test_metric_columns():
    table = pd.DataFrame(
        {c: [1.0] for c in ["lane", "task", "seed", "width", "accuracy", "hessian_top/residual"]}
    )
    table = table.assign(finite=True, model="mlp", comment="words")
    assert statistics.metric_columns(table, ["width", "model"]) == [
        "accuracy",
        "hessian_top/residual",
    ]


def test_write_and_read_keep_every_bit(tmp_path):
    generator = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "lane": np.arange(50),
            "method": ["none", None] * 25,
            "single": generator.normal(size=50).astype(np.float32),
            "double": generator.normal(size=50) * 10.0 ** generator.integers(-300, 300, 50),
            "finite": generator.random(50) < 0.5,
        }
    )
    table.loc[3, "double"] = np.nan
    table.loc[4:6, "double"] = [np.inf, -0.0, 5e-324]
    table_.write(table, tmp_path / "results.parquet")
    back = table_.read(tmp_path / "results.parquet")
    pd.testing.assert_frame_equal(back, table, check_exact=True)
    for column in ("single", "double"):
        assert back[column].to_numpy().tobytes() == table[column].to_numpy().tobytes()
    assert [p.name for p in tmp_path.iterdir()] == ["results.parquet"]


def test_a_part_that_somebody_takes_with_pandas_and_writes_is_no_damaged_table(tmp_path, small):
    small.attrs["note"] = {"of": "mine"}
    table_.write(small, tmp_path / "whole.parquet")
    part = pd.read_parquet(tmp_path / "whole.parquet").query("task > 0")
    assert part.attrs == small.attrs
    part.to_parquet(tmp_path / "part.parquet", index=False)
    back = table_.read(tmp_path / "part.parquet")
    pd.testing.assert_frame_equal(back, part.reset_index(drop=True), check_exact=True)
    assert back.attrs == small.attrs


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, small):
    path = tmp_path / "results.parquet"
    table_.write(small, path)
    before = path.read_bytes()

    def fails_half_way(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(pyarrow.parquet.ParquetWriter, "write_table", fails_half_way)
    with pytest.raises(OSError, match="No space"):
        table_.write(small.head(1), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["results.parquet"]


def test_write_replaces_and_missing_files_are_told(tmp_path, small):
    path = tmp_path / "results.parquet"
    table_.write(small, path)
    table_.write(small.head(2), str(path))
    assert len(table_.read(path)) == 2
    with pytest.raises(FileNotFoundError):
        table_.read(tmp_path / "none.parquet")
    with pytest.raises(FileNotFoundError):
        table_.write(small, pathlib.Path(tmp_path, "no", "folder"))


# --- summary
# --------------------------------------------------------------------------------------------------


def test_summary_by_hand(small):
    long = statistics.summary(small, ARMS)
    assert list(long.columns) == [
        *ARMS,
        "task",
        "metric",
        "seeds",
        "diverged",
        *over_seeds.Statistics._fields,
    ]
    assert len(long) == 3 * 3
    row = long[(long["granularity"] == 1) & (long["method"] == "none") & (long["task"] == 1)].iloc[
        0
    ]
    assert (row["seeds"], row["count"], row["diverged"], row["metric"]) == (
        2,
        2,
        0,
        "online_accuracy",
    )
    assert row["mean"] == pytest.approx(0.3)
    assert row["standard_error"] == pytest.approx(0.1)
    assert (row["minimum"], row["maximum"]) == (0.2, 0.4)
    assert long[long["method"] == "l2"]["count"].tolist() == [1, 1, 1]
    assert long[long["method"] == "l2"]["low"].isna().all()
    for column in ARMS:
        assert long[column].dtype == small[column].dtype


def test_a_probe_that_did_not_run_has_no_rows(small):
    small["hessian_top"] = np.where(small["task"] == 2, 5.0, np.nan)
    long = statistics.summary(small, ARMS)
    assert set(long[long["metric"] == "hessian_top"]["task"]) == {2}
    assert len(long) == 9 + 3


def test_a_diverged_lane_never_vanishes(small):
    small["loss"] = 1.0
    gone = (small["lane"] == 0) & (small["task"] > 0) | (small["lane"] == 4)
    small.loc[gone, "finite"] = False
    small.loc[gone, "loss"] = np.nan
    small.loc[gone, "online_accuracy"] = 0.1
    long = statistics.summary(small, ARMS).set_index(["metric", "method", "granularity", "task"])
    assert long.loc[("loss", "none", 1, 2), ["seeds", "count", "diverged"]].tolist() == [2, 1, 1]
    assert long.loc[("loss", "none", 1, 0), ["seeds", "count", "diverged"]].tolist() == [2, 2, 0]
    # no lane of this arm has a loss, and yet it is there
    assert long.loc[("loss", "l2", 1, 2), ["seeds", "count", "diverged"]].tolist() == [1, 0, 1]
    # what a diverged lane still scored counts
    assert long.loc[("online_accuracy", "none", 1, 2), "mean"] == pytest.approx((0.1 + 0.2) / 2)

    ends = statistics.final(small, ARMS, "loss", last=2)
    assert ends["seeds"].tolist() == [2, 2, 1]
    assert ends["diverged"].tolist() == [1, 0, 1]
    assert ends["count"].tolist() == [1, 2, 0]
    # a lane that diverges within the window has no mean, rather than one of the good tasks alone
    assert statistics.final(small, ARMS, "loss", last=3)["count"].tolist() == [1, 2, 0]
    text = tables.final_table(small, ARMS, "loss", last=2)
    assert "1 of 2 (1 diverged)" in text
    assert "0 of 1 (1 diverged)" in text
    pairs = statistics.paired_differences(small, ARMS, ABRUPT, "loss", last=2)
    assert pairs["diverged"].tolist() == [1, 1]
    assert pairs["count"].tolist() == [1, 0]


@pytest.mark.parametrize("seed", range(3))
def test_row_order_and_index_do_not_matter(small, seed):
    small["hessian_top"] = np.where(small["task"] == 2, small["online_accuracy"] * 7, np.nan)
    mixed = small.sample(frac=1, random_state=seed).set_index(np.full(len(small), 7))
    baseline = {"granularity": 1, "method": "none"}
    for function in (
        statistics.summary,
        lambda t, a: statistics.final(t, a, last=2),
        lambda t, a: statistics.paired_differences(t, a, baseline, last=2),
    ):
        pd.testing.assert_frame_equal(
            function(small, ARMS), function(mixed, ARMS), check_exact=True
        )
    assert tables.final_table(small, ARMS) == tables.final_table(mixed, ARMS)
    assert (
        statistics.arm_labels(small, ARMS).tolist() == statistics.arm_labels(mixed, ARMS).tolist()
    )


def test_no_arm_columns_is_one_arm(small):
    alone = small[small["lane"].isin([0, 1])].drop(columns=list(ARMS))
    assert statistics.final(alone, [], last=1)["mean"].tolist() == pytest.approx([0.15])
    assert len(statistics.summary(alone, [])) == 3
    assert statistics.arm_labels(alone, []).tolist() == ["all lanes"]


# --- end of training and differences
# ------------------------------------------------------------------------------


def test_final_by_hand(small):
    ends = statistics.final(small, ARMS, last=2)
    np.testing.assert_allclose(ends["mean"], [np.mean([0.15, 0.3]), np.mean([0.75, 0.9]), 0.45])
    np.testing.assert_allclose(ends["minimum"], [0.15, 0.75, 0.45])
    np.testing.assert_allclose(statistics.final(small, ARMS, last=99)["mean"].iloc[2], 0.6)


def test_final_of_a_probe_takes_the_last_tasks_it_measured():
    table = lanes(
        (ABRUPT, 0, [np.nan, 1.0, np.nan, 3.0, np.nan, 5.0, np.nan]), metric="hessian_top"
    )
    assert statistics.final(table, ARMS, "hessian_top", last=2)["mean"].tolist() == [4.0]


def test_paired_differences_by_hand(small):
    pairs = statistics.paired_differences(small, ARMS, {"granularity": 1, "method": "none"}, last=2)
    assert pairs.index.tolist() == [1, 2]
    np.testing.assert_allclose(pairs["mean"], [(0.6 + 0.6) / 2, 0.15])
    assert pairs["seeds"].tolist() == [2, 1]
    np.testing.assert_allclose(pairs["low"].iloc[0], 0.6)
    assert np.isnan(pairs["low"].iloc[1])


def test_pairs_are_over_the_same_tasks():
    # the second one is not done yet
    table = lanes((ABRUPT, 0, [1.0, 2.0, 3.0, 4.0]), (GRADUAL, 0, [2.0, 4.0]))
    pairs = statistics.paired_differences(table, ARMS, ABRUPT, last=1)
    assert pairs["mean"].tolist() == [2.0]


def test_pairing_removes_what_the_seeds_share():
    generator = np.random.default_rng(0)
    shared = generator.normal(0, 1, 8)
    table = lanes(
        *((ABRUPT, s, shared[s] + generator.normal(0, 0.01, 5)) for s in range(8)),
        *((GRADUAL, s, shared[s] + 0.2 + generator.normal(0, 0.01, 5)) for s in range(8)),
    )
    pair = statistics.paired_differences(table, ARMS, ABRUPT).iloc[0]
    apart = statistics.final(table, ARMS)
    unpaired = np.hypot(*apart["standard_error"])
    assert pair["standard_error"] < unpaired / 20
    assert 0.15 < pair["low"] < 0.2 < pair["high"] < 0.25
    np.testing.assert_allclose(pair["mean"], apart["mean"].diff().iloc[1])


def test_missing_seeds_pair_what_is_common():
    table = lanes(
        *((ABRUPT, s, [s]) for s in (0, 1, 2)),
        *((GRADUAL, s, [10.0 + s]) for s in (1, 2, 5)),
        (L2, 9, [1.0]),
    )
    pairs = statistics.paired_differences(table, ARMS, ABRUPT)
    assert pairs["count"].tolist() == [2, 0]
    assert pairs["mean"].iloc[0] == 10.0
    assert "-" in tables.final_table(table, ARMS).splitlines()[-1]
    with pytest.raises(ValueError, match="common"):
        statistics.paired_differences(table[table["granularity"].eq(1)], ARMS, ABRUPT)


def test_baseline_values_may_be_missing_numbers(small):
    assert len(statistics.paired_differences(small, ARMS, {"l2.strength": 0.001})) == 2
    only = small[small["lane"] > 1]
    assert statistics.paired_differences(
        only, ARMS, {"l2.strength": float("nan")}
    ).index.tolist() == [1]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda t: statistics.final(t, ARMS, "speed"),
            "unknown metric 'speed': known are online_accuracy",
        ),
        (
            lambda t: tables.final_table(t, ARMS, "speed"),
            "unknown metric 'speed': known are online_accuracy",
        ),
        (
            lambda t: statistics.paired_differences(t, ARMS, ABRUPT, "speed"),
            "known are online_accuracy",
        ),
        (lambda t: statistics.final(t, ARMS, last=0), "last is 0"),
        (lambda t: statistics.paired_differences(t, ARMS, {"granularity": 3}), "fits no arm"),
        (
            lambda t: statistics.paired_differences(t, ARMS, {"granularity": 1}),
            r"fits 2 arms \(abrupt; L2, abrupt\)",
        ),
        (
            lambda t: statistics.paired_differences(t, ARMS, {"grain": 1}),
            "unknown arm column 'grain'",
        ),
        (lambda t: tables.final_table(t, ARMS, baseline={"method": "x"}), "fits no arm"),
        (lambda t: statistics.summary(t, ["depth"]), "lacks the columns depth"),
        (lambda t: statistics.summary(t.head(0), ARMS), "no rows"),
        (lambda t: statistics.final(t, ["transition"]), "repeats seed"),
    ],
)
def test_refusals(small, call, words):
    with pytest.raises(ValueError, match=words):
        call(small)


# --- labels and text
# ----------------------------------------------------------------------------------------------


def labelled(*arms):
    table = lanes(*((arm, 0, [1.0]) for arm in arms))
    return statistics.arm_labels(
        table,
        [c for c in table.columns if c not in (*statistics.FIXED, "online_accuracy", "finite")],
    )


def test_labels_name_what_varies():
    assert labelled(ABRUPT, L2, GRADUAL, GRADUAL | {"transition": "sampling"}).tolist() == [
        "abrupt",
        "L2, abrupt",
        "output interpolation, K = 20",
        "task sampling, K = 20",
    ]
    assert labelled(ABRUPT, L2).tolist() == ["none", "L2"]
    assert labelled(ABRUPT).tolist() == ["abrupt"]
    assert labelled(L2).tolist() == ["L2, abrupt"]


def test_labels_name_numbers():
    assert labelled(ABRUPT, L2, L2 | {"l2.strength": 0.01}).tolist() == [
        "none",
        "L2, l2.strength=0.001",
        "L2, l2.strength=0.01",
    ]
    plain = {"method": "none", "learning_rate": 0.1, "norm": "none", "width": 64}
    assert labelled(plain, plain | {"learning_rate": 0.1234567, "norm": "layer_norm"}).tolist() == [
        "learning_rate=0.1, no norm",
        "learning_rate=0.1234567, layer norm",
    ]


def test_labels_stay_distinct():
    both = labelled(ABRUPT, ABRUPT | {"transition": "sampling"}, GRADUAL)
    assert both.tolist() == [
        "abrupt (output interpolation)",
        "abrupt (task sampling)",
        "output interpolation, K = 20",
    ]
    numbers = labelled({"method": "none", "noise": np.nan}, {"method": "none", "noise": 0.5})
    assert numbers.tolist() == ["none", "noise=0.5"]


def test_labels_follow_the_lanes_not_the_alphabet():
    assert labelled(GRADUAL, ABRUPT).tolist() == ["output interpolation, K = 20", "abrupt"]


def test_final_table_whole(small):
    expected = """\
    online accuracy: mean over the last 2 tasks measured, over seeds
    intervals: 95 %, Student's t over seeds (fewer than 10)
    differences: paired, same seed and same tasks

    arm                           seeds  mean, %   95 % interval  minus abrupt, points   95 % interval
    abrupt                            2     22.5  -72.8 to 117.8
    output interpolation, K = 20      2     82.5  -12.8 to 177.8                 +60.0  +60.0 to +60.0
    L2, abrupt                        1     45.0               -                 +15.0               -"""  # noqa: E501
    assert tables.final_table(small, ARMS, last=2) == textwrap.dedent(expected)


def test_lanes_of_different_lengths_are_told():
    table = lanes((ABRUPT, 0, [0.1, 0.2, 0.3]), (GRADUAL, 0, [0.1, 0.2]))
    told = "lanes have 2 to 3 tasks: a mean is over the last that each has, a difference over tasks"
    assert f"{told} of both" in tables.final_table(table, ARMS).splitlines()
    assert "lanes have" not in tables.final_table(table[table["task"] < 2], ARMS)


def test_final_table_of_one_arm_and_of_another_unit():
    table = lanes(*((ABRUPT, s, [0.00123 + s * 1e-5]) for s in range(10)), metric="loss")
    expected = """\
    loss: mean over the last task measured, over seeds; lower is better
    intervals: 95 % percentile bootstrap over seeds

    arm     seeds      mean           95 % interval
    abrupt     10  0.001275  0.001258 to 0.001293"""
    text = tables.final_table(table, ARMS, "loss")
    assert text.splitlines()[:3] == textwrap.dedent(expected).splitlines()[:3]
    row = statistics.final(table, ARMS, "loss").iloc[0]
    assert (
        text.splitlines()[-1] == f"abrupt     10  0.001275  {row['low']:.6f} to {row['high']:.6f}"
    )


def test_the_interval_printed_is_the_one_for_its_seeds():
    def printed(*seeds):
        described = [
            (arm, s, [0.1 * s])
            for arm, n in zip((ABRUPT, GRADUAL), seeds, strict=False)
            for s in range(n)
        ]
        lines = tables.final_table(lanes(*described, metric="loss"), ARMS, "loss").splitlines()
        return lines[1], statistics.final(lanes(*described, metric="loss"), ARMS, "loss"), lines[-1]

    student, enough = (
        "intervals: 95 %, Student's t over seeds (fewer than 10)",
        "intervals: 95 % percentile bootstrap",
    )
    kind, ends, line = printed(10, 9)
    assert kind == student
    assert f"{ends['t_low'][1]:.4f} to {ends['t_high'][1]:.4f}" in line
    kind, ends, line = printed(11, 10)
    assert kind == f"{enough} over seeds"
    assert f"{ends['low'][1]:.4f} to {ends['high'][1]:.4f}" in line
    # the arm with one seed has none, and no other has few
    assert printed(12, 1)[0] == f"{enough} over seeds"
    assert printed(1)[0] == printed(1, 1)[0] == "intervals: none, since they take two seeds"


def test_tables_of_what_was_never_measured_of_constants_and_of_diverged_arms():
    """Every printed cell is a right number or "-"; nothing warns."""
    for values, cells in (
        ([np.nan, np.nan], ["-", "-", "-", "-"]),
        ([np.inf, -np.inf], ["-", "-", "-", "-"]),
        ([0.5, 0.5], ["50.0", "50.0 to 50.0", "+0.0", "+0.0 to +0.0"]),
        ([0.0, 0.0], ["0.0", "0.0 to 0.0", "+0.0", "+0.0 to +0.0"]),
    ):
        table = lanes(*((arm, seed, values) for arm in (ABRUPT, GRADUAL) for seed in (0, 1)))
        text = tables.final_table(table, ARMS).splitlines()
        assert [cell.strip() for cell in text[-1].split("  ") if cell.strip()][2:] == cells
        assert len(tables.finals(table, ARMS)) == 2
        known = np.isfinite(values).any()
        assert len(statistics.summary(table, ARMS)) == (4 if known else 0)
    lost = lanes((ABRUPT, 0, [0.5, np.nan]), (ABRUPT, 1, [0.5, np.nan]), (GRADUAL, 0, [0.5, 0.75]))
    lost.loc[(lost["granularity"] == 1) & (lost["task"] == 1), "finite"] = False
    lines = tables.final_table(lost, ARMS, last=1).splitlines()
    assert lines[1] == "intervals: none, since they take two seeds"
    assert lines[-2].split() == ["abrupt", "0", "of", "2", "(2", "diverged)", "-", "-"]
    assert lines[-1].split()[-4:] == ["75.0", "-", "-", "-"]
    single = tables.final_table(lanes((ABRUPT, 0, [0.25])), ARMS).splitlines()
    assert single[-1].split() == ["abrupt", "1", "25.0", "-"]
    assert len(statistics.summary(lanes((ABRUPT, 0, [0.25])), ARMS)) == 1


def test_a_table_without_the_metric_or_with_no_row_of_it_is_told():
    # (never a number)
    table = lanes((ABRUPT, 0, [0.5]), metric="loss").assign(online_accuracy=None)
    for call in (statistics.final, tables.final_table):
        with pytest.raises(ValueError, match=r"unknown metric 'online_accuracy': known are loss\."):
            call(table, ARMS)


def test_final_table_takes_the_baseline_it_is_given(small):
    text = tables.final_table(small, ARMS, baseline={"granularity": 20})
    assert "minus output interpolation, K = 20, points" in text
    # no abrupt arm of method none: the first arm
    abrupt_last = small[small["lane"].isin([2, 3, 4])]
    assert "minus output interpolation" in tables.final_table(abrupt_last, ARMS)
    shuffled = small.assign(lane=(small["lane"] + 3) % 5)
    assert "minus abrupt" in tables.final_table(shuffled, ARMS)


def test_finals_are_final_and_paired_differences_of_every_metric():
    rows = [
        {"lane": 2 * (k != 1) + seed, "task": task, "seed": seed, "granularity": k,
         "method": "none", "finite": True,
         "accuracy": 0.1 * seed + 0.01 * task * k, "loss": float(k), "loss/h0": 1.0}
        for k in (1, 4) for seed in (0, 1) for task in (0, 1, 2)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    found = tables.finals(table, ["granularity", "method"], last=2)
    assert list(zip(found["metric"], found["arm"], strict=True)) == [
        (metric, arm)
        for metric in ("accuracy", "loss")
        for arm in statistics.arm_labels(table, ["granularity", "method"])
    ]
    abrupt, gradual = found.iloc[0], found.iloc[1]
    assert (abrupt["mean"], gradual["mean"]) == pytest.approx((0.05 + 0.015, 0.05 + 0.06))
    assert np.isnan(abrupt["minus"])
    assert tuple(gradual[["minus", "minus_low", "minus_high"]]) == pytest.approx(
        (0.045, 0.045, 0.045)
    )
    assert tuple(found.iloc[3][["seeds", "diverged", "mean", "minus"]]) == (2, 0, 4.0, 3.0)
    ends = ["low", "high", "t_low", "t_high"]
    two = statistics.final(table, ["granularity", "method"], "accuracy", last=2)
    np.testing.assert_array_equal(found.loc[found["metric"] == "accuracy", ends], two[ends])
    apart = statistics.paired_differences(
        table, ["granularity", "method"], {"granularity": 1}, "accuracy", last=2
    )
    np.testing.assert_array_equal(
        gradual[[f"minus_{end}" for end in ends]].astype(float), apart[ends].iloc[0]
    )


def test_a_task_that_does_not_change_is_named_in_words():
    values = {
        "granularity": [1, 1, 4, 4],
        "random_labels.change": [True, False, True, False],
        "other": [True] * 4,
    }
    arms = pd.DataFrame(values).assign(
        seed=0, task=0, finite=True, lane=range(4), online_accuracy=1.0
    )
    names = statistics.arm_labels(arms, list(values)).tolist()
    assert names == [
        "abrupt, changing task",
        "abrupt, unchanging task",
        "K = 4, changing task",
        "K = 4, unchanging task",
    ]


def test_a_table_that_is_written_anew_while_it_is_read(small, tmp_path, monkeypatch):
    """As by the process of a slice: the old one or the new one is read."""
    path, whole = tmp_path / "results.parquet", pd.read_parquet
    table_.write(small, path)

    def read_late(file):
        table_.write(small.iloc[:5], path)
        return whole(file)

    monkeypatch.setattr(table_.pd, "read_parquet", read_late)
    pd.testing.assert_frame_equal(table_.read(path), small)
