"""Your network: a residual one, by itself and in a run with a method that recycles its units.

Run: python examples/your_model.py (half a minute)

A model is a Flax module that says where its activations and its units are, and a factory with the
fields of `Spec` that it reads. Entered in `pj.models.MODELS`, it runs with every environment of
images, with every method and probe.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

import plasticity_jax as pj


class Residual(nn.Module):
    """A dense layer, `depth` blocks that each add to what they read, and a dense head."""

    outputs: int
    width: int
    depth: int
    wider: int

    @nn.compact
    def __call__(self, x, train=False):
        """Returns logits [B, outputs] of images [B, ...]; `train` matters with dropout."""
        x = nn.Dense(self.width, name="first")(x.reshape(len(x), -1))
        for i in range(self.depth):
            before = nn.Dense(self.wider * self.width, name=f"in{i}")(x)
            units = nn.relu(before)
            # what probes and methods see: what the units gave out, and what went into the ReLU
            self.sow("hidden", f"h{i}", units)
            self.sow("preactivations", f"h{i}", before)
            x = x + nn.Dense(self.width, name=f"out{i}")(units)
        return nn.Dense(self.outputs, name="head")(x)

    def groups(self):
        """Returns the names of the groups of activations, from input to output."""
        return [f"h{i}" for i in range(self.depth)]

    def units(self):
        """Returns which layer makes a group's units, what norm follows, and who reads them."""
        layers = range(self.depth)
        return {f"h{i}": pj.UnitGroup((f"in{i}",), None, (f"out{i}",)) for i in layers}

    def output_layer(self):
        """Returns where the head's parameters are, for methods that draw it afresh."""
        return ("head",)


def residual(outputs: int, width: int, depth: int, *, wider: int = 2) -> Residual:
    """Residual perceptron; blocks of `wider` times `width` units. `wider` is an option."""
    return Residual(outputs, width, depth, wider)


# by itself
model = residual(10, 32, 2)
params = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]
print("parameters:", sum(leaf.size for leaf in jax.tree.leaves(params)), "in", [*params])

# in a run: ReDo finds its dormant units and gives them new weights
pj.models.MODELS["residual"] = residual
small = {"samples": 320, "tasks": 4, "epochs": 20, "width": 32, "depth": 2}
spec = pj.Spec(
    model="residual",
    method="redo",
    probes=("dormant_fraction",),
    options={"residual.wider": 3, "redo.period": 20},
    **small,
)
table = pj.run(spec, pj.grid(learning_rate=1e-2, **{"redo.threshold": [0.0, 0.3]}, seed=range(2)))
columns = ["online_accuracy", "units_reset", "dormant_fraction/h0", "dormant_fraction/h1"]
print(table.groupby(["redo.threshold", "task"])[columns].mean().to_string(float_format="%.3f"))
