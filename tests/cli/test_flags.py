"""Flags: from text to a grid of programs and lanes, and the two texts that name everything."""

import inspect
import math
import shlex

import pytest

from experiments import demo
from experiments import run as general
from experiments.gradual import random_mnist
from plasticity_jax import datasets, lanes, methods, registry, spec
from plasticity_jax.cli import flags, help, settings
from plasticity_jax.models import MODELS
from plasticity_jax.stream.transitions import TRANSITIONS


def grid(command="", defaults=None, arms=({},)):
    """(Spec, lanes) of a command line."""
    values, given = flags.parse(shlex.split(command), defaults)
    return flags.runs(values, given, arms)


def column(runs, name):
    """One number of all lanes, in their order; None where a lane has no such number."""
    return [lane.get(name) for _, found in runs for lane in found]


def counts(runs):
    return {one.method: len(found) for one, found in runs}


# --- parse ---


def test_defaults_are_those_of_spec_and_of_lanes():
    [(one, found)] = grid()
    assert one == spec.Spec()
    assert found == [lanes.defaults(one) | {"seed": seed} for seed in range(5)]


def test_parse_tells_what_was_given():
    values, given = flags.parse(
        ["--tasks=3", "--seeds", "2", "--dry_run", "--noprogress"], {"epochs": "7"}
    )
    assert given == {"tasks", "seeds", "dry_run", "progress"}
    assert (values["tasks"], values["seeds"], values["epochs"], values["batch_size"]) == (
        "3",
        "2",
        "7",
        "64",
    )
    assert (values["dry_run"], values["progress"], values["list"], values["workdir"]) == (
        True,
        False,
        False,
        None,
    )


def test_the_command_line_wins_over_an_experiments_defaults_and_the_last_flag_over_the_first():
    values, _ = flags.parse(["--tasks=3", "--tasks=4"], {"tasks": "9", "epochs": "8"})
    assert (values["tasks"], values["epochs"]) == ("4", "8")


def test_parsing_leaves_the_flags_of_the_process_alone():
    from absl import flags as process

    before = set(process.FLAGS)
    flags.parse(["--tasks=3"])
    assert set(process.FLAGS) == before


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("--redo.treshold=1", "unknown flag --redo.treshold (did you mean --redo.threshold?)"),
        ("--qqq=1", "unknown flag --qqq: --help and --list name all flags."),
        ("--noseeds", "unknown flag --noseeds"),
        ("--tasks", "Missing value for flag --tasks"),
        ("--profile --tasks=3", "profile is '--tasks=3': allowed is a value, as --profile=VALUE."),
        ("5", "argument '5' is not a flag"),
        ("--granularity=1, 5", "argument '5' is not a flag"),
        ("-- --tasks=3", "argument '--tasks=3' is not a flag"),
        ("--list=perhaps", "flag --list=perhaps: allowed are true and false."),
        ("--nolist=1", "--nolist=1 does not take an argument"),
        ("--flagfile=/nowhere", "Unable to open flagfile"),
    ],
)
def test_parse_refuses(argv, sentence):
    with pytest.raises(ValueError) as error:
        flags.parse(argv.split())
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def test_a_flag_of_an_experiment_is_not_taken_for_the_value_of_another():
    with pytest.raises(ValueError, match=r"^scale is '--only=a': allowed is a value, as --scale="):
        flags.own({"scale": None, "only": None}, ["--scale", "--only=a"])
    assert flags.own({"scale": None}, ["--scale", "smoke"]) == ({"scale": "smoke"}, [])


# --- numbers ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2/3", 2 / 3),
        ("0.667", 0.667),
        ("1", 1.0),
        ("1e-3", 0.001),
        (" .5 ", 0.5),
        ("1e-3/4", 0.00025),
        ("+0", 0.0),
    ],
)
def test_numbers_are_read_as_people_write_them(text, value):
    [(_, [lane, *_])] = grid(f"'--transition_fraction={text}'")
    assert lane["transition_fraction"] == value
    assert isinstance(lane["transition_fraction"], float)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-3, "1e-3"),
        (0.01, "0.01"),
        (2 / 3, "2/3"),
        (1.0, "1"),
        (0.0, "0"),
        (0.1 + 0.2, "0.30000000000000004"),
        (-2.5e-7, "-2.5e-7"),
        (3.4e38, "3.4e+38"),
        (20, "20"),
        (True, "true"),
        ("relu", "relu"),
        ((1, 4, 20), "1,4,20"),
        ((1e-3, 2 / 3), "1e-3,2/3"),
        (None, None),
    ],
)
def test_settings_are_written_as_people_do_and_lose_nothing(value, text):
    assert settings.text(value) == text
    if isinstance(value, float):
        assert settings.read("learning_rate", text) == value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "9", 9),
        ("epochs", "9, 18,9", (9, 18)),
        ("samples", "64", 64),
        ("width", "8,16", (8, 16)),
        ("dataset", "arrays:a,b", "arrays:a,b"),
        ("samples", None, None),
        ("probes", "hessian_top", ("hessian_top",)),
        ("granularity", "1,4", (1, 4)),
        ("transition_fraction", "2/3", 2 / 3),
        ("seeds", "3", 3),
        ("redo.period", "5,6", (5, 6)),
        ("redo.relative", "False", False),
        ("redo.threshold", "0.1", 0.1),
        ("random_labels.every", "2", 2),
        ("redo.outgoing", "keep", "keep"),
        ("workdir", "a,b", "a,b"),
    ],
)
def test_what_a_flag_says_is_a_value_of_python(name, text, value):
    found = settings.read(name, text)
    assert found == value
    assert type(found) is type(value)


BEYOND = [
    "",
    "abc",
    "2/0",
    "1/2/3",
    "nan",
    "inf",
    "-inf",
    "1e39",
    "-1e39",
    "1e400",
    "1e999999999",
    "1/1e-300",
    "0x1",
]


@pytest.mark.parametrize("text", BEYOND)
def test_numbers_that_float32_does_not_hold_are_refused_at_once(text):
    with pytest.raises(ValueError) as error:
        grid(f"--method=l2 --l2.strength={text}")
    allowed = "allowed are numbers such as 0.001, 1e-3 or 2/3, up to 3.4e+38."
    assert str(error.value) == f"l2.strength is {text!r}: {allowed}"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("--granularity=1.5", "granularity is '1.5': allowed are whole numbers from 1."),
        ("--granularity=5,0", "granularity is 0: allowed are whole numbers from 1."),
        ("--samples=0", "samples is 0: allowed are whole numbers from 1."),
        ("--subsample_seed=-1", "subsample_seed is -1: allowed are whole numbers from 0."),
        ("--seeds=0", "seeds is 0: allowed are whole numbers from 1."),
        ("--first_seed=-1", "first_seed is -1: allowed are whole numbers from 0."),
        (
            "--seeds=2 --first_seed=2147483647",
            "first_seed is 2147483647 and seeds is 2: allowed are seeds up to 2147",
        ),
        (
            "--seeds=99999999999",
            "first_seed is 0 and seeds is 99999999999: allowed are seeds up to 2147483647.",
        ),
        (
            "--method=redo --redo.period=1e3",
            "redo.period is '1e3': allowed are whole numbers from 0, or 'never'.",
        ),
        (
            "--method=redo --redo.relative=maybe",
            "redo.relative is 'maybe': allowed are 'true', 'false'.",
        ),
        (
            "--redo.period=5",
            "redo.period is '5', but no arm of this run uses redo: add redo or leave it out.",
        ),
        (
            "--probes=none --hessian_top.iterations=9",
            "hessian_top.iterations is '9', but no arm of this run uses",
        ),
    ],
)
def test_runs_refuses(argv, sentence):
    with pytest.raises(ValueError) as error:
        grid(argv)
    assert str(error.value).startswith(sentence)


# --- the grid ---


def test_lists_of_lane_numbers_stay_in_one_program():
    [(_, found)] = grid(
        "--granularity=5,20 --learning_rate=1e-3,3e-3 --transition_fraction=1/2,1 --seeds=3"
    )
    assert len(found) == 2 * 2 * 2 * 3
    assert [lane["seed"] for lane in found[:4]] == [0, 1, 2, 0]  # the seeds run fastest
    assert {lane["learning_rate"] for lane in found[: len(found) // 2]} == {0.001, 0.003}


def test_seeds_count_from_the_first():
    assert column(grid("--seeds=3 --first_seed=7"), "seed") == [7, 8, 9]


AXES = {
    "environment": "random_labels,permuted_pixels",
    "transition": "output,sampling",
    "epochs": "1,2",
    "width": "8,16",
    "depth": "1,2",
    "norm": "none,layer,batch",
    "activation": "relu,crelu",
    "initialization": "torch,he",
    "head": "linear,smoothed",
    "optimizer": "adam,sgd",
    "schedule": "constant,cosine",
    "precision": "float32,tensorfloat32,bfloat16",
    "method": "none,l2,redo+l2",
    "surgery": "none,perturb",
    "agent": "dqn,rainbow",
}


def test_every_axis_is_tried_here():
    assert {*AXES, "model"} == {
        name for name, f in settings.SPEC_FIELDS.items() if f.metadata["axis"]
    }


@pytest.mark.parametrize(("axis", "texts"), AXES.items())
def test_lists_of_static_settings_give_programs_in_their_order(axis, texts):
    base = "--granularity=2 --transition=sampling "
    if axis == "agent":
        base = "--environment=bandit"
    runs = grid(f"{base} --{axis}={texts}")
    assert [str(getattr(one, axis)) for one, _ in runs] == texts.split(",")
    assert [len(found) for _, found in runs] == [5] * len(runs)


def test_spaces_around_the_items_of_a_list_are_left_out():
    assert grid("'--method=none, l2' '--granularity= 2 ,4'") == grid(
        "--method=none,l2 --granularity=2,4"
    )


def test_a_methods_number_multiplies_only_the_arms_that_use_it():
    command = (
        "--granularity=1,5,20 --learning_rate=1e-3,3e-3 --method=none,l2,redo+l2 "
        "--l2.strength=1e-3,1e-4"
    )
    runs = grid(f"{command} --redo.threshold=0.1,0.2,0.3")
    assert counts(runs) == {"none": 3 * 2 * 5, "l2": 3 * 2 * 2 * 5, "redo+l2": 3 * 2 * 2 * 3 * 5}
    for one, found in runs:
        own = {name.partition(".")[0] for lane in found for name in lane if "." in name} - {
            "adam",
            "random_labels",
        }
        assert own == set(one.method.split("+")) - {"none"}


def test_a_methods_option_gives_programs_only_of_that_method():
    runs = grid("--method=none,redo --redo.period=50,1000 --redo.score=batch,running")
    assert [dict(one.options) for one, _ in runs] == [
        {},
        {"redo.period": 50},
        {"redo.period": 50, "redo.score": "running"},
        {},  # the defaults, which a Spec made by hand does not name either
        {"redo.score": "running"},
    ]


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("TRUE", True)])
def test_switches_among_a_methods_options(text, value):
    [(one, _)] = grid(f"--method=redo --redo.reset_norm={text}")
    assert dict(one.options).get("redo.reset_norm", False) is value


def test_settings_of_environments_optimizers_and_probes_are_flags_too():
    command = (
        "--random_labels.draw=iid --optimizer=adam,momentum --momentum.decay=0.5,0.9 --adam.b1=0.8"
    )
    adam, momentum = grid(f"{command} --probes=dormant_fraction --dormant_fraction.share=0.05")
    assert dict(adam[0].options) == {"dormant_fraction.share": 0.05, "random_labels.draw": "iid"}
    assert (len(adam[1]), len(momentum[1])) == (5, 10)
    assert {lane["adam.b1"] for lane in adam[1]} == {0.8}
    assert all("adam.b1" not in lane for lane in momentum[1])


# --- the same run is run once ---


@pytest.mark.parametrize(
    ("command", "lanes_of_a_seed"),
    [
        ("--granularity=1 --transition=output,sampling", 1),
        ("--granularity=1 --transition_fraction=0,1/2,1", 1),
        ("--granularity=1,20 --transition=output,sampling", 3),
        ("--granularity=1,20 --transition=output,sampling --transition_fraction=1/2,1", 5),
        ("--granularity=1,20 --transition=output,sampling --method=none,l2", 6),
        ("--granularity=20,20", 1),
        ("--learning_rate=1e-3,0.001,1/1000", 1),
        ("--learning_rate=0.1,0.10000000001", 1),  # the same float32
        ("--learning_rate=0.1,0.1000001", 2),
        ("--method=l2 --l2.strength=0.1,0.10000000001", 1),
        ("--method=none,none", 1),
        ("--method=redo+l2,l2+redo,none+l2+redo", 1),
        ("--method=redo --redo.relative=true,True", 1),
        ("--method=redo --redo.threshold=0.1,0.2 --redo.period=never,5", 3),
        ("--random_labels.share=0.1,0.2 --random_labels.every=never,2", 3),
        ("--method=l2_init+l2,l2+l2_init", 1),  # the order of penalties is of no consequence
        ("--method=redo+shrink_and_perturb,shrink_and_perturb+redo", 2),  # that of rewrites is
    ],
)
def test_lanes_that_would_be_the_same_run_appear_once(command, lanes_of_a_seed):
    assert len(column(grid(f"{command} --seeds=2"), "seed")) == 2 * lanes_of_a_seed


# --- arms ---


def test_arms_are_a_union_and_not_a_product():
    arms = ({"granularity": "1"}, {"method": "none"}, {"method": "none", "granularity": "4,20"})
    runs = grid("--method=none,l2 --granularity=4,8 --seeds=1", arms=arms)
    assert [(one.method, column([(one, found)], "granularity")) for one, found in runs] == [
        ("none", [1, 4, 8, 20]),  # one program, and no lane twice
        ("l2", [1]),
    ]


def test_random_mnist_is_seven_arms_of_five_seeds_in_six_programs():
    runs = grid("", random_mnist.DEFAULTS, random_mnist.ARMS)
    abrupt = ["none", "l2", "shrink_and_perturb", "spectral", "redo"]
    assert len(runs) == 6
    assert len(column(runs, "seed")) == 35
    arms = {
        (one.method, one.transition, lane["granularity"]) for one, found in runs for lane in found
    }
    changed = {(method, "output", 1) for method in abrupt}
    assert arms == changed | {("none", "output", 20), ("none", "sampling", 20)}
    numbers = {
        one.method: {**lane, **one.known_options(), **dict(one.options)} for one, [lane, *_] in runs
    }
    for name, text in random_mnist.DEFAULTS.items():
        if name.partition(".")[0] in numbers:  # a method's own setting, in the arm of that method
            value = numbers[name.partition(".")[0]][name]
            assert value == type(value)(text)
    for one, found in runs:
        assert (one.dataset, one.samples, one.tasks, one.epochs, one.batch_size) == (
            "mnist",
            5120,
            100,
            240,
            64,
        )
        assert {(lane["learning_rate"], lane["transition_fraction"]) for lane in found} == {
            (1e-3, 2 / 3)
        }
        lanes.check(one, found, one.samples)


@pytest.mark.parametrize(
    ("command", "programs", "count"),
    [
        ("--method=none", 2, 15),
        ("--tasks=2", 6, 35),
        ("--method=none,redo --redo.threshold=0.1,0.025", 3, 25),
        ("--granularity=5,20 --seeds=1", 6, 9),
        ("--granularity=1 --method=l2 --seeds=1", 2, 2),
        ("--transition=sampling --method=none", 2, 10),
    ],
)
def test_flags_change_random_mnist(command, programs, count):
    runs = grid(command, random_mnist.DEFAULTS, random_mnist.ARMS)
    assert (len(runs), len(column(runs, "seed"))) == (programs, count)
    assert {one.tasks for one, _ in runs} == {2 if "tasks" in command else 100}


@pytest.mark.parametrize("experiment", [demo, random_mnist])
def test_experiments_name_flags_that_exist(experiment):
    known = set(flags.parse([])[0])
    assert known >= set(experiment.DEFAULTS)
    assert known >= {name for arm in getattr(experiment, "ARMS", ()) for name in arm}


@pytest.mark.parametrize("experiment", [demo, random_mnist, general])
def test_commands_in_docstrings_are_right(experiment):
    [command] = [line for line in experiment.__doc__.splitlines() if "python -m " in line]
    words = shlex.split(command.partition("python -m ")[2].partition("  ")[0])
    assert words[0] == experiment.__name__
    arms = getattr(experiment, "ARMS", ({},))
    assert grid(shlex.join(words[1:]), getattr(experiment, "DEFAULTS", None), arms)


# --- help and list ---


def test_help_is_grouped_short_and_whole():
    text = help.usage("What it is.\n", {"tasks": "77"})
    assert text.startswith("What it is.\n\nwhat changes\n")
    groups = [line for line in text.splitlines()[2:] if line and line[0] != " " and "." not in line]
    assert groups == [
        "what changes",
        "what learns",
        "what is measured",
        "where it begins",
        "how it runs",
    ]
    assert "--tasks=77 " in text
    assert "--transition_fraction=2/3 " in text
    assert len(text.splitlines()) < 80
    assert max(map(len, text.splitlines())) <= 120
    named = [
        line.split()[0][2:].partition("=")[0]
        for line in text.splitlines()
        if line.startswith("  --")
    ]
    assert len(named) == len(set(named))
    assert set(named) == set(flags.parse([])[0]) - set(flags.part_settings())


def test_list_names_every_part_with_its_description_and_its_numbers_with_their_defaults():
    text, kinds = help.listing(), (*flags.PART_REGISTRIES, MODELS, datasets.DATASETS)
    lines = [line.strip() for line in text.splitlines()]
    parts = [(name, part) for kind in kinds for name, part in kind.items()]
    for name, part in [*parts, *((name, t.mix) for name, t in TRANSITIONS.items())]:
        assert registry.describe(part)
        assert f"{name:24} {registry.describe(part)}" in lines
    words = text.split()
    for name, default in flags.part_settings().items():
        shown = str(default).lower() if isinstance(default, bool) else default
        assert words.count(f"--{name}={shown}") == 1
    for kind in ("norm", "activation", "initialization"):
        assert f"{kind}: {', '.join(spec.CHOICES[kind])}" in lines


def test_what_the_list_shows_as_defaults_can_be_given_and_changes_nothing():
    every = "+".join(name for name in methods.METHODS if name != "none")
    usual = grid(f"--method={every}")
    own = {name for one, _ in usual for name in (*one.known_numbers(), *one.known_options())}
    shown = [word for word in help.listing().split() if word[2:].partition("=")[0] in own]
    assert len(shown) == len(own) > 15
    assert grid(f"--method={every} {shlex.join(shown)}") == usual


def test_a_new_method_is_a_flag_a_number_and_a_line_of_the_list(monkeypatch):
    def pull(*, force: registry.Number = 0.25, way: str = "down") -> methods.Penalty:
        """Pulls parameters."""
        return methods.Penalty(lambda params, memory: 0.0, force)

    monkeypatch.setitem(methods.METHODS, "pull", pull)
    assert inspect.cleandoc(pull.__doc__) in help.listing()
    assert "--pull.force=0.25  --pull.way=down" in help.listing()
    usual = grid("--method=none,pull --pull.force=0.5,1")
    assert counts(usual) == {"none": 5, "pull": 10}
    assert math.fsum(column(usual, "pull.force")[5:]) == 7.5


# --- what a model does not read ---


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            "--model=resnet18 --width=32,64 --depth=2,3",
            "depth is '2,3', but resnet18 has no depth: leave it out.",
        ),
        (
            "--model=resnet18 --width=256",
            "width is '256', but resnet18 has no width: leave it out.",
        ),
        (
            "--model=cnn,resnet18 --width=32",
            "width is '32', but cnn and resnet18 have no width: leave it out.",
        ),
    ],
)
def test_flags_that_no_model_of_the_run_reads_are_refused(command, sentence):
    with pytest.raises(ValueError) as error:
        grid(command)
    assert str(error.value) == sentence


def test_what_a_model_does_not_read_is_no_axis_of_it():
    runs = grid("--model=mlp,resnet18 --width=32,64 --depth=2,3")
    assert [(one.model, one.width, one.depth) for one, _ in runs] == [
        ("mlp", 32, 2),
        ("mlp", 32, 3),
        ("mlp", 64, 2),
        ("mlp", 64, 3),
        ("resnet18", 256, 4),
    ]
    # an experiment's own defaults
    [(one, _)] = grid("--model=resnet18", {"width": "64", "depth": "2"})
    assert one == spec.Spec(model="resnet18")


def test_grids_are_bounded_before_they_are_made():
    for command in ("--seeds=1000000000", "--seeds=60000 --granularity=1,5"):
        with pytest.raises(
            ValueError,
            match=(
                r"^this grid has (1,000,000,000|120,000) lanes or more: allowed are at most "
                r"100,000\.$"
            ),
        ):
            grid(command)
    many = ",".join(map(str, range(1, 201)))
    with pytest.raises(
        ValueError, match=r"^this grid has 40,000 programs or more: allowed are at most 10,000\.$"
    ):
        grid(f"--width={many} --depth={many}")
    with pytest.raises(ValueError, match=r"^this grid has 40,000 programs or more"):
        grid(f"--method=redo --redo.period={many} --redo.warmup={many}")


# --- text that is none, files of flags ---


def test_text_that_is_not_utf8_and_flags_that_hide_others_are_refused(tmp_path):
    for argv in (["--workdir=a\udcff"], ["--tasks=\0"]):
        with pytest.raises(ValueError, match=r"is not text: allowed is text in UTF-8\.$"):
            flags.parse(argv)
    file = tmp_path / "flags"
    file.write_text("--tasks=3\n")
    assert flags.parse([f"--flagfile={file}"])[0]["tasks"] == "3"
    file.write_text("--undefok=taks\n--taks=3\n")
    for argv in (
        ["--undefok=taks", "--taks=3"],
        ["--undefok", "taks"],
        ["-undefok=x"],
        [f"--flagfile={file}"],
    ):
        with pytest.raises(ValueError, match=r"^unknown flag --undefok: --help"):
            flags.parse(argv)
        with pytest.raises(ValueError, match=r"^unknown flag --undefok: --help"):
            flags.own({"scale": "paper"}, argv)
    file.write_bytes(b"\xff")
    for path in (file, tmp_path):
        with pytest.raises(ValueError, match="flagfile"):
            flags.parse([f"--flagfile={path}"])


def test_the_home_folder_is_expanded_in_every_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    argv = [f"--{name}=~/x" for name in flags.PATHS]
    values, _ = flags.parse(argv)
    assert [values[name] for name in flags.PATHS] == ["/home/me/x"] * len(flags.PATHS)
    assert flags.parse(["--workdir=runs/~"])[0]["workdir"] == "runs/~"
    with pytest.raises(
        ValueError, match="workdir is '~nobody-here/x': allowed are other paths, as that home"
    ):
        flags.parse(["--workdir=~nobody-here/x"])


def test_points_are_a_count_or_a_list_of_steps_and_no_axis():
    for text, wanted in (("5", 5), ("10,0,2", (0, 2, 10))):
        ((one, lanes),) = flags.runs(flags.parse([f"--points={text}"])[0])
        assert one.points == wanted
        assert len(lanes) == 5
    with pytest.raises(ValueError, match=r"^points is 'x': allowed"):
        flags.runs(flags.parse(["--points=0,x"])[0])
