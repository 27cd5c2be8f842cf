"""A live run of an experiment, as its launcher sees it: one real process for every agent, in the same world
as the simulator's.
"""

import json
import math
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from offbeat.algorithms import Algorithm
from offbeat.core.errors import DataError, OffbeatError
from offbeat.core.system import devices
from offbeat.core.system.files import write_atomically
from offbeat.core.system.reading import json_in, reading
from offbeat.core.system.signals import deferred
from offbeat.core.vector import Parts
from offbeat.engines.activity import carried
from offbeat.engines.live.launcher.children import OnOutput
from offbeat.engines.live.launcher.launch import Launcher, RunFailed, StartProcesses
from offbeat.engines.live.launcher.outfolder import begun, why_not_resumable
from offbeat.engines.live.node.log import damage
from offbeat.engines.live.node.snapshots import ModelSnapshot, ModelSnapshots
from offbeat.engines.live.node.transport import model_of
from offbeat.engines.live.settings import ExperimentProgram, RunSettings
from offbeat.engines.live.shm.board import Board, Row
from offbeat.engines.trace import Trace
from offbeat.experiments.limits import limit_of
from offbeat.experiments.measuring import Measurements
from offbeat.experiments.runs import run_of
from offbeat.experiments.setup import Setup
from offbeat.results.run import Run

SNAPSHOTS, ENDED = "looks", "ended.json"
"""Beside the agents' files: the models that were seen; of a run that has ended by itself, its seconds."""


@dataclass
class Watcher:
    """Looks at a run from outside: copies all models when an evaluation is due. An agent of which nothing can
    be seen, because it died or has not come back yet, counts as it was last seen.

    A look has the time at which all of it was copied: whatever it shows has happened by then. It counts for
    one evaluation, and is followed by as long a rest, so that the agents have the machine; the evaluations of
    the meantime are missed. At the start all models are the first ones, and at the end what was left.
    """

    setup: Setup
    unit: float
    snapshots: ModelSnapshots
    on_progress: Callable[[float], None] = lambda now: None
    final: Parts = ()

    def __post_init__(self) -> None:
        n, taken = self.setup.topology.n, self.snapshots.taken
        last = taken[-1] if taken else ModelSnapshot(0.0, all_alike(self.setup), 0)
        self._seen = [tuple(part[i] for part in last.models) for i in range(n)]
        self._next = self._after(last.time)

    def due(self, launcher: Launcher) -> float:
        """When it is to look, in seconds of the monotonic clock; infinity: not before the end."""
        zero = launcher.board.zero
        return zero / 1e9 + self._next * self.unit if zero else math.inf

    def __call__(self, launcher: Launcher) -> None:
        """Called by the launcher every now and then, when it is due, and just before the end."""
        board, taken = launcher.board, self.snapshots.taken
        if not board.zero:
            return
        if not taken:
            self.snapshots.add(0.0, all_alike(self.setup), 0)
        began = self._now(board)
        if launcher.all_left:
            self.final = self._models(launcher)
        elif self._next <= began:
            models = self._models(launcher)
            steps = max(taken[-1].steps, int(board.rows[:, Row.STEPS].sum()))  # fewer are made after a return
            ended = self._now(board)
            self.snapshots.add(ended, models, steps)
            self._next = self._after(2 * ended - began)
        self.on_progress(min(began, self.setup.until))

    def _now(self, board: Board) -> float:
        return (time.monotonic_ns() - board.zero) / 1e9 / self.unit

    def _after(self, now: float) -> float:
        """The next evaluation, but for the one at the end."""
        *times, _ = self.setup.eval_times
        index = bisect_right(times, now)
        return times[index] if index < len(times) else math.inf

    def _models(self, launcher: Launcher) -> Parts:
        launcher.children.see_models()
        for i in range(self.setup.topology.n):
            if (found := model_of(launcher.shared, launcher.board, i)) is not None:
                self._seen[i] = found[0].parts
        return tuple(torch.stack(parts) for parts in zip(*self._seen, strict=True))


def all_alike(setup: Setup) -> Parts:
    """All agents' models at the start, [n, P] per part."""
    return tuple(torch.stack([part] * setup.topology.n) for part in setup.task.initial())


@dataclass(frozen=True)
class LiveRun:
    """A live run of an experiment; all that it leaves is in the folder of its settings."""

    setup: Setup
    spec: Algorithm
    settings: RunSettings
    processes: StartProcesses | None = None  # of a run on other machines

    @property
    def folder(self) -> Path:
        return self.settings.folder

    @property
    def begun(self) -> bool:
        return begun(self.folder)

    @property
    def has_ended(self) -> bool:
        """Whether it has ended by itself, and all of it is there."""
        return (self.folder / ENDED).exists()

    def why_not_resumable(self) -> str:
        return why_not_resumable(self.folder, self.settings.agents, "return" not in self.spec.tolerates)

    def run(
        self,
        on_output: OnOutput = lambda agent, line: None,
        watch: Callable[[Launcher], None] = lambda launcher: None,
        on_progress: Callable[[float], None] = lambda now: None,
    ) -> tuple[Run | None, int]:
        """Run it, from its checkpoints if it has begun.

        Returns what came out, None if it was ended before its clock began, and the signal that ended it, 0 if
        none did. Raises RunFailed if it failed.

        Args:
            on_output: called with an agent and a line that it prints
            on_progress: called with the time
        """
        began, folder = time.perf_counter(), self.folder
        settings = replace(self.settings, folder=folder.resolve(), resume=self.begun)
        snapshots = ModelSnapshots(folder / SNAPSHOTS, all_alike(self.setup), anew=not self.begun)
        watcher = Watcher(self.setup, settings.unit, snapshots, on_progress)

        def look(launcher: Launcher) -> None:
            watcher(launcher)
            watch(launcher)

        command = ["-m", "offbeat.experiments.live.program"]
        spec, graph = self.spec, self.setup.topology
        returns, needed = "return" in spec.tolerates, spec.needed(graph)
        launcher = Launcher(settings, command, returns, needed, processes=self.processes)
        try:
            launcher.run(on_output, look, watcher.due)
            trace = replace(launcher.trace(), blocks=self.spec.prototype.blocks)
            if why := damage(trace):
                on_output(0, why)
            if not launcher.stopped_by:
                final = watcher.final or snapshots.taken[-1].models
                snapshots.add(math.inf, final, int(trace.updates().sum()))
        except RunFailed:
            with suppress(OSError, OffbeatError):  # the first error is the one to tell
                if launcher.leaves_trace:
                    launcher.trace().save(folder / "trace.npz")
            raise
        finally:
            snapshots.close()
        wall_s = time.perf_counter() - began
        try:
            with deferred():
                trace.save(folder / "trace.npz")
                if not launcher.stopped_by and not snapshots.error:
                    write_atomically(folder / ENDED, json.dumps({"wall_s": wall_s}).encode())
        except OSError as error:
            on_output(0, f"the results cannot be written to {folder}: {error.strerror or error}")
        if snapshots.error:
            on_output(0, f"{snapshots.error} What offbeat live --resume shows of this run will not be whole.")
        if not snapshots.taken:
            return None, launcher.stopped_by
        final, ended = watcher.final or snapshots.final or (), not launcher.stopped_by
        return self._result(trace, snapshots.taken, final, ended, wall_s), launcher.stopped_by

    def result(self) -> Run | None:
        """What came out, if it has ended by itself. Raises DataError if a part of it is missing."""
        if not self.has_ended:
            return None
        path, folder = self.folder / ENDED, self.folder
        snapshots = ModelSnapshots(folder / SNAPSHOTS, all_alike(self.setup), anew=False)
        with reading(path, "what offbeat live wrote there"):
            wall_s = float(json_in(path)["wall_s"])
        if snapshots.final is None:
            raise DataError(f"{snapshots.path} is not whole; remove {folder}, and --resume makes it anew.")
        trace = Trace.load(folder / "trace.npz")
        return self._result(trace, snapshots.taken, snapshots.final, True, wall_s)

    def _result(
        self, trace: Trace, taken: Sequence[ModelSnapshot], final: Parts, ended: bool, wall_s: float
    ) -> Run:
        """The models that were seen are evaluated now, so that nobody was slowed; and those that were left,
        if that is known: so the models are from the last write on.
        """
        if final:
            last = float(trace.writes["time"].max(initial=0.0))
            end = max(last, self.setup.until if ended else taken[-1].time)
            left = ModelSnapshot(end, final, int(trace.updates().sum()))
            taken = [*(each for each in taken if each.time < end), left]
        setup, sent, program = self.setup, trace.transmissions, self.settings.program
        assert isinstance(program, ExperimentProgram)
        faults, missing = (trace.settings.get(name, []) for name in ("faults", "missing"))
        limit = limit_of(setup, self.spec, program.lr, faults=[*faults, *missing])
        everybody = range(setup.topology.n)
        measured = Measurements(setup.task, setup.asked, limit)
        counts = int(trace.updates().sum()), len(sent), float(sent["bytes"].sum())
        asked = {"unit": self.settings.unit, "faults": faults} | ({"missing": missing} if missing else {})
        began = time.perf_counter()
        with devices.one_thread():
            for now, models, steps in taken:
                megabytes = float(sent["bytes"][sent["end"] <= now].sum()) / 1e6
                measured.add(now, models, everybody, steps, megabytes, partial(trace.updates, now))
            measured.seconds = time.perf_counter() - began
            return run_of(
                setup, self.spec, program.lr, measured, models, trace, counts,
                lambda sent: carried(trace.events, trace.transmissions), asked, wall_s=wall_s,
            )  # fmt: skip
