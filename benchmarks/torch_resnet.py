"""The rival of ResNet-18: the same network in PyTorch, laid out channels last, with fused Adam."""

import itertools

import torch
from torch import nn
from torch.nn import functional

from benchmarks import torch_loop
from benchmarks.worker import CLASSES, Go, images_and_labels

CHANNELS = (64, 64, 128, 256, 512)  # of the stem, then of each stage


class Block(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)), 3x3 convolutions, the first of them with
    `stride`.
    """

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        same = stride == 1 and before == after
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.inner(x) + self.shortcut(x), inplace=True)


def network() -> nn.Sequential:
    """Returns ResNet-18 for 32x32 images: a 3x3 stem, four stages of two blocks, the mean over
    positions, a head.
    """
    stem = [
        nn.Conv2d(3, CHANNELS[0], 3, 1, 1, bias=False),
        nn.BatchNorm2d(CHANNELS[0]),
        nn.ReLU(inplace=True),
    ]
    blocks = [
        block
        for stage, (before, after) in enumerate(itertools.pairwise(CHANNELS))
        for block in (Block(before, after, 1 if stage == 0 else 2), Block(after, after, 1))
    ]
    return nn.Sequential(
        *stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS[-1], CLASSES)
    )


def training(steps: int, batch_size: int = 64, compiled: bool = False) -> Go:
    """Trains for `steps` steps a call, images normalised in advance. Work: steps."""
    where, samples = torch_loop.device(), steps * batch_size
    images, labels = images_and_labels(samples, (32, 32, 3))
    x = (
        torch.from_numpy(images)
        .to(where)
        .permute(0, 3, 1, 2)
        .float()
        .contiguous(memory_format=torch.channels_last)
    )
    x, y = (x - x.mean()) / x.std(), torch.from_numpy(labels).to(where).long()
    model = network().to(where, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def objective(index):
        return functional.cross_entropy(model(x[index]), y[index])

    return torch_loop.training(objective, optimizer, samples, batch_size, compiled=compiled)
