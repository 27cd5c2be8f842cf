"""How a process finds out that it is an agent of a run, and gets into it."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offbeat.core.agent import Agent
from offbeat.core.codecs import Codec
from offbeat.core.errors import DataError, SettingError
from offbeat.core.system.files import write_atomically
from offbeat.core.system.reading import json_in, reading
from offbeat.core.system.signals import end_with_parent
from offbeat.core.system.streams import Purpose, python_stream
from offbeat.core.vector import Scope, Vector
from offbeat.engines.events import GradientDone, rows_of
from offbeat.engines.live.members import Members
from offbeat.engines.live.node import checkpoint, log
from offbeat.engines.live.node.driver import Driver
from offbeat.engines.live.node.faults import Faults
from offbeat.engines.live.node.link import Link
from offbeat.engines.live.node.performer import Clock, Performer, Snapshot
from offbeat.engines.live.node.saving import refuse_other
from offbeat.engines.live.node.transport import Transport, model_of
from offbeat.engines.live.places import INITIAL, MODEL, log_path
from offbeat.engines.live.settings import RunSettings
from offbeat.engines.live.shm.board import Board, Row
from offbeat.engines.live.shm.layout import Tag
from offbeat.engines.live.shm.part import Places
from offbeat.engines.live.shm.register import Register
from offbeat.engines.live.shm.run_folder import PLAN
from offbeat.engines.live.shm.wire import layout_of
from offbeat.engines.outbox import Compression, Outbox
from offbeat.world.growth import Growing, Newcomer
from offbeat.world.topology import Topology
from offbeat.world.world import World

STARTED = "OFFBEAT_PID"  # the environment variable that says which process the launcher started


@dataclass(frozen=True)
class AgentContext:
    """What an agent's process knows of its run: the launcher told it by environment variables."""

    shared: Path  # the run's folder in shared memory
    me: int
    incarnation: int  # which of its lives this is, from 1
    lifeline: int  # a file that can be read when the launcher is gone
    settings: RunSettings

    @property
    def joins(self) -> bool:
        """Whether this agent has come, or comes, while the run goes on."""
        return self.me >= self.settings.count

    @property
    def grown(self) -> tuple[Newcomer, ...]:
        """Who had joined when this agent began, or joins before it or with it."""
        if not self.joins:
            return self.settings.grown
        return Members.of(self.shared, self.settings.agents).grown[: self.me + 1 - self.settings.agents]

    @property
    def places(self) -> Places | None:
        """Which machine this is, in a run over several."""
        if not (path := self.shared / PLAN).exists():
            return None
        with reading(path, "this machine's part of a run"):
            plan = json_in(path)
            return Places(plan["machine"], (*plan["hosts"],))

    @property
    def checkpoints(self) -> Path:
        return checkpoint.agent_folder(self.settings.folder, self.me)

    def driver(
        self,
        agent: Agent,
        topology: Topology,
        size: int,
        world: World | None = None,
        codec: Codec | None = None,
        growing: Growing | None = None,
    ) -> Driver:
        """Not joined yet. `size`: bytes of the model; `world`: emulate its delays; `codec`: compress so;
        `growing`: how the graph grows, if it can.
        """
        board, compression = Board.attach(self.shared / "board"), Compression.of(codec, agent)
        transport = Transport(self.shared, board, self.me, self.incarnation, size)
        transport.lifeline = [self.lifeline]
        if world is not None:
            transport.link = Link(world, self.me, size, self.incarnation, Outbox(compression))
        s, written = self.settings, board.row(self.me)[Row.WRITES]
        kept = log.Log(log_path(s.folder, self.me), written)
        performer = Performer(agent, transport, kept, Clock(s.unit), s.on_nan, compression)
        driver = Driver(performer, topology, growing, self.joins)
        driver.stage = len(s.earlier)
        return driver

    def graph_of(self, state: Mapping[str, Any]) -> Topology | None:
        """On which graph a checkpoint was saved; None: on that of now, which may have grown since."""
        stages, (which, n) = self.settings.stages, state.get("graph", (0, 0))
        if stages[which].graph == stages[-1].graph:
            return None
        return self.settings.growing(which).after(stages[which].grown[: max(0, n - stages[which].agents)])

    def faults(self) -> Faults:
        mine = [fault for fault in self.settings.fault if fault.agent == self.me]
        return Faults(mine, self.incarnation == 1)

    def asked(self) -> int:
        """How many gradients this agent's earlier lives have asked for, or may have."""
        before = log.read(log_path(self.settings.folder, self.me))
        return len(rows_of(before.events, GradientDone)) + self.incarnation - 1


def agent_context() -> AgentContext | None:
    """That of this process; None outside of a run. Raises SettingError if the run is gone."""
    shared = os.environ.get("OFFBEAT_RUN")
    if shared is None:
        return None
    if os.environ.get(STARTED, str(os.getpid())) != str(os.getpid()):
        raise SettingError(
            "This process is no agent of the run: an agent's process started it, as it does a DataLoader's "
            "workers. Expected offbeat.join() only in what offbeat launch starts: put all that the script "
            "does below if __name__ == '__main__':, or, to train alone here, unset OFFBEAT_RUN."
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
    """First of all, tell this process from those that it starts; and have it end with the launcher."""
    os.environ[STARTED] = str(os.getpid())
    if (lifeline := os.environ.get("OFFBEAT_LIFELINE")) is not None:
        end_with_parent(int(lifeline))


def own_folder(folder: Path, agent: int) -> Path:
    """For the user's files of an agent, in the run's folder, whose name is the run's; made if need be."""
    own = folder / f"agent-{agent}"
    own.mkdir(exist_ok=True)
    return own


def propose(
    context: AgentContext,
    about: Mapping[str, Any],
    initial: Vector,
    returns: bool = True,
    needed: Sequence[int] = (),
    closed: str = "",
) -> None:
    """Agent 0 says which model this is, where all start from, whether who died may come back, without whom
    the others stand still, and why nobody can join, if so.
    """
    if context.me == 0 and not (context.shared / MODEL).exists():
        (context.shared / INITIAL).unlink(missing_ok=True)  # of an earlier life that died between the two
        register = Register.create(context.shared / INITIAL, layout_of(Snapshot(initial)))
        with Scope():
            (placed,) = register.begin([initial])
        register.finish(Snapshot(placed), Tag())
        said = {"about": dict(about), "returns": returns, "needed": list(needed), "closed": closed}
        write_atomically(context.shared / MODEL, json.dumps(said).encode())


def agree(context: AgentContext, about: Mapping[str, Any]) -> Vector:
    """Where all start from; once all have joined. Raises SettingError if agent 0 has something else."""
    theirs, mine = json.loads((context.shared / MODEL).read_text()), json.loads(json.dumps({**about}))
    what = f"Agent {context.me} has joined with something else than agent 0"
    what += "; expected the same of all. They differ in"
    refuse_other(theirs["about"], mine, what, ("agent 0", f"agent {context.me}"))
    _, (x,), _ = Register.attach(context.shared / INITIAL).copy()
    return Vector(x.parts)


def begin(driver: Driver, context: AgentContext, initial: Vector) -> Vector:
    """Once joined: start; or come, or return, with the model of a neighbour, of one that is done if none is
    left.
    """
    if context.incarnation == 1 and not context.joins:
        driver.agent.x = driver.actor.model = initial
        return driver.start()
    assert driver.transport is not None
    transport, neighbours, asked = driver.transport, driver.agent.view.peers, context.asked()
    everybody = dict.fromkeys([*neighbours, *sorted(transport.alive), *range(transport.board.n)])
    for donor in [j for j in everybody if j != context.me]:
        if (found := model_of(transport.folder, transport.board, donor)) is not None:
            return begin_with(driver, context, found[0], found[1].round, donor, asked)
    return begin_with(driver, context, initial, 0, context.me, asked)


def begin_with(
    driver: Driver, context: AgentContext, x: Vector, round_: int, donor: int, asked: int
) -> Vector:
    """Come, or return, with this model of the donor's, after so many gradients."""
    driver.agent.rng = python_stream(context.settings.seed, Purpose.ALGORITHM, context.me, life=asked)
    return driver.rejoin(x, round_, donor, asked)
