"""ADSGD and DSGD, as docs/world.md has them: part of `plain_world`."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
Message = tuple[Any, ...]  # its fields: numbers, and vectors
Effects = list[tuple[Any, ...]]  # ("compute", x), ("send", receivers, message), ("publish", ...)


def mixed(w: dict[int, float], v: dict[int, Array], x: Array) -> Array:
    terms = [w[j] * v.get(j, x) for j in w]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


@dataclass
class Plain:
    """An agent: `w` is its row of W, itself included, by rising index."""

    me: int
    x: Array
    w: dict[int, float]
    lr: float
    round: int = 0

    @property
    def neighbours(self) -> tuple[int, ...]:
        return tuple(j for j in self.w if j != self.me)


@dataclass
class ADSGD(Plain):
    heard: dict[int, Array] = field(default_factory=dict)

    def start(self) -> Effects:
        return [("compute", self.x)]

    rejoin = start

    def message(self, j: int, message: Message) -> Effects:
        self.heard[j] = message[0]
        return []

    def gradient(self, g: Array) -> Effects:
        self.x = mixed(self.w, {**self.heard, self.me: self.x}, self.x) + (-self.lr) * g
        return [("publish", self.neighbours, (self.x,)), ("compute", self.x)]

    def view(self, w: dict[int, float]) -> Effects:
        self.w, self.heard = w, {j: x for j, x in self.heard.items() if j in w}
        return []


@dataclass
class DSGD(Plain):
    g: Array | None = None
    letters: dict[int, dict[int, Array]] = field(default_factory=dict)  # round -> whose -> model
    since: dict[int, int] = field(default_factory=dict)  # from which round on a letter is awaited

    def start(self) -> Effects:
        self.since = dict.fromkeys(self.w, 0)
        return self.begin()

    def rejoin(self) -> Effects:
        self.since = {self.me: self.round}
        return self.begin()

    def begin(self) -> Effects:
        self.letters.setdefault(self.round, {})[self.me] = self.x
        return [("compute", self.x), ("send", self.neighbours, (self.round, self.x))]

    def message(self, j: int, message: Message) -> Effects:
        k, x = message
        if k >= self.round:
            self.letters.setdefault(k, {})[j] = x
        self.since.setdefault(j, k)
        return self.end()

    def gradient(self, g: Array) -> Effects:
        self.g = g
        return self.end()

    def view(self, w: dict[int, float]) -> Effects:
        back = tuple(j for j in w if j not in self.w)
        self.w, self.since = w, {j: k for j, k in self.since.items() if j in w}
        self.letters = {k: {j: x for j, x in of.items() if j in w} for k, of in self.letters.items()}
        return [("send", back, (self.round, self.x)), *self.end()]

    def end(self) -> Effects:
        v = self.letters[self.round]
        awaited = [j for j in self.w if j in self.since and self.since[j] <= self.round]
        if self.g is None or any(j not in v for j in awaited):
            return []
        self.x, self.g = mixed(self.w, v, self.x) + (-self.lr) * self.g, None
        del self.letters[self.round]
        self.round += 1
        return self.begin()
