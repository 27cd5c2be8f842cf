"""Drives one agent of a live run: who may call its handlers when (what it hears: `hearing`).

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
from threading import RLock, Thread
from typing import Any

from offbeat.core.agent import Agent
from offbeat.core.errors import ContractError, DiskError
from offbeat.core.system.files import write_atomically
from offbeat.core.system.lifeline import readable
from offbeat.core.vector import Vector
from offbeat.engines.events import GradientDone, LossKnown, PeerMet, Rejoined, Resumed, Saved, Started
from offbeat.engines.live.node import checkpoint
from offbeat.engines.live.node.guard import IGNORE, Guard
from offbeat.engines.live.node.hearing import Hearing
from offbeat.engines.live.node.log import Log, Logged
from offbeat.engines.live.node.performer import Clock, Performer, digest
from offbeat.engines.live.node.send_queue import Link
from offbeat.engines.live.node.transport import Transport
from offbeat.engines.live.shm.board import Order, Row, State
from offbeat.world.topology import Topology

LONGEST = 0.05
"""Seconds: nobody sleeps longer while something waits to be sent."""


class Stopped(Exception):
    """The run has been asked to stop."""


class Driver:
    """One agent of a live run.

    Attributes:
        agent: joined, with its model, view, rule and random stream
        topology: of the whole run
        transport: how to reach the others; None: there are none
        log: where the trace goes
        unit: seconds in a unit of the agent's time
        link: emulates the delays of a world; None: as fast as the machine is
        lifeline: a file that can be read when the launcher is gone
        on_nan: what is done with numbers that are not finite
    """

    def __init__(
        self, agent: Agent, topology: Topology, transport: Transport | None, log: Log, unit: float = 1.0,
        link: Link | None = None, lifeline: int | None = None, on_nan: str = IGNORE,
    ) -> None:  # fmt: skip
        self.agent, self.topology, self.transport, self.log = agent, topology, transport, log
        self.clock = Clock(unit)
        self.guard = Guard(agent.me, on_nan, None if transport is None else transport.row)
        self.performer = Performer(agent, transport, log, self.clock, link, self.guard)
        self.actor = self.performer.actor
        self.lifeline = [] if lifeline is None else [lifeline]
        self.lock = RLock()
        self.me = agent.me
        self.hearing = Hearing(self.performer, topology, transport)
        self.snapshot: Vector | None = None  # where the last one was
        self.deadline = math.inf
        """When the run ends, in units."""
        self._closed = self._orphaned = False
        self._thread: Thread | None = None
        self._failed: BaseException | None = None  # what ended the second thread

    # -- what the training thread calls ------------------------------------------------------------

    def join(self) -> None:
        """Say that the agent is ready, and wait until it belongs to the run. Raises Stopped if the run ends
        first.
        """
        if self.transport is None:
            return
        transport, board = self.transport, self.transport.board
        transport.row[Row.STATE] = State.JOINED
        transport.tell_launcher()
        mine = (self.me, transport.incarnation)
        while board.order is Order.WAIT or mine not in board.since(0):
            if board.order >= Order.STOP or readable(self.lifeline, 0.0):
                raise Stopped  # no deadline before the start
            transport.bell.wait(LONGEST, self.lifeline)
            transport.bell.quiet()
        if board.order >= Order.STOP:
            raise Stopped  # let in only to be let out; there may be no clock
        self.clock.zero = board.zero
        before = board.since(0)
        transport.membership = max(before.index(mine) + 1, board.n)  # the first n let everybody in
        for agent, incarnation in before[: transport.membership]:
            self.hearing.member(agent, incarnation)
        transport.floor = transport.membership if transport.incarnation > 1 else 0
        self.agent.view = self.topology.view(self.me, self.hearing.alive)
        transport.row[Row.STATE] = State.RUNNING

    def start(self) -> Vector:
        """The first event; returns where the first gradient is to be taken."""
        with self.lock:
            self.performer.handle(Started(self.clock.now(), self.me))
            return self._next()

    def rejoin(self, x: Vector, round_: int, donor: int, position: int) -> Vector:
        """The first event of an agent that has come back, with a neighbour's model and round."""
        with self.lock:
            for j in range(self.topology.n):
                if j not in self.hearing.alive:
                    self.log.rows.event(LossKnown(self.clock.now(), self.me, j))
                elif self.transport is not None and (incarnation := self.transport.alive.get(j, 1)) > 1:
                    self.log.rows.event(PeerMet(self.clock.now(), self.me, j, incarnation))
            self.agent.x = self.actor.model = x
            self.agent.round = round_
            version = x.stamp.version if x.stamp is not None else 0
            incarnation = 1 if self.transport is None else self.transport.incarnation
            self.performer.handle(Rejoined(self.clock.now(), self.me, donor, version, position, incarnation))
            return self._next()

    def step(self, g: Vector) -> Vector:
        """The gradient that was asked for: returns where the next one is to be taken. Raises Stopped."""
        with self.lock:
            began = time.monotonic_ns()
            self._refuse_failed()
            self.hearing.serve(self._over())
            self._check_order()
            start, self.snapshot, self.actor.at = self._started, self.actor.at, None
            self.hearing.read_registers()
            end = self.clock.now()
            self.performer.handle(GradientDone(self.clock.now(), self.me, self.actor.steps, start, end), g)
            x = self._next()
            if self.transport is not None:
                row, ended = self.transport.row, time.monotonic_ns()
                row[Row.MIXED] += ended - began
                row[Row.LAST] = ended
                if not row[Row.FIRST]:
                    row[Row.FIRST] = ended
                if self._sleep() is not None:  # the second thread may not know of it
                    self.transport.bell.ring()
            return x

    def resume(self, state: Mapping[str, Any]) -> Vector:
        """The first event of an agent that goes on from a checkpoint: what `state` gave."""
        with self.lock:
            checkpoint.restore_agent(self.agent, state["agent"])
            self.actor.model, self.actor.at = self.agent.model, state["at"]
            self.actor.steps = state["steps"]
            self.performer.handle(Resumed(self.clock.now(), self.me, state["version"]))
            return self._next()

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs of the agent. Call it with the lock, between steps."""
        self._refuse_failed()
        agent = checkpoint.agent_state(self.agent)  # registers may move on, which is logged before
        self.log.rows.event(Saved(self.clock.now(), self.me, self.actor.version))
        self.log.flush()
        return {
            "agent": agent,
            "at": self.actor.at,
            "version": self.actor.version,
            "steps": self.actor.steps,
            "time": self.clock.now(),
        }

    def restore_counts(self, before: Logged) -> None:
        """Go on counting versions and steps where this agent's earlier lives ended."""
        self.actor.version = len(before.writes)
        self.actor.steps = int(before.writes["step"].max(initial=0))

    def _next(self) -> Vector:
        """Wait for the agent to ask for a gradient, handling whatever comes."""
        began = 0
        while self.actor.at is None:
            began = began or time.monotonic_ns()
            self._check_order()
            if self.transport is None:
                self._idle()
            else:
                ready = self.transport.bell.wait(self._sleep(), self.lifeline)
                self._orphaned = self._orphaned or any(file in ready for file in self.lifeline)
                self.transport.bell.quiet()
            self.hearing.serve(self._over())
        if began and self.transport is not None:
            self.transport.row[Row.WAITED] += time.monotonic_ns() - began
        self._started = self.clock.now()
        return self.actor.at

    def _idle(self) -> None:
        if not self.performer.alarms:
            raise ContractError(f"{type(self.agent).__name__} waits, alone, and nothing will come.")
        time.sleep(max(0.0, self.performer.alarms[0][0] - self.clock.now()) * self.clock.unit)

    def _check_order(self) -> None:
        if self._over() or self._orphaned or (self._thread is None and readable(self.lifeline, 0.0)):
            raise Stopped

    def _over(self) -> bool:
        stopped = self.transport is not None and self.transport.board.order >= Order.STOP
        return stopped or self.clock.now() >= self.deadline

    # -- the second thread -------------------------------------------------------------------------

    def attend(self) -> None:
        """Start the thread that answers while the training thread is elsewhere."""
        if self.transport is not None:
            self._thread = Thread(target=self._attend, name="offbeat", daemon=True)
            self._thread.start()

    def _attend(self) -> None:
        try:
            self._answer()
        except BaseException as error:
            self._failed = error

    def _refuse_failed(self) -> None:
        """What the second thread met is raised where it ends the script."""
        if self._failed is not None:
            raise self._failed

    def _answer(self) -> None:
        assert self.transport is not None
        while not self._closed:
            ready = self.transport.bell.wait(self._sleep(), self.lifeline)
            if ready and ready != [self.transport.bell.handle]:
                self._orphaned = True  # the launcher is gone
                return
            with self.lock:
                if not self._closed:
                    self.transport.bell.quiet()
                    self.hearing.serve(self._over())

    def leave(self) -> None:
        """Done: say so, and answer mail until everybody is."""
        if self.transport is None:
            return
        row, board = self.transport.row, self.transport.board
        row[Row.STATE] = State.LEFT
        self.transport.tell_launcher()
        while board.order < Order.END and not readable(self.lifeline, LONGEST):
            self._refuse_failed()

    def close(self) -> None:
        """End the second thread, and the log."""
        self._closed = True
        if self._thread is not None and self.transport is not None:
            self.transport.bell.ring()
            self._thread.join()
        self._refuse_failed()
        with self.lock:
            self.log.close()
            if self.log.path is not None:
                done = self.actor
                end = {"version": done.version, "steps": done.steps, "model": digest(done.model)}
                try:
                    write_atomically(self.log.path.with_suffix(".json"), json.dumps(end).encode())
                except OSError as error:
                    raise DiskError(
                        f"Cannot write beside {self.log.path}: {error.strerror or error}."
                    ) from error

    def _sleep(self) -> float | None:
        """Seconds until something is due; None: as long as the bell does not ring."""
        due = min(
            self.performer.queue.due,
            self.performer.alarms[0][0] if self.performer.alarms else math.inf,
            self.deadline,
        )
        if due == math.inf:
            return None
        return LONGEST if due == -math.inf else max(0.0, (due - self.clock.now()) * self.clock.unit)
