"""What cannot be read as a command line: told in one paragraph, as every other error."""

import sys
from pathlib import Path

import pytest
from command_line import QUICK, Call

from offbeat.cli import commands
from offbeat.cli.commands import COMMANDS, loaded
from offbeat.cli.tools import fitted
from offbeat.core.system import machine
from offbeat.experiments import forking


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("compar", "No such command 'compar'. Did you mean 'compare'? See 'offbeat --help'."),
        ("--nope", "There is no option --nope. See 'offbeat --help'."),
        ("doctor --jsn", "There is no option --jsn. Did you mean --json? See 'offbeat doctor --help'."),
        ("compare --agents x", "Cannot read --agents x; expected a whole number. See 'offbeat"),
        ("compare --skew x", "Cannot read --skew x; expected a number. See 'offbeat compare --help'."),
        ("launch -n 0 t.py", "Cannot read --agents 0; expected a number greater than or equal to 1."),
        ("compare more", "Got unexpected extra argument(s) (more). See 'offbeat compare --help'."),
        ("compare --latex t.tex", "There is no option --latex. 'offbeat table' has it, of results"),
        ("compare --json", "Option '--json' requires an argument."),
        ("compare --quiet=3", "Option '--quiet' does not take a value."),
        ("sweep", "GRID is missing: A TOML file"),
        ("plot a.json", "--out is missing: The figure"),
    ],
)
def test_what_typer_cannot_read_is_one_plain_paragraph(call: Call, words: str, said: str) -> None:
    outcome = call(*words.split()).refused()
    assert outcome.err.startswith(f"Error: {said}") and outcome.err.count("\n") == 1
    assert "offbeat" in outcome.err and outcome.err.endswith(" --help'.\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_is_never_cut(call: Call, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert "…" not in call(command, "--help").out


def test_a_file_that_lacks_its_ending_is_named(call: Call) -> None:
    Path("mine.py").write_text("")
    for words in ("--algorithms mine:A", "--task mine:A", "--topology mine:A", "--metrics mine:A"):
        said = call("compare", *words.split()).refused().said
        assert "There is a mine.py: did you mean 'mine.py:A'?" in said


def test_lists_take_several_names_and_say_what_they_know(call: Call) -> None:
    both = call("list", "algorithms", "d2,sgp").out
    assert "arXiv:1803.07068" in both and "push_sum" in both
    every = call("list", "algorithms", "all").out
    assert "arXiv:1803.07068" in every and "arXiv:2505.10322" in every
    assert "h_i / 2" in call("list", "tasks", "quadratic").out
    assert "factor" in call("list", "schedules", "step").out
    assert "Did you mean 'grid'?" in call("list", "topologies", "gird").refused().said


def test_a_metric_that_was_not_measured_is_known_all_the_same(call: Call) -> None:
    call(*QUICK, "--algorithms", "adsgd", "--json", "a.json")
    said = call("plot", "a.json", "--metric", "gradient_norm", "--out", "a.html").refused().said
    assert "'gradient_norm' was not measured in these runs; measured: loss" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_has_an_example_that_fits_80_columns(command: str) -> None:
    """A line of the help has 78 columns at that width; a longer one would be broken, and no longer run."""
    text = (loaded(command).help or "").replace("\\[", "[")
    examples = [line for line in text.replace("\b", "").splitlines() if line.startswith("  ")]
    assert examples
    assert max(map(len, examples), default=0) <= 78


def test_a_docstring_flows_in_a_narrow_terminal_and_its_equations_stay_lines() -> None:
    text = "One two three\nfour.\n\n    x <- y,   z <- x\n    a <- b\n      c\n"
    text += "\nAttributes:\n    n: how many\n        there are"
    assert fitted(text, 16).splitlines() == [
        "One two three", "four.", "", "    x <- y,   z", "        <- x", "    a <- b c", "", "Attributes:",
        "    n: how many", "        there", "        are",
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["launch", "live"])
def test_a_folder_that_is_used_is_refused_before_a_machine_is_asked(
    call: Call, tmp_path: Path, command: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "agent-0.trace").touch()
    (tmp_path / "train.py").touch()
    what = [tmp_path / "train.py"] if command == "launch" else ["--task", "quadratic"]
    said = call(command, "--ray", "127.0.0.1:1", "--out", tmp_path / "out", *what).refused().said
    assert "holds a run already" in said


def test_a_folder_that_is_not_there_is_no_file(call: Call) -> None:
    for command in ("replay", "predict"):
        assert "There is no file or folder nosuch" in call(command, "nosuch").refused().said


@pytest.mark.parametrize(
    ("words", "early"),
    [
        ("compare --task digits", True), ("reproduce adsgd --quick", True), ("list algorithms", False),
        ("compare --workers=1", False), ("compare --until 9", False), ("sweep g.toml --dry-run", False),
        ("compare -h", False),
    ],
)  # fmt: skip
def test_the_server_of_workers_imports_everything_while_a_command_does(
    monkeypatch: pytest.MonkeyPatch, words: str, early: bool
) -> None:
    """Where it will be wanted, as far as that can be told before options are read."""
    told, (name, *_) = list[str](), words.split()
    monkeypatch.delitem(sys.modules, f"offbeat.cli.{COMMANDS[name]}", raising=False)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(forking, "start_server", lambda: told.append("server"))
    monkeypatch.setattr(commands, "loaded", lambda _: told.append("command"))
    commands.Commands().resolve_command(None, words.split())
    assert told == ["server", "command"][not early :]
