"""By which settings runs differ: what tells one world from another, so that no median mixes them."""

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from offbeat.core.errors import SettingError
from offbeat.core.settings import Settings
from offbeat.world.topology import Topology

TUNED = "optimizer_asked"  # what the optimizer was before its parameters were tuned
NO_WORLD = (
    *("algorithm", "lr", "lr_said", "seed", "own", "code", "executor", "data", "metrics", "per_agent"),
    TUNED,
)
"""Settings that are no world: who runs in it; how and from where it is computed, and what more is measured,
which changes nothing."""


class WithSettings(Protocol):
    """As much of a run as tells its world."""

    @property
    def settings(self) -> Settings: ...
    @property
    def seed(self) -> int: ...
    @property
    def graph(self) -> Topology | None: ...
    @property
    def has_topology(self) -> bool: ...
    @property
    def topology(self) -> Topology: ...


World = tuple[tuple[str, Any], ...]


def asked_for(settings: Settings) -> Settings:
    """The settings as they were asked for: with the optimizer as it was before it was tuned."""
    asked = settings | ({"optimizer": settings[TUNED]} if TUNED in settings else {})
    asked.pop(TUNED, None)
    return asked


def worlds_of(runs: Sequence[WithSettings]) -> list[World]:
    """Of each run the settings by which these runs differ, (name, value) each, in their order.

    A setting differs if it has several values among the runs in which it means anything; where it means
    nothing (`needs`, see `offbeat.core.settings`), its value is None. A straggler that nobody chose is the
    centre of the graph, which a random graph has anew with every seed: that is no difference. Raises
    SettingError for graphs that differ though settings and seed are the same.
    """
    names = dict.fromkeys(name for run in runs for name in run.settings if name not in NO_WORLD)
    meant = [_meant(asked_for(run.settings), names) for run in runs]
    unusual = {name for run, values in zip(runs, meant, strict=True) for name in _unusual(run, values)}
    differing = []
    for name in names:
        values = {_none_alike(values[name]) for values in meant if name in values}
        if len(values) > 1 and name in unusual and (name != "straggler" or _chosen(runs)):
            differing.append(name)
    worlds = [tuple((name, values.get(name)) for name in differing) for values in meant]
    versions = {pair for run in runs for pair in _code(run.settings)}
    if len(versions) > len({file for file, _ in versions}):
        worlds = [(*w, ("code", _code(run.settings))) for w, run in zip(worlds, runs, strict=True)]
    _refuse_other_graphs(runs, worlds)
    return worlds


def _meant(settings: Settings, names: dict[str, None]) -> dict[str, Hashable]:
    """The values of all settings that mean anything here; a list is a tuple."""
    idle = settings.idle()
    values = {name: settings.get(name) for name in names if name not in idle}
    return {name: _frozen(value) for name, value in values.items()}


def _unusual(run: WithSettings, values: dict[str, Hashable]) -> set[str]:
    """All but what is as usual, however it is spelt: an `eval_every` that is a fraction of `until`."""
    follows = {each.name for each in run.settings.declared() if each.usual and each.is_usual(run.settings)}
    return {*values} - follows


def _code(settings: Settings) -> tuple[tuple[str, str], ...]:
    """The files of one's own that it ran, each with the version of its code."""
    return tuple(sorted((settings.get("code") or {}).items()))


def _none_alike(value: Hashable) -> Hashable:
    """No faults at all, as a live run has it, are what a simulated run has, which knows of none."""
    return None if value == () else value


def _frozen(value: Any) -> Hashable:
    if isinstance(value, dict):
        return tuple(sorted((name, _frozen(each)) for name, each in value.items()))
    frozen: Hashable = tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
    return frozen


def _chosen(runs: Sequence[WithSettings]) -> bool:
    """Whether stragglers differ though the graph is the same."""
    slow, known = dict[Hashable, set[Hashable]](), dict[Hashable, Hashable]()
    for run in runs:
        if straggler := _frozen(run.settings.get("straggler")):
            named = run.settings["topology"], run.settings["agents"], run.seed, run.graph
            graph = known[named] = known.get(named) or _graph(run)
            slow.setdefault(graph, set()).add(straggler)
    return any(len(several) > 1 for several in slow.values())


def _graph(run: WithSettings) -> Hashable:
    """What is the same of runs on the same graph."""
    if run.has_topology and run.topology.rounds is None:
        w = run.topology.w
        return bytes(w.indices.tobytes() + w.data.tobytes())
    return str(run.settings.get("topology")), run.settings.get("agents")


def _refuse_other_graphs(runs: Sequence[WithSettings], worlds: Sequence[World]) -> None:
    """Of those that are held; a graph that has a name is the same wherever it is built."""
    found: dict[Hashable, Hashable] = {}
    for run, world in zip(runs, worlds, strict=True):
        if run.graph is not None and found.setdefault((world, run.seed), _graph(run)) != _graph(run):
            raise SettingError(
                f"The graphs differ though the seed is the same, {run.seed}, and so is their name, "
                f"{run.settings['topology']}. Expected graphs that go by their names: set `name` of each."
            )
