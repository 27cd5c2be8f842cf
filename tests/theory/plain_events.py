"""The order of events, as docs/world.md has it: part of `plain_world`."""

import heapq
from collections.abc import Callable

Action = Callable[[], None]

FAULT, DELIVERY, GRADIENT = 0, 1, 3


class Events:
    """What has been scheduled, for n agents. `life[i]` counts the crashes of agent i."""

    def __init__(self, n: int) -> None:
        self.heap: list[tuple[float, int, int, int, int | None, int, Action]] = []
        self.now, self.wave, self.number = 0.0, 0, 0
        self.life = [0] * n

    def schedule(self, time: float, priority: int, action: Action, of: int | None = None) -> None:
        """`of`: an agent without which it does not happen, if it crashes."""
        wave = self.wave + 1 if time <= self.now else 0
        life = 0 if of is None else self.life[of]
        heapq.heappush(self.heap, (time, wave, priority, self.number, of, life, action))
        self.number += 1

    def run(self, until: float) -> None:
        while self.heap and self.heap[0][0] <= until:
            self.now, self.wave, _, _, of, life, action = heapq.heappop(self.heap)
            if of is None or life == self.life[of]:
                action()
