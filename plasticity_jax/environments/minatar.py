"""MinAtar: five small games, of the package gymnax (extra `rl`), as worlds in which an agent acts.

The package is imported when a world is first used, so that everything else does without it.
"""

import difflib
import functools
import importlib
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import registry
from plasticity_jax.environments import acting
from plasticity_jax.types import Array, Data, Environment, Key, Moved, PyTree, Share, World

# name -> (as gymnax has it, channels of an image, actions that do something)
GAMES = {
    "breakout": ("Breakout-MinAtar", 4, 3),
    "asterix": ("Asterix-MinAtar", 4, 5),
    "freeway": ("Freeway-MinAtar", 7, 3),
    "seaquest": ("Seaquest-MinAtar", 10, 6),
    "space_invaders": ("SpaceInvaders-MinAtar", 6, 4),
}
ALL = 6  # actions: none, left, up, right, down, fire
SIDE = 10  # cells
WORD = 32  # bits


@registry.checked
def minatar(
    *,
    game: str = "breakout",
    permute: bool = False,
    sticky: Share = 0.1,
    ramping: bool = True,
) -> Environment:
    """MinAtar: a game of 10x10 cells is played, an image of some channels, for its score.

    `game` is breakout, asterix, freeway, seaquest or space_invaders, the same in every phase, or a
    sequence joined by +, one game a phase and then again from the first. A game alone has the
    actions that do something in it; in a sequence there are all six, and images have the channels
    of the game that has most, the rest empty. `permute` draws an order of channels and of actions
    for each phase. With probability `sticky` the action before is taken instead of the one chosen.
    `ramping` makes a game harder the longer an episode lasts, where it knows that. Episodes are cut
    after 1,000 steps (freeway 2,500). Source: Young & Tian 2019, as gymnax has it (Lange 2022).
    Deviation: after the end of an episode the action before is none. Raises ValueError for a game
    that there is not; its functions and `check` if gymnax is not installed.
    """
    names = _games(game)
    alone = len(names) == 1
    channels = max(GAMES[name][1] for name in names)
    actions = GAMES[names[0]][2] if alone else ALL

    def task(key: Key, data: Data, t: Array) -> PyTree:
        del data
        orders = jnp.arange(channels), jnp.arange(actions)
        if permute:
            own = jax.random.split(jax.random.fold_in(key, t))
            orders = tuple(map(jax.random.permutation, own, orders))
        return {"game": jnp.asarray(t) % len(names), "channels": orders[0], "actions": orders[1]}

    def made() -> list["_Game"]:
        return [_Game(name, alone, bool(ramping)) for name in names]

    def shown(image: Array, task: PyTree) -> Array:
        missing = channels - image.shape[-1]
        whole = jnp.pad(image, ((0, 0), (0, 0), (0, missing)))
        return packed(whole[:, :, task["channels"]].astype(bool))

    def reset(key: Key, data: Data, task: PyTree) -> tuple[Array, PyTree]:
        del data
        each = [one.reset(key) for one in made()]
        image = jax.lax.switch(
            task["game"],
            [lambda each, i=i: shown(each[i][0], task) for i in range(len(each))],
            each,
        )
        return image, {"games": tuple(state for _, state in each), "action": jnp.int32(0)}

    def step(key: Key, data: Data, task: PyTree, state: PyTree, action: Array) -> Moved:
        del data
        chance, own = jax.random.split(key)
        again = jax.random.uniform(chance) < sticky
        action = jnp.where(again, state["action"], task["actions"][action]).astype(jnp.int32)

        def of(number: int, one: "_Game"):
            def play(games: tuple[PyTree, ...]) -> tuple[PyTree, ...]:
                image, moved, *rest = one.step(own, games[number], action)
                return shown(image, task), (*games[:number], moved, *games[number + 1 :]), *rest

            return play

        plays = [of(number, one) for number, one in enumerate(made())]
        image, games, reward, ended, cut = jax.lax.switch(task["game"], plays, state["games"])
        kept = jnp.where(ended | cut, 0, action)
        return Moved(image, {"games": games, "action": kept}, reward, ended, cut & ~ended)

    view = functools.partial(_view, channels)
    world = World(reset, step, view, actions=lambda data: actions)
    return acting.environment(world, task)._replace(data="nothing", check=_check)


def _view(channels: int, data: Data, seen: Array) -> Array:
    del data
    return unpacked(seen, channels).astype(jnp.float32)


def packed(image: Array) -> Array:
    """Returns [10, 10, channels] bool as uint32, 32 cells a word: what an agent remembers of it, an
    eighth of the memory of bytes and of what a draw reads.
    """
    cells = image.reshape(-1)
    rows = jnp.pad(cells, (0, -len(cells) % WORD)).reshape(-1, WORD)
    bits = jnp.arange(WORD, dtype=jnp.uint32)[None]
    return (rows.astype(jnp.uint32) << bits).sum(axis=1, dtype=jnp.uint32)


def unpacked(seen: Array, channels: int) -> Array:
    """Returns images [..., 10, 10, channels] uint32, 0 or 1, of what `packed` made of each."""
    places = jnp.arange(WORD, dtype=jnp.uint32).reshape((1,) * seen.ndim + (WORD,))
    bits = (seen[..., None] >> places) & 1
    cells = bits.reshape(*seen.shape[:-1], -1)[..., : SIDE * SIDE * channels]
    return cells.reshape(*seen.shape[:-1], SIDE, SIDE, channels)


def _games(game: str) -> list[str]:
    """The names of a game or of a sequence of games."""
    names = game.split("+")
    for name in names:
        if name in GAMES:
            continue
        near = difflib.get_close_matches(name, GAMES, n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(
            f"minatar.game is {registry.shown(game)}{meant}: allowed are {', '.join(GAMES)}, or "
            "several joined by +."
        )
    return names


def installed() -> bool:
    """Returns whether the games are there to be played."""
    return importlib.util.find_spec("gymnax") is not None


def _check(data: Data | None = None, tasks: int = 1) -> None:
    del data, tasks
    if not installed():
        raise ValueError(
            "environment is 'minatar', but gymnax is not installed: allowed with the extra rl, "
            'pip install -e ".[rl]".'
        )


@functools.cache
def _gymnax(name: str, minimal: bool) -> tuple[Any, Any]:
    """A game and its settings."""
    _check()
    make = importlib.import_module("gymnax").make
    with jax.ensure_compile_time_eval(), jax.transfer_guard("allow"):
        game, parameters = make(GAMES[name][0], use_minimal_action_set=minimal)
        # (it keeps an array, which must neither be a trace's nor a device's)
        game.action_set = acting.Actions(np.asarray(game.action_set).tolist())
    return game, parameters


class _Game:
    """One game as pure functions, with states of the same types before and after a step."""

    def __init__(self, name: str, minimal: bool, ramping: bool):
        self.game, parameters = _gymnax(name, minimal)
        known = hasattr(parameters, "ramping")
        self.parameters = parameters.replace(ramping=ramping) if known else parameters
        self.ramping = ramping

    def reset(self, key: Key) -> tuple[Array, PyTree]:
        image, state = self.game.reset(key, self.parameters)
        return image, jax.tree.map(jnp.asarray, self._ramped(state))

    def step(self, key: Key, state: PyTree, action: Array) -> tuple[Array, ...]:
        """(image, state, reward, terminated, truncated), of a new episode where one ended."""
        image, moved, reward, ended, cut, _ = self.game.step(key, state, action, self.parameters)
        same = jax.tree.map(lambda new, old: new.astype(old.dtype), self._ramped(moved), state)
        return image, same, reward, ended.astype(bool), cut.astype(bool)

    def _ramped(self, state: PyTree) -> PyTree:
        """A state of a game that has it among its own (space_invaders) with `ramping` as wanted."""
        if not hasattr(state, "ramping"):
            return state
        return state.replace(ramping=jnp.asarray(self.ramping))
