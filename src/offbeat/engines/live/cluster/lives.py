"""What a launcher needs of machines, whatever reaches them; and of a process there."""

import time
from collections.abc import Awaitable, Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

from offbeat.engines.live.cluster.peer import Peer
from offbeat.engines.live.cluster.results import Grown


class Fleet(Protocol):
    """The machines of a run, and how to reach them."""

    run: str  # its name
    names: list[str]  # of the gateways
    hosts: list[int]  # where every agent lives

    def peer(self, machine: int) -> Peer: ...
    def ask(self, machine: int, what: str, *args: Any) -> Awaitable[Any]:
        """What the method of this name of that machine's gateway gives. Raises whatever it met."""

    def lost(self, machine: int, error: Exception, silent: float) -> str:
        """Why the machine counts as lost, which has given no answer for so many seconds; empty: it does not
        yet.
        """

    def place(self, agent: int, lost: Collection[int]) -> int:
        """Where an agent is to live that comes, or whose machine is lost. Raises NoRoom."""

    async def more(self) -> int | None:
        """A machine that has come since the run began, whose gateway begins now; None: there is none. Raises
        OffbeatError for one that cannot take part, once.
        """

    def called(self, machine: int) -> str:
        """A machine in words."""

    def end(self) -> None:
        """Nobody needs the gateways any more."""


@dataclass
class RemoteLife:
    """One process of one agent on another machine: a `Life`."""

    agent: int
    incarnation: int
    machine: int
    output: Grown
    started: float = field(default_factory=time.monotonic)
    pid: int = 0
    code: int = 0
