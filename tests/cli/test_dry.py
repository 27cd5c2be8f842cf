"""What would be run is said, and nothing is run or written; how far runs are moves on with their time."""

from pathlib import Path

import pytest
from command_line import Call
from rich.console import Console

from offbeat.cli.progress import RunsShown
from offbeat.results.values import Curve, Label

WORDS = ("compare", "--task", "quadratic", "--until", "5", "--algorithms", "adsgd,rfast")


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> None:
        raise AssertionError("something was run")

    monkeypatch.setattr("offbeat.experiments.batches.run_many", run)


@pytest.mark.usefixtures("nothing_runs")
def test_a_comparison_says_what_would_be_run(call: Call) -> None:
    outcome = call(*WORDS, "--over", "topology=ring,complete", "--seeds", "2", "--dry-run", "--out", "kept")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[:4] == [
        "2 worlds: topology ring; topology complete",
        "adsgd: learning rate 0.01",
        "rfast: learning rate 0.09",
        "seeds 0 to 1",
    ]
    assert lines[4].startswith("The largest run needs about ") and " MB of memory" in lines[4]
    assert lines[5] == "8 runs: 0 done, 8 to do."
    assert lines[6] == "  topology ring, adsgd, lr 0.01, seed 0" and len(lines) == 6 + 8
    assert [*Path.cwd().iterdir()] == []
    assert call(*WORDS, "--dry-run", "--quiet").out == ""
    assert "Did you mean 'ring'" in call(*WORDS, "--topology", "rign", "--dry-run").refused().said


@pytest.mark.usefixtures("nothing_runs")
def test_of_tuned_rates_what_comes_first_and_at_most(call: Call) -> None:
    said = call(*WORDS, "--lr", "tuned", "--tune-grid", "0.01,0.1", "--tune-seeds", "2", "--dry-run").out
    assert "adsgd: learning rate tuned: first 0.01, 0.1, with 2 seeds each" in said
    assert "At most 26 runs: 0 done, 8 to do first; which others follow, their results decide." in said


def test_what_is_there_is_said_once_and_of_no_run_that_it_took_no_time(call: Call) -> None:
    words = (*WORDS, "--over", "topology=ring,complete", "--out", "kept")
    assert call(*words).code == 0
    before = {path: path.read_bytes() for path in Path("kept").iterdir()}
    assert "4 runs: 4 done, 0 to do." in call(*words, "--dry-run").out
    next(path for path in Path("kept").glob("*.run")).unlink()
    assert "4 runs: 3 done, 1 to do." in call(*words, "--dry-run").out
    assert len([*Path("kept").iterdir()]) == len(before) - 1
    again = call(*words)
    assert again.err.splitlines()[0] == "3 runs are there already."
    assert again.err.count("already") == 1 and "nan" not in again.err and again.err.count("seed 0") == 1
    assert "of another comparison" in call(*words, "--dry-run", "--until", "6").refused().said


def test_runs_that_are_made_together_move_the_bar_with_their_time() -> None:
    shown, label = RunsShown(10, console=Console(quiet=True)), Label("adsgd, runs 1-4 of 4", 4)
    (bar,) = [task for task in shown.bar.tasks if task.id == shown.everything]
    shown.on_there(2)
    for time in (25.0, 50.0):
        for _ in range(4):
            shown.on_progress(label, time, 100.0, Curve(time=[time], loss=[1.0]))
    assert bar.completed == 2 + 4 * 0.5 and bar.fields["score"] == "2 of 10"
    shown.on_progress(label, 60.0, 60.0, Curve(time=[60.0], loss=[1.0]))  # has met its target
    assert bar.completed == 3 + 3 * 0.5 and label in shown.lines
    for _ in range(3):
        shown.on_progress(label, 100.0, 100.0, Curve(time=[100.0], loss=[1.0]))
    assert bar.completed == 6 and bar.fields["score"] == "6 of 10"
    assert not (shown.lines or shown.batches or shown.going or shown.curves)
