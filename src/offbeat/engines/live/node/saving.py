"""When an agent is saved, and from what it goes on, which is never another run's."""

import time
from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from offbeat.core.errors import SettingError
from offbeat.engines.live.node import checkpoint
from offbeat.engines.live.node.checkpoint import About
from offbeat.engines.live.node.driver import Driver
from offbeat.engines.live.node.guard import NotFinite
from offbeat.engines.live.settings import CheckpointPolicy
from offbeat.world.topology import Topology

SHOWN = 8  # so many differences
WIDE = 80  # entries of what is wider are compared one by one
OTHER_RUN = "This checkpoint is of another run:"


@dataclass
class Checkpoints:
    """The checkpoints of one agent, in its folder; `about`: of which run; `free`: what of that may differ."""

    folder: Path
    about: About
    policy: CheckpointPolicy
    free: Set[str] = frozenset()
    saved_at: float = field(default_factory=time.monotonic)
    saved_step: int = -1

    def due(self, driver: Driver, final: bool = False) -> bool:
        """Whether the agent is to be saved now. One that waits for others never is: its step is half done."""
        actor, policy = driver.actor, self.policy
        if actor.at is None or actor.steps == self.saved_step or not policy:
            return False
        return final or policy.due(actor.steps, time.monotonic() - self.saved_at)

    def save(self, driver: Driver, more: Mapping[str, Any], usual: Set[str] = frozenset()) -> str:
        """Write a checkpoint of the agent and `more`, between steps; only if it is finite, but for tensors in
        `usual`. Returns why it is not written, which the agent's output says too; empty if it is.
        """
        refused, step = "", driver.actor.steps
        try:
            with driver.lock:
                checkpoint.begin(self.folder, step, self.about, {**driver.state(), **more}, usual)
        except NotFinite as error:
            refused = str(error)
            driver.guard.tell(refused)
        else:
            checkpoint.finish(self.folder, step)  # without the lock: mail is answered meanwhile
            self.saved_step = step
        self.saved_at = time.monotonic()
        return refused

    def load(self, step: int) -> Mapping[str, Any]:
        """The state of a step; damaged ones are set aside. Raises SettingError if it is of another run."""
        about, state = checkpoint.load(checkpoint.path_of(self.folder, step), checked=True)
        saved, now = ({k: v for k, v in each.items() if k not in self.free} for each in (about, self.about))
        refuse_other(saved, now)
        return dict(state)


def donor_of(folder: Path, agent: int, topology: Topology) -> int:
    """From whose newest checkpoint an agent starts that has none: of its neighbours, or else of all, the one
    with most steps. Raises SettingError if nobody has one.
    """
    there = [(j, checkpoint.latest(checkpoint.agent_folder(folder, j))) for j in range(topology.n)]
    steps = {j: found[0] for j, found in there if found and j != agent}
    some = [j for j in topology.peers(agent) if j in steps] or [*steps]
    if not some:
        raise SettingError(f"Nobody has a checkpoint in {folder}, so agent {agent} cannot start from one.")
    return max(some, key=lambda j: (steps[j], -j))


def refuse_other(
    saved: About, now: About, what: str = OTHER_RUN, names: tuple[str, str] = ("saved", "now")
) -> None:
    """Raise SettingError, `what` and the differences, unless the two, called `names`, are of one run."""
    found = _differences("", _described(saved), _described(now)) or _differences("", saved, now)
    if found:
        lines = [f"{place}: {names[0]} {one}, {names[1]} {other}" for place, one, other in found[:SHOWN]]
        more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        raise SettingError("\n  ".join([what, *lines, *more]))


def _described(about: About) -> dict[str, Any]:
    """The same with a model's parameters in few words: where they lie follows from that, mostly."""
    known = dict(about)
    with suppress(LookupError, TypeError, ValueError):
        known["model"] = {name: f"{dtype} {shape}" for name, shape, dtype, *_ in known["model"]}
    return known


def _differences(what: str, saved: Any, now: Any) -> list[tuple[str, str, str]]:
    if saved == now:
        return []
    before, after = _entries(saved), _entries(now)
    if before is None or after is None:
        return [(what, f"{saved!r:.{WIDE}}", f"{now!r:.{WIDE}}")]
    found = []
    for key in {**before, **after}:
        place = f"{what}[{key}]" if isinstance(key, int) else f"{what}.{key}".lstrip(".")
        found += _differences(place, before.get(key), after.get(key))
    return found or [(what, f"{list(before)!r:.{WIDE}}", f"{list(after)!r:.{WIDE}}, another order")]


def _entries(value: Any) -> dict[Any, Any] | None:
    """What to compare one by one: a mapping, a list of (name, ...), or a long list; else None."""
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, list | tuple) or not value:
        return None
    if all(isinstance(item, list | tuple) and len(item) > 1 and isinstance(item[0], str) for item in value):
        named = {item[0]: tuple(item[1:]) for item in value}
        if len(named) == len(value):
            return named
    return dict(enumerate(value)) if len(repr(value)) > WIDE else None
