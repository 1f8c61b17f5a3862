"""Atari games of the Arcade Learning Environment (extra `atari`), as a world like any other.

The emulator runs outside of the compiled program, but remembers nothing from step to step: its
whole state is an array of the world, from which each step starts. So a step is a pure function,
lanes and copies of the world go side by side, and a run goes on to the bit. The package, under the
GPL, is imported when a game is first played; everything else does without it.
"""

import contextlib
import difflib
import functools
import importlib
import importlib.util
import threading
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import registry
from plasticity_jax.environments import acting
from plasticity_jax.types import Array, Data, Environment, Key, Moved, PyTree, Share, World

SIDE = 84  # pixels of an image that an agent sees
ALL = 18  # actions


@registry.checked
def atari(
    *,
    game: str = "breakout",
    sticky: Share = 0.25,
    skip: int = 4,
    stack: int = 4,
    noops: int = 0,
    longest: int = 27_000,
    minimal: bool = True,
    lives: bool = False,
    clip: bool = True,
) -> Environment:
    """Atari: a game of the Arcade Learning Environment is played for its score.

    `game` is one, or a sequence joined by +, one game a phase and then again from the first. An
    action is held for `skip` frames, and in each frame the button before is held on instead with
    probability `sticky`; what is seen are the last `stack` images of 84x84 gray pixels, each the
    larger of the last two frames. An episode begins with up to `noops` steps without a button and
    is cut after `longest` steps. With `minimal` a game alone has its own buttons, else all 18;
    `lives` ends episodes with a life. `clip` makes rewards -1, 0 or 1 for learning; returns are
    scores. Source: Bellemare et al. 2013; Machado et al. 2018, whose `sticky` and end of an episode
    are the defaults; Mnih et al. 2015 for the images. Raises ValueError for counts below 1 (noops:
    0); its functions and `check` if ale-py is not installed or has no such game.
    """
    for name, value in (("skip", skip), ("stack", stack), ("longest", longest)):
        registry.whole(f"atari.{name}", value, 1)
    registry.whole("atari.noops", noops, 0)
    names = game.split("+")
    alone = len(names) == 1

    rules = _Rules(
        tuple(names), alone and minimal, sticky, skip, stack, noops, longest, lives, clip
    )

    def task(key: Key, data: Data, t: Array) -> Array:
        del key, data
        return jnp.asarray(t, jnp.int32) % len(names)

    def check(data: Data | None = None, tasks: int = 1) -> None:
        del data, tasks
        for name in names:
            _known(name)

    world = World(
        functools.partial(_reset, rules),
        functools.partial(_step, rules),
        _view,
        actions=lambda data: len(rules.buttons),
    )
    return acting.environment(world, task)._replace(data="nothing", check=check)


class _Rules(NamedTuple):
    """How games are played: `atari`'s settings."""

    names: tuple[str, ...]
    minimal: bool
    sticky: Any
    skip: int
    stack: int
    noops: int
    longest: int
    lives: bool
    clip: bool

    @property
    def buttons(self) -> acting.Actions:
        """The button of each action."""
        return acting.Actions(_known(self.names[0])[1] if self.minimal else range(ALL))


def _call(rules: _Rules, key: Key, task: PyTree, state: Array, held: Array, ends: Any) -> "_Frames":
    """What a callback gives; `held` are the buttons of each frame; where the game is over or
    `ends` is 1 a new one begins, which at -1 is all.
    """
    shapes = _Frames(
        jax.ShapeDtypeStruct(state.shape, np.uint8),
        jax.ShapeDtypeStruct((SIDE, SIDE), np.uint8),
        jax.ShapeDtypeStruct((), np.float32),
        jax.ShapeDtypeStruct((), np.bool_),
        jax.ShapeDtypeStruct((), np.int32),
    )
    empty = jax.random.randint(key, (), 0, rules.noops + 1)
    numbers = jnp.stack([jnp.asarray(task), jnp.asarray(ends, jnp.int32), empty])
    play = functools.partial(_played, rules.names, rules.skip)
    return jax.pure_callback(play, shapes, numbers, state, held, vmap_method="broadcast_all")


def _first(rules: _Rules, found: "_Frames") -> PyTree:
    """The state at the beginning of an episode."""
    seen = jnp.broadcast_to(found.image[..., None], (SIDE, SIDE, rules.stack))
    state = {"game": found.state, "button": jnp.int32(0), "lives": found.lives}
    return {**state, "seen": seen, "steps": jnp.int32(0)}


def _reset(rules: _Rules, key: Key, data: Data, task: PyTree) -> tuple[Array, PyTree]:
    del data
    size = max(_known(name)[0] for name in rules.names)
    nothing = jnp.zeros(size, jnp.uint8), jnp.zeros(rules.skip, jnp.int32)
    state = _first(rules, _call(rules, key, task, *nothing, -1))
    return state["seen"], state


def _step(rules: _Rules, key: Key, data: Data, task: PyTree, state: PyTree, action: Array) -> Moved:
    del data
    chance, again = jax.random.split(key)
    wanted = rules.buttons[action]
    held, button = [], state["button"]
    for on in jax.random.uniform(chance, (rules.skip,)) < rules.sticky:
        button = jnp.where(on, button, wanted)
        held.append(button)
    steps = state["steps"] + 1
    last = steps >= rules.longest
    found = _call(rules, again, task, state["game"], jnp.stack(held), last)
    # (a game goes on where only a life is lost; a new one has all of them)
    ended = found.over | (rules.lives & ~last & (found.lives < state["lives"]))
    seen = jnp.concatenate([state["seen"][..., 1:], found.image[..., None]], axis=-1)
    moved = {"game": found.state, "button": button, "lives": found.lives}
    moved |= {"seen": seen, "steps": steps}
    anew = found.over | last
    renewed = jax.tree.map(lambda a, b: jnp.where(anew, a, b), _first(rules, found), moved)
    reward = jnp.sign(found.reward) if rules.clip else found.reward
    cut = last & ~found.over
    return Moved(renewed["seen"], renewed, reward, ended, cut, score=found.reward)


def _view(data: Data, seen: Array) -> Array:
    del data
    return seen.astype(jnp.float32) / 255


class _Frames(NamedTuple):
    """What some frames of a game give: the emulator's state, an image, what was scored, whether the
    game is over, lives left.
    """

    state: Any
    image: Any
    reward: Any
    over: Any
    lives: Any


class _Emulator(NamedTuple):
    """A game ready to be played by one thread.

    Attributes:
      start: its state at the beginning of an episode, as bytes, of which each state has as many.
      screen: what is seen there.
      buttons: that do something in it.
    """

    machine: Any
    start: bytes
    screen: np.ndarray
    buttons: tuple[int, ...]


def installed() -> bool:
    """Returns whether the emulator is there."""
    return importlib.util.find_spec("ale_py") is not None


# emulators at rest by game: one is played by one thread at a time (and a callback has no thread of
# its own that lasts)
_AT_REST: dict[str, list[_Emulator]] = {}
_LOCK = threading.Lock()


@contextlib.contextmanager
def _taken(name: str) -> Iterator[_Emulator]:
    """An emulator of a game that nobody else has meanwhile. Raises ValueError if there is none."""
    with _LOCK:
        waiting = _AT_REST.setdefault(name, [])
        emulator = waiting.pop() if waiting else None
    emulator = _begun(name) if emulator is None else emulator
    try:
        yield emulator
    finally:
        with _LOCK:
            waiting.append(emulator)


def _known(name: str) -> tuple[int, tuple[int, ...]]:
    """Bytes of a game's states, and its buttons. Raises ValueError if there is no such game."""
    with _taken(name) as emulator:
        return len(emulator.start), emulator.buttons


def _begun(name: str) -> _Emulator:
    if not installed():
        raise ValueError(
            "environment is 'atari', but ale-py is not installed: allowed with the extra atari, "
            'pip install -e ".[atari]".'
        )
    ale = importlib.import_module("ale_py")
    path = _rom(name)
    ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)
    machine = ale.ALEInterface()
    machine.setFloat("repeat_action_probability", 0.0)  # (what sticks is drawn with our keys)
    machine.setInt("random_seed", 0)
    machine.loadROM(path)
    machine.reset_game()
    buttons = tuple(int(action.value) for action in machine.getMinimalActionSet())
    return _Emulator(machine, _state(machine), machine.getScreenGrayscale(), buttons)


def _rom(name: str) -> Any:
    """The path of a game's ROM."""
    roms = importlib.import_module("ale_py.roms")
    games = roms.get_all_rom_ids()
    if name not in games:
        near = difflib.get_close_matches(name, games, n=3)
        meant = f"did you mean {', '.join(near)}" if near else f"there are {len(games)}"
        raise ValueError(
            f"atari.game is {registry.shown(name)} ({meant}): allowed are the games of ale-py such "
            "as breakout, or several joined by +."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = roms.get_rom_path(name)
    if path is None:
        raise ValueError(
            f"atari.game is {name!r}, but ale-py has no ROM of it: allowed are games whose ROM is "
            "installed."
        )
    return path


def _state(machine: Any) -> bytes:
    # (without the emulator's own generator, which nothing here draws from)
    return machine.cloneState(include_rng=False).__getstate__()


def _restore(machine: Any, state: bytes) -> None:
    kind = importlib.import_module("ale_py").ALEState
    made = kind.__new__(kind)
    made.__setstate__(state)
    machine.restoreState(made)


def _played(names: tuple[str, ...], skip: int, *arrays: Any) -> _Frames:
    """Some frames of each of several games: `arrays` are [..., 3] which game, how it ends and
    empty steps of a new one, its state [..., size], buttons [..., skip].
    """
    numbers, state, held = map(np.asarray, arrays)
    shape, size = numbers.shape[:-1], state.shape[-1]
    rows = zip(numbers.reshape(-1, 3), state.reshape(-1, size), held.reshape(-1, skip), strict=True)
    each = []
    for (number, ends, empty), one, buttons in rows:
        with _taken(names[number]) as emulator:
            each.append(_frames(emulator, one, buttons, (int(ends), int(empty) * skip)))
    parts = [np.stack(part) for part in zip(*each, strict=True)]
    return _Frames(*(part.reshape(*shape, *part.shape[1:]) for part in parts))


def _frames(emulator: _Emulator, state: Any, held: Any, how: tuple[int, int]) -> _Frames:
    """Frames of one game, then, where it ends, the beginning of another; `how` is when that is (1:
    now, 0: if it is over, -1: before any frame), and its empty frames.
    """
    machine, (ends, empty) = emulator.machine, how
    action = type(machine.getMinimalActionSet()[0])
    reward, over, screens = 0.0, False, []
    if ends >= 0:
        _restore(machine, state[: len(emulator.start)].tobytes())
        for button in held:
            reward += machine.act(action(int(button)))
            screens.append(machine.getScreenGrayscale())
            if over := machine.game_over():
                break
    if ends or over:
        _restore(machine, emulator.start)
        screens = [emulator.screen]
        for _ in range(empty):
            machine.act(action(0))
            screens.append(machine.getScreenGrayscale())
    image = np.maximum(screens[-1], screens[-2]) if len(screens) > 1 else screens[-1]
    kept = np.zeros(len(state), np.uint8)
    kept[: len(emulator.start)] = np.frombuffer(_state(machine), np.uint8)
    lives = np.int32(machine.lives())
    return _Frames(kept, smaller(image), np.float32(reward), np.bool_(over), lives)


def smaller(screen: np.ndarray) -> np.ndarray:
    """Returns a screen [210, 160] as an image [84, 84] uint8: means over areas, rounded."""
    # (no products of matrices: their library's threads would wait for each other here)
    return np.rint(_means(_means(screen.astype(np.float64)).T).T).astype(np.uint8)


def _means(rows: np.ndarray) -> np.ndarray:
    """Means [84, ...] over as many equal areas of [size, ...], of differences of integrals."""
    size = len(rows)
    edges = np.arange(SIDE + 1) * size / SIDE
    whole = np.minimum(edges.astype(int), size - 1)
    before = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    upto = before[whole] + (edges - whole)[:, None] * rows[whole]
    return np.diff(upto, axis=0) * (SIDE / size)
