"""Whatever is done to a run in whatever order, its table is that of a straight run."""

import collections
import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import tempfile
from typing import ClassVar

import pandas as pd
import pytest
from helpers import tiny
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from plasticity_jax.execution import merging, sweep, tasks
from plasticity_jax.execution import program as program_
from plasticity_jax.execution.engines import description, local, sliced, worker

pytestmark = [pytest.mark.faults, pytest.mark.slow]

MOST, LANES = 5, 4
PROBE = "dormant_fraction"
EXAMPLES = int(os.environ.get("PLASTICITY_FAULTS_EXAMPLES", "40"))


class Interleaved(RuleBasedStateMachine):
    """A workdir to which things are done.

    Attributes:
      spec: of its lanes but for the number of tasks; set by the test.
      straight: the table of all tasks of all lanes.
      measured: the same with the probe.
    """

    spec = tiny.spec()
    straight = measured = pd.DataFrame()
    done: ClassVar[collections.Counter[str]] = collections.Counter()

    def __init__(self):
        super().__init__()
        self.root = pathlib.Path(tempfile.mkdtemp())
        self.folder = self.root / "run"
        self.merged, self.asked, self.most = 0, {}, 0

    def grown(self, lanes, count, probes=()):
        """The lanes that are asked for and how far they shall go: never less far than they are."""
        count = max([count, *(self.asked.get(lane, 0) for lane in lanes)])
        self.asked |= dict.fromkeys(lanes, count)
        spec = dataclasses.replace(self.spec, tasks=count, probes=probes)
        return spec, [{"seed": lane} for lane in lanes]

    @rule(lanes=st.sets(st.integers(0, LANES - 1), min_size=1), count=st.integers(1, MOST))
    def run(self, lanes, count):
        sweep.run(*self.grown(sorted(lanes), count), self.folder)

    @rule(lanes=st.sets(st.integers(0, LANES - 1), min_size=1), count=st.integers(1, MOST))
    def probe(self, lanes, count):
        """From the next task on, whatever was there."""
        self.done["probe"] += 1
        sweep.run(*self.grown(sorted(lanes), count, (PROBE,)), self.folder)

    @rule(lanes=st.sets(st.integers(0, LANES - 1), min_size=1), count=st.integers(1, MOST))
    def stop(self, lanes, count):
        """After the first task that is safe."""
        spec, seeds = self.grown(sorted(lanes), count)

        def ask(rows):
            os.kill(os.getpid(), signal.SIGTERM)

        with contextlib.suppress(tasks.Stopped):
            sweep.run(spec, seeds, self.folder, on_task=ask)

    @rule(
        lanes=st.sets(st.integers(0, LANES - 1), min_size=1),
        count=st.integers(1, MOST),
        size=st.integers(1, LANES),
    )
    def slices(self, lanes, count, size):
        run = self.grown(sorted(lanes), count)
        dataset = program_.load_common_dataset([run[0]], None, False)
        samples = program_.sizes([run[0]], program_.device_data(dataset))
        asked = sliced.Asked("local", size, 1, "cpu", (), {}, description.How())
        programs = program_.plan([run], samples, None, None)
        programs = sliced.on_one_device(programs, asked, None, None)
        sliced.run_in_slices(programs, dataset, self.folder, asked)

    @precondition(lambda self: self.folder.exists())
    @rule()
    def merge(self):
        self.merged += 1
        goal = self.root / f"merged_{self.merged}"
        merging.merge([self.folder], goal)
        shutil.rmtree(self.folder)
        self.folder = goal

    @precondition(lambda self: self.folder.exists())
    @rule(
        lanes=st.sets(st.integers(0, LANES - 1), min_size=1),
        count=st.integers(1, MOST),
        first=st.booleans(),
    )
    def merge_another(self, lanes, count, first):
        """A workdir in which some lanes are new and some were trained as well, less far or further;
        its lanes come first or last.
        """
        self.done["merge another"] += 1
        self.merged += 1
        other, goal = self.root / f"other_{self.merged}", self.root / f"merged_{self.merged}"
        spec = dataclasses.replace(self.spec, tasks=count)
        sweep.run(spec, [{"seed": lane} for lane in sorted(lanes)], other)
        both = [other, self.folder] if first else [self.folder, other]
        merging.merge(both, goal)
        for lane in lanes:
            self.asked[lane] = max(count, self.asked.get(lane, 0))
        for folder in both:
            shutil.rmtree(folder)
        self.folder = goal

    def teardown(self):
        run = self.grown(range(LANES), MOST)
        found = sweep.run(*run, self.folder)
        columns = [name for name in self.straight if name != "lane"]
        order = ["seed", "task"]
        left, right = (
            table[columns].sort_values(order, ignore_index=True) for table in (found, self.straight)
        )
        pd.testing.assert_frame_equal(left, right, check_exact=True)
        if PROBE in found:  # (wherever it was asked for)
            there = found[found[PROBE].notna()][[*order, PROBE]]
            wanted = there[order].merge(self.measured, on=order)[[*order, PROBE]]
            pd.testing.assert_frame_equal(there.reset_index(drop=True), wanted, check_exact=True)
        shutil.rmtree(self.root)


def test_any_order_gives_the_table_of_a_straight_run(tmp_path, compiled_quickly, monkeypatch):
    def in_this_process(folders, options):
        for folder in folders:
            worker.run(folder)
        return {}

    monkeypatch.setattr(local, "run", in_this_process)
    Interleaved.spec = tiny.spec(dataset=tiny.arrays(tmp_path / "data"))
    whole = dataclasses.replace(Interleaved.spec, tasks=MOST)
    seeds = [{"seed": lane} for lane in range(LANES)]
    Interleaved.straight = sweep.run(whole, seeds)
    Interleaved.measured = sweep.run(dataclasses.replace(whole, probes=(PROBE,)), seeds)
    Interleaved.TestCase.settings = settings(
        max_examples=EXAMPLES,
        stateful_step_count=5,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=True,
    )
    case = Interleaved.TestCase("runTest")
    case.runTest()
    print(dict(Interleaved.done))
