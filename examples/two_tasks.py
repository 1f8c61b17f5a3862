"""Two tasks by hand: random labels on real digits, then other labels, at once or in 20 small steps.

Run: python examples/two_tasks.py (seconds)

The loop is plain JAX and optax, so that nothing is hidden: the package draws the tasks and says
which examples, with which targets, come at which step. `pj.run` does the same for many seeds and
settings at once, with checkpoints and a table of results.
"""

import jax
import jax.numpy as jnp
import optax

import plasticity_jax as pj

BATCH, EPOCHS = 64, 150

data = pj.load_data(pj.Spec(dataset="digits", samples=320))  # 8x8 images, part of scikit-learn
environment = pj.environments.random_labels()  # a task: these images with labels of its own
stream = pj.make_stream(environment, "output", batch_size=BATCH, epochs=EPOCHS)
STEPS = EPOCHS * (len(data.x) // BATCH)  # of one task

model = pj.models.MLP(outputs=data.classes, width=64, depth=2)
optimizer = optax.adam(1e-3)


def loss_and_accuracy(params, batch):
    """Both are means over a batch; its targets `y` are distributions over the classes."""
    logits = model.apply({"params": params}, batch.x)
    right = logits.argmax(-1) == batch.y.argmax(-1)
    return optax.softmax_cross_entropy(logits, batch.y).mean(), right.mean()


@jax.jit
def train(params, optimizer_state, data, task, granularity):
    """Trains on one task; returns the new state, and loss and accuracy before each step [STEPS]."""
    key = jax.random.key(0)  # decides the labels and the order of the examples of every task

    def step(state, number):
        params, optimizer_state = state
        batch = stream(key, data, task, number, granularity)
        measure = jax.value_and_grad(loss_and_accuracy, has_aux=True)
        measured, gradient = measure(params, batch)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), measured

    return jax.lax.scan(step, (params, optimizer_state), jnp.arange(STEPS))


for granularity in (1, 20):  # 1: the new labels at once; 20: in 20 steps over 2/3 of the task
    params = model.init(jax.random.key(1), data.x[:1].astype(jnp.float32))["params"]
    state = (params, optimizer.init(params))
    print(f"labels that change in {granularity} step(s):")
    for task in (0, 1):
        state, (loss, accuracy) = train(*state, data, task, granularity)
        print(
            f"  task {task}: largest loss on the way {loss.max():.2f}, "
            f"accuracy at the end {accuracy[-20:].mean():.0%}"
        )
