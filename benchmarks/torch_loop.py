"""What the rivals in PyTorch share: where they run, and a training loop without waste."""

import shutil
from collections.abc import Callable

import torch

from benchmarks.rivals import cores
from benchmarks.worker import Go


def device() -> torch.device:
    """Returns where to train: the GPU if PyTorch sees one, as jax would choose, else the CPU, a thread for each core."""
    torch.set_num_threads(cores())
    torch.backends.cudnn.allow_tf32 = False  # float32 as ours, in products it is the default
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def training(
    objective: Callable[[torch.Tensor], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    samples: int,
    batch_size: int,
    epochs: int = 1,
    compiled: bool = False,
) -> Go:
    """Trains for `epochs` epochs of full batches a call. Work: steps.

    Args:
      objective: indices of a batch -> its mean loss, [].
      optimizer: fused, over the parameters of the objective.
      samples, batch_size, epochs: how much is done in a call.
      compiled: by torch.compile, forward and backward pass, where a C++ compiler is found; raises RuntimeError without.
    """
    if compiled:
        if not shutil.which("g++") and not shutil.which("clang++"):
            raise RuntimeError(
                "compiled is True, but no C++ compiler was found: allowed is a machine with g++ or clang++."
            )
        objective = torch.compile(objective, dynamic=False)
    steps, where = samples // batch_size, device()

    def go():
        for _ in range(epochs):
            for index in torch.randperm(samples, device=where)[: steps * batch_size].split(batch_size):
                optimizer.zero_grad(set_to_none=True)
                objective(index).backward()
                optimizer.step()
        if where.type == "cuda":
            torch.cuda.synchronize()
        return float(steps * epochs)

    return go
