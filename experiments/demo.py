"""The main job in miniature: abrupt against gradual change on real handwritten digits, in a few
minutes on two cores.

Source: Liu & Mou, figure 5a (granularity, Random MNIST, MLP), on scikit-learn's 8x8 digits.
Command: python -m experiments.demo --workdir=runs/demo
(make demo does the same.)
Expect: with abrupt changes the online accuracy falls from 1.0 towards 0.3; with a transition in 20
steps it stays high.
"""

import sys

from experiments.gradual.settings import PROBES
from plasticity_jax.cli import launcher

DEFAULTS = {
    "dataset": "digits",
    "samples": 1280,
    "environment": "random_labels",
    "transition": "output",
    "granularity": (1, 4, 20),
    "seeds": 4,
    "tasks": 30,
    "epochs": 120,
    "batch_size": 64,
    "width": 64,
    "probes": PROBES,
}
NOTE = (
    "Differs from the paper's Random MNIST: 1,280 images of 8x8 digits instead of 5,120 of 28x28, "
    "4 x 64 units instead of "
    "4 x 256, 120 epochs a task instead of 240, 30 tasks, 4 seeds. All arms take the same steps "
    "per task; a third of "
    "them, at the end, is on the pure task in every arm."
)

EXPERIMENT = launcher.Experiment(
    __doc__, DEFAULTS, title="Random labels on digits: abrupt and gradual change", note=NOTE
)

if __name__ == "__main__":
    sys.exit(launcher.launch(EXPERIMENT))
