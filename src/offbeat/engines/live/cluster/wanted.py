"""What is asked for of a cluster: the settings of a run over several machines, beside those of any run."""

import math
from dataclasses import dataclass
from pathlib import Path

from offbeat.core.errors import SettingError
from offbeat.core.settings import RUNNING, declared, setting
from offbeat.core.system.ray_cluster import local
from offbeat.engines.live.cluster.placement import GRAPH, PLACES

RAY = "Run on a Ray cluster: 'auto', HOST:PORT, or 'local:2', which starts two nodes on this machine."
PLACE = "On a cluster: neighbours on one machine (graph), agents in turn (spread), machine by machine (pack)."
ATTACH = "On a cluster: go on with this run, whose launcher has died."
GRACE = "On a cluster: seconds without an answer after which a machine is lost."


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked for of a cluster. Raises SettingError for what makes no sense.

    Attributes:
        folder: what travels to all machines, and where agents begin
    """

    ray: str | None = setting(None, RUNNING, RAY)
    place: str = setting(GRAPH, RUNNING, PLACE)
    per_machine: int | None = setting(None, RUNNING, "On a cluster: agents on one machine at most.")
    cpus: float | None = setting(None, RUNNING, "On a cluster: cores that an agent takes.")
    gpus: float | None = setting(None, RUNNING, "On a cluster: GPUs that an agent takes, 0.5 say.")
    no_ship: bool = setting(False, RUNNING, "On a cluster: every machine has the script's folder already.")
    partition_grace: float = setting(60.0, RUNNING, GRACE)
    attach: str | None = setting(None, RUNNING, ATTACH)
    folder: Path | None = None

    def __post_init__(self) -> None:
        given = [each for each in declared(Wanted).values() if getattr(self, each.name) != each.default]
        names = ", ".join(f"--{each.name.replace('_', '-')}" for each in given)
        if self.ray is None and given:
            raise SettingError(f"{names}: that is of a run on a cluster. Expected --ray ADDRESS beside it.")
        if self.place not in PLACES:
            known = ", ".join(PLACES)
            raise SettingError(f"Got --place {self.place}; expected one of {known}.")
        if self.ray is not None:
            local(self.ray)
        for name in ("per_machine", "cpus", "gpus", "partition_grace"):
            if not (getattr(self, name) is None or 0 < getattr(self, name) < math.inf):
                got = f"--{name.replace('_', '-')} {getattr(self, name)}"
                raise SettingError(f"Got {got}; expected more than 0.")

    @property
    def address(self) -> str:
        assert self.ray is not None
        return self.ray

    @property
    def strict(self) -> bool:
        """Whether machines take no more than they have room for."""
        return (self.per_machine, self.cpus, self.gpus) != (None, None, None)

    @property
    def local(self) -> int | None:
        """How many nodes are to be started on this machine; None: there is a cluster."""
        return local(self.address)

    def refuse_more(self, agents: int) -> None:
        """Raise SettingError for more agents than there can be room for on nodes that are to be started."""
        if self.ray is None or self.local is None or self.per_machine is None:
            return
        if (room := self.local * self.per_machine) < agents:
            do = "Expected fewer agents, more nodes, or more on each (--per-machine)."
            raise SettingError(f"{agents} agents were asked for; --ray {self.ray} has room for {room}. {do}")

    @property
    def ships(self) -> bool:
        return not (self.ray is None or self.no_ship or self.folder is None or self.local is not None)
