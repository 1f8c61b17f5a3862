"""The figures and the factorial of Lyle et al.: what they run, and the factorial's arithmetic."""

import importlib
import itertools
import pathlib

import numpy as np
import pandas as pd
import pytest

from experiments import accounts, disentangling, export, figures, presence
from experiments.disentangling import (
    claims,
    factorial,
    kernels,
    redrawn,
    settings,
    streams,
    switch,
)
from plasticity_jax.cli import flags
from plasticity_jax.storage import table as table_

FILES = sorted(
    path.stem for path in pathlib.Path(disentangling.__file__).parent.glob("figure_*.py")
)


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_it_shows_and_how_it_is_run(name):
    text = importlib.import_module(f"experiments.disentangling.{name}").__doc__ or ""
    assert f"python -m experiments.disentangling.{name} " in text
    for word in ("Source: Lyle et al.", "--scale=reduced", "Paper", "Cost:"):
        assert word in text


@pytest.mark.parametrize("name", settings.BENCHMARKS)
@pytest.mark.parametrize("scale", ["paper", "reduced", "smoke"])
def test_every_benchmark_is_a_run_that_measures_its_metric(name, scale):
    figure = settings.figure("x", name)
    plan = figures.plan(figure, figures.Choices(scale=scale))
    values, given = flags.parse([], plan.defaults)
    runs = flags.runs(values, given, plan.arms)
    figures.metrics.check_measured([spec for spec, _ in runs], figures.metric_of(figure))


def test_offsets_and_shares_are_lanes_of_one_program():
    for name, count in (("offsets", 5), ("shares", 5)):  # (a dose-response is one program)
        plan = figures.plan(settings.figure("1", name), figures.Choices(scale="reduced"))
        values, given = flags.parse([], plan.defaults)
        ((_, lanes),) = flags.runs(values, given, plan.arms)
        assert len(lanes) == count * 5
    ratios = {share / every for share, every in settings.SHARES}
    assert max(ratios) == pytest.approx(min(ratios))


@pytest.mark.parametrize("name", factorial.STREAMS)
def test_a_factorial_has_eight_cells_in_four_programs(name):
    stream = factorial.STREAMS[name]
    values, given = flags.parse([], factorial.defaults(stream, "reduced"))
    runs = flags.runs(values, given, factorial.arms(stream))
    assert sorted((spec.norm, spec.head) for spec, _ in runs) == sorted(
        (norm, head) for norm in ("none", "layer") for head in ("linear", stream.head)
    )
    assert all(len(lanes) == 2 * 5 for _, lanes in runs)


def table(seeds=4, noise=0.1):
    """Accuracies with main effects 2, 1, 0.5 and an interaction of the first two, 0.4."""
    random, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        own = random.normal()
        for cell in np.ndindex(2, 2, 2):
            a, b, c = cell
            mean = own + 2 * a + b + 0.5 * c + 0.8 * a * b + noise * random.normal()
            for task in range(3):
                row = {"norm": ("none", "layer")[a], "l2.strength": 1e-4 * b, "seed": seed}
                rows.append(row | {"head": ("linear", "two_hot")[c], "task": task, "score": mean})
    return pd.DataFrame(rows)


def test_effects_are_those_of_a_linear_model_with_paired_seeds():
    cells = factorial.outcomes(table(), "score", 2)
    found = factorial.effects(cells).set_index("effect")
    signs = {name: 2 * cells[name].to_numpy() - 1 for name in factorial.FACTORS}
    columns = [pd.get_dummies(cells["seed"]).to_numpy(float)]
    for name in found.index:
        columns.append(np.prod([signs[part] for part in name.split(" x ")], axis=0)[:, None])
    fit = np.linalg.lstsq(np.hstack(columns), cells["outcome"].to_numpy(), rcond=None)[0]
    np.testing.assert_allclose(found["mean"], 2 * fit[4:], atol=1e-10)
    exact = factorial.effects(factorial.outcomes(table(noise=0.0), "score", 1))
    means = exact.set_index("effect")["mean"]
    assert means["layer norm"] == pytest.approx(2.4)
    assert means["L2"] == pytest.approx(1.4)
    assert means["layer norm x L2"] == pytest.approx(0.4)
    assert means["layer norm x L2 x output"] == pytest.approx(0, abs=1e-12)
    assert (found["low"] < found["mean"]).all()


def test_two_granularities_are_a_fourth_factor():
    """The finer one adds 0.3, and 0.2 more with layer norm: an interaction of 0.1."""
    plain, random = table(noise=0.0).assign(granularity=1), np.random.default_rng(1)
    fine = plain.assign(granularity=20, score=plain["score"] + 0.3)
    fine["score"] += 0.2 * (fine["norm"] == "layer") + 1e-3 * random.normal(size=len(fine))
    cells = factorial.outcomes(pd.concat([plain, fine]), "score", 3)
    assert factorial.factors(cells) == [*factorial.FACTORS, "gradual change"]
    means = factorial.effects(cells).set_index("effect")["mean"]
    assert len(means) == 15
    assert means["gradual change"] == pytest.approx(0.4, abs=1e-3)
    assert means["layer norm x gradual change"] == pytest.approx(0.1, abs=1e-3)
    assert len(factorial.summary(cells)) == 16
    third = plain.assign(granularity=5)
    with pytest.raises(ValueError, match="allowed are one, or two for a fourth factor"):
        factorial.outcomes(pd.concat([plain, fine, third]), "score", 3)


def test_peaks_are_best_means_in_a_row_and_errors_count_down():
    scores = np.array([0.1, 0.4, 0.6, 0.2, 0.1])
    rows = table(seeds=1, noise=0.0).query("task == 0")
    whole = pd.concat([rows.assign(task=t, squared_error=s) for t, s in enumerate(scores)])
    whole = whole.assign(online_accuracy=whole["squared_error"])
    cells = factorial.outcomes(whole, "online_accuracy", 2)
    np.testing.assert_allclose(cells["outcome"], 0.15)
    np.testing.assert_allclose(cells["peak"], 0.5)
    cells = factorial.outcomes(whole, "squared_error", 2)
    np.testing.assert_allclose(cells["outcome"], -np.log10(0.15))
    np.testing.assert_allclose(cells["peak"], -np.log10(0.15))
    assert factorial.summary(cells)["cell"].iloc[0] == "none"
    assert factorial.summary(cells)["cell"].iloc[-1] == "layer norm + L2 + output"


def falling(last, best=0.9, metric="online_accuracy"):
    """Five seeds over ten tasks, of which as many end at `last` as it lists, the others stay."""
    rows = []
    for seed in range(5):
        for task in range(10):
            value = last[seed] if task >= 5 else best
            rows.append({"seed": seed, "task": task, metric: value})
    return pd.DataFrame(rows)


def test_an_effect_is_present_if_four_of_five_seeds_fall():
    four = presence.fallen(falling([0.7, 0.7, 0.7, 0.7, 0.85]), "online_accuracy")
    assert four["fell"].tolist() == [True] * 4 + [False]
    assert presence.is_present(four)
    assert "effect present: 4 of 5 seeds fall, from 0.9 to 0.73" in presence.told("x", four)
    three = presence.fallen(falling([0.7, 0.7, 0.7, 0.85, 0.95]), "online_accuracy")
    assert not presence.is_present(three)
    assert "effect not present here" in presence.told("x", three)
    errors = falling([1.2, 1.2, 1.2, 1.2, 0.8], best=1.0, metric="squared_error")
    assert presence.fallen(errors, "squared_error")["fell"].tolist() == [True] * 4 + [False]


def of_arms():
    """Two arms over six tasks of four seeds: b ends 10 above a, and loses 4 on the way."""
    rows = []
    for name, level in (("a", 1.0), ("b", 11.0)):
        for seed in range(4):
            for task in range(6):
                own = {"lane": 4 * (name == "b") + seed, "finite": True, "norm": name}
                value = level + 0.01 * seed * (name == "b") + 4 * (task < 4) * (name == "b")
                other = {"size": value**2, "against": -value}
                rows.append({**own, "seed": seed, "task": task, "score": value, **other})
    return pd.DataFrame(rows)


def test_contrasts_are_of_each_seed():
    table, a, b = of_arms(), {"norm": "a"}, {"norm": "b"}
    np.testing.assert_allclose(accounts.more(b, a, "score", 2)(table), [10, 10.01, 10.02, 10.03])
    np.testing.assert_allclose(accounts.decades(b, a, "score", 2)(table)[0], np.log10(11))
    np.testing.assert_allclose(accounts.decline(b, "score", 2)(table), 4)
    np.testing.assert_allclose(accounts.course(b, "score")(table), 4)
    np.testing.assert_allclose(accounts.course(b, "score", "size")(table)[0], 15**2 - 11)
    np.testing.assert_allclose(accounts.together(b, "score", "size")(table), 1)
    np.testing.assert_allclose(accounts.together(b, "score", "against")(table), -1)
    with pytest.raises(ValueError, match=r"^norm=c names 0 rows: allowed is what one arm alone"):
        accounts.arm(table, {"norm": "c"}, "score")
    with pytest.raises(ValueError, match=r"names 48 rows: allowed is what one arm alone has"):
        accounts.arm(table, {}, "score")


@pytest.mark.parametrize(
    ("intervals", "word"),
    [
        ([(2, 1, 3), (1, 0.5, 2)], "agrees"),
        ([(2, 1, 3), (0.5, -1, 2)], "not told"),
        ([(2, 1, 3), (-2, -3, -1)], "disagrees"),
    ],
)
def test_a_claim_agrees_if_all_intervals_are_above_0(intervals, word):
    assert accounts.verdict(intervals) == word


def test_claims_are_told_of_lanes_that_are_kept(tmp_path):
    a, b = {"norm": "a"}, {"norm": "b"}
    contrasts = {"b over a": accounts.more(b, a, "score", 2)}
    own = accounts.Claim("9", "b is better", "one", "points", contrasts)
    other = own._replace(figure="8", lanes="absent")
    table_.write(of_arms(), tmp_path / "one.parquet")
    head, _, row = accounts.rows_of_claims([own, other], {}, tmp_path).splitlines()
    assert head.startswith("| figure |")
    assert row.startswith(
        "| 9 | b is better | **agrees** | b over a +1001.5 [+999.4, +1003.6] points"
    )
    kept = {"one": accounts.Kept(a, "score", 2)}
    assert "| **agrees**; effect not present here |" in accounts.rows_of_claims(
        [own], kept, tmp_path
    )
    lines = accounts.rows_of_arms("one", accounts.Kept(a, "score", 2), tmp_path).splitlines()
    assert (
        lines[2] == "| a | 100.0 [100.0, 100.0] | 100.0 [100.0, 100.0] | 100.0 [100.0, 100.0] |  |"
    )
    assert lines[3].startswith("| b | 1501.5 [")
    assert "+1001.5 [+999.4, +1003.6] |" in lines[3]
    assert lines[-1] == (
        "- stream one: effect not present here: 0 of 4 seeds fall, from 1 to 1 on average."
    )


def test_linearized_units_are_counted_beside_the_papers():
    rows = []
    for activation, norm, draw in claims.READINGS:
        arm = {"activation": activation, "norm": norm, "random_labels.draw": draw}
        for seed in range(2):
            for task, share in enumerate((0.0, 0.5, 0.25)):
                found = {claims.UNITS: share, claims.LAST_LINES: share / 2}
                rows.append({**arm, "seed": seed, "task": task, **found})
    lines = claims.rows_of_units(pd.DataFrame(rows)).splitlines()
    assert len(lines) == 2 + 8
    assert lines[2] == (
        "| gelu, norm none, iid | 64.00 [64.00, 64.00] | 128.00 [128.00, 128.00] "
        "| 32.00 [32.00, 32.00] | 64.00 [64.00, 64.00] | about 250 |"
    )


def test_shares_are_told_by_cycle():
    rows = []
    for number, (share, _) in enumerate(settings.SHARES):
        for seed in range(2):
            for task in range(200):
                own = {"random_labels.share": share, "seed": seed, "task": task}
                rows.append({**own, "online_accuracy": number / 10 + task // 100 / 100})
    lines = claims.rows_of_shares(pd.DataFrame(rows)).splitlines()
    assert lines[:2] == ["| share | 1 | 2 |", "|---|---|---|"]
    assert lines[3] == "| 0.03 | 10.0 [10.0, 10.0] | 11.0 [11.0, 11.0] |"
    assert len(lines) == 2 + 5


def test_of_many_cycles_some_are_told():
    rows = []
    for share, _ in settings.SHARES:
        for seed, cycle in itertools.product(range(2), range(11)):
            own = {"random_labels.share": share, "seed": seed, "task": cycle * claims.CYCLE}
            rows.append({**own, "online_accuracy": cycle / 100})
    lines = claims.rows_of_shares(pd.DataFrame(rows)).splitlines()
    assert lines[0] == "| share | 1 | 2 | 3 | 5 | 8 | 11 |"
    assert lines[2].endswith("| 4.0 [4.0, 4.0] | 7.0 [7.0, 7.0] | 10.0 [10.0, 10.0] |")


def test_a_share_of_the_mean_that_one_direction_carries_is_less_the_bias():
    own = {"target_offset.offset": 100.0, "norm": "none", "task": 0}
    parts = {"feature_spectrum/top_direction": 0.9, "feature_spectrum/bias": 0.2}
    table = pd.DataFrame([{**own, **parts, "seed": seed} for seed in range(2)])
    np.testing.assert_allclose(claims._shares(table, "none"), 0.7)


def test_the_composite_has_bins_for_all_of_its_targets():
    low, high = -4.5, 10.0 * (settings.COMMON["tasks"] - 1) + 4.5
    for arm in factorial.arms(factorial.STREAMS["composite"])[1:]:
        assert arm["two_hot.low"] < low
        assert arm["two_hot.high"] > high


def test_verdicts_tell_more_less_none_and_saturated():
    cells = factorial.outcomes(table(noise=0.01), "score", 2)
    found = factorial.effects(cells)
    first, *_ = factorial.verdicts(cells, found, None)
    assert first == "layer norm x L2: together more than the sum."
    found.loc[3, ["low", "high"]] = -2.0, -1.0
    found.loc[4, ["low", "high"]] = -1.0, 1.0
    told = factorial.verdicts(cells, found, None)
    assert told[0].endswith("together less than the sum.")
    assert told[1].endswith("no interaction seen, the interval holds 0.")
    assert all("saturated" in one for one in factorial.verdicts(cells, found, -100.0))


def test_a_cell_without_a_seed_is_refused():
    part = table().query("not (seed == 1 and head == 'linear')")
    with pytest.raises(ValueError, match="allowed are all of 8 cells with each seed"):
        factorial.outcomes(part, "score", 1)


def test_the_course_after_a_switch_is_of_seeds_by_arm_step_and_task(tmp_path):
    lanes = [(norm, seed) for norm in ("none", "layer") for seed in range(3)]
    rows, points = [], []
    for lane, (norm, seed) in enumerate(lanes):
        for task in range(4):
            own = {"lane": lane, "task": task, "seed": seed}
            rows.append({**own, "norm": norm, "online_loss": 1.0})
            for point in (0, 1, 5):
                size = 10 * task + point + 100 * (norm == "layer") + seed
                points.append({**own, "point": point, "online_loss": size, "ntk": 1.0})
    table = pd.DataFrame(rows)
    assert switch.drawn(table, ["norm"], tmp_path, tmp_path / "figure_x") == []
    pd.DataFrame(points).to_parquet(tmp_path / "points.parquet")
    told = switch.drawn(table, ["norm"], tmp_path, tmp_path / "figure_x")
    assert told == [f"first steps after a switch: {tmp_path}/figure_x_switch.png"]
    found = pd.read_csv(tmp_path / "figure_x_switch.csv")
    assert len(found) == 2 * 2 * 3  # arms, tasks, steps
    assert set(found["task"]) == {1, 3}
    assert set(found["seeds"]) == {3}
    steps = found.query("task == 3 and mean > 100").sort_values(by="point")
    np.testing.assert_allclose(steps["mean"], [131, 132, 136])
    half = 4.302653 / 3**0.5  # Student's t for 2 degrees of freedom, deviation 1
    np.testing.assert_allclose(steps["high"] - steps["mean"], half, rtol=1e-5)
    assert (tmp_path / "figure_x_switch.png").is_file()


def test_flags_of_the_first_papers_figures_are_refused():
    with pytest.raises(ValueError, match=r"^controls is given, but figure 1a has arms of its own"):
        settings.KIND.arms(settings.figure("1a", "offsets"), figures.Choices(controls=True))


def test_an_unknown_stream_is_a_fault_of_the_command_line(capsys):
    assert factorial.main(["--stream=x", "--workdir=nowhere"]) == 2
    said = capsys.readouterr().err
    assert f"unknown stream 'x': known are {', '.join(streams.STREAMS)}." in said


QUICK = "figure_25_resnet_digits"  # the least arms


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n == QUICK else pytest.mark.long) for n in redrawn.ARMS],
)
def test_tables_of_arms_of_several_runs_are_of_the_kept_lanes(name, tmp_path):
    final = redrawn.draw(name, tmp_path, picture=False)
    for made in (final, tmp_path / f"{name}.csv"):
        assert made.read_text() == (redrawn.RESULTS / made.name).read_text()
    assert (redrawn.RESULTS / f"{name}.png").exists()


def test_where_arms_ended_is_drawn_in_that_order():
    arms = [
        accounts.Reached(label, *(np.array([end, end + 0.1]) for _ in range(3)))
        for label, end in (("a", 0.5), ("b", 0.1), ("c", 0.8))
    ]
    (axes,) = redrawn.picture_of_ends(arms, "A title", 5).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a", "c"]
    ends = axes.lines[0].get_xdata()
    np.testing.assert_allclose(ends, [15, 55, 85])


def test_reported_tables_are_made_from_the_lanes_kept():
    text = redrawn.README.read_text(encoding="utf-8")
    assert redrawn.filled(text) == text
    assert {"labels", "offset", "composite"} <= set(redrawn.there())
    for name in redrawn.there():
        assert redrawn.block(name) in text
        kept = pd.read_csv(redrawn.RESULTS / f"factorial_{name}.csv")
        found = factorial.effects(redrawn.cells(name)).round(6)
        pd.testing.assert_frame_equal(kept, found, rtol=1e-5, atol=2e-6)


def test_an_exported_record_names_no_folder_and_no_machine():
    words = (
        "/here/bin/python -m experiments.run --data_dir=/here/data --workdir=~/runs/one --model=mlp"
    )
    call = {"command": words, "host": "mine", "commit": "abc", "dirty": False}
    told = "python -m experiments.run --data_dir=data --workdir=one --model=mlp"
    kept = export._elsewhere(call, None)
    assert kept == {"command": told, "commit": "abc", "dirty": False}
    assert export._elsewhere(call, "def")["commit"] == "def"
    assert export._data("/here/images; 100 of 200") == "images; 100 of 200"
    assert export._data("/here/images") == "images"


def test_kernels_are_drawn_with_inputs_that_are_alike_beside_each_other():
    """Two groups in turn become two blocks; an input without a gradient comes last."""
    group = np.array([0, 1, 0, 1, 0])
    rows = np.array([[3.0, 0.0], [0.0, 2.0]])[group]
    kernel = np.pad(rows @ rows.T, (0, 1))
    found = kernels.ordered(kernel)
    blocks = np.kron(np.eye(2), np.ones((3, 3)))[:5, :5]
    assert (found[:5, :5] == blocks).all() or (found[:5, :5] == blocks[::-1, ::-1]).all()
    assert not found[5].any()
    assert not kernels.ordered(np.zeros((3, 3))).any()


def test_one_factor_explains_a_diagonal_and_a_matrix_of_rank_one():
    v = np.random.default_rng(0).uniform(0.3, 0.9, 12)
    whole = np.outer(v, v) * (1 - np.eye(12)) + np.eye(12)
    assert kernels.of_one_factor(whole) == pytest.approx(1, abs=1e-6)
    size = np.arange(1.0, 13.0)
    assert kernels.of_one_factor(whole * np.outer(size, size)) == pytest.approx(1, abs=1e-6)
    blocks = np.kron(np.eye(2), np.full((6, 6), 0.8)) + 0.2 * np.eye(12)
    # two blocks of one size: a factor is one of them, or half of each
    assert kernels.of_one_factor(blocks) == pytest.approx(0.5, abs=0.01)
    assert kernels.of_one_factor(np.eye(5)) == 1


@pytest.mark.long
def test_kernels_are_computed_and_drawn(tmp_path, monkeypatch, capsys):
    names = ["random labels, ReLU"]
    monkeypatch.setattr(kernels, "COLUMNS", {name: kernels.COLUMNS[name] for name in names})
    monkeypatch.setattr(kernels, "NORMS", {"none": "no norm"})
    assert kernels.main([f"--workdir={tmp_path}", "--scale=smoke"]) == 0
    table = pd.read_csv(tmp_path / "kernels.csv")
    assert list(table["network"]) == ["as drawn", *names]
    assert (table["rank"].between(1, kernels.INPUTS)).all()
    assert (table["seeds"] == 2).all()
    assert (table["rank_low"] < table["rank_high"]).all()
    assert (tmp_path / "kernels.png").is_file()
    assert "picture:" in capsys.readouterr().out


def test_details_that_a_table_lacks_are_refused():
    table = pd.DataFrame({"lane": [0], "ntk": [1.0], "ntk/cosine": [2.0], "ntk/condition": [3.0]})
    assert list(export._kept("x", table, export.Keep(["ntk/cosine"]))) == [
        "lane",
        "ntk",
        "ntk/cosine",
    ]
    assert list(export._kept("x", table, export.WHOLE)) == ["lane", "ntk"]
    with pytest.raises(ValueError, match=r"^details has 'a/b', but the table of x has no such col"):
        export._kept("x", table, export.Keep(["a/b"]))
