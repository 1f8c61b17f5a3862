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


def trial_of(monkeypatch, changes, data=None, running=1 << 20, step=0.001, rest=0.0, probing=3.0):
    """The trial of a program whose times are these, and the (epochs, probed samples) tried."""
    asked = []

    def timed(program, dataset):
        spec = program.spec
        assert spec.probe_every == 2
        asked.append((spec.epochs, spec.probe_samples if spec.probes else 0))
        count, tested = len(dataset.images), len(dataset.test_images)
        steps = spec.epochs * (count // spec.batch_size)
        evaluated = (count + tested) * (1 + spec.revisit) / spec.batch_size / 3
        plain = step * (steps + evaluated) + rest
        return cost.Times(plain, plain + (probing * spec.probe_samples / 64 if spec.probes else 0))

    monkeypatch.setattr(cost, "_timed", timed)
    needs = cost.memory.Needs(0, running, 0)
    monkeypatch.setattr(cost.memory, "of_lane", lambda *_: needs)
    (program,) = programs(probes=("hessian_top",), **changes)
    data = program_.load_dataset(program.spec) if data is None else data
    return cost._trial(program, data), asked


@pytest.mark.parametrize("wanted", [64, 512])
def test_one_program_tells_steps_from_evaluation_and_probes(wanted, monkeypatch):
    # 64 of its own and as many held out are tried; those held out beside them are its end
    data = subsample(load("digits"), 640)
    tested = len(data.test_images)
    assert tested > 64
    changes = {"environment": "permuted_pixels", "probe_samples": wanted}
    found, asked = trial_of(monkeypatch, changes, data)
    assert asked == [(256, min(wanted, 64))]
    rest = 0.001 * tested / 16 / 3
    assert found == pytest.approx((0.001, rest, 3.0 * wanted / 64))
    # scores of earlier tasks are in the end of each task as well
    found, _ = trial_of(monkeypatch, changes | {"revisit": 2}, data)
    assert found.rest == pytest.approx(0.001 * (3 * (640 + tested) - 640) / 16 / 3)
    # what needs much memory takes long: fewer epochs, and probes on an eighth of the samples
    found, asked = trial_of(monkeypatch, changes, data, running=1 << 30)
    assert asked == [(1, wanted // 8)]
    assert found == pytest.approx((0.001, rest, 3.0 * wanted / 64))


def test_where_texts_are_decoded_a_longer_trial_tells_steps_from_the_end(monkeypatch):
    changes = {"environment": "random_seq2seq", "model": "t5", "samples": 64, "probe_samples": 64}
    # steps too short to be seen in a few more epochs beside a long end of task
    found, asked = trial_of(monkeypatch, changes, rest=1.0)
    assert found == pytest.approx((0.001, 1.0, 3.0), rel=0.01)
    assert asked == [(1, 64), (3, 0), (17, 0), (129, 0)]
    # a network that takes its time is tried for one epoch more
    found, asked = trial_of(monkeypatch, changes, step=1.0, rest=1.0)
    assert found == pytest.approx((1.0, 1.0 + 4 / 3, 3.0))  # (with held-out texts)
    assert asked == [(1, 64), (2, 0)]
