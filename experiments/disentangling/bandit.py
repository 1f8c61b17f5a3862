"""Contextual bandit: layer norm and L2 where a network makes its own targets, with gamma 0 and
0.99.

Source: Lyle et al., the contextual bandit of their value-based experiments; a factorial of norm, L2
and gamma, and the controls with fresh networks, are ours.
Command: python -m experiments.disentangling.bandit --data_dir=DIR
    --workdir=runs/disentangling_bandit --scale=reduced
Cost: --dry_run says it.
Paper: without norm the reward falls from phase to phase, the more so with gamma 0.99, whose targets
are large; layer norm with L2 keeps it.
"""

import sys

from experiments.disentangling import acting

if __name__ == "__main__":
    sys.exit(acting.main(__doc__, acting.BANDIT))
