"""What the rivals in PyTorch share: where they run, and a training loop without waste."""

import os
import shutil
from collections.abc import Callable

import torch

from benchmarks.rivals import cores
from benchmarks.worker import Go, precision


def device() -> torch.device:
    """Returns where to train: the GPU if PyTorch sees one, as jax would choose, else the CPU, a
    thread for each core.

    Sets the arithmetic that the command asked for, as ours has it.
    """
    torch.set_num_threads(cores())
    tensorfloat32 = precision() == "tensorfloat32"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tensorfloat32
    torch.use_deterministic_algorithms("BENCHMARK_DETERMINISTIC" in os.environ)
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
      compiled: by torch.compile, forward and backward pass, where a C++ compiler is found; raises
        RuntimeError without.
    """
    if compiled:
        if not shutil.which("g++") and not shutil.which("clang++"):
            raise RuntimeError(
                "compiled is True, but no C++ compiler was found: allowed is a machine with g++ or "
                "clang++."
            )
        objective = torch.compile(objective, dynamic=False)
    steps, where = samples // batch_size, device()
    arithmetic = torch.autocast(where.type, torch.bfloat16, enabled=precision() == "bfloat16")

    def go():
        for _ in range(epochs):
            for index in torch.randperm(samples, device=where)[: steps * batch_size].split(
                batch_size
            ):
                optimizer.zero_grad(set_to_none=True)
                with arithmetic:
                    loss = objective(index)
                loss.backward()
                optimizer.step()
        if where.type == "cuda":
            torch.cuda.synchronize()
        return float(steps * epochs)

    return go
