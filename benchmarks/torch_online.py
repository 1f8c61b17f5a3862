"""The rivals of bit flipping at one example a step: a loop in PyTorch, with autograd and
without.
"""

import torch
from torch.nn import functional

from benchmarks.worker import BITS, RATE, Go

STEPS = 2000  # of a call


def training(width: int, autograd: bool) -> Go:
    """Learns from one example after another, drawn in advance: a hidden layer of ReLU, squared
    error, gradient descent. Without `autograd` the gradient is written out. Work: steps.
    """
    torch.set_num_threads(1)  # (a step is too small to be shared out)
    x = torch.randint(0, 2, (STEPS, BITS + 1)).float()
    y = torch.randn(STEPS)
    shapes = ((width, BITS + 1), (width,), (width,), ())
    into, into_bias, out, out_bias = parts = [0.1 * torch.randn(shape) for shape in shapes]
    for part in parts:
        part.requires_grad_(autograd)
    optimizer = torch.optim.SGD(parts, lr=RATE) if autograd else None

    def learnt(x: torch.Tensor, y: torch.Tensor) -> None:
        assert optimizer
        hidden = functional.relu(torch.mv(into, x) + into_bias)
        loss = (torch.dot(hidden, out) + out_bias - y) ** 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def written_out(x: torch.Tensor, y: torch.Tensor) -> None:
        hidden = torch.addmv(into_bias, into, x).relu_()
        slope = 2 * RATE * (torch.dot(hidden, out) + out_bias - y)
        before = slope * out * (hidden > 0)
        out.sub_(slope * hidden)
        out_bias.sub_(slope)
        into.addr_(before, x, alpha=-1)
        into_bias.sub_(before)

    step = learnt if autograd else written_out

    def go():
        for example in zip(x, y, strict=True):
            step(*example)
        return float(STEPS)

    return go
