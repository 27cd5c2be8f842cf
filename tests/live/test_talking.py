"""What the launcher of a run over machines does where its own disk is full, or the thread that talks to them
fails.
"""

import asyncio
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from warm import needs_shared_memory

from offbeat.core.errors import DiskError
from offbeat.engines.live.cluster.talking import Talk
from offbeat.engines.live.shm.board import Board
from offbeat.engines.live.shm.run_folder import make_run_folder

pytestmark = needs_shared_memory


@contextmanager
def talk(folder: Path, asked: list[Any], machines: int = 1, **answers: Any) -> Iterator[Talk]:
    """With machines that give these answers."""

    async def ask(machine: int, what: str, *more: Any) -> Any:
        asked.append((what, *more))
        return answers[what]

    about: Any = {"names": ["a"] * machines, "hosts": [0], "run": "r"}
    fleet: Any = SimpleNamespace(**about, ask=ask, called=lambda machine: "machine 0")
    shared = make_run_folder({})
    try:
        board = Board.create(shared.path / "board", 1)
        launcher: Any = SimpleNamespace(
            settings=SimpleNamespace(folder=folder), board=board, shared=shared.path
        )
        found = Talk(fleet, launcher, None)
        found._heard += [0] * machines
        yield found
        found._loop.close()
    finally:
        shared.remove()


def test_a_full_disk_ends_the_run_in_a_sentence_and_the_machines_can_still_be_ended(tmp_path: Path) -> None:
    (tmp_path / "agent-0.trace").symlink_to("/dev/full")
    said = {"notices": [], "asked": [], "ended": [], "files": [[0, 0, 0]], "newest": {}}
    with talk(tmp_path, [], look=(json.dumps(said), [b"rows"])) as found:
        found._loop.run_until_complete(found._look(0))
    what, error = found.news.get_nowait()
    assert what == "failed" and isinstance(error, DiskError)
    assert f"Cannot write {tmp_path}: No space left on device. Once there is room" in str(error)


@pytest.mark.parametrize("full", [True, False])
def test_what_cannot_be_brought_stays_on_the_machine_and_it_is_ended(tmp_path: Path, full: bool) -> None:
    if full:
        (tmp_path / "checkpoints").write_text("no folder")
    asked: list[Any] = []
    path = "checkpoints/agent-0/step-1.safetensors"
    with talk(tmp_path, asked, files=[(path, 4)], read=b"rows", end=None) as found:
        found._loop.run_until_complete(found.finish(0))
    assert asked[-1] == ("end", full)
    assert (tmp_path / path).exists() is not full
    if full:
        _, (_, notice) = found.news.get_nowait()
        assert "Machine 0 did not give all that it has of the run" in notice
        assert "it keeps that in its temporary folder, in offbeat-" in notice and notice.endswith("-r-0")


def test_nobody_waits_for_a_thread_that_has_failed(tmp_path: Path) -> None:
    """What was asked of it before, or is asked afterwards, is not done."""
    with talk(tmp_path, []) as found:
        before = found.do(asyncio.Event().wait())
        found.start()  # the machine has no gateway
        found.wait(asyncio.Event().wait(), math.inf)
        found._thread.join()
        found.wait(asyncio.Event().wait(), math.inf)
        found.end()
    assert before is not None and before.cancelled()
    what, error = found.news.get_nowait()
    assert what == "failed" and isinstance(error, AttributeError)


def test_what_is_asked_while_the_thread_leaves_is_not_done(tmp_path: Path) -> None:
    """Between the last look at what is left to do and the end of its loop."""
    with talk(tmp_path, []) as found:
        close, meanwhile = found._loop.close, []
        found.changed.append(asyncio.Event())

        def asked() -> None:
            meanwhile.append(found.do(asyncio.Event().wait()))
            close()

        found._loop.close = asked  # type: ignore[method-assign]
        found.start()  # the machine has no gateway
        found._thread.join()
        found._loop.close = close  # type: ignore[method-assign]
        found.say({"zero": 0})
        found.end()
    assert meanwhile == [None]


def test_the_thread_ends_without_a_word_where_nothing_is_left_to_do(tmp_path: Path) -> None:
    with talk(tmp_path, [], machines=0) as found:
        found.start()
        found.wait(found.no_more(), math.inf)
        found.end()
    assert found.news.empty() and found._loop.is_closed()
