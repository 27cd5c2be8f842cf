"""A live run of an experiment: one real process for every agent, in the same world as the simulator's.

`run_live` has them launched and collects the result; this module is also what the launcher runs for each
agent.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from offbeat.algorithms import Algorithm, find
from offbeat.core.errors import DataError, OffbeatError, SettingError
from offbeat.core.rules import SGD
from offbeat.core.system import devices
from offbeat.core.system.files import write_atomically
from offbeat.core.system.reading import json_in, reading
from offbeat.core.system.streams import BufferedStream, Purpose, python_stream, stream
from offbeat.core.vector import Parts, Vector
from offbeat.engines.live.launcher.launch import Job, Launcher, RunFailed
from offbeat.engines.live.node import checkpoint
from offbeat.engines.live.node.driver import Driver, Stopped
from offbeat.engines.live.node.ending import tell
from offbeat.engines.live.node.enter import Place, arrive, begin, log_path, place, resume
from offbeat.engines.live.node.fabric import model_of
from offbeat.engines.live.node.guard import SKIP
from offbeat.engines.live.node.log import damage, elapsed, merged
from offbeat.engines.live.node.snapshots import ModelSnapshot, ModelSnapshots
from offbeat.engines.live.shm.board import State
from offbeat.engines.sim.executors import evaluate
from offbeat.engines.sim.simulator import final_bytes
from offbeat.engines.trace import Trace
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.scoring import curve_point, final_scores, reached
from offbeat.experiments.setup import Setup, prepare
from offbeat.results.run import Run
from offbeat.results.values import Curve

LOOKS, ENDED = "looks", "ended.json"
"""Beside the agents' files: the models that were seen, and, of a run that has ended by itself, how long it
took."""


def agent_program() -> None:
    """What one agent's process does: gradients of its task, one after another, until the time is over."""
    here = place()
    if here is None:
        raise SettingError("offbeat.experiments.liverun is started by offbeat live, not by hand.")
    s, me = here.settings, here.me
    setup = prepare(Experiment(**s["experiment"]), s["seed"])
    agent = find(s["algorithm"]).new()
    initial = Vector(setup.task.initial())
    rng = python_stream(setup.seed, Purpose.ALGORITHM, me)
    n = setup.topology.n
    agent.join(me, n, initial, setup.topology.view(me, frozenset(range(n))), SGD(s["lr"]), rng)
    agent.check()
    driver = here.driver(agent, setup.topology, initial.nbytes, setup.world)
    driver.deadline = setup.until
    keeper = Keeper(here, s, driver)
    state = keeper.state()
    asked = here.asked() if state is None else state["asked"] - 1
    minibatch = BufferedStream(partial(setup.task.draw, me, stream(setup.seed, Purpose.DATA, me)))
    compute_time = BufferedStream(
        partial(setup.world.compute_delay(me).draw, stream(setup.seed, Purpose.COMPUTE, me))
    )
    for _ in range(asked):
        minibatch(), compute_time()
    faults = here.faults()
    with devices.one_thread():
        # What is used for the first time takes longer, which is no part of the emulated world: before the
        # clock begins.
        evaluate(
            setup.task, {me: (initial.parts, setup.task.draw(me, stream(setup.seed, Purpose.DATA, me), 1)[0])}
        )
        try:
            driver.join()
            x = begin(driver, here, initial) if state is None else resume(driver, here, state)
            driver.attend()
            while True:
                asked += 1
                done = driver.clock.now() + compute_time()
                g = evaluate(setup.task, {me: (x.parts, minibatch())})[me]
                time.sleep(max(0.0, min(done, setup.until) - driver.clock.now()) * driver.clock.unit)
                faults.before_step(driver.performer.steps)
                x = driver.step(driver.guard.gradient(g, driver.performer.steps + 1))
                faults.after_step()
                keeper.save(asked + 1)
        except Stopped:
            keeper.save(asked, final=True)
        driver.leave()
        driver.close()


@dataclass
class Keeper:
    """Saves an agent of a live run every now and then, and finds what an earlier run saved."""

    here: Place
    settings: dict[str, Any]
    driver: Driver
    saved: int = -1
    """Steps made when it was saved last."""

    def __post_init__(self) -> None:
        self.folder = self.here.folder / "checkpoints" / f"agent-{self.here.me}"
        self.about = {name: self.settings[name] for name in ("experiment", "seed", "algorithm", "lr")}

    def save(self, asked: int, final: bool = False) -> None:
        """Save, if as many steps have been made as the settings say, or `final`; `asked`: gradients asked for
        so far.

        An agent that waits for others when the run ends is not saved: its step is half done.
        """
        every, steps = self.settings["checkpoint_every"], self.driver.performer.steps
        waits = self.driver.performer.at is None
        if every and steps != self.saved and not waits and (final or steps % every == 0):
            self.saved = steps
            self.driver.save(self.folder, self.about, {"asked": asked})

    def state(self) -> dict[str, Any] | None:
        """The newest state of this agent, if the run is to go on from it."""
        if not self.settings["resume"] or self.here.incarnation > 1:
            return None
        together = "return" not in find(self.settings["algorithm"]).tolerates
        step = checkpoint.newest(self.folder, self.settings["agents"], together)
        if step is None:
            return None
        about, state = checkpoint.load(self.folder / f"{checkpoint.step_name(step)}.safetensors")
        checkpoint.refuse_other(about, self.about)
        return dict(state)


def parse_unit(text: str) -> float:
    """'20ms' or '0.5s' in seconds. Raises SettingError for anything else."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*(ms|s)\s*", text)
    try:
        seconds = float(match[1]) * (1e-3 if match[2] == "ms" else 1.0) if match else 0.0
    except ValueError:
        seconds = 0.0
    if not 1e-5 <= seconds <= 3600:
        raise SettingError(
            f"Cannot read the unit '{text}'; expected a time like '20ms' or '0.5s', at most an hour."
        )
    return seconds


@dataclass
class Watcher:
    """ModelSnapshots at a run from outside: copies all models at the times of evaluation.

    An agent of which there is nothing to be seen, because it died or has not come back yet, counts as it was
    last seen.
    """

    setup: Setup
    unit: float
    looks: ModelSnapshots
    told: Callable[[float], None] | None = None
    final: Parts = ()

    def __post_init__(self) -> None:
        n, taken = self.setup.topology.n, self.looks.taken
        last = taken[-1][1] if taken else all_alike(self.setup)
        self._seen = [tuple(part[i] for part in last) for i in range(n)]

    def __call__(self, launcher: Launcher) -> None:
        """Called by the launcher every now and then, and just before the end."""
        board, taken, times = launcher.board, self.looks.taken, self.setup.eval_times
        if not board.zero:
            return
        now = (time.monotonic_ns() - board.zero) / 1e9 / self.unit
        due = len(taken) < len(times) and times[len(taken)] <= now
        states = board.rows[:, 0]
        over = bool((states == State.LEFT).all())
        if due or over:
            models = self._models(launcher)
            steps = max(taken[-1][2] if taken else 0, int(board.rows[:, 3].sum()))  # less after a return
            while len(taken) < len(times) and times[len(taken)] <= now:
                self.looks.add(times[len(taken)], models, steps)
            if over:
                self.final = models
        if self.told is not None:
            self.told(min(now, self.setup.until))

    def _models(self, launcher: Launcher) -> Parts:
        for i in range(self.setup.topology.n):
            if (found := model_of(launcher.shared, launcher.board, i)) is not None:
                self._seen[i] = found[0].parts
        return tuple(torch.stack(parts) for parts in zip(*self._seen, strict=True))


def all_alike(setup: Setup) -> Parts:
    """All agents' models at the start, [n, P] per part."""
    return tuple(torch.stack([part] * setup.topology.n) for part in setup.task.initial())


def run_live(
    setup: Setup, e: dict[str, Any], spec: Algorithm, lr: float, folder: Path, unit: float, max_restarts: int = 3,
    say: Callable[[int, str], None] = lambda agent, line: None, told: Callable[[float], None] | None = None,
    faults: Sequence[str] = (), look: Callable[[Launcher], None] = lambda launcher: None,
    checkpoint_every: int = 0, resume: bool = False, on_nan: str = SKIP,
) -> tuple[Run | None, int]:  # fmt: skip
    """One live run. `e`: the experiment's settings as JSON; `unit`: seconds in a unit of time.

    `say` and `look` are called with what agents print and, often, with the launcher; `told` with the time.
    Returns the run, None if it was ended before its clock began, and the signal that ended it, 0 if none did.
    Raises RunFailed if it failed.
    """
    began = time.perf_counter()
    settings = {
        "experiment": e, "seed": setup.seed, "algorithm": spec.name, "lr": lr, "unit": unit,
        "folder": str(folder.resolve()), "agents": setup.topology.n, "faults": list(faults),
        "checkpoint_every": checkpoint_every, "resume": resume, "on_nan": on_nan,
    }  # fmt: skip
    looks = ModelSnapshots(folder / LOOKS, all_alike(setup), anew=not resume)
    watcher = Watcher(setup, unit, looks, told)
    logs = [log_path(folder, i) for i in range(setup.topology.n)]
    job = Job(
        setup.topology.n, ["-m", "offbeat.experiments.liverun"], folder, settings, max_restarts,
        "return" in spec.tolerates,
        elapsed(logs) * unit if resume else 0.0,
    )  # fmt: skip

    def watch(launcher: Launcher) -> None:
        watcher(launcher)
        look(launcher)

    launcher = Launcher(job, say, watch)
    try:
        launcher.run()
        trace = merged(logs, settings)
        if why := damage(trace):
            say(0, why)
        if not launcher.stopped_by:
            looks.add(math.inf, watcher.final or looks.taken[-1][1], int(trace.updates().sum()))
    except RunFailed:
        if launcher.began and all(path.exists() for path in logs):
            with suppress(OSError, OffbeatError):  # the first error is the one to tell
                merged(logs, settings).save(folder / "trace.npz")
        raise
    finally:
        looks.close()
    wall_s = time.perf_counter() - began
    try:
        trace.save(folder / "trace.npz")
        if not launcher.stopped_by and not looks.error:
            write_atomically(folder / ENDED, json.dumps({"wall_s": wall_s}).encode())
    except OSError as error:
        say(0, f"the results cannot be written to {folder}: {error.strerror or error}")
    if looks.error:
        say(0, f"{looks.error} What offbeat live --resume shows of this run will not be whole.")
    if not looks.taken:
        return None, launcher.stopped_by
    models = watcher.final or looks.taken[-1][1]
    return _run(setup, spec, lr, unit, trace, looks.taken, models, wall_s), launcher.stopped_by


def has_ended(folder: Path) -> bool:
    """Whether the run in this folder has ended by itself, and all of it is there."""
    return (folder / ENDED).exists()


def ended_run(setup: Setup, spec: Algorithm, lr: float, folder: Path, unit: float) -> Run | None:
    """The run in this folder, if there is one that has ended by itself. Raises DataError if a part of it is
    missing.
    """
    if not has_ended(folder):
        return None
    path = folder / ENDED
    looks = ModelSnapshots(folder / LOOKS, all_alike(setup), anew=False)
    with reading(path, "what offbeat live wrote there"):
        wall_s = float(json_in(path)["wall_s"])
    if looks.final is None:
        raise DataError(
            f"{looks.path} does not hold the whole run; remove {folder}, and --resume makes it anew."
        )
    trace = Trace.load(folder / "trace.npz")
    return _run(setup, spec, lr, unit, trace, looks.taken, looks.final, wall_s)


def _run(
    setup: Setup, spec: Algorithm, lr: float, unit: float, trace: Trace, taken: Sequence[ModelSnapshot], models: Parts,
    wall_s: float,
) -> Run:  # fmt: skip
    """What came out: the models that were seen are evaluated now, so that nobody was slowed."""
    sent = trace.transmissions
    curve = Curve()
    with devices.one_thread():
        for now, seen, steps in taken:
            curve_point(
                setup.task, seen, now, steps, float(sent["bytes"][sent["end"] <= now].sum()) / 1e6, curve
            )
        final = final_scores(setup.task, models, curve)
    return Run(
        algorithm=spec.name, lr=lr, seed=setup.seed, measure=setup.task.measure, curve=curve, final=final,
        settings=setup.settings | {"algorithm": spec.name, "lr": lr, "seed": setup.seed, "rule": "SGD", "unit": unit,
                               "faults": trace.settings.get("faults", [])},
        time_to_target=reached(setup, curve), diverged_at=None if math.isfinite(curve.loss[-1]) else curve.time[-1],
        updates=int(trace.updates().sum()), messages=len(sent), megabytes=float(sent["bytes"].sum()) / 1e6,
        staleness=trace.staleness(), digest=trace.digest(final_bytes(models)),
        wall_s=wall_s, topology=setup.topology, models=models, trace=trace,
    )  # fmt: skip


def main() -> None:
    """The agent's program; an error is told to the launcher."""
    arrive()
    try:
        agent_program()
    except Exception as error:
        sys.exit(tell(error, __file__))


if __name__ == "__main__":
    main()
