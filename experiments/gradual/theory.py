"""The theory of gradual change as numbers: bounds against gradient descent, micro-tasks needed, and
a real network.

Source: Liu & Mou, section 4 and appendix A (Lemmas 4.3 to 4.6, Theorem 4.7), whose lost formulas
are derived anew; the network is that of their Random MNIST in small, on the 8x8 digits inside
scikit-learn. Everything else is ours.
Command: python -m experiments.gradual.theory --workdir=runs/theory [--scale=smoke]
Cost: about a minute on two cores; --scale=smoke takes seconds and only shows that it runs.
Writes: theory.png, theory.svg, and what they show as contraction.csv, paths.csv, plan.csv,
  bridge.csv.
Expect: no measured contraction above its bound; the two wells lost when they turn at once and
tracked when they turn gradually; 960 micro-tasks guaranteed for half a turn where 18 work; and a
network whose Hessian is nowhere positive definite, whose strides get shorter with finer steps while
its way gets longer, and which meets every other condition about as well when the change is abrupt:
in one transition these conditions do not tell abrupt from gradual. Not modeled by the theory:
label interpolation (it knows linear changes θ -> Aθ alone, under which every task has the same
landscape), a null space, minibatches and Adam, a budget of steps, and whether the minimum that is
kept is a good one.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from experiments import computation
from plasticity_jax.execution import program
from plasticity_jax.storage import writing


def run(folder: Path, scale_name: str) -> str:
    """Writes tables and figure into `folder` and returns the text to print. Raises DataError or
    OSError.
    """
    import jax

    from plasticity_jax.theory.gradual import panels, picture

    began, scale = time.monotonic(), panels.SCALES[scale_name]
    folder.mkdir(parents=True, exist_ok=True)
    data = program.load_data(scale.spec)
    # bounds are compared to the last digits; the network stays in float32
    with jax.enable_x64(True):
        tables = {
            "contraction": panels.contraction(scale),
            "paths": panels.paths(),
            "plan": panels.plans(scale),
        }
    tables["bridge"] = panels.bridges(scale, data)
    for name, table in tables.items():
        writing.text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))
    with jax.enable_x64(True):
        written = picture.draw(tables, scale, folder / "theory")
    return f"{panels.text(tables)}\n\nfigure: {written[0]}   ({time.monotonic() - began:.0f} s)"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment and returns the exit code: 0, 2 for a fault of the command line, 1 for
    one of data or disk.
    """
    return computation.main(__doc__ or "", ("full", "smoke"), run, argv)


if __name__ == "__main__":
    sys.exit(main())
