"""Atari: C51 with layer norm in a game of the emulator ALE, beside a fresh network and a player by
chance.

Source: Lyle et al. have C51 and Rainbow in 57 games, layer norm before each activation; numbers of
C51 are those of Bellemare, Dabney & Munos 2017 at --scale=paper (200 million frames, which are 50
million steps), smaller ones at the others. --agent=rainbow and --norm=none,layer are theirs, too.
Command: python -m experiments.disentangling.atari --workdir=runs/disentangling_atari
    --scale=reduced
Cost: --dry_run says it.
Needs the extra atari.
Paper: layer norm raises the scores of C51 and Rainbow in most of the games.
"""

import sys

from experiments.disentangling import acting

if __name__ == "__main__":
    sys.exit(acting.main(__doc__, acting.ATARI))
