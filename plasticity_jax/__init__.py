"""Research on loss of plasticity in JAX: streams, methods and probes as pure functions, every lane
in one program.
"""

from plasticity_jax import (
    agents,
    datasets,
    environments,
    heads,
    manifolds,
    methods,
    models,
    optimizers,
    probes,
    surgery,
)
from plasticity_jax.execution.merging import load
from plasticity_jax.execution.program import load_data
from plasticity_jax.execution.states import load_state
from plasticity_jax.execution.sweep import run
from plasticity_jax.lanes import grid, stack
from plasticity_jax.spec import Spec
from plasticity_jax.stream import transitions
from plasticity_jax.stream.batches import batches, task_set
from plasticity_jax.stream.order import make_stream
from plasticity_jax.training.supervised import make_run
from plasticity_jax.types import (
    Batch,
    Context,
    Data,
    Environment,
    Metric,
    Snapshot,
    Structure,
    Surgery,
    TrainState,
    Transition,
    UnitGroup,
)

__version__ = "0.2.0"

__all__ = [
    "Batch",
    "Context",
    "Data",
    "Environment",
    "Metric",
    "Snapshot",
    "Spec",
    "Structure",
    "Surgery",
    "TrainState",
    "Transition",
    "UnitGroup",
    "agents",
    "batches",
    "datasets",
    "environments",
    "grid",
    "heads",
    "load",
    "load_data",
    "load_state",
    "make_run",
    "make_stream",
    "manifolds",
    "methods",
    "models",
    "optimizers",
    "probes",
    "run",
    "stack",
    "surgery",
    "task_set",
    "transitions",
]
