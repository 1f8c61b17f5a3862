"""Whatever is given to a flag or to a function: it is taken, or refused in one sentence before
anything is made.

Every flag and every argument meets values that nobody should give. Reaching what trains counts as
taken. `make sampler` draws thousands of command lines, `make test` the same few every time.
"""

import contextlib
import dataclasses
import fractions
import io
import json
import os
import pathlib
import shutil
import tempfile
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import plasticity_jax as pj
from experiments import figures, select
from experiments.gradual import kinds, theory
from experiments.gradual.settings import BENCHMARKS
from plasticity_jax import lanes, methods, registry
from plasticity_jax.cli import commands, flags, launcher, showing, slicing, status
from plasticity_jax.environments import ENVIRONMENTS
from plasticity_jax.estimates import cost
from plasticity_jax.execution import program as program_
from plasticity_jax.execution import rows, slices, sweep
from plasticity_jax.execution.engines import description, local, sliced, slurm, worker
from plasticity_jax.heads import HEADS
from plasticity_jax.models import MODELS
from plasticity_jax.optimizers import OPTIMIZERS, SCHEDULES
from plasticity_jax.spec import Spec, unread
from plasticity_jax.storage import paths, workdir
from plasticity_jax.storage import table as table_
from plasticity_jax.stream import order
from plasticity_jax.training import network, supervised

BASE = (
    "--samples=100 --epochs=2 --tasks=2 --batch_size=20 --seeds=1 --probes=none --width=8 "
    "--depth=1 --dataset=digits"
)
BASE = [*BASE.split(), "--noprogress", "--workdir=run"]
# flags that would fetch something or ask for every folder there is
APART = {"download", *flags.PATHS}
FLAGS = sorted({*flags.parse([])[0], "undefok", "flagfile", "nonsense"} - APART)
TEXTS = [
    "", " ", ",", "0", "-1", "1", "2", "1.5", "1e3", "nan", "inf", "-inf", "1e39", "1/0", "2/3",
    "0x10", "1,2", "1,,2", "9999999999", "99999999999999999999", "1" * 5000, "true", "none", "None",
    "relu", "l2", "l2+l2", "redo+l2", "mlp,cnn", "resnet18", "t5", "~", "~/x", "~nobody/x", "x\0y",
    "\udcff", "ü", "٣", "\U0001f600", "a\nb", "--tasks=3", "x" * 10_000, "[]", "{}", "arrays:",
    "arrays:~/x", "arrays:\udcff", "hessian_top", ",".join(map(str, range(1, 40))),
]  # fmt: skip
FOLDERS = [
    "",
    "~",
    "~/x",
    "~nobody/x",
    "x\0y",
    "\udcff",
    "ü",
    "a b",
    "file",
    "file/x",
    "x" * 300,
    "a\nb",
    ".",
    "run",
]
texts = st.one_of(
    st.sampled_from(TEXTS), st.text(max_size=12), st.integers().map(str), st.floats().map(repr)
)
arguments = st.one_of(
    st.tuples(st.sampled_from(FLAGS), texts),
    st.tuples(st.sampled_from(flags.PATHS), st.sampled_from(FOLDERS)),
)


class Taken(Exception):
    """What was given is good enough to train with."""


def take(*_, **__):
    raise Taken


@pytest.fixture
def nothing_trains():
    """In place of whatever trains, compiles or draws: an exception."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcher, "prepare_jax", lambda *_: None)
        patch.setattr(cost, "estimate", lambda *_: cost.Estimate(1.0, 1, 1))
        patch.setattr(launcher.profile, "profile", take)
        patch.setattr(sweep, "_run", take)
        patch.setattr(sliced, "run_in_slices", take)
        patch.setattr(local, "devices", lambda: local.Devices("cpu", 2))
        patch.setattr(slicing, "prepare", lambda values: None)
        patch.setattr(theory, "run", take)
        yield


def check_sentence(text: str) -> None:
    """One sentence, on one line, that can be printed."""
    assert text.endswith("."), text
    assert "\n" not in text
    assert len(text) < 2500
    text.encode()


def check_command(main, argv) -> None:
    """In an empty folder: exit code 0, or one sentence and the folder as it was, or training."""
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("HOME", f"{folder}/home")
        patch.setenv("PLASTICITY_CACHE_DIR", f"{folder}/cache")
        patch.delenv("PLASTICITY_DATA_DIR", raising=False)
        pathlib.Path("file").write_text("mine")
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(argv)
            except Taken:
                return
        assert code in (0, 1, 2)
        if code:
            told = [line for line in err.getvalue().splitlines() if not line.startswith("note: ")]
            assert len(told) == 1
            assert told[0].startswith("error: ")
            check_sentence(told[0])
            assert os.listdir() == ["file"]


def command(drawn) -> list[str]:
    return [*BASE, *(f"--{name}={text}" for name, text in drawn)]


def run(argv) -> int:
    return launcher.launch(launcher.Experiment("What it is."), argv)


@pytest.mark.usefixtures("nothing_trains")
@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(st.lists(arguments, min_size=1, max_size=3))
@pytest.mark.long
def test_any_command_line_is_taken_or_refused_in_a_sentence(drawn):
    check_command(run, command(drawn))


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_trains")
@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(arguments, min_size=1, max_size=4))
def test_thousands_of_command_lines_are_taken_or_refused_in_a_sentence(drawn):
    check_command(run, command(drawn))


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_trains")
def test_every_flag_meets_every_text():
    for name in FLAGS:
        for text in TEXTS:
            check_command(run, command([(name, text)]))


ENGINES = (
    "engine", "slice", "slice_minutes", "workers", "wave", "stop_below", "lane_width", "tracker",
    "slurm", "slurm.", "slurm.partition", "slurm.time", "slurm.array", "slurm.no-such", "slurm.A",
    "slurm.clusters", "slurm.wait", "ray", "ray.num_gpus", "ray.num_cpu", "ray.resources.x", "ray.",
    "local.x",
)  # fmt: skip
TOLD = ["local", "slurm", "ray", "accuracy:0.5", "online_accuracy:x", "loss:nan", "a:b:c", "jsonl"]
engines = st.tuples(st.sampled_from(ENGINES), st.one_of(st.sampled_from([*TOLD, *TEXTS]), texts))
asked = st.tuples(st.sampled_from(TOLD[:3]), st.lists(engines, min_size=1, max_size=4))


def check_engine(drawn) -> None:
    """A run in slices, where there seems to be a scheduler."""
    engine, others = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slurm.shutil, "which", lambda name: f"/bin/{name}")
        check_command(run, command([("engine", engine), *others]))


@pytest.mark.usefixtures("nothing_trains")
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(asked)
def test_any_flags_of_engines_are_taken_or_refused_in_a_sentence(drawn):
    check_engine(drawn)


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_trains")
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked)
def test_thousands_of_flags_of_engines_too(drawn):
    check_engine(drawn)


# what other commands than run are given: their flags, and folders, some of which are runs
COMMANDS = {
    "show": [*showing.OWN, "import"],
    "report": ["to", "last", "metric", "baseline", "band", "arm_names", "import"],
    "cite": ["import"],
    "status": ["watch", "long", "import"],
    "merge": ["to", "import"],
    "slice": ["import", "cores", "parent"],
}
RUNS = ["run", "run/slices", "half", "broken", "run/slices/aa", "nowhere"]
SHOWN = ["", "=", "=csv", "=latex", "=run", "=new", "=1", "=0", "=x.pdf", "=file", "=a=b"]
folders_ = st.one_of(st.sampled_from(RUNS), st.sampled_from(FOLDERS))
lines = st.sampled_from(sorted(COMMANDS)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        st.lists(folders_, max_size=3),
        st.lists(
            st.tuples(
                st.sampled_from([*COMMANDS[name], "nonsense", "help"]),
                st.one_of(st.sampled_from(SHOWN), texts.map("={}".format)),
            ),
            max_size=3,
        ),
    )
)


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """A folder with a run of a task, as if it had been trained, one that is half done, one that is
    none, and a slice.
    """
    root = tmp_path_factory.mktemp("workdirs")
    spec = tiny.spec(dataset=tiny.arrays(root / "data"), tasks=1)
    dataset = program_.load_common_dataset([spec], None, False)
    programs = program_.plan([(spec, [{"seed": 0}, {"seed": 1}])], {spec: 64}, "map", None)
    scores = {name: np.full((1, 2), 0.5, np.float32) for name in ("online_accuracy", "loss")}
    table = rows.table(programs, [{**scores, "finite": np.ones((1, 2), bool)}])
    for name, tasks in (("run", 1), ("half", 5)):
        made = [one._replace(spec=dataclasses.replace(spec, tasks=tasks)) for one in programs]
        (root / name / "slices" / "aa").mkdir(parents=True)
        found = slices.settings(slices.in_order(made), dataset)
        workdir.write_config(root / name, found, {})
        table_.write(table, root / name / "results.parquet")
        description.write(root / name / "slices" / "aa", made[0], description.How())
    (root / "broken").mkdir()
    (root / "broken" / "config.json").write_text("{")
    return root


def contents(folder) -> dict[str, bytes]:
    """The files in a folder, but for locks, which say who held them last, and for what libraries
    leave at home.
    """
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path): path.read_bytes() for path in paths if folder / "home" not in path.parents}


def check_line(root, drawn) -> None:
    name, given, flags_ = drawn
    words = [name, *given, *(f"--{flag}{text}" for flag, text in flags_)]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        here = pathlib.Path(folder)
        shutil.copytree(root, here, dirs_exist_ok=True)
        (here / "file").write_text("mine")
        patch.chdir(here)
        patch.setenv("HOME", f"{here}/home")
        patch.setenv("PLASTICITY_CACHE_DIR", f"{here}/cache")
        for part, attribute in ((worker, "die_with"), (worker, "run"), (os, "sched_setaffinity")):
            patch.setattr(part, attribute, take)
        patch.setattr(status, "time", types.SimpleNamespace(sleep=take))
        before = contents(here)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = commands.main(words)
            except Taken:
                return
        assert code in (0, 1, 2)
        if code:
            told = [line for line in err.getvalue().splitlines() if not line.startswith("note: ")]
            assert len(told) == 1, told
            assert told[0].startswith("error: ")
            check_sentence(told[0])
            after = contents(here)
            # (a slice notes why it failed)
            added = {file for file in after if not file.endswith("fault.txt")} - before.keys()
            assert not added
            assert {file: after.get(file) for file in before} == before


@pytest.mark.usefixtures("nothing_trains")
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(drawn=lines)
def test_any_other_command_does_it_or_refuses_in_a_sentence(workdirs, drawn):
    check_line(workdirs, drawn)


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_trains")
@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=lines)
def test_thousands_of_lines_of_other_commands_too(workdirs, drawn):
    check_line(workdirs, drawn)


SETTINGS = [
    "0",
    "1",
    "-1",
    "3",
    "30",
    "1000000",
    "2147483647",
    "0.5",
    "1e38",
    "nan",
    "x",
    "true",
    "never",
    "",
    "/x",
]
KINDS = {
    "environment": ENVIRONMENTS,
    "model": MODELS,
    "head": HEADS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "method": methods.METHODS,
    "probes": pj.probes.PROBES,
    "surgery": pj.surgery.SURGERIES,
    "agent": pj.agents.AGENTS,
}
TEXT = ("random_seq2seq", "bigram_cipher", "t5")


def settings_of_parts():
    """(kind, part, setting) of everything that is registered."""
    for kind, known in KINDS.items():
        for part, factory in known.items():
            for setting in (*registry.options(factory), *registry.numbers(factory)):
                yield kind, part, setting


def part_command(kind: str, part: str, setting: str, text: str) -> list[str]:
    """A small run that uses the part, with one setting of it."""
    own = {"probes": "none", kind: part, f"{part}.{setting}": text}
    if kind == "head" and HEADS[part]().targets == "numbers":
        own |= {"environment": "regression", "dataset": "arrays:nowhere"}
    if kind == "agent" and part != "none":
        own["environment"] = "bandit"
    if part in TEXT:
        own = {"model": "t5", "environment": "random_seq2seq", **own}
    small = {"width": "8", "depth": "1"}
    for name in unread(own.get("model", "mlp")):
        small.pop(name, None)
    apart = ["--probes", "--width", "--depth", "--dataset"]
    if own.get("environment") == "bandit":
        apart.append("--epochs")
    base = [flag for flag in BASE if flag.split("=")[0] not in apart]
    return [*base, *(f"--{name}={value}" for name, value in {**small, **own}.items())]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("nothing_trains")
@pytest.mark.long
def test_settings_of_every_part_meet_a_number_that_is_too_large_and_a_word(kind):
    for of, part, setting in settings_of_parts():
        for text in ("2147483647", "x") if of == kind else ():
            check_command(run, part_command(kind, part, setting, text))


@pytest.mark.slow
@pytest.mark.parametrize("text", SETTINGS)
@pytest.mark.usefixtures("nothing_trains")
def test_settings_of_every_part_meet_every_text(text):
    for kind, part, setting in settings_of_parts():
        check_command(run, part_command(kind, part, setting, text))


OWN = sorted({*figures.OWN, "benchmark", "tune", "workdir"})
own = st.tuples(
    st.sampled_from(OWN), st.one_of(st.sampled_from([*FOLDERS, *TEXTS[:24], "none,l2"]))
)
MAINS = {
    "figure": lambda argv: figures.main(
        "", figures.Figure("5a", BENCHMARKS["random_mnist"], kinds.BY_GRANULARITY), argv=argv
    ),
    "select": select.main,
    "theory": theory.main,
}


@pytest.mark.parametrize("main", MAINS)
@pytest.mark.usefixtures("nothing_trains")
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(drawn=st.lists(own, min_size=1, max_size=2))
@pytest.mark.long
def test_an_experiments_own_flags_too(main, drawn):
    check_command(
        MAINS[main],
        ["--scale=smoke", "--workdir=run", *(f"--{name}={text}" for name, text in drawn)],
    )


# --- objects ---


WRONG = [
    None, True, -1, 0, 1, 3, 1.5, 2.0, float("nan"), float("inf"), 10**400, 10**5000, 2**31, 2**63,
    "", "x", "none", "1e-3", "x\0y", "\udcff", b"x", 1j, [], [1], [[1]], [None], {}, {"a": 1},
    {1: 2, "a": 3}, (), set(), range(3), object(), print, fractions.Fraction(1, 3), np.int64(3),
    np.float32(0.5), np.float64("nan"), np.bool_(True), np.str_("relu"), np.array(3), np.array("x"),
    np.array([1, 2]), np.array([["a"]]), np.datetime64("2020"), jnp.array(2), jnp.float32(0.5),
    jnp.ones(2), jnp.array(True), Spec(), pathlib.Path("x"), iter([1]), jax.random.key(0),
    lanes.grid, [{}], [(Spec(), [])],
]  # fmt: skip
DATA = tiny.data()


def outcome(function, *arguments, **keywords):
    """What a call gives, or None if it refuses in one sentence."""
    try:
        return function(*arguments, **keywords)
    except Taken:
        return Taken
    except ValueError as error:
        message = str(error)
    check_sentence(message)
    return None


@pytest.mark.parametrize("field", [*Spec.__dataclass_fields__, "learning_rate"])
def test_any_object_as_a_field_of_spec(field):
    for value in WRONG:
        made = outcome(Spec, **{"probes": (), field: value})
        if made is not None:
            assert made == Spec(**json.loads(json.dumps(made.record())))
            assert all(type(v) in (int, str, tuple, type(None)) for v in vars(made).values())


@pytest.mark.long
def test_any_object_as_an_option():
    parts = {"method": "redo+spectral+shrink_and_perturb", "probes": tuple(pj.probes.PROBES)}
    known = Spec(**parts).known_options()
    assert len(known) > 10
    for name, default in known.items():
        for value in WRONG:
            made = outcome(Spec, **parts, options={name: value})
            if made is not None:
                assert type(dict(made.options)[name]) is type(default)


@pytest.mark.parametrize("name", ["seed", "learning_rate", "l2.strength"])
def test_any_object_as_a_number_of_a_lane(name, monkeypatch):
    spec = tiny.spec(method="l2")
    run = supervised.make_run(spec)
    monkeypatch.setattr(network, "network", take)
    for value in WRONG:
        made = outcome(pj.grid, **{name: value})
        for lane in [{name: value}] if made is None else made:
            assert made is None or all(type(number) in (int, float) for number in lane.values())
            taken = outcome(run.init, lane, DATA) is Taken
            assert taken == (outcome(lanes.check, spec, [lane], 64) is not None), value
            assert taken == (outcome(run.run_task, lane, STATE, DATA, 0) is Taken)
            outcome(pj.stack, [lane])


STATE = supervised.TrainState({}, {}, {}, {})


def test_any_object_as_an_argument_of_the_pure_functions(monkeypatch):
    run = supervised.make_run(tiny.spec())
    monkeypatch.setattr(network, "network", take)
    assert outcome(run.run_task, {}, STATE, DATA, 0) is Taken
    for value in WRONG:
        outcome(supervised.make_run, value)
        outcome(run.init, value, DATA)
        assert outcome(run.init, {}, value) is None
        assert outcome(run.run_task, {}, value, DATA, 0) is None
        assert outcome(run.run_task, {}, STATE, value, 0) is None
        outcome(run.run_task, {}, STATE, DATA, value)


def test_any_object_as_an_argument_of_a_stream(monkeypatch):
    good = {
        "environment": pj.environments.random_labels(),
        "transition": "output",
        "batch_size": 16,
        "epochs": 2,
    }
    at = pj.make_stream(**good)
    point = {
        "key": jax.random.key(0),
        "data": DATA,
        "task": 1,
        "step": 2,
        "granularity": 2,
        "transition_fraction": 0.5,
    }
    monkeypatch.setattr(order, "epoch", take)
    assert outcome(at, **point) is Taken
    for value in WRONG:
        for name in good:
            outcome(pj.make_stream, **{**good, name: value})
        for name in point:
            outcome(at, **{**point, name: value})


@pytest.mark.usefixtures("nothing_trains")
def test_any_object_as_an_argument_of_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sweep.memory, "check", lambda *_, **__: None)
    spec = tiny.spec(dataset=tiny.arrays(tmp_path / "data"), samples=64)
    assert outcome(pj.run, spec, []) is None
    for value in WRONG:
        assert outcome(pj.run, value) in (None, Taken)
        for name in ("lanes", "lane_strategy", "lane_width", "checkpoint_every"):
            outcome(pj.run, spec, **{name: value})
        outcome(pj.load_data, value)
        if not isinstance(value, str | pathlib.Path | None):
            assert outcome(pj.run, spec, workdir=value) is None
        outcome(paths.expanded, value)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_any_object_in_lists_of_lanes():
    for value in WRONG:
        outcome(pj.stack, value)
        outcome(lanes.check, Spec(), value, 512)
        outcome(pj.stack, [value])
        outcome(lanes.check, Spec(), [value], 512)
        outcome(registry.one_of, "name", value, ("a", "b"))
