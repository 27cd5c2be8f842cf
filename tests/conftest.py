"""What all tests share: one thread, reproducible Hypothesis, real data, fixtures for whole commands."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from command_line import Call
    from one_agent import Join

    from offbeat import Comparison

gc.disable()  # until `pytest_collection_finish`: imports and tests are not garbage


@pytest.fixture(autouse=True)
def usual_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as where nothing says how wide."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def usually_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this process are evaluated as often as users' are: see `seldom`."""
    from seldom import USUALLY

    for module in ("ends", "experiment"):
        monkeypatch.setattr(f"offbeat.experiments.{module}.EVALUATIONS", USUALLY)


@pytest.fixture
def real_data() -> Path:
    """The folder with real data sets; the test is skipped where there is none."""
    folder = Path(os.environ.get("OFFBEAT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "mnist").is_dir():
        pytest.skip(f"no real data in {folder}")
    return folder


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Run `offbeat` with these arguments, in this process and in a folder of its own."""
    from command_line import caller

    monkeypatch.chdir(tmp_path)
    return caller(monkeypatch, capsys)


@pytest.fixture
def nobody_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """`offbeat.join` has not been called in this process."""
    monkeypatch.setattr("offbeat.training.member._joined", [])
    monkeypatch.delenv("OFFBEAT_RUN", raising=False)


@pytest.fixture
def in_a_run(tmp_path: Path, nobody_joined: None) -> Iterator[Join]:
    """Makes the only agent of a run, in this process; what it is given are the run's settings."""
    from one_agent import run_of_one

    with run_of_one(tmp_path) as join:
        yield join


def pytest_configure(config: pytest.Config) -> None:
    """Who starts this in the background, or with nohup, has signals ignored; the processes of tests would,
    too. Who only deals the tests out to others imports nothing.
    """
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", 0):
        _prepare()


def _prepare() -> None:
    import seldom  # noqa: F401
    import torch
    from hypothesis import settings

    settings.register_profile("offbeat", deadline=None, derandomize=True, max_examples=25)
    settings.load_profile("offbeat")
    torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Modules and tests are there to the end: no collection of garbage looks through them again."""
    gc.freeze()
    gc.enable()


# -- comparisons that tests of tables, figures and pages look at, made once for all of them ------------


@pytest.fixture(scope="session")
def digits() -> Comparison:
    import offbeat

    return offbeat.compare(
        "adsgd,adpsgd,rfast,dsgd,allreduce", task="digits", case="combined", seeds=2, until=60, target=0.3
    )


@pytest.fixture(scope="session")
def quadratic() -> Comparison:
    import offbeat

    return offbeat.compare(["adsgd", "dsgd"], task="quadratic", until=40, seeds=2, lr=[0.1, 0.05])


@pytest.fixture(scope="session")
def diverged() -> Comparison:
    import offbeat

    made = offbeat.compare(["adsgd", "dsgd"], task="digits", until=60, seeds=2, lr={"": 0.01, "dsgd": 1e37})
    assert {run.algorithm for run in made.runs if run.diverged_at is not None} == {"dsgd"}
    return made
