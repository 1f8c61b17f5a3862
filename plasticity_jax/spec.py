"""Spec: everything about a run that changes shapes or control flow. One Spec is one compiled program."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

from plasticity_jax import datasets, methods, models, registry
from plasticity_jax.environments import ENVIRONMENTS
from plasticity_jax.models import MODELS
from plasticity_jax.optimizers import OPTIMIZERS
from plasticity_jax.precision import PRECISIONS
from plasticity_jax.probes import PROBES
from plasticity_jax.transitions import TRANSITIONS
from plasticity_jax.types import Data, Environment, Structure


def _field(default: Any, group: str, text: str, axis: bool = False) -> Any:
    return dataclasses.field(default=default, metadata={"group": group, "help": text, "axis": axis})


@dataclasses.dataclass(frozen=True)
class Spec:
    """The static settings of one program; hashable. Names and counts are checked when it is made.

    Fields with `axis` in their metadata take comma lists on the command line, one program per value. `options` maps
    "<part>.<option>" to a value ("redo.period": 500), for the parts that this Spec uses. `tasks` and `dataset` do not
    enter the program but belong to the run. Raises ValueError (one sentence: what was given, what is allowed).
    """

    dataset: str = _field("digits", "what changes", "dataset, e.g. digits, mnist, emnist/letters, arrays:PATH")
    samples: int | None = _field(None, "what changes", "training examples, class-balanced; all if not given")
    subsample_seed: int = _field(0, "what changes", "seed of the choice of examples, the same for all lanes")
    environment: str = _field("random_labels", "what changes", "what a task is", axis=True)
    transition: str = _field("output", "what changes", "how one task turns into the next", axis=True)
    tasks: int = _field(10, "what changes", "number of tasks")
    epochs: int = _field(40, "what changes", "passes over the examples in each task, transition included", axis=True)
    batch_size: int = _field(64, "what changes", "examples in a minibatch")
    model: str = _field("mlp", "what learns", "network", axis=True)
    width: int = _field(256, "what learns", "units in a hidden layer", axis=True)
    depth: int = _field(4, "what learns", "hidden layers", axis=True)
    norm: str = _field("layer", "what learns", "normalisation before each activation", axis=True)
    activation: str = _field("relu", "what learns", "activation", axis=True)
    initialization: str = _field("torch", "what learns", "distribution of initial weights", axis=True)
    optimizer: str = _field("adam", "what learns", "optimizer", axis=True)
    precision: str = _field("float32", "what learns", "arithmetic of the network in training steps", axis=True)
    method: str = _field("none", "what learns", "intervention, or several joined by +", axis=True)
    probes: tuple[str, ...] = _field(
        ("hessian_top", "representation_change", "dormant_fraction", "distance_from_init"),
        "what is measured",
        "probes at the end of tasks; 'none' for no probes",
    )
    probe_every: int = _field(1, "what is measured", "run the probes after every n-th task")
    probe_samples: int = _field(512, "what is measured", "examples in the fixed probe batch, at most all")
    options: Mapping[str, Any] | tuple[tuple[str, Any], ...] = _field((), "", "")

    def __post_init__(self):
        replace = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731 (frozen, as dataclasses do it)
        probes = (self.probes,) if isinstance(self.probes, str) else tuple(self.probes)
        replace("probes", tuple(dict.fromkeys(p for p in probes if p != "none")))
        datasets.check_name(self.dataset)
        for kind, known in CHOICES.items():
            registry.lookup(known, kind, getattr(self, kind))
        replace("method", "+".join(methods.names(self.method)))
        for probe in self.probes:
            registry.lookup(PROBES, "probe", probe)
        counts = ("tasks", "epochs", "batch_size", "width", "depth", "probe_every", "probe_samples", "samples")
        for name in (*counts, "subsample_seed"):
            value, low = getattr(self, name), 0 if name == "subsample_seed" else 1
            if not (type(value) is int and value >= low) and not (name == "samples" and value is None):
                raise ValueError(f"{name} is {value!r}: allowed are whole numbers from {low}.")
        if self.samples is not None and self.samples < self.batch_size:
            raise ValueError(
                f"batch_size is {self.batch_size}: allowed is at most the number of samples, {self.samples}."
            )
        replace("options", tuple(sorted(dict(self.options).items())))
        known = self.known_options()
        for name, value in self.options:
            if name not in known:
                raise ValueError(f"option {name!r} fits no part of this run: known are {', '.join(known) or 'none'}.")
            if type(value) is not type(known[name]):
                expected = type(known[name]).__name__
                raise ValueError(f"option {name} is {value!r}: allowed are values of type {expected}.")
            low = 1 if isinstance(value, int) else 0
            if name.partition(".")[0] in self.probes and not (isinstance(value, int | float) and value >= low):
                raise ValueError(f"option {name} is {value!r}: allowed are numbers from {low}.")
        self.check_parts()

    def parts(self) -> dict[str, Callable]:
        """Returns {name: factory} of every part whose settings are named `<part>.<setting>`."""
        named = {part: methods.METHODS[part] for part in self.method.split("+")}
        named |= {self.environment: ENVIRONMENTS[self.environment], self.optimizer: OPTIMIZERS[self.optimizer]}
        named[self.model] = MODELS[self.model]
        return named | {probe: PROBES[probe] for probe in self.probes}

    def known_options(self) -> dict[str, Any]:
        """Returns the static options of this Spec's parts with their defaults."""
        return {
            f"{part}.{o}": v for part, factory in self.parts().items() for o, v in registry.options(factory).items()
        }

    def known_numbers(self) -> dict[str, float]:
        """Returns the traced numbers of this Spec's parts with their defaults."""
        return {
            f"{part}.{n}": v for part, factory in self.parts().items() for n, v in registry.numbers(factory).items()
        }

    def record(self) -> dict[str, Any]:
        """Returns all fields by name, options as a dict: what is written of a Spec and compared with what was.

        Precision is left out where it is float32, so that a workdir from before it had a name is known again.
        """
        fields = {**dataclasses.asdict(self), "options": dict(self.options)}
        return {name: v for name, v in fields.items() if (name, v) != ("precision", "float32")}

    def axes(self) -> dict[str, Any]:
        """Returns the fields that may take several values in one run, by name: columns of its table."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata["axis"]}

    def make_environment(self) -> Environment:
        """Returns the environment. Raises ValueError if it refuses an option."""
        return registry.make(ENVIRONMENTS, "environment", self.environment, dict(self.options))

    def make_model(self, outputs: int) -> Any:
        """Returns the model with `outputs` logits. Raises ValueError if it refuses a setting."""
        shape = ("width", "depth", "norm", "activation", "initialization")
        given = {name: getattr(self, name) for name in shape}
        return registry.make(MODELS, "model", self.model, dict(self.options), outputs=outputs, **given)

    def check_parts(self) -> None:
        """Raises ValueError if dataset, model or transition do not fit the environment, or a part refuses its options."""
        environment = self.make_environment()
        methods.build(self.method, Structure({}, lambda key: {}), dict(self.options))
        # (how many symbols a text has does not depend on data, how many classes there are does)
        self.make_model(environment.outputs(cast(Data, None)) if environment.inputs == "text" else 1)
        reads = {name: models.inputs(factory) for name, factory in MODELS.items()}
        if reads[self.model] != environment.inputs:
            fitting = [name for name, kind in reads.items() if kind == environment.inputs]
            raise ValueError(
                f"model {self.model!r} reads {reads[self.model]}, but examples of {self.environment!r} are "
                f"{environment.inputs}: allowed are {', '.join(fitting)}."
            )
        if (self.dataset == "generated") != (environment.inputs == "text"):
            wanted = "'generated'" if environment.inputs == "text" else "a set of images, such as digits"
            raise ValueError(f"dataset is {self.dataset!r}: with environment {self.environment!r} it must be {wanted}.")
        needs = TRANSITIONS[self.transition].needs
        if needs not in ("nothing", environment.shared):
            fitting = [name for name, t in TRANSITIONS.items() if t.needs in ("nothing", environment.shared)]
            raise ValueError(
                f"transition {self.transition!r} needs tasks that share {needs}, but those of {self.environment!r} share "
                f"{environment.shared}: allowed are {', '.join(fitting)}."
            )


CHOICES: dict[str, Mapping[str, Any]] = {
    "environment": ENVIRONMENTS,
    "transition": TRANSITIONS,
    "model": MODELS,
    "norm": models.NORMS,
    "activation": models.ACTIVATIONS,
    "initialization": models.INITIALIZATIONS,
    "optimizer": OPTIMIZERS,
    "precision": PRECISIONS,
}
