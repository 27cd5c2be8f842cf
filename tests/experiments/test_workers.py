"""Runs on several cores: the same bytes, whatever finishes first, fails, is killed or does not fit."""

import json
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas
import pytest
from deadly import deadly_comparison, deadly_sweep
from rich.console import Console
from user_scripts import example
from warm import WARM_WORKERS, Started, on_linux, plant, session, start, until

import offbeat
from offbeat.algorithms import USUAL
from offbeat.cli import progress
from offbeat.core.errors import ContractError, DataError, OffbeatError, SettingError
from offbeat.core.system import machine
from offbeat.experiments import batches, forking, making, scheduler
from offbeat.experiments.batches import PlannedRun, how_many_workers
from offbeat.experiments.comparison import Plan
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.runs import run_many
from offbeat.experiments.scheduler import Batch, Scheduler
from offbeat.experiments.sweep import running
from offbeat.experiments.sweep.grid import points
from offbeat.experiments.sweep.running import sweep
from offbeat.experiments.tuning import Trial
from offbeat.experiments.workers import Processes
from offbeat.results.page import page
from offbeat.results.run import Comparison, Run
from offbeat.results.values import Curve
from offbeat.tasks.quadratic import random_quadratic

QUICK: dict[str, Any] = {"task": "quadratic", "until": 30.0, "case": "combined", "eval_every": 10.0}
FIVE = list(USUAL)


def batched(made: Plan, processes: int) -> list[Batch[PlannedRun]]:
    """All runs of a plan in which nothing is tuned, for so many processes."""
    runs = [
        made.planned_runs(place, [Trial(lr) for lr in lrs or []], False, False)
        for place, lrs in enumerate(made.lrs)
    ]
    return [batch for each in runs for batch in made.split(each, processes)]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of some milliseconds are worth workers too."""
    monkeypatch.setattr(batches, "WORTH", 0.0)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, short: None) -> list[PlannedRun]:
    """What workers took. This process begins nothing before one of them has."""
    taken, schedulers = list[PlannedRun](), list[Scheduler[Any, Any]]()
    start_all, submit = Scheduler._start, Processes.submit

    def started(self: Scheduler[Any, Any]) -> None:
        schedulers.append(self)
        start_all(self)

    def noted(self: Processes, work: Any, *arguments: Any) -> Any:
        taken.extend(arguments[0].runs)
        return submit(self, work, *arguments)

    def patient(*arguments: Any) -> Iterator[Run]:
        until(lambda: bool(taken) or schedulers[-1].pool is None)
        return run_many(*arguments)

    monkeypatch.setattr(Scheduler, "_start", started)
    monkeypatch.setattr(Processes, "submit", noted)
    monkeypatch.setattr(batches, "run_many", patient)
    return taken


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers must not be started."""

    def refuse(*_: object) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(batches, "Processes", refuse)


def plan(algorithms: Any = FIVE, **settings: Any) -> Plan:
    return offbeat.plan(algorithms, **(QUICK | settings))


def same(runs: list[Run], others: list[Run]) -> None:
    """All that there is to see of them is the same, to the byte."""
    a, b = Comparison(runs), Comparison(others)
    assert json.dumps(a.record()) == json.dumps(b.record())
    assert str(a) == str(b)
    assert page(a) == page(b)
    for run, other in zip(runs, others, strict=True):
        assert (
            run.topology is not None
            and run.topology.w.toarray().tolist() == other.topology.w.toarray().tolist()
        )
        assert [part.numpy().tobytes() for part in run.models] == [
            part.numpy().tobytes() for part in other.models
        ]
        assert (run.trace is None) == (other.trace is None)
        if run.trace is not None and other.trace is not None:
            assert run.trace.digest() == other.trace.digest()


# -- the same bytes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "keep_traces"),
    [
        ({"seeds": 2, "lr": [0.01, 0.02]}, False),
        (
            {"algorithms": "adsgd,dsgd", "seeds": 2, "lr": "tuned", "tune_grid": (0.1, 0.3), "target": 0.02},
            True,
        ),
    ],
    ids=["steps", "tuned"],
)
def test_with_workers_everything_is_the_same(
    shared: list[PlannedRun], settings: dict[str, Any], keep_traces: bool
) -> None:
    threads = threading.active_count()
    made = plan(**settings)
    several = list(made.runs(keep_traces=keep_traces, workers=3))
    assert shared
    assert threading.active_count() == threads
    same(several, list(made.runs(keep_traces=keep_traces)))


def test_compare_in_python_takes_workers(shared: list[PlannedRun]) -> None:
    result = offbeat.compare(["adsgd", "rfast"], workers=2, **QUICK)
    assert shared
    same([*result.runs], [*offbeat.compare(["adsgd", "rfast"], **QUICK).runs])
    with pytest.raises(SettingError, match="at least one worker; got 0"):
        offbeat.compare(workers=0, **QUICK)
    with pytest.raises(SettingError, match="'workers' must be a whole number"):
        offbeat.compare(workers=1.5, **QUICK)  # type: ignore[arg-type]


def test_crashes_may_be_a_list(shared: list[PlannedRun]) -> None:
    """As the command line has them; what goes to a worker is looked up by its settings there."""
    crashes = {"crash": ["agent 3 at 10 until 20"]} | QUICK
    result = offbeat.compare(["adsgd", "rfast"], workers=2, **crashes)
    assert shared
    same([*result.runs], [*offbeat.compare(["adsgd", "rfast"], **crashes).runs])


def test_what_is_told_of_a_run_is_told_once(shared: list[PlannedRun]) -> None:
    ends, ended = list[str](), list[Run]()

    def progress(name: str, now: float, end: float, curve: Curve) -> None:
        if now >= end:
            ends.append(name)

    def seen(run: Run) -> Run:
        ended.append(run)
        return replace(run, trace=None)

    made = plan(seeds=2)
    runs = list(made.runs(progress, workers=2, on_run=seen))
    assert sorted({name.partition(",")[0] for name in ends}) == sorted(FIVE)
    assert len(ends) == len(ended) == len(runs) == made.count == 10
    assert {run.digest for run in ended} == {run.digest for run in runs}
    assert [(run.algorithm, run.seed) for run in runs] == [(name, seed) for name in FIVE for seed in (0, 1)]
    assert all(run.trace is None for run in runs)


def test_the_longest_is_made_first_and_seeds_lie_side_by_side(shared: list[PlannedRun]) -> None:
    list(plan().runs(workers=2))
    assert shared[0].name == "allreduce"
    assert "rfast" not in {run.name for run in shared}  # this process can begin at once
    by_levels = [batch.runs for batch in batched(plan(seeds=6), 2) if batch.runs[0].name == "adsgd"]
    assert [[run.seed for run in runs] for runs in by_levels] == [[0, 1, 2], [3, 4, 5]]
    (whole,) = (batch.runs for batch in batched(plan(seeds=6), 1) if batch.runs[0].name == "adsgd")
    assert len(whole) == 6


def test_how_far_a_worker_is_can_be_seen(monkeypatch: pytest.MonkeyPatch, short: None) -> None:
    only_workers(monkeypatch)
    monkeypatch.setattr(scheduler, "TICK", 0.01)
    seen = list[tuple[str, float, Curve]]()
    made = plan(["adpsgd", "rfast"], until=1000.0, eval_every=5.0)
    list(made.runs(lambda name, now, end, curve: seen.append((name, now, curve)), workers=2))
    on_the_way = [(name, now, curve) for name, now, curve in seen if now < 1000.0]
    assert {name for name, _, _ in on_the_way} == {"adpsgd", "rfast"}
    assert all(curve.time == [now] and curve.loss[0] > 0 for _, now, curve in on_the_way)
    assert [name for name, now, _ in seen if now == 1000.0] in (["adpsgd", "rfast"], ["rfast", "adpsgd"])


# -- where there are no workers --------------------------------------------------------------------


@pytest.mark.usefixtures("alone")
def test_what_is_soon_done_is_done_alone() -> None:
    assert len(list(plan(seeds=3).runs(workers=8))) == 15


@pytest.mark.usefixtures("alone", "short")
def test_one_batch_or_one_worker_is_done_alone() -> None:
    assert list(plan("dsgd").runs(workers=8))
    assert list(plan().runs(workers=1))


@pytest.mark.usefixtures("alone", "short")
@pytest.mark.parametrize(
    "own",
    [{"topology": nx.petersen_graph()}, {"optimizer": partial(offbeat.Momentum, momentum=0.5)},
     {"compute": offbeat.empirical([1.0, 2.0])}, {"task": random_quadratic(9, np.random.default_rng(0))}],
    ids=["graph", "optimizer", "delays", "task"],
)  # fmt: skip
def test_objects_of_ones_own_stay_in_this_process(own: dict[str, Any]) -> None:
    assert len(list(plan(**own).runs(workers=4))) == 5


def test_what_a_gpu_does_stays_in_this_process() -> None:
    made = plan()
    on_gpu = replace(made, experiment=replace(made.experiment, device="cuda"))
    assert [batch.here for batch in batched(made, 4)] == [False] * 5
    assert [batch.here for batch in batched(on_gpu, 4)] == [True] * 5


def test_an_algorithm_of_ones_own_stays_while_the_others_go(shared: list[PlannedRun]) -> None:
    own = example("memory_efficient").MemoryEfficientADSGD
    made = plan([own, "adsgd", "dsgd", "rfast"])
    runs = list(made.runs(workers=2))
    assert shared
    assert own.__name__ not in {run.name for run in shared}
    same(runs, list(made.runs()))


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
def test_fewer_workers_where_memory_does_not_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte for a run, half a one for the data: of four, three processes need 4 beside what this one
    holds.
    """
    monkeypatch.setattr(machine, "resident", lambda: 5e8)
    some = [replace(batch, seconds=10.0) for batch in batched(plan(), 4)]

    def of(free: float) -> tuple[int, str]:
        monkeypatch.setattr(machine, "available", lambda: free)
        return how_many_workers(some, 3, lambda place, kept: 1e9)

    assert of(float("inf")) == (3, "")
    assert of(5.5e9) == (3, "")
    assert of(5.4e9)[0] == 2
    assert of(4.0e9) == (2, "4.0 GB of memory are free: enough for 3 processes at once, not for 4.")
    assert of(2.4e9) == (0, "2.4 GB of memory are free: enough for one process, not for 4.")


@pytest.mark.usefixtures("alone", "short")
def test_that_memory_does_not_suffice_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    made, notes = plan(), list[str]()
    monkeypatch.setattr(machine, "available", lambda: 1e6)
    assert len(list(made.runs(workers=2, on_notice=notes.append))) == 5
    assert notes == ["0.0 GB of memory are free: enough for one process, not for 2."]


@on_linux
def test_what_this_process_holds_is_known() -> None:
    before = machine.resident()
    data = np.ones(25_000_000)
    assert 1.9e8 < machine.resident() - before < 2.5e8
    assert data.nbytes == 2e8


# -- what goes wrong -------------------------------------------------------------------------------


def test_an_error_of_a_run_arrives(shared: list[PlannedRun], tmp_path: Path) -> None:
    delays = tmp_path / "delays.txt"
    delays.write_text("1\n2\n3\n")
    made = plan(compute=f"file {delays}")
    delays.unlink()
    threads = threading.active_count()
    with pytest.raises(DataError, match=r"There is no file .*delays\.txt"):
        list(made.runs(workers=2))
    assert threading.active_count() == threads


def broken(
    e: Experiment, check: bool, code: Mapping[str, str], batch: Batch[PlannedRun], number: int
) -> list[batches.Sent]:
    raise ContractError("Agent 3 broke promise c.")


def test_a_broken_promise_arrives(shared: list[PlannedRun], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "make_batch", broken)
    with pytest.raises(ContractError, match=r"^Agent 3 broke promise c\.$"):
        list(plan().runs(workers=2))


def only_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process makes nothing while it has workers."""
    take = Scheduler._next
    monkeypatch.setattr(Scheduler, "_next", lambda self: take(self) if self.pool is None else None)


def compared(folder: Path, notices: list[str]) -> tuple[list[str], str]:
    made, runs, error = plan("adsgd,dsgd", seeds=3), list[Run](), ""
    try:
        for run in made.runs(workers=3, on_notice=notices.append):
            runs.append(run)
    except OffbeatError as lost:
        error = str(lost)
    same(runs, [run for run in made.runs() if not error or (run.algorithm, run.seed) != ("adsgd", 1)])
    return [run.digest for run in runs], error


def swept(folder: Path, notices: list[str]) -> tuple[list[str], str]:
    grid = {"fixed": QUICK, "grid": {"algorithm": ["adsgd", "dsgd"], "seed": [0, 1, 2]}}
    failures = sweep(points(grid), folder / "out.parquet", workers=2, on_notice=notices.append)
    digests = pandas.read_parquet(folder / "out.parquet")["digest"]
    return list(digests), "; ".join(f"{each.point.named}: {each.failure}" for each in failures)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("once", [False, True], ids=["always", "once"])
@pytest.mark.parametrize("make", [compared, swept])
def test_a_run_that_kills_its_worker_is_named_and_costs_no_other(
    make: Callable[[Path, list[str]], tuple[list[str], str]],
    once: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A comparison and a sweep: what was running is made again, one at a time; the user is told once."""
    if once:
        monkeypatch.setenv("OFFBEAT_TEST_ONCE", str(tmp_path / "once"))
    monkeypatch.setattr(making, "make_batch", deadly_comparison)
    monkeypatch.setattr(running, "run_batch", deadly_sweep)
    only_workers(monkeypatch)
    threads, notices = threading.active_count(), list[str]()
    digests, error = make(tmp_path, notices)
    assert notices == [scheduler.NOTICE] and threading.active_count() == threads
    assert len(digests) == (6 if once else 5)
    assert ("seed 1: its worker was killed, again when it ran alone" in error) == (not once)


def test_a_comparison_that_is_given_up_leaves_nobody(shared: list[PlannedRun]) -> None:
    threads = threading.active_count()
    runs = plan(seeds=2).runs(workers=2)
    assert isinstance(runs, Iterator)
    next(runs)
    runs.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads


def test_what_no_worker_has_begun_does_not_hold_up_the_end() -> None:
    class Idle:
        width = 1
        died: tuple[type[Exception], ...] = (BrokenProcessPool,)
        begun = Future[Any]()

        def submit(self, work: object, *arguments: object) -> Future[Any]:
            return self.begun

        def restart(self) -> None: ...

        def close(self) -> None:
            self.begun.cancel()

    idle = Scheduler[int, int](Idle(), lambda batch, number: [], print, print, print)
    idle.add([Batch((1,))])
    next(iter(idle))
    assert [batch.runs for batch in idle.running.values()] == [(1,)]
    idle.close()


def test_an_interruption_keeps_what_is_there(shared: list[PlannedRun]) -> None:
    """The runs that a worker has ended before those of this process, which come before them in the plan."""
    arrived, made = list[Run](), plan()

    def ended(run: Run) -> Run:
        arrived.append(run)
        if len(arrived) == 3:
            raise KeyboardInterrupt
        return run

    kept = list[Run]()
    with pytest.raises(KeyboardInterrupt):
        for run in made.runs(workers=2, on_run=ended):
            kept.append(run)
    assert {run.algorithm for run in arrived} <= {run.algorithm for run in kept}
    assert [run.algorithm for run in kept] == [
        name for name in FIVE if name in {run.algorithm for run in kept}
    ]


def test_workers_have_this_process_s_environment_and_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = Processes(1)
    first.submit(
        os.getcwd
    ).result()  # the server that they are forked from is there, with another environment
    first.close()
    monkeypatch.setenv("OFFBEAT_DATA", "some folder")
    monkeypatch.chdir(tmp_path)
    pool = Processes(1)
    assert pool.submit(os.getenv, "OFFBEAT_DATA").result() == "some folder"
    assert pool.submit(os.getcwd).result() == str(tmp_path.resolve())
    pool.close()


def test_sockets_fit_where_the_folder_for_temporary_files_has_a_long_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with forking._short_paths():
        assert tempfile.gettempdir() == "/tmp"
    assert tempfile.gettempdir() == str(long)
    monkeypatch.setattr(forking, "SHORT", ("/no/such/folder",))
    with pytest.raises(SettingError, match="xxx, is too long for the sockets"), forking._short_paths():
        pass
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
    with forking._short_paths():
        assert tempfile.gettempdir() == "/var/tmp"


# -- what is shown ---------------------------------------------------------------------------------


def test_where_there_is_no_terminal_a_line_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    out = StringIO()
    shown = progress.RunsShown(10, console=Console(file=out, width=200))
    for name in ("dsgd", "rfast"):
        shown.on_progress(name, 12_000.0, 12_000.0, Curve(loss=[0.1], accuracy=[0.9]))
    shown.on_progress("adsgd", 3_300.0, 12_000.0, Curve(loss=[0.1], accuracy=[0.85]))
    assert out.getvalue() == ""
    monkeypatch.setattr(progress, "EVERY", 0.0)
    shown.on_progress("adsgd", 3_400.0, 12_000.0, Curve(loss=[0.1], accuracy=[0.852]))
    shown.on_progress("allreduce", 60.0, 12_000.0, Curve(loss=[0.25]))
    shown.on_progress("allreduce", 120.0, 12_000.0, Curve(loss=[float("nan")]))
    shown.on_progress("adsgd", 3_460.0, 12_000.0, Curve(loss=[0.1], accuracy=[0.853]))
    assert out.getvalue().splitlines() == [
        "adsgd, time 3,400 of 12,000, 85.2 %; 2 of 10 runs done",
        "adsgd, time 3,400 of 12,000, 85.2 %; allreduce, time 60 of 12,000, loss 0.25; 2 of 10 runs done",
        "adsgd, time 3,460 of 12,000, 85.3 %; 3 of 10 runs done",
    ]


# -- real processes --------------------------------------------------------------------------------

SHORT = "import offbeat.experiments.batches; offbeat.experiments.batches.WORTH = 0.0"


def parent(pid: int) -> int:
    """The process that has started this one; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def workers_of(leader: int) -> list[int]:
    """The processes that the server of this command has forked."""
    return [pid for pid in session(leader) if parent(parent(pid)) == leader]


def at_work(worker: int) -> bool:
    """Whether this process has become a worker: it has begun the thread that ends it with its parent."""
    try:
        return len([*Path(f"/proc/{worker}/task").iterdir()]) > 1
    except FileNotFoundError:
        return False


def begun(folder: Path, setup: str = WARM_WORKERS) -> Started:
    """A comparison of which a run is finished, with a worker at work."""
    command = ("compare", "--task", "quadratic", "--algorithms", "adpsgd", "--until", "40", "--seeds", "200")
    witness = plant(folder)
    run = start(folder, *command, "--workers", "2", "--json", "out.json", setup=f"{SHORT}; {setup}")
    until(
        lambda: (
            run.poll() is not None
            or (any(map(at_work, workers_of(run.pid))) and ", seed 0: " in run.complained)
        )
    )
    assert run.poll() is None, run.complained
    assert not witness.exists(), "what lies in the current folder runs nowhere"
    return run


@on_linux
def test_no_worker_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    run = begun(tmp_path, setup="")  # with the server that users have
    os.kill(workers_of(run.pid)[0], signal.SIGSTOP)  # it cannot notice by itself
    run.kill()
    assert run.wait() == -signal.SIGKILL
    until(lambda: not session(run.pid), what="workers are left")
    assert not (tmp_path / "out.json").exists()


@on_linux
def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    run = begun(tmp_path)
    os.killpg(run.pid, signal.SIGINT)  # a terminal tells everybody
    assert run.wait() == 130, run.complained
    until(lambda: not session(run.pid), what="workers are left")
    assert "Traceback" not in run.complained
    record = json.loads((tmp_path / "out.json").read_text())
    seeds = [each["seed"] for each in record["runs"]]
    assert record["interrupted"] is True
    assert seeds == sorted(set(seeds))
    assert run.complained.count("adpsgd, seed ") <= len(seeds) < 200
    assert f"adpsgd, seed {seeds[-1]}: " in run.complained


@on_linux
@pytest.mark.parametrize("server", [False, True], ids=["worker", "server"])
def test_when_a_worker_is_killed_the_command_goes_on(tmp_path: Path, server: bool) -> None:
    run = begun(tmp_path)
    (worker,) = workers_of(run.pid)
    if server:
        os.kill(parent(worker), signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    until(lambda: "A worker was killed" in run.complained)
    run.kill(signal.SIGTERM)
    assert run.wait() == 143
    assert "Traceback" not in run.complained
