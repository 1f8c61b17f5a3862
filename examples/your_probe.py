"""Your probe: on any activations, then as a column of a run's table.

Run: python examples/your_probe.py (seconds)

A probe is a function of a `Snapshot`: the network at the end of a task, with its loss and its
activations on a fixed batch. Entered in `pj.probes.PROBES`, it is measured inside the compiled
program of every run that names it.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

import plasticity_jax as pj


def saturated(activations, edge):
    """Returns the share of units of [N, H] that are beyond -edge or edge on 95 % of the inputs."""
    often = (jnp.abs(activations) > edge).mean(axis=0)
    return (often > 0.95).mean()


def saturated_fraction(
    snapshot: pj.Snapshot, *, edge: float = 0.9
) -> Annotated[dict, pj.Metric(label="saturated units", share=True)]:
    """Fraction of tanh units that hardly react any more; per layer."""
    layers = {layer: saturated(hidden, edge) for layer, hidden in snapshot.hidden.items()}
    whole = jnp.stack(list(layers.values())).mean()
    return {"": whole, **layers}  # "" is the probe's own column, the others are details


# on activations from anywhere: 100 inputs, 4 units, of which the last two are stuck
activations = jnp.tanh(jax.random.normal(jax.random.key(0), (100, 4)))
activations = activations.at[:, 2:].set(0.99)
print(f"by hand: {saturated(activations, edge=0.9):.2f}")

# in a run; keyword-only parameters are options, here `saturated_fraction.edge`
pj.probes.PROBES["saturated_fraction"] = saturated_fraction
spec = pj.Spec(
    dataset="digits",
    samples=320,
    tasks=3,
    epochs=20,
    width=32,
    depth=2,
    norm="none",
    activation="tanh",
    probes=("saturated_fraction", "effective_rank"),
    options={"saturated_fraction.edge": 0.8},
)
# a higher learning rate saturates more; both rates and both seeds run in one compiled program
table = pj.run(spec, pj.grid(learning_rate=[1e-3, 3e-2], seed=range(2)))
columns = ["saturated_fraction", "saturated_fraction/h0", "saturated_fraction/h1", "effective_rank"]
print(table.groupby(["learning_rate", "task"])[columns].mean().to_string(float_format="%.3f"))
