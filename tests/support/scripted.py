"""A script of messages from agent 0 in a world where all delays are 1, and what the others wrote down."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from runs import quadratic, started

from offbeat import Agent, Delay, Vector, World
from offbeat.core.forms import zero
from offbeat.engines.events import TABLES
from offbeat.engines.sim.simulator import Simulator
from offbeat.engines.trace import in_order

CONSTANT = World(compute=Delay("constant"), communication=Delay("constant"))


@dataclass(frozen=True)
class Note:
    x: Vector
    n: int = 0


@dataclass
class Scripted(Agent):
    """Agent 0 gives notes 1, 2, ... at its gradients; everybody writes down when which note came."""

    medium: str = "send"
    count: int = field(init=False, default=0)
    log: list[tuple[float, int, float]] = field(init=False, default_factory=list)

    def on_message(self, src: int, message: Note) -> None:
        self.log.append((self.now, message.n, float(message.x.parts[0][0])))

    def on_gradient(self, g: Vector) -> None:
        if self.me == 0:
            self.count += 1
            one = zero(self.x)
            one.parts[0].add_(1.0)
            getattr(self, self.medium)(self.view.listeners, Note(one, self.count))
        self.compute(self.x)


def logs(
    world: World, until: float, medium: str = "send", n: int = 3
) -> list[list[tuple[float, int, float]]]:
    """What each agent of a complete graph wrote down."""
    sim = started(Scripted(medium), quadratic(n), world, "complete")
    sim.run(until)
    agents: Sequence[Any] = sim.agents
    return [agent.log for agent in agents]


def when(log: list[tuple[float, int, float]]) -> list[tuple[float, int]]:
    return [(time, n) for time, n, _ in log]


def tables(sim: Simulator) -> dict[str, bytes]:
    trace = in_order(sim.recorder.trace())
    return {name: getattr(trace, name).tobytes() for name in TABLES}
