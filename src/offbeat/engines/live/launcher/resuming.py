"""How a run of `offbeat launch` goes on from its checkpoints: as it was, with other agents, on another graph.

Whoever has a checkpoint of its own goes on from it, wherever it was written. Who has none, as the run did not
have it before, starts from the newest checkpoint of a neighbour, as an agent that comes back does, with an
optimizer of its own that is new. Of agents that there are no longer the checkpoints stay where they are.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from offbeat.core.errors import SettingError
from offbeat.engines.live.members import Stage, stages_of
from offbeat.engines.live.node import checkpoint
from offbeat.engines.live.node.checkpoint import agent_folder, latest, path_of
from offbeat.engines.live.node.log import elapsed
from offbeat.engines.live.node.saving import donor_of
from offbeat.world.topology import Topology, size_of


def stages_before(folder: Path) -> tuple[Stage, ...]:
    """The stages of the run in a folder, the last one until now. Raises SettingError if there is no run."""
    logs = sorted(folder.glob("agent-*.trace"))
    if not logs:
        raise SettingError(
            f"{folder} holds no run of offbeat launch that could go on: there is no agent-0.trace. Expected "
            "the --out of an earlier run; without --resume a new one starts there."
        )
    *earlier, last = stages_of(folder) or [_said_by_checkpoints(folder, len(logs))]
    return (*earlier, replace(last, until=elapsed(logs)))


def _said_by_checkpoints(folder: Path, agents: int) -> Stage:
    """Of a run that has kept no stages."""
    for each in sorted((folder / "checkpoints").glob("agent-*")):
        for step in latest(each)[:1]:
            with checkpoint.tensors_of(path_of(each, step)) as (head, _):
                return Stage(agents, str(json.loads(head["about"])["topology"]))
    raise SettingError(
        f"The run in {folder} was interrupted without a checkpoint, so it cannot go on. Start a new one, "
        "with another --out."
    )


def next_stage(
    last: Stage, agents: int | None, topology: str | None, weights: str | None, seed: int
) -> Stage:
    """What is to go on, None: as it was. Agents as many as it began with, or has now, are those it has."""
    if topology in (None, last.topology):
        topology, weights = last.topology, weights or last.weights
        if agents in (None, last.agents, last.count) and weights == last.weights:
            return replace(last, until=math.inf)
    return Stage(agents or size_of(topology, seed) or last.count, topology, weights)


def refuse_unresumable(folder: Path, last: Stage, now: Stage, together: bool) -> None:
    """Raise SettingError unless there are the checkpoints that are needed."""
    agents = range(now.agents if now.graph == last.graph else 0)
    lacking = [i for i in agents if checkpoint.newest(agent_folder(folder, i), now.agents, together) is None]
    having = [i for i in range(now.count) if latest(agent_folder(folder, i))]
    why = f"before agent {lacking[0]} had saved a checkpoint" + " that all have" * together if lacking else ""
    if not having:
        why = "without a checkpoint"
        if any((folder / "checkpoints").glob("agent-*/step-*")):
            why = f"and none of the agents 0 to {now.count - 1} has a checkpoint"
    if why:
        do = "so it cannot go on. Start a new one, with another --out."
        raise SettingError(f"The run in {folder} was interrupted {why}, {do}")


def sayings(folder: Path, last: Stage, now: Stage, graph: Topology) -> list[str]:
    """What it means that a run goes on with other agents, or on another graph, before it does; nothing where
    neither is so.
    """
    if now.graph == last.graph:
        return []
    steps = {i: found[0] for i in range(now.count) if (found := latest(agent_folder(folder, i)))}
    said = [f"This run had {_called(last)}; it goes on with {_called(now)}."]
    of = ", ".join(f"{step:,}" for step in steps.values())
    said.append(f"From their own checkpoints: {_agents(steps)}, of step {of}.")
    for i in [i for i in range(now.count) if i not in steps]:
        donor = donor_of(folder, i, graph)
        said.append(f"New: agent {i}, from the checkpoint of agent {donor}, of step {steps[donor]:,}.")
    if gone := [i for i in range(now.count, last.count) if latest(agent_folder(folder, i))]:
        said.append(f"No longer: {_agents(gone)}; what they had saved stays, and export leaves it out.")
    if now.count != last.count:
        said.append(
            f"Data: an epoch that an agent had begun stays the share of {last.count} that it was; from its "
            f"next one on it takes its share of {now.count}."
        )
    return said


def _called(stage: Stage) -> str:
    weights = f", {stage.weights} weights" if stage.weights else ""
    grown = f", {len(stage.grown)} of whom had joined" if stage.grown else ""
    return f"{stage.count} agents on {stage.topology}{weights}{grown}"


def _agents(some: Iterable[int]) -> str:
    return f"agents {', '.join(map(str, some))}"
