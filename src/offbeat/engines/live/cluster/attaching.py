"""A new launcher for a run whose own has died: what it has to know is with the gateways and their keepers."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from offbeat.core.errors import SettingError
from offbeat.engines.live.cluster.keeper import Ended
from offbeat.engines.live.launcher.launch import Launcher
from offbeat.engines.live.members import Members
from offbeat.engines.live.settings import RunSettings
from offbeat.engines.live.shm.board import Order, Row, State

Known = Mapping[str, Any]
"""What `Gateway.state` gives."""

QUIET = 2.0  # seconds since a launcher was heard of, after which it counts as dead


def alone(run: str, ask: Callable[[], dict[int, Any]]) -> dict[int, Any]:
    """What the gateways know, as `ask` has it, once it is certain that the run's launcher is dead, which may
    have been just now. Raises SettingError if it lives.
    """
    states = ask()
    if (passed := _since_heard(states)) < QUIET:
        time.sleep(QUIET - passed)
        states = ask()
    if _since_heard(states) < QUIET:
        raise SettingError(f"Run {run} has a launcher, which was heard of just now: expected a dead one.")
    return states


def _since_heard(states: Mapping[int, Known]) -> float:
    """Seconds since any of these gateways heard of a launcher."""
    return min(float(state["looked"]) for state in states.values())


def newest(states: Mapping[int, Known]) -> Known:
    """That of the machine which was told most."""
    return max(states.values(), key=lambda state: (len(state["changes"]), state["order"]))


def members_of(known: Known, begun: RunSettings) -> Members:
    """Who has come to the run, and left it; of those who were about to come nobody is let in any more.
    Raises ValueError, LookupError, TypeError for what is none.
    """
    if not known["members"]:
        return Members(begun.grown)
    members = Members.read(json.loads(known["members"]), begun.agents)
    return replace(members, grown=members.grown[: known["agents"] - begun.agents])


def adopt(launcher: Launcher, states: Mapping[int, Known]) -> dict[int, tuple[int, int]]:
    """Have the launcher know what that one knew. Returns the agents whose processes run, or have ended and
    nobody was told, with their machine and incarnation.
    """
    known, board = newest(states), launcher.board
    board.grow(known["agents"])
    for agent, incarnation in known["changes"]:
        board.change(agent, incarnation)
        launcher.member[agent] = incarnation
        launcher.restarts[agent] = abs(incarnation) - 1
    if known["joined"] is not None:
        algorithm, launcher.returns, needed = known["joined"]
        launcher.needed = frozenset(needed)
        launcher.settings = replace(launcher.settings, algorithm=algorithm)
    board.words[5], board.order = known["last_step"], Order(known["order"])
    members = members_of(known, launcher.settings)
    members.write(launcher.shared)
    there: dict[int, tuple[int, int]] = {}
    for machine, state in states.items():
        for agent, host in enumerate(state["hosts"]):
            if host == machine and agent < board.n:
                board.rows[agent] = state["rows"][agent]
        ended = [Ended(**each) for each in state["ended"]]
        told = {each.agent: each.incarnation for each in ended}
        runs = {int(agent): about[0] for agent, about in state["running"].items()}
        there |= {agent: (machine, incarnation) for agent, incarnation in (told | runs).items()}
    there = {agent: life for agent, life in there.items() if agent < board.n}
    for agent, (_, incarnation) in there.items():
        launcher.restarts[agent] = incarnation - 1
    launcher.door.adopt(members)
    for agent in range(board.n):
        if agent in members.left:  # perhaps on a machine that was lost since
            board.row(agent)[Row.STATE] = State.LEFT
        elif agent not in there and board.row(agent)[Row.STATE] != State.LEFT:
            _missed(launcher, agent)
    launcher.attached = True
    return there


def _missed(launcher: Launcher, agent: int) -> None:
    """An agent whose end the launcher had heard of, or which was lost with its machine: it comes back."""
    if launcher.member[agent] > 0:
        launcher.board.change(agent, -launcher.member[agent])
        launcher.member[agent] = -launcher.member[agent]
    launcher.restarts[agent] += 1
    launcher.again[agent] = time.monotonic()
