"""What ends a command: signals, the connection that drops among them; and terminals that are gone."""

import ctypes
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from user_scripts import UNTIL_BACK
from warm import needs_shared_memory, start, until

from offbeat.cli.console import Out
from offbeat.core.system.signals import Terminated, deferred, exit_code, handled, kept_from_calls, terminable
from offbeat.engines.trace import Trace
from offbeat.experiments.replaying import replayed

ME = os.getpid()


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_what_is_done_as_ctrl_c_does(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt) as interrupt, terminable():
        os.kill(ME, number)
    assert isinstance(interrupt.value, Terminated) and exit_code(interrupt.value) == 128 + number
    assert exit_code(KeyboardInterrupt()) == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_a_finalizer_swallows_comes_again(number: signal.Signals) -> None:
    class Dropped:
        def __del__(self) -> None:
            os.kill(ME, number)
            sum(range(10))  # the handler runs here, and what it raises is ignored by Python

    with pytest.raises(KeyboardInterrupt) as interrupt, terminable():
        Dropped()
        until(lambda: False)
    assert exit_code(interrupt.value) == 128 + number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_waits_until_what_is_kept_is_written(number: signal.Signals) -> None:
    done = list[str]()
    with pytest.raises(KeyboardInterrupt) as interrupt, terminable():
        with deferred():
            os.kill(ME, number)
            done.append("written")
        done.append("not reached")
    assert done == ["written"] and exit_code(interrupt.value) == 128 + number


SCRIPT = """
import offbeat, torch
model, agent = torch.nn.Linear(2, 1), offbeat.join()
optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
for _ in range(5):
    optimizer.zero_grad()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
"""
KILLED = """
import os, signal
from offbeat.engines.trace import Trace
save = Trace.save
Trace.save = lambda trace, path: (os.kill(os.getpid(), signal.SIGTERM), save(trace, path))
"""


@needs_shared_memory
def test_a_signal_while_the_trace_is_written_costs_no_trace(tmp_path: Path) -> None:
    run = start(tmp_path, "launch", "--out", "out", "train.py", script=SCRIPT, setup=KILLED)
    assert run.wait() == 143, run.complained
    assert "2 agents made 10 steps" in run.complained
    assert replayed(Trace.load(tmp_path / "out" / "trace.npz"), tmp_path / "out").same


@needs_shared_memory
def test_nor_does_it_in_a_live_experiment(tmp_path: Path) -> None:
    words = "live --task quadratic --agents 2 --unit 1ms --until 20 --algorithms adsgd --out out"
    run = start(tmp_path, *words.split(), setup=KILLED)
    assert run.wait() == 143, run.complained
    (folder,) = (tmp_path / "out").glob("adsgd-*")
    assert replayed(Trace.load(folder / "trace.npz"), folder).same


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_after_one_that_waits_another_does_not(number: signal.Signals) -> None:
    done = list[str]()
    with pytest.raises(KeyboardInterrupt) as interrupt, terminable(), deferred():
        os.kill(ME, number)
        done.append("waits")
        os.kill(ME, signal.SIGTERM)
        done.append("not reached")
    assert done == ["waits"] and exit_code(interrupt.value) == 128 + signal.SIGTERM


def test_a_connection_that_drops_is_told_once_and_what_is_saved_afterwards_is_safe() -> None:
    came = list[int]()
    with terminable():
        with handled(came.append):
            for _ in range(3):
                os.kill(ME, signal.SIGHUP)
            os.kill(ME, signal.SIGTERM)
        os.kill(ME, signal.SIGHUP)  # the shell's, say, when all has ended but the results are being written
    os.kill(ME, signal.SIGHUP)
    assert came == [signal.SIGHUP, signal.SIGTERM]


def test_under_nohup_a_dropped_connection_ends_nothing() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with terminable():
        os.kill(ME, signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@needs_shared_memory
def test_a_live_run_whose_connection_drops_is_saved(tmp_path: Path) -> None:
    run = start(tmp_path, "launch", "-n", "2", "--out", "out", "train.py", script=UNTIL_BACK)
    log = tmp_path / "out" / "agent-1.trace"
    until(lambda: log.exists() and log.stat().st_size > 1000)
    run.kill(signal.SIGHUP)
    run.kill(signal.SIGHUP)
    assert run.wait() == 128 + signal.SIGHUP, run.complained
    assert replayed(Trace.load(tmp_path / "out" / "trace.npz")).same
    assert len([*(tmp_path / "out" / "checkpoints").glob("agent-[01]/step-*")]) == 2
    assert not run.shared


class Gone(StringIO):
    """A terminal whose connection has dropped."""

    number = -1

    def write(self, _: str) -> int:
        raise OSError(errno.EIO, "Input/output error")

    def fileno(self) -> int:
        return self.number


@pytest.mark.parametrize("stderr", [False, True])
def test_a_terminal_that_is_gone_ends_nothing(stderr: bool, tmp_path: Path) -> None:
    out, gone = Out(stderr=stderr), Gone()
    out.file = gone
    with (tmp_path / "other").open("w") as other:
        gone.number = other.fileno()
        out.print("results")
        out.control()
        assert out.quiet


def test_hooks_that_go_on_to_each_other_come_to_an_end(capfd: pytest.CaptureFixture[str]) -> None:
    """Another is put in while C code runs, and stays; the next C code finds it."""
    former = sys.unraisablehook
    callback = ctypes.CFUNCTYPE(None)(lambda: 1 / 0)
    found = list[BaseException]()

    def another(lost: "sys.UnraisableHookArgs") -> None:
        before(lost)

    try:
        with kept_from_calls(found.append):
            before, sys.unraisablehook = sys.unraisablehook, another
        with kept_from_calls(found.append):
            callback()
            kept = threading.Thread(target=callback)  # nobody keeps what is raised there
            kept.start()
            kept.join()
    finally:
        sys.unraisablehook = former
    assert [type(error) for error in found] == [ZeroDivisionError]
    assert capfd.readouterr().err.count("ZeroDivisionError") == 1
