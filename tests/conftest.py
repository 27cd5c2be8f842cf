"""What all tests share: one thread, reproducible Hypothesis, where real data may be."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("offbeat", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("offbeat")
torch.set_num_threads(1)


@pytest.fixture
def real_data() -> Path:
    """The folder with real data sets; the test is skipped where there is none."""
    folder = Path(os.environ.get("OFFBEAT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "mnist").is_dir():
        pytest.skip(f"no real data in {folder}")
    return folder


def pytest_configure() -> None:
    """Who starts this in the background, or with nohup, has signals ignored; the processes of tests would,
    too.
    """
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)
