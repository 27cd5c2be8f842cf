"""Local rules by name, 'momentum:0.95', 'adamw:weight_decay=0.1', and with a schedule, as `Steps`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from offbeat.core.errors import SettingError, unknown
from offbeat.core.rules import SGD, AdamW, Momentum, Nesterov, NewRule, Rule, Scheduled
from offbeat.core.schedules import Schedule
from offbeat.core.words import Named, Parameter, Parameters, headed, read, spelt


@dataclass(frozen=True, kw_only=True)
class Row(Named):
    """A row of `OPTIMIZERS`.

    Attributes:
        rule: from a learning rate and its numbers to a rule
        vectors: how many as long as a model that keeps
    """

    rule: Callable[..., Rule]
    vectors: int = 0


def _share(which: str, usual: float) -> Parameter:
    return Parameter(about=f"the share of {which} that stays", usual=usual, low=0, high=1, below=True)


OPTIMIZERS = {
    "sgd": Row(
        rule=SGD, about="x <- x - lr g; with momentum the same as 'momentum'",
        parameters={"momentum": _share("m", 0.0)},
    ),
    "momentum": Row(
        rule=Momentum, about="the heavy ball, m <- MOMENTUM m + g, x <- x - lr m", main="momentum",
        parameters={"momentum": _share("m", 0.9)}, vectors=1,
    ),
    "nesterov": Row(
        rule=Nesterov, about="the same m, x <- x - lr (g + MOMENTUM m)", main="momentum",
        parameters={"momentum": _share("m", 0.9)}, vectors=1,
    ),
    "adamw": Row(
        rule=AdamW, about="by the moments of the gradient, with decoupled weight decay (arXiv:1711.05101)",
        vectors=2, parameters={
            "beta1": _share("the first moment", 0.9),
            "beta2": _share("the second moment", 0.999),
            "eps": Parameter(about="what is added to the root", usual=1e-8, low=0, above=True),
            "weight_decay": Parameter(about="times lr: what a step takes of the model", usual=0.01, low=0),
        },
    ),
}  # fmt: skip
"""Name -> row, in the order in which they are listed; each computes what torch.optim's does."""

HEAVY = ("sgd", "momentum", "nesterov")  # one rule if there is no momentum; the first two are one anyway


@dataclass(frozen=True)
class Optimizer:
    """A local rule by its name. numbers: all of its parameters"""

    name: str
    numbers: tuple[tuple[str, float], ...]

    @staticmethod
    def parse(text: str) -> "Optimizer":
        """'momentum:0.95'. Raises SettingError for anything else."""
        name, words = headed(text)
        if name not in OPTIMIZERS:
            raise unknown("optimizer", name, OPTIMIZERS)
        row = OPTIMIZERS[name]
        said = read("optimizer", name, words, row.parameters, row.main)
        return _named(name, said)

    def __call__(self, lr: float) -> Rule:
        numbers = dict(self.numbers) if self.name != "sgd" else {}
        return OPTIMIZERS[self.name].rule(lr, **numbers)

    def __str__(self) -> str:
        """The one way to spell it."""
        row = OPTIMIZERS[self.name]
        return spelt(self.name, dict(self.numbers), row.parameters, row.main)

    def having(self, numbers: Mapping[str, float]) -> "Optimizer":
        """The same with these numbers. Raises SettingError for what they cannot be."""
        parameters = OPTIMIZERS[self.name].parameters
        read_anew = {name: parameters[name].read(self.name, name, value) for name, value in numbers.items()}
        return _named(self.name, {**dict(self.numbers), **read_anew})


def _named(name: str, said: Mapping[str, float]) -> Optimizer:
    """What has no momentum is plain SGD, and SGD with momentum is the heavy ball: one rule has one name."""
    if name in HEAVY:
        usual = OPTIMIZERS[name].parameters["momentum"].usual
        momentum = said.get("momentum", usual)
        name = "sgd" if not momentum else "momentum" if name == "sgd" else name
        said = {"momentum": momentum or 0.0}
    parameters = OPTIMIZERS[name].parameters
    return Optimizer(name, tuple((key, said.get(key, each.usual or 0.0)) for key, each in parameters.items()))


CLASSES: Mapping[Any, str] = {row.rule: name for name, row in OPTIMIZERS.items()}


def checked(value: Any) -> str | NewRule:
    """An optimizer as it is given from Python: by name in its one spelling, or a function of one's own from a
    learning rate to a rule. Raises SettingError for anything else.
    """
    if isinstance(value, str):
        return str(Optimizer.parse(value))
    if isinstance(value, type) and value in CLASSES:
        return CLASSES[value]
    if not callable(value) or not callable(value(1.0)):
        names = ", ".join(OPTIMIZERS)
        raise SettingError(
            f"An optimizer is a name ({names}), or a function from a learning rate to a local rule, as "
            f"offbeat.Momentum is; got {value!r}."
        )
    return value  # type: ignore[no-any-return]


def called(value: str | NewRule) -> str:
    """How it is recorded."""
    return value if isinstance(value, str) else str(getattr(value, "__name__", type(value).__name__))


@dataclass(frozen=True)
class Steps:
    """What agents step by: from a learning rate to a new local rule, with its schedule.

    Attributes:
        by: the optimizer, by name or the user's own
    """

    by: Optimizer | NewRule = field(default_factory=lambda: Optimizer.parse("sgd"))
    schedule: Schedule = field(default_factory=Schedule)

    @staticmethod
    def of(optimizer: str | NewRule, schedule: str, until: float) -> "Steps":
        """From settings that were checked, for a run that ends then."""
        by = Optimizer.parse(optimizer) if isinstance(optimizer, str) else optimizer
        return Steps(by, Schedule.parse(schedule).ending(until))

    def rule(self, lr: float) -> Rule:
        """A new one, of one agent."""
        rule = self.by(lr)
        return rule if self.schedule.constant else Scheduled(rule, self.schedule)

    @property
    def numbers(self) -> Parameters:
        """What may be tuned of it."""
        return OPTIMIZERS[self.by.name].parameters if isinstance(self.by, Optimizer) else {}

    @property
    def given(self) -> Mapping[str, float]:
        """The parameters of the optimizer that are not as usual."""
        if not isinstance(self.by, Optimizer):
            return {}
        return {name: value for name, value in self.by.numbers if value != self.numbers[name].usual}

    @property
    def vectors(self) -> int:
        """How many as long as a model each agent keeps for it, as far as is known."""
        return OPTIMIZERS[self.by.name].vectors if isinstance(self.by, Optimizer) else 0

    def having(self, numbers: Mapping[str, float]) -> "Steps":
        """The same with these numbers of the optimizer."""
        assert isinstance(self.by, Optimizer), "only what has parameters is tuned"
        return replace(self, by=self.by.having(numbers))
