"""Damaged, swapped and hostile files, for every reader: an error in plain words or a right value, nothing
else.

    python tests/support/fuzz_files.py                 # 2,000 cases; `make fuzz`
    python tests/support/fuzz_files.py --case 1234     # this one again, with what came of it
    python tests/support/fuzz_files.py --keep DIR      # leave the files of cases that failed in this folder

A case is a number: it names the reader, what is done to a good file, and every random choice. What must not
    come of it:
an exception that is not offbeat's own, a message without the name of the file, more than `SLOW` seconds, more
than `HEAVY` bytes, or, where there is a checksum and the damage is an accident, another value than that of
the good file.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import fuzz_readers
import torch
from fuzz_readers import Noticed, Reader
from fuzz_results import RESULTS
from fuzz_wreck import ACCIDENTS, HOSTILE, irregular

from offbeat.core.errors import OffbeatError

READERS = [*fuzz_readers.READERS, *RESULTS]
CASES = 2000
SLOW, HEAVY = 5.0, 400_000_000


@dataclass(frozen=True)
class Result:
    """What came of a case. fault: what is wrong with that, if anything."""

    case: int
    reader: str
    done: str
    outcome: str
    fault: str = ""


class Fuzz:
    """Makes the good files once, and wrecks copies of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.good, self.values = folder, dict[str, Path](), dict[str, object]()

    def run(self, case: int) -> Result:
        """One case."""
        rng = Random(case)
        weighted = [reader for reader in READERS for _ in range(reader.weight)]
        reader = weighted[case % len(weighted)]
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(self._good(reader), work)
        path = work / reader.file
        done, accident = self._wrecked(reader, path, rng)
        before, began = _peak(reset=True), time.monotonic()
        outcome, fault = self._outcome(reader, path, accident)
        if (took := time.monotonic() - began) > SLOW:
            fault = fault or f"took {took:.1f} s"
        if (grown := _peak() - before) > HEAVY:
            fault = fault or f"took {grown / 1e6:.0f} MB"
        return Result(case, reader.name, done, outcome, fault)

    def _good(self, reader: Reader) -> Path:
        if reader.name not in self.good:
            folder = self.folder / reader.name
            folder.mkdir()
            reader.make(folder)
            self.good[reader.name] = folder
            self.values[reader.name] = reader.read(folder / reader.file)
        return self.good[reader.name]

    def _wrecked(self, reader: Reader, path: Path, rng: Random) -> tuple[str, bool]:
        """Do something to the file: what, in words, and whether it could be an accident."""
        kind = rng.choices(
            ["accident", "hostile", "crafted", "foreign", "irregular"], [10, 5, 8 * bool(reader.craft), 2, 1]
        )[0]
        if kind == "irregular":
            return irregular(path, rng), False
        if kind == "crafted" and reader.craft is not None:
            return reader.craft(path, rng), False
        content = path.read_bytes()
        if kind == "foreign":
            other = rng.choice(READERS)
            wreck, content = "the file of " + other.name, (self._good(other) / other.file).read_bytes()
        else:
            name, change = rng.choice(ACCIDENTS if kind == "accident" else HOSTILE)
            wreck, content = name, change(content, rng)
        path.unlink()
        path.write_bytes(content)
        return wreck, kind == "accident"

    def _outcome(self, reader: Reader, path: Path, accident: bool) -> tuple[str, str]:
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                value = reader.read(path)
        except Noticed as noticed:
            return f"said: {noticed}", ""
        except OffbeatError as error:
            text = f"{type(error).__name__}: {error}"
            named = path.name.removesuffix(".gz") in text or not reader.named
            return text, "" if named else "the file is not named"
        except Exception:
            return traceback.format_exc(), "an exception that is not offbeat's"
        if value == self.values[reader.name]:
            return "the same value", ""
        return "another value", "silently another value" if accident and reader.summed else ""


def _peak(reset: bool = False) -> int:
    """The most memory that this process has had, in bytes, since the last reset; 0 where nobody says."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    except (OSError, StopIteration):
        return 0


def fuzzed(
    cases: list[int], told: Callable[[Result], None] = lambda result: None, keep: Path | None = None
) -> list[Result]:
    """Run these cases; those that went wrong."""
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz(Path(folder))
        for case in cases:
            result = fuzz.run(case)
            told(result)
            if result.fault:
                wrong.append(result)
                if keep is not None:
                    with contextlib.suppress(OSError):  # pipes and devices
                        shutil.copytree(Path(folder) / "work", keep / str(case), dirs_exist_ok=True)
    return wrong


def main() -> None:
    """All cases, or one."""
    parser = argparse.ArgumentParser(description="Damaged and hostile files for every reader.")
    parser.add_argument("--case", type=int, help="only this one")
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--keep", type=Path, help="leave the files of cases that failed here")
    args = parser.parse_args()
    torch.set_num_threads(1)

    def told(result: Result) -> None:
        faulthandler.dump_traceback_later(12 * SLOW, exit=True)  # a hang in C
        if result.fault or args.case is not None:
            print(
                f"case {result.case}, {result.reader}, {result.done}: {result.fault or 'clean'}\n  "
                f"{result.outcome}"
            )

    cases = list(range(args.cases)) if args.case is None else [args.case]
    wrong = fuzzed(cases, told, args.keep)
    print(f"{len(cases):,} cases, {len(wrong)} went wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
