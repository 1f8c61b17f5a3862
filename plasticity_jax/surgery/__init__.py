"""Surgery: what is done to a trained network from which a run begins. A new one is one factory and
one line in SURGERIES.

A surgery takes the whole state of a lane, so it may change sizes: then it also says which model has
the tree that it makes, and sees to the initial parameters and the optimizer's state.
"""

from plasticity_jax.surgery.clone import clone
from plasticity_jax.surgery.same_size import none, perturb

__all__ = ["SURGERIES", "clone", "none", "perturb"]

SURGERIES = {
    "none": none,
    "perturb": perturb,
    "clone": clone,
}
