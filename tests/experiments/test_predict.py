"""Predictions from the trace of one run: what the fit measures, what comes out in a run it has not seen, bad
input.
"""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import simulated as simulate
from typer.testing import CliRunner
from warm import finished, needs_shared_memory

from offbeat import load
from offbeat.cli.commands import app, main
from offbeat.cli.predict import _notes
from offbeat.core.errors import DataError, OffbeatError, SettingError
from offbeat.engines.trace import Trace
from offbeat.experiments import predicting
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.fitting import fit, pauses
from offbeat.experiments.predicting import Prediction, predict
from offbeat.experiments.setup import prepare
from offbeat.results.run import Run


@pytest.fixture(autouse=True)
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs for a prediction; of a real run as many as always."""
    if "real" not in request.node.name:
        monkeypatch.setattr(predicting, "REPEATS", 2)


@cache
def simulated(algorithm: str, **changes: Any) -> tuple[Run, Trace]:
    """Made once for all tests, which change none of it; seldom evaluated."""
    return simulate(algorithm, **{"eval_every": 20.0, "until": 300.0} | changes)


def script(trace: Trace) -> Trace:
    """The same, as of a script of the user's: no task, no emulated delays, times in seconds."""
    s = trace.settings
    about = {name: s[name] for name in ("agents", "algorithm", "seed")} | {"topology": "ring", "unit": 1.0}
    return replace(trace, settings=about)


# -- the fit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["adsgd", "dsgd", "dsgd:after", "adpsgd", "allreduce"])
def test_the_fit_measures_the_delays_of_every_agent(algorithm: str) -> None:
    _, trace = simulated(
        algorithm, eval_every=200.0, case="combined", straggler=2, slowdown=3.0, until=2000.0
    )
    size = sum(
        x.numel() * x.element_size()
        for x in prepare(Experiment(task="quadratic", agents=4), 3).task.initial()
    )
    fitted = fit(trace, size)
    for i in range(4):
        factor = 3.0 if i == 2 else 1.0
        assert fitted.compute[i][0].mean() == pytest.approx(factor, rel=0.05)
        assert fitted.sending[i][0].mean() == pytest.approx(factor, rel=0.15)  # cv is 1
        assert fitted.compute[i][1].mean() < 1e-9
        assert fitted.sending[i][1].mean() < 1e-9


def test_a_pause_of_the_whole_machine_is_left_out() -> None:
    _, trace = simulated("adsgd")

    def later(rows: np.ndarray, *names: str) -> np.ndarray:
        moved = rows.copy()
        for name in names:
            moved[name] += 80.0 * (moved[name] > 150.0)
        return moved

    stopped = replace(
        trace,
        events=later(trace.events, "time", "start", "end"),
        writes=later(trace.writes, "time"),
        transmissions=later(trace.transmissions, "start", "end"),
        settings={**trace.settings, "experiment": {**trace.settings["experiment"], "until": 380.0}},
    )
    assert pauses(trace) == []
    ((start, end),) = pauses(stopped)
    assert 140 < start <= 150.1
    assert 230 <= end < 240
    before, after = predict(trace), predict(stopped)
    assert after.paused == pytest.approx(end - start)
    assert after.recorded.per_second == pytest.approx(before.recorded.per_second, rel=0.02)
    assert abs(after.error) < 3


# -- what comes out --------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["adsgd", "dsgd", "adpsgd", "rfast", "allreduce"])
def test_the_recorded_run_is_predicted(algorithm: str) -> None:
    _, trace = simulated(algorithm, case="comp-straggler", straggler=1, slowdown=4.0)
    found = predict(trace)
    assert abs(found.error) < 6  # drawn anew from some hundred values
    assert found.predicted.steps == pytest.approx(found.recorded.steps, rel=0.12, abs=3)
    assert found.predicted.waiting == pytest.approx(found.recorded.waiting, abs=0.04)
    if algorithm != "allreduce":  # which mixes no models
        assert found.predicted.age == pytest.approx(found.recorded.age, rel=0.15)


@pytest.mark.parametrize(
    ("recorded", "algorithm"),
    [("adsgd", "adsgd"), ("adsgd", "dsgd"), ("dsgd", "adsgd"), ("dsgd", "allreduce")],
)
def test_a_straggler_is_predicted_from_a_run_without(recorded: str, algorithm: str) -> None:
    """Steps and time to target, against the simulator's truth; also of another algorithm."""
    truth, _ = simulated(algorithm, case="comp-straggler", straggler=2, until=1000.0)
    found = predict(simulated(recorded)[1], algorithm, case="comp-straggler", straggler=2, until=1000.0)
    assert sum(found.predicted.steps) == pytest.approx(truth.updates, rel=0.05)
    assert truth.time_to_target is not None
    assert found.predicted.times[0] == pytest.approx(truth.time_to_target, rel=0.1)


def test_a_case_removes_the_straggler_of_the_recorded_run() -> None:
    truth, _ = simulated("adsgd")
    _, trace = simulated("adsgd", case="combined", straggler=0)
    kept, removed = predict(trace), predict(trace, case="base")
    assert kept.predicted.steps[0] < 0.2 * kept.predicted.steps[1]
    assert sum(removed.predicted.steps) == pytest.approx(truth.updates, rel=0.05)


@pytest.mark.parametrize("algorithm", ["adsgd", "dsgd", "rfast", "allreduce"])
def test_of_a_script_the_schedule_is_predicted(algorithm: str) -> None:
    """In seconds, whatever a unit is: gradients of 20 microseconds too."""
    prompt = {"communication": "constant mean 0", "until": 100.0}
    truth, _ = simulated(algorithm, topology="complete", **prompt)
    trace = script(simulated("adsgd", **prompt)[1])
    fast = replace(trace, events=trace.events.copy(), writes=trace.writes.copy())
    for rows, names in ((fast.events, ("time", "start", "end")), (fast.writes, ("time",))):
        for name in names:
            rows[name] *= 2e-5
    found = predict(fast, algorithm, topology="complete", until=100 * 2e-5)
    assert sum(found.predicted.steps) == pytest.approx(truth.updates, rel=0.05)
    assert found.predicted.per_second == pytest.approx(truth.updates / (100 * 2e-5), rel=0.05)
    assert "loss" not in found.predicted.record()
    assert abs(found.error) < 3


# -- real processes --------------------------------------------------------------------------------


def live(folder: Path, *options: str) -> Path:
    """A real run of 100 units of 20 ms; its trace."""
    folder.mkdir()
    words = "live --task quadratic --agents 4 --unit 20ms --until 100 --out out --quiet"
    run = finished(folder, *words.split(), *options)
    assert run.code == 0, run.said + run.complained
    return next((folder / "out").glob("*/trace.npz"))


@needs_shared_memory
def test_what_the_recorded_run_reached_is_shown_with_the_error_of_the_prediction(tmp_path: Path) -> None:
    """As the run's own table has it; a trace elsewhere does not tell it, which is said."""
    path = live(tmp_path / "run", "--target", "0.5", "--lr", "0.1")
    (run,) = load(path.parent.parent).runs
    assert run.time_to_target is not None
    done = CliRunner().invoke(app, ["predict", str(path), "--json", str(tmp_path / "out.json")])
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "out.json").read_text())
    recorded, again = written["recorded"], written["recorded_as_predicted"]
    assert recorded["time_to_target"] == run.time_to_target
    assert recorded["loss"] == run.final["loss"]
    error = 100 * (again["time_to_target"] / run.time_to_target - 1)
    assert written["error_percent_of_time_to_target"] == pytest.approx(error)
    assert f" {error:+.0f} %" in done.output
    row = next(line.split() for line in done.output.splitlines() if line.strip().startswith("recorded "))
    assert row[-2] == f"{run.time_to_target:.4g}"
    moved = tmp_path / "trace.npz"
    moved.write_bytes(path.read_bytes())
    assert (
        "What the recorded run reached is not known"
        in CliRunner().invoke(app, ["predict", str(moved)]).output
    )


@needs_shared_memory
def test_a_real_straggler_is_predicted_from_a_real_run_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 10 % in steps; up to three times if the machine was busy with something else."""
    errors = []
    for attempt in range(3):
        base = live(tmp_path / f"base-{attempt}")
        slow = Trace.load(live(tmp_path / f"slow-{attempt}", "--case", "comp-straggler"))
        with monkeypatch.context() as patched:
            patched.setattr(predicting, "REPEATS", 1)  # of this one, nothing that is predicted is looked at
            seen = predict(slow).recorded
        found = predict(Trace.load(base), case="comp-straggler").predicted
        errors.append(found.per_second / seen.per_second - 1)
        if abs(errors[-1]) < 0.1:
            return
    pytest.fail(f"the errors were {errors}")


# -- the command, and bad input --------------------------------------------------------------------


def test_the_command_prints_a_table_and_writes_the_numbers(tmp_path: Path) -> None:
    simulated("adsgd")[1].save(tmp_path / "trace.npz")
    words = ["--algorithm", "dsgd", "--case", "comp-straggler", "--json"]
    done = CliRunner().invoke(
        app, ["predict", str(tmp_path / "trace.npz"), *words, str(tmp_path / "out.json")]
    )
    assert done.exit_code == 0, done.output
    assert all(word in done.output for word in ("recorded", "predicted", "asked for", "dsgd", "time to gap"))
    lines = [line.strip() for line in done.output.splitlines()]
    rows = [line.split() for line in lines if line.startswith(("recorded  ", "asked for  "))]
    assert [rows[0][-1], rows[0][-2], rows[1].count("-")] == ["-", "-", 2]  # no cell is empty
    written = json.loads((tmp_path / "out.json").read_text())
    found: Prediction = predict(Trace.load(tmp_path / "trace.npz"), "dsgd", case="comp-straggler")
    assert written["predicted"] == json.loads(json.dumps(found.predicted.record()))
    assert written["error_percent"] == found.error
    assert len(written["fitted"]) == 4


def test_the_command_says_which_steps_of_the_recorded_run_are_counted() -> None:
    """A script's agents begin and end one after another; what all have in common is compared."""
    trace = simulated("adsgd")[1]
    found = predict(script(trace))
    start, _ = found.window
    assert found.made == trace.updates().sum() > sum(found.recorded.steps)
    said = next(note for note in _notes(found) if note.startswith("Of "))
    counted = sum(found.recorded.steps)
    assert said.startswith(
        f"Of {found.made:,} recorded steps {counted:,} are counted: those from {start:.4g}"
    )
    again = _notes(predict(trace))
    assert again.count(said) == 0


def test_bad_input_is_refused() -> None:
    run, trace = simulated("adsgd")
    assert run.trace is not None
    with pytest.raises(DataError, match="expected the trace of 'offbeat live' or 'launch'"):
        predict(run.trace)
    with pytest.raises(DataError, match="Agent 0 computed 0 gradients; at least 5"):
        predict(replace(trace, events=trace.events[:0]))
    odd = {**trace.settings, "experiment": {**trace.settings["experiment"], "until": {"a": 1}}}
    with pytest.raises(SettingError, match="'until' must be a number"):
        predict(replace(trace, settings=odd))
    for changes, match in (
        ({"algorithm": "adsdg"}, "Did you mean 'adsgd'"),
        ({"topology": "rign"}, "Did you mean 'ring'"),
        ({"case": "comp-stragler"}, "Did you mean 'comp-straggler'"),
        ({"straggler": 1}, "A straggler was given and no case.* expected a case too"),
        ({"slowdown": 5.0}, "A slowdown was given and no case"),
        ({"case": "base", "straggler": 1}, "there is none in case 'base'"),
        ({"case": "combined", "straggler": 4}, "There is no agent 4"),
        ({"case": "combined", "slowdown": 0.0}, "slowdown must be"),
        ({"until": -1.0}, "finite time > 0"),
        ({"until": float("nan")}, "finite time > 0"),
        ({"lr": 0.0}, "finite number > 0"),
    ):
        with pytest.raises(SettingError, match=match):
            predict(trace, **changes)


def test_the_command_says_in_one_paragraph_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["offbeat", "predict", str(tmp_path / "none.npz")])
    with pytest.raises(SystemExit) as ending:
        main()
    assert ending.value.code == OffbeatError.exit_code + 1
    assert "expected a trace, a .npz that offbeat wrote" in " ".join(capsys.readouterr().err.split())


def test_a_run_that_stood_still_all_the_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, trace = simulated("adsgd")
    monkeypatch.setattr(predicting, "pauses", lambda trace: [(-1.0, 1e9)])
    with pytest.raises(DataError, match=r"All agents stood still from .*: nothing can be predicted"):
        predict(trace)
