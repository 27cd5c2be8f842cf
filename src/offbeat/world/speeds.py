"""The speeds of agents, or of their links: drawn from a distribution, listed, or read from a file."""

from collections.abc import Sequence
from pathlib import Path

from offbeat.core.errors import DataError, SettingError
from offbeat.core.settings import as_word
from offbeat.core.system.streams import Purpose, stream
from offbeat.world.columns import agents_in
from offbeat.world.delays import Delay
from offbeat.world.files import read_values, split_column

LOW, HIGH = 1e-9, 1e3  # of a speed: the factor on a delay is 1 over it
DRAWN = ("lognormal", "gamma")
EXPECTED = "'lognormal:0.5', 'gamma:0.5', '1,1,2,10' (a number for each agent) or 'file:speeds.csv'"


def spelt_speeds(name: str, value: object) -> str:
    """The one way to spell 'lognormal:0.5', '1,1,2,10', 'file:PATH', 'file:PATH:COLUMN', or many numbers.

    Raises SettingError for anything else; no file is read.
    """
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        value = ",".join(map(str, value))
    if not isinstance(value, str):
        raise SettingError(f"'{name}' must be text or a list of numbers; got {value!r}. Expected {EXPECTED}.")
    said = value.strip()
    family, colon, rest = said.partition(":")
    if family == "file" and rest.strip():
        return f"file:{rest.strip()}"
    try:
        if family in DRAWN and colon:
            cv = float(rest)
            if cv == 0:
                alike = f"'{name}' has no spread in '{said}'"
                raise SettingError(f"{alike}: expected a number > 0, or no '{name}', so that all are alike.")
            Delay(family, 1.0, cv)
            return f"{family}:{as_word(cv)}"
        return ",".join(as_word(_speed(name, agent, each)) for agent, each in enumerate(_numbers(said)))
    except ValueError:
        raise SettingError(f"Cannot read '{name}', '{said}'; expected {EXPECTED}.") from None


def speeds(name: str, said: str, n: int, seed: int, purpose: Purpose) -> list[float]:
    """The speed of each of n agents: 2 is twice as fast, so that what it does takes half as long.

    Those of a distribution have mean 1 and the coefficient of variation that is said: together the agents
    are expected to be as fast as without. Each is drawn from a stream of its own, once for each seed.
    Raises SettingError or DataError unless there are n of them, each from 10^-9 to 10^3.
    """
    family, _, rest = spelt_speeds(name, said).partition(":")
    if family in DRAWN:
        shape = Delay(family, 1.0, float(rest))
        found = [shape.draw(stream(seed, purpose, agent), 1)[0] for agent in range(n)]
    elif family == "file":
        path, column = split_column(rest)
        try:
            found = read_values(path, column, "speeds", "file:").tolist()
            found = _by_agent(path, found)
        except DataError as error:
            raise DataError(f"'{name}': {error}") from None
        if len(found) != n:
            count = f"{path} holds {len(found):,} numbers"
            raise DataError(f"'{name}': {count}; expected {n}, one for each agent.")
    else:
        found = _numbers(said)
        if len(found) != n:
            raise SettingError(
                f"'{name}' lists {len(found)} numbers, '{said}'; expected {n}, one for each agent."
            )
    return [_speed(name, agent, each) for agent, each in enumerate(found)]


def _by_agent(path: Path, found: list[float]) -> list[float]:
    """The speeds in the order of the agents, where a column has their numbers."""
    who = None if path.suffix in (".npy", ".npz") else agents_in(path)
    if who is None:
        return found
    if sorted(who) != sorted(map(str, range(len(who)))):
        said = f"{path} has the agents {','.join(who):.60}"
        raise DataError(f"{said}; expected 0 to {len(who) - 1}, each in one line.")
    return [speed for _, speed in sorted(zip(map(int, who), found, strict=True))]


def _numbers(text: str) -> list[float]:
    return [*map(float, text.split(","))]


def _speed(name: str, agent: int, value: float) -> float:
    if not LOW <= value <= HIGH:
        raise SettingError(f"'{name}' gives agent {agent} {value:g}; expected a speed from 10^-9 to 1000.")
    return value
