"""The rival of the ViT: the same network of PyTorch's own encoder layers, with fused Adam."""

import torch
from torch import nn
from torch.nn import functional

from benchmarks import torch_loop
from benchmarks.worker import CLASSES, Go, images_and_labels

PATCH, EMBEDDING, BLOCKS, HEADS, RATIO, DROPOUT = 8, 384, 6, 6, 4, 0.1  # as ours by default


class ViT(nn.Module):
    """Patches and a class token through blocks with a norm before each branch; a norm, a head."""

    def __init__(self, side: int):
        super().__init__()
        self.patches = nn.Conv2d(3, EMBEDDING, PATCH, PATCH)
        self.token = nn.Parameter(torch.zeros(1, 1, EMBEDDING))
        self.places = nn.Parameter(torch.zeros(1, (side // PATCH) ** 2 + 1, EMBEDDING))
        layer = nn.TransformerEncoderLayer(
            EMBEDDING,
            HEADS,
            RATIO * EMBEDDING,
            DROPOUT,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(layer, BLOCKS, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(EMBEDDING), nn.Linear(EMBEDDING, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), 1, EMBEDDING), x], dim=1) + self.places
        x = self.blocks(functional.dropout(x, DROPOUT))
        return self.head(self.norm(x[:, 0]))


def training(steps: int, side: int, batch_size: int = 64, compiled: bool = False) -> Go:
    """Trains for `steps` steps a call, images normalised in advance. Work: steps."""
    where, samples = torch_loop.device(), steps * batch_size
    images, labels = images_and_labels(samples, (side, side, 3))
    x = torch.from_numpy(images).to(where).permute(0, 3, 1, 2).float().contiguous()
    x, y = (x - x.mean()) / x.std(), torch.from_numpy(labels).to(where).long()
    model = ViT(side).to(where)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def objective(index):
        return functional.cross_entropy(model(x[index]), y[index])

    return torch_loop.training(objective, optimizer, samples, batch_size, compiled=compiled)
