"""The command line: what it prints and writes, what it refuses, and what it keeps when it is interrupted."""

import gzip
import inspect
import io
import os
import re
import runpy
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm
from command_line import QUICK, Call, Outcome, digests, read
from data_files import idx, small_set
from warm import on_linux

import offbeat
from offbeat.algorithms import USUAL
from offbeat.cli import compare as cli
from offbeat.cli.commands import COMMANDS, listed, loaded
from offbeat.core.errors import ContractError
from offbeat.core.settings import WORLD, declared
from offbeat.core.system import machine
from offbeat.experiments import batches, comparison, keeping, memory
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.runs import run_many
from offbeat.world.delays import FAMILIES, parse

KEYS = {
    "algorithm", "task", "case", "agents", "topology", "skew", "lr", "batch", "seed", "until", "target",
    "time_to_target", "updates", "messages", "megabytes", "staleness", "final", "curve", "digest",
}  # fmt: skip


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is refused must be refused before the first run."""

    def run(*_: object, **__: object) -> None:
        raise AssertionError("something was run")

    monkeypatch.setattr(batches, "run_many", run)


# -- what is refused -------------------------------------------------------------------------------

REFUSED = [
    # names, with the nearest that there is
    ("--task digit", "Unknown task 'digit'. Did you mean 'digits'?"),
    ("--task MNIST", "Did you mean 'mnist'?"),
    ("--algorithms adsgd,adsdg", "Unknown algorithm 'adsdg'. Did you mean 'adsgd'?"),
    ("--algorithms adsgd,", "A name is missing"),
    ("--algorithms ''", "A name is missing"),
    ("--algorithms dsgd:", "A name is missing"),
    ("--algorithms rfast,rfast", "named twice: rfast, rfast"),
    ("--algorithms all:theta=1", "'all' is the whole table: it takes no options"),
    ("--algorithms all,adsgd", "and no other name beside it"),
    ("--momentum 1.5", "--optimizer momentum:0.9, or nesterov:0.9"),
    ("--algorithms adsgd:theta=0.5:theta=0.6", "'adsgd'; expected local_steps=..., theta=..., + between."),
    ("--algorithms adsgd:theta=0.5:2", "Did you mean 'adsgd:theta=0.5+local_steps=2'?"),
    ("--algorithms adsgd:local_steps=2+theta=0.5:0.6", "the algorithm 'adsgd'; expected local_steps="),
    ("--optimizer momentum:0.9:0.5", "; expected momentum="),
    ("--algorithms adsgd:local_steps=1e3", "a whole number, at least 1, as in 'adsgd:local_steps=1'; got '1"),
    ("--algorithms adsgd:local_steps=True", "got 'True'"),
    ("--agents 1 --topology torus", "1 agent makes no torus"),
    ("--algorithms dsgd:aftr", "Did you mean 'after'?"),
    ("--algorithms kungurtsev:overlap", "kungurtsev has no options"),
    ("--algorithms adpsgd:atomic --topology complete", "bipartite"),
    ("--topology gird", "Unknown topology 'gird'. Did you mean 'grid'?"),
    ("--topology ring:3", "'ring:3' has a colon"),
    ("--topology grid:2x5 --agents 9", "agents has 9, topology has 10"),
    ("--topology grid:2by6", "expected rows x columns"),
    ("--topology random-regular:x", "degree"),
    ("--topology erdos-renyi:nan", "probability"),
    ("--topology erdos-renyi:0.0001", "None of 100 draws"),
    ("--case combine", "Unknown case 'combine'. Did you mean 'combined'?"),
    ("--compute gama", "Unknown delay distribution 'gama'. Did you mean 'gamma'?"),
    ("--communication lognorml", "Did you mean 'lognormal'?"),
    ("--executor event-by", "Did you mean 'event-by-event'?"),
    ("--target 90%", "Write 0.9."),
    ("--target accuracy=90%", "Write accuracy=0.9."),
    ("--lr 0,01", "A comma separates rates: write 0.01, not 0,01."),
    ("--schedule step:5:0.5", "Did you mean 'step:5+factor=0.5'?"),
    # how many agents
    ("--agents 0", "at least one agent; got 0"),
    ("--agents -1", "at least one agent; got -1"),
    ("--agents 7", "7 agents make no grid"),
    ("--agents 1439 --topology ring --task digits", "1438 samples over 1439 agents"),
    ("--topology random-regular", "Use 8 or 10 agents"),
    ("--case combined --straggler 9", "no agent 9 to be the straggler: with 9 agents they are 0 to 8"),
    ("--case combined --straggler -1", "no agent -1"),
    # times
    ("--until 0", "finite time > 0; got until = 0"),
    ("--until -1", "got until = -1"),
    ("--until nan", "got until = nan"),
    ("--until inf", "got until = inf"),
    ("--eval-every 0", "time between evaluations"),
    ("--eval-every -1", "time between evaluations"),
    ("--eval-every nan", "time between evaluations"),
    ("--eval-every 21", "(0, 20]; got 21"),
    ("--eval-every 1e-320", "evaluations"),
    # targets
    ("--target nan", "target"),
    ("--target inf", "target"),
    ("--task digits --target nan", "target"),
    ("--task digits --target 90", "90"),
    ("--task digits --target -0.5", "-0.5"),
    # steps
    ("--lr 0", "finite number > 0; got 0"),
    ("--lr -1", "got -1"),
    ("--lr nan", "got nan"),
    ("--lr inf", "got inf"),
    ("--lr abc", "Cannot read --lr abc"),
    ("--lr ''", "Cannot read --lr"),
    ("--lr 0.01,", "Cannot read --lr 0.01,"),
    ("--lr 0.01,0.01", "different learning rates"),
    ("--lr tuned,0.1", "Cannot read --lr tuned,0.1"),
    ("--lr tuned --lr 0.1", "twice for all algorithms"),
    ("--lr rfast=tuned", "Cannot read --lr rfast=tuned"),
    ("--lr tuned --tune-grid 0.1;1", "Cannot read --tune-grid 0.1;1"),
    ("--tune-by loss", "'tune_by' says how learning rates are tuned, and none is"),
    ("--lr rfast=", "Cannot read --lr rfast="),
    ("--lr rfast=0", "got 0 for rfast"),
    ("--lr rfast=0.1,0.2", "one algorithm several rates; expected"),
    ("--lr rfast=0.1 --lr rfast=0.2", "twice for rfast"),
    ("--lr rfast=0.1 --lr 'rfast =0.2'", "twice for rfast"),
    ("--lr rfst=0.1", "Did you mean 'rfast'?"),
    ("--lr unknown=0.1", "not compared"),
    ("--algorithms adsgd --lr rfast=0.1", "not compared. Compared: adsgd"),
    # data
    ("--task digits --batch 0", "at least one sample; got 0"),
    ("--task digits --batch -3", "got -3"),
    ("--task digits --batch 1000000000", "1000000000"),
    ("--task digits --reg -1", "regulariser must be"),
    ("--task digits --reg nan", "regulariser must be"),
    ("--task digits --reg inf", "regulariser must be"),
    ("--task digits --skew -0.1", "skew is -0.1"),
    ("--task digits --skew 1.1", "skew is 1.1"),
    ("--task digits --skew nan", "skew is nan"),
    ("--task digits --dirichlet 0", "alpha is 0"),
    ("--task digits --dirichlet -1", "alpha is -1"),
    ("--task digits --dirichlet nan", "alpha is nan"),
    ("--task mnist --data nowhere", "'nowhere' (given as argument) is no directory"),
    ("--task mnist --data .", "lacks train-images-idx3-ubyte"),
    # the world
    ("--case combined --slowdown 0", "slowdown must be a number between 0.001 and 10^9; got 0"),
    ("--case combined --slowdown -1", "got -1"),
    ("--case combined --slowdown nan", "got nan"),
    ("--case combined --slowdown inf", "got inf"),
    ("--loss 1", "[0, 1); got 1"),
    ("--loss -0.1", "[0, 1); got -0.1"),
    ("--loss nan", "must be finite"),
    ("--compute 'gamma x'", "Cannot read the delay 'gamma x'"),
    ("--compute 'gamma 0.25 mean x'", "Cannot read the delay 'gamma 0.25 mean x'"),
    ("--compute 'constant mean -1'", "got -1"),
    ("--compute 'constant mean nan'", "got nan"),
    ("--compute 'constant mean 0'", "mean"),
    ("--compute 'gamma 0'", "Use 'constant' for 0"),
    ("--compute 'gamma nan'", "got nan"),
    ("--compute 'gamma 1e-300'", "coefficient of variation"),
    ("--compute 'gamma 1e300'", "coefficient of variation"),
    ("--compute 'lognormal 1e300'", "coefficient of variation"),
    ("--compute 'constant 2'", "no coefficient of variation to set; got 2"),
    ("--compute file", "needs a file"),
    ("--compute 'file nowhere.csv'", "nowhere.csv"),
    ("--crash 'agent 3'", "Cannot read the crash 'agent 3'; expected 'agent 3 at 100'"),
    ("--crash 'agent one at 5'", "Cannot read the crash"),
    ("--crash 'agent 1 at -5'", "A crash needs an agent >= 0 and a time >= 0"),
    ("--crash 'agent 1 at .'", "Cannot read the crash"),
    ("--crash 'agent 1 at 1e999'", "got agent 1 at inf"),
    ("--crash 'agent 99 at 5'", "no agent 99: with 9 agents they are 0 to 8"),
    ("--crash 'agent 1 at 5 until 3'", "cannot return before"),
    ("--crash 'agent 1 at 5' --crash 'agent 1 at 7'", "cannot crash at 7: it is down then"),
    ("--crash 'agent 1 at 5 until 10' --crash 'agent 1 at 7'", "cannot crash at 7: it is down then"),
    # seeds
    ("--straggler 3", "there is none in case 'base'"),
    ("--dirichlet 0.5 --skew 0.5", "got both"),
    ("--crash 'agent 1 at 50'", "after the end of the runs"),
    ("--compute 'gamma 0.25 mean 1e-300'", "clock stands still"),
    ("--case combined --slowdown 1e-9", "slowdown must be"),
    ("--algorithms adpsgd:wait+atomic,adpsgd:atomic+wait", "named twice"),
    ("--seeds 0", "at least one seed, and at most 10000; got 0"),
    ("--seeds -2", "got -2"),
    ("--workers 0", "at least one worker; got 0"),
    ("--workers -1", "at least one worker; got -1"),
    ("--seed -1", "A seed must be >= 0; got -1"),
    # files
    ("--json nowhere/out.json", "Cannot write nowhere/out.json"),
    ("--report nowhere/out.html", "Cannot write nowhere/out.html"),
    ("--traces /dev/null/traces", "/dev/null is a file. Expected a folder"),
    ("--json .", "it is a folder"),
    ("--report .", "it is a folder"),
    ("--json same --report ./same", "same"),
]


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(("arguments", "fragment"), REFUSED, ids=[arguments for arguments, _ in REFUSED])
def test_what_makes_no_sense_is_refused_in_one_paragraph(call: Call, arguments: str, fragment: str) -> None:
    given = shlex.split(arguments)
    for option in ("--json", "--report"):
        given = given if option in given else [*given, option, f"kept{option}"]
    outcome = call(*QUICK, *given).refused()
    assert outcome.err.startswith("Error: ")
    assert outcome.err.count("\n") == 1, "one paragraph, which the terminal may wrap"
    assert fragment in outcome.err
    assert not list(Path.cwd().iterdir()), "nothing is written, not even in part"


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ("compare --agents nine", "--agents"),
        ("compare --until soon", "--until"),
        ("compare --seed 1.5", "--seed"),
        ("compare --nonsense 3", "There is no option --nonsense"),
        ("compare --eval-evry 3", "--eval-every"),
        (
            "live --crash 'agent 1 at 5'",
            "real processes are killed at a step: --fault 'kill agent 1 at step 20'.",
        ),
        ("compare --json", "--json"),
        ("compare stray", "stray"),
        ("compar", "compare"),
        (
            "list nonsense",
            "Unknown list 'nonsense'. Known: algorithms, topologies, weights, tasks, models, partitions, ",
        ),
        ("list algorithm", "Did you mean 'algorithms'?"),
        ("list tasks cases", "cases"),
        ("--nonsense", "There is no option --nonsense"),
    ],
)
def test_what_cannot_be_read_is_refused(call: Call, arguments: str, fragment: str) -> None:
    assert fragment in call(*shlex.split(arguments)).refused().said


def test_an_error_of_an_algorithm_ends_with_another_code(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ContractError("Agent 3 broke [red]promise[/red] c.")

    monkeypatch.setattr(batches, "run_many", broken)
    outcome = call(*QUICK, "--quiet", "--json", "out.json")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == "Error: Agent 3 broke [red]promise[/red] c.\n"


# -- data and measured delays that are not what they should be -------------------------------------


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with a data set that has the form of MNIST and is small."""
    folder = tmp_path / "data"
    folder.mkdir()
    for stem, content in small_set(train=20).items():
        (folder / f"{stem}.gz").write_bytes(gzip.compress(content))
    return folder


def test_data_are_taken_from_the_folder_or_the_variable(
    call: Call, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = (
        "compare",
        "--task",
        "mnist",
        "--agents",
        "4",
        "--batch",
        "2",
        "--until",
        "2",
        "--algorithms",
        "adsgd",
    )
    assert call(*small, "--data", tiny, "--json", "option.json").code == 0
    monkeypatch.setenv("OFFBEAT_DATA", str(tiny))
    assert call(*small, "--json", "variable.json").code == 0
    assert digests("option.json") == digests("variable.json")


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(
    ("spoil", "fragment"),
    [
        (lambda raw: raw[: len(raw) // 2], "cannot be read"),
        (lambda raw: raw[:-8] + bytes(8), "cannot be read"),
        (lambda raw: b"", "it is empty"),
        (lambda raw: b"<html>404</html>", "starts with 3c 68 74 6d"),
        (lambda raw: gzip.compress(gzip.decompress(raw)[:-1]), "by its header"),
        (lambda raw: gzip.compress(idx(np.zeros((20, 32, 32), dtype=np.uint8))), "expected Nx28x28"),
    ],
    ids=["truncated", "corrupt", "empty", "a page", "too short", "other images"],
)
def test_bad_data_are_named(call: Call, tiny: Path, spoil: Callable[[bytes], bytes], fragment: str) -> None:
    file = tiny / "train-images-idx3-ubyte.gz"
    file.write_bytes(spoil(file.read_bytes()))
    outcome = call("compare", "--task", "mnist", "--agents", "4", "--data", tiny).refused()
    assert outcome.err.startswith("Error: ")
    assert file.name in outcome.err
    assert fragment in outcome.err


def written(values: object, file: str) -> bytes:
    """The bytes of a numpy file."""
    buffer = io.BytesIO()
    np.savez(buffer, rtt=np.asarray(values)) if file.endswith("z") else np.save(buffer, np.asarray(values))
    return buffer.getvalue()


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(
    ("file", "content", "fragment"),
    [
        ("empty.csv", b"", "empty.csv"),
        ("words.csv", b"rtt\n1\n2\n", "expected measured delays, one number a line"),
        ("ragged.csv", b"1,2\n3\n", "expected measured delays, one number a line"),
        ("binary.txt", b"\xff\xfe\x00", "expected measured delays, one number a line"),
        ("zero.txt", b"0\n0\n", "all of its 2 numbers are 0"),
        ("negative.txt", b"-1\n2\n", "delays are finite and >= 0"),
        ("infinite.txt", b"1\ninf\n", "delays are finite and >= 0"),
        ("unknown.txt", b"nan\n", "number 1 of 1 is nan"),
        ("empty.npy", b"", "expected measured delays, one number a line"),
        ("cut.npy", written([1.0, 2.0], ".npy")[:-4], "expected measured delays, one number a line"),
        ("words.npy", written(["a"], ".npy"), "expected measured delays, one number a line"),
        ("complex.npy", written([1 + 2j], ".npy"), "expected measured delays, one number a line"),
        ("empty.npz", b"", "expected measured delays, one number a line"),
        ("cut.npz", written([1.0, 2.0], ".npz")[:100], "expected measured delays, one number a line"),
        ("other.npz", b"not a zip file", "expected measured delays, one number a line"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_bad_measurements_are_named(call: Call, file: str, content: bytes, fragment: str) -> None:
    Path(file).write_bytes(content)
    outcome = call(*QUICK, "--communication", f"file {file}").refused()
    assert outcome.err.startswith("Error: ")
    assert file in outcome.err
    assert fragment in outcome.err


def test_what_was_read_of_measured_delays_is_said(call: Call) -> None:
    Path("rtt.csv").write_text("time,rtt\n100,0.5\n101,1.5\n")
    done = call(*QUICK, "--algorithms", "adsgd", "--communication", "file rtt.csv:rtt")
    assert done.code == 0
    assert (
        "communication from rtt.csv:rtt: 2 numbers from 0.5 to 1.5, mean 1; drawn with mean 1." in done.said
    )


# -- what is written -------------------------------------------------------------------------------


def test_the_results_as_json(call: Call) -> None:
    outcome = call(
        *QUICK, "--algorithms", "adsgd,dsgd", "--lr", "0.01,0.02", "--seeds", "2", "--json", "out.json"
    )
    assert outcome.code == 0
    record = read("out.json")
    assert record["offbeat"] == offbeat.__version__
    assert "interrupted" not in record
    assert [(run["algorithm"], run["lr"], run["seed"]) for run in record["runs"]] == [
        (name, lr, seed) for name in ("adsgd", "dsgd") for lr in (0.01, 0.02) for seed in (0, 1)
    ]
    for run in record["runs"]:
        assert set(run) >= KEYS
        assert (run["task"], run["case"], run["topology"], run["agents"]) == ("quadratic", "base", "grid", 9)
        assert (run["skew"], run["until"], run["target"]) == (1.0, 20.0, 0.01)
        assert (run["batch"], run["time_to_target"]) == (32, None)
        assert run["updates"] > 0
        assert run["messages"] > 0
        assert run["megabytes"] > 0
        assert set(run["staleness"]) == {"B", "D"}
        assert isinstance(run["staleness"]["D"], int if run["algorithm"] == "adsgd" else type(None))
        assert set(run["final"]) >= {"loss", "accuracy", "consensus"}
        assert run["final"]["accuracy"] is None
        assert run["final"]["loss"] == run["curve"]["loss"][-1]
        assert set(run["curve"]) >= {"time", "loss", "accuracy", "consensus"}
        assert len(run["curve"]["time"]) == len(run["curve"]["loss"]) == len(run["curve"]["consensus"]) == 21
        assert (run["curve"]["time"][0], run["curve"]["time"][-1]) == (0.0, 20.0)
        assert re.fullmatch("[0-9a-f]{64}", run["digest"])
        assert "wall_s" not in run


@on_linux
def test_the_same_command_gives_the_same_bytes(call: Call, tmp_path: Path) -> None:
    """Of JSON, page, traces, Parquet and errors; in another process, which hashes in another order (nothing
    iterates over a set), and with more workers.
    """
    small = "--task digits --until 12 --eval-every 3 --algorithms adsgd,dsgd,allreduce --seeds 2 --target 0.3"
    world = ("--topology", "erdos-renyi", "--crash", "agent 3 at 2 until 5")
    grid = tmp_path / "grid.toml"
    grid.write_text(
        "[fixed]\ntask = 'quadratic'\nuntil = 5\n[grid]\nalgorithm = ['adsgd', 'dsgd']\nseed = [0, 1]\n"
    )

    def commands_of(kind: str, workers: str) -> list[list[str]]:
        Path(kind).mkdir()
        files = ("--json", f"{kind}/json", "--report", f"{kind}/html", "--traces", kind)
        return [
            ["sweep", str(grid), "--out", f"{kind}/parquet", "--workers", workers, "-q"],
            ["compare", *small.split(), *world, *files, "--workers", workers, "-q"],
        ]

    here = [call(*words) for words in commands_of("one", "1")]
    assert [each.code for each in here] == [0, 0] and here[1].err.startswith("Error of allreduce")
    program = f"{warm.WARM_WORKERS}\nimport os, sys\nfrom offbeat.cli.commands import main\n"
    program += f"os.environ['COLUMNS'] = '200'\nfor words in {commands_of('two', '2')}:\n    "
    program += "sys.argv[1:] = words\n    try: main()\n    except SystemExit as end: code = end.code\n"
    program += f"assert hash('in another order') != {hash('in another order')}\nsys.exit(code)"
    there = warm.ran(tmp_path, program)
    assert (there.code, there.said, (tmp_path / "stderr").read_text()) == (0, "", here[1].err)
    written = [path for path in Path("one").iterdir() if path.is_file()]
    assert len(written) == 9
    for path in written:
        assert path.read_bytes() == (Path("two") / path.name).read_bytes(), path.name


def test_accuracy_and_time_to_target_where_there_are_some(call: Call) -> None:
    call(
        "compare",
        "--until",
        "20",
        "--eval-every",
        "5",
        "--target",
        "0.2",
        "--algorithms",
        "rfast",
        "--json",
        "r",
    )
    (run,) = read("r")["runs"]
    assert run["task"] == "digits"
    assert run["curve"]["time"] == [0, 5, 10, 15, 20]
    assert len(run["curve"]["accuracy"]) == 5
    assert 0 < run["time_to_target"] < 20
    assert 0.2 <= run["final"]["accuracy"] <= 1


def test_standard_output_is_the_table_and_what_was_written(call: Call) -> None:
    outcome = call(*QUICK, "--json", "out.json", "--report", "out.html", "--traces", "to/traces")
    assert outcome.code == 0
    for name in USUAL:
        assert re.search(rf"^ *{name} .*never", outcome.out, re.MULTILINE)
        assert f"{name}, seed 0: " in outcome.err
    assert outcome.out.endswith("Written: out.json\nWritten: out.html\n") or "out.html" in outcome.out
    assert "</html>" in Path("out.html").read_text("utf-8")
    assert len(list(Path("to/traces").glob("*.npz"))) == len(USUAL)
    assert {path.suffix for path in Path.cwd().iterdir()} == {".json", ".html", ""}


def test_the_numbers_as_csv_are_those_that_table_has(call: Call) -> None:
    made = call(*QUICK, "--seeds", "2", "--spread", "std", "--csv", "a.csv", "--json", "a.json")
    assert made.code == 0 and "Written: " in made.out
    assert call("table", "a.json", "--spread", "std", "--csv", "b.csv").code == 0
    assert len(Path("a.csv").read_text().splitlines()) == 1 + len(USUAL)
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()
    assert "same file" in call(*QUICK, "--json", "a.json", "--csv", "a.json").refused().said


def test_quiet_means_quiet(call: Call) -> None:
    assert call(*QUICK, "--quiet", "--json", "out.json") == Outcome(0, "", "")
    assert len(read("out.json")["runs"]) == len(USUAL)


def test_a_diverging_algorithm_is_reported_and_the_others_finish(call: Call) -> None:
    outcome = call(*QUICK, "--lr", "adsgd=1e9", "--json", "out.json", "--report", "out.html")
    assert outcome.code == 0
    assert "Warning" not in outcome.err
    assert re.search(r"^ *adsgd .*diverged", outcome.out, re.MULTILINE)
    first, *others = read("out.json")["runs"]
    assert first["final"]["loss"] is None
    assert first["time_to_target"] is None
    assert all(run["final"]["loss"] < 1 for run in others)
    assert len(others) == len(USUAL) - 1


def test_a_step_with_which_all_diverge(call: Call) -> None:
    outcome = call(
        "compare",
        "--task",
        "quadratic",
        "--until",
        "200",
        "--lr",
        "50",
        "--eval-every",
        "20",
        "--json",
        "out.json",
    )
    assert outcome.code == 0
    assert "Warning" not in outcome.err
    assert len(read("out.json")["runs"]) == len(USUAL)


def test_when_all_agents_crash_the_runs_end_all_the_same(call: Call) -> None:
    crashes = [part for agent in range(2) for part in ("--crash", f"agent {agent} at {agent + 1}")]
    assert call(*QUICK, "--agents", "2", *crashes, "--json", "out.json", "--report", "out.html").code == 1
    assert all(run["error"] == "no agent is alive any more" for run in read("out.json")["runs"])
    assert all(run["curve"]["time"][-1] == 20 for run in read("out.json")["runs"])


ONE_QUIET = (*QUICK, "--algorithms", "adsgd", "--eval-every", "5", "--quiet")


def test_existing_files_are_replaced_and_links_are_followed(call: Call) -> None:
    Path("old.json").write_text("old")
    Path("link.json").symlink_to("old.json")
    assert call(*ONE_QUIET, "--json", "link.json").code == 0
    assert Path("link.json").is_symlink()
    assert read("old.json")["runs"]


def test_a_name_as_long_as_the_file_system_allows(call: Call) -> None:
    name = "n" * 250 + ".json"
    assert call(*ONE_QUIET, "--json", name).code == 0
    assert read(name)["runs"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes that have names")
@pytest.mark.usefixtures("nothing_runs")
def test_what_is_no_file_is_not_replaced_by_one(call: Call) -> None:
    os.mkfifo("pipe")
    assert "Cannot write pipe" in call(*QUICK, "--json", "pipe").refused().err
    assert Path("pipe").is_fifo()


@pytest.mark.usefixtures("nothing_runs")
def test_a_read_only_file_is_refused_first(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("out.json").write_text("old")
    monkeypatch.setattr(
        os, "access", lambda _, mode: mode != os.W_OK
    )  # the administrator may write everywhere
    assert "read-only" in call(*QUICK, "--json", "out.json").refused().err
    assert Path("out.json").read_text() == "old"


def test_a_folder_that_is_gone_at_the_end_costs_no_table(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("sub").mkdir()

    def run(*arguments: Any, **options: Any) -> Iterator[offbeat.Run]:
        shutil.rmtree("sub", ignore_errors=True)
        return run_many(*arguments, **options)

    monkeypatch.setattr(batches, "run_many", run)
    outcome = call(*QUICK, "--json", "sub/out.json")
    assert outcome.code == 1
    assert re.search(r"^Error: .*sub/out\.json.*No such file or directory", outcome.err, re.MULTILINE)
    assert "adsgd" in outcome.out


def test_advice_can_be_followed(call: Call) -> None:
    """One algorithm cannot be given several: that is not the answer to a second one."""
    assert "several with commas" not in call(*QUICK, "--lr", "rfast=0.1", "--lr", "rfast=0.2").refused().err
    assert "several with commas" in call(*QUICK, "--lr", "0.1", "--lr", "0.2").refused().err


def test_where_traces_do_not_fit_the_runs_go_on_without(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said once, before the runs, and by the page; whoever asks for traces is told what would fit."""
    command = (
        "compare",
        "--task",
        "quadratic",
        "--until",
        "400",
        "--algorithms",
        "dsgd,dpsgd",
        "--report",
        "out.html",
    )
    call(*command, "--json", "held.json")
    assert "No timeline" not in Path("out.html").read_text("utf-8")
    monkeypatch.setattr(memory, "PART", 100)
    monkeypatch.setattr(machine, "available", lambda: 3e6)
    outcome = call(*command, "--json", "dropped.json")
    assert outcome.said.startswith(
        "The traces of dsgd, dpsgd would take too much memory, so they are not held"
    )
    assert outcome.said.count("too much memory") == 1
    text = Path("out.html").read_text("utf-8")
    assert "No timeline of dsgd, dpsgd: the trace was not held" in text and "Who computed" not in text
    assert digests("dropped.json") == digests("held.json")
    refused = call(*command, "--traces", ".").refused()
    assert "A run of dsgd with 9 agents until time 400 needs about" in refused.said
    assert re.search("or these without --traces, or these until time .*, would fit", refused.said)


@pytest.mark.parametrize(("asked", "kept"), [((), [False, False]), (("--report", "out.html"), [True, False])])
def test_a_trace_is_held_only_where_it_is_of_use(
    call: Call, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...], kept: list[bool]
) -> None:
    held = list[bool]()

    def run(jobs: Any, *arguments: Any, **options: Any) -> Iterator[offbeat.Run]:
        held.extend(job.keep_trace for job in jobs)
        return run_many(jobs, *arguments, **options)

    monkeypatch.setattr(batches, "run_many", run)
    assert call(*QUICK, "--eval-every", "5", "--algorithms", "adsgd,dsgd", "--seeds", "2", *asked).code == 0
    assert held == kept * 2  # of two algorithms


def test_every_run_has_a_trace_of_its_own(call: Call) -> None:
    outcome = call(
        *QUICK,
        "--algorithms",
        "adsgd,dsgd",
        "--lr",
        "0.01,0.0100000001",
        "--seeds",
        "2",
        "--traces",
        ".",
        "--eval-every",
        "5",
    )
    assert outcome.code == 0
    assert len(list(Path.cwd().glob("*.npz"))) == 8


BUFFERED, LINES = (f"import os, sys; sys.stdout = os.fdopen(1, 'w', {n}, closefd=False)" for n in (-1, 1))
"""What is printed goes out at the end, or after kilobytes, as where there is no terminal; or line by line."""


@on_linux
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_where_nothing_can_be_printed_there_is_no_traceback(tmp_path: Path) -> None:
    setup = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
    for words, how in ((("--version",), BUFFERED), (("list", "cases"), BUFFERED), (ONE, LINES)):
        run = warm.finished(tmp_path, *words, setup=f"{setup}; {how}")
        assert run.code == 1 and "No space left on device" in run.complained


# -- the same bytes --------------------------------------------------------------------------------


def test_the_same_command_gives_the_same_digests(call: Call) -> None:
    command = (
        "compare",
        "--until",
        "10",
        "--eval-every",
        "5",
        "--case",
        "combined",
        "--loss",
        "0.3",
        "--crash",
        "agent 3 at 2 until 5",
    )
    for name in ("one.json", "two.json"):
        assert call(*command, "--quiet", "--json", name).code == 0
    assert digests("one.json") == digests("two.json")
    assert len(set(digests("one.json"))) == len(USUAL)


def test_a_seed_alone_is_what_it_is_beside_others(call: Call) -> None:
    few = (*QUICK, "--eval-every", "10", "--quiet")
    call(*few, "--seeds", "3", "--json", "three.json")
    call(*few, "--seed", "1", "--json", "alone.json")
    assert set(digests("alone.json")) < set(digests("three.json"))
    assert len(set(digests("three.json"))) == 3 * len(USUAL)


def test_a_seed_may_be_huge(call: Call) -> None:
    seed = str(10**30)
    assert call(*QUICK, "--algorithms", "adsgd", "--quiet", "--seed", seed, "--json", "out.json").code == 0
    assert read("out.json")["runs"][0]["seed"] == 10**30


def test_python_does_what_the_command_line_does(call: Call) -> None:
    call(
        *QUICK,
        "--quiet",
        "--case",
        "combined",
        "--crash",
        "agent 3 at 2",
        "--lr",
        "0.1",
        "--json",
        "out.json",
    )
    result = offbeat.compare(task="quadratic", until=20, case="combined", crash=("agent 3 at 2",), lr=0.1)
    assert [run.digest for run in result.runs] == digests("out.json")


def test_options_are_the_settings_and_have_the_same_defaults() -> None:
    options = {name: p.default for name, p in inspect.signature(cli.compare).parameters.items()}
    defaults: dict[str, Any] = {name: each.default for name, each in declared(Experiment).items()}
    assert defaults.keys() < options.keys()
    for name in ("compute", "communication"):
        told = parse(options.pop(name))
        delay = defaults.pop(name)
        assert (str(told), told.mean) == (str(delay), delay.mean)
    none_given = {name: None for name, default in defaults.items() if default == ()}
    assert {name: options[name] for name in defaults} == defaults | none_given


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(
    ("settings", "fragment"),
    [
        ({"lr": None}, "learning rate"),
        ({"lr": ["a"]}, "learning rate"),
        ({"lr": {"adsgd": "x"}}, "learning rate"),
        ({"lr": {"adsgd": None}}, "learning rate"),
        ({"task": None}, "task"),
        ({"case": None}, "case"),
        ({"executor": 3}, "executor"),
        ({"crash": [(1, 2)]}, "crash"),
        ({"seed": None}, "seed"),
        ({"agents": "9"}, "'agents' must be a whole number; got '9'"),
        ({"until": "20"}, "'until' must be a number; got '20'"),
        ({"compute": 1.0}, "Delay"),
        ({"compute": offbeat.Delay("constant", mean=0.0)}, "mean"),
    ],
    ids=str,
)
def test_python_refuses_what_the_command_line_could_not_say(settings: dict[str, Any], fragment: str) -> None:
    with pytest.raises(offbeat.SettingError, match=fragment):
        offbeat.plan(["adsgd"], **(dict[str, Any](task="quadratic", until=20.0) | settings))


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "agents": np.int64(9), "batch": np.int32(4), "straggler": np.int64(3), "slowdown": np.float32(3),
        "until": np.float32(2), "lr": np.float32(0.5), "seed": np.int64(1), "eval_every": np.float64(1),
    }  # fmt: skip
    result = offbeat.compare(["adsgd"], task="quadratic", case="combined", **settings)
    result.save_json(tmp_path / "out.json")
    assert read(tmp_path / "out.json")["runs"][0]["lr"] == 0.5


# -- help ------------------------------------------------------------------------------------------


def test_help_names_every_option_and_says_something_of_each(call: Call) -> None:
    outcome = call("compare", "--help")
    assert outcome.code == 0
    for name in inspect.signature(cli.compare).parameters:
        assert re.search(rf"--{name.replace('_', '-')}\b.*  [A-Z'a-z]{{2,}}", outcome.out), name
    assert "OFFBEAT_DATA" in outcome.out


def test_the_examples_of_the_help_work(call: Call) -> None:
    whole_lines = (cli.compare.__doc__ or "").replace("\\\n", " ")
    lines = [line.strip() for line in whole_lines.splitlines()]
    examples = [shlex.split(line)[1:] for line in lines if line.startswith("offbeat compare")]
    assert len(examples) >= 3
    for example in examples:
        short = ["--tune-grid", "0.1", "--tune-seeds", "1"] * ("tuned" in example)
        short += ["--until", "101" if "--crash" in example else "10"]  # the crash is at 100
        shorter = ("--task", "quadratic", "--eval-every", "5", "--algorithms", "adsgd,rfast")
        assert call(*example, *short, *shorter).code == 0


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_the_first_thing_that_one_sees_teaches(call: Call, arguments: tuple[str, ...]) -> None:
    outcome = call(*arguments)
    assert outcome.code == (0 if arguments else 2)
    assert "offbeat compare" in outcome.out
    assert "offbeat list" in outcome.out
    assert "Traceback" not in outcome.err


def test_version(call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == Outcome(0, f"offbeat {offbeat.__version__}\n", "")
    monkeypatch.setattr(sys, "argv", ["python -m offbeat", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("offbeat", run_name="__main__")
    assert not end.value.code
    assert capsys.readouterr().out == f"offbeat {offbeat.__version__}\n"


def test_lists_name_everything_that_can_be_named(call: Call) -> None:
    names: dict[str, Iterable[str]] = {
        "algorithms": offbeat.ALGORITHMS,
        "topologies": offbeat.TOPOLOGIES,
        "tasks": offbeat.TASKS,
        "worlds": [f"--{name}" for name, each in declared(Experiment).items() if each.scope == WORLD],
        "cases": offbeat.CASES,
        "delays": FAMILIES.keys() - {"empirical"},
    }
    whole = call("list")
    assert whole.code == 0
    for what, table in names.items():
        outcome = call("list", what)
        assert outcome.code == 0
        for name in table:
            assert re.search(rf"^ {name} ", outcome.out, re.MULTILINE)
        assert outcome.out in whole.out
    lines = call("list", "worlds").out.splitlines()
    marked = " ".join(line for line in lines if "simulated only" in line)
    assert re.findall(r"As in: --(\w+)", marked) == ["crash", "network", "availability", "byzantine"]


# -- interrupted -----------------------------------------------------------------------------------


MANY = (*QUICK, "--algorithms", "adsgd,dsgd", "--seeds", "400", "--json", "out.json", "--report", "out.html")
"""Runs for a minute or so, unless it is interrupted; a run is finished every tenth of a second."""


@on_linux
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_keeps_the_runs_that_are_finished(tmp_path: Path, number: signal.Signals, code: int) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    run, said = warm.start(folder, *MANY, setup=warm.WARM_WORKERS), folder / "stderr"
    warm.until(lambda: run.poll() is not None or (said.exists() and "adsgd, seed 0: " in run.complained))
    run.kill(number)
    assert run.wait() == code, run.complained
    assert "Traceback" not in run.complained
    assert "Not all runs were made" in run.said
    record = read(folder / "out.json")
    assert record["interrupted"] is True
    assert 1 <= len(record["runs"]) < 800
    assert [run["seed"] for run in record["runs"]] == list(range(len(record["runs"])))
    page = (folder / "out.html").read_text("utf-8")
    assert "Not all runs were made" in page
    assert page.rstrip().endswith("</html>")
    assert {path.name for path in folder.iterdir()} == {"out.json", "out.html", "stdout", "stderr"}


def test_interrupted_before_any_run_is_finished(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(batches, "run_many", interrupted)
    Path("out.json").write_text("of before")
    outputs = ("--json", "out.json", "--report", "out.html", "--figure", "out.svg")
    outcome = call(*QUICK, *outputs, "--show-tuning", "--out", "kept")
    assert outcome.code == 130
    assert outcome.said == "No run was finished, so no results are written."
    assert "Written" not in outcome.out
    assert Path("out.json").read_text() == "of before"
    assert not Path("out.html").exists() and not Path("out.svg").exists()


def test_interrupted_while_a_learning_rate_is_tuned(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    made, real = [], keeping.Kept.write

    def stopped(*args: Any) -> None:
        real(*args)
        made.append(args)
        if len(made) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(keeping.Kept, "write", stopped)
    tuned = ("--lr", "tuned", "--tune-grid", "0.1,0.3", "--tune-seeds", "1", "--eval-every", "1")
    command = (*QUICK, "--algorithms", "adsgd", *tuned, "--out", "kept", "--json", "out.json")
    outcome = call(*command)
    kept = len([*Path("kept").rglob("*.run")])
    assert outcome.code == 130 and kept >= 3
    assert f"Kept in kept, with those of tuning: {kept} of the runs. The same command goes" in outcome.said
    assert not Path("out.json").exists()
    monkeypatch.setattr(keeping.Kept, "write", real)
    again = call(*command)
    assert f"{kept} runs are there already" in again.said and len(read("out.json")["runs"]) == 1


def test_interrupted_while_everything_is_being_checked(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "prepare", interrupted)
    outcome = call(*QUICK, "--json", "out.json")
    assert outcome.code == 130
    assert "Traceback" not in outcome.err
    assert not list(Path.cwd().iterdir())


ONE = (*QUICK, "--algorithms", "adsgd", "--eval-every", "5", "--json", "out.json")


NOBODY_READS = "import os; ours, theirs = os.pipe(); os.close(ours); os.dup2(theirs, {file})"


@on_linux
@pytest.mark.parametrize("how", [BUFFERED, LINES], ids=["buffered", "lines"])
def test_a_reader_that_goes_away_costs_no_results(tmp_path: Path, how: str) -> None:
    run = warm.finished(tmp_path, *ONE, setup=f"{NOBODY_READS.format(file=1)}; {how}")
    assert run.code != 120, "Python had something to print at its end, and says so"
    assert "Error" not in run.complained
    assert len(read(tmp_path / "out.json")["runs"]) == 1


@on_linux
def test_a_reader_of_errors_that_goes_away_costs_no_results(tmp_path: Path) -> None:
    run = warm.finished(tmp_path, *ONE, setup=NOBODY_READS.format(file=2))
    assert "adsgd" in run.said and "Traceback" not in run.said
    assert len(read(tmp_path / "out.json")["runs"]) == 1


NARROW = ("compare", "--until", "1", "--eval-every", "1", "--target", "0.001")


@on_linux
def test_a_narrow_terminal_loses_no_name_and_no_result(tmp_path: Path) -> None:
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 60, 0, 0))
    name, how = os.ttyname(theirs), os.O_RDWR | os.O_NOCTTY
    setup = f"import os; os.dup2(os.open({name!r}, {how}), 1); os.environ.pop('COLUMNS'); {LINES}"
    run, shown = warm.start(tmp_path, *NARROW, setup=setup), b""
    warm.until(lambda: run.poll() is not None or select.select([ours], [], [], 0)[0] != [])
    os.close(theirs)
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # what a terminal says at its end on Linux
            break
    os.close(ours)
    assert run.wait() == 0, run.complained
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert max(map(len, text.splitlines())) <= 60
    whole(text)


def test_a_narrow_table_loses_no_name_and_no_result(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    whole(call(*NARROW).out)


def whole(text: str) -> None:
    """Every algorithm is named, and nothing cut off."""
    assert "…" not in text
    for name in USUAL:
        assert re.search(rf"^ *{name} ", text, re.MULTILINE)
    assert "time to 0.1 %" in " ".join(text.split())


def test_a_trace_that_cannot_be_written_costs_no_result(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file takes the folder's place after the first of two runs: the table and the other results are there
    all the same.
    """
    folder = tmp_path / "traces"
    folder.mkdir()
    save = offbeat.Trace.save

    def once(trace: offbeat.Trace, path: Path) -> None:
        save(trace, path)
        shutil.rmtree(folder)
        folder.write_text("in the way")

    monkeypatch.setattr(offbeat.Trace, "save", once)
    outcome = call(*QUICK, "--algorithms", "adsgd,dsgd", "--traces", folder, "--json", "out.json")
    assert outcome.code == 1
    assert "dsgd" in outcome.out
    assert [run["algorithm"] for run in read("out.json")["runs"]] == ["adsgd", "dsgd"]
    assert "Cannot write" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.skipif(os.name == "nt", reason="names are bytes")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_of_another_encoding_loses_nothing(
    call: Call, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """Names with accents, and such that are no text at all; what is written is UTF-8."""
    name, bytes_ = "r\u00e9sum\u00e9.json", io.BytesIO()
    with monkeypatch.context() as patched:
        terminal = io.TextIOWrapper(bytes_, encoding, write_through=True)
        patched.setattr("sys.stdout", terminal)
        outcome = call(
            *QUICK, "--algorithms", "adsgd", "--json", name, "--report", os.fsdecode(b"r\xe9.html")
        )
    shown = bytes_.getvalue().decode(terminal.encoding)
    assert outcome.code == 0, outcome
    assert "adsgd " in shown and shown.count("Written: ") == 2
    assert ("r\u00e9sum\u00e9.json" if encoding != "ascii" else "r?sum?.json") in shown
    assert len(read(name)["runs"]) == 1


def test_a_table_can_be_printed_whatever_standard_output_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    result = offbeat.compare("adsgd", task="quadratic", until=5)
    assert "\u2500" in str(result)
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert "adsgd" in str(result) and str(result).isascii()


def test_help_comes_without_torch() -> None:
    program = "import sys\nfrom offbeat.cli.commands import app\n"
    program += "try: app(['--help'])\nfinally: print(sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "compare" in run.stdout
    for heavy in ("torch", "numpy", "networkx", "scipy", "plotly", "pandas", "sklearn"):
        assert f"'{heavy}'" not in run.stdout


def test_every_command_has_its_name_and_says_what_it_does() -> None:
    for name in COMMANDS:
        short, whole = listed(name), loaded(name)
        assert short.name == whole.name == name
        assert short.help and short.help == whole.help
