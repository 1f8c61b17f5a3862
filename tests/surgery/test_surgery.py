import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from plasticity_jax import lanes, surgery
from plasticity_jax.spec import Spec
from plasticity_jax.training import beginning
from plasticity_jax.training.supervised import make_run
from plasticity_jax.types import Recipient, TrainState

NOWHERE = Recipient(None, lambda: pytest.fail("of no use where sizes stay"))


@pytest.fixture(scope="module")
def state() -> TrainState:
    random = np.random.default_rng(0)
    params = {
        "kernel": jnp.asarray(random.normal(3, 2, (200, 100)), jnp.float32),
        "small": jnp.asarray(random.normal(0, 1e-3, (100, 100)), jnp.float32),
        "bias": jnp.full(50, 0.7),
        "zero": jnp.asarray([-0.0, 0.0]),
    }
    return TrainState(params, {"mean": jnp.ones(3)}, params, {"count": jnp.int32(4)})


def operated(state, scale, seed=0):
    return surgery.perturb(scale=scale).operate(jax.random.key(seed), state, NOWHERE)


@pytest.mark.long
def test_noise_is_as_large_as_a_tensors_own_deviation(state):
    moved = operated(state, 0.5)
    for name, size in (("kernel", 2.0), ("small", 1e-3)):
        noise = np.asarray(moved.params[name] - state.params[name])
        assert noise.std() == pytest.approx(0.5 * size, rel=0.03)
        assert abs(noise.mean()) < 0.02 * size
    again, other = operated(state, 0.5), operated(state, 0.5, seed=1)
    assert jnp.array_equal(moved.params["kernel"], again.params["kernel"])
    assert not jnp.array_equal(moved.params["kernel"], other.params["kernel"])


@pytest.mark.long
def test_what_is_no_parameter_and_what_does_not_vary_is_left_alone(state):
    moved = operated(state, 0.5)
    assert moved._replace(params=None) == state._replace(params=None)
    for name in ("bias", "zero"):
        assert np.asarray(moved.params[name]).tobytes() == np.asarray(state.params[name]).tobytes()


@pytest.mark.parametrize("name", ["none", "perturb"])
def test_no_noise_and_no_surgery_change_no_bit(state, name):
    factory = surgery.SURGERIES[name]
    made = factory(scale=0.0) if name == "perturb" else factory()
    after = jax.jit(lambda key, state: made.operate(key, state, NOWHERE))(jax.random.key(0), state)
    for left, right in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()
    assert made.model("a model") == "a model"


@pytest.mark.long
def test_an_optimizer_that_starts_afresh_knows_nothing_of_the_start():
    spec = tiny.spec(optimizer="adam", start_optimizer="fresh")
    lane = lanes.complete(spec, {"seed": 0})
    data = jax.tree.map(jnp.asarray, tiny.data())
    trained = make_run(spec).init(lane, data)
    fresh = beginning.begun(spec, lane, trained._replace(opt={"of": "another optimizer"}), data)
    for left, right in zip(jax.tree.leaves(fresh), jax.tree.leaves(trained), strict=True):
        assert jnp.array_equal(left, right)


def test_settings_are_refused_in_one_sentence():
    with pytest.raises(
        ValueError, match=r"^unknown surgery 'x': known are none, perturb, clone\.$"
    ):
        Spec(surgery="x")
    with pytest.raises(
        ValueError, match=r"^start_optimizer is 'x': allowed are 'kept', 'fresh'\.$"
    ):
        Spec(start_optimizer="x")
    with pytest.raises(ValueError, match="first_task is 1, but the learning rate changes over"):
        Spec(first_task=1, schedule="cosine", options={"cosine.over": "run"})
    with pytest.raises(ValueError, match=r"perturb\.scale is -1\.0: allowed is 0 or more"):
        lanes.check(Spec(surgery="perturb"), [{"perturb.scale": -1.0}], 640)
