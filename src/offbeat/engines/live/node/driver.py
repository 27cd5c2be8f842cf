"""Drives one agent of a live run: who may call its handlers when, and what it hears.

The agent has one owner at a time. The training thread takes the lock for a gradient, and keeps it until the
agent asks for the next one: an algorithm that waits does so there, and answers its mail meanwhile. At any
other time (while the gradient is computed, during evaluation, after the loop) a second thread answers mail,
rings alarms and notices who comes and goes. No handler ever touches the parameters of a model: the training
thread writes them, within its step.
"""

import json
import math
import time
from collections.abc import Mapping
from heapq import heappop
from threading import RLock, Thread
from typing import Any

from offbeat.core.agent import Message
from offbeat.core.errors import ContractError, DiskError
from offbeat.core.system.files import write_atomically
from offbeat.core.vector import Stamp, Vector
from offbeat.engines import events
from offbeat.engines.live.members import Members
from offbeat.engines.live.node import checkpoint
from offbeat.engines.live.node.performer import Performer, digest
from offbeat.engines.live.shm.board import LET_GO, Order, Row, State
from offbeat.engines.live.shm.layout import Tag
from offbeat.engines.outbox import version_of
from offbeat.world.growth import Growing
from offbeat.world.topology import Topology

LONGEST = 0.05  # seconds: nobody sleeps longer while something waits to be sent


class Stopped(Exception):
    """The run has been asked to stop."""


class Driver:
    """One agent of a live run, given its place (`Agent.join`) already.

    Attributes:
        transport: how to reach the others; None: there are none
        snapshot: where the last gradient was taken
        deadline: when the run ends, in units
        in_step: whether no agent can go on without all others
        topology: the graph as far as this agent knows it; `growing`: how it grows, if it can
        late: whether this agent comes to a run that goes on
        donor: whose model it came, or returned, with
        stage: how often the run had gone on from its checkpoints
    """

    def __init__(
        self, performer: Performer, topology: Topology, growing: Growing | None = None, late: bool = False
    ) -> None:
        self.performer, self.topology, self.transport = performer, topology, performer.transport
        self.growing, self.late, self.members, self.donor = growing, late, Members(), -1
        self.stage = 0
        self.agent, self.actor, self.me = performer.agent, performer.actor, performer.me
        self.log, self.clock, self.guard = performer.log, performer.clock, performer.guard
        self.lock = RLock()
        self.snapshot: Vector | None = None
        self.deadline, self.in_step = math.inf, False
        self._closed = self._orphaned = False
        self._thread: Thread | None = None
        self._failed: BaseException | None = None  # what ended the second thread

    def join(self) -> None:
        """Say that the agent is ready, and wait until it belongs to the run. Raises Stopped if that ends."""
        if self.transport is None:
            return
        transport, board = self.transport, self.transport.board
        transport.row[Row.STATE] = State.JOINED
        transport.launcher.ring()
        mine = (self.me, transport.incarnation)
        while board.order is Order.WAIT or mine not in board.since(0):
            if board.order >= Order.STOP or transport.orphaned():
                raise Stopped  # no deadline before the start
            transport.wait(LONGEST)
            transport.bell.quiet()
        if board.order >= Order.STOP:
            raise Stopped  # let in only to be let out; there may be no clock
        self.clock.zero = board.zero
        before = board.since(0)
        begun = self.topology.n  # with which the run began, or this agent comes
        transport.membership = max(before.index(mine) + 1, begun)  # the first of them let everybody in
        for agent, incarnation in before[: transport.membership]:
            self._change(agent, incarnation)
        transport.floor = transport.membership if transport.incarnation > 1 or self.late else 0
        self.agent.view = self.topology.view(self.me, self.alive)
        transport.row[Row.STATE] = State.RUNNING

    def start(self) -> Vector:
        """The first event; returns where the first gradient is to be taken."""
        with self.lock:
            self.performer.handle(events.Started(self.clock.now(), self.me))
            return self._next()

    def rejoin(self, x: Vector, round_: int, donor: int, asked: int) -> Vector:
        """The first event of an agent that has come back, with a neighbour's model and round."""
        with self.lock:
            self.donor, alive = donor, self.alive
            lives = {} if self.transport is None else self.transport.alive
            for j in range(self.topology.n):
                if j not in alive:
                    self.log.rows.event(events.LossKnown(self.clock.now(), self.me, j))
                elif lives.get(j, 1) > 1 or (j in lives and j >= self._first):
                    self.log.rows.event(events.PeerMet(self.clock.now(), self.me, j, lives[j]))
            self.agent.x = self.actor.model = x
            self.agent.round = round_
            self.actor.stamp, self.actor.steps = Stamp(self.me, self.log.rows.written), self.log.steps
            version = x.stamp.version if x.stamp is not None else 0
            life = 1 if self.transport is None else self.transport.incarnation
            self.performer.handle(events.Rejoined(self.clock.now(), self.me, donor, version, asked, life))
            return self._next()

    def step(self, g: Vector) -> Vector:
        """The gradient that was asked for: returns where the next one is to be taken. Raises Stopped."""
        with self.lock:
            began = time.monotonic_ns()
            self._refuse_failed()
            self._serve()
            self._check_order()
            start, self.snapshot, self.actor.at = self._started, self.actor.at, None
            self._read_registers()
            end = self.clock.now()
            done = events.GradientDone(self.clock.now(), self.me, self.actor.steps, start, end)
            self.performer.handle(done, g)
            x = self._next()
            if self.transport is not None:
                row, ended = self.transport.row, time.monotonic_ns()
                row[Row.MIXED] += ended - began
                row[Row.LAST] = ended
                row[Row.FIRST] = row[Row.FIRST] or ended
                if self._sleep() is not None:  # the second thread may not know of it
                    self.transport.bell.ring()
            return x

    @property
    def enough(self) -> bool:
        """Whether the run has done enough, or this agent is to leave it: it has made its last step."""
        if self.transport is None:
            return False
        board = self.transport.board
        if board.order is not Order.FINISH:
            return bool(self.transport.row[Row.LEAVES])
        return not self.in_step or self.actor.steps >= board.last_step

    def resume(self, state: Mapping[str, Any], before: Topology | None = None) -> Vector:
        """The first event of an agent that goes on from a checkpoint, what `state` gave; before: on which
        graph that was, if on another.
        """
        with self.lock:
            checkpoint.restore_agent(self.agent, state["agent"])
            for j in range(self._first, self.topology.n):
                if j != self.me:
                    self.log.rows.event(events.PeerMet(self.clock.now(), self.me, j, 1))
            self.actor.model, self.actor.at = self.agent.model, state["at"]
            self.actor.stamp, self.actor.steps = Stamp(self.me, self.log.rows.written), state["steps"]
            now, version = self.clock.now(), state["version"]
            if before is None:
                self.performer.handle(events.Resumed(now, self.me, version))
            else:
                view, self.agent.view = self.agent.view, before.view(self.me, range(before.n))
                self.performer.handle(events.Regrouped(now, self.me, version), view)
            return self._next()

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs of the agent. Call it with the lock, between steps."""
        self._refuse_failed()
        actor, agent = self.actor, checkpoint.agent_state(self.agent)  # registers may move on, logged before
        self.log.rows.event(events.Saved(self.clock.now(), self.me, actor.version))
        self.log.flush()
        counts = {"version": actor.version, "steps": actor.steps, "time": self.clock.now()}
        return {"agent": agent, "at": actor.at, "graph": [self.stage, self.topology.n], **counts}

    def _next(self) -> Vector:
        """Wait for the agent to ask for a gradient, handling whatever comes."""
        began = 0
        while self.actor.at is None:
            if not began and self.transport is not None:
                self.transport.row[Row.WAITING] = 1
            began = began or time.monotonic_ns()
            self._check_order()
            seconds = self._sleep()
            if self.transport is not None:
                if self.transport.wait(seconds):
                    self._orphaned = True
                self.transport.bell.quiet()
            elif seconds is None:
                raise ContractError(f"{type(self.agent).__name__} waits, alone, and nothing will come.")
            else:
                time.sleep(seconds)
            self._serve()
        if began and self.transport is not None:
            self.transport.row[Row.WAITED] += time.monotonic_ns() - began
            self.transport.row[Row.WAITING] = 0
        self._started = self.clock.now()
        return self.actor.at

    def _check_order(self) -> None:
        if self._thread is None and self.transport is not None and self.transport.orphaned():
            raise Stopped  # no other thread looks
        if self._over() or self._orphaned:
            raise Stopped

    def _over(self) -> bool:
        stopped = self.transport is not None and self.transport.board.order >= Order.STOP
        return stopped or self.clock.now() >= self.deadline

    def _sleep(self) -> float | None:
        """Seconds until something is due; None: as long as the bell does not ring."""
        due = min(self.performer.due, self.deadline)
        if due == math.inf:
            return None
        return LONGEST if due == -math.inf else max(0.0, (due - self.clock.now()) * self.clock.unit)

    @property
    def alive(self) -> frozenset[int]:
        """The agents that belong to the run, as far as this one knows."""
        others = range(self.topology.n) if self.transport is None else self.transport.alive
        return frozenset([self.me, *others])

    def _serve(self) -> None:
        """Handle all that has come: members, mail, alarms; and send what can be sent."""
        if self.transport is not None:
            # As the run ends everybody leaves: nobody steps without the others.
            changes = [] if self._over() else self.transport.board.since(self.transport.membership)
            for agent, incarnation in changes:
                self.transport.membership += 1
                new = self._change(agent, incarnation)
                view = self.topology.view(self.me, self.alive)
                if agent != self.me and (new or view != self.agent.view):
                    back, life = incarnation > 0, abs(incarnation)
                    event = events.ViewChanged(self.clock.now(), self.me, agent, back, life)
                    self.performer.handle(event, view)
            for source, message, tag in self.transport.receive():
                self._deliver(events.MailReceived, source, message, tag)
        while self.performer.alarms and self.performer.alarms[0][0] <= self.clock.now():
            _, _, name = heappop(self.performer.alarms)
            self.performer.handle(events.AlarmRang(self.clock.now(), self.me), name)
        self.performer.advance(self.clock.now())

    def _change(self, agent: int, incarnation: int) -> bool:
        """An agent belongs to the run from now on (incarnation > 0), or no longer. Returns whether the graph
        has grown by it.
        """
        assert self.transport is not None
        new = agent >= self.topology.n
        if self.growing is not None and (new or incarnation < 0):
            self.members = Members.of(self.transport.folder, self._first)
        if self.growing is not None and new:
            self.topology = self.growing.after(self.members.grown[: agent + 1 - self._first])
            self.agent.n = self.topology.n
        if agent != self.me and incarnation > 0:
            self.transport.meet(agent, incarnation)
        elif agent != self.me:
            self.transport.forget(agent)
            self.performer.backlog.pop(agent, None)
        return new

    @property
    def _first(self) -> int:
        """How many agents there were before any joined."""
        return self.topology.n if self.growing is None else self.growing.first.n

    @property
    def place(self) -> tuple[int, int]:
        """Which one this agent is of all that take part, and how many these are: who died too, as it comes
        back, but nobody who has left.
        """
        there = [j for j in range(self.topology.n) if j == self.me or j not in self.members.left]
        return there.index(self.me), len(there)

    def _read_registers(self) -> None:
        if self.transport is None:
            return
        whom = tuple(sorted(self.transport.alive)) if self.agent.beyond_graph else self.agent.view.peers
        for reader in self.transport.poll(whom):
            self._deliver(events.RegisterRead, reader.source, reader.message, reader.tag)
        readers = [reader for several in self.transport.readers.values() for reader in several]
        if made := [reader.tag.end for reader in readers if reader.bound]:
            age = self.clock.now() - sum(made) / len(made)
            self.transport.float_row[Row.AGE] = age * self.clock.unit

    def _deliver(
        self, kind: type[events.MailReceived | events.RegisterRead], source: int, message: Message, tag: Tag
    ) -> None:
        number, version = self.log.rows.kind(message), version_of(message)
        event = kind(self.clock.now(), self.me, source, number, version, tag.start, tag.end)
        if tag.letter >= 0 and tag.letter != version:
            self.log.rows.event(events.SumEnds(event.time, self.me, source, tag.letter))
        self.performer.handle(event, source, message)

    def attend(self) -> None:
        if self.transport is not None:
            self._thread = Thread(target=self._answer, name="offbeat", daemon=True)
            self._thread.start()

    def _answer(self) -> None:
        assert self.transport is not None
        try:
            while not self._closed:
                if self.transport.wait(self._sleep()):
                    self._orphaned = True
                    return
                with self.lock:
                    if not self._closed:
                        self.transport.bell.quiet()
                        self._serve()
        except BaseException as error:
            self._failed = error

    def _refuse_failed(self) -> None:
        """What the second thread met is raised in the first, where it ends the script."""
        if self._failed is not None:
            raise self._failed

    def leave(self) -> None:
        if self.transport is None:
            return
        self.transport.row[Row.STATE] = State.LEFT
        self.transport.launcher.ring()
        board, row = self.transport.board, self.transport.row
        while board.order < Order.END and row[Row.LEAVES] != LET_GO:
            if self.transport.orphaned(LONGEST):
                break
            self._refuse_failed()

    def close(self) -> None:
        self._closed = True
        if self._thread is not None and self.transport is not None:
            self.transport.bell.ring()
            self._thread.join()
        self._refuse_failed()
        with self.lock:
            self.log.close()
            done, first = self.actor, self.transport is None or self.transport.incarnation == 1
            if self.log.path is not None and (first or done.version):  # else it came back too late to begin
                end = {"version": done.version, "steps": done.steps, "model": digest(done.model)}
                try:
                    write_atomically(self.log.path.with_suffix(".json"), json.dumps(end).encode())
                except OSError as error:
                    why = error.strerror or error
                    raise DiskError(f"Cannot write beside {self.log.path}: {why}.") from error
