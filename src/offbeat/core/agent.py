"""The contract between an algorithm and whatever runs it.

An algorithm is a class, one object an agent: *events come in, effects go out, no I/O inside*. A deterministic
simulator and a runtime of real processes drive the same class.

What the engine promises
------------------------
1. `start` comes first, once. An agent that returns after a crash gets `rejoin` in its place.
2. Handlers are never re-entered and never overlap.
3. `self.now` does not decrease.
4. `send` is mail: each pair delivers in order, exactly once, while both live.
5. `publish` is a register, one per (message type, receivers): the newest wins, any may be skipped or lost,
   none ever goes back. Registers are read at one moment: what is new is handed to `on_message` just before
   `on_gradient`, one version of each. What came out of a register is late bound: kept in a field, it moves
   on with the register. `pin(v)` keeps the value.
6. `accumulate` is exactly once: what has not left yet is summed into one message, and then it is mail. Sums
   of two types, or for other receivers of which one is the same, are kept apart: mail keeps its order.
7. `on_gradient(g)` answers the one outstanding `compute(x)`, with the gradient *at that x*, on a fresh
   minibatch from the agent's own stream.
8. When a peer is lost or returns, `on_view` brings the new weights: a lost peer's weight is on the diagonal.
   Nothing of a lost peer arrives then; a returned one starts with a neighbour's newest model and `round`.
9. `self.rng` is this agent's own; delays, losses and data come from other streams, so that another algorithm
   in the same world meets the same delays.

What the agent promises
-----------------------
- (a) No I/O, no clock, no thread, no global randomness: only the events and `self`.
- (b) A vector that was given away is never changed: write `self.x = self.x + d`.
- (c) At most one `compute` is outstanding.
- (d) Messages are frozen dataclasses of vectors and numbers.
- (e) State is plain fields (no lambdas, no open files), so that an agent can be pickled.
- (f) Iterate over lists and dicts, never over sets.
- (g) Never write `lr * g`: write `self.rule(g)`, so that momentum or the user's own optimizer can replace it.
- (h) Control flow does not look at values of vectors, unless the algorithm is about that.
- (i) Messages go to neighbours, `view.peers`, unless the class says `beyond_graph = True`.
- (j) `on_view` keeps the view that it is given: `self.view = view`.
- (k) Nothing that changes belongs to the class: its agents, and its runs, would share it.

What costs next to nothing is always checked (`offbeat.core.promises`); b, e, and the engine's promises by
`check=True`, as in `offbeat.compare([Mine], check=True)` (`offbeat.engines.sim.checks`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import index
from random import Random
from typing import Any, ClassVar, Protocol

from offbeat.core.errors import ContractError
from offbeat.core.rules import Rule, bind
from offbeat.core.vector import Vector

Message = Any  # a frozen dataclass whose fields are vectors and numbers


@dataclass(frozen=True)
class View:
    """What an agent knows of the graph, at present.

    Attributes:
        w: j -> w_ij, the agent's own row of the row-stochastic matrix W, itself included, by rising j.
        a: j -> a_ji, its own column of the column-stochastic A, likewise; the same if weights are symmetric.
        listeners: who mixes this agent's model: every j != i with w_ji > 0.
        side: 0 or 1 in the two-colouring of a bipartite graph, None on any other graph.
        peers: who shares an edge with this agent, in either direction.
        chi: (chi_1, chi_2) of arXiv:2306.08289, of the whole graph where each agent asks a random neighbour
            once in a unit of time; None on a directed graph, and for more than 100 agents
        server: who serves, in an algorithm with a server: the hub of the graph; agent 0, if it has none.
        parent, children: who is above and below this agent in the spanning tree that has the fewest hops to
            `server`, of the whole graph whoever is lost; None above the server
        changing: on a graph that changes from round to round, what this agent knows of that; `at(k)` is what
            holds in round k. w and a are 1, then, and nobody listens; peers are those of all rounds
    """

    w: Mapping[int, float]
    a: Mapping[int, float]
    listeners: tuple[int, ...]
    side: int | None = None
    peers: tuple[int, ...] = ()
    server: int = 0
    chi: tuple[float, float] | None = field(default=None, compare=False)
    parent: int | None = field(default=None, compare=False)
    children: tuple[int, ...] = field(default=(), compare=False)
    changing: "Changing | None" = None

    def at(self, k: int) -> "View":
        """w, a and listeners in round k: of a graph that stands still those that it has."""
        return self if self.changing is None else self.changing.at(k)


class Changing(Protocol):
    """What an agent knows of a graph that changes with the rounds: a frozen dataclass."""

    def at(self, k: int) -> View:
        """The view of round k."""


@dataclass(slots=True)
class Compute:
    """Evaluate the gradient at x."""

    x: Vector


@dataclass(slots=True)
class Send:
    """Mail."""

    to: tuple[int, ...]
    message: Message


@dataclass(slots=True)
class Publish:
    """A register: newest wins."""

    to: tuple[int, ...]
    message: Message


@dataclass(slots=True)
class Accumulate:
    """Mail whose unsent predecessors are added to it, field by field."""

    to: tuple[int, ...]
    message: Message


@dataclass(slots=True)
class Alarm:
    """Call `on_alarm(name)` after a while."""

    after: float
    name: str


Effect = Compute | Send | Publish | Accumulate | Alarm


@dataclass
class Agent:
    """One agent's algorithm as a state machine. Subclass it, and override what you need.

    The engine calls `join` before `start`; from then on these fields are there:

    Attributes:
        me, n: this agent's index and how many agents there are
        x: its model x_i
        view: its weights and its listeners (`View`)
        rule: the local rule, g -> what to subtract from the model (lr * g for plain SGD)
        rng: its own random stream (a `random.Random`)
        now: the time; in a simulation the simulated one
        round: for algorithms that count rounds; a returning agent gets its donor's
        local_steps: how many gradients it takes for each that `on_gradient` sees; a class that can do with
            more than one says so by a field of its own, `local_steps: int = 1`
        taken: how many gradients it has taken since `on_gradient` saw one
        delay: how many steps late the gradient is that `rule` is given next; of a class that says
            `knows_delay = True`, where a schedule may go by it
        beyond_graph: of the class: whether its messages may go to agents that are no neighbours
        changing_graph: of the class: whether the graph may change from round to round: it looks at
            `view.at(k)` in round k, or at no graph at all
        sends_models: of the class: messages, published or mailed, that carry a model which the next one
            replaces: it may arrive rounded (`offbeat.core.compression`)
        sends_changes: of the class: messages that are accumulated: part of one may arrive with a later one
        blocks: of the class: whether agents share out one model: each writes its own block and reads the
            others' when its gradient begins. How old these are is measured accordingly
        one_model: of the class: whether all agents have one and the same model, which nothing but everybody's
            making the same step keeps so
    """

    beyond_graph: ClassVar[bool] = False
    changing_graph: ClassVar[bool] = False
    knows_delay: ClassVar[bool] = False
    sends_models: ClassVar[tuple[type, ...]] = ()
    sends_changes: ClassVar[tuple[type, ...]] = ()
    blocks: ClassVar[bool] = False
    one_model: ClassVar[bool] = False

    me: int = field(init=False, default=-1)
    n: int = field(init=False, default=0)
    x: Vector = field(init=False, repr=False)
    view: View = field(init=False, repr=False)
    rule: Rule = field(init=False, repr=False)
    rng: Random = field(init=False, repr=False)
    now: float = field(init=False, default=0.0)
    round: int = field(init=False, default=0)
    local_steps: int = field(init=False, default=1)
    taken: int = field(init=False, default=0)
    delay: int = field(init=False, default=0)
    effects: list[Effect] = field(init=False, repr=False, default_factory=list)

    def join(self, me: int, n: int, x: Vector, view: View, rule: Rule, rng: Random) -> None:
        """Give the agent its place in a run. Engines call this, before `start`."""
        self.me, self.n, self.x, self.view, self.rule, self.rng = me, n, x, view, rule, rng
        bind(rule, self)

    # -- what an algorithm overrides ---------------------------------------------------------------

    def check(self) -> None:
        """Raise `SettingError` if the algorithm cannot run here. Called after `join`, before any work."""

    def start(self) -> None:
        """The first event."""
        self.compute(self.x)

    def rejoin(self) -> None:
        """The first event of an agent that returns; `x` and `round` are a neighbour's."""
        self.start()

    def resume(self) -> None:
        """The first event of an agent whose fields came out of a checkpoint, its `compute` still outstanding.

        Whatever was on its way then is gone. Default: as if every peer had been lost and come back.
        """
        view = self.view
        self.on_view(View({self.me: 1.0}, {self.me: 1.0}, (), view.side, server=view.server))
        self.on_view(view)

    def resume_on(self, view: View) -> None:
        """The first event of an agent whose fields came out of a checkpoint of a run on another graph: that
        of `self.view`. Default: every peer there is lost, and `resume` on the new one.
        """
        self.on_view(View({self.me: 1.0}, {self.me: 1.0}, (), view.side, server=view.server))
        self.view = view
        self.resume()

    def on_gradient(self, g: Vector) -> None:
        """The answer to the outstanding `compute`."""
        name = type(self).__name__
        raise ContractError(f"{name} must say what it does with a gradient: override on_gradient.")

    def on_local_gradient(self, g: Vector) -> None:
        """A gradient between two that `on_gradient` sees: a step on one's own. Default: x <- x - rule(g)."""
        self.x = self.x - self.rule(g)
        self.compute(self.x)

    def take(self, g: Vector) -> None:
        """Engines call this: `on_gradient` at each `local_steps`-th gradient, a local step at the others."""
        self.taken = (self.taken + 1) % self.local_steps
        if self.taken:
            self.on_local_gradient(g)
        else:
            self.on_gradient(g)

    def on_message(self, src: int, message: Message) -> None:
        """Mail, when it arrives; what is new in a register, just before `on_gradient`."""

    def on_alarm(self, name: str) -> None:
        """An alarm went off."""

    def on_view(self, view: View) -> None:
        """A peer was lost or has returned."""
        self.view = view

    @property
    def model(self) -> Vector:
        """What is evaluated, and what a returning neighbour starts from. Default: `x`.

        The same object until it changes: that it is another one is how an engine knows of a write.
        """
        return self.x

    # -- what an algorithm calls -------------------------------------------------------------------

    def compute(self, x: Vector) -> None:
        """Ask for the gradient at x."""
        self.effects.append(Compute(x))

    def send(self, to: int | Iterable[int], message: Message) -> None:
        """Mail: in order, exactly once."""
        self.effects.append(Send(_receivers(to), message))

    def publish(self, to: int | Iterable[int], message: Message) -> None:
        """A register: the newest wins."""
        self.effects.append(Publish(_receivers(to), message))

    def accumulate(self, to: int | Iterable[int], message: Message) -> None:
        """Mail, exactly once; what has not left yet is summed."""
        self.effects.append(Accumulate(_receivers(to), message))

    def alarm(self, after: float, name: str) -> None:
        """Ask for `on_alarm(name)` in `after` units of time."""
        if not after >= 0:
            raise ContractError(f"an alarm was set {after} units ahead; expected a number >= 0.")
        self.effects.append(Alarm(after, name))

    def drain(self) -> list[Effect]:
        """Take the effects of the last handler. Engines and tests call this."""
        effects, self.effects = self.effects, []
        return effects


def _receivers(to: int | Iterable[int]) -> tuple[int, ...]:
    if type(to) is tuple:
        return to
    if type(to) is int:
        return (to,)
    return tuple(map(index, to)) if hasattr(to, "__iter__") else (index(to),)
