"""Who joins a run while it goes on, and who leaves it because it was asked to: what the launcher does then.

Newcomers start beside the run, as processes that nobody knows of, until all of one request are ready: they
have the model that the others have, and the graph that there will be. Then they are let in together. If one
of them fails before, none is, and the run goes on as if nobody had asked.
"""

import signal
import time
from collections import deque
from collections.abc import Collection
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import networkx as nx

from offbeat.core.errors import SettingError
from offbeat.engines.live.launcher.children import Life, NoRoom, OnOutput, Processes
from offbeat.engines.live.launcher.outfolder import Present
from offbeat.engines.live.launcher.requests import Request, answer, requests
from offbeat.engines.live.members import Members, keep_stages
from offbeat.engines.live.node.ending import Ending, Missing, take
from offbeat.engines.live.places import joined_with, log_path
from offbeat.engines.live.settings import RunSettings, ScriptProgram
from offbeat.engines.live.shm.board import LEAVE, LET_GO, Bell, Board, Order, Row, State
from offbeat.world.growth import Growing, Newcomer, stated

NOBODY = "nobody"  # asks any more: the token of a request of which a former launcher knew


class Run(Protocol):
    """What a door knows of its launcher."""

    settings: RunSettings
    shared: Path
    board: Board
    bells: list[Bell]
    children: Processes
    present: Present
    kept: ExitStack
    logs: list[Path]
    on_output: OnOutput
    needed: Collection[int]
    member: list[int]
    counts: list[list[int]]  # agent by agent
    missing: dict[int, Missing]
    again: dict[int, float]

    @property
    def seconds(self) -> float:
        """The run's time."""

    def start(self, i: int) -> None:
        """Start the process of an agent."""

    def change(self, i: int, incarnation: int) -> None:
        """Tell everybody who has come or gone."""

    def ring(self) -> None:
        """Wake everybody."""


@dataclass(frozen=True)
class Joining:
    """Agents that are starting, of one request: `first` and those after it."""

    token: str
    first: int
    newcomers: tuple[Newcomer, ...]
    since: float

    @property
    def agents(self) -> range:
        return range(self.first, self.first + len(self.newcomers))


class Door:
    """Lets agents into a run, and out of it.

    Attributes:
        joining: who is to be let in; others have to wait for that
        left: who has left because it was asked to, and when, in seconds of the run
    """

    def __init__(self, launcher: Run) -> None:
        self.launcher = launcher
        self.joining: Joining | None = None
        self.left: dict[int, float] = {}
        self._leaving: dict[int, str] = {}  # agent -> token
        self._asked: deque[tuple[str, Request]] = deque()
        self._growing: Growing | None = None

    def look(self) -> None:
        """Take in requests; let in who is ready, and out who has ended."""
        launcher = self.launcher
        self._asked.extend(requests(launcher.shared))
        order = launcher.board.order
        if order > Order.RUN:
            self._close()
        elif order is Order.RUN:
            for i in [i for i in self._leaving if launcher.board.row(i)[Row.STATE] == State.LEFT]:
                self._see_off(i, f"left after its step {launcher.board.row(i)[Row.STEPS]:,}")
            ready = [launcher.board.row(i)[Row.STATE] == State.JOINED for i in self._starting]
            if ready and all(ready):
                self._let_in()
            beside = [i for i in launcher.children.running if i >= launcher.board.n]
            if self.joining is None and beside:  # one may have begun after all had been given up
                launcher.children.signal(signal.SIGKILL, beside)
            while self._asked and self.joining is None and not beside:
                token, request = self._asked.popleft()
                try:
                    self._refuse_experiment()
                    (self._join if request.what == "join" else self._leave)(token, request)
                except SettingError as error:
                    answer(launcher.shared, token, False, str(error))

    def adopt(self, members: Members) -> None:
        """Go on for a launcher that has died, once its board is known here."""
        board = self.launcher.board
        for i in range(board.n):
            ended = max(0.0, (int(board.row(i)[Row.LAST]) - board.zero) / 1e9) if board.zero else 0.0
            if i in members.left:
                self.left[i] = round(ended, 3)
            elif board.row(i)[Row.LEAVES] == LEAVE:
                self._leaving[i] = NOBODY

    def leaves(self, i: int) -> bool:
        """Whether an agent has been asked to leave, and has not been seen off."""
        return i in self._leaving

    def ended(self, child: Life) -> bool:
        """Whether this process was a newcomer's that had not been let in, or that of an agent that leaves."""
        i, launcher = child.agent, self.launcher
        if i in self._leaving and launcher.board.row(i)[Row.STATE] != State.LEFT:
            launcher.board.row(i)[Row.STATE] = State.LEFT
            self._see_off(
                i, "was to leave, and died before it had saved: its last checkpoint is what is left"
            )
            return True
        if i < launcher.board.n:
            return i in self.left
        joining, failure = self.joining, take(launcher.shared, i)
        if joining is not None:
            lines, code = tuple(child.output.lines), child.code
            said = Ending(i, code, 1, 0, 0, failure, lines).said or f" It ended with exit code {code}."
            self._give_up(f"The new agent {i} failed before it could join; the run goes on without it.{said}")
        return True

    def around(self, i: int) -> Collection[int]:
        """Whom an agent hears, and is heard by; of one that is to be let in too."""
        coming = () if self.joining is None else self.joining.newcomers
        grown = (*self.launcher.settings.grown, *coming)
        return {*nx.all_neighbors(self._built().after(grown).graph, i)} - {i}

    @property
    def present(self) -> list[int]:
        """Who has come, or is to be let in, and has not gone for good."""
        gone, last = {*self.left, *self.launcher.missing}, self._starting
        return [i for i in range(max(self.launcher.board.n, last.stop)) if i not in gone]

    @property
    def _starting(self) -> range:
        return range(0) if self.joining is None else self.joining.agents

    def _refuse_experiment(self) -> None:
        """Raise SettingError for runs that take nobody in, and let nobody out."""
        program = self.launcher.settings.program
        if not isinstance(program, ScriptProgram):
            raise SettingError(
                "This is a run of 'offbeat live', whose world and data are for as many agents as it has: "
                "nobody can join or leave it. Expected a run of 'offbeat launch'."
            )

    # -- in --------------------------------------------------------------------------------------------

    def _join(self, token: str, request: Request) -> None:
        """Start the newcomers of a request. Raises SettingError."""
        launcher, board = self.launcher, self.launcher.board
        growing, present = self._graph(), self._present()
        n, many = board.n, request.agents
        if not 1 <= many <= board.capacity - n:
            room = f"there is room for {board.capacity - n} more" if n < board.capacity else "the run is full"
            raise SettingError(f"{many} agents were to join; {room}: it has {n} of {board.capacity} agents.")
        grown = [*launcher.settings.grown]
        for k in range(many):
            there = [*present, *range(n, n + k)]
            chosen = request.neighbours
            grown.append(growing.next(grown, there) if chosen is None else stated(chosen, present))
        growing.after(grown)
        Members(tuple(grown), tuple(self.left)).write(launcher.shared)
        self.joining = Joining(token, n, tuple(grown[-many:]), time.monotonic())
        for counts in launcher.counts:
            counts += [0] * many
        try:
            for i in self.joining.agents:
                launcher.start(i)
        except NoRoom as error:
            self._give_up(f"{error} The run goes on as it was.")

    def _graph(self) -> Growing:
        """How this run's graph grows. Raises SettingError if nobody can join it."""
        joined = joined_with(self.launcher.shared)
        if joined is not None and joined.closed:
            takes = "Expected an algorithm that takes agents back, as adsgd"
            raise SettingError(f"Nobody can join this run: {joined.closed}. {takes}.")
        growing = self._built()
        growing.refuse()
        return growing

    def _built(self) -> Growing:
        self._growing = self._growing or self.launcher.settings.growing()
        return self._growing

    def _present(self) -> list[int]:
        """Who takes part, and so may get a neighbour: who has died too, as it comes back."""
        launcher = self.launcher
        gone = {*launcher.missing, *self.left, *self._leaving}
        states = launcher.board.rows[:, Row.STATE].tolist()
        there = [i for i, state in enumerate(states) if i not in gone and state != State.LEFT]
        if not there:
            raise SettingError("All agents of this run are done, so nobody can join it.")
        return there

    def _let_in(self) -> None:
        """All of the request are ready."""
        launcher, joining = self.launcher, self.joining
        assert joining is not None
        launcher.settings = replace(launcher.settings, grown=(*launcher.settings.grown, *joining.newcomers))
        self._keep()
        for i in joining.agents:
            path = log_path(launcher.settings.folder, i)
            if path not in launcher.logs:  # of a number that a stage of before had
                launcher.logs.append(path)
            launcher.present.watch(path)
            launcher.bells.append(launcher.kept.enter_context(closing(Bell(launcher.shared, i))))
        launcher.board.grow(joining.first + len(joining.newcomers))
        for i in joining.agents:
            launcher.change(i, 1)
        launcher.ring()
        took, self.joining = time.monotonic() - joining.since, None
        told = []
        for i, each in zip(joining.agents, joining.newcomers, strict=True):
            hears = ", ".join(map(str, each.neighbours))
            told.append(f"agent {i} joined after {took:.1f} s, its neighbours are {hears}")
            launcher.on_output(i, told[-1].partition(" ")[2].partition(" ")[2])
        answer(launcher.shared, joining.token, True, "; ".join(told).capitalize() + ".")

    def _give_up(self, why: str) -> None:
        launcher, joining = self.launcher, self.joining
        assert joining is not None
        self.joining = None
        launcher.children.signal(signal.SIGKILL, [*joining.agents])
        for i in joining.agents:
            for counts in launcher.counts:
                counts.pop()
            path = log_path(launcher.settings.folder, i)
            if path.exists() and not path.stat().st_size:
                path.unlink()
        Members(launcher.settings.grown, tuple(self.left)).write(launcher.shared)
        launcher.on_output(joining.first, why)
        answer(launcher.shared, joining.token, False, why)

    # -- out -------------------------------------------------------------------------------------------

    def _leave(self, token: str, request: Request) -> None:
        """Ask an agent to end. Raises SettingError."""
        launcher, i = self.launcher, request.agent
        n, there = launcher.board.n, self._present()
        if not 0 <= i < n:
            raise SettingError(f"There is no agent {i}; expected one of 0 to {n - 1}.")
        if i not in there:
            why = "has been asked to leave already" if i in self._leaving else "takes no part any more"
            raise SettingError(f"Agent {i} {why}; expected one of {', '.join(map(str, there))}.")
        others = [j for j in there if j != i]
        if i in launcher.needed or not others:
            why = "is the last one" if not others else "is one without which the others stand still"
            raise SettingError(f"Agent {i} {why}, so it cannot leave: Ctrl-C ends the run, and saves.")
        self._refuse_parted(i, others)
        self._leaving[i] = token
        launcher.board.row(i)[Row.LEAVES] = LEAVE
        launcher.ring()
        if i in launcher.again:  # it is dead, and would have come back
            del launcher.again[i]
            launcher.board.row(i)[Row.STATE] = State.LEFT

    def _refuse_parted(self, i: int, others: list[int]) -> None:
        """Raise SettingError if there would be two runs of it."""
        left = self._built().after(self.launcher.settings.grown).graph.subgraph(others)
        parts = (nx.strongly_connected_components if left.is_directed() else nx.connected_components)(left)
        shown = [", ".join(map(str, sorted(part))) for part in parts]
        if len(shown) > 1:
            raise SettingError(
                f"Without agent {i} the others would be in {len(shown)} parts that hear nothing of each "
                f"other: {' | '.join(shown)}. Expected another agent; or first let one join that is a "
                "neighbour of each part (offbeat join --neighbours)."
            )

    def _see_off(self, i: int, how: str) -> None:
        """Agent i has ended, in order or not: tell all others, and let its process go."""
        launcher = self.launcher
        self.left[i] = launcher.seconds
        self._keep()
        if launcher.member[i] > 0:
            launcher.change(i, -launcher.member[i])
        row = launcher.board.row(i)
        row[Row.MODEL], row[Row.LEAVES] = 0, LET_GO
        launcher.ring()
        launcher.on_output(i, f"{how}; the others go on")
        answer(launcher.shared, self._leaving.pop(i), True, f"Agent {i} {how}; the others go on.")

    def _keep(self) -> None:
        """In the run's shared folder, for its agents, and with its results."""
        settings = self.launcher.settings
        Members(settings.grown, tuple(self.left)).write(self.launcher.shared)
        keep_stages(settings.folder, settings.stages)

    def _close(self) -> None:
        """The run ends."""
        if self.joining is not None:
            self._give_up("The run is ending, so nobody joins it any more.")
        for token in [*self._leaving.values(), *(token for token, _ in self._asked)]:
            answer(self.launcher.shared, token, False, "The run is ending, with all of its agents.")
        self._leaving.clear()
        self._asked.clear()
