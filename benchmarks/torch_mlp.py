"""The rival: the same training in eager PyTorch, as someone who knows it well writes it."""

import itertools

import torch
from torch import nn
from torch.nn import functional

from benchmarks.rivals import cores
from benchmarks.worker import CLASSES, SAMPLES, Go, images_and_labels


def training(
    batch_size: int,
    epochs: int = 1,
    width: int = 256,
    depth: int = 4,
) -> Go:
    """Trains one lane for `epochs` epochs a call. Work: steps.

    Lanes would run one after another, so steps per second are lane-steps per second. What it is spared, all in its
    favour: images are normalised and targets mixed in advance, no accuracy is computed and nothing is evaluated.
    """
    torch.set_num_threads(cores())
    images, labels = images_and_labels()
    x = torch.from_numpy(images.reshape(SAMPLES, -1)).float()
    x = (x - x.mean()) / x.std()
    y = 0.9 * functional.one_hot(torch.from_numpy(labels).long(), CLASSES).float() + 0.1 / CLASSES
    sizes = [x.shape[1], *[width] * depth]
    layers = [
        part
        for before, after in itertools.pairwise(sizes)
        for part in (nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU(inplace=True))
    ]
    model = nn.Sequential(*layers, nn.Linear(width, CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    steps = SAMPLES // batch_size

    def go():
        for _ in range(epochs):
            for index in torch.randperm(SAMPLES)[: steps * batch_size].split(batch_size):
                optimizer.zero_grad(set_to_none=True)
                loss = functional.cross_entropy(model(x.index_select(0, index)), y.index_select(0, index))
                loss.backward()
                optimizer.step()
        return float(steps * epochs)

    return go


def matmul(size: int) -> Go:
    """A square float32 product on all cores. Work: GFLOP."""
    left = torch.rand(size, size)

    def go():
        torch.mm(left, left)
        return 2e-9 * size**3

    return go
