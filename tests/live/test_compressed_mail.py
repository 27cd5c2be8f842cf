"""Compressed messages between real processes: what lies in shared memory, what is counted, the replay."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from recorded import exact_replay
from warm import finished, needs_shared_memory

from offbeat.core.codecs import Codec, Int8, TopK
from offbeat.core.compression import Packed
from offbeat.core.vector import Stamp, Vector
from offbeat.engines.events import Rejoined, rows_of
from offbeat.engines.live.shm.layout import Tag
from offbeat.engines.live.shm.letters import HEAD, WRITTEN
from offbeat.engines.live.shm.mail import Mailbox
from offbeat.engines.live.shm.register import Register
from offbeat.engines.live.shm.wire import layout_of

pytestmark = needs_shared_memory

LENGTH = 100_000


@dataclass(frozen=True)
class Model:
    x: Vector


def message() -> Model:
    return Model(Vector((torch.randn(LENGTH, dtype=torch.float64), torch.randn(5)), Stamp(3, 7)))


def test_a_register_is_as_small_as_what_is_sent(tmp_path: Path) -> None:
    given = message()
    packed = {"x": Packed.of(given.x, Int8())}
    mine = Register.create(tmp_path / "r", layout_of(given, packed), (1,))
    mine.write(given, Tag(start=1.0, end=2.0), packed)
    assert (tmp_path / "r").stat().st_size < 3 * LENGTH + 2000
    version, (x,), words = Register.attach(tmp_path / "r").copy()
    assert (version, x.stamp, Tag.of(words).end) == (1, Stamp(3, 7), 2.0)
    assert all(torch.equal(a, b) for a, b in zip(x.parts, packed["x"].unpacked(), strict=True))


@pytest.mark.parametrize("codec", [Int8(), TopK(0.01)])
def test_a_letter_takes_as_many_bytes_as_are_sent(codec: Codec, tmp_path: Path) -> None:
    given = message()
    packed = {"x": Packed.of(given.x, codec)}
    box = Mailbox.create(tmp_path / "m", 2 * given.x.nbytes)
    assert box.put(given, Tag(), packed) and box.put(given, Tag())
    head = memoryview((tmp_path / "m").read_bytes()[: HEAD.size]).cast("q")
    assert 0 < head[WRITTEN] - packed["x"].nbytes - given.x.nbytes < 2000
    there = Mailbox.attach(tmp_path / "m")
    for expected in (packed["x"].unpacked(), given.x.parts):
        taken = there.take()
        assert taken is not None and taken[0].x.stamp == Stamp(3, 7)
        assert all(torch.equal(a, b) for a, b in zip(taken[0].x.parts, expected, strict=True))


@pytest.mark.parametrize(("algorithm", "said"), [("adsgd", "int8"), ("adsgd:memory-efficient", "top-k:0.3")])
def test_a_run_with_a_death_is_replayed_to_the_bit(algorithm: str, said: str, tmp_path: Path) -> None:
    world = ("--task", "quadratic", "--agents", "4", "--unit", "4ms", "--until", "200", "--lr", "0.1")
    kill = ("--fault", "kill agent 1 at step 5", "--compress", said, "--out", "out")
    run = finished(tmp_path, "live", "--algorithms", algorithm, *world, *kill)
    assert run.code == 0, run.said + run.complained
    assert f"compress {said}" in " ".join(run.said.split())
    (folder,) = (tmp_path / "out").glob("*-lr0.1")
    trace = exact_replay(folder).trace
    assert rows_of(trace.events, Rejoined)["agent"].tolist() == [1]
    sizes, whole = {*trace.transmissions["bytes"].tolist()}, 10 * 8
    assert sizes == ({10 + 8} if said == "int8" else {3 * (4 + 8), whole})
