"""What agents make at their events: found out as a run gets there (`machine`), told to the `loop`."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, count
from typing import Any, cast

from offbeat.core.agent import Agent, View
from offbeat.core.rules import Rule
from offbeat.core.vector import Stamp
from offbeat.engines.sim.ahead.called import Called
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.loop import BEGIN, COMPUTED, KINDS, LETTERS, Loop
from offbeat.engines.sim.ahead.machine import BEGIN as BEGINS
from offbeat.engines.sim.ahead.machine import COMPUTED as IS_COMPUTED
from offbeat.engines.sim.ahead.machine import Done, Machine, Mail, State, What
from offbeat.engines.sim.ahead.numbers import Drawn, Question
from offbeat.engines.sim.ahead.placeholders import NotLinear
from offbeat.engines.sim.ahead.rhythm import seen

WORTH = 2000, 4
"""So much is found out about what agents do; from then on more only while that is less than one in so many of
the events: else it does not pay.
"""


class Discovered:
    """That of all agents of a run, one machine for all that see the same of the graph.

    Attributes:
        machines: of each agent
        around: who is around each, in the order in which its machine has them by other names
        done: all that handlers make, as far as it is known
        kinds: types of messages, by their numbers
    """

    def __init__(
        self, new_agent: Callable[[], Agent], new_rule: Callable[[], Rule], views: Sequence[View],
        rngs: Sequence[Any], agents: Mapping[int, Called],
    ) -> None:  # fmt: skip
        self.machines, self.around, self.done = list[Machine](), list[list[int]](), list[Done]()
        self.kinds, self._names, self._rngs = list[type](), list[list[int]](), rngs
        known = dict[Any, tuple[Machine, list[int]]]()
        everybody = [*range(len(views))] if new_agent().beyond_graph else None
        for i, view in enumerate(views):
            shape, around = seen(i, view, everybody)
            if shape not in known:
                known[shape] = Machine(new_agent, new_rule, i, len(views), view, self.done), around
            machine, names = known[shape]
            self.machines.append(machine)
            self._names.append(names)
            self.around.append(around)
        self._holders, self._places = list[State | Question](), dict[State | Question, int]()
        self._questions = list[Question]()  # as the events number them
        self.agents, self._forms = agents, dict[tuple[int, tuple[tuple[int, ...], ...]], int]()
        self._places_of = {i: {j: place for place, j in enumerate(self.around[i])} for i in agents}

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

    def found(self, loop: Loop, i: int, code: int, answers: Sequence[int]) -> int:
        """The number of what a handler makes where that is not known after these answers: it is read. Raises
        NoTimetable where that cannot be, or does not pay.
        """
        state, what = self._holders[loop.place(i)], self._what(i, code)
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
            answer = self._answer(loop, i, question)
            self._leads(loop, holder, key, edge, question)
            holder, key, edge = question, question.value(answer), answer
            return key

        try:
            done = self.machines[i].look(state, what, known, ask)
        except (NotLinear, ArithmeticError):  # the simulator calls the handler, and says what is wrong
            raise NoTimetable from None
        loop.made(self._words(i, done))
        self._leads(loop, holder, key, edge, done)
        if len(self.done) > WORTH[0] and len(self.done) * WORTH[1] > loop.number:
            raise NoTimetable
        return done.number

    def called(
        self, loop: Loop, i: int, code: int, values: Sequence[int], numbers: Sequence[float], source: Stamp
    ) -> tuple[Sequence[float], Sequence[int]]:
        """What a handler makes that is called."""
        agent, when = self.agents[i], (loop.now, loop.many)
        try:
            if code == BEGIN:
                made = agent.begins(*when)
            elif code == COMPUTED:
                made = agent.computed(*when, *values)
            else:
                made = agent.hears(*when, source, self.kinds[(code - LETTERS) // 2 % KINDS], values, numbers)
        except Exception:  # the simulator says what is wrong, if anything is
            raise NoTimetable from None
        many = len(made.known)
        forms = tuple([tuple([k if k >= 0 else many - 1 - k for k in form]) for form in made.forms])
        begin = len(forms), len(made.coefficients), 0, 0, made.wrote, made.computes, False, len(made.mail)
        kept, step = (
            [k if k >= 0 else many - 1 - k for k in (made.model, made.asked)],
            self._step(loop, many, forms),
        )
        lists = kept, (), range(len(made.mixed)), ()
        versions = [x for stamp in made.mixed for x in stamp]
        words = [*_listed(made.known), *_listed(versions), step, *begin, *chain(*map(_listed, lists))]
        given = list[float]()
        for mail in made.mail:
            if mail is None:
                words.append(-1)
                continue
            to, kind, vectors, its = mail
            places = [self._places_of[i][j] for j in to]
            vectors = [k if k >= 0 else many - 1 - k for k in vectors]
            words += [
                self._kind(kind),
                False,
                *_listed(places),
                *_listed(vectors),
                len(given),
                len(given) + len(its),
            ]
            given += its
        return [*made.coefficients, *given], words

    def _step(self, loop: Loop, known: int, forms: tuple[tuple[int, ...], ...]) -> int:
        """The number of such forms, whatever their coefficients are."""
        if not forms:
            return -1
        if (known, forms) not in self._forms:
            which = count()
            varying = tuple([tuple([(k, 0.0, next(which)) for k in form]) for form in forms])
            nowhere = State(b"", ())
            number = len(self.done)
            self.done.append(Done(number, known, varying, None, (), nowhere, (), False, (), (), False, False))
            loop.made([0] * 12)
            self._forms[known, forms] = number
        return self._forms[known, forms]

    def _answer(self, loop: Loop, i: int, question: Question) -> int:
        if isinstance(question, Drawn):
            return question.draw(self._rngs[i])
        try:
            return int(loop.evaluated(question.words, i)[0])
        except ArithmeticError:  # (which the handler might catch)
            raise NoTimetable from None

    def _leads(
        self, loop: Loop, holder: State | Question, key: Any, edge: int, node: Question | Done
    ) -> None:
        """That comes of a state, or of a question, when that happens, or is the answer."""
        holder.after[key] = node
        if not isinstance(node, Done):
            loop.asked(self._place(node), () if isinstance(node, Drawn) else node.words)
            self._questions.append(node)
        loop.learned(
            self._place(holder), edge, node.number if isinstance(node, Done) else -1 - len(self._questions)
        )

    def _words(self, i: int, done: Done) -> list[int]:
        """The same in numbers, as the events have it: see `Made` in mailing.c."""
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
        return [self._kind(mail.kind), mail.published, *_listed(to), *_listed(mail.vectors), *ends]

    def _kind(self, kind: type) -> int:
        """The number of a type of messages."""
        if kind not in self.kinds:
            self.kinds.append(kind)
            if len({kind.__name__ for kind in self.kinds}) < len(self.kinds) or len(self.kinds) > KINDS:
                raise NoTimetable  # a trace knows types by their names
        return self.kinds.index(kind)


def _listed(words: Sequence[int]) -> tuple[int, ...]:
    return len(words), *words
