"""The rival of an agent: DQN in PyTorch on MinAtar's own Python games, step by step, as CleanRL's
is written.
"""

import itertools
import random

import minatar
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks import torch_loop
from benchmarks.worker import Go

EVERY, BATCH, TARGET, GAMMA, EPSILON = 4, 32, 250, 0.99, 0.05


def training(steps: int, rows: int, depth: int = 2, width: int = 128) -> Go:
    """Plays Breakout for `steps` frames a call and learns from 32 remembered ones after every
    fourth. Work: frames.

    In its favour: exploration does not fall, nothing is logged, nothing is evaluated.
    """
    torch_loop.device()
    game = minatar.Environment("breakout", sticky_action_prob=0.1)
    actions, shape = game.minimal_action_set(), game.state_shape()
    net, target = (_network(int(np.prod(shape)), len(actions), depth, width) for _ in range(2))
    target.load_state_dict(net.state_dict())
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-4, fused=True)
    memory = _Memory(rows, shape)
    game.reset()
    seen, done, updates = game.state(), 0, 0

    def acted():
        nonlocal seen, done
        if random.random() < EPSILON:
            action = random.randrange(len(actions))
        else:
            with torch.no_grad():
                action = int(net(torch.from_numpy(seen).float()[None]).argmax())
        reward, ended = game.act(actions[action])
        after = game.state()
        memory.push(done, seen, after, (action, reward, ended))
        if ended:
            game.reset()
        seen, done = game.state() if ended else after, done + 1

    def learned():
        nonlocal updates
        before, after, action, reward, ended = memory.drawn(done)
        with torch.no_grad():
            y = reward + GAMMA * (1 - ended) * target(after).amax(1)
        value = net(before).gather(1, action[:, None])[:, 0]
        optimizer.zero_grad(set_to_none=True)
        functional.mse_loss(value, y).backward()
        optimizer.step()
        updates += 1
        if updates % TARGET == 0:
            target.load_state_dict(net.state_dict())

    def go():
        for _ in range(steps // EVERY):
            for _ in range(EVERY):
                acted()
            learned()
        return float(steps)

    return go


def _network(inputs: int, outputs: int, depth: int, width: int) -> nn.Sequential:
    sizes = [inputs, *[width] * depth]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class _Memory:
    """The last `rows` steps: what was seen before and after, action, reward, whether it ended."""

    def __init__(self, rows: int, shape: tuple[int, ...]):
        self.seen, self.after = (np.zeros((rows, *shape), bool) for _ in range(2))
        self.action = np.zeros(rows, np.int64)
        self.reward, self.ended = (np.zeros(rows, np.float32) for _ in range(2))

    def push(self, number: int, seen: np.ndarray, after: np.ndarray, rest: tuple) -> None:
        row = number % len(self.action)
        self.seen[row], self.after[row] = seen, after
        self.action[row], self.reward[row], self.ended[row] = rest

    def drawn(self, done: int) -> tuple[torch.Tensor, ...]:
        rows = np.random.randint(0, min(done, len(self.action)), BATCH)
        images = (torch.from_numpy(each[rows]).float() for each in (self.seen, self.after))
        numbers = (torch.from_numpy(each[rows]) for each in (self.action, self.reward, self.ended))
        return (*images, *numbers)
