"""Local rules: from a gradient to what is subtracted from the model.

Agents never write `lr * g`, they write `self.rule(g)`; so an algorithm is stated once for plain SGD, momentum
and adaptive steps. A rule belongs to one agent and keeps that agent's state, which is vectors and numbers: a
checkpoint takes `state` and gives it back by `restore`. One that needs more than the gradient, as the model
that decays, or the time, has `bind`, which is given the agent when that joins a run.

Their names on the command line are in `offbeat.core.optimizers`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol

from offbeat.core.errors import ContractError
from offbeat.core.forms import pin
from offbeat.core.schedules import Schedule
from offbeat.core.vector import Parts, Vector, applied

Rule = Callable[[Vector], Vector]  # g -> u, the displacement in x <- x - u
NewRule = Callable[[float], Rule]  # of a learning rate


class Stepping(Protocol):
    """What a rule may ask of its agent."""

    n: int
    now: float
    delay: int

    @property
    def model(self) -> Vector: ...


class Kept:
    """A rule that keeps something: its fields that nobody gives it."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs of it."""
        return {name: getattr(self, name) for name in self._names()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of another rule of this class."""
        for name in self._names():
            setattr(self, name, state[name])

    def _names(self) -> list[str]:
        return [each.name for each in fields(self) if not each.init and each.name != "agent"]  # type: ignore[arg-type]


@dataclass
class SGD:
    """u = lr g."""

    lr: float

    def __call__(self, g: Vector) -> Vector:
        return self.lr * g


@dataclass
class Momentum(Kept):
    """m <- momentum m + g, m = g at first, u = lr m: the heavy ball, as `torch.optim.SGD` computes it."""

    plain: ClassVar[bool] = False
    lr: float
    momentum: float = 0.9
    m: Vector | None = field(init=False, default=None)

    def __call__(self, g: Vector) -> Vector:
        self.m = pin(g) if self.m is None else self.momentum * self.m + g
        return self.lr * self.m


@dataclass
class Nesterov(Momentum):
    """m as `Momentum` has it, u = lr (g + momentum m), as `torch.optim.SGD(nesterov=True)` computes it."""

    def __call__(self, g: Vector) -> Vector:
        super().__call__(g)
        assert self.m is not None
        return self.lr * (g + self.momentum * self.m)


@dataclass
class AdamW(Kept):
    """u = lr m_hat / (sqrt(v_hat) + eps) + lr weight_decay x, x the agent's model (arXiv:1711.05101).

        m <- beta1 m + (1 - beta1) g,   m_hat = m / (1 - beta1^t)
        v <- beta2 v + (1 - beta2) g^2, v_hat = v / (1 - beta2^t)

    As `torch.optim.AdamW`; without weight decay it is Adam (arXiv:1412.6980).
    """

    plain: ClassVar[bool] = False
    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    t: int = field(init=False, default=0)
    m: Vector | None = field(init=False, default=None)
    v: Vector | None = field(init=False, default=None)
    agent: Stepping | None = field(init=False, default=None, repr=False, compare=False)

    def bind(self, agent: Stepping) -> None:
        """It is this agent's model that decays."""
        self.agent = agent if self.weight_decay else None

    def __call__(self, g: Vector) -> Vector:
        self.t += 1
        new = (1.0 - self.beta1) * g
        self.m = m = new if self.m is None else self.beta1 * self.m + new
        self.v = v = self._second(g, self.v)
        u = self._displacement(m, v, self.t)
        if not self.weight_decay:
            return u
        if self.agent is None:
            raise ContractError("AdamW's weight decay is of an agent's model: `bind` the rule to one first.")
        return u + (self.lr * self.weight_decay) * self.agent.model

    def _second(self, g: Vector, before: Vector | None) -> Vector:
        """v, the mean of squares."""

        def value(g: Parts, before: Parts | None = None) -> Parts:
            squares = [(1.0 - self.beta2) * part.square() for part in g]
            if before is None:
                return tuple(squares)
            return tuple(self.beta2 * old + new for old, new in zip(before, squares, strict=True))

        return applied(value, *([g] if before is None else [g, before]), of=(g,))

    def _displacement(self, m: Vector, v: Vector, t: int) -> Vector:
        first, second, lr = 1.0 - self.beta1**t, 1.0 - self.beta2**t, self.lr

        def value(m: Parts, v: Parts) -> Parts:
            pairs = zip(m, v, strict=True)
            return tuple(lr * (a / first) / ((b / second).sqrt() + self.eps) for a, b in pairs)

        return applied(value, m, v, of=(m, v))


@dataclass
class Scheduled(Kept):
    """u = s rule(g), s <= 1 the share of the learning rate that the schedule has now.

    Attributes:
        taken: how many steps it has made
    """

    rule: Rule
    schedule: Schedule
    taken: int = field(init=False, default=0)
    agent: Stepping | None = field(init=False, default=None, repr=False, compare=False)

    @property
    def plain(self) -> bool:
        return getattr(self.rule, "plain", True)

    @property
    def lr(self) -> float:
        """The learning rate at present, of a rule that has one."""
        lr: float = self.rule.lr  # type: ignore[attr-defined]
        return self.share * lr

    @property
    def share(self) -> float:
        """Of the learning rate, at present."""
        agent = self.agent
        if agent is None:
            raise ContractError("A schedule goes by an agent's clock: `bind` the rule to one first.")
        at = float(self.taken) if self.schedule.by_steps else agent.now
        return self.schedule.at(at) * self.schedule.of_delay(agent.delay, agent.n)

    def bind(self, agent: Stepping) -> None:
        """The clock is this agent's."""
        self.agent = agent
        bind(self.rule, agent)

    def __call__(self, g: Vector) -> Vector:
        self.taken += 1
        return self.share * self.rule(g)

    def state(self) -> dict[str, Any]:
        """How many steps, and what the rule keeps."""
        return super().state() | {"rule": state_of(self.rule)}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        restore(self.rule, state["rule"])


def bind(rule: Rule, agent: Stepping) -> None:
    """Give the rule its agent, if it wants to know it."""
    if (wanted := getattr(rule, "bind", None)) is not None:
        wanted(agent)


def state_of(rule: Rule) -> dict[str, Any]:
    """What a checkpoint needs of a rule; nothing of one that keeps nothing, or sees to that itself."""
    return rule.state() if isinstance(rule, Kept) else {}


def restore(rule: Rule, state: Mapping[str, Any]) -> None:
    """Have the rule go on from what `state_of` gave."""
    if isinstance(rule, Kept):
        rule.restore(state)
