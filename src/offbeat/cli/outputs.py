"""Results go to files and to the terminal one after another: whatever fails costs none of the others."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from offbeat.cli.console import Out, complain
from offbeat.core.errors import OffbeatError, SettingError
from offbeat.core.system.files import refuse_irregular, write_atomically
from offbeat.results.export import as_csv
from offbeat.results.run import Comparison
from offbeat.results.table import as_table
from offbeat.results.wording import error_of


def check_writable(*paths: Path | None, folder: Path | None = None) -> None:
    """Fail now rather than after the work: raise SettingError unless these files can be written, and files in
    this folder, which may have to be made.
    """
    if folder is not None:
        _check_folder(folder)
    named = [path for path in paths if path is not None]
    if len({path.resolve() for path in named}) < len(named):
        raise SettingError(f"Two results would be written to the same file, {named[0]}; name another.")
    for path in named:
        try:
            refuse_irregular(path)
            with tempfile.NamedTemporaryFile(dir=path.resolve().parent):
                pass
            if path.exists() and not os.access(path, os.W_OK):
                raise OSError("the file is read-only")
        except OSError as error:
            why, expected = error.strerror or error, "Expected a file in a folder that is writable."
            raise SettingError(f"Cannot write {path}: {why}. {expected}") from None


def _check_folder(path: Path) -> None:
    there = next(each for each in (path.resolve(), *path.resolve().parents) if each.exists())
    if not there.is_dir():
        raise SettingError(f"Cannot write to the folder {path}: {there} is a file. Expected a folder.")
    check_writable(there / "trace.npz")


class Outputs:
    """Where the results of a command go. At its end `close` says what could not be written or shown.

    Attributes:
        quiet: whether nothing is printed
        error: what ended the work early, if anything did; the results that there are go out all the same
    """

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.out = quiet, Out()
        self.error: Exception | None = None
        self.written: list[Path] = []
        self.failures: list[str] = []

    def results(
        self, result: Comparison, json: Path | None, report: Path | None, spread: str = "range",
        csv: Path | None = None,
    ) -> None:  # fmt: skip
        """The numbers, the table, the page: first what can least be missed. Without any run nothing is
        written: what is there from before is worth more.
        """
        if not result.runs:
            if self.error is None:
                complain("No run was finished, so no results are written.")
            return
        self.save(json, result.save_json)
        self.save(csv, lambda path: write_atomically(path, as_csv(result, spread).encode()))
        self.show(lambda width: as_table(result, width, spread))
        for run in result.runs if self.quiet else []:
            if run.error is not None:
                complain(error_of(run))
        self.save(report, lambda path: result.save_report(path, spread))

    def make(self, folder: Path) -> None:
        """A folder for what is saved."""
        self._tried(f"make {folder}", lambda: folder.mkdir(parents=True, exist_ok=True))

    def save(self, path: Path | None, save: Callable[[Path], object], name: bool = True) -> None:
        """Write a file, if one is wanted. name: whether `close` names it"""
        if path is not None and self._tried(f"write {path}", lambda: save(path)) and name:
            self.written.append(path)

    def show(self, draw: Callable[[int], RenderableType]) -> None:
        """Print what is drawn for so many columns."""
        if not self.quiet:
            self._tried("print", lambda: self.out.print(draw(self.out.width)))

    def say(self, text: str, style: str = "") -> None:
        if not self.quiet:
            self._tried("print", lambda: self.out.print(Text(text, style), soft_wrap=True))

    def close(self, *more: Path) -> None:
        """Say what was written, also by others. Raises the error, or OffbeatError if something was not."""
        for path in [*self.written, *more]:
            self.say(f"Written: {path}")
        failures = " ".join(dict.fromkeys(self.failures))
        if self.error is not None:
            if failures:
                complain(failures)
            raise self.error
        if failures:
            raise OffbeatError(failures)

    def _tried(self, what: str, action: Callable[[], object]) -> bool:
        """Whether it could be done; if not, the reason is one of the failures."""
        try:
            action()
        except Exception as error:  # whatever it is, the results are worth more
            self.failures.append(f"Cannot {what}: {reason(error)}.")
            if what == "print" and isinstance(error, OSError):
                self.out.on_broken_pipe()
            return False
        return True


def reason(error: Exception) -> str:
    """Why something failed, in a line; what is no error of ours or of the system is named by its kind."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    text = " ".join(str(error).split()).removesuffix(".")
    return text if isinstance(error, OffbeatError | OSError) else f"{type(error).__name__}: {text}"
