"""How a lane begins from the trained state of another one."""

import jax

from plasticity_jax import lanes, registry
from plasticity_jax.precision import in_float32
from plasticity_jax.spec import Spec
from plasticity_jax.stream import keys
from plasticity_jax.surgery import SURGERIES
from plasticity_jax.training import network
from plasticity_jax.training import step as step_
from plasticity_jax.types import Data, Lane, TrainState


@in_float32
def begun(spec: Spec, lane: Lane, state: TrainState, data: Data) -> TrainState:
    """Returns the state in which a lane begins, from the state in which another one ended.

    First the optimizer starts afresh, if the Spec says so, then the Spec's surgery operates. The
    initial parameters stay those of the other lane.
    """
    lane = lanes.arrays(spec, lane)
    if spec.start_optimizer == "fresh":
        net = network.network(spec, spec.make_environment(lane), data)
        optimizer = step_.optimizer(spec, lane, net.structure)
        state = state._replace(opt=optimizer.init(state.params))
    settings = {**dict(spec.options), **lane}
    surgery = registry.make(SURGERIES, "surgery", spec.surgery, settings)
    key = keys.role(jax.random.key(lane["seed"]), keys.SURGERY)
    return surgery.operate(key, state)
