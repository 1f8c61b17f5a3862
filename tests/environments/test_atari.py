"""Atari games as a world: what is refused without the emulator, and against it where it is."""

import dataclasses
import importlib
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plasticity_jax as pj
from plasticity_jax.environments import acting
from plasticity_jax.environments.atari import atari
from tests.helpers import tiny

# (the name of the module is also that of its factory)
module = importlib.import_module("plasticity_jax.environments.atari")
pytestmark = pytest.mark.usefixtures("compiled_quickly")


def test_without_the_package_it_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(module, "installed", lambda: False)
    monkeypatch.setattr(module, "_AT_REST", {})
    one = tiny.spec(environment="atari", options={"dqn.replay": 200})
    said = r"^environment is 'atari', but ale-py is not installed: allowed with the extra atari, "
    with pytest.raises(ValueError, match=said):
        pj.run(one, pj.grid(seed=0))


@pytest.mark.parametrize("name", ["skip", "stack", "longest"])
def test_counts_begin_at_one(name):
    with pytest.raises(ValueError, match=rf"^atari\.{name} is 0: allowed are whole numbers from 1"):
        atari(**{name: 0})


def test_a_game_keeps_no_array_of_buttons():
    """On a GPU it would be copied back when a program is compiled, which runs forbid."""
    rules = module._Rules(("pong", "breakout"), False, 0.25, 4, 4, 0, 100, False, True)
    assert isinstance(rules.buttons, acting.Actions)
    assert jax.eval_shape(rules.buttons.__getitem__, jnp.int32(0)).dtype == jnp.int32
    assert [int(rules.buttons[i]) for i in (0, 3, 17)] == [0, 3, 17]


def test_an_image_has_the_means_of_its_areas():
    screen = np.random.default_rng(0).integers(0, 256, (210, 160)).astype(np.uint8)
    fine = screen.astype(float).repeat(2, axis=0).repeat(21, axis=1)  # 84 x 5 by 84 x 40
    wanted = fine.reshape(84, 5, 84, 40).mean((1, 3))
    found = module.smaller(screen)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, wanted, atol=0.5 + 1e-9)


@pytest.fixture
def games(monkeypatch):
    """ale-py with two games, the ROM of one of which is lacking."""
    roms = types.ModuleType("ale_py.roms")
    roms.get_all_rom_ids = lambda: ["breakout", "pong"]
    roms.get_rom_path = {"breakout": "breakout.bin"}.get
    package = types.ModuleType("ale_py")
    package.roms = roms
    monkeypatch.setitem(sys.modules, "ale_py", package)
    monkeypatch.setitem(sys.modules, "ale_py.roms", roms)
    monkeypatch.setattr(module, "installed", lambda: True)
    monkeypatch.setattr(module, "_AT_REST", {})


REFUSED = {
    "pong": "atari.game is 'pong', but ale-py has no ROM of it: allowed are games whose ROM is "
    "installed.",
    "breakout+breakot": "atari.game is 'breakot' (did you mean breakout): allowed are the games of "
    "ale-py such as breakout, or several joined by +.",
    "xyz": "atari.game is 'xyz' (there are 2): allowed are the games of ale-py such as breakout, "
    "or several joined by +.",
}


@pytest.mark.usefixtures("games")
@pytest.mark.parametrize("name", REFUSED)
def test_a_game_without_its_rom_and_one_there_is_not_are_refused(name, monkeypatch):
    monkeypatch.setattr(module, "_begun", _begun_or_there)
    with pytest.raises(ValueError) as error:
        atari(game=name).check(None, 1)
    assert str(error.value) == REFUSED[name]


def _begun_or_there(name):
    """An emulator of nothing, of a game whose ROM is there."""
    module._rom(name)
    return module._Emulator(None, b"", np.zeros((210, 160), np.uint8), (0,))


@pytest.fixture
def ale():
    return pytest.importorskip("ale_py")


def played(environment, keys, steps):
    """What random players meet from the beginning: actions, buttons and Moved, [..., steps]."""
    world = environment.world

    def alone(key):
        task = environment.task(key, None, jnp.int32(0))
        seen, state = world.reset(key, None, task)

        def one(state, key):
            of_action, own = jax.random.split(key)
            action = jax.random.randint(of_action, (), 0, world.actions(None))
            moved = world.step(own, None, task, state, action)
            return moved.state, (action, moved.state["button"], moved._replace(state=0))

        return seen, *jax.lax.scan(one, state, jax.random.split(key, steps))[1]

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(alone))(keys))


@pytest.mark.oracle
def test_a_game_is_that_of_the_emulator(ale):
    keys = jax.random.split(jax.random.key(0), 2)
    seen, action, _, moved = played(atari(game="breakout", sticky=0.0), keys, 400)
    machine = ale.ALEInterface()
    machine.setFloat("repeat_action_probability", 0.0)
    machine.loadROM(ale.roms.get_rom_path("breakout"))
    buttons = machine.getMinimalActionSet()
    for lane in range(2):
        machine.reset_game()
        np.testing.assert_array_equal(
            seen[lane, ..., 3], module.smaller(machine.getScreenGrayscale())
        )
        ends = 0
        for step in range(400):
            reward, screens = 0, []
            for _ in range(4):
                reward += machine.act(buttons[action[lane, step]])
                screens.append(machine.getScreenGrayscale())
                if machine.game_over():
                    break
            assert reward == moved.score[lane, step]
            assert np.sign(reward) == moved.reward[lane, step]
            assert machine.game_over() == moved.terminated[lane, step]
            image = np.maximum(screens[-1], screens[-2]) if len(screens) > 1 else screens[-1]
            if machine.game_over():
                ends += 1
                machine.reset_game()
                image = machine.getScreenGrayscale()
            np.testing.assert_array_equal(moved.seen[lane, step, ..., 3], module.smaller(image))
        assert ends
    assert moved.score.sum() > 0


@pytest.mark.oracle
@pytest.mark.usefixtures("ale")
def test_a_lane_is_the_same_alone_and_what_sticks_is_held():
    keys = jax.random.split(jax.random.key(3), 3)
    environment = atari(game="pong", sticky=0.5, skip=1, noops=3, longest=25)
    together = played(environment, keys, 60)
    alone = played(environment, keys[1:2], 60)
    for part, other in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_array_equal(part[1:2], other)
    _, action, button, moved = together
    np.testing.assert_array_equal(np.flatnonzero(moved.truncated[0]), [24, 49])
    assert not moved.terminated.any()
    wanted = np.array(module._known("pong")[1])[action]
    held = button[:, 1:24] != wanted[:, 1:24]
    np.testing.assert_array_equal(button[:, 1:24][held], button[:, :23][held])
    assert 0.3 < held.mean() < 0.55  # (half, but for where both are the same)


@pytest.mark.oracle
@pytest.mark.usefixtures("ale")
def test_games_that_there_are_not_are_refused_with_near_ones():
    said = r"^atari\.game is 'breakot' \(did you mean breakout.*\): allowed are the games of ale-py"
    with pytest.raises(ValueError, match=said):
        atari(game="breakot").check(None, 1)


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.usefixtures("ale")
def test_an_agent_plays_two_games_in_turn_and_goes_on_to_the_bit(tmp_path):
    options = {"atari.game": "breakout+pong", "dqn.replay": 200, "dqn.evaluate": 40}
    one = tiny.spec(environment="atari", phase_steps=240, optimizer="adam", options=options)
    grid = pj.grid(seed=range(2), learning_rate=1e-3)
    whole = pj.run(one, grid)
    pj.run(dataclasses.replace(one, tasks=1), grid, tmp_path)
    again = pj.run(one, grid, tmp_path)
    for name in ("reward_rate", "online_loss", "q"):
        np.testing.assert_array_equal(whole[name], again[name], err_msg=name)
