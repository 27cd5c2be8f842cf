"""How a process finds out that it is an agent of a run, and gets into it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offbeat.agent import Agent
from offbeat.errors import SettingError
from offbeat.live import log
from offbeat.live.board import Board
from offbeat.live.driver import Driver
from offbeat.live.fabric import Fabric
from offbeat.live.post import Link
from offbeat.topology import Topology
from offbeat.trace import EVENT_CODE
from offbeat.vector import Vector
from offbeat.world import World


@dataclass(frozen=True)
class Place:
    """An agent's place in a run, as the launcher told it by environment variables."""

    shared: Path
    me: int
    incarnation: int
    lifeline: int
    settings: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return Path(self.settings["folder"])

    @property
    def log_path(self) -> Path:
        """Where this agent's part of the trace goes."""
        return log_path(self.folder, self.me)

    def driver(self, agent: Agent, topology: Topology, model_bytes: int, world: World | None = None) -> Driver:
        """The driver of this agent, not joined yet. `world`: emulate its delays."""
        fabric = Fabric(self.shared, Board.attach(self.shared / "board"), self.me, self.incarnation, model_bytes)
        link = None if world is None else Link(world, self.me, model_bytes)
        unit = float(self.settings["unit"])
        return Driver(agent, topology, fabric, log.Log(self.log_path), unit, link, self.lifeline)

    def asked(self) -> int:
        """How many gradients this agent's earlier lives have asked for, or may have."""
        events = log.read(self.log_path).tables[0]["event"]
        return int((events == EVENT_CODE["gradient"]).sum()) + self.incarnation - 1


def place() -> Place | None:
    """This process's place in a run; None outside of one. Raises SettingError if the run is gone."""
    shared = os.environ.get("OFFBEAT_RUN")
    if shared is None:
        return None
    try:
        settings = json.loads((Path(shared) / "run.json").read_text())
        return Place(
            Path(shared), int(os.environ["OFFBEAT_RANK"]), int(os.environ["OFFBEAT_INCARNATION"]),
            int(os.environ["OFFBEAT_LIFELINE"]), settings,
        )  # fmt: skip
    except (OSError, KeyError, ValueError) as error:
        raise SettingError(
            f"OFFBEAT_RUN names {shared}, but there is no run ({error}). Start agents with offbeat launch; to run a "
            "script alone, unset OFFBEAT_RUN."
        ) from None


def log_path(folder: Path, agent: int) -> Path:
    """Where an agent's part of the trace is."""
    return folder / f"agent-{agent}.trace"


def begin(driver: Driver, place: Place, initial: Vector) -> Vector:
    """Get into the run: start, or come back with a neighbour's model. Where the first gradient is to be taken."""
    if driver.join() == 0:
        return driver.start()
    assert driver.fabric is not None
    fabric, neighbours = driver.fabric, driver.agent.view.peers
    others = [j for j in sorted(fabric.alive) if j not in neighbours]
    for donor in [*neighbours, *others]:
        found = fabric.model_of(donor)
        if found is not None:
            x, tag = found
            driver.restore_counts(log.read(place.log_path))
            return driver.rejoin(x, tag.round, donor, place.asked())
    driver.restore_counts(log.read(place.log_path))
    return driver.rejoin(initial, 0, driver.me, place.asked())
