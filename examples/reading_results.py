"""Reading results: from a table of runs to intervals, paired differences and a figure.

Run: python examples/reading_results.py (seconds), or with the folder of a run of yours:
python examples/reading_results.py runs/demo

A run leaves `results.parquet` in its folder, which pandas reads: one row for each lane (one
training run: one seed of one setting) and task. The table that is read if no folder is given is
that of `make demo`: random labels on digits that change in 1, 4 or 20 steps, four seeds each.
"""

import pathlib
import sys
import tempfile

import pandas as pd

from plasticity_jax.reporting import curves, statistics, tables

root = pathlib.Path(__file__).parents[1]
path = root / "experiments" / "gradual" / "results" / "lanes" / "demo.parquet"
if len(sys.argv) > 1:
    path = pathlib.Path(sys.argv[1]) / "results.parquet"
table = pd.read_parquet(path)
columns = ["lane", "task", "seed", "granularity", "online_accuracy", "dormant_fraction"]
print(table[columns].tail(3).to_string(index=False), "\n")

# An arm is a setting without its seed; name the columns that tell your arms apart. Each lane counts
# with its mean over its last five tasks, and statistics are over the seeds of an arm.
arms = ["granularity"]
print(tables.final_table(table, arms, metric="online_accuracy", last=5), "\n")

# The same as numbers. Lanes with the same seed saw the same tasks, so differences are paired.
differences = statistics.paired_differences(
    table, arms, baseline={"granularity": 1}, metric="dormant_fraction", last=5
)
print(differences[["granularity", "count", "mean", "t_low", "t_high"]].to_string(), "\n")

# Statistics of every metric at every task, for a figure of your own ...
long = statistics.summary(table, arms)
accuracy = long[long.metric == "online_accuracy"]
means = accuracy.pivot(index="task", columns="granularity", values="mean")
print(means.iloc[::5].to_string(float_format="%.3f"), "\n")

# ... or the figure that a run draws of itself, as .png and .svg.
folder = pathlib.Path(tempfile.mkdtemp())
curves.curves(table, arms, folder / "curves", curves.Drawing(metric="online_accuracy"))
print("drawn:", *sorted(str(file) for file in folder.iterdir()))
