"""The rival of the T5 block: T5ForConditionalGeneration of transformers with fused AdamW."""

from typing import Any

import numpy as np
import torch
from transformers import T5Config, T5ForConditionalGeneration

from benchmarks import torch_loop
from benchmarks.worker import Go


def training(
    steps: int,
    batch_size: int = 64,
    length: int = 64,
    symbols: int = 32,
    width: int = 256,
    feed_forward: int = 2048,
    compiled: bool = False,
) -> Go:
    """Trains one block a side, 4 heads of 64, on random ids without padding, for `steps` steps a
    call. Work: steps.

    In its favour: no dropout, no mask is given, no accuracy is computed. Attention is eager:
    scaled_dot_product_attention took the same time.
    """
    where, samples = torch_loop.device(), steps * batch_size
    settings: dict[str, Any] = {"decoder_start_token_id": 0, "attn_implementation": "eager"}
    config = T5Config(
        vocab_size=symbols, d_model=width, d_kv=64, d_ff=feed_forward, num_layers=1,
        num_decoder_layers=1, num_heads=4, dropout_rate=0.0, use_cache=False, pad_token_id=0,
        **settings,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config).train().to(where)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    random = np.random.default_rng(0)
    source, target = (
        torch.from_numpy(random.integers(1, symbols, (samples, length))).to(where) for _ in range(2)
    )

    def objective(index):
        return model(input_ids=source[index], labels=target[index]).loss

    return torch_loop.training(objective, optimizer, samples, batch_size, compiled=compiled)
