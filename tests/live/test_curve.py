"""The curve of a live run: what is said of a time is what was so at that time."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from warm import finished, needs_shared_memory

import offbeat
from offbeat.core.vector import Vector
from offbeat.engines.live.node.snapshots import ModelSnapshots
from offbeat.engines.live.shm.board import Board, Row
from offbeat.engines.live.shm.layout import Tag
from offbeat.engines.trace import Trace
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.live import running
from offbeat.experiments.live.running import Watcher, all_alike
from offbeat.experiments.setup import prepare
from offbeat.results.values import RunValues

pytestmark = needs_shared_memory


def live(folder: Path, *options: str) -> tuple[RunValues, Trace, str]:
    """A run of four agents on a ring as it is loaded from its folder, its trace, and what was printed."""
    words = "live --task quadratic --agents 4 --lr 0.1 --unit 2ms --out out"
    run = finished(folder, *words.split(), *options)
    assert run.code == 0, run.complained
    (path,) = (folder / "out").glob("*/trace.npz")
    (loaded,) = offbeat.load(folder / "out").runs
    return loaded, Trace.load(path), " ".join(run.said.split())


def made(trace: Trace, by: float) -> int:
    """The gradients that had been applied at a time, by all."""
    until = trace.writes[trace.writes["time"] <= by]
    counts = np.zeros(trace.agents, dtype=np.int64)
    np.maximum.at(counts, until["agent"], until["step"])
    return int(counts.sum())


@pytest.mark.parametrize("algorithm", ["adsgd", "dsgd"])
def test_the_curve_never_shows_what_had_not_happened_yet(algorithm: str, tmp_path: Path) -> None:
    """The trace is the witness: what it counts by that time, but for what one look takes."""
    run, trace, _ = live(tmp_path, "--algorithms", algorithm, "--until", "300", "--eval-every", "10")
    time, updates, n = run.curve.time, run.curve.updates, trace.agents
    assert (time[0], updates[0]) == (0.0, 0)
    assert (np.diff(time) > 0).all()
    assert updates == sorted(updates)
    for before, now, counted in zip([0.0, *time], time, updates, strict=False):
        assert made(trace, before) - n <= counted <= made(trace, now)
    behind = [made(trace, now) - counted for now, counted in zip(time, updates, strict=True)]
    assert np.median(behind) <= n, "one gradient of each agent, at most, is being applied"
    assert time[-1] == max(300.0, trace.writes["time"].max())
    assert updates[-1] == run.updates == trace.updates().sum()
    assert len(time) > 5


def test_evaluations_that_come_faster_than_looks_are_not_there_and_it_is_said(tmp_path: Path) -> None:
    words = ["--algorithms", "adsgd", "--until", "100", "--eval-every", "0.01"]
    run, trace, said = live(tmp_path, *words)
    time, count = run.curve.time, len(run.curve.time)
    assert 2 < count < 5_000
    assert (np.diff(time) > 0).all()
    assert all(counted <= made(trace, now) for now, counted in zip(time, run.curve.updates, strict=True))
    note = f"in time: {10_001 - count:,} of 10,001 are missing of adsgd with lr 0.1, seed 0."
    assert note in said
    page = tmp_path / "page.html"
    offbeat.load(tmp_path / "out").save_report(page)
    assert note in " ".join(page.read_text().split())


class Looked:
    """A watcher of two agents, whose clock and models are the test's."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, took: float = 0.0) -> None:
        experiment = Experiment(task="quadratic", agents=2, topology="ring", until=10.0, eval_every=2.0)
        setup = prepare(experiment, 0)
        (start,) = setup.task.initial()
        self.now, self.took, self.board = 0.0, took, Board.create(folder / "board", 2)
        self.board.words[4] = 10**9
        children = SimpleNamespace(see_models=lambda: None)
        self.launcher: Any = SimpleNamespace(
            board=self.board, shared=folder, all_left=False, children=children
        )
        self.watcher = Watcher(setup, 1.0, ModelSnapshots(folder / "looks", all_alike(setup), anew=True))
        monkeypatch.setattr("time.monotonic_ns", lambda: 10**9 + round(1e9 * self.now))

        def model_of(shared: Path, board: Board, i: int) -> tuple[Vector, Tag]:
            self.now += self.took / 2
            self.board.rows[i, Row.STEPS] = round(10 * self.now)
            return Vector((start + self.now,)), Tag()

        monkeypatch.setattr(running, "model_of", model_of)

    def at(self, now: float) -> list[tuple[float, int]]:
        """Look at this time: the times and the steps of all looks so far."""
        self.now = now
        self.watcher(self.launcher)
        return [(each.time, each.steps) for each in self.watcher.snapshots.taken]


def test_a_look_counts_for_one_evaluation_and_has_the_time_at_which_it_was_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = Looked(tmp_path, monkeypatch, took=0.2)
    assert looked.at(0.1) == [(0.0, 0)], "at the start nobody has moved"
    assert looked.watcher.due(looked.launcher) == 3.0, "one second was on the clock when it began"
    assert looked.at(1.9) == [(0.0, 0)]
    assert looked.at(6.5) == [(0.0, 0), (6.7, 66 + 67)], "that of time 2 and 4 were missed"
    assert looked.watcher.due(looked.launcher) == 9.0
    assert len(looked.at(8.0)) == 3
    assert looked.watcher.due(looked.launcher) == math.inf, "at 10 it ends: what it ends with is the last"
    assert len(looked.at(10.5)) == 3
    looked.launcher.all_left = True
    assert len(looked.at(10.6)) == 3
    assert looked.watcher.final


def test_a_look_is_followed_by_as_long_a_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is to be evaluated, the agents have half of what the looks could take."""
    looked = Looked(tmp_path, monkeypatch, took=1.5)
    assert [now for now, _ in looked.at(2.0)] == [0.0, 3.5]
    assert looked.watcher.due(looked.launcher) == 7.0, "at time 4 it rests, until 5"
