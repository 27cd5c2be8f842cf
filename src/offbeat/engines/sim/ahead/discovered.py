"""What agents make at their events: found out as a run gets there (`machine`), told to the `loop`."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any, cast

import numpy as np

from offbeat.core.agent import Agent, View
from offbeat.core.rules import Rule
from offbeat.engines.sim.ahead.called import Called
from offbeat.engines.sim.ahead.compiled import BEGIN, COMPUTED, KINDS, LETTERS
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.loop import Loop
from offbeat.engines.sim.ahead.machine import BEGIN as BEGINS
from offbeat.engines.sim.ahead.machine import COMPUTED as IS_COMPUTED
from offbeat.engines.sim.ahead.machine import Done, Machine, Mail, State, What
from offbeat.engines.sim.ahead.numbers import Drawn, Question
from offbeat.engines.sim.ahead.placeholders import UNSEEN
from offbeat.engines.sim.ahead.rhythm import seen
from offbeat.engines.sim.ahead.timetable import begin_of

WORTH = 2000, 4
"""So much is found out about what agents do; from then on more only while that is less than one in so many of
the events: else it does not pay.
"""


class Discovered:
    """That of all agents of a run, one machine for all that see the same of the graph. So agents are names to
    their class: that it counts with its own number, or with another's, would not be found out.

    Args:
        agents: all of them, as they begin
        called: those whose handlers are called

    Attributes:
        machines: of each agent
        around: who is around each, in the order in which its machine has them by other names
        agents: those whose handlers are called
        done: all that handlers make, as far as it is known
        kinds: types of messages, by their numbers
        loop: the events, which are told; to be set before they begin
    """

    loop: Loop

    def __init__(
        self, new_agent: Callable[[], Agent], new_rule: Callable[[], Rule], agents: Sequence[Agent],
        called: Collection[int],
    ) -> None:  # fmt: skip
        self.machines, self.around, self.done = list[Machine](), list[list[int]](), list[Done]()
        self.kinds, self._kinds = list[type](), dict[type, int]()
        self._names, self._rngs = list[list[int]](), [agent.rng for agent in agents]
        self.agents, self._forms = dict[int, Called](), dict[tuple[int, ...], int]()
        known = dict[Any, tuple[Machine, list[int]]]()
        everybody = [*range(len(agents))] if agents[0].beyond_graph else None
        for i, agent in enumerate(agents):
            view = _unweighted(agent.view)
            shape, around = seen(i, view, everybody)
            if shape not in known:
                known[shape] = Machine(new_agent, new_rule, i, len(agents), view, self.done), around
            machine, names = known[shape]
            self.machines.append(machine)
            self._names.append(names)
            self.around.append(around)
            if i in called:
                self.agents[i] = Called(agent, {j: place for place, j in enumerate(around)}, self)
        self._holders, self._places = list[State | Question](), dict[State | Question, int]()
        self._questions = list[Question]()  # as the events number them

    @property
    def starts(self) -> list[int]:
        """The place of the state in which each begins."""
        return [self._place(machine.start) for machine in self.machines]

    def _place(self, holder: State | Question) -> int:
        if holder not in self._places:
            self._places[holder] = len(self._holders)
            self._holders.append(holder)
        return self._places[holder]

    def _what(self, i: int, code: int) -> What:
        """What happens to an agent, as its machine has it."""
        if code < LETTERS:
            return {BEGIN: BEGINS, COMPUTED: IS_COMPUTED}[code]
        place, kind = divmod((code - LETTERS) // 2, KINDS)
        return self._names[i][place], self.kinds[kind], bool((code - LETTERS) % 2)

    def draw(self, i: int, number: int) -> int:
        """The number of the answer to a question, which is drawn."""
        question = self._questions[number]
        assert isinstance(question, Drawn)
        return question.draw(self._rngs[i])

    def found(self, i: int, code: int, answers: Sequence[int]) -> int:
        """The number of what a handler makes where that is not known after these answers: it is read. Raises
        NoTimetable where that cannot be, or does not pay.
        """
        state, what = self._holders[self.loop.place(i)], self._what(i, code)
        assert isinstance(state, State)
        holder, key, edge, known = cast(State | Question, state), cast(Any, what), code, list[Any]()
        for edge in answers:
            question = holder.after[key]
            assert isinstance(question, Question)
            holder, key = question, question.value(edge)
            known.append(key)

        def ask(question: Question) -> Any:
            """What is asked on the way to it is what comes first, from now on."""
            nonlocal holder, key, edge
            answer = self._answer(i, question)
            self._leads(holder, key, edge, question)
            holder, key, edge = question, question.value(answer), answer
            return key

        try:
            done = self.machines[i].look(state, what, known, ask)
        except Exception:  # the simulator calls the handler, and says what is wrong, if anything is
            raise NoTimetable from None
        self.loop.made(self._words(i, done))
        self._leads(holder, key, edge, done)
        if len(self.done) > WORTH[0] and len(self.done) * WORTH[1] > self.loop.number:
            raise NoTimetable
        return done.number

    def step(self, lengths: tuple[int, ...]) -> int:
        """The number of forms with so many terms, whatever they are of and their coefficients are."""
        if lengths not in self._forms:
            first = begin_of(np.array(lengths)).tolist()
            forms = tuple([tuple([(k, 0.0, k) for k in range(*ends)]) for ends in pairwise(first)])
            self._forms[lengths] = len(self.done)
            nothing: Any = State(b"", ()), (), False, (), (), False, False
            self.done.append(Done(len(self.done), first[-1], forms, None, (), *nothing))
            self.loop.made([0] * 12)
        return self._forms[lengths]

    def _answer(self, i: int, question: Question) -> int:
        if isinstance(question, Drawn):
            return question.draw(self._rngs[i])
        try:
            return int(self.loop.evaluated(question.words, i)[0])
        except ArithmeticError:  # (which the handler might catch)
            raise NoTimetable from None

    def _leads(self, holder: State | Question, key: Any, edge: int, node: Question | Done) -> None:
        """That comes of a state, or of a question, when that happens, or is the answer."""
        holder.after[key] = node
        if not isinstance(node, Done):
            self.loop.asked(self._place(node), () if isinstance(node, Drawn) else node.words)
            self._questions.append(node)
        self.loop.learned(
            self._place(holder), edge, node.number if isinstance(node, Done) else -1 - len(self._questions)
        )

    def _words(self, i: int, done: Done) -> list[int]:
        """The same in numbers, as the events have it: see `Made` in `compiled/`."""
        groups = done.counts.groups if done.counts else ((), ())
        begin = len(done.forms), len(groups[1]), len(groups[0]), self._place(done.then)
        lists = done.kept, done.stamps, done.mixed, done.counts.words if done.counts else ()
        words = [
            *begin,
            done.wrote,
            done.computes,
            done.idle,
            len(done.effects),
            *chain(*map(_listed, lists)),
        ]
        for effect in done.effects:
            words += (-1,) if effect is None else self._mail(i, effect)
        return words

    def _mail(self, i: int, mail: Mail) -> list[int]:
        to = [self._names[i].index(name) for name in mail.to]
        ends = mail.numbers.start, mail.numbers.stop
        return [self.kind(mail.kind), mail.published, *_listed(to), *_listed(mail.vectors), *ends]

    def kind(self, kind: type) -> int:
        """The number of a type of messages."""
        if kind not in self._kinds:
            self._kinds[kind] = len(self.kinds)
            self.kinds.append(kind)
            if len({kind.__name__ for kind in self.kinds}) < len(self.kinds) or len(self.kinds) > KINDS:
                raise NoTimetable  # a trace knows types by their names
        return self._kinds[kind]


def _unweighted(view: View) -> View:
    """The same, but for weights: agents that differ in these alone are alike to a class that does not use
    them. One that does is found out.
    """
    return replace(view, w=dict.fromkeys(view.w, UNSEEN), a=dict.fromkeys(view.a, UNSEEN))


def _listed(words: Sequence[int]) -> tuple[int, ...]:
    return len(words), *words
