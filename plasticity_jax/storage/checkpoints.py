"""Checkpoints that verify themselves: orbax underneath, a SHA-256 of every leaf, fallback to the
last good one.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging as absl_logging

from plasticity_jax import registry
from plasticity_jax.storage.json_files import read_json
from plasticity_jax.storage.small_files import check_fits
from plasticity_jax.storage.workdir import WorkdirError, reason_of

# at most, of a checkpoint's array: chunks are compressed in parallel, 2.5 times as fast
_CHUNK_BYTES = 16 << 20


def copy(before: pathlib.Path, after: pathlib.Path) -> None:
    """Copies a folder of checkpoints, if there is one, in the place of what an attempt that was
    killed left. Raises WorkdirError.
    """
    shutil.rmtree(after, ignore_errors=True)
    if not before.is_dir():
        return
    try:
        unfinished = shutil.ignore_patterns("*.orbax-checkpoint-tmp*")
        shutil.copytree(before, after, ignore=unfinished)
    except OSError as error:
        raise WorkdirError(f"{before} cannot be copied to {after} ({reason_of(error)}).") from error


def keeping(given: str) -> Callable[[int], bool]:
    """Returns which checkpoints stay besides the newest two, by the number of tasks done: of a list
    with commas of "last" (none further) and "every:N" (after each N-th task).

    Raises ValueError for text that says something else.
    """
    periods = []
    for item in str(given).split(","):
        kind, colon, count = item.strip().partition(":")
        if kind == "every" and count.isdecimal() and int(count):
            periods.append(int(count))
        elif kind != "last" or colon:
            raise ValueError(
                f"keep_checkpoints is {registry.shown(given)}: allowed are last, every:N with a "
                "whole number from 1, such as every:10, or several apart by commas."
            )
    return lambda step: any(step % period == 0 for period in periods)


class _Damaged(Exception):
    """One checkpoint that does not verify; the message says which leaf or file and how."""


class Unverified(WorkdirError):
    """There are checkpoints but none verifies; `reasons` says why each does not, in words."""

    def __init__(self, folder: pathlib.Path, reasons: str):
        super().__init__(
            f"No checkpoint in {folder} verifies ({reasons}); delete that folder to start from "
            "zero."
        )
        self.reasons = reasons


class Misfit(WorkdirError):
    """A sound checkpoint of something else than is asked for; the message is one sentence."""


class Checkpoints:
    """Checkpoints of one program in `folder`, the newest `keep` of them and those whose step is to
    be kept `always`, each with a SHA-256 of every leaf. `check` is called before anything is
    written, and raises WorkdirError where nothing is to be.

    One checkpoint is one orbax folder `folder/STEP`, written under another name and then renamed,
    with two items: `data`, the bytes of all leaves in one array, and `manifest`, which says where
    each leaf lies, its dtype, shape and SHA-256. One array is twice as fast as one per leaf, takes
    every dtype and size as it is, and when damaged gives one error (of several damaged arrays orbax
    raises one and spills the others onto the terminal). Orbax by itself neither notices flipped
    bytes nor falls back, and its CheckpointManager silently skips a step that is not above its
    latest, hence the plain Checkpointer. Only the holder of the workdir's lock may use this class:
    it clears away what killed saves left behind.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        keep: int = 2,
        always: Callable[[int], bool] = lambda step: False,
        check: Callable[[], None] = lambda: None,
    ):
        if keep < 1:
            raise ValueError(f"keep must be at least 1, not {keep}.")
        self.always, self.check = always, check
        self.folder = pathlib.Path(folder).absolute()  # orbax refuses relative paths
        self._keep = keep
        self._orbax: Any = None  # made at first use: importing orbax takes 0.2 s

    def save(self, step: int, tree: Any) -> None:
        """Writes `tree` (any pytree of arrays) as checkpoint `step`; returns when it is on disk.

        A checkpoint of the same step is replaced. Only then are those beyond the newest `keep`
        removed, but for those that were to be kept when they were written. Raises WorkdirError
        where a later step is there already, or the disk does not take it (older checkpoints stay).
        """
        named = _named(jax.device_get(tree))
        self.write(step, {name: np.asarray(leaf) for name, leaf in named.items()})

    def write(self, step: int, leaves: dict[str, np.ndarray]) -> None:
        """Writes a checkpoint as `save` does, from its leaves by name (see `leaves`)."""
        self.check()
        manifest = _manifest(step, leaves)
        data, chunk = _joined(leaves.values())
        present = self.steps()
        if present and step < present[-1]:
            raise WorkdirError(
                f"{self.folder} holds step {present[-1]} already, so step {step} cannot follow it."
            )
        try:
            self._remove_unfinished()
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._put(step, data, chunk, manifest)
            except TimeoutError:
                # orbax measures by a clock that may have been set meanwhile
                self.close()
                self._remove_unfinished()
                self._put(step, data, chunk, manifest)
            if self.always(step):
                self._mark(step).touch()
            for old in self.steps()[: -self._keep]:
                if not self.is_kept(old):
                    shutil.rmtree(self.folder / str(old))
        # tensorstore reports a full disk as ValueError
        except (OSError, ValueError, RuntimeError) as error:
            with contextlib.suppress(OSError):
                self._remove_unfinished()
            what = f"The checkpoint of step {step} could not be saved in {self.folder}"
            raise WorkdirError(f"{what} ({reason_of(error)}).") from error

    def _put(self, step: int, data: np.ndarray, chunk: int, manifest: dict) -> None:
        """Lets orbax write a checkpoint."""
        with _quiet_orbax():
            ocp, checkpointer = self._checkpointer()
            chunks = {"data": ocp.SaveArgs(chunk_byte_size=chunk)}
            items = ocp.args.Composite(
                data=ocp.args.PyTreeSave({"data": data}, save_args=chunks),
                manifest=ocp.args.JsonSave(manifest),
            )
            checkpointer.save(self.folder / str(step), args=items, force=True)

    def restore(
        self, like: Any, step: int | None = None, mend: bool = True
    ) -> tuple[int, Any] | None:
        """Returns the newest checkpoint that verifies, (step, tree of numpy arrays), or None if
        there is none at all; with `step` only the one of that step. Then, and unless it is to
        `mend`, nothing is deleted.

        `like` is a dict that gives structure, dtypes and shapes (arrays or jax.ShapeDtypeStruct);
        nothing is ever cast. A top-level key with the value {} stands for a dict of arrays that is
        taken as it was saved, and a top-level key of the checkpoint that `like` does not have is
        left out. A newer checkpoint that does not verify is reported and, once an older one did
        verify, deleted, so that its step can be saved again. Raises WorkdirError where there are
        checkpoints but none verifies (they are left alone), as `Unverified`, or `like` does not
        fit, as `Misfit`.
        """
        found = self._newest(self.steps() if step is None else [step])
        if found is None:
            return None
        at, leaves, damaged = found
        tree = self._fitted(at, leaves, like)
        if mend:
            self._delete(damaged, at)
        return at, tree

    def leaves(self, step: int) -> dict[str, np.ndarray]:
        """Returns the leaves of a checkpoint by name: the text of their path in the tree.

        Raises WorkdirError if it does not verify.
        """
        found = self._newest([step])
        assert found is not None  # (it was asked for)
        return found[1]

    def steps(self) -> list[int]:
        """Returns the steps of all checkpoints, whether they verify or not, the newest last."""
        if not self.folder.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.folder.iterdir() if entry.name.isdecimal())

    def is_kept(self, step: int) -> bool:
        """Returns whether a checkpoint stays, however many follow it."""
        return self._mark(step).exists()

    def _mark(self, step: int) -> pathlib.Path:
        """An empty file that says so."""
        return self.folder / f"{step}.kept"

    def copy(
        self, other: "Checkpoints", change: Callable[[str, np.ndarray], np.ndarray]
    ) -> int | None:
        """Writes the newest checkpoint that verifies, and before it every older one that does, into
        `other`, each leaf as `change` makes it from its name and values; returns its step, None if
        there is none at all. Raises WorkdirError where there are checkpoints but none verifies, or
        the disk does not take it.
        """
        found = self._newest(self.steps())
        if found is None:
            return None
        newest, leaves, _ = found
        for step in self.steps():
            if step < newest:
                with contextlib.suppress(_Damaged):
                    other.write(step, _changed(self._verified(step), change))
        other.write(newest, _changed(leaves, change))
        return newest

    def _newest(self, steps: list[int]) -> tuple[int, dict[str, np.ndarray], dict[int, str]] | None:
        """Step and leaves of the newest checkpoint that verifies, and why each newer one does
        not; None if there is none at all.
        """
        damaged: dict[int, str] = {}
        for step in reversed(steps):
            try:
                return step, self._verified(step), damaged
            except _Damaged as error:
                damaged[step] = str(error)
        if damaged:
            # Kept, because after deleting them the next run would start from zero as if nothing had
            # been there.
            reasons = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
            raise Unverified(self.folder, reasons)
        return None

    def _delete(self, damaged: dict[int, str], step: int) -> None:
        """Deletes damaged checkpoints, so that their steps can be saved again."""
        for bad, reason in damaged.items():
            text = "Checkpoint %d in %s is damaged (%s): deleted, going on from step %d."
            absl_logging.warning(text, bad, self.folder, reason, step)
            self._remove(bad)

    def remove_after(self, step: int) -> None:
        """Removes the checkpoints of later steps. Raises WorkdirError."""
        for later in self.steps():
            if later > step:
                self._remove(later)

    def _remove(self, step: int) -> None:
        try:
            shutil.rmtree(self.folder / str(step))
        except OSError as error:
            raise WorkdirError(
                f"{self.folder / str(step)} cannot be deleted ({reason_of(error)})."
            ) from error

    def close(self) -> None:
        """Frees orbax's resources; every save is on disk already."""
        if self._orbax is not None:
            self._orbax.close()
            self._orbax = None

    def _checkpointer(self):
        """Orbax's module and its checkpointer."""
        import orbax.checkpoint as ocp

        if self._orbax is None:
            # Without a copy of the array: `save` is the only one who has it, and waits until it is
            # on disk.
            numpy = ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)
            registry = ocp.type_handlers.create_type_handler_registry((np.ndarray, numpy))
            # Without OCDBT: with a single array it would only add files and time.
            data = ocp.PyTreeCheckpointHandler(use_ocdbt=False, type_handler_registry=registry)
            manifest = ocp.JsonCheckpointHandler()
            # Folders are made first: of one that a full disk refuses, made beside the writing, the
            # others would wait to hear for five minutes.
            first = ocp.options.AsyncOptions(create_directories_asynchronously=False)
            how = ocp.CompositeOptions(async_options=first)
            self._orbax = ocp.Checkpointer(
                ocp.CompositeCheckpointHandler(data=data, manifest=manifest, composite_options=how)
            )
        return ocp, self._orbax

    def _remove_unfinished(self) -> None:
        for entry in self.folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(entry)

    def _verified(self, step: int) -> dict[str, np.ndarray]:
        """The leaves of one checkpoint by name, exactly as they were saved; raises _Damaged."""
        folder = self.folder / str(step)
        try:
            manifest = read_json(folder / "manifest" / "metadata")
            if _digest([step, manifest["leaves"]]) != manifest["sha256"]:
                raise _Damaged("its manifest does not match its own checksum")
            _check_array(read_json(folder / "data" / "data" / ".zarray"), manifest["leaves"])
            with _quiet_orbax():
                ocp, checkpointer = self._checkpointer()
                args = ocp.args.Composite(
                    data=ocp.args.PyTreeRestore(), manifest=ocp.args.JsonRestore()
                )
                data = checkpointer.restore(folder, args=args)["data"]["data"]
            leaves, start = {}, 0
            for name, dtype, shape, digest in manifest["leaves"]:
                leaf = np.empty(shape, dtype)
                _bytes(leaf)[:] = data[start : start + leaf.nbytes]
                if _digest([dtype, shape], leaf) != digest:
                    raise _Damaged(f"leaf {name} does not match its checksum")
                leaves[name], start = leaf, start + leaf.nbytes
        except (_Damaged, MemoryError):
            raise  # (too little memory says nothing about the checkpoint)
        # damage surfaces as almost any type, depending on the byte that it hit
        except Exception as error:
            # (with the file name that an OSError's text has)
            raise _Damaged(reason_of(Exception(error))) from error
        return leaves

    def _fitted(
        self, step: int, leaves: dict[str, np.ndarray], like: dict[str, Any]
    ) -> dict[str, Any]:
        """The leaves in the structure of `like`; raises Misfit where they do not fit."""
        where = f"The checkpoint of step {step} in {self.folder} does not fit this program"
        parts = {}
        for key, part in like.items():
            prefix = f"[{key!r}]"
            found = {
                name.removeprefix(prefix): leaf
                for name, leaf in leaves.items()
                if name.startswith(prefix)
            }
            # (an array compared with {} would not give a bool)
            if isinstance(part, dict) and not part:
                parts[key] = {
                    name.removeprefix("['").removesuffix("']"): leaf for name, leaf in found.items()
                }
                continue
            wanted = _named(part)
            found = _with_later(found, wanted)
            if wanted.keys() != found.keys():
                lacking, extra = (
                    sorted(wanted.keys() - found.keys()),
                    sorted(found.keys() - wanted.keys()),
                )
                raise Misfit(
                    f"{where}: {key} lacks {lacking[:3] or 'nothing'} and has unknown "
                    f"{extra[:3] or 'nothing'}."
                )
            for name, leaf in wanted.items():
                texts = [f"{side.dtype}{list(side.shape)}" for side in (found[name], leaf)]
                if texts[0] != texts[1]:
                    raise Misfit(f"{where}: {prefix}{name} is {texts[0]} but must be {texts[1]}.")
            parts[key] = jax.tree.unflatten(
                jax.tree.structure(part), [found[name] for name in wanted]
            )
        return parts


def _with_later(found: dict[str, np.ndarray], wanted: dict[str, Any]) -> dict[str, np.ndarray]:
    """Leaves as they would be saved today: the number of units that a method renewed came later,
    around what it remembered before (`methods.lifting.Counted`).
    """
    made = dict(found)
    for name in wanted.keys() - found.keys():
        holder, counts, rest = name.rpartition(".units")
        if not counts or rest:
            continue
        made[name] = np.zeros(wanted[name].shape, wanted[name].dtype)
        inside = f"{holder}.memory"
        for other in wanted:
            before = f"{holder}{other.removeprefix(inside)}"
            if other.startswith(inside) and before in made:
                made[other] = made.pop(before)
    return made


def _changed(
    leaves: dict[str, np.ndarray], change: Callable[[str, np.ndarray], np.ndarray]
) -> dict[str, np.ndarray]:
    return {name: change(name, leaf) for name, leaf in leaves.items()}


def _named(tree: Any) -> dict[str, Any]:
    """The leaves by their path's text, in the order in which the tree is flattened."""
    return {
        jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _bytes(leaf: np.ndarray) -> np.ndarray:
    """The array's memory in C order, uint8 [nbytes]; a view if it lies so already."""
    return np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)


def _joined(leaves: Iterable[np.ndarray]) -> tuple[np.ndarray, int]:
    """The bytes of all leaves, padded so that they are a whole number of equal chunks, and the
    bytes of one chunk.

    Orbax cuts an array only into equal chunks: one whose length is a prime number it would write as
    a file per byte.
    """
    parts = [_bytes(leaf) for leaf in leaves]
    total = sum(part.size for part in parts)
    count = max(1, -(-total // _CHUNK_BYTES))
    chunk = max(1, -(-total // count))  # (orbax refuses an array without elements)
    return np.concatenate([*parts, np.zeros(count * chunk - total, np.uint8)]), chunk


def _check_array(described: dict, table: list) -> None:
    """Raises _Damaged if the description of the array of bytes does not fit a verified table of
    leaves.

    What it says is not left to tensorstore, which ends the process where a size is more than there
    is memory.
    """
    total = sum(math.prod(shape) * np.dtype(dtype).itemsize for _, dtype, shape, _ in table)
    (size,), (chunk,) = described["shape"], described["chunks"]
    whole = type(size) is type(chunk) is int and 0 < chunk <= size and size % chunk == 0
    # `_joined` pads by fewer bytes than there are chunks
    if not (whole and 0 <= size - total <= size // chunk and described["dtype"] == "|u1"):
        raise _Damaged("the description of its array does not fit its manifest")
    check_fits(size)


def _digest(header: Any, *arrays: np.ndarray) -> str:
    """SHA-256 over a header (as JSON) and the bytes of arrays."""
    digest = hashlib.sha256(json.dumps(header).encode())
    for array in arrays:
        digest.update(_bytes(array).data)
    return digest.hexdigest()


def _manifest(step: int, leaves: dict[str, np.ndarray]) -> dict:
    """[name, dtype, shape, SHA-256] of each leaf in the order of their bytes, and a SHA-256 over
    that and the step.
    """
    table = []
    for name, leaf in leaves.items():
        header = [leaf.dtype.name, list(leaf.shape)]
        table.append([name, *header, _digest(header, leaf)])
    return {"leaves": table, "sha256": _digest([step, table])}


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Keeps orbax's own lines off the terminal.

    Orbax writes dozens of lines a save, and the traceback of every error that it also raises, to
    the logger that all
    users of absl share: they are filtered by the file they come from, and the verbosity that the
      user chose stays.
    """

    def from_elsewhere(record: logging.LogRecord) -> bool:
        return f"{os.sep}orbax{os.sep}" not in record.pathname

    logger = absl_logging.get_absl_logger()
    logger.addFilter(from_elsewhere)
    try:
        yield
    finally:
        logger.removeFilter(from_elsewhere)
