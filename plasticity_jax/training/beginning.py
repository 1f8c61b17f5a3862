"""How a lane begins from the trained state of another one."""

import jax

from plasticity_jax import lanes, registry
from plasticity_jax.precision import in_float32
from plasticity_jax.spec import Spec
from plasticity_jax.stream import keys
from plasticity_jax.surgery import SURGERIES
from plasticity_jax.training import acting, network
from plasticity_jax.training import step as step_
from plasticity_jax.types import AgentState, Data, Lane, PyTree, Recipient, TrainState


@in_float32
def begun(
    spec: Spec, lane: Lane, state: TrainState | AgentState, data: Data
) -> TrainState | AgentState:
    """Returns the state in which a lane begins, from the state in which another one ended.

    First the optimizer starts afresh, if the Spec says so, then the Spec's surgery operates; where
    that changes sizes, the optimizer starts afresh with the parameters that it gives. The initial
    parameters stay those of the other lane. An agent remembers nothing of it.
    """
    train = state.train if isinstance(state, AgentState) else state
    train = _begun(spec, lane, train, data)
    return acting.with_network(acting.init(spec, lane, data), train) if spec.acts else train


def _begun(spec: Spec, lane: Lane, state: TrainState, data: Data) -> TrainState:
    lane = lanes.arrays(spec, lane)
    environment = spec.make_environment(lane)
    net = network.network(spec, environment, data)
    optimizer = step_.optimizer(spec, lane, net.structure)

    def drawn() -> TrainState:
        variables = net.init(jax.random.key(0))
        params = variables.pop("params")
        return TrainState(params, variables, params, optimizer.init(params))

    settings = {**dict(spec.options), **lane}
    surgery = registry.make(SURGERIES, "surgery", spec.surgery, settings)
    model = spec.make_model(environment.outputs(data))
    into = Recipient(model, lambda: jax.eval_shape(drawn))
    key = keys.role(jax.random.key(lane["seed"]), keys.SURGERY)
    if spec.start_optimizer != "fresh":
        return surgery.operate(key, state, into)
    after = surgery.operate(key, state._replace(opt=()), into)
    params = state.params if _shapes(after.params) == _shapes(state.params) else after.params
    return after._replace(opt=optimizer.init(params))


def _shapes(params: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: str(leaf.shape), params)
