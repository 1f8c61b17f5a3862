"""python -m plasticity_jax COMMAND: see `cli/commands.py`."""

import sys

from plasticity_jax.cli import commands

if __name__ == "__main__":
    sys.exit(commands.main())
