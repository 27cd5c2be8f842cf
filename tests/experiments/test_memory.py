"""How much memory runs need: the estimate against a process, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
from command_line import Call
from warm import on_linux, ran

import offbeat
from offbeat import SettingError
from offbeat.algorithms import ALGORITHMS
from offbeat.core.system import machine
from offbeat.experiments import comparison, setup
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.memory import check_run
from offbeat.experiments.runs import Job
from offbeat.experiments.setup import prepare
from offbeat.experiments.sweep import grid
from offbeat.world.graphs import TOPOLOGIES, edges, named

MEASURE = """
from pathlib import Path
from offbeat.algorithms import find
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.setup import prepare
from offbeat.experiments.memory import need
from offbeat.experiments.runs import Job, engines, run_one
def peak():  # ru_maxrss would begin with that of the process that started this one
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines["VmHWM"].split()[0])
row = find({name!r})
small, p = (
    prepare(Experiment(task="digits", agents=n, topology="ring", until=t), 0)
    for n, t in ((9, 2), ({agents}, {until}))
)
run_one(Job(small, row, 0.01, {how!r}))
before = peak()
job = Job(p, row, 0.01, {how!r})
(engine,) = engines([job])
engine.start()
engine.run({until})
engine.stacked(), engine.stacked(), engine.traced()
print((peak() - before) / need(job).total)
"""


@on_linux
@pytest.mark.parametrize(
    ("name", "how", "agents", "until"), [("adsgd", "levels", 9, 5_000), ("rfast", "batched", 1000, 2)]
)
def test_the_estimate_is_about_what_a_process_needs(
    name: str, how: str, agents: int, until: int, tmp_path: Path
) -> None:
    """A fork of one that has imported everything: what it needs in addition."""
    done = ran(tmp_path, MEASURE.format(name=name, how=how, agents=agents, until=until))
    assert done.code == 0 and 0.5 < float(done.said) < 1.6, done.said + done.complained


def test_what_does_not_fit_is_refused_with_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available", lambda: 8e7)
    common: dict[str, Any] = {"task": "digits", "topology": "ring", "agents": 1000}
    with pytest.raises(SettingError, match=r"needs about .* GB of memory: .* 0.1 GB are free. .* would fit"):
        comparison.plan("adsgd", until=1e5, **common)
    with pytest.raises(SettingError, match=r"about [\d,]+ agents would fit"):
        comparison.plan("rfast", until=0.1, **(common | {"agents": 1400}))
    comparison.plan("adsgd", until=5, **common)


def test_until_what_is_said_to_fit_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available", lambda: 2e8)
    p = prepare(Experiment(task="digits", topology="ring", agents=100, until=1e6), 0)
    with pytest.raises(SettingError) as refused:
        check_run(Job(p, ALGORITHMS["dsgd"], 0.1, keep_trace=False))
    until = float(str(refused.value).rpartition("until time ")[2].partition(", would")[0].replace(",", ""))
    fits = prepare(Experiment(task="digits", topology="ring", agents=100, until=0.999 * until), 0)
    check_run(Job(fits, ALGORITHMS["dsgd"], 0.1, keep_trace=False))


def test_memory_of_this_machine_is_known() -> None:
    free = machine.available()
    assert 1e8 < free < 1e14


def test_runs_side_by_side_are_counted() -> None:
    common: dict[str, Any] = {"task": "digits", "until": 100}
    alone, beside = (
        comparison.plan("adsgd", **common).memory,
        comparison.plan("adsgd", seeds=20, **common).memory,
    )
    assert beside == 8 * alone
    assert offbeat.compare("adsgd", task="digits", until=2).runs


IMPOSSIBLE = [
    (("--agents", "100000", "--topology", "complete"), r"5e.09 edges of 'complete'"),
    (("--agents", "100000", "--topology", "erdos-renyi:0.5"), "edges of 'erdos-renyi:0.5'"),
    (("--agents", "100000", "--topology", "random-regular:50000"), "edges of 'random-regular:50000'"),
    (("--agents", "50000000"), "most of it for 50,000,000 agents"),
    (("--agents", str(10**18)), "GB of memory at least"),
    (("--agents", str(10**18), "--speeds", "lognormal:0.5"), "GB of memory at least"),
    (("--until", "1e300"), r"About 9e.300 gradients .*; at most 1e.12 are. Expected an end at"),
    (
        ("--until", "1e10", "--agents", "2", "--speeds", "1000,1000"),
        r"About 2e.13 gradients .*an end at 5e.08 or",
    ),
    (("--batch", "1000000000"), "minibatches of 1000000000 samples"),
    (("--eval-every", "1e-9"), r"evaluations are too many: at most 1000000"),
    (("--agents", "40000", "--topology", "ring", "--case", "combined"), "expected --straggler"),
]


@pytest.mark.parametrize(("options", "said"), IMPOSSIBLE)
def test_impossible_sizes_are_refused_before_anything_is_built(
    call: Call, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], said: str
) -> None:
    """Neither a graph nor data are looked at."""
    monkeypatch.setattr("offbeat.tasks.build", None)
    if "--straggler" not in said:
        monkeypatch.setattr(setup, "build", None)
    monkeypatch.setattr(machine, "available", lambda: 1e12 / 8)
    assert re.search(said, call("compare", *options).refused().said)


def test_a_long_run_of_slow_agents_is_not_refused() -> None:
    e = Experiment(task="quadratic", topology="ring", agents=4, until=1e12, speeds="0.001,0.001,0.001,0.001")
    assert prepare(e, 0).updates == pytest.approx(4e9)


def test_results_of_more_seeds_than_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available", lambda: 1e8)
    with pytest.raises(
        SettingError, match=r"20,000 runs would need .* GB of memory at least, with their results"
    ):
        comparison.plan("adsgd,dsgd", task="digits", seeds=10_000)


def test_a_grid_is_counted_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "_value", None)
    table = {"fixed": {"algorithm": "adsgd"}, "grid": {"seed": range(3), "lr": [0.1]}}
    table["grid"]["seed"] = [*range(1_000_003)]  # type: ignore[index]
    with pytest.raises(SettingError, match="more than 100,000 points: 1,000,003, 1,000,003 values of 'seed'"):
        grid.points(table)


def test_live_runs_of_impossible_sizes_start_nothing(call: Call) -> None:
    assert "8,000 processes would need 400.0 GB" in call("live", "--agents", "8000").refused().said
    assert "it would run for years" in call("live", "--until", "1e12").refused().said
    assert not [*Path.cwd().iterdir()]


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_edges_are_counted_about_right(name: str) -> None:
    n = 36
    found = named(name, n, 0).number_of_edges()
    assert 0.5 * found <= edges(name, n) <= 1.5 * found
