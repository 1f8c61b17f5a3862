"""MinAtar: DQN with and without layer norm in small games, beside a player by chance.

Source: Lyle et al. have Atari games and C51 and Rainbow; MinAtar and DQN are smaller, as are all
numbers of the figure. --agent=rainbow --head=c51 is closer to theirs; --minatar.game=breakout+
asterix has a game a phase, in turn.
Command: python -m experiments.disentangling.minatar --workdir=runs/disentangling_minatar
    --scale=reduced
Cost: --dry_run says it.
Needs the extra rl.
Paper: layer norm before each activation raises the scores of C51 and Rainbow in most of 57 games.
"""

import sys

from experiments.disentangling import acting

if __name__ == "__main__":
    sys.exit(acting.main(__doc__, acting.MINATAR))
