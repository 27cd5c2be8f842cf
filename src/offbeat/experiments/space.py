"""Which hyperparameters are tuned together: `lr=0.001:1:log,h=1:10:int`, ranges by name.

What can be tuned is the learning rate, `lr`, each number with which an algorithm is made, and each parameter
of the optimizer. Where both have one of a name, it is the algorithm's.
"""

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from offbeat.algorithms import Algorithm, find, with_options
from offbeat.core.errors import SettingError, unknown
from offbeat.core.optimizers import OPTIMIZERS, Steps
from offbeat.core.settings import as_word, declared
from offbeat.core.system import own
from offbeat.core.system.named import Own
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.setup import Setup

EXPECTED = "expected ranges by name with commas between, as in lr=0.001:1:log,h=1:10:int"
LR = "lr"
HOW = ("log", "int")
LARGEST = 2**31  # of a whole number
NOT_TUNED = {
    "batch": "a gradient takes the same simulated time whatever its batch, so that large ones always win",
    "reg": "it is part of the objective: with another one something else is minimised, whose losses compare "
    "with none",
}
"""Settings that somebody may want to be tuned -> why they are not."""


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, both included. log: by its logarithm; whole: whole numbers alone"""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @staticmethod
    def of(name: str, text: str) -> "Range":
        """'0.001:1:log'. Raises SettingError for anything else."""
        low, *rest = (part.strip() for part in text.split(":"))
        high, *how = rest or [""]
        unknown_words = [word for word in how if word not in HOW]
        try:
            ends = [float(low), float(high)]
        except ValueError:
            ends = []
        if not ends or unknown_words or len({*how}) < len(how):
            raise SettingError(f"Cannot read the range '{text}' of {name} in --tune; {EXPECTED}.")
        found = Range(ends[0], ends[1], "log" in how, "int" in how)
        if not (math.isfinite(ends[0]) and math.isfinite(ends[1]) and ends[0] < ends[1]):
            raise SettingError(f"--tune {name}={text}: expected two finite numbers, the smaller one first.")
        if (found.log or name == LR) and ends[0] <= 0:
            why = "a learning rate is" if name == LR else "where 'log' is said both ends are"
            raise SettingError(f"--tune {name}={text}: {why} > 0; got {low}.")
        if found.whole and (ends[0] % 1 or ends[1] % 1 or max(map(abs, ends)) > LARGEST):
            raise SettingError(f"--tune {name}={text}: with 'int' expected whole numbers at both ends.")
        if found.whole and name == LR:
            raise SettingError(f"--tune {name}={text}: a learning rate is no whole number; leave out 'int'.")
        return found

    def __str__(self) -> str:
        return ":".join([as_word(self.low), as_word(self.high), *["log"] * self.log, *["int"] * self.whole])

    @property
    def middle(self) -> float:
        return self.rounded(math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2)

    def rounded(self, value: float) -> float:
        """A whole number, or one of three digits; within the range."""
        return round(value) if self.whole else min(max(float(f"{value:.3g}"), self.low), self.high)


Space = Mapping[str, Range]


def parse_space(text: Any) -> dict[str, Range]:
    """Name -> range, of a text or several. Raises SettingError for what is no such list."""
    if isinstance(text, list | tuple) and text and all(isinstance(each, str) for each in text):
        text = ",".join(text)
    if not isinstance(text, str) or not text.strip():
        raise SettingError(f"Cannot read tune = {text!r}; {EXPECTED}.")
    found: dict[str, Range] = {}
    for part in text.split(","):
        name, equals, words = part.partition("=")
        name = name.strip()
        if not (name and equals):
            raise SettingError(f"Cannot read '{part.strip()}' in --tune; {EXPECTED}.")
        if name in found:
            raise SettingError(f"--tune gives '{name}' twice; {EXPECTED}.")
        found[name] = Range.of(name, words)
    return found


def spelt(space: Space) -> str:
    return ",".join(f"{name}={each}" for name, each in space.items())


def spaces_of(space: Space, specs: Sequence[Algorithm], steps: Steps) -> list[Space]:
    """Of each algorithm what it, or the optimizer, has of these. Raises SettingError for what none has, and
    for ranges that hold what the optimizer's parameters cannot be.
    """
    taken = [{**dict.fromkeys(steps.numbers, False), **dict(_numbers(spec))} for spec in specs]
    known = dict.fromkeys([LR, *(name for each in taken for name in each)])
    for name in space:
        if name in known:
            continue
        if name in declared(Experiment):
            why = NOT_TUNED.get(name, "it is the same for all algorithms")
            do = f"Compare over it, and all is tuned in each: expected --over {name}=..., beside --tune"
            raise SettingError(f"'{name}' is not tuned: {why}. {do}.")
        if having := [each for each, row in OPTIMIZERS.items() if name in row.parameters]:
            raise SettingError(
                f"'{name}' is of {', '.join(having)}; expected --optimizer {having[0]} with it."
            )
        raise unknown("hyperparameter to tune", name, known)
    _check_optimizer(space, specs, steps)
    for spec in specs:
        for name, value in _given(spec).items():
            if name in space:
                raise SettingError(
                    f"'{name}' of {spec.name} is given, {value!r}, and tuned; expected one of these."
                )
    for spec, each in zip(specs, taken, strict=True):
        for name in {*space} & {name for name, whole in each.items() if whole}:
            if not space[name].whole:
                raise SettingError(
                    f"'{name}' of {spec.name} is declared a whole number: expected --tune {name}=...:int."
                )
    return [{name: each for name, each in space.items() if name == LR or name in has} for has in taken]


def _check_optimizer(space: Space, specs: Sequence[Algorithm], steps: Steps) -> None:
    """Raise SettingError for what is given and tuned, and for ranges that go too far."""
    for name in space:
        if name not in steps.numbers or all(name in dict(_numbers(spec)) for spec in specs):
            continue
        if name in (given := steps.given):
            said = f"'{name}' of the optimizer is given, {given[name]:g}, and tuned"
            raise SettingError(f"{said}; expected one of these.")
        for end in (space[name].low, space[name].high):
            try:
                steps.having({name: end})
            except SettingError as error:
                raise SettingError(f"--tune {name}={space[name]}: {error}") from None


def _given(spec: Algorithm) -> Mapping[str, Any]:
    """The options that were named with the algorithm."""
    if spec.named and (named := Own.parse(spec.named)) is not None:
        return named.options
    return {name: value for name, (_, value, usual) in spec.chosen().items() if value != usual}


def _numbers(spec: Algorithm) -> Iterator[tuple[str, bool]]:
    """The numbers with which an algorithm is made, by name, and whether they are declared whole."""
    for name, (_, _, usual) in spec.chosen().items():
        if not isinstance(usual, bool):
            yield name, isinstance(usual, int)
    for name, parameter in _parameters(spec).items():
        value = getattr(spec.prototype, name, parameter.default)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, parameter.annotation in (int, "int")


def _parameters(spec: Algorithm) -> Mapping[str, inspect.Parameter]:
    if not spec.user_defined:
        return {}
    named = Own.parse(spec.named) if spec.named else None
    made_by: Any = type(spec.prototype)
    if named is not None:
        with own.pinned(spec.code, spec.code):
            given = own.load(named, "an algorithm")
        if not callable(given):
            return {}  # an object, made in its file
        made_by = given
    return inspect.signature(made_by).parameters


def adjusted(spec: Algorithm, setup: Setup, options: Mapping[str, float]) -> tuple[Algorithm, Setup]:
    """The same algorithm and optimizer, made with these numbers; it keeps its name. SettingError for its own
    faults.
    """
    own = dict(_numbers(spec)) if options else {}
    others = {name: value for name, value in options.items() if name not in own}
    mine = {name: value for name, value in options.items() if name in own}
    return _made_with(spec, mine), setup.stepping(others)


def _made_with(spec: Algorithm, options: Mapping[str, float]) -> Algorithm:
    if not options:
        return spec
    if not spec.user_defined:
        made = with_options(spec, options)
        return replace(made, name=spec.name, named=made.name)
    if spec.named and (named := Own.parse(spec.named)) is not None:
        with own.pinned(spec.code, spec.code):
            made = find(str(replace(named, options={**named.options, **options})))
        return replace(made, name=spec.name)
    return replace(spec, prototype=replace(cast(Any, spec.prototype), **options))
