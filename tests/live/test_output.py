"""What agents print, through real pipes: bars, lines without end, output without pause, and the file that
keeps it.
"""

import os
import sys
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from termios import FIONREAD

import pytest
from warm import until

from offbeat.engines.live.launcher.children import CHUNK, LONGEST, READING, Children, Output
from offbeat.engines.live.shm.board import LAUNCHER, Bell


class Pipe:
    """An agent's output, and what became of it."""

    def __init__(self, folder: Path) -> None:
        reading, self.writing = os.pipe()
        self.said: list[str] = []
        self.path = folder / "agent-0.log"
        self.output = Output(0, reading, self.path, lambda agent, line: self.said.append(line))

    def prints(self, text: str) -> None:
        """Print it, and let the launcher read all of it."""
        os.write(self.writing, text.encode())
        while self.output.read():
            pass

    @property
    def kept(self) -> str:
        """What is in the file."""
        return self.path.read_text()


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    made = Pipe(tmp_path)
    yield made
    for handle in (made.output.handle, made.writing):
        os.close(handle)


def test_a_bar_is_one_line_whose_newest_state_counts(pipe: Pipe) -> None:
    """Bars that begin with a carriage return, as tqdm's, and such that end with one."""
    for k in range(0, 101, 10):
        pipe.prints(f"\r{k:3}%|{k // 10 * '#'}|")
        assert pipe.output.newest == pipe.kept == f"{k:3}%|{k // 10 * '#'}|"
    assert not pipe.said
    pipe.prints("\n")
    assert pipe.output.newest == ""
    for k in range(3):
        pipe.prints(f"batch {k} of 3\r")
        assert pipe.output.newest == f"batch {k} of 3"
    pipe.prints("\nloss 0.5\r\nlo")
    assert pipe.said == ["100%|##########|", "batch 2 of 3", "loss 0.5"]
    assert pipe.kept == "100%|##########|\nbatch 2 of 3\nloss 0.5\nlo"


def test_the_file_goes_on_after_what_was_there_and_holds_the_last_words(pipe: Pipe) -> None:
    pipe.path.write_text("of an earlier life\n")
    pipe.prints("one\ntwo\rthree, unfinished")
    pipe.output.finish()
    pipe.output.keep("Traceback\n  of two lines")
    assert pipe.kept == "of an earlier life\none\nthree, unfinished\nTraceback\n  of two lines\n"
    assert pipe.said == list(pipe.output.lines) == ["one", "three, unfinished"]


def test_a_line_without_end_takes_bounded_memory(pipe: Pipe) -> None:
    for _ in range(20):
        pipe.prints(CHUNK * "x")
    assert len(pipe.said) == 1 and LONGEST < len(pipe.said[0]) <= LONGEST + CHUNK
    assert pipe.kept.replace("\n", "") == 20 * CHUNK * "x"


def test_a_bar_of_many_states_takes_linear_time(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in bytes that are written to the file: no more for a state when there were many before."""
    written: list[int] = []
    real = os.pwrite

    def counted(handle: int, content: bytes, at: int) -> int:
        written.append(len(content))
        return real(handle, content, at)

    monkeypatch.setattr(os, "pwrite", counted)
    for k in range(2000):
        pipe.prints(f"\r{k:>30}")
    assert sum(written) == 2000 * 30
    assert pipe.output.newest == f"{1999:>30}"


def test_output_that_cannot_be_kept_is_said_once_and_still_shown(tmp_path: Path) -> None:
    pipe = Pipe(tmp_path / "gone")
    pipe.prints("one\n")
    pipe.prints("two\n")
    assert pipe.said == [
        f"(the output is no longer kept: {pipe.path}: No such file or directory)",
        "one",
        "two",
    ]


class Ticks:
    """Stands for the module `time`: each look at the clock takes as long as is said."""

    def __init__(self) -> None:
        self.now, self.took = 0.0, 0.0

    def monotonic(self) -> float:
        self.now += self.took
        return self.now


def waiting(handle: int) -> int:
    """Bytes that can be read."""
    return int.from_bytes(ioctl(handle, FIONREAD, bytes(4)), sys.byteorder)


def test_agents_that_print_without_pause_stop_neither_the_launcher_nor_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three always have more to say: a wait reads a bounded amount, of each in turn; who had none as the
    time was over is next. All pipes are full before, so it does not matter which process runs when.
    """
    turns, heard = list[int](), list[int]()
    read, clock, bell = Output.read, Ticks(), Bell(tmp_path, LAUNCHER)
    children = Children(bell.handle, lambda agent, line: None)

    def counted(output: Output) -> bool:
        turns.append(output.agent)
        return read(output)

    try:
        chatter = ["-S", "-c", "while True: print('abcdefg\\n' * 64)"]
        for i in range(3):
            children.start(i, 1, chatter, {}, tmp_path / f"agent-{i}.log")
        pipes = [child.output.handle for child in children.running.values()]
        until(lambda: all(waiting(pipe) >= 30 * CHUNK for pipe in pipes))
        monkeypatch.setattr(Output, "read", counted)
        monkeypatch.setattr("offbeat.engines.live.launcher.children.time", clock)
        for reads in (12, 1, 1, 1, 2, 2, 2):
            turns.clear()
            clock.took = READING / (2 * reads)  # the clock is looked at in each read, and after it
            bell.ring()
            children.wait(1.0)
            assert len(turns) == reads, "it looks at other things soon"
            heard += turns
        assert all(heard[:12].count(i) == 4 for i in range(3)), "round and round"
        assert all({*heard[k : k + 3]} == {0, 1, 2} for k in (12, 15, 18)), "in turn, also between waits"
    finally:
        children.close()
        bell.close()
