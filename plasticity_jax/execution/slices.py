"""Slices: what a workdir consists of (see docs/slices.md)."""

import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plasticity_jax import datasets, own_parts
from plasticity_jax import lanes as lanes_
from plasticity_jax.execution import placement
from plasticity_jax.execution.program import Program, Start
from plasticity_jax.spec import Spec, comparable
from plasticity_jax.storage import workdir as workdir_
from plasticity_jax.storage.checkpoints import Checkpoints
from plasticity_jax.storage.workdir import WorkdirError, reason_of

# fields that may change while a slice is run: how many tasks follow, and what is measured
MAY_CHANGE = ("tasks", "probes", "probe_every")

_KEYS = {
    "spec",
    "lanes",
    "lane_strategy",
    "lane_width",
    "lane_devices",
    "compiler_options",
    "numbers",
    "folder",
    "slice",
    "start",
}
_START = ("folder", "tasks", "digests")
_DONORS = "donors"  # in a record of a start since they are told
_FOLDER = re.compile(r"[0-9a-f]{1,64}")


class Slice(NamedTuple):
    """A program in a workdir: what was run together, and goes on together.

    Attributes:
      numbers: of the lanes, in the table of the workdir.
      folder: name of the folder of its checkpoints, in `checkpoints`.
      options: those of XLA that it is compiled with, None for XLA's own. Of one that other
        processes run, both are known once one of them has begun.
      home: name of a workdir of its own, in `slices`, in which other processes run it; None: it has
        none (see docs/engines.md).
    """

    program: Program
    numbers: list[int]
    folder: str
    options: Mapping[str, Any] | None
    home: str | None = None

    def record(self) -> dict[str, Any]:
        """Returns what is written of a slice in config.json, as JSON types."""
        found = {
            **_decisive(self.program, self.options),
            "numbers": self.numbers,
            "folder": self.folder,
        }
        if self.home:
            found["slice"] = self.home
        return found

    def checkpoints(self, workdir: str | Path) -> Path:
        """Returns the folder of its checkpoints."""
        return Path(self.place(workdir), "checkpoints", self.folder)

    def place(self, workdir: str | Path) -> Path:
        """Returns the workdir that its checkpoints are in: its own, or the one of all."""
        return home(workdir, self.home) if self.home else Path(workdir)

    def done(self, workdir: str | Path) -> int:
        """Returns after how many tasks its newest states are saved."""
        return max(Checkpoints(self.checkpoints(workdir)).steps(), default=0)


def home(workdir: str | Path, name: str) -> Path:
    """Returns the workdir of a slice that has its own."""
    return Path(workdir, "slices", name)


class Recorded(NamedTuple):
    """What config.json says of a workdir.

    Attributes:
      data: the name of the data, their fingerprint and how many classes they have.
    """

    slices: list[Slice]
    data: Mapping[str, Any]

    def settings(self) -> dict[str, Any]:
        """Returns what is written of it in config.json, as JSON types."""
        return {"programs": [one.record() for one in self.slices], "data": dict(self.data)}


@contextlib.contextmanager
def locked(workdir: str | Path, slices: Iterable[Slice]) -> Iterator[None]:
    """Holds the workdirs of those slices that have one of their own, as `workdir.lock` does."""
    with contextlib.ExitStack() as held:
        for name in sorted({one.home for one in slices if one.home}):
            held.enter_context(workdir_.lock(home(workdir, name)))
        yield


def in_order(programs: Sequence[Program]) -> list[Slice]:
    """Returns new slices, whose lanes are numbered through all programs."""
    found, first = [], 0
    for program in programs:
        found.append(made(program, first))
        first += len(program.lanes)
    return found


def made(program: Program, first: int, *, elsewhere: bool = False) -> Slice:
    """Returns a new slice, whose lanes are numbered from `first`; `elsewhere` as in `growth.plan`:
    the options of XLA are then those of the device that it is run on, which is not known here.
    """
    options = None if elsewhere else placement.options(program.spec.model)
    numbers = list(range(first, first + len(program.lanes)))
    return Slice(program, numbers, name(program, options), options)


def name(program: Program, options: Mapping[str, Any] | None) -> str:
    """Returns the name of a new slice's folder: 16 digits of a SHA-256 of all that decides the
    numbers of its lanes, which neither `MAY_CHANGE` nor the order of its lanes does.
    """
    decisive = _decisive(program, options)
    spec = {name: value for name, value in decisive["spec"].items() if name not in MAY_CHANGE}
    lanes = [json.dumps(lane, sort_keys=True) for lane in decisive["lanes"]]
    start = decisive.pop("start", None)
    if start:  # (wherever its folder is)
        lanes = [f"{lane} from {own}" for lane, own in zip(lanes, start["digests"], strict=True)]
    text = json.dumps({**decisive, "spec": spec, "lanes": sorted(lanes)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _decisive(program: Program, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """What decides the numbers of a program, as JSON types."""
    how = program.execution
    found = {
        "spec": program.spec.record(),
        "lanes": program.lanes,
        "lane_strategy": how.strategy,
        "lane_width": how.width,
    }
    # with lanes vmapped, XLA fuses differently on another number of devices, and last bits follow
    if how.width > 1:
        found["lane_devices"] = how.devices
    if options:
        found["compiler_options"] = dict(options)
    if program.start:
        start = program.start._asdict()
        found["start"] = {name: start[name] for name in _START}
        if program.start.donors:
            found["start"][_DONORS] = list(program.start.donors)
    return found


def settings(slices: Sequence[Slice], dataset: datasets.Dataset) -> dict[str, Any]:
    """Returns everything that decides the numbers of a workdir, as JSON types."""
    data = {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "classes": dataset.classes,
    }
    return Recorded(list(slices), data).settings()


def read(workdir: str | Path, devices: int | None = None) -> Recorded | None:
    """Returns what a workdir consists of, None for a folder in which nothing was run yet.

    A record from long ago is read as it would be written today. Where nothing is to be run,
    `devices`, any number, keeps jax from starting to count those that there are. Raises
    WorkdirError if there is a config.json that is not the record of a run.
    """
    settings = workdir_.read_settings(workdir)
    if settings is None:
        return None
    try:
        data = settings["data"]
        if not {"name", "fingerprint", "classes"} <= data.keys():
            raise KeyError("data")
        found, first = [], 0
        for index, program in enumerate(settings["programs"]):
            one = _read(program, first, str(index), devices)
            found.append(_as_begun(workdir, one) if one.home else one)
            first += len(program["lanes"])
        _check_numbers(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if lacking := own_parts.missing(workdir_.read_record(workdir)):
            raise WorkdirError(
                f"{Path(workdir, 'config.json')} was made with parts of one's own that are not "
                f"loaded ({reason_of(error)}): allowed with --import={','.join(lacking)}, in "
                "Python after importing them."
            ) from error
        raise WorkdirError(
            f"{Path(workdir, 'config.json')} cannot be read as the record of a run "
            f"({reason_of(error)}); use another --workdir."
        ) from error
    return Recorded(found, data)


def lacks(workdir: str | Path) -> str:
    """Returns in words why a folder that `read` finds nothing in is no workdir."""
    return "has no config.json" if Path(workdir).is_dir() else "is no folder"


def _read(recorded: Mapping[str, Any], first: int, index: str, devices: int | None) -> Slice:
    """A slice from its record. Older ones lack numbers and folder: both count through."""
    if not recorded.keys() <= _KEYS or ("numbers" in recorded) != ("folder" in recorded):
        raise ValueError(f"a program with {', '.join(recorded)}")
    spec = Spec(**comparable(recorded["spec"]))
    check_whole(spec.record(), recorded["spec"])
    lanes = []
    for lane in recorded["lanes"]:
        given = lanes_.comparable(recorded["spec"], lane)
        lanes.append(lanes_.complete(spec, given))
        check_whole(lanes[-1], given)
    asked = recorded["lane_strategy"], recorded["lane_width"]
    # (a model in no table has the same strategy on every backend, which is not asked for then)
    how = placement.execution(placement.ANY, len(lanes), *asked, placement.ANY, devices)
    if how.width > 1:
        how = how._replace(devices=recorded["lane_devices"])
    folder = recorded.get("folder", index)
    if not _FOLDER.fullmatch(folder):
        raise ValueError(f"folder {folder!r}")
    numbers = recorded.get("numbers", list(range(first, first + len(lanes))))
    if not lanes or len(numbers) != len(lanes):
        raise ValueError("lanes and their numbers")
    own = recorded.get("slice")
    if own is not None and not _FOLDER.fullmatch(own):
        raise ValueError(f"slice {own!r}")
    start = _read_start(recorded["start"], len(lanes)) if "start" in recorded else None
    program = Program(spec, lanes, how, start)
    return Slice(program, numbers, folder, recorded.get("compiler_options"), own)


def _as_begun(workdir: str | Path, one: Slice) -> Slice:
    """A slice with a workdir of its own, with what the process that began it wrote there: options
    of XLA are those of its device, and the folder of checkpoints has its name by them.
    """
    # (a damaged file is told by who needs it: the process of the slice, or `growth.apply`)
    with contextlib.suppress(WorkdirError, KeyError, TypeError, ValueError):
        own = workdir_.read_settings(one.place(workdir)) or {"programs": []}
        (program,) = own["programs"]
        folder, options = program["folder"], program.get("compiler_options")
        is_its = len(program["lanes"]) == len(one.numbers) and isinstance(options, dict | None)
        if is_its and _FOLDER.fullmatch(folder):
            return one._replace(folder=folder, options=options)
    return one


def _read_start(recorded: Mapping[str, Any], lanes: int) -> Start:
    """What is recorded of a start; its states come with the run that asks for these lanes."""
    folder, tasks, digests = (recorded[name] for name in _START)
    if recorded.keys() - {_DONORS} != set(_START) or not isinstance(folder, str):
        raise ValueError("start")
    donors = recorded.get(_DONORS, [{}] * lanes)
    if not len(tasks) == len(digests) == len(donors) == lanes:
        raise ValueError("lanes and what they begin from")
    return Start(folder, tasks, digests, dict, donors if _DONORS in recorded else ())


def check_whole(read: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Returns if a record has all that was read of it.

    Raises ValueError for one without something, where a default would take its place.
    """
    lacking = read.keys() - given.keys()
    if lacking:
        raise ValueError(f"there is no {', '.join(sorted(lacking))}")


def _check_numbers(slices: Sequence[Slice]) -> None:
    """Raises ValueError unless lanes are numbered from 0 without gaps."""
    numbers = list(itertools.chain.from_iterable(one.numbers for one in slices))
    if any(type(number) is not int for number in numbers) or sorted(numbers) != list(
        range(len(numbers))
    ):
        raise ValueError("lanes are not numbered from 0")
