"""What one agent of a live run hears: who comes and goes, registers, mail, alarms."""

from heapq import heappop

from offbeat.core.agent import Message
from offbeat.engines.events import AlarmRang, MailReceived, RegisterRead, ViewChanged
from offbeat.engines.live.node.performer import Performer
from offbeat.engines.live.node.transport import Transport
from offbeat.engines.live.shm.board import Row
from offbeat.engines.live.shm.wire import Tag
from offbeat.engines.outbox import vectors
from offbeat.world.topology import Topology


class Hearing:
    """Hands an agent what has come. Whoever calls it owns the agent.

    Attributes:
        performer: calls the agent's handlers
        topology: of the whole run
        transport: how to reach the others; None: there are none
        alive: the agents that belong to the run, as far as this one knows
    """

    def __init__(self, performer: Performer, topology: Topology, transport: Transport | None) -> None:
        self.performer, self.topology, self.transport = performer, topology, transport
        self.agent, self.clock, self.me = performer.agent, performer.clock, performer.agent.me
        self.alive = frozenset([self.me]) if transport is not None else frozenset(range(topology.n))

    def serve(self, over: bool) -> None:
        """Handle all that has come: members, mail, alarms; and send what can be sent.

        Args:
            over: the run ends, and everybody leaves: nobody steps without the others
        """
        if self.transport is None:
            self.ring_alarms()
            return
        changes = self.transport.board.since(self.transport.membership)
        for agent, incarnation in [] if over else changes:
            self.transport.membership += 1
            if agent != self.me:
                self._changed(agent, incarnation)
        for source, message, tag in self.transport.receive():
            self._deliver(MailReceived, source, message, tag)
        self.ring_alarms()
        self.performer.queue.advance(self.clock.now())

    def ring_alarms(self) -> None:
        while self.performer.alarms and self.performer.alarms[0][0] <= self.clock.now():
            _, _, name = heappop(self.performer.alarms)
            self.performer.handle(AlarmRang(self.clock.now(), self.me), name)

    def member(self, agent: int, incarnation: int) -> None:
        """An agent belongs to the run from now on (incarnation > 0), or no longer."""
        assert self.transport is not None
        if incarnation > 0:
            self.alive |= {agent}
            if agent != self.me:
                self.transport.meet(agent, incarnation)
        else:
            self.alive -= {agent}
            self.transport.forget(agent)
            self.performer.queue.forget(agent)

    def read_registers(self) -> None:
        """Hand over the newest versions of all neighbours' registers."""
        if self.transport is None:
            return
        for reader in self.transport.poll(self.agent.view.peers):
            self._deliver(RegisterRead, reader.source, reader.message, reader.tag)
        readers = [reader for several in self.transport.readers.values() for reader in several]
        made = [reader.tag.end for reader in readers if reader.bound]
        if made:
            age = self.clock.now() - sum(made) / len(made)
            self.transport.float_row[Row.AGE] = age * self.clock.unit

    def _changed(self, agent: int, incarnation: int) -> None:
        self.member(agent, incarnation)
        view = self.topology.view(self.me, self.alive)
        if view != self.agent.view:
            event = ViewChanged(self.clock.now(), self.me, agent, incarnation > 0, abs(incarnation))
            self.performer.handle(event, view)

    def _deliver(
        self, kind: type[MailReceived | RegisterRead], source: int, message: Message, tag: Tag
    ) -> None:
        version = next((v.stamp.version for v in vectors(message).values() if v.stamp is not None), -1)
        number = self.performer.log.rows.kind(message)
        event = kind(self.clock.now(), self.me, source, number, version, tag.start, tag.end)
        self.performer.handle(event, source, message)
