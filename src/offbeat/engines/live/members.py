"""Who has come to a run since it began, and who was asked to leave it: a small file beside its board.

The launcher writes it before it tells of a change on the board, so whoever hears of an agent that it does not
know finds it here. The run's results keep it too, for `--resume`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from offbeat.core.system.files import write_atomically
from offbeat.core.system.reading import json_in, reading
from offbeat.world.growth import Newcomer

MEMBERS = "members.json"


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
        said = {"grown": [each.record() for each in self.grown], "left": [*self.left]}
        write_atomically(folder / MEMBERS, json.dumps(said).encode())

    @staticmethod
    def of(folder: Path, agents: int) -> "Members":
        """Of a run that began with so many agents; nobody, without a file. Raises DataError."""
        path = folder / MEMBERS
        if not path.exists():
            return Members()
        with reading(path, "who has come to a run, and left it"):
            said = json_in(path)
            return Members(grown_of(said["grown"], agents), tuple(map(int, said["left"])))


def grown_of(records: object, agents: int) -> tuple[Newcomer, ...]:
    """From JSON. Raises ValueError."""
    if not isinstance(records, list):
        raise ValueError(f"those who joined are {records!r:.60}")
    return tuple(Newcomer.of(record, number) for number, record in enumerate(records, start=agents))
