"""Sweeps: what a grid may say, what a row holds, and that a sweep goes on where it stopped, to the same
bytes.
"""

import os
import signal
import sys
import tomllib
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pandas
import pytest
from command_line import Call
from deadly import deadly_sweep
from grids import SMALL, text_of
from user_scripts import EXAMPLES
from warm import WARM_WORKERS, Started, on_linux, session, start, until

from offbeat import tasks
from offbeat.algorithms import USUAL, find
from offbeat.cli import sweep as cli_sweep
from offbeat.core.errors import DataError, DiskError, SettingError
from offbeat.core.settings import declared
from offbeat.core.system.files import write_atomically
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.runs import Job, run_one
from offbeat.experiments.setup import prepare
from offbeat.experiments.sweep import rows as kept_rows
from offbeat.experiments.sweep import running
from offbeat.experiments.sweep.grid import Point, points, read_grid
from offbeat.experiments.sweep.running import SweepProgress, sweep
from offbeat.experiments.sweep.store import COLUMNS, Store, row_of
from offbeat.results.run import Run
from offbeat.tasks.task import Task
from offbeat.world.world import CASES


def with_seeds(*seeds: int) -> dict[str, Any]:
    return SMALL | {"grid": SMALL["grid"] | {"seed": list(seeds)}}


# -- the grid --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "No algorithm is named"),
        ("[fixed", "expected a TOML file with a grid"),
        ("[fixed]\ntask = 'digits'", "No algorithm is named"),
        ("task = 'digits'", "'task' stands outside of the tables"),
        ("[fixd]\nalgorithm = 'adsgd'", "Unknown table 'fixd'. Did you mean 'fixed'?"),
        ("fixed = 3", "'fixed' must be a table"),
        ("grid = [1]", "'grid' must be a table"),
        ("[fixed]\nalgorithm = 'adsgdd'", "Did you mean 'adsgd'?"),
        ("[fixed]\nalgorithm = 'kungurtsev:fast'", "has no options"),
        ("[fixed]\nalgorithm = 3", "'algorithm' must be text; got 3"),
        ("[fixed]\nalgorithm = ['adsgd']", "'algorithm' must be text"),
        ("[fixed]\nalgorithm = 'adsgd'\nskwe = 1", "Unknown setting 'skwe'. Did you mean 'skew'?"),
        ("[fixed]\nalgorithm = 'adsgd'\nseeds = 3", "Unknown setting 'seeds'. Did you mean 'seed'?"),
        ("[fixed]\nalgorithm = 'adsgd'\n[grid]\nskw = [1]", "Unknown setting 'skw'"),
        ("[fixed]\nalgorithm = 'adsgd'\nagents = 4.0", "'agents' must be a whole number; got 4.0"),
        ("[fixed]\nalgorithm = 'adsgd'\nagents = true", "'agents' must be a whole number; got True"),
        ("[fixed]\nalgorithm = 'adsgd'\nskew = '1'", "'skew' must be a number; got '1'"),
        ("[fixed]\nalgorithm = 'adsgd'\nuntil = inf", "'until' must be finite"),
        ("[fixed]\nalgorithm = 'adsgd'\nuntil = -1", "must end at a finite time > 0"),
        ("[fixed]\nalgorithm = 'adsgd'\nlr = nan", "'lr' must be finite"),
        ("[fixed]\nalgorithm = 'adsgd'\nlr = 0", "A learning rate is a finite number > 0"),
        ("[fixed]\nalgorithm = 'adsgd'\n[grid]\nlr = [0.1, -1]", "The point 'lr -1.0': A learning rate is"),
        ("[fixed]\nalgorithm = 'adsgd'\nlr = 'tuned'", "A sweep does not tune"),
        ("[fixed]\nalgorithm = 'adsgd'\n[grid]\nlr = ['tuned']", "A sweep does not tune"),
        ("[fixed]\nalgorithm = 'adsgd'\ncompute = 'gamm 1'", "Did you mean 'gamma'?"),
        ("[fixed]\nalgorithm = 'adsgd'\ncompute = 'file nowhere.csv'", "nowhere.csv"),
        ("[fixed]\nalgorithm = 'adsgd'\ncrash = 3", "'crash' must be text"),
        ("[fixed]\nalgorithm = 'adsgd'\ncrash = 'agent x'", "Cannot read the crash 'agent x'"),
        ("[fixed]\nalgorithm = 'adsgd'\ncrash = 'agent 9 at 1'", "There is no agent 9"),
        ("[fixed]\nalgorithm = 'adsgd'\nseed = -1", "seed"),
        ("[fixed]\nalgorithm = 'adsgd'\nexecutor = 'batch'", "Did you mean 'batched'?"),
        ("[fixed]\nalgorithm = 'adsgd'\ntask = 'digit'", "Did you mean 'digits'?"),
        ("[fixed]\nalgorithm = 'adsgd'\ntopology = 'gird'", "Did you mean 'grid'?"),
        ("[fixed]\nalgorithm = 'adsgd'\n[grid]\nskew = 1", "'skew' in [grid] must be a list; got 1"),
        ("[fixed]\nalgorithm = 'adsgd'\n[grid]\nskew = []", "'skew' has an empty list"),
        ("[fixed]\nalgorithm = 'adsgd'\n[grid]\nskew = [1, 0, 1.0]", "'skew' lists 1.0 twice"),
        (
            "[fixed]\nalgorithm = 'adsgd'\n[grid]\ncompute = ['gamma', 'gamma 0.25']",
            "'compute' lists 'gamma 0.25' twice",
        ),
        ("[grid]\nalgorithm = ['adsgd', 'ADSGD']", "'algorithm' lists 'ADSGD' twice"),
        (
            "[fixed]\nalgorithm = 'adsgd'\nskew = 1\n[grid]\nskew = [0]",
            "'skew' is given twice, in [fixed] and in [grid]",
        ),
        ("[fixed]\nalgorithm = 'adsgd'\nalgorithm = 'dsgd'", "expected a TOML file with a grid"),
        (
            "[fixed]\nalgorithm = 'adsgd'\n[lr]\nrfast = 0.1",
            "[lr] has a learning rate for 'rfast', which is not in the grid: adsgd",
        ),
        ("[fixed]\nalgorithm = 'adsgd'\n[lr]\nadsgdd = 0.1", "Did you mean 'adsgd'?"),
        ("[fixed]\nalgorithm = 'adsgd'\n[lr]\nadsgd = []", "'lr' has an empty list"),
        ("[fixed]\nalgorithm = 'adsgd'\n[lr]\nadsgd = 0.1\nADSGD = 0.2", "[lr] names adsgd twice"),
        ("[fixed]\nalgorithm = 'adsgd'\n[lr]\nadsgd = '0.1'", "'lr' must be a number"),
        (
            "[fixed]\nalgorithm = 'adsgd'\ncase = 'combined'\n[grid]\nstraggler = [3, 9]",
            "The point 'straggler 9'",
        ),
        (
            "[grid]\nalgorithm = ['adpsgd', 'adpsgd:atomic']\ntopology = ['ring']",
            "The point 'algorithm adpsgd:atomic",
        ),
        (
            "[fixed]\nalgorithm = 'adsgd'\n[grid]\ncrash = [[], '1 at 5', ['agent 1 at 5']]",
            "'crash' lists ['agent 1 at 5'] tw",
        ),
        (
            "[fixed]\nalgorithm = 'adsgd'\ncase='base'\n[grid]\ndata = ['a', 'b']\nskew = [2]",
            "The point 'data a, skew 2.0'",
        ),
        (
            "[fixed]\nalgorithm = 'adsgd'\ntask = 'digits'\n[grid]\nuntil = [20000]\ntarget = [0.9, 2]",
            "The target must be",
        ),
        (
            "[fixed]\nalgorithm = 'adsgd'\ncase = 'combined'\nagents = 1\n[grid]\nseed = "
            + str(list(range(100_001))),
            "The grid has more than 100,000 points",
        ),
    ],
)
def test_what_makes_no_sense_is_one_paragraph_before_anything_runs(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(text)
    with pytest.raises(DataError if "nowhere" in text or "a TOML file" in said else SettingError) as error:
        read_grid(file)
    assert str(file) in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_order_is_that_of_the_file_and_steps_are_those_of_compare() -> None:
    found = points(
        {
            "fixed": {"task": "quadratic", "agents": 4, "until": 20},
            "grid": {"seed": [1, 0], "lr": [0.03, 0.01], "algorithm": ["rfast", "adsgd", "dsgd:after"]},
            "lr": {"DSGD:after": 0.2},
        }
    )
    one = [("rfast", 0.12), ("rfast", 0.04), ("adsgd", 0.03), ("adsgd", 0.01), ("dsgd:after", 0.2)]
    assert [(p.seed, p.algorithm, p.lr) for p in found] == [(seed, *each) for seed in (1, 0) for each in one]
    assert found[0].named == "seed 1, algorithm rfast, lr 0.03"
    assert len({p.key for p in found}) == 10


def test_the_key_is_of_what_is_run_and_not_of_how_it_is_written(tmp_path: Path) -> None:
    def key(**fixed: Any) -> str:
        (point,) = points({"fixed": {"task": "quadratic", "algorithm": "adsgd"} | fixed})
        return point.key

    plain = key()
    assert plain == key(
        agents=9, until=1000, lr=0.01, skew=1, seed=0, compute="gamma", crash=[], topology="grid"
    )
    assert key(case="combined") == key(case="combined", straggler=4)
    others = [
        key(seed=1),
        key(lr=0.02),
        key(target=0.5),
        key(loss=0.1),
        key(crash="1 at 5"),
        key(algorithm="dsgd"),
    ]
    assert len({plain, *others}) == 7
    delays = tmp_path / "delays.txt"
    delays.write_text("1\n2\n3\n")
    measured = key(compute=f"file {delays}")
    delays.write_text("1\n2\n4\n")
    assert key(compute=f"file {delays}") != measured


def test_hundreds_of_worlds_are_checked_with_one_task_each(monkeypatch: pytest.MonkeyPatch) -> None:
    built, build = list[Task](), tasks.build

    def noted(*given: Any, **more: Any) -> Task:
        built.append(build(*given, **more))
        return built[-1]

    monkeypatch.setattr(tasks, "build", noted)
    found = points({"fixed": {"algorithm": "adsgd"}, "grid": {"seed": list(range(100)), "skew": [0, 1.0]}})
    assert len({point.key for point in found}) == 200
    assert len(built) == 2


def test_the_examples_are_what_they_say() -> None:
    evaluation = tomllib.loads((EXAMPLES / "mnist-evaluation.toml").read_text())
    assert evaluation["grid"] == {"skew": [0, 0.5, 1], "case": list(CASES), "algorithm": list(USUAL)}
    digits = evaluation | {"fixed": evaluation["fixed"] | {"task": "digits"}}
    assert len(points(digits)) == 75
    lines = (line.replace("\\[", "[").strip() for line in (cli_sweep.sweep.__doc__ or "").splitlines())
    example = [line for line in lines if line.startswith("[") or " = " in line]
    assert len(points(tomllib.loads("\n".join(example)))) == 30


# -- rows ------------------------------------------------------------------------------------------


def test_a_row_is_the_run_and_pandas_reads_it(tmp_path: Path) -> None:
    grid = points(tomllib.loads((EXAMPLES / "small.toml").read_text()))
    out = tmp_path / "small.parquet"
    assert sweep(grid, out, workers=2) == []
    frame = pandas.read_parquet(out)
    assert list(frame.columns) == list(COLUMNS)
    assert set(COLUMNS) >= {*declared(Experiment)}
    assert list(frame["key"]) == [point.key for point in grid]
    for place in (0, 11):
        point, row = grid[place], frame.iloc[place]
        p = prepare(point.experiment, point.seed)
        run = run_one(Job(p, find(point.algorithm), point.lr))
        assert row["digest"] == run.digest
        assert (row["algorithm"], row["case"], row["seed"]) == (run.algorithm, run.settings["case"], run.seed)
        assert (row["updates"], row["messages"], row["megabytes"]) == (
            run.updates,
            run.messages,
            run.megabytes,
        )
        assert row["final_accuracy_worst"] == run.final["accuracy_worst"]
        assert row["staleness_B"] == run.staleness.B
        for name, values in run.curve.columns().items():
            assert list(row[f"curve_{name}"]) == values
    assert frame.groupby("algorithm")["lr"].first().to_dict() == {"adsgd": 0.01, "dsgd": 0.01, "rfast": 0.05}


def test_further_metrics_are_columns_behind_the_others(tmp_path: Path) -> None:
    grid = points({"fixed": {"task": "quadratic", "until": 5.0}, "grid": {"algorithm": ["adsgd", "dsgd"]}})
    kept = Store(tmp_path / "a.parquet")
    rows = [row_of(point, run_of_point(point)) for point in grid]
    run = run_of_point(grid[1])
    halves = [loss / 2 for loss in run.curve.loss]
    final = run.final | {"half": halves[-1]}
    with kept.locked():
        kept.write(grid[0].key, rows[0])
        kept.write_table(grid)
        plain = pandas.read_parquet(kept.out)
        more = replace(run, curve=replace(run.curve, more={"half": halves}), final=final)
        kept.write(grid[1].key, row_of(grid[1], more))
        assert kept.write_table(grid) == 2
    frame = pandas.read_parquet(kept.out)
    usual = ["final_to_optimum", "final_to_limit", "curve_to_optimum", "curve_to_limit"]
    assert list(plain.columns) == [*COLUMNS, *usual]
    assert {*frame.columns} == {*COLUMNS, *usual, "final_half", "curve_half"}
    assert list(frame["curve_half"][1]) == halves and frame["final_half"][1] == halves[-1]
    assert frame["curve_half"][0] is None and pandas.isna(frame["final_half"][0])


def run_of_point(point: Point) -> Run:
    return run_one(Job(prepare(point.experiment, point.seed), find(point.algorithm), point.lr))


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    grid = points({"fixed": {"task": "quadratic", "algorithm": "adsgd", "lr": 1e30}})
    assert sweep(grid, tmp_path / "a.parquet") == []
    row = pandas.read_parquet(tmp_path / "a.parquet").iloc[0]
    assert row["diverged_at"] > 0
    assert pandas.isna(row["final_loss"])
    assert pandas.isna(row["final_accuracy"])


# -- going on --------------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the runs that are made."""
    keys: list[str] = []
    write = Store.write

    def noted(self: Store, key: str, row: dict[str, Any]) -> None:
        keys.append(key)
        write(self, key, row)

    monkeypatch.setattr(Store, "write", noted)
    return keys


def test_what_is_done_is_skipped_and_what_is_new_is_run(tmp_path: Path, made: list[str]) -> None:
    out, told = tmp_path / "a.parquet", list[SweepProgress]()
    assert sweep(points(SMALL), out) == []
    first = out.read_bytes()
    assert sorted(made) == sorted(point.key for point in points(SMALL))
    made.clear()
    assert sweep(points(SMALL), out) == []
    assert made == []
    assert out.read_bytes() == first
    longer = points(with_seeds(2, 0, 1))
    assert sweep(longer, out, on_progress=told.append) == []
    assert sorted(made) == sorted(point.key for point in longer if point.seed == 2)
    assert told[0] == SweepProgress(12, 8)
    assert (told[-1].done, told[-1].failed) == (12, 0)
    assert list(pandas.read_parquet(out)["seed"]) == [2, 0, 1] * 4
    assert sweep(points(SMALL), out) == []
    assert out.read_bytes() == first


def test_a_damaged_or_foreign_file_is_run_again(tmp_path: Path, made: list[str]) -> None:
    out, grid = tmp_path / "a.parquet", points(SMALL)
    sweep(grid, out)
    first = out.read_bytes()
    files = [Store(out).folder / f"{point.key}.run" for point in grid]
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: len(whole) // 2])
    files[1].write_bytes(whole)  # of another key
    files[2].write_bytes(b"")
    files[3].write_bytes(b"\xff\x00")
    files[4].write_bytes(files[4].read_bytes().replace(b'"dsgd"', b'"bsgd"'))
    files[5].unlink()
    os.mkfifo(files[5])
    other, table = tmp_path / "other", Store(out).folder / ".offbeat-table"
    other.write_bytes(files[6].read_bytes() + b"and more")
    for link in (files[6], table):
        link.unlink(missing_ok=True)
        link.symlink_to(other)
    files[7].unlink()
    files[7].mkdir()
    (Store(out).folder / "notes.txt").write_text("mine")
    (Store(out).folder / ".offbeat-left").write_text("of one that was killed")
    made.clear()
    assert sweep(grid, out) == []
    assert sorted(made) == sorted(point.key for point in grid[:8])
    assert files[7].with_suffix(".foreign").is_dir()
    assert out.read_bytes() == first
    assert other.read_bytes().endswith(b"and more"), "links lead nowhere"
    assert (Store(out).folder / "notes.txt").exists()
    assert not (Store(out).folder / ".offbeat-left").exists()


def test_two_sweeps_at_once_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    with Store(out).locked(), pytest.raises(SettingError, match=r"Another sweep is writing .*a\.parquet"):
        sweep(points(SMALL), out)
    lock, mine = Store(out).folder / ".lock", tmp_path / "mine"
    mine.write_text("mine")
    assert not lock.parent.exists(), "a sweep that makes no run leaves nothing behind"
    lock.parent.mkdir()
    lock.symlink_to(mine)
    with pytest.raises(DiskError, match="Cannot lock"):
        sweep(points(SMALL), out)
    assert mine.read_text() == "mine", "a link is not written through"
    lock.unlink()
    lock.touch()
    assert sweep(points(SMALL), out) == []  # the file that is left locks nobody out


def test_a_run_that_fails_stops_no_other_and_is_tried_again(tmp_path: Path) -> None:
    delays, out = tmp_path / "delays.txt", tmp_path / "a.parquet"
    delays.write_text("1\n2\n3\n")
    grid = points(SMALL | {"grid": SMALL["grid"] | {"compute": ["gamma", f"file {delays}"]}})
    delays.unlink()
    failures = sweep(grid, out)
    assert {failure.point.key for failure in failures} == {p.key for p in grid if "file" in p.named}
    assert len(failures) == 8
    assert "There is no file" in failures[0].failure
    assert len(pandas.read_parquet(out)) == 8
    delays.write_text("1\n2\n3\n")
    assert sweep(grid, out) == []
    assert len(pandas.read_parquet(out)) == 16


def test_a_full_disk_is_said_and_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, numbers = tmp_path / "a.parquet", count()

    def full(path: Path, content: bytes) -> None:
        if next(numbers) == 3:
            raise OSError(28, "No space left on device", str(path))
        write_atomically(path, content)

    monkeypatch.setattr(kept_rows, "write_atomically", full)
    with pytest.raises(DiskError, match=r"No space left on device.*same command again"):
        sweep(points(SMALL), out)
    assert len(pandas.read_parquet(out)) == 3
    assert sweep(points(SMALL), out) == []
    assert next(numbers) == 9


# -- the command -----------------------------------------------------------------------------------


def test_the_command_says_what_it_does(call: Call) -> None:
    Path("tiny.toml").write_text(text_of(SMALL))
    dry = call("sweep", "tiny.toml", "--dry-run")
    assert "8 runs: 0 done, 8 to do." in dry.out
    assert "algorithm adsgd, case base, seed 0" in dry.out
    assert not Path("tiny.parquet.runs").exists()
    done = call("sweep", "tiny.toml", "--workers", "1")
    assert (done.code, done.out) == (0, "8 of 8 runs are done. Written: tiny.parquet\n")
    assert "4 of 8 runs done" in done.err
    assert "8 runs: 8 done, 0 to do." in call("sweep", "tiny.toml", "--dry-run").out
    silent = call("sweep", "tiny.toml", "--quiet", "--out", "tiny.parquet")
    assert (silent.code, silent.out, silent.err) == (0, "", "")


def test_the_command_refuses(call: Call) -> None:
    Path("delays.txt").write_text("1\n2\n3\n")
    Path("tiny.toml").write_text("[fixed]\nalgorithm = 'adsgd'\n[grid]\nskew = []")
    assert "empty list" in call("sweep", "tiny.toml").refused().said
    assert "There is no file nowhere.toml" in call("sweep", "nowhere.toml").refused().said
    Path("tiny.toml").write_text(text_of(SMALL))
    assert "over the grid" in call("sweep", "tiny.toml", "--out", "tiny.toml").refused().said
    assert "Cannot write" in call("sweep", "tiny.toml", "--out", "nowhere/a.parquet").refused().said
    assert "at least one worker" in call("sweep", "tiny.toml", "--workers", "0", "-q").refused().said


def test_failures_are_listed_and_the_exit_code_is_1(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("tiny.toml").write_text(text_of(SMALL))
    monkeypatch.setattr(running, "run_batch", deadly_sweep)
    outcome = call("sweep", "tiny.toml", "--workers", "1")
    assert outcome.code == 1
    assert "Failed: algorithm adsgd, case base, seed 1: its worker was killed" in outcome.said
    assert "The same command tries these again." in outcome.said
    assert "6 of 8 runs are done" in outcome.out


SLOW = {"fixed": {"task": "quadratic", "until": 20, "algorithm": "adpsgd"}, "grid": {"seed": list(range(8))}}
"""Eight runs, in two batches."""

HELD = f"""
{WARM_WORKERS}
import time
from offbeat.experiments.sweep import running

make, begun = running.run_batch, []

def run_batch(batch, number=0):
    begun.append(batch)
    while len(begun) > 1:
        time.sleep(60)
    return make(batch, number)

run_batch.__module__, run_batch.__qualname__ = make.__module__, make.__qualname__
running.run_batch = run_batch
"""
"""A setup with which a worker makes one batch, and the next takes as long as nobody ends it."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The table of a sweep that nobody disturbed."""
    out = tmp_path_factory.mktemp("undisturbed") / "slow.parquet"
    assert sweep(points(SLOW), out, workers=2) == []
    return out.read_bytes()


def begun(folder: Path) -> Started:
    """A sweep of which a run is finished."""
    (folder / "slow.toml").write_text(text_of(SLOW))
    run = start(folder, "sweep", "slow.toml", "--workers", "1", setup=HELD)
    until(lambda: len(finished(folder)) > 0 or run.poll() is not None)
    assert run.poll() is None, run.complained
    return run


def finished(folder: Path) -> list[Path]:
    return list(folder.glob("slow.parquet.runs/*.run"))


@on_linux
def test_after_sigkill_it_goes_on_to_the_same_bytes(tmp_path: Path, undisturbed: bytes) -> None:
    run = begun(tmp_path)
    run.kill()
    assert run.wait() == -signal.SIGKILL
    until(lambda: not session(run.pid), what="workers are left")
    assert 0 < len(finished(tmp_path)) < 8
    assert not (tmp_path / "slow.parquet").exists()
    assert sweep(points(SLOW), tmp_path / "slow.parquet", workers=2) == []
    assert (tmp_path / "slow.parquet").read_bytes() == undisturbed


@on_linux
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_keeps_what_is_finished(
    tmp_path: Path, undisturbed: bytes, number: signal.Signals, code: int
) -> None:
    run = begun(tmp_path)
    if number == signal.SIGINT:
        os.killpg(run.pid, number)  # a terminal tells everybody
    else:
        run.kill(number)
    assert run.wait() == code, run.complained
    until(lambda: not session(run.pid), what="workers are left")
    assert "Traceback" not in run.complained
    done = len(finished(tmp_path))
    assert 0 < done < 8
    assert f"Stopped. {done} of 8 runs are done, and are in slow.parquet." in run.complained
    assert len(pandas.read_parquet(tmp_path / "slow.parquet")) == done
    assert sweep(points(SLOW), tmp_path / "slow.parquet", workers=2) == []
    assert (tmp_path / "slow.parquet").read_bytes() == undisturbed


# -- Ray -------------------------------------------------------------------------------------------


def test_without_ray_it_says_what_to_install(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    Path("tiny.toml").write_text(text_of(SMALL))
    assert "pip install 'offbeat[ray]'" in call("sweep", "tiny.toml", "--ray", "auto", "-q").refused().said
    assert [path.name for path in Path().iterdir()] == ["tiny.toml"], (
        "a sweep that is refused leaves nothing behind"
    )
