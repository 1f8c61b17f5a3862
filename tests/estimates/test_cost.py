"""The estimate of --dry_run: its arithmetic, and that a trial gives one."""

import dataclasses

import pytest
from helpers import tiny

from plasticity_jax import lanes
from plasticity_jax.datasets import load, subsample
from plasticity_jax.estimates import cost
from plasticity_jax.execution import program as program_

pytestmark = pytest.mark.usefixtures("compiled_quickly")

DIGITS = subsample(load("digits"), 64)


def programs(count=4, **changes):
    spec = tiny.spec(**changes)
    return program_.plan(
        [(spec, lanes.grid(seed=range(count), granularity=[1, 2]))], 64, "sharded", 1
    )


def test_time_is_that_of_blocks_of_lanes_tasks_steps_and_ends_of_tasks(monkeypatch):
    seen = []
    monkeypatch.setattr(
        cost,
        "_trial",
        lambda program, dataset: seen.append(program.spec) or cost.Trial(0.5, 7.0, 2.0),
    )
    (program,) = programs(epochs=6, tasks=3)
    devices = program.execution.devices
    # 64 // 16 = 4 steps an epoch, 6 epochs and a third of one to evaluate
    task = 0.5 * 4 * (6 + 1 / 3) + 7.0 + 2.0
    assert cost.estimate([program], DIGITS).seconds == pytest.approx(-(-8 // devices) * 3 * task)
    assert seen == [dataclasses.replace(program.spec, epochs=1, tasks=2, transition="sampling")]
    rarely = programs(epochs=6, tasks=3, probe_every=2)
    assert cost.estimate(rarely, DIGITS).seconds == pytest.approx(
        -(-8 // devices) * 3 * (task - 1.0)
    )


def test_programs_that_differ_in_method_share_a_trial(monkeypatch):
    seen = []
    monkeypatch.setattr(
        cost, "_trial", lambda program, dataset: seen.append(program) or cost.Trial(1.0, 0.0, 0.0)
    )
    both = [*programs(), *programs(method="redo", options={"redo.period": 7}), *programs(width=16)]
    assert cost.estimate(both, DIGITS)[1:] == (2, 2)
    assert [(p.spec.method, p.spec.width) for p in seen] == [("none", 8), ("none", 16)]


def test_after_its_time_the_kinds_with_least_to_do_are_taken_for_like_the_others(monkeypatch):
    seen = []

    def trial(program, dataset):
        seen.append(program.spec.width)
        return cost.Trial(1.0 if program.spec.width == 16 else 3.0, 0.0, 0.0)

    monkeypatch.setattr(cost, "_trial", trial)
    clock = iter([0.0, 1.0, 99.0])
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    grid = [*programs(count=1), *programs(count=3, width=16), *programs(count=2, width=32)]
    alone = [grid[1], grid[2]]
    found = cost.estimate(grid, DIGITS)
    assert seen == [16, 32]  # the most to do first
    assert found[1:] == (2, 3)
    clock = iter([0.0, 1.0, 2.0, 3.0])
    two = cost.estimate(alone, DIGITS).seconds
    clock = iter([0.0, 1.0])
    monkeypatch.setattr(cost, "_trial", lambda *_: cost.Trial(2.0, 0.0, 0.0))  # their mean
    assert found.seconds == pytest.approx(two + cost.estimate(grid[:1], DIGITS).seconds)


def test_a_trial_takes_time_and_leaves_methods_numbers_out():
    (program,) = programs(method="l2")
    assert "l2.strength" in program.lanes[0]
    assert cost.estimate([program], DIGITS).seconds > 0


@pytest.mark.parametrize("wanted", [64, 512])
def test_a_trial_tells_steps_from_the_end_of_a_task_and_from_probes(wanted, monkeypatch):
    # steps too short to be seen in one more epoch beside a long end of task: a trial with more of
    # them is made
    step, rest, probing, program_samples = 0.001, 1.0, 3.0, 64  # there are no more
    asked = []

    def timed(program, dataset):
        spec = program.spec
        per_epoch = len(dataset.images) // spec.batch_size
        asked.append((spec.epochs, spec.probe_samples if spec.probes else 0))
        share = spec.probe_samples / program_samples if spec.probes else 0.0
        return step * per_epoch * (spec.epochs + 1 / 3) + rest + probing * share

    monkeypatch.setattr(cost, "_timed", timed)
    (program,) = programs(
        probes=("hessian_top",), options={"hessian_top.iterations": 3}, probe_samples=wanted
    )
    assert cost._trial(program, DIGITS) == pytest.approx((step, rest, probing))
    assert asked == [(1, 0), (3, 0), (17, 0), (129, 0), (1, 64)]
    asked.clear()
    # a network that takes its time is tried for one epoch more and on fewer samples
    step = 1.0
    assert cost._trial(program, DIGITS) == pytest.approx((step, rest, probing))
    assert asked == [(1, 0), (2, 0), (1, 8)]
    asked.clear()
    # but a long end of a task does not make its steps seen
    step, rest = 0.01, 10.0
    assert cost._trial(program, DIGITS) == pytest.approx((step, rest, probing))
    assert asked == [(1, 0), (2, 0), (3, 0), (17, 0), (129, 0), (1, 64)]
    # more data than a trial has: the probes of the whole run are scaled up
    step, rest = 0.001, 1.0
    assert cost._trial(program, subsample(load("digits"), 128)).probing == pytest.approx(
        probing * min(wanted, 128) / 64
    )
