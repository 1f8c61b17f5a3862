"""Figure 6: largest Hessian eigenvalue under every method, Random MNIST (a) and Bigram Cipher (b).

Source: Liu & Mou, figure 6, section 5.3.
Command: python -m experiments.figure_6 --data_dir=DIR --workdir=runs/figure_6 --scale=reduced
Same runs as figures 1a and 4: --from=runs/figure_1a,runs/figure_4 draws it from those.
Cost a lane: random_mnist: paper, 19,200 steps a task; reduced, 2,400; bigram_cipher: paper, 4,000 steps a task, for an
accelerator; reduced, 1,200 of a small T5 block (--dry_run says it all).
Paper: spectral regularization and shrink and perturb keep it small; gradual arms keep it low and stable without a
penalty.
"""

import sys

from experiments import figures

if __name__ == "__main__":
    sys.exit(
        figures.main(
            __doc__,
            figures.Figure("6a", "random_mnist", "methods", "hessian_top"),
            figures.Figure("6b", "bigram_cipher", "methods", "hessian_top"),
        )
    )
