"""Speed-up over agents: paired by seed, against the fewest; from a sweep's file in one command."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

import offbeat
from offbeat import Comparison, Run, SettingError
from offbeat.cli.commands import app
from offbeat.results.speedup import speedup_cells, speedups

GRID = """[fixed]
task = "quadratic"
topology = "ring"
until = 40
target = 0.5
stop_at = "target"
lr = "0.01n"
[grid]
algorithm = ["adsgd", "rfast"]
agents = [3, 6]
seed = [0, 1]
"""


@cache
def base(agents: int) -> Run:
    return offbeat.simulate("adsgd", task="quadratic", topology="ring", agents=agents, until=2, target=0.5)


def study(times: dict[int, list[float | None]], lrs: dict[int, float] | None = None) -> Comparison:
    """Runs with these numbers of agents and times to the target, one a seed."""
    return Comparison([
        replace(base(n), seed=seed, time_to_target=time, lr=(lrs or {}).get(n, 0.01))
        for n, each in times.items() for seed, time in enumerate(each)
    ])  # fmt: skip


def test_speed_ups_are_ratios_of_the_same_seed_and_their_median() -> None:
    few, many = speedups(study({4: [10.0, 100.0, 30.0], 8: [5.0, 80.0, 10.0]}))
    assert (few.gains, few.efficiency, few.fewest) == ((1, 1, 1), 1, 4)
    assert many.gains == (2.0, 1.25, 3.0), "of the medians it would be 3"
    assert many.efficiency == 1.0 and many.times == (5.0, 80.0, 10.0)


def test_what_never_met_the_target_gains_nothing_and_what_has_no_pair_is_not_said() -> None:
    _, many = speedups(study({4: [10.0, None, 30.0], 8: [None, 80.0, 10.0]}))
    assert many.gains == (1.5, 0.0, 3.0)
    result = study({4: [None], 8: [5.0]})
    assert speedups(result)[1].gains is None
    assert speedup_cells(result)[1][1] == ["adsgd", "8", "5", "-", "-"]


def test_rates_that_go_with_the_agents_are_one_line_and_several_are_told_apart() -> None:
    assert [one.label for one in speedups(study({4: [1.0], 8: [1.0]}, {4: 0.04, 8: 0.08}))] == ["adsgd"] * 2
    both = [*study({4: [1.0], 8: [2.0]}).runs, *study({4: [3.0], 8: [4.0]}, {4: 0.1, 8: 0.1}).runs]
    found = {(one.label, one.agents): one.times[0] for one in speedups(Comparison(both))}
    assert found[("adsgd lr=0.01", 8)] == 2.0 and found[("adsgd lr=0.1", 4)] == 3.0 and len(found) == 4


def test_without_several_numbers_of_agents_or_a_target_there_is_no_speed_up(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="several numbers of agents; got 4"):
        speedups(study({4: [1.0, 2.0]}))
    runs = study({4: [1.0], 8: [2.0]}).runs
    bare = [replace(run, settings=run.settings | {"target": None}) for run in runs]
    with pytest.raises(SettingError, match="expected runs with one and the same"):
        speedups(Comparison(bare))
    (tmp_path / "a.toml").write_text(GRID.replace("[3, 6]", "[3]"))
    out = str(tmp_path / "a.parquet")
    done = CliRunner().invoke(app, ["sweep", str(tmp_path / "a.toml"), "--out", out, "--speedup"])
    assert isinstance(done.exception, SettingError) and not Path(out).exists()


def test_a_scaling_study_is_one_command(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(GRID)
    out = str(tmp_path / "a.parquet")
    words = ["sweep", str(tmp_path / "a.toml"), "--out", out, "--workers", "1", "--speedup"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    printed = CliRunner().invoke(app, ["table", out, "--speedup"])
    assert printed.exit_code == 0 and "efficiency" in printed.output and printed.output in done.output
    loaded = offbeat.load(out)
    assert loaded.runs[0].settings["lr_said"] == "0.01n"
    for one in speedups(loaded):
        assert one.gains is None or f"{one.gains[0]:.2f}" in done.output
        times = [
            run.time_to_target for run in loaded.runs
            if (run.algorithm, run.settings["agents"]) == (one.label, one.agents)
        ]  # fmt: skip
        assert len(times) == 2 and one.times[1] in times


def test_the_figure_has_the_speed_ups_of_the_table(tmp_path: Path) -> None:
    result = study({4: [10.0, 100.0, 30.0], 8: [5.0, 80.0, 10.0], 16: [None, None, None]})
    (panel,) = result.figure("speedup", x="agents").panels
    (line,) = panel.lines
    assert (line.label, line.x, line.y) == ("adsgd", (4.0, 8.0, 16.0), (1.0, 2.0, 0.0))
    assert "speed-up in time to" in panel.y.title
    with pytest.raises(SettingError, match="expected x = 'agents', got 'time'"):
        result.figure("speedup")
    with pytest.raises(SettingError, match="several numbers of agents; got 4"):
        study({4: [1.0]}).figure("speedup", x="agents")


def test_a_rate_may_be_what_another_is_said_to_be() -> None:
    """As 0.01n for one agent beside 0.01: both are there, apart, and neither is a run that is there twice."""
    plain = study({1: [8.0], 3: [9.0]}).runs
    said = [replace(run, settings=run.settings | {"lr_said": "0.01n"}) for run in plain]
    said = [said[0], replace(said[1], lr=0.03)]
    made = Comparison([*plain, *said])
    assert [len(runs) for runs in made.groups().values()] == [1, 1, 1, 1]
    first, second = [group for group in made.groups() if dict(group.world)["agents"] == 1]
    assert (made.label(first, world=False), made.label(second, world=False)) == (
        "adsgd lr=0.01", "adsgd lr=0.01n",
    )  # fmt: skip
    assert len(speedups(made)) == 4
    with pytest.raises(SettingError, match="is there twice"):
        Comparison([*plain, plain[0]])


def test_no_speed_up_lies_at_the_lower_border_of_a_logarithmic_axis() -> None:
    """It is 0 where the target was never met, and a bar at it would have its lower end above."""
    figure = study({1: [8.0, 9.0], 2: [6.0, 7.0], 4: [None, None]}).figure("speedup", x="agents", log="xy")
    (line,) = figure.panels[0].lines
    lowest, _ = figure.panels[0].y.limits or (0.0, 0.0)
    assert line.value[-1] == 0 and line.low[-1] == line.y[-1] == line.high[-1] == lowest
    assert figure.notes[-1] == "At the lower border: 0, for the target was not met."
    assert figure.matplotlib()
