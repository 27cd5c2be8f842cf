"""How much memory runs need: the estimate against a process, and what is refused."""

import subprocess
import sys
from typing import Any

import pytest

import offbeat
from offbeat import SettingError, comparison, memory
from offbeat.algorithms import ALGORITHMS
from offbeat.experiment import Experiment, prepare

MEASURE = """
import sys
from pathlib import Path
import offbeat
from offbeat.algorithms import find
from offbeat.experiment import Experiment, prepare
from offbeat.memory import need
from offbeat.runs import Job, engines, run_one
def peak():  # ru_maxrss would begin with that of the process that started this one
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines["VmHWM"].split()[0])
row, how, agents, until = find(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
small, p = (
    prepare(Experiment(task="digits", agents=n, topology="ring", until=t), 0) for n, t in ((9, 2), (agents, until))
)
run_one(small, row, 0.01, how)
before = peak()
(engine,) = engines([Job(p, row, 0.01)], how)
engine.start()
engine.run(until)
engine.stacked(), engine.stacked(), engine.traced()
print((peak() - before) / need(p, row, how == "levels").total)
"""


@pytest.mark.parametrize(
    ("name", "how", "agents", "until"),
    [("adsgd", "levels", 9, 15_000), ("rfast", "batched", 1000, 4)],
)
def test_the_estimate_is_about_what_a_process_needs(name: str, how: str, agents: int, until: float) -> None:
    command = [sys.executable, "-c", MEASURE, name, how, str(agents), str(until)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert 0.5 < float(done.stdout) < 1.6, done.stdout


def test_what_does_not_fit_is_refused_with_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 8e7)
    common: dict[str, Any] = {"task": "digits", "topology": "ring", "agents": 1000}
    with pytest.raises(SettingError, match=r"needs about .* GB of memory: .* 0.1 GB are free. .* would fit"):
        comparison.plan("adsgd", until=1e5, **common)
    with pytest.raises(SettingError, match=r"about [\d,]+ agents would fit"):
        comparison.plan("rfast", until=0.1, **(common | {"agents": 1400}))
    comparison.plan("adsgd", until=5, **common)


def test_until_what_is_said_to_fit_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 2e8)
    p = prepare(Experiment(task="digits", topology="ring", agents=100, until=1e6), 0)
    with pytest.raises(SettingError) as refused:
        memory.refuse_too_large(p, ALGORITHMS["dsgd"], by_levels=False)
    until = float(str(refused.value).rpartition("until time ")[2].partition(", would")[0].replace(",", ""))
    fits = prepare(Experiment(task="digits", topology="ring", agents=100, until=0.999 * until), 0)
    memory.refuse_too_large(fits, ALGORITHMS["dsgd"], by_levels=False)


def test_memory_of_this_machine_is_known() -> None:
    free = memory.available()
    assert free is not None and 1e8 < free < 1e14


def test_runs_side_by_side_are_counted() -> None:
    common: dict[str, Any] = {"task": "digits", "until": 100}
    alone, beside = comparison.plan("adsgd", **common).memory, comparison.plan("adsgd", seeds=20, **common).memory
    assert beside == 8 * alone
    assert offbeat.compare("adsgd", task="digits", until=2).runs
