"""The launcher: starts a process for every agent, restarts who dies, and ends the run in order."""

import math
import os
import signal
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from offbeat.core.errors import OffbeatError
from offbeat.core.system.signals import handled
from offbeat.engines.live.launcher.children import Children, Life, OnOutput, Processes
from offbeat.engines.live.launcher.homeless import Homeless
from offbeat.engines.live.launcher.joining import Door
from offbeat.engines.live.launcher.outfolder import Present
from offbeat.engines.live.launcher.stop_after import last_step
from offbeat.engines.live.members import keep_stages
from offbeat.engines.live.node.ending import Ending, Missing, take, words
from offbeat.engines.live.node.log import elapsed, merged
from offbeat.engines.live.places import joined_with, log_path
from offbeat.engines.live.settings import CONTINUE, RunSettings, ScriptProgram
from offbeat.engines.live.shm.board import FLOAT_FIELDS, LAUNCHER, Bell, Board, Order, Row, State
from offbeat.engines.live.shm.run_folder import make_run_folder, sweep
from offbeat.engines.trace import Trace

BACK_OFF = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before an agent's first, second, ... restart
PATIENCE = 30.0  # seconds that an agent has to end when it is asked to
TICK, CLOSE = 0.25, 0.05  # seconds between looks at what nobody reports; at whether there is enough
STUCK = 2.0  # seconds that all wait for each other until that is taken for certain
TOLD = 100  # steps of every agent after which it is said what --stop-after lacks
KEPT = [Row.STEPS, Row.WRITES, Row.WAITED, Row.MIXED, Row.SKIPPED, Row.EPOCHS, Row.DEALT]  # in all lives


class RunFailed(OffbeatError):
    """A run ended otherwise than it should; the message says why."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass
class Launcher:
    """Runs agents. What these join with counts more than the settings' algorithm, `returns` and `needed`."""

    settings: RunSettings  # whose folder exists
    command: Sequence[str]  # what Python is to run, without Python itself
    returns: bool = True  # whether the algorithm takes an agent back
    needed: Collection[int] = ()  # without whom the others stand still
    reason: str = ""  # why the run failed
    stopped_by: int = 0  # the signal that ended the run; 0: none did
    began: bool = False  # whether any agent is known to have made a step; at the end it is
    enough: bool = False  # whether the run has done what it was to (--stop-after)
    elapsed: float = 0.0  # seconds that a run which is resumed had run before
    processes: "StartProcesses | None" = None  # None: of this machine

    def __post_init__(self) -> None:
        n = self.settings.count
        self.restarts, self.member, self.steps_before = [0] * n, [0] * n, [0] * n
        self.counted = [0] * n  # of the restarts, those that are not forgiven
        self.counts = [self.restarts, self.member, self.steps_before, self.counted]  # agent by agent
        self.missing: dict[int, Missing] = {}
        self.door = Door(self)
        self.again: dict[int, float] = {}
        self.homeless = Homeless(self)
        self.endings: dict[int, Ending] = {}
        self.exits: dict[int, Ending] = {}
        self.killing = self.told = self.attached = False
        self.stuck_at = self.deadline = math.inf
        most = max(stage.count for stage in self.settings.stages)
        self.logs = [log_path(self.settings.folder, i) for i in range(most)]

    def run(
        self,
        on_output: OnOutput,
        watch: "Callable[[Launcher], None]" = lambda launcher: None,
        due: "Callable[[Launcher], float]" = lambda launcher: math.inf,
    ) -> None:
        """From start to end; `watch` is called often, and at the times that `due` names, in seconds of the
        monotonic clock. Raises RunFailed, SharedMemoryError; whatever happens, nothing is left in shared
        memory.
        """
        settings, n = self.settings, self.settings.count
        self.on_output, self.watch, self.due = on_output, watch, due
        self.elapsed = elapsed(self.logs) * settings.unit if settings.resume else 0.0
        sweep()
        room = make_run_folder(settings.record())
        self.shared = room.path
        try:
            with ExitStack() as kept:
                self.kept = kept
                self.present = kept.enter_context(closing(Present([self.shared, settings.folder], self.logs)))
                self.board = Board.create(self.shared / "board", n)
                bells = [Bell(self.shared, i) for i in (*range(n), LAUNCHER)]
                *self.bells, mine = [kept.enter_context(closing(bell)) for bell in bells]
                made = Children if self.processes is None else partial(self.processes, self)
                self.children: Processes = made(mine.handle, on_output)
                with handled(self._interrupted, signal.SIGINT), closing(self.children):
                    try:
                        self._run()
                    finally:
                        self.began = self.began or bool(self.board.rows[:, Row.FIRST].any())
        finally:
            room.remove()
        if self.reason:
            raise RunFailed(self.reason)
        if self.exits:
            first, more = self.exits[min(self.exits)], len(self.exits) - 1
            who = f"{first.name}, and {more} others," if more else first.name
            how = f"an exit code, {first.code}, at step {first.steps}.{first.said}"
            raise RunFailed(f"{who} ended the script with {how}", first.code)

    @property
    def leaves_trace(self) -> bool:
        """Whether there is something to make a trace of, after a run that failed."""
        return self.began and all(path.exists() for path in self.logs)

    @property
    def here(self) -> bool:
        """Whether all agents are on this machine."""
        return self.processes is None

    @property
    def seconds(self) -> float:
        """The run's time."""
        return round((time.monotonic_ns() - self.board.zero) / 1e9, 3)

    @property
    def all_left(self) -> bool:
        """Whether all who take part are done."""
        states = self.board.rows[:, Row.STATE].tolist()
        return all(state == State.LEFT for i, state in enumerate(states) if i not in self.missing)

    def trace(self) -> Trace:
        missing = [f"agent {i} from {each.since:g} s" for i, each in self.missing.items()]
        left = [f"agent {i} at {seconds:g} s" for i, seconds in self.door.left.items()]
        more = {"missing": missing, "left": left}
        said = self.settings.record() | {name: those for name, those in more.items() if those}
        return merged(self.logs, said)

    def _run(self) -> None:
        for i in range(self.board.n):
            if not self.attached:  # to a run that goes on already
                self.start(i)
        tick = TICK if self.settings.stop_after is None else min(TICK, CLOSE)
        while self.children.running or self.again:
            now = time.monotonic()
            for i in [i for i, at in self.again.items() if at <= now]:
                self.homeless.start(i)
            ended = self.children.wait(max(0.0, min(now + tick, self.due(self), *self.again.values()) - now))
            self._look_for_folders()
            for child in ended:
                self._ended(child)
            self.door.look()
            self._look()
            self.watch(self)
            if self.board.order >= Order.STOP:
                self.again.clear()
                if time.monotonic() > self.deadline:
                    self._overdue()
        self._look_for_folders()

    def start(self, i: int) -> None:
        row = self.board.all_rows[i]
        self.steps_before[i] = int(row[Row.STEPS])
        kept = row[KEPT].copy()
        row[:] = 0
        row.view(np.float64)[FLOAT_FIELDS] = math.nan
        row[KEPT] = kept
        incarnation = self.restarts[i] + 1
        environment = {
            "OFFBEAT_RUN": str(self.shared), "OFFBEAT_RANK": str(i), "OFFBEAT_INCARNATION": str(incarnation),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        output = self.settings.folder / f"agent-{i}.log"
        row[Row.PID] = self.children.start(i, incarnation, self.command, environment, output).pid

    def _look_for_folders(self) -> None:
        """What is taken away ends the run: nothing of it would be seen, or kept, any more."""
        gone = self.present.gone()
        if gone is not None:
            shared = gone == self.shared
            lost = "through it the agents exchange models" if shared else "there is no whole trace without it"
            self._stop(
                f"{gone} was removed, or replaced, while the run went on; {lost}. The agents were told to "
                f"save and end: what they wrote is in {self.settings.folder}. Leave it there next time."
            )

    def _look(self) -> None:
        """Let in who is ready; let out who is done; end when all are."""
        states = [State(int(state)) for state in self.board.rows[:, Row.STATE]]
        before = self.board.membership
        if self.board.order is Order.WAIT:
            if all(state is State.JOINED for state in states):
                joined = joined_with(self.shared)
                if joined is not None:  # a script may have named its own algorithm
                    algorithm, self.returns, self.needed, _ = joined
                    self.settings = replace(self.settings, algorithm=algorithm)
                for i, restarts in enumerate(self.restarts):
                    self.change(i, restarts + 1)
                if isinstance(self.settings.program, ScriptProgram):
                    keep_stages(self.settings.folder, self.settings.stages)
                self.board.begin(self.elapsed)
        else:
            finishing = self.board.order is Order.FINISH
            for i, state in enumerate(states):
                incarnation = self.restarts[i] + 1
                if state is State.JOINED and self.member[i] != incarnation and i in self.children.running:
                    self.change(i, incarnation)
                elif self.door.leaves(i):
                    continue  # the door sees it off
                elif state is State.LEFT and self.member[i] > 0 and not (finishing and i in self.needed):
                    self.change(i, -incarnation)
                    if i in self.needed and self.board.order < Order.STOP and not self.all_left:
                        if isinstance(self.settings.program, ScriptProgram):  # else all end at once anyway
                            self.on_output(i, "is done; the algorithm cannot go on without it, so all stop")
                        self._stop()
        if self.board.membership != before:
            self.ring()
        stopping = self.board.order is Order.STOP
        left = self.board.all_rows[[*self.children.running], Row.STATE] == State.LEFT
        over = left.all() if stopping else self.all_left
        if (why := self.homeless.end(states)) is not None:
            self._stop(why)
        if self.board.order < Order.END and over:
            self.watch(self)
            self._ask(Order.END)
        else:
            self._look_for_enough()

    def _look_for_enough(self) -> None:
        """End the run if it has done enough; by force, if what is left of it waits for who has ended."""
        board, rule = self.board, self.settings.stop_after
        if board.order is Order.RUN and rule is not None:
            lacking = "" if self.told or board.rows[:, Row.STEPS].min() < TOLD else rule.lacking(board)
            if lacking:
                self.told = True
                self.on_output(0, lacking)
            self.enough = rule.reached(board, self.missing, self.door.left)
            if self.enough:
                board.finish(last_step(board))
        elif board.order is Order.FINISH:
            rows = board.all_rows[[*self.children.running]]
            left = rows[:, Row.STATE] == State.LEFT
            if self.again or not left.any() or not (left | (rows[:, Row.WAITING] > 0)).all():
                self.stuck_at = time.monotonic() + STUCK
            elif time.monotonic() > self.stuck_at:
                self._stop()

    def _stop(self, reason: str = "") -> None:
        self.reason = self.reason or reason
        if self.board.order < Order.STOP:
            self._ask(Order.STOP)

    def _ask(self, order: Order) -> None:
        self.board.order, self.deadline = order, time.monotonic() + PATIENCE
        self.ring()

    def ring(self) -> None:
        for bell in self.bells:
            bell.ring()

    def change(self, i: int, incarnation: int) -> None:
        self.member[i] = incarnation
        self.board.change(i, incarnation)

    def _ended(self, child: Life) -> None:
        if self.door.ended(child):
            return
        i, code, row = child.agent, child.code, self.board.rows[child.agent]
        failure = take(self.shared, i)
        made = int(row[Row.STEPS]) - self.steps_before[i] if row[Row.FIRST] else 0
        self.began = self.began or bool(made)
        lines = tuple(child.output.lines)
        healthy = int(row[Row.LAST] - row[Row.FIRST]) / 1e9
        at = None if self.here else self.children.machine(i)
        ending = Ending(i, code, child.incarnation, int(row[Row.STEPS]), made, failure, lines, healthy, at)
        if failure is not None:
            child.output.keep(failure.text)
        elif row[Row.STATE] == State.LEFT:
            if code > 0:
                self.exits[i] = ending
            elif code < 0:
                self.on_output(i, f"was done, and had saved; its process was {words(code)} then")
            return
        row[Row.STATE] = State.ABSENT
        if self.member[i] > 0:
            self.change(i, -self.member[i])
            self.ring()
        for path in [*self.shared.glob(f"register.{i}.*"), *self.shared.glob(f"mail.{i}.*")]:
            path.unlink(missing_ok=True)
        if self.board.order < Order.STOP:
            self._go_on_after(ending)
        elif code and not self.killing:
            said = f"{ending.name} failed as the run was ending ({words(code)}).{ending.said}"
            self.reason = self.reason or said

    def _go_on_after(self, ending: Ending) -> None:
        """Start the agent again, leave it out, or end the run."""
        i, allowed, before = ending.agent, self.settings.max_restarts, self.endings.get(ending.agent)
        self.counted[i] = counted = ending.counted(self.counted[i])
        why = ending.why_final(before, self.returns, i in self.needed, counted, allowed)
        if not why:
            self.endings[i] = ending
            wait = BACK_OFF[min(counted, len(BACK_OFF) - 1)]
            self.restarts[i] += 1
            self.counted[i] += 1
            self.again[i] = time.monotonic() + wait
            self.on_output(i, f"died ({ending.how}); restart {counted + 1} of {allowed} in {wait:g} s")
        elif self._can_do_without(ending):
            self.missing[i] = Missing(i, self.seconds, ending.steps, why)
            self.on_output(i, f"died ({ending.how}) and is left out; the others go on")
        else:
            self._stop(why)

    def _can_do_without(self, ending: Ending) -> bool:
        """Whether the others, if there are any, are to go on without this agent for ever."""
        alone = len(self.missing) + len(self.door.left) + 1 == self.board.n
        if ending.agent >= self.settings.agents and not ending.steps:
            return not alone  # the run went on before it came
        wanted = self.settings.on_death == CONTINUE and self.board.order is not Order.WAIT
        return wanted and not (alone or ending.of_all or ending.agent in self.needed)

    def _overdue(self) -> None:
        """Whoever has not ended in time is killed; what is lost by that is said."""
        late = [i for i in self.children.running if self.board.all_rows[i, Row.STATE] != State.LEFT]
        if late and not self.killing:
            self.reason = self.reason or (
                f"{PATIENCE:g} s after they had been asked to end, these agents had not, and were killed: "
                f"{', '.join(map(str, late))}. What they have done since their last checkpoint is lost."
            )
        self._kill()

    def _kill(self) -> None:
        self.killing = True
        self.children.signal(signal.SIGKILL)

    def _interrupted(self, number: int) -> None:
        if self.stopped_by:  # the second time: now
            self._kill()
        self.stopped_by = number
        self._stop()


StartProcesses = Callable[[Launcher, int, OnOutput], Processes]
"""Of a launcher, its bell, and what hears of output, the processes that it is to start."""
