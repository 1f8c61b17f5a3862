"""Your method in an optax loop, on a network of your own.

Run: python examples/your_method.py (seconds)

A method is a function from optimizer to optimizer. Two kinds cover nearly all, one of each here:
a `Penalty` joins the loss, a `Rewrite` changes parameters after the optimizer's update.
"""

import jax
import jax.numpy as jnp
import optax

import plasticity_jax as pj

TASKS, STEPS = 5, 200


def l1(strength):
    """Adds strength * sum |p| to the loss."""

    def value(params, memory):
        return sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(params))

    return pj.methods.Penalty(value, strength)


def weight_clipping(bound):
    """Keeps every parameter within -bound and bound. Source: Elsayed et al. 2024."""

    def apply(params, ctx, memory):
        clipped = jax.tree.map(lambda leaf: jnp.clip(leaf, -bound, bound), params)
        return clipped, None, memory  # None: the optimizer forgets nothing of any weight

    return pj.methods.Rewrite(apply, when=lambda ctx, memory: ctx.step >= 0)  # at every step


def batch(number):
    """The batch of a step; every task has a random linear target of its own."""
    x = jax.random.normal(jax.random.fold_in(jax.random.key(1), number), (64, 8))
    target = jax.random.normal(jax.random.fold_in(jax.random.key(2), number // STEPS), (8, 1))
    return x, x @ target


def loss(params, examples):
    """Mean squared error, and activations for methods that look at them."""
    x, y = examples
    hidden = jax.nn.relu(x @ params["hidden"])
    return ((hidden @ params["output"] - y) ** 2).mean(), {"hidden": hidden}


def train(optimizer):
    """Returns the parameters, any pytree, after all tasks, and the loss at each step."""
    first, second = jax.random.split(jax.random.key(0))
    params = {"hidden": jax.random.normal(first, (8, 32)) / 8**0.5}
    params["output"] = jax.random.normal(second, (32, 1)) / 32**0.5

    def step(carry, number):
        params, state = carry
        (value, hidden), gradient = jax.value_and_grad(loss, has_aux=True)(params, batch(number))
        # what a method may look at: a random key, the step, whether a task begins, activations
        key = jax.random.fold_in(jax.random.key(3), number)
        ctx = pj.Context(key, number, boundary=number % STEPS == 0, hidden=hidden)
        updates, state = optimizer.update(gradient, state, params, ctx=ctx)
        return (optax.apply_updates(params, updates), state), value

    state = optimizer.init(params)
    (params, _), losses = jax.lax.scan(step, (params, state), jnp.arange(TASKS * STEPS))
    return params, losses


methods = {
    "none": pj.methods.none(),
    "l1": l1(1e-3),
    "weight clipping": weight_clipping(0.5),
    "both and l2": pj.methods.compose(l1(1e-3), weight_clipping(0.5), pj.methods.l2(strength=1e-4)),
}
for name, method in methods.items():
    params, losses = jax.jit(train, static_argnums=0)(method(optax.adam(1e-2)))
    largest = max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(params))
    print(f"{name:16} last loss {losses[-1]:.4f}, largest parameter {largest:.2f}")
