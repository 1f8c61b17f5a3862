"""What one process needs to know to run a slice: `slice.json` in the slice's folder.

It is data alone. Modules with parts of one's own are named on the command line of the process, so
that reading such a file never runs code.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from plasticity_jax import lanes as lanes_
from plasticity_jax.execution import placement, slices
from plasticity_jax.execution.program import Program
from plasticity_jax.spec import Spec, comparable
from plasticity_jax.storage import writing
from plasticity_jax.storage.json_files import read_json, sealed, unsealed
from plasticity_jax.storage.workdir import WorkdirError, reason_of

FILE = "slice.json"
_KEYS = {"spec", "lanes", "lane_strategy", "lane_width", "how"}


class How(NamedTuple):
    """What the slices of a run have in common, by the names of a run's flags.

    Attributes:
      data_dir: absolute, so that it is the same wherever the slice is run; None: the usual one.
      start, start_task, start_arm: what its lanes begin from.
    """

    data_dir: str | None = None
    checkpoint_every: int = 1
    keep_checkpoints: str = "last"
    deterministic: bool = False
    start: str | None = None
    start_task: int | None = None
    start_arm: dict[str, Any] | None = None


def write(folder: Path, program: Program, how: How) -> None:
    """Writes the description of a slice into its folder. Raises WorkdirError."""
    content = {
        "spec": program.spec.record(),
        "lanes": program.lanes,
        "lane_strategy": program.execution.strategy,
        "lane_width": program.execution.width,
        "how": how._asdict(),
    }
    text = json.dumps(sealed(content), indent=2, sort_keys=True) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with writing.whole(folder / FILE) as file:
            file.write(text.encode())
    except OSError as error:
        raise WorkdirError(f"{folder / FILE} cannot be written ({reason_of(error)}).") from error


def read_how(folder: Path) -> How:
    """Returns what a slice has in common with others: needed before jax may start.

    Raises WorkdirError as `read` does.
    """
    return _read(folder)[1]


def tasks(folder: Path) -> int:
    """Returns how many tasks a slice has. Raises WorkdirError as `read` does."""
    content, _ = _read(folder)
    try:
        return int(content["spec"]["tasks"])
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(folder, error) from error


def read(folder: Path) -> tuple[Program, How]:
    """Returns the program of a slice, on one device, and how it is run.

    Raises WorkdirError, one sentence, for a file that is missing or says something else.
    """
    content, how = _read(folder)
    try:
        spec = Spec(**comparable(content["spec"]))
        slices.check_whole(spec.record(), content["spec"])
        lanes = [lanes_.complete(spec, lane) for lane in content["lanes"]]
        for lane, given in zip(lanes, content["lanes"], strict=True):
            slices.check_whole(lane, given)
        if not lanes:
            raise ValueError("it has no lanes")
        asked = content["lane_strategy"], content["lane_width"]
        execution = placement.execution(placement.ANY, len(lanes), *asked, placement.ANY, 1)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(folder, error) from error
    return Program(spec, lanes, execution), how


def _read(folder: Path) -> tuple[Mapping[str, Any], How]:
    try:
        content = unsealed(read_json(folder / FILE))
        if content.keys() != _KEYS:
            raise ValueError(f"it has {', '.join(content) or 'nothing'}")
        how = How(**content["how"])
        for name, usual in How()._asdict().items():
            _check_kind(name, getattr(how, name), usual)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(folder, error) from error
    return content, how


def _check_kind(name: str, value: Any, usual: Any) -> None:
    """Raises ValueError for a value of another type than there may be."""
    kinds: tuple[type, ...] = (type(usual),)
    if usual is None:
        kinds = ({"start_task": int, "start_arm": dict}.get(name, str), type(None))
    if type(value) not in kinds:
        raise ValueError(f"{name} is {value!r}"[:200])


def _unreadable(folder: Path, error: Exception) -> WorkdirError:
    return WorkdirError(
        f"{folder / FILE} cannot be read as the description of a slice ({reason_of(error)}): "
        "allowed are the folders that a run with --engine makes."
    )
