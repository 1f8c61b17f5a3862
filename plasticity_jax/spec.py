"""Spec: everything about a run that changes shapes or control flow. One Spec is one compiled
program.
"""

import collections
import dataclasses
import difflib
import types
from collections.abc import Callable, Mapping
from typing import Any, cast

from plasticity_jax import agents, datasets, heads, methods, models, probes, registry
from plasticity_jax.agents import AGENTS, Agent
from plasticity_jax.environments import ENVIRONMENTS
from plasticity_jax.heads import HEADS
from plasticity_jax.models import MODELS
from plasticity_jax.models.layers import DEEPEST
from plasticity_jax.models.norms import OF_BATCH
from plasticity_jax.optimizers import OPTIMIZERS, SCHEDULES
from plasticity_jax.precision import PRECISIONS
from plasticity_jax.probes import PROBES
from plasticity_jax.stream import transitions
from plasticity_jax.stream.transitions import TRANSITIONS
from plasticity_jax.surgery import SURGERIES
from plasticity_jax.types import Data, Environment, Head, Structure

START = ":start"  # of a probe that is run before the first step of a task
WHOLE = (1, registry.LARGEST_WHOLE)  # smallest and largest of a count
COUNT = (0, registry.LARGEST_WHOLE)  # of what may be left out
EARLIER = (
    0,
    1000,
)  # of earlier tasks: each is columns of the table, and an evaluation of every task
OPTIONAL = ("samples", "phase_steps")  # counts that may be left to what is usual
SEEDS = (0, 2**63 - 1)  # (this one enters no program)


# fields that decide no row of a table by themselves
_OF_NO_ROW = ("tasks", "probes", "probe_every", "points", "revisit", "options")


def _field(
    default: Any, group: str, text: str, axis: bool = False, limits: tuple[int, int] | None = None
) -> Any:
    metadata = {"group": group, "help": text, "axis": axis, "limits": limits}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Spec:
    """The static settings of one program; hashable. Names and counts are checked when it is made.

    Fields with `axis` in their metadata take comma lists on the command line, one program per
    value. `options` maps "<part>.<option>" to a value ("redo.period": 500), for the parts that this
    Spec uses. What says how often, such as `probe_every` and "redo.period", may be "never", which
    is kept as 2147483647: no run has as many steps. `tasks` and `dataset` do not enter the program
    but belong to the run. Numbers of numpy and jax are taken as Python's. A `transition` that is
    not given is the usual one of the environment; a `dataset` is "digits", or "generated" where
    tasks draw their own examples.

    Every task has `epochs` * (samples // batch_size) steps. If samples is no multiple of
    batch_size, a remainder sits out of each epoch, most examples in turn, but not all equally often
    (see `stream.order.epoch`): of 127 examples in batches of 64 one is in every epoch and the
    others in half of them. Raises ValueError (one sentence: what was given, what is allowed), also
    for a field other than its default that the model has no use for, such as `width` of a
    ResNet-18.

    >>> spec = pj.Spec(method="l2+redo", width=4, options={"redo.period": 500})
    >>> spec.method, spec.transition, spec.options
    ('redo+l2', 'output', (('redo.period', 500),))
    """

    dataset: str = _field(
        None,
        "what changes",
        "dataset, e.g. mnist, emnist/letters, arrays:PATH; default digits, or generated",
    )
    samples: int | None = _field(
        None, "what changes", "training examples, class-balanced; all if not given", limits=WHOLE
    )
    subsample_seed: int = _field(
        0, "what changes", "seed of the choice of examples, the same for all lanes", limits=SEEDS
    )
    environment: str = _field("random_labels", "what changes", "what a task is", axis=True)
    transition: str = _field(
        None,
        "what changes",
        "how one task turns into the next; default the environment's usual one",
        axis=True,
    )
    tasks: int = _field(10, "what changes", "number of tasks", limits=WHOLE)
    epochs: int = _field(
        40,
        "what changes",
        "passes over the examples in each task, transition included",
        axis=True,
        limits=WHOLE,
    )
    batch_size: int = _field(64, "what changes", "examples in a minibatch", limits=WHOLE)
    model: str = _field("mlp", "what learns", "network", axis=True)
    width: int = _field(256, "what learns", "units in a hidden layer", axis=True, limits=WHOLE)
    depth: int = _field(4, "what learns", "hidden layers", axis=True, limits=(1, DEEPEST))
    norm: str = _field("layer", "what learns", "normalization before each activation", axis=True)
    activation: str = _field("relu", "what learns", "activation", axis=True)
    initialization: str = _field(
        "torch", "what learns", "distribution of initial weights", axis=True
    )
    head: str = _field("linear", "what learns", "how outputs are read and scored", axis=True)
    optimizer: str = _field("adam", "what learns", "optimizer", axis=True)
    schedule: str = _field(
        "constant", "what learns", "how the learning rate changes over a task or the run", axis=True
    )
    precision: str = _field(
        "float32", "what learns", "arithmetic of the network in training steps", axis=True
    )
    method: str = _field("none", "what learns", "intervention, or several joined by +", axis=True)
    probes: tuple[str, ...] = _field(
        ("hessian_top", "representation_change", "dormant_fraction", "distance_from_init"),
        "what is measured",
        "probes at the end of tasks, with ':start' at their start; 'none' for no probes",
    )
    probe_every: int = _field(
        1, "what is measured", "run the probes after every n-th task, or never", limits=WHOLE
    )
    probe_samples: int = _field(
        512, "what is measured", "examples in the fixed probe batch, at most all", limits=WHOLE
    )
    points: int | tuple[int, ...] = _field(
        0,
        "what is measured",
        "values within a task: means over so many parts; 0,1,5: probes after steps 0, 1, 5",
        limits=COUNT,
    )
    revisit: int = _field(
        0, "what is measured", "tasks before this one that are evaluated again", limits=EARLIER
    )
    cycle: int = _field(
        0,
        "what changes",
        "tasks come back after so many; 0 for new ones all the time",
        limits=COUNT,
    )
    agent: str = _field(
        None,
        "what learns",
        "who acts in a world and learns; default dqn where there is one",
        axis=True,
    )
    phase_steps: int = _field(
        None,
        "what changes",
        "steps of the world in a task, where an agent acts; default 10000",
        limits=COUNT,
    )
    surgery: str = _field(
        "none", "where it begins", "what is done to the networks of --start", axis=True
    )
    start_optimizer: str = _field(
        "kept", "where it begins", "the optimizer's state of --start: kept or fresh"
    )
    first_task: int = _field(
        0,
        "where it begins",
        "number of the first task in the stream; those before are left out",
        limits=COUNT,
    )
    options: Mapping[str, Any] | tuple[tuple[str, Any], ...] = _field((), "", "")

    def __new__(cls, *_: Any, **given: Any) -> "Spec":
        """Raises ValueError for a field that there is not, where Python has a TypeError."""
        known = cls.__dataclass_fields__
        for name in given:
            if name not in known:
                meant = _place(name)
                for near in difflib.get_close_matches(name, known, n=1) if not meant else ():
                    meant = f"did you mean {near}?"
                meant = meant or "options and numbers of lanes are given apart"
                raise ValueError(
                    f"a Spec has no field {name!r} ({meant}): known are {', '.join(known)}."
                )
        return super().__new__(cls)

    def __post_init__(self):
        def replace(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)  # (frozen, as dataclasses do it)

        for kind, known in CHOICES.items():
            if kind in ("transition", "agent") and getattr(self, kind) is None:
                continue
            registry.lookup(known, kind, getattr(self, kind))
            replace(kind, str(getattr(self, kind)))
        replace("method", "+".join(methods.names(self.method)))
        replace("probes", _probes(self.probes))
        registry.one_of("start_optimizer", self.start_optimizer, ("kept", "fresh"))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            limits = field.metadata["limits"]
            if field.name == "points" and registry.several(value):
                replace("points", _chosen_steps(value, limits))
            elif limits and not (field.name in OPTIONAL and value is None):
                read = registry.whole(field.name, value, *limits, never=is_period(field.name))
                replace(field.name, read)
        for name in unread(self.model):
            if getattr(self, name) != _default(name):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, but {self.model} has no {name}: leave it "
                    "out."
                )
        plain = registry.make(ENVIRONMENTS, "environment", self.environment, {})
        agent, phase_steps = agents.usual(plain)
        if self.agent is None:
            replace("agent", agent)
        if self.phase_steps is None:
            replace("phase_steps", phase_steps)
        agents.check_fit(self.agent, self.phase_steps, plain, repr(self.environment))
        if self.acts:
            self._check_no_epochs()
        elif self.samples is not None and self.samples < self.batch_size:
            raise ValueError(
                f"batch_size is {self.batch_size}: allowed is at most the number of samples, "
                f"{self.samples}."
            )
        replace("options", self._checked_options())
        if self.first_task and not self.open_ended:
            raise ValueError(
                f"first_task is {self.first_task}, but the learning rate changes over the run: "
                "allowed is 0."
            )
        environment = self.make_environment()
        if self.transition is None:
            replace("transition", environment.transition)
        if self.dataset is None:
            replace("dataset", "generated" if environment.data == "nothing" else "digits")
        datasets.check_name(self.dataset)
        replace("dataset", _text("dataset", self.dataset))
        self.check_parts()

    def _check_no_epochs(self) -> None:
        """Raises ValueError for what a phase of acting has no meaning for."""
        if self.steps_of_points:
            raise ValueError(
                f"points is {self.points}, but in a phase of {self.environment!r} an agent acts: "
                "allowed is the number of its parts."
            )
        for name in ("epochs", "revisit"):
            if getattr(self, name) != _default(name):
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but a task of {self.environment!r} is a "
                    "phase of phase_steps steps: leave it out."
                )

    def _checked_options(self) -> tuple[tuple[str, Any], ...]:
        """The options sorted by name, each of the type of its default."""
        try:
            given = dict(self.options)
        except (TypeError, ValueError):
            shown = registry.shown(self.options)
            raise ValueError(
                f"options is {shown}: allowed is a mapping of names to values."
            ) from None
        known, made = self.known_options(), {}
        for name, value in given.items():
            if name not in known:
                listed = ", ".join(known) or "none"
                if name in self.known_numbers() or name in LANE_NUMBERS:
                    raise ValueError(f"option {name!r} is none: {_place(name)}.")
                raise ValueError(
                    f"option {registry.shown(name)} fits no part of this run: known are {listed}."
                )
            read = _option(name, value, known[name])
            made[name] = read
            if isinstance(read, str) or name.partition(".")[0] not in self.probe_names():
                continue
            lowest = 1 if isinstance(read, int) else 0
            if not read >= lowest:
                raise ValueError(
                    f"option {name} is {registry.shown(value)}: allowed are numbers from {lowest}."
                )
        return tuple(sorted(made.items()))

    def parts(self) -> dict[str, Callable]:
        """Returns {name: factory} of every part whose settings are named `<part>.<setting>`."""
        named = {part: methods.METHODS[part] for part in self.method.split("+")}
        named |= {
            self.environment: ENVIRONMENTS[self.environment],
            self.head: HEADS[self.head],
            self.optimizer: OPTIMIZERS[self.optimizer],
            self.schedule: SCHEDULES[self.schedule],
        }
        named[self.model] = MODELS[self.model]
        if self.acts:
            named[self.agent] = AGENTS[self.agent]
        if self.surgery != "none":
            named[self.surgery] = SURGERIES[self.surgery]
        return named | {probe: PROBES[probe] for probe in self.probe_names()}

    def probe_names(self) -> tuple[str, ...]:
        """Returns the probes by their names in PROBES, whenever they are run."""
        return tuple(dict.fromkeys(name.removesuffix(START) for name in self.probes))

    def known_options(self) -> dict[str, Any]:
        """Returns the static options of this Spec's parts with their defaults."""
        return self._settings(registry.options)

    def known_numbers(self) -> dict[str, float]:
        """Returns the traced numbers of this Spec's parts with their defaults."""
        return self._settings(registry.numbers)

    def _settings(self, own: Callable[[Callable], Mapping[str, Any]]) -> dict[str, Any]:
        """{"<part>.<setting>": default} of what `own` says of each part."""
        found: dict[str, Any] = {}
        for part, factory in self.parts().items():
            found |= {f"{part}.{name}": default for name, default in own(factory).items()}
        return found

    @property
    def acts(self) -> bool:
        """Whether an agent acts, so that a task is a phase of steps in a world."""
        return self.agent != "none"

    @property
    def steps_of_points(self) -> tuple[int, ...]:
        """The steps of a task after which probes measure as well; () where `points` is a count."""
        return self.points if isinstance(self.points, tuple) else ()

    @property
    def open_ended(self) -> bool:
        """Whether the first tasks are the same however many follow, so that a run may go on.

        They are not where the learning rate changes over the run.
        """
        settings = {**self.known_options(), **dict(self.options)}
        return settings.get(f"{self.schedule}.over") != "run"

    def record(self) -> dict[str, Any]:
        """Returns all fields by name, options as a dict: what is written of a Spec and compared
        with what was.

        Fields that came later are left out where they are as it was before (`LATER`), so that an
        older workdir is known again.
        """
        fields = {**dataclasses.asdict(self), "options": dict(self.options)}
        return {name: value for name, value in fields.items() if LATER.get(name) != value}

    def axes(self) -> dict[str, Any]:
        """Returns the fields that may take several values in one run, by name: columns of its
        table.
        """
        return {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata["axis"]
        }

    def settings(self) -> dict[str, Any]:
        """Returns what else decides a row of its table, by name: further columns. These are
        `fields`, then every option of its parts, given or not.

        `samples` is NaN where all examples are taken.
        """
        fields = self.fields()
        if self.samples is None:
            fields["samples"] = float("nan")
        return {**fields, **self.known_options(), **dict(self.options)}

    def fields(self) -> dict[str, Any]:
        """Returns the fields that are no axes, by name, as far as they decide a row of its table.

        How many tasks there are, and what is measured at which of them, does not.
        """
        return {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if not f.metadata["axis"] and f.name not in _OF_NO_ROW
        }

    def make_environment(self, lane: Mapping[str, Any] = types.MappingProxyType({})) -> Environment:
        """Returns the environment, seen through the head, with the numbers of a lane, which may be
        traced, else with its usual ones.

        Raises ValueError if environment or head refuse an option.
        """
        settings = {**dict(self.options), **lane}
        made = registry.make(ENVIRONMENTS, "environment", self.environment, settings)
        made = heads.attached(made, self.make_head(lane))
        return in_turn(made, self.cycle) if self.cycle else made

    def make_head(self, lane: Mapping[str, Any] = types.MappingProxyType({})) -> Head:
        """Returns the head with the numbers of a lane, or its usual ones; that of an agent with
        dueling outputs has a value besides the actions. Raises ValueError if it refuses an option.
        """
        made = registry.make(HEADS, "head", self.head, {**dict(self.options), **lane})
        if not self.acts:
            return made
        if made.bootstrap:  # (targets are distributions, which do not tell what was clipped)
            made = made._replace(metrics=())
        return heads.dueling(made) if self.make_agent(lane).dueling else made

    def make_agent(self, lane: Mapping[str, Any] = types.MappingProxyType({})) -> Agent:
        """Returns the agent with the numbers of a lane, or its usual ones. Raises ValueError if it
        refuses an option.
        """
        return registry.make(AGENTS, "agent", self.agent, {**dict(self.options), **lane})

    def make_model(self, outputs: int) -> Any:
        """Returns the model with `outputs` logits, after surgery. Raises ValueError if it refuses a
        setting.
        """
        before = self.make_model_of_start(outputs)
        return registry.make(SURGERIES, "surgery", self.surgery, dict(self.options)).model(before)

    def make_model_of_start(self, outputs: int) -> Any:
        """Returns the model of the Spec's sizes, which are those before surgery."""
        given = {name: getattr(self, name) for name in _shape(self.model)}
        options = dict(self.options)
        return registry.make(MODELS, "model", self.model, options, outputs=outputs, **given)

    def check_parts(self) -> None:
        """Raises ValueError if dataset, model or transition do not fit the environment, or a part
        refuses its options.
        """
        environment = self.make_environment()
        if self.acts:
            self.make_agent().updates(self.phase_steps)
        if self.batch_size == 1 and self.norm in OF_BATCH and "norm" in _shape(self.model):
            others = ", ".join(name for name in models.NORMS if name not in OF_BATCH)
            raise ValueError(
                f"norm {self.norm!r} takes statistics over a minibatch, but batch_size is 1: "
                f"allowed are 2 or more, or one of {others}."
            )
        # (how many symbols a text has does not depend on data, how many classes there are does)
        model = self.make_model(
            environment.outputs(cast(Data, None)) if environment.inputs == "text" else 1
        )
        models.check_ids(model, environment.decoding)
        structure = Structure({}, lambda key: {}, models.head(model))
        methods.build(self.method, structure, dict(self.options))
        registry.make(SCHEDULES, "schedule", self.schedule, dict(self.options))
        refused = [name for name in self.probe_names() if name in probes.OF_ROWS]
        for name in refused if environment.inputs == "text" else ():
            raise ValueError(
                f"probe {name!r} reads one row of outputs for each example, and a text of "
                f"{self.environment!r} has one for each position: leave it out."
            )
        reads = {name: models.inputs(factory) for name, factory in MODELS.items()}
        if environment.inputs not in reads[self.model]:
            fitting = [name for name, kinds in reads.items() if environment.inputs in kinds]
            raise ValueError(
                f"model {self.model!r} reads {' and '.join(reads[self.model])}, but examples of "
                f"{self.environment!r} are "
                f"{environment.inputs}: allowed are {', '.join(fitting)}."
            )
        if (self.dataset == "generated") != (environment.data == "nothing"):
            draws = environment.data == "nothing"
            wanted = "'generated'" if draws else "a set of images, such as digits"
            raise ValueError(
                f"dataset is {self.dataset!r}: with environment {self.environment!r} it must be "
                f"{wanted}."
            )
        heads.check_fit(self.head, environment, repr(self.environment))
        transitions.check_fit(
            TRANSITIONS[self.transition], environment, repr(self.transition), repr(self.environment)
        )

    def check_classes(self, classes: int) -> None:
        """Raises ValueError if the transition cannot mix targets of so few classes."""
        if classes < 2 and TRANSITIONS[self.transition].targets == "distributions":
            raise ValueError(
                f"transition {self.transition!r} needs targets of 2 or more classes, but the "
                f"dataset has {classes}: allowed are datasets with more, or another transition."
            )


def in_turn(environment: Environment, tasks: int) -> Environment:
    """Returns the environment in which the first `tasks` tasks come back, one after another."""
    schedule = environment.schedule
    stages = tasks * schedule(0).parts

    def check(data: Data, wanted: int) -> None:
        environment.check(data, min(wanted, stages))

    return environment._replace(schedule=lambda number: schedule(number % stages), check=check)


def _probes(given: Any) -> tuple[str, ...]:
    """The names of probes without "none" and without repetitions."""
    try:
        names = (given,) if isinstance(given, str) else tuple(given)
    except TypeError:
        raise ValueError(
            f"probes is {registry.shown(given)}: allowed are names of probes."
        ) from None
    wanted = [name for name in names if not (isinstance(name, str) and name == "none")]
    for name in wanted:
        registry.lookup(
            PROBES, "probe", name.removesuffix(START) if isinstance(name, str) else name
        )
    return tuple(dict.fromkeys(map(str, wanted)))


def _chosen_steps(given: Any, limits: tuple[int, int]) -> tuple[int, ...]:
    """The steps that `points` lists, in order and each once."""
    steps = {registry.whole("a step of points", step, *limits) for step in given}
    if not steps:
        raise ValueError("points lists no steps: allowed is a count, or one step at least.")
    return tuple(sorted(map(int, steps)))


def _option(name: str, value: Any, default: Any) -> Any:
    """An option's value as Python's own, of the type of its default; texts of numpy are texts."""
    kind, told = type(default), f"option {name}"
    if kind is bool and registry.is_logical(value) and not getattr(value, "ndim", 0):
        return bool(value)
    if kind is str and isinstance(value, str):
        return _text(told, value)
    if kind is float:
        return registry.number(told, value)
    if is_period(name):
        return registry.whole(told, value, 0, never=True)
    if kind is int and registry.index(value) is not None:
        return registry.whole(told, value, 0)
    raise ValueError(
        f"{told} is {registry.shown(value)}: allowed are values of type {kind.__name__}."
    )


def _text(name: str, text: str) -> str:
    if "\0" in text or not registry.is_utf8(text):
        raise ValueError(f"{name} is {registry.shown(text)}: allowed is text in UTF-8.")
    return str(text)  # (numpy's is another type)


def _shape(model: str) -> list[str]:
    """The fields of Spec that a model is made from."""
    return [name for name in registry.positional(MODELS[model]) if name != "outputs"]


def of_model(spec: Spec, ended: bool = False) -> dict[str, Any]:
    """Returns the settings that a network has by its model, but for how it is drawn: as it begins,
    before surgery, or as it `ended`, after that.
    """
    fields = {name: getattr(spec, name) for name in _shape(spec.model) if name != "initialization"}
    options = {**spec.known_options(), **dict(spec.options)}
    own = {name: v for name, v in options.items() if name.partition(".")[0] == spec.model}
    found = {"model": spec.model, **fields, **own}
    if ended and spec.surgery != "none":
        before, after = spec.make_model_of_start(1), spec.make_model(1)
        for name in found:
            field = name.removeprefix(f"{spec.model}.")
            if getattr(before, field, None) != getattr(after, field, None):
                found[name] = getattr(after, field)
    return found


def unread(model: str) -> list[str]:
    """Returns the fields of Spec that other models are made from, and this one is not."""
    own = _shape(model)
    found: dict[str, None] = {}
    for other in MODELS:
        found |= dict.fromkeys(name for name in _shape(other) if name not in own)
    return list(found)


def _default(name: str) -> Any:
    return Spec.__dataclass_fields__[name].default


LANE_NUMBERS = ("seed", "granularity", "learning_rate", "transition_fraction")
"""Numbers that every lane has, besides those of its parts."""


def _place(name: str) -> str:
    """Where a setting that is no field of a Spec is given; empty if there is no such setting."""
    part, dot, setting = name.partition(".")
    if name in LANE_NUMBERS:
        return f"it is a number of lanes: grid({name}=...)"
    if not dot or part not in PARTS:
        return ""
    if setting in registry.numbers(PARTS[part]):
        return f'it is a number of lanes: grid(**{{"{name}": ...}})'
    if setting in registry.options(PARTS[part]):
        return f'it is an option: options={{"{name}": ...}}'
    return ""


def is_setting(column: str) -> bool:
    """Returns whether a column of a table is a setting by its name, and so no measurement: a field
    of a Spec, a number of lanes, or "<part>.<setting>".
    """
    named = column in Spec.__dataclass_fields__ or column in LANE_NUMBERS
    return named or "." in column.partition("/")[0]


def is_period(name: str) -> bool:
    """Returns whether a setting, known by its name, says how often and so may be "never"."""
    part, _, setting = name.partition(".")
    return name == "probe_every" or (part in PARTS and setting in registry.periods(PARTS[part]))


def word(name: str, value: Any, text: str) -> str:
    """Returns the `text` that stands for a setting's value, or "never" if that is what it means."""
    return registry.NEVER if value == registry.LARGEST_WHOLE and is_period(name) else text


def comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a Spec's record, perhaps from long ago, as it would be written of that program today.

    What its model does not read is the default, which it did not have to be.
    """
    model = record.get("model")
    ignored = unread(model) if isinstance(model, str) and model in MODELS else []
    return {name: _default(name) if name in ignored else value for name, value in record.items()}


# fields that older records lack, with the value that does what was done before there was a choice
LATER = {
    "precision": "float32",
    "schedule": "constant",
    "points": 0,
    "revisit": 0,
    "cycle": 0,
    "head": "linear",
    "surgery": "none",
    "start_optimizer": "kept",
    "first_task": 0,
    "agent": "none",
    "phase_steps": 0,
}

PARTS = collections.ChainMap[str, Callable](
    ENVIRONMENTS, AGENTS, HEADS, MODELS, OPTIMIZERS, SCHEDULES, methods.METHODS, PROBES, SURGERIES
)
"""{name: factory} of everything whose settings are named `<part>.<setting>`; no name but "none",
which has no settings, stands in two registries.
"""

CHOICES: dict[str, Mapping[str, Any]] = {
    "environment": ENVIRONMENTS,
    "transition": TRANSITIONS,
    "model": MODELS,
    "norm": models.NORMS,
    "activation": models.ACTIVATIONS,
    "initialization": models.INITIALIZATIONS,
    "head": HEADS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "surgery": SURGERIES,
    "agent": AGENTS,
}
