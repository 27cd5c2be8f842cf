"""Random worlds: every executor against the one that evaluates event by event, to the byte, with the contract
checked.

python tests/support/fuzz_worlds.py 2000          # so many worlds
python tests/support/fuzz_worlds.py --world 17    # one of them again
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from offbeat import OffbeatError, SettingError
from offbeat.algorithms import Algorithm, find
from offbeat.experiments import segments
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.runs import Job, run_many, run_one
from offbeat.experiments.setup import Setup, prepare
from offbeat.results.run import Run
from offbeat.tasks.objective import OBJECTIVES
from offbeat.world.changes import Byzantine, Change, Cut, Slowdown
from offbeat.world.per_link import PerLink

ALGORITHMS = ("adsgd", "adsgd", "adsgd", "adpsgd", "adpsgd:wait", "adpsgd:atomic", "adpsgd:atomic+wait",
              "rfast", "rfast", "kungurtsev", "dsgd", "dsgd:after", "allreduce")  # fmt: skip
TOPOLOGIES = ("ring", "grid", "complete", "star", "exponential", "chain", "binary-tree", "erdos-renyi",
              "erdos-renyi:0.7", "random-regular:2", "random-regular")  # fmt: skip
DELAYS = ("gamma", "gamma 1.5", "lognormal 0.3", "lognormal 3", "exponential", "constant",
          "gamma 0.25 mean 0.2", "lognormal 1 mean 4")  # fmt: skip

FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-worlds-")


@dataclass(frozen=True)
class World:
    """A world that can run: what is asked for, and what is built from it."""

    settings: dict[str, Any]
    p: Setup
    row: Algorithm
    lr: float


def world(number: int) -> World:
    """The world of this number; what makes no sense is drawn again."""
    rng = random.Random(f"world {number}")
    while True:
        settings = drawn(rng)
        settings |= agents_drawn(random.Random(f"agents {number}"), settings)
        name, lr = rng.choice(ALGORITHMS), rng.choice((0.01, 0.1, 0.5, 1e3, 1e200))
        steps_otherwise, seed = rng.random() < 0.1, rng.choice((0, 1, 2**40, rng.randrange(10**6)))
        if steps_otherwise:
            settings |= stepping(random.Random(f"steps {number}"))
        try:
            p, row = prepare(Experiment(**settings), seed), find(name)
            more = links_drawn(random.Random(f"links {number}"), p.topology.n, p.until)
            p = replace(p, world=replace(p.world, **more))
            p.world.check(p.topology.n)
            Job(p, row, lr)
            agent = row.new()
            agent.n, agent.view = p.topology.n, p.topology.view(0, frozenset(range(p.topology.n)))
            agent.check()
        except SettingError:  # not bipartite, say, or a step beyond float32
            continue
        return World(settings | more | {"algorithm": name, "lr": lr, "seed": seed}, p, row, lr)


def stepping(rng: random.Random) -> dict[str, Any]:
    """An optimizer and a schedule other than by default."""
    optimizers = ("sgd", "momentum", "nesterov:0.5", "adamw", "adamw:weight_decay=0.3+beta1=0")
    schedules = ("constant", "cosine", "warmup:0.2+sqrt", "step:1", "diminishing:3+by=steps")
    return {"optimizer": rng.choice(optimizers), "schedule": rng.choice(schedules)}


def drawn(rng: random.Random) -> dict[str, Any]:
    """Settings that may make sense."""
    agents, until = rng.choice((1, 2, 3, 4, 5, 6, 8, 9, 12)), rng.choice((0.3, 2.0, 5.0, 9.0))
    settings: dict[str, Any] = {
        "task": rng.choice(("quadratic",) * 4 + ("digits",)), "agents": agents, "until": until,
        "topology": rng.choice(TOPOLOGIES), "compute": rng.choice(DELAYS),
        "communication": rng.choice(DELAYS), "loss": rng.choice((0.0, 0.0, 0.2, 0.9)),
        "batch": rng.choice((1, 3, 8)),
        "eval_every": rng.choice((until, until / 3, until / 7.3, until / 7.3, until / 40)),
        "target": rng.choice((None, 0.01, 0.5)), "skew": rng.choice((0.0, 0.5, 1.0)),
        "reg": rng.choice((0.0, 0.001)),
    }  # fmt: skip
    if rng.random() < 0.1:
        settings["communication"] = "constant mean 0"
    if rng.random() < 0.5:
        settings["case"] = rng.choice(("slow-comm", "comp-straggler", "comm-straggler", "combined"))
        settings["slowdown"] = rng.choice((10.0, 3.0, 0.1))
        if settings["case"] != "slow-comm" and rng.random() < 0.5:
            settings["straggler"] = rng.randrange(agents)
    crashes = []
    for i in rng.sample(range(agents), rng.choice((0, 0, 0, 1, 2)) if agents > 2 else rng.choice((0, 0, 1))):
        at = rng.uniform(0, until) * rng.choice((0, 1, 1))
        crashes.append(
            f"agent {i} at {at!r}"
            + (f" until {at + rng.uniform(0.1, until)!r}" if rng.random() < 0.7 else "")
        )
    return settings | {"crash": tuple(crashes)}


def agents_drawn(rng: random.Random, settings: dict[str, Any]) -> dict[str, Any]:
    """What agents have of their own: speeds, links, times at which they are there, and unequal data."""
    n, until, more = settings["agents"], settings["until"], dict[str, Any]()
    for name in ("speeds", "links"):
        if rng.random() < 0.25:
            each = ",".join(str(rng.choice((0.2, 1, 1.5, 4))) for _ in range(n))
            more[name] = rng.choice(("lognormal:0.5", each))
    if settings["task"] == "digits" and rng.random() < 0.6:
        partitions = ("dirichlet:0.3", "quantity:1", "classes:2", "iid", "shards:2")
        more |= {"skew": 1.0, "partition": rng.choice(partitions), "objective": rng.choice(OBJECTIVES)}
    if n > 2 and rng.random() < 0.15:
        more |= {"crash": (), "availability": str(availability(rng, n, until))}
    return more


def availability(rng: random.Random, n: int, until: float) -> Path:
    """A file that says when agents are there: who is in it comes and goes, always at least one stays."""
    lines = ["agent,on,off"]
    for agent in rng.sample(range(n), rng.randrange(1, n)):
        times = sorted(rng.uniform(0, 1.2 * until) for _ in range(rng.choice((2, 4, 6))))
        times[0] *= rng.choice((0, 1))
        lines += [f"{agent},{on!r},{off!r}" for on, off in zip(times[::2], times[1::2], strict=True)]
    text = "\n".join(lines) + "\n"
    path = Path(FOLDER.name) / f"{zlib.crc32(text.encode()):08x}.csv"
    path.write_text(text)
    return path


def links_drawn(rng: random.Random, n: int, until: float) -> dict[str, Any]:
    """What else the world has; nothing in every second one."""
    more: dict[str, Any] = {}
    if rng.random() < 0.5:
        return more

    def by_link(values: tuple[float, ...]) -> float | PerLink:
        usual = rng.choice(values)
        own = {
            (i, j): rng.choice(values) for i in range(n) for j in range(n) if i != j and rng.random() < 0.3
        }
        return rng.choice((usual, PerLink(usual, own)))

    if rng.random() < 0.4:
        more["latency"] = by_link((0.0, 0.01, 0.5, 3.0))
    if rng.random() < 0.4:
        more["bandwidth"] = by_link((1.0, 0.3, 2.5, 1.0))
    if rng.random() < 0.3:
        more["loss"] = by_link((0.0, 0.1, 0.7))
    if rng.random() < 0.25:
        more["sending"] = "unicast"
    if rng.random() < 0.2:
        more["network"] = "fair"
    changes: list[Change] = []
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        at, long = rng.uniform(0, until) * rng.choice((0, 1, 1)), rng.choice((None, rng.uniform(0.1, until)))
        end = None if long is None else at + long
        if rng.random() < 0.4 and n > 1:
            changes.append(Cut(frozenset(rng.sample(range(n), rng.randrange(1, n))), at, end))
        else:
            computes, sends = rng.choice(((True, True), (True, False), (False, True)))
            changes.append(Slowdown(rng.randrange(n), rng.choice((0.1, 2.0, 30.0)), at, end, computes, sends))
    more["changes"] = tuple(changes)
    if rng.random() < 0.15:
        who, size = rng.randrange(n), rng.choice((0.1, 1.0))
        more["byzantine"] = (rng.choice((Byzantine(who, scale=size), Byzantine(who, noise=size))),)
    return more


def outcome(run: Run) -> dict[str, Any]:
    """All that must be the same."""
    return {
        "digest": run.digest, "curve": repr(run.curve), "final": repr(run.final), "staleness": run.staleness,
        "counts": (run.updates, run.messages, run.megabytes), "target": run.time_to_target,
        "diverged": run.diverged_at, "error": run.error,
        "models": b"".join(part.numpy().tobytes() for part in run.models),
    }  # fmt: skip


def mismatches(number: int) -> list[str]:
    """What differs from the oracle in the world of this number; empty if nothing does."""
    w = world(number)
    wanted = outcome(run_one(Job(w.p, w.row, w.lr, "event-by-event", check=True)))

    def differs(name: str, run: Run, lr: float = w.lr) -> list[str]:
        expected = wanted if lr == w.lr else outcome(run_one(Job(w.p, w.row, lr, "event-by-event")))
        found = outcome(run)
        return [f"{name}: another {what}" for what in expected if found[what] != expected[what]]

    said = differs("batched", run_one(Job(w.p, w.row, w.lr, "batched")))
    said += differs(
        "batched, checked", run_one(Job(w.p, w.row, w.lr, "batched", check=True, keep_trace=False))
    )
    said += differs("auto", run_one(Job(w.p, w.row, w.lr, "auto")))
    if Job(w.p, w.row, w.lr).by_levels:
        with patch.object(segments, "SEGMENT", 40):
            said += differs("in segments", run_one(Job(w.p, w.row, w.lr, "auto", keep_trace=False)))
        other = replace(w.p, eval_times=w.p.eval_times)
        jobs = [
            Job(w.p, w.row, w.lr, "auto", keep_trace=False),
            Job(w.p, w.row, w.lr / 2, "auto", keep_trace=False),
            Job(other, w.row, w.lr, "auto", keep_trace=False),
        ]
        for job, run in zip(jobs, run_many(jobs), strict=True):
            said += differs("side by side", run, job.lr)
    return said


def main() -> int:
    """Run the worlds that are asked for; 1 if any executor differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("count", type=int, nargs="?", default=2000)
    parser.add_argument("--world", type=int)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    began, bad = time.monotonic(), 0
    for number in range(asked.count) if asked.world is None else [asked.world]:
        try:
            said = mismatches(number)
        except (OffbeatError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
            said = [f"{type(error).__name__}: {error}"]
        if said or asked.world is not None:
            print(f"world {number}, {world(number).settings}: {'; '.join(said) or 'the same'}", flush=True)
        bad += bool(said)
    print(f"{bad} worlds differ; {time.monotonic() - began:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
