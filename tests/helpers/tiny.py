"""Small data and Specs that several test files share."""

import importlib.util

import numpy as np

from plasticity_jax.environments import ENVIRONMENTS
from plasticity_jax.spec import Spec, unread
from plasticity_jax.types import Data


def data(
    samples: int = 64, classes: int = 4, test: int = 12, shape: tuple[int, ...] = (3, 3, 1)
) -> Data:
    """Random uint8 images with labels that go round the classes."""
    random = np.random.default_rng(samples)
    images = random.integers(0, 256, (samples + test, *shape)).astype(np.uint8)
    labels = (np.arange(samples + test) % classes).astype(np.int32)
    mean, std = images.mean((0, 1, 2)), images.std((0, 1, 2))
    parts = images[:samples], labels[:samples], images[samples:], labels[samples:]
    return Data(*parts, np.float32(mean), np.float32(std), classes)


def real(samples: int = 64, test: int = 12) -> Data:
    """The same images with two real targets each."""
    made = data(samples, test=test)
    targets = np.random.default_rng(1).normal(size=(samples + test, 2)).astype(np.float32)
    return Data(made.x, targets[:samples], made.test_x, targets[samples:], made.mean, made.std, 0)


def playable() -> dict:
    """The environments that can be run here: without those whose package is not installed."""
    packages = {"minatar": "gymnax", "atari": "ale_py"}
    found = {}
    for name, factory in ENVIRONMENTS.items():
        if importlib.util.find_spec(packages.get(name, "jax")):
            found[name] = factory
    return found


def spec(**changes) -> Spec:
    """A Spec whose program compiles in seconds: one hidden layer of 8 units, two epochs of four
    steps on 64 samples.
    """
    small = {
        "tasks": 2,
        "epochs": 2,
        "batch_size": 16,
        "width": 8,
        "depth": 1,
        "norm": "none",
        "probes": (),
    }
    environment = changes.get("environment", "random_labels")
    acted = [name for name, factory in ENVIRONMENTS.items() if factory().world is not None]
    if environment in acted:
        del small["epochs"]
        small["phase_steps"] = 400
    small = {
        name: value
        for name, value in small.items()
        if name not in unread(changes.get("model", "mlp"))
    }
    return Spec(**(small | {"optimizer": "sgd"} | changes))


def arrays(folder, samples: int = 64) -> str:
    """Writes the data as .npy files and returns the dataset's name."""
    made = data(samples)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("x", "y", "test_x", "test_y"):
        part, what = (
            "test" if name.startswith("test") else "train",
            "images" if name.endswith("x") else "labels",
        )
        np.save(folder / f"{part}_{what}.npy", getattr(made, name))
    return f"arrays:{folder}"
