"""How a process finds out that it is an agent of a run, and gets into it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offbeat.core.agent import Agent
from offbeat.core.errors import DataError, SettingError
from offbeat.core.system.files import write_atomically
from offbeat.core.system.lifeline import end_with_parent
from offbeat.core.system.reading import json_in, reading
from offbeat.core.system.streams import Purpose, python_stream
from offbeat.core.vector import Scope, Vector
from offbeat.engines.events import GradientDone, rows_of
from offbeat.engines.live.node import checkpoint, log
from offbeat.engines.live.node.differences import refuse_other
from offbeat.engines.live.node.driver import Driver
from offbeat.engines.live.node.faults import Faults
from offbeat.engines.live.node.performer import Clock, Performer, Snapshot
from offbeat.engines.live.node.send_queue import Link
from offbeat.engines.live.node.transport import Transport, model_of
from offbeat.engines.live.settings import RunSettings
from offbeat.engines.live.shm.board import Board
from offbeat.engines.live.shm.register import Register
from offbeat.engines.live.shm.wire import Layout, Tag
from offbeat.world.topology import Topology
from offbeat.world.world import World

STARTED = "OFFBEAT_PID"
"""The environment variable that says which process the launcher started."""

MODEL = "model.json"
"""In the run's shared folder: what agent 0 has joined with."""


@dataclass(frozen=True)
class AgentContext:
    """What an agent's process knows of its run: the launcher told it by environment variables.

    Attributes:
        shared: the run's folder in shared memory
        incarnation: which of its lives this is, from 1
        lifeline: a file that can be read when the launcher is gone
    """

    shared: Path
    me: int
    incarnation: int
    lifeline: int
    settings: RunSettings

    @property
    def log_path(self) -> Path:
        return log_path(self.settings.folder, self.me)

    @property
    def checkpoints(self) -> Path:
        return checkpoint.agent_folder(self.settings.folder, self.me)

    def driver(
        self, agent: Agent, topology: Topology, model_bytes: int, world: World | None = None
    ) -> Driver:
        """The driver of this agent, not joined yet. `world`: emulate its delays."""
        board = Board.attach(self.shared / "board")
        transport = Transport(self.shared, board, self.me, self.incarnation, model_bytes)
        transport.lifeline = [self.lifeline]
        if world is not None:
            transport.link = Link(world, self.me, model_bytes, self.incarnation)
        clock, on_nan = Clock(self.settings.unit), self.settings.on_nan
        return Driver(Performer(agent, transport, log.Log(self.log_path), clock, on_nan), topology)

    def faults(self) -> Faults:
        """What is to happen to this agent on purpose."""
        mine = [fault for fault in self.settings.fault if fault.agent == self.me]
        return Faults(mine, self.incarnation == 1)

    def asked(self) -> int:
        """How many gradients this agent's earlier lives have asked for, or may have."""
        return len(rows_of(log.read(self.log_path).events, GradientDone)) + self.incarnation - 1


def agent_context() -> AgentContext | None:
    """That of this process; None outside of a run. Raises SettingError if the run is gone."""
    shared = os.environ.get("OFFBEAT_RUN")
    if shared is None:
        return None
    if os.environ.get(STARTED, str(os.getpid())) != str(os.getpid()):
        raise SettingError(
            "This process is no agent of the run: an agent's process started it, as it starts the workers of "
            "a DataLoader, say. Expected offbeat.join() only in what offbeat launch starts: put all that the "
            "script does below if __name__ == '__main__':, or, to train alone here, unset OFFBEAT_RUN."
        )
    path = Path(shared) / "run.json"
    try:
        with reading(path, "the settings of a run"):
            words = (os.environ[f"OFFBEAT_{name}"] for name in ("RANK", "INCARNATION", "LIFELINE"))
            me, incarnation, lifeline = map(int, words)
            return AgentContext(Path(shared), me, incarnation, lifeline, RunSettings.of(json_in(path), path))
    except DataError as error:
        raise SettingError(
            f"OFFBEAT_RUN names {shared}, but there is no run ({error}). Start agents with offbeat launch; "
            "to run a script alone, unset OFFBEAT_RUN."
        ) from None


def arrive() -> None:
    """Called first by the process that the launcher started: by this, what it starts itself is told apart.

    From now on it ends with the launcher, whatever it is doing.
    """
    os.environ[STARTED] = str(os.getpid())
    if (lifeline := os.environ.get("OFFBEAT_LIFELINE")) is not None:
        end_with_parent(int(lifeline))


def log_path(folder: Path, agent: int) -> Path:
    """Where an agent's part of the trace is."""
    return folder / f"agent-{agent}.trace"


def propose(context: AgentContext, about: Mapping[str, Any], initial: Vector, returns: bool = True) -> None:
    """Agent 0 says which model this is, and where all start from. Before it joins.

    Args:
        returns: whether the algorithm takes an agent back that died, which the launcher has to know
    """
    if context.me == 0 and not (context.shared / MODEL).exists():
        (context.shared / "initial").unlink(missing_ok=True)  # of an earlier life that died between the two
        register = Register.create(context.shared / "initial", Layout.of(Snapshot(initial)))
        with Scope():
            (placed,) = register.begin([initial])
        register.finish(Snapshot(placed), Tag())
        said = {"about": dict(about), "returns": returns}
        write_atomically(context.shared / MODEL, json.dumps(said).encode())


def joined_with(shared: Path) -> tuple[str, bool] | None:
    """The algorithm that agent 0 has joined with, and whether it takes an agent back; None: not known."""
    try:
        said = json.loads((shared / MODEL).read_text())
        return str(said["about"]["algorithm"]), bool(said["returns"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def agree(context: AgentContext, about: Mapping[str, Any]) -> Vector:
    """Where all start from; once all have joined. Raises SettingError if agent 0 has something else."""
    theirs, mine = (
        json.loads((context.shared / MODEL).read_text())["about"],
        json.loads(json.dumps({**about})),
    )
    me = f"agent {context.me}"
    what = (
        f"{me.title()} has joined with something else than agent 0; expected the same of all. They differ in"
    )
    refuse_other(theirs, mine, what, ("agent 0", me))
    _, (x,), _ = Register.attach(context.shared / "initial").copy()
    return Vector(x.parts)


def begin(driver: Driver, context: AgentContext, initial: Vector) -> Vector:
    """The first event, once joined: a start, or a return with a neighbour's model, of one that is done if
    nobody is left. Where to take a gradient first.
    """
    if context.incarnation == 1:
        driver.agent.x = driver.actor.model = initial
        return driver.start()
    assert driver.transport is not None
    transport, neighbours, asked = driver.transport, driver.agent.view.peers, context.asked()
    driver.agent.rng = python_stream(context.settings.seed, Purpose.ALGORITHM, context.me, life=asked)
    living = dict.fromkeys([*neighbours, *sorted(transport.alive)])
    gone = [j for j in range(context.settings.agents) if j != context.me and j not in living]
    for donor in [*living, *gone]:
        if (found := model_of(transport.folder, transport.board, donor)) is not None:
            x, tag = found
            return driver.rejoin(x, tag.round, donor, asked)
    return driver.rejoin(initial, 0, context.me, asked)
