"""What is compared: algorithms in one world, or in several, one for every combination of some settings.

offbeat.compare(["adsgd", "dsgd"], agents=16, over={"topology": ["torus", "exponential"]})
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from offbeat.algorithms import USUAL, Algorithm
from offbeat.core.agent import Agent
from offbeat.core.errors import SettingError, unknown
from offbeat.core.settings import Setting, Settings, declared, whole
from offbeat.core.system.named import separated
from offbeat.experiments.comparison import Plan, plan
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.keeping import keeping, kept_by
from offbeat.experiments.making import OnNotice, OnRun
from offbeat.experiments.workers import wanted
from offbeat.results.differences import worlds_of
from offbeat.results.run import Comparison, Run
from offbeat.results.values import Curve, Label, Progress
from offbeat.world.topology import Topology

MOST_WORLDS = 1000
EXPECTED = (
    "expected a setting and its values, as in topology=ring,torus; with semicolons, or double quotes around "
    "a value, where one has commas"
)


@dataclass(frozen=True)
class Study:
    """Plans of several worlds, which are made one after another.

    Attributes:
        over: the settings by which they differ
        worlds: what each is called
    """

    plans: Sequence[Plan]
    over: Sequence[str]
    worlds: Sequence[str]

    @property
    def count(self) -> int:
        return sum(each.count for each in self.plans)

    @property
    def planned(self) -> dict[str, int]:
        return dict(sum((Counter(each.planned) for each in self.plans), Counter()))

    @property
    def memory(self) -> float:
        return max(each.memory for each in self.plans)

    @property
    def untraced(self) -> list[str]:
        return [*dict.fromkeys(name for each in self.plans for name in each.untraced)]

    @property
    def left_out(self) -> list[str]:
        """Which of all algorithms cannot run here, and why."""
        return [*dict.fromkeys(why for each in self.plans for why in each.left_out.values())]

    def without_traces(self) -> "Study":
        return replace(self, plans=[each.without_traces() for each in self.plans])

    def check_traces(self) -> None:
        for each in self.plans:
            each.check_traces()

    def runs(
        self,
        on_progress: Progress | None = None,
        keep_traces: bool = False,
        workers: int = 1,
        on_run: OnRun = lambda run: run,
        on_notice: OnNotice = lambda text: None,
        out: Path | None = None,
        on_there: Callable[[int], None] = lambda count: None,
    ) -> Iterator[Run]:
        """Make the runs, world by world, as `Plan.runs` does.

        Args:
            out: the folder in which they are kept
            on_there: told how many runs of all worlds are there already, before any is made
        """
        wanted(whole("workers", workers))
        with nullcontext([None] * len(self.plans)) if out is None else keeping(out, self.plans) as kept:
            makings = []
            for each, world, there in zip(self.plans, self.worlds, kept, strict=True):
                progress = partial(_named, on_progress, world) if on_progress and world else on_progress
                makings.append(each.making(progress, keep_traces, on_run, on_notice, there))
            if found := sum(each.found for each in makings):
                on_there(found)
            for making in makings:
                yield from making.runs(workers)

    def ahead(self, keep_traces: bool = False, out: Path | None = None) -> tuple[int, list[str]]:
        """How many runs are in the folder already, and what those are that would be made first.

        Where hyperparameters are tuned, others follow from these. Nothing is made or written. Raises
        SettingError for a folder of anything else.
        """
        kept = [None] * len(self.plans) if out is None else kept_by(out, self.plans)
        found, missing = 0, list[str]()
        for each, world, there in zip(self.plans, self.worlds, kept, strict=True):
            making = each.making(keep_traces=keep_traces, kept=there)
            named = f"{world}, " * bool(world)
            missing += [f"{named}{planned}" for several in making.waiting for planned in several]
            found += making.found
        return found, missing


def _named(on_progress: Progress, world: str, label: str, now: float, until: float, curve: Curve) -> None:
    on_progress(Label(f"{world}, {label}", getattr(label, "runs", 1)), now, until, curve)


def study(algorithms: Any, over: Mapping[str, Sequence[Any]] | None = None, **settings: Any) -> Study:
    """Check everything about a comparison in every world. Raises SettingError or DataError; nothing ran then.

    Args:
        over: setting of `Experiment` -> its values; every combination is a world, the last varies fastest
    """
    axes = over or {}
    for name, values in axes.items():
        each = _axis(name)
        if name in settings and _recorded(each, settings[name]) != _recorded(each, each.default):
            raise SettingError(f"'{name}' is given, and compared over; expected one of these.")
        if isinstance(values, str) or not values:
            raise SettingError(f"'{name}' is compared over {values!r}; expected a list of values.")
        if len({str(value) for value in values}) < len(values):
            raise SettingError(f"'{name}' is compared over a value twice; got {values!r}.")
    rest = {name: value for name, value in settings.items() if name not in axes}
    combinations = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    if len(combinations) > MOST_WORLDS:
        raise SettingError(f"{len(combinations):,} worlds are too many; expected at most {MOST_WORLDS:,}.")
    plans = [plan(algorithms, **rest, **world) for world in combinations]
    worlds = [", ".join(f"{name} {value}" for name, value in world.items()) for world in combinations]
    _refuse_alike(plans, worlds, [*axes])
    return Study(plans, [*axes], worlds)


@dataclass(frozen=True)
class _Planned:
    """A world that is planned, as `worlds_of` looks at it."""

    settings: Settings
    seed: int
    topology: Topology
    graph: None = None
    has_topology: bool = True


def _refuse_alike(plans: Sequence[Plan], worlds: Sequence[str], axes: Sequence[str]) -> None:
    """Raise SettingError if two worlds would have the same runs, which could not be told apart."""
    setups = [each.setups[0] for each in plans]
    found: dict[Any, str] = {}
    planned = [_Planned(setup.settings, setup.seed, setup.topology) for setup in setups]
    for which, world in zip(worlds, worlds_of(planned), strict=True):
        if world in found:
            change = f"{' and '.join(axes)} {'changes' if len(axes) == 1 else 'change'} nothing of what is"
            raise SettingError(
                f"{found[world]} and {which} would give the same runs: {change} run. Expected a setting that "
                "does."
            )
        found[world] = which


def _recorded(each: Setting, value: Any) -> Any:
    """A value of this setting as results have it, however it was given."""
    checked = each.checked(value)
    return None if checked is None else each.kind.record(checked)


def _axis(name: str) -> Setting:
    """The setting of this name. Raises SettingError if there is none."""
    if name not in declared(Experiment):
        raise unknown("setting to compare over", name, declared(Experiment))
    return declared(Experiment)[name]


def parse_over(texts: Sequence[str]) -> dict[str, list[Any]]:
    """--over: 'topology=ring,torus', once for each setting. Raises SettingError for anything else."""
    axes: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if not (equals and values.strip()):
            raise SettingError(f"Cannot read --over '{text}'; {EXPECTED}.")
        if name in axes:
            raise SettingError(f"--over gives '{name}' twice; {EXPECTED}.")
        setting, words = _axis(name), separated(values, ";")
        words = words if len(words) > 1 else separated(values)
        axes[name] = [_value(setting, _unquoted(word.strip())) for word in words]
    return axes


def _unquoted(word: str) -> str:
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] == '"' else word


def _value(each: Setting, word: str) -> Any:
    """A word of the command line as the value of this setting."""
    if each.kind.option is bool:
        if word.lower() not in ("true", "false"):
            raise SettingError(f"--over {each.name}: cannot read '{word}'; expected true or false.")
        return word.lower() == "true"
    if each.kind.option in (int, float):
        try:
            return each.kind.spelt(each.name, each.kind.option(word))
        except ValueError:
            raise SettingError(f"--over {each.name}: cannot read '{word}' as a number; {EXPECTED}.") from None
    return each.kind.spelt(each.name, word)


def compare(
    algorithms: Sequence[str | type[Agent] | Agent | Algorithm] | str = USUAL,
    *,
    over: Mapping[str, Sequence[Any]] | None = None,
    progress: Progress | None = None,
    workers: int = 1,
    out: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Comparison:
    """Run several algorithms in the same worlds.

        result = offbeat.compare(["adsgd", "dsgd"], task="digits", case="combined", seeds=3)
        print(result)

    Args:
        algorithms: names ("adsgd", "dsgd:after"), classes or objects of your own (`offbeat.Agent`), or where
            these are: "mine.py:Mine", "mine.py:Mine(h=10)"
        settings: those of `Experiment`, and
        over: setting -> values, to compare in several worlds: {"topology": ["ring", "torus"]}. Every
            combination is one; learning rates are tuned in each
        lr: a learning rate, several, "tuned" (each algorithm's own best: `offbeat.experiments.tuning`),
            or {algorithm: learning rate, "": learning rate}
        seed, seeds: seeds seed, seed + 1, ... are run; each is the same alone or beside others
        tune_by, tune_grid, tune_seeds: how learning rates are tuned: by "loss", "target" or "final"; those
            that are tried first (`offbeat.experiments.tuning.GRID`); in how many other worlds (3)
        local_steps: gradients for each exchange, of every algorithm
        tune, tune_budget: hyperparameters that are tuned together, "lr=0.001:1:log,h=1:10:int", and how many
            whole runs' worth of time there is for that (30): `offbeat.experiments.halving`
        workers: processes that make runs at the same time, this one included; no result depends on it. With
            more than one, keep what a script of yours does under `if __name__ == "__main__":`, for they
            import it. Runs with objects of yours (algorithm, task, graph, optimizer, measured delays) are
            made in this process alone; what you name by its file is loaded by all
        out: a folder in which every finished run is kept at once: the same call goes on with what is there.
            Runs that were there have no models. Objects of yours are refused, for they have no lasting name
    """
    made, folder = study(algorithms, over, **settings), None if out is None else Path(out)
    return Comparison(list(made.runs(progress, workers=workers, out=folder)))


def simulate(
    algorithm: str | type[Agent] | Agent | Algorithm = "adsgd",
    *,
    progress: Progress | None = None,
    **settings: Any,
) -> Run:
    """Run one algorithm once; the settings are those of `compare`."""
    made = plan([algorithm], **settings)
    if made.count != 1:
        raise SettingError("simulate makes one run: give one learning rate and one seed, or use compare.")
    return next(made.runs(progress))
