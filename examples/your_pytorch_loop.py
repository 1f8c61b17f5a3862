"""A loop in PyTorch: the stream comes from here, and so do measurements of its activations.

Run: python examples/your_pytorch_loop.py (seconds; needs PyTorch, as the extra `oracles` brings it)

Batches are those of a run with the same seed, as numpy arrays: the same labels, the same examples
in the same order, mixed in the same way. So a method in PyTorch can be compared with one here, seed
by seed.
"""

import torch

import plasticity_jax as pj

BATCH, EPOCHS, TASKS = 64, 60, 4
torch.set_num_threads(1)  # so small a network is faster on one

data = pj.load_data(pj.Spec(dataset="digits", samples=320))  # 8x8 images, part of scikit-learn
labels = pj.environments.random_labels()  # a task: these images with labels of its own


def network():
    """Two hidden layers; what the second one gives out is looked at below."""
    hidden = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64)
    )
    return torch.nn.Sequential(hidden, torch.nn.ReLU()), torch.nn.Linear(64, data.classes)


def train(granularity, seed=0):
    """Returns (accuracy before each step of the last epoch, share of dormant units), by task."""
    torch.manual_seed(seed)
    body, head = network()
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-2)
    stream = pj.batches(
        labels,
        "output",
        data,
        batch_size=BATCH,
        epochs=EPOCHS,
        tasks=TASKS,
        seed=seed,
        granularity=granularity,
    )
    steps = EPOCHS * (len(data.x) // BATCH)
    right, table = [], []
    for task, step, batch in stream:
        x, y = torch.from_numpy(batch.x), torch.from_numpy(batch.y)  # y: distributions
        hidden = body(x)
        logits = head(hidden)
        right.append((logits.argmax(1) == y.argmax(1)).float().mean().item())
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, y).backward()
        optimizer.step()
        if step == steps - 1:
            last = right[-(steps // EPOCHS) :]
            dormant = pj.probes.dormant_fraction(hidden.detach().numpy())
            table.append((sum(last) / len(last), float(dormant)))
            print(f"K = {granularity}, task {task}: {table[-1][0]:.0%}, dormant {table[-1][1]:.0%}")
    return table


abrupt, gradual = train(1), train(20)
