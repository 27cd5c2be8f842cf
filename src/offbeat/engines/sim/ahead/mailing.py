"""Agents that mail one another, or read each other's registers, without handlers: which of all events comes
when is found out as in the simulator, from numbers alone; what an agent makes at each is known (`machine`);
the arithmetic comes after.
"""

import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from offbeat.core.agent import Agent, View
from offbeat.core.rules import Rule, Scheduled
from offbeat.core.system.streams import BufferedStream, Purpose, python_stream
from offbeat.core.vector import Parts, Vector
from offbeat.engines.events import GradientDone, Heard, MailReceived, RegisterRead, Started
from offbeat.engines.recorder import Recorder
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.machine import ASKED, BEGIN, COMPUTED, Done, Machine, Mail, What
from offbeat.engines.sim.ahead.mail_values import INITIAL, NONE, MailValues
from offbeat.engines.sim.ahead.numbers import Question
from offbeat.engines.sim.ahead.placeholders import NotLinear
from offbeat.engines.sim.ahead.post import Letter, Post
from offbeat.engines.sim.ahead.rhythm import seen
from offbeat.engines.sim.heap import DELIVERY, GRADIENT
from offbeat.engines.sim.links import by_link
from offbeat.engines.trace import Trace, TraceSummary
from offbeat.tasks.task import Task
from offbeat.world.changes import finish
from offbeat.world.sending import senders, slowdowns
from offbeat.world.topology import Topology
from offbeat.world.world import World

PIECE = 1 << 17  # so many values are noted before they are made
WORTH = 2000, 4
"""So much is found out about what agents do; from then on more only while that is less than one in so many of
the events: else it does not pay.
"""


class MailRun:
    """A run of such agents, as an engine. Raises NoTimetable for others."""

    def __init__(
        self,
        new_agent: Callable[[], Agent],
        new_rule: Callable[[], Rule],
        topology: Topology,
        task: Task,
        world: World,
        keep_trace: bool,
    ) -> None:
        if isinstance(new_rule(), Scheduled):  # it counts its steps: each is another state
            raise NoTimetable
        n, seed, views, initial = topology.n, world.seed, topology.views(), task.initial()
        self.n, self.now, self._wave, self._number = n, 0.0, 0, 0
        self._rng = [python_stream(seed, Purpose.ALGORITHM, i) for i in range(n)]
        for i, view in enumerate(views):
            agent = new_agent()
            agent.join(i, n, Vector(initial), view, new_rule(), self._rng[i])
            agent.check()
        self._senders = senders(world, range(n))
        self._slow = [slowdowns(world, i, sends=False) for i in range(n)]
        streams = (Purpose.COMPUTE, world.compute_delay), (Purpose.COMMUNICATION, world.communication_delay)
        self._compute, self._send = (
            [BufferedStream(of(i).draw, seed, purpose, i) for i in range(n)] for purpose, of in streams
        )
        self._unicast, self._model_bytes = world.sending == "unicast", sum([part.nbytes for part in initial])
        self._machines, self._done, self._people, self._place = _machines(new_agent, new_rule, views)
        self._values = MailValues(task, n, seed, self._done)
        self._states = [machine.start for machine in self._machines]
        self._own = [[INITIAL] for _ in range(n)]  # of each agent the values that its state has
        self._numbers: list[Sequence[float]] = [() for _ in range(n)]  # and the numbers
        self._stamps: list[tuple[tuple[int, int], ...]] = [() for _ in range(n)]  # of others' versions
        self._versions, self.steps = [0] * n, [0] * n
        self._post, self._carried = Post(world, self._senders), dict[tuple[int, tuple[int, ...]], int]()
        self._heap: list[tuple[float, int, int, int, int, Any]] = []
        self._recorder, self._messages, self._bytes = Recorder(n, keep_trace), 0, 0
        self._kinds = dict[type, int]()  # as the trace numbers them

    # -- as an engine ------------------------------------------------------------------------------

    def start(self) -> None:
        """Every agent begins."""
        for i in range(self.n):
            self._recorder.event(Started(0.0, i))
            self._happens(i, BEGIN, ())

    def run(self, until: float) -> None:
        """All up to that time. Raises NoTimetable where it does not pay, or nothing happens any more."""
        heap, values, most = self._heap, self._values, self._values.many + PIECE
        while heap and heap[0][0] <= until:
            self.now, self._wave, priority, _, i, what = heappop(heap)
            if priority == GRADIENT:
                self._computed(i, what)
            else:
                self._arrived(i, *what)
            if values.many > most:
                self._make()
                most = values.many + PIECE
        if not heap or heap[0][0] == math.inf:
            raise NoTimetable
        self._make()

    @property
    def living(self) -> range:
        """All agents: none crashes."""
        return range(self.n)

    def everybody(self) -> Parts:
        """The agents' models, [n, P]."""
        return self._values.rows([own[0] for own in self._own])

    stacked = everybody

    def stalled(self) -> None:
        """Never, or there would have been no timetable."""

    def counts(self) -> tuple[int, int, int]:
        return sum(self.steps), self._messages, self._bytes

    def carried(self, sent: np.ndarray) -> dict[tuple[int, int], int]:
        """Bytes by link: sender, receiver; `sent` is not needed here."""
        return by_link(self._carried)

    def traced(self) -> Trace | TraceSummary:
        return self._recorder.traced()

    # -- events ------------------------------------------------------------------------------------

    def _computed(self, i: int, start: float) -> None:
        """A gradient is there; before it the agent reads what is new in registers."""
        now = self.now
        for (source, *_), (letter, came) in self._post.read(i):
            self._hears(RegisterRead, i, source, letter, came)
        self._recorder.event(GradientDone(now, i, self.steps[i], start, now))
        self._happens(i, COMPUTED, (self._values.gradient(i, self._own[i][ASKED]),))

    def _arrived(self, i: int, letter: Letter, there: Sequence[int], free: bool) -> None:
        """A transmission is with these receivers, who are told; perhaps the next begins."""
        if letter.given_to:
            self._post.leave(i, letter, there, self.now)
        else:
            for j in there:
                self._hears(MailReceived, j, i, letter, self.now)
        if free and (following := self._post.following(i)) is not None:
            self._transmit(i, following)

    def _hears(self, event: type[Heard], i: int, source: int, letter: Letter, came: float) -> None:
        """An agent is told."""
        kind, version = letter.kind, letter.version
        fields = self.now, i, source, self._kinds[kind], version, letter.start, came
        self._recorder.event(tuple.__new__(event, fields))
        what = self._place[i][source], kind, event is RegisterRead
        if letter.numbers:
            self._numbers[i] = (*self._numbers[i], *letter.numbers)
        self._happens(i, what, letter.values, (source, version))

    def _happens(self, i: int, what: What, heard: Sequence[int], stamp: tuple[int, int] = (-1, -1)) -> None:
        """An agent's handler: what it makes is noted, what it asks for done. Numbers that it hears come after
        those that the agent has.
        """
        done = self._states[i].after.get(what)
        if done.__class__ is not Done:
            done = self._found(i, what, done)
        own, values, varies, given = self._own[i], self._values, (), ()
        self._states[i], stamps = done.then, self._stamps[i]
        if done.counts is not None:
            try:
                self._numbers[i], varies, given = done.counts(self.now, self._numbers[i])
            except ArithmeticError:
                raise NoTimetable from None
        else:
            self._numbers[i] = ()
        if done.stamps or stamps:
            self._stamps[i] = tuple([stamp if k == len(stamps) else stamps[k] for k in done.stamps])
        if not done.idle:
            known = [*own, *heard]
            if done.forms:
                known += values.step(done.number, known, len(done.forms), varies)
            known.append(NONE)
            self._own[i] = [known[k] for k in done.kept]
        if done.wrote:
            self._versions[i] += 1
            self.steps[i] += done.computes
            mixed = {stamp if k == len(stamps) else stamps[k] for k in done.mixed}
            self._recorder.write(self.now, i, self.steps[i], sorted(mixed))
        for effect in done.effects:
            if effect is None:
                end = finish(self.now, self._compute[i](), self._slow[i])
                self._at(end, GRADIENT, i, self.now)
            else:
                self._give(i, effect, [known[k] for k in effect.vectors], given[effect.numbers])

    def _found(self, i: int, what: What, node: Done | Question | None) -> Done:
        """What an agent makes, where that is not known, or depends on what its handler asks."""
        places, key, answers = self._states[i].after, what, list[Any]()
        rng, numbers = self._rng[i], self._numbers[i]
        try:
            while node is not None and not isinstance(node, Done):
                key = node.answer(rng, self.now, numbers)
                answers.append(key)
                places = node.after
                node = places.get(key)
            return self._learned(i, what, answers, places, key) if node is None else node
        except (NotLinear, ArithmeticError):  # the simulator calls the handler, and says what is wrong
            raise NoTimetable from None

    def _learned(self, i: int, what: What, answers: list[Any], places: dict[Any, Any], key: Any) -> Done:
        """The same where its handler has to be read: it goes there, with what is asked on the way to it."""

        def ask(question: Question) -> Any:
            nonlocal places, key
            try:
                answer = question.answer(self._rng[i], self.now, self._numbers[i])
            except ArithmeticError:  # (which the handler might catch)
                raise NoTimetable from None
            places[key] = question
            places, key = question.after, answer
            return answer

        done = self._machines[i].look(self._states[i], what, answers, ask)
        places[key] = done
        if len(self._done) > WORTH[0] and len(self._done) * WORTH[1] > self._number:
            raise NoTimetable
        return done

    def _give(self, i: int, mail: Mail, vectors: list[int], numbers: Sequence[float]) -> None:
        """Letters begin to leave, or wait until those before have left; of a register the newest version."""
        to = tuple([self._people[i][k] for k in mail.to])
        size, given_to = len(vectors) * self._model_bytes, to if mail.published else ()
        for each in [(j,) for j in to] if self._unicast else [to]:
            letter = Letter(each, mail.kind, size, self._versions[i], [*vectors], numbers, given_to=given_to)
            if self._post.put(i, letter):
                self._transmit(i, letter)

    def _transmit(self, i: int, letter: Letter) -> None:
        size, sender, letter.start = letter.size, self._senders[i], self.now
        work = self._send[i]() * size / self._model_bytes
        if sender.uniform:
            end = sender.sent(self.now, work)
            self._at(end, DELIVERY, i, (letter, letter.to, True))
        else:
            end, instants = sender.instants(self.now, work, letter.to, waits=not letter.given_to)
            for instant, there in instants:
                self._at(instant, DELIVERY, i, (letter, there, instant == end))
        if letter.kind not in self._kinds:
            known = self._recorder.kinds
            self._kinds[letter.kind] = known.setdefault(letter.kind.__name__, len(known))
        key = i, letter.to
        self._carried[key] = self._carried.get(key, 0) + size
        self._messages, self._bytes = self._messages + 1, self._bytes + size
        self._recorder.transmissions.append(self.now, end, i, self._kinds[letter.kind], size)

    def _at(self, time: float, priority: int, i: int, what: Any) -> None:
        """As in `Heap.at`."""
        self._number += 1
        wave = self._wave + 1 if time <= self.now else 0
        heappush(self._heap, (time, wave, priority, self._number, i, what))

    def _make(self) -> None:
        """All values so far."""
        letters: list[Letter] = [each[5][0] for each in self._heap if each[2] == DELIVERY]
        once = {id(letter): letter.values for letter in [*letters, *self._post.letters()]}
        self._values.make([*self._own, *once.values()])


def _machines(
    new_agent: Callable[[], Agent], new_rule: Callable[[], Rule], views: Sequence[View]
) -> tuple[list[Machine], list[Done], list[dict[int, int]], list[dict[int, int]]]:
    """Those of all agents, one for all that see the same of the graph; all that they make; of each agent who
    those are that its machine knows by other names, and the inverse.
    """
    known, done = dict[Any, tuple[Machine, list[int]]](), list[Done]()
    machines, people, places = list[Machine](), list[dict[int, int]](), list[dict[int, int]]()
    everybody = [*range(len(views))] if new_agent().beyond_graph else None
    for i, view in enumerate(views):
        shape, around = seen(i, view, everybody)
        if shape not in known:
            known[shape] = Machine(new_agent, new_rule, i, len(views), view, done), around
        machine, names = known[shape]
        machines.append(machine)
        people.append(dict(zip(names, around, strict=True)))
        places.append(dict(zip(around, names, strict=True)))
    return machines, done, people, places
