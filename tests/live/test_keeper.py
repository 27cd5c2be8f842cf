"""The keeper of a machine: what it makes there, and what it removes."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from warm import needs_shared_memory

from offbeat.core.system import files
from offbeat.engines.live.cluster import keeper
from offbeat.engines.live.cluster.keeper import LEFT, Plan

pytestmark = needs_shared_memory


def test_a_keeper_tidies_up_after_the_dead_and_never_after_one_that_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes of one machine begin at once: one looks for what is left before the other has its lock."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, missed, begins = (Plan("run", k, 3, {}, "/runs/R") for k in range(3))
    for plan in (dead, missed):
        plan.results.mkdir(parents=True)
    (missed.own / LEFT).touch()
    take = files.take

    def late(folder: Path, sure: bool = False) -> Any:
        monkeypatch.setattr(files, "take", take)
        keeper.tidy()
        return take(folder, sure)

    monkeypatch.setattr(files, "take", late)
    held = keeper.make_results(begins)
    keeper.tidy()
    assert held is not None and begins.results.is_dir()
    assert not dead.own.exists() and missed.results.is_dir()
    held.release()
    keeper.tidy()
    assert [*tmp_path.iterdir()] == [missed.own]
