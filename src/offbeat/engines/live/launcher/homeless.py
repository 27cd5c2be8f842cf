"""Agents for which no machine has room at present: they wait for one, and the others go on meanwhile."""

import time
from collections.abc import Collection, Sequence
from typing import Protocol

from offbeat.engines.live.launcher.children import NoRoom, OnOutput
from offbeat.engines.live.shm.board import State

AGAIN = 1.0  # seconds between looks for room


class Run(Protocol):
    """What is to be known of a launcher."""

    again: dict[int, float]
    on_output: OnOutput
    enough: bool

    @property
    def missing(self) -> Collection[int]: ...
    def start(self, i: int) -> None: ...


class Homeless:
    """Those of one run."""

    def __init__(self, launcher: Run) -> None:
        self.launcher = launcher
        self._why: dict[int, str] = {}  # agent -> why it cannot be started

    def start(self, i: int) -> None:
        """Start an agent again whose time has come, once there is room for it."""
        launcher = self.launcher
        try:
            launcher.start(i)
        except NoRoom as error:
            if i not in self._why:
                launcher.on_output(i, f"waits: {error} It goes on as soon as a machine joins the cluster")
            self._why[i], launcher.again[i] = str(error), time.monotonic() + AGAIN
        else:
            self._why.pop(i, None)
            del launcher.again[i]

    def end(self, states: Sequence[State]) -> str | None:
        """Why the run is to end, where only those are left (empty: it has done enough); else None."""
        waiting = [i for i in self._why if i in self.launcher.again]
        gone = {*waiting, *self.launcher.missing}
        if not waiting or any(state is not State.LEFT for i, state in enumerate(states) if i not in gone):
            return None
        why = f"{self._why[waiting[0]]} All others are done, so nobody waits for it."
        return "" if self.launcher.enough else why
