"""What another algorithm, graph or straggler would give, from the times measured in one live run.

A predicted run is a run of the simulator in which gradients take c_i + o_i and transmissions d_i + l_i (see
`fitting`), drawn with replacement from what was measured; c and o, d and l stay together as they were.
Without a case every agent keeps its own times, so a straggler of the recorded run stays one. With a case all
agents get the same times, the pooled ones scaled to the median agent's mean c and d (a straggler of the
recorded run is gone), and the case is applied to these: factor * c + o, factor * d + l. What an agent does
besides computing and sending does not get slower.

The time to a target, the first crossing of a noisy curve, differs from seed to seed in the simulator too;
the smallest and the largest of the predicted runs say by how much. Faults and pauses are not predicted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from offbeat.algorithms import Algorithm, find
from offbeat.core.errors import DataError, SettingError
from offbeat.core.settings import declared
from offbeat.core.system import devices
from offbeat.core.system.own import pinned
from offbeat.engines.events import GradientDone, rows_of
from offbeat.engines.trace import Staleness, Trace
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.fitting import Fitted, Intervals, alike, fit, gradients_of, pauses, within
from offbeat.experiments.runs import Job, run_one, simulator
from offbeat.experiments.setup import Setup, prepare
from offbeat.experiments.worlds import OF_WORLD
from offbeat.results.run import Run
from offbeat.results.spread import spread
from offbeat.tasks import Quadratic
from offbeat.world.delays import Delay, with_overhead
from offbeat.world.links import spelt_links
from offbeat.world.world import STRAGGLER_CASES, World

NEEDED = ("algorithm", "agents", "topology", "seed", "unit")  # in the settings, or those of the experiment
REPEATS = 5  # runs of the simulator for one prediction; everything random is drawn anew for each
ANEW = 1_000_003  # between their seeds
AS_IT_WAS = "as it was"  # the case of a run in which every agent has its own measured times
PILOT = 20.0  # mean gradients for which the size of an algorithm's messages is observed


@dataclass(frozen=True, eq=False)
class Summary:
    """What came out of a run, recorded or predicted, in a window of `length` units.

    Attributes:
        steps: of every agent
        per_second: steps of all agents in a second
        waiting: share of the agents' time in which they had no gradient to compute
        age: mean of k - s_ij^k, in iterations, over all models mixed; None: nothing was mixed
        runs: of a prediction, all of them: numbers are means over these, B and D the largest; of what was
            recorded, the run itself
        known: whether there is a task that was trained, and what came out is in `runs`
    """

    algorithm: str
    topology: str
    case: str
    length: float
    steps: list[int]
    per_second: float
    waiting: float
    staleness: Staleness
    age: float | None
    runs: tuple[Run, ...] = ()
    known: bool = False

    @property
    def times(self) -> tuple[float | None, float | None, float | None]:
        """The time to the target: median, smallest, largest; None: never."""
        return spread([run.time_to_target for run in self.runs])

    def score(self, name: str) -> float | None:
        """The median final "accuracy" or "loss"; None where there is none, or it is not finite."""
        values = [value for run in self.runs if (value := run.final[name]) is not None]
        return float(np.median(values)) if values and np.isfinite(values).all() else None

    def record(self) -> dict[str, Any]:
        values = vars(self) | {"staleness": vars(self.staleness)}
        del values["runs"], values["known"]
        if self.known:
            values |= {"lr": self.runs[0].lr, "target": self.runs[0].settings["target"]}
            values |= dict(zip(("time_to_target", "earliest", "latest"), self.times, strict=True))
            values |= {"accuracy": self.score("accuracy"), "loss": self.score("loss")}
        return values


@dataclass(frozen=True, eq=False)
class Prediction:
    """The recorded run, the same run as predicted, and what was asked for; `unit`: seconds in a unit of time.

    Attributes:
        window: from when to when recorded steps are counted: all agents were training then
        made: how many steps of all agents the trace holds
        paused: units of the recorded run in which all agents stood still; they are left out
    """

    unit: float
    window: tuple[float, float]
    made: int
    fitted: Fitted
    paused: float
    recorded: Summary
    again: Summary
    predicted: Summary

    @property
    def errors(self) -> list[float]:
        """Predicted over recorded steps of every agent of the recorded run, minus 1, in percent."""
        pairs = zip(self.again.steps, self.recorded.steps, strict=True)
        return [100 * (ours / max(1, theirs) - 1) for ours, theirs in pairs]

    @property
    def error(self) -> float:
        """The same for the steps of all agents together."""
        return 100 * (sum(self.again.steps) / max(1, sum(self.recorded.steps)) - 1)

    @property
    def time_error(self) -> float | None:
        """The same for the time to the target; None where one of them is not known, is 0, or never came."""
        if not (self.recorded.known and self.again.known):
            return None
        ours, theirs = self.again.times[0], self.recorded.times[0]
        return 100 * (ours / theirs - 1) if ours is not None and theirs else None

    def record(self) -> dict[str, Any]:
        return {
            "unit": self.unit, "window": [*self.window], "paused": self.paused,
            "fitted": self.fitted.record(),
            "recorded": self.recorded.record(), "recorded_as_predicted": self.again.record(),
            "error_percent": self.error, "error_percent_of_time_to_target": self.time_error,
            "error_percent_of_agents": self.errors,
            "predicted": self.predicted.record(),
        }  # fmt: skip


def predict(
    trace: Trace,
    algorithm: str | None = None,
    topology: str | None = None,
    case: str | None = None,
    straggler: int | str | Sequence[int] | None = None,
    slowdown: float = 10.0,
    until: float | None = None,
    lr: float | None = None,
    reached: Run | None = None,
) -> Prediction:
    """Predict a run from the trace of another; what is not given is as it was recorded.

    Args:
        case: None: every agent has its own measured times; a name: all are alike, and the case is applied
        until: when the predicted run ends, in the recorded run's units; None: as long as that was to last
        lr: None: the recorded learning rate, times n or over n where only one of the two algorithms is R-FAST
        reached: what came out of the recorded run, where that is known

    Raises DataError if it is no trace of a live run or too short, SettingError for what makes no sense.
    """
    _refuse_caseless(case, straggler, slowdown)
    s = trace.settings
    e = s.get("experiment", {})
    _refuse_others(s)
    if missing := [name for name in NEEDED if name not in s | e]:
        expected = "expected the trace of 'offbeat live' or 'launch'"
        raise DataError(f"The trace does not say its {missing[0]}; {expected}.")
    code = s.get("code", {})
    with pinned(code, code):
        before, spec = find(s["algorithm"]), find(s["algorithm"] if algorithm is None else algorithm)
    parts = prepare(Experiment(**e), s["seed"]).task.initial() if e else ()  # first: it checks the settings
    start, end = _window(trace, e.get("until"))
    out = [(max(a, start), min(b, end)) for a, b in pauses(trace) if a < end and b > start]
    paused = sum(b - a for a, b in out)
    if not paused < end - start:
        always = f"from {start:.4g} to {end:.4g}, all the time that they computed"
        raise DataError(f"All agents stood still {always}: nothing can be predicted from this run.")
    graph, rate = str(e.get("topology", s.get("topology"))), float(s.get("lr", 1.0))
    recorded = _summary(trace, start, end, s["unit"], (before.name, graph, e.get("case", AS_IT_WAS)), out)
    if reached is not None:
        recorded = replace(recorded, runs=(reached,), known=True)
    fitted = fit(trace, sum(part.nbytes for part in parts) or None)
    scale = 1.0 if e else float(np.median([c.mean() + o.mean() for c, o in fitted.compute]))
    replica, n = Replica(s, fitted, scale), trace.agents
    asked = {"topology": topology or graph, "straggler": straggler, "slowdown": slowdown}
    asked["until"] = until if until is not None else e.get("until", end - start)
    own = lr if lr is not None else spec.default_lr(rate / before.default_lr(1.0, n), n)
    predicted = replica.summary(spec, own, case, **asked)
    again = replica.summary(before, rate, None, topology=graph, until=end - start - paused)
    made = int(trace.updates().sum())
    return Prediction(s["unit"], (start, end), made, fitted, paused, recorded, again, predicted)


def _refuse_others(s: Mapping[str, Any]) -> None:
    """Raise SettingError for a run of now more, now fewer agents."""
    if (first := s.get("earlier", [None])[0]) and any(first[k] != s.get(k) for k in ("agents", "topology")):
        raise SettingError(
            "This run went on from its checkpoints with other agents, or on another graph, and predictions "
            "are of runs with the same from start to end; expected the trace of such a run."
        )
    if s.get("grown"):
        raise SettingError(
            f"{len(s['grown'])} agents joined this run while it went on, and predictions are of runs with as "
            "many agents from start to end; expected the trace of such a run."
        )


def _refuse_caseless(case: str | None, straggler: object, slowdown: float) -> None:
    """Raise SettingError for what means something in a case only, where none is asked for."""
    usual = declared(Experiment)["slowdown"].default
    for name, given in (("straggler", straggler is not None), ("slowdown", slowdown != usual)):
        if given and case is None:
            cases = ", ".join(STRAGGLER_CASES)
            said = f"A {name} was given and no case, so every agent is as slow as it was"
            raise SettingError(f"{said}; expected a case too (--case): {cases}.")


def _window(trace: Trace, until: float | None) -> tuple[float, float]:
    """From when the last agent began until the end; of a script: until the first agent's last gradient."""
    each = [gradients_of(trace, i)[0] for i in range(trace.agents)]
    start = max(float(mine["start"].min()) for mine in each)
    end = min(float(mine["time"].max()) for mine in each)
    if until is not None:
        end = min(until, float(trace.events["time"].max()))
    if not end > start:
        raise DataError(f"No time was common to all: one agent began at {start:.4g}, one ended at {end:.4g}.")
    return start, end


@dataclass(frozen=True)
class Replica:
    """What the simulator knows of a recorded run: its settings, and the times that were measured in it.

    `scale`: units of the recorded run in one of the simulator's clock.
    """

    settings: Mapping[str, Any]
    fitted: Fitted
    scale: float

    def summary(self, spec: Algorithm, lr: float, case: str | None, **asked: Any) -> Summary:
        """What comes out of runs in a world of the measured times. case: None: each agent has its own."""
        setup = self._setup(case, **asked)
        named = (spec.name, setup.topology.name, case or AS_IT_WAS)
        if (share := _share(Job(setup, spec, lr))) != 1.0:  # to wake somebody up takes as long for a part
            sending = [(d, late / share) for d, late in self.fitted.sending]
            setup = replace(self, fitted=replace(self.fitted, sending=sending))._setup(case, **asked)
        runs, found = [], []
        for k in range(REPEATS):
            world = replace(setup.world, seed=setup.seed + k * ANEW)
            run = run_one(Job(replace(setup, world=world), spec, lr))
            assert run.trace is not None
            unit = self.settings["unit"] * self.scale
            found.append(_summary(run.trace, 0.0, setup.until, unit, named, []))
            runs.append(replace(run, trace=None))
        ages = [one.age for one in found if one.age is not None]
        delays = [one.staleness.D for one in found if one.staleness.D is not None]
        return Summary(
            *named,
            length=asked["until"],
            steps=[round(mean) for mean in np.mean([one.steps for one in found], axis=0).tolist()],
            per_second=float(np.mean([one.per_second for one in found])),
            waiting=float(np.mean([one.waiting for one in found])),
            staleness=Staleness(max(one.staleness.B for one in found), max(delays, default=None)),
            age=float(np.mean(ages)) if ages else None,
            runs=tuple(runs),
            known="experiment" in self.settings,
        )

    def _setup(self, case: str | None, *, until: float, **asked: Any) -> Setup:
        """The experiment in its world; of a script a schedule, on f_i(x) = |x|^2 / 2."""
        n, until = self.settings["agents"], until / self.scale
        recorded, pairs = self.settings.get("experiment", {}), (self.fitted.compute, self.fitted.sending)
        world = World(loss=_loss(recorded))
        if case is None:
            compute, sending = (dict(enumerate(self._delay(*pair) for pair in each)) for each in pairs)
            world = replace(world, own_compute=compute, own_communication=sending)
        else:
            typical, sent = (self._delay(*alike(each)) for each in pairs)
            world = replace(world, compute=typical, communication=sent)
        measured = (*OF_WORLD, "straggler", "slowdown")  # the measured times tell who is slow
        given = {name: value for name, value in recorded.items() if name not in measured}
        if not given:
            given = {"task": Quadratic(np.zeros((n, n)), np.ones(n)), "eval_every": until}
        elif given.get("eval_every") is not None and given["eval_every"] > until:
            given["eval_every"] = None
        asked |= {"agents": n, "case": case or "base", "until": until, "world": world}
        return prepare(Experiment(**(given | asked)), self.settings["seed"])

    def _delay(self, slowed: np.ndarray, fixed: np.ndarray) -> Delay:
        return with_overhead(slowed / self.scale, fixed / self.scale)


def _loss(recorded: Mapping[str, Any]) -> float:
    """The probability of loss. Raises SettingError for what a prediction knows nothing of."""
    unknown = [name for name in ("event", "byzantine") if recorded.get(name)]
    unknown += [f"a loss by link ({loss})" for loss in [recorded.get("loss", 0.0)] if _by_link(loss)]
    if unknown:
        what = f"The recorded run has {', '.join(unknown)}, which predictions know nothing of"
        raise SettingError(f"{what}; expected a run without.")
    return float(recorded.get("loss", 0.0))


def _by_link(loss: float | str) -> bool:
    return isinstance(spelt_links("loss", loss), str)


def _share(job: Job) -> float:
    """The mean size of this algorithm's transmissions, in models, from its first steps; 1: it sends none."""
    world, n = job.setup.world, job.setup.topology.n
    with devices.one_thread():
        sim = simulator(job)
        sim.start()
        sim.run(PILOT * float(np.median([world.compute_delay(i).expected for i in range(n)])))
    sizes = sim.recorder.trace().transmissions["bytes"]
    sizes = sizes[sizes > 0]
    return float(sizes.mean()) / sim.links.model_bytes if len(sizes) else 1.0


def _summary(
    trace: Trace, start: float, end: float, unit: float, named: tuple[str, str, str], out: Intervals
) -> Summary:
    """What happened between two times but for the pauses `out`; `unit`: seconds in one of the trace's."""
    steps, busy = [], 0.0
    for i in range(trace.agents):
        w = trace.writes[trace.writes["agent"] == i]
        made = np.diff(np.maximum.accumulate(w["step"]), prepend=0)
        inside = (w["time"] > start) & (w["time"] <= end) & ~within(w["time"], w["time"], out)
        steps.append(int(made[inside].sum()))
        events = trace.events[trace.events["agent"] == i]
        if len(rows_of(events, GradientDone)):
            g, asked = gradients_of(trace, i, 1)
            inside = (g["end"] > start) & (g["end"] <= end) & ~within(asked, g["end"], out)
            busy += float((g["end"] - asked)[inside].sum())
    now, then = trace.selected()
    length = end - start - sum(b - a for a, b in out)
    per_second, waiting = sum(steps) / (length * unit), max(0.0, 1 - busy / (length * trace.agents))
    age = float((now - then).mean()) if len(now) else None
    return Summary(*named, length, steps, per_second, waiting, trace.staleness(), age)
