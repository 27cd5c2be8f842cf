"""`offbeat new` writes files that work."""

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner
from user_scripts import loaded

from offbeat.cli.commands import app
from offbeat.core.errors import SettingError


@pytest.mark.parametrize(
    ("kind", "tests", "says"),
    [
        ("algorithm", 4, "local_steps.py:LocalSteps(gamma=0.5)' --check"),
        ("task", 3, "--task local_steps.py:make_task"),
    ],
)
def test_what_is_written_passes_its_test_and_its_command_runs_and_nothing_is_overwritten(
    kind: str, tests: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["new", kind, "LocalSteps"], catch_exceptions=False)
    assert "pytest test_local_steps.py" in done.output and says in done.output
    assert max(len(line) for file in tmp_path.iterdir() for line in file.read_text().splitlines()) <= 110
    written = vars(loaded(tmp_path / "test_local_steps.py"))
    passed = [written[name]() for name in written if name.startswith("test_")]  # they take no fixtures
    assert passed == [None] * tests
    (line,) = (line for line in done.output.splitlines() if line.startswith("To use it: offbeat "))
    short = ["--until", "9", "--eval-every", "3", "--workers", "1"]
    used = CliRunner().invoke(app, [*shlex.split(line)[4:], *short], catch_exceptions=False)
    assert used.exit_code == 0, used.output
    before = (tmp_path / "local_steps.py").read_bytes()
    again = CliRunner().invoke(app, ["new", kind, "LocalSteps"])
    assert isinstance(again.exception, SettingError) and "already" in str(again.exception)
    assert (tmp_path / "local_steps.py").read_bytes() == before


@pytest.mark.parametrize(("kind", "name"), [("tusk", "A"), ("algorithm", "a b"), ("algorithm", "class")])
def test_other_kinds_and_names_are_refused(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(CliRunner().invoke(app, ["new", kind, name]).exception, SettingError)
    assert not [*tmp_path.iterdir()]
