"""What says how often may be "never", in one word and everywhere: more steps than a run can
have.
"""

import dataclasses
import json

import jax
import numpy as np
import optax
import pandas as pd
import pytest
from helpers import tiny

import plasticity_jax as pj
from plasticity_jax import lanes, methods, registry
from plasticity_jax.cli import flags, launcher
from plasticity_jax.estimates import cost
from plasticity_jax.execution import compiled
from plasticity_jax.reporting import labels, metrics
from plasticity_jax.spec import PARTS, Spec, is_period

pytestmark = pytest.mark.usefixtures("compiled_quickly")
NEVER = 2**31 - 1
WORD = "or 'never'."
# flag -> what else has to be given for it to mean something
FLAGS = {
    "probe_every": "--probes=dormant_fraction",
    "random_labels.every": "",
    "redo.period": "--method=redo",
    "redo.warmup": "--method=redo",
    "shrink_and_perturb.period": "--method=shrink_and_perturb",
    "dqn.target_every": "--environment=bandit --agent=dqn --phase_steps=200",
    "rainbow.target_every": "--environment=bandit --agent=rainbow --head=c51 --phase_steps=200",
}
OPTIONS = [name for name in FLAGS if "--method=" in FLAGS[name]]
TINY = (
    "--samples=100 --epochs=2 --tasks=2 --batch_size=20 --seeds=1 --width=8 --depth=1 --norm=none"
)
TINY = [*TINY.split(), "--optimizer=sgd", "--noprogress"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("PLASTICITY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(launcher, "prepare_jax", lambda *_: None)


def runs(*argv):
    return flags.runs(*flags.parse([*small(argv), "--probes=none", *argv]))


def small(more):
    """`TINY`, without epochs where a phase has steps instead."""
    return [flag for flag in TINY if "--phase_steps=200" not in more or "--epochs" not in flag]


def with_period(name, value):
    """A Spec with a period, as one gives it from Python."""
    if name == "probe_every":
        return tiny.spec(probe_every=value)
    return tiny.spec(method=name.partition(".")[0], options={name: value})


def test_every_period_may_be_never():
    named = {*Spec.__dataclass_fields__, *flags.part_settings()}
    assert {name for name in named if is_period(name)} == set(FLAGS)
    often = ("period", "every", "warmup")
    shares = {"cosine.warmup"}  # of a task
    # numbers of an agent's steps, which it takes in every phase
    steps = {f"{agent}.{what}" for agent in ("dqn", "rainbow") for what in ("every", "warmup")}
    assert {name for name in named if name.endswith(often)} - shares - steps == set(FLAGS)


@pytest.mark.parametrize("name", FLAGS)
def test_the_word_on_the_command_line_is_the_largest_number(name):
    more = FLAGS[name].split()
    assert runs(f"--{name}=never", *more) == runs(f"--{name}={NEVER}", *more)
    assert runs(f"--{name}=never", *more) != runs(f"--{name}=7", *more)


def test_the_word_is_a_value_of_an_axis_and_the_same_run_is_run_once():
    [(_, made)] = runs(f"--random_labels.every=1,never,{NEVER}")
    assert [lane["random_labels.every"] for lane in made] == [1, NEVER]
    found = runs("--method=redo", f"--redo.period=5,never,{NEVER}")
    assert [dict(one.options)["redo.period"] for one, _ in found] == [5, NEVER]


@pytest.mark.parametrize("name", ["probe_every", *OPTIONS])
def test_the_word_in_python_is_recorded_as_the_number(name):
    made = with_period(name, "never")
    assert made == with_period(name, NEVER) == with_period(name, np.str_("never"))
    record = made.record()
    assert record["options"].get(name, record["probe_every"]) == NEVER


def test_the_word_in_lanes():
    name = "random_labels.every"
    assert pj.grid(**{name: ["never", 1]}) == [{name: NEVER}, {name: 1}]
    assert pj.stack([{name: "never"}, {name: 1}])[name].tolist() == [NEVER, 1]
    [lane] = lanes.check(Spec(), [{name: "never"}], 512)
    assert lane[name] == NEVER
    assert lanes.arrays(Spec(), {name: "never"})[name] == NEVER


# --- a wrong word ---


@pytest.mark.parametrize("name", [*FLAGS, "checkpoint_every"])
@pytest.mark.parametrize("text", ["nevr", "Never", "none", "-1", "1.5", ""])
def test_a_wrong_word_is_one_sentence_on_the_command_line(name, text, tmp_path, capsys):
    folder = tmp_path / "run"
    more = FLAGS.get(name, "").split()
    argv = [*small(more), f"--workdir={folder}", f"--{name}={text}", *more]
    assert launcher.launch(launcher.Experiment(""), argv) == launcher.USAGE
    [told] = capsys.readouterr().err.splitlines()
    assert told.startswith(f"error: {name} is ")
    assert told.endswith(WORD)
    assert not folder.exists()


@pytest.mark.parametrize("value", ["nevr", None, -1, 1.5, float("inf"), True])
def test_a_wrong_value_is_one_sentence_in_python(value):
    calls = [lambda n=name: with_period(n, value) for name in ["probe_every", *OPTIONS]]
    calls += [lambda: pj.run(tiny.spec(), checkpoint_every=value)]
    calls += [lambda: methods.shrink_and_perturb(period=value), lambda: methods.every(value)]
    calls += [
        lambda n=n: methods.redo({}, lambda key: {}, **{n: value}) for n in ("period", "warmup")
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"allowed are whole numbers from .*or 'never'\.$"):
            call()


def test_other_numbers_have_no_such_word():
    for name in ("tasks", "epochs", "subsample_seed"):
        with pytest.raises(
            ValueError, match=rf"^{name} is 'never': allowed are whole numbers from \d\.$"
        ):
            Spec(**{name: "never"})
    for call in (lambda: pj.grid(seed="never"), lambda: pj.grid(granularity=["never"])):
        with pytest.raises(ValueError, match=r"is 'never': allowed are finite numbers\.$"):
            call()
    with pytest.raises(
        ValueError, match=r"^granularity is 'never': allowed are whole numbers from 1\.$"
    ):
        runs("--granularity=never")


# --- what happens ---


def test_never_is_not_even_at_the_last_step_that_there_can_be():
    last = jax.numpy.int32(NEVER - 2)  # steps are counted from 0, and a run has fewer than NEVER
    ctx = pj.Context(jax.random.key(0), last, jax.numpy.bool_(False), {})
    assert not methods.every("never")(ctx)
    assert not methods.every(1, "never")(ctx)
    assert methods.every(NEVER - 1)(ctx)
    with pytest.raises(ValueError, match=f"allowed are fewer than {NEVER}"):
        lanes.check(Spec(tasks=1, epochs=NEVER, batch_size=64), [{}], 64)
    lanes.check(Spec(tasks=1, epochs=NEVER - 1, batch_size=64), [{}], 64)


@pytest.mark.long
def test_methods_that_never_act_change_nothing():
    params = {"a": jax.numpy.arange(4.0)}
    bare, plain = optax.adam(0.1), params
    shrinking, shrunk = methods.shrink_and_perturb(period="never")(bare), params
    memory, other = bare.init(params), shrinking.init(params)
    for step in range(4):
        ctx = pj.Context(
            jax.random.key(step), jax.numpy.int32(step), jax.numpy.bool_(step == 2), {}
        )
        updates, memory = bare.update(plain, memory, plain)
        plain = optax.apply_updates(plain, updates)
        updates, other = shrinking.update(shrunk, other, shrunk, ctx=ctx)
        shrunk = optax.apply_updates(shrunk, updates)
    assert np.array_equal(plain["a"], shrunk["a"])


@pytest.mark.long
def test_labels_that_never_change():
    data = tiny.data()
    never = pj.environments.random_labels(every=np.int32(NEVER))
    fixed = pj.environments.random_labels(change=False)
    for task in (0, 1, 7):
        key = jax.random.key(3)
        assert np.array_equal(never.task(key, data, task), fixed.task(key, data, task))


@pytest.mark.long
def test_a_run_in_which_nothing_periodic_happens(tmp_path):
    dataset = tiny.arrays(tmp_path / "data")
    spec = tiny.spec(
        dataset=dataset,
        samples=64,
        method="redo",
        probes=("dormant_fraction",),
        probe_every="never",
        options={"redo.period": "never"},
    )
    table = pj.run(spec, [{"redo.threshold": 1.0}], checkpoint_every="never")
    assert len(table) == 2
    assert (table["units_reset"] == 0).all()
    assert table["dormant_fraction"].isna().all()
    often = dataclasses.replace(spec, probe_every=1, options={"redo.period": 1})
    table = pj.run(often, [{"redo.threshold": 1.0}])
    assert (table["units_reset"] > 0).all()
    assert table["dormant_fraction"].notna().all()


# --- what is written and shown ---


@pytest.mark.long
def test_a_workdir_that_says_it_with_the_number_is_the_same_run(tmp_path, capsys, monkeypatch):
    argv = [
        *TINY,
        f"--workdir={tmp_path / 'run'}",
        "--method=shrink_and_perturb",
        "--probes=effective_rank",
    ]
    periods = ("probe_every", "shrink_and_perturb.period", "checkpoint_every")
    number = [f"--{name}={NEVER}" for name in periods]
    assert launcher.launch(launcher.Experiment(""), [*argv, *number]) == 0
    monkeypatch.setattr(compiled, "compile_program", lambda *_: pytest.fail("computed again"))
    before = json.loads((tmp_path / "run" / "config.json").read_text())
    word = [text.partition("=")[0] + "=never" for text in number]
    # (a caption of what differs reads the flag's text again)
    often = launcher.Experiment("", {"shrink_and_perturb.period": 0})
    assert launcher.launch(often, [*argv, *word]) == 0
    assert capsys.readouterr().err == ""
    after = json.loads((tmp_path / "run" / "config.json").read_text())
    assert after.pop("remarks")  # (which differ, as the experiment does)
    before.pop("remarks", "")
    assert after.pop("sha256") != before.pop("sha256")  # (of the remarks, too)
    assert after == before


def test_the_word_is_shown(tmp_path, capsys):
    argv = [*TINY, "--method=redo", "--redo.period=never", "--random_labels.every=never"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "estimate", lambda *_: cost.Estimate(1.0, 1, 1))
        assert launcher.launch(launcher.Experiment(""), [*argv, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "redo.period never" in out
    assert "random_labels.every never" in out
    assert str(NEVER) not in out
    frame = pd.DataFrame(
        {"method": ["redo", "redo"], "redo.period": [100, NEVER], "granularity": [1, 1]}
    )
    assert labels.of_arms(frame) == ["redo.period=100", "redo.period=never"]


def test_a_figure_of_a_probe_that_never_runs_is_refused():
    never = tiny.spec(probes=("dormant_fraction",), probe_every="never")
    with pytest.raises(
        ValueError,
        match=r"^probe_every is never, but dormant_fraction/h0 is to be shown: .* 2, the",
    ):
        metrics.check_measured([never], "dormant_fraction/h0")
    metrics.check_measured([dataclasses.replace(never, probe_every=2)], "dormant_fraction")


@pytest.mark.long
def test_what_may_be_never_is_said_by_its_annotation():
    def part(*, period: pj.types.Period = 3, often: pj.types.Whole = 1, width: int = 2):
        """A part."""

    assert registry.periods(part) == {"period", "often"}
    assert registry.options(part) == {"period": 3, "width": 2}
    assert set(registry.numbers(part)) == {"often"}
    assert PARTS.keys() >= {"redo"}
