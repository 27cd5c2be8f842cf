"""`offbeat ...` in the process of a test: how it ended, what it printed, what it wrote."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from offbeat.cli import commands

QUICK = ("compare", "--task", "quadratic", "--until", "20", "--eval-every", "1")
"""A comparison of a tenth of a second, seldom evaluated."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended. `said`: standard error in one line, without colours and frames."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─|+]", " ", self.err).split())

    def refused(self) -> "Outcome":
        """One paragraph on standard error, nothing on standard output, exit code 2."""
        assert self.code == 2, self
        assert self.out == ""
        assert "Traceback" not in self.err
        assert "Warning" not in self.err
        return self


Call = Callable[..., Outcome]


def caller(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """What the fixture `call` is: `offbeat` with these arguments, in this process."""
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("OFFBEAT_DATA", "FORCE_COLOR", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["offbeat", *map(str, arguments)])
        code: Any = 0
        try:
            commands.main()
        except SystemExit as end:
            code = end.code or 0
        return Outcome(code, *capsys.readouterr())

    return run


def read(path: Path | str) -> dict[str, Any]:
    """A file of results; NaN and Infinity, which are not JSON, are refused."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    value: dict[str, Any] = json.loads(Path(path).read_text("utf-8"), parse_constant=refuse)
    return value


def digests(path: Path | str) -> list[str]:
    return [run["digest"] for run in read(path)["runs"]]
