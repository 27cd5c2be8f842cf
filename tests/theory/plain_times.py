"""Streams, delays, slowdowns and numbers by link, as docs/world.md has them: part of `plain_world`."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from offbeat import Delay
from offbeat.world.changes import Slowdown
from offbeat.world.per_link import PerLink

DATA, COMPUTE, COMMUNICATION, LOSS, BYZANTINE = 0, 2, 3, 4, 12

# -- Streams ----------------------------------------------------------------------------------------------


def stream(seed: int, i: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(i, purpose))))


def one_by_one(rng: np.random.Generator, draw: Callable[[np.random.Generator], Any]) -> Iterator[Any]:
    while True:
        yield from draw(rng)


def delays(rng: np.random.Generator, delay: Delay, factor: float) -> Iterator[float]:
    m, c = delay.mean * factor, delay.cv or {"gamma": 0.25, "lognormal": 1.0}.get(delay.family, 0.0)
    s = math.log1p(c**2)
    draws: dict[str, Callable[[np.random.Generator], Any]] = {
        "gamma": lambda rng: rng.gamma(c**-2, c**2, 64) * m,
        "lognormal": lambda rng: rng.lognormal(-s / 2, math.sqrt(s), 64) * m,
        "exponential": lambda rng: rng.exponential(1.0, 64) * m,
        "constant": lambda rng: [m],
    }
    return one_by_one(rng, lambda rng: map(float, draws[delay.family](rng)))


# -- Slowdowns, links -------------------------------------------------------------------------------------


def factor(slowdowns: Sequence[Slowdown], u: float) -> float:
    return math.prod(s.factor for s in slowdowns if s.at <= u < (math.inf if s.until is None else s.until))


def turns(slowdowns: Sequence[Slowdown], t: float) -> list[float]:
    """Every `at` and `until` after t, rising."""
    return sorted({u for s in slowdowns for u in (s.at, s.until) if u is not None and u > t})


def finish(slowdowns: Sequence[Slowdown], t: float, w: float) -> float:
    """F(t, w)."""
    now, left = t, w
    for u in turns(slowdowns, t):
        if now + left * factor(slowdowns, now) <= u:
            return now + left * factor(slowdowns, now)
        left, now = max(0.0, left - (u - now) / factor(slowdowns, now)), u
    return now + left * factor(slowdowns, now)


def on_link(value: float | PerLink, i: int, j: int) -> float:
    return value.own.get((i, j), value.usual) if isinstance(value, PerLink) else value
