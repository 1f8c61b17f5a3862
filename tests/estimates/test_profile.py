"""The profile: its arithmetic on events and instructions made by hand, and one of a real
program.
"""

import gzip
import json
import re

import pytest
from helpers import tiny

from plasticity_jax import lanes
from plasticity_jax.datasets import load, subsample
from plasticity_jax.estimates import profile
from plasticity_jax.execution import compiled as compiled_
from plasticity_jax.execution import program as program_

pytestmark = pytest.mark.usefixtures("compiled_quickly")

DIGITS = subsample(load("digits"), 64)


# Events


def test_the_time_of_an_event_inside_another_is_its_own():
    loop = [
        ("a", 0.0, 10.0, "while"),
        ("a", 1.0, 4.0, "call"),
        ("a", 1.0, 3.0, "dot"),
        ("a", 5.0, 6.0, "dot"),
    ]
    assert profile.self_times(loop) == {"while": 6.0, "call": 1.0, "dot": 3.0}
    assert profile.self_times(reversed(loop)) == {"while": 6.0, "call": 1.0, "dot": 3.0}


def test_an_instant_is_shared_among_the_lines_that_work():
    both = [
        ("a", 0.0, 4.0, "dot"),
        ("b", 2.0, 6.0, "copy"),
        ("b", 3.0, 4.0, "add"),
        ("a", 9.0, 10.0, "dot"),
    ]
    assert profile.self_times(both) == {"dot": 2.0 + 0.5 + 0.5 + 1.0, "copy": 0.5 + 2.0, "add": 0.5}


def test_events_that_only_touch_or_take_no_time_are_apart():
    assert profile.self_times(
        [("a", 0.0, 1.0, "x"), ("a", 1.0, 2.0, "y"), ("a", 1.0, 1.0, "z")]
    ) == {
        "x": 1.0,
        "y": 1.0,
    }
    assert profile.self_times([]) == {}


def test_what_outlasts_the_event_around_it_counts_to_its_end():
    assert profile.self_times([("a", 0.0, 2.0, "x"), ("a", 1.0, 5.0, "y")]) == {"x": 1.0, "y": 4.0}


def test_parts_are_means_over_devices_and_add_up_to_the_whole():
    devices = {
        0: [("a", 1.0, 5.0, "dot"), ("a", 6.0, 7.0, "copy")],
        1: [("b", 0.0, 2.0, "dot"), ("b", 2.0, 4.0, "x")],
    }
    found = profile.breakdown(devices, {"dot": "forward", "copy": "data"}, wall=8.0)
    assert {name: seconds for name, seconds in found.items() if seconds} == {
        "forward": 3.0, "data": 0.5, "other": 1.0, "host": 3.5,
    }  # fmt: skip
    assert tuple(found) == profile.PARTS
    assert sum(found.values()) == 8.0


# Instructions


@pytest.mark.parametrize(
    ("op_name", "part"),
    [
        ("jit(f)/while/body/jvp(forward)/MLP/layer0/dot_general", "forward"),
        ("jit(f)/while/body/transpose(jvp(forward))/MLP/layer0/dot_general", "backward"),
        ("jit(f)/vmap(transpose(jvp(forward)))/mul", "backward"),
        ("forward", "forward"),
        ("jit(f)/method/transpose(jvp())/mul", "method"),
        ("jit(f)/method/optimizer/add", "optimizer"),
        ("jit(f)/probes/while/body/jvp(transpose(jvp(MLP)))/head/dot_general", "probes"),
        ("jit(f)/vmap(data)/jit(_shuffle)/sort", "data"),
        ("jit(data)/mul", ""),
        ("jit(f)/forwarded/my_method/add", ""),
        ("", ""),
    ],
)
def test_an_op_name_tells_the_part(op_name, part):
    assert profile.part_of(op_name) == part


PROGRAM = """HloModule jit_f, is_scheduled=true

%fused (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  ROOT %mul.1 = f32[2]{0} multiply(%p, %p), metadata={op_name="jit(f)/method/mul"}
}

%body (q: (f32[2])) -> (f32[2]) {
  %q = (f32[2]{0}) parameter(0)
  %copy.1 = f32[2]{0} copy(%q)
  %add.1 = f32[2]{0} add(%copy.1, %copy.1), metadata={op_name="jit(f)/data/add" source_line=3}
  %copy.2 = f32[2]{0} copy(%add.1)
  ROOT %tuple.1 = (f32[2]{0}) tuple(%copy.2)
}

%condition (r: (f32[2])) -> pred[] {
  %r = (f32[2]{0}) parameter(0)
  ROOT %less = pred[] constant(false)
}

ENTRY %main (x: f32[2]) -> f32[2] {
  %x = f32[2]{0} parameter(0)
  %while.1 = (f32[2]{0}) while(%x), condition=%condition, body=%body, metadata={op_name="jit(f)/probes/while"}
  %while.2 = (f32[2]{0}) while(%x), condition=%condition, body=%other_body, metadata={op_name="jit(f)/while"}
  ROOT %fusion.1 = f32[2]{0} fusion(%while.2), kind=kLoop, calls=%fused, metadata={op_name="jit(f)/method/mul"}
}
"""  # noqa: E501


def test_instructions_without_a_mark_belong_to_what_reads_them_or_to_their_loop():
    parts = profile.parts_of(PROGRAM)
    assert (parts["mul.1"], parts["fusion.1"], parts["add.1"]) == ("method", "method", "data")
    assert parts["copy.1"] == "data"  # read by add.1
    assert parts["copy.2"] == parts["less"] == "probes"  # in a loop of the probes
    assert parts["while.2"] == "other"  # it has a name, which says nothing


# A program


def program(count=2, strategy="sharded", width=1, **changes):
    spec = tiny.spec(**({"epochs": 50, "probes": ("gradient_norm",)} | changes))
    (planned,) = program_.plan([(spec, lanes.grid(seed=range(count)))], 64, strategy, width)
    return planned


def rows(text):
    """{part: (milliseconds, share, share of a whole task)} of the table, and milliseconds in
    all.
    """
    found = re.findall(r"^(\w+) +([\d.]+) +([\d.]+)% +(?:[\d.]+ +)?([\d.]+)%$", text, re.M)
    return {name: tuple(map(float, numbers)) for name, *numbers in found}, float(
        re.search(r"in all +([\d.]+)", text)[1]
    )  # pyright: ignore


@pytest.mark.parametrize(
    ("strategy", "width", "method"), [("sharded", 1, "spectral"), ("vmap", 2, "none")]
)
def test_the_profile_of_a_program(strategy, width, method, tmp_path, monkeypatch):
    exact, breakdown = [], profile.breakdown
    monkeypatch.setattr(
        profile, "breakdown", lambda *given: exact.append(breakdown(*given)) or exact[0]
    )
    text = profile.profile(program(3, strategy, width, method=method), DIGITS, tmp_path)
    parts, whole = rows(text)
    assert tuple(parts) == profile.PARTS
    for column, total in ((0, whole), (1, 100.0), (2, 100.0)):
        assert sum(numbers[column] for numbers in parts.values()) == pytest.approx(
            total, abs=0.06 * len(parts)
        )
    assert (exact[0]["method"] > 0) == (method == "spectral")
    assert all(seconds > 0 for name, seconds in exact[0].items() if name != "method")
    assert [numbers[0] for numbers in parts.values()] == [
        round(1e3 * seconds, 1) for seconds in exact[0].values()
    ]
    assert f"{program(3, strategy, width).execution.devices} x cpu" in text
    assert "2 of 3 lanes and 100 of 200 steps, with one evaluation and the probes once" in text
    (file,) = tmp_path.glob("plugins/profile/*/*.trace.json.gz")
    assert f"trace: {file} " in text
    with gzip.open(file, "rt") as opened:
        names = {event.get("name") for event in json.load(opened)["traceEvents"]}
    assert names & profile.parts_of(sweep_text(program(3, strategy, width, method=method))).keys()
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))  # what TensorBoard reads


def sweep_text(planned):
    cut, part = profile.shortened(planned, DIGITS)
    compiled = compiled_.compile_program(cut, program_.device_data(part))
    return str(compiled.executable(compiled.init()).as_text())


def test_a_long_epoch_is_cut_and_probes_come_once():
    planned = program(batch_size=2, probe_every=7)
    cut, part = profile.shortened(planned, subsample(load("digits"), 300))
    assert (cut.spec.epochs, cut.spec.probe_every, len(part.images)) == (1, 1, 200)
    assert (len(part.labels), len(part.test_images), len(cut.lanes)) == (
        200,
        len(load("digits").test_images),
        2,
    )
    assert profile.shortened(program(epochs=3), DIGITS)[0].spec.epochs == 3


def test_a_loop_of_programs_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is 'plain': allowed are 'vmap', 'map', 'sharded'\.$"):
        profile.profile(program(strategy="plain"), DIGITS, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("period", [100, 101])
def test_what_happens_less_often_than_the_trace_is_long_is_named(period):
    planned = program(epochs=100, method="redo", options={"redo.period": period})
    cut, part = profile.shortened(planned, DIGITS)  # 25 epochs of 4 steps
    text = profile.described(planned, cut, DIGITS, part, dict.fromkeys(profile.PARTS, 1.0))
    assert ("redo.period 101 is longer than that" in text) == (period > 100)
