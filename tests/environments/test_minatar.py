"""MinAtar's games as worlds: with a small game in their place, and with gymnax where it is."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plasticity_jax as pj
from plasticity_jax.environments.minatar import minatar
from tests.helpers import tiny

# (the name of the module is also that of its factory)
module = importlib.import_module("plasticity_jax.environments.minatar")
pytestmark = pytest.mark.usefixtures("compiled_quickly")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Steps, the last action and how steep it is."""

    time: jax.Array
    action: jax.Array
    ramping: jax.Array

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)


class Counting:
    """A game whose image shows in its channels the time, the last action and nothing; it ends by
    itself after `length` steps, or is cut after `most`. The reward is the action.
    """

    def __init__(self, channels, length, most=1000):
        self.channels, self.length, self.most = channels, length, most

    def image(self, state):
        shown = jnp.arange(100).reshape(10, 10)
        parts = [shown == state.time, shown == state.action]
        empty = [jnp.zeros((10, 10), bool)] * (self.channels - 2)
        return jnp.stack([*parts, *empty], axis=-1).astype(jnp.float32)

    def reset(self, key, parameters):
        state = State(jnp.int32(0), jnp.int32(0), jnp.bool_(True))
        return self.image(state), state

    def step(self, key, state, action, parameters):
        moved = state.replace(time=state.time + 1, action=action)
        ended, cut = moved.time >= self.length, moved.time >= self.most
        first = self.reset(key, parameters)
        shown, kept = jax.tree.map(
            lambda new, old: jnp.where(ended | cut, new, old), first, (self.image(moved), moved)
        )
        return shown, kept, action.astype(jnp.float32), ended, cut, {}


LENGTH = {"breakout": 7, "asterix": 50, "seaquest": 9}


@pytest.fixture
def counting(monkeypatch):
    def made(name, minimal):
        game = Counting(module.GAMES[name][1], LENGTH[name], most=20)
        return game, State(jnp.int32(0), jnp.int32(0), jnp.bool_(False))

    monkeypatch.setattr(module, "_gymnax", made)
    monkeypatch.setattr(module, "installed", lambda: True)


def played(environment, phase, steps, seed=0, action=None):
    """What a random player, or one of one action, meets: actions and Moved, [steps, ...], of
    images as a network reads them.
    """
    world, key = environment.world, jax.random.key(seed)
    task = environment.task(key, None, jnp.int32(phase))
    count = world.actions(None)

    def one(state, key):
        of_action, own = jax.random.split(key)
        chosen = jax.random.randint(of_action, (), 0, count) if action is None else action
        moved = world.step(own, None, task, state, jnp.int32(chosen))
        return moved.state, (jnp.int32(chosen), moved._replace(state=0))

    def whole():
        seen, state = world.reset(key, None, task)
        chosen, moved = jax.lax.scan(one, state, jax.random.split(key, steps))[1]
        return (
            world.view(None, seen),
            task,
            chosen,
            moved._replace(seen=world.view(None, moved.seen)),
        )

    return jax.tree.map(np.asarray, jax.jit(whole)())


@pytest.mark.usefixtures("counting")
@pytest.mark.long
def test_a_sequence_has_a_game_a_phase_and_then_again_the_first():
    environment = minatar(game="breakout+seaquest", sticky=0.0)
    assert environment.world.actions(None) == 6
    for phase, length in enumerate((7, 9, 7)):
        seen, _, action, moved = played(environment, phase, 40)
        assert seen.shape == (10, 10, 10)  # (channels of seaquest)
        np.testing.assert_array_equal(moved.reward, action)
        ends = np.arange(1, 41) % length == 0
        np.testing.assert_array_equal(moved.terminated, ends)
        assert not moved.truncated.any()
        time = moved.seen[..., 0].reshape(40, -1).argmax(-1)
        np.testing.assert_array_equal(time, np.arange(1, 41) % length)


@pytest.mark.parametrize("channels", [4, 7, 10])
def test_an_image_is_remembered_in_bits(channels):
    images = np.random.default_rng(0).random((5, 10, 10, channels)) < 0.3
    seen = jax.vmap(module.packed)(jnp.asarray(images))
    assert (seen.shape, seen.dtype) == ((5, -(-100 * channels // 32)), jnp.uint32)
    rows = np.pad(images.reshape(5, -1), ((0, 0), (0, -100 * channels % 32)))
    words = np.packbits(rows, axis=1, bitorder="little").view("<u4")
    np.testing.assert_array_equal(words, seen)
    np.testing.assert_array_equal(module.unpacked(seen, channels), images)


@pytest.mark.usefixtures("counting")
def test_an_episode_that_is_cut_is_told_from_one_that_ends():
    _, _, _, moved = played(minatar(game="asterix"), 0, 45)
    assert not moved.terminated.any()
    np.testing.assert_array_equal(np.flatnonzero(moved.truncated), [19, 39])


@pytest.mark.usefixtures("counting")
@pytest.mark.long
def test_channels_and_actions_are_permuted_in_each_phase():
    environment = minatar(game="seaquest", permute=True, sticky=0.0)
    orders = []
    for phase in range(3):
        _, task, action, moved = played(environment, phase, 30)
        np.testing.assert_array_equal(moved.reward, task["actions"][action])
        place = int(np.flatnonzero(task["channels"] == 0)[0])  # of the channel of time
        time = moved.seen[..., place].reshape(30, -1).argmax(-1)
        np.testing.assert_array_equal(time, np.arange(1, 31) % 9)
        orders.append((*task["channels"], *task["actions"]))
    assert len(set(orders)) == 3
    assert sorted(orders[0][:10]) == list(range(10))


@pytest.mark.usefixtures("counting")
def test_with_some_probability_the_action_before_is_taken():
    _, _, action, moved = played(minatar(game="asterix", sticky=0.25), 0, 4000)
    before = np.where(np.arange(4000) % 20 == 0, 0, np.roll(moved.reward, 1))
    differs = moved.reward != action
    np.testing.assert_array_equal(moved.reward[differs], before[differs])
    # (of 5 actions the one before would be another in four of five cases)
    np.testing.assert_allclose(differs.mean(), 0.25 * 0.8, atol=0.02)


def test_games_that_there_are_not_are_refused_with_near_ones():
    with pytest.raises(ValueError, match=r"'breakot' \(did you mean breakout\?\): allowed are br"):
        minatar(game="breakot")
    with pytest.raises(ValueError, match=r"^minatar\.game is 'breakout\+': allowed are breakout,"):
        minatar(game="breakout+")


def test_without_the_package_it_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(module, "installed", lambda: False)
    module._gymnax.cache_clear()
    one = tiny.spec(environment="minatar", options={"dqn.replay": 200})
    said = r"^environment is 'minatar', but gymnax is not installed: allowed with the extra rl, "
    with pytest.raises(ValueError, match=said):
        pj.run(one, pj.grid(seed=0))
    with pytest.raises(ValueError, match=said):
        module._gymnax("breakout", True)


@pytest.fixture
def gymnax():
    return pytest.importorskip("gymnax")


@pytest.mark.oracle
@pytest.mark.usefixtures("gymnax")
@pytest.mark.parametrize("name", module.GAMES)
def test_every_game_is_played(name):
    seen, _, _, moved = played(minatar(game=name), 0, 300)
    assert seen.shape == (10, 10, module.GAMES[name][1])
    assert seen.any()
    over = moved.terminated | moved.truncated
    assert over.any() or name == "freeway"
    np.testing.assert_array_equal(moved.seen[np.flatnonzero(over)].any((1, 2, 3)), True)


@pytest.mark.oracle
@pytest.mark.usefixtures("gymnax")
@pytest.mark.parametrize("name", module.GAMES)
def test_a_game_keeps_no_array_of_actions(name):
    """On a GPU it would be copied back when a program is compiled, which runs forbid."""
    for minimal in (False, True):
        actions = module._gymnax(name, minimal)[0].action_set
        assert not isinstance(actions, jax.Array)
        numbers = [int(jax.jit(lambda i, of=actions: of[i])(i)) for i in range(len(actions))]
        assert numbers == list(actions)
        assert len(actions) == (module.GAMES[name][2] if minimal else module.ALL)


@pytest.mark.oracle
@pytest.mark.usefixtures("gymnax")
def test_breakout_is_that_of_minatar():
    breakout = pytest.importorskip("minatar.environments.breakout")
    seen, _, action, moved = played(minatar(sticky=0.0), 0, 2000)
    theirs = breakout.Env(ramping=False)

    def begin(image):
        theirs.reset()
        left = bool(image[3, 0, 1])
        theirs.ball_start, theirs.ball_x = (0, 0) if left else (1, 9)
        theirs.last_x = theirs.ball_x
        theirs.ball_dir = 2 if left else 3
        np.testing.assert_array_equal(theirs.state(), image)

    begin(seen)
    for step in range(2000):
        reward, ended = theirs.act((0, 1, 3)[action[step]])  # none, left, right
        assert reward == moved.reward[step]
        assert ended == moved.terminated[step]
        if ended or moved.truncated[step]:
            begin(moved.seen[step])
        np.testing.assert_array_equal(theirs.state(), moved.seen[step])
    assert moved.reward.sum() > 20


@pytest.mark.oracle
@pytest.mark.usefixtures("gymnax")
def test_an_agent_plays_two_games_in_turn_and_goes_on_to_the_bit(tmp_path):
    options = {"minatar.game": "breakout+asterix", "dqn.replay": 400, "dqn.evaluate": 200}
    one = tiny.spec(environment="minatar", phase_steps=600, optimizer="adam", options=options)
    grid = pj.grid(seed=range(2), learning_rate=1e-3)
    whole = pj.run(one, grid)
    pj.run(dataclasses.replace(one, tasks=1), grid, tmp_path)
    again = pj.run(one, grid, tmp_path)
    assert (whole["episodes"] > 3).all()
    for name in ("episode_return", "online_loss", "q", "greedy_return"):
        np.testing.assert_array_equal(whole[name], again[name], err_msg=name)
