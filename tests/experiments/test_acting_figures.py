"""Figures in which an agent acts: what they run, and what they tell of it."""

import importlib

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import plasticity_jax as pj
from experiments.disentangling import acted, acting
from plasticity_jax.cli import flags

BENCHMARKS = {one.name: one for one in (acting.BANDIT, acting.MINATAR, acting.ATARI)}


def runs(benchmark, scale, *argv):
    defaults = benchmark.at(scale)
    values, given = flags.parse(argv, defaults)
    return flags.runs(values, given, acting.arms(benchmark, int(values["tasks"])))


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize("scale", ["paper", "reduced", "smoke"])
def test_every_arm_has_a_fresh_network_in_the_last_phase(name, scale):
    made = runs(BENCHMARKS[name], scale)
    aged = [(spec, lanes) for spec, lanes in made if not spec.first_task]
    late = [(spec, lanes) for spec, lanes in made if spec.first_task]
    assert {spec.tasks for spec, _ in late} == {1}
    assert {spec.first_task + 1 for spec, _ in late} == {spec.tasks for spec, _ in aged}
    fresh = {repr(lane) for _, lanes in late for lane in lanes}
    assert {repr(lane) for _, lanes in aged for lane in lanes} <= fresh
    assert len(aged) <= len(late)


@pytest.mark.parametrize("scale", ["paper", "reduced", "smoke"])
def test_a_game_of_atari_has_a_player_by_chance(scale):
    made = runs(acting.ATARI, scale)
    late = [(spec, lanes) for spec, lanes in made if spec.first_task]
    assert {lane["dqn.epsilon"] for _, lanes in late for lane in lanes} == {0.01, 1.0}
    late = [(spec, lanes) for spec, lanes in late if {one["dqn.epsilon"] for one in lanes} & {1.0}]
    games = {dict(spec.options).get("atari.game", "breakout") for spec, _ in late}
    assert games == {dict(spec.options).get("atari.game", "breakout") for spec, _ in made}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_file_says_what_it_shows_and_how_it_is_run(name):
    text = importlib.import_module(f"experiments.disentangling.{name}").__doc__ or ""
    assert f"python -m experiments.disentangling.{name} " in text
    for word in ("Source: Lyle et al.", "--scale=reduced", "Paper", "Cost:"):
        assert word in text


def test_flags_replace_the_axes_of_a_figure():
    made = runs(acting.BANDIT, "reduced", "--norm=layer", "--l2.strength=1e-3", "--tasks=1")
    ((spec, lanes),) = made  # (one phase has no later one)
    assert spec.norm == "layer"
    assert {lane["l2.strength"] for lane in lanes} == {1e-3}
    assert {lane["dqn.gamma"] for lane in lanes} == {0.0, 0.99}


COLUMNS = ["norm", "dqn.gamma", "first_task"]


def table():
    """Two arms of three seeds and three phases, with controls that lack a seed of the second."""
    random, rows, lane = np.random.default_rng(0), [], 0
    for first_task, tasks in ((0, 3), (2, 1)):
        for norm in ("none", "layer"):
            for seed in range(3):
                if first_task and norm == "layer" and seed == 1:
                    continue
                for task in range(tasks):
                    row = {"lane": lane, "seed": seed, "task": task, "norm": norm, "finite": True}
                    row |= {"dqn.gamma": 0.0, "first_task": first_task}
                    rows.append(row | {"reward_rate": random.normal()})
                lane += 1
    return pd.DataFrame(rows)


def test_a_comparison_is_of_the_same_seeds():
    rows = table()
    found = acting.compared(rows, COLUMNS, acting.BANDIT).set_index("norm")
    indexed = rows.set_index(["norm", "first_task", "task", "seed"]).sort_index()
    reward = indexed["reward_rate"]
    change = (reward["none", 0, 2] - reward["none", 0, 0]).to_numpy()
    interval = stats.ttest_1samp(change, 0).confidence_interval(0.95)
    assert found.loc["none", "last - first"] == pytest.approx(change.mean())
    assert found.loc["none", "last - first low"] == pytest.approx(interval.low)
    assert found.loc["none", "last - first high"] == pytest.approx(interval.high)
    lost = reward["layer", 0, 2][[0, 2]] - reward["layer", 2, 0]
    assert found.loc["layer", "last - fresh"] == pytest.approx(lost.mean())
    assert found.loc["layer", "fresh"] == pytest.approx(reward["layer", 2, 0].mean())


def test_without_controls_there_is_nothing_to_compare_with():
    rows = table().query("first_task == 0")
    found = acting.compared(rows, COLUMNS, acting.BANDIT)
    assert found["fresh"].isna().all()
    assert found["last - first"].notna().all()
    assert "greedy" not in found
    assert "| - | " in acting.text(found, COLUMNS)


def test_what_a_network_scores_without_chance_is_of_its_last_phase():
    rows = table()
    rows["greedy_reward_rate"] = rows["reward_rate"] + rows["task"]
    found = acting.compared(rows, COLUMNS, acting.BANDIT)
    np.testing.assert_allclose(found["greedy"], found["last"] + 2)
    assert (found["greedy low"] < found["greedy"]).all()


def test_a_figure_writes_pictures_and_tables(tmp_path):
    values, _ = flags.parse([f"--workdir={tmp_path}"], acting.BANDIT.at("smoke"))
    said = acting.drawn(acting.BANDIT, table(), COLUMNS, values)
    written = {path.name for path in tmp_path.iterdir()}
    assert written >= {"bandit.csv", "bandit.md", "bandit_0.0.png", "bandit_0.0.csv"}
    assert "| norm | seeds | first | last | fresh |" in said


@pytest.mark.slow
def test_the_bandit_runs_from_flag_to_picture(tmp_path, capsys):
    argv = ["--scale=smoke", "--norm=none", "--l2.strength=0", "--probes=none"]
    argv += ["--seeds=1", "--noprogress", f"--workdir={tmp_path}"]
    assert acting.main("", acting.BANDIT, argv) == 0
    assert "last - fresh" in capsys.readouterr().out
    assert (tmp_path / "bandit_0.99.png").exists()


@pytest.mark.slow
def test_a_game_of_atari_runs_with_its_controls(tmp_path):
    pytest.importorskip("ale_py")
    argv = ["--scale=smoke", "--probes=none", "--noprogress", f"--workdir={tmp_path}"]
    assert acting.main("", acting.ATARI, argv) == 0
    rows = pj.load(tmp_path).groupby(["first_task", "dqn.epsilon"])["task"].count()
    assert rows.to_dict() == {(0, 0.01): 2, (1, 0.01): 1, (1, 1.0): 1}
    assert "| fresh |" in (tmp_path / "atari.md").read_text()


def played(seeds=3):
    """Two games and two arms of one phase, and players by chance in a later one."""
    rows, lane = [], 0
    for game, unit in (("breakout", 10.0), ("asterix", 2.0)):
        for norm, epsilon, score in (("none", 0.05, 3), ("layer", 0.05, 5), ("none", 1.0, 1)):
            for seed in range(seeds):
                row = {"lane": lane, "seed": seed, "task": 0, "norm": norm, "finite": True}
                row |= {"minatar.game": game, "dqn.epsilon": epsilon}
                row |= {"first_task": int(epsilon == 1), "episode_return": unit * (score + seed)}
                rows.append(row)
                lane += 1
    return pd.DataFrame(rows)


OF_GAMES = ["norm", "minatar.game", "dqn.epsilon", "first_task"]


def test_scores_of_games_are_compared_between_chance_and_the_first_arm():
    found = acting.normalised(played(), OF_GAMES, acting.MINATAR)
    assert list(found) == ["norm none", "norm layer"]
    # chance has 2 units on average, the first arm 4
    for game in found["norm none"]:
        np.testing.assert_allclose(game, [0.5, 1, 1.5])
    for game in found["norm layer"]:
        np.testing.assert_allclose(game, [1.5, 2, 2.5])
    assert "| norm layer | 6 | 2 (" in acting.of_games(found)
    rows = acting.compared(played(), OF_GAMES, acting.MINATAR).set_index(["minatar.game", "norm"])
    assert rows.loc[("asterix", "layer"), "last - chance"] == pytest.approx(2.0 * 4)
    assert rows.loc[("breakout", "none"), "chance"] == pytest.approx(20.0)
    assert rows["fresh"].isna().all()
    # a player by chance of another network too: the mean of both
    rows = played()
    other = rows[rows["first_task"] > 0].assign(norm="layer")
    twice = acting.compared(pd.concat([rows, other]), OF_GAMES, acting.MINATAR)
    assert twice.set_index(["minatar.game", "norm"]).loc[("breakout", "none"), "chance"] == 20.0


def test_a_figure_of_games_has_profiles(tmp_path):
    values, _ = flags.parse([f"--workdir={tmp_path}"], acting.MINATAR.at("smoke"))
    said = acting.drawn(acting.MINATAR, played(), OF_GAMES, values)
    assert "0 is chance" in said
    written = {path.name for path in tmp_path.iterdir()}
    assert written >= {"minatar_profiles.png", "minatar_breakout.png", "minatar.csv"}
    shares = pd.read_csv(tmp_path / "minatar_profiles.csv").set_index("arm")
    for arm, scores in (("norm none", [0.5, 1, 1.5]), ("norm layer", [1.5, 2, 2.5])):
        own = shares.loc[arm]  # (both games have these scores)
        wanted = (np.array(scores)[:, None] > own["score"].to_numpy()).mean(0)
        clear = np.abs(np.subtract.outer(scores, own["score"].to_numpy())).min(0) > 1e-4
        np.testing.assert_allclose(own["share"][clear], wanted[clear], atol=1e-5)


def test_games_in_turn_are_told_apart():
    rows = pd.DataFrame(
        {"minatar.game": "breakout+asterix", "task": [0, 1, 2, 3, 0, 0], "first_task": 0}
    )
    rows.loc[4:, "first_task"] = [2, 3]
    found = acted.in_turn(rows)
    assert list(found["minatar.game"]) == ["breakout", "asterix"] * 3
    assert list(found["task"]) == [0, 0, 1, 1, 0, 0]
    alone = acted.in_turn(rows.assign(**{"minatar.game": "seaquest"}))
    assert list(alone["task"]) == list(rows["task"])
    assert set(alone["minatar.game"]) == {"seaquest"}
