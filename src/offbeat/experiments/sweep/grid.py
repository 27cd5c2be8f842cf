"""A grid of settings: from a TOML file to its points, each of them checked before any runs."""

import hashlib
import json
import math
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice, product
from pathlib import Path
from typing import Any

from offbeat.algorithms import Algorithm, find
from offbeat.core.errors import DataError, SettingError, unknown
from offbeat.core.rates import Rate
from offbeat.core.settings import REAL, Kind, declared, text
from offbeat.core.system.own import together
from offbeat.core.system.reading import content, reading
from offbeat.experiments.experiment import Experiment, Selection
from offbeat.experiments.memory import check_run
from offbeat.experiments.runs import Job
from offbeat.experiments.setup import Setup, prepare
from offbeat.experiments.tuning import taken
from offbeat.tasks.task import Task

GENERATION = 10  # part of every key; grows when settings give other results, or rows have other columns
LARGEST = 10_000_000  # bytes of a TOML file

MOST_POINTS = 100_000
TASKS_KEPT = 8
DEFAULT_LR = 0.01

EXPERIMENT = tuple(declared(Experiment))
ALGORITHM = Kind(str, "string", text, lambda name, value: find(text(name, value)).asked)
SETTINGS = {**declared(Experiment), **{name: declared(Selection)[name] for name in ("lr", "seed")}}
KNOWN = ("algorithm", *SETTINGS)  # the names of a grid: those of `Experiment`, and algorithm, lr and seed

TABLES = ("fixed", "grid", "lr")
Axes = dict[str, list[Any]]


@dataclass(frozen=True)
class Point:
    """One run of a grid.

    Attributes:
        named: what tells it from the others of its grid, as text
        settings: all of them, what was left to a default included; JSON-ready
        key: the SHA-256 of the settings, and of what the files are that they name, in hexadecimal
        code: file -> version of the user's own code: what a worker loads is that, or an error
    """

    experiment: Experiment
    algorithm: str
    lr: float
    seed: int
    named: str
    settings: dict[str, Any]
    key: str
    code: Mapping[str, str]


@dataclass(frozen=True)
class _Draft:
    """A point that has not been checked. own: whether the lr is this algorithm's own, from [lr]."""

    index: int
    experiment: Experiment
    seed: int
    spec: Algorithm
    lr: Rate
    own: bool
    named: str


def read_grid(path: Path) -> list[Point]:
    """The points of a grid in a TOML file. Raises SettingError or DataError, with the name of the file."""
    with reading(path, "a TOML file with a grid of settings", "See 'offbeat sweep --help' for an example."):
        table = tomllib.loads(content(path, LARGEST).decode("utf-8"))
        try:
            return points(table)
        except (SettingError, DataError) as error:
            raise type(error)(f"{path}: {error}") from None


def points(table: Mapping[str, Any]) -> list[Point]:
    """The points of a grid, in its order: the last of [grid] varies faster than those before, lr fastest.

    Args:
        table: "fixed": name -> value; "grid": name -> list of values; "lr": algorithm -> its own, or several.

    Raises SettingError or DataError unless every one of them can run.
    """
    fixed, axes, own = _tables(table)
    drafts = list(islice(_drafts(fixed, axes, own), MOST_POINTS + 1))
    if len(drafts) > MOST_POINTS:
        raise SettingError(f"The grid has more than {MOST_POINTS:,} points. Make several grids of it.")
    worlds = defaultdict[tuple[Experiment, int], list[_Draft]](list)
    for draft in drafts:
        worlds[draft.experiment, draft.seed].append(draft)
    checked, built = dict[int, Point](), dict[tuple[Any, ...], Task]()
    for alike in worlds.values():
        checked |= _checked(alike, built)
    together(*(point.code for point in checked.values()))
    return [checked[index] for index in range(len(checked))]


def _tables(table: Mapping[str, Any]) -> tuple[dict[str, Any], Axes, Axes]:
    """[fixed], [grid] and [lr], every value of its type."""
    for name, value in table.items():
        if name in KNOWN and name not in TABLES:
            raise SettingError(f"'{name}' stands outside of the tables; expected it in [fixed] or [grid].")
        if name not in TABLES:
            raise unknown("table", name, TABLES)
        if not isinstance(value, dict):
            raise SettingError(f"'{name}' must be a table, [{name}]; got {value!r}.")
    given, lists = table.get("fixed", {}), table.get("grid", {})
    for name in (*given, *lists):
        if name not in KNOWN:
            raise unknown("setting", name, KNOWN)
    if both := [name for name in lists if name in given]:
        raise SettingError(f"'{both[0]}' is given twice, in [fixed] and in [grid]; expected it in one.")
    if "algorithm" not in {*given, *lists}:
        raise SettingError(
            'No algorithm is named; expected [fixed] algorithm = "adsgd", or a list in [grid].'
        )
    lengths = {name: len(values) for name, values in lists.items() if isinstance(values, list)}
    most = math.prod(lengths.values()) or 1
    if most > MOST_POINTS and not table.get("lr"):
        largest = max(lengths, key=lambda name: lengths[name])
        raise SettingError(
            f"The grid has more than {MOST_POINTS:,} points: {most:,}, {lengths[largest]:,} values of "
            f"'{largest}' among them. Make several grids of it."
        )
    fixed = {name: _value(name, value) for name, value in given.items()}
    axes = {name: _values(name, values) for name, values in lists.items()}
    own, compared = {}, axes.get("algorithm", [fixed.get("algorithm")])
    short = {find(each).name.lower(): each for each in compared}
    for name, value in table.get("lr", {}).items():
        asked = short.get(name.lower()) or find(name).asked
        if asked in own:
            raise SettingError(f"[lr] names {asked} twice; expected one learning rate or list of them.")
        own[asked] = _values("lr", value if isinstance(value, list) else [value])
    if others := [name for name in own if name not in compared]:
        there = f"which is not in the grid: {', '.join(compared)}"
        raise SettingError(f"[lr] has a learning rate for '{others[0]}', {there}.")
    return fixed, axes, own


def _values(name: str, values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise SettingError(f"'{name}' in [grid] must be a list; got {values!r}. One value stands in [fixed].")
    if not values:
        raise SettingError(f"'{name}' has an empty list; expected one value or more.")
    found: dict[Any, None] = {}
    for value in values:
        typed = _value(name, value)
        if typed in found:
            raise SettingError(f"'{name}' lists {value!r} twice; expected different values.")
        found[typed] = None
    return list(found)


def _value(name: str, value: Any) -> Any:
    """A value with its type, spelt in the one way that the key is made of, or a SettingError."""
    if name == "lr" and value == "tuned":
        raise SettingError(
            "A sweep does not tune, 'offbeat compare' does; expected numbers: lr = [0.01, 0.03]."
        )
    return ALGORITHM.spelt(name, value) if name == "algorithm" else SETTINGS[name].kind.spelt(name, value)


def _drafts(fixed: dict[str, Any], axes: Axes, own: Axes) -> Iterator[_Draft]:
    rates = axes.pop("lr", [fixed.get("lr", DEFAULT_LR)])
    index = count()
    for chosen in product(*axes.values()):
        varied = dict(zip(axes, chosen, strict=True))
        given = fixed | varied
        spec = find(given["algorithm"])
        experiment = Experiment(**{name: given[name] for name in EXPERIMENT if name in given})
        ours = own.get(spec.asked)
        for lr in ours or rates:
            shown = varied | ({"lr": lr} if len(ours or rates) > 1 else {})
            said = {
                name: " and ".join(map(str, v)) or "none" for name, v in shown.items() if isinstance(v, tuple)
            }
            named = ", ".join(f"{name} {value}" for name, value in (shown | said).items()) or spec.name
            seed = given.get("seed", 0)
            yield _Draft(next(index), experiment, seed, spec, Rate.of(lr), ours is not None, named)


def _checked(drafts: Sequence[_Draft], built: dict[tuple[Any, ...], Task]) -> dict[int, Point]:
    """The points of one world by their index, checked as `offbeat compare` would, but without their data.

    A task is built once for all seeds and graphs; `built` keeps the last few.
    """
    draft, e = drafts[0], drafts[0].experiment
    try:
        split = e.partition, e.skew, e.dirichlet, e.objective
        network = e.model, e.width, e.augment, e.eval_samples
        same = (e.task, e.agents, e.batch, e.reg, *split, *network, e.data, e.device)
        setup = prepare(e, draft.seed, built.pop(same, None))
        built[same] = setup.task
        if len(built) > TASKS_KEPT:
            del built[next(iter(built))]
        fit = set[str]()
        for draft in drafts:
            if draft.spec.asked not in fit:
                check_run(Job(setup, draft.spec, draft.lr.at(setup.topology.n), e.executor, keep_trace=False))
                fit.add(draft.spec.asked)
            if draft.lr.base <= 0:
                raise SettingError(f"A learning rate is a finite number > 0; got {draft.lr.said}.")
    except (SettingError, DataError) as error:
        raise type(error)(f"The point '{draft.named}': {error}") from None
    return {draft.index: _point(setup, draft) for draft in drafts}


def _point(setup: Setup, draft: _Draft) -> Point:
    """The point, and its key, in which what may be a fraction is a float, also where it is a whole number."""
    algorithm, code = draft.spec.asked, together(setup.settings["code"], draft.spec.code)
    rate = taken(draft.lr, None if draft.own else draft.spec, setup.topology.n)
    settings = {name: setup.settings[name] for name in EXPERIMENT}
    real = [name for name, value in settings.items() if SETTINGS[name].kind is REAL and value is not None]
    settings |= {name: float(settings[name]) for name in real}
    settings |= {"algorithm": algorithm, "lr": rate.lr, "lr_said": rate.said, "seed": draft.seed}
    key = key_of(settings, code)
    return Point(draft.experiment, algorithm, rate.lr, draft.seed, draft.named, settings, key, code)


def key_of(settings: Mapping[str, Any], code: Mapping[str, str]) -> str:
    """What a run is kept under: the SHA-256, in hexadecimal, of its settings, and of what the files are that
    these name. code: file -> version
    """
    keyed = {"results": GENERATION, "settings": settings, "code": sorted(code.items())}
    return hashlib.sha256(json.dumps(keyed, sort_keys=True, allow_nan=False).encode()).hexdigest()
