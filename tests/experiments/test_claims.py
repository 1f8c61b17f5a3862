"""Claims: the rule against scipy and by hand, numbers against plain pandas, and documents against
their tables.
"""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from experiments.gradual.claims import __main__ as command
from experiments.gradual.claims import (
    chosen,
    decided,
    pictures,
    redrawn,
    rule,
    statements,
    tables,
    text,
)


def test_documents_say_what_the_tables_say(capsys):
    assert command.main(["--check"]) == 0, capsys.readouterr().out


def test_a_number_that_differs_from_its_table_is_told(tmp_path, monkeypatch, capsys):
    for name in command.PARTS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(
            (command.ROOT / name).read_text(encoding="utf-8"), encoding="utf-8"
        )
    monkeypatch.setattr(command, "ROOT", tmp_path)
    notes = tmp_path / "experiments" / "gradual" / "README.md"
    right = notes.read_text(encoding="utf-8")
    assert "+52.1 points" in right
    notes.write_text(right.replace("+52.1 points", "+53.1 points"), encoding="utf-8")
    assert command.main(["--check"]) == 1
    assert "experiments/gradual/README.md differs" in capsys.readouterr().out
    assert command.main([]) == 0
    assert notes.read_text(encoding="utf-8") == right
    notes.write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="has 0 parts"):
        command.main(["--check"])


@pytest.mark.parametrize("bound", [0.0, 0.3])
def test_the_test_is_students(bound):
    values = [0.1, 0.4, 0.35, 0.2, 0.6]
    got, want = rule.estimate(values, ">", bound), scipy.stats.ttest_1samp(values, bound)
    low, high = want.confidence_interval(0.95)
    np.testing.assert_allclose([got.p, got.low, got.high], [want.pvalue, low, high])
    assert got.side == 1
    assert rule.estimate(values, "<", bound).side == -1


def test_equal_seeds_and_one_seed():
    assert rule.estimate([0.5, 0.5], ">", 0.0)[4:] == (0.0, 1)
    assert rule.estimate([0.0, 0.0], ">", 0.0).p == 1
    assert rule.estimate([0.5], ">", 0.0).p == 1
    assert np.isnan(rule.estimate([0.5], ">", 0.0).low)
    for wrong in ([], [np.nan, 1.0]):
        with pytest.raises(ValueError, match="values are"):
            rule.estimate(wrong, ">", 0.0)
    with pytest.raises(ValueError, match="allowed are >, < and within"):
        rule.estimate([1.0], "=", 0.0)


def test_within_a_margin_is_against_its_nearer_end():
    values = [0.01, -0.02, 0.03]
    got = rule.estimate(values, "within", 0.1)
    assert got.p == pytest.approx(scipy.stats.ttest_1samp(values, 0.1).pvalue)
    assert got.side == 1
    assert rule.estimate([0.3, 0.31], "within", 0.1).side == -1


def test_verdicts():
    high, low, mixed = ([0.5, 0.51, 0.52], [-0.5, -0.51, -0.52], [0.5, -0.4, 0.1])
    said = [
        rule.verdict(rule.estimate(v, ">", 0.0), p, ">", 0.0)
        for v, p in ((high, 0.01), (low, 0.01), (mixed, 0.5))
    ]
    assert said == ["agrees", "disagrees", "not told (2 of 3 seeds for it)"]
    assert (
        rule.verdict(rule.estimate(mixed, "within", 0.2), 0.5, "within", 0.2)
        == "not told (1 of 3 seeds for it)"
    )


def test_a_window_is_the_mean_of_an_arms_tasks():
    raw = pd.read_parquet(tables.FOLDER / "lanes" / "figure_1a.parquet")
    rows = raw[(raw.transition == "sampling") & (raw.task >= 45)]
    want = rows.groupby("seed").online_accuracy.mean()
    np.testing.assert_allclose(tables.per_seed("1a", "sampling"), want)
    assert text.number("1a: sampling") == f"{100 * want.mean():.1f} %" == "93.2 %"
    eigenvalue = (
        rows.assign(log=np.log10(rows.hessian_top.astype(float))).groupby("seed").log.mean()
    )
    np.testing.assert_allclose(tables.per_seed("1a", "sampling", "hessian_top"), eigenvalue)


@pytest.mark.parametrize("name", [name for name in tables.TABLES if tables.there(name)])
def test_every_arm_is_in_its_table(name):
    for arm in tables.TABLES[name].arms:
        # runs of an hour each come later, and runs of fewer arms have no others
        later = (name == "paper" and arm in ("l2", "spectral")) or (
            name.endswith("redo") and arm not in ("abrupt", "redo")
        )
        assert later or tables.has(name, arm)


def test_what_is_none_is_told():
    with pytest.raises(ValueError, match="arm is 'nobody'"):
        tables.arm("1a", "nobody")
    with pytest.raises(ValueError, match="tasks 49 to 60"):
        tables.per_seed("1a", "abrupt", tasks=(49, 60))
    with pytest.raises(ValueError, match="has 'sometimes'"):
        text.number("1a: abrupt sometimes")


def test_every_lane_table_says_what_it_is_of():
    for path in (tables.FOLDER / "lanes").glob("*.parquet"):
        columns = pd.read_parquet(path).columns
        assert {"dataset", "samples", "batch_size", "code_version", "compiler_options"} <= {
            *columns
        }, path.name
        assert path.with_suffix(".json").exists()


def test_redo_that_did_not_act_is_told():
    assert {name: text.acted(name, "redo") for name in ("1a", "2", "3", "4")} == {
        "1a": True,
        "2": False,
        "3": True,
        "4": False,
    }
    assert "| did not act |" in text.claims("2")
    assert "| not seen to act |" in text.claims("4")  # (a table from before they were counted)


def test_units_that_were_reset_say_whether_redo_acted(monkeypatch):
    rows = pd.DataFrame(
        {"method": "redo", "granularity": 1, "seed": 0, "task": [1, 2], "units_reset": [0.0, 2.0]}
    )
    monkeypatch.setattr(tables, "lanes", lambda name: rows)
    tables.arm.cache_clear()
    assert text.acted("2 redo", "redo")
    monkeypatch.setattr(tables, "lanes", lambda name: rows.assign(units_reset=[0.0, 1.0]))
    tables.arm.cache_clear()
    assert not text.acted("2 redo", "redo")
    tables.arm.cache_clear()


def test_rank_correlations():
    # K from coarse to fine: 41, 28, 51, 85, 87, 92, 92 %: nearly in order
    ranks = text.ranks("5a", statements.DOSES.split(), "online_accuracy", None, "K")
    assert ranks.mean() > 0.85
    flat = text.ranks("5a", ["K20", "K40"], "online_accuracy", (1, 1), "K")
    assert (flat == 0).all()


def test_chosen_is_the_best_tried():
    every = chosen.configurations("random_mnist")
    assert len(every) == 51
    raw = pd.read_parquet(tables.FOLDER / "lanes" / "selection_random_mnist.parquet")
    rows = raw[
        (raw.method == "none") & (raw.granularity == 1) & np.isclose(raw.learning_rate, 1e-4)
    ]
    row = every[(every.arm == "none") & np.isclose(every.learning_rate, 1e-4)]
    assert row["mean"].item() == pytest.approx(rows.online_accuracy.mean())
    assert "| spectral regularization | 9 |" in chosen.block("random_mnist")


# the deciding runs, by hand


@pytest.mark.parametrize(
    ("accuracy", "one", "two"),
    [
        ([1, 1, 0.8, 1, 0.8, 0.8, 0.8], 3, 5),
        # what comes before the first good task does not count
        ([0.5, 0.8, 0.95, 0.89, 0.95], 4, 101),
        ([1, 1, 1], 101, 101),
        ([0.9, 0.9, 0.9], 101, 101),
    ],
)
def test_first_task_below(accuracy, one, two):
    series = pd.Series(accuracy, index=range(1, len(accuracy) + 1))
    assert (decided.first_below(series), decided.first_below(series, in_a_row=2)) == (one, two)


def test_a_lane_that_never_learns_has_no_first_task():
    assert np.isnan(decided.first_below(pd.Series([0.5, 0.6], index=[1, 2])))


def survived(first, two=None, slope=0.0) -> decided.Survival:
    seeds = range(15, 15 + len(first))
    return decided.Survival(
        pd.Series(first, seeds, dtype=float),
        pd.Series(two or first, seeds, dtype=float),
        pd.Series([slope + 1e-6 * i for i in range(-2, 3)], seeds),
    )


@pytest.mark.parametrize(
    ("arm", "later", "base", "word"),
    [
        (survived([60, 62, 64, 66, 101]), True, 32.0, "postponed by a factor of 2.0"),
        (survived([30, 35, 30, 40, 33]), False, 32.0, "not told from abrupt"),
        (survived([101] * 5), True, 32.0, "prevented as far as 100 tasks show"),
        (survived([101] * 5, slope=-0.001), True, 32.0, "not told, at least a factor of 3.2"),
        (
            survived([101, 101, 101, 50, 101], [101] * 5),
            True,
            32.0,
            "prevented as far as 100 tasks show",
        ),
        (survived([101] * 5), False, 101.0, "neither falls"),
    ],
)
def test_words_of_survival(arm, later, base, word):
    assert decided.word(arm, later, base) == word


def test_within_an_arm_equals_scipy_and_permutes_seeds():
    random = np.random.default_rng(1)
    probe = pd.DataFrame(random.normal(size=(10, 3)))
    end = pd.DataFrame(np.c_[random.normal(size=10), -probe[1], np.ones(10)])
    seen, p = decided.within(probe, end, draws=199)
    first = scipy.stats.spearmanr(probe[0], end[0]).statistic
    assert seen == pytest.approx((first - 1 + 0) / 3)  # a constant ranks nothing
    assert 0.005 <= p <= 1
    same, small = decided.within(probe, probe, draws=199)
    assert same == pytest.approx(1)
    assert small == pytest.approx(1 / 200)
    assert decided.correlation([1, 1, 1], [1, 2, 3]) == 0


def made_up() -> dict[str, pd.DataFrame]:
    random = np.random.default_rng(0)
    grids = [("output", k) for k in decided.DOSES] + [
        (t, 20) for t in ("sampling", "smoothing", "annealing")
    ]
    foretelling = [
        {
            "transition": t,
            "granularity": k,
            "seed": s,
            "task": task,
            "online_accuracy": 1 - 1 / (k + 1 + s / 99),
        }
        | {probe: random.uniform(0.9, 1) / k for probe in decided.PROBES}
        for t, k in grids
        for s in range(5, 15)
        for task in (5, 46, 47, 48, 49, 50)
    ]
    adam = [
        {
            "optimizer": "adam",
            "method": "none",
            "adam.eps": np.float32(1e-8),
            "adam.b2": np.float32(0.999),
            **variant,
        }
        | {"random_labels.change": change, "seed": s, "task": task, "online_accuracy": accuracy}
        | {"loss": 1.0 if accuracy == 1 else 11.0}
        for name, variant in decided.VARIANTS.items()
        for change in (True, False)
        for s in range(20, 25)
        for task in range(1, 51)
        for accuracy in [
            0.5 + s / 1000 if name == "Adam" and (change or task % (s - 10) == 0) else 1.0
        ]
    ]
    falls = {"abrupt": 30, "output interpolation": 60, "task sampling": 200}
    postponed = [
        {"learning_rate": np.float32(rate), "seed": s, "task": task, "transition": "output", **arm}
        | {"online_accuracy": 1.0 if task < falls[name] + s else 0.5}
        for rate in (1e-4, 1e-3)
        for name, arm in decided.ARMS.items()
        for s in range(15, 20)
        for task in range(1, 101)
    ]
    return {
        name: pd.DataFrame(rows)
        for name, rows in (
            ("foretelling", foretelling),
            ("optimizer_state", adam),
            ("postponed", postponed),
        )
    }


def test_deciding_runs_come_out_as_they_were_made_up():
    found = made_up()
    said = decided.foretelling(found["foretelling"])
    assert "over granularities it foretells and orders" in said
    said = decided.optimizer_state(found["optimizer_state"])
    assert "the bursts are of Adam's state" in said
    assert "goes with eps 1e-6, b2 0.99, optimizer_reset, momentum." in said
    # (of 50 tasks every tenth to every fourteenth)
    assert "| Adam | 5, 4, 4, 3, 3 |  |" in said
    assert "| momentum | 0, 0, 0, 0, 0 | -3.8 " in said
    said = decided.postponed(found["postponed"])
    assert "| 0.001, abrupt | 45, 46, 47, 48, 49 |" in said
    assert said.count("postponed by a factor of 1.6") == 2
    assert said.count("prevented as far as 100 tasks show") == 2
    assert "prevents it at 0.0001, 0.001" in said


@pytest.mark.long
def test_pictures_of_the_deciding_runs(tmp_path, monkeypatch, capsys):
    paths = pictures.draw(tmp_path, made_up())
    assert [path.name for path in paths] == [
        "optimizer_state.png",
        "postponed.png",
        "foretelling.png",
    ]
    assert all(path.stat().st_size > 5000 for path in paths)
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    monkeypatch.setattr(redrawn, "REDRAWN", ())
    assert command.main(["--pictures"]) == 0
    assert "no lanes are kept" in capsys.readouterr().out
    assert command.main(["--chekc"]) == 2


def test_a_run_that_is_not_finished_is_said_so(monkeypatch, tmp_path):
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    assert "not finished" in decided.block("postponed")


def test_an_arm_that_never_learns_is_said_and_drawn(tmp_path):
    table = made_up()["postponed"]
    low = np.isclose(table["learning_rate"], 1e-4) & (table["transition"] == "output")
    low &= table["granularity"] == 20
    table.loc[low, "online_accuracy"] = 0.8
    said = decided.postponed(table)
    assert said.count("never at 90 %, so nothing to compare") == 1
    assert "Postponed at 0.001." in said
    pictures.postponed(table, tmp_path / "postponed.png")
    assert (tmp_path / "postponed.png").stat().st_size > 1000


@pytest.mark.parametrize("one", pictures.WHOLE, ids=lambda one: one.file)
def test_final_tables_of_whole_runs_are_of_the_kept_lanes(one, tmp_path):
    made = pictures.whole(one._replace(title=""), tmp_path)
    committed = (tables.FOLDER / f"{one.file}_final.csv").read_text()
    assert made.read_text() == committed
    assert "t_low" in committed


@pytest.mark.long
def test_a_picture_of_a_whole_run(tmp_path):
    assert pictures.whole(pictures.WHOLE[0], tmp_path).stat().st_size > 50_000
    drawn = pd.read_csv(tmp_path / "figure_1a_paper_new_seeds.csv")
    committed = pd.read_csv(tables.FOLDER / "figure_1a_paper_new_seeds.csv")
    pd.testing.assert_frame_equal(drawn[committed.columns], committed)


def test_the_theory_is_told_as_its_tables_say():
    said = (command.ROOT / "experiments/gradual/README.md").read_text(encoding="utf-8")
    steps = pd.read_csv(tables.FOLDER / "theory_contraction.csv")
    exact, paper = ((steps["measured"] / steps[name]).max() for name in ("exact", "bound"))
    assert f"{exact:.3f} of our exact one, {paper:.3f} of the paper's" in said
    plan = pd.read_csv(tables.FOLDER / "theory_plan.csv")
    wells = plan[plan["landscape"] == "two wells"].iloc[-1]
    assert f"two wells turned by {np.degrees(wells['angle']):.0f}°" in said
    counts = f"from {wells['theorem']} on, ours from {wells['sharper']} on, {wells['works']} work"
    assert counts in said
    half = plan[plan["landscape"] == "bumped quadratic"].iloc[-1]
    enough = f"{half['theorem']} guaranteed by the theorem, {half['sharper']} by our constants"
    assert f"half a turn: {enough}, {half['works']} work" in said
    way = pd.read_csv(tables.FOLDER / "theory_bridge.csv")
    convex = (way["bottom"] > way["bottom_residual"]).sum()
    assert f"nowhere ({convex} of {len(way)} steps)" in said
    # (a bulge below this is rounding)
    straight = (way["bulge"] < 1e-6).groupby(way["granularity"]).agg(["sum", "size"])
    (one, _), (three, four), (many, all_) = straight.to_numpy()
    assert f"{one} of 1 step of the abrupt change, {three} of {four} and {many} of {all_}" in said


@pytest.mark.parametrize("name", ["3", "5b"])
@pytest.mark.long
def test_what_is_beside_a_picture_is_of_the_kept_lanes(name, tmp_path, monkeypatch):
    """`--pictures` gives the committed tables again."""
    [one] = [one for one in redrawn.REDRAWN if one.figure.name == name]
    monkeypatch.setattr(redrawn, "REDRAWN", (one,))
    monkeypatch.setattr("plasticity_jax.reporting.curves.curves", lambda *_: [tmp_path / "none"])
    redrawn.draw(tmp_path)
    for path in (f"figure_{name}.csv", f"figure_{name}_final.csv"):
        assert (tmp_path / path).read_text() == (tables.FOLDER / path).read_text()


def test_every_kept_figure_has_a_picture():
    for one in redrawn.REDRAWN:
        assert (tables.FOLDER / f"figure_{one.figure.name}.png").exists()
