"""Runs in which an agent acts: a contextual bandit, small."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plasticity_jax as pj
from plasticity_jax import lanes
from plasticity_jax.cli import dry_run
from plasticity_jax.execution import memory, program
from plasticity_jax.methods import METHODS
from plasticity_jax.probes import PROBES
from plasticity_jax.spec import Spec
from plasticity_jax.training import acting
from plasticity_jax.types import AgentState
from tests.helpers import tiny

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SMALL = {
    "environment": "bandit",
    "phase_steps": 240,
    "epochs": 40,
    "batch_size": 16,
    "optimizer": "adam",
    "options": {"dqn.replay": 200, "dqn.evaluate": 40, "dqn.warmup": 40},
}
LANE = {"learning_rate": 1e-2, "dqn.gamma": 0.0, "dqn.epsilon": 0.1}


def spec(**changes):
    return tiny.spec(**(SMALL | changes))


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def data():
    return jax.tree.map(jnp.asarray, tiny.data(16))


def phases(one, data, lane=LANE, count=2):
    """The states and metrics of a lane after each phase."""
    run = pj.make_run(one)
    state, found = jax.jit(run.init)(lane, data), []
    task = jax.jit(run.run_task)
    for number in range(count):
        state, metrics = task(lane, state, data, jnp.int32(number))
        found.append((state, metrics))
    return found


@pytest.fixture(scope="module")
def plain(data):
    return phases(spec(probes=("dormant_fraction",)), data)


@pytest.mark.long
def test_an_agent_learns_the_labels_of_a_phase(data):
    options = {**SMALL["options"], "dqn.target_every": 1}
    one = spec(phase_steps=2000, points=4, options=options)
    (state, metrics), *_ = phases(one, data, count=1)
    assert metrics["reward_rate"] > 0.6  # (guessing has 0.25)
    assert metrics["greedy_reward_rate"] > metrics["reward_rate_mean"] > 0.3
    assert metrics["episodes"] == 0
    assert np.isnan(metrics["episode_return"])
    assert metrics["online_loss"] < metrics["online_loss_mean"]
    same(state.target["params"], state.params)  # (renewed at every update)
    windows = metrics["points/reward_rate"]
    np.testing.assert_allclose(windows.mean(), metrics["reward_rate_mean"], rtol=1e-5)
    assert windows[-1] > windows[0]


@pytest.mark.long
def test_a_phase_goes_on_from_what_is_kept_to_the_bit(data, plain):
    one = spec(probes=("dormant_fraction",))
    kept = jax.tree.map(np.asarray, plain[0][0])
    task = jax.jit(pj.make_run(one).run_task)
    again = task(LANE, jax.tree.map(jnp.asarray, kept), data, jnp.int32(1))
    same(again, plain[1])


@pytest.mark.long
def test_what_is_remembered_is_what_happened(data, plain):
    """Rewards of a phase are those of its labels, for every step that is remembered."""
    state, _ = plain[0]
    environment = spec().make_environment()
    labels = environment.task(_key_of_tasks(), data, jnp.int32(0))
    ring = state.replay
    np.testing.assert_array_equal(ring.reward, labels[ring.seen] == ring.action)
    assert ring.truncated.sum() == 4  # the end of the phase, in each environment


def _key_of_tasks():
    from plasticity_jax.stream import keys

    return keys.role(jax.random.key(0), keys.TASK)


@pytest.mark.long
def test_the_target_network_is_an_earlier_one(data):
    options = {**SMALL["options"], "dqn.target_every": "never"}
    (state, _), *_ = phases(spec(options=options), data, count=1)
    same(state.target["params"], state.train.initial)


def test_exploration_falls_over_the_first_steps_of_a_run():
    agent = spec(options={"dqn.explore": 100}).make_agent({"dqn.epsilon": 0.1})
    found = [float(acting._epsilon(agent, jnp.int32(rounds))) for rounds in (0, 5, 25, 50)]
    np.testing.assert_allclose(found, [1.0, 0.82, 0.1, 0.1], rtol=1e-6)


@pytest.mark.long
def test_methods_and_probes_are_those_of_every_run(data):
    """Also one that acts before a task, and one that adds to the loss."""
    probes = ("hessian_top", "ntk", "trap", "dormant_fraction", "representation_change:start")
    one = spec(
        method="l2+shrink_and_perturb+redo+head_reset",
        norm="layer",
        probes=probes,
        options={**SMALL["options"], "redo.period": 7, "ntk.samples": 4},
    )
    (_, first), (state, second) = phases(one, data, LANE | {"l2.strength": 1e-3})
    assert first["representation_change:start"] == 0  # (nothing acts before the first phase)
    assert np.isfinite(second["representation_change:start"])
    for name in ("hessian_top", "ntk", "trap", "dormant_fraction", "q", "loss"):
        assert np.isfinite(second[name]), name
    assert second["finite"]
    assert isinstance(state, AgentState)


@pytest.mark.long
def test_what_acts_at_a_new_task_does_so_at_the_first_update_of_a_phase(data):
    """Adam's count of steps begins anew with the first update."""
    counts = [
        {int(leaf) for leaf in jax.tree.leaves(state.train.opt) if not leaf.shape}
        for state, _ in phases(spec(method="optimizer_reset"), data)
    ]
    assert counts[0] == {50}  # updates of 60 behind a warmup of 40 steps
    assert counts[1] == {60}  # all of the second phase, and none before


@pytest.mark.long
def test_every_method_and_every_probe_goes_with_an_agent(data):
    """Methods two by two, since each is asked of once; what they do is tested where they are."""
    names = [name for name in METHODS if name != "none"]
    for first in range(0, len(names), 2):
        pair, probes = names[first : first + 2], () if first else tuple(PROBES)
        one = spec(method="+".join(pair), probes=probes)
        lane = {name: value[0] for name, value in lanes.stack([lanes.complete(one, LANE)]).items()}
        run = pj.make_run(one)
        state = jax.eval_shape(run.init, lane, data)
        after, metrics = jax.eval_shape(run.run_task, lane, state, data, jnp.int32(1))
        assert jax.tree.structure(after) == jax.tree.structure(state)
        assert len(metrics) >= len(probes)


@pytest.mark.parametrize("head", ["two_hot", "c51"])
@pytest.mark.long
def test_rainbow_runs_with_every_head(data, head):
    one = spec(
        agent="rainbow",
        head=head,
        options={"rainbow.replay": 200, "rainbow.evaluate": 40, f"{head}.bins": 11},
    )
    lane = {"learning_rate": 1e-2, f"{head}.low": 0.0, f"{head}.high": 2.0}
    (state, metrics), *_ = phases(one, data, lane, count=1)
    assert metrics["finite"]
    assert len(np.unique(state.replay.priority)) > 10


@pytest.mark.long
def test_a_run_goes_on_in_a_workdir(tmp_path):
    one = Spec(**{**spec().record(), "samples": 32, "probes": ("dormant_fraction",)})
    grid = pj.grid(seed=range(2), **LANE)
    whole = pj.run(one, grid)
    first = pj.run(Spec(**{**one.record(), "tasks": 1}), grid, tmp_path)
    assert len(first) == 2
    again = pj.run(one, grid, tmp_path)
    names = [name for name in whole if name in again]
    assert {"reward_rate", "episodes", "online_loss", "q", "agent"} <= set(names)
    for name in names:
        np.testing.assert_array_equal(whole[name], again[name], err_msg=name)


def test_memory_counts_what_is_remembered(data):
    few, many = (memory.of_lane(spec(options={"dqn.replay": rows}), data) for rows in (200, 4200))
    # what is seen, the action, the reward, how it ended
    step = 4 + 4 + 4 + 1 + 1
    assert many.waiting - few.waiting == 4000 * step
    assert (few.remembered, many.remembered) == (200 * step, 4200 * step)


def test_a_dry_run_tells_what_is_remembered(data):
    one = spec(options={"dqn.replay": 1_000_000, "dqn.evaluate": 40})
    made = program.plan([(one, pj.grid(seed=0))], 16)
    assert "13.4 of them remembered" in dry_run._size(made[0], data)


@pytest.mark.long
def test_late_phases_may_be_the_first_of_a_fresh_network(data):
    fresh = spec(first_task=3)
    run = pj.make_run(fresh)
    state = jax.jit(run.init)(LANE, data)
    state, metrics = jax.jit(run.run_task)(LANE, state, data, jnp.int32(3))
    labels = spec().make_environment().task(_key_of_tasks(), data, jnp.int32(3))
    ring = state.replay
    np.testing.assert_array_equal(ring.reward, labels[ring.seen] == ring.action)
    assert np.isfinite(metrics["online_loss"])


REFUSED = {
    "no agent": ({"agent": "none"}, "agent is 'none', but 'bandit' is acted in"),
    "an agent without a world": (
        {"environment": "random_labels", "agent": "dqn", "phase_steps": None, "options": {}},
        "agent is 'dqn', but examples of 'random_labels' are given",
    ),
    "a phase without a world": (
        {"environment": "random_labels", "options": {}},
        "phase_steps is 240, but a task of 'random_labels' is of epochs",
    ),
    "no steps": ({"phase_steps": 0}, "phase_steps is 0: allowed in 'bandit'"),
    "parts of an update": ({"phase_steps": 241}, "phase_steps is 241: allowed are multiples of 4"),
    "a long warmup": (
        {"options": {"dqn.warmup": 240}},
        "dqn.warmup is 240, but a phase has 240 steps: allowed are fewer than 237",
    ),
    "a small replay": ({"options": {"dqn.replay": 4}}, "dqn.replay is 4: allowed are more than 4"),
    "an odd replay": ({"options": {"dqn.replay": 201}}, "dqn.replay is 201: allowed are multiples"),
    "no environments": ({"options": {"dqn.environments": 0}}, "dqn.environments is 0"),
    "epochs": ({"epochs": 2}, "epochs is 2, but a task of 'bandit' is a phase"),
    "revisits": ({"revisit": 2}, "revisit is 2, but a task of 'bandit' is a phase"),
    "a transition": ({"transition": "sampling"}, "transition 'sampling' mixes examples"),
    "a head of classes": ({"head": "smoothed"}, "head 'smoothed' needs targets that are dist"),
    "another draw": ({"options": {"bandit.draw": "x"}}, "bandit.draw is 'x'"),
    "an unknown agent": ({"agent": "dqnn"}, "unknown agent 'dqnn': known are none, dqn, rainbow"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_does_not_go_together_is_refused(why):
    changes, says = REFUSED[why]
    with pytest.raises(ValueError) as error:
        spec(**changes)
    said = str(error.value)
    assert said.startswith(says)
    assert said.endswith(".")


@pytest.mark.parametrize("agent", ["dqn", "rainbow"])
@pytest.mark.parametrize("gamma", [1.5, -0.01])
def test_gamma_is_a_share(agent, gamma):
    one = spec(agent=agent, options={})
    with pytest.raises(ValueError, match=rf"^{agent}\.gamma is {gamma}: allowed is 0 to 1\.$"):
        lanes.check(one, [{f"{agent}.gamma": gamma}], 64)


@pytest.mark.long
def test_a_replay_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 200 << 20)
    with pytest.raises(MemoryError, match=r"^1 lanes of mlp, .* need about .* MiB are free"):
        pj.run(spec(samples=32, options={"dqn.replay": 40_000_000}))


COMMAND = (
    "--environment=bandit --agent=dqn --head=linear --phase_steps=200 --tasks=2 --seeds=2 "
    "--samples=32 --width=8 --depth=1 --dqn.gamma=0,0.9 --probes=none"
)


@pytest.mark.long
def test_from_the_command_line_to_the_figure(tmp_path):
    command = [sys.executable, "-m", "experiments.run", *COMMAND.split(), f"--workdir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "reward rate" in done.stdout
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert (tmp_path / "results.parquet").exists()
