"""A whole run of two tasks, replayed in PyTorch step by step: the training loop does what it
says.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax import lanes
from plasticity_jax.environments import ENVIRONMENTS
from plasticity_jax.spec import Spec
from plasticity_jax.stream import keys, order
from plasticity_jax.training.supervised import make_run
from plasticity_jax.types import Data

SAMPLES, CLASSES, BATCH, EPOCHS, TASKS, RATE, STRENGTH = 80, 10, 16, 6, 2, 3e-3, 2e-3
STEPS = SAMPLES // BATCH * EPOCHS


def small_data():
    random = np.random.default_rng(0)
    images = jnp.asarray(random.integers(0, 17, (SAMPLES, 8, 8, 1)), jnp.uint8)
    labels = jnp.asarray(np.arange(SAMPLES) % CLASSES, jnp.int32)
    return Data(images, labels, images[:0], labels[:0], jnp.full(1, 8.0), jnp.full(1, 5.0), CLASSES)


def forward(torch, params, x):
    functional, x = torch.nn.functional, x.reshape(len(x), -1)
    for i in range(2):
        x = functional.linear(x, params[f"layer{i}"]["kernel"].T, params[f"layer{i}"]["bias"])
        x = functional.layer_norm(x, (16,), params[f"norm{i}"]["scale"], params[f"norm{i}"]["bias"])
        x = torch.relu(x)
    return functional.linear(x, params["head"]["kernel"].T, params["head"]["bias"])


@pytest.mark.oracle
def test_a_run_replayed_in_pytorch(torch):
    spec = Spec(
        batch_size=BATCH,
        epochs=EPOCHS,
        tasks=TASKS,
        width=16,
        depth=2,
        norm="layer",
        method="l2",
        probes=(),
        samples=SAMPLES,
    )
    lane = lanes.complete(
        spec, {"seed": 3, "granularity": 4, "learning_rate": RATE, "l2.strength": STRENGTH}
    )
    data, run = small_data(), make_run(spec)
    environment = ENVIRONMENTS["random_labels"]()
    at = jax.jit(order.make_stream(environment, "output", BATCH, EPOCHS))

    state = jax.jit(run.init)(lane, data)
    run_task = jax.jit(run.run_task)
    params = jax.tree.map(lambda p: torch.tensor(np.asarray(p), requires_grad=True), state.params)
    leaves = jax.tree.leaves(params)
    # PyTorch's weight decay of Adam is coupled and has a factor 1/2, which L2 here has not
    adam = torch.optim.Adam(leaves, lr=RATE, weight_decay=2 * STRENGTH)
    mixed = 0
    for task in range(TASKS):
        state, metrics = run_task(lane, state, data, jnp.int32(task))
        online = []
        for step in range(STEPS):
            batch = at(jax.random.key(3), data, task, step, 4, lane["transition_fraction"])
            x, y = (torch.tensor(np.asarray(a)) for a in (batch.x, batch.y))
            mixed += bool(y.max() < 1)
            logits = forward(torch, params, x)
            online.append((logits.argmax(1) == y.argmax(1)).float().mean().item())
            adam.zero_grad()
            torch.nn.functional.cross_entropy(logits, y).backward()
            adam.step()

        compared = jax.tree.map(
            lambda ours, theirs: (np.asarray(ours), theirs.detach().numpy()), state.params, params
        )
        for ours, theirs in jax.tree.leaves(compared, is_leaf=lambda pair: isinstance(pair, tuple)):
            # Adam's step is a quotient of small numbers, so rounding grows from step to step
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
        whole = environment.examples(
            data,
            environment.task(keys.role(jax.random.key(3), keys.TASK), data, task),
            jnp.arange(SAMPLES),
        )
        x, y = (torch.tensor(np.asarray(a)) for a in (whole.x, whole.y))
        with torch.no_grad():
            logits = forward(torch, params, x)
        right = (logits.argmax(1) == y.argmax(1)).float().mean().item()
        loss = torch.nn.functional.cross_entropy(logits, y).item()
        last_epoch = online[-(SAMPLES // BATCH) :]
        # an accuracy is a count of examples: not one of them may differ
        assert float(metrics["online_accuracy"]) == pytest.approx(np.mean(last_epoch), abs=1e-6)
        assert float(metrics["accuracy"]) == pytest.approx(right, abs=1e-6)
        assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-3)
        assert bool(metrics["finite"])
        assert 0.2 < np.mean(last_epoch) < 1, (
            "neither untrained nor saturated, or accuracies would say little"
        )
    # 30 steps of which 20 are the transition: plateaus of 5 at 1/4, 2/4, 3/4 (mixed) and at 1
    assert mixed == 15
