"""Schedules of learning rates: which share s <= 1 of it is used when.

    cosine                    along half a cosine, to nothing at the end of the run
    warmup:20+cosine          up from nothing first, and then that
    step:100+factor=0.5       halved every 100
    diminishing:10+by=steps   by an agent's own steps

t is the simulated time at which a step is made (of a live run: its own time, in its units), so that all
agents have the same learning rate at the same time, however fast they are; a slow agent that went by its own
steps would still take large ones when the others have long become careful. With `by=steps` t is the number of
the agent's own step, from 1. After a warm-up the other schedule begins: its t is counted from there.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from offbeat.core.errors import SettingError, unknown
from offbeat.core.words import Named, Parameter, headed, option, parts, read, spelt

TIME, STEPS = "time", "steps"
CONSTANT, WARMUP, DELAYS = "constant", "warmup", "delay-adaptive"


@dataclass(frozen=True, kw_only=True)
class Row(Named):
    """A row of `SCHEDULES`. share: s(t, its numbers)"""

    share: Callable[[float, Mapping[str, float]], float] = lambda t, numbers: 1.0


def _cosine(t: float, p: Mapping[str, float]) -> float:
    return p["to"] + (1.0 - p["to"]) * (1.0 + math.cos(math.pi * min(1.0, t / p["over"]))) / 2.0


def _step(t: float, p: Mapping[str, float]) -> float:
    return float(p["factor"] ** math.floor(min(t / p["every"], 1e300)))


def _diminishing(t: float, p: Mapping[str, float]) -> float:
    return float((1.0 + t / p["after"]) ** -p["power"])


AFTER = Parameter(about="when it begins to fall", usual=1.0, low=0, above=True)

SCHEDULES = {
    CONSTANT: Row(about="s = 1"),
    "cosine": Row(
        share=_cosine, main="over",
        about="s = to + (1 - to) (1 + cos(pi t / OVER)) / 2, then to: half a cosine of arXiv:1608.03983",
        parameters={
            "over": Parameter(about="when it is down; else at the end of the run", low=0, above=True),
            "to": Parameter(about="the share that is left", usual=0.0, low=0, high=1),
        },
    ),
    "step": Row(
        share=_step, main="every", about="s = factor^floor(t / EVERY)",
        parameters={
            "every": Parameter(about="how long each learning rate lasts", asked=True, low=0, above=True),
            "factor": Parameter(about="from one to the next", usual=0.1, low=0, high=1, above=True),
        },
    ),
    "sqrt": Row(
        share=lambda t, p: _diminishing(t, {**p, "power": 0.5}), main="after",
        about="s = 1 / sqrt(1 + t / AFTER)", parameters={"after": AFTER},
    ),
    "diminishing": Row(
        share=_diminishing, main="after",
        about="s = 1 / (1 + t / AFTER)^power; above 1/2 and up to 1 all shares have an infinite sum, "
        "their squares a finite one",
        parameters={"after": AFTER, "power": Parameter(about="how fast", usual=1.0, low=0, above=True)},
    ),
    WARMUP: Row(
        share=lambda t, p: min(1.0, t / p["over"]), main="over",
        about="s = t / OVER until OVER, and then 1, or what another says: warmup:20+cosine",
        parameters={"over": Parameter(about="how long it takes", asked=True, low=0, above=True)},
    ),
    DELAYS: Row(
        main="most",
        about="s = 1 / tau for a gradient that is tau > MOST steps late (arXiv:2206.08307, 4.3), times "
        "what another says: cosine+delay-adaptive; for algorithms with a server, which knows tau",
        parameters={"most": Parameter(about="else the number of agents, all of which compute", low=0)},
    ),
}  # fmt: skip
"""Name -> row, in the order in which they are listed."""


@dataclass(frozen=True)
class Schedule:
    """s(t), and what a delay does to it.

    Attributes:
        name, numbers: of the schedule proper, and what was said of its numbers
        warmup: how long the warm-up takes that comes first; 0: there is none
        delays: whether late gradients count less; most: the delay up to which they do not
        by_steps: whether t is the number of the agent's own step
        until: when the run ends
    """

    name: str = CONSTANT
    numbers: tuple[tuple[str, float], ...] = ()
    warmup: float = 0.0
    delays: bool = False
    most: float | None = None
    by_steps: bool = False
    until: float = math.inf

    @staticmethod
    def parse(text: str) -> "Schedule":
        """'warmup:20+cosine'. Raises SettingError for anything else."""
        found, by = list[tuple[str, list[str]]](), TIME
        for word in parts(text):
            head, words = headed(word)
            key, value = option(head)
            if value is not None and not words:
                if key == "by":
                    by = value
                elif found:
                    found[-1][1].append(word)
                else:
                    raise SettingError(f"'{text}' begins with a number; expected a schedule's name first.")
            elif head not in SCHEDULES:
                raise unknown("schedule", head, SCHEDULES)
            else:
                found.append((head, words))
        if by not in (TIME, STEPS):
            raise SettingError(f"'by={by}' in the schedule '{text}'; expected by={TIME} or by={STEPS}.")
        return _made(text, found, by == STEPS)

    def __str__(self) -> str:
        """The one way to spell it."""
        said = [_spelt(WARMUP, {"over": self.warmup})] * bool(self.warmup)
        said += [_spelt(self.name, dict(self.numbers))] * (self.name != CONSTANT)
        said += [_spelt(DELAYS, {} if self.most is None else {"most": self.most})] * self.delays
        moves = self.warmup or self.name != CONSTANT
        return "+".join([*(said or [CONSTANT]), *[f"by={STEPS}"] * bool(self.by_steps and moves)])

    @property
    def constant(self) -> bool:
        """Whether s = 1 always."""
        return str(self) == CONSTANT

    def ending(self, until: float) -> "Schedule":
        """The same in a run that ends then. Raises SettingError if it cannot be down by then."""
        if self.name == "cosine" and "over" not in dict(self.numbers) and self.warmup >= until:
            much = f"the warm-up takes {self.warmup:g}, and the run ends at {until:g}"
            raise SettingError(f"There is no time for the schedule '{self}': {much}. Expected a shorter one.")
        return replace(self, until=until)

    def at(self, t: float) -> float:
        """s(t)."""
        if t < self.warmup:
            return t / self.warmup
        row = SCHEDULES[self.name]
        p = {name: each.usual for name, each in row.parameters.items() if each.usual is not None}
        return row.share(t - self.warmup, {"over": self.until - self.warmup, **p, **dict(self.numbers)})

    def of_delay(self, delay: int, n: int) -> float:
        """What a gradient's delay multiplies it by, among n agents."""
        return 1.0 / delay if self.delays and delay > (n if self.most is None else self.most) else 1.0


def _made(text: str, said: list[tuple[str, list[str]]], by_steps: bool) -> Schedule:
    found = dict[str, dict[str, float]]()
    for name, words in said:
        if name in found:
            raise SettingError(f"The schedule '{text}' names '{name}' twice; expected it once.")
        row = SCHEDULES[name]
        found[name] = read("schedule", name, words, row.parameters, row.main)
    names = [name for name in found if name not in (WARMUP, DELAYS, CONSTANT)]
    if len(names) > 1 or (names and WARMUP in found and [*found].index(WARMUP) > [*found].index(names[0])):
        one = "a warm-up, and then one other: 'warmup:20+cosine'"
        raise SettingError(f"The schedule '{text}' puts together what does not go together; expected {one}.")
    name = names[0] if names else CONSTANT
    mine = found.get(name, {})
    if by_steps and name == "cosine" and "over" not in mine:
        raise SettingError(
            f"'{text}' goes by an agent's steps, and how many there will be is not known; expected how many "
            f"it takes, as in 'cosine:1000+by={STEPS}'."
        )
    usual = {key: each.usual for key, each in SCHEDULES[name].parameters.items()}
    numbers = tuple((key, mine[key]) for key in usual if key in mine and mine[key] != usual[key])
    warmup, delays = found.get(WARMUP, {}).get("over", 0.0), found.get(DELAYS)
    moves = by_steps and bool(warmup or name != CONSTANT)
    return Schedule(name, numbers, warmup, delays is not None, (delays or {}).get("most"), moves)


def _spelt(name: str, numbers: Mapping[str, float]) -> str:
    row = SCHEDULES[name]
    return spelt(name, numbers, row.parameters, row.main)
