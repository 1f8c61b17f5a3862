"""What `python -m plasticity_jax COMMAND` runs: the command line of `cli/commands.py`."""

import sys

from plasticity_jax.cli import commands

if __name__ == "__main__":
    sys.exit(commands.main())
