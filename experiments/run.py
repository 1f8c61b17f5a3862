"""Any run by flags: one program per static setting, every seed and number of it at once.

python -m experiments.run --workdir=runs/first --granularity=1,5,20 --method=none,l2 --seeds=5
--tasks=30
"""

import sys

from plasticity_jax.cli import launcher

if __name__ == "__main__":
    sys.exit(launcher.launch(launcher.Experiment(__doc__)))
