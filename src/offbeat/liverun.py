"""A live run of an experiment: one real process for every agent, in the same world as the simulator's.

`python -m offbeat.liverun` is what the launcher starts for each agent; `run_live` launches them and collects the
result.
"""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from offbeat.algorithms import Algorithm, find
from offbeat.errors import OffbeatError, SettingError
from offbeat.experiment import Experiment, Prepared, curve_point, final_scores, met, one_thread, prepare
from offbeat.live import checkpoint
from offbeat.live.board import State
from offbeat.live.driver import Driver, Stopped
from offbeat.live.enter import Place, begin, log_path, place, resume
from offbeat.live.fabric import model_of
from offbeat.live.launch import Job, Launcher
from offbeat.live.log import elapsed, merged
from offbeat.results import Curve, Run
from offbeat.rules import SGD
from offbeat.sim.executors import evaluate
from offbeat.sim.simulator import final_bytes
from offbeat.streams import Purpose, Supply, python_stream, stream
from offbeat.vector import Parts, Vector


def agent_program() -> None:
    """What one agent's process does: gradients of its task, one after another, until the time is over."""
    here = place()
    if here is None:
        raise SettingError("offbeat.liverun is started by offbeat live, not by hand.")
    s, me = here.settings, here.me
    p = prepare(Experiment(**s["experiment"]), s["seed"])
    agent = find(s["algorithm"]).new()
    initial = Vector(p.task.initial())
    rng = python_stream(p.seed, Purpose.ALGORITHM, me)
    n = p.topology.n
    agent.join(me, n, initial, p.topology.view(me, frozenset(range(n))), SGD(s["lr"]), rng)
    agent.check()
    driver = here.driver(agent, p.topology, initial.nbytes, p.world)
    driver.deadline = p.until
    keeper = Keeper(here, s, driver)
    state = keeper.state()
    asked = here.asked() if state is None else state["asked"] - 1
    minibatch = Supply(partial(p.task.draw, me, stream(p.seed, Purpose.DATA, me)))
    compute_time = Supply(partial(p.world.compute_delay(me).draw, stream(p.seed, Purpose.COMPUTE, me)))
    for _ in range(asked):
        minibatch(), compute_time()
    faults = here.faults()
    with one_thread():
        # What is used for the first time takes longer, which is no part of the emulated world: before the clock begins.
        evaluate(p.task, {me: (initial.parts, p.task.draw(me, stream(p.seed, Purpose.DATA, me), 1)[0])})
        try:
            driver.join()
            x = begin(driver, here, initial) if state is None else resume(driver, here, state)
            driver.attend()
            while True:
                asked += 1
                done = driver.clock.now() + compute_time()
                g = evaluate(p.task, {me: (x.parts, minibatch())})[me]
                time.sleep(max(0.0, min(done, p.until) - driver.clock.now()) * driver.clock.unit)
                faults.before_step(driver.performer.steps)
                x = driver.step(g)
                faults.after_step()
                keeper.save(asked + 1)
        except Stopped:
            pass
        driver.leave()
        driver.close()


@dataclass
class Keeper:
    """Saves an agent of a live run every now and then, and finds what an earlier run saved."""

    here: Place
    settings: dict[str, Any]
    driver: Driver

    def __post_init__(self) -> None:
        self.folder = self.here.folder / "checkpoints" / f"agent-{self.here.me}"
        self.about = {name: self.settings[name] for name in ("experiment", "seed", "algorithm", "lr")}

    def save(self, asked: int) -> None:
        """Save, if as many steps have been made as the settings say; `asked`: gradients asked for so far."""
        every, steps = self.settings["checkpoint_every"], self.driver.performer.steps
        if every and steps % every == 0:
            with self.driver.lock:
                state = self.driver.state() | {"asked": asked}
                begun = checkpoint.begin(self.folder, checkpoint.step_name(steps), self.about, state)
            checkpoint.finish(begun)

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
        raise SettingError(f"Cannot read the unit '{text}'; expected a time like '20ms' or '0.5s', at most an hour.")
    return seconds


@dataclass
class Watcher:
    """Looks at a run from outside: copies all models at the times of evaluation."""

    p: Prepared
    unit: float
    told: Callable[[float], None] | None = None
    taken: list[tuple[float, Parts, int]] = field(default_factory=list)
    final: Parts = ()

    def __call__(self, launcher: Launcher) -> None:
        """Called by the launcher every now and then, and just before the end."""
        board = launcher.board
        if not board.zero:
            return
        now = (time.monotonic_ns() - board.zero) / 1e9 / self.unit
        due = len(self.taken) < len(self.p.eval_times) and self.p.eval_times[len(self.taken)] <= now
        states = board.rows[:, 0]
        over = bool((states == State.LEFT).all())
        if due or over:
            models = self._models(launcher)
            steps = int(board.rows[:, 3].sum())
            while len(self.taken) < len(self.p.eval_times) and self.p.eval_times[len(self.taken)] <= now:
                self.taken.append((self.p.eval_times[len(self.taken)], models, steps))
            if over:
                self.final = models
        if self.told is not None:
            self.told(min(now, self.p.until))

    def _models(self, launcher: Launcher) -> Parts:
        rows = []
        for i in range(self.p.topology.n):
            found = model_of(launcher.shared, launcher.board, i)
            rows.append(self.p.task.initial() if found is None else found[0].parts)
        return tuple(torch.stack(parts) for parts in zip(*rows, strict=True))


def run_live(
    p: Prepared, e: dict[str, Any], row: Algorithm, lr: float, folder: Path, unit: float, max_restarts: int = 3,
    say: Callable[[int, str], None] = lambda agent, line: None, told: Callable[[float], None] | None = None,
    faults: Sequence[str] = (), look: Callable[[Launcher], None] = lambda launcher: None,
    checkpoint_every: int = 0, resume: bool = False,
) -> tuple[Run, int]:  # fmt: skip
    """One live run. `e`: the experiment's settings as JSON; `unit`: seconds in a unit of time.

    `say` and `look` are called with what agents print and, often, with the launcher; `told` with the time.
    Returns the run, and the signal that ended it, 0 if none did. Raises RunFailed if it failed.
    """
    began = time.perf_counter()
    settings = {
        "experiment": e, "seed": p.seed, "algorithm": row.name, "lr": lr, "unit": unit, "folder": str(folder.resolve()),
        "agents": p.topology.n, "faults": list(faults),
        "checkpoint_every": checkpoint_every, "resume": resume,
    }  # fmt: skip
    watcher = Watcher(p, unit, told)
    logs = [log_path(folder, i) for i in range(p.topology.n)]
    job = Job(
        p.topology.n, ["-m", "offbeat.liverun"], folder, settings, max_restarts, "return" in row.tolerates,
        elapsed(logs) * unit if resume else 0.0,
    )  # fmt: skip

    def watch(launcher: Launcher) -> None:
        watcher(launcher)
        look(launcher)

    launcher = Launcher(job, say, watch)
    launcher.run()
    trace = merged(logs, settings)
    try:
        trace.save(folder / "trace.npz")
    except OSError as error:
        say(0, f"the trace cannot be written: {folder / 'trace.npz'}: {error.strerror or error}")
    sent = trace.transmissions
    curve = Curve()
    with one_thread():
        for now, models, steps in watcher.taken:
            curve_point(p.task, models, now, steps, float(sent["bytes"][sent["end"] <= now].sum()) / 1e6, curve)
        final = final_scores(p.task, watcher.final, curve)
    reached = next((t for k, t in enumerate(curve.time) if met(p, curve, k)), None)
    run = Run(
        algorithm=row.name, lr=lr, seed=p.seed, measure=p.task.measure, curve=curve, final=final,
        settings=p.settings | {"algorithm": row.name, "lr": lr, "seed": p.seed, "rule": "SGD", "unit": unit},
        time_to_target=reached, diverged_at=None if math.isfinite(curve.loss[-1]) else curve.time[-1],
        updates=int(trace.updates().sum()), messages=len(sent), megabytes=float(sent["bytes"].sum()) / 1e6,
        staleness=trace.staleness(), digest=trace.digest(final_bytes(watcher.final)),
        wall_s=time.perf_counter() - began, topology=p.topology, models=watcher.final, trace=trace,
    )  # fmt: skip
    return run, launcher.stopped_by


def main() -> None:
    """The agent's program; an error of ours is a line and its exit code."""
    try:
        agent_program()
    except OffbeatError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
