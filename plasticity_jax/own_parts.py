"""Parts of one's own: modules that enter them in the registries when they are imported
(`--import=my_parts.py`), with the hash of their file, so that a run says what it was made with.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import pathlib
import sys
import traceback
import types
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from plasticity_jax import datasets, registry
from plasticity_jax.agents import AGENTS
from plasticity_jax.environments import ENVIRONMENTS
from plasticity_jax.heads import HEADS
from plasticity_jax.methods import METHODS
from plasticity_jax.models import MODELS
from plasticity_jax.optimizers import OPTIMIZERS, SCHEDULES
from plasticity_jax.probes import PROBES
from plasticity_jax.storage import paths
from plasticity_jax.stream.transitions import TRANSITIONS
from plasticity_jax.surgery import SURGERIES
from plasticity_jax.types import Transition

EMPTY = inspect.Parameter.empty
REGISTRIES: dict[str, dict[str, Any]] = {
    "dataset": datasets.DATASETS,
    "environment": ENVIRONMENTS,
    "transition": TRANSITIONS,
    "model": MODELS,
    "head": HEADS,
    "method": METHODS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "probe": PROBES,
    "surgery": SURGERIES,
    "agent": AGENTS,
}
LOADED: dict[str, str] = {}
"""{name as it was given: SHA-256 of the module's file} of every module that was loaded."""


def load(names: Iterable[str]) -> None:
    """Imports modules by name, or Python files by path, that enter parts in registries.

    What was loaded before is left as it is. Raises ValueError, one sentence with file and line
    where they are known, for a module that cannot be imported, enters nothing, or takes the name of
    a part that there is; then no registry is changed.
    """
    for name in names:
        if name in LOADED:
            continue
        before = {kind: dict(known) for kind, known in REGISTRIES.items()}
        try:
            module = _module(name)
            place = pathlib.Path(module.__file__ or "")
            _check(before, name, place)
            LOADED[name] = hashlib.sha256(place.read_bytes()).hexdigest()
        except ValueError:
            for kind, known in REGISTRIES.items():
                known.clear()
                known.update(before[kind])
            raise


def changed(before: Mapping[str, str]) -> list[str]:
    """Returns the names of loaded modules whose file is another than `before` says."""
    return [name for name, digest in LOADED.items() if before.get(name, digest) != digest]


def _module(name: str) -> types.ModuleType:
    """Returns the module, imported. Raises ValueError."""
    try:
        if name.endswith(".py"):
            return _from_file(paths.expanded(name, "import"))
        if not name:
            raise ValueError("import is empty: allowed is a module's name, or the path of a file.")
        if "" not in sys.path and str(pathlib.Path.cwd()) not in sys.path:
            sys.path.insert(0, str(pathlib.Path.cwd()))
        module = importlib.import_module(name)
    except ValueError as error:
        if str(error).startswith("import is "):
            raise
        raise ValueError(_sentence(name, error)) from error
    # (what a stranger's module raises can be anything, a call of sys.exit too)
    except (Exception, SystemExit) as error:
        raise ValueError(_sentence(name, error)) from error
    if not getattr(module, "__file__", None):
        raise ValueError(f"import is {name!r}, which is no file: allowed is a module with a file.")
    return module


def _from_file(path: str) -> types.ModuleType:
    """Returns the module of a file, under the file's own name."""
    file = pathlib.Path(path).resolve()
    known = sys.modules.get(file.stem)
    if known is not None:
        if pathlib.Path(getattr(known, "__file__", None) or "").resolve() == file:
            return known
        raise ValueError(
            f"import is {path!r}, but a module {file.stem} is there already: give the file another "
            "name."
        )
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise ValueError(f"import is {path!r}: there is no such file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    if str(file.parent) not in sys.path:  # as for a file that Python runs: for what lies beside it
        sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[file.stem]
        raise
    return module


@contextlib.contextmanager
def told() -> Iterator[None]:
    """What fails inside because of a loaded part is a ValueError of one sentence, with file and
    line where they are known.
    """
    try:
        yield
    except Exception as error:
        if not LOADED:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        files = {pathlib.Path(paths.expanded(name, "import")).resolve() for name in LOADED}
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if pathlib.Path(frame.filename).resolve() in files]
        if not own and not isinstance(error, TypeError | AttributeError | LookupError):
            raise  # a refusal of ours
        place = f" {own[-1].filename}, line {own[-1].lineno}:" if own else ""
        raise ValueError(
            f"a network cannot be built with the parts of {', '.join(LOADED)}:{place} "
            f"{type(error).__name__}: {reason.rstrip('.')}."
        ) from error


def missing(recorded: Mapping[str, Any]) -> list[str]:
    """Returns which of the modules of a run's record (config.json) are not loaded."""
    names = recorded.get("imports") or {}
    return [name for name in names if name not in LOADED]


def _sentence(name: str, error: BaseException) -> str:
    """What went wrong, with file and line of the innermost place in the user's own code."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"import is {name!r}: {error.filename}, line {error.lineno}: {error.msg}."
    package = pathlib.Path(__file__).parent
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and "importlib" not in frame.filename
    ]
    own = [frame for frame in frames if not pathlib.Path(frame.filename).is_relative_to(package)]
    place = f" {own[-1].filename}, line {own[-1].lineno}:" if own else ""
    return f"import is {name!r}:{place} {type(error).__name__}: {reason.rstrip('.')}."


def _check(before: Mapping[str, Mapping[str, Any]], name: str, place: pathlib.Path) -> None:
    """Raises ValueError if a module entered nothing, or replaced what there was."""
    new = 0
    for kind, known in REGISTRIES.items():
        given: set[str] = set()
        for factory in before[kind].values():
            given.update(_needed(factory))
        for part, factory in known.items():
            if part not in before[kind]:
                new += 1
                _check_name(kind, part, place)
                _check_settings(kind, part, factory, place, given)
            elif before[kind][part] is not factory:
                raise ValueError(
                    f"import is {name!r}: {place} replaces the {kind} {part!r}: allowed are new "
                    "names."
                )
    if not new:
        shown = registry.shown(name)
        raise ValueError(
            f"import is {shown}: {place} enters nothing in a registry: allowed is a module with a "
            'line such as pj.methods.METHODS["mine"] = mine.'
        )


def _check_name(kind: str, part: str, place: pathlib.Path) -> None:
    """Raises ValueError if a part of another kind has the name too: settings are told by it."""
    for other, known in REGISTRIES.items():
        if part in known and "dataset" not in (kind, other) and other != kind:
            raise ValueError(
                f"the {kind} {part!r} of {place} has the name of the {other} {part!r}: allowed are "
                "new names."
            )


def _needed(factory: Any) -> list[str]:
    """The parameters of a part by their place that have no default."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.kind in kinds and one.default is EMPTY]


def _check_settings(
    kind: str, part: str, factory: Any, place: pathlib.Path, given: Container[str]
) -> None:
    """Raises ValueError if a part's settings cannot be read off its function; `given` is what parts
    of its kind are given.
    """
    if kind == "transition" and not isinstance(factory, Transition):
        raise ValueError(f"the transition {part!r} of {place} is none: allowed is a Transition.")
    if kind == "transition":
        return
    if not callable(factory):
        raise ValueError(f"the {kind} {part!r} of {place} is none: allowed is a function.")
    try:
        without = [name for name, value in registry.options(factory).items() if value is EMPTY]
        if kind == "method":  # (others are given theirs by place)
            without += [name for name in _needed(factory) if name not in given]
        registry.numbers(factory)
    except (NameError, TypeError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"the {kind} {part!r} of {place} cannot be read ({reason}).") from error
    if without:
        raise ValueError(
            f"the {kind} {part!r} of {place} has no default for {', '.join(without)}: every "
            "setting "
            "needs one."
        )
