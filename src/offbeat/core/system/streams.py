"""Named random streams: all randomness of a run, from one seed.

A stream is named by (agent, purpose); that of a matching by its round, in the agent's place. What one purpose
draws never shifts another, so all algorithms see the same delays, losses and minibatches in the same world.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from itertools import chain, repeat
from random import Random
from typing import Any, cast

import numpy as np
import torch

CHUNK = 64  # random numbers are drawn this many at a time
WORLD = 2**32 - 1  # the agent index under which the streams that belong to nobody are named

# What a stream is for. The numbers, from 0, are part of the format: results change when they do.
Purpose = IntEnum(
    "Purpose",
    "DATA ALGORITHM COMPUTE COMMUNICATION LOSS PARTITION TOPOLOGY TASK SHARD SPEED LINK NODES BYZANTINE "
    "TUNING MATCHING",
    start=0,
)


def stream(seed: int, purpose: Purpose, agent: int = WORLD, life: int = 0) -> np.random.Generator:
    """The generator of one (agent, purpose). `life`: another one after a crash that took its state."""
    key = (agent, purpose, life) if life else (agent, purpose)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def python_stream(seed: int, purpose: Purpose, agent: int = WORLD, life: int = 0) -> Random:
    """The same as a `random.Random`, for the handlers of an algorithm."""
    return Random(int(stream(seed, purpose, agent, life).integers(2**63)))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """In here the global streams, which code of the user's may draw from, begin with this seed; afterwards
    they are as before.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def uniform(rng: np.random.Generator, count: int) -> list[float]:
    """`count` uniform numbers in [0, 1)."""
    drawn: list[float] = rng.random(count).tolist()
    return drawn


Draw = Callable[[np.random.Generator, int], Iterable[Any]]  # so many values at once


class BufferedStream(chain[Any]):
    """The values of one random stream, one at a call; drawn in chunks, as a generator's calls are slow."""

    __slots__ = ()

    def __new__(cls, draw: Draw, seed: int, purpose: Purpose, agent: int, life: int = 0) -> "BufferedStream":
        rng = stream(seed, purpose, agent, life)
        return cast(BufferedStream, cls.from_iterable(map(draw, repeat(rng), repeat(CHUNK))))

    __call__ = chain.__next__
