"""Registers and mail in shared memory, with real processes."""

import errno
import multiprocessing
import os
import platform
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import RLock
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from offbeat.core.vector import Leased, Parts, Scope, Stamp, Vector
from offbeat.engines.live.node.driver import Driver
from offbeat.engines.live.shm.layout import DTYPES, Layout, SharedMemoryError, Tag, read_layout
from offbeat.engines.live.shm.mail import Mailbox
from offbeat.engines.live.shm.register import Register
from offbeat.engines.live.shm.slots import SLOTS
from offbeat.engines.live.shm.wire import layout_of, message_of, stamps
from offbeat.experiments.live.program import copied

SHAPE = ((torch.float32, 50_000), (torch.float64, 3))


@dataclass(frozen=True)
class Model:
    x: Vector


@dataclass(frozen=True)
class Numbered:
    k: int
    x: Vector
    scale: float


FORK = multiprocessing.get_context("fork")

pytestmark = [
    pytest.mark.skipif(
        platform.machine().lower() not in ("x86_64", "amd64") or not Path("/dev/shm").is_dir(),
        reason="needs x86-64 and /dev/shm",
    ),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # from Python 3.12 on
]


def filled(value: float) -> Parts:
    return tuple(torch.full((length,), value, dtype=dtype) for dtype, length in SHAPE)


LAYOUT = layout_of(Model(Vector(filled(0.0))))


def publish(register: Register, value: float) -> int:
    v = Vector(filled(value), Stamp(0, int(value)))
    with Scope():
        (placed,) = register.begin([v])
    placed.stamp = v.stamp
    return register.finish(Model(placed), Tag(round=int(value)))


@pytest.fixture
def path() -> Iterator[Path]:
    with TemporaryDirectory(dir="/dev/shm", prefix="offbeat-test-") as folder:
        yield Path(folder) / "register"


def test_what_is_published_is_read_in_place(path: Path) -> None:
    writer = Register.create(path, LAYOUT, to=(1, 2))
    reader = Register.attach(path)
    assert (reader.newest, reader.to, reader.layout) == (0, (1, 2), LAYOUT)
    assert reader.copy()[0] == 0
    assert publish(writer, 7.0) == 1
    (parts,), words = reader.read(1)
    assert reader.whole(1)
    assert [part.dtype for part in parts] == [torch.float32, torch.float64]
    assert all((part == 7.0).all() for part in parts)
    assert Tag.of(words).round == 7
    assert stamps(reader.layout, words) == [Stamp(0, 7)]
    assert reader.read(1)[0][0][0].data_ptr() == parts[0].data_ptr(), "no copy is made"


def test_a_form_is_evaluated_into_the_slot_and_moves_out_before_it_is_overwritten(path: Path) -> None:
    register = Register.create(path, LAYOUT)
    x = Vector(filled(1.0))
    kept = []
    for version in range(1, 2 * SLOTS + 1):
        with Scope():
            x = x + Vector(filled(1.0))
            (placed,) = register.begin([x])
        assert placed is x, "a form needs no copy"
        assert isinstance(x.parts, Leased)
        register.finish(Model(x), Tag())
        assert register.read(version)[0][0] is x.parts
        kept.append(x)
    for k, v in enumerate(kept):
        assert all((part == 2.0 + k).all() for part in v.parts), "values never change, whoever keeps them"


def test_where_a_gradient_is_taken_stays_what_it_is_while_mail_moves_the_model_on(path: Path) -> None:
    """Its memory is recycled after a few versions, whoever still reads it."""
    register = Register.create(path, LAYOUT)

    def next_model() -> Vector:
        with Scope():
            (placed,) = register.begin([Vector(filled(1.0))])
        register.finish(Model(placed), Tag(round=1))
        return placed

    driver = cast(Driver, SimpleNamespace(lock=RLock()))
    given, read = copied(driver, next_model).parts, next_model().parts
    for version in range(2, 2 * SLOTS + 2):
        publish(register, float(version))
    assert all((part == 1.0).all() for part in given)
    assert not any((part == 1.0).any() for part in read), "as it was read before"


def test_a_value_and_a_vector_on_its_way_elsewhere_are_copied(path: Path) -> None:
    first, second = (Register.create(path.with_name(name), LAYOUT) for name in "ab")
    with Scope():
        form = Vector(filled(2.0)) + Vector(filled(1.0))
        (one,), (two,) = first.begin([form]), second.begin([form])
    assert one is form
    assert two is not form
    assert all((part == 3.0).all() for v in (one, two) for part in v.parts)
    assert one.parts[0].data_ptr() != two.parts[0].data_ptr()


@given(st.integers(1, 12))
def test_a_version_stays_whole_until_the_writer_has_lapped_it(later: int) -> None:
    with TemporaryDirectory(dir="/dev/shm", prefix="offbeat-test-") as folder:
        writer = Register.create(Path(folder) / "register", LAYOUT)
        publish(writer, 1.0)
        for version in range(2, 2 + later):
            publish(writer, float(version))
        assert writer.whole(1) == (later < SLOTS)
        version, (v,), _ = writer.copy()
        assert version == 1 + later
        assert all((part == float(version)).all() for part in v.parts)


def hammer(path: Path, versions: int) -> None:
    torch.set_num_threads(1)
    writer = Register.attach(path)
    for version in range(1, versions + 1):
        publish(writer, float(version))


def test_no_torn_read_under_a_hostile_writer(path: Path) -> None:
    """Another process publishes as fast as it can: every copy is one version, whole, and none goes back."""
    last, seen = 600, 0
    reader = Register.create(path, LAYOUT)
    process = FORK.Process(target=hammer, args=(path, last))
    process.start()
    while seen < last:
        version, vectors, words = reader.copy()
        assert version >= seen
        seen = version
        if version:
            assert Tag.of(words).round == version
            assert vectors[0].stamp == Stamp(0, version)
            assert all((part == float(version)).all() for part in vectors[0].parts)
        assert process.is_alive() or reader.newest == last
    process.join(timeout=30)
    assert process.exitcode == 0


def die_half_way(path: Path) -> None:
    writer = Register.attach(path)
    publish(writer, 1.0)
    version = writer.newest + 1
    writer._cells[writer._counter[version % SLOTS]] = 2 * version - 1  # as `begin` does
    writer._parts[version % SLOTS][0][0][:100] = 99.0
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_writer_killed_half_way_leaves_the_version_before(path: Path) -> None:
    reader = Register.create(path, LAYOUT)
    process = FORK.Process(target=die_half_way, args=(path,))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    version, (v,), _ = reader.copy()
    assert version == 1
    assert all((part == 1.0).all() for part in v.parts)


def test_nobody_else_may_read_it_and_names_are_not_shared(path: Path) -> None:
    register = Register.create(path, LAYOUT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(SharedMemoryError, match="it exists"):
        Register.create(path, LAYOUT)
    path.unlink()
    with pytest.raises(SharedMemoryError, match="Cannot attach"):
        Register.attach(path)
    assert publish(register, 1.0) == 1, "who has it mapped keeps it"
    assert list(path.parent.iterdir()) == []


def test_what_is_no_register_or_mailbox_is_refused(path: Path) -> None:
    path.write_bytes(b"short")
    for kind in (Register, Mailbox):
        with pytest.raises(SharedMemoryError, match="offbeat"):
            kind.attach(path)


def test_too_little_shared_memory_says_what_to_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SharedMemoryError, match=r"too small: 0.6 MB were asked for.*--shm-size"):
        Register.create(path, LAYOUT)
    assert list(path.parent.iterdir()) == []


def test_processors_without_ordered_stores_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(SharedMemoryError, match="aarch64"):
        Register.create(path, LAYOUT)


# -- mail ------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 300), min_size=1, max_size=60), st.integers(0, 3))
def test_mail_arrives_once_in_order_and_whole(lengths: list[int], lag: int) -> None:
    """Messages of many lengths through a small ring, with the receiver up to `lag` messages behind."""
    with TemporaryDirectory(dir="/dev/shm", prefix="offbeat-test-") as folder:
        sender = Mailbox.create(Path(folder) / "mail", 4000)
        receiver = Mailbox.attach(Path(folder) / "mail")
        got: list[tuple[int, int]] = []

        def take() -> bool:
            mail = receiver.take()
            if mail is None:
                return False
            message, with_ = mail
            assert (message.x.parts[0] == message.k).all()
            assert (message.scale, with_) == (message.k / 4, Tag(message.k, 1, 2.5, 3.5))
            got.append((message.k, message.x.parts[0].numel()))
            return True

        for k, length in enumerate(lengths):
            message = Numbered(k, Vector((torch.full((length,), float(k)),)), k / 4)
            while not sender.put(message, Tag(k, 1, 2.5, 3.5)):
                assert take(), "it is full, so there is something to take"
                assert receiver.wanted()
            while k + 1 - len(got) > lag:
                assert take()
        while take():
            pass
        assert got == list(enumerate(lengths))
        assert not receiver.wanted()


def test_a_message_that_never_fits_is_an_error(path: Path) -> None:
    box = Mailbox.create(path, 1000)
    with pytest.raises(SharedMemoryError, match="the mailbox holds"):
        box.put(Model(Vector(filled(1.0))), Tag())


def post_all(path: Path, count: int) -> None:
    box = Mailbox.attach(path)
    for k in range(count):
        while not box.put(Numbered(k, Vector((torch.full((k % 50,), float(k)),)), 0.5), Tag()):
            pass


def test_mail_between_processes(path: Path) -> None:
    count, box = 400, Mailbox.create(path, 2000)
    process = FORK.Process(target=post_all, args=(path, count))
    process.start()
    for k in range(count):
        while (mail := box.take()) is None:
            assert process.is_alive()
        message = mail[0]
        assert message.k == k
        assert message.x.parts[0].tolist() == [float(k)] * (k % 50)
    process.join(timeout=30)
    assert process.exitcode == 0


def test_only_message_types_that_are_loaded_are_made(path: Path) -> None:
    for kind in ("os:system", "nowhere:Model", f"{__name__}:nothing", "builtins:dict"):
        with pytest.raises(SharedMemoryError, match="no frozen dataclass"):
            message_of(Layout(kind, (), ()), (0, 0, 0.0, 0.0), [])
    for text in (b"{}", b"[1]", b'["a:b", [], [["x", [["os", 3]]]]]', b"\xff"):
        with pytest.raises(SharedMemoryError, match="Not a message"):
            read_layout(text)


def test_what_numbers_may_be_is_known_without_torch_as_torch_has_it() -> None:
    assert {name: getattr(torch, name).itemsize for name in DTYPES} == DTYPES
    for name in DTYPES:
        layout = layout_of(Model(Vector((torch.zeros(3, dtype=getattr(torch, name)),))))
        assert read_layout(layout.text) == layout
    with pytest.raises(SharedMemoryError, match="is of float8_e5m2; expected numbers"):
        layout_of(Model(Vector((torch.zeros(3, dtype=torch.float8_e5m2),))))
