"""What a workdir in many slices costs besides training: files, and the time to read, watch and
merge them.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.rivals import Figure

COUNT, LANES, TASKS = 400, 2, 100
ROWS = 1_000_000  # of the table whose writing is measured


def sliced(rounds: int) -> list[Figure]:
    """A workdir of 400 slices of two lanes and 100 tasks: files, and CPU seconds to read and merge
    it.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        figures = [Figure("slices", "files of a slice", [workdir(root)], "")]
        found = [_measured(root) for _ in range(rounds)]
    for what, unit in found[0]:
        figures.append(Figure("slices", what, [one[what, unit] for one in found], unit))
    return figures


def _measured(root: Path) -> dict[tuple[str, str], float]:
    """{(what, unit): CPU} of what a command does with slices; ms are of one slice."""
    import pandas

    from plasticity_jax.execution import slices, watching
    from plasticity_jax.execution.engines import sliced, status
    from plasticity_jax.storage import table

    found = {}

    def timed(what: str, unit: str, does: Callable[[], Any]) -> Any:
        began = time.process_time()
        made = does()
        seconds = time.process_time() - began
        found[what, unit] = 1000 * seconds / COUNT if unit == "ms" else seconds
        return made

    recorded = timed("what it consists of", "ms", lambda: slices.read(root, devices=1))
    with watching.bar(recorded.slices, shown=False) as bar:
        merge = sliced.Merge(root, recorded.slices, bar)
        timed("first reading and writing of tables", "ms", merge.update)
        timed("a look whether one has moved", "ms", merge.update)
        rows = merge.table()
    timed("plasticity status", "ms", lambda: status.read(root))
    many = pandas.concat([rows] * (ROWS // len(rows) + 1), ignore_index=True)[:ROWS]
    many.attrs = rows.attrs
    path = root / "many.parquet"
    timed("writing a table of a million rows", "s", lambda: table.write(many, path))
    return found


def workdir(root: Path) -> int:
    """Makes the workdir, of one slice that is trained and copied, and returns its files."""
    from plasticity_jax import Spec
    from plasticity_jax.execution import program, slices, sweep
    from plasticity_jax.execution.engines import description
    from plasticity_jax.storage import workdir as workdir_

    small = {"dataset": "digits", "samples": 32, "batch_size": 32, "epochs": 1, "width": 8}
    spec = Spec(**small, depth=1, norm="none", probes=(), tasks=TASKS)
    dataset = program.load_common_dataset([spec], None, False)
    every = []
    for number in range(COUNT):
        lanes = [{"seed": LANES * number + place} for place in range(LANES)]
        (one,) = program.plan([(spec, lanes)], {spec: 32}, "map", None)
        how = one.execution._replace(devices=1)
        made = slices.made(one._replace(execution=how), LANES * number)
        every.append(made._replace(home=made.folder))
    first, *others = every
    home = first.place(root)
    sweep.run_in_workdir([first.program], dataset, home)
    description.write(home, first.program, description.How())
    for one in others:
        shutil.copytree(home, one.place(root))
        (one.place(root) / "checkpoints" / first.folder).rename(one.checkpoints(root))
    workdir_.write_config(root, slices.settings(every, dataset), {})
    return sum(path.is_file() for path in home.rglob("*"))
