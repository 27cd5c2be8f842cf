"""Whatever fails while results are made, written or drawn costs none of the others."""

import errno
import re
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pandas
import pytest
from command_line import QUICK, Call, read
from grids import SMALL, text_of
from recorded import simulated
from rich.table import Table
from rich.text import Text

import offbeat
from offbeat.cli import commands
from offbeat.cli import predict as cli_predict
from offbeat.cli.console import CONTROLS, Out
from offbeat.core.errors import ContractError, DiskError, OffbeatError
from offbeat.engines.live.launcher.launch import RunFailed
from offbeat.engines.live.launcher.metrics import Metrics
from offbeat.engines.live.launcher.screen import Screen, shown
from offbeat.experiments import batches
from offbeat.experiments.live.running import ENDED, LiveRun
from offbeat.experiments.runs import Job, run_many
from offbeat.experiments.scheduler import Batch, Scheduler
from offbeat.experiments.sweep import running, store
from offbeat.experiments.sweep.grid import Point, points
from offbeat.experiments.sweep.running import Outcome, run_batch
from offbeat.results import page
from offbeat.results.run import Comparison, Run

TWO = (*QUICK, "--algorithms", "adsgd,dsgd")


def broken(*_: object, **__: object) -> NoReturn:
    raise ValueError("it is broken.")


def full(*_: object, **__: object) -> NoReturn:
    raise OSError(28, "No space left on device")


def test_a_comparison_of_which_no_run_came_to_its_end_is_no_success(call: Call) -> None:
    """All-reduce stops when an agent is lost; beside another algorithm that is a result."""
    crash = (*QUICK, "--crash", "agent 3 at 5")
    alone = call(*crash, "--algorithms", "allreduce", "--quiet")
    assert alone.code == 1 and "Error of allreduce" in alone.err, "what went wrong is said all the same"
    assert call(*crash, "--algorithms", "allreduce,adsgd").code == 0


def test_whose_messages_are_never_lost_is_said(call: Call) -> None:
    said = " ".join(call(*TWO, "--loss", "0.5").out.split())
    assert "Lost are messages of registers alone; what dsgd sends as mail always arrives." in said
    assert "registers" not in call(*TWO).out


@pytest.mark.parametrize(
    ("where", "name"),
    [(page, "page"), (Comparison, "save_json"), (offbeat.Trace, "save"), (Comparison, "label")],
)
def test_an_output_that_fails_costs_none_of_the_others(
    call: Call, monkeypatch: pytest.MonkeyPatch, where: Any, name: str
) -> None:
    """The page, the numbers, the traces, the table (and the page, which shows it)."""
    monkeypatch.setattr(where, name, broken)
    Path("traces").mkdir()
    outcome = call(*TWO, "--json", "out.json", "--report", "out.html", "--traces", "traces")
    assert outcome.code == 1
    assert "ValueError: it is broken." in outcome.said and "Traceback" not in outcome.err
    wanted = {
        "table": "adsgd " in outcome.out,
        "json": Path("out.json").exists(),
        "html": Path("out.html").exists(),
    }
    failed = {"page": {"html"}, "save_json": {"json"}, "save": set[str](), "label": {"table", "html"}}[name]
    assert {what for what, there in wanted.items() if not there} == failed
    assert len([*Path("traces").iterdir()]) == (0 if name == "save" else 2)
    assert "Cannot print" in outcome.said if name == "label" else "Cannot write" in outcome.said


def test_a_run_that_fails_costs_none_of_those_before(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def second(jobs: Sequence[Job], *rest: Any) -> Iterator[Run]:
        for number, run in enumerate(run_many(jobs, *rest)):
            yield run
            if number:
                raise ContractError("a promise is broken")

    monkeypatch.setattr(batches, "run_many", second)
    outcome = call(*QUICK, "--algorithms", "dsgd", "--seeds", "3", "--json", "out.json")
    assert (outcome.code, outcome.said.count("a promise is broken")) == (1, 1) and "dsgd " in outcome.out
    assert [run["seed"] for run in read("out.json")["runs"]] == [0, 1]


def test_progress_that_cannot_be_shown_ends_nothing(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error on a full disk."""
    with monkeypatch.context() as patched, Path("/dev/full").open("w") as disk:
        patched.setattr("sys.stderr", disk)
        outcome = call(*TWO, "--json", "out.json")
    assert outcome.code == 0 and len(read("out.json")["runs"]) == 2


@pytest.mark.parametrize("whole", [True, False])
def test_a_live_run_that_fails_costs_none_of_those_before(
    call: Call, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """Nor does one whose results could not be written, which is an error."""
    made = offbeat.compare("adsgd", task="quadratic", agents=4, topology="ring", until=5).runs[0]

    def run(self: LiveRun, *_: object) -> tuple[Run, int]:
        if self.spec.name == "dsgd":
            raise RunFailed("agent 1 died")
        if whole:
            (self.folder / ENDED).touch()
        return made, 0

    monkeypatch.setattr(LiveRun, "run", run)
    outcome = call(
        "live", "--task", "quadratic", "--algorithms", "adsgd,dsgd", "--until", "5", "--json", "out.json"
    )
    assert (outcome.code, "agent 1 died" in outcome.said) == ((1, True) if whole else (74, False))
    assert whole or "not the whole run" in outcome.said
    assert "adsgd " in outcome.out and [run["algorithm"] for run in read("out.json")["runs"]] == ["adsgd"]


def test_numbers_of_a_prediction_that_cannot_be_written_cost_no_table(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated("adsgd")[1].save("trace.npz")
    monkeypatch.setattr(cli_predict, "write_atomically", full)
    outcome = call("predict", "trace.npz", "--json", "out.json")
    assert outcome.code == 1 and "asked for" in outcome.out
    assert "Cannot write out.json: No space left on device." in outcome.said


@pytest.mark.parametrize("when", ["midst", "end"])
def test_an_error_of_a_sweep_hides_no_failure_and_costs_no_row(
    call: Call, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """In the midst of it, and while its table is written."""
    Path("tiny.toml").write_text(text_of(SMALL))

    class Scripted(Scheduler[Point, Outcome]):
        def __iter__(self) -> Iterator[None]:
            first, *others = points(SMALL)[:3]
            self.on_failure(Batch((first,)), OffbeatError("it was killed"))
            batch = Batch(tuple(others))
            for point, outcome in zip(others, run_batch(batch), strict=True):
                self.on_result(batch, point, outcome)
                yield
            if when == "midst":
                raise ContractError("no space")

    monkeypatch.setattr(running, "Scheduler", Scripted)
    monkeypatch.setattr(running, "Processes", lambda *_: SimpleNamespace(close=lambda: None))
    if when == "end":
        monkeypatch.setattr(store, "write_parquet", full)
    outcome = call("sweep", "tiny.toml")
    assert outcome.code == {"midst": ContractError.exit_code, "end": DiskError.exit_code}[when]
    assert "Failed: algorithm adsgd, case base, seed 0: it was killed" in outcome.said
    assert "2 of 8 runs are done." in outcome.out and "no space" in outcome.said.lower()
    assert len([*Path("tiny.parquet.runs").glob("*.run")]) == 2
    assert when == "end" or len(pandas.read_parquet("tiny.parquet")) == 2


ESCAPE = "\x1b[31m\x9b2J\x07\x00"


@pytest.mark.parametrize("what", [Text(f"a {ESCAPE} b\udcff\tc"), f"a {ESCAPE} b\udcff\tc", "table"])
def test_nothing_that_is_shown_is_obeyed_by_the_terminal(what: Any) -> None:
    if what == "table":
        what = Table("a", "b")
        what.add_row(Text(ESCAPE), "b\udcff")
    out = Out()
    out.file = StringIO()
    out.print(what, style="bold")
    said = out.file.getvalue()
    assert "\\x1b[" in said and "b\\" in said  # a cell of a table is cut
    assert not CONTROLS.search(said)


def test_in_a_pipe_no_line_is_padded_and_errors_are_the_first_line(call: Call) -> None:
    made = call(*TWO, "--out", "kept", "--workers", "1")
    assert made.code == 0 and "consensus" in made.out
    assert not re.search(r"[ \t]$", made.out + made.err + str(offbeat.load("kept")), re.MULTILINE)
    assert "\n\n" not in made.err and "\n\n\n" not in made.out
    for words in ((*TWO, "--lr", "0.02", "--out", "kept"), (*QUICK, "--algorithms", "mine.py:Lazy(h=0)")):
        assert call(*words).err.startswith("Error: ")


def test_names_files_and_scripts_cannot_write_to_the_terminal_past_us(call: Call, tmp_path: Path) -> None:
    outcome = call("sweep", f"{ESCAPE[:5]}.toml")
    Path("grid.toml").write_text('[fixed]\ntask = "\\u001b[31m"\n[grid]\nseed = [0]\nalgorithm = ["adsgd"]\n')
    for each in (outcome, call("sweep", "grid.toml")):
        assert each.code == 2 and "\\x1b[31m" in each.err, each.err
        assert not CONTROLS.search(each.out + each.err)
    err, out = Out(stderr=True), Out()
    err.file, out.file = StringIO(), StringIO()
    with Screen(err, out) as screen, shown(screen, Metrics(tmp_path)) as (say, _):
        say(1, f"loss {ESCAPE}")
    assert out.file.getvalue() == "[1] loss \\x1b[31m\\x9b2J\\x00\n"


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (OSError(errno.EMFILE, "x"), "Error: Too many open files. Raise the limit ('ulimit -n' shows it", 74),
        (
            OSError(errno.EROFS, "x", "/dev/shm/bell"),
            "Error: /dev/shm/bell: Read-only file system. Name a folder",
            74,
        ),
        (OSError(errno.ENOSPC, "x", "a.json"), "Error: a.json: No space left on device. Make room there", 74),
        (OSError(errno.EAGAIN, "x"), "The system allows no more processes", 74),
        (OSError(errno.ENOSPC, "x"), "Error: Cannot print: x.", 1),
    ],
)
def test_an_error_of_the_system_says_what_failed_and_not_that_nothing_can_be_printed(
    error: OSError, said: str, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: object) -> None:
        raise error

    monkeypatch.setattr(commands, "app", fails)
    monkeypatch.setattr("os.dup2", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert ended.value.code == code
    assert said in capfd.readouterr().err
