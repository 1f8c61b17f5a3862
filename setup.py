"""Packaging: `pip install .`, extras `test`, `oracles`, `docs`, `browser`, `rl`,
`atari`, `slurm`, `ray`, `tensorboard`, `wandb`, `cuda`.
"""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
GAMES = "gymnax>=1.0.1,<2"  # the games of MinAtar

setup(
    name="plasticity_jax",
    version="0.2.0",
    description=(
        "Research on loss of plasticity in JAX: every seed, granularity and hyperparameter in one "
        "program"
    ),
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(
        include=["plasticity_jax", "plasticity_jax.*", "experiments", "experiments.*"]
    ),
    package_data={
        "plasticity_jax": ["py.typed", "reporting/*.bib", "reporting/*.css", "reporting/*.js"]
    },
    entry_points={"console_scripts": ["plasticity = plasticity_jax.cli.commands:main"]},
    python_requires=">=3.11",
    install_requires=[
        "jax>=0.10.2,<0.13",
        "flax>=0.12.8,<0.13",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12.8,<1.0",
        "chex>=0.1.92,<0.2",
        "absl-py>=2.3",
        "tensorflow-datasets>=4.9.10,<5",
        # what tensorflow-datasets needs to prepare a dataset without TensorFlow, and does not
        # declare
        "importlib_resources",
        "pillow",
        "array_record",
        "numpy>=2",
        "scipy>=1.13",
        "pandas>=2.2",
        "pyarrow",
        "matplotlib>=3.9",
        "tqdm",
        "scikit-learn>=1.5",
        "safetensors",
    ],
    extras_require={
        "test": ["pytest>=9", "pytest-xdist", "hypothesis", "ruff", "basedpyright"],
        "oracles": [
            "torch==2.13.0",
            "transformers",
            "matfree",
            # earlier ones compare unrounded sums and cut a few words otherwise
            "sentencepiece>=0.2.2",
            "sacrebleu",
            "nltk",
            GAMES,
            # (they compare with it; nothing of them is in here)
            "rlax",
            "MinAtar",
        ],
        "rl": [GAMES],
        "atari": ["ale-py>=0.11"],  # (under the GPL)
        # (SLURM has commands of its own; here so that who asks for it gets no warning)
        "slurm": [],
        "ray": ["ray>=2.9"],
        "tensorboard": ["tensorboardX>=2.6"],
        "wandb": ["wandb>=0.17"],
        "docs": ["sphinx>=9", "myst-parser>=5", "furo", "sphinxcontrib-bibtex"],
        "browser": ["playwright>=1.50"],
        "cuda": ["jax[cuda12]"],
    },
)
