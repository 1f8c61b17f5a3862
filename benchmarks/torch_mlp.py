"""The rival: the same training in PyTorch, as someone who knows it well writes it."""

import itertools

import torch
from torch import nn
from torch.nn import functional

from benchmarks import torch_loop
from benchmarks.worker import CLASSES, SAMPLES, Go, images_and_labels


def training(
    batch_size: int,
    epochs: int = 1,
    width: int = 256,
    depth: int = 4,
    compiled: bool = False,
) -> Go:
    """Trains one lane for `epochs` epochs a call. Work: steps.

    Lanes would run one after another, so steps per second are lane-steps per second. What it is
    spared, all in its
    favour: images are normalised and targets mixed in advance, no accuracy is computed and nothing
      is evaluated.
    """
    images, labels = images_and_labels()
    where = torch_loop.device()
    x = torch.from_numpy(images.reshape(SAMPLES, -1)).to(where).float()
    x = (x - x.mean()) / x.std()
    y = (
        0.9 * functional.one_hot(torch.from_numpy(labels).to(where).long(), CLASSES).float()
        + 0.1 / CLASSES
    )
    sizes = [x.shape[1], *[width] * depth]
    layers = [
        part
        for before, after in itertools.pairwise(sizes)
        for part in (nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU(inplace=True))
    ]
    model = nn.Sequential(*layers, nn.Linear(width, CLASSES)).to(where)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def objective(index):
        return functional.cross_entropy(model(x.index_select(0, index)), y.index_select(0, index))

    return torch_loop.training(objective, optimizer, SAMPLES, batch_size, epochs, compiled)


def matmul(size: int) -> Go:
    """A square float32 product on all cores, or on the GPU. Work: GFLOP."""
    left = torch.rand(size, size, device=torch_loop.device())

    def go():
        torch.mm(left, left)
        if left.is_cuda:
            torch.cuda.synchronize()
        return 2e-9 * size**3

    return go
