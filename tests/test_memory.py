"""The estimate of memory: against what XLA reports, and what is said when a run does not fit."""

import jax
import numpy as np
import pytest
import tiny

from plasticity_jax import lanes, make_run, memory, probes, sweep
from plasticity_jax.datasets import load, subsample

DIGITS = sweep.device_data(subsample(load("digits"), 64))


def programs(count=4, **changes):
    spec = tiny.spec(**changes)
    return sweep.plan([(spec, lanes.grid(seed=range(count), granularity=[1, 2]))], 64, "sharded", 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 64, "batch_size": 512, "probes": ()},
        {"width": 64, "batch_size": 512, "probes": ("hessian_top",)},
        {"model": "cnn", "width": 16, "batch_size": 128, "probes": ("dormant_fraction",)},
        {
            "model": "t5", "environment": "random_seq2seq", "dataset": "generated", "transition": "sampling", "width": 32,
            "batch_size": 32, "probes": ("hessian_top",), "probe_samples": 64,
            "options": {"t5.feed_forward": 64, "random_seq2seq.words": 3},
        },
    ],
    ids=["mlp", "mlp, curvature", "cnn, units", "t5, curvature"],
)  # fmt: skip
def test_estimate_is_within_a_factor_of_two_of_the_compiler(changes):
    spec = tiny.spec(**{"samples": 1280, "depth": 1, **changes})
    data = sweep.load_data(spec)
    lane = {k: v[0] for k, v in lanes.stack([lanes.complete(spec, {})]).items()}
    run = make_run(spec)
    state = jax.eval_shape(run.init, lane, data)
    compiled = jax.jit(run.run_task, donate_argnums=1).lower(lane, state, data, np.int32(0)).compile()
    reported = compiled.memory_analysis()
    used = reported.temp_size_in_bytes + reported.output_size_in_bytes  # (the state is updated in place)
    assert 0.5 < sum(memory.of_lane(spec, data)) / used < 2


def test_what_does_not_fit_is_told_with_what_does(monkeypatch):
    (program,) = programs(count=8)
    waiting, running = memory.of_lane(program.spec, DIGITS)
    devices, data = program.execution.devices, sum(leaf.nbytes for leaf in jax.tree.leaves(DIGITS))

    def free(count, copies):
        monkeypatch.setattr(memory, "free_bytes", lambda: count + copies * data)

    free(16 * waiting + devices * running, devices)
    memory.check([program], DIGITS)
    free(16 * waiting + devices * running - 1, devices)
    with pytest.raises(MemoryError, match=r"16 lanes of mlp, \d at a time, need .* MiB are free: at most 14 lanes fit"):
        memory.check([program], DIGITS)
    free(devices * running, devices)
    with pytest.raises(MemoryError, match="a smaller model, batch or probe batch is allowed"):
        memory.check([program], DIGITS)
    wide = program._replace(execution=lanes.Execution("vmap", 16, 1))
    free(5 * (waiting + running), 1)
    with pytest.raises(MemoryError, match=r"16 at a time, .*: lane_width is 16, at most 5 fits"):
        memory.check([wide], DIGITS)


def test_a_library_call_is_checked_too(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "free_bytes", lambda: 1000)
    for workdir in (None, tmp_path / "run"):
        with pytest.raises(MemoryError, match="are free"):
            sweep.run(tiny.spec(), workdir=workdir)
    assert list(tmp_path.iterdir()) == []


def test_free_memory_is_what_the_machine_says():
    assert 2**28 < memory.free_bytes() < 2**50


def test_probes_of_curvature_are_probes():
    assert set(probes.PROBES) > probes.CURVATURE
