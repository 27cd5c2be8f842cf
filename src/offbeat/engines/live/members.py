"""Who has come to a run since it began, and who was asked to leave it: a small file beside its board. And the
stages of a run, each of which went on from the checkpoints of the one before: a file with its results.

The launcher writes the first before it tells of a change on the board, so whoever hears of an agent that it
does not know finds it there.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from offbeat.core.system.files import write_atomically
from offbeat.core.system.reading import json_in, reading
from offbeat.engines.live.places import MEMBERS
from offbeat.world.growth import Newcomer

STAGES = "stages.json"


@dataclass(frozen=True)
class Members:
    """Who has come, and gone.

    Attributes:
        grown: agent by agent, after those that the run began with
        left: who was asked to leave, and has
    """

    grown: tuple[Newcomer, ...] = ()
    left: tuple[int, ...] = ()

    def write(self, folder: Path) -> None:
        write_atomically(folder / MEMBERS, self.text().encode())

    def text(self) -> str:
        return json.dumps({"grown": [each.record() for each in self.grown], "left": [*self.left]})

    @staticmethod
    def read(said: Any, agents: int) -> "Members":
        """Of JSON, and a run that began with so many agents. Raises ValueError, LookupError, TypeError."""
        return Members(grown_of(said["grown"], agents), tuple(map(int, said["left"])))

    @staticmethod
    def of(folder: Path, agents: int) -> "Members":
        """Of a run that began with so many agents; nobody, without a file. Raises DataError."""
        path = folder / MEMBERS
        if not path.exists():
            return Members()
        with reading(path, "who has come to a run, and left it"):
            return Members.read(json_in(path), agents)


def grown_of(records: object, agents: int) -> tuple[Newcomer, ...]:
    """From JSON. Raises ValueError."""
    if not isinstance(records, list):
        raise ValueError(f"those who joined are {records!r:.60}")
    return tuple(Newcomer.of(record, number) for number, record in enumerate(records, start=agents))


@dataclass(frozen=True)
class Stage:
    """A run from a start, or a `--resume`, on: with which agents, on which graph.

    Attributes:
        agents: with how many it began
        grown: who has joined since, or had before and is still there
        until: when it was interrupted, in seconds of the run; infinity: it goes on
    """

    agents: int
    topology: str
    weights: str | None = None
    grown: tuple[Newcomer, ...] = ()
    until: float = field(default=math.inf, compare=False)

    @property
    def count(self) -> int:
        return self.agents + len(self.grown)

    @property
    def graph(self) -> tuple[int, str, str | None]:
        """What it is told apart by from a stage on another graph."""
        return self.agents, self.topology, self.weights

    def record(self) -> dict[str, Any]:
        until = None if self.until == math.inf else self.until
        grown = [each.record() for each in self.grown]
        return {**vars(self), "grown": grown, "until": until}

    @staticmethod
    def of(said: Any) -> "Stage":
        """From JSON. Raises ValueError."""
        match said:
            case {"agents": int(agents), "topology": str(topology), "weights": str() | None as weights,
                  "grown": grown, "until": int() | float() | None as until} if agents > 0:  # fmt: skip
                until = math.inf if until is None else float(until)
                return Stage(agents, topology, weights, grown_of(grown, agents), until)
        raise ValueError(f"a stage of the run is {said!r:.100}")


def keep_stages(folder: Path, stages: Sequence[Stage]) -> None:
    write_atomically(folder / STAGES, json.dumps([each.record() for each in stages]).encode())


def stages_of(folder: Path) -> tuple[Stage, ...]:
    """The stages of the run in a folder; none, if there is no such file. Raises DataError."""
    path = folder / STAGES
    if not path.exists():
        return ()
    with reading(path, "the stages of a run"):
        return tuple(map(Stage.of, json_in(path)))
