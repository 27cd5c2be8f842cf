"""Named random streams: all randomness of a run, from one seed.

A stream is named by (agent, purpose). What one purpose draws never shifts another, so all algorithms
see the same delays, losses and minibatches in the same world.
"""

from enum import IntEnum
from random import Random

import numpy as np

WORLD = 2**32 - 1
"""The agent index under which the streams that belong to nobody are named."""


class Purpose(IntEnum):
    """What a stream is for. The numbers are part of the format: results change when they do."""

    DATA = 0
    ALGORITHM = 1
    COMPUTE = 2
    COMMUNICATION = 3
    LOSS = 4
    PARTITION = 5
    TOPOLOGY = 6
    TASK = 7


def stream(seed: int, purpose: Purpose, agent: int = WORLD) -> np.random.Generator:
    """The generator of one (agent, purpose)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(agent, purpose))))


def python_stream(seed: int, purpose: Purpose, agent: int = WORLD) -> Random:
    """The same as a `random.Random`, for the handlers of an algorithm."""
    return Random(int(stream(seed, purpose, agent).integers(2**63)))
