"""Registers in shared memory, with real processes."""

import errno
import multiprocessing
import os
import platform
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from offbeat.live.segment import SLOTS, FabricError, Segment, Shape
from offbeat.vector import Parts

SHAPE = Shape(((torch.float32, 50_000), (torch.float64, 3)))
SPAWN = multiprocessing.get_context("spawn")

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64") or not Path("/dev/shm").is_dir(),
    reason="needs x86-64 and /dev/shm",
)


def filled(value: float) -> Parts:
    return tuple(torch.full((length,), value, dtype=dtype) for dtype, length in SHAPE.parts)


@pytest.fixture
def path() -> Iterator[Path]:
    with TemporaryDirectory(dir="/dev/shm", prefix="offbeat-test-") as folder:
        yield Path(folder) / "register"


def test_what_is_published_is_read_in_place(path: Path) -> None:
    writer = Segment.create(path, SHAPE)
    reader = Segment.attach(path, SHAPE)
    assert reader.newest == 0
    assert reader.copy() == (0, (), [])
    assert writer.publish(filled(7.0), [1.5, -2.0]) == 1
    parts, numbers = reader.read(1)
    assert reader.whole(1)
    assert [part.dtype for part in parts] == [torch.float32, torch.float64]
    assert all((part == 7.0).all() for part in parts)
    assert numbers[:2] == [1.5, -2.0]
    assert reader.read(1)[0][0].data_ptr() == parts[0].data_ptr(), "no copy is made"
    assert Shape.of(parts) == SHAPE


@given(st.integers(1, 12))
def test_a_version_stays_whole_until_the_writer_has_lapped_it(later: int) -> None:
    with TemporaryDirectory(dir="/dev/shm", prefix="offbeat-test-") as folder:
        writer = Segment.create(Path(folder) / "register", SHAPE)
        writer.publish(filled(1.0))
        for version in range(2, 2 + later):
            writer.publish(filled(float(version)))
        assert writer.whole(1) == (later < SLOTS)
        version, parts, _ = writer.copy()
        assert version == 1 + later
        assert all((part == float(version)).all() for part in parts)


def hammer(path: Path, versions: int) -> None:
    torch.set_num_threads(1)
    writer = Segment.attach(path, SHAPE)
    for version in range(1, versions + 1):
        writer.publish(filled(float(version)), [float(version)])


def test_no_torn_read_under_a_hostile_writer(path: Path) -> None:
    """Another process publishes as fast as it can: every copy is one version, whole, and none goes back."""
    last, seen = 3000, 0
    reader = Segment.create(path, SHAPE)
    process = SPAWN.Process(target=hammer, args=(path, last))
    process.start()
    while seen < last:
        version, parts, numbers = reader.copy()
        assert version >= seen
        seen = version
        if version:
            assert numbers[0] == version
            assert all((part == float(version)).all() for part in parts)
        assert process.is_alive() or reader.newest == last
    process.join(timeout=30)
    assert process.exitcode == 0


def die_half_way(path: Path) -> None:
    writer = Segment.attach(path, SHAPE)
    writer.publish(filled(1.0))
    version = writer.newest + 1
    writer._words[version % SLOTS][0] = 2 * version - 1  # as `publish` begins
    writer._parts[version % SLOTS][0][:100] = 99.0
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_writer_killed_half_way_leaves_the_version_before(path: Path) -> None:
    reader = Segment.create(path, SHAPE)
    process = SPAWN.Process(target=die_half_way, args=(path,))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    version, parts, _ = reader.copy()
    assert version == 1
    assert all((part == 1.0).all() for part in parts)
    assert Segment.attach(path, SHAPE).publish(filled(2.0)) == 2, "who comes back goes on from there"
    assert reader.copy()[0] == 2


def test_nobody_else_may_read_it_and_names_are_not_shared(path: Path) -> None:
    segment = Segment.create(path, SHAPE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FabricError, match="Cannot create"):
        Segment.create(path, SHAPE)
    segment.unlink()
    segment.unlink()
    with pytest.raises(FabricError, match="Cannot attach"):
        Segment.attach(path, SHAPE)
    assert segment.publish(filled(1.0)) == 1, "who has it mapped keeps it"


def test_another_model_is_refused(path: Path) -> None:
    Segment.create(path, SHAPE)
    with pytest.raises(FabricError, match="same model"):
        Segment.attach(path, Shape(((torch.float32, 10),)))
    path.write_bytes(b"short")
    with pytest.raises(FabricError, match="expected"):
        Segment.attach(path, SHAPE)


def test_too_little_shared_memory_says_what_to_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(FabricError, match=r"too small: 1 MB were asked for.*--shm-size"):
        Segment.create(path, SHAPE)
    assert not path.exists()


def test_processors_without_ordered_stores_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(FabricError, match="aarch64"):
        Segment.create(path, SHAPE)
